/* The TLS transport: handshake, records, close_notify over BoringSSL on a connection's fd.
 * Threads: a transport belongs to its connection's worker; factory and SSL_CTX are shared and
 * immutable.
 * Spec: RFC 8446, RFC 5246; texts and counters as Envoy's SslSocket. Renegotiation and early data
 * are off.
 * Not here: sockets and buffers (tls_io.c), whom to trust (tls_verify.c), which certificate to show
 * (tls_select.c). */
#include "proxy/net/tls.h"

#include <errno.h>
#include <sys/uio.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "proxy/base/log.h"
#include "proxy/net/conn.h"
#include "proxy/net/tls_context.h"
#include "proxy/net/tls_info.h"
#include "proxy/net/tls_io.h"
#include "proxy/net/transport.h"

#define TLS_MAGIC 0x715715A0u
#define NOT_READY_REASON "TLS error: Secret is not supplied by SDS"

enum tls_state {
    TLS_NOT_READY, /* the factory lacks a secret */
    TLS_HANDSHAKE,
    TLS_FLUSHING, /* done, but the kernel has not taken the last flight yet */
    TLS_OPEN,
    TLS_FAILED,
};

/* Needed until the handshake is done. */
struct handshake {
    sv *sans; /* names to verify beside the configured ones */
    unsigned sans_n;
    char *verify_error; /* why the peer's certificate was refused */
    struct arena arena;
};

struct tls {
    struct transport transport;
    uint32_t magic;
    uint8_t state; /* enum tls_state */
    bool is_client;
    bool shutdown_sent;
    bool is_orphan;              /* the connection is gone, its facts are still referred to */
    bool holds_byte;             /* one byte of `out` stands for ciphertext in io.out */
    struct tls_factory *factory; /* a ref */
    SSL *ssl;
    struct tls_io io;
    struct handshake *hs; /* NULL when done */
    char *failure;        /* NULL: none */
    struct ssl_info info;
};

static struct tls *tls_of(const struct transport *t) { return CAST(tls, TLS_MAGIC, (uintptr_t)t); }

static struct tls *tls_of_ssl(const SSL *ssl) {
    return CAST(tls, TLS_MAGIC, (uintptr_t)CONTAINER_OF(tls_io_of(ssl), struct tls, io));
}

struct tls_factory *tls_factory_of_ssl(const SSL *ssl) {
    return tls_of_ssl(ssl)->factory;
}

static void set_state(struct tls *t, enum tls_state to) {
    ASSERT(to == TLS_FAILED || to > t->state);
    log_trace(LOG_connection, "[C%llu] tls state %d -> %d",
              (unsigned long long)t->transport.conn->id, t->state, to);
    t->state = (uint8_t)to;
}

static void count(const struct tls *t, unsigned stat) {
    tls_factory_count(t->factory, t->transport.conn->loop->thread_index, stat);
}

/* --- failures --- */

static void hs_free(struct tls *t) {
    if (t->hs) {
        xfree(t->hs->verify_error);
        arena_fini(&t->hs->arena);
        xfree(t->hs);
        t->hs = NULL;
    }
}

static const char *or_empty(const char *s) { return s ? s : ""; }

struct seen_errors {
    bool any, counted, verify_failed, no_client_cert;
};

/* Empty BoringSSL's queue into "TLS_error:|code:library:function:reason". */
static void drain_errors(struct tls *t, struct buf *text, struct seen_errors *seen) {
    uint32_t err;
    while ((err = ERR_get_error()) != 0) {
        int lib = ERR_GET_LIB(err);
        int reason = ERR_GET_REASON(err);
        if (lib == ERR_LIB_SSL && reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
            count(t, SSL_STAT_fail_verify_no_cert);
            seen->counted = seen->no_client_cert = true;
        } else if (lib == ERR_LIB_SSL && reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
            seen->counted = seen->verify_failed = true;
        } else if (lib == ERR_LIB_SYS) {
            seen->counted = true;
        }
        if (!seen->any) {
            buf_lit(text, "TLS_error:");
        }
        seen->any = true;
        buf_printf(text, "|%u:%s:%s:%s", err, or_empty(ERR_lib_error_string(err)),
                   or_empty(ERR_func_error_string(err)), or_empty(ERR_reason_error_string(err)));
    }
}

