/* Retry decisions: see retry.h.
 * Threads: worker-local. Spec: Envoy's "x-envoy-retry-on" table, RetryPolicy,
 * RateLimitedRetryBackOff. */
#include "proxy/request/retry.h"
#include "proxy/route/route_stats.h"

#include "proxy/base/mem.h"

#define BACKOFF_BASE_MS 25u
#define BACKOFF_CAP_FACTOR 10u
#define RETRIABLE_CODES_MAX 64u

/* ---- what the request's headers ask ---- */

static sv take(struct headers *h, enum header_id id) {
    sv v = headers_get(h, id);
    if (v.p) {
        headers_remove(h, id);
    }
    return v;
}

static unsigned count_items(sv list) {
    unsigned n = 1;
    for (size_t i = 0; i < list.n; i++) {
        n += list.p[i] == ',';
    }
    return n;
}

static void add_header_codes(struct retry_state *r, sv list, struct arena *a) {
    unsigned extra = count_items(list);
    if (extra > RETRIABLE_CODES_MAX) {
        extra = RETRIABLE_CODES_MAX;
    }
    uint16_t *codes = arena_zalloc_array(a, r->codes_n + extra, sizeof(*codes));
    unsigned n = r->codes_n;
    if (n) {
        memcpy(codes, r->codes, n * sizeof(*codes));
    }
    for (unsigned i = 0; i < extra && list.n; i++) {
        uint64_t code;
        if (sv_to_u64(sv_trim(sv_cut(&list, ',')), &code) && code < 1000) {
            codes[n++] = (uint16_t)code;
        }
    }
    r->codes = codes;
    r->codes_n = n;
    r->retry_on |= RETRY_RETRIABLE_STATUS_CODES;
}

static void add_header_names(struct retry_state *r, sv list, struct arena *a) {
    unsigned n = count_items(list), k = 0;
    if (n > RETRIABLE_CODES_MAX) {
        n = RETRIABLE_CODES_MAX;
    }
    sv *names = arena_zalloc_array(a, n, sizeof(*names));
    while (list.n && k < n) {
        sv name = arena_sv(a, sv_trim(sv_cut(&list, ',')));
        enum header_id id;
        if (header_name_normalise((char *)(uintptr_t)name.p, name.n, &id)) {
            names[k++] = name;
        }
    }
    r->header_names = names;
    r->header_names_n = k;
    r->retry_on |= RETRY_RETRIABLE_HEADERS;
}

static struct retry_state *state_of_policy(const struct retry_policy *p, struct arena *a,
                                           uint8_t priority) {
    struct retry_state *r = arena_new(a, struct retry_state);
    r->policy = p;
    r->priority = priority;
    r->remaining = 1;
    if (p) {
        r->retry_on = p->retry_on;
        r->remaining = p->num_retries;
        r->codes = p->status_codes;
        r->codes_n = p->status_codes_n;
    }
    return r;
}

struct retry_state *retry_state_new(const struct retry_policy *p, struct headers *h,
                                    struct arena *a, uint8_t priority) {
    sv on = take(h, HDR_x_envoy_retry_on), grpc_on = take(h, HDR_x_envoy_retry_grpc_on);
    sv max = take(h, HDR_x_envoy_max_retries), codes = take(h, HDR_x_envoy_retriable_status_codes);
    sv names = take(h, HDR_x_envoy_retriable_header_names);
    if (!p && !on.n && !grpc_on.n) {
        return NULL;
    }
    struct retry_state *r = state_of_policy(p, a, priority);
    bool all_known;
    r->retry_on |= retry_on_parse(on, &all_known) | retry_on_parse(grpc_on, &all_known);
    uint64_t n;
    if (max.n && sv_to_u64(max, &n)) {
        r->remaining = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    }
    if (codes.n) {
        add_header_codes(r, codes, a);
    }
    if (names.n) {
        add_header_names(r, names, a);
    }
    if (p && p->retriable_request_headers &&
        !header_matchers_any_match(p->retriable_request_headers, h, a)) {
        r->retry_on = 0;
    }
    return r->retry_on ? r : NULL;
}

/* ---- decisions ---- */

