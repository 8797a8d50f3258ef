/* Headers into dynamic metadata, for what routes, balances, limits and logs by it.
 * Threads: config immutable, streams worker-local.
 * Spec: extensions.filters.http.header_to_metadata.v3. */
#include "protos/gen/http_header_to_metadata.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/base/mem.h"
#include "proxy/base/regex.h"

#define VALUE_MAX 8192u /* bytes; longer ones are not kept, as by Envoy */
#define ERROR_MAX 256
#define DEFAULT_NAMESPACE "envoy.filters.http.header_to_metadata"

struct entry { /* what becomes of a header */
    sv ns, key, value;
    const struct regex *regex; /* NULL: none */
    sv rewrite;
    bool is_number;
};
struct rule {
    sv header;
    const struct entry *present, *missing; /* NULL: nothing */
    bool removes;
};
struct rules {
    const struct rule *v;
    size_t n;
};
struct config {
    struct rules request, response;
};

/* ---- compile ---- */

static void release_regex(void *r) { regex_free(r); }

static bool compile_rewrite(struct compile_ctx *ctx, const TypeMatcher__RegexMatchAndSubstitute *m,
                            struct entry *e) {
    char why[ERROR_MAX];
    DIAG_FIELD(ctx->diag, "regex_value_rewrite");
    if (!m->pattern || !*m->pattern->regex) {
        return diag_error(ctx->diag, "pattern.regex: value is required");
    }
    struct regex *r = regex_new(m->pattern->regex, strlen(m->pattern->regex), why, sizeof(why));
    if (!r) {
        return diag_error(ctx->diag, "pattern.regex: %s", why);
    }
    arena_on_fini(ctx->arena, release_regex, r);
    e->regex = r;
    e->rewrite = arena_sv(ctx->arena, sv_cstr(m->substitution));
    return regex_check_rewrite(r, m->substitution, strlen(m->substitution), why, sizeof(why)) ||
           diag_error(ctx->diag, "substitution: %s", why);
}

static const struct entry *compile_entry(struct compile_ctx *ctx, const char *field,
                                         const HttpHeaderToMetadata__Config__KeyValuePair *m) {
    struct entry *e = m ? arena_new(ctx->arena, struct entry) : NULL;
    if (!m) {
        return NULL;
    }
    DIAG_FIELD(ctx->diag, "%s", field);
    e->ns = *m->metadata_namespace ? arena_sv(ctx->arena, sv_cstr(m->metadata_namespace))
                                   : SV(DEFAULT_NAMESPACE);
    e->key = arena_sv(ctx->arena, sv_cstr(m->key));
    e->value = arena_sv(ctx->arena, sv_cstr(m->value));
    e->is_number = m->type == HTTP_HEADER_TO_METADATA__CONFIG__VALUE_TYPE__NUMBER;
    if (!e->is_number && m->type != HTTP_HEADER_TO_METADATA__CONFIG__VALUE_TYPE__STRING) {
        diag_error(ctx->diag, "type: only STRING and NUMBER are supported");
    }
    if (m->encode != HTTP_HEADER_TO_METADATA__CONFIG__VALUE_ENCODE__NONE) {
        diag_error(ctx->diag, "encode: only NONE is supported");
    }
    if (m->regex_value_rewrite && e->value.n) {
        diag_error(ctx->diag, "Cannot specify both value and regex_value_rewrite");
    } else if (m->regex_value_rewrite) {
        compile_rewrite(ctx, m->regex_value_rewrite, e);
    }
    return e;
}

static void compile_rule(struct compile_ctx *ctx, const HttpHeaderToMetadata__Config__Rule *m,
                         struct rule *r) {
    if (*m->cookie) {
        diag_error(ctx->diag, "cookie: only header is supported");
        return;
    }
    if (!*m->header) {
        diag_error(ctx->diag, "One of Cookie or Header option needs to be specified");
        return;
    }
    if (!m->on_header_present && !m->on_header_missing) {
        diag_error(ctx->diag,
                   "header to metadata filter: rule for header '%s' has neither present "
                   "nor missing cases",
                   m->header);
        return;
    }
    if (m->on_header_missing && !*m->on_header_missing->value) {
        diag_error(ctx->diag, "Cannot specify on_header_missing rule with an empty value");
    }
    r->header = arena_sv(ctx->arena, sv_cstr(m->header));
    for (size_t i = 0; i < r->header.n; i++) { /* names are kept in lower case */
        char *c = (char *)(uintptr_t)&r->header.p[i];
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c | 0x20) : *c;
    }
    r->removes = m->remove;
    r->present = compile_entry(ctx, "on_header_present", m->on_header_present);
    r->missing = compile_entry(ctx, "on_header_missing", m->on_header_missing);
}

