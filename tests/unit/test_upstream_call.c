/* One exchange with a cluster whose balancer, pool and codec are not there: every way it can end,
 * once, and what it gives back. */
#include "proxy/upstream/upstream_call.h"

#include "proxy/upstream/pool.h"
#include "tests/support/unit.h"

struct worker {
    struct loop loop;
    struct addr own;
};

static struct {
    struct worker w;
    struct stats_store *stats;
    struct stats_scope *scope;
    struct cluster_config cfg;
    struct breaker_use use[PRIORITIES];
    struct breaker breakers[PRIORITIES];
    struct cluster_view view;
    struct host host;
    struct codec codec;
    struct codec_stream stream;
    /* what the balancer and pool do */
    bool has_cluster, has_host, is_waiting, is_reused;
    int pool_fails; /* enum pool_failure; -1: no */
    const struct http_pool_ops *pool_ops;
    void *pool_user;
    unsigned requests, pool_cancels, picks;
    /* what was sent */
    struct arena arena;
    struct headers sent;
    struct buf body;
    bool sent_end, sent_trailers, resets_on_send;
    unsigned resets;
    /* how it ended */
    unsigned ends, refs_given_back, pins;
    enum upstream_call_status status;
    unsigned code, reported; /* the last code that outlier detection was told */
    char answer[64];
    bool had_trailers;
} t;

/* --- the codec --- */

static void send_headers(struct codec_stream *s, const struct headers *h, bool end_stream) {
    (void)s;
    headers_init(&t.sent, &t.arena);
    headers_copy(&t.sent, h);
    t.sent_end = end_stream;
}
static void send_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    buf_move(&t.body, data);
    t.sent_end |= end_stream;
    if (t.resets_on_send) {
        s->ops->on_reset(s, RESET_CONNECTION_TERMINATION);
    }
}
static void send_trailers(struct codec_stream *s, const struct headers *h) {
    (void)s, (void)h;
    t.sent_trailers = t.sent_end = true;
}
static void reset(struct codec_stream *s, enum reset_reason why) {
    (void)s, (void)why;
    t.resets++;
}
static const struct codec_vtable vtable = {.send_headers = send_headers,
                                           .send_data = send_data,
                                           .send_trailers = send_trailers,
                                           .reset = reset};

/* --- the pool --- */

static void stream_opens(void) { t.pool_ops->on_ready(t.pool_user, &t.stream, NULL, &t.host); }

void http_pool_request(struct cluster_view *v, const struct pool_key *key,
                       const struct http_pool_ops *ops, void *user,
                       const struct codec_stream_ops *stream_ops,
                       struct http_pool_request **handle) {
    assert_ptr_equal(v, &t.view);
    assert_ptr_equal(key->host, &t.host);
    t.requests++;
    t.pool_ops = ops;
    t.pool_user = user;
    t.stream = (struct codec_stream){.codec = &t.codec, .ops = stream_ops, .user = user};
    *handle = NULL;
    if (t.pool_fails >= 0) {
        ops->on_failure(user, (enum pool_failure)t.pool_fails, SV("no TLS"), &t.host);
    } else if (t.is_waiting) {
        *handle = (struct http_pool_request *)(void *)&t;
    } else {
        stream_opens();
    }
}
void http_pool_cancel(struct http_pool_request *r) {
    (void)r;
    t.pool_cancels++;
}
void http_pool_stream_arena(struct codec_stream *s, struct arena *a) { s->response_arena = a; }
bool http_pool_stream_reused(const struct codec_stream *s) {
    (void)s;
    return t.is_reused;
}

/* --- the worker and the cluster --- */

struct loop *worker_loop(struct worker *w) {
    return &w->loop;
}
const struct addr *worker_local_address(const struct worker *w) { return &w->own; }
struct cluster_view *worker_cluster(struct worker *w, slot_t slot) {
    (void)w;
    assert_int_equal(slot, 5);
    return t.has_cluster ? &t.view : NULL;
}
struct cluster_view *worker_cluster_by_name(struct worker *w, sv name) {
    (void)w;
    return t.has_cluster && sv_is(name, "c") ? &t.view : NULL;
}
uint64_t worker_clusters_generation(const struct worker *w) {
    (void)w;
    return 1;
}
void cluster_view_unref(struct cluster_view *v) {
    v->refs--;
    t.refs_given_back++;
}
void hosts_pin_release(struct hosts_pin *p) { t.pins += p != NULL; }
struct host *cluster_view_pick(struct cluster_view *v, struct lb_context *ctx,
                               const struct host_entry **entry) {
    (void)v, (void)ctx, (void)entry;
    t.picks++;
    return t.has_host ? &t.host : NULL;
}
void host_report(const struct cluster_config *c, struct host *h, enum host_result r,
                 unsigned http_status) {
    (void)c, (void)h, (void)r;
    t.reported = http_status;
}

