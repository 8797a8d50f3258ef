/* The small pages of admin: table of commands, readiness, server info, memory, logging, runtime,
 * drains.
 * Threads: main. Spec: Envoy 1.40's admin endpoints. */
#include <malloc.h>

#include "protos/gen/admin.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/check.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/base/version.h"
#include "proxy/http/path.h"
#include "proxy/observe/log_sink.h"
#include "proxy/server/admin_internal.h"
#include "proxy/stats/stats_flush.h"

static void ok(struct admin_stream *a) { admin_reply(a, 200, ADMIN_TEXT, SV("OK\n")); }

/* ---- the table of commands ---- */

static void escape_html(struct buf *b, const char *s) {
    for (; *s; s++) {
        switch (*s) {
        case '<':
            buf_lit(b, "&lt;");
            break;
        case '>':
            buf_lit(b, "&gt;");
            break;
        case '&':
            buf_lit(b, "&amp;");
            break;
        case '"':
            buf_lit(b, "&quot;");
            break;
        default:
            buf_append(b, s, 1);
        }
    }
}

void admin_home(struct admin_stream *a) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_lit(&b, "<!DOCTYPE html>\n<html lang='en'>\n<head>\n<title>Sluice "
                "Admin</title>\n<style>body{font-family:sans-serif}"
                "td{padding:2px 12px}</style>\n</head>\n<body>\n<table "
                "class='home-table'>\n<thead><th>Command</th>"
                "<th>Description</th></thead>\n<tbody>\n");
    for (unsigned i = 0; i < admin_handlers_n; i++) {
        const struct admin_handler *h = &admin_handlers[i];
        if (h->is_mutation) {
            buf_printf(
                &b, "<tr><td><form action='%s' method='post'><button>%s</button></form></td><td>",
                h->path + 1, h->path + 1);
        } else {
            buf_printf(&b, "<tr><td><a href='%s'>%s</a></td><td>", h->path + 1,
                       *(h->path + 1) ? h->path + 1 : "home");
        }
        escape_html(&b, h->help);
        buf_lit(&b, "</td></tr>\n");
    }
    buf_lit(&b, "</tbody>\n</table>\n</body>\n</html>\n");
    admin_reply_buf(a, 200, ADMIN_HTML, &b);
}

void admin_help(struct admin_stream *a) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    admin_list_commands(&b);
    admin_reply_buf(a, 200, ADMIN_TEXT, &b);
}

/* ---- state ---- */

static const char *const state_names[] = {"LIVE", "DRAINING", "PRE_INITIALIZING", "INITIALIZING"};

void admin_ready(struct admin_stream *a) {
    unsigned state = server_state(a->server);
    char text[32];
    int n = snprintf(text, sizeof(text), "%s\n", state_names[state]);
    admin_reply(a, state == SERVER_STATE_LIVE ? 200 : 503, ADMIN_TEXT, sv_from(text, (size_t)n));
}

static void fill_options(Admin__CommandLineOptions *o, const struct options *opt,
                         struct server *s) {
    o->concurrency = s->workers_n;
    o->config_path = opt->config_path;
    o->config_yaml = opt->config_yaml;
    o->log_level = opt->log_level;
    o->component_log_level = opt->component_log_level ? opt->component_log_level : "";
    o->log_path = opt->log_path ? opt->log_path : "";
    o->log_format = opt->log_format ? opt->log_format : "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v";
    o->service_cluster = s->node->cluster;
    o->service_node = s->node->id;
    o->service_zone = opt->service_zone ? opt->service_zone : "";
    o->admin_address_path = opt->admin_address_path ? opt->admin_address_path : "";
    o->disable_hot_restart = true;
    o->allow_unknown_static_fields = opt->allow_unknown_static_fields;
    o->reject_unknown_dynamic_fields = opt->reject_unknown_dynamic_fields;
    o->ignore_unknown_dynamic_fields = opt->ignore_unknown_dynamic_fields;
    o->cpuset_threads = opt->cpuset_threads;
    o->drain_strategy = opt->is_drain_immediate
                            ? ADMIN__COMMAND_LINE_OPTIONS__DRAIN_STRATEGY__Immediate
                            : ADMIN__COMMAND_LINE_OPTIONS__DRAIN_STRATEGY__Gradual;
}

