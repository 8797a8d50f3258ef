"""Access control by envoy.filters.http.rbac and envoy.filters.network.rbac on live listeners."""

import json
import subprocess

import pytest

from support.config import TYPE, bootstrap, cluster, direct, hcm, listener, route, tcp_proxy, typed
from support.proxy import Sluice
from support.rawhttp import Client, fetch

HTTP_RBAC, NETWORK_RBAC = "envoy.filters.http.rbac", "envoy.filters.network.rbac"
ANY = {"any": True}


def rules(action, permission=ANY, principal=ANY):
    return {"action": action, "policies": {"p": {"permissions": [permission], "principals": [principal]}}}


def http_rbac(**fields):
    return typed(HTTP_RBAC, "envoy.extensions.filters.http.rbac.v3.RBAC", **fields)


def network_rbac(**fields):
    return typed(NETWORK_RBAC, "envoy.extensions.filters.network.rbac.v3.RBAC", stat_prefix="net", **fields)


def per_route(**fields):
    return {HTTP_RBAC: {"@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBACPerRoute", **fields}}


@pytest.mark.smoke
def test_requests(sluice):
    admin = {"url_path": {"path": {"prefix": "/admin"}}}
    open_route = {**direct("/admin/open"), "typed_per_filter_config": per_route()}
    strict = {**direct("/strict"), "typed_per_filter_config": per_route(rbac={"rules": rules("ALLOW", {"not_rule": ANY})})}
    proxy = sluice(bootstrap([listener(hcm([open_route, strict, {**direct("/"), "match": {"prefix": "/"}}],
                                           filters=[http_rbac(rules=rules("DENY", admin),
                                                              shadow_rules=rules("DENY"))]))]))
    assert [fetch(proxy.port(), path).status for path in ("/", "/admin", "/admin/open", "/strict")] == [200, 403, 200, 403]
    assert fetch(proxy.port(), "/admin").body == b"RBAC: access denied"
    assert proxy.stat("http.ingress.rbac.allowed") == 1 and proxy.stat("http.ingress.rbac.denied") == 3
    assert proxy.stat("http.ingress.rbac.shadow_denied") == 3


@pytest.mark.smoke
def test_connections(sluice, byte_upstream):
    loopback = {"direct_remote_ip": {"address_prefix": "127.0.0.0", "prefix_len": 8}}
    listeners = [listener(network_rbac(rules=rules("DENY" if name == "closed" else "ALLOW", principal=loopback)), tcp_proxy(),
                          name=name) for name in ("open", "closed")]
    proxy = sluice(bootstrap(listeners, [cluster("up", byte_upstream.port)]))
    ports = {name: port for name, (_, port) in proxy.listeners().items()}
    with Client(ports["open"]) as client:
        client.send(b"ping\n").fill()
    with Client(ports["closed"]) as client, pytest.raises(EOFError):
        client.send(b"ping\n").fill()
        client.fill()
    assert proxy.stat("net.rbac.allowed") == 1 and proxy.stat("net.rbac.denied") == 1


def tree(source, key, what="ALLOW"):
    """A matcher that leads from one value of a source to an action."""
    action = {"@type": f"{TYPE}envoy.config.rbac.v3.Action", "name": "p", "action": what}
    return {"matcher_tree": {"input": source,
                             "exact_match_map": {"map": {key: {"action": {"name": "action", "typed_config": action}}}}}}


HEADER = typed("header", "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name="x-key")
SOURCE_IP = typed("ip", "envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")


@pytest.mark.smoke
def test_matcher_trees(sluice, byte_upstream):
    strict = {**direct("/strict"), "typed_per_filter_config": per_route(rbac={"matcher": {}})}
    listeners = [
        listener(hcm([strict, {**direct("/"), "match": {"prefix": "/"}}],
                     filters=[http_rbac(matcher=tree(HEADER, "open"), shadow_matcher=tree(HEADER, "open", "DENY"),
                                        track_per_rule_stats=True)]), name="http"),
        listener(network_rbac(matcher=tree(SOURCE_IP, "127.0.0.1")), tcp_proxy(), name="open"),
        listener(network_rbac(matcher=tree(SOURCE_IP, "127.0.0.2")), tcp_proxy(), name="closed")]
    proxy = sluice(bootstrap(listeners, [cluster("up", byte_upstream.port)]))
    ports = {name: port for name, (_, port) in proxy.listeners().items()}
    keys = [("/", "open"), ("/", "shut"), ("/", None), ("/strict", "open")]
    assert [fetch(ports["http"], path, headers=[("x-key", key)] if key else []).status for path, key in keys] == [200, 403, 403, 403]
    assert proxy.stat("http.ingress.rbac.allowed") == 1 and proxy.stat("http.ingress.rbac.denied") == 3
    assert proxy.stat("http.ingress.rbac.shadow_denied") == 3 and proxy.stat("http.ingress.rbac.policy.p.allowed") == 1
    with Client(ports["open"]) as client:
        client.send(b"ping\n").fill()
    with Client(ports["closed"]) as client, pytest.raises(EOFError):
        client.send(b"ping\n").fill()
        client.fill()
    assert proxy.stat("net.rbac.allowed") == 1 and proxy.stat("net.rbac.denied") == 1


def test_limited_sockets(sluice):
    """The listener's own local_ratelimit closes them before a filter chain is chosen (listener_local_ratelimit)."""
    limit = typed("envoy.filters.listener.local_ratelimit", "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit",
                  stat_prefix="sockets", token_bucket={"max_tokens": 2, "fill_interval": "1000s"})
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]), listener_filters=[limit])]), concurrency=2)

    def is_served():
        try:
            return fetch(proxy.port(), "/").status == 200
        except (EOFError, ConnectionError):
            return False
    assert [is_served() for _ in range(4)] == [True, True, False, False]
    assert proxy.stat("listener_local_ratelimit.sockets.rate_limited") == 2
    assert proxy.stat("http.ingress.downstream_cx_total") == 2


