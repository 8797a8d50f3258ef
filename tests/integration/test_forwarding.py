"""Requests through the proxy to a scripted upstream: bodies, framing, 1xx, HEAD, pipelining, reuse."""

import threading

import pytest

from support.config import bootstrap, cluster, direct, hcm, listener, route
from support.rawhttp import Client, chunks, encode, fetch
from support.upstream import Reply, ScriptedUpstream

BIG = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    routes = [direct("/direct", 200, "hello\n"), direct("/empty", 200), direct("/teapot", 418, "short and stout"),
              route("/")]
    return shared_sluice(bootstrap([listener(hcm(routes))], [cluster("up", shared_upstream.port)]))


@pytest.fixture
def up(shared_upstream):
    return shared_upstream.script()


@pytest.mark.smoke
def test_direct_response(proxy):
    answer = fetch(proxy.port(), "/direct")
    assert (answer.status, answer.body) == (200, b"hello\n")
    assert [n for n, _ in answer.headers] == ["content-length", "content-type", "date", "server"]


@pytest.mark.parametrize("path, status, body", [("/empty", 200, b""), ("/teapot", 418, b"short and stout")])
def test_direct_response_status(proxy, path, status, body):
    answer = fetch(proxy.port(), path)
    assert (answer.status, answer.body) == (status, body)


@pytest.mark.smoke
def test_get_is_forwarded(proxy, up):
    up.script(Reply(headers=[("x-from", "upstream")], body=b"body"))
    answer = fetch(proxy.port(), "/a/b?c=d", headers=[("x-mine", "1")], host="example.com")
    assert (answer.status, answer.body, answer.get("x-from"), answer.get("server")) == (200, b"body", "upstream", "envoy")
    assert answer.get("x-envoy-upstream-service-time").isdigit()
    seen = up.wait_requests(1)[0]
    assert (seen.method, seen.target, seen.version) == ("GET", "/a/b?c=d", "HTTP/1.1")
    assert (seen.get("host"), seen.get("x-mine"), seen.get("x-forwarded-proto")) == ("example.com", "1", "http")
    assert len(seen.get("x-request-id")) == 36


@pytest.mark.smoke
@pytest.mark.parametrize("size", [1, 1000, 65536, len(BIG)])
def test_post_with_length(proxy, up, size):
    up.script(Reply(body=BIG[:size]))
    answer = fetch(proxy.port(), "/", "POST", body=BIG[:size])
    assert answer.status == 200 and answer.body == BIG[:size]
    seen = up.wait_requests(1)[0]
    assert seen.body == BIG[:size] and seen.get("content-length") == str(size) and not seen.is_chunked


@pytest.mark.smoke
def test_post_chunked_with_trailers(proxy, up):
    up.script(Reply(chunks=[b"one", b"two" * 30000], trailers=[("x-end", "yes")]))
    body = chunks(b"abc", b"d" * 70000, trailers=[(b"x-sum", b"42")])
    answer = fetch(proxy.port(), "/", "POST", [("transfer-encoding", "chunked")], body)
    assert answer.body == b"one" + b"two" * 30000
    seen = up.wait_requests(1)[0]
    assert seen.is_chunked and seen.body == b"abc" + b"d" * 70000


@pytest.mark.parametrize("status", [204, 304])
def test_bodyless_statuses(proxy, up, status):
    up.script(Reply(status=status))
    with Client(proxy.port()) as client:
        for _ in range(2):
            answer = client.request("GET", "/")
            assert answer.status == status and "transfer-encoding" not in dict(answer.headers)


@pytest.mark.smoke
def test_head_keeps_length_without_body(proxy, up):
    up.script(Reply(body=b"x" * 500))
    with Client(proxy.port()) as client:
        answer = client.request("HEAD", "/")
        assert (answer.status, answer.get("content-length")) == (200, "500")
        assert client.request("GET", "/").body == b"x" * 500


def test_body_until_close(proxy, up):
    up.script(Reply(body=b"y" * 5000, length=False, close=True))
    with Client(proxy.port()) as client:
        answer = client.request("GET", "/")
        assert answer.body == b"y" * 5000 and answer.get("transfer-encoding") == "chunked"


def test_expect_continue_is_answered_by_the_proxy(proxy, up):
    with Client(proxy.port()) as client:
        client.send(encode("POST", "/", [("expect", "100-continue"), ("content-length", "5")]))
        assert client.read_head().status == 100
        answer = client.send(b"12345").read()
    assert answer.status == 200
    seen = up.wait_requests(1)[0]
    assert seen.body == b"12345" and seen.get("expect") is None


