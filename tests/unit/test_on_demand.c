/* on_demand: what is asked for, by which config, and what follows each answer. */
#include "proxy/api/registry.h"
#include "tests/support/fake_stream.h"

extern const struct http_filter_type on_demand_http_filter;

#define CONFIG "envoy.extensions.filters.http.on_demand.v3.OnDemand"
#define PER_ROUTE "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig"
#define ADS "source { ads { } resource_api_version: V3 }"

static const struct http_filter_type *const filters[] = {&on_demand_http_filter};
static const struct registry registry = {.http_filters = filters, .http_filters_n = 1};
static struct fake_compile f;
static struct stream s;

/* --- what the filter asks its stream, scripted --- */

static struct {
    enum http_fetch route, cluster; /* answers to give */
    bool can_recreate;
    /* what was asked */
    const void *source;
    struct on_demand_wait *wait;
    unsigned cancelled, refreshed, recreated;
} script;
static const int a_source, other_source;

const struct config_source *compile_config_source(struct compile_ctx *ctx, const void *msg) {
    const Core__ConfigSource *m = (const Core__ConfigSource *)msg;
    if (m->config_source_specifier_case == CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER__NOT_SET) {
        diag_error(ctx->diag, "no source");
        return NULL;
    }
    bool is_ads =
        m->config_source_specifier_case == CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS;
    return (const struct config_source *)(const void *)(is_ads ? &a_source : &other_source);
}
enum http_fetch http_fetch_route(struct http_filter *x, struct on_demand_wait *wait) {
    (void)x;
    script.wait = script.route == HTTP_FETCH_STARTED ? wait : script.wait;
    return script.route;
}
enum http_fetch http_fetch_cluster(struct http_filter *x, const struct config_source *source,
                                   struct on_demand_wait *wait) {
    (void)x;
    script.source = source;
    script.wait = script.cluster == HTTP_FETCH_STARTED ? wait : script.wait;
    return script.cluster;
}
void http_refresh_route(struct http_filter *x) {
    (void)x;
    script.refreshed++;
}
bool http_recreate_stream(struct http_filter *x) {
    (void)x;
    script.recreated++;
    return script.can_recreate;
}
void worker_fetch_cancel(struct worker *w, struct on_demand_wait *wait) {
    (void)w;
    (void)wait;
    script.cancelled++;
}

/* --- fixture --- */

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, &registry);
    f.ctx.stats = stats_store_new(4);
    memset(&script, 0, sizeof(script));
    return 0;
}

static int end(void **state) {
    (void)state;
    struct stats_store *stats = f.ctx.stats;
    fake_compile_fini(&f);
    stats_store_free(stats);
    return 0;
}

static const void *config(const char *text) {
    const void *c = on_demand_http_filter.compile(&f.ctx, fake_msg(&f, CONFIG, text));
    assert_non_null(c);
    return c;
}

static void request(const void *c) {
    fake_stream_start(&s, &on_demand_http_filter, c, "h.com", "/", NULL);
}

/* --- tests --- */

static void refused(void **state) {
    (void)state;
    const struct {
        const char *config, *text;
    } cases[] = {
        {"odcds { }", "odcds: source: value is required"},
        {"odcds { source { } }", "odcds.source: no source"},
        {"odcds { " ADS " resources_locator: 'xdstp://a/b' }",
         "odcds: resources_locator: resource locators (xdstp) are not supported"},
        {"odcds { " ADS " timeout { seconds: -1 } }", "odcds.timeout: duration out of range"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_null(on_demand_http_filter.compile(&f.ctx, fake_msg(&f, CONFIG, cases[i].config)));
        sv why = fake_errors(&f);
        if (!sv_eq(why, sv_cstr(cases[i].text))) {
            fail_msg("%.*s", SV_ARG(why));
        }
        assert_null(on_demand_http_filter.compile_route(
            &f.ctx, fake_msg(&f, PER_ROUTE, cases[i].config), PER_ROUTE));
        fake_errors(&f);
    }
}

static void nothing_is_missing(void **state) {
    (void)state;
    request(config("odcds { " ADS " }"));
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
    assert_ptr_equal(script.source, &a_source);
    fake_stream_end(&s);
}

static void clusters_only_with_a_source(void **state) {
    (void)state;
    script.cluster = HTTP_FETCH_STARTED;
    request(config(""));
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
    assert_null(script.source);
    fake_stream_end(&s);
}

static void route_config_wins(void **state) {
    (void)state;
    const struct {
        const char *per_route;
        const void *want;
    } cases[] = {
        {"odcds { source { path_config_source { path: '/x' } } }", &other_source},
        {"", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        script.source = NULL;
        request(config("odcds { " ADS " }"));
        s.route_configs[0] = on_demand_http_filter.compile_route(
            &f.ctx, fake_msg(&f, PER_ROUTE, cases[i].per_route), PER_ROUTE);
        s.route_configs_n = 1;
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
        assert_ptr_equal(script.source, cases[i].want);
        fake_stream_end(&s);
    }
}

static void answers(void **state) {
    (void)state;
    const struct {
        bool is_found, can_recreate;
        unsigned recreated, refreshed, continued;
    } cases[] = {
        {true, true, 1, 0, 0},
        {true, false, 1, 1, 1},
        {false, true, 0, 1, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memset(&script, 0, sizeof(script));
        script.route = HTTP_FETCH_STARTED;
        script.can_recreate = cases[i].can_recreate;
        request(config(""));
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP_ALL_WATERMARK);
        script.wait->on_done(script.wait, cases[i].is_found);
        assert_int_equal(script.recreated, cases[i].recreated);
        assert_int_equal(script.refreshed, cases[i].refreshed);
        assert_int_equal(s.continued_decoding, cases[i].continued);
        fake_stream_end(&s);
    }
}

static void clusters_time_out(void **state) {
    (void)state;
    const struct {
        const char *config;
        unsigned ms;
    } cases[] = {
        {"odcds { " ADS " }", 5000},
        {"odcds { " ADS " timeout { nanos: 20000000 } }", 20},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        memset(&script, 0, sizeof(script));
        script.cluster = HTTP_FETCH_STARTED;
        request(config(cases[i].config));
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP_ALL_WATERMARK);
        fake_stream_advance(&s, cases[i].ms - 2);
        assert_int_equal(s.continued_decoding, 0);
        fake_stream_advance(&s, 4);
        assert_int_equal(s.continued_decoding, 1);
        assert_int_equal(script.cancelled, 1);
        fake_stream_end(&s);
    }
}

static void too_many(void **state) {
    (void)state;
    script.route = HTTP_FETCH_OVERFLOW;
    request(config(""));
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP);
    assert_int_equal(s.local_status, 503);
    assert_true(s.local_flags == RESPONSE_FLAG(UO));
    fake_stream_end(&s);
}

static void ended_stream_waits_no_more(void **state) {
    (void)state;
    script.cluster = HTTP_FETCH_STARTED;
    request(config("odcds { " ADS " }"));
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP_ALL_WATERMARK);
    fake_stream_end(&s);
    assert_int_equal(script.cancelled, 1);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(refused),
        TEST(nothing_is_missing),
        TEST(clusters_only_with_a_source),
        TEST(route_config_wins),
        TEST(answers),
        TEST(clusters_time_out),
        TEST(too_many),
        TEST(ended_stream_waits_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
