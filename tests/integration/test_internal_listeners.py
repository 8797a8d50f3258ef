"""Internal listeners: transfers through them, their life under a control plane, what happens when they are not there. How logs,
stats and admin tell of them: tests/parity."""

import json
import subprocess
import threading

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401  for Any
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2  # noqa: F401
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401

from support.ads_server import CLUSTER, ENDPOINTS, LISTENER
from support.config import bootstrap, cluster, direct, hcm, http2, listener, route, tcp_proxy, tls_certificate, tls_socket, vhost
from support.internal import (EXTENSION, ORIGINAL_DST, RESTORES, internal_cluster, internal_endpoint, internal_listener,
                              internal_upstream, original_dst_cluster)
from support.process import wait_until
from support.proxy import Sluice
from support.rawhttp import Client, fetch
from support.tunnel_server import TunnelServer
from support.upstream import ByteUpstream
from support.xds_config import ads_bootstrap, eds_cluster

KINDS = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])


def start(sluice, listeners, clusters, **options):
    return sluice(bootstrap(listeners, clusters, bootstrap_extensions=[EXTENSION]), **options)


def gone(proxy):
    """Nothing is left of what went through."""
    for name in ("cluster.in.upstream_cx_active", "listener.envoy_internal_inner.downstream_cx_active"):
        proxy.wait_stat(name, 0)


# ---- bytes ----

@pytest.mark.smoke
@pytest.mark.parametrize("limit", [32768, None])
def test_large_transfer(sluice, upstreams, limit):
    """Buffers far smaller than the bytes: each end is stopped and resumed through all of it."""
    server = upstreams(ByteUpstream)
    limits = {"per_connection_buffer_limit_bytes": limit} if limit else {}
    proxy = start(sluice, [listener(tcp_proxy("in"), **limits), internal_listener("inner", tcp_proxy("up", stat_prefix="inner"), **limits)],
                  [internal_cluster("in", "inner", **limits), cluster("up", server.port, **limits)])
    sent = bytes(range(256)) * 20000
    with Client(proxy.port(), timeout=60) as client:
        sender = threading.Thread(target=lambda: client.send(sent).half_close())
        sender.start()
        assert client.until_close() == sent
        sender.join()
    gone(proxy)
    assert proxy.stat("tcp.inner.downstream_cx_rx_bytes_total") == len(sent)


@pytest.mark.smoke
def test_tunnel_over_http2(sluice, upstreams):
    """As a mesh does: the request to a host goes by the address in that host's metadata, as a stream of one connection."""
    server = upstreams(TunnelServer, is_http2=True)
    tunnel = tcp_proxy("tunnels", stat_prefix="tunnel", tunneling_config={"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"})
    to = original_dst_cluster("tunnels", original_dst_lb_config={"upstream_port_override": server.port},
                              typed_extension_protocol_options=http2())
    hosts = [f"127.0.0.1:{port}" for port in (80, 81)]
    clusters = [internal_cluster(host, "inner", ("host", ORIGINAL_DST), host_metadata={ORIGINAL_DST: {"local": host}}) for host in hosts]
    proxy = start(sluice, [*(listener(tcp_proxy(host), name=host) for host in hosts),
                           internal_listener("inner", tunnel, listener_filters=[RESTORES])], [*clusters, to], concurrency=1)
    for host in hosts:
        with Client(proxy.port(host)) as client:
            assert client.send(b"abc").exactly(3) == b"ABC"
    assert [dict(headers)[":authority"] for headers, _ in server.received] == hosts
    assert proxy.stat("cluster.tunnels.upstream_cx_total") == 1
    assert proxy.stat("cluster.tunnels.upstream_rq_total") == 2


