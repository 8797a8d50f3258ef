/* Operators about the HTTP exchange: headers, path, codes, sizes.
 * Threads: evaluated on workers. Spec: Envoy's access-log operators. */
#include "proxy/base/grpc_status.h"
#include "proxy/http/path.h"
#include "proxy/observe/formatter_internal.h"

#include <stdlib.h>
#include <unistd.h>

#include "protos/gen/data_accesslog.pb-c.h"
#include "proxy/base/rand.h"

/* --- headers --- */

struct header_arg {
    sv name, alt;
    enum header_id id, alt_id;
    bool has_alt;
};
enum { FROM_REQUEST, FROM_RESPONSE, FROM_TRAILERS };

static bool lower_name(struct compile_ctx *ctx, sv in, sv *name, enum header_id *id) {
    *id = HDR_OTHER;
    char *p = arena_cstr(ctx->arena, in);
    *name = sv_from(p, in.n);
    bool is_pseudo = in.n > 1 && p[0] == ':';
    if (in.n && is_pseudo) {
        enum header_id unused;
        if (!header_name_normalise(p + 1, in.n - 1, &unused)) {
            return false;
        }
        *id = header_id_of(*name);
        return true;
    }
    return !in.n || header_name_normalise(p, in.n, id);
}

static bool compile_header(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    struct header_arg *h = arena_new(ctx->arena, struct header_arg);
    sv rest = args, name = sv_cut(&rest, '?');
    h->has_alt = name.n < args.n;
    if (sv_find(rest, '?') != SIZE_MAX) {
        return diag_error(ctx->diag, "More than 1 alternative header specified in token: %.*s",
                          SV_ARG(args));
    }
    if (!lower_name(ctx, name, &h->name, &h->id) || !lower_name(ctx, rest, &h->alt, &h->alt_id)) {
        return diag_error(
            ctx->diag, "Invalid header configuration. Format string contains invalid characters.");
    }
    op->arg = h;
    return true;
}

static sv lookup(const struct headers *h, sv name, enum header_id id) {
    if (!h || !name.n) {
        return SV_NULL;
    }
    return id != HDR_OTHER ? headers_get(h, id) : headers_get_name(h, name);
}

static const struct headers *headers_from(const struct stream_info *si, int from) {
    return from == FROM_REQUEST ? si->request : from == FROM_RESPONSE ? si->response : si->trailers;
}

static sv header_value(const struct fmt_op *op, const struct stream_info *si) {
    const struct header_arg *a = op->arg;
    const struct headers *h = headers_from(si, op->def->sub);
    sv value = lookup(h, a->name, a->id);
    return value.p || !a->has_alt ? value : lookup(h, a->alt, a->alt_id);
}

static void eval_header(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    sv s = header_value(op, c->si);
    if (s.p) {
        fmt_str(v, s);
    }
}

static void eval_header_without_query(const struct fmt_op *op, struct fmt_ctx *c,
                                      struct fmt_value *v) {
    sv s = header_value(op, c->si);
    if (s.p) {
        fmt_str(v, sv_cut(&s, '?'));
    }
}

/* --- path and query --- */

enum path_source { PATH_ORIGINAL_OR_PATH, PATH_ORIGINAL, PATH_PATH };
struct path_arg {
    bool without_query;
    enum path_source source;
};

static bool compile_path(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    struct path_arg *p = arena_new(ctx->arena, struct path_arg);
    sv rest = args, query = sv_cut(&rest, ':'), source = sv_cut(&rest, ':');
    if (query.n && !sv_is(query, "WQ") && !sv_is(query, "NQ")) {
        return diag_error(ctx->diag, "Invalid PATH option: '%.*s', only 'WQ'/'NQ' are allowed",
                          SV_ARG(query));
    }
    p->without_query = sv_is(query, "NQ");
    if (sv_is(source, "ORIG")) {
        p->source = PATH_ORIGINAL;
    } else if (sv_is(source, "PATH")) {
        p->source = PATH_PATH;
    } else if (source.n && !sv_is(source, "ORIG_OR_PATH")) {
        return diag_error(
            ctx->diag, "Invalid PATH option: '%.*s', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed",
            SV_ARG(source));
    }
    op->arg = p;
    return true;
}

static sv path_of(const struct stream_info *si, enum path_source source) {
    sv original = lookup(si->request, SV("x-envoy-original-path"), HDR_x_envoy_original_path);
    if (source == PATH_ORIGINAL || (source == PATH_ORIGINAL_OR_PATH && original.n)) {
        return original;
    }
    return lookup(si->request, SV(":path"), HDR_path);
}

