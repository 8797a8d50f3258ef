/* Header mutation: headers, trailers and query parameters are added, replaced and removed as
 * configured.
 * Threads: config immutable, streams worker-local. Spec:
 * extensions.filters.http.header_mutation.v3; the filter's own mutations come first, then those of
 * all route levels.
 * Not here: the mutations of headers themselves (route/header_mutation.c). */
#include "filters/common/query_params.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_header_mutation.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/header_mutation.h"
#include "proxy/api/http_filter.h"

#define ROUTE_LEVELS_MAX 4

struct query_mutation {
    sv removed; /* a parameter's name; empty: none */
    sv name, value;
    int action; /* core.v3.KeyValueAppend.KeyValueAppendAction; with a name only */
};
struct mutations { /* NULL: none */
    const struct header_mutations *request, *request_trailers, *response, *response_trailers;
    const struct query_mutation *query;
    size_t query_n;
};
struct header_mutation_config {
    struct mutations own;
    bool most_specific_wins;
};
/* Which mutations of a level apply here. */
typedef const struct header_mutations *(*select_fn)(const struct mutations *m);

/* --- compile --- */

static const struct header_mutations *compile_list(struct compile_ctx *ctx, const char *field,
                                                   CommonMutationRules__HeaderMutation *const *v,
                                                   size_t n) {
    DIAG_FIELD(ctx->diag, "%s", field);
    return header_mutations_compile_list(ctx, (const void *const *)v, n);
}

static bool compile_append(struct compile_ctx *ctx, const Core__KeyValueAppend *m,
                           struct query_mutation *out) {
    DIAG_FIELD(ctx->diag, "append");
    if (!m->record || !m->record->value ||
        m->record->value->kind_case != PB__VALUE__KIND_STRING_VALUE) {
        return diag_error(ctx->diag, "record.value: a string value is required");
    }
    if (strchr(m->record->value->string_value, '%')) {
        return diag_error(ctx->diag, "record.value: formats ('%%') are not supported");
    }
    out->name = arena_sv(ctx->arena, sv_cstr(m->record->key));
    out->value = arena_sv(ctx->arena, sv_cstr(m->record->value->string_value));
    out->action = (int)m->action;
    if (!out->name.n) {
        return diag_error(ctx->diag, "record.key: value length must be at least 1");
    }
    return true;
}

static bool compile_query(struct compile_ctx *ctx, const HttpHeaderMutation__Mutations *m,
                          struct mutations *out) {
    struct query_mutation *v =
        arena_new_array(ctx->arena, struct query_mutation, m->n_query_parameter_mutations + 1);
    bool ok = true;
    for (size_t i = 0; i < m->n_query_parameter_mutations; i++) {
        const Core__KeyValueMutation *q = m->query_parameter_mutations[i];
        DIAG_FIELD(ctx->diag, "query_parameter_mutations[%zu]", i);
        v[i].removed = arena_sv(ctx->arena, sv_cstr(q->remove));
        if (!q->append && !v[i].removed.n) {
            ok = diag_error(ctx->diag, "append or remove must be set");
        } else if (q->append) {
            ok = compile_append(ctx, q->append, &v[i]) && ok;
        }
    }
    out->query = v;
    out->query_n = m->n_query_parameter_mutations;
    return ok;
}

static bool compile_mutations(struct compile_ctx *ctx, const HttpHeaderMutation__Mutations *m,
                              struct mutations *out) {
    unsigned before = diag_errors(ctx->diag);
    if (!m) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "mutations");
    out->request =
        compile_list(ctx, "request_mutations", m->request_mutations, m->n_request_mutations);
    out->request_trailers =
        compile_list(ctx, "request_trailers_mutations", m->request_trailers_mutations,
                     m->n_request_trailers_mutations);
    out->response =
        compile_list(ctx, "response_mutations", m->response_mutations, m->n_response_mutations);
    out->response_trailers =
        compile_list(ctx, "response_trailers_mutations", m->response_trailers_mutations,
                     m->n_response_trailers_mutations);
    compile_query(ctx, m, out);
    return diag_errors(ctx->diag) == before;
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpHeaderMutation__HeaderMutation *m = (const HttpHeaderMutation__HeaderMutation *)msg;
    struct header_mutation_config *c = arena_new(ctx->arena, struct header_mutation_config);
    c->most_specific_wins = m->most_specific_header_mutations_wins;
    return compile_mutations(ctx, m->mutations, &c->own) ? c : NULL;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpHeaderMutation__HeaderMutationPerRoute *m =
        (const HttpHeaderMutation__HeaderMutationPerRoute *)msg;
    struct mutations *out = arena_new(ctx->arena, struct mutations);
    (void)type;
    return compile_mutations(ctx, m->mutations, out) ? out : NULL;
}

