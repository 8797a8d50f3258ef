/* HTTP pools against servers on loopback: reuse, queueing, limits, failures, draining, both
 * protocols. */
#include "proxy/upstream/pool.h"

#include "tests/support/hosts.h"
#include "tests/support/upstream_server.h"

#include <stdio.h>

struct request {
    struct bench *bench;
    struct http_pool_request *pending;
    struct codec_stream *stream;
    struct conn *conn;
    unsigned status;
    bool is_ready, is_done, is_reset, is_failed, was_reused, had_bytes;
    enum reset_reason why;
    enum pool_failure failure;
    char reason[128];
    struct arena arena;
};
#define REQUESTS 24
struct bench {
    struct fixture_cluster f;
    struct codec_options codec;
    struct loop loop;
    struct server server;
    struct host_set *set;
    struct cluster_view *view;
    struct request rq[REQUESTS];
    unsigned finished;
};

/* ---- a request's callbacks ---- */

static struct request *rq_of(struct codec_stream *s) { return s->user; }
static void finish(struct request *r) {
    r->stream = NULL;
    r->bench->finished++;
}
static void on_headers(struct codec_stream *s, struct headers *h, bool end) {
    struct request *r = rq_of(s);
    r->status = headers_status(h);
    if (end) {
        r->is_done = true;
        finish(r);
    }
}
static void on_data(struct codec_stream *s, struct buf *d, bool end) {
    buf_clear(d);
    if (end) {
        rq_of(s)->is_done = true;
        finish(rq_of(s));
    }
}
static void on_trailers(struct codec_stream *s, struct headers *h) {
    (void)h;
    rq_of(s)->is_done = true;
    finish(rq_of(s));
}
static void on_reset(struct codec_stream *s, enum reset_reason why) {
    struct request *r = rq_of(s);
    r->is_reset = true;
    r->why = why;
    r->was_reused = http_pool_stream_reused(s);
    r->had_bytes = s->rx_header_bytes > 0;
    finish(r);
}
static void nothing(struct codec_stream *s) { (void)s; }
static const struct codec_stream_ops stream_ops = {.on_headers = on_headers,
                                                   .on_data = on_data,
                                                   .on_trailers = on_trailers,
                                                   .on_reset = on_reset,
                                                   .on_above_high = nothing,
                                                   .on_below_low = nothing};

static void on_ready(void *user, struct codec_stream *s, struct conn *c, struct host *h) {
    struct request *r = user;
    assert_false(r->is_ready || r->is_failed);
    assert_ptr_equal(h, r->bench->set->entries[0].host);
    r->pending = NULL;
    r->is_ready = true;
    r->stream = s;
    r->conn = c;
    http_pool_stream_arena(s, &r->arena);
    struct headers hd;
    headers_init(&hd, &r->arena);
    headers_add_id(&hd, HDR_method, SV("GET"));
    headers_add_id(&hd, HDR_scheme, SV("http"));
    headers_add_id(&hd, HDR_authority, SV("test"));
    headers_add_id(&hd, HDR_path, SV("/"));
    s->codec->vt->send_headers(s, &hd, true);
}
static void on_failure(void *user, enum pool_failure why, sv reason, struct host *h) {
    struct request *r = user;
    assert_non_null(h);
    r->pending = NULL;
    r->is_failed = true;
    r->failure = why;
    snprintf(r->reason, sizeof(r->reason), "%.*s", SV_ARG(reason));
    r->bench->finished++;
}
static const struct http_pool_ops pool_ops = {.on_ready = on_ready, .on_failure = on_failure};

/* ---- the bench ---- */

static void bench_hosts(struct bench *b, const struct addr *first, const struct addr *more) {
    struct host_set_builder *hb = host_set_builder_new(&b->f.cfg, NULL, 1);
    struct host_spec spec = {.addr = *first, .additional = more, .additional_n = more ? 1 : 0};
    unsigned l = host_set_builder_locality(hb, 0, &(struct locality){0}, 0);
    host_set_builder_add(hb, l, &spec, 1, UINT16_MAX, 0);
    b->set = host_set_builder_finish(hb, NULL);
    b->view = cluster_view_new(NULL, &b->loop, &b->f.cfg, NULL, b->set);
}

