/* TcpProxy → struct tcp_proxy_config. Threads: the config thread. */
#include "protos/gen/tcp_proxy.pb-c.h"
#include "proxy/request/tcp_proxy.h"
#include "proxy/request/tcp_tunnel.h"
#include "proxy/route/route_metadata.h"

#define IDLE_TIMEOUT_MS 3600000u

static void cluster(struct compile_ctx *ctx, const char *name, uint32_t weight,
                    struct tcp_cluster *out) {
    out->name = arena_sv(ctx->arena, sv_cstr(name));
    out->slot = compile_cluster_ref(ctx, out->name, false);
    out->weight = weight;
}

static void clusters(struct compile_ctx *ctx, const TcpProxy__TcpProxy *m,
                     struct tcp_proxy_config *c) {
    const struct metadata_match *base = route_metadata_match(ctx, m->metadata_match, NULL);
    c->named.metadata_match = base;
    if (m->cluster_specifier_case == TCP_PROXY__TCP_PROXY__CLUSTER_SPECIFIER_CLUSTER) {
        struct tcp_cluster *one = arena_new(ctx->arena, struct tcp_cluster);
        cluster(ctx, m->cluster, 1, one);
        one->metadata_match = base;
        c->clusters = one;
        c->clusters_n = 1;
        c->weight_total = 1;
        return;
    }
    if (m->cluster_specifier_case != TCP_PROXY__TCP_PROXY__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS) {
        diag_error(ctx->diag, "cluster_specifier: value is required");
        return;
    }
    const TcpProxy__TcpProxy__WeightedCluster *w = m->weighted_clusters;
    struct tcp_cluster *v = arena_new_array(ctx->arena, struct tcp_cluster, w->n_clusters);
    for (size_t i = 0; i < w->n_clusters; i++) {
        cluster(ctx, w->clusters[i]->name, w->clusters[i]->weight, &v[i]);
        v[i].metadata_match = route_metadata_match(ctx, w->clusters[i]->metadata_match, base);
        c->weight_total += v[i].weight;
    }
    c->clusters = v;
    c->clusters_n = (unsigned)w->n_clusters;
}

static void hashing(struct compile_ctx *ctx, const TcpProxy__TcpProxy *m,
                    struct tcp_proxy_config *c) {
    for (size_t i = 0; i < m->n_hash_policy; i++) {
        if (m->hash_policy[i]->policy_specifier_case ==
            TYPE__HASH_POLICY__POLICY_SPECIFIER_SOURCE_IP) {
            c->hash_source_ip = true;
        } else {
            DIAG_FIELD(ctx->diag, "hash_policy[%zu]", i);
            diag_error(ctx->diag, "only source_ip is supported");
        }
    }
}

static void refuse_unsupported(struct compile_ctx *ctx, const TcpProxy__TcpProxy *m) {
    const struct compile_field refused[] = {
        {m->on_demand != NULL, "on_demand"},
        {m->upstream_connect_mode != 0, "upstream_connect_mode"},
    };
    compile_refuse_fields(ctx, refused, ARRAY_LEN(refused));
    const struct compile_field unhonoured[] = {
        {m->downstream_idle_timeout != NULL, "downstream_idle_timeout"},
        {m->upstream_idle_timeout != NULL, "upstream_idle_timeout"},
        {m->check_drain_close != NULL, "check_drain_close"},
        {m->max_early_data_bytes != NULL, "max_early_data_bytes"},
        {m->max_downstream_connection_duration_jitter_percentage != NULL,
         "max_downstream_connection_duration_jitter_percentage"},
    };
    compile_unhonoured_fields(ctx, unhonoured, ARRAY_LEN(unhonoured));
    if (m->backoff_options) {
        compile_unhonoured(ctx, "backoff_options");
    }
}

/* Of the fields that access_log_options replaces, none may stand beside it. */
static void access_log_options(struct compile_ctx *ctx, const TcpProxy__TcpProxy *m,
                               struct tcp_proxy_config *c) {
    const TcpProxy__TcpProxy__TcpAccessLogOptions *o = m->access_log_options;
    if (o && (m->flush_access_log_on_connected || m->access_log_flush_interval)) {
        diag_error(ctx->diag, "only one of %s and access_log_options may be set",
                   m->flush_access_log_on_connected ? "flush_access_log_on_connected"
                                                    : "access_log_flush_interval");
        return;
    }
    c->log_start = o && o->flush_access_log_on_start;
    c->log_connected = o ? o->flush_access_log_on_connected : m->flush_access_log_on_connected;
    compile_duration_ms(ctx, o ? o->access_log_flush_interval : m->access_log_flush_interval, 0,
                        &c->access_log_flush_interval_ms);
}

void *tcp_proxy_compile(struct compile_ctx *ctx, const void *msg) {
    const TcpProxy__TcpProxy *m = msg;
    if (!m) {
        diag_error(ctx->diag, "typed_config: value is required");
        return NULL;
    }
    struct tcp_proxy_config *c = arena_new(ctx->arena, struct tcp_proxy_config);
    sv prefix = arena_printf(ctx->arena, "tcp.%s.", m->stat_prefix);
    c->stats = stats_scope_get(ctx->stats, &tcp_stats_group, prefix);
    arena_on_fini(ctx->arena, (void (*)(void *))stats_scope_unref, c->stats);
    refuse_unsupported(ctx, m);
    clusters(ctx, m, c);
    hashing(ctx, m, c);
    compile_duration_ms(ctx, m->idle_timeout, IDLE_TIMEOUT_MS, &c->idle_timeout_ms);
    compile_duration_ms(ctx, m->max_downstream_connection_duration, 0, &c->max_duration_ms);
    c->max_connect_attempts = m->max_connect_attempts ? m->max_connect_attempts->value : 1;
    c->tunnel = m->tunneling_config ? tcp_tunnel_compile(ctx, m->tunneling_config) : NULL;
    c->tlvs = tcp_tlvs_compile(ctx, m);
    c->access_logs = access_logs_compile(ctx, (const void *const *)m->access_log, m->n_access_log);
    access_log_options(ctx, m, c);
    return c;
}
