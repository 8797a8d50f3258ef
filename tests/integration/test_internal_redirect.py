"""Redirects that the proxy follows by itself: policy, rewriting, bodies, what is logged and counted."""

import pytest

from support.config import bootstrap, cluster, direct, file_log, hcm, listener, route, typed, vhost
from support.rawhttp import Client, chunks, encode, fetch
from support.upstream import Reply

BODY = bytes(range(256)) * 300
PREDICATE = "envoy.extensions.internal_redirect."
ALL = {"redirect_response_codes": [301, 302, 303, 307, 308]}


def to(location, status=302, **fields):
    return Reply(status=status, headers=[("location", location), ("x-new", "1")], body=b"moved", **fields)


def predicate(name, kind, **fields):
    return {"max_internal_redirects": 5, "allow_cross_scheme_redirect": True,
            "predicates": [typed(name, f"{PREDICATE}{name}.v3.{kind}", **fields)]}


@pytest.fixture
def following(sluice, upstream, tmp_path):
    """following(policy, replies…) -> proxy"""
    def start(policy, *replies, routes=(), listener_fields=None, filters=None, **action):
        upstream.script(*replies, Reply(body=b"final"))
        main = {**route(internal_redirect_policy=policy, **action), "name": "main"}
        log = file_log(tmp_path / "log", "%RESPONSE_CODE% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%\n")
        manager = hcm(vhosts=[vhost([*routes, main])], access_log=[log], filters=filters)
        return sluice(bootstrap([listener(manager, **(listener_fields or {}))], [cluster("up", upstream.port)]))
    return start


@pytest.mark.smoke
def test_followed(following, upstream, tmp_path):
    proxy = following({}, to("http://new.com:81/p?q=1#frag"))
    answer = fetch(proxy.port(), "/a?b=c", headers=[("x-mine", "1")])
    assert (answer.status, answer.body, answer.get("location")) == (200, b"final", None)
    first, second = upstream.wait_requests(2)
    assert (second.target, second.get("host"), second.get("x-mine")) == ("/p?q=1", "new.com:81", "1")
    assert second.get("x-envoy-original-url") == "http://test/a?b=c"
    assert second.get("x-request-id") == first.get("x-request-id")
    assert proxy.log_lines(tmp_path / "log", 2) == ["302 internal_redirect /p?q=1", "200 via_upstream /p?q=1"]
    assert proxy.stat("cluster.up.upstream_internal_redirect_succeeded_total") == 1
    assert proxy.stat("http.ingress.downstream_rq_2xx") == 1 and not proxy.stat("http.ingress.downstream_rq_3xx")
    assert not proxy.stat("cluster.up.upstream_rq_302")
    proxy.wait_stat("http.ingress.downstream_rq_active", 0)


def test_no_path_is_the_root(following, upstream):
    proxy = following({}, to("http://new.com"))
    assert fetch(proxy.port(), "/x").status == 200
    assert upstream.wait_requests(2)[1].target == "/"


@pytest.mark.smoke
@pytest.mark.parametrize("policy, location, stat", [
    ({}, "/relative", "bad_location"), ({}, "foo:bar", "bad_location"), ({}, "ftp://h/x", "bad_location"),
    ({}, "http:///x", "bad_location"), ({}, "http://a b/x", "bad_location"), ({}, "http://h/a b", "bad_location"),
    ({}, "http://user@h/x", "bad_location"), ({}, "http:", "bad_location"), ({}, "https://h/x", "unsafe_scheme"),
    ({}, "http://h?x", "no_route"), ({"max_internal_redirects": 0}, "http://h/x", "too_many_redirects"),
    (predicate("allow_listed_routes", "AllowListedRoutesConfig", allowed_route_names=["other"]), "http://h/x", "predicate"),
    (predicate("safe_cross_scheme", "SafeCrossSchemeConfig"), "https://h/x", "predicate")])
def test_passed_on(following, upstream, policy, location, stat):
    proxy = following(policy, to(location))
    answer = fetch(proxy.port())
    assert (answer.status, answer.get("location"), answer.body) == (302, location, b"moved")
    assert proxy.stat(f"http.ingress.passthrough_internal_redirect_{stat}") == 1
    assert proxy.stat("cluster.up.upstream_internal_redirect_failed_total") == 1
    assert len(upstream.requests) == 1


