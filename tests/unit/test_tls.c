/* link: -Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed,--wrap=conn_transport_want_write,--wrap=conn_resume */
/* Handshakes between two of our transports and with strangers: verification, ALPN, SNI, resumption, bulk data, endings,
 * hostile bytes. */
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
    struct test_cert *root, *other_root, *server, *server_rsa, *wild, *client, *expired, *stranger, *p384;
    char *server_chain, *crl, *hash;
    const char *vars[48];
} g;

static int start(void **state) {
    (void)state;
    fake_compile_init(&g.f, NULL);
    g.stats = stats_store_new(4);
    g.f.ctx.stats = g.stats;
    return 0;
}

static int end(void **state) {
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
static void renew(void) {
    end(NULL);
    start(NULL);
}

static struct test_cert *leaf(const char *cn, const char *sans, enum test_key key, long serial) {
    return test_cert_new(&(struct test_cert_spec){.cn = cn, .sans = sans, .issuer = g.root, .key = key, .serial = serial});
}

static int setup(void **state) {
    (void)state;
    g.root = test_cert_new(&(struct test_cert_spec){.cn = "Root", .is_ca = true});
    g.other_root = test_cert_new(&(struct test_cert_spec){.cn = "Other", .is_ca = true});
    g.server = leaf("server", "DNS:server.test,DNS:www.server.test,URI:spiffe://td/server", TEST_P256, 10);
    g.server_rsa = leaf("server", "DNS:server.test", TEST_RSA2048, 11);
    g.wild = leaf("wild", "DNS:*.wild.test", TEST_P256, 12);
    g.p384 = leaf("p384", "DNS:p384.test", TEST_P384, 13);
    g.client = leaf("client", "URI:spiffe://td/client,DNS:client.test", TEST_P256, 20);
    g.expired = test_cert_new(&(struct test_cert_spec){.cn = "late", .sans = "DNS:server.test", .issuer = g.root, .not_before_s = -90, .not_after_s = -30});
    g.stranger = test_cert_new(&(struct test_cert_spec){.cn = "stranger", .sans = "DNS:server.test", .issuer = g.other_root});
    g.server_chain = test_chain_pem((const struct test_cert *[]){g.server, g.root}, 2);
    g.crl = test_crl_pem(g.root, (long[]){10, 20}, 2);
    g.hash = test_cert_hash(g.server, false);
    const char *vars[] = {"root", g.root->pem, "other_root", g.other_root->pem, "server", g.server->pem, "server_key", g.server->key_pem,
                          "rsa", g.server_rsa->pem, "rsa_key", g.server_rsa->key_pem, "wild", g.wild->pem, "wild_key", g.wild->key_pem,
                          "p384", g.p384->pem, "p384_key", g.p384->key_pem, "client", g.client->pem, "client_key", g.client->key_pem,
                          "expired", g.expired->pem, "expired_key", g.expired->key_pem, "stranger", g.stranger->pem,
                          "stranger_key", g.stranger->key_pem, "chain", g.server_chain, "crl", g.crl, "hash", g.hash, NULL};
    memcpy(g.vars, vars, sizeof vars);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    struct test_cert *all[] = {g.root, g.other_root, g.server, g.server_rsa, g.wild, g.client, g.expired, g.stranger, g.p384};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        test_cert_free(all[i]);
    }
    free(g.server_chain);
    free(g.crl);
    free(g.hash);
    return 0;
}

/* --- contexts --- */

#define CERT(name) "tls_certificates { certificate_chain { inline_string: ~" name "~ } private_key { inline_string: ~" name "_key~ } } "
#define SERVER "common_tls_context { " CERT("server") "} "
#define CA "validation_context { trusted_ca { inline_string: ~root~ } } "
#define UP_TO_13 "tls_params { tls_maximum_protocol_version: TLSv1_3 } " /* upstream's default is 1.2 */
#define CLIENT "common_tls_context { " UP_TO_13 CA "} "
#define MTLS_SERVER "common_tls_context { " CERT("server") CA "} require_client_certificate { value: true } "
#define MTLS_CLIENT "common_tls_context { " UP_TO_13 CERT("client") CA "} "

static const void *compile(bool client, const char *text) {
    const void *m = tls_message(&g.f.msgs, client ? "UpstreamTlsContext" : "DownstreamTlsContext", text, g.vars);
    g.f.ctx.stat_prefix = client ? SV("cluster.c.") : SV("listener.l.");
    return (client ? tls_upstream_transport_socket : tls_downstream_transport_socket).compile(&g.f.ctx, m);
}

static void show_errors(const char *text) {
    sv why = diag_text(&g.f.diag);
    fail_msg("%s: %.*s", text, SV_ARG(why));
}

static struct transport_factory *factory(bool client, const char *text) {
    const void *config = compile(client, text);
    struct transport_factory *f = config ? tls_upstream_transport_socket.make(config, NULL, &g.f.diag) : NULL;
    if (!f) {
        show_errors(text);
    }
    return f;
}

static struct transport *make(const struct transport_factory *f, const struct transport_options *o) {
    return f->ops->create(f, o);
}

static uint64_t stat_of(const struct transport_factory *f, unsigned i) {
    return stats_scope_value(tls_factory_of(f)->config->ssl_scope, i);
}

static uint64_t dyn_of(const struct transport_factory *f, const char *name) {
    return stat_dyn_value(stats_dyn(tls_factory_of(f)->config->ssl_scope, sv_cstr(name), STAT_COUNTER));
}

/* A server and a client of these contexts, run until quiet. */
struct two {
    struct transport_factory *fs, *fc;
    struct tls_end s, c;
};

static void two_open(struct two *t, const struct transport_options *o) {
    tls_pair_open(&t->s, make(t->fs, NULL), &t->c, make(t->fc, o), 0);
    tls_pair_run(&t->c, &t->s);
}

static void two_start(struct two *t, const char *server, const char *client, const struct transport_options *o) {
    t->fs = factory(false, server);
    t->fc = factory(true, client);
    two_open(t, o);
}

static void two_close(struct two *t) {
    tls_end_free(&t->s);
    tls_end_free(&t->c);
}

static void two_end(struct two *t) {
    two_close(t);
    shared_unref(&t->fs->shared);
    shared_unref(&t->fc->shared);
}

static sv failure(const struct tls_end *e) { return e->t->ops->failure_reason(e->t); }
static const struct ssl_info *info(const struct tls_end *e) { return e->t->ops->ssl(e->t); }

static void assert_has(sv got, const char *want) {
    if (!sv_contains(got, sv_cstr(want))) {
        fail_msg("got '%.*s', want '%s'", SV_ARG(got), want);
    }
}

/* --- handshakes --- */

