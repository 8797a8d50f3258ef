"""Load reporting (LRS): what a server asks for, and that the counts it gets are those of the traffic."""
import time

import pytest
from support import rawhttp
from support.ads_server import CLUSTER, AdsServer
from support.config import bootstrap, cluster, endpoint, hcm, http2, listener, route
from support.lrs_server import LrsServer
from support.proxy import Sluice
from support.upstream import Reply

FAST = "0.100s"


def lrs_bootstrap(lrs, *clusters, routes=None, **fields):
    return bootstrap(
        [listener(hcm(routes or [route()]))],
        [*clusters, cluster("lrs", lrs.port, typed_extension_protocol_options=http2())],
        cluster_manager={"load_stats_config": {"api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [
            {"envoy_grpc": {"cluster_name": "lrs"},
             "initial_metadata": [{"key": "x-who", "value": "me"}]}]}, **fields.pop("cluster_manager", {})}, **fields)


def ads_bootstrap(lrs, ads):
    """Clusters come by ADS."""
    listen = listener(hcm([route()], route_fields={"validate_clusters": False}))
    config = lrs_bootstrap(lrs, cluster("xds", ads.port, typed_extension_protocol_options=http2()),
                           dynamic_resources={"ads_config": {
                               "api_type": "GRPC", "transport_api_version": "V3",
                               "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
                               "cds_config": {"ads": {}, "resource_api_version": "V3"}})
    config["static_resources"]["listeners"] = [listen]
    return config


@pytest.fixture
def lrs():
    with LrsServer(clusters=["up"], load_reporting_interval=FAST) as server:
        yield server


def localities(report, name="up"):
    return [loc for c in report.cluster_stats if c.cluster_name == name for loc in c.upstream_locality_stats]


def test_the_first_message_tells_the_node(sluice, lrs, upstream):
    proxy = sluice(lrs_bootstrap(lrs, cluster("up", upstream.port)))
    lrs.wait(lambda: lrs.requests)
    first = lrs.requests[0][1]
    assert first.node.id == "test-node" and not first.cluster_stats
    assert "envoy.lrs.supports_send_all_clusters" in first.node.client_features
    report = lrs.wait_reports(1)[0]
    assert [c.cluster_name for c in report.cluster_stats] == ["up"]
    assert not report.cluster_stats[0].upstream_locality_stats  # idle
    assert report.cluster_stats[0].load_report_interval.ToTimedelta().total_seconds() >= 0.1
    assert proxy.stat("load_reporter.requests") == 1  # the server's
    assert proxy.stat("load_reporter.responses") >= 2  # ours


def test_counts_are_those_of_the_traffic(sluice, lrs, upstream):
    proxy = sluice(lrs_bootstrap(lrs, cluster("up", upstream.port)))
    lrs.wait_reports(1)
    upstream.script(Reply(), Reply(), Reply(status=500), Reply())
    for _ in range(5):
        rawhttp.fetch(proxy.port())
    lrs.wait(lambda: lrs.total("up", "total_issued_requests") == 5, "all requests")
    lrs.wait(lambda: lrs.total("up") + lrs.total("up", "total_error_requests") == 5, "all answers")
    assert lrs.total("up") == 4 and lrs.total("up", "total_error_requests") == 1
    before = len(lrs.requests)
    idle = lrs.wait_reports(2, before)[-1]
    assert not localities(idle)  # nothing is told twice


def test_requests_in_progress(sluice, lrs, upstream):
    upstream.script(Reply(silent=True))
    proxy = sluice(lrs_bootstrap(lrs, cluster("up", upstream.port)))
    lrs.wait_reports(1)
    with rawhttp.Client(proxy.port()) as client:
        client.send(rawhttp.encode("GET", "/"))
        lrs.wait(lambda: any(loc.total_requests_in_progress == 1 for loc in localities(lrs.reports()[-1])))
        before = len(lrs.requests)
        again = localities(lrs.wait_reports(2, before)[-1])[0]
        assert again.total_requests_in_progress == 1 and again.total_issued_requests == 0


def test_localities_priorities_and_endpoints(sluice, upstreams):
    a, b = upstreams(), upstreams()
    up = cluster("up", load_assignment={"cluster_name": "up", "endpoints": [
        {"locality": {"region": "r", "zone": z}, "priority": 0, "load_balancing_weight": 1,
         "lb_endpoints": [endpoint(s.port)]} for z, s in (("za", a), ("zb", b))]})
    with LrsServer(clusters=["up"], load_reporting_interval=FAST, report_endpoint_granularity=True) as lrs:
        proxy = sluice(lrs_bootstrap(lrs, up))
        lrs.wait_reports(1)
        for _ in range(10):
            rawhttp.fetch(proxy.port())
        lrs.wait(lambda: lrs.total("up") == 10)
        seen = {}
        for report in lrs.reports():
            for loc in localities(report):
                assert loc.locality.region == "r" and loc.priority == 0
                for e in loc.upstream_endpoint_stats:
                    key = (loc.locality.zone, e.address.socket_address.port_value)
                    seen[key] = seen.get(key, 0) + e.total_successful_requests
        assert set(seen) == {("za", a.port), ("zb", b.port)}
        assert sum(seen.values()) == 10


def test_no_endpoint_stats_unless_asked(sluice, lrs, upstream):
    proxy = sluice(lrs_bootstrap(lrs, cluster("up", upstream.port)))
    lrs.wait_reports(1)
    rawhttp.fetch(proxy.port())
    lrs.wait(lambda: lrs.total("up") == 1)
    assert not any(loc.upstream_endpoint_stats for r in lrs.reports() for loc in localities(r))


def test_only_what_is_asked_for(sluice, upstream):
    routes = [route("/other", cluster="other"), route()]
    clusters = [cluster("up", upstream.port), cluster("other", upstream.port)]
    with LrsServer(clusters=["other", "unknown"], load_reporting_interval=FAST) as lrs:
        proxy = sluice(lrs_bootstrap(lrs, *clusters, routes=routes))
        lrs.wait_reports(1)
        rawhttp.fetch(proxy.port())
        rawhttp.fetch(proxy.port(), "/other")
        lrs.wait(lambda: lrs.total("other") == 1)
        assert {c.cluster_name for r in lrs.reports() for c in r.cluster_stats} == {"other"}
        # Asked for only now: what was before is of no interest.
        before = len(lrs.requests)
        lrs.send(clusters=["up", "other"], load_reporting_interval=FAST)
        lrs.wait(lambda: any(c.cluster_name == "up" for r in lrs.reports(before) for c in r.cluster_stats))
        rawhttp.fetch(proxy.port())
        lrs.wait(lambda: lrs.total("up", after=before) == 1)
        assert lrs.total("other") == 1


def test_all_clusters(sluice, upstream):
    with LrsServer(send_all_clusters=True, load_reporting_interval=FAST) as lrs:
        many = [cluster(f"c{i}", upstream.port) for i in range(600)]  # more than one event's share
        sluice(lrs_bootstrap(lrs, cluster("up", upstream.port), *many))
        report = lrs.wait_reports(1)[0]
        names = [c.cluster_name for c in report.cluster_stats]
        assert len(names) == 602 and len(set(names)) == 602


def test_dropped_requests(sluice, upstream):
    assignment = {"cluster_name": "up", "endpoints": [{"lb_endpoints": [endpoint(upstream.port)]}],
                  "policy": {"drop_overloads": [{"category": "throttle", "drop_percentage": {"numerator": 100}}]}}
    full = cluster("full", upstream.port, circuit_breakers={"thresholds": [{"max_requests": 0, "max_pending_requests": 0}]})
    with LrsServer(clusters=["up", "full"], load_reporting_interval=FAST) as lrs:
        proxy = sluice(lrs_bootstrap(lrs, cluster("up", load_assignment=assignment), full,
                                     routes=[route("/full", cluster="full"), route()]))
        lrs.wait_reports(1)
        for _ in range(3):
            assert rawhttp.fetch(proxy.port()).status == 503
        assert rawhttp.fetch(proxy.port(), "/full").status == 503

        def dropped(name):
            return sum(c.total_dropped_requests for r in lrs.reports() for c in r.cluster_stats if c.cluster_name == name)

        def by_category():
            return [(d.category, d.dropped_count) for r in lrs.reports() for c in r.cluster_stats for d in c.dropped_requests]
        lrs.wait(lambda: sum(n for _, n in by_category()) == 3 and dropped("full") == 1)
        assert {name for name, _ in by_category()} == {"throttle"}
        assert dropped("up") == 0


def test_reconnects_and_loses_no_count(sluice, lrs, upstream):
    proxy = sluice(lrs_bootstrap(lrs, cluster("up", upstream.port)))
    lrs.wait_reports(1)
    lrs.kill()
    proxy.wait_stat("load_reporter.retries", lambda n: n >= 1)
    rawhttp.fetch(proxy.port())
    lrs.start()
    lrs.wait(lambda: lrs.total("up") == 1)
    assert lrs.requests[-1][0] > 1
    assert proxy.stat("load_reporter.retries") >= 1


def test_a_changed_interval_and_a_removed_cluster(sluice, upstream):
    with LrsServer(clusters=["up"], load_reporting_interval="3600s") as lrs, AdsServer() as ads:
        ads.set(CLUSTER, "1", [cluster("up", upstream.port)])
        proxy = sluice(ads_bootstrap(lrs, ads))
        proxy.wait_stat("load_reporter.requests", 1)
        rawhttp.fetch(proxy.port())
        lrs.send(clusters=["up"], load_reporting_interval=FAST)
        lrs.wait(lambda: lrs.total("up") == 1)
        before = len(lrs.requests)
        ads.set(CLUSTER, "2", [])
        proxy.wait_stat("cluster_manager.cluster_removed", 1)
        lrs.wait(lambda: len(lrs.requests) > before + 1 and not lrs.requests[-1][1].cluster_stats)
        ads.set(CLUSTER, "3", [cluster("up", upstream.port)])
        lrs.wait(lambda: lrs.requests[-1][1].cluster_stats)


def test_a_host_that_leaves_is_reported_to_the_end(sluice, lrs, upstreams):
    old, new = upstreams(), upstreams()
    old.script(Reply(silent=True))
    with AdsServer() as ads:
        ads.set(CLUSTER, "1", [cluster("up", old.port)])
        proxy = sluice(ads_bootstrap(lrs, ads))
        lrs.wait_reports(1)
        with rawhttp.Client(proxy.port()) as client:
            client.send(rawhttp.encode("GET", "/"))
            lrs.wait(lambda: lrs.total("up", "total_issued_requests") == 1)
            ads.set(CLUSTER, "2", [cluster("up", new.port)])
            proxy.wait_stat("cluster_manager.cluster_modified", 1)
            before = len(lrs.requests)
            lrs.wait_reports(2, before)
            assert localities(lrs.reports()[-1])[0].total_requests_in_progress == 1
        lrs.wait(lambda: not localities(lrs.reports()[-1]))


def google(server):
    return {"google_grpc": {"target_uri": f"127.0.0.1:{server.port}", "stat_prefix": "loads"}}


def test_google_grpc(sluice, lrs, upstream):
    made = lrs_bootstrap(lrs, cluster("up", upstream.port))
    made["cluster_manager"]["load_stats_config"]["grpc_services"] = [google(lrs)]
    sluice(made)
    assert "up" in [c.cluster_name for c in lrs.wait_reports(1)[0].cluster_stats]


@pytest.mark.parametrize("service", [lambda _: {"envoy_grpc": {"cluster_name": "xds"}}, google])
def test_clusters_that_report_to_the_server_they_came_from(sluice, upstream, service):
    with LrsServer(send_all_clusters=True, load_reporting_interval=FAST) as server:
        sluice(bootstrap([], [cluster("xds", server.port, typed_extension_protocol_options=http2()),
                              cluster("up", upstream.port, lrs_server={"self": {}})],
                         dynamic_resources={"ads_config": {
                             "api_type": "GRPC", "transport_api_version": "V3", "grpc_services": [service(server)]}}))
        report = server.wait_reports(1)[0]
        assert [c.cluster_name for c in report.cluster_stats] == ["up"]


@pytest.mark.parametrize(("config", "told"), [
    ({"api_type": "DELTA_GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "lrs"}}]}, "only GRPC is supported"),
    ({"api_type": "GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "gone"}}]}, "unknown cluster 'gone'"),
    ({"api_type": "GRPC"}, "exactly one service is expected"),
])
def test_bad_configs_are_refused(tmp_path, lrs, config, told):
    bad = lrs_bootstrap(lrs, cluster("up", 1))
    bad["cluster_manager"]["load_stats_config"] = config
    proxy = Sluice(tmp_path, bad)
    proxy.launch(proxy.command())
    assert proxy.wait_exit() == 1
    assert told in proxy.log() and "cluster_manager.load_stats_config" in proxy.log()


def test_hostile_answers(sluice, lrs, upstream):
    proxy = sluice(lrs_bootstrap(lrs, cluster("up", upstream.port)))
    lrs.wait_reports(1)
    lrs.send(clusters=["x" * 65536, *[f"c{i}" for i in range(20000)]], load_reporting_interval="-5s")
    before = len(lrs.requests)
    lrs.wait(lambda: len(lrs.requests) > before + 2)
    begin = time.monotonic()
    before = len(lrs.requests)
    lrs.wait(lambda: len(lrs.requests) > before + 2)
    assert time.monotonic() - begin > 0.15  # an absurd interval is not taken at its word
    assert rawhttp.fetch(proxy.port()).status == 200