/* The peer did what ends a connection; the reason is kept in Envoy's words. A plain end leaves
 * none. */
static void fail(struct tls *t) {
    struct buf text;
    struct seen_errors seen = {false, false, false, false};
    buf_init(&text);
    drain_errors(t, &text, &seen);
    if (seen.any) {
        const char *detail = t->hs ? t->hs->verify_error : NULL;
        if (seen.verify_failed && detail) {
            buf_printf(&text, ":%s", detail);
        } else if (seen.no_client_cert) {
            buf_lit(&text, ":peer did not provide required client certificate");
        }
        buf_lit(&text, ":TLS_error_end");
        if (!seen.counted) {
            count(t, SSL_STAT_connection_error);
        }
        if (!t->failure) {
            t->failure = buf_dup_str(&text);
        }
        log_debug(LOG_connection, "[C%llu] %s", (unsigned long long)t->transport.conn->id,
                  t->failure);
    }
    buf_fini(&text);
    t->transport.conn->detect_reset |= t->io.reset;
    hs_free(t);
    set_state(t, TLS_FAILED);
}

/* --- verification --- */

static void judge(struct tls *t, struct tls_verdict *v, struct arena *a) {
    struct tls_peer peer = {
        .chain = SSL_get0_peer_certificates(t->ssl),
        .is_client = !t->is_client,
        .sni = t->is_client ? ssl_info_sni(&t->info) : SV_NULL,
        .san_override = t->hs ? t->hs->sans : NULL,
        .san_override_n = t->hs ? t->hs->sans_n : 0,
    };
    tls_policy_verify(&t->factory->policy, &peer, a, v);
    t->info.peer = v->status;
    if (v->failed_stat >= 0) {
        count(t, (unsigned)v->failed_stat);
    }
    if (v->error.n) {
        log_debug(LOG_connection, "[C%llu] %.*s", (unsigned long long)t->transport.conn->id,
                  SV_ARG(v->error));
    }
}

static bool has_rules(const struct tls *t) {
    return t->factory->policy.mode != SSL_VERIFY_NONE || (t->hs && t->hs->sans_n);
}

enum ssl_verify_result_t tls_on_verify(SSL *ssl, uint8_t *out_alert) {
    struct tls *t = tls_of_ssl(ssl);
    if (!has_rules(t)) {
        return ssl_verify_ok;
    }
    struct arena a;
    arena_init(&a, 0);
    struct tls_verdict v;
    judge(t, &v, &a);
    if (!v.is_ok) {
        *out_alert = v.alert;
        if (t->hs) {
            xfree(t->hs->verify_error);
            t->hs->verify_error = sv_dup(v.error);
        }
    }
    arena_fini(&a);
    return v.is_ok ? ssl_verify_ok : ssl_verify_invalid;
}

/* BoringSSL does not ask again about the client of a resumed session; its certificate may be
 * expired or revoked by now. */
static bool reverify_client(struct tls *t) {
    if (t->is_client || !SSL_session_reused(t->ssl) || !has_rules(t) ||
        sk_CRYPTO_BUFFER_num(SSL_get0_peer_certificates(t->ssl)) == 0) {
        return true;
    }
    struct arena a;
    arena_init(&a, 0);
    struct tls_verdict v;
    judge(t, &v, &a);
    if (!v.is_ok) {
        struct buf text;
        buf_init(&text);
        buf_printf(&text,
                   "TLS_error:|%u:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:"
                   "%.*s:TLS_error_end",
                   ERR_PACK(ERR_LIB_SSL, SSL_R_CERTIFICATE_VERIFY_FAILED), SV_ARG(v.error));
        t->failure = buf_dup_str(&text);
        buf_fini(&text);
        SSL_send_fatal_alert(t->ssl, v.alert);
    }
    arena_fini(&a);
    return v.is_ok;
}

