/* proxy_protocol: takes the client's address from a PROXY header, version 1 or 2, and the header
 * off the socket.
 * Threads: config immutable, worker-local otherwise. Spec:
 * listener.proxy_protocol.v3.ProxyProtocol; HAProxy's proxy-protocol.txt. A header that claims more
 * than LISTENER_PEEK_MAX bytes is an error.
 * Not here: sending such headers upstream (net/). Refused: rules (TLVs as metadata), which may
 * decide who is let in. */
#include <stdlib.h>

#include "protos/gen/listener_proxy_protocol.pb-c.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/proxy_tlv.h"

#define V1_MAX 107u /* with its line end */
#define V2_HEAD 16u
#define V2_MAX LISTENER_PEEK_MAX
#define V2_COMMAND_LOCAL 0
#define V2_COMMAND_PROXY 1

enum proxy_proto_stat {
    STAT_NOT_FOUND_ALLOWED,
    STAT_NOT_FOUND_DISALLOWED,
    STAT_V1_DISALLOWED,
    STAT_V1_ERROR,
    STAT_V1_FOUND,
    STAT_V2_DISALLOWED,
    STAT_V2_ERROR,
    STAT_V2_FOUND,
};
static const struct stat_def proxy_proto_defs[] = {
    {"not_found_allowed", STAT_COUNTER, STAT_UNIT_NONE},
    {"not_found_disallowed", STAT_COUNTER, STAT_UNIT_NONE},
    {"versions.v1.disallowed", STAT_COUNTER, STAT_UNIT_NONE},
    {"versions.v1.error", STAT_COUNTER, STAT_UNIT_NONE},
    {"versions.v1.found", STAT_COUNTER, STAT_UNIT_NONE},
    {"versions.v2.disallowed", STAT_COUNTER, STAT_UNIT_NONE},
    {"versions.v2.error", STAT_COUNTER, STAT_UNIT_NONE},
    {"versions.v2.found", STAT_COUNTER, STAT_UNIT_NONE},
};
static const struct stats_group proxy_proto_group = {
    .name = "proxy_proto", .defs = proxy_proto_defs, .n = ARRAY_LEN(proxy_proto_defs)};

/* The counter of earlier versions, without a prefix. */
static const struct stat_def legacy_defs[] = {
    {"downstream_cx_proxy_proto_error", STAT_COUNTER, STAT_UNIT_NONE}};
static const struct stats_group legacy_group = {
    .name = "proxy_proto_legacy", .defs = legacy_defs, .n = ARRAY_LEN(legacy_defs)};

struct config {
    struct stats_scope *stats, *legacy_stats;
    bool allow_without;
    bool is_v1_allowed, is_v2_allowed;
    struct proxy_tlv_set passed_tlvs; /* those that go on upstream */
};

/* ---- compile ---- */

static void unref_stats(void *scope) { stats_scope_unref(scope); }

static bool compile_versions(struct config *c, const ListenerProxyProtocol__ProxyProtocol *m,
                             struct diag *d) {
    c->is_v1_allowed = c->is_v2_allowed = true;
    for (size_t i = 0; i < m->n_disallowed_versions; i++) {
        DIAG_FIELD(d, "disallowed_versions[%zu]", i);
        switch (m->disallowed_versions[i]) {
        case CORE__PROXY_PROTOCOL_CONFIG__VERSION__V1:
            c->is_v1_allowed = false;
            break;
        case CORE__PROXY_PROTOCOL_CONFIG__VERSION__V2:
            c->is_v2_allowed = false;
            break;
        default:
            return diag_error(d, "unknown version %d", (int)m->disallowed_versions[i]);
        }
    }
    if (!c->is_v1_allowed && !c->is_v2_allowed) {
        return diag_error(
            d,
            "Proxy Protocol filter is misconfigured: all proxy protocol versions are disallowed.");
    }
    return true;
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const ListenerProxyProtocol__ProxyProtocol *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    if (m->n_rules) {
        DIAG_FIELD(ctx->diag, "rules");
        diag_error(ctx->diag, "TLVs as dynamic metadata or filter state are not supported");
        return NULL;
    }
    if (!compile_versions(c, m, ctx->diag)) {
        return NULL;
    }
    c->allow_without = m->allow_requests_without_proxy_protocol;
    compile_passed_tlvs(m->pass_through_tlvs, &c->passed_tlvs);
    sv prefix = m->stat_prefix[0] ? arena_printf(ctx->arena, "proxy_proto.%s.", m->stat_prefix)
                                  : SV("proxy_proto.");
    c->stats = stats_scope_get(ctx->stats, &proxy_proto_group, prefix);
    c->legacy_stats = stats_scope_get(ctx->stats, &legacy_group, SV_NULL);
    arena_on_fini(ctx->arena, unref_stats, c->stats);
    arena_on_fini(ctx->arena, unref_stats, c->legacy_stats);
    return c;
}

