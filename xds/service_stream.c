/* A service's gRPC stream, kept up: see service_stream.h. */
#include "xds/service_stream.h"

#include "protos/gen/core.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/ads.h"
#include "xds/dial.h"
#include "xds/service_target.h"

#define BACKOFF_BASE_MS 500u
#define BACKOFF_MAX_MS 30000u
#define BACKOFF_SHIFT_MAX 10u

struct service_stream {
    struct store *store;
    const char *method;
    const struct service_stream_ops *ops;
    void *user;
    struct arena arena;
    sv cluster, authority;
    struct xds_metadata *metadata;
    unsigned metadata_n;
    struct xds_dialer *dialer;
    struct xds_dial *dial;     /* under way, or under the stream */
    struct ads_stream *stream; /* NULL: not open */
    bool is_held;              /* gRPC, from the first dial on */
    unsigned failures;         /* in a row, since a message was received */
    struct timer retry;
};

static void disconnect(struct service_stream *t) {
    timer_cancel(&t->retry);
    if (t->stream) {
        ads_stream_close(t->stream);
        t->stream = NULL;
    }
    if (t->dial) {
        xds_dial_close(t->dial);
        t->dial = NULL;
    }
}

static void retry_later(struct service_stream *t) {
    disconnect(t);
    unsigned shift = t->failures < BACKOFF_SHIFT_MAX ? t->failures : BACKOFF_SHIFT_MAX;
    uint64_t ceiling = (uint64_t)BACKOFF_BASE_MS << shift;
    ceiling = ceiling < BACKOFF_MAX_MS ? ceiling : BACKOFF_MAX_MS;
    t->failures++;
    timer_start(&t->retry, rng_below(&t->store->loop->rng, ceiling) + 1);
    t->ops->on_ended(t->user);
}

static void fail(struct service_stream *t) {
    t->ops->on_failed(t->user);
    retry_later(t);
}

static void on_message(void *user, sv wire) {
    struct service_stream *t = user;
    if (!t->ops->on_message(t->user, wire)) {
        log_warn_limited(LOG_upstream, "%s: malformed message", t->method);
        fail(t);
        return;
    }
    t->failures = 0;
}

static void on_sent(void *user) { (void)user; }

static void on_closed(void *user, int status, sv text) {
    struct service_stream *t = user;
    t->stream = NULL;
    log_warn_limited(LOG_upstream, "%s: stream to %.*s closed: %d, %.*s", t->method,
                     SV_ARG(t->cluster), status, SV_ARG(text));
    if (status) {
        fail(t);
    } else { /* the server's polite end is no error */
        retry_later(t);
    }
}

static const struct ads_stream_ops stream_ops = {
    .on_message = on_message, .on_sent = on_sent, .on_closed = on_closed};

static void on_dialed(void *user, int fd, const char *error) {
    struct service_stream *t = user;
    if (fd < 0) {
        t->dial = NULL; /* gone with the failure */
        log_warn_limited(LOG_upstream, "%s: stream to %.*s: %s", t->method, SV_ARG(t->cluster),
                         error);
        fail(t);
        return;
    }
    const struct xds_dial_target *target = xds_dial_target(t->dial);
    const struct ads_stream_options o = {.loop = t->store->loop,
                                         .fd = fd,
                                         .method = t->method,
                                         .authority = t->authority,
                                         .metadata = t->metadata,
                                         .metadata_n = t->metadata_n,
                                         .keepalive_ms = target->http2_keepalive_ms,
                                         .keepalive_timeout_ms =
                                             target->http2_keepalive_timeout_ms};
    t->stream = ads_stream_open(&o, &stream_ops, t);
    t->ops->on_open(t->user);
}

void service_stream_start(struct service_stream *t) {
    if (!t->is_held) {
        t->is_held = true;
        ads_hold();
    }
    t->dial = xds_dial_start(t->dialer, on_dialed, t);
}

static void on_retry(struct timer *timer) {
    service_stream_start(CONTAINER_OF(timer, struct service_stream, retry));
}

static bool next_target(void *user, struct xds_dial_target *out) {
    struct service_stream *t = user;
    return store_dial_target(t->store, t->cluster, out);
}

bool service_stream_can_send(const struct service_stream *t) {
    return t->stream && ads_stream_can_send(t->stream);
}

void service_stream_send(struct service_stream *t, struct buf *message) {
    ads_stream_send(t->stream, message);
}

static bool read_source(struct service_stream *t, const Core__ApiConfigSource *m, struct diag *d) {
    if (m->n_grpc_services != 1 || m->grpc_services[0]->target_specifier_case ==
                                       CORE__GRPC_SERVICE__TARGET_SPECIFIER__NOT_SET) {
        return diag_error(d, "grpc_services: exactly one service is expected");
    }
    struct service_target target;
    service_target_read(m->grpc_services[0], &t->arena, &target);
    t->cluster = target.cluster;
    t->authority = target.authority;
    t->metadata = target.metadata;
    t->metadata_n = target.metadata_n;
    return store_has_cluster(t->store, t->cluster) ||
           diag_error(d, "grpc_services[0].envoy_grpc: unknown cluster '%.*s'", SV_ARG(t->cluster));
}

struct service_stream *service_stream_new(struct store *s, const char *method, const void *source,
                                          const struct service_stream_ops *ops, void *user,
                                          struct diag *d) {
    struct service_stream *t = xnew(struct service_stream);
    t->store = s;
    t->method = method;
    t->ops = ops;
    t->user = user;
    arena_init(&t->arena, 0);
    timer_init(&t->retry, s->loop, on_retry);
    const struct xds_dial_ops dial_ops = {next_target, t};
    t->dialer = xds_dialer_new(s->loop, &dial_ops);
    if (!read_source(t, source, d)) {
        service_stream_free(t);
        return NULL;
    }
    return t;
}

void service_stream_stop(struct service_stream *t) {
    t->failures = 0;
    disconnect(t);
}

void service_stream_free(struct service_stream *t) {
    if (!t) {
        return;
    }
    service_stream_stop(t);
    xds_dialer_free(t->dialer);
    if (t->is_held) {
        ads_release();
    }
    arena_fini(&t->arena);
    xfree(t);
}
