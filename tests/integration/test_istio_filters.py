"""Istio's own filters between two sidecars that are one process: istio_alpn, istio_metadata_exchange and istio_stats."""

import re

import pytest

from support.config import bootstrap, chain, cluster, hcm, listener, route, tcp_proxy, tls_certificate, tls_socket, typed
from support.mesh import PEER_EXCHANGE, alpn, peer_metadata, stats, tcp_exchange
from support.process import wait_until
from support.rawhttp import Client, fetch

NODE = {"id": "sidecar~1", "cluster": "web", "metadata": {
    "NAME": "web-1", "NAMESPACE": "shop", "WORKLOAD_NAME": "web", "CLUSTER_ID": "c1",
    "OWNER": "kubernetes://apis/apps/v1/namespaces/shop/deployments/web",
    "LABELS": {"app": "web", "version": "v2", "service.istio.io/canonical-name": "web-svc"}}}
INSPECTOR = [typed("envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")]


@pytest.fixture(scope="module")
def identity(authority):
    return authority.leaf("istio", "DNS:web.test", "URI:spiffe://cluster.local/ns/shop/sa/web")


def server_side(identity, authority, *filters, protocols, match=()):
    context = {"tls_certificates": [tls_certificate(identity)], "alpn_protocols": list(protocols),
               "validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}}
    extra = {"filter_chain_match": {"application_protocols": list(match)}} if match else {}
    return chain(*filters, transport_socket=tls_socket("Downstream", common_tls_context=context, require_client_certificate=True),
                 **extra)


def client_side(identity, authority, protocols=()):
    return tls_socket("Upstream", common_tls_context={
        "tls_certificates": [tls_certificate(identity)], "alpn_protocols": list(protocols),
        "validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}})


def inbound(identity, authority, upstream, filters, protocols, match=()):
    """A process that is the server's sidecar: its port."""
    return bootstrap([listener(name="inbound", traffic_direction="INBOUND", listener_filters=INSPECTOR,
                               chains=[server_side(identity, authority, *filters, protocols=protocols, match=match)])],
                     [cluster("up", upstream.port, metadata={"filter_metadata": {"istio": {"services": [
                         {"host": "db.shop.svc.cluster.local", "name": "db", "namespace": "shop"}]}}})], node=NODE)


def samples(proxy, metric):
    text = proxy.admin("/stats/prometheus").body.decode()
    found = re.findall(rf"^{metric}{{(.*)}} (\d+)$", text, re.M)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), int(value)) for labels, value in found]


def one_sample(proxy, metric, value=None):
    """The metric's only sample; once it has `value`, when one is given."""
    def told():
        found = samples(proxy, metric)
        return found if value is None or [v for _, v in found] == [value] else None
    (labels, value), = wait_until(told, f"{metric} to be told", 10)
    return labels, value


