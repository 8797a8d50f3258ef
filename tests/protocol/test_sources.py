"""Where resources are asked for: aggregated, by type, self, mixed; and sources that are refused."""
import pytest

from support import config
from support.ads_server import message_of
from support.conversation import *  # noqa: F403
from support.process import wait_until
from support.rawhttp import fetch


def own_stream(talk, **fields):
    """A ConfigSource with a stream of its own."""
    return {"api_config_source": talk.api(), "resource_api_version": "V3", **fields}


METHODS = {CLUSTER: "Clusters", LISTENER: "Listeners", ENDPOINTS: "Endpoints", ROUTE: "Routes", SECRET: "Secrets"}


def stream_of(talk, type_url):
    prefix = "Delta" if talk.is_delta else "Stream"
    return next(s for s in talk.ads.streams if s.method == prefix + METHODS[type_url])


def start_by_type(talk, **fields):
    source = own_stream(talk)
    bootstrap = config.bootstrap([], [talk.xds_cluster()], dynamic_resources={"cds_config": source, "lds_config": source},
                                 **fields)
    talk.start(bootstrap)


# ---- a stream for each type ----

def test_clusters(talk):
    start_by_type(talk)
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.wait_clusters("a")
    assert stream_of(talk, CLUSTER).asked == {CLUSTER}


def test_listeners(talk):
    start_by_type(talk)
    talk.accept(CLUSTER, "1")
    talk.accept(LISTENER, "1", [direct_listener()])
    talk.wait_listeners("main")
    assert stream_of(talk, LISTENER).asked == {LISTENER}


def test_endpoints(talk):
    start_by_type(talk)
    talk.accept(CLUSTER, "1", [eds_cluster("a", own_stream(talk))])
    assert talk.next(ENDPOINTS).names == ["a"]
    talk.accept(ENDPOINTS, "1", [assignment("a", 1, 2)])
    talk.wait_stat("cluster.a.membership_total", 2)
    assert stream_of(talk, ENDPOINTS).asked == {ENDPOINTS}


def test_routes(talk):
    start_by_type(talk)
    talk.accept(CLUSTER, "1")
    talk.accept(LISTENER, "1", [rds_listener(source=own_stream(talk))])
    talk.accept(ROUTE, "1", [direct_routes(status=203)])
    wait_until(lambda: talk.proxy.listeners() and fetch(talk.proxy.port("main"), "/").status == 203, "the routes")
    assert stream_of(talk, ROUTE).asked == {ROUTE}


def test_secrets(talk, authority):
    start_by_type(talk)
    talk.next(CLUSTER)
    talk.push(CLUSTER, "1", [secret_cluster("a", "ca", own_stream(talk))])
    talk.accept(SECRET, "1", [validation("ca", authority)])
    talk.wait_clusters("a")
    assert stream_of(talk, SECRET).asked == {SECRET}


def test_streams_end_one_by_one(talk):
    start_by_type(talk)
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.accept(LISTENER, "1", [direct_listener()])
    talk.wait_listeners("main")
    before = len(talk.ads.streams)
    with talk.ads.lock:
        stream_of(talk, CLUSTER).is_open = False
        talk.ads.lock.notify_all()
    talk.ads.wait_for(lambda: len(talk.ads.streams) > before)
    talk.ads.wait(lambda r: r.stream.number == before and r.type_url == CLUSTER)
    assert talk.clusters() == {"a"} and talk.listeners() == {"main"} and stream_of(talk, LISTENER).is_open


def test_type_of_another_stream(talk):
    """A stream of clusters is no place for listeners."""
    start_by_type(talk)
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.next(LISTENER)
    talk.ads.send(talk.raw(LISTENER, "1", "odd", [message_of(LISTENER, direct_listener())]), stream_of(talk, CLUSTER).number)
    talk.fence(CLUSTER)
    assert talk.listeners() == set()


def test_stats_of_streams_by_type(talk):
    start_by_type(talk)
    talk.accept(CLUSTER, "1", identifier="plane-c")
    talk.accept(LISTENER, "1", identifier="plane-l")
    talk.wait_stat("cluster_manager.cds.control_plane.connected_state", 1)
    talk.wait_stat("listener_manager.lds.control_plane.connected_state", 1)
    assert talk.text("cluster_manager.cds.control_plane.identifier") == "plane-c"
    assert talk.text("listener_manager.lds.control_plane.identifier") == "plane-l"


def test_aggregated_api_types_mean_the_same(conversations):
    talk = conversations("sotw")
    talk.start(api=talk.api(api_type="GRPC"))
    talk.accept(CLUSTER, "1", [static_cluster("a")])


# ---- mixtures ----

def test_clusters_aggregated_listeners_not(talk):
    talk.start(lds=own_stream(talk))
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.accept(LISTENER, "1", [direct_listener()])
    talk.wait_listeners("main")
    assert {s.method.removeprefix("Delta").removeprefix("Stream") for s in talk.ads.streams} == {
        "AggregatedResources", "Listeners"}


def test_endpoints_of_two_sources(talk):
    talk.start()
    talk.next(CLUSTER)
    talk.push(CLUSTER, "1", [eds_cluster("a"), eds_cluster("b", own_stream(talk))])
    requests = [talk.next(ENDPOINTS), talk.next(ENDPOINTS)]
    by_method = {r.stream.method.removeprefix("Delta").removeprefix("Stream"): r for r in requests}
    assert by_method["AggregatedResources"].names == ["a"] and by_method["Endpoints"].names == ["b"]
    talk.push(ENDPOINTS, "1", [assignment("a", 1)], stream=by_method["AggregatedResources"].stream)
    talk.push(ENDPOINTS, "1", [assignment("b", 1, 2)], stream=by_method["Endpoints"].stream)
    talk.wait_stat("cluster.a.membership_total", 1)
    talk.wait_stat("cluster.b.membership_total", 2)