static void compile_rules(struct compile_ctx *ctx, const char *field,
                          HttpHeaderToMetadata__Config__Rule *const *msgs, size_t n,
                          struct rules *out) {
    struct rule *v = arena_new_array(ctx->arena, struct rule, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        compile_rule(ctx, msgs[i], &v[i]);
    }
    *out = (struct rules){v, n};
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpHeaderToMetadata__Config *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct config *c = arena_new(ctx->arena, struct config);
    compile_rules(ctx, "request_rules", m->request_rules, m->n_request_rules, &c->request);
    compile_rules(ctx, "response_rules", m->response_rules, m->n_response_rules, &c->response);
    if (*m->stat_prefix) {
        compile_unhonoured(ctx, "stat_prefix");
    }
    return diag_errors(ctx->diag) == before ? c : NULL;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpHeaderToMetadata__Config *m = msg;
    (void)type;
    if (!m->n_request_rules && !m->n_response_rules) {
        diag_error(ctx->diag, "header_to_metadata_filter: Per filter configs must at least specify "
                              "either request or response rules");
        return NULL;
    }
    return compile(ctx, msg);
}

/* ---- requests ---- */

static void keep(struct http_filter *f, const struct entry *e, sv value) {
    struct stream_info *si = http_stream_info(f);
    double number = 0;
    if (!value.n || value.n >= VALUE_MAX || (e->is_number && !sv_to_double(value, &number))) {
        return;
    }
    if (!si->metadata) {
        si->metadata = kv_metadata_new(si->arena);
    }
    struct kv_value v = e->is_number ? kv_number(number) : kv_string(value);
    kv_metadata_set(si->metadata, e->ns, e->key, &v);
}

static void apply(struct http_filter *f, const struct entry *e, sv value) {
    if (e->value.n) {
        keep(f, e, e->value);
    } else if (e->regex) {
        size_t n = 0;
        char *text = regex_replace_all(e->regex, value.p, value.n, e->rewrite.p, e->rewrite.n, &n);
        if (text) {
            keep(f, e, sv_from(text, n));
        }
        xfree(text);
    } else {
        keep(f, e, value);
    }
}

/* All values of the header, with commas between; p NULL: it is not there. */
static sv value_of(struct http_filter *f, const struct headers *h, sv name) {
    sv all = SV_NULL;
    HEADERS_FOREACH (it, h) {
        if (sv_eq(it->name, name)) {
            all = all.p ? arena_printf(http_arena(f), "%.*s,%.*s", SV_ARG(all), SV_ARG(it->value))
                        : (it->value.p ? it->value : SV(""));
        }
    }
    return all;
}

static void run(struct http_filter *f, const struct rules *rules, struct headers *h) {
    for (size_t i = 0; i < rules->n; i++) {
        const struct rule *r = &rules->v[i];
        sv value = value_of(f, h, r->header);
        if (value.p && r->present) {
            apply(f, r->present, value);
        }
        if (!value.p && r->missing) {
            apply(f, r->missing, SV(""));
        }
        if (value.p && r->removes) {
            headers_remove_name(h, r->header);
        }
    }
}

static const struct config *config_of(struct http_filter *f) {
    const struct config *route = http_route_config(f);
    return route ? route : f->config;
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)end_stream;
    run(f, &config_of(f)->request, h);
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)end_stream;
    run(f, &config_of(f)->response, h);
    return FILTER_HEADERS_CONTINUE;
}

extern const struct http_filter_type header_to_metadata_http_filter;
const struct http_filter_type header_to_metadata_http_filter = {
    .name = "envoy.filters.http.header_to_metadata",
    .type_url = "envoy.extensions.filters.http.header_to_metadata.v3.Config",
    .stream_size = sizeof(struct http_filter),
    .compile = compile,
    .compile_route = compile_route,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
};
