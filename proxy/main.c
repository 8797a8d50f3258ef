/* The program: options, bootstrap, and the wiring of server, control plane and registry. The only
 * file that sees everything.
 * Threads: main; starts the config thread, which owns the store from then on. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "filters/registry.h"
#include "protos/any.h"
#include "proxy/base/crash.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/version.h"
#include "proxy/config/bootstrap.h"
#include "proxy/config/google_grpc.h"
#include "proxy/net/tls.h"
#include "proxy/net/transport.h"
#include "proxy/server/bootstrap_check.h"
#include "proxy/server/loop_stats.h"
#include "proxy/server/observe_wiring.h"
#include "proxy/server/server.h"
#include "proxy/server/validate.h"
#include "proxy/upstream/outlier_event.h"
#include "xds/hds.h"
#include "xds/lrs.h"
#include "xds/store.h"
#include "xds/store_demand.h"
#include "xds/store_view.h"

#define CONFIG_THREAD_NICE 5

struct program {
    struct server server;
    struct store store;
    struct loop config_loop;
    uv_thread_t config_thread;
    struct config_view view;
    struct loop_stats *loop_stats; /* one a loop; NULL: not asked for */
};

/* ---- the config thread ---- */

static void on_publish(void *user, struct snapshot *s) {
    struct program *p = user;
    server_publish(&p->server, s);
}

static uint64_t adopted_version(void *user) {
    const struct program *p = user;
    return server_adopted_version(&p->server);
}

static void on_ready(void *user) {
    struct program *p = user;
    server_set_ready(&p->server);
}

static void end_store(struct program *p) {
    store_fini(&p->store);
    outlier_event_log_close();
    for (int i = 0; i < 3; i++) {
        loop_run_nowait(&p->config_loop);
    }
    loop_fini(&p->config_loop);
}

static void on_runtime(void *user, unsigned layer, struct resource *r) {
    struct program *p = user;
    server_runtime_discovered(&p->server, layer, r);
}

static void run_config(void *arg) {
    struct program *p = arg;
    log_thread_name("config");
    crash_thread_begin();
    /* Where cores are few, compiling a large update makes way for requests. (Of this thread
     * only.) */
    if (setpriority(PRIO_PROCESS, 0, CONFIG_THREAD_NICE) != 0) {
        log_debug(LOG_main, "the config thread keeps its priority: %s", strerror(errno));
    }
    loop_run(&p->config_loop);
    end_store(p);
    transport_read_chunk_drop();
    tls_thread_drop();
    chunk_cache_trim();
    crash_thread_end();
}

/* ---- start-up ---- */

/* The bytes of the cluster that stands for a google_grpc source; empty: it is none. */
static sv google_grpc_wire(const Core__ApiConfigSource *m, const char *field, struct arena *a,
                           struct diag *d) {
    const Core__GrpcService *g = m && m->n_grpc_services ? m->grpc_services[0] : NULL;
    if (!g || g->target_specifier_case != CORE__GRPC_SERVICE__TARGET_SPECIFIER_GOOGLE_GRPC) {
        return SV_NULL;
    }
    DIAG_FIELD(d, "%s.grpc_services[0].google_grpc", field);
    const ProtobufCMessage *c = google_grpc_cluster(g->google_grpc, a, d);
    return c ? proto_pack(c, a) : SV_NULL;
}

/* The clusters of the bootstrap's services that name none; some may be the same. */
static void add_google_grpc(struct program *p, struct diag *d) {
    const Bootstrap__Bootstrap *b = p->server.bootstrap;
    const struct {
        const Core__ApiConfigSource *source;
        const char *field;
    } services[] = {
        {b->dynamic_resources ? b->dynamic_resources->ads_config : NULL,
         "dynamic_resources.ads_config"},
        {b->hds_config, "hds_config"},
        {b->cluster_manager ? b->cluster_manager->load_stats_config : NULL,
         "cluster_manager.load_stats_config"},
    };
    sv made[ARRAY_LEN(services)];
    struct arena a;
    arena_init(&a, 0);
    for (size_t i = 0; i < ARRAY_LEN(services); i++) {
        made[i] = google_grpc_wire(services[i].source, services[i].field, &a, d);
        bool is_new = made[i].n > 0;
        for (size_t k = 0; k < i; k++) {
            is_new &= !sv_eq(made[k], made[i]);
        }
        if (is_new) {
            store_add_static(&p->store, RES_CLUSTER, made[i], d);
        }
    }
    arena_fini(&a);
}

