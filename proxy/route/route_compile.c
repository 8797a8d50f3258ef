/* RouteConfiguration bytes → route table. Virtual hosts whose bytes are those of the table being
 * replaced are shared, not compiled again: an update costs what it changed plus one hash over all
 * bytes.
 * Threads: config thread; a table may be dropped on any. Spec: config.route.v3.RouteConfiguration,
 * VirtualHost.
 * Not here: one route (route_compile_entry.c), matching (route_match.c). */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "protos/any.h"
#include "protos/findings.h"
#include "protos/gen/route.pb-c.h"
#include "protos/pb_rules.h"
#include "protos/wire.h"
#include "proxy/api/rate_limit.h"
#include "proxy/base/vec.h"
#include "proxy/route/route_metadata.h"
#include "proxy/route/route_private.h"
#include "proxy/route/route_stats.h"
#include "proxy/route/route_vhds.h"

/* A changed table: how far from its place a virtual host is looked for, and how many may be missing
 * there before all are looked through. */
#define PREV_WINDOW 4u
#define PREV_MISSES_MAX 64u
/* How far ahead of it the virtual hosts of a former table are drawn into the cache. */
#define PREV_AHEAD 16u
#define VHOST_ARENA_BYTES 1024
#define BODY_BYTES_MAX_DEFAULT 4096
#define FIELD_VIRTUAL_HOSTS 2

STATS_GROUP(route, ROUTE, ROUTE_STATS);

/* --- wire: virtual hosts are cut out, the rest is one small message --- */

struct pieces {
    VEC(sv) vhosts;
    struct buf rest;
};

/* One field at the front of *wire: *body is the payload of a length-delimited one. False:
 * malformed. */
static bool eat_field(sv *wire, uint64_t *tag, sv *body) {
    uint64_t n;
    *body = SV_NULL;
    if (!wire_eat_varint(wire, tag)) {
        return false;
    }
    switch (*tag & 7) {
    case 0:
        return wire_eat_varint(wire, &n);
    case 1:
        n = 8;
        break;
    case 2:
        if (!wire_eat_varint(wire, &n)) {
            return false;
        }
        break;
    case 5:
        n = 4;
        break;
    default:
        return false; /* groups: no message of ours has one */
    }
    if (n > wire->n) {
        return false;
    }
    *body = sv_sub(*wire, 0, n);
    *wire = sv_skip(*wire, n);
    return true;
}

static bool cut(sv wire, struct pieces *p, struct diag *d) {
    while (wire.n) {
        sv field = wire, body;
        uint64_t tag;
        if (!eat_field(&wire, &tag, &body)) {
            return diag_error(d, "malformed message");
        }
        if (tag == (FIELD_VIRTUAL_HOSTS << 3 | 2)) {
            *vec_push(&p->vhosts) = body;
        } else {
            buf_append(&p->rest, field.p, field.n - wire.n);
        }
    }
    return true;
}

/* --- virtual hosts --- */

/* Everything that a table's compilation shares. */
struct table_compile {
    struct compile_ctx *ctx;      /* the caller's */
    struct compile_ctx table_ctx; /* arena: the table's */
    struct arena scratch;
    const Route__RouteConfiguration *msg;
    struct route_table *t;
    XXH128_hash_t env; /* what virtual hosts depend on beside their bytes */
    bool must_exist;
    uint32_t body_bytes_max;
    struct route_vhost_bytes *more; /* VHDS */
    unsigned more_n;
    const struct route_table *prev;
    unsigned prev_at;        /* where the former table is thought to have the next virtual host */
    unsigned misses;         /* virtual hosts that were not about there */
    struct map prev_by_hash; /* made when many were not */
    bool has_prev_map;
};

static void free_vhost(struct shared *s) {
    struct vhost *v = (struct vhost *)s;
    arena_fini(&v->arena);
    xfree(v);
}

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }
static void release_codes(void *codes) { stats_codes_free((struct stats_codes *)codes); }

