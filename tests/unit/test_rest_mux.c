/* Polling over REST: what each poll says, when the next one comes, what becomes of every kind of
 * answer. The exchange itself (rest_call.c) is played by the test. */
#include "protos/any.h"
#include "protos/gen/rpc.pb-c.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/mem.h"
#include "proxy/config/config.h"
#include "tests/support/unit.h"
#include "xds/discovery_wire.h"
#include "xds/rest_call.h"

#include <stdio.h>

#define TURNS_MAX 100000
#define TIMEOUT_MS 700
#define TYPE_URL "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"

static struct loop loop;
static struct xds_mux *mux;

/* ---- the exchange ---- */

struct rest_call {
    rest_call_done_fn done;
    void *user;
};
static struct {
    struct rest_call *open; /* NULL: none is under way */
    unsigned calls, cancelled;
    char path[80];
    struct buf body; /* of the last one */
} net;

struct rest_call *rest_call_start(struct xds_dialer *d, sv path, sv authority, struct buf *body,
                                  uint32_t timeout_ms, rest_call_done_fn done, void *user) {
    assert_null(d);
    assert_null(net.open); /* one at a time */
    assert_sv_is(authority, "plane.test");
    assert_int_equal(timeout_ms, TIMEOUT_MS);
    snprintf(net.path, sizeof(net.path), "%.*s", SV_ARG(path));
    buf_clear(&net.body);
    buf_move(&net.body, body);
    net.calls++;
    net.open = xnew(struct rest_call);
    *net.open = (struct rest_call){done, user};
    return net.open;
}

void rest_call_cancel(struct rest_call *c) {
    assert_ptr_equal(c, net.open);
    net.open = NULL;
    net.cancelled++;
    xfree(c);
}

/* ---- the sink ---- */

static struct {
    unsigned updates, failures, rejections;
    int connected; /* -1: never told */
    char told[200];
    const char *refusal; /* what the next update is refused with; NULL: it is taken */
} sink;

static void on_update(void *user, const struct xds_update *u, struct xds_verdict *v) {
    assert_ptr_equal(user, &sink);
    assert_int_equal(u->type, RES_ENDPOINTS);
    assert_true(u->is_full);
    sink.updates++;
    int n = snprintf(sink.told, sizeof(sink.told), "%.*s:", SV_ARG(u->version));
    for (unsigned i = 0; i < u->resources_n; i++) {
        sv name = resource_name_of(u->type, u->resources[i].wire);
        n += snprintf(sink.told + n, sizeof(sink.told) - (size_t)n, " %.*s", SV_ARG(name));
        v->accepted[i] = !sink.refusal;
    }
    if (sink.refusal) {
        buf_append_sv(v->error, sv_cstr(sink.refusal));
    }
}
static void on_connected(void *user, bool is_connected) {
    assert_ptr_equal(user, &sink);
    assert_int_not_equal(sink.connected, is_connected); /* changes only */
    sink.connected = is_connected;
}
static void on_rejected(void *user, enum resource_type t, sv why) {
    assert_ptr_equal(user, &sink);
    assert_int_equal(t, RES_ENDPOINTS);
    assert_true(why.n > 0);
    sink.rejections++;
}
static void on_failure(void *user, enum resource_type t) {
    assert_ptr_equal(user, &sink);
    assert_int_equal(t, RES_ENDPOINTS);
    sink.failures++;
}
static const struct xds_sink the_sink = {on_update, on_connected, on_rejected, on_failure, &sink};

/* ---- set-up ---- */

static struct xds_mux *make(enum resource_type t) {
    const struct xds_mux_options o = {.only = t,
                                      .node = SV("\n\4node"), /* Node.id */
                                      .authority = SV("plane.test"),
                                      .refresh_delay_ms = 1,
                                      .request_timeout_ms = TIMEOUT_MS};
    return rest_mux_new(&loop, &o, &the_sink);
}

static int start(void **state) {
    (void)state;
    memset(&net, 0, sizeof(net));
    memset(&sink, 0, sizeof(sink));
    buf_init(&net.body);
    sink.connected = -1;
    assert_int_equal(loop_init(&loop, 0), 0);
    mux = make(RES_ENDPOINTS);
    assert_non_null(mux);
    return 0;
}

