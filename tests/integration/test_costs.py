"""What a request costs in calls of the kernel and of malloc: two reads, two writes, no allocation, no lock."""

import pytest

from support.call_counter import ALLOCATIONS, DATA, CallCounter
from support.config import bootstrap, chain, cluster, hcm, listener, tls_certificate, tls_socket
from support.h2client import H2Client
from support.proxy import Sluice, is_sanitized
from support.rawhttp import Client

MANY = [(f"x-header-{i}", "v" * 20) for i in range(40)]
RARE = 0.1  # what timers do meanwhile, by request


pytestmark = pytest.mark.skipif(is_sanitized(Sluice.binary), reason="a sanitizer's runtime counts too")


@pytest.fixture(scope="module")
def counter(tmp_path_factory):
    return CallCounter(tmp_path_factory.mktemp("calls"))


@pytest.fixture(scope="module")
def proxy(shared_sluice, counter, nginx):
    return shared_sluice(bootstrap([listener(hcm())], [cluster("up", nginx.port)]), env=counter.env)


def total(calls, names):
    return sum(calls[name] for name in names)


def assert_cheap(calls, allocations=RARE):
    assert 4 <= total(calls, DATA) < 4 + RARE, calls
    assert total(calls, ALLOCATIONS) <= allocations, calls
    assert calls["epoll_wait"] < 2.5 and calls["epoll_ctl"] < RARE and calls["lock"] < RARE, calls


@pytest.mark.parametrize("method, headers, body, allocations", [
    ("GET", [], b"", RARE),
    ("POST", [], b"x" * 1000, RARE),
    ("GET", MANY, b"", 2 + RARE),  # a larger arena, in pieces; never by header
])
def test_http1(proxy, counter, method, headers, body, allocations):
    with Client(proxy.port()) as client:
        path = "/echo" if body else "/who"
        assert client.request(method, path, headers, body).status == 200
        assert_cheap(counter.per_call(lambda: client.request(method, path, headers, body)), allocations)


@pytest.mark.parametrize("headers, allocations", [([], RARE), (MANY, 2 + RARE)])
def test_http2(proxy, counter, headers, allocations):
    with H2Client(proxy.port()) as client:
        assert client.get("/who", headers=headers).status == 200
        assert_cheap(counter.per_call(lambda: client.get("/who", headers=headers)), allocations)


def test_tls(shared_sluice, counter, nginx, authority):
    socket = tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(authority.leaf("test", "DNS:test"))]})
    proxy = shared_sluice(bootstrap([listener(chains=[chain(hcm(), transport_socket=socket)])],
                                    [cluster("up", nginx.port)]), env=counter.env)
    with Client(proxy.port(), tls=authority.client_context(), server_name="test") as client:
        assert client.request("GET", "/who").status == 200
        # the record buffers, which the TLS library gives back in between
        assert_cheap(counter.per_call(lambda: client.request("GET", "/who")), 2 + RARE)
