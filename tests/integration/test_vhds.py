"""VHDS: virtual hosts that come one by one, on subscription and on demand."""

import pytest

from envoy.service.discovery.v3 import discovery_pb2
from support import config
from support.ads_server import CLUSTER, LISTENER, ROUTE, VIRTUAL_HOST, message_of
from support.process import wait_until
from support.rawhttp import Client, fetch
from support.xds_config import ADS, ads_bootstrap, api_source, rds_listener

ON_DEMAND = config.typed("envoy.filters.http.on_demand", "envoy.extensions.filters.http.on_demand.v3.OnDemand")


def listener(filters=(ON_DEMAND,)):
    made = rds_listener()
    made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][:0] = filters
    return made


def host(name, status=200, domains=None, **fields):
    return {"name": name, "domains": domains or [name], "routes": [config.direct("/", status)], **fields}


def serve(ads, source=ADS, hosts=(), **fields):
    ads.set(CLUSTER, "c1", [])
    ads.set(LISTENER, "l1", [listener(**fields)])
    ads.set(ROUTE, "r1", [{"name": "r", "virtual_hosts": list(hosts), "vhds": {"config_source": source}}])


def respond(ads, *resources, removed=(), stream=-1):
    """A VHDS response: (name, aliases, host or None)."""
    response = discovery_pb2.DeltaDiscoveryResponse(type_url=VIRTUAL_HOST, removed_resources=removed)
    with ads.lock:
        ads.nonces += 1
        response.nonce = f"v{ads.nonces}"
    for name, aliases, made in resources:
        added = response.resources.add(name=name, version=response.nonce, aliases=aliases)
        if made:
            added.resource.Pack(message_of(VIRTUAL_HOST, made))
    ads.send(response, stream)
    return ads.wait(lambda r: r.type_url == VIRTUAL_HOST and r.response_nonce == response.nonce)


def started(sluice, ads, *resources, **options):
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"), ready=False, **options)
    ads.wait(lambda r: r.type_url == VIRTUAL_HOST and "r" in r.names)
    assert not proxy.listeners()
    respond(ads, *resources)
    wait_until(lambda: proxy.listeners(), "the listener")
    return proxy


def get(proxy, name, path="/"):
    return fetch(proxy.port(), path, host=name).status


def asked(client, ads, name, after=0):
    client.send(f"GET / HTTP/1.1\r\nhost: {name}\r\n\r\n")
    return ads.wait(lambda r: r.type_url == VIRTUAL_HOST and f"r/{name.lower()}" in r.names, after)


def test_hosts_by_subscription(sluice, ads):
    serve(ads, hosts=[host("base")])
    proxy = started(sluice, ads, ("r/a", ["r/a"], host("a", 201)))
    assert (get(proxy, "base"), get(proxy, "a")) == (200, 201)
    respond(ads, ("r/b", [], host("b", 202)), ("r/a", [], host("a", 203)))
    wait_until(lambda: (get(proxy, "a"), get(proxy, "b"), get(proxy, "base")) == (203, 202, 200), "the update")


def dumped(proxy, query=""):
    found, = proxy.admin(f"/config_dump?resource=dynamic_route_configs{query}").json["configs"]
    return found


def names(element):
    return [h["name"] for h in element["route_config"].get("virtual_hosts", [])]


