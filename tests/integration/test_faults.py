"""Control planes and resolvers that fail: traffic goes on, the state converges, memory stays flat.

SLUICE_SOAK is for how many seconds the control plane flaps (20; `make soak`: 600)."""
import os
import pathlib
import random
import socket
import threading
import time

import pytest
from support import rawhttp
from support.ads_server import CLUSTER, ROUTE, AdsServer
from support.blackhole import BlackHole
from support.config import address, bootstrap, cluster, hcm, http_options, listener, route
from support.dns_server import DnsServer
from support.plane import Plane
from support.process import free_port, wait_until
from support.proxy import is_sanitized
from support.xds_config import ADS, ads_bootstrap, api_source, routes, serve_all

SERVES_WITHIN_S = 1.0
SOAK_S = float(os.environ.get("SLUICE_SOAK", "20"))
PUSH_CLUSTERS = 1500
KINDS = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])


def rss_kb(proxy):
    pages = int(pathlib.Path(f"/proc/{proxy.pid}/statm").read_text().split()[1])
    return pages * 4


class Traffic:
    """Requests on kept connections until stopped; any answer but 200 counts as failed."""

    def __init__(self, port, clients=2):
        self.port, self.is_over = port, threading.Event()
        self.done, self.failures = 0, []
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.is_over.is_set():
            try:
                with rawhttp.Client(self.port) as client:
                    self.requests(client)
            except (OSError, EOFError) as e:
                self.failures.append(repr(e))

    def requests(self, client):
        while not self.is_over.wait(0.002):
            answer = client.request("GET", "/")
            if answer.status != 200:
                self.failures.append(answer)
            self.done += 1
            if "close" in (answer.get("connection") or ""):
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join(10)

    def check(self):
        assert self.done > 50 and not self.failures, (self.done, self.failures[:5])


# ---- names ----

