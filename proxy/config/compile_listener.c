/* Listener → struct listener_config: addresses, listener filters, filter chains and their match.
 * Threads: the config thread. Spec: config.listener.v3.Listener, FilterChain, FilterChainMatch.
 * Not here: network filters' own configs (registry), sockets (net/listener.c). */
#include "proxy/config/listener.h"

#include <xxhash.h>

#include "protos/any.h"
#include "protos/gen/listener.pb-c.h"
#include "protos/wire.h"
#include "proxy/api/extension.h"
#include "proxy/api/registry.h"
#include "proxy/base/runtime.h"
#include "proxy/config/chain_tree.h"
#include "proxy/config/config.h"
#include "proxy/config/socket_config.h"
#include "proxy/net/listener_stats.h"
#include "proxy/route/route_metadata.h"

#define BUFFER_LIMIT_BYTES (1u << 20)
#define PREDICATE_DEPTH_MAX 16u

static sv keep(struct compile_ctx *ctx, const char *s) {
    return *s ? arena_sv(ctx->arena, sv_cstr(s)) : SV_NULL;
}

/* ---- addresses ---- */

static void one_address(struct compile_ctx *ctx, const Listener__Listener *m,
                        const Core__Address *a, struct listener_address *out) {
    if (a && a->address_case == CORE__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS) {
        diag_error(ctx->diag,
                   "use internal_listener field instead of address for internal listeners");
        return;
    }
    compile_address(ctx, a, &out->addr);
    struct sock_opts *o = &out->opts;
    socket_options_compile(ctx, (void *const *)m->socket_options, m->n_socket_options, o);
    tcp_keepalive_compile(m->tcp_keepalive, o);
    o->transparent = m->transparent && m->transparent->value;
    o->freebind = m->freebind && m->freebind->value;
    o->is_v6only = a && a->address_case == CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS &&
                   !a->socket_address->ipv4_compat;
    if (a && a->address_case == CORE__ADDRESS__ADDRESS_PIPE) {
        o->mode = (int)a->pipe->mode;
    }
}

/* It is reached by its name, and nothing of a socket can be told of it. */
static void internal_listener(struct compile_ctx *ctx, const Listener__Listener *m,
                              struct listener_config *c) {
    struct listener_address *v = arena_new(ctx->arena, struct listener_address);
    c->addresses = v;
    c->addresses_n = 1;
    if (!c->name.n || !addr_set_internal(&v->addr, c->name, SV_NULL, ctx->arena)) {
        diag_error(ctx->diag, "name: an internal listener needs one of at most %u bytes",
                   ADDR_INTERNAL_MAX - 1);
    }
    if (m->address || m->n_additional_addresses) {
        diag_error(ctx->diag,
                   "address should not be used when an internal listener config is provided");
    }
    if (m->n_socket_options) {
        diag_error(ctx->diag, "socket_options: an internal listener does not support them");
    }
    const struct compile_field refused[] = {
        {m->transparent != NULL, "transparent"},
        {m->freebind != NULL, "freebind"},
        {m->tcp_backlog_size != NULL, "tcp_backlog_size"},
        {m->enable_reuse_port != NULL, "enable_reuse_port"},
        {m->enable_mptcp, "enable_mptcp"},
        {m->tcp_fast_open_queue_length != NULL, "tcp_fast_open_queue_length"},
        {m->connection_balance_config != NULL, "connection_balance_config"},
    };
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        if (refused[i].is_set) {
            diag_error(ctx->diag, "%s: unsupported tcp listener feature of an internal listener",
                       refused[i].field);
        }
    }
}

static void addresses(struct compile_ctx *ctx, const Listener__Listener *m,
                      struct listener_config *c) {
    if (c->is_internal) {
        internal_listener(ctx, m, c);
        return;
    }
    struct listener_address *v =
        arena_new_array(ctx->arena, struct listener_address, m->n_additional_addresses + 1);
    {
        DIAG_FIELD(ctx->diag, "address");
        one_address(ctx, m, m->address, &v[0]);
    }
    for (size_t i = 0; i < m->n_additional_addresses; i++) {
        DIAG_FIELD(ctx->diag, "additional_addresses[%zu].address", i);
        one_address(ctx, m, m->additional_addresses[i]->address, &v[i + 1]);
    }
    c->addresses = v;
    c->addresses_n = (unsigned)m->n_additional_addresses + 1;
}

