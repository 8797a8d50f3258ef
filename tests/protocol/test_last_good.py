"""What is refused of scopes, virtual hosts and runtime layers leaves the last good version in use, and the next good one comes."""
import pytest

from envoy.service.discovery.v3 import discovery_pb2
from support import config
from support.ads_server import (CLUSTER, LISTENER, ROUTE, RUNTIME, SCOPED_ROUTE, VIRTUAL_HOST, message_of)
from support.process import wait_until
from support.rawhttp import fetch
from support.xds_config import ADS, ads_bootstrap, rds_listener, scope, scoped_listener

both = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])


# ---- SRDS ----

BAD_SCOPES = {
    "no_routes": scope("a", "1"),
    "no_key": {"name": "a", "route_configuration_name": "r1"},
    "no_fragments": {**scope("a", "1", "r1"), "key": {}},
    "empty_fragment": {**scope("a", "1", "r1"), "key": {"fragments": [{}]}},
    "two_with_one_key": scope("z", "1", "r1"),
}


@both
@pytest.mark.parametrize("bad", BAD_SCOPES)
def test_scope(start_proxy, ads, kind, bad):
    ads.set(LISTENER, "1", [scoped_listener()])
    ads.set(ROUTE, "1", [{"name": f"r{n}", "virtual_hosts": [config.vhost([config.direct("/", 200 + n)])]} for n in (1, 2)])
    ads.set(SCOPED_ROUTE, "1", [scope("a", "1", "r1")])
    proxy = start_proxy(ads_bootstrap(ads, kind))
    wait_until(lambda: proxy.listeners(), "the listener")

    def get():
        return fetch(proxy.port(), headers=[("x-scope", "1")]).status

    wait_until(lambda: get() == 201, "the scope")
    refused = BAD_SCOPES[bad]
    reply = ads.push(SCOPED_ROUTE, "2", [refused] if refused["name"] == "a" else [scope("a", "1", "r1"), refused])
    assert reply.is_nack and reply.error_detail.message
    if kind == "GRPC":
        assert reply.version_info == "1"
    assert proxy.stat("http.main.scoped_rds.s.update_rejected") == 1
    assert get() == 201
    assert not ads.push(SCOPED_ROUTE, "3", [scope("a", "1", "r2")]).is_nack
    wait_until(lambda: get() == 202, "the good version")


# ---- VHDS ----

def host(name, code=200, domains=None, **fields):
    return {"name": name, "domains": [name] if domains is None else domains, "routes": [config.direct("/", code)], **fields}


BAD_HOSTS = {
    "no_domains": host("a", 202, []),
    "no_name": {"domains": ["a"], "routes": [config.direct("/", 202)]},
    "domain_taken": host("a", 202, ["base"]),
    "domain_twice": host("a", 202, ["a", "a"]),
    "bad_regex": host("a", routes=[{"match": {"safe_regex": {"regex": "("}}, "direct_response": {"status": 202}}]),
}


def send_host(ads, nonce, made):
    response = discovery_pb2.DeltaDiscoveryResponse(type_url=VIRTUAL_HOST, nonce=nonce)
    response.resources.add(name="r/a", version=nonce).resource.Pack(message_of(VIRTUAL_HOST, made))
    ads.send(response)
    return ads.wait(lambda r: r.type_url == VIRTUAL_HOST and r.response_nonce == nonce)


@pytest.mark.parametrize("bad", BAD_HOSTS)
def test_virtual_host(start_proxy, ads, bad):
    ads.set(LISTENER, "1", [rds_listener()])
    ads.set(ROUTE, "1", [{"name": "r", "virtual_hosts": [host("base")], "vhds": {"config_source": ADS}}])
    proxy = start_proxy(ads_bootstrap(ads, "DELTA_GRPC"), ready=False)
    ads.wait(lambda r: r.type_url == VIRTUAL_HOST)
    assert not send_host(ads, "v1", host("a", 201)).is_nack
    wait_until(lambda: proxy.listeners(), "the listener")
    assert fetch(proxy.port(), host="a").status == 201
    reply = send_host(ads, "v2", BAD_HOSTS[bad])
    assert reply.is_nack and reply.error_detail.message
    assert (fetch(proxy.port(), host="a").status, fetch(proxy.port(), host="base").status) == (201, 200)
    assert not send_host(ads, "v3", host("a", 203)).is_nack
    wait_until(lambda: fetch(proxy.port(), host="a").status == 203, "the good version")


# ---- RTDS ----

@both
@pytest.mark.parametrize("bad", [{"a": None}, {"b": {"l": [1]}}], ids=["null", "list"])
def test_runtime(start_proxy, ads, kind, bad):
    ads.set(LISTENER, "1", [])
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    bootstrap = ads_bootstrap(ads, kind)
    bootstrap["layered_runtime"] = {"layers": [{"name": "l", "rtds_layer": {"name": "one", "rtds_config": ADS}}]}
    proxy = start_proxy(bootstrap)

    def value():
        return proxy.admin("/runtime").json["entries"].get("a", {}).get("final_value")

    wait_until(lambda: value() == "2", "the layer")
    reply = ads.push(RUNTIME, "2", [{"name": "one", "layer": bad}])
    assert reply.is_nack and reply.error_detail.message
    assert proxy.stat("runtime.update_rejected") == 1
    assert value() == "2"
    assert not ads.push(RUNTIME, "3", [{"name": "one", "layer": {"a": 3}}]).is_nack
    wait_until(lambda: value() == "3", "the good version")