@pytest.mark.parametrize("own", [["base"], []])
def test_dump_shows_hosts_within_their_routes(sluice, ads, own):
    serve(ads, hosts=[host(n) for n in own])
    proxy = started(sluice, ads, *((f"r/{n}", [f"r/{n}"], host(n)) for n in "abc"))
    found = dumped(proxy)
    assert names(found)[:len(own)] == own and sorted(names(found)) == sorted([*own, "a", "b", "c"])
    assert found["route_config"]["name"] == "r" and found["version_info"] == "r1"
    full = [c for c in proxy.admin("/config_dump").json["configs"] if c["@type"].endswith(".RoutesConfigDump")]
    assert [c["route_config"] for c in full[0]["dynamic_route_configs"]] == [found["route_config"]]

    masked = dumped(proxy, "&mask=route_config.virtual_hosts")
    assert names(masked) == names(found) and "name" not in masked["route_config"]
    assert "virtual_hosts" not in dumped(proxy, "&mask=route_config.name")["route_config"]
    assert dumped(proxy, "&name_regex=^r$") == found
    assert proxy.admin("/config_dump?resource=dynamic_route_configs&name_regex=^a$").json == {}

    respond(ads, ("r/d", [], host("d")), removed=["r/a", "r/b"])
    wait_until(lambda: sorted(names(dumped(proxy))) == sorted([*own, "c", "d"]), lambda: str(dumped(proxy)))


def test_client_status_has_hosts_within_their_routes(sluice, ads):
    serve(ads, hosts=[host("base")])
    proxy = started(sluice, ads, ("r/a", ["r/a"], host("a")))
    found, = [c for c in proxy.admin("/v3/discovery:client_status").json["config"][0]["generic_xds_configs"]
              if c["type_url"] == ROUTE]
    assert [h["name"] for h in found["xds_config"]["virtual_hosts"]] == ["base", "a"]


def test_listener_waits_and_is_told_why(sluice, ads):
    serve(ads)
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"), ready=False)
    wait_until(lambda: "vhds r" in proxy.admin("/init_dump").text, "the culprit's name")
    assert not proxy.listeners()
    respond(ads)  # an empty answer is one
    wait_until(lambda: proxy.listeners(), "the listener")


def test_fetch_timeout(sluice, ads):
    serve(ads, {**ADS, "initial_fetch_timeout": "0.1s"}, hosts=[host("base")])
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"))
    assert get(proxy, "base") == 200


def test_on_demand(sluice, ads):
    serve(ads)
    proxy = started(sluice, ads)
    with Client(proxy.port()) as client:
        assert asked(client, ads, "New.Host:80").names == ["r/new.host:80"]
        respond(ads, ("r/some", ["r/new.host:80", "r/new.host"], host("some", 201, ["new.host:80", "new.host"])))
        assert client.read().status == 201
    after = len(ads.requests)
    assert get(proxy, "new.host") == 201
    assert not [r for r in ads.requests[after:] if r.names]
    assert proxy.stat("http.main.on_demand.rq_fetch") == 1


@pytest.mark.parametrize("answer", ["no body", "removed"])
def test_unknown_host(sluice, ads, answer):
    """404, and the next request asks again."""
    serve(ads)
    proxy = started(sluice, ads)
    for _ in range(2):
        after = len(ads.requests)
        with Client(proxy.port()) as client:
            asked(client, ads, "no.host", after)
            if answer == "removed":
                respond(ads, removed=["r/no.host"])
            else:
                respond(ads, ("r/no.host", ["r/no.host"], None))
            assert client.read().status == 404
        ads.wait(lambda r: r.type_url == VIRTUAL_HOST and "r/no.host" in r.resource_names_unsubscribe, after)


def test_without_the_filter_nobody_waits(sluice, ads):
    serve(ads, filters=())
    proxy = started(sluice, ads, ("r/a", [], host("a", 201)))
    assert (get(proxy, "a"), get(proxy, "b")) == (201, 404)


def test_removal(sluice, ads):
    serve(ads)
    proxy = started(sluice, ads, ("r/a", [], host("a", 201)), ("r/b", [], host("b", 202)))
    respond(ads, removed=["r/a"])
    with Client(proxy.port()) as client:
        asked(client, ads, "a")
        respond(ads, ("r/a", [], host("a", 204)))
        assert client.read().status == 204
    assert get(proxy, "b") == 202


