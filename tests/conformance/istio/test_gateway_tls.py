"""A gateway's TLS modes as istiod renders them: passed through by SNI, ended here with and without client certificates, ended
before plain TCP; then servers that come, change and go while connections last."""

import re
import subprocess

import pytest

from apps import App, Keeper, Traffic, get, greet, is_refused, told, trusting
from mesh import spiffe
from resources import endpoint, entry, gateway, server, sni, to, virtual_service

from support.process import can_connect, free_port, wait_until
from support.rawhttp import Client
from support.upstream import ByteUpstream

SITE = "shop.example.com"
PASSED, OTHER = "one.pass.example.com", "two.pass.example.com"
PORTS = ("passed", "simple", "mutual", "optional", "mesh", "bytes", "auto")


@pytest.fixture(scope="module")
def backends(identities):
    public = identities.public
    made = {"plain": App("plain"), "one": App("one", public.server_context(identities.site(PASSED))),
            "two": App("two", public.server_context(identities.site(OTHER))),
            "sidecar": App("sidecar", identities.mesh.server_context(identities.workload("default", "peer"), ask_client=True,
                                                                     alpn=["istio", "http/1.1"])),
            "bytes": ByteUpstream(greet("bytes"))}
    yield made
    for made_one in made.values():
        made_one.stop()


@pytest.fixture(scope="module")
def ports():
    return {name: free_port() for name in PORTS}


def objects(identities, backends, ports):
    pair, root = identities.site(SITE, PASSED), str(identities.public.pair.cert)
    own = {"privateKey": str(pair.key), "serverCertificate": str(pair.cert)}
    return [
        entry("plain", backends["plain"].port, "HTTP"),
        entry("one", backends["one"].port, "TLS"),
        entry("two", backends["two"].port, "TLS"),
        entry("bytes", backends["bytes"].port, "TCP"),
        # istiod names the service's port in the SNI that AUTO_PASSTHROUGH looks at
        entry("peer", backends["sidecar"].port, "HTTP", endpoints=[
            endpoint(backends["sidecar"].port, serviceAccount="peer", labels={"security.istio.io/tlsMode": "istio"})]),
        gateway("all",
                server(ports["passed"], "TLS", PASSED, OTHER, mode="PASSTHROUGH"),
                server(ports["simple"], "HTTPS", SITE, mode="SIMPLE", **own),
                server(ports["mutual"], "HTTPS", SITE, mode="MUTUAL", caCertificates=root, **own),
                server(ports["optional"], "HTTPS", SITE, mode="OPTIONAL_MUTUAL", caCertificates=root, **own),
                server(ports["mesh"], "HTTPS", "*", mode="ISTIO_MUTUAL"),
                server(ports["bytes"], "TLS", SITE, mode="SIMPLE", **own),
                server(ports["auto"], "TLS", "*.local", mode="AUTO_PASSTHROUGH")),
        virtual_service("web", [SITE], ["all"], http=[{"route": to("plain")}]),
        virtual_service("passed", [PASSED, OTHER], ["all"], tls=[sni(PASSED, "one"), sni(OTHER, "two")]),
        virtual_service("bytes", [SITE], ["all"], tcp=[{"match": [{"port": ports["bytes"]}], "route": to("bytes")}])]


@pytest.fixture(scope="module")
def plane(istio, identities, backends, ports):
    istio.apply(objects(identities, backends, ports))
    proxy = istio.proxy()
    wait_until(lambda: all(can_connect(p) for p in ports.values()), lambda: f"{ports}: {proxy.listeners()}", 20)
    return proxy


def test_passthrough_by_sni(plane, identities, ports):
    for name, label in ((PASSED, "one"), (OTHER, "two")):
        answer = told(get(ports["passed"], name, tls=trusting(identities.public), server_name=name))
        assert (answer["server"], answer["sni"]) == (label, name)
    # the server's own certificate came through
    for name in (PASSED, OTHER):
        done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{ports['passed']}", "-servername", name],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert re.search(rf"subject=O ?= ?Tests, CN ?= ?{re.escape(name)}", done.stdout), done.stdout[:500]


