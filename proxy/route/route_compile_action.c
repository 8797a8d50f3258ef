/* RouteAction: cluster, rewrites, timeouts, retries and the rest of forwarding.
 * Threads: config thread. Spec: config.route.v3.RouteAction. Not here: forwarding itself
 * (request/router.c). */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/path_rewrite_uri_template.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/rate_limit.h"
#include "proxy/api/uri_template.h"
#include "proxy/base/regex.h"
#include "proxy/observe/formatter.h"
#include "proxy/route/route_metadata.h"
#include "proxy/route/route_private.h"

static const struct route_cluster_header *compile_cluster_header(struct compile_ctx *ctx,
                                                                 const char *name) {
    struct route_cluster_header *h = arena_new(ctx->arena, struct route_cluster_header);
    h->name = route_lower(ctx->arena, name);
    h->id = header_id_of(h->name);
    if (h->id == HDR_host) {
        h->id = HDR_authority;
        h->name = SV(":authority");
    }
    return h;
}

static bool compile_specifier(struct route_compile *c, const Route__RouteAction *m,
                              struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    r->cluster = SLOT_NONE;
    switch (m->cluster_specifier_case) {
    case ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER:
        r->action = ROUTE_CLUSTER;
        r->cluster_name = arena_sv(ctx->arena, sv_cstr(m->cluster));
        r->cluster = compile_cluster_ref(ctx, r->cluster_name, c->must_exist);
        return r->cluster != SLOT_NONE;
    case ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER_HEADER:
        r->action = ROUTE_CLUSTER_HEADER;
        r->cluster_header = compile_cluster_header(ctx, m->cluster_header);
        return true;
    case ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_WEIGHTED_CLUSTERS:
        r->action = ROUTE_WEIGHTED;
        return route_compile_weighted(c, m->weighted_clusters, r);
    case ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_CLUSTER_SPECIFIER_PLUGIN:
    case ROUTE__ROUTE_ACTION__CLUSTER_SPECIFIER_INLINE_CLUSTER_SPECIFIER_PLUGIN:
        return diag_error(ctx->diag, "cluster specifier plugins are not supported");
    default:
        return diag_error(ctx->diag, "cluster_specifier: value is required");
    }
}

/* --- rewrites --- */

static bool compile_template_rewrite(struct route_compile *c, const Core__TypedExtensionConfig *e,
                                     struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "path_rewrite_policy");
    const PathRewriteUriTemplate__UriTemplateRewriteConfig *m =
        (const PathRewriteUriTemplate__UriTemplateRewriteConfig *)compile_any(
            ctx, sv_cstr(e->name), e->typed_config,
            "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig", NULL);
    if (!m) {
        return false;
    }
    if (r->match_kind != PATH_MATCH_TEMPLATE || !r->match_template) {
        return diag_error(
            ctx->diag,
            "unable to use envoy.path.rewrite.uri_template.uri_template_rewriter extension without "
            "envoy.path.match.uri_template.uri_template_matcher extension");
    }
    struct route_rewrite *w = route_own_rewrite(c, r);
    w->path_template =
        uri_template_rewrite_compile(ctx, sv_cstr(m->path_template_rewrite), r->match_template);
    return w->path_template != NULL;
}

static bool compile_path_rewrite(struct route_compile *c, const Route__RouteAction *m,
                                 struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    bool ok = true;
    int kinds = (m->prefix_rewrite[0] != 0) + (m->regex_rewrite != NULL) +
                (m->path_rewrite_policy != NULL) + (m->path_rewrite[0] != 0);
    if (kinds > 1) {
        return diag_error(
            ctx->diag, "Specify only one of prefix_rewrite, regex_rewrite or path_rewrite_policy");
    }
    if (m->prefix_rewrite[0]) {
        if (r->match_kind == PATH_MATCH_TEMPLATE) {
            return diag_error(ctx->diag, "Cannot use prefix_rewrite with matcher extension");
        }
        route_own_rewrite(c, r)->prefix = arena_sv(ctx->arena, sv_cstr(m->prefix_rewrite));
    }
    if (m->regex_rewrite) {
        DIAG_FIELD(ctx->diag, "regex_rewrite");
        ok &= route_compile_regex_rewrite(ctx, m->regex_rewrite,
                                          &route_own_rewrite(c, r)->path_regex);
    }
    if (m->path_rewrite_policy) {
        ok &= compile_template_rewrite(c, m->path_rewrite_policy, r);
    }
    if (m->path_rewrite[0]) {
        DIAG_FIELD(ctx->diag, "path_rewrite");
        struct route_rewrite *w = route_own_rewrite(c, r);
        w->path_format = formatter_compile(ctx, sv_cstr(m->path_rewrite), true);
        ok &= w->path_format != NULL;
    }
    return ok;
}

