/* CEL's functions and operators, by the names of the parsed form. Threads: any.
 * Spec: CEL language definition, "Standard Definitions". Integer overflow is an error, never
 * wraps. */
#include <math.h>

#include "proxy/observe/cel_internal.h"

#define FUNC(fn)                                                                             \
    static struct cel_value fn(UNUSED struct cel_run *r, UNUSED const struct cel_node *node, \
                               const struct cel_value *a, UNUSED unsigned n)
#define NO_OVERLOAD cel_error("no matching overload")

static size_t utf8_length(sv s) {
    size_t n = 0;
    while (s.n) {
        unsigned step = sv_utf8_seq(s);
        s = sv_skip(s, step ? step : 1);
        n++;
    }
    return n;
}

FUNC(not ) { return a[0].kind == CEL_BOOL ? cel_bool(!a[0].b) : NO_OVERLOAD; }
/* What loops of the parsed form use: an error counts as true, so that the loop goes on. */
FUNC(not_strictly_false) { return cel_bool(a[0].kind != CEL_BOOL || a[0].b); }
FUNC(eq) { return cel_bool(cel_eq(&a[0], &a[1])); }
FUNC(ne) { return cel_bool(!cel_eq(&a[0], &a[1])); }

static bool is_nan(const struct cel_value *v) { return v->kind == CEL_DOUBLE && isnan(v->d); }

/* Any order with NaN is false; between types without order it is an error. */
static struct cel_value ordered(const struct cel_value *a, bool less, bool equal, bool greater) {
    int order;
    if (!cel_compare(&a[0], &a[1], &order)) {
        return is_nan(&a[0]) || is_nan(&a[1]) ? cel_bool(false) : NO_OVERLOAD;
    }
    return cel_bool(order < 0 ? less : order > 0 ? greater : equal);
}
FUNC(lt) { return ordered(a, true, false, false); }
FUNC(le) { return ordered(a, true, true, false); }
FUNC(gt) { return ordered(a, false, false, true); }
FUNC(ge) { return ordered(a, false, true, true); }

static struct cel_value checked_int(bool overflow, const int64_t *i) {
    return overflow ? cel_error("integer overflow") : cel_int(*i);
}
static struct cel_value checked_uint(bool overflow, const uint64_t *u) {
    return overflow ? cel_error("unsigned integer overflow") : cel_uint(*u);
}

static struct cel_value concat(struct cel_run *r, const struct cel_value *a) {
    char *p = arena_alloc(r->arena, a[0].s.n + a[1].s.n + 1);
    memcpy(p, a[0].s.p ? a[0].s.p : "", a[0].s.n);
    memcpy(p + a[0].s.n, a[1].s.p ? a[1].s.p : "", a[1].s.n);
    return (struct cel_value){.kind = a[0].kind, .s = {p, a[0].s.n + a[1].s.n}};
}
static struct cel_value concat_lists(struct cel_run *r, const struct cel_value *a) {
    size_t n = a[0].list.n + a[1].list.n;
    r->steps += (unsigned)(n < CEL_STEPS_MAX ? n : CEL_STEPS_MAX);
    if (r->steps > CEL_STEPS_MAX) {
        return cel_error("iteration budget exceeded");
    }
    struct cel_value *v = arena_new_array(r->arena, struct cel_value, n ? n : 1);
    for (size_t i = 0; i < n; i++) {
        v[i] = i < a[0].list.n ? a[0].list.v[i] : a[1].list.v[i - a[0].list.n];
    }
    return (struct cel_value){.kind = CEL_LIST, .list = {v, n}};
}

