/* Role-based access control: what rules match, which policy is told, what is refused. The verdicts
 * beside a real Envoy's are in tests/parity/test_rbac.py. */
#include "filters/common/rbac.h"
#include "protos/gen/rbac.pb-c.h"
#include "proxy/http/headers.h"
#include "proxy/observe/filter_state.h"
#include "tests/support/fake_compile.h"

static struct fake_compile f;
static struct arena a;
static struct conn_info cx;
static struct stream_info si;
static struct headers request;

static int setup(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    arena_init(&a, 0);
    headers_init(&request, &a);
    headers_add_copy(&request, SV(":path"), SV("/a/b?x=1"));
    headers_add_copy(&request, SV("x-a"), SV("1"));
    cx = (struct conn_info){.server_name = SV("sni.test")};
    addr_parse_ip_port(SV("10.0.0.1:5000"), &cx.remote);
    addr_parse_ip_port(SV("10.0.0.2:5000"), &cx.direct_remote);
    addr_parse_ip_port(SV("[::1]:80"), &cx.local);
    si = (struct stream_info){.cx = &cx, .arena = &a};
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_fini(&a);
    fake_compile_fini(&f);
    return 0;
}

#define ALLOW(permission, principal) \
    "policies { key: 'p' value { permissions { " permission " } principals { " principal " } } }"
#define ANY "any: true"

#define TYPED(type, fields) "typed_config { [type.googleapis.com/" type "] { " fields " } }"
#define OTHER TYPED("google.protobuf.BoolValue", "")
#define UPSTREAM(fields) \
    TYPED("envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher", fields)
#define MTLS(fields) TYPED("envoy.extensions.rbac.principals.mtls_authenticated.v3.Config", fields)
#define SAN(type) "san_matcher { san_type: " type " matcher { exact: 'x' } }"

static const struct rbac *make(const char *text) {
    return rbac_compile(&f.ctx, fake_msg(&f, "envoy.config.rbac.v3.RBAC", text));
}
static struct rbac_verdict decide(const struct rbac *r) {
    return rbac_decide(r, &(struct rbac_input){&si, &request, &a});
}

static void test_rules(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool want;
    } rows[] = {
        {ALLOW(ANY, ANY), true},
        {"", false},
        {"action: DENY", true},
        {"action: DENY " ALLOW(ANY, ANY), false},
        {"action: LOG", true},
        {ALLOW("url_path { path { exact: '/a/b' } }", ANY), true},
        {ALLOW("url_path { path { exact: '/a/b?x=1' } }", ANY), false},
        {ALLOW("header { name: 'x-a' string_match { exact: '1' } }", ANY), true},
        {ALLOW("not_rule { header { name: 'x-a' string_match { exact: '1' } } }", ANY), false},
        {ALLOW("and_rules { rules { any: true } rules { url_path { path { exact: '/' } } } }", ANY),
         false},
        {ALLOW("or_rules { rules { any: true } rules { url_path { path { exact: '/' } } } }", ANY),
         true},
        {ALLOW("destination_ip { address_prefix: '::1' prefix_len { value: 128 } }", ANY), true},
        {ALLOW("destination_ip { address_prefix: '0.0.0.0' }", ANY), false},
        {ALLOW("destination_port: 80", ANY), true},
        {ALLOW("destination_port: 81", ANY), false},
        {ALLOW("destination_port_range { start: 80 end: 81 }", ANY), true},
        {ALLOW("destination_port_range { start: 79 end: 80 }", ANY), false},
        {ALLOW("requested_server_name { exact: 'sni.test' }", ANY), true},
        {ALLOW(ANY, "source_ip { address_prefix: '10.0.0.1' prefix_len { value: 32 } }"), true},
        {ALLOW(ANY, "remote_ip { address_prefix: '10.0.0.1' prefix_len { value: 32 } }"), true},
        {ALLOW(ANY, "direct_remote_ip { address_prefix: '10.0.0.1' prefix_len { value: 32 } }"),
         false},
        {ALLOW(ANY, "authenticated { }"), false},
        {ALLOW(ANY, "not_id { authenticated { } }"), true},
        {ALLOW(ANY, "metadata { filter: 'x' path { key: 'y' } value { present_match: true } }"),
         false},
        {ALLOW(ANY, "metadata { filter: 'x' path { key: 'y' } value { present_match: false } }"),
         false},
        {ALLOW("matcher { name: 'm' " UPSTREAM("upstream_ip { address_prefix: '::' }") " }", ANY),
         false},
        {ALLOW(ANY, "custom { name: 'c' " MTLS("any_validated_client_certificate: true") " }"),
         false},
        {ALLOW(ANY, "not_id { custom { name: 'c' " MTLS(SAN("DNS")) " } }"), true},
        {"audit_logging_options { logger_configs { is_optional: true } } " ALLOW(ANY, ANY), true},
        {ALLOW(ANY, "and_ids { ids { any: true } ids { any: true } }"), true},
        {ALLOW(ANY, "or_ids { ids { authenticated { } } ids { not_id { any: true } } }"), false},
        {"policies { key: 'p' value { permissions { any: true } principals { any: true } condition "
         "{ "
         "const_expr { bool_value: false } } } }",
         false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct rbac *r = make(rows[i].text);
        if (!r) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(fake_errors(&f)));
        } else if (decide(r).is_allowed != rows[i].want) {
            fail_msg("%s: %s", rows[i].text, rows[i].want ? "denied" : "allowed");
        }
    }
}

