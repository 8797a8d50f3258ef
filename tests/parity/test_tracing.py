"""Tracing beside Envoy's: for each provider's setting, context and request the same spans, field by field, the same headers
to the upstream and the client, the same stats. Ids are compared by which of them are equal."""

import base64
import contextlib
import hashlib
import json
import os
import re

import pytest

from support.collector import GrpcCollector, HttpCollector, otlp_request_spans
from support.config import TYPE, bootstrap, cluster, direct, file_log, hcm, http2, listener, route, typed
from support.process import wait_until
from support.proxy import Envoy
from support.rawhttp import fetch
from support.upstream import Reply, ScriptedUpstream

ZIPKIN, OTEL = "envoy.config.trace.v3.ZipkinConfig", "envoy.config.trace.v3.OpenTelemetryConfig"
SAMPLERS = "envoy.extensions.tracers.opentelemetry.samplers.v3."
DETECTORS = "envoy.extensions.tracers.opentelemetry.resource_detectors.v3."
OUTBOUND = {"traffic_direction": "OUTBOUND"}
# What says who we are, or when it was.
OWN = ("telemetry.sdk.language", "telemetry.sdk.name", "telemetry.sdk.version")
PROPAGATION = ("b3", "traceparent", "tracestate", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags",
               "x-envoy-decorator-operation")


def zipkin(**fields):
    return typed("envoy.tracers.zipkin", ZIPKIN, **{"collector_cluster": "zipkin", "collector_endpoint": "/api/v2/spans",
                                                    "collector_endpoint_version": "HTTP_JSON", **fields})


def otel(**fields):
    if "http_service" not in fields:
        fields["grpc_service"] = {"envoy_grpc": {"cluster_name": "otlp"}, "timeout": "1s"}
    return typed("envoy.tracers.opentelemetry", OTEL, **fields)


def sampler(name, **fields):
    return {"name": name, "typed_config": {"@type": f"{TYPE}{SAMPLERS}{name}", **fields}}


def percent(value):
    return {"value": value}


def metadata_tag(tag, kind, key="p", **fields):
    return {"tag": tag, "metadata": {"kind": {kind: {}}, "metadata_key": {"key": "k", "path": [{"key": key}]}, **fields}}


TAGS = [
    {"tag": "literal", "literal": {"value": "v"}}, {"tag": "component", "literal": {"value": "mine"}},
    {"tag": "env", "environment": {"name": "TRACING_TAG", "default_value": "d"}},
    {"tag": "no-env", "environment": {"name": "TRACING_NO_TAG"}},
    {"tag": "default-env", "environment": {"name": "TRACING_NO_TAG", "default_value": "d"}},
    {"tag": "header", "request_header": {"name": "X-H", "default_value": "d"}},
    {"tag": "no-header", "request_header": {"name": "x-none"}}, {"tag": "two", "request_header": {"name": "x-two"}},
    metadata_tag("request", "request", default_value="d"), metadata_tag("route", "route", default_value="d"),
    metadata_tag("struct", "route", "struct"), metadata_tag("number", "route", "number"), metadata_tag("bool", "route", "bool"),
    metadata_tag("null", "route", "null", default_value="d"),
    metadata_tag("cluster", "cluster"), metadata_tag("host", "host"), metadata_tag("no-host", "host", "q", default_value="d"),
    {"tag": "value", "value": "%REQ(x-h)%-%RESPONSE_CODE%"}, {"tag": "no-value", "value": "%REQ(x-none)%"},
]
ROUTE_TRACING = {"operation": "route %REQ(:METHOD)%", "upstream_operation": "up %REQ(:METHOD)%",
                 "custom_tags": [{"tag": "literal", "literal": {"value": "route's"}}, {"tag": "more", "literal": {"value": "x"}}]}
