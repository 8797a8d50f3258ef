/* ClusterLoadAssignment → struct cla_config. Threads: the config thread.
 * Spec: config.endpoint.v3. Not here: resolving names (upstream/dns.c), host sets. */
#include "protos/gen/endpoint.pb-c.h"
#include "proxy/api/proxy_tlv.h"
#include "proxy/config/collection.h"
#include "proxy/config/config.h"
#include "proxy/config/endpoints.h"
#include "proxy/observe/metadata.h"

static sv keep(struct compile_ctx *ctx, const char *s) {
    return *s ? arena_sv(ctx->arena, sv_cstr(s)) : SV_NULL;
}

static const struct cla_endpoint_extra no_extra = {.additional_n = 0};

/* out's own, made when it has the shared one so far. */
static struct cla_endpoint_extra *own_extra(struct compile_ctx *ctx, struct cla_endpoint *out) {
    if (out->extra == &no_extra) {
        out->extra = arena_new(ctx->arena, struct cla_endpoint_extra);
    }
    return (struct cla_endpoint_extra *)(uintptr_t)out->extra;
}

static bool internal_address(struct compile_ctx *ctx, const Core__Address *a, bool allow_names,
                             struct cla_endpoint *out) {
    if (allow_names) {
        return diag_error(ctx->diag, "an internal listener is no name to be resolved");
    }
    if (out->extra->additional_n) {
        return diag_error(ctx->diag, "an internal listener can have no additional_addresses");
    }
    if (out->extra->health_check_port) {
        return diag_error(ctx->diag,
                          "Invalid host configuration: non-zero port for non-IP address");
    }
    return compile_internal_address(ctx, a->envoy_internal_address, &out->addr);
}

static bool endpoint_address(struct compile_ctx *ctx, const Core__Address *a, bool allow_names,
                             struct cla_endpoint *out) {
    DIAG_FIELD(ctx->diag, "address");
    if (!a) {
        return diag_error(ctx->diag, "value is required");
    }
    if (a->address_case == CORE__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS) {
        return internal_address(ctx, a, allow_names, out);
    }
    if (a->address_case != CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS) {
        return compile_address(ctx, a, &out->addr);
    }
    const Core__SocketAddress *s = a->socket_address;
    struct addr ip;
    if (addr_parse_ip(sv_cstr(s->address), (uint16_t)s->port_value, &ip)) {
        out->addr = ip;
        if (allow_names && !out->extra->hostname.n) { /* as Envoy: what was to be resolved */
            own_extra(ctx, out)->hostname = keep(ctx, s->address);
        }
        return true;
    }
    if (!allow_names) {
        return compile_socket_address(ctx, s, &out->addr);
    }
    out->addr.port = (uint16_t)s->port_value;
    own_extra(ctx, out)->dns_name = keep(ctx, s->address);
    return true;
}

static void additional_addresses(struct compile_ctx *ctx, const Endpoint__Endpoint *e,
                                 struct cla_endpoint *out) {
    if (e->n_additional_addresses == 0) {
        return;
    }
    struct addr *v = arena_new_array(ctx->arena, struct addr, e->n_additional_addresses);
    for (size_t i = 0; i < e->n_additional_addresses; i++) {
        DIAG_FIELD(ctx->diag, "additional_addresses[%zu].address", i);
        compile_address(ctx, e->additional_addresses[i]->address, &v[i]);
    }
    struct cla_endpoint_extra *x = own_extra(ctx, out);
    x->additional = v;
    x->additional_n = (unsigned)e->n_additional_addresses;
}

static void health_check_config(struct compile_ctx *ctx,
                                const Endpoint__Endpoint__HealthCheckConfig *h,
                                struct cla_endpoint *out) {
    if (!h) {
        return;
    }
    out->health_check_disabled = h->disable_active_health_check;
    if (!h->hostname[0] && !h->port_value && !h->address) {
        return;
    }
    struct cla_endpoint_extra *x = own_extra(ctx, out);
    x->health_check_hostname = keep(ctx, h->hostname);
    x->health_check_port = (uint16_t)h->port_value;
    if (h->address) {
        DIAG_FIELD(ctx->diag, "health_check_config.address");
        compile_address(ctx, h->address, &x->health_check_addr);
    }
}

