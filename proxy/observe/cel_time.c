/* CEL times: durations and timestamps from and to text, and the parts of a date. Threads: any.
 * Times are nanoseconds in 64 bits: timestamps from 1677 to 2262; beyond is an error. */
#include <math.h>
#include <stdio.h>

#include "protos/pb_time.h"
#include "proxy/observe/cel_internal.h"

#define NS_PER_S 1000000000LL
#define S_PER_DAY 86400

static bool to_ns(const struct pb_time *t, int64_t *ns) {
    return !__builtin_mul_overflow(t->seconds, NS_PER_S, ns) &&
           !__builtin_add_overflow(*ns, t->nanos, ns);
}

/* One unit of a duration, consumed from the front. */
static bool eat_unit(sv *s, double *ns) {
    static const struct {
        sv name;
        double ns;
    } units[] = {{SV_INIT("ms"), 1e6},   {SV_INIT("us"), 1e3}, {SV_INIT("ns"), 1},
                 {SV_INIT("h"), 3.6e12}, {SV_INIT("m"), 6e10}, {SV_INIT("s"), 1e9}};
    for (size_t i = 0; i < ARRAY_LEN(units); i++) {
        if (sv_eat(s, units[i].name)) {
            *ns = units[i].ns;
            return true;
        }
    }
    return false;
}

bool cel_parse_duration(sv s, int64_t *ns) {
    bool is_negative = sv_eat(&s, SV("-"));
    *ns = 0;
    if (sv_is(s, "0")) {
        return true;
    }
    if (!s.n) {
        return false;
    }
    double total = 0;
    while (s.n) {
        size_t digits = 0;
        while (digits < s.n && (ascii_isdigit(s.p[digits]) || s.p[digits] == '.')) {
            digits++;
        }
        double number, unit;
        if (!digits || !sv_to_double(sv_sub(s, 0, digits), &number)) {
            return false;
        }
        s = sv_skip(s, digits);
        if (!eat_unit(&s, &unit)) {
            return false;
        }
        total += number * unit;
    }
    if (total >= 9.2e18) {
        return false;
    }
    *ns = (int64_t)(is_negative ? -total : total);
    return true;
}

bool cel_parse_timestamp(sv s, int64_t *ns) {
    struct pb_time t;
    return !pb_timestamp_parse(s, &t) && to_ns(&t, ns);
}

/* Division that rounds down, also below zero. */
static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static sv number_text(struct arena *a, double d) {
    char t[40];
    if (d == floor(d) && fabs(d) < 1e15) {
        snprintf(t, sizeof t, "%.0f", d);
        return arena_sv(a, sv_cstr(t));
    }
    for (int precision = 15; precision <= 17; precision++) {
        double back;
        snprintf(t, sizeof t, "%.*g", precision, d);
        if (sv_to_double(sv_cstr(t), &back) && back == d) {
            break;
        }
    }
    return arena_sv(a, sv_cstr(t));
}

bool cel_value_text(const struct cel_value *v, struct arena *a, sv *out) {
    char t[PB_TIME_TEXT_MAX];
    struct pb_time time = {0};
    switch (v->kind) {
    case CEL_STRING:
    case CEL_BYTES:
        *out = v->s;
        return true;
    case CEL_BOOL:
        *out = v->b ? SV("true") : SV("false");
        return true;
    case CEL_INT:
        *out = arena_printf(a, "%lld", (long long)v->i);
        return true;
    case CEL_UINT:
        *out = arena_printf(a, "%llu", (unsigned long long)v->u);
        return true;
    case CEL_DOUBLE:
        *out = number_text(a, v->d);
        return true;
    case CEL_DURATION:
        time = (struct pb_time){v->i / NS_PER_S, (int32_t)(v->i % NS_PER_S)};
        *out = arena_sv(a, sv_from(t, pb_duration_format(time, t)));
        return true;
    case CEL_TIMESTAMP:
        time.seconds = floor_div(v->i, NS_PER_S);
        time.nanos = (int32_t)(v->i - time.seconds * NS_PER_S);
        *out = arena_sv(a, sv_from(t, pb_timestamp_format(time, t)));
        return true;
    default:
        return false;
    }
}

