/* Hosts: making them, their health as text, host sets' lookups and end.
 * Threads: any; a host's immutable part is written before it is shared. Spec: endpoint.v3.Endpoint,
 * Envoy's Host.
 * Not here: which hosts a cluster has (host_set.c), who sets the flags (config, outlier.c,
 * health_check.c). */
#include "proxy/upstream/host.h"

#include "proxy/base/buf.h"
#include "proxy/base/intern.h"
#include "proxy/observe/metadata.h"
#include "proxy/upstream/dns_cache.h"
#include "proxy/upstream/lb_subset.h"

#define EXTRA_ARENA_BYTES 128

static const struct {
    uint32_t bit;
    sv text;
} flag_names[] = {
#define X(name, text) {HOST_FLAG(name), SV_INIT("/" text)},
    HOST_HEALTH_FLAGS(X)
#undef X
};

void host_flags_write(uint32_t flags, struct buf *out) {
    if (!(flags & ~(HOST_FLAG_EDS_HEALTHY | HOST_FLAG_EDS_TIMEOUT))) {
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
    case 1:                  /* HEALTHY */
        return HOST_FLAG_EDS_HEALTHY;
    case 2: /* UNHEALTHY */
        return HOST_FLAG(FAILED_EDS_HEALTH);
    case 4: /* TIMEOUT */
        return HOST_FLAG(FAILED_EDS_HEALTH) | HOST_FLAG_EDS_TIMEOUT;
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

/* ---- localities: many hosts, few of these ---- */

struct shared_locality {
    struct interned interned; /* by the three strings, a NUL between them: the text behind */
    struct locality id;
    char text_[];
};
static struct intern_table localities = INTERN_TABLE_INIT;

static char *put(char *at, sv s, sv *out) {
    if (s.n) {
        memcpy(at, s.p, s.n);
    }
    at[s.n] = '\0';
    *out = sv_from(at, s.n);
    return at + s.n + 1;
}

const struct locality *locality_ref(const struct locality *l) {
    size_t n = l->region.n + l->zone.n + l->sub_zone.n + 3;
    struct shared_locality *s =
        (struct shared_locality *)xcalloc(1, sizeof(struct shared_locality) + n);
    char *at = put(s->text_, l->region, &s->id.region);
    put(put(at, l->zone, &s->id.zone), l->sub_zone, &s->id.sub_zone);
    s->interned.key = sv_from(s->text_, n);
    struct interned *i = intern_add(&localities, &s->interned);
    if (i != &s->interned) {
        xfree(s);
    }
    return &CONTAINER_OF(i, struct shared_locality, interned)->id;
}

void locality_unref(const struct locality *l) {
    struct shared_locality *s =
        CONTAINER_OF((struct locality *)(uintptr_t)l, struct shared_locality, id);
    if (intern_release(&localities, &s->interned)) {
        xfree(s);
    }
}

/* ---- a host ---- */

static const struct host_extra no_extra = {.additional = NULL};

static void free_extra(const struct host_extra *const_x) {
    if (const_x != &no_extra) {
        struct host_extra *x = (struct host_extra *)(uintptr_t)const_x;
        if (x->use) {
            shared_unref(&x->use->shared);
        }
        arena_fini(&x->arena);
        xfree(x);
    }
}

static void host_free(struct shared *s) {
    struct host *h = CONTAINER_OF(s, struct host, shared);
    locality_unref(h->locality);
    kv_metadata_unref(h->metadata);
    free_extra(h->extra);
    xfree(h);
}

static bool has_extra(const struct host_spec *spec) {
    return spec->additional_n || spec->health_check_hostname.n || spec->health_check_addr.family ||
           spec->hash_key.n || spec->proxy_tlvs.n || spec->use;
}

static const struct host_extra *make_extra(const struct host_spec *spec) {
    struct host_extra *x = xnew(struct host_extra);
    struct arena *a = &x->arena;
    arena_init(a, EXTRA_ARENA_BYTES);
    struct addr *more = arena_new_array(a, struct addr, spec->additional_n);
    for (unsigned i = 0; i < spec->additional_n; i++) {
        more[i] = addr_dup(&spec->additional[i], a);
    }
    x->additional = more;
    x->additional_n = spec->additional_n;
    x->health_check_hostname = arena_sv(a, spec->health_check_hostname);
    x->health_check_addr = addr_dup(&spec->health_check_addr, a);
    x->hash_key = arena_sv(a, spec->hash_key);
    x->proxy_tlvs = arena_sv(a, spec->proxy_tlvs);
    x->use = spec->use ? shared_ref(spec->use) : NULL;
    arena_trim(a);
    return x;
}

struct host *host_new(const struct host_spec *spec, uint64_t now_us) {
    static uint64_t ids; /* atomic */
    char text[ADDR_STR_MAX];
    size_t text_n = addr_str(&spec->addr, text);
    sv path = spec->addr.path ? sv_cstr(spec->addr.path) : SV_NULL;
    struct host *h = (struct host *)xcalloc(1, sizeof(*h) + text_n + spec->hostname.n + path.n + 3);
    shared_init(&h->shared, host_free);
    h->addr = spec->addr;
    char *at = put(h->text_, sv_from(text, text_n), &h->address_text);
    at = put(at, spec->hostname, &h->hostname);
    if (spec->addr.path) {
        put(at, path, &path);
        h->addr.path = path.p;
    }
    h->locality = locality_ref(&spec->locality);
    h->health_check_disabled = spec->health_check_disabled;
    h->is_canary = spec->is_canary;
    h->metadata = kv_metadata_intern(spec->metadata);
    h->extra = has_extra(spec) ? make_extra(spec) : &no_extra;
    h->id = __atomic_add_fetch(&ids, 1, __ATOMIC_RELAXED);
    h->healthy_since_us = now_us;
    return h;
}

static bool same_extra(const struct host_extra *x, const struct host_spec *spec) {
    if (x->additional_n != spec->additional_n) {
        return false;
    }
    for (unsigned i = 0; i < x->additional_n; i++) {
        if (!addr_eq(&x->additional[i], &spec->additional[i])) {
            return false;
        }
    }
    return x->use == spec->use && sv_eq(x->hash_key, spec->hash_key) &&
           sv_eq(x->proxy_tlvs, spec->proxy_tlvs) &&
           sv_eq(x->health_check_hostname, spec->health_check_hostname) &&
           addr_eq(&x->health_check_addr, &spec->health_check_addr);
}

bool host_is(const struct host *h, const struct host_spec *spec) {
    return addr_eq(&h->addr, &spec->addr) && sv_eq(h->hostname, spec->hostname) &&
           locality_cmp(h->locality, &spec->locality) == 0 &&
           h->health_check_disabled == spec->health_check_disabled &&
           h->is_canary == spec->is_canary && h->metadata == spec->metadata &&
           same_extra(h->extra, spec);
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
    if (!s->index || s->is_by_name) {
        return scan(s, a, s->entries);
    }
    return probe(s, a, (uint32_t)addr_hash(a, true) & s->index_mask);
}

const struct host_entry *host_set_find_next(const struct host_set *s, const struct host_entry *e) {
    const struct addr *a = &e->host->addr;
    if (!s->index || s->is_by_name) {
        return scan(s, a, e + 1);
    }
    uint32_t i = (uint32_t)addr_hash(a, true) & s->index_mask;
    while (s->index[i] != (uint32_t)(e - s->entries) + 1) {
        i = (i + 1) & s->index_mask;
    }
    return probe(s, a, (i + 1) & s->index_mask);
}

const struct host_entry *host_set_find_name(const struct host_set *s, sv hostname) {
    ASSERT(s->is_by_name);
    for (uint32_t i = (uint32_t)sv_hash(hostname); s->index; i++) {
        uint32_t at = s->index[i & s->index_mask];
        if (!at) {
            break;
        }
        if (sv_eq(s->entries[at - 1].host->hostname, hostname)) {
            return &s->entries[at - 1];
        }
    }
    return NULL;
}

bool host_set_has(const struct host_set *s, const struct host *h) {
    if (s->is_by_name) {
        const struct host_entry *named = host_set_find_name(s, h->hostname);
        return named && named->host == h;
    }
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
