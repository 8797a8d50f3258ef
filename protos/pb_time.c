/* Durations and timestamps between numbers and text.
 * Threads: any.
 * Spec: proto3 JSON mapping; RFC 3339. */
#include "protos/pb_time.h"

#include <stdio.h>

#define NANOS 1000000000 /* in a second */

/* Take ".123" off the front as nanoseconds; none is 0. */
static bool eat_fraction(sv *s, int32_t *nanos) {
    *nanos = 0;
    if (!sv_eat(s, SV("."))) {
        return true;
    }
    int32_t scale = 100000000;
    size_t digits = 0;
    for (; digits < s->n && ascii_isdigit(s->p[digits]); digits++) {
        if (digits == 9) {
            return false;
        }
        *nanos += (s->p[digits] - '0') * scale;
        scale /= 10;
    }
    *s = sv_skip(*s, digits);
    return digits > 0;
}

bool pb_duration_is_valid(struct pb_time t) {
    bool is_signed_alike = t.nanos == 0 || t.seconds == 0 || (t.nanos < 0) == (t.seconds < 0);
    return t.seconds >= -PB_DURATION_SECONDS_MAX && t.seconds <= PB_DURATION_SECONDS_MAX &&
           t.nanos > -NANOS && t.nanos < NANOS && is_signed_alike;
}

const char *pb_duration_parse(sv text, struct pb_time *out) {
    sv s = text;
    bool is_negative = sv_eat(&s, SV("-"));
    uint64_t seconds;
    int32_t nanos;
    if (!sv_eat_u64(&s, 12, &seconds) || !eat_fraction(&s, &nanos)) {
        return "invalid duration, expected a number such as '1.5s'";
    }
    if (!sv_eq(s, SV("s"))) {
        return "duration must end with a single 's'";
    }
    if (seconds > PB_DURATION_SECONDS_MAX) {
        return "duration out of range";
    }
    out->seconds = is_negative ? -(int64_t)seconds : (int64_t)seconds;
    out->nanos = is_negative ? -nanos : nanos;
    return NULL;
}

/* Days from 1970-01-01 of a date of the proleptic Gregorian calendar; years run from March. */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day) {
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year -
           719468;
}

static void date_from_days(int64_t days, int64_t *year, unsigned *month, unsigned *day) {
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted_month = (5 * day_of_year + 2) / 153;
    *day = (unsigned)(day_of_year - (153 * shifted_month + 2) / 5 + 1);
    *month = (unsigned)(shifted_month < 10 ? shifted_month + 3 : shifted_month - 9);
    *year = year_of_era + era * 400 + (*month <= 2);
}

/* Exactly `digits` digits, at most max. */
static bool eat_number(sv *s, unsigned digits, unsigned max, unsigned *out) {
    sv head = sv_sub(*s, 0, digits);
    uint64_t v;
    if (head.n != digits || !sv_to_u64(head, &v) || !ascii_isdigit(head.p[0]) || v > max) {
        return false;
    }
    *out = (unsigned)v;
    *s = sv_skip(*s, digits);
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month) {
    static const unsigned char days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && is_leap ? 29 : days[month - 1];
}

static bool eat_date(sv *s, int64_t *days) {
    unsigned year, month, day;
    if (!eat_number(s, 4, 9999, &year) || !sv_eat(s, SV("-")) || !eat_number(s, 2, 12, &month) ||
        !sv_eat(s, SV("-")) || !eat_number(s, 2, 31, &day)) {
        return false;
    }
    if (year == 0 || month == 0 || day == 0 || day > days_in_month(year, month)) {
        return false;
    }
    *days = days_from_date(year, month, day);
    return true;
}

static bool eat_clock(sv *s, int64_t *seconds) {
    unsigned hour, minute, second;
    if (!eat_number(s, 2, 23, &hour) || !sv_eat(s, SV(":")) || !eat_number(s, 2, 59, &minute) ||
        !sv_eat(s, SV(":")) || !eat_number(s, 2, 59, &second)) {
        return false;
    }
    *seconds = hour * 3600 + minute * 60 + second;
    return true;
}