static void eval_path(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct path_arg *p = op->arg;
    sv path = path_of(c->si, p->source);
    fmt_str_or_none(v, p->without_query ? sv_cut(&path, '?') : path);
}

/* Percent-decode into the context's scratch. */
static sv decoded(struct fmt_ctx *c, sv s) {
    if (sv_find(s, '%') == SIZE_MAX) {
        return s;
    }
    char *out = s.n <= sizeof(c->tmp) ? c->tmp : buf_reserve(c->scratch, s.n);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        int hi = s.p[i] == '%' && i + 2 < s.n ? ascii_hex(s.p[i + 1]) : -1;
        int lo = hi >= 0 ? ascii_hex(s.p[i + 2]) : -1;
        out[n++] = lo >= 0 ? (char)(hi * 16 + lo) : s.p[i];
        i += lo >= 0 ? 2 : 0;
    }
    if (out != c->tmp) {
        buf_commit(c->scratch, n);
    }
    return sv_from(out, n);
}

static void eval_query_param(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    sv value = query_get(path_query(path_of(c->si, PATH_ORIGINAL_OR_PATH)), op->text);
    if (value.p) {
        fmt_str(v, decoded(c, value));
    }
}

static bool compile_query_params(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    if (args.n && !sv_is(args, "ORIG") && !sv_is(args, "DECODED")) {
        return diag_error(ctx->diag,
                          "Invalid QUERY_PARAMS option: '%.*s', only 'ORIG'/'DECODED' are allowed",
                          SV_ARG(args));
    }
    (void)op;
    return true;
}

static void eval_query_params(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    sv query = path_query(path_of(c->si, PATH_ORIGINAL_OR_PATH));
    fmt_str_or_none(v, sv_is(op->text, "DECODED") ? decoded(c, query) : query);
}

/* --- x-forwarded-client-cert --- */

static const char *const xfcc_keys[] = {"by", "hash", "cert", "chain", "subject", "uri", "dns"};

static bool compile_xfcc(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    if (!args.n) {
        return diag_error(ctx->diag, "XFCC_VALUE command requires a subcommand");
    }
    for (size_t i = 0; i < ARRAY_LEN(xfcc_keys); i++) {
        if (sv_eq_nocase(args, sv_cstr(xfcc_keys[i]))) {
            op->arg = xfcc_keys[i];
            return true;
        }
    }
    return diag_error(ctx->diag, "XFCC_VALUE command does not support subcommand: %.*s",
                      SV_ARG(args));
}

/* End of the piece at the front of s: the first unquoted separator. */
static size_t unquoted_end(sv s, char a, char b) {
    bool quoted = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '\\' && quoted) {
            i++;
        } else if (s.p[i] == '"') {
            quoted = !quoted;
        } else if (!quoted && (s.p[i] == a || s.p[i] == b)) {
            return i;
        }
    }
    return s.n;
}

static sv unquote(struct fmt_ctx *c, sv s) {
    if (s.n < 2 || s.p[0] != '"' || s.p[s.n - 1] != '"') {
        return s;
    }
    s = sv_sub(s, 1, s.n - 2);
    if (sv_find(s, '\\') == SIZE_MAX) {
        return s;
    }
    char *out = s.n <= sizeof(c->tmp) ? c->tmp : buf_reserve(c->scratch, s.n);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        i += s.p[i] == '\\' && i + 1 < s.n;
        out[n++] = s.p[i];
    }
    if (out != c->tmp) {
        buf_commit(c->scratch, n);
    }
    return sv_from(out, n);
}

static void eval_xfcc(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    sv rest = lookup(c->si->request, SV("x-forwarded-client-cert"), HDR_x_forwarded_client_cert);
    while (rest.n) {
        size_t n = unquoted_end(rest, ';', ',');
        sv value = sv_trim(sv_sub(rest, 0, n)), key = sv_trim(sv_cut(&value, '='));
        if (sv_eq_nocase(key, sv_cstr(op->arg))) {
            fmt_str(v, unquote(c, sv_trim(value)));
            return;
        }
        rest = sv_skip(rest, n + 1);
    }
}

/* --- codes --- */

static void eval_protocol(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    static const char *const names[] = {"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"};
    bool is_upstream = op->def->sub == 1;
    bool has = is_upstream ? c->si->up.has_protocol : c->si->has_protocol;
    unsigned p = is_upstream ? (unsigned)c->si->up.protocol : c->si->protocol;
    if (has && p < ARRAY_LEN(names)) {
        fmt_str(v, sv_cstr(names[p]));
    }
}

