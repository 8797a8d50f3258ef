"""Subset balancing: criteria lead to the hosts that a real Envoy finds, and count as it counts."""

import pytest
from support.config import bootstrap, cluster, endpoint, hcm, listener, route, typed
from support.rawhttp import Client
from support.upstream import Reply, ScriptedUpstream

METADATA = [
    {"version": "1", "stage": "prod", "type": "std"},
    {"version": "1", "stage": "prod", "type": "bigmem"},
    {"version": "2", "stage": "prod"},
    {"version": "2", "stage": "dev", "zones": ["a", "b"]},
    {"version": 3, "stage": "dev", "zones": ["b", "c"], "default": True},
    {},
]
SELECTORS = [{"keys": ["stage"]}, {"keys": ["version", "stage"]}, {"keys": ["zones"]}]
CONFIGS = {
    "none": {"subset_selectors": SELECTORS},
    "any": {"fallback_policy": "ANY_ENDPOINT", "subset_selectors": SELECTORS},
    "default": {"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"default": True}, "subset_selectors": SELECTORS},
    "default-missing": {"fallback_policy": "DEFAULT_SUBSET", "default_subset": {"default": False},
                        "subset_selectors": SELECTORS},
    "default-empty": {"fallback_policy": "DEFAULT_SUBSET", "subset_selectors": SELECTORS},
    "panic": {"panic_mode_any": True, "subset_selectors": SELECTORS},
    "panic-default": {"panic_mode_any": True, "fallback_policy": "DEFAULT_SUBSET", "default_subset": {"default": False},
                      "subset_selectors": SELECTORS},
    "lists": {"list_as_any": True, "subset_selectors": SELECTORS},
    "selectors": {"fallback_policy": "NO_FALLBACK", "default_subset": {"default": True}, "subset_selectors": [
        {"keys": ["stage"], "fallback_policy": "ANY_ENDPOINT"},
        {"keys": ["stage", "version"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["stage"]},
        {"keys": ["type"], "fallback_policy": "DEFAULT_SUBSET"},
        {"keys": ["version"], "fallback_policy": "NO_FALLBACK"}]},
}
CRITERIA = [
    None, {"stage": "prod"}, {"stage": "dev"}, {"stage": "test"}, {"version": "1"}, {"version": "9"},
    {"stage": "prod", "version": "1"}, {"version": "3", "stage": "dev"}, {"version": 3, "stage": "dev"},
    {"stage": "dev", "version": "1"}, {"stage": "test", "version": "1"}, {"zones": "b"}, {"zones": ["a", "b"]},
    {"type": "std"}, {"type": "none"}, {"stage": "prod", "type": "std"}, {"unknown": "x"},
]
COUNTED = ("lb_subsets_selected", "lb_subsets_fallback", "lb_subsets_fallback_panic")


def policy(name, message, **fields):
    return {"policies": [{"typed_extension_config": typed(f"envoy.load_balancing_policies.{name}",
                                                          f"envoy.extensions.load_balancing_policies.{name}.v3.{message}", **fields)}]}


def typed_policy(config):
    """The same as the extension."""
    return policy("subset", "Subset", subset_lb_policy=policy("round_robin", "RoundRobin"), **config)


def clusters(ports):
    hosts = [endpoint(p, metadata={"filter_metadata": {"envoy.lb": m}}) for p, m in zip(ports, METADATA)]
    sick = [{**h, **({"health_status": "UNHEALTHY"} if i in (0, 1) else {})} for i, h in enumerate(hosts)]
    made = {name: cluster(name, *hosts, lb_subset_config=c) for name, c in CONFIGS.items()}
    made.update({f"{name}-typed": cluster(name + "-typed", *hosts, load_balancing_policy=typed_policy(c)) for name, c in CONFIGS.items()})
    made["sick"] = cluster("sick", *sick, lb_subset_config=CONFIGS["any"])
    made["hashing"] = cluster("hashing", *hosts, lb_policy="RING_HASH", lb_subset_config=CONFIGS["any"])
    return made


def routed(name):
    for i, criteria in enumerate(CRITERIA):
        fields = {"metadata_match": {"filter_metadata": {"envoy.lb": criteria}}} if criteria else {}
        yield route(f"/{name}/{i}/", name, hash_policy=[{"connection_properties": {"source_ip": True}}], **fields)


NAMES = [*CONFIGS, *(f"{name}-typed" for name in CONFIGS), "sick", "hashing"]


@pytest.fixture(scope="module")
def proxies(shared_sluice, shared_envoy):
    servers = [ScriptedUpstream() for _ in METADATA]
    for i, server in enumerate(servers):
        server.script(Reply(body=b"%d" % i))
    made = clusters([s.port for s in servers])
    config = bootstrap([listener(hcm([r for name in made for r in routed(name)]))], list(made.values()))
    yield shared_sluice(config), shared_envoy(config)
    for server in servers:
        server.stop()


def found(proxy, name):
    """What each criteria lead to, and the cluster's counters afterwards."""
    hosts = []
    with Client(proxy.port()) as client:
        for i in range(len(CRITERIA)):
            replies = [client.request("GET", f"/{name}/{i}/") for _ in range(24)]
            hosts.append(sorted({(r.status, r.body) for r in replies}))
    return hosts, {c: proxy.stat(f"cluster.{name}.{c}") for c in COUNTED}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_hosts(proxies, name):
    ours, theirs = (found(proxy, name) for proxy in proxies)
    for criteria, mine, envoys in zip(CRITERIA, ours[0], theirs[0]):
        assert mine == envoys, criteria
    assert ours[1] == theirs[1]
    for stat in ("lb_subsets_active", "lb_subsets_created"):  # an Envoy counts them once for each thread
        assert [proxy.stat(f"cluster.{name}.{stat}") * n for proxy, n in zip(proxies, (2, 1))] == \
            [proxies[1].stat(f"cluster.{name}.{stat}")] * 2
