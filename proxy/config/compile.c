/* What compile functions are given (api/compile.h): references by name, transport sockets, typed
 * configs, data sources.
 * Threads: the config thread. Not here: the resource types themselves (compile_*.c). */
#include "proxy/api/compile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protos/any.h"
#include "protos/findings.h"
#include "protos/gen/core.pb-c.h"
#include "protos/pb_rules.h"
#include "proxy/api/registry.h"
#include "proxy/api/transport_socket.h"
#include "proxy/config/build_lists.h"
#include "proxy/config/cluster_compile.h"
#include "proxy/config/config.h"
#include "proxy/net/addr.h"
#include "proxy/net/transport.h"
#include "proxy/upstream/dns_cache.h"

#define DATA_SOURCE_FILE_MAX (16u << 20)

/* ---- what all resources share ---- */

const void *compile_node(struct compile_ctx *ctx) { return ctx->build->config->node; }
const void *compile_default_tracer(struct compile_ctx *ctx) {
    return ctx->build->config->default_tracer;
}

void *compile_shared(struct compile_ctx *ctx, const char *key,
                     void *(*make)(struct compile_ctx *ctx, struct arena *a)) {
    struct config *c = ctx->build->config;
    void *have = map_get(&c->shared, sv_cstr(key));
    if (!have) {
        have = make(ctx, &c->shared_arena);
        map_put(&c->shared, sv_cstr(key), have);
    }
    return have;
}

struct dns_caches *compile_dns_caches(struct compile_ctx *ctx) {
    return ctx->build->config->dns_caches;
}

/* ---- references ---- */

/* The name is copied into `a`; a NULL: it lives as long as the resource. */
static struct resource_ref *add_ref(struct ref_list *l, enum resource_type t, sv name,
                                    const struct config_source *src, slot_t slot, struct arena *a) {
    for (size_t i = 0; i < l->v.n; i++) {
        struct resource_ref *have = &l->v.p[i];
        if (have->type == t && have->source == src && sv_eq(have->name, name)) {
            return have;
        }
    }
    struct resource_ref *r = vec_push(&l->v);
    sv kept = a ? arena_sv(a, name) : name;
    *r = (struct resource_ref){.type = t, .name = kept, .source = src, .slot = slot};
    return r;
}

/* Where a resource of that name is asked for. NULL: an error is told. */
static const struct config_source *source_for(struct compile_ctx *ctx, sv name, const void *msg) {
    if (sv_starts(name, SV("xdstp:"))) {
        diag_error(ctx->diag, "'%.*s': xdstp resource names are not supported", SV_ARG(name));
        return NULL;
    }
    return config_source_intern(msg, ctx->diag);
}

slot_t compile_cluster_ref(struct compile_ctx *ctx, sv name, bool must_exist) {
    struct config *c = ctx->build->config;
    if (must_exist && !c->has_cluster(c->user, name)) {
        diag_error(ctx->diag, "unknown cluster '%.*s'", SV_ARG(name));
    }
    slot_t s = names_acquire(c->clusters, name);
    names_release_with(c->clusters, s, ctx->arena);
    return s;
}

slot_t config_route_slot(struct config *c, const struct config_source *src, sv name) {
    uint64_t source = config_source_key(src);
    struct buf BUF_AUTO key;
    buf_init(&key);
    buf_append(&key, &source, sizeof(source));
    buf_append_sv(&key, name);
    return names_acquire(c->routes, buf_pullup(&key, buf_len(&key)));
}

slot_t compile_route_ref(struct compile_ctx *ctx, sv name, const void *config_source) {
    struct config *c = ctx->build->config;
    const struct config_source *src = source_for(ctx, name, config_source);
    if (!src) {
        return SLOT_NONE;
    }
    slot_t s = config_route_slot(c, src, name);
    names_release_with(c->routes, s, ctx->arena);
    add_ref(ctx->build->refs, RES_ROUTE, name, src, s, ctx->arena)->stat_prefix =
        arena_sv(ctx->arena, ctx->stat_prefix);
    return s;
}

const struct config_source *compile_config_source(struct compile_ctx *ctx, const void *msg) {
    return config_source_intern(msg, ctx->diag);
}

