/* Building and walking the decision tree of filter chain matching. Every level is a node of the
 * same form: the children for the values that rules name, sorted, and the child of the rules that
 * name none.
 * Threads: as chain_match.h. Spec: listener.v3.FilterChainMatch; Envoy's choice at each level.
 * Not here: the proto message (config/compile_listener.c). */
#include "proxy/net/chain_match.h"

#include <stdlib.h>

#include "proxy/base/vec.h"

#define SERVER_NAME_MAX 255
#define TRANSPORT_DEFAULT SV("raw_buffer")

enum level {
    LEVEL_PORT,
    LEVEL_IP,
    LEVEL_SERVER_NAME,
    LEVEL_TRANSPORT,
    LEVEL_ALPN,
    LEVEL_DIRECT_SOURCE,
    LEVEL_SOURCE_TYPE,
    LEVEL_SOURCE,
    LEVEL_SOURCE_PORT,
    LEVELS
};

struct node {
    struct node *any;       /* of rules without this criterion; NULL: there are none */
    sv *keys;               /* sorted */
    struct node **children; /* [n], beside keys */
    unsigned n;
    uint32_t chain;         /* below the last level */
    struct cidr_trie *trie; /* of the levels of addresses: value is an index into children */
};
struct chain_match {
    const struct node *root; /* NULL: no rules */
    uint32_t default_chain;
};

/* ---- keys ---- */

/* A value a rule names on a level, as bytes. */
struct entry {
    sv key; /* empty: any */
    uint32_t rule;
};
struct builder {
    struct arena *arena;
    const struct chain_match_rule *rules;
    struct diag *diag;
    bool *is_reported; /* per rule: it met one before it at more than one leaf */
    bool has_overlap;
};
typedef VEC(struct entry) entries;

static void add(entries *v, sv key, uint32_t rule) { *vec_push(v) = (struct entry){key, rule}; }

static void add_u16(entries *v, const uint16_t *value, uint32_t rule) {
    add(v, sv_from(value, *value ? sizeof(*value) : 0), rule);
}

/* Family, length and address without padding. */
#define CIDR_KEY_BYTES 18

static sv cidr_key(struct arena *a, const struct cidr *c) {
    char *key = arena_alloc(a, CIDR_KEY_BYTES);
    key[0] = c->family == AF_INET6;
    key[1] = (char)c->bits;
    memcpy(key + 2, c->ip, sizeof(c->ip));
    return sv_from(key, CIDR_KEY_BYTES);
}

static struct cidr cidr_of_key(sv key) {
    struct cidr c = {.family = key.p[0] ? AF_INET6 : AF_INET, .bits = (uint8_t)key.p[1]};
    memcpy(c.ip, key.p + 2, sizeof(c.ip));
    return c;
}

static void add_cidrs(struct builder *b, entries *v, const struct cidr *c, unsigned n,
                      uint32_t rule) {
    for (unsigned i = 0; i < n; i++) {
        add(v, cidr_key(b->arena, &c[i]), rule);
    }
    if (n == 0) {
        add(v, SV_NULL, rule);
    }
}

/* "*.example.com" is kept as ".example.com"; names are compared in lower case, as tls_inspector
 * reports them. */
static sv server_key(struct arena *a, sv name) {
    name = sv_starts(name, SV("*.")) ? sv_skip(name, 1) : name;
    char *lower = arena_cstr(a, name);
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = ascii_tolower(lower[i]);
    }
    return sv_from(lower, name.n);
}

static void add_server_names(struct builder *b, entries *v, uint32_t rule) {
    const struct chain_match_rule *r = &b->rules[rule];
    for (unsigned i = 0; i < r->server_names_n; i++) {
        add(v, server_key(b->arena, r->server_names[i]), rule);
    }
    if (r->server_names_n == 0) {
        add(v, SV_NULL, rule);
    }
}

