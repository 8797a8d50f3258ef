/* Slice chains: each operation by itself, then random sequences beside a flat model. */
#include "proxy/base/buf.h"

#include "proxy/base/mem.h"
#include "proxy/base/rand.h"
#include "tests/support/unit.h"

static void assert_text(const struct buf *b, const char *want) {
    char *text = buf_dup_str(b);
    assert_string_equal(text, want);
    assert_int_equal(buf_len(b), strlen(want));
    xfree(text);
}

static int free_caches(void **state) {
    (void)state;
    chunk_cache_trim();
    return 0;
}

/* A buf of one slice per letter of `text`, none of which can be joined. */
static void fill_scattered(struct buf *b, const char *text) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    for (; *text; text++) {
        buf_append_static(b, sv_from(&letters[*text - 'A'], 1));
    }
}

/* ---- chunks ---- */

static void test_chunk_reuse(void **state) {
    (void)state;
    static const size_t sizes[] = {CHUNK_SMALL_BYTES, CHUNK_READ_BYTES};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct chunk *c = chunk_new(sizes[i]);
        c->used = 5;
        chunk_unref(chunk_ref(c));
        chunk_unref(c);
        struct chunk *again = chunk_new(sizes[i]);
        assert_row(again == c && again->used == 0 && again->refs == 1, i);
        memset(again->data, 1, again->cap);
        chunk_unref(again);
    }
    struct chunk *odd = chunk_new(100);
    assert_int_equal(odd->cap, 100);
    chunk_unref(odd);
    chunk_unref(chunk_new(0));
}

static void test_chunk_cache_is_bounded(void **state) {
    (void)state;
    struct chunk *c[300];
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        c[i] = chunk_new(i % 10 ? CHUNK_SMALL_BYTES : CHUNK_READ_BYTES);
    }
    for (size_t i = 0; i < ARRAY_LEN(c); i++) {
        chunk_unref(c[i]);
    }
    chunk_cache_trim();
    chunk_cache_trim();
}

/* ---- appending ---- */

static void test_zeroed_is_empty(void **state) {
    (void)state;
    struct buf b = {0}, other BUF_AUTO;
    buf_init(&other);
    assert_true(buf_empty(&b));
    assert_text(&b, "");
    assert_int_equal(buf_front(&b).n, 0);
    buf_clear(&b);
    buf_compact(&b);
    buf_drain(&b, 0);
    buf_move(&other, &b);
    assert_true(buf_find(&b, 0, 'x') == SIZE_MAX);
    buf_lit(&b, "x");
    assert_text(&b, "x");
    buf_fini(&b);
    buf_fini(&b);
    struct buf target = {0};
    fill_scattered(&other, "AAAAAA"); /* on the heap: its ring is taken over */
    buf_move(&target, &other);
    assert_text(&target, "AAAAAA");
    buf_fini(&target);
}

static void test_append_joins(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    buf_append(&b, NULL, 0);
    buf_append_sv(&b, SV_NULL);
    assert_int_equal(buf_slices(&b), 0);
    buf_lit(&b, "GET ");
    buf_append_sv(&b, SV("/"));
    buf_append_static(&b, SV(" HTTP/1.1")); /* short: copied where there is room */
    buf_printf(&b, "%s", "\r\n");
    assert_int_equal(buf_slices(&b), 1);
    assert_text(&b, "GET / HTTP/1.1\r\n");
    assert_sv_is(buf_front(&b), "GET / HTTP/1.1\r\n");
}

static void test_append_long(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 4079, 4080, 4081, 65520, 65521, 300000};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct buf b BUF_AUTO;
        buf_init(&b);
        char *text = xalloc(sizes[i]);
        for (size_t k = 0; k < sizes[i]; k++) {
            text[k] = (char)(k * 7 + k / 251);
        }
        buf_lit(&b, "<");
        buf_append(&b, text, sizes[i]);
        buf_lit(&b, ">");
        assert_row(buf_len(&b) == sizes[i] + 2, i);
        char *all = buf_dup_str(&b);
        assert_row(memcmp(all + 1, text, sizes[i]) == 0 && all[sizes[i] + 1] == '>', i);
        xfree(all);
        xfree(text);
    }
}

