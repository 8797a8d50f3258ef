"""Tracing on live listeners: batches, collectors that are absent, hang or refuse, configuration that changes under way."""

import json
import subprocess
import threading

import pytest

from support.collector import GrpcCollector, HttpCollector, otlp_request_spans
from support.config import TYPE, bootstrap, cluster, file_log, hcm, http2, listener, route, typed
from support.proxy import Sluice
from support.rawhttp import Client, fetch
from support.upstream import Reply

ZIPKIN, OTEL = "envoy.config.trace.v3.ZipkinConfig", "envoy.config.trace.v3.OpenTelemetryConfig"


def zipkin(**fields):
    return typed("envoy.tracers.zipkin", ZIPKIN, **{"collector_cluster": "collector", "collector_endpoint": "/api/v2/spans",
                                                    "collector_endpoint_version": "HTTP_JSON", **fields})


def otel(**fields):
    return typed("envoy.tracers.opentelemetry", OTEL,
                 **({} if "http_service" in fields else {"grpc_service": {"envoy_grpc": {"cluster_name": "collector"}, "timeout": "1s"}}), **fields)


def otel_http(**fields):
    return otel(http_service={"http_uri": {"uri": "http://h.com/v1/traces", "cluster": "collector", "timeout": "1s"}}, **fields)


def runtime(**values):
    """min_flush_spans=1: of either tracer."""
    keys = {f"tracing.{tracer}.{key}": value for tracer in ("zipkin", "opentelemetry") for key, value in values.items()}
    return {"layered_runtime": {"layers": [{"name": "static", "static_layer": keys}, {"name": "admin", "admin_layer": {}}]}}


class Traced:
    def __init__(self, proxy, collector, upstream):
        self.proxy, self.collector, self.upstream = proxy, collector, upstream

    def get(self, path="/", headers=(), count=1):
        with Client(self.proxy.port()) as client:
            return [client.request("GET", path, headers) for _ in range(count)][-1]

    def stat(self, name):
        return self.proxy.stat(name) or 0


@pytest.fixture
def traced(sluice, upstream, upstreams):
    """traced(provider, collector=…, tracing fields) -> Traced"""
    def start(provider, collector=None, now=True, options=None, port=None, hcm_fields=None, **tracing):
        collector = collector or upstreams(HttpCollector)
        fields = {"provider": provider, **tracing} if provider else tracing
        values = {"min_flush_spans": 1} if now else {"flush_interval_ms": 50}
        clusters = [cluster("up", upstream.port), cluster("collector", port or collector.port, **(options or {}))]
        return Traced(sluice(bootstrap([listener(hcm(tracing=fields, **(hcm_fields or {})))], clusters, **runtime(**values))), collector, upstream)
    return start


@pytest.fixture
def grpc_collector():
    server = GrpcCollector()
    yield server
    server.stop()


@pytest.mark.smoke
def test_zipkin(traced):
    t = traced(zipkin(), custom_tags=[{"tag": "istio.mesh_id", "literal": {"value": "mesh"}}])
    assert t.get("/a?b=c").status == 200
    [span] = t.collector.wait_spans(1)
    assert span["tags"]["http.url"] == "http://test/a?b=c" and span["tags"]["istio.mesh_id"] == "mesh"
    request = t.upstream.requests[0]
    assert request.get("x-b3-traceid") == span["traceId"] and request.get("x-b3-sampled") == "1"
    assert t.collector.requests[0].target == "/api/v2/spans" and t.collector.requests[0].get("host") == "collector"
    t.proxy.wait_stat("tracing.zipkin.reports_sent", 1)
    t.proxy.wait_stat("http.ingress.tracing.random_sampling", 1)


@pytest.mark.smoke
def test_opentelemetry_by_grpc(traced, grpc_collector):
    t = traced(otel(service_name="svc"), grpc_collector, options={"typed_extension_protocol_options": http2()}, spawn_upstream_span=True)
    assert t.get().status == 200
    spans = {s["kind"]: s for s in t.collector.wait_spans(2)}
    server, client = spans["SPAN_KIND_SERVER"], spans["SPAN_KIND_CLIENT"]
    assert client["parentSpanId"] == server["spanId"] and client["traceId"] == server["traceId"]
    assert server["resource"]["service.name"] == {"stringValue": "svc"}
    assert len(t.upstream.requests[0].get("traceparent")) == 55
    metadata, _ = t.collector.requests[0]
    assert metadata["user-agent"].startswith("OTel-OTLP-Exporter")


