/* TLVs of PROXY headers in configuration. Implemented by config/compile_proxy_tlv.c.
 * Threads: config thread. Spec: core.v3.ProxyProtocolPassThroughTLVs, core.v3.TlvEntry. */
#ifndef SLUICE_API_PROXY_TLV_H
#define SLUICE_API_PROXY_TLV_H

#include "proxy/api/compile.h"
#include "proxy/base/proxy_tlv.h"

/* msg: ProxyProtocolPassThroughTLVs; NULL: none. */
void compile_passed_tlvs(const void *msg, struct proxy_tlv_set *out);
/* Entries of a fixed value, as on the wire, into the resource's arena. False: errors added, under
 * `field`[i]. */
bool compile_added_tlvs(struct compile_ctx *ctx, const char *field, const void *const *entries,
                        size_t n, sv *out);

#endif