/* --- one call --- */

static struct hosts_pin pin;

static int start(void **state) {
    (void)state;
    memset(&t, 0, sizeof(t));
    assert_int_equal(loop_init(&t.w.loop, 2), 0);
    arena_init(&t.arena, 0);
    buf_init(&t.body);
    t.stats = stats_store_new(4);
    t.scope = stats_scope_get(t.stats, &cluster_stats_group, SV("cluster.c."));
    t.cfg = (struct cluster_config){.name = SV("c"), .use = t.use, .breakers = t.breakers};
    t.cfg.stats = t.scope;
    t.breakers[PRIORITY_DEFAULT].max_requests = 2;
    pin.refs = 1;
    t.view = (struct cluster_view){
        .cfg = &t.cfg, .refs = 1, .stats = stats_shard(t.scope, 2), .pin_ = &pin};
    t.codec.vt = &vtable;
    t.has_cluster = t.has_host = true;
    t.pool_fails = -1;
    assert_true(addr_parse_ip(SV("192.0.2.7"), 0, &t.w.own));
    return 0;
}

static int end(void **state) {
    (void)state;
    loop_run_nowait(&t.w.loop);
    /* whatever happened: nothing is held any more */
    assert_int_equal(t.view.refs, 1);
    assert_int_equal(t.use[PRIORITY_DEFAULT].requests, 0);
    assert_int_equal(HOST_STAT_GET(&t.host, rq_active), 0);
    assert_int_equal(stats_scope_value(t.scope, CLUSTER_upstream_rq_active), 0);
    assert_int_equal(t.pins, t.has_cluster);
    buf_fini(&t.body);
    arena_fini(&t.arena);
    cluster_lazy_stats_free(&t.cfg);
    stats_scope_unref(t.scope);
    stats_store_free(t.stats);
    loop_fini(&t.w.loop);
    chunk_cache_trim();
    return 0;
}

static void on_done(void *user, const struct upstream_call_result *r) {
    assert_ptr_equal(user, &t);
    t.ends++;
    t.status = r->status;
    t.code = r->code;
    t.had_trailers = r->trailers != NULL;
    sv body = buf_pullup(r->body, buf_len(r->body) < 60 ? buf_len(r->body) : 60);
    snprintf(t.answer, sizeof(t.answer), "%.*s", SV_ARG(body));
}

static struct upstream_call *begin_with(const struct upstream_call_options *o, const char *method,
                                        bool end_stream) {
    struct headers h;
    headers_init(&h, &t.arena);
    headers_add_copy(&h, SV(":method"), sv_cstr(method));
    headers_add_copy(&h, SV(":path"), SV("/p"));
    headers_add_copy(&h, SV("x-forwarded-for"), SV("10.0.0.1"));
    struct upstream_call *c = upstream_call_start(&t.w, o, &h, NULL, end_stream, on_done, &t);
    assert_int_equal(t.ends, 0); /* never before start returns */
    return c;
}
static struct upstream_call *begin(bool end_stream) {
    return begin_with(&(struct upstream_call_options){.cluster = 5}, end_stream ? "GET" : "POST",
                      end_stream);
}

static void respond(const char *status, bool end_stream) {
    struct headers h;
    headers_init(&h, t.stream.response_arena);
    headers_add_copy(&h, SV(":status"), sv_cstr(status));
    t.stream.ops->on_headers(&t.stream, &h, end_stream);
}
static void respond_data(sv bytes, bool end_stream) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_append_sv(&b, bytes);
    t.stream.ops->on_data(&t.stream, &b, end_stream);
}
static void more(struct upstream_call *c, sv bytes, bool end_stream) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_append_sv(&b, bytes);
    upstream_call_data(c, &b, end_stream);
}
static void assert_end(enum upstream_call_status status, unsigned code) {
    loop_run_nowait(&t.w.loop);
    assert_int_equal(t.ends, 1);
    assert_int_equal(t.status, status);
    assert_int_equal(t.code, code);
}