slot_t compile_scopes_ref(struct compile_ctx *ctx, sv stat_prefix, const void *srds_source,
                          const void *rds_source) {
    struct config *c = ctx->build->config;
    const struct config_source *srds = config_source_intern(srds_source, ctx->diag);
    const struct config_source *rds = config_source_intern(rds_source, ctx->diag);
    if (!srds || !rds) {
        return SLOT_NONE;
    }
    sv name =
        arena_printf(ctx->arena, "*%llx/%llx/%.*s", (unsigned long long)config_source_key(srds),
                     (unsigned long long)config_source_key(rds), SV_ARG(stat_prefix));
    slot_t s = names_acquire(c->scopes, name);
    names_release_with(c->scopes, s, ctx->arena);
    struct resource_ref *r = add_ref(ctx->build->refs, RES_SCOPED_ROUTE, name, srds, s, ctx->arena);
    r->stat_prefix = arena_sv(ctx->arena, stat_prefix);
    r->scopes_rds = rds;
    return s;
}

void compile_virtual_hosts_ref(struct compile_ctx *ctx, sv name, const void *config_source) {
    const struct config *c = ctx->build->config;
    const struct config_source *src = config_source_intern(config_source, ctx->diag);
    if (!src) {
        return;
    }
    if (src->kind == SOURCE_PATH || (src->kind == SOURCE_ADS && !c->is_ads_delta)) {
        diag_error(ctx->diag, "vhds: only 'DELTA_GRPC' is supported as an api_type.");
        return;
    }
    add_ref(ctx->build->refs, RES_VIRTUAL_HOST, name, src, SLOT_NONE, ctx->arena);
}

const struct config_source *compile_leds_ref(struct compile_ctx *ctx, sv name,
                                             const void *config_source) {
    const struct config_source *src = config_source_intern(config_source, ctx->diag);
    if (!src) {
        return NULL;
    }
    const Core__ConfigSource *m = config_source;
    bool is_delta = src->kind == SOURCE_ADS ? ctx->build->config->is_ads_delta
                                            : src->kind == SOURCE_API &&
                                                  m->api_config_source->api_type ==
                                                      CORE__API_CONFIG_SOURCE__API_TYPE__DELTA_GRPC;
    if (!is_delta) {
        diag_error(ctx->diag, "only ADS and gRPC in delta-xDS mode are supported");
        return NULL;
    }
    add_ref(ctx->build->refs, RES_LB_ENDPOINT, name, src, SLOT_NONE, ctx->arena);
    return src;
}

void compile_endpoints_ref(struct compile_ctx *ctx, sv service_name, const void *source) {
    if (!source) {
        diag_error(ctx->diag, "eds_config: value is required");
        return;
    }
    const struct config_source *src = source_for(ctx, service_name, source);
    if (!src) {
        return;
    }
    add_ref(ctx->build->refs, RES_ENDPOINTS, service_name, src, SLOT_NONE, NULL);
}

unsigned compile_secret_ref(struct compile_ctx *ctx, sv name, const void *config_source) {
    const struct config_source *src = source_for(ctx, name, config_source);
    struct ref_list *l = ctx->build->secrets;
    if (!src) {
        return 0;
    }
    if (!l) {
        diag_error(ctx->diag, "secret '%.*s' can not be referred to here", SV_ARG(name));
        return 0;
    }
    *vec_push(&l->v) = (struct resource_ref){
        .type = RES_SECRET, .name = arena_sv(ctx->arena, name), .source = src, .slot = SLOT_NONE};
    add_ref(ctx->build->refs, RES_SECRET, name, src, SLOT_NONE, ctx->arena);
    return (unsigned)(l->v.n - 1);
}

/* ---- transport sockets ---- */

/* As Envoy: by the config's type; a name alone finds none. */
static const struct transport_socket_type *find_transport(struct compile_ctx *ctx,
                                                          const Core__TransportSocket *m) {
    sv url = m->typed_config ? any_inner_name(m->typed_config, ctx->scratch) : SV_NULL;
    const struct transport_socket_type *t =
        url.n ? registry_transport_socket(ctx->registry, sv_cstr(m->name), url, ctx->is_downstream)
              : NULL;
    if (!t) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   m->name, SV_ARG(url));
    }
    return t;
}

static slot_t add_transport(struct compile_ctx *ctx, const struct transport_socket_type *t,
                            const void *config, struct ref_list *secrets) {
    struct config *c = ctx->build->config;
    slot_t slot = names_acquire(c->transports, SV_NULL);
    names_release_with(c->transports, slot, ctx->arena);
    struct resource_ref *refs = arena_new_array(ctx->arena, struct resource_ref, secrets->v.n);
    if (secrets->v.n) {
        memcpy(refs, secrets->v.p, secrets->v.n * sizeof(*refs));
    }
    *vec_push(&ctx->build->transports->v) =
        (struct transport_def){slot, t, config, refs, (unsigned)secrets->v.n};
    return slot;
}