static int end(void **state) {
    (void)state;
    xds_mux_free(mux);
    assert_null(net.open);
    buf_fini(&net.body);
    loop_fini(&loop);
    chunk_cache_trim();
    return 0;
}

static void watch(const char *name) { xds_mux_watch(mux, RES_ENDPOINTS, sv_cstr(name)); }
static void unwatch(const char *name) { xds_mux_unwatch(mux, RES_ENDPOINTS, sv_cstr(name)); }
static void turn(void) { loop_run_nowait(&loop); }

static void wait_call(void) {
    for (unsigned i = 0; i < TURNS_MAX && !net.open; i++) {
        turn();
    }
    assert_non_null(net.open);
}

/* Time enough for another poll, if one were due. */
static void assert_silence(void) {
    struct rest_call *open = net.open;
    for (uint64_t until = loop_refresh_now(&loop) + 5000; loop_refresh_now(&loop) < until;) {
        turn();
    }
    assert_ptr_equal(net.open, open);
}

/* "v=1 a,b err=text" of the poll under way. */
static void assert_asks_at(const char *want, int line) {
    struct arena a;
    struct diag d;
    struct buf BUF_AUTO text;
    wait_call();
    arena_init(&a, 0);
    diag_init(&d);
    buf_init(&text);
    const ServiceDiscovery__DiscoveryRequest *r =
        (const ServiceDiscovery__DiscoveryRequest *)(const void *)pb_json_parse_text(
            any_type(SV("envoy.service.discovery.v3.DiscoveryRequest")),
            buf_pullup(&net.body, buf_len(&net.body)), PB_JSON_UNKNOWN_ERROR, &a, &d);
    assert_non_null(r);
    assert_string_equal(r->type_url, TYPE_URL);
    assert_string_equal(r->response_nonce, ""); /* polls have none */
    assert_non_null(r->node);
    assert_string_equal(r->node->id, "node");
    buf_printf(&text, "v=%s ", r->version_info);
    for (size_t i = 0; i < r->n_resource_names; i++) {
        buf_printf(&text, "%s%s", i ? "," : "", r->resource_names[i]);
    }
    if (r->error_detail) {
        buf_printf(&text, " err=%s", r->error_detail->message);
    }
    assert_sv_at(buf_pullup(&text, buf_len(&text)), sv_cstr(want), __FILE__, line);
    diag_fini(&d);
    arena_fini(&a);
}
#define assert_asks(want) assert_asks_at((want), __LINE__)

static void finish(const struct rest_call_result *r) {
    struct rest_call c = *net.open;
    xfree(net.open);
    net.open = NULL;
    c.done(c.user, r);
}
static void answer(unsigned code, const char *body) {
    finish(&(struct rest_call_result){.code = code, .body = sv_cstr(body)});
}
static void no_answer(bool is_timed_out) {
    finish(&(struct rest_call_result){.is_timed_out = is_timed_out, .error = "no answer"});
}

#define CLA(name) "{\"@type\":\"" TYPE_URL "\",\"cluster_name\":\"" name "\"}"
#define GOOD(version, resources) \
    "{\"version_info\":\"" version "\",\"type_url\":\"" TYPE_URL "\",\"resources\":[" resources "]}"

/* ---- polls ---- */

static void types_have_methods(void **state) {
    (void)state;
    static const struct {
        enum resource_type type;
        const char *path; /* NULL: none */
    } rows[] = {
        {RES_CLUSTER, "/v3/discovery:clusters"},
        {RES_ENDPOINTS, "/v3/discovery:endpoints"},
        {RES_SECRET, "/v3/discovery:secrets"},
        {RES_LISTENER, "/v3/discovery:listeners"},
        {RES_SCOPED_ROUTE, "/v3/discovery:scoped-routes"},
        {RES_ROUTE, "/v3/discovery:routes"},
        {RES_EXTENSION, "/v3/discovery:extension_configs"},
        {RES_RUNTIME, "/v3/discovery:runtime"},
        {RES_LB_ENDPOINT, NULL},
        {RES_VIRTUAL_HOST, NULL},
        {RES_WORKLOAD, NULL},
    };
    _Static_assert(sizeof(rows) / sizeof(rows[0]) == RES_TYPES, "all of them");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct xds_mux *m = make(rows[i].type);
        assert_row((m != NULL) == (rows[i].path != NULL), i);
        if (m) {
            xds_mux_watch(m, rows[i].type, SV("a"));
            wait_call();
            assert_string_equal(net.path, rows[i].path);
            xds_mux_free(m); /* in the middle of it */
            assert_null(net.open);
        }
    }
    assert_int_equal(net.cancelled, net.calls);
}

