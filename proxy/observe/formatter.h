/* Substitution format strings (%COMMAND(args):len%), compiled once: access logs, header values,
 * response bodies.
 * Threads: compile on the config thread; format on a worker, appending to a caller's buffer, no
 * allocation but the buffer's.
 * Spec: SURFACE of Envoy 1.40's operators; core.v3.SubstitutionFormatString. */
#ifndef SLUICE_OBSERVE_FORMATTER_H
#define SLUICE_OBSERVE_FORMATTER_H

#include "proxy/api/compile.h"
#include "proxy/base/json.h"
#include "proxy/observe/stream_info.h"

struct formatter;
/* Text format. omit_empty: absent values print as nothing instead of "-". NULL: diag_error with
 * Envoy's words. */
struct formatter *formatter_compile(struct compile_ctx *ctx, sv format, bool omit_empty);
/* Is the format free of operators (then *literal is the text)? */
bool formatter_is_literal(const struct formatter *f, sv *literal);
void formatter_text(const struct formatter *f, const struct stream_info *si, struct buf *out);
/* JSON format from a Struct message (google.protobuf.Struct): keys in sorted order as Envoy prints,
 * numbers kept as numbers. */
struct json_formatter;
struct json_formatter *json_formatter_compile(struct compile_ctx *ctx, const void *struct_msg,
                                              bool omit_empty);
void json_formatter_write(const struct json_formatter *f, const struct stream_info *si,
                          struct buf *out);
/* SubstitutionFormatString message (text_format, text_format_source, json_format, content_type,
 * omit_empty_values …). */
struct substitution_format {
    struct formatter *text;
    struct json_formatter *json;
    sv content_type;
};
bool substitution_format_compile(struct compile_ctx *ctx, const void *msg,
                                 struct substitution_format *out);
void substitution_format_write(const struct substitution_format *f, const struct stream_info *si,
                               struct buf *out);
/* Of a request, "URX,UF" or "-": in the order they arise, as Envoy tells them. */
void response_flags_write(uint64_t flags, struct buf *out);
/* Of a request or a connection without, whose attempts fail before they are given up. */
void stream_info_flags_write(const struct stream_info *si, bool is_long, struct buf *out);
/* The gRPC status of an exchange: from trailers, else response headers, else what the HTTP status
 * stands for. False: there was no response; UINT64_MAX: a grpc-status that is no number. */
bool stream_grpc_status(const struct stream_info *si, uint64_t *status);
bool response_flag_parse(sv name, uint64_t *flag); /* "UF" */

#endif
