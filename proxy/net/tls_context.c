/* Factories: secrets and config into SSL_CTX, shared by all workers; sessions of upstream contexts;
 * named counters.
 * Threads: made on the config thread. Workers share the SSL_CTX (BoringSSL locks it); an upstream
 * SSL_CTX is made by the first worker that connects, since most of ten thousand clusters never do.
 * Not here: messages (tls_config.c), bytes on the wire (tls.c). */
#include "proxy/net/tls_context.h"

#include <openssl/err.h>
#include <openssl/sha2.h>

#include "proxy/net/tls.h"
#include "proxy/net/tls_x509.h"

STATS_GROUP(ssl, SSL_STAT, SSL_STATS);
STATS_GROUP(ssl_factory, SSL_FACTORY, SSL_FACTORY_STATS);

#define CONFIG_THREAD 1u /* stats shard of make() */

static const char default_ciphers[] =
    "[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]:"
    "[ECDHE-RSA-AES128-GCM-SHA256|ECDHE-RSA-CHACHA20-POLY1305]:"
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384";
static const char default_groups[] = "X25519MLKEM768:X25519:P-256";

bool tls_factory_is_tls(const struct transport_factory *f) { return f->ops == &tls_factory_ops; }

/* --- SSL_CTX --- */

static void set_params(SSL_CTX *ctx, const struct tls_config *c) {
    /* The lists were tried when the config was compiled. */
    CHECK(SSL_CTX_set_min_proto_version(ctx, c->min_version) &&
          SSL_CTX_set_max_proto_version(ctx, c->max_version) &&
          SSL_CTX_set_strict_cipher_list(ctx, c->ciphers ? c->ciphers : default_ciphers) &&
          SSL_CTX_set1_groups_list(ctx, c->groups ? c->groups : default_groups));
    if (c->sigalgs) {
        CHECK(SSL_CTX_set1_sigalgs_list(ctx, c->sigalgs));
    }
    if (c->compliance) {
        CHECK(SSL_CTX_set_compliance_policy(ctx, (enum ssl_compliance_policy_t)c->compliance));
    }
    if (c->key_log.fd >= 0) {
        SSL_CTX_set_keylog_callback(ctx, tls_on_key_log);
    }
}

static uint64_t contexts_alive; /* atomic */

uint64_t tls_contexts_alive(void) { return __atomic_load_n(&contexts_alive, __ATOMIC_RELAXED); }

static SSL_CTX *ctx_new(const struct tls_config *c) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());
    CHECK(ctx);
    __atomic_fetch_add(&contexts_alive, 1, __ATOMIC_RELAXED);
    SSL_CTX_set1_buffer_pool(ctx, tls_x509_pool());
    set_params(ctx, c);
    return ctx;
}

