/* Start-up and life of the process: see server.h. */
#include "proxy/server/server.h"

#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "protos/any.h"
#include "proxy/base/check.h"
#include "proxy/base/crash.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/version.h"
#include "proxy/config/compile_stats.h"
#include "proxy/net/tls.h"
#include "proxy/observe/log_sink.h"
#include "proxy/server/admin.h"
#include "proxy/server/overload.h"
#include "proxy/server/stats_sinks.h"
#include "proxy/stats/stats_flush.h"

#define FLUSH_INTERVAL_MS 5000u
#define EXPIRY_INTERVAL_S 60
#define WORKERS_MAX 256u

/* ---- small facts ---- */

unsigned server_concurrency(const struct options *o) {
    if (o->has_concurrency) {
        unsigned n = o->concurrency ? o->concurrency : 1;
        return n > WORKERS_MAX ? WORKERS_MAX : n;
    }
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : (unsigned)n > WORKERS_MAX ? WORKERS_MAX : (unsigned)n;
}

/* The first non-loopback address of the wanted version: what x-forwarded-for shows for loopback
 * clients. */
static void find_local_address(struct addr *out, bool want_v6) {
    struct ifaddrs *list;
    memset(out, 0, sizeof(*out));
    if (getifaddrs(&list) < 0) {
        return;
    }
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        bool fits = i->ifa_addr && i->ifa_addr->sa_family == (want_v6 ? AF_INET6 : AF_INET);
        if (!fits || (i->ifa_flags & IFF_LOOPBACK) || !(i->ifa_flags & IFF_UP)) {
            continue;
        }
        socklen_t n = want_v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
        addr_from_sockaddr(out, i->ifa_addr, n);
        out->port = 0;
        break;
    }
    freeifaddrs(list);
}

unsigned server_state(const struct server *s) {
    return __atomic_load_n(&s->state, __ATOMIC_RELAXED);
}

static void set_state(struct server *s, unsigned state) {
    __atomic_store_n(&s->state, state, __ATOMIC_RELAXED);
    stats_gauge_set(s->server_stats, SERVER_state, state);
}

/* ---- periodic ---- */