static void bench_begin(struct bench *b, bool is_h2) {
    memset(b, 0, sizeof(*b));
    server_transport = TRANSPORT_RAW;
    fixture_init(&b->f, &round_robin_lb_policy);
    codec_options_defaults(&b->codec);
    b->f.cfg.codec = &b->codec;
    b->f.cfg.protocol = is_h2 ? UPSTREAM_HTTP2 : UPSTREAM_HTTP1;
    assert_int_equal(loop_init(&b->loop, 1), 0);
    server_start(&b->server, &b->loop, is_h2);
    for (unsigned i = 0; i < REQUESTS; i++) {
        b->rq[i].bench = b;
        arena_init(&b->rq[i].arena, 0);
    }
}
static void bench_init(struct bench *b, bool is_h2) {
    bench_begin(b, is_h2);
    bench_hosts(b, &b->server.addr, NULL);
}

static void turns(struct bench *b, unsigned n) {
    while (n--) {
        loop_run_nowait(&b->loop);
    }
}

static uint64_t count(const struct bench *b, unsigned i) { return fixture_stat(&b->f, i); }

static void bench_fini(struct bench *b) {
    if (b->view) {
        pools_free(b->view);
        cluster_view_retire(b->view);
    }
    turns(b, 4);
    server_stop(&b->server);
    turns(b, 4);
    assert_int_equal(count(b, CLUSTER_upstream_cx_active), 0);
    assert_int_equal(count(b, CLUSTER_upstream_rq_pending_active), 0);
    for (unsigned i = 0; i < PRIORITIES; i++) {
        assert_int_equal(b->f.use[i].connections, 0);
        assert_int_equal(b->f.use[i].pending, 0);
        assert_int_equal(b->f.use[i].pools, 0);
    }
    assert_int_equal(b->set->entries[0].host->stats.cx_active, 0);
    assert_int_equal(b->set->entries[0].host->shared.refs, 1);
    shared_unref(&b->set->shared);
    loop_fini(&b->loop);
    for (unsigned i = 0; i < REQUESTS; i++) {
        arena_fini(&b->rq[i].arena);
    }
    fixture_fini(&b->f);
    transport_read_chunk_drop();
    chunk_cache_trim();
}

static struct request *ask(struct bench *b, unsigned i) {
    struct pool_key key = {
        .host = b->set->entries[0].host, .entry = &b->set->entries[0], .downstream = HTTP_11};
    struct http_pool_request *handle = (void *)b; /* to be overwritten */
    http_pool_request(b->view, &key, &pool_ops, &b->rq[i], &stream_ops, &handle);
    b->rq[i].pending = handle;
    assert_true(!handle == (b->rq[i].is_ready || b->rq[i].is_failed));
    return &b->rq[i];
}

/* Until so many requests are over; the loop's clock bounds it. */
static void finish_all(struct bench *b, unsigned n) {
    uint64_t until = loop_refresh_now(&b->loop) + 5000000;
    while (b->finished < n && loop_now_us(&b->loop) < until) {
        loop_run_nowait(&b->loop);
    }
    assert_int_equal(b->finished, n);
    turns(b, 3);
}
static void wait_for(struct bench *b, unsigned stat, uint64_t n) {
    uint64_t until = loop_refresh_now(&b->loop) + 5000000;
    while (count(b, stat) < n && loop_now_us(&b->loop) < until) {
        loop_run_nowait(&b->loop);
    }
    assert_int_equal(count(b, stat), n);
}

/* ---- HTTP/1 ---- */

static void test_reuse(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    for (unsigned i = 0; i < 3; i++) {
        struct request *r = ask(&b, i);
        finish_all(&b, i + 1);
        assert_true(r->is_done);
        assert_int_equal(r->status, 200);
    }
    assert_int_equal(b.server.accepted, 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_total), 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_http1_total), 1);
    /* only the first one waited */
    assert_int_equal(count(&b, CLUSTER_upstream_rq_pending_total), 1);
    assert_true(count(&b, CLUSTER_upstream_cx_rx_bytes_total) > 0);
    bench_fini(&b);
}

