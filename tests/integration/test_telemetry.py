"""Istio's standard metrics, label by label as Istio documents them, of both reporters: requests and TCP connections between two
sidecars, and with peers outside the mesh."""

import contextlib
import re

import pytest

from support import netns
from support.h2client import H2Client
from support.intercepted import CLIENT_ID, OUTSIDE, SERVER, SERVER_ID, UNKNOWN_PORT, VIP, Mesh, world_of
from support.mesh import DB, WEB_HTTP
from support.process import wait_until
from support.rawhttp import Client, fetch
from support.upstream import Reply

SIDES = ("workload", "workload_namespace", "canonical_service", "canonical_revision", "app", "version", "cluster", "principal")
UNKNOWN = {"workload": "unknown", "workload_namespace": "unknown", "canonical_service": "unknown", "canonical_revision": "latest",
           "app": "unknown", "version": "unknown", "cluster": "unknown", "principal": "unknown"}


def known(name, principal="unknown"):
    """What a workload of support.intercepted.node() is told as."""
    return {"workload": name, "workload_namespace": "shop", "canonical_service": name, "canonical_revision": "v1", "app": name,
            "version": "v1", "cluster": "c1", "principal": principal}


def labels(reporter, source, destination, service, policy, protocol, flags="-", **http):
    host, name, space = service
    return {"reporter": reporter, "connection_security_policy": policy, "request_protocol": protocol, "response_flags": flags,
            "destination_service": host, "destination_service_name": name, "destination_service_namespace": space,
            **{f"source_{k}": source[k] for k in SIDES}, **{f"destination_{k}": destination[k] for k in SIDES}, **http}


def samples(proxy, metric):
    found = re.findall(rf"^{metric}{{(.*)}} (\S+)$", proxy.admin("/stats/prometheus").text, re.M)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', text)), float(value)) for text, value in found]


def told(proxy, metric, wanted, value=None):
    """The metric of exactly these labels, waited for; its value, once it is `value` where one is given."""
    def find():
        return [v for have, v in samples(proxy, metric) if have == wanted and (value is None or v == value)]

    found = wait_until(find, lambda: f"{metric} {value} {wanted}, there are {samples(proxy, metric)}")
    assert len(found) == 1
    return found[0]


def histogram(proxy, name, wanted):
    """Its sum, after its count was found to be 1 and its buckets to agree."""
    told(proxy, f"{name}_count", wanted, 1)
    buckets = [(float(have.pop("le").replace("+Inf", "inf")), v) for have, v in samples(proxy, f"{name}_bucket")
               if {k: v for k, v in have.items() if k != "le"} == wanted]
    total = told(proxy, f"{name}_sum", wanted)
    assert buckets[-1] == (float("inf"), 1) and all(v == 1 for le, v in buckets if le > 1.1 * total)
    return total


@pytest.fixture(scope="module")
def redirected(authority):
    yield from world_of(authority, netns.REDIRECT)


@pytest.fixture
def mesh(redirected, authority, tmp_path):
    with contextlib.ExitStack() as stack:
        m = Mesh(redirected, authority, tmp_path, stack, istio=True)
        yield m


WEB = ("web.shop", "web", "shop")


def test_requests(mesh):
    mesh.world.web.script(Reply(body=b"x" * 3000))
    assert mesh.fetch(WEB_HTTP, VIP, "web.shop", method="POST", body=b"y" * 5000).status == 200
    http = {"response_code": "200", "grpc_response_status": ""}
    client, server = known("client", CLIENT_ID), known("server", SERVER_ID)
    source = labels("source", client, server, WEB, "unknown", "http", **http)
    destination = labels("destination", client, server, WEB, "mutual_tls", "http", **http)
    for proxy, wanted in ((mesh.client, source), (mesh.server, destination)):
        assert told(proxy, "istio_requests_total", wanted) == 1
        assert 5000 <= histogram(proxy, "istio_request_bytes", wanted) < 6500   # heads count, peers' metadata among them
        assert 3000 <= histogram(proxy, "istio_response_bytes", wanted) < 4500
        assert 0 <= histogram(proxy, "istio_request_duration_milliseconds", wanted) < 5000


