/* istio.metadata_exchange for HTTP: finds out which workloads call and are called, from headers and
 * baggage, leaves them in the filter state, and tells ours.
 * Threads: config immutable; each thread has its own table of peers seen; streams worker-local.
 * Spec: io.istio.http.peer_metadata.Config. Not here: what peers are (common/istio_peer.c). */
#include "filters/common/istio_peer.h"
#include "protos/gen/istio_peer_metadata.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/worker.h"
#include "proxy/base/base64.h"
#include "proxy/base/map.h"

#define PEERS_MAX 500            /* of one thread; when it is full, all are forgotten */
#define PEER_KEPT_BYTES_MAX 4096 /* longer metadata is read anew for each request */

#define PEER_STATS(P, C, G, H, T) C(P, cache_hit) C(P, cache_miss) C(P, cache_full) C(P, malformed)
STATS_ENUM(PEER, PEER_STATS);
STATS_GROUP(istio_peer, PEER, PEER_STATS);

enum method { METHOD_HEADERS, METHOD_BAGGAGE, METHOD_WORKLOADS, METHOD_NONE };
struct methods {
    enum method *v;
    unsigned n;
    bool skip_external; /* propagation: not to clusters outside of the mesh */
};
/* A peer as it introduced itself, or as the control plane tells of it, shared by the streams that
 * refer to it. Worker-local. */
struct peer_seen {
    uint32_t refs;
    sv id;
    sv header; /* or the hash of the workload's resource */
    struct kv_value peer;
    sv text;
    struct arena arena;
};
struct peer_table {
    struct map peers, workloads; /* id, uid → struct peer_seen, one ref */
};
/* Of all filters of the process. */
struct exchange {
    struct stats_scope *stats;
    struct peer_table *threads[STATS_THREADS_MAX]; /* each written by its own thread only */
};
struct exchange_config {
    const struct istio_node *node;
    struct exchange *shared;
    sv baggage; /* ours */
    struct methods discover_down, discover_up, tell_down, tell_up;
    const sv *labels;
    unsigned labels_n;
};
struct exchange_stream {
    struct http_filter base; /* must be first */
    bool got_id, got_header; /* the client introduced itself: so does the response */
    struct peer_seen *down, *up;
};

/* --- peers seen --- */

static void peer_unref(struct peer_seen *p) {
    if (p && --p->refs == 0) {
        arena_fini(&p->arena);
        xfree(p);
    }
}

static void forget_all(struct map *peers) {
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(peers, &it)) != NULL;) {
        struct peer_seen *p = s->value;
        map_remove_at(peers, &it);
        peer_unref(p);
    }
}

static void release(void *arg) {
    struct exchange *x = arg;
    for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
        if (x->threads[i]) {
            forget_all(&x->threads[i]->peers);
            forget_all(&x->threads[i]->workloads);
            map_fini(&x->threads[i]->peers);
            map_fini(&x->threads[i]->workloads);
            xfree(x->threads[i]);
        }
    }
    stats_scope_unref(x->stats);
}

static void *make_exchange(struct compile_ctx *ctx, struct arena *a) {
    struct exchange *x = arena_new(a, struct exchange);
    x->stats = stats_scope_get(ctx->stats, &istio_peer_stats_group, SV("istio_peer."));
    arena_on_fini(a, release, x);
    return x;
}

static struct peer_table *table_of(struct exchange *x, unsigned thread) {
    if (!x->threads[thread]) {
        x->threads[thread] = xnew(struct peer_table);
        map_init(&x->threads[thread]->peers);
        map_init(&x->threads[thread]->workloads);
    }
    return x->threads[thread];
}

static bool decode_header(const struct exchange_config *c, sv header, struct arena *a,
                          struct kv_value *out) {
    if (header.n > BASE64_DECODED_MAX(ISTIO_PEER_WIRE_MAX)) {
        return false;
    }
    char *bytes = arena_alloc(a, BASE64_DECODED_MAX(header.n));
    size_t n = base64_decode(header, BASE64_STANDARD, bytes);
    return n != SIZE_MAX && istio_peer_from_wire(sv_from(bytes, n), c->labels, c->labels_n, a, out);
}