RETRIES = {"retry_on": "5xx,reset", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"}}
ROUTES = [
    {**route("/decorated"), "decorator": {"operation": "decorated"}},
    {**route("/kept-decoration"), "decorator": {"operation": "decorated", "propagate": False}},
    {**route("/operation"), "decorator": {"operation": "decorated"}, "tracing": ROUTE_TRACING},
    {**route("/unsampled"), "tracing": {"random_sampling": {"numerator": 0}}},
    {**route("/no-clients"), "tracing": {"client_sampling": {"numerator": 0}, "random_sampling": {"numerator": 0}}},
    {**route("/overall"), "tracing": {"overall_sampling": {"numerator": 0}}},
    {**route("/half"), "tracing": {"random_sampling": {"numerator": 50}}},
    route("/retried", retry_policy=RETRIES), route("/slow", timeout="0.1s"), route("/dead", cluster="dead"),
    route("/no-cluster", cluster="nope"), route("/rewritten", prefix_rewrite="/new"),
    direct("/direct", 404, "none"), direct("/broken", 500, "x"), {"match": {"path": "/redirect"}, "redirect": {"path_redirect": "/"}},
    {**route("/"), "metadata": {"filter_metadata": {"k": {"p": "of the route", "struct": {"a": [1, "x"]}, "number": 1.5, "bool": True,
                                                          "null": None}}}},
]
HEALTH_CHECK = typed("envoy.filters.http.health_check", "envoy.extensions.filters.http.health_check.v3.HealthCheck",
                     pass_through_mode=False, headers=[{"name": ":path", "string_match": {"exact": "/health"}}])
RATIO = sampler("TraceIdRatioBasedSamplerConfig", sampling_percentage={"numerator": 50})
STATIC = {"name": "s", "typed_config": {"@type": f"{TYPE}{DETECTORS}StaticConfigResourceDetectorConfig",
                                        "attributes": {"k": "v", "service.name": "detected"}}}
ENVIRONMENT = {"name": "e", "typed_config": {"@type": f"{TYPE}{DETECTORS}EnvironmentResourceDetectorConfig"}}
UUID = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"


def uuid(**fields):
    return {"request_id_extension": {"typed_config": {"@type": TYPE + UUID, **fields}}}


# name: (provider or None, tracing's other fields, the connection manager's, the listener's)
SETTINGS = {
    "z": (zipkin(), {}, {}, {}),
    "z-proto": (zipkin(collector_endpoint_version="HTTP_PROTO", trace_id_128bit=True), {}, {}, {}),
    "z-unshared": (zipkin(shared_span_context=False), {}, {}, {}),
    "z-split": (zipkin(split_spans_for_request=True), {}, {}, OUTBOUND),
    "z-w3c": (zipkin(trace_context_option="USE_B3_WITH_W3C_PROPAGATION"), {}, {}, {}),
    "z-host": (zipkin(collector_hostname="h.com"), {"verbose": True}, {}, {}),
    "z-spawn": (zipkin(), {"spawn_upstream_span": True, "verbose": True, "custom_tags": TAGS[:6]}, {}, {}),
    "z-out": (zipkin(), {}, {}, OUTBOUND),
    "z-out-unshared": (zipkin(shared_span_context=False), {}, {}, OUTBOUND),
    "z-out-spawn": (zipkin(), {"spawn_upstream_span": True}, {}, OUTBOUND),
    "z-tags": (zipkin(), {"custom_tags": TAGS, "max_path_tag_length": 12}, {"filters": [HEALTH_CHECK]}, {}),
    "z-operation": (zipkin(), {"operation": "o %REQ(:PATH)%", "upstream_operation": "u %REQ(:PATH)%", "spawn_upstream_span": True}, {}, {}),
    "z-none": (zipkin(), {"random_sampling": percent(0)}, {}, {}),
    "z-overall": (zipkin(), {"overall_sampling": percent(0)}, {}, {}),
    "z-half": (zipkin(), {"random_sampling": percent(50)}, {"preserve_external_request_id": True}, {}),
    "z-edge": (zipkin(), {}, {"use_remote_address": True, "add_user_agent": True}, {}),
    "z-unpacked": (zipkin(), {}, uuid(pack_trace_reason=False), {}),
    "z-always": (zipkin(), {"random_sampling": percent(0)}, uuid(use_request_id_for_trace_sampling=False), {}),
    "z-kept": (zipkin(), {"no_context_propagation": True, "spawn_upstream_span": True}, {}, {}),
    "default": (None, {}, {}, {}),
    "o": (otel(service_name="svc"), {}, {}, {}),
    "o-http": (otel(http_service={"http_uri": {"uri": "http://coll:4318/v1/traces", "cluster": "otlp-http", "timeout": "1s"},
                                  "request_headers_to_add": [{"header": {"key": "x-k", "value": "v"}}]}), {"verbose": True}, {}, {}),
    "o-spawn": (otel(), {"spawn_upstream_span": True, "verbose": True, "custom_tags": TAGS[:6]}, {}, {}),
    "o-out": (otel(), {}, {}, OUTBOUND),
    "o-out-spawn": (otel(), {"spawn_upstream_span": True}, {}, OUTBOUND),
    "o-tags": (otel(resource_detectors=[STATIC]), {"custom_tags": TAGS, "max_path_tag_length": 12}, {"filters": [HEALTH_CHECK]}, {}),
    "o-environment": (otel(service_name="svc", resource_detectors=[ENVIRONMENT, STATIC]), {}, {}, {}),
    "o-none": (otel(), {"random_sampling": percent(0)}, {}, {}),
    "o-always-on": (otel(sampler=sampler("AlwaysOnSamplerConfig")), {}, {}, {}),
    "o-always-on-none": (otel(sampler=sampler("AlwaysOnSamplerConfig")), {"random_sampling": percent(0)}, {}, {}),
    "o-ratio": (otel(sampler=RATIO), {}, {}, {}),
    "o-parent": (otel(sampler=sampler("ParentBasedSamplerConfig", wrapped_sampler=sampler("AlwaysOnSamplerConfig"))), {}, {}, {}),
}


def context_cases():
    """T is for a trace's id of 64 bits, L for one of 128, S for a span's and P for its parent's: with_ids()."""
    cases = {}

    def case(name, *headers):
        cases[f"context-{name}"] = ("GET", f"/{name}?x=1", list(headers), b"", Reply())

    def b3(trace, span, *more):
        return [("x-b3-traceid", trace), ("x-b3-spanid", span), *more]

    case("none")
    case("b3", *b3("{T}", "{S}"))
    case("sampled", *b3("{L}", "{S}", ("x-b3-parentspanid", "{P}"), ("x-b3-sampled", "1")))
    case("unsampled", *b3("{L}", "{S}", ("x-b3-parentspanid", "{P}"), ("x-b3-sampled", "0")))
    case("true", *b3("{T}", "{S}", ("x-b3-sampled", "true")))
    case("neither", *b3("{T}", "{S}", ("x-b3-sampled", "x")))
    case("debug", *b3("{T}", "{S}", ("x-b3-flags", "1")))
    case("only-1", ("x-b3-sampled", "1"))
    case("only-0", ("x-b3-sampled", "0"))
    case("only-trace", ("x-b3-traceid", "{T}"))
    case("no-hex", *b3("xyz", "{S}"))
    case("empty-trace", *b3("", "{S}"))
    case("long-trace", *b3("{L}0", "{S}"))
    case("short", *b3("{T:.10}", "{S:.2}"))
    case("bad-parent", *b3("{T}", "{S}", ("x-b3-parentspanid", "q")))
    case("upper", *b3("{U}", "{S}"))
    case("single", ("b3", "{L}-{S}-1-{P}"))
    case("single-64", ("b3", "{T}-{S}-0"))
    case("single-ids", ("b3", "{T}-{S}"))
    case("single-debug", ("b3", "{L}-{S}-d"))
    case("single-0", ("b3", "0"))
    case("single-1", ("b3", "1"))
    case("single-x", ("b3", "x"))
    case("single-cut", ("b3", "{L}-{S}-"))
    case("single-bad-flag", ("b3", "{L}-{S}-x"))
    case("single-more", ("b3", "{L}-{S}-1-{P}-1"))
    case("single-no-ids", ("b3", "zz-yy"))
    case("single-and-many", *b3("{T}", "{S}", ("b3", "0")))
    case("w3c", ("traceparent", "00-{L}-{S}-01"), ("tracestate", "a=b"))
    case("w3c-states", ("traceparent", "00-{L}-{S}-01"), ("tracestate", "a=b"), ("tracestate", "c=d"))
    case("w3c-0", ("traceparent", "00-{L}-{S}-00"))
    case("w3c-flags", ("traceparent", "00-{U}{U}-{S}-03"))
    case("w3c-bad", ("traceparent", "00-zz"))
    case("w3c-zero", ("traceparent", "00-" + "0" * 32 + "-{S}-01"))
    case("w3c-no-hex", ("traceparent", "00-{L}-{S:.15}x-01"))
    case("w3c-future", ("traceparent", "01-{L}-{S}-01-more"))
    case("w3c-ff", ("traceparent", "ff-{L}-{S}-01"))
    case("w3c-two", ("traceparent", "00-{L}-{S}-01"), ("traceparent", "00-{L}-{P}-00"))
    case("w3c-and-b3", ("traceparent", "00-{L}-{S}-01"), *b3("{L}", "{P}"))
    case("state-alone", ("tracestate", "a=b"))
    return cases


def grpc_reply(status, *more):
    return Reply(headers=[("content-type", "application/grpc"), ("grpc-status", str(status)), *more], body=b"")


GRPC = [("content-type", "application/grpc"), ("grpc-timeout", "5S")]
NAMED = Reply(headers=[("x-envoy-decorator-operation", "the server's")])
ASKED = [("x-envoy-decorator-operation", "the client's")]
REQUEST_ID = "00000000-5480-4afc-9bcf-ff49a1564c6a"
REQUESTS = {
    "tags": ("GET", "/x/a-long-path?q=1", [("x-h", "h"), ("x-two", "1"), ("x-two", "2"), ("user-agent", "ua")], b"", Reply()),
    "post": ("POST", "/post", [], b"12345", Reply(body=b"0123456789")),
    "bytes": ("GET", "/bytes", [("user-agent", "\xc3\xa9")], b"", Reply()),
    "503": ("GET", "/503", [], b"", Reply(503)),
    "404": ("GET", "/404", [], b"", Reply(404)),
    "304": ("GET", "/304", [], b"", Reply(304)),
    **{f"grpc-{n}": ("POST", f"/pkg.S/M{n}", GRPC, b"", grpc_reply(n, ("grpc-message", "why"))) for n in (0, 2, 5, 13, 14)},
    "grpc-no-status": ("POST", "/pkg.S/N", GRPC, b"", Reply(headers=[("content-type", "application/grpc")])),
    "grpc-bad-status": ("POST", "/pkg.S/B", GRPC, b"", grpc_reply("x")),
    "direct": ("GET", "/direct", [], b"", None),
    "broken": ("GET", "/broken", [], b"", None),
    "redirect": ("GET", "/redirect", [], b"", None),
    "dead": ("GET", "/dead", [], b"", None),
    "no-cluster": ("GET", "/no-cluster", [], b"", None),
    "no-reply": ("POST", "/no-reply", [], b"", Reply(reset=True)),  # an idempotent one is sent once more
    "slow": ("GET", "/slow", [], b"", Reply(silent=True)),
    "rewritten": ("GET", "/rewritten/x", [], b"", Reply()),
    "retried": ("GET", "/retried", [], b"", Reply(500)),
    "retried-resets": ("POST", "/retried/reset", [], b"", Reply(reset=True)),
    "decorated": ("GET", "/decorated", [], b"", Reply()),
    "decorated-asked": ("GET", "/decorated/x", ASKED, b"", NAMED),
    "decorated-empty": ("GET", "/decorated/y", [("x-envoy-decorator-operation", "")], b"", Reply()),
    "kept-decoration": ("GET", "/kept-decoration", [], b"", Reply()),
    "asked": ("GET", "/asked", ASKED, b"", NAMED),
    "operation": ("GET", "/operation", [], b"", Reply()),
    "operation-asked": ("GET", "/operation/x", ASKED, b"", NAMED),
    "unsampled": ("GET", "/unsampled", [], b"", Reply()),
    "client": ("GET", "/unsampled/x", [("x-client-trace-id", "c")], b"", Reply()),
    "no-clients": ("GET", "/no-clients", [("x-client-trace-id", "c")], b"", Reply()),
    "overall": ("GET", "/overall", [("x-client-trace-id", "c")], b"", Reply()),
    "forced-outside": ("GET", "/unsampled/y", [("x-envoy-force-trace", "true")], b"", Reply()),
    "forced-inside": ("GET", "/unsampled/z", [("x-envoy-force-trace", "true"), ("x-forwarded-for", "10.0.0.1")], b"", Reply()),
    "health": ("GET", "/health", [], b"", Reply()),
    **{f"id-{i}": ("GET", f"/half/{i}", [("x-request-id", f"{i * 1499:08x}{REQUEST_ID[8:]}")], b"", Reply()) for i in range(12)},
    **{f"id-mark-{mark}": ("GET", f"/unsampled/{mark}", [("x-request-id", f"{REQUEST_ID[:14]}{mark}{REQUEST_ID[15:]}")], b"", Reply())
       for mark in "49abf"},
    "id-none": ("GET", "/id", [("x-request-id", "short")], b"", Reply()),
    "id-no-hex": ("GET", "/id2", [("x-request-id", "x" + REQUEST_ID[1:])], b"", Reply()),
}
CASES = {**context_cases(), **REQUESTS}
LOG = "%TRACE_ID% %SPAN_ID%\n"


def cases_of(setting):
    """Where the request's ids decide, those that have them."""
    if setting in ("z-half", "o-ratio"):
        return [c for c in CASES if c.startswith({"z-half": "id-", "o-ratio": "context-w3c"}[setting]) and
                c not in ("context-w3c-bad", "context-w3c-zero")]
    return [c for c in CASES if setting != "z-edge" or not c.startswith("id-")]


def with_ids(headers, setting, case):
    """Ids that no other request has."""
    digits = hashlib.md5(f"{setting} {case}".encode()).hexdigest()
    ids = {"T": digits[:16], "U": digits[:16].upper(), "L": digits, "S": digits[8:24], "P": digits[4:20]}
    return [(n, v.format(**ids)) for n, v in headers]


class Side:
    """One proxy with collectors and an upstream of its own; everything is sent once, then spans are told apart by trace."""

    def __init__(self, start, directory):
        self.upstream, self.zipkin = ScriptedUpstream(), HttpCollector()
        self.otlp_http, self.otlp = HttpCollector(otlp_request_spans, 200), GrpcCollector()
        self.logs = {name: directory / f"{name}.log" for name in SETTINGS}
        self.proxy = start(self.bootstrap(), env={**os.environ, "TRACING_TAG": "set", "OTEL_RESOURCE_ATTRIBUTES": "a=b,k=e"})
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}
        self.outcomes = {(name, case): self.send(name, case) for name in SETTINGS for case in cases_of(name)}
        self.collect()

    def stop(self):
        for server in (self.upstream, self.zipkin, self.otlp_http, self.otlp):
            server.stop()

    def bootstrap(self):
        listeners = [listener(hcm(ROUTES, route_fields={"validate_clusters": False}, stat_prefix=name,
                                  access_log=[file_log(self.logs[name], LOG)],
                                  tracing={**tracing, **({"provider": provider} if provider else {})}, **fields), name=name, **more)
                     for name, (provider, tracing, fields, more) in SETTINGS.items()]
        host = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self.upstream.port}}},
                "metadata": {"filter_metadata": {"k": {"p": "of the host"}}}}
        clusters = [cluster("up", host, metadata={"filter_metadata": {"k": {"p": "of the cluster"}}}, alt_stat_name="upstream"),
                    cluster("dead", 1), cluster("zipkin", self.zipkin.port), cluster("otlp-http", self.otlp_http.port),
                    cluster("otlp", self.otlp.port, typed_extension_protocol_options=http2())]
        runtime = {f"tracing.{tracer}.{key}": value for tracer in ("zipkin", "opentelemetry")
                   for key, value in (("min_flush_spans", 1), ("flush_interval_ms", 100))}
        return bootstrap(listeners, clusters, tracing={"http": zipkin(trace_id_128bit=True)},
                         layered_runtime={"layers": [{"name": "static", "static_layer": runtime}]})

    def send(self, name, case):
        method, path, headers, body, reply = CASES[case]
        self.upstream.script(reply or Reply())
        length = [("content-length", str(len(body)))] if method == "POST" else []
        answer = fetch(self.ports[name], path, method, with_ids(headers, name, case) + length, body, host=f"{name}.{case}")
        requests = self.upstream.requests if case.startswith("retried") else self.upstream.requests[:1]
        return {"status": answer.status, "named": answer.get("x-envoy-decorator-operation"),
                "seen": [sorted((n, v) for n, v in r.headers if n in PROPAGATION) for r in requests],
                "id": [r.get("x-request-id")[14:15] for r in requests[:1]]}

    def collect(self):
        """All spans have come when there are as many as were counted."""
        self.spans = {key: [] for key in self.outcomes}
        traces, spans = {}, []
        for tracer, servers in (("zipkin", (self.zipkin,)), ("opentelemetry", (self.otlp_http, self.otlp))):
            def difference():
                return sum(len(s.spans) for s in servers) - self.proxy.stat(f"tracing.{tracer}.spans_sent")
            wait_until(lambda: difference() == 0, lambda: f"{tracer}'s spans: {difference()}", 30)
            spans += [uniform(s) for server in servers for s in server.spans]
        for span in spans:
            if url := span["tags"].get("http.url"):
                setting, _, case = url.split("/")[2].partition(".")
                traces[span["trace"]] = (setting, case)
        for span in spans:
            setting, case = traces[span["trace"]]
            if setting == "z-proto" and isinstance(self.proxy, Envoy):
                span["span"], span["parent"] = turned(span["span"]), turned(span["parent"])
            self.spans[setting, case].append(span)
        for name, log in self.logs.items():
            cases = cases_of(name)
            for case, line in zip(cases, self.proxy.log_lines(log, len(cases)), strict=True):
                self.outcomes[name, case]["log"] = line

    def result(self, name, case):
        """An outcome with names in place of ids."""
        outcome, names = self.outcomes[name, case], {}

        def named(match):
            return names.setdefault(match[0], f"<{len(names)} of {len(match[0])}>")
        given = json.dumps(with_ids(CASES[case][2], name, case))
        for found in re.finditer(r"[0-9a-fA-F]{16,32}", given):
            names[found[0].lower()] = f"<given {found[0].lower()}>"
        spans = sorted(self.spans[name, case], key=lambda s: (s["kind"], int(s["tags"].get("retry.count", 0)), s["name"]))
        text = json.dumps({"spans": spans, **outcome}).replace(f":{self.upstream.port}", ":UPSTREAM")
        return flat(json.loads(re.sub(r"\b(?:[0-9a-f]{32}|[0-9a-f]{16})\b", named, text)))


