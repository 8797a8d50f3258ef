/* External authorization: what both kinds of service share — their configuration, which headers
 * they see, starting and stopping a check.
 * Threads: compile on the config thread; checks worker-local. Spec: ext_authz.v3 HttpService,
 * core.v3.GrpcService. */
#include "filters/common/ext_authz.h"

#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_ext_authz.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"

#define GRPC_TIMEOUT_MS 200u

/* --- compile --- */

bool ext_authz_list_compile(struct compile_ctx *ctx, const char *field, const void *msg,
                            struct string_matchers *out) {
    const TypeMatcher__ListStringMatcher *m = (const TypeMatcher__ListStringMatcher *)msg;
    if (!m) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "%s", field);
    return string_matchers_compile(ctx, (const void *const *)m->patterns, m->n_patterns, out);
}

/* Headers of the calls: each replaces what is there. */
static const struct header_mutations *compile_headers(struct compile_ctx *ctx, const char *field,
                                                      Core__HeaderValue *const *v, size_t n) {
    Core__HeaderValueOption *options =
        arena_new_array(ctx->scratch, Core__HeaderValueOption, n ? n : 1);
    const void **list = arena_new_array(ctx->scratch, const void *, n ? n : 1);
    for (size_t i = 0; i < n; i++) {
        core__header_value_option__init(&options[i]);
        options[i].header = v[i];
        options[i].append_action =
            CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD;
        list[i] = &options[i];
    }
    DIAG_FIELD(ctx->diag, "%s", field);
    return header_mutations_compile(ctx, list, n, NULL, 0);
}

static void compile_answer_headers(struct compile_ctx *ctx,
                                   const HttpExtAuthz__AuthorizationResponse *m,
                                   struct ext_authz_service *s) {
    DIAG_FIELD(ctx->diag, "authorization_response");
    const struct {
        const char *field;
        const TypeMatcher__ListStringMatcher *msg;
        struct string_matchers *out;
    } lists[] = {
        {"allowed_upstream_headers", m->allowed_upstream_headers, &s->upstream},
        {"allowed_upstream_headers_to_append", m->allowed_upstream_headers_to_append,
         &s->upstream_append},
        {"allowed_client_headers", m->allowed_client_headers, &s->client},
        {"allowed_client_headers_on_success", m->allowed_client_headers_on_success,
         &s->client_on_success},
        {"dynamic_metadata_from_headers", m->dynamic_metadata_from_headers, &s->metadata},
    };
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        ext_authz_list_compile(ctx, lists[i].field, lists[i].msg, lists[i].out);
    }
    s->has_client = s->client.n != 0;
}

static void compile_uri(struct compile_ctx *ctx, const Core__HttpUri *m,
                        struct ext_authz_service *s) {
    DIAG_FIELD(ctx->diag, "server_uri");
    if (!m) {
        diag_error(ctx->diag, "value is required");
        return;
    }
    s->cluster = compile_cluster_ref(ctx, sv_cstr(m->cluster), false);
    DIAG_FIELD(ctx->diag, "timeout");
    compile_duration_ms(ctx, m->timeout, 0, &s->timeout_ms);
}

const struct ext_authz_service *ext_authz_http_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpExtAuthz__HttpService *m = (const HttpExtAuthz__HttpService *)msg;
    unsigned before = diag_errors(ctx->diag);
    struct ext_authz_service *s = arena_new(ctx->arena, struct ext_authz_service);
    s->answer_max = EXT_AUTHZ_ANSWER_MAX;
    compile_uri(ctx, m->server_uri, s);
    s->path_prefix = arena_sv(ctx->arena, sv_cstr(m->path_prefix));
    s->path_override = arena_sv(ctx->arena, sv_cstr(m->path_override));
    if (s->path_prefix.n && s->path_prefix.p[0] != '/') {
        diag_error(ctx->diag, "path_prefix should start with \"/\".");
    }
    if (s->path_override.n && (s->path_override.p[0] != '/' || s->path_prefix.n)) {
        diag_error(ctx->diag, "path_override: must begin with '/' and excludes path_prefix");
    }
    if (m->retry_policy) {
        compile_unhonoured(ctx, "retry_policy");
    }
    if (m->authorization_request) {
        DIAG_FIELD(ctx->diag, "authorization_request");
        ext_authz_list_compile(ctx, "allowed_headers", m->authorization_request->allowed_headers,
                               &s->allowed);
        s->headers =
            compile_headers(ctx, "headers_to_add", m->authorization_request->headers_to_add,
                            m->authorization_request->n_headers_to_add);
    }
    if (m->authorization_response) {
        compile_answer_headers(ctx, m->authorization_response, s);
    }
    return diag_errors(ctx->diag) == before ? s : NULL;
}

