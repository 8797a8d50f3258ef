/* envoy.tracers.opentelemetry: what is refused, decisions and samplers, resources, and bytes. */
#include "filters/common/otel_resource.h"
#include "filters/common/otlp.h"

#include "protos/any.h"
#include "protos/gen/otel_collector_trace.pb-c.h"
#include "tests/support/fake_worker.h"
#include "tests/support/route.h"
#define CONFIG "envoy.config.trace.v3.OpenTelemetryConfig"
#define TRACER opentelemetry_tracer
#include "tests/support/test_tracer.h"

#define GRPC "grpc_service { envoy_grpc { cluster_name: 'c' } } "
#define HTTP "http_service { http_uri { uri: 'http://h/p' cluster: 'c' timeout { seconds: 1 } } } "
#define ANY(type, body)                                                                            \
    "{ name: 'x' typed_config { [type.googleapis.com/envoy.extensions.tracers.opentelemetry." type \
    "] {" body "} } } "
#define ALWAYS ANY("samplers.v3.AlwaysOnSamplerConfig", "")
#define RATIO(n) \
    ANY("samplers.v3.TraceIdRatioBasedSamplerConfig", "sampling_percentage { numerator: " #n " }")
#define PARENT(of) ANY("samplers.v3.ParentBasedSamplerConfig", "wrapped_sampler " of)
#define ENVIRONMENT \
    "resource_detectors " ANY("resource_detectors.v3.EnvironmentResourceDetectorConfig", "")
#define STATIC(attributes)                                                                \
    "resource_detectors " ANY("resource_detectors.v3.StaticConfigResourceDetectorConfig", \
                              attributes)
#define ATTRIBUTE(k, v) "attributes { key: '" k "' value: '" v "' } "

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *where;
    } bad[] = {
        {"", "exactly one"},
        {GRPC HTTP, "exactly one"},
        {"grpc_service { google_grpc { target_uri: 'x' stat_prefix: 'x' } }", "grpc_service"},
        {"grpc_service { envoy_grpc { cluster_name: 'c' } initial_metadata { key: ':path' } }",
         "grpc_service.initial_metadata"},
        {"grpc_service { envoy_grpc { cluster_name: 'c' } timeout { seconds: -1 } }",
         "grpc_service"},
        {"http_service {}", "http_service.http_uri"},
        {"http_service { http_uri { uri: 'http://a\\n' cluster: 'c' timeout {} } }",
         "http_service.http_uri.uri"},
        {GRPC "sampler { name: 'x' }", "sampler"},
        {GRPC "sampler " ANY("samplers.v3.DynatraceSamplerConfig", ""), "sampler"},
        {GRPC "sampler " ANY("samplers.v3.CELSamplerConfig", ""), "sampler"},
        {GRPC "sampler " ANY("samplers.v3.ParentBasedSamplerConfig", ""),
         "sampler.wrapped_sampler"},
        {GRPC "sampler " PARENT(ANY("samplers.v3.DynatraceSamplerConfig", "")),
         "sampler.wrapped_sampler"},
        {GRPC
         "sampler " PARENT(PARENT(PARENT(PARENT(PARENT(PARENT(PARENT(PARENT(PARENT(ALWAYS))))))))),
         "nested too deep"},
        {GRPC "resource_detectors { name: 'x' }", "resource_detectors[0]"},
        {GRPC ENVIRONMENT
         "resource_detectors " ANY("resource_detectors.v3.DynatraceResourceDetectorConfig", ""),
         "resource_detectors[1]"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(!compile(bad[i].text), i);
        sv errors = fake_errors(&f);
        if (!sv_contains(errors, sv_cstr(bad[i].where))) {
            fail_msg("row %zu: %.*s", i, SV_ARG(errors));
        }
    }
    assert_non_null(compile(GRPC));
    assert_non_null(compile(HTTP));
}

#define SAMPLED "traceparent: 00-80f198ee56343ba864fe8b2a57d3eff7-b7ad6b7169203331-01"
#define UNSAMPLED "traceparent: 00-80f198ee56343ba864fe8b2a57d3eff7-b7ad6b7169203331-00"

