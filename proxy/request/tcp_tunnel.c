/* One attempt at a tunnel: see tcp_tunnel.h. The tunnel is open from a 2xx response on (over
 * HTTP/2: from a 200 on); nothing is sent before.
 * Memory goes with the loop's garbage: codec and pool may be on the stack. */
#include "proxy/request/tcp_tunnel.h"

#include "protos/gen/tcp_proxy.pb-c.h"
#include "proxy/api/header_mutation.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/formatter.h"

#define TCP_TUNNEL_MAGIC 0x7C977E1Du
#define TUNNEL_ARENA_BYTES 512
#define RESPONSE_HEADERS "envoy.tcp_proxy.propagate_response_headers"
#define RESPONSE_TRAILERS "envoy.tcp_proxy.propagate_response_trailers"

struct tcp_tunnel_config {
    struct formatter *hostname;
    struct header_mutations *headers; /* NULL: none */
    sv post_path;
    bool use_post, propagate_headers, propagate_trailers;
};

struct tcp_tunnel {
    uint32_t magic;
    bool is_open, is_write_ended, is_read_ended, holds_breaker;
    const struct tcp_tunnel_config *cfg;
    struct cluster_view *view; /* a ref */
    uint8_t priority;
    struct host *host; /* a ref */
    struct stream_info *si;
    const struct tcp_tunnel_ops *ops;
    void *user;
    struct tcp_tunnel **handle;
    struct http_pool_request *pending;
    struct codec_stream *stream;
    struct conn *conn;
    struct arena arena; /* of the request and the response */
    struct request_transport transport;
    struct headers request;
    struct loop_garbage garbage;
};

static struct tcp_tunnel *tunnel_of(void *user) { return CAST(tcp_tunnel, TCP_TUNNEL_MAGIC, user); }

/* ---- compile ---- */

struct tcp_tunnel_config *tcp_tunnel_compile(struct compile_ctx *ctx, const void *msg) {
    const TcpProxy__TcpProxy__TunnelingConfig *m = msg;
    DIAG_FIELD(ctx->diag, "tunneling_config");
    unsigned errors = diag_errors(ctx->diag);
    const struct compile_field refused[] = {
        {m->request_id_extension != NULL, "request_id_extension"},
        {m->request_id_header[0] != '\0', "request_id_header"},
        {m->request_id_metadata_key[0] != '\0', "request_id_metadata_key"},
        {m->n_formatters != 0, "formatters"},
    };
    compile_refuse_fields(ctx, refused, ARRAY_LEN(refused));
    if (m->post_path[0] && !m->use_post) {
        diag_error(ctx->diag, "Can't set a post path when POST method isn't used");
    } else if (m->post_path[0] && m->post_path[0] != '/') {
        diag_error(ctx->diag, "post_path: must begin with '/'");
    }
    struct tcp_tunnel_config *c = arena_new(ctx->arena, struct tcp_tunnel_config);
    {
        DIAG_FIELD(ctx->diag, "hostname");
        c->hostname = formatter_compile(ctx, arena_sv(ctx->arena, sv_cstr(m->hostname)), false);
    }
    {
        DIAG_FIELD(ctx->diag, "headers_to_add");
        c->headers = header_mutations_compile(ctx, (const void *const *)m->headers_to_add,
                                              m->n_headers_to_add, NULL, 0);
    }
    c->use_post = m->use_post;
    c->post_path = m->post_path[0] ? arena_sv(ctx->arena, sv_cstr(m->post_path)) : SV("/");
    c->propagate_headers = m->propagate_response_headers;
    c->propagate_trailers = m->propagate_response_trailers;
    return diag_errors(ctx->diag) == errors ? c : NULL;
}

/* ---- the end ---- */

static void free_tunnel(struct loop_garbage *g) {
    struct tcp_tunnel *t = CONTAINER_OF(g, struct tcp_tunnel, garbage);
    t->magic = 0;
    shared_unref(&t->host->shared);
    cluster_view_unref(t->view);
    arena_fini(&t->arena);
    xfree(t);
}

static void release_breaker(struct tcp_tunnel *t) {
    if (t->holds_breaker) {
        t->holds_breaker = false;
        breaker_release(&t->view->cfg->use[t->priority].requests);
    }
}

static struct codec_stream *give_stream_up(struct tcp_tunnel *t) {
    struct codec_stream *s = t->stream;
    t->stream = NULL;
    t->si->up.conn = NULL;
    HOST_STAT_ADD(t->host, rq_active, -1);
    stats_gauge_dec(t->view->stats, CLUSTER_upstream_rq_active);
    return s;
}

