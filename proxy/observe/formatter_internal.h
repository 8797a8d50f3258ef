/* What the formatter's files share: compiled operators, values, the operator tables. Private to
 * proxy/observe. */
#ifndef SLUICE_OBSERVE_FORMATTER_INTERNAL_H
#define SLUICE_OBSERVE_FORMATTER_INTERNAL_H

#include "proxy/observe/filter_state.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"

enum fmt_kind {
    FMT_NONE, /* not there: "-" in text, null in JSON */
    FMT_STR,
    FMT_QUOTED, /* a string that text shows as a JSON string */
    FMT_U64,
    FMT_BOOL,
    FMT_KV, /* number, bool, struct, list of metadata */
};
struct fmt_value {
    enum fmt_kind kind;
    sv s;
    uint64_t u;
    const struct kv_value *kv;
};

#define FMT_SCRATCH 512
struct fmt_ctx {
    const struct stream_info *si;
    struct buf *scratch; /* for values longer than tmp */
    char tmp[FMT_SCRATCH];
};

struct fmt_op;
typedef void (*fmt_eval_fn)(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v);

enum fmt_args { FMT_ARGS_NONE, FMT_ARGS_OPTIONAL, FMT_ARGS_REQUIRED };
struct fmt_def {
    const char *name;
    fmt_eval_fn eval;
    enum fmt_args args;
    bool has_length; /* ":N" is allowed */
    /* Arguments to op->arg, in the arena. NULL: op->text gets them. args.p NULL: none given. */
    bool (*compile)(struct compile_ctx *ctx, struct fmt_op *op, sv args);
    int8_t sub; /* variant, for functions that serve several operators */
};
struct fmt_op {
    const struct fmt_def *def;
    fmt_eval_fn eval;
    size_t max_len; /* SIZE_MAX: whole */
    sv text;
    const void *arg;
};

/* Helpers of eval functions. */
static inline void fmt_str(struct fmt_value *v, sv s) {
    v->kind = FMT_STR;
    v->s = s;
}
/* Empty means not there. */
static inline void fmt_str_or_none(struct fmt_value *v, sv s) {
    v->kind = s.n ? FMT_STR : FMT_NONE;
    v->s = s;
}
/* Blanks as '_', so that a line stays splittable. The result may lie in the context's scratch. */
sv fmt_without_blanks(struct fmt_ctx *c, sv s);
static inline void fmt_u64(struct fmt_value *v, uint64_t u) {
    v->kind = FMT_U64;
    v->u = u;
}
/* Evaluate one operator; v->kind FMT_NONE when absent. Strings are cut to the operator's length. */
void fmt_eval(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v);
/* As text; "-" or nothing (omit_empty) when not there. */
void fmt_write(const struct fmt_op *op, const struct fmt_value *v, bool omit_empty,
               struct buf *out);

/* Fill op from a command; false: error added. req_without_query: that extension was declared. */
bool fmt_op_compile(struct compile_ctx *ctx, sv command, sv args, size_t max_len, bool has_len,
                    bool req_without_query, struct fmt_op *op);
struct formatter *formatter_compile_ext(struct compile_ctx *ctx, sv format, bool omit_empty,
                                        bool req_without_query);
struct json_formatter *json_formatter_compile_ext(struct compile_ctx *ctx, const void *struct_msg,
                                                  bool omit_empty, bool req_without_query);
/* The formatter is one operator and nothing else: typed in JSON. */
const struct fmt_op *formatter_single(const struct formatter *f);

struct fmt_table {
    const struct fmt_def *defs;
    size_t n;
};
extern const struct fmt_table fmt_table_http, fmt_table_conn, fmt_table_time, fmt_table_meta,
    fmt_table_tls, fmt_table_upstream;

/* formatter_time.c: a compiled time format. */
struct fmt_time;
const struct fmt_time *fmt_time_compile(struct arena *a, sv format);
/* wall_us: microseconds since the epoch. */
sv fmt_time_write(const struct fmt_time *t, struct fmt_ctx *c, uint64_t wall_us, bool is_local);
extern const char fmt_time_default[], fmt_time_default_local[];

/* formatter_conn.c: part 0 "ip:port", 1 "ip", 2 the port as a number. a NULL: not there. */
void fmt_address(const struct addr *a, int part, struct fmt_ctx *c, struct fmt_value *v);

/* formatter_coalesce.c */
bool fmt_coalesce_compile(struct compile_ctx *ctx, struct fmt_op *op, sv args);
void fmt_coalesce_eval(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v);

#endif
