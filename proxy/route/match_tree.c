/* Generic matching: lists of predicates and maps that lead to an action, and back out of branches
 * that lead nowhere. Threads: see proxy/api/match_tree.h.
 * What a match leads to may be a tree in turn; when that finds nothing, matching goes on behind it
 * as if it had not matched. */
#include "proxy/api/match_tree.h"

#include <stdlib.h>

#include "protos/gen/xds_core.pb-c.h"
#include "protos/gen/xds_type_matcher.pb-c.h"
#include "proxy/base/map.h"
#include "proxy/route/match_input.h"

typedef XdsTypeMatcher__Matcher__OnMatch on_match_msg;
typedef XdsTypeMatcher__Matcher__MatcherList__Predicate predicate_msg;

enum predicate_kind { PREDICATE_LEAF, PREDICATE_OR, PREDICATE_AND, PREDICATE_NOT };
struct predicate {
    enum predicate_kind kind;
    uint32_t n; /* of OR, AND, NOT */
    union {
        const struct match_leaf *leaf;
        const struct predicate *subs;
    };
};
struct on_match {
    const struct match_tree *tree; /* or */
    const void *action;            /* neither: there is none */
};
struct field_matcher {
    struct predicate predicate;
    struct on_match on_match;
};
struct ip_range {
    struct cidr cidr;
    uint32_t index; /* of declaration */
    bool is_exclusive;
    const struct on_match *on_match;
};
enum tree_kind { TREE_LIST, TREE_EXACT, TREE_PREFIX, TREE_IP, TREE_DOMAIN };
struct match_tree {
    enum tree_kind kind;
    struct match_input input; /* of maps */
    struct on_match on_no_match;
    union {
        struct {
            const struct field_matcher *v;
            size_t n;
        } list;
        struct {
            struct map map;      /* key → struct on_match; domains without their "*." */
            struct map exact;    /* TREE_DOMAIN: whole names */
            const size_t *sizes; /* TREE_PREFIX: the keys' lengths, longest first */
            size_t sizes_n;
            const struct on_match *any; /* TREE_DOMAIN: "*"; NULL: none */
        } keys;
        struct {
            const struct ip_range *v; /* longest prefix first */
            size_t n;
        } ranges;
    };
};

/* --- compile --- */

struct compiler {
    struct compile_ctx *ctx;
    const struct match_tree_user *user;
    unsigned depth;
};

static const struct match_tree *compile_tree(struct compiler *c, const XdsTypeMatcher__Matcher *m);

static bool compile_on_match(struct compiler *c, const on_match_msg *m, struct on_match *out) {
    struct diag *d = c->ctx->diag;
    if (m->keep_matching) {
        return diag_error(d, "keep_matching is not supported in this context");
    }
    switch (m->on_match_case) {
    case XDS_TYPE_MATCHER__MATCHER__ON_MATCH__ON_MATCH_MATCHER: {
        DIAG_FIELD(d, "matcher");
        out->tree = compile_tree(c, m->matcher);
        return out->tree != NULL;
    }
    case XDS_TYPE_MATCHER__MATCHER__ON_MATCH__ON_MATCH_ACTION: {
        DIAG_FIELD(d, "action.typed_config");
        out->action = c->user->compile_action(c->ctx, sv_cstr(m->action->name),
                                              m->action->typed_config, c->user->arg);
        return out->action != NULL;
    }
    default:
        return diag_error(d, "on_match: value is required");
    }
}

static bool compile_predicate(struct compiler *c, const predicate_msg *m, struct predicate *out,
                              unsigned depth);

static bool compile_predicates(struct compiler *c, enum predicate_kind kind, const char *field,
                               predicate_msg *const *v, size_t n, struct predicate *out,
                               unsigned depth) {
    struct predicate *subs = arena_new_array(c->ctx->arena, struct predicate, n ? n : 1);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(c->ctx->diag, "%s[%zu]", field, i);
        ok = compile_predicate(c, v[i], &subs[i], depth + 1) && ok;
    }
    *out = (struct predicate){.kind = kind, .n = (uint32_t)n, .subs = subs};
    return ok;
}

