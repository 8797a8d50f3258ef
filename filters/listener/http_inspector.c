/* http_inspector: tells HTTP/1.0, HTTP/1.1 and HTTP/2 (prior knowledge) apart by the first line,
 * for filter chain matching by application protocol. Threads: worker-local. Spec:
 * listener.http_inspector.v3.HttpInspector, RFC 9112 §3, RFC 9113 §3.4.
 * Not here: reading the request (http/h1.c). */
#include "protos/gen/listener_http_inspector.pb-c.h"
#include "proxy/api/listener_filter.h"

#define LINE_MAX_BYTES \
    LISTENER_PEEK_MAX /* a longer request line is not looked at further: it is no HTTP we serve */
#define METHOD_MAX 16u

#define HTTP_INSPECTOR_STATS(P, C, G, H, T) \
    C(P, http10_found)                      \
    C(P, http11_found)                      \
    C(P, http2_found)                       \
    C(P, http_not_found)                    \
    C(P, read_error)
STATS_ENUM(HTTP_INSPECTOR, HTTP_INSPECTOR_STATS);
STATS_GROUP(http_inspector, HTTP_INSPECTOR, HTTP_INSPECTOR_STATS);

struct config {
    struct stats_scope *stats;
};
struct state {
    size_t scanned; /* bytes known to hold no line end */
};
_Static_assert(sizeof(struct state) <= LISTENER_FILTER_STATE_BYTES, "state");

static const sv preface = SV_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
static const sv http_10 = SV_INIT("http/1.0"), http_11 = SV_INIT("http/1.1"), h2c = SV_INIT("h2c");

static const sv methods[] = {
    SV_INIT("ACL"),        SV_INIT("BIND"),        SV_INIT("CHECKOUT"), SV_INIT("CONNECT"),
    SV_INIT("COPY"),       SV_INIT("DELETE"),      SV_INIT("GET"),      SV_INIT("HEAD"),
    SV_INIT("LINK"),       SV_INIT("LOCK"),        SV_INIT("M-SEARCH"), SV_INIT("MERGE"),
    SV_INIT("MKACTIVITY"), SV_INIT("MKCALENDAR"),  SV_INIT("MKCOL"),    SV_INIT("MOVE"),
    SV_INIT("NOTIFY"),     SV_INIT("OPTIONS"),     SV_INIT("PATCH"),    SV_INIT("POST"),
    SV_INIT("PROPFIND"),   SV_INIT("PROPPATCH"),   SV_INIT("PURGE"),    SV_INIT("PUT"),
    SV_INIT("REBIND"),     SV_INIT("REPORT"),      SV_INIT("SEARCH"),   SV_INIT("SOURCE"),
    SV_INIT("SUBSCRIBE"),  SV_INIT("TRACE"),       SV_INIT("UNBIND"),   SV_INIT("UNLINK"),
    SV_INIT("UNLOCK"),     SV_INIT("UNSUBSCRIBE"),
};

static void unref_stats(void *scope) { stats_scope_unref(scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    (void)msg; /* no fields */
    struct config *c = arena_new(ctx->arena, struct config);
    c->stats = stats_scope_get(ctx->stats, &http_inspector_stats_group, SV("http_inspector."));
    arena_on_fini(ctx->arena, unref_stats, c->stats);
    return c;
}

enum finding { FINDING_MORE, FINDING_NONE, FINDING_HTTP10, FINDING_HTTP11, FINDING_H2C };

/* Does the line begin with a method and a space, as far as it goes? */
static enum finding judge_method(sv bytes) {
    sv word = sv_sub(bytes, 0, METHOD_MAX);
    size_t space = sv_find(word, ' ');
    sv method = sv_sub(word, 0, space);
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        if (space == SIZE_MAX ? sv_starts(methods[i], method) : sv_eq(methods[i], method)) {
            return FINDING_MORE;
        }
    }
    return FINDING_NONE;
}

/* A whole line, without its end. */
static enum finding judge_line(sv line) {
    size_t last_space = sv_rfind(line, ' ');
    size_t first_space = sv_find(line, ' ');
    if (last_space == SIZE_MAX || last_space == first_space) {
        return FINDING_NONE;
    }
    sv version = sv_skip(line, last_space + 1);
    if (sv_eq(version, SV("HTTP/1.1"))) {
        return FINDING_HTTP11;
    }
    return sv_eq(version, SV("HTTP/1.0")) ? FINDING_HTTP10 : FINDING_NONE;
}

static enum finding judge(struct state *st, sv bytes) {
    if (sv_starts(bytes, preface)) {
        return FINDING_H2C;
    }
    if (sv_starts(preface, bytes)) {
        return FINDING_MORE;
    }
    enum finding f = judge_method(bytes);
    if (f != FINDING_MORE) {
        return f;
    }
    size_t at = sv_find(sv_skip(bytes, st->scanned), '\n');
    if (at == SIZE_MAX) {
        st->scanned = bytes.n;
        return bytes.n < LINE_MAX_BYTES ? FINDING_MORE : FINDING_NONE;
    }
    sv line = sv_sub(bytes, 0, st->scanned + at);
    return judge_line(line.n && line.p[line.n - 1] == '\r' ? sv_sub(line, 0, line.n - 1) : line);
}

static enum listener_filter_status found(struct accept_info *info, const sv *protocol,
                                         struct stats_shard *st, unsigned stat) {
    stats_inc(st, stat);
    info->alpn = protocol;
    info->alpn_n = protocol != NULL;
    return LISTENER_FILTER_DONE;
}

static enum listener_filter_status on_bytes(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index) {
    (void)end;
    const struct config *c = config;
    if (info->transport_protocol.n && !sv_eq(info->transport_protocol, SV("raw_buffer"))) {
        return LISTENER_FILTER_DONE; /* encrypted: nothing to see, and ALPN is known already */
    }
    enum finding f = judge(state, bytes);
    if (f == FINDING_MORE) {
        return LISTENER_FILTER_NEED_DATA;
    }
    struct stats_shard *st = stats_shard(c->stats, thread_index);
    switch (f) {
    case FINDING_HTTP10:
        return found(info, &http_10, st, HTTP_INSPECTOR_http10_found);
    case FINDING_HTTP11:
        return found(info, &http_11, st, HTTP_INSPECTOR_http11_found);
    case FINDING_H2C:
        return found(info, &h2c, st, HTTP_INSPECTOR_http2_found);
    case FINDING_NONE:
    case FINDING_MORE:
        break;
    }
    stats_inc(st, HTTP_INSPECTOR_http_not_found);
    return LISTENER_FILTER_DONE;
}

extern const struct listener_filter_type http_inspector_listener_filter;
const struct listener_filter_type http_inspector_listener_filter = {
    .name = "envoy.filters.listener.http_inspector",
    .type_url = "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
    .max_peek_bytes = LINE_MAX_BYTES,
    .compile = compile,
    .on_bytes = on_bytes,
};
