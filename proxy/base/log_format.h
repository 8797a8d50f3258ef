/* Log line patterns: parsed once, printed for each line. For log.c only.
 * Spec: Envoy's --log-format, that is spdlog's pattern flags and Envoy's %_ %j %* %+. */
#ifndef SLUICE_BASE_LOG_FORMAT_H
#define SLUICE_BASE_LOG_FORMAT_H

#include <stdarg.h>
#include <time.h>

#include "proxy/base/log.h"

/* Text that grows from the stack to the heap only when it is long. */
#define LOG_TEXT_STACK_BYTES 4096
struct log_text {
    char *p; /* stack or heap; NUL-terminated only by log_text_vprintf */
    size_t n, cap;
    char stack[LOG_TEXT_STACK_BYTES];
};
void log_text_init(struct log_text *t);
void log_text_fini(struct log_text *t);
void log_text_add(struct log_text *t, sv s);
void log_text_printf(struct log_text *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void log_text_vprintf(struct log_text *t, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
#define LOG_TEXT_AUTO __attribute__((cleanup(log_text_fini)))

struct log_record {
    enum log_component component;
    enum log_level level;
    const char *file;
    int line;
    struct timespec time; /* CLOCK_REALTIME */
    sv message;
};

struct log_format;
/* NULL, and the reason in err: a flag that nobody knows, or too many of them. Keeps a copy of
 * fmt. */
struct log_format *log_format_new(const char *fmt, char *err, size_t err_n);
void log_format_free(struct log_format *f);
void log_format_print(const struct log_format *f, const struct log_record *r, struct log_text *out);

#endif
