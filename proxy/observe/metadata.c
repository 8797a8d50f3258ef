/* Metadata trees: sorted fields in arenas.
 * Threads: see metadata.h. Not here: matching (route/metadata_matcher.c), who sets what
 * (filters). */
#include "proxy/observe/metadata.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/base/intern.h"
#include "proxy/base/json.h"

struct kv_metadata {
    struct arena *arena;
    bool is_interned;
    struct kv_value spaces; /* KV_STRUCT by namespace */
};

struct kv_metadata *kv_metadata_new(struct arena *a) {
    struct kv_metadata *m = arena_new(a, struct kv_metadata);
    m->arena = a;
    m->spaces = kv_empty_struct();
    return m;
}

/* --- fields --- */

/* Index of key, or where it belongs. */
static uint32_t locate(const struct kv_struct *s, sv key, bool *found) {
    uint32_t lo = 0, hi = s->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        int c = sv_cmp(s->v[mid].key, key);
        if (c == 0) {
            *found = true;
            return mid;
        }
        if (c < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *found = false;
    return lo;
}

const struct kv_value *kv_get(const struct kv_value *fields, sv key) {
    if (!fields || fields->kind != KV_STRUCT) {
        return NULL;
    }
    bool found;
    uint32_t i = locate(&fields->fields, key, &found);
    return found ? &fields->fields.v[i].value : NULL;
}

/* The slot of key, made (null) when it was not there. */
static struct kv_value *slot(struct kv_struct *s, struct arena *a, sv key) {
    bool found;
    uint32_t i = locate(s, key, &found);
    if (found) {
        return &s->v[i].value;
    }
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? s->cap * 2 : 4;
        struct kv_field *v = arena_new_array(a, struct kv_field, cap);
        if (s->n) {
            memcpy(v, s->v, s->n * sizeof(*v));
        }
        s->v = v;
        s->cap = cap;
    }
    memmove(&s->v[i + 1], &s->v[i], (s->n - i) * sizeof(s->v[0]));
    s->n++;
    s->v[i] = (struct kv_field){.key = arena_sv(a, key)};
    return &s->v[i].value;
}

static struct kv_value copy_value(const struct kv_value *v, struct arena *a, unsigned depth) {
    struct kv_value out = *v;
    if (depth >= KV_DEPTH_MAX) {
        return kv_null();
    }
    if (v->kind == KV_STRING) {
        out.s = arena_sv(a, v->s);
    } else if (v->kind == KV_STRUCT) {
        out.fields.cap = v->fields.n;
        out.fields.v = v->fields.n ? arena_new_array(a, struct kv_field, v->fields.n) : NULL;
        for (uint32_t i = 0; i < v->fields.n; i++) {
            out.fields.v[i].key = arena_sv(a, v->fields.v[i].key);
            out.fields.v[i].value = copy_value(&v->fields.v[i].value, a, depth + 1);
        }
    } else if (v->kind == KV_LIST) {
        out.list.v = v->list.n ? arena_new_array(a, struct kv_value, v->list.n) : NULL;
        for (uint32_t i = 0; i < v->list.n; i++) {
            out.list.v[i] = copy_value(&v->list.v[i], a, depth + 1);
        }
    }
    return out;
}

struct kv_value kv_copy(const struct kv_value *v, struct arena *a) {
    return copy_value(v, a, 0);
}

void kv_set(struct kv_value *fields, struct arena *a, sv key, const struct kv_value *value) {
    ASSERT(fields->kind == KV_STRUCT);
    struct kv_value copy = kv_copy(value, a); /* first: value may be a part of fields */
    *slot(&fields->fields, a, key) = copy;
}

/* --- namespaces --- */

const struct kv_value *kv_metadata_namespace(const struct kv_metadata *m, sv ns) {
    return m ? kv_get(&m->spaces, ns) : NULL;
}

const struct kv_value *kv_metadata_get(const struct kv_metadata *m, sv ns, const sv *path,
                                       unsigned n) {
    const struct kv_value *v = kv_metadata_namespace(m, ns);
    for (unsigned i = 0; v && i < n; i++) {
        v = kv_get(v, path[i]);
    }
    return v;
}

