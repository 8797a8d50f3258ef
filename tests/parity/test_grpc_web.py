"""gRPC-Web beside Envoy's: what the service sees of each request, and what the client gets of each answer."""

import base64
import struct

import pytest

from support.config import bootstrap, cluster, direct, hcm, http_options, listener, route, typed
from support.rawhttp import fetch
from support.upstream import Reply

FILTER = typed("envoy.filters.http.grpc_web", "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb")
CLUSTER = {"typed_extension_protocol_options": http_options(explicit_http_config={"http_protocol_options": {"enable_trailers": True}})}
WEB, TEXT, GRPC = "application/grpc-web", "application/grpc-web-text", "application/grpc"
PATH = "/pkg.Service/Method"


def frame(data, flags=0):
    return struct.pack("!BI", flags, len(data)) + data


def b64(*parts):
    return b"".join(base64.b64encode(p) for p in parts)


def reply(*frames, headers=(("content-type", GRPC),), trailers=(("grpc-status", "0"),), **fields):
    if trailers:
        fields.setdefault("chunks", list(frames))
    return Reply(headers=list(headers), body=b"".join(frames), trailers=list(trailers), **fields)


OK = reply(frame(b"hello"))
BIG = frame(bytes(range(256)) * 300)
REQUESTS = {
    "binary": (WEB, frame(b"abc"), []),
    "binary-proto": (WEB + "+proto", frame(b"abc"), []),
    "binary-empty": (WEB, b"", []),
    "text": (TEXT, b64(frame(b"abc")), []),
    "text-proto": (TEXT + "+proto", b64(frame(b"abcdef")), []),
    "text-big": (TEXT, b64(BIG), []),
    "text-empty": (TEXT, b"", []),
    "text-short": (TEXT, b"AAA", []),
    "text-odd": (TEXT, b64(frame(b"abc")) + b"A", []),
    "text-bad": (TEXT, b"!!!!", []),
    "text-bad-padding": (TEXT, b"A===", []),
    "text-all-padding": (TEXT, b"====", []),
    "text-space": (TEXT, b"AA AAAAA", []),
    "json": (WEB + "+json", frame(b"{}"), []),
    "parameter": (WEB + ";charset=utf-8", frame(b"abc"), []),
    "upper": ("Application/grpc-web", frame(b"abc"), []),
    "grpc": (GRPC, frame(b"abc"), [("te", "trailers")]),
    "other": ("text/plain", b"abc", []),
    "accepts-text": (WEB, frame(b"abc"), [("accept", TEXT)]),
    "accepts-text-proto": (WEB, frame(b"abc"), [("accept", TEXT + "+proto")]),
    "accepts-several": (WEB, frame(b"abc"), [("accept", TEXT + ",*/*")]),
    "accept-encoding": (WEB, frame(b"abc"), [("grpc-accept-encoding", "identity"), ("te", "gzip")]),
}
REPLIES = {
    "one": OK,
    "two": reply(frame(b"a"), frame(b"bcd")),
    "empty-message": reply(frame(b""), frame(b"x")),
    "big": reply(BIG, BIG),
    "split": reply(frame(b"hello")[:3], frame(b"hello")[3:7], frame(b"hello")[7:] + frame(b"xy")),
    "failed": reply(frame(b"a"), trailers=[("grpc-status", "5"), ("grpc-message", "not%20here"), ("x-more", "1")]),
    "no-body": reply(chunks=[]),
    "only-headers": Reply(headers=[("content-type", GRPC), ("grpc-status", "7"), ("grpc-message", "no")], body=b""),
    "ends-without-trailers": reply(frame(b"a"), trailers=()),
    "grpc-proto": reply(frame(b"a"), headers=[("content-type", GRPC + "+proto")]),
    "web": reply(frame(b"a"), frame(b"grpc-status:0\r\n", 0x80), headers=[("content-type", WEB + "+proto")], trailers=()),
    "html": Reply(headers=[("content-type", "text/html")], body=b"<p>100% \x80 caf\xc3\xa9\n"),
    "html-404": Reply(404, "Not Found", headers=[("content-type", "text/html")], body=b"no"),
    "html-503": Reply(503, "Unavailable", headers=[("content-type", "text/plain")], body=b"x" * 100),
    "html-empty": Reply(502, "Bad Gateway", headers=[("content-type", "text/plain")], body=b""),
    "html-trailers": Reply(headers=[("content-type", "text/plain")], chunks=[b"ab", b"cd"], trailers=[("x-t", "1")]),
    "html-long": Reply(headers=[("content-type", "text/plain")], chunks=[b"y" * 3000] * 10),
    "grpc-500": reply(frame(b"a"), status=500, reason="Error"),
    "no-type": Reply(headers=[], body=b"plain"),
}
# A text response that ends with its data, and not with trailers, never ends at Envoy's.
ENDLESS = [("accepts-text", "ends-without-trailers"), ("accepts-text", "web")]
HEADERS = ["content-type", "content-length", "grpc-status", "grpc-message", "x-t", "x-more", "trailer"]
SEEN = ["content-type", "content-length", "te", "grpc-accept-encoding", "accept", "transfer-encoding"]
STATS = [f"cluster.up.grpc-web.pkg.Service.Method.{s}" for s in ("0", "5", "7", "success", "failure", "total")]


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, shared_upstream):
    main = hcm([direct("/direct", 404, "not found"), route()], filters=[FILTER], generate_request_id=False)
    return [start(bootstrap([listener(main)], [cluster("up", shared_upstream.port, **CLUSTER)]))
            for start in (shared_envoy, shared_sluice)]


def exchange(proxy, upstream, request, answer, path=PATH):
    kind, body, more = REQUESTS[request]
    upstream.script(answer)
    got = fetch(proxy.port(), path, "POST", [("content-type", kind), ("content-length", str(len(body))), *more], body)
    # what is refused on the way may or may not have begun
    seen = [([r.get(h) for h in SEEN], r.body) for r in upstream.requests if got.status != 400]
    return {"status": got.status, "headers": [got.get(h) for h in HEADERS], "body": got.body, "trailers": got.trailers, "seen": seen}


def compare(sides, upstream, *args):
    envoy, sluice = (exchange(proxy, upstream, *args) for proxy in sides)
    assert envoy == sluice


@pytest.mark.parametrize("request_name", REQUESTS)
def test_requests(sides, shared_upstream, request_name):
    compare(sides, shared_upstream, request_name, OK)


@pytest.mark.parametrize("request_name", ["binary", "accepts-text", "grpc"])
@pytest.mark.parametrize("reply_name", REPLIES)
def test_replies(sides, shared_upstream, request_name, reply_name):
    if (request_name, reply_name) in ENDLESS:
        _, sluice = sides
        assert base64.b64decode(exchange(sluice, shared_upstream, request_name, REPLIES[reply_name])["body"][:8]) == frame(b"a")
    else:
        compare(sides, shared_upstream, request_name, REPLIES[reply_name])


@pytest.mark.parametrize("request_name", ["binary", "accepts-text", "text"])
@pytest.mark.parametrize("path", ["/direct", "/only-one", "/a/b/c", "/pkg.Service/Method?q=1"])
def test_paths(sides, shared_upstream, request_name, path):
    compare(sides, shared_upstream, request_name, OK, path)


def test_stats(sides, shared_upstream):
    """After all the others."""
    envoy, sluice = ({name: proxy.stat(name) or 0 for name in STATS} for proxy in sides)
    assert envoy == sluice and envoy[STATS[-1]]