static bool add_static(struct program *p, struct diag *d) {
    const Bootstrap__Bootstrap__StaticResources *r = p->server.bootstrap->static_resources;
    struct arena a;
    arena_init(&a, 0);
    add_google_grpc(p, d);
    DIAG_FIELD(d, "static_resources");
    for (size_t i = 0; r && i < r->n_secrets; i++) {
        DIAG_FIELD(d, "secrets[%zu]", i);
        store_add_static(&p->store, RES_SECRET, proto_pack(&r->secrets[i]->base, &a), d);
    }
    for (size_t i = 0; r && i < r->n_clusters; i++) {
        DIAG_FIELD(d, "clusters[%zu]", i);
        store_add_static(&p->store, RES_CLUSTER, proto_pack(&r->clusters[i]->base, &a), d);
    }
    for (size_t i = 0; r && i < r->n_listeners; i++) {
        DIAG_FIELD(d, "listeners[%zu]", i);
        store_add_static(&p->store, RES_LISTENER, proto_pack(&r->listeners[i]->base, &a), d);
    }
    arena_fini(&a);
    return diag_ok(d);
}

/* Zone-aware routing compares with the cluster of those like us, in the node's locality. */
static void name_local_cluster(struct program *p, sv name) {
    struct config *c = &p->store.config;
    const Core__Locality *l = p->server.node->locality;
    if (name.n) {
        c->local_cluster = names_acquire(c->clusters, name);
    }
    if (l) {
        c->local_locality =
            (struct locality){sv_cstr(l->region), sv_cstr(l->zone), sv_cstr(l->sub_zone)};
    }
}

static bool open_event_log(const Bootstrap__ClusterManager *cm, struct diag *d) {
    const char *path = cm && cm->outlier_detection ? cm->outlier_detection->event_log_path : "";
    return !*path || outlier_event_log_open(sv_cstr(path), d);
}

/* What the bootstrap itself has, then what it asks control planes for. */
static bool fill_store(struct program *p, struct diag *d) {
    const Bootstrap__Bootstrap *b = p->server.bootstrap;
    const char *local = b->cluster_manager ? b->cluster_manager->local_cluster_name : "";
    if (b->cluster_manager) {
        name_local_cluster(p, sv_cstr(local));
    }
    if (!add_static(p, d)) {
        return false;
    }
    if (*local && !store_has_cluster(&p->store, sv_cstr(local))) {
        return diag_error(d, "local cluster '%s' must be defined", local);
    }
    bool ok = store_set_dynamic(&p->store, b->dynamic_resources, b->layered_runtime, d) &&
              store_set_workloads(&p->store, b, d) && lrs_start(&p->store, b, d) &&
              hds_start(&p->store, b, d);
    if (ok) {
        store_static_done(&p->store);
    }
    return ok;
}

static bool init_store(struct program *p, bool is_dry_run, struct diag *d) {
    struct server *s = &p->server;
    struct store_options o = {
        .loop = &p->config_loop,
        .stats = s->stats,
        .registry = s->registry,
        .workers = s->workers_n,
        .node = s->node_wire,
        .node_id = s->shared.node_id,
        .node_cluster = s->shared.node_cluster,
        .node_msg = s->node,
        .default_tracer = s->bootstrap->tracing ? s->bootstrap->tracing->http : NULL,
        .reject_unknown_dynamic = s->opt.reject_unknown_dynamic_fields,
        .ignore_unknown_dynamic = s->opt.ignore_unknown_dynamic_fields,
        .allow_unknown_static = s->opt.allow_unknown_static_fields,
        .is_dry_run = is_dry_run,
        .publish = on_publish,
        .adopted_version = adopted_version,
        .on_ready = on_ready,
        .on_runtime = on_runtime,
        .user = p,
    };
    if (!is_dry_run && !open_event_log(s->bootstrap->cluster_manager, d)) {
        return false;
    }
    store_init(&p->store, &o);
    if (s->shared.global_limit.max) {
        p->store.config.connections = &s->shared.global_limit;
    }
    return fill_store(p, d);
}