@pytest.mark.parametrize("status, code", [("0", "0"), ("5", "5"), ("nonsense", "")])
def test_grpc(mesh, status, code):
    app = mesh.world.h2
    app.trailers = [("grpc-status", status)]
    try:
        with mesh.world.client.inside(), H2Client(WEB_HTTP, to=VIP) as client:
            head = [("content-type", "application/grpc"), ("te", "trailers")]
            assert client.get("/", "POST", head, b"\0\0\0\0\0" * 3, authority="h2.shop").status == 200
    finally:
        app.trailers = []
    http = {"response_code": "200", "grpc_response_status": code}
    service = ("h2.shop", "h2", "shop")
    client, server = known("client", CLIENT_ID), known("server", SERVER_ID)
    wanted = labels("source", client, server, service, "unknown", "grpc", **http)
    assert told(mesh.client, "istio_requests_total", wanted) == 1
    told(mesh.server, "istio_requests_total", labels("destination", client, server, WEB, "mutual_tls", "grpc", **http), 1)
    assert [v for have, v in samples(mesh.client, "istio_request_messages_total") if have["destination_workload"] == "server"] == [3]


def test_plain_peer_of_the_mesh(mesh):
    """Without TLS headers tell the peer, but nobody's identity is known."""
    assert mesh.fetch(WEB_HTTP, VIP, "legacy.shop").status == 200
    http = {"response_code": "200", "grpc_response_status": ""}
    client, server = known("client"), known("server")
    told(mesh.client, "istio_requests_total",
         labels("source", client, server, ("legacy.shop", "legacy", "shop"), "unknown", "http", **http), 1)
    told(mesh.server, "istio_requests_total", labels("destination", client, server, WEB, "none", "http", **http), 1)


def test_stranger(mesh):
    """A client without a sidecar, and without Istio's headers."""
    with mesh.world.client.inside(), netns.unredirected(mesh.world.client):
        assert fetch(WEB_HTTP, to=SERVER, host="web.shop").status == 200
    http = {"response_code": "200", "grpc_response_status": ""}
    wanted = labels("destination", UNKNOWN, known("server"), WEB, "none", "http", **http)
    told(mesh.server, "istio_requests_total", wanted, 1)
    assert samples(mesh.client, "istio_requests_total") == []


@pytest.mark.parametrize("reply, flags", [(Reply(status=503, body=b""), "-"), (Reply(reset=True), "UC")])
def test_failures(mesh, reply, flags):
    """Of the application; its sidecar's answer is a 503 like any other for the client's."""
    mesh.world.web.script(reply)
    assert mesh.fetch(WEB_HTTP, VIP, "web.shop").status == 503
    http = {"response_code": "503", "grpc_response_status": ""}
    client, server = known("client", CLIENT_ID), known("server", SERVER_ID)
    told(mesh.client, "istio_requests_total", labels("source", client, server, WEB, "unknown", "http", **http), 1)
    told(mesh.server, "istio_requests_total", labels("destination", client, server, WEB, "mutual_tls", "http", flags, **http), 1)


def test_nobody_there(mesh):
    mesh.server.stop()
    assert mesh.fetch(WEB_HTTP, VIP, "web.shop").status == 503
    service = ("web.shop", "web", "unknown")    # the namespace is the peer's, whom nobody met
    told(mesh.client, "istio_requests_total", labels("source", known("client"), UNKNOWN, service, "unknown", "http", "UF",
                                                     response_code="503", grpc_response_status=""), 1)


def test_tcp(mesh):
    with mesh.connect(DB, VIP) as client:
        client.fill()
        client.send(b"ping!").fill()
        assert client.data == b"hello\nping!"
    service = ("db.shop", "db", "shop")
    client, server = known("client", CLIENT_ID), known("server", SERVER_ID)
    source = labels("source", client, server, service, "unknown", "tcp")
    destination = labels("destination", client, server, WEB, "mutual_tls", "tcp")
    for proxy, wanted in ((mesh.client, source), (mesh.server, destination)):
        told(proxy, "istio_tcp_connections_opened_total", wanted, 1)
        told(proxy, "istio_tcp_connections_closed_total", wanted, 1)
        told(proxy, "istio_tcp_received_bytes_total", wanted, 5)
        told(proxy, "istio_tcp_sent_bytes_total", wanted, 11)


def test_tcp_beyond_the_mesh(mesh):
    with mesh.connect(UNKNOWN_PORT, OUTSIDE) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").fill()
    wanted = labels("source", known("client"), UNKNOWN, ("unknown", "PassthroughCluster", "unknown"), "unknown", "tcp")
    told(mesh.client, "istio_tcp_connections_opened_total", wanted, 1)
    told(mesh.client, "istio_tcp_connections_closed_total", wanted, 1)
    told(mesh.client, "istio_tcp_received_bytes_total", wanted, 27)


def test_black_hole(mesh):
    with mesh.world.server.inside(), Client(15006) as client:
        assert client.send(b"x").is_closed()
    seen = wait_until(lambda: samples(mesh.server, "istio_tcp_connections_closed_total"), "the connection to be told")
    assert [(s["response_flags"], s["destination_service_name"], s["source_workload"]) for s, _ in seen] == [
        ("UH", "BlackHoleCluster", "unknown")]
