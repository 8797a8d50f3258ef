/* Retry policies and the words of x-envoy-retry-on.
 * Threads: compiled on the config thread, immutable; retry_on_parse from any thread, no allocation.
 * Spec: config.route.v3.RetryPolicy; extensions.retry.{host,priority}. Not here: deciding to retry
 * (request/retry.c). */
#include "protos/any.h"
#include "protos/gen/retry_host_omit_host_metadata.pb-c.h"
#include "protos/gen/retry_priority_previous_priorities.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/base/intern.h"
#include "proxy/route/route_metadata.h"
#include "proxy/route/route_private.h"

#define RETRY_BASE_MS 25
#define RETRY_MAX_FACTOR 10
#define RETRY_RESET_MAX_MS 300000
#define POLICY_ARENA_BYTES 256
#define HOST_PREDICATE "envoy.extensions.retry.host."

static const struct retry_word {
    sv word;
    uint32_t bit;
} retry_words[] = {
    {SV_INIT("5xx"), RETRY_5XX},
    {SV_INIT("gateway-error"), RETRY_GATEWAY_ERROR},
    {SV_INIT("reset"), RETRY_RESET},
    {SV_INIT("connect-failure"), RETRY_CONNECT_FAILURE},
    {SV_INIT("envoy-ratelimited"), RETRY_ENVOY_RATELIMITED},
    {SV_INIT("retriable-4xx"), RETRY_RETRIABLE_4XX},
    {SV_INIT("refused-stream"), RETRY_REFUSED_STREAM},
    {SV_INIT("retriable-status-codes"), RETRY_RETRIABLE_STATUS_CODES},
    {SV_INIT("retriable-headers"), RETRY_RETRIABLE_HEADERS},
    {SV_INIT("reset-before-request"), RETRY_RESET_BEFORE_REQUEST},
    {SV_INIT("http3-post-connect-failure"), RETRY_HTTP3_POST_CONNECT_FAILURE},
    {SV_INIT("cancelled"), RETRY_GRPC_CANCELLED},
    {SV_INIT("deadline-exceeded"), RETRY_GRPC_DEADLINE_EXCEEDED},
    {SV_INIT("internal"), RETRY_GRPC_INTERNAL},
    {SV_INIT("resource-exhausted"), RETRY_GRPC_RESOURCE_EXHAUSTED},
    {SV_INIT("unavailable"), RETRY_GRPC_UNAVAILABLE},
};

static uint32_t word_bit(sv word) {
    for (size_t i = 0; i < ARRAY_LEN(retry_words); i++) {
        if (sv_eq(word, retry_words[i].word)) {
            return retry_words[i].bit;
        }
    }
    return 0;
}

uint32_t retry_on_parse(sv words, bool *all_known) {
    uint32_t bits = 0;
    bool known = true;
    while (words.n) {
        sv word = sv_trim(sv_cut(&words, ','));
        uint32_t bit = word_bit(word);
        known &= bit != 0;
        bits |= bit;
    }
    if (all_known) {
        *all_known = known;
    }
    return bits;
}

/* --- compile --- */

static bool compile_back_off(struct compile_ctx *ctx, const Route__RetryPolicy__RetryBackOff *b,
                             struct retry_policy *p) {
    DIAG_FIELD(ctx->diag, "retry_back_off");
    if (!b->base_interval) {
        return diag_error(ctx->diag, "base_interval: value is required");
    }
    if (!route_duration_ms(ctx, "base_interval", b->base_interval, &p->base_interval_ms)) {
        return false;
    }
    p->base_interval_ms = p->base_interval_ms ? p->base_interval_ms : 1;
    if (!b->max_interval) {
        uint64_t max = (uint64_t)p->base_interval_ms * RETRY_MAX_FACTOR;
        p->max_interval_ms = max < UINT32_MAX ? (uint32_t)max : UINT32_MAX - 1;
        return true;
    }
    if (!route_duration_ms(ctx, "max_interval", b->max_interval, &p->max_interval_ms)) {
        return false;
    }
    p->max_interval_ms = p->max_interval_ms ? p->max_interval_ms : 1;
    if (p->max_interval_ms < p->base_interval_ms) {
        return diag_error(
            ctx->diag, "retry_policy.max_interval must greater than or equal to the base_interval");
    }
    return true;
}

