/* The stats pages: outputs as a real Envoy gives them, parameters and their errors, streaming while
 * scopes come and go. */
#include <stdio.h>

#include "proxy/base/vec.h"
#include "proxy/stats/stats_config.h"
#include "proxy/stats/stats_export.h"
#include "proxy/stats/stats_flush.h"
#include "proxy/stats/stats_tags.h"
#include "tests/support/unit.h"

#define H_STATS(P, C, G, H, T) \
    G(P, downstream_cx_active) \
    C(P, downstream_cx_total)  \
    C(P, downstream_rq_2xx)    \
    C(P, downstream_rq_4xx) H(P, downstream_rq_time, MS) T(P, version_text) H(P, percent, PERCENT)
STATS_ENUM(H, H_STATS);
STATS_GROUP(h, H, H_STATS);
#define K_STATS(P, C, G, H, T) C(P, response_flood)
STATS_ENUM(K, K_STATS);
STATS_GROUP(k, K, K_STATS);

static struct stats_store *store;
static struct stats_scope *sc, *codec;
static int setup(void **state) {
    (void)state;
    store = stats_store_new(2);
    sc = stats_scope_get(store, &h_stats_group, SV("http.ing."));
    codec = stats_scope_get(store, &k_stats_group, SV("http.ing.http1."));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    stats_scope_unref(sc);
    stats_scope_unref(codec);
    stats_store_free(store);
    chunk_cache_trim();
    return 0;
}

/* All of an export in pieces of `piece` bytes; free with xfree. */
static char *export(const char *query, bool is_prometheus, size_t piece) {
    BUF_AUTO struct buf out = {0}, err = {0};
    struct stats_params p;
    if (!stats_params_parse(&p, sv_cstr(query), is_prometheus, &err)) {
        return buf_dup_str(&err);
    }
    struct stats_iter *it = stats_iter_new(store, &p);
    while (stats_iter_next(it, &out, piece)) {}
    assert_false(stats_iter_next(it, &out, piece)); /* stays at the end */
    stats_iter_free(it);
    return buf_dup_str(&out);
}

static void expect(const char *query, bool is_prometheus, const char *want) {
    static const size_t pieces[] = {1, 100, 1 << 20};
    for (size_t i = 0; i < 3; i++) {
        char *got = export(query, is_prometheus, pieces[i]);
        if (strcmp(got, want) != 0) {
            print_error("%s\ngot:\n%s\nwant:\n%s\n", query, got, want);
            fail();
        }
        xfree(got);
    }
}

/* 4 zeros, 5 ones flushed before; then one interval: see test_histogram.c for the figures. */
static void record(void) {
    struct stats_shard *sh = stats_shard(sc, 1);
    stats_record(sh, H_downstream_rq_time, 1);
    stats_record(sh, H_downstream_rq_time, 6);
    stats_flush(store);
    for (int i = 0; i < 9; i++) {
        stats_record(sh, H_downstream_rq_time, i < 4 ? 0 : 1);
    }
    stats_flush(store);
}

static void test_text(void **state) {
    (void)state;
    expect(
        "", false,
        "http.ing.version_text: \"\"\n"
        "http.ing.downstream_cx_active: 0\nhttp.ing.downstream_cx_total: "
        "0\nhttp.ing.downstream_rq_2xx: 0\n"
        "http.ing.downstream_rq_4xx: 0\nhttp.ing.http1.response_flood: 0\n"
        "http.ing.downstream_rq_time: No recorded values\nhttp.ing.percent: No recorded values\n");
    stats_text_set(sc, H_version_text, SV("v1"));
    stats_gauge_set(stats_shard(sc, 0), H_downstream_cx_active, 0);
    stats_add(stats_shard(sc, 0), H_downstream_cx_total, 3);
    stats_add(stats_shard(sc, 1), H_downstream_cx_total, 4);
    stat_dyn_add(stats_dyn(sc, SV("downstream_extra"), STAT_COUNTER), 1);
    stats_record(stats_shard(sc, 0), H_downstream_rq_time, 1); /* shows after the flush */
    expect("usedonly", false,
           "http.ing.version_text: \"v1\"\nhttp.ing.downstream_cx_active: "
           "0\nhttp.ing.downstream_cx_total: 7\n"
           "http.ing.downstream_extra: 1\n");
    expect("usedonly&type=Counters", false,
           "http.ing.downstream_cx_total: 7\nhttp.ing.downstream_extra: 1\n");
    expect("type=TextReadouts", false, "http.ing.version_text: \"v1\"\n");
    expect("filter=^http%5C.ing%5C.http1", false, "http.ing.http1.response_flood: 0\n");
    expect("filter=down&invert_filter&type=Counters", false, "http.ing.http1.response_flood: 0\n");
    expect("hidden=only", false, "");
    expect("filter=nothing", false, "");
}

