/* Incremental subscriptions: changes of names, versions by resource, replies in order, reconnects.
 * Scenarios as text. */
#include "tests/support/discovery_script.h"

static void run_all(const char *const *scripts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        run_script(&delta_ops, scripts[i]);
    }
}

static void test_names(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "up; none; unwanted",
        "watch a; none; wanted",
        "watch a; up; expect sub=a; none",
        "watch b; watch a; up; expect sub=a,b; none",
        "watch a; watch a; up; expect sub=a; watch a; none",
        "watch a; up; expect sub=a; watch b; expect sub=b; none",
        "watch a; watch b; up; expect sub=a,b; unwatch a; expect unsub=a; none",
        "watch a; up; expect sub=a; unwatch a; unwanted; expect unsub=a; none",
        "watch a; up; expect sub=a; watch b; unwatch a; expect sub=b unsub=a; none",
        "watch a; unwatch a; up; none",
        "watch a; watch a; up; expect sub=a; unwatch a; none; unwatch a; expect unsub=a; none",
        "watch a; up; expect sub=a; unwatch a; watch a; expect sub=a; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; unwatch a; watch a; expect n=n1; expect sub=a; "
        "none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_wildcard(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch *; up; expect ; none; wanted",
        "watch *; watch a; up; expect sub=*,a; none",
        "watch *; up; expect ; watch a; expect sub=*,a; none; watch b; expect sub=b; none",
        "watch *; up; expect ; unwatch *; expect unsub=*; none",
        "watch *; watch a; up; expect sub=*,a; unwatch *; expect unsub=*; none",
        "watch *; watch a; up; expect sub=*,a; unwatch a; expect unsub=a; none",
        "watch a; up; expect sub=a; watch *; expect sub=*; none",
        "watch *; watch *; up; expect ; unwatch *; none",
        "watch *; up; expect ; unwatch *; expect unsub=*; watch *; expect sub=*; none",
        "watch *; up; expect ; down; up; expect ; none",
        /* fuzz_subscription: given up and wanted again is wanted anew, and nothing of it is
         * there */
        "watch *; up; expect ; unwatch *; watch *; expect sub=*; none",
        "watch *; up; expect ; resp n1 1 a@1; expect n=n1; unwatch *; watch *; down; up; expect ; "
        "none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_replies(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; resp n2 2 a@2; expect n=n1; expect n=n2; none",
        "watch a; up; expect sub=a; resp n1 1 a@1!; expect n=n1 err=bad; none",
        "watch a; up; expect sub=a; resp n1 1 a@1!; resp n2 2 a@2; expect n=n1 err=bad; expect "
        "n=n2; none",
        "watch a; up; expect sub=a; resp n1 1 err=type; expect n=n1 err=type; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; watch b; expect n=n1; expect sub=b; none",
        "watch a; up; expect sub=a; resp n1 1 -a; expect n=n1; none; wanted",
        "watch a; up; expect sub=a; resp n1 1; expect n=n1; none",
        "watch a; up; expect sub=a; unwatch a; expect unsub=a; resp n1 1 a@1; expect n=n1; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; down; up; expect sub=a init=a:1; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_reconnect(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch a; up; expect sub=a; down; none; up; expect sub=a; none",
        "watch a; watch b; up; expect sub=a,b; resp n1 1 a@1 b@7; expect n=n1; down; up; expect "
        "sub=a,b init=a:1,b:7; none",
        /* only what is in use has a version */
        "watch a; watch b; up; expect sub=a,b; resp n1 1 a@1 b@1!; expect n=n1 err=bad; down; up; "
        "expect sub=a,b init=a:1; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; resp n2 2 a@2!; expect n=n2 "
        "err=bad; down; up; "
        "expect sub=a init=a:1; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; resp n2 2 -a; expect n=n2; down; "
        "up; expect sub=a; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; unwatch a; expect unsub=a; watch "
        "a; expect sub=a; down; up; "
        "expect sub=a; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; resp n2 2 a~; expect n=n2; down; "
        "up; expect sub=a init=a:1",
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; expire a; down; up; expect sub=a; "
        "none",
        "watch a; up; expect sub=a; resp n1 1 b@1; expect n=n1; down; up; expect sub=a; none",
        "watch *; up; expect ; resp n1 1 a@1 b@2; expect n=n1; down; up; expect init=a:1,b:2; none",
        "watch *; up; expect ; resp n1 1 a@1; expect n=n1; resp n2 2 -a; expect n=n2; down; up; "
        "expect ; none",
        "watch *; up; expect ; resp n1 1 a@1; expect n=n1; unwatch *; expect unsub=*; down; watch "
        "*; up; expect ; none",
        "watch *; watch a; up; expect sub=*,a; resp n1 1 a@1; expect n=n1; unwatch a; expect "
        "unsub=a; down; up; "
        "expect init=a:1; none",
        "watch a; up; expect sub=a; down; unwatch a; up; none",
        "watch a; up; expect sub=a; unwatch a; down; up; none",
        "watch a; up; expect sub=a; resp n1 1 a@1; expect n=n1; down; unwatch a; watch a; up; "
        "expect sub=a; none",
        "watch a; up; expect sub=a; resp n1 1 a@; expect n=n1; down; up; expect sub=a init=a:; "
        "none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_unasked(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "drop n1; none",
        "up; drop n1; none",
        "watch a; up; drop n1; expect sub=a; none",
        "watch a; up; expect sub=a; down; drop n1; none",
        "watch a; up; expect sub=a; resp n1 1 -zz -; expect n=n1; none",
        "watch a; up; expect sub=a; expire zz; expire a; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_replies_due(void **state) {
    (void)state;
    struct subscription *s = delta_ops.make(RES_ENDPOINTS);
    delta_ops.watch(s, SV("a"));
    delta_ops.stream_up(s);
    struct buf BUF_AUTO out;
    buf_init(&out);
    delta_ops.next_request(s, SV_NULL, &out);
    struct discovery_response r = {.nonce = SV("n"), .type = RES_ENDPOINTS};
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(delta_ops.replies_due(s), i);
        assert_true(delta_ops.on_response(s, &r));
        delta_ops.on_verdict(s, &r, NULL, i % 2 ? SV("no") : SV_NULL);
    }
    delta_ops.stream_down(s);
    assert_int_equal(delta_ops.replies_due(s), 0);
    delta_ops.free(s);
    buf_fini(&out);
    chunk_cache_trim();
}