static void a_response(void **state) {
    (void)state;
    begin(true);
    assert_true(t.sent_end);
    assert_sv_is(headers_get(&t.sent, HDR_authority), "c");
    assert_sv_is(headers_get(&t.sent, HDR_x_envoy_internal), "true");
    assert_sv_is(headers_get(&t.sent, HDR_x_forwarded_for), "10.0.0.1,192.0.2.7");
    respond("200", false);
    respond_data(SV("one "), false);
    respond_data(SV("two"), true);
    assert_end(UPSTREAM_CALL_OK, 200);
    assert_string_equal(t.answer, "one two");
    assert_int_equal(t.resets, 0);
    assert_int_equal(stats_scope_value(t.scope, CLUSTER_upstream_rq_completed), 1);
}

/* What a response is for its host: gRPC's status counts, where it is gRPC. */
static const struct {
    const char *type, *status, *early, *late; /* grpc-status in the headers and the trailers */
    bool is_reset;
    unsigned success, error, reported;
} outcomes[] = {
    {"text/plain", "200", NULL, NULL, false, 1, 0, 200},
    {"text/plain", "404", NULL, NULL, false, 1, 0, 404},
    {"text/plain", "503", NULL, NULL, false, 0, 1, 503},
    {"text/plain", "600", NULL, NULL, false, 1, 0, 600},
    {"text/plain", "200", NULL, "14", false, 1, 0, 200},
    {"text/plain", "200", NULL, NULL, true, 1, 0, 503},
    {"application/grpc", "200", "0", NULL, false, 1, 0, 200},
    {"application/grpc", "200", "5", NULL, false, 1, 0, 404},
    {"application/grpc", "200", "14", NULL, false, 0, 1, 503},
    {"application/grpc", "200", "99", NULL, false, 0, 1, 500},
    {"application/grpc", "200", "x", NULL, false, 0, 1, 500},
    {"application/grpc", "200", NULL, NULL, false, 0, 1, 200},
    {"application/grpc", "503", NULL, NULL, false, 0, 1, 503},
    {"application/grpc+proto", "200", NULL, "0", false, 1, 0, 200},
    {"application/grpc+proto", "200", NULL, "13", false, 0, 1, 200},
    {"application/grpc", "200", NULL, NULL, true, 0, 1, 503},
};

static void the_host_s_outcome(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(outcomes); i++) {
        uint64_t success = HOST_STAT_GET(&t.host, rq_success);
        uint64_t error = HOST_STAT_GET(&t.host, rq_error);
        struct headers h, response, trailers;
        headers_init(&h, &t.arena);
        headers_add_copy(&h, SV(":method"), SV("POST"));
        headers_add_copy(&h, SV("content-type"), sv_cstr(outcomes[i].type));
        t.ends = 0;
        upstream_call_start(&t.w, &(struct upstream_call_options){.cluster = 5}, &h, NULL, true,
                            on_done, &t);
        headers_init(&response, t.stream.response_arena);
        headers_init(&trailers, t.stream.response_arena);
        headers_add_copy(&response, SV(":status"), sv_cstr(outcomes[i].status));
        if (outcomes[i].early) {
            headers_add_copy(&response, SV("grpc-status"), sv_cstr(outcomes[i].early));
        }
        bool is_whole = !outcomes[i].late && !outcomes[i].is_reset;
        t.stream.ops->on_headers(&t.stream, &response, is_whole);
        if (outcomes[i].late) {
            headers_add_copy(&trailers, SV("grpc-status"), sv_cstr(outcomes[i].late));
            t.stream.ops->on_trailers(&t.stream, &trailers);
        } else if (outcomes[i].is_reset) {
            t.stream.ops->on_reset(&t.stream, RESET_REMOTE);
        }
        loop_run_nowait(&t.w.loop);
        assert_int_equal(t.ends, 1);
        assert_int_equal(HOST_STAT_GET(&t.host, rq_success) - success, outcomes[i].success);
        assert_int_equal(HOST_STAT_GET(&t.host, rq_error) - error, outcomes[i].error);
        assert_int_equal(t.reported, outcomes[i].reported);
    }
    t.pins = 1;
}