struct transport_factory *config_raw_factory(void) {
    static const struct secret_source no_secrets;
    return raw_buffer_transport_socket.make(NULL, &no_secrets, NULL);
}

slot_t compile_transport_socket(struct compile_ctx *ctx, const void *msg) {
    const Core__TransportSocket *m = msg;
    struct ref_list secrets = {0}, *outer = ctx->build->secrets;
    slot_t slot = SLOT_NONE;
    const struct transport_socket_type *t =
        m ? find_transport(ctx, m) : &raw_buffer_transport_socket;
    if (!t) {
        return SLOT_NONE;
    }
    if (!m) {
        return ctx->build->config->raw_transport;
    }
    DIAG_FIELD(ctx->diag, "transport_socket.typed_config");
    unsigned errors = diag_errors(ctx->diag);
    const void *typed = compile_any(ctx, sv_cstr(m->name), m->typed_config, t->type_url, NULL);
    ctx->build->secrets = &secrets;
    if (diag_errors(ctx->diag) == errors) {
        const void *config = t->compile(ctx, typed);
        if (diag_errors(ctx->diag) == errors) {
            slot = t == &raw_buffer_transport_socket ? ctx->build->config->raw_transport
                                                     : add_transport(ctx, t, config, &secrets);
        }
    }
    ctx->build->secrets = outer;
    vec_fini(&secrets.v);
    return slot;
}

bool compile_inner_transport_socket(struct compile_ctx *ctx, const void *msg,
                                    const struct transport_socket_type **type,
                                    const void **config) {
    const Core__TransportSocket *m = msg;
    DIAG_FIELD(ctx->diag, "transport_socket");
    unsigned errors = diag_errors(ctx->diag);
    const struct transport_socket_type *t = find_transport(ctx, m);
    if (!t) {
        return false;
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    if (t->is_outermost) {
        return diag_error(ctx->diag, "'%s' inside another one is not supported", t->name);
    }
    const void *typed = compile_any(ctx, sv_cstr(m->name), m->typed_config, t->type_url, NULL);
    *type = t;
    *config = typed ? t->compile(ctx, typed) : NULL;
    return diag_errors(ctx->diag) == errors;
}

/* ---- typed configs ---- */

enum pb_json_unknown compile_unknown_policy(const struct compile_ctx *ctx) {
    const struct config *c = ctx->build ? ctx->build->config : NULL;
    if (!c) {
        return PB_JSON_UNKNOWN_WARN;
    }
    if (ctx->is_static) {
        return c->allow_unknown_static ? PB_JSON_UNKNOWN_WARN : PB_JSON_UNKNOWN_ERROR;
    }
    if (c->reject_unknown_dynamic) {
        return PB_JSON_UNKNOWN_ERROR;
    }
    return c->ignore_unknown_dynamic ? PB_JSON_UNKNOWN_SKIP : PB_JSON_UNKNOWN_WARN;
}

const void *compile_any(struct compile_ctx *ctx, sv name, const void *any_msg,
                        const char *want_type, const char **type_out) {
    const ProtobufCMessage *m =
        any_unpack_with(any_msg, name, compile_unknown_policy(ctx), ctx->scratch, ctx->diag);
    if (!m) {
        return NULL;
    }
    if (want_type && strcmp(m->descriptor->name, want_type) != 0) {
        diag_error(ctx->diag, "the configuration of '%.*s' must be a '%s', not a '%s'",
                   SV_ARG(name), want_type, m->descriptor->name);
        return NULL;
    }
    if (!pb_rules_check(m, ctx->diag) || !findings_check(m, PB_JSON_UNKNOWN_SKIP, ctx->diag)) {
        return NULL;
    }
    if (type_out) {
        *type_out = m->descriptor->name;
    }
    return m;
}

void compile_unhonoured(struct compile_ctx *ctx, const char *field) {
    diag_warn(ctx->diag, "%s has no effect here", field);
}

void compile_unhonoured_fields(struct compile_ctx *ctx, const struct compile_field *fields,
                               size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (fields[i].is_set) {
            compile_unhonoured(ctx, fields[i].field);
        }
    }
}

void compile_refuse_fields(struct compile_ctx *ctx, const struct compile_field *fields, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (fields[i].is_set) {
            diag_error(ctx->diag, "%s is not supported", fields[i].field);
        }
    }
}

/* ---- data sources ---- */

