/* Lookups in a registry, whatever is in it.
 * Threads: any. Cold: a lookup walks its table. Not here: this binary's own registry
 * (registry.c). */
#include "proxy/api/registry.h"

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

const struct tracer_type *registry_tracer(const struct registry *r, sv name, sv type_url) {
    sv type = type_name(type_url);
    name = current_name(r, name);
    FIND(r->tracers, r->tracers_n, is_type(t->type_url, type), true);
}