@pytest.mark.parametrize("name", ["three.pass.example.com", "pass.example.com", "one.pass.example.com.evil.test", None])
def test_passthrough_refuses_other_names(plane, identities, ports, name):
    context = trusting(identities.public)
    context.check_hostname = False
    assert is_refused(ports["passed"], name, context)


def test_passthrough_refuses_what_is_not_tls(plane, ports):
    with Client(ports["passed"], timeout=10) as client:
        assert client.send(b"GET / HTTP/1.1\r\nHost: one.pass.example.com\r\n\r\n").until_close() == b""


def test_simple(plane, identities, ports):
    answer = told(get(ports["simple"], SITE, "/a?b=c", tls=trusting(identities.public), server_name=SITE))
    assert (answer["server"], answer["path"], answer["headers"]["x-forwarded-proto"]) == ("plain", "/a?b=c", "https")
    assert "x-forwarded-client-cert" not in answer["headers"]
    assert get(ports["simple"], "other.example.com", tls=trusting(identities.public), server_name=SITE).status == 404


@pytest.mark.parametrize("name", ["other.example.com", PASSED, None])
def test_simple_refuses_other_names(plane, identities, ports, name):
    """PASSED is in the certificate: it is the name that is not served here."""
    context = trusting(identities.public)
    context.check_hostname = False
    assert is_refused(ports["simple"], name, context)


def test_mutual(plane, identities, ports):
    client = identities.site("client.example.com")
    answer = told(get(ports["mutual"], SITE, tls=trusting(identities.public, client), server_name=SITE))
    assert "DNS=client.example.com" in answer["headers"]["x-forwarded-client-cert"]
    answer = told(get(ports["mutual"], SITE, tls=trusting(identities.public, client), server_name=SITE,
                      headers=[("x-forwarded-client-cert", "By=forged;DNS=admin.example.com")]))
    assert "forged" not in answer["headers"]["x-forwarded-client-cert"]


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
@pytest.mark.parametrize("where", ["mutual", "optional"])
def test_client_certificates(plane, identities, ports, who, where):
    pair = {"nobody": lambda: None, "stranger": lambda: identities.stranger.leaf("client.example.com"),
            "expired": lambda: identities.public.leaf("old.example.com", days=-1)}[who]()
    is_welcome = where == "optional" and who == "nobody"
    assert is_refused(ports[where], SITE, trusting(identities.public, pair)) != is_welcome


def test_optional_mutual_tells_of_certificates(plane, identities, ports):
    answer = told(get(ports["optional"], SITE, tls=trusting(identities.public, identities.site("client.example.com")),
                      server_name=SITE))
    assert "DNS=client.example.com" in answer["headers"]["x-forwarded-client-cert"]
    answer = told(get(ports["optional"], SITE, tls=trusting(identities.public), server_name=SITE,
                      headers=[("x-forwarded-client-cert", "DNS=client.example.com")]))
    assert "x-forwarded-client-cert" not in answer["headers"]


def mesh_client(identities, pair):
    """SPIFFE certificates have no DNS name to check."""
    context = trusting(identities.mesh, pair, ["istio-http/1.1", "istio"])
    context.check_hostname = False
    return context


def test_istio_mutual(plane, identities, ports):
    pair = identities.workload("default", "friend")
    answer = told(get(ports["mesh"], SITE, tls=mesh_client(identities, pair), server_name=SITE))
    given = answer["headers"]["x-forwarded-client-cert"]
    assert f"URI={spiffe('default', 'friend')}" in given
    for stranger in (None, identities.stranger.leaf("spiffe", f"URI:{spiffe('default', 'friend')}")):
        assert is_refused(ports["mesh"], SITE, mesh_client(identities, stranger))
    with Client(ports["mesh"], tls=mesh_client(identities, pair), server_name=SITE) as client:
        done = client.socket.getpeercert()["subjectAltName"]
    assert done == (("URI", spiffe("istio-system", "istio-ingressgateway")),)


