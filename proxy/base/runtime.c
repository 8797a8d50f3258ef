/* The published map and its readers. Each thread keeps a reference to the map it read last and
 * looks at one counter to see whether there is a newer one; only then it takes the mutex to swap.
 * An old map goes when its last reader has moved on.
 * Threads: see runtime.h. Not here: files, admin requests, RTDS. */
#include "proxy/base/runtime.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>

#include "proxy/base/arena.h"
#include "proxy/base/json.h"
#include "proxy/base/map.h"
#include "proxy/base/shared.h"
#include "proxy/base/vec.h"

struct value {
    sv key, text;
    double number;
    uint64_t u64;
    uint32_t numerator, denominator; /* denominator 0: not a fraction */
    bool has_number, has_u64, has_bool, b;
};
struct runtime_layer {
    char *name;
    struct map values; /* struct value, one heap block each */
};
struct entry {
    const struct value *final;
    sv *layer_values; /* [layers]; p NULL: not set there */
    struct value v;
};
struct snapshot {
    struct shared shared;
    struct arena arena;
    struct map entries;
    struct entry **sorted;
    size_t n;
    sv *layers;
    unsigned layers_n;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct snapshot *current; /* guarded by lock */
static uint64_t version;         /* shared, atomic: changes with `current` */
static pthread_key_t thread_end;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static __thread struct {
    struct snapshot *map;
    uint64_t version;
    bool registered;
} mine;

/* --- layers --- */

static void parse_fraction(sv text, struct value *v) {
    sv at = text;
    uint64_t n = 0;
    size_t num = sv_find_sv(at, SV("\"numerator\""));
    if (!text.n || text.p[0] != '{' || num == SIZE_MAX) {
        return;
    }
    at = sv_skip(at, num + 11);
    at = sv_trim(at);
    if (!sv_eat(&at, SV(":"))) {
        return;
    }
    at = sv_trim(at);
    if (!sv_eat_u64(&at, 10, &n) || n > UINT32_MAX) {
        return;
    }
    v->numerator = (uint32_t)n;
    v->denominator = 100;
    if (sv_contains(text, SV("TEN_THOUSAND"))) {
        v->denominator = 10000;
    } else if (sv_contains(text, SV("MILLION"))) {
        v->denominator = 1000000;
    }
}

static void parse(struct value *v) {
    sv t = sv_trim(v->text);
    double d;
    if (sv_eq_nocase(t, SV("true")) || sv_eq_nocase(t, SV("false"))) {
        v->has_bool = true;
        v->b = t.n == 4;
    } else if (sv_to_double(t, &d) && isfinite(d)) {
        v->has_number = true;
        v->number = d;
        v->has_u64 = sv_to_u64(t, &v->u64);
        if (!v->has_u64 && d >= 0 && d == floor(d) && d < 18446744073709551616.0) { /* 1e3 */
            v->has_u64 = true;
            v->u64 = (uint64_t)d;
        }
    } else {
        parse_fraction(t, v);
    }
}

struct runtime_layer *runtime_layer_new(sv name) {
    struct runtime_layer *l = xnew(struct runtime_layer);
    l->name = sv_dup(name);
    map_init(&l->values);
    return l;
}

void runtime_layer_clear(struct runtime_layer *l) {
    size_t it = 0;
    struct map_slot *s;
    while ((s = map_next(&l->values, &it))) {
        xfree(s->value);
    }
    map_clear(&l->values);
}

void runtime_layer_free(struct runtime_layer *l) {
    if (l) {
        runtime_layer_clear(l);
        map_fini(&l->values);
        xfree(l->name);
        xfree(l);
    }
}

sv runtime_layer_name(const struct runtime_layer *l) { return sv_cstr(l->name); }
size_t runtime_layer_count(const struct runtime_layer *l) { return map_count(&l->values); }

bool runtime_layer_set(struct runtime_layer *l, sv key, sv text) {
    if (map_count(&l->values) >= RUNTIME_KEYS_MAX && !map_get(&l->values, key)) {
        return false;
    }
    struct value *v = xcalloc(1, sizeof(*v) + key.n + text.n);
    char *bytes = (char *)(v + 1);
    if (key.n) {
        memcpy(bytes, key.p, key.n);
    }
    if (text.n) {
        memcpy(bytes + key.n, text.p, text.n);
    }
    v->key = sv_from(bytes, key.n);
    v->text = sv_from(bytes + key.n, text.n);
    parse(v);
    xfree(map_put(&l->values, v->key, v));
    return true;
}

bool runtime_layer_remove(struct runtime_layer *l, sv key) {
    void *old = map_remove(&l->values, key);
    xfree(old);
    return old != NULL;
}

/* --- publishing --- */

static void snapshot_free(struct shared *s) {
    struct snapshot *m = CONTAINER_OF(s, struct snapshot, shared);
    map_fini(&m->entries);
    xfree(m->sorted);
    arena_fini(&m->arena);
    xfree(m);
}

static void add_value(struct snapshot *m, unsigned layer, const struct value *v) {
    struct entry *e = map_get(&m->entries, v->key);
    if (!e) {
        e = arena_new(&m->arena, struct entry);
        e->layer_values = arena_new_array(&m->arena, sv, m->layers_n);
        e->v.key = arena_sv(&m->arena, v->key);
        map_put(&m->entries, e->v.key, e);
    }
    sv key = e->v.key;
    e->v = *v;
    e->v.key = key;
    e->v.text = arena_sv(&m->arena, v->text);
    e->final = &e->v;
    e->layer_values[layer] = e->v.text;
}

static int by_key(const void *a, const void *b) {
    return sv_cmp((*(struct entry *const *)a)->v.key, (*(struct entry *const *)b)->v.key);
}

static struct snapshot *snapshot_new(struct runtime_layer *const *layers, unsigned n) {
    struct snapshot *m = xnew(struct snapshot);
    shared_init(&m->shared, snapshot_free);
    arena_init(&m->arena, 0);
    map_init(&m->entries);
    m->layers_n = n;
    m->layers = arena_new_array(&m->arena, sv, n ? n : 1);
    for (unsigned i = 0; i < n; i++) {
        m->layers[i] = arena_sv(&m->arena, sv_cstr(layers[i]->name));
        size_t it = 0;
        struct map_slot *s;
        while ((s = map_next(&layers[i]->values, &it))) {
            add_value(m, i, s->value);
        }
    }
    m->sorted = xnew_array(struct entry *, map_count(&m->entries) + 1);
    size_t it = 0;
    struct map_slot *s;
    while ((s = map_next(&m->entries, &it))) {
        m->sorted[m->n++] = s->value;
    }
    qsort(m->sorted, m->n, sizeof(m->sorted[0]), by_key);
    return m;
}

void runtime_publish(struct runtime_layer *const *layers, unsigned n) {
    struct snapshot *m = snapshot_new(layers, n);
    pthread_mutex_lock(&lock);
    struct snapshot *old = current;
    current = m;
    __atomic_store_n(&version, version + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    if (old) {
        shared_unref(&old->shared);
    }
}

/* --- reading --- */

void runtime_thread_release(void) {
    if (mine.map) {
        shared_unref(&mine.map->shared);
    }
    mine.map = NULL;
    mine.version = 0;
}

static void on_thread_end(void *unused) {
    (void)unused;
    runtime_thread_release();
}
static void make_key(void) { pthread_key_create(&thread_end, on_thread_end); }

static __attribute__((noinline)) void refresh(void) {
    pthread_once(&once, make_key);
    if (!mine.registered) {
        pthread_setspecific(thread_end, &mine);
        mine.registered = true;
    }
    struct snapshot *old = mine.map;
    pthread_mutex_lock(&lock);
    mine.map = current ? shared_ref(current) : NULL;
    mine.version = __atomic_load_n(&version, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&lock);
    if (old) {
        shared_unref(&old->shared);
    }
}

/* The map as of now, valid until this thread's next call; NULL: nothing was published. */
static const struct snapshot *snapshot(void) {
    if (UNLIKELY(mine.version != __atomic_load_n(&version, __ATOMIC_ACQUIRE))) {
        refresh();
    }
    return mine.map;
}

static const struct value *find(sv key) {
    const struct snapshot *m = snapshot();
    const struct entry *e = m && key.n ? map_get(&m->entries, key) : NULL;
    return e ? e->final : NULL;
}

uint64_t runtime_u64(sv key, uint64_t dflt) {
    const struct value *v = find(key);
    return v && v->has_u64 ? v->u64 : dflt;
}

double runtime_double(sv key, double dflt) {
    const struct value *v = find(key);
    return v && v->has_number ? v->number : dflt;
}

bool runtime_bool(sv key, bool dflt) {
    const struct value *v = find(key);
    if (v && v->has_number) {
        return v->number != 0;
    }
    return v && v->has_bool ? v->b : dflt;
}

static bool fraction_of(const struct value *v, uint32_t *numerator, uint32_t *denominator) {
    if (v && v->denominator) {
        *numerator = v->numerator;
        *denominator = v->denominator;
        return true;
    }
    if (v && v->has_u64) {
        *numerator = v->u64 < 100 ? (uint32_t)v->u64 : 100;
        *denominator = 100;
        return true;
    }
    return false;
}

bool runtime_fraction(sv key, uint32_t numerator, uint32_t denominator, uint64_t random) {
    fraction_of(find(key), &numerator, &denominator);
    return denominator && random % denominator < numerator;
}

bool runtime_has_prefix(sv prefix) {
    const struct snapshot *m = snapshot();
    size_t lo = 0, hi = m ? m->n : 0;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (sv_cmp(m->sorted[mid]->v.key, prefix) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return m && lo < m->n && sv_starts(m->sorted[lo]->v.key, prefix);
}

bool runtime_text(sv key, char *out, size_t out_n) {
    const struct value *v = find(key);
    if (v && out_n) {
        size_t n = v->text.n < out_n - 1 ? v->text.n : out_n - 1;
        memcpy(out, v->text.p, n);
        out[n] = 0;
    }
    return v != NULL;
}

size_t runtime_keys(void) {
    const struct snapshot *m = snapshot();
    return m ? m->n : 0;
}
unsigned runtime_layers(void) {
    const struct snapshot *m = snapshot();
    return m ? m->layers_n : 0;
}

void runtime_write_json(struct buf *out) {
    const struct snapshot *m = snapshot();
    struct json_writer w;
    json_begin(&w, out, 1);
    json_obj(&w);
    if (m && m->n) {
        json_key(&w, SV("entries"));
        json_obj(&w);
        for (size_t i = 0; i < m->n; i++) {
            const struct entry *e = m->sorted[i];
            json_key(&w, e->v.key);
            json_obj(&w);
            json_key(&w, SV("final_value"));
            json_str(&w, e->final->text);
            json_key(&w, SV("layer_values"));
            json_arr(&w);
            for (unsigned l = 0; l < m->layers_n; l++) {
                json_str(&w, e->layer_values[l]);
            }
            json_end(&w);
            json_end(&w);
        }
        json_end(&w);
    }
    json_key(&w, SV("layers"));
    json_arr(&w);
    for (unsigned l = 0; m && l < m->layers_n; l++) {
        json_str(&w, m->layers[l]);
    }
    json_end(&w);
    json_end(&w);
}