static void eval_code(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_u64(v, c->si->response_code);
}

sv fmt_without_blanks(struct fmt_ctx *c, sv s) {
    bool has = false;
    for (size_t i = 0; i < s.n && !has; i++) {
        has = s.p[i] == ' ' || (s.p[i] >= '\t' && s.p[i] <= '\r');
    }
    if (!has) {
        return s;
    }
    char *out = s.n <= sizeof(c->tmp) ? c->tmp : buf_reserve(c->scratch, s.n);
    for (size_t i = 0; i < s.n; i++) {
        out[i] = s.p[i] == ' ' || (s.p[i] >= '\t' && s.p[i] <= '\r') ? '_' : s.p[i];
    }
    if (out != c->tmp) {
        buf_commit(c->scratch, s.n);
    }
    return sv_from(out, s.n);
}

static void eval_details(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    sv s = c->si->response_code_details;
    fmt_str_or_none(v, sv_is(op->text, "ALLOW_WHITESPACES") ? s : fmt_without_blanks(c, s));
}

static void eval_upstream_failure(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_str_or_none(v, fmt_without_blanks(c, c->si->up.transport_failure));
}

static void eval_flags(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    if (!c->si->flags) {
        fmt_str(v, SV("-"));
        return;
    }
    size_t from = buf_len(c->scratch);
    stream_info_flags_write(c->si, op->def->sub, c->scratch);
    fmt_str(v, sv_skip(buf_pullup(c->scratch, buf_len(c->scratch)), from));
}

struct grpc_name {
    const char *camel, *snake;
};
static const struct grpc_name grpc_names[] = {
    {"OK", "OK"},
    {"Canceled", "CANCELLED"},
    {"Unknown", "UNKNOWN"},
    {"InvalidArgument", "INVALID_ARGUMENT"},
    {"DeadlineExceeded", "DEADLINE_EXCEEDED"},
    {"NotFound", "NOT_FOUND"},
    {"AlreadyExists", "ALREADY_EXISTS"},
    {"PermissionDenied", "PERMISSION_DENIED"},
    {"ResourceExhausted", "RESOURCE_EXHAUSTED"},
    {"FailedPrecondition", "FAILED_PRECONDITION"},
    {"Aborted", "ABORTED"},
    {"OutOfRange", "OUT_OF_RANGE"},
    {"Unimplemented", "UNIMPLEMENTED"},
    {"Internal", "INTERNAL"},
    {"Unavailable", "UNAVAILABLE"},
    {"DataLoss", "DATA_LOSS"},
    {"Unauthenticated", "UNAUTHENTICATED"},
};

static bool is_grpc(const struct headers *request) {
    sv t = lookup(request, SV("content-type"), HDR_content_type);
    return sv_starts(t, SV("application/grpc")) && (t.n == 16 || t.p[16] == '+' || t.p[16] == ';');
}

bool stream_grpc_status(const struct stream_info *si, uint64_t *status) {
    sv s = lookup(si->trailers, SV("grpc-status"), HDR_grpc_status);
    if (!s.p) {
        s = lookup(si->response, SV("grpc-status"), HDR_grpc_status);
    }
    if (s.p) {
        if (!sv_to_u64(s, status) || *status > INT32_MAX) {
            *status = UINT64_MAX; /* there, but no status */
        }
        return true;
    }
    if (!si->response_code) {
        return false;
    }
    *status = grpc_status_of_http(si->response_code);
    return true;
}

enum { GRPC_CAMEL, GRPC_SNAKE, GRPC_NUMBER };

static bool compile_grpc(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    static const int8_t kinds[] = {GRPC_CAMEL, GRPC_SNAKE, GRPC_NUMBER};
    int at = !args.n || sv_is(args, "CAMEL_STRING") ? 0
             : sv_is(args, "SNAKE_STRING")          ? 1
             : sv_is(args, "NUMBER")                ? 2
                                                    : -1;
    if (at < 0) {
        return diag_error(
            ctx->diag,
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: %.*s",
            SV_ARG(args));
    }
    op->arg = &kinds[op->def->sub == GRPC_NUMBER ? 2 : at];
    return true;
}

