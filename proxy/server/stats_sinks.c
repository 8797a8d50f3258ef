/* See stats_sinks.h. A datagram that the system will not take at once is dropped and counted:
 * neither main nor memory waits for a collector. */
#include "proxy/server/stats_sinks.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "protos/gen/metrics.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/event/timer.h"
#include "proxy/net/addr.h"
#include "proxy/stats/stats.h"
#include "proxy/stats/stats_lines.h"

#define PREFIX SV("envoy")
#define DATAGRAM_MAX 65507u /* bytes of payload over IPv4 */
#define SLICES_PER_TURN 8u  /* of 64 stats each */

#define SINKS_STATS(P, C, G, H, T) \
    C(P, datagrams_dropped) C(P, datagrams_sent) C(P, flushes_skipped)
STATS_ENUM(SINKS, SINKS_STATS);
STATS_GROUP(sinks, SINKS, SINKS_STATS);

struct sink {
    struct addr to;
    uint32_t datagram_max; /* 0: a datagram for each line */
    int fd;                /* -1: none could be made */
    size_t pending_n;
    char *pending; /* of datagram_max bytes; NULL: none */
};
struct stats_sinks {
    struct arena arena;
    struct stats_store *stats;
    struct stats_scope *scope;
    struct stats_shard *shard;
    struct timer turn;
    struct stats_lines *lines; /* of the flush under way; NULL: none is */
    struct stats_line_form forms[STATS_SINKS_MAX];
    struct sink v[STATS_SINKS_MAX];
    unsigned n;
};

/* ---- compiling ---- */

static sv prefix_of(struct arena *a, const char *text) {
    return *text ? arena_sv(a, sv_cstr(text)) : PREFIX;
}

static bool compile_statsd(struct compile_ctx *ctx, const Metrics__StatsdSink *m, struct arena *a,
                           struct sink *out, struct stats_line_form *form) {
    form->prefix = prefix_of(a, m->prefix);
    if (m->statsd_specifier_case != METRICS__STATSD_SINK__STATSD_SPECIFIER_ADDRESS) {
        return diag_error(ctx->diag, "tcp_cluster_name is not supported: use address");
    }
    DIAG_FIELD(ctx->diag, "address");
    return compile_address(ctx, m->address, &out->to);
}

static bool compile_dog(struct compile_ctx *ctx, const Metrics__DogStatsdSink *m, struct arena *a,
                        struct sink *out, struct stats_line_form *form) {
    form->prefix = prefix_of(a, m->prefix);
    form->has_tags = true;
    uint64_t max = m->max_bytes_per_datagram ? m->max_bytes_per_datagram->value : 0;
    out->datagram_max = max > DATAGRAM_MAX ? DATAGRAM_MAX : (uint32_t)max;
    out->pending = out->datagram_max ? arena_alloc(a, out->datagram_max) : NULL;
    DIAG_FIELD(ctx->diag, "address");
    return compile_address(ctx, m->address, &out->to);
}

/* False: it is of another kind, or errors were added. */
static bool compile_sink(struct compile_ctx *ctx, const Metrics__StatsSink *m,
                         struct stats_sinks *s) {
    struct sink *out = &s->v[s->n];
    struct stats_line_form *form = &s->forms[s->n];
    const char *type = "";
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg = compile_any(ctx, sv_cstr(m->name), m->typed_config, NULL, &type);
    *out = (struct sink){.fd = -1};
    *form = (struct stats_line_form){0};
    if (!msg) {
        return false;
    }
    if (strcmp(type, metrics__statsd_sink__descriptor.name) == 0) {
        return compile_statsd(ctx, msg, &s->arena, out, form);
    }
    if (strcmp(type, metrics__dog_statsd_sink__descriptor.name) == 0) {
        return compile_dog(ctx, msg, &s->arena, out, form);
    }
    log_warn(LOG_config, "bootstrap: stats sink '%s' (%s) has no effect here", m->name, type);
    return false;
}

