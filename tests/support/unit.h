/* What every unit test needs: cmocka, comparison of views, tests of what must abort. */
#ifndef SLUICE_TESTS_SUPPORT_UNIT_H
#define SLUICE_TESTS_SUPPORT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* after those */
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy/base/sv.h"

static inline void assert_sv_at(sv got, sv want, const char *file, int line) {
    if (!sv_eq(got, want)) {
        print_error("got  '%.*s' (%zu)\nwant '%.*s' (%zu)\n", SV_ARG(got), got.n, SV_ARG(want),
                    want.n);
        _fail(file, line);
    }
}
#define assert_sv(got, want) assert_sv_at((got), (want), __FILE__, __LINE__)
#define assert_sv_is(got, cstr) assert_sv_at((got), sv_cstr(cstr), __FILE__, __LINE__)

/* As assert_true, naming the row of a table. */
static inline void assert_row_at(bool ok, const char *what, size_t row, const char *file,
                                 int line) {
    if (!ok) {
        print_error("row %zu: %s\n", row, what);
        _fail(file, line);
    }
}
#define assert_row(ok, row) assert_row_at((ok), #ok, (row), __FILE__, __LINE__)

/* The signal that fn() dies of in a child process whose stderr goes to `fd` (-1: nowhere); 0: it
 * returned. */
static inline int signal_of(void (*fn)(void), int fd) {
    pid_t child = fork();
    if (child == 0) {
        dup2(fd < 0 ? open("/dev/null", O_WRONLY) : fd, STDERR_FILENO);
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would print and go on */
        fn();
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {}
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}
static inline bool aborts(void (*fn)(void)) { return signal_of(fn, -1) == SIGABRT; }

#endif