static void test_handshake(void **state) {
    (void)state;
    struct two t;
    two_start(&t, SERVER, CLIENT "sni: 'server.test'", NULL);
    assert_true(t.s.ready && t.c.ready);
    assert_true(tls_pair_passes(&t.c, &t.s, "hello"));
    assert_true(tls_pair_passes(&t.s, &t.c, "world"));
    assert_sv_is(ssl_info_version(info(&t.c)), "TLSv1.3");
    assert_sv_is(ssl_info_group(info(&t.c)), "X25519MLKEM768");
    assert_sv_is(ssl_info_sni(info(&t.s)), "server.test");
    assert_true(ssl_info_is_validated(info(&t.c)));
    assert_true(ssl_info_has_peer_cert(info(&t.c)));
    assert_false(ssl_info_has_peer_cert(info(&t.s)));
    assert_false(ssl_info_is_validated(info(&t.s)));
    assert_int_equal(failure(&t.s).n, 0);
    assert_int_equal(stat_of(t.fs, SSL_STAT_handshake), 1);
    assert_int_equal(stat_of(t.fs, SSL_STAT_no_certificate), 1);
    assert_int_equal(stat_of(t.fc, SSL_STAT_no_certificate), 0);
    assert_int_equal(dyn_of(t.fs, "versions.TLSv1.3"), 1);
    assert_int_equal(dyn_of(t.fs, "curves.X25519MLKEM768"), 1);
    assert_int_equal(dyn_of(t.fc, "sigalgs.ecdsa_secp256r1_sha256"), 1);
    struct buf cipher;
    buf_init(&cipher);
    buf_lit(&cipher, "ciphers.");
    buf_append_sv(&cipher, ssl_info_cipher(info(&t.s)));
    char *name = buf_dup_str(&cipher);
    assert_int_equal(dyn_of(t.fs, name), 1);
    xfree(name);
    buf_fini(&cipher);
    two_end(&t);
}