static void add_entries(struct builder *b, enum level level, entries *v, uint32_t rule) {
    const struct chain_match_rule *r = &b->rules[rule];
    switch (level) {
    case LEVEL_PORT:
        add_u16(v, &r->destination_port, rule);
        break;
    case LEVEL_IP:
        add_cidrs(b, v, r->prefix_ranges, r->prefix_ranges_n, rule);
        break;
    case LEVEL_SERVER_NAME:
        add_server_names(b, v, rule);
        break;
    case LEVEL_TRANSPORT:
        add(v, r->transport_protocol, rule);
        break;
    case LEVEL_ALPN:
        for (unsigned i = 0; i < r->application_protocols_n; i++) {
            add(v, r->application_protocols[i], rule);
        }
        if (r->application_protocols_n == 0) {
            add(v, SV_NULL, rule);
        }
        break;
    case LEVEL_DIRECT_SOURCE:
        add_cidrs(b, v, r->direct_source_prefix_ranges, r->direct_source_n, rule);
        break;
    case LEVEL_SOURCE_TYPE:
        add_u16(v, &r->source_type, rule);
        break;
    case LEVEL_SOURCE:
        add_cidrs(b, v, r->source_prefix_ranges, r->source_n, rule);
        break;
    case LEVEL_SOURCE_PORT:
        for (unsigned i = 0; i < r->source_ports_n; i++) {
            add_u16(v, &r->source_ports[i], rule);
        }
        if (r->source_ports_n == 0) {
            add(v, SV_NULL, rule);
        }
        break;
    case LEVELS:
        break;
    }
}

static int cmp_entries(const void *a, const void *b) {
    const struct entry *x = a, *y = b;
    int c = sv_cmp(x->key, y->key);
    if (c == 0) {
        c = x->rule < y->rule ? -1 : x->rule > y->rule;
    }
    return c;
}

/* ---- checks ---- */

static bool same_views(const sv *a, unsigned an, const sv *b, unsigned bn) {
    if (an != bn) {
        return false;
    }
    for (unsigned i = 0; i < an; i++) {
        if (!sv_eq(a[i], b[i])) {
            return false;
        }
    }
    return true;
}

static bool same_cidrs(const struct cidr *a, unsigned an, const struct cidr *b, unsigned bn) {
    if (an != bn) {
        return false;
    }
    for (unsigned i = 0; i < an; i++) {
        if (a[i].family != b[i].family || a[i].bits != b[i].bits ||
            memcmp(a[i].ip, b[i].ip, sizeof(a[i].ip)) != 0) {
            return false;
        }
    }
    return true;
}

static bool is_same_match(const struct chain_match_rule *a, const struct chain_match_rule *b) {
    return a->destination_port == b->destination_port && a->source_type == b->source_type &&
           sv_eq(a->transport_protocol, b->transport_protocol) &&
           same_views(a->server_names, a->server_names_n, b->server_names, b->server_names_n) &&
           same_views(a->application_protocols, a->application_protocols_n,
                      b->application_protocols, b->application_protocols_n) &&
           same_cidrs(a->prefix_ranges, a->prefix_ranges_n, b->prefix_ranges, b->prefix_ranges_n) &&
           same_cidrs(a->direct_source_prefix_ranges, a->direct_source_n,
                      b->direct_source_prefix_ranges, b->direct_source_n) &&
           same_cidrs(a->source_prefix_ranges, a->source_n, b->source_prefix_ranges, b->source_n) &&
           sv_eq(sv_from(a->source_ports, a->source_ports_n * sizeof(uint16_t)),
                 sv_from(b->source_ports, b->source_ports_n * sizeof(uint16_t)));
}

/* Two rules lead to one leaf. */
static void report_clash(struct builder *b, uint32_t first, uint32_t second) {
    const struct chain_match_rule *x = &b->rules[first], *y = &b->rules[second];
    if (b->is_reported[second]) {
        return;
    }
    b->is_reported[second] = true;
    if (is_same_match(x, y)) {
        diag_error(b->diag, "filter chain '%.*s' has the same matching rules defined as '%.*s'",
                   SV_ARG(y->name), SV_ARG(x->name));
    } else if (!b->has_overlap) {
        b->has_overlap = true;
        diag_error(b->diag, "multiple filter chains with overlapping matching rules are defined");
    }
}

