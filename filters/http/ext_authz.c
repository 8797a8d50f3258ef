/* External authorization: each request waits until a service has said that it may go on. Without an
 * answer it is refused, unless failure_mode_allow says otherwise.
 * Threads: config immutable but for the counters of clusters, which are each thread's own; streams
 * worker-local. A check lives as long as its stream at most.
 * Spec: extensions.filters.http.ext_authz.v3.
 * Not here: asking, and reading answers (common/ext_authz*.c). */
#include "filters/common/ext_authz.h"
#include "filters/common/mutation_rules.h"
#include "filters/common/query_params.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_ext_authz.pb-c.h"
#include "proxy/base/map.h"
#include "proxy/base/runtime.h"

#define EXT_AUTHZ_STATS(P, C, G, H, T)  \
    C(P, denied)                        \
    C(P, disabled)                      \
    C(P, error)                         \
    C(P, failure_mode_allowed)          \
    C(P, filter_state_name_collision)   \
    C(P, ignored_dynamic_metadata)      \
    C(P, invalid)                       \
    C(P, ok)                            \
    C(P, omitted_response_headers)      \
    C(P, request_header_limits_reached) \
    C(P, response_header_limits_reached) C(P, shadow_denied) C(P, shadow_error)
STATS_ENUM(EXT_AUTHZ, EXT_AUTHZ_STATS);
STATS_GROUP(ext_authz, EXT_AUTHZ, EXT_AUTHZ_STATS);
static const struct stats_group ext_authz_cluster_group = {.name = "ext_authz_cluster"};

#define CLUSTERS_MAX 4096 /* whose counters a thread keeps; further ones are not counted */
#define NAMESPACE SV("envoy.filters.http.ext_authz")

struct body_config {
    bool is_on, allows_partial, packs_as_bytes;
    uint32_t max_bytes;
};
struct cluster_stats {
    struct stats_scope *scope;
    struct stat_dyn *cells[EXT_AUTHZ_STATS_N]; /* NULL until counted */
};
struct thread_clusters { /* worker-local */
    struct arena arena;
    struct map clusters; /* name → cluster_stats */
};
struct names {
    const sv *v;
    unsigned n;
};
struct ext_authz_config {
    /* immutable */
    const struct ext_authz_service *service;
    struct body_config body;
    bool allows_failures, tells_failures, clears_route, validates, charges_cluster;
    bool has_certificate, has_tls_session, has_raw_headers, takes_metadata;
    bool is_shadow, tells_latency;
    unsigned error_status;
    uint32_t denied_body_max; /* 0: no limit */
    bool has_enabled, has_allowed;
    struct fraction enabled;
    const struct metadata_matcher *enabled_metadata; /* NULL: any */
    sv deny_key;
    bool denies_when_disabled;
    struct string_matchers allowed, disallowed;
    const struct mutation_rules *rules; /* NULL: none */
    struct names namespaces, route_namespaces;
    struct stats_scope *stats;
    struct stats_store *store;
    sv cluster_prefix;                                  /* "ext_authz.[<stat_prefix>.]" */
    struct thread_clusters *threads[STATS_THREADS_MAX]; /* each written by its own thread only */
};
struct ext_authz_route {
    bool is_disabled, skips_body, has_body;
    struct body_config body;
    const struct ext_authz_service *service; /* NULL: the filter's */
    const struct ext_authz_pair *extensions;
    unsigned extensions_n;
};
struct ext_authz {
    struct http_filter base; /* must be first */
    bool buffers;            /* the body is gathered; the check follows */
    bool is_checking;
    struct body_config body;
    struct ext_authz_pending pending;
    uint64_t start_us;
    sv cluster; /* the route's when the check began, by which it is counted; empty: none */
    struct ext_authz_changes response; /* to make on the response */
};

static struct ext_authz *self(struct http_filter *f) { return (struct ext_authz *)f; }
static const struct ext_authz_config *config_of(const struct ext_authz *x) {
    return (const struct ext_authz_config *)x->base.config;
}