static bool code_listed(const struct retry_state *r, unsigned status) {
    for (unsigned i = 0; i < r->codes_n; i++) {
        if (r->codes[i] == status) {
            return true;
        }
    }
    return false;
}

static bool header_listed(const struct retry_state *r, const struct headers *h,
                          struct arena *scratch) {
    for (unsigned i = 0; i < r->header_names_n; i++) {
        if (headers_find_name(h, r->header_names[i])) {
            return true;
        }
    }
    return r->policy && r->policy->retriable_headers &&
           header_matchers_any_match(r->policy->retriable_headers, h, scratch);
}

static bool grpc_status_wants(uint32_t retry_on, sv status) {
    static const struct {
        const char *code;
        uint32_t bit;
    } map[] = {{"1", RETRY_GRPC_CANCELLED},
               {"4", RETRY_GRPC_DEADLINE_EXCEEDED},
               {"8", RETRY_GRPC_RESOURCE_EXHAUSTED},
               {"13", RETRY_GRPC_INTERNAL},
               {"14", RETRY_GRPC_UNAVAILABLE}};
    for (size_t i = 0; i < ARRAY_LEN(map); i++) {
        if ((retry_on & map[i].bit) && sv_is(status, map[i].code)) {
            return true;
        }
    }
    return false;
}

/* The RETRY_* reasons that a status code alone gives. */
static uint32_t reasons_of(unsigned status) {
    uint32_t reasons = status >= 500 && status < 600 ? RETRY_5XX : 0;
    if (status >= 502 && status <= 504) {
        reasons |= RETRY_GATEWAY_ERROR;
    }
    return status == 409 ? reasons | RETRY_RETRIABLE_4XX : reasons;
}

static bool headers_want_retry(const struct retry_state *r, const struct headers *h,
                               struct arena *scratch) {
    unsigned status = headers_status(h);
    uint32_t on = r->retry_on;
    if (headers_has(h, HDR_x_envoy_ratelimited)) {
        return on & RETRY_ENVOY_RATELIMITED;
    }
    if (on & reasons_of(status)) {
        return true;
    }
    if ((on & RETRY_RETRIABLE_STATUS_CODES) && code_listed(r, status)) {
        return true;
    }
    if ((on & RETRY_RETRIABLE_HEADERS) && header_listed(r, h, scratch)) {
        return true;
    }
    return false;
}

static void count(const struct retry_state *r, struct cluster_view *v, unsigned cluster_stat,
                  unsigned route_stat) {
    stats_inc(v->stats, cluster_stat);
    for (size_t i = 0; i < ARRAY_LEN(r->also); i++) {
        if (r->also[i]) {
            stats_inc(r->also[i], route_stat);
        }
    }
}

static enum retry_verdict claim(struct retry_state *r, struct cluster_view *v) {
    if (r->remaining == 0) {
        count(r, v, CLUSTER_upstream_rq_retry_limit_exceeded,
              ROUTE_upstream_rq_retry_limit_exceeded);
        return RETRY_NO_LIMIT;
    }
    if (!breaker_retry_try(v->cfg, r->priority)) {
        count(r, v, CLUSTER_upstream_rq_retry_overflow, ROUTE_upstream_rq_retry_overflow);
        return RETRY_NO_OVERFLOW;
    }
    r->holds_breaker = true;
    r->remaining--;
    r->attempts++;
    return RETRY_YES;
}

/* The attempt before was another one, too, and needs no further. */
static void settle(struct retry_state *r, struct cluster_view *v, bool wants) {
    if (r->holds_breaker && !wants) {
        count(r, v, CLUSTER_upstream_rq_retry_success, ROUTE_upstream_rq_retry_success);
    }
    retry_release(r, v);
}

enum retry_verdict retry_on_headers(struct retry_state *r, struct cluster_view *v,
                                    const struct headers *h, bool is_grpc, struct arena *scratch) {
    bool wants = headers_want_retry(r, h, scratch) ||
                 (is_grpc && grpc_status_wants(r->retry_on, headers_get(h, HDR_grpc_status)));
    settle(r, v, wants);
    return wants ? claim(r, v) : RETRY_NO;
}