/* Durations and timestamps add up; two timestamps do not. */
static struct cel_value add_times(const struct cel_value *a) {
    int64_t i;
    if (a[0].kind == CEL_TIMESTAMP && a[1].kind == CEL_TIMESTAMP) {
        return NO_OVERLOAD;
    }
    if (__builtin_add_overflow(a[0].i, a[1].i, &i)) {
        return cel_error("time out of range");
    }
    bool is_time = a[0].kind == CEL_TIMESTAMP || a[1].kind == CEL_TIMESTAMP;
    return (struct cel_value){.kind = is_time ? CEL_TIMESTAMP : CEL_DURATION, .i = i};
}
static struct cel_value subtract_times(const struct cel_value *a) {
    int64_t i;
    if (a[0].kind == CEL_DURATION && a[1].kind == CEL_TIMESTAMP) {
        return NO_OVERLOAD;
    }
    if (__builtin_sub_overflow(a[0].i, a[1].i, &i)) {
        return cel_error("time out of range");
    }
    bool is_time = a[0].kind == CEL_TIMESTAMP && a[1].kind == CEL_DURATION;
    return (struct cel_value){.kind = is_time ? CEL_TIMESTAMP : CEL_DURATION, .i = i};
}
static bool are_times(const struct cel_value *a) {
    return (a[0].kind == CEL_DURATION || a[0].kind == CEL_TIMESTAMP) &&
           (a[1].kind == CEL_DURATION || a[1].kind == CEL_TIMESTAMP);
}

FUNC(add) {
    int64_t i = 0;
    uint64_t u = 0;
    if (are_times(a)) {
        return add_times(a);
    }
    if (a[0].kind != a[1].kind) {
        return NO_OVERLOAD;
    }
    switch (a[0].kind) {
    case CEL_INT:
        return checked_int(__builtin_add_overflow(a[0].i, a[1].i, &i), &i);
    case CEL_UINT:
        return checked_uint(__builtin_add_overflow(a[0].u, a[1].u, &u), &u);
    case CEL_DOUBLE:
        return cel_double(a[0].d + a[1].d);
    case CEL_STRING:
    case CEL_BYTES:
        return concat(r, a);
    case CEL_LIST:
        return concat_lists(r, a);
    default:
        return NO_OVERLOAD;
    }
}
FUNC(subtract) {
    int64_t i = 0;
    uint64_t u = 0;
    if (are_times(a)) {
        return subtract_times(a);
    }
    if (a[0].kind != a[1].kind) {
        return NO_OVERLOAD;
    }
    switch (a[0].kind) {
    case CEL_INT:
        return checked_int(__builtin_sub_overflow(a[0].i, a[1].i, &i), &i);
    case CEL_UINT:
        return checked_uint(__builtin_sub_overflow(a[0].u, a[1].u, &u), &u);
    case CEL_DOUBLE:
        return cel_double(a[0].d - a[1].d);
    default:
        return NO_OVERLOAD;
    }
}
FUNC(multiply) {
    int64_t i = 0;
    uint64_t u = 0;
    if (a[0].kind != a[1].kind) {
        return NO_OVERLOAD;
    }
    switch (a[0].kind) {
    case CEL_INT:
        return checked_int(__builtin_mul_overflow(a[0].i, a[1].i, &i), &i);
    case CEL_UINT:
        return checked_uint(__builtin_mul_overflow(a[0].u, a[1].u, &u), &u);
    case CEL_DOUBLE:
        return cel_double(a[0].d * a[1].d);
    default:
        return NO_OVERLOAD;
    }
}
FUNC(divide) {
    if (a[0].kind == CEL_DOUBLE && a[1].kind == CEL_DOUBLE) {
        return cel_double(a[0].d / a[1].d);
    }
    if (a[0].kind != a[1].kind || (a[0].kind != CEL_INT && a[0].kind != CEL_UINT)) {
        return NO_OVERLOAD;
    }
    if (a[1].u == 0) {
        return cel_error("divide by zero");
    }
    if (a[0].kind == CEL_UINT) {
        return cel_uint(a[0].u / a[1].u);
    }
    if (a[0].i == INT64_MIN && a[1].i == -1) {
        return cel_error("integer overflow");
    }
    return cel_int(a[0].i / a[1].i);
}
FUNC(modulo) {
    if (a[0].kind != a[1].kind || (a[0].kind != CEL_INT && a[0].kind != CEL_UINT)) {
        return NO_OVERLOAD;
    }
    if (a[1].u == 0) {
        return cel_error("modulus by zero");
    }
    if (a[0].kind == CEL_UINT) {
        return cel_uint(a[0].u % a[1].u);
    }
    if (a[0].i == INT64_MIN && a[1].i == -1) {
        return cel_error("integer overflow");
    }
    return cel_int(a[0].i % a[1].i);
}
FUNC(negate) {
    if (a[0].kind == CEL_DOUBLE) {
        return cel_double(-a[0].d);
    }
    if (a[0].kind != CEL_INT) {
        return NO_OVERLOAD;
    }
    return a[0].i == INT64_MIN ? cel_error("integer overflow") : cel_int(-a[0].i);
}