/* --- compile --- */

static void release(void *config) {
    struct ext_authz_config *c = (struct ext_authz_config *)config;
    for (size_t i = 0; i < STATS_THREADS_MAX; i++) {
        if (c->threads[i]) {
            size_t it = 0;
            for (struct map_slot *e; (e = map_next(&c->threads[i]->clusters, &it));) {
                stats_scope_unref(((struct cluster_stats *)e->value)->scope);
            }
            map_fini(&c->threads[i]->clusters);
            arena_fini(&c->threads[i]->arena);
            xfree(c->threads[i]);
        }
    }
    stats_scope_unref(c->stats);
}

static bool flag(const Pb__BoolValue *b, bool dflt) { return b ? b->value : dflt; }

static struct body_config compile_body(const HttpExtAuthz__BufferSettings *m) {
    if (!m) {
        return (struct body_config){0};
    }
    return (struct body_config){true, m->allow_partial_message, m->pack_as_bytes,
                                m->max_request_bytes};
}

static struct names copy_names(struct compile_ctx *ctx, const char *const *v, size_t n) {
    sv *names = arena_new_array(ctx->arena, sv, n + 1);
    for (size_t i = 0; i < n; i++) {
        names[i] = arena_sv(ctx->arena, sv_cstr(v[i]));
    }
    return (struct names){names, (unsigned)n};
}

/* What bears on who is let in and cannot be honoured. */
static void refuse_unsupported(struct compile_ctx *ctx, const HttpExtAuthz__ExtAuthz *m) {
    const struct {
        bool is_set;
        const char *field;
    } fields[] = {
        {m->n_typed_metadata_context_namespaces, "typed_metadata_context_namespaces"},
        {m->n_route_typed_metadata_context_namespaces, "route_typed_metadata_context_namespaces"},
        {*m->bootstrap_metadata_labels_key, "bootstrap_metadata_labels_key"},
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        if (fields[i].is_set) {
            diag_error(ctx->diag, "%s: not supported", fields[i].field);
        }
    }
    if (m->filter_metadata) {
        compile_unhonoured(ctx, "filter_metadata");
    }
    if (m->enforce_response_header_limits) {
        compile_unhonoured(ctx, "enforce_response_header_limits");
    }
}

static const struct ext_authz_service *compile_service(struct compile_ctx *ctx,
                                                       const HttpExtAuthz__ExtAuthz *m) {
    switch (m->services_case) {
    case HTTP_EXT_AUTHZ__EXT_AUTHZ__SERVICES_GRPC_SERVICE: {
        DIAG_FIELD(ctx->diag, "grpc_service");
        return ext_authz_grpc_compile(ctx, m->grpc_service);
    }
    case HTTP_EXT_AUTHZ__EXT_AUTHZ__SERVICES_HTTP_SERVICE: {
        DIAG_FIELD(ctx->diag, "http_service");
        return ext_authz_http_compile(ctx, m->http_service);
    }
    default:
        diag_error(ctx->diag, "grpc_service or http_service must be set");
        return NULL;
    }
}

static void compile_enabled(struct compile_ctx *ctx, const HttpExtAuthz__ExtAuthz *m,
                            struct ext_authz_config *c) {
    if (m->filter_enabled) {
        DIAG_FIELD(ctx->diag, "filter_enabled");
        c->has_enabled = fraction_compile(ctx, m->filter_enabled, &c->enabled);
    }
    if (m->filter_enabled_metadata) {
        DIAG_FIELD(ctx->diag, "filter_enabled_metadata");
        c->enabled_metadata = metadata_matcher_compile(ctx, m->filter_enabled_metadata);
    }
    if (m->deny_at_disable) {
        c->denies_when_disabled = flag(m->deny_at_disable->default_value, false);
        c->deny_key = arena_sv(ctx->arena, sv_cstr(m->deny_at_disable->runtime_key));
    }
}

