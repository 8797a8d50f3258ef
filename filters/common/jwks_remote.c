/* See the header. Workers that wait for another one's fetch look every few milliseconds whether it
 * is over: only while requests wait, and without a message that could outlive either side. */
#include "filters/common/jwks_remote.h"

#include <pthread.h>

#include "protos/gen/http_jwt_authn.pb-c.h"
#include "proxy/api/upstream_call.h"

#define CACHE_DURATION_MS (10u * 60 * 1000)
#define FAILED_REFETCH_MS 1000u
#define RETRY_BASE_MS 1000u
#define RETRY_MAX_FACTOR 10u
#define POLL_MS 5u

/* What one worker has of a source; its own but for being freed with the source. */
struct worker_part {
    struct jwks_remote *remote;
    struct jwks *keys; /* a ref; NULL: none yet */
    uint64_t generation;
    uint64_t finished; /* fetches that were over when the waiting requests were last looked at */
    struct list waits;
    unsigned waits_n;
    struct timer poll;
};
struct jwks_remote {
    struct shared shared;
    /* immutable */
    sv cluster_name, authority, path, scheme; /* in arena */
    uint32_t timeout_ms, cache_ms, failed_refetch_ms;
    uint32_t retries, retry_base_ms, retry_max_ms;
    bool is_async; /* an expired set serves on while a new one is fetched */
    struct jwks_remote_stats stats;
    struct arena arena;
    /* shared, atomic */
    bool is_fetching, is_last_ok;
    uint64_t expires_ms;    /* loop_now_ms clock, one for all threads; 0: nothing was fetched yet */
    uint64_t not_before_ms; /* of the next fetch when the last one failed */
    uint64_t generation;    /* of keys */
    uint64_t finished;      /* fetches over, failed ones too */
    /* under lock */
    pthread_mutex_t lock;
    struct jwks *keys;
    /* by thread index, made by their threads when first used */
    struct worker_part *parts[STATS_THREADS_MAX];
};
struct fetch {
    struct jwks_remote *remote; /* a ref */
    struct worker *worker;
    struct timer retry;
    uint32_t attempts;
};

#define LOAD(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define STORE(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* --- life --- */

static void on_last_unref(struct shared *s) {
    struct jwks_remote *r = (struct jwks_remote *)s;
    for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
        if (r->parts[i]) {
            jwks_unref(r->parts[i]->keys);
            xfree(r->parts[i]);
        }
    }
    jwks_unref(r->keys);
    stats_scope_unref(r->stats.scope);
    pthread_mutex_destroy(&r->lock);
    arena_fini(&r->arena);
    xfree(r);
}

static void release(void *remote) { shared_unref(&((struct jwks_remote *)remote)->shared); }

/* --- compile --- */

/* "https://host:port/path?query" into its parts. */
static bool split_uri(struct compile_ctx *ctx, struct jwks_remote *r, const char *uri) {
    sv rest = sv_cstr(uri);
    DIAG_FIELD(ctx->diag, "uri");
    r->scheme = sv_eat(&rest, SV("https://")) ? SV("https") : SV("http");
    if (r->scheme.n == 4) {
        sv_eat(&rest, SV("http://"));
    }
    size_t slash = sv_find(rest, '/');
    r->authority = arena_sv(&r->arena, sv_sub(rest, 0, slash));
    r->path = slash == SIZE_MAX ? SV("/") : arena_sv(&r->arena, sv_skip(rest, slash));
    return (header_value_valid(r->authority) && header_value_valid(r->path)) ||
           diag_error(ctx->diag, "invalid URI '%s'", uri);
}

static void compile_uri(struct compile_ctx *ctx, struct jwks_remote *r, const Core__HttpUri *m) {
    DIAG_FIELD(ctx->diag, "http_uri");
    r->cluster_name = arena_sv(&r->arena, sv_cstr(m->cluster));
    split_uri(ctx, r, m->uri);
    DIAG_FIELD(ctx->diag, "timeout");
    compile_duration_ms(ctx, m->timeout, 0, &r->timeout_ms);
}

static void compile_retry(struct compile_ctx *ctx, struct jwks_remote *r,
                          const Core__RetryPolicy *m) {
    DIAG_FIELD(ctx->diag, "retry_policy");
    r->retries = m->num_retries ? m->num_retries->value : 1;
    r->retries = r->retries < JWKS_REMOTE_RETRIES_MAX ? r->retries : JWKS_REMOTE_RETRIES_MAX;
    r->retry_base_ms = RETRY_BASE_MS;
    if (m->retry_back_off) {
        compile_duration_ms(ctx, m->retry_back_off->base_interval, RETRY_BASE_MS,
                            &r->retry_base_ms);
    }
    r->retry_max_ms = r->retry_base_ms * RETRY_MAX_FACTOR;
    if (m->retry_back_off) {
        compile_duration_ms(ctx, m->retry_back_off->max_interval, r->retry_max_ms,
                            &r->retry_max_ms);
    }
    if (r->retry_max_ms < r->retry_base_ms) {
        diag_error(ctx->diag, "max_interval must be greater than or equal to the base_interval");
    }
    const struct compile_field fields[] = {
        {m->retry_on && *m->retry_on, "retry_on"},
        {m->retry_priority, "retry_priority"},
        {m->n_retry_host_predicate, "retry_host_predicate"},
        {m->host_selection_retry_max_attempts, "host_selection_retry_max_attempts"}};
    compile_unhonoured_fields(ctx, fields, ARRAY_LEN(fields));
}