/* --- other callbacks of an SSL_CTX --- */

static int64_t unix_now(void) { return (int64_t)time(NULL); }

static bool wants_staple(const SSL_CLIENT_HELLO *hello) {
    const uint8_t *p;
    size_t n;
    return SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_status_request, &p, &n);
}

static void count_staple(struct tls *t, enum tls_staple s) {
    switch (s) {
    case TLS_STAPLE_NOT_ASKED:
        return;
    case TLS_STAPLE:
        count(t, SSL_STAT_ocsp_staple_responses);
        break;
    case TLS_NO_STAPLE:
        count(t, SSL_STAT_ocsp_staple_omitted);
        break;
    case TLS_STAPLE_FAILED:
        count(t, SSL_STAT_ocsp_staple_failed);
        break;
    }
    count(t, SSL_STAT_ocsp_staple_requests);
}

static bool show_cert(SSL *ssl, const struct tls_config *c, const struct tls_cert *cert,
                      bool stapled) {
    if (!tls_config_limits_signatures(c)) {
        return SSL_add1_credential(ssl, stapled ? cert->stapled : cert->plain);
    }
    return SSL_set_chain_and_key(ssl, cert->chain, cert->chain_n, cert->key, NULL) &&
           (!stapled || SSL_set_ocsp_response(ssl, CRYPTO_BUFFER_data(cert->staple),
                                              CRYPTO_BUFFER_len(cert->staple)));
}

enum ssl_select_cert_result_t tls_on_client_hello(const SSL_CLIENT_HELLO *hello) {
    struct tls *t = tls_of_ssl(hello->ssl);
    const struct tls_factory *f = t->factory;
    sv sni = sv_cstr(SSL_get_servername(hello->ssl, TLSEXT_NAMETYPE_host_name));
    unsigned curves = tls_select_curves(hello, SSL_get_SSL_CTX(hello->ssl),
                                        f->config->max_version == TLS1_3_VERSION);
    enum tls_staple staple;
    bool matched;
    unsigned i = tls_select_find(&f->select, sni, curves, wants_staple(hello), unix_now(), &staple,
                                 &matched);
    const struct tls_cert *cert = f->certs[i];
    t->info.local = cert->leaf;
    count_staple(t, staple);
    if (staple == TLS_STAPLE_FAILED || (f->config->require_sni && !matched)) {
        return ssl_select_cert_error;
    }
    return show_cert(hello->ssl, f->config, cert, staple == TLS_STAPLE) ? ssl_select_cert_success
                                                                        : ssl_select_cert_error;
}

int tls_on_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len,
                void *arg) {
    (void)arg;
    const struct tls_config *c = tls_of_ssl(ssl)->factory->config;
    uint8_t *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, c->alpn, (unsigned)c->alpn_n, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int encrypt_ticket(const struct tls_ticket_key *key, uint8_t *name, uint8_t *iv,
                          EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac) {
    memcpy(name, key->name, sizeof key->name);
    RAND_bytes(iv, EVP_CIPHER_iv_length(EVP_aes_256_cbc()));
    return EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv) &&
                   HMAC_Init_ex(hmac, key->hmac, sizeof key->hmac, EVP_sha256(), NULL)
               ? 1
               : -1;
}