/* application_log_config.log_format; the flag wins. */
static bool apply_log_format(const Bootstrap__Bootstrap__ApplicationLogConfig__LogFormat *f,
                             struct diag *d) {
    char err[256];
    DIAG_FIELD(d, "application_log_config.log_format");
    if (f->log_format_case !=
        BOOTSTRAP__BOOTSTRAP__APPLICATION_LOG_CONFIG__LOG_FORMAT__LOG_FORMAT_TEXT_FORMAT) {
        return diag_error(d, "only text_format is supported");
    }
    return log_set_format(f->text_format, err, sizeof(err)) ||
           diag_error(d, "text_format: %s", err);
}

static bool load_bootstrap(struct program *p, struct diag *d) {
    struct server *s = &p->server;
    arena_init(&s->arena, 65536);
    s->bootstrap = bootstrap_load(s->opt.config_path, s->opt.config_yaml,
                                  s->opt.allow_unknown_static_fields, &s->arena, d);
    if (!s->bootstrap) {
        return false;
    }
    const Bootstrap__Bootstrap__ApplicationLogConfig *lc = s->bootstrap->application_log_config;
    if (lc && lc->log_format && !s->opt.log_format && !apply_log_format(lc->log_format, d)) {
        return false;
    }
    struct node_flags f = {s->opt.service_cluster, s->opt.service_node, s->opt.service_zone};
    s->node = bootstrap_node(s->bootstrap, &f, s->registry, &s->arena);
    s->node_wire = proto_pack(&s->node->base, &s->arena);
    return bootstrap_check(s->bootstrap, d);
}

static bool init_logging(const struct options *o) {
    char err[256];
    if (o->log_format && !log_set_format(o->log_format, err, sizeof(err))) {
        fprintf(stderr, "error: --log-format: %s\n", err);
        return false;
    }
    enum log_level level;
    if (!log_level_parse(sv_cstr(o->log_level), &level)) {
        fprintf(stderr, "error: invalid log level specified '%s'\n", o->log_level);
        return false;
    }
    log_set_all(level);
    log_set_escaped(o->log_format_escaped);
    sv list = o->component_log_level ? sv_cstr(o->component_log_level) : SV_NULL;
    while (list.n) {
        sv item = sv_cut(&list, ',');
        sv name = sv_cut(&item, ':');
        enum log_component c;
        if (!name.n || !item.n) {
            fprintf(stderr, "error: component log level not correctly specified '%.*s'\n",
                    SV_ARG(name));
            return false;
        }
        if (!log_level_parse(item, &level)) {
            fprintf(stderr, "error: invalid log level specified '%.*s'\n", SV_ARG(item));
            return false;
        }
        if (!log_component_parse(name, &c)) {
            fprintf(stderr, "error: invalid component specified '%.*s'\n", SV_ARG(name));
            return false;
        }
        log_set(c, level);
    }
    int rc = o->log_path ? log_open(o->log_path) : 0;
    if (rc < 0) {
        fprintf(stderr, "error: unable to open log file '%s': %s\n", o->log_path, strerror(-rc));
    }
    return rc == 0;
}

static const char *config_name(const struct options *o) {
    return *o->config_path ? o->config_path : "<inline>";
}

static int fail(struct program *p, struct diag *d, const char *what) {
    sv text = diag_text(d);
    if (p->server.opt.mode == MODE_VALIDATE) {
        fprintf(stderr, "%.*s\n", SV_ARG(text));
    } else {
        log_critical(LOG_main, "error %s '%s': %.*s", what, config_name(&p->server.opt),
                     SV_ARG(text));
    }
    return 1;
}

