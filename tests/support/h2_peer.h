/* A codec and the other end of its connection, for the HTTP/2 tests: frames as text both ways,
 * counters. */
#ifndef SLUICE_TESTS_H2_PEER_H
#define SLUICE_TESTS_H2_PEER_H

#include "proxy/base/mem.h"
#include "proxy/http/h2.h"
#include "tests/support/codec_log.h"
#include "tests/support/h2_frames.h"
#include "tests/support/unit.h"

#define GET_EVENT "1{:method=GET,:scheme=http,:path=/,:authority=a}."
#define POST_EVENT "1{:method=POST,:scheme=http,:path=/,:authority=a}"
#define REPLY "h1 :status=200|content-length=2;d1+ ok;"
#define MALFORMED "1R10 http2.invalid.header.field;E http2.invalid.header.field;"
#define RULE "http2.violation.of.messaging.rule"

static struct loop loop;
static struct stats_store *store;
static struct stats_scope *scope;
static struct stats_shard *shard;

UNUSED static int open_loop(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 0), 0);
    store = stats_store_new(1);
    scope = stats_scope_get(store, &h2_stats_group, SV("http2."));
    shard = stats_shard(scope, 0);
    return 0;
}
UNUSED static int close_loop(void **state) {
    (void)state;
    stats_scope_unref(scope);
    stats_store_free(store);
    loop_fini(&loop);
    chunk_cache_trim();
    return 0;
}

struct peer {
    struct codec_log log;
    struct h2_frame_reader reader;
    struct buf sent; /* what the codec sent, as text */
};

UNUSED static void conn_above(struct conn *c) {
    struct peer *p = CONTAINER_OF(c, struct peer, log.conn);
    if (p->log.codec) {
        p->log.codec->vt->on_conn_above_high(p->log.codec);
    }
}
UNUSED static void conn_below(struct conn *c) {
    struct peer *p = CONTAINER_OF(c, struct peer, log.conn);
    p->log.codec->vt->on_conn_below_low(p->log.codec);
}

UNUSED static void peer_init(struct peer *p) {
    memset(p, 0, sizeof(*p));
    codec_log_init(&p->log, &loop);
    fake_conn_above = conn_above;
    fake_conn_below = conn_below;
    buf_init(&p->sent);
    p->log.has_id_prefix = true;
    for (unsigned i = 0; i < H2_STATS_N; i++) {
        shard->v[i] = 0;
    }
}

UNUSED static void peer_make(struct peer *p, codec_maker make) {
    struct codec_stats st = {NULL, shard};
    p->log.codec = make(&p->log.conn, &p->log.opt, &st, &codec_log_ops, &p->log);
}

UNUSED static void collect(struct peer *p) {
    loop_run_nowait(&loop); /* headers leave at the end of the batch */
    h2_show(&p->reader, conn_out(&p->log.conn), &p->sent);
}

UNUSED static void feed(struct peer *p, const char *text) {
    struct buf b;
    buf_init(&b);
    h2_put_text(&b, sv_cstr(text));
    sv all = buf_pullup(&b, buf_len(&b));
    loop_run_nowait(&loop);
    codec_log_feed(&p->log, all.p, all.n);
    buf_fini(&b);
    collect(p);
}

UNUSED static void server(struct peer *p) {
    peer_make(p, h2_server_new);
    codec_log_feed(&p->log, H2_PREFACE, 24);
    feed(p, "s;");
}

UNUSED static void client(struct peer *p) {
    peer_make(p, h2_client_new);
    feed(p, "s;");
}

UNUSED static void peer_fini(struct peer *p) {
    codec_log_fini(&p->log);
    buf_fini(&p->sent);
    if (p->reader.inflater) {
        nghttp2_hd_inflate_del(p->reader.inflater);
    }
    loop_run_nowait(&loop);
}

UNUSED static void check_sent(struct peer *p, const char *want) {
    collect(p);
    char *text = buf_dup_str(&p->sent);
    assert_string_equal(text, want);
    xfree(text);
    buf_clear(&p->sent);
}

UNUSED static void check_events(struct peer *p, const char *want) {
    char *text = codec_log_text(&p->log);
    assert_string_equal(text, want);
    xfree(text);
    buf_clear(&p->log.text);
}

UNUSED static void make_headers(struct headers *h, struct arena *a, const char *fields) {
    headers_init(h, a);
    sv text = sv_cstr(fields);
    while (text.n) {
        sv field = sv_cut(&text, '|');
        sv name = sv_cut(&field, '=');
        headers_add_copy(h, name, field);
    }
}

UNUSED static void send_headers(struct peer *p, const char *fields, bool end) {
    struct headers h;
    make_headers(&h, &p->log.arena, fields);
    p->log.codec->vt->send_headers(p->log.stream, &h, end);
}

UNUSED static void send_bytes(struct peer *p, size_t n, bool end) {
    struct buf b;
    buf_init(&b);
    char block[1000];
    memset(block, 'z', sizeof(block));
    for (size_t i = 0; i < n; i += sizeof(block)) {
        buf_append(&b, block, n - i < sizeof(block) ? n - i : sizeof(block));
    }
    p->log.codec->vt->send_data(p->log.stream, &b, end);
    assert_true(buf_empty(&b));
    buf_fini(&b);
}

#endif