/* "Z" or "+hh:mm" as seconds to take off. */
static bool eat_offset(sv *s, int64_t *seconds) {
    *seconds = 0;
    if (sv_eat(s, SV("Z"))) {
        return true;
    }
    bool is_negative = sv_eat(s, SV("-"));
    unsigned hour, minute;
    if ((!is_negative && !sv_eat(s, SV("+"))) || !eat_number(s, 2, 23, &hour) ||
        !sv_eat(s, SV(":")) || !eat_number(s, 2, 59, &minute)) {
        return false;
    }
    int64_t span = (int64_t)hour * 3600 + minute * 60;
    *seconds = is_negative ? -span : span;
    return true;
}

const char *pb_timestamp_parse(sv text, struct pb_time *out) {
    static const char *const wrong =
        "invalid timestamp, expected RFC 3339 such as '2006-01-02T15:04:05Z'";
    int64_t days, clock, offset;
    sv s = text;
    if (!eat_date(&s, &days) || !sv_eat(&s, SV("T")) || !eat_clock(&s, &clock) ||
        !eat_fraction(&s, &out->nanos) || !eat_offset(&s, &offset) || s.n) {
        return wrong;
    }
    out->seconds = days * 86400 + clock - offset;
    bool in_range =
        out->seconds >= PB_TIMESTAMP_SECONDS_MIN && out->seconds <= PB_TIMESTAMP_SECONDS_MAX;
    return in_range ? NULL : "timestamp out of range";
}

/* ".5" → ".500": none, 3, 6 or 9 decimals. */
static int format_fraction(int32_t nanos, char *out, size_t room) {
    if (nanos == 0) {
        return 0;
    }
    if (nanos % 1000000 == 0) {
        return snprintf(out, room, ".%03d", nanos / 1000000);
    }
    if (nanos % 1000 == 0) {
        return snprintf(out, room, ".%06d", nanos / 1000);
    }
    return snprintf(out, room, ".%09d", nanos);
}

size_t pb_duration_format(struct pb_time t, char out[static PB_TIME_TEXT_MAX]) {
    bool is_negative = t.seconds < 0 || t.nanos < 0;
    uint64_t seconds = t.seconds < 0 ? -(uint64_t)t.seconds : (uint64_t)t.seconds;
    int32_t nanos = t.nanos < 0 && t.nanos > INT32_MIN ? -t.nanos : t.nanos;
    int n = snprintf(out, PB_TIME_TEXT_MAX, "%s%llu", is_negative ? "-" : "",
                     (unsigned long long)seconds);
    n += format_fraction(nanos, out + n, PB_TIME_TEXT_MAX - (size_t)n - 1);
    out[n++] = 's';
    return (size_t)n;
}

size_t pb_timestamp_format(struct pb_time t, char out[static PB_TIME_TEXT_MAX]) {
    int64_t seconds = t.seconds < PB_TIMESTAMP_SECONDS_MIN   ? PB_TIMESTAMP_SECONDS_MIN
                      : t.seconds > PB_TIMESTAMP_SECONDS_MAX ? PB_TIMESTAMP_SECONDS_MAX
                                                             : t.seconds;
    int64_t days = seconds / 86400 - (seconds % 86400 < 0);
    unsigned clock = (unsigned)(seconds - days * 86400);
    int64_t year;
    unsigned month, day;
    date_from_days(days, &year, &month, &day);
    int n = snprintf(out, PB_TIME_TEXT_MAX, "%04d-%02u-%02uT%02u:%02u:%02u", (int)year, month, day,
                     clock / 3600, clock / 60 % 60, clock % 60);
    n += format_fraction(t.nanos < 0 ? 0 : t.nanos, out + n, PB_TIME_TEXT_MAX - (size_t)n - 1);
    out[n++] = 'Z';
    return (size_t)n;
}