/* ---- reading ---- */

static const sv v1_signature = SV_INIT("PROXY ");
static const sv v2_signature = SV_INIT("\r\n\r\n\0\r\nQUIT\n");

enum result { RESULT_MORE, RESULT_OK, RESULT_BAD };

/* What a header says; the addresses count only when has_addresses. */
struct header {
    size_t bytes;
    bool has_addresses;
    struct addr source, destination;
    sv tlvs;
};

static bool read_port(sv text, uint16_t *port) {
    uint64_t v;
    if (text.n == 0 || text.n > 5 || (text.n > 1 && text.p[0] == '0') || !sv_to_u64(text, &v) ||
        v > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)v;
    return true;
}

/* "TCP4 source destination port port" or "UNKNOWN …". */
static bool read_v1_fields(sv line, struct header *h) {
    sv family = sv_cut(&line, ' ');
    if (sv_eq(family, SV("UNKNOWN"))) {
        return true;
    }
    uint16_t want = sv_eq(family, SV("TCP4"))   ? AF_INET
                    : sv_eq(family, SV("TCP6")) ? AF_INET6
                                                : AF_UNSPEC;
    sv source = sv_cut(&line, ' '), destination = sv_cut(&line, ' '),
       source_port = sv_cut(&line, ' ');
    uint16_t from, to;
    if (want == AF_UNSPEC || !read_port(source_port, &from) || !read_port(line, &to) ||
        sv_find(source, '%') != SIZE_MAX || sv_find(destination, '%') != SIZE_MAX ||
        !addr_parse_ip(source, from, &h->source) ||
        !addr_parse_ip(destination, to, &h->destination)) {
        return false;
    }
    h->has_addresses = true;
    return h->source.family == want && h->destination.family == want;
}

static enum result read_v1(sv bytes, struct header *h) {
    sv head = sv_sub(bytes, 0, V1_MAX);
    size_t at = sv_find(head, '\n');
    if (at == SIZE_MAX) {
        return bytes.n < V1_MAX ? RESULT_MORE : RESULT_BAD;
    }
    if (at == 0 || head.p[at - 1] != '\r') {
        return RESULT_BAD;
    }
    h->bytes = at + 1;
    sv line = sv_skip(sv_sub(head, 0, at - 1), v1_signature.n);
    return read_v1_fields(line, h) ? RESULT_OK : RESULT_BAD;
}

static uint16_t be16(const char *p) {
    return (uint16_t)((unsigned char)p[0] << 8 | (unsigned char)p[1]);
}

/* Addresses of `n` bytes each, then the ports. */
static bool read_v2_addresses(sv *body, uint16_t family, size_t n, struct header *h) {
    if (body->n < 2 * n + 4) {
        return false;
    }
    h->source = (struct addr){.family = family, .port = be16(body->p + 2 * n)};
    h->destination = (struct addr){.family = family, .port = be16(body->p + 2 * n + 2)};
    memcpy(h->source.ip, body->p, n);
    memcpy(h->destination.ip, body->p + n, n);
    h->has_addresses = true;
    *body = sv_skip(*body, 2 * n + 4);
    return true;
}

static bool is_well_formed(sv tlvs) {
    while (proxy_tlv_cut(&tlvs).n) {}
    return tlvs.n == 0;
}

static bool read_v2_body(unsigned command, unsigned family, sv body, struct header *h) {
    if (command == V2_COMMAND_LOCAL) {
        return true; /* the sender's own: a health check, say */
    }
    if (command != V2_COMMAND_PROXY) {
        return false;
    }
    switch (family) {
    case 0x00: /* UNSPEC: the sender does not know */
        return true;
    case 0x11: /* TCP over IPv4 */
        if (!read_v2_addresses(&body, AF_INET, 4, h)) {
            return false;
        }
        break;
    case 0x21: /* TCP over IPv6 */
        if (!read_v2_addresses(&body, AF_INET6, 16, h)) {
            return false;
        }
        break;
    default: /* datagrams, UNIX sockets, the future */
        return false;
    }
    h->tlvs = body;
    return is_well_formed(body);
}

