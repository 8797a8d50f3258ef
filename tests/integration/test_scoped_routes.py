"""Scoped routes: keys made of headers, inline scopes, SRDS from every kind of source, conflicts, warming, config_dump."""

import json

import pytest

from support import config
from support.ads_server import CLUSTER, LISTENER, PREFIX, ROUTE, SCOPED_ROUTE
from support.process import wait_until
from support.proxy import Sluice
from support.rawhttp import Client, fetch
from support.xds_config import ADS, X_SCOPE, ads_bootstrap, api_source, rds_listener, scope, scope_key, scoped_listener, xds_cluster

both = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])


def table(name, status=200):
    return {"name": name, "virtual_hosts": [config.vhost([config.direct("/", status)])]}


def inline(*scopes, builder=X_SCOPE):
    return scoped_listener(builder=builder,
                           scopes={"scoped_route_configurations_list": {"scoped_route_configurations": list(scopes)}})


def serve(ads, scopes, routes=("r1", "r2")):
    ads.set(CLUSTER, "c1", [])
    ads.set(LISTENER, "l1", [scoped_listener()])
    ads.set(ROUTE, "r1", [table(name, 200 + i) for i, name in enumerate(routes)])
    ads.set(SCOPED_ROUTE, "s1", scopes)


def get(proxy, value=None, **more):
    return fetch(proxy.port(), headers=[("x-scope", value)] if value is not None else [], **more).status


# ---- keys ----

EXTRACTORS = [
    ({"name": "X-Scope", "index": 0}, [("a", 201), ("", 404), ("a,b", 404), (None, 404)]),
    ({"name": "x-scope", "element_separator": ",", "index": 1}, [("z,a", 201), ("a", 404), ("z,a,y", 201), ("z,,a", 404)]),
    ({"name": "x-scope", "element_separator": ";", "element": {"key": "v", "separator": "="}},
     [("v=a", 201), ("q=a;v=a", 201), ("q=a", 404), ("v=b;v=a", 404), ("v", 202), ("v=a=b", 203)]),
    ({"name": "x-scope", "element_separator": "", "element": {"key": "v", "separator": "="}},
     [("v=a", 201), ("q=a;v=a", 404)]),
    ({"name": "host", "index": 0}, [("a", 404)]),
]


@pytest.mark.parametrize("extractor, cases", EXTRACTORS)
def test_keys(sluice, extractor, cases):
    builder = {"fragments": [{"header_value_extractor": extractor}]}
    scopes = [scope("1", "a", route_configuration=table("r", 201)), scope("2", "", route_configuration=table("r", 202)),
              scope("3", "a=b", route_configuration=table("r", 203))]
    if extractor["name"] != "x-scope" or "element" not in extractor:
        scopes.pop(1)
    proxy = sluice(config.bootstrap([inline(*scopes, builder=builder)]))
    assert [get(proxy, value) for value, _ in cases] == [status for _, status in cases]


def test_two_fragments(sluice):
    builder = {"fragments": [{"header_value_extractor": {"name": n, "index": 0}} for n in ("x-scope", "x-more")]}
    two = {"name": "b", "key": scope_key("a", "bc"), "route_configuration": table("r", 202)}
    other = {"name": "c", "key": scope_key("ab", "c"), "route_configuration": table("r", 203)}
    proxy = sluice(config.bootstrap([inline(two, other, builder=builder)]))

    def both_of(first, second):
        return fetch(proxy.port(), headers=[("x-scope", first), ("x-more", second)]).status
    assert (both_of("a", "bc"), both_of("ab", "c"), both_of("abc", "")) == (202, 203, 404)
    assert get(proxy, "a") == 404


def test_last_of_equal_inline_scopes_counts(sluice):
    scopes = [scope("a", "1", route_configuration=table("r", 201)), scope("b", "1", route_configuration=table("r", 202)),
              scope("c", "3", route_configuration=table("r", 203)), scope("c", "4", route_configuration=table("r", 204))]
    proxy = sluice(config.bootstrap([inline(*scopes)]))
    assert [get(proxy, v) for v in "134"] == [202, 404, 204]
    [dump] = [c for c in proxy.admin("/config_dump").json["configs"] if c["@type"].endswith("ScopedRoutesConfigDump")]
    [shown] = dump["inline_scoped_route_configs"]
    assert shown["name"] == "s" and [s["name"] for s in shown["scoped_route_configs"]] == ["a", "b", "c", "c"]
    assert shown["scoped_route_configs"][0]["@type"] == PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"