static void by_name_and_as_it_is(void **state) {
    (void)state;
    begin_with(&(struct upstream_call_options){.cluster = SLOT_NONE,
                                               .cluster_name = SV("c"),
                                               .omits_forwarding = true},
               "GET", true);
    assert_false(headers_has(&t.sent, HDR_x_envoy_internal));
    assert_sv_is(headers_get(&t.sent, HDR_x_forwarded_for), "10.0.0.1");
    respond("404", true);
    assert_end(UPSTREAM_CALL_OK, 404);
}

static void trailers_both_ways(void **state) {
    (void)state;
    struct upstream_call *c = begin(false);
    more(c, SV("abc"), false);
    struct headers tr;
    headers_init(&tr, &t.arena);
    upstream_call_trailers(c, &tr);
    assert_true(t.sent_trailers);
    respond("200", false);
    t.stream.ops->on_trailers(&t.stream, &tr);
    assert_end(UPSTREAM_CALL_OK, 200);
    assert_true(t.had_trailers);
}

static void body_waits_for_the_stream(void **state) {
    (void)state;
    t.is_waiting = true;
    struct upstream_call *c = begin(false);
    more(c, SV("abc"), false);
    more(c, SV("def"), true);
    stream_opens();
    assert_sv_is(buf_pullup(&t.body, buf_len(&t.body)), "abcdef");
    assert_true(t.sent_end);
    respond("200", true);
    assert_end(UPSTREAM_CALL_OK, 200);
}

static void body_waits_for_a_full_stream(void **state) {
    (void)state;
    struct upstream_call *c = begin(false);
    t.stream.ops->on_above_high(&t.stream);
    more(c, SV("abc"), true);
    assert_int_equal(buf_len(&t.body), 0);
    t.stream.ops->on_below_low(&t.stream);
    assert_int_equal(buf_len(&t.body), 3);
    assert_true(t.sent_end);
    respond("200", true);
    assert_end(UPSTREAM_CALL_OK, 200);
}

static void requests_are_bounded(void **state) {
    (void)state;
    struct upstream_call *c = begin_with(
        &(struct upstream_call_options){.cluster = 5, .request_max_bytes = 4}, "POST", false);
    more(c, SV("123456789"), false); /* the stream takes it */
    t.stream.ops->on_above_high(&t.stream);
    more(c, SV("1234"), false);
    assert_int_equal(t.ends, 0);
    more(c, SV("5"), false);
    assert_end(UPSTREAM_CALL_TOO_LARGE, 0);
    assert_int_equal(t.resets, 1);
    assert_int_equal(stats_scope_value(t.scope, CLUSTER_retry_or_shadow_abandoned), 1);
}

static void responses_are_bounded(void **state) {
    (void)state;
    begin_with(&(struct upstream_call_options){.cluster = 5, .response_max_bytes = 4}, "GET", true);
    respond("200", false);
    respond_data(SV("1234"), false);
    assert_int_equal(t.ends, 0);
    respond_data(SV("5"), true);
    assert_end(UPSTREAM_CALL_TOO_LARGE, 200);
    assert_int_equal(t.resets, 1);
}

static void responses_may_be_dropped(void **state) {
    (void)state;
    begin_with(&(struct upstream_call_options){.cluster = 5,
                                               .response_max_bytes = 4,
                                               .discards_response = true},
               "GET", true);
    respond("200", false);
    respond_data(SV("123456789"), true);
    assert_end(UPSTREAM_CALL_OK, 200);
    assert_string_equal(t.answer, "");
}

static void early_answers_cut_the_request_short(void **state) {
    (void)state;
    begin(false);
    respond("413", true);
    assert_end(UPSTREAM_CALL_OK, 413);
    assert_int_equal(t.resets, 1);
}

static void nowhere_to_go(void **state) {
    (void)state;
    t.has_cluster = false;
    struct upstream_call *c = begin(false);
    more(c, SV("dropped"), true);
    assert_end(UPSTREAM_CALL_NO_CLUSTER, 0);
}

static void no_host(void **state) {
    (void)state;
    t.has_host = false;
    struct upstream_call *c = begin(false);
    struct headers tr;
    headers_init(&tr, &t.arena);
    upstream_call_trailers(c, &tr);
    assert_end(UPSTREAM_CALL_NO_HOST, 0);
    assert_int_equal(stats_scope_value(t.scope, CLUSTER_upstream_cx_none_healthy), 1);
}

static void breakers(void **state) {
    (void)state;
    t.use[PRIORITY_DEFAULT].requests = 2;
    begin(true);
    assert_end(UPSTREAM_CALL_OVERFLOW, 0);
    t.use[PRIORITY_DEFAULT].requests = 0;
}