static uint64_t resident_bytes(void) {
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long size = 0, resident = 0;
    if (f) {
        if (fscanf(f, "%lu %lu", &size, &resident) != 2) {
            resident = 0;
        }
        fclose(f);
    }
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void update_gauges(struct server *s) {
    struct stats_shard *st = s->server_stats;
    uint64_t now = loop_wall_us(&s->main->loop, loop_now_us(&s->main->loop));
    stats_gauge_set(st, SERVER_uptime, (now - s->started_us) / 1000000);
    stats_gauge_set(st, SERVER_memory_physical_size, resident_bytes());
    stats_gauge_set(st, SERVER_state, server_state(s));
    stats_gauge_set(st, SERVER_live, server_state(s) == SERVER_STATE_LIVE);
    stats_gauge_set(st, SERVER_tls_contexts, tls_contexts_alive());
    uint64_t total = 0, wake_pauses = 0;
    for (unsigned i = 0; i < s->workers_n; i++) {
        total += __atomic_load_n(&s->workers[i]->connections, __ATOMIC_RELAXED);
        wake_pauses += loop_wake_pauses(&s->workers[i]->loop);
    }
    stats_gauge_set(st, SERVER_total_connections, total);
    stats_add(st, SERVER_wake_pauses, wake_pauses - s->wake_pauses);
    s->wake_pauses = wake_pauses;
}

/* Of all certificates in use the one that expires first, of all OCSP responses likewise. Looked at
 * when the configuration changed or EXPIRY_INTERVAL_S have passed. */
static void update_expiry(struct server *s, int64_t now_s) {
    uint64_t version = s->snapshot ? s->snapshot->version : 0;
    if (now_s < s->expiry_due_s && version == s->expiry_version) {
        return;
    }
    uint32_t days = UINT32_MAX;
    uint64_t ocsp_s = UINT64_MAX;
    const struct table *all = s->snapshot ? &s->snapshot->tables[TABLE_TRANSPORTS] : NULL;
    for (uint32_t i = 0; all && (i = table_next(all, i)) != UINT32_MAX; i++) {
        const struct transport_factory *f = (const struct transport_factory *)table_get(all, i);
        uint32_t own_days = tls_factory_days_until_expiry(f, now_s);
        uint64_t own_ocsp_s = tls_factory_ocsp_seconds(f, now_s);
        days = own_days < days ? own_days : days;
        ocsp_s = own_ocsp_s < ocsp_s ? own_ocsp_s : ocsp_s;
    }
    stats_gauge_set(s->server_stats, SERVER_days_until_first_cert_expiring, days);
    stats_gauge_set(s->server_stats, SERVER_seconds_until_first_ocsp_response_expiring,
                    ocsp_s == UINT64_MAX ? 0 : ocsp_s);
    s->expiry_version = version;
    s->expiry_due_s = now_s + EXPIRY_INTERVAL_S;
}

void server_flush_stats(struct server *s) {
    update_gauges(s);
    update_expiry(s,
                  (int64_t)(loop_wall_us(&s->main->loop, loop_now_us(&s->main->loop)) / 1000000));
    log_sinks_publish_stats(s->main->loop.thread_index);
    stats_flush(s->stats);
    stats_sinks_flush(s->stats_sinks);
}

static void on_flush(struct timer *t) {
    struct server *s = CONTAINER_OF(t, struct server, flush_timer);
    server_flush_stats(s);
    timer_start(t, s->flush_interval_ms);
}

/* ---- signals ---- */

static void on_stop_signal(uv_signal_t *h, int signum) {
    struct server *s = h->data;
    log_warn(LOG_main, "caught %s", signum == SIGTERM ? "ENVOY_SIGTERM" : "ENVOY_SIGINT");
    server_quit(s);
}

void server_reopen_logs(struct server *s) {
    (void)s;
    log_reopen();
    log_sinks_reopen();
}

static void on_usr1(uv_signal_t *h, int signum) {
    (void)signum;
    log_warn(LOG_main, "caught SIGUSR1: reopening access logs");
    server_reopen_logs(h->data);
}

static void on_hup(uv_signal_t *h, int signum) {
    (void)h;
    (void)signum;
    log_warn(LOG_main, "caught and eating SIGHUP. See documentation for how to hot restart.");
}

static void watch_signal(struct server *s, uv_signal_t *h, int signum, uv_signal_cb fn) {
    uv_signal_init(&s->main->loop.uv, h);
    h->data = s;
    uv_signal_start(h, fn, signum);
}

/* ---- snapshots, readiness ---- */

struct snapshot_msg {
    struct loop_msg msg;
    struct server *server;
    struct snapshot *snapshot;
};

static void on_snapshot(struct loop *l, struct loop_msg *m) {
    struct snapshot_msg *sm = CONTAINER_OF(m, struct snapshot_msg, msg);
    struct server *s = sm->server;
    (void)l;
    if (s->snapshot) {
        shared_unref(&s->snapshot->shared);
    }
    s->snapshot = sm->snapshot;
    xfree(sm);
}

void server_publish(struct server *s, struct snapshot *snap) {
    struct snapshot_msg *m = xnew(struct snapshot_msg);
    m->msg.run = on_snapshot;
    m->server = s;
    m->snapshot = shared_ref(snap);
    for (unsigned i = 0; i < s->workers_n; i++) {
        worker_publish(s->workers[i], snap);
    }
    /* Last: whoever saw an update in the admin pages finds workers that know of it. */
    loop_post(&s->main->loop, &m->msg);
}

uint64_t server_adopted_version(const struct server *s) {
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < s->workers_n; i++) {
        uint64_t v = __atomic_load_n(&s->workers[i]->adopted_version, __ATOMIC_ACQUIRE);
        oldest = v < oldest ? v : oldest;
    }
    return oldest;
}

static void start_workers(struct loop *l, void *arg) {
    struct server *s = arg;
    (void)l;
    if (s->are_workers_started) {
        return;
    }
    log_info(LOG_main, "starting workers");
    for (unsigned i = 0; i < s->workers_n; i++) {
        CHECK(worker_start(s->workers[i]) == 0);
    }
    s->are_workers_started = true;
    stats_gauge_set(s->listener_manager, LISTENER_MANAGER_workers_started, 1);
    set_state(s, SERVER_STATE_LIVE);
    uint64_t now = loop_wall_us(&s->main->loop, loop_refresh_now(&s->main->loop));
    stats_record(s->server_stats, SERVER_initialization_time_ms, (now - s->started_us) / 1000);
    stats_gauge_set(s->server_stats, SERVER_live, 1);
}

