/* What is kept in a stream's facts beyond what they are of. Threads: worker-local.
 * Not here: who fills in the rest (request/), who reads it (formatter.c, filters). */
#include "proxy/observe/stream_info.h"

#include "proxy/event/loop.h"
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

void stream_info_count_upstream(struct stream_info *si) {
    const struct codec_stream *cs = si->up.stream;
    if (cs) {
        si->up.header_tx_bytes = cs->tx_header_bytes;
        si->up.header_rx_bytes = cs->rx_header_bytes;
        si->up.wire_tx_bytes = cs->tx_header_bytes + cs->tx_body_bytes;
        si->up.wire_rx_bytes = cs->rx_header_bytes + cs->rx_body_bytes;
    }
}

bool stream_info_duration_us(const struct stream_info *si, uint64_t *out) {
    uint64_t until = si->end_us || !si->loop ? si->end_us : loop_now_us(si->loop);
    *out = until - si->start_us;
    return until && until >= si->start_us;
}