def test_tls_ended_before_tcp(plane, identities, ports):
    with Client(ports["bytes"], tls=trusting(identities.public, alpn=()), server_name=SITE) as client:
        assert client.send(b"ping\n").exactly(len("bytes ready\nbytes:ping\n")) == b"bytes ready\nbytes:ping\n"
    assert is_refused(ports["bytes"], "other.example.com", trusting(identities.public))


def test_auto_passthrough(plane, identities, backends, ports):
    """The mesh's own SNI names the cluster; the peer's mutual TLS goes through untouched."""
    name = "outbound_.80_._.peer.default.svc.cluster.local"
    context = mesh_client(identities, identities.workload("default", "friend"))
    answer = told(get(ports["auto"], "peer", tls=context, server_name=name))
    assert (answer["server"], answer["sni"], answer["peer"]) == ("sidecar", name, [spiffe("default", "friend")])
    for other in ("outbound_.81_._.peer.default.svc.cluster.local", "outbound_.80_._.nobody.default.svc.cluster.local",
                  "peer.default.svc.cluster.local", "example.com"):
        assert is_refused(ports["auto"], other, mesh_client(identities, identities.workload("default", "friend")))


def test_servers_change_under_load(istio, plane, identities, backends, ports):
    """A port's certificate, hosts and neighbours change; connections of the others never notice."""
    pair = identities.site("new.example.com", SITE)
    changed = objects(identities, backends, ports)
    spec = next(i for i in changed if i["kind"] == "Gateway")["spec"]
    spec["servers"][1]["tls"].update(privateKey=str(pair.key), serverCertificate=str(pair.cert))
    spec["servers"][1]["hosts"].append("new.example.com")
    spec["servers"].append(server(extra := free_port(), "TLS", PASSED, mode="PASSTHROUGH"))
    keepers = [Keeper(ports[p], h, tls=trusting(identities.public), server_name=h)
               for p, h in (("passed", PASSED), ("simple", SITE))]
    with Traffic(lambda n: keepers[n].server(n)) as traffic:
        wait_until(lambda: traffic.seen("one") > 20 and traffic.seen("plain") > 20, "traffic")
        with istio.applied(changed):
            wait_until(lambda: can_connect(extra), "the new server", 20)
            assert told(get(extra, PASSED, tls=trusting(identities.public), server_name=PASSED))["server"] == "one"
            wait_until(lambda: not is_refused(ports["simple"], "new.example.com", trusting(identities.public)), "the new host", 20)
        wait_until(lambda: not can_connect(extra), "the server to go", 60)
        wait_until(lambda: is_refused(ports["simple"], "new.example.com", trusting(identities.public)), "the host to go", 20)
        traffic.forget()
        wait_until(lambda: traffic.seen("one") > 20 and traffic.seen("plain") > 20, "traffic")
    for keeper in keepers:
        keeper.close()


def test_workload_certificate_rotates_under_load(istio, plane, identities, ports):
    """The agent sees the new files and tells by SDS: connections last, new ones get the new certificate."""
    friend = identities.workload("default", "friend")
    keeper = Keeper(ports["mesh"], SITE, tls=mesh_client(identities, friend), server_name=SITE)
    name = spiffe("istio-system", "istio-ingressgateway")

    def shown():
        with Client(ports["mesh"], tls=mesh_client(identities, friend), server_name=SITE) as client:
            return int(client.socket.getpeercert()["serialNumber"], 16)

    def send(number):
        if number == 0:
            return keeper.server(0)
        return told(get(ports["mesh"], SITE, tls=mesh_client(identities, friend), server_name=SITE))["server"]
    with Traffic(send) as traffic:
        for turn in range(3):
            before, pair = shown(), identities.mesh.leaf(f"gateway-{turn}", f"URI:{name}")
            plane.write_credentials(pair)
            wait_until(lambda old=before: shown() != old, "the new certificate", 20)
        wait_until(lambda: traffic.done() > 50, "traffic")
    keeper.close()


def test_nothing_was_refused(plane):
    assert not [v for v in plane.update_rejections().values() if v]
    assert plane.stat("server.envoy_bug_failures") in (0, None)