FUNC(in) {
    if (a[1].kind == CEL_MAP) {
        return cel_bool(cel_map_get(r, &a[1], &a[0]).kind != CEL_ERROR);
    }
    if (a[1].kind != CEL_LIST) {
        return NO_OVERLOAD;
    }
    bool found = false;
    for (size_t i = 0; !found && i < a[1].list.n; i++) {
        found = cel_eq(&a[0], &a[1].list.v[i]);
    }
    return cel_bool(found);
}
FUNC(index_of) {
    if (a[0].kind == CEL_MAP) {
        return cel_map_get(r, &a[0], &a[1]);
    }
    struct cel_value zero = cel_int(0), past = cel_int((int64_t)(a[0].list.n & INT64_MAX));
    int from, to;
    if (a[0].kind != CEL_LIST || !cel_compare(&a[1], &zero, &from) ||
        !cel_compare(&a[1], &past, &to)) {
        return NO_OVERLOAD;
    }
    if (from < 0 || to >= 0) {
        return cel_error("index out of bounds");
    }
    double whole = a[1].kind == CEL_DOUBLE ? a[1].d : 0;
    if (whole != trunc(whole)) {
        return cel_error("index is no whole number");
    }
    return a[0].list.v[a[1].kind == CEL_DOUBLE ? (size_t)whole : (size_t)a[1].u];
}

FUNC(size) {
    switch (a[0].kind) {
    case CEL_STRING:
        return cel_int((int64_t)utf8_length(a[0].s));
    case CEL_BYTES:
        return cel_int((int64_t)a[0].s.n);
    case CEL_LIST:
        return cel_int((int64_t)a[0].list.n);
    case CEL_MAP: {
        struct cel_value keys = cel_map_keys(r, &a[0]);
        return keys.kind == CEL_LIST ? cel_int((int64_t)keys.list.n) : keys;
    }
    default:
        return NO_OVERLOAD;
    }
}

static bool are_strings(const struct cel_value *a) {
    return a[0].kind == CEL_STRING && a[1].kind == CEL_STRING;
}
FUNC(contains) { return are_strings(a) ? cel_bool(sv_contains(a[0].s, a[1].s)) : NO_OVERLOAD; }
FUNC(starts_with) { return are_strings(a) ? cel_bool(sv_starts(a[0].s, a[1].s)) : NO_OVERLOAD; }
FUNC(ends_with) { return are_strings(a) ? cel_bool(sv_ends(a[0].s, a[1].s)) : NO_OVERLOAD; }
FUNC(matches) {
    if (!are_strings(a)) {
        return NO_OVERLOAD;
    }
    if (node->regex) {
        return cel_bool(regex_partial_match(node->regex, a[0].s.p, a[0].s.n));
    }
    /* Patterns out of the request are not compiled on a worker. */
    return cel_error("the pattern of matches() has to be a constant");
}

/* --- conversions --- */

