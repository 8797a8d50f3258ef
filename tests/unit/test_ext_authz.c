/* External authorization: what services are asked, what becomes of their answers, and which
 * settings are refused. */
#include "filters/common/ext_authz.h"
#include "filters/common/mutation_rules.h"
#include "filters/common/query_params.h"
#include "protos/any.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type ext_authz_http_filter;

#define EXT_AUTHZ "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
#define PER_ROUTE EXT_AUTHZ "PerRoute"
#define HTTP                                                                                 \
    "http_service { server_uri { uri: 'http://a' cluster: 'authz' timeout { seconds: 1 } } " \
    "authorization_response { "                                                              \
    "allowed_upstream_headers { patterns { prefix: 'x-up' } } "                              \
    "allowed_client_headers_on_success { patterns { exact: 'x-ok' } } } } "
#define GRPC "grpc_service { envoy_grpc { cluster_name: 'authz' } } "

/* --- the call that is not made --- */

static struct {
    struct headers request;
    struct arena arena;
    char body[256], message[1024];
    size_t body_n, message_n;
    struct upstream_call_options options;
    upstream_call_done_fn done;
    grpc_call_done_fn grpc_done;
    void *user;
    unsigned started, cancelled;
} call;

struct upstream_call *upstream_call_start(struct worker *w, const struct upstream_call_options *o,
                                          const struct headers *h, struct buf *body,
                                          bool end_stream, upstream_call_done_fn done, void *user) {
    (void)w;
    assert_true(end_stream);
    headers_init(&call.request, &call.arena);
    headers_copy(&call.request, h);
    call.body_n = buf_peek(body, 0, call.body, sizeof(call.body));
    call.options = *o;
    call.done = done;
    call.user = user;
    call.started++;
    return (struct upstream_call *)(void *)&call;
}
struct upstream_call *grpc_call_start(struct worker *w, const struct upstream_call_options *o,
                                      const struct grpc_call_method *m, sv message,
                                      grpc_call_done_fn done, void *user) {
    (void)w;
    assert_true(sv_is(m->method, "Check"));
    assert_true(message.n <= sizeof(call.message));
    memcpy(call.message, message.p, message.n);
    call.message_n = message.n;
    call.options = *o;
    call.grpc_done = done;
    call.user = user;
    call.started++;
    return (struct upstream_call *)(void *)&call;
}
void upstream_call_cancel(struct upstream_call *c) {
    (void)c;
    call.cancelled++;
}

static int begin(void **state) {
    memset(&call, 0, sizeof(call));
    arena_init(&call.arena, 0);
    return start_with_stats(state);
}
static int finish(void **state) {
    arena_fini(&call.arena);
    return end(state);
}

static const void *make(const char *text) {
    const void *c = ext_authz_http_filter.compile(&f.ctx, fake_msg(&f, EXT_AUTHZ, text));
    if (!c) {
        fail_msg("%s: %.*s", text, SV_ARG(fake_errors(&f)));
    }
    return c;
}

/* An HTTP service answers: status 0 is a failed call. */
static void answer(unsigned status, const char *more) {
    struct headers h;
    struct buf BUF_AUTO body;
    buf_init(&body);
    buf_lit(&body, "why");
    headers_init(&h, &call.arena);
    if (status) {
        headers_set_status(&h, status);
    }
    for (sv rest = sv_cstr(more); rest.n;) {
        sv line = sv_cut(&rest, '\n');
        sv name = sv_cut(&line, ':');
        headers_add_copy(&h, name, sv_trim(line));
    }
    const struct upstream_call_result r = {.status =
                                               status ? UPSTREAM_CALL_OK : UPSTREAM_CALL_TIMEOUT,
                                           .code = status,
                                           .headers = status ? &h : NULL,
                                           .body = &body};
    call.done(call.user, &r);
}

static void answer_grpc(unsigned status, const char *text) {
    sv bytes = SV_NULL;
    if (text) {
        bytes = proto_pack(fake_msg(&f, "envoy.service.auth.v3.CheckResponse", text), &call.arena);
    }
    const struct grpc_call_result r = {.status = status, .message = bytes};
    call.grpc_done(call.user, &r);
}

/* --- verdicts --- */