static void test_append_static_long(void **state) {
    (void)state;
    static char text[BUF_COALESCE_MAX + 1];
    struct buf b BUF_AUTO;
    buf_init(&b);
    buf_lit(&b, "x");
    buf_append_static(&b, sv_from(text, sizeof(text)));
    assert_int_equal(buf_slices(&b), 2);
    assert_ptr_equal(buf_slice(&b, 1)->p, text);
    assert_null(buf_slice(&b, 1)->chunk);
}

static void test_append_slice_joins_and_refs(void **state) {
    (void)state;
    struct chunk *c = chunk_new(CHUNK_READ_BYTES);
    c->used = 3000;
    memset(c->data, 'x', c->used);
    struct buf b BUF_AUTO;
    buf_init(&b);
    buf_append_slice(&b, c, c->data, 1000);
    buf_append_slice(&b, c, c->data + 1000, 500); /* follows: the same slice */
    assert_int_equal(buf_slices(&b), 1);
    assert_int_equal(c->refs, 2);
    buf_append_slice(&b, c, c->data + 2000, 500);
    buf_append_slice(&b, c, c->data + 2500, 0);
    assert_int_equal(buf_slices(&b), 2);
    assert_int_equal(c->refs, 3);
    buf_lit(&b, "y"); /* the last slice does not end at used: its chunk must not be written */
    assert_int_equal(c->used, 3000);
    assert_int_equal(c->data[2500], 'x');
    buf_fini(&b);
    assert_int_equal(c->refs, 1);
    chunk_unref(c);
}

static void test_only_one_holder_appends(void **state) {
    (void)state;
    struct buf a BUF_AUTO, b BUF_AUTO;
    buf_init(&a);
    buf_init(&b);
    buf_lit(&a, "common");
    buf_copy_to(&a, &b);
    assert_ptr_equal(buf_slice(&a, 0)->chunk, buf_slice(&b, 0)->chunk);
    buf_lit(&a, "-a");
    buf_lit(&b, "-b");
    buf_lit(&a, "-a");
    assert_text(&a, "common-a-a");
    assert_text(&b, "common-b");
}

static void test_append_keep(void **state) {
    (void)state;
    static const struct {
        size_t cap, n;
        bool is_copied;
    } rows[] = {
        {CHUNK_READ_BYTES, 1, true},
        {CHUNK_READ_BYTES, 8190, true},
        {CHUNK_READ_BYTES, 8191, false},
        {CHUNK_READ_BYTES, CHUNK_READ_BYTES, false},
        {CHUNK_SMALL_BYTES, BUF_COPY_MAX, true},
        {CHUNK_SMALL_BYTES, BUF_COPY_MAX + 1, false},
        {100, 50, true},
        {100, 51, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct chunk *c = chunk_new(rows[i].cap);
        memset(c->data, 'x', c->cap);
        c->used = c->cap;
        struct buf b BUF_AUTO;
        buf_init(&b);
        buf_append_keep(&b, c, c->data, rows[i].n);
        assert_row((buf_slice(&b, 0)->chunk != c) == rows[i].is_copied, i);
        assert_row(buf_len(&b) == rows[i].n, i);
        buf_append_keep(&b, NULL, "y", 1);
        chunk_unref(c);
        assert_row(buf_find(&b, 0, 'y') == rows[i].n, i);
    }
}

static void test_printf(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    buf_printf(&b, "%s", "");
    assert_int_equal(buf_slices(&b), 0); /* no empty slice is left */
    static const int widths[] = {1, 255, 256, 257, 4079, 4080, 5000};
    size_t len = 0;
    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        buf_printf(&b, "%*d", widths[i], 7);
        len += (size_t)widths[i];
        char last = 0;
        assert_row(buf_len(&b) == len, i);
        assert_row(buf_peek(&b, len - 1, &last, 1) == 1 && last == '7', i);
    }
}

