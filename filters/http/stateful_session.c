/* Stateful session: requests of a session go to the host that it began at, as long as that host may
 * have them.
 * Threads: config immutable, streams worker-local. Spec:
 * extensions.filters.http.stateful_session.v3.
 * Not here: how clients keep the address (filters/common/session_state.c), and which hosts may be
 * asked for (common_lb_config.override_host_status: upstream/cluster_view.c). */
#include "filters/common/session_state.h"
#include "protos/gen/http_stateful_session.pb-c.h"
#include "proxy/api/http_filter.h"

#define STRICT_STATUS 503 /* where status_on_strict_destination_not_found is not set */

#define STATEFUL_SESSION_STATS(P, C, G, H, T) \
    C(P, failed_closed) C(P, failed_open) C(P, no_session) C(P, routed)
STATS_ENUM(STATEFUL_SESSION, STATEFUL_SESSION_STATS);
STATS_GROUP(stateful_session, STATEFUL_SESSION, STATEFUL_SESSION_STATS);

struct session_config {
    const struct session_state *state; /* NULL: none */
    struct stats_scope *stats;         /* NULL: not counted */
    uint16_t strict_status;            /* of the reply when the host is not there; 0: not strict */
    bool is_disabled;                  /* by the route */
};
struct stateful_session {
    struct http_filter base;             /* must be first */
    const struct session_config *config; /* in force; NULL: this request is not looked at */
    bool takes_part;                     /* in sessions, so its response may start one */
    sv asked;                            /* the host's address; empty: none */
};

/* ---- compile ---- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static bool compile_strict(struct compile_ctx *ctx, const HttpStatefulSession__StatefulSession *m,
                           struct session_config *c) {
    uint32_t status = m->status_on_strict_destination_not_found;
    if (status && (status < 200 || status > 599)) {
        return diag_error(
            ctx->diag,
            "status_on_strict_destination_not_found: value must be inside range [200, 599], or 0");
    }
    if (m->strict) {
        c->strict_status = status ? (uint16_t)status : STRICT_STATUS;
    }
    return true;
}

static void *compile_session(struct compile_ctx *ctx, const HttpStatefulSession__StatefulSession *m,
                             sv scope) {
    struct session_config *c = arena_new(ctx->arena, struct session_config);
    if (!compile_strict(ctx, m, c)) {
        return NULL;
    }
    if (m->stat_prefix[0]) {
        sv prefix =
            arena_printf(ctx->arena, "%.*sstateful_session.%s.", SV_ARG(scope), m->stat_prefix);
        c->stats = stats_scope_get(ctx->stats, &stateful_session_stats_group, prefix);
        arena_on_fini(ctx->arena, release_scope, c->stats);
    }
    if (!m->session_state) {
        return c;
    }
    DIAG_FIELD(ctx->diag, "session_state");
    c->state = session_state_compile(ctx, m->session_state);
    return c->state ? c : NULL;
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    return compile_session(ctx, (const HttpStatefulSession__StatefulSession *)msg,
                           ctx->stat_prefix);
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpStatefulSession__StatefulSessionPerRoute *m =
        (const HttpStatefulSession__StatefulSessionPerRoute *)msg;
    (void)type;
    if (m->override_case ==
        HTTP_STATEFUL_SESSION__STATEFUL_SESSION_PER_ROUTE__OVERRIDE_STATEFUL_SESSION) {
        DIAG_FIELD(ctx->diag, "stateful_session");
        return compile_session(ctx, m->stateful_session, SV(""));
    }
    struct session_config *c = arena_new(ctx->arena, struct session_config);
    c->is_disabled = true;
    return c;
}

/* ---- requests ---- */

static uint64_t now_s(struct http_filter *f) {
    const struct loop *l = http_loop(f);
    return loop_wall_us(l, loop_now_us(l)) / 1000000;
}

static void count(struct stateful_session *s, unsigned which) {
    if (s->config->stats) {
        stats_inc(stats_shard(s->config->stats, http_loop(&s->base)->thread_index), which);
    }
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct stateful_session *s = (struct stateful_session *)f;
    const void *route = http_route_config(f);
    const struct session_config *c = (const struct session_config *)(route ? route : f->config);
    (void)end_stream;
    if (c->is_disabled) {
        return FILTER_HEADERS_CONTINUE;
    }
    s->config = c;
    s->takes_part = c->state && session_state_read(c->state, h, now_s(f), &s->asked);
    if (s->asked.n) {
        http_set_upstream_override_host(f, s->asked, c->strict_status);
    }
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct stateful_session *s = (struct stateful_session *)f;
    sv host = http_upstream_host_address(f);
    (void)end_stream;
    if (!s->config) {
        return FILTER_HEADERS_CONTINUE;
    }
    if (!host.n) {
        if (s->takes_part && s->config->strict_status &&
            http_stream_info(f)->flags & RESPONSE_FLAG(UH)) {
            count(s, STATEFUL_SESSION_failed_closed);
        }
        return FILTER_HEADERS_CONTINUE;
    }
    if (!s->takes_part) {
        count(s, STATEFUL_SESSION_no_session);
        return FILTER_HEADERS_CONTINUE;
    }
    if (!session_state_write(s->config->state, h, s->asked, host, now_s(f))) {
        count(s, STATEFUL_SESSION_routed);
    } else if (!s->config->strict_status) {
        count(s, STATEFUL_SESSION_failed_open);
    }
    return FILTER_HEADERS_CONTINUE;
}

const struct http_filter_type stateful_session_http_filter = {
    .name = "envoy.filters.http.stateful_session",
    .type_url = "envoy.extensions.filters.http.stateful_session.v3.StatefulSession",
    .route_type_url = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
    .stream_size = sizeof(struct stateful_session),
    .compile = compile,
    .compile_route = compile_route,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
};