void server_set_ready(struct server *s) { loop_call(&s->main->loop, start_workers, s); }

void server_quit(struct server *s) { loop_stop(&s->main->loop); }

void server_drain(struct server *s, struct drain_request r) {
    s->is_draining = true;
    stats_inc(s->listener_manager, LISTENER_MANAGER_listener_stopped);
    for (unsigned i = 0; i < s->workers_n; i++) {
        worker_drain(s->workers[i], r);
    }
}

void server_fail_health(struct server *s, bool fail) {
    __atomic_store_n(&s->shared.is_health_failed, fail, __ATOMIC_RELAXED);
    if (server_state(s) == SERVER_STATE_LIVE || server_state(s) == SERVER_STATE_DRAINING) {
        __atomic_store_n(&s->state, fail ? SERVER_STATE_DRAINING : SERVER_STATE_LIVE,
                         __ATOMIC_RELAXED);
        stats_gauge_set(s->server_stats, SERVER_live, !fail);
    }
}

/* ---- life ---- */

static struct stats_shard *shard(struct server *s, const struct stats_group *g,
                                 const char *prefix) {
    return stats_shard(stats_scope_get(s->stats, g, sv_cstr(prefix)), s->main->loop.thread_index);
}

static void init_stats(struct server *s) {
    s->server_stats = shard(s, &server_stats_group, "server.");
    s->listener_manager = shard(s, &listener_manager_stats_group, "listener_manager.");
    stats_gauge_set(s->server_stats, SERVER_concurrency, s->workers_n);
    const Pb__UInt64Value *version = s->bootstrap->stats_server_version_override;
    sv sha = sv_sub(sv_cstr(version_git_sha()), 0, 6);
    stats_gauge_set(s->server_stats, SERVER_version,
                    version ? version->value : strtoul(arena_cstr(&s->arena, sha), NULL, 16));
    stats_gauge_set(s->listener_manager, LISTENER_MANAGER_workers_started, 0);
    set_state(s, SERVER_STATE_PRE_INITIALIZING);
}

static bool init_stats_config(struct server *s, struct diag *d) {
    struct compile_ctx ctx = {.arena = &s->arena,
                              .diag = d,
                              .registry = s->registry,
                              .stats = s->stats,
                              .is_static = true};
    struct stats_cli_tag *tags =
        arena_new_array(&s->arena, struct stats_cli_tag, s->opt.stats_tags.n);
    for (size_t i = 0; i < s->opt.stats_tags.n; i++) {
        sv value = sv_cstr(s->opt.stats_tags.p[i]);
        tags[i].name = sv_cut(&value, ':');
        tags[i].value = value;
    }
    DIAG_FIELD(d, "stats_config");
    const struct stats_config *c =
        compile_stats_config(&ctx, s->bootstrap->stats_config, tags, (unsigned)s->opt.stats_tags.n);
    if (c) {
        stats_store_configure(s->stats, c);
    }
    return c != NULL;
}

static bool init_stats_sinks(struct server *s, struct diag *d) {
    const Bootstrap__Bootstrap *b = s->bootstrap;
    struct arena scratch;
    unsigned before = diag_errors(d);
    if (!b->n_stats_sinks) {
        return true;
    }
    arena_init(&scratch, 0);
    struct compile_ctx ctx = {.arena = &scratch,
                              .scratch = &scratch,
                              .diag = d,
                              .registry = s->registry,
                              .stats = s->stats,
                              .is_static = true};
    s->stats_sinks = stats_sinks_new(&ctx, (const void *const *)b->stats_sinks, b->n_stats_sinks,
                                     &s->main->loop, s->stats);
    arena_fini(&scratch);
    return diag_errors(d) == before;
}