static void compile_headers(struct compile_ctx *ctx, const HttpExtAuthz__ExtAuthz *m,
                            struct ext_authz_config *c) {
    ext_authz_list_compile(ctx, "allowed_headers", m->allowed_headers, &c->allowed);
    ext_authz_list_compile(ctx, "disallowed_headers", m->disallowed_headers, &c->disallowed);
    c->has_allowed = m->allowed_headers && m->allowed_headers->n_patterns;
    if (c->has_allowed && c->service && c->service->allowed.n) {
        diag_error(ctx->diag, "Invalid duplicate configuration for allowed_headers.");
    }
    if (m->decoder_header_mutation_rules) {
        DIAG_FIELD(ctx->diag, "decoder_header_mutation_rules");
        c->rules = mutation_rules_compile(ctx, m->decoder_header_mutation_rules);
    }
}

static void compile_stats(struct compile_ctx *ctx, const char *prefix, struct ext_authz_config *c) {
    c->store = ctx->stats;
    c->cluster_prefix = arena_printf(ctx->arena, "ext_authz.%s%s", prefix, *prefix ? "." : "");
    c->stats = stats_scope_get(
        ctx->stats, &ext_authz_stats_group,
        arena_printf(ctx->arena, "%.*s%.*s", SV_ARG(ctx->stat_prefix), SV_ARG(c->cluster_prefix)));
    arena_on_fini(ctx->arena, release, c);
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpExtAuthz__ExtAuthz *m = (const HttpExtAuthz__ExtAuthz *)msg;
    unsigned before = diag_errors(ctx->diag);
    struct ext_authz_config *c = arena_new(ctx->arena, struct ext_authz_config);
    refuse_unsupported(ctx, m);
    c->service = compile_service(ctx, m);
    c->body = compile_body(m->with_request_body);
    c->allows_failures = m->failure_mode_allow;
    c->tells_failures = m->failure_mode_allow_header_add;
    c->clears_route = m->clear_route_cache;
    c->validates = m->validate_mutations;
    c->charges_cluster = flag(m->charge_cluster_response_stats, true);
    c->has_certificate = m->include_peer_certificate;
    c->has_tls_session = m->include_tls_session;
    c->has_raw_headers = m->encode_raw_headers;
    c->takes_metadata = flag(m->enable_dynamic_metadata_ingestion, true);
    c->is_shadow = m->shadow_mode;
    c->tells_latency = m->emit_filter_state_stats;
    c->denied_body_max = m->max_denied_response_body_bytes;
    c->error_status = m->status_on_error && m->status_on_error->code > 0
                          ? (unsigned)m->status_on_error->code
                          : 403;
    c->namespaces =
        copy_names(ctx, m->metadata_context_namespaces, m->n_metadata_context_namespaces);
    c->route_namespaces = copy_names(ctx, m->route_metadata_context_namespaces,
                                     m->n_route_metadata_context_namespaces);
    compile_enabled(ctx, m, c);
    compile_headers(ctx, m, c);
    if (diag_errors(ctx->diag) != before) {
        return NULL;
    }
    compile_stats(ctx, m->stat_prefix, c);
    return c;
}