/* 1: good, 2: good but made with an older key, 0: unknown key, -1: broken. */
int tls_on_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac,
                      int encrypt) {
    const struct tls_secret *s = tls_of_ssl(ssl)->factory->tickets;
    if (encrypt) {
        return encrypt_ticket(&s->tickets[0], name, iv, cipher, hmac);
    }
    for (unsigned i = 0; i < s->tickets_n; i++) {
        const struct tls_ticket_key *key = &s->tickets[i];
        if (memcmp(key->name, name, sizeof key->name) != 0) {
            continue;
        }
        if (!HMAC_Init_ex(hmac, key->hmac, sizeof key->hmac, EVP_sha256(), NULL) ||
            !EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key->aes, iv)) {
            return -1;
        }
        return i == 0 ? 1 : 2;
    }
    return 0;
}

static bool in_ranges(const struct cidr *v, unsigned n, const struct addr *a) {
    for (unsigned i = 0; i < n; i++) {
        if (cidr_contains(&v[i], a)) {
            return true;
        }
    }
    return n == 0;
}

void tls_on_key_log(const SSL *ssl, const char *line) {
    const struct tls *t = tls_of_ssl(ssl);
    const struct tls_key_log *k = &t->factory->config->key_log;
    const struct conn *c = t->transport.conn;
    if (!in_ranges(k->local, k->local_n, &c->local) ||
        !in_ranges(k->remote, k->remote_n, &c->remote)) {
        return;
    }
    struct iovec iov[2] = {{(char *)(uintptr_t)line, strlen(line)}, {(char[]){"\n"}, 1}};
    if (writev(k->fd, iov, 2) < 0) {
        log_warn_limited(LOG_connection, "TLS key log: %s", strerror(errno));
    }
}

/* --- handshake --- */

static void count_handshake(struct tls *t) {
    struct tls_factory *f = t->factory;
    count(t, SSL_STAT_handshake);
    if (SSL_session_reused(t->ssl)) {
        count(t, SSL_STAT_session_reused);
    }
    if (sk_CRYPTO_BUFFER_num(SSL_get0_peer_certificates(t->ssl)) == 0) {
        count(t, SSL_STAT_no_certificate);
    }
    const SSL_CIPHER *cipher = SSL_get_current_cipher(t->ssl);
    tls_factory_count_named(f, TLS_DYN_CIPHER, SSL_CIPHER_get_protocol_id(cipher),
                            SSL_CIPHER_get_name(cipher));
    tls_factory_count_named(f, TLS_DYN_VERSION, (uint16_t)SSL_version(t->ssl),
                            SSL_get_version(t->ssl));
    uint16_t group = SSL_get_group_id(t->ssl);
    if (group) {
        tls_factory_count_named(f, TLS_DYN_CURVE, group, SSL_get_group_name(group));
    }
    uint16_t sigalg = SSL_get_peer_signature_algorithm(t->ssl);
    if (sigalg) {
        tls_factory_count_named(f, TLS_DYN_SIGALG, sigalg,
                                SSL_get_signature_algorithm_name(sigalg, 1));
    }
}

/* The last flight is out: application bytes may flow. */
static void open_now(struct tls *t) {
    set_state(t, TLS_OPEN);
    conn_transport_ready(t->transport.conn);
}

static void finish_handshake(struct tls *t) {
    if (!reverify_client(t)) {
        fail(t);
        return;
    }
    count_handshake(t);
    hs_free(t);
    set_state(t, TLS_FLUSHING);
    if (tls_io_flush(&t->io)) {
        open_now(t);
    }
}

/* One step of the handshake; the new state tells how it went. Between enter and leave. */
static void shake(struct tls *t) {
    int rc = SSL_do_handshake(t->ssl);
    if (rc == 1) {
        finish_handshake(t);
        return;
    }
    if (SSL_get_error(t->ssl, rc) != SSL_ERROR_WANT_READ) {
        fail(t);
    }
}

/* After leaving: ciphertext the kernel refused must go before the peer can answer. */
static void want_write(struct tls *t) {
    if (t->io.out && !t->io.write_error) {
        conn_transport_want_write(t->transport.conn);
    }
}

