/* The intrusive list. */
#include "proxy/base/list.h"

#include "tests/support/unit.h"

struct item {
    char name;
    struct list link;
};

static struct item items[5];

static int make_items(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(items); i++) {
        items[i] = (struct item){.name = (char)('a' + i)};
    }
    return 0;
}

/* Forwards and backwards. */
static void assert_order(const struct list *l, const char *want) {
    char names[8];
    size_t n = 0;
    for (const struct list *it = l->next; it != l; it = it->next) {
        names[n++] = LIST_ENTRY(it, struct item, link)->name;
        assert_ptr_equal(it->next->prev, it);
        assert_ptr_equal(it->prev->next, it);
    }
    assert_sv(sv_from(names, n), sv_cstr(want));
}

static void test_push_and_pop(void **state) {
    (void)state;
    struct list l;
    list_init(&l);
    assert_true(list_empty(&l));
    assert_null(list_first(&l));
    assert_null(list_last(&l));
    assert_null(list_pop_front(&l));
    list_push_back(&l, &items[1].link);
    list_push_back(&l, &items[2].link);
    list_push_front(&l, &items[0].link);
    list_insert_before(&items[2].link, &items[3].link);
    assert_order(&l, "abdc");
    assert_ptr_equal(list_first(&l), &items[0].link);
    assert_ptr_equal(list_last(&l), &items[2].link);
    assert_ptr_equal(list_pop_front(&l), &items[0].link);
    assert_false(list_linked(&items[0].link));
    assert_order(&l, "bdc");
}

static void test_unlink(void **state) {
    (void)state;
    struct list l;
    list_init(&l);
    list_unlink(&items[0].link); /* never linked: nothing happens */
    for (size_t i = 0; i < 3; i++) {
        list_push_back(&l, &items[i].link);
        assert_true(list_linked(&items[i].link));
    }
    list_unlink(&items[1].link);
    assert_order(&l, "ac");
    assert_null(items[1].link.next);
    assert_null(items[1].link.prev);
    list_unlink(&items[1].link);
    list_push_front(&l, &items[1].link);
    assert_order(&l, "bac");
}

static void test_remove_while_walking(void **state) {
    (void)state;
    struct list l;
    list_init(&l);
    LIST_FOREACH_SAFE (it, &l) {
        fail();
    }
    for (size_t i = 0; i < ARRAY_LEN(items); i++) {
        list_push_back(&l, &items[i].link);
    }
    LIST_FOREACH_SAFE (it, &l) {
        if (LIST_ENTRY(it, struct item, link)->name % 2) {
            list_unlink(it);
        }
    }
    assert_order(&l, "bd");
    size_t n = 0;
    LIST_FOREACH (it, &l) {
        n++;
    }
    assert_int_equal(n, 2);
    LIST_FOREACH_SAFE (it, &l) {
        list_unlink(it);
    }
    assert_true(list_empty(&l));
}

static void test_splice(void **state) {
    (void)state;
    struct list a, b;
    list_init(&a);
    list_init(&b);
    list_splice_back(&a, &b);
    assert_true(list_empty(&a));
    list_push_back(&b, &items[0].link);
    list_push_back(&b, &items[1].link);
    list_splice_back(&a, &b);
    assert_order(&a, "ab");
    assert_true(list_empty(&b));
    list_push_back(&b, &items[2].link);
    list_splice_back(&a, &b);
    assert_order(&a, "abc");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_push_and_pop, make_items),
        cmocka_unit_test_setup(test_unlink, make_items),
        cmocka_unit_test_setup(test_remove_while_walking, make_items),
        cmocka_unit_test_setup(test_splice, make_items),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
