/* Access loggers that write lines: envoy.access_loggers.file, .stdout, .stderr.
 * Threads: compile on the config thread, log on workers. Spec: FileAccessLog, StdoutAccessLog,
 * StderrAccessLog.
 * Not here: filters (access_log.c), buffering (log_sink.c). */
#include "proxy/observe/log_file.h"

#include "protos/gen/access_loggers_file.pb-c.h"
#include "protos/gen/access_loggers_stream.pb-c.h"
#include "proxy/event/loop.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/log_sink.h"

static const char default_format[] =
    "[%START_TIME%] \"%REQUEST_HEADER(:METHOD)% %REQUEST_HEADER(X-ENVOY-ORIGINAL-PATH?:PATH)% "
    "%PROTOCOL%\" %RESPONSE_CODE% "
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    "%RESPONSE_HEADER(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    "\"%REQUEST_HEADER(X-FORWARDED-FOR)%\" \"%REQUEST_HEADER(USER-AGENT)%\" "
    "\"%REQUEST_HEADER(X-REQUEST-ID)%\" "
    "\"%REQUEST_HEADER(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

struct line_logger {
    struct substitution_format format;
    struct log_sink *sink; /* a ref, dropped with the arena */
};

static void on_fini(void *arg) { log_sink_unref(arg); }

static void *finish(struct compile_ctx *ctx, struct line_logger *l, struct log_sink *sink) {
    if (!sink) {
        return NULL;
    }
    l->sink = sink;
    arena_on_fini(ctx->arena, on_fini, sink);
    return l;
}

static bool text(struct compile_ctx *ctx, sv format, struct line_logger *l) {
    l->format.text = formatter_compile(ctx, format, false);
    return l->format.text != NULL;
}
static bool json(struct compile_ctx *ctx, const void *msg, struct line_logger *l) {
    l->format.json = json_formatter_compile(ctx, msg, false);
    return l->format.json != NULL;
}

static void *file_compile(struct compile_ctx *ctx, const void *msg) {
    const AccessLoggersFile__FileAccessLog *m = msg;
    struct line_logger *l = arena_new(ctx->arena, struct line_logger);
    bool ok = false;
    switch (m->access_log_format_case) {
    case ACCESS_LOGGERS_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_FORMAT:
        ok = text(ctx, m->format[0] ? sv_cstr(m->format) : sv_cstr(default_format), l);
        break;
    case ACCESS_LOGGERS_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_JSON_FORMAT:
        ok = json(ctx, m->json_format, l);
        break;
    case ACCESS_LOGGERS_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_TYPED_JSON_FORMAT:
        ok = json(ctx, m->typed_json_format, l);
        break;
    case ACCESS_LOGGERS_FILE__FILE_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT:
        ok = substitution_format_compile(ctx, m->log_format, &l->format);
        break;
    default:
        ok = text(ctx, sv_cstr(default_format), l);
    }
    return ok ? finish(ctx, l, log_sink_get(sv_cstr(m->path), ctx->diag)) : NULL;
}

static bool stream_format(struct compile_ctx *ctx, const Core__SubstitutionFormatString *f,
                          struct line_logger *l) {
    return f ? substitution_format_compile(ctx, f, &l->format)
             : text(ctx, sv_cstr(default_format), l);
}

static void *stdout_compile(struct compile_ctx *ctx, const void *msg) {
    const AccessLoggersStream__StdoutAccessLog *m = msg;
    struct line_logger *l = arena_new(ctx->arena, struct line_logger);
    bool is_set = m->access_log_format_case ==
                  ACCESS_LOGGERS_STREAM__STDOUT_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT;
    return stream_format(ctx, is_set ? m->log_format : NULL, l) ? finish(ctx, l, log_sink_stdout())
                                                                : NULL;
}

static void *stderr_compile(struct compile_ctx *ctx, const void *msg) {
    const AccessLoggersStream__StderrAccessLog *m = msg;
    struct line_logger *l = arena_new(ctx->arena, struct line_logger);
    bool is_set = m->access_log_format_case ==
                  ACCESS_LOGGERS_STREAM__STDERR_ACCESS_LOG__ACCESS_LOG_FORMAT_LOG_FORMAT;
    return stream_format(ctx, is_set ? m->log_format : NULL, l) ? finish(ctx, l, log_sink_stderr())
                                                                : NULL;
}

static void line_log(const void *config, const struct stream_info *si, struct loop *loop) {
    const struct line_logger *l = config;
    BUF_AUTO struct buf line = {0};
    substitution_format_write(&l->format, si, &line);
    if (!buf_empty(&line)) {
        log_sink_append(l->sink, loop ? loop->thread_index : 0, &line);
    }
}

const struct access_logger_type file_access_logger = {
    .name = "envoy.access_loggers.file",
    .type_url = "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    .compile = file_compile,
    .log = line_log,
};
const struct access_logger_type stdout_access_logger = {
    .name = "envoy.access_loggers.stdout",
    .type_url = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    .compile = stdout_compile,
    .log = line_log,
};
const struct access_logger_type stderr_access_logger = {
    .name = "envoy.access_loggers.stderr",
    .type_url = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    .compile = stderr_compile,
    .log = line_log,
};