static void eval_grpc(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    uint64_t status;
    if (!is_grpc(c->si->request) || !stream_grpc_status(c->si, &status) || status == UINT64_MAX) {
        return;
    }
    int8_t kind = *(const int8_t *)op->arg;
    if (kind == GRPC_NUMBER) {
        fmt_u64(v, status);
    } else if (status < ARRAY_LEN(grpc_names)) {
        fmt_str(v,
                sv_cstr(kind == GRPC_CAMEL ? grpc_names[status].camel : grpc_names[status].snake));
    } else {
        int n = snprintf(c->tmp, sizeof(c->tmp), "%llu", (unsigned long long)status);
        fmt_str(v, sv_from(c->tmp, n > 0 ? (size_t)n : 0));
    }
}

/* --- plain members --- */

enum num {
    NUM_RX,
    NUM_TX,
    NUM_WIRE_RX,
    NUM_WIRE_TX,
    NUM_HDR_RX,
    NUM_HDR_TX,
    NUM_REQUEST_BYTES,
    NUM_RESPONSE_BYTES,
    NUM_TRAILER_BYTES,
    NUM_RESOLUTIONS
};
static void eval_num(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct stream_info *si = c->si;
    uint64_t n = 0;
    switch ((enum num)op->def->sub) {
    case NUM_RX:
        n = si->rx_bytes;
        break;
    case NUM_TX:
        n = si->tx_bytes;
        break;
    case NUM_WIRE_RX:
        n = si->wire_rx_bytes;
        break;
    case NUM_WIRE_TX:
        n = si->wire_tx_bytes;
        break;
    case NUM_HDR_RX:
        n = si->header_rx_bytes;
        break;
    case NUM_HDR_TX:
        n = si->header_tx_bytes;
        break;
    case NUM_REQUEST_BYTES:
        n = si->request ? si->request->bytes : 0;
        break;
    case NUM_RESPONSE_BYTES:
        n = si->response ? si->response->bytes : 0;
        break;
    case NUM_TRAILER_BYTES:
        n = si->trailers ? si->trailers->bytes : 0;
        break;
    case NUM_RESOLUTIONS:
        n = si->route_resolutions;
        break;
    }
    fmt_u64(v, n);
}

enum str { STR_ROUTE, STR_VCLUSTER, STR_STREAM_ID, STR_TRACE, STR_SPAN };
static void eval_str(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct stream_info *si = c->si;
    sv s = SV_NULL;
    switch ((enum str)op->def->sub) {
    case STR_ROUTE:
        s = si->route_name;
        break;
    case STR_VCLUSTER:
        s = si->virtual_cluster_name;
        break;
    case STR_STREAM_ID:
        s = si->request_id;
        break;
    case STR_TRACE:
        s = si->trace_id;
        break;
    case STR_SPAN:
        s = si->span_id;
        break;
    }
    fmt_str_or_none(v, s);
}

static void eval_local_reply_body(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_str(v, c->si->local_reply_body);
}
static void eval_custom_flags(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_str(v, c->si->custom_flags);
}

static void eval_log_type(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    const ProtobufCEnumValue *e = protobuf_c_enum_descriptor_get_value(
        &data_accesslog__access_log_type__descriptor, (int)c->si->access_log_type);
    fmt_str_or_none(v, e ? sv_cstr(e->name) : SV_NULL);
}

static void eval_unique_id(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    static __thread struct rng rng;
    static __thread bool seeded;
    if (!seeded) {
        rng_init(&rng);
        seeded = true;
    }
    rng_uuid4(&rng, c->tmp);
    fmt_str(v, sv_from(c->tmp, 36));
}

/* --- process --- */

static bool compile_environment(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    const char *value = getenv(arena_cstr(ctx->arena, args));
    op->text = value ? arena_sv(ctx->arena, sv_cstr(value)) : SV("-");
    return true;
}
static bool compile_hostname(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    (void)args;
    char name[256] = "";
    op->text =
        gethostname(name, sizeof(name) - 1) == 0 ? arena_sv(ctx->arena, sv_cstr(name)) : SV_NULL;
    return true;
}
static void eval_fixed(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)c;
    fmt_str_or_none(v, op->text);
}