static bool read_file(struct compile_ctx *ctx, const char *path, sv *out) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        if (fd >= 0) {
            close(fd);
        }
        return diag_error(ctx->diag, "Invalid path: %s", path);
    }
    if (st.st_size > DATA_SOURCE_FILE_MAX) {
        close(fd);
        return diag_error(ctx->diag, "file '%s' is larger than %u bytes", path,
                          DATA_SOURCE_FILE_MAX);
    }
    char *p = arena_alloc(ctx->arena, (size_t)st.st_size + 1);
    size_t n = 0;
    ssize_t got;
    while (n < (size_t)st.st_size && (got = read(fd, p + n, (size_t)st.st_size - n)) > 0) {
        n += (size_t)got;
    }
    close(fd);
    p[n] = 0;
    *out = sv_from(p, n);
    return true;
}

bool compile_data_source(struct compile_ctx *ctx, const void *msg, sv *out) {
    const Core__DataSource *m = msg;
    switch (m->specifier_case) {
    case CORE__DATA_SOURCE__SPECIFIER_FILENAME:
        return read_file(ctx, m->filename, out);
    case CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        *out = arena_sv(ctx->arena, sv_from(m->inline_bytes.data, m->inline_bytes.len));
        return true;
    case CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        *out = arena_sv(ctx->arena, sv_cstr(m->inline_string));
        return true;
    case CORE__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE: {
        const char *v = getenv(m->environment_variable);
        if (!v) {
            return diag_error(ctx->diag, "Environment variable doesn't exist: %s",
                              m->environment_variable);
        }
        *out = arena_sv(ctx->arena, sv_cstr(v));
        return true;
    }
    default:
        return diag_error(ctx->diag, "Unexpected DataSource::specifier_case(): %d",
                          (int)m->specifier_case);
    }
}

/* ---- small conversions ---- */

bool compile_duration_ms(struct compile_ctx *ctx, const void *msg, uint32_t dflt, uint32_t *out) {
    const Pb__Duration *m = msg;
    *out = dflt;
    if (!m) {
        return true;
    }
    if (m->seconds < 0 || m->nanos < 0 || m->nanos > 999999999) {
        return diag_error(ctx->diag, "Invalid duration: expected positive duration");
    }
    if (m->seconds > UINT32_MAX / 1000 - 1) {
        *out = UINT32_MAX - 1; /* 49 days: longer ones do not differ */
        return true;
    }
    uint64_t ms = (uint64_t)m->seconds * 1000 + (uint64_t)m->nanos / 1000000;
    *out = ms == 0 && m->nanos > 0 ? 1 : (uint32_t)ms;
    return true;
}

bool compile_socket_address(struct compile_ctx *ctx, const void *msg, struct addr *out) {
    const Core__SocketAddress *m = msg;
    if (m->protocol != CORE__SOCKET_ADDRESS__PROTOCOL__TCP) {
        return diag_error(ctx->diag, "only TCP socket addresses are supported");
    }
    uint32_t port = m->port_specifier_case == CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE
                        ? m->port_value
                        : 0;
    if (!addr_parse_ip(sv_cstr(m->address), (uint16_t)port, out)) {
        return diag_error(
            ctx->diag,
            "malformed IP address: %s. Consider setting resolver_name or setting cluster type to "
            "'STRICT_DNS' or 'LOGICAL_DNS'",
            m->address);
    }
    return true;
}

bool compile_address(struct compile_ctx *ctx, const void *msg, struct addr *out) {
    const Core__Address *m = msg;
    if (!m) {
        return diag_error(ctx->diag, "address: value is required");
    }
    switch (m->address_case) {
    case CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS:
        return compile_socket_address(ctx, m->socket_address, out);
    case CORE__ADDRESS__ADDRESS_PIPE:
        memset(out, 0, sizeof(*out));
        addr_set_path(out, arena_cstr(ctx->arena, sv_cstr(m->pipe->path)));
        return true;
    default:
        return diag_error(ctx->diag, "address must be a socket_address or a pipe");
    }
}

bool compile_internal_address(struct compile_ctx *ctx, const void *msg, struct addr *out) {
    const Core__EnvoyInternalAddress *m = msg;
    DIAG_FIELD(ctx->diag, "envoy_internal_address");
    if (m->address_name_specifier_case !=
        CORE__ENVOY_INTERNAL_ADDRESS__ADDRESS_NAME_SPECIFIER_SERVER_LISTENER_NAME) {
        return diag_error(ctx->diag, "address_name_specifier: value is required");
    }
    return addr_set_internal(out, sv_cstr(m->server_listener_name), sv_cstr(m->endpoint_id),
                             ctx->arena) ||
           diag_error(ctx->diag, "server_listener_name and endpoint_id are longer than %u bytes",
                      ADDR_INTERNAL_MAX);
}