static void test_http_verdicts(void **state) {
    (void)state;
    static const struct {
        const char *config, *headers;
        unsigned answer, status; /* 0: the call fails; the request goes on */
        const char *details;
    } rows[] = {
        {HTTP, "", 200, 0, NULL},
        {HTTP, "", 201, 201, "ext_authz_denied"},
        {HTTP, "", 403, 403, "ext_authz_denied"},
        {HTTP, "", 401, 401, "ext_authz_denied"},
        {HTTP, "", 500, 403, "ext_authz_error"},
        {HTTP, "", 0, 403, "ext_authz_error"},
        {HTTP "status_on_error { code: ServiceUnavailable }", "", 0, 503, "ext_authz_error"},
        {HTTP "failure_mode_allow: true", "", 0, 0, NULL},
        {HTTP "failure_mode_allow: true", "", 403, 403, "ext_authz_denied"},
        {HTTP "validate_mutations: true", "x-up: a\x01", 200, 500, "ext_authz_invalid"},
        {HTTP "decoder_header_mutation_rules { disallow_all { value: true } "
              "disallow_is_error { value: true } }",
         "x-up: a", 200, 500, "ext_authz_invalid"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        fake_stream_start(&s, &ext_authz_http_filter, make(rows[i].config), "h.com", "/p", NULL);
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP_ALL_WATERMARK);
        answer(rows[i].answer, rows[i].headers);
        assert_int_equal(s.local_status, rows[i].status);
        assert_int_equal(s.continued_decoding, rows[i].status ? 0 : 1);
        if (rows[i].details) {
            assert_true(sv_is(s.local_details, rows[i].details));
            assert_true(s.local_flags == RESPONSE_FLAG(UAEX));
        }
        fake_stream_end(&s);
        assert_int_equal(call.cancelled, 0);
    }
}

static sv state_text(struct stream *s, const char *name) {
    return filter_state_text(s->info.filter_state, sv_cstr(name));
}

/* Whatever the service says, the request goes on; filter state tells what would have been. */
static void test_shadow(void **state) {
    (void)state;
    static const struct {
        const char *config, *headers;
        unsigned answer;
        const char *told; /* NULL: refused all the same */
    } rows[] = {
        {HTTP, "", 403, NULL},
        {HTTP "shadow_mode: true", "x-up: u", 200, "{\"check_result\":\"OK\",\"status_code\":200}"},
        {HTTP "shadow_mode: true", "x-why: w\nhost: h\ncontent-length: 3", 401,
         "{\"check_result\":\"DENIED\",\"status_code\":401,\"response_headers\":["
         "{\"key\":\":status\",\"value\":\"401\"},{\"key\":\"x-why\",\"value\":\"w\"},"
         "{\"key\":\"content-length\",\"value\":\"3\"}]}"},
        {HTTP "shadow_mode: true", "", 0, "{\"check_result\":\"ERROR\",\"status_code\":403}"},
        {HTTP "shadow_mode: true status_on_error { code: ServiceUnavailable }", "", 500,
         "{\"check_result\":\"ERROR\",\"status_code\":503}"},
        {HTTP "shadow_mode: true validate_mutations: true", "x-up: a\x01", 200, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        fake_stream_start(&s, &ext_authz_http_filter, make(rows[i].config), "h.com", "/p", NULL);
        fake_stream_decode(&s, true);
        answer(rows[i].answer, rows[i].headers);
        sv told = state_text(&s, "envoy.filters.http.ext_authz.shadow");
        assert_int_equal(s.continued_decoding, rows[i].told ? 1 : 0);
        if (rows[i].told) {
            assert_sv_is(told, rows[i].told);
        } else {
            assert_null(told.p);
        }
        fake_stream_end(&s);
    }
}

static void test_latency(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &ext_authz_http_filter, make(HTTP "emit_filter_state_stats: true"),
                      "h.com", "/p", NULL);
    fake_stream_decode(&s, true);
    answer(200, "");
    const struct filter_state_object *o =
        filter_state_get(s.info.filter_state, SV("envoy.filters.http.ext_authz"));
    assert_non_null(o);
    assert_non_null(kv_get(o->typed, SV("latency_us")));
    fake_stream_end(&s);
}