/* The namespace's slot, NULL when there are too many. */
static struct kv_value *space(struct kv_metadata *m, sv ns) {
    if (m->spaces.fields.n >= KV_NAMESPACES_MAX && !kv_get(&m->spaces, ns)) {
        return NULL;
    }
    return slot(&m->spaces.fields, m->arena, ns);
}

bool kv_metadata_set(struct kv_metadata *m, sv ns, sv key, const struct kv_value *value) {
    struct kv_value copy = kv_copy(value, m->arena), *s = space(m, ns);
    if (!s) {
        return false;
    }
    if (s->kind != KV_STRUCT) {
        *s = kv_empty_struct();
    }
    *slot(&s->fields, m->arena, key) = copy;
    return true;
}

bool kv_metadata_put(struct kv_metadata *m, sv ns, const struct kv_value *value) {
    struct kv_value copy = kv_copy(value, m->arena), *s = space(m, ns);
    if (!s) {
        return false;
    }
    *s = copy;
    return true;
}

static void append_list(struct kv_value *to, const struct kv_value *from, struct arena *a) {
    uint32_t n = to->list.n + from->list.n;
    struct kv_value *v = arena_new_array(a, struct kv_value, n ? n : 1);
    if (to->list.n) {
        memcpy(v, to->list.v, to->list.n * sizeof(*v));
    }
    for (uint32_t i = 0; i < from->list.n; i++) {
        v[to->list.n + i] = kv_copy(&from->list.v[i], a);
    }
    to->list.v = v;
    to->list.n = n;
}

static void merge(struct kv_value *to, const struct kv_value *from, struct arena *a,
                  unsigned depth) {
    for (uint32_t i = 0; i < from->fields.n && depth < KV_DEPTH_MAX; i++) {
        const struct kv_field *f = &from->fields.v[i];
        struct kv_value *have = slot(&to->fields, a, f->key);
        if (have->kind == KV_STRUCT && f->value.kind == KV_STRUCT) {
            merge(have, &f->value, a, depth + 1);
        } else if (have->kind == KV_LIST && f->value.kind == KV_LIST) {
            append_list(have, &f->value, a);
        } else {
            *have = copy_value(&f->value, a, depth + 1);
        }
    }
}

bool kv_metadata_merge(struct kv_metadata *m, sv ns, const struct kv_value *fields) {
    struct kv_value *s = space(m, ns);
    if (!s || fields->kind != KV_STRUCT) {
        return false;
    }
    if (s->kind != KV_STRUCT) {
        *s = kv_empty_struct();
    }
    merge(s, fields, m->arena, 0);
    return true;
}

unsigned kv_metadata_count(const struct kv_metadata *m) { return m ? m->spaces.fields.n : 0; }

sv kv_metadata_name_at(const struct kv_metadata *m, unsigned i, const struct kv_value **value) {
    ASSERT(i < m->spaces.fields.n);
    *value = &m->spaces.fields.v[i].value;
    return m->spaces.fields.v[i].key;
}

/* --- comparing, printing --- */

bool kv_eq(const struct kv_value *a, const struct kv_value *b) {
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case KV_NULL:
        return true;
    case KV_BOOL:
        return a->b == b->b;
    case KV_NUMBER:
        return a->number == b->number;
    case KV_STRING:
        return sv_eq(a->s, b->s);
    case KV_STRUCT:
        if (a->fields.n != b->fields.n) {
            return false;
        }
        for (uint32_t i = 0; i < a->fields.n; i++) {
            if (!sv_eq(a->fields.v[i].key, b->fields.v[i].key) ||
                !kv_eq(&a->fields.v[i].value, &b->fields.v[i].value)) {
                return false;
            }
        }
        return true;
    case KV_LIST:
        for (uint32_t i = 0; a->list.n == b->list.n && i < a->list.n; i++) {
            if (!kv_eq(&a->list.v[i], &b->list.v[i])) {
                return false;
            }
        }
        return a->list.n == b->list.n;
    }
    return false;
}