def test_bad_host_leaves_others_alone(sluice, ads):
    serve(ads, hosts=[host("base")])
    proxy = started(sluice, ads, ("r/a", [], host("a", 201)))
    reply = respond(ads, ("r/a", [], host("a", 205)), ("r/x", [], {"name": "x", "domains": []}),
                    ("r/y", [], host("y", 200, ["base"])), ("r/z", [], host("z", 206)))
    assert reply.is_nack
    text = reply.error_detail.message
    assert "r/x: " in text and "domains: value must contain at least 1 item(s)" in text
    assert "r/y: Only unique values for domains are permitted. Duplicate entry of domain base in route r" in text
    wait_until(lambda: (get(proxy, "a"), get(proxy, "z"), get(proxy, "base")) == (205, 206, 200), "the good ones")


def test_route_configuration_changes_around_its_hosts(sluice, ads):
    serve(ads, hosts=[host("base")])
    proxy = started(sluice, ads, ("r/a", [], host("a", 201)))
    ads.set(ROUTE, "r2", [{"name": "r", "virtual_hosts": [host("other", 207)], "vhds": {"config_source": ADS}}])
    wait_until(lambda: get(proxy, "other") == 207, "the new configuration")
    assert get(proxy, "a") == 201
    after = len(ads.requests)
    ads.set(ROUTE, "r3", [{"name": "r", "virtual_hosts": [host("other", 208)]}])
    wait_until(lambda: (get(proxy, "other"), get(proxy, "a")) == (208, 404), "hosts to go")
    ads.wait(lambda r: r.type_url == VIRTUAL_HOST and "r" in r.resource_names_unsubscribe, after)


def test_reconnect_tells_what_is_there(sluice, ads):
    serve(ads)
    proxy = started(sluice, ads, ("r/a", [], host("a", 201)))
    after = len(ads.requests)
    ads.end_streams()
    request = ads.wait(lambda r: r.type_url == VIRTUAL_HOST and "r" in r.names, after)
    assert list(request.initial_resource_versions) == ["r/a"]
    respond(ads, removed=["r/a"])
    respond(ads, ("r/b", [], host("b", 202)))
    wait_until(lambda: get(proxy, "b") == 202, "the new host")


def test_stream_of_its_own(sluice, ads):
    serve(ads, {"api_config_source": api_source("DELTA_GRPC"), "resource_api_version": "V3"})
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"), ready=False)
    request = ads.wait(lambda r: r.type_url == VIRTUAL_HOST)
    assert request.stream.method == "DeltaVirtualHosts" and request.names == ["r"]
    respond(ads, ("r/a", [], host("a", 201)), stream=request.stream.number)
    wait_until(lambda: proxy.listeners(), "the listener")
    assert get(proxy, "a") == 201


def test_refused_by_sotw_ads(sluice, ads):
    serve(ads)
    sluice(ads_bootstrap(ads, "GRPC"), ready=False)
    assert "vhds: only 'DELTA_GRPC' is supported as an api_type." in ads.wait_nack(ROUTE).error_detail.message


def test_one_answer_for_the_routes_that_come_and_those_they_replace(sluice, ads):
    """The first half of it makes the new listener ready, which ends the routes that the second half is about."""
    serve(ads, hosts=[host("base")])
    proxy = started(sluice, ads, ("r/a", [], host("a", 201)))
    ads.set(ROUTE, "r2", [{"name": name, "virtual_hosts": [host("base", status)], "vhds": {"config_source": ADS}}
                          for name, status in (("r", 200), ("new", 203))])
    ads.set(LISTENER, "l2", [rds_listener(route_name="new")])
    ads.wait(lambda r: r.type_url == VIRTUAL_HOST and "new" in r.names)
    assert not respond(ads, ("new/a", [], host("a", 204)), ("r/a", [], host("a", 202)), ("r/b", [], host("b", 202))).is_nack
    wait_until(lambda: (get(proxy, "base"), get(proxy, "a")) == (203, 204), "the new routes")
    proxy.expect_running()
