"""Zone-aware routing: the shares of zones, and what is counted, are a real Envoy's."""

import pytest
from support.config import bootstrap, cluster, endpoint, hcm, listener, route
from support.rawhttp import Client
from support.upstream import Reply, ScriptedUpstream

TRIES = 400
TOLERANCE = 0.12
COUNTED = ("lb_zone_routing_all_directly", "lb_zone_routing_sampled", "lb_zone_routing_cross_zone")
ZONES = "abc"


def zoned(name, counts, servers, sick=(), **fields):
    """Hosts by zone: an address of its own for each, of the zone's server."""
    localities = []
    for zone, n in counts.items():
        hosts = [endpoint(servers[zone].port, f"127.0.{ZONES.index(zone) + 1}.{i + 1}") for i in range(n)]
        if zone in sick:
            hosts = [{**h, "health_status": "UNHEALTHY"} for h in hosts]
        localities.append({"locality": {"region": "r", "zone": zone}, "lb_endpoints": hosts})
    return {**cluster(name, **fields), "load_assignment": {"cluster_name": name, "endpoints": localities}}


def zone_aware(**fields):
    return {"common_lb_config": {"zone_aware_lb_config": fields}}


def typed_policy(**fields):
    return {"load_balancing_policy": {"policies": [{"typed_extension_config": {
        "name": "envoy.load_balancing_policies.round_robin", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
            "locality_lb_config": {"zone_aware_lb_config": fields}}}}]}}


def clusters(servers):
    return [
        zoned("equal", {"a": 3, "b": 3}, servers), zoned("more here", {"a": 5, "b": 2}, servers),
        zoned("less here", {"a": 2, "b": 6}, servers), zoned("three", {"a": 1, "b": 4, "c": 3}, servers),
        zoned("not here", {"b": 4, "c": 4}, servers), zoned("small", {"a": 2, "b": 2}, servers),
        zoned("small allowed", {"a": 2, "b": 2}, servers, **zone_aware(min_cluster_size=2)),
        zoned("off", {"a": 3, "b": 3}, servers, **zone_aware(routing_enabled={"value": 0})),
        zoned("half", {"a": 3, "b": 3}, servers, **zone_aware(routing_enabled={"value": 50})),
        zoned("sick here", {"a": 3, "b": 7}, servers, sick="a"), zoned("one zone", {"b": 7}, servers),
        zoned("least", {"a": 2, "b": 6}, servers, lb_policy="LEAST_REQUEST"),
        zoned("random", {"a": 2, "b": 6}, servers, lb_policy="RANDOM"),
        zoned("typed", {"a": 2, "b": 2}, servers, **typed_policy(min_cluster_size=1)),
        zoned("weighted", {"a": 3, "b": 3}, servers, common_lb_config={"locality_weighted_lb_config": {}}),
    ]


NAMES = [c["name"] for c in clusters({z: type("", (), {"port": 1}) for z in ZONES})]
LOCALS = {"two zones": ({"a": 2, "b": 2}, ""), "sick": ({"a": 2, "b": 2}, "ab"), "elsewhere": ({"b": 2}, ""),
          "mostly here": ({"a": 9, "b": 1}, "")}


@pytest.fixture(scope="module")
def servers():
    made = {}
    for zone in ZONES:
        made[zone] = ScriptedUpstream(port=0).script(Reply(body=zone.encode()))
    yield made
    for server in made.values():
        server.stop()


@pytest.fixture(scope="module", params=LOCALS)
def sides(request, servers, shared_sluice, shared_envoy):
    counts, sick = LOCALS[request.param]
    made = [*clusters(servers), zoned("local", counts, servers, sick=sick)]
    config = bootstrap([listener(hcm([route(f"/{n.replace(' ', '-')}/", n) for n in NAMES]))], made,
                       cluster_manager={"local_cluster_name": "local"})
    config["node"]["locality"] = {"region": "r", "zone": "a"}
    return [start(config) for start in (shared_envoy, shared_sluice)]


def shares(proxy, name):
    path = f"/{name.replace(' ', '-')}/"
    before = {c: proxy.stat(f"cluster.{name}.{c}") for c in COUNTED}
    with Client(proxy.port()) as client:
        got = [client.request("GET", path).body.decode() for _ in range(TRIES)]
    counted = {c: (proxy.stat(f"cluster.{name}.{c}") - before[c]) / TRIES for c in COUNTED}
    return {zone: got.count(zone) / TRIES for zone in ZONES}, counted


@pytest.mark.parametrize("name", NAMES)
def test_the_same_shares(sides, name):
    envoy, sluice = (shares(proxy, name) for proxy in sides)
    for theirs, ours in zip(envoy, sluice):
        assert ours == pytest.approx(theirs, abs=TOLERANCE)
    for stat in ("lb_zone_cluster_too_small", "lb_local_cluster_not_ok", "lb_recalculate_zone_structures"):
        told = [bool(proxy.stat(f"cluster.{name}.{stat}")) for proxy in sides]
        assert told[0] == told[1], stat