static void on_connected(struct transport *base) {
    struct tls *t = tls_of(base);
    if (t->state == TLS_NOT_READY) {
        struct stats_scope *scope = t->factory->config->factory_scope;
        if (scope) {
            stats_inc(stats_shard(scope, base->conn->loop->thread_index),
                      t->is_client ? SSL_FACTORY_upstream_context_secrets_not_ready
                                   : SSL_FACTORY_downstream_context_secrets_not_ready);
        }
        conn_transport_failed(base->conn);
        return;
    }
    if (t->state == TLS_FAILED) { /* it could not even be set up */
        conn_transport_failed(base->conn);
        return;
    }
    t->io.fd = base->conn->fd;
    tls_io_enter(&t->io, TLS_RECORD_BYTES);
    shake(t);
    tls_io_leave(&t->io);
    if (t->state == TLS_FAILED || t->io.write_error) {
        conn_transport_failed(base->conn);
        return;
    }
    want_write(t);
    if (t->state == TLS_OPEN && t->io.in) {
        conn_resume(base->conn);
    }
}

/* --- reading --- */

/* The rc of a call that did not succeed. */
static void read_error(struct tls *t, int rc, struct transport_result *r) {
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        return;
    case SSL_ERROR_ZERO_RETURN: /* close_notify */
        r->end_stream = true;
        return;
    case SSL_ERROR_SYSCALL:
        /* the peer just closed its side: the application protocol knows whether it was complete */
        if (rc == 0) {
            r->end_stream = true;
            return;
        }
        break;
    default: /* whatever the peer managed to break */
        break;
    }
    fail(t);
    r->action = TRANSPORT_CLOSE;
}

static void read_open(struct tls *t, struct buf *in, size_t max, struct transport_result *r) {
    while (r->bytes < max) {
        struct chunk *c = transport_read_chunk();
        size_t room = c->cap - c->used;
        size_t want = max - r->bytes < room ? max - r->bytes : room;
        char *at = c->data + c->used;
        int rc = SSL_read(t->ssl, at, (int)want);
        if (rc <= 0) {
            read_error(t, rc, r);
            return;
        }
        transport_read_chunk_done((size_t)rc);
        buf_append_slice(in, c, at, (size_t)rc);
        r->bytes += (size_t)rc;
    }
    r->again = !t->io.is_drained || SSL_has_pending(t->ssl) || tls_io_has_input(&t->io);
}

static struct transport_result tls_read(struct transport *base, struct buf *in, size_t max) {
    struct tls *t = tls_of(base);
    struct transport_result r = {.action = TRANSPORT_KEEP};
    if (t->state == TLS_FAILED || t->state == TLS_NOT_READY) {
        r.action = TRANSPORT_CLOSE;
        return r;
    }
    tls_io_enter(&t->io, max);
    if (t->state == TLS_HANDSHAKE) {
        shake(t);
    } else if (t->state == TLS_FLUSHING && tls_io_flush(&t->io)) {
        open_now(t);
    }
    if (t->state == TLS_OPEN) {
        read_open(t, in, max, &r);
    }
    tls_io_leave(&t->io);
    if (t->state == TLS_FAILED) {
        r.action = TRANSPORT_CLOSE;
        return r;
    }
    if (t->state != TLS_OPEN && t->io.write_error) {
        base->conn->detect_reset |= t->io.reset;
        r.action = TRANSPORT_CLOSE;
        return r;
    }
    want_write(t);
    return r;
}

/* --- writing --- */

/* Where encryption stands in a buffer that is not drained before the kernel took its bytes. */
struct cursor {
    size_t slice, off, left;
};

static void advance(const struct buf *b, struct cursor *at, size_t n) {
    at->left -= n;
    while (n) {
        size_t here = buf_slice(b, at->slice)->n - at->off;
        if (n < here) {
            at->off += n;
            return;
        }
        n -= here;
        at->slice++;
        at->off = 0;
    }
}

