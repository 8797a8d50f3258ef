/* Unknown and deprecated fields, and those that nothing looks at, are found wherever they are, each
 * with its path. */
#include "protos/findings.h"

#include <stdio.h>

#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "tests/support/pb.h"

struct seen {
    struct diag *d;
    char text[1024];
    size_t n;
};

static void on_finding(void *arg, const struct finding *f) {
    struct seen *s = arg;
    sv path = diag_path(s->d);
    int n = snprintf(s->text + s->n, sizeof(s->text) - s->n, "%.*s:%d:%s:%s:%.*s;", SV_ARG(path),
                     (int)f->kind, f->field ? f->field : "", f->enum_value ? f->enum_value : "",
                     SV_ARG(f->numbers));
    s->n += (size_t)n;
}

static void assert_findings(struct pb_fixture *f, const ProtobufCMessage *m, const char *want) {
    struct seen s = {.d = &f->d};
    findings_walk(m, &f->d, on_finding, &s);
    assert_string_equal(s.text, want);
    assert_true(diag_ok(&f->d));
    assert_int_equal(diag_path(&f->d).n, 0);
}

static void test_nothing(void **state) {
    struct pb_fixture *f = *state;
    assert_findings(f, pb_make(f, "envoy.config.core.v3.Node", "id: 'a' locality { zone: 'b' }"),
                    "");
}

static void test_unknown_fields(void **state) {
    struct pb_fixture *f = *state;
    sv wire = SV("\x0a\x01"
                 "a\xa0\x38\x05\xaa\x38\x01"
                 "b"); /* field 900 is a number, 901 bytes */
    const ProtobufCMessage *m = proto_unpack(&core__node__descriptor, wire, &f->a, &f->d);
    assert_non_null(m);
    assert_findings(f, m, ":0:::900, 901;");
    assert_int_equal(findings_unknown_fields(m, true, &f->d), 1);
    assert_errors(f, "Protobuf message (type envoy.config.core.v3.Node with unknown field set "
                     "{900, 901}) has unknown fields");
    assert_int_equal(findings_unknown_fields(m, false, &f->d), 1);
    assert_true(diag_ok(&f->d));
    assert_int_equal(f->d.warnings_, 1);
}

static void test_unknown_fields_within(void **state) {
    struct pb_fixture *f = *state;
    /* clusters[1] of static_resources has field 900 */
    sv wire = SV("\x12\x07\x12\x00\x12\x03\xa0\x38\x01");
    const ProtobufCMessage *m = proto_unpack(&bootstrap__bootstrap__descriptor, wire, &f->a, &f->d);
    assert_non_null(m);
    assert_findings(f, m, "static_resources.clusters[1]:0:::900;");
}

static void test_deprecated(void **state) {
    struct pb_fixture *f = *state;
    assert_findings(
        f,
        pb_make(f, "envoy.config.bootstrap.v3.Bootstrap",
                "use_tcp_for_dns_lookups: true "
                "static_resources { clusters { max_requests_per_connection { value: 1 } "
                "dns_resolvers { } dns_resolvers { } } }"),
        "static_resources.clusters[0].max_requests_per_connection:1:"
        "max_requests_per_connection::;"
        "static_resources.clusters[0].dns_resolvers:1:dns_resolvers::;"
        "use_tcp_for_dns_lookups:1:use_tcp_for_dns_lookups::;"
        "use_tcp_for_dns_lookups:5:use_tcp_for_dns_lookups::;");
}

/* A value may be deprecated that is the default: leaving the field out is using it. */
static void test_deprecated_values(void **state) {
    struct pb_fixture *f = *state;
    const char *zipkin = "envoy.config.trace.v3.ZipkinConfig";
    assert_findings(f, pb_make(f, zipkin, "collector_endpoint_version: HTTP_JSON"), "");
    assert_findings(f, pb_make(f, zipkin, ""),
                    "collector_endpoint_version:4:collector_endpoint_version:"
                    "DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE:;");
    assert_findings(f,
                    pb_make(f, "envoy.config.core.v3.ApiConfigSource",
                            "api_type: GRPC transport_api_version: V2"),
                    "transport_api_version:3:transport_api_version:V2:;");
}

/* --- fields that nothing looks at --- */