def flat(value, path=""):
    """{"a.b": 1} for {"a": {"b": 1}}."""
    if not isinstance(value, (dict, list)):
        return {path: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {k: v for name, inner in items for k, v in flat(inner, f"{path}.{name}").items()}


def turned(text):
    """Envoy writes the ids of spans, not of traces, in the machine's order of bytes in protobuf."""
    return text and bytes.fromhex(text)[::-1].hex()


def uniform(span):
    """Zipkin's or OTLP's with the same names for what both have, and nothing of what differs between runs."""
    assert int(span.get("duration", 0)) >= 0 and int(span.get("endTimeUnixNano", 1)) >= int(span.get("startTimeUnixNano", 0))
    if "traceId" in span and "tags" in span and "resource" not in span:
        out = {"trace": span.pop("traceId"), "span": span.pop("id"), "parent": span.pop("parentId", None),
               "events": [a["value"] for a in span.pop("annotations", [])]}
        assert span.pop("timestamp") > 0
        span.pop("duration", None)
    else:
        out = {"trace": unpacked(span.pop("traceId")), "span": unpacked(span.pop("spanId")), "parent": unpacked(span.pop("parentSpanId", "")),
               "events": [e["name"] for e in span.pop("events", [])]}
        for name in ("startTimeUnixNano", "endTimeUnixNano", "scope"):
            assert span.pop(name)
        span["resource"] = {k: v for k, v in span["resource"].items() if k not in OWN}
        span["tags"] = {k: v.get("stringValue") for k, v in span["tags"].items()}
    if "guid:x-request-id" in span["tags"]:
        span["tags"]["guid:x-request-id"] = span["tags"]["guid:x-request-id"][14:15]
    return {**span, **out}


def unpacked(text):
    return base64.b64decode(text).hex() or None


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        both = []
        for start in (shared_envoy, shared_sluice):
            both.append(Side(start, tmp_path_factory.mktemp("tracing")))
            stack.callback(both[-1].stop)
        yield both


@pytest.mark.parametrize("setting", SETTINGS)
def test_spans(sides, setting):
    different = []
    for case in cases_of(setting):
        envoy, sluice = (side.result(setting, case) for side in sides)
        different += [f"{case}{what}: envoy {envoy.get(what)}, sluice {sluice.get(what)}" for what in sorted(envoy.keys() | sluice.keys())
                      if envoy.get(what) != sluice.get(what)]
    assert not different, "\n".join(different)


def test_stats(sides):
    envoy, sluice = ({n: v for n, v in side.proxy.stats(r"^tracing\.|\.tracing\.").items() if not n.endswith("timer_flushed")}
                     for side in sides)
    assert sluice == envoy
