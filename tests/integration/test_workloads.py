"""Workload discovery: peers that tell nothing of themselves are known by their address, as Istio's control plane has them."""

import json
import socket
import subprocess

import pytest
from support.ads_server import CLUSTER, LISTENER
from support.config import cluster, file_log, hcm, listener, route, tcp_proxy
from support.mesh import inside, peer_metadata, tcp_exchange
from support.process import wait_until
from support.proxy import Sluice
from support.rawhttp import Client, fetch
from support.workload import JOB, WORKLOAD, Workload
from support.xds_config import ADS, ads_bootstrap

KINDS = ["GRPC", "DELTA_GRPC"]
LOCAL = socket.inet_aton("127.0.0.1")
PEER_LOG = "%FILTER_STATE(downstream_peer:PLAIN)% to %FILTER_STATE(upstream_peer:PLAIN)%\n"


def extension(source):
    return inside("istio.io.workload", "istio.workload.BootstrapExtension", config_source=source)


def workload(name, *addresses, **fields):
    return Workload(uid=f"c1//Pod/shop/{name}", name=name, namespace="shop", workload_name=name, addresses=addresses, **fields)


def text_of(name, kind="deployment", account="default"):
    return f"identity=spiffe://cluster.local/ns/shop/sa/{account},name={name},namespace=shop,type={kind},workload={name}"


def configured(ads, kind, log, up, *listeners, source=ADS):
    ads.set(CLUSTER, "c1", [])
    ads.set(LISTENER, "l1", [])
    made = ads_bootstrap(ads, kind)
    made["bootstrap_extensions"] = [extension(source)]
    exchange = peer_metadata(downstream_discovery=[{"istio_headers": {}}, {"workload_discovery": {}}],
                             upstream_discovery=[{"workload_discovery": {}}])
    made["static_resources"]["clusters"].append(cluster("up", up.port))
    made["static_resources"]["listeners"] = list(listeners) or [
        listener(hcm([route("/")], filters=[exchange], access_log=[file_log(log, PEER_LOG)]), name="http")]
    return made


class Peers:
    """Who the client and the upstream of a request are, by the access log."""

    def __init__(self, proxy, log):
        self.proxy, self.log, self.n = proxy, log, 0

    def __call__(self):
        assert fetch(self.proxy.port("http"), "/").status == 200
        self.n += 1
        wait_until(lambda: len(self.lines()) == self.n, lambda: f"{self.n} lines, not {self.lines()}")
        return self.lines()[-1]

    def lines(self):
        return self.log.read_text().splitlines()

    def become(self, told):
        wait_until(lambda: self() == f"{told} to {told}", lambda: f"{told}, not {self()}")


@pytest.mark.smoke
@pytest.mark.parametrize("kind", KINDS)
def test_peers_come_change_and_go(sluice, ads, upstream, tmp_path, kind):
    log = tmp_path / "access.log"
    ads.hold(WORKLOAD)
    proxy = sluice(configured(ads, kind, log, upstream))
    peers = Peers(proxy, log)
    assert peers() == "- to -"  # nothing waits for them
    ads.set(WORKLOAD, "w1", [workload("web", LOCAL), workload("other", socket.inet_aton("192.0.2.1"))])
    ads.release(WORKLOAD)
    ads.wait_ack(WORKLOAD, "w1")
    peers.become(text_of("web"))
    assert proxy.stat("workload_discovery.total") == 2 and proxy.stat("workload_discovery.update_success") == 1
    ads.update(WORKLOAD, "w2", [workload("web", LOCAL, workload_type=JOB, service_account="bot")])
    peers.become(text_of("web", "job", "bot"))
    ads.update(WORKLOAD, "w3", [workload("moved", LOCAL)], [f"c1//Pod/shop/{name}" for name in ("web", "other")])
    peers.become(text_of("moved"))
    assert proxy.stat("workload_discovery.total") == 1
    ads.update(WORKLOAD, "w4", [], ["c1//Pod/shop/moved"])
    peers.become("-")
    assert proxy.stat("workload_discovery.total") == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_one_is_refused_and_its_siblings_are_taken(sluice, ads, upstream, tmp_path, kind):
    log = tmp_path / "access.log"
    ads.set(WORKLOAD, "w1", [workload("broken", b"\x7f\0\0"), workload("web", LOCAL)])
    proxy = sluice(configured(ads, kind, log, upstream))
    assert ads.wait_nack(WORKLOAD).error_detail.message == \
        "c1//Pod/shop/broken: addresses[0]: an address has 4 or 16 bytes, not 3"
    Peers(proxy, log).become(text_of("web"))
    assert proxy.stat("workload_discovery.total") == 1 and proxy.stat("workload_discovery.update_rejected") == 1


def test_the_last_ones_stay_without_the_server(sluice, ads, upstream, tmp_path):
    log = tmp_path / "access.log"
    ads.set(WORKLOAD, "w1", [workload("web", LOCAL)])
    proxy = sluice(configured(ads, "DELTA_GRPC", log, upstream))
    peers = Peers(proxy, log)
    peers.become(text_of("web"))
    ads.kill()
    wait_until(lambda: proxy.stat("control_plane.connected_state") == 0, "the stream to end")
    assert peers() == f"{text_of('web')} to {text_of('web')}"


def test_connections(sluice, ads, byte_upstream, tmp_path):
    log = tmp_path / "access.log"
    ads.set(WORKLOAD, "w1", [workload("web", LOCAL)])
    logged = tcp_proxy(access_log=[file_log(log, PEER_LOG.replace("to %", "to %UPSTREAM_"))])
    made = configured(ads, "DELTA_GRPC", log, byte_upstream,
                      listener(tcp_exchange(enable_discovery=True), logged, name="known"),
                      listener(tcp_exchange(), logged, name="unknown"))
    made["static_resources"]["clusters"][-1]["filters"] = [tcp_exchange(enable_discovery=True)]
    proxy = sluice(made)
    wait_until(lambda: proxy.stat("workload_discovery.total") == 1, "the workload to come")
    for name in ("known", "unknown"):
        with Client(proxy.port(name)) as connection:
            connection.send(b"ping\n").fill()
    wait_until(lambda: len(log.read_text().splitlines()) == 2, "two lines")
    assert log.read_text().splitlines() == [f"{text_of('web')} to {text_of('web')}", f"- to {text_of('web')}"]


@pytest.mark.parametrize("source, why", [
    ({}, "bootstrap_extensions[0].config_source"),
    ({"api_config_source": {"api_type": "GRPC", "transport_api_version": "V3",
                            "grpc_services": [{"envoy_grpc": {"cluster_name": "ads"}}]}},
     "bootstrap_extensions[0].config_source: workloads come by ads or path_config_source"),
])
def test_sources_that_can_not_be(ads, upstream, tmp_path, source, why):
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(configured(ads, "GRPC", tmp_path / "access.log", upstream, source=source)))
    done = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 1 and why in done.stderr