static void check_server_names(const struct chain_match_rule *r, struct diag *d) {
    for (unsigned i = 0; i < r->server_names_n; i++) {
        sv name = r->server_names[i];
        sv rest = sv_starts(name, SV("*.")) ? sv_skip(name, 2) : name;
        if (sv_find(rest, '*') != SIZE_MAX) {
            diag_error(d, "partial wildcards are not supported in \"server_names\"");
            return;
        }
    }
}

/* ---- building ---- */

static struct node *build(struct builder *b, enum level level, const uint32_t *rules, unsigned n);

/* The node for entries [from, to), which have one key. */
static struct node *build_group(struct builder *b, enum level level, const entries *v, size_t from,
                                size_t to) {
    VEC(uint32_t) rules = {0};
    for (size_t i = from; i < to; i++) {
        if (rules.n == 0 || rules.p[rules.n - 1] != v->p[i].rule) {
            *vec_push(&rules) = v->p[i].rule;
        }
    }
    struct node *node = build(b, level + 1, rules.p, (unsigned)rules.n);
    vec_fini(&rules);
    return node;
}

static bool is_address_level(enum level level) {
    return level == LEVEL_IP || level == LEVEL_DIRECT_SOURCE || level == LEVEL_SOURCE;
}

static struct cidr_trie *build_trie(struct builder *b, const struct node *node) {
    struct cidr_trie *t = cidr_trie_new(b->arena);
    for (unsigned i = 0; i < node->n; i++) {
        struct cidr c = cidr_of_key(node->keys[i]);
        cidr_trie_add(t, &c, i);
    }
    return t;
}

static struct node *build_leaf(struct builder *b, const uint32_t *rules, unsigned n) {
    struct node *node = arena_new(b->arena, struct node);
    node->chain = rules[0];
    for (unsigned i = 1; i < n; i++) {
        report_clash(b, rules[0], rules[i]);
    }
    return node;
}

static struct node *build(struct builder *b, enum level level, const uint32_t *rules, unsigned n) {
    if (level == LEVELS) {
        return build_leaf(b, rules, n);
    }
    entries v = {0};
    for (unsigned i = 0; i < n; i++) {
        add_entries(b, level, &v, rules[i]);
    }
    qsort(v.p, v.n, sizeof(*v.p), cmp_entries);
    struct node *node = arena_new(b->arena, struct node);
    node->keys = arena_new_array(b->arena, sv, v.n);
    node->children = arena_new_array(b->arena, struct node *, v.n);
    for (size_t from = 0, to; from < v.n; from = to) {
        for (to = from + 1; to < v.n && sv_eq(v.p[to].key, v.p[from].key); to++) {}
        struct node *child = build_group(b, level, &v, from, to);
        if (v.p[from].key.n == 0) {
            node->any = child;
        } else {
            node->keys[node->n] = arena_sv(b->arena, v.p[from].key);
            node->children[node->n++] = child;
        }
    }
    if (is_address_level(level) && node->n) {
        node->trie = build_trie(b, node);
    }
    vec_fini(&v);
    return node;
}

struct chain_match *chain_match_build(struct arena *a, const struct chain_match_rule *rules,
                                      unsigned n, uint32_t default_chain, struct diag *d) {
    unsigned errors = diag_errors(d);
    struct builder b = {
        .arena = a, .rules = rules, .diag = d, .is_reported = arena_new_array(a, bool, n)};
    struct chain_match *m = arena_new(a, struct chain_match);
    m->default_chain = default_chain;
    VEC(uint32_t) all = {0};
    for (uint32_t i = 0; i < n; i++) {
        check_server_names(&rules[i], d);
        *vec_push(&all) = i;
    }
    m->root = n ? build(&b, 0, all.p, n) : NULL;
    vec_fini(&all);
    return diag_errors(d) == errors ? m : NULL;
}

/* ---- finding ---- */

