"""Mirrored requests: copies sent to other clusters, without an effect on the request itself."""

import threading

import pytest

from support.config import bootstrap, cluster, hcm, http2, listener, route
from support.process import free_port
from support.rawhttp import Client, chunks, encode, fetch
from support.upstream import Reply, ScriptedUpstream

BIG = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def mirrored(sluice, upstreams):
    """mirrored(policies) -> proxy, main upstream, mirrors 'm1' and 'm2'"""
    def start(policies, clusters=(), concurrency=1, listener_fields=None, **action):
        up, one, two = (upstreams(ScriptedUpstream) for _ in range(3))
        known = [cluster("up", up.port), cluster("m1", one.port), cluster("m2", two.port), *clusters]
        routes = [route(request_mirror_policies=policies, **action)]
        proxy = sluice(bootstrap([listener(hcm(routes), **(listener_fields or {}))], known), concurrency=concurrency)
        return proxy, up, one, two
    return start


@pytest.mark.smoke
def test_get(mirrored):
    proxy, up, one, two = mirrored([{"cluster": "m1"}, {"cluster": "m2"}])
    assert fetch(proxy.port(), "/a?b=c", headers=[("x-mine", "1")], host="h.com:81").status == 200
    for mirror in (one, two):
        seen = mirror.wait_requests(1)[0]
        assert (seen.method, seen.target, seen.get("host")) == ("GET", "/a?b=c", "h.com-shadow:81")
        assert (seen.get("x-mine"), seen.get("x-envoy-internal")) == ("1", "true")
        assert seen.get("x-request-id") == up.requests[0].get("x-request-id")
    assert up.requests[0].get("host") == "h.com:81" and up.requests[0].get("x-envoy-internal") is None
    proxy.wait_stat("cluster.m1.upstream_rq_200", 1)
    proxy.wait_stat("cluster.m1.upstream_rq_active", 0)


@pytest.mark.smoke
@pytest.mark.parametrize("size", [1, 70000, len(BIG)])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_bodies(mirrored, size, framing):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}])
    headers, body = [], BIG[:size]
    if framing == "chunks":
        headers, body = [("transfer-encoding", "chunked")], chunks(BIG[:size // 2] or b"x", BIG[size // 2:size] or b"y")
    assert fetch(proxy.port(), "/", "POST", headers, body).status == 200
    one.wait_requests(1)
    proxy.wait_stat("cluster.m1.upstream_rq_200", 1)
    assert up.requests[0].body == one.requests[0].body and len(one.requests[0].body) >= size


def test_trailers(mirrored):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}])
    body = chunks(b"abc", trailers=[(b"x-sum", b"42")])
    assert fetch(proxy.port(), "/", "POST", [("transfer-encoding", "chunked")], body).status == 200
    proxy.wait_stat("cluster.m1.upstream_rq_200", 1)
    assert one.requests[0].body == b"abc"


@pytest.mark.parametrize("policy, host", [
    ({"disable_shadow_host_suffix_append": True}, "test"), ({"host_rewrite_literal": "other:1"}, "other:1"), ({}, "test-shadow")])
def test_hosts(mirrored, policy, host):
    proxy, _, one, _ = mirrored([{"cluster": "m1", **policy}])
    fetch(proxy.port())
    assert one.wait_requests(1)[0].get("host") == host


def test_ipv6_host(mirrored):
    proxy, _, one, _ = mirrored([{"cluster": "m1"}])
    fetch(proxy.port(), host="[::1]:80")
    assert one.wait_requests(1)[0].get("host") == "[::1]-shadow:80"


def test_rewritten_as_the_request_is(mirrored):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}], prefix_rewrite="/new", host_rewrite_literal="new.com")
    fetch(proxy.port(), "/x")
    assert (one.wait_requests(1)[0].target, one.requests[0].get("host")) == ("/newx", "new.com-shadow")


def test_header_mutations_touch_only_the_copy(mirrored):
    mutations = [{"append": {"header": {"key": "x-copy", "value": "yes"}}}, {"remove": "x-secret"}]
    proxy, up, one, _ = mirrored([{"cluster": "m1", "request_headers_mutations": mutations}])
    fetch(proxy.port(), headers=[("x-secret", "1")])
    seen = one.wait_requests(1)[0]
    assert (seen.get("x-copy"), seen.get("x-secret")) == ("yes", None)
    assert (up.requests[0].get("x-copy"), up.requests[0].get("x-secret")) == (None, "1")


def test_cluster_header(mirrored):
    proxy, up, one, two = mirrored([{"cluster_header": "x-to"}])
    for headers in ([("x-to", "m2")], [("x-to", "nowhere")], []):
        assert fetch(proxy.port(), headers=headers).status == 200
    two.wait_requests(1)
    assert len(up.requests) == 3 and len(two.requests) == 1 and not one.requests