static void test_reserve_commit(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    buf_reserve(&b, 10);
    buf_commit(&b, 0);
    assert_int_equal(buf_slices(&b), 0);
    buf_commit(&b, 0);
    memcpy(buf_reserve(&b, 3), "abc", 3);
    buf_commit(&b, 2);
    assert_text(&b, "ab");
    buf_reserve(&b, CHUNK_SMALL_BYTES); /* does not fit behind "ab" */
    buf_commit(&b, 0);
    assert_int_equal(buf_slices(&b), 1);
    memset(buf_reserve(&b, 100000), 'x', 100000);
    buf_commit(&b, 100000);
    assert_int_equal(buf_len(&b), 100002);
}

static void commit_too_much(void) {
    struct buf b;
    buf_init(&b);
    buf_reserve(&b, 10);
    buf_commit(&b, CHUNK_SMALL_BYTES + 1);
}

static void drain_too_much(void) {
    struct buf b = {0};
    buf_drain(&b, 1);
}

static void pull_up_too_much(void) {
    struct buf b = {0};
    buf_pullup(&b, 1);
}

static void test_misuse_aborts(void **state) {
    (void)state;
    assert_true(aborts(commit_too_much));
    assert_true(aborts(drain_too_much));
    assert_true(aborts(pull_up_too_much));
}

/* ---- moving ---- */

static void test_move(void **state) {
    (void)state;
    struct buf a BUF_AUTO, b BUF_AUTO;
    buf_init(&a);
    buf_init(&b);
    buf_move(&a, &b);
    fill_scattered(&b, "BCDEFGH");
    buf_move(&a, &b); /* takes the whole ring */
    assert_text(&a, "BCDEFGH");
    assert_text(&b, "");
    buf_lit(&b, "x");
    buf_move(&a, &b);
    buf_lit(&b, "y");
    buf_move(&a, &b); /* short, and there is room: copied */
    assert_text(&a, "BCDEFGHxy");
    assert_int_equal(buf_slices(&a), 8);
}

static void test_many_small_moves_share_chunks(void **state) {
    (void)state;
    struct buf a BUF_AUTO, b BUF_AUTO;
    buf_init(&a);
    buf_init(&b);
    for (int i = 0; i < 4000; i++) {
        buf_lit(&b, "x");
        buf_move(&a, &b);
    }
    assert_int_equal(buf_len(&a), 4000);
    assert_int_equal(buf_slices(&a), 1);
}

static void test_move_n_splits(void **state) {
    (void)state;
    struct chunk *c = chunk_new(2000);
    memset(c->data, 'x', c->cap);
    c->used = c->cap;
    struct buf a BUF_AUTO, b BUF_AUTO;
    buf_init(&a);
    buf_init(&b);
    buf_append_slice(&a, c, c->data, 2000);
    chunk_unref(c);
    buf_move_n(&b, &a, 0);
    assert_int_equal(buf_slices(&b), 0);
    buf_move_n(&b, &a, 1500);
    assert_int_equal(c->refs, 2);
    assert_ptr_equal(buf_slice(&a, 0)->p, c->data + 1500);
    buf_move_n(&b, &a, 500); /* follows in the chunk: joined again */
    assert_int_equal(c->refs, 1);
    assert_int_equal(buf_slices(&b), 1);
    assert_true(buf_empty(&a));
}

static void test_prepend(void **state) {
    (void)state;
    struct buf a BUF_AUTO, b BUF_AUTO;
    buf_init(&a);
    buf_init(&b);
    buf_prepend_buf(&a, &b);
    fill_scattered(&a, "FG");
    fill_scattered(&b, "ABCDE");
    buf_prepend_buf(&a, &b);
    assert_text(&a, "ABCDEFG");
    assert_text(&b, "");
    buf_lit(&b, "<");
    buf_prepend_buf(&a, &b);
    assert_text(&a, "<ABCDEFG");
}