static void compile_extensions(struct compile_ctx *ctx, const HttpExtAuthz__CheckSettings *m,
                               struct ext_authz_route *r) {
    struct ext_authz_pair *v =
        arena_new_array(ctx->arena, struct ext_authz_pair, m->n_context_extensions + 1);
    for (size_t i = 0; i < m->n_context_extensions; i++) {
        v[i] =
            (struct ext_authz_pair){arena_sv(ctx->arena, sv_cstr(m->context_extensions[i]->key)),
                                    arena_sv(ctx->arena, sv_cstr(m->context_extensions[i]->value))};
    }
    r->extensions = v;
    r->extensions_n = (unsigned)m->n_context_extensions;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpExtAuthz__ExtAuthzPerRoute *m = (const HttpExtAuthz__ExtAuthzPerRoute *)msg;
    unsigned before = diag_errors(ctx->diag);
    struct ext_authz_route *r = arena_new(ctx->arena, struct ext_authz_route);
    (void)type;
    if (m->override_case != HTTP_EXT_AUTHZ__EXT_AUTHZ_PER_ROUTE__OVERRIDE_CHECK_SETTINGS) {
        r->is_disabled = m->disabled;
        return r;
    }
    DIAG_FIELD(ctx->diag, "check_settings");
    const HttpExtAuthz__CheckSettings *s = m->check_settings;
    if (s->disable_request_body_buffering && s->with_request_body) {
        diag_error(ctx->diag, "disable_request_body_buffering and with_request_body are both set");
    }
    r->skips_body = s->disable_request_body_buffering;
    r->has_body = s->with_request_body != NULL;
    r->body = compile_body(s->with_request_body);
    compile_extensions(ctx, s, r);
    if (s->service_override_case == HTTP_EXT_AUTHZ__CHECK_SETTINGS__SERVICE_OVERRIDE_GRPC_SERVICE) {
        DIAG_FIELD(ctx->diag, "grpc_service");
        r->service = ext_authz_grpc_compile(ctx, s->grpc_service);
    } else if (s->service_override_case ==
               HTTP_EXT_AUTHZ__CHECK_SETTINGS__SERVICE_OVERRIDE_HTTP_SERVICE) {
        DIAG_FIELD(ctx->diag, "http_service");
        r->service = ext_authz_http_compile(ctx, s->http_service);
    }
    return diag_errors(ctx->diag) == before ? r : NULL;
}

/* --- counting --- */

static struct cluster_stats *cluster_stats(struct ext_authz *x, sv cluster) {
    struct ext_authz_config *c = (struct ext_authz_config *)(uintptr_t)config_of(x);
    struct thread_clusters **t = &c->threads[http_loop(&x->base)->thread_index];
    if (!*t) {
        *t = xnew(struct thread_clusters);
        arena_init(&(*t)->arena, 0);
        map_init(&(*t)->clusters);
    }
    struct cluster_stats *s = (struct cluster_stats *)map_get(&(*t)->clusters, cluster);
    if (!s && map_count(&(*t)->clusters) < CLUSTERS_MAX) {
        s = arena_new(&(*t)->arena, struct cluster_stats);
        s->scope = stats_scope_get(c->store, &ext_authz_cluster_group,
                                   arena_printf(http_arena(&x->base), "cluster.%.*s.%.*s",
                                                SV_ARG(cluster), SV_ARG(c->cluster_prefix)));
        map_put(&(*t)->clusters, arena_sv(&(*t)->arena, cluster), s);
    }
    return s;
}

static void count(struct ext_authz *x, unsigned stat) {
    stats_inc(stats_shard(config_of(x)->stats, http_loop(&x->base)->thread_index), stat);
}

/* In the filter's stats and in those of the route's cluster. */
static void count_with_cluster(struct ext_authz *x, unsigned stat) {
    struct cluster_stats *s = x->cluster.n ? cluster_stats(x, x->cluster) : NULL;
    count(x, stat);
    if (s && !s->cells[stat]) {
        s->cells[stat] = stats_dyn(s->scope, sv_cstr(ext_authz_stat_defs[stat].name), STAT_COUNTER);
    }
    if (s) {
        stat_dyn_add(s->cells[stat], 1);
    }
}

/* --- changes --- */

static bool is_change_valid(const struct ext_authz_change *c) {
    bool is_pseudo = c->name.n > 1 && c->name.p[0] == ':' && header_id_of(c->name) != HDR_OTHER;
    return (is_pseudo || header_name_valid(c->name)) && header_value_valid(c->value);
}