static bool compile_reset(struct compile_ctx *ctx,
                          const Route__RetryPolicy__RateLimitedRetryBackOff *b,
                          struct retry_policy *p) {
    DIAG_FIELD(ctx->diag, "rate_limited_retry_back_off");
    p->reset_max_interval_ms = RETRY_RESET_MAX_MS;
    if (b->max_interval &&
        !route_duration_ms(ctx, "max_interval", b->max_interval, &p->reset_max_interval_ms)) {
        return false;
    }
    p->reset_max_interval_ms = p->reset_max_interval_ms ? p->reset_max_interval_ms : 1;
    struct retry_reset_header *v =
        arena_new_array(ctx->arena, struct retry_reset_header, b->n_reset_headers);
    for (size_t i = 0; i < b->n_reset_headers; i++) {
        v[i].name = route_lower(ctx->arena, b->reset_headers[i]->name);
        v[i].id = header_id_of(v[i].name);
        switch ((int)b->reset_headers[i]->format) {
        case ROUTE__RETRY_POLICY__RESET_HEADER_FORMAT__SECONDS:
            break;
        case ROUTE__RETRY_POLICY__RESET_HEADER_FORMAT__UNIX_TIMESTAMP:
            v[i].is_unix_time = true;
            break;
        default:
            return diag_error(
                ctx->diag,
                "reset_headers[%zu].format: value must be one of the defined enum values", i);
        }
    }
    p->reset_headers = v;
    p->reset_headers_n = (unsigned)b->n_reset_headers;
    return true;
}

static bool compile_host_predicate(struct compile_ctx *ctx,
                                   const Route__RetryPolicy__RetryHostPredicate *m,
                                   struct retry_policy *p) {
    sv name = sv_cstr(m->name);
    const char *type = "";
    const void *config = NULL;
    if (m->config_type_case ==
        ROUTE__RETRY_POLICY__RETRY_HOST_PREDICATE__CONFIG_TYPE_TYPED_CONFIG) {
        config = compile_any(ctx, name, m->typed_config, NULL, &type);
        if (!config) {
            return false;
        }
    }
    if (sv_is(sv_cstr(type), HOST_PREDICATE "previous_hosts.v3.PreviousHostsPredicate") ||
        sv_is(name, "envoy.retry_host_predicates.previous_hosts")) {
        p->avoid_previous_hosts = true;
        return true;
    }
    if (sv_is(sv_cstr(type), HOST_PREDICATE "omit_canary_hosts.v3.OmitCanaryHostsPredicate") ||
        sv_is(name, "envoy.retry_host_predicates.omit_canary_hosts")) {
        p->omit_canary_hosts = true;
        return true;
    }
    if (sv_is(sv_cstr(type), HOST_PREDICATE "omit_host_metadata.v3.OmitHostMetadataConfig")) {
        const RetryHostOmitHostMetadata__OmitHostMetadataConfig *c =
            (const RetryHostOmitHostMetadata__OmitHostMetadataConfig *)config;
        p->omit_host_metadata = route_metadata_match(ctx, c->metadata_match, NULL);
        return true;
    }
    return diag_error(ctx->diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%s'",
                      m->name, type);
}

static bool compile_priority(struct compile_ctx *ctx, const Route__RetryPolicy__RetryPriority *m,
                             struct retry_policy *p) {
    DIAG_FIELD(ctx->diag, "retry_priority");
    if (m->config_type_case != ROUTE__RETRY_POLICY__RETRY_PRIORITY__CONFIG_TYPE_TYPED_CONFIG) {
        return diag_error(ctx->diag, "typed_config: value is required");
    }
    const RetryPriorityPreviousPriorities__PreviousPrioritiesConfig *c =
        (const RetryPriorityPreviousPriorities__PreviousPrioritiesConfig *)compile_any(
            ctx, sv_cstr(m->name), m->typed_config,
            "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
            NULL);
    if (!c) {
        return false;
    }
    if (c->update_frequency <= 0) {
        return diag_error(ctx->diag, "typed_config.update_frequency: value must be greater than 0");
    }
    p->previous_priorities_update_frequency = (uint32_t)c->update_frequency;
    return true;
}

static bool compile_status_codes(struct compile_ctx *ctx, const Route__RetryPolicy *m,
                                 struct retry_policy *p) {
    uint16_t *codes = arena_new_array(ctx->arena, uint16_t, m->n_retriable_status_codes);
    unsigned n = 0;
    for (size_t i = 0; i < m->n_retriable_status_codes; i++) {
        if (m->retriable_status_codes[i] <= 999) { /* others never come */
            codes[n++] = (uint16_t)m->retriable_status_codes[i];
        }
    }
    p->status_codes = codes;
    p->status_codes_n = n;
    return true;
}

