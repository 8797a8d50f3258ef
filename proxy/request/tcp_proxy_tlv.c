/* TLVs that tcp_proxy adds for PROXY headers to upstreams.
 * Threads: compiled on the config thread, made on a worker when a connection is relayed.
 * Spec: TcpProxy.proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy. */
#include <string.h>

#include "protos/gen/tcp_proxy.pb-c.h"
#include "proxy/api/proxy_tlv.h"
#include "proxy/observe/formatter.h"
#include "proxy/request/tcp_proxy.h"

#define VALUE_BYTES_MAX 65535u /* a formatted value is cut there */

struct tcp_tlv {
    sv fixed; /* as on the wire; empty: made by `format` */
    uint8_t type;
    struct substitution_format format;
};
struct tcp_tlvs {
    int merge; /* ProxyProtocolTlvMergePolicy */
    unsigned n;
    struct tcp_tlv v[];
};

static bool entry(struct compile_ctx *ctx, const Core__TlvEntry *m, struct tcp_tlv *out) {
    out->type = (uint8_t)m->type;
    if (!m->format_string) {
        const void *one = m;
        return compile_added_tlvs(ctx, "proxy_protocol_tlvs", &one, 1, &out->fixed);
    }
    if (m->value.len) {
        return diag_error(ctx->diag, "proxy_protocol_tlvs: only one of 'value' or 'format_string' "
                                     "may be set");
    }
    DIAG_FIELD(ctx->diag, "proxy_protocol_tlvs.format_string");
    return substitution_format_compile(ctx, m->format_string, &out->format);
}

struct tcp_tlvs *tcp_tlvs_compile(struct compile_ctx *ctx, const void *msg) {
    const TcpProxy__TcpProxy *m = msg;
    if (!m->n_proxy_protocol_tlvs) {
        return NULL;
    }
    struct tcp_tlvs *t =
        arena_alloc(ctx->arena, sizeof(*t) + m->n_proxy_protocol_tlvs * sizeof(struct tcp_tlv));
    memset(t, 0, sizeof(*t) + m->n_proxy_protocol_tlvs * sizeof(struct tcp_tlv));
    t->merge = (int)m->proxy_protocol_tlv_merge_policy;
    t->n = (unsigned)m->n_proxy_protocol_tlvs;
    bool ok = true;
    for (unsigned i = 0; i < t->n; i++) {
        ok = entry(ctx, m->proxy_protocol_tlvs[i], &t->v[i]) && ok;
    }
    return ok ? t : NULL;
}

static void append(const struct tcp_tlv *t, const struct stream_info *si, struct buf *out) {
    if (t->fixed.n) {
        buf_append_sv(out, t->fixed);
        return;
    }
    BUF_AUTO struct buf text;
    buf_init(&text);
    substitution_format_write(&t->format, si, &text);
    size_t n = buf_len(&text) < VALUE_BYTES_MAX ? buf_len(&text) : VALUE_BYTES_MAX;
    const char head[PROXY_TLV_HEAD] = {(char)t->type, (char)(n >> 8), (char)n};
    buf_append(out, head, sizeof(head));
    buf_append(out, buf_pullup(&text, n).p, n);
}

static void append_added(const struct tcp_tlvs *t, const struct stream_info *si, struct buf *out) {
    for (unsigned i = 0; i < t->n; i++) {
        append(&t->v[i], si, out);
    }
}

/* The client's TLVs without those of types that are added. */
static void append_others(const struct tcp_tlvs *t, sv received, struct buf *out) {
    struct proxy_tlv_set replaced = {{0}};
    for (unsigned i = 0; i < t->n; i++) {
        proxy_tlv_set_add(&replaced, t->v[i].type);
    }
    for (sv tlv; (tlv = proxy_tlv_cut(&received)).n;) {
        if (!proxy_tlv_set_has(&replaced, proxy_tlv_type(tlv))) {
            buf_append_sv(out, tlv);
        }
    }
}

sv tcp_tlvs_make(const struct tcp_tlvs *t, const struct stream_info *si) {
    const struct accept_facts *facts = si->cx->facts;
    sv received = facts ? facts->proxy_tlvs : SV_NULL;
    bool has_header = facts && facts->has_proxy_header;
    if (!t ||
        (has_header && t->merge == TCP_PROXY__PROXY_PROTOCOL_TLV_MERGE_POLICY__ADD_IF_ABSENT)) {
        return received;
    }
    BUF_AUTO struct buf all;
    buf_init(&all);
    if (t->merge ==
        TCP_PROXY__PROXY_PROTOCOL_TLV_MERGE_POLICY__OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD) {
        append_added(t, si, &all);
        append_others(t, received, &all);
    } else {
        buf_append_sv(&all, received);
        append_added(t, si, &all);
    }
    return arena_sv(si->arena, buf_pullup(&all, buf_len(&all)));
}
