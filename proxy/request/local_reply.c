/* Answers the proxy makes itself: status, body, gRPC translation, local_reply_config.
 * Threads: worker-local; config compiled on the config thread.
 * Spec: LocalReplyConfig, ResponseMapper; Envoy's Utility::sendLocalReply. Not here: who decides to
 * answer. */
#include "protos/gen/hcm.pb-c.h"
#include "proxy/api/access_logger.h"
#include "proxy/api/header_mutation.h"
#include "proxy/base/grpc_status.h"
#include "proxy/observe/access_log_filter.h"
#include "proxy/observe/formatter.h"
#include "proxy/request/stream.h"

struct reply_mapper {
    const struct log_filter *filter;
    uint16_t status; /* 0: keep */
    bool has_body;
    sv body;
    const struct substitution_format *format; /* NULL: the config's */
    const struct header_mutations *headers;
};
struct local_reply_config {
    const struct reply_mapper *mappers;
    unsigned mappers_n;
    const struct substitution_format *format; /* NULL: the body as it is */
};

/* ---- compiling ---- */

static const struct substitution_format *format_compile(struct compile_ctx *ctx,
                                                        const Core__SubstitutionFormatString *m) {
    if (!m) {
        return NULL;
    }
    struct substitution_format *f = arena_new(ctx->arena, struct substitution_format);
    return substitution_format_compile(ctx, m, f) ? f : NULL;
}

static void mapper(struct compile_ctx *ctx, const Hcm__ResponseMapper *m,
                   struct reply_mapper *out) {
    {
        DIAG_FIELD(ctx->diag, "filter");
        out->filter = log_filter_compile(ctx, m->filter);
    }
    out->status = m->status_code ? (uint16_t)m->status_code->value : 0;
    if (m->body) {
        DIAG_FIELD(ctx->diag, "body");
        out->has_body = compile_data_source(ctx, m->body, &out->body);
    }
    if (m->body_format_override) {
        DIAG_FIELD(ctx->diag, "body_format_override");
        out->format = format_compile(ctx, m->body_format_override);
    }
    DIAG_FIELD(ctx->diag, "headers_to_add");
    out->headers = header_mutations_compile(ctx, (const void *const *)m->headers_to_add,
                                            m->n_headers_to_add, NULL, 0);
}

struct local_reply_config *local_reply_compile(struct compile_ctx *ctx, const void *msg) {
    const Hcm__LocalReplyConfig *m = msg;
    struct local_reply_config *c = arena_new(ctx->arena, struct local_reply_config);
    struct reply_mapper *v = arena_new_array(ctx->arena, struct reply_mapper, m->n_mappers);
    for (size_t i = 0; i < m->n_mappers; i++) {
        DIAG_FIELD(ctx->diag, "mappers[%zu]", i);
        mapper(ctx, m->mappers[i], &v[i]);
    }
    c->mappers = v;
    c->mappers_n = (unsigned)m->n_mappers;
    DIAG_FIELD(ctx->diag, "body_format");
    c->format = format_compile(ctx, m->body_format);
    return c;
}

/* ---- replying ---- */

struct reply {
    unsigned status;
    sv body;
    sv content_type;
};

static void apply_mappers(struct stream *s, struct headers *h, struct reply *r) {
    const struct local_reply_config *c = s->cfg->local_reply;
    const struct substitution_format *format = c->format;
    s->info.response_code = (uint16_t)r->status;
    s->info.response = h;
    for (unsigned i = 0; i < c->mappers_n; i++) {
        const struct reply_mapper *m = &c->mappers[i];
        if (m->filter && !log_filter_match(m->filter, &s->info, &s->hcm->loop->rng)) {
            continue;
        }
        header_mutations_apply(m->headers, h, &s->info);
        if (m->status) {
            r->status = m->status;
            s->info.response_code = m->status;
            headers_set_status(h, m->status);
        }
        if (m->has_body) {
            r->body = m->body;
        }
        if (m->format) {
            format = m->format;
        }
        break;
    }
    s->info.local_reply_body = r->body;
    if (!format) {
        return;
    }
    struct buf BUF_AUTO out;
    buf_init(&out);
    substitution_format_write(format, &s->info, &out);
    r->body = arena_sv(&s->arena, buf_pullup(&out, buf_len(&out)));
    r->content_type = format->content_type;
}

static void to_grpc(struct stream *s, struct headers *h, struct reply *r) {
    headers_set(h, HDR_content_type, SV("application/grpc"));
    if (!headers_has(h, HDR_grpc_status)) { /* the filter may know better */
        headers_set(h, HDR_grpc_status,
                    s->info.flags & RESPONSE_FLAG(UT) ? SV("14")
                                                      : grpc_status_text_of_http(r->status));
    }
    if (r->body.n) {
        headers_set(h, HDR_grpc_message, percent_encode(r->body, "%", &s->arena));
    }
    headers_remove(h, HDR_content_length);
    headers_set_status(h, 200);
    r->body = SV_NULL;
}

static void set_body_headers(struct stream *s, struct headers *h, const struct reply *r) {
    headers_remove(h, HDR_content_length);
    if (!r->body.n) {
        headers_remove(h, HDR_content_type);
        return;
    }
    headers_set(h, HDR_content_length, arena_printf(&s->arena, "%zu", r->body.n));
    if (!headers_has(h, HDR_content_type) || s->cfg->local_reply) {
        headers_set(h, HDR_content_type, r->content_type);
    }
}

static void send_reply(struct stream *s, struct headers *h, sv body) {
    bool has_body = body.n && !s->is_head;
    stream_encode_headers(s, h, !has_body);
    if (!has_body || s->is_destroyed) {
        return;
    }
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_append_sv(&b, body);
    stream_encode_data(s, &b, true);
}

void stream_local_reply(struct stream *s, unsigned status, sv body, uint64_t flags, sv details,
                        void (*modify)(struct headers *h, void *arg), void *arg) {
    if (s->is_destroyed) {
        return;
    }
    s->info.flags |= flags;
    if (details.n) {
        s->info.response_code_details = details;
    }
    s->dec.is_aborted = true;
    if (s->enc.has_headers) { /* too late for an answer of our own */
        stream_reset(s, RESET_LOCAL);
        return;
    }
    if (!s->chain) {
        /* refused before filters were made: none of them sees the reply */
        s->chain = &s->cfg->filters;
    }
    struct headers *h = arena_new(&s->arena, struct headers);
    headers_init(h, &s->arena);
    headers_set_status(h, status);
    struct reply r = {status, body, SV("text/plain")};
    if (modify) {
        modify(h, arg);
    }
    sv kept_type = headers_get(h, HDR_content_type);
    if (kept_type.n) {
        r.content_type = kept_type;
    }
    s->info.local_reply_body = body;
    if (s->cfg->local_reply) {
        apply_mappers(s, h, &r);
    }
    if (s->is_grpc) {
        to_grpc(s, h, &r);
    } else {
        set_body_headers(s, h, &r);
    }
    send_reply(s, h, r.body);
}
