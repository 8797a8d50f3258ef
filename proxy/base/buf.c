/* Byte queues: a ring of slices over refcounted chunks, with free lists of the two usual chunk
 * sizes per thread.
 * Threads: chunks, bufs and free lists each belong to one thread.
 * Not here: watermarks (net/conn.c), sockets (net/sock.c). */
#include "proxy/base/buf.h"

#include <stdio.h>

#include "proxy/base/mem.h"

#define BIG_BUF_BYTES 16384u /* bufs longer than this grow by read chunks rather than small ones */
#define RING_KEEP_SLOTS 32u  /* an emptied buf gives a larger ring back */
#define PULLUP_SLACK 2u      /* a linearised run that must grow again has room for as much again */
#define PRINTF_GUESS_BYTES 256u

/* ---- chunks ---- */

enum { LIST_NONE, LIST_SMALL, LIST_READ, LISTS };

struct free_list {
    struct chunk *head; /* the next one's address is in data */
    unsigned n;
};
static const unsigned list_max[LISTS] = {0, 256, 4};
static _Thread_local struct free_list lists[LISTS];

static unsigned list_of(size_t cap) {
    if (cap == CHUNK_SMALL_BYTES) {
        return LIST_SMALL;
    }
    return cap == CHUNK_READ_BYTES ? LIST_READ : LIST_NONE;
}

static struct chunk *next_free(const struct chunk *c) {
    struct chunk *next;
    memcpy(&next, c->data, sizeof(next));
    return next;
}

static struct chunk *take_free(unsigned list) {
    struct chunk *c = lists[list].head;
    MEM_UNPOISON(c->data, c->cap);
    lists[list].head = next_free(c);
    lists[list].n--;
    c->refs = 1;
    c->used = 0;
    return c;
}

struct chunk *chunk_new(size_t cap) {
    unsigned list = list_of(cap);
    if (lists[list].head) {
        return take_free(list);
    }
    CHECK(cap <= UINT32_MAX);
    struct chunk *c = xalloc(sizeof(*c) + cap);
    *c = (struct chunk){.refs = 1, .cap = (uint32_t)cap, .free_list_ = list};
    return c;
}

void chunk_unref(struct chunk *c) {
    ASSERT(c->refs > 0);
    if (--c->refs) {
        return;
    }
    struct free_list *l = &lists[c->free_list_];
    if (l->n >= list_max[c->free_list_]) {
        xfree(c);
        return;
    }
    memcpy(c->data, &l->head, sizeof(l->head));
    l->head = c;
    l->n++;
    MEM_POISON(c->data, c->cap);
}

void chunk_cache_trim(void) {
    for (unsigned i = 0; i < LISTS; i++) {
        while (lists[i].head) {
            xfree(take_free(i));
        }
    }
}

static inline size_t chunk_room(const struct chunk *c) { return c->cap - c->used; }

/* Would `n` bytes pin far more than themselves by referring to a chunk of `cap`? */
static bool is_small_beside(size_t n, size_t cap) {
    size_t copied = cap / 2 < BUF_COPY_MAX ? cap / 2 : BUF_COPY_MAX;
    return n <= copied || n <= cap / 8;
}

/* ---- the ring of slices ---- */

void buf_init(struct buf *b) {
    b->len_ = 0;
    b->v_ = b->inline_;
    b->head_ = b->count_ = 0;
    b->cap_ = BUF_INLINE_SLICES;
}

static void free_ring(struct buf *b) {
    if (b->v_ && b->v_ != b->inline_) {
        xfree(b->v_);
    }
}

static __attribute__((noinline)) void grow_ring(struct buf *b) {
    if (!b->v_) {
        buf_init(b);
        return;
    }
    CHECK(b->cap_ <= UINT32_MAX / 4);
    struct slice *v = xreallocarray(NULL, (size_t)b->cap_ * 2, sizeof(*v));
    for (uint32_t i = 0; i < b->count_; i++) {
        v[i] = *buf_slice(b, i);
    }
    free_ring(b);
    b->v_ = v;
    b->head_ = 0;
    b->cap_ *= 2;
}

/* Both take the slice's ref. */
static inline void push_back(struct buf *b, struct slice s) {
    if (UNLIKELY(b->count_ == b->cap_)) {
        grow_ring(b);
    }
    *buf_slice(b, b->count_++) = s;
    b->len_ += s.n;
}

