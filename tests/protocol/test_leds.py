"""LEDS: endpoints that come one by one for a locality; delta only."""
import pytest

from envoy.service.discovery.v3 import discovery_pb2
from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LB_ENDPOINT, LISTENER, message_of
from support.process import wait_until
from support.rawhttp import fetch
from support.xds_config import ADS, ads_bootstrap, api_source, eds_cluster

TYPE = "envoy.config.endpoint.v3.LbEndpoint"
TEXT = "cluster.up.leds."


def glob(collection="c"):
    return f"xdstp://plane/{TYPE}/{collection}/*"


def member(number, port, collection="c", version="1", **fields):
    """A Resource message around an endpoint."""
    made = discovery_pb2.Resource(name=f"xdstp://plane/{TYPE}/{collection}/{number}", version=version)
    made.resource.Pack(message_of(LB_ENDPOINT, config.endpoint(port, **fields)))
    return made


def locality(collection="c", zone="z", source=ADS, name=None, **fields):
    return {"locality": {"zone": zone}, "leds_cluster_locality_config": {
        "leds_config": source, "leds_collection_name": glob(collection) if name is None else name}, **fields}


def endpoints(*localities):
    return {"cluster_name": "up", "endpoints": list(localities)}


@pytest.fixture
def ads(ads):
    ads.set(CLUSTER, "c1", [eds_cluster("up")])
    ads.set(LISTENER, "l1", [config.listener(config.hcm(stat_prefix="main"))])
    return ads


@pytest.fixture
def started(start_proxy, ads):
    def run(*localities, members=None, **fields):
        ads.set(ENDPOINTS, "e1", [endpoints(*(localities or [locality()]))])
        if members is not None:
            ads.set(LB_ENDPOINT, "m1", members)
        proxy = start_proxy(ads_bootstrap(ads, "DELTA_GRPC", **fields), ready=False)
        return proxy
    return run


def hosts(proxy):
    lines = [line.split("::") for line in proxy.admin("/clusters").text.splitlines()]
    return sorted(line[1].rsplit(":", 1)[1] for line in lines if line[0] == "up" and line[2] == "cx_active")


def wait_hosts(proxy, *ports):
    wait_until(lambda: hosts(proxy) == sorted(map(str, ports)), f"hosts {ports}")


def test_collection_is_asked_for_by_its_glob(started, ads):
    proxy = started(members=[member(1, 1001), member(2, 1002)])
    assert ads.wait(lambda r: r.type_url == LB_ENDPOINT).names == [glob()]
    wait_hosts(proxy, 1001, 1002)
    ads.wait_ack(LB_ENDPOINT)


def test_traffic(started, ads, upstream):
    proxy = started(members=[member(1, upstream.port)])
    wait_until(lambda: proxy.listeners(), "the listener")
    assert fetch(proxy.port()).status == 200


