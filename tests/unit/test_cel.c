/* CEL: syntax, values, functions, macros, attributes, the parsed form, and what is refused. */
#include "proxy/api/cel.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "tests/support/fake_compile.h"

static struct fake_compile f;
static struct arena a;
static struct stream_info si;
static struct conn_info cx;
static struct headers request, response;

static int setup(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    arena_init(&a, 0);
    headers_init(&request, &a);
    headers_init(&response, &a);
    headers_add_copy(&request, SV(":method"), SV("GET"));
    headers_add_copy(&request, SV(":path"), SV("/a/b?x=1&y=2#frag"));
    headers_add_copy(&request, SV(":authority"), SV("host:81"));
    headers_add_copy(&request, SV(":scheme"), SV("https"));
    headers_add_copy(&request, SV("user-agent"), SV("curl/8"));
    headers_add_copy(&request, SV("x-two"), SV("first"));
    headers_add_copy(&request, SV("x-two"), SV("second"));
    headers_add_copy(&request, SV("content-length"), SV("17"));
    headers_add_copy(&response, SV(":status"), SV("503"));
    headers_add_copy(&response, SV("x-r"), SV("r"));
    cx = (struct conn_info){.id = 7, .server_name = SV("sni.example"), .traffic_direction = 1};
    addr_parse_ip_port(SV("10.0.0.1:5000"), &cx.remote);
    addr_parse_ip_port(SV("[::1]:80"), &cx.local);
    si = (struct stream_info){.cx = &cx,
                              .request = &request,
                              .response = &response,
                              .response_code = 503,
                              .flags = RESPONSE_FLAG(UF),
                              .has_protocol = true,
                              .protocol = HTTP_2,
                              .rx_bytes = 5,
                              .tx_bytes = 9,
                              .start_us = 1000,
                              .start_wall_us = 1700000000000000,
                              .end_us = 26000,
                              .route_name = SV("r1"),
                              .arena = &a};
    si.metadata = kv_metadata_new(&a);
    struct kv_value s = kv_string(SV("v")), n = kv_number(3), t = kv_bool(true);
    struct kv_value items[] = {kv_string(SV("p")), kv_string(SV("q"))};
    struct kv_value list = {.kind = KV_LIST, .list = {items, 2}};
    kv_metadata_set(si.metadata, SV("ns"), SV("k"), &s);
    kv_metadata_set(si.metadata, SV("ns"), SV("n"), &n);
    kv_metadata_set(si.metadata, SV("ns"), SV("yes"), &t);
    kv_metadata_set(si.metadata, SV("ns"), SV("list"), &list);
    si.filter_state = filter_state_new(&a, NULL);
    filter_state_set(si.filter_state, SV("fs"), SV("object"), NULL, false, FILTER_STATE_LOCAL);
    static struct kv_value peer;
    struct kv_value workload = kv_string(SV("w1"));
    peer = kv_empty_struct();
    kv_set(&peer, &a, SV("workload"), &workload);
    filter_state_set(si.filter_state, SV("downstream_peer"), SV("w"), &peer, false,
                     FILTER_STATE_LOCAL);
    fake.node =
        fake_msg(&f, "envoy.config.core.v3.Node",
                 "id: 'n1' cluster: 'c1' locality { zone: 'z' } metadata { fields { key: 'K' "
                 "value { string_value: 'm' } } }");
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_fini(&a);
    fake_compile_fini(&f);
    return 0;
}

static bool holds(const struct cel *c) {
    struct arena scratch;
    arena_init(&scratch, 0);
    bool yes = cel_holds(c, &si, &scratch);
    arena_fini(&scratch);
    return yes;
}

static void check_rows(const char *const *rows, size_t n, bool want) {
    for (size_t i = 0; i < n; i++) {
        const struct cel *c = cel_compile_text(&f.ctx, sv_cstr(rows[i]));
        if (!c) {
            fail_msg("row %zu: %s: %.*s", i, rows[i], SV_ARG(fake_errors(&f)));
        } else if (holds(c) != want) {
            fail_msg("row %zu: %s is %s", i, rows[i], want ? "false" : "true");
        }
    }
}

