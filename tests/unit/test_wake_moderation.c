/* When a loop pauses before it waits, and when not: decisions on histories of turns, then a
 * loop. */
#include "proxy/event/wake_moderation.h"

#include "proxy/base/runtime.h"
#include "proxy/event/loop.h"
#include "proxy/event/timer.h"
#include "tests/support/unit.h"

/* `turns` alike: woken after `idle_us` (and the pause), at work for `busy_us`, in which `changes`
 * requests begin or end while `requests` are in flight. */
struct history {
    uint32_t limit_us, requests, idle_us, busy_us, changes, turns;
};

/* The pause after the last turn; *pauses: how many turns had one. */
static uint32_t play(struct wake_moderation *m, uint64_t *now_us, struct history h) {
    uint32_t pause_us = 0;
    for (uint32_t i = 0; i < h.turns; i++) {
        m->limit_us = h.limit_us;
        m->requests = h.requests;
        wake_moderation_woke(m, *now_us);
        m->changes += h.changes;
        pause_us = wake_moderation_pause(m, *now_us + h.busy_us);
        *now_us += h.busy_us + pause_us + h.idle_us;
    }
    return pause_us;
}

#define DENSE .idle_us = 10, .busy_us = 10, .changes = 8, .turns = 100
static const struct row {
    struct history h;
    uint32_t want_us;
} rows[] = {
    {{.limit_us = 100, .requests = 128, DENSE}, 100},
    {{.limit_us = 100, .requests = 25, DENSE}, 100},
    {{.limit_us = 40, .requests = 128, DENSE}, 40},
    {{.limit_us = 100, .requests = UINT32_MAX, DENSE}, 100},
    /* the fewer in flight, the shorter */
    {{.limit_us = 100, .requests = 24, DENSE}, 96},
    {{.limit_us = 100, .requests = WAKE_REQUESTS_MIN, DENSE}, 64},
    {{.limit_us = 20, .requests = WAKE_REQUESTS_MIN, DENSE}, 20},
    {{.limit_us = 100, .requests = WAKE_REQUESTS_MIN - 1, DENSE}, 0},
    {{.limit_us = 100, .requests = 1, DENSE}, 0},
    {{.limit_us = 100, .requests = 0, DENSE}, 0},
    /* turned off */
    {{.limit_us = 0, .requests = 128, DENSE}, 0},
    /* long turns */
    {{100, 128, .idle_us = 0, .busy_us = WAKE_BUSY_MAX_US, .changes = 8, .turns = 100}, 0},
    {{100, 128, .idle_us = 100, .busy_us = 900, .changes = 90, .turns = 100}, 0},
    /* rare wake-ups */
    {{100, 128, .idle_us = WAKE_IDLE_MAX_US, .busy_us = 10, .changes = 8, .turns = 100}, 100},
    {{100, 128, .idle_us = WAKE_IDLE_MAX_US + 8, .busy_us = 10, .changes = 8, .turns = 100}, 0},
    {{100, 128, .idle_us = 5000000, .busy_us = 10, .changes = 8, .turns = 100}, 0},
    /* pauses that gather next to nothing */
    {{100, 128, .idle_us = 10, .busy_us = 10, .changes = WAKE_GATHERED_MIN, .turns = 100}, 100},
    {{100, 128, .idle_us = 10, .busy_us = 10, .changes = WAKE_GATHERED_MIN - 1, .turns = 60}, 0},
    {{100, 128, .idle_us = 10, .busy_us = 10, .changes = 0, .turns = 60}, 0},
};

static void decisions(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct wake_moderation m = {0};
        uint64_t now_us = 77000000;
        uint32_t got_us = play(&m, &now_us, rows[i].h);
        assert_row(got_us == rows[i].want_us, i);
        /* after rare or vain turns there may have been some before */
        bool is_dense = rows[i].h.idle_us <= WAKE_IDLE_MAX_US;
        if (is_dense && rows[i].h.changes >= WAKE_GATHERED_MIN) {
            assert_row((m.pauses > 0) == (rows[i].want_us > 0), i);
        }
    }
}

static void vain_pauses_are_few(void **state) {
    (void)state;
    struct wake_moderation m = {0};
    uint64_t now_us = 1;
    struct history h = {100, 128, .idle_us = 10, .busy_us = 10, .changes = 1, .turns = 6400};
    play(&m, &now_us, h);
    assert_in_range(m.pauses, 6400 / (WAKE_HOLD_TURNS + 2), 6400 / WAKE_HOLD_TURNS);
    /* load comes back: so do the pauses */
    h.changes = 8;
    h.turns = WAKE_HOLD_TURNS + 2;
    assert_int_equal(play(&m, &now_us, h), 100);
}

static void one_turn_is_no_history(void **state) {
    (void)state;
    struct wake_moderation m = {0};
    uint64_t now_us = 1000000000; /* long after the loop's last event, which never was */
    struct history h = {100, 128, DENSE};
    h.turns = 1;
    play(&m, &now_us, h);
    now_us += 60000000; /* an idle minute, then a single event again and again */
    for (unsigned i = 0; i < 10; i++) {
        now_us += 1000000;
        play(&m, &now_us, h);
    }
    assert_int_equal(play(&m, &now_us, h), 0);
}