static void test_one_connection_each(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    for (unsigned i = 0; i < 3; i++) {
        ask(&b, i);
    }
    assert_int_equal(count(&b, CLUSTER_upstream_rq_pending_active), 3);
    finish_all(&b, 3);
    assert_int_equal(b.server.accepted, 3);
    struct conn *last = b.rq[2].conn;
    ask(&b, 3);
    finish_all(&b, 4);
    assert_int_equal(b.server.accepted, 3);
    assert_true(b.rq[3].conn == last || b.rq[3].conn == b.rq[0].conn ||
                b.rq[3].conn == b.rq[1].conn);
    struct conn *hot = b.rq[3].conn;
    ask(&b, 4);
    finish_all(&b, 5);
    assert_ptr_equal(b.rq[4].conn, hot); /* the one used last */
    bench_fini(&b);
}

static void test_connection_limit(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.breakers[0].max_connections = 1;
    for (unsigned i = 0; i < 4; i++) {
        ask(&b, i);
    }
    assert_true(count(&b, CLUSTER_upstream_cx_overflow) >= 1);
    finish_all(&b, 4);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(b.rq[i].is_done);
    }
    assert_int_equal(b.server.accepted, 1);
    bench_fini(&b);
    bench_init(&b, false);
    b.f.breakers[0].max_connections = 0; /* a pool without connections gets one all the same */
    ask(&b, 0);
    finish_all(&b, 1);
    assert_true(b.rq[0].is_done);
    bench_fini(&b);
}

static void test_pending_limit(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.breakers[0].max_pending = 1;
    ask(&b, 0);
    struct request *r = ask(&b, 1);
    assert_true(r->is_failed);
    assert_int_equal(r->failure, POOL_OVERFLOW);
    assert_int_equal(count(&b, CLUSTER_upstream_rq_pending_overflow), 1);
    finish_all(&b, 2);
    assert_true(b.rq[0].is_done);
    bench_fini(&b);
}

static void test_pool_limit(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.breakers[0].max_pools = 0;
    assert_int_equal(ask(&b, 0)->failure, POOL_OVERFLOW);
    assert_true(b.rq[0].is_failed);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_pool_overflow), 1);
    bench_fini(&b);
}

/* No listener of that name here. */
static void test_no_internal_listener(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    struct host *h = b.set->entries[0].host;
    const struct addr before = h->addr;
    h->addr = addr_internal_client;
    ask(&b, 0);
    finish_all(&b, 1);
    assert_int_equal(b.rq[0].failure, POOL_CONNECT_FAILED);
    assert_string_equal(b.rq[0].reason, "immediate connect error: Invalid argument|remote address:"
                                        "envoy://internal_client_address/");
    assert_int_equal(count(&b, CLUSTER_upstream_cx_connect_fail), 1);
    assert_int_equal(count(&b, CLUSTER_bind_errors), 0);
    h->addr = before;
    bench_fini(&b);
}

static void test_connect_refused(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    io_close(&b.server.io, b.server.fd, NULL);
    turns(&b, 1);
    ask(&b, 0);
    ask(&b, 1);
    finish_all(&b, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(b.rq[i].is_failed);
        assert_int_equal(b.rq[i].failure, POOL_CONNECT_FAILED);
        assert_string_equal(b.rq[i].reason, "delayed connect error: Connection refused");
    }
    assert_int_equal(count(&b, CLUSTER_upstream_rq_pending_failure_eject), 2);
    assert_true(count(&b, CLUSTER_upstream_cx_connect_fail) >= 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy_remote),
                     count(&b, CLUSTER_upstream_cx_connect_fail));
    assert_true(b.set->entries[0].host->stats.cx_connect_fail >= 1);
    b.server.fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(io_open(&b.server.io, &b.loop, b.server.fd, server_on_accept), 0);
    bench_fini(&b);
}

static void test_connect_timeout(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    server_transport = TRANSPORT_STUCK;
    b.f.cfg.connect_timeout_ms = 10;
    ask(&b, 0);
    finish_all(&b, 1);
    assert_true(b.rq[0].is_failed);
    assert_int_equal(b.rq[0].failure, POOL_CONNECT_TIMEOUT);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_connect_timeout), 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_connect_fail), 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy_local), 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_http1_total), 1);
    bench_fini(&b);
}

