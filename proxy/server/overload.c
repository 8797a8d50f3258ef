/* The overload manager: see overload.h. */
#include "proxy/server/overload.h"

#include <malloc.h>

#include "protos/any.h"
#include "protos/gen/resource_monitors_downstream_connections.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/overload.h"
#include "proxy/event/timer.h"
#include "proxy/server/overload_monitors.h"
#include "proxy/stats/stats.h"

#define REFRESH_MS 1000u
#define SHRINK_INTERVAL_MS 10000u
#define CONNECTIONS_MONITOR "envoy.resource_monitors.global_downstream_max_connections"
#define REDUCE_TIMEOUTS "envoy.overload_actions.reduce_timeouts"
#define RESET_STREAMS "envoy.overload_actions.reset_high_memory_stream"
#define SHRINK_HEAP "envoy.overload_actions.shrink_heap"

#define OVERLOAD_STATS(P, C, G, H, T) H(P, refresh_interval_delay, MS)
STATS_ENUM(OVERLOAD, OVERLOAD_STATS);
STATS_GROUP(overload, OVERLOAD, OVERLOAD_STATS);

struct monitored {
    sv name;
    struct overload_monitor *monitor; /* NULL: of connections, which is asked with each of them */
    double pressure;
    struct stat_dyn *pressure_stat, *failed_stat;
};
struct trigger {
    unsigned monitor; /* index */
    bool is_scaled;
    double from, to; /* threshold: equal */
};
/* An action or a load shed point. */
struct rule {
    sv name;
    bool is_shed, has_point;
    enum overload_point point; /* if anything here looks at it */
    struct trigger *triggers;
    unsigned triggers_n;
    struct stat_dyn *active_stat, *scale_stat, *shed_stat, *shrink_stat;
    uint64_t counted; /* of overload_acted() */
};
struct overload_manager {
    struct arena arena;
    struct loop *loop;
    struct stats_scope *scope; /* "overload." */
    struct timer timer;
    uint32_t refresh_ms, shrink_ms;
    uint64_t due_us, shrunk_ms;
    struct monitored *monitors;
    unsigned monitors_n;
    struct rule *rules;
    unsigned rules_n;
    struct conn_limit *connections;
    uint64_t refused; /* of connections, as counted last */
    struct stats_shard *stats;
};

/* ---- compiling ---- */

static struct stat_dyn *make_stat(struct overload_manager *o, sv name, const char *what,
                                  enum stat_kind kind) {
    sv text = arena_printf(&o->arena, "%.*s.%s", SV_ARG(name), what);
    struct stat_dyn *d = stats_dyn(o->scope, text, kind);
    if (kind == STAT_GAUGE) {
        stat_dyn_set(d, 0);
    }
    return d;
}

static const struct monitored *find_monitor(const struct overload_manager *o, sv name) {
    for (unsigned i = 0; i < o->monitors_n; i++) {
        if (sv_eq(o->monitors[i].name, name)) {
            return &o->monitors[i];
        }
    }
    return NULL;
}

static bool compile_connections(struct overload_manager *o, struct compile_ctx *ctx,
                                const Overload__ResourceMonitor *m) {
    const ResourceMonitorsDownstreamConnections__DownstreamConnectionsConfig *c =
        compile_any(ctx, sv_cstr(m->name), m->typed_config, NULL, NULL);
    if (c) {
        int64_t max = c->max_active_downstream_connections;
        o->connections->max = max > UINT32_MAX ? UINT32_MAX : (uint32_t)max;
    }
    return c != NULL;
}

