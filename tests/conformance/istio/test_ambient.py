"""A mesh whose istiod knows ambient workloads: data planes reach what has a tunnel through it (HBONE), the rest as ever."""

import pytest
from apps import App, get, told
from mesh import Workload, spiffe
from resources import endpoint, entry, gateway, resource, server, to, virtual_service

from support.process import can_connect, free_port, wait_until
from support.tunnel_server import TunnelServer

ISTIOD_ENV = {"PILOT_ENABLE_AMBIENT": "true"}
HOST, TUNNELED = "shop.example.com", "tunneled.example.com"
TUNNEL_PORT = 15008  # Istio's
# where nobody listens but tunnels: what comes to it comes from those
ADDRESS = "127.15.0.8"
BODY = b"from the tunnel"


class Node(TunnelServer):
    """Ends tunnels over mutual TLS, as ztunnel does, and answers each request inside by itself."""

    def __init__(self, tls):
        self.clients = []
        super().__init__(is_http2=True, tls=tls, port=TUNNEL_PORT)

    def serve(self, sock, number):
        self.clients += [v for _, v in sock.getpeercert()["subjectAltName"]]
        super().serve(sock, number)

    @staticmethod
    def reply(data):
        assert data.startswith(b"GET ") and data.endswith(b"\r\n\r\n"), data
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)


@pytest.fixture(scope="module")
def app():
    made = App("app")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def node(identities, mode):
    made = Node(identities.mesh.server_context(identities.workload("default", "app"), ask_client=True, alpn=["h2"]))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ports(istio, app):
    """Of a gateway, that serves both hosts, and of a sidecar's listener for what has a tunnel."""
    found = {"gateway": free_port(), "sidecar": free_port()}
    endpoints = [endpoint(8080, ADDRESS, labels={"networking.istio.io/tunnel": "http"})]
    istio.apply([entry("app", app.port), entry("tunneled", 0, host=TUNNELED, number=found["sidecar"], endpoints=endpoints),
                 gateway("all", server(found["gateway"], "HTTP"), selector={"case": "gateway"}),
                 virtual_service("app", [HOST], ["all"], http=[{"route": to("app")}]),
                 virtual_service("tunneled", [TUNNELED], ["all"], http=[{"route": to(TUNNELED, found["sidecar"])}]),
                 resource("Sidecar", "client", {"workloadSelector": {"labels": {"case": "sidecar"}}, "egress": [
                     {"port": {"number": found["sidecar"], "protocol": "HTTP", "name": "http"}, "bind": "127.0.0.1", "captureMode": "NONE",
                      "hosts": ["*/*"]}]})])
    return found


@pytest.fixture(scope="module")
def planes(istio, ports):
    made = {"gateway": istio.proxy(Workload("gateway", account="gateway", labels={"case": "gateway"})),
            "sidecar": istio.proxy(Workload("client", "sidecar", "default", "client", labels={"case": "sidecar"}))}
    for name, plane in made.items():
        wait_until(lambda: can_connect(ports[name]), lambda: str(plane.listeners()), 20)
    return made


def test_what_has_no_tunnel_is_served(planes, ports):
    assert told(get(ports["gateway"], HOST, "/"))["server"] == "app"


@pytest.mark.parametrize("who, identity", [("gateway", spiffe("istio-system", "gateway")), ("sidecar", spiffe("default", "client"))],
                         ids=["gateway", "sidecar"])
def test_what_has_one_is_reached_through_it(planes, ports, node, who, identity):
    del node.received[:], node.clients[:]
    for _ in range(3):
        answer = get(ports[who], TUNNELED, "/")
        assert (answer.status, answer.body) == (200, BODY)
    assert {tuple(headers[:2]) for headers, _ in node.received} == {((":method", "CONNECT"), (":authority", f"{ADDRESS}:8080"))}
    assert all(f"host: {TUNNELED}".encode() in data for _, data in node.received)
    assert set(node.clients) == {identity}
    assert "connect_originate::envoy://connect_originate/" in planes[who].admin("/listeners").text
    assert f"::envoy://connect_originate/{ADDRESS}:8080::health_flags::healthy" in planes[who].admin("/clusters").text


def test_a_node_that_has_gone(planes, ports, node):
    """Last: a failure of the upstream, and the rest is served as before."""
    node.stop()
    wait_until(lambda: get(ports["gateway"], TUNNELED, "/").status == 503, "no node")
    assert told(get(ports["gateway"], HOST, "/"))["server"] == "app"
