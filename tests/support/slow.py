"""Peers that are slow on purpose, one for each phase of a connection, and what ends them: tests/integration says what sluice
does, tests/parity that Envoy does the same."""

import contextlib
import dataclasses
import select
import socket
import time

from support.config import (bootstrap, chain, cluster, direct, file_log, hcm, http_options, listener, route, tcp_proxy,
                            tls_certificate, tls_socket, typed)
from support.h2frames import GET, HEADERS, POST, PREFACE, frame, request, setting
from support.upstream import Reply

LIMIT_S = 0.4
LIMIT = f"{LIMIT_S}s"
LATER = "60s"
DRIP_S = 0.05
LONG = bytes(24 << 20)  # more than all buffers on the way: of HTTP/2 Envoy keeps a window (16 MiB) a stream
HEAD = b"GET /direct HTTP/1.1\r\nhost: test\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 9999\r\n\r\nabc"
UPGRADE = b"GET /up HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


@dataclasses.dataclass
class Phase:
    """`sent` at once, then `drip` byte by byte. Expected: what comes back begins with `got`, counters of the listener or its
    connection manager move, the access log tells."""

    sent: bytes = b""
    drip: bytes = b""
    manager: dict = dataclasses.field(default_factory=dict)
    listener: dict = dataclasses.field(default_factory=dict)
    kind: str = "http"
    got: bytes = b""
    counts: tuple = ()
    log: str = None
    reads: bool = True
    closes: bool = True  # else the stream goes and the connection stays


def proxy_protocol():
    return typed("envoy.filters.listener.proxy_protocol", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol")


def tls_inspector():
    return typed("envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")


def idle(stream):
    return {"stream_idle_timeout": stream, "request_timeout": LATER}


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
NO_WINDOW = PREFACE + setting(4, 0)
PHASES = {
    # before a filter chain is chosen
    "proxy-protocol": Phase(b"PROXY TCP4 1.2.3.4", b" 1.2.3.5 1 2" * 9,
                            listener={"listener_filters": [proxy_protocol()], "listener_filters_timeout": LIMIT},
                            counts=("listener.downstream_pre_cx_timeout",)),
    "client-hello": Phase(HELLO, bytes(100), listener={"listener_filters": [tls_inspector()], "listener_filters_timeout": LIMIT},
                          counts=("listener.downstream_pre_cx_timeout",)),
    # handshake
    "handshake": Phase(HELLO, bytes(100), kind="tls", counts=("listener.downstream_cx_transport_socket_connect_timeout",)),
    # requests
    "nothing": Phase(manager={"common_http_protocol_options": {"idle_timeout": LIMIT}}, counts=("downstream_cx_idle_timeout",)),
    "request-line": Phase(b"GE", b"T /" + b"a" * 100, {"request_headers_timeout": LIMIT}, got=b"HTTP/1.1 408",
                          counts=("downstream_rq_header_timeout",), log="408 - request_header_timeout"),
    "headers": Phase(b"GET / HTTP/1.1\r\nhost: test\r\n", b"x: " + b"a" * 100, {"request_headers_timeout": LIMIT},
                     got=b"HTTP/1.1 408", counts=("downstream_rq_header_timeout",), log="408 - request_header_timeout"),
    "body": Phase(UPLOAD, manager=idle(LIMIT), got=b"HTTP/1.1 408", counts=("downstream_rq_idle_timeout",),
                  log="408 SI stream_idle_timeout"),
    "body-drip": Phase(UPLOAD, b"a" * 100, {"request_timeout": LIMIT}, got=b"HTTP/1.1 408",
                       counts=("downstream_rq_timeout",), log="408 - request_overall_timeout"),
    "stream-duration": Phase(UPLOAD, b"a" * 100, {"common_http_protocol_options": {"max_stream_duration": LIMIT}}, got=b"HTTP/1.1 408",
                             counts=("downstream_rq_max_duration_reached",), log="408 - max_duration_timeout"),
    "between-requests": Phase(HEAD, manager={"common_http_protocol_options": {"idle_timeout": LIMIT}}, got=b"HTTP/1.1 200",
                              counts=("downstream_cx_idle_timeout",), log="200 - direct_response"),
    "connection-duration": Phase(b"", HEAD * 9, {"common_http_protocol_options": {"max_connection_duration": LIMIT}},
                                 counts=("downstream_cx_max_duration_reached",)),
    "answer-unread": Phase(b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n", manager=idle(LIMIT), reads=False,
                           counts=("downstream_rq_idle_timeout",), log="200 SI stream_idle_timeout"),
    "no-close": Phase(b"GET / HTTP/1.1\r\n\r\n", manager={"delayed_close_timeout": LIMIT}, got=b"HTTP/1.1 400",
                      counts=("downstream_cx_delayed_close_timeout",), log="400 - missing_host_header"),
    # HTTP/2
    "h2-preface": Phase(b"PRI * HTTP/2.0\r\n", manager={"common_http_protocol_options": {"idle_timeout": LIMIT}},
                        counts=("downstream_cx_idle_timeout",)),
    "h2-no-streams": Phase(PREFACE, manager={"common_http_protocol_options": {"idle_timeout": LIMIT}},
                           counts=("downstream_cx_idle_timeout",)),
    "h2-keepalive": Phase(PREFACE, manager={"http2_protocol_options": {"connection_keepalive": {
        "interval": "0.1s", "timeout": LIMIT}}}, counts=("http2.keepalive_timeout",)),
    "h2-headers": Phase(PREFACE + frame(HEADERS, 0, 1, GET), manager={"request_headers_timeout": LIMIT},
                        closes=False, counts=("downstream_rq_header_timeout",), log="408 - request_header_timeout"),
    "h2-body": Phase(PREFACE + request(1, POST, end=False), manager=idle(LIMIT),
                     closes=False, counts=("downstream_rq_idle_timeout",), log="408 SI stream_idle_timeout"),
    "h2-no-window": Phase(NO_WINDOW + request(1, GET.replace(b"\x84", b"\x44\x04/big")), manager=idle(LIMIT),
                          closes=False, counts=("downstream_rq_idle_timeout",), log="200 SI stream_idle_timeout"),
    "h2-no-window-complete": Phase(NO_WINDOW + request(1, GET.replace(b"\x84", b"\x44\x07/direct")), manager=idle(LIMIT),
                                   closes=False, counts=("http2.tx_flush_timeout",)),
    "h2-no-window-route": Phase(NO_WINDOW + request(1, GET.replace(b"\x84", b"\x44\x06/short")), manager=idle(LATER),
                                closes=False, counts=("http2.tx_flush_timeout",)),
    # tunnels
    "upgrade": Phase(UPGRADE, manager=idle(LIMIT) | {"upgrade_configs": [{"upgrade_type": "websocket"}]}, got=b"HTTP/1.1 101",
                     counts=("downstream_rq_idle_timeout",), log="101 SI stream_idle_timeout"),
    "tcp": Phase(b"a", kind="tcp", counts=("tcp.idle_timeout",)),
}


def make(name, phase, pair, log):
    if phase.kind == "tcp":
        return listener(tcp_proxy("bytes", stat_prefix=name, idle_timeout=LIMIT), name=name, stat_prefix=name)
    manager = hcm([direct("/direct", 200, "alive"), route("/short", flush_timeout=LIMIT), route("/")], stat_prefix=name, drain_timeout="0.1s", access_log=[
        file_log(f"{log}.{name}", "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")], **phase.manager)
    tls = {"transport_socket": tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(pair)]}),
           "transport_socket_connect_timeout": LIMIT} if phase.kind == "tls" else {}
    return listener(name=name, chains=[chain(manager, **tls)], stat_prefix=name, per_connection_buffer_limit_bytes=32768, **phase.listener)


