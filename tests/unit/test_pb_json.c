/* JSON both ways: what Envoy's loader takes, each error with its path, redaction, Any. Random
 * messages over all types are held against Python's json_format in
 * tests/integration/test_protos.py. */
#include "protos/pb_json.h"

#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/cluster.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "tests/support/pb.h"

#define CLUSTER "envoy.config.cluster.v3.Cluster"
#define BOOTSTRAP "envoy.config.bootstrap.v3.Bootstrap"

static ProtobufCMessage *parse(struct pb_fixture *f, const char *type, const char *json) {
    return pb_json_parse_text(proto_type_find(sv_cstr(type)), sv_cstr(json), PB_JSON_UNKNOWN_ERROR,
                              &f->a, &f->d);
}

static sv text_of(struct pb_fixture *f, const ProtobufCMessage *m, unsigned flags) {
    struct buf out BUF_AUTO;
    buf_init(&out);
    pb_json_append(&out, m, flags, 0);
    return arena_sv(&f->a, buf_pullup(&out, buf_len(&out)));
}

/* Each is read and written again: as itself when `out` is NULL. */
static void test_taken(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *type, *in, *out;
    } rows[] = {
        {CLUSTER, "{}", NULL},
        {CLUSTER, "{\"name\":\"c\",\"type\":\"EDS\"}", NULL},
        {CLUSTER, "{\"connectTimeout\":\"5s\"}", "{\"connect_timeout\":\"5s\"}"},
        {CLUSTER, "{\"connect_timeout\":\"0.25s\"}", "{\"connect_timeout\":\"0.250s\"}"},
        {CLUSTER, "{\"type\":3}", "{\"type\":\"EDS\"}"},
        {CLUSTER, "{\"lb_policy\":\"2\"}", "{\"lb_policy\":\"RING_HASH\"}"},
        {CLUSTER, "{\"lb_policy\":77}", NULL},
        {CLUSTER, "{\"respect_dns_ttl\":\"true\"}", "{\"respect_dns_ttl\":true}"},
        {CLUSTER, "{\"name\":\"a\",\"name\":\"b\"}", "{\"name\":\"b\"}"},
        {CLUSTER, "{\"name\":null,\"connect_timeout\":null,\"health_checks\":null}", "{}"},
        {CLUSTER, "{\"health_checks\":[null,{}]}", "{\"health_checks\":[{},{}]}"},
        {CLUSTER, "{\"health_checks\":{\"alt_port\":5}}", "{\"health_checks\":[{\"alt_port\":5}]}"},
        {CLUSTER, "{\"max_requests_per_connection\":\"5\"}", "{\"max_requests_per_connection\":5}"},
        {CLUSTER, "{\"max_requests_per_connection\":1e3}",
         "{\"max_requests_per_connection\":1000}"},
        {CLUSTER, "{\"max_requests_per_connection\":\"1e3\"}",
         "{\"max_requests_per_connection\":1000}"},
        {CLUSTER, "{\"max_requests_per_connection\":{\"value\":5}}",
         "{\"max_requests_per_connection\":5}"},
        {CLUSTER, "{\"outlier_detection\":{\"enforcingConsecutive5xx\":1,\"consecutive_5xx\":2}}",
         "{\"outlier_detection\":{\"consecutive_5xx\":2,\"enforcing_consecutive_5xx\":1}}"},
        {CLUSTER,
         "{\"metadata\":{\"filter_metadata\":{\"k\":{\"a\":[1,null,\"x\",{\"b\":true}]}}}}", NULL},
        {"google.protobuf.Value", "null", NULL},
        {"google.protobuf.Value", "[1,2.5,\"x\",null,{}]", NULL},
        {"google.protobuf.UInt64Value", "\"18446744073709551615\"", NULL},
        {"google.protobuf.Int64Value", "-9223372036854775808", "\"-9223372036854775808\""},
        {"google.protobuf.DoubleValue", "\"-Infinity\"", NULL},
        {"google.protobuf.DoubleValue", "\"1.5\"", "1.5"},
        {"google.protobuf.FloatValue", "0.1", NULL},
        {"google.protobuf.BytesValue", "\"__-_\"", "\"//+/\""},
        {"google.protobuf.BoolValue", "false", NULL},
        {"google.protobuf.FieldMask", "\"fooBar.baz,q\"", NULL},
        {"google.protobuf.FieldMask", "\"\"", NULL},
        {"google.protobuf.Timestamp", "\"2026-11-22T22:00:00Z\"", NULL},
        {"google.protobuf.Any", "{}", NULL},
        /* as lenient as Envoy's parser */
        {CLUSTER, "{\"type\":\"strict_dns\",\"dns_lookup_family\":\"V4_Only\"}",
         "{\"type\":\"STRICT_DNS\",\"dns_lookup_family\":\"V4_ONLY\"}"},
        {CLUSTER, "{\"connect_timeout\":{\"seconds\":\"1\",\"nanos\":500000000}}",
         "{\"connect_timeout\":\"1.500s\"}"},
        {CLUSTER, "{\"connect_timeout\":{}}", "{\"connect_timeout\":\"0s\"}"},
        {"google.protobuf.Timestamp", "{\"seconds\":1}", "\"1970-01-01T00:00:01Z\""},
        {"google.protobuf.Any",
         "{\"@type\":\"type.googleapis.com/envoy.config.core.v3.Locality\",\"zone\":\"z\"}", NULL},
        {"google.protobuf.Any",
         "{\"@type\":\"type.googleapis.com/google.protobuf.Duration\",\"value\":\"3s\"}", NULL},
        {"google.protobuf.Any", "{\"@type\":\"x/google.protobuf.Empty\"}", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const ProtobufCMessage *m = parse(f, rows[i].type, rows[i].in);
        assert_row(m != NULL, i);
        assert_sv_is(text_of(f, m, 0), rows[i].out ? rows[i].out : rows[i].in);
    }
}

