/* Process log in Envoy's format and levels, by component. Arguments are not evaluated when a
 * component's level is off.
 * Threads: any (one write(2) per line). Never log secrets, tokens or bodies. */
#ifndef SLUICE_BASE_LOG_H
#define SLUICE_BASE_LOG_H

#include <stdio.h>

#include "proxy/base/sv.h"

enum log_level { LOG_TRACE, LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_CRITICAL, LOG_OFF };

/* Components carry Envoy's logger names, so that /logging?upstream=debug works. */
/* clang-format off */
#define LOG_COMPONENTS(X)                                                                                     \
    X(admin) X(alternate_protocols_cache) X(aws) X(assert) X(backtrace) X(basic_auth) X(cache_filter)         \
    X(client) X(config) X(connection) X(conn_handler) X(compression) X(credential_injector) X(decompression)  \
    X(dns) X(dynamic_modules) X(dynamic_forward_proxy) X(ext_authz) X(ext_proc) X(fault) X(file) X(filter)    \
    X(forward_proxy) X(geolocation) X(golang) X(grpc) X(happy_eyeballs) X(hc) X(health_checker) X(http)       \
    X(http2) X(hystrix) X(init) X(io) X(jwt) X(kafka) X(lua) X(main) X(matcher) X(misc) X(mongo)              \
    X(multi_connection) X(oauth2) X(pool) X(quic) X(quic_stream) X(ratelimit) X(rbac) X(rds) X(redis)         \
    X(router) X(runtime) X(secret) X(stats) X(stats_sinks) X(tap) X(testing) X(thrift) X(tracing) X(udp)      \
    X(upstream) X(wasm) X(websocket)
/* clang-format on */
enum log_component {
#define X(name) LOG_##name,
    LOG_COMPONENTS(X)
#undef X
        LOG_COMPONENTS_COUNT
};

extern unsigned char log_levels[LOG_COMPONENTS_COUNT]; /* read relaxed by every thread */

/* "trace".."critical", "off", also "warning". False: unknown. */
bool log_level_parse(sv name, enum log_level *out);
const char *log_level_name(enum log_level l); /* Envoy's spelling: "warning" for LOG_WARN */
bool log_component_parse(sv name, enum log_component *out);
const char *log_component_name(enum log_component c);
void log_set_all(enum log_level l);
void log_set(enum log_component c, enum log_level l);
/* Envoy's --log-format: spdlog's pattern flags, %_ %j %* %+. False and text in err: unknown flag.
 * At start-up. */
bool log_set_format(const char *fmt, char *err, size_t err_n);
/* --log-format-escaped: a line is C-escaped, so that it stays one line */
void log_set_escaped(bool escaped);
int log_open(const char *path); /* --log-path; NULL: stderr. 0 or -errno */
int log_reopen(void);           /* SIGUSR1, /reopen_logs */
/* shown in crash dumps and by the system; at thread start */
void log_thread_name(const char *name);
const char *log_thread(void); /* this thread's name, "" before log_thread_name */
int log_fd(void);             /* where lines go: for the crash handler */

void log_write(enum log_component c, enum log_level l, const char *file, int line, const char *fmt,
               ...) PRINTF_LIKE(5, 6);
static inline bool log_enabled(enum log_component c, enum log_level l) {
    return UNLIKELY(l >= __atomic_load_n(&log_levels[c], __ATOMIC_RELAXED));
}

#define log_at(c, l, ...)                                         \
    do {                                                          \
        if (log_enabled((c), (l))) {                              \
            log_write((c), (l), __FILE__, __LINE__, __VA_ARGS__); \
        }                                                         \
    } while (0)
#define log_trace(c, ...) log_at((c), LOG_TRACE, __VA_ARGS__)
#define log_debug(c, ...) log_at((c), LOG_DEBUG, __VA_ARGS__)
#define log_info(c, ...) log_at((c), LOG_INFO, __VA_ARGS__)
#define log_warn(c, ...) log_at((c), LOG_WARN, __VA_ARGS__)
#define log_error(c, ...) log_at((c), LOG_ERROR, __VA_ARGS__)
#define log_critical(c, ...) log_at((c), LOG_CRITICAL, __VA_ARGS__)
/* At most one line a second per place: for warnings that a peer can trigger. */
#define log_warn_limited(c, ...)                                       \
    do {                                                               \
        static uint64_t log_last_;                                     \
        if (log_enabled((c), LOG_WARN) && log_limit(&log_last_)) {     \
            log_write((c), LOG_WARN, __FILE__, __LINE__, __VA_ARGS__); \
        }                                                              \
    } while (0)
bool log_limit(uint64_t *last_ms);

#endif
