/* istio.metadata_exchange for TCP: both proxies of a connection whose ALPN says so send each other
 * their workload's metadata before anything else. Downstream it is a filter of the chain, upstream
 * it is the connection's gate.
 * Threads: config immutable, connections worker-local.
 * Spec: envoy.tcp.metadataexchange.config.MetadataExchange; a preface is a magic number, the length
 * of what follows, and a google.protobuf.Any of a Struct.
 * Not here: what peers are (common/istio_peer.c). */
#include "filters/common/istio_peer.h"
#include "protos/any.h"
#include "protos/gen/istio_metadata_exchange.pb-c.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"

#define PREFACE_MAGIC 0x3D230467u
#define PREFACE_HEAD_BYTES 8u

#define EXCHANGE_STATS(P, C, G, H, T) \
    C(P, alpn_protocol_found)         \
    C(P, alpn_protocol_not_found)     \
    C(P, initial_header_not_found) C(P, header_not_found) C(P, metadata_added)
STATS_ENUM(EXCHANGE, EXCHANGE_STATS);
STATS_GROUP(metadata_exchange, EXCHANGE, EXCHANGE_STATS);

struct exchange_config {
    sv protocol; /* ALPN */
    const struct istio_node *node;
    struct stats_scope *stats;
    const sv *labels;
    unsigned labels_n;
    bool asks_workloads; /* about peers that tell nothing: enable_discovery */
};
/* The peer's preface on its way. */
struct preface {
    const struct exchange_config *cfg;
    struct arena *arena; /* for what is found; lives as long as the connection */
    struct stats_shard *stats;
    struct worker *worker;
    uint32_t length; /* of the metadata; 0: its head has not come */
    bool is_downstream;
};
struct exchange {
    struct network_filter base; /* must be first */
    bool is_begun, is_done;
    struct preface preface;
};
struct exchange_gate {
    struct conn_gate base; /* must be first */
    struct preface preface;
    struct arena arena;
    bool is_unspoken; /* the peer speaks another protocol: no preface comes */
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static void *exchange_compile(struct compile_ctx *ctx, const void *msg) {
    const IstioMetadataExchange__MetadataExchange *m = msg;
    struct exchange_config *c = arena_new(ctx->arena, struct exchange_config);
    c->protocol = arena_sv(ctx->arena, sv_cstr(m->protocol));
    c->node = istio_node(ctx);
    c->stats =
        stats_scope_get(ctx->stats, &metadata_exchange_stats_group, SV("metadata_exchange."));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    sv *labels = arena_new_array(ctx->arena, sv, m->n_additional_labels);
    for (size_t i = 0; i < m->n_additional_labels; i++) {
        labels[i] = arena_sv(ctx->arena, sv_cstr(m->additional_labels[i]));
    }
    c->labels = labels;
    c->labels_n = (unsigned)m->n_additional_labels;
    c->asks_workloads = m->enable_discovery;
    return c;
}

/* --- the peer's preface --- */

enum preface_step { PREFACE_MORE, PREFACE_OVER };

/* The peer tells nothing of itself; the control plane may know it by its address. */
static void found_nobody(const struct preface *p, const struct addr *remote,
                         struct filter_state *fs) {
    struct workload_told told;
    struct kv_value *peer = arena_new(p->arena, struct kv_value);
    if (p->cfg->asks_workloads && worker_workload(p->worker, remote, &told) &&
        istio_peer_from_workload(told.wire, p->arena, peer)) {
        istio_peer_publish(fs, p->is_downstream, peer, istio_peer_text(peer, p->arena));
        return;
    }
    filter_state_set(fs, SV(ISTIO_NO_PEER), SV("true"), NULL, false, FILTER_STATE_LOCAL);
}

static uint32_t load_u32(const char *at) {
    const unsigned char *b = (const unsigned char *)at;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* The Struct below x-envoy-peer-metadata. */
static bool peer_of(const struct preface *p, sv bytes, struct kv_value *peer) {
    struct diag ignored;
    diag_init(&ignored);
    const Pb__Any *any = PROTO_UNPACK(Pb__Any, pb__any__descriptor, bytes, p->arena, &ignored);
    const Pb__Struct *told =
        any ? PROTO_UNPACK(Pb__Struct, pb__struct__descriptor,
                           sv_from(any->value.data, any->value.len), p->arena, &ignored)
            : NULL;
    bool found = false;
    for (size_t i = 0; told && i < told->n_fields; i++) {
        const Pb__Value *v = told->fields[i]->value;
        if (v && v->kind_case == PB__VALUE__KIND_STRUCT_VALUE &&
            sv_is(sv_cstr(told->fields[i]->key), ISTIO_PEER_HEADER)) {
            found = istio_peer_from_wire(proto_pack(&v->struct_value->base, p->arena),
                                         p->cfg->labels, p->cfg->labels_n, p->arena, peer);
        }
    }
    diag_fini(&ignored);
    return found;
}

static enum preface_step take_head(struct preface *p, struct buf *data) {
    char head[PREFACE_HEAD_BYTES];
    if (buf_len(data) < sizeof(head)) {
        return PREFACE_MORE;
    }
    buf_peek(data, 0, head, sizeof(head));
    p->length = load_u32(head) == PREFACE_MAGIC ? load_u32(head + 4) : 0;
    if (p->length) {
        buf_drain(data, sizeof(head));
    }
    return PREFACE_OVER;
}

/* Take the peer's preface off the front; what is none stays, for the application. */
static enum preface_step take(struct preface *p, struct buf *data, bool end_stream,
                              const struct addr *remote, struct filter_state *fs) {
    if (!p->length && take_head(p, data) == PREFACE_MORE && !end_stream) {
        return PREFACE_MORE;
    }
    if (!p->length || p->length > ISTIO_PEER_WIRE_MAX) {
        stats_inc(p->stats, EXCHANGE_initial_header_not_found);
        found_nobody(p, remote, fs);
        return PREFACE_OVER;
    }
    if (buf_len(data) < p->length && !end_stream) {
        return PREFACE_MORE;
    }
    struct kv_value *peer = arena_new(p->arena, struct kv_value);
    size_t n = buf_len(data) < p->length ? buf_len(data) : p->length;
    char *bytes = arena_alloc(p->arena, n);
    buf_peek(data, 0, bytes, n);
    if (!peer_of(p, sv_from(bytes, n), peer)) {
        stats_inc(p->stats, EXCHANGE_header_not_found);
        found_nobody(p, remote, fs);
        return PREFACE_OVER;
    }
    buf_drain(data, n);
    istio_peer_publish(fs, p->is_downstream, peer, istio_peer_text(peer, p->arena));
    return PREFACE_OVER;
}

static bool speaks(const struct preface *p, const struct conn *c) {
    bool found = p->cfg->protocol.n && sv_eq(conn_alpn(c), p->cfg->protocol);
    stats_inc(p->stats, found ? EXCHANGE_alpn_protocol_found : EXCHANGE_alpn_protocol_not_found);
    return found;
}

/* --- downstream --- */

static struct filter_state *state_of(struct network_filter *f) {
    struct stream_info *si = net_stream_info(f);
    if (!si->filter_state) {
        si->filter_state = filter_state_new(net_arena(f), NULL);
    }
    return si->filter_state;
}

/* The first bytes either way: ours go out before them. */
static void begin(struct network_filter *f) {
    struct exchange *x = (struct exchange *)f;
    const struct exchange_config *c = f->config;
    x->is_begun = true;
    x->preface = (struct preface){
        .cfg = c,
        .arena = net_arena(f),
        .stats = stats_shard(c->stats, worker_loop(net_worker(f))->thread_index),
        .worker = net_worker(f),
        .is_downstream = true,
    };
    if (!speaks(&x->preface, f->conn)) {
        x->is_done = true;
        found_nobody(&x->preface, &f->conn->remote, state_of(f));
        return;
    }
    struct buf out;
    buf_init(&out);
    buf_append_sv(&out, c->node->preface);
    net_write(f, &out, false);
    buf_fini(&out);
    stats_inc(x->preface.stats, EXCHANGE_metadata_added);
}

static enum net_status exchange_on_data(struct network_filter *f, struct buf *data,
                                        bool end_stream) {
    struct exchange *x = (struct exchange *)f;
    if (!x->is_begun) {
        begin(f);
    }
    if (!x->is_done) {
        x->is_done =
            take(&x->preface, data, end_stream, &f->conn->remote, state_of(f)) == PREFACE_OVER;
    }
    return x->is_done ? NET_CONTINUE : NET_STOP;
}

static enum net_status exchange_on_write(struct network_filter *f, struct buf *data,
                                         bool end_stream) {
    (void)data;
    (void)end_stream;
    if (!((struct exchange *)f)->is_begun) {
        begin(f);
    }
    return NET_CONTINUE;
}

/* --- upstream --- */

static bool gate_on_data(struct conn_gate *g, struct conn *c, struct buf *data, bool end_stream) {
    struct exchange_gate *x = (struct exchange_gate *)g;
    return x->is_unspoken ||
           take(&x->preface, data, end_stream, &c->remote, c->filter_state) == PREFACE_OVER;
}

static void gate_free(struct conn_gate *g) {
    struct exchange_gate *x = (struct exchange_gate *)g;
    arena_fini(&x->arena);
    xfree(x);
}

/* A gate with the arena and filter state of what is found of the peer. */
static struct exchange_gate *gate_new(const struct preface *p, struct conn *c) {
    struct exchange_gate *x = xnew(struct exchange_gate);
    arena_init(&x->arena, 0);
    x->base = (struct conn_gate){.on_data = gate_on_data, .free = gate_free};
    x->preface = *p;
    x->preface.arena = &x->arena;
    c->filter_state = filter_state_new(&x->arena, NULL);
    conn_set_gate(c, &x->base);
    return x;
}

static void exchange_on_upstream_ready(const void *config, struct conn *c, struct worker *w) {
    const struct exchange_config *cfg = config;
    struct preface p = {
        .cfg = cfg, .stats = stats_shard(cfg->stats, worker_loop(w)->thread_index), .worker = w};
    bool is_spoken = speaks(&p, c);
    if (c->gate) {
        return;
    }
    if (!is_spoken) {
        struct workload_told told;
        if (cfg->asks_workloads && worker_workload(w, &c->remote, &told)) {
            struct exchange_gate *x = gate_new(&p, c);
            x->is_unspoken = true;
            found_nobody(&x->preface, &c->remote, c->filter_state);
        }
        return;
    }
    gate_new(&p, c);
    struct buf out;
    buf_init(&out);
    buf_append_sv(&out, cfg->node->preface);
    conn_write(c, &out, false);
    buf_fini(&out);
    stats_inc(p.stats, EXCHANGE_metadata_added);
}

extern const struct network_filter_type istio_metadata_exchange_network_filter;
const struct network_filter_type istio_metadata_exchange_network_filter = {
    .name = "istio.metadata_exchange",
    .type_url = "envoy.tcp.metadataexchange.config.MetadataExchange",
    .instance_size = sizeof(struct exchange),
    .compile = exchange_compile,
    .on_data = exchange_on_data,
    .on_write = exchange_on_write,
    .on_upstream_ready = exchange_on_upstream_ready,
};
