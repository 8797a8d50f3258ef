/* Connections wait here until the host that their server name tells was looked up; tcp_proxy then
 * finds it in a dynamic_forward_proxy cluster.
 * Threads: config immutable, connections worker-local. Spec:
 * extensions.filters.network.sni_dynamic_forward_proxy.v3; needs the tls_inspector. */
#include "protos/gen/network_sni_dynamic_forward_proxy.pb-c.h"
#include "proxy/api/dns_cache.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"

struct sni_dfp_config {
    struct dns_cache *cache;
    uint16_t port;
    bool saves_address;
};
struct sni_dfp {
    struct network_filter base; /* must be first */
    struct on_demand_wait wait;
    bool is_waiting; /* the client is not read from, and the cache's breaker counts it */
};

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const NetworkSniDynamicForwardProxy__FilterConfig *m = msg;
    struct sni_dfp_config *c = arena_new(ctx->arena, struct sni_dfp_config);
    c->port = (uint16_t)m->port_value;
    c->saves_address = m->save_upstream_address;
    c->cache = dns_cache_compile(ctx, m->dns_cache_config);
    return c->cache ? c : NULL;
}

static void set_state(struct sni_dfp *s, sv name, sv text) {
    struct stream_info *si = net_stream_info(&s->base);
    if (!si->filter_state) {
        si->filter_state = filter_state_new(net_arena(&s->base), NULL);
    }
    filter_state_set(si->filter_state, name, text, NULL, false, FILTER_STATE_LOCAL);
}

static void stop_waiting(struct sni_dfp *s) {
    const struct sni_dfp_config *c = s->base.config;
    if (s->is_waiting) {
        s->is_waiting = false;
        dns_cache_pending_release(c->cache);
    }
}

static void on_done(struct on_demand_wait *w, bool is_found) {
    struct sni_dfp *s = CONTAINER_OF(w, struct sni_dfp, wait);
    const struct sni_dfp_config *c = s->base.config;
    stop_waiting(s);
    if (w->dns->outcome == DNS_HOSTS_OVERFLOW) {
        conn_close(s->base.conn, CONN_CLOSE_NO_FLUSH, "dns_cache_overflow");
        return;
    }
    if (is_found && c->saves_address) {
        set_state(s, SV("envoy.stream.upstream_address"),
                  addr_arena_str(&w->dns->addr, net_arena(&s->base)));
    }
    conn_read_disable(s->base.conn, false);
    net_continue(&s->base); /* the cluster tells that there is no such host */
}

/* The host, and in *port its port: both may come from filter state. */
static sv target(struct sni_dfp *s, uint16_t *port) {
    const struct sni_dfp_config *c = s->base.config;
    const struct stream_info *si = net_stream_info(&s->base);
    uint64_t n;
    sv text = filter_state_text(si->filter_state, SV("envoy.upstream.dynamic_port"));
    *port = c->port;
    if (text.n && sv_to_u64(text, &n) && n >= 1 && n <= UINT16_MAX) {
        *port = (uint16_t)n;
    }
    sv named = filter_state_text(si->filter_state, SV("envoy.upstream.dynamic_host"));
    return named.p ? named : net_conn_info(&s->base)->server_name;
}

static enum net_status on_new_connection(struct network_filter *f) {
    struct sni_dfp *s = (struct sni_dfp *)f;
    const struct sni_dfp_config *c = f->config;
    struct worker *w = net_worker(f);
    uint16_t port;
    sv host = target(s, &port);
    char room[DNS_CACHE_KEY_MAX];
    sv key = dns_cache_key(host, port, room);
    if (!key.n) {
        return NET_CONTINUE;
    }
    if (!dns_cache_pending_try(c->cache, worker_loop(w))) {
        conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "dns_cache_pending_requests_overflow");
        return NET_STOP;
    }
    set_state(s, SV("envoy.upstream.dynamic_port"), arena_printf(net_arena(f), "%u", port));
    s->is_waiting = true;
    s->wait.on_done = on_done;
    if (!worker_dns_load(w, c->cache, key, &s->wait)) {
        stop_waiting(s);
        conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "dns_cache_pending_requests_overflow");
        return NET_STOP;
    }
    conn_read_disable(f->conn, true);
    return NET_STOP;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    (void)data;
    (void)end_stream;
    return ((struct sni_dfp *)f)->is_waiting ? NET_STOP : NET_CONTINUE;
}

static void on_conn_event(struct network_filter *f, enum conn_event e) {
    struct sni_dfp *s = (struct sni_dfp *)f;
    if (e != CONN_EVENT_CONNECTED) {
        worker_fetch_cancel(net_worker(f), &s->wait);
        stop_waiting(s);
    }
}

const struct network_filter_type sni_dynamic_forward_proxy_network_filter = {
    .name = "envoy.filters.network.sni_dynamic_forward_proxy",
    .type_url = "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
    .instance_size = sizeof(struct sni_dfp),
    .compile = compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_conn_event = on_conn_event,
};
