/* Discovery messages on the wire: see discovery_wire.h. A hand-written reader, because a generated
 * one would copy every resource twice: a 64 MB response costs one pass over its headers.
 * Threads: the arena's owner. Spec: protobuf encoding; service.discovery.v3. */
#include "xds/discovery_wire.h"

#include "protos/any.h"
#include "protos/wire.h"
#include "proxy/base/log.h"
#include "proxy/base/vec.h"

struct field {
    uint64_t number;
    uint64_t value; /* varints */
    sv bytes;       /* WIRE_BYTES */
    enum wire_type kind;
};

/* ---- reading ---- */

static bool eat_field(sv *w, struct field *f) {
    struct wire_field x;
    if (!wire_eat_field(w, &x)) {
        return false;
    }
    *f = (struct field){.number = x.number, .bytes = x.value, .kind = x.type};
    return x.type != WIRE_VARINT || wire_eat_varint(&x.value, &f->value);
}

/* A name, version, nonce or URL: it may be sent back, so it has to be what a string may hold. */
static bool is_text(sv s) {
    return s.n <= XDS_NAME_MAX && sv_is_utf8(s) && sv_find(s, '\0') == SIZE_MAX;
}

static bool take_text(const struct field *f, sv *out) {
    *out = f->bytes;
    return f->kind == WIRE_BYTES && is_text(f->bytes);
}

/* The one string in field `number` of a small message (ControlPlane.identifier,
 * ResourceName.name). */
static bool inner_text(const struct field *outer, uint64_t number, sv *out) {
    sv w = outer->bytes;
    struct field f;
    if (outer->kind != WIRE_BYTES) {
        return false;
    }
    while (w.n) {
        if (!eat_field(&w, &f) || (f.number == number && !take_text(&f, out))) {
            return false;
        }
    }
    return true;
}

static bool parse_duration_ms(const struct field *outer, uint64_t *ms) {
    sv w = outer->bytes;
    struct field f;
    uint64_t seconds = 0, nanos = 0;
    if (outer->kind != WIRE_BYTES) {
        return false;
    }
    while (w.n) {
        if (!eat_field(&w, &f)) {
            return false;
        }
        if (f.kind == WIRE_VARINT && f.number == 1) {
            seconds = f.value;
        } else if (f.kind == WIRE_VARINT && f.number == 2) {
            nanos = f.value;
        }
    }
    /* as google.protobuf.Duration limits it; negative ones too */
    if (seconds > 315576000000u || nanos > 999999999u) {
        return false;
    }
    *ms = seconds * 1000 + nanos / 1000000;
    return true;
}

struct any_view {
    sv type_url, value;
};

static bool parse_any(const struct field *outer, struct any_view *out) {
    sv w = outer->bytes;
    struct field f;
    *out = (struct any_view){SV_NULL, SV("")};
    if (outer->kind != WIRE_BYTES) {
        return false;
    }
    while (w.n) {
        if (!eat_field(&w, &f)) {
            return false;
        }
        if (f.number == 1 && !take_text(&f, &out->type_url)) {
            return false;
        }
        if (f.number == 2) {
            if (f.kind != WIRE_BYTES) {
                return false;
            }
            out->value = f.bytes;
        }
    }
    return true;
}

/* ---- responses ---- */

VEC_TYPE(resource_views, struct xds_resource)
VEC_TYPE(name_views, sv)

struct parse {
    struct arena *arena;
    struct discovery_response *out;
    struct resource_views resources;
    struct name_views removed;
    unsigned errors_told;
};

/* An Any that is not of the response's type: the whole response is refused. */
static void check_type(struct parse *p, sv type_url) {
    if (sv_eq(any_url_name(type_url), any_url_name(p->out->type_url)) || p->out->error.n) {
        return;
    }
    p->out->error = arena_printf(
        p->arena,
        "type URL %.*s embedded in an individual Any does not match the message-wide type "
        "URL %.*s in DiscoveryResponse",
        SV_ARG(type_url), SV_ARG(p->out->type_url));
}

