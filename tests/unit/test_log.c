/* The process log: levels, patterns, escaping, files, threads. */
#include "proxy/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

#include "proxy/base/log_format.h"
#include "proxy/base/mem.h"
#include "tests/support/unit.h"

static char dir[] = "/tmp/sluice-test-log-XXXXXX";
static char path[64], moved[64];

static int make_dir(void **state) {
    (void)state;
    setenv("TZ", "XYZ-05:30", 1); /* east of Greenwich, half an hour off */
    tzset();
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof(path), "%s/log", dir);
    snprintf(moved, sizeof(moved), "%s/moved", dir);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    unlink(path);
    unlink(moved);
    return rmdir(dir);
}

static int open_log(void **state) {
    (void)state;
    unlink(path);
    return log_open(path);
}

static int close_log(void **state) {
    (void)state;
    log_set_all(LOG_INFO);
    log_set_escaped(false);
    return log_open(NULL);
}

/* What the log holds, as a heap string. */
static char *slurp(const char *name) {
    FILE *f = fopen(name, "r");
    assert_non_null(f);
    struct stat st;
    assert_int_equal(fstat(fileno(f), &st), 0);
    char *text = xcalloc((size_t)st.st_size + 1, 1);
    assert_int_equal(fread(text, 1, (size_t)st.st_size, f), st.st_size);
    fclose(f);
    return text;
}

static void assert_logged(const char *want) {
    char *text = slurp(path);
    assert_string_equal(text, want);
    xfree(text);
}

static void set_format(const char *fmt) {
    char err[100] = "";
    assert_true(log_set_format(fmt, err, sizeof(err)));
    assert_string_equal(err, "");
}

/* ---- levels ---- */

static void test_level_names(void **state) {
    (void)state;
    static const struct {
        const char *name;
        bool ok;
        enum log_level level;
    } rows[] = {
        {"trace", true, LOG_TRACE},       {"debug", true, LOG_DEBUG}, {"info", true, LOG_INFO},
        {"warning", true, LOG_WARN},      {"warn", true, LOG_WARN},   {"error", true, LOG_ERROR},
        {"critical", true, LOG_CRITICAL}, {"off", true, LOG_OFF},     {"", false, LOG_OFF},
        {"INFO", false, LOG_OFF},         {"infos", false, LOG_OFF},  {"inf", false, LOG_OFF},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum log_level l = LOG_OFF;
        assert_row(log_level_parse(sv_cstr(rows[i].name), &l) == rows[i].ok, i);
        assert_row(l == rows[i].level, i);
    }
    assert_string_equal(log_level_name(LOG_WARN), "warning");
    enum log_component c;
    assert_true(log_component_parse(SV("upstream"), &c));
    assert_int_equal(c, LOG_upstream);
    assert_string_equal(log_component_name(c), "upstream");
    assert_false(log_component_parse(SV("upstreams"), &c));
    assert_false(log_component_parse(SV_NULL, &c));
}

static int evaluated;
static int evaluate(void) { return ++evaluated; }

static void test_levels_by_component(void **state) {
    (void)state;
    set_format("%l %n %v");
    evaluated = 0;
    log_debug(LOG_upstream, "%d", evaluate());
    log_info(LOG_upstream, "%d", evaluate());
    log_set(LOG_upstream, LOG_DEBUG);
    log_debug(LOG_upstream, "%d", evaluate());
    log_trace(LOG_upstream, "%d", evaluate());
    log_debug(LOG_http, "%d", evaluate());
    log_set_all(LOG_OFF);
    log_critical(LOG_main, "%d", evaluate());
    log_set_all(LOG_CRITICAL);
    log_error(LOG_main, "%d", evaluate());
    log_critical(LOG_main, "%d", evaluate());
    assert_int_equal(evaluated, 3);
    assert_logged("info upstream 1\ndebug upstream 2\ncritical main 3\n");
}

static void test_limit(void **state) {
    (void)state;
    set_format("%v");
    for (int i = 0; i < 100; i++) {
        log_warn_limited(LOG_main, "%d", i);
    }
    log_warn_limited(LOG_main, "other place");
    assert_logged("0\nother place\n");
    uint64_t long_ago = 1;
    assert_true(log_limit(&long_ago));
    assert_false(log_limit(&long_ago));
}

/* ---- patterns ---- */

static void print_sample(const char *fmt, const char *message, struct log_text *out) {
    char err[100] = "";
    struct log_format *f = log_format_new(fmt, err, sizeof(err));
    assert_string_equal(err, "");
    struct log_record r = {LOG_upstream,          LOG_WARN,        "proxy/upstream/host.c", 42,
                           {1700000000, 7008009}, sv_cstr(message)};
    log_format_print(f, &r, out);
    log_format_free(f);
}

