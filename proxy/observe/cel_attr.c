/* Envoy's attributes for CEL: request, response, connection, upstream, source, destination,
 * metadata, filter_state, xds; Istio's node and peers. Threads: any that may read the stream_info.
 * An attribute that is not known (yet) is absent: "no such key". */
#include "proxy/observe/cel_internal.h"

#include "protos/gen/core.pb-c.h"
#include "proxy/net/conn.h"
#include "proxy/net/tls.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"

enum root {
    ROOT_REQUEST,
    ROOT_RESPONSE,
    ROOT_SOURCE,
    ROOT_DESTINATION,
    ROOT_CONNECTION,
    ROOT_UPSTREAM,
    ROOT_XDS,
    ROOT_METADATA,
    ROOT_FILTER_STATE,
    ROOT_UPSTREAM_FILTER_STATE,
    ROOT_NODE,
    ROOT_DOWNSTREAM_PEER,
    ROOT_UPSTREAM_PEER,
};
static const char *const root_names[] = {"request",      "response",
                                         "source",       "destination",
                                         "connection",   "upstream",
                                         "xds",          "metadata",
                                         "filter_state", "upstream_filter_state",
                                         "node",         "downstream_peer",
                                         "upstream_peer"};

bool cel_root_find(sv name, uint8_t *root) {
    for (uint8_t i = 0; i < ARRAY_LEN(root_names); i++) {
        if (sv_is(name, root_names[i])) {
            *root = i;
            return true;
        }
    }
    return false;
}

static struct cel_value absent(void) { return cel_error("no such key"); }

static struct cel_value header_map(const struct headers *h) {
    return h ? (struct cel_value){.kind = CEL_MAP, .map = CEL_MAP_HEADERS, .headers = h} : absent();
}
static struct cel_value metadata_map(const struct kv_metadata *m) {
    return (struct cel_value){.kind = CEL_MAP, .map = CEL_MAP_METADATA, .metadata = m};
}

/* --- the node --- */

static void set_text(struct kv_value *fields, struct arena *a, const char *key, const char *text) {
    struct kv_value v = kv_string(sv_cstr(text));
    kv_set(fields, a, sv_cstr(key), &v);
}

/* config.core.v3.Node: what identifies this proxy. One for all expressions. */
static void *make_node(struct compile_ctx *ctx, struct arena *a) {
    const Core__Node *m = compile_node(ctx);
    struct kv_value *node = arena_new(a, struct kv_value), part = kv_empty_struct();
    *node = kv_empty_struct();
    if (!m) {
        return node;
    }
    set_text(node, a, "id", m->id);
    set_text(node, a, "cluster", m->cluster);
    if (m->locality) {
        set_text(&part, a, "region", m->locality->region);
        set_text(&part, a, "zone", m->locality->zone);
        set_text(&part, a, "sub_zone", m->locality->sub_zone);
    }
    kv_set(node, a, SV("locality"), &part);
    part = m->metadata ? kv_from_struct(m->metadata, a) : kv_empty_struct();
    kv_set(node, a, SV("metadata"), &part);
    return node;
}

const struct cel *cel_make(struct compile_ctx *ctx, const struct cel_node *root) {
    struct cel *c = arena_new(ctx->arena, struct cel);
    *c = (struct cel){root, compile_shared(ctx, "cel.node", make_node)};
    return c;
}

/* What Istio's peer exchange found out about who is at the other end. */
static struct cel_value peer(const struct cel_run *r, bool is_downstream) {
    sv name = is_downstream ? SV("downstream_peer") : SV("upstream_peer");
    const struct filter_state_object *o = filter_state_get(r->si->filter_state, name);
    if (!o && !is_downstream) {
        o = filter_state_get(r->si->up.filter_state, name);
    }
    return o && o->typed ? cel_from_kv(o->typed, r->arena) : absent();
}

