/* Unary gRPC calls: one framed message out, one in, the status read from wherever it is.
 * Threads: worker-local. Spec: gRPC over HTTP/2 (PROTOCOL-HTTP2.md), http-grpc-status-mapping.md.
 * Not here: the exchange itself (upstream_call.c). */
#include "proxy/base/grpc_status.h"
#include "proxy/upstream/upstream_call.h"

#define FRAME_HEADER_BYTES 5
#define GRPC_STATUS_MAX 16
enum {
    GRPC_OK = 0,
    GRPC_UNKNOWN = 2,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16
};

struct grpc_call {
    struct arena *arena; /* of the call */
    grpc_call_done_fn done;
    void *user;
};

/* ---- the answer ---- */

static unsigned status_of_call(enum upstream_call_status s) {
    switch (s) {
    case UPSTREAM_CALL_OK:
        return GRPC_OK;
    case UPSTREAM_CALL_NO_CLUSTER:
    case UPSTREAM_CALL_NO_HOST:
    case UPSTREAM_CALL_OVERFLOW:
    case UPSTREAM_CALL_FAILED:
        return GRPC_UNAVAILABLE;
    case UPSTREAM_CALL_TIMEOUT:
        return GRPC_DEADLINE_EXCEEDED;
    case UPSTREAM_CALL_TOO_LARGE:
        return GRPC_RESOURCE_EXHAUSTED;
    }
    return GRPC_UNKNOWN;
}

/* Percent-encoding undone; a stray '%' stands for itself. */
static sv decode_details(struct arena *a, sv s) {
    char *out = (char *)arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        int high = s.p[i] == '%' && s.n - i > 2 ? ascii_hex(s.p[i + 1]) : -1;
        int low = high >= 0 ? ascii_hex(s.p[i + 2]) : -1;
        if (low >= 0) {
            out[n++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[n++] = s.p[i];
        }
    }
    return sv_from(out, n);
}

/* The status told in these headers or trailers; false: none. */
static bool read_status(const struct headers *h, struct arena *a, struct grpc_call_result *out) {
    sv text = h ? headers_get(h, HDR_grpc_status) : SV_NULL;
    uint64_t n;
    if (!text.p) {
        return false;
    }
    out->status = sv_to_u64(text, &n) && n <= GRPC_STATUS_MAX ? (unsigned)n : GRPC_UNKNOWN;
    out->details = decode_details(a, headers_get(h, HDR_grpc_message));
    return true;
}

/* Exactly one uncompressed message. */
static bool read_message(struct buf *body, sv *out) {
    sv all = buf_pullup(body, buf_len(body));
    if (all.n < FRAME_HEADER_BYTES || all.p[0] != 0) {
        return false;
    }
    const unsigned char *p = (const unsigned char *)all.p;
    uint32_t n = (uint32_t)p[1] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 8 | p[4];
    *out = sv_skip(all, FRAME_HEADER_BYTES);
    return out->n == n;
}

static void read_answer(const struct upstream_call_result *r, struct arena *a,
                        struct grpc_call_result *out) {
    if (r->status != UPSTREAM_CALL_OK) {
        out->status = status_of_call(r->status);
        out->details = r->failure.n ? r->failure : sv_cstr(upstream_call_status_str(r->status));
        return;
    }
    if (!read_status(r->trailers, a, out) && !read_status(r->headers, a, out)) {
        out->status = r->code == 200 ? GRPC_UNKNOWN : grpc_status_of_http(r->code);
        out->details = SV("no grpc-status");
    }
    if (out->status == GRPC_OK && !read_message(r->body, &out->message)) {
        out->status = GRPC_INTERNAL;
        out->details = SV("malformed message");
        out->message = SV_NULL;
    }
}

static void on_done(void *user, const struct upstream_call_result *r) {
    const struct grpc_call *g = (const struct grpc_call *)user;
    struct grpc_call_result answer = {.call = r->status};
    read_answer(r, g->arena, &answer);
    g->done(g->user, &answer);
}

/* ---- the request ---- */

static void fill_headers(struct headers *h, const struct grpc_call_method *m, uint32_t timeout_ms) {
    struct arena *a = h->arena;
    headers_add_id(h, HDR_method, SV("POST"));
    headers_add_id(h, HDR_scheme, SV("http"));
    headers_add_id(h, HDR_path,
                   arena_printf(a, "/%.*s/%.*s", SV_ARG(m->service), SV_ARG(m->method)));
    if (m->authority.n) {
        headers_add_id(h, HDR_authority, m->authority);
    }
    headers_add_id(h, HDR_te, SV("trailers"));
    if (timeout_ms) {
        bool is_short = timeout_ms < 100000000; /* eight digits at most */
        headers_add_id(h, HDR_grpc_timeout,
                       arena_printf(a, "%u%c", is_short ? timeout_ms : timeout_ms / 1000,
                                    is_short ? 'm' : 'S'));
    }
    headers_add_id(h, HDR_content_type, SV("application/grpc"));
    for (unsigned i = 0; m->metadata && i < m->metadata->n; i++) {
        const struct header *x = &m->metadata->v[i];
        if (!(x->flags & HEADER_REMOVED)) {
            headers_add(h, (enum header_id)x->id, x->name, x->value);
        }
    }
}

static void frame(struct buf *out, sv message) {
    uint32_t n = (uint32_t)message.n;
    const unsigned char head[FRAME_HEADER_BYTES] = {0, (unsigned char)(n >> 24),
                                                    (unsigned char)(n >> 16),
                                                    (unsigned char)(n >> 8), (unsigned char)n};
    buf_append(out, head, sizeof(head));
    buf_append_sv(out, message);
}

struct upstream_call *grpc_call_start(struct worker *w, const struct upstream_call_options *o,
                                      const struct grpc_call_method *m, sv message,
                                      grpc_call_done_fn done, void *user) {
    struct arena scratch;
    arena_init(&scratch, 0);
    struct headers h;
    headers_init(&h, &scratch);
    fill_headers(&h, m, o->timeout_ms);
    struct buf BUF_AUTO body;
    buf_init(&body);
    frame(&body, message);
    struct upstream_call_options as_h2 = *o;
    as_h2.downstream = HTTP_2;
    struct upstream_call *c = upstream_call_start(w, &as_h2, &h, &body, true, on_done, NULL);
    arena_fini(&scratch);
    struct grpc_call *g = arena_new(upstream_call_arena(c), struct grpc_call);
    *g = (struct grpc_call){.arena = upstream_call_arena(c), .done = done, .user = user};
    upstream_call_set_user(c, g); /* nothing is called back before this function returns */
    return c;
}
