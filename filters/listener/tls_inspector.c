/* tls_inspector: learns SNI and ALPN from the ClientHello, so that a filter chain can be chosen by
 * them.
 * Threads: config immutable, worker-local state. Spec: listener.tls_inspector.v3.TlsInspector.
 * Not here: reading the message (common/client_hello.c), TLS itself (net/tls.c).
 * initial_read_buffer_size has nothing to act on: what is there is looked at whole. */
#include "filters/common/client_hello.h"
#include "protos/gen/listener_tls_inspector.pb-c.h"
#include "proxy/api/listener_filter.h"

#define CLIENT_HELLO_MAX 16384u
#define ALPN_MAX \
    64u /* protocols considered; a client that offers more is matched by its first ones */

#define TLS_INSPECTOR_STATS(P, C, G, H, T) \
    C(P, alpn_found)                       \
    C(P, alpn_not_found)                   \
    H(P, bytes_processed, BYTES)           \
    C(P, client_hello_too_large)           \
    C(P, sni_found)                        \
    C(P, sni_not_found)                    \
    C(P, tls_found)                        \
    C(P, tls_not_found)
STATS_ENUM(TLS_INSPECTOR, TLS_INSPECTOR_STATS);
STATS_GROUP(tls_inspector, TLS_INSPECTOR, TLS_INSPECTOR_STATS);

struct config {
    struct stats_scope *stats;
    uint32_t max_bytes;
    bool has_ja3, has_ja4, close_on_errors;
};

static void unref_stats(void *scope) { stats_scope_unref(scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const ListenerTlsInspector__TlsInspector *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    c->max_bytes = m->max_client_hello_size ? m->max_client_hello_size->value : CLIENT_HELLO_MAX;
    if (c->max_bytes > CLIENT_HELLO_MAX) {
        diag_error(ctx->diag, "max_client_hello_size: value must be at most %u", CLIENT_HELLO_MAX);
        return NULL;
    }
    c->has_ja3 = m->enable_ja3_fingerprinting && m->enable_ja3_fingerprinting->value;
    c->has_ja4 = m->enable_ja4_fingerprinting && m->enable_ja4_fingerprinting->value;
    c->close_on_errors = m->close_connection_on_client_hello_parsing_errors;
    c->stats = stats_scope_get(ctx->stats, &tls_inspector_stats_group, SV("tls_inspector."));
    arena_on_fini(ctx->arena, unref_stats, c->stats);
    return c;
}

static void take_server_name(struct accept_info *info, sv name, struct stats_shard *st) {
    stats_inc(st, name.n ? TLS_INSPECTOR_sni_found : TLS_INSPECTOR_sni_not_found);
    if (name.n == 0) {
        return;
    }
    char *lower = arena_cstr(info->arena, name);
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = ascii_tolower(lower[i]);
    }
    info->server_name = sv_from(lower, name.n);
}

static void take_alpn(struct accept_info *info, sv list, struct stats_shard *st) {
    stats_inc(st, list.n ? TLS_INSPECTOR_alpn_found : TLS_INSPECTOR_alpn_not_found);
    if (list.n == 0) {
        return;
    }
    unsigned n = 0;
    sv name;
    for (sv rest = list; n < ALPN_MAX && client_hello_next_alpn(&rest, &name);) {
        n++;
    }
    sv *names = arena_new_array(info->arena, sv, n);
    for (unsigned i = 0; i < n && client_hello_next_alpn(&list, &name); i++) {
        names[i] = arena_sv(info->arena, name);
    }
    info->alpn = names;
    info->alpn_n = n;
}

static void take_hello(const struct config *c, struct accept_info *info,
                       const struct client_hello *h, struct stats_shard *st) {
    stats_inc(st, TLS_INSPECTOR_tls_found);
    info->transport_protocol = SV("tls");
    take_server_name(info, h->server_name, st);
    take_alpn(info, h->alpn, st);
    if (c->has_ja3) {
        info->ja3 = client_hello_ja3(h, info->arena);
    }
    if (c->has_ja4) {
        info->ja4 = client_hello_ja4(h, info->arena);
    }
}

static enum listener_filter_status refuse(struct accept_info *info, const char *why) {
    info->reject_reason = why;
    return LISTENER_FILTER_REJECT;
}

static enum listener_filter_status on_bytes(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index) {
    (void)state;
    (void)end;
    const struct config *c = config;
    struct client_hello h;
    bytes = sv_sub(bytes, 0, c->max_bytes);
    enum client_hello_result got = client_hello_read(bytes, c->max_bytes, info->arena, &h);
    if (got == CLIENT_HELLO_MORE) {
        /* at the end, too: the listener counts the peer's leaving */
        return LISTENER_FILTER_NEED_DATA;
    }
    struct stats_shard *st = stats_shard(c->stats, thread_index);
    stats_record(st, TLS_INSPECTOR_bytes_processed, got == CLIENT_HELLO_OK ? h.bytes : bytes.n);
    switch (got) {
    case CLIENT_HELLO_OK:
        take_hello(c, info, &h, st);
        return LISTENER_FILTER_DONE;
    case CLIENT_HELLO_TOO_LARGE:
        stats_inc(st, TLS_INSPECTOR_client_hello_too_large);
        return refuse(info, "client hello too large");
    case CLIENT_HELLO_MALFORMED:
    case CLIENT_HELLO_NOT_TLS:
        stats_inc(st, TLS_INSPECTOR_tls_not_found);
        return c->close_on_errors ? refuse(info, "no client hello") : LISTENER_FILTER_DONE;
    case CLIENT_HELLO_MORE:
        break;
    }
    return LISTENER_FILTER_NEED_DATA;
}

extern const struct listener_filter_type tls_inspector_listener_filter;
const struct listener_filter_type tls_inspector_listener_filter = {
    .name = "envoy.filters.listener.tls_inspector",
    .type_url = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
    .max_peek_bytes = CLIENT_HELLO_MAX,
    .compile = compile,
    .on_bytes = on_bytes,
};
