/* Certificates, contexts and pairs of transports for TLS tests: every test starts with nothing
 * compiled and nothing counted. A test source that includes it says `link:` with the --wrap options
 * of tls_pair.h. */
#ifndef SLUICE_TESTS_TLS_FIXTURE_H
#define SLUICE_TESTS_TLS_FIXTURE_H

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>

#include <openssl/err.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>

#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_context.h"
#include "proxy/net/transport.h"
#include "tests/support/fake_compile.h"
#include "tests/support/tls_certs.h"
#include "tests/support/tls_pair.h"
#include "tests/support/tls_text.h"

static struct {
    struct fake_compile f;
    struct stats_store *stats;
    struct test_cert *root, *other_root, *server, *server_rsa, *wild, *client, *expired, *stranger,
        *p384;
    char *server_chain, *crl, *hash;
    const char *vars[48];
} g;

static inline int start(void **state) {
    (void)state;
    fake_compile_init(&g.f, NULL);
    g.stats = stats_store_new(4);
    g.f.ctx.stats = g.stats;
    return 0;
}

static inline int end(void **state) {
    (void)state;
    fake_compile_fini(&g.f);
    stats_store_free(g.stats);
    transport_read_chunk_drop();
    tls_thread_drop();
    chunk_cache_trim();
    assert_int_equal(tls_intern_count(), 0);
    assert_int_equal(ERR_peek_error(), 0);
    return 0;
}

/* For the next row of a table: nothing compiled, nothing counted. */
static inline void renew(void) {
    end(NULL);
    start(NULL);
}

static inline struct test_cert *leaf(const char *cn, const char *sans, enum test_key key,
                                     long serial) {
    return test_cert_new(&(struct test_cert_spec){
        .cn = cn, .sans = sans, .issuer = g.root, .key = key, .serial = serial});
}

static inline int setup(void **state) {
    (void)state;
    g.root = test_cert_new(&(struct test_cert_spec){.cn = "Root", .is_ca = true});
    g.other_root = test_cert_new(&(struct test_cert_spec){.cn = "Other", .is_ca = true});
    g.server =
        leaf("server", "DNS:server.test,DNS:www.server.test,URI:spiffe://td/server", TEST_P256, 10);
    g.server_rsa = leaf("server", "DNS:server.test", TEST_RSA2048, 11);
    g.wild = leaf("wild", "DNS:*.wild.test", TEST_P256, 12);
    g.p384 = leaf("p384", "DNS:p384.test", TEST_P384, 13);
    g.client = leaf("client", "URI:spiffe://td/client,DNS:client.test", TEST_P256, 20);
    g.expired = test_cert_new(&(struct test_cert_spec){.cn = "late",
                                                       .sans = "DNS:server.test",
                                                       .issuer = g.root,
                                                       .not_before_s = -90,
                                                       .not_after_s = -30});
    g.stranger = test_cert_new(&(struct test_cert_spec){
        .cn = "stranger", .sans = "DNS:server.test", .issuer = g.other_root});
    g.server_chain = test_chain_pem((const struct test_cert *[]){g.server, g.root}, 2);
    g.crl = test_crl_pem(g.root, (long[]){10, 20}, 2);
    g.hash = test_cert_hash(g.server, false);
    const char *vars[] = {"root",
                          g.root->pem,
                          "other_root",
                          g.other_root->pem,
                          "server",
                          g.server->pem,
                          "server_key",
                          g.server->key_pem,
                          "rsa",
                          g.server_rsa->pem,
                          "rsa_key",
                          g.server_rsa->key_pem,
                          "wild",
                          g.wild->pem,
                          "wild_key",
                          g.wild->key_pem,
                          "p384",
                          g.p384->pem,
                          "p384_key",
                          g.p384->key_pem,
                          "client",
                          g.client->pem,
                          "client_key",
                          g.client->key_pem,
                          "expired",
                          g.expired->pem,
                          "expired_key",
                          g.expired->key_pem,
                          "stranger",
                          g.stranger->pem,
                          "stranger_key",
                          g.stranger->key_pem,
                          "chain",
                          g.server_chain,
                          "crl",
                          g.crl,
                          "hash",
                          g.hash,
                          NULL};
    memcpy(g.vars, vars, sizeof vars);
    return 0;
}