void admin_server_info(struct admin_stream *a) {
    struct server *s = a->server;
    Admin__ServerInfo m;
    admin__server_info__init(&m);
    Admin__CommandLineOptions o;
    admin__command_line_options__init(&o);
    Pb__Duration uptime, drain, flush;
    pb__duration__init(&uptime);
    pb__duration__init(&drain);
    pb__duration__init(&flush);
    uptime.seconds =
        (int64_t)((loop_wall_us(&s->main->loop, loop_now_us(&s->main->loop)) - s->started_us) /
                  1000000);
    drain.seconds = s->opt.drain_time_s;
    flush.seconds = s->opt.file_flush_interval_ms / 1000;
    flush.nanos = (int32_t)(s->opt.file_flush_interval_ms % 1000 * 1000000);
    fill_options(&o, &s->opt, s);
    o.drain_time = &drain;
    o.file_flush_interval = &flush;
    m.version = version_string();
    m.state = (Admin__ServerInfo__State)server_state(s);
    m.uptime_current_epoch = &uptime;
    m.uptime_all_epochs = &uptime;
    m.hot_restart_version = "disabled";
    m.command_line_options = &o;
    m.node = (Core__Node *)(uintptr_t)s->node;
    struct buf BUF_AUTO b;
    buf_init(&b);
    pb_json_append(&b, &m.base, PB_JSON_DEFAULTS, 1);
    buf_lit(&b, "\n");
    admin_reply_buf(a, 200, ADMIN_JSON, &b);
}

void admin_memory(struct admin_stream *a) {
    struct mallinfo2 mi = mallinfo2();
    struct json_writer w;
    struct buf BUF_AUTO b;
    buf_init(&b);
    json_begin(&w, &b, 1);
    json_obj(&w);
    json_key(&w, SV("allocated"));
    json_u64_str(&w, mi.uordblks + mi.hblkhd);
    json_key(&w, SV("heap_size"));
    json_u64_str(&w, mi.arena + mi.hblkhd);
    json_key(&w, SV("pageheap_unmapped"));
    json_u64_str(&w, 0);
    json_key(&w, SV("pageheap_free"));
    json_u64_str(&w, mi.fordblks);
    json_key(&w, SV("total_thread_cache"));
    json_u64_str(&w, 0);
    json_key(&w, SV("total_physical_bytes"));
    json_u64_str(&w, mi.arena + mi.hblkhd);
    json_end(&w);
    buf_lit(&b, "\n");
    admin_reply_buf(a, 200, ADMIN_JSON, &b);
}

/* ---- logging ---- */

static void list_loggers(struct buf *b) {
    buf_lit(b, "active loggers:\n");
    for (int c = 0; c < LOG_COMPONENTS_COUNT; c++) {
        buf_printf(b, "  %s: %s\n", log_component_name((enum log_component)c),
                   log_level_name((enum log_level)log_levels[c]));
    }
}

#define UNKNOWN_NAME "unknown logger name"
#define UNKNOWN_LEVEL "unknown logger level"

/* The error text, or NULL. */
static const char *set_paths(sv list) {
    for (int pass = 0; pass < 2; pass++) { /* all or nothing */
        sv rest = list;
        while (rest.n) {
            sv item = sv_cut(&rest, ',');
            sv name = sv_cut(&item, ':');
            enum log_component c;
            enum log_level l;
            if (!name.n || !item.n) {
                return "empty logger name or empty logger level";
            }
            if (!log_component_parse(name, &c)) {
                return UNKNOWN_NAME;
            }
            if (!log_level_parse(item, &l)) {
                return UNKNOWN_LEVEL;
            }
            if (pass) {
                log_set(c, l);
            }
        }
    }
    return NULL;
}

static const char *set_level(sv name, sv level) {
    bool is_all = sv_is(name, "level");
    enum log_component c;
    enum log_level l;
    if (!is_all && !log_component_parse(name, &c)) {
        return UNKNOWN_NAME;
    }
    if (!log_level_parse(level, &l)) {
        return UNKNOWN_LEVEL;
    }
    if (is_all) {
        log_set_all(l);
    } else {
        log_set(c, l);
    }
    return NULL;
}

static const char *change_logging(struct admin_stream *a) {
    sv rest = a->query;
    sv value = sv_cut(&rest, '&');
    sv name = sv_cut(&value, '=');
    value = percent_decode(value, http_arena(&a->base));
    if (rest.n) {
        return "invalid number of parameters";
    }
    if (!value.n) { /* only shows them */
        return NULL;
    }
    return sv_is(name, "paths") ? set_paths(value) : set_level(name, value);
}

