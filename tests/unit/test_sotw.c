/* State-of-the-world subscriptions: what is asked for, ACK, NACK, streams that come and go.
 * Scenarios as text. */
#include "tests/support/discovery_script.h"

static void run_all(const char *const *scripts, size_t n) {
    for (size_t i = 0; i < n; i++) {
        run_script(&sotw_ops, scripts[i]);
    }
}

static void test_names(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "up; none; unwanted",
        "watch a; none; wanted",
        "watch a; up; expect names=a; none",
        "up; watch a; expect names=a; none",
        "watch b; watch a; up; expect names=a,b; none",
        "watch a; watch a; up; expect names=a; none; watch a; none",
        "watch a; up; expect names=a; watch b; expect names=a,b; none",
        "watch a; watch a; up; expect names=a; unwatch a; none; wanted; unwatch a; unwanted; "
        "expect ; none",
        "watch a; watch b; up; expect names=a,b; unwatch a; expect names=b; none",
        "watch a; unwatch a; up; none",
        "up; watch a; unwatch a; none",
        "watch a; up; expect names=a; watch b; unwatch b; expect names=a; none",
        "watch a; up; expect names=a; unwatch a; expect ; watch a; expect names=a; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

/* Given up and wanted again between two requests: the server must see it gone, or it would send
 * nothing. */
static void test_readded(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch a; up; expect names=a; unwatch a; watch a; expect ; expect names=a; none",
        "watch a; watch b; up; expect names=a,b; unwatch a; watch a; expect names=b; expect "
        "names=a,b; none",
        "watch a; up; expect names=a; unwatch a; watch a; unwatch a; expect ; none",
        "watch a; up; expect names=a; unwatch a; watch a; down; up; expect names=a; none",
        "watch a; up; expect names=a; unwatch a; watch a; watch c; expect names=c; expect "
        "names=a,c; none",
        "watch a; up; expect names=a; resp n1 1 a; unwatch a; watch a; expect v=1 n=n1; expect v=1 "
        "names=a n=n1; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_wildcard(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch *; up; expect ; none; wanted",
        "watch *; watch *; up; expect ; unwatch *; none; wanted; unwatch *; unwanted",
        "watch *; up; expect ; watch a; expect names=*,a; none",
        "watch *; watch a; up; expect names=*,a; unwatch a; expect names=*; none",
        "watch *; watch a; up; expect names=*,a; unwatch *; expect names=a; none",
        "watch a; up; expect names=a; watch *; expect names=*,a; unwatch a; expect names=*; none",
        "watch a; up; expect names=a; unwatch a; expect ; watch *; expect names=*; none",
        "watch *; watch a; up; expect names=*,a; unwatch a; down; up; expect ; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_ack(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch a; up; expect names=a; resp n1 1 a; expect v=1 names=a n=n1; none",
        "watch *; up; expect ; resp n1 1; expect v=1 n=n1; none",
        "watch a; up; expect names=a; resp n1 1; resp n2 2; expect v=2 names=a n=n2; none",
        "watch a; up; expect names=a; resp n1 1; watch b; expect v=1 names=a,b n=n1; none",
        "watch a; up; expect names=a; resp n1 1; expect v=1 names=a n=n1; watch b; expect v=1 "
        "names=a,b n=n1; none",
        "watch a; up; expect names=a; resp n1 ; expect names=a n=n1; none",
        "watch a; up; expect names=a; resp  1; expect v=1 names=a; none",
        "watch a; up; expect names=a; unwatch a; expect ; resp n1 1; expect v=1 n=n1; none",
        "watch a; up; expect names=a; resp n1 1 a~; expect v=1 names=a n=n1; none",
        "watch a; up; expect names=a; expire a; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_nack(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch a; up; expect names=a; resp n1 1 a!; expect names=a n=n1 err=bad; none",
        "watch a; up; expect names=a; resp n1 1 a; resp n2 2 a!; expect v=1 names=a n=n2 err=bad; "
        "none",
        "watch a; up; expect names=a; resp n1 1 a; expect v=1 names=a n=n1; resp n2 2 a b!; expect "
        "v=1 names=a n=n2 err=bad; "
        "resp n3 3 a; expect v=3 names=a n=n3; none",
        "watch a; up; expect names=a; resp n1 1 a!; resp n2 2 a; expect v=2 names=a n=n2; none",
        "watch a; up; expect names=a; resp n1 1 a!; resp n2 2 a!; expect names=a n=n2 err=bad; "
        "none",
        "watch a; up; expect names=a; resp n1 1 err=type; expect names=a n=n1 err=type; none",
        "watch a; up; expect names=a; resp n1 1 a!; expect names=a n=n1 err=bad; watch b; expect "
        "names=a,b n=n1; none",
        "watch a; up; expect names=a; resp n1 1 a!; down; up; expect names=a; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_streams(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "watch a; up; expect names=a; down; none; up; expect names=a; none",
        "watch a; up; expect names=a; resp n1 1 a; expect v=1 names=a n=n1; down; up; expect v=1 "
        "names=a; none",
        "watch a; up; expect names=a; resp n1 1 a; down; none; up; expect v=1 names=a; none",
        "watch a; up; down; up; expect names=a; none",
        "watch a; up; expect names=a; down; watch b; up; expect names=a,b; none",
        "watch a; watch b; up; expect names=a,b; down; unwatch a; up; expect names=b; none",
        "watch a; up; expect names=a; unwatch a; down; up; none; watch a; expect names=a; none",
        "watch *; up; expect ; resp n1 1; down; up; expect v=1; none",
        "watch a; up; expect names=a; resp n1 1 a; down; up; expect v=1 names=a; resp n1 2 a; "
        "expect v=2 names=a n=n1; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_unasked(void **state) {
    (void)state;
    static const char *const scripts[] = {
        "drop n1; none",
        "up; drop n1; none",
        "watch a; drop n1; none",
        "watch a; up; drop n1; expect names=a; none",
        "watch a; up; expect names=a; down; drop n1; none",
        "watch a; up; expect names=a; down; up; drop n1; expect names=a; none",
    };
    run_all(scripts, ARRAY_LEN(scripts));
}

static void test_node(void **state) {
    (void)state;
    struct script x = {.ops = &sotw_ops, .s = sotw_ops.make(RES_ENDPOINTS)};
    arena_init(&x.a, 0);
    sotw_ops.watch(x.s, SV("a"));
    sotw_ops.stream_up(x.s);
    assert_sv_is(render_request(&x, SV("\x0a\x01n")), "names=a node");
    assert_sv_is(render_request(&x, SV_NULL), "names=a");
    sotw_ops.free(x.s);
    arena_fini(&x.a);
    chunk_cache_trim();
}

static void test_many_names(void **state) {
    (void)state;
    struct subscription *s = sotw_ops.make(RES_ENDPOINTS);
    char name[32];
    for (int i = 0; i < 5000; i++) {
        int n = snprintf(name, sizeof(name), "cluster-%d", i);
        sotw_ops.watch(s, sv_from(name, (size_t)n));
    }
    sotw_ops.stream_up(s);
    struct buf BUF_AUTO out;
    buf_init(&out);
    sotw_ops.next_request(s, SV_NULL, &out);
    for (int i = 0; i < 5000; i += 2) {
        int n = snprintf(name, sizeof(name), "cluster-%d", i);
        sotw_ops.unwatch(s, sv_from(name, (size_t)n));
    }
    size_t before = buf_len(&out);
    buf_clear(&out);
    sotw_ops.next_request(s, SV_NULL, &out);
    assert_in_range(buf_len(&out), before / 2 - 100, before / 2 + 100);
    assert_false(sotw_ops.has_request(s));
    sotw_ops.free(s);
    buf_fini(&out);
    chunk_cache_trim();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),      cmocka_unit_test(test_readded),
        cmocka_unit_test(test_wildcard),   cmocka_unit_test(test_ack),
        cmocka_unit_test(test_nack),       cmocka_unit_test(test_streams),
        cmocka_unit_test(test_unasked),    cmocka_unit_test(test_node),
        cmocka_unit_test(test_many_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