/* VHDS: a watched name brings, and keeps, what is below it. */
static void test_namespace(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch r; up; expect sub=r; resp n1 1 r/a@1 q/a@1; expect n=n1; down; up; expect sub=r "
        "init=r/a:1; none",
        "watch r; up; expect sub=r; resp n1 1 r/a@1; expect n=n1; resp n2 2 -r/a; expect n=n2; "
        "down; up; expect sub=r; none",
        /* given up: it must come again when it is wanted again */
        "watch r; up; expect sub=r; resp n1 1 r/a@1; expect n=n1; unwatch r; expect unsub=r; down; "
        "watch r; up; expect sub=r; none",
        "watch r; watch r/b; up; expect sub=r,r/b; resp n1 1 r/b@1; expect n=n1; unwatch r/b; "
        "expect unsub=r/b; watch r/b; expect sub=r/b; none",
    };
    script_type = RES_VIRTUAL_HOST;
    run_all(scripts, ARRAY_LEN(scripts));
    script_type = RES_ENDPOINTS;
}

/* LEDS: a watched collection brings, and keeps, its members. */
static void test_collection(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch xdstp://a/t/c/*; up; expect sub=xdstp://a/t/c/*; resp n1 1 xdstp://a/t/c/1@1 "
        "xdstp://a/t/d/1@1; expect n=n1; down; up; expect sub=xdstp://a/t/c/* "
        "init=xdstp://a/t/c/1:1; none",
        "watch xdstp://a/t/c/*; up; expect sub=xdstp://a/t/c/*; resp n1 1 xdstp://a/t/c/1@1; "
        "expect "
        "n=n1; resp n2 2 -xdstp://a/t/c/1; expect n=n2; down; up; expect sub=xdstp://a/t/c/*; none",
        "watch xdstp://a/t/c/*; up; expect sub=xdstp://a/t/c/*; resp n1 1 xdstp://a/t/c/1@1; "
        "expect "
        "n=n1; unwatch xdstp://a/t/c/*; expect unsub=xdstp://a/t/c/*; down; watch "
        "xdstp://a/t/c/*; up; expect sub=xdstp://a/t/c/*; none",
        /* below it, not in it */
        "watch xdstp://a/t/c/*; up; expect sub=xdstp://a/t/c/*; resp n1 1 xdstp://a/t/c/d/1@1; "
        "expect n=n1; down; up; expect sub=xdstp://a/t/c/*; none",
        "watch xdstp://a/t/c/*; up; expect sub=xdstp://a/t/c/*; resp n1 1 c/1@1; expect n=n1; "
        "down; "
        "up; expect sub=xdstp://a/t/c/*; none",
    };
    script_type = RES_LB_ENDPOINT;
    run_all(scripts, ARRAY_LEN(scripts));
    script_type = RES_ENDPOINTS;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),     cmocka_unit_test(test_wildcard),
        cmocka_unit_test(test_replies),   cmocka_unit_test(test_reconnect),
        cmocka_unit_test(test_unasked),   cmocka_unit_test(test_replies_due),
        cmocka_unit_test(test_namespace), cmocka_unit_test(test_collection),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