/* The host's own TLVs for PROXY headers: typed metadata of that transport socket. */
static void proxy_tlvs(struct compile_ctx *ctx, const Core__Metadata *m, struct cla_endpoint *out) {
    static const sv socket = SV_INIT("envoy.transport_sockets.proxy_protocol");
    for (size_t i = 0; m && i < m->n_typed_filter_metadata; i++) {
        const Core__Metadata__TypedFilterMetadataEntry *e = m->typed_filter_metadata[i];
        DIAG_FIELD(ctx->diag, "metadata.typed_filter_metadata");
        if (!sv_eq(sv_cstr(e->key), socket)) {
            compile_unhonoured(ctx, e->key);
            continue;
        }
        const Core__PerHostConfig *h =
            compile_any(ctx, socket, e->value, "envoy.config.core.v3.PerHostConfig", NULL);
        if (h) {
            compile_added_tlvs(ctx, "added_tlvs", (const void *const *)h->added_tlvs,
                               h->n_added_tlvs, &own_extra(ctx, out)->proxy_tlvs);
        }
    }
}

static void unref_metadata(void *metadata) { kv_metadata_unref(metadata); }

/* Most endpoints' metadata is that of many others. */
static const struct kv_metadata *shared_metadata(struct compile_ctx *ctx, const Core__Metadata *m) {
    const struct kv_metadata *own = m ? kv_metadata_from(m, ctx->scratch) : NULL;
    const struct kv_metadata *shared = kv_metadata_intern(own);
    if (shared) {
        arena_on_fini(ctx->arena, unref_metadata, (void *)(uintptr_t)shared);
    }
    return shared;
}

static bool endpoint(struct compile_ctx *ctx, const Endpoint__LbEndpoint *m, bool allow_names,
                     struct cla_endpoint *out) {
    if (m->host_identifier_case != ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT) {
        return diag_error(ctx->diag,
                          "endpoint: value is required (named endpoints are not supported)");
    }
    DIAG_FIELD(ctx->diag, "endpoint");
    const Endpoint__Endpoint *e = m->endpoint;
    out->weight = m->load_balancing_weight ? m->load_balancing_weight->value : 1;
    out->health_status = (uint8_t)m->health_status;
    out->extra = &no_extra;
    if (e->hostname[0]) {
        own_extra(ctx, out)->hostname = keep(ctx, e->hostname);
    }
    out->metadata = shared_metadata(ctx, m->metadata);
    proxy_tlvs(ctx, m->metadata, out);
    additional_addresses(ctx, e, out);
    health_check_config(ctx, e->health_check_config, out);
    return endpoint_address(ctx, e->address, allow_names, out);
}

static void discovered_endpoints(struct compile_ctx *ctx, const Endpoint__LocalityLbEndpoints *m,
                                 struct cla_locality *out) {
    const Endpoint__LedsClusterLocalityConfig *l = m->leds_cluster_locality_config;
    DIAG_FIELD(ctx->diag, "leds_cluster_locality_config");
    if (ctx->build->resource->type != RES_ENDPOINTS) {
        diag_error(ctx->diag,
                   "LEDS is only supported when EDS is used. Static cluster %.*s cannot use LEDS.",
                   SV_ARG(ctx->owner));
        return;
    }
    if (m->n_lb_endpoints) {
        diag_error(ctx->diag,
                   "A ClusterLoadAssignment for cluster %.*s cannot include both LEDS (resource: "
                   "%s) and a list of endpoints.",
                   SV_ARG(ctx->owner), l->leds_collection_name);
        return;
    }
    struct buf BUF_AUTO name;
    buf_init(&name);
    DIAG_FIELD(ctx->diag, "leds_collection_name");
    if (collection_parse(sv_cstr(l->leds_collection_name),
                         resource_types[RES_LB_ENDPOINT].proto_name, &name, ctx->diag)) {
        out->leds_name = arena_sv(ctx->arena, buf_pullup(&name, buf_len(&name)));
    }
}

static void leds_source(struct compile_ctx *ctx, const Endpoint__LocalityLbEndpoints *m,
                        struct cla_locality *out) {
    DIAG_FIELD(ctx->diag, "leds_cluster_locality_config.leds_config");
    const Core__ConfigSource *source = m->leds_cluster_locality_config->leds_config;
    if (!source) {
        diag_error(ctx->diag, "value is required");
        return;
    }
    out->leds_source = compile_leds_ref(ctx, out->leds_name, source);
}

static void locality(struct compile_ctx *ctx, const Endpoint__LocalityLbEndpoints *m,
                     struct cla_locality *out) {
    out->priority = m->priority;
    if (m->priority > PRIORITY_MAX) {
        diag_error(ctx->diag, "priority: value must be less than or equal to %u", PRIORITY_MAX);
    }
    out->has_weight = m->load_balancing_weight != NULL;
    out->weight = out->has_weight ? m->load_balancing_weight->value : 0;
    if (m->locality) {
        out->id = (struct locality){keep(ctx, m->locality->region), keep(ctx, m->locality->zone),
                                    keep(ctx, m->locality->sub_zone)};
    }
    if (m->lb_config_case ==
        ENDPOINT__LOCALITY_LB_ENDPOINTS__LB_CONFIG_LEDS_CLUSTER_LOCALITY_CONFIG) {
        discovered_endpoints(ctx, m, out);
        if (out->leds_name.n) {
            leds_source(ctx, m, out);
        }
    }
}

