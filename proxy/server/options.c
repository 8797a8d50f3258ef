/* Command line parsing: one table of flags. See options.h. */
#include "proxy/server/options.h"

#include <stdio.h>
#include <stdlib.h>

#include "proxy/base/log.h"
#include "proxy/base/version.h"

enum flag_kind {
    FLAG_BOOL,
    FLAG_U32,
    FLAG_STR,
    FLAG_TAGS,
    FLAG_LIST,
    FLAG_MODE,
    FLAG_STRATEGY,
    FLAG_OCTAL,
    FLAG_HELP,
    FLAG_VERSION,
    FLAG_HOT_RESTART,
    FLAG_IGNORE_REST
};
struct flag {
    const char *name;
    char letter;
    enum flag_kind kind;
    size_t offset;
    const char *arg, *help;
};
#define O(member) offsetof(struct options, member)
static const struct flag flags[] = {
    {"config-path", 'c', FLAG_STR, O(config_path), "path",
     "Path to configuration file (.yaml, .json, .pb, .pb_text)"},
    {"config-yaml", 0, FLAG_STR, O(config_yaml), "yaml",
     "Inline YAML configuration, merges with the contents of --config-path"},
    {"mode", 0, FLAG_MODE, O(mode), "mode",
     "One of 'serve' (default), 'validate' (check the configuration and exit), 'init_only'"},
    {"validate-resources", 0, FLAG_LIST, O(validate_resources), "path",
     "With --mode validate: also check these dumped xDS resources (a file or a directory of .json, "
     ".yaml, .pb: DiscoveryResponse or /config_dump); may be repeated"},
    {"concurrency", 0, FLAG_U32, O(concurrency), "n",
     "# of worker threads to run (default: hardware threads)"},
    {"cpuset-threads", 0, FLAG_BOOL, O(cpuset_threads), NULL,
     "Get the default # of worker threads from cpuset size"},
    {"log-level", 'l', FLAG_STR, O(log_level), "level",
     "Log levels: [trace][debug][info][warning|warn][error][critical][off]"},
    {"component-log-level", 0, FLAG_STR, O(component_log_level), "list",
     "Comma-separated list of component log levels"},
    {"log-path", 0, FLAG_STR, O(log_path), "path", "Path to logfile"},
    {"log-format", 0, FLAG_STR, O(log_format), "format", "Log message format in spdlog syntax"},
    {"log-format-escaped", 0, FLAG_BOOL, O(log_format_escaped), NULL,
     "Escape c-style escape sequences in the application logs"},
    {"enable-fine-grain-logging", 0, FLAG_BOOL, O(enable_fine_grain_logging), NULL,
     "Accepted; levels stay by component"},
    {"log-stacktrace-single-entry", 0, FLAG_BOOL, O(log_stacktrace_single_entry), NULL,
     "Accepted; a backtrace is always several lines"},
    {"skip-deprecated-logs", 0, FLAG_BOOL, O(skip_deprecated_logs), NULL,
     "Accepted; deprecated fields are not logged"},
    {"drain-time-s", 0, FLAG_U32, O(drain_time_s), "s", "Drain time in seconds (default: 600)"},
    {"drain-strategy", 0, FLAG_STRATEGY, O(is_drain_immediate), "strategy",
     "gradual (default) or immediate"},
    {"parent-shutdown-time-s", 0, FLAG_U32, O(parent_shutdown_time_s), "s",
     "Accepted; there is no hot restart"},
    {"file-flush-interval-msec", 0, FLAG_U32, O(file_flush_interval_ms), "ms",
     "Interval for access log flushing (default: 10000)"},
    {"file-flush-min-size-kb", 0, FLAG_U32, O(file_flush_min_size_kb), "kb",
     "Accepted; buffers are flushed at 64 KB and by interval"},
    {"admin-address-path", 0, FLAG_STR, O(admin_address_path), "path",
     "File to write the admin address to"},
    {"local-address-ip-version", 0, FLAG_STR, O(local_address_ip_version), "v4|v6",
     "IP version of the local address (default: v4)"},
    {"service-cluster", 0, FLAG_STR, O(service_cluster), "name", "Cluster name (node.cluster)"},
    {"service-node", 0, FLAG_STR, O(service_node), "id", "Node name (node.id)"},
    {"service-zone", 0, FLAG_STR, O(service_zone), "zone", "Zone name (node.locality.zone)"},
    {"stats-tag", 0, FLAG_TAGS, O(stats_tags), "k:v",
     "Fixed tag added to all stats; may be repeated"},
    {"allow-unknown-static-fields", 0, FLAG_BOOL, O(allow_unknown_static_fields), NULL,
     "Allow unknown fields in static configuration"},
    {"allow-unknown-fields", 0, FLAG_BOOL, O(allow_unknown_static_fields), NULL,
     "Same as --allow-unknown-static-fields (deprecated)"},
    {"reject-unknown-dynamic-fields", 0, FLAG_BOOL, O(reject_unknown_dynamic_fields), NULL,
     "Reject unknown fields in dynamic configuration"},
    {"ignore-unknown-dynamic-fields", 0, FLAG_BOOL, O(ignore_unknown_dynamic_fields), NULL,
     "Neither warn about nor count unknown dynamic fields"},
    {"disable-hot-restart", 0, FLAG_BOOL, O(disable_hot_restart), NULL,
     "Accepted; there is no hot restart"},
    {"base-id", 0, FLAG_U32, O(base_id), "n", "Accepted; there is no hot restart"},
    {"use-dynamic-base-id", 0, FLAG_BOOL, O(use_dynamic_base_id), NULL,
     "Accepted; there is no hot restart"},
    {"base-id-path", 0, FLAG_STR, O(base_id_path), "path", "Accepted; there is no hot restart"},
    {"restart-epoch", 0, FLAG_U32, O(restart_epoch), "n", "Accepted; there is no hot restart"},
    {"skip-hot-restart-on-no-parent", 0, FLAG_BOOL, O(skip_hot_restart_on_no_parent), NULL,
     "Accepted; there is no hot restart"},
    {"skip-hot-restart-parent-stats", 0, FLAG_BOOL, O(skip_hot_restart_parent_stats), NULL,
     "Accepted; there is no hot restart"},
    {"socket-path", 0, FLAG_STR, O(socket_path), "path", "Accepted; there is no hot restart"},
    {"socket-mode", 0, FLAG_OCTAL, O(socket_mode), "mode", "Accepted; there is no hot restart"},
    {"enable-mutex-tracing", 0, FLAG_BOOL, O(enable_mutex_tracing), NULL,
     "Accepted; the request path has no mutex"},
    {"enable-core-dump", 0, FLAG_BOOL, O(enable_core_dump), NULL,
     "Accepted; core dumps follow the system's limits"},
    {"disable-extensions", 0, FLAG_STR, O(disable_extensions), "list", "Accepted; without effect"},
    {"hot-restart-version", 0, FLAG_HOT_RESTART, 0, NULL,
     "Show the hot restart compatibility version and exit"},
    {"version", 0, FLAG_VERSION, 0, NULL, "Show the version and exit"},
    {"help", 'h', FLAG_HELP, 0, NULL, "Show this help and exit"},
    {"ignore_rest", 0, FLAG_IGNORE_REST, 0, NULL, "Ignore what follows"},
};
#undef O