const struct ext_authz_service *ext_authz_grpc_compile(struct compile_ctx *ctx, const void *msg) {
    const Core__GrpcService *m = (const Core__GrpcService *)msg;
    unsigned before = diag_errors(ctx->diag);
    struct ext_authz_service *s = arena_new(ctx->arena, struct ext_authz_service);
    s->is_grpc = true;
    s->answer_max = EXT_AUTHZ_ANSWER_MAX;
    if (m->target_specifier_case != CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC) {
        diag_error(ctx->diag, "only envoy_grpc is supported");
        return NULL;
    }
    const Core__GrpcService__EnvoyGrpc *e = m->envoy_grpc;
    s->cluster = compile_cluster_ref(ctx, sv_cstr(e->cluster_name), false);
    s->authority = arena_sv(ctx->arena, sv_cstr(e->authority));
    if (e->max_receive_message_length && e->max_receive_message_length->value) {
        s->answer_max = e->max_receive_message_length->value;
    }
    if (m->retry_policy || e->retry_policy) {
        compile_unhonoured(ctx, "retry_policy");
    }
    s->headers =
        compile_headers(ctx, "initial_metadata", m->initial_metadata, m->n_initial_metadata);
    DIAG_FIELD(ctx->diag, "timeout");
    compile_duration_ms(ctx, m->timeout, GRPC_TIMEOUT_MS, &s->timeout_ms);
    return diag_errors(ctx->diag) == before ? s : NULL;
}

/* --- what a service sees --- */

/* An HTTP service sees these whatever its list says. */
static bool is_always_seen(const struct ext_authz_check *c, const struct header *h) {
    return !c->service->is_grpc && (h->id == HDR_method || h->id == HDR_path ||
                                    h->id == HDR_authority || h->id == HDR_authorization);
}

static bool is_seen(const struct ext_authz_check *c, const struct header *h) {
    if (sv_is(h->name, "x-envoy-auth-partial-body") ||
        (c->disallowed && string_matchers_any(c->disallowed, h->name))) {
        return false;
    }
    if (c->has_allowed) {
        return string_matchers_any(c->allowed, h->name) || is_always_seen(c, h);
    }
    if (c->service->is_grpc) {
        return true;
    }
    return is_always_seen(c, h) || string_matchers_any(&c->service->allowed, h->name);
}

sv ext_authz_utf8(struct arena *a, sv s) {
    if (sv_is_utf8(s)) {
        return s;
    }
    char *out = arena_cstr(a, s);
    for (size_t i = 0; i < s.n;) {
        unsigned n = sv_utf8_seq(sv_skip(s, i));
        if (n == 0) {
            out[i] = '!';
        }
        i += n ? n : 1;
    }
    return sv_from(out, s.n);
}

static struct ext_authz_pair *find(struct ext_authz_pair *v, unsigned n, sv key) {
    for (unsigned i = 0; i < n; i++) {
        if (sv_eq(v[i].key, key)) {
            return &v[i];
        }
    }
    return NULL;
}

unsigned ext_authz_headers(const struct ext_authz_check *c, const struct ext_authz_pair **out) {
    struct arena *a = http_arena(c->f);
    unsigned n = 0, max = headers_count(c->request) + 1;
    struct ext_authz_pair *v = arena_new_array(a, struct ext_authz_pair, max);
    HEADERS_FOREACH (h, c->request) {
        if (!is_seen(c, h)) {
            continue;
        }
        /* a repeated one is found by the header block, so that only those cost a search */
        sv value = c->has_raw_headers ? h->value : ext_authz_utf8(a, h->value);
        bool is_first = headers_find_name(c->request, h->name) == h;
        struct ext_authz_pair *before = is_first || c->has_raw_headers ? NULL : find(v, n, h->name);
        if (before) {
            before->value = arena_printf(a, "%.*s,%.*s", SV_ARG(before->value), SV_ARG(value));
        } else {
            v[n++] = (struct ext_authz_pair){h->name, value};
        }
    }
    if (c->has_body) {
        v[n++] = (struct ext_authz_pair){SV("x-envoy-auth-partial-body"),
                                         c->is_partial ? SV("true") : SV("false")};
    }
    *out = v;
    return n;
}

/* --- checks --- */

void ext_authz_change_add(struct ext_authz_changes *c, struct arena *a,
                          enum ext_authz_change_kind kind, sv name, sv value) {
    if (c->n == c->cap) {
        unsigned cap = c->cap ? 2 * c->cap : 8;
        struct ext_authz_change *v = arena_new_array(a, struct ext_authz_change, cap);
        if (c->n) {
            memcpy(v, c->v, c->n * sizeof(*v));
        }
        c->v = v;
        c->cap = cap;
    }
    c->v[c->n++] = (struct ext_authz_change){kind, arena_sv(a, name), arena_sv(a, value)};
}

void ext_authz_check_start(const struct ext_authz_check *c, struct ext_authz_pending *p,
                           ext_authz_done_fn done, void *user) {
    *p = (struct ext_authz_pending){
        .service = c->service, .arena = http_arena(c->f), .done = done, .user = user};
    if (c->service->is_grpc) {
        ext_authz_grpc_start(c, p);
    } else {
        ext_authz_http_start(c, p);
    }
}

void ext_authz_check_cancel(struct ext_authz_pending *p) {
    if (p->call) {
        upstream_call_cancel(p->call);
        p->call = NULL;
    }
}
