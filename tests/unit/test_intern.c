/* Tables of shared objects: one by key, counted, gone with the last use; safe among threads. */
#include <pthread.h>

#include "proxy/base/intern.h"
#include "proxy/base/mem.h"
#include "tests/support/unit.h"

static void one_by_key(void **state) {
    (void)state;
    struct intern_table t = INTERN_TABLE_INIT;
    struct interned a = {.key = SV("a")}, b = {.key = SV("b")}, again = {.key = SV("a")},
                    none = {.key = SV("")};
    assert_null(intern_find(&t, SV("a")));
    assert_ptr_equal(intern_add(&t, &a), &a);
    assert_ptr_equal(intern_add(&t, &b), &b);
    assert_ptr_equal(intern_add(&t, &again), &a);
    assert_ptr_equal(intern_find(&t, SV("a")), &a);
    assert_null(intern_find(&t, SV("")));
    assert_null(intern_find(&t, SV("ab")));
    assert_ptr_equal(intern_add(&t, &none), &none);
    assert_ptr_equal(intern_find(&t, SV("")), &none);
    /* three uses of a, two of none, one of b */
    assert_false(intern_release(&t, &a));
    assert_false(intern_release(&t, &a));
    assert_true(intern_release(&t, &a));
    assert_null(intern_find(&t, SV("a")));
    assert_ptr_equal(intern_add(&t, &again), &again);
    assert_false(intern_release(&t, &none));
    assert_true(intern_release(&t, &none));
    assert_true(intern_release(&t, &b));
    assert_true(intern_release(&t, &again));
    assert_null(intern_find(&t, SV("b")));
}

/* --- threads --- */

#define ROUNDS 5000
static struct intern_table shared = INTERN_TABLE_INIT;

struct object {
    struct interned interned;
    uint64_t mark;
};

static void *use_and_release(void *arg) {
    uintptr_t bad = 0;
    (void)arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct interned *got = intern_find(&shared, SV("key"));
        if (!got) {
            struct object *o = xnew(struct object);
            *o = (struct object){.interned = {.key = SV("key")}, .mark = 7};
            got = intern_add(&shared, &o->interned);
            if (got != &o->interned) {
                xfree(o);
            }
        }
        struct object *o = CONTAINER_OF(got, struct object, interned);
        bad += o->mark != 7;
        if (intern_release(&shared, got)) {
            o->mark = 0;
            xfree(o);
        }
    }
    return (void *)bad;
}

static void among_threads(void **state) {
    (void)state;
    pthread_t threads[3];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use_and_release, NULL), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        void *bad;
        assert_int_equal(pthread_join(threads[i], &bad), 0);
        assert_null(bad);
    }
    assert_null(intern_find(&shared, SV("key")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_by_key),
        cmocka_unit_test(among_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
