/* Lists of access logs with their filters, as HTTP connection managers, TCP proxies and listeners
 * carry them.
 * Threads: compiled on the config thread, run on workers. Spec: config.accesslog.v3.AccessLog.
 * Not here: what a logger does (log_file.c, filters/access_loggers). */
#include "protos/gen/accesslog.pb-c.h"
#include "proxy/api/registry.h"
#include "proxy/event/loop.h"
#include "proxy/observe/access_log_filter.h"
#include "proxy/observe/log_file.h"

#define ACCESS_LOGS_MAX 64

struct access_log {
    const struct access_logger_type *type;
    const void *config;
    const struct log_filter *filter; /* NULL: everything */
};
struct access_logs {
    size_t n;
    struct access_log v[];
};

static sv type_name(const Accesslog__AccessLog *m) {
    if (m->config_type_case != ACCESSLOG__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG ||
        !m->typed_config) {
        return SV_NULL;
    }
    sv url = sv_cstr(m->typed_config->type_url);
    size_t slash = sv_rfind(url, '/');
    return sv_skip(url, slash == SIZE_MAX ? 0 : slash + 1);
}

static const struct access_logger_type *find_type(struct compile_ctx *ctx,
                                                  const Accesslog__AccessLog *m) {
    static const struct access_logger_type *const builtin[] = {
        &file_access_logger, &stdout_access_logger, &stderr_access_logger};
    sv type = type_name(m), name = sv_cstr(m->name);
    for (size_t i = 0; i < ARRAY_LEN(builtin); i++) {
        if (type.n ? sv_is(type, builtin[i]->type_url) : sv_is(name, builtin[i]->name)) {
            return builtin[i];
        }
    }
    return ctx->registry ? registry_access_logger(ctx->registry, name, type) : NULL;
}

static bool compile_one(struct compile_ctx *ctx, const Accesslog__AccessLog *m,
                        struct access_log *out) {
    out->type = find_type(ctx, m);
    if (!out->type) {
        return diag_error(ctx->diag,
                          "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                          m->name, SV_ARG(type_name(m)));
    }
    if (m->filter) {
        DIAG_FIELD(ctx->diag, "filter");
        out->filter = log_filter_compile(ctx, m->filter);
        if (!out->filter) {
            return false;
        }
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    const char *got;
    bool has_config = m->config_type_case == ACCESSLOG__ACCESS_LOG__CONFIG_TYPE_TYPED_CONFIG;
    const void *msg = compile_any(ctx, sv_cstr(m->name), has_config ? m->typed_config : NULL,
                                  out->type->type_url, &got);
    if (!msg) {
        return false;
    }
    out->config = out->type->compile(ctx, msg);
    return out->config != NULL;
}

struct access_logs *access_logs_compile(struct compile_ctx *ctx, const void *const *msgs,
                                        size_t n) {
    if (n == 0) {
        return NULL;
    }
    if (n > ACCESS_LOGS_MAX) {
        diag_error(ctx->diag, "more than %d access logs", ACCESS_LOGS_MAX);
        return NULL;
    }
    struct access_logs *logs = arena_zalloc(ctx->arena, sizeof(*logs) + n * sizeof(logs->v[0]));
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "access_log[%zu]", i);
        ok = compile_one(ctx, msgs[i], &logs->v[i]) && ok;
    }
    logs->n = n;
    return ok ? logs : NULL;
}

void access_logs_run(const struct access_logs *logs, struct stream_info *si,
                     enum access_log_type type, struct loop *l) {
    si->access_log_type = type;
    for (size_t i = 0; logs && i < logs->n; i++) {
        const struct access_log *a = &logs->v[i];
        if (!a->filter || log_filter_match(a->filter, si, &l->rng)) {
            a->type->log(a->config, si, l);
        }
    }
}