static SSL_CTX *client_ctx(const struct tls_factory *f) {
    const struct tls_config *c = f->config;
    SSL_CTX *ctx = ctx_new(c);
    SSL_CTX_set_custom_verify(ctx, f->policy.mode, tls_on_verify);
    if (f->policy.mode != SSL_VERIFY_NONE) {
        SSL_CTX_set_reverify_on_resume(ctx, 1);
    }
    if (f->certs_n) {
        const struct tls_cert *cert = f->certs[0];
        CHECK(tls_config_limits_signatures(c)
                  ? SSL_CTX_set_chain_and_key(ctx, cert->chain, cert->chain_n, cert->key, NULL)
                  : SSL_CTX_add1_credential(ctx, cert->plain));
    }
    if (c->alpn) {
        CHECK(SSL_CTX_set_alpn_protos(ctx, c->alpn, c->alpn_n) == 0);
    }
    if (c->max_session_keys) {
        SSL_CTX_set_session_cache_mode(ctx,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
        SSL_CTX_sess_set_new_cb(ctx, tls_on_new_session);
    } else {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    }
    return ctx;
}

/* Subjects of the trusted roots, for the CertificateRequest. */
static void set_ca_list(SSL_CTX *ctx, const struct tls_policy *p) {
    if (p->suppress_ca_list || (!p->ca && !p->spiffe)) {
        return;
    }
    STACK_OF(CRYPTO_BUFFER) *names = sk_CRYPTO_BUFFER_new_null();
    CHECK(names);
    unsigned lists = p->spiffe ? p->spiffe->domains_n : 1;
    for (unsigned i = 0; i < lists; i++) {
        const struct tls_ca *ca = p->spiffe ? p->spiffe->domains[i].ca : p->ca;
        for (size_t j = 0; j < sk_CRYPTO_BUFFER_num(ca->names); j++) {
            CRYPTO_BUFFER *name = sk_CRYPTO_BUFFER_value(ca->names, j);
            CRYPTO_BUFFER_up_ref(name);
            CHECK(sk_CRYPTO_BUFFER_push(names, name));
        }
    }
    SSL_CTX_set0_client_CAs(ctx, names);
}

static void digest_text(SHA256_CTX *sha, sv text) {
    uint64_t n = text.n;
    SHA256_Update(sha, &n, sizeof n);
    SHA256_Update(sha, text.p, text.n);
}

/* Sessions are resumed only by contexts that would serve the same names and ask the same of
 * clients. */
static void set_session_id_context(SSL_CTX *ctx, const struct tls_factory *f) {
    struct arena a;
    arena_init(&a, 0);
    uint8_t id[TLS_DIGEST_BYTES];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    for (unsigned i = 0; i < f->certs_n; i++) {
        sv parts[] = {tls_x509_subject(f->certs[i]->leaf, &a),
                      tls_x509_sans_text(f->certs[i]->leaf, &a),
                      tls_x509_issuer(f->certs[i]->leaf, &a)};
        for (unsigned j = 0; j < ARRAY_LEN(parts); j++) {
            digest_text(&sha, parts[j]);
        }
    }
    for (size_t i = 0; i < f->config->server_names_n; i++) {
        digest_text(&sha, f->config->server_names[i]);
    }
    for (unsigned i = 0; i < f->policy.parts_n; i++) {
        SHA256_Update(&sha, f->policy.part[i]->digest, TLS_DIGEST_BYTES);
    }
    uint8_t require = f->config->require_client_cert;
    SHA256_Update(&sha, &require, 1);
    SHA256_Final(id, &sha);
    CHECK(SSL_CTX_set_session_id_context(ctx, id, sizeof id));
    arena_fini(&a);
}

static void set_resumption(SSL_CTX *ctx, const struct tls_factory *f) {
    const struct tls_config *c = f->config;
    if (c->no_tickets) {
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
    } else if (f->tickets) {
        SSL_CTX_set_tlsext_ticket_key_cb(ctx, tls_on_ticket_key);
    }
    if (c->no_session_cache) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    }
    if (c->has_session_timeout) {
        SSL_CTX_set_timeout(ctx, c->session_timeout_s);
    }
}

static SSL_CTX *server_ctx(const struct tls_factory *f) {
    const struct tls_config *c = f->config;
    SSL_CTX *ctx = ctx_new(c);
    int mode = f->policy.mode;
    if (c->require_client_cert && f->policy.ca) {
        mode = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    }
    SSL_CTX_set_custom_verify(ctx, mode, tls_on_verify);
    set_ca_list(ctx, &f->policy);
    SSL_CTX_set_select_certificate_cb(ctx, tls_on_client_hello);
    if (c->alpn) {
        SSL_CTX_set_alpn_select_cb(ctx, tls_on_alpn, NULL);
    }
    if (!c->prefer_client_ciphers) {
        SSL_CTX_set_options(ctx, SSL_OP_CIPHER_SERVER_PREFERENCE);
    }
    set_resumption(ctx, f);
    set_session_id_context(ctx, f);
    return ctx;
}

static void set_expiry(const struct tls_config *c, sv name, int64_t expires_s) {
    if (!c->ssl_scope) {
        return;
    }
    char text[512];
    int n = snprintf(text, sizeof text, "certificate.%.*s.expiration_unix_time_seconds",
                     (int)(name.n < 256 ? name.n : 256), name.p);
    stat_dyn_set(stats_dyn(c->ssl_scope, sv_from(text, (size_t)n), STAT_GAUGE),
                 (uint64_t)expires_s);
}