static void test_patterns(void **state) {
    (void)state;
    static const struct {
        const char *fmt, *message, *want;
    } rows[] = {
        {"", "m", ""},
        {"%v", "m", "m"},
        {"[%Y-%m-%d %T.%e][%l][%n] [%g:%#] %v", "m",
         "[2023-11-15 03:43:20.007][warning][upstream] [proxy/upstream/host.c:42] m"},
        {"%L|%s|%@", "m", "W|host.c|proxy/upstream/host.c:42"},
        {"%a %A %b %h %B %C %D %x", "m", "Wed Wednesday Nov Nov November 23 11/15/23 11/15/23"},
        {"%H %I %M %S %p %R %X %r", "m", "03 03 43 20 AM 03:43 03:43:20 03:43:20 AM"},
        {"%c", "m", "Wed Nov 15 03:43:20 2023"},
        {"%e %f %F %E %z", "m", "007 007008 007008009 1700000000 +05:30"},
        {"100%% %^%v%$", "m", "100% m"},
        {"%!%v", "m", "m"},
        {"%8l|%-8n|%=10l|%3l|%3!l", "m", " warning|upstream| warning  |warning|war"},
        {"%10n|%-10n|", "m", "  upstream|upstream  |"},
        {"%_", "a\n\nb\n", "a\\n\\nb\\n"},
        {"%v", "a\nb", "a\nb"},
        {"%j", "a\"\\\n\t\b\f\r\x01\x7f\xc3\xa4", "a\\\"\\\\\\n\\t\\b\\f\\r\\u0001\\u007f\xc3\xa4"},
        {"%j", "[Tags: \"k\":\"v\"] m", "[Tags: \\\"k\\\":\\\"v\\\"] m"},
        {"%+", "m", "m"},
        {"%+", " m", " m"},
        {"%+%*", "[Tags: \"k\":\"v\",\"l\":\"w\"] m", "m,\"k\":\"v\",\"l\":\"w\""},
        {"%+%*", "[Tags: \"k\":\"v\"] mes\"] sge", "mes\\\"] sge,\"k\":\"v\""},
        {"%+%*", "[Tags: \"k\":\"v\"]", "[Tags: \\\"k\\\":\\\"v\\\"]"},
        {"%*", "m", ""},
        {"{\"level\":\"%l\",\"msg\":\"%j\"}", "\"", "{\"level\":\"warning\",\"msg\":\"\\\"\"}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct log_text out LOG_TEXT_AUTO;
        log_text_init(&out);
        print_sample(rows[i].fmt, rows[i].message, &out);
        assert_sv_is(sv_from(out.p, out.n), rows[i].want);
    }
}

static void test_ids(void **state) {
    (void)state;
    char want[64];
    snprintf(want, sizeof(want), "%d %d", gettid(), getpid());
    struct log_text out LOG_TEXT_AUTO;
    log_text_init(&out);
    print_sample("%t %P", "", &out);
    assert_sv_is(sv_from(out.p, out.n), want);
}

static void test_bad_patterns(void **state) {
    (void)state;
    static const struct {
        const char *fmt, *err;
    } rows[] = {
        {"%", "unknown flag '%' in log format"},
        {"a %q b", "unknown flag '%q' in log format"},
        {"%-", "unknown flag '%' in log format"},
        {"%9", "unknown flag '%' in log format"},
        {"%1234v", "unknown flag '%1' in log format"},
        {"%=-v", "unknown flag '%-' in log format"},
    };
    set_format("%v");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char err[100] = "";
        assert_row(!log_set_format(rows[i].fmt, err, sizeof(err)), i);
        assert_string_equal(err, rows[i].err);
    }
    char many[300], err[100];
    for (size_t i = 0; i + 2 < sizeof(many); i += 2) {
        memcpy(many + i, "%v", 3);
    }
    assert_false(log_set_format(many, err, sizeof(err)));
    assert_false(log_set_format("%", NULL, 0));
    log_info(LOG_main, "still the old one");
    assert_logged("still the old one\n");
}

/* ---- lines ---- */

static void test_escaped(void **state) {
    (void)state;
    set_format("<%v>");
    log_set_escaped(true);
    log_info(LOG_main, "a\n\t\r\\\"'\x01\xc3z");
    assert_logged("<a\\n\\t\\r\\\\\\\"\\'\\001\\303z>\n");
}

