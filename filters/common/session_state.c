/* Session states by cookie, header and envelope: a host's address in base64.
 * Threads: config immutable. Spec: extensions.http.stateful_session.{cookie,header,envelope}.v3. A
 * cookie holds a message { string address = 1; int64 expires = 2; } or, as older proxies wrote it,
 * the bare address; an envelope "<address>;UV:<the server's own value>". */
#include "filters/common/session_state.h"

#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_stateful_session_cookie.pb-c.h"
#include "protos/gen/http_stateful_session_envelope.pb-c.h"
#include "protos/gen/http_stateful_session_header.pb-c.h"
#include "protos/wire.h"
#include "proxy/api/matcher.h"
#include "proxy/base/base64.h"

#define ENVELOPE_MARK ";UV:"
#define COOKIE_FIELD_ADDRESS 1
#define COOKIE_FIELD_EXPIRES 2

enum session_kind { SESSION_COOKIE, SESSION_HEADER, SESSION_ENVELOPE };

struct session_state {
    enum session_kind kind;
    sv name;
    /* cookies */
    uint64_t ttl_s; /* 0: for the browser's session */
    sv path;        /* empty: all */
    sv attributes;  /* "; Max-Age=…; Path=…; HttpOnly", rendered */
};

/* ---- compile ---- */

static bool compile_cookie(struct compile_ctx *ctx, const void *msg, struct session_state *out) {
    const HttpStatefulSessionCookie__CookieBasedSessionState *m =
        (const HttpStatefulSessionCookie__CookieBasedSessionState *)msg;
    const TypeHttp__Cookie *c = m->cookie;
    if (!c || !c->name[0]) {
        return diag_error(ctx->diag,
                          "cookie.name: value length must be at least 1 characters: Cookie key "
                          "cannot be empty for cookie based stateful sessions");
    }
    if (c->ttl && (c->ttl->seconds < 0 || c->ttl->nanos < 0)) {
        return diag_error(ctx->diag, "cookie.ttl: value must be greater than or equal to 0s");
    }
    out->kind = SESSION_COOKIE;
    out->name = arena_sv(ctx->arena, sv_cstr(c->name));
    out->ttl_s = c->ttl ? (uint64_t)c->ttl->seconds : 0;
    out->path = arena_sv(ctx->arena, sv_cstr(c->path));
    sv text = SV("");
    if (out->ttl_s) {
        text = arena_printf(ctx->arena, "; Max-Age=%llu", (unsigned long long)out->ttl_s);
    }
    if (out->path.n) {
        text = arena_printf(ctx->arena, "%.*s; Path=%s", SV_ARG(text), c->path);
    }
    for (size_t i = 0; i < c->n_attributes; i++) {
        const TypeHttp__CookieAttribute *a = c->attributes[i];
        text = arena_printf(ctx->arena, "%.*s; %s%s%s", SV_ARG(text), a->name,
                            a->value[0] ? "=" : "", a->value);
    }
    out->attributes = arena_printf(ctx->arena, "%.*s; HttpOnly", SV_ARG(text));
    return true;
}

static bool compile_name(struct compile_ctx *ctx, const char *field, const char *name,
                         struct session_state *out) {
    sv given = sv_cstr(name);
    char *lower = arena_alloc(ctx->arena, given.n + 1);
    for (size_t i = 0; i < given.n; i++) {
        lower[i] = ascii_tolower(given.p[i]);
    }
    out->name = sv_from(lower, given.n);
    if (!header_name_valid(out->name)) {
        return diag_error(ctx->diag, "%s: a header's name is required", field);
    }
    return true;
}

static bool compile_header(struct compile_ctx *ctx, const void *msg, struct session_state *out) {
    const HttpStatefulSessionHeader__HeaderBasedSessionState *m =
        (const HttpStatefulSessionHeader__HeaderBasedSessionState *)msg;
    out->kind = SESSION_HEADER;
    return compile_name(ctx, "name", m->name, out);
}

static bool compile_envelope(struct compile_ctx *ctx, const void *msg, struct session_state *out) {
    const HttpStatefulSessionEnvelope__EnvelopeSessionState *m =
        (const HttpStatefulSessionEnvelope__EnvelopeSessionState *)msg;
    out->kind = SESSION_ENVELOPE;
    return compile_name(ctx, "header.name", m->header ? m->header->name : "", out);
}

static const struct {
    const char *type;
    bool (*compile)(struct compile_ctx *ctx, const void *msg, struct session_state *out);
} kinds[] = {
    {"envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState", compile_cookie},
    {"envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState", compile_header},
    {"envoy.extensions.http.stateful_session.envelope.v3.EnvelopeSessionState", compile_envelope},
};

const struct session_state *session_state_compile(struct compile_ctx *ctx, const void *msg) {
    const Core__TypedExtensionConfig *m = (const Core__TypedExtensionConfig *)msg;
    DIAG_FIELD(ctx->diag, "typed_config");
    sv name = sv_cstr(m->name);
    const char *type;
    const void *config = compile_any(ctx, name, m->typed_config, NULL, &type);
    if (!config) {
        return NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (!strcmp(type, kinds[i].type)) {
            struct session_state *s = arena_new(ctx->arena, struct session_state);
            return kinds[i].compile(ctx, config, s) ? s : NULL;
        }
    }
    diag_error(ctx->diag, "Didn't find a registered implementation for '%.*s' with type URL: '%s'",
               SV_ARG(name), type);
    return NULL;
}

/* ---- base64 ---- */