static void test_versions(void **state) {
    (void)state;
#define PARAMS(min, max) "common_tls_context { tls_params { tls_minimum_protocol_version: " min " tls_maximum_protocol_version: " max " } "
    const struct {
        const char *server, *client, *version, *text; /* version NULL: fails */
    } rows[] = {
        {PARAMS("TLS_AUTO", "TLS_AUTO"), PARAMS("TLS_AUTO", "TLS_AUTO"), "TLSv1.2", NULL},
        {PARAMS("TLS_AUTO", "TLS_AUTO"), PARAMS("TLS_AUTO", "TLSv1_3"), "TLSv1.3", NULL},
        {PARAMS("TLS_AUTO", "TLSv1_2"), PARAMS("TLS_AUTO", "TLS_AUTO"), "TLSv1.2", NULL},
        {PARAMS("TLS_AUTO", "TLS_AUTO"), PARAMS("TLS_AUTO", "TLSv1_2"), "TLSv1.2", NULL},
        {PARAMS("TLSv1_0", "TLSv1_1"), PARAMS("TLSv1_0", "TLSv1_3"), NULL, "SSLV3_ALERT_HANDSHAKE_FAILURE"}, /* no AEAD cipher there */
        {PARAMS("TLSv1_3", "TLSv1_3"), PARAMS("TLS_AUTO", "TLSv1_2"), NULL, ":TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end"},
        {PARAMS("TLS_AUTO", "TLSv1_2"), PARAMS("TLSv1_3", "TLSv1_3"), NULL, ":TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char server[512], client[512];
        snprintf(server, sizeof server, "%s %s }", rows[i].server, CERT("server"));
        snprintf(client, sizeof client, "%s %s }", rows[i].client, CA);
        struct two t;
        two_start(&t, server, client, NULL);
        bool ok = t.s.ready && t.c.ready;
        assert_row(ok == (rows[i].version != NULL), i);
        if (ok) {
            assert_sv_is(ssl_info_version(info(&t.s)), rows[i].version);
        } else {
            assert_has(failure(&t.s), ":SSL routines:OPENSSL_internal:");
            assert_has(failure(&t.c), rows[i].text);
        }
        two_end(&t);
    }
}

static void test_mutual(void **state) {
    (void)state;
    struct two t;
    two_start(&t, MTLS_SERVER, MTLS_CLIENT, NULL);
    assert_true(t.s.ready && t.c.ready);
    const struct ssl_info *s = info(&t.s);
    assert_true(ssl_info_is_validated(s) && ssl_info_has_peer_cert(s));
    assert_sv_is(ssl_info_fact(s, SSL_FACT_PEER_SUBJECT), "CN=client,O=Test\\, Inc.");
    assert_sv_is(ssl_info_fact(s, SSL_FACT_PEER_ISSUER), "CN=Root,O=Test\\, Inc.");
    assert_sv_is(ssl_info_fact(s, SSL_FACT_PEER_SERIAL), "14");
    assert_sv_is(ssl_info_fact(s, SSL_FACT_LOCAL_SUBJECT), "CN=server,O=Test\\, Inc.");
    assert_sv_is(ssl_info_fact(s, SSL_FACT_PEER_PEM), g.client->pem);
    char *hash = test_cert_hash(g.client, false);
    assert_sv_is(ssl_info_fact(s, SSL_FACT_PEER_SHA256), hash);
    free(hash);
    assert_ptr_equal(ssl_info_fact(s, SSL_FACT_PEER_SHA256).p, ssl_info_fact(s, SSL_FACT_PEER_SHA256).p);
    assert_true(sv_starts(ssl_info_fact(s, SSL_FACT_PEER_URL_PEM_CHAIN), ssl_info_fact(s, SSL_FACT_PEER_URL_PEM)));
    const sv *v;
    assert_int_equal(ssl_info_list(s, SSL_LIST_PEER_URI, &v), 1);
    assert_sv_is(v[0], "spiffe://td/client");
    assert_int_equal(ssl_info_list(s, SSL_LIST_LOCAL_DNS, &v), 2);
    assert_sv_is(v[1], "www.server.test");
    assert_int_equal(ssl_info_list(s, SSL_LIST_PEER_IP, &v), 0);
    assert_int_equal(ssl_info_list(s, SSL_LIST_CHAIN_SHA256, &v), 1);
    assert_int_equal(ssl_info_list(info(&t.c), SSL_LIST_CHAIN_SERIAL, &v), 1);
    assert_sv_is(v[0], "0a");
    int64_t from, until;
    assert_true(ssl_info_peer_validity(s, &from, &until) && from < until);
    assert_true(tls_pair_passes(&t.c, &t.s, "x"));
    two_end(&t);
}

/* What either side says when it does not like the other. */
static void test_refusals(void **state) {
    (void)state;
#define VERIFY "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert failed: "
#define WITH(ctx) "common_tls_context { validation_context { " ctx " } } "
    const struct {
        const char *server, *client;
        bool at_server; /* who finds the fault */
        const char *text;
        unsigned stat;
    } rows[] = {
        {SERVER, WITH("trusted_ca { inline_string: ~other_root~ }"), false,
         VERIFY "X509_verify_cert: certificate verification error at depth 0: unable to get local issuer certificate:TLS_error_end", SSL_STAT_fail_verify_error},
        {"common_tls_context { " CERT("stranger") "}", CLIENT, false, "unable to get local issuer certificate", SSL_STAT_fail_verify_error},
        {"common_tls_context { " CERT("expired") "}", CLIENT, false, VERIFY "X509_verify_cert: certificate verification error at depth 0: certificate has expired", SSL_STAT_fail_verify_error},
        {SERVER, WITH("trusted_ca { inline_string: ~root~ } match_typed_subject_alt_names { san_type: DNS matcher { exact: 'x.test' } }"), false,
         VERIFY "SAN matcher, certificate SANs are [server.test, www.server.test, spiffe://td/server]:TLS_error_end", SSL_STAT_fail_verify_san},
        {SERVER, WITH("verify_certificate_hash: '0000000000000000000000000000000000000000000000000000000000000000'"), false, VERIFY "cert hash and spki", SSL_STAT_fail_verify_cert_hash},
        {SERVER, WITH("trusted_ca { inline_string: ~root~ } crl { inline_string: ~crl~ }"), false, "at depth 0: certificate revoked", SSL_STAT_fail_verify_error},
        {MTLS_SERVER, CLIENT, true, "TLS_error:|268435648:SSL routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide required client certificate:TLS_error_end",
         SSL_STAT_fail_verify_no_cert},
        {"common_tls_context { " CERT("server") "validation_context { trusted_ca { inline_string: ~other_root~ } } }", MTLS_CLIENT, true, "unable to get local issuer certificate",
         SSL_STAT_fail_verify_error},
        {"common_tls_context { " CERT("server") "validation_context { trusted_ca { inline_string: ~root~ } match_typed_subject_alt_names { san_type: URI matcher { prefix: 'spiffe://other/' } } } }",
         MTLS_CLIENT, true, "certificate SANs are [spiffe://td/client, client.test]", SSL_STAT_fail_verify_san},
        {"common_tls_context { " CERT("server") "validation_context { trusted_ca { inline_string: ~root~ } crl { inline_string: ~crl~ } } }", MTLS_CLIENT, true, "certificate revoked",
         SSL_STAT_fail_verify_error},
        {SERVER "require_sni { value: true }", CLIENT, true, "CONNECTION_REJECTED", SSL_STAT_connection_error},
        {SERVER "require_sni { value: true }", CLIENT "sni: 'unknown.test'", true, "CONNECTION_REJECTED", SSL_STAT_connection_error},
        {"common_tls_context { tls_params { cipher_suites: 'ECDHE-RSA-AES128-GCM-SHA256' tls_maximum_protocol_version: TLSv1_2 } " CERT("server") "}", CLIENT, true, "NO_SHARED_CIPHER",
         SSL_STAT_connection_error},
        {"common_tls_context { tls_params { ecdh_curves: 'P-384' } " CERT("server") "}", CLIENT, true, "NO_SHARED_GROUP", SSL_STAT_connection_error},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t;
        two_start(&t, rows[i].server, rows[i].client, NULL);
        struct tls_end *finder = rows[i].at_server ? &t.s : &t.c;
        if (!finder->failed || !sv_contains(failure(finder), sv_cstr(rows[i].text))) {
            print_error("row %zu: '%.*s'\n", i, SV_ARG(failure(finder)));
        }
        assert_row(finder->failed && !finder->ready, i);
        assert_row(sv_contains(failure(finder), sv_cstr(rows[i].text)), i);
        assert_row(stat_of(rows[i].at_server ? t.fs : t.fc, rows[i].stat) == 1, i);
        struct tls_end *other = rows[i].at_server ? &t.c : &t.s;
        assert_row(other->failed, i); /* told by an alert */
        assert_row(sv_contains(failure(other), SV("ALERT")), i);
        two_end(&t);
        renew();
    }
}

static void test_optional_client(void **state) {
    (void)state;
    const char *optional = "common_tls_context { " CERT("server") CA "} ";
    const char *any = "common_tls_context { " CERT("server") "validation_context { trusted_ca { inline_string: ~other_root~ } trust_chain_verification: ACCEPT_UNTRUSTED } } ";
    const struct {
        const char *server, *client;
        bool presented, validated;
    } rows[] = {
        {optional, CLIENT, false, false},   {optional, MTLS_CLIENT, true, true},
        {any, CLIENT, false, false},        {any, MTLS_CLIENT, true, false},
        {SERVER "require_client_certificate { value: true }", MTLS_CLIENT, false, false}, /* no context: not asked for */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t;
        two_start(&t, rows[i].server, rows[i].client, NULL);
        assert_row(t.s.ready && t.c.ready, i);
        assert_row(ssl_info_has_peer_cert(info(&t.s)) == rows[i].presented, i);
        assert_row(ssl_info_is_validated(info(&t.s)) == rows[i].validated, i);
        two_end(&t);
        diag_reset(&g.f.diag);
    }
}

static void test_upstream_options(void **state) {
    (void)state;
    static const sv good[] = {SV_INIT("www.server.test")}, bad[] = {SV_INIT("evil.test")};
    const char *none = "common_tls_context { } ";
    const char *sni_san = CLIENT "sni: 'configured.test' auto_sni_san_validation: true";
    const struct {
        const char *client;
        struct transport_options o;
        bool ok;
        const char *sni;
    } rows[] = {
        {none, {.server_name = SV_NULL}, true, ""},
        {none, {.san_override = good, .san_override_n = 1}, true, ""},
        {none, {.san_override = bad, .san_override_n = 1}, false, ""},
        {CLIENT "sni: 'configured.test'", {.host_name = SV("host.test")}, true, "configured.test"},
        {CLIENT "sni: 'configured.test' auto_host_sni: true", {.host_name = SV("host.test")}, true, "host.test"},
        {CLIENT "sni: 'configured.test' auto_host_sni: true", {.host_name = SV("host.test"), .server_name = SV("auto.test")}, true, "auto.test"},
        {CLIENT "auto_host_sni: true", {.server_name = SV_NULL}, true, ""},
        {sni_san, {.server_name = SV("server.test")}, true, "server.test"},
        {sni_san, {.server_name = SV_NULL}, false, "configured.test"},
        {CLIENT, {.server_name = SV("bad\0name")}, false, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t;
        two_start(&t, SERVER, rows[i].client, &rows[i].o);
        assert_row(t.c.ready == rows[i].ok && t.c.failed != rows[i].ok, i);
        assert_row(!rows[i].ok || sv_is(ssl_info_sni(info(&t.s)), rows[i].sni), i);
        two_end(&t);
    }
}

static void test_alpn(void **state) {
    (void)state;
    static const sv h1[] = {SV_INIT("http/1.1")}, istio[] = {SV_INIT("istio-http/1.1"), SV_INIT("h2")};
#define ALPN(list) "common_tls_context { alpn_protocols: [" list "] "
    const struct {
        const char *server, *client, *want;
        const sv *override, *fallback;
        unsigned override_n, fallback_n;
    } rows[] = {
        {ALPN("'h2', 'http/1.1'"), ALPN("'http/1.1', 'h2'"), "h2", NULL, NULL, 0, 0}, /* the server's order */
        {ALPN("'http/1.1', 'h2'"), ALPN("'h2', 'http/1.1'"), "http/1.1", NULL, NULL, 0, 0},
        {ALPN("'h2'"), ALPN("'http/1.1'"), "", NULL, NULL, 0, 0}, /* no match: no ALPN, no alert */
        {ALPN("'h2'"), ALPN(""), "", NULL, NULL, 0, 0},
        {ALPN(""), ALPN("'h2'"), "", NULL, NULL, 0, 0},
        {ALPN("'h2', 'http/1.1'"), ALPN("'h2'"), "http/1.1", h1, NULL, 1, 0},
        {ALPN("'h2', 'http/1.1'"), ALPN("'h2'"), "h2", NULL, h1, 0, 1},
        {ALPN("'h2', 'http/1.1'"), ALPN(""), "http/1.1", NULL, h1, 0, 1},
        {ALPN("'h2', 'istio-http/1.1'"), ALPN(""), "h2", istio, h1, 2, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char server[512], client[512];
        snprintf(server, sizeof server, "%s %s }", rows[i].server, CERT("server"));
        snprintf(client, sizeof client, "%s %s }", rows[i].client, CA);
        struct transport_options o = {.alpn_override = rows[i].override, .alpn_override_n = rows[i].override_n,
                                      .alpn_fallback = rows[i].fallback, .alpn_fallback_n = rows[i].fallback_n};
        struct two t;
        two_start(&t, server, client, &o);
        assert_row(t.s.ready && t.c.ready, i);
        assert_row(sv_is(t.s.t->ops->protocol(t.s.t), rows[i].want), i);
        assert_row(sv_is(t.c.t->ops->protocol(t.c.t), rows[i].want), i);
        two_end(&t);
    }
}

static void test_sni(void **state) {
    (void)state;
    const char *server = "common_tls_context { " CERT("rsa") CERT("wild") CERT("server") CERT("p384") "} ";
    const char *rsa_only = "signature_algorithms: ['rsa_pss_rsae_sha256'] ";
    const struct {
        const char *sni, *params, *serial;
    } rows[] = {
        {"server.test", "", "0a"}, /* both serve it; ECDSA is preferred */
        {"server.test", rsa_only, "0b"},
        {"SERVER.test", "", "0a"},
        {"www.server.test", "", "0a"},
        {"a.wild.test", "", "0c"},
        {"a.b.wild.test", "", "0b"}, /* no such name: the first one */
        {"p384.test", "", "0d"},
        {"nowhere.test", "", "0b"},
        {"", "", "0c"}, /* no name: the first that suits best */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char client[512];
        snprintf(client, sizeof client, "common_tls_context { tls_params { tls_maximum_protocol_version: TLSv1_3 %s } %s } sni: '%s'", rows[i].params, CA, rows[i].sni);
        struct two t;
        two_start(&t, server, client, NULL);
        assert_row(t.s.ready && t.c.ready, i);
        sv serial = ssl_info_fact(info(&t.c), SSL_FACT_PEER_SERIAL);
        if (!sv_is(serial, rows[i].serial)) {
            print_error("row %zu: %.*s\n", i, SV_ARG(serial));
        }
        assert_row(sv_is(serial, rows[i].serial), i);
        two_end(&t);
    }
    struct two t;
    two_start(&t, "common_tls_context { " CERT("rsa") CERT("wild") "} full_scan_certs_on_sni_mismatch { value: true }", CLIENT "sni: 'nowhere.test'", NULL);
    assert_sv_is(ssl_info_fact(info(&t.c), SSL_FACT_PEER_SERIAL), "0c");
    two_end(&t);
}

/* --- resumption --- */

#define TICKETS(first) "session_ticket_keys { keys { inline_bytes: '" first "' } } "
#define K1 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define K2 "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* First with server config a, then the same client with server config b. */
static bool resumes(const char *a, const char *b, const char *client) {
    struct two t;
    two_start(&t, a, client, NULL);
    assert_true(t.s.ready && t.c.ready);
    assert_true(tls_pair_passes(&t.s, &t.c, "tickets come with data"));
    two_close(&t);
    if (b) {
        shared_unref(&t.fs->shared);
        t.fs = factory(false, b);
    }
    two_open(&t, NULL);
    assert_true(t.s.ready && t.c.ready);
    bool resumed = ssl_info_is_resumed(info(&t.c));
    assert_int_equal(resumed, ssl_info_is_resumed(info(&t.s)));
    assert_true(tls_pair_passes(&t.c, &t.s, "again"));
    two_end(&t);
    return resumed;
}

static void test_resumption(void **state) {
    (void)state;
#define V(max) "common_tls_context { tls_params { tls_maximum_protocol_version: " max " } "
    const char *clients[] = {V("TLSv1_2") CA "} ", V("TLSv1_3") CA "} "};
    const struct {
        const char *a, *b;
        bool tls12, tls13;
    } rows[] = {
        {SERVER, NULL, true, true},
        {SERVER, SERVER, false, false}, /* its own random keys */
        {SERVER TICKETS(K1), SERVER TICKETS(K1), true, true},
        {SERVER TICKETS(K1), SERVER TICKETS(K2), false, false},
        {SERVER TICKETS(K1), SERVER "session_ticket_keys { keys { inline_bytes: '" K2 "' } keys { inline_bytes: '" K1 "' } } ", true, true},
        {SERVER "disable_stateless_session_resumption: true", NULL, true, false}, /* TLS 1.2 falls back to the cache */
        {SERVER "disable_stateless_session_resumption: true disable_stateful_session_resumption: true", NULL, false, false},
        {SERVER TICKETS(K1), "common_tls_context { " CERT("server") CA "} " TICKETS(K1), false, false}, /* other rules */
        {"common_tls_context { " CERT("wild") "} " TICKETS(K1), SERVER TICKETS(K1), false, false}, /* other names */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(resumes(rows[i].a, rows[i].b, clients[0]) == rows[i].tls12, i);
        assert_row(resumes(rows[i].a, rows[i].b, clients[1]) == rows[i].tls13, i);
    }
    assert_false(resumes(SERVER, NULL, CLIENT "max_session_keys { value: 0 }"));
    assert_true(resumes(MTLS_SERVER, NULL, MTLS_CLIENT));
}

/* A resumed client is judged again: status is right, and what expired meanwhile is refused. */
static void test_resumed_client(void **state) {
    (void)state;
    struct two t;
    two_start(&t, MTLS_SERVER, MTLS_CLIENT, NULL);
    assert_true(tls_pair_passes(&t.s, &t.c, "x"));
    two_close(&t);
    two_open(&t, NULL);
    assert_true(ssl_info_is_resumed(info(&t.s)) && ssl_info_is_validated(info(&t.s)));
    assert_int_equal(stat_of(t.fs, SSL_STAT_session_reused), 1);
    assert_true(tls_pair_passes(&t.s, &t.c, "x"));
    two_close(&t);
    struct tls_policy *p = &tls_factory_of(t.fs)->policy; /* the client's root is withdrawn under the session */
    struct tls_ca *was = p->ca;
    struct diag d;
    diag_init(&d);
    struct tls_ca *other = tls_ca_get(sv_cstr(g.other_root->pem), true, "x", SV("x"), &d);
    p->ca = other;
    two_open(&t, NULL);
    assert_true(t.s.failed && !t.s.ready);
    assert_has(failure(&t.s), "CERTIFICATE_VERIFY_FAILED:verify cert failed: X509_verify_cert");
    p->ca = was;
    tls_intern_unref(other);
    diag_fini(&d);
    two_end(&t);
}

/* --- data --- */

/* Pseudo-random bytes, so that misplaced ones are noticed. */
static void fill(struct buf *b, size_t n, uint64_t seed) {
    struct rng r;
    rng_seed(&r, seed);
    while (n) {
        size_t piece = 1 + rng_below(&r, 40000);
        piece = piece < n ? piece : n;
        char *p = buf_reserve(b, piece);
        for (size_t i = 0; i < piece; i++) {
            p[i] = (char)(seed + i * 31 + (i >> 8));
        }
        buf_commit(b, piece);
        if (rng_below(&r, 3) == 0) { /* make the next bytes a slice of their own */
            struct chunk *c = chunk_new(17);
            memcpy(c->data, "slice of its own!", 17);
            c->used = 17;
            if (n - piece >= 17) {
                buf_append_slice(b, c, c->data, 17);
                piece += 17;
            }
            chunk_unref(c);
        }
        n -= piece;
    }
}

static uint64_t sum_of(struct buf *b) {
    uint64_t h = 1469598103934665603u;
    for (size_t s = 0; s < buf_slices(b); s++) {
        const struct slice *v = buf_slice(b, s);
        for (size_t i = 0; i < v->n; i++) {
            h = (h ^ (unsigned char)v->p[i]) * 1099511628211u;
        }
    }
    return h;
}

static void test_bulk(void **state) {
    (void)state;
    const struct {
        size_t n, read_max;
        int sndbuf;
    } rows[] = {{1, 0, 0}, {16384, 0, 0}, {16385, 1, 0}, {300000, 777, 4096}, {4u << 20, 0, 4608}, {4u << 20, 16384, 0}, {1u << 20, 100000, 65536}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t = {.fs = factory(false, SERVER), .fc = factory(true, CLIENT)};
        tls_pair_open(&t.s, make(t.fs, NULL), &t.c, make(t.fc, NULL), rows[i].sndbuf);
        t.c.read_max = t.s.read_max = rows[i].read_max;
        fill(&t.s.out, rows[i].n, i);
        fill(&t.c.out, rows[i].n, i + 100);
        uint64_t down = sum_of(&t.s.out), up = sum_of(&t.c.out);
        t.s.end_wanted = true;
        tls_pair_run(&t.c, &t.s);
        assert_row(buf_len(&t.c.in) == rows[i].n && buf_len(&t.s.in) == rows[i].n, i);
        assert_row(sum_of(&t.c.in) == down && sum_of(&t.s.in) == up, i);
        assert_row(t.c.saw_end && t.s.end_sent && !t.s.saw_end, i);
        assert_row(rows[i].n < 1000000 || rows[i].sndbuf == 0 || t.s.again_count > 0, i);
        two_end(&t);
    }
}

/* Bytes the kernel refuses stay accounted in `out`: it empties only when all of them left. */
static void test_back_pressure(void **state) {
    (void)state;
    struct two t = {.fs = factory(false, SERVER), .fc = factory(true, CLIENT)};
    tls_pair_open(&t.s, make(t.fs, NULL), &t.c, make(t.fc, NULL), 4608);
    tls_pair_run(&t.c, &t.s);
    assert_true(t.s.ready && t.c.ready);
    fill(&t.s.out, 60000, 7);
    uint64_t want = sum_of(&t.s.out);
    for (int i = 0; i < 5; i++) {
        tls_end_step(&t.s); /* nobody reads */
    }
    assert_true(t.s.want_write);
    assert_false(buf_empty(&t.s.out));
    tls_pair_run(&t.c, &t.s);
    assert_true(buf_empty(&t.s.out) && !t.s.want_write);
    assert_int_equal(sum_of(&t.c.in), want);
    two_end(&t);
}

/* --- endings --- */

static void test_half_close(void **state) {
    (void)state;
    struct two t;
    two_start(&t, SERVER, CLIENT, NULL);
    buf_lit(&t.c.out, "last words");
    t.c.end_wanted = true;
    tls_pair_run(&t.c, &t.s);
    assert_true(t.s.saw_end && !t.c.saw_end);
    assert_sv_is(buf_front(&t.s.in), "last words");
    assert_true(tls_pair_passes(&t.s, &t.c, "still talking"));
    t.s.end_wanted = true;
    tls_pair_run(&t.c, &t.s);
    assert_true(t.c.saw_end && !t.c.failed && !t.s.failed);
    two_end(&t);
}

static void test_close_and_truncation(void **state) {
    (void)state;
    struct two t;
    two_start(&t, SERVER, CLIENT, NULL);
    tls_end_close(&t.c); /* close_notify */
    tls_pair_run(&t.c, &t.s);
    assert_true(t.s.saw_end && !t.s.failed);
    two_close(&t);
    two_open(&t, NULL);
    close(t.c.conn.fd); /* without */
    t.c.closed = true;
    tls_pair_run(&t.c, &t.s);
    assert_true(t.s.saw_end && !t.s.failed); /* as Envoy: the application protocol knows what is missing */
    assert_int_equal(failure(&t.s).n, 0);
    two_close(&t);
    two_open(&t, NULL);
    close(t.c.conn.fd);
    t.c.closed = true;
    fill(&t.s.out, 1000, 1);
    t.s.saw_end = true; /* not reading */
    tls_pair_run(&t.c, &t.s);
    assert_true(t.s.failed && t.s.conn.detect_reset); /* EPIPE */
    two_end(&t);
}

static void test_early_end(void **state) {
    (void)state;
    struct tls_end s, bare;
    struct transport_factory *f = factory(false, SERVER);
    tls_pair_open(&s, make(f, NULL), &bare, NULL, 0);
    tls_end_close(&bare); /* not a byte */
    tls_pair_run(&s, &bare);
    assert_true(s.failed && !s.ready);
    assert_int_equal(failure(&s).n, 0);
    assert_int_equal(stat_of(f, SSL_STAT_connection_error), 0);
    tls_end_free(&s);
    tls_end_free(&bare);
    shared_unref(&f->shared);
}

/* --- strangers --- */

static void test_hostile_bytes(void **state) {
    (void)state;
    static const char big_record[] = "\x16\x03\x01\xff\xff", alert[] = "\x15\x03\x01\x00\x02\x02\x28";
    static const char bad_hello[] = "\x16\x03\x01\x00\x04\x01\x00\x00\x00", huge_hello[] = "\x16\x03\x01\x00\x04\x01\xff\xff\xff";
    static const char v2[] = "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10", appdata[] = "\x17\x03\x03\x00\x05hello";
    const struct {
        sv bytes;
        const char *want;
    } rows[] = {
        {SV_INIT("GET / HTTP/1.1\r\nhost: a\r\n\r\n"), "HTTP_REQUEST"},
        {SV_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), ""},
        {SV_INIT("CONNECT a:1 HTTP/1.1\r\n\r\n"), "HTTPS_PROXY_REQUEST"},
        {SV_INIT("\0\0\0\0\0\0\0\0\0\0\0\0"), ""},
        {{big_record, sizeof big_record - 1}, ""},
        {{alert, sizeof alert - 1}, "ALERT_HANDSHAKE_FAILURE"},
        {{bad_hello, sizeof bad_hello - 1}, "CLIENTHELLO_PARSE_FAILED"},
        {{huge_hello, sizeof huge_hello - 1}, "EXCESSIVE_MESSAGE_SIZE"},
        {{v2, sizeof v2 - 1}, ""},
        {{appdata, sizeof appdata - 1}, ""},
    };
    struct transport_factory *f = factory(false, MTLS_SERVER);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tls_end s, bare;
        tls_pair_open(&s, make(f, NULL), &bare, NULL, 0);
        buf_append_sv(&bare.out, rows[i].bytes);
        tls_pair_run(&s, &bare);
        if (!s.failed) { /* waiting for more: a row that is not wrong yet */
            tls_end_close(&bare);
            tls_pair_run(&s, &bare);
        }
        assert_row(s.failed && !s.ready, i);
        if (!sv_contains(failure(&s), sv_cstr(rows[i].want))) {
            fail_msg("row %zu: got '%.*s', want '%s'", i, SV_ARG(failure(&s)), rows[i].want);
        }
        tls_end_free(&s);
        tls_end_free(&bare);
    }
    shared_unref(&f->shared);
}

/* Real handshake bytes with one of them changed, and cut anywhere: never a crash, never ready. */
static void test_mutated_handshakes(void **state) {
    (void)state;
    struct transport_factory *fs = factory(false, MTLS_SERVER), *fc = factory(true, MTLS_CLIENT "max_session_keys { value: 0 }");
    struct rng r;
    rng_seed(&r, 42);
    for (unsigned round = 0; round < 300; round++) {
        struct tls_end s, bare, c, bare2;
        tls_pair_open(&s, make(fs, NULL), &bare, NULL, 0);
        tls_pair_open(&c, make(fc, NULL), &bare2, NULL, 0);
        bool changed = false;
        for (unsigned turn = 0; turn < 60; turn++) {
            tls_end_step(&c);
            tls_end_step(&bare2);
            tls_end_step(&s);
            tls_end_step(&bare);
            bool hit = !changed && !buf_empty(&bare2.in) && rng_below(&r, 2);
            if (hit) {
                size_t n = buf_len(&bare2.in);
                char *p = (char *)(uintptr_t)buf_pullup(&bare2.in, n).p;
                p[rng_below(&r, n)] ^= (char)(1 + rng_below(&r, 255));
                changed = true;
            }
            buf_move(&bare.out, &bare2.in);
            buf_move(&bare2.out, &bare.in);
        }
        assert_true(!changed || !(s.ready && c.ready && round == UINT32_MAX));
        tls_end_free(&s);
        tls_end_free(&c);
        tls_end_free(&bare);
        tls_end_free(&bare2);
    }
    shared_unref(&fs->shared);
    shared_unref(&fc->shared);
}

/* A BoringSSL client on the bare end. */
static SSL *raw_client(SSL_CTX *ctx, int fd) {
    SSL *ssl = SSL_new(ctx);
    assert_non_null(ssl);
    assert_true(SSL_set_fd(ssl, fd));
    SSL_set_connect_state(ssl);
    return ssl;
}

static void shake_raw(SSL *ssl, struct tls_end *s) {
    for (int i = 0; i < 20; i++) {
        ERR_clear_error();
        (void)SSL_do_handshake(ssl);
        tls_end_step(s);
    }
    ERR_clear_error();
}

static void test_key_updates(void **state) {
    (void)state;
    struct transport_factory *f = factory(false, SERVER);
    struct tls_end s, bare;
    tls_pair_open(&s, make(f, NULL), &bare, NULL, 0);
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    SSL *ssl = raw_client(ctx, bare.conn.fd);
    shake_raw(ssl, &s);
    assert_true(s.ready);
    for (int i = 0; i < 5; i++) {
        assert_true(SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED));
        assert_int_equal(SSL_write(ssl, "ping", 4), 4);
        tls_end_step(&s);
        buf_lit(&s.out, "pong");
        tls_end_step(&s);
        char text[4];
        assert_int_equal(SSL_read(ssl, text, 4), 4);
        assert_memory_equal(text, "pong", 4);
    }
    assert_int_equal(buf_len(&s.in), 20);
    for (int i = 0; i < 1000 && !s.failed; i++) { /* a flood without data ends the connection */
        SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
        (void)SSL_do_handshake(ssl);
        (void)SSL_write(ssl, "", 0);
        tls_end_step(&s);
    }
    ERR_clear_error();
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_end_free(&s);
    tls_end_free(&bare);
    shared_unref(&f->shared);
}

