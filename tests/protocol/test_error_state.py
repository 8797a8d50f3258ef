"""/config_dump (of runtime layers: the client's status) tells what was refused and why, until a good update comes. Envoy fills
error_state of listeners only, so what is expected of it is told by differences.yaml."""
import pytest

from envoy.service.discovery.v3 import discovery_pb2
from support import config
from support.ads_server import (CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTE, RUNTIME, SCOPED_ROUTE, SECRET, VIRTUAL_HOST,
                                message_of)
from support.process import wait_until
from support.rawhttp import fetch
from support.xds_config import ADS, ads_bootstrap, assignment, eds_cluster, rds_listener, routes, scope, scoped_listener

SDS = {"common_tls_context": {"validation_context_sds_secret_config": {"name": "s", "sds_config": ADS}}}
FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"


def main_listener(**fields):
    made = rds_listener(**fields)
    filters = made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    filters.insert(0, {"name": "f", "config_discovery": {"config_source": ADS, "type_urls": [config.TYPE + FAULT]}})
    return made


def secret(text):
    return {"name": "s", "validation_context": {"trusted_ca": {"filename": text}}}


def fault(status):
    return {"name": "f", **{k: v for k, v in config.typed("f", FAULT, abort={
        "http_status": status, "percentage": {"numerator": 0}}).items() if k == "typed_config"}}


def tls_cluster(timeout="5s"):
    return eds_cluster("up", transport_socket=config.tls_socket("Upstream", **SDS), connect_timeout=timeout)


# type: list of /config_dump, key of the configuration, the refused field, a good and a bad version
def cases(certificate):
    return {
        "cluster": (CLUSTER, "dynamic_active_clusters", "cluster", "connect_timeout", tls_cluster("4s"), tls_cluster("-1s")),
        "endpoints": (ENDPOINTS, "dynamic_endpoint_configs", "endpoint_config", "priority", assignment("up", 1002),
                      {"cluster_name": "up", "endpoints": [{"priority": 200}]}),
        "listener": (LISTENER, "dynamic_listeners", "listener", "stat_prefix", main_listener(traffic_direction="INBOUND"),
                     config.listener(config.hcm(stat_prefix=""))),
        "route": (ROUTE, "dynamic_route_configs", "route_config", "domains", routes(cluster="other"),
                  {"name": "r", "virtual_hosts": [{"name": "v"}]}),
        "secret": (SECRET, "dynamic_active_secrets", "secret", "validation_context", secret(certificate),
                   {"name": "s", "validation_context": {"trusted_ca": {"inline_string": "nothing"}}}),
        "extension": (EXTENSION, "ecds_filters", "ecds_filter", "http_status", fault(500), fault(20)),
    }


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
@pytest.mark.parametrize("case", ["cluster", "endpoints", "listener", "route", "secret", "extension"])
def test_of(start_proxy, ads, authority, kind, case):
    ca = str(authority.pair.cert)
    type_url, field, key, path, good, bad = cases(ca)[case]
    ads.set(CLUSTER, "1", [tls_cluster()])
    ads.set(ENDPOINTS, "1", [assignment("up", 1001)])
    ads.set(SECRET, "1", [secret(ca)])
    ads.set(LISTENER, "1", [main_listener()])
    ads.set(ROUTE, "1", [routes()])
    ads.set(EXTENSION, "1", [fault(400)])
    proxy = start_proxy(ads_bootstrap(ads, kind))

    def row():
        rows = proxy.admin(f"/config_dump?include_eds&resource={field}").json["configs"]
        assert len(rows) == 1
        return rows[0]

    wait_until(lambda: proxy.listeners(), "the listener")
    assert "error_state" not in row()
    ads.set(type_url, "2", [bad])
    assert path in ads.wait_nack(type_url).message.error_detail.message
    state = row()["error_state"]
    assert path in state["details"] and state["version_info"] == "2" and state["last_update_attempt"]
    assert state["failed_configuration"]["@type"] == type_url
    shown = row().get("active_state", row())
    assert shown["version_info"] == "1" and key in shown
    seen = len(ads.requests)
    ads.set(type_url, "3", [good])
    ads.wait_ack(type_url, "3", seen)
    wait_until(lambda: "error_state" not in row(), "the good version")
    proxy.expect_running()


# ---- what is refused of a set: members come one by one ----



def only(proxy, field):
    """The one element of a list of /config_dump; None: it is empty."""
    rows = proxy.admin(f"/config_dump?resource={field}").json.get("configs", [])
    assert len(rows) < 2
    return rows[0] if rows else None


