/* istio.alpn: has the upstream's TLS connection offer the ALPN list of the protocol that is spoken
 * on it, by which a mesh's servers tell its clients from others.
 * Threads: config immutable, streams worker-local. Spec: Istio's alpn.v2alpha1.FilterConfig; a
 * cluster's metadata {istio: {alpn_override: "false"}} switches it off. */
#include "protos/gen/istio_alpn.pb-c.h"
#include "proxy/api/http_filter.h"

#define ALPN_MAX_BYTES 255u /* of one name, RFC 7301 */

struct alpn_config {
    struct {
        const sv *v;
        unsigned n;
    } lists[HTTP_2 + 1]; /* by enum http_protocol */
};

static const sv *compile_list(struct compile_ctx *ctx, char **names, size_t n) {
    sv *v = arena_new_array(ctx->arena, sv, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "alpn_override[%zu]", i);
        v[i] = arena_sv(ctx->arena, sv_cstr(names[i]));
        if (!v[i].n || v[i].n > ALPN_MAX_BYTES) {
            diag_error(ctx->diag, "value length must be between 1 and %u bytes", ALPN_MAX_BYTES);
        }
    }
    return v;
}

static void *alpn_compile(struct compile_ctx *ctx, const void *msg) {
    const IstioAlpn__FilterConfig *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct alpn_config *c = arena_new(ctx->arena, struct alpn_config);
    for (size_t i = 0; i < m->n_alpn_override; i++) {
        DIAG_FIELD(ctx->diag, "alpn_override[%zu]", i);
        const IstioAlpn__FilterConfig__AlpnOverride *o = m->alpn_override[i];
        unsigned protocol = (unsigned)o->upstream_protocol;
        if (protocol >= ARRAY_LEN(c->lists)) {
            diag_error(ctx->diag, "upstream_protocol: unknown protocol %u", protocol);
            continue;
        }
        c->lists[protocol].v =
            compile_list(ctx, (char **)(uintptr_t)o->alpn_override, o->n_alpn_override);
        c->lists[protocol].n = (unsigned)o->n_alpn_override;
    }
    return diag_errors(ctx->diag) == before ? c : NULL;
}

static bool is_off(const struct stream_info *si) {
    const sv path = SV("alpn_override");
    const struct kv_value *v = kv_metadata_get(si->cluster_metadata, SV("istio"), &path, 1);
    return v && v->kind == KV_STRING && sv_is(v->s, "false");
}

static enum filter_headers_status alpn_decode_headers(struct http_filter *f, struct headers *h,
                                                      bool end_stream) {
    (void)h;
    (void)end_stream;
    const struct alpn_config *c = f->config;
    enum http_protocol protocol;
    if (http_route_upstream_protocol(f, &protocol) && protocol < ARRAY_LEN(c->lists) &&
        c->lists[protocol].n && !is_off(http_stream_info(f))) {
        http_set_upstream_alpn(f, c->lists[protocol].v, c->lists[protocol].n);
    }
    return FILTER_HEADERS_CONTINUE;
}

extern const struct http_filter_type istio_alpn_http_filter;
const struct http_filter_type istio_alpn_http_filter = {
    .name = "istio.alpn",
    .type_url = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    .route_type_url = "",
    .stream_size = sizeof(struct http_filter),
    .compile = alpn_compile,
    .decode_headers = alpn_decode_headers,
};