static bool compile_predicate(struct compiler *c, const predicate_msg *m, struct predicate *out,
                              unsigned depth) {
    struct diag *d = c->ctx->diag;
    if (depth >= MATCH_TREE_DEPTH_MAX) {
        return diag_error(d, "predicates are nested deeper than %u", MATCH_TREE_DEPTH_MAX);
    }
    switch (m->match_type_case) {
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_LIST__PREDICATE__MATCH_TYPE_SINGLE_PREDICATE: {
        DIAG_FIELD(d, "single_predicate");
        out->kind = PREDICATE_LEAF;
        out->leaf = match_leaf_compile(c->ctx, c->user, m->single_predicate);
        return out->leaf != NULL;
    }
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_LIST__PREDICATE__MATCH_TYPE_OR_MATCHER:
        return compile_predicates(c, PREDICATE_OR, "or_matcher.predicate", m->or_matcher->predicate,
                                  m->or_matcher->n_predicate, out, depth);
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_LIST__PREDICATE__MATCH_TYPE_AND_MATCHER:
        return compile_predicates(c, PREDICATE_AND, "and_matcher.predicate",
                                  m->and_matcher->predicate, m->and_matcher->n_predicate, out,
                                  depth);
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_LIST__PREDICATE__MATCH_TYPE_NOT_MATCHER:
        return compile_predicates(c, PREDICATE_NOT, "not_matcher",
                                  (predicate_msg *const[]){m->not_matcher}, 1, out, depth);
    default:
        return diag_error(d, "match_type: value is required");
    }
}

static bool compile_list(struct compiler *c, const XdsTypeMatcher__Matcher__MatcherList *m,
                         struct match_tree *t) {
    struct field_matcher *v =
        arena_new_array(c->ctx->arena, struct field_matcher, m->n_matchers ? m->n_matchers : 1);
    bool ok = true;
    t->kind = TREE_LIST;
    t->list.v = v;
    t->list.n = m->n_matchers;
    for (size_t i = 0; i < m->n_matchers; i++) {
        DIAG_FIELD(c->ctx->diag, "matcher_list.matchers[%zu]", i);
        {
            DIAG_FIELD(c->ctx->diag, "predicate");
            ok = compile_predicate(c, m->matchers[i]->predicate, &v[i].predicate, 0) && ok;
        }
        DIAG_FIELD(c->ctx->diag, "on_match");
        ok = compile_on_match(c, m->matchers[i]->on_match, &v[i].on_match) && ok;
    }
    return ok;
}

static void release_map(void *map) { map_fini(map); }

static int longest_first(const void *a, const void *b) {
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x < y) - (x > y);
}

static bool compile_map(struct compiler *c, enum tree_kind kind, const char *field,
                        const XdsTypeMatcher__Matcher__MatcherTree__MatchMap *m,
                        struct match_tree *t) {
    struct arena *a = c->ctx->arena;
    struct on_match *v = arena_new_array(a, struct on_match, m->n_map ? m->n_map : 1);
    size_t *sizes = arena_new_array(a, size_t, m->n_map ? m->n_map : 1);
    bool ok = true;
    t->kind = kind;
    map_init(&t->keys.map);
    arena_on_fini(a, release_map, &t->keys.map);
    for (size_t i = 0; i < m->n_map; i++) {
        sv key = arena_sv(a, sv_cstr(m->map[i]->key));
        DIAG_FIELD(c->ctx->diag, "%s.map[%s]", field, m->map[i]->key);
        ok = (m->map[i]->value || diag_error(c->ctx->diag, "on_match: value is required")) &&
             compile_on_match(c, m->map[i]->value, &v[i]) && ok;
        map_put(&t->keys.map, key, &v[i]);
        sizes[i] = key.n;
    }
    qsort(sizes, m->n_map, sizeof *sizes, longest_first);
    t->keys.sizes = sizes;
    for (size_t i = 0; i < m->n_map; i++) {
        if (i == 0 || sizes[i] != sizes[t->keys.sizes_n - 1]) {
            sizes[t->keys.sizes_n++] = sizes[i];
        }
    }
    return ok;
}

