/* The timer wheel on a fake clock, against a list that is searched. */
#include "proxy/base/mem.h"
#include "proxy/base/rand.h"
#include "proxy/event/timer.h"
#include "tests/support/unit.h"

struct probe {
    struct timer t;
    unsigned fired;
    uint64_t due_ms, fired_ms;
    bool is_running;
};
static uint64_t clock_ms;
static unsigned fired_total;

static void on_fire(struct timer *t) {
    struct probe *p = CONTAINER_OF(t, struct probe, t);
    p->fired++;
    assert_true(clock_ms >= p->due_ms);
    p->fired_ms = clock_ms;
    p->is_running = false;
    fired_total++;
}

static void start(struct probe *p, uint64_t after_ms) {
    timer_start(&p->t, after_ms);
    p->due_ms = clock_ms + after_ms;
    p->is_running = true;
}

static void advance(struct timer_wheel *w, uint64_t to_ms) {
    clock_ms = to_ms;
    timer_wheel_advance(w, to_ms);
}

static struct timer_wheel *new_wheel(uint64_t at_ms) {
    struct timer_wheel *w = timer_wheel_new(NULL);
    advance(w, at_ms);
    fired_total = 0;
    return w;
}

static const uint64_t begins[] = {0,    1,    62,     63,         64,
                                  4095, 4096, 262143, 1ull << 30, (1ull << 36) - 1};
static const uint64_t afters[] = {0,    1,    2,    63,    64,     65,       127,       128,
                                  4095, 4096, 4097, 65536, 262144, 16777216, 1ull << 33};

static void each_time_is_exact(void **state) {
    (void)state;
    for (size_t b = 0; b < ARRAY_LEN(begins); b++) {
        for (size_t i = 0; i < ARRAY_LEN(afters); i++) {
            struct timer_wheel *w = new_wheel(begins[b]);
            struct probe p = {0};
            timer_init_wheel(&p.t, w, on_fire);
            start(&p, afters[i]);
            assert_true(timer_active(&p.t));
            assert_int_equal(timer_due_ms(&p.t), begins[b] + afters[i]);
            if (afters[i]) {
                advance(w, begins[b] + afters[i] - 1);
                assert_row(p.fired == 0, i);
            }
            advance(w, begins[b] + afters[i]);
            assert_row(p.fired == 1, i);
            assert_false(timer_active(&p.t));
            timer_wheel_free(w);
        }
    }
}

static void next_is_never_late(void **state) {
    (void)state;
    struct timer_wheel *w = new_wheel(1000);
    struct probe p = {0};
    timer_init_wheel(&p.t, w, on_fire);
    assert_true(timer_wheel_next_ms(w) == UINT64_MAX);
    start(&p, 123456);
    unsigned turns = 0;
    while (!p.fired) {
        uint64_t next = timer_wheel_next_ms(w);
        assert_true(next <= p.due_ms && next >= clock_ms);
        advance(w, next);
        assert_true(++turns < 8);
    }
    assert_int_equal(p.fired_ms, p.due_ms);
    assert_true(timer_wheel_next_ms(w) == UINT64_MAX);
    timer_wheel_free(w);
}

#define PROBES 300
static void random_against_model(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 7);
    struct timer_wheel *w = new_wheel(rng_below(&r, 1u << 20));
    struct probe *p = xnew_array(struct probe, PROBES);
    for (int i = 0; i < PROBES; i++) {
        timer_init_wheel(&p[i].t, w, on_fire);
    }
    for (int step = 0; step < 20000; step++) {
        struct probe *x = &p[rng_below(&r, PROBES)];
        switch (rng_below(&r, 4)) {
        case 0:
            timer_cancel(&x->t);
            x->is_running = false;
            break;
        case 1:
            advance(w, clock_ms + rng_below(&r, 1u << rng_below(&r, 16)));
            break;
        default:
            start(x, 1 + rng_below(&r, 1u << rng_below(&r, 20)));
            break;
        }
        for (int i = 0; i < PROBES; i++) {
            assert_true(p[i].is_running == timer_active(&p[i].t));
            assert_true(!p[i].is_running || p[i].due_ms > clock_ms);
        }
    }
    assert_true(fired_total > 1000);
    for (int i = 0; i < PROBES; i++) {
        timer_cancel(&p[i].t);
    }
    assert_true(timer_wheel_next_ms(w) == UINT64_MAX);
    xfree(p);
    timer_wheel_free(w);
}

static struct probe *victim;
static void on_cancel_other(struct timer *t) {
    on_fire(t);
    timer_cancel(&victim->t);
}
static void cancelled_by_earlier_callback(void **state) {
    (void)state;
    struct timer_wheel *w = new_wheel(5);
    struct probe a = {0}, b = {0};
    timer_init_wheel(&a.t, w, on_cancel_other);
    timer_init_wheel(&b.t, w, on_fire);
    victim = &b;
    start(&a, 10);
    start(&b, 10);
    advance(w, 40);
    assert_int_equal(a.fired, 1);
    assert_int_equal(b.fired, 0);
    timer_wheel_free(w);
}

static void on_again(struct timer *t) {
    on_fire(t);
    timer_start(t, 0);
}
static void zero_waits_for_the_next_turn(void **state) {
    (void)state;
    struct timer_wheel *w = new_wheel(5);
    struct probe a = {0};
    timer_init_wheel(&a.t, w, on_again);
    timer_start(&a.t, 0);
    for (unsigned i = 1; i < 5; i++) {
        assert_int_equal(timer_wheel_next_ms(w), 5);
        advance(w, 5);
        assert_int_equal(a.fired, i);
    }
    timer_cancel(&a.t);
    advance(w, 6);
    assert_int_equal(a.fired, 4);
    timer_wheel_free(w);
}

static void restart_moves(void **state) {
    (void)state;
    struct timer_wheel *w = new_wheel(0);
    struct probe a = {0};
    timer_init_wheel(&a.t, w, on_fire);
    timer_cancel(&a.t); /* idle */
    start(&a, 100);
    start(&a, 5000);
    advance(w, 4999);
    assert_int_equal(a.fired, 0);
    advance(w, 1 << 20);
    assert_int_equal(a.fired, 1);
    start(&a, UINT64_MAX); /* clamped, not wrapped */
    advance(w, 1ull << 39);
    assert_int_equal(a.fired, 1);
    timer_cancel(&a.t);
    timer_wheel_free(w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_time_is_exact),
        cmocka_unit_test(next_is_never_late),
        cmocka_unit_test(random_against_model),
        cmocka_unit_test(cancelled_by_earlier_callback),
        cmocka_unit_test(zero_waits_for_the_next_turn),
        cmocka_unit_test(restart_moves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