static enum result read_v2(sv bytes, struct header *h) {
    if (bytes.n < V2_HEAD) {
        return RESULT_MORE;
    }
    unsigned version_command = (unsigned char)bytes.p[12], family = (unsigned char)bytes.p[13];
    h->bytes = V2_HEAD + (size_t)be16(bytes.p + 14);
    if (version_command >> 4 != 2 || h->bytes > V2_MAX) {
        return RESULT_BAD;
    }
    if (bytes.n < h->bytes) {
        return RESULT_MORE;
    }
    sv body = sv_sub(bytes, V2_HEAD, h->bytes - V2_HEAD);
    return read_v2_body(version_command & 15, family, body, h) ? RESULT_OK : RESULT_BAD;
}

/* ---- deciding ---- */

/* Is it this version's signature, as far as the bytes go? */
static bool may_be(sv bytes, sv signature) {
    return sv_starts(bytes, signature) || sv_starts(signature, bytes);
}

static enum listener_filter_status reject(const struct config *c, struct accept_info *info,
                                          unsigned stat, unsigned thread, const char *why) {
    stats_inc(stats_shard(c->stats, thread), stat);
    stats_inc(stats_shard(c->legacy_stats, thread), 0);
    info->reject_reason = why;
    return LISTENER_FILTER_REJECT;
}

static void pass_tlvs(const struct config *c, struct accept_info *info, sv tlvs) {
    char *kept = tlvs.n ? arena_alloc(info->arena, tlvs.n) : NULL;
    size_t n = 0;
    for (sv tlv; (tlv = proxy_tlv_cut(&tlvs)).n;) {
        if (proxy_tlv_set_has(&c->passed_tlvs, proxy_tlv_type(tlv))) {
            memcpy(kept + n, tlv.p, tlv.n);
            n += tlv.n;
        }
    }
    info->proxy_tlvs = sv_from(kept, n);
}

static void apply(const struct config *c, struct accept_info *info, const struct header *h) {
    info->consume_bytes = h->bytes;
    info->has_proxy_header = true;
    if (h->has_addresses) {
        info->remote = h->source;
        if (!addr_eq(&info->local, &h->destination)) {
            info->local = h->destination;
            info->is_local_restored = true;
        }
    }
    pass_tlvs(c, info, h->tlvs);
}

static enum listener_filter_status judge(const struct config *c, struct accept_info *info, sv bytes,
                                         bool is_v2, unsigned thread) {
    struct header h = {0};
    switch (is_v2 ? read_v2(bytes, &h) : read_v1(bytes, &h)) {
    case RESULT_MORE:
        return LISTENER_FILTER_NEED_DATA;
    case RESULT_BAD:
        return reject(c, info, is_v2 ? STAT_V2_ERROR : STAT_V1_ERROR, thread,
                      "malformed PROXY header");
    case RESULT_OK:
        break;
    }
    if (is_v2 ? !c->is_v2_allowed : !c->is_v1_allowed) {
        return reject(c, info, is_v2 ? STAT_V2_DISALLOWED : STAT_V1_DISALLOWED, thread,
                      "PROXY header of a disallowed version");
    }
    stats_inc(stats_shard(c->stats, thread), is_v2 ? STAT_V2_FOUND : STAT_V1_FOUND);
    apply(c, info, &h);
    return LISTENER_FILTER_DONE;
}

static enum listener_filter_status on_bytes(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index) {
    (void)state;
    const struct config *c = config;
    /* Connections without a header are let through: then a disallowed version's signature is
     * application data. */
    bool may_be_v1 = may_be(bytes, v1_signature) && (c->is_v1_allowed || !c->allow_without);
    bool may_be_v2 = may_be(bytes, v2_signature) && (c->is_v2_allowed || !c->allow_without);
    if (may_be_v2 && bytes.n >= v2_signature.n) {
        return judge(c, info, bytes, true, thread_index);
    }
    if (may_be_v1 && bytes.n >= v1_signature.n) {
        return judge(c, info, bytes, false, thread_index);
    }
    if ((may_be_v1 || may_be_v2) && !(end && c->allow_without && bytes.n)) {
        return LISTENER_FILTER_NEED_DATA;
    }
    if (!c->allow_without) {
        return reject(c, info, STAT_NOT_FOUND_DISALLOWED, thread_index, "no PROXY header");
    }
    stats_inc(stats_shard(c->stats, thread_index), STAT_NOT_FOUND_ALLOWED);
    return LISTENER_FILTER_DONE;
}

extern const struct listener_filter_type proxy_protocol_listener_filter;
const struct listener_filter_type proxy_protocol_listener_filter = {
    .name = "envoy.filters.listener.proxy_protocol",
    .type_url = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
    .max_peek_bytes = V2_MAX,
    .compile = compile,
    .on_bytes = on_bytes,
};