/* "0.0.0.0_8080": how Envoy names a listener's stats. */
/* Runtime's envoy.resource_limits.listener.<name>.connection_limit, as it is when the listener is
 * compiled. */
static void connection_limit(struct compile_ctx *ctx, struct listener_config *c) {
    if (c->is_internal) {
        return; /* who dials it was counted where it came in */
    }
    sv key = arena_printf(ctx->arena, "envoy.resource_limits.listener.%.*s.connection_limit",
                          SV_ARG(c->name));
    uint64_t max = runtime_u64(key, 0);
    if (max) {
        c->limit = arena_new(ctx->arena, struct conn_limit);
        c->limit->max = max > UINT32_MAX ? UINT32_MAX : (uint32_t)max;
        c->sock.limit = c->limit;
    }
}

static sv stat_name(struct compile_ctx *ctx, const Listener__Listener *m,
                    const struct listener_config *c) {
    if (*m->stat_prefix) {
        return keep(ctx, m->stat_prefix);
    }
    sv text = c->is_internal ? arena_printf(ctx->arena, "envoy_internal_%.*s", SV_ARG(c->name))
                             : addr_arena_str(&c->addresses[0].addr, ctx->arena);
    char *p = (char *)(uintptr_t)text.p; /* our own copy */
    for (size_t i = 0; i < text.n; i++) {
        if (p[i] == ':') {
            p[i] = '_';
        }
    }
    return text;
}

/* ---- listener filters ---- */

static void predicate(struct compile_ctx *ctx, const Listener__ListenerFilterChainMatchPredicate *m,
                      struct listener_predicate *out, unsigned depth);

static void predicate_list(struct compile_ctx *ctx,
                           Listener__ListenerFilterChainMatchPredicate *const *v, size_t n,
                           enum listener_predicate_kind kind, struct listener_predicate *out,
                           unsigned depth) {
    struct listener_predicate *rules = arena_new_array(ctx->arena, struct listener_predicate, n);
    out->kind = kind;
    out->of = rules;
    out->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        predicate(ctx, v[i], &rules[i], depth + 1);
    }
}

static void predicate(struct compile_ctx *ctx, const Listener__ListenerFilterChainMatchPredicate *m,
                      struct listener_predicate *out, unsigned depth) {
    if (depth > PREDICATE_DEPTH_MAX) {
        diag_error(ctx->diag, "rules are nested more than %u deep", PREDICATE_DEPTH_MAX);
        return;
    }
    switch (m->rule_case) {
    case LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_OR_MATCH:
        predicate_list(ctx, m->or_match->rules, m->or_match->n_rules, LISTENER_PRED_OR, out, depth);
        return;
    case LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_AND_MATCH:
        predicate_list(ctx, m->and_match->rules, m->and_match->n_rules, LISTENER_PRED_AND, out,
                       depth);
        return;
    case LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_NOT_MATCH: {
        Listener__ListenerFilterChainMatchPredicate *one[] = {m->not_match};
        predicate_list(ctx, one, 1, LISTENER_PRED_NOT, out, depth);
        return;
    }
    case LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_ANY_MATCH:
        out->kind = LISTENER_PRED_ANY;
        return;
    case LISTENER__LISTENER_FILTER_CHAIN_MATCH_PREDICATE__RULE_DESTINATION_PORT_RANGE:
        out->kind = LISTENER_PRED_PORT;
        out->port_start = (uint32_t)m->destination_port_range->start;
        out->port_end = (uint32_t)m->destination_port_range->end;
        return;
    default:
        diag_error(ctx->diag, "rule: value is required");
    }
}

static void listener_filter(struct compile_ctx *ctx, const Listener__ListenerFilter *m,
                            struct listener_filter_slot *out) {
    out->slot = SLOT_NONE;
    if (m->filter_disabled) {
        struct listener_predicate *p = arena_new(ctx->arena, struct listener_predicate);
        DIAG_FIELD(ctx->diag, "filter_disabled");
        predicate(ctx, m->filter_disabled, p, 0);
        out->disabled = p;
    }
    if (m->config_type_case == LISTENER__LISTENER_FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        out->slot = compile_extension_ref(ctx, EXTENSION_LISTENER, sv_cstr(m->name),
                                          m->config_discovery, false);
        return;
    }
    const Pb__Any *any = m->config_type_case == LISTENER__LISTENER_FILTER__CONFIG_TYPE_TYPED_CONFIG
                             ? m->typed_config
                             : NULL;
    sv url = any ? any_inner_name(any, ctx->scratch) : SV_NULL;
    out->type = registry_listener_filter(ctx->registry, sv_cstr(m->name), url);
    if (!out->type) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   m->name, SV_ARG(url));
        return;
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg =
        any ? compile_any(ctx, sv_cstr(m->name), any, out->type->type_url, NULL) : NULL;
    if (any && !msg) {
        return;
    }
    out->config = out->type->compile ? out->type->compile(ctx, msg) : NULL;
}

