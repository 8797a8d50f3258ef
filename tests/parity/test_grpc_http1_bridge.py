"""grpc_http1_bridge beside Envoy's: what a client of HTTP/1 is told of gRPC responses."""
import pytest
from support.config import bootstrap, cluster, hcm, http_options, listener, typed
from support.rawhttp import fetch
from support.upstream import Reply

FILTER = typed("envoy.filters.http.grpc_http1_bridge", "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config")
UP = {"typed_extension_protocol_options": http_options(explicit_http_config={"http_protocol_options": {"enable_trailers": True}})}
GRPC, JSON = "application/grpc", "application/json"


def reply(*trailers, body=b"hello", headers=(), **fields):
    return Reply(headers=[("content-type", GRPC), *headers], chunks=[body] if body else [], trailers=list(trailers), **fields)


CASES = {
    "ok": (GRPC, reply(("grpc-status", "0"))),
    "ok-proto": (GRPC + "+proto", reply(("grpc-status", "0"))),
    "no-grpc": (JSON, reply(("grpc-status", "0"))),
    "grpc-web": (GRPC + "-web", reply(("grpc-status", "0"))),
    "failed": (GRPC, reply(("grpc-status", "14"), ("grpc-message", "not now"))),
    "no-number": (GRPC, reply(("grpc-status", "x"))),
    "message-only": (GRPC, reply(("grpc-message", "m"))),
    "other-trailers": (GRPC, reply(("x-t", "1"), ("grpc-status", "0"))),
    "no-body": (GRPC, reply(("grpc-status", "5"), body=b"")),
    "without-trailers": (GRPC, Reply(headers=[("content-type", GRPC)], body=b"abc")),
    "status-in-headers": (GRPC, Reply(headers=[("content-type", GRPC), ("grpc-status", "7")], body=b"")),
    "http-status": (GRPC, reply(("grpc-status", "0"), status=404)),
}


@pytest.fixture(scope="module", params=CASES)
def answers(request, shared_sluice, shared_envoy, shared_upstream):
    content_type, answer = CASES[request.param]
    got = []
    for start in (shared_sluice, shared_envoy):
        proxy = start(bootstrap([listener(hcm(filters=[FILTER]))], [cluster("up", shared_upstream.port, **UP)]))
        shared_upstream.script(answer)
        told = fetch(proxy.port(), "/a.B/C", method="POST", body=b"x", headers=[("content-type", content_type)])
        got.append((told.status, told.body, told.get("content-length"), told.get("grpc-status"), told.get("grpc-message"),
                    told.get("x-t")))
    return got


def test_what_the_client_gets(answers):
    assert answers[0] == answers[1]