static const struct node *child_of(const struct node *node, sv key) {
    unsigned low = 0, high = node->n;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        int c = sv_cmp(node->keys[mid], key);
        if (c == 0) {
            return node->children[mid];
        }
        if (c < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

static const struct node *by_u16(const struct node *node, uint16_t value) {
    const struct node *child =
        value && node->n ? child_of(node, sv_from(&value, sizeof(value))) : NULL;
    return child ? child : node->any;
}

static const struct node *by_view(const struct node *node, sv value) {
    const struct node *child = value.n && node->n ? child_of(node, value) : NULL;
    return child ? child : node->any;
}

/* A UNIX socket's end is an address that only ranges of all addresses contain. */
static const struct node *by_address(const struct node *node, const struct addr *a) {
    static const struct addr nowhere = {.family = AF_INET, .ip = {255, 255, 255, 255}};
    bool is_ip = a->family == AF_INET || a->family == AF_INET6;
    uint32_t i;
    if (node->trie && cidr_trie_find(node->trie, is_ip ? a : &nowhere, &i, NULL)) {
        return node->children[i];
    }
    return node->any;
}

/* The exact name, then ".b.c" and ".c" of "a.b.c". */
static const struct node *by_server_name(const struct node *node, sv name) {
    char lower[SERVER_NAME_MAX];
    if (node->n == 0 || name.n == 0 || name.n > sizeof(lower)) {
        return node->any;
    }
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = ascii_tolower(name.p[i]);
    }
    sv rest = sv_from(lower, name.n);
    const struct node *child = child_of(node, rest);
    while (!child) {
        size_t dot = sv_find(sv_skip(rest, 1), '.');
        if (dot == SIZE_MAX || dot + 2 >= rest.n) {
            return node->any;
        }
        rest = sv_skip(rest, dot + 1);
        child = child_of(node, rest);
    }
    return child;
}

static const struct node *by_alpn(const struct node *node, const struct accept_info *info) {
    for (unsigned i = 0; i < info->alpn_n && node->n; i++) {
        const struct node *child = info->alpn[i].n ? child_of(node, info->alpn[i]) : NULL;
        if (child) {
            return child;
        }
    }
    return node->any;
}

static bool is_same_ip_or_loopback(const struct accept_info *info) {
    return info->remote.family == AF_UNIX || addr_is_loopback(&info->remote) ||
           addr_ip_eq(&info->remote, &info->local);
}

static const struct node *by_source_type(const struct node *node, const struct accept_info *info) {
    if (node->n == 0) {
        return node->any;
    }
    return by_u16(node, is_same_ip_or_loopback(info) ? CHAIN_SOURCE_SAME_IP_OR_LOOPBACK
                                                     : CHAIN_SOURCE_EXTERNAL);
}

/* From the level below the destination port on. */
static uint32_t find_below_port(const struct node *node, const struct accept_info *info) {
    for (enum level level = LEVEL_IP; node && level < LEVELS; level++) {
        switch (level) {
        case LEVEL_IP:
            node = by_address(node, &info->local);
            break;
        case LEVEL_SERVER_NAME:
            node = by_server_name(node, info->server_name);
            break;
        case LEVEL_TRANSPORT:
            node = by_view(node, info->transport_protocol.n ? info->transport_protocol
                                                            : TRANSPORT_DEFAULT);
            break;
        case LEVEL_ALPN:
            node = by_alpn(node, info);
            break;
        case LEVEL_DIRECT_SOURCE:
            node = by_address(node, &info->direct_remote);
            break;
        case LEVEL_SOURCE_TYPE:
            node = by_source_type(node, info);
            break;
        case LEVEL_SOURCE:
            node = by_address(node, &info->remote);
            break;
        case LEVEL_SOURCE_PORT:
            node = by_u16(node, info->remote.family == AF_UNIX ? 0 : info->remote.port);
            break;
        case LEVEL_PORT:
        case LEVELS:
            break;
        }
    }
    return node ? node->chain : CHAIN_NONE;
}

uint32_t chain_match_find(const struct chain_match *m, const struct accept_info *info) {
    if (!m->root) {
        return m->default_chain;
    }
    const struct node *node = by_u16(m->root, info->local.family == AF_UNIX ? 0 : info->local.port);
    uint32_t chain = find_below_port(node, info);
    return chain == CHAIN_NONE ? m->default_chain : chain;
}