static void test_true(void **state) {
    (void)state;
    static const char *const rows[] = {
        "true",
        "!false",
        "!!true",
        "1 + 2 * 3 == 7",
        "(1 + 2) * 3 == 9",
        "7 - 2 - 1 == 4",
        "-7 / 2 == -3",
        "-7 % 2 == -1",
        "7u / 2u == 3u",
        "2.5 * 2.0 == 5.0",
        "-(3) == -3",
        "1e3 == 1000.0 && 1.5e-1 == 0.15",
        "0x1F == 31 && 0xffu == 255u",
        "-9223372036854775808 < 0",
        "1 == 1.0 && 1u == 1 && 1.0 == 1u",
        "2 > 1.5 && 1u < 2 && -1 < 0u",
        "9223372036854775807 < 9223372036854775808.0",
        "1 != 'a'",
        "'a' < 'b' && 'ab' + 'c' == 'abc'",
        "\"q\" == 'q' && '''x'y''' == \"x'y\"",
        "r'\\d' == '\\\\d' && '\\x41\\u00e9\\101' == 'A\u00e9A'",
        "b'\\xff' != b'a' && size(b'\\xff') == 1",
        "size('\u00e9a') == 2 && 'abc'.size() == 3",
        "null == null",
        "[1, 2, 3][1] == 2 && size([1, 2,]) == 2",
        "[1] + [2] == [1, 2]",
        "{'a': 1, 'b': {'c': 2}}.b.c == 2",
        "{'a': 1}['a'] == 1 && {1: 'x'}[1u] == 'x'",
        "{'a': 1, 'b': 2} == {'b': 2, 'a': 1}",
        "2 in [1, 2] && 'a' in {'a': 1} && !(3 in [1, 2])",
        "true ? 'y' == 'y' : false",
        "false ? false : false ? false : true",
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && request.nope)",
        "!(request.nope && false)",
        "[1, 2, 3].all(x, x > 0) && ![1, 2].all(x, x > 1)",
        "[1, 2, 3].exists(x, x == 2) && ![].exists(x, true) && [].all(x, false)",
        "[0, 2].exists(x, 4 / x == 2)",
        "[1, 2, 3].exists_one(x, x > 2) && ![1, 1].exists_one(x, x == 1)",
        "[1, 2, 3].map(x, x * 2) == [2, 4, 6]",
        "[1, 2, 3].map(x, x > 1, x * 2) == [4, 6]",
        "[1, 2, 3].filter(x, x != 2) == [1, 3]",
        "[1, 2].all(x, [3, 4].all(y, x < y))",
        "{'a': 1, 'b': 2}.exists(k, k == 'b')",
        "has({'a': 1}.a) && !has({'a': 1}.b)",
        "'abc'.contains('b') && 'abc'.startsWith('ab') && 'abc'.endsWith('bc')",
        "'abc'.matches('^a.c$') && matches('xaby', 'a')",
        "int('-12') == -12 && uint(3) == 3u && double('1.5') == 1.5 && int(2.9) == 2",
        "string(12) == '12' && string(true) == 'true' && string(1.5) == '1.5'",
        "bytes('a') == b'a' && string(b'a') == 'a' && bool('true') && dyn(1) == 1",
    };
    check_rows(rows, ARRAY_LEN(rows), true);
}

