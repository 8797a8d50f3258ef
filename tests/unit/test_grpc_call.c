/* Unary gRPC calls over an exchange that is not there: what is sent, and how answers are read. */
#include "proxy/upstream/upstream_call.h"
#include "tests/support/unit.h"

static struct {
    struct arena arena;
    struct upstream_call_options options;
    struct headers request;
    struct buf body;
    bool end_stream;
    upstream_call_done_fn done;
    void *user;
    /* the answer */
    unsigned answers;
    struct grpc_call_result got;
    char details[128], message[128];
} t;

struct upstream_call *upstream_call_start(struct worker *w, const struct upstream_call_options *o,
                                          const struct headers *h, struct buf *body,
                                          bool end_stream, upstream_call_done_fn done, void *user) {
    (void)w;
    t.options = *o;
    headers_copy(&t.request, h);
    buf_move(&t.body, body);
    t.end_stream = end_stream;
    t.done = done;
    t.user = user;
    return (struct upstream_call *)(void *)&t;
}
struct arena *upstream_call_arena(struct upstream_call *c) {
    (void)c;
    return &t.arena;
}
void upstream_call_set_user(struct upstream_call *c, void *user) {
    (void)c;
    t.user = user;
}
const char *upstream_call_status_str(enum upstream_call_status s) {
    return s == UPSTREAM_CALL_TIMEOUT ? "timeout" : "other";
}

static int start(void **state) {
    (void)state;
    memset(&t, 0, sizeof(t));
    arena_init(&t.arena, 0);
    headers_init(&t.request, &t.arena);
    buf_init(&t.body);
    return 0;
}

static int end(void **state) {
    (void)state;
    buf_fini(&t.body);
    arena_fini(&t.arena);
    chunk_cache_trim();
    return 0;
}

static void on_answer(void *user, const struct grpc_call_result *r) {
    assert_ptr_equal(user, &t);
    t.answers++;
    t.got = *r;
    snprintf(t.details, sizeof(t.details), "%.*s", SV_ARG(r->details));
    snprintf(t.message, sizeof(t.message), "%.*s", SV_ARG(r->message));
}

static void call(uint32_t timeout_ms, const struct headers *metadata, const char *authority) {
    struct upstream_call_options o = {.cluster = 3, .timeout_ms = timeout_ms};
    struct grpc_call_method m = {SV("pkg.Service"), SV("Do"), sv_cstr(authority), metadata};
    assert_non_null(grpc_call_start(NULL, &o, &m, SV("hello"), on_answer, &t));
}

static void a_request(void **state) {
    (void)state;
    struct headers more;
    headers_init(&more, &t.arena);
    headers_add_copy(&more, SV("x-gone"), SV("1"));
    headers_add_copy(&more, SV("x-token"), SV("abc"));
    headers_remove_name(&more, SV("x-gone"));
    call(1500, &more, "auth:1");
    assert_true(t.end_stream);
    assert_int_equal(t.options.cluster, 3);
    assert_int_equal(t.options.downstream, HTTP_2);
    assert_sv_is(headers_get(&t.request, HDR_method), "POST");
    assert_sv_is(headers_get(&t.request, HDR_path), "/pkg.Service/Do");
    assert_sv_is(headers_get(&t.request, HDR_authority), "auth:1");
    assert_sv_is(headers_get(&t.request, HDR_content_type), "application/grpc");
    assert_sv_is(headers_get(&t.request, HDR_te), "trailers");
    assert_sv_is(headers_get(&t.request, HDR_grpc_timeout), "1500m");
    assert_sv_is(headers_get_name(&t.request, SV("x-token")), "abc");
    assert_false(headers_get_name(&t.request, SV("x-gone")).p != NULL);
    assert_sv(buf_pullup(&t.body, buf_len(&t.body)), sv_from("\0\0\0\0\5hello", 10));
}

static void timeouts_and_hosts_may_be_missing(void **state) {
    (void)state;
    call(0, NULL, "");
    assert_false(headers_has(&t.request, HDR_grpc_timeout));
    assert_false(headers_has(&t.request, HDR_authority));
    headers_init(&t.request, &t.arena);
    call(200000000, NULL, "");
    assert_sv_is(headers_get(&t.request, HDR_grpc_timeout), "200000S");
}

