"""The dynamic forward proxy (HTTP filter, sni_dynamic_forward_proxy, cluster type) with a scripted DNS server: who waits, who is
refused, and that hosts that nobody names any more leave nothing behind."""

import concurrent.futures
import json
import socket
import ssl
import subprocess

import pytest

from support.config import TYPE, bootstrap, file_log, hcm, http_options, listener, route, tcp_proxy, tls_socket, typed
from support.dns_server import SERVER_FAILURE, DnsServer
from support.proxy import Sluice
from support.rawhttp import fetch
from support.upstream import ScriptedUpstream

MESSAGES = "envoy.extensions.{}.dynamic_forward_proxy.v3.{}"
FILTER, SNI_FILTER = "envoy.filters.http.dynamic_forward_proxy", "envoy.filters.network.sni_dynamic_forward_proxy"
LOG = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n"


@pytest.fixture
def dns():
    with DnsServer(names={"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"], "fail.test": SERVER_FAILURE},
                   silent=["silent.test"]) as server:
        yield server


def cache(dns, **fields):
    return {"name": "c", "dns_lookup_family": "V4_ONLY", "typed_dns_resolver_config": dns.resolver(), **fields}


def dynamic_cluster(settings, **fields):
    config = {"dns_cache_config": settings, **fields.pop("type_fields", {})}
    return {"name": "up", "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": typed(
        "envoy.clusters.dynamic_forward_proxy", MESSAGES.format("clusters", "ClusterConfig"), **config), **fields}


def http_filter(settings, **fields):
    return typed(FILTER, MESSAGES.format("filters.http", "FilterConfig"), dns_cache_config=settings, **fields)


def http_listener(settings=None, log=None, routes=None, name="main", **fields):
    filters = [http_filter(settings, **fields)] if settings else []
    logs = [file_log(log, LOG)] if log else []
    return listener(hcm(routes or [route()], filters=filters, access_log=logs), name=name)


def started(sluice, dns, has_filter=True, log=None, cluster_fields=None, **settings):
    settings = cache(dns, **settings)
    return sluice(bootstrap([http_listener(settings if has_filter else None, log)], [dynamic_cluster(settings, **(cluster_fields or {}))]))


def ask(proxy, host, path="/"):
    return fetch(proxy.port("main"), path, host=host)


@pytest.mark.smoke
@pytest.mark.parametrize("has_filter", [True, False], ids=["filter", "cluster"])
def test_each_host_is_looked_up_once(sluice, dns, upstream, has_filter):
    proxy = started(sluice, dns, has_filter)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda i: ask(proxy, f"{'ab'[i % 2]}.test:{upstream.port}"), range(16))
        assert [r.status for r in replies] == [200] * 16
    assert {r.get("host") for r in upstream.requests} == {f"{n}.test:{upstream.port}" for n in "ab"}
    assert sorted(dns.asked) == ["a.test", "b.test"]
    assert proxy.stat("cluster.up.membership_total") == 2
    assert proxy.stat("dns_cache.c.num_hosts") == 2
    assert proxy.stat("dns_cache.c.circuit_breakers.rq_pending_remaining") == 1024


@pytest.mark.parametrize("has_filter", [True, False], ids=["filter", "cluster"])
def test_unknown_hosts(sluice, dns, tmp_path, has_filter):
    log = tmp_path / "log"
    proxy = started(sluice, dns, has_filter, log, dns_query_timeout="0.05s")
    hosts = {"none.test": "cares_norecords:Domain_name_not_found", "fail.test": "cares_failure:Could_not_contact_DNS_servers",
             "silent.test": "resolve_timeout", "x" * 1100: "cares_failure:Misformatted_domain_name",
             "[none.test]:1": "cares_failure:Misformatted_domain_name", "none.test:65536": "cares_failure:Misformatted_domain_name"}
    for host in hosts:
        for _ in range(2):
            reply = ask(proxy, host)
            assert (reply.status, reply.body) == (503, b"DNS resolution failure" if has_filter else b"no healthy upstream"), host
    flag = "DF" if has_filter else "UH"
    wanted = [f"503 {flag} dns_resolution_failure{{{why}}}" for why in hosts.values() for _ in range(2)]
    assert proxy.log_lines(log, len(wanted)) == wanted
    assert proxy.stat("cluster.up.membership_total") == 0


def test_a_client_that_leaves_frees_its_place(sluice, dns, upstream):
    """One may wait: while it does others are turned away, and when it has gone the next one waits."""
    proxy = started(sluice, dns, dns_cache_circuit_breaker={"max_pending_requests": 1}, dns_query_timeout="60s")
    for _ in range(2):
        with socket.create_connection(("127.0.0.1", proxy.port("main"))) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: silent.test\r\n\r\n")
            proxy.wait_stat("dns_cache.c.circuit_breakers.rq_pending_open", 1)
            reply = ask(proxy, f"a.test:{upstream.port}")
            assert (reply.status, reply.body) == (503, b"Dynamic forward proxy pending request overflow")
        proxy.wait_stat("dns_cache.c.circuit_breakers.rq_pending_open", 0)
    assert ask(proxy, f"a.test:{upstream.port}").status == 200
    assert proxy.stat("dns_cache.c.dns_rq_pending_overflow") == 2
    assert proxy.stat("dns_cache.c.dns_query_attempt") == 2