static void compile_monitor(struct overload_manager *o, struct compile_ctx *ctx,
                            const Overload__ResourceMonitor *m) {
    sv name = arena_sv(&o->arena, sv_cstr(m->name));
    sv url = m->typed_config ? any_inner_name(m->typed_config, ctx->scratch) : SV_NULL;
    const struct overload_monitor_type *t = overload_monitor_type(url);
    bool is_connections =
        sv_is(name, CONNECTIONS_MONITOR) &&
        sv_is(url,
              resource_monitors_downstream_connections__downstream_connections_config__descriptor
                  .name);
    if (find_monitor(o, name)) {
        diag_error(ctx->diag, "Duplicate resource monitor %s", m->name);
        return;
    }
    if (!t && !is_connections) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   m->name, SV_ARG(url));
        return;
    }
    struct monitored *out = &o->monitors[o->monitors_n];
    *out = (struct monitored){.name = name};
    if (is_connections) {
        compile_connections(o, ctx, m);
    } else {
        const void *msg = compile_any(ctx, name, m->typed_config, t->type_url, NULL);
        out->monitor = msg ? t->compile(ctx, msg) : NULL;
        make_stat(o, name, "skipped_updates", STAT_COUNTER);
    }
    out->pressure_stat = make_stat(o, name, "pressure", STAT_GAUGE);
    out->failed_stat = make_stat(o, name, "failed_updates", STAT_COUNTER);
    o->monitors_n++;
}

static void compile_trigger(struct overload_manager *o, struct compile_ctx *ctx, struct rule *r,
                            const Overload__Trigger *m) {
    const struct monitored *of = find_monitor(o, sv_cstr(m->name));
    const char *kind = r->is_shed ? "loadshed point" : "overload action";
    if (!of) {
        diag_error(ctx->diag, "Unknown trigger resource %s for %s %.*s", m->name, kind,
                   SV_ARG(r->name));
        return;
    }
    struct trigger t = {.monitor = (unsigned)(of - o->monitors)};
    for (unsigned i = 0; i < r->triggers_n; i++) {
        if (r->triggers[i].monitor == t.monitor) {
            diag_error(ctx->diag, "Duplicate trigger resource for %s %.*s", kind, SV_ARG(r->name));
            return;
        }
    }
    t.is_scaled = m->trigger_oneof_case == OVERLOAD__TRIGGER__TRIGGER_ONEOF_SCALED;
    t.from = t.is_scaled ? m->scaled->scaling_threshold : m->threshold->value;
    t.to = t.is_scaled ? m->scaled->saturation_threshold : t.from;
    if (t.is_scaled && t.from >= t.to) {
        diag_error(ctx->diag, "scaling_threshold must be less than saturation_threshold");
        return;
    }
    r->triggers[r->triggers_n++] = t;
}

/* What Envoy knows beside the points that are looked at here. */
static bool is_known_action(sv name) {
    return sv_is(name, REDUCE_TIMEOUTS) || sv_is(name, RESET_STREAMS) ||
           sv_is(name, "envoy.overload_actions.close_idle_http_connections");
}

static bool find_point(sv name, enum overload_point *out) {
    static const char *const names[] = {
#define POINT_NAME(id, text) text,
        OVERLOAD_POINTS(POINT_NAME)
#undef POINT_NAME
    };
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (sv_is(name, names[i])) {
            *out = (enum overload_point)i;
            return true;
        }
    }
    return false;
}

static struct rule *rule_new(struct overload_manager *o, struct compile_ctx *ctx, const char *name,
                             Overload__Trigger *const *triggers, size_t n, bool is_shed) {
    struct rule *r = &o->rules[o->rules_n];
    for (unsigned i = 0; i < o->rules_n; i++) {
        if (o->rules[i].is_shed == is_shed && sv_is(o->rules[i].name, name)) {
            diag_error(ctx->diag,
                       is_shed ? "Duplicate loadshed point %s" : "Duplicate overload action %s",
                       name);
            return NULL;
        }
    }
    *r = (struct rule){.name = arena_sv(&o->arena, sv_cstr(name)), .is_shed = is_shed};
    r->has_point =
        find_point(r->name, &r->point) && is_shed == (r->point >= OVERLOAD_TCP_LISTENER_ACCEPT);
    r->triggers = arena_new_array(&o->arena, struct trigger, n);
    for (size_t i = 0; i < n; i++) {
        compile_trigger(o, ctx, r, triggers[i]);
    }
    o->rules_n++;
    if (!r->has_point) {
        log_info(LOG_config, "bootstrap: overload_manager: %s has no effect", name);
    }
    r->scale_stat = make_stat(o, r->name, "scale_percent", STAT_GAUGE);
    if (is_shed) {
        r->shed_stat = make_stat(o, r->name, "shed_load_count", STAT_COUNTER);
    } else {
        r->active_stat = make_stat(o, r->name, "active", STAT_GAUGE);
    }
    return r;
}