static void test_drain(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    for (int round = 0; round < 20; round++) { /* the ring wraps */
        fill_scattered(&b, "ABC");
        buf_drain(&b, 3);
        fill_scattered(&b, "DE");
        assert_text(&b, "DE");
        buf_drain(&b, 1);
        assert_text(&b, "E");
        buf_drain(&b, 1);
    }
    for (int i = 0; i < 100; i++) {
        fill_scattered(&b, "ABC");
    }
    buf_drain(&b, 300);
    assert_ptr_equal(b.v_, b.inline_); /* a large ring goes back */
    buf_lit(&b, "abcdef");
    buf_drain(&b, 2);
    assert_text(&b, "cdef");
}

static void test_compact(void **state) {
    (void)state;
    struct chunk *big = chunk_new(CHUNK_READ_BYTES);
    memset(big->data, 'x', big->cap);
    big->used = big->cap;
    struct buf b BUF_AUTO;
    buf_init(&b);
    buf_append_slice(&b, big, big->data, 10);
    buf_append_slice(&b, big, big->data + 100, 10);
    buf_append_static(&b, SV("static"));
    buf_append_slice(&b, big, big->data + 200, 20000); /* long enough to stay */
    buf_append_slice(&b, big, big->data + 30000, 10);  /* and this with it */
    assert_int_equal(buf_slices(&b), 5);
    buf_compact(&b);
    assert_int_equal(buf_slices(&b), 4);
    assert_int_equal(buf_slice(&b, 0)->chunk->cap, 20);
    assert_null(buf_slice(&b, 1)->chunk);
    assert_ptr_equal(buf_slice(&b, 2)->chunk, big);
    assert_int_equal(buf_len(&b), 20036);
    assert_int_equal(big->refs, 3);
    const struct chunk *copied = buf_slice(&b, 0)->chunk;
    buf_compact(&b); /* nothing left to do */
    assert_ptr_equal(buf_slice(&b, 0)->chunk, copied);
    chunk_unref(big);
}

/* ---- reading ---- */

static void test_pullup(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    assert_int_equal(buf_pullup(&b, 0).n, 0);
    fill_scattered(&b, "ABCDEF");
    assert_sv_is(buf_pullup(&b, 1), "A");
    assert_int_equal(buf_slices(&b), 6);
    assert_sv_is(buf_pullup(&b, 3), "ABC");
    const char *first = buf_front(&b).p;
    assert_sv_is(buf_pullup(&b, 5), "ABCDE"); /* grows in place */
    assert_ptr_equal(buf_front(&b).p, first);
    assert_sv_is(buf_pullup(&b, 6), "ABCDEF");
    assert_int_equal(buf_slices(&b), 1);
    assert_text(&b, "ABCDEF");
}

static void test_pullup_leaves_sharers_alone(void **state) {
    (void)state;
    struct buf a BUF_AUTO, b BUF_AUTO;
    buf_init(&a);
    buf_init(&b);
    buf_lit(&a, "ab");
    buf_copy_to(&a, &b);
    fill_scattered(&a, "C");
    buf_lit(&b, "x");
    assert_sv_is(buf_pullup(&a, 3), "abC");
    assert_text(&b, "abx");
}

static void test_find_peek_iov(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    fill_scattered(&b, "ABCABC");
    static const struct {
        size_t from;
        char c;
        size_t at;
    } rows[] = {
        {0, 'A', 0},        {1, 'A', 3},        {4, 'A', SIZE_MAX},
        {5, 'C', 5},        {6, 'C', SIZE_MAX}, {SIZE_MAX, 'A', SIZE_MAX},
        {0, 'x', SIZE_MAX},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(buf_find(&b, rows[i].from, rows[i].c) == rows[i].at, i);
    }
    char out[8] = {0};
    assert_int_equal(buf_peek(&b, 2, out, 3), 3);
    assert_string_equal(out, "CAB");
    assert_int_equal(buf_peek(&b, 5, out, 8), 1);
    assert_int_equal(buf_peek(&b, 6, out, 8), 0);
    struct iovec iov[4];
    size_t bytes;
    assert_int_equal(buf_iov(&b, iov, 4, &bytes), 4);
    assert_int_equal(bytes, 4);
    assert_int_equal(((char *)iov[3].iov_base)[0], 'A');
    assert_int_equal(buf_iov(&b, iov, 0, &bytes), 0);
    assert_int_equal(bytes, 0);
}