static void test_long_lines(void **state) {
    (void)state;
    set_format("<%v>");
    static const int widths[] = {1, 4090, 4094, 4095, 4096, 4097, 100000};
    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        assert_int_equal(truncate(path, 0), 0);
        log_info(LOG_main, "%*d", widths[i], 7);
        char *text = slurp(path);
        size_t n = strlen(text);
        assert_row(n == (size_t)widths[i] + 3 && strcmp(text + n - 3, "7>\n") == 0, i);
        xfree(text);
    }
}

static void test_errno_survives(void **state) {
    (void)state;
    assert_int_equal(log_open("/dev/full"), 0);
    errno = ENOENT;
    log_info(LOG_main, "lost");
    assert_int_equal(errno, ENOENT);
}

static void test_default_format(void **state) {
    (void)state;
    set_format("[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v");
    log_warn(LOG_config, "%s", "gone");
    char *text = slurp(path);
    sv s = sv_cstr(text);
    assert_true(sv_eat(&s, SV("[")));
    uint64_t part;
    static const char between[] = "-- ::.";
    for (size_t i = 0; i < 7; i++) {
        assert_row(sv_eat_u64(&s, 4, &part), i);
        assert_row(i == 6 || (s.n && s.p[0] == between[i]), i);
        s = sv_skip(s, i < 6);
    }
    char rest[100];
    snprintf(rest, sizeof(rest), "][%d][warning][config] [tests/unit/test_log.c:", gettid());
    assert_true(sv_eat(&s, sv_cstr(rest)));
    assert_true(sv_ends(s, SV("] gone\n")));
    xfree(text);
}

/* ---- files ---- */

static void test_reopen(void **state) {
    (void)state;
    set_format("%v");
    log_info(LOG_main, "one");
    assert_int_equal(rename(path, moved), 0);
    log_info(LOG_main, "two");
    int fd = log_fd();
    assert_int_equal(log_reopen(), 0);
    assert_int_equal(log_fd(), fd); /* other threads may be writing to it */
    log_info(LOG_main, "three");
    assert_logged("three\n");
    char *old = slurp(moved);
    assert_string_equal(old, "one\ntwo\n");
    xfree(old);
}

static void test_open_errors(void **state) {
    (void)state;
    char long_path[5000];
    memset(long_path, 'x', sizeof(long_path));
    long_path[sizeof(long_path) - 1] = '\0';
    int fd = log_fd();
    assert_int_equal(log_open("/nowhere/at/all"), -ENOENT);
    assert_int_equal(log_open(dir), -EISDIR);
    assert_int_equal(log_open(long_path), -ENAMETOOLONG);
    assert_int_equal(log_fd(), fd);
    set_format("%v");
    log_info(LOG_main, "still here");
    assert_logged("still here\n");
    assert_int_equal(log_open(NULL), 0);
    assert_int_equal(log_fd(), STDERR_FILENO);
    assert_int_equal(log_reopen(), 0);
    assert_int_equal(log_fd(), STDERR_FILENO);
}

/* ---- threads ---- */

enum { THREADS = 4, LINES = 500 };

static void *write_lines(void *arg) {
    log_thread_name("wrk:worker_with_a_very_long_name_indeed");
    assert_string_equal(log_thread(), "wrk:worker_with_a_very_long_nam");
    for (int i = 0; i < LINES; i++) {
        log_info(LOG_main, "%s %d", (const char *)arg, i);
        if (i % 100 == 0) {
            log_reopen();
        }
    }
    return NULL;
}

static void test_lines_of_threads_stay_whole(void **state) {
    (void)state;
    set_format("[%T %t] %v.");
    assert_string_equal(log_thread(), "");
    pthread_t t[THREADS];
    static char text[600];
    memset(text, 'x', sizeof(text) - 1);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, write_lines, text), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(t[i], NULL);
    }
    char *all = slurp(path);
    size_t lines = 0;
    for (sv rest = sv_cstr(all); rest.n; lines++) {
        sv line = sv_cut(&rest, '\n');
        assert_true(sv_starts(line, SV("[")) && sv_ends(line, SV(".")));
        assert_true(sv_find_sv(line, sv_from(text, 599)) < 30);
    }
    assert_int_equal(lines, THREADS * LINES);
    xfree(all);
}

#define WITH_LOG(test) cmocka_unit_test_setup_teardown(test, open_log, close_log)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_level_names),
        WITH_LOG(test_levels_by_component),
        WITH_LOG(test_limit),
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_ids),
        WITH_LOG(test_bad_patterns),
        WITH_LOG(test_escaped),
        WITH_LOG(test_long_lines),
        WITH_LOG(test_errno_survives),
        WITH_LOG(test_default_format),
        WITH_LOG(test_reopen),
        WITH_LOG(test_open_errors),
        WITH_LOG(test_lines_of_threads_stay_whole),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
