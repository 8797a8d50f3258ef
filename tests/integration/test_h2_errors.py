"""Connection errors of HTTP/2 with requests under way: one GOAWAY, one end for each stream, and the proxy lives on."""

import socket

import pytest

from support.config import bootstrap, cluster, file_log, hcm, listener, route
from support.h2frames import (CONTINUATION, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, code_of,
                              frame, frames, read_all)
from support.rawhttp import fetch
from support.upstream import Reply

UNFINISHED = frame(HEADERS, END_STREAM, 1, GET)
OPEN = frame(HEADERS, END_HEADERS, 1, GET)
WHOLE = frame(HEADERS, END_STREAM | END_HEADERS, 1, GET)
BROKEN = {
    "priority inside a header block": UNFINISHED + frame(PRIORITY, 0, 1, b"\0\0\0\0\xff"),
    "headers inside a header block": UNFINISHED + frame(HEADERS, END_STREAM | END_HEADERS, 3, GET),
    "ping on a stream after a request": WHOLE + frame(PING, 0, 1, bytes(8)),
    "long ping after an open request": OPEN + frame(PING, 0, 0, bytes(9)),
    "continuation of nothing": WHOLE + frame(CONTINUATION, END_HEADERS, 1, GET),
    "bad compression on a second stream": WHOLE + frame(HEADERS, END_STREAM | END_HEADERS, 3, b"\xff\xff\xff\xff\xff\xff"),
}


@pytest.mark.smoke
@pytest.mark.parametrize("sent", BROKEN.values(), ids=[n.replace(" ", "-") for n in BROKEN])
def test_connection_error_under_way(sluice, upstream, tmp_path, sent):
    upstream.script(Reply(silent=True))
    log = tmp_path / "access.log"
    manager = hcm([route("/")], delayed_close_timeout="0.1s",
                  access_log=[file_log(log, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")])
    proxy = sluice(bootstrap([listener(manager)], [cluster("up", upstream.port)]))
    with socket.create_connection(("127.0.0.1", proxy.port()), timeout=10) as sock:
        sock.sendall(PREFACE + sent)
        last = [f for f in frames(read_all(sock)) if f[0] == GOAWAY][-1:]
    assert last and code_of(last[0]) != 0, "no GOAWAY with an error"
    lines = proxy.log_lines(log, 1)
    assert lines and all(line.startswith("0 DPE http2.") for line in lines), lines
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)
    assert proxy.stat("http.ingress.downstream_rq_active") == 0
    assert proxy.stat("http.ingress.downstream_cx_protocol_error") == 1
    upstream.script(Reply(body=b"alive"))
    assert fetch(proxy.port(), "/").body == b"alive"