static void test_histogram_text(void **state) {
    (void)state;
    record();
    expect(
        "usedonly&type=Histograms", false,
        "http.ing.downstream_rq_time: P0(0,0) P25(0,0) P50(1.0166666666666666,1.0285714285714285) "
        "P75(1.05,1.0714285714285714) P90(1.0833333333333333,1.0857142857142856) "
        "P95(1.0833333333333333,6.05) "
        "P99(1.0833333333333333,6.05) P99.5(1.0833333333333333,6.05) "
        "P99.9(1.0833333333333333,6.05) "
        "P100(1.0833333333333333,6.05)\n");
    expect("usedonly&type=Histograms&histogram_buckets=cumulative", false,
           "http.ing.downstream_rq_time: B0.5(4,4) B1(9,10) B5(9,10) B10(9,11) B25(9,11) B50(9,11) "
           "B100(9,11) B250(9,11) "
           "B500(9,11) B1000(9,11) B2500(9,11) B5000(9,11) B10000(9,11) B30000(9,11) B60000(9,11) "
           "B300000(9,11) "
           "B600000(9,11) B1.8e+06(9,11) B3.6e+06(9,11)\n");
    expect("usedonly&type=Histograms&histogram_buckets=disjoint", false,
           "http.ing.downstream_rq_time: B0.5(4,4) B1(5,6) B5(0,0) B10(0,1) B25(0,0) B50(0,0) "
           "B100(0,0) B250(0,0) B500(0,0) "
           "B1000(0,0) B2500(0,0) B5000(0,0) B10000(0,0) B30000(0,0) B60000(0,0) B300000(0,0) "
           "B600000(0,0) B1.8e+06(0,0) "
           "B3.6e+06(0,0)\n");
    stats_flush(store); /* an idle interval */
    expect("usedonly&type=Histograms&histogram_buckets=detailed", false,
           "http.ing.downstream_rq_time:\n  totals=0,0:4, 1,0.1:6, 6,0.1:1\n  intervals=\n  "
           "summary=P0(nan,0) P25(nan,0) "
           "P50(nan,1.0285714285714285) P75(nan,1.0714285714285714) P90(nan,1.0857142857142856) "
           "P95(nan,6.05) P99(nan,6.05) "
           "P99.5(nan,6.05) P99.9(nan,6.05) P100(nan,6.05)\n");
}

static void test_json(void **state) {
    (void)state;
    stats_text_set(sc, H_version_text, SV("a\"b<"));
    stats_inc(stats_shard(sc, 0), H_downstream_cx_total);
    expect("format=json&usedonly", false,
           "{\"stats\":[{\"name\":\"http.ing.version_text\",\"value\":\"a\\\"b<\"},"
           "{\"name\":\"http.ing.downstream_cx_total\",\"value\":1}]}");
    expect("format=json&filter=zzz", false, "{\"stats\":[]}");
    record();
    expect(
        "format=json&usedonly&type=Histograms", false,
        "{\"stats\":[{\"histograms\":{\"supported_quantiles\":[0,25,50,75,90,95,99,99.5,99.9,100],"
        "\"computed_quantiles\":["
        "{\"name\":\"http.ing.downstream_rq_time\",\"values\":[{\"cumulative\":0,\"interval\":0},"
        "{\"cumulative\":0,\"interval\":0},{\"cumulative\":1.0285714285714285,\"interval\":1."
        "0166666666666666},"
        "{\"cumulative\":1.0714285714285714,\"interval\":1.05},"
        "{\"cumulative\":1.0857142857142856,\"interval\":1.0833333333333333},"
        "{\"cumulative\":6.05,\"interval\":1.0833333333333333},{\"cumulative\":6.05,\"interval\":1."
        "0833333333333333},"
        "{\"cumulative\":6.05,\"interval\":1.0833333333333333},{\"cumulative\":6.05,\"interval\":1."
        "0833333333333333},"
        "{\"cumulative\":6.05,\"interval\":1.0833333333333333}]}]}}]}");
    char *got =
        export("format=json&usedonly&type=Histograms&histogram_buckets=cumulative", false, 1 << 20);
    assert_non_null(
        strstr(got, "{\"histograms\":[{\"name\":\"http.ing.downstream_rq_time\",\"buckets\":["
                    "{\"upper_bound\":0.5,\"interval\":4,\"cumulative\":4},"));
    assert_non_null(strstr(got,
                           "{\"upper_bound\":60000,\"interval\":9,\"cumulative\":11},"
                           "{\"upper_bound\":3e+05,\"interval\":9,\"cumulative\":11},"
                           "{\"upper_bound\":6e+05,\"interval\":9,\"cumulative\":11},"
                           "{\"upper_bound\":1800000,\"interval\":9,\"cumulative\":11},"
                           "{\"upper_bound\":3600000,\"interval\":9,\"cumulative\":11}]}]}]}"));
    xfree(got);
    got = export("format=json&usedonly&type=Histograms&histogram_buckets=detailed", false, 1 << 20);
    assert_non_null(strstr(
        got,
        "\"totals\":[{\"lower_bound\":0,\"width\":0,\"count\":4},{\"lower_bound\":1,\"width\":0.1,"
        "\"count\":6},{\"lower_bound\":6,\"width\":0.1,\"count\":1}],\"intervals\":["));
    xfree(got);
}

