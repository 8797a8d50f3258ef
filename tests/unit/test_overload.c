/* The overload manager: levels and chance, monitors' samples, what is refused, and what a changing
 * pressure does to levels and stats. */
#include "proxy/server/overload.h"

#include "proxy/base/overload.h"
#include "proxy/server/overload_monitors.h"
#include "proxy/stats/stats.h"
#include "tests/support/fake_compile.h"
#include "tests/support/unit.h"

#define MONITORS "envoy.extensions.resource_monitors."
#define INJECTED MONITORS "injected_resource.v3.InjectedResourceConfig"

static void test_chance(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 1);
    enum overload_point p = OVERLOAD_HCM_DECODE_HEADERS;
    uint64_t before = overload_acted(p);
    for (unsigned i = 0; i < 100; i++) {
        assert_false(overload_acts(p, &r));
    }
    overload_set(p, OVERLOAD_FULL / 4);
    assert_false(overload_is_full(p));
    unsigned n = 0;
    for (unsigned i = 0; i < 4000; i++) {
        n += overload_acts(p, &r);
    }
    assert_in_range(n, 900, 1100);
    overload_set(p, UINT32_MAX); /* beyond full is full */
    assert_int_equal(overload_level(p), OVERLOAD_FULL);
    assert_true(overload_acts(p, &r));
    assert_int_equal(overload_acted(p) - before, n + 1);
    overload_set(p, 0);
}

/* ---- monitors ---- */

static char path[64];

static void put(const char *text) {
    char fresh[80];
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    FILE *f = fopen(fresh, "we");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(rename(fresh, path), 0);
}

static int start(void **state) {
    (void)state;
    snprintf(path, sizeof(path), "/tmp/test_overload.%d", (int)getpid());
    put("0");
    return 0;
}
static int stop(void **state) {
    (void)state;
    return unlink(path);
}

static struct overload_monitor *monitor(struct fake_compile *fc, const char *type,
                                        const char *text) {
    const struct overload_monitor_type *t = overload_monitor_type(sv_cstr(type));
    assert_non_null(t);
    return t->compile(&fc->ctx, fake_msg(fc, type, text));
}

static void test_injected_pressure(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        double pressure;
    } rows[] = {
        {"0.5", true, 0.5},  {"1", true, 1},     {" 0.25\n", true, 0.25}, {"1e-1", true, 0.1},
        {"", false, 0},      {"\n", false, 0},   {"x", false, 0},         {"0.5x", false, 0},
        {"1.01", false, 0},  {"-0.1", false, 0}, {"nan", false, 0},       {"inf", false, 0},
        {"0.5 1", false, 0}, {"0x", false, 0},
    };
    struct fake_compile fc;
    fake_compile_init(&fc, NULL);
    char config[128];
    snprintf(config, sizeof(config), "filename: '%s'", path);
    struct overload_monitor *m = monitor(&fc, INJECTED, config);
    assert_non_null(m);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        double pressure = -1;
        put(rows[i].text);
        bool ok = m->type->sample(m, &pressure);
        if (ok != rows[i].ok || (ok && pressure != rows[i].pressure)) {
            fail_msg("'%s': %d, %g", rows[i].text, ok, pressure);
        }
        assert_true(m->type->sample(m, &pressure) == ok); /* the same file again */
    }
    fake_compile_fini(&fc);
}

static void test_monitors_of_the_system(void **state) {
    (void)state;
    struct fake_compile fc;
    fake_compile_init(&fc, NULL);
    double small, large, cpu;
    struct overload_monitor *m =
        monitor(&fc, MONITORS "fixed_heap.v3.FixedHeapConfig", "max_heap_size_bytes: 1000");
    assert_true(m->type->sample(m, &small));
    m = monitor(&fc, MONITORS "fixed_heap.v3.FixedHeapConfig",
                "max_heap_size_bytes: 1000000000000");
    assert_true(m->type->sample(m, &large));
    assert_true(small > 100 && large < 0.1 && large > 0);
    m = monitor(&fc, MONITORS "cpu_utilization.v3.CpuUtilizationConfig", "");
    for (unsigned i = 0; i < 3; i++) {
        assert_true(m->type->sample(m, &cpu));
        assert_true(cpu >= 0 && cpu <= 1);
    }
    assert_null(overload_monitor_type(SV("envoy.extensions.resource_monitors.x")));
    assert_null(overload_monitor_type(SV_NULL));
    fake_compile_fini(&fc);
}

/* ---- the manager ---- */

struct bench {
    struct fake_compile fc;
    struct loop loop;
    struct stats_store *stats;
    struct conn_limit connections;
    struct overload_manager *o;
};