void admin_logging(struct admin_stream *a) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    const char *error = change_logging(a);
    if (error) {
        buf_printf(&b,
                   "error: %s\n\nusage: /logging?<name>=<level> (change single level)\nusage: "
                   "/logging?paths=name1:level1,"
                   "name2:level2,... (change multiple levels)\nusage: /logging?level=<level> "
                   "(change all levels)\nlevels: "
                   "trace debug info warning error critical off\n",
                   error);
    }
    list_loggers(&b);
    admin_reply_buf(a, error ? 400 : 200, ADMIN_TEXT, &b);
}

static void reopen_logs(struct admin_stream *a) {
    server_reopen_logs(a->server);
    ok(a);
}

/* ---- runtime ---- */

void admin_runtime(struct admin_stream *a) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    runtime_write_json(&b);
    buf_lit(&b, "\n");
    admin_reply_buf(a, 200, ADMIN_JSON, &b);
}

void admin_runtime_modify(struct admin_stream *a) {
    if (!a->query.n) {
        admin_reply(a, 400, ADMIN_TEXT,
                    SV("usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n"
                       "       or send the parameters as form values\n"
                       "use an empty value to remove a previously added override"));
        return;
    }
    sv q = a->query;
    struct arena *ar = http_arena(&a->base);
    while (q.n) {
        sv value = sv_cut(&q, '&');
        sv key = sv_cut(&value, '=');
        if (!server_runtime_set(a->server, percent_decode(key, ar), percent_decode(value, ar))) {
            admin_reply(a, 503, ADMIN_TEXT, SV("No admin layer specified"));
            return;
        }
    }
    ok(a);
}

/* ---- drains, health, end ---- */

void admin_drain_listeners(struct admin_stream *a) {
    struct drain_request r = {.inbound_only = admin_param(a, "inboundonly").p != NULL,
                              .graceful = admin_param(a, "graceful").p != NULL,
                              .skip_exit = admin_param(a, "skip_exit").p != NULL};
    server_drain(a->server, r);
    ok(a);
}

static void healthcheck_fail(struct admin_stream *a) {
    server_fail_health(a->server, true);
    ok(a);
}
static void healthcheck_ok(struct admin_stream *a) {
    server_fail_health(a->server, false);
    ok(a);
}
static void quit(struct admin_stream *a) {
    ok(a);
    conn_flush_now((struct conn *)(uintptr_t)http_conn_info(&a->base)->conn);
    server_quit(a->server);
}
static void reset_counters(struct admin_stream *a) {
    stats_reset_counters(a->server->stats);
    ok(a);
}
static void hot_restart_version(struct admin_stream *a) {
    admin_reply(a, 200, ADMIN_TEXT, SV("disabled"));
}
static void contention(struct admin_stream *a) {
    admin_reply(a, 200, ADMIN_TEXT,
                SV("Mutex contention tracing is not enabled. To enable, run Envoy with flag "
                   "--enable-mutex-tracing.\n"));
}
static void no_profiler(struct admin_stream *a) {
    admin_reply(a, 500, ADMIN_TEXT,
                SV("failure to start the profiler: use perf(1) on this process\n"));
}

/* ---- the table ---- */

static const char *const clusters_params[] = {
    "filter: Regular expression (Google re2) for filtering clusters", NULL};
static const char *const dump_params[] = {
    "resource: The resource to dump",
    "mask: The mask to apply. When both resource and mask are specified, the mask is applied to "
    "every element in the desired repeated field so that only a subset of fields are returned. The "
    "mask is parsed as a ProtobufWkt::FieldMask",
    "name_regex: Dump only the currently loaded configurations whose names match the specified "
    "regex. Can be used with both resource and mask query parameters.",
    "include_eds: Dump currently loaded configuration including EDS. See the response definition "
    "for more information",
    NULL};
static const char *const drain_params[] = {
    "graceful: When draining listeners, enter a graceful drain period prior to closing listeners. "
    "This behaviour and duration is configurable via server options or CLI",
    "skip_exit: When draining listeners, do not exit after the drain period. This must be used "
    "with graceful",
    "inboundonly: Drains all inbound listeners. traffic_direction field in "
    "envoy_v3_api_msg_config.listener.v3.Listener is used to determine whether a listener is "
    "inbound or outbound.",
    NULL};