def test_requests(sluice, upstream, identity, authority):
    server = sluice(inbound(identity, authority, upstream, [hcm([route("/")], filters=[
        peer_metadata(downstream_discovery=[{"istio_headers": {}}], downstream_propagation=[{"istio_headers": {}}]),
        stats()])], ["http/1.1"], match=["istio-http/1.1"]))
    client = sluice(bootstrap(
        [listener(hcm([route("/")], filters=[
            peer_metadata(upstream_discovery=[{"istio_headers": {}}, {"workload_discovery": {}}],
                          upstream_propagation=[{"istio_headers": {}}]),
            alpn("istio-http/1.1", "istio"), stats(metrics=[
                {"name": "requests_total", "dimensions": {"how": "request.method"}, "tags_to_remove": ["source_cluster"]}])]),
                  name="outbound", traffic_direction="OUTBOUND")],
        [cluster("up", server.port("inbound"), transport_socket=client_side(identity, authority),
                 filters=[tcp_exchange()])], node=NODE, stats_flush_interval="0.1s"))
    # the server has a chain for Istio's ALPN only: it is the filter that gets the request through
    answer = fetch(client.port("outbound"), "/", headers=[("x-envoy-peer-metadata-id", "forged")])
    assert answer.status == 200 and not [name for name, _ in answer.headers if name.lower().startswith("x-envoy-peer")]
    labels, value = one_sample(server, "istio_requests_total")
    assert value == 1 and labels == {
        "reporter": "destination", "source_workload": "web", "source_canonical_service": "web-svc",
        "source_canonical_revision": "latest", "source_workload_namespace": "shop",
        "source_principal": "spiffe://cluster.local/ns/shop/sa/web", "source_app": "web", "source_version": "v2",
        "source_cluster": "c1", "destination_workload": "web", "destination_workload_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/web", "destination_app": "web",
        "destination_version": "v2", "destination_service": "db.shop.svc.cluster.local",
        "destination_canonical_service": "web-svc", "destination_canonical_revision": "", "destination_service_name": "db",
        "destination_service_namespace": "shop", "destination_cluster": "c1", "request_protocol": "http",
        "response_code": "200", "grpc_response_status": "", "response_flags": "-",
        "connection_security_policy": "mutual_tls"}
    labels, value = one_sample(client, "istio_requests_total")
    assert (value, labels["reporter"], labels["destination_workload"], labels["how"]) == (1, "source", "web", "GET")
    assert labels["destination_principal"] == labels["source_principal"] == "spiffe://cluster.local/ns/shop/sa/web"
    assert "source_cluster" not in labels
    for histogram in ("istio_request_duration_milliseconds_count", "istio_request_bytes_count", "istio_response_bytes_count"):
        wait_until(lambda name=histogram: samples(client, name)[0][1] == 1, f"{histogram} to be 1")


def test_peer_headers_stay_between_proxies(sluice, upstream, identity, authority):
    server = sluice(inbound(identity, authority, upstream, [hcm([route("/")], filters=[
        peer_metadata(downstream_discovery=[{"istio_headers": {}}])])], ["http/1.1"]))
    answer = fetch(server.port("inbound"), "/", headers=[("x-envoy-peer-metadata", "AAAA"), ("x-envoy-peer-metadata-id", "x")],
                   tls=authority.client_context(identity), server_name="web.test")
    assert answer.status == 200
    assert not [name for name, _ in upstream.requests[-1].headers if name.lower().startswith("x-envoy-peer")]
    assert server.stat("istio_peer.malformed") == 1


@pytest.mark.parametrize("offered, peer", [([PEER_EXCHANGE, "istio"], "web"), (["istio"], "unknown")])
def test_connections(sluice, byte_upstream, identity, authority, offered, peer):
    quick = stats(tcp_reporting_duration="0.05s")
    server = sluice(inbound(identity, authority, byte_upstream, [tcp_exchange(), quick, tcp_proxy()], [PEER_EXCHANGE]))
    client = sluice(bootstrap(
        [listener(quick, tcp_proxy(), name="outbound", traffic_direction="OUTBOUND")],
        [cluster("up", server.port("inbound"), transport_socket=client_side(identity, authority, offered),
                 filters=[tcp_exchange()])], node=NODE))
    with Client(client.port("outbound")) as connection:
        connection.send(b"ping\n").fill()
        labels, opened = one_sample(server, "istio_tcp_connections_opened_total", 1)
        assert (opened, labels["source_workload"], labels["request_protocol"]) == (1, peer, "tcp")
        assert labels["source_principal"] == "spiffe://cluster.local/ns/shop/sa/web"
    labels, closed = one_sample(client, "istio_tcp_connections_closed_total", 1)
    assert (closed, labels["reporter"], labels["destination_workload"]) == (1, "source", peer)
    assert labels["destination_principal"] == "spiffe://cluster.local/ns/shop/sa/web"
    one_sample(client, "istio_tcp_received_bytes_total", 5)
    one_sample(server, "istio_tcp_received_bytes_total", 5)