static bool has_static(void *user, enum resource_type t, const struct config_source *source,
                       sv name) {
    const struct entry *e = store_find(user, t, source, name);
    return e && (e->active || e->warming);
}

static int validate(struct program *p) {
    const struct options *o = &p->server.opt;
    const struct validate_static known = {has_static, &p->store};
    if (o->validate_resources.n &&
        !validate_resources(&p->store.config, &o->validate_resources, &known)) {
        return 1;
    }
    printf("configuration '%s' OK\n", config_name(o));
    return 0;
}

/* Bootstrap.enable_dispatcher_stats. The config thread's is ours alone. */
static void measure_loops(struct program *p) {
    struct server *s = &p->server;
    struct loop_stats *m = p->loop_stats = xnew_array(struct loop_stats, s->workers_n + 2);
    loop_stats_start(&s->main->loop, s->stats, "main_thread.dispatcher.", m++);
    loop_stats_start(&p->config_loop, s->stats, "config_thread.dispatcher.", m++);
    for (unsigned i = 0; i < s->workers_n; i++) {
        char prefix[64];
        snprintf(prefix, sizeof(prefix), "listener_manager.worker_%u.dispatcher.", i);
        loop_stats_start(&s->workers[i]->loop, s->stats, prefix, m++);
    }
}

static int serve(struct program *p) {
    if (p->server.bootstrap->enable_dispatcher_stats) {
        measure_loops(p);
    }
    p->view = store_view(&p->store);
    p->server.view = &p->view;
    p->server.shared.on_demand = store_demand_source(&p->store);
    CHECK(uv_thread_create(&p->config_thread, run_config, p) == 0);
    int rc = server_run(&p->server);
    loop_stop(&p->config_loop);
    uv_thread_join(&p->config_thread);
    return rc;
}

/* With the server's threads ready to be started. */
static int run_mode(struct program *p, struct diag *d) {
    enum server_mode mode = p->server.opt.mode;
    if (loop_init(&p->config_loop, 1) < 0) {
        diag_error(d, "unable to make an event loop");
        return fail(p, d, "initializing config");
    }
    bool ok = init_store(p, mode == MODE_VALIDATE, d);
    int rc;
    if (ok && mode == MODE_SERVE) {
        rc = serve(p); /* the config thread ends the store */
    } else {
        /* MODE_INIT_ONLY: that was all */
        rc = !ok ? fail(p, d, "initializing config") : mode == MODE_VALIDATE ? validate(p) : 0;
        end_store(p);
    }
    server_fini(&p->server);
    store_free_names(&p->store); /* the last snapshots are gone */
    stats_store_free(p->server.stats);
    return rc;
}

static int run(struct program *p, struct diag *d) {
    if (!load_bootstrap(p, d)) {
        return fail(p, d, "initializing config");
    }
    log_info(LOG_main, "sluice %s, %u workers", version_string(),
             server_concurrency(&p->server.opt));
    if (!server_init(&p->server, p->server.registry, d)) {
        return fail(p, d, "initializing config");
    }
    return run_mode(p, d);
}

int main(int argc, char **argv) {
    mem_tune();
    struct program *p = xnew(struct program);
    int rc = options_parse(&p->server.opt, argc, argv);
    if (rc >= 0) {
        return rc;
    }
    if (p->server.opt.validate_resources.n && p->server.opt.mode != MODE_VALIDATE) {
        fprintf(stderr, "error: --validate-resources needs --mode validate\n");
        return 1;
    }
    signal(SIGPIPE, SIG_IGN); /* splice(2) and a log's pipe can't be told not to raise it */
    crash_install();
    if (!init_logging(&p->server.opt)) {
        return 1;
    }
    uint64_t seed;
    rand_bytes(&seed, sizeof(seed));
    sv_hash_seed(seed);
    observe_wire();
    p->server.registry = filters_registry();
    struct diag *d = xnew(struct diag);
    diag_init(d);
    rc = run(p, d);
    diag_fini(d);
    xfree(d);
    options_fini(&p->server.opt);
    arena_fini(&p->server.arena);
    xfree(p->loop_stats);
    xfree(p);
    return rc;
}