/* use_original_dst brings the filter that restores the destination, behind those listed. */
static void add_original_dst(struct compile_ctx *ctx, struct listener_filter_slot *out) {
    static const sv name = SV_INIT("envoy.filters.listener.original_dst");
    out->slot = SLOT_NONE;
    out->type = registry_listener_filter(ctx->registry, name, SV_NULL);
    if (!out->type) {
        diag_error(ctx->diag, "use_original_dst: '%.*s' is not in this binary", SV_ARG(name));
        return;
    }
    out->config = out->type->compile(ctx, NULL);
}

static void listener_filters(struct compile_ctx *ctx, const Listener__Listener *m,
                             struct listener_config *c) {
    size_t all = m->n_listener_filters + c->use_original_dst;
    struct listener_filter_slot *v = arena_new_array(ctx->arena, struct listener_filter_slot, all);
    for (size_t i = 0; i < m->n_listener_filters; i++) {
        DIAG_FIELD(ctx->diag, "listener_filters[%zu]", i);
        listener_filter(ctx, m->listener_filters[i], &v[i]);
        c->sock.has_discovered |= v[i].slot != SLOT_NONE;
    }
    if (c->use_original_dst) {
        add_original_dst(ctx, &v[m->n_listener_filters]);
    }
    c->sock.filters = v;
    c->sock.filters_n = (unsigned)all;
}

/* ---- filter chains ---- */

static const struct cidr *cidrs(struct compile_ctx *ctx, Core__CidrRange *const *v, size_t n,
                                const char *field) {
    struct cidr *out = arena_new_array(ctx->arena, struct cidr, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        uint32_t bits = v[i]->prefix_len ? v[i]->prefix_len->value : 0;
        if (!cidr_make(sv_cstr(v[i]->address_prefix), bits, &out[i])) {
            diag_error(ctx->diag, "invalid ip/mask combo '%s/%u' (format is <ip>/<# mask bits>)",
                       v[i]->address_prefix, bits);
        }
    }
    return out;
}

static const sv *strings(struct compile_ctx *ctx, const char *const *v, size_t n) {
    sv *out = arena_new_array(ctx->arena, sv, n);
    for (size_t i = 0; i < n; i++) {
        out[i] = arena_sv(ctx->arena, sv_cstr(v[i]));
    }
    return out;
}

static void match_rule(struct compile_ctx *ctx, const Listener__FilterChain *chain,
                       struct chain_match_rule *r) {
    const Listener__FilterChainMatch *m = chain->filter_chain_match;
    if (!m) {
        return;
    }
    DIAG_FIELD(ctx->diag, "filter_chain_match");
    if (*m->address_suffix || m->suffix_len) {
        diag_error(ctx->diag, "address_suffix and suffix_len are not implemented");
    }
    r->destination_port = m->destination_port ? (uint16_t)m->destination_port->value : 0;
    r->source_type = (uint16_t)m->source_type;
    r->prefix_ranges = cidrs(ctx, m->prefix_ranges, m->n_prefix_ranges, "prefix_ranges");
    r->prefix_ranges_n = (unsigned)m->n_prefix_ranges;
    r->direct_source_prefix_ranges =
        cidrs(ctx, m->direct_source_prefix_ranges, m->n_direct_source_prefix_ranges,
              "direct_source_prefix_ranges");
    r->direct_source_n = (unsigned)m->n_direct_source_prefix_ranges;
    r->source_prefix_ranges =
        cidrs(ctx, m->source_prefix_ranges, m->n_source_prefix_ranges, "source_prefix_ranges");
    r->source_n = (unsigned)m->n_source_prefix_ranges;
    uint16_t *ports = arena_new_array(ctx->arena, uint16_t, m->n_source_ports);
    for (size_t i = 0; i < m->n_source_ports; i++) {
        ports[i] = (uint16_t)m->source_ports[i];
    }
    r->source_ports = ports;
    r->source_ports_n = (unsigned)m->n_source_ports;
    r->server_names = strings(ctx, m->server_names, m->n_server_names);
    r->server_names_n = (unsigned)m->n_server_names;
    r->transport_protocol = arena_sv(ctx->arena, sv_cstr(m->transport_protocol));
    r->application_protocols = strings(ctx, m->application_protocols, m->n_application_protocols);
    r->application_protocols_n = (unsigned)m->n_application_protocols;
}

