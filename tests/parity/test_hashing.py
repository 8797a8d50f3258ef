"""Consistent hashing: a key goes to the host that a real Envoy sends it to."""

import pytest
from support.config import bootstrap, cluster, endpoint, hcm, listener, route
from support.rawhttp import Client
from support.upstream import Reply, ScriptedUpstream

HOSTS = 7
KEYS = [f"key-{i}" for i in range(150)] + ["a" * 300, "ü"]


def hosts(servers, **fields):
    return [endpoint(s.port, **{name: value(i) for name, value in fields.items()}) for i, s in enumerate(servers)]


def typed_policy(name, **config):
    return {"policies": [{"typed_extension_config": {"name": name, "typed_config": {
        "@type": f"type.googleapis.com/envoy.extensions.load_balancing_policies.{name}.v3."
                 + name.title().replace("_", ""), **config}}}]}


def localities(servers):
    """Two, of different weight."""
    return {"load_assignment": {"cluster_name": "by-locality", "endpoints": [
        {"locality": {"zone": "b"}, "load_balancing_weight": 3, "lb_endpoints": hosts(servers[:4])},
        {"locality": {"zone": "a"}, "load_balancing_weight": 1, "lb_endpoints": hosts(servers[4:])}]},
        "common_lb_config": {"locality_weighted_lb_config": {}}}


def clusters(servers):
    plain = hosts(servers)
    weighted = hosts(servers, load_balancing_weight=lambda i: 1 + i * i)
    keyed = hosts(servers, metadata=lambda i: {"filter_metadata": {"envoy.lb": {"hash_key": f"host-{i}"}}})
    named = hosts(servers, endpoint=lambda i: {"hostname": f"h{i}.test"})
    by_name = {"consistent_hashing_lb_config": {"use_hostname_for_hashing": True}}
    sick = hosts(servers, health_status=lambda i: "UNHEALTHY" if i % 3 == 0 else "HEALTHY")
    by_dns = {"type": "STRICT_DNS"}  # Envoy wants names for hostname hashing
    ring, maglev = {"lb_policy": "RING_HASH"}, {"lb_policy": "MAGLEV"}
    return {
        "ring": cluster("ring", *plain, **ring),
        "ring-weighted": cluster("ring-weighted", *weighted, **ring, ring_hash_lb_config={"minimum_ring_size": 128}),
        "ring-murmur": cluster("ring-murmur", *plain, **ring, ring_hash_lb_config={"hash_function": "MURMUR_HASH_2"}),
        "ring-small": cluster("ring-small", *weighted, **ring,
                              ring_hash_lb_config={"minimum_ring_size": 3, "maximum_ring_size": 20}),
        "ring-keyed": cluster("ring-keyed", *keyed, **ring),
        "ring-named": cluster("ring-named", *named, **ring, **by_dns, common_lb_config=by_name),
        "ring-sick": cluster("ring-sick", *sick, **ring),
        "ring-local": {**cluster("ring-local", **ring), **localities(servers)},
        "ring-typed": cluster("ring-typed", *plain, load_balancing_policy=typed_policy(
            "ring_hash", minimum_ring_size=500, consistent_hashing_lb_config={"hash_balance_factor": 150})),
        "maglev": cluster("maglev", *plain, **maglev),
        "maglev-weighted": cluster("maglev-weighted", *weighted, **maglev),
        "maglev-small": cluster("maglev-small", *weighted, **maglev, maglev_lb_config={"table_size": 251}),
        "maglev-keyed": cluster("maglev-keyed", *keyed, **maglev),
        "maglev-named": cluster("maglev-named", *named, **maglev, **by_dns, common_lb_config=by_name),
        "maglev-sick": cluster("maglev-sick", *sick, **maglev),
        "maglev-local": {**cluster("maglev-local", **maglev), **localities(servers)},
        "maglev-typed": cluster("maglev-typed", *plain, load_balancing_policy=typed_policy("maglev", table_size=1009)),
    }


NAMES = list(clusters([]))


@pytest.fixture(scope="module")
def proxies(shared_sluice, shared_envoy):
    servers = [ScriptedUpstream() for _ in range(HOSTS)]
    for i, server in enumerate(servers):
        server.script(Reply(body=b"%d" % i))
    made = clusters(servers)
    by_header = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
    config = bootstrap([listener(hcm([route(f"/{name}/", name, **by_header) for name in made]))], list(made.values()))
    yield shared_sluice(config), shared_envoy(config)
    for server in servers:
        server.stop()


def placed(proxy, name):
    with Client(proxy.port()) as client:
        replies = [client.request("GET", f"/{name}/", [("x-key", key.encode().decode("latin-1"))]) for key in KEYS]
    assert {r.status for r in replies} == {200}
    return [r.body for r in replies]


@pytest.mark.parametrize("name", NAMES)
def test_keys_go_where_envoy_sends_them(proxies, name):
    ours, theirs = (placed(proxy, name) for proxy in proxies)
    assert ours == theirs
    assert len(set(ours)) > 3
