/* Operators about time: when things happened and how long they took. Formats are strftime's plus
 * fractions of a second.
 * Threads: evaluated on workers; the broken-down time of the last second is kept per thread.
 * Spec: Envoy's START_TIME formats: %s seconds, %f %1f..%9f fraction, %E*S %E#S seconds with
 * fraction. */
#include <time.h>

#include "proxy/observe/formatter_internal.h"

const char fmt_time_default[] = "%Y-%m-%dT%H:%M:%E3SZ";
const char fmt_time_default_local[] = "%Y-%m-%dT%H:%M:%E3S%z";

enum piece_kind { PIECE_STRFTIME, PIECE_EPOCH, PIECE_FRACTION, PIECE_SECONDS, PIECE_SECONDS_ALL };
struct piece {
    enum piece_kind kind;
    uint8_t digits;
    const char *format; /* PIECE_STRFTIME */
};
#define PIECES_MAX 64
struct fmt_time {
    bool is_default;
    unsigned n;
    struct piece v[PIECES_MAX];
};

/* "%E*S", "%E3S" at the front of s. */
static bool is_seconds(sv s) {
    return s.n > 3 && s.p[1] == 'E' && s.p[3] == 'S' && (s.p[2] == '*' || ascii_isdigit(s.p[2]));
}
/* "%3f" at the front of s. */
static bool is_fraction(sv s) { return s.n > 2 && s.p[1] >= '1' && s.p[1] <= '9' && s.p[2] == 'f'; }

/* A conversion that strftime lacks, at the front of s ('%' included); returns its length or 0. */
static size_t special(sv s, struct piece *p) {
    *p = (struct piece){0};
    if (sv_starts(s, SV("%s"))) {
        p->kind = PIECE_EPOCH;
        return 2;
    }
    if (sv_starts(s, SV("%f"))) {
        *p = (struct piece){.kind = PIECE_FRACTION, .digits = 9};
        return 2;
    }
    if (is_fraction(s)) {
        *p = (struct piece){.kind = PIECE_FRACTION, .digits = (uint8_t)(s.p[1] - '0')};
        return 3;
    }
    if (is_seconds(s)) {
        bool is_all = s.p[2] == '*';
        *p = (struct piece){.kind = is_all ? PIECE_SECONDS_ALL : PIECE_SECONDS,
                            .digits = is_all ? 0 : (uint8_t)(s.p[2] - '0')};
        return 4;
    }
    return 0;
}

static void add_strftime(struct fmt_time *t, struct arena *a, sv text) {
    if (text.n && t->n < PIECES_MAX) {
        t->v[t->n++] = (struct piece){.kind = PIECE_STRFTIME, .format = arena_cstr(a, text)};
    }
}

const struct fmt_time *fmt_time_compile(struct arena *a, sv format) {
    struct fmt_time *t = arena_new(a, struct fmt_time);
    t->is_default = sv_is(format, fmt_time_default);
    size_t from = 0;
    for (size_t i = 0; i < format.n;) {
        struct piece p;
        size_t n = format.p[i] == '%' ? special(sv_skip(format, i), &p) : 0;
        if (!n) {
            i += format.p[i] == '%' && i + 1 < format.n ? 2 : 1;
            continue;
        }
        add_strftime(t, a, sv_sub(format, from, i - from));
        if (t->n < PIECES_MAX) {
            t->v[t->n++] = p;
        }
        i += n;
        from = i;
    }
    add_strftime(t, a, sv_skip(format, from));
    return t;
}

static const struct tm *broken_down(time_t s, bool is_local) {
    static __thread struct {
        bool valid;
        time_t s;
        struct tm tm;
    } last[2];
    if (!last[is_local].valid || last[is_local].s != s) {
        if (is_local) {
            localtime_r(&s, &last[1].tm);
        } else {
            gmtime_r(&s, &last[0].tm);
            last[0].tm.tm_zone = "UTC";
        }
        last[is_local].s = s;
        last[is_local].valid = true;
    }
    return &last[is_local].tm;
}

static char *put_digits(char *p, uint64_t v, unsigned digits) {
    for (unsigned i = digits; i > 0; i--) {
        p[i - 1] = (char)('0' + v % 10);
        v /= 10;
    }
    return p + digits;
}

/* 2026-11-22T22:01:49.010Z, the format of nearly every line. */
static sv write_default(const struct tm *tm, uint64_t us, char *out) {
    char *p = put_digits(out, (uint64_t)tm->tm_year + 1900, 4);
    *p++ = '-';
    p = put_digits(p, (uint64_t)tm->tm_mon + 1, 2);
    *p++ = '-';
    p = put_digits(p, (uint64_t)tm->tm_mday, 2);
    *p++ = 'T';
    p = put_digits(p, (uint64_t)tm->tm_hour, 2);
    *p++ = ':';
    p = put_digits(p, (uint64_t)tm->tm_min, 2);
    *p++ = ':';
    p = put_digits(p, (uint64_t)tm->tm_sec, 2);
    *p++ = '.';
    p = put_digits(p, us / 1000, 3);
    *p++ = 'Z';
    return sv_from(out, (size_t)(p - out));
}