static void network_filter(struct compile_ctx *ctx, const Listener__Filter *m, bool is_last,
                           struct network_filter_slot *out) {
    out->slot = SLOT_NONE;
    if (m->config_type_case == LISTENER__FILTER__CONFIG_TYPE_CONFIG_DISCOVERY) {
        out->slot = compile_extension_ref(ctx, EXTENSION_NETWORK, sv_cstr(m->name),
                                          m->config_discovery, is_last);
        return;
    }
    const Pb__Any *any =
        m->config_type_case == LISTENER__FILTER__CONFIG_TYPE_TYPED_CONFIG ? m->typed_config : NULL;
    sv url = any ? any_inner_name(any, ctx->scratch) : SV_NULL;
    out->type = registry_network_filter(ctx->registry, sv_cstr(m->name), url);
    if (!out->type) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   m->name, SV_ARG(url));
        return;
    }
    compile_check_terminal(ctx, sv_cstr(m->name), out->type->name, out->type->is_terminal, is_last,
                           "network");
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg =
        any ? compile_any(ctx, sv_cstr(m->name), any, out->type->type_url, NULL) : NULL;
    if (!any || msg) {
        out->config = out->type->compile ? out->type->compile(ctx, msg) : NULL;
    }
}

static void network_filters(struct compile_ctx *ctx, const Listener__FilterChain *m,
                            struct net_chain_config *net) {
    struct network_filter_slot *v =
        arena_new_array(ctx->arena, struct network_filter_slot, m->n_filters);
    for (size_t i = 0; i < m->n_filters; i++) {
        DIAG_FIELD(ctx->diag, "filters[%zu]", i);
        network_filter(ctx, m->filters[i], i + 1 == m->n_filters, &v[i]);
        net->has_discovered |= v[i].slot != SLOT_NONE;
    }
    net->filters = v;
    net->n = (unsigned)m->n_filters;
}

static void chain_hash(struct compile_ctx *ctx, const Listener__FilterChain *m,
                       const struct listener_config *c, struct chain_config *out) {
    struct arena a;
    arena_init(&a, 0);
    sv bytes = proto_pack(&m->base, &a);
    XXH128_hash_t h =
        XXH3_128bits_withSeed(bytes.p, bytes.n, c->buffer_limit_bytes + c->traffic_direction);
    out->hash[0] = h.low64;
    out->hash[1] = h.high64;
    arena_fini(&a);
    (void)ctx;
}

static void filter_chain(struct compile_ctx *ctx, const Listener__FilterChain *m,
                         struct listener_config *c, struct resource *r, struct chain_config *out) {
    struct net_chain_config *net = &out->net;
    net->pin = &r->shared;
    net->name = keep(ctx, m->name);
    net->listener_name = c->name;
    net->traffic_direction = c->traffic_direction;
    net->buffer_limit_bytes = c->buffer_limit_bytes;
    net->bypasses_overload = c->sock.bypasses_overload;
    net->listener = c;
    compile_duration_ms(ctx, m->transport_socket_connect_timeout, 0,
                        &net->transport_connect_timeout_ms);
    if (m->filter_chain_match) {
        ctx->server_names = (const char *const *)m->filter_chain_match->server_names;
        ctx->server_names_n = m->filter_chain_match->n_server_names;
    }
    out->transport = compile_transport_socket(ctx, m->transport_socket);
    ctx->server_names = NULL;
    ctx->server_names_n = 0;
    if (m->use_proxy_proto && m->use_proxy_proto->value) {
        diag_error(ctx->diag, "use_proxy_proto is not supported: add the listener filter "
                              "envoy.filters.listener.proxy_protocol");
    }
    network_filters(ctx, m, net);
    chain_hash(ctx, m, c, out);
}

