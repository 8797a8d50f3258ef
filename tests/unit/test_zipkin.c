/* envoy.tracers.zipkin: what is refused, which ids a span gets, and its bytes. */
#include "filters/common/zipkin_span.h"

#include <jansson.h>

#include "protos/any.h"
#include "protos/gen/zipkin.pb-c.h"
#include "tests/support/fake_worker.h"
#include "tests/support/route.h"
#define CONFIG "envoy.config.trace.v3.ZipkinConfig"
#define TRACER zipkin_tracer
#include "tests/support/test_tracer.h"

#define GOOD \
    "collector_cluster: 'c' collector_endpoint: '/x' collector_endpoint_version: HTTP_JSON "
#define MANY "x-b3-traceid: 463ac35c9f6413ad\nx-b3-spanid: b7ad6b7169203331"

static void refused(void **state) {
    (void)state;
    static const char *const bad[] = {
        "collector_endpoint_version: HTTP_JSON",
        "collector_cluster: 'c' collector_endpoint_version: HTTP_JSON",
        "collector_endpoint: '/x' collector_endpoint_version: HTTP_JSON",
        "collector_cluster: 'c' collector_endpoint: '/x'",
        "collector_cluster: 'c' collector_endpoint: '/x' collector_endpoint_version: GRPC",
        "collector_cluster: 'c' collector_endpoint: '/\\n' collector_endpoint_version: HTTP_JSON",
        GOOD "collector_hostname: 'a\\r'",
        "collector_endpoint_version: HTTP_JSON collector_service {}",
        "collector_endpoint_version: HTTP_JSON collector_service { http_uri { uri: 'http://a/\\n' "
        "cluster: 'c' timeout {} } }",
        "collector_endpoint_version: HTTP_JSON collector_service { http_uri { uri: 'http://a/' "
        "cluster: 'c' timeout { seconds: -1 } } }",
        "collector_endpoint_version: HTTP_JSON collector_service { http_uri { uri: 'http://a/' "
        "cluster: 'c' timeout {} } request_headers_to_add { header { key: ':path' value: 'x' } } }",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(!compile(bad[i]), i);
        assert_row(fake_errors(&f).n > 0, i);
    }
    assert_non_null(compile(GOOD));
    assert_sv_is(zipkin_tracer.required_cluster(tracer.config), "c");
}

enum id { FRESH, GIVEN };
static void ids(void **state) {
    (void)state;
    static const struct {
        const char *config, *headers;
        bool is_egress, spawns, is_traced;
        bool ok, client, shared, sampled, ours, parent, single;
        enum id trace, span;
    } cases[] = {
        {"", NULL, false, false, true, true, false, true, true, true, false, false, FRESH, FRESH},
        {"", NULL, true, false, true, true, true, false, true, true, false, false, FRESH, FRESH},
        {"", NULL, true, true, false, true, false, true, false, true, false, false, FRESH, FRESH},
        {"split_spans_for_request: true", NULL, true, false, true, true, false, true, true, true,
         false, false, FRESH, FRESH},
        {"shared_span_context {}", NULL, false, false, true, true, false, false, true, true, false,
         false, FRESH, FRESH},
        {"", MANY, false, false, true, true, false, true, true, true, false, false, GIVEN, GIVEN},
        {"", MANY, true, false, true, true, true, false, true, true, true, false, GIVEN, FRESH},
        {"shared_span_context {}", MANY, false, false, true, true, false, false, true, true, true,
         false, GIVEN, FRESH},
        {"", MANY "\nx-b3-sampled: 0", false, false, true, true, false, true, false, false, false,
         false, GIVEN, GIVEN},
        {"", MANY "\nx-b3-sampled: 1", false, false, false, true, false, true, true, false, false,
         false, GIVEN, GIVEN},
        {"", "b3: 1", false, false, false, true, false, true, true, false, false, true, FRESH,
         FRESH},
        {"", "b3: x", false, false, true, false, 0, 0, 0, 0, 0, 0, 0, 0},
        {"", "x-b3-traceid: x\nx-b3-spanid: 1", false, false, true, false, 0, 0, 0, 0, 0, 0, 0, 0},
        {"trace_context_option: USE_B3_WITH_W3C_PROPAGATION",
         "traceparent: 00-0000000000000000463ac35c9f6413ad-b7ad6b7169203331-00", false, false, true,
         true, false, true, false, false, false, false, GIVEN, GIVEN},
        {"trace_context_option: USE_B3_WITH_W3C_PROPAGATION", "traceparent: x", false, false, true,
         true, false, true, true, true, false, false, FRESH, FRESH},
        {"", "traceparent: 00-0000000000000000463ac35c9f6413ad-b7ad6b7169203331-00", false, false,
         true, true, false, true, true, true, false, false, FRESH, FRESH},
    };
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[256];
        snprintf(text, sizeof(text), GOOD "%s", cases[i].config);
        struct headers h;
        request_make(&h, &f.arena, "host", "/", cases[i].headers);
        const void *config = compile(text);
        assert_row(config != NULL, i);
        struct trace_span s = {.tracer = &tracer};
        struct trace_start how = {.host = SV("host"),
                                  .is_egress = cases[i].is_egress,
                                  .spawns_upstream_span = cases[i].spawns,
                                  .is_traced = cases[i].is_traced,
                                  .rng = &rng,
                                  .arena = &f.arena};
        assert_row(zipkin_tracer.start(config, &how, &h, &s) == cases[i].ok, i);
        if (!cases[i].ok) {
            continue;
        }
        assert_row(s.is_client == cases[i].client && s.is_shared == cases[i].shared, i);
        assert_row(s.is_sampled == cases[i].sampled && s.is_decision_ours == cases[i].ours, i);
        assert_row(s.has_parent == cases[i].parent, i);
        assert_row(s.uses_single_b3 == cases[i].single, i);
        assert_row((s.trace_low == 0x463ac35c9f6413adu) == (cases[i].trace == GIVEN), i);
        assert_row((s.id == 0xb7ad6b7169203331u) == (cases[i].span == GIVEN), i);
        assert_row(cases[i].trace == GIVEN || s.id == s.trace_low, i);
        assert_row(s.trace_high == 0, i);
    }
}

