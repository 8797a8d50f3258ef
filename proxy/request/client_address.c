/* The client's address: see client_address.h. What an extension finds wins; without one it is the
 * connection's, or that of x-forwarded-for behind the trusted hops.
 * Threads: compiled on the config thread; worker-local. */
#include "proxy/request/client_address.h"

#include "protos/any.h"
#include "protos/gen/http_original_ip_detection_custom_header.pb-c.h"
#include "protos/gen/http_original_ip_detection_xff.pb-c.h"

struct ip_detection {
    const struct ip_detection *next;
    sv header; /* lower-case, of an extension that looks at this one; empty: x-forwarded-for */
    bool is_trusted;       /* the header's address may be an internal one */
    uint16_t refuses_with; /* the status for requests without a good header; 0: does not */
    uint32_t hops;
    const struct cidr *trusted; /* in place of hops when trusted_n > 0 */
    unsigned trusted_n;
    bool appends; /* to x-forwarded-for, found or not */
};

/* ---- configuration ---- */

#define DETECTION "envoy.extensions.http.original_ip_detection."
#define FIRST_ERROR 400
#define FORBIDDEN 403

static void compile_trusted(struct compile_ctx *ctx,
                            const HttpOriginalIpDetectionXff__XffTrustedCidrs *m,
                            struct ip_detection *d) {
    DIAG_FIELD(ctx->diag, "xff_trusted_cidrs");
    struct cidr *v = arena_new_array(ctx->arena, struct cidr, m->n_cidrs);
    for (size_t i = 0; i < m->n_cidrs; i++) {
        const Core__CidrRange *r = m->cidrs[i];
        DIAG_FIELD(ctx->diag, "cidrs[%zu]", i);
        uint32_t bits = r->prefix_len ? r->prefix_len->value : 0;
        if (!cidr_make(sv_cstr(r->address_prefix), bits, &v[i])) {
            diag_error(ctx->diag, "invalid ip/mask combo '%s/%u'", r->address_prefix, bits);
        }
    }
    d->trusted = v;
    d->trusted_n = (unsigned)m->n_cidrs;
}

static void compile_xff(struct compile_ctx *ctx, const HttpOriginalIpDetectionXff__XffConfig *m,
                        struct ip_detection *d) {
    d->hops = m->xff_num_trusted_hops;
    d->appends = m->skip_xff_append && !m->skip_xff_append->value;
    if (m->xff_trusted_cidrs) {
        if (d->hops) {
            diag_error(ctx->diag, "Cannot set both xff_num_trusted_hops and xff_trusted_cidrs");
        }
        compile_trusted(ctx, m->xff_trusted_cidrs, d);
    }
}

static void compile_header(struct compile_ctx *ctx,
                           const HttpOriginalIpDetectionCustomHeader__CustomHeaderConfig *m,
                           struct ip_detection *d) {
    sv name = sv_cstr(m->header_name);
    char *lower = arena_cstr(ctx->arena, name);
    for (size_t i = 0; i < name.n; i++) {
        lower[i] = ascii_tolower(lower[i]);
    }
    d->header = sv_from(lower, name.n);
    d->is_trusted = m->allow_extension_to_set_address_as_trusted;
    if (m->reject_with_status) {
        unsigned code = (unsigned)m->reject_with_status->code;
        d->refuses_with = (uint16_t)(code >= FIRST_ERROR ? code : FORBIDDEN);
    }
}

static void compile_one(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e,
                        struct ip_detection *d) {
    const char *type = NULL;
    const void *m = compile_any(ctx, sv_cstr(e->name), e->typed_config, NULL, &type);
    if (!m) {
        return;
    }
    sv name = sv_cstr(type);
    if (sv_is(name, DETECTION "xff.v3.XffConfig")) {
        compile_xff(ctx, m, d);
    } else if (sv_is(name, DETECTION "custom_header.v3.CustomHeaderConfig")) {
        compile_header(ctx, m, d);
    } else {
        diag_error(ctx->diag, "Original IP detection extension not found: '%s'", e->name);
    }
}

const struct ip_detection *ip_detections_compile(struct compile_ctx *ctx, const void *const *msgs,
                                                 size_t n) {
    struct ip_detection *v = arena_new_array(ctx->arena, struct ip_detection, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "original_ip_detection_extensions[%zu].typed_config", i);
        compile_one(ctx, msgs[i], &v[i]);
        v[i].next = i + 1 < n ? &v[i + 1] : NULL;
    }
    return n ? v : NULL;
}

/* ---- x-forwarded-for ---- */

/* Takes the last address off the list; false: it is no IP literal, or there is none. */
static bool last_address(sv *list, struct addr *out) {
    if (!list->p) {
        return false;
    }
    size_t comma = sv_rfind(*list, ',');
    sv last = sv_trim(comma == SIZE_MAX ? *list : sv_skip(*list, comma + 1));
    *list = comma == SIZE_MAX ? SV_NULL : sv_sub(*list, 0, comma);
    return addr_parse_ip(last, 0, out);
}

/* The address `hops` from the right; false when it is not an IP literal or not there. */
static bool address_behind(sv list, uint32_t hops, struct addr *out) {
    for (uint32_t i = 0; i < hops; i++) {
        size_t comma = sv_rfind(list, ',');
        if (comma == SIZE_MAX) {
            return false;
        }
        list.n = comma;
    }
    return last_address(&list, out);
}