static void test_no_transport(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    server_transport = TRANSPORT_MISSING;
    assert_true(ask(&b, 0)->is_failed); /* at once */
    assert_int_equal(b.rq[0].failure, POOL_NO_TRANSPORT);
    assert_string_equal(b.rq[0].reason, "TLS error: Secret is not supplied by SDS");
    bench_fini(&b);
}

static void test_happy_eyeballs(void **state) {
    (void)state;
    struct bench b;
    bench_begin(&b, false);
    struct sock_opts o = {0};
    struct addr any, closed;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int fd = sock_listen(&any, &o, 1, false, &closed);
    assert_true(fd >= 0);
    close(fd); /* nobody listens there now */
    bench_hosts(&b, &closed, &b.server.addr);
    ask(&b, 0);
    finish_all(&b, 1);
    assert_true(b.rq[0].is_done);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_connect_fail), 0);
    bench_fini(&b);
}

static void test_server_closes(void **state) {
    (void)state;
    static const struct {
        enum server_script script;
        bool is_done, notified;
    } rows[] = {{SERVER_ANSWER_CLOSE, true, true},
                {SERVER_ANSWER_HANG_UP, true, false},
                {SERVER_HANG_UP, false, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b, false);
        b.server.script = rows[i].script;
        ask(&b, 0);
        finish_all(&b, 1);
        wait_for(&b, CLUSTER_upstream_cx_destroy, 1);
        assert_row(b.rq[0].is_done == rows[i].is_done, i);
        assert_row(b.rq[0].is_reset != rows[i].is_done, i);
        assert_row(count(&b, CLUSTER_upstream_cx_close_notify) == rows[i].notified, i);
        assert_row(count(&b, CLUSTER_upstream_cx_destroy_with_active_rq) == !rows[i].is_done, i);
        assert_row(!b.rq[0].is_reset ||
                       (b.rq[0].why == RESET_CONNECTION_TERMINATION && !b.rq[0].was_reused),
                   i);
        b.server.script = SERVER_ANSWER;
        ask(&b, 1);
        finish_all(&b, 2);
        assert_row(b.rq[1].is_done && b.server.accepted == 2, i);
        bench_fini(&b);
    }
}

/* The race every pool has: the server hangs up just as the next request goes out. */
static void test_stale_race(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    ask(&b, 0);
    finish_all(&b, 1);
    b.server.script = SERVER_HANG_UP;
    ask(&b, 1);
    finish_all(&b, 2);
    assert_true(b.rq[1].is_reset);
    assert_int_equal(b.rq[1].why, RESET_CONNECTION_TERMINATION);
    assert_true(b.rq[1].was_reused); /* so the caller may try again */
    assert_false(b.rq[1].had_bytes);
    bench_fini(&b);
}

static void test_garbage(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.server.script = SERVER_GARBAGE;
    ask(&b, 0);
    finish_all(&b, 1);
    assert_true(b.rq[0].is_reset);
    assert_int_equal(b.rq[0].why, RESET_PROTOCOL_ERROR);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_protocol_error), 1);
    wait_for(&b, CLUSTER_upstream_cx_destroy_local, 1);
    bench_fini(&b);
}

static void test_unasked_bytes(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    ask(&b, 0);
    finish_all(&b, 1);
    server_write(&b.server.conns[0], "HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\n\r\n");
    wait_for(&b, CLUSTER_upstream_cx_destroy, 1); /* not kept for the next one */
    ask(&b, 1);
    finish_all(&b, 2);
    assert_int_equal(b.rq[1].status, 200);
    bench_fini(&b);
}

static void test_max_requests(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.cfg.max_requests_per_connection = 2;
    for (unsigned i = 0; i < 5; i++) {
        ask(&b, i);
        finish_all(&b, i + 1);
        assert_true(b.rq[i].is_done);
    }
    assert_int_equal(b.server.accepted, 3);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_max_requests), 2);
    bench_fini(&b);
}

static void test_idle_timeout(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.cfg.idle_timeout_ms = 5;
    ask(&b, 0);
    finish_all(&b, 1);
    wait_for(&b, CLUSTER_upstream_cx_idle_timeout, 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy_local), 1);
    bench_fini(&b);
}

