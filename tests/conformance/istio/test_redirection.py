"""A sidecar as injection makes it, in a network namespace of its own: what its application sends is redirected to 15001, what comes
for it to 15006; listeners, clusters and chains are all istiod's. Beside it a peer without a sidecar, in another namespace."""

import contextlib

import pytest

from mesh import Identities, Istio, Workload, spiffe
from resources import endpoint, resource, service_host

from support import netns
from support.process import wait_until
from support.rawhttp import Client, fetch
from support.upstream import ByteUpstream, Gone, ScriptedUpstream

PEER, OWN = "10.78.0.1", "10.78.0.2"
APP_PORT, TCP_PORT, PEER_PORT, MTLS_PORT, UNKNOWN_PORT = 8080, 3306, 8090, 8443, 9999


def greet(sock, server):
    sock.sendall(b"hello\n")
    while data := sock.recv(4096):
        sock.sendall(data)
    raise Gone


def entry(name, port, protocol, **spec):
    return resource("ServiceEntry", name, {"hosts": [service_host(name)], "location": "MESH_INTERNAL", "resolution": "STATIC", **spec,
                                           "ports": [{"number": port, "name": "port", "protocol": protocol}]})


def objects():
    app = {"workloadSelector": {"labels": {"app": "app"}}}
    labels = {"app": "app", "security.istio.io/tlsMode": "istio"}
    friend = endpoint(MTLS_PORT, PEER, serviceAccount="friend", labels={"security.istio.io/tlsMode": "istio"})
    return [resource("WorkloadEntry", "app-0", {"address": OWN, "labels": labels, "serviceAccount": "app"}),
            entry("app", APP_PORT, "HTTP", **app), entry("app-tcp", TCP_PORT, "TCP", **app),
            entry("plain", PEER_PORT, "HTTP", endpoints=[endpoint(PEER_PORT, PEER)]),
            entry("friend", PEER_PORT, "HTTP", endpoints=[friend])]


class World:
    def __init__(self, directory, stack):
        self.own, self.peer = netns.Namespace("app"), netns.Namespace("peer")
        stack.callback(self.peer.delete)
        stack.callback(self.own.delete)
        netns.join(self.peer, self.own, [[f"{PEER}/24"], [f"{OWN}/24"]])
        self.own.nft(netns.REDIRECT)
        self.identities = Identities(directory / "identities")
        mesh = self.identities.mesh
        ends = mesh.server_context(self.identities.workload("default", "friend"), ask_client=True, alpn=["istio", "http/1.1"])
        with self.own.inside():
            self.app, self.tcp = ScriptedUpstream(port=APP_PORT), ByteUpstream(greet, port=TCP_PORT)
            self.istio = stack.enter_context(Istio(directory / "istio", self.identities, "agent"))
            self.istio.apply(objects())
            self.istio.start()
            self.sidecar = self.istio.proxy(
                Workload(name="app", kind="sidecar", namespace="default", account="app", address=OWN,
                         labels={"app": "app", "version": "v1", "security.istio.io/tlsMode": "istio"}),
                command=["setpriv", f"--regid={netns.PROXY_GID}", "--clear-groups"])
        with self.peer.inside():
            self.plain, self.friend = ScriptedUpstream(port=PEER_PORT), ScriptedUpstream(tls=ends, port=MTLS_PORT)
            self.unknown = ScriptedUpstream(port=UNKNOWN_PORT)
        for app in (self.app, self.tcp, self.plain, self.friend, self.unknown):
            stack.callback(app.stop)

    def stat(self, name):
        with self.own.inside():
            return self.sidecar.stat(name)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    netns.need()
    with contextlib.ExitStack() as stack:
        made = World(tmp_path_factory.mktemp("redirection"), stack)
        yield made
        assert not made.istio.istiod.refusals()


def test_outbound(world):
    """By host to a peer without TLS and to one with it; to nobody known."""
    for host, server, port in (("plain", world.plain, PEER_PORT), ("friend", world.friend, PEER_PORT)):
        with world.own.inside():
            assert fetch(port, to=PEER, host=f"{service_host(host)}:{port}").status == 200
        assert len(server.requests) == 1
    with world.own.inside():
        assert fetch(UNKNOWN_PORT, to=PEER, host="unknown").status == 200
        wait_until(lambda: "PassthroughCluster" in world.sidecar.said(), "the access log", 15)
    assert [peer[0] for peer in world.unknown.peers] == [OWN]


def test_inbound(world):
    """Plain and with mutual TLS, as PERMISSIVE has it; the application sees 127.0.0.6."""
    pair, known = world.identities.workload("default", "friend"), world.identities.mesh
    tls = known.client_context(pair, alpn=["istio", "http/1.1"])
    tls.check_hostname = False
    before = len(world.app.peers)
    with world.peer.inside():
        assert fetch(APP_PORT, to=OWN, host=service_host("app")).status == 200
        assert world.app.requests[-1].get("x-forwarded-client-cert") is None
        assert fetch(APP_PORT, to=OWN, host=service_host("app"), tls=tls).status == 200
    assert f"URI={spiffe('default', 'friend')}" in world.app.requests[-1].get("x-forwarded-client-cert")
    assert {peer[0] for peer in world.app.peers[before:]} == {"127.0.0.6"}


def test_inbound_tcp_speaks_first(world):
    """With mutual TLS; metadata exchanged or not, the greeting is whole."""
    tls = world.identities.mesh.client_context(world.identities.workload("default", "friend"), alpn=["istio"])
    tls.check_hostname = False
    with world.peer.inside(), Client(TCP_PORT, to=OWN, tls=tls) as client:
        client.fill()
        client.send(b"ping").fill()
        assert client.data == b"hello\nping"
    assert world.tcp.peers[-1][0] == "127.0.0.6"


@pytest.mark.parametrize("port", [15001, 15006])
def test_no_loop(world, port):
    with world.own.inside(), Client(port) as client:
        assert client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").is_closed()
