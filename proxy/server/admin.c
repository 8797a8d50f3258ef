/* The admin listener: an HTTP connection manager like any other, on main's loop, whose only filter
 * answers by itself.
 * Threads: main. Spec: bootstrap.v3.Admin; Envoy's administration interface. Not here: the pages
 * (admin_*.c). */
#include "proxy/server/admin.h"

#include <stdio.h>
#include <unistd.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/http/codec_stats.h"
#include "proxy/net/listener.h"
#include "proxy/net/transport.h"
#include "proxy/request/hcm.h"
#include "proxy/route/matcher.h"
#include "proxy/server/admin_internal.h"

#define LARGE_ANSWER_BYTES (4u * 1024 * 1024)
#define ADMIN_BACKLOG 1024
#define ADMIN_BUFFER_LIMIT_BYTES (1u << 20)

struct admin {
    struct server *server;
    struct arena arena;
    struct addr addr;
    struct listener_sock *sock;
    struct listener_sock_config sock_config;
    struct stats_shard *stats;
    struct hcm_config hcm;
    struct hcm_filter filter;
    struct network_filter_slot slot;
    struct net_chain_config chain;
    struct list chains;
    const struct string_matcher *allow;
    unsigned allow_n;
};

/* ---- replies ---- */

static struct admin_stream *stream_of(struct http_filter *f) {
    return CAST(admin_stream, ADMIN_STREAM_MAGIC, f);
}

static void send_headers(struct admin_stream *a, unsigned status, const char *content_type,
                         bool end) {
    struct headers *h = &a->response;
    headers_init(h, http_arena(&a->base));
    headers_set_status(h, status);
    headers_add_id(h, HDR_content_type, sv_cstr(content_type));
    headers_add_id(h, HDR_cache_control, SV("no-cache, max-age=0"));
    headers_add_copy(h, SV("x-content-type-options"), SV("nosniff"));
    http_encode_headers(&a->base, h, end, SV("admin_filter_response"));
}

void admin_reply_buf(struct admin_stream *a, unsigned status, const char *content_type,
                     struct buf *body) {
    a->is_done = true;
    bool is_empty = buf_empty(body) ||
                    sv_eq(headers_get(http_request_headers(&a->base), HDR_method), SV("HEAD"));
    send_headers(a, status, content_type, is_empty);
    if (!is_empty) {
        http_encode_data(&a->base, body, true);
    }
}

void admin_reply(struct admin_stream *a, unsigned status, const char *content_type, sv body) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_append_sv(&b, body);
    admin_reply_buf(a, status, content_type, &b);
}

static void drop_producer(struct admin_stream *a) {
    if (a->producer.free) {
        a->producer.free(a->producer.state);
    }
    a->producer = (struct admin_producer){0};
    if (a->produced_bytes >= LARGE_ANSWER_BYTES) {
        mem_trim(); /* what it took to make the answer goes back to the system */
    }
}

static uint64_t now_us(void) { return uv_hrtime() / 1000; }

struct admin_turn admin_turn_begin(const struct buf *out) {
    return (struct admin_turn){out, now_us() + ADMIN_TURN_US};
}

bool admin_turn_is_over(const struct admin_turn *t) {
    return buf_len(t->out) >= ADMIN_PIECE_BYTES || now_us() >= t->until_us;
}

static void on_pump(struct timer *t) {
    struct admin_stream *a = CONTAINER_OF(t, struct admin_stream, pump);
    struct buf BUF_AUTO piece;
    buf_init(&piece);
    bool more = a->producer.next(a->producer.state, &piece);
    a->produced_bytes += buf_len(&piece);
    if (!more) {
        a->is_done = true;
        drop_producer(a);
    } else if (!a->paused) {
        timer_start(t, 0);
    }
    if (!more || !buf_empty(&piece)) {
        http_encode_data(&a->base, &piece, !more);
    }
}