struct jwks_remote *jwks_remote_compile(struct compile_ctx *ctx, const void *msg,
                                        const struct jwks_remote_stats *stats) {
    const HttpJwtAuthn__RemoteJwks *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct jwks_remote *r = xnew(struct jwks_remote);
    shared_init(&r->shared, on_last_unref);
    arena_init(&r->arena, 512);
    pthread_mutex_init(&r->lock, NULL);
    r->stats = *stats;
    stats_scope_ref(stats->scope);
    arena_on_fini(ctx->arena, release, r);
    if (!m->http_uri) {
        diag_error(ctx->diag, "http_uri: value is required");
        return NULL;
    }
    compile_uri(ctx, r, m->http_uri);
    compile_duration_ms(ctx, m->cache_duration, CACHE_DURATION_MS, &r->cache_ms);
    r->is_async = m->async_fetch != NULL;
    if (m->async_fetch) {
        compile_duration_ms(ctx, m->async_fetch->failed_refetch_duration, FAILED_REFETCH_MS,
                            &r->failed_refetch_ms);
        compile_unhonoured(ctx, "async_fetch.fast_listener");
    }
    if (m->retry_policy) {
        compile_retry(ctx, r, m->retry_policy);
    }
    return diag_errors(ctx->diag) == before ? r : NULL;
}

/* --- what a worker has --- */

/* Take what was published since. */
static void refresh(struct worker_part *p) {
    struct jwks_remote *r = p->remote;
    if (LOAD(&r->generation) == p->generation) {
        return;
    }
    pthread_mutex_lock(&r->lock);
    jwks_unref(p->keys);
    p->keys = jwks_ref(r->keys);
    p->generation = LOAD(&r->generation);
    pthread_mutex_unlock(&r->lock);
}

static bool is_fresh(const struct jwks_remote *r, uint64_t now_ms) {
    return now_ms < LOAD(&r->expires_ms);
}

/* Those who waited when the fetch ended; who asks anew from on_done waits for the next one. */
static void finish_waits(struct worker_part *p) {
    struct jwks_remote *r = shared_ref(p->remote);
    struct list woken;
    list_init(&woken);
    list_splice_back(&woken, &p->waits);
    p->finished = LOAD(&r->finished);
    refresh(p);
    /* a ref: a callback may ask anew, and find that newer keys were published */
    struct jwks *keys = LOAD(&r->is_last_ok) && p->keys ? jwks_ref(p->keys) : NULL;
    for (struct list *n; (n = list_pop_front(&woken));) {
        struct jwks_wait *w = CONTAINER_OF(n, struct jwks_wait, node);
        --*w->count_;
        w->on_done(w, keys);
    }
    jwks_unref(keys);
    shared_unref(&r->shared);
}

static void on_poll(struct timer *t) {
    struct worker_part *p = CONTAINER_OF(t, struct worker_part, poll);
    if (list_empty(&p->waits)) {
        return;
    }
    if (LOAD(&p->remote->finished) == p->finished) {
        timer_start(&p->poll, POLL_MS);
        return;
    }
    finish_waits(p);
}

static struct worker_part *part_of(struct jwks_remote *r, struct loop *l) {
    struct worker_part *p = r->parts[l->thread_index];
    if (!p) {
        p = r->parts[l->thread_index] = xnew(struct worker_part);
        p->remote = r;
        list_init(&p->waits);
        timer_init(&p->poll, l, on_poll);
    }
    return p;
}

/* --- fetching --- */

static void start_call(struct fetch *f);

static void publish(struct jwks_remote *r, struct jwks *keys, uint64_t now_ms) {
    pthread_mutex_lock(&r->lock);
    jwks_unref(r->keys);
    r->keys = keys;
    STORE(&r->generation, r->generation + 1);
    pthread_mutex_unlock(&r->lock);
    STORE(&r->expires_ms, now_ms + r->cache_ms);
}

/* `keys` (taken) NULL: no answer that is of use. */
static void finish_fetch(struct fetch *f, struct jwks *keys) {
    struct jwks_remote *r = f->remote;
    struct loop *l = worker_loop(f->worker);
    struct stats_shard *stats = stats_shard(r->stats.scope, l->thread_index);
    stats_inc(stats, keys ? r->stats.success : r->stats.failed);
    if (keys) {
        publish(r, keys, loop_now_ms(l));
    } else {
        STORE(&r->not_before_ms, loop_now_ms(l) + r->failed_refetch_ms);
    }
    STORE(&r->is_last_ok, keys != NULL);
    STORE(&r->is_fetching, false);
    __atomic_add_fetch(&r->finished, 1, __ATOMIC_ACQ_REL);
    finish_waits(part_of(r, l));
    xfree(f);
    shared_unref(&r->shared);
}