static inline void push_front(struct buf *b, struct slice s) {
    if (UNLIKELY(b->count_ == b->cap_)) {
        grow_ring(b);
    }
    b->head_ = (b->head_ - 1) & (b->cap_ - 1);
    b->count_++;
    *buf_slice(b, 0) = s;
    b->len_ += s.n;
}

static inline struct slice *last_slice(const struct buf *b) {
    return b->count_ ? buf_slice(b, b->count_ - 1) : NULL;
}

static inline void unref_slice(const struct slice *s) {
    if (s->chunk) {
        chunk_unref(s->chunk);
    }
}

static inline void forget_front(struct buf *b) {
    b->head_ = (b->head_ + 1) & (b->cap_ - 1);
    b->count_--;
}

void buf_clear(struct buf *b) {
    for (uint32_t i = 0; i < b->count_; i++) {
        unref_slice(buf_slice(b, i));
    }
    b->len_ = 0;
    b->head_ = b->count_ = 0;
    if (b->cap_ > RING_KEEP_SLOTS) {
        free_ring(b);
        buf_init(b);
    }
}

void buf_fini(struct buf *b) {
    buf_clear(b);
    free_ring(b);
    buf_init(b);
}

/* ---- appending ---- */

/* Bytes that may be written right behind the last slice: only while nobody has appended to its
 * chunk since. */
static inline size_t tail_room(const struct buf *b) {
    const struct slice *s = last_slice(b);
    if (!s || !s->chunk || s->p + s->n != s->chunk->data + s->chunk->used) {
        return 0;
    }
    return chunk_room(s->chunk);
}

static inline char *tail_end(const struct buf *b) {
    struct chunk *c = last_slice(b)->chunk;
    return c->data + c->used;
}

/* `n` bytes were written at tail_end(). */
static inline void extend_tail(struct buf *b, size_t n) {
    struct slice *s = last_slice(b);
    s->chunk->used += (uint32_t)n;
    s->n += n;
    b->len_ += n;
}

/* An empty slice at the end with room for at least `n`. */
static void push_room(struct buf *b, size_t n) {
    size_t cap = b->len_ < BIG_BUF_BYTES ? CHUNK_SMALL_BYTES : CHUNK_READ_BYTES;
    struct chunk *c = chunk_new(n <= cap ? cap : n);
    push_back(b, (struct slice){c, c->data, 0});
}

static __attribute__((noinline)) void append_slow(struct buf *b, const char *p, size_t n) {
    while (n) {
        size_t room = tail_room(b);
        if (room == 0) {
            push_room(b, n < UINT32_MAX / 2 ? n : UINT32_MAX / 2);
            room = tail_room(b);
        }
        size_t step = n < room ? n : room;
        memcpy(tail_end(b), p, step);
        extend_tail(b, step);
        p += step;
        n -= step;
    }
}

void buf_append(struct buf *b, const void *p, size_t n) {
    if (LIKELY(n && n <= tail_room(b))) {
        memcpy(tail_end(b), p, n);
        extend_tail(b, n);
        return;
    }
    append_slow(b, p, n);
}

void buf_append_static(struct buf *b, sv s) {
    if (s.n <= BUF_COALESCE_MAX && s.n <= tail_room(b)) {
        buf_append_sv(b, s);
        return;
    }
    push_back(b, (struct slice){NULL, s.p, s.n});
}

/* Lengthen the last slice when [p, p + n) of `c` follows it. */
static inline bool join_tail(struct buf *b, const struct chunk *c, const char *p, size_t n) {
    struct slice *s = last_slice(b);
    if (!s || !c || s->chunk != c || s->p + s->n != p) {
        return false;
    }
    s->n += n;
    b->len_ += n;
    return true;
}

void buf_append_slice(struct buf *b, struct chunk *c, const char *p, size_t n) {
    ASSERT(p >= c->data && p + n <= c->data + c->used);
    if (n == 0 || join_tail(b, c, p, n)) {
        return;
    }
    push_back(b, (struct slice){chunk_ref(c), p, n});
}

void buf_append_keep(struct buf *b, struct chunk *c, const char *p, size_t n) {
    if (n == 0 || join_tail(b, c, p, n)) {
        return;
    }
    if (!c || is_small_beside(n, c->cap)) {
        buf_append(b, p, n);
        return;
    }
    buf_append_slice(b, c, p, n);
}

char *buf_reserve(struct buf *b, size_t n) {
    ASSERT(n > 0);
    if (tail_room(b) < n) {
        push_room(b, n);
    }
    return tail_end(b);
}

