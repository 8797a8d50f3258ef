/* Hosts of ORIGINAL_DST clusters: see original_dst.h.
 * A host unused for a whole cleanup interval and without connections goes; requests that met it
 * keep it by their pin.
 * Threads: worker-local. Not here: restoring the address (filters/listener/original_dst.c,
 * net/). */
#include "proxy/upstream/original_dst.h"

#include "proxy/base/log.h"
#include "proxy/base/map.h"
#include "proxy/http/headers.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "proxy/upstream/cluster_view.h"
#include "proxy/upstream/pool_table.h"

#define CLEANUP_MS_DEFAULT 5000u

struct dst_host {
    struct host *host; /* a ref */
    struct host_entry entry;
    bool is_used; /* picked since the last sweep */
};
struct original_dst {
    struct cluster_view *view; /* owns us */
    struct map hosts;          /* by address_text */
    struct timer sweep;
};

static uint64_t period_ms(const struct original_dst *o) {
    uint32_t ms = o->view->cfg->cleanup_interval_ms;
    return ms ? ms : CLEANUP_MS_DEFAULT;
}

static void on_sweep(struct timer *t) {
    struct original_dst *o = CONTAINER_OF(t, struct original_dst, sweep);
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&o->hosts, &it));) {
        struct dst_host *d = s->value;
        if (d->is_used || pools_host_in_use(o->view, d->host)) {
            d->is_used = false;
            continue;
        }
        map_remove_at(&o->hosts, &it);
        pools_drain_host(o->view, d->host);
        cluster_view_keep_host(o->view, d->host);
        xfree(d);
    }
    if (map_count(&o->hosts)) {
        timer_start(&o->sweep, period_ms(o));
    }
}

struct original_dst *original_dst_new(struct cluster_view *v) {
    struct original_dst *o = xnew(struct original_dst);
    o->view = v;
    map_init(&o->hosts);
    timer_init(&o->sweep, v->loop, on_sweep);
    return o;
}

void original_dst_free(struct original_dst *o) {
    if (!o) {
        return;
    }
    timer_cancel(&o->sweep);
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&o->hosts, &it));) {
        struct dst_host *d = s->value;
        cluster_view_keep_host(o->view, d->host);
        xfree(d);
    }
    map_fini(&o->hosts);
    xfree(o);
}

static sv asked_by_header(const struct cluster_config *c, const struct headers *h) {
    return c->original_dst_header.n ? headers_get_name(h, c->original_dst_header)
                                    : headers_get(h, HDR_x_envoy_original_dst_host);
}

/* The address in filter state of the request or its connection. */
static bool asked_by_state(const struct stream_info *si, struct addr *out) {
    static const sv name = SV_INIT("envoy.network.transport_socket.original_dst_address");
    return si && si->filter_state &&
           addr_parse_ip_port(filter_state_text(si->filter_state, name), out);
}

/* The address that metadata of the request, else of its connection, names. */
static bool asked_by_metadata(const struct original_dst_key *k, const struct stream_info *si,
                              struct stats_shard *stats, struct addr *out) {
    const struct kv_value *v = si ? kv_metadata_get(si->metadata, k->ns, k->path, k->path_n) : NULL;
    if (si && !v && si->cx && si->cx->info) {
        v = kv_metadata_get(si->cx->info->metadata, k->ns, k->path, k->path_n);
    }
    if (!v || v->kind != KV_STRING) {
        return false;
    }
    if (addr_parse_ip_port(v->s, out)) {
        return true;
    }
    stats_inc(stats, CLUSTER_original_dst_host_invalid);
    return false;
}

/* Where the request wants to go. False: nowhere that is known, or to ourselves. */
static bool destination(const struct cluster_config *c, const struct lb_context *ctx,
                        struct stats_shard *stats, struct addr *out) {
    bool is_told =
        asked_by_state(ctx->si, out) ||
        (c->original_dst_key && asked_by_metadata(c->original_dst_key, ctx->si, stats, out));
    sv text = !is_told && c->use_http_header_original_dst && ctx->request
                  ? asked_by_header(c, ctx->request)
                  : SV_NULL;
    if (text.p) {
        if (!addr_parse_ip_port(text, out)) {
            stats_inc(stats, CLUSTER_original_dst_host_invalid);
            return false;
        }
    } else if (!is_told && ctx->downstream && ctx->downstream->is_local_restored) {
        *out = ctx->downstream->local;
    } else if (!is_told) {
        return false;
    }
    if (c->has_original_dst_port) {
        out->port = c->original_dst_port;
    }
    return out->family == AF_INET || out->family == AF_INET6;
}

static struct dst_host *add_host(struct original_dst *o, const struct addr *a) {
    if (map_count(&o->hosts) >= ORIGINAL_DST_HOSTS_MAX) {
        log_warn_limited(LOG_upstream, "cluster '%.*s': more than %u original destinations in use",
                         SV_ARG(o->view->cfg->name), ORIGINAL_DST_HOSTS_MAX);
        return NULL;
    }
    /* as Envoy: such a host's name is the cluster's with the address behind it */
    struct buf name;
    char text[ADDR_STR_MAX];
    buf_init(&name);
    buf_append_sv(&name, o->view->cfg->name);
    buf_append(&name, text, addr_str(a, text));
    struct dst_host *d = xnew(struct dst_host);
    d->host =
        host_new(&(struct host_spec){.addr = *a, .hostname = buf_pullup(&name, buf_len(&name))},
                 loop_now_us(o->view->loop));
    buf_fini(&name);
    d->entry = (struct host_entry){.host = d->host, .weight = 1, .transport_match = UINT16_MAX};
    map_put(&o->hosts, d->host->address_text, d);
    if (!timer_active(&o->sweep)) {
        timer_start(&o->sweep, period_ms(o));
    }
    return d;
}

struct host *original_dst_pick(struct original_dst *o, const struct lb_context *ctx,
                               const struct host_entry **entry) {
    struct addr a;
    if (!destination(o->view->cfg, ctx, o->view->stats, &a)) {
        log_debug(LOG_upstream,
                  "original_dst_load_balancer: No downstream connection or no original_dst.");
        return NULL;
    }
    char text[ADDR_STR_MAX];
    size_t n = addr_str(&a, text);
    struct dst_host *d = map_get(&o->hosts, sv_from(text, n));
    d = d ? d : add_host(o, &a);
    if (!d) {
        return NULL;
    }
    d->is_used = true;
    *entry = &d->entry;
    return d->host;
}