static void test_max_duration(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.cfg.max_connection_duration_ms = 5;
    b.server.script = SERVER_SILENT;
    ask(&b, 0);
    wait_for(&b, CLUSTER_upstream_cx_max_duration_reached, 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy), 0); /* a request is under way */
    server_write(&b.server.conns[0], "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    finish_all(&b, 1);
    assert_true(b.rq[0].is_done);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy), 1);
    bench_fini(&b);
}

static void test_cancel(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    ask(&b, 0);
    http_pool_cancel(b.rq[0].pending);
    assert_int_equal(count(&b, CLUSTER_upstream_rq_cancelled), 1);
    assert_int_equal(count(&b, CLUSTER_upstream_rq_pending_active), 0);
    ask(&b, 1); /* gets the connection that was for the other one */
    finish_all(&b, 1);
    assert_false(b.rq[0].is_ready || b.rq[0].is_failed);
    assert_true(b.rq[1].is_done);
    assert_int_equal(b.server.accepted, 1);
    bench_fini(&b);
}

/* A request that is reset by us takes its connection along, HTTP/1 having no other way. */
static void test_local_reset(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.server.script = SERVER_SILENT;
    ask(&b, 0);
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (!b.rq[0].is_ready && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    b.rq[0].stream->codec->vt->reset(b.rq[0].stream, RESET_LOCAL);
    wait_for(&b, CLUSTER_upstream_cx_destroy, 1);
    assert_false(b.rq[0].is_reset); /* no callback to who did it */
    bench_fini(&b);
}

static void test_preconnect(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.f.cfg.per_upstream_preconnect_ratio = 2.0;
    ask(&b, 0);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_total), 2);
    finish_all(&b, 1);
    bench_fini(&b);
}

/* ---- hosts that go ---- */

static void test_host_removed(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    ask(&b, 0);
    finish_all(&b, 1);
    b.server.script = SERVER_SILENT;
    ask(&b, 1); /* busy */
    ask(&b, 2); /* connecting */
    const struct fixture_host other[] = {{.address = "10.0.0.9:80"}, {0}};
    struct host_set *s = fixture_hosts(&b.f, other, b.set);
    cluster_view_set_hosts(b.view, s);
    shared_unref(&s->shared);
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (!b.rq[2].is_ready && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    assert_true(b.rq[1].is_ready && b.rq[2].is_ready); /* those who waited were served */
    for (unsigned i = 0; i < b.server.accepted; i++) {
        server_write(&b.server.conns[i], "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    }
    finish_all(&b, 3);
    assert_true(b.rq[1].is_done && b.rq[2].is_done);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_active), 0); /* and then closed */
    assert_int_equal(b.set->entries[0].host->shared.refs, 1);
    bench_fini(&b);
}

static void test_health_failure_closes(void **state) {
    (void)state;
    for (unsigned asked_for = 0; asked_for < 2; asked_for++) {
        struct bench b;
        bench_init(&b, false);
        b.f.cfg.close_connections_on_host_health_failure = asked_for;
        b.server.script = SERVER_SILENT;
        ask(&b, 0);
        uint64_t until = loop_refresh_now(&b.loop) + 5000000;
        while (!b.rq[0].is_ready && loop_now_us(&b.loop) < until) {
            turns(&b, 1);
        }
        host_flags_set(b.set->entries[0].host, HOST_FLAG(FAILED_ACTIVE_HC));
        struct host_set *s = host_set_rebuild(&b.f.cfg, b.set);
        cluster_view_set_hosts(b.view, s);
        shared_unref(&s->shared);
        turns(&b, 2);
        assert_int_equal(b.rq[0].is_reset, asked_for);
        assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy_local_with_active_rq), asked_for);
        bench_fini(&b);
    }
}

static void test_retire_under_load(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, false);
    b.server.script = SERVER_SILENT;
    ask(&b, 0);
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (!b.rq[0].is_ready && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    cluster_view_retire(b.view); /* lives until the request is over */
    b.view = NULL;
    turns(&b, 2);
    assert_false(b.rq[0].is_reset);
    server_write(&b.server.conns[0], "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    finish_all(&b, 1);
    assert_true(b.rq[0].is_done);
    bench_fini(&b);
}

/* ---- HTTP/2 ---- */

static void test_h2_multiplex(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, true);
    for (unsigned i = 0; i < 8; i++) {
        ask(&b, i);
    }
    finish_all(&b, 8);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(b.rq[i].is_done);
        assert_int_equal(b.rq[i].status, 200);
    }
    assert_int_equal(b.server.accepted, 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_http2_total), 1);
    bench_fini(&b);
}

