/* Metadata as messages: google.protobuf.Struct. Depth is bounded again: not all of it was made from
 * a message.
 * Threads: any; all memory is the arena's. */
#include "proxy/observe/metadata.h"

#include "protos/gen/pb.pb-c.h"

struct writer {
    struct arena *arena;
    sv (*clean)(struct arena *a, sv text); /* NULL: strings go as they are */
};

static Pb__Value *value_message(const struct writer *w, const struct kv_value *v, unsigned depth);

static const char *text(const struct writer *w, sv s) {
    return arena_cstr(w->arena, w->clean ? w->clean(w->arena, s) : s);
}

static Pb__Struct *struct_message(const struct writer *w, const struct kv_struct *s,
                                  unsigned depth) {
    Pb__Struct *m = arena_new(w->arena, Pb__Struct);
    pb__struct__init(m);
    m->n_fields = s->n;
    m->fields = arena_new_array(w->arena, Pb__Struct__FieldsEntry *, s->n + 1);
    for (uint32_t i = 0; i < s->n; i++) {
        Pb__Struct__FieldsEntry *e = arena_new(w->arena, Pb__Struct__FieldsEntry);
        pb__struct__fields_entry__init(e);
        e->key = text(w, s->v[i].key);
        e->value = value_message(w, &s->v[i].value, depth + 1);
        m->fields[i] = e;
    }
    return m;
}

static Pb__ListValue *list_message(const struct writer *w, const struct kv_list *l,
                                   unsigned depth) {
    Pb__ListValue *m = arena_new(w->arena, Pb__ListValue);
    pb__list_value__init(m);
    m->n_values = l->n;
    m->values = arena_new_array(w->arena, Pb__Value *, l->n + 1);
    for (uint32_t i = 0; i < l->n; i++) {
        m->values[i] = value_message(w, &l->v[i], depth + 1);
    }
    return m;
}

static Pb__Value *value_message(const struct writer *w, const struct kv_value *v, unsigned depth) {
    Pb__Value *m = arena_new(w->arena, Pb__Value);
    pb__value__init(m);
    m->kind_case = PB__VALUE__KIND_NULL_VALUE;
    switch (depth < KV_DEPTH_MAX ? v->kind : KV_NULL) {
    case KV_NULL:
        break;
    case KV_BOOL:
        m->kind_case = PB__VALUE__KIND_BOOL_VALUE;
        m->bool_value = v->b;
        break;
    case KV_NUMBER:
        m->kind_case = PB__VALUE__KIND_NUMBER_VALUE;
        m->number_value = v->number;
        break;
    case KV_STRING:
        m->kind_case = PB__VALUE__KIND_STRING_VALUE;
        m->string_value = text(w, v->s);
        break;
    case KV_STRUCT:
        m->kind_case = PB__VALUE__KIND_STRUCT_VALUE;
        m->struct_value = struct_message(w, &v->fields, depth);
        break;
    case KV_LIST:
        m->kind_case = PB__VALUE__KIND_LIST_VALUE;
        m->list_value = list_message(w, &v->list, depth);
        break;
    }
    return m;
}

void *kv_struct_message(const struct kv_struct *s, struct arena *a,
                        sv (*clean)(struct arena *a, sv text)) {
    return struct_message(&(struct writer){a, clean}, s, 0);
}