def test_shared_buckets(sluice, byte_upstream):
    """Filters with one share_key and equal buckets take from one; another key, or other settings, have their own."""
    def limited(name, key, tokens=2):
        return listener(typed("envoy.filters.network.local_ratelimit",
                              "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit", stat_prefix=name, share_key=key,
                              token_bucket={"max_tokens": tokens, "fill_interval": "1000s"}), tcp_proxy(), name=name)
    made = [limited("a", "k"), limited("b", "k"), limited("c", "other"), limited("d", "k", 3)]
    proxy = sluice(bootstrap(made, [cluster("up", byte_upstream.port)]))

    def is_served(name):
        with Client(proxy.port(name)) as client:
            try:
                client.send(b"ping\n").fill()
            except (EOFError, ConnectionError):
                return False
            return True
    assert [is_served(n) for n in "abab"] == [True, True, False, False]
    assert [is_served(n) for n in "cdcddd"] == [True] * 5 + [False]


@pytest.mark.smoke
def test_limited_connections(sluice, byte_upstream):
    """Connections past the bucket are closed at once, unless the runtime says otherwise."""
    limit = typed("envoy.filters.network.local_ratelimit", "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
                  stat_prefix="cx", token_bucket={"max_tokens": 2, "fill_interval": "1000s"},
                  runtime_enabled={"default_value": True, "runtime_key": "limit.cx"})
    layers = {"layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]}}
    proxy = sluice(bootstrap([listener(limit, tcp_proxy())], [cluster("up", byte_upstream.port)], **layers), concurrency=2)

    def is_served():
        with Client(proxy.port()) as client:
            try:
                client.send(b"ping\n").fill()
            except (EOFError, ConnectionError):
                return False
            return True
    assert [is_served() for _ in range(4)] == [True, True, False, False]
    assert proxy.stat("local_rate_limit.cx.rate_limited") == 2
    proxy.post("/runtime_modify?limit.cx=false")
    assert is_served()


def test_delayed_denial(sluice, byte_upstream):
    denied = network_rbac(rules=rules("DENY"), delay_deny="0.3s")
    proxy = sluice(bootstrap([listener(denied, tcp_proxy())], [cluster("up", byte_upstream.port)]))
    with Client(proxy.port()) as client:
        client.send(b"ping\n")
        client.socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.fill()
        client.socket.settimeout(15)
        with pytest.raises(EOFError):
            client.fill()
    assert proxy.stat("net.rbac.denied") == 1


BAD = {
    "cidr": (rules("ALLOW", principal={"source_ip": {"address_prefix": "nonsense", "prefix_len": 8}}),
             "rules.policies[p].principals[0].source_ip"),
    "regex": (rules("ALLOW", {"url_path": {"path": {"safe_regex": {"regex": "("}}}}), "rules.policies[p].permissions[0].url_path"),
    "range": (rules("ALLOW", {"destination_port_range": {"start": 9, "end": 9}}), "destination_port_range"),
    "custom principal": (rules("ALLOW", principal={"custom": typed("x", "google.protobuf.Struct")}), "custom"),
    "condition": ({"policies": {"p": {"permissions": [ANY], "principals": [ANY],
                                      "condition": {"ident_expr": {"name": "nope"}}}}}, "undeclared reference to 'nope'"),
    "audit": ({"audit_logging_options": {"logger_configs": [{"audit_logger": typed("x", "google.protobuf.Struct")}]}},
              "audit_logging_options"),
    "no permissions": ({"policies": {"p": {"principals": [ANY]}}}, "permissions"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("make", [http_rbac, network_rbac])
def test_refused(tmp_path, name, make):
    wrong, words = BAD[name]
    chain = [hcm([route()], filters=[make(rules=wrong)])] if make is http_rbac else [make(rules=wrong), tcp_proxy()]
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(*chain)], [cluster("up", 1)])))
    done = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and words in done.stderr