void buf_commit(struct buf *b, size_t n) {
    CHECK(n <= tail_room(b));
    const struct slice *s = last_slice(b);
    if (n) {
        extend_tail(b, n);
    } else if (s && s->n == 0) {
        unref_slice(s);
        b->count_--;
    }
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap) {
    va_list again;
    va_copy(again, ap);
    char *p = buf_reserve(b, PRINTF_GUESS_BYTES);
    int written = vsnprintf(p, PRINTF_GUESS_BYTES, fmt, ap);
    CHECK(written >= 0);
    size_t n = (size_t)written;
    if (n >= PRINTF_GUESS_BYTES) {
        buf_commit(b, 0);
        p = buf_reserve(b, n + 1); /* vsnprintf's NUL needs room too, but is not committed */
        vsnprintf(p, n + 1, fmt, again);
    }
    buf_commit(b, n);
    va_end(again);
}

void buf_printf(struct buf *b, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

/* ---- moving ---- */

/* Append a slice whose ref is handed over: as itself, or copied when it is short and there is room
 * for it, so that many short pieces do not each pin a chunk. */
static inline void adopt(struct buf *b, struct slice s) {
    bool is_joined = join_tail(b, s.chunk, s.p, s.n);
    if (!is_joined && (s.n > BUF_COALESCE_MAX || s.n > tail_room(b))) {
        push_back(b, s);
        return;
    }
    if (!is_joined) {
        buf_append(b, s.p, s.n);
    }
    unref_slice(&s);
}

/* dst has nothing to keep: it takes over src's heap ring. */
static void steal_ring(struct buf *dst, struct buf *src) {
    free_ring(dst);
    dst->len_ = src->len_;
    dst->v_ = src->v_;
    dst->head_ = src->head_;
    dst->count_ = src->count_;
    dst->cap_ = src->cap_;
    buf_init(src);
}

void buf_move(struct buf *dst, struct buf *src) {
    ASSERT(dst != src);
    if (dst->count_ == 0 && src->v_ != src->inline_ && src->count_) {
        steal_ring(dst, src);
        return;
    }
    for (uint32_t i = 0; i < src->count_; i++) {
        adopt(dst, *buf_slice(src, i));
    }
    src->count_ = 0;
    buf_clear(src);
}

void buf_move_n(struct buf *dst, struct buf *src, size_t n) {
    CHECK(n <= src->len_);
    if (n == src->len_) {
        buf_move(dst, src);
        return;
    }
    while (n) {
        struct slice *s = buf_slice(src, 0);
        struct slice part = *s;
        if (s->n <= n) {
            src->len_ -= part.n;
            forget_front(src);
        } else {
            part.n = n;
            if (part.chunk) {
                chunk_ref(part.chunk);
            }
            s->p += n;
            s->n -= n;
            src->len_ -= n;
        }
        n -= part.n;
        adopt(dst, part);
    }
}

void buf_prepend_buf(struct buf *b, struct buf *front) {
    ASSERT(b != front);
    while (front->count_) {
        push_front(b, *last_slice(front));
        front->count_--;
    }
    buf_clear(front);
}

void buf_drain(struct buf *b, size_t n) {
    CHECK(n <= b->len_);
    if (n == b->len_) {
        buf_clear(b);
        return;
    }
    b->len_ -= n;
    while (n) {
        struct slice *s = buf_slice(b, 0);
        if (n < s->n) {
            s->p += n;
            s->n -= n;
            return;
        }
        n -= s->n;
        unref_slice(s);
        forget_front(b);
    }
}

void buf_copy_to(const struct buf *b, struct buf *dst) {
    ASSERT(dst != b);
    for (uint32_t i = 0; i < b->count_; i++) {
        const struct slice *s = buf_slice(b, i);
        if (s->chunk) {
            buf_append_slice(dst, s->chunk, s->p, s->n);
        } else {
            buf_append_static(dst, sv_from(s->p, s->n));
        }
    }
}

/* Slices from `i` on that lie in one chunk; their bytes. */
static uint32_t run_in_chunk(const struct buf *b, uint32_t i, size_t *bytes) {
    const struct chunk *c = buf_slice(b, i)->chunk;
    uint32_t n = 0;
    *bytes = 0;
    while (i + n < b->count_ && buf_slice(b, i + n)->chunk == c) {
        *bytes += buf_slice(b, i + n)->n;
        n++;
    }
    return n;
}

/* As run_in_chunk, over neighbouring runs each of which is worth copying; 0: the first one is
 * not. */
static uint32_t run_to_copy(const struct buf *b, uint32_t i, size_t *bytes) {
    uint32_t n = 0;
    *bytes = 0;
    while (i + n < b->count_ && buf_slice(b, i + n)->chunk) {
        size_t run_bytes;
        uint32_t run = run_in_chunk(b, i + n, &run_bytes);
        if (!is_small_beside(run_bytes, buf_slice(b, i + n)->chunk->cap)) {
            break;
        }
        n += run;
        *bytes += run_bytes;
    }
    return n;
}

/* Copy `n` slices from `i` on into one chunk of their size. */
static struct slice copied_run(const struct buf *b, uint32_t i, uint32_t n, size_t bytes) {
    struct chunk *c = chunk_new(bytes);
    for (uint32_t k = 0; k < n; k++) {
        const struct slice *s = buf_slice(b, i + k);
        memcpy(c->data + c->used, s->p, s->n);
        c->used += (uint32_t)s->n;
        unref_slice(s);
    }
    return (struct slice){c, c->data, bytes};
}

void buf_compact(struct buf *b) {
    uint32_t to = 0;
    for (uint32_t i = 0, n; i < b->count_; i += n) {
        size_t bytes;
        n = run_to_copy(b, i, &bytes);
        if (n) {
            *buf_slice(b, to++) = copied_run(b, i, n, bytes);
            continue;
        }
        n = run_in_chunk(b, i, &bytes);
        for (uint32_t k = 0; k < n; k++) {
            *buf_slice(b, to++) = *buf_slice(b, i + k);
        }
    }
    b->count_ = to;
}

/* ---- reading ---- */

/* Move the bytes after the first slice to its end until it has n; false when its chunk has no room
 * for them. */
static bool pullup_in_place(struct buf *b, size_t n) {
    struct slice *first = buf_slice(b, 0);
    struct chunk *c = first->chunk;
    if (!c || first->p + first->n != c->data + c->used || chunk_room(c) < n - first->n) {
        return false;
    }
    struct slice whole = *first;
    size_t missing = n - first->n;
    b->len_ -= first->n;
    forget_front(b);
    buf_peek(b, 0, c->data + c->used, missing);
    buf_drain(b, missing);
    c->used += (uint32_t)missing;
    whole.n = n;
    push_front(b, whole);
    return true;
}

sv buf_pullup(struct buf *b, size_t n) {
    CHECK(n <= b->len_);
    if (n == 0) {
        return SV_NULL;
    }
    if (buf_slice(b, 0)->n < n && !pullup_in_place(b, n)) {
        struct chunk *c = chunk_new(n <= CHUNK_SMALL_BYTES ? CHUNK_SMALL_BYTES : n * PULLUP_SLACK);
        buf_peek(b, 0, c->data, n);
        c->used = (uint32_t)n;
        buf_drain(b, n);
        push_front(b, (struct slice){c, c->data, n});
    }
    return sv_from(buf_slice(b, 0)->p, n);
}

size_t buf_peek(const struct buf *b, size_t from, void *out, size_t n) {
    char *to = out;
    size_t left = n;
    for (uint32_t i = 0; i < b->count_ && left; i++) {
        const struct slice *s = buf_slice(b, i);
        if (from >= s->n) {
            from -= s->n;
            continue;
        }
        size_t step = s->n - from < left ? s->n - from : left;
        memcpy(to, s->p + from, step);
        to += step;
        left -= step;
        from = 0;
    }
    return n - left;
}

size_t buf_find(const struct buf *b, size_t from, char c) {
    size_t before = 0; /* bytes in the slices passed */
    for (uint32_t i = 0; i < b->count_; i++) {
        const struct slice *s = buf_slice(b, i);
        if (from < before + s->n) {
            size_t skip = from > before ? from - before : 0;
            size_t at = sv_find(sv_from(s->p + skip, s->n - skip), c);
            if (at != SIZE_MAX) {
                return before + skip + at;
            }
        }
        before += s->n;
    }
    return SIZE_MAX;
}

int buf_iov(const struct buf *b, struct iovec *iov, int max, size_t *bytes) {
    int n = 0;
    *bytes = 0;
    for (; n < max && (uint32_t)n < b->count_; n++) {
        const struct slice *s = buf_slice(b, (size_t)n);
        iov[n] = (struct iovec){.iov_base = (void *)(uintptr_t)s->p, .iov_len = s->n};
        *bytes += s->n;
    }
    return n;
}

char *buf_dup_str(const struct buf *b) {
    char *text = xalloc(b->len_ + 1);
    text[buf_peek(b, 0, text, b->len_)] = '\0';
    return text;
}
