"""What a connection of an attacker may cost in memory, in each state that it can hold for long: limits times buffers, whatever he sends."""

import contextlib
import pathlib
import re
import socket

import pytest

from support.config import bootstrap, chain, cluster, hcm, listener, route, tcp_proxy, tls_certificate, tls_socket
from support.h2frames import CONTINUATION, GET, HEADERS, POST, PREFACE, frame, literal, request, setting
from support.proxy import is_sanitized
from support.slow import HELLO, serve, tls_inspector
from support.upstream import ByteUpstream

KB = 1024
BUFFER = 32 * KB
STREAMS = 100
HEADERS_LIMIT = 60 * KB  # Envoy's default
CONNECTION = 16 * KB    # a connection and its codec
STREAM = 8 * KB         # a stream and its headers
READ = 64 * KB          # one read more than a buffer's limit

BIG = GET.replace(b"\x84", b"\x44\x04/big")
UPLOAD = request(1, POST, end=False)
BLOCK = frame(HEADERS, 0, 1, GET) + frame(CONTINUATION, 0, 1, literal(b"a", b"b" * 16000)) * 3


def upload(stream):
    return request(stream, POST, end=False) + frame(0, 0, stream, bytes(16000))


# {state: (listener, what is sent, connections, bytes each may cost)}
STATES = {
    "headers": ("http", b"GET / HTTP/1.1\r\nx: " + b"a" * 55000, 100, CONNECTION + HEADERS_LIMIT + 2 * KB),
    "pipeline": ("http", b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n" * 20000, 100, CONNECTION + STREAM + BUFFER + READ),
    "body": ("http", b"POST /slow HTTP/1.1\r\nhost: test\r\ncontent-length: 99999999\r\n\r\n" + bytes(2 << 20), 50,
             2 * CONNECTION + STREAM + 2 * (BUFFER + READ)),
    "answer": ("http", b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n", 50, 2 * CONNECTION + STREAM + 2 * (BUFFER + READ)),
    "h2-headers": ("http", PREFACE + BLOCK, 100, CONNECTION + STREAM + HEADERS_LIMIT),
    "h2-table": ("http", PREFACE + request(1, GET + literal(b"x", b"y" * 4000, indexed=True) * 8), 100, CONNECTION + STREAM + 48 * KB),
    "h2-answers": ("http", PREFACE + setting(4, 0) + b"".join(request(2 * i + 1, BIG) for i in range(STREAMS)), 5,
                   CONNECTION + STREAMS * (STREAM + CONNECTION + 2 * (BUFFER + READ))),
    "h2-bodies": ("http", PREFACE + b"".join(upload(2 * i + 1) for i in range(STREAMS)), 5,
                  CONNECTION + STREAMS * (STREAM + CONNECTION + BUFFER + READ)),
    "client-hello": ("inspected", HELLO + bytes(500), 100, CONNECTION),
    "handshake": ("tls", HELLO + bytes(500), 100, 64 * KB),
    "tcp": ("tcp", bytes(2 << 20), 50, 2 * CONNECTION + 2 * (BUFFER + READ)),
}


def make(name, *filters, **fields):
    return listener(name=name, chains=[chain(*filters, **fields.pop("chain", {}))], per_connection_buffer_limit_bytes=BUFFER, **fields)


@pytest.fixture
def proxy(sluice, upstream, byte_upstream, authority):
    pair = authority.leaf("memory", "DNS:test")
    tls = {"transport_socket": tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(pair)]})}
    manager = hcm([route("/slow", timeout="1s"), route("/")], http2_protocol_options={"max_concurrent_streams": STREAMS})
    upstream.script(serve)
    many = {"circuit_breakers": {"thresholds": [{"max_connections": 9999, "max_pending_requests": 9999, "max_requests": 9999}]}}
    return sluice(bootstrap([make("http", manager), make("tls", manager, chain=tls), make("tcp", tcp_proxy("bytes")),
                             make("inspected", manager, listener_filters=[tls_inspector()], listener_filters_timeout="60s")],
                            [cluster("up", upstream.port, per_connection_buffer_limit_bytes=BUFFER, **many),
                             cluster("bytes", byte_upstream.port, per_connection_buffer_limit_bytes=BUFFER, **many)]))


def rss(proxy):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{proxy.pid}/status").read_text())[1]) * KB


def attack(stack, port, data):
    """A connection that sends as much as is taken, and reads nothing."""
    sock = stack.enter_context(socket.socket())
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.settimeout(0.05)
    with contextlib.suppress(TimeoutError):
        sock.sendall(data)


@pytest.mark.parametrize("name", STATES)
def test_state(proxy, upstream, name):
    where, data, connections, limit = STATES[name]
    port = proxy.port(where)
    with contextlib.ExitStack() as stack:
        attack(stack, port, data)  # what is made once
        before = rss(proxy)
        for _ in range(connections):
            attack(stack, port, data)
        each = (rss(proxy) - before) / connections
    if not is_sanitized(proxy.binary):  # they keep what is freed
        assert each < limit, f"{each / KB:.0f} KB, not {limit / KB:.0f}"
    upstream.drop_all()  # with reads off, that the client left shows when he is answered
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)