static bool compile_extensions(struct compile_ctx *ctx, const Route__RetryPolicy *m,
                               struct retry_policy *p) {
    bool ok = true;
    for (size_t i = 0; i < m->n_retry_host_predicate; i++) {
        DIAG_FIELD(ctx->diag, "retry_host_predicate[%zu]", i);
        ok &= compile_host_predicate(ctx, m->retry_host_predicate[i], p);
    }
    if (m->retry_priority && m->retry_priority->name[0]) {
        ok &= compile_priority(ctx, m->retry_priority, p);
    }
    for (size_t i = 0; i < m->n_retry_options_predicates; i++) {
        DIAG_FIELD(ctx->diag, "retry_options_predicates[%zu]", i);
        const Core__TypedExtensionConfig *e = m->retry_options_predicates[i];
        ok = diag_error(ctx->diag,
                        "Didn't find a registered implementation for '%s' with type URL: '%s'",
                        e->name, e->typed_config ? e->typed_config->type_url : "");
    }
    return ok;
}

static bool compile_headers(struct compile_ctx *ctx, const Route__RetryPolicy *m,
                            struct retry_policy *p) {
    unsigned before = diag_errors(ctx->diag);
    {
        DIAG_FIELD(ctx->diag, "retriable_headers");
        p->retriable_headers = header_matchers_any_compile(
            ctx, (const void *const *)m->retriable_headers, m->n_retriable_headers);
    }
    DIAG_FIELD(ctx->diag, "retriable_request_headers");
    p->retriable_request_headers = header_matchers_any_compile(
        ctx, (const void *const *)m->retriable_request_headers, m->n_retriable_request_headers);
    return diag_errors(ctx->diag) == before;
}

static bool fill(struct compile_ctx *ctx, const Route__RetryPolicy *m, struct retry_policy *p) {
    p->retry_on = retry_on_parse(sv_cstr(m->retry_on), NULL);
    p->num_retries = m->num_retries ? m->num_retries->value : 1;
    p->base_interval_ms = RETRY_BASE_MS;
    p->max_interval_ms = RETRY_BASE_MS * RETRY_MAX_FACTOR;
    p->host_selection_retry_max_attempts = 1;
    if (m->host_selection_retry_max_attempts > 0) {
        p->host_selection_retry_max_attempts = m->host_selection_retry_max_attempts < UINT32_MAX
                                                   ? (uint32_t)m->host_selection_retry_max_attempts
                                                   : UINT32_MAX;
    }
    bool ok = !m->per_try_timeout ||
              route_duration_ms(ctx, "per_try_timeout", m->per_try_timeout, &p->per_try_timeout_ms);
    ok &= !m->per_try_idle_timeout ||
          route_duration_ms(ctx, "per_try_idle_timeout", m->per_try_idle_timeout,
                            &p->per_try_idle_timeout_ms);
    ok &= !m->retry_back_off || compile_back_off(ctx, m->retry_back_off, p);
    ok &= !m->rate_limited_retry_back_off || compile_reset(ctx, m->rate_limited_retry_back_off, p);
    ok &= compile_status_codes(ctx, m, p);
    ok &= compile_headers(ctx, m, p);
    ok &= compile_extensions(ctx, m, p);
    return ok;
}

/* --- sharing: a mesh says the same policy for every virtual host --- */

struct shared_policy {
    struct interned interned; /* by the message's bytes */
    struct retry_policy policy;
    struct arena arena;
};
static struct intern_table policies = INTERN_TABLE_INIT;

static void free_policy(struct shared_policy *s) {
    arena_fini(&s->arena);
    xfree(s);
}

static void release(void *arg) {
    struct shared_policy *s = (struct shared_policy *)arg;
    if (intern_release(&policies, &s->interned)) {
        free_policy(s);
    }
}

static struct interned *make_shared(const struct compile_ctx *ctx, const Route__RetryPolicy *m,
                                    sv wire) {
    struct shared_policy *s = xnew(struct shared_policy);
    arena_init(&s->arena, POLICY_ARENA_BYTES);
    struct compile_ctx own = *ctx;
    own.arena = &s->arena;
    if (!fill(&own, m, &s->policy)) {
        free_policy(s);
        return NULL;
    }
    s->interned.key = arena_sv(&s->arena, wire);
    arena_trim(&s->arena);
    struct interned *i = intern_add(&policies, &s->interned);
    if (i != &s->interned) {
        free_policy(s);
    }
    return i;
}

const struct retry_policy *retry_policy_compile(struct compile_ctx *ctx, const void *msg) {
    const Route__RetryPolicy *m = (const Route__RetryPolicy *)msg;
    if (m->refresh_cluster_on_retry) {
        compile_unhonoured(ctx, "refresh_cluster_on_retry");
    }
    struct arena scratch;
    arena_init(&scratch, POLICY_ARENA_BYTES);
    sv wire = proto_pack(&m->base, &scratch);
    struct interned *i = intern_find(&policies, wire);
    if (!i) {
        i = make_shared(ctx, m, wire);
    }
    arena_fini(&scratch);
    if (!i) {
        return NULL;
    }
    struct shared_policy *s = CONTAINER_OF(i, struct shared_policy, interned);
    arena_on_fini(ctx->arena, release, s);
    return &s->policy;
}