static void test_refused(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *type, *in, *error;
    } rows[] = {
        {BOOTSTRAP, "{\"node\":{\"id\":5}}", "node.id: expected string"},
        {BOOTSTRAP, "{\"static_resources\":{\"clusters\":[\"x\"]}}",
         "static_resources.clusters[0]: expected object for message " CLUSTER},
        {CLUSTER, "{\"connect_timeout\":\"5\"}",
         "connect_timeout: duration must end with a single 's': '5'"},
        {CLUSTER, "{\"connect_timeout\":5}",
         "connect_timeout: expected string for message google.protobuf.Duration"},
        {CLUSTER, "{\"connect_timeout\":[\"5s\"]}",
         "connect_timeout: expected string for message google.protobuf.Duration"},
        {CLUSTER, "{\"connect_timeout\":{\"nanos\":1.5}}",
         "connect_timeout.nanos: expected integer, but JSON number had fractional part"},
        {CLUSTER, "{\"connect_timeout\":{\"seconds\":315576000001}}",
         "connect_timeout: duration out of range"},
        {CLUSTER, "{\"connect_timeout\":{\"seconds\":1,\"nanos\":-1}}",
         "connect_timeout: duration out of range"},
        {CLUSTER, "{\"connect_timeout\":{\"nanos\":1000000000}}",
         "connect_timeout: duration out of range"},
        {CLUSTER, "{\"max_requests_per_connection\":\"abc\"}",
         "max_requests_per_connection: invalid number: 'abc'"},
        {CLUSTER, "{\"max_requests_per_connection\":-1}",
         "max_requests_per_connection: JSON number out of range for int"},
        {CLUSTER, "{\"max_requests_per_connection\":4294967296}",
         "max_requests_per_connection: JSON number out of range for int"},
        {CLUSTER, "{\"max_requests_per_connection\":1.5}",
         "max_requests_per_connection: expected integer, but JSON number had fractional part"},
        {CLUSTER, "{\"max_requests_per_connection\":1e300}",
         "max_requests_per_connection: JSON number out of range for int"},
        {CLUSTER, "{\"max_requests_per_connection\":true}",
         "max_requests_per_connection: expected integer"},
        {CLUSTER, "{\"lb_policy\":true}", "lb_policy: expected number or string"},
        {CLUSTER, "{\"respect_dns_ttl\":1}", "respect_dns_ttl: expected 'true' or 'false'"},
        {CLUSTER, "{\"type\":\"EDS\",\"cluster_type\":{}}",
         "cluster_type: 'cluster_type' has already been set (either directly or as part of a "
         "oneof)"},
        {CLUSTER, "{\"metadata\":{\"filter_metadata\":[]}}",
         "metadata.filter_metadata: expected object"},
        {CLUSTER, "{\"metadata\":{\"filter_metadata\":{\"k\":1}}}",
         "metadata.filter_metadata[\"k\"]: expected object for message google.protobuf.Struct"},
        {"google.protobuf.FloatValue", "1e39", "JSON number out of range for float"},
        {"google.protobuf.BytesValue", "\"?\"", "invalid base64"},
        {"google.protobuf.UInt64Value", "\"18446744073709551616\"",
         "JSON number out of range for int: '18446744073709551616'"},
        {"google.protobuf.Timestamp", "\"x\"",
         "invalid timestamp, expected RFC 3339 such as '2006-01-02T15:04:05Z': 'x'"},
        {"google.protobuf.Any", "{\"a\":1}", "missing @type in Any"},
        {"google.protobuf.Any", "{\"@type\":\"foo.Bar\"}",
         "@type must contain at least one / and a nonempty host; got: foo.Bar"},
        {"google.protobuf.Any", "{\"@type\":\"type.googleapis.com/foo.Bar\"}",
         "could not find @type 'type.googleapis.com/foo.Bar'"},
        {"google.protobuf.Any", "{\"@type\":\"t/google.protobuf.Duration\"}",
         "missing value in Any"},
        {CLUSTER, "[1]", "expected object for message " CLUSTER},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(!parse(f, rows[i].type, rows[i].in), i);
        assert_errors(f, rows[i].error);
    }
}

