"""Zone-aware routing follows the endpoints of the cluster and of the local one; what is refused."""

import json
import subprocess

import pytest
from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, AdsServer
from support.proxy import Sluice
from support.rawhttp import Client
from support.upstream import Reply, ScriptedUpstream
from support.xds_config import ads_bootstrap, eds_cluster

TRIES = 200


@pytest.fixture
def servers(upstreams):
    made = {zone: upstreams(ScriptedUpstream, None, 0) for zone in "ab"}
    for zone, server in made.items():
        server.script(Reply(body=zone.encode()))
    return made


def assignment(name, servers, here, there):
    return {"cluster_name": name, "endpoints": [
        {"locality": {"zone": zone}, "lb_endpoints": [
            config.endpoint(servers[zone].port, f"127.0.{ord(zone)}.{i + 1}") for i in range(n)]}
        for zone, n in (("a", here), ("b", there))]}


def share_here(proxy):
    with Client(proxy.port()) as client:
        return sum(client.request("GET", "/").body == b"a" for _ in range(TRIES)) / TRIES


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
def test_endpoints_change(sluice, servers, kind):
    with AdsServer() as ads:
        counts = {"up": (4, 4), "local": (2, 2)}

        def push(version, **changed):
            counts.update(changed)
            ads.set(ENDPOINTS, version, [assignment(n, servers, *c) for n, c in counts.items()])

        ads.set(CLUSTER, "c", [eds_cluster("up")])
        ads.set(LISTENER, "l", [])
        push("e1")
        made = ads_bootstrap(ads, kind)
        made["cluster_manager"] = {"local_cluster_name": "local"}
        made["node"]["locality"] = {"zone": "a"}
        made["static_resources"]["clusters"].append(eds_cluster("local"))
        made["static_resources"]["listeners"] = [config.listener(config.hcm(
            [config.route("/", "up")], route_fields={"validate_clusters": False}))]
        proxy = sluice(made)
        assert share_here(proxy) == 1
        push("e2", local=(3, 1))  # more of us here: a third goes elsewhere
        proxy.wait_stat("cluster.local.membership_change", 2)
        assert share_here(proxy) == pytest.approx(2 / 3, abs=0.15)
        push("e3", up=(0, 8))
        proxy.wait_stat("cluster.up.membership_healthy", 8)
        proxy.wait_stat("cluster.up.membership_change", 2)
        assert share_here(proxy) == 0
        push("e4", up=(2, 2))  # fewer than six: left alone
        proxy.wait_stat("cluster.up.membership_change", 3)
        assert share_here(proxy) == pytest.approx(0.5, abs=0.15)
        assert proxy.stat("cluster.up.lb_zone_cluster_too_small") > 0


def test_a_local_cluster_that_is_not_there(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(config.bootstrap([], [], cluster_manager={"local_cluster_name": "nobody"})))
    said = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 1 and "local cluster 'nobody' must be defined" in said.stderr
