/* Unpacking into arenas, Any with its errors, TypedStruct seen through. */
#include "protos/any.h"

#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_cors.pb-c.h"
#include "protos/gen/http_local_ratelimit.pb-c.h"
#include "tests/support/pb.h"

static void test_unpack_copies(void **state) {
    struct pb_fixture *f = *state;
    char wire[] = "\x0a\x03"
                  "one\x12\x03"
                  "two";
    Core__Node *n = PROTO_UNPACK(Core__Node, core__node__descriptor,
                                 sv_from(wire, sizeof(wire) - 1), &f->a, &f->d);
    memset(wire, 'x', sizeof(wire));
    assert_non_null(n);
    assert_string_equal(n->id, "one");
    assert_string_equal(n->cluster, "two");
    assert_string_equal(n->user_agent_name, "");
    assert_sv(proto_pack(&n->base, &f->a), SV("\x0a\x03"
                                              "one\x12\x03"
                                              "two"));
}

static void test_unpack_of_nothing(void **state) {
    struct pb_fixture *f = *state;
    Core__Node *n = PROTO_UNPACK(Core__Node, core__node__descriptor, SV_NULL, &f->a, &f->d);
    assert_non_null(n);
    assert_string_equal(n->id, "");
    assert_int_equal(proto_pack(&n->base, &f->a).n, 0);
}

static void test_unpack_refuses(void **state) {
    struct pb_fixture *f = *state;
    assert_null(proto_unpack(&core__node__descriptor, SV("\x0a\x01\xff"), &f->a, &f->d));
    assert_errors(f, "id: string is not valid UTF-8");
}

static void test_urls(void **state) {
    (void)state;
    assert_sv_is(any_url_name(SV("type.googleapis.com/a.B")), "a.B");
    assert_sv_is(any_url_name(SV("x/y/a.B")), "a.B");
    assert_sv_is(any_url_name(SV("a.B")), "a.B");
    assert_sv_is(any_url_name(SV("a/")), "");
    assert_ptr_equal(any_type(SV("whatever/envoy.config.core.v3.Node"))->desc,
                     &core__node__descriptor);
    assert_null(any_type(SV("type.googleapis.com/envoy.config.core.v3.Nope")));
    assert_null(any_type(SV_NULL));
}

static void test_pack_and_unpack(void **state) {
    struct pb_fixture *f = *state;
    Core__Node n = CORE__NODE__INIT;
    n.id = "here";
    Pb__Any *any = any_pack(&n.base, &f->a);
    assert_string_equal(any->type_url, "type.googleapis.com/envoy.config.core.v3.Node");
    Core__Node *back =
        ANY_UNPACK_AS(Core__Node, core__node__descriptor, any, SV("node"), &f->a, &f->d);
    assert_non_null(back);
    assert_string_equal(back->id, "here");
    assert_sv_is(any_inner_name(any, &f->a), "envoy.config.core.v3.Node");
    assert_null(any_unpack_as(any, &core__locality__descriptor, SV("node"), &f->a, &f->d));
    assert_errors(f, "'node' is configured by envoy.config.core.v3.Locality, not by "
                     "envoy.config.core.v3.Node");
}

static void test_unknown_types(void **state) {
    struct pb_fixture *f = *state;
    Pb__Any any = PB__ANY__INIT;
    any.type_url = "type.googleapis.com/foo.Bar";
    assert_null(any_unpack(&any, SV("my.filter"), &f->a, &f->d));
    assert_errors(f, "Didn't find a registered implementation for 'my.filter' with type URL: "
                     "'foo.Bar'");
    assert_null(any_unpack(NULL, SV("my.filter"), &f->a, &f->d));
    assert_errors(f, "Didn't find a registered implementation for 'my.filter' with type URL: ''");
    assert_sv_is(any_inner_name(&any, &f->a), "foo.Bar");
    assert_sv_is(any_inner_name(NULL, &f->a), "");
}

static void test_bad_payload(void **state) {
    struct pb_fixture *f = *state;
    Pb__Any any = PB__ANY__INIT;
    any.type_url = "t/envoy.config.core.v3.Node";
    any.value = (ProtobufCBinaryData){3, (uint8_t[]){0x0a, 1, 0xff}};
    assert_null(any_unpack(&any, SV("n"), &f->a, &f->d));
    assert_errors(f, "id: string is not valid UTF-8");
}