/* False: there is no room for more headers. */
static bool apply_change(const struct ext_authz_change *c, struct headers *h) {
    sv name = sv_is(c->name, "host") ? SV(":authority") : c->name;
    struct header *there = headers_find_name(h, name);
    if (name.p[0] == ':' && c->kind != EXT_AUTHZ_SET) {
        return true; /* one value, and never none */
    }
    switch (c->kind) {
    case EXT_AUTHZ_SET:
        return headers_set_name(h, name, c->value);
    case EXT_AUTHZ_ADD:
        return headers_add_copy(h, name, c->value);
    case EXT_AUTHZ_JOIN:
        if (there) {
            there->value =
                arena_printf(h->arena, "%.*s,%.*s", SV_ARG(there->value), SV_ARG(c->value));
            h->bytes += (uint32_t)c->value.n + 1;
        }
        return true;
    case EXT_AUTHZ_IF_ABSENT:
        return there || headers_add_copy(h, name, c->value);
    case EXT_AUTHZ_IF_THERE:
        return !there || headers_set_name(h, name, c->value);
    case EXT_AUTHZ_REMOVE:
        headers_remove_name(h, name);
        return true;
    case EXT_AUTHZ_TOLD:
        return true;
    }
    return true;
}

/* What makes an answer as a whole unacceptable. */
static bool are_changes_valid(const struct ext_authz_config *c,
                              const struct ext_authz_changes *changes) {
    for (unsigned i = 0; c->validates && i < changes->n; i++) {
        if (!is_change_valid(&changes->v[i])) {
            return false;
        }
    }
    return true;
}

static bool is_query_valid(const struct ext_authz_config *c,
                           const struct ext_authz_changes *changes) {
    for (unsigned i = 0; c->validates && i < changes->n; i++) {
        if (!query_param_is_encoded(changes->v[i].name) ||
            !query_param_is_encoded(changes->v[i].value)) {
            return false;
        }
    }
    return true;
}

static bool is_answer_valid(const struct ext_authz_config *c, const struct ext_authz_answer *a) {
    for (unsigned i = 0; i < a->request.n; i++) {
        const struct ext_authz_change *x = &a->request.v[i];
        if (mutation_rules_check(c->rules, x->name, x->kind == EXT_AUTHZ_REMOVE) ==
            MUTATION_REFUSED) {
            return false;
        }
    }
    return !a->is_invalid && are_changes_valid(c, &a->request) &&
           are_changes_valid(c, &a->response) && is_query_valid(c, &a->query);
}

/* False: there is no room. Headers that no message may carry are left out. */
static bool change_request(const struct ext_authz_config *c, const struct ext_authz_answer *a,
                           struct headers *h) {
    for (unsigned i = 0; i < a->request.n; i++) {
        const struct ext_authz_change *x = &a->request.v[i];
        bool is_removal = x->kind == EXT_AUTHZ_REMOVE;
        if (is_change_valid(x) &&
            mutation_rules_check(c->rules, x->name, is_removal) == MUTATION_ALLOWED &&
            !apply_change(x, h)) {
            return false;
        }
    }
    return true;
}

static void change_response(const struct ext_authz_changes *changes, struct headers *h) {
    for (unsigned i = 0; i < changes->n; i++) {
        if (is_change_valid(&changes->v[i]) && changes->v[i].name.p[0] != ':') {
            apply_change(&changes->v[i], h);
        }
    }
}

static void change_query(const struct ext_authz_changes *changes, struct headers *h) {
    sv path = headers_get(h, HDR_path);
    struct query_params q;
    if (!changes->n || !path.p) {
        return;
    }
    query_params_parse(&q, path, h->arena);
    for (unsigned i = 0; i < changes->n; i++) {
        const struct ext_authz_change *x = &changes->v[i];
        if (x->kind == EXT_AUTHZ_REMOVE) {
            query_params_remove(&q, x->name);
        } else if (header_value_valid(x->name) && header_value_valid(x->value)) {
            query_params_set(&q, x->name, x->value);
        }
    }
    headers_set(h, HDR_path, query_params_path(&q, path));
}

/* --- verdicts --- */

