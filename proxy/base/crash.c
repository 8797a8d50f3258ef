/* The crash handler.
 * Threads: any; the first to crash reports, others that crash meanwhile wait for the end.
 * Spec: Envoy's "Caught Segmentation fault, suspect faulting address" report on stderr.
 * Not here: what an object prints of itself (its foo_dump). */
#include "proxy/base/crash.h"

#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <unistd.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/version.h"

#define BACKTRACE_MAX 64
#define FRAMES_MAX 16u /* the chain may be broken */
#define STACK_BYTES (64u * 1024)
#define REPORT_SECONDS_MAX 5u /* a dump that hangs must not keep a dead process up */

#if defined(MEM_ASAN) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

_Thread_local struct crash_frame *crash_frames;
static _Thread_local void *signal_stack;
static int is_reporting;

static const struct crash_signal {
    int number;
    const char *name;
    bool is_sanitizers; /* theirs to report in their builds */
} crash_signals[] = {
    {SIGSEGV, "Segmentation fault", true},
    {SIGBUS, "Bus error", true},
    {SIGFPE, "Floating point exception", true},
    {SIGILL, "Illegal instruction", true},
    {SIGABRT, "Aborted", false},
};

void crash_put(int fd, sv s) {
    while (s.n) {
        ssize_t n = write(fd, s.p, s.n);
        if (n < 0 && errno != EINTR) {
            return;
        }
        s = sv_skip(s, n > 0 ? (size_t)n : 0);
    }
}

void crash_put_str(int fd, const char *s) { crash_put(fd, sv_cstr(s ? s : "(null)")); }

static void put_number(int fd, uint64_t v, unsigned base) {
    char text[24];
    char *end = text + sizeof(text), *p = end;
    do {
        *--p = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    crash_put(fd, sv_from(p, (size_t)(end - p)));
}

void crash_put_u64(int fd, uint64_t v) { put_number(fd, v, 10); }

void crash_put_hex(int fd, uint64_t v) {
    crash_put(fd, SV("0x"));
    put_number(fd, v, 16);
}

static void put_heading(int fd, int number, const siginfo_t *info) {
    const char *name = "signal";
    for (size_t i = 0; i < ARRAY_LEN(crash_signals); i++) {
        name = crash_signals[i].number == number ? crash_signals[i].name : name;
    }
    crash_put(fd, SV("Caught "));
    crash_put_str(fd, name);
    crash_put(fd, SV(", suspect faulting address "));
    crash_put_hex(fd, (uint64_t)(uintptr_t)info->si_addr);
    crash_put(fd, SV("\nsluice version: "));
    crash_put_str(fd, version_string());
    crash_put(fd, SV("\nthread: "));
    crash_put_str(fd, *log_thread() ? log_thread() : "(unnamed)");
    crash_put(fd, SV(" ("));
    crash_put_u64(fd, (uint64_t)gettid());
    crash_put(fd, SV(")\n"));
}

static void put_backtrace(int fd) {
    void *places[BACKTRACE_MAX];
    int n = backtrace(places, BACKTRACE_MAX);
    crash_put(fd, SV("Backtrace (addr2line -e sluice gives lines):\n"));
    backtrace_symbols_fd(places, n, fd);
}

/* Last, for a broken object may crash the handler, which ends the process at once. */
static void put_objects(int fd) {
    const struct crash_frame *f = crash_frames;
    for (unsigned i = 0; f && i < FRAMES_MAX; i++, f = f->prev) {
        crash_put(fd, i ? SV("within: ") : SV("working on: "));
        f->dump(f->obj, fd);
        crash_put(fd, SV("\n"));
    }
}

static void limit_time(void) {
    sigset_t alarm_only;
    sigemptyset(&alarm_only);
    sigaddset(&alarm_only, SIGALRM);
    signal(SIGALRM, SIG_DFL);
    sigprocmask(SIG_UNBLOCK, &alarm_only, NULL); /* threads may have blocked what main handles */
    alarm(REPORT_SECONDS_MAX);
}

static void on_crash(int number, siginfo_t *info, void *context) {
    (void)context;
    if (__atomic_exchange_n(&is_reporting, 1, __ATOMIC_RELAXED)) {
        for (;;) {
            pause();
        }
    }
    limit_time();
    int fd = log_fd();
    put_heading(fd, number, info);
    put_backtrace(fd);
    put_objects(fd);
    signal(number, SIG_DFL);
    raise(number); /* delivered when this handler returns: the core shows where it happened */
}

void crash_thread_begin(void) {
    CHECK(!signal_stack);
    signal_stack = xalloc(STACK_BYTES);
    stack_t stack = {.ss_sp = signal_stack, .ss_size = STACK_BYTES};
    CHECK(sigaltstack(&stack, NULL) == 0);
}

void crash_thread_end(void) {
    stack_t none = {.ss_flags = SS_DISABLE};
    CHECK(sigaltstack(&none, NULL) == 0);
    xfree(signal_stack);
    signal_stack = NULL;
}

void crash_install(void) {
    void *place;
    backtrace(&place, 1); /* its first call loads a library, which no handler may */
    crash_thread_begin();
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigfillset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_LEN(crash_signals); i++) {
        if (!(IS_SANITIZED && crash_signals[i].is_sanitizers)) {
            CHECK(sigaction(crash_signals[i].number, &action, NULL) == 0);
        }
    }
}
