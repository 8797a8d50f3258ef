/* Spans between their end and the collector: batches, the timer, limits, and the worker's end. */
#include "filters/common/span_reporter.h"

#include "proxy/api/http_filter.h"
#include "proxy/base/runtime.h"
#include "tests/support/unit.h"

#define SPANS_MAX 20u
#define INTERVAL_MS 100u

struct worker {
    struct loop loop;
    struct list endings;
};
struct owner {
    struct shared shared;
    struct arena arena;
};
static struct {
    struct worker w;
    struct owner *owner;
    struct span_reporter *r;
    unsigned owners; /* alive */
    struct span_report *reports[64];
    unsigned reports_n, cancelled;
    char sent[64];
    unsigned spans_sent, by_timer, dropped;
} t;

struct loop *worker_loop(struct worker *w) {
    return &w->loop;
}
void worker_at_end(struct worker *w, struct worker_ending *e) {
    if (!list_linked(&e->node_)) {
        list_push_back(&w->endings, &e->node_);
    }
}
void upstream_call_cancel(struct upstream_call *c) {
    assert_non_null(c);
    t.cancelled++;
}

static struct upstream_call *send_report(const void *config, struct worker *w, struct buf *spans,
                                         struct span_report *r) {
    assert_ptr_equal(config, &t);
    assert_ptr_equal(w, &t.w);
    size_t n = buf_peek(spans, 0, t.sent, sizeof(t.sent) - 1);
    t.sent[n] = 0;
    buf_clear(spans);
    t.reports[t.reports_n++] = r;
    return (struct upstream_call *)&t;
}
static void sent(const void *config, struct worker *w, unsigned spans, bool by_timer) {
    (void)config, (void)w;
    t.spans_sent += spans;
    t.by_timer += by_timer;
}
static void dropped(const void *config, struct worker *w, unsigned spans) {
    (void)config, (void)w;
    t.dropped += spans;
}
static const struct span_reporter_ops ops = {.send = send_report, .sent = sent, .dropped = dropped};

static void free_owner(struct shared *s) {
    struct owner *o = (struct owner *)s;
    t.owners--;
    arena_fini(&o->arena);
    xfree(o);
}

static void set_runtime(const char *key, const char *value) {
    struct runtime_layer *l = runtime_layer_new(SV("test"));
    runtime_layer_set(l, sv_cstr(key), sv_cstr(value));
    runtime_publish(&l, 1);
    runtime_layer_free(l);
}

static int begin(void **state) {
    (void)state;
    memset(&t, 0, sizeof(t));
    list_init(&t.w.endings);
    t.w.loop.wheel = timer_wheel_new(NULL);
    t.w.loop.thread_index = 2;
    t.owner = xnew(struct owner);
    shared_init(&t.owner->shared, free_owner);
    arena_init(&t.owner->arena, 0);
    t.owners = 1;
    static const struct span_reporter_limits limits = {.min_flush_key = SV_INIT("t.min"),
                                                       .interval_key = SV_INIT("t.interval"),
                                                       .min_flush = 3,
                                                       .interval_ms = INTERVAL_MS,
                                                       .spans_max = SPANS_MAX};
    t.r = span_reporter_new(&t.owner->arena, &t.owner->shared, &ops, &limits, &t);
    return 0;
}

static int finish(void **state) {
    (void)state;
    assert_true(list_empty(&t.w.endings));
    if (t.owner) {
        shared_unref(&t.owner->shared);
    }
    assert_int_equal(t.owners, 0);
    timer_wheel_free(t.w.loop.wheel);
    runtime_publish(NULL, 0);
    runtime_thread_release();
    chunk_cache_trim();
    return 0;
}

static void add(const char *bytes) {
    struct buf b;
    buf_init(&b);
    buf_append_sv(&b, sv_cstr(bytes));
    span_reporter_add(t.r, &t.w, &b);
    assert_true(buf_empty(&b));
    buf_fini(&b);
}

static void advance(uint64_t ms) {
    t.w.loop.now_us_ += ms * 1000;
    timer_wheel_advance(t.w.loop.wheel, t.w.loop.now_us_ / 1000);
}