static void test_http_changes(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &ext_authz_http_filter, make(HTTP "clear_route_cache: true"), "h.com",
                      "/p", "x-a: 1\nx-b: 2");
    fake_stream_decode(&s, true);
    assert_true(sv_is(headers_get(&call.request, HDR_path), "/p"));
    assert_null(headers_get_name(&call.request, SV("x-a")).p);
    answer(200, "x-up: u\nx-ok: o\nx-envoy-auth-headers-to-remove: x-a, host");
    assert_true(sv_is(headers_get_name(&s.request, SV("x-up")), "u"));
    assert_null(headers_get_name(&s.request, SV("x-a")).p);
    assert_true(sv_is(headers_get(&s.request, HDR_authority), "h.com"));
    assert_int_equal(s.route_clears, 1);
    fake_stream_respond(&s, 200, "", true);
    assert_true(sv_is(headers_get_name(&s.response, SV("x-ok")), "o"));
    fake_stream_end(&s);
}

static void test_grpc_verdicts(void **state) {
    (void)state;
    static const struct {
        unsigned grpc;
        const char *text;
        unsigned status;
        const char *details;
    } rows[] = {
        {0, "", 0, NULL},
        {0, "status { }", 0, NULL},
        {0, "status { code: 7 }", 403, "ext_authz_denied"},
        {0, "status { code: 7 } ok_response { }", 403, "ext_authz_denied"},
        {0, "status { code: 7 } denied_response { status { code: Unauthorized } }", 401,
         "ext_authz_denied"},
        {14, NULL, 403, "ext_authz_error"},
        {4, NULL, 403, "ext_authz_error"},
        {0, "ok_response { headers { header { key: 'x-a\\r\\n' value: 'b' } } }", 0, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        fake_stream_start(&s, &ext_authz_http_filter, make(GRPC), "h.com", "/p", NULL);
        fake_stream_decode(&s, true);
        answer_grpc(rows[i].grpc, rows[i].text);
        assert_int_equal(s.local_status, rows[i].status);
        assert_int_equal(s.continued_decoding, rows[i].status ? 0 : 1);
        assert_true(!rows[i].details || sv_is(s.local_details, rows[i].details));
        fake_stream_end(&s);
    }
}

/* Bytes that are no CheckResponse are an error, whatever they are. */
static void test_malformed_answer(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &ext_authz_http_filter, make(GRPC), "h.com", "/p", NULL);
    fake_stream_decode(&s, true);
    const struct grpc_call_result r = {.message = SV("\x0a\xff\xff")};
    call.grpc_done(call.user, &r);
    assert_int_equal(s.local_status, 403);
    assert_true(sv_is(s.local_details, "ext_authz_error"));
    fake_stream_end(&s);
}

static void test_bodies(void **state) {
    (void)state;
    struct stream s;
    const void *c = make(GRPC "with_request_body { max_request_bytes: 4 "
                              "allow_partial_message: true }");
    fake_stream_start(&s, &ext_authz_http_filter, c, "h.com", "/p", NULL);
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_STOP);
    assert_int_equal(fake_stream_decode_data(&s, SV("ab"), false), FILTER_DATA_STOP_BUFFER);
    assert_int_equal(call.started, 0);
    buf_append_sv(&s.decoding, SV("ab"));
    assert_int_equal(fake_stream_decode_data(&s,
                                             SV("\0\xff"
                                                "e"),
                                             false),
                     FILTER_DATA_STOP_WATERMARK);
    assert_int_equal(call.started, 1);
    sv sent = sv_from(call.message, call.message_n);
    assert_true(sv_contains(sent, sv_from("ab\0!", 4))); /* a NUL is kept */
    assert_false(sv_contains(sent, SV("ab\0!e")));
    fake_stream_end(&s); /* before the answer */
    assert_int_equal(call.cancelled, 1);
}

static void test_routes(void **state) {
    (void)state;
    static const char *const texts[] = {"disabled: true",
                                        "check_settings { context_extensions { key: 'a' value: "
                                        "'very-special' } }"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        struct stream s;
        fake_stream_start(&s, &ext_authz_http_filter, make(GRPC), "h.com", "/p", NULL);
        s.route_configs[0] = ext_authz_http_filter.compile_route(
            &f.ctx, fake_msg(&f, PER_ROUTE, texts[i]), PER_ROUTE);
        s.route_configs_n = 1;
        call.started = 0;
        fake_stream_decode(&s, true);
        assert_int_equal(call.started, i);
        fake_stream_end(&s);
    }
    assert_true(sv_contains(sv_from(call.message, call.message_n), SV("very-special")));
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", "must be set"},
        {"grpc_service { google_grpc { target_uri: 'x' stat_prefix: 'y' } }", "envoy_grpc"},
        {GRPC "typed_metadata_context_namespaces: 'x'", "typed_metadata_context_namespaces"},
        {GRPC "route_typed_metadata_context_namespaces: 'x'", "route_typed_metadata"},
        {GRPC "bootstrap_metadata_labels_key: 'x'", "bootstrap_metadata_labels_key"},
        {GRPC "allowed_headers { patterns { safe_regex { regex: '(' } } }", "allowed_headers"},
        {GRPC "decoder_header_mutation_rules { allow_expression { regex: '(' } }",
         "decoder_header_mutation_rules.allow_expression"},
        {"http_service { path_prefix: 'x' server_uri { uri: 'a' cluster: 'b' timeout { } } }",
         "path_prefix"},
        {"http_service { }", "server_uri"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(ext_authz_http_filter.compile(&f.ctx, fake_msg(&f, EXT_AUTHZ, rows[i].text)));
        sv why = fake_errors(&f);
        if (!sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(why));
        }
    }
}