@pytest.fixture
def scoped(start_proxy, ads):
    def start(kind, *scopes):
        ads.set(LISTENER, "1", [scoped_listener()])
        ads.set(ROUTE, "1", [{"name": "r", "virtual_hosts": [config.vhost([config.direct("/", 201)])]}])
        ads.set(SCOPED_ROUTE, "1", scopes)
        proxy = start_proxy(ads_bootstrap(ads, kind))
        wait_until(lambda: proxy.listeners(), "the listener")
        return proxy
    return start


def scopes_row(proxy):
    return only(proxy, "dynamic_scoped_route_configs")


def names_of(row):
    return sorted(s["name"] for s in row["scoped_route_configs"])


both = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])


@both
def test_of_scopes(scoped, ads, kind):
    proxy = scoped(kind, scope("a", "1", "r"), scope("b", "2", "r"))
    assert "error_state" not in scopes_row(proxy)
    reply = ads.push(SCOPED_ROUTE, "2", [scope("a", "1", "r"), scope("b", "2"), scope("c", "3"), scope("d", "4", "r")])
    assert reply.is_nack
    row = scopes_row(proxy)
    state = row["error_state"]
    for name in ("b", "c"):
        assert f"{name}: route_configuration_name is empty" in state["details"]
    assert state["version_info"] == "2" and state["last_update_attempt"]
    assert state["failed_configuration"]["@type"] == SCOPED_ROUTE and state["failed_configuration"]["name"] in ("b", "c")
    assert names_of(row) == ["a", "b", "d"]  # b as it was, its good siblings as they are
    wait_until(lambda: fetch(proxy.port(), headers=[("x-scope", "4")]).status == 201, "the good sibling")
    assert fetch(proxy.port(), headers=[("x-scope", "2")]).status == 201 and fetch(proxy.port(), headers=[("x-scope", "3")]).status == 404
    assert not ads.push(SCOPED_ROUTE, "3", [scope("a", "1", "r"), scope("b", "5", "r"), scope("c", "3", "r")]).is_nack
    wait_until(lambda: "error_state" not in scopes_row(proxy), "the good versions")
    assert names_of(scopes_row(proxy)) == ["a", "b", "c"]


@both
def test_of_one_scope_of_two_that_stay_bad(scoped, ads, kind):
    proxy = scoped(kind, scope("a", "1", "r"))
    bad = [scope(n, k) for n, k in (("b", "2"), ("c", "3"))]
    assert ads.push(SCOPED_ROUTE, "2", [scope("a", "1", "r"), *bad]).is_nack
    ads.push(SCOPED_ROUTE, "3", [scope("a", "1", "r"), bad[0]])  # c is gone, b is as bad as it was
    wait_until(lambda: "c: " not in scopes_row(proxy)["error_state"]["details"], "c to be forgotten")
    assert "b: route_configuration_name is empty" in scopes_row(proxy)["error_state"]["details"]
    ads.push(SCOPED_ROUTE, "4", [scope("a", "1", "r")])
    wait_until(lambda: "error_state" not in scopes_row(proxy), "b to be forgotten")


@both
def test_of_scopes_with_one_key(scoped, ads, kind):
    """Nothing of the update is taken."""
    proxy = scoped(kind, scope("a", "1", "r"))
    assert ads.push(SCOPED_ROUTE, "2", [scope("a", "1", "r"), scope("b", "2", "r"), scope("z", "1", "r")]).is_nack
    row = scopes_row(proxy)
    assert "first scope is 'a', second scope is 'z'" in row["error_state"]["details"]
    assert row["error_state"]["version_info"] == "2" and names_of(row) == ["a"] and row["version_info"] == "1"
    assert not ads.push(SCOPED_ROUTE, "3", [scope("a", "1", "r")]).is_nack
    wait_until(lambda: "error_state" not in scopes_row(proxy), "the good version")


@both
def test_of_a_scope_where_there_is_no_good_one(scoped, ads, kind):
    proxy = scoped(kind, scope("a", "1"))
    row = scopes_row(proxy)
    assert "a: route_configuration_name is empty" in row["error_state"]["details"]
    assert row.get("scoped_route_configs", []) == []
    assert fetch(proxy.port(), headers=[("x-scope", "1")]).status == 404


def host(name, code=200, domains=None):
    return {"name": name, "domains": [name] if domains is None else domains, "routes": [config.direct("/", code)]}


def send_hosts(ads, nonce, *hosts, removed=()):
    response = discovery_pb2.DeltaDiscoveryResponse(type_url=VIRTUAL_HOST, nonce=nonce, removed_resources=removed)
    for made in hosts:
        response.resources.add(name=f"r/{made['name']}", version=nonce).resource.Pack(message_of(VIRTUAL_HOST, made))
    ads.send(response)
    return ads.wait(lambda r: r.type_url == VIRTUAL_HOST and r.response_nonce == nonce)


