/* Flattening of runtime layers that come as messages. */
#include "proxy/config/runtime_values.h"

#include "protos/any.h"
#include "protos/gen/pb.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/mem.h"
#include "tests/support/unit.h"

struct row {
    const char *json, *want; /* "key=text …" in any order of one key; or the error */
    bool is_error;
};

static const struct row rows[] = {
    {"{}", "", false},
    {"{\"a\": 1}", "a=1 ", false},
    {"{\"a\": 1.5}", "a=1.5 ", false},
    {"{\"a\": \"x y\"}", "a=x y ", false},
    {"{\"a\": true}", "a=true ", false},
    {"{\"a\": {}}", "", false},
    {"{\"a\": {\"b\": {\"c\": false}}}", "a.b.c=false ", false},
    {"{\"a.b\": 1}", "a.b=1 ", false},
    {"{\"a\": {\"numerator\": 5}}", "a={\"numerator\":5} ", false},
    {"{\"numerator\": 5}", "numerator=5 ", false}, /* at the top it is a key like any other */
    {"{\"a\": null}", "Invalid runtime entry value for a", true},
    {"{\"a\": [1]}", "Invalid runtime entry value for a", true},
    {"{\"a\": {\"b\": []}}", "Invalid runtime entry value for a.b", true},
    {"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{"
     "\"a\":{\"a\":"
     "{\"a\":{\"a\":1}}}}}}}}}}}}}}}}}",
     "Invalid runtime entry value for a.a.", true},
};

static void flattened(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena a;
        struct diag d;
        struct runtime_values v;
        arena_init(&a, 0);
        diag_init(&d);
        const struct proto_type *t = any_type(SV("google.protobuf.Struct"));
        ProtobufCMessage *m =
            pb_json_parse_text(t, sv_cstr(rows[i].json), PB_JSON_UNKNOWN_ERROR, &a, &d);
        assert_non_null(m);
        bool ok = runtime_values_compile(&a, m, &v, &d);
        assert_int_equal(ok, !rows[i].is_error);
        struct buf BUF_AUTO text;
        buf_init(&text);
        for (unsigned k = 0; ok && k < v.n; k++) {
            buf_printf(&text, "%.*s=%.*s ", SV_ARG(v.v[k].key), SV_ARG(v.v[k].text));
        }
        sv got = ok ? buf_pullup(&text, buf_len(&text)) : diag_text(&d);
        if (!sv_starts(got, sv_cstr(rows[i].want)) || (ok && got.n != strlen(rows[i].want))) {
            fail_msg("%s: %.*s", rows[i].json, SV_ARG(got));
        }
        diag_fini(&d);
        arena_fini(&a);
    }
    chunk_cache_trim();
}

static void no_message_is_an_empty_layer(void **state) {
    (void)state;
    struct arena a;
    struct diag d;
    struct runtime_values v = {.n = 1};
    arena_init(&a, 0);
    diag_init(&d);
    assert_true(runtime_values_compile(&a, NULL, &v, &d));
    assert_int_equal(v.n, 0);
    diag_fini(&d);
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flattened),
        cmocka_unit_test(no_message_is_an_empty_layer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