static void test_times(void **state) {
    (void)state;
    static const char *const rows[] = {
        "duration('1h30m') == duration('90m') && duration('-1.5s') < duration('0')",
        "duration('3661s').getHours() == 1 && duration('3661s').getMinutes() == 61",
        "string(duration('1.5s')) == '1.500s'",
        "timestamp('2023-11-14T22:13:20Z') == request.time",
        "string(timestamp('2000-02-29T01:02:03Z')) == '2000-02-29T01:02:03Z'",
        "timestamp('2000-02-29T00:00:00Z') + duration('24h') == timestamp('2000-03-01T00:00:00Z')",
        "timestamp('2000-01-02T00:00:00Z') - timestamp('2000-01-01T00:00:00Z') == duration('24h')",
        "timestamp('2000-02-29T12:34:56.789Z').getFullYear() == 2000",
        "timestamp('2000-02-29T12:34:56.789Z').getMonth() == 1",
        "timestamp('2000-02-29T12:34:56.789Z').getDate() == 29",
        "timestamp('2000-02-29T12:34:56.789Z').getDayOfMonth() == 28",
        "timestamp('2000-02-29T12:34:56.789Z').getDayOfWeek() == 2",
        "timestamp('2000-12-31T12:34:56.789Z').getDayOfYear() == 365",
        "timestamp('1969-12-31T23:59:59Z').getDayOfYear() == 364",
        "timestamp('2000-02-29T12:34:56.789Z').getHours() == 12",
        "timestamp('2000-02-29T23:34:56Z').getHours('+02:30') == 2",
        "timestamp('2000-02-29T12:34:56.789Z').getMilliseconds() == 789",
        "int(timestamp('1970-01-01T00:00:05Z')) == 5",
        "// a comment\n true",
    };
    check_rows(rows, ARRAY_LEN(rows), true);
}

static void test_attributes(void **state) {
    (void)state;
    static const char *const rows[] = {
        "request.method == 'GET' && request.host == 'host:81' && request.scheme == 'https'",
        "request.path == '/a/b?x=1&y=2#frag' && request.url_path == '/a/b'",
        "request.query == 'x=1&y=2' && request.useragent == 'curl/8'",
        "request.headers['x-two'] == 'first,second' && 'X-Two' in request.headers",
        "request['headers']['user-agent'] == 'curl/8' && has(request.headers)",
        "!has(request.referer) && !('x-none' in request.headers)",
        "request.protocol == 'HTTP/2' && request.size == 17 && request.total_size > 5",
        "request.duration == duration('25ms')",
        "request.headers.exists(h, h.startsWith('x-t'))",
        "response.code == 503 && response.code >= 400 && response.flags == 32",
        "response.size == 9 && response.headers['x-r'] == 'r' && !has(response.trailers)",
        "source.address == '10.0.0.1:5000' && source.port == 5000",
        "destination.address == '[::1]:80' && destination.port == 80",
        "connection.id == 7u && !connection.mtls && connection.requested_server_name == "
        "'sni.example'",
        "!has(connection.uri_san_peer_certificate)",
        "metadata.ns.k == 'v' && metadata['ns']['n'] == 3 && metadata.ns.yes",
        "'p' in metadata.ns.list && metadata.ns.list[1] == 'q' && 'ns' in metadata",
        "filter_state['fs'] == b'object' && !('other' in filter_state)",
        "xds.route_name == 'r1' && !has(xds.cluster_name) && xds.listener_direction == 1",
        "upstream.request_attempt_count == 0 && !has(upstream.address)",
        "xds.node.id == 'n1' && node.cluster == 'c1' && node.metadata.K == 'm'",
        "node.locality.zone == 'z' && !has(node.metadata.none) && 'id' in node",
        "downstream_peer.workload == 'w1' && !has(downstream_peer.none)",
    };
    check_rows(rows, ARRAY_LEN(rows), true);
}