void route_compile_stats(struct route_compile *c, const char *kind, sv name,
                         struct stats_scope **scope, struct stats_codes **codes) {
    struct compile_ctx *ctx = c->ctx;
    if (!ctx->stats) {
        return;
    }
    sv prefix =
        arena_printf(c->scratch, "vhost.%.*s.%s.%.*s.", SV_ARG(c->vhost->name), kind, SV_ARG(name));
    *scope = stats_scope_get(ctx->stats, &route_stats_group, prefix);
    arena_on_fini(ctx->arena, release_scope, *scope);
    *codes = stats_codes_new(*scope, "upstream_rq_");
    arena_on_fini(ctx->arena, release_codes, *codes);
}

static void compile_virtual_clusters(struct route_compile *c, const Route__VirtualHost *m) {
    if (m->n_virtual_clusters == 0) {
        return;
    }
    struct compile_ctx *ctx = c->ctx;
    struct virtual_cluster *v =
        arena_new_array(ctx->arena, struct virtual_cluster, m->n_virtual_clusters + 1);
    for (size_t i = 0; i < m->n_virtual_clusters; i++) {
        const Route__VirtualCluster *vc = m->virtual_clusters[i];
        DIAG_FIELD(ctx->diag, "virtual_clusters[%zu]", i);
        if (vc->n_headers == 0) {
            diag_error(ctx->diag, "virtual clusters must define 'headers'");
            continue;
        }
        v[i].name = arena_sv(ctx->arena, sv_cstr(vc->name));
        DIAG_FIELD(ctx->diag, "headers");
        v[i].matchers =
            header_matchers_compile(ctx, (const void *const *)vc->headers, vc->n_headers);
        route_compile_stats(c, "vcluster", v[i].name, &v[i].stats, &v[i].rq_codes);
    }
    v[m->n_virtual_clusters].name = SV("other");
    route_compile_stats(c, "vcluster", SV("other"), &v[m->n_virtual_clusters].stats,
                        &v[m->n_virtual_clusters].rq_codes);
    c->vhost->virtual_clusters = v;
    c->vhost->virtual_clusters_n = (unsigned)m->n_virtual_clusters + 1;
}

static void compile_vhost_mutations(struct compile_ctx *ctx, const Route__VirtualHost *m,
                                    struct vhost *v) {
    {
        DIAG_FIELD(ctx->diag, "request_headers_to_add");
        v->request_mutations = header_mutations_compile(
            ctx, (const void *const *)m->request_headers_to_add, m->n_request_headers_to_add,
            m->request_headers_to_remove, m->n_request_headers_to_remove);
    }
    DIAG_FIELD(ctx->diag, "response_headers_to_add");
    v->response_mutations = header_mutations_compile(
        ctx, (const void *const *)m->response_headers_to_add, m->n_response_headers_to_add,
        m->response_headers_to_remove, m->n_response_headers_to_remove);
}

static void compile_require_tls(struct compile_ctx *ctx, int type, struct vhost *v) {
    switch (type) {
    case ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__NONE:
        v->require_tls = TLS_REQUIRE_NONE;
        break;
    case ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__EXTERNAL_ONLY:
        v->require_tls = TLS_REQUIRE_EXTERNAL;
        break;
    case ROUTE__VIRTUAL_HOST__TLS_REQUIREMENT_TYPE__ALL:
        v->require_tls = TLS_REQUIRE_ALL;
        break;
    default:
        diag_error(ctx->diag, "require_tls: value must be one of the defined enum values");
    }
}

static uint32_t buffer_limit(const Route__VirtualHost *m) {
    if (m->request_body_buffer_limit) {
        uint64_t n = m->request_body_buffer_limit->value;
        return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX - 1;
    }
    return m->per_request_buffer_limit_bytes ? m->per_request_buffer_limit_bytes->value
                                             : UINT32_MAX;
}

/* What routes inherit is compiled before them. */
static void compile_inherited(struct route_compile *c, const Route__VirtualHost *m) {
    struct compile_ctx *ctx = c->ctx;
    if (m->retry_policy_typed_config) {
        diag_error(ctx->diag,
                   "retry_policy_typed_config: retry policy extensions are not supported");
    }
    if (m->retry_policy) {
        DIAG_FIELD(ctx->diag, "retry_policy");
        c->vhost_retry = retry_policy_compile(ctx, m->retry_policy);
    }
    const Route__RouteConfiguration *t = (const Route__RouteConfiguration *)c->table_msg;
    size_t n = m->n_request_mirror_policies;
    const void *const *msgs = (const void *const *)m->request_mirror_policies;
    if (n == 0) { /* made in this virtual host's arena, so that it owes nothing to a table */
        n = t->n_request_mirror_policies;
        msgs = (const void *const *)t->request_mirror_policies;
    }
    if (n) {
        route_compile_mirrors(c, msgs, n, &c->inherited_mirrors, &c->inherited_mirrors_n);
    }
}

