/* CEL values: equality and order across types, maps, times as text. Threads: any.
 * Spec: CEL language definition, "Values" and "Equality"; heterogeneous numbers compare by
 * value. */
#include <math.h>

#include "proxy/observe/cel_internal.h"

static bool is_number(const struct cel_value *v) {
    return v->kind == CEL_INT || v->kind == CEL_UINT || v->kind == CEL_DOUBLE;
}

static int order_i64(int64_t a, int64_t b) { return (a > b) - (a < b); }
static int order_u64(uint64_t a, uint64_t b) { return (a > b) - (a < b); }

/* Of an integer and a double, exactly: doubles outside of the integer's range decide by their
 * sign. */
static int order_int_double(int64_t i, double d) {
    if (d >= 9223372036854775808.0) {
        return -1;
    }
    if (d < -9223372036854775808.0) {
        return 1;
    }
    int by_whole = order_i64(i, (int64_t)d);
    double rest = d - trunc(d);
    return by_whole ? by_whole : rest > 0 ? -1 : rest < 0;
}
static int order_uint_double(uint64_t u, double d) {
    if (d >= 18446744073709551616.0) {
        return -1;
    }
    if (d < 0) {
        return 1;
    }
    int by_whole = order_u64(u, (uint64_t)d);
    return by_whole ? by_whole : d > trunc(d) ? -1 : 0;
}

static bool compare_numbers(const struct cel_value *a, const struct cel_value *b, int *out) {
    if ((a->kind == CEL_DOUBLE && isnan(a->d)) || (b->kind == CEL_DOUBLE && isnan(b->d))) {
        return false;
    }
    if (a->kind == b->kind) {
        *out = a->kind == CEL_INT    ? order_i64(a->i, b->i)
               : a->kind == CEL_UINT ? order_u64(a->u, b->u)
                                     : (a->d > b->d) - (a->d < b->d);
        return true;
    }
    if (a->kind > b->kind) {
        bool ok = compare_numbers(b, a, out);
        *out = -*out;
        return ok;
    }
    if (b->kind == CEL_DOUBLE) {
        *out = a->kind == CEL_INT ? order_int_double(a->i, b->d) : order_uint_double(a->u, b->d);
    } else {
        *out = a->i < 0 ? -1 : order_u64((uint64_t)a->i, b->u);
    }
    return true;
}

bool cel_compare(const struct cel_value *a, const struct cel_value *b, int *out) {
    *out = 0;
    if (is_number(a) && is_number(b)) {
        return compare_numbers(a, b, out);
    }
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case CEL_BOOL:
        *out = (int)a->b - (int)b->b;
        return true;
    case CEL_STRING:
    case CEL_BYTES:
        *out = sv_cmp(a->s, b->s);
        return true;
    case CEL_DURATION:
    case CEL_TIMESTAMP:
        *out = order_i64(a->i, b->i);
        return true;
    default:
        return false;
    }
}

static bool lists_equal(const struct cel_value *a, const struct cel_value *b) {
    bool same = a->list.n == b->list.n;
    for (size_t i = 0; same && i < a->list.n; i++) {
        same = cel_eq(&a->list.v[i], &b->list.v[i]);
    }
    return same;
}
static bool pairs_equal(const struct cel_value *a, const struct cel_value *b) {
    bool same = a->pairs.n == b->pairs.n;
    for (size_t i = 0; same && i < a->pairs.n; i++) {
        bool found = false;
        for (size_t j = 0; !found && j < b->pairs.n; j++) {
            found = cel_eq(&a->pairs.v[i].key, &b->pairs.v[j].key) &&
                    cel_eq(&a->pairs.v[i].value, &b->pairs.v[j].value);
        }
        same = found;
    }
    return same;
}
static bool maps_equal(const struct cel_value *a, const struct cel_value *b) {
    if (a->map != b->map) {
        return false;
    }
    switch (a->map) {
    case CEL_MAP_PAIRS:
        return pairs_equal(a, b);
    case CEL_MAP_KV:
        return kv_eq(a->kv, b->kv);
    case CEL_MAP_HEADERS:
        return a->headers == b->headers;
    case CEL_MAP_METADATA:
        return a->metadata == b->metadata;
    case CEL_MAP_STATE:
        return a->state == b->state;
    case CEL_MAP_ROOT:
        return a->root == b->root;
    }
    return false;
}

bool cel_eq(const struct cel_value *a, const struct cel_value *b) {
    if (a->kind == b->kind && a->kind == CEL_NULL) {
        return true;
    }
    if (a->kind == b->kind && a->kind == CEL_LIST) {
        return lists_equal(a, b);
    }
    if (a->kind == b->kind && a->kind == CEL_MAP) {
        return maps_equal(a, b);
    }
    int order;
    return cel_compare(a, b, &order) && order == 0;
}

