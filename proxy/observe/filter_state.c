/* Named objects of a stream or connection: a short array, searched linearly. Threads: see the
 * header. */
#include "proxy/observe/filter_state.h"

struct filter_state {
    struct arena *arena;
    const struct filter_state *parent;
    struct filter_state_object *v;
    unsigned n, cap;
};

struct filter_state *filter_state_new(struct arena *a, const struct filter_state *parent) {
    struct filter_state *fs = arena_new(a, struct filter_state);
    fs->arena = a;
    fs->parent = parent;
    return fs;
}

static struct filter_state_object *find(const struct filter_state *fs, sv name) {
    for (unsigned i = 0; i < fs->n; i++) {
        if (sv_eq(fs->v[i].name, name)) {
            return &fs->v[i];
        }
    }
    return NULL;
}

static struct filter_state_object *add(struct filter_state *fs, sv name) {
    if (fs->n == FILTER_STATE_MAX) {
        return NULL;
    }
    if (fs->n == fs->cap) {
        unsigned cap = fs->cap ? fs->cap * 2 : 4;
        struct filter_state_object *v = arena_new_array(fs->arena, struct filter_state_object, cap);
        if (fs->n) {
            memcpy(v, fs->v, fs->n * sizeof(*v));
        }
        fs->v = v;
        fs->cap = cap;
    }
    struct filter_state_object *o = &fs->v[fs->n++];
    o->name = arena_sv(fs->arena, name);
    return o;
}

bool filter_state_set(struct filter_state *fs, sv name, sv text, const struct kv_value *typed,
                      bool is_read_only, enum filter_state_sharing sharing) {
    struct filter_state_object *o = find(fs, name);
    if (o ? o->is_read_only : filter_state_get(fs->parent, name) != NULL) {
        return false;
    }
    if (!o) {
        o = add(fs, name);
    }
    if (!o) {
        return false;
    }
    o->text = arena_sv(fs->arena, text);
    o->typed = typed;
    o->is_read_only = is_read_only;
    o->sharing = sharing;
    return true;
}

static void copy_object(struct filter_state *to, const struct filter_state_object *o,
                        enum filter_state_sharing sharing) {
    struct kv_value *typed = o->typed ? arena_new(to->arena, struct kv_value) : NULL;
    if (typed) {
        *typed = kv_copy(o->typed, to->arena);
    }
    filter_state_set(to, o->name, o->text, typed, o->is_read_only, sharing);
}

struct filter_state *filter_state_dup(const struct filter_state *fs, struct arena *a) {
    struct filter_state *copy = filter_state_new(a, NULL);
    for (unsigned i = 0; i < fs->n; i++) {
        copy_object(copy, &fs->v[i], fs->v[i].sharing);
    }
    return copy;
}

struct filter_state *filter_state_shared(const struct filter_state *fs, struct arena *a) {
    struct filter_state *copy = NULL;
    for (; fs; fs = fs->parent) { /* a name is at one level only */
        for (unsigned i = 0; i < fs->n; i++) {
            const struct filter_state_object *o = &fs->v[i];
            if (o->sharing == FILTER_STATE_LOCAL) {
                continue;
            }
            copy = copy ? copy : filter_state_new(a, NULL);
            copy_object(copy, o,
                        o->sharing == FILTER_STATE_SHARE_ONCE ? FILTER_STATE_LOCAL : o->sharing);
        }
    }
    return copy;
}

const struct filter_state_object *filter_state_get(const struct filter_state *fs, sv name) {
    for (; fs; fs = fs->parent) {
        const struct filter_state_object *o = find(fs, name);
        if (o) {
            return o;
        }
    }
    return NULL;
}

sv filter_state_text(const struct filter_state *fs, sv name) {
    const struct filter_state_object *o = filter_state_get(fs, name);
    return o ? o->text : SV_NULL;
}

const struct filter_state_object *filter_state_at(const struct filter_state *fs, unsigned i) {
    return fs && i < fs->n ? &fs->v[i] : NULL;
}
