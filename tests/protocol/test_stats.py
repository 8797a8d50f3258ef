"""Counters, gauges and texts about subscriptions and the control plane, by Envoy's names."""
import time

import pytest

from support.ads_server import message_of
from support.conversation import *  # noqa: F403

CDS, LDS = "cluster_manager.cds.", "listener_manager.lds."


def test_a_success(talk):
    talk.start()
    talk.next(CLUSTER)
    assert talk.stat(CDS + "update_attempt") == 1 and talk.stat(CDS + "update_success") == 0
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    assert talk.stat(CDS + "update_success") == 1
    assert talk.stat(CDS + "update_attempt") == 2
    assert talk.stat(CDS + "update_failure") == talk.stat(CDS + "update_rejected") == 0


def test_a_rejection(talk):
    talk.start_with([static_cluster("a")])
    attempts = talk.stat(CDS + "update_attempt")
    nonce = talk.push(CLUSTER, "c2", [bad_cluster("b")])
    talk.nack(CLUSTER, nonce, version="c1")
    assert talk.stat(CDS + "update_rejected") == 1 and talk.stat(CDS + "update_success") == 1
    assert talk.stat(CDS + "update_attempt") > attempts


def test_a_type_mismatch_is_a_rejection(talk):
    talk.start_with([static_cluster("a")])
    talk.send(talk.raw(CLUSTER, "c2", "odd", [message_of(ROUTE, direct_routes())]))
    talk.nack(CLUSTER, "odd", version="c1")
    assert talk.stat(CDS + "update_rejected") == 1


def test_version(talk):
    talk.start_with([static_cluster("a")])
    first = talk.stat(CDS + "version")
    assert first > 0 and talk.text(CDS + "version_text") == "c1"
    talk.accept(CLUSTER, "c2", [static_cluster("b")])
    assert talk.stat(CDS + "version") not in (0, first) and talk.text(CDS + "version_text") == "c2"


def test_version_is_a_hash(talk):
    """XXH64 of the version's text, as dashboards know it."""
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    assert talk.stat(CDS + "version") == 13237225503670494420


def test_update_time(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    assert abs(talk.stat(CDS + "update_time") / 1000 - time.time()) < 60


def test_update_duration_of_a_name(talk):
    talk.start_with([], [rds_listener()], stats_flush_interval="0.1s")
    talk.accept(ROUTE, "r1", [direct_routes()])
    name = "http.main.rds.r.update_duration"
    wait_until(lambda: "P100" in talk.proxy.admin(f"/stats?filter={name}").text, "a recorded value", 20)


def test_update_duration(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    assert CDS + "update_duration" in talk.proxy.admin("/stats?filter=update_duration").text


def test_connected_state(talk):
    talk.start()
    talk.accept(CLUSTER, "1")
    assert talk.stat("control_plane.connected_state") == 1
    talk.ads.kill()
    talk.wait_stat("control_plane.connected_state", 0)


def test_not_connected(talk):
    talk.ads.kill()
    talk.start()
    talk.wait_stat(CDS + "update_failure", lambda n: n >= 1)
    assert talk.stat("control_plane.connected_state") == 0


def test_identifier(talk):
    talk.start()
    talk.accept(CLUSTER, "1", identifier="plane-7")
    assert talk.text("control_plane.identifier") == "plane-7"
    talk.accept(CLUSTER, "2", identifier="plane-8")
    assert talk.text("control_plane.identifier") == "plane-8"


def test_endpoint_subscription(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    assert talk.stat("cluster.a.update_success") == 1
    assert talk.stat("cluster.a.update_rejected") == 0


def test_endpoint_rejection(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    nonce = talk.push(ENDPOINTS, "2", [assignment("a", endpoints=[{"lb_endpoints": [{"endpoint": {}}], "priority": 200}])])
    talk.nack(ENDPOINTS, nonce, version="1")
    assert talk.stat("cluster.a.update_rejected") == 1


def test_endpoint_timeout(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a", talk.ads_source(initial_fetch_timeout="0.2s"))])
    talk.next(ENDPOINTS)
    talk.wait_stat("cluster.a.init_fetch_timeout", 1)
    talk.wait_clusters("a")


def test_route_subscription(talk):
    talk.start_with([], [rds_listener()])
    talk.accept(ROUTE, "r1", [direct_routes()])
    prefix = "http.main.rds.r."
    assert talk.stat(prefix + "update_success") == 1
    assert talk.stat(prefix + "config_reload") == 1
    assert talk.text(prefix + "version_text") == "r1"
    talk.accept(ROUTE, "r2", [direct_routes(status=201)])
    assert talk.stat(prefix + "config_reload") == 2


def test_route_rejection(talk):
    talk.start_with([], [rds_listener()])
    talk.next(ROUTE)
    nonce = talk.push(ROUTE, "r1", [bad_routes()])
    talk.nack(ROUTE, nonce)
    assert talk.stat("http.main.rds.r.update_rejected") == 1


def test_route_timeout(talk):
    talk.start_with([], [rds_listener(source=talk.ads_source(initial_fetch_timeout="0.2s"))])
    talk.wait_stat("http.main.rds.r.init_fetch_timeout", 1)
    talk.wait_listeners("main")


def test_secret_subscription(talk, authority):
    talk.start()
    talk.accept(CLUSTER, "1", [secret_cluster("a", "ca")])
    talk.accept(SECRET, "s1", [validation("ca", authority)])
    talk.wait_clusters("a")
    assert talk.stat("sds.ca.update_success") == 1 or talk.stat("cluster.a.client_ssl_socket_factory.ssl_context_update_by_sds")


def test_listener_subscription(talk):
    talk.start_with([], [direct_listener()])
    assert talk.stat(LDS + "update_success") == 1 and talk.text(LDS + "version_text") == "l1"
    assert talk.stat("listener_manager.listener_added") == 1


@pytest.mark.parametrize("prefix", [CDS, LDS], ids=["cds", "lds"])
def test_stats_are_there_from_the_start(talk, prefix):
    talk.start()
    talk.next(CLUSTER)
    names = {"init_fetch_timeout", "update_attempt", "update_failure", "update_rejected", "update_success", "update_time",
             "version"}
    assert names <= {n.removeprefix(prefix) for n in talk.proxy.stats("^" + prefix)}