static void decisions(void **state) {
    (void)state;
    static const struct {
        const char *config, *headers;
        bool is_traced, want;
    } cases[] = {
        {"", NULL, true, true},
        {"", NULL, false, false},
        {"", SAMPLED, true, true},
        {"", SAMPLED, false, false},
        {"", UNSAMPLED, true, false},
        {"sampler " ALWAYS, UNSAMPLED, true, true},
        {"sampler " ALWAYS, NULL, false, false},
        {"sampler " PARENT(ALWAYS), UNSAMPLED, true, false},
        {"sampler " PARENT(ALWAYS), SAMPLED, true, true},
        {"sampler " PARENT(ALWAYS), NULL, true, true},
        {"sampler " PARENT(RATIO(0)), NULL, true, false},
        {"sampler " PARENT(RATIO(0)), SAMPLED, true, true},
        {"sampler " RATIO(0), SAMPLED, true, false},
        {"sampler " RATIO(100), UNSAMPLED, true, true},
    };
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[1024];
        snprintf(text, sizeof(text), GRPC "%s", cases[i].config);
        const void *config = compile(text);
        assert_row(config != NULL, i);
        struct headers h;
        request_make(&h, &f.arena, "host", "/", cases[i].headers);
        struct trace_span s = {.tracer = &tracer};
        struct trace_start how = {.operation = SV("ingress"),
                                  .is_traced = cases[i].is_traced,
                                  .rng = &rng,
                                  .arena = &f.arena};
        assert_row(opentelemetry_tracer.start(config, &how, &h, &s), i);
        assert_row(s.is_sampled == cases[i].want, i);
        assert_row(s.has_parent == (cases[i].headers != NULL), i);
        assert_row(!s.has_parent || s.parent_id == 0xb7ad6b7169203331u, i);
        assert_row(s.id != s.parent_id && !s.is_client, i);
    }
}

static void contexts(void **state) {
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    const void *config = compile(GRPC);
    struct headers h;
    struct trace_span s = {.tracer = &tracer};
    struct trace_start how = {.is_egress = true, .rng = &rng, .arena = &f.arena};
    request_make(&h, &f.arena, "host", "/", "traceparent: x");
    assert_false(opentelemetry_tracer.start(config, &how, &h, &s));
    request_make(&h, &f.arena, "host", "/", "tracestate: a=b"); /* of nothing */
    assert_true(opentelemetry_tracer.start(config, &how, &h, &s));
    assert_true(s.is_client && s.state.n == 0);
    opentelemetry_tracer.inject(&s, &h);
    assert_sv_is(headers_get(&h, HDR_tracestate), "");
    request_make(&h, &f.arena, "host", "/", SAMPLED "\ntracestate: a=b\ntracestate: c=d");
    s = (struct trace_span){.tracer = &tracer};
    how.spawns_upstream_span = true;
    assert_true(opentelemetry_tracer.start(config, &how, &h, &s));
    assert_false(s.is_client);
    assert_sv_is(s.state, "a=b,c=d");
    opentelemetry_tracer.inject(&s, &h);
    assert_sv_is(headers_joined(&h, HDR_tracestate, SV("tracestate"), &f.arena), "a=b,c=d");
}

/* An export of one span with these resources. */
static const OtelCollectorTrace__ExportTraceServiceRequest *export(const char *config,
                                                                   const struct trace_span *s,
                                                                   const struct trace_report *r) {
    char text[1024];
    snprintf(text, sizeof(text), GRPC "%s", config);
    sv resource = SV_NULL, scope = SV_NULL;
    if (!otel_resource_compile(&f.ctx, fake_msg(&f, CONFIG, text), &resource, &scope)) {
        fail_msg("%.*s", SV_ARG(fake_errors(&f)));
    }
    struct buf spans, out;
    buf_init(&spans);
    buf_init(&out);
    otlp_write_span(s, r, &spans);
    otlp_write_span(s, r, &spans);
    otlp_write_request(resource, scope, &spans, &out);
    const OtelCollectorTrace__ExportTraceServiceRequest *m =
        PROTO_UNPACK(OtelCollectorTrace__ExportTraceServiceRequest,
                     otel_collector_trace__export_trace_service_request__descriptor,
                     buf_pullup(&out, buf_len(&out)), &f.msgs, &f.diag);
    buf_fini(&spans);
    buf_fini(&out);
    assert_non_null(m);
    assert_int_equal(m->n_resource_spans, 1);
    return m;
}

static const char *attribute(const OtelResource__Resource *r, const char *key) {
    for (size_t i = 0; i < r->n_attributes; i++) {
        if (strcmp(r->attributes[i]->key, key) == 0) {
            return r->attributes[i]->value->string_value;
        }
    }
    return NULL;
}