/* Errors at run time, absent attributes and results of other types are false. */
static void test_false(void **state) {
    (void)state;
    static const char *const rows[] = {
        "false",
        "1",
        "'true'",
        "null",
        "[true]",
        "1 / 0 == 1",
        "upstream_peer.workload == 'w1' || upstream_peer.workload != 'w1'",
        "node.none == ''",
        "xds.node.metadata.none == ''",
        "1 % 0 == 0",
        "1u / 0u == 1u",
        "9223372036854775807 + 1 > 0",
        "-9223372036854775808 - 1 < 0",
        "9223372036854775807 * 2 != 0",
        "0u - 1u >= 0u",
        "-(-9223372036854775808) > 0",
        "int(1e19) != 0 || int(18446744073709551615u) != 0",
        "uint(-1) >= 0u",
        "1 + 1u == 2",
        "1 + 'a' == 'b'",
        "'a' < 1 || 1 < 'a'",
        "true < 'a'",
        "!1",
        "-'a' == 'a'",
        "1 && true",
        "request.nope && true",
        "request.nope || false",
        "request.nope == 1",
        "!(request.nope == 1)",
        "request.headers['none'] == ''",
        "has(request.nope.deeper)",
        "[1][1] == 1",
        "[1][-1] == 1",
        "[1][0.5] == 1",
        "[1]['a'] == 1",
        "{'a': 1}['b'] == 1",
        "{'a': 1, 'a': 2}['a'] == 1",
        "1 in 'a'",
        "'a'.x == 1",
        "'a' ? true : true",
        "request.nope ? true : true",
        "double('nan') == double('nan')",
        "double('nan') < 1.0",
        "int('12x') == 12",
        "bool('maybe')",
        "duration('5') == duration('5s')",
        "duration('1d') > duration('0')",
        "timestamp('yesterday') < request.time",
        "request.time.getHours('Mars/Olympus') >= 0",
        "request.time + request.time > request.time",
        "'a'.matches(request.method)",
        "[1, 2].all(x, x)",
        "[1, 0].all(x, 1 / x > 0)",
        "1.all(x, true)",
        "request.all(x, true)",
        "filter_state.exists(x, true)",
        "size(request) > 0",
        "response.grpc_status == 0",
        "upstream.address == ''",
        "connection.tls_version == ''",
        "metadata.ns.none == 'v'",
        "metadata.none.k == 'v'",
    };
    check_rows(rows, ARRAY_LEN(rows), false);
}

static void test_of_nothing_known(void **state) {
    (void)state;
    static const char *const never[] = {
        "request.path == ''",       "request.headers['a'] == ''",
        "'a' in request.headers",   "response.code == 0",
        "source.address == ''",     "connection.mtls",
        "'a' in metadata",          "metadata.exists(k, true)",
        "filter_state['a'] == b''", "xds.listener_direction == 0",
    };
    si = (struct stream_info){.arena = &a};
    check_rows(never, ARRAY_LEN(never), false);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", "syntax error at offset 0"},
        {"1 +", "syntax error at offset 3"},
        {"(1", "expected )"},
        {"[1, 2", "expected"},
        {"{'a' 1}", "expected :"},
        {"1 2", "expected the end"},
        {"'abc", "closing quote"},
        {"'a\nb'", "closing quote"},
        {"'\\q'", "escape"},
        {"'\\ud800'", "escape"},
        {"'\\400'", "escape"},
        {"b'\\u0041'", "escape"},
        {"99999999999999999999", "64 bits"},
        {"9223372036854775808", "64 bits"},
        {"0x1ffffffffffffffff", "64 bits"},
        {"nope == 1", "undeclared reference to 'nope'"},
        {"x.all(y, true)", "undeclared reference to 'x'"},
        {"[1].all(x, y)", "undeclared reference to 'y'"},
        {"[1].all(x, true) && x", "undeclared reference to 'x'"},
        {"[1].all(1, true)", "loop variable"},
        {"[1].all(x)", "expected ,"},
        {"[1].all(x, true, false)", "expected )"},
        {"has(request)", "field selection"},
        {"has(request.path, 1)", "expected )"},
        {"size()", "undeclared function 'size' with 0"},
        {"size(1, 2)", "undeclared function 'size' with 2"},
        {"'a'.lowerAscii()", "undeclared method 'lowerAscii'"},
        {"type(1) == int", "undeclared function 'type'"},
        {"'a'.matches('(')", "invalid regular expression"},
        {"a.b", "undeclared reference to 'a'"},
        {"if", "syntax error"},
        {"request.", "field or method"},
        {"request[", "expected an expression"},
        {"1 ? 2", "expected :"},
        {"1 in", "expected an expression"},
        {"size(1,2,3,4,5,6,7,8,9)", "fewer arguments"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct cel *c = cel_compile_text(&f.ctx, sv_cstr(rows[i].text));
        sv why = fake_errors(&f);
        if (c || !sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %s: %.*s", rows[i].text, c ? "accepted" : "other words", SV_ARG(why));
        }
    }
}