def test_sources_that_differ_in_the_timeout_share_ads(talk):
    talk.start()
    talk.next(CLUSTER)
    talk.push(CLUSTER, "1", [eds_cluster("a", talk.ads_source(initial_fetch_timeout="7s")), eds_cluster("b")])
    names = set()
    while names != {"a", "b"}:
        names |= set(talk.next(ENDPOINTS).names)
    assert len(talk.ads.streams) == 1


def test_static_cluster_with_endpoints_from_ads(talk):
    talk.start(clusters=[eds_cluster("fixed")])
    talk.accept(ENDPOINTS, "1", [assignment("fixed", 1, 2)])
    talk.wait_stat("cluster.fixed.membership_total", 2)


def test_no_cds(talk):
    talk.start(cds=None)
    talk.accept(LISTENER, "1", [direct_listener()])
    talk.wait_listeners("main")
    assert not talk.ads.of(CLUSTER)


def test_no_lds(talk):
    talk.start(lds=None)
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.wait_stat("listener_manager.workers_started", 1)
    assert not talk.ads.of(LISTENER)


# ---- refused ----

BAD = {
    "no_service": ({"api_type": "GRPC", "transport_api_version": "V3"}, "gRPC service"),
    "two_services": ({"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [
        {"envoy_grpc": {"cluster_name": "xds"}}, {"envoy_grpc": {"cluster_name": "xds"}}]}, "gRPC service"),
    "grpc_with_cluster_names": ({"api_type": "GRPC", "transport_api_version": "V3", "cluster_names": ["xds"]}, "cluster name"),
    "rest_with_service": ({"api_type": "REST", "transport_api_version": "V3", "refresh_delay": "1s", "grpc_services": [
        {"envoy_grpc": {"cluster_name": "xds"}}]}, "gRPC service"),
    "rest_without_delay": ({"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["xds"]}, "refresh_delay"),
    "version_2": ({"api_type": "GRPC", "transport_api_version": "V2", "grpc_services": [
        {"envoy_grpc": {"cluster_name": "xds"}}]}, "V"),
    "unknown_cluster": ({"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [
        {"envoy_grpc": {"cluster_name": "nowhere"}}]}, "nowhere"),
}


@pytest.mark.parametrize("api, text", BAD.values(), ids=BAD)
def test_bad_source_of_the_bootstrap(sotw, refusal, api, text):
    """The process says why and ends."""
    source = {"api_config_source": api, "resource_api_version": "V3"}
    assert text in refusal(config.bootstrap([], [sotw.xds_cluster()], dynamic_resources={"cds_config": source}))


def test_ads_without_a_server(sotw, refusal):
    refusal_text = refusal(config.bootstrap([], [sotw.xds_cluster()], dynamic_resources={"cds_config": ADS}))
    assert "ads" in refusal_text.lower() and not sotw.ads.streams


MISSING = "paths must refer to an existing path in the system: '/nowhere/file' does not exist"


@pytest.mark.parametrize("source", [{"path_config_source": {"path": "/nowhere/file"}}, {"path": "/nowhere/file"}],
                         ids=["path_config_source", "path"])
def test_missing_file_of_the_bootstrap(refusal, source):
    """It is not waited for."""
    assert MISSING in refusal(config.bootstrap([], dynamic_resources={"lds_config": source}))


def test_missing_file_of_a_resource(talk):
    talk.start_with([static_cluster("a")])
    bad = {"path_config_source": {"path": "/nowhere/file"}, "resource_api_version": "V3"}
    nonce = talk.push(CLUSTER, "c2", [eds_cluster("bad", bad), static_cluster("a")])
    talk.nack(CLUSTER, nonce, "bad", MISSING, version="c1")


def test_bad_source_of_a_resource(talk):
    """The cluster is refused, its siblings are not."""
    talk.start()
    talk.next(CLUSTER)
    bad = {"api_config_source": {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["xds"]},
           "resource_api_version": "V3"}
    nonce = talk.push(CLUSTER, "1", [eds_cluster("bad", bad), static_cluster("a")])
    talk.nack(CLUSTER, nonce, "bad", "refresh_delay")
    talk.wait_clusters("a")


def test_empty_source_of_a_resource(talk):
    talk.start()
    talk.next(CLUSTER)
    nonce = talk.push(CLUSTER, "1", [eds_cluster("bad", {"resource_api_version": "V3"}), static_cluster("a")])
    talk.nack(CLUSTER, nonce, "bad")
    talk.wait_clusters("a")


def test_xdstp_names_are_refused(talk):
    """They are not supported, and never asked for as if they were plain."""
    talk.start_with()
    nonce = talk.push(LISTENER, "l2", [rds_listener(route="xdstp://authority/envoy.config.route.v3.RouteConfiguration/r")])
    talk.nack(LISTENER, nonce, "xdstp", version="l1")
    assert not talk.ads.of(ROUTE)


def test_self_means_ads(talk):
    talk.start_with([], [rds_listener(source={"self": {}, "resource_api_version": "V3"})])
    assert talk.next(ROUTE).names == ["r"]