/* Exponential back-off with full jitter, as Envoy's. */
static uint64_t backoff_ms(const struct fetch *f) {
    const struct jwks_remote *r = f->remote;
    unsigned shift = f->attempts < 16 ? f->attempts : 16;
    uint64_t range = (((uint64_t)1 << shift) - 1) * r->retry_base_ms;
    range = range < r->retry_max_ms ? range : r->retry_max_ms;
    return range ? rng_u64(&worker_loop(f->worker)->rng) % range : 0;
}

static void on_retry(struct timer *t) { start_call(CONTAINER_OF(t, struct fetch, retry)); }

static bool is_worth_retrying(const struct upstream_call_result *res) {
    return res->status == UPSTREAM_CALL_OK
               ? res->code >= 500
               : res->status != UPSTREAM_CALL_NO_CLUSTER && res->status != UPSTREAM_CALL_TOO_LARGE;
}

static struct jwks *keys_in(const struct upstream_call_result *res) {
    enum jwt_status why;
    if (res->status != UPSTREAM_CALL_OK || res->code != 200 || !buf_len(res->body)) {
        return NULL;
    }
    return jwks_new(buf_pullup(res->body, buf_len(res->body)), &why);
}

static void on_answer(void *user, const struct upstream_call_result *res) {
    struct fetch *f = user;
    struct jwks *keys = keys_in(res);
    if (!keys && f->attempts <= f->remote->retries && is_worth_retrying(res)) {
        timer_start(&f->retry, backoff_ms(f));
        return;
    }
    finish_fetch(f, keys);
}

static void start_call(struct fetch *f) {
    const struct jwks_remote *r = f->remote;
    const struct upstream_call_options o = {
        .cluster = SLOT_NONE, /* by name: a fetch may outlive the listener that held a slot */
        .cluster_name = r->cluster_name,
        .timeout_ms = r->timeout_ms,
        .response_max_bytes = JWKS_REMOTE_BYTES_MAX,
    };
    struct arena scratch;
    struct headers h;
    arena_init(&scratch, 1024);
    headers_init(&h, &scratch);
    headers_add_id(&h, HDR_method, SV("GET"));
    headers_add_id(&h, HDR_path, r->path);
    headers_add_id(&h, HDR_authority, r->authority);
    headers_add_id(&h, HDR_scheme, r->scheme);
    f->attempts++;
    upstream_call_start(f->worker, &o, &h, NULL, true, on_answer, f);
    arena_fini(&scratch);
}

/* Unless one is under way, or it is too early after a failed one. */
static void want_fetch(struct jwks_remote *r, struct worker *w, uint64_t now_ms) {
    if (now_ms < LOAD(&r->not_before_ms) ||
        __atomic_exchange_n(&r->is_fetching, true, __ATOMIC_ACQ_REL)) {
        return;
    }
    if (is_fresh(r, now_ms)) { /* another worker's ended just now */
        STORE(&r->is_fetching, false);
        return;
    }
    struct fetch *f = xnew(struct fetch);
    f->remote = shared_ref(r);
    f->worker = w;
    timer_init(&f->retry, worker_loop(w), on_retry);
    start_call(f);
}

enum jwks_remote_result jwks_remote_get(struct jwks_remote *r, struct worker *w,
                                        struct jwks_wait *wait, const struct jwks **keys) {
    struct loop *l = worker_loop(w);
    struct worker_part *p = part_of(r, l);
    uint64_t now_ms = loop_now_ms(l), finished = LOAD(&r->finished);
    bool is_usable = is_fresh(r, now_ms);
    if (!is_usable) {
        want_fetch(r, w, now_ms);
        is_usable = is_fresh(r, now_ms);
    }
    refresh(p);
    if (p->keys && (is_usable || r->is_async)) {
        *keys = p->keys;
        return JWKS_REMOTE_READY;
    }
    if (p->waits_n >= JWKS_REMOTE_WAITS_MAX || !LOAD(&r->is_fetching)) {
        stats_inc(stats_shard(r->stats.scope, l->thread_index), r->stats.failed);
        return JWKS_REMOTE_OVERFLOW;
    }
    if (list_empty(&p->waits)) {
        p->finished = finished;
        timer_start(&p->poll, POLL_MS);
    }
    list_push_back(&p->waits, &wait->node);
    wait->count_ = &p->waits_n;
    p->waits_n++;
    return JWKS_REMOTE_WAITING;
}

void jwks_remote_cancel(struct jwks_wait *wait) {
    if (list_linked(&wait->node)) {
        list_unlink(&wait->node);
        --*wait->count_;
    }
}