FUNC(to_int) {
    int64_t i;
    switch (a[0].kind) {
    case CEL_INT:
        return a[0];
    case CEL_UINT:
        return a[0].u > INT64_MAX ? cel_error("integer overflow") : cel_int((int64_t)a[0].u);
    case CEL_DOUBLE:
        return a[0].d > -9223372036854775808.0 && a[0].d < 9223372036854775808.0
                   ? cel_int((int64_t)a[0].d)
                   : cel_error("integer overflow");
    case CEL_STRING:
        return sv_to_i64(a[0].s, &i) ? cel_int(i) : cel_error("not an integer");
    case CEL_TIMESTAMP:
        return cel_int(a[0].i / 1000000000);
    default:
        return NO_OVERLOAD;
    }
}
FUNC(to_uint) {
    uint64_t u;
    switch (a[0].kind) {
    case CEL_UINT:
        return a[0];
    case CEL_INT:
        return a[0].i < 0 ? cel_error("unsigned integer overflow") : cel_uint((uint64_t)a[0].i);
    case CEL_DOUBLE:
        return a[0].d > -1 && a[0].d < 18446744073709551616.0
                   ? cel_uint((uint64_t)a[0].d)
                   : cel_error("unsigned integer overflow");
    case CEL_STRING:
        return sv_to_u64(a[0].s, &u) ? cel_uint(u) : cel_error("not an unsigned integer");
    default:
        return NO_OVERLOAD;
    }
}
FUNC(to_double) {
    double d;
    switch (a[0].kind) {
    case CEL_DOUBLE:
        return a[0];
    case CEL_INT:
        return cel_double((double)a[0].i);
    case CEL_UINT:
        return cel_double((double)a[0].u);
    case CEL_STRING:
        return sv_to_double(a[0].s, &d) ? cel_double(d) : cel_error("not a number");
    default:
        return NO_OVERLOAD;
    }
}
FUNC(to_string) {
    sv s;
    if (a[0].kind == CEL_BYTES && !sv_is_utf8(a[0].s)) {
        return cel_error("bytes are no UTF-8");
    }
    return cel_value_text(&a[0], r->arena, &s) ? cel_string(s) : NO_OVERLOAD;
}
FUNC(to_bytes) {
    return a[0].kind == CEL_STRING || a[0].kind == CEL_BYTES
               ? (struct cel_value){.kind = CEL_BYTES, .s = a[0].s}
               : NO_OVERLOAD;
}
FUNC(to_bool) {
    if (a[0].kind == CEL_BOOL) {
        return a[0];
    }
    if (a[0].kind != CEL_STRING) {
        return NO_OVERLOAD;
    }
    bool yes = sv_is(a[0].s, "true") || sv_is(a[0].s, "1") || sv_is(a[0].s, "t") ||
               sv_is(a[0].s, "True") || sv_is(a[0].s, "TRUE");
    bool no = sv_is(a[0].s, "false") || sv_is(a[0].s, "0") || sv_is(a[0].s, "f") ||
              sv_is(a[0].s, "False") || sv_is(a[0].s, "FALSE");
    return yes || no ? cel_bool(yes) : cel_error("not a boolean");
}
FUNC(dyn) { return a[0]; }
FUNC(to_duration) {
    int64_t ns;
    if (a[0].kind == CEL_DURATION) {
        return a[0];
    }
    if (a[0].kind != CEL_STRING) {
        return NO_OVERLOAD;
    }
    return cel_parse_duration(a[0].s, &ns) ? cel_duration(ns) : cel_error("not a duration");
}
FUNC(to_timestamp) {
    int64_t ns;
    if (a[0].kind == CEL_TIMESTAMP) {
        return a[0];
    }
    bool ok = a[0].kind == CEL_STRING ? cel_parse_timestamp(a[0].s, &ns)
              : a[0].kind == CEL_INT  ? !__builtin_mul_overflow(a[0].i, 1000000000LL, &ns)
                                      : false;
    return ok ? (struct cel_value){.kind = CEL_TIMESTAMP, .i = ns} : cel_error("not a timestamp");
}