static void append_tag(struct buf *b, unsigned number, unsigned wire_type) {
    unsigned tag = number << 3 | wire_type;
    char bytes[2] = {(char)(tag > 127 ? (tag & 127) | 128 : tag), (char)(tag >> 7)};
    buf_append_sv(b, sv_from(bytes, tag > 127 ? 2 : 1));
}

/* A message of `t` with field `i` set to something that is not its default. */
static const ProtobufCMessage *with_field(struct pb_fixture *f, const struct proto_type *t,
                                          unsigned i) {
    const ProtobufCFieldDescriptor *d = &t->desc->fields[i];
    struct buf BUF_AUTO wire;
    buf_init(&wire);
    switch (d->type) {
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
        append_tag(&wire, d->id, 2);
        buf_lit(&wire, "\1x");
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        append_tag(&wire, d->id, 2);
        buf_append_sv(&wire, sv_from("", 1)); /* empty */
        break;
    default: /* no field of floating point is among them: it would not unpack */
        append_tag(&wire, d->id, 0);
        buf_lit(&wire, "\1");
        break;
    }
    return proto_unpack(t->desc, buf_pullup(&wire, buf_len(&wire)), &f->a, &f->d);
}

/* Each is told of when it is set, with its path and as support.txt says. */
static void test_every_unsupported_field(void **state) {
    struct pb_fixture *f = *state;
    unsigned seen = 0;
    for (size_t k = 0; k < proto_types_n; k++) {
        const struct proto_type *t = &proto_types[k];
        for (unsigned i = 0; i < t->desc->n_fields; i++) {
            bool is_refused = t->fields[i].flags & PROTO_FIELD_REFUSED;
            if (!is_refused && !(t->fields[i].flags & PROTO_FIELD_UNHONOURED)) {
                continue;
            }
            const ProtobufCMessage *m = with_field(f, t, i);
            assert_non_null(m);
            assert_int_equal(findings_check(m, PB_JSON_UNKNOWN_ERROR, &f->d), !is_refused);
            sv text = is_refused ? diag_text(&f->d) : diag_warnings(&f->d)->text;
            const char *name = t->desc->fields[i].name;
            assert_memory_equal(text.p, name, strlen(name));
            assert_true(
                sv_ends(text, is_refused ? SV(": not supported") : SV(": has no effect here")));
            assert_int_equal(diag_errors(&f->d) + f->d.warnings_, 1);
            diag_reset(&f->d);
            seen++;
        }
    }
    assert_true(seen > 20);
}

static void test_paths_of_unsupported_fields(void **state) {
    struct pb_fixture *f = *state;
    const ProtobufCMessage *m =
        pb_make(f, "envoy.config.endpoint.v3.ClusterLoadAssignment",
                "endpoints { } endpoints { lb_endpoints { endpoint { observability_name: 'a' "
                "address { socket_address { named_port: 'http' } } } } }");
    assert_false(findings_check(m, PB_JSON_UNKNOWN_SKIP, &f->d));
    assert_sv(diag_warnings(&f->d)->text,
              SV("endpoints[1].lb_endpoints[0].endpoint.observability_name: has no effect here"));
    assert_errors(
        f,
        "endpoints[1].lb_endpoints[0].endpoint.address.socket_address.named_port: not supported");
    assert_true(findings_check(pb_make(f, "envoy.config.endpoint.v3.Endpoint", "hostname: 'a'"),
                               PB_JSON_UNKNOWN_SKIP, &f->d));
}

static void test_unknown_fields_by_policy(void **state) {
    struct pb_fixture *f = *state;
    const ProtobufCMessage *m =
        proto_unpack(&core__node__descriptor, SV("\xa0\x38\x05"), &f->a, &f->d);
    assert_non_null(m);
    assert_true(findings_check(m, PB_JSON_UNKNOWN_SKIP, &f->d));
    assert_int_equal(f->d.warnings_, 0);
    assert_true(findings_check(m, PB_JSON_UNKNOWN_WARN, &f->d));
    assert_int_equal(f->d.warnings_, 1);
    assert_false(findings_check(m, PB_JSON_UNKNOWN_ERROR, &f->d));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_nothing),
        PB_TEST(test_unknown_fields),
        PB_TEST(test_unknown_fields_within),
        PB_TEST(test_deprecated),
        PB_TEST(test_deprecated_values),
        PB_TEST(test_every_unsupported_field),
        PB_TEST(test_paths_of_unsupported_fields),
        PB_TEST(test_unknown_fields_by_policy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