@pytest.fixture
def with_hosts(start_proxy, ads):
    """A proxy with a route configuration that has one virtual host by VHDS: a."""
    ads.set(LISTENER, "1", [rds_listener()])
    ads.set(ROUTE, "1", [{"name": "r", "virtual_hosts": [host("base")], "vhds": {"config_source": ADS}}])
    proxy = start_proxy(ads_bootstrap(ads, "DELTA_GRPC"), ready=False)
    ads.wait(lambda r: r.type_url == VIRTUAL_HOST)
    assert not send_hosts(ads, "v1", host("a", 201)).is_nack
    wait_until(lambda: proxy.listeners(), "the listener")
    return proxy


def route_row(proxy):
    return only(proxy, "dynamic_route_configs")


def test_of_virtual_hosts(with_hosts, ads):
    proxy = with_hosts
    assert "error_state" not in route_row(proxy)
    assert send_hosts(ads, "v2", host("a", 202, []), host("b", 203, ["base"]), host("c", 204)).is_nack
    row = route_row(proxy)
    state = row["error_state"]
    lines = sorted(state["details"].splitlines())
    assert lines[0].startswith("r/a: ") and lines[0].endswith("domains: value must contain at least 1 item(s)")
    assert lines[1] == "r/b: Only unique values for domains are permitted. Duplicate entry of domain base in route r"
    assert len(lines) == 2
    assert state["version_info"] == "v2" and state["last_update_attempt"]
    assert state["failed_configuration"]["@type"] == VIRTUAL_HOST and state["failed_configuration"]["name"] in ("a", "b")
    assert row["version_info"] == "1"
    wait_until(lambda: fetch(proxy.port(), host="c").status == 204, "the good sibling")
    assert fetch(proxy.port(), host="a").status == 201  # the last good one
    assert not send_hosts(ads, "v3", host("a", 205)).is_nack
    wait_until(lambda: "r/a: " not in route_row(proxy)["error_state"]["details"], "the good version")
    assert "r/b: " in route_row(proxy)["error_state"]["details"]
    assert not send_hosts(ads, "v4", removed=["r/b"]).is_nack
    wait_until(lambda: "error_state" not in route_row(proxy), "the removal")
    assert [fetch(proxy.port(), host=name).status for name in ("a", "c", "base")] == [205, 204, 200]


def test_of_a_virtual_host_that_is_good_again_as_it_was(with_hosts, ads):
    proxy = with_hosts
    assert send_hosts(ads, "v2", host("a", 202, [])).is_nack
    assert "error_state" in route_row(proxy)
    assert not send_hosts(ads, "v3", host("a", 201)).is_nack
    wait_until(lambda: "error_state" not in route_row(proxy), "the good version")


def test_of_many_virtual_hosts_is_bounded(with_hosts, ads):
    """What is remembered of them, and what is told."""
    proxy = with_hosts
    for n in range(3):
        assert send_hosts(ads, f"v2.{n}", *(host(f"x{n}-{i}-{'n' * 100}", 200, []) for i in range(500))).is_nack
    state = route_row(proxy)["error_state"]
    assert 0 < len(state["details"]) <= 64 * 1024
    assert not send_hosts(ads, "v3", host("late", 207)).is_nack
    wait_until(lambda: fetch(proxy.port(), host="late").status == 207, "a good one")


@both
def test_of_runtime(start_proxy, ads, kind):
    """/config_dump has no section of it, as in Envoy: the client's status tells."""
    ads.set(LISTENER, "1", [])
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    bootstrap = ads_bootstrap(ads, kind)
    bootstrap["layered_runtime"] = {"layers": [{"name": "l", "rtds_layer": {"name": "one", "rtds_config": ADS}}]}
    proxy = start_proxy(bootstrap)

    def row():
        configs = proxy.admin("/v3/discovery:client_status").json["config"][0]["generic_xds_configs"]
        [found] = [c for c in configs if c["type_url"] == RUNTIME]
        return found

    def value():
        return proxy.admin("/runtime").json["entries"].get("a", {}).get("final_value")

    wait_until(lambda: value() == "2", "the layer")
    assert row()["client_status"] == "ACKED" and "error_state" not in row()
    assert ads.push(RUNTIME, "2", [{"name": "one", "layer": {"a": {"l": [1]}}}]).is_nack
    state = row()["error_state"]
    assert row()["client_status"] == "NACKED" and row()["version_info"] == "1"
    assert "Invalid runtime entry value for a.l" in state["details"] and state["version_info"] == "2"
    assert state["failed_configuration"]["@type"] == RUNTIME and state["failed_configuration"]["layer"] == {"a": {"l": [1]}}
    assert value() == "2"
    assert not ads.push(RUNTIME, "3", [{"name": "one", "layer": {"a": 3}}]).is_nack
    wait_until(lambda: row()["client_status"] == "ACKED" and "error_state" not in row(), "the good version")
    wait_until(lambda: value() == "3", "the new value")