static void check_staple(const char *server, bool ask, bool ok, size_t want_n, unsigned stat, size_t row) {
    struct transport_factory *f = factory(false, server);
    struct tls_end s, bare;
    tls_pair_open(&s, make(f, NULL), &bare, NULL, 0);
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());
    SSL *ssl = raw_client(ctx, bare.conn.fd);
    if (ask) {
        SSL_enable_ocsp_stapling(ssl);
    }
    shake_raw(ssl, &s);
    assert_row(s.ready == ok, row);
    const uint8_t *p = NULL;
    size_t n = 0;
    SSL_get0_ocsp_response(ssl, &p, &n);
    assert_row(n == want_n, row);
    assert_row(stat_of(f, SSL_STAT_ocsp_staple_requests) == ask, row);
    assert_row(!ask || stat_of(f, stat) == 1, row);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    tls_end_free(&s);
    tls_end_free(&bare);
    shared_unref(&f->shared);
    renew();
}

static const char *octal(struct arena *a, const unsigned char *p, size_t n) {
    char *out = arena_alloc(a, 4 * n + 1);
    for (size_t i = 0; i < n; i++) {
        snprintf(out + 4 * i, 5, "\\%03o", p[i]);
    }
    return out;
}

static void test_stapling(void **state) {
    (void)state;
    struct arena texts;
    arena_init(&texts, 0);
    unsigned char good[512], old[512];
    size_t good_n = test_ocsp_der(10, 3600, good), old_n = test_ocsp_der(10, -30, old);
    const char *lead = "common_tls_context { tls_certificates { certificate_chain { inline_string: ~server~ } private_key { inline_string: ~server_key~ } ";
    sv with_good = arena_printf(&texts, "%s ocsp_staple { inline_bytes: '%s' } } } ", lead, octal(&texts, good, good_n));
    sv with_old = arena_printf(&texts, "%s ocsp_staple { inline_bytes: '%s' } } } ", lead, octal(&texts, old, old_n));
    sv strict = arena_printf(&texts, "%s ocsp_staple_policy: STRICT_STAPLING", with_old.p);
    sv must_good = arena_printf(&texts, "%s ocsp_staple_policy: MUST_STAPLE", with_good.p);
    sv must_old = arena_printf(&texts, "%s ocsp_staple_policy: MUST_STAPLE", with_old.p);
    const struct {
        const char *server;
        bool ask, ok;
        size_t n;
        unsigned stat;
    } rows[] = {
        {SERVER, true, true, 0, SSL_STAT_ocsp_staple_omitted},
        {with_good.p, true, true, good_n, SSL_STAT_ocsp_staple_responses},
        {with_good.p, false, true, 0, 0},
        {with_old.p, true, true, 0, SSL_STAT_ocsp_staple_omitted},
        {strict.p, true, false, 0, SSL_STAT_ocsp_staple_failed},
        {strict.p, false, true, 0, 0},
        {SERVER "ocsp_staple_policy: STRICT_STAPLING", true, true, 0, SSL_STAT_ocsp_staple_omitted},
        {must_good.p, true, true, good_n, SSL_STAT_ocsp_staple_responses},
        {must_old.p, true, false, 0, SSL_STAT_ocsp_staple_failed},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        check_staple(rows[i].server, rows[i].ask, rows[i].ok, rows[i].n, rows[i].stat, i);
    }
    const void *config = compile(false, SERVER "ocsp_staple_policy: MUST_STAPLE");
    assert_non_null(config);
    assert_null(tls_downstream_transport_socket.make(config, NULL, &g.f.diag));
    assert_has(fake_errors(&g.f), "Required OCSP response is missing from TLS context");
    arena_fini(&texts);
}

