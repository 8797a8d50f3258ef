/* Hosts: making them, their health as text, host sets' lookups and end.
 * Threads: any; a host's immutable part is written before it is shared. Spec: endpoint.v3.Endpoint,
 * Envoy's Host.
 * Not here: which hosts a cluster has (host_set.c), who sets the flags (config, outlier.c,
 * health_check.c). */
#include "proxy/upstream/host.h"

#include "proxy/base/buf.h"
#include "proxy/upstream/lb_subset.h"

static const struct {
    uint32_t bit;
    sv text;
} flag_names[] = {
#define X(name, text) {HOST_FLAG(name), SV_INIT("/" text)},
    HOST_HEALTH_FLAGS(X)
#undef X
};

void host_flags_write(uint32_t flags, struct buf *out) {
    if (!flags) {
        buf_append_static(out, SV("healthy"));
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(flag_names); i++) {
        if (flags & flag_names[i].bit) {
            buf_append_static(out, flag_names[i].text);
        }
    }
}

uint32_t host_flags_of_eds(unsigned health_status) {
    switch (health_status) { /* an open enum */
    case 2:                  /* UNHEALTHY */
    case 4:                  /* TIMEOUT */
        return HOST_FLAG(FAILED_EDS_HEALTH);
    case 3: /* DRAINING */
        return HOST_FLAG(FAILED_EDS_HEALTH) | HOST_FLAG(EDS_STATUS_DRAINING);
    case 5: /* DEGRADED */
        return HOST_FLAG(DEGRADED_EDS_HEALTH);
    default:
        return 0;
    }
}

bool host_flags_change(struct host *h, uint32_t set, uint32_t clear, uint64_t now_us) {
    uint32_t old = host_flags(h), now = (old & ~clear) | set;
    if (now == old) {
        return false;
    }
    if (host_health_of(old) != HOST_HEALTHY && host_health_of(now) == HOST_HEALTHY) {
        __atomic_store_n(&h->healthy_since_us, now_us, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&h->health_flags, now, __ATOMIC_RELAXED);
    return true;
}

int locality_cmp(const struct locality *a, const struct locality *b) {
    int rc = sv_cmp(a->region, b->region);
    if (rc == 0) {
        rc = sv_cmp(a->zone, b->zone);
    }
    return rc ? rc : sv_cmp(a->sub_zone, b->sub_zone);
}

/* ---- a host ---- */

static void host_free(struct shared *s) {
    struct host *h = CONTAINER_OF(s, struct host, shared);
    arena_fini(&h->arena);
    xfree(h);
}

/* A UNIX path must live as long as the host. */
static struct addr own_addr(struct host *h, const struct addr *a) {
    struct addr copy = *a;
    if (a->path) {
        copy.path = arena_cstr(&h->arena, sv_cstr(a->path));
    }
    return copy;
}

static sv own_sv(struct host *h, sv s) { return s.n ? arena_sv(&h->arena, s) : SV_NULL; }

struct host *host_new(const struct host_spec *spec, uint64_t now_us) {
    static uint64_t ids; /* atomic */
    char text[ADDR_STR_MAX];
    size_t text_n = addr_str(&spec->addr, text);
    struct host *h = xcalloc(1, sizeof(*h) + text_n + 1);
    shared_init(&h->shared, host_free);
    arena_init(&h->arena, 256);
    h->addr = own_addr(h, &spec->addr);
    if (spec->additional_n) {
        struct addr *more = arena_new_array(&h->arena, struct addr, spec->additional_n);
        for (unsigned i = 0; i < spec->additional_n; i++) {
            more[i] = own_addr(h, &spec->additional[i]);
        }
        h->additional = more;
        h->additional_n = spec->additional_n;
    }
    memcpy(h->text_, text, text_n);
    h->address_text = sv_from(h->text_, text_n);
    h->hostname = own_sv(h, spec->hostname);
    h->health_check_hostname = own_sv(h, spec->health_check_hostname);
    h->health_check_addr = own_addr(h, &spec->health_check_addr);
    h->health_check_disabled = spec->health_check_disabled;
    h->is_canary = spec->is_canary;
    h->locality =
        (struct locality){own_sv(h, spec->locality.region), own_sv(h, spec->locality.zone),
                          own_sv(h, spec->locality.sub_zone)};
    h->hash_key = own_sv(h, spec->hash_key);
    h->metadata = spec->metadata_copy && spec->metadata
                      ? spec->metadata_copy(spec->metadata, &h->arena)
                      : spec->metadata;
    h->metadata_hash = spec->metadata_hash;
    h->id = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED);
    h->added_us = h->healthy_since_us = now_us;
    return h;
}

