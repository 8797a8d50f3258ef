/* A bounded reader of TLS ClientHello messages out of a record stream, and JA3/JA4 fingerprints of
 * them.
 * Pure: bytes in, views out. Spec: RFC 8446 §4.1.2, §5.1, RFC 6066 §3, RFC 7301; JA3 (salesforce),
 * JA4 (FoxIO). */
#ifndef SLUICE_FILTERS_CLIENT_HELLO_H
#define SLUICE_FILTERS_CLIENT_HELLO_H

#include "proxy/base/arena.h"
#include "proxy/base/sv.h"

enum client_hello_result {
    CLIENT_HELLO_OK,
    CLIENT_HELLO_MORE,      /* well-formed so far */
    CLIENT_HELLO_NOT_TLS,   /* no TLS handshake record at all */
    CLIENT_HELLO_MALFORMED, /* a handshake record, but no ClientHello that may be trusted */
    CLIENT_HELLO_TOO_LARGE, /* would not fit in max_bytes */
};

/* Views point into the bytes given, or into the arena when the message spans records. Absent:
 * empty. */
struct client_hello {
    uint16_t version;                            /* legacy_version */
    sv ciphers;                                  /* list of uint16 */
    sv extensions;                               /* list of { uint16 type; vec16 } */
    sv server_name;                              /* host_name of SNI, as sent */
    sv alpn;                                     /* list of vec8 */
    sv groups;                                   /* list of uint16 */
    sv point_formats;                            /* list of uint8 */
    sv signature_algorithms, supported_versions; /* lists of uint16 */
    size_t bytes;                                /* of the stream, up to the end of the message */
};

/* `stream` starts at the first record; the arena gathers a message that spans records. */
enum client_hello_result client_hello_read(sv stream, size_t max_bytes, struct arena *a,
                                           struct client_hello *out);
/* One protocol name off the front of an ALPN list. */
bool client_hello_next_alpn(sv *list, sv *name);
/* Lower-case hex, in the arena. */
sv client_hello_ja3(const struct client_hello *h, struct arena *a);
sv client_hello_ja4(const struct client_hello *h, struct arena *a);

#endif