static uint32_t flush_interval(const Bootstrap__Bootstrap *b) {
    const Pb__Duration *d = b->stats_flush_interval;
    uint64_t ms =
        d ? (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000 : FLUSH_INTERVAL_MS;
    return ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
}

static void start_flushing(struct server *s) {
    timer_init(&s->flush_timer, &s->main->loop, on_flush);
    s->flush_interval_ms = flush_interval(s->bootstrap);
    s->flushes_on_admin =
        s->bootstrap->stats_flush_case == BOOTSTRAP__BOOTSTRAP__STATS_FLUSH_STATS_FLUSH_ON_ADMIN &&
        s->bootstrap->stats_flush_on_admin;
    if (!s->flushes_on_admin) {
        timer_start(&s->flush_timer, s->flush_interval_ms);
    }
}

static bool make_workers(struct server *s, struct diag *d) {
    s->workers = xnew_array(struct worker *, s->workers_n);
    worker_share_peers(&s->shared, s->workers_n);
    for (unsigned i = 0; i < s->workers_n; i++) {
        s->workers[i] = worker_new(&s->shared, i, i + 2);
        if (!s->workers[i]) {
            return diag_error(d, "unable to make worker %u", i);
        }
        s->shared.peers[i] = s->workers[i];
    }
    return true;
}

bool server_init(struct server *s, const struct registry *r, struct diag *d) {
    s->main = worker_new(&s->shared, 0, 0);
    if (!s->main) {
        return diag_error(d, "unable to make an event loop");
    }
    s->registry = r;
    s->workers_n = server_concurrency(&s->opt);
    s->started_us = loop_wall_us(&s->main->loop, loop_refresh_now(&s->main->loop));
    s->stats = stats_store_new(s->workers_n + 2);
    init_stats(s);
    s->shared = (struct worker_shared){.stats = s->stats,
                                       .node_id = sv_cstr(s->node->id),
                                       .node_cluster = sv_cstr(s->node->cluster),
                                       .drain_time_ms = s->opt.drain_time_s * 1000,
                                       .is_drain_immediate = s->opt.is_drain_immediate};
    find_local_address(&s->shared.local_address,
                       strcmp(s->opt.local_address_ip_version, "v6") == 0);
    if (!init_stats_config(s, d) || !init_stats_sinks(s, d) || !server_runtime_init(s, d) ||
        !make_workers(s, d)) {
        return false;
    }
    if (s->bootstrap->overload_manager) {
        s->overload = overload_manager_new(s->bootstrap->overload_manager, &s->main->loop, s->stats,
                                           r, &s->shared.global_limit, d);
        if (!s->overload) {
            return false;
        }
        overload_manager_start(s->overload);
    }
    s->admin = admin_new(s, d);
    if (!diag_ok(d)) {
        return false;
    }
    start_flushing(s);
    log_sinks_start(s->workers_n + 2, s->opt.file_flush_interval_ms, s->stats);
    watch_signal(s, &s->sigterm, SIGTERM, on_stop_signal);
    watch_signal(s, &s->sigint, SIGINT, on_stop_signal);
    watch_signal(s, &s->sigusr1, SIGUSR1, on_usr1);
    watch_signal(s, &s->sighup, SIGHUP, on_hup);
    set_state(s, SERVER_STATE_INITIALIZING);
    return true;
}

int server_run(struct server *s) {
    loop_run(&s->main->loop);
    if (s->stats_sinks) { /* a flush under way came too early for what was counted since */
        stats_sinks_finish(s->stats_sinks);
        stats_flush(s->stats);
        stats_sinks_finish(s->stats_sinks);
    }
    log_info(LOG_main, "exiting");
    return s->exit_code;
}

static void close_signal(uv_signal_t *h) {
    if (h->data) {
        uv_close((uv_handle_t *)h, NULL);
    }
}

void server_fini(struct server *s) {
    admin_free(s->admin);
    overload_manager_free(s->overload);
    stats_sinks_free(s->stats_sinks);
    for (unsigned i = 0; i < s->workers_n; i++) {
        if (s->are_workers_started) {
            worker_stop_and_free(s->workers[i]);
        } else {
            /* snapshots in its mailbox are adopted, then let go */
            loop_run_nowait(&s->workers[i]->loop);
            worker_free(s->workers[i]);
        }
    }
    timer_cancel(&s->flush_timer);
    close_signal(&s->sigterm);
    close_signal(&s->sigint);
    close_signal(&s->sigusr1);
    close_signal(&s->sighup);
    log_sinks_stop();
    if (s->snapshot) {
        shared_unref(&s->snapshot->shared);
    }
    for (int i = 0; i < 3; i++) {
        loop_run_nowait(&s->main->loop);
    }
    xfree(s->workers);
    server_runtime_fini(s);
    worker_free(s->main);
    worker_unshare_peers(&s->shared);
}
