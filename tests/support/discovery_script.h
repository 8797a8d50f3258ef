/* Scenarios of one subscription as text, for sotw.c and delta.c: steps parted by ';'.
 *   watch NAME, unwatch NAME, up, down, expire NAME
 *   resp NONCE VERSION RESOURCE…   a response that is delivered; RESOURCE is NAME[@VERSION] taken,
 * NAME[@VERSION]! refused,
 *                                  NAME~ a heartbeat, -NAME removed; err=TEXT refuses the whole
 *   drop NONCE                     a response that answers nothing
 *   expect REQUEST                 the request that is due: fields as render_request() writes them
 *   none                           no request is due
 *   wanted, unwanted
 * Requests are read back by the generated code, which knows nothing of our writer. */
#ifndef SLUICE_TESTS_SUPPORT_DISCOVERY_SCRIPT_H
#define SLUICE_TESTS_SUPPORT_DISCOVERY_SCRIPT_H

#include "protos/any.h"
#include "protos/gen/rpc.pb-c.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "proxy/base/mem.h"
#include "tests/support/unit.h"
#include "xds/subscription.h"

/* What scripts are about. */
static enum resource_type script_type = RES_ENDPOINTS;

#define SCRIPT_RESOURCES_MAX 16

struct script {
    const struct subscription_ops *ops;
    struct subscription *s;
    bool is_delta;
    struct arena a;
    const char *text;
    size_t step;
};

static inline void script_fail(const struct script *x, sv step, sv got) {
    fail_msg("step %zu '%.*s' of \"%s\": got '%.*s'", x->step, SV_ARG(step), x->text, SV_ARG(got));
}

static inline void script_list(struct buf *out, const char *label, size_t n, const char *const *v) {
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%s%s", i ? "," : label, v[i]);
    }
}

/* "v=1 names=a,b n=n1 err=text", fields that are empty left out. */
static inline void render_sotw(const ServiceDiscovery__DiscoveryRequest *r, struct buf *out) {
    buf_printf(out, "%s%s", *r->version_info ? " v=" : "", r->version_info);
    script_list(out, " names=", r->n_resource_names, r->resource_names);
    buf_printf(out, "%s%s", *r->response_nonce ? " n=" : "", r->response_nonce);
    if (r->error_detail) {
        assert_int_equal(r->error_detail->code, DISCOVERY_INTERNAL);
        buf_printf(out, " err=%s", r->error_detail->message);
    }
    buf_printf(out, "%s", r->node ? " node" : "");
}

/* "sub=a,b unsub=c init=a:1,b:2 n=n1 err=text" */
static inline void render_delta(const ServiceDiscovery__DeltaDiscoveryRequest *r, struct buf *out) {
    script_list(out, " sub=", r->n_resource_names_subscribe, r->resource_names_subscribe);
    script_list(out, " unsub=", r->n_resource_names_unsubscribe, r->resource_names_unsubscribe);
    size_t best = r->n_initial_resource_versions; /* in order of names: theirs has none */
    const char *after = "";
    for (size_t k = 0; k < r->n_initial_resource_versions; k++) {
        best = r->n_initial_resource_versions;
        for (size_t i = 0; i < r->n_initial_resource_versions; i++) {
            const char *key = r->initial_resource_versions[i]->key;
            if (strcmp(key, after) > 0 &&
                (best == r->n_initial_resource_versions ||
                 strcmp(key, r->initial_resource_versions[best]->key) < 0)) {
                best = i;
            }
        }
        assert_true(best < r->n_initial_resource_versions);
        after = r->initial_resource_versions[best]->key;
        buf_printf(out, "%s%s:%s", k ? "," : " init=", after,
                   r->initial_resource_versions[best]->value);
    }
    buf_printf(out, "%s%s", *r->response_nonce ? " n=" : "", r->response_nonce);
    if (r->error_detail) {
        assert_int_equal(r->error_detail->code, DISCOVERY_INTERNAL);
        buf_printf(out, " err=%s", r->error_detail->message);
    }
    buf_printf(out, "%s", r->node ? " node" : "");
}

