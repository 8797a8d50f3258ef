/* JSON text written into a buf as it comes, without a tree.
 * Threads: one owner.
 * Spec: RFC 8259; numbers as the proto3 JSON mapping prints them.
 * Not here: parsing (jansson), messages to JSON (protos/pb_json.c). */
#include "proxy/base/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void json_begin(struct json_writer *w, struct buf *out, int indent) {
    *w = (struct json_writer){.out = out, .indent = indent};
}

static void newline(struct json_writer *w) {
    static const char spaces[] = "                                ";
    if (w->indent == 0) {
        return;
    }
    buf_lit(w->out, "\n");
    size_t left = (size_t)w->indent * w->depth_;
    while (left) {
        size_t step = left < sizeof(spaces) - 1 ? left : sizeof(spaces) - 1;
        buf_append(w->out, spaces, step);
        left -= step;
    }
}

/* What parts a member from the one before. */
static void next_member(struct json_writer *w) {
    if (w->depth_ == 0) {
        return;
    }
    bool *is_first = &w->first_[w->depth_ - 1];
    if (!*is_first) {
        buf_lit(w->out, ",");
    }
    *is_first = false;
    newline(w);
}

/* Below JSON_DEPTH_MAX everything is left out; the object or array at the limit is printed as
 * null. */
static bool can_write(const struct json_writer *w) { return w->depth_ <= JSON_DEPTH_MAX; }

static bool begin_value(struct json_writer *w) {
    if (!can_write(w)) {
        return false;
    }
    if (w->after_key_) {
        w->after_key_ = false;
        return true;
    }
    ASSERT(w->depth_ == 0 || w->close_[w->depth_ - 1] == ']');
    next_member(w);
    return true;
}

static void open_value(struct json_writer *w, sv open, char close) {
    bool has_room = w->depth_ < JSON_DEPTH_MAX;
    if (begin_value(w)) {
        buf_append_sv(w->out, has_room ? open : SV("null"));
    }
    if (has_room) {
        w->first_[w->depth_] = true;
        w->close_[w->depth_] = close;
    }
    w->depth_++;
}

void json_obj(struct json_writer *w) { open_value(w, SV("{"), '}'); }
void json_arr(struct json_writer *w) { open_value(w, SV("["), ']'); }

void json_end(struct json_writer *w) {
    CHECK(w->depth_ > 0);
    ASSERT(!w->after_key_);
    w->depth_--;
    if (w->depth_ >= JSON_DEPTH_MAX) {
        return;
    }
    if (!w->first_[w->depth_]) {
        newline(w);
    }
    buf_append(w->out, &w->close_[w->depth_], 1);
}

static void quoted(struct buf *out, sv s) {
    buf_lit(out, "\"");
    json_escape(out, s);
    buf_lit(out, "\"");
}

void json_key(struct json_writer *w, sv key) {
    if (!can_write(w)) {
        return;
    }
    ASSERT(w->depth_ > 0 && w->close_[w->depth_ - 1] == '}' && !w->after_key_);
    next_member(w);
    quoted(w->out, key);
    buf_append_sv(w->out, w->indent ? SV(": ") : SV(":"));
    w->after_key_ = true;
}

void json_str(struct json_writer *w, sv s) {
    if (begin_value(w)) {
        quoted(w->out, s);
    }
}

void json_raw(struct json_writer *w, sv raw) {
    if (begin_value(w)) {
        buf_append_sv(w->out, raw);
    }
}

void json_bool(struct json_writer *w, bool v) { json_raw(w, v ? SV("true") : SV("false")); }
void json_put_null(struct json_writer *w) { json_raw(w, SV("null")); }

static void number(struct json_writer *w, uint64_t magnitude, bool is_negative, bool is_quoted) {
    char text[24];
    char *end = text + sizeof(text), *p = end;
    if (is_quoted) {
        *--p = '"';
    }
    do {
        *--p = (char)('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude);
    if (is_negative) {
        *--p = '-';
    }
    if (is_quoted) {
        *--p = '"';
    }
    json_raw(w, sv_from(p, (size_t)(end - p)));
}

static uint64_t magnitude_of(int64_t v) { return v < 0 ? 0 - (uint64_t)v : (uint64_t)v; }

void json_u64(struct json_writer *w, uint64_t v) { number(w, v, false, false); }
void json_u64_str(struct json_writer *w, uint64_t v) { number(w, v, false, true); }
void json_i64(struct json_writer *w, int64_t v) { number(w, magnitude_of(v), v < 0, false); }
void json_i64_str(struct json_writer *w, int64_t v) { number(w, magnitude_of(v), v < 0, true); }

void json_double(struct json_writer *w, double v) {
    if (isnan(v)) {
        json_str(w, SV("NaN"));
        return;
    }
    if (isinf(v)) {
        json_str(w, v < 0 ? SV("-Infinity") : SV("Infinity"));
        return;
    }
    char text[32];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v) {
            break;
        }
    }
    json_raw(w, sv_from(text, (size_t)n));
}

static bool is_plain(unsigned char c) { return c >= 0x20 && c < 0x7f && c != '"' && c != '\\'; }

static void escape_ascii(struct buf *out, unsigned char c) {
    static const char shorts[] = "b\bf\fn\nr\rt\t\"\"\\\\"; /* letter, character */
    for (size_t i = 0; i < sizeof(shorts) - 1; i += 2) {
        if ((unsigned char)shorts[i + 1] == c) {
            buf_append(out, (char[2]){'\\', shorts[i]}, 2);
            return;
        }
    }
    buf_printf(out, "\\u%04x", c);
}

void json_escape(struct buf *out, sv s) {
    size_t from = 0, i = 0; /* [from, i) goes out as it is */
    while (i < s.n) {
        unsigned char c = (unsigned char)s.p[i];
        if (is_plain(c)) {
            i++;
            continue;
        }
        unsigned seq = sv_utf8_seq((sv){s.p + i, s.n - i});
        if (seq > 1) {
            i += seq;
            continue;
        }
        buf_append(out, s.p + from, i - from);
        if (seq == 1) {
            escape_ascii(out, c);
        } else {
            buf_lit(out, "\xef\xbf\xbd");
        }
        from = ++i;
    }
    if (i > from) { /* an empty view may be NULL */
        buf_append(out, s.p + from, i - from);
    }
}