/* The plaintext of the next record: in place when a slice fills it, else gathered from several. */
static sv next_record(const struct buf *b, struct cursor *at) {
    const struct slice *s = buf_slice(b, at->slice);
    sv here = sv_from(s->p + at->off, s->n - at->off);
    if (here.n >= TLS_RECORD_BYTES || here.n == at->left) {
        here = sv_sub(here, 0, TLS_RECORD_BYTES);
        advance(b, at, here.n);
        return here;
    }
    size_t want = at->left < TLS_RECORD_BYTES ? at->left : TLS_RECORD_BYTES;
    char *p = tls_io_gather();
    size_t n = 0;
    while (n < want) {
        s = buf_slice(b, at->slice);
        size_t take = s->n - at->off < want - n ? s->n - at->off : want - n;
        memcpy(p + n, s->p + at->off, take);
        n += take;
        advance(b, at, take);
    }
    return sv_from(p, n);
}

static void send_shutdown(struct tls *t) {
    if (!t->shutdown_sent) {
        t->shutdown_sent = true;
        SSL_shutdown(t->ssl);
        ERR_clear_error();
    }
}

/* Encrypt as much as the shared buffer holds. False: failed. */
static bool encrypt(struct tls *t, const struct buf *out, bool end_stream, size_t *done) {
    struct cursor at = {0, 0, buf_len(out)};
    while (at.left && tls_io_has_room(&t->io)) {
        sv record = next_record(out, &at);
        if (SSL_write(t->ssl, record.p, (int)record.n) != (int)record.n) {
            return false;
        }
    }
    *done = buf_len(out) - at.left;
    if (end_stream && !at.left) {
        send_shutdown(t);
    }
    return true;
}

static void write_failed(struct tls *t, struct transport_result *r) {
    t->transport.conn->detect_reset |= t->io.reset;
    ERR_clear_error();
    r->action = TRANSPORT_CLOSE;
}

/* Waiting ciphertext first. True: all of it is out. The last byte it came from stayed in `out`
 * until now, so that the connection knows there is something to wait for. */
static bool write_left(struct tls *t, struct buf *out, struct transport_result *r) {
    if (!tls_io_flush(&t->io)) {
        r->again = true;
        return false;
    }
    if (t->holds_byte && !buf_empty(out)) {
        buf_drain(out, 1);
        r->bytes++;
    }
    t->holds_byte = false;
    return true;
}

static void write_open(struct tls *t, struct buf *out, bool end_stream,
                       struct transport_result *r) {
    if (!write_left(t, out, r)) {
        return;
    }
    do {
        size_t done = 0;
        if (t->shutdown_sent || !encrypt(t, out, end_stream, &done)) {
            if (!t->shutdown_sent || !buf_empty(out)) {
                fail(t);
            }
            return;
        }
        bool all_sent = tls_io_flush(&t->io);
        t->holds_byte = !all_sent && done > 0;
        done -= t->holds_byte;
        buf_drain(out, done);
        r->bytes += done;
        r->again = !all_sent;
    } while (!buf_empty(out) && !r->again);
}

static struct transport_result tls_write(struct transport *base, struct buf *out, bool end_stream) {
    struct tls *t = tls_of(base);
    struct transport_result r = {.action = TRANSPORT_KEEP};
    if (t->state == TLS_FAILED || t->state == TLS_NOT_READY) {
        r.action = TRANSPORT_CLOSE;
        return r;
    }
    tls_io_enter(&t->io, TLS_RECORD_BYTES);
    if (t->state == TLS_OPEN) {
        write_open(t, out, end_stream, &r);
    } else {
        bool flushed = tls_io_flush(&t->io);
        if (flushed && t->state == TLS_FLUSHING) {
            open_now(t);
        }
        r.again = !flushed;
    }
    tls_io_leave(&t->io);
    if (t->state == TLS_FAILED || t->io.write_error) {
        write_failed(t, &r);
    } else if (t->io.in && t->state == TLS_OPEN) {
        conn_resume(base->conn); /* the fd does not show what waits here */
    }
    return r;
}

