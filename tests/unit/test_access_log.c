/* Access logs: every filter, which logger is chosen, files: lines, reopening, limits, many
 * threads. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "proxy/api/access_logger.h"
#include "proxy/base/runtime.h"
#include "proxy/event/loop.h"
#include "proxy/observe/access_log_filter.h"
#include "proxy/observe/hooks.h"
#include "proxy/observe/log_sink.h"
#include "proxy/route/matcher.h"
#include "proxy/route/metadata_matcher.h"
#include "proxy/stats/stats_server.h"
#include "tests/support/fake_compile.h"

#define LOG "envoy.config.accesslog.v3.AccessLog"
#define FILTER "envoy.config.accesslog.v3.AccessLogFilter"

static struct fake_compile f;
static struct arena a;
static struct stream_info si;
static struct headers request, response;
static struct rng rng;
static struct loop loop; /* only its index and generator are used */
static char dir[] = "/tmp/test_access_log.XXXXXX";

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    arena_init(&a, 0);
    headers_init(&request, &a);
    headers_init(&response, &a);
    headers_add_copy(&request, SV(":path"), SV("/p"));
    headers_add_copy(&request, SV("x-a"), SV("1"));
    si = (struct stream_info){
        .arena = &a, .request = &request, .response = &response, .response_code = 503};
    si.start_us = 1000;
    si.end_us = 1000 + 25000;
    si.access_log_type = 6;
    rng_seed(&rng, 1);
    rng_seed(&loop.rng, 1);
    observe_hooks_set(&(struct observe_hooks){
        .header_matcher_compile = header_matcher_compile,
        .header_matcher_match = header_matcher_match,
        .metadata_matcher_compile = metadata_matcher_compile,
        .metadata_matcher_match = metadata_matcher_match,
    });
    return 0;
}
static int end(void **state) {
    (void)state;
    observe_hooks_set(&(struct observe_hooks){0});
    arena_fini(&a);
    fake_compile_fini(&f);
    log_sinks_flush(); /* lets go of sinks nobody refers to */
    return 0;
}

/* --- filters --- */

static const struct {
    const char *filter;
    bool want;
} cases[] = {
#define CEL(text)                                                                          \
    "extension_filter { name: 'cel' typed_config { [type.googleapis.com/envoy.extensions." \
    "access_loggers.filters.cel.v3.ExpressionFilter] { expression: '" text "' } } }"
#define CMP(kind, op, n) kind " { comparison { op: " op " value { default_value: " #n " } } }"
    {CMP("status_code_filter", "EQ", 503), true},
    {CMP("status_code_filter", "EQ", 500), false},
    {CMP("status_code_filter", "GE", 503), true},
    {CMP("status_code_filter", "GE", 504), false},
    {CMP("status_code_filter", "LE", 502), false},
    {CMP("status_code_filter", "NE", 503), false},
    {CMP("status_code_filter", "NE", 200), true},
    {"status_code_filter { comparison { op: EQ value { default_value: 1 runtime_key: 'want.status' "
     "} } }",
     true},
    {CMP("duration_filter", "GE", 25), true},
    {CMP("duration_filter", "GE", 26), false},
    {CMP("duration_filter", "LE", 25), true},
    {"not_health_check_filter { }", true},
    {"traceable_filter { }", false},
    {"runtime_filter { runtime_key: 'absent' percent_sampled { numerator: 0 } }", false},
    {"runtime_filter { runtime_key: 'absent' percent_sampled { numerator: 100 } }", true},
    {"runtime_filter { runtime_key: 'absent' percent_sampled { numerator: 1000000 denominator: "
     "MILLION } }",
     true},
    {"runtime_filter { runtime_key: 'all' }", true},
    {"runtime_filter { runtime_key: 'none' percent_sampled { numerator: 100 } "
     "use_independent_randomness: true }",
     false},
    {"runtime_filter { runtime_key: 'absent' }", false},
    {"and_filter { filters { not_health_check_filter { } } filters { not_health_check_filter { } } "
     "}",
     true},
    {"and_filter { filters { not_health_check_filter { } } filters { traceable_filter { } } }",
     false},
    {"or_filter { filters { traceable_filter { } } filters { not_health_check_filter { } } }",
     true},
    {"or_filter { filters { traceable_filter { } } filters { traceable_filter { } } }", false},
    {"header_filter { header { name: 'x-a' string_match { exact: '1' } } }", true},
    {"header_filter { header { name: 'x-a' string_match { exact: '2' } } }", false},
    {"header_filter { header { name: 'x-none' present_match: true } }", false},
    {"response_flag_filter { }", true},
    {"response_flag_filter { flags: 'UF' }", true},
    {"response_flag_filter { flags: 'UH' flags: 'UF' }", true},
    {"response_flag_filter { flags: 'UH' }", false},
    {"grpc_status_filter { statuses: UNAVAILABLE }", true}, /* what 503 stands for */
    {"grpc_status_filter { statuses: OK }", false},
    {"grpc_status_filter { statuses: UNAVAILABLE exclude: true }", false},
    {"grpc_status_filter { statuses: OK exclude: true }", true},
    {"metadata_filter { matcher { filter: 'ns' path { key: 'k' } value { string_match { exact: 'v' "
     "} } } }",
     true},
    {"metadata_filter { matcher { filter: 'ns' path { key: 'k' } value { string_match { exact: 'w' "
     "} } } }",
     false},
    {"metadata_filter { matcher { filter: 'ns' path { key: 'zz' } value { string_match { exact: "
     "'v' } } } }",
     true},
    {"metadata_filter { matcher { filter: 'ns' path { key: 'zz' } value { string_match { exact: "
     "'v' } } } "
     "match_if_key_not_found { value: false } }",
     false},
    {"metadata_filter { }", true},
    {"log_type_filter { types: DownstreamEnd }", true},
    {"log_type_filter { types: TcpConnectionEnd }", false},
    {"log_type_filter { types: DownstreamEnd exclude: true }", false},
    {CEL("response.code >= 400 && request.headers[\\'x-a\\'] == \\'1\\'"), true},
    {CEL("response.code == 200"), false},
    {CEL("response.nope == 200"), false},
};