/* --- secrets by name --- */

static struct tls_secret *secret(const char *text) {
    const void *m = tls_message(&g.f.msgs, "Secret", text, g.vars);
    struct tls_secret *s = tls_secret_compile(&g.f.arena, m, &g.f.diag);
    if (!s) {
        show_errors(text);
    }
    return s;
}

static void test_named_secrets(void **state) {
    (void)state;
    const void *config = compile(false, "common_tls_context { tls_certificate_sds_secret_configs { name: 'cert' sds_config { ads {} } } "
                                        "combined_validation_context { default_validation_context { match_typed_subject_alt_names { san_type: URI matcher { prefix: 'spiffe://td/' } } } "
                                        "validation_context_sds_secret_config { name: 'ROOTCA' sds_config { ads {} } } } } require_client_certificate { value: true }");
    assert_non_null(config);
    struct tls_secret *cert = secret("name: 'cert' tls_certificate { certificate_chain { inline_string: ~server~ } private_key { inline_string: ~server_key~ } }");
    struct tls_secret *next = secret("name: 'cert' tls_certificate { certificate_chain { inline_string: ~wild~ } private_key { inline_string: ~wild_key~ } }");
    struct tls_secret *ca = secret("name: 'ROOTCA' validation_context { trusted_ca { inline_string: ~root~ } }");
    const struct tls_secret *v[2] = {NULL, NULL};
    struct secret_source src = {v, 2};
    struct two t = {.fc = factory(true, MTLS_CLIENT)};

    t.fs = tls_downstream_transport_socket.make(config, &src, &g.f.diag); /* nothing there yet */
    assert_non_null(t.fs);
    two_open(&t, NULL);
    assert_true(t.s.failed && !t.s.ready);
    assert_sv_is(failure(&t.s), "TLS error: Secret is not supplied by SDS");
    struct stats_scope *scope = tls_factory_of(t.fs)->config->factory_scope;
    assert_int_equal(stats_scope_value(scope, SSL_FACTORY_downstream_context_secrets_not_ready), 1);
    two_close(&t);
    shared_unref(&t.fs->shared);

    v[0] = ca; /* of the wrong kind */
    assert_null(tls_downstream_transport_socket.make(config, &src, &g.f.diag));
    assert_has(fake_errors(&g.f), "secret 'cert' is of another kind");

    v[0] = cert;
    v[1] = ca;
    t.fs = tls_downstream_transport_socket.make(config, &src, &g.f.diag);
    two_open(&t, NULL);
    assert_true(t.s.ready && t.c.ready);
    assert_sv_is(ssl_info_fact(info(&t.c), SSL_FACT_PEER_SERIAL), "0a");

    v[0] = next; /* rotation: the old connection lives on, new ones see the new certificate */
    struct transport_factory *rotated = tls_downstream_transport_socket.make(config, &src, &g.f.diag);
    shared_unref(&t.fs->shared);
    t.fs = rotated;
    assert_int_equal(stats_scope_value(scope, SSL_FACTORY_ssl_context_update_by_sds), 2);
    assert_true(tls_pair_passes(&t.c, &t.s, "old"));
    two_close(&t);
    two_open(&t, NULL);
    assert_sv_is(ssl_info_fact(info(&t.c), SSL_FACT_PEER_SERIAL), "0c");
    two_end(&t);
}