/* --- the rest of the vtable --- */

static void tls_close(struct transport *base) {
    struct tls *t = tls_of(base);
    if (t->state != TLS_OPEN || t->io.write_error) {
        return;
    }
    tls_io_enter(&t->io, 0);
    send_shutdown(t);
    tls_io_leave(&t->io);
}

static void tls_free(struct tls *t) {
    SSL_free(t->ssl);
    tls_io_fini(&t->io);
    ssl_info_fini(&t->info);
    xfree(t->failure);
    shared_unref(&t->factory->factory.shared);
    t->magic = 0;
    xfree(t);
}

static void tls_destroy(struct transport *base) {
    struct tls *t = tls_of(base);
    hs_free(t);
    if (t->info.refs == 0) {
        tls_free(t);
        return;
    }
    t->is_orphan = true;
    t->transport.conn = NULL;
}

const struct ssl_info *ssl_info_ref(const struct ssl_info *s) {
    if (s) {
        ((struct ssl_info *)(uintptr_t)s)->refs++; /* a count: logically const */
    }
    return s;
}

void ssl_info_unref(const struct ssl_info *s) {
    if (!s) {
        return;
    }
    struct ssl_info *info = (struct ssl_info *)(uintptr_t)s;
    struct tls *t = tls_of(&CONTAINER_OF(info, struct tls, info)->transport);
    ASSERT(info->refs > 0);
    if (--info->refs == 0 && t->is_orphan) {
        tls_free(t);
    }
}

static sv tls_protocol(const struct transport *base) { return ssl_info_alpn(&tls_of(base)->info); }

static sv tls_failure_reason(const struct transport *base) {
    const struct tls *t = tls_of(base);
    return t->state == TLS_NOT_READY ? SV(NOT_READY_REASON) : sv_cstr(t->failure);
}

static const struct ssl_info *tls_ssl(const struct transport *base) { return &tls_of(base)->info; }

static bool tls_can_splice(const struct transport *base) {
    (void)base;
    return false;
}

static const struct transport_ops tls_ops = {
    .name = "tls",
    .on_connected = on_connected,
    .read = tls_read,
    .write = tls_write,
    .close = tls_close,
    .destroy = tls_destroy,
    .protocol = tls_protocol,
    .failure_reason = tls_failure_reason,
    .ssl = tls_ssl,
    .can_splice = tls_can_splice,
};

void tls_thread_drop(void) { tls_io_thread_drop(); }

/* --- making connections --- */

/* False: a name is not one, or the list is too long. */
static bool set_alpn(SSL *ssl, const sv *v, unsigned n) {
    struct buf wire;
    buf_init(&wire);
    bool ok = true;
    for (unsigned i = 0; i < n && ok; i++) {
        uint8_t len = (uint8_t)v[i].n;
        ok = v[i].n > 0 && v[i].n <= 255 && buf_len(&wire) + v[i].n + 1 <= TLS_ALPN_BYTES_MAX;
        buf_append(&wire, &len, 1);
        buf_append_sv(&wire, v[i]);
    }
    sv all = buf_pullup(&wire, buf_len(&wire));
    ok = ok && SSL_set_alpn_protos(ssl, (const uint8_t *)all.p, all.n) == 0;
    buf_fini(&wire);
    return ok;
}

static sv sni_of(const struct tls_config *c, const struct transport_options *o) {
    if (o && o->server_name.n) {
        return o->server_name;
    }
    if (c->auto_host_sni && o && o->host_name.n) {
        return o->host_name;
    }
    return sv_cstr(c->sni);
}

static bool set_sni(SSL *ssl, sv name) {
    if (name.n == 0) {
        return true;
    }
    char text[256];
    if (name.n >= sizeof text || sv_find(name, '\0') != SIZE_MAX) {
        return false;
    }
    memcpy(text, name.p, name.n);
    text[name.n] = '\0';
    return SSL_set_tlsext_host_name(ssl, text) == 1;
}