static void test_html(void **state) {
    (void)state;
    struct stats_scope *bad =
        stats_scope_get(store, &k_stats_group, SV("<script>alert('&\")</script>."));
    stats_inc(stats_shard(bad, 0), K_response_flood);
    char *got = export("format=html&usedonly", false, 1 << 20);
    assert_null(strstr(got, "<script>"));
    assert_non_null(strstr(got, "<tr><td>&lt;script&gt;alert(&#39;&amp;&quot;)&lt;/"
                                "script&gt;.response_flood</td><td>1</td></tr>"));
    assert_non_null(strstr(got, "</html>"));
    xfree(got);
    stats_scope_unref(bad);
}

static void test_prometheus(void **state) {
    (void)state;
    struct stats_shard *sh = stats_shard(sc, 0);
    stats_add(sh, H_downstream_cx_total, 14);
    stats_add(sh, H_downstream_rq_2xx, 3);
    stats_add(sh, H_downstream_rq_4xx, 11);
    stats_gauge_set(sh, H_downstream_cx_active, 2);
    stats_text_set(sc, H_version_text, SV("v\"1\\\n"));
    stat_dyn_add(stats_dyn(sc, SV("downstream_rq_500"), STAT_COUNTER), 2);
    struct stats_scope *second = stats_scope_get(store, &h_stats_group, SV("http.other-1."));
    stats_inc(stats_shard(second, 1), H_downstream_cx_total);
    expect("usedonly", true,
           "# TYPE envoy_http_downstream_cx_total counter\n"
           "envoy_http_downstream_cx_total{envoy_http_conn_manager_prefix=\"ing\"} 14\n"
           "envoy_http_downstream_cx_total{envoy_http_conn_manager_prefix=\"other-1\"} 1\n"
           "# TYPE envoy_http_downstream_rq counter\n"
           "envoy_http_downstream_rq{envoy_response_code=\"500\",envoy_http_conn_manager_prefix="
           "\"ing\"} 2\n"
           "# TYPE envoy_http_downstream_rq_xx counter\n"
           "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",envoy_http_conn_manager_"
           "prefix=\"ing\"} 3\n"
           "envoy_http_downstream_rq_xx{envoy_response_code_class=\"4\",envoy_http_conn_manager_"
           "prefix=\"ing\"} 11\n"
           "# TYPE envoy_http_downstream_cx_active gauge\n"
           "envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix=\"ing\"} 2\n");
    expect("usedonly&text_readouts&type=TextReadouts", true,
           "# TYPE envoy_http_version_text gauge\n"
           "envoy_http_version_text{envoy_http_conn_manager_prefix=\"ing\",text_value="
           "\"v\\\"1\\\\\\n\"} 0\n");
    expect("filter=http1", true,
           "# TYPE envoy_http_http1_response_flood counter\n"
           "envoy_http_http1_response_flood{envoy_http_conn_manager_prefix=\"ing\"} 0\n");
    expect("format=prometheus&filter=nope", false, "");
    stats_scope_unref(second);
}