static void compile_routes(struct route_compile *c, const Route__VirtualHost *m,
                           struct vhost_routes *rs) {
    struct compile_ctx *ctx = c->ctx;
    const struct route_conditions **conditions =
        arena_new_array(ctx->arena, const struct route_conditions *, m->n_routes);
    unsigned before = diag_errors(ctx->diag);
    rs->v = arena_new_array(ctx->arena, struct route_entry, m->n_routes);
    rs->n = (unsigned)m->n_routes;
    rs->conditions = conditions;
    for (size_t i = 0; i < m->n_routes; i++) {
        DIAG_FIELD(ctx->diag, "routes[%zu]", i);
        route_compile_entry(c, m->routes[i], &rs->v[i], &conditions[i]);
    }
    if (diag_errors(ctx->diag) == before) {
        rs->index = path_index_build(ctx->arena, rs->v, rs->n);
    }
}

static void compile_domains(struct compile_ctx *ctx, const Route__VirtualHost *m,
                            struct vhost_routes *rs) {
    sv *domains = arena_new_array(ctx->arena, sv, m->n_domains);
    for (size_t i = 0; i < m->n_domains; i++) {
        domains[i] = route_lower(ctx->arena, m->domains[i]);
    }
    rs->domains = domains;
    rs->domains_n = (unsigned)m->n_domains;
}

static void fill_vhost(struct route_compile *c, const Route__VirtualHost *m) {
    struct compile_ctx *ctx = c->ctx;
    struct vhost *v = c->vhost;
    v->name = arena_sv(ctx->arena, sv_cstr(m->name));
    compile_require_tls(ctx, (int)m->require_tls, v);
    compile_domains(ctx, m, v->routes_);
    if (m->matcher) {
        diag_error(ctx->diag, m->n_routes ? "cannot set both matcher and routes on virtual host"
                                          : "matcher: matcher trees are not supported");
    }
    v->include_request_attempt_count = m->include_request_attempt_count;
    v->include_attempt_count_in_response = m->include_attempt_count_in_response;
    v->include_is_timeout_retry = m->include_is_timeout_retry_header;
    v->request_body_buffer_limit = buffer_limit(m);
    v->metadata = route_metadata_compile(ctx, m->metadata);
    v->rate_limits =
        rate_limits_compile(ctx, (const void *const *)m->rate_limits, m->n_rate_limits, false);
    if (m->n_typed_per_filter_config) {
        DIAG_FIELD(ctx->diag, "typed_per_filter_config");
        route_compile_overrides(ctx, (const void *const *)m->typed_per_filter_config,
                                m->n_typed_per_filter_config, &v->overrides);
    }
    route_compile_legacy_cors(ctx, m->cors, &v->overrides);
    compile_vhost_mutations(ctx, m, v);
    compile_virtual_clusters(c, m);
    compile_inherited(c, m);
    compile_routes(c, m, v->routes_);
}

/* NULL: errors added. */
static struct vhost *compile_vhost(struct table_compile *tc, sv wire, XXH128_hash_t hash) {
    struct vhost *v = xnew(struct vhost);
    unsigned before = diag_errors(tc->ctx->diag);
    shared_init(&v->shared, free_vhost);
    arena_init(&v->arena, VHOST_ARENA_BYTES);
    struct compile_ctx ctx = *tc->ctx;
    ctx.arena = &v->arena;
    ctx.scratch = &tc->scratch;
    arena_reset(&tc->scratch);
    const Route__VirtualHost *m = PROTO_UNPACK(Route__VirtualHost, route__virtual_host__descriptor,
                                               wire, &tc->scratch, ctx.diag);
    if (m && pb_rules_check(&m->base, ctx.diag) &&
        findings_check(&m->base, PB_JSON_UNKNOWN_SKIP, ctx.diag)) {
        struct route_compile c = {.ctx = &ctx,
                                  .scratch = &tc->scratch,
                                  .vhost = v,
                                  .vhost_msg = m,
                                  .table_msg = tc->msg,
                                  .must_exist = tc->must_exist,
                                  .body_bytes_max = tc->body_bytes_max};
        v->routes_ = arena_new(&v->arena, struct vhost_routes);
        v->hash_[0] = hash.low64;
        v->hash_[1] = hash.high64;
        fill_vhost(&c, m);
        arena_trim(&v->arena);
        arena_check_apart(&v->arena, &tc->scratch);
    }
    if (diag_errors(tc->ctx->diag) != before) {
        shared_unref(&v->shared);
        return NULL;
    }
    return v;
}

