/* upstream_proxy_protocol: sends a PROXY header first, then is no more: the transport inside it
 * takes its place on the connection.
 * Threads: a transport belongs to its connection's worker; factory and config are immutable.
 * Spec: transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport. The header tells the
 * downstream's addresses; without a downstream (health checks, calls of our own) version 1 tells
 * the connection's, version 2 LOCAL.
 * Not here: the header's bytes (proxy_header.c). */
#include <errno.h>
#include <sys/socket.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/transport_proxy_protocol.pb-c.h"
#include "proxy/api/proxy_tlv.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/net/conn.h"
#include "proxy/net/proxy_header.h"
#include "proxy/stats/stats.h"

static const struct stat_def header_defs[] = {
    {"v2_tlvs_exceed_max_length", STAT_COUNTER, STAT_UNIT_NONE}};
static const struct stats_group header_group = {
    .name = "upstream_proxy_protocol", .defs = header_defs, .n = ARRAY_LEN(header_defs)};

/* What config and factory have in common. */
struct settings {
    struct stats_scope *stats; /* NULL: none */
    sv added;                  /* TLVs as on the wire */
    struct proxy_tlv_set passed;
    bool is_v2;
};
struct config {
    struct settings settings;
    const struct transport_socket_type *inner;
    const void *inner_config;
};
struct factory {
    struct transport_factory base;
    struct settings settings;
    struct transport_factory *inner; /* a ref */
};
struct preface {
    struct transport base;
    struct factory *factory; /* a ref */
    struct transport *inner;
    struct buf header; /* what is left to send */
    struct transport_addresses addresses;
    sv host_tlvs;
    struct arena arena; /* of the two above */
};

static struct preface *preface_of(struct transport *t) {
    return CONTAINER_OF(t, struct preface, base);
}
static const struct preface *preface_of_const(const struct transport *t) {
    return preface_of((struct transport *)(uintptr_t)t);
}

/* ---- the header ---- */

/* Append those of `tlvs` whose types are in `only` (NULL: any) and not in `seen`; note their types
 * in `noted`. */
static void take_tlvs(struct buf *out, sv tlvs, const struct proxy_tlv_set *only,
                      const struct proxy_tlv_set *seen, struct proxy_tlv_set *noted) {
    for (sv tlv; (tlv = proxy_tlv_cut(&tlvs)).n;) {
        unsigned type = proxy_tlv_type(tlv);
        if (proxy_tlv_set_has(seen, type) || (only && !proxy_tlv_set_has(only, type))) {
            continue;
        }
        proxy_tlv_set_add(noted, type);
        buf_append_sv(out, tlv);
    }
}

/* The host's own come before the cluster's of other types, then the client's of yet others. */
static void gather_tlvs(const struct preface *p, struct buf *out) {
    const struct settings *s = &p->factory->settings;
    struct proxy_tlv_set none = {{0}}, host = {{0}}, own;
    take_tlvs(out, p->host_tlvs, NULL, &none, &host);
    own = host;
    take_tlvs(out, s->added, NULL, &host, &own);
    take_tlvs(out, p->addresses.tlvs, &s->passed, &own, &none);
}

static void make_v2(struct preface *p) {
    const struct transport_addresses *a = &p->addresses;
    if (!a->source) {
        proxy_header_v2_local(&p->header);
        return;
    }
    BUF_AUTO struct buf tlvs;
    buf_init(&tlvs);
    gather_tlvs(p, &tlvs);
    if (!proxy_header_v2(&p->header, a->source, a->destination,
                         buf_pullup(&tlvs, buf_len(&tlvs))) &&
        p->factory->settings.stats) {
        stats_inc(stats_shard(p->factory->settings.stats, p->base.conn->loop->thread_index), 0);
    }
}

static void make_header(struct preface *p) {
    const struct transport_addresses *a = &p->addresses;
    const struct conn *c = p->base.conn;
    if (p->factory->settings.is_v2) {
        make_v2(p);
    } else if (a->source) {
        proxy_header_v1(&p->header, a->source, a->destination);
    } else {
        proxy_header_v1(&p->header, &c->local, &c->remote);
    }
}

