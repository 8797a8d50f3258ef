/* A configuration without a store or a process around it: for tests that compile whole resources
 * with the real compilers and every extension. */
#ifndef SLUICE_TESTS_SUPPORT_TEST_CONFIG_H
#define SLUICE_TESTS_SUPPORT_TEST_CONFIG_H

#include "filters/registry.h"
#include "proxy/base/mem.h"
#include "proxy/config/config.h"
#include "proxy/stats/stats.h"
#include "proxy/upstream/dns_cache.h"

struct test_config {
    struct config config;
    bool has_clusters; /* every cluster is known */
};

static inline bool test_config_has_cluster(void *user, sv name) {
    (void)name;
    return ((const struct test_config *)user)->has_clusters;
}

static inline void test_config_init(struct test_config *t, bool has_clusters) {
    t->has_clusters = has_clusters;
    t->config = (struct config){.listeners = names_new(),
                                .routes = names_new(),
                                .scopes = names_new(),
                                .clusters = names_new(),
                                .transports = names_new(),
                                .extensions = names_new(),
                                .stats = stats_store_new(1),
                                .registry = filters_registry(),
                                .node_id = SV("id"),
                                .node_cluster = SV("cluster"),
                                .has_cluster = test_config_has_cluster,
                                .user = t};
    t->config.dns_caches = dns_caches_new(NULL, t->config.stats);
}

static inline void test_config_free_names(struct names *n) {
    for (slot_t s = 0; s < names_count(n); s++) {
        CHECK(names_refs(n, s) == 0);
    }
    names_free(n);
}

/* Every resource must be gone: none may have kept a name. */
static inline void test_config_fini(struct test_config *t) {
    test_config_free_names(t->config.listeners);
    test_config_free_names(t->config.routes);
    test_config_free_names(t->config.scopes);
    test_config_free_names(t->config.clusters);
    test_config_free_names(t->config.transports);
    test_config_free_names(t->config.extensions);
    dns_caches_free(t->config.dns_caches);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&t->config.told, &it))) {
        xfree((void *)(uintptr_t)map_key(slot).p);
    }
    map_fini(&t->config.told);
    map_fini(&t->config.shared);
    arena_fini(&t->config.shared_arena);
    stats_store_free(t->config.stats);
    chunk_cache_trim();
}

#endif