/* Resource: name 3, resource_name 8, version 1, resource 2, ttl 6. */
static bool parse_resource(struct parse *p, sv w, struct xds_resource *r) {
    struct field f;
    struct any_view any;
    while (w.n) {
        if (!eat_field(&w, &f)) {
            return false;
        }
        bool ok = true;
        switch (f.number) {
        case 1:
            ok = take_text(&f, &r->version);
            break;
        case 2:
            ok = parse_any(&f, &any);
            if (ok) {
                check_type(p, any.type_url);
                r->wire = any.value;
            }
            break;
        case 3:
            ok = take_text(&f, &r->name);
            break;
        case 6:
            ok = parse_duration_ms(&f, &r->ttl_ms);
            break;
        case 8:
            ok = inner_text(&f, 1, &r->name);
            break;
        default:
            break;
        }
        if (!ok) {
            return false;
        }
    }
    return true;
}

static struct xds_resource *add_resource(struct parse *p) {
    return p->resources.n < XDS_RESOURCES_MAX ? vec_push(&p->resources) : NULL;
}

static bool add_sotw_resource(struct parse *p, const struct field *f) {
    struct any_view any;
    struct xds_resource *r = add_resource(p);
    if (!r || !parse_any(f, &any)) {
        return false;
    }
    if (!sv_is(any_url_name(any.type_url), "envoy.service.discovery.v3.Resource")) {
        check_type(p, any.type_url);
        *r = (struct xds_resource){.version = p->out->version, .wire = any.value};
        return true;
    }
    if (!parse_resource(p, any.value, r)) {
        return false;
    }
    r->version = p->out->version;
    if (!r->name.n && r->wire.p && p->out->type < RES_TYPES) {
        return inner_text(&(struct field){.kind = WIRE_BYTES, .bytes = r->wire}, 1, &r->name);
    }
    return true;
}

static bool add_delta_resource(struct parse *p, const struct field *f) {
    struct xds_resource *r = add_resource(p);
    if (!r || f->kind != WIRE_BYTES) {
        return false;
    }
    r->envelope = f->bytes;
    return parse_resource(p, f->bytes, r);
}

static bool add_removed(struct parse *p, const struct field *f, bool is_message) {
    sv name = SV_NULL;
    if (p->removed.n >= XDS_RESOURCES_MAX ||
        !(is_message ? inner_text(f, 1, &name) : take_text(f, &name))) {
        return false;
    }
    *vec_push(&p->removed) = name;
    return true;
}

/* ResourceError {resource_name 1 {name 1}, error_detail 2 {code 1, message 2}}: the server can't
 * give a resource. What is in use stays; an operator is told. */
static bool tell_error(struct parse *p, const struct field *outer) {
    sv w = outer->bytes, name = SV_NULL, text = SV_NULL;
    struct field f;
    if (outer->kind != WIRE_BYTES) {
        return false;
    }
    while (w.n) {
        if (!eat_field(&w, &f) || (f.number == 1 && !inner_text(&f, 1, &name))) {
            return false;
        }
        if (f.number == 2 && !inner_text(&f, 2, &text)) {
            return false;
        }
    }
    if (p->errors_told++ < XDS_RESOURCE_ERRORS_MAX) {
        log_warn(LOG_config, "control plane reports an error of resource '%.*s': %.*s",
                 SV_ARG(name), SV_ARG(text));
    }
    return true;
}

/* Version and type first: resources may stand before them. */
static bool parse_head(sv w, uint64_t control_plane_field, struct discovery_response *out) {
    struct field f;
    while (w.n) {
        if (!eat_field(&w, &f)) {
            return false;
        }
        bool ok = f.number == 1                     ? take_text(&f, &out->version)
                  : f.number == 4                   ? take_text(&f, &out->type_url)
                  : f.number == 5                   ? take_text(&f, &out->nonce)
                  : f.number == control_plane_field ? inner_text(&f, 1, &out->control_plane)
                                                    : true;
        if (!ok) {
            return false;
        }
    }
    out->type = resource_type_of(out->type_url);
    return true;
}

