/* YAML documents as JSON trees, from libyaml's events.
 * Threads: any.
 * Spec: YAML 1.1 as libyaml reads it; scalars as yaml-cpp converts them for Envoy.
 * Not here: what the values mean (pb_json_read.c). */
#include "protos/pb_yaml.h"

#include <yaml.h>

#include "proxy/base/map.h"
#include "proxy/base/mem.h"

#define SHOWN_MAX 200 /* bytes of a document that is only a scalar */

struct anchor {
    json_t *node; /* one reference held */
    size_t nodes; /* how many it stands for */
};

struct level {
    json_t *node;    /* object or array under construction, owned */
    char *key;       /* heap: waiting for its value; NULL when a key is next */
    bool is_ignored; /* the key is left out */
    size_t nodes;
    sv anchor; /* in the arena; .p is NULL without one */
};

struct loader {
    yaml_parser_t parser;
    struct diag *d;
    struct arena arena; /* anchor names and structs */
    struct map anchors;
    size_t alias_nodes;
    struct level levels[PB_YAML_DEPTH_MAX];
    unsigned depth;
    json_t *root; /* the finished document, owned */
};

static bool fail(struct loader *l, yaml_mark_t at, const char *what) {
    return diag_error(l->d, "yaml: error at line %zu, column %zu: %s", at.line + 1, at.column + 1,
                      what);
}

/* --- scalars --- */

/* All lower case, all upper case or Capitalised. */
static bool is_word(sv s, const char *lower) {
    if (!sv_eq_nocase(s, sv_cstr(lower))) {
        return false;
    }
    bool first = s.p[0] != lower[0], rest_upper = true, rest_lower = true;
    for (size_t i = 1; i < s.n; i++) {
        rest_upper &= s.p[i] != lower[i];
        rest_lower &= s.p[i] == lower[i];
    }
    return rest_lower || (first && rest_upper);
}

static bool resolve_bool(sv s, bool *out) {
    static const struct {
        const char *yes, *no;
    } words[] = {{"y", "n"}, {"yes", "no"}, {"true", "false"}, {"on", "off"}};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        *out = is_word(s, words[i].yes);
        if (*out || is_word(s, words[i].no)) {
            return true;
        }
    }
    return false;
}

/* [+-] then decimal, 0x hexadecimal or 0 octal, within int64_t. */
static bool resolve_int(sv s, int64_t *out) {
    bool is_negative = sv_eat(&s, SV("-"));
    if (!is_negative) {
        sv_eat(&s, SV("+"));
    }
    unsigned base = 10;
    if (sv_starts_nocase(s, SV("0x"))) {
        base = 16;
        s = sv_skip(s, 2);
    } else if (s.n > 1 && s.p[0] == '0') {
        base = 8;
    }
    uint64_t v = 0, limit = (uint64_t)INT64_MAX + is_negative;
    for (size_t i = 0; i < s.n; i++) {
        int digit = ascii_hex(s.p[i]);
        if (digit < 0 || (unsigned)digit >= base || v > (limit - (unsigned)digit) / base) {
            return false;
        }
        v = v * base + (unsigned)digit;
    }
    *out = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return s.n > 0;
}

static bool is_null_word(sv s) {
    return s.n == 0 || sv_is(s, "~") || sv_is(s, "null") || sv_is(s, "Null") || sv_is(s, "NULL");
}

static json_t *int_node(int64_t v) {
    if (v >= INT32_MIN && v <= INT32_MAX) {
        return json_integer(v);
    }
    char text[24];
    int n = snprintf(text, sizeof(text), "%lld", (long long)v);
    return json_stringn_nocheck(text, (size_t)n);
}

/* NULL: not UTF-8. */
static json_t *scalar_node(const yaml_event_t *e) {
    sv s = sv_from(e->data.scalar.value, e->data.scalar.length);
    const char *tag = (const char *)e->data.scalar.tag;
    bool is_plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    if (tag ? strcmp(tag, "!") == 0 : !is_plain) {
        return json_stringn(s.p, s.n);
    }
    bool truth;
    int64_t number;
    if (!tag && is_null_word(s)) {
        return json_null();
    }
    if (resolve_bool(s, &truth)) {
        return json_boolean(truth);
    }
    return resolve_int(s, &number) ? int_node(number) : json_stringn(s.p, s.n);
}

/* --- the tree --- */

static void keep_anchor(struct loader *l, sv name, json_t *node, size_t nodes) {
    struct anchor *a = map_get(&l->anchors, name);
    if (a) {
        json_decref(a->node); /* an anchor may be given anew */
    } else {
        a = arena_new(&l->arena, struct anchor);
        map_put(&l->anchors, name, a);
    }
    a->node = json_incref(node);
    a->nodes = nodes;
}

static sv anchor_name(struct loader *l, const yaml_char_t *name) {
    return name ? arena_sv(&l->arena, sv_cstr((const char *)name)) : SV_NULL;
}

/* Put a finished node where it belongs. Takes node. */
static void add_node(struct loader *l, json_t *node, size_t nodes) {
    if (l->depth == 0) {
        l->root = node;
        return;
    }
    struct level *top = &l->levels[l->depth - 1];
    top->nodes += nodes;
    if (json_is_array(top->node)) {
        json_array_append_new(top->node, node);
        return;
    }
    if (top->is_ignored) {
        json_decref(node);
    } else {
        json_object_set_new(top->node, top->key, node);
    }
    xfree(top->key);
    top->key = NULL;
    top->is_ignored = false;
}