static bool compile_host_rewrite(struct route_compile *c, const Route__RouteAction *m,
                                 struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    bool has_specifier =
        m->host_rewrite_specifier_case != ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER__NOT_SET;
    if (!has_specifier && !m->append_x_forwarded_host) {
        return true;
    }
    struct route_rewrite *w = route_own_rewrite(c, r);
    w->append_x_forwarded_host = m->append_x_forwarded_host;
    switch (m->host_rewrite_specifier_case) {
    case ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER__NOT_SET:
        return true;
    case ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL:
        w->host = arena_sv(ctx->arena, sv_cstr(m->host_rewrite_literal));
        return true;
    case ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_AUTO_HOST_REWRITE:
        w->auto_host = m->auto_host_rewrite->value;
        return true;
    case ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_HEADER:
        w->host_header = route_lower(ctx->arena, m->host_rewrite_header);
        w->host_header_id = header_id_of(w->host_header);
        return true;
    case ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE_PATH_REGEX: {
        DIAG_FIELD(ctx->diag, "host_rewrite_path_regex");
        return route_compile_regex_rewrite(ctx, m->host_rewrite_path_regex, &w->host_path_regex);
    }
    case ROUTE__ROUTE_ACTION__HOST_REWRITE_SPECIFIER_HOST_REWRITE: {
        DIAG_FIELD(ctx->diag, "host_rewrite");
        /* as Envoy's: "-" for nothing */
        w->host_format = formatter_compile(ctx, sv_cstr(m->host_rewrite), false);
        return w->host_format != NULL;
    }
    default:
        return diag_error(ctx->diag, "unknown host rewrite specifier");
    }
}

/* --- timeouts --- */