void admin_produce(struct admin_stream *a, const char *content_type,
                   const struct admin_producer *p) {
    a->producer = *p;
    if (sv_eq(headers_get(http_request_headers(&a->base), HDR_method), SV("HEAD"))) {
        a->is_done = true;
        send_headers(a, 200, content_type, true);
        return;
    }
    send_headers(a, 200, content_type, false);
    timer_start(&a->pump, 0);
}

/* ---- answers of the config thread ---- */

struct view_wait {
    struct admin_stream *stream; /* NULL: the client has gone */
    void (*fn)(struct admin_stream *a, struct view *v);
};

static void on_view(struct view *v, void *user) {
    struct view_wait *w = user;
    if (!w->stream) {
        view_free(v);
    } else {
        w->stream->wait = NULL;
        w->fn(w->stream, v);
    }
    xfree(w);
}

void admin_view(struct admin_stream *a, unsigned types,
                void (*fn)(struct admin_stream *a, struct view *v)) {
    struct view_wait *w = xnew(struct view_wait);
    w->stream = a;
    w->fn = fn;
    a->wait = w;
    a->server->view->request(a->server->view->config, types, &a->server->main->loop, on_view, w);
}

/* ---- parameters ---- */

static sv decoded(struct admin_stream *a, sv s) { return percent_decode(s, http_arena(&a->base)); }

sv admin_param(struct admin_stream *a, const char *name) {
    sv q = a->query;
    while (q.n) {
        sv item = sv_cut(&q, '&');
        sv key = sv_cut(&item, '=');
        if (sv_is(decoded(a, key), name)) {
            sv v = decoded(a, item);
            return v.p ? v : SV("");
        }
    }
    return SV_NULL;
}

/* ---- dispatch ---- */

void admin_list_commands(struct buf *out) {
    buf_lit(out, "admin commands are:\n");
    for (unsigned i = 0; i < admin_handlers_n; i++) {
        const struct admin_handler *h = &admin_handlers[i];
        buf_printf(out, "  %s%s: %s\n", h->path, h->is_mutation ? " (POST)" : "", h->help);
        for (const char *const *p = h->params; p && *p; p++) {
            buf_printf(out, "      %s\n", *p);
        }
    }
}

static void unknown_path(struct admin_stream *a) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_lit(&b, "invalid path. ");
    admin_list_commands(&b);
    admin_reply_buf(a, 404, ADMIN_TEXT, &b);
}

static bool is_allowed(const struct admin *ad, sv path) {
    for (unsigned i = 0; i < ad->allow_n; i++) {
        if (string_matcher_match(&ad->allow[i], path)) {
            return true;
        }
    }
    return ad->allow_n == 0;
}

static void dispatch(struct admin_stream *a, sv path, sv method) {
    if (!is_allowed(a->server->admin, path)) {
        admin_reply(
            a, 403, ADMIN_TEXT,
            arena_printf(http_arena(&a->base), "request to path %.*s not allowed", SV_ARG(path)));
        return;
    }
    while (path.n > 1 && path.p[1] == '/') { /* "//stats" is really asked */
        path = sv_skip(path, 1);
    }
    for (unsigned i = 0; i < admin_handlers_n; i++) {
        const struct admin_handler *h = &admin_handlers[i];
        if (!sv_is(path, h->path)) {
            continue;
        }
        if (h->is_mutation && !sv_eq(method, SV("POST"))) {
            admin_reply(a, 405, ADMIN_TEXT,
                        arena_printf(http_arena(&a->base),
                                     "Method %.*s not allowed, POST required.", SV_ARG(method)));
            return;
        }
        a->handler = h;
        log_debug(LOG_admin, "request on path %.*s", SV_ARG(path));
        h->run(a);
        return;
    }
    unknown_path(a);
}

/* ---- the filter ---- */

static void init(struct http_filter *f) {
    struct admin_stream *a = (struct admin_stream *)f;
    a->magic = ADMIN_STREAM_MAGIC;
    a->server = ((const struct admin *)f->config)->server;
    timer_init(&a->pump, http_loop(f), on_pump);
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct admin_stream *a = stream_of(f);
    sv path = headers_get(h, HDR_path);
    a->query = path_query(path);
    if (end_stream) {
        dispatch(a, path_without_query(path), headers_get(h, HDR_method));
    }
    return FILTER_HEADERS_STOP;
}

