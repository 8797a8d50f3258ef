/* What a gRPC authorization service is told of a request: service.auth.v3.CheckRequest.
 * Threads: worker-local; all memory is the stream's arena. Spec: service.auth.v3.AttributeContext,
 * filled as Envoy fills it. */
#include "filters/common/ext_authz.h"

#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/service_auth.pb-c.h"
#include "proxy/api/tls_info.h"

typedef ServiceAuth__AttributeContext__HttpRequest Http;
typedef ServiceAuth__AttributeContext__HttpRequest__HeadersEntry HeaderEntry;
typedef ServiceAuth__AttributeContext__ContextExtensionsEntry ExtensionEntry;
typedef ServiceAuth__AttributeContext__Peer Peer;

#define BODY_FIELD 11 /* AttributeContext.HttpRequest.body */

static const char *text(struct arena *a, sv s) { return arena_cstr(a, ext_authz_utf8(a, s)); }

/* --- metadata --- */

static Core__Metadata *metadata_of(struct arena *a, const struct kv_metadata *md, const sv *names,
                                   unsigned n) {
    Core__Metadata *m = arena_new(a, Core__Metadata);
    core__metadata__init(m);
    m->filter_metadata = arena_new_array(a, Core__Metadata__FilterMetadataEntry *, n + 1);
    for (unsigned i = 0; md && i < n; i++) {
        const struct kv_value *v = kv_metadata_namespace(md, names[i]);
        if (v && v->kind == KV_STRUCT) {
            Core__Metadata__FilterMetadataEntry *e =
                arena_new(a, Core__Metadata__FilterMetadataEntry);
            core__metadata__filter_metadata_entry__init(e);
            e->key = text(a, names[i]);
            e->value = kv_struct_message(&v->fields, a, ext_authz_utf8);
            m->filter_metadata[m->n_filter_metadata++] = e;
        }
    }
    return m;
}

/* --- peers --- */

static Core__Address *address_of(struct arena *a, const struct addr *from) {
    Core__Address *m = arena_new(a, Core__Address);
    core__address__init(m);
    if (from->family == AF_UNIX) {
        Core__Pipe *pipe = arena_new(a, Core__Pipe);
        core__pipe__init(pipe);
        pipe->path = text(a, sv_cstr(from->path));
        m->address_case = CORE__ADDRESS__ADDRESS_PIPE;
        m->pipe = pipe;
        return m;
    }
    if (from->family == ADDR_INTERNAL) {
        Core__EnvoyInternalAddress *internal = arena_new(a, Core__EnvoyInternalAddress);
        core__envoy_internal_address__init(internal);
        internal->address_name_specifier_case =
            CORE__ENVOY_INTERNAL_ADDRESS__ADDRESS_NAME_SPECIFIER_SERVER_LISTENER_NAME;
        internal->server_listener_name = text(a, addr_internal_listener(from));
        internal->endpoint_id = text(a, addr_endpoint_id(from));
        m->address_case = CORE__ADDRESS__ADDRESS_ENVOY_INTERNAL_ADDRESS;
        m->envoy_internal_address = internal;
        return m;
    }
    char ip[ADDR_STR_MAX];
    size_t n = addr_ip_str(from, ip);
    Core__SocketAddress *s = arena_new(a, Core__SocketAddress);
    core__socket_address__init(s);
    s->address = arena_cstr(a, sv_from(ip, n));
    s->port_specifier_case = CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
    s->port_value = from->port;
    m->address_case = CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS;
    m->socket_address = s;
    return m;
}

/* A certificate's first URI name, else its first DNS name, else its subject. */
static sv principal_of(const struct ssl_info *ssl, enum ssl_list uri, enum ssl_list dns,
                       enum ssl_fact subject) {
    const sv *names = NULL;
    if (ssl_info_list(ssl, uri, &names) || ssl_info_list(ssl, dns, &names)) {
        return names[0];
    }
    return ssl_info_fact(ssl, subject);
}

static Peer *peer_of(struct arena *a, const struct addr *address) {
    Peer *p = arena_new(a, Peer);
    service_auth__attribute_context__peer__init(p);
    p->address = address_of(a, address);
    return p;
}

static void fill_peers(const struct ext_authz_check *c, struct arena *a,
                       ServiceAuth__AttributeContext *out) {
    const struct conn_info *cx = http_conn_info(c->f);
    const struct ssl_info *ssl = cx->conn ? conn_ssl(cx->conn) : NULL;
    out->source = peer_of(a, &cx->remote);
    out->destination = peer_of(a, &cx->local);
    out->source->service =
        text(a, headers_get_name(c->request, SV("x-envoy-downstream-service-cluster")));
    if (c->has_tls_session) {
        out->tls_session = arena_new(a, ServiceAuth__AttributeContext__TLSSession);
        service_auth__attribute_context__tlssession__init(out->tls_session);
        out->tls_session->sni = ssl ? text(a, ssl_info_sni(ssl)) : "";
    }
    if (!ssl) {
        return;
    }
    out->source->principal =
        text(a, principal_of(ssl, SSL_LIST_PEER_URI, SSL_LIST_PEER_DNS, SSL_FACT_PEER_SUBJECT));
    out->destination->principal =
        text(a, principal_of(ssl, SSL_LIST_LOCAL_URI, SSL_LIST_LOCAL_DNS, SSL_FACT_LOCAL_SUBJECT));
    if (c->has_certificate) {
        out->source->certificate = text(a, ssl_info_fact(ssl, SSL_FACT_PEER_URL_PEM));
    }
}