class Target:
    def __init__(self, start, upstream, byte_server, pair, directory):
        self.log = directory / "slow"
        buffers = http_options(explicit_http_config={"http_protocol_options": {}})
        self.proxy = start(bootstrap([make(name, phase, pair, self.log) for name, phase in PHASES.items()], [
            cluster("up", upstream.port, per_connection_buffer_limit_bytes=32768, typed_extension_protocol_options=buffers),
            cluster("bytes", byte_server.port)]))
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}

    def stat_name(self, name, count):
        if count.startswith("http2."):
            return count
        if count.startswith("listener."):
            return count.replace("listener.", f"listener.{name}.")
        return count.replace("tcp.", f"tcp.{name}.") if count.startswith("tcp.") else f"http.{name}.{count}"


def serve(request):
    """The upstream's side: /big is more than anybody buffers, /up is a tunnel, all else is never answered."""
    if request.target == "/big":
        return Reply(body=LONG)
    if request.target == "/short":
        return Reply()
    if request.target == "/up":
        return Reply(status=101, headers=[("connection", "upgrade"), ("upgrade", "websocket")], echo=True, length=False, body=b"")
    return Reply(silent=True)


def endure(target, name):
    """Sends on and on until the counters have moved and the connection is over, or 8 seconds went by. What came back, the
    counters that moved, and whether the connection is over."""
    phase, data, is_over = PHASES[name], b"", False
    stats = {count: target.stat_name(name, count) for count in phase.counts}
    before = {count: target.proxy.stat(stat) or 0 for count, stat in stats.items()}
    moved = set()
    with socket.socket() as sock:
        if not phase.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", target.ports[name]))
        sock.sendall(phase.sent)
        sock.settimeout(DRIP_S)
        rest = phase.drip
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline and not (is_over >= phase.closes and len(moved) == len(stats)):
            data, is_over = (data + piece, not piece) if (piece := receive(sock, phase)) is not None else (data, is_over)
            with contextlib.suppress(OSError):
                sock.send(rest[:1])
            rest = rest[1:]
            moved = {count for count, stat in stats.items() if (target.proxy.stat(stat) or 0) > before[count]}
            is_over = is_over or not phase.reads and not target.proxy.stat(target.stat_name(name, "downstream_cx_active"))
    return data, tuple(sorted(moved)), is_over


def receive(sock, phase):
    """None: nothing now; empty: the end."""
    try:
        if phase.reads:
            return sock.recv(65536)
        return select.select([], [], [], DRIP_S) and None
    except TimeoutError:
        return None
    except ConnectionError:
        return b""


def outcome(target, name):
    """What the phase's fields say, as seen."""
    data, moved, is_over = endure(target, name)
    log = f"{target.log}.{name}"
    lines = target.proxy.log_lines(log, 1, 3) if PHASES[name].log else []
    return {"got": data[:len(PHASES[name].got)], "counts": moved, "log": lines[0] if lines else None, "is_over": is_over}


def expected(name):
    phase = PHASES[name]
    return {"got": phase.got, "counts": tuple(sorted(phase.counts)), "log": phase.log, "is_over": phase.closes}