static void end_worker(void) {
    for (struct list *n; (n = list_pop_front(&t.w.endings));) {
        struct worker_ending *e = CONTAINER_OF(n, struct worker_ending, node_);
        e->run(e);
    }
}

static void by_count(void **state) {
    (void)state;
    add("a");
    add("b");
    assert_int_equal(t.reports_n, 0);
    add("c");
    assert_int_equal(t.reports_n, 1);
    assert_string_equal(t.sent, "abc");
    assert_int_equal(t.spans_sent, 3);
    assert_int_equal(t.by_timer, 0);
    advance(2 * INTERVAL_MS); /* nothing waits: no timer */
    assert_int_equal(t.reports_n, 1);
    span_report_done(t.reports[0]);
}

static void by_time(void **state) {
    (void)state;
    add("a");
    advance(INTERVAL_MS - 1);
    assert_int_equal(t.reports_n, 0);
    advance(1);
    assert_int_equal(t.reports_n, 1);
    assert_int_equal(t.by_timer, 1);
    span_report_done(t.reports[0]);
    add("b");
    advance(INTERVAL_MS);
    assert_int_equal(t.reports_n, 2);
    assert_string_equal(t.sent, "b");
    span_report_done(t.reports[1]);
}

static void runtime_decides(void **state) {
    (void)state;
    set_runtime("t.min", "1");
    add("a");
    assert_int_equal(t.reports_n, 1);
    set_runtime("t.min", "0"); /* as 1 */
    add("b");
    assert_int_equal(t.reports_n, 2);
    set_runtime("t.interval", "7");
    add("c");
    advance(7);
    assert_int_equal(t.reports_n, 3);
    for (unsigned i = 0; i < 3; i++) {
        span_report_done(t.reports[i]);
    }
}

/* A collector that hangs: reports are bounded, then spans are, and the rest is counted. */
static void bounded(void **state) {
    (void)state;
    set_runtime("t.min", "1");
    for (unsigned i = 0; i < SPAN_REPORTS_MAX + SPANS_MAX + 5; i++) {
        add("x");
    }
    assert_int_equal(t.reports_n, SPAN_REPORTS_MAX);
    assert_int_equal(t.dropped, 5);
    advance(10 * INTERVAL_MS);
    assert_int_equal(t.reports_n, SPAN_REPORTS_MAX);
    span_report_done(t.reports[0]); /* room for one: all that wait go with it */
    assert_int_equal(t.reports_n, SPAN_REPORTS_MAX + 1);
    assert_int_equal(strlen(t.sent), SPANS_MAX);
    assert_int_equal(t.spans_sent, SPAN_REPORTS_MAX + SPANS_MAX);
    for (unsigned i = 1; i < t.reports_n; i++) {
        span_report_done(t.reports[i]);
    }
}

/* The listener goes while spans wait: they are sent all the same, and then everything is freed. */
static void outlives_config(void **state) {
    (void)state;
    add("a");
    shared_unref(&t.owner->shared);
    t.owner = NULL;
    assert_int_equal(t.owners, 1);
    advance(INTERVAL_MS);
    assert_int_equal(t.reports_n, 1);
    assert_int_equal(t.owners, 1);
    span_report_done(t.reports[0]);
    assert_int_equal(t.owners, 0);
}

static void worker_ends(void **state) {
    (void)state;
    add("a");
    add("b");
    add("c"); /* under way */
    add("d"); /* waits */
    end_worker();
    assert_int_equal(t.cancelled, 1);
    advance(2 * INTERVAL_MS);
    assert_int_equal(t.reports_n, 1);
}

static void worker_ends_last(void **state) {
    (void)state;
    add("a");
    shared_unref(&t.owner->shared);
    t.owner = NULL;
    end_worker();
    assert_int_equal(t.owners, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(by_count, begin, finish),
        cmocka_unit_test_setup_teardown(by_time, begin, finish),
        cmocka_unit_test_setup_teardown(runtime_decides, begin, finish),
        cmocka_unit_test_setup_teardown(bounded, begin, finish),
        cmocka_unit_test_setup_teardown(outlives_config, begin, finish),
        cmocka_unit_test_setup_teardown(worker_ends, begin, finish),
        cmocka_unit_test_setup_teardown(worker_ends_last, begin, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