static void keep_sans(struct tls *t, const struct transport_options *o) {
    t->hs->sans = arena_new_array(&t->hs->arena, sv, o->san_override_n);
    t->hs->sans_n = o->san_override_n;
    for (unsigned i = 0; i < o->san_override_n; i++) {
        t->hs->sans[i] = arena_sv(&t->hs->arena, o->san_override[i]);
    }
    SSL_set_custom_verify(t->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, tls_on_verify);
}

static bool set_client(struct tls *t, const struct transport_options *o) {
    const struct tls_config *c = t->factory->config;
    SSL_set_connect_state(t->ssl);
    bool ok = set_sni(t->ssl, sni_of(c, o));
    if (o && o->san_override_n) {
        keep_sans(t, o);
    }
    if (ok && o && o->alpn_override_n) {
        ok = set_alpn(t->ssl, o->alpn_override, o->alpn_override_n);
    } else if (ok && o && !c->alpn && o->alpn_fallback_n) {
        ok = set_alpn(t->ssl, o->alpn_fallback, o->alpn_fallback_n);
    }
    SSL_set_enforce_rsa_key_usage(t->ssl, c->enforce_rsa_key_usage);
    if (c->max_session_keys) {
        tls_factory_resume(t->factory, t->ssl);
    }
    t->info.local = t->factory->certs_n ? t->factory->certs[0]->leaf : NULL;
    return ok;
}

static void setup(struct tls *t, const struct transport_options *o) {
    t->ssl = SSL_new(tls_factory_ctx(t->factory));
    CHECK(t->ssl);
    t->info.ssl = t->ssl;
    t->hs = xnew(struct handshake);
    arena_init(&t->hs->arena, 256);
    BIO *bio = tls_io_bio(&t->io);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_shed_handshake_config(t->ssl, 1);
    t->state = TLS_HANDSHAKE;
    if (!t->is_client) {
        SSL_set_accept_state(t->ssl);
        t->info.local = t->factory->certs[0]->leaf; /* until a ClientHello chooses another */
    } else if (!set_client(t, o)) {
        ERR_clear_error();
        t->failure = xstrdup("TLS_error:invalid server name or application protocol:TLS_error_end");
        t->state = TLS_FAILED;
    }
}

static struct transport *create(const struct transport_factory *base,
                                const struct transport_options *o) {
    struct tls_factory *f = tls_factory_of(base);
    struct tls *t = xnew(struct tls);
    t->transport.ops = &tls_ops;
    t->magic = TLS_MAGIC;
    shared_ref_(&f->factory.shared);
    t->factory = f;
    t->is_client = f->config->is_client;
    t->io.fd = -1;
    if (f->is_ready) {
        setup(t, o);
    }
    return &t->transport;
}

static void add_key(struct buf *key, char tag, const sv *v, unsigned n) {
    for (unsigned i = 0; i < n; i++) {
        if (v[i].n) {
            buf_append(key, &tag, 1);
            buf_append_sv(key, v[i]);
            buf_append(key, "", 1);
        }
    }
}

/* Connections that would verify or announce something else must not be shared. */
static void hash_key(const struct transport_factory *base, const struct transport_options *o,
                     struct buf *key) {
    if (!o) {
        return;
    }
    add_key(key, 'n', &o->server_name, 1);
    if (tls_factory_of(base)->config->auto_host_sni) {
        add_key(key, 'h', &o->host_name, 1);
    }
    add_key(key, 's', o->san_override, o->san_override_n);
    add_key(key, 'a', o->alpn_override, o->alpn_override_n);
    add_key(key, 'f', o->alpn_fallback, o->alpn_fallback_n);
}

const struct transport_factory_ops tls_factory_ops = {
    .create = create,
    .is_secure = true,
    .hash_key = hash_key,
};
