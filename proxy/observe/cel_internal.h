/* What CEL's files share: the compiled tree and the values. Private to proxy/observe. */
#ifndef SLUICE_OBSERVE_CEL_INTERNAL_H
#define SLUICE_OBSERVE_CEL_INTERNAL_H

#include "proxy/api/cel.h"
#include "proxy/base/regex.h"
#include "proxy/http/headers.h"
#include "proxy/observe/filter_state.h"

enum cel_kind {
    CEL_ERROR,
    CEL_NULL,
    CEL_BOOL,
    CEL_INT,
    CEL_UINT,
    CEL_DOUBLE,
    CEL_STRING,
    CEL_BYTES,
    CEL_DURATION,  /* i: nanoseconds */
    CEL_TIMESTAMP, /* i: nanoseconds since the epoch */
    CEL_LIST,
    CEL_MAP,
};
enum cel_map_kind {
    CEL_MAP_PAIRS,    /* of the expression itself */
    CEL_MAP_HEADERS,  /* header block, names in lower case */
    CEL_MAP_KV,       /* a Struct */
    CEL_MAP_METADATA, /* namespace → Struct */
    CEL_MAP_STATE,    /* filter state: name → bytes */
    CEL_MAP_ROOT,     /* request, response …: attributes by name */
};
struct cel_value;
struct cel_pair;
struct cel_value {
    enum cel_kind kind;
    enum cel_map_kind map; /* of CEL_MAP */
    union {
        bool b;
        int64_t i;
        uint64_t u;
        double d;
        sv s;
        const char *error; /* static */
        struct {
            const struct cel_value *v;
            size_t n;
        } list;
        struct {
            const struct cel_pair *v;
            size_t n;
        } pairs;
        const struct headers *headers;
        const struct kv_value *kv;
        const struct kv_metadata *metadata;
        const struct filter_state *state;
        uint8_t root; /* enum cel_root */
    };
};
struct cel_pair {
    struct cel_value key, value;
};

static inline struct cel_value cel_error(const char *text) {
    return (struct cel_value){.kind = CEL_ERROR, .error = text};
}
static inline struct cel_value cel_bool(bool b) {
    return (struct cel_value){.kind = CEL_BOOL, .b = b};
}
static inline struct cel_value cel_int(int64_t i) {
    return (struct cel_value){.kind = CEL_INT, .i = i};
}
static inline struct cel_value cel_uint(uint64_t u) {
    return (struct cel_value){.kind = CEL_UINT, .u = u};
}
static inline struct cel_value cel_double(double d) {
    return (struct cel_value){.kind = CEL_DOUBLE, .d = d};
}
static inline struct cel_value cel_string(sv s) {
    return (struct cel_value){.kind = CEL_STRING, .s = s};
}
static inline struct cel_value cel_duration(int64_t ns) {
    return (struct cel_value){.kind = CEL_DURATION, .i = ns};
}
/* An empty string means that the attribute is not there. */
static inline struct cel_value cel_string_or_absent(sv s) {
    return s.n ? cel_string(s) : cel_error("no such key");
}

/* --- the tree --- */

enum cel_op {
    CEL_OP_CONST,
    CEL_OP_ROOT,   /* value.root */
    CEL_OP_VAR,    /* value.i: index of a loop variable */
    CEL_OP_SELECT, /* args[0].name */
    CEL_OP_HAS,    /* has(args[0].name) */
    CEL_OP_LIST,
    CEL_OP_MAP, /* args: key, value, key, value … */
    CEL_OP_AND,
    CEL_OP_OR,
    CEL_OP_COND,
    CEL_OP_CALL,
    CEL_OP_LOOP, /* args: range, init, condition, step, result; value.i: index of its variables */
};
struct cel_func;
struct cel_node {
    enum cel_op op;
    uint32_t n;
    struct cel_node **args;
    sv name;
    const struct cel_func *func;
    const struct regex *regex; /* matches() with a constant pattern */
    struct cel_value value;
};
struct cel {
    const struct cel_node *root;
    const struct kv_value *proxy_node; /* of the bootstrap; a struct */
};