/* What it held is given back; the handle is NULL from here. */
static void dispose(struct tcp_tunnel *t) {
    if (t->stream) {
        struct codec_stream *s = give_stream_up(t);
        s->codec->vt->reset(s, RESET_LOCAL);
    }
    release_breaker(t);
    *t->handle = NULL;
    t->garbage.free = free_tunnel;
    loop_defer_free(t->view->loop, &t->garbage);
}

/* The memory lasts until the turn's callbacks are over. */
static void fail(struct tcp_tunnel *t, bool is_overflow, sv reason) {
    dispose(t);
    t->ops->on_failed(t->user, is_overflow, reason, t->host);
}

static void closed(struct tcp_tunnel *t) {
    dispose(t);
    t->ops->on_closed(t->user);
}

void tcp_tunnel_cancel(struct tcp_tunnel *t) {
    if (t->pending) {
        http_pool_cancel(t->pending);
        t->pending = NULL;
    }
    dispose(t);
}

/* ---- the response ---- */

/* {"headers": [{"key": …, "value": …}, …]}, also for trailers */
static void propagate(struct tcp_tunnel *t, const struct headers *h, sv name) {
    struct arena *a = t->si->arena;
    struct kv_value *all = arena_new(a, struct kv_value);
    *all = kv_empty_struct();
    struct kv_value entries = {.kind = KV_LIST};
    entries.list.v = arena_new_array(a, struct kv_value, h->n);
    HEADERS_FOREACH (e, h) {
        struct kv_value one = kv_empty_struct(), key = kv_string(arena_sv(a, e->name)),
                        value = kv_string(arena_sv(a, e->value));
        kv_set(&one, a, SV("key"), &key);
        kv_set(&one, a, SV("value"), &value);
        entries.list.v[entries.list.n++] = one;
    }
    kv_set(all, a, SV("headers"), &entries);
    if (!t->si->filter_state) {
        t->si->filter_state = filter_state_new(a, NULL);
    }
    filter_state_set(t->si->filter_state, name, SV_NULL, all, false, FILTER_STATE_LOCAL);
}

/* CONNECT over HTTP/1: the connection itself is the tunnel, and its ends are the tunnel's. */
static bool is_whole_connection(const struct tcp_tunnel *t) {
    return !t->cfg->use_post && t->stream->codec->protocol != HTTP_2;
}

static bool agrees(const struct tcp_tunnel *t, unsigned status) {
    return t->stream->codec->protocol == HTTP_2 ? status == 200 : status / 100 == 2;
}

static void on_headers(struct codec_stream *s, struct headers *h, bool end_stream) {
    struct tcp_tunnel *t = tunnel_of(s->user);
    unsigned status = headers_status(h);
    if (t->cfg->propagate_headers) {
        propagate(t, h, SV(RESPONSE_HEADERS));
    }
    if (!agrees(t, status)) {
        fail(t, false, arena_printf(&t->arena, "tunnel_response:%u", status));
        return;
    }
    if (end_stream) {
        fail(t, false, SV_NULL);
        return;
    }
    t->is_open = true;
    t->ops->on_open(t->user, t->conn, t->host);
}

/* The upstream will say no more. */
static void read_ended(struct tcp_tunnel *t) {
    bool is_over = t->is_write_ended;
    bool is_gone = is_whole_connection(t);
    t->is_read_ended = true;
    if (is_over) {
        give_stream_up(t);
    }
    if (is_over || is_gone) {
        closed(t);
    }
}

static void on_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct tcp_tunnel *t = tunnel_of(s->user);
    struct tcp_tunnel *const *handle = (struct tcp_tunnel *const *)t->handle;
    t->ops->on_data(t->user, data, end_stream);
    if (end_stream && *handle == t) {
        read_ended(t);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *h) {
    struct tcp_tunnel *t = tunnel_of(s->user);
    struct buf BUF_AUTO none;
    buf_init(&none);
    if (t->cfg->propagate_trailers) {
        propagate(t, h, SV(RESPONSE_TRAILERS));
    }
    on_data(s, &none, true);
}

static void on_reset(struct codec_stream *s, enum reset_reason why) {
    struct tcp_tunnel *t = tunnel_of(s->user);
    (void)why;
    give_stream_up(t);
    if (t->is_open) {
        closed(t);
    } else {
        fail(t, false, SV_NULL);
    }
}

static void on_above_high(struct codec_stream *s) {
    struct tcp_tunnel *t = tunnel_of(s->user);
    if (t->is_open) {
        t->ops->on_above_high(t->user);
    }
}
static void on_below_low(struct codec_stream *s) {
    struct tcp_tunnel *t = tunnel_of(s->user);
    if (t->is_open) {
        t->ops->on_below_low(t->user);
    }
}

