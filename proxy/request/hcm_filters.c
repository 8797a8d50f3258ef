/* HTTP filter lists and upgrade configs of a connection manager. Threads: the config thread.
 * Spec: HttpConnectionManager.http_filters, upgrade_configs; HttpFilter. */
#include "proxy/request/hcm_filters.h"

#include "protos/any.h"
#include "proxy/api/extension.h"
#include "proxy/api/registry.h"

/* False: an error, or an optional filter that is not there. */
static bool http_filter(struct compile_ctx *ctx, const Hcm__HttpFilter *m, bool is_last,
                        struct hcm_filter *out) {
    *out = (struct hcm_filter){
        .slot = SLOT_NONE, .name_id = filter_name_id(sv_cstr(m->name)), .is_disabled = m->disabled};
    if (m->config_type_case == HCM__HTTP_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        out->slot = compile_extension_ref(ctx, EXTENSION_HTTP, sv_cstr(m->name),
                                          m->config_discovery, is_last);
        return out->slot != SLOT_NONE;
    }
    const Pb__Any *any =
        m->config_type_case == HCM__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG ? m->typed_config : NULL;
    sv url = any ? any_inner_name(any, ctx->scratch) : SV_NULL;
    const struct http_filter_type *t = registry_http_filter(ctx->registry, sv_cstr(m->name), url);
    if (!t) {
        if (!m->is_optional) {
            diag_error(ctx->diag,
                       "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                       m->name, SV_ARG(url));
        }
        return false;
    }
    compile_check_terminal(ctx, sv_cstr(m->name), t->name, t->is_terminal, is_last, "http");
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg = any ? compile_any(ctx, sv_cstr(m->name), any, t->type_url, NULL) : NULL;
    if (any && !msg) {
        return false;
    }
    unsigned errors = diag_errors(ctx->diag);
    out->config = t->compile ? t->compile(ctx, msg) : NULL;
    out->type = t;
    return diag_errors(ctx->diag) == errors;
}

bool hcm_filters_compile(struct compile_ctx *ctx, Hcm__HttpFilter *const *v, size_t n,
                         const char *field, struct hcm_filters *out) {
    unsigned errors = diag_errors(ctx->diag);
    if (n > HCM_FILTERS_MAX) {
        return diag_error(ctx->diag, "%s: at most %u filters are supported", field,
                          HCM_FILTERS_MAX);
    }
    struct hcm_filter *f = arena_new_array(ctx->arena, struct hcm_filter, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        struct hcm_filter *one = &f[out->n];
        if (!http_filter(ctx, v[i], i + 1 == n, one)) {
            continue;
        }
        one->offset = (uint32_t)out->block_bytes;
        out->block_bytes += one->type ? (one->type->stream_size + 15) & ~(size_t)15 : 0;
        out->n++;
    }
    out->v = f;
    return diag_errors(ctx->diag) == errors;
}

bool hcm_upgrades_compile(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                          struct hcm_config *c) {
    unsigned errors = diag_errors(ctx->diag);
    struct hcm_upgrade *v = arena_new_array(ctx->arena, struct hcm_upgrade, m->n_upgrade_configs);
    for (size_t i = 0; i < m->n_upgrade_configs; i++) {
        const Hcm__HttpConnectionManager__UpgradeConfig *u = m->upgrade_configs[i];
        DIAG_FIELD(ctx->diag, "upgrade_configs[%zu]", i);
        for (size_t k = 0; k < i; k++) {
            if (sv_eq_nocase(v[k].type, sv_cstr(u->upgrade_type))) {
                diag_error(ctx->diag, "Error: multiple upgrade configs with the same name: '%s'",
                           u->upgrade_type);
            }
        }
        v[i].type = arena_sv(ctx->arena, sv_cstr(u->upgrade_type));
        v[i].enabled = !u->enabled || u->enabled->value;
        if (u->n_filters) {
            struct hcm_filters *f = arena_new(ctx->arena, struct hcm_filters);
            hcm_filters_compile(ctx, u->filters, u->n_filters, "filters", f);
            v[i].filters = f;
        }
    }
    c->upgrades = v;
    c->upgrades_n = (unsigned)m->n_upgrade_configs;
    return diag_errors(ctx->diag) == errors;
}