static void test_prometheus_histogram(void **state) {
    (void)state;
    record();
    stats_record(stats_shard(sc, 0), H_percent, 500000); /* one half */
    stats_flush(store);
    char *got = export("usedonly", true, 1 << 20);
    assert_non_null(strstr(got, "# TYPE envoy_http_downstream_rq_time histogram\n"
                                "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_"
                                "prefix=\"ing\",le=\"0.5\"} 4\n"
                                "envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_"
                                "prefix=\"ing\",le=\"1\"} 10\n"));
    assert_non_null(strstr(got, "le=\"1800000\"} 11\n"));
    assert_non_null(strstr(
        got, "le=\"+Inf\"} 11\n"
             "envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix=\"ing\"} 12.33"));
    assert_non_null(strstr(
        got, "envoy_http_downstream_rq_time_count{envoy_http_conn_manager_prefix=\"ing\"} 11\n"));
    assert_non_null(strstr(
        got, "envoy_http_percent_bucket{envoy_http_conn_manager_prefix=\"ing\",le=\"0.5\"} 1\n"));
    xfree(got);
    got = export("usedonly&histogram_buckets=summary&filter=rq_time", true, 1 << 20);
    assert_non_null(strstr(got, "# TYPE envoy_http_downstream_rq_time summary\n"
                                "envoy_http_downstream_rq_time{envoy_http_conn_manager_prefix="
                                "\"ing\",quantile=\"0\"} nan\n"));
    assert_non_null(strstr(got, "quantile=\"0.995\"} nan\n"));
    assert_non_null(strstr(got, "_sum{envoy_http_conn_manager_prefix=\"ing\"} 0\n"));
    xfree(got);
}

/* Scopes with tags of their own; a namespace that is no part of the name. */
static void test_explicit_tags(void **state) {
    (void)state;
    const struct stats_tag tags[] = {{SV("envoy.cluster_name"), SV("a.b")}, {SV("x-y"), SV("1")}};
    struct stats_scope *t =
        stats_scope_get_tagged(store, &k_stats_group, SV("cluster.a.b."), SV("cluster."), tags, 2);
    struct stats_codes *codes = stats_codes_new(t, "upstream_rq_");
    stats_codes_inc(codes, 204);
    stats_inc(stats_shard(t, 0), K_response_flood);
    stats_store_add_namespace(store, SV("istiocustom"));
    struct stats_scope *ns = stats_scope_get(store, &k_stats_group, SV("istiocustom.istio_"));
    stats_inc(stats_shard(ns, 0), K_response_flood);
    expect("usedonly", true,
           "# TYPE envoy_cluster_response_flood counter\n"
           "envoy_cluster_response_flood{envoy_cluster_name=\"a.b\",x_y=\"1\"} 1\n"
           "# TYPE envoy_cluster_upstream_rq counter\n"
           "envoy_cluster_upstream_rq{envoy_response_code=\"204\",envoy_cluster_name=\"a.b\",x_y="
           "\"1\"} 1\n"
           "# TYPE envoy_cluster_upstream_rq_xx counter\n"
           "envoy_cluster_upstream_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"a."
           "b\",x_y=\"1\"} 1\n"
           "# TYPE istio_response_flood counter\nistio_response_flood{} 1\n");
    stats_codes_free(codes);
    stats_scope_unref(t);
    stats_scope_unref(ns);
}

/* --- matcher, buckets --- */

static bool ends_with(const void *arg, sv name) { return sv_ends(name, sv_cstr(arg)); }

static void test_matcher(void **state) {
    (void)state;
    const struct stats_name_test tests[] = {{ends_with, "cx_total"}, {ends_with, "_ok"}};
    struct stats_config c = {.matcher = STATS_INCLUDE_LISTED, .tests = tests, .tests_n = 2};
    stats_store_configure(store, &c);
    stats_inc(stats_shard(sc, 0), H_downstream_rq_2xx);
    stat_dyn_add(stats_dyn(sc, SV("dyn_ok"), STAT_COUNTER), 1);
    stat_dyn_add(stats_dyn(sc, SV("dyn_bad"), STAT_COUNTER), 1);
    expect("", false, "http.ing.downstream_cx_total: 0\nhttp.ing.dyn_ok: 1\n");
    expect("", true,
           "# TYPE envoy_http_downstream_cx_total counter\n"
           "envoy_http_downstream_cx_total{envoy_http_conn_manager_prefix=\"ing\"} 0\n"
           "# TYPE envoy_http_dyn_ok "
           "counter\nenvoy_http_dyn_ok{envoy_http_conn_manager_prefix=\"ing\"} 1\n");
}