/* One ref. Its memory is its own: `peer` may be transient. */
static struct peer_seen *peer_new(sv id, sv header, const struct kv_value *peer) {
    struct peer_seen *p = xnew(struct peer_seen);
    p->refs = 1;
    arena_init(&p->arena, 512);
    p->id = arena_sv(&p->arena, id);
    p->header = arena_sv(&p->arena, header);
    p->peer = kv_copy(peer, &p->arena);
    p->text = istio_peer_text(&p->peer, &p->arena);
    return p;
}

static void keep(struct map *peers, struct peer_seen *p, struct stats_shard *stats) {
    if (!map_get(peers, p->id) && map_count(peers) >= PEERS_MAX) {
        stats_inc(stats, PEER_cache_full);
        forget_all(peers);
    }
    p->refs++;
    peer_unref(map_put(peers, p->id, p));
}

/* One ref. NULL: malformed. */
static struct peer_seen *peer_find(struct http_filter *f, sv id, sv header) {
    const struct exchange_config *c = f->config;
    unsigned thread = http_loop(f)->thread_index;
    struct stats_shard *stats = stats_shard(c->shared->stats, thread);
    struct map *peers = &table_of(c->shared, thread)->peers;
    bool is_kept = id.n && header.n <= PEER_KEPT_BYTES_MAX && c->labels_n == 0;
    struct peer_seen *p = is_kept ? map_get(peers, id) : NULL;
    if (p && sv_eq(p->header, header)) {
        stats_inc(stats, PEER_cache_hit);
        p->refs++;
        return p;
    }
    stats_inc(stats, PEER_cache_miss);
    struct arena scratch;
    struct kv_value peer;
    arena_init(&scratch, 0);
    bool ok = decode_header(c, header, &scratch, &peer);
    struct peer_seen *fresh = ok ? peer_new(id, header, &peer) : NULL;
    arena_fini(&scratch);
    if (!ok) {
        stats_inc(stats, PEER_malformed);
    } else if (is_kept) {
        keep(peers, fresh, stats);
    }
    return fresh;
}

/* One ref. NULL: the control plane knows no workload with this address. */
static struct peer_seen *workload_find(struct http_filter *f, const struct addr *a) {
    const struct exchange_config *c = f->config;
    struct workload_told told;
    if (!worker_workload(http_worker(f), a, &told)) {
        return NULL;
    }
    unsigned thread = http_loop(f)->thread_index;
    struct stats_shard *stats = stats_shard(c->shared->stats, thread);
    struct map *peers = &table_of(c->shared, thread)->workloads;
    sv version = sv_from((const char *)told.hash, 2 * sizeof(*told.hash));
    struct peer_seen *p = map_get(peers, told.uid);
    if (p && sv_eq(p->header, version)) {
        stats_inc(stats, PEER_cache_hit);
        p->refs++;
        return p;
    }
    stats_inc(stats, PEER_cache_miss);
    struct arena scratch;
    struct kv_value peer;
    arena_init(&scratch, 0);
    p = istio_peer_from_workload(told.wire, &scratch, &peer) ? peer_new(told.uid, version, &peer)
                                                             : NULL;
    arena_fini(&scratch);
    if (p) {
        keep(peers, p, stats);
    }
    return p;
}

/* --- compile --- */

static void add(struct methods *m, enum method method) { m->v[m->n++] = method; }

static void compile_discovery(struct compile_ctx *ctx, const char *field,
                              IstioPeerMetadata__Config__DiscoveryMethod *const *v, size_t n,
                              struct methods *out) {
    out->v = arena_new_array(ctx->arena, enum method, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        switch (v[i]->method_specifier_case) {
        case ISTIO_PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_BAGGAGE:
            add(out, METHOD_BAGGAGE);
            break;
        case ISTIO_PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_ISTIO_HEADERS:
            add(out, METHOD_HEADERS);
            break;
        case ISTIO_PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_WORKLOAD_DISCOVERY:
            add(out, METHOD_WORKLOADS);
            break;
        case ISTIO_PEER_METADATA__CONFIG__DISCOVERY_METHOD__METHOD_SPECIFIER_UPSTREAM_FILTER_STATE:
            compile_unhonoured(ctx, "upstream_filter_state");
            add(out, METHOD_NONE);
            break;
        default:
            break; /* as Istio: a method that is not named is none */
        }
    }
}