static bool has_hash(const struct vhost *v, XXH128_hash_t hash) {
    return v->hash_[0] == hash.low64 && v->hash_[1] == hash.high64;
}

/* Of p's virtual hosts about `at`, the one with these bytes; p->vhosts_n: none. */
static unsigned find_near(const struct route_table_private *p, unsigned at, XXH128_hash_t hash) {
    for (unsigned d = 0; d <= PREV_WINDOW; d++) {
        if (at + d < p->vhosts_n && has_hash(p->vhosts[at + d], hash)) {
            return at + d;
        }
        if (d <= at && at - d < p->vhosts_n && has_hash(p->vhosts[at - d], hash)) {
            return at - d;
        }
    }
    return p->vhosts_n;
}

static const struct vhost *find_anywhere(struct table_compile *tc, XXH128_hash_t hash) {
    const struct route_table_private *p = tc->prev->priv_;
    if (!tc->has_prev_map) {
        tc->has_prev_map = true;
        for (unsigned k = 0; k < p->vhosts_n; k++) {
            map_put(&tc->prev_by_hash, sv_from(p->vhosts[k]->hash_, sizeof(p->vhosts[k]->hash_)),
                    (void *)(uintptr_t)p->vhosts[k]);
        }
    }
    return map_get(&tc->prev_by_hash, sv_from(&hash, sizeof(hash)));
}

/* The former table's virtual hosts lie all over the heap, and are looked at one after the other:
 * itself first, then what its own pointers lead to. */
static void draw_near(const struct route_table_private *p, unsigned at) {
    if (at + PREV_AHEAD >= p->vhosts_n) {
        return;
    }
    const struct vhost *far = p->vhosts[at + PREV_AHEAD];
    const struct vhost *next = p->vhosts[at + PREV_AHEAD / 2];
    __builtin_prefetch(far, 1);
    __builtin_prefetch(&far->routes_);
    __builtin_prefetch(next->routes_);
    __builtin_prefetch(p->vhosts[at + PREV_AHEAD / 4]->routes_->domains);
}

/* The virtual host of the former table that has these bytes; NULL: none was found. Most stand where
 * they stood, but for what was put in or taken out before them. */
static struct vhost *find_prev(struct table_compile *tc, XXH128_hash_t hash) {
    const struct route_table_private *p = tc->prev ? tc->prev->priv_ : NULL;
    if (!p) {
        return NULL;
    }
    draw_near(p, tc->prev_at);
    unsigned at = find_near(p, tc->prev_at, hash);
    const struct vhost *v = NULL;
    if (at < p->vhosts_n) {
        v = p->vhosts[at];
        tc->prev_at = at + 1;
    } else {
        tc->prev_at++; /* changed where it stood, as it seems */
        v = ++tc->misses > PREV_MISSES_MAX ? find_anywhere(tc, hash) : NULL;
    }
    return (struct vhost *)(uintptr_t)v;
}

static bool add_vhost(struct table_compile *tc, unsigned i, sv wire) {
    struct route_table_private *p = tc->t->priv_;
    XXH128_hash_t hash = XXH3_128bits_withSeed(wire.p, wire.n, tc->env.low64);
    /* A cluster that must exist may be gone since: then everything is looked at again. */
    struct vhost *v = tc->must_exist ? NULL : find_prev(tc, hash);
    if (v) {
        shared_ref(v);
    } else {
        DIAG_FIELD(tc->ctx->diag, "virtual_hosts[%u]", i);
        v = compile_vhost(tc, wire, hash);
        if (!v) {
            return false;
        }
    }
    p->vhosts[p->vhosts_n++] = v;
    return host_index_add(&p->hosts, v, tc->t->name, tc->ctx->diag);
}