static void nothing_is_asked_unwanted(void **state) {
    (void)state;
    assert_silence();
    watch("a");
    assert_null(net.open); /* only at the end of the event */
    unwatch("a");
    assert_silence();
    assert_int_equal(net.calls, 0);
    assert_false(xds_mux_is_connected(mux));
}

static void names_of_one_event_are_one_poll(void **state) {
    (void)state;
    watch("b");
    watch("a");
    watch("a");
    assert_asks("v= a,b");
    assert_int_equal(net.calls, 1);
}

static void polls_go_on_with_the_version(void **state) {
    (void)state;
    watch("a");
    assert_asks("v= a");
    answer(200, GOOD("1", CLA("a")));
    assert_string_equal(sink.told, "1: a");
    assert_int_equal(sink.connected, 1);
    assert_true(xds_mux_is_connected(mux));
    assert_asks("v=1 a");
    answer(304, "");
    assert_int_equal(sink.updates, 1);
    assert_asks("v=1 a");
    answer(200, GOOD("2", ""));
    assert_string_equal(sink.told, "2:");
    assert_asks("v=2 a");
}

static void an_answer_may_leave_out_its_type(void **state) {
    (void)state;
    watch("a");
    wait_call();
    answer(200, "{\"versionInfo\":\"1\",\"resources\":[" CLA("a") "],\"unheard_of\":[1]}");
    assert_string_equal(sink.told, "1: a");
}

/* To a server the version says whether anything is new: with more names all of it is. */
static void more_names_tell_no_version(void **state) {
    (void)state;
    watch("a");
    wait_call();
    answer(200, GOOD("1", CLA("a")));
    watch("b");
    assert_asks("v= a,b");
    answer(200, GOOD("1", CLA("a") "," CLA("b")));
    assert_asks("v=1 a,b");
}

static void names_that_come_during_a_poll(void **state) {
    (void)state;
    watch("a");
    assert_asks("v= a");
    watch("b");
    assert_silence(); /* one at a time */
    answer(200, GOOD("1", CLA("a")));
    turn();
    assert_asks("v= a,b"); /* without waiting for the delay */
    answer(200, GOOD("1", CLA("a") "," CLA("b")));
    assert_asks("v=1 a,b");
}

static void unanswered_names_are_asked_for_anew(void **state) {
    (void)state;
    watch("a");
    wait_call();
    answer(200, GOOD("1", CLA("a")));
    watch("b");
    assert_asks("v= a,b");
    answer(503, "");
    assert_asks("v= a,b");
    no_answer(true);
    assert_asks("v= a,b");
    answer(304, ""); /* to a request without a version: no answer to it */
    assert_asks("v= a,b");
    answer(200, GOOD("1", CLA("a") "," CLA("b")));
    assert_asks("v=1 a,b");
}

static void fewer_names(void **state) {
    (void)state;
    watch("a");
    watch("b");
    wait_call();
    answer(200, GOOD("1", CLA("a") "," CLA("b")));
    unwatch("a");
    assert_asks("v=1 b");
    unwatch("b");
    answer(200, GOOD("2", "")); /* what was under way still counts */
    assert_silence();
    assert_null(net.open);
    watch("b");
    assert_asks("v= b");
}

static void paused(void **state) {
    (void)state;
    xds_mux_pause(mux, RES_ENDPOINTS, true);
    xds_mux_pause(mux, RES_ENDPOINTS, true);
    watch("a");
    assert_silence();
    xds_mux_pause(mux, RES_ENDPOINTS, false);
    assert_silence();
    assert_int_equal(net.calls, 0);
    xds_mux_pause(mux, RES_ENDPOINTS, false);
    assert_asks("v= a");
}

/* ---- answers that are none ---- */