static void print_help(const char *argv0) {
    printf("USAGE: %s [flags]\n\n", argv0);
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        char left[64];
        int n = snprintf(left, sizeof(left), "  --%s%s%s", flags[i].name, flags[i].arg ? " " : "",
                         flags[i].arg ? flags[i].arg : "");
        if (flags[i].letter) {
            snprintf(left + n, sizeof(left) - (size_t)n, ", -%c", flags[i].letter);
        }
        printf("%-44s %s\n", left, flags[i].help);
    }
}

static int fail(const char *what, const char *which, const char *argv0) {
    fprintf(stderr,
            "PARSE ERROR: Argument: %s\n             %s\n\nFor complete USAGE and HELP type:\n   "
            "%s --help\n",
            which, what, argv0);
    return 1;
}

/* value: what was given; NULL: it does not matter. */
static int fail_flag(const struct flag *f, const char *what, const char *value, const char *argv0) {
    char which[64], text[1024];
    snprintf(which, sizeof(which), "(--%s)", f->name);
    snprintf(text, sizeof(text), value ? "%s '%s'" : "%s", what, value);
    return fail(text, which, argv0);
}

static bool is_list(const struct flag *f) { return f->kind == FLAG_TAGS || f->kind == FLAG_LIST; }

static const struct flag *find_flag(sv name, bool is_letter) {
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        if (is_letter ? name.n == 1 && flags[i].letter == name.p[0] && flags[i].letter
                      : sv_is(name, flags[i].name)) {
            return &flags[i];
        }
    }
    return NULL;
}