static bool reset_wants_retry(const struct retry_state *r, enum reset_reason why, bool was_sent) {
    uint32_t on = r->retry_on;
    if (why == RESET_OVERFLOW) {
        return false;
    }
    bool is_connect = why == RESET_CONNECTION_FAILURE || why == RESET_CONNECTION_TIMEOUT;
    if (on & (RETRY_5XX | RETRY_GATEWAY_ERROR | RETRY_RESET)) {
        return true;
    }
    if ((on & RETRY_RESET_BEFORE_REQUEST) && !was_sent) {
        return true;
    }
    if ((on & RETRY_REFUSED_STREAM) && why == RESET_REMOTE_REFUSED) {
        return true;
    }
    return (on & RETRY_CONNECT_FAILURE) && is_connect;
}

enum retry_verdict retry_on_reset(struct retry_state *r, struct cluster_view *v,
                                  enum reset_reason why, bool was_sent) {
    bool wants = reset_wants_retry(r, why, was_sent);
    settle(r, v, wants);
    return wants ? claim(r, v) : RETRY_NO;
}

void retry_begin(struct retry_state *r, struct cluster_view *v) {
    count(r, v, CLUSTER_upstream_rq_retry, ROUTE_upstream_rq_retry);
    stats_inc(v->stats, r->is_ratelimited ? CLUSTER_upstream_rq_retry_backoff_ratelimited
                                          : CLUSTER_upstream_rq_retry_backoff_exponential);
}

void retry_release(struct retry_state *r, struct cluster_view *v) {
    if (r->holds_breaker) {
        r->holds_breaker = false;
        breaker_release(&v->cfg->use[r->priority].retries);
    }
}

/* ---- previous_priorities ---- */

void retry_note_priority(struct retry_state *r, unsigned priority) {
    priorities_tried_add(&r->tried, priority);
    r->tried_n++;
}

void retry_priority_loads(struct retry_state *r, struct cluster_view *v, struct arena *a) {
    uint32_t every = r->policy->previous_priorities_update_frequency;
    if (r->tried_n < every || r->tried_n % every) {
        return;
    }
    struct priorities_tried now = r->tried;
    r->loads_n = cluster_loads_without(v, &now, a, &r->loads);
    if (!r->loads_n) {
        r->loads = NULL;
        return;
    }
    if (priorities_tried_none(&now)) { /* all were: from the beginning */
        r->tried = now;
        r->tried_n = 0;
    }
}

/* ---- back-off ---- */

/* Seconds asked by a reset header (rate_limited_retry_back_off), as milliseconds; 0: none
 * usable. */
static uint64_t reset_header_ms(const struct retry_policy *p, const struct headers *h,
                                uint64_t wall_s) {
    for (unsigned i = 0; h && i < p->reset_headers_n; i++) {
        const struct retry_reset_header *rh = &p->reset_headers[i];
        sv v = rh->id != HDR_OTHER ? headers_get(h, rh->id) : headers_get_name(h, rh->name);
        uint64_t n;
        if (!v.n || !sv_to_u64(v, &n)) {
            continue;
        }
        if (rh->is_unix_time) {
            n = n > wall_s ? n - wall_s : 0;
        }
        if (n > 0 && n <= UINT32_MAX / 1000 && n * 1000 <= p->reset_max_interval_ms) {
            return n * 1000;
        }
    }
    return 0;
}

uint64_t retry_backoff_ms(struct retry_state *r, const struct headers *response, struct rng *rng,
                          uint64_t wall_s) {
    const struct retry_policy *p = r->policy;
    uint64_t limited = p && p->reset_headers_n ? reset_header_ms(p, response, wall_s) : 0;
    r->is_ratelimited = limited;
    if (limited) {
        return limited + rng_below(rng, limited / 2 + 1);
    }
    uint64_t base = p && p->base_interval_ms ? p->base_interval_ms : BACKOFF_BASE_MS;
    uint64_t cap = p && p->max_interval_ms ? p->max_interval_ms : base * BACKOFF_CAP_FACTOR;
    uint64_t window = r->attempts >= 32 ? cap : base << (r->attempts - 1);
    if (window > cap) {
        window = cap;
    }
    return rng_below(rng, window ? window : 1);
}