def dns_cluster(name, host, port, dns, tries=1):
    return {"name": name, "type": "STRICT_DNS", "connect_timeout": "1s", "dns_lookup_family": "V4_ONLY",
            "dns_refresh_rate": "1s", "typed_dns_resolver_config": dns.resolver(tries),
            "load_assignment": {"cluster_name": name, "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(port, host)}}]}]}}


def test_a_silent_resolver_holds_up_nobody_else(sluice, upstream):
    with DnsServer() as dns, DnsServer(silent={"silent.test"}) as silent:
        clusters = [dns_cluster(f"c{i}", f"c{i}.test", upstream.port, dns) for i in range(499)]
        clusters.append(dns_cluster("silent", "silent.test", upstream.port, silent))
        paths = [route("/silent", cluster="silent"), route("/c498", cluster="c498"), route(cluster="c0")]
        began = time.monotonic()
        proxy = sluice(bootstrap([listener(hcm(paths))], clusters))
        assert rawhttp.fetch(proxy.port()).status == 200
        taken = time.monotonic() - began
        assert taken < SERVES_WITHIN_S * (5 if is_sanitized(proxy.binary) else 1), taken
        wait_until(lambda: rawhttp.fetch(proxy.port(), "/c498").status == 200, "the last answer", 20)
        assert rawhttp.fetch(proxy.port(), "/silent").status == 503
        assert "cluster 'silent' goes on without an answer to its DNS name 'silent.test'" in proxy.log()
        # It is asked again, and the cluster fills once there is an answer.
        silent.silent.clear()
        wait_until(lambda: rawhttp.fetch(proxy.port(), "/silent").status == 200, "the late answer", 20)


def test_a_changed_cluster_waits_beside_the_one_that_serves(sluice, upstream, tmp_path):
    with DnsServer(silent={"new.test"}) as dns, AdsServer() as ads:
        serve_all(ads, upstream.port)
        ads.set(CLUSTER, "c1", [dns_cluster("up", "old.test", upstream.port, dns)])
        proxy = sluice(ads_bootstrap(ads))
        wait_until(lambda: rawhttp.fetch(proxy.port()).status == 200, "traffic")
        with Traffic(proxy.port()) as traffic:
            ads.set(CLUSTER, "c2", [dns_cluster("up", "new.test", upstream.port, dns, tries=5)])
            wait_until(lambda: dns.asked.count("new.test") >= 2, "the name is asked for again", 20)
            assert "up" in proxy.admin("/init_dump").text
            dns.silent.clear()
            proxy.wait_stat("cluster_manager.warming_clusters", 0, 20)
        traffic.check()


# ---- control planes ----

def plane_bootstrap(port, kind):
    return bootstrap([], [cluster("xds", port, typed_extension_protocol_options=http_options(
        explicit_http_config={"http2_protocol_options": {}}))],
        dynamic_resources={"ads_config": api_source(kind), "cds_config": ADS, "lds_config": ADS})


def serves(proxy, version):
    return rawhttp.fetch(proxy.port()).get("x-version") == version


@KINDS
def test_kill_in_mid_push(sluice, upstream, kind):
    """Killed again and again some time into a push of everything anew, while requests go on."""
    port = free_port()
    plane = Plane(port, "1", PUSH_CLUSTERS, upstream.port)
    proxy = sluice(plane_bootstrap(port, kind))
    wait_until(lambda: serves(proxy, "1"), "version 1", 30)
    with Traffic(proxy.port()) as traffic:
        for i, delay_s in enumerate([0, 0.005, 0.02, 0.05]):
            plane.kill()
            assert rawhttp.fetch(proxy.port()).status == 200  # the last good one
            plane = Plane(port, str(i + 2), PUSH_CLUSTERS, upstream.port)
            plane.wait_stream()
            time.sleep(delay_s)  # the moment of death, not a wait for something
        plane.kill()
        plane = Plane(port, "9", PUSH_CLUSTERS, upstream.port)
        wait_until(lambda: serves(proxy, "9"), "version 9", 30)
    plane.kill()
    traffic.check()
    assert proxy.stat("cluster_manager.active_clusters") == PUSH_CLUSTERS + 2
    assert proxy.stat("cluster_manager.warming_clusters") == 0
    assert proxy.stat("listener_manager.total_listeners_active") == 1


@KINDS
def test_half_open_partition(sluice, upstream, kind):
    """The control plane's connection stays open and nothing comes through: keepalive finds out."""
    keepalive = {"connection_keepalive": {"interval": "0.3s", "timeout": "0.3s"}}
    options = http_options(explicit_http_config={"http2_protocol_options": keepalive})
    with AdsServer() as ads, BlackHole(ads.port) as hole:
        serve_all(ads, upstream.port)
        config = ads_bootstrap(ads, kind)
        config["static_resources"]["clusters"] = [cluster("xds", hole.port, typed_extension_protocol_options=options)]
        proxy = sluice(config)
        wait_until(lambda: rawhttp.fetch(proxy.port()).status == 200, "traffic")
        with Traffic(proxy.port()) as traffic:
            streams = len(ads.streams)
            hole.freeze()
            ads.wait_for(lambda: len(ads.streams) > streams)
            serve_all(ads, upstream.port, "2")
            ads.wait_for(lambda: any(r.stream.number >= streams and r.response_nonce for r in ads.requests))
        traffic.check()
        proxy.wait_stat("control_plane.connected_state", 1)


@pytest.mark.timeout(SOAK_S + 180)
def test_flapping_control_plane(sluice, upstream):
    """Up for a moment, down for a moment: every version that lasts is taken over, and nothing grows."""
    rng = random.Random(7)
    with AdsServer() as ads:
        serve_all(ads, upstream.port)
        proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"))
        wait_until(lambda: rawhttp.fetch(proxy.port()).status == 200, "traffic")
        until, rounds, early = time.monotonic() + SOAK_S, 0, None
        with Traffic(proxy.port()) as traffic:
            while time.monotonic() < until:
                rounds += 1
                ads.kill()
                time.sleep(rng.random() * 0.3)  # how long it is away
                ads.start()
                serve_all(ads, upstream.port, f"v{rounds}")
                time.sleep(rng.random() * 0.4)  # how long it lasts
                if early is None and time.monotonic() > until - SOAK_S / 2:
                    early = rss_kb(proxy)
            last = routes()
            last["response_headers_to_add"] = [{"header": {"key": "x-version", "value": "last"}}]
            ads.set(ROUTE, "last", [last])
            wait_until(lambda: serves(proxy, "last"), "the last version", 20)
            proxy.wait_stat("control_plane.connected_state", 1, 20)
        traffic.check()
        late = rss_kb(proxy)
        assert rounds > SOAK_S / 2
        if not is_sanitized(proxy.binary):
            assert late < early * 1.1 + 1024, (early, late)


def test_reconnects_are_jittered(sluice, upstream):
    """A server that hangs up at once is called at irregular intervals below the back-off's maximum."""
    with socket.create_server(("127.0.0.1", 0)) as refusing:
        proxy = sluice(plane_bootstrap(refusing.getsockname()[1], "GRPC"), ready=False)
        refusing.settimeout(10)
        calls = []
        while len(calls) < 16:
            refusing.accept()[0].close()
            calls.append(time.monotonic())
        gaps = [b - a for a, b in zip(calls, calls[1:], strict=False)][4:]
        assert max(gaps) < 0.2 * 2 + 0.3, gaps
        assert max(gaps) - min(gaps) > 0.03, gaps
        proxy.expect_running()
