/* What a dying process prints, and what it dies of. */
#include "proxy/base/crash.h"

#include <pthread.h>
#include <stdio.h>

#include "proxy/base/check.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/version.h"
#include "tests/support/unit.h"

#if defined(MEM_ASAN) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED true
#else
#define IS_SANITIZED false
#endif

static int *volatile nowhere = (int *)8;
static volatile bool is_endless = true;

struct thing {
    const char *name;
    uint64_t id;
};

static void dump_thing(const void *obj, int fd) {
    const struct thing *t = obj;
    crash_put_str(fd, t->name);
    crash_put(fd, SV(" "));
    crash_put_u64(fd, t->id);
    crash_put(fd, SV(" "));
    crash_put_hex(fd, t->id);
}

static void dump_badly(const void *obj, int fd) {
    (void)obj, (void)fd;
    *nowhere = 1;
}

static void dump_for_ever(const void *obj, int fd) {
    (void)obj, (void)fd;
    for (;;) {
        pause();
    }
}

/* ---- ways to die, each in a child process ---- */

static void within(void) {
    static const struct thing connection = {"conn", 12}, stream = {"stream", UINT64_MAX};
    crash_install();
    CRASH_SCOPE(dump_thing, &connection);
    CRASH_SCOPE(dump_thing, &stream);
    CHECK(!"broken");
}

static void after_the_scope(void) {
    static const struct thing gone = {"gone", 1};
    crash_install();
    { CRASH_SCOPE(dump_thing, &gone); }
    abort();
}

static void null_pointer(void) {
    crash_install();
    *nowhere = 1;
}

static void illegal(void) {
    crash_install();
    __builtin_trap();
}

static void raised(void) {
    crash_install();
    raise(SIGFPE);
}

static int exhaust(volatile char *above) {
    volatile char frame[4096];
    frame[0] = above ? above[0] : 1;
    return is_endless ? exhaust(frame) + frame[0] : 0;
}

static void *overflow_in_thread(void *arg) {
    crash_thread_begin();
    log_thread_name("wrk:worker_0");
    exhaust(arg);
    return NULL;
}

static void stack_overflow(void) {
    crash_install();
    pthread_t t;
    pthread_create(&t, NULL, overflow_in_thread, NULL);
    pthread_join(t, NULL);
}

static void broken_dump(void) {
    static const struct thing outer = {"outer", 1};
    crash_install();
    CRASH_SCOPE(dump_thing, &outer);
    CRASH_SCOPE(dump_badly, NULL);
    abort();
}

static void hanging_dump(void) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    crash_install();
    CRASH_SCOPE(dump_for_ever, NULL);
    abort();
}

static void endless_chain(void) {
    static const struct thing again = {"again", 1};
    static struct crash_frame loop = {dump_thing, &again, &loop};
    crash_install();
    crash_frames = &loop;
    abort();
}

static void *abort_in_thread(void *arg) {
    (void)arg;
    crash_thread_begin();
    abort();
}

static void many_threads(void) {
    crash_install();
    pthread_t t[8];
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        pthread_create(&t[i], NULL, abort_in_thread, NULL);
    }
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        pthread_join(t[i], NULL);
    }
}

/* ---- */

/* Run fn in a child, return its signal and what it wrote to stderr. */
static int last_words(void (*fn)(void), char *text, size_t size) {
    FILE *f = tmpfile();
    assert_non_null(f);
    int signal_number = signal_of(fn, fileno(f));
    rewind(f);
    text[fread(text, 1, size - 1, f)] = '\0';
    fclose(f);
    return signal_number;
}

static void test_deaths(void **state) {
    (void)state;
    static const struct {
        void (*fn)(void);
        int signal;
        bool is_sanitizers;
        const char *wants[5];
    } rows[] = {
        {within,
         SIGABRT,
         false,
         {"assert failure: !\"broken\"", "Caught Aborted", "thread: (unnamed) (", "Backtrace",
          "working on: stream 18446744073709551615 0xffffffffffffffff\nwithin: conn 12 0xc\n"}},
        {null_pointer,
         SIGSEGV,
         true,
         {"Caught Segmentation fault, suspect faulting address 0x8\n"}},
        {illegal, SIGILL, true, {"Caught Illegal instruction"}},
        {raised, SIGFPE, true, {"Caught Floating point exception"}},
        {stack_overflow, SIGSEGV, true, {"Caught Segmentation fault", "thread: wrk:worker_0 ("}},
        {many_threads, SIGABRT, false, {"Caught Aborted"}},
        {endless_chain, SIGABRT, false, {"working on: again 1 0x1\nwithin: again"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (IS_SANITIZED && rows[i].is_sanitizers) {
            continue;
        }
        char text[16384];
        assert_row(last_words(rows[i].fn, text, sizeof(text)) == rows[i].signal, i);
        assert_row(strstr(text, version_string()), i);
        for (size_t k = 0; k < ARRAY_LEN(rows[i].wants) && rows[i].wants[k]; k++) {
            assert_row(strstr(text, rows[i].wants[k]), i);
        }
        assert_row(strstr(text, "Caught") && !strstr(strstr(text, "Caught") + 1, "Caught"), i);
    }
}

static void test_scope_ends(void **state) {
    (void)state;
    char text[16384];
    assert_int_equal(last_words(after_the_scope, text, sizeof(text)), SIGABRT);
    assert_null(strstr(text, "working on"));
    assert_null(crash_frames);
}

/* The rest of the report is out before objects are asked, and the process ends in any case. */
static void test_bad_dumps(void **state) {
    (void)state;
    char text[16384];
    if (!IS_SANITIZED) {
        assert_int_equal(last_words(broken_dump, text, sizeof(text)), SIGSEGV);
        assert_non_null(strstr(text, "Backtrace"));
    }
    assert_int_equal(last_words(hanging_dump, text, sizeof(text)), SIGALRM);
    assert_non_null(strstr(text, "Backtrace"));
}

static void test_output(void **state) {
    (void)state;
    FILE *f = tmpfile();
    int fd = fileno(f);
    crash_put(fd, SV_NULL);
    crash_put_str(fd, NULL);
    crash_put_u64(fd, 0);
    crash_put_hex(fd, 0);
    crash_put_hex(fd, 0xabc0);
    char text[64] = "";
    rewind(f);
    assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
    assert_string_equal(text, "(null)00x00xabc0");
    fclose(f);
    crash_put_str(-1, "nowhere");
}

static void *begin_and_end(void *arg) {
    crash_thread_begin();
    crash_thread_end();
    crash_thread_begin();
    crash_thread_end();
    return arg;
}

static void test_thread_stacks(void **state) {
    (void)state;
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, begin_and_end, NULL), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deaths),        cmocka_unit_test(test_scope_ends),
        cmocka_unit_test(test_bad_dumps),     cmocka_unit_test(test_output),
        cmocka_unit_test(test_thread_stacks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
