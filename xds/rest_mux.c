/* A mux that polls over REST: POST /v3/discovery:<type> with a DiscoveryRequest as JSON, again
 * refresh_delay (and up to as much more, by chance) after the last answer.
 * Threads: the config thread. Spec: the REST variant of xDS; core.v3.ApiConfigSource.refresh_delay,
 * request_timeout. What a request says is sotw.c's business, each as the first of a stream: no poll
 * refers to an earlier one, but for its version and what was refused of its answer. 304: nothing is
 * new. A request that names more than the last one that
 * was answered tells no version: to a server, the version alone says whether anything is new. */
#include <stdio.h>

#include "protos/any.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/mux_kind.h"
#include "xds/rest_call.h"
#include "xds/subscription.h"

#define PATH_MAX_BYTES 64
enum { HTTP_OK = 200, HTTP_NOT_MODIFIED = 304 };
enum { ERROR_DETAIL_FIELD = 6 }; /* of a DiscoveryRequest */

struct rest_mux {
    struct xds_mux mux;
    struct xds_mux_options opt; /* copied into the arena */
    struct arena arena;
    struct subscription *sub;
    struct rest_call *call; /* under way; NULL */
    struct buf refusal;     /* of the last answer, not told yet; empty: it was taken */
    struct timer refresh;
    struct loop_task task; /* what is wanted changed */
    unsigned paused;
    bool is_due;       /* other names are wanted than were asked for */
    bool is_widened;   /* and some of them were never answered */
    bool is_wide_call; /* the call asks for those */
    bool is_connected; /* the last exchange succeeded */
};

static struct rest_mux *mux_of(struct xds_mux *m) { return CONTAINER_OF(m, struct rest_mux, mux); }

static const char *const methods[RES_TYPES] = {
    [RES_CLUSTER] = "clusters",
    [RES_ENDPOINTS] = "endpoints",
    [RES_SECRET] = "secrets",
    [RES_LISTENER] = "listeners",
    [RES_SCOPED_ROUTE] = "scoped-routes",
    [RES_ROUTE] = "routes",
    [RES_EXTENSION] = "extension_configs",
    [RES_RUNTIME] = "runtime",
};

static const struct proto_type *type_named(const char *name) {
    const struct proto_type *t = any_type(sv_cstr(name));
    CHECK(t);
    return t;
}

/* ---- answers ---- */

static void set_connected(struct rest_mux *m, bool is_connected) {
    if (m->is_connected != is_connected) {
        m->is_connected = is_connected;
        if (m->mux.sink.on_connected) {
            m->mux.sink.on_connected(m->mux.sink.user, is_connected);
        }
    }
}

static void refresh_later(struct rest_mux *m) {
    uint64_t delay = m->opt.refresh_delay_ms;
    timer_start(&m->refresh, delay + rng_below(&m->mux.loop->rng, delay));
}

static bool parse_answer(struct rest_mux *m, sv body, struct arena *a,
                         struct discovery_response *out, struct diag *d) {
    ProtobufCMessage *msg =
        pb_json_parse_text(type_named("envoy.service.discovery.v3.DiscoveryResponse"), body,
                           PB_JSON_UNKNOWN_WARN, a, d);
    if (!msg) {
        return false;
    }
    ServiceDiscovery__DiscoveryResponse *r = (ServiceDiscovery__DiscoveryResponse *)(void *)msg;
    const char *url = resource_types[m->opt.only].type_url;
    if (!*r->type_url) {
        r->type_url = (char *)(uintptr_t)url;
    }
    r->nonce = (char *)(uintptr_t) "";
    if (!discovery_parse_sotw(proto_pack(msg, a), a, out)) {
        return diag_error(d, "malformed DiscoveryResponse");
    }
    return out->type == m->opt.only ||
           diag_error(d, "unexpected type URL '%.*s', expected '%s'", SV_ARG(out->type_url), url);
}

static void deliver(struct rest_mux *m, const struct discovery_response *r) {
    buf_clear(&m->refusal);
    bool *accepted = xnew_array(bool, r->resources_n + 1);
    if (sotw_ops.on_response(m->sub, r)) {
        mux_deliver(&m->mux, r, true, accepted, &m->refusal);
        sv error = buf_pullup(&m->refusal, buf_len(&m->refusal));
        sotw_ops.on_verdict(m->sub, r, accepted, error);
    }
    xfree(accepted);
}

static void take(struct rest_mux *m, sv body) {
    struct arena a;
    arena_init(&a, 0);
    struct diag *d = xnew(struct diag);
    diag_init(d);
    struct discovery_response r;
    if (parse_answer(m, body, &a, &r, d)) {
        set_connected(m, true);
        deliver(m, &r);
    } else {
        sv text = diag_text(d);
        mux_rejected(&m->mux, m->opt.only, text);
    }
    diag_fini(d);
    xfree(d);
    arena_fini(&a);
}

