/* What spans tell: the tags and events of a request and of an attempt.
 * Threads: worker-local. Spec: Envoy's HttpTracerUtility::finalizeDownstreamSpan and
 * finalizeUpstreamSpan. Only called for sampled spans; all of it is made when they end. */
#include "proxy/base/grpc_status.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"
#include "proxy/request/router.h"
#include "proxy/request/stream.h"

#define TAGS_MAX 32u

struct tags {
    struct trace_tag v[TAGS_MAX + 2 * CUSTOM_TAGS_MAX];
    unsigned n;
    struct arena *arena;
};

static void add(struct tags *t, sv key, sv value) {
    ASSERT(t->n < ARRAY_LEN(t->v));
    t->v[t->n++] = (struct trace_tag){key, value};
}
static void add_number(struct tags *t, sv key, uint64_t n) {
    add(t, key, arena_printf(t->arena, "%llu", (unsigned long long)n));
}
static sv or_dash(sv s) { return s.p ? s : SV("-"); }

/* ---- parts ---- */

static sv protocol_text(bool is_known, uint8_t protocol) {
    static const char *const names[] = {"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"};
    return is_known && protocol < ARRAY_LEN(names) ? sv_cstr(names[protocol]) : SV("-");
}

static void add_url(struct tags *t, const struct headers *h, uint32_t path_max) {
    sv original = headers_get(h, HDR_x_envoy_original_path);
    sv path = sv_sub(original.p ? original : headers_get(h, HDR_path), 0, path_max);
    add(t, SV("http.url"),
        arena_printf(t->arena, "%.*s://%.*s%.*s", SV_ARG(headers_get(h, HDR_scheme)),
                     SV_ARG(headers_get(h, HDR_authority)), SV_ARG(path)));
}

static void add_peer(struct tags *t, const struct addr *a) {
    char text[ADDR_STR_MAX];
    size_t n = a->family == AF_UNIX ? addr_str(a, text) : addr_ip_str(a, text);
    add(t, SV("peer.address"), arena_sv(t->arena, sv_from(text, n)));
}

static void add_if_there(struct tags *t, sv key, const struct headers *h, enum header_id id) {
    sv v = headers_get(h, id);
    if (v.p) {
        add(t, key, v);
    }
}

static void add_request(struct tags *t, const struct stream *s) {
    const struct headers *h = &s->request;
    add_if_there(t, SV("guid:x-request-id"), h, HDR_x_request_id);
    add_url(t, h, s->cfg->tracing->max_path_length);
    add(t, SV("http.method"), headers_get(h, HDR_method));
    add(t, SV("downstream_cluster"),
        or_dash(headers_get(h, HDR_x_envoy_downstream_service_cluster)));
    add(t, SV("user_agent"), or_dash(headers_get(h, HDR_user_agent)));
    add(t, SV("http.protocol"), protocol_text(s->info.has_protocol, s->info.protocol));
    add_peer(t,
             s->info.cx->direct_remote.family ? &s->info.cx->direct_remote : &s->info.cx->remote);
    add_if_there(t, SV("guid:x-client-trace-id"), h, HDR_x_client_trace_id);
    if (s->is_grpc) {
        add(t, SV("grpc.path"), headers_get(h, HDR_path));
        add(t, SV("grpc.authority"), headers_get(h, HDR_authority));
        add(t, SV("grpc.content_type"), headers_get(h, HDR_content_type));
        add_if_there(t, SV("grpc.timeout"), h, HDR_grpc_timeout);
    }
}

/* gRPC statuses that are the upstream's errors make the span one. */
static bool is_grpc_error(sv status) {
    uint64_t code;
    return sv_to_u64(status, &code) && grpc_status_is_server_error(code);
}

static void add_grpc_status(struct tags *t, const struct headers *h) {
    sv status = h ? headers_get(h, HDR_grpc_status) : SV_NULL;
    if (!status.p) {
        return;
    }
    add(t, SV("grpc.status_code"), status);
    add_if_there(t, SV("grpc.message"), h, HDR_grpc_message);
    if (is_grpc_error(status)) {
        add(t, SV("error"), SV("true"));
    }
}

static sv flags_text(uint64_t flags, struct arena *a) {
    struct buf BUF_AUTO text;
    buf_init(&text);
    response_flags_write(flags, &text);
    return arena_sv(a, buf_pullup(&text, buf_len(&text)));
}

static void add_custom(struct tags *t, const struct stream *s) {
    const struct route_tracing *rt = s->route ? s->route->extra->tracing : NULL;
    const struct custom_tags *routes = rt ? rt->tags : NULL;
    t->n += custom_tags_values(s->cfg->tracing->tags, routes, &s->info, t->arena, t->v + t->n);
    t->n += custom_tags_values(routes, NULL, &s->info, t->arena, t->v + t->n);
}

