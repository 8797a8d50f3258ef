/* Text format: its tokens, lists, maps, Any, and errors with their line. */
#include "protos/pb_text.h"

#include "protos/gen/core.pb-c.h"
#include "tests/support/pb.h"

#define NODE "envoy.config.core.v3.Node"
#define CLUSTER "envoy.config.cluster.v3.Cluster"

static void test_taken(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *type, *in, *json;
    } rows[] = {
        {NODE, "", "{}"},
        {NODE, "# only a comment", "{}"},
        {NODE, "id: \"a\" cluster: 'b'", "{\"id\":\"a\",\"cluster\":\"b\"}"},
        {NODE, "id: \"a\", cluster: 'b';", "{\"id\":\"a\",\"cluster\":\"b\"}"},
        {NODE, "id: 'a' # c\n 'b' \"c\"", "{\"id\":\"abc\"}"},
        {NODE, "id: 'q\\'\\\"\\n\\t\\x41\\101\\u00e9\\U0001f600\\\\'",
         "{\"id\":\"q'\\\"\\n\\tAA\xc3\xa9\xf0\x9f\x98\x80\\\\\"}"},
        {NODE, "locality { zone: 'z' }", "{\"locality\":{\"zone\":\"z\"}}"},
        {NODE, "locality: < zone: 'z' >", "{\"locality\":{\"zone\":\"z\"}}"},
        {NODE, "client_features: ['a', 'b'] client_features: 'c'",
         "{\"client_features\":[\"a\",\"b\",\"c\"]}"},
        {NODE, "client_features: []", "{}"},
        {NODE, "metadata { fields { key: 'k' value { number_value: -1.5e1 } } }",
         "{\"metadata\":{\"k\":-15}}"},
        {"envoy.config.listener.v3.FilterChainMatch", "source_ports: [1, 0x10, 010]",
         "{\"source_ports\":[1,16,8]}"},
        {CLUSTER, "type: EDS lb_policy: 2 respect_dns_ttl: true",
         "{\"type\":\"EDS\",\"lb_policy\":\"RING_HASH\",\"respect_dns_ttl\":true}"},
        {CLUSTER, "health_checks { alt_port { value: 5 } } health_checks: { }",
         "{\"health_checks\":[{\"alt_port\":5},{}]}"},
        {CLUSTER, "health_checks: [{ }, < > ]", "{\"health_checks\":[{},{}]}"},
        {"google.protobuf.DoubleValue", "value: inf", "\"Infinity\""},
        {"google.protobuf.DoubleValue", "value: -infinity", "\"-Infinity\""},
        {"google.protobuf.DoubleValue", "value: nan", "\"NaN\""},
        {"google.protobuf.DoubleValue", "value: 1.5f", "1.5"},
        {"google.protobuf.DoubleValue", "value: .5", "0.5"},
        {"google.protobuf.DoubleValue", "value: 1e-3", "0.001"},
        {"google.protobuf.FloatValue", "value: 3", "3"},
        {"google.protobuf.Int64Value", "value: -9223372036854775808", "\"-9223372036854775808\""},
        {"google.protobuf.UInt64Value", "value: 18446744073709551615", "\"18446744073709551615\""},
        {"google.protobuf.Int32Value", "value: - 5", "-5"},
        {"google.protobuf.BoolValue", "value: t", "true"},
        {"google.protobuf.BytesValue", "value: '\\377\\000'", "\"/wA=\""},
        {"google.protobuf.Any", "[type.googleapis.com/envoy.config.core.v3.Locality] { zone: 'z' }",
         "{\"@type\":\"type.googleapis.com/envoy.config.core.v3.Locality\",\"zone\":\"z\"}"},
        {"google.protobuf.Any", "[ t/envoy.config.core.v3.Locality ]: < >",
         "{\"@type\":\"t/envoy.config.core.v3.Locality\"}"},
        {"google.protobuf.Any", "type_url: 't/foo.Bar' value: 'x'",
         "{\"@type\":\"t/foo.Bar\",\"value\":\"eA==\"}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out BUF_AUTO;
        buf_init(&out);
        pb_json_append(&out, pb_make(f, rows[i].type, rows[i].in), 0, 0);
        assert_sv_is(buf_pullup(&out, buf_len(&out)), rows[i].json);
    }
}

