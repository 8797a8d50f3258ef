"""The buffer filter beside Envoy's: which requests the upstream sees, with which length, and who is told 413."""
import pytest
from support.config import bootstrap, cluster, hcm, listener, route, typed, vhost
from support.rawhttp import Client
from support.upstream import Reply

BUFFER = "envoy.extensions.filters.http.buffer.v3.Buffer"


def per_route(**fields):
    return {"typed_per_filter_config": {"envoy.filters.http.buffer": {"@type": f"type.googleapis.com/{BUFFER}PerRoute", **fields}}}


ROUTES = [{**route("/off"), **per_route(disabled=True)}, {**route("/more"), **per_route(buffer={"max_request_bytes": 100})}, route()]


def chunked(path, *sizes, trailer=""):
    body = "".join(f"{n:x}\r\n{'x' * n}\r\n" for n in sizes)
    return f"POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}0\r\n{trailer}\r\n".encode()


def sized(path, n):
    return f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {n}\r\n\r\n{'x' * n}".encode()


CASES = {
    "none": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", "empty": sized("/", 0), "sized": sized("/", 10), "chunked": chunked("/", 4, 6),
    "chunked-empty": chunked("/"), "trailers": chunked("/", 4, trailer="x-t: 1\r\n"), "too-large": sized("/", 40),
    "too-large-chunked": chunked("/", 4, 40), "off": chunked("/off", 4, 40), "more": chunked("/more", 4, 40),
    "more-too-large": sized("/more", 101), "just": sized("/", 20), "one-over": sized("/", 21),
}


@pytest.fixture(scope="module")
def proxies(shared_sluice, shared_envoy, shared_upstream):
    manager = hcm(vhosts=[vhost(ROUTES)], filters=[typed("envoy.filters.http.buffer", BUFFER, max_request_bytes=20)])
    config = bootstrap([listener(manager)], [cluster("up", shared_upstream.port)])
    return shared_sluice(config), shared_envoy(config)


@pytest.mark.parametrize("name", CASES)
def test_what_passes(proxies, shared_upstream, name):
    seen = []
    for proxy in proxies:
        shared_upstream.script(Reply(body=b"ok"))
        with Client(proxy.port()) as client:
            answer = client.send(CASES[name]).read()
        upstream = shared_upstream.requests[-1] if shared_upstream.requests else None
        seen.append((answer.status, answer.body, upstream and (upstream.get("content-length"), upstream.get("transfer-encoding"),
                                                               upstream.body)))
    assert seen[0] == seen[1]