/* A denial's own lines stand in place of those of the same name, several of one name together. */
static void modify_denial(struct headers *h, void *arg) {
    const struct ext_authz_changes *changes = (const struct ext_authz_changes *)arg;
    for (unsigned i = 0; i < changes->n; i++) {
        if (changes->v[i].kind == EXT_AUTHZ_SET && changes->v[i].name.n &&
            changes->v[i].name.p[0] != ':') {
            headers_remove_name(h, changes->v[i].name);
        }
    }
    for (unsigned i = 0; i < changes->n; i++) {
        struct ext_authz_change x = changes->v[i];
        if (is_change_valid(&x) && x.name.p[0] != ':') {
            x.kind = x.kind == EXT_AUTHZ_SET ? EXT_AUTHZ_ADD : x.kind;
            apply_change(&x, h);
        }
    }
}

static void refuse(struct ext_authz *x, unsigned status, sv body, sv details,
                   struct ext_authz_changes *headers) {
    http_local_reply(&x->base, status, body, RESPONSE_FLAG(UAEX), details,
                     headers ? modify_denial : NULL, headers);
}

static void reject(struct ext_authz *x) {
    count_with_cluster(x, EXT_AUTHZ_invalid);
    refuse(x, 500, SV_NULL, SV("ext_authz_invalid"), NULL);
}

static void tell_shadow(struct ext_authz *x, enum ext_authz_verdict verdict, unsigned status,
                        const struct ext_authz_changes *headers) {
    if (!ext_authz_tell_shadow(&x->base, verdict, status, headers)) {
        count(x, EXT_AUTHZ_filter_state_name_collision);
    }
}

static bool is_status(unsigned code) { return code >= 200 && code <= 599; }

static void on_ok(struct ext_authz *x, struct ext_authz_answer *a) {
    const struct ext_authz_config *c = config_of(x);
    struct headers *h = http_request_headers(&x->base);
    if (!is_answer_valid(c, a)) {
        reject(x);
        return;
    }
    if (!change_request(c, a, h)) {
        count(x, EXT_AUTHZ_request_header_limits_reached);
        reject(x);
        return;
    }
    change_query(&a->query, h);
    if (c->clears_route && (a->request.n || a->query.n)) {
        http_clear_route_cache(&x->base);
    }
    x->response = a->response;
    count_with_cluster(x, EXT_AUTHZ_ok);
    if (c->is_shadow) {
        tell_shadow(x, EXT_AUTHZ_OK, 200, NULL);
    }
    http_continue_decoding(&x->base);
}

static void on_denied(struct ext_authz *x, struct ext_authz_answer *a) {
    const struct ext_authz_config *c = config_of(x);
    unsigned status = is_status(a->status) ? a->status : 403;
    if (!are_changes_valid(c, &a->response)) {
        reject(x);
        return;
    }
    count_with_cluster(x, EXT_AUTHZ_denied);
    if (c->charges_cluster) {
        http_charge_route_cluster(&x->base, status);
    }
    if (c->is_shadow) {
        count(x, EXT_AUTHZ_shadow_denied);
        tell_shadow(x, EXT_AUTHZ_DENIED, status, &a->response);
        http_continue_decoding(&x->base);
        return;
    }
    sv body = c->denied_body_max ? sv_sub(a->body, 0, c->denied_body_max) : a->body;
    refuse(x, status, body, SV("ext_authz_denied"), &a->response);
}

static void on_error(struct ext_authz *x, struct ext_authz_answer *a) {
    const struct ext_authz_config *c = config_of(x);
    struct headers *h = http_request_headers(&x->base);
    unsigned status = is_status(a->status) ? a->status : c->error_status;
    count_with_cluster(x, EXT_AUTHZ_error);
    if (c->is_shadow) {
        count(x, EXT_AUTHZ_shadow_error);
        tell_shadow(x, EXT_AUTHZ_ERROR, status, NULL);
        http_continue_decoding(&x->base);
        return;
    }
    if (!c->allows_failures) {
        refuse(x, status, a->body, SV("ext_authz_error"),
               are_changes_valid(c, &a->response) ? &a->response : NULL);
        return;
    }
    count_with_cluster(x, EXT_AUTHZ_failure_mode_allowed);
    if (c->tells_failures) {
        headers_add_copy(h, SV("x-envoy-auth-failure-mode-allowed"), SV("true"));
    }
    http_continue_decoding(&x->base);
}