struct cel_value cel_root_value(struct cel_run *r, uint8_t root) {
    struct cel_value v = {.kind = CEL_MAP, .map = CEL_MAP_ROOT, .root = root};
    if (root == ROOT_NODE) {
        return cel_from_kv(r->proxy_node, r->arena);
    }
    if (root == ROOT_DOWNSTREAM_PEER || root == ROOT_UPSTREAM_PEER) {
        return peer(r, root == ROOT_DOWNSTREAM_PEER);
    }
    if (root == ROOT_METADATA) {
        return metadata_map(r->si->metadata);
    }
    if (root == ROOT_FILTER_STATE || root == ROOT_UPSTREAM_FILTER_STATE) {
        v.map = CEL_MAP_STATE;
        v.state = root == ROOT_FILTER_STATE ? r->si->filter_state : r->si->up.filter_state;
    }
    return v;
}

static struct cel_value duration_us(uint64_t us) { return cel_duration((int64_t)us * 1000); }
static struct cel_value header_value(const struct headers *h, enum header_id id) {
    sv v = h ? headers_get(h, id) : SV_NULL;
    return v.p ? cel_string(v) : absent();
}

/* --- request and response --- */

static sv path_of(const struct stream_info *si) {
    return si->request ? headers_get(si->request, HDR_path) : SV_NULL;
}
static sv without_fragment(sv path) { return sv_sub(path, 0, sv_find(path, '#')); }

static struct cel_value request_sizes(const struct stream_info *si, bool is_total) {
    uint64_t declared;
    sv length = si->request ? headers_get(si->request, HDR_content_length) : SV_NULL;
    if (is_total) {
        return cel_int((int64_t)(si->rx_bytes + (si->request ? si->request->bytes : 0)));
    }
    return cel_int(
        (int64_t)(sv_to_u64(length, &declared) && declared <= INT64_MAX ? declared : si->rx_bytes));
}

static struct cel_value protocol_of(const struct stream_info *si) {
    static const char *const names[] = {"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"};
    return si->has_protocol ? cel_string(sv_cstr(names[si->protocol])) : absent();
}

static struct cel_value request_get(struct cel_run *r, sv name) {
    static const struct {
        const char *name;
        enum header_id id;
    } from_header[] = {{"path", HDR_path},       {"host", HDR_authority},
                       {"scheme", HDR_scheme},   {"method", HDR_method},
                       {"referer", HDR_referer}, {"useragent", HDR_user_agent},
                       {"id", HDR_x_request_id}};
    const struct stream_info *si = r->si;
    for (size_t i = 0; i < ARRAY_LEN(from_header); i++) {
        if (sv_is(name, from_header[i].name)) {
            return header_value(si->request, from_header[i].id);
        }
    }
    sv path = without_fragment(path_of(si));
    size_t query = sv_find(path, '?');
    if (sv_is(name, "headers")) {
        return header_map(si->request);
    }
    if (sv_is(name, "url_path")) {
        return path.p ? cel_string(sv_sub(path, 0, query)) : absent();
    }
    if (sv_is(name, "query")) {
        sv from = query == SIZE_MAX ? SV("") : sv_skip(path, query + 1);
        return path.p ? cel_string(from) : absent();
    }
    if (sv_is(name, "time")) {
        return (struct cel_value){.kind = CEL_TIMESTAMP, .i = (int64_t)si->start_wall_us * 1000};
    }
    if (sv_is(name, "duration")) {
        return si->end_us ? duration_us(si->end_us - si->start_us) : absent();
    }
    if (sv_is(name, "size") || sv_is(name, "total_size")) {
        return request_sizes(si, name.n > 4);
    }
    return sv_is(name, "protocol") ? protocol_of(si) : absent();
}

static struct cel_value response_sizes(const struct stream_info *si, bool is_total) {
    uint64_t more =
        (si->response ? si->response->bytes : 0) + (si->trailers ? si->trailers->bytes : 0);
    return cel_int((int64_t)(si->tx_bytes + (is_total ? more : 0)));
}
static struct cel_value backend_latency(const struct stream_info *si) {
    bool known = si->up.first_tx_us && si->up.last_rx_us >= si->up.first_tx_us;
    return known ? duration_us(si->up.last_rx_us - si->up.first_tx_us) : absent();
}