REFUSED = [
    (inline(scope("a", "1", "r1")), "Fetching routes via RDS (route_configuration_name) is not supported"),
    (inline(scope("a", "1")), "You must specify a route_configuration with inline scoped routes."),
    (inline(scope("a", "1", route_configuration=table("r")),
            builder={"fragments": [{"header_value_extractor": {"name": "x"}}]}), "extract_type not set"),
    (inline(scope("a", "1", route_configuration=table("r")),
            builder={"fragments": [{"header_value_extractor": {"name": "x", "index": 1}}]}),
     "Index > 0 for empty string element separator."),
    (inline(scope("a", "1", route_configuration={"name": "r", "virtual_hosts": [config.vhost([config.route(cluster="no")])]})),
     "unknown cluster 'no'"),
    (scoped_listener(scopes={"scoped_rds": {"scoped_rds_config_source": ADS, "srds_resources_locator": "xdstp://a/b"}}),
     "srds_resources_locator"),
]


@pytest.mark.parametrize("listener, text", REFUSED)
def test_refused(tmp_path, listener, text):
    tried = Sluice(tmp_path / "p", config.bootstrap([listener]), args=["--mode", "validate"])
    tried.launch(tried.command(), None)
    wait_until(tried.has_exited, "the verdict")
    assert text in tried.log()


# ---- SRDS ----

@both
def test_scopes_by_discovery(sluice, ads, kind):
    serve(ads, [scope("a", "1", "r1"), scope("b", "2", "r2")])
    proxy = sluice(ads_bootstrap(ads, kind))
    assert (get(proxy, "1"), get(proxy, "2"), get(proxy, "3"), get(proxy)) == (200, 201, 404, 404)
    assert ads.of(SCOPED_ROUTE)[0].names == [] and sorted(ads.of(ROUTE)[-1].names or ["r1", "r2"]) == ["r1", "r2"]
    prefix = "http.main.scoped_rds.s."
    assert [proxy.stat(prefix + s) for s in ("all_scopes", "active_scopes", "on_demand_scopes", "update_success",
                                             "config_reload")] == [2, 2, 0, 1, 1]
    assert proxy.stat("http.main.rds.r1.update_success") == 1
    # keys change hands within one update, a scope moves to another table
    assert not ads.push(SCOPED_ROUTE, "s2", [scope("a", "2", "r1"), scope("b", "1", "r2")]).is_nack
    wait_until(lambda: (get(proxy, "1"), get(proxy, "2")) == (201, 200), "the swap")
    ads.update(SCOPED_ROUTE, "s3", removed=["b"])
    wait_until(lambda: get(proxy, "1") == 404, "the scope to go")
    assert get(proxy, "2") == 200
    [dump] = [c for c in proxy.admin("/config_dump").json["configs"] if c["@type"].endswith("ScopedRoutesConfigDump")]
    [shown] = dump["dynamic_scoped_route_configs"]
    assert shown["name"] == "s" and shown["version_info"] == "s3"
    assert [s["name"] for s in shown["scoped_route_configs"]] == ["a"]


@both
def test_conflict_changes_nothing(sluice, ads, kind):
    serve(ads, [scope("a", "1", "r1")])
    proxy = sluice(ads_bootstrap(ads, kind))
    reply = ads.push(SCOPED_ROUTE, "s2", [scope("a", "1", "r1"), scope("b", "2", "r2"), scope("z", "1", "r2")])
    assert reply.error_detail.message == ("Error adding/updating scoped route(s): scope key conflict found, "
                                          "first scope is 'a', second scope is 'z'")
    assert (get(proxy, "1"), get(proxy, "2")) == (200, 404)
    assert proxy.stat("http.main.scoped_rds.s.update_rejected") == 1
    assert not ads.push(SCOPED_ROUTE, "s3", [scope("a", "1", "r1"), scope("b", "2", "r2"), scope("z", "3", "r2")]).is_nack
    wait_until(lambda: (get(proxy, "2"), get(proxy, "3")) == (201, 201), "the next update")


@both
def test_bad_scope_leaves_others_alone(sluice, ads, kind):
    serve(ads, [scope("a", "1", "r1")])
    proxy = sluice(ads_bootstrap(ads, kind))
    reply = ads.push(SCOPED_ROUTE, "s2", [scope("a", "1", "r1"), scope("b", "2"), scope("c", "3", "r2")])
    assert reply.is_nack and "b: route_configuration_name is empty." in reply.error_detail.message
    wait_until(lambda: (get(proxy, "1"), get(proxy, "2"), get(proxy, "3")) == (200, 404, 201), "the good ones")


@both
def test_inline_routes_of_a_scope(sluice, ads, kind):
    serve(ads, [scope("a", "1", route_configuration=table("q", 204))])
    proxy = sluice(ads_bootstrap(ads, kind))
    with Client(proxy.port()) as client:
        def status():
            return client.request("GET", "/", [("x-scope", "1")]).status
        assert status() == 204
        ads.push(SCOPED_ROUTE, "s2", [scope("a", "1", route_configuration=table("q", 205))])
        wait_until(lambda: status() == 205, "the new table")
        ads.push(SCOPED_ROUTE, "s3", [])
        wait_until(lambda: status() == 404, "no scope")