/* --- apply --- */

/* Those that apply to this stream, in order. */
static unsigned levels_of(struct http_filter *f,
                          const struct mutations *out[ROUTE_LEVELS_MAX + 1]) {
    const struct header_mutation_config *c = (const struct header_mutation_config *)f->config;
    const void *levels[ROUTE_LEVELS_MAX];
    unsigned n = http_route_configs(f, levels);
    out[0] = &c->own;
    for (unsigned i = 0; i < n; i++) {
        out[1 + i] = (const struct mutations *)levels[c->most_specific_wins ? i : n - 1 - i];
    }
    return n + 1;
}

static void apply(struct http_filter *f, select_fn select, struct headers *h) {
    const struct mutations *levels[ROUTE_LEVELS_MAX + 1];
    unsigned n = levels_of(f, levels);
    for (unsigned i = 0; i < n; i++) {
        header_mutations_apply(select(levels[i]), h, http_stream_info(f));
    }
}

static void mutate(const struct query_mutation *m, struct query_params *q) {
    if (m->removed.n) {
        query_params_remove(q, m->removed);
    }
    if (!m->name.n) {
        return;
    }
    bool is_there = query_params_has(q, m->name);
    switch (m->action) {
    case CORE__KEY_VALUE_APPEND__KEY_VALUE_APPEND_ACTION__ADD_IF_ABSENT:
        if (!is_there) {
            query_params_add(q, m->name, m->value);
        }
        break;
    case CORE__KEY_VALUE_APPEND__KEY_VALUE_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD:
        query_params_set(q, m->name, m->value);
        break;
    case CORE__KEY_VALUE_APPEND__KEY_VALUE_APPEND_ACTION__OVERWRITE_IF_EXISTS:
        if (is_there) {
            query_params_set(q, m->name, m->value);
        }
        break;
    default: /* APPEND_IF_EXISTS_OR_ADD; others are refused by its validate rule */
        query_params_add(q, m->name, m->value);
        break;
    }
}

static void mutate_query(struct http_filter *f, struct headers *h) {
    const struct mutations *levels[ROUTE_LEVELS_MAX + 1];
    unsigned n = levels_of(f, levels);
    sv path = headers_get(h, HDR_path);
    struct query_params q = {.arena = NULL};
    for (unsigned i = 0; path.p && i < n; i++) {
        for (size_t k = 0; k < levels[i]->query_n; k++) {
            if (!q.arena) {
                query_params_parse(&q, path, h->arena);
            }
            mutate(&levels[i]->query[k], &q);
        }
    }
    if (q.arena) {
        headers_set(h, HDR_path, query_params_path(&q, path));
    }
}

static const struct header_mutations *request_of(const struct mutations *m) { return m->request; }
static const struct header_mutations *request_trailers_of(const struct mutations *m) {
    return m->request_trailers;
}
static const struct header_mutations *response_of(const struct mutations *m) { return m->response; }
static const struct header_mutations *response_trailers_of(const struct mutations *m) {
    return m->response_trailers;
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)end_stream;
    apply(f, request_of, h);
    mutate_query(f, h);
    return FILTER_HEADERS_CONTINUE;
}
static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    apply(f, request_trailers_of, t);
    return FILTER_TRAILERS_CONTINUE;
}
static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)end_stream;
    apply(f, response_of, h);
    return FILTER_HEADERS_CONTINUE;
}
static enum filter_trailers_status encode_trailers(struct http_filter *f, struct headers *t) {
    apply(f, response_trailers_of, t);
    return FILTER_TRAILERS_CONTINUE;
}

const struct http_filter_type header_mutation_http_filter = {
    .name = "envoy.filters.http.header_mutation",
    .type_url = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    .route_type_url = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute",
    .stream_size = sizeof(struct http_filter),
    .compile = compile,
    .compile_route = compile_route,
    .decode_headers = decode_headers,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .encode_trailers = encode_trailers,
};
