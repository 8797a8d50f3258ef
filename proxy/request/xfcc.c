/* x-forwarded-client-cert: see xfcc.h. An element is By=<our URI SAN>;Hash=<peer
 * sha256>;Cert=…;Chain=…;Subject="…";URI=…;DNS=…;Issuer="…"
 * Threads: worker-local. */
#include "proxy/request/xfcc.h"

#include "proxy/net/tls.h"
#include "proxy/request/stream.h"

static void pair(struct buf *b, const char *key, sv value) {
    if (!buf_empty(b)) {
        buf_lit(b, ";");
    }
    buf_append_sv(b, sv_cstr(key));
    buf_lit(b, "=");
    buf_append_sv(b, value);
}

/* A value that holds no bare quote: URL-encoded, or a subject, whose quotes RFC 2253 escapes. */
static void quoted(struct buf *b, const char *key, sv value) {
    pair(b, key, SV("\""));
    buf_append_sv(b, value);
    buf_lit(b, "\"");
}

static void sans(struct buf *b, const char *key, const struct ssl_info *ssl, enum ssl_list list,
                 bool leave_one_empty) {
    const sv *v;
    unsigned n = ssl_info_list(ssl, list, &v);
    for (unsigned i = 0; i < n; i++) {
        pair(b, key, v[i]);
    }
    if (n == 0 && leave_one_empty) {
        pair(b, key, SV_NULL);
    }
}

static sv element(struct stream *s, const struct ssl_info *ssl) {
    const struct hcm_config *c = s->cfg;
    struct buf BUF_AUTO b;
    buf_init(&b);
    sans(&b, "By", ssl, SSL_LIST_LOCAL_URI, false);
    sv hash = ssl_info_fact(ssl, SSL_FACT_PEER_SHA256);
    if (hash.n) {
        pair(&b, "Hash", hash);
    }
    if (c->xfcc_set.cert && ssl_info_fact(ssl, SSL_FACT_PEER_URL_PEM).n) {
        quoted(&b, "Cert", ssl_info_fact(ssl, SSL_FACT_PEER_URL_PEM));
    }
    if (c->xfcc_set.chain && ssl_info_fact(ssl, SSL_FACT_PEER_URL_PEM_CHAIN).n) {
        quoted(&b, "Chain", ssl_info_fact(ssl, SSL_FACT_PEER_URL_PEM_CHAIN));
    }
    if (c->xfcc_set.subject) {
        quoted(&b, "Subject", ssl_info_fact(ssl, SSL_FACT_PEER_SUBJECT));
    }
    if (c->xfcc_set.uri) {
        sans(&b, "URI", ssl, SSL_LIST_PEER_URI, true);
    }
    if (c->xfcc_set.dns) {
        sans(&b, "DNS", ssl, SSL_LIST_PEER_DNS, false);
    }
    if (c->xfcc_set.issuer) {
        quoted(&b, "Issuer", ssl_info_fact(ssl, SSL_FACT_PEER_ISSUER));
    }
    return arena_sv(&s->arena, buf_pullup(&b, buf_len(&b)));
}

/* The elements that came, in order and on one line: what is appended must stand behind all of
 * them. */
static sv came(struct stream *s) {
    return headers_joined(&s->request, HDR_x_forwarded_client_cert, SV_NULL, &s->arena);
}

static void forward(struct stream *s) {
    sv first = headers_get(&s->request, HDR_x_forwarded_client_cert), all = came(s);
    if (all.n != first.n) {
        headers_set(&s->request, HDR_x_forwarded_client_cert, all);
    }
}

void xfcc_apply(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    const struct ssl_info *ssl = conn_ssl(s->hcm->base.conn);
    bool is_mutual = ssl && ssl_info_has_peer_cert(ssl);
    if (c->xfcc == XFCC_ALWAYS_FORWARD_ONLY) {
        forward(s);
        return;
    }
    if (c->xfcc == XFCC_SANITIZE || !is_mutual) {
        headers_remove(&s->request, HDR_x_forwarded_client_cert);
        return;
    }
    if (c->xfcc == XFCC_FORWARD_ONLY) {
        forward(s);
    } else if (c->xfcc == XFCC_APPEND_FORWARD) {
        sv have = came(s);
        sv mine = element(s, ssl);
        headers_set(&s->request, HDR_x_forwarded_client_cert,
                    have.n ? arena_printf(&s->arena, "%.*s,%.*s", SV_ARG(have), SV_ARG(mine))
                           : mine);
    } else if (c->xfcc == XFCC_SANITIZE_SET) {
        headers_set(&s->request, HDR_x_forwarded_client_cert, element(s, ssl));
    }
}