/* ---- random sequences ---- */

#define MODEL_MAX (1u << 18)
struct model {
    struct buf b;
    char *p; /* what b must hold */
    size_t n;
};
struct world {
    struct rng rng;
    struct model m[2];
    struct chunk *shared; /* a read chunk whose pieces go to both bufs */
    char source[8192];
};

static void model_add(struct model *m, const char *p, size_t n) {
    assert_true(m->n + n <= MODEL_MAX);
    memcpy(m->p + m->n, p, n);
    m->n += n;
}

static void model_drop(struct model *m, size_t n) {
    memmove(m->p, m->p + n, m->n - n);
    m->n -= n;
}

static size_t some(struct world *w, size_t max) {
    size_t n = rng_below(&w->rng, 4) ? rng_below(&w->rng, 40) : rng_below(&w->rng, max + 1);
    return n < max ? n : max;
}

static void op_append(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t n = some(w, sizeof(w->source));
    buf_append(&m->b, w->source, n);
    model_add(m, w->source, n);
}

static void op_static(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t n = some(w, 1000) + 1;
    buf_append_static(&m->b, sv_from(w->source + 100, n));
    model_add(m, w->source + 100, n);
}

/* Receive into the shared chunk, as a worker does, and hand out a piece. */
static void op_receive(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t n = some(w, 4000);
    if (w->shared->cap - w->shared->used < n) {
        chunk_unref(w->shared);
        w->shared = chunk_new(CHUNK_READ_BYTES);
    }
    char *p = w->shared->data + w->shared->used;
    memcpy(p, w->source, n);
    w->shared->used += (uint32_t)n;
    if (rng_below(&w->rng, 2)) {
        buf_append_slice(&m->b, w->shared, p, n);
    } else {
        buf_append_keep(&m->b, w->shared, p, n);
    }
    model_add(m, p, n);
}

static void op_reserve(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t n = some(w, 6000) + 1;
    size_t used = rng_below(&w->rng, n + 1);
    memcpy(buf_reserve(&m->b, n), w->source, used);
    buf_commit(&m->b, used);
    model_add(m, w->source, used);
}

static void op_printf(struct world *w, struct model *m, struct model *other) {
    (void)other;
    int n = (int)some(w, 3000);
    buf_printf(&m->b, "%.*s|", n, w->source);
    model_add(m, w->source, (size_t)n);
    model_add(m, "|", 1);
}

static void op_move(struct world *w, struct model *m, struct model *other) {
    (void)w;
    buf_move(&m->b, &other->b);
    model_add(m, other->p, other->n);
    other->n = 0;
}

static void op_move_n(struct world *w, struct model *m, struct model *other) {
    size_t n = some(w, other->n);
    buf_move_n(&m->b, &other->b, n);
    model_add(m, other->p, n);
    model_drop(other, n);
}

static void op_prepend(struct world *w, struct model *m, struct model *other) {
    (void)w;
    buf_prepend_buf(&m->b, &other->b);
    model_add(other, m->p, m->n);
    char *swap = m->p;
    m->p = other->p;
    m->n = other->n;
    other->p = swap;
    other->n = 0;
}

static void op_copy(struct world *w, struct model *m, struct model *other) {
    (void)w;
    buf_copy_to(&other->b, &m->b);
    model_add(m, other->p, other->n);
}

static void op_drain(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t n = some(w, m->n);
    buf_drain(&m->b, n);
    model_drop(m, n);
}