static void test_bad_text(void **state) {
    struct pb_fixture *f = *state;
    static const char *const rows[] = {
        "", "{", "{\"name\":}", "nul", "{} {}", "{\"name\":\"\\u0000\"}", "{\"name\":\"\xff\"}"};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(!parse(f, CLUSTER, rows[i]), i);
        sv text = diag_text(&f->d);
        assert_row(sv_starts(text, SV("Unable to parse JSON as proto (INVALID_ARGUMENT: ")), i);
        diag_reset(&f->d);
    }
}

static void test_all_errors_are_told(void **state) {
    struct pb_fixture *f = *state;
    assert_null(
        parse(f, BOOTSTRAP,
              "{\"node\":{\"id\":5,\"nope\":1},\"static_resources\":{\"clusters\":[{},{\"name\":"
              "[]}]}}"));
    assert_errors(f,
                  "node.id: expected string; node: Protobuf message (type "
                  "envoy.config.core.v3.Node reason INVALID_ARGUMENT: no such field: 'nope') has "
                  "unknown fields; static_resources.clusters[1].name: expected string");
}

static void test_unknown_policies(void **state) {
    struct pb_fixture *f = *state;
    const struct proto_type *t = proto_type_find(SV(CLUSTER));
    sv text = SV("{\"name\":\"c\",\"nope\":{\"x\":1},\"type\":\"NEW\"}");
    assert_null(pb_json_parse_text(t, text, PB_JSON_UNKNOWN_ERROR, &f->a, &f->d));
    assert_int_equal(diag_errors(&f->d), 2);
    diag_reset(&f->d);
    const ProtobufCMessage *m = pb_json_parse_text(t, text, PB_JSON_UNKNOWN_WARN, &f->a, &f->d);
    assert_non_null(m);
    assert_int_equal(f->d.warnings_, 2);
    assert_sv_is(f->d.warning_list_->text,
                 "Protobuf message (type " CLUSTER
                 " reason INVALID_ARGUMENT: no such field: 'nope') has unknown fields");
    diag_reset(&f->d);
    m = pb_json_parse_text(t, text, PB_JSON_UNKNOWN_SKIP, &f->a, &f->d);
    assert_sv_is(text_of(f, m, 0), "{\"name\":\"c\",\"type\":\"STATIC\"}");
    assert_int_equal(f->d.warnings_, 0);
}

