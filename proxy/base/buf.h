/* Byte queues as chains of slices over refcounted chunks: bytes move between buffers without being
 * copied.
 * Threads: a chunk and all slices of it belong to one thread (plain refcounts); never hand a buf to
 * another thread. Watermarks live in net/conn.c and request/stream.c: a buf only knows its
 * length. */
#ifndef SLUICE_BASE_BUF_H
#define SLUICE_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "proxy/base/sv.h"

/* A run of memory shared by slices. Bytes before `used` are written and immutable for every holder;
 * only the holder of the last slice that ends at `used` may append. */
struct chunk {
    uint32_t refs;
    uint32_t cap;
    uint32_t used;
    uint32_t free_list_; /* which free list it returns to, or 0 */
    char data[];
};

/* data capacity of the small free-listed chunk (4 KiB with header) */
#define CHUNK_SMALL_BYTES 4080u
#define CHUNK_READ_BYTES 65520u /* the worker's read chunk (64 KiB with header) */
/* shorter pieces are copied rather than referenced when they are kept */
#define BUF_COPY_MAX 1024u
/* shorter pieces are copied behind the last slice when there is room */
#define BUF_COALESCE_MAX 512u

/* refs 1; the two sizes above come from per-thread free lists */
struct chunk *chunk_new(size_t cap);
static inline struct chunk *chunk_ref(struct chunk *c) {
    c->refs++;
    return c;
}
void chunk_unref(struct chunk *c);
/* Free this thread's chunk free lists (at thread end, and for leak checks). */
void chunk_cache_trim(void);

struct slice {
    struct chunk *chunk; /* holds one ref; NULL: static bytes that outlive the buf */
    const char *p;
    size_t n;
};

#define BUF_INLINE_SLICES 4
/* A zeroed buf is an empty one. Never copied by assignment: v_ may point into it. */
struct buf {
    size_t len_;      /* total bytes */
    struct slice *v_; /* inline_ or heap ring; NULL: not used yet */
    uint32_t head_;   /* index of the first slice */
    uint32_t count_;
    uint32_t cap_; /* power of two */
    struct slice inline_[BUF_INLINE_SLICES];
};

void buf_init(struct buf *b);
void buf_fini(struct buf *b); /* drops all slices; may be used again after buf_init */
static inline size_t buf_len(const struct buf *b) { return b->len_; }
static inline bool buf_empty(const struct buf *b) { return b->len_ == 0; }
static inline size_t buf_slices(const struct buf *b) { return b->count_; }
/* i-th slice from the front, borrowed until the next change of b. */
static inline struct slice *buf_slice(const struct buf *b, size_t i) {
    return &((struct buf *)(uintptr_t)b)->v_[(b->head_ + i) & (b->cap_ - 1)];
}
static inline sv buf_front(const struct buf *b) {
    return b->count_ ? (sv){buf_slice(b, 0)->p, buf_slice(b, 0)->n} : SV_NULL;
}

void buf_append(struct buf *b, const void *p, size_t n); /* copies */
static inline void buf_append_sv(struct buf *b, sv s) { buf_append(b, s.p, s.n); }
#define buf_lit(b, lit) buf_append((b), "" lit, sizeof(lit) - 1)
/* refers to bytes that live for ever (string literals) */
void buf_append_static(struct buf *b, sv s);
/* takes a new ref on c */
void buf_append_slice(struct buf *b, struct chunk *c, const char *p, size_t n);
/* Append a piece of a chunk that will be kept for an unknown time: refers when it is long, copies
 * when it is short beside its chunk, so that a few bytes never pin 64 KiB. c may be NULL
 * (copies). */
void buf_append_keep(struct buf *b, struct chunk *c, const char *p, size_t n);
void buf_printf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
/* Room for n > 0 contiguous bytes at the end: write there, then commit how many were written (≤ n,
 * 0: none). Between the two, no other change of b, nor of a buf that shares b's last chunk. */
char *buf_reserve(struct buf *b, size_t n);
void buf_commit(struct buf *b, size_t n);

void buf_move(struct buf *dst, struct buf *src);             /* all of src to the end of dst */
void buf_move_n(struct buf *dst, struct buf *src, size_t n); /* the first n bytes (n ≤ len) */
void buf_prepend_buf(struct buf *b, struct buf *front);      /* all of front before b */
/* drop n ≤ len bytes from the front */
void buf_drain(struct buf *b, size_t n);
void buf_clear(struct buf *b);
/* shares chunks, b unchanged (retries, mirrors) */
void buf_copy_to(const struct buf *b, struct buf *dst);
/* Replace references to long chunks by right-sized copies where a slice is small beside its chunk;
 * call before keeping received bytes across events. */
void buf_compact(struct buf *b);

/* First n ≤ len bytes contiguous: linearises when they are not. The view is valid until b
 * changes. */
sv buf_pullup(struct buf *b, size_t n);
/* copies; returns the count */
size_t buf_peek(const struct buf *b, size_t from, void *out, size_t n);
/* Offset of the first occurrence of c at or after `from`, SIZE_MAX when absent. */
size_t buf_find(const struct buf *b, size_t from, char c);
/* Fill iov from the front (at most max entries); returns the count used, `*bytes` their sum. */
int buf_iov(const struct buf *b, struct iovec *iov, int max, size_t *bytes);
/* All bytes as one NUL-terminated heap string, b unchanged; free with xfree. */
char *buf_dup_str(const struct buf *b);

#define BUF_AUTO __attribute__((cleanup(buf_fini)))

#endif
