/* Assertions of three grades, the checked cast, and the version string. */
#include "proxy/base/check.h"

#include <stdio.h>

#include "proxy/base/log.h"
#include "proxy/base/version.h"
#include "tests/support/unit.h"

#define BOX_MAGIC 0xb0c5u
#define OTHER_MAGIC 0x0defu
struct box {
    uint32_t magic;
    int value;
};

static void check_fails(void) { CHECK(1 + 1 == 3); }
static void cast_null(void) { (void)CAST(box, BOX_MAGIC, NULL); }
static void cast_other(void) {
    struct box b = {OTHER_MAGIC, 1};
    void *p = &b;
    (void)CAST(box, BOX_MAGIC, p);
}
static void assert_fails(void) { ASSERT(1 + 1 == 3); }

static void test_check(void **state) {
    (void)state;
    CHECK(1 + 1 == 2);
    assert_true(aborts(check_fails));
#ifdef SLUICE_DEBUG
    assert_true(aborts(assert_fails));
#else
    assert_int_equal(signal_of(assert_fails, -1), 0);
#endif
}

static void test_cast(void **state) {
    (void)state;
    struct box b = {BOX_MAGIC, 7};
    void *p = &b;
    assert_int_equal(CAST(box, BOX_MAGIC, p)->value, 7);
    assert_true(aborts(cast_null));
    assert_true(aborts(cast_other));
}

/* Counted each time, logged the first time at each place. */
static void test_bug(void **state) {
    (void)state;
    char path[] = "/tmp/sluice-test-check-XXXXXX";
    assert_true(mkstemp(path) >= 0);
    assert_int_equal(log_open(path), 0);
    assert_true(log_set_format("%l %n %v", NULL, 0));
    uint64_t before = check_bug_count();
    for (int i = 0; i < 5; i++) {
        assert_true(BUG(i >= 0));
        assert_false(BUG(i < 0));
    }
    assert_true(BUG(before + 1));
    assert_int_equal(check_bug_count() - before, 6);
    log_open(NULL);
    char text[200] = "";
    FILE *f = fopen(path, "r");
    assert_true(fread(text, 1, sizeof(text) - 1, f) > 0);
    fclose(f);
    unlink(path);
    assert_string_equal(text, "error assert envoy bug failure: i >= 0\n"
                              "error assert envoy bug failure: before + 1\n");
}

/* More places than are remembered. */
static void test_many_bugs(void **state) {
    (void)state;
    assert_int_equal(log_open("/dev/null"), 0);
    uint64_t before = check_bug_count();
    for (int line = 1; line <= 1000; line++) {
        assert_true(check_bug("x", __FILE__, line));
    }
    assert_int_equal(check_bug_count() - before, 1000);
    log_open(NULL);
}

static void test_version(void **state) {
    (void)state;
    sv s = sv_cstr(version_string());
    assert_sv_is(sv_cut(&s, '/'), version_git_sha());
    assert_int_equal(strlen(version_git_sha()), 40);
    assert_sv_is(sv_cut(&s, '/'), SLUICE_VERSION);
    assert_sv_is(sv_cut(&s, '/'), version_git_status());
    assert_sv_is(sv_cut(&s, '/'), version_build_type());
    assert_sv_is(sv_cut(&s, '/'), "BoringSSL");
    assert_int_equal(s.n, 0);
    char numbers[32];
    snprintf(numbers, sizeof(numbers), "%d.%d.%d", SLUICE_VERSION_MAJOR, SLUICE_VERSION_MINOR,
             SLUICE_VERSION_PATCH);
    assert_string_equal(numbers, SLUICE_VERSION);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),   cmocka_unit_test(test_cast),
        cmocka_unit_test(test_bug),     cmocka_unit_test(test_many_bugs),
        cmocka_unit_test(test_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