static void test_matcher_kinds(void **state) {
    (void)state;
    const struct stats_name_test tests[] = {{ends_with, "total"}};
    static const struct {
        enum stats_matcher_kind kind;
        bool total, other;
    } cases[] = {{STATS_ACCEPT_ALL, false, false},
                 {STATS_REJECT_ALL, true, true},
                 {STATS_EXCLUDE_LISTED, true, false},
                 {STATS_INCLUDE_LISTED, false, true}};
    for (size_t i = 0; i < 4; i++) {
        struct stats_config c = {.matcher = cases[i].kind, .tests = tests, .tests_n = 1};
        assert_row(stats_config_rejects(&c, SV("a.total")) == cases[i].total, i);
        assert_row(stats_config_rejects(&c, SV("a.other")) == cases[i].other, i);
    }
    assert_false(stats_config_rejects(NULL, SV("x")));
}

static void test_buckets(void **state) {
    (void)state;
    static const double bounds[] = {1, 7};
    const struct stats_bucket_rule rules[] = {{{ends_with, "nope"}, bounds, 1},
                                              {{ends_with, "rq_time"}, bounds, 2}};
    struct stats_config c = {.buckets = rules, .buckets_n = 2};
    stats_store_configure(store, &c);
    record();
    expect("usedonly&histogram_buckets=cumulative", false,
           "http.ing.downstream_rq_time: B1(9,10) B7(9,11)\n");
    char *got = export("usedonly", true, 1 << 20);
    assert_non_null(strstr(
        got,
        "le=\"1\"} 10\nenvoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"ing\","
        "le=\"7\"} 11\nenvoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix=\"ing\","
        "le=\"+Inf\"} 11\n"));
    xfree(got);
}

/* --- parameters --- */

static void test_bad_params(void **state) {
    (void)state;
    static const struct {
        const char *query;
        bool is_prometheus;
        const char *want;
    } cases[] = {
        {"format=zz", false, "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"},
        {"format=", false, "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n"},
        {"filter=(", false, "Invalid re2 regex: missing ): ("},
        {"filter=%28", true, "Invalid re2 regex: missing ): ("},
        {"usedonly&filter=[", false, "Invalid re2 regex: missing ]: ["},
        {"type=bogus", false, "invalid &type= param"},
        {"type=counters", false, "invalid &type= param"},
        {"histogram_buckets=bogus", false,
         "usage: "
         "/stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n"},
        {"histogram_buckets=prometheusnative", false,
         "Invalid histogram_buckets type for non prometheus stats type"},
        {"histogram_buckets=prometheusnative", true,
         "unsupported prometheusnative histogram type when not using protobuf exposition format"},
        {"histogram_buckets=detailed", true, "unsupported prometheus histogram bucket mode"},
        {"histogram_buckets=disjoint&format=prometheus", false,
         "unsupported prometheus histogram bucket mode"},
        {"hidden=zz", false, "usage: /stats?hidden=(include|only|exclude)\n\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        BUF_AUTO struct buf err = {0};
        struct stats_params p;
        assert_row(!stats_params_parse(&p, sv_cstr(cases[i].query), cases[i].is_prometheus, &err),
                   i);
        char *text = buf_dup_str(&err);
        assert_string_equal(text, cases[i].want);
        xfree(text);
    }
}

static void test_good_params(void **state) {
    (void)state;
    static const char *const queries[] = {"",
                                          "&&&",
                                          "=",
                                          "unknown=1&usedonly",
                                          "filter=",
                                          "filter=a&filter=b",
                                          "type=All",
                                          "histogram_buckets=none",
                                          "format=active-html",
                                          "filter=%",
                                          "filter=%zz",
                                          "hidden=include"};
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        BUF_AUTO struct buf err = {0};
        struct stats_params p;
        assert_row(stats_params_parse(&p, sv_cstr(queries[i]), false, &err), i);
        stats_params_fini(&p);
    }
    assert_string_equal(stats_content_type(STATS_JSON), "application/json");
    assert_string_equal(stats_content_type(STATS_HTML), "text/html; charset=UTF-8");
    assert_string_equal(stats_content_type(STATS_PROMETHEUS), "text/plain; charset=UTF-8");
}