bool route_duration_ms(struct compile_ctx *ctx, const char *field, const void *duration_msg,
                       uint32_t *out) {
    const Pb__Duration *d = (const Pb__Duration *)duration_msg;
    if (d->seconds < 0 || d->nanos < 0 || d->nanos > 999999999 || d->seconds > 315576000000) {
        return diag_error(ctx->diag, "%s: expected a duration from 0s to 315576000000s", field);
    }
    uint64_t ms = (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000;
    *out = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX - 1;
    return true;
}

static bool set_ms(struct compile_ctx *ctx, const char *field, const Pb__Duration *d,
                   uint32_t *out) {
    return !d || route_duration_ms(ctx, field, d, out);
}

static bool compile_timeouts(struct route_compile *c, const Route__RouteAction *m,
                             struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    bool ok = set_ms(ctx, "timeout", m->timeout, &r->timeout_ms);
    ok &= set_ms(ctx, "idle_timeout", m->idle_timeout, &r->idle_timeout_ms);
    ok &= set_ms(ctx, "flush_timeout", m->flush_timeout, &r->flush_timeout_ms);
    if (m->max_grpc_timeout || m->grpc_timeout_offset) {
        struct route_extra *x = route_own_extra(c, r);
        ok &= set_ms(ctx, "max_grpc_timeout", m->max_grpc_timeout, &x->grpc_timeout_max_ms);
        ok &=
            set_ms(ctx, "grpc_timeout_offset", m->grpc_timeout_offset, &x->grpc_timeout_offset_ms);
    }
    const Route__RouteAction__MaxStreamDuration *d = m->max_stream_duration;
    if (!d) {
        return ok;
    }
    DIAG_FIELD(ctx->diag, "max_stream_duration");
    r->has_max_stream_duration = true;
    ok &= set_ms(ctx, "max_stream_duration", d->max_stream_duration, &r->max_stream_duration_ms);
    if (!d->grpc_timeout_header_max && !d->grpc_timeout_header_offset) {
        return ok;
    }
    struct route_extra *x = route_own_extra(c, r);
    ok &=
        set_ms(ctx, "grpc_timeout_header_max", d->grpc_timeout_header_max, &x->grpc_header_max_ms);
    return ok & set_ms(ctx, "grpc_timeout_header_offset", d->grpc_timeout_header_offset,
                       &x->grpc_header_offset_ms);
}

/* --- the rest --- */

static bool compile_retry(struct route_compile *c, const Route__RouteAction *m,
                          struct route_entry *r) {
    r->retry = c->vhost_retry;
    if (m->retry_policy_typed_config) {
        return diag_error(c->ctx->diag,
                          "retry_policy_typed_config: retry policy extensions are not supported");
    }
    if (m->retry_policy) {
        DIAG_FIELD(c->ctx->diag, "retry_policy");
        r->retry = retry_policy_compile(c->ctx, m->retry_policy);
        return r->retry != NULL;
    }
    return true;
}

static bool compile_upgrade(struct compile_ctx *ctx, const Route__RouteAction__UpgradeConfig *m,
                            struct upgrade_override *u) {
    u->type = route_lower(ctx->arena, m->upgrade_type);
    u->enabled = !m->enabled || m->enabled->value;
    if (!m->connect_config) {
        return true;
    }
    if (!sv_is(u->type, "connect") && !sv_is(u->type, "connect-udp")) {
        return diag_error(ctx->diag, "Non-CONNECT upgrade type %s has ConnectConfig",
                          m->upgrade_type);
    }
    if (!sv_is(u->type, "connect")) {
        return diag_error(ctx->diag, "connect_config of %s is not supported", m->upgrade_type);
    }
    const Core__ProxyProtocolConfig *p = m->connect_config->proxy_protocol_config;
    if (p) {
        DIAG_FIELD(ctx->diag, "connect_config.proxy_protocol_config");
        if (p->pass_through_tlvs) {
            compile_unhonoured(ctx, "pass_through_tlvs");
        }
        if (p->n_added_tlvs) {
            compile_unhonoured(ctx, "added_tlvs");
        }
        u->proxy_header = p->version == CORE__PROXY_PROTOCOL_CONFIG__VERSION__V1 ? 1 : 2;
    }
    u->has_connect_config = true;
    u->allow_post = m->connect_config->allow_post;
    return true;
}

static bool compile_upgrades(struct route_compile *c, const Route__RouteAction *m,
                             struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    if (m->n_upgrade_configs == 0) {
        return true;
    }
    struct upgrade_override *v =
        arena_new_array(ctx->arena, struct upgrade_override, m->n_upgrade_configs);
    bool ok = true;
    for (size_t i = 0; i < m->n_upgrade_configs; i++) {
        DIAG_FIELD(ctx->diag, "upgrade_configs[%zu]", i);
        ok &= compile_upgrade(ctx, m->upgrade_configs[i], &v[i]);
        for (size_t k = 0; k < i; k++) {
            if (sv_eq(v[k].type, v[i].type)) {
                ok = diag_error(ctx->diag, "Duplicate upgrade %s",
                                m->upgrade_configs[i]->upgrade_type);
            }
        }
    }
    struct route_extra *x = route_own_extra(c, r);
    x->upgrades = v;
    x->upgrades_n = (unsigned)m->n_upgrade_configs;
    return ok;
}

static bool compile_mirrors(struct route_compile *c, const Route__RouteAction *m,
                            struct route_entry *r) {
    if (!m->n_request_mirror_policies && !c->inherited_mirrors_n) {
        return true;
    }
    struct route_extra *x = route_own_extra(c, r);
    x->mirrors = c->inherited_mirrors;
    x->mirrors_n = c->inherited_mirrors_n;
    return !m->n_request_mirror_policies ||
           route_compile_mirrors(c, (const void *const *)m->request_mirror_policies,
                                 m->n_request_mirror_policies, &x->mirrors, &x->mirrors_n);
}

static bool compile_enums(struct route_compile *c, const Route__RouteAction *m,
                          struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    switch ((int)m->cluster_not_found_response_code) {
    case ROUTE__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__SERVICE_UNAVAILABLE:
        r->cluster_not_found_code = 503;
        break;
    case ROUTE__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__NOT_FOUND:
        r->cluster_not_found_code = 404;
        break;
    case ROUTE__ROUTE_ACTION__CLUSTER_NOT_FOUND_RESPONSE_CODE__INTERNAL_SERVER_ERROR:
        r->cluster_not_found_code = 500;
        break;
    default:
        return diag_error(
            ctx->diag,
            "cluster_not_found_response_code: value must be one of the defined enum values");
    }
    switch ((int)m->priority) {
    case CORE__ROUTING_PRIORITY__DEFAULT:
    case CORE__ROUTING_PRIORITY__HIGH:
        r->priority = (uint8_t)m->priority;
        return true;
    default:
        return diag_error(ctx->diag, "priority: value must be one of the defined enum values");
    }
}

static void compile_limits(struct route_compile *c, const Route__RouteAction *m,
                           struct route_entry *r) {
    if (m->n_rate_limits || m->include_vh_rate_limits) {
        struct route_extra *x = route_own_extra(c, r);
        x->rate_limits = rate_limits_compile(c->ctx, (const void *const *)m->rate_limits,
                                             m->n_rate_limits, false);
        x->include_vhost_rate_limits =
            m->include_vh_rate_limits && m->include_vh_rate_limits->value;
    }
}

static void note_unhonoured(struct route_compile *c, const Route__RouteAction *m) {
    const Route__VirtualHost *v = (const Route__VirtualHost *)c->vhost_msg;
    if (m->hedge_policy || (v && v->hedge_policy)) {
        compile_unhonoured(c->ctx, "hedge_policy");
    }
    if (m->early_data_policy) {
        compile_unhonoured(c->ctx, "early_data_policy");
    }
}

bool route_compile_action(struct route_compile *c, const void *action_msg, struct route_entry *r) {
    const Route__RouteAction *m = (const Route__RouteAction *)action_msg;
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "route");
    r->metadata_match =
        m->metadata_match ? route_metadata_match(ctx, m->metadata_match, NULL) : NULL;
    bool ok = compile_specifier(c, m, r);
    ok &= compile_path_rewrite(c, m, r);
    ok &= compile_host_rewrite(c, m, r);
    ok &= compile_timeouts(c, m, r);
    ok &= compile_retry(c, m, r);
    ok &= compile_upgrades(c, m, r);
    ok &= compile_mirrors(c, m, r);
    ok &= compile_enums(c, m, r);
    ok &= route_compile_hash(c, m, r);
    ok &= route_compile_internal_redirect(c, m, r);
    compile_limits(c, m, r);
    note_unhonoured(c, m);
    return ok & route_compile_legacy_cors(ctx, m->cors, &r->overrides);
}