static void test_remote_behind_a_proxy(void **state) {
    (void)state;
    struct addr client;
    addr_parse_ip_port(SV("9.9.9.9:1"), &client);
    si.remote = &client;
    assert_true(
        decide(make(ALLOW(ANY, "remote_ip { address_prefix: '9.9.9.9' prefix_len { value: 32 } }")))
            .is_allowed);
    assert_false(
        decide(make(ALLOW(ANY, "source_ip { address_prefix: '9.9.9.9' prefix_len { value: 32 } }")))
            .is_allowed);
}

static void test_policy_names(void **state) {
    (void)state;
    static const char text[] =
        "policies { key: 'z' value { permissions { any: true } principals { any: true } } }"
        "policies { key: 'b c' value { permissions { any: true } principals { any: true } } }"
        "policies { key: 'a' value { permissions { destination_port: 1 } principals { any: true } "
        "} }";
    struct rbac_verdict v = decide(make(text));
    assert_true(v.is_allowed && sv_is(v.policy, "b c"));
    assert_true(sv_is(rbac_denied_details(v.policy, &a), "rbac_access_denied_matched_policy[b_c]"));
    assert_true(sv_is(rbac_denied_details(SV_NULL, &a), "rbac_access_denied_matched_policy[none]"));
    v = decide(
        make("action: LOG policies { key: 'l' value { permissions { any: true } principals { "
             "any: true } } }"));
    assert_true(v.is_allowed && v.sets_log_hint && v.log_hint);
}

/* Where the dynamic forward proxy says that the request goes. */
static void test_upstream_address(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool want;
    } rows[] = {
        {UPSTREAM("upstream_ip { address_prefix: '10.1.0.0' prefix_len { value: 16 } }"), true},
        {UPSTREAM("upstream_ip { address_prefix: '10.2.0.0' prefix_len { value: 16 } }"), false},
        {UPSTREAM("upstream_port_range { start: 80 end: 81 }"), true},
        {UPSTREAM("upstream_port_range { start: 79 end: 80 }"), false},
        {UPSTREAM("upstream_ip { address_prefix: '10.1.0.0' prefix_len { value: 16 } } "
                  "upstream_port_range { start: 1 end: 9 }"),
         false},
    };
    si.filter_state = filter_state_new(&a, NULL);
    filter_state_set(si.filter_state, SV("envoy.stream.upstream_address"), SV("10.1.2.3:80"), NULL,
                     true, FILTER_STATE_LOCAL);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv text = arena_printf(&a, ALLOW("matcher { name: 'm' %s }", ANY), rows[i].text);
        assert_int_equal(decide(make(arena_cstr(&a, text))).is_allowed, rows[i].want);
    }
}

#define ACTION(fields) \
    "action { name: 'a' " TYPED("envoy.config.rbac.v3.Action", "name: 'p' " fields) " }"
#define HEADER_TREE(name, action)                                                        \
    "matcher_tree { input { name: 'i' " TYPED(                                           \
        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",                             \
        "header_name: '" name "'") " } exact_match_map { map { key: '1' value { " action \
                                   " } } } } "

static void test_matcher_trees(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is_allowed, sets_hint, hint;
        const char *policy;
    } rows[] = {
        {"", false, false, false, ""},
        {"on_no_match { " ACTION("") " }", true, false, false, "p"},
        {"on_no_match { " ACTION("action: DENY") " }", false, false, false, "p"},
        {"on_no_match { " ACTION("action: LOG") " }", true, true, true, "p"},
        {HEADER_TREE("x-b", ACTION("")), false, false, false, ""},
        {HEADER_TREE("x-a", ACTION("")) "on_no_match { " ACTION("action: LOG") " }", true, true,
         false, "p"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *msg = fake_msg(&f, "xds.type.matcher.v3.Matcher", rows[i].text);
        const struct rbac *r = rbac_compile_matcher(&f.ctx, true, msg);
        assert_non_null(r);
        struct rbac_verdict v = decide(r);
        assert_int_equal(v.is_allowed, rows[i].is_allowed);
        assert_int_equal(v.sets_log_hint, rows[i].sets_hint);
        assert_int_equal(v.log_hint, rows[i].hint);
        assert_true(sv_is(v.policy, rows[i].policy));
    }
}