static void long_ids(void **state) {
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    struct headers h;
    request_make(&h, &f.arena, "host", "/", NULL);
    struct trace_start how = {.rng = &rng};
    struct trace_span s = {.start_us = 1700000000u * 1000000ull};
    zipkin_tracer.start(compile(GOOD "trace_id_128bit: true"), &how, &h, &s);
    assert_true(s.trace_high != 0 && s.trace_low == s.id);
    zipkin_tracer.start(compile(GOOD "trace_id_128bit: true timestamp_trace_ids: true"), &how, &h,
                        &s);
    assert_int_equal(s.trace_high >> 32, 1700000000u);
}

static const struct trace_tag tags[] = {
    {SV_INIT("a"), SV_INIT("1")},
    {SV_INIT("empty"), SV_INIT("")},
    {SV_INIT(""), SV_INIT("v")},
    {SV_INIT("quote"), SV_INIT("\"\\\n")},
    {SV_INIT("bytes"), SV_INIT("\xff\0x")},
    {SV_INIT("a"), SV_INIT("2")},
};
static const struct trace_event events[] = {{SV_INIT("e"), 5}};

static struct trace_report report(void) {
    return (struct trace_report){.tags = tags,
                                 .tags_n = ARRAY_LEN(tags),
                                 .events = events,
                                 .events_n = 1,
                                 .end_us = 30,
                                 .arena = &f.arena};
}

static const char *string(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static void json(void **state) {
    (void)state;
    struct addr at = {0};
    const struct zipkin_endpoint e = {SV("svc"), &at};
    const struct trace_span s = {.trace_low = 1,
                                 .id = 2,
                                 .parent_id = 3,
                                 .has_parent = true,
                                 .has_short_id = true,
                                 .is_shared = true,
                                 .start_us = 10,
                                 .name = SV("n\"")};
    struct trace_report r = report();
    struct buf b;
    buf_init(&b);
    zipkin_write_json(&s, &r, &e, &b);
    sv text = buf_pullup(&b, buf_len(&b));
    json_t *o = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    assert_non_null(o);
    assert_string_equal(string(o, "traceId"), "0000000000000001");
    assert_string_equal(string(o, "id"), "0000000000000002");
    assert_string_equal(string(o, "parentId"), "0000000000000003");
    assert_string_equal(string(o, "name"), "n\"");
    assert_string_equal(string(o, "kind"), "SERVER");
    assert_int_equal(json_integer_value(json_object_get(o, "timestamp")), 10);
    assert_int_equal(json_integer_value(json_object_get(o, "duration")), 20);
    assert_true(json_is_true(json_object_get(o, "shared")));
    const json_t *got = json_object_get(o, "tags");
    assert_int_equal(json_object_size(got), 3);
    assert_string_equal(string(got, "a"), "2");
    assert_string_equal(string(got, "quote"), "\"\\\n");
    assert_int_equal(json_array_size(json_object_get(o, "annotations")), 2);
    assert_null(json_object_get(json_object_get(o, "localEndpoint"), "ipv4"));
    json_decref(o);
    buf_fini(&b);
}

static void proto(void **state) {
    (void)state;
    struct addr at;
    addr_parse_ip(SV("::1"), 9, &at);
    const struct zipkin_endpoint e = {SV("svc"), &at};
    const struct trace_span s = {.trace_high = 1,
                                 .trace_low = 2,
                                 .id = 0x0102030405060708,
                                 .is_client = true,
                                 .start_us = 50,
                                 .name = SV("\xff")};
    struct trace_report r = report(); /* it ends before it began */
    struct buf b;
    buf_init(&b);
    zipkin_write_proto(&s, &r, &e, &b);
    zipkin_write_proto(&s, &r, &e, &b); /* one behind the other is a list */
    const Zipkin__ListOfSpans *list =
        PROTO_UNPACK(Zipkin__ListOfSpans, zipkin__list_of_spans__descriptor,
                     buf_pullup(&b, buf_len(&b)), &f.msgs, &f.diag);
    assert_non_null(list);
    assert_int_equal(list->n_spans, 2);
    const Zipkin__Span *m = list->spans[1];
    assert_int_equal(m->trace_id.len, 16);
    assert_memory_equal(m->id.data, "\1\2\3\4\5\6\7\10", 8);
    assert_int_equal(m->parent_id.len, 0);
    assert_int_equal(m->duration, 0);
    assert_int_equal(m->local_endpoint->ipv6.len, 16);
    assert_int_equal(m->local_endpoint->port, 9);
    assert_int_equal(m->n_tags, 3);
    assert_string_equal(m->name, "\xEF\xBF\xBD");
    assert_string_equal(m->tags[1]->value, "\xEF\xBF\xBD\xEF\xBF\xBDx");
    assert_string_equal(m->annotations[1]->value, "cr");
    assert_false(m->shared);
    buf_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused, begin, finish),
        cmocka_unit_test_setup_teardown(ids, begin, finish),
        cmocka_unit_test_setup_teardown(long_ids, begin, finish),
        cmocka_unit_test_setup_teardown(json, begin, finish),
        cmocka_unit_test_setup_teardown(proto, begin, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