def test_members_come_and_go(started, ads):
    proxy = started(members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    ads.update(LB_ENDPOINT, "m2", [member(2, 1002, version="2")])
    wait_hosts(proxy, 1001, 1002)
    ads.update(LB_ENDPOINT, "m3", removed=[member(1, 0).name])
    wait_hosts(proxy, 1002)
    ads.update(LB_ENDPOINT, "m4", [member(2, 1003, version="4")])
    wait_hosts(proxy, 1003)


def test_cluster_waits_for_the_first_answer(started, ads):
    ads.hold(LB_ENDPOINT)
    proxy = started(members=[member(1, 1001)])
    ads.wait(lambda r: r.type_url == LB_ENDPOINT)
    assert proxy.stat("cluster_manager.warming_clusters") == 1
    ads.release()
    wait_hosts(proxy, 1001)
    proxy.wait_stat("cluster_manager.warming_clusters", 0)


def test_empty_answer_ends_the_wait(started, ads):
    proxy = started(members=None)
    request = ads.wait(lambda r: r.type_url == LB_ENDPOINT)
    ads.send(discovery_pb2.DeltaDiscoveryResponse(type_url=LB_ENDPOINT, nonce="x"), request.stream.number)
    proxy.wait_stat("cluster_manager.warming_clusters", 0)
    assert hosts(proxy) == []


def test_fetch_timeout(started, ads):
    proxy = started(locality(source={**ADS, "initial_fetch_timeout": "0.2s"}))
    proxy.wait_stat(TEXT + "init_fetch_timeout", 1)
    proxy.wait_stat("cluster_manager.warming_clusters", 0)
    ads.set(LB_ENDPOINT, "m1", [member(1, 1001)])
    wait_hosts(proxy, 1001)


def test_several_localities(started, ads):
    ads.hold(LB_ENDPOINT)
    plain = {"locality": {"zone": "x"}, "priority": 1, "lb_endpoints": [config.endpoint(1009)]}
    proxy = started(locality("c", "y"), locality("d", "z"), plain, members=[member(1, 1001), member(1, 1002, "d")])
    ads.wait(lambda r: r.type_url == LB_ENDPOINT)
    ads.release()
    wait_hosts(proxy, 1001, 1002, 1009)
    zones = {line.split("::")[-1] for line in proxy.admin("/clusters").text.splitlines() if "::zone::" in line}
    assert {"x", "y", "z"} <= zones


def test_old_endpoints_serve_until_all_collections_answered(started, ads):
    proxy = started(members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    ads.set(ENDPOINTS, "e2", [endpoints(locality("c"), locality("d", "z2"))])
    ads.wait(lambda r: r.type_url == LB_ENDPOINT and glob("d") in r.names)
    ads.update(LB_ENDPOINT, "m2", [member(2, 1002, version="2")])
    assert hosts(proxy) in (["1001"], ["1001", "1002"])
    ads.update(LB_ENDPOINT, "m3", [member(1, 1003, "d", "3")])
    wait_hosts(proxy, 1001, 1002, 1003)


def test_given_up(started, ads):
    proxy = started(members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    ads.set(ENDPOINTS, "e2", [endpoints({"lb_endpoints": [config.endpoint(1005)]})])
    wait_hosts(proxy, 1005)
    ads.wait(lambda r: r.type_url == LB_ENDPOINT and glob() in r.message.resource_names_unsubscribe)


def test_unchanged_hosts_stay(started, ads, upstream):
    proxy = started(members=[member(1, upstream.port), member(2, 1002, health_status="UNHEALTHY")])
    wait_until(lambda: proxy.listeners(), "the listener")
    assert fetch(proxy.port()).status == 200
    ads.update(LB_ENDPOINT, "m2", removed=[member(2, 0).name])
    wait_hosts(proxy, upstream.port)
    assert fetch(proxy.port()).status == 200
    assert proxy.stat("cluster.up.upstream_cx_total") == 1


def test_reconnect_tells_what_is_there(started, ads):
    proxy = started(members=[member(1, 1001, version="7")])
    wait_hosts(proxy, 1001)
    seen = len(ads.requests)
    ads.end_streams()
    again = ads.wait(lambda r: r.type_url == LB_ENDPOINT and r.names, seen)
    assert again.names == [glob()]
    assert dict(again.message.initial_resource_versions) == {member(1, 0).name: "7"}
    assert hosts(proxy) == ["1001"]


def test_bad_member(started, ads):
    proxy = started(members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    ads.update(LB_ENDPOINT, "m2", [member(2, 1002, version="2", load_balancing_weight=0), member(3, 1003, version="2")])
    nack = ads.wait_nack(LB_ENDPOINT)
    assert "oad" in nack.message.error_detail.message and "eight" in nack.message.error_detail.message
    proxy.wait_stat(TEXT + "update_rejected", 1)
    assert "1001" in hosts(proxy) and "1002" not in hosts(proxy)


def test_good_siblings_of_a_bad_member(started, ads):
    proxy = started(members=[member(1, 1001, load_balancing_weight=0), member(2, 1002)])
    text = ads.wait_nack(LB_ENDPOINT).message.error_detail.message
    assert member(1, 0).name in text and "load_balancing_weight" in text
    wait_hosts(proxy, 1002)


def test_stream_of_its_own(started, ads):
    source = {"api_config_source": api_source("DELTA_GRPC"), "resource_api_version": "V3"}
    proxy = started(locality(source=source), members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    assert any(s.method == "DeltaLocalityEndpoints" for s in ads.streams)


@pytest.mark.parametrize("change, words", [
    ({"name": "plain"}, "scheme"),
    ({"name": "xdstp://plane/envoy.config.cluster.v3.Cluster/c/*"}, "does not match"),
    ({"lb_endpoints": [config.endpoint(1001)]}, "cannot include both LEDS"),
    ({"source": {"path_config_source": {"path": "/nowhere"}}}, ""),
    ({"source": {"api_config_source": api_source("GRPC"), "resource_api_version": "V3"}}, ""),
], ids=["no_scheme", "other_type", "both", "file", "sotw"])
def test_refused(started, ads, change, words):
    started(locality(**change))
    assert words in ads.wait_nack(ENDPOINTS).message.error_detail.message


def test_not_a_glob(started, ads):
    started(locality(name=f"xdstp://plane/{TYPE}/c"))
    assert "glob" in ads.wait_nack(ENDPOINTS).message.error_detail.message


def test_static_cluster(refusal):
    made = config.cluster("up", 1001)
    made["load_assignment"]["endpoints"] = [locality()]
    assert "cannot use LEDS" in refusal(config.bootstrap([], [made]))


def test_stats(started, ads):
    proxy = started(members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    proxy.wait_stat(TEXT + "update_success", 1)
    assert proxy.stat(TEXT + "update_attempt") >= 1 and proxy.stat(TEXT + "update_rejected") == 0
    assert proxy.stat("cluster.up.membership_total") == 1


def test_one_answer_for_the_collection_that_comes_and_the_one_it_replaces(started, ads):
    """The first half of it makes the new assignment ready, which ends the collection that the second half is about."""
    proxy = started(members=[member(1, 1001)])
    wait_hosts(proxy, 1001)
    ads.hold(LB_ENDPOINT)
    ads.set(ENDPOINTS, "e2", [endpoints(locality("d"))])
    ads.wait(lambda r: r.type_url == LB_ENDPOINT and glob("d") in r.names)
    response = discovery_pb2.DeltaDiscoveryResponse(type_url=LB_ENDPOINT, nonce="both", system_version_info="2")
    response.resources.extend([member(1, 1002, "d", "2"), member(1, 1003, "c", "2")])
    ads.send(response)
    assert not ads.wait(lambda r: r.type_url == LB_ENDPOINT and r.response_nonce == "both").is_nack
    wait_hosts(proxy, 1002)
    proxy.expect_running()
