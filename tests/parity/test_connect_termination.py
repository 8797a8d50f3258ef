"""CONNECT that ends at the proxy, beside Envoy: answers, bytes both ways, PROXY headers, failures, logs and stats."""

import contextlib

import pytest

from support import proxy_header
from support.config import bootstrap, cluster, file_log, hcm, listener
from support.rawhttp import Client
from support.upstream import ByteUpstream

LOG = "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_CODE_DETAILS% %UPSTREAM_PROTOCOL% %UPSTREAM_CLUSTER% %REQ(:METHOD)%\n"
COUNTED = ("upstream_rq_total", "upstream_rq_active", "upstream_cx_total", "upstream_cx_active", "upstream_cx_connect_fail", "upstream_rq_200",
           "upstream_rq_503", "upstream_rq_completed", "upstream_rq_pending_total")


def terminating(name, to="up", **connect):
    return {"match": {"connect_matcher": {}, "headers": [{"name": "x-kind", "string_match": {"exact": name}}]},
            "route": {"cluster": to, "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": connect}]}}


POSTING = {"match": {"prefix": "/tunnel"}, "route": {"cluster": "up", "upgrade_configs": [
    {"upgrade_type": "CONNECT", "connect_config": {"allow_post": True}}]}}
ROUTES = [terminating("plain"), terminating("v1", proxy_protocol_config={"version": "V1"}),
          terminating("v2", proxy_protocol_config={"version": "V2"}), terminating("refused", "refused"), POSTING]


@pytest.fixture(scope="module")
def server():
    """Notes a PROXY header, then echoes in capitals; says BYE behind the client's end."""
    def serve(sock, noted):
        header, data = proxy_header.read(sock)
        noted.received.append(header and header[:2])
        while data := data or sock.recv(65536):
            sock.sendall(data.upper())
            data = b""
        sock.sendall(b"BYE")

    server = ByteUpstream(serve)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, server, tmp_path_factory):
    def start(kind):
        log = tmp_path_factory.mktemp("logs") / "log"
        down = hcm(ROUTES, upgrade_configs=[{"upgrade_type": "CONNECT"}], access_log=[file_log(log, LOG)])
        return kind(bootstrap([listener(down)], [cluster("up", server.port), cluster("refused", 1)])), log
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


def shown(head):
    return head.status, sorted((k, v) for k, v in head.headers if k not in ("date", "x-envoy-upstream-service-time"))


def tunnel(side, server, kind):
    proxy, log = side
    del server.received[:]
    lines = len(proxy.log_lines(log, 0))
    with Client(proxy.port()) as client, contextlib.suppress(EOFError):
        client.send(f"CONNECT target.example:443 HTTP/1.1\r\nhost: target.example:443\r\nx-kind: {kind}\r\n\r\n")
        head, got = shown(client.read_head()), b""
        if head[0] == 200:
            got = client.send(b"hello, hello, hello").exactly(19)
            got += client.send(b"more").exactly(4)
    return head, got, list(server.received), proxy.log_lines(log, lines + 1)[lines:]


@pytest.mark.parametrize("kind", ["plain", "v1", "v2", "refused", "nowhere"])
def test_tunnels(sides, server, kind):
    envoy, sluice = (tunnel(side, server, kind) for side in sides)
    assert sluice == envoy


def test_post(sides, server):
    def run(side):
        with Client(side[0].port()) as client:
            client.send("POST /tunnel HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n14\r\nhello, hello, hello!\r\n0\r\n\r\n")
            reply = client.read()
            return shown(reply), reply.body

    envoy, sluice = (run(side) for side in sides)
    assert sluice == envoy and sluice[1] == b"HELLO, HELLO, HELLO!BYE"


@pytest.mark.parametrize("name, kind", [("up", "plain"), ("refused", "refused")])
def test_stats(sides, server, name, kind):
    seen = []
    for side in sides:
        side[0].wait_stat(f"cluster.{name}.upstream_cx_active", 0)
        before = {c: side[0].stat(f"cluster.{name}.{c}") for c in COUNTED}
        tunnel(side, server, kind)
        side[0].wait_stat(f"cluster.{name}.upstream_cx_active", 0)
        seen.append({c: (side[0].stat(f"cluster.{name}.{c}") or 0) - (before[c] or 0) for c in COUNTED})
    assert seen[1] == seen[0]
