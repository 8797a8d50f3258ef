/* Network addresses: IPv4, IPv6, UNIX paths, internal listeners; CIDR ranges and tries.
 * Spec: core.v3.Address, core.v3.EnvoyInternalAddress, core.v3.CidrRange. */
#ifndef SLUICE_NET_ADDR_H
#define SLUICE_NET_ADDR_H

#include <sys/socket.h>

#include "proxy/base/arena.h"
#include "proxy/base/sv.h"

#define ADDR_INTERNAL 0xffffu /* family of an internal listener of this process: no socket's */

struct addr {
    uint16_t family;   /* AF_UNSPEC (0), AF_INET, AF_INET6, AF_UNIX, ADDR_INTERNAL */
    uint16_t port;     /* host order */
    uint32_t scope_id; /* IPv6 link-local; ADDR_INTERNAL: bytes of the listener's name */
    uint8_t ip[16];    /* IPv4 in the first four bytes, network order */
    const char *
        /* AF_UNIX: borrowed, lives as long as the config; a leading '@' is the abstract
         * namespace. ADDR_INTERNAL: "<listener>/<endpoint id>" */
        path;
};

#define ADDR_STR_MAX 272
#define ADDR_INTERNAL_MAX 256u /* bytes of a listener's name, '/' and endpoint id */
bool addr_parse_ip(sv ip, uint16_t port, struct addr *out); /* literal only; scope %eth0 allowed */
bool addr_parse_ip_port(sv text, struct addr *out);         /* "1.2.3.4:80", "[::1]:80" */
void addr_set_path(struct addr *a, const char *path);
/* An internal listener's address; its text lies in `ar`. False: longer than ADDR_INTERNAL_MAX. */
bool addr_set_internal(struct addr *a, sv listener, sv endpoint_id, struct arena *ar);
sv addr_internal_listener(const struct addr *a); /* of ADDR_INTERNAL; borrowed as path is */
sv addr_endpoint_id(const struct addr *a);       /* of other families empty */
extern const struct addr addr_internal_client;   /* the other end of connections to those */
/* A copy whose path lies in `ar`. */
struct addr addr_dup(const struct addr *a, struct arena *ar);
static inline bool addr_is_ip(const struct addr *a) {
    return a->family == AF_INET || a->family == AF_INET6;
}
void addr_from_sockaddr(struct addr *out, const struct sockaddr *sa,
                        socklen_t n); /* AF_UNIX: path "" */
socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *out);
/* "1.2.3.4:80", "[::1]:80", "/path", "envoy://listener/id": NUL-terminated, returns the length. */
size_t addr_str(const struct addr *a, char out[ADDR_STR_MAX]);
size_t addr_ip_str(const struct addr *a, char out[ADDR_STR_MAX]); /* without port and brackets */
sv addr_arena_str(const struct addr *a, struct arena *ar);
bool addr_eq(const struct addr *a, const struct addr *b); /* ip, port, path */
bool addr_ip_eq(const struct addr *a, const struct addr *b);
bool addr_is_any(const struct addr *a); /* 0.0.0.0, :: */
bool addr_is_loopback(const struct addr *a);
bool addr_is_internal(
    const struct addr *a); /* RFC 1918, RFC 4193, loopback: Envoy's default internal ranges */
uint64_t addr_hash(const struct addr *a, bool with_port);
/* Bytes of `a` that are those of another address exactly when addr_eq; of IP addresses. */
static inline sv addr_key(const struct addr *a) {
    return sv_from((const char *)a, offsetof(struct addr, path));
}

struct cidr {
    uint16_t family;
    uint8_t bits;
    uint8_t ip[16]; /* masked */
};
bool cidr_make(sv ip, uint32_t bits, struct cidr *out); /* false: bad literal or length */
bool cidr_contains(const struct cidr *c, const struct addr *a);
/* Longest-prefix lookup, immutable once built. Values are small indices into the caller's table. */
struct cidr_trie;
struct cidr_trie *cidr_trie_new(struct arena *a);
void cidr_trie_add(struct cidr_trie *t, const struct cidr *c, uint32_t value);
bool cidr_trie_find(const struct cidr_trie *t, const struct addr *a, uint32_t *value,
                    uint8_t *bits);

#endif
