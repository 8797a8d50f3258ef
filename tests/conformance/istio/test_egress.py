"""Out of the mesh: from a sidecar by mutual TLS to an egress gateway, and from there by TLS to servers outside, that are known
by address, by DNS name or only once a request names them."""

import pytest

from apps import App, Keeper, Traffic, get, is_refused, told, trusting
from kube_api import secret
from mesh import Workload, spiffe
from resources import destination_rule, endpoint, entry, gateway, resource, server, to, virtual_service

from support.process import can_connect, free_port, wait_until

# the listeners for redirected connections, which nothing uses here
MESH = {"proxyListenPort": free_port(), "proxyInboundListenPort": free_port()}
EGRESS = "istio-egressgateway.istio-system.svc.cluster.local"
GATEWAY = {"istio": "egressgateway"}
SIMPLE, MUTUAL, CREDENTIAL = "simple.partner.example.com", "mutual.partner.example.com", "credential.partner.example.com"
NAMED, DYNAMIC, PASSED = "named.partner.example.com", "*.localhost", "passed.partner.example.com"
WRONG_NAME, WRONG_ROOT = "name.partner.example.com", "root.partner.example.com"
HOSTS = [SIMPLE, MUTUAL, CREDENTIAL, NAMED, DYNAMIC, WRONG_NAME, WRONG_ROOT]
CLIENT = "client.example.com"


@pytest.fixture(scope="module")
def ports():
    return {name: free_port() for name in ("app", "mesh", "plain", "passed")}


@pytest.fixture(scope="module")
def partners(identities):
    """Servers outside: one asks for a client certificate, one speaks in the clear."""
    pair = identities.site("*.partner.example.com")
    made = {"tls": App("tls", identities.public.server_context(pair)), "clear": App("clear"),
            "mutual": App("mutual", identities.public.server_context(pair, ask_client=True))}
    yield made
    for app in made.values():
        app.stop()


def outside(name, host, target, resolution="STATIC", protocol="HTTP", number=80, **fields):
    """A ServiceEntry of a server at a port of loopback."""
    at = {} if resolution == "DYNAMIC_DNS" else {"endpoints": [endpoint(target, "localhost" if "DNS" in resolution else
                                                                        "127.0.0.1")]}
    port = {"number": number, "name": "port", "protocol": protocol, **({"targetPort": target} if not at else {})}
    return resource("ServiceEntry", name, {"hosts": [host], "location": "MESH_EXTERNAL", "resolution": resolution,
                                           "ports": [port], **at, **fields})


def origination(name, host, **tls):
    return destination_rule(name, host, trafficPolicy={"tls": {"sni": host, **tls}})


def through(name, host, port):
    """From the gateway's plain server to the host itself."""
    return virtual_service(name, [host], ["egress"], http=[{"match": [{"port": port}], "route": to(host, 80)}])


def objects(identities, partners, ports):
    root, stranger = str(identities.public.pair.cert), str(identities.stranger.pair.cert)
    client = identities.site(CLIENT)
    secure, mutual = partners["tls"].port, partners["mutual"].port
    mesh_number = ports["app"]
    return [
        gateway("egress", server(ports["plain"], "HTTP", *HOSTS), server(ports["mesh"], "HTTPS", SIMPLE, mode="ISTIO_MUTUAL"),
                server(ports["passed"], "TLS", PASSED, mode="PASSTHROUGH"), selector=GATEWAY),
        entry("egress", 0, host=EGRESS, number=443, protocol="HTTPS", endpoints=[endpoint(ports["mesh"])]),
        outside("simple", SIMPLE, secure, number=mesh_number),
        origination("simple", SIMPLE, mode="SIMPLE", caCertificates=root, subjectAltNames=["*.partner.example.com"]),
        destination_rule("egress", EGRESS, subsets=[{"name": "partner", "trafficPolicy": {
            "portLevelSettings": [{"port": {"number": 443}, "tls": {"mode": "ISTIO_MUTUAL", "sni": SIMPLE}}]}}]),
        virtual_service("simple", [SIMPLE], ["mesh", "egress"], http=[
            {"match": [{"gateways": ["mesh"], "port": mesh_number}], "route": to(EGRESS, 443, subset="partner")},
            {"match": [{"gateways": ["egress"], "port": p} for p in (ports["mesh"], ports["plain"])],
             "route": to(SIMPLE, mesh_number)}]),
        outside("mutual", MUTUAL, mutual), through("mutual", MUTUAL, ports["plain"]),
        origination("mutual", MUTUAL, mode="MUTUAL", caCertificates=root, clientCertificate=str(client.cert),
                    privateKey=str(client.key)),
        outside("credential", CREDENTIAL, mutual), through("credential", CREDENTIAL, ports["plain"]),
        resource("DestinationRule", "credential", {"host": CREDENTIAL, "trafficPolicy": {"tls": {
            "mode": "MUTUAL", "credentialName": "client", "sni": CREDENTIAL},
            "connectionPool": {"http": {"maxRequestsPerConnection": 5}}}}, space="istio-system"),
        outside("wrong-name", WRONG_NAME, secure), through("wrong-name", WRONG_NAME, ports["plain"]),
        origination("wrong-name", WRONG_NAME, mode="SIMPLE", caCertificates=root, subjectAltNames=["other.example.com"]),
        outside("wrong-root", WRONG_ROOT, secure), through("wrong-root", WRONG_ROOT, ports["plain"]),
        origination("wrong-root", WRONG_ROOT, mode="SIMPLE", caCertificates=stranger),
        outside("named", NAMED, secure, "DNS"), through("named", NAMED, ports["plain"]),
        origination("named", NAMED, mode="SIMPLE", caCertificates=root),
        outside("passed", PASSED, secure, protocol="TLS", number=443),
        virtual_service("passed", [PASSED], ["egress"], tls=[{"match": [{"sniHosts": [PASSED]}], "route": to(PASSED, 443)}]),
        resource("Sidecar", "app", {"workloadSelector": {"labels": {"app": "app"}}, "egress": [
            {"port": {"number": mesh_number, "protocol": "HTTP", "name": "http"}, "bind": "127.0.0.1", "captureMode": "NONE",
             "hosts": ["*/*"]}, {"hosts": ["*/*"]}]})]


