"""stats_sinks: statsd and DogStatsD over UDP, by interval and when admin asks."""

import json
import subprocess

import pytest
from support.config import TYPE, bootstrap, direct, hcm, listener
from support.proxy import Sluice
from support.rawhttp import fetch
from support.statsd import Statsd

INTERVAL = {"stats_flush_interval": "0.1s"}


@pytest.fixture
def collector():
    with Statsd() as statsd:
        yield statsd


def served(*sinks, **fields):
    return bootstrap([listener(hcm([direct("/", 200)]))], stats_sinks=list(sinks), **(fields or INTERVAL))


@pytest.mark.smoke
def test_statsd(sluice, collector):
    proxy = sluice(served(collector.sink()), concurrency=2)
    for n in (3, 2):
        for _ in range(n):
            assert fetch(proxy.port(), "/").status == 200
        want = collector.counted("envoy.http.ingress.downstream_rq_2xx") + n
        collector.wait(lambda _, want=want: collector.counted("envoy.http.ingress.downstream_rq_2xx") >= want)
    lines = collector.wait(lambda seen: seen.count("envoy.http.ingress.downstream_rq_2xx:0|c") > 0)
    assert collector.counted("envoy.http.ingress.downstream_rq_2xx") == 5
    assert "envoy.server.live:1|g" in lines and any(line.startswith("envoy.http.ingress.downstream_rq_time:") for line in lines)
    assert all(d.count(b"\n") == 0 for d in collector.datagrams)
    assert not [line for line in lines if "ingress.downstream_rq_5xx" in line]
    assert proxy.stat("stats_sinks.datagrams_sent") > 0 and proxy.stat("stats_sinks.datagrams_dropped") == 0


def test_dog_statsd(sluice, collector):
    proxy = sluice(served(collector.sink("DogStatsd", prefix="p", max_bytes_per_datagram=400)))
    assert fetch(proxy.port(), "/").status == 200
    want = "p.http.downstream_rq_xx:1|c|#envoy.response_code_class:2,envoy.http_conn_manager_prefix:ingress"
    lines = collector.wait(lambda seen: any(line.startswith("p.http.downstream_rq_xx:1|c|#") and "ingress" in line for line in seen))
    assert set(next(line for line in lines if line.startswith("p.http.downstream_rq_xx:1") and "ingress" in line).split("#")[1].split(",")) \
        == set(want.split("#")[1].split(","))
    assert max(map(len, collector.datagrams)) <= 400 and any(b"\n" in d for d in collector.datagrams)


def test_two_sinks_are_told_the_same(sluice, collector):
    with Statsd() as other:
        proxy = sluice(served(collector.sink(), other.sink(prefix="b")))
        assert fetch(proxy.port(), "/").status == 200
        collector.wait(lambda _: collector.counted("envoy.http.ingress.downstream_rq_2xx") == 1)
        other.wait(lambda _: other.counted("b.http.ingress.downstream_rq_2xx") == 1)


def test_flush_on_admin(sluice, collector):
    """Nothing leaves before admin is asked for stats."""
    proxy = sluice(served(collector.sink(), stats_flush_on_admin=True))
    assert fetch(proxy.port(), "/").status == 200
    collector.wait_quiet()  # what learning of ports asked for
    assert not collector.counted("envoy.http.ingress.downstream_rq_2xx")
    proxy.admin("/stats?filter=nothing")
    collector.wait(lambda _: collector.counted("envoy.http.ingress.downstream_rq_2xx") == 1)


def test_nobody_listens(sluice):
    with Statsd() as gone:
        sink = gone.sink()
    proxy = sluice(served(sink))
    proxy.wait_stat("stats_sinks.datagrams_dropped", lambda n: n > 0)
    assert fetch(proxy.port(), "/").status == 200


@pytest.mark.parametrize("change,why", [
    ({"tcp_cluster_name": "c"}, "stats_sinks[0].typed_config: tcp_cluster_name is not supported: use address"),
    ({"address": {"socket_address": {"address": "localhost", "port_value": 1}}}, "stats_sinks[0].typed_config.address: malformed IP address"),
    ({}, "statsd_specifier"),
])
def test_refused(tmp_path, change, why):
    sink = {"name": "s", "typed_config": {"@type": f"{TYPE}envoy.config.metrics.v3.StatsdSink", **change}}
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(served(sink)))
    said = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
    assert said.returncode == 1 and why in said.stderr


def test_other_sinks_are_told_of(sluice):
    sink = {"name": "envoy.stat_sinks.metrics_service", "typed_config": {
        "@type": f"{TYPE}envoy.config.metrics.v3.MetricsServiceConfig", "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "none"}}}}
    proxy = sluice(served(sink))
    assert "stats sink 'envoy.stat_sinks.metrics_service' (envoy.config.metrics.v3.MetricsServiceConfig) has no effect here" in proxy.log()
