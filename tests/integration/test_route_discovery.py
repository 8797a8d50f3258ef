"""Routes by discovery: what a connection keeps when its listener is replaced, removals, sources."""

import pytest

from support import config
from support.ads_server import LISTENER, ROUTE
from support.process import wait_until
from support.rawhttp import Client, fetch
from support.xds_config import ads_bootstrap, rds_listener, routes, serve_all

both = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])


@both
def test_connection_of_a_replaced_listener_keeps_its_routes(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind), args=["--drain-time-s", "600"])
    port = proxy.port()
    with Client(port) as client:
        assert client.request("GET", "/").status == 200
        ads.update(ROUTE, "r2", changed=[{"name": "r2", "virtual_hosts": [config.vhost([config.direct("/new", 200)])]}])
        ads.update(LISTENER, "l2", changed=[rds_listener(route_name="r2")])
        wait_until(lambda: fetch(port, "/new").status == 200, "the new listener")
        assert client.request("GET", "/").status == 200


@both
def test_a_removed_route_configuration_stays_in_use(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    before = len(ads.requests)
    ads.update(ROUTE, "r2", removed=["r"])
    ads.wait_ack(ROUTE, after=before)
    assert fetch(proxy.port(), "/").status == 200
    before = len(ads.requests)
    ads.set(ROUTE, "r3", [{"name": "r", "virtual_hosts": [config.vhost([config.direct("/", 204)])]}])
    ads.wait_ack(ROUTE, after=before)
    assert fetch(proxy.port(), "/").status == 204


def test_equal_names_of_two_sources(sluice, ads, upstream, tmp_path):
    """One route configuration's name, from ADS and from a file."""
    serve_all(ads, upstream.port)
    path = tmp_path / "routes.yaml"
    path.write_text('{"resources": [{"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "r",'
                    '"virtual_hosts": [{"name": "a", "domains": ["*"], "routes": [{"match": {"prefix": "/"},'
                    '"direct_response": {"status": 204}}]}]}]}')
    other = rds_listener("other")
    rds = other["filter_chains"][0]["filters"][0]["typed_config"]["rds"]
    rds["config_source"] = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    bootstrap = ads_bootstrap(ads)
    bootstrap["static_resources"]["listeners"] = [other]
    proxy = sluice(bootstrap)
    assert fetch(proxy.port("other"), "/").status == 204
    assert fetch(proxy.port("main"), "/").status == 200


def test_weighted_cluster_overrides_filters_before_the_router(sluice, upstream):
    """The cluster is picked with the route, so its per-filter config counts for every filter."""
    fault = {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
             "abort": {"http_status": 418, "percentage": {"numerator": 100}}}
    weights = [{"name": "up", "weight": 0}, {"name": "up", "weight": 1,
                                             "typed_per_filter_config": {"envoy.filters.http.fault": fault}}]
    plain = config.typed("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault")
    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    disabled = [{"name": "up", "weight": 1, "typed_per_filter_config": {"envoy.filters.http.fault": off}}]
    paths = [({"path": "/on"}, weights, {}), ({"path": "/off"}, disabled, {"envoy.filters.http.fault": fault})]
    table = [{"match": match, "route": {"weighted_clusters": {"clusters": clusters}}, "typed_per_filter_config": per_route}
             for match, clusters, per_route in paths]
    proxy = sluice(config.bootstrap([config.listener(config.hcm(table, filters=[plain]))],
                                    [config.cluster("up", upstream.port)]))
    assert fetch(proxy.port(), "/on").status == 418
    assert fetch(proxy.port(), "/off").status == 200
