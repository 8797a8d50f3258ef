/* Tables of extensions made from filters.def, and lookups in them.
 * Threads: immutable, any. Cold: a lookup walks its table. Not here: what an extension does with
 * its config. */
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
    .aliases = aliases,
    .aliases_n = ARRAY_LEN(aliases) - 1,
};
const struct registry *filters_registry(void) { return &registry; }

/* "type.googleapis.com/pkg.Name" → "pkg.Name" */
static sv type_name(sv url) {
    size_t slash = sv_rfind(url, '/');
    return slash == SIZE_MAX ? url : sv_skip(url, slash + 1);
}

static sv current_name(const struct registry *r, sv name) {
    for (unsigned i = 0; i < r->aliases_n; i++) {
        if (sv_eq(r->aliases[i].alias, name)) {
            return r->aliases[i].name;
        }
    }
    return name;
}

static bool is_type(const char *type, sv wanted) { return type && wanted.n && sv_is(wanted, type); }

/* By message type; by name only when no type is known, as Envoy does. HAS_TYPE and WANTED may look
 * at `t`. */
#define FIND(vec, count, HAS_TYPE, WANTED)                     \
    do {                                                       \
        for (unsigned i_ = 0; i_ < (count); i_++) {            \
            __typeof__((vec)[0]) t = (vec)[i_];                \
            if ((WANTED) && (HAS_TYPE)) {                      \
                return t;                                      \
            }                                                  \
        }                                                      \
        for (unsigned i_ = 0; i_ < (count); i_++) {            \
            __typeof__((vec)[0]) t = (vec)[i_];                \
            if ((WANTED) && !type.n && sv_is(name, t->name)) { \
                return t;                                      \
            }                                                  \
        }                                                      \
        return NULL;                                           \
    } while (0)

const struct http_filter_type *registry_http_filter(const struct registry *r, sv name,
                                                    sv type_url) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->http_filters, r->http_filters_n,
         is_type(t->type_url, type) || is_type(t->route_type_url, type), true);
}

const struct network_filter_type *registry_network_filter(const struct registry *r, sv name,
                                                          sv type_url) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->network_filters, r->network_filters_n, is_type(t->type_url, type), true);
}

const struct listener_filter_type *registry_listener_filter(const struct registry *r, sv name,
                                                            sv type_url) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->listener_filters, r->listener_filters_n, is_type(t->type_url, type), true);
}

const struct transport_socket_type *registry_transport_socket(const struct registry *r, sv name,
                                                              sv type_url, bool is_downstream) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->transport_sockets, r->transport_sockets_n, is_type(t->type_url, type),
         is_downstream ? t->is_downstream : t->is_upstream);
}

const struct access_logger_type *registry_access_logger(const struct registry *r, sv name,
                                                        sv type_url) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->access_loggers, r->access_loggers_n, is_type(t->type_url, type), true);
}

const struct lb_policy_type *registry_lb_policy(const struct registry *r, sv name, sv type_url) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->lb_policies, r->lb_policies_n, is_type(t->type_url, type), true);
}