static void resources(void **state) {
    (void)state;
    static const struct {
        const char *config, *env, *key, *want; /* NULL: not there */
    } cases[] = {
        {"", "a=b", "a", NULL},
        {"", "", "service.name", "unknown_service:envoy"},
        {"service_name: 's'", "", "service.name", "s"},
        {"set_service_name_resource_attribute {}", "", "service.name", NULL},
        {"", "", "telemetry.sdk.name", "sluice"},
        {"set_telemetry_sdk_resource_attributes {}", "", "telemetry.sdk.name", NULL},
        {ENVIRONMENT, "", "a", NULL},
        {ENVIRONMENT, "a=b,c=d", "c", "d"},
        {ENVIRONMENT, "a=b,a=c", "a", "c"},
        {ENVIRONMENT, "a=b=c", "a", NULL},
        {ENVIRONMENT, "a=", "a", NULL},
        {ENVIRONMENT, "=a,,=,a,", "a", NULL},
        {ENVIRONMENT, "service.name=e", "service.name", "e"},
        {STATIC(ATTRIBUTE("a", "b")), "", "a", "b"},
        {STATIC(ATTRIBUTE("a", "")), "", "a", NULL},
        {ENVIRONMENT STATIC(ATTRIBUTE("a", "s")), "a=e", "a", "s"},
        {STATIC(ATTRIBUTE("a", "s")) ENVIRONMENT, "a=e", "a", "e"},
    };
    const struct trace_span s = {.id = 1};
    const struct trace_report r = {.arena = &f.arena};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        setenv("OTEL_RESOURCE_ATTRIBUTES", cases[i].env, 1);
        const char *got =
            attribute(export(cases[i].config, &s, &r)->resource_spans[0]->resource, cases[i].key);
        assert_row((got == NULL) == (cases[i].want == NULL), i);
        assert_row(!got || strcmp(got, cases[i].want) == 0, i);
    }
    assert_null(export("set_instrumentation_scope {}", &s, &r)
                    ->resource_spans[0]
                    ->instrumentation_library_spans[0]
                    ->instrumentation_library);
}

static void statuses(void **state) {
    (void)state;
    enum { NO_STATUS = -1, UNSET, OK, ERROR };
    static const struct {
        bool is_client;
        const char *http, *grpc;
        int want;
    } cases[] = {
        {false, "200", NULL, NO_STATUS}, {false, "499", NULL, NO_STATUS},
        {false, "500", NULL, ERROR},     {true, "400", NULL, ERROR},
        {true, "399", NULL, NO_STATUS},  {true, "0", NULL, NO_STATUS},
        {false, "x", NULL, NO_STATUS},   {false, "", NULL, NO_STATUS},
        {false, "200", "5", UNSET},      {true, "200", "5", ERROR},
        {false, "200", "14", ERROR},     {true, "200", "0", UNSET},
        {false, "200", "16", UNSET},     {false, "200", "x", NO_STATUS},
        {false, "500", "0", UNSET},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct trace_tag tags[] = {{SV("http.status_code"), sv_cstr(cases[i].http)},
                                         {SV("grpc.status_code"), sv_cstr(cases[i].grpc)}};
        const struct trace_span s = {.id = 1, .is_client = cases[i].is_client};
        const struct trace_report r = {
            .tags = tags, .tags_n = cases[i].grpc ? 2 : 1, .arena = &f.arena};
        const OtelTrace__Span *m =
            export("", &s, &r)->resource_spans[0]->instrumentation_library_spans[0]->spans[1];
        assert_row((m->status ? (int)m->status->code : NO_STATUS) == cases[i].want, i);
    }
}

static void spans(void **state) {
    (void)state;
    static const struct trace_tag tags[] = {{SV_INIT("a"), SV_INIT("1")},
                                            {SV_INIT(""), SV_INIT("x")},
                                            {SV_INIT("e"), SV_INIT("")},
                                            {SV_INIT("a"), SV_INIT("\xff")}};
    static const struct trace_event events[] = {{SV_INIT("ev"), 7}};
    const struct trace_span s = {.trace_low = 1,
                                 .id = 2,
                                 .parent_id = 3,
                                 .has_parent = true,
                                 .name = SV("n"),
                                 .state = SV("a=b"),
                                 .start_us = 9};
    const struct trace_report r = {.tags = tags,
                                   .tags_n = ARRAY_LEN(tags),
                                   .events = events,
                                   .events_n = 1,
                                   .end_us = 8, /* before it began */
                                   .arena = &f.arena};
    const OtelTrace__InstrumentationLibrarySpans *group =
        export("", &s, &r)->resource_spans[0]->instrumentation_library_spans[0];
    assert_int_equal(group->n_spans, 2);
    const OtelTrace__Span *m = group->spans[1];
    assert_int_equal(m->trace_id.len, 16);
    assert_int_equal(m->span_id.len, 8);
    assert_int_equal(m->parent_span_id.data[7], 3);
    assert_string_equal(m->trace_state, "a=b");
    assert_int_equal(m->start_time_unix_nano, 9000);
    assert_int_equal(m->end_time_unix_nano, 9000);
    assert_int_equal(m->n_attributes, 2);
    assert_string_equal(m->attributes[1]->value->string_value, "\xEF\xBF\xBD");
    assert_int_equal(m->n_events, 1);
    assert_int_equal(m->events[0]->time_unix_nano, 7000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused, begin, finish),
        cmocka_unit_test_setup_teardown(decisions, begin, finish),
        cmocka_unit_test_setup_teardown(contexts, begin, finish),
        cmocka_unit_test_setup_teardown(resources, begin, finish),
        cmocka_unit_test_setup_teardown(statuses, begin, finish),
        cmocka_unit_test_setup_teardown(spans, begin, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