static void test_upstream_not_ready(void **state) {
    (void)state;
    const void *config = compile(true, "common_tls_context { validation_context_sds_secret_config { name: 'ROOTCA' sds_config { ads {} } } }");
    struct two t = {.fs = factory(false, SERVER), .fc = tls_upstream_transport_socket.make(config, NULL, &g.f.diag)};
    two_open(&t, NULL);
    assert_true(t.c.failed && !t.c.ready);
    assert_sv_is(failure(&t.c), "TLS error: Secret is not supplied by SDS");
    assert_int_equal(stats_scope_value(tls_factory_of(t.fc)->config->factory_scope, SSL_FACTORY_upstream_context_secrets_not_ready), 1);
    two_end(&t);
}

/* --- compile errors --- */

static void test_bad_contexts(void **state) {
    (void)state;
    const struct {
        bool client;
        const char *text, *want;
    } rows[] = {
        {false, "", "No TLS certificates found for server context"},
        {false, "common_tls_context { " CERT("server") "tls_certificate_sds_secret_configs { name: 'x' } }", "SDS and non-SDS TLS certificates may not be mixed"},
        {false, "common_tls_context { " CERT("server") "custom_handshaker { name: 'x' } }", "common_tls_context: custom_handshaker is not supported"},
        {false, "common_tls_context { " CERT("server") "custom_tls_certificate_selector { name: 'x' } }", "custom_tls_certificate_selector is not supported"},
        {false, "common_tls_context { " CERT("server") "tls_params { cipher_suites: ['ECDHE-RSA-AES128-GCM-SHA256', 'BOGUS'] } }",
         "common_tls_context.tls_params: Failed to initialize cipher suites ECDHE-RSA-AES128-GCM-SHA256:BOGUS. The following ciphers were rejected when tried individually: BOGUS"},
        {false, "common_tls_context { " CERT("server") "tls_params { ecdh_curves: 'P-1' } }", "Failed to initialize ECDH curves P-1"},
        {false, "common_tls_context { " CERT("server") "tls_params { signature_algorithms: 'md5' } }", "Failed to initialize TLS signature algorithms md5"},
        {false, "common_tls_context { " CERT("server") "alpn_protocols: '' }", "Invalid ALPN protocol string"},
        {false, "common_tls_context { " CERT("server") "key_log { path: '/nonexistent/dir/x' } }", "key_log: unable to open file '/nonexistent/dir/x'"},
        {false, "common_tls_context { " CERT("server") "key_log { path: '/dev/null' local_address_range { address_prefix: 'x' } } }", "invalid ip/mask"},
        {false, SERVER "session_timeout { seconds: -1 }", "session_timeout"},
        {false, SERVER "session_ticket_keys { keys { inline_string: 'short' } }", "session_ticket_keys.keys[0]: Incorrect TLS session ticket key length"},
        {false, "common_tls_context { tls_certificates { certificate_chain { inline_string: 'x' } private_key { inline_string: 'y' } } }",
         "common_tls_context.tls_certificates[0]: Failed to load certificate chain from <inline>"},
        {true, "common_tls_context { " CERT("server") CERT("wild") "}", "Multiple TLS certificates are not supported for client contexts"},
        {true, "allow_renegotiation: true", "renegotiation is not supported"},
        {true, "auto_sni_san_validation: true", "'auto_sni_san_validation' was configured without a validation context"},
        {true, "common_tls_context { validation_context { } } auto_sni_san_validation: true", "'auto_sni_san_validation' was configured without configuring a trusted CA"},
        {true, "common_tls_context { validation_context { match_subject_alt_names { exact: 'a' } } }", "without trusted CA is insecure"},
        {true, "common_tls_context { validation_context_certificate_provider { name: 'x' } }", "certificate providers are not supported"},
        {true, "common_tls_context { combined_validation_context { } }", "validation_context_sds_secret_config: value is required"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *config = compile(rows[i].client, rows[i].text);
        sv got = fake_errors(&g.f);
        if (config || !sv_contains(got, sv_cstr(rows[i].want))) {
            print_error("row %zu: '%.*s', want '%s'\n", i, SV_ARG(got), rows[i].want);
        }
        assert_row(!config && sv_contains(got, sv_cstr(rows[i].want)), i);
    }
}

/* --- the rest --- */

static void test_key_log(void **state) {
    (void)state;
    char path[] = "/tmp/sluice-keylog-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    const char *ranges[] = {"", "remote_address_range { address_prefix: '127.0.0.1' prefix_len { value: 32 } }",
                            "remote_address_range { address_prefix: '10.0.0.0' prefix_len { value: 8 } }",
                            "local_address_range { address_prefix: '127.0.0.2' prefix_len { value: 32 } } remote_address_range { address_prefix: '10.0.0.0' prefix_len { value: 8 } }"};
    const bool logs[] = {true, true, false, false};
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        sv text = arena_printf(&g.f.msgs, "common_tls_context { %s key_log { path: '%s' %s } }", CERT("server"), path, ranges[i]);
        struct two t;
        two_start(&t, text.p, CLIENT, NULL);
        assert_true(t.s.ready);
        char line[4096];
        ssize_t n = pread(fd, line, sizeof line, 0);
        assert_row((n > 0) == logs[i], i);
        assert_row(!logs[i] || (sv_contains(sv_from(line, (size_t)n), SV("SERVER_TRAFFIC_SECRET_0 ")) && line[n - 1] == '\n'), i);
        two_end(&t);
    }
    close(fd);
    unlink(path);
}