static inline int teardown(void **state) {
    (void)state;
    struct test_cert *all[] = {g.root,   g.other_root, g.server,   g.server_rsa, g.wild,
                               g.client, g.expired,    g.stranger, g.p384};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        test_cert_free(all[i]);
    }
    free(g.server_chain);
    free(g.crl);
    free(g.hash);
    return 0;
}

/* --- contexts --- */

#define CERT(name)                                                 \
    "tls_certificates { certificate_chain { inline_string: ~" name \
    "~ } private_key { inline_string: ~" name "_key~ } } "
#define SERVER "common_tls_context { " CERT("server") "} "
#define CA "validation_context { trusted_ca { inline_string: ~root~ } } "
/* upstream's default is 1.2 */
#define UP_TO_13 "tls_params { tls_maximum_protocol_version: TLSv1_3 } "
#define CLIENT "common_tls_context { " UP_TO_13 CA "} "
#define MTLS_SERVER \
    "common_tls_context { " CERT("server") CA "} require_client_certificate { value: true } "
#define MTLS_CLIENT "common_tls_context { " UP_TO_13 CERT("client") CA "} "

static inline const void *compile(bool client, const char *text) {
    const void *m = tls_message(&g.f.msgs, client ? "UpstreamTlsContext" : "DownstreamTlsContext",
                                text, g.vars);
    g.f.ctx.stat_prefix = client ? SV("cluster.c.") : SV("listener.l.");
    return (client ? tls_upstream_transport_socket : tls_downstream_transport_socket)
        .compile(&g.f.ctx, m);
}

static inline void show_errors(const char *text) {
    sv why = diag_text(&g.f.diag);
    fail_msg("%s: %.*s", text, SV_ARG(why));
}

static inline struct transport_factory *factory(bool client, const char *text) {
    const void *config = compile(client, text);
    struct transport_factory *f =
        config ? tls_upstream_transport_socket.make(config, NULL, &g.f.diag) : NULL;
    if (!f) {
        show_errors(text);
    }
    return f;
}

static inline struct transport *make(const struct transport_factory *f,
                                     const struct transport_options *o) {
    return f->ops->create(f, o);
}

static inline uint64_t stat_of(const struct transport_factory *f, unsigned i) {
    return stats_scope_value(tls_factory_of(f)->config->ssl_scope, i);
}

static inline uint64_t dyn_of(const struct transport_factory *f, const char *name) {
    return stat_dyn_value(
        stats_dyn(tls_factory_of(f)->config->ssl_scope, sv_cstr(name), STAT_COUNTER));
}

/* A server and a client of these contexts, run until quiet. */
struct two {
    struct transport_factory *fs, *fc;
    struct tls_end s, c;
};

static inline void two_open(struct two *t, const struct transport_options *o) {
    tls_pair_open(&t->s, make(t->fs, NULL), &t->c, make(t->fc, o), 0);
    tls_pair_run(&t->c, &t->s);
}

static inline void two_start(struct two *t, const char *server, const char *client,
                             const struct transport_options *o) {
    t->fs = factory(false, server);
    t->fc = factory(true, client);
    two_open(t, o);
}

static inline void two_close(struct two *t) {
    tls_end_free(&t->s);
    tls_end_free(&t->c);
}

static inline void two_end(struct two *t) {
    two_close(t);
    shared_unref(&t->fs->shared);
    shared_unref(&t->fc->shared);
}

static inline sv failure(const struct tls_end *e) { return e->t->ops->failure_reason(e->t); }
static inline const struct ssl_info *info(const struct tls_end *e) { return e->t->ops->ssl(e->t); }

static inline void assert_has(sv got, const char *want) {
    if (!sv_contains(got, sv_cstr(want))) {
        fail_msg("got '%.*s', want '%s'", SV_ARG(got), want);
    }
}

#define TLS_TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

#endif