static void bench_init(struct bench *b, const char *rules) {
    memset(b, 0, sizeof(*b));
    fake_compile_init(&b->fc, NULL);
    assert_int_equal(loop_init(&b->loop, 0), 0);
    b->stats = stats_store_new(2);
    char text[2048];
    snprintf(text, sizeof(text),
             "refresh_interval { nanos: 1000000 } resource_monitors { name: 'r' typed_config { "
             "[type.googleapis.com/" INJECTED "] { filename: '%s' } } } %s",
             path, rules);
    b->o = overload_manager_new((const Overload__OverloadManager *)fake_msg(
                                    &b->fc, "envoy.config.overload.v3.OverloadManager", text),
                                &b->loop, b->stats, NULL, &b->connections, b->fc.ctx.diag);
}

static void bench_fini(struct bench *b) {
    overload_manager_free(b->o);
    stats_store_free(b->stats);
    loop_fini(&b->loop);
    fake_compile_fini(&b->fc);
}

#define TRIGGER "triggers { name: 'r' threshold { value: 0.9 } }"
#define STOP "name: 'envoy.overload_actions.stop_accepting_requests'"

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *rules, *error;
    } rows[] = {
        {"actions { " STOP TRIGGER " } actions { " STOP TRIGGER " }",
         "actions[1]: Duplicate overload action envoy.overload_actions.stop_accepting_requests"},
        {"actions { name: 'x' " TRIGGER " }", "actions[0]: Unknown Overload Manager Action x"},
        {"actions { " STOP " triggers { name: 'q' threshold { value: 1 } } }",
         "Unknown trigger resource q for overload action"},
        {"actions { " STOP TRIGGER TRIGGER " }", "Duplicate trigger resource for overload action"},
        {"actions { " STOP " triggers { name: 'r' scaled { scaling_threshold: 0.5 "
         "saturation_threshold: 0.5 } } }",
         "scaling_threshold must be less than saturation_threshold"},
        {"actions { name: 'envoy.overload_actions.reduce_timeouts' " TRIGGER " }",
         "requires typed_config"},
        {"actions { name: 'envoy.overload_actions.reset_high_memory_stream' " TRIGGER " }",
         "requires buffer_factory_config"},
        {"actions { " STOP TRIGGER " typed_config { [type.googleapis.com/" INJECTED
         "] { filename: 'x' } } }",
         "conflicts with its typed config"},
        {"loadshed_points { name: 'p' " TRIGGER " } loadshed_points { name: 'p' " TRIGGER " }",
         "loadshed_points[1]: Duplicate loadshed point p"},
        {"resource_monitors { name: 'r' }", "resource_monitors[1]: Duplicate resource monitor r"},
        {"resource_monitors { name: 's' }",
         "Didn't find a registered implementation for 's' with type URL: ''"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b, rows[i].rules);
        sv text = fake_errors(&b.fc);
        if (b.o || !sv_contains(text, sv_cstr(rows[i].error))) {
            fail_msg("row %zu: '%.*s'", i, SV_ARG(text));
        }
        bench_fini(&b);
    }
}

static void expect_level(struct bench *b, const char *text, unsigned percent) {
    put(text);
    uint32_t want = OVERLOAD_FULL / 100 * percent;
    for (unsigned i = 0; i < 5000 && overload_level(OVERLOAD_STOP_ACCEPTING_REQUESTS) != want;
         i++) {
        loop_run_nowait(&b->loop);
        usleep(1000);
    }
    assert_int_equal(overload_level(OVERLOAD_STOP_ACCEPTING_REQUESTS), want);
}

static void test_levels_follow_the_pressure(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, "actions { " STOP " triggers { name: 'r' scaled { scaling_threshold: 0.5 "
                   "saturation_threshold: 1 } } }");
    assert_non_null(b.o);
    overload_manager_start(b.o);
    expect_level(&b, "0.75", 50);
    expect_level(&b, "1", 100);
    expect_level(&b, "0.5", 0);
    expect_level(&b, "0.625", 25);
    bench_fini(&b);
    assert_int_equal(overload_level(OVERLOAD_STOP_ACCEPTING_REQUESTS), 0); /* it ends with it */
}

static void test_the_limit_of_connections(void **state) {
    (void)state;
    struct bench b;
    bench_init(
        &b, "resource_monitors { name: 'envoy.resource_monitors.global_downstream_max_connections' "
            "typed_config { [type.googleapis.com/" MONITORS
            "downstream_connections.v3.DownstreamConnectionsConfig] { "
            "max_active_downstream_connections: 7 } } }");
    assert_non_null(b.o);
    assert_int_equal(b.connections.max, 7);
    bench_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chance),
        cmocka_unit_test(test_injected_pressure),
        cmocka_unit_test(test_monitors_of_the_system),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_levels_follow_the_pressure),
        cmocka_unit_test(test_the_limit_of_connections),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