static const uint64_t ten_to[] = {1,      10,      100,      1000,      10000,
                                  100000, 1000000, 10000000, 100000000, 1000000000};

static size_t write_piece(const struct piece *p, const struct tm *tm, time_t s, uint64_t us,
                          char *out, size_t room) {
    char t[32], *e = t;
    uint64_t ns = us * 1000;
    unsigned digits = p->digits;
    switch (p->kind) {
    case PIECE_STRFTIME:
        return strftime(out, room, p->format, tm);
    case PIECE_EPOCH: {
        int n = snprintf(out, room, "%lld", (long long)s);
        return n > 0 && (size_t)n < room ? (size_t)n : 0;
    }
    case PIECE_SECONDS_ALL: /* as many digits as the fraction has */
        digits = 9;
        while (digits && ns % ten_to[10 - digits] == 0) {
            digits--;
        }
        /* fall through */
    case PIECE_SECONDS:
        e = put_digits(e, (uint64_t)tm->tm_sec, 2);
        if (digits) {
            *e++ = '.';
        }
        /* fall through */
    case PIECE_FRACTION:
        e = put_digits(e, ns / ten_to[9 - digits], digits);
        break;
    }
    size_t n = (size_t)(e - t);
    if (n > room) {
        return 0;
    }
    memcpy(out, t, n);
    return n;
}

sv fmt_time_write(const struct fmt_time *t, struct fmt_ctx *c, uint64_t wall_us, bool is_local) {
    time_t s = (time_t)(wall_us / 1000000);
    uint64_t us = wall_us % 1000000;
    const struct tm *tm = broken_down(s, is_local);
    if (t->is_default && !is_local && tm->tm_year + 1900 <= 9999) {
        return write_default(tm, us, c->tmp);
    }
    size_t n = 0;
    for (unsigned i = 0; i < t->n; i++) {
        n += write_piece(&t->v[i], tm, s, us, c->tmp + n, sizeof(c->tmp) - n);
    }
    return sv_from(c->tmp, n);
}

/* --- points in time --- */

enum { TIME_START, TIME_START_LOCAL, TIME_EMIT, TIME_EMIT_LOCAL };

static bool compile_time(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    if (sv_find(args, '\n') != SIZE_MAX || sv_find_sv(args, SV("%n")) != SIZE_MAX) {
        return diag_error(ctx->diag,
                          "Invalid header configuration. Format string contains newline.");
    }
    bool is_local = op->def->sub == TIME_START_LOCAL || op->def->sub == TIME_EMIT_LOCAL;
    op->arg = fmt_time_compile(
        ctx->arena, args.n ? args : sv_cstr(is_local ? fmt_time_default_local : fmt_time_default));
    return true;
}

static void eval_time(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    uint64_t us = c->si->start_wall_us;
    if (op->def->sub == TIME_EMIT || op->def->sub == TIME_EMIT_LOCAL) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        us = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
    }
    bool is_local = op->def->sub == TIME_START_LOCAL || op->def->sub == TIME_EMIT_LOCAL;
    fmt_str(v, fmt_time_write(op->arg, c, us, is_local));
}

/* --- durations: monotonic microseconds, 0 when it has not happened --- */

enum point {
    DS_RX_BEG,
    DS_RX_END,
    US_CX_BEG,
    US_CX_END,
    US_HS_END,
    US_TX_BEG,
    US_TX_END,
    US_RX_BEG,
    US_RX_BODY_BEG,
    US_RX_END,
    DS_TX_BEG,
    DS_TX_END,
    POINT_UNKNOWN
};
static const char *const point_names[] = {"DS_RX_BEG",      "DS_RX_END", "US_CX_BEG", "US_CX_END",
                                          "US_HS_END",      "US_TX_BEG", "US_TX_END", "US_RX_BEG",
                                          "US_RX_BODY_BEG", "US_RX_END", "DS_TX_BEG", "DS_TX_END"};

static uint64_t point_us(const struct stream_info *si, enum point p) {
    switch (p) {
    case DS_RX_BEG:
        return si->start_us;
    case DS_RX_END:
        return si->last_rx_us;
    case US_TX_BEG:
        return si->up.first_tx_us;
    case US_TX_END:
        return si->up.last_tx_us;
    case US_RX_BEG:
        return si->up.first_rx_us;
    case US_RX_END:
        return si->up.last_rx_us;
    case DS_TX_BEG:
        return si->first_tx_us;
    case DS_TX_END:
        return si->last_tx_us;
    case US_CX_BEG: /* of a new upstream connection: not known per stream */
    case US_CX_END:
    case US_HS_END:
    case US_RX_BODY_BEG:
    case POINT_UNKNOWN:
        break;
    }
    return 0;
}

struct span {
    uint8_t from, to; /* enum point */
    uint8_t per_us;   /* 0: ms, 1: us, 2: ns */
};

static bool write_span(const struct span *s, const struct stream_info *si, struct fmt_value *v) {
    uint64_t from = point_us(si, s->from), to = point_us(si, s->to);
    if (!from || !to || to < from) {
        return false;
    }
    uint64_t us = to - from;
    fmt_u64(v, s->per_us == 0 ? us / 1000 : s->per_us == 1 ? us : us * 1000);
    return true;
}

