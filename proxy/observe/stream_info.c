/* What is kept in a stream's facts beyond what they are of. Threads: worker-local.
 * Not here: who fills in the rest (request/), who reads it (formatter.c, filters). */
#include "proxy/observe/stream_info.h"

#include "proxy/net/tls.h"

static sv first_uri(const struct stream_info *si, const struct ssl_info *ssl, enum ssl_list list) {
    const sv *uris;
    return ssl && ssl_info_list(ssl, list, &uris) ? arena_sv(si->arena, uris[0]) : SV_NULL;
}

void stream_info_keep_ssl(struct stream_info *si, const struct ssl_info *ssl) {
    const struct ssl_info *old = si->up.ssl;
    si->up.ssl = ssl_info_ref(ssl);
    ssl_info_unref(old);
}

void stream_info_note_identities(struct stream_info *si, const struct ssl_info *ssl) {
    si->up.peer_uri = first_uri(si, ssl, SSL_LIST_PEER_URI);
    si->up.local_uri = first_uri(si, ssl, SSL_LIST_LOCAL_URI);
}