def test_a_route_timeout_ends_the_wait(sluice, dns, tmp_path):
    log, settings = tmp_path / "log", cache(dns, dns_query_timeout="60s")
    proxy = sluice(bootstrap([http_listener(None, log, [route(timeout="0.1s")])], [dynamic_cluster(settings)]))
    reply = ask(proxy, "silent.test")
    assert (reply.status, reply.body) == (504, b"upstream request timeout")
    assert proxy.log_lines(log, 1) == ["504 UT response_timeout"]
    assert proxy.stat("dns_cache.c.circuit_breakers.rq_pending_remaining") == 1024


def test_hosts_past_the_limit(sluice, dns, upstream, tmp_path):
    log = tmp_path / "log"
    proxy = started(sluice, dns, True, log, max_hosts=1)
    assert ask(proxy, f"a.test:{upstream.port}").status == 200
    assert ask(proxy, f"b.test:{upstream.port}").body == b"DNS cache overflow"
    assert ask(proxy, f"a.test:{upstream.port}").status == 200
    assert proxy.log_lines(log, 3)[1] == "503 - dns_cache_overflow"
    assert proxy.stat("dns_cache.c.host_overflow") == 1


def test_expired_hosts_leave_no_connection(sluice, dns, upstream):
    """Names without end: their pools go with them."""
    dns.names = None
    proxy = started(sluice, dns, host_ttl="0.001s", dns_min_refresh_rate="1s")
    for i in range(20):
        assert ask(proxy, f"host{i}.test:{upstream.port}").status == 200
    assert proxy.stat("cluster.up.membership_total") == 20
    proxy.wait_stat("dns_cache.c.num_hosts", 0)
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)
    assert proxy.stat("cluster.up.membership_total") == 0
    assert proxy.stat("dns_cache.c.host_removed") == 20
    assert ask(proxy, f"host1.test:{upstream.port}").status == 200


def test_rewritten_host(sluice, dns, upstream):
    settings = cache(dns)
    per_route = {"@type": f"{TYPE}{MESSAGES.format('filters.http', 'PerRouteConfig')}"}
    routes = [{**route("/literal"), "typed_per_filter_config": {FILTER: {**per_route, "host_rewrite_literal": f"a.test:{upstream.port}"}}},
              {**route("/header"), "typed_per_filter_config": {FILTER: {**per_route, "host_rewrite_header": "X-To"}}}]
    proxy = sluice(bootstrap([http_listener(settings, routes=routes)], [dynamic_cluster(settings)]))
    assert ask(proxy, "none.test", "/literal").status == 200
    assert fetch(proxy.port("main"), "/header", host="none.test", headers=[("x-to", f"b.test:{upstream.port}")]).status == 200
    assert [r.get("host") for r in upstream.requests] == [f"{n}.test:{upstream.port}" for n in "ab"]


def test_server_names_by_host(sluice, dns, authority, upstreams):
    """TLS to each host with its own name, and trust in that name alone."""
    up = upstreams(ScriptedUpstream, tls=authority.server_context(authority.leaf("a.test")))
    trusted = {"trusted_ca": {"filename": str(authority.pair.cert)}}
    transport = tls_socket("Upstream", common_tls_context={"validation_context": trusted})
    proxy = started(sluice, dns, cluster_fields={"transport_socket": transport})
    assert ask(proxy, f"a.test:{up.port}").status == 200
    assert ask(proxy, f"b.test:{up.port}").status == 503
    assert proxy.stat("cluster.up.ssl.fail_verify_san") == 1


def refusal(tmp_path, *clusters):
    """What --mode validate says of them."""
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(bootstrap([], clusters)))
    done = subprocess.run([Sluice.binary, "-c", file, "--mode", "validate"], capture_output=True, text=True, timeout=20)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_refused_clusters(dns, tmp_path):
    settings = cache(dns)
    insecure = "must have auto_sni and auto_san_validation true"
    options = http_options(explicit_http_config={"http_protocol_options": {}})
    cluster = dynamic_cluster(settings)
    assert insecure in refusal(tmp_path, {**cluster, "typed_extension_protocol_options": options})
    assert insecure in refusal(tmp_path, {**cluster, "upstream_http_protocol_options": {"auto_sni": True}})
    assert "cluster provided LB not specified" in refusal(tmp_path, {**cluster, "lb_policy": "ROUND_ROBIN"})
    sub_clusters = typed("envoy.clusters.dynamic_forward_proxy", MESSAGES.format("clusters", "ClusterConfig"), sub_clusters_config={})
    assert "sub_clusters_config is not supported" in refusal(tmp_path, {**cluster, "cluster_type": sub_clusters})
    other = {**dynamic_cluster(cache(dns, max_hosts=3)), "name": "other"}
    assert "config specified DNS cache 'c' with different settings" in refusal(tmp_path, cluster, other)


def hello(port, server_name):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw, context.wrap_socket(raw, server_hostname=server_name) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        return tls.recv(100)


def test_server_name_says_where_to(sluice, dns, authority, upstreams):
    up = upstreams(ScriptedUpstream, tls=authority.server_context(authority.leaf("a.test")))
    settings = cache(dns)
    first = typed(SNI_FILTER, "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
                  dns_cache_config=settings, port_value=up.port)
    inspector = typed("envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")
    proxy = sluice(bootstrap([listener(first, tcp_proxy("up"), listener_filters=[inspector])],
                             [dynamic_cluster(settings, type_fields={"allow_insecure_cluster_options": True})]))
    for _ in range(2):
        assert hello(proxy.port(), "a.test").startswith(b"HTTP/1.1 200")
    for name in ("none.test", None):
        with pytest.raises(OSError):
            hello(proxy.port(), name)
    assert proxy.stat("dns_cache.c.dns_query_attempt") == 2
    proxy.wait_stat("dns_cache.c.circuit_breakers.rq_pending_remaining", 1024)
