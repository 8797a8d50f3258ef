/* Criteria over a host's "envoy.lb" metadata (or another namespace): subset balancing, transport
 * socket matches, retry predicates. Compiled by route/route_metadata.c and config/; immutable.
 * Spec: Envoy's MetadataMatchCriteria. */
#ifndef SLUICE_API_METADATA_MATCH_H
#define SLUICE_API_METADATA_MATCH_H

#include "proxy/observe/metadata.h"

struct metadata_criterion {
    sv key;
    struct kv_value value;
    uint64_t hash; /* kv_hash(&value) */
};
struct metadata_match {
    const struct metadata_criterion *v; /* ascending by key */
    unsigned n;
};

/* Does the struct `fields` (may be NULL) have every criterion's value? A list there matches when
 * one of its items does. */
static inline bool metadata_match_holds(const struct metadata_match *m,
                                        const struct kv_value *fields) {
    for (unsigned i = 0; i < m->n; i++) {
        const struct kv_value *have = fields ? kv_get(fields, m->v[i].key) : NULL;
        bool found = have && kv_eq(have, &m->v[i].value);
        for (uint32_t k = 0; have && !found && have->kind == KV_LIST && k < have->list.n; k++) {
            found = kv_eq(&have->list.v[k], &m->v[i].value);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

#endif
