"""Client status (CSDS) on the admin port: what the proxy has of each resource it asked for."""
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.status.v3 import csds_pb2
from google.protobuf import json_format
from support.ads_server import CLUSTER, ENDPOINTS, LB_ENDPOINT, LISTENER, ROUTE, VIRTUAL_HOST, AdsServer
from support.config import cluster, direct, vhost
from support.process import wait_until
from support.xds_config import ADS, ads_bootstrap, eds_cluster, rds_listener, serve_all

PATH = "/v3/discovery:client_status"


def status(proxy, query=""):
    answer = json_format.ParseDict(proxy.admin(PATH + query).json, csds_pb2.ClientStatusResponse())
    config, = answer.config
    assert config.node.id == "test-node"
    return {(c.type_url, c.name): c for c in config.generic_xds_configs}


def word(config):
    return type(config).DESCRIPTOR.fields_by_name["client_status"].enum_type.values_by_number[config.client_status].name


def test_status_of_each_resource(sluice, upstream):
    with AdsServer() as ads:
        serve_all(ads, upstream.port)
        proxy = sluice(ads_bootstrap(ads))
        ads.wait_ack(ROUTE)
        wait_until(lambda: (ROUTE, "r") in status(proxy), "routes")
        found = status(proxy)
        assert {k: word(c) for k, c in found.items()} == {
            (CLUSTER, "up"): "ACKED", (ENDPOINTS, "up"): "ACKED", (LISTENER, "main"): "ACKED", (ROUTE, "r"): "ACKED"}
        assert found[CLUSTER, "up"].version_info == "c1" and found[CLUSTER, "up"].last_updated.seconds > 0
        assert found[CLUSTER, "up"].xds_config.type_url == CLUSTER
        assert not status(proxy, "?exclude_resource_contents=true")[CLUSTER, "up"].HasField("xds_config")

        ads.set(CLUSTER, "c2", [eds_cluster("up", connect_timeout="-1s"), eds_cluster("waits"),
                                cluster("bad", 80, connect_timeout="-2s")])
        ads.wait_nack(CLUSTER)
        found = status(proxy)
        assert word(found[CLUSTER, "up"]) == "NACKED" and found[CLUSTER, "up"].version_info == "c1"
        assert "connect_timeout" in found[CLUSTER, "up"].error_state.details
        assert found[CLUSTER, "up"].error_state.version_info == "c2"
        assert word(found[CLUSTER, "bad"]) == "NACKED" and not found[CLUSTER, "bad"].HasField("xds_config")
        assert word(found[ENDPOINTS, "waits"]) == "REQUESTED"


def test_sets_are_asked_for_until_they_are_answered(sluice):
    """Collections of endpoints, and virtual hosts: an empty answer is one."""
    collection = "xdstp://plane/envoy.config.endpoint.v3.LbEndpoint/c/*"
    with AdsServer() as ads:
        ads.set(CLUSTER, "c1", [eds_cluster("up")])
        ads.set(ENDPOINTS, "e1", [{"cluster_name": "up", "endpoints": [{"leds_cluster_locality_config": {
            "leds_config": ADS, "leds_collection_name": collection}}]}])
        ads.set(LISTENER, "l1", [rds_listener()])
        ads.set(ROUTE, "r1", [{"name": "r", "virtual_hosts": [vhost([direct("/", 200)])], "vhds": {"config_source": ADS}}])
        proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"), ready=False)
        for type_url, name in ((LB_ENDPOINT, collection), (VIRTUAL_HOST, "r")):
            ads.wait(lambda r, t=type_url: r.type_url == t)
            wait_until(lambda n=name, t=type_url: (t, n) in status(proxy), name)
            assert word(status(proxy)[type_url, name]) == "REQUESTED"
            ads.send(discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce="empty"))
            wait_until(lambda n=name, t=type_url: (t, n) not in status(proxy), name)
        wait_until(lambda: proxy.listeners(), "the listener")


def test_a_static_proxy_has_none(sluice, upstream):
    with AdsServer() as ads:
        proxy = sluice(ads_bootstrap(ads), ready=False)
        assert not status(proxy)
        assert proxy.admin(PATH, "POST", "{}").status == 200
