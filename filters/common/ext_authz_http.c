/* External authorization by an HTTP service: the request without its body goes to the service, and
 * the status of its answer decides.
 * Threads: worker-local. Spec: ext_authz.v3.HttpService, AuthorizationRequest,
 * AuthorizationResponse. */
#include "filters/common/ext_authz.h"

#define REMOVE_HEADER "x-envoy-auth-headers-to-remove"

/* --- the answer --- */

static void remember_removals(struct ext_authz_answer *out, struct arena *a, sv list) {
    while (list.n) {
        sv name = sv_trim(sv_cut(&list, ','));
        if (name.n) {
            ext_authz_change_add(&out->request, a, EXT_AUTHZ_REMOVE, name, SV_NULL);
        }
    }
}

static void read_ok(const struct ext_authz_service *s, const struct headers *h, struct arena *a,
                    struct ext_authz_answer *out) {
    HEADERS_FOREACH (x, h) {
        if (sv_is(x->name, REMOVE_HEADER)) {
            remember_removals(out, a, x->value);
            continue;
        }
        if (string_matchers_any(&s->upstream, x->name)) {
            ext_authz_change_add(&out->request, a, EXT_AUTHZ_SET, x->name, x->value);
        }
        if (string_matchers_any(&s->upstream_append, x->name)) {
            ext_authz_change_add(&out->request, a, EXT_AUTHZ_ADD, x->name, x->value);
        }
        if (string_matchers_any(&s->client_on_success, x->name)) {
            ext_authz_change_add(&out->response, a, EXT_AUTHZ_ADD, x->name, x->value);
        }
    }
}

static bool is_told_to_client(const struct ext_authz_service *s, const struct header *x) {
    if (!s->has_client) {
        return !sv_is(x->name, "host");
    }
    return x->id == HDR_status || x->id == HDR_content_length || x->id == HDR_location ||
           sv_is(x->name, "www-authenticate") || string_matchers_any(&s->client, x->name);
}

/* The length is that of the body we send, and the status is told apart. */
static void read_denial(const struct ext_authz_service *s, const struct upstream_call_result *r,
                        struct arena *a, struct ext_authz_answer *out) {
    HEADERS_FOREACH (x, r->headers) {
        bool is_of_answer =
            x->id == HDR_status || x->id == HDR_content_length || x->id == HDR_transfer_encoding;
        if (is_told_to_client(s, x)) {
            ext_authz_change_add(&out->response, a, is_of_answer ? EXT_AUTHZ_TOLD : EXT_AUTHZ_SET,
                                 x->name, x->value);
        }
    }
    out->body = arena_sv(a, buf_pullup(r->body, buf_len(r->body)));
}

static void read_metadata(const struct ext_authz_service *s, const struct headers *h,
                          struct arena *a, struct ext_authz_answer *out) {
    HEADERS_FOREACH (x, h) {
        if (string_matchers_any(&s->metadata, x->name)) {
            struct kv_value value = kv_string(x->value);
            kv_set(&out->metadata, a, x->name, &value);
        }
    }
}

static void on_done(void *user, const struct upstream_call_result *r) {
    struct ext_authz_pending *p = (struct ext_authz_pending *)user;
    struct ext_authz_answer out = {.verdict = EXT_AUTHZ_ERROR, .metadata = kv_empty_struct()};
    p->call = NULL;
    if (r->status == UPSTREAM_CALL_OK && r->code < 500) {
        out.verdict = r->code == 200 ? EXT_AUTHZ_OK : EXT_AUTHZ_DENIED;
        out.status = r->code;
        if (out.verdict == EXT_AUTHZ_OK) {
            read_ok(p->service, r->headers, p->arena, &out);
        } else {
            read_denial(p->service, r, p->arena, &out);
        }
        read_metadata(p->service, r->headers, p->arena, &out);
    }
    p->done(p->user, &out);
}

/* --- the request --- */

static sv path_of(const struct ext_authz_service *s, struct arena *a, sv path) {
    if (s->path_override.n) {
        return s->path_override;
    }
    return s->path_prefix.n ? arena_printf(a, "%.*s%.*s", SV_ARG(s->path_prefix), SV_ARG(path))
                            : path;
}

/* Of one connection only, or not true of the check: never sent. */
static bool is_skipped(sv name) {
    static const char *const names[] = {
        "content-length", "transfer-encoding", "connection", "upgrade", "te", ":protocol"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (sv_is(name, names[i])) {
            return true;
        }
    }
    return false;
}

static void fill(const struct ext_authz_check *c, struct headers *h) {
    const struct ext_authz_pair *seen;
    unsigned n = ext_authz_headers(c, &seen);
    for (unsigned i = 0; i < n; i++) {
        if (is_skipped(seen[i].key)) {
            continue;
        }
        enum header_id id = header_id_of(seen[i].key);
        sv value = id == HDR_path ? path_of(c->service, h->arena, seen[i].value) : seen[i].value;
        headers_add(h, id, seen[i].key, value);
    }
    if (!headers_has(h, HDR_scheme)) {
        headers_add_id(h, HDR_scheme, SV("http"));
    }
    headers_add_id(h, HDR_content_length,
                   arena_printf(h->arena, "%zu", c->has_body ? c->body.n : 0));
    headers_set_name(h, SV("x-envoy-internal"), SV("true"));
    if (c->service->timeout_ms) {
        headers_set_name(h, SV("x-envoy-expected-rq-timeout-ms"),
                         arena_printf(h->arena, "%u", c->service->timeout_ms));
    }
    header_mutations_apply(c->service->headers, h, http_stream_info(c->f));
}

void ext_authz_http_start(const struct ext_authz_check *c, struct ext_authz_pending *p) {
    struct headers h;
    struct buf BUF_AUTO body;
    headers_init(&h, p->arena);
    buf_init(&body);
    fill(c, &h);
    buf_append_sv(&body, c->has_body ? c->body : SV_NULL);
    const struct upstream_call_options o = {.cluster = c->service->cluster,
                                            .timeout_ms = c->service->timeout_ms,
                                            .response_max_bytes = c->service->answer_max,
                                            .request_max_bytes = (uint32_t)buf_len(&body) + 1,
                                            .omits_forwarding = true,
                                            .downstream = HTTP_11};
    p->call = upstream_call_start(http_worker(c->f), &o, &h, &body, true, on_done, p);
}
