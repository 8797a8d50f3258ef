/* Duration and Timestamp text: both directions, limits, what must be refused. */
#include "protos/pb_time.h"

#include "tests/support/unit.h"

static void test_durations(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
        struct pb_time t;
    } rows[] = {
        {"0s", "0s", {0, 0}},
        {"1s", "1s", {1, 0}},
        {"-1s", "-1s", {-1, 0}},
        {"1.5s", "1.500s", {1, 500000000}},
        {"-0.25s", "-0.250s", {0, -250000000}},
        {"0.000001s", "0.000001s", {0, 1000}},
        {"0.000000001s", "0.000000001s", {0, 1}},
        {"315576000000s", "315576000000s", {PB_DURATION_SECONDS_MAX, 0}},
        {"-315576000000s", "-315576000000s", {-PB_DURATION_SECONDS_MAX, 0}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pb_time t = {7, 7};
        char text[PB_TIME_TEXT_MAX];
        assert_row(pb_duration_parse(sv_cstr(rows[i].in), &t) == NULL, i);
        assert_row(t.seconds == rows[i].t.seconds && t.nanos == rows[i].t.nanos, i);
        assert_sv_is(sv_from(text, pb_duration_format(t, text)), rows[i].out);
    }
}

static void test_bad_durations(void **state) {
    (void)state;
    static const char *const rows[] = {
        "",
        "s",
        "1",
        "1ms",
        "1ss",
        "1.s",
        ".5s",
        "1.0000000001s",
        "+1s",
        " 1s",
        "1 s",
        "--1s",
        "1e3s",
        "315576000001s",
        "9999999999999s",
        "0x1s",
        "1,5s",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pb_time t;
        assert_row(pb_duration_parse(sv_cstr(rows[i]), &t) != NULL, i);
    }
}

static void test_timestamps(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
        struct pb_time t;
    } rows[] = {
        {"1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z", {0, 0}},
        {"1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z", {-1, 0}},
        {"2000-02-29T12:00:00.5Z", "2000-02-29T12:00:00.500Z", {951825600, 500000000}},
        {"2026-11-22T23:30:00+01:30", "2026-11-22T22:00:00Z", {1795384800, 0}},
        {"2026-11-22T20:30:00-01:30", "2026-11-22T22:00:00Z", {1795384800, 0}},
        {"0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z", {PB_TIMESTAMP_SECONDS_MIN, 0}},
        {"9999-12-31T23:59:59.999999999Z",
         "9999-12-31T23:59:59.999999999Z",
         {PB_TIMESTAMP_SECONDS_MAX, 999999999}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pb_time t = {7, 7};
        char text[PB_TIME_TEXT_MAX];
        assert_row(pb_timestamp_parse(sv_cstr(rows[i].in), &t) == NULL, i);
        assert_row(t.seconds == rows[i].t.seconds && t.nanos == rows[i].t.nanos, i);
        assert_sv_is(sv_from(text, pb_timestamp_format(t, text)), rows[i].out);
    }
}

static void test_bad_timestamps(void **state) {
    (void)state;
    static const char *const rows[] = {
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01 00:00:00Z",
        "1970-13-01T00:00:00Z",
        "1970-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "1970-00-01T00:00:00Z",
        "1970-01-00T00:00:00Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:60:00Z",
        "1970-01-01T00:00:60Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00.0000000001Z",
        "1970-01-01T00:00:00z",
        "1970-01-01T00:00:00+1:00",
        "1970-01-01T00:00:00ZZ",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+01:00",
        "19-7-01-01T00:00:00Z",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pb_time t;
        assert_row(pb_timestamp_parse(sv_cstr(rows[i]), &t) != NULL, i);
    }
}

/* What nobody checked before it came here still gives text that fits. */
static void test_wild_values(void **state) {
    (void)state;
    static const struct pb_time rows[] = {
        {INT64_MIN, INT32_MIN}, {INT64_MAX, INT32_MAX}, {0, INT32_MIN}, {INT64_MIN, 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[PB_TIME_TEXT_MAX];
        assert_row(pb_duration_format(rows[i], text) < PB_TIME_TEXT_MAX, i);
        assert_row(pb_timestamp_format(rows[i], text) < PB_TIME_TEXT_MAX, i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_durations),   cmocka_unit_test(test_bad_durations),
        cmocka_unit_test(test_timestamps),  cmocka_unit_test(test_bad_timestamps),
        cmocka_unit_test(test_wild_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
