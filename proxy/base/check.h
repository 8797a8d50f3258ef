/* Three grades of assertion, and the checked cast for objects that travel through `void *`.
 * ASSERT: debug-only invariant.  CHECK: always on, aborts.  BUG: counts, logs once, lets the caller
 * recover. None of them is ever applied to bytes that a peer or the control plane sent. */
#ifndef SLUICE_BASE_CHECK_H
#define SLUICE_BASE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define NORETURN __attribute__((noreturn))
#define UNUSED __attribute__((unused))
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) \
    ((type *)(void *)((char *)(uintptr_t)(ptr)-offsetof(type, member)))

/* Print `expr` with its place and abort: the crash handler adds build, connection, stream and
 * backtrace. */
NORETURN void check_failed(const char *expr, const char *file, int line);

/* Count one broken invariant (`server.envoy_bug_failures`); logs the first of each place. Always
 * returns true. */
bool check_bug(const char *expr, const char *file, int line);

/* Number of BUG() hits since start. Any thread. */
uint64_t check_bug_count(void);

#define CHECK(c) (LIKELY(c) ? (void)0 : check_failed(#c, __FILE__, __LINE__))
#define BUG(c) (UNLIKELY(c) && check_bug(#c, __FILE__, __LINE__))
#ifdef SLUICE_DEBUG
#define ASSERT(c) CHECK(c)
#else
#define ASSERT(c) ((void)sizeof(!(c)))
#endif

/* Objects that come back through `void *` start with a `uint32_t magic` set from a MAGIC_x
 * constant:
 *     struct conn *c = CAST(conn, CONN_MAGIC, handle->data); */
#define CAST(type, magic_value, ptr)                   \
    ({                                                 \
        struct type *cast_ = (struct type *)(ptr);     \
        CHECK(cast_ && cast_->magic == (magic_value)); \
        cast_;                                         \
    })

#endif