/* Text of n times `part`. */
static sv repeated(const char *part, size_t n, const char *end) {
    size_t len = strlen(part), tail = strlen(end);
    char *p = arena_alloc(&a, n * len + tail + 1);
    for (size_t i = 0; i < n; i++) {
        memcpy(p + i * len, part, len);
    }
    memcpy(p + n * len, end, tail);
    return sv_from(p, n * len + tail);
}

static void test_limits(void **state) {
    (void)state;
    const sv refused[] = {repeated("(", 5000, ""),       repeated("!", 5000, "true"),
                          repeated("-", 5000, "1"),      repeated("true||", 5000, "true"),
                          repeated("1,", 70000, ""),     repeated("[", 5000, ""),
                          repeated("{1:", 5000, ""),     repeated("true?", 500, "true"),
                          repeated("[1].all(x,", 40, "")};
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        assert_null(cel_compile_text(&f.ctx, refused[i]));
        assert_int_not_equal(fake_errors(&f).n, 0);
    }
    const sv allowed[] = {repeated("true||", 1000, "true"), repeated("true&&", 1000, "true")};
    for (size_t i = 0; i < ARRAY_LEN(allowed); i++) {
        const struct cel *c = cel_compile_text(&f.ctx, allowed[i]);
        assert_non_null(c);
        assert_true(holds(c));
    }
    /* 20 x 20 x 20 x 20 loop steps are past the budget: an error, at once */
    const char *list = "[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]";
    sv loops = arena_printf(&a, "%s.all(a, %s.all(b, %s.all(c, %s.all(d, a + b + c + d >= 0))))",
                            list, list, list, list);
    const struct cel *c = cel_compile_text(&f.ctx, loops);
    assert_non_null(c);
    assert_false(holds(c));
}