static void test_h2_configured_streams(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, true);
    b.codec.h2.max_concurrent_streams = 2;
    for (unsigned i = 0; i < 5; i++) {
        ask(&b, i);
    }
    finish_all(&b, 5);
    assert_int_equal(b.server.accepted, 3);
    bench_fini(&b);
}

static void test_h2_peer_streams(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, true);
    b.server.opt.h2.max_concurrent_streams = 2;
    ask(&b, 0);
    finish_all(&b, 1); /* settings are known now */
    b.server.script = SERVER_SILENT;
    for (unsigned i = 1; i < 6; i++) {
        ask(&b, i);
    }
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (b.server.requests < 6 && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    assert_int_equal(b.server.requests, 6);
    assert_int_equal(b.server.accepted, 3); /* 2 + 2 + 1 */
    assert_true(b.server.conns[0].held_n <= 2);
    bench_fini(&b);
}

static void test_h2_goaway(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, true);
    b.server.script = SERVER_SILENT;
    ask(&b, 0);
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (!b.server.conns[0].held_n && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    b.server.conns[0].codec->vt->goaway(b.server.conns[0].codec, true);
    wait_for(&b, CLUSTER_upstream_cx_close_notify, 1);
    ask(&b, 1);
    while (b.server.accepted < 2 && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    assert_int_equal(b.server.accepted, 2); /* nothing new on the old one */
    server_h2_answer(&b.server.conns[0], b.server.conns[0].held[0]);
    finish_all(&b, 1);
    assert_true(b.rq[0].is_done);
    wait_for(&b, CLUSTER_upstream_cx_destroy, 1); /* drained */
    bench_fini(&b);
}

static void test_h2_connection_dies(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, true);
    b.server.script = SERVER_SILENT;
    for (unsigned i = 0; i < 3; i++) {
        ask(&b, i);
    }
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (b.server.requests < 3 && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    server_close_conns(&b.server);
    finish_all(&b, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(b.rq[i].is_reset);
        assert_int_equal(b.rq[i].why, RESET_CONNECTION_TERMINATION);
    }
    assert_int_equal(count(&b, CLUSTER_upstream_cx_destroy_remote_with_active_rq), 1);
    bench_fini(&b);
}

static void test_downstream_protocol(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, true);
    b.f.cfg.protocol = UPSTREAM_DOWNSTREAM;
    struct pool_key key = {
        .host = b.set->entries[0].host, .entry = &b.set->entries[0], .downstream = HTTP_2};
    http_pool_request(b.view, &key, &pool_ops, &b.rq[0], &stream_ops, &b.rq[0].pending);
    finish_all(&b, 1);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_http2_total), 1);
    key.downstream = HTTP_11;
    http_pool_request(b.view, &key, &pool_ops, &b.rq[1], &stream_ops, &b.rq[1].pending);
    finish_all(&b, 2); /* the server speaks the other one: the pools are apart, it just fails */
    assert_int_equal(count(&b, CLUSTER_upstream_cx_http1_total), 1);
    assert_true(b.rq[1].is_reset);
    bench_fini(&b);
}

/* ---- TCP ---- */

struct tcp {
    struct bench *b;
    struct tcp_pool_request *pending;
    struct conn *conn;
    bool is_failed;
    enum pool_failure why;
};
static void tcp_on_data(struct conn *c, void *user, struct buf *d, bool end) {
    (void)c, (void)user, (void)end;
    buf_clear(d);
}
static void tcp_on_event(struct conn *c, void *user, enum conn_event e) {
    struct tcp *t = user;
    t->conn = NULL;
    tcp_pool_closed(t->b->view, t->b->set->entries[0].host, c, 0, e == CONN_EVENT_REMOTE_CLOSE);
}
static const struct conn_ops tcp_conn_ops = {.on_data = tcp_on_data, .on_event = tcp_on_event};
static void tcp_on_ready(void *user, struct conn *c, struct host *h) {
    struct tcp *t = user;
    (void)h;
    t->pending = NULL;
    t->conn = c;
    conn_set_ops(c, &tcp_conn_ops, t);
}
static void tcp_on_failure(void *user, enum pool_failure why, sv reason, struct host *h) {
    struct tcp *t = user;
    (void)reason, (void)h;
    t->pending = NULL;
    t->is_failed = true;
    t->why = why;
}
static const struct tcp_pool_ops tcp_ops = {.on_ready = tcp_on_ready, .on_failure = tcp_on_failure};

