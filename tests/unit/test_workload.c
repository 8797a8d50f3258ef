/* Workloads by address: which one is found while they come and go. */
#include "proxy/config/workload.h"

#include "protos/any.h"
#include "protos/pb_text.h"
#include "tests/support/test_config.h"
#include "tests/support/unit.h"

static struct test_config t;
static struct arena a;

static struct resource *workload(const char *text) {
    struct diag *d = xnew(struct diag);
    diag_init(d);
    const struct proto_type *type = any_type(sv_cstr(resource_types[RES_WORKLOAD].proto_name));
    ProtobufCMessage *m = pb_text_parse(type, sv_cstr(text), &a, d);
    assert_non_null(m);
    struct resource *r = resource_compile(&t.config, RES_WORKLOAD, SV_NULL, SV("1"),
                                          proto_pack(m, &a), false, NULL, d);
    assert_non_null(r);
    diag_fini(d);
    xfree(d);
    return r;
}

static const char *at(const struct snapshot *s, const char *ip) {
    struct addr addr;
    assert_true(addr_parse_ip(sv_cstr(ip), 1234, &addr));
    const struct resource *r = snapshot_find_workload(s, &addr);
    return r ? arena_cstr(&a, r->name) : "";
}

static void found_by_each_address(void **state) {
    (void)state;
    struct snapshot *s = snapshot_new(NULL);
    assert_string_equal(at(s, "1.2.3.4"), "");
    struct resource *both = workload(
                        "uid: 'both' addresses: '\\001\\002\\003\\004' "
                        "addresses: '\\376\\200\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\001'"),
                    *none = workload("uid: 'none'");
    snapshot_add_workload(s, both);
    snapshot_add_workload(s, none);
    assert_string_equal(at(s, "1.2.3.4"), "both");
    assert_string_equal(at(s, "fe80::1"), "both");
    assert_string_equal(at(s, "1.2.3.5"), "");
    const struct addr path = {.family = AF_UNIX, .path = "/x"}, unset = {0};
    assert_null(snapshot_find_workload(s, &path));
    assert_null(snapshot_find_workload(s, &unset));
    struct snapshot *next = snapshot_new(s);
    snapshot_remove_workload(next, both);
    snapshot_remove_workload(next, none);
    assert_string_equal(at(next, "1.2.3.4"), "");
    assert_string_equal(at(next, "fe80::1"), "");
    assert_string_equal(at(s, "1.2.3.4"), "both");
    shared_unref(&both->shared);
    shared_unref(&none->shared);
    assert_string_equal(at(s, "1.2.3.4"), "both"); /* the snapshot's own */
    shared_unref(&next->shared);
    shared_unref(&s->shared);
}

static void pods_of_one_host_share_its_address(void **state) {
    (void)state;
    struct snapshot *s = snapshot_new(NULL);
    struct resource *first = workload("uid: 'first' addresses: '\\012\\0\\0\\001'"),
                    *second = workload("uid: 'second' addresses: '\\012\\0\\0\\001'");
    snapshot_add_workload(s, first);
    snapshot_add_workload(s, second);
    assert_string_equal(at(s, "10.0.0.1"), "second");
    snapshot_remove_workload(s, second);
    assert_string_equal(at(s, "10.0.0.1"), "first");
    shared_unref(&first->shared);
    shared_unref(&second->shared);
    shared_unref(&s->shared);
}

#define MANY 20000u

static void of_many(void **state) {
    (void)state;
    struct snapshot *s = snapshot_new(NULL);
    struct resource **all = xcalloc(MANY, sizeof(struct resource *));
    for (unsigned i = 0; i < MANY; i++) {
        all[i] = workload(
            arena_cstr(&a, arena_printf(&a, "uid: 'w%u' addresses: '\\012\\%03o\\%03o\\%03o'", i,
                                        i >> 16, i >> 8 & 255, i & 255)));
        snapshot_add_workload(s, all[i]);
    }
    assert_string_equal(at(s, "10.0.0.0"), "w0");
    assert_string_equal(at(s, "10.0.78.31"), "w19999");
    assert_string_equal(at(s, "10.0.78.32"), "");
    for (unsigned i = 0; i < MANY; i += 2) {
        snapshot_remove_workload(s, all[i]);
    }
    assert_string_equal(at(s, "10.0.78.30"), "");
    assert_string_equal(at(s, "10.0.78.31"), "w19999");
    for (unsigned i = 0; i < MANY; i++) {
        shared_unref(&all[i]->shared);
    }
    xfree(all);
    shared_unref(&s->shared);
}

static int begin(void **state) {
    (void)state;
    arena_init(&a, 0);
    test_config_init(&t, true);
    return 0;
}

static int end(void **state) {
    (void)state;
    test_config_fini(&t);
    arena_fini(&a);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(found_by_each_address, begin, end),
        cmocka_unit_test_setup_teardown(pods_of_one_host_share_its_address, begin, end),
        cmocka_unit_test_setup_teardown(of_many, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