static bool parse_body(struct parse *p, sv w,
                       bool (*each)(struct parse *p, const struct field *f)) {
    struct field f;
    while (w.n) {
        if (!eat_field(&w, &f) || !each(p, &f)) {
            return false;
        }
    }
    return true;
}

static bool sotw_field(struct parse *p, const struct field *f) {
    return f->number == 2 ? add_sotw_resource(p, f) : f->number == 7 ? tell_error(p, f) : true;
}

static bool delta_field(struct parse *p, const struct field *f) {
    switch (f->number) {
    case 2:
        return add_delta_resource(p, f);
    case 6:
        return add_removed(p, f, false);
    case 8:
        return add_removed(p, f, true);
    case 9:
        return tell_error(p, f);
    default:
        return true;
    }
}

static bool parse(sv w, uint64_t control_plane_field,
                  bool (*each)(struct parse *p, const struct field *f), struct arena *a,
                  struct discovery_response *out) {
    *out = (struct discovery_response){.type = RES_TYPES};
    struct parse p = {.arena = a, .out = out};
    bool ok = parse_head(w, control_plane_field, out) && parse_body(&p, w, each);
    if (ok) {
        out->resources_n = (unsigned)p.resources.n;
        out->removed_n = (unsigned)p.removed.n;
        out->resources = arena_alloc(a, p.resources.n * sizeof(*p.resources.p));
        sv *removed = arena_alloc(a, p.removed.n * sizeof(sv));
        if (p.resources.n) {
            memcpy(out->resources, p.resources.p, p.resources.n * sizeof(*p.resources.p));
        }
        if (p.removed.n) {
            memcpy(removed, p.removed.p, p.removed.n * sizeof(sv));
        }
        out->removed = removed;
    }
    vec_fini(&p.resources);
    vec_fini(&p.removed);
    return ok;
}

bool discovery_parse_sotw(sv wire, struct arena *a, struct discovery_response *out) {
    return parse(wire, 6, sotw_field, a, out);
}

bool discovery_parse_delta(sv wire, struct arena *a, struct discovery_response *out) {
    return parse(wire, 7, delta_field, a, out);
}

/* ---- requests ---- */

void wire_put_varint(struct buf *b, uint64_t v) {
    char out[10];
    size_t n = 0;
    while (v >= 0x80) {
        out[n++] = (char)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (char)v;
    buf_append(b, out, n);
}

void wire_put_bytes(struct buf *b, unsigned field, sv bytes) {
    wire_put_varint(b, (uint64_t)field << 3 | WIRE_BYTES);
    wire_put_varint(b, bytes.n);
    buf_append_sv(b, bytes);
}

void wire_put_string(struct buf *b, unsigned field, sv s) {
    if (s.n) {
        wire_put_bytes(b, field, s);
    }
}

/* Error texts quote what peers sent: what is not UTF-8 becomes '?'. */
static void append_utf8(struct buf *b, sv text) {
    while (text.n) {
        unsigned n = sv_utf8_seq(text);
        if (n == 0 || *text.p == '\0') {
            buf_lit(b, "?");
            n = 1;
        } else {
            buf_append(b, text.p, n);
        }
        text = sv_skip(text, n);
    }
}

void wire_put_error(struct buf *b, unsigned field, sv text) {
    struct buf BUF_AUTO status;
    buf_init(&status);
    wire_put_varint(&status, 1u << 3 | WIRE_VARINT);
    wire_put_varint(&status, DISCOVERY_INTERNAL);
    if (sv_is_utf8(text) && sv_find(text, '\0') == SIZE_MAX) {
        wire_put_string(&status, 2, text);
    } else {
        struct buf BUF_AUTO clean;
        buf_init(&clean);
        append_utf8(&clean, text);
        wire_put_string(&status, 2, buf_pullup(&clean, buf_len(&clean)));
    }
    wire_put_bytes(b, field, buf_pullup(&status, buf_len(&status)));
}
