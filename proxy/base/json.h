/* Streaming JSON writer into a buf (one-space indent as Envoy's admin prints it, or compact).
 * Parsing is jansson's.
 * Usage: json_begin(&w, out, indent); json_obj(&w); json_key(&w, SV("a")); json_u64(&w, 1);
 * json_end(&w); */
#ifndef SLUICE_BASE_JSON_H
#define SLUICE_BASE_JSON_H

#include "proxy/base/buf.h"

#define JSON_DEPTH_MAX 128

struct json_writer {
    struct buf *out;
    int indent; /* spaces per level; 0: compact, one line */
    unsigned depth_;
    bool after_key_;
    bool first_[JSON_DEPTH_MAX];
    char close_[JSON_DEPTH_MAX];
};

void json_begin(struct json_writer *w, struct buf *out, int indent);
void json_obj(struct json_writer *w);
void json_arr(struct json_writer *w);
void json_end(struct json_writer *w); /* closes the innermost object or array */
void json_key(struct json_writer *w, sv key);
void json_str(struct json_writer *w, sv s); /* escapes; ill-formed UTF-8 becomes U+FFFD */
void json_bool(struct json_writer *w, bool v);
void json_put_null(struct json_writer *w); /* jansson has json_null */
void json_i64(struct json_writer *w, int64_t v);
void json_u64(struct json_writer *w, uint64_t v);
/* "123": how proto3 JSON prints 64-bit integers */
void json_u64_str(struct json_writer *w, uint64_t v);
void json_i64_str(struct json_writer *w, int64_t v);
/* shortest that reads back; NaN/Infinity as proto3 strings */
void json_double(struct json_writer *w, double v);
void json_raw(struct json_writer *w, sv raw); /* already JSON; placed as one value */
/* Only the escaping, without quotes (access logs). */
void json_escape(struct buf *out, sv s);

#endif
