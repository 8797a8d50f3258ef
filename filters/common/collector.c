/* See the header. */
#include "filters/common/collector.h"

#include "protos/gen/core.pb-c.h"

static bool compile_uri(struct compile_ctx *ctx, const Core__HttpUri *m, struct collector *out) {
    DIAG_FIELD(ctx->diag, "http_uri");
    if (!m || m->http_upstream_type_case != CORE__HTTP_URI__HTTP_UPSTREAM_TYPE_CLUSTER) {
        return diag_error(ctx->diag, "value is required");
    }
    out->cluster = arena_sv(ctx->arena, sv_cstr(m->cluster));
    sv rest = sv_cstr(m->uri);
    if (!sv_eat(&rest, SV("https://"))) {
        sv_eat(&rest, SV("http://"));
    }
    size_t slash = sv_find(rest, '/');
    out->authority = arena_sv(ctx->arena, sv_sub(rest, 0, slash));
    out->path = slash == SIZE_MAX ? SV("/") : arena_sv(ctx->arena, sv_skip(rest, slash));
    if (!header_value_valid(out->authority) || !header_value_valid(out->path)) {
        DIAG_FIELD(ctx->diag, "uri");
        return diag_error(ctx->diag, "invalid URI '%s'", m->uri);
    }
    DIAG_FIELD(ctx->diag, "timeout");
    return compile_duration_ms(ctx, m->timeout, 0, &out->timeout_ms);
}

bool collector_compile(struct compile_ctx *ctx, const void *msg, struct collector *out) {
    const Core__HttpService *m = (const Core__HttpService *)msg;
    unsigned before = diag_errors(ctx->diag);
    compile_uri(ctx, m->http_uri, out);
    DIAG_FIELD(ctx->diag, "request_headers_to_add");
    out->headers = header_mutations_compile(ctx, (const void *const *)m->request_headers_to_add,
                                            m->n_request_headers_to_add, NULL, 0);
    return diag_errors(ctx->diag) == before;
}

struct upstream_call *collector_post(const struct collector *c, struct worker *w, sv content_type,
                                     sv user_agent, uint32_t timeout_ms, struct buf *body,
                                     upstream_call_done_fn done, void *user) {
    struct arena scratch;
    struct headers h;
    arena_init(&scratch, 1024);
    headers_init(&h, &scratch);
    headers_add_id(&h, HDR_method, SV("POST"));
    headers_add_id(&h, HDR_path, c->path);
    headers_add_id(&h, HDR_authority, c->authority);
    headers_add_id(&h, HDR_content_type, content_type);
    if (user_agent.n) {
        headers_add_id(&h, HDR_user_agent, user_agent);
    }
    static const struct conn_info nowhere;
    const struct stream_info si = {.cx = &nowhere, .arena = &scratch};
    header_mutations_apply(c->headers, &h, &si);
    const struct upstream_call_options o = {
        .cluster = SLOT_NONE, /* by name: a report may outlive the listener it came from */
        .cluster_name = c->cluster,
        .timeout_ms = c->timeout_ms ? c->timeout_ms : timeout_ms,
        .request_max_bytes = UINT32_MAX, /* bounded by the batch */
        .discards_response = true,
    };
    struct upstream_call *call = upstream_call_start(w, &o, &h, body, true, done, user);
    arena_fini(&scratch);
    return call;
}

const char *collector_text(struct arena *a, sv s) {
    if (!memchr(s.p ? s.p : "", 0, s.n) && sv_is_utf8(s)) {
        return arena_cstr(a, s);
    }
    char *out = (char *)arena_alloc(a, 3 * s.n + 1);
    size_t n = 0;
    while (s.n) {
        unsigned seq = s.p[0] ? sv_utf8_seq(s) : 0;
        memcpy(out + n, seq ? s.p : "\xEF\xBF\xBD", seq ? seq : 3);
        n += seq ? seq : 3;
        s = sv_skip(s, seq ? seq : 1);
    }
    out[n] = 0;
    return out;
}