uint64_t kv_hash(const struct kv_value *v) {
    uint64_t h = (uint64_t)v->kind * 0x9E3779B97F4A7C15ull;
    double d;
    switch (v->kind) {
    case KV_NULL:
        break;
    case KV_BOOL:
        h += v->b;
        break;
    case KV_NUMBER:
        d = v->number == 0 ? 0 : v->number; /* -0 equals 0 */
        h ^= sv_hash(sv_from(&d, sizeof(d)));
        break;
    case KV_STRING:
        h ^= sv_hash(v->s);
        break;
    case KV_STRUCT:
        for (uint32_t i = 0; i < v->fields.n; i++) {
            h = h * 31 + (sv_hash(v->fields.v[i].key) ^ kv_hash(&v->fields.v[i].value));
        }
        break;
    case KV_LIST:
        for (uint32_t i = 0; i < v->list.n; i++) {
            h = h * 31 + kv_hash(&v->list.v[i]);
        }
        break;
    }
    return h;
}

void kv_write_number(double d, struct buf *out) {
    if (isfinite(d) && d == floor(d) && fabs(d) < 1e21) {
        buf_printf(out, "%.0f", d);
        return;
    }
    if (!isfinite(d)) {
        buf_append_sv(out, isnan(d) ? SV("\"NaN\"")
                           : d > 0  ? SV("\"Infinity\"")
                                    : SV("\"-Infinity\""));
        return;
    }
    char t[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(t, sizeof(t), "%.*g", precision, d);
        if (strtod(t, NULL) == d) {
            break;
        }
    }
    buf_append_sv(out, sv_cstr(t));
}

static void write_string(sv s, struct buf *out) {
    buf_lit(out, "\"");
    json_escape(out, s);
    buf_lit(out, "\"");
}

void kv_write_json(const struct kv_value *v, struct buf *out) {
    switch (v->kind) {
    case KV_NULL:
        buf_lit(out, "null");
        break;
    case KV_BOOL:
        buf_append_sv(out, v->b ? SV("true") : SV("false"));
        break;
    case KV_NUMBER:
        kv_write_number(v->number, out);
        break;
    case KV_STRING:
        write_string(v->s, out);
        break;
    case KV_STRUCT:
        buf_lit(out, "{");
        for (uint32_t i = 0; i < v->fields.n; i++) {
            if (i) {
                buf_lit(out, ",");
            }
            write_string(v->fields.v[i].key, out);
            buf_lit(out, ":");
            kv_write_json(&v->fields.v[i].value, out);
        }
        buf_lit(out, "}");
        break;
    case KV_LIST:
        buf_lit(out, "[");
        for (uint32_t i = 0; i < v->list.n; i++) {
            if (i) {
                buf_lit(out, ",");
            }
            kv_write_json(&v->list.v[i], out);
        }
        buf_lit(out, "]");
        break;
    }
}

/* --- from messages --- */

static struct kv_value from_value(const Pb__Value *m, struct arena *a, unsigned depth);

static struct kv_value from_struct(const Pb__Struct *m, struct arena *a, unsigned depth) {
    struct kv_value out = kv_empty_struct();
    for (size_t i = 0; m && depth < KV_DEPTH_MAX && i < m->n_fields; i++) {
        struct kv_value v = from_value(m->fields[i]->value, a, depth + 1);
        *slot(&out.fields, a, sv_cstr(m->fields[i]->key)) = v;
    }
    return out;
}

static struct kv_value from_list(const Pb__ListValue *m, struct arena *a, unsigned depth) {
    struct kv_value out = {.kind = KV_LIST};
    if (!m || !m->n_values || depth >= KV_DEPTH_MAX) {
        return out;
    }
    out.list.v = arena_new_array(a, struct kv_value, m->n_values);
    out.list.n = (uint32_t)m->n_values;
    for (size_t i = 0; i < m->n_values; i++) {
        out.list.v[i] = from_value(m->values[i], a, depth + 1);
    }
    return out;
}