static bool same_additional(const struct host *h, const struct host_spec *spec) {
    if (h->additional_n != spec->additional_n) {
        return false;
    }
    for (unsigned i = 0; i < h->additional_n; i++) {
        if (!addr_eq(&h->additional[i], &spec->additional[i])) {
            return false;
        }
    }
    return true;
}

bool host_is(const struct host *h, const struct host_spec *spec) {
    return h->metadata_hash == spec->metadata_hash && addr_eq(&h->addr, &spec->addr) &&
           sv_eq(h->hostname, spec->hostname) && sv_eq(h->hash_key, spec->hash_key) &&
           locality_cmp(&h->locality, &spec->locality) == 0 &&
           h->health_check_disabled == spec->health_check_disabled &&
           h->is_canary == spec->is_canary &&
           sv_eq(h->health_check_hostname, spec->health_check_hostname) &&
           addr_eq(&h->health_check_addr, &spec->health_check_addr) && same_additional(h, spec);
}

/* ---- lookups in a set ---- */

static const struct host_entry *scan(const struct host_set *s, const struct addr *a,
                                     const struct host_entry *from) {
    for (const struct host_entry *e = from, *end = s->entries + s->hosts_n; e < end; e++) {
        if (addr_eq(&e->host->addr, a)) {
            return e;
        }
    }
    return NULL;
}

static const struct host_entry *probe(const struct host_set *s, const struct addr *a,
                                      uint32_t from) {
    for (uint32_t i = from; s->index[i]; i = (i + 1) & s->index_mask) {
        const struct host_entry *e = &s->entries[s->index[i] - 1];
        if (addr_eq(&e->host->addr, a)) {
            return e;
        }
    }
    return NULL;
}

const struct host_entry *host_set_find(const struct host_set *s, const struct addr *a) {
    if (!s->index) {
        return scan(s, a, s->entries);
    }
    return probe(s, a, (uint32_t)addr_hash(a, true) & s->index_mask);
}

const struct host_entry *host_set_find_next(const struct host_set *s, const struct host_entry *e) {
    const struct addr *a = &e->host->addr;
    if (!s->index) {
        return scan(s, a, e + 1);
    }
    uint32_t i = (uint32_t)addr_hash(a, true) & s->index_mask;
    while (s->index[i] != (uint32_t)(e - s->entries) + 1) {
        i = (i + 1) & s->index_mask;
    }
    return probe(s, a, (i + 1) & s->index_mask);
}

bool host_set_has(const struct host_set *s, const struct host *h) {
    for (const struct host_entry *e = host_set_find(s, &h->addr); e; e = host_set_find_next(s, e)) {
        if (e->host == h) {
            return true;
        }
    }
    return false;
}

void host_set_free(struct shared *shared) {
    struct host_set *s = CONTAINER_OF(shared, struct host_set, shared);
    lb_subsets_free(s->subsets);
    if (s->base == s) {
        for (unsigned i = 0; i < s->hosts_n; i++) {
            shared_unref(&s->entries[i].host->shared);
        }
    } else if (s->base) {
        shared_unref(&s->base->shared);
    }
    struct arena a = s->arena; /* the set itself lies in it */
    arena_fini(&a);
}