static void test_text(void **state) {
    (void)state;
    static const struct {
        const char *expr, *want; /* NULL: no text */
    } rows[] = {
        {"request.method", "GET"},
        {"response.code", "503"},
        {"connection.mtls", "false"},
        {"1.25", "1.25"},
        {"12u", "12"},
        {"request.duration", "0.025s"},
        {"request.time", "2023-11-14T22:13:20Z"},
        {"filter_state.fs", "object"},
        {"null", NULL},
        {"[1]", NULL},
        {"request", NULL},
        {"request.nope", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv out = SV_NULL;
        const struct cel *c = cel_compile_text(&f.ctx, sv_cstr(rows[i].expr));
        assert_non_null(c);
        bool ok = cel_text(c, &si, &a, &out);
        if (ok != (rows[i].want != NULL) || (ok && !sv_is(out, rows[i].want))) {
            fail_msg("%s is '%.*s'", rows[i].expr, SV_ARG(out));
        }
    }
}

#define IDENT(name) "ident_expr { name: '" name "' }"
#define CONST_STR(s) "const_expr { string_value: '" s "' }"
static void test_parsed_form(void **state) {
    (void)state;
    static const struct {
        const char *msg;
        int want; /* -1: refused */
    } rows[] = {
        {"const_expr { bool_value: true }", 1},
        {"call_expr { function: '_==_' args { select_expr { operand { " IDENT(
             "request") " } field: 'method' } } args { " CONST_STR("GET") " } }",
         1},
        {"call_expr { function: '_&&_' args { const_expr { bool_value: true } } args { const_expr "
         "{ "
         "bool_value: false } } }",
         0},
        {"call_expr { target { " CONST_STR("abc") " } function: 'startsWith' args { " CONST_STR(
             "ab") " } }",
         1},
        {"select_expr { operand { " IDENT("request") " } field: 'path' test_only: true }", 1},
        {"call_expr { function: '@in' args { const_expr { int64_value: 2 } } args { list_expr { "
         "elements { const_expr { int64_value: 2 } } } } }",
         1},
        {"call_expr { function: '_[_]' args { struct_expr { entries { map_key { " CONST_STR(
             "k") " } value { const_expr { bool_value: true } } } } } args { " CONST_STR("k") " } "
                                                                                              "}",
         1},
        {"comprehension_expr { iter_var: 'x' accu_var: '__result__' iter_range { list_expr { "
         "elements { "
         "const_expr { int64_value: 1 } } } } accu_init { const_expr { bool_value: false } } "
         "loop_condition { call_expr { function: '@not_strictly_false' args { call_expr { "
         "function: "
         "'!_' args { " IDENT(
             "__result__") " } } } } } loop_step { call_expr { function: '_||_' "
                           "args { " IDENT("__result__") " } args { call_expr { "
                                                         "function: '_==_' args "
                                                         "{ " IDENT("x") " } args { "
                                                                         "const_expr { "
                                                                         "int64_value: 1 "
                                                                         "} } } } } } "
                                                                         "result "
                                                                         "{ " IDENT("__"
                                                                                    "resu"
                                                                                    "lt_"
                                                                                    "_") " } }",
         1},
        {"", -1},
        {IDENT("x"), -1},
        {"const_expr { }", -1},
        {"call_expr { function: 'nope' }", -1},
        {"call_expr { function: '_==_' args { const_expr { bool_value: true } } args { } }", -1},
        {"call_expr { function: 'size' args { } args { } args { } args { } args { } }", -1},
        {"select_expr { field: 'path' }", -1},
        {"struct_expr { message_name: 'a.B' }", -1},
        {"struct_expr { entries { field_key: 'a' value { const_expr { bool_value: true } } } }",
         -1},
        {"comprehension_expr { iter_var: 'x' accu_var: 'y' }", -1},
        {"comprehension_expr { iter_var: 'x' iter_var2: 'z' accu_var: 'y' }", -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct cel *c =
            cel_compile_expr(&f.ctx, fake_msg(&f, "google.api.expr.v1alpha1.Expr", rows[i].msg));
        sv why = fake_errors(&f);
        if ((c != NULL) != (rows[i].want >= 0) || (c && holds(c) != (rows[i].want == 1)) ||
            (!c && !why.n)) {
            fail_msg("row %zu: %s: %.*s", i, rows[i].msg, SV_ARG(why));
        }
    }
}

static void test_expression_message(void **state) {
    (void)state;
    static const struct {
        const char *msg;
        bool want;
    } rows[] = {
        {"cel_expr_string: 'request.method == \"GET\"'", true},
        {"cel_expr_parsed { expr { const_expr { bool_value: true } } }", true},
        {"cel_expr_checked { expr { const_expr { bool_value: true } } }", true},
        {"parsed_expr { expr { const_expr { bool_value: true } } }", true},
        {"checked_expr { expr { const_expr { bool_value: true } } }", true},
        {"cel_expr_parsed { }", false},
        {"cel_expr_string: '1 +'", false},
        {"", false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct cel *c =
            cel_compile_expression(&f.ctx, fake_msg(&f, "xds.type.v3.CelExpression", rows[i].msg));
        sv why = fake_errors(&f);
        if ((c != NULL) != rows[i].want || (c && !holds(c))) {
            fail_msg("row %zu: %s: %.*s", i, rows[i].msg, SV_ARG(why));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_true, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times, setup, teardown),
        cmocka_unit_test_setup_teardown(test_attributes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_false, setup, teardown),
        cmocka_unit_test_setup_teardown(test_of_nothing_known, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parsed_form, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expression_message, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