#define ONE FMT_ARGS_NONE, false, NULL
static const struct fmt_def defs[] = {
    {"REQ", eval_header, FMT_ARGS_REQUIRED, true, compile_header, FROM_REQUEST},
    {"RESP", eval_header, FMT_ARGS_REQUIRED, true, compile_header, FROM_RESPONSE},
    {"TRAILER", eval_header, FMT_ARGS_REQUIRED, true, compile_header, FROM_TRAILERS},
    {"REQUEST_HEADER", eval_header, FMT_ARGS_REQUIRED, true, compile_header, FROM_REQUEST},
    {"RESPONSE_HEADER", eval_header, FMT_ARGS_REQUIRED, true, compile_header, FROM_RESPONSE},
    {"RESPONSE_TRAILER", eval_header, FMT_ARGS_REQUIRED, true, compile_header, FROM_TRAILERS},
    {"REQ_WITHOUT_QUERY", eval_header_without_query, FMT_ARGS_REQUIRED, true, compile_header,
     FROM_REQUEST},
    {"PATH", eval_path, FMT_ARGS_OPTIONAL, true, compile_path, 0},
    {"QUERY_PARAM", eval_query_param, FMT_ARGS_REQUIRED, true, NULL, 0},
    {"QUERY_PARAMS", eval_query_params, FMT_ARGS_OPTIONAL, true, compile_query_params, 0},
    {"XFCC_VALUE", eval_xfcc, FMT_ARGS_OPTIONAL, true, compile_xfcc, 0},
    {"PROTOCOL", eval_protocol, ONE, 0},
    {"UPSTREAM_PROTOCOL", eval_protocol, ONE, 1},
    {"RESPONSE_CODE", eval_code, ONE, 0},
    {"RESPONSE_CODE_DETAILS", eval_details, FMT_ARGS_OPTIONAL, true, NULL, 0},
    {"UPSTREAM_TRANSPORT_FAILURE_REASON", eval_upstream_failure, ONE, 0},
    {"RESPONSE_FLAGS", eval_flags, ONE, 0},
    {"RESPONSE_FLAGS_LONG", eval_flags, ONE, 1},
    {"GRPC_STATUS", eval_grpc, FMT_ARGS_OPTIONAL, false, compile_grpc, GRPC_CAMEL},
    {"GRPC_STATUS_NUMBER", eval_grpc, FMT_ARGS_OPTIONAL, false, compile_grpc, GRPC_NUMBER},
    {"BYTES_RECEIVED", eval_num, ONE, NUM_RX},
    {"BYTES_SENT", eval_num, ONE, NUM_TX},
    {"DOWNSTREAM_WIRE_BYTES_RECEIVED", eval_num, ONE, NUM_WIRE_RX},
    {"DOWNSTREAM_WIRE_BYTES_SENT", eval_num, ONE, NUM_WIRE_TX},
    {"DOWNSTREAM_HEADER_BYTES_RECEIVED", eval_num, ONE, NUM_HDR_RX},
    {"DOWNSTREAM_HEADER_BYTES_SENT", eval_num, ONE, NUM_HDR_TX},
    {"DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", eval_num, ONE, NUM_REQUEST_BYTES},
    {"DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", eval_num, ONE, NUM_RESPONSE_BYTES},
    {"REQUEST_HEADERS_BYTES", eval_num, ONE, NUM_REQUEST_BYTES},
    {"RESPONSE_HEADERS_BYTES", eval_num, ONE, NUM_RESPONSE_BYTES},
    {"RESPONSE_TRAILERS_BYTES", eval_num, ONE, NUM_TRAILER_BYTES},
    {"ROUTE_RESOLUTION_COUNT", eval_num, ONE, NUM_RESOLUTIONS},
    {"ROUTE_NAME", eval_str, ONE, STR_ROUTE},
    {"VIRTUAL_CLUSTER_NAME", eval_str, ONE, STR_VCLUSTER},
    {"STREAM_ID", eval_str, ONE, STR_STREAM_ID},
    {"TRACE_ID", eval_str, ONE, STR_TRACE},
    {"SPAN_ID", eval_str, ONE, STR_SPAN},
    {"LOCAL_REPLY_BODY", eval_local_reply_body, ONE, 0},
    {"CUSTOM_FLAGS", eval_custom_flags, ONE, 0},
    {"ACCESS_LOG_TYPE", eval_log_type, ONE, 0},
    {"UNIQUE_ID", eval_unique_id, ONE, 0},
    {"ENVIRONMENT", eval_fixed, FMT_ARGS_REQUIRED, true, compile_environment, 0},
    {"HOSTNAME", eval_fixed, FMT_ARGS_NONE, false, compile_hostname, 0},
    {"COALESCE", fmt_coalesce_eval, FMT_ARGS_REQUIRED, true, fmt_coalesce_compile, 0},
};
const struct fmt_table fmt_table_http = {defs, ARRAY_LEN(defs)};