static void keep_metadata(struct ext_authz *x, struct ext_authz_answer *a) {
    struct stream_info *si = http_stream_info(&x->base);
    if (a->metadata.fields.n == 0) {
        return;
    }
    if (!config_of(x)->takes_metadata) {
        count(x, EXT_AUTHZ_ignored_dynamic_metadata);
        return;
    }
    if (a->verdict == EXT_AUTHZ_OK) {
        uint64_t us = loop_now_us(http_loop(&x->base)) - x->start_us;
        struct kv_value ms = kv_number((double)(us / 1000));
        kv_set(&a->metadata, si->arena, SV("ext_authz_duration"), &ms);
    }
    if (!si->metadata) {
        si->metadata = kv_metadata_new(si->arena);
    }
    kv_metadata_merge(si->metadata, NAMESPACE, &a->metadata);
}

static void on_answer(void *user, struct ext_authz_answer *a) {
    struct ext_authz *x = (struct ext_authz *)user;
    x->is_checking = false;
    x->buffers = false;
    keep_metadata(x, a);
    if (config_of(x)->tells_latency &&
        !ext_authz_tell_latency(&x->base, loop_now_us(http_loop(&x->base)) - x->start_us)) {
        count(x, EXT_AUTHZ_filter_state_name_collision);
    }
    switch (a->verdict) {
    case EXT_AUTHZ_OK:
        on_ok(x, a);
        break;
    case EXT_AUTHZ_DENIED:
        on_denied(x, a);
        break;
    case EXT_AUTHZ_ERROR:
        on_error(x, a);
        break;
    }
}

/* --- requests --- */

/* Those of all levels; the most specific wins. */
static unsigned gather_extensions(struct ext_authz *x, const struct ext_authz_pair **out) {
    const void *levels[4];
    unsigned n = http_route_configs(&x->base, levels), total = 0, used = 0;
    for (unsigned i = 0; i < n; i++) {
        total += ((const struct ext_authz_route *)levels[i])->extensions_n;
    }
    struct ext_authz_pair *v =
        arena_new_array(http_arena(&x->base), struct ext_authz_pair, total + 1);
    for (unsigned i = 0; i < n; i++) {
        const struct ext_authz_route *r = (const struct ext_authz_route *)levels[i];
        for (unsigned k = 0; k < r->extensions_n; k++) {
            unsigned at = 0;
            while (at < used && !sv_eq(v[at].key, r->extensions[k].key)) {
                at++;
            }
            v[at] = r->extensions[k];
            used += at == used;
        }
    }
    *out = v;
    return used;
}

static void start_check(struct ext_authz *x) {
    const struct ext_authz_config *c = config_of(x);
    const struct ext_authz_route *r = (const struct ext_authz_route *)http_route_config(&x->base);
    struct buf *body = x->body.is_on && x->buffers ? http_decoding_buffer(&x->base) : NULL;
    struct ext_authz_check check = {.f = &x->base,
                                    .request = http_request_headers(&x->base),
                                    .service = r && r->service ? r->service : c->service,
                                    .has_allowed = c->has_allowed,
                                    .allowed = &c->allowed,
                                    .disallowed = &c->disallowed,
                                    .packs_as_bytes = x->body.packs_as_bytes,
                                    .has_certificate = c->has_certificate,
                                    .has_tls_session = c->has_tls_session,
                                    .has_raw_headers = c->has_raw_headers,
                                    .namespaces = c->namespaces.v,
                                    .namespaces_n = c->namespaces.n,
                                    .route_namespaces = c->route_namespaces.v,
                                    .route_namespaces_n = c->route_namespaces.n};
    if (body) {
        size_t n = buf_len(body) < x->body.max_bytes ? buf_len(body) : x->body.max_bytes;
        check.has_body = true;
        check.is_partial = n < buf_len(body);
        check.body = n ? buf_pullup(body, n) : SV("");
    }
    check.extensions_n = gather_extensions(x, &check.extensions);
    x->is_checking = true;
    x->cluster = arena_sv(http_arena(&x->base), http_route_cluster_stat_name(&x->base));
    x->start_us = loop_now_us(http_loop(&x->base));
    ext_authz_check_start(&check, &x->pending, on_answer, x);
}

