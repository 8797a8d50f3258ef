/* Generic matching: what trees find, what is refused. RBAC's trees beside a real Envoy's are in
 * tests/parity/test_rbac_matchers.py. */
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/match_tree.h"
#include "tests/support/fake_compile.h"

static struct fake_compile f;
static struct arena a;
static struct addr source, destination;
static struct headers request;
static struct conn_info cx;
static struct stream_info si;
static struct match_facts facts;

static int setup(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    arena_init(&a, 0);
    headers_init(&request, &a);
    headers_add_copy(&request, SV(":path"), SV("/a/b"));
    headers_add_copy(&request, SV("x-a"), SV("1"));
    headers_add_copy(&request, SV("x-a"), SV("2"));
    headers_add_copy(&request, SV("x-host"), SV("b.a.test"));
    addr_parse_ip_port(SV("10.0.0.1:5000"), &source);
    addr_parse_ip_port(SV("[::1]:80"), &destination);
    cx = (struct conn_info){.server_name = SV("sni.test")};
    si = (struct stream_info){.cx = &cx, .arena = &a, .request = &request};
    static const sv alpn[] = {SV_INIT("h2"), SV_INIT("http/1.1")};
    facts = (struct match_facts){.source = &source,
                                 .direct_source = &source,
                                 .destination = &destination,
                                 .server_name = SV("sni.test"),
                                 .transport_protocol = SV("tls"),
                                 .application_protocols = alpn,
                                 .application_protocols_n = 2,
                                 .request = &request,
                                 .si = &si,
                                 .scratch = &a};
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_fini(&a);
    fake_compile_fini(&f);
    return 0;
}

/* Actions of these tests are texts. */
static const void *compile_action(struct compile_ctx *ctx, sv name, const void *any, void *arg) {
    (void)arg;
    const Pb__StringValue *m = compile_any(ctx, name, any, "google.protobuf.StringValue", NULL);
    return m ? arena_cstr(ctx->arena, sv_cstr(m->value)) : NULL;
}
static const struct match_tree *make_for(uint32_t inputs, const char *text) {
    const struct match_tree_user user = {
        .inputs = inputs, .refusal = "no '%s' here", .compile_action = compile_action};
    const void *msg = fake_msg(&f, "xds.type.matcher.v3.Matcher", text);
    return match_tree_compile(&f.ctx, &user, msg);
}
static const struct match_tree *make(const char *text) { return make_for(~0u, text); }

#define ANY(type, fields) "typed_config { [type.googleapis.com/" type "] { " fields " } }"
#define LEADS(text) \
    "action { name: 'a' " ANY("google.protobuf.StringValue", "value: '" text "'") " }"
#define NETWORK(type) \
    "name: 'i' " ANY("envoy.extensions.matching.common_inputs.network.v3." type, "")
#define SSL(type) "name: 'i' " ANY("envoy.extensions.matching.common_inputs.ssl.v3." type, "")
#define HEADER(name) \
    "name: 'i' " ANY("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name: '" name "'")
#define ONE(input, how) "single_predicate { input { " input " } " how " }"
#define VALUE(how) "value_match { " how " }"
#define CUSTOM(type, fields) "custom_match { name: 'c' " ANY(type, fields) " }"
#define WHEN(predicate, on_match) \
    "matchers { predicate { " predicate " } on_match { " on_match " } } "
#define LIST(matchers) "matcher_list { " matchers " } "
#define ELSE(on_match) "on_no_match { " on_match " } "
#define TREE(input, kind) "matcher_tree { input { " input " } " kind " } "
#define ENTRY(key, on_match) "map { key: '" key "' value { " on_match " } } "
#define RANGE(cidr, bits, on_match)                                                          \
    "range_matchers { ranges { address_prefix: '" cidr "' prefix_len { value: " bits " } } " \
    "on_match { " on_match " } } "
#define RANGES(ranges) CUSTOM("xds.type.matcher.v3.IPMatcher", ranges)
#define DOMAINS(domains) CUSTOM("xds.type.matcher.v3.ServerNameMatcher", domains)
#define DOMAIN(name, on_match) "domain_matchers { domains: '" name "' on_match { " on_match " } } "
#define X_A ONE(HEADER("X-A"), VALUE("exact: '1,2'"))
#define NONE ONE(HEADER("x-none"), VALUE("exact: 'x'"))
#define UNKNOWN ONE(SSL("UriSanInput"), VALUE("exact: 'x'"))
#define NOTHING "matcher { " LIST(WHEN(NONE, LEADS("never"))) " }"
#define IP "envoy.extensions.matching.input_matchers.ip.v3.Ip"
#define CEL ANY("xds.type.matcher.v3.HttpAttributesCelMatchInput", "")
#define TRUE "expr_match { parsed_expr { expr { const_expr { bool_value: true } } } }"