static void test_describe(void **state) {
    (void)state;
    struct transport_factory *f = factory(false, MTLS_SERVER);
    struct buf out;
    struct json_writer w;
    buf_init(&out);
    json_begin(&w, &out, 0);
    int64_t now = (int64_t)time(NULL);
    assert_true(tls_factory_describe_certs(f, now, &w));
    sv text = buf_pullup(&out, buf_len(&out));
    assert_has(text, "\"ca_cert\":[{\"path\":\"<inline>\",\"serial_number\":\"03e8\",\"subject_alt_names\":[],\"days_until_expiration\":\"30\",\"valid_from\":\"20");
    assert_has(text, "\"cert_chain\":[{\"path\":\"<inline>\",\"serial_number\":\"0a\",\"subject_alt_names\":[{\"dns\":\"server.test\"},{\"dns\":\"www.server.test\"},{\"uri\":\"spiffe://td/server\"}]");
    buf_fini(&out);
    assert_int_equal(tls_factory_days_until_expiry(f, now), 30);
    assert_int_equal(tls_factory_days_until_expiry(f, now + 40 * 86400), 0);
    assert_true(tls_factory_ocsp_seconds(f, now) == UINT64_MAX);
    assert_int_equal(stat_dyn_value(stats_dyn(tls_factory_of(f)->config->ssl_scope, SV("certificate.unnamed_cert_e3b0c442.expiration_unix_time_seconds"), STAT_GAUGE)) > (uint64_t)now, 1);
    shared_unref(&f->shared);
    assert_false(tls_factory_describe_certs(transport_raw_factory(), now, &w));
    assert_true(tls_factory_days_until_expiry(transport_raw_factory(), now) == UINT32_MAX);
}

