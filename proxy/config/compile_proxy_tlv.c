/* TLVs of PROXY headers in configuration: see api/proxy_tlv.h. Threads: the config thread. */
#include "proxy/api/proxy_tlv.h"

#include <string.h>

#include "protos/gen/core.pb-c.h"

#define VALUE_BYTES_MAX 65535u

void compile_passed_tlvs(const void *msg, struct proxy_tlv_set *out) {
    const Core__ProxyProtocolPassThroughTLVs *m = msg;
    if (!m) {
        return;
    }
    bool is_all =
        m->match_type == CORE__PROXY_PROTOCOL_PASS_THROUGH_TLVS__PASS_TLVS_MATCH_TYPE__INCLUDE_ALL;
    if (is_all) {
        memset(out->bits, 0xff, sizeof(out->bits));
    }
    for (size_t i = 0; i < m->n_tlv_type; i++) {
        proxy_tlv_set_add(out, m->tlv_type[i] & (PROXY_TLV_TYPES - 1));
    }
}

static bool check(struct compile_ctx *ctx, const Core__TlvEntry *e) {
    if (e->format_string) {
        return diag_error(ctx->diag, "format_string: only a fixed value is supported here");
    }
    if (e->value.len == 0 || e->value.len > VALUE_BYTES_MAX) {
        return diag_error(ctx->diag, "value: length must be between 1 and %u bytes",
                          VALUE_BYTES_MAX);
    }
    return true;
}

bool compile_added_tlvs(struct compile_ctx *ctx, const char *field, const void *const *entries,
                        size_t n, sv *out) {
    size_t bytes = 0;
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        const Core__TlvEntry *e = entries[i];
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        ok = check(ctx, e) && ok;
        bytes += PROXY_TLV_HEAD + e->value.len;
    }
    if (!ok || !n) {
        return ok;
    }
    char *p = arena_alloc(ctx->arena, bytes);
    *out = sv_from(p, bytes);
    for (size_t i = 0; i < n; i++) {
        const Core__TlvEntry *e = entries[i];
        *p++ = (char)e->type;
        *p++ = (char)(e->value.len >> 8);
        *p++ = (char)e->value.len;
        memcpy(p, e->value.data, e->value.len);
        p += e->value.len;
    }
    return true;
}
