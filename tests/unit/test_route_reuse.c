/* A table that replaces another: each virtual host with unchanged bytes is the former one's,
 * wherever the edit was, and what was edited is found. */
#include "proxy/base/vec.h"
#include "proxy/route/route_private.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

#define HOSTS 400u

/* Numbers of virtual hosts in order; a number stands for its bytes. */
struct edit {
    const char *what;
    void (*make)(unsigned *v, unsigned *n);
    unsigned compiled_max; /* virtual hosts that may be compiled anew */
};

static void put(unsigned *v, unsigned *n, unsigned at, unsigned number) {
    memmove(v + at + 1, v + at, (*n - at) * sizeof(*v));
    v[at] = number;
    (*n)++;
}
static void cut(unsigned *v, unsigned *n, unsigned at, unsigned count) {
    memmove(v + at, v + at + count, (*n - at - count) * sizeof(*v));
    *n -= count;
}

static void nothing(unsigned *v, unsigned *n) { (void)v, (void)n; }
static void change_first(unsigned *v, unsigned *n) { (void)n, v[0] = 1000; }
static void change_middle(unsigned *v, unsigned *n) { (void)n, v[200] = 1000; }
static void change_last(unsigned *v, unsigned *n) { v[*n - 1] = 1000; }
static void append(unsigned *v, unsigned *n) { put(v, n, *n, 1000); }
static void prepend(unsigned *v, unsigned *n) { put(v, n, 0, 1000); }
static void insert_three(unsigned *v, unsigned *n) {
    put(v, n, 100, 1000);
    put(v, n, 101, 1001);
    put(v, n, 102, 1002);
}
static void remove_first(unsigned *v, unsigned *n) { cut(v, n, 0, 1); }
static void remove_last(unsigned *v, unsigned *n) { cut(v, n, *n - 1, 1); }
static void remove_three(unsigned *v, unsigned *n) { cut(v, n, 50, 3); }
static void remove_many(unsigned *v, unsigned *n) { cut(v, n, 50, 200); }
static void replace_and_remove(unsigned *v, unsigned *n) {
    v[10] = 1000;
    cut(v, n, 20, 2);
    put(v, n, 300, 1001);
}
static void all_new(unsigned *v, unsigned *n) {
    for (unsigned i = 0; i < *n; i++) {
        v[i] = 1000 + i;
    }
}
static void reverse(unsigned *v, unsigned *n) {
    for (unsigned i = 0; i < *n / 2; i++) {
        unsigned other = v[*n - 1 - i];
        v[*n - 1 - i] = v[i];
        v[i] = other;
    }
}
static void last_comes_first(unsigned *v, unsigned *n) {
    unsigned last = v[*n - 1];
    cut(v, n, *n - 1, 1);
    put(v, n, 0, last);
}

static const struct edit edits[] = {
    {"nothing", nothing, 0},
    {"the first changes", change_first, 1},
    {"one changes", change_middle, 1},
    {"the last changes", change_last, 1},
    {"one more at the end", append, 1},
    {"one more at the beginning", prepend, 1},
    {"three more", insert_three, 3},
    {"the first goes", remove_first, 0},
    {"the last goes", remove_last, 0},
    {"three go", remove_three, 0},
    {"many go", remove_many, 64},
    {"several edits", replace_and_remove, 2},
    {"all are new", all_new, HOSTS},
    {"the other way round", reverse, 65},
    {"the last comes first", last_comes_first, 1},
};

static struct route_table *table_of(const unsigned *v, unsigned n, const struct route_table *prev) {
    struct buf text;
    buf_init(&text);
    buf_lit(&text, "name: 'r' ");
    for (unsigned i = 0; i < n; i++) {
        buf_printf(
            &text,
            "virtual_hosts { name: '%u' domains: 'h%u' routes { match { prefix: '/' } route { "
            "cluster: 'c' } } } ",
            v[i], v[i]);
    }
    char *s = buf_dup_str(&text);
    struct route_table *t = route_table_from(&f, s, prev);
    assert_non_null(t);
    xfree(s);
    buf_fini(&text);
    return t;
}

static bool holds(const struct route_table *t, const struct vhost *v) {
    for (unsigned i = 0; i < t->priv_->vhosts_n; i++) {
        if (t->priv_->vhosts[i] == v) {
            return true;
        }
    }
    return false;
}

static void edited(void **state) {
    (void)state;
    for (size_t e = 0; e < ARRAY_LEN(edits); e++) {
        unsigned v[HOSTS + 8], n = HOSTS, compiled = 0;
        for (unsigned i = 0; i < HOSTS; i++) {
            v[i] = i;
        }
        struct route_table *before = table_of(v, n, NULL);
        edits[e].make(v, &n);
        struct route_table *t = table_of(v, n, before);
        assert_int_equal(t->priv_->vhosts_n, n);
        for (unsigned i = 0; i < n; i++) {
            char name[16];
            snprintf(name, sizeof(name), "%u", v[i]);
            assert_sv_is(t->priv_->vhosts[i]->name, name);
            compiled += !holds(before, t->priv_->vhosts[i]);
        }
        if (compiled > edits[e].compiled_max) {
            fail_msg("%s: %u were compiled", edits[e].what, compiled);
        }
        shared_unref(&before->shared);
        shared_unref(&t->shared);
    }
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {TEST(edited)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