/* Padding must be there, as Envoy wants it. Empty: not base64. */
static sv decode(sv text, struct arena *a) {
    if (!text.n || text.n % 4) {
        return SV_NULL;
    }
    char *to = arena_alloc(a, BASE64_DECODED_MAX(text.n));
    size_t n = base64_decode(text, BASE64_STANDARD, to);
    return n == SIZE_MAX ? SV_NULL : sv_from(to, n);
}

static sv encode(sv bytes, struct arena *a) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    base64_encode(&b, bytes, BASE64_STANDARD);
    return arena_sv(a, buf_pullup(&b, buf_len(&b)));
}

/* ---- cookies ---- */

/* Is the request's path below the cookie's? */
static bool path_matches(sv cookie, sv path) {
    if (!cookie.n || sv_is(cookie, "/")) {
        return true;
    }
    if (!sv_starts(path, cookie)) {
        return false;
    }
    char next = path.n > cookie.n ? path.p[cookie.n] : '/';
    return cookie.p[cookie.n - 1] == '/' || next == '/' || next == '?' || next == '#';
}

struct cookie_message {
    sv address;
    uint64_t expires_s; /* 0: never */
};

/* One field off the front; false: this is no message. */
static bool eat_field(sv *wire, struct cookie_message *out) {
    struct wire_field f;
    if (!wire_eat_field(wire, &f)) {
        return false;
    }
    if (f.number == COOKIE_FIELD_EXPIRES && f.type == WIRE_VARINT) {
        return wire_eat_varint(&f.value, &out->expires_s);
    }
    if (f.number == COOKIE_FIELD_ADDRESS && f.type == WIRE_BYTES) {
        out->address = f.value;
    }
    return true;
}

static sv address_of_cookie(sv bytes, uint64_t now_s) {
    struct cookie_message m = {.address = SV_NULL};
    for (sv rest = bytes; rest.n;) {
        if (!eat_field(&rest, &m)) {
            return bytes;
        }
    }
    bool is_expired = m.expires_s && (int64_t)m.expires_s < (int64_t)now_s;
    return is_expired ? SV_NULL : m.address;
}

static void append_varint(struct buf *b, uint64_t n) {
    for (; n > 0x7f; n >>= 7) {
        buf_append_sv(b, sv_from((char[]){(char)(n | 0x80)}, 1));
    }
    buf_append_sv(b, sv_from((char[]){(char)n}, 1));
}

static void set_cookie(const struct session_state *s, struct headers *h, sv host, uint64_t now_s) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    append_varint(&b, COOKIE_FIELD_ADDRESS << 3 | WIRE_BYTES);
    append_varint(&b, host.n);
    buf_append_sv(&b, host);
    if (s->ttl_s) {
        append_varint(&b, COOKIE_FIELD_EXPIRES << 3 | WIRE_VARINT);
        append_varint(&b, now_s + s->ttl_s);
    }
    sv value = encode(buf_pullup(&b, buf_len(&b)), h->arena);
    headers_add_id(h, HDR_set_cookie,
                   arena_printf(h->arena, "%.*s=\"%.*s\"%.*s", SV_ARG(s->name), SV_ARG(value),
                                SV_ARG(s->attributes)));
}

/* ---- envelopes ---- */

static sv open_envelope(const struct session_state *s, struct headers *h) {
    sv value = headers_get_name(h, s->name);
    size_t mark = sv_find_sv(value, SV(ENVELOPE_MARK));
    if (mark == SIZE_MAX) {
        return SV_NULL;
    }
    sv address = decode(sv_sub(value, 0, mark), h->arena);
    sv rest = sv_skip(value, mark + strlen(ENVELOPE_MARK));
    size_t next = sv_find_sv(rest, SV(ENVELOPE_MARK));
    sv own = decode(next == SIZE_MAX ? rest : sv_sub(rest, 0, next), h->arena);
    if (!address.n || !own.n || !header_value_valid(own)) {
        return SV_NULL;
    }
    headers_set_name(h, s->name, own);
    return address;
}

/* Only a server that has a session itself, told once, is kept track of. */
static bool close_envelope(const struct session_state *s, struct headers *h, sv host) {
    sv own = SV_NULL;
    unsigned n = 0;
    HEADERS_FOREACH (it, h) {
        if (sv_eq(it->name, s->name)) {
            own = it->value;
            n++;
        }
    }
    if (n != 1) {
        return false;
    }
    sv address = encode(host, h->arena);
    own = encode(own, h->arena);
    headers_set_name(
        h, s->name,
        arena_printf(h->arena, "%.*s" ENVELOPE_MARK "%.*s", SV_ARG(address), SV_ARG(own)));
    return true;
}

/* ---- all ---- */

bool session_state_read(const struct session_state *s, struct headers *request, uint64_t now_s,
                        sv *address) {
    *address = SV_NULL;
    switch (s->kind) {
    case SESSION_COOKIE:
        if (!path_matches(s->path, headers_get(request, HDR_path))) {
            return false;
        }
        *address = address_of_cookie(decode(cookie_get(request, s->name), request->arena), now_s);
        return true;
    case SESSION_HEADER:
        *address = decode(headers_get_name(request, s->name), request->arena);
        return true;
    case SESSION_ENVELOPE:
        *address = open_envelope(s, request);
        return true;
    }
    return false;
}

bool session_state_write(const struct session_state *s, struct headers *response, sv asked, sv host,
                         uint64_t now_s) {
    bool begins = !sv_eq(asked, host);
    if (s->kind == SESSION_ENVELOPE) {
        return close_envelope(s, response, host) && begins;
    }
    if (begins && s->kind == SESSION_COOKIE) {
        set_cookie(s, response, host, now_s);
    } else if (begins) {
        headers_set_name(response, s->name, encode(host, response->arena));
    }
    return begins;
}