/* --- the request --- */

static void fill_headers(const struct ext_authz_check *c, struct arena *a, Http *out) {
    const struct ext_authz_pair *seen;
    unsigned n = ext_authz_headers(c, &seen);
    if (c->has_raw_headers) {
        out->header_map = arena_new(a, Core__HeaderMap);
        core__header_map__init(out->header_map);
        out->header_map->headers = arena_new_array(a, Core__HeaderValue *, n + 1);
        out->header_map->n_headers = n;
    } else {
        out->headers = arena_new_array(a, HeaderEntry *, n + 1);
        out->n_headers = n;
    }
    for (unsigned i = 0; i < n; i++) {
        if (c->has_raw_headers) {
            Core__HeaderValue *v = arena_new(a, Core__HeaderValue);
            core__header_value__init(v);
            v->key = text(a, seen[i].key);
            v->raw_value = (ProtobufCBinaryData){
                seen[i].value.n, (uint8_t *)(uintptr_t)arena_sv(a, seen[i].value).p};
            out->header_map->headers[i] = v;
        } else {
            out->headers[i] = arena_new(a, HeaderEntry);
            service_auth__attribute_context__http_request__headers_entry__init(out->headers[i]);
            out->headers[i]->key = text(a, seen[i].key);
            out->headers[i]->value = text(a, seen[i].value);
        }
    }
}

/* A string of the message would end at a NUL, so the field is written as its bytes. */
static void fill_text_body(struct arena *a, sv body, Http *out) {
    ProtobufCMessageUnknownField *field = arena_new(a, ProtobufCMessageUnknownField);
    uint8_t *data = (uint8_t *)arena_alloc(a, body.n + 10);
    size_t n = 0;
    for (size_t v = body.n; v || n == 0; v >>= 7) {
        data[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
    }
    memcpy(data + n, body.p, body.n);
    *field = (ProtobufCMessageUnknownField){.tag = BODY_FIELD,
                                            .wire_type = PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED,
                                            .len = n + body.n,
                                            .data = data};
    out->base.n_unknown_fields = 1;
    out->base.unknown_fields = field;
}

static Http *http_of(const struct ext_authz_check *c, struct arena *a) {
    static const char *const protocols[] = {"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"};
    const struct stream_info *si = http_stream_info(c->f);
    Http *m = arena_new(a, Http);
    service_auth__attribute_context__http_request__init(m);
    m->id = arena_printf(a, "%llu", (unsigned long long)si->id).p;
    m->method = text(a, headers_get(c->request, HDR_method));
    m->path = text(a, headers_get(c->request, HDR_path));
    m->host = text(a, headers_get(c->request, HDR_authority));
    m->scheme = text(a, headers_get(c->request, HDR_scheme));
    m->size = (int64_t)si->rx_bytes;
    if (si->has_protocol && si->protocol < ARRAY_LEN(protocols)) {
        m->protocol = protocols[si->protocol];
    }
    fill_headers(c, a, m);
    if (c->has_body && c->packs_as_bytes) {
        m->raw_body = (ProtobufCBinaryData){c->body.n, (uint8_t *)(uintptr_t)c->body.p};
    } else if (c->has_body && c->body.n) {
        fill_text_body(a, ext_authz_utf8(a, c->body), m);
    }
    return m;
}

static ServiceAuth__AttributeContext__Request *request_of(const struct ext_authz_check *c,
                                                          struct arena *a) {
    uint64_t us = http_stream_info(c->f)->start_wall_us;
    ServiceAuth__AttributeContext__Request *m =
        arena_new(a, ServiceAuth__AttributeContext__Request);
    service_auth__attribute_context__request__init(m);
    m->time = arena_new(a, Pb__Timestamp);
    pb__timestamp__init(m->time);
    m->time->seconds = (int64_t)(us / 1000000);
    m->time->nanos = (int32_t)(us % 1000000) * 1000;
    m->http = http_of(c, a);
    return m;
}

static void fill_extensions(const struct ext_authz_check *c, struct arena *a,
                            ServiceAuth__AttributeContext *out) {
    out->n_context_extensions = c->extensions_n;
    out->context_extensions = arena_new_array(a, ExtensionEntry *, c->extensions_n + 1);
    for (unsigned i = 0; i < c->extensions_n; i++) {
        ExtensionEntry *e = arena_new(a, ExtensionEntry);
        service_auth__attribute_context__context_extensions_entry__init(e);
        e->key = text(a, c->extensions[i].key);
        e->value = text(a, c->extensions[i].value);
        out->context_extensions[i] = e;
    }
}

sv ext_authz_check_request(const struct ext_authz_check *c) {
    struct arena *a = http_arena(c->f);
    const struct stream_info *si = http_stream_info(c->f);
    ServiceAuth__AttributeContext *m = arena_new(a, ServiceAuth__AttributeContext);
    service_auth__attribute_context__init(m);
    fill_peers(c, a, m);
    m->request = request_of(c, a);
    fill_extensions(c, a, m);
    m->metadata_context = metadata_of(a, si->metadata, c->namespaces, c->namespaces_n);
    m->route_metadata_context =
        metadata_of(a, si->route_metadata, c->route_namespaces, c->route_namespaces_n);
    ServiceAuth__CheckRequest *out = arena_new(a, ServiceAuth__CheckRequest);
    service_auth__check_request__init(out);
    out->attributes = m;
    return proto_pack(&out->base, a);
}