static bool set_number(struct options *o, const struct flag *f, const char *value, int base) {
    char *end;
    unsigned long v = strtoul(value, &end, base);
    if (!*value || *end || v > UINT32_MAX || *value == '-') {
        return false;
    }
    *(uint32_t *)((char *)o + f->offset) = (uint32_t)v;
    o->has_concurrency |= f->offset == offsetof(struct options, concurrency);
    return true;
}

static bool set_mode(struct options *o, const char *value) {
    static const char *const names[] = {"serve", "validate", "init_only"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(value, names[i]) == 0) {
            o->mode = (enum server_mode)i;
            return true;
        }
    }
    return false;
}

/* The value of a flag with one; false: it is not good. */
static bool set_value(struct options *o, const struct flag *f, const char *value) {
    switch (f->kind) {
    case FLAG_U32:
        return set_number(o, f, value, 10);
    case FLAG_OCTAL:
        return set_number(o, f, value, 8);
    case FLAG_STR:
        *(const char **)((char *)o + f->offset) = value;
        return true;
    case FLAG_TAGS:
        *vec_push(&o->stats_tags) = value;
        return strchr(value, ':') != NULL;
    case FLAG_LIST:
        *vec_push((struct option_list *)(void *)((char *)o + f->offset)) = value;
        return *value != 0;
    case FLAG_MODE:
        return set_mode(o, value);
    case FLAG_STRATEGY:
        o->is_drain_immediate = strcmp(value, "immediate") == 0;
        return o->is_drain_immediate || strcmp(value, "gradual") == 0;
    case FLAG_BOOL:
    case FLAG_HELP:
    case FLAG_VERSION:
    case FLAG_HOT_RESTART:
    case FLAG_IGNORE_REST:
        break;
    }
    return false;
}

/* A flag without a value: -1 to go on, else the exit code. */
static int set_plain(struct options *o, const struct flag *f, const char *argv0) {
    if (f->kind == FLAG_BOOL) {
        *(bool *)((char *)o + f->offset) = true;
        return -1;
    }
    if (f->kind == FLAG_HELP) {
        print_help(argv0);
    } else if (f->kind == FLAG_VERSION) {
        printf("\n%s  version: %s\n\n", argv0, version_string());
    } else {
        printf("disabled\n");
    }
    return 0;
}

/* -1 to go on, else the exit code. */
static int take_value(struct options *o, const struct flag *f, const char *value,
                      const char *argv0) {
    if (!value) {
        return fail_flag(f, "Missing a value for this argument!", NULL, argv0);
    }
    return set_value(o, f, value)
               ? -1
               : fail_flag(f, "Couldn't read argument value from string", value, argv0);
}

static void defaults(struct options *o) {
    memset(o, 0, sizeof(*o));
    o->log_level = "info";
    o->drain_time_s = 600;
    o->parent_shutdown_time_s = 900;
    o->file_flush_interval_ms = 10000;
    o->local_address_ip_version = "v4";
    o->config_path = o->config_yaml = "";
}

int options_parse(struct options *o, int argc, char **argv) {
    bool was_given[ARRAY_LEN(flags)] = {false};
    defaults(o);
    for (int i = 1; i < argc; i++) {
        sv arg = sv_cstr(argv[i]);
        bool is_long = sv_starts(arg, SV("--"));
        if (arg.n < 2 || arg.p[0] != '-') {
            return fail("Couldn't find match for argument", argv[i], argv[0]);
        }
        if (sv_is(arg, "--")) {
            return -1;
        }
        sv rest = sv_skip(arg, is_long ? 2 : 1);
        size_t eq = sv_find(rest, '=');
        const struct flag *f = find_flag(sv_sub(rest, 0, eq), !is_long);
        if (!f) {
            return fail("Couldn't find match for argument", argv[i], argv[0]);
        }
        if (f->kind == FLAG_IGNORE_REST) {
            return -1;
        }
        if (was_given[f - flags] && !is_list(f)) {
            return fail_flag(f, "Argument already set!", NULL, argv[0]);
        }
        was_given[f - flags] = true;
        const char *value = eq != SIZE_MAX ? rest.p + eq + 1 : f->arg ? argv[++i] : NULL;
        int rc = f->arg ? take_value(o, f, value, argv[0]) : set_plain(o, f, argv[0]);
        if (rc >= 0) {
            return rc;
        }
    }
    return -1;
}

void options_fini(struct options *o) {
    vec_fini(&o->stats_tags);
    vec_fini(&o->validate_resources);
}
