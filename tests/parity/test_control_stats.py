"""Counters and gauges of the process and of its configuration, beside Envoy's: both follow the same control plane through a script
of additions, changes, removals, refusals and a reconnect, and after each step their stats are compared: names, kinds, values and
which were ever written. control_stats_differences.yaml has what differs, each with its reason; a row that is not needed fails."""

import pathlib
import re

import pytest
import yaml

from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, ROUTE, AdsServer
from support.process import wait_until
from support.stats_beside import Differences, stats_of
from support.xds_config import ads_bootstrap, assignment, eds_cluster, rds_listener, routes

DIFFERENCES = yaml.safe_load((pathlib.Path(__file__).parent / "control_stats_differences.yaml").read_text())
COMPARED = re.compile(r"^(cluster_manager|listener_manager|server|runtime|control_plane|cluster)\.|\.update_\w+$|\.config_reload")
# Clocks, memory, traces of asking: only names and kinds are compared.
VOLATILE = re.compile(r"(update_time|config_reload_time_ms|uptime|memory_\w+|stats_recent_lookups|total_connections)$")
STEP_S = 30


class Pair:
    """Sluice and Envoy, a control plane each, and the rows of differences that were needed."""

    def __init__(self, sluice, shared_envoy, kind):
        self.planes = [AdsServer(), AdsServer()]
        self.proxies = [start({**ads_bootstrap(ads, kind), "stats_flush_interval": "0.1s"}, ready=False)
                        for start, ads in zip((sluice, shared_envoy), self.planes)]
        self.differences = Differences([row for row in DIFFERENCES if row.get("kind", kind) == kind])

    def set(self, type_url, version, resources, is_refused=False):
        """Push, and wait until both have answered."""
        for ads in self.planes:
            after = len(ads.requests)
            ads.set(type_url, version, resources)
            ads.wait(lambda r: r.type_url == type_url and r.response_nonce and r.is_nack == is_refused, after)

    def compare(self, step, ignored="^$"):
        """What follows an acknowledgement may take its time: all has to agree in the end."""
        left = {}

        def settled():
            nonlocal left
            left = self.differences.unexplained(*(stats_of(p, COMPARED, VOLATILE) for p in self.proxies), ignored)
            return not left
        wait_until(settled, lambda: f"{step}: " + "".join(f"\n  {n}: {v}" for n, v in sorted(left.items())), STEP_S)

    def reconnect(self):
        for ads in self.planes:
            ads.kill()
        for proxy in self.proxies:
            proxy.wait_stat("control_plane.connected_state", 0)
        for ads in self.planes:
            after = len(ads.requests)
            ads.start()
            ads.wait(lambda r: r.type_url == LISTENER, after)

    def end(self):
        for ads in self.planes:
            ads.kill()


def static_cluster(port, other):
    return {"name": "st", "type": "STATIC", "connect_timeout": "1s", "load_assignment": assignment("st", port, other)}


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
def test_stats_of_a_life(sluice, shared_envoy, kind):
    pair = Pair(sluice, shared_envoy, kind)
    try:
        run_script(pair)
        unneeded = pair.differences.unneeded()
        assert not unneeded, f"these no longer differ: {unneeded}"
    finally:
        pair.end()


def run_script(pair):
    port, other = 1, 2  # nobody connects
    main, second = rds_listener(), rds_listener(name="second", traffic_direction="OUTBOUND")
    static = static_cluster(port, other)
    pair.set(CLUSTER, "c1", [eds_cluster("up"), static])
    pair.set(ENDPOINTS, "e1", [assignment("up", port)])
    pair.set(LISTENER, "l1", [main])
    pair.set(ROUTE, "r1", [routes()])
    pair.compare("added")
    pair.set(ENDPOINTS, "e2", [assignment("up", port, other)])
    pair.compare("an endpoint more")
    pair.set(ENDPOINTS, "e3", [assignment("up", other)])
    pair.compare("an endpoint less")
    pair.set(CLUSTER, "c2", [eds_cluster("up"), {**static, "connect_timeout": "2s"}])
    pair.compare("a cluster changed")
    pair.set(LISTENER, "l2", [main, second])
    pair.compare("a listener more")
    pair.set(LISTENER, "l3", [main, {**second, "per_connection_buffer_limit_bytes": 1000}])
    pair.compare("a listener changed")
    pair.set(LISTENER, "l4", [main])
    pair.compare("a listener less")
    bad = config.listener({"name": "nothing"}, name="bad")
    pair.set(LISTENER, "l5", [main, bad], is_refused=True)
    pair.compare("a listener refused")
    pair.set(LISTENER, "l6", [main])
    pair.set(ROUTE, "r2", [{**routes(), "max_direct_response_body_size_bytes": 5000}])
    pair.compare("routes changed")
    pair.set(CLUSTER, "c3", [eds_cluster("up")])
    pair.compare("a cluster less")
    pair.reconnect()
    # how often one tries depends on when the server is back
    pair.compare("connected again", r"\.update_(attempt|failure)$")