def test_no_location(following, upstream):
    proxy = following({}, Reply(status=302))
    assert fetch(proxy.port()).status == 302
    assert proxy.stat("cluster.up.upstream_internal_redirect_failed_total") == 1


def test_other_codes_pass(following):
    proxy = following({}, to("http://h/x", 301))
    assert fetch(proxy.port()).status == 301
    assert not proxy.stat("cluster.up.upstream_internal_redirect_failed_total")


def test_up_to_the_limit(following, upstream):
    proxy = following({"max_internal_redirects": 3}, *(to(f"http://h{i}/") for i in range(3)))
    assert fetch(proxy.port()).body == b"final"
    assert upstream.wait_requests(4)[3].get("x-envoy-original-url") == "http://h1/"
    assert proxy.stat("cluster.up.upstream_internal_redirect_succeeded_total") == 3


def test_previous_routes(following):
    proxy = following(predicate("previous_routes", "PreviousRoutesConfig"), to("http://h/1"), to("http://h/2"))
    assert fetch(proxy.port()).get("location") == "http://h/2"
    assert proxy.stat("http.ingress.passthrough_internal_redirect_predicate") == 1


@pytest.mark.smoke
@pytest.mark.parametrize("framing", ["length", "chunks", "trailers"])
@pytest.mark.parametrize("status", [301, 307, 308])
def test_body_is_sent_again(following, upstream, framing, status):
    proxy = following(ALL, to("http://h/x", status))
    headers, body = [], BODY
    if framing != "length":
        trailers = [(b"x-end", b"1")] if framing == "trailers" else []
        headers, body = [("transfer-encoding", "chunked")], chunks(BODY[:100], BODY[100:], trailers=trailers)
    assert fetch(proxy.port(), "/", "POST", headers, body).body == b"final"
    for seen in upstream.wait_requests(2):
        assert (seen.method, seen.body) == ("POST", BODY)


@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_see_other(following, upstream, method):
    proxy = following(ALL, to("http://h/x", 303))
    with Client(proxy.port()) as client:
        assert client.request(method, "/", body=b"abc" if method == "POST" else b"").status == 200
        assert client.request("GET", "/").status == 200
    second = upstream.wait_requests(2)[1]
    assert (second.method, second.body) == ("GET" if method == "POST" else method, b"")
    assert second.get("content-length") is None


def test_copied_headers(following, upstream):
    proxy = following({"response_headers_to_copy": ["x-new", "x-gone"]}, to("http://h/x"))
    fetch(proxy.port(), headers=[("x-new", "old"), ("x-gone", "1")])
    second = upstream.wait_requests(2)[1]
    assert (second.get("x-new"), second.get("x-gone")) == ("1", None)


def test_large_body_is_not_kept(following, upstream):
    proxy = following(ALL, to("http://h/x", 307), listener_fields={"per_connection_buffer_limit_bytes": 32768})
    assert fetch(proxy.port(), "/", "POST", body=BODY * 10).status == 307
    assert proxy.stat("cluster.up.upstream_internal_redirect_failed_total") == 1


def test_early_answer_passes(following, upstream):
    proxy = following(ALL, to("http://h/x", early=True))
    with Client(proxy.port()) as client:
        client.send(encode("POST", "/", [("content-length", "100")]) + b"x")
        assert client.read().status == 302


def test_to_another_kind_of_route(following, upstream):
    proxy = following({}, to("http://h/d"), routes=[direct("/d", 200, "direct")])
    assert fetch(proxy.port()).body == b"direct"


def test_many_on_one_connection(following, upstream):
    proxy = following({}, *(r for _ in range(10) for r in (to("http://h/x"), Reply(body=b"ok"))))
    with Client(proxy.port()) as client:
        for _ in range(10):
            assert client.request("GET", "/").body == b"ok"
    proxy.wait_stat("http.ingress.downstream_rq_active", 0)
    assert proxy.stat("cluster.up.upstream_rq_active") == 0