static struct cel_value response_get(struct cel_run *r, sv name) {
    const struct stream_info *si = r->si;
    uint64_t status;
    if (sv_is(name, "code")) {
        return si->response_code ? cel_int(si->response_code) : absent();
    }
    if (sv_is(name, "code_details")) {
        return cel_string_or_absent(si->response_code_details);
    }
    if (sv_is(name, "flags")) {
        return cel_int((int64_t)si->flags);
    }
    if (sv_is(name, "grpc_status")) {
        return stream_grpc_status(si, &status) && status <= INT64_MAX ? cel_int((int64_t)status)
                                                                      : absent();
    }
    if (sv_is(name, "headers")) {
        return header_map(si->response);
    }
    if (sv_is(name, "trailers")) {
        return header_map(si->trailers);
    }
    if (sv_is(name, "size") || sv_is(name, "total_size")) {
        return response_sizes(si, name.n > 4);
    }
    return sv_is(name, "backend_latency") ? backend_latency(si) : absent();
}

/* --- addresses and connections --- */

static struct cel_value address_get(struct cel_run *r, const struct addr *a, sv name) {
    if (!a || a->family == AF_UNSPEC) {
        return absent();
    }
    if (sv_is(name, "address")) {
        return cel_string(addr_arena_str(a, r->arena));
    }
    return sv_is(name, "port") && addr_is_ip(a) ? cel_int(a->port) : absent();
}

static struct cel_value first_of(const struct ssl_info *ssl, enum ssl_list list) {
    const sv *names = NULL;
    unsigned n = ssl_info_list(ssl, list, &names);
    return n ? cel_string(names[0]) : absent();
}
/* Attributes of TLS that both sides have. */
static struct cel_value tls_get(const struct ssl_info *ssl, sv name) {
    static const struct {
        const char *name;
        int fact, list; /* one of them, the other -1 */
    } attributes[] = {
        {"subject_local_certificate", SSL_FACT_LOCAL_SUBJECT, -1},
        {"subject_peer_certificate", SSL_FACT_PEER_SUBJECT, -1},
        {"sha256_peer_certificate_digest", SSL_FACT_PEER_SHA256, -1},
        {"uri_san_local_certificate", -1, SSL_LIST_LOCAL_URI},
        {"uri_san_peer_certificate", -1, SSL_LIST_PEER_URI},
        {"dns_san_local_certificate", -1, SSL_LIST_LOCAL_DNS},
        {"dns_san_peer_certificate", -1, SSL_LIST_PEER_DNS},
    };
    if (!ssl) {
        return absent();
    }
    if (sv_is(name, "tls_version")) {
        return cel_string_or_absent(ssl_info_version(ssl));
    }
    for (size_t i = 0; i < ARRAY_LEN(attributes); i++) {
        if (sv_is(name, attributes[i].name)) {
            return attributes[i].list < 0
                       ? cel_string_or_absent(ssl_info_fact(ssl, (enum ssl_fact)attributes[i].fact))
                       : first_of(ssl, (enum ssl_list)attributes[i].list);
        }
    }
    return absent();
}

static struct cel_value connection_get(struct cel_run *r, sv name) {
    const struct conn_info *cx = r->si->cx;
    if (!cx) {
        return absent();
    }
    const struct ssl_info *ssl = cx->conn ? conn_ssl(cx->conn) : NULL;
    if (sv_is(name, "id")) {
        return cel_uint(cx->id);
    }
    if (sv_is(name, "mtls")) {
        return cel_bool(ssl && ssl_info_has_peer_cert(ssl));
    }
    if (sv_is(name, "requested_server_name")) {
        return cel_string(cx->server_name);
    }
    if (sv_is(name, "termination_details")) {
        return cx->termination_details ? cel_string(sv_cstr(cx->termination_details)) : absent();
    }
    if (sv_is(name, "transport_failure_reason")) {
        return cx->conn ? cel_string_or_absent(conn_transport_failure(cx->conn)) : absent();
    }
    return tls_get(ssl, name);
}