static void op_pullup(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t n = some(w, m->n);
    assert_sv(buf_pullup(&m->b, n), sv_from(m->p, n));
}

static void op_compact(struct world *w, struct model *m, struct model *other) {
    (void)w, (void)other;
    buf_compact(&m->b);
}

static void op_find(struct world *w, struct model *m, struct model *other) {
    (void)other;
    size_t from = rng_below(&w->rng, m->n + 2);
    char c = (char)rng_below(&w->rng, 256);
    size_t at = sv_find(sv_skip(sv_from(m->p, m->n), from), c);
    assert_int_equal(buf_find(&m->b, from, c), at == SIZE_MAX ? at : at + from);
}

static void (*const ops[])(struct world *, struct model *, struct model *) = {
    op_append,  op_append, op_append, op_static, op_receive, op_receive,
    op_reserve, op_printf, op_move,   op_move_n, op_move_n,  op_prepend,
    op_copy,    op_drain,  op_drain,  op_pullup, op_compact, op_find,
};

static void check_model(const struct model *m) {
    size_t at = 0;
    assert_int_equal(buf_len(&m->b), m->n);
    for (size_t i = 0; i < buf_slices(&m->b); i++) {
        const struct slice *s = buf_slice(&m->b, i);
        assert_true(s->n > 0 && at + s->n <= m->n);
        assert_memory_equal(s->p, m->p + at, s->n);
        at += s->n;
    }
    assert_int_equal(at, m->n);
}

static void play(struct world *w, unsigned steps) {
    for (unsigned i = 0; i < steps; i++) {
        unsigned which = (unsigned)rng_below(&w->rng, 2);
        struct model *m = &w->m[which], *other = &w->m[!which];
        if (m->n + other->n > MODEL_MAX / 2 - sizeof(w->source)) {
            buf_drain(&m->b, m->n);
            model_drop(m, m->n);
        }
        ops[rng_below(&w->rng, ARRAY_LEN(ops))](w, m, other);
        check_model(m);
        check_model(other);
    }
}

static void test_random_sequences(void **state) {
    (void)state;
    struct world *w = xnew(struct world);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        rng_seed(&w->rng, seed);
        for (size_t i = 0; i < sizeof(w->source); i++) {
            w->source[i] = (char)(1 + rng_below(&w->rng, 255)); /* no NUL: goes through printf */
        }
        w->shared = chunk_new(CHUNK_READ_BYTES);
        for (int i = 0; i < 2; i++) {
            buf_init(&w->m[i].b);
            w->m[i].p = xalloc(MODEL_MAX);
            w->m[i].n = 0;
        }
        play(w, 300);
        for (int i = 0; i < 2; i++) {
            buf_fini(&w->m[i].b);
            xfree(w->m[i].p);
        }
        assert_int_equal(w->shared->refs, 1);
        chunk_unref(w->shared);
    }
    xfree(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunk_reuse),
        cmocka_unit_test(test_chunk_cache_is_bounded),
        cmocka_unit_test(test_zeroed_is_empty),
        cmocka_unit_test(test_append_joins),
        cmocka_unit_test(test_append_long),
        cmocka_unit_test(test_append_static_long),
        cmocka_unit_test(test_append_slice_joins_and_refs),
        cmocka_unit_test(test_only_one_holder_appends),
        cmocka_unit_test(test_append_keep),
        cmocka_unit_test(test_printf),
        cmocka_unit_test(test_reserve_commit),
        cmocka_unit_test(test_misuse_aborts),
        cmocka_unit_test(test_move),
        cmocka_unit_test(test_many_small_moves_share_chunks),
        cmocka_unit_test(test_move_n_splits),
        cmocka_unit_test(test_prepend),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_compact),
        cmocka_unit_test(test_pullup),
        cmocka_unit_test(test_pullup_leaves_sharers_alone),
        cmocka_unit_test(test_find_peek_iov),
        cmocka_unit_test(test_random_sequences),
    };
    return cmocka_run_group_tests(tests, NULL, free_caches);
}