static void test_filters(void **state) {
    (void)state;
    struct runtime_layer *l = runtime_layer_new(SV("x"));
    runtime_layer_set(l, SV("want.status"), SV("503"));
    runtime_layer_set(l, SV("all"), SV("100"));
    runtime_layer_set(l, SV("none"), SV("0"));
    runtime_publish(&l, 1);
    si.flags = RESPONSE_FLAG(UF);
    si.metadata = kv_metadata_new(&a);
    struct kv_value v = kv_string(SV("v"));
    kv_metadata_set(si.metadata, SV("ns"), SV("k"), &v);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct log_filter *lf =
            log_filter_compile(&f.ctx, fake_msg(&f, FILTER, cases[i].filter));
        sv why = fake_errors(&f);
        if (!lf || log_filter_match(lf, &si, &rng) != cases[i].want) {
            fail_msg("row %zu: %s: %.*s", i, cases[i].filter, SV_ARG(why));
        }
    }
    runtime_layer_free(l);
    runtime_publish(NULL, 0);
    runtime_thread_release();
}

static void test_filters_of_little(void **state) {
    (void)state;
    si = (struct stream_info){.arena = &a, .is_health_check = true, .is_traced = true};
    static const struct {
        const char *filter;
        bool want;
    } rows[] = {
        {CMP("duration_filter", "GE", 0), false}, /* not over yet */
        {CMP("status_code_filter", "EQ", 0), true},
        {"not_health_check_filter { }", false},
        {"traceable_filter { }", true},
        {"response_flag_filter { }", false},
        {"header_filter { header { name: 'x-a' present_match: true } }", false},
        {"header_filter { header { name: 'x-a' present_match: true invert_match: true } }", true},
        {"grpc_status_filter { statuses: UNKNOWN }", true},
        {"metadata_filter { matcher { filter: 'ns' path { key: 'k' } value { string_match { exact: "
         "'v' } } } }",
         true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct log_filter *lf =
            log_filter_compile(&f.ctx, fake_msg(&f, FILTER, rows[i].filter));
        assert_row(lf && log_filter_match(lf, &si, &rng) == rows[i].want, i);
    }
}

/* The request id decides, so that all hops sample the same requests. */
static void test_sampling_by_request_id(void **state) {
    (void)state;
    const struct log_filter *lf = log_filter_compile(
        &f.ctx,
        fake_msg(&f, FILTER,
                 "runtime_filter { runtime_key: 'absent' percent_sampled { numerator: 50 } }"));
    /* 49 */
    headers_add_copy(&request, SV("x-request-id"), SV("00000031-0000-4000-8000-000000000000"));
    for (int i = 0; i < 20; i++) {
        assert_true(log_filter_match(lf, &si, &rng));
    }
    /* 50 */
    headers_set_name(&request, SV("x-request-id"), SV("00000032-0000-4000-8000-000000000000"));
    for (int i = 0; i < 20; i++) {
        assert_false(log_filter_match(lf, &si, &rng));
    }
    headers_set_name(&request, SV("x-request-id"), SV("not a uuid"));
    unsigned n = 0;
    for (int i = 0; i < 1000; i++) {
        n += log_filter_match(lf, &si, &rng);
    }
    assert_in_range(n, 400, 600);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *filter, *want;
    } rows[] = {
        {"", "filter_specifier: value is required"},
        {"status_code_filter { }", "comparison: value is required"},
        {"header_filter { }", "header: value is required"},
        {"and_filter { filters { traceable_filter { } } }",
         "filters: value must contain at least 2 item(s)"},
        {"or_filter { }", "filters: value must contain at least 2 item(s)"},
        {"or_filter { filters { traceable_filter { } } filters { } }",
         "filters[1]: filter_specifier: value is required"},
        {"response_flag_filter { flags: 'XX' }", "flags[0]: unknown response flag 'XX'"},
        {"response_flag_filter { flags: 'UF' flags: '' }", "flags[1]: unknown response flag ''"},
        {"grpc_status_filter { statuses: 77 }",
         "statuses[0]: value must be one of the defined enum values"},
        {"log_type_filter { types: 99 }", "types[0]: value must be one of the defined enum values"},
        {"runtime_filter { runtime_key: 'x' percent_sampled { denominator: 9 } }",
         "percent_sampled.denominator: unknown value 9"},
        {"extension_filter { name: 'foo' }",
         "Didn't find a registered implementation for 'foo' with type URL: ''"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct log_filter *lf =
            log_filter_compile(&f.ctx, fake_msg(&f, FILTER, rows[i].filter));
        sv why = fake_errors(&f);
        if (lf || !sv_is(why, rows[i].want)) {
            fail_msg("row %zu: %.*s", i, SV_ARG(why));
        }
    }
    char deep[4096] = "traceable_filter { }";
    for (int i = 0; i < 40; i++) {
        char outer[4096];
        snprintf(outer, sizeof(outer),
                 "or_filter { filters { traceable_filter { } } filters { %.3000s } }", deep);
        memcpy(deep, outer, sizeof(deep));
    }
    assert_null(log_filter_compile(&f.ctx, fake_msg(&f, FILTER, deep)));
    assert_true(sv_ends(fake_errors(&f), SV("filters are nested deeper than 32")));
}

/* --- lists and files --- */

static const char *path_of(const char *name) { return arena_printf(&f.msgs, "%s/%s", dir, name).p; }

static char *slurp(const char *path) {
    BUF_AUTO struct buf b = {0};
    FILE *in = fopen(path, "r");
    char t[4096];
    size_t n;
    while (in && (n = fread(t, 1, sizeof(t), in)) > 0) {
        buf_append(&b, t, n);
    }
    if (in) {
        fclose(in);
    }
    return buf_dup_str(&b);
}

static struct access_logs *compile(const char *one, const char *two) {
    const void *msgs[2] = {fake_msg(&f, LOG, one), two ? fake_msg(&f, LOG, two) : NULL};
    return access_logs_compile(&f.ctx, msgs, two ? 2 : 1);
}
#define FILE_LOG "[type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog]"
static const char *file_log(const char *path, const char *rest, const char *filter) {
    return arena_printf(&f.msgs, "name: 'x' %s typed_config { " FILE_LOG " { path: '%s' %s } }",
                        filter, path, rest)
        .p;
}

static void test_files(void **state) {
    (void)state;
    const char *one = path_of("one"), *two = path_of("two");
    struct access_logs *logs = compile(
        file_log(one, "log_format { text_format: 'code %RESPONSE_CODE%\\n' }", ""),
        file_log(
            two,
            "typed_json_format { fields { key: 'c' value { string_value: '%RESPONSE_CODE%' } } }",
            "filter { " CMP("status_code_filter", "EQ", 200) " }"));
    assert_non_null(logs);
    access_logs_run(logs, &si, ACCESS_LOG_DOWNSTREAM_END, &loop);
    si.response_code = 200;
    access_logs_run(logs, &si, ACCESS_LOG_DOWNSTREAM_END, &loop);
    log_sinks_flush();
    char *t = slurp(one);
    assert_string_equal(t, "code 503\ncode 200\n");
    xfree(t);
    t = slurp(two);
    assert_string_equal(t, "{\"c\":200}\n");
    xfree(t);
    access_logs_run(NULL, &si, ACCESS_LOG_DOWNSTREAM_END, &loop);
    assert_null(access_logs_compile(&f.ctx, NULL, 0));
    assert_true(diag_ok(&f.diag));
}

static void test_default_format(void **state) {
    (void)state;
    const char *path = path_of("default");
    si.has_protocol = true;
    si.protocol = HTTP_11;
    headers_add_copy(&request, SV(":method"), SV("GET"));
    headers_add_copy(&request, SV(":authority"), SV("h"));
    /* one file, two loggers */
    struct access_logs *logs = compile(file_log(path, "", ""), file_log(path, "format: ''", ""));
    access_logs_run(logs, &si, ACCESS_LOG_DOWNSTREAM_END, &loop);
    log_sinks_flush();
    char *t = slurp(path);
    static const char want[] = "[1970-01-01T00:00:00.000Z] \"GET /p HTTP/1.1\" 503 - 0 0 25 - "
                               "\"-\" \"-\" \"-\" \"h\" \"-\"\n";
    assert_int_equal(strlen(t), 2 * strlen(want));
    assert_memory_equal(t, want, strlen(want));
    xfree(t);
}

static void test_logger_errors(void **state) {
    (void)state;
    static const struct {
        const char *log, *want;
    } rows[] = {
        {"name: 'nope'",
         "access_log[0]: Didn't find a registered implementation for 'nope' with type URL: ''"},
        {"name: 'x' typed_config { " FILE_LOG " { path: '/nope/x' } }",
         "access_log[0].typed_config: unable to open file '/nope/x': No such file or directory"},
        {"name: 'x' typed_config { " FILE_LOG " { path: '/dev/null' format: '%NOPE%' } }",
         "access_log[0].typed_config: Not supported field in StreamInfo: NOPE"},
        {"name: 'x' filter { } typed_config { " FILE_LOG " { path: '/dev/null' } }",
         "access_log[0].filter: filter_specifier: value is required"},
        {"name: 'x' typed_config { "
         "[type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog] { "
         "log_format { text_format: '%' } } }",
         "access_log[0].typed_config: Incorrect configuration: %. Couldn't find valid command at "
         "position 0"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_row(!compile(rows[i].log, NULL), i);
        sv why = fake_errors(&f);
        if (!sv_is(why, rows[i].want)) {
            fail_msg("row %zu: %.*s", i, SV_ARG(why));
        }
    }
    assert_non_null(compile(
        "name: 'x' typed_config { "
        "[type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StderrAccessLog] { } }",
        NULL));
}

static void append(struct log_sink *s, unsigned thread, const char *text) {
    BUF_AUTO struct buf b = {0};
    buf_append_sv(&b, sv_cstr(text));
    log_sink_append(s, thread, &b);
}

static void test_reopen(void **state) {
    (void)state;
    struct stats_store *store = stats_store_new(3);
    const char *path = path_of("log"), *old = path_of("log.1");
    log_sinks_start(3, 60000, store);
    struct log_sink *s = log_sink_get(sv_cstr(path), &f.diag);
    append(s, 2, "before\n");
    assert_int_equal(rename(path, old), 0);
    log_sinks_reopen();
    char *t;
    struct stat st;
    while (stat(path, &st) != 0) { /* until the flush thread made the new file */
        assert_int_equal(errno, ENOENT);
    }
    append(s, 1, "after\n");
    log_sinks_flush();
    t = slurp(old);
    assert_string_equal(t, "before\n");
    xfree(t);
    t = slurp(path);
    assert_string_equal(t, "after\n");
    xfree(t);
    log_sinks_publish_stats(0);
    struct stats_scope *sc = stats_scope_get(store, &filesystem_stats_group, SV("filesystem."));
    assert_int_equal(stats_scope_value(sc, FILESYSTEM_reopen_failed), 0);
    assert_true(stats_scope_value(sc, FILESYSTEM_write_buffered) >= 2);
    assert_true(stats_scope_value(sc, FILESYSTEM_write_completed) >= 2);
    assert_int_equal(stats_scope_value(sc, FILESYSTEM_write_total_buffered), 0);
    stats_scope_unref(sc);
    log_sink_unref(s);
    log_sinks_stop();
    log_sinks_stop(); /* idempotent */
    stats_store_free(store);
}

/* A disk that does not keep up: lines are dropped whole, counted, and logging goes on
 * afterwards. */
static void test_queue_limit(void **state) {
    (void)state;
    const char *path = path_of("big");
    struct log_sink *s = log_sink_get(sv_cstr(path), &f.diag);
    BUF_AUTO struct buf line = {0};
    char *bytes = xalloc(100000);
    memset(bytes, 'x', 100000);
    buf_append(&line, bytes, 100000);
    xfree(bytes);
    for (int i = 0; i < 300; i++) { /* 30 MB, nobody writes */
        log_sink_append(s, 0, &line);
    }
    log_sinks_flush();
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_true(st.st_size <= (off_t)LOG_QUEUE_BYTES_MAX);
    assert_int_equal(st.st_size % 100000, 0);
    log_sink_append(s, 0, &line);
    log_sinks_flush();
    struct stat later;
    assert_int_equal(stat(path, &later), 0);
    assert_int_equal(later.st_size, st.st_size + 100000);
    struct buf empty = {0};
    log_sink_append(s, 0, &empty);
    log_sink_unref(s);
    log_sink_unref(NULL);
}

#define LINES 5000
static struct log_sink *shared_sink;
static void *writer(void *arg) {
    unsigned id = (unsigned)(uintptr_t)arg;
    for (int i = 0; i < LINES; i++) {
        char line[64];
        snprintf(line, sizeof(line), "%u:%06d:abcdefghijklmnopqrstuvwxyz0123456789\n", id, i);
        append(shared_sink, id, line);
    }
    chunk_cache_trim();
    return NULL;
}

/* No line is torn or lost, and each thread's lines keep their order. */
static void test_many_threads(void **state) {
    (void)state;
    const char *path = path_of("many");
    log_sinks_start(4, 1, NULL);
    shared_sink = log_sink_get(sv_cstr(path), &f.diag);
    pthread_t t[4];
    for (uintptr_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, writer, (void *)i), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
    }
    log_sink_unref(shared_sink);
    log_sinks_stop();
    char *all = slurp(path);
    int next[4] = {0};
    for (sv rest = sv_cstr(all); rest.n;) {
        sv tail = sv_cut(&rest, '\n'), id = sv_cut(&tail, ':'), number = sv_cut(&tail, ':');
        uint64_t thread, n;
        assert_true(sv_to_u64(id, &thread) && thread < 4);
        assert_true(sv_to_u64(number, &n));
        assert_int_equal(n, next[thread]++);
        assert_sv_is(tail, "abcdefghijklmnopqrstuvwxyz0123456789");
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(next[i], LINES);
    }
    xfree(all);
}

/* Lines of all threads stand in the order in which they were appended, with buffers of several
 * sizes full in between. */
static void test_order(void **state) {
    (void)state;
    static const char filler[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const char *path = path_of("order");
    log_sinks_start(4, 1, NULL);
    struct log_sink *s = log_sink_get(sv_cstr(path), &f.diag);
    for (unsigned i = 0; i < 4 * LINES; i++) {
        char line[2 * LOG_BUFFER_BYTES];
        unsigned n = (unsigned)snprintf(line, sizeof(line), "%06u:%s", i, filler);
        if (i % 1999 == 0) { /* larger than any buffer */
            memset(line + n, 'x', LOG_BUFFER_BYTES);
            n += LOG_BUFFER_BYTES;
        }
        snprintf(line + n, sizeof(line) - n, "\n");
        append(s, i * 7 % 13 % 4, line);
    }
    log_sink_unref(s);
    log_sinks_stop();
    char *all = slurp(path);
    unsigned want = 0;
    for (sv rest = sv_cstr(all); rest.n; want++) {
        sv tail = sv_cut(&rest, '\n'), number = sv_cut(&tail, ':');
        uint64_t n;
        assert_true(sv_to_u64(number, &n));
        assert_int_equal(n, want);
        assert_int_equal(tail.n, sizeof(filler) - 1 + (want % 1999 ? 0 : LOG_BUFFER_BYTES));
    }
    assert_int_equal(want, 4 * LINES);
    xfree(all);
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}
static int remove_dir(void **state) {
    (void)state;
    static const char *const names[] = {"one",   "two", "default", "log",
                                        "log.1", "big", "many",    "order"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        unlink(path);
    }
    return rmdir(dir);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, end)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_filters),
        TEST(test_filters_of_little),
        TEST(test_sampling_by_request_id),
        TEST(test_refused),
        TEST(test_files),
        TEST(test_default_format),
        TEST(test_logger_errors),
        TEST(test_reopen),
        TEST(test_queue_limit),
        TEST(test_many_threads),
        TEST(test_order),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