static struct cel_value upstream_get(struct cel_run *r, sv name) {
    const struct upstream_info *up = &r->si->up;
    const struct observe_hooks *hooks = observe_hooks();
    if (sv_is(name, "address") || sv_is(name, "port")) {
        const struct addr *a = up->host && hooks->host_addr ? hooks->host_addr(up->host) : NULL;
        return address_get(r, a, name);
    }
    if (sv_is(name, "local_address")) {
        return address_get(r, &up->local, SV("address"));
    }
    if (sv_is(name, "transport_failure_reason")) {
        return cel_string_or_absent(up->transport_failure);
    }
    if (sv_is(name, "request_attempt_count")) {
        return cel_uint(up->attempts);
    }
    if (sv_is(name, "cx_pool_ready_duration")) {
        bool known = up->pool_ready_us >= r->si->start_us && up->pool_ready_us;
        return known ? duration_us(up->pool_ready_us - r->si->start_us) : absent();
    }
    return tls_get(up->ssl, name);
}

/* --- xds --- */

static struct cel_value host_metadata(const struct upstream_info *up) {
    const struct observe_hooks *hooks = observe_hooks();
    const struct kv_metadata *m =
        up->host && hooks->host_metadata ? hooks->host_metadata(up->host) : NULL;
    return m ? metadata_map(m) : absent();
}

static struct cel_value xds_get(struct cel_run *r, sv name) {
    const struct stream_info *si = r->si;
    const struct {
        const char *name;
        sv text;
    } texts[] = {
        {"cluster_name", si->cluster_name},
        {"route_name", si->route_name},
        {"virtual_host_name", si->vhost_name},
        {"filter_chain_name", si->cx ? si->cx->filter_chain_name : SV_NULL},
    };
    const struct {
        const char *name;
        const struct kv_metadata *metadata;
    } trees[] = {
        {"cluster_metadata", si->cluster_metadata},
        {"route_metadata", si->route_metadata},
        {"virtual_host_metadata", si->vhost_metadata},
        {"listener_metadata", si->cx ? si->cx->listener_metadata : NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        if (sv_is(name, texts[i].name)) {
            return cel_string_or_absent(texts[i].text);
        }
        if (sv_is(name, trees[i].name)) {
            return trees[i].metadata ? metadata_map(trees[i].metadata) : absent();
        }
    }
    if (sv_is(name, "listener_direction")) {
        return si->cx ? cel_int(si->cx->traffic_direction) : absent();
    }
    if (sv_is(name, "node")) {
        return cel_from_kv(r->proxy_node, r->arena);
    }
    return sv_is(name, "upstream_host_metadata") ? host_metadata(&si->up) : absent();
}

struct cel_value cel_root_get(struct cel_run *r, uint8_t root, sv name) {
    const struct stream_info *si = r->si;
    switch ((enum root)root) {
    case ROOT_REQUEST:
        return request_get(r, name);
    case ROOT_RESPONSE:
        return response_get(r, name);
    case ROOT_SOURCE:
        return address_get(r, si->remote ? si->remote : si->cx ? &si->cx->remote : NULL, name);
    case ROOT_DESTINATION:
        return address_get(r, si->cx ? &si->cx->local : NULL, name);
    case ROOT_CONNECTION:
        return connection_get(r, name);
    case ROOT_UPSTREAM:
        return upstream_get(r, name);
    case ROOT_XDS:
        return xds_get(r, name);
    case ROOT_METADATA:
    case ROOT_FILTER_STATE:
    case ROOT_UPSTREAM_FILTER_STATE:
    case ROOT_NODE:
    case ROOT_DOWNSTREAM_PEER:
    case ROOT_UPSTREAM_PEER:
        break;
    }
    return absent();
}