static bool is_single_address(sv list) { return sv_find(list, ',') == SIZE_MAX; }

/* Several lines are one list. */
static void join_xff(struct stream *s) {
    struct headers *h = &s->request;
    struct header *first = headers_find(h, HDR_x_forwarded_for);
    if (!first) {
        return;
    }
    sv list = first->value;
    unsigned lines = 0;
    HEADERS_FOREACH (it, h) {
        if (it->id == HDR_x_forwarded_for && lines++) {
            list = arena_printf(&s->arena, "%.*s,%.*s", SV_ARG(list), SV_ARG(it->value));
        }
    }
    if (lines > 1) {
        headers_set(h, HDR_x_forwarded_for, list);
    }
}

sv client_ip_text(struct stream *s, const struct addr *a) {
    char text[ADDR_STR_MAX];
    size_t n = addr_ip_str(a, text);
    if (s->cfg->ipv4_mapped_ipv6 && a->family == AF_INET) {
        return arena_printf(&s->arena, "::ffff:%.*s", (int)n, text);
    }
    return arena_sv(&s->arena, sv_from(text, n));
}

/* The connection's own address, or ours where it is of this very host. */
static void append_xff(struct stream *s) {
    const struct addr *remote = &s->info.cx->remote;
    const struct addr *own = worker_local_address(s->hcm->worker);
    if (addr_is_loopback(remote) && own->family) {
        remote = own;
    }
    if (remote->family != AF_INET && remote->family != AF_INET6) {
        return;
    }
    sv ip = client_ip_text(s, remote), list = headers_get(&s->request, HDR_x_forwarded_for);
    headers_set(&s->request, HDR_x_forwarded_for,
                list.n ? arena_printf(&s->arena, "%.*s,%.*s", SV_ARG(list), SV_ARG(ip)) : ip);
}

/* ---- who it is ---- */

static bool is_within(const struct cidr *v, unsigned n, const struct addr *a) {
    for (unsigned i = 0; i < n; i++) {
        if (cidr_contains(&v[i], a)) {
            return true;
        }
    }
    return false;
}

bool hcm_is_internal_address(const struct hcm_config *c, const struct addr *a) {
    if (!addr_is_ip(a)) {
        return false;
    }
    return c->internal_cidrs_n ? is_within(c->internal_cidrs, c->internal_cidrs_n, a)
                               : c->trusts_private && addr_is_internal(a);
}

/* The last address that is not one of the trusted, else the first; false: there is none, or what is
 * between is no IP literal. */
static bool address_behind_trusted(const struct ip_detection *d, sv list, struct addr *out) {
    if (!list.p) {
        return false;
    }
    do {
        if (!last_address(&list, out)) {
            return false;
        }
    } while (list.p && is_within(d->trusted, d->trusted_n, out));
    return true;
}

static bool is_from_trusted(const struct ip_detection *d, const struct stream *s) {
    return is_within(d->trusted, d->trusted_n, &s->info.cx->remote);
}

static bool detect(const struct ip_detection *d, struct stream *s, struct client *out) {
    if (d->header.n) {
        out->may_be_internal = d->is_trusted;
        return addr_parse_ip(headers_get_name(&s->request, d->header), 0, &out->address);
    }
    sv list = headers_get(&s->request, HDR_x_forwarded_for);
    out->may_be_internal = is_single_address(list);
    if (d->trusted_n) {
        return is_from_trusted(d, s) && address_behind_trusted(d, list, &out->address);
    }
    return address_behind(list, d->hops, &out->address);
}

static struct client by_extensions(struct stream *s) {
    struct client found = {.refused = 0};
    for (const struct ip_detection *d = s->cfg->detections; d; d = d->next) {
        bool is_found = detect(d, s, &found);
        if (d->appends || (d->trusted_n && !is_from_trusted(d, s))) { /* as Envoy */
            append_xff(s);
        }
        if (is_found) {
            return found;
        }
        if (d->refuses_with) {
            return (struct client){.address = s->info.cx->remote, .refused = d->refuses_with};
        }
    }
    return (struct client){.address = s->info.cx->remote};
}

/* Of the list that came, before we append to it. */
static struct client by_connection(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    sv list = headers_get(&s->request, HDR_x_forwarded_for);
    struct client found = {.may_be_internal = !headers_has(&s->request, HDR_x_forwarded_for)};
    if (!c->xff_trusted_hops || !address_behind(list, c->xff_trusted_hops - 1, &found.address)) {
        found.address = s->info.cx->remote;
    }
    if (!c->skip_xff_append) {
        append_xff(s);
    }
    return found;
}

struct client client_find(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    join_xff(s);
    if (c->use_remote_address) {
        return by_connection(s);
    }
    if (c->detections) {
        return by_extensions(s);
    }
    sv list = headers_get(&s->request, HDR_x_forwarded_for);
    struct client found = {.may_be_internal = is_single_address(list)};
    if (!address_behind(list, c->xff_trusted_hops, &found.address)) {
        found = (struct client){.address = s->info.cx->remote};
    }
    return found;
}
