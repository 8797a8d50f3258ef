/* Last words of a dying process: which build, thread and objects, and a backtrace, then the default
 * action (core dump).
 *     CRASH_SCOPE(dump_stream, s);   until the end of the scope, s is what this thread works on
 * Dump functions run in a signal handler over objects that may be broken: only crash_put_*, no
 * locks, no allocation. */
#ifndef SLUICE_BASE_CRASH_H
#define SLUICE_BASE_CRASH_H

#include <stdint.h>

#include "proxy/base/sv.h"

struct crash_frame {
    void (*dump)(const void *obj, int fd);
    const void *obj;
    struct crash_frame *prev; /* what the thread worked on around it */
};
extern _Thread_local struct crash_frame *crash_frames; /* innermost first */

static inline void crash_push(struct crash_frame *f) {
    f->prev = crash_frames;
    crash_frames = f;
}
static inline void crash_pop(struct crash_frame *f) { crash_frames = f->prev; }

#define CRASH_CAT2_(a, b) a##b
#define CRASH_CAT_(a, b) CRASH_CAT2_(a, b)
#define CRASH_SCOPE_(name, dump_fn, object)                                                    \
    __attribute__((cleanup(crash_pop))) struct crash_frame name = {(dump_fn), (object), NULL}; \
    crash_push(&name)
#define CRASH_SCOPE(dump_fn, object) \
    CRASH_SCOPE_(CRASH_CAT_(crash_frame_, __LINE__), dump_fn, object)

/* Handle SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT; sanitizer builds leave all but SIGABRT to the
 * sanitizer. Once, by the main thread; it includes crash_thread_begin(). */
void crash_install(void);
/* Give this thread a stack for signals, so that its stack overflow is reported too; and take it
 * away at its end. */
void crash_thread_begin(void);
void crash_thread_end(void);

/* Async-signal-safe output. */
void crash_put(int fd, sv s);
void crash_put_str(int fd, const char *s); /* NULL prints (null) */
void crash_put_u64(int fd, uint64_t v);
void crash_put_hex(int fd, uint64_t v); /* with 0x */

#endif
