/* The heap, without out-of-memory paths.
 * Threads: any.
 * Not here: arenas (arena.c), chunk free lists (buf.c). */
#include "proxy/base/mem.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/base/check.h"

/* No log line: it might allocate. */
NORETURN static void out_of_memory(size_t n) {
    char text[64];
    int len = snprintf(text, sizeof(text), "out of memory: cannot allocate %zu bytes\n", n);
    if (write(STDERR_FILENO, text, (size_t)len) < 0) {
        abort();
    }
    abort();
}

static void *checked(void *p, size_t n) {
    if (UNLIKELY(!p)) {
        out_of_memory(n);
    }
    return p;
}

static size_t product(size_t n, size_t size) {
    size_t total;
    if (UNLIKELY(__builtin_mul_overflow(n, size, &total))) {
        out_of_memory(SIZE_MAX);
    }
    return total;
}

void *xalloc(size_t n) { return checked(malloc(n ? n : 1), n); }

void *xcalloc(size_t n, size_t size) {
    size_t total = product(n, size);
    return checked(calloc(1, total ? total : 1), total);
}

void *xrealloc(void *p, size_t n) { return checked(realloc(p, n ? n : 1), n); }

void *xreallocarray(void *p, size_t n, size_t size) { return xrealloc(p, product(n, size)); }

void xfree(void *p) { free(p); }

void *xmemdup(const void *p, size_t n) {
    void *copy = xalloc(n);
    return n ? memcpy(copy, p, n) : copy;
}

char *xstrdup(const char *s) { return xmemdup(s, strlen(s) + 1); }

#define MMAP_BYTES (256 * 1024) /* such blocks are mapped alone, and unmapped with their end */
#define TOP_BYTES (256 * 1024)  /* free ones at the end of a heap that are kept */

void mem_tune(void) {
    (void)mallopt(M_MMAP_THRESHOLD, MMAP_BYTES);
    (void)mallopt(M_TRIM_THRESHOLD, TOP_BYTES);
}

void mem_trim(void) { malloc_trim(0); }
