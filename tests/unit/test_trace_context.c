/* Contexts in headers: what is read, what is refused, and what is written for it. */
#include "filters/common/trace_context.h"
#include "tests/support/route.h"

#define T "463ac35c9f6413ad"
#define L "80f198ee56343ba864fe8b2a57d3eff7"
#define S "b7ad6b7169203331"
#define P "00f067aa0ba902b7"
#define HIGH 0x80f198ee56343ba8u
#define LOW 0x64fe8b2a57d3eff7u
#define SPAN 0xb7ad6b7169203331u
#define PARENT 0x00f067aa0ba902b7u

enum sampled { UNKNOWN, NO, YES };
struct row {
    const char *headers;
    enum trace_context_result want;
    enum sampled sampled;
    uint64_t high, low, span, parent; /* when FOUND */
};
#define NONE TRACE_CONTEXT_NONE
#define FOUND TRACE_CONTEXT_FOUND
#define BROKEN TRACE_CONTEXT_BROKEN
#define MANY(t, s) "x-b3-traceid: " t "\nx-b3-spanid: " s
#define IDS(p) HIGH, LOW, SPAN, (p)

static const struct row b3[] = {
    {NULL, NONE, UNKNOWN, 0, 0, 0, 0},
    {MANY(T, S), FOUND, UNKNOWN, 0, 0x463ac35c9f6413adu, SPAN, 0},
    {MANY(L, S) "\nx-b3-sampled: 1", FOUND, YES, IDS(0)},
    {MANY(L, S) "\nx-b3-sampled: true\nx-b3-parentspanid: " P, FOUND, YES, IDS(PARENT)},
    {MANY(L, S) "\nx-b3-sampled: 0", FOUND, NO, IDS(0)},
    {MANY(L, S) "\nx-b3-sampled: d", FOUND, NO, IDS(0)},
    {MANY(L, S) "\nx-b3-sampled: ", FOUND, NO, IDS(0)},
    {MANY(L, S) "\nx-b3-flags: 1", FOUND, UNKNOWN, IDS(0)},
    {MANY("1", "aB"), FOUND, UNKNOWN, 0, 1, 0xab, 0},
    {"x-b3-sampled: 1", NONE, YES, 0, 0, 0, 0},
    {"x-b3-traceid: " T, NONE, UNKNOWN, 0, 0, 0, 0},
    {"x-b3-spanid: " S, NONE, UNKNOWN, 0, 0, 0, 0},
    {MANY("", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY(T, ""), BROKEN, 0, 0, 0, 0, 0},
    {MANY("x", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY("0x1", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY("-1", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY(T "0", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY(L "0", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY("x0f198ee56343ba864fe8b2a57d3eff7", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY("80f198ee56343ba864fe8b2a57d3eff ", S), BROKEN, 0, 0, 0, 0, 0},
    {MANY(T, S "0"), BROKEN, 0, 0, 0, 0, 0},
    {MANY(T, S) "\nx-b3-parentspanid: q", BROKEN, 0, 0, 0, 0, 0},
    {MANY(T, S) "\nx-b3-parentspanid: ", FOUND, UNKNOWN, 0, 0x463ac35c9f6413adu, SPAN, 0},
    {"b3: 1", NONE, YES, 0, 0, 0, 0},
    {"b3: d", NONE, YES, 0, 0, 0, 0},
    {"b3: 0", NONE, NO, 0, 0, 0, 0},
    {"b3: " L "-" S, FOUND, UNKNOWN, IDS(0)},
    {"b3: " L "-" S "-1", FOUND, YES, IDS(0)},
    {"b3: " L "-" S "-0-" P, FOUND, NO, IDS(PARENT)},
    {"b3: " T "-" S "-d-" P, FOUND, YES, 0, 0x463ac35c9f6413adu, SPAN, PARENT},
    {"b3: 0\n" MANY(T, S), NONE, NO, 0, 0, 0, 0}, /* the others are not looked at */
    {"b3: ", BROKEN, 0, 0, 0, 0, 0},
    {"b3: x", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T, BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "0-" S, BROKEN, 0, 0, 0, 0, 0},
    {"b3: " L "0-" S, BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "_" S, BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-b7ad6b716920333", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-x", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-11", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "_1", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-1-", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-1-00f067aa0ba902b", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-1-" P "-", BROKEN, 0, 0, 0, 0, 0},
    {"b3: " T "-" S "-" P, BROKEN, 0, 0, 0, 0, 0},
};

static const struct row w3c[] = {
    {NULL, NONE, UNKNOWN, 0, 0, 0, 0},
    {"tracestate: a=b", NONE, UNKNOWN, 0, 0, 0, 0},
    {"traceparent: 00-" L "-" S "-01", FOUND, YES, IDS(0)},
    {"traceparent: 00-" L "-" S "-00", FOUND, NO, IDS(0)},
    {"traceparent: 00-" L "-" S "-02", FOUND, NO, IDS(0)},
    {"traceparent: ff-" L "-" S "-ff", FOUND, YES, IDS(0)},
    {"traceparent: 00-" L "-" S "-01\ntraceparent: x", FOUND, YES, IDS(0)},
    {"traceparent: ", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-" S "-0", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-" S "-011", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-" S "-01-more", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00_" L "-" S "-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "_" S "-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-" S "_01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: xx-" L "-" S "-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-x0f198ee56343ba864fe8b2a57d3eff7-" S "-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-80f198ee56343ba8x4fe8b2a57d3eff7-" S "-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-x7ad6b7169203331-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-" S "-0x", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-00000000000000000000000000000000-" S "-01", BROKEN, 0, 0, 0, 0, 0},
    {"traceparent: 00-" L "-0000000000000000-01", BROKEN, 0, 0, 0, 0, 0},
};

typedef enum trace_context_result (*extract_fn)(const struct headers *h, struct trace_context *out);

static void check(const struct row *rows, size_t n, extract_fn extract) {
    for (size_t i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        struct arena a;
        struct headers h;
        struct trace_context c;
        arena_init(&a, 0);
        request_make(&h, &a, "h", "/", r->headers);
        assert_row(extract(&h, &c) == r->want, i);
        if (r->want != BROKEN) {
            assert_row(c.has_sampled == (r->sampled != UNKNOWN), i);
            assert_row(!c.has_sampled || c.is_sampled == (r->sampled == YES), i);
            assert_row(c.trace_high == r->high && c.trace_low == r->low, i);
            assert_row(c.span == r->span && c.parent == r->parent, i);
        }
        arena_fini(&a);
    }
}

static void b3_is_read(void **state) {
    (void)state;
    check(b3, ARRAY_LEN(b3), trace_context_b3);
}
static void w3c_is_read(void **state) {
    (void)state;
    check(w3c, ARRAY_LEN(w3c), trace_context_w3c);
}

static void hex(void **state) {
    (void)state;
    static const char *const bad[] = {"", "g", " 1", "1 ", "0x1", "+1", "00000000000000001"};
    uint64_t v;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(!trace_hex_parse(sv_cstr(bad[i]), &v), i);
    }
    assert_true(trace_hex_parse(SV("ffffFFFFffffFFFF"), &v) && v == UINT64_MAX);
}

static void is_written(void **state) {
    (void)state;
    struct arena a;
    struct headers h;
    arena_init(&a, 0);
    struct trace_span s = {.trace_high = HIGH, .trace_low = LOW, .id = SPAN, .is_sampled = true};
    request_make(&h, &a, "h", "/", "x-b3-sampled: 0\ntraceparent: x\ntraceparent: y");
    trace_inject_b3(&s, &h);
    trace_inject_traceparent(&s, &h);
    assert_sv_is(headers_get(&h, HDR_x_b3_traceid), L);
    assert_sv_is(headers_get(&h, HDR_x_b3_spanid), S);
    assert_sv_is(headers_get(&h, HDR_x_b3_sampled), "1");
    assert_false(headers_has(&h, HDR_x_b3_parentspanid));
    assert_sv_is(headers_joined(&h, HDR_traceparent, SV("traceparent"), &a), "00-" L "-" S "-01");
    s = (struct trace_span){.trace_low = 1,
                            .id = 2,
                            .parent_id = 3,
                            .has_parent = true,
                            .has_short_id = true,
                            .uses_single_b3 = true};
    trace_inject_b3(&s, &h);
    trace_inject_traceparent(&s, &h);
    assert_sv_is(headers_get(&h, HDR_b3), "0000000000000001-0000000000000002-0-0000000000000003");
    assert_sv_is(headers_get(&h, HDR_traceparent),
                 "00-00000000000000000000000000000001-0000000000000002-00");
    s.uses_single_b3 = false;
    trace_inject_b3(&s, &h);
    assert_sv_is(headers_get(&h, HDR_x_b3_traceid), "0000000000000001");
    assert_sv_is(headers_get(&h, HDR_x_b3_parentspanid), "0000000000000003");
    assert_sv_is(headers_get(&h, HDR_x_b3_sampled), "0");
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(b3_is_read), cmocka_unit_test(w3c_is_read),
                                       cmocka_unit_test(hex), cmocka_unit_test(is_written)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