static enum filter_data_status decode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct admin_stream *a = stream_of(f);
    buf_clear(data);
    if (end_stream && !a->handler) {
        const struct headers *h = http_request_headers(f);
        dispatch(a, path_without_query(headers_get(h, HDR_path)), headers_get(h, HDR_method));
    }
    return FILTER_DATA_STOP_NO_BUFFER;
}

static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    struct buf BUF_AUTO none;
    buf_init(&none);
    (void)t;
    decode_data(f, &none, true);
    return FILTER_TRAILERS_STOP;
}

static void on_above_high(struct http_filter *f) { stream_of(f)->paused++; }

static void on_below_low(struct http_filter *f) {
    struct admin_stream *a = stream_of(f);
    if (a->paused > 0 && --a->paused == 0 && a->producer.next) {
        timer_start(&a->pump, 0);
    }
}

static void destroy(struct http_filter *f) {
    struct admin_stream *a = stream_of(f);
    timer_cancel(&a->pump);
    drop_producer(a);
    if (a->wait) {
        a->wait->stream = NULL;
    }
    a->magic = 0;
}

static const struct http_filter_type admin_filter = {
    .name = "admin",
    .type_url = "",
    .route_type_url = "",
    .is_terminal = true,
    .stream_size = sizeof(struct admin_stream),
    .init = init,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .on_downstream_above_high = on_above_high,
    .on_downstream_below_low = on_below_low,
    .destroy = destroy,
};

/* ---- the listener ---- */

static void on_chain_end(struct net_chain *c, enum conn_event e) {
    struct admin *ad = c->owner;
    (void)e;
    list_unlink(&c->node);
    stats_gauge_dec(ad->stats, LISTENER_downstream_cx_active);
    stats_inc(ad->stats, LISTENER_downstream_cx_destroy);
    listener_conn_done(&ad->sock_config, ad->server->main->loop.thread_index);
}

static void on_accepted(struct listener_sock *l, int fd, struct accept_info *info) {
    struct admin *ad = listener_sock_owner(l);
    struct net_chain_owner owner = {
        &ad->server->main->loop, ad->server->main, ad->stats, on_chain_end, ad, NULL};
    struct net_chain *c = net_chain_new(&owner, &ad->chain, transport_raw_new(), fd, info);
    list_push_back(&ad->chains, &c->node);
    stats_inc(ad->stats, LISTENER_downstream_cx_total);
    stats_gauge_inc(ad->stats, LISTENER_downstream_cx_active);
    net_chain_start(c);
}

static const struct listener_sock_ops sock_ops = {.on_accepted = on_accepted};

static struct stats_scope *scope(struct admin *ad, const struct stats_group *g,
                                 const char *prefix) {
    return stats_scope_get(ad->server->stats, g, sv_cstr(prefix));
}

static void init_hcm(struct admin *ad) {
    struct hcm_config *c = &ad->hcm;
    ad->filter = (struct hcm_filter){
        .type = &admin_filter, .config = ad, .name_id = filter_name_id(SV("admin"))};
    c->codec_kind = CODEC_AUTO;
    codec_options_defaults(&c->codec);
    c->stat_prefix = SV("http.admin.");
    c->stats = scope(ad, &hcm_stats_group, "http.admin.");
    c->codec_h1_stats = scope(ad, &h1_stats_group, "http1.");
    c->codec_h2_stats = scope(ad, &h2_stats_group, "http2.");
    c->route_slot = SLOT_NONE;
    c->filters = (struct hcm_filters){&ad->filter, 1, sizeof(struct admin_stream)};
    c->idle_timeout_ms = 3600000;
    c->drain_timeout_ms = 100;
    c->delayed_close_timeout_ms = 1000;
    c->server_name = SV("envoy");
    c->normalize_path = true;
    c->use_remote_address = true;
    ad->slot =
        (struct network_filter_slot){.type = &hcm_network_filter, .config = c, .slot = SLOT_NONE};
    ad->chain = (struct net_chain_config){.filters = &ad->slot,
                                          .bypasses_overload = true,
                                          .n = 1,
                                          .listener_name = SV("admin"),
                                          .buffer_limit_bytes = ADMIN_BUFFER_LIMIT_BYTES};
}

