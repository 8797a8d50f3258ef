"""Attacks on HTTP/2 as bytes, and what a proxy made of them: tests/integration says what it must be, tests/parity what
Envoy does."""

import contextlib
import dataclasses
import re
import select
import socket
import struct

from support.config import bootstrap, cluster, direct, file_log, hcm, listener, route
from support.h2frames import (CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PADDED, PING, POST, PREFACE,
                              PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, code_of, frame, frames, literal, number, request,
                              setting, window_update)

NO_ERROR, PROTOCOL_ERROR, INTERNAL, FLOW, FRAME_SIZE, CANCEL, COMPRESSION, CALM = 0, 1, 2, 3, 6, 8, 9, 11
PIECE = 1 << 16
LAST = b"attacked"
LIMITS = r"(http2\.(inbound|outbound|header_|cookies|keepalive|stream_refused|rx_messaging)\w*|" \
         r"downstream_rq_too_many_premature_resets|downstream_cx_protocol_error|downstream_rq_rx_reset)$"


@dataclasses.dataclass
class Attack:
    """`sent` follows the connection preface. What is expected: the code of the last GOAWAY, codes of reset streams, what was
    counted, flags and details in the access log, and whether the connection goes."""

    sent: bytes
    goaway: int = None
    resets: tuple = ()
    counts: tuple = ()
    details: tuple = ()
    closed: bool = True
    reads: bool = True  # else the peer's answers wait until everything is sent


def streams(n):
    return range(1, 2 * n, 2)


def block(*fields):
    return GET + b"".join(literal(n, v) for n, v in fields)


def fragments(first, *more, end=True):
    """A header block in HEADERS and CONTINUATION frames."""
    rest = [frame(CONTINUATION, END_HEADERS if end and i == len(more) - 1 else 0, 1, m) for i, m in enumerate(more)]
    return frame(HEADERS, END_STREAM, 1, first) + b"".join(rest)


def crumbs(n):
    """One cookie in the table, told n times by one byte each."""
    return GET + literal(b"cookie", b"a=" + b"x" * 200, indexed=True) + b"\xbe" * n


def bomb(n):
    return GET + literal(b"x", b"y" * 4000, indexed=True) + b"\xbe" * n


BROKEN = "downstream_cx_protocol_error"
RESET = "downstream_rq_rx_reset"
PREMATURE = "downstream_rq_too_many_premature_resets"


def broken(code=PROTOCOL_ERROR, details="http2.protocol_error", counts=()):
    """The connection goes, and with it a request."""
    return {"goaway": code, "counts": (BROKEN, RESET, *counts), "details": (f"DPE {details}",)}


def lone(code=PROTOCOL_ERROR):
    """The connection goes, and nobody used it."""
    return {"goaway": code, "counts": (BROKEN,)}


def flood(stat, is_request=True):
    lost = {"counts": (RESET, f"http2.{stat}"), "details": (f"DPE http2.{stat}",)} if is_request else {"counts": (f"http2.{stat}",)}
    return {"goaway": CALM, **lost}


def refused(stat, details, code=INTERNAL):
    """The stream goes, the connection stays."""
    return {"resets": (code,), "counts": (RESET, *stat), "details": (details,), "closed": False}


TOO_MANY = refused(["http2.header_overflow"], "DR http2.too_many_headers")
TOO_LARGE = refused(["http2.header_list_size_too_large"], "DR http2.header_list_size_too_large")
BAD_LENGTH = refused([], "DPE http2.remote_reset", PROTOCOL_ERROR)
MALFORMED = broken(details="http2.violation.of.messaging.rule", counts=["http2.rx_messaging_error"])
BAD_FIELD = broken(details="http2.invalid.header.field", counts=["http2.rx_messaging_error"])
PROVOKED = "http2.unknown.nghttp2.error"  # Envoy's words
OPEN = request(1, POST, end=False)


def lengths(*values, body=b"abc"):
    head = request(1, block(*[(b"content-length", v) for v in values]), end=not body)
    return head + (frame(DATA, END_STREAM, 1, body) if body else b"")


