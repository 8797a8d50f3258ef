/* Slot tables: see names.h. A release that reaches zero only marks; names_sweep() on the config
 * thread reclaims, so that a name asked for again meanwhile keeps its slot.
 * Threads: entries' refs are atomic; everything else is the config thread's. */
#include "proxy/config/names.h"

#include "proxy/base/map.h"
#include "proxy/base/mem.h"
#include "proxy/base/vec.h"

struct name_entry {
    char *name; /* NULL: anonymous */
    uint32_t n;
    slot_t slot;
    uint32_t refs; /* atomic */
    bool is_used;
    bool is_listed;          /* atomic: in names.zeroes */
    struct name_entry *next; /* there */
};
struct names {
    struct map by_name;             /* → entry */
    VEC(struct name_entry *) slots; /* entries do not move */
    VEC(slot_t) free_slots;
    struct name_entry *zeroes; /* atomic: whose refs reached zero since the last sweep */
};

struct names *names_new(void) {
    struct names *n = xnew(struct names);
    map_init(&n->by_name);
    return n;
}

void names_free(struct names *n) {
    if (!n) {
        return;
    }
    for (size_t i = 0; i < n->slots.n; i++) {
        xfree(n->slots.p[i]->name);
        xfree(n->slots.p[i]);
    }
    vec_fini(&n->slots);
    vec_fini(&n->free_slots);
    map_fini(&n->by_name);
    xfree(n);
}

static struct name_entry *new_entry(struct names *n, slot_t *slot) {
    if (n->free_slots.n) {
        *slot = vec_pop(&n->free_slots);
        return n->slots.p[*slot];
    }
    *slot = (slot_t)n->slots.n;
    struct name_entry *e = xnew(struct name_entry);
    e->slot = *slot;
    *vec_push(&n->slots) = e;
    return e;
}

/* The map's value carries slot + 1, so that a find needs no walk. */
static void *value_of(slot_t s) { return (void *)((uintptr_t)s + 1); }
static slot_t slot_in(const void *value) { return (slot_t)((uintptr_t)value - 1); }

slot_t names_count(const struct names *n) { return (slot_t)n->slots.n; }

slot_t names_acquire(struct names *n, sv name) {
    void *v = name.n ? map_get(&n->by_name, name) : NULL;
    if (v) {
        __atomic_add_fetch(&n->slots.p[slot_in(v)]->refs, 1, __ATOMIC_RELAXED);
        return slot_in(v);
    }
    slot_t slot;
    struct name_entry *e = new_entry(n, &slot);
    e->name = name.n ? sv_dup(name) : NULL;
    e->n = (uint32_t)name.n;
    e->refs = 1;
    e->is_used = true;
    if (e->name) {
        map_put(&n->by_name, sv_from(e->name, e->n), value_of(slot));
    }
    return slot;
}

slot_t names_find(const struct names *n, sv name) {
    void *v = map_get(&n->by_name, name);
    return v ? slot_in(v) : SLOT_NONE;
}

void names_ref(struct names *n, slot_t s) {
    __atomic_add_fetch(&n->slots.p[s]->refs, 1, __ATOMIC_RELAXED);
}

/* Any thread. Who finds the entry listed already may rely on the sweep, which unlists it before it
 * looks at its refs (both in one order for all threads). */
static void entry_release(struct names *n, struct name_entry *e) {
    if (__atomic_sub_fetch(&e->refs, 1, __ATOMIC_SEQ_CST) != 0 ||
        __atomic_exchange_n(&e->is_listed, true, __ATOMIC_SEQ_CST)) {
        return;
    }
    struct name_entry *head = __atomic_load_n(&n->zeroes, __ATOMIC_RELAXED);
    do {
        e->next = head;
    } while (!__atomic_compare_exchange_n(&n->zeroes, &head, e, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
}

void names_release(struct names *n, slot_t s) { entry_release(n, n->slots.p[s]); }

/* Runs on any thread: holds the entry itself, as the slots' array may be growing meanwhile. */
struct release {
    struct names *n;
    struct name_entry *e;
};

static void on_release(void *arg) {
    struct release *r = arg;
    entry_release(r->n, r->e);
}

void names_release_with(struct names *n, slot_t s, struct arena *a) {
    struct release *r = arena_new(a, struct release);
    *r = (struct release){n, n->slots.p[s]};
    arena_on_fini(a, on_release, r);
}

sv names_of(const struct names *n, slot_t s) {
    const struct name_entry *e = n->slots.p[s];
    return sv_from(e->name, e->n);
}

uint32_t names_refs(const struct names *n, slot_t s) {
    return __atomic_load_n(&n->slots.p[s]->refs, __ATOMIC_RELAXED);
}

void names_sweep(struct names *n, void (*fn)(void *arg, slot_t s), void *arg) {
    struct name_entry *e = __atomic_exchange_n(&n->zeroes, NULL, __ATOMIC_ACQUIRE);
    for (struct name_entry *next; e; e = next) {
        next = e->next; /* another thread may list it again at once */
        __atomic_store_n(&e->is_listed, false, __ATOMIC_SEQ_CST);
        if (!e->is_used || __atomic_load_n(&e->refs, __ATOMIC_SEQ_CST) != 0) {
            continue;
        }
        fn(arg, e->slot);
        if (e->name) {
            map_remove(&n->by_name, sv_from(e->name, e->n));
            xfree(e->name);
            e->name = NULL;
        }
        e->is_used = false;
        *vec_push(&n->free_slots) = e->slot;
    }
}