static void compile_propagation(struct compile_ctx *ctx,
                                IstioPeerMetadata__Config__PropagationMethod *const *v, size_t n,
                                struct methods *out) {
    out->v = arena_new_array(ctx->arena, enum method, n);
    for (size_t i = 0; i < n; i++) {
        switch (v[i]->method_specifier_case) {
        case ISTIO_PEER_METADATA__CONFIG__PROPAGATION_METHOD__METHOD_SPECIFIER_ISTIO_HEADERS:
            out->skip_external |= v[i]->istio_headers->skip_external_clusters;
            add(out, METHOD_HEADERS);
            break;
        case ISTIO_PEER_METADATA__CONFIG__PROPAGATION_METHOD__METHOD_SPECIFIER_BAGGAGE:
            add(out, METHOD_BAGGAGE);
            break;
        default:
            break;
        }
    }
}

static sv own_baggage(const struct istio_node *node, struct arena *a) {
    static const char *const members[][2] = {{"namespace", "k8s.namespace.name"},
                                             {"cluster", "k8s.cluster.name"},
                                             {"service", "service.name"},
                                             {"revision", "service.version"},
                                             {"app", "app.name"},
                                             {"version", "app.version"},
                                             {"name", "k8s.instance.name"}};
    sv type = istio_peer_field(&node->me, SV("type"));
    sv out = arena_printf(a, "k8s.%.*s.name=%.*s", SV_ARG(type.n ? type : SV("pod")),
                          SV_ARG(istio_peer_field(&node->me, SV("workload"))));
    for (size_t i = 0; i < ARRAY_LEN(members); i++) {
        sv value = istio_peer_field(&node->me, sv_cstr(members[i][0]));
        if (value.n) {
            out = arena_printf(a, "%.*s,%s=%.*s", SV_ARG(out), members[i][1], SV_ARG(value));
        }
    }
    return out;
}

static void *exchange_compile(struct compile_ctx *ctx, const void *msg) {
    const IstioPeerMetadata__Config *m = msg;
    struct exchange_config *c = arena_new(ctx->arena, struct exchange_config);
    c->node = istio_node(ctx);
    c->shared = compile_shared(ctx, "istio_metadata_exchange", make_exchange);
    c->baggage = own_baggage(c->node, ctx->arena);
    compile_discovery(ctx, "downstream_discovery", m->downstream_discovery,
                      m->n_downstream_discovery, &c->discover_down);
    compile_discovery(ctx, "upstream_discovery", m->upstream_discovery, m->n_upstream_discovery,
                      &c->discover_up);
    compile_propagation(ctx, m->downstream_propagation, m->n_downstream_propagation, &c->tell_down);
    compile_propagation(ctx, m->upstream_propagation, m->n_upstream_propagation, &c->tell_up);
    sv *labels = arena_new_array(ctx->arena, sv, m->n_additional_labels);
    for (size_t i = 0; i < m->n_additional_labels; i++) {
        labels[i] = arena_sv(ctx->arena, sv_cstr(m->additional_labels[i]));
    }
    c->labels = labels;
    c->labels_n = (unsigned)m->n_additional_labels;
    if (m->shared_with_upstream) {
        compile_unhonoured(ctx, "shared_with_upstream");
    }
    return c;
}

/* --- streams --- */

static void publish(struct http_filter *f, bool is_downstream, const struct kv_value *peer,
                    sv text) {
    struct stream_info *si = http_stream_info(f);
    if (!si->filter_state) {
        si->filter_state = filter_state_new(http_arena(f), NULL);
    }
    istio_peer_publish(si->filter_state, is_downstream, peer, text);
}

static bool discover_headers(struct http_filter *f, struct headers *h, bool is_downstream) {
    struct exchange_stream *s = (struct exchange_stream *)f;
    sv id = headers_get(h, HDR_x_envoy_peer_metadata_id);
    sv header = headers_get(h, HDR_x_envoy_peer_metadata);
    if (is_downstream) {
        s->got_id = id.p != NULL;
        s->got_header = header.p != NULL;
    }
    struct peer_seen **kept = is_downstream ? &s->down : &s->up;
    if (!header.n || *kept) {
        return *kept != NULL;
    }
    *kept = peer_find(f, id, header);
    if (*kept) {
        publish(f, is_downstream, &(*kept)->peer, (*kept)->text);
    }
    return *kept != NULL;
}