static void compile_shrink(struct overload_manager *o, struct compile_ctx *ctx, struct rule *r,
                           const Pb__Any *any) {
    r->shrink_stat = make_stat(o, r->name, "shrink_count", STAT_COUNTER);
    const Overload__ShrinkHeapConfig *m =
        any ? compile_any(ctx, r->name, any, overload__shrink_heap_config__descriptor.name, NULL)
            : NULL;
    if (m && m->timer_interval) {
        compile_duration_ms(ctx, m->timer_interval, SHRINK_INTERVAL_MS, &o->shrink_ms);
    }
}

static void compile_action(struct overload_manager *o, struct compile_ctx *ctx,
                           const Overload__OverloadAction *m, bool has_buffer_factory) {
    enum overload_point p;
    sv name = sv_cstr(m->name);
    bool is_timeouts = sv_is(name, REDUCE_TIMEOUTS), is_shrink = sv_is(name, SHRINK_HEAP);
    if (!is_known_action(name) && !(find_point(name, &p) && p < OVERLOAD_TCP_LISTENER_ACCEPT)) {
        diag_error(ctx->diag, "Unknown Overload Manager Action %s", m->name);
        return;
    }
    if (is_timeouts && !m->typed_config) {
        diag_error(ctx->diag, "Overload action \"%s\" requires typed_config", m->name);
        return;
    }
    if (m->typed_config && !is_timeouts && !is_shrink) {
        diag_error(ctx->diag, "Overload action name \"%s\" conflicts with its typed config",
                   m->name);
        return;
    }
    if (sv_is(name, RESET_STREAMS) && !has_buffer_factory) {
        diag_error(ctx->diag, "Overload action \"%s\" requires buffer_factory_config.", m->name);
        return;
    }
    struct rule *r = rule_new(o, ctx, m->name, m->triggers, m->n_triggers, false);
    if (r && is_shrink) {
        compile_shrink(o, ctx, r, m->typed_config);
    } else if (r && is_timeouts) { /* nothing of it has effect; it has to be right all the same */
        compile_any(ctx, name, m->typed_config,
                    overload__scale_timers_overload_action_config__descriptor.name, NULL);
    }
}

static void compile(struct overload_manager *o, struct compile_ctx *ctx,
                    const Overload__OverloadManager *m) {
    o->monitors = arena_new_array(&o->arena, struct monitored, m->n_resource_monitors);
    o->rules = arena_new_array(&o->arena, struct rule, m->n_actions + m->n_loadshed_points);
    for (size_t i = 0; i < m->n_resource_monitors; i++) {
        DIAG_FIELD(ctx->diag, "overload_manager.resource_monitors[%zu]", i);
        compile_monitor(o, ctx, m->resource_monitors[i]);
    }
    for (size_t i = 0; i < m->n_actions; i++) {
        DIAG_FIELD(ctx->diag, "overload_manager.actions[%zu]", i);
        compile_action(o, ctx, m->actions[i], m->buffer_factory_config != NULL);
    }
    for (size_t i = 0; i < m->n_loadshed_points; i++) {
        const Overload__LoadShedPoint *p = m->loadshed_points[i];
        DIAG_FIELD(ctx->diag, "overload_manager.loadshed_points[%zu]", i);
        rule_new(o, ctx, p->name, p->triggers, p->n_triggers, true);
    }
    if (m->buffer_factory_config) {
        log_info(LOG_config, "bootstrap: overload_manager.buffer_factory_config has no effect");
    }
    DIAG_FIELD(ctx->diag, "overload_manager.refresh_interval");
    compile_duration_ms(ctx, m->refresh_interval, REFRESH_MS, &o->refresh_ms);
}

/* ---- sampling ---- */

static void sample(struct monitored *m) {
    double pressure;
    if (!m->monitor) {
        return;
    }
    if (!m->monitor->type->sample(m->monitor, &pressure)) {
        stat_dyn_add(m->failed_stat, 1); /* the last known one stays */
        return;
    }
    m->pressure = pressure;
    stat_dyn_set(m->pressure_stat, (uint64_t)(pressure * 100));
}

static float level_of(const struct trigger *t, double pressure) {
    if (!t->is_scaled) {
        return pressure >= t->from ? 1 : 0;
    }
    if (pressure <= t->from) {
        return 0;
    }
    return pressure >= t->to ? 1 : (float)((pressure - t->from) / (t->to - t->from));
}