def test_fraction(mirrored):
    never = {"cluster": "m1", "runtime_fraction": {"default_value": {"numerator": 0}, "runtime_key": "mirror.never"}}
    proxy, _, one, two = mirrored([never, {"cluster": "m2"}])
    for _ in range(5):
        fetch(proxy.port())
    two.wait_requests(5)
    assert not one.requests


# ---- nothing that happens to a mirror is felt ----

@pytest.mark.smoke
@pytest.mark.parametrize("reply", [
    Reply(status=500), Reply(reset=True, raw=b""), Reply(raw=b"garbage\r\n\r\n", close=True), Reply(body=BIG), Reply(silent=True),
    Reply(early=True, close=True)])
def test_mirror_answers_badly(mirrored, reply):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}], timeout="0.3s")
    one.script(reply)
    with Client(proxy.port()) as client:
        for _ in range(3):
            assert client.request("POST", "/", body=b"z" * 5000).status == 200
    proxy.wait_stat("cluster.m1.upstream_rq_active", 0)
    assert all(r.body == b"z" * 5000 for r in up.requests)


def test_mirror_is_away(mirrored):
    gone = [cluster("away", free_port()), cluster("empty")]
    proxy, _, _, _ = mirrored([{"cluster": "away"}, {"cluster": "empty"}], gone)
    for _ in range(3):
        assert fetch(proxy.port(), "/", "POST", body=b"abc").status == 200
    proxy.wait_stat("cluster.away.upstream_rq_503", 3)
    assert proxy.stat("cluster.away.upstream_cx_connect_fail") >= 1
    assert proxy.stat("cluster.empty.upstream_cx_none_healthy") == 3


def test_circuit_breaker_of_the_mirror(mirrored):
    limits = {"thresholds": [{"max_requests": 0}]}
    up = ScriptedUpstream()
    try:
        proxy, _, _, _ = mirrored([{"cluster": "tight"}], [cluster("tight", up.port, circuit_breakers=limits)])
        assert fetch(proxy.port()).status == 200
        proxy.wait_stat("cluster.tight.upstream_rq_active_overflow", 1)
        assert not up.requests
    finally:
        up.stop()


def test_slow_mirror_is_given_up(mirrored):
    """A mirror that reads nothing costs the buffer limit at most."""
    proxy, up, one, _ = mirrored([{"cluster": "m1"}], listener_fields={"per_connection_buffer_limit_bytes": 65536})
    stuck = threading.Event()
    one.script(Reply(gate=stuck, early=True))
    body = BIG * 16
    assert fetch(proxy.port(), "/", "POST", body=body).status == 200
    assert up.requests[0].body == body
    proxy.wait_stat("cluster.m1.retry_or_shadow_abandoned", 1)
    proxy.wait_stat("cluster.m1.upstream_rq_active", 0)
    stuck.set()


def test_client_leaves_half_way(mirrored):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}])
    with Client(proxy.port()) as client:
        client.send(encode("POST", "/", [("content-length", "1000")]) + b"x" * 10)
        one.wait_requests(1)
    proxy.wait_stat("cluster.m1.upstream_rq_active", 0)
    proxy.wait_stat("cluster.m1.upstream_cx_destroy_local_with_active_rq", 1)
    assert not one.requests[0].body


def test_mirror_outlives_the_request(mirrored):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}])
    gate = threading.Event()
    one.script(Reply(gate=gate, body=b"late"))
    assert fetch(proxy.port()).status == 200
    one.wait_requests(1)
    assert proxy.stat("cluster.m1.upstream_rq_active") == 1
    gate.set()
    proxy.wait_stat("cluster.m1.upstream_rq_200", 1)


def test_main_fails_mirror_does_not(mirrored):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}])
    up.script(Reply(reset=True, raw=b""))
    assert fetch(proxy.port(), "/", "POST", body=b"abc").status == 503
    proxy.wait_stat("cluster.m1.upstream_rq_200", 1)
    assert one.requests[0].body == b"abc"


def test_stop_with_mirrors_under_way(mirrored):
    proxy, up, one, _ = mirrored([{"cluster": "m1"}], concurrency=2)
    one.script(Reply(silent=True))
    for _ in range(4):
        assert fetch(proxy.port()).status == 200
    one.wait_requests(4)


def test_h2_mirror(mirrored, sluice, upstream):
    behind = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port)]))
    speaks_h2 = cluster("h2", behind.port(), typed_extension_protocol_options=http2())
    proxy, _, _, _ = mirrored([{"cluster": "h2"}], [speaks_h2])
    assert fetch(proxy.port()).status == 200
    proxy.wait_stat("cluster.h2.upstream_rq_200", 1)  # a mirror has its own pace
    assert fetch(proxy.port(), "/", "POST", body=BIG).status == 200
    proxy.wait_stat("cluster.h2.upstream_rq_200", 2)
    assert upstream.requests[1].body == BIG
    proxy.wait_stat("cluster.h2.http2.streams_active", 0)  # counted down when the answer has ended, not when it begins