static void filter_chains(struct compile_ctx *ctx, const Listener__Listener *m,
                          struct listener_config *c, struct resource *r) {
    size_t n = m->n_filter_chains + (m->default_filter_chain != NULL);
    if (n == 0 && !m->fcds_config) {
        diag_error(ctx->diag, "no filter chains specified");
    }
    struct chain_config *v = arena_new_array(ctx->arena, struct chain_config, n);
    struct chain_match_rule *rules =
        arena_new_array(ctx->arena, struct chain_match_rule, m->n_filter_chains);
    for (size_t i = 0; i < m->n_filter_chains; i++) {
        DIAG_FIELD(ctx->diag, "filter_chains[%zu]", i);
        match_rule(ctx, m->filter_chains[i], &rules[i]);
        filter_chain(ctx, m->filter_chains[i], c, r, &v[i]);
        rules[i].name = v[i].net.name;
    }
    if (m->default_filter_chain) {
        DIAG_FIELD(ctx->diag, "default_filter_chain");
        filter_chain(ctx, m->default_filter_chain, c, r, &v[n - 1]);
        c->has_default_chain = true;
    }
    c->chains = v;
    c->chains_n = (unsigned)n;
    if (m->filter_chain_matcher) {
        c->tree = chain_tree_compile(ctx, m);
        return;
    }
    c->match = chain_match_build(ctx->arena, rules, (unsigned)m->n_filter_chains,
                                 c->has_default_chain ? (uint32_t)n - 1 : CHAIN_NONE, ctx->diag);
    for (size_t i = 0; i < m->n_filter_chains; i++) {
        rules[i].name = SV_NULL; /* was for messages only, and goes with the listener's message */
    }
}

/* ---- the rest ---- */

static void refuse_unsupported(struct compile_ctx *ctx, const Listener__Listener *m) {
    const struct compile_field refused[] = {
        {m->fcds_config != NULL, "fcds_config"},
        {m->udp_listener_config != NULL, "udp_listener_config"},
        {m->api_listener != NULL, "api_listener"},
    };
    compile_refuse_fields(ctx, refused, ARRAY_LEN(refused));
    const Listener__Listener__ConnectionBalanceConfig *b = m->connection_balance_config;
    if (b && b->balance_type_case ==
                 LISTENER__LISTENER__CONNECTION_BALANCE_CONFIG__BALANCE_TYPE_EXTEND_BALANCE) {
        diag_error(ctx->diag, "connection_balance_config.extend_balance: not supported");
    }
    const struct compile_field unhonoured[] = {
        {m->enable_mptcp, "enable_mptcp"},
        {m->tcp_fast_open_queue_length != NULL, "tcp_fast_open_queue_length"},
        {m->stats_matcher != NULL, "stats_matcher"},
        {m->per_connection_buffer_high_watermark_timeout != NULL,
         "per_connection_buffer_high_watermark_timeout"},
    };
    compile_unhonoured_fields(ctx, unhonoured, ARRAY_LEN(unhonoured));
}

static struct conn_balance *exact_balance(struct compile_ctx *ctx, const Listener__Listener *m) {
    if (!m->connection_balance_config) {
        return NULL;
    }
    struct conn_balance *b = arena_new(ctx->arena, struct conn_balance);
    b->n = stats_store_threads(ctx->stats);
    b->active = arena_new_array(ctx->arena, uint32_t, b->n);
    return b;
}

static void settings(struct compile_ctx *ctx, const Listener__Listener *m,
                     struct listener_config *c) {
    c->is_static = ctx->is_static;
    c->is_internal =
        m->listener_specifier_case == LISTENER__LISTENER__LISTENER_SPECIFIER_INTERNAL_LISTENER;
    c->sock.is_internal = c->is_internal;
    c->traffic_direction = (uint8_t)m->traffic_direction;
    c->modify_only_drain = m->drain_type == LISTENER__LISTENER__DRAIN_TYPE__MODIFY_ONLY;
    c->bind_to_port = !c->is_internal && !(m->bind_to_port && !m->bind_to_port->value) &&
                      !(m->deprecated_v1 && m->deprecated_v1->bind_to_port &&
                        !m->deprecated_v1->bind_to_port->value);
    c->use_original_dst = m->use_original_dst && m->use_original_dst->value;
    c->reuse_port = m->enable_reuse_port ? m->enable_reuse_port->value : true;
    c->sock.bypasses_overload = m->bypass_overload_manager;
    c->sock.global_limit =
        m->ignore_global_conn_limit || c->is_internal ? NULL : ctx->build->config->connections;
    c->sock.continue_on_filters_timeout = m->continue_on_listener_filters_timeout;
    c->sock.balance = exact_balance(ctx, m);
    c->backlog = m->tcp_backlog_size ? (int)m->tcp_backlog_size->value : 4096;
    c->buffer_limit_bytes = m->per_connection_buffer_limit_bytes
                                ? m->per_connection_buffer_limit_bytes->value
                                : BUFFER_LIMIT_BYTES;
    c->sock.accepts_per_event_max = m->max_connections_to_accept_per_socket_event
                                        ? m->max_connections_to_accept_per_socket_event->value
                                        : 0;
    DIAG_FIELD(ctx->diag, "listener_filters_timeout");
    compile_duration_ms(ctx, m->listener_filters_timeout, LISTENER_FILTERS_TIMEOUT_MS,
                        &c->sock.filters_timeout_ms);
}