static void failures_are_told_and_polled_on(void **state) {
    (void)state;
    static const unsigned codes[] = {100, 201, 204, 301, 400, 404, 429, 500, 503, 999};
    watch("a");
    wait_call();
    answer(200, GOOD("1", CLA("a")));
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        assert_asks("v=1 a");
        answer(codes[i], GOOD("2", CLA("a")));
        assert_int_equal(sink.failures, i + 1);
        assert_int_equal(sink.connected, 0);
    }
    assert_asks("v=1 a");
    no_answer(false);
    assert_asks("v=1 a");
    no_answer(true);
    assert_int_equal(sink.failures, sizeof(codes) / sizeof(codes[0]) + 2);
    assert_int_equal(sink.updates, 1);
    assert_int_equal(sink.rejections, 0);
    assert_asks("v=1 a");
    answer(304, "");
    assert_int_equal(sink.connected, 1);
}

static void bodies_that_are_none(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "",
        "null",
        "[]",
        "{",
        "{} x",
        "\"text\"",
        "\xff\xfe",
        "{\"version_info\": 7}",
        "{\"resources\": [7]}",
        "{\"resources\": [{\"@type\": \"type.googleapis.com/no.such.Type\"}]}",
        "{\"resources\": [{\"@type\": \"" TYPE_URL "\", \"cluster_name\": 7}]}",
        "{\"type_url\": \"type.googleapis.com/envoy.config.cluster.v3.Cluster\"}",
        "{\"type_url\": \"no.such.Type\"}",
    };
    watch("a");
    wait_call();
    answer(200, GOOD("1", CLA("a")));
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        assert_asks("v=1 a");
        answer(200, bodies[i]);
        assert_row(sink.rejections == i + 1, i);
    }
    assert_int_equal(sink.updates, 1);
    assert_int_equal(sink.failures, 0);
    assert_asks("v=1 a");
    answer(200, GOOD("2", CLA("a")));
    assert_string_equal(sink.told, "2: a");
}

static void refused_resources_are_told_with_the_next_poll(void **state) {
    (void)state;
    watch("a");
    wait_call();
    answer(200, GOOD("1", CLA("a")));
    assert_asks("v=1 a");
    sink.refusal = "a: no good";
    answer(200, GOOD("2", CLA("a")));
    assert_asks("v=1 a err=a: no good");
    sink.refusal = NULL;
    answer(200, GOOD("3", CLA("a")));
    assert_asks("v=3 a"); /* told once */
    answer(200, "{\"resources\": [{}]}");
    assert_asks("v=3 a err=type URL  embedded in an individual Any does not match the message-wide "
                "type URL " TYPE_URL " in DiscoveryResponse");
}

/* Each poll stands for itself: a name that was given up meanwhile and is wanted again is just
 * wanted, and its answer may not be a 304. */
static void wanted_again_between_polls(void **state) {
    (void)state;
    watch("a");
    watch("b");
    wait_call();
    answer(200, GOOD("1", CLA("a") "," CLA("b")));
    unwatch("b");
    watch("b");
    assert_asks("v= a,b");
    unwatch("b");
    watch("b"); /* during it, too */
    answer(200, GOOD("1", CLA("a") "," CLA("b")));
    assert_asks("v= a,b");
}

static void a_refusal_is_told_though_names_change(void **state) {
    (void)state;
    watch("a");
    wait_call();
    sink.refusal = "a: no good";
    answer(200, GOOD("1", CLA("a")));
    watch("b");
    unwatch("b");
    watch("b");
    assert_asks("v= a,b err=a: no good");
    answer(503, "");
    assert_asks("v= a,b"); /* once: the server that failed has read it */
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(types_have_methods),
        TEST(nothing_is_asked_unwanted),
        TEST(names_of_one_event_are_one_poll),
        TEST(polls_go_on_with_the_version),
        TEST(an_answer_may_leave_out_its_type),
        TEST(more_names_tell_no_version),
        TEST(names_that_come_during_a_poll),
        TEST(unanswered_names_are_asked_for_anew),
        TEST(fewer_names),
        TEST(paused),
        TEST(failures_are_told_and_polled_on),
        TEST(bodies_that_are_none),
        TEST(refused_resources_are_told_with_the_next_poll),
        TEST(wanted_again_between_polls),
        TEST(a_refusal_is_told_though_names_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
