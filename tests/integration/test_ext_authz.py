"""envoy.filters.http.ext_authz on live listeners: services that answer, hang, break or are not there."""

import threading

import pytest

from support.config import TYPE, bootstrap, cluster, hcm, listener, route, typed
from support.rawhttp import Client, fetch
from support.upstream import Reply, ScriptedUpstream

NAME, EXT_AUTHZ = "envoy.filters.http.ext_authz", "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"

pytestmark = pytest.mark.smoke  # all of it under sanitizers


def service(timeout="2s", **fields):
    return {"server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": timeout}, **fields}


def authz(**fields):
    return typed(NAME, EXT_AUTHZ, **({} if "grpc_service" in fields else {"http_service": service()}), **fields)


@pytest.fixture
def guarded(sluice, upstream, upstreams):
    """guarded(filter) -> (proxy, service, upstream)"""
    def start(only, routes=None, is_there=True):
        authority = upstreams(ScriptedUpstream)
        clusters = [cluster("up", upstream.port)] + ([cluster("authz", authority.port)] if is_there else [])
        return sluice(bootstrap([listener(hcm(routes, filters=[only]))], clusters)), authority, upstream
    return start


def test_requests(guarded):
    open_route = {**route("/open"), "typed_per_filter_config": {NAME: {"@type": f"{TYPE}{EXT_AUTHZ}PerRoute", "disabled": True}}}
    proxy, authority, upstream = guarded(authz(), [open_route, route("/")])
    authority.script(lambda request: Reply(200 if request.target == "/yes" else 403, body=b"no"))
    assert [fetch(proxy.port(), path).status for path in ("/yes", "/no", "/open")] == [200, 403, 200]
    assert fetch(proxy.port(), "/no").body == b"no"
    assert [r.target for r in upstream.requests] == ["/yes", "/open"]
    assert proxy.stat("http.ingress.ext_authz.denied") == 2 and proxy.stat("cluster.up.ext_authz.ok") == 1


def test_hanging_service(guarded):
    """Fails closed when the time is over, and nothing has gone upstream."""
    proxy, authority, upstream = guarded(typed(NAME, EXT_AUTHZ, http_service=service("0.2s"), status_on_error={"code": 503}))
    authority.script(Reply(silent=True))
    assert fetch(proxy.port(), "/").status == 503
    assert not upstream.requests and proxy.stat("http.ingress.ext_authz.error") == 1


@pytest.mark.parametrize("is_open", [False, True])
def test_missing_service(guarded, is_open):
    proxy, _, upstream = guarded(authz(failure_mode_allow=is_open, failure_mode_allow_header_add=True), is_there=False)
    assert fetch(proxy.port(), "/").status == (200 if is_open else 403)
    assert [r.get("x-envoy-auth-failure-mode-allowed") for r in upstream.requests] == (["true"] if is_open else [])


@pytest.mark.parametrize("reply", [Reply(raw=b"nonsense\r\n\r\n", close=True), Reply(200, body=b"x" * (2 << 20)), Reply(close=True, raw=b"")],
                         ids=["garbage", "flood", "closed"])
def test_broken_answers(guarded, reply):
    proxy, authority, upstream = guarded(authz())
    authority.script(reply)
    assert fetch(proxy.port(), "/").status == 403
    assert not upstream.requests


def test_bodies(guarded):
    """The service sees the first bytes, the upstream all of them."""
    proxy, authority, upstream = guarded(authz(with_request_body={"max_request_bytes": 1000, "allow_partial_message": True}))
    body = bytes(range(97, 123)) * 4000
    assert fetch(proxy.port(), "/", "POST", [("content-length", str(len(body)))], body).status == 200
    assert authority.requests[0].body == body[:1000]
    assert authority.requests[0].get("x-envoy-auth-partial-body") == "true"
    assert upstream.requests[0].body == body


def test_grpc_service_that_does_not_speak_grpc(guarded):
    proxy, _, upstream = guarded(authz(grpc_service={"envoy_grpc": {"cluster_name": "authz"}, "timeout": "1s"}))
    assert fetch(proxy.port(), "/").status == 403
    assert not upstream.requests


def test_shadow(guarded):
    proxy, authority, upstream = guarded(authz(shadow_mode=True))
    authority.script(Reply(403, body=b"no"))
    assert fetch(proxy.port(), "/").status == 200 and len(upstream.requests) == 1
    authority.script(Reply(500))
    assert fetch(proxy.port(), "/").status == 200
    assert proxy.stat("http.ingress.ext_authz.shadow_denied") == 1 and proxy.stat("http.ingress.ext_authz.shadow_error") == 1


def test_body_too_large(guarded):
    """The connection is of no more use, wherever the body stopped."""
    proxy, authority, upstream = guarded(authz(with_request_body={"max_request_bytes": 4}))
    for more in (b"", b"2345"):
        with Client(proxy.port()) as client:
            client.send(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n012345" % (6 + len(more)))
            reply = client.read()
            assert (reply.status, reply.get("connection")) == (413, "close")
            assert client.is_closed()
    assert not upstream.requests and not authority.requests


def test_client_gone(guarded):
    """A client that leaves takes its check with it."""
    proxy, authority, upstream = guarded(typed(NAME, EXT_AUTHZ, http_service=service("30s")))
    gate = threading.Event()
    authority.script(Reply(gate=gate))
    with Client(proxy.port()) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        authority.wait_requests(1)
    proxy.wait_stat("cluster.authz.upstream_rq_active", 0)
    assert not upstream.requests
