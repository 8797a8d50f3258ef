/* TLVs of PROXY headers, version 2: a type, two bytes of length, a value. Bytes only.
 * Spec: HAProxy's proxy-protocol.txt, 2.2. */
#ifndef SLUICE_BASE_PROXY_TLV_H
#define SLUICE_BASE_PROXY_TLV_H

#include "proxy/base/sv.h"

#define PROXY_TLV_HEAD 3u
#define PROXY_TLV_TYPES 256u

struct proxy_tlv_set {
    uint64_t bits[PROXY_TLV_TYPES / 64]; /* a bit per type */
};
static inline bool proxy_tlv_set_has(const struct proxy_tlv_set *s, unsigned type) {
    return s->bits[type / 64] >> (type % 64) & 1;
}
static inline void proxy_tlv_set_add(struct proxy_tlv_set *s, unsigned type) {
    s->bits[type / 64] |= 1ull << (type % 64);
}

/* Cut the first TLV off: its bytes, or an empty view at the end and where the rest is none.
 * p[0] is its type. */
static inline sv proxy_tlv_cut(sv *rest) {
    if (rest->n < PROXY_TLV_HEAD) {
        return SV_NULL;
    }
    const unsigned char *p = (const unsigned char *)rest->p;
    size_t n = PROXY_TLV_HEAD + ((size_t)p[1] << 8 | p[2]);
    if (n > rest->n) {
        return SV_NULL;
    }
    sv tlv = sv_sub(*rest, 0, n);
    *rest = sv_skip(*rest, n);
    return tlv;
}
static inline unsigned proxy_tlv_type(sv tlv) { return (unsigned char)tlv.p[0]; }

#endif