struct row {
    const char *text, *want; /* NULL: nothing */
};

static void check_rows(const struct row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const struct match_tree *t = make(rows[i].text);
        if (!t) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(fake_errors(&f)));
            return;
        }
        const char *got = match_tree_find(t, &facts);
        if ((got == NULL) != (rows[i].want == NULL) || (got && strcmp(got, rows[i].want) != 0)) {
            fail_msg("%s: %s, not %s", rows[i].text, got ? got : "nothing",
                     rows[i].want ? rows[i].want : "nothing");
        }
    }
}

static void test_lists(void **state) {
    (void)state;
    static const struct row rows[] = {
        {"", NULL},
        {ELSE(LEADS("e")), "e"},
        {LIST(WHEN(NONE, LEADS("n"))), NULL},
        {LIST(WHEN(NONE, LEADS("n"))) ELSE(LEADS("e")), "e"},
        {LIST(WHEN(X_A, LEADS("x")) WHEN(X_A, LEADS("y"))), "x"},
        {LIST(WHEN("not_matcher { " X_A " }", LEADS("x"))), NULL},
        {LIST(WHEN("and_matcher { predicate { " X_A " } predicate { " NONE " } }", LEADS("x"))),
         NULL},
        {LIST(WHEN("or_matcher { predicate { " NONE " } predicate { " X_A " } }", LEADS("x"))),
         "x"},
        {LIST(WHEN(X_A, NOTHING) WHEN(X_A, LEADS("y"))), "y"},
        {LIST(WHEN(UNKNOWN, LEADS("u")) WHEN(X_A, LEADS("x"))) ELSE(LEADS("e")), NULL},
        {LIST(WHEN("not_matcher { " UNKNOWN " }", LEADS("u"))) ELSE(LEADS("e")), NULL},
        {LIST(WHEN("and_matcher { predicate { " NONE " } predicate { " UNKNOWN " } }", LEADS("x")))
             ELSE(LEADS("e")),
         "e"},
        {LIST(WHEN("or_matcher { predicate { " UNKNOWN " } predicate { " X_A " } }", LEADS("x"))),
         "x"},
        {LIST(WHEN("or_matcher { predicate { " UNKNOWN " } predicate { " NONE " } }", LEADS("x")))
             ELSE(LEADS("e")),
         NULL},
        {TREE(SSL("SubjectInput"), "exact_match_map { " ENTRY("x", LEADS("x")) " }")
             ELSE(LEADS("e")),
         NULL},
        {LIST(WHEN(ONE(NETWORK("SourceIPInput"), VALUE("exact: '10.0.0.1'")), LEADS("x"))), "x"},
        {LIST(WHEN(ONE(NETWORK("SourcePortInput"), VALUE("exact: '5000'")), LEADS("x"))), "x"},
        {LIST(WHEN(ONE(NETWORK("DestinationPortInput"), VALUE("prefix: '80'")), LEADS("x"))), "x"},
        {LIST(WHEN(ONE(NETWORK("DestinationIPInput"), VALUE("exact: '::1'")), LEADS("x"))), "x"},
        {LIST(WHEN(ONE(NETWORK("TransportProtocolInput"), VALUE("exact: 'tls'")), LEADS("x"))),
         "x"},
        {LIST(WHEN(ONE(NETWORK("ApplicationProtocolInput"), VALUE("exact: \"'h2','http/1.1'\"")),
                   LEADS("x"))),
         "x"},
        {LIST(WHEN(ONE(NETWORK("SourceTypeInput"), VALUE("exact: 'local'")), LEADS("x"))), NULL},
        {LIST(WHEN(ONE(NETWORK("NetworkNamespaceInput"), VALUE("contains: '/'")), LEADS("x"))),
         NULL},
        {LIST(WHEN(ONE(HEADER(":path"), CUSTOM(IP, "stat_prefix: 'p' cidr_ranges { address_prefix: "
                                                   "'0.0.0.0' }")),
                   LEADS("x"))),
         NULL},
        {LIST(WHEN(ONE(NETWORK("SourceIPInput"),
                       CUSTOM(IP, "stat_prefix: 'p' cidr_ranges { "
                                  "address_prefix: '10.0.0.0' prefix_len { value: 8 } }")),
                   LEADS("x"))),
         "x"},
        {LIST(WHEN(ONE(CEL, CUSTOM("xds.type.matcher.v3.CelMatcher", TRUE)), LEADS("x"))), "x"},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

static void test_maps(void **state) {
    (void)state;
    static const struct row rows[] = {
        {TREE(HEADER(":path"), "exact_match_map { " ENTRY("/a", LEADS("x")) " }"), NULL},
        {TREE(HEADER(":path"), "exact_match_map { " ENTRY("/a/b", LEADS("x")) " }"), "x"},
        {TREE(HEADER("x-none"), "prefix_match_map { " ENTRY("", LEADS("x")) " }"), NULL},
        {TREE(HEADER(":path"),
              "prefix_match_map { " ENTRY("", LEADS("x")) ENTRY("/a/b/c", LEADS("y")) " }"),
         "x"},
        {TREE(HEADER(":path"), "prefix_match_map { " ENTRY("/a/b", NOTHING) ENTRY("/a", LEADS("y"))
                                   ENTRY("/b/b", LEADS("z")) " }"),
         "y"},
        {TREE(NETWORK("SourceIPInput"), RANGES(RANGE("10.0.0.0", "8", LEADS("wide"))
                                                   RANGE("10.0.0.0", "16", LEADS("narrow")))),
         "narrow"},
        {TREE(NETWORK("SourceIPInput"), RANGES(RANGE("10.0.0.0", "8", LEADS("first"))
                                                   RANGE("10.0.0.0", "8", LEADS("second")))),
         "first"},
        {TREE(NETWORK("DestinationIPInput"), RANGES(RANGE("0.0.0.0", "0", LEADS("four")))), NULL},
        {TREE(HEADER("x-a"), RANGES(RANGE("0.0.0.0", "0", LEADS("ip")))) ELSE(LEADS("e")), "e"},
        {TREE(HEADER("x-host"), DOMAINS(DOMAIN("*.test", LEADS("far")) DOMAIN(
                                    "*.a.test", LEADS("near")) DOMAIN("*", LEADS("any")))),
         "near"},
        {TREE(HEADER("x-host"),
              DOMAINS(DOMAIN("a.test", LEADS("x")) DOMAIN("*.b.a.test", LEADS("y")))),
         NULL},
        {TREE(NETWORK("ServerNameInput"), DOMAINS(DOMAIN("*", LEADS("any")))), "any"},
    };
    check_rows(rows, ARRAY_LEN(rows));
}

/* Without a single fact nothing is matched, and nothing is read that is not there. */
static void test_no_facts(void **state) {
    (void)state;
    static const char *const inputs[] = {
        HEADER("x-a"),
        NETWORK("SourceIPInput"),
        NETWORK("DirectSourceIPInput"),
        NETWORK("DestinationPortInput"),
        NETWORK("SourceTypeInput"),
        NETWORK("ServerNameInput"),
        NETWORK("ApplicationProtocolInput"),
        NETWORK("TransportProtocolInput"),
        "name: 'i' " ANY("envoy.extensions.matching.common_inputs.network.v3.FilterStateInput",
                         "key: 'k' field: 'f'"),
        "name: 'i' " ANY("envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
                         "filter: 'f' path { key: 'k' }"),
        SSL("DnsSanInput")};
    struct match_facts none = {.scratch = &a};
    for (size_t i = 0; i < ARRAY_LEN(inputs); i++) {
        sv text = arena_printf(&a,
                               LIST("matchers { predicate { single_predicate { input { %s } " VALUE(
                                   "safe_regex { regex: '.*' }") " } } on_match { %s } }"),
                               inputs[i], LEADS("x"));
        const struct match_tree *t = make(arena_cstr(&a, text));
        assert_non_null(t);
        assert_null(match_tree_find(t, &none));
    }
    assert_null(match_tree_find(
        make(LIST(WHEN(ONE(CEL, CUSTOM("xds.type.matcher.v3.CelMatcher", TRUE)), LEADS("x")))),
        &none));
}

/* Matchers or predicates within each other, n times. */
static const char *nested(unsigned n, const char *open, const char *inner, const char *close) {
    sv text = sv_cstr(inner);
    for (unsigned i = 0; i < n; i++) {
        text = arena_printf(&a, "%s %.*s %s", open, SV_ARG(text), close);
    }
    return arena_cstr(&a, text);
}
static const char *deep_trees(unsigned n) {
    return nested(n, "on_no_match { matcher {", ELSE(LEADS("x")), "} }");
}
static const char *deep_predicates(unsigned n) {
    const char *p = nested(n, "not_matcher {", X_A, "}");
    sv text = arena_printf(&a, "matcher_list { matchers { predicate { %s } on_match { %s } } }", p,
                           LEADS("x"));
    return arena_cstr(&a, text);
}

static void test_refused(void **state) {
    (void)state;
    const struct {
        const char *text, *want;
    } rows[] = {
        {ELSE(""), "on_no_match: on_match: value is required"},
        {ELSE("keep_matching: true " LEADS("x")), "on_no_match: keep_matching is not supported"},
        {ELSE("action { name: 'a' " ANY("google.protobuf.BoolValue", "") " }"),
         "on_no_match.action"},
        {LIST(WHEN("", LEADS("x"))),
         "matcher_list.matchers[0].predicate: match_type: value is required"},
        {LIST(WHEN(ONE(HEADER("a"), ""), LEADS("x"))),
         "single_predicate: matcher: value is required"},
        {LIST(WHEN(X_A, LEADS("x"))
                  WHEN(ONE(HEADER("a"), VALUE("safe_regex { regex: '(' }")), LEADS("x"))),
         "matchers[1].predicate.single_predicate"},
        {LIST(WHEN(ONE("name: 'i' " ANY("google.protobuf.BoolValue", ""), VALUE("exact: 'x'")),
                   LEADS("x"))),
         "input.typed_config: no 'google.protobuf.BoolValue' here"},
        {LIST(WHEN(ONE(HEADER("a"), CUSTOM("google.protobuf.BoolValue", "")), LEADS("x"))),
         "custom_match.typed_config: Didn't find a registered implementation for 'c'"},
        {LIST(WHEN(
             ONE(HEADER("a"), CUSTOM(IP, "stat_prefix: 'p' cidr_ranges { address_prefix: 'x' }")),
             LEADS("x"))),
         "cidr_ranges[0]: malformed IP address: x"},
        {LIST(WHEN(ONE(HEADER("a"), CUSTOM("xds.type.matcher.v3.CelMatcher", TRUE)), LEADS("x"))),
         "Unsupported data input type: string"},
        {LIST(WHEN(ONE(CEL, VALUE("exact: 'x'")), LEADS("x"))),
         "Unsupported data input type: cel_data_input"},
        {LIST(WHEN(ONE(CEL, CUSTOM("xds.type.matcher.v3.CelMatcher", "expr_match { }")),
                   LEADS("x"))),
         "CEL expression not set"},
        {LIST(WHEN(
             ONE(HEADER("a"), CUSTOM("envoy.extensions.matching.input_matchers.consistent_hashing"
                                     ".v3.ConsistentHashing",
                                     "threshold: 5 modulo: 4")),
             LEADS("x"))),
         "threshold cannot be greater than modulo: 5 > 4"},
        {TREE(HEADER("a"), ""), "matcher_tree: tree_type: value is required"},
        {TREE(CEL, "exact_match_map { }"), "Unsupported data input type: cel_data_input"},
        {TREE(HEADER("a"), "exact_match_map { map { key: 'k' } }"),
         "exact_match_map.map[k]: on_match"},
        {TREE(HEADER("a"), "prefix_match_map { " ENTRY("k", "") " }"),
         "prefix_match_map.map[k]: on_match"},
        {TREE(HEADER("a"), CUSTOM("google.protobuf.BoolValue", "")),
         "registered implementation for 'c'"},
        {TREE(HEADER("a"), RANGES(RANGE("1.2.3.4", "33", LEADS("x")))),
         "range_matchers[0].ranges[0]"},
        {TREE(HEADER("a"), DOMAINS(DOMAIN("a*", LEADS("x")))),
         "Invalid wildcard domain format: a*"},
        {TREE(HEADER("a"), DOMAINS(DOMAIN("*.", LEADS("x")))),
         "Invalid wildcard domain format: *."},
        {TREE(HEADER("a"), DOMAINS(DOMAIN("*.a.*", LEADS("x")))), "Invalid wildcard domain format"},
        {TREE(HEADER("a"), DOMAINS(DOMAIN("", LEADS("x")))), "Empty domain in ServerNameMatcher"},
        {TREE(HEADER("a"), DOMAINS(DOMAIN("*.a", LEADS("x")) DOMAIN("*.a", LEADS("y")))),
         "domain_matchers[1]: Duplicate domain in ServerNameMatcher: *.a"},
        {TREE(HEADER("a"), DOMAINS(DOMAIN("*", LEADS("x")) DOMAIN("*", LEADS("y")))),
         "Duplicate domain"},
        {deep_trees(40), "matchers are nested deeper than 32"},
        {deep_predicates(40), "predicates are nested deeper than 32"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct match_tree *t = make(rows[i].text);
        sv why = fake_errors(&f);
        if (t || !sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %s: %.*s", rows[i].text, t ? "accepted" : "other words", SV_ARG(why));
        }
    }
    assert_non_null(make(deep_trees(20)));
    assert_non_null(make(deep_predicates(20)));
}

static void test_inputs_of_the_user(void **state) {
    (void)state;
    static const char text[] = LIST(WHEN(X_A, LEADS("x")));
    assert_null(make_for(MATCH_INPUT(SOURCE_IP), text));
    assert_true(sv_contains(fake_errors(&f), SV("HttpRequestHeaderMatchInput' here")));
    assert_non_null(make_for(MATCH_INPUT(REQUEST_HEADER), text));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_maps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_facts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_inputs_of_the_user, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