struct cel_value cel_from_kv(const struct kv_value *v, struct arena *a) {
    switch (v->kind) {
    case KV_NULL:
        return (struct cel_value){.kind = CEL_NULL};
    case KV_BOOL:
        return cel_bool(v->b);
    case KV_NUMBER:
        return cel_double(v->number);
    case KV_STRING:
        return cel_string(v->s);
    case KV_STRUCT:
        return (struct cel_value){.kind = CEL_MAP, .map = CEL_MAP_KV, .kv = v};
    case KV_LIST:
        break;
    }
    struct cel_value *items = arena_new_array(a, struct cel_value, v->list.n ? v->list.n : 1);
    for (uint32_t i = 0; i < v->list.n; i++) {
        items[i] = cel_from_kv(&v->list.v[i], a);
    }
    return (struct cel_value){.kind = CEL_LIST, .list = {items, v->list.n}};
}

static struct cel_value header_get(struct cel_run *r, const struct headers *h, sv name) {
    char *lower = arena_cstr(r->arena, name);
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = ascii_tolower(lower[i]);
    }
    sv key = {lower, name.n};
    sv value = headers_joined(h, header_id_of(key), key, r->arena);
    return value.p ? cel_string(value) : cel_error("no such key");
}

struct cel_value cel_map_get(struct cel_run *r, const struct cel_value *map,
                             const struct cel_value *key) {
    if (map->map == CEL_MAP_PAIRS) {
        for (size_t i = 0; i < map->pairs.n; i++) {
            if (cel_eq(&map->pairs.v[i].key, key)) {
                return map->pairs.v[i].value;
            }
        }
        return cel_error("no such key");
    }
    if (key->kind != CEL_STRING) {
        return cel_error("no such key");
    }
    const struct kv_value *kv = NULL;
    switch (map->map) {
    case CEL_MAP_HEADERS:
        return header_get(r, map->headers, key->s);
    case CEL_MAP_ROOT:
        return cel_root_get(r, map->root, key->s);
    case CEL_MAP_STATE: {
        const struct filter_state_object *o = filter_state_get(map->state, key->s);
        return !o         ? cel_error("no such key")
               : o->typed ? cel_from_kv(o->typed, r->arena)
                          : (struct cel_value){.kind = CEL_BYTES, .s = o->text};
    }
    case CEL_MAP_KV:
        kv = kv_get(map->kv, key->s);
        break;
    case CEL_MAP_METADATA:
        kv = kv_metadata_namespace(map->metadata, key->s);
        break;
    case CEL_MAP_PAIRS:
        break;
    }
    return kv ? cel_from_kv(kv, r->arena) : cel_error("no such key");
}

static size_t header_keys(const struct headers *h, struct cel_value *out) {
    size_t n = 0;
    HEADERS_FOREACH (it, h) {
        bool is_new = true;
        for (size_t i = 0; is_new && i < n; i++) {
            is_new = !sv_eq(out[i].s, it->name);
        }
        if (is_new) {
            out[n++] = cel_string(it->name);
        }
    }
    return n;
}

struct cel_value cel_map_keys(struct cel_run *r, const struct cel_value *map) {
    size_t most = 0, n = 0;
    switch (map->map) {
    case CEL_MAP_PAIRS:
        most = map->pairs.n;
        break;
    case CEL_MAP_HEADERS:
        most = map->headers ? map->headers->n : 0;
        break;
    case CEL_MAP_KV:
        most = map->kv->fields.n;
        break;
    case CEL_MAP_METADATA:
        most = map->metadata ? kv_metadata_count(map->metadata) : 0;
        break;
    case CEL_MAP_STATE:
    case CEL_MAP_ROOT:
        return cel_error("its keys cannot be listed");
    }
    struct cel_value *keys = arena_new_array(r->arena, struct cel_value, most ? most : 1);
    if (map->map == CEL_MAP_HEADERS) {
        n = most ? header_keys(map->headers, keys) : 0;
    }
    for (; map->map != CEL_MAP_HEADERS && n < most; n++) {
        const struct kv_value *unused;
        keys[n] = map->map == CEL_MAP_PAIRS ? map->pairs.v[n].key
                  : map->map == CEL_MAP_KV
                      ? cel_string(map->kv->fields.v[n].key)
                      : cel_string(kv_metadata_name_at(map->metadata, (unsigned)n, &unused));
    }
    return (struct cel_value){.kind = CEL_LIST, .list = {keys, n}};
}