static void on_done(void *user, const struct rest_call_result *r) {
    struct rest_mux *m = user;
    m->call = NULL;
    m->is_widened |= m->is_wide_call && r->code != HTTP_OK;
    if (r->code == HTTP_OK) {
        take(m, r->body);
    } else if (r->code == HTTP_NOT_MODIFIED) {
        set_connected(m, true);
    } else {
        log_warn_limited(LOG_config, "REST config for %s from %.*s failed: %s (status %u)",
                         resource_types[m->opt.only].type_url, SV_ARG(m->opt.authority),
                         r->error ? r->error : "not what was asked for", r->code);
        set_connected(m, false);
        mux_failed(&m->mux, m->opt.only);
    }
    if (m->is_due) {
        loop_queue_task(m->mux.loop, &m->task);
        return;
    }
    refresh_later(m);
}

/* ---- requests ---- */

/* The subscription's request as JSON. */
static void make_body(struct rest_mux *m, struct buf *out) {
    struct buf BUF_AUTO wire;
    struct arena a;
    struct diag *d = xnew(struct diag);
    arena_init(&a, 0);
    diag_init(d);
    buf_init(&wire);
    sotw_ops.stream_up(m->sub);
    sotw_ops.next_request(m->sub, m->opt.node, &wire);
    if (!buf_empty(&m->refusal)) {
        wire_put_error(&wire, ERROR_DETAIL_FIELD, buf_pullup(&m->refusal, buf_len(&m->refusal)));
        buf_clear(&m->refusal);
    }
    ServiceDiscovery__DiscoveryRequest *r = PROTO_UNPACK(
        ServiceDiscovery__DiscoveryRequest, service_discovery__discovery_request__descriptor,
        buf_pullup(&wire, buf_len(&wire)), &a, d);
    if (!BUG(!r)) {
        if (m->is_widened) {
            r->version_info = (char *)(uintptr_t) "";
        }
        pb_json_append(out, &r->base, 0, 0);
    }
    diag_fini(d);
    xfree(d);
    arena_fini(&a);
}

static void poll_now(struct rest_mux *m) {
    if (m->call || m->paused || !sotw_ops.is_wanted(m->sub)) {
        return;
    }
    struct buf BUF_AUTO body;
    char path[PATH_MAX_BYTES];
    buf_init(&body);
    make_body(m, &body);
    int n = snprintf(path, sizeof(path), "/v3/discovery:%s", methods[m->opt.only]);
    timer_cancel(&m->refresh);
    m->is_wide_call = m->is_widened;
    m->is_due = m->is_widened = false;
    m->call = rest_call_start(m->opt.dialer, sv_from(path, (size_t)n), m->opt.authority, &body,
                              m->opt.request_timeout_ms, on_done, m);
}

static void on_refresh(struct timer *t) { poll_now(CONTAINER_OF(t, struct rest_mux, refresh)); }

static void run(struct loop_task *t) {
    struct rest_mux *m = CONTAINER_OF(t, struct rest_mux, task);
    if (m->is_due) {
        poll_now(m);
    }
}

/* ---- calls ---- */

static void changed(struct rest_mux *m) {
    m->is_due = true;
    loop_queue_task(m->mux.loop, &m->task);
}

static void rest_watch(struct xds_mux *mux, enum resource_type t, sv name) {
    (void)t;
    struct rest_mux *m = mux_of(mux);
    sotw_ops.watch(m->sub, name);
    m->is_widened = true;
    changed(m);
}

static void rest_unwatch(struct xds_mux *mux, enum resource_type t, sv name) {
    sotw_ops.unwatch(mux_of(mux)->sub, name);
    mux_forget_ttl(mux, t, name); /* the next poll does not name it */
}

static void rest_pause(struct xds_mux *mux, enum resource_type t, bool pause) {
    struct rest_mux *m = mux_of(mux);
    (void)t;
    if (pause) {
        m->paused++;
    } else if (!BUG(m->paused == 0) && --m->paused == 0) {
        changed(m);
    }
}

static bool rest_is_connected(const struct xds_mux *mux) {
    return CONTAINER_OF(mux, struct rest_mux, mux)->is_connected;
}

static void rest_free(struct xds_mux *mux) {
    struct rest_mux *m = mux_of(mux);
    if (m->call) {
        rest_call_cancel(m->call);
    }
    timer_cancel(&m->refresh);
    loop_cancel_task(&m->task);
    sotw_ops.free(m->sub);
    buf_fini(&m->refusal);
    mux_fini(mux);
    arena_fini(&m->arena);
    xfree(m);
}

static const struct xds_mux_ops rest_mux_ops = {
    .free = rest_free,
    .watch = rest_watch,
    .unwatch = rest_unwatch,
    .pause = rest_pause,
    .is_connected = rest_is_connected,
};

struct xds_mux *rest_mux_new(struct loop *l, const struct xds_mux_options *o,
                             const struct xds_sink *sink) {
    if (!methods[o->only]) {
        return NULL;
    }
    struct rest_mux *m = xnew(struct rest_mux);
    arena_init(&m->arena, 0);
    m->opt = *o;
    m->opt.node = arena_sv(&m->arena, o->node);
    m->opt.authority = arena_sv(&m->arena, o->authority);
    mux_init(&m->mux, &rest_mux_ops, l, sink);
    timer_init(&m->refresh, l, on_refresh);
    m->task.run = run;
    m->sub = sotw_ops.make(o->only);
    buf_init(&m->refusal);
    return &m->mux;
}
