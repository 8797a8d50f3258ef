/* The connection_limit filter: who is turned away, when, and what counts. */
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "tests/support/test_compile.h"

extern const struct network_filter_type connection_limit_network_filter;

#define STATE_BYTES 256
#define CONNS 3

struct one { /* a connection with one filter */
    struct arena arena;
    struct conn conn;
    struct conn_info cx;
    struct stream_info si;
    bool is_closed;
    union {
        struct network_filter filter;
        _Alignas(16) char room[STATE_BYTES];
    };
};
static struct one conns[CONNS];
static struct loop loop;

static struct one *one_of(const struct network_filter *x) {
    return CONTAINER_OF(x, struct one, filter);
}

/* --- what the filters ask --- */

const struct conn_info *net_conn_info(const struct network_filter *x) { return &one_of(x)->cx; }
struct stream_info *net_stream_info(const struct network_filter *x) {
    return &one_of(x)->si;
}
struct arena *net_arena(const struct network_filter *x) {
    return &one_of(x)->arena;
}
struct worker *net_worker(const struct network_filter *x) {
    (void)x;
    return NULL;
}
struct loop *worker_loop(struct worker *w) {
    (void)w;
    return &loop;
}
void conn_close(struct conn *c, enum conn_close_type how, const char *reason) {
    struct one *o = CONTAINER_OF(c, struct one, conn);
    assert_int_equal(how, CONN_CLOSE_NO_FLUSH);
    assert_string_equal(reason, "over_connection_limit");
    o->is_closed = true;
    o->filter.type->on_conn_event(&o->filter, CONN_EVENT_LOCAL_CLOSE);
}

/* --- fixture --- */

static int start_conns(void **state) {
    start_with_stats(state);
    memset(conns, 0, sizeof(conns));
    loop = (struct loop){.wheel = timer_wheel_new(NULL), .now_us_ = 1000000};
    timer_wheel_advance(loop.wheel, 1000);
    for (size_t i = 0; i < CONNS; i++) {
        arena_init(&conns[i].arena, 0);
        conns[i].si = (struct stream_info){.cx = &conns[i].cx, .arena = &conns[i].arena};
    }
    return 0;
}

static int end_conns(void **state) {
    for (size_t i = 0; i < CONNS; i++) {
        arena_fini(&conns[i].arena);
    }
    timer_wheel_free(loop.wheel);
    return end(state);
}

static const void *config_from(const struct network_filter_type *t, const char *text) {
    return t->compile(&f.ctx, fake_msg(&f, t->type_url, text));
}

static enum net_status connects(struct one *o, const struct network_filter_type *t,
                                const void *config) {
    assert_true(t->instance_size <= STATE_BYTES);
    assert_non_null(config);
    memset(o->room, 0, sizeof(o->room));
    o->filter = (struct network_filter){.type = t, .conn = &o->conn, .config = config};
    o->is_closed = false;
    return t->on_new_connection(&o->filter);
}

static enum net_status reads(struct one *o) {
    struct buf b;
    buf_init(&b);
    return o->filter.type->on_data(&o->filter, &b, false);
}

static void ends(struct one *o) {
    o->filter.type->on_conn_event(&o->filter, CONN_EVENT_REMOTE_CLOSE);
}

/* --- connection_limit --- */

static const struct network_filter_type *const limit = &connection_limit_network_filter;

static void over_the_limit(void **state) {
    (void)state;
    const void *c = config_from(limit, "stat_prefix: 'a' max_connections { value: 1 }");
    assert_int_equal(connects(&conns[0], limit, c), NET_CONTINUE);
    assert_int_equal(reads(&conns[0]), NET_CONTINUE);
    assert_int_equal(connects(&conns[1], limit, c), NET_STOP);
    assert_true(conns[1].is_closed);
    assert_int_equal(connects(&conns[1], limit, c), NET_STOP); /* it counted no longer */
    ends(&conns[0]);
    ends(&conns[0]); /* counted once */
    assert_int_equal(connects(&conns[1], limit, c), NET_CONTINUE);
    assert_int_equal(connects(&conns[2], limit, c), NET_STOP);
    ends(&conns[1]);
}

static void delayed(void **state) {
    (void)state;
    const void *c = config_from(
        limit, "stat_prefix: 'a' max_connections { value: 1 } delay { nanos: 50000000 }");
    assert_int_equal(connects(&conns[0], limit, c), NET_CONTINUE);
    assert_int_equal(connects(&conns[1], limit, c), NET_STOP);
    assert_int_equal(reads(&conns[1]), NET_STOP);
    assert_false(conns[1].is_closed);
    assert_int_equal(connects(&conns[2], limit, c), NET_STOP);
    ends(&conns[2]); /* the client did not wait: its timer is gone */
    timer_wheel_advance(loop.wheel, 1049);
    assert_false(conns[1].is_closed);
    timer_wheel_advance(loop.wheel, 1051);
    assert_true(conns[1].is_closed);
    assert_false(conns[2].is_closed);
    ends(&conns[0]);
}

static void switched_off(void **state) {
    (void)state;
    const void *c = config_from(limit, "stat_prefix: 'a' max_connections { value: 1 } "
                                       "runtime_enabled { default_value { } runtime_key: 'k' }");
    for (size_t i = 0; i < CONNS; i++) {
        assert_int_equal(connects(&conns[i], limit, c), NET_CONTINUE);
        ends(&conns[i]);
    }
}

static void bad_delay(void **state) {
    (void)state;
    assert_null(config_from(limit, "stat_prefix: 'a' max_connections { value: 1 } "
                                   "delay { seconds: -1 }"));
}

#define TEST(x) cmocka_unit_test_setup_teardown(x, start_conns, end_conns)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(over_the_limit), TEST(delayed), TEST(switched_off),
                                       TEST(bad_delay)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