static void tcp_ask(struct bench *b, struct tcp *t) {
    *t = (struct tcp){.b = b};
    struct pool_key key = {.host = b->set->entries[0].host, .entry = &b->set->entries[0]};
    struct tcp_pool_request *handle;
    tcp_pool_request(b->view, &key, &tcp_ops, t, &handle);
    t->pending = handle;
}

static void test_tcp(void **state) {
    (void)state;
    struct bench b;
    struct tcp t[3];
    bench_init(&b, false);
    b.f.breakers[0].max_connections = 2;
    for (unsigned i = 0; i < 3; i++) {
        tcp_ask(&b, &t[i]);
    }
    assert_true(t[2].is_failed); /* the third is too many */
    assert_int_equal(t[2].why, POOL_OVERFLOW);
    assert_int_equal(count(&b, CLUSTER_upstream_cx_overflow), 1);
    tcp_pool_cancel(t[1].pending);
    assert_int_equal(count(&b, CLUSTER_upstream_rq_cancelled), 1);
    uint64_t until = loop_refresh_now(&b.loop) + 5000000;
    while (!t[0].conn && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    assert_non_null(t[0].conn);
    assert_int_equal(count(&b, CLUSTER_upstream_rq_active), 1);
    assert_int_equal(b.f.use[0].connections, 1);
    server_close_conns(&b.server);
    wait_for(&b, CLUSTER_upstream_cx_destroy_remote, 1);
    assert_null(t[0].conn);
    assert_int_equal(count(&b, CLUSTER_upstream_rq_active), 0);
    server_transport = TRANSPORT_MISSING;
    tcp_ask(&b, &t[1]);
    assert_int_equal(t[1].why, POOL_NO_TRANSPORT);
    server_transport = TRANSPORT_STUCK;
    b.f.cfg.connect_timeout_ms = 5;
    tcp_ask(&b, &t[1]);
    wait_for(&b, CLUSTER_upstream_cx_connect_timeout, 1);
    assert_int_equal(t[1].why, POOL_CONNECT_TIMEOUT);
    server_transport = TRANSPORT_RAW;
    tcp_ask(&b, &t[1]); /* open at the end: shutdown closes it */
    while (!t[1].conn && loop_now_us(&b.loop) < until) {
        turns(&b, 1);
    }
    bench_fini(&b);
    assert_null(t[1].conn);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_one_connection_each),
        cmocka_unit_test(test_connection_limit),
        cmocka_unit_test(test_pending_limit),
        cmocka_unit_test(test_pool_limit),
        cmocka_unit_test(test_no_internal_listener),
        cmocka_unit_test(test_connect_refused),
        cmocka_unit_test(test_connect_timeout),
        cmocka_unit_test(test_no_transport),
        cmocka_unit_test(test_happy_eyeballs),
        cmocka_unit_test(test_server_closes),
        cmocka_unit_test(test_stale_race),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_unasked_bytes),
        cmocka_unit_test(test_max_requests),
        cmocka_unit_test(test_idle_timeout),
        cmocka_unit_test(test_max_duration),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_local_reset),
        cmocka_unit_test(test_preconnect),
        cmocka_unit_test(test_host_removed),
        cmocka_unit_test(test_health_failure_closes),
        cmocka_unit_test(test_retire_under_load),
        cmocka_unit_test(test_h2_multiplex),
        cmocka_unit_test(test_h2_configured_streams),
        cmocka_unit_test(test_h2_peer_streams),
        cmocka_unit_test(test_h2_goaway),
        cmocka_unit_test(test_h2_connection_dies),
        cmocka_unit_test(test_downstream_protocol),
        cmocka_unit_test(test_tcp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