/* VHDS: what is wrong with one is no error of the table's. A domain that is taken stays with who
 * has it. */
static void add_more(struct table_compile *tc, unsigned i, struct route_vhost_bytes *more) {
    struct compile_ctx *outer = tc->ctx, own = *tc->ctx;
    struct diag d;
    diag_init(&d);
    own.diag = &d;
    tc->ctx = &own;
    if (!add_vhost(tc, i, more->wire)) {
        more->error = sv_dup(diag_text(&d));
    }
    tc->ctx = outer;
    diag_fini(&d);
}

/* --- table --- */

static void free_table(struct shared *s) {
    struct route_table *t = (struct route_table *)s;
    struct route_table_private *p = t->priv_;
    for (unsigned i = 0; i < p->vhosts_n; i++) {
        shared_unref(&((struct vhost *)(uintptr_t)p->vhosts[i])->shared);
    }
    host_index_fini(&p->hosts);
    arena_fini(&p->arena);
    xfree(p);
    xfree(t);
}

static struct route_table *table_new(void) {
    struct route_table *t = xnew(struct route_table);
    t->priv_ = xnew(struct route_table_private);
    shared_init(&t->shared, free_table);
    arena_init(&t->priv_->arena, 0);
    host_index_init(&t->priv_->hosts);
    return t;
}

static void compile_internal_headers(struct table_compile *tc) {
    const Route__RouteConfiguration *m = tc->msg;
    struct arena *a = &tc->t->priv_->arena;
    sv *names = arena_new_array(a, sv, m->n_internal_only_headers);
    for (size_t i = 0; i < m->n_internal_only_headers; i++) {
        names[i] = route_lower(a, m->internal_only_headers[i]);
    }
    tc->t->internal_only_headers = names;
    tc->t->internal_only_n = (unsigned)m->n_internal_only_headers;
}

static void compile_table_mutations(struct compile_ctx *ctx, const Route__RouteConfiguration *m,
                                    struct route_table *t) {
    {
        DIAG_FIELD(ctx->diag, "request_headers_to_add");
        t->request_mutations = header_mutations_compile(
            ctx, (const void *const *)m->request_headers_to_add, m->n_request_headers_to_add,
            m->request_headers_to_remove, m->n_request_headers_to_remove);
    }
    DIAG_FIELD(ctx->diag, "response_headers_to_add");
    t->response_mutations = header_mutations_compile(
        ctx, (const void *const *)m->response_headers_to_add, m->n_response_headers_to_add,
        m->response_headers_to_remove, m->n_response_headers_to_remove);
}

static void compile_discovery(struct compile_ctx *ctx, const Route__RouteConfiguration *m) {
    if (m->vhds) {
        DIAG_FIELD(ctx->diag, "vhds");
        compile_virtual_hosts_ref(ctx, sv_cstr(m->name), m->vhds->config_source);
    }
    if (m->n_cluster_specifier_plugins) {
        diag_error(ctx->diag,
                   "cluster_specifier_plugins: cluster specifier plugins are not supported");
    }
}

static void fill_table(struct table_compile *tc) {
    const Route__RouteConfiguration *m = tc->msg;
    struct compile_ctx *ctx = &tc->table_ctx;
    struct route_table *t = tc->t;
    struct route_table_private *p = t->priv_;
    t->name = arena_sv(ctx->arena, sv_cstr(m->name));
    t->most_specific_mutations_win = m->most_specific_header_mutations_wins;
    t->ignore_port_in_host = m->ignore_port_in_host_matching;
    t->ignore_path_parameters = m->ignore_path_parameters_in_path_matching;
    t->uses_vhds = m->vhds != NULL;
    t->metadata = route_metadata_compile(ctx, m->metadata);
    p->vhost_header = route_lower(ctx->arena, m->vhost_header);
    p->vhost_header_id = header_id_of(p->vhost_header);
    if (p->vhost_header_id == HDR_host) {
        p->vhost_header_id = HDR_authority;
    }
    tc->must_exist = m->validate_clusters ? m->validate_clusters->value : ctx->is_static;
    tc->body_bytes_max = m->max_direct_response_body_size_bytes
                             ? m->max_direct_response_body_size_bytes->value
                             : BODY_BYTES_MAX_DEFAULT;
    compile_internal_headers(tc);
    compile_table_mutations(ctx, m, t);
    compile_discovery(ctx, m);
    if (m->n_typed_per_filter_config) {
        DIAG_FIELD(ctx->diag, "typed_per_filter_config");
        route_compile_overrides(ctx, (const void *const *)m->typed_per_filter_config,
                                m->n_typed_per_filter_config, &t->overrides);
    }
}