static bool discover_baggage(struct http_filter *f, struct headers *h, bool is_downstream) {
    sv text = headers_joined(h, HDR_OTHER, SV("baggage"), http_arena(f));
    if (!text.n) {
        return false;
    }
    struct kv_value *peer = arena_new(http_arena(f), struct kv_value);
    *peer = istio_peer_from_baggage(arena_sv(http_arena(f), text), http_arena(f));
    publish(f, is_downstream, peer, istio_peer_text(peer, http_arena(f)));
    return true;
}

static const struct addr *address_of(struct http_filter *f, bool is_downstream) {
    const struct stream_info *si = http_stream_info(f);
    return is_downstream ? (si->remote ? si->remote : &si->cx->remote)
           : si->up.host ? observe_hooks()->host_addr(si->up.host)
                         : NULL;
}

static bool discover_workload(struct http_filter *f, bool is_downstream) {
    struct exchange_stream *s = (struct exchange_stream *)f;
    struct peer_seen **kept = is_downstream ? &s->down : &s->up;
    const struct addr *a = address_of(f, is_downstream);
    if (a && !*kept) {
        *kept = workload_find(f, a);
        if (*kept) {
            publish(f, is_downstream, &(*kept)->peer, (*kept)->text);
        }
    }
    return *kept != NULL;
}

static void discover(struct http_filter *f, const struct methods *m, struct headers *h,
                     bool is_downstream) {
    bool found = false, had_headers = false;
    for (unsigned i = 0; i < m->n; i++) {
        had_headers |= m->v[i] == METHOD_HEADERS;
        if (!found) {
            found = m->v[i] == METHOD_HEADERS     ? discover_headers(f, h, is_downstream)
                    : m->v[i] == METHOD_BAGGAGE   ? discover_baggage(f, h, is_downstream)
                    : m->v[i] == METHOD_WORKLOADS ? discover_workload(f, is_downstream)
                                                  : false;
        }
    }
    if (had_headers) { /* they are between proxies */
        headers_remove(h, HDR_x_envoy_peer_metadata_id);
        headers_remove(h, HDR_x_envoy_peer_metadata);
    }
}

static bool is_external(struct http_filter *f) {
    const sv path = SV("external");
    const struct kv_value *v =
        kv_metadata_get(http_stream_info(f)->cluster_metadata, SV("istio"), &path, 1);
    return sv_is(http_route_cluster(f), "PassthroughCluster") || (v && v->kind == KV_BOOL && v->b);
}

static void tell(struct http_filter *f, const struct methods *m, struct headers *h, bool id,
                 bool header) {
    const struct exchange_config *c = f->config;
    if (m->skip_external && is_external(f)) {
        return;
    }
    for (unsigned i = 0; i < m->n; i++) {
        if (m->v[i] == METHOD_BAGGAGE) {
            headers_set_name(h, SV("baggage"), c->baggage);
            continue;
        }
        if (id) {
            headers_set(h, HDR_x_envoy_peer_metadata_id, c->node->id);
        }
        if (header) {
            headers_set(h, HDR_x_envoy_peer_metadata, c->node->header);
        }
    }
}

static enum filter_headers_status exchange_decode_headers(struct http_filter *f, struct headers *h,
                                                          bool end_stream) {
    (void)end_stream;
    const struct exchange_config *c = f->config;
    discover(f, &c->discover_down, h, true);
    tell(f, &c->tell_up, h, true, true);
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_headers_status exchange_encode_headers(struct http_filter *f, struct headers *h,
                                                          bool end_stream) {
    (void)end_stream;
    const struct exchange_config *c = f->config;
    const struct exchange_stream *s = (struct exchange_stream *)f;
    discover(f, &c->discover_up, h, false);
    tell(f, &c->tell_down, h, s->got_id, s->got_header);
    return FILTER_HEADERS_CONTINUE;
}

static void exchange_destroy(struct http_filter *f) {
    struct exchange_stream *s = (struct exchange_stream *)f;
    peer_unref(s->down);
    peer_unref(s->up);
}

extern const struct http_filter_type istio_metadata_exchange_http_filter;
const struct http_filter_type istio_metadata_exchange_http_filter = {
    .name = "istio.metadata_exchange",
    .type_url = "io.istio.http.peer_metadata.Config",
    .route_type_url = "",
    .stream_size = sizeof(struct exchange_stream),
    .compile = exchange_compile,
    .decode_headers = exchange_decode_headers,
    .encode_headers = exchange_encode_headers,
    .destroy = exchange_destroy,
};