bool compile_listener(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    const Listener__Listener *m = msg;
    struct listener_config *c = arena_new(ctx->arena, struct listener_config);
    struct config *cfg = ctx->build->config;
    r->listener = c;
    ctx->is_downstream = true;
    c->name = r->name;
    c->sock.name = r->name;
    c->sock.pin = &r->shared;
    c->slot = names_acquire(cfg->listeners,
                            r->name.n ? r->name : arena_printf(ctx->arena, "%p", (void *)c));
    names_release_with(cfg->listeners, c->slot, ctx->arena);
    refuse_unsupported(ctx, m);
    settings(ctx, m, c);
    addresses(ctx, m, c);
    c->stat_name = stat_name(ctx, m, c);
    connection_limit(ctx, c);
    sv prefix = arena_printf(ctx->arena, "listener.%.*s.", SV_ARG(c->stat_name));
    c->stats = stats_scope_get(ctx->stats, &listener_stats_group, prefix);
    arena_on_fini(ctx->arena, (void (*)(void *))stats_scope_unref, c->stats);
    ctx->stat_prefix = stats_scope_prefix(c->stats);
    c->metadata = route_metadata_compile(ctx, m->metadata);
    listener_filters(ctx, m, c);
    filter_chains(ctx, m, c, r);
    c->access_logs = access_logs_compile(ctx, (const void *const *)m->access_log, m->n_access_log);
    return diag_ok(ctx->diag);
}

/* ---- comparing ---- */

static bool same_opts(const struct sock_opts *a, const struct sock_opts *b) {
    if (a->n != b->n || a->transparent != b->transparent || a->freebind != b->freebind ||
        a->is_v6only != b->is_v6only) {
        return false;
    }
    for (unsigned i = 0; i < a->n; i++) {
        const struct sock_option *x = &a->v[i], *y = &b->v[i];
        if (x->level != y->level || x->name != y->name || x->state != y->state ||
            x->is_int != y->is_int || x->int_value != y->int_value ||
            !sv_eq(x->buf_value, y->buf_value)) {
            return false;
        }
    }
    return true;
}

bool listener_same_sockets(const struct listener_config *a, const struct listener_config *b) {
    if (a->addresses_n != b->addresses_n || a->reuse_port != b->reuse_port ||
        a->bind_to_port != b->bind_to_port) {
        return false;
    }
    for (unsigned i = 0; i < a->addresses_n; i++) {
        if (!addr_eq(&a->addresses[i].addr, &b->addresses[i].addr) ||
            !same_opts(&a->addresses[i].opts, &b->addresses[i].opts)) {
            return false;
        }
    }
    return true;
}

bool listener_has_chain(const struct listener_config *c, const struct chain_config *like) {
    for (unsigned i = 0; i < c->chains_n; i++) {
        if (c->chains[i].hash[0] == like->hash[0] && c->chains[i].hash[1] == like->hash[1]) {
            return true;
        }
    }
    return false;
}

#define FIELD_FILTER_CHAINS 3u
#define FIELD_DEFAULT_FILTER_CHAIN 25u
#define FIELD_FILTER_CHAIN_MATCHER 32u

/* The next field that is not about filter chains, as it is written. Empty: there is none. */
static sv next_but_chains(sv *wire) {
    struct wire_field f;
    for (sv from = *wire; wire_eat_field(wire, &f); from = *wire) {
        if (f.number != FIELD_FILTER_CHAINS && f.number != FIELD_DEFAULT_FILTER_CHAIN &&
            f.number != FIELD_FILTER_CHAIN_MATCHER) {
            return sv_sub(from, 0, from.n - wire->n);
        }
    }
    return SV_NULL;
}

bool listener_same_but_chains(sv a, sv b) {
    sv x, y;
    do {
        x = next_but_chains(&a);
        y = next_but_chains(&b);
    } while (x.n && sv_eq(x, y));
    return !x.n && !y.n;
}
