/* HTTP filter lists and upgrade configs of a connection manager. Threads: the config thread.
 * Spec: HttpConnectionManager.http_filters, upgrade_configs; HttpFilter. */
#include "proxy/request/hcm_filters.h"

#include "protos/any.h"
#include "proxy/api/registry.h"

static bool http_filter(struct compile_ctx *ctx, const Hcm__HttpFilter *m, struct hcm_filter *out) {
    if (m->config_type_case == HCM__HTTP_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        return diag_error(ctx->diag, "config_discovery is not supported");
    }
    const Pb__Any *any =
        m->config_type_case == HCM__HTTP_FILTER__CONFIG_TYPE_TYPED_CONFIG ? m->typed_config : NULL;
    sv url = any ? any_inner_name(any, ctx->arena) : SV_NULL;
    const struct http_filter_type *t = registry_http_filter(ctx->registry, sv_cstr(m->name), url);
    if (!t) {
        return m->is_optional ||
               diag_error(ctx->diag,
                          "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                          m->name, SV_ARG(url));
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg = any ? compile_any(ctx, sv_cstr(m->name), any, t->type_url, NULL) : NULL;
    if (any && !msg) {
        return false;
    }
    unsigned errors = diag_errors(ctx->diag);
    out->config = t->compile ? t->compile(ctx, msg) : NULL;
    out->type = t;
    out->name_id = filter_name_id(sv_cstr(m->name));
    out->is_disabled = m->disabled;
    return diag_errors(ctx->diag) == errors;
}

static void check_terminal(struct compile_ctx *ctx, const Hcm__HttpFilter *m,
                           const struct http_filter_type *t, bool is_last) {
    if (t->is_terminal && !is_last) {
        diag_error(ctx->diag,
                   "Error: terminal filter named %s of type %s must be the last filter in a http "
                   "filter chain.",
                   m->name, t->name);
    } else if (!t->is_terminal && is_last) {
        diag_error(ctx->diag,
                   "Error: non-terminal filter named %s of type %s is the last filter in a http "
                   "filter chain.",
                   m->name, t->name);
    }
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
        if (!http_filter(ctx, v[i], one) || !one->type) {
            continue;
        }
        check_terminal(ctx, v[i], one->type, i + 1 == n);
        one->offset = (uint32_t)out->block_bytes;
        out->block_bytes += (one->type->stream_size + 15) & ~(size_t)15;
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