static void test_query_params(void **state) {
    (void)state;
    static const struct {
        const char *path, *set, *remove, *want;
    } rows[] = {
        {"/a", "k", "none", "/a?k=v"},
        {"/a?k=1&k=2", "k", "none", "/a?k=v"},
        {"/a?z&b=2&a=1", "k", "z", "/a?a=1&b=2&k=v"},
        {"/a?b&b", "k", "b", "/a?k=v"},
        {"/a?x=1=2", "k", "none", "/a?k=v&x=1=2"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct query_params q;
        query_params_parse(&q, sv_cstr(rows[i].path), &f.arena);
        query_params_set(&q, sv_cstr(rows[i].set), SV("v"));
        query_params_remove(&q, sv_cstr(rows[i].remove));
        sv got = query_params_path(&q, sv_cstr(rows[i].path));
        if (!sv_is(got, rows[i].want)) {
            fail_msg("%s: %.*s", rows[i].path, SV_ARG(got));
        }
    }
}

static void test_mutation_rules(void **state) {
    (void)state;
    static const struct {
        const char *rules, *name;
        bool is_removal;
        enum mutation_verdict want;
    } rows[] = {
        {"", "x-a", false, MUTATION_ALLOWED},
        {"", "host", false, MUTATION_IGNORED},
        {"", ":authority", false, MUTATION_IGNORED},
        {"", ":path", false, MUTATION_ALLOWED},
        {"", ":path", true, MUTATION_IGNORED},
        {"", "x-envoy-a", false, MUTATION_IGNORED},
        {"allow_envoy { value: true }", "x-envoy-a", false, MUTATION_ALLOWED},
        {"allow_all_routing { value: true }", "host", false, MUTATION_ALLOWED},
        {"allow_all_routing { value: true }", "host", true, MUTATION_IGNORED},
        {"disallow_system { value: true }", ":path", false, MUTATION_IGNORED},
        {"disallow_all { value: true } allow_expression { regex: 'x-.' }", "x-a", false,
         MUTATION_ALLOWED},
        {"disallow_expression { regex: 'x-.' } allow_expression { regex: 'x-.' } "
         "disallow_is_error { value: true }",
         "x-a", false, MUTATION_REFUSED},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct mutation_rules *r = mutation_rules_compile(
            &f.ctx, fake_msg(&f, "envoy.config.common.mutation_rules.v3.HeaderMutationRules",
                             rows[i].rules));
        assert_non_null(r);
        if (mutation_rules_check(r, sv_cstr(rows[i].name), rows[i].is_removal) != rows[i].want) {
            fail_msg("%s: %s", rows[i].rules, rows[i].name);
        }
    }
    assert_int_equal(mutation_rules_check(NULL, SV("host"), true), MUTATION_ALLOWED);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_http_verdicts, begin, finish),
        cmocka_unit_test_setup_teardown(test_shadow, begin, finish),
        cmocka_unit_test_setup_teardown(test_latency, begin, finish),
        cmocka_unit_test_setup_teardown(test_http_changes, begin, finish),
        cmocka_unit_test_setup_teardown(test_grpc_verdicts, begin, finish),
        cmocka_unit_test_setup_teardown(test_malformed_answer, begin, finish),
        cmocka_unit_test_setup_teardown(test_bodies, begin, finish),
        cmocka_unit_test_setup_teardown(test_routes, begin, finish),
        cmocka_unit_test_setup_teardown(test_refused, begin, finish),
        cmocka_unit_test_setup_teardown(test_query_params, begin, finish),
        cmocka_unit_test_setup_teardown(test_mutation_rules, begin, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