static void fewer_requests_end_it_at_once(void **state) {
    (void)state;
    struct wake_moderation m = {0};
    uint64_t now_us = 1;
    struct history h = {100, 128, DENSE};
    assert_int_equal(play(&m, &now_us, h), 100);
    h.turns = 1;
    h.requests = WAKE_REQUESTS_MIN - 1;
    assert_int_equal(play(&m, &now_us, h), 0);
    h.requests = 128;
    h.limit_us = 0;
    assert_int_equal(play(&m, &now_us, h), 0);
}

static void a_clock_that_stands_still(void **state) {
    (void)state;
    struct wake_moderation m = {.limit_us = 100, .requests = 128};
    for (unsigned i = 0; i < 1000; i++) {
        wake_moderation_woke(&m, 5);
        m.changes = 8;
        assert_in_range(wake_moderation_pause(&m, 5), 0, 100);
    }
}

/* ---- the loop ---- */

static struct loop loop;
static struct runtime_layer *layer;

static int setup(void **state) {
    (void)state;
    layer = runtime_layer_new(SV("test"));
    return loop_init(&loop, 2);
}
static int teardown(void **state) {
    (void)state;
    loop_fini(&loop);
    runtime_publish(NULL, 0);
    runtime_layer_free(layer);
    runtime_thread_release();
    return 0;
}

/* A watch that is ready in each turn, with requests beginning and ending. */
struct busy {
    struct io io;
    int fds[2];
    unsigned turns, turns_max;
};
static void on_busy(struct io *io, int events, int status) {
    (void)events;
    (void)status;
    struct busy *b = CONTAINER_OF(io, struct busy, io);
    for (unsigned i = 0; i < WAKE_GATHERED_MIN; i++) {
        loop_request_began(&loop);
        loop_request_ended(&loop);
    }
    if (++b->turns == b->turns_max || loop_wake_pauses(&loop)) {
        loop_stop(&loop);
    }
}
/* Turns until the first pause, or turns_max. */
static void run_busy(unsigned requests, unsigned turns_max) {
    struct busy b = {.turns_max = turns_max};
    assert_int_equal(pipe(b.fds), 0);
    assert_int_equal(write(b.fds[1], "x", 1), 1);
    assert_int_equal(io_open(&b.io, &loop, b.fds[0], on_busy), 0);
    io_want(&b.io, IO_READ);
    for (unsigned i = 0; i < requests; i++) {
        loop_request_began(&loop);
    }
    loop_run(&loop);
    for (unsigned i = 0; i < requests; i++) {
        loop_request_ended(&loop);
    }
    io_close(&b.io, b.fds[0], NULL);
    close(b.fds[1]);
    loop_run_nowait(&loop);
}

#define MANY_TURNS 1000000 /* enough for any machine to have a few short ones in a row */
#define SOME_TURNS 500

static void busy_loop_pauses(void **state) {
    (void)state;
    loop_moderate_wakes(&loop);
    run_busy(WAKE_REQUESTS_MIN, MANY_TURNS);
    assert_int_equal(loop_wake_pauses(&loop), 1);
}
static void few_requests_never(void **state) {
    (void)state;
    loop_moderate_wakes(&loop);
    run_busy(WAKE_REQUESTS_MIN - 2, SOME_TURNS);
    assert_int_equal(loop_wake_pauses(&loop), 0);
}
static void unmoderated_never(void **state) {
    (void)state;
    run_busy(128, SOME_TURNS);
    assert_int_equal(loop_wake_pauses(&loop), 0);
}
static void runtime_limits(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint32_t want_us;
    } limits[] = {{"0", 0},
                  {"40", 40},
                  {"100", 100},
                  {"201", WAKE_PAUSE_US},
                  {"18446744073709551615", WAKE_PAUSE_US},
                  {"-1", WAKE_PAUSE_US},
                  {"off", WAKE_PAUSE_US}};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        assert_true(
            runtime_layer_set(layer, SV("sluice.wake_moderation_us"), sv_cstr(limits[i].text)));
        runtime_publish(&layer, 1);
        loop_moderate_wakes(&loop);
        assert_row(loop.moderation_.limit_us == limits[i].want_us, i);
    }
}
static void turned_off_never(void **state) {
    (void)state;
    assert_true(runtime_layer_set(layer, SV("sluice.wake_moderation_us"), SV("0")));
    runtime_publish(&layer, 1);
    loop_moderate_wakes(&loop);
    run_busy(128, SOME_TURNS);
    assert_int_equal(loop_wake_pauses(&loop), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decisions),
        cmocka_unit_test(vain_pauses_are_few),
        cmocka_unit_test(one_turn_is_no_history),
        cmocka_unit_test(fewer_requests_end_it_at_once),
        cmocka_unit_test(a_clock_that_stands_still),
        cmocka_unit_test_setup_teardown(busy_loop_pauses, setup, teardown),
        cmocka_unit_test_setup_teardown(few_requests_never, setup, teardown),
        cmocka_unit_test_setup_teardown(unmoderated_never, setup, teardown),
        cmocka_unit_test_setup_teardown(runtime_limits, setup, teardown),
        cmocka_unit_test_setup_teardown(turned_off_never, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