static bool is_enabled(struct ext_authz *x) {
    const struct ext_authz_config *c = config_of(x);
    return (!c->has_enabled || fraction_holds(&c->enabled, rng_u64(&http_loop(&x->base)->rng))) &&
           (!c->enabled_metadata ||
            metadata_matcher_match(c->enabled_metadata, http_stream_info(&x->base)->metadata));
}

static enum filter_headers_status pass_disabled(struct ext_authz *x) {
    const struct ext_authz_config *c = config_of(x);
    count(x, EXT_AUTHZ_disabled);
    bool denies = c->deny_key.n ? runtime_bool(c->deny_key, c->denies_when_disabled)
                                : c->denies_when_disabled;
    if (denies && c->is_shadow) {
        http_stream_info(&x->base)->flags |= RESPONSE_FLAG(UAEX);
        count(x, EXT_AUTHZ_shadow_denied);
        tell_shadow(x, EXT_AUTHZ_DENIED, c->error_status, NULL);
    }
    if (!denies || c->is_shadow) {
        return FILTER_HEADERS_CONTINUE;
    }
    refuse(x, c->error_status, SV_NULL, SV("ext_authz_error"), NULL);
    return FILTER_HEADERS_STOP;
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct ext_authz *x = self(f);
    (void)h;
    const struct ext_authz_route *r =
        http_route(f) ? (const struct ext_authz_route *)http_route_config(f) : NULL;
    if (!http_route(f) || (r && r->is_disabled)) {
        return FILTER_HEADERS_CONTINUE;
    }
    if (!is_enabled(x)) {
        return pass_disabled(x);
    }
    x->body = r && r->has_body ? r->body : config_of(x)->body;
    x->buffers = x->body.is_on && !(r && r->skips_body) && !end_stream && !http_upgrade_type(f).n;
    if (x->buffers) {
        if (!x->body.allows_partial) {
            http_set_buffer_limit(f, x->body.max_bytes);
        }
        return FILTER_HEADERS_STOP;
    }
    start_check(x);
    return FILTER_HEADERS_STOP_ALL_WATERMARK;
}

static enum filter_data_status decode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct ext_authz *x = self(f);
    if (x->is_checking) {
        return FILTER_DATA_STOP_WATERMARK;
    }
    if (!x->buffers) {
        return FILTER_DATA_CONTINUE;
    }
    struct buf *kept = http_decoding_buffer(f);
    size_t n = buf_len(data) + (kept ? buf_len(kept) : 0);
    if (!end_stream && !(x->body.allows_partial && n >= x->body.max_bytes)) {
        return FILTER_DATA_STOP_BUFFER;
    }
    if (!x->body.allows_partial && n > x->body.max_bytes) {
        return FILTER_DATA_STOP_BUFFER; /* over the stream's limit: 413 */
    }
    http_add_decoded_data(f, data, true);
    start_check(x);
    return FILTER_DATA_STOP_WATERMARK;
}

static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    struct ext_authz *x = self(f);
    (void)t;
    if (x->buffers && !x->is_checking) {
        start_check(x);
    }
    return x->is_checking ? FILTER_TRAILERS_STOP : FILTER_TRAILERS_CONTINUE;
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)end_stream;
    change_response(&self(f)->response, h);
    return FILTER_HEADERS_CONTINUE;
}

static void destroy(struct http_filter *f) { ext_authz_check_cancel(&self(f)->pending); }

const struct http_filter_type ext_authz_http_filter = {
    .name = "envoy.filters.http.ext_authz",
    .type_url = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    .route_type_url = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
    .stream_size = sizeof(struct ext_authz),
    .compile = compile,
    .compile_route = compile_route,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .destroy = destroy,
};
