/* Unknown and deprecated fields are found wherever they are, each with its path. */
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
        "use_tcp_for_dns_lookups:1:use_tcp_for_dns_lookups::;");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_nothing),
        PB_TEST(test_unknown_fields),
        PB_TEST(test_unknown_fields_within),
        PB_TEST(test_deprecated),
        PB_TEST(test_deprecated_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