def test_tls_inside(sluice, authority, upstreams):
    """The transport inside internal_upstream: TLS from one listener to the other, HTTP/2 in it."""
    server = authority.leaf("server", "DNS:inner.example")
    inside = tls_socket("Upstream", sni="inner.example", common_tls_context={
        "alpn_protocols": ["h2"], "validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}})
    secured = tls_socket("Downstream", common_tls_context={"alpn_protocols": ["h2"], "tls_certificates": [tls_certificate(server)]})
    answers = hcm(vhosts=[vhost([direct("/", body="inside")])], stat_prefix="inner")
    inner = internal_listener("inner", answers)
    inner["filter_chains"][0]["transport_socket"] = secured
    to = cluster("in", internal_endpoint("inner"), transport_socket=internal_upstream(inner=inside), typed_extension_protocol_options=http2())
    proxy = start(sluice, [listener(hcm([route(cluster="in")])), inner], [to], concurrency=1)
    assert [fetch(proxy.port()).body for _ in range(3)] == [b"inside"] * 3
    assert proxy.stat("cluster.in.upstream_cx_http2_total") == 1
    assert proxy.stat("listener.envoy_internal_inner.ssl.handshake") == 1


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_ends_go_through(sluice, upstreams, who):
    server = upstreams(ByteUpstream)
    proxy = start(sluice, [listener(tcp_proxy("in")), internal_listener("inner", tcp_proxy("up"))],
                  [internal_cluster("in", "inner"), cluster("up", server.port)])
    with Client(proxy.port()) as client:
        assert client.send(b"abc").exactly(3) == b"abc"
        if who == "upstream":
            server.drop_all()
            assert client.is_closed()
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)
    gone(proxy)


# ---- limits ----

def test_listener_that_dials_itself(sluice):
    """Ends at the cluster's limit; the worker goes on."""
    limits = {"circuit_breakers": {"thresholds": [{"max_connections": 50}]}}
    proxy = start(sluice, [listener(tcp_proxy("in")), internal_listener("inner", tcp_proxy("in")),
                           listener(hcm(vhosts=[vhost([direct("/", body="well")])]), name="other")], [internal_cluster("in", "inner", **limits)],
                  concurrency=1)
    with Client(proxy.port("main")) as client:
        assert client.is_closed()
    assert 50 <= proxy.stat("cluster.in.upstream_cx_total") <= 51
    assert fetch(proxy.port("other")).body == b"well"
    gone(proxy)


def test_health_checks_fail(sluice):
    """They are made where there are no internal listeners, as in Envoy."""
    check = {"timeout": "1s", "interval": "1s", "unhealthy_threshold": 1, "healthy_threshold": 1, "tcp_health_check": {}}
    proxy = start(sluice, [listener(tcp_proxy("in")), internal_listener("inner", tcp_proxy("in"))],
                  [internal_cluster("in", "inner", health_checks=[check])])
    proxy.wait_stat("cluster.in.health_check.network_failure", 1)
    assert "in::envoy://inner/::health_flags::/failed_active_hc" in proxy.admin("/clusters").text


def test_no_more_connections_while_it_drains(sluice, upstreams):
    server = upstreams(ByteUpstream)
    proxy = start(sluice, [listener(tcp_proxy("in")), internal_listener("inner", tcp_proxy("up"), traffic_direction="INBOUND")],
                  [internal_cluster("in", "inner"), cluster("up", server.port)])
    with Client(proxy.port()) as before, Client(proxy.port()) as after:
        assert before.send(b"abc").exactly(3) == b"abc"
        assert after.send(b"abc").exactly(3) == b"abc"
        proxy.post("/drain_listeners?inboundonly")
        with Client(proxy.port()) as late:
            assert late.is_closed()
        assert before.send(b"def").exactly(3) == b"def"
    assert proxy.stat("cluster.in.upstream_cx_connect_fail") == 1


def test_extension_is_checked(tmp_path):
    wrong = {**EXTENSION, "typed_config": {**EXTENSION["typed_config"], "buffer_size_kb": 0}}
    (tmp_path / "b.json").write_text(json.dumps(bootstrap([], bootstrap_extensions=[wrong])))
    done = subprocess.run([Sluice.binary, "--mode", "validate", "-c", tmp_path / "b.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bootstrap_extensions[0]" in done.stderr and "buffer_size_kb" in done.stderr


# ---- under a control plane ----

def world(sluice, ads, kind, *listeners):
    """The client's listener is there always; clusters and endpoints lead to the internal one."""
    made = ads_bootstrap(ads, kind)
    made["static_resources"]["listeners"] = [listener(tcp_proxy("in"))]
    made["bootstrap_extensions"] = [EXTENSION]
    ads.set(CLUSTER, "c1", [eds_cluster("in", transport_socket=internal_upstream())])
    ads.set(ENDPOINTS, "e1", [{"cluster_name": "in", "endpoints": [{"lb_endpoints": [internal_endpoint("inner", "x")]}]}])
    ads.set(LISTENER, "l1", list(listeners))
    proxy = sluice(made)
    proxy.wait_stat("cluster.in.membership_total", 1)
    return proxy


def says(text, **fields):
    return internal_listener("inner", hcm(vhosts=[vhost([direct("/", body=text)])], stat_prefix="inner"), **fields)


def serves(proxy, text):
    wait_until(lambda: fetch(proxy.port()).body == text, f"{text} is served")


@KINDS
def test_comes_changes_and_goes(sluice, ads, kind):
    proxy = world(sluice, ads, kind)
    with Client(proxy.port()) as client:
        assert client.is_closed()
    ads.set(LISTENER, "l2", [says("one")])
    proxy.wait_stat("listener_manager.lds.update_success", 2)
    serves(proxy, b"one")
    with Client(proxy.port()) as kept, Client(proxy.port()) as drained:
        assert kept.request("GET", "/").body == drained.request("GET", "/").body == b"one"
        ads.set(LISTENER, "l3", [says("one", metadata={"filter_metadata": {"new": {}}})])
        proxy.wait_stat("listener_manager.listener_modified", 1)
        assert kept.request("GET", "/").body == b"one"
        ads.set(LISTENER, "l4", [says("two")])
        proxy.wait_stat("listener_manager.listener_modified", 2)
        serves(proxy, b"two")
        assert kept.request("GET", "/").body == b"one"
        ads.set(LISTENER, "l5", [])
        proxy.wait_stat("listener_manager.listener_removed", 1)
        with Client(proxy.port()) as client:
            assert client.is_closed()
        assert drained.request("GET", "/").body == b"one"
    ads.set(LISTENER, "l6", [says("three")])
    proxy.wait_stat("listener_manager.total_listeners_active", 2)
    serves(proxy, b"three")
    assert proxy.stat("listener_manager.lds.update_rejected") == 0


@KINDS
def test_takes_and_gives_a_name(sluice, ads, kind):
    """A listener with a socket becomes an internal one and back; what is refused leaves the last one in place."""
    answers = hcm(vhosts=[vhost([direct("/", body="socket")])])
    proxy = world(sluice, ads, kind, listener(answers, name="inner"))
    proxy.wait_stat("listener_manager.total_listeners_active", 2)
    assert fetch(proxy.port("inner")).body == b"socket"
    ads.set(LISTENER, "l2", [says("internal")])
    proxy.wait_stat("listener_manager.listener_modified", 1)
    serves(proxy, b"internal")
    ads.set(LISTENER, "l3", [says("refused", transparent=True)])
    proxy.wait_stat("listener_manager.lds.update_rejected", 1)
    assert fetch(proxy.port()).body == b"internal"
    ads.set(LISTENER, "l4", [listener(answers, name="inner")])
    proxy.wait_stat("listener_manager.listener_modified", 2)
    with Client(proxy.port("main")) as client:
        assert client.is_closed()
