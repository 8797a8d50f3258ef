/* Bump allocation from a chain of blocks.
 * Threads: one owner at a time.
 * Not here: the fast path (inline in arena.h). */
#include "proxy/base/arena.h"

#include <stdio.h>
#include <string.h>

#define BLOCK_MIN_BYTES 128u
#define BLOCK_DEFAULT_BYTES 4096u
#define BLOCK_MAX_BYTES (64u * 1024) /* well below what malloc maps by itself */
#define TRIM_MIN_BYTES 48u

struct arena_block {
    struct arena_block *next; /* older */
    size_t bytes : 63;        /* of data */
    bool is_regular : 1;      /* not made for one large object */
    char data[] __attribute__((aligned(8)));
};

struct arena_cleanup {
    struct arena_cleanup *next; /* registered before */
    void (*fn)(void *arg);
    void *arg;
};

void arena_init(struct arena *a, size_t block_bytes) {
    size_t bytes = block_bytes > BLOCK_MIN_BYTES ? block_bytes : BLOCK_MIN_BYTES;
    ASSERT(bytes < 1u << 24);
    *a = (struct arena){.block_bytes_ =
                            block_bytes ? (bytes + 7) & ~(size_t)7 : BLOCK_DEFAULT_BYTES};
}

static void run_cleanups(struct arena *a) {
    while (a->cleanups_) {
        struct arena_cleanup *c = a->cleanups_;
        a->cleanups_ = c->next;
        c->fn(c->arg);
    }
}

/* Free every block but `keep` (may be NULL). */
static void free_blocks(struct arena *a, const struct arena_block *keep) {
    for (struct arena_block *b = a->head_, *next; b; b = next) {
        next = b->next;
        if (b != keep) {
            xfree(b);
        }
    }
}

void arena_fini(struct arena *a) {
    run_cleanups(a);
    free_blocks(a, NULL);
    *a = (struct arena){.block_bytes_ = a->block_bytes_};
}

/* Make `b` the block that is being filled. */
static void use_block(struct arena *a, struct arena_block *b) {
    a->head_ = b;
    a->cur_ = b->data;
    a->end_ = b->data + b->bytes;
    MEM_POISON(b->data, b->bytes);
}

void arena_reset(struct arena *a) {
    run_cleanups(a);
    struct arena_block *first = a->head_;
    while (first && !(first->is_regular && first->bytes + sizeof(*first) == a->block_bytes_)) {
        first = first->next;
    }
    free_blocks(a, first);
    *a = (struct arena){.block_bytes_ = a->block_bytes_};
    if (first) {
        first->next = NULL;
        a->used_bytes_ = a->block_bytes_;
        use_block(a, first);
    }
}

/* Blocks grow with the arena, a quarter of it at most: few blocks in large ones, little waste in
 * any. */
static size_t regular_bytes(const struct arena *a, size_t least) {
    size_t quarter = a->used_bytes_ / 4 & ~(size_t)7;
    size_t bytes = quarter < BLOCK_MAX_BYTES ? quarter : BLOCK_MAX_BYTES;
    return bytes > least ? bytes : least;
}

static struct arena_block *new_block(struct arena *a, size_t bytes, bool is_regular) {
    struct arena_block *b = xalloc(bytes);
    b->bytes = bytes - sizeof(*b);
    b->is_regular = is_regular;
    a->used_bytes_ += bytes;
    return b;
}

void *arena_alloc_slow(struct arena *a, size_t n) {
    CHECK(n <= SIZE_MAX / 2);
    size_t need = (n + MEM_REDZONE + 7) & ~(size_t)7;
    size_t least = a->block_bytes_ ? a->block_bytes_ : BLOCK_DEFAULT_BYTES;
    /* Large objects get a block of their own, behind the one being filled, which stays in use. */
    if (need > least / 4) {
        struct arena_block *own = new_block(a, sizeof(*own) + need, false);
        struct arena_block **at = a->head_ ? &a->head_->next : &a->head_;
        own->next = *at;
        *at = own;
        MEM_POISON(own->data + n, need - n);
        return own->data;
    }
    struct arena_block *b = new_block(a, regular_bytes(a, least), true);
    b->next = a->head_;
    use_block(a, b);
    return arena_alloc(a, n);
}

/* The C library makes a block smaller where it is; a sanitizer's would move it. */
void arena_trim(struct arena *a) {
    struct arena_block *b = a->head_;
    if (MEM_IS_SANITIZED || !b || !b->is_regular || (size_t)(a->end_ - a->cur_) < TRIM_MIN_BYTES) {
        return;
    }
    size_t used = (size_t)(a->cur_ - b->data);
    const struct arena_block *same = xrealloc(b, sizeof(*b) + used);
    CHECK(same == b);
    a->used_bytes_ -= b->bytes - used;
    b->bytes = used;
    a->end_ = a->cur_;
}

void *arena_zalloc(struct arena *a, size_t n) {
    void *p = arena_alloc(a, n);
    return memset(p, 0, n);
}

void *arena_zalloc_array(struct arena *a, size_t n, size_t size) {
    size_t total;
    CHECK(!__builtin_mul_overflow(n, size, &total));
    return arena_zalloc(a, total);
}

char *arena_cstr(struct arena *a, sv s) {
    char *p = arena_alloc(a, s.n + 1);
    if (s.n) {
        memcpy(p, s.p, s.n);
    }
    p[s.n] = '\0';
    return p;
}

sv arena_sv(struct arena *a, sv s) { return sv_from(arena_cstr(a, s), s.n); }

sv arena_vprintf(struct arena *a, const char *fmt, va_list ap) {
    char text[256];
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    CHECK(n >= 0);
    char *p = arena_alloc(a, (size_t)n + 1);
    if ((size_t)n < sizeof(text)) {
        memcpy(p, text, (size_t)n + 1);
    } else {
        vsnprintf(p, (size_t)n + 1, fmt, again);
    }
    va_end(again);
    return sv_from(p, (size_t)n);
}

sv arena_printf(struct arena *a, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    sv s = arena_vprintf(a, fmt, ap);
    va_end(ap);
    return s;
}

void arena_on_fini(struct arena *a, void (*fn)(void *arg), void *arg) {
    struct arena_cleanup *c = arena_new(a, struct arena_cleanup);
    *c = (struct arena_cleanup){a->cleanups_, fn, arg};
    a->cleanups_ = c;
}

size_t arena_bytes(const struct arena *a) { return a->used_bytes_; }

static bool holds(const struct arena *a, const char *p) {
    for (const struct arena_block *b = a->head_; b; b = b->next) {
        if (p >= b->data && p < b->data + b->bytes) {
            return true;
        }
    }
    return false;
}

/* Objects are 8-byte aligned, and so are the pointers in them. */
NO_SANITIZE_ADDRESS void arena_check_apart(const struct arena *kept, const struct arena *scratch) {
    if (!MEM_TELLS_UNUSED) { /* unused words may be anything, old pointers too */
        return;
    }
    for (const struct arena_block *b = kept->head_; b; b = b->next) {
        for (size_t i = 0; i + sizeof(char *) <= b->bytes; i += sizeof(char *)) {
            const char *const *word = (const char *const *)(const void *)(b->data + i);
            CHECK(MEM_IS_POISONED(word) || !holds(scratch, *word));
        }
    }
}
