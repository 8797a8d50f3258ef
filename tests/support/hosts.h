/* A cluster's config and host sets for tests, from short tables. */
#ifndef SLUICE_TESTS_SUPPORT_HOSTS_H
#define SLUICE_TESTS_SUPPORT_HOSTS_H

#include "proxy/upstream/host_set.h"
#include "proxy/upstream/lb.h"
#include "tests/support/fake_compile.h"
#include "tests/support/unit.h"

struct fixture_cluster {
    struct stats_store *store;
    struct arena arena;
    struct diag diag;
    struct compile_ctx ctx;
    struct cluster_config cfg;
    struct breaker_use use[PRIORITIES];
    struct breaker breakers[PRIORITIES];
};

static inline void fixture_init(struct fixture_cluster *f, const struct lb_policy_type *lb) {
    memset(f, 0, sizeof(*f));
    f->store = stats_store_new(3);
    arena_init(&f->arena, 0);
    diag_init(&f->diag);
    f->ctx = (struct compile_ctx){.arena = &f->arena, .diag = &f->diag, .stats = f->store};
    f->cfg = (struct cluster_config){.name = SV("c"),
                                     .observability_name = SV("c"),
                                     .healthy_panic_pct = 50,
                                     .connect_timeout_ms = 1000,
                                     .buffer_limit_bytes = 1 << 20,
                                     .lb_type = lb,
                                     .bind = &cluster_no_bind,
                                     .use = f->use,
                                     .breakers = f->breakers,
                                     .override_host_status = 1 | 2 | 32};
    for (unsigned i = 0; i < PRIORITIES; i++) {
        f->breakers[i] = (struct breaker){.max_connections = 1024,
                                          .max_pending = 1024,
                                          .max_requests = 1024,
                                          .max_retries = 3,
                                          .max_pools = UINT32_MAX,
                                          .max_connections_per_host = UINT32_MAX};
    }
    f->cfg.stats = stats_scope_get(f->store, &cluster_stats_group, SV("cluster.c."));
    f->cfg.lb_config = lb && lb->compile ? lb->compile(&f->ctx, NULL) : NULL;
}

static inline void fixture_fini(struct fixture_cluster *f) {
    stats_scope_unref(f->cfg.stats);
    diag_fini(&f->diag);
    arena_fini(&f->arena);
    stats_store_free(f->store);
}

static inline uint64_t fixture_stat(const struct fixture_cluster *f, unsigned i) {
    return stats_scope_value(f->cfg.stats, i);
}

struct fixture_host {
    const char *address; /* NULL ends the table */
    unsigned priority;
    const char *zone;
    uint32_t zone_weight, weight; /* weight 0: 1 */
    uint32_t flags;               /* HOST_FLAG()s that EDS gives */
    const char *hostname;
};

static inline void fixture_add_hosts(struct host_set_builder *b, const struct fixture_host *v) {
    for (; v->address; v++) {
        struct locality id = {.zone = sv_cstr(v->zone ? v->zone : "")};
        struct host_spec spec = {.hostname = sv_cstr(v->hostname ? v->hostname : "")};
        assert_true(addr_parse_ip_port(sv_cstr(v->address), &spec.addr));
        unsigned l = host_set_builder_locality(b, v->priority, &id, v->zone_weight);
        host_set_builder_add(b, l, &spec, v->weight, UINT16_MAX, v->flags);
    }
}

static inline struct host_set_builder *fixture_builder(struct fixture_cluster *f,
                                                       const struct fixture_host *v,
                                                       const struct host_set *previous,
                                                       uint64_t now_us) {
    struct host_set_builder *b = host_set_builder_new(&f->cfg, previous, now_us);
    fixture_add_hosts(b, v);
    return b;
}

static inline struct host_set *fixture_hosts(struct fixture_cluster *f,
                                             const struct fixture_host *v,
                                             const struct host_set *previous) {
    return host_set_builder_finish(fixture_builder(f, v, previous, 1), NULL);
}

#endif
