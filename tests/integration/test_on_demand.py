"""The on_demand filter: clusters (ODCDS) and routes of scopes fetched while requests wait."""

import threading

import pytest

from support import config
from support.ads_server import CLUSTER, LISTENER, ROUTE, SCOPED_ROUTE
from support.process import wait_until
from support.rawhttp import Client, chunks, fetch
from support.xds_config import ADS, ads_bootstrap, api_source, scope, scoped_listener, xds_cluster

both = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
FILTER = "envoy.filters.http.on_demand"
MESSAGES = "envoy.extensions.filters.http.on_demand.v3."


def on_demand(**fields):
    return config.typed(FILTER, MESSAGES + "OnDemand", **fields)


def odcds(source=ADS, **fields):
    return on_demand(odcds={"source": source, **fields})


def by_header(**fields):
    return {"match": {"prefix": "/"}, "route": {"cluster_header": "x-cluster"}, **fields}


def own_source(kind="DELTA_GRPC"):
    return {"api_config_source": api_source(kind), "resource_api_version": "V3"}


def start(sluice, ads, *filters, routes=None, kind="DELTA_GRPC", clusters=(), own=False, **options):
    """A static listener whose routes lead to clusters that nobody knows."""
    log = config.file_log("/dev/stdout", "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")
    listener = config.listener(config.hcm(routes or [by_header()], filters=list(filters), access_log=[log]))
    if own:
        return sluice(config.bootstrap([listener], [xds_cluster(ads), *clusters]), **options)
    bootstrap = ads_bootstrap(ads, kind)
    bootstrap["static_resources"]["listeners"] = [listener]
    bootstrap["static_resources"]["clusters"] += clusters
    del bootstrap["dynamic_resources"]["lds_config"]
    return sluice(bootstrap, **options)


def get(proxy, cluster="new", **more):
    return fetch(proxy.port(), headers=[("x-cluster", cluster)], **more)


# ---- clusters ----

@pytest.mark.parametrize("own, kind", [(True, "DELTA_GRPC"), (True, "GRPC"), (False, "DELTA_GRPC"), (False, "GRPC")])
def test_cluster_by_header(sluice, ads, upstream, own, kind):
    ads.set(CLUSTER, "c1", [] if not own else [config.cluster("new", upstream.port)])
    proxy = start(sluice, ads, odcds(own_source(kind) if own else ADS, timeout="60s"), kind=kind, own=own)
    before = len(ads.requests)
    if not own:
        threading.Timer(0, lambda: (ads.wait(lambda r: r.type_url == CLUSTER and "new" in r.names, before),
                                    ads.set(CLUSTER, "c2", [config.cluster("new", upstream.port)]))).start()
    assert get(proxy).status == 200
    asked = ads.wait(lambda r: r.type_url == CLUSTER and "new" in r.names)
    assert asked.names == ["new"] or not own and sorted(asked.names) in (["*", "new"], ["new"])
    assert proxy.stat("http.ingress.on_demand.rq_fetch") == 1
    assert proxy.stat("cluster_manager.odcds.update_success") == 1
    ads.wait_ack(CLUSTER, "c1" if own else "c2")
    after = len(ads.requests)
    assert get(proxy).status == 200  # known by now
    assert not [r for r in ads.requests[after:] if "new" in r.names]


def test_body_passes(sluice, ads, upstream):
    ads.set(CLUSTER, "c1", [config.cluster("new", upstream.port)])
    ads.hold(CLUSTER)
    proxy = start(sluice, ads, odcds(own_source()), own=True)
    with Client(proxy.port()) as client:
        client.send("POST / HTTP/1.1\r\nhost: a\r\nx-cluster: new\r\ntransfer-encoding: chunked\r\n\r\n")
        client.send(b"3\r\nabc\r\n")
        ads.wait(lambda r: "new" in r.names)
        client.send(chunks(b"def", trailers=[(b"t", b"1")]))
        ads.release(CLUSTER)
        assert client.read().status == 200
    assert upstream.requests[-1].body == b"abcdef"


def test_one_question_for_many_requests(sluice, ads, upstream):
    ads.set(CLUSTER, "c1", [config.cluster("new", upstream.port)])
    ads.hold(CLUSTER)
    proxy = start(sluice, ads, odcds(own_source()), own=True, concurrency=2)
    clients = [Client(proxy.port()) for _ in range(20)]
    for client in clients:
        client.send("GET / HTTP/1.1\r\nhost: a\r\nx-cluster: new\r\n\r\n")
    proxy.wait_stat("http.ingress.on_demand.rq_fetch", 20)
    ads.release(CLUSTER)
    assert [client.read().status for client in clients] == [200] * 20
    assert len([r for r in ads.requests if "new" in r.names]) == 1
    for client in clients:
        client.close()


