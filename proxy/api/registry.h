/* Which extensions this binary has: const tables made by filters/registry.c from
 * filters/filters.def, reached as a pointer from main.c. Lookups go by the config message's type;
 * by name (older names are aliases) only when there is no message, as in Envoy, where a name alone
 * chooses nothing.
 * Threads: immutable, any. */
#ifndef SLUICE_API_REGISTRY_H
#define SLUICE_API_REGISTRY_H

#include "proxy/api/access_logger.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/lb_policy.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/tracer.h"
#include "proxy/api/transport_socket.h"

/* An earlier name of an extension: "envoy.cors" for "envoy.filters.http.cors". */
struct registry_alias {
    sv alias, name;
};
struct registry {
    const struct http_filter_type *const *http_filters;
    unsigned http_filters_n;
    const struct network_filter_type *const *network_filters;
    unsigned network_filters_n;
    const struct listener_filter_type *const *listener_filters;
    unsigned listener_filters_n;
    const struct transport_socket_type *const *transport_sockets;
    unsigned transport_sockets_n;
    const struct access_logger_type *const *access_loggers;
    unsigned access_loggers_n;
    const struct lb_policy_type *const *lb_policies;
    unsigned lb_policies_n;
    const struct tracer_type *const *tracers;
    unsigned tracers_n;
    const struct registry_alias *aliases;
    unsigned aliases_n;
};

/* The extension whose config message (for HTTP filters also: per-route message) is `type_url`, with
 * or without a host part; when type_url is empty, the one called `name`. NULL: not built in. The
 * results live for ever. */
const struct http_filter_type *registry_http_filter(const struct registry *r, sv name, sv type_url);
const struct network_filter_type *registry_network_filter(const struct registry *r, sv name,
                                                          sv type_url);
const struct listener_filter_type *registry_listener_filter(const struct registry *r, sv name,
                                                            sv type_url);
const struct transport_socket_type *registry_transport_socket(const struct registry *r, sv name,
                                                              sv type_url, bool is_downstream);
const struct access_logger_type *registry_access_logger(const struct registry *r, sv name,
                                                        sv type_url);
const struct lb_policy_type *registry_lb_policy(const struct registry *r, sv name, sv type_url);
const struct tracer_type *registry_tracer(const struct registry *r, sv name, sv type_url);

#endif
