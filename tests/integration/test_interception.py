"""Redirected connections: a client and a server in network namespaces of their own, each behind a sidecar that nft redirects to,
as Istio's init container does. Their configuration is istiod's, by address and port, passthrough and black hole included."""

import contextlib

import pytest

from support import netns
from support.h2client import H2Client
from support.intercepted import (CLIENT, CLIENT_ID, FROM_SIDECAR, OUTSIDE, SERVER, UNKNOWN_PORT, VIP, Mesh, world_of)
from support.mesh import DB, GREETER, OTHER, WEB_HTTP, WEB_TLS
from support.process import wait_until
from support.rawhttp import Client


@pytest.fixture(scope="module")
def redirected(authority):
    yield from world_of(authority, netns.REDIRECT)


@pytest.fixture(scope="module")
def transparent(authority):
    for world in world_of(authority, netns.TPROXY):
        netns.route_marked(world.server)
        yield world


@pytest.fixture
def mesh(redirected, authority, tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda **options: Mesh(redirected, authority, tmp_path, stack, **options)


@pytest.mark.parametrize("host, to, target, source", [
    ("web.shop", VIP, f"{SERVER}:{WEB_HTTP}", FROM_SIDECAR),
    ("web6.shop", "fd77::2", f"[fd77::2]:{WEB_HTTP}", "::6")])
def test_mutual_tls(mesh, host, to, target, source):
    m = mesh()
    answer = m.fetch(WEB_HTTP, to, host)
    assert answer.status == 200 and answer.body == b"ok"
    assert [peer[0] for peer in m.world.web.peers] == [source]
    assert f"URI={CLIENT_ID}" in m.world.web.requests[-1].get("x-forwarded-client-cert")
    out, into = m.logged("outbound"), m.logged("inbound")
    asked = f"[{to}]:{WEB_HTTP}" if ":" in to else f"{to}:{WEB_HTTP}"
    assert (out["local"], out["to"], out["cluster"]) == (asked, target, f"outbound|{WEB_HTTP}||{host}")
    assert (into["local"], into["to"], into["sni"]) == (target, target, f"outbound_.{WEB_HTTP}_._.{host}")
    assert into["peer"] == CLIENT_ID and into["remote"] == out["from"]
    assert into["from"].rsplit(":", 1)[0].strip("[]") == source


def test_http2_all_the_way(mesh):
    m = mesh()
    with m.world.client.inside(), H2Client(WEB_HTTP, to=VIP) as client:
        answer = client.get("/", authority="h2.shop")
    app = m.world.h2
    assert (answer.status, answer.body) == (200, b"two") and [peer[0] for peer in app.peers] == [FROM_SIDECAR]
    assert f"URI={CLIENT_ID}" in app.requests[-1].get("x-forwarded-client-cert")
    assert m.logged("inbound")["peer"] == CLIENT_ID and m.client.stat("http_inspector.http2_found") == 1


def test_plain_between_sidecars(mesh):
    m = mesh()
    assert m.fetch(WEB_HTTP, VIP, "legacy.shop").status == 200
    assert m.world.web.requests[-1].get("x-forwarded-client-cert") is None
    assert [peer[0] for peer in m.world.web.peers] == [FROM_SIDECAR] and m.logged("inbound")["peer"] == "-"


def test_tls_of_the_application(mesh, authority):
    m = mesh()
    answer = m.fetch(WEB_TLS, SERVER, "app.test", tls=authority.client_context(), server_name="app.test")
    assert answer.status == 200 and [peer[0] for peer in m.world.tls.peers] == [FROM_SIDECAR]
    assert m.logged("outbound-tcp")["cluster"] == "PassthroughCluster"
    into = m.logged("inbound-tcp")
    assert (into["cluster"], into["sni"]) == ("InboundPassthroughCluster", "app.test")


def test_server_speaks_first(mesh):
    """A port known to be TCP does not wait for the client's first byte; one whose protocol is sniffed waits for the timeout."""
    m = mesh()
    with m.connect(DB, VIP, timeout=10) as client:
        client.fill()
        assert client.data == b"hello\n"
        client.send(b"ping").fill()
        assert client.data == b"hello\nping"
    assert m.server.stat("listener.0.0.0.0_15006.downstream_pre_cx_timeout") == 0
    assert m.logged("inbound-tcp")["peer"] == CLIENT_ID
    with m.connect(GREETER, SERVER, timeout=10) as client:
        client.fill()
        assert client.data == b"hello\n"
    assert m.client.stat(f"listener.0.0.0.0_{GREETER}.downstream_pre_cx_timeout") == 1
    assert m.server.stat("listener.0.0.0.0_15006.downstream_pre_cx_timeout") == 1
    assert [peer[0] for peer in m.world.greeter.peers] == [FROM_SIDECAR]


def test_listener_by_address_before_port(mesh):
    m = mesh()
    for to, cluster, port in ((VIP, "db.shop", DB), (SERVER, "other.shop", OTHER)):
        with m.connect(DB, to, timeout=10) as client:
            client.send(b"x").fill()
    with m.connect(DB, VIP, timeout=10) as client:
        client.send(b"x").fill()
    wait_until(lambda: m.client.stat("cluster.outbound|3306||db.shop.upstream_cx_total") == 2, "the address's listener")
    assert m.client.stat("cluster.outbound|3306||other.shop.upstream_cx_total") == 1
    assert len(m.world.db.peers) == 2 and len(m.world.other.peers) == 1
    assert m.client.stat("listener.0.0.0.0_15001.downstream_cx_total") == 0   # all were handed on


@pytest.mark.parametrize("to", [OUTSIDE, "fd77::9"])
def test_unknown_destination_passes(mesh, to):
    m = mesh()
    assert m.fetch(UNKNOWN_PORT, to, "anything").status == 200
    source = "fd77::1" if ":" in to else CLIENT
    # IPv6 is redirected at the server, too; only 10.77.0.9 is left alone
    assert [peer[0] for peer in m.world.unknown.peers] == ["::6" if ":" in to else source]
    out = m.logged("outbound-tcp")
    assert out["cluster"] == "PassthroughCluster" and out["to"] == out["local"] and str(UNKNOWN_PORT) in out["to"]
    answer = m.fetch(WEB_HTTP, SERVER, "nobody.knows")    # HTTP on a known port, for a host that is not
    assert answer.status == 200 and m.logged("outbound")["cluster"] == "PassthroughCluster"


def test_registry_only(mesh):
    m = mesh(allow_any=False)
    with m.connect(UNKNOWN_PORT, OUTSIDE) as client:
        assert client.is_closed()
    assert m.logged("outbound-tcp")["cluster"] == "BlackHoleCluster"
    assert m.fetch(WEB_HTTP, SERVER, "nobody.knows").status == 502
    assert m.fetch(WEB_HTTP, VIP, "web.shop").status == 200
    assert not m.world.unknown.peers


@pytest.mark.parametrize("side, port", [("client", 15001), ("server", 15006)])
def test_not_redirected(mesh, side, port):
    """Who connects to the sidecar's own port, past redirection, is not sent to it again."""
    m = mesh()
    space, proxy = getattr(m.world, side), getattr(m, side)
    with space.inside(), Client(port) as client:
        assert client.send(b"GET / HTTP/1.1\r\nhost: web.shop\r\n\r\n").is_closed()
    wait_until(lambda: proxy.stat("tcp.BlackHoleCluster.downstream_cx_total") == 1, "the black hole")


@pytest.mark.parametrize("client, server", [(CLIENT, SERVER), ("fd77::1", "fd77::2")])
def test_transparent(transparent, authority, tmp_path, client, server):
    """With TPROXY and original_src, applications see their clients' own addresses."""
    with contextlib.ExitStack() as stack:
        m = Mesh(transparent, authority, tmp_path, stack, tproxy=True)
        web = "web6.shop" if ":" in server else "web.shop"
        for _ in range(2):
            assert m.fetch(WEB_HTTP, server, web).status == 200
        assert {peer[0] for peer in m.world.web.peers} == {client}
        assert m.logged("inbound")["local"].startswith(server if ":" not in server else f"[{server}]")
        context = authority.client_context()
        assert m.fetch(WEB_TLS, server, "app.test", tls=context, server_name="app.test").status == 200
        assert [peer[0] for peer in m.world.tls.peers] == [client]