/* State of one compilation; the tree goes to ctx->arena. */
struct cel_scope {
    sv names[CEL_VARS_MAX];
    unsigned n;
};
struct cel_compiler {
    struct compile_ctx *ctx;
    struct cel_scope scope;
    unsigned nodes, depth;
};
/* Each returns NULL after adding an error (never both an error and a tree). */
struct cel_node *cel_node_new(struct cel_compiler *c, enum cel_op op, unsigned args);
/* A loop variable in sight, or one of the attribute roots. */
struct cel_node *cel_node_ident(struct cel_compiler *c, sv name);
struct cel_node *cel_node_select(struct cel_compiler *c, struct cel_node *of, sv field,
                                 bool is_has);
/* By the names of the parsed form ("_&&_", "@in", "startsWith"); a target counts as the first
 * argument. */
struct cel_node *cel_node_call(struct cel_compiler *c, sv function, bool has_target,
                               struct cel_node *const *args, unsigned n);
/* Loop variables come into sight: first the element, then the accumulator. False: too many. */
bool cel_scope_push(struct cel_compiler *c, sv name);

/* --- evaluation --- */

struct cel_run {
    const struct stream_info *si;
    const struct kv_value *proxy_node;
    struct arena *arena;
    unsigned steps;
    struct cel_value vars[CEL_VARS_MAX];
};
typedef struct cel_value (*cel_func_fn)(struct cel_run *r, const struct cel_node *node,
                                        const struct cel_value *args, unsigned n);
struct cel_func {
    const char *name;
    uint8_t args_min, args_max; /* with the target */
    cel_func_fn call;
};
const struct cel_func *cel_func_find(sv name, unsigned args);
/* Does it take errors as arguments? All others answer an error with the same error. */
bool cel_func_is_lenient(const struct cel_func *f);

/* cel_value.c */
bool cel_eq(const struct cel_value *a, const struct cel_value *b);
/* <0, 0, >0; false: the types have no order between them. NaN: false. */
bool cel_compare(const struct cel_value *a, const struct cel_value *b, int *out);
struct cel_value cel_from_kv(const struct kv_value *v, struct arena *a);
/* CEL_ERROR "no such key" when absent. */
struct cel_value cel_map_get(struct cel_run *r, const struct cel_value *map,
                             const struct cel_value *key);
/* Keys of a map as a list; an error for attribute roots. */
struct cel_value cel_map_keys(struct cel_run *r, const struct cel_value *map);

/* cel_time.c */
bool cel_value_text(const struct cel_value *v, struct arena *a, sv *out); /* as cel_text */
bool cel_parse_duration(sv s, int64_t *ns);  /* "1h30m", "1.5s", "-3ms" */
bool cel_parse_timestamp(sv s, int64_t *ns); /* RFC 3339 */
enum cel_time_part {
    CEL_TIME_YEAR,
    CEL_TIME_MONTH,
    CEL_TIME_DATE,
    CEL_TIME_DAY_OF_MONTH,
    CEL_TIME_DAY_OF_WEEK,
    CEL_TIME_DAY_OF_YEAR,
    CEL_TIME_HOURS,
    CEL_TIME_MINUTES,
    CEL_TIME_SECONDS,
    CEL_TIME_MILLISECONDS,
};
/* zone: empty (UTC), "UTC" or "+HH:MM". Durations have hours to milliseconds only. */
struct cel_value cel_time_part(const struct cel_value *v, enum cel_time_part part, sv zone);

/* cel_attr.c */
/* The finished expression, in ctx->arena. */
const struct cel *cel_make(struct compile_ctx *ctx, const struct cel_node *root);
bool cel_root_find(sv name, uint8_t *root);
struct cel_value cel_root_get(struct cel_run *r, uint8_t root, sv name);
/* A root that is a map itself (metadata), or CEL_MAP_ROOT. */
struct cel_value cel_root_value(struct cel_run *r, uint8_t root);

#endif
