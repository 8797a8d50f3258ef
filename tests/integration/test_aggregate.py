"""Aggregate clusters under a control plane: members come, change and go while requests are under way, over HTTP and
TCP."""

import threading

import pytest
from envoy.extensions.clusters.aggregate.v3 import cluster_pb2  # noqa: F401  for Any
from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER
from support.config import aggregate, retry_other_priorities
from support.process import wait_until
from support.rawhttp import Client, fetch
from support.upstream import ByteUpstream, Reply, ScriptedUpstream
from support.xds_config import ads_bootstrap, assignment, eds_cluster

KINDS = ["GRPC", "DELTA_GRPC"]


@pytest.fixture
def servers(upstreams):
    made = [upstreams(ScriptedUpstream) for _ in range(3)]
    for i, server in enumerate(made):
        server.script(Reply(body=b"%d" % i))
    return made


def with_listener(ads, kind, *listeners):
    made = ads_bootstrap(ads, kind)
    retry = {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"},
             "retry_priority": retry_other_priorities(1)}
    made["static_resources"]["listeners"] = list(listeners) or [
        config.listener(config.hcm([config.route("/retried/", "all", retry_policy=retry), config.route("/", "all")],
                                   route_fields={"validate_clusters": False}))]
    return made


class World:
    """Clusters and endpoints as the control plane has them."""

    def __init__(self, ads, *clusters):
        self.ads, self.version = ads, 0
        self.endpoints = {}
        self.clusters = list(clusters)
        ads.set(LISTENER, "l1", [])

    def push(self):
        self.version += 1
        self.ads.set(CLUSTER, f"c{self.version}", self.clusters)
        self.ads.set(ENDPOINTS, f"e{self.version}", [assignment(n, *ports) for n, ports in self.endpoints.items()])


def serves(proxy, body, path="/"):
    wait_until(lambda: fetch(proxy.port(), path).body == body, lambda: f"{body}, not {fetch(proxy.port(), path).body}")


@pytest.mark.parametrize("kind", KINDS)
def test_members_come_change_and_go(sluice, ads, servers, kind):
    ports = [s.port for s in servers]
    world = World(ads, aggregate("all", "first", "second"))
    world.push()
    proxy = sluice(with_listener(ads, kind))
    assert fetch(proxy.port(), "/").status == 503 and proxy.stat("cluster.all.upstream_cx_none_healthy") == 1
    world.clusters.append(eds_cluster("second"))  # a member comes
    world.endpoints["second"] = [ports[1]]
    world.push()
    serves(proxy, b"1")
    world.clusters.append(eds_cluster("first"))  # and one that is preferred
    world.endpoints["first"] = [ports[0]]
    world.push()
    serves(proxy, b"0")
    world.endpoints["first"] = [ports[2]]  # its endpoints change
    world.push()
    serves(proxy, b"2")
    world.endpoints["first"] = []  # and are gone
    world.push()
    serves(proxy, b"1")
    world.clusters = [aggregate("all", "first"), eds_cluster("first"), eds_cluster("second")]  # the aggregate changes
    world.endpoints["first"] = [ports[0]]
    world.push()
    serves(proxy, b"0")
    world.clusters = [aggregate("all", "first"), eds_cluster("second")]  # its only member goes
    del world.endpoints["first"]
    world.push()
    serves(proxy, b"no healthy upstream")
    assert proxy.stat("cluster.all.membership_total") == 0
    assert proxy.stat("cluster_manager.cds.update_rejected") == 0


@pytest.mark.smoke
def test_requests_under_way_survive_the_removal_of_their_member(sluice, ads, servers, upstreams):
    slow = upstreams(ScriptedUpstream)
    gate = threading.Event()
    slow.script(Reply(body=b"slow", gate=gate), Reply(body=b"not removed yet"))
    world = World(ads, aggregate("all", "first", "second"), eds_cluster("first"), eds_cluster("second"))
    world.endpoints = {"first": [slow.port], "second": [servers[1].port]}
    world.push()
    proxy = sluice(with_listener(ads, "GRPC"))
    with Client(proxy.port()) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        slow.wait_requests(1)
        world.clusters = [aggregate("all", "first", "second"), eds_cluster("second")]
        del world.endpoints["first"]
        world.push()
        serves(proxy, b"1")
        gate.set()
        assert client.read().body == b"slow"


def test_cycles_among_many(sluice, ads, servers):
    names = [f"a{i}" for i in range(20)]
    world = World(ads, aggregate("all", *names, "up"), *[aggregate(n, *names, "all") for n in names], eds_cluster("up"))
    world.endpoints["up"] = [servers[0].port]
    world.push()
    proxy = sluice(with_listener(ads, "GRPC"))
    serves(proxy, b"0")
    assert proxy.stat("cluster.up.upstream_rq_total") == proxy.stat("cluster.all.upstream_rq_completed")


def test_retries_go_to_the_next_member(sluice, ads, servers):
    servers[0].script(Reply(status=503))
    world = World(ads, aggregate("all", "first", "second"), eds_cluster("first"), eds_cluster("second"))
    world.endpoints = {"first": [servers[0].port], "second": [servers[1].port]}
    world.push()
    proxy = sluice(with_listener(ads, "GRPC"))
    assert fetch(proxy.port(), "/").status == 503
    assert fetch(proxy.port(), "/retried/").body == b"1"
    assert proxy.stat("cluster.all.upstream_rq_retry_success") == 1 and not proxy.stat("cluster.first.upstream_rq_retry")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_one_is_refused_and_the_last_good_one_serves(sluice, ads, servers, kind):
    world = World(ads, aggregate("all", "up"), eds_cluster("up"))
    world.endpoints["up"] = [servers[0].port]
    world.push()
    proxy = sluice(with_listener(ads, kind))
    serves(proxy, b"0")
    world.clusters[0] = aggregate("all", "up", lb_policy="RANDOM")
    world.push()
    nack = ads.wait_nack(CLUSTER)
    assert "cluster provided LB not specified but cluster 'all' provided one" in nack.error_detail.message
    serves(proxy, b"0")


def test_tcp(sluice, ads, upstreams):
    first, second = (upstreams(ByteUpstream) for _ in range(2))
    world = World(ads, aggregate("all", "first", "second"), eds_cluster("first"), eds_cluster("second"))
    world.endpoints = {"first": [], "second": [second.port]}
    world.push()
    proxy = sluice(with_listener(ads, "GRPC", config.listener(config.tcp_proxy("all"))))
    with Client(proxy.port()) as client:
        client.send(b"ping")
        assert client.exactly(4) == b"ping"
        assert proxy.stat("cluster.second.upstream_cx_active") == 1
        world.endpoints["first"] = [first.port]
        world.push()
        proxy.wait_stat("cluster.first.membership_total", 1)
        client.send(b"pong")  # the one under way stays
        assert client.exactly(4) == b"pong"
    with Client(proxy.port()) as client:
        client.send(b"ping")
        assert client.exactly(4) == b"ping"
    assert proxy.stat("cluster.first.upstream_cx_total") == 1