/* What a virtual host takes from its table: mirrors, limits, where filters' stats are. */
static XXH128_hash_t hash_environment(struct table_compile *tc) {
    struct buf b;
    buf_init(&b);
    for (size_t i = 0; i < tc->msg->n_request_mirror_policies; i++) {
        buf_append_sv(&b, proto_pack(&tc->msg->request_mirror_policies[i]->base, &tc->scratch));
    }
    uint64_t more[] = {tc->must_exist, tc->body_bytes_max, tc->msg->n_request_mirror_policies,
                       tc->ctx->is_static};
    buf_append(&b, more, sizeof(more));
    buf_append_sv(&b, tc->ctx->stat_prefix);
    sv all = buf_pullup(&b, buf_len(&b));
    XXH128_hash_t h = XXH3_128bits(all.p, all.n);
    buf_fini(&b);
    return h;
}

static bool compile_pieces(struct table_compile *tc, struct pieces *p) {
    struct diag *d = tc->ctx->diag;
    struct arena rest; /* the table's message lives while virtual hosts are compiled */
    arena_init(&rest, 0);
    tc->table_ctx.scratch = &rest;
    tc->msg = PROTO_UNPACK(Route__RouteConfiguration, route__route_configuration__descriptor,
                           buf_pullup(&p->rest, buf_len(&p->rest)), &rest, d);
    unsigned before = diag_errors(d);
    if (tc->msg && pb_rules_check(&tc->msg->base, d) &&
        findings_check(&tc->msg->base, PB_JSON_UNKNOWN_SKIP, d)) {
        fill_table(tc);
        tc->env = hash_environment(tc);
        tc->t->priv_->vhosts =
            arena_new_array(&tc->t->priv_->arena, const struct vhost *, p->vhosts.n + tc->more_n);
        /* one that lost virtual hosts may need much less */
        if (tc->prev && p->vhosts.n >= tc->prev->priv_->vhosts_n) {
            host_index_reserve(&tc->t->priv_->hosts, &tc->prev->priv_->hosts);
        }
        for (size_t i = 0; i < p->vhosts.n; i++) {
            add_vhost(tc, (unsigned)i, p->vhosts.p[i]);
        }
        for (unsigned i = 0; i < tc->more_n; i++) {
            add_more(tc, (unsigned)p->vhosts.n + i, &tc->more[i]);
        }
        host_index_finish(&tc->t->priv_->hosts, &tc->t->priv_->arena);
    }
    bool ok = tc->msg && diag_errors(d) == before;
    arena_check_apart(&tc->t->priv_->arena, &rest);
    arena_fini(&rest);
    return ok;
}

struct route_table *route_table_compile(struct compile_ctx *ctx, sv wire,
                                        const struct route_table *prev) {
    return route_table_compile_with(ctx, wire, NULL, 0, prev);
}

struct route_table *route_table_compile_with(struct compile_ctx *ctx, sv wire,
                                             struct route_vhost_bytes *more, unsigned more_n,
                                             const struct route_table *prev) {
    struct table_compile tc = {.ctx = ctx,
                               .table_ctx = *ctx,
                               .prev = prev,
                               .t = table_new(),
                               .more = more,
                               .more_n = more_n};
    struct pieces p = {.vhosts = {NULL, 0, 0}};
    buf_init(&p.rest);
    map_init(&tc.prev_by_hash);
    arena_init(&tc.scratch, 0);
    tc.table_ctx.arena = &tc.t->priv_->arena;
    bool ok = cut(wire, &p, ctx->diag) && compile_pieces(&tc, &p);
    arena_fini(&tc.scratch);
    map_fini(&tc.prev_by_hash);
    buf_fini(&p.rest);
    vec_fini(&p.vhosts);
    if (!ok) {
        shared_unref(&tc.t->shared);
        return NULL;
    }
    return tc.t;
}
