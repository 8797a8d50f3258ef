/* Role-based access control: what rules match, which policy is told, what is refused. The verdicts
 * beside a real Envoy's are in tests/parity/test_rbac.py. */
#include "filters/common/rbac.h"
#include "protos/gen/rbac.pb-c.h"
#include "proxy/http/headers.h"
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
        {ALLOW("matcher { name: 'm' }", ANY), "matcher: Didn't find a registered implementation"},
        {ALLOW(ANY, "custom { name: 'c' }"), "custom: Didn't find a registered implementation"},
        {"policies { key: 'p' value { condition { ident_expr { name: 'x' } } } }",
         "policies[p].condition: undeclared reference to 'x'"},
        {"policies { key: 'p' value { checked_condition { } } }",
         "checked_condition.expr: missing"},
        {"audit_logging_options { logger_configs { } }", "audit_logging_options"},
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
        cmocka_unit_test_setup_teardown(test_a_connection_has_no_request, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