static void test_depth(void **state) {
    struct pb_fixture *f = *state;
    char text[2 * PB_JSON_DEPTH_MAX + 1];
    for (unsigned levels = PB_JSON_DEPTH_MAX / 2; levels <= PB_JSON_DEPTH_MAX / 2 + 1; levels++) {
        memset(text, '[', levels); /* a Value and a ListValue each, the innermost has no Value */
        memset(text + levels, ']', levels);
        text[2 * levels] = '\0';
        bool ok = parse(f, "google.protobuf.Value", text) != NULL;
        assert_int_equal(ok, levels == PB_JSON_DEPTH_MAX / 2);
    }
    assert_true(sv_ends(diag_text(&f->d), SV("message is nested too deeply")));
}

#define TLS "envoy.extensions.transport_sockets.tls.v3."

static void test_redaction(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *type, *in, *out;
    } rows[] = {
        {TLS "TlsCertificate",
         "certificate_chain { filename: 'c' } private_key { inline_string: 'k' } "
         "password { inline_bytes: 'p' }",
         "{\"certificate_chain\":{\"filename\":\"c\"},\"private_key\":{\"inline_string\":"
         "\"[redacted]\"},\"password\":{\"inline_bytes\":\"W3JlZGFjdGVkXQ==\"}}"},
        {TLS "TlsSessionTicketKeys", "keys { filename: 'a' } keys { inline_bytes: 'b' }",
         "{\"keys\":[{\"filename\":\"[redacted]\"},{\"inline_bytes\":\"W3JlZGFjdGVkXQ==\"}]}"},
        {TLS "GenericSecret", "secret { environment_variable: 'E' }",
         "{\"secret\":{\"environment_variable\":\"[redacted]\"}}"},
        /* an Any under a sensitive field: all in it */
        {TLS "PrivateKeyProvider",
         "provider_name: 'p' typed_config { [t/envoy.config.core.v3.Node] { id: 'i' metadata { "
         "fields { key: 'k' value { string_value: 'v' } } fields { key: 'n' value { number_value: "
         "1 } } } } }",
         "{\"provider_name\":\"p\",\"typed_config\":{\"@type\":\"t/envoy.config.core.v3.Node\","
         "\"id\":\"[redacted]\",\"metadata\":{\"k\":\"[redacted]\",\"n\":null}}}"},
        {"google.protobuf.Any",
         "[t/" TLS "Secret] { name: 's' generic_secret { secret { inline_string: 'x' } } }",
         "{\"@type\":\"t/" TLS "Secret\",\"name\":\"s\",\"generic_secret\":{\"secret\":{"
         "\"inline_string\":\"[redacted]\"}}}"},
        /* TypedStruct: as the message it stands for */
        {"xds.type.v3.TypedStruct",
         "type_url: 't/" TLS "GenericSecret' value { fields { key: 'secret' value { struct_value { "
         "fields { key: 'inline_string' value { string_value: 'x' } } } } } }",
         "{\"type_url\":\"t/" TLS
         "GenericSecret\",\"value\":{\"secret\":{\"inline_string\":\"[redacted]\"}}}"},
        {"xds.type.v3.TypedStruct",
         "type_url: 't/foo.Bar' value { fields { key: 'a' value { string_value: 'x' } } }",
         "{\"type_url\":\"t/foo.Bar\",\"value\":{\"a\":\"x\"}}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const ProtobufCMessage *m = pb_make(f, rows[i].type, rows[i].in);
        assert_sv_is(text_of(f, m, PB_JSON_REDACT), rows[i].out);
    }
}