static enum point point_of(sv name) {
    for (unsigned i = 0; i < ARRAY_LEN(point_names); i++) {
        if (sv_is(name, point_names[i])) {
            return (enum point)i;
        }
    }
    return POINT_UNKNOWN; /* a point that filters may define; none does here */
}

static bool compile_common(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    sv rest = args, part[4] = {SV_NULL};
    unsigned n = 0;
    while (rest.n && n < 4) {
        part[n++] = sv_cut(&rest, ':');
    }
    if (n < 2 || n > 3 || rest.n) {
        return diag_error(ctx->diag, "Invalid common duration configuration: %.*s.", SV_ARG(args));
    }
    struct span *s = arena_new(ctx->arena, struct span);
    s->from = (uint8_t)point_of(part[0]);
    s->to = (uint8_t)point_of(part[1]);
    if (n == 3 && !sv_is(part[2], "ms") && !sv_is(part[2], "us") && !sv_is(part[2], "ns")) {
        return diag_error(ctx->diag, "Invalid common duration precision: %.*s.", SV_ARG(part[2]));
    }
    s->per_us = n < 3 || sv_is(part[2], "ms") ? 0 : sv_is(part[2], "us") ? 1 : 2;
    op->arg = s;
    return true;
}
static void eval_common(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    write_span(op->arg, c->si, v);
}

enum { DUR_TOTAL, DUR_REQUEST, DUR_REQUEST_TX, DUR_RESPONSE, DUR_RESPONSE_TX };
static void eval_duration(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    static const struct span spans[] = {
        [DUR_REQUEST] = {DS_RX_BEG, DS_RX_END, 0},
        [DUR_REQUEST_TX] = {DS_RX_BEG, US_TX_END, 0},
        [DUR_RESPONSE] = {DS_RX_BEG, US_RX_BEG, 0},
        [DUR_RESPONSE_TX] = {US_RX_BEG, DS_TX_END, 0},
    };
    if (op->def->sub != DUR_TOTAL) {
        write_span(&spans[op->def->sub], c->si, v);
        return;
    }
    uint64_t us;
    if (stream_info_duration_us(c->si, &us)) {
        fmt_u64(v, us / 1000);
    }
}

static void eval_pool_ready(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    const struct stream_info *si = c->si;
    if (si->up.pool_ready_us >= si->start_us && si->up.pool_ready_us) {
        fmt_u64(v, (si->up.pool_ready_us - si->start_us) / 1000);
    }
}

static void eval_handshake(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    const struct conn_info *cx = c->si->cx;
    if (cx && cx->handshake_end_us && cx->handshake_end_us >= cx->start_us) {
        fmt_u64(v, (cx->handshake_end_us - cx->start_us) / 1000);
    }
}

static void eval_none(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    (void)c;
    v->kind = FMT_NONE;
}

static void eval_resolution_time(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    if (c->si->route_resolutions) {
        fmt_u64(v, c->si->route_resolution_us);
    }
}

static const struct fmt_def defs[] = {
    {"START_TIME", eval_time, FMT_ARGS_OPTIONAL, false, compile_time, TIME_START},
    {"START_TIME_LOCAL", eval_time, FMT_ARGS_OPTIONAL, false, compile_time, TIME_START_LOCAL},
    {"EMIT_TIME", eval_time, FMT_ARGS_OPTIONAL, false, compile_time, TIME_EMIT},
    {"EMIT_TIME_LOCAL", eval_time, FMT_ARGS_OPTIONAL, false, compile_time, TIME_EMIT_LOCAL},
    {"DURATION", eval_duration, FMT_ARGS_NONE, false, NULL, DUR_TOTAL},
    {"REQUEST_DURATION", eval_duration, FMT_ARGS_NONE, false, NULL, DUR_REQUEST},
    {"REQUEST_TX_DURATION", eval_duration, FMT_ARGS_NONE, false, NULL, DUR_REQUEST_TX},
    {"RESPONSE_DURATION", eval_duration, FMT_ARGS_NONE, false, NULL, DUR_RESPONSE},
    {"RESPONSE_TX_DURATION", eval_duration, FMT_ARGS_NONE, false, NULL, DUR_RESPONSE_TX},
    {"COMMON_DURATION", eval_common, FMT_ARGS_REQUIRED, false, compile_common, 0},
    {"UPSTREAM_CONNECTION_POOL_READY_DURATION", eval_pool_ready, FMT_ARGS_NONE, false, NULL, 0},
    {"DOWNSTREAM_HANDSHAKE_DURATION", eval_handshake, FMT_ARGS_NONE, false, NULL, 0},
    /* HTTP/3's last acknowledgement */
    {"ROUNDTRIP_DURATION", eval_none, FMT_ARGS_NONE, false, NULL, 0},
    {"ROUTE_RESOLUTION_TIME_US", eval_resolution_time, FMT_ARGS_NONE, false, NULL, 0},
};
const struct fmt_table fmt_table_time = {defs, ARRAY_LEN(defs)};