static const char rate_limit[] =
    "type_url: "
    "'type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit'"
    "value { fields { key: 'stat_prefix' value { string_value: 's' } }"
    "  fields { key: 'token_bucket' value { struct_value {"
    "    fields { key: 'max_tokens' value { number_value: 4 } }"
    "    fields { key: 'fill_interval' value { string_value: '60s' } } } } } }";

static void test_typed_struct(void **state) {
    struct pb_fixture *f = *state;
    static const char *const types[] = {"udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        const Pb__Any *any = any_pack(pb_make(f, types[i], rate_limit), &f->a);
        assert_sv_is(any_inner_name(any, &f->a),
                     "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit");
        HttpLocalRatelimit__LocalRateLimit *m = ANY_UNPACK_AS(
            HttpLocalRatelimit__LocalRateLimit, http_local_ratelimit__local_rate_limit__descriptor,
            any, SV("rl"), &f->a, &f->d);
        assert_non_null(m);
        assert_string_equal(m->stat_prefix, "s");
        assert_int_equal(m->token_bucket->max_tokens, 4);
        assert_int_equal(m->token_bucket->fill_interval->seconds, 60);
    }
}

static void test_bad_typed_structs(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"", "Didn't find a registered implementation for 'x' with type URL: ''"},
        {"type_url: 't/foo.Bar'",
         "Didn't find a registered implementation for 'x' with type URL: 'foo.Bar'"},
        {"type_url: 't/xds.type.v3.TypedStruct'",
         "Didn't find a registered implementation for 'x' with type URL: "
         "'xds.type.v3.TypedStruct'"},
        {"type_url: 't/envoy.config.core.v3.Node'"
         "value { fields { key: 'id' value { number_value: 1 } } }",
         "id: expected string"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const Pb__Any *any = any_pack(pb_make(f, "xds.type.v3.TypedStruct", rows[i].text), &f->a);
        assert_row(!any_unpack(any, SV("x"), &f->a, &f->d), i);
        assert_errors(f, rows[i].error);
    }
    const Pb__Any *any = any_pack(
        pb_make(f, "xds.type.v3.TypedStruct", "type_url: 't/envoy.config.core.v3.Node'"), &f->a);
    assert_non_null(any_unpack(any, SV("x"), &f->a, &f->d)); /* no value: an empty message */
}

/* Unknown fields, by number in bytes and by name in a TypedStruct, as the caller wants them. */
static void test_unknown_policies(void **state) {
    struct pb_fixture *f = *state;
    Pb__Any any = PB__ANY__INIT;
    any.type_url = "t/envoy.config.core.v3.Node";
    any.value = (ProtobufCBinaryData){3, (uint8_t[]){0xa0, 0x38, 1}}; /* field 900 */
    const char *text = "type_url: 't/envoy.config.core.v3.Node'"
                       "value { fields { key: 'nope' value { bool_value: true } } }";
    const Pb__Any *both[] = {&any, any_pack(pb_make(f, "xds.type.v3.TypedStruct", text), &f->a)};
    static const char *const errors[] = {
        "Protobuf message (type envoy.config.core.v3.Node with unknown field set {900}) has "
        "unknown fields",
        "Protobuf message (type envoy.config.core.v3.Node reason INVALID_ARGUMENT: no such field: "
        "'nope') has unknown fields"};
    for (size_t i = 0; i < ARRAY_LEN(both); i++) {
        assert_null(any_unpack_with(both[i], SV("x"), PB_JSON_UNKNOWN_ERROR, &f->a, &f->d));
        assert_errors(f, errors[i]);
        assert_non_null(any_unpack_with(both[i], SV("x"), PB_JSON_UNKNOWN_WARN, &f->a, &f->d));
        assert_int_equal(f->d.warnings_, 1);
        assert_sv_is(f->d.warning_list_->text, errors[i]);
        diag_reset(&f->d);
        assert_non_null(any_unpack(both[i], SV("x"), &f->a, &f->d));
        assert_int_equal(f->d.warnings_, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_unpack_copies),     PB_TEST(test_unpack_of_nothing),
        PB_TEST(test_unpack_refuses),    cmocka_unit_test(test_urls),
        PB_TEST(test_pack_and_unpack),   PB_TEST(test_unknown_types),
        PB_TEST(test_bad_payload),       PB_TEST(test_typed_struct),
        PB_TEST(test_bad_typed_structs), PB_TEST(test_unknown_policies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