def test_unknown_cluster(sluice, ads):
    """The server says that there is none; the next request asks again."""
    ads.set(CLUSTER, "c1", [])
    proxy = start(sluice, ads, odcds(own_source(), timeout="60s"), own=True)
    from envoy.service.discovery.v3 import discovery_pb2
    for turn in range(2):
        before = len(ads.requests)
        with Client(proxy.port()) as client:
            client.send("GET / HTTP/1.1\r\nhost: a\r\nx-cluster: new\r\n\r\n")
            ads.wait(lambda r: "new" in r.names, before)
            ads.send(discovery_pb2.DeltaDiscoveryResponse(type_url=CLUSTER, nonce=f"x{turn}", removed_resources=["new"]))
            answer = client.read()
        assert answer.status == 503
        ads.wait(lambda r: "new" in r.resource_names_unsubscribe, before)
    wait_until(lambda: "503 NC cluster_not_found" in proxy.log(), "the log line")


def test_timeout(sluice, ads):
    ads.hold(CLUSTER)
    proxy = start(sluice, ads, odcds(own_source(), timeout="0.05s"), own=True)
    assert get(proxy).status == 503
    assert proxy.stat("http.ingress.on_demand.rq_fetch_timeout") == 1
    assert proxy.stat("http.ingress.no_cluster") == 1


def test_client_leaves(sluice, ads, upstream):
    ads.set(CLUSTER, "c1", [config.cluster("new", upstream.port)])
    ads.hold(CLUSTER)
    proxy = start(sluice, ads, odcds(own_source()), own=True)
    with Client(proxy.port()) as client:
        client.send("GET / HTTP/1.1\r\nhost: a\r\nx-cluster: new\r\n\r\n")
        ads.wait(lambda r: "new" in r.names)
    proxy.wait_stat("http.ingress.downstream_rq_active", 0)
    ads.release(CLUSTER)
    assert get(proxy).status == 200


def test_removed_cluster_is_asked_for_anew(sluice, ads, upstream):
    ads.set(CLUSTER, "c1", [config.cluster("new", upstream.port)])
    proxy = start(sluice, ads, odcds(own_source()), own=True)
    assert get(proxy).status == 200
    ads.update(CLUSTER, "c2", removed=["new"])
    proxy.wait_stat("cluster_manager.active_clusters", 1)
    before = len(ads.requests)
    ads.update(CLUSTER, "c3", changed=[config.cluster("new", upstream.port)], push=False)
    assert get(proxy).status == 200
    assert ads.wait(lambda r: "new" in r.names, before)


def test_per_route(sluice, ads, upstream):
    ads.set(CLUSTER, "c1", [config.cluster("new", upstream.port)])
    per_route = {"@type": config.TYPE + MESSAGES + "PerRouteConfig"}
    routes = [{"match": {"path": "/on"}, "route": {"cluster_header": "x-cluster"},
               "typed_per_filter_config": {FILTER: {**per_route, "odcds": {"source": own_source()}}}},
              {"match": {"path": "/off"}, "route": {"cluster_header": "x-cluster"},
               "typed_per_filter_config": {FILTER: per_route}}]
    for filter_ in (on_demand(), odcds(own_source())):
        proxy = start(sluice, ads, filter_, routes=routes, own=True)
        assert get(proxy, path="/off").status == 503
        assert get(proxy, path="/on").status == 200


def test_too_many_wait(sluice, ads):
    ads.hold(CLUSTER)
    proxy = start(sluice, ads, odcds(own_source(), timeout="600s"), own=True)
    assert get(proxy, "x" * 1025).status == 503
    assert proxy.stat("http.ingress.on_demand.rq_overflow") == 1
    wait_until(lambda: "503 UO on_demand_overflow" in proxy.log(), "the log line")


# ---- scopes ----

@both
def test_routes_of_a_scope(sluice, ads, kind):
    ads.set(CLUSTER, "c1", [])
    ads.set(LISTENER, "l1", [scoped_listener("ingress", filters=[on_demand()])])
    ads.set(ROUTE, "r1", [{"name": "r", "virtual_hosts": [config.vhost([config.direct("/", 202)])]}])
    ads.set(SCOPED_ROUTE, "s1", [scope("a", "1", "r", on_demand=True)])
    proxy = sluice(ads_bootstrap(ads, kind))
    assert not ads.of(ROUTE)
    assert fetch(proxy.port(), headers=[("x-scope", "2")]).status == 404
    assert not ads.of(ROUTE)
    assert fetch(proxy.port(), headers=[("x-scope", "1")]).status == 202
    assert ads.of(ROUTE)[0].names == ["r"]
    assert proxy.stat("http.ingress.scoped_rds.s.active_scopes") == 1
    assert fetch(proxy.port(), headers=[("x-scope", "1")]).status == 202
    assert proxy.stat("http.ingress.on_demand.rq_fetch") == 1