ATTACKS = {
    # streams that are thrown away
    "rapid-reset": Attack(b"".join(request(i) + frame(RST_STREAM, 0, i, struct.pack(">I", CANCEL)) for i in streams(1200)),
                          goaway=NO_ERROR, counts=(BROKEN, RESET, PREMATURE), details=("DR http2.remote_reset",)),
    "reset-by-window-update-of-none": Attack(b"".join(request(i) + window_update(i, 0) for i in streams(1200)),
                                             **broken(details=PROVOKED)),
    "reset-by-window-overflow": Attack(b"".join(request(i) + window_update(i, 0x7fffffff) for i in streams(1200)),
                                       **broken(FLOW, PROVOKED)),
    # header blocks without end
    "continuations-of-nothing": Attack(fragments(GET, *[b""] * 2000, end=False), **flood("inbound_empty_frames_flood")),
    "endless-continuations": Attack(fragments(GET, *[literal(b"a", b"b")] * 5000, end=False),
                                    **broken(CALM, "http2.too_many_headers", ["http2.header_overflow"])),
    "endless-large-continuations": Attack(
        fragments(GET, *[literal(b"a", b"b" * 16000)] * 200, end=False), goaway=CALM, resets=(INTERNAL,),
        counts=(BROKEN, RESET, "http2.header_list_size_too_large", "http2.header_overflow"), details=TOO_LARGE["details"]),
    # header lists that are larger than they look
    "table-bomb": Attack(request(1, bomb(1000)), **TOO_LARGE),
    "cookie-crumbs": Attack(request(1, crumbs(500)), **TOO_MANY),
    "many-fields": Attack(request(1, block(*[(b"a", b"b")] * 200)), **TOO_MANY),
    "large-fields": Attack(fragments(GET, *[literal(b"a", b"b" * 15000)] * 5), **TOO_LARGE),
    "many-trailers": Attack(OPEN + request(1, literal(b"a", b"b") * 200), **TOO_MANY),
    "table-size": Attack(request(1, b"\x3f" + number(1 << 24) + GET), **broken(COMPRESSION)),
    "endless-integer": Attack(request(1, b"\x3f" + b"\xff" * 50), **broken(COMPRESSION)),
    "index-of-nothing": Attack(request(1, b"\xff\xff\x00"), **broken(COMPRESSION)),
    # frames that cost more than they carry
    "empty-data": Attack(OPEN + frame(DATA, 0, 1) * 500, **flood("inbound_empty_frames_flood")),
    "padding-only": Attack(OPEN + frame(DATA, PADDED, 1, b"\xff" + bytes(255)) * 300, **flood("inbound_empty_frames_flood")),
    "priorities": Attack(b"".join(frame(PRIORITY, 0, i, struct.pack(">IB", 0, 1)) for i in streams(500)),
                         **flood("inbound_priority_frames_flood", is_request=False)),
    "window-updates": Attack(window_update(0, 1) * 500, **flood("inbound_window_update_frames_flood", is_request=False)),
    "settings": Attack(frame(SETTINGS, 0, 0) * 400000, reads=False, counts=("http2.outbound_control_flood",)),
    "pings": Attack(frame(PING, 0, 0, bytes(8)) * 400000, reads=False, counts=("http2.outbound_control_flood",)),
    # windows
    "connection-window-overflow": Attack(window_update(0, 0x7fffffff), **lone(FLOW)),
    "initial-window-overflow": Attack(setting(4, 0x80000000), **lone(FLOW)),
    "window-update-of-none": Attack(window_update(0, 0), **lone()),
    # frames out of place
    "even-stream": Attack(request(2), **lone()),
    "data-on-idle": Attack(frame(DATA, 0, 1, b"x"), **lone()),
    "reset-of-idle": Attack(frame(RST_STREAM, 0, 1, bytes(4)), **lone()),
    "push-promise": Attack(OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack(">I", 2) + GET), **broken(details=PROVOKED)),
    "long-padding": Attack(OPEN + frame(DATA, PADDED, 1, b"\xff" + bytes(3)), **broken()),
    "long-frame": Attack(OPEN + frame(DATA, 0, 1, bytes(17000)), **broken(FRAME_SIZE)),
    "settings-on-stream": Attack(frame(SETTINGS, 0, 1), **lone()),
    "settings-size": Attack(frame(SETTINGS, 0, 0, b"12345"), **lone(FRAME_SIZE)),
    "frame-size-of-one": Attack(setting(5, 1), **lone()),
    "trailers-without-end": Attack(OPEN + frame(HEADERS, END_HEADERS, 1, literal(b"a", b"b")), **MALFORMED),
    "pseudo-in-trailers": Attack(OPEN + request(1, GET), **BAD_FIELD),
    # requests that another protocol would read differently
    "connection": Attack(request(1, block((b"connection", b"close"))), **BAD_FIELD),
    "transfer-encoding": Attack(request(1, block((b"transfer-encoding", b"chunked"))), **BAD_FIELD),
    "te-gzip": Attack(request(1, block((b"te", b"gzip"))), **BAD_FIELD),
    "upper-case": Attack(request(1, block((b"Abc", b"d"))), **BAD_FIELD),
    "line-break": Attack(request(1, block((b"a", b"b\r\nc: d"))), **BAD_FIELD),
    "nul": Attack(request(1, block((b"a", b"b\0"))), **BAD_FIELD),
    "colon-in-name": Attack(request(1, block((b"a:b", b"c"))), **BAD_FIELD),
    "empty-name": Attack(request(1, block((b"", b"c"))), **BAD_FIELD),
    "late-pseudo": Attack(request(1, literal(b"a", b"b") + GET), **BAD_FIELD),
    "two-paths": Attack(request(1, GET + b"\x84"), **BAD_FIELD),
    "two-hosts": Attack(request(1, block((b"host", b"b"), (b"host", b"c"))), **BAD_FIELD),
    "unknown-pseudo": Attack(request(1, block((b":x", b"y"))), **BAD_FIELD),
    "status": Attack(request(1, GET + b"\x88"), **BAD_FIELD),
    "no-path": Attack(request(1, b"\x82\x86\x41\x01a"), **MALFORMED),
    "long-length": Attack(lengths(b"5"), **BAD_LENGTH),
    "short-length": Attack(lengths(b"2"), **BAD_LENGTH),
    "two-lengths": Attack(lengths(b"3", b"4"), **BAD_FIELD),
    "length-of-nothing": Attack(lengths(b"5", body=b""), **MALFORMED),
}