/* ---- the transport ---- */

static void preface_free(struct preface *p) {
    shared_unref(&p->factory->base.shared);
    buf_fini(&p->header);
    arena_fini(&p->arena);
    xfree(p);
}

/* False: the kernel takes no more now, or *is_broken. */
static bool send_header(struct preface *p, bool *is_broken) {
    struct conn *c = p->base.conn;
    *is_broken = false;
    while (!buf_empty(&p->header)) {
        sv left = buf_front(&p->header);
        ssize_t n = send(c->fd, left.p, left.n, MSG_NOSIGNAL);
        if (n >= 0) {
            buf_drain(&p->header, (size_t)n);
            conn_sent(c, (size_t)n);
        } else if (errno != EINTR) {
            *is_broken = errno != EAGAIN && errno != EWOULDBLOCK;
            c->detect_reset |= errno == ECONNRESET || errno == EPIPE;
            return false;
        }
    }
    return true;
}

/* The connection goes on with the inner transport. */
static void give_way(struct preface *p) {
    struct transport *inner = p->inner;
    p->base.conn->transport = inner;
    preface_free(p);
    inner->ops->on_connected(inner);
}

static void on_connected(struct transport *t) {
    struct preface *p = preface_of(t);
    bool is_broken;
    p->inner->conn = t->conn;
    make_header(p);
    if (send_header(p, &is_broken)) {
        give_way(p);
    } else {
        conn_transport_want_write(t->conn); /* an error shows again in write() */
    }
}

/* Nothing is read before the header is out; but the peer's end is seen. */
static struct transport_result preface_read(struct transport *t, struct buf *in, size_t max) {
    (void)in, (void)max;
    struct transport_result r = {0};
    char byte;
    ssize_t n = recv(t->conn->fd, &byte, 1, MSG_PEEK);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        t->conn->detect_reset |= n < 0 && errno == ECONNRESET;
        r.action = TRANSPORT_CLOSE;
    }
    return r;
}

static struct transport_result preface_write(struct transport *t, struct buf *out,
                                             bool end_stream) {
    struct transport_result r = {0};
    struct conn *c = t->conn;
    bool is_broken;
    if (send_header(preface_of(t), &is_broken)) {
        give_way(preface_of(t));
        return c->transport->ops->write(c->transport, out, end_stream);
    }
    r.again = !is_broken;
    r.action = is_broken ? TRANSPORT_CLOSE : TRANSPORT_KEEP;
    return r;
}

static void preface_close(struct transport *t) { (void)t; }

static void preface_destroy(struct transport *t) {
    struct preface *p = preface_of(t);
    p->inner->ops->destroy(p->inner);
    preface_free(p);
}

static sv preface_protocol(const struct transport *t) {
    const struct transport *inner = preface_of_const(t)->inner;
    return inner->ops->protocol(inner);
}
static sv preface_failure(const struct transport *t) {
    const struct transport *inner = preface_of_const(t)->inner;
    return inner->ops->failure_reason(inner);
}
static const struct ssl_info *preface_ssl(const struct transport *t) {
    const struct transport *inner = preface_of_const(t)->inner;
    return inner->ops->ssl(inner);
}
static bool preface_can_splice(const struct transport *t) {
    (void)t;
    return false; /* the inner one decides when it is there */
}

static const struct transport_ops preface_ops = {
    .name = "upstream_proxy_protocol",
    .on_connected = on_connected,
    .read = preface_read,
    .write = preface_write,
    .close = preface_close,
    .destroy = preface_destroy,
    .protocol = preface_protocol,
    .failure_reason = preface_failure,
    .ssl = preface_ssl,
    .can_splice = preface_can_splice,
};

/* ---- the factory ---- */

static struct transport *create(const struct transport_factory *base,
                                const struct transport_options *o) {
    struct factory *f =
        CONTAINER_OF((struct transport_factory *)(uintptr_t)base, struct factory, base);
    struct transport *inner = f->inner->ops->create(f->inner, o);
    if (!inner) {
        return NULL;
    }
    struct preface *p = xnew(struct preface);
    p->base.ops = &preface_ops;
    shared_ref_(&f->base.shared);
    p->factory = f;
    p->inner = inner;
    buf_init(&p->header);
    arena_init(&p->arena, 128);
    if (o) {
        transport_addresses_dup(&o->addresses, &p->arena, &p->addresses);
        p->host_tlvs = arena_sv(&p->arena, o->host_tlvs);
    }
    return &p->base;
}