def credential(identities, pair):
    return secret("client", {"tls.crt": pair.cert, "tls.key": pair.key, "ca.crt": identities.public.pair.cert})


@pytest.fixture(scope="module")
def egress(istio, identities, partners, ports):
    istio.apply([credential(identities, identities.site(CLIENT)), *objects(identities, partners, ports)])
    gate = istio.proxy(Workload("istio-egressgateway", account="istio-egressgateway", labels=GATEWAY))
    wait_until(lambda: all(can_connect(ports[p]) for p in ("mesh", "plain", "passed")), lambda: str(gate.listeners()), 20)
    return gate


@pytest.fixture(scope="module")
def sidecar(istio, egress, ports):
    made = istio.proxy(Workload("app", "sidecar", "default", "app", labels={"app": "app"}))
    wait_until(lambda: can_connect(ports["app"]), lambda: str(made.listeners()), 20)
    return made


def test_from_sidecar_to_outside(sidecar, egress, partners, ports):
    answer = told(get(ports["app"], SIMPLE, "/path?x=1"))
    assert (answer["server"], answer["sni"], answer["peer"], answer["path"]) == ("tls", SIMPLE, [], "/path?x=1")
    # the gateway was told by whom, by the sidecar's certificate
    assert f"URI={spiffe('default', 'app')}" in answer["headers"]["x-forwarded-client-cert"]


def test_simple_and_mutual(egress, ports):
    answer = told(get(ports["plain"], SIMPLE))
    assert (answer["server"], answer["sni"], answer["peer"]) == ("tls", SIMPLE, [])
    answer = told(get(ports["plain"], MUTUAL))
    assert (answer["server"], answer["sni"], answer["peer"]) == ("mutual", MUTUAL, [CLIENT])


def test_mesh_server_refuses_the_outside(egress, identities, ports):
    assert is_refused(ports["mesh"], SIMPLE, trusting(identities.mesh))
    assert is_refused(ports["mesh"], SIMPLE, trusting(identities.public, identities.site(CLIENT)))


@pytest.mark.parametrize("host", [WRONG_NAME, WRONG_ROOT])
def test_servers_that_are_not_who_they_should_be(egress, partners, ports, host):
    before = len(partners["tls"].requests)
    answer = get(ports["plain"], host)
    assert answer.status == 503 and b"remote connection failure" in answer.body
    assert len(partners["tls"].requests) == before


def test_credential_rotated_under_load(istio, egress, identities, ports):
    answer = told(get(ports["plain"], CREDENTIAL))
    assert (answer["server"], answer["sni"], answer["peer"]) == ("mutual", CREDENTIAL, [CLIENT])
    keeper = Keeper(ports["plain"], CREDENTIAL)
    with Traffic(keeper.server) as traffic:
        for turn in range(4):
            pair = identities.public.leaf(f"client{turn}.example.com")
            istio.apply([credential(identities, pair)])
            wait_until(lambda name=f"client{turn}.example.com": told(get(ports["plain"], CREDENTIAL))["peer"] == [name],
                       "the new certificate", 20)
        wait_until(lambda: traffic.done() > 50, "traffic")
    keeper.close()
    istio.apply([credential(identities, identities.site(CLIENT))])


def test_passed_through(egress, identities, ports):
    answer = told(get(ports["passed"], PASSED, tls=trusting(identities.public), server_name=PASSED))
    assert (answer["server"], answer["sni"]) == ("tls", PASSED)
    assert is_refused(ports["passed"], SIMPLE, trusting(identities.public))


def test_named_by_dns(egress, ports):
    answer = told(get(ports["plain"], NAMED))
    assert (answer["server"], answer["sni"]) == ("tls", NAMED)


def test_named_by_the_request(istio, egress, partners, ports):
    """The request's own host and port say where it goes."""
    istio.apply([outside("dynamic", DYNAMIC, 0, "DYNAMIC_DNS"), through("dynamic", DYNAMIC, ports["plain"])])
    port = partners["clear"].port
    wait_until(lambda: get(ports["plain"], f"one.localhost:{port}").status == 200, lambda: str(get(ports["plain"], f"one.localhost:{port}")), 20)
    for name in ("one.localhost", "two.localhost", "one.localhost"):
        answer = told(get(ports["plain"], f"{name}:{port}"))
        assert (answer["server"], answer["headers"]["host"]) == ("clear", f"{name}:{port}")
    assert get(ports["plain"], "elsewhere.example.com").status == 404


def test_partner_moves_under_load(istio, egress, identities, partners, ports):
    """To another address, there and back."""
    second = App("second", identities.public.server_context(identities.site("*.partner.example.com")))
    keeper = Keeper(ports["plain"], SIMPLE)
    with Traffic(keeper.server) as traffic:
        wait_until(lambda: traffic.seen("tls") > 20, "the first")
        for _ in range(3):
            with istio.applied([outside("simple", SIMPLE, second.port, number=ports["app"])]):
                wait_until(lambda: traffic.seen("second") > 20, "the second", 20)
            traffic.forget()
            wait_until(lambda: traffic.seen("tls") > 20, "the first again", 20)
            traffic.forget()
    keeper.close()
    second.stop()
