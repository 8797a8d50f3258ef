/* The process log: levels by component, and lines to stderr or a file.
 * Threads: any; a line is one write(2). Format and file are replaced without a lock: a line in
 * flight meets either.
 * Spec: Envoy's command line (--log-level, --log-path, --log-format, --log-format-escaped) and
 * admin's /logging.
 * Not here: patterns (log_format.c), access logs (observe/access_log.c). */
#include "proxy/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "proxy/base/log_format.h"
#include "proxy/base/mem.h"

#define DEFAULT_FORMAT "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v"
#define LIMIT_MS 1000u

unsigned char log_levels[LOG_COMPONENTS_COUNT] = {[0 ... LOG_COMPONENTS_COUNT - 1] = LOG_INFO};

static const char *const level_names[] = {"trace", "debug",    "info", "warning",
                                          "error", "critical", "off"};
static const char *const component_names[] = {
#define X(name) #name,
    LOG_COMPONENTS(X)
#undef X
};

static int out_fd = STDERR_FILENO;
static char out_path[PATH_MAX]; /* empty: stderr */
static bool is_escaped;
static struct log_format *format;   /* NULL: not made yet */
static struct log_format *replaced; /* the one before: another thread may still print with it */
static _Thread_local char thread_name[32];

/* ---- levels ---- */

bool log_level_parse(sv name, enum log_level *out) {
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (sv_is(name, level_names[i])) {
            *out = (enum log_level)i;
            return true;
        }
    }
    if (sv_is(name, "warn")) {
        *out = LOG_WARN;
        return true;
    }
    return false;
}

const char *log_level_name(enum log_level l) { return level_names[l]; }

bool log_component_parse(sv name, enum log_component *out) {
    for (size_t i = 0; i < ARRAY_LEN(component_names); i++) {
        if (sv_is(name, component_names[i])) {
            *out = (enum log_component)i;
            return true;
        }
    }
    return false;
}

const char *log_component_name(enum log_component c) { return component_names[c]; }

void log_set(enum log_component c, enum log_level l) {
    __atomic_store_n(&log_levels[c], (unsigned char)l, __ATOMIC_RELAXED);
}

void log_set_all(enum log_level l) {
    for (int c = 0; c < LOG_COMPONENTS_COUNT; c++) {
        log_set((enum log_component)c, l);
    }
}

/* ---- format ---- */

bool log_set_format(const char *fmt, char *err, size_t err_n) {
    struct log_format *f = log_format_new(fmt, err, err_n);
    if (!f) {
        return false;
    }
    log_format_free(replaced);
    replaced = __atomic_exchange_n(&format, f, __ATOMIC_ACQ_REL);
    return true;
}

static const struct log_format *current_format(void) {
    struct log_format *f = __atomic_load_n(&format, __ATOMIC_ACQUIRE);
    if (LIKELY(f)) {
        return f;
    }
    struct log_format *made = log_format_new(DEFAULT_FORMAT, NULL, 0);
    if (__atomic_compare_exchange_n(&format, &f, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return made;
    }
    log_format_free(made);
    return f;
}

void log_set_escaped(bool escaped) { __atomic_store_n(&is_escaped, escaped, __ATOMIC_RELAXED); }

static char escape_letter(char c) {
    static const char shorts[] = "n\nr\rt\t\"\"''\\\\"; /* letter, character */
    for (const char *p = shorts; *p; p += 2) {
        if (p[1] == c) {
            return *p;
        }
    }
    return 0;
}

static void add_escaped(struct log_text *t, sv s) {
    for (size_t i = 0; i < s.n; i++) {
        char letter = escape_letter(s.p[i]);
        if (letter) {
            log_text_add(t, sv_from((char[2]){'\\', letter}, 2));
        } else if (s.p[i] < 0x20 || s.p[i] == 0x7f) { /* chars are signed: beyond ASCII too */
            log_text_printf(t, "\\%03o", (unsigned char)s.p[i]);
        } else {
            log_text_add(t, sv_from(&s.p[i], 1));
        }
    }
}

/* ---- where lines go ---- */

static int open_file(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    return fd < 0 ? -errno : fd;
}

int log_fd(void) { return __atomic_load_n(&out_fd, __ATOMIC_RELAXED); }

/* Let the descriptor that other threads write to mean another file, without ever being closed. */
static int replace_file(int fd) {
    int old = log_fd();
    if (old == STDERR_FILENO) {
        __atomic_store_n(&out_fd, fd, __ATOMIC_RELAXED);
        return 0;
    }
    int rc = dup3(fd, old, O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    return rc;
}

int log_open(const char *path) {
    if (!path) {
        int old = __atomic_exchange_n(&out_fd, STDERR_FILENO, __ATOMIC_RELAXED);
        out_path[0] = '\0';
        if (old != STDERR_FILENO) {
            close(old);
        }
        return 0;
    }
    if (strlen(path) >= sizeof(out_path)) {
        return -ENAMETOOLONG;
    }
    int fd = open_file(path);
    if (fd < 0) {
        return fd;
    }
    memmove(out_path, path, strlen(path) + 1);
    return replace_file(fd);
}

int log_reopen(void) {
    if (!out_path[0]) {
        return 0;
    }
    int fd = open_file(out_path);
    return fd < 0 ? fd : replace_file(fd);
}

/* What cannot be written (a full disk, a full non-blocking pipe) is lost: there is nowhere to say
 * so. */
static void write_all(int fd, sv s) {
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR) {
            return;
        }
        s = sv_skip(s, n > 0 ? (size_t)n : 0);
    }
}

/* ---- lines ---- */

static void write_line(const struct log_record *r) {
    struct log_text line LOG_TEXT_AUTO;
    log_text_init(&line);
    log_format_print(current_format(), r, &line);
    if (!__atomic_load_n(&is_escaped, __ATOMIC_RELAXED)) {
        log_text_add(&line, SV("\n"));
        write_all(log_fd(), sv_from(line.p, line.n));
        return;
    }
    struct log_text escaped LOG_TEXT_AUTO;
    log_text_init(&escaped);
    add_escaped(&escaped, sv_from(line.p, line.n));
    log_text_add(&escaped, SV("\n"));
    write_all(log_fd(), sv_from(escaped.p, escaped.n));
}

void log_write(enum log_component c, enum log_level l, const char *file, int line, const char *fmt,
               ...) {
    int saved = errno; /* a caller may log before it looks at errno */
    struct log_text message LOG_TEXT_AUTO;
    log_text_init(&message);
    va_list ap;
    va_start(ap, fmt);
    log_text_vprintf(&message, fmt, ap);
    va_end(ap);
    struct log_record r = {c, l, file, line, {0}, sv_from(message.p, message.n)};
    clock_gettime(CLOCK_REALTIME, &r.time);
    write_line(&r);
    errno = saved;
}

bool log_limit(uint64_t *last_ms) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
    uint64_t last = __atomic_load_n(last_ms, __ATOMIC_RELAXED);
    if (last && now_ms - last < LIMIT_MS) {
        return false;
    }
    return __atomic_compare_exchange_n(last_ms, &last, now_ms, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}

/* ---- threads ---- */

void log_thread_name(const char *name) {
    snprintf(thread_name, sizeof(thread_name), "%s", name);
    if (gettid() == getpid()) {
        return; /* the main thread's name is the process's */
    }
    char short_name[16];
    snprintf(short_name, sizeof(short_name), "%.15s", name);
    pthread_setname_np(pthread_self(), short_name);
}

const char *log_thread(void) { return thread_name; }