static void shrink(struct overload_manager *o, struct rule *r) {
    uint64_t now_ms = loop_now_us(o->loop) / 1000;
    if (overload_is_full(r->point) && now_ms - o->shrunk_ms >= o->shrink_ms) {
        o->shrunk_ms = now_ms;
        malloc_trim(0);
        stat_dyn_add(r->shrink_stat, 1);
    }
}

static void apply(struct overload_manager *o, struct rule *r) {
    float level = 0;
    for (unsigned i = 0; i < r->triggers_n; i++) {
        float l = level_of(&r->triggers[i], o->monitors[r->triggers[i].monitor].pressure);
        level = l > level ? l : level;
    }
    stat_dyn_set(r->scale_stat, (uint64_t)(level * 100));
    if (r->active_stat) {
        stat_dyn_set(r->active_stat, level >= 1);
    }
    if (!r->has_point) {
        return;
    }
    overload_set(r->point, (uint32_t)(level * (float)OVERLOAD_FULL));
    if (r->shed_stat) {
        uint64_t acted = overload_acted(r->point);
        stat_dyn_add(r->shed_stat, (int64_t)(acted - r->counted));
        r->counted = acted;
    }
    if (r->shrink_stat) {
        shrink(o, r);
    }
}

static void count_connections(struct overload_manager *o) {
    for (unsigned i = 0; i < o->monitors_n; i++) {
        if (!o->monitors[i].monitor) {
            uint64_t refused = __atomic_load_n(&o->connections->refused, __ATOMIC_RELAXED);
            stat_dyn_add(o->monitors[i].failed_stat, (int64_t)(refused - o->refused));
            o->refused = refused;
        }
    }
}

static void on_timer(struct timer *t) {
    struct overload_manager *o = CONTAINER_OF(t, struct overload_manager, timer);
    uint64_t now_us = loop_now_us(o->loop);
    if (o->due_us) {
        stats_record(o->stats, OVERLOAD_refresh_interval_delay,
                     now_us > o->due_us ? (now_us - o->due_us) / 1000 : 0);
    }
    for (unsigned i = 0; i < o->monitors_n; i++) {
        sample(&o->monitors[i]);
    }
    for (unsigned i = 0; i < o->rules_n; i++) {
        apply(o, &o->rules[i]);
    }
    count_connections(o);
    o->due_us = now_us + (uint64_t)o->refresh_ms * 1000;
    timer_start(t, o->refresh_ms);
}

/* ---- life ---- */

struct overload_manager *overload_manager_new(const Overload__OverloadManager *m, struct loop *l,
                                              struct stats_store *stats,
                                              const struct registry *registry,
                                              struct conn_limit *connections, struct diag *d) {
    struct overload_manager *o = xnew(struct overload_manager);
    struct arena scratch;
    arena_init(&o->arena, 1024);
    arena_init(&scratch, 0);
    o->loop = l;
    o->connections = connections;
    o->shrink_ms = SHRINK_INTERVAL_MS;
    o->shrunk_ms = loop_now_us(l) / 1000;
    o->scope = stats_scope_get(stats, &overload_stats_group, SV("overload."));
    o->stats = stats_shard(o->scope, l->thread_index);
    timer_init(&o->timer, l, on_timer);
    struct compile_ctx ctx = {.arena = &o->arena,
                              .scratch = &scratch,
                              .diag = d,
                              .registry = registry,
                              .stats = stats,
                              .is_static = true};
    compile(o, &ctx, m);
    arena_fini(&scratch);
    if (!diag_ok(d)) {
        overload_manager_free(o);
        return NULL;
    }
    return o;
}

void overload_manager_start(struct overload_manager *o) { timer_start(&o->timer, o->refresh_ms); }

void overload_manager_free(struct overload_manager *o) {
    if (!o) {
        return;
    }
    timer_cancel(&o->timer);
    for (unsigned i = 0; i < o->rules_n; i++) {
        if (o->rules[i].has_point) {
            overload_set(o->rules[i].point, 0);
        }
    }
    stats_scope_unref(o->scope);
    arena_fini(&o->arena);
    xfree(o);
}