/* Clients do not share connections that told who they are. */
static void hash_key(const struct transport_factory *base, const struct transport_options *o,
                     struct buf *key) {
    const struct factory *f =
        CONTAINER_OF((struct transport_factory *)(uintptr_t)base, struct factory, base);
    if (f->inner->ops->hash_key) {
        f->inner->ops->hash_key(f->inner, o, key);
    }
    if (o && o->addresses.source) {
        char text[ADDR_STR_MAX];
        buf_append(key, "p", 1);
        buf_append(key, text, addr_str(o->addresses.source, text));
        buf_append(key, "", 1);
        buf_append(key, text, addr_str(o->addresses.destination, text));
        buf_append(key, "", 1);
    }
}

static const struct transport_factory_ops secure_ops = {
    .create = create, .is_secure = true, .hash_key = hash_key};
static const struct transport_factory_ops plain_ops = {.create = create, .hash_key = hash_key};

static void factory_free(struct shared *s) {
    struct factory *f = CONTAINER_OF(s, struct factory, base.shared);
    shared_unref(&f->inner->shared);
    if (f->settings.stats) {
        stats_scope_unref(f->settings.stats);
    }
    xfree((char *)(uintptr_t)f->settings.added.p);
    xfree(f);
}

static struct transport_factory *make(const void *config, const struct secret_source *secrets,
                                      struct diag *d) {
    const struct config *c = config;
    struct transport_factory *inner = c->inner->make(c->inner_config, secrets, d);
    if (!inner) {
        return NULL;
    }
    struct factory *f = xnew(struct factory);
    shared_init(&f->base.shared, factory_free);
    f->base.ops = inner->ops->is_secure ? &secure_ops : &plain_ops;
    f->inner = inner;
    f->settings = c->settings;
    f->settings.added.p = xmemdup(c->settings.added.p, c->settings.added.n);
    if (f->settings.stats) {
        stats_scope_ref(f->settings.stats);
    }
    return &f->base;
}

/* ---- compile ---- */

static void unref_stats(void *scope) { stats_scope_unref(scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const TransportProxyProtocol__ProxyProtocolUpstreamTransport *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    const struct compile_field unhonoured[] = {
        {m->allow_unspecified_address, "allow_unspecified_address"},
        {m->tlv_as_pool_key, "tlv_as_pool_key"},
    };
    compile_unhonoured_fields(ctx, unhonoured, ARRAY_LEN(unhonoured));
    bool ok = compile_inner_transport_socket(ctx, m->transport_socket, &c->inner, &c->inner_config);
    if (m->config) {
        DIAG_FIELD(ctx->diag, "config");
        c->settings.is_v2 = m->config->version != CORE__PROXY_PROTOCOL_CONFIG__VERSION__V1;
        compile_passed_tlvs(m->config->pass_through_tlvs, &c->settings.passed);
        ok = compile_added_tlvs(ctx, "added_tlvs", (const void *const *)m->config->added_tlvs,
                                m->config->n_added_tlvs, &c->settings.added) &&
             ok;
    }
    if (!ok) {
        return NULL;
    }
    if (ctx->stats) {
        sv prefix =
            arena_printf(ctx->scratch, "%.*supstream.proxyprotocol.", SV_ARG(ctx->stat_prefix));
        c->settings.stats = stats_scope_get(ctx->stats, &header_group, prefix);
        arena_on_fini(ctx->arena, unref_stats, c->settings.stats);
    }
    return c;
}

extern const struct transport_socket_type upstream_proxy_protocol_transport_socket;
const struct transport_socket_type upstream_proxy_protocol_transport_socket = {
    .name = "envoy.transport_sockets.upstream_proxy_protocol",
    .type_url =
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
    .is_upstream = true,
    .tells_addresses = true,
    .is_outermost = true,
    .compile = compile,
    .make = make,
};