#define FRAMED "\0\0\0\0\3yes"
static const struct answer_case {
    enum upstream_call_status call;
    const char *code, *status, *text; /* in headers; status and text in trailers when in_trailers */
    bool in_trailers;
    sv body;
    sv failure;
    unsigned want;
    const char *details, *message;
} answers[] = {
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV(FRAMED), SV_NULL, 0, "", "yes"},
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV("\0\0\0\0\0"), SV_NULL, 0, "", ""},
    {UPSTREAM_CALL_OK, "200", "7", "no%20w%C3%a4y", true, SV_NULL, SV_NULL, 7, "no w\xc3\xa4y", ""},
    {UPSTREAM_CALL_OK, "200", "5", "100%", false, SV_NULL, SV_NULL, 5, "100%", ""},
    {UPSTREAM_CALL_OK, "200", "5", "%4", false, SV_NULL, SV_NULL, 5, "%4", ""},
    {UPSTREAM_CALL_OK, "200", "5", "%zz%4g%41", false, SV_NULL, SV_NULL, 5, "%zz%4gA", ""},
    {UPSTREAM_CALL_OK, "503", "14", "x", false, SV_NULL, SV_NULL, 14, "x", ""},
    {UPSTREAM_CALL_OK, "200", "17", NULL, true, SV(FRAMED), SV_NULL, 2, "", ""},
    {UPSTREAM_CALL_OK, "200", "-1", NULL, true, SV(FRAMED), SV_NULL, 2, "", ""},
    {UPSTREAM_CALL_OK, "200", "", NULL, true, SV(FRAMED), SV_NULL, 2, "", ""},
    /* malformed messages */
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV_NULL, SV_NULL, 13, "malformed message", ""},
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV("\0\0\0\0"), SV_NULL, 13, "malformed message",
     ""},
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV("\0\0\0\0\4yes"), SV_NULL, 13,
     "malformed message", ""},
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV("\0\0\0\0\2yes"), SV_NULL, 13,
     "malformed message", ""},
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV("\1\0\0\0\3yes"), SV_NULL, 13,
     "malformed message", ""},
    {UPSTREAM_CALL_OK, "200", "0", NULL, true, SV("\0\377\377\377\377yes"), SV_NULL, 13,
     "malformed message", ""},
    /* no status */
    {UPSTREAM_CALL_OK, "200", NULL, NULL, true, SV(FRAMED), SV_NULL, 2, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "400", NULL, NULL, true, SV_NULL, SV_NULL, 13, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "401", NULL, NULL, true, SV_NULL, SV_NULL, 16, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "403", NULL, NULL, true, SV_NULL, SV_NULL, 7, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "404", NULL, NULL, true, SV_NULL, SV_NULL, 12, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "429", NULL, NULL, true, SV_NULL, SV_NULL, 14, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "504", NULL, NULL, true, SV_NULL, SV_NULL, 14, "no grpc-status", ""},
    {UPSTREAM_CALL_OK, "301", NULL, NULL, true, SV_NULL, SV_NULL, 2, "no grpc-status", ""},
    /* no response */
    {UPSTREAM_CALL_TIMEOUT, NULL, NULL, NULL, false, SV_NULL, SV_NULL, 4, "timeout", ""},
    {UPSTREAM_CALL_FAILED, NULL, NULL, NULL, false, SV_NULL, SV("tls words"), 14, "tls words", ""},
    {UPSTREAM_CALL_NO_CLUSTER, NULL, NULL, NULL, false, SV_NULL, SV_NULL, 14, "other", ""},
    {UPSTREAM_CALL_NO_HOST, NULL, NULL, NULL, false, SV_NULL, SV_NULL, 14, "other", ""},
    {UPSTREAM_CALL_OVERFLOW, NULL, NULL, NULL, false, SV_NULL, SV_NULL, 14, "other", ""},
    {UPSTREAM_CALL_TOO_LARGE, "200", "0", NULL, true, SV(FRAMED), SV_NULL, 8, "other", ""},
};

static void answer(const struct answer_case *c) {
    struct headers h, tr;
    headers_init(&h, &t.arena);
    headers_init(&tr, &t.arena);
    struct headers *where = c->in_trailers ? &tr : &h;
    if (c->status) {
        headers_add_copy(where, SV("grpc-status"), sv_cstr(c->status));
    }
    if (c->text) {
        headers_add_copy(where, SV("grpc-message"), sv_cstr(c->text));
    }
    struct buf BUF_AUTO body;
    buf_init(&body);
    for (size_t i = 0; i < c->body.n; i++) { /* in pieces */
        buf_append_static(&body, sv_sub(c->body, i, 1));
    }
    struct upstream_call_result r = {
        .status = c->call, .headers = c->code ? &h : NULL, .body = &body, .failure = c->failure};
    r.code = c->code ? (unsigned)strtoul(c->code, NULL, 10) : 0;
    r.trailers = c->in_trailers ? &tr : NULL;
    t.done(t.user, &r);
}

static void answers_are_read(void **state) {
    (void)state;
    call(100, NULL, "a");
    for (size_t row = 0; row < ARRAY_LEN(answers); row++) {
        const struct answer_case *c = &answers[row];
        answer(c);
        assert_row(t.answers == row + 1, row);
        assert_row(t.got.status == c->want, row);
        assert_row(t.got.call == c->call, row);
        assert_row(strcmp(t.details, c->details) == 0, row);
        assert_row(strcmp(t.message, c->message) == 0, row);
    }
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {TEST(a_request), TEST(timeouts_and_hosts_may_be_missing),
                                       TEST(answers_are_read)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