def test_opentelemetry_by_http(traced, upstreams):
    t = traced(otel_http(), upstreams(HttpCollector, otlp_request_spans, 200))
    t.get(headers=[("user-agent", "\xff\xfe")])
    [span] = t.collector.wait_spans(1)
    assert span["tags"]["user_agent"]["stringValue"] == "\ufffd\ufffd"
    assert t.collector.requests[0].target == "/v1/traces" and t.collector.requests[0].get("host") == "h.com"


def test_bytes_that_are_no_text(traced):
    """In a tag, in the span's name, in an id."""
    t = traced(zipkin(), operation="%REQ(x-h)%", custom_tags=[{"tag": "h", "request_header": {"name": "x-h"}}])
    t.get(headers=[("x-h", "\xff\"\\"), ("x-request-id", "\xff" * 36)])
    assert not t.collector.spans  # such an id traces nothing
    t.get(headers=[("x-h", "\xff\"\\")])
    [span] = t.collector.wait_spans(1)
    assert span["name"] == span["tags"]["h"] == '\ufffd"\\'


def test_batches(traced):
    """Five spans at once, the rest by the timer."""
    t = traced(zipkin(), now=False)
    t.get(count=12)
    t.collector.wait_spans(12)
    assert len(t.collector.requests) <= 4
    assert t.stat("tracing.zipkin.spans_sent") == 12 and t.stat("tracing.zipkin.timer_flushed") >= 1


@pytest.mark.parametrize("tracer", ["zipkin", "opentelemetry"])
def test_absent_collector(traced, tracer):
    t = traced(zipkin() if tracer == "zipkin" else otel_http(), port=1)
    assert t.get(count=20).status == 200
    t.proxy.wait_stat(f"tracing.{tracer}.spans_sent", 20)
    if tracer == "zipkin":
        t.proxy.wait_stat("tracing.zipkin.reports_failed", lambda n: n > 0)


def test_unknown_collector(sluice, upstream):
    """Zipkin's must be there when the listener comes; OTLP's may be missing."""
    proxy = sluice(bootstrap([listener(hcm(tracing={"provider": otel_http()}))], [cluster("up", upstream.port)], **runtime(min_flush_spans=1)))
    assert fetch(proxy.port()).status == 200
    proxy.wait_stat("tracing.opentelemetry.spans_sent", 1)


def test_refusing_collector(traced):
    t = traced(zipkin())
    t.collector.script(Reply(500))
    t.get(count=3)
    t.proxy.wait_stat("tracing.zipkin.reports_dropped", lambda n: n > 0)
    assert t.stat("tracing.zipkin.reports_sent") == 0


def test_hanging_collector(traced):
    """Requests go on; what waits is bounded, the rest is counted; later it is sent."""
    t = traced(otel_http(max_cache_size=10))
    gate = threading.Event()
    t.collector.decode = otlp_request_spans
    t.collector.script(Reply(200, gate=gate))
    assert t.get(count=40).status == 200
    t.proxy.wait_stat("tracing.opentelemetry.spans_dropped", 40 - 16 - 10)
    gate.set()
    t.collector.wait_spans(26)


def test_stop_while_spans_wait(traced):
    """The process ends with spans waiting and reports under way (leaks are what sanitizers look for)."""
    t = traced(zipkin())
    t.collector.script(Reply(silent=True))
    t.get(count=30)
    t.collector.wait_requests(1)


def test_runtime(traced):
    t = traced(zipkin())
    t.proxy.post("/runtime_modify?tracing.random_sampling=0")
    t.get()
    t.proxy.wait_stat("http.ingress.tracing.not_traceable", 1)
    t.proxy.post("/runtime_modify?tracing.random_sampling=10000")
    t.proxy.post("/runtime_modify?tracing.global_enabled=0")
    t.get(headers=[("x-client-trace-id", "1")])
    t.proxy.wait_stat("http.ingress.tracing.not_traceable", 2)
    assert [r.get("x-b3-sampled") for r in t.upstream.requests] == ["0", "0"] and not t.collector.spans


