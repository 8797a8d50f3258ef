/* Parsed certificates, trust stores and CRL lists are kept once per content: thousands of clusters
 * with the same inline bundle share one object. Keyed by a SHA-256 of what they were made from; an
 * object leaves with its last user.
 * Threads: any (one mutex, cold paths only). */
#ifndef SLUICE_NET_TLS_INTERN_H
#define SLUICE_NET_TLS_INTERN_H

#include <stddef.h>
#include <stdint.h>

#define TLS_DIGEST_BYTES 32

struct tls_interned { /* embedded first in the object */
    uint8_t digest[TLS_DIGEST_BYTES];
    uint32_t refs; /* under the table's mutex */
    void (*free)(struct tls_interned *self);
};

/* The object of that digest with a new ref, or NULL. Objects of different kinds must have different
 * digests. */
void *tls_intern_find(const uint8_t digest[TLS_DIGEST_BYTES]);
/* Put a new object (refs and digest are set here) in; when another thread was faster `self` is
 * freed and theirs returned. The caller holds the one ref of the result. */
void *tls_intern_add(struct tls_interned *self, const uint8_t digest[TLS_DIGEST_BYTES],
                     void (*free_fn)(struct tls_interned *self));
void tls_intern_unref(void *self); /* NULL is fine */
/* Objects alive now, for tests. */
size_t tls_intern_count(void);

#endif
