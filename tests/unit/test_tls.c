/* link: -Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed */
/* link: -Wl,--wrap=conn_transport_want_write,--wrap=conn_resume */
/* Handshakes between two of our transports: versions, verification, ALPN, SNI, resumption. */
#include "tests/support/tls_fixture.h"

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
#define PARAMS(min, max)                                                   \
    "common_tls_context { tls_params { tls_minimum_protocol_version: " min \
    " tls_maximum_protocol_version: " max " } "
    const struct {
        const char *server, *client, *version, *text; /* version NULL: fails */
    } rows[] = {
        {PARAMS("TLS_AUTO", "TLS_AUTO"), PARAMS("TLS_AUTO", "TLS_AUTO"), "TLSv1.2", NULL},
        {PARAMS("TLS_AUTO", "TLS_AUTO"), PARAMS("TLS_AUTO", "TLSv1_3"), "TLSv1.3", NULL},
        {PARAMS("TLS_AUTO", "TLSv1_2"), PARAMS("TLS_AUTO", "TLS_AUTO"), "TLSv1.2", NULL},
        {PARAMS("TLS_AUTO", "TLS_AUTO"), PARAMS("TLS_AUTO", "TLSv1_2"), "TLSv1.2", NULL},
        /* no AEAD cipher there */
        {PARAMS("TLSv1_0", "TLSv1_1"), PARAMS("TLSv1_0", "TLSv1_3"), NULL,
         "SSLV3_ALERT_HANDSHAKE_FAILURE"},
        {PARAMS("TLSv1_3", "TLSv1_3"), PARAMS("TLS_AUTO", "TLSv1_2"), NULL,
         ":TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end"},
        {PARAMS("TLS_AUTO", "TLSv1_2"), PARAMS("TLSv1_3", "TLSv1_3"), NULL,
         ":TLSV1_ALERT_PROTOCOL_VERSION:TLS_error_end"},
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
    assert_ptr_equal(ssl_info_fact(s, SSL_FACT_PEER_SHA256).p,
                     ssl_info_fact(s, SSL_FACT_PEER_SHA256).p);
    assert_true(sv_starts(ssl_info_fact(s, SSL_FACT_PEER_URL_PEM_CHAIN),
                          ssl_info_fact(s, SSL_FACT_PEER_URL_PEM)));
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
#define VERIFY                                                                                  \
    "TLS_error:|268435581:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify cert " \
    "failed: "
#define WITH(ctx) "common_tls_context { validation_context { " ctx " } } "
    const struct {
        const char *server, *client;
        bool at_server; /* who finds the fault */
        const char *text;
        unsigned stat;
    } rows[] = {
        {SERVER, WITH("trusted_ca { inline_string: ~other_root~ }"), false,
         VERIFY "X509_verify_cert: certificate verification error at depth 0: unable to get local "
                "issuer certificate:TLS_error_end",
         SSL_STAT_fail_verify_error},
        {"common_tls_context { " CERT("stranger") "}", CLIENT, false,
         "unable to get local issuer certificate", SSL_STAT_fail_verify_error},
        {"common_tls_context { " CERT("expired") "}", CLIENT, false,
         VERIFY
         "X509_verify_cert: certificate verification error at depth 0: certificate has expired",
         SSL_STAT_fail_verify_error},
        {SERVER,
         WITH("trusted_ca { inline_string: ~root~ } match_typed_subject_alt_names { san_type: DNS "
              "matcher { exact: 'x.test' } }"),
         false,
         VERIFY "SAN matcher, certificate SANs are [server.test, www.server.test, "
                "spiffe://td/server]:TLS_error_end",
         SSL_STAT_fail_verify_san},
        {SERVER,
         WITH("verify_certificate_hash: "
              "'0000000000000000000000000000000000000000000000000000000000000000'"),
         false, VERIFY "cert hash and spki", SSL_STAT_fail_verify_cert_hash},
        {SERVER, WITH("trusted_ca { inline_string: ~root~ } crl { inline_string: ~crl~ }"), false,
         "provided CRLs failed: certificate revoked", SSL_STAT_fail_verify_error},
        {MTLS_SERVER, CLIENT, true,
         "TLS_error:|268435648:SSL "
         "routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:peer did not provide "
         "required client certificate:TLS_error_end",
         SSL_STAT_fail_verify_no_cert},
        {"common_tls_context { " CERT(
             "server") "validation_context { trusted_ca { inline_string: ~other_root~ } } }",
         MTLS_CLIENT, true, "unable to get local issuer certificate", SSL_STAT_fail_verify_error},
        {"common_tls_context { " CERT(
             "server") "validation_context { trusted_ca { inline_string: ~root~ } "
                       "match_typed_subject_alt_names { san_type: URI matcher { prefix: "
                       "'spiffe://other/' } } } }",
         MTLS_CLIENT, true, "certificate SANs are [spiffe://td/client, client.test]",
         SSL_STAT_fail_verify_san},
        {"common_tls_context { " CERT("server") "validation_context { trusted_ca { inline_string: "
                                                "~root~ } crl { inline_string: ~crl~ } } }",
         MTLS_CLIENT, true, "certificate revoked", SSL_STAT_fail_verify_error},
        {SERVER "require_sni { value: true }", CLIENT, true, "CONNECTION_REJECTED",
         SSL_STAT_connection_error},
        {SERVER "require_sni { value: true }", CLIENT "sni: 'unknown.test'", true,
         "CONNECTION_REJECTED", SSL_STAT_connection_error},
        {"common_tls_context { tls_params { cipher_suites: 'ECDHE-RSA-AES128-GCM-SHA256' "
         "tls_maximum_protocol_version: TLSv1_2 } " CERT("server") "}",
         CLIENT, true, "NO_SHARED_CIPHER", SSL_STAT_connection_error},
        {"common_tls_context { tls_params { ecdh_curves: 'P-384' } " CERT("server") "}", CLIENT,
         true, "NO_SHARED_GROUP", SSL_STAT_connection_error},
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
    const char *any = "common_tls_context { " CERT(
        "server") "validation_context { trusted_ca { inline_string: ~other_root~ } "
                  "trust_chain_verification: ACCEPT_UNTRUSTED } } ";
    const struct {
        const char *server, *client;
        bool presented, validated;
    } rows[] = {
        {optional, CLIENT, false, false},
        {optional, MTLS_CLIENT, true, true},
        {any, CLIENT, false, false},
        {any, MTLS_CLIENT, true, false},
        /* no context: not asked for */
        {SERVER "require_client_certificate { value: true }", MTLS_CLIENT, false, false},
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
        {CLIENT "sni: 'configured.test' auto_host_sni: true",
         {.host_name = SV("host.test")},
         true,
         "host.test"},
        {CLIENT "sni: 'configured.test' auto_host_sni: true",
         {.host_name = SV("host.test"), .server_name = SV("auto.test")},
         true,
         "auto.test"},
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
    static const sv h1[] = {SV_INIT("http/1.1")},
                    istio[] = {SV_INIT("istio-http/1.1"), SV_INIT("h2")};
#define ALPN(list) "common_tls_context { alpn_protocols: [" list "] "
    const struct {
        const char *server, *client, *want;
        const sv *override, *fallback;
        unsigned override_n, fallback_n;
    } rows[] = {
        /* the server's order */
        {ALPN("'h2', 'http/1.1'"), ALPN("'http/1.1', 'h2'"), "h2", NULL, NULL, 0, 0},
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
        struct transport_options o = {.alpn_override = rows[i].override,
                                      .alpn_override_n = rows[i].override_n,
                                      .alpn_fallback = rows[i].fallback,
                                      .alpn_fallback_n = rows[i].fallback_n};
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
    const char *server =
        "common_tls_context { " CERT("rsa") CERT("wild") CERT("server") CERT("p384") "} ";
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
        snprintf(client, sizeof client,
                 "common_tls_context { tls_params { tls_maximum_protocol_version: TLSv1_3 %s } %s "
                 "} sni: '%s'",
                 rows[i].params, CA, rows[i].sni);
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
    two_start(&t,
              "common_tls_context { " CERT("rsa")
                  CERT("wild") "} full_scan_certs_on_sni_mismatch { value: true }",
              CLIENT "sni: 'nowhere.test'", NULL);
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
        {SERVER TICKETS(K1),
         SERVER "session_ticket_keys { keys { inline_bytes: '" K2 "' } keys { inline_bytes: '" K1
                "' } } ",
         true, true},
        /* TLS 1.2 falls back to the cache */
        {SERVER "disable_stateless_session_resumption: true", NULL, true, false},
        {SERVER
         "disable_stateless_session_resumption: true disable_stateful_session_resumption: true",
         NULL, false, false},
        /* other rules */
        {SERVER TICKETS(K1), "common_tls_context { " CERT("server") CA "} " TICKETS(K1), false,
         false},
        /* other names */
        {"common_tls_context { " CERT("wild") "} " TICKETS(K1), SERVER TICKETS(K1), false, false},
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
    /* the client's root is withdrawn under the session */
    struct tls_policy *p = &tls_factory_of(t.fs)->policy;
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

int main(void) {
    const struct CMUnitTest tests[] = {
        TLS_TEST(test_handshake),
        TLS_TEST(test_versions),
        TLS_TEST(test_mutual),
        TLS_TEST(test_refusals),
        TLS_TEST(test_optional_client),
        TLS_TEST(test_upstream_options),
        TLS_TEST(test_alpn),
        TLS_TEST(test_sni),
        TLS_TEST(test_resumption),
        TLS_TEST(test_resumed_client),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