static const struct codec_stream_ops stream_ops = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
};

/* ---- the request ---- */

static void make_request(struct tcp_tunnel *t) {
    const struct tcp_tunnel_config *c = t->cfg;
    struct buf BUF_AUTO host;
    buf_init(&host);
    formatter_text(c->hostname, t->si, &host);
    headers_init(&t->request, &t->arena);
    headers_add_id(&t->request, HDR_method, c->use_post ? SV("POST") : SV("CONNECT"));
    headers_add_id(&t->request, HDR_authority,
                   arena_sv(&t->arena, buf_pullup(&host, buf_len(&host))));
    if (c->use_post) {
        headers_add_id(&t->request, HDR_path, c->post_path);
    }
    header_mutations_apply(c->headers, &t->request, t->si);
}

static void on_ready(void *user, struct codec_stream *s, struct conn *c, struct host *h) {
    struct tcp_tunnel *t = tunnel_of(user);
    (void)h;
    t->pending = NULL;
    t->stream = s;
    t->conn = c;
    HOST_STAT_ADD(t->host, rq_total, 1);
    HOST_STAT_ADD(t->host, rq_active, 1);
    stats_inc(t->view->stats, CLUSTER_upstream_rq_total);
    stats_gauge_inc(t->view->stats, CLUSTER_upstream_rq_active);
    http_pool_stream_arena(s, &t->arena);
    if (t->cfg->use_post) {
        headers_add_id(&t->request, HDR_scheme, conn_ssl(c) ? SV("https") : SV("http"));
    }
    s->codec->vt->send_headers(s, &t->request, false);
}

static void on_failure(void *user, enum pool_failure why, sv transport_failure, struct host *h) {
    struct tcp_tunnel *t = tunnel_of(user);
    t->pending = NULL;
    if (why != POOL_OVERFLOW) {
        host_report(t->view->cfg, h, HOST_RESULT_CONNECT_FAILED, 0);
    }
    fail(t, why == POOL_OVERFLOW, transport_failure);
}

static const struct http_pool_ops pool_ops = {.on_ready = on_ready, .on_failure = on_failure};

void tcp_tunnel_start(const struct tcp_tunnel_config *cfg, struct cluster_view *v,
                      const struct pool_key *key, struct stream_info *si,
                      const struct tcp_tunnel_ops *ops, void *user, struct tcp_tunnel **handle) {
    struct tcp_tunnel *t = xnew(struct tcp_tunnel);
    t->magic = TCP_TUNNEL_MAGIC;
    t->cfg = cfg;
    t->view = cluster_view_ref(v);
    t->priority = key->priority;
    t->host = shared_ref(key->host);
    t->si = si;
    t->ops = ops;
    t->user = user;
    t->handle = handle;
    *handle = t;
    arena_init(&t->arena, TUNNEL_ARENA_BYTES);
    if (!breaker_try(&v->cfg->use[key->priority].requests,
                     v->cfg->breakers[key->priority].max_requests)) {
        stats_inc(v->stats, CLUSTER_upstream_rq_active_overflow);
        fail(t, true, SV_NULL);
        return;
    }
    t->holds_breaker = true;
    make_request(t);
    struct pool_key k = *key;
    k.downstream = HTTP_11;
    if (cluster_auto_sni(v->cfg, &t->request, &t->transport)) {
        k.transport = &t->transport.options;
    }
    http_pool_request(v, &k, &pool_ops, t, &stream_ops, &t->pending);
}

/* ---- relaying ---- */

void tcp_tunnel_write(struct tcp_tunnel *t, struct buf *data, bool end_stream) {
    if (!t->stream || t->is_write_ended) {
        buf_clear(data);
        return;
    }
    struct codec_stream *s = t->stream;
    bool half_closes = end_stream && is_whole_connection(t);
    t->is_write_ended = end_stream;
    if (end_stream && t->is_read_ended) {
        give_stream_up(t); /* the codec ends it with these bytes */
    }
    s->codec->vt->send_data(s, data, end_stream);
    if (half_closes && t->stream) {
        conn_write(t->conn, data, true); /* `data` is empty by now */
    }
    if (end_stream && !t->stream && *t->handle == t) { /* else a reset was met on the way */
        closed(t);
    }
}

void tcp_tunnel_read_disable(struct tcp_tunnel *t, bool disable) {
    if (t->stream) {
        t->stream->codec->vt->read_disable(t->stream, disable);
    }
}