@pytest.mark.smoke
def test_pipelined_requests_are_answered_in_order(proxy, up):
    up.script(lambda request: Reply(body=request.target.encode()))
    paths = [f"/p{i}" for i in range(20)]
    with Client(proxy.port()) as client:
        client.send(b"".join(encode("GET", p) for p in paths))
        assert [client.read().body.decode() for _ in paths] == paths


def test_connection_is_kept_and_upstream_reused(proxy, up):
    with Client(proxy.port()) as client:
        for _ in range(5):
            assert client.request("GET", "/").status == 200
    assert len({r.connection for r in up.wait_requests(5)}) == 1


def test_connection_close_is_honoured(proxy, up):
    with Client(proxy.port()) as client:
        answer = client.request("GET", "/", [("connection", "close")])
        assert answer.get("connection") == "close" and client.is_closed()


def test_upstream_close_header_ends_only_the_upstream(proxy, up):
    up.script(Reply(headers=[("connection", "close")], close=True))
    with Client(proxy.port()) as client:
        first, second = client.request("GET", "/"), client.request("GET", "/")
    assert (first.status, second.status, first.get("connection")) == (200, 200, None)
    assert len({r.connection for r in up.wait_requests(2)}) == 2


@pytest.mark.smoke
def test_many_clients_at_once(proxy, up):
    up.script(lambda request: Reply(body=request.target.encode() * 100))
    failures = []

    def run(me):
        with Client(proxy.port()) as client:
            for i in range(20):
                path = f"/c{me}/{i}"
                if client.request("GET", path).body != path.encode() * 100:
                    failures.append(path)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(up.requests) == 320


def test_early_answer_to_a_large_upload(proxy, up):
    up.script(Reply(status=413, reason="Too Large", body=b"no", early=True, close=True))
    with Client(proxy.port()) as client:
        client.send(encode("POST", "/", [("content-length", str(len(BIG) * 4))]) + b"z" * 1000)
        assert client.read().status == 413
        assert client.is_closed()


def test_slow_reader_gets_everything(proxy, up):
    up.script(Reply(body=BIG * 8))
    with Client(proxy.port()) as client:
        client.send(encode("GET", "/"))
        head = client.read_head()
        assert int(head.get("content-length")) == len(BIG) * 8
        assert client.exactly(len(BIG) * 8) == BIG * 8


def test_interim_answers_pass(proxy, up):
    up.script(Reply(interim=[103]))
    answer = fetch(proxy.port(), "/")
    assert answer.status == 200


@pytest.mark.parametrize("rejects", [None, True, False])
def test_fragments(sluice, upstream, rejects):
    """Refused, or thrown away before anything looks at the path, as Istio's bootstrap asks for."""
    key = "envoy.reloadable_features.http_reject_path_with_fragment"
    layers = [] if rejects is None else [{"name": "static", "static_layer": {key: rejects}}]
    proxy = sluice(bootstrap([listener(hcm([direct("/hidden", 403), route("/")]))], [cluster("up", upstream.port)],
                             layered_runtime={"layers": layers}))
    for sent, status, seen in [("/a#b", 200, "/a"), ("/a?b=c#d?e", 200, "/a?b=c"), ("/hidden#x", 403, None), ("/#", 200, "/")]:
        answer = fetch(proxy.port(), sent)
        assert answer.status == (status if rejects is False else 400)
        if rejects is False and seen:
            assert upstream.requests[-1].target == seen
    assert (proxy.stat("http.ingress.downstream_rq_failed_path_normalization") or 0) == (0 if rejects is False else 4)


@pytest.mark.smoke
def test_stats_count_requests(sluice, upstream):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port)]))
    for _ in range(3):
        assert fetch(proxy.port()).status == 200
    proxy.wait_stat("http.ingress.downstream_rq_2xx", 3)
    assert proxy.stat("cluster.up.upstream_rq_200") == 3
    assert proxy.stat("cluster.up.upstream_cx_active") == 1
    assert proxy.stat("http.ingress.downstream_cx_total") == 3
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)


def test_two_workers_share_the_load(sluice, upstreams):
    up = upstreams(ScriptedUpstream)
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", up.port)]), concurrency=2)
    for _ in range(40):
        assert fetch(proxy.port()).status == 200
    proxy.wait_stat("http.ingress.downstream_rq_2xx", 40)
