/* External authorization by a gRPC service: envoy.service.auth.v3.Authorization/Check.
 * Threads: worker-local. Spec: service.auth.v3.CheckResponse.
 * Not here: what is asked (ext_authz_attributes.c). */
#include "filters/common/ext_authz.h"
#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/rpc.pb-c.h"
#include "protos/gen/service_auth.pb-c.h"
#include "protos/gen/type.pb-c.h"

/* The name in lower case, as header blocks have it; the value's bytes. */
static void add(struct ext_authz_changes *c, struct arena *a, enum ext_authz_change_kind kind,
                const Core__HeaderValue *h) {
    char *name = arena_cstr(a, sv_cstr(h->key));
    sv value = h->raw_value.len ? sv_from(h->raw_value.data, h->raw_value.len) : sv_cstr(h->value);
    for (char *p = name; *p; p++) {
        *p = ascii_tolower(*p);
    }
    ext_authz_change_add(c, a, kind, sv_cstr(name), value);
}

/* Headers of the request, and of a denial: set, or joined where `append` says so. */
static void read_headers(Core__HeaderValueOption *const *v, size_t n, struct arena *a,
                         struct ext_authz_changes *out) {
    for (size_t i = 0; i < n; i++) {
        if (v[i]->header) {
            bool joins = v[i]->append && v[i]->append->value;
            add(out, a, joins ? EXT_AUTHZ_JOIN : EXT_AUTHZ_SET, v[i]->header);
        }
    }
}

/* Headers of the response: by `append`, else by append_action. False: an unknown action. */
static bool response_kind(const Core__HeaderValueOption *o, enum ext_authz_change_kind *out) {
    if (o->append) {
        *out = o->append->value ? EXT_AUTHZ_ADD : EXT_AUTHZ_SET;
        return true;
    }
    switch ((int)o->append_action) {
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD:
        *out = EXT_AUTHZ_ADD;
        return true;
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__ADD_IF_ABSENT:
        *out = EXT_AUTHZ_IF_ABSENT;
        return true;
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD:
        *out = EXT_AUTHZ_SET;
        return true;
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS:
        *out = EXT_AUTHZ_IF_THERE;
        return true;
    default:
        return false;
    }
}

static void read_ok(const ServiceAuth__OkHttpResponse *m, struct arena *a,
                    struct ext_authz_answer *out) {
    read_headers(m->headers, m->n_headers, a, &out->request);
    for (size_t i = 0; i < m->n_headers_to_remove; i++) {
        char *name = arena_cstr(a, sv_cstr(m->headers_to_remove[i]));
        for (char *p = name; *p; p++) {
            *p = ascii_tolower(*p);
        }
        ext_authz_change_add(&out->request, a, EXT_AUTHZ_REMOVE, sv_cstr(name), SV_NULL);
    }
    for (size_t i = 0; i < m->n_response_headers_to_add; i++) {
        enum ext_authz_change_kind kind;
        if (!response_kind(m->response_headers_to_add[i], &kind)) {
            out->is_invalid = true;
        } else if (m->response_headers_to_add[i]->header) {
            add(&out->response, a, kind, m->response_headers_to_add[i]->header);
        }
    }
    for (size_t i = 0; i < m->n_query_parameters_to_set; i++) {
        ext_authz_change_add(&out->query, a, EXT_AUTHZ_SET,
                             sv_cstr(m->query_parameters_to_set[i]->key),
                             sv_cstr(m->query_parameters_to_set[i]->value));
    }
    for (size_t i = 0; i < m->n_query_parameters_to_remove; i++) {
        ext_authz_change_add(&out->query, a, EXT_AUTHZ_REMOVE,
                             sv_cstr(m->query_parameters_to_remove[i]), SV_NULL);
    }
}

static void read_refusal(const ServiceAuth__DeniedHttpResponse *m, struct arena *a,
                         struct ext_authz_answer *out) {
    read_headers(m->headers, m->n_headers, a, &out->response);
    out->body = arena_sv(a, sv_cstr(m->body));
    if (m->status && m->status->code > 0) {
        out->status = (unsigned)m->status->code;
    }
}

static void read_answer(const ServiceAuth__CheckResponse *m, struct arena *a,
                        struct ext_authz_answer *out) {
    bool is_ok = !m->status || m->status->code == 0;
    const Pb__Struct *older = NULL;
    if (is_ok) {
        out->verdict = EXT_AUTHZ_OK;
        if (m->http_response_case == SERVICE_AUTH__CHECK_RESPONSE__HTTP_RESPONSE_OK_RESPONSE) {
            read_ok(m->ok_response, a, out);
            older = m->ok_response->dynamic_metadata;
        }
    } else if (m->http_response_case ==
               SERVICE_AUTH__CHECK_RESPONSE__HTTP_RESPONSE_ERROR_RESPONSE) {
        read_refusal(m->error_response, a, out);
    } else {
        out->verdict = EXT_AUTHZ_DENIED;
        out->status = 403;
        if (m->http_response_case == SERVICE_AUTH__CHECK_RESPONSE__HTTP_RESPONSE_DENIED_RESPONSE) {
            read_refusal(m->denied_response, a, out);
        }
    }
    const Pb__Struct *metadata = m->dynamic_metadata ? m->dynamic_metadata : older;
    if (metadata) {
        out->metadata = kv_from_struct(metadata, a);
    }
}

static void on_done(void *user, const struct grpc_call_result *r) {
    struct ext_authz_pending *p = (struct ext_authz_pending *)user;
    struct ext_authz_answer out = {.verdict = EXT_AUTHZ_ERROR, .metadata = kv_empty_struct()};
    p->call = NULL;
    if (r->status == 0) {
        struct diag d;
        diag_init(&d);
        const ServiceAuth__CheckResponse *m =
            PROTO_UNPACK(ServiceAuth__CheckResponse, service_auth__check_response__descriptor,
                         r->message, p->arena, &d);
        if (m) {
            read_answer(m, p->arena, &out);
        }
        diag_fini(&d);
    }
    p->done(p->user, &out);
}

void ext_authz_grpc_start(const struct ext_authz_check *c, struct ext_authz_pending *p) {
    sv message = ext_authz_check_request(c);
    struct headers metadata;
    headers_init(&metadata, p->arena);
    header_mutations_apply(c->service->headers, &metadata, http_stream_info(c->f));
    const struct upstream_call_options o = {.cluster = c->service->cluster,
                                            .timeout_ms = c->service->timeout_ms,
                                            .request_max_bytes = (uint32_t)message.n + 64,
                                            .response_max_bytes = c->service->answer_max};
    const struct grpc_call_method m = {.service = SV("envoy.service.auth.v3.Authorization"),
                                       .method = SV("Check"),
                                       .authority = c->service->authority,
                                       .metadata = &metadata};
    p->call = grpc_call_start(http_worker(c->f), &o, &m, message, on_done, p);
}