static void test_matcher_trees_refused(void **state) {
    (void)state;
    static const struct {
        bool of_http;
        const char *text, *want;
    } rows[] = {
        {false, HEADER_TREE("x-a", ACTION("")),
         "matcher.matcher_tree.input.typed_config: RBAC network filter cannot match "
         "'type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput'"},
        {true,
         "matcher_tree { input { name: 'i' " TYPED(
             "envoy.extensions.matching.common_inputs.network.v3.SourceTypeInput",
             "") " } exact_match_map { } }",
         "RBAC HTTP filter cannot match on 'type.googleapis.com/envoy.extensions"},
        {true, "on_no_match { action { name: 'a' " OTHER " } }",
         "matcher.on_no_match.action.typed_config: Didn't find a registered implementation for "
         "'a'"},
        {true, "on_no_match { action { name: 'a' " TYPED("envoy.config.rbac.v3.Action", "") " } }",
         "name: value length must be at least 1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *msg = fake_msg(&f, "xds.type.matcher.v3.Matcher", rows[i].text);
        const struct rbac_source source = {"rules", "matcher", NULL, msg, rows[i].of_http};
        const struct rbac *r = rbac_compile_source(&f.ctx, &source);
        sv why = fake_errors(&f);
        if (r || !sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %s: %.*s", rows[i].text, r ? "accepted" : "other words", SV_ARG(why));
        }
    }
    assert_null(
        rbac_compile_source(&f.ctx, &(struct rbac_source){"rules", "matcher", NULL, NULL, true}));
    assert_int_equal(diag_errors(&f.diag), 0);
}

static void test_a_connection_has_no_request(void **state) {
    (void)state;
    headers_init(&request, &a);
    assert_false(decide(make(ALLOW("url_path { path { prefix: '' } }", ANY))).is_allowed);
    assert_false(decide(make(ALLOW("header { name: 'x-a' present_match: true }", ANY))).is_allowed);
    assert_true(
        decide(make(ALLOW("not_rule { url_path { path { prefix: '/' } } }", ANY))).is_allowed);
}

/* NOT within NOT, n times. */
static const char *nested(unsigned n) {
    sv rule = SV("any: true");
    for (unsigned i = 0; i < n; i++) {
        rule = arena_printf(&a, "not_rule { %.*s }", SV_ARG(rule));
    }
    return arena_printf(
               &a, "policies { key: 'p' value { principals { any: true } permissions { %.*s } } }",
               SV_ARG(rule))
        .p;
}

static void test_refused(void **state) {
    (void)state;
    const struct {
        const char *text, *want;
    } rows[] = {
        {ALLOW("", ANY), "policies[p].permissions[0]: rule: value is required"},
        {ALLOW(ANY, ""), "policies[p].principals[0]: identifier: value is required"},
        {ALLOW("destination_ip { address_prefix: 'x' }", ANY), "malformed IP address range 'x/0'"},
        {ALLOW("destination_ip { address_prefix: '10.0.0.0' prefix_len { value: 33 } }", ANY),
         "malformed IP address range"},
        {ALLOW("destination_port_range { start: 5 end: 5 }", ANY), "range [5, 5) is invalid"},
        {ALLOW("destination_port_range { start: -1 end: 5 }", ANY), "range [-1, 5) is invalid"},
        {ALLOW("destination_port_range { start: 0 end: 65537 }", ANY), "is invalid"},
        {ALLOW("url_path { path { safe_regex { regex: '(' } } }", ANY), "url_path"},
        {ALLOW("matcher { name: 'm' " OTHER " }", ANY),
         "matcher.typed_config: Didn't find a registered implementation for 'm'"},
        {ALLOW("matcher { name: 'm' " UPSTREAM("") " }", ANY), "missing `upstream_ip` and/or"},
        {ALLOW("matcher { name: 'm' " UPSTREAM("upstream_ip { address_prefix: 'x' }") " }", ANY),
         "upstream_ip: malformed IP address range"},
        {ALLOW(ANY, "custom { name: 'c' " OTHER " }"),
         "custom.typed_config: Didn't find a registered implementation for 'c'"},
        {ALLOW(ANY, "custom { name: 'c' " MTLS("") " }"), "did not have any configured validation"},
        {ALLOW(ANY, "custom { name: 'c' " MTLS(SAN("OTHER_NAME")) " }"), "san_matcher.san_type"},
        {"policies { key: 'p' value { condition { ident_expr { name: 'x' } } } }",
         "policies[p].condition: undeclared reference to 'x'"},
        {"policies { key: 'p' value { checked_condition { } } }",
         "checked_condition.expr: missing"},
        {"audit_logging_options { logger_configs { } }", "audit_logging_options"},
        {"audit_logging_options { logger_configs { is_optional: true } logger_configs { } }",
         "logger_configs[1]: Didn't find"},
        {nested(40), "nested deeper than 32"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct rbac *r = make(rows[i].text);
        sv why = fake_errors(&f);
        if (r || !sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %s: %.*s", rows[i].text, r ? "accepted" : "other words", SV_ARG(why));
        }
    }
    assert_non_null(make(nested(20)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_behind_a_proxy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_names, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upstream_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_matcher_trees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_matcher_trees_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_connection_has_no_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