static struct cel_value part(const struct cel_value *a, unsigned n, enum cel_time_part which) {
    if (n == 2 && a[1].kind != CEL_STRING) {
        return NO_OVERLOAD;
    }
    return cel_time_part(&a[0], which, n == 2 ? a[1].s : SV_NULL);
}
FUNC(get_year) { return part(a, n, CEL_TIME_YEAR); }
FUNC(get_month) { return part(a, n, CEL_TIME_MONTH); }
FUNC(get_date) { return part(a, n, CEL_TIME_DATE); }
FUNC(get_day_of_month) { return part(a, n, CEL_TIME_DAY_OF_MONTH); }
FUNC(get_day_of_week) { return part(a, n, CEL_TIME_DAY_OF_WEEK); }
FUNC(get_day_of_year) { return part(a, n, CEL_TIME_DAY_OF_YEAR); }
FUNC(get_hours) { return part(a, n, CEL_TIME_HOURS); }
FUNC(get_minutes) { return part(a, n, CEL_TIME_MINUTES); }
FUNC(get_seconds) { return part(a, n, CEL_TIME_SECONDS); }
FUNC(get_milliseconds) { return part(a, n, CEL_TIME_MILLISECONDS); }

bool cel_func_is_lenient(const struct cel_func *f) { return f->call == not_strictly_false; }

const struct cel_func *cel_func_find(sv name, unsigned args) {
    static const struct cel_func funcs[] = {
        {"!_", 1, 1, not },
        {"-_", 1, 1, negate},
        {"@not_strictly_false", 1, 1, not_strictly_false},
        {"__not_strictly_false__", 1, 1, not_strictly_false},
        {"_==_", 2, 2, eq},
        {"_!=_", 2, 2, ne},
        {"_<_", 2, 2, lt},
        {"_<=_", 2, 2, le},
        {"_>_", 2, 2, gt},
        {"_>=_", 2, 2, ge},
        {"_+_", 2, 2, add},
        {"_-_", 2, 2, subtract},
        {"_*_", 2, 2, multiply},
        {"_/_", 2, 2, divide},
        {"_%_", 2, 2, modulo},
        {"@in", 2, 2, in},
        {"_in_", 2, 2, in},
        {"_[_]", 2, 2, index_of},
        {"size", 1, 1, size},
        {"contains", 2, 2, contains},
        {"startsWith", 2, 2, starts_with},
        {"endsWith", 2, 2, ends_with},
        {"matches", 2, 2, matches},
        {"int", 1, 1, to_int},
        {"uint", 1, 1, to_uint},
        {"double", 1, 1, to_double},
        {"string", 1, 1, to_string},
        {"bytes", 1, 1, to_bytes},
        {"bool", 1, 1, to_bool},
        {"dyn", 1, 1, dyn},
        {"duration", 1, 1, to_duration},
        {"timestamp", 1, 1, to_timestamp},
        {"getFullYear", 1, 2, get_year},
        {"getMonth", 1, 2, get_month},
        {"getDate", 1, 2, get_date},
        {"getDayOfMonth", 1, 2, get_day_of_month},
        {"getDayOfWeek", 1, 2, get_day_of_week},
        {"getDayOfYear", 1, 2, get_day_of_year},
        {"getHours", 1, 2, get_hours},
        {"getMinutes", 1, 2, get_minutes},
        {"getSeconds", 1, 2, get_seconds},
        {"getMilliseconds", 1, 2, get_milliseconds},
    };
    for (size_t i = 0; i < ARRAY_LEN(funcs); i++) {
        if (sv_is(name, funcs[i].name) && args >= funcs[i].args_min && args <= funcs[i].args_max) {
            return &funcs[i];
        }
    }
    return NULL;
}