def test_sampling_bits_without_provider(traced):
    """As Istio's default has it: ids say what was decided, spans go nowhere."""
    t = traced(None, random_sampling={"value": 0})
    t.get()
    t.get(headers=[("x-client-trace-id", "1")])
    assert [r.get("x-request-id")[14] for r in t.upstream.requests] == ["4", "b"]
    assert not [n for r in t.upstream.requests for n, _ in r.headers if n.startswith("x-b3")]
    t.proxy.wait_stat("http.ingress.tracing.client_enabled", 1)


def test_access_log(traced, tmp_path):
    log = tmp_path / "log"
    t = traced(otel_http(), hcm_fields={"access_log": [
        {**file_log(log, "%TRACE_ID% %SPAN_ID%\n"), "filter": {"traceable_filter": {}}}]}, random_sampling={"value": 0})
    t.get()
    t.get(headers=[("x-client-trace-id", "1")])
    [line] = t.proxy.log_lines(log, 1)
    _, trace, span, flags = t.upstream.requests[1].get("traceparent").split("-")
    assert line == f"{trace} {span}" and flags == "01"


BAD = [
    (zipkin(collector_cluster="nope"), "unknown cluster 'nope'"),
    (zipkin(collector_endpoint=""), "collector_cluster and collector_endpoint must be specified"),
    (zipkin(collector_endpoint_version="GRPC"), "tracing.provider.typed_config.collector_endpoint_version"),
    (typed("envoy.tracers.opentelemetry", OTEL), "exactly one of"),
    (otel(sampler={"name": "x", "typed_config": {
        "@type": TYPE + "envoy.extensions.tracers.opentelemetry.samplers.v3.DynatraceSamplerConfig", "tenant": "t"}}), "sampler"),
    (otel(resource_detectors=[{"name": "x", "typed_config": {
        "@type": TYPE + "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.DynatraceResourceDetectorConfig"}}]),
     "resource_detectors[0]"),
    (typed("envoy.tracers.datadog", "envoy.config.trace.v3.DatadogConfig", collector_cluster="up", service_name="x"),
     "Didn't find a registered implementation for 'envoy.tracers.datadog'"),
]


@pytest.fixture
def refusal(tmp_path):
    """refusal(tracing) -> what is said of it"""
    def run(tracing):
        config = tmp_path / "bootstrap.json"
        config.write_text(json.dumps(bootstrap([listener(hcm(tracing=tracing))], [cluster("up", 1), cluster("collector", 1)])))
        done = subprocess.run([Sluice.binary, "-c", str(config), "--mode", "validate"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, done.stderr
        return done.stdout + done.stderr
    return run


@pytest.mark.parametrize("provider, why", BAD)
def test_bad_providers(refusal, provider, why):
    said = refusal({"provider": provider})
    assert why in said and ".tracing" in said


@pytest.mark.parametrize("tracing, why", [
    ({"custom_tags": [{"tag": "a", "literal": {"value": "b"}}, {"tag": "t", "value": "%NOPE%"}]}, "tracing.custom_tags[1]"),
    ({"custom_tags": [{"tag": "", "literal": {"value": "b"}}]}, "custom_tags[0].tag"),
    ({"custom_tags": [{"tag": "t"}]}, "custom_tags[0]"),
    ({"operation": "%NOPE%"}, "tracing.operation"), ({"upstream_operation": "%REQ("}, "tracing.upstream_operation"),
    ({"random_sampling": {"value": 101}}, "tracing.random_sampling.value"),
])
def test_bad_settings(refusal, tracing, why):
    assert why in refusal(tracing)


def test_decorator(traced):
    t = traced(zipkin(), hcm_fields={"routes": [{**route("/x"), "decorator": {"operation": "op"}}, route()]})
    assert t.get("/x").get("x-envoy-decorator-operation") == "op"
    assert t.collector.wait_spans(1)[0]["name"] == "op"


def test_mixed_load(traced):
    """Many requests of which some reset, by a collector that answers late."""
    t = traced(zipkin(), spawn_upstream_span=True, verbose=True)
    t.upstream.script(lambda r: Reply(reset=True) if r.target.endswith("3") else Reply(200))
    with Client(t.proxy.port()) as client:
        statuses = [client.request("POST", f"/{i}", [("content-length", "0")]).status for i in range(100)]
    assert statuses.count(503) == 10
    t.proxy.wait_stat("tracing.zipkin.spans_sent", 200)
    assert len(t.collector.wait_spans(200)) == 200
