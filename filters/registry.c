/* Tables of this binary's extensions, made from filters.def.
 * Threads: immutable, any. Not here: lookups (registry_lookup.c), what an extension does with its
 * config. */
#include "filters/registry.h"

#include "proxy/base/check.h"

/* --- declarations --- */
#define FILTER_HTTP(symbol, name) extern const struct http_filter_type symbol##_http_filter;
#define FILTER_NETWORK(symbol, name) \
    extern const struct network_filter_type symbol##_network_filter;
#define FILTER_LISTENER(symbol, name) \
    extern const struct listener_filter_type symbol##_listener_filter;
#define FILTER_TRANSPORT(symbol, name) \
    extern const struct transport_socket_type symbol##_transport_socket;
#define FILTER_ACCESS_LOGGER(symbol, name) \
    extern const struct access_logger_type symbol##_access_logger;
#define FILTER_LB(symbol, name) extern const struct lb_policy_type symbol##_lb_policy;
#define FILTER_TRACER(symbol, name) extern const struct tracer_type symbol##_tracer;
#include "filters/filters.def"

/* --- tables; each ends with NULL so that none is empty --- */
static const struct http_filter_type *const http_filters[] = {
#define FILTER_HTTP(symbol, name) &symbol##_http_filter,
#include "filters/filters.def"
    NULL};
static const struct network_filter_type *const network_filters[] = {
#define FILTER_NETWORK(symbol, name) &symbol##_network_filter,
#include "filters/filters.def"
    NULL};
static const struct listener_filter_type *const listener_filters[] = {
#define FILTER_LISTENER(symbol, name) &symbol##_listener_filter,
#include "filters/filters.def"
    NULL};
static const struct transport_socket_type *const transport_sockets[] = {
#define FILTER_TRANSPORT(symbol, name) &symbol##_transport_socket,
#include "filters/filters.def"
    NULL};
static const struct access_logger_type *const access_loggers[] = {
#define FILTER_ACCESS_LOGGER(symbol, name) &symbol##_access_logger,
#include "filters/filters.def"
    NULL};
static const struct lb_policy_type *const lb_policies[] = {
#define FILTER_LB(symbol, name) &symbol##_lb_policy,
#include "filters/filters.def"
    NULL};
static const struct tracer_type *const tracers[] = {
#define FILTER_TRACER(symbol, name) &symbol##_tracer,
#include "filters/filters.def"
    NULL};
static const struct registry_alias aliases[] = {
#define FILTER_ALIAS(alias, name) {SV_INIT("envoy." alias), SV_INIT("envoy." name)},
#include "filters/filters.def"
    {SV_INIT(""), SV_INIT("")}};

static const struct registry registry = {
    .http_filters = http_filters,
    .http_filters_n = ARRAY_LEN(http_filters) - 1,
    .network_filters = network_filters,
    .network_filters_n = ARRAY_LEN(network_filters) - 1,
    .listener_filters = listener_filters,
    .listener_filters_n = ARRAY_LEN(listener_filters) - 1,
    .transport_sockets = transport_sockets,
    .transport_sockets_n = ARRAY_LEN(transport_sockets) - 1,
    .access_loggers = access_loggers,
    .access_loggers_n = ARRAY_LEN(access_loggers) - 1,
    .lb_policies = lb_policies,
    .lb_policies_n = ARRAY_LEN(lb_policies) - 1,
    .tracers = tracers,
    .tracers_n = ARRAY_LEN(tracers) - 1,
    .aliases = aliases,
    .aliases_n = ARRAY_LEN(aliases) - 1,
};
const struct registry *filters_registry(void) { return &registry; }