static void test_refused(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *type, *in, *error;
    } rows[] = {
        {NODE, "foo: 1", "line 1: message " NODE " has no field 'foo'"},
        {NODE, "\n\nid: 5", "line 3: expected a string, not '5'"},
        {NODE, "id 'a'", "line 1: expected : before 'a'"},
        {NODE, "id: 'a", "line 1: string without its closing quote"},
        {NODE, "id: 'a\n'", "line 1: string without its closing quote"},
        {NODE, "id: 'a\\", "line 1: string without its closing quote"},
        {NODE, "id: '\\z'", "line 1: bad escape in string"},
        {NODE, "id: '\\u12'", "line 1: bad escape in string"},
        {NODE, "id: '\\777'", "line 1: bad escape in string"},
        {NODE, "id: '\\000'", "line 1: string is not UTF-8 text"},
        {NODE, "id: '\\377'", "line 1: string is not UTF-8 text"},
        {NODE, "id: 'a' id: 'b'", "line 1: field or its oneof is set twice: 'id'"},
        {NODE, "locality { zone: 'a'", "line 1: expected a field name, not"},
        {NODE, "locality { zone: 'a' >", "line 1: expected a field name, not '>'"},
        {NODE, "locality: 5", "line 1: expected { before '5'"},
        {NODE, "}", "line 1: expected a field name, not '}'"},
        {NODE, "\x01", "line 1: unexpected character"},
        {NODE, "client_features: ['a' 5]", "line 1: expected , before '5'"},
        {NODE, "client_features: ['a'", "line 1: expected , before"},
        {CLUSTER, "type: NOPE", "line 1: unknown enum value 'NOPE'"},
        {CLUSTER, "type: EDS cluster_type { }",
         "line 1: field or its oneof is set twice: 'cluster_type'"},
        {CLUSTER, "respect_dns_ttl: yes", "line 1: expected true or false, not 'yes'"},
        {"google.protobuf.UInt32Value", "value: 4294967296",
         "line 1: number out of range: '4294967296'"},
        {"google.protobuf.UInt32Value", "value: -1", "line 1: number out of range: '1'"},
        {"google.protobuf.Int32Value", "value: 2147483648",
         "line 1: number out of range: '2147483648'"},
        {"google.protobuf.Int32Value", "value: 1.5", "line 1: expected an integer, not '1.5'"},
        {"google.protobuf.Int32Value", "value: x", "line 1: expected an integer, not 'x'"},
        {"google.protobuf.DoubleValue", "value: 1x", "line 1: expected a number, not '1x'"},
        {"google.protobuf.Any", "[foo.Bar] { }", "line 1: unknown type 'foo.Bar'"},
        {"google.protobuf.Any", "[\xff/google.protobuf.Empty] { }",
         "line 1: expected a type URL in brackets"},
        {"google.protobuf.Any", "[foo.Bar", "line 1: expected a type URL in brackets"},
        {NODE, "[t/envoy.config.core.v3.Node] { }", "line 1: expected a field name, not '['"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct proto_type *t = proto_type_find(sv_cstr(rows[i].type));
        assert_row(!pb_text_parse(t, sv_cstr(rows[i].in), &f->a, &f->d), i);
        assert_errors(f, arena_printf(&f->a, "text format: %s", rows[i].error).p);
    }
}

static void test_depth(void **state) {
    struct pb_fixture *f = *state;
    struct buf text BUF_AUTO;
    buf_init(&text);
    for (unsigned i = 0; i < PB_TEXT_DEPTH_MAX / 2 + 1; i++) {
        buf_lit(&text, "list_value { values { ");
    }
    const struct proto_type *t = proto_type_find(SV("google.protobuf.Value"));
    assert_null(pb_text_parse(t, buf_pullup(&text, buf_len(&text)), &f->a, &f->d));
    assert_errors(f, "text format: line 1: nested too deeply");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_taken),
        PB_TEST(test_refused),
        PB_TEST(test_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