static void pools_fail(void **state) {
    (void)state;
    t.pool_fails = POOL_CONNECT_FAILED;
    begin(true);
    assert_end(UPSTREAM_CALL_FAILED, 0);
}

static void pools_overflow(void **state) {
    (void)state;
    t.pool_fails = POOL_OVERFLOW;
    begin(true);
    assert_end(UPSTREAM_CALL_OVERFLOW, 0);
}

static void resets(void **state) {
    (void)state;
    begin(true);
    respond("200", false);
    t.stream.ops->on_reset(&t.stream, RESET_REMOTE);
    assert_end(UPSTREAM_CALL_FAILED, 200);
    assert_int_equal(t.resets, 0);
}

static void reset_while_sending(void **state) {
    (void)state;
    struct upstream_call *c = begin(false);
    t.resets_on_send = true;
    more(c, SV("abc"), true);
    assert_end(UPSTREAM_CALL_FAILED, 0);
}

static void stale_connections(void **state) {
    (void)state;
    t.is_reused = true;
    begin(true);
    t.stream.ops->on_reset(&t.stream, RESET_CONNECTION_TERMINATION);
    assert_int_equal(t.requests, 2);
    t.stream.ops->on_reset(&t.stream, RESET_CONNECTION_TERMINATION); /* once only */
    assert_end(UPSTREAM_CALL_FAILED, 0);
    assert_int_equal(t.requests, 2);
}

static void stale_connections_of_posts(void **state) {
    (void)state;
    t.is_reused = true;
    more(begin(false), SV("a"), true);
    t.stream.ops->on_reset(&t.stream, RESET_CONNECTION_TERMINATION);
    assert_end(UPSTREAM_CALL_FAILED, 0);
    assert_int_equal(t.requests, 1);
}

static void times_out(bool waits) {
    t.is_waiting = waits;
    begin_with(&(struct upstream_call_options){.cluster = 5, .timeout_ms = 1}, "GET", true);
    while (!t.ends) {
        loop_run_nowait(&t.w.loop);
    }
    assert_end(UPSTREAM_CALL_TIMEOUT, 0);
    assert_int_equal(waits ? t.pool_cancels : t.resets, 1);
    assert_int_equal(stats_scope_value(t.scope, CLUSTER_upstream_rq_timeout), 1);
}
static void timeout_while_connecting(void **state) {
    (void)state;
    times_out(true);
}
static void timeout_of_the_response(void **state) {
    (void)state;
    times_out(false);
}

static void cancels(void **state) {
    (void)state;
    upstream_call_cancel(begin(true)); /* a stream is open */
    assert_int_equal(t.resets, 1);
    loop_run_nowait(&t.w.loop);
    assert_int_equal(t.ends, 0);
}

static void cancels_while_connecting(void **state) {
    (void)state;
    t.is_waiting = true;
    upstream_call_cancel(begin(true));
    assert_int_equal(t.pool_cancels, 1);
    loop_run_nowait(&t.w.loop);
    assert_int_equal(t.ends, 0);
}

static void cancels_what_had_failed_already(void **state) {
    (void)state;
    t.has_host = false;
    upstream_call_cancel(begin(true));
    loop_run_nowait(&t.w.loop);
    assert_int_equal(t.ends, 0);
}

static void detached(void **state) {
    (void)state;
    upstream_call_detach(begin(true));
    respond("200", true);
    loop_run_nowait(&t.w.loop);
    assert_int_equal(t.ends, 0);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(a_response),
        TEST(the_host_s_outcome),
        TEST(by_name_and_as_it_is),
        TEST(trailers_both_ways),
        TEST(body_waits_for_the_stream),
        TEST(body_waits_for_a_full_stream),
        TEST(requests_are_bounded),
        TEST(responses_are_bounded),
        TEST(responses_may_be_dropped),
        TEST(early_answers_cut_the_request_short),
        TEST(nowhere_to_go),
        TEST(no_host),
        TEST(breakers),
        TEST(pools_fail),
        TEST(pools_overflow),
        TEST(resets),
        TEST(reset_while_sending),
        TEST(stale_connections),
        TEST(stale_connections_of_posts),
        TEST(timeout_while_connecting),
        TEST(timeout_of_the_response),
        TEST(cancels),
        TEST(cancels_while_connecting),
        TEST(cancels_what_had_failed_already),
        TEST(detached),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