/* Of a trust bundle the certificate that expires first counts. */
static void set_expiries(const struct tls_factory *f) {
    int64_t expires;
    for (unsigned i = 0; i < f->certs_n; i++) {
        if (tls_x509_not_after(f->certs[i]->leaf, &expires)) {
            set_expiry(f->config, f->cert_secrets[i]->name, expires);
        }
    }
    if (f->policy.ca && f->policy.ca->not_after_s != INT64_MAX) {
        set_expiry(f->config, f->config->validation.name, f->policy.ca->not_after_s);
    }
}

SSL_CTX *tls_factory_ctx(struct tls_factory *f) {
    SSL_CTX *ctx = __atomic_load_n(&f->ctx, __ATOMIC_ACQUIRE);
    if (LIKELY(ctx)) {
        return ctx;
    }
    pthread_mutex_lock(&f->mutex);
    ctx = f->ctx;
    if (!ctx) {
        ctx = f->config->is_client ? client_ctx(f) : server_ctx(f);
        set_expiries(f);
        __atomic_store_n(&f->config->tells_expiry, true, __ATOMIC_RELAXED);
        __atomic_store_n(&f->ctx, ctx, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&f->mutex);
    return ctx;
}

/* --- factory --- */

static void factory_free(struct shared *self) {
    struct tls_factory *f = CONTAINER_OF(self, struct tls_factory, factory.shared);
    if (f->ctx) {
        SSL_CTX_free(f->ctx);
        __atomic_fetch_sub(&contexts_alive, 1, __ATOMIC_RELAXED);
    }
    for (uint32_t i = 0; i < f->sessions_n; i++) {
        SSL_SESSION_free(f->sessions[i].session);
        xfree(f->sessions[i].name);
    }
    xfree(f->sessions);
    tls_select_fini(&f->select);
    tls_policy_fini(&f->policy);
    for (unsigned i = 0; i < f->certs_n; i++) {
        tls_secret_unref(f->cert_secrets[i]);
    }
    tls_secret_unref(f->validation[0]);
    tls_secret_unref(f->validation[1]);
    tls_secret_unref(f->tickets);
    xfree(f->cert_secrets);
    xfree(f->certs);
    xfree(f->dyn);
    pthread_mutex_destroy(&f->mutex);
    shared_unref(&f->config->shared);
    f->magic = 0;
    xfree(f);
}

static struct tls_factory *factory_new(struct tls_config *c) {
    struct tls_factory *f = xnew(struct tls_factory);
    shared_init(&f->factory.shared, factory_free);
    f->factory.ops = &tls_factory_ops;
    f->magic = TLS_FACTORY_MAGIC;
    f->config = shared_ref(c);
    pthread_mutex_init(&f->mutex, NULL);
    arena_init(&f->select.arena_, 0);
    f->cert_secrets = xnew_array(struct tls_secret *, c->certs_n);
    f->certs = xnew_array(const struct tls_cert *, c->certs_n);
    return f;
}

/* The secret of a slot with a new ref in *out; NULL there when it is not known yet. False: of the
 * wrong kind. */
static bool resolve(const struct tls_secret_slot *slot, enum tls_secret_kind kind,
                    const struct secret_source *src, struct tls_secret **out, struct diag *d) {
    const struct tls_secret *s = slot->inlined;
    if (!s && src && slot->index < src->n) {
        s = src->v[slot->index];
    }
    *out = NULL;
    if (s && s->kind != kind) {
        return diag_error(d, "secret '%.*s' is of another kind", SV_ARG(slot->name));
    }
    *out = tls_secret_ref(s);
    return true;
}

static bool resolve_certs(struct tls_factory *f, const struct secret_source *src, struct diag *d) {
    const struct tls_config *c = f->config;
    for (unsigned i = 0; i < c->certs_n; i++) {
        struct tls_secret *s;
        if (!resolve(&c->certs[i], TLS_SECRET_CERT, src, &s, d)) {
            return false;
        }
        if (s) {
            f->cert_secrets[f->certs_n] = s;
            f->certs[f->certs_n++] = s->cert;
        }
    }
    return true;
}

static bool resolve_validation(struct tls_factory *f, const struct secret_source *src,
                               struct diag *d) {
    const struct tls_config *c = f->config;
    f->validation[0] = tls_secret_ref(c->default_validation);
    return !c->has_validation ||
           resolve(&c->validation, TLS_SECRET_VALIDATION, src, &f->validation[1], d);
}

/* What no missing secret can cure. */
static bool check_staples(const struct tls_factory *f, struct diag *d) {
    for (unsigned i = 0; i < f->certs_n; i++) {
        if (!tls_config_check_staple(f->config, f->certs[i], d)) {
            return false;
        }
    }
    return true;
}

static bool factory_fill(struct tls_factory *f, const struct secret_source *src, struct diag *d) {
    const struct tls_config *c = f->config;
    if (!resolve_certs(f, src, d) || !resolve_validation(f, src, d) ||
        (c->has_tickets && !resolve(&c->tickets, TLS_SECRET_TICKETS, src, &f->tickets, d))) {
        return false;
    }
    if (!c->is_client && !check_staples(f, d)) {
        return false;
    }
    f->is_ready = (c->certs_n == 0 || f->certs_n > 0) && (!c->has_validation || f->validation[1]);
    if (!f->is_ready) {
        return true;
    }
    if (!tls_policy_make(&f->policy, f->validation[0] ? f->validation[0]->validation : NULL,
                         f->validation[1] ? f->validation[1]->validation : NULL, c->auto_sni_san,
                         d)) {
        return false;
    }
    if (!c->is_client) {
        tls_select_init(&f->select, f->certs, f->certs_n, c->ocsp_policy, c->full_scan);
        tls_factory_ctx(f);
    }
    return true;
}

static struct transport_factory *make(const void *config, const struct secret_source *secrets,
                                      struct diag *d) {
    struct tls_config *c = CAST(tls_config, TLS_CONFIG_MAGIC, (uintptr_t)config);
    struct tls_factory *f = factory_new(c);
    if (!factory_fill(f, secrets, d)) {
        shared_unref(&f->factory.shared);
        return NULL;
    }
    if (c->was_made && c->factory_scope) {
        stats_inc(stats_shard(c->factory_scope, CONFIG_THREAD),
                  SSL_FACTORY_ssl_context_update_by_sds);
    }
    c->was_made = true;
    if (f->is_ready && __atomic_load_n(&c->tells_expiry, __ATOMIC_RELAXED)) {
        set_expiries(f); /* its SSL_CTX may be long in coming: there are connections already */
    }
    return &f->factory;
}

static void *compile_downstream(struct compile_ctx *ctx, const void *msg) {
    return tls_config_downstream(ctx, msg);
}

static void *compile_upstream(struct compile_ctx *ctx, const void *msg) {
    return tls_config_upstream(ctx, msg);
}

const struct transport_socket_type tls_downstream_transport_socket = {
    .name = "envoy.transport_sockets.tls",
    .type_url = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    .is_downstream = true,
    .compile = compile_downstream,
    .make = make,
};
const struct transport_socket_type tls_upstream_transport_socket = {
    .name = "envoy.transport_sockets.tls",
    .type_url = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    .is_upstream = true,
    .compile = compile_upstream,
    .make = make,
};

/* --- sessions of an upstream context --- */

static bool same_name(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

/* The i-th leaves the store; its session is the caller's. */
static SSL_SESSION *take_session(struct tls_factory *f, uint32_t i) {
    SSL_SESSION *session = f->sessions[i].session;
    uint32_t left = f->sessions_n - 1;
    xfree(f->sessions[i].name);
    memmove(f->sessions + i, f->sessions + i + 1, (left - i) * sizeof *f->sessions);
    __atomic_store_n(&f->sessions_n, left, __ATOMIC_RELAXED);
    return session;
}

void tls_factory_resume(struct tls_factory *f, SSL *ssl) {
    if (__atomic_load_n(&f->sessions_n, __ATOMIC_RELAXED) == 0) {
        return;
    }
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    pthread_mutex_lock(&f->mutex);
    for (uint32_t i = 0; i < f->sessions_n; i++) {
        if (!same_name(f->sessions[i].name, name)) {
            continue;
        }
        SSL_set_session(ssl, f->sessions[i].session);
        if (SSL_SESSION_should_be_single_use(f->sessions[i].session)) {
            SSL_SESSION_free(take_session(f, i));
        }
        break;
    }
    pthread_mutex_unlock(&f->mutex);
}

/* Keeps the caller's ref of the session. */
static void keep_session(struct tls_factory *f, SSL_SESSION *session, const char *name) {
    uint32_t max = f->config->max_session_keys;
    pthread_mutex_lock(&f->mutex);
    if (!f->sessions) {
        f->sessions = xnew_array(struct tls_kept_session, max);
    }
    if (f->sessions_n == max) {
        SSL_SESSION_free(take_session(f, max - 1));
    }
    uint32_t n = f->sessions_n;
    memmove(f->sessions + 1, f->sessions, n * sizeof *f->sessions);
    f->sessions[0] = (struct tls_kept_session){session, name ? xstrdup(name) : NULL};
    __atomic_store_n(&f->sessions_n, n + 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&f->mutex);
}

int tls_on_new_session(SSL *ssl, SSL_SESSION *session) {
    keep_session(tls_factory_of_ssl(ssl), session,
                 SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name));
    return 1;
}

/* --- counters --- */

void tls_factory_count(const struct tls_factory *f, unsigned thread, unsigned stat) {
    if (f->config->ssl_scope) {
        stats_inc(stats_shard(f->config->ssl_scope, thread), stat);
    }
}

static struct tls_dyn *dyn_table(struct tls_factory *f) {
    struct tls_dyn *t = __atomic_load_n(&f->dyn, __ATOMIC_ACQUIRE);
    if (t) {
        return t;
    }
    pthread_mutex_lock(&f->mutex);
    if (!f->dyn) {
        __atomic_store_n(&f->dyn, xnew_array(struct tls_dyn, TLS_DYN_SLOTS), __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&f->mutex);
    return f->dyn;
}

/* Linear probing by worker threads at once: a slot belongs to the first key that is put there.
 * NULL: the table is full. */
static struct tls_dyn *dyn_slot(struct tls_dyn *t, uint32_t key) {
    for (unsigned i = 0; i < TLS_DYN_SLOTS; i++) {
        struct tls_dyn *slot = &t[(key * 2654435761u + i) % TLS_DYN_SLOTS];
        uint32_t seen = 0;
        if (__atomic_compare_exchange_n(&slot->key, &seen, key, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED) ||
            seen == key) {
            return slot;
        }
    }
    return NULL;
}

static struct stat_dyn *dyn_find(const struct tls_factory *f, enum tls_dyn_kind kind,
                                 const char *name) {
    static const char *const leads[] = {"", "ciphers.", "versions.", "curves.", "sigalgs."};
    char text[128];
    int n = snprintf(text, sizeof text, "%s%s", leads[kind], name);
    return stats_dyn(f->config->ssl_scope, sv_from(text, (size_t)n), STAT_COUNTER);
}

void tls_factory_count_named(struct tls_factory *f, enum tls_dyn_kind kind, uint16_t id,
                             const char *name) {
    if (!f->config->ssl_scope || !name || strlen(name) > 100) {
        return;
    }
    struct tls_dyn *slot = dyn_slot(dyn_table(f), (uint32_t)kind << 16 | id);
    struct stat_dyn *stat = slot ? __atomic_load_n(&slot->stat, __ATOMIC_ACQUIRE) : NULL;
    if (!stat) {
        stat = dyn_find(f, kind, name);
        if (slot) {
            __atomic_store_n(&slot->stat, stat, __ATOMIC_RELEASE);
        }
    }
    stat_dyn_add(stat, 1);
}