static inline sv render_request(struct script *x, sv node) {
    struct buf BUF_AUTO wire;
    buf_init(&wire);
    x->ops->next_request(x->s, node, &wire);
    struct diag *d = xnew(struct diag);
    diag_init(d);
    sv bytes = buf_pullup(&wire, buf_len(&wire));
    struct buf BUF_AUTO out;
    buf_init(&out);
    const char *type_url = NULL;
    if (x->is_delta) {
        const ServiceDiscovery__DeltaDiscoveryRequest *r =
            PROTO_UNPACK(ServiceDiscovery__DeltaDiscoveryRequest,
                         service_discovery__delta_discovery_request__descriptor, bytes, &x->a, d);
        assert_non_null(r);
        render_delta(r, &out);
        type_url = r->type_url;
    } else {
        const ServiceDiscovery__DiscoveryRequest *r =
            PROTO_UNPACK(ServiceDiscovery__DiscoveryRequest,
                         service_discovery__discovery_request__descriptor, bytes, &x->a, d);
        assert_non_null(r);
        render_sotw(r, &out);
        type_url = r->type_url;
    }
    assert_string_equal(type_url, resource_types[script_type].type_url);
    diag_fini(d);
    xfree(d);
    return arena_sv(&x->a, sv_skip(buf_pullup(&out, buf_len(&out)), 1));
}

struct script_response {
    struct discovery_response r;
    struct xds_resource resources[SCRIPT_RESOURCES_MAX];
    bool accepted[SCRIPT_RESOURCES_MAX];
    sv removed[SCRIPT_RESOURCES_MAX];
    sv error;
};

static inline void script_resource(struct script_response *p, sv word) {
    if (sv_eat(&word, SV("err="))) {
        p->error = p->r.error = word;
        return;
    }
    if (sv_eat(&word, SV("-"))) {
        p->removed[p->r.removed_n++] = word;
        return;
    }
    unsigned i = p->r.resources_n++;
    bool is_bad = sv_ends(word, SV("!")), is_heartbeat = sv_ends(word, SV("~"));
    word.n -= is_bad || is_heartbeat;
    p->resources[i].name = sv_cut(&word, '@');
    p->resources[i].version = word;
    p->resources[i].wire = is_heartbeat ? SV_NULL : SV("x");
    p->accepted[i] = !is_bad;
    if (is_bad) {
        p->error = SV("bad");
    }
}

static inline void script_deliver(struct script *x, sv args, sv step) {
    struct script_response p = {.r = {.type = script_type}};
    p.r.nonce = sv_cut(&args, ' ');
    p.r.version = sv_cut(&args, ' ');
    p.r.resources = p.resources;
    p.r.removed = p.removed;
    while (args.n) {
        script_resource(&p, sv_cut(&args, ' '));
    }
    if (!x->ops->on_response(x->s, &p.r)) {
        script_fail(x, step, SV("dropped"));
    }
    if (p.r.error.n) {
        memset(p.accepted, 0, sizeof(p.accepted));
    }
    x->ops->on_verdict(x->s, &p.r, p.accepted, p.error);
}

static inline void script_expect(struct script *x, sv want, sv step) {
    if (!x->ops->has_request(x->s)) {
        script_fail(x, step, SV("no request"));
    }
    sv got = render_request(x, SV_NULL);
    if (!sv_eq(got, want)) {
        script_fail(x, step, got);
    }
}

static inline void script_step(struct script *x, sv step) {
    sv args = step, verb = sv_cut(&args, ' ');
    if (sv_is(verb, "watch")) {
        x->ops->watch(x->s, args);
    } else if (sv_is(verb, "unwatch")) {
        x->ops->unwatch(x->s, args);
    } else if (sv_is(verb, "expire")) {
        x->ops->on_expired(x->s, args);
    } else if (sv_is(verb, "up")) {
        x->ops->stream_up(x->s);
    } else if (sv_is(verb, "down")) {
        x->ops->stream_down(x->s);
    } else if (sv_is(verb, "resp")) {
        script_deliver(x, args, step);
    } else if (sv_is(verb, "drop")) {
        struct discovery_response r = {.nonce = args, .type = script_type};
        assert_false(x->ops->on_response(x->s, &r));
    } else if (sv_is(verb, "expect")) {
        script_expect(x, args, step);
    } else if (sv_is(verb, "none")) {
        if (x->ops->has_request(x->s)) {
            script_fail(x, step, render_request(x, SV_NULL));
        }
    } else if (sv_is(verb, "wanted") || sv_is(verb, "unwanted")) {
        assert_true(x->ops->is_wanted(x->s) == sv_is(verb, "wanted"));
    } else {
        script_fail(x, step, SV("unknown step"));
    }
}

static inline void run_script(const struct subscription_ops *ops, const char *text) {
    struct script x = {
        .ops = ops, .s = ops->make(script_type), .is_delta = ops == &delta_ops, .text = text};
    arena_init(&x.a, 0);
    sv rest = sv_cstr(text);
    while (rest.n) {
        x.step++;
        script_step(&x, sv_trim(sv_cut(&rest, ';')));
    }
    ops->free(x.s);
    arena_fini(&x.a);
    chunk_cache_trim();
}

#endif
