/* Request mirroring by one upstream call per policy.
 * Threads: worker-local. Spec: RouteAction.RequestMirrorPolicy; Envoy's Router::ShadowWriterImpl.
 * What differs: a slow mirror never holds the request back; it is given up when more than the
 * stream's buffer limit waits for it (retry_or_shadow_abandoned of its cluster).
 * Not here: what is counted (upstream/upstream_call.c), compiling policies (route/). */
#include "proxy/request/mirror.h"

#include "proxy/api/upstream_call.h"
#include "proxy/request/stream.h"

struct mirror {
    struct upstream_call *call; /* NULL: over */
};
struct mirrors {
    unsigned n;
    bool is_complete; /* the request has been given in full */
    struct mirror v[];
};

/* Hosts of mirrors see another name, so that logs tell the copies apart: "a:80" → "a-shadow:80". */
static void shadow_host(struct headers *h) {
    sv authority = headers_get(h, HDR_authority);
    sv host = host_without_port(authority);
    headers_set(h, HDR_authority,
                arena_printf(h->arena, "%.*s-shadow%.*s", SV_ARG(host),
                             SV_ARG(sv_skip(authority, host.n))));
}

static void rewrite(const struct mirror_policy *p, struct headers *h,
                    const struct stream_info *si) {
    header_mutations_apply(p->mutations, h, si);
    if (p->host_rewrite.n) {
        headers_set(h, HDR_authority, p->host_rewrite);
    } else if (!p->disable_shadow_host_suffix) {
        shadow_host(h);
    }
}

static bool is_wanted(const struct mirror_policy *p, const struct stream *s,
                      const struct headers *h) {
    bool has_target = !p->cluster_header.n || headers_get_name(h, p->cluster_header).n;
    return has_target && fraction_holds(&p->fraction, s->random);
}

static void on_done(void *user, const struct upstream_call_result *r) {
    (void)r;
    ((struct mirror *)user)->call = NULL;
}

static void start_one(struct http_filter *f, const struct mirror_policy *p, const struct headers *h,
                      uint32_t timeout_ms, bool end_stream, struct mirror *out) {
    const struct stream_info *si = http_stream_info(f);
    struct arena scratch;
    arena_init(&scratch, 0);
    struct headers copy;
    headers_init(&copy, &scratch);
    headers_copy(&copy, h);
    rewrite(p, &copy, si);
    struct upstream_call_options o = {
        .cluster = p->cluster_header.n ? SLOT_NONE : p->cluster,
        .cluster_name =
            p->cluster_header.n ? headers_get_name(h, p->cluster_header) : p->cluster_name,
        .timeout_ms = timeout_ms,
        .request_max_bytes = http_buffer_limit(f),
        .discards_response = true,
        .downstream = si->protocol,
    };
    out->call = upstream_call_start(http_worker(f), &o, &copy, NULL, end_stream, on_done, out);
    arena_fini(&scratch);
}

struct mirrors *mirrors_start(struct http_filter *f, const struct route_entry *e,
                              const struct headers *h, uint32_t timeout_ms, bool end_stream) {
    if (http_upgrade_type(f).n || f->stream->is_connect) {
        return NULL;
    }
    const struct route_extra *x = e->extra;
    size_t bytes = sizeof(struct mirrors) + x->mirrors_n * sizeof(struct mirror);
    struct mirrors *m = (struct mirrors *)arena_zalloc(http_arena(f), bytes);
    m->is_complete = end_stream;
    for (unsigned i = 0; i < x->mirrors_n; i++) {
        if (is_wanted(&x->mirrors[i], f->stream, h)) {
            start_one(f, &x->mirrors[i], h, timeout_ms, end_stream, &m->v[m->n++]);
        }
    }
    return m->n ? m : NULL;
}

void mirrors_data(struct mirrors *m, const struct buf *data, bool end_stream) {
    m->is_complete |= end_stream;
    for (unsigned i = 0; i < m->n; i++) {
        if (m->v[i].call) {
            struct buf BUF_AUTO shared;
            buf_init(&shared);
            buf_copy_to(data, &shared);
            upstream_call_data(m->v[i].call, &shared, end_stream);
        }
    }
}

void mirrors_trailers(struct mirrors *m, const struct headers *t) {
    m->is_complete = true;
    for (unsigned i = 0; i < m->n; i++) {
        if (m->v[i].call) {
            upstream_call_trailers(m->v[i].call, t);
        }
    }
}

void mirrors_end(struct mirrors *m) {
    for (unsigned i = 0; m && i < m->n; i++) {
        struct upstream_call *c = m->v[i].call;
        m->v[i].call = NULL;
        if (c && m->is_complete) {
            upstream_call_detach(c);
        } else if (c) {
            upstream_call_cancel(c);
        }
    }
}