/* --- streaming --- */

#define SCOPES 300
/* Every step some scopes go and some come: no crash, no duplicate, names ascend, TYPE lines are
 * unique. */
static void churn_export(bool is_prometheus) {
    struct stats_scope *all[SCOPES];
    for (int i = 0; i < SCOPES; i++) {
        char name[32];
        int n = snprintf(name, sizeof(name), "cluster.c%03d.", i);
        all[i] = stats_scope_get(store, &h_stats_group, sv_from(name, (size_t)n));
        stats_inc(stats_shard(all[i], 0), H_downstream_cx_total);
        stat_dyn_add(stats_dyn(all[i], SV("upstream_rq_200"), STAT_COUNTER), 1);
    }
    struct stats_params p = {.format = is_prometheus ? STATS_PROMETHEUS : STATS_TEXT,
                             .kinds = STATS_KINDS_ALL};
    struct stats_iter *it = stats_iter_new(store, &p);
    BUF_AUTO struct buf out = {0};
    int gone = 0;
    for (int i = 0; stats_iter_next(it, &out, 1); i++) {
        if (i % 2 == 0 && gone < SCOPES) { /* in an order of its own */
            int k = gone++ * 7 % SCOPES;
            stats_scope_unref(all[k]);
            all[k] = NULL;
        }
        struct stats_scope *fresh = stats_scope_get(store, &k_stats_group, SV("cluster.c150.x."));
        stats_scope_unref(fresh);
    }
    stats_iter_free(it);
    char *text = buf_dup_str(&out);
    if (is_prometheus) {
        char *first = strstr(text, "# TYPE envoy_cluster_downstream_cx_total counter");
        assert_non_null(first);
        assert_null(strstr(first + 1, "# TYPE envoy_cluster_downstream_cx_total counter"));
    }
    xfree(text);
    for (int i = 0; i < SCOPES; i++) {
        stats_scope_unref(all[i]);
    }
}
static void test_churn_text(void **state) {
    (void)state;
    churn_export(false);
}
static void test_churn_prometheus(void **state) {
    (void)state;
    churn_export(true);
    churn_export(true); /* classes went away with their scopes */
}

static void test_order(void **state) {
    (void)state;
    static const char *const prefixes[] = {"b.", "", "a.", "a.b.", "a.a.", "a"};
    struct stats_scope *s[6];
    for (int i = 0; i < 6; i++) {
        s[i] = stats_scope_get(store, &h_stats_group, sv_cstr(prefixes[i]));
        stat_dyn_add(stats_dyn(s[i], SV("zz"), STAT_COUNTER), 1);
        stat_dyn_add(stats_dyn(s[i], SV("aa"), STAT_COUNTER), 1);
    }
    char *text = export("type=Counters", false, 1 << 20);
    sv last = SV_NULL;
    unsigned n = 0;
    for (sv rest = sv_cstr(text); rest.n; n++) {
        sv line = sv_cut(&rest, '\n'), name = sv_sub(line, 0, sv_rfind(line, ':'));
        assert_true(n == 0 || sv_cmp(last, name) < 0);
        last = name;
    }
    /* three counters and two dynamic ones each; and the two scopes of the fixture */
    assert_int_equal(n, 6 * 5 + 4);
    xfree(text);
    for (int i = 0; i < 6; i++) {
        stats_scope_unref(s[i]);
    }
}

/* An iterator that is not finished lets go of everything. */
static void test_abandoned(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct stats_params p = {.format = (enum stats_format)i, .kinds = STATS_KINDS_ALL};
        struct stats_iter *it = stats_iter_new(store, &p);
        BUF_AUTO struct buf out = {0};
        for (int k = 0; k < 3; k++) {
            stats_iter_next(it, &out, 1);
        }
        stats_iter_free(it);
    }
    stats_iter_free(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_text),          TEST(test_histogram_text),   TEST(test_json),
        TEST(test_html),          TEST(test_prometheus),       TEST(test_prometheus_histogram),
        TEST(test_explicit_tags), TEST(test_matcher),          TEST(test_matcher_kinds),
        TEST(test_buckets),       TEST(test_bad_params),       TEST(test_good_params),
        TEST(test_churn_text),    TEST(test_churn_prometheus), TEST(test_order),
        TEST(test_abandoned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