static int by_prefix(const void *a, const void *b) {
    const struct ip_range *x = a, *y = b;
    int order = (x->cidr.bits < y->cidr.bits) - (x->cidr.bits > y->cidr.bits);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static bool compile_ranges(struct compiler *c, const XdsTypeMatcher__IPMatcher *m,
                           struct match_tree *t) {
    size_t n = 0;
    bool ok = true;
    for (size_t i = 0; i < m->n_range_matchers; i++) {
        n += m->range_matchers[i]->n_ranges;
    }
    struct ip_range *v = arena_new_array(c->ctx->arena, struct ip_range, n ? n : 1);
    t->kind = TREE_IP;
    t->ranges.v = v;
    for (size_t i = 0; i < m->n_range_matchers; i++) {
        const XdsTypeMatcher__IPMatcher__IPRangeMatcher *r = m->range_matchers[i];
        struct on_match *on_match = arena_new(c->ctx->arena, struct on_match);
        DIAG_FIELD(c->ctx->diag, "range_matchers[%zu]", i);
        for (size_t k = 0; k < r->n_ranges; k++) {
            struct ip_range *out = &v[t->ranges.n++];
            uint32_t bits = r->ranges[k]->prefix_len ? r->ranges[k]->prefix_len->value : 0;
            *out = (struct ip_range){
                .index = (uint32_t)i, .is_exclusive = r->exclusive, .on_match = on_match};
            DIAG_FIELD(c->ctx->diag, "ranges[%zu].address_prefix", k);
            ok = (cidr_make(sv_cstr(r->ranges[k]->address_prefix), bits, &out->cidr) ||
                  diag_error(c->ctx->diag, "malformed IP address: %s",
                             r->ranges[k]->address_prefix)) &&
                 ok;
        }
        DIAG_FIELD(c->ctx->diag, "on_match");
        ok = (r->on_match || diag_error(c->ctx->diag, "value is required")) &&
             compile_on_match(c, r->on_match, on_match) && ok;
    }
    qsort(v, n, sizeof *v, by_prefix);
    return ok;
}

/* "a.b", "*.b", "*". */
static bool add_domain(struct compiler *c, struct match_tree *t, sv domain,
                       struct on_match *on_match) {
    struct diag *d = c->ctx->diag;
    bool is_wildcard = sv_starts(domain, SV("*."));
    sv rest = sv_skip(domain, is_wildcard ? 2 : 0);
    if (domain.n == 0) {
        return diag_error(d, "Empty domain in ServerNameMatcher");
    }
    bool is_duplicate;
    if (sv_is(domain, "*")) {
        is_duplicate = t->keys.any != NULL;
        t->keys.any = on_match;
    } else if (rest.n == 0 || sv_find(rest, '*') != SIZE_MAX) {
        return diag_error(d,
                          "Invalid wildcard domain format: %.*s. Only '*' and '*.domain' patterns "
                          "are supported",
                          SV_ARG(domain));
    } else {
        is_duplicate = map_put(is_wildcard ? &t->keys.map : &t->keys.exact,
                               arena_sv(c->ctx->arena, rest), on_match) != NULL;
    }
    return !is_duplicate ||
           diag_error(d, "Duplicate domain in ServerNameMatcher: %.*s", SV_ARG(domain));
}

static bool compile_domains(struct compiler *c, const XdsTypeMatcher__ServerNameMatcher *m,
                            struct match_tree *t) {
    bool ok = true;
    t->kind = TREE_DOMAIN;
    map_init(&t->keys.map);
    map_init(&t->keys.exact);
    arena_on_fini(c->ctx->arena, release_map, &t->keys.map);
    arena_on_fini(c->ctx->arena, release_map, &t->keys.exact);
    for (size_t i = 0; i < m->n_domain_matchers; i++) {
        const XdsTypeMatcher__ServerNameMatcher__DomainMatcher *r = m->domain_matchers[i];
        struct on_match *on_match = arena_new(c->ctx->arena, struct on_match);
        DIAG_FIELD(c->ctx->diag, "domain_matchers[%zu]", i);
        for (size_t k = 0; k < r->n_domains; k++) {
            ok = add_domain(c, t, sv_cstr(r->domains[k]), on_match) && ok;
        }
        DIAG_FIELD(c->ctx->diag, "on_match");
        ok = (r->on_match || diag_error(c->ctx->diag, "value is required")) &&
             compile_on_match(c, r->on_match, on_match) && ok;
    }
    return ok;
}

static bool compile_custom(struct compiler *c, const XdsCore__TypedExtensionConfig *m,
                           struct match_tree *t) {
    const char *type = NULL;
    DIAG_FIELD(c->ctx->diag, "custom_match.typed_config");
    const void *msg = compile_any(c->ctx, sv_cstr(m->name), m->typed_config, NULL, &type);
    if (!msg) {
        return false;
    }
    if (strcmp(type, "xds.type.matcher.v3.IPMatcher") == 0) {
        return compile_ranges(c, msg, t);
    }
    if (strcmp(type, "xds.type.matcher.v3.ServerNameMatcher") == 0) {
        return compile_domains(c, msg, t);
    }
    return diag_error(c->ctx->diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%s'",
                      m->name, type);
}

static bool compile_keys(struct compiler *c, const XdsTypeMatcher__Matcher__MatcherTree *m,
                         struct match_tree *t) {
    DIAG_FIELD(c->ctx->diag, "matcher_tree");
    if (!match_input_compile(c->ctx, c->user, sv_cstr(m->input->name), m->input->typed_config,
                             &t->input)) {
        return false;
    }
    t->input.msg = NULL;
    if (t->input.kind == MATCH_INPUT_CEL) {
        return diag_error(c->ctx->diag, "Unsupported data input type: cel_data_input, currently "
                                        "only string type is supported in map matcher");
    }
    switch (m->tree_type_case) {
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_TREE__TREE_TYPE_EXACT_MATCH_MAP:
        return compile_map(c, TREE_EXACT, "exact_match_map", m->exact_match_map, t);
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_TREE__TREE_TYPE_PREFIX_MATCH_MAP:
        return compile_map(c, TREE_PREFIX, "prefix_match_map", m->prefix_match_map, t);
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_TREE__TREE_TYPE_CUSTOM_MATCH:
        return compile_custom(c, m->custom_match, t);
    default:
        return diag_error(c->ctx->diag, "tree_type: value is required");
    }
}

/* A matcher without a list and without a tree finds what is for no match. */
static bool compile_kind(struct compiler *c, const XdsTypeMatcher__Matcher *m,
                         struct match_tree *t) {
    switch (m->matcher_type_case) {
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_TYPE_MATCHER_LIST:
        return compile_list(c, m->matcher_list, t);
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_TYPE_MATCHER_TREE:
        return compile_keys(c, m->matcher_tree, t);
    default:
        t->kind = TREE_LIST;
        return true;
    }
}

static const struct match_tree *compile_tree(struct compiler *c, const XdsTypeMatcher__Matcher *m) {
    if (c->depth >= MATCH_TREE_DEPTH_MAX) {
        diag_error(c->ctx->diag, "matchers are nested deeper than %u", MATCH_TREE_DEPTH_MAX);
        return NULL;
    }
    struct match_tree *t = arena_new(c->ctx->arena, struct match_tree);
    c->depth++;
    bool ok = compile_kind(c, m, t);
    if (m->on_no_match) {
        DIAG_FIELD(c->ctx->diag, "on_no_match");
        ok = compile_on_match(c, m->on_no_match, &t->on_no_match) && ok;
    }
    c->depth--;
    return ok ? t : NULL;
}

const struct match_tree *match_tree_compile(struct compile_ctx *ctx,
                                            const struct match_tree_user *user, const void *msg) {
    return compile_tree(&(struct compiler){ctx, user, 0}, msg);
}

/* --- find --- */

/* Found in place of an action when a fact is missing that decides: nothing behind it is looked
 * at. */
static const char unknown;

/* What is unknown stays so under NOT; AND ends at the first that does not hold; OR looks for one
 * that does. */
static enum match_result predicate_result(const struct predicate *p, const struct match_facts *f) {
    enum match_result worst = p->kind == PREDICATE_AND ? MATCH_YES : MATCH_NO;
    if (p->kind == PREDICATE_LEAF) {
        return match_leaf_result(p->leaf, f);
    }
    for (uint32_t i = 0; i < p->n; i++) {
        enum match_result r = predicate_result(&p->subs[i], f);
        if (p->kind == PREDICATE_NOT) {
            return r == MATCH_UNKNOWN ? r : r == MATCH_YES ? MATCH_NO : MATCH_YES;
        }
        if (p->kind == PREDICATE_AND ? r != MATCH_YES : r == MATCH_YES) {
            return r;
        }
        worst = r == MATCH_UNKNOWN ? r : worst;
    }
    return worst;
}

static const void *find(const struct match_tree *t, const struct match_facts *f);

/* What a match leads to; m may be NULL. */
static const void *follow(const struct on_match *m, const struct match_facts *f) {
    if (!m) {
        return NULL;
    }
    return m->tree ? find(m->tree, f) : m->action;
}

static const void *find_in_list(const struct match_tree *t, const struct match_facts *f) {
    for (size_t i = 0; i < t->list.n; i++) {
        enum match_result r = predicate_result(&t->list.v[i].predicate, f);
        const void *found = r == MATCH_UNKNOWN ? &unknown
                            : r == MATCH_YES   ? follow(&t->list.v[i].on_match, f)
                                               : NULL;
        if (found) {
            return found;
        }
    }
    return NULL;
}

static const void *find_prefix(const struct match_tree *t, sv text, const struct match_facts *f) {
    for (size_t i = 0; i < t->keys.sizes_n; i++) {
        size_t n = t->keys.sizes[i];
        const struct on_match *m = n <= text.n ? map_get(&t->keys.map, sv_sub(text, 0, n)) : NULL;
        const void *found = follow(m, f);
        if (found) {
            return found;
        }
    }
    return NULL;
}

/* The whole name, then its parents by "*.", nearest first, then "*". */
static const void *find_domain(const struct match_tree *t, sv name, const struct match_facts *f) {
    if (name.n == 0) {
        return NULL;
    }
    const void *found = follow(map_get(&t->keys.exact, name), f);
    for (size_t dot; !found && (dot = sv_find(name, '.')) != SIZE_MAX;) {
        name = sv_skip(name, dot + 1);
        found = follow(map_get(&t->keys.map, name), f);
    }
    return found ? found : follow(t->keys.any, f);
}

static const void *find_range(const struct match_tree *t, const struct match_facts *f) {
    struct addr room;
    const struct addr *a = match_input_addr(&t->input, f, &room);
    bool is_first = true;
    for (size_t i = 0; a && i < t->ranges.n; i++) {
        const struct ip_range *r = &t->ranges.v[i];
        if (!cidr_contains(&r->cidr, a) || (r->is_exclusive && !is_first)) {
            continue;
        }
        const void *found = follow(r->on_match, f);
        if (found) {
            return found;
        }
        is_first = false;
    }
    return NULL;
}

static const void *find_by_key(const struct match_tree *t, const struct match_facts *f) {
    if (match_input_is_unknown(&t->input, f)) {
        return &unknown;
    }
    if (t->kind == TREE_IP) {
        return find_range(t, f);
    }
    sv text = match_input_text(&t->input, f);
    if (!text.p) {
        return NULL;
    }
    return t->kind == TREE_EXACT    ? follow(map_get(&t->keys.map, text), f)
           : t->kind == TREE_PREFIX ? find_prefix(t, text, f)
                                    : find_domain(t, text, f);
}

static const void *find(const struct match_tree *t, const struct match_facts *f) {
    const void *found = t->kind == TREE_LIST ? find_in_list(t, f) : find_by_key(t, f);
    return found ? found : follow(&t->on_no_match, f);
}

const void *match_tree_find(const struct match_tree *t, const struct match_facts *facts) {
    const void *found = find(t, facts);
    return found == &unknown ? NULL : found;
}