static const char *const csds_params[] = {
    "exclude_resource_contents: Leave out the resources themselves. One of (false, true)", NULL};
static const char *const init_params[] = {
    "mask: The desired component to dump unready targets. The mask is parsed as a "
    "ProtobufWkt::FieldMask. For example, get the unready targets of all listeners with "
    "/init_dump?mask=listener`",
    NULL};
static const char *const listeners_params[] = {"format: File format to use; One of (text, json)",
                                               NULL};
static const char *const logging_params[] = {
    "paths: Change multiple logging levels by setting to "
    "<logger_name1>:<desired_level1>,<logger_name2>:<desired_level2>. If fine grain logging is "
    "enabled, use __FILE__ or a glob experision as the logger name. For example, "
    "source/common*:warning",
    "level: desired logging level, this will change all loggers's level; One of (, trace, debug, "
    "info, warning, error, critical, off)",
    NULL};
static const char *const stats_params_help[] = {
    "usedonly: Only include stats that have been written by system since restart",
    "filter: Regular expression (Google re2) for filtering stats",
    "format: Format to use; One of (html, active-html, text, json)",
    "type: Stat types to include.; One of (All, Counters, Histograms, Gauges, TextReadouts)",
    "histogram_buckets: Histogram bucket display mode; One of (cumulative, disjoint, detailed, "
    "summary)",
    NULL};
static const char *const prom_params[] = {
    "usedonly: Only include stats that have been written by system since restart",
    "text_readouts: Render text_readouts as new gaugues with value 0 (increases Prometheus data "
    "size)",
    "filter: Regular expression (Google re2) for filtering stats",
    "histogram_buckets: Histogram bucket display mode; One of (cumulative, summary)", NULL};

const struct admin_handler admin_handlers[] = {
    {"/", false, "Admin home page", NULL, admin_home},
    {"/certs", false, "print certs on machine", NULL, admin_certs},
    {"/clusters", false, "upstream cluster status", clusters_params, admin_clusters},
    {"/config_dump", false, "dump current configs (experimental)", dump_params, admin_config_dump},
    {"/contention", false, "dump current mutex contention stats (if enabled)", NULL, contention},
    {"/cpuprofiler", true, "enable/disable the CPU profiler", NULL, no_profiler},
    {"/drain_listeners", true, "drain listeners", drain_params, admin_drain_listeners},
    {"/healthcheck/fail", true, "cause the server to fail health checks", NULL, healthcheck_fail},
    {"/healthcheck/ok", true, "cause the server to pass health checks", NULL, healthcheck_ok},
    {"/heapprofiler", true, "enable/disable the heap profiler", NULL, no_profiler},
    {"/help", false, "print out list of admin commands", NULL, admin_help},
    {"/hot_restart_version", false, "print the hot restart compatibility version", NULL,
     hot_restart_version},
    {"/v3/discovery:client_status", false, "client status of each xDS resource (CSDS)", csds_params,
     admin_client_status},
    {"/init_dump", false, "dump current init manager information (experimental)", init_params,
     admin_init_dump},
    {"/listeners", false, "print listener info", listeners_params, admin_listeners},
    {"/logging", true, "query/change logging levels", logging_params, admin_logging},
    {"/memory", false, "print current allocation/heap usage", NULL, admin_memory},
    {"/quitquitquit", true, "exit the server", NULL, quit},
    {"/ready", false, "print server state, return 200 if LIVE, otherwise return 503", NULL,
     admin_ready},
    {"/reopen_logs", true, "reopen access logs", NULL, reopen_logs},
    {"/reset_counters", true, "reset all counters to zero", NULL, reset_counters},
    {"/runtime", false, "print runtime values", NULL, admin_runtime},
    {"/runtime_modify", true,
     "Adds or modifies runtime values as passed in query parameters. To delete a previously added "
     "key, use an empty string as the value. Note that deletion only applies to overrides added "
     "via this endpoint; values loaded from disk can be modified via override but not deleted. "
     "E.g. ?key1=value1&key2=value2...",
     NULL, admin_runtime_modify},
    {"/server_info", false, "print server version/status information", NULL, admin_server_info},
    {"/stats", false, "print server stats", stats_params_help, admin_stats},
    {"/stats/prometheus", false, "print server stats in prometheus format", prom_params,
     admin_stats_prometheus},
};
const unsigned admin_handlers_n = ARRAY_LEN(admin_handlers);