static void open_socket(struct sink *k) {
    struct sockaddr_storage to;
    socklen_t n = addr_to_sockaddr(&k->to, &to);
    k->fd = socket(to.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (k->fd >= 0 && connect(k->fd, (struct sockaddr *)&to, n) < 0) {
        log_warn(LOG_stats, "stats sink: unable to connect: %s", strerror(errno));
        close(k->fd);
        k->fd = -1;
    }
}

/* ---- sending ---- */

static void send_datagram(struct stats_sinks *s, struct sink *k, const char *p, size_t n) {
    if (k->fd < 0) { /* a socket's path may not have been there yet */
        open_socket(k);
    }
    bool sent = k->fd >= 0 && send(k->fd, p, n, MSG_NOSIGNAL) == (ssize_t)n;
    stats_inc(s->shard, sent ? SINKS_datagrams_sent : SINKS_datagrams_dropped);
}

static void send_pending(struct stats_sinks *s, struct sink *k) {
    if (k->pending_n) {
        send_datagram(s, k, k->pending, k->pending_n);
        k->pending_n = 0;
    }
}

/* Lines share a datagram up to its limit, with newlines between them. */
static void on_line(void *user, unsigned form, sv line) {
    struct stats_sinks *s = user;
    struct sink *k = &s->v[form];
    if (line.n >= k->datagram_max) {
        send_pending(s, k);
        send_datagram(s, k, line.p, line.n);
        return;
    }
    if (k->pending_n + 1 + line.n > k->datagram_max) {
        send_pending(s, k);
    }
    if (k->pending_n) {
        k->pending[k->pending_n++] = '\n';
    }
    memcpy(k->pending + k->pending_n, line.p, line.n);
    k->pending_n += line.n;
}

static void end_flush(struct stats_sinks *s) {
    stats_lines_free(s->lines);
    s->lines = NULL;
    for (unsigned i = 0; i < s->n; i++) {
        send_pending(s, &s->v[i]);
    }
}

void stats_sinks_finish(struct stats_sinks *s) {
    if (!s) {
        return;
    }
    timer_cancel(&s->turn);
    if (!s->lines) {
        s->lines = stats_lines_new(s->stats, s->forms, s->n, on_line, s);
    }
    /* bounded: as many slices as there are stats */
    while (stats_lines_next(s->lines)) {}
    end_flush(s);
}

static void on_turn(struct timer *t) {
    struct stats_sinks *s = CONTAINER_OF(t, struct stats_sinks, turn);
    for (unsigned i = 0; i < SLICES_PER_TURN; i++) {
        if (!stats_lines_next(s->lines)) {
            end_flush(s);
            return;
        }
    }
    timer_start(t, 0);
}

void stats_sinks_flush(struct stats_sinks *s) {
    if (!s) {
        return;
    }
    if (s->lines) {
        stats_inc(s->shard, SINKS_flushes_skipped);
        return;
    }
    s->lines = stats_lines_new(s->stats, s->forms, s->n, on_line, s);
    timer_start(&s->turn, 0);
}

/* ---- life ---- */

struct stats_sinks *stats_sinks_new(struct compile_ctx *ctx, const void *const *msgs, size_t n,
                                    struct loop *l, struct stats_store *stats) {
    unsigned before = diag_errors(ctx->diag);
    struct stats_sinks *s = xnew(struct stats_sinks);
    arena_init(&s->arena, 0);
    s->stats = stats;
    timer_init(&s->turn, l, on_turn);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "stats_sinks[%zu]", i);
        if (s->n == STATS_SINKS_MAX) {
            diag_error(ctx->diag, "at most %u sinks are supported", STATS_SINKS_MAX);
            break;
        }
        s->n += compile_sink(ctx, msgs[i], s);
    }
    if (diag_errors(ctx->diag) != before || s->n == 0) {
        stats_sinks_free(s);
        return NULL;
    }
    s->scope = stats_scope_get(stats, &sinks_stats_group, SV("stats_sinks."));
    s->shard = stats_shard(s->scope, l->thread_index);
    return s;
}

void stats_sinks_free(struct stats_sinks *s) {
    if (!s) {
        return;
    }
    timer_cancel(&s->turn);
    stats_lines_free(s->lines);
    for (unsigned i = 0; i < s->n; i++) {
        if (s->v[i].fd >= 0) {
            close(s->v[i].fd);
        }
    }
    stats_scope_unref(s->scope);
    arena_fini(&s->arena);
    xfree(s);
}