static bool compile_allow_paths(struct admin *ad, const Bootstrap__Admin *m, struct diag *d) {
    struct compile_ctx ctx = {.arena = &ad->arena,
                              .diag = d,
                              .registry = ad->server->registry,
                              .stats = ad->server->stats};
    struct string_matcher *v = arena_new_array(&ad->arena, struct string_matcher, m->n_allow_paths);
    for (size_t i = 0; i < m->n_allow_paths; i++) {
        DIAG_FIELD(d, "admin.allow_paths[%zu]", i);
        string_matcher_compile(&ctx, m->allow_paths[i], &v[i]);
    }
    ad->allow = v;
    ad->allow_n = (unsigned)m->n_allow_paths;
    return diag_ok(d);
}

static void write_address(const struct admin *ad, const char *path) {
    char text[ADDR_STR_MAX];
    addr_str(&ad->addr, text);
    FILE *f = path && *path ? fopen(path, "we") : NULL;
    if (f) {
        fprintf(f, "%s", text);
        fclose(f);
    } else if (path && *path) {
        log_critical(LOG_main, "cannot open admin address output file %s for writing", path);
    }
    log_info(LOG_main, "admin address: %s", text);
}

static bool bind_admin(struct admin *ad, const Bootstrap__Admin *m, struct diag *d) {
    struct compile_ctx ctx = {.arena = &ad->arena, .diag = d};
    struct addr want;
    struct sock_opts opts = {0};
    DIAG_FIELD(d, "admin.address");
    if (!compile_address(&ctx, m->address, &want)) {
        return false;
    }
    int fd = sock_listen(&want, &opts, ADMIN_BACKLOG, false, &ad->addr);
    if (fd < 0) {
        char text[ADDR_STR_MAX];
        addr_str(&want, text);
        return diag_error(d, "cannot bind '%s': %s", text, sock_strerror(fd));
    }
    ad->sock_config.name = SV("admin");
    ad->sock_config.bypasses_overload = true;
    ad->sock = listener_sock_new(&ad->server->main->loop, &ad->sock_config, fd, &ad->addr,
                                 ad->stats, &sock_ops, ad);
    return true;
}

struct admin *admin_new(struct server *s, struct diag *d) {
    const Bootstrap__Admin *m = s->bootstrap->admin;
    if (!m || !m->address) {
        log_info(LOG_main, "No admin address given, so no admin HTTP server started.");
        return NULL;
    }
    struct admin *ad = xnew(struct admin);
    ad->server = s;
    arena_init(&ad->arena, 0);
    list_init(&ad->chains);
    ad->stats = stats_shard(scope(ad, &listener_stats_group, "listener.admin."),
                            s->main->loop.thread_index);
    init_hcm(ad);
    if (!compile_allow_paths(ad, m, d) || (s->opt.mode != MODE_VALIDATE && !bind_admin(ad, m, d))) {
        admin_free(ad);
        return NULL;
    }
    if (ad->sock) {
        write_address(ad, s->opt.admin_address_path);
    }
    return ad;
}

void admin_free(struct admin *ad) {
    if (!ad) {
        return;
    }
    if (ad->sock) {
        listener_sock_close(ad->sock);
    }
    LIST_FOREACH_SAFE (it, &ad->chains) {
        net_chain_close(LIST_ENTRY(it, struct net_chain, node), CONN_CLOSE_NO_FLUSH, "shutdown");
    }
    loop_run_nowait(&ad->server->main->loop);
    loop_run_nowait(&ad->server->main->loop);
    arena_fini(&ad->arena);
    xfree(ad);
}