/* lb_endpoints, or the newer list inside load_balancer_endpoints. */
static Endpoint__LbEndpoint **endpoints_of(const Endpoint__LocalityLbEndpoints *m, size_t *n) {
    if (m->lb_config_case == ENDPOINT__LOCALITY_LB_ENDPOINTS__LB_CONFIG_LOAD_BALANCER_ENDPOINTS) {
        *n = m->load_balancer_endpoints->n_lb_endpoints;
        return m->load_balancer_endpoints->lb_endpoints;
    }
    *n = m->n_lb_endpoints;
    return m->lb_endpoints;
}

static uint32_t denominator(int d) {
    if (d == TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__HUNDRED) {
        return 100;
    }
    return d == TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__TEN_THOUSAND ? 10000 : 1000000;
}

static void policy(struct compile_ctx *ctx, const Endpoint__ClusterLoadAssignment__Policy *p,
                   struct cla_config *c) {
    c->overprovisioning_factor = 140;
    if (!p) {
        return;
    }
    DIAG_FIELD(ctx->diag, "policy");
    if (p->overprovisioning_factor) {
        c->overprovisioning_factor = p->overprovisioning_factor->value;
    }
    c->weighted_priority_health = p->weighted_priority_health;
    compile_duration_ms(ctx, p->endpoint_stale_after, 0, &c->stale_after_ms);
    if (p->n_drop_overloads > 1) {
        diag_error(ctx->diag,
                   "Cluster drop_overloads config has %zu categories. Envoy only support one.",
                   p->n_drop_overloads);
    } else if (p->n_drop_overloads == 1 && p->drop_overloads[0]->drop_percentage) {
        const Type__FractionalPercent *f = p->drop_overloads[0]->drop_percentage;
        c->drop_numerator = f->numerator;
        c->drop_denominator = denominator((int)f->denominator);
        c->drop_category = keep(ctx, p->drop_overloads[0]->category);
    }
}

struct cla_config *cla_compile(struct compile_ctx *ctx, const void *msg, bool allow_names) {
    const Endpoint__ClusterLoadAssignment *m = msg;
    unsigned errors = diag_errors(ctx->diag);
    struct cla_config *c = arena_new(ctx->arena, struct cla_config);
    c->cluster_name = sv_is(ctx->owner, m->cluster_name) ? ctx->owner : keep(ctx, m->cluster_name);
    size_t total = 0, n;
    for (size_t i = 0; i < m->n_endpoints; i++) {
        endpoints_of(m->endpoints[i], &n);
        total += n;
    }
    struct cla_endpoint *ep = arena_new_array(ctx->arena, struct cla_endpoint, total);
    struct cla_locality *loc = arena_new_array(ctx->arena, struct cla_locality, m->n_endpoints);
    for (size_t i = 0; i < m->n_endpoints; i++) {
        DIAG_FIELD(ctx->diag, "endpoints[%zu]", i);
        locality(ctx, m->endpoints[i], &loc[i]);
        Endpoint__LbEndpoint **list = endpoints_of(m->endpoints[i], &n);
        for (size_t k = 0; k < n; k++) {
            DIAG_FIELD(ctx->diag, "lb_endpoints[%zu]", k);
            struct cla_endpoint *e = &ep[c->endpoints_n];
            if (endpoint(ctx, list[k], allow_names, e)) {
                e->priority = (uint8_t)loc[i].priority; /* others are errors */
                e->locality = (uint32_t)i;
                c->endpoints_n++;
            }
        }
    }
    c->endpoints = ep;
    c->localities = loc;
    c->localities_n = (unsigned)m->n_endpoints;
    policy(ctx, m->policy, c);
    return diag_errors(ctx->diag) == errors ? c : NULL;
}

bool compile_lb_endpoint(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    struct cla_endpoint *e = arena_new(ctx->arena, struct cla_endpoint);
    unsigned errors = diag_errors(ctx->diag);
    endpoint(ctx, msg, false, e);
    r->endpoint = e;
    return diag_errors(ctx->diag) == errors;
}

bool compile_endpoints(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    r->endpoints = cla_compile(ctx, msg, false);
    return r->endpoints != NULL;
}