static void add_common(struct tags *t, const struct stream *s, unsigned code, uint64_t flags) {
    add(t, SV("component"), SV("proxy"));
    if (s->info.cluster_name.n) {
        add(t, SV("upstream_cluster"),
            s->info.cluster_raw_name.n ? s->info.cluster_raw_name : s->info.cluster_name);
        add(t, SV("upstream_cluster.name"), s->info.cluster_name);
    }
    add_number(t, SV("http.status_code"), code);
    add(t, SV("response_flags"), flags_text(flags, t->arena));
    if (code == 0 || code / 100 == 5) {
        add(t, SV("error"), SV("true"));
    }
    add_custom(t, s);
}

/* ---- events ---- */

static unsigned add_event(const struct stream *s, const char *name, uint64_t mono_us,
                          struct trace_event *v, unsigned n) {
    if (mono_us) {
        v[n++] = (struct trace_event){sv_cstr(name), loop_wall_us(s->hcm->loop, mono_us)};
    }
    return n;
}

static unsigned verbose_events(const struct stream *s, bool is_upstream, struct trace_event *v) {
    const struct stream_info *si = &s->info;
    unsigned n = 0;
    if (!s->cfg->tracing->is_verbose) {
        return 0;
    }
    if (!is_upstream) {
        n = add_event(s, "last_downstream_rx_byte_received", si->last_rx_us, v, n);
    }
    n = add_event(s, "first_upstream_tx_byte_sent", si->up.first_tx_us, v, n);
    n = add_event(s, "last_upstream_tx_byte_sent", si->up.last_tx_us, v, n);
    n = add_event(s, "first_upstream_rx_byte_received", si->up.first_rx_us, v, n);
    n = add_event(s, "last_upstream_rx_byte_received", si->up.last_rx_us, v, n);
    if (!is_upstream) {
        n = add_event(s, "first_downstream_tx_byte_sent", si->first_tx_us, v, n);
        n = add_event(s, "last_downstream_tx_byte_sent", si->last_tx_us, v, n);
    }
    return n;
}

static void tell(const struct stream *s, const struct trace_span *span, const struct tags *t,
                 bool is_upstream) {
    struct trace_event events[TRACE_EVENTS_MAX];
    struct loop *l = s->hcm->loop;
    const struct trace_report r = {.tags = t->v,
                                   .tags_n = t->n,
                                   .events = events,
                                   .events_n = verbose_events(s, is_upstream, events),
                                   .end_us = loop_wall_us(l, loop_refresh_now(l)),
                                   .arena = t->arena};
    span->tracer->type->report(span, &r, s->hcm->worker);
}

/* ---- spans ---- */

static struct tags *begin(struct arena *a) {
    struct tags *t = arena_alloc(a, sizeof(*t));
    t->n = 0;
    t->arena = a;
    return t;
}

void tracing_report_downstream(const struct stream *s) {
    struct arena a;
    arena_init(&a, sizeof(struct tags) + 4096);
    struct tags *t = begin(&a);
    add(t, SV("node_id"), s->cfg->tracing->node_id);
    add(t, SV("zone"), s->cfg->tracing->node_zone);
    if (s->request.n) {
        add_request(t, s);
    }
    add_number(t, SV("request_size"), s->info.rx_bytes);
    add_number(t, SV("response_size"), s->info.tx_bytes);
    add_common(t, s, s->info.response_code, s->info.flags);
    add_grpc_status(t, s->response);
    add_grpc_status(t, s->response_trailers);
    tell(s, &s->tracing->span, t, false);
    arena_fini(&a);
}

void tracing_report_upstream(const struct router *r, const struct trace_attempt_end *how) {
    const struct stream *s = r->base.stream;
    struct arena a;
    arena_init(&a, sizeof(struct tags) + 4096);
    struct tags *t = begin(&a);
    if (r->attempts > 1) {
        add_number(t, SV("retry.count"), r->attempts - 1u);
    }
    unsigned code = r->had_attempt_headers ? headers_status(&r->response) : 0;
    if (code) {
        add_grpc_status(t, &r->response);
    }
    if (how->is_cancelled) {
        add(t, SV("canceled"), SV("true"));
    }
    if (how->reset_reason) {
        add(t, SV("error"), SV("true"));
        add(t, SV("error.reason"), sv_cstr(how->reset_reason));
    }
    add(t, SV("http.protocol"), protocol_text(r->has_attempt_stream, (uint8_t)s->info.up.protocol));
    if (r->up.host) {
        add(t, SV("upstream_address"), r->up.host->address_text);
        add(t, SV("peer.address"), r->up.host->address_text);
    }
    add_common(t, s, code, how->flags);
    tell(s, r->span, t, true);
    arena_fini(&a);
}