static struct kv_value from_value(const Pb__Value *m, struct arena *a, unsigned depth) {
    if (!m) {
        return kv_null();
    }
    switch (m->kind_case) {
    case PB__VALUE__KIND_NUMBER_VALUE:
        return kv_number(m->number_value);
    case PB__VALUE__KIND_STRING_VALUE:
        return kv_string(arena_sv(a, sv_cstr(m->string_value)));
    case PB__VALUE__KIND_BOOL_VALUE:
        return kv_bool(m->bool_value);
    case PB__VALUE__KIND_STRUCT_VALUE:
        return from_struct(m->struct_value, a, depth);
    case PB__VALUE__KIND_LIST_VALUE:
        return from_list(m->list_value, a, depth);
    default:
        return kv_null();
    }
}

struct kv_value kv_from_struct(const void *struct_msg, struct arena *a) {
    return from_struct((const Pb__Struct *)struct_msg, a, 0);
}
struct kv_value kv_from_value(const void *value_msg, struct arena *a) {
    return from_value((const Pb__Value *)value_msg, a, 0);
}

struct kv_metadata *kv_metadata_from(const void *metadata_msg, struct arena *a) {
    const Core__Metadata *msg = metadata_msg;
    if (!msg || !msg->n_filter_metadata) {
        return NULL;
    }
    struct kv_metadata *m = kv_metadata_new(a);
    for (size_t i = 0; i < msg->n_filter_metadata; i++) {
        struct kv_value v = from_struct(msg->filter_metadata[i]->value, a, 0);
        *slot(&m->spaces.fields, a, sv_cstr(msg->filter_metadata[i]->key)) = v;
    }
    return m;
}

/* --- shared --- */

struct shared_metadata {
    struct interned interned; /* by the contents as JSON, in the arena */
    struct arena arena;       /* of the metadata, too */
    struct kv_metadata *metadata;
};
#define SHARED_ARENA_BYTES 512u
static struct intern_table shared_metadata = INTERN_TABLE_INIT;

static struct shared_metadata *shared_of(const struct kv_metadata *m) {
    return CONTAINER_OF(m->arena, struct shared_metadata, arena);
}

struct kv_metadata *kv_metadata_dup(const struct kv_metadata *m, struct arena *a) {
    struct kv_metadata *copy = kv_metadata_new(a);
    copy->spaces = kv_copy(&m->spaces, a);
    return copy;
}

static struct shared_metadata *shared_new(const struct kv_metadata *from, sv key) {
    struct shared_metadata *s = xnew(struct shared_metadata);
    arena_init(&s->arena, SHARED_ARENA_BYTES);
    s->interned.key = arena_sv(&s->arena, key);
    s->metadata = kv_metadata_dup(from, &s->arena);
    s->metadata->is_interned = true;
    arena_trim(&s->arena);
    return s;
}

static void shared_free(struct shared_metadata *s) {
    arena_fini(&s->arena);
    xfree(s);
}

const struct kv_metadata *kv_metadata_intern(const struct kv_metadata *m) {
    if (!m) {
        return NULL;
    }
    if (m->is_interned) {
        CHECK(intern_find(&shared_metadata, shared_of(m)->interned.key));
        return m;
    }
    BUF_AUTO struct buf text;
    buf_init(&text);
    kv_write_json(&m->spaces, &text);
    sv key = buf_pullup(&text, buf_len(&text));
    struct interned *i = intern_find(&shared_metadata, key);
    if (!i) {
        struct shared_metadata *made = shared_new(m, key);
        i = intern_add(&shared_metadata, &made->interned);
        if (i != &made->interned) {
            shared_free(made);
        }
    }
    return CONTAINER_OF(i, struct shared_metadata, interned)->metadata;
}

void kv_metadata_unref(const struct kv_metadata *interned) {
    if (interned && intern_release(&shared_metadata, &shared_of(interned)->interned)) {
        shared_free(shared_of(interned));
    }
}