/* "UTC", "+02:00", "-08:30" → seconds. Names of zones are not known here. */
static bool zone_offset(sv zone, int64_t *out) {
    uint64_t hours, minutes;
    *out = 0;
    if (!zone.n || sv_is(zone, "UTC") || sv_is(zone, "Z")) {
        return true;
    }
    int64_t sign = zone.p[0] == '-' ? -1 : 1;
    sv rest = zone;
    if (!sv_eat(&rest, SV("+"))) {
        sv_eat(&rest, SV("-"));
    }
    if (!sv_eat_u64(&rest, 2, &hours) || !sv_eat(&rest, SV(":")) ||
        !sv_eat_u64(&rest, 2, &minutes) || rest.n || hours > 23 || minutes > 59) {
        return false;
    }
    *out = sign * (int64_t)(hours * 3600 + minutes * 60);
    return true;
}

/* Days since the epoch to year, month 0…11 and day 0…30 of the proleptic Gregorian calendar: eras
 * of 400 years that begin in March. */
static void civil(int64_t days, int64_t *year, int64_t *month, int64_t *day) {
    int64_t z = days + 719468, era = floor_div(z, 146097);
    int64_t of_era = z - era * 146097;
    int64_t year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t from_march = (5 * day_of_year + 2) / 153;
    *day = day_of_year - (153 * from_march + 2) / 5;
    *month = from_march < 10 ? from_march + 2 : from_march - 10;
    *year = year_of_era + era * 400 + (*month < 2);
}

/* Days since the epoch of January 1st. */
static int64_t year_begin(int64_t year) {
    int64_t before = year - 1;
    return before * 365 + floor_div(before, 4) - floor_div(before, 100) + floor_div(before, 400) -
           719162;
}

static struct cel_value date_part(int64_t ns, enum cel_time_part part) {
    int64_t seconds = floor_div(ns, NS_PER_S), days = floor_div(seconds, S_PER_DAY);
    int64_t of_day = seconds - days * S_PER_DAY, year, month, day;
    civil(days, &year, &month, &day);
    switch (part) {
    case CEL_TIME_YEAR:
        return cel_int(year);
    case CEL_TIME_MONTH:
        return cel_int(month);
    case CEL_TIME_DATE:
        return cel_int(day + 1);
    case CEL_TIME_DAY_OF_MONTH:
        return cel_int(day);
    case CEL_TIME_DAY_OF_WEEK:
        return cel_int(days + 4 - floor_div(days + 4, 7) * 7);
    case CEL_TIME_DAY_OF_YEAR:
        return cel_int(days - year_begin(year));
    case CEL_TIME_HOURS:
        return cel_int(of_day / 3600);
    case CEL_TIME_MINUTES:
        return cel_int(of_day / 60 % 60);
    case CEL_TIME_SECONDS:
        return cel_int(of_day % 60);
    case CEL_TIME_MILLISECONDS:
        return cel_int((ns - seconds * NS_PER_S) / 1000000);
    }
    return cel_error("no matching overload");
}

static struct cel_value duration_part(int64_t ns, enum cel_time_part part) {
    switch (part) {
    case CEL_TIME_HOURS:
        return cel_int(ns / NS_PER_S / 3600);
    case CEL_TIME_MINUTES:
        return cel_int(ns / NS_PER_S / 60);
    case CEL_TIME_SECONDS:
        return cel_int(ns / NS_PER_S);
    case CEL_TIME_MILLISECONDS:
        return cel_int(ns % NS_PER_S / 1000000);
    default:
        return cel_error("no matching overload");
    }
}

struct cel_value cel_time_part(const struct cel_value *v, enum cel_time_part part, sv zone) {
    if (v->kind == CEL_DURATION && !zone.n) {
        return duration_part(v->i, part);
    }
    int64_t offset, local;
    if (v->kind != CEL_TIMESTAMP) {
        return cel_error("no matching overload");
    }
    if (!zone_offset(zone, &offset) || __builtin_add_overflow(v->i, offset * NS_PER_S, &local)) {
        return cel_error("unknown time zone");
    }
    return date_part(local, part);
}