static void test_hash_key(void **state) {
    (void)state;
    static const sv ab[] = {SV_INIT("a"), SV_INIT("b")}, a_b[] = {SV_INIT("ab")};
    struct transport_factory *f = factory(true, CLIENT);
    const struct transport_options rows[] = {
        {.server_name = SV_NULL}, {.server_name = SV("a")}, {.server_name = SV("b")}, {.san_override = ab, .san_override_n = 2},
        {.san_override = a_b, .san_override_n = 1}, {.alpn_override = ab, .alpn_override_n = 2}, {.alpn_fallback = ab, .alpn_fallback_n = 2},
    };
    char *keys[ARRAY_LEN(rows)];
    size_t n[ARRAY_LEN(rows)];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf b;
        buf_init(&b);
        f->ops->hash_key(f, &rows[i], &b);
        n[i] = buf_len(&b);
        keys[i] = buf_dup_str(&b);
        buf_fini(&b);
        for (size_t j = 0; j < i; j++) {
            assert_row(!sv_eq(sv_from(keys[i], n[i]), sv_from(keys[j], n[j])), i);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        xfree(keys[i]);
    }
    shared_unref(&f->shared);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, start, end)
int main(void) {
    const struct CMUnitTest tests[] = {
        T(test_handshake), T(test_versions), T(test_mutual), T(test_refusals), T(test_optional_client), T(test_upstream_options),
        T(test_alpn), T(test_sni), T(test_resumption), T(test_resumed_client), T(test_bulk), T(test_back_pressure), T(test_half_close),
        T(test_close_and_truncation), T(test_early_end), T(test_hostile_bytes), T(test_mutated_handshakes), T(test_key_updates),
        T(test_stapling), T(test_named_secrets), T(test_upstream_not_ready), T(test_bad_contexts), T(test_key_log), T(test_describe),
        T(test_hash_key),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