@both
def test_listener_waits_for_scopes_and_their_routes(sluice, ads, kind):
    serve(ads, [scope("a", "1", "r1"), scope("b", "2", "r2", on_demand=True)])
    ads.hold(SCOPED_ROUTE, ROUTE)
    proxy = sluice(ads_bootstrap(ads, kind), ready=False)
    ads.wait(lambda r: r.type_url == SCOPED_ROUTE)
    wait_until(lambda: "srds http.main.scoped_rds.s." in proxy.admin("/init_dump").text, "the culprit's name")
    assert not proxy.listeners()
    ads.release(SCOPED_ROUTE)
    assert ads.wait(lambda r: r.type_url == ROUTE).names == ["r1"]  # nobody asked for the one on demand
    wait_until(lambda: "rds r1" in proxy.admin("/init_dump").text, "the culprit's name")
    assert not proxy.listeners()
    ads.release(ROUTE)
    wait_until(lambda: proxy.listeners(), "the listener")
    assert (get(proxy, "1"), get(proxy, "2")) == (200, 404)
    assert proxy.stat("http.main.scoped_rds.s.on_demand_scopes") == 1


def test_fetch_timeout(sluice, ads):
    serve(ads, [])
    ads.hold(SCOPED_ROUTE)
    ads.set(LISTENER, "l1", [scoped_listener(srds={**ADS, "initial_fetch_timeout": "0.1s"})])
    proxy = sluice(ads_bootstrap(ads))
    assert get(proxy, "1") == 404
    ads.release(SCOPED_ROUTE)
    ads.push(SCOPED_ROUTE, "s2", [scope("a", "1", "r1")])
    wait_until(lambda: get(proxy, "1") == 200, "the late scope")


@both
def test_streams_of_their_own(sluice, ads, kind):
    """SRDS and RDS, each on a stream of its type."""
    source = {"api_config_source": api_source(kind), "resource_api_version": "V3"}
    ads.set(ROUTE, "r1", [table("r1")])
    ads.set(SCOPED_ROUTE, "s1", [scope("a", "1", "r1")])
    proxy = sluice(config.bootstrap([scoped_listener(srds=source, rds=source)], [xds_cluster(ads)]))
    assert get(proxy, "1") == 200
    lead = "Delta" if kind == "DELTA_GRPC" else "Stream"
    assert {s.method for s in ads.streams} == {lead + "ScopedRoutes", lead + "Routes"}


def test_scopes_of_a_file(sluice, tmp_path):
    path = tmp_path / "scopes.json"
    typed = {"@type": SCOPED_ROUTE, **scope("a", "1", route_configuration=table("q", 204))}
    path.write_text(json.dumps({"resources": [typed]}))
    source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    proxy = sluice(config.bootstrap([scoped_listener(srds=source, rds=source)]))
    assert get(proxy, "1") == 204


@both
def test_scopes_wanted_again(sluice, ads, kind):
    serve(ads, [scope("a", "1", "r1")])
    proxy = sluice(ads_bootstrap(ads, kind), args=["--drain-time-s", "600"])
    with Client(proxy.port()) as client:
        assert client.request("GET", "/", [("x-scope", "1")]).status == 200
        ads.update(LISTENER, "l2", changed=[config.listener(config.hcm([config.direct("/", 202)]), name="main")])
        wait_until(lambda: get(proxy) == 202, "the new listener")
        assert client.request("GET", "/", [("x-scope", "1")]).status == 200  # it keeps what it began with
    ads.set(SCOPED_ROUTE, "s9", [scope("a", "1", "r1"), scope("b", "2", "r1")])
    ads.update(LISTENER, "l3", changed=[scoped_listener()])
    wait_until(lambda: get(proxy, "2") == 200, "scopes again")


@both
def test_routes_that_a_listener_and_the_scopes_it_leaves_wait_for(sluice, ads, kind):
    """Their arrival ends the scopes while it is told to all who wait."""
    serve(ads, [scope("a", "1", "r1")])
    proxy = sluice(ads_bootstrap(ads, kind))
    assert get(proxy, "1") == 200
    ads.hold(ROUTE)
    ads.update(LISTENER, "l2", changed=[rds_listener(route_name="late")])
    ads.wait(lambda r: r.type_url == ROUTE and "late" in r.names)
    assert not ads.push(SCOPED_ROUTE, "s2", [scope("a", "1", "r1"), scope("b", "2", "late")]).is_nack
    ads.set(ROUTE, "r2", [table("r1"), table("late", 207)])
    ads.release(ROUTE)
    wait_until(lambda: get(proxy) == 207, "the new listener")
    assert proxy.stat("listener_manager.total_listeners_warming") == 0