static void test_closed_any(void **state) {
    struct pb_fixture *f = *state;
    Pb__Any any = PB__ANY__INIT;
    any.type_url = "type.googleapis.com/foo.Bar";
    any.value = (ProtobufCBinaryData){2, (uint8_t[]){'h', 'i'}};
    assert_sv_is(text_of(f, &any.base, 0),
                 "{\"@type\":\"type.googleapis.com/foo.Bar\",\"value\":\"aGk=\"}");
    any.type_url = "type.googleapis.com/envoy.config.core.v3.Node";
    any.value = (ProtobufCBinaryData){2, (uint8_t[]){0x0a, 0xff}}; /* not bytes of one */
    assert_sv_is(
        text_of(f, &any.base, 0),
        "{\"@type\":\"type.googleapis.com/envoy.config.core.v3.Node\",\"value\":\"Cv8=\"}");
}

static void test_defaults(void **state) {
    struct pb_fixture *f = *state;
    const ProtobufCMessage *m = pb_make(f, "envoy.admin.v3.CertificateDetails", "path: 'p'");
    assert_sv_is(text_of(f, m, PB_JSON_DEFAULTS),
                 "{\"path\":\"p\",\"serial_number\":\"\",\"subject_alt_names\":[],"
                 "\"days_until_expiration\":\"0\"}");
    assert_sv_is(text_of(f, m, 0), "{\"path\":\"p\"}");
}

/* An Any in an Any in an Any …: shown as far as JSON goes, without running out of stack. */
static void test_endless_any(void **state) {
    struct pb_fixture *f = *state;
    Pb__Any any = PB__ANY__INIT, *m = &any;
    any.type_url = "t/google.protobuf.Any";
    for (int i = 0; i < 2000; i++) {
        m = any_pack(&m->base, &f->a);
    }
    sv text = text_of(f, &m->base, 0);
    assert_true(sv_contains(text, SV("null")));
    json_t *tree = json_loadb(text.p, text.n, 0, NULL);
    assert_non_null(tree);
    json_decref(tree);
}

static void test_struct_trees(void **state) {
    struct pb_fixture *f = *state;
    const char *in =
        "{\"a\":[1,2.5,\"x\",null,true,{\"b\":{}}],\"big\":1e+300,\"int\":9007199254740992}";
    const Pb__Struct *s = (const void *)parse(f, "google.protobuf.Struct", in);
    json_t *tree = pb_json_struct_tree(s);
    json_t *want = json_loads(in, 0, NULL);
    assert_true(json_equal(tree, want));
    json_decref(tree);
    json_decref(want);
    tree = pb_json_struct_tree(NULL);
    assert_int_equal(json_object_size(tree), 0);
    json_decref(tree);
    tree = pb_json_value_tree(NULL);
    assert_true(json_is_null(tree));
}

/* A oneof's empty string is a choice: it must survive packing. */
static void test_empty_oneof_string(void **state) {
    struct pb_fixture *f = *state;
    const ProtobufCMessage *m =
        parse(f, "envoy.config.core.v3.DataSource", "{\"inline_string\":\"\"}");
    sv wire = proto_pack(m, &f->a);
    const Core__DataSource *back =
        PROTO_UNPACK(Core__DataSource, core__data_source__descriptor, wire, &f->a, &f->d);
    assert_int_equal(back->specifier_case, CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING);
    assert_string_equal(back->inline_string, "");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_taken),
        PB_TEST(test_refused),
        PB_TEST(test_bad_text),
        PB_TEST(test_all_errors_are_told),
        PB_TEST(test_unknown_policies),
        PB_TEST(test_depth),
        PB_TEST(test_redaction),
        PB_TEST(test_closed_any),
        PB_TEST(test_defaults),
        PB_TEST(test_endless_any),
        PB_TEST(test_struct_trees),
        PB_TEST(test_empty_oneof_string),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
