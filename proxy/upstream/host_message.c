/* Hosts' facts as messages: see host_message.h. */
#include "proxy/upstream/host_message.h"

#include "proxy/observe/metadata.h"

Core__Address *host_address_message(const struct addr *addr, struct arena *a) {
    Core__Address *m = arena_new(a, Core__Address);
    core__address__init(m);
    if (addr->family == AF_UNIX) {
        m->address_case = CORE__ADDRESS__ADDRESS_PIPE;
        m->pipe = arena_new(a, Core__Pipe);
        core__pipe__init(m->pipe);
        m->pipe->path = addr->path;
        return m;
    }
    if (addr->family == ADDR_INTERNAL) {
        m->address_case = CORE__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS;
        m->envoy_internal_address = arena_new(a, Core__EnvoyInternalAddress);
        core__envoy_internal_address__init(m->envoy_internal_address);
        m->envoy_internal_address->address_name_specifier_case =
            CORE__ENVOY_INTERNAL_ADDRESS__ADDRESS_NAME_SPECIFIER_SERVER_LISTENER_NAME;
        m->envoy_internal_address->server_listener_name =
            arena_cstr(a, addr_internal_listener(addr));
        m->envoy_internal_address->endpoint_id = arena_cstr(a, addr_endpoint_id(addr));
        return m;
    }
    char ip[ADDR_STR_MAX];
    addr_ip_str(addr, ip);
    m->address_case = CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS;
    m->socket_address = arena_new(a, Core__SocketAddress);
    core__socket_address__init(m->socket_address);
    m->socket_address->address = arena_cstr(a, sv_cstr(ip));
    m->socket_address->port_specifier_case = CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
    m->socket_address->port_value = addr->port;
    return m;
}

Core__Locality *host_locality_message(const struct locality *l, struct arena *a) {
    Core__Locality *m = arena_new(a, Core__Locality);
    core__locality__init(m);
    m->region = arena_cstr(a, l->region);
    m->zone = arena_cstr(a, l->zone);
    m->sub_zone = arena_cstr(a, l->sub_zone);
    return m;
}

Pb__Timestamp *host_timestamp_message(uint64_t wall_us, struct arena *a) {
    Pb__Timestamp *m = arena_new(a, Pb__Timestamp);
    pb__timestamp__init(m);
    m->seconds = (int64_t)(wall_us / 1000000);
    m->nanos = (int32_t)(wall_us / 1000 % 1000 * 1000000);
    return m;
}

Core__Metadata *host_metadata_message(const struct kv_metadata *from, struct arena *a) {
    unsigned n = kv_metadata_count(from);
    if (!n) {
        return NULL;
    }
    Core__Metadata *m = arena_new(a, Core__Metadata);
    core__metadata__init(m);
    m->filter_metadata = arena_new_array(a, Core__Metadata__FilterMetadataEntry *, n);
    for (unsigned i = 0; i < n; i++) {
        const struct kv_value *v;
        sv name = kv_metadata_name_at(from, i, &v);
        Core__Metadata__FilterMetadataEntry *e = arena_new(a, Core__Metadata__FilterMetadataEntry);
        core__metadata__filter_metadata_entry__init(e);
        e->key = arena_cstr(a, name);
        e->value = kv_struct_message(&v->fields, a, NULL);
        m->filter_metadata[m->n_filter_metadata++] = e;
    }
    return m;
}
