/* See the header. */
#include "filters/common/trace_context.h"

#define ID_DIGITS TRACE_ID_DIGITS
#define TRACEPARENT_BYTES 55u

/* ---- digits ---- */

bool trace_hex_parse(sv s, uint64_t *out) {
    uint64_t v = 0;
    if (s.n == 0 || s.n > ID_DIGITS) {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        int digit = ascii_hex(s.p[i]);
        if (digit < 0) {
            return false;
        }
        v = v << 4 | (unsigned)digit;
    }
    *out = v;
    return true;
}

/* ---- B3: one header ---- */

static bool is_sampling_flag(char c) { return c == '0' || c == '1' || c == 'd'; }

static void note_flag(char c, struct trace_context *out) {
    out->has_sampled = true;
    out->is_sampled = c != '0';
}

static bool eat_id(sv *s, uint64_t *out) {
    if (s->n < ID_DIGITS || !trace_hex_parse(sv_sub(*s, 0, ID_DIGITS), out)) {
        return false;
    }
    *s = sv_skip(*s, ID_DIGITS);
    return true;
}

/* "{trace}-{span}[-{flag}[-{parent}]]" */
static bool parse_single(sv s, struct trace_context *out) {
    uint64_t id;
    if (!eat_id(&s, &id)) {
        return false;
    }
    out->trace_low = id;
    if (s.n && s.p[0] != '-') {
        out->trace_high = id;
        if (!eat_id(&s, &out->trace_low)) {
            return false;
        }
    }
    if (!sv_eat(&s, SV("-")) || !eat_id(&s, &out->span)) {
        return false;
    }
    if (!s.n) {
        return true;
    }
    if (s.n < 2 || s.p[0] != '-' || !is_sampling_flag(s.p[1])) {
        return false;
    }
    note_flag(s.p[1], out);
    s = sv_skip(s, 2);
    return !s.n || (sv_eat(&s, SV("-")) && eat_id(&s, &out->parent) && !s.n);
}

static enum trace_context_result single_b3(sv value, struct trace_context *out) {
    if (value.n == 1 && is_sampling_flag(value.p[0])) {
        note_flag(value.p[0], out);
        return TRACE_CONTEXT_NONE;
    }
    return parse_single(value, out) ? TRACE_CONTEXT_FOUND : TRACE_CONTEXT_BROKEN;
}

/* ---- B3: several headers ---- */

static bool parse_trace_id(sv s, struct trace_context *out) {
    if (s.n != 2 * ID_DIGITS) {
        return trace_hex_parse(s, &out->trace_low);
    }
    return trace_hex_parse(sv_sub(s, 0, ID_DIGITS), &out->trace_high) &&
           trace_hex_parse(sv_skip(s, ID_DIGITS), &out->trace_low);
}

enum trace_context_result trace_context_b3(const struct headers *h, struct trace_context *out) {
    *out = (struct trace_context){.has_sampled = false};
    sv single = headers_get(h, HDR_b3);
    if (single.p) {
        return single_b3(single, out);
    }
    sv sampled = headers_get(h, HDR_x_b3_sampled);
    if (sampled.p) {
        out->has_sampled = true;
        out->is_sampled = sv_is(sampled, "1") || sv_is(sampled, "true");
    }
    sv trace = headers_get(h, HDR_x_b3_traceid), span = headers_get(h, HDR_x_b3_spanid);
    if (!trace.p || !span.p) {
        return TRACE_CONTEXT_NONE;
    }
    sv parent = headers_get(h, HDR_x_b3_parentspanid);
    bool ok = parse_trace_id(trace, out) && trace_hex_parse(span, &out->span) &&
              (!parent.n || trace_hex_parse(parent, &out->parent));
    return ok ? TRACE_CONTEXT_FOUND : TRACE_CONTEXT_BROKEN;
}

/* ---- W3C ---- */

/* "{version}-{trace}-{parent}-{flags}", hex digits of 2, 32, 16 and 2. */
enum trace_context_result trace_context_w3c(const struct headers *h, struct trace_context *out) {
    *out = (struct trace_context){.has_sampled = false};
    sv s = headers_get(h, HDR_traceparent);
    if (!s.p) {
        return TRACE_CONTEXT_NONE;
    }
    uint64_t version, flags;
    bool ok = s.n == TRACEPARENT_BYTES && s.p[2] == '-' && s.p[35] == '-' && s.p[52] == '-' &&
              trace_hex_parse(sv_sub(s, 0, 2), &version) &&
              trace_hex_parse(sv_sub(s, 3, 16), &out->trace_high) &&
              trace_hex_parse(sv_sub(s, 19, 16), &out->trace_low) &&
              trace_hex_parse(sv_sub(s, 36, 16), &out->span) &&
              trace_hex_parse(sv_sub(s, 53, 2), &flags) && (out->trace_high | out->trace_low) &&
              out->span;
    if (!ok) {
        return TRACE_CONTEXT_BROKEN;
    }
    out->has_sampled = true;
    out->is_sampled = flags & 1;
    return TRACE_CONTEXT_FOUND;
}

/* ---- writing ---- */

static void inject_single(const struct trace_span *s, struct headers *h) {
    char *p = (char *)arena_alloc(h->arena, 4 * ID_DIGITS + 4);
    size_t n = trace_id_write(s, p);
    p[n++] = '-';
    trace_hex_write(s->id, p + n);
    n += ID_DIGITS;
    p[n++] = '-';
    p[n++] = s->is_sampled ? '1' : '0';
    if (s->has_parent) {
        p[n++] = '-';
        trace_hex_write(s->parent_id, p + n);
        n += ID_DIGITS;
    }
    headers_set(h, HDR_b3, sv_from(p, n));
}

void trace_inject_b3(const struct trace_span *s, struct headers *h) {
    if (s->uses_single_b3) {
        inject_single(s, h);
        return;
    }
    headers_set(h, HDR_x_b3_traceid, trace_id_text(s, h->arena));
    headers_set(h, HDR_x_b3_spanid, trace_hex_text(s->id, h->arena));
    if (s->has_parent) {
        headers_set(h, HDR_x_b3_parentspanid, trace_hex_text(s->parent_id, h->arena));
    }
    headers_set(h, HDR_x_b3_sampled, s->is_sampled ? SV("1") : SV("0"));
}

void trace_inject_traceparent(const struct trace_span *s, struct headers *h) {
    char *p = (char *)arena_alloc(h->arena, TRACEPARENT_BYTES);
    memcpy(p, "00-", 3);
    trace_hex_write(s->trace_high, p + 3);
    trace_hex_write(s->trace_low, p + 19);
    p[35] = '-';
    trace_hex_write(s->id, p + 36);
    p[52] = '-';
    p[53] = '0';
    p[54] = s->is_sampled ? '1' : '0';
    headers_set(h, HDR_traceparent, sv_from(p, TRACEPARENT_BYTES));
}
