/* StatsConfig to the stats store's form: tags, matchers, buckets, command line tags, what is
 * refused. */
#include "proxy/config/compile_stats.h"
#include "proxy/stats/stats_tags.h"
#include "tests/support/test_compile.h"

#define CONFIG "envoy.config.metrics.v3.StatsConfig"

static const struct stats_config *compile(const char *text) {
    return compile_stats_config(&f.ctx, text ? fake_msg(&f, CONFIG, text) : NULL, NULL, 0);
}

static void test_defaults(void **state) {
    (void)state;
    const struct stats_config *c = compile(NULL);
    assert_non_null(c);
    struct stats_tag_set t;
    stats_tags_extract(c->tags, SV("cluster.x.y"), &t);
    assert_sv_is(t.name, "cluster.y");
    assert_false(stats_config_rejects(c, SV("any")));
    unsigned n;
    assert_non_null(stats_config_bounds(c, SV("any"), &n));
    assert_int_equal(n, 19);
}

static void test_tags(void **state) {
    (void)state;
    const struct stats_cli_tag cli = {SV("cli"), SV("v")};
    const struct stats_config *c = compile_stats_config(
        &f.ctx,
        fake_msg(
            &f, CONFIG,
            "use_all_default_tags { value: false } stats_tags { tag_name: 'fix' fixed_value: 'w' } "
            "stats_tags { tag_name: 're' regex: '^a(\\\\.(.))' } stats_tags { tag_name: "
            "'envoy.cluster_name' }"),
        &cli, 1);
    assert_non_null(c);
    struct stats_tag_set t;
    stats_tags_extract(c->tags, SV("a.b.c"), &t);
    assert_sv_is(t.name, "a.c");
    assert_int_equal(t.n, 3);
    assert_sv_is(t.v[0].name, "cli");
    assert_sv_is(t.v[1].value, "w");
    assert_sv_is(t.v[2].value, "b");
}

static void test_matcher(void **state) {
    (void)state;
    static const struct {
        const char *config;
        bool rejects_a, rejects_b;
    } cases[] = {
        {"stats_matcher { reject_all: true }", true, true},
        {"stats_matcher { reject_all: false }", false, false},
        {"stats_matcher { exclusion_list { patterns { prefix: 'a' } } }", true, false},
        {"stats_matcher { inclusion_list { patterns { exact: 'a.x' } patterns { suffix: 'z' } } }",
         false, true},
        {"stats_matcher { inclusion_list { patterns { safe_regex { regex: 'b.*' } } patterns { "
         "contains: '.y' } } }",
         true, false},
        {"stats_matcher { inclusion_list { } }", true, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct stats_config *c = compile(cases[i].config);
        assert_row(c != NULL, i);
        assert_row(stats_config_rejects(c, SV("a.x")) == cases[i].rejects_a, i);
        assert_row(stats_config_rejects(c, SV("b.y")) == cases[i].rejects_b, i);
    }
}

static void test_buckets(void **state) {
    (void)state;
    const struct stats_config *c =
        compile("histogram_bucket_settings { match { prefix: 'only.bins' } bins { value: 9 } } "
                "histogram_bucket_settings { match { prefix: 'a' } buckets: 3 buckets: 0.5 } "
                "histogram_bucket_settings { match { prefix: 'a' } buckets: 9 }");
    assert_non_null(c);
    unsigned n;
    const double *b = stats_config_bounds(c, SV("a.x"), &n);
    assert_int_equal(n, 2);
    assert_true(b[0] == 0.5 && b[1] == 3);
    stats_config_bounds(c, SV("only.bins"), &n);
    assert_int_equal(n, 19);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *config, *want;
    } cases[] = {
        {"stats_tags { tag_name: 'x' }",
         "stats_config: No regex specified for tag specifier and no default regex for name: 'x'"},
        {"stats_tags { regex: 'a' }", "stats_config: tag_name cannot be empty"},
        {"stats_tags { tag_name: 'x' regex: '(' }",
         "stats_config: Invalid regex '(': missing closing parenthesis"},
        {"stats_matcher { }", "stats_config.stats_matcher: stats_matcher: value is required"},
        {"histogram_bucket_settings { }",
         "stats_config.histogram_bucket_settings[0]: match: value is required"},
        {"histogram_bucket_settings { match { prefix: 'a' } buckets: 1 buckets: -1 }",
         "stats_config.histogram_bucket_settings[0]: buckets[1]: value must be greater than 0"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_row(!compile(cases[i].config), i);
        sv why = fake_errors(&f);
        if (!sv_is(why, cases[i].want)) {
            fail_msg("row %zu: %.*s", i, SV_ARG(why));
        }
    }
    assert_null(
        compile("stats_matcher { inclusion_list { patterns { safe_regex { regex: '(' } } } }"));
    assert_true(
        sv_starts(fake_errors(&f), SV("stats_config.stats_matcher.inclusion_list.patterns[0]")));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_defaults), TEST(test_tags),    TEST(test_matcher),
        TEST(test_buckets),  TEST(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