# ---- one proxy below attack ----

class Target:
    def __init__(self, start, upstream, directory):
        self.log = directory / "attacks.log"
        manager = hcm([direct("/direct", 200, "alive"), route("/")], delayed_close_timeout="0.2s", codec_type="HTTP2",
                      access_log=[file_log(self.log, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")])
        alive = hcm([direct("/direct", 200, "alive")], stat_prefix="alive")
        self.proxy = start(bootstrap([listener(manager, name="main"), listener(alive, name="alive")],
                                     [cluster("up", upstream.port)]))
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}

    def all_lines(self):
        """The log, once it has each request that there was."""
        return self.proxy.log_lines(self.log, self.proxy.stat("http.ingress.downstream_rq_total"))

    def counts(self):
        """{counter without its prefix: value}"""
        found = self.proxy.stats(rf"^http\.ingress\..*{LIMITS}|^http2\.")
        return {found[0]: value for name, value in found.items() if (found := re.search(LIMITS, name))}


def send(sock, rest, reads):
    """What was read meanwhile."""
    data = b""
    while rest:
        readable, _, _ = select.select([sock] if reads else [], [sock], [])
        if readable:
            data += (piece := sock.recv(PIECE))
            if not piece:
                break
        rest = rest[sock.send(rest[:PIECE]):]
    return data


def pings_answered(data):
    return sum(f[0] == PING and f[3] == LAST for f in frames(data))


def exchange(port, attack):
    """The frames that came back, and whether the connection was closed: is a second PING behind the attack answered?"""
    data = b""
    with socket.socket() as sock, contextlib.suppress(ConnectionError):
        if not attack.reads:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        data += send(sock, PREFACE + attack.sent, attack.reads)
        for answers in (1, 2):
            sock.sendall(frame(PING, 0, 0, LAST))
            while pings_answered(data) < answers and (piece := sock.recv(PIECE)):
                data += piece
    return frames(data), pings_answered(data) < 2


def outcome(target, attack):
    """What the attack's fields say, as seen."""
    before, lines = target.counts(), len(target.all_lines())
    found, is_closed = exchange(target.ports["main"], attack)
    goaways = [code_of(f) for f in found if f[0] == GOAWAY]
    target.proxy.wait_stat("http.ingress.downstream_cx_active", 0)
    after = target.counts()
    logged = target.all_lines()[lines:]
    return {"goaway": goaways[-1] if goaways else None,
            "resets": tuple(sorted({code_of(f) for f in found if f[0] == RST_STREAM})),
            "counts": tuple(sorted(n for n, v in after.items() if v > before.get(n, 0))),
            "details": tuple(sorted({line.split(" ", 1)[1] for line in logged})),
            "closed": is_closed}