static bool is_key_next(const struct loader *l) {
    if (l->depth == 0) {
        return false;
    }
    const struct level *top = &l->levels[l->depth - 1];
    return json_is_object(top->node) && !top->key;
}

static bool take_key(struct loader *l, const yaml_event_t *e) {
    struct level *top = &l->levels[l->depth - 1];
    sv s = sv_from(e->data.scalar.value, e->data.scalar.length);
    const char *tag = (const char *)e->data.scalar.tag;
    if (sv_find(s, '\0') != SIZE_MAX || !sv_is_utf8(s)) {
        return fail(l, e->start_mark, "key is not text");
    }
    bool is_null = !tag && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE && is_null_word(s);
    top->key = sv_dup(is_null ? SV("null") : s);
    top->is_ignored = tag && strcmp(tag, "!ignore") == 0;
    return true;
}

static bool on_scalar(struct loader *l, const yaml_event_t *e) {
    sv name = anchor_name(l, e->data.scalar.anchor);
    json_t *node = scalar_node(e);
    if (!node) {
        return fail(l, e->start_mark, "scalar is not UTF-8 text");
    }
    if (name.p) {
        keep_anchor(l, name, node, 1);
    }
    if (is_key_next(l)) {
        json_decref(node);
        return take_key(l, e);
    }
    add_node(l, node, 1);
    return true;
}

static bool on_alias(struct loader *l, const yaml_event_t *e) {
    sv name = sv_cstr((const char *)e->data.alias.anchor);
    const struct anchor *a = map_get(&l->anchors, name);
    if (!a) {
        return fail(l, e->start_mark, "alias of an unknown anchor");
    }
    if (is_key_next(l)) {
        return fail(l, e->start_mark, "alias as a key");
    }
    l->alias_nodes += a->nodes;
    if (l->alias_nodes > PB_YAML_ALIAS_NODES_MAX) {
        return fail(l, e->start_mark, "aliases stand for too many nodes");
    }
    add_node(l, json_incref(a->node), a->nodes);
    return true;
}

/* Takes node. */
static bool open_level(struct loader *l, json_t *node, const yaml_char_t *anchor, yaml_mark_t at) {
    bool is_key = is_key_next(l);
    if (is_key || l->depth == PB_YAML_DEPTH_MAX) {
        json_decref(node);
        return fail(l, at, is_key ? "a key must be a scalar" : "nested too deeply");
    }
    l->levels[l->depth++] =
        (struct level){.node = node, .nodes = 1, .anchor = anchor_name(l, anchor)};
    return true;
}

static void close_level(struct loader *l) {
    struct level done = l->levels[--l->depth];
    if (done.anchor.p) {
        keep_anchor(l, done.anchor, done.node, done.nodes);
    }
    add_node(l, done.node, done.nodes);
}

/* False: stop, with an error or because the document is complete. */
static bool on_event(struct loader *l, const yaml_event_t *e) {
    switch (e->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(l, e);
    case YAML_ALIAS_EVENT:
        return on_alias(l, e);
    case YAML_SEQUENCE_START_EVENT:
        return open_level(l, json_array(), e->data.sequence_start.anchor, e->start_mark);
    case YAML_MAPPING_START_EVENT:
        return open_level(l, json_object(), e->data.mapping_start.anchor, e->start_mark);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        close_level(l);
        return true;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_START_EVENT:
        return true;
    case YAML_DOCUMENT_END_EVENT:
    case YAML_STREAM_END_EVENT:
        return false;
    }
    return false;
}

static void run(struct loader *l) {
    bool more = true;
    while (more) {
        yaml_event_t e;
        if (!yaml_parser_parse(&l->parser, &e)) {
            yaml_mark_t at = l->parser.problem_mark;
            fail(l, at, l->parser.problem ? l->parser.problem : "not readable");
            return;
        }
        more = on_event(l, &e);
        yaml_event_delete(&e);
    }
}

static void release(struct loader *l) {
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&l->anchors, &it));) {
        json_decref(((struct anchor *)s->value)->node);
    }
    for (unsigned i = 0; i < l->depth; i++) {
        json_decref(l->levels[i].node);
        xfree(l->levels[i].key);
    }
    map_fini(&l->anchors);
    arena_fini(&l->arena);
    yaml_parser_delete(&l->parser);
}

json_t *pb_yaml_parse(sv text, struct diag *d) {
    struct loader *l = xnew(struct loader);
    unsigned errors_before = diag_errors(d);
    l->d = d;
    CHECK(yaml_parser_initialize(&l->parser));
    arena_init(&l->arena, 0);
    map_init(&l->anchors);
    yaml_parser_set_input_string(&l->parser, (const unsigned char *)(text.n ? text.p : ""), text.n);
    run(l);
    json_t *root = l->root;
    release(l);
    xfree(l);
    if (diag_errors(d) != errors_before) {
        json_decref(root);
        return NULL;
    }
    if (!json_is_object(root) && !json_is_array(root)) {
        json_decref(root);
        sv shown = sv_sub(text, 0, SHOWN_MAX);
        diag_error(d, "Unable to convert YAML as JSON: %.*s", SV_ARG(shown));
        return NULL;
    }
    return root;
}
