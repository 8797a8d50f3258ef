/* link: -Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed */
/* link: -Wl,--wrap=conn_transport_want_write,--wrap=conn_resume */
/* TLS contexts: secrets by name and their rotation, refused configs, key log, what admin tells. */
#include <pthread.h>

#include "tests/support/tls_fixture.h"

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
    const void *config = compile(
        false,
        "common_tls_context { tls_certificate_sds_secret_configs { name: 'cert' sds_config { ads "
        "{} } } "
        "combined_validation_context { default_validation_context { match_typed_subject_alt_names "
        "{ san_type: URI matcher { prefix: 'spiffe://td/' } } } "
        "validation_context_sds_secret_config { name: 'ROOTCA' sds_config { ads {} } } } } "
        "require_client_certificate { value: true }");
    assert_non_null(config);
    struct tls_secret *cert =
        secret("name: 'cert' tls_certificate { certificate_chain { inline_string: ~server~ } "
               "private_key { inline_string: ~server_key~ } }");
    struct tls_secret *next =
        secret("name: 'cert' tls_certificate { certificate_chain { inline_string: ~wild~ } "
               "private_key { inline_string: ~wild_key~ } }");
    struct tls_secret *ca =
        secret("name: 'ROOTCA' validation_context { trusted_ca { inline_string: ~root~ } }");
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
    struct transport_factory *rotated =
        tls_downstream_transport_socket.make(config, &src, &g.f.diag);
    shared_unref(&t.fs->shared);
    t.fs = rotated;
    assert_int_equal(stats_scope_value(scope, SSL_FACTORY_ssl_context_update_by_sds), 2);
    assert_true(tls_pair_passes(&t.c, &t.s, "old"));
    two_close(&t);
    two_open(&t, NULL);
    assert_sv_is(ssl_info_fact(info(&t.c), SSL_FACT_PEER_SERIAL), "0c");
    two_end(&t);
}

static void test_named_secret_without_staple(void **state) {
    (void)state;
    const void *config = compile(
        false, "common_tls_context { tls_certificate_sds_secret_configs { name: 'cert' sds_config "
               "{ ads {} } } } ocsp_staple_policy: MUST_STAPLE");
    assert_non_null(config);
    const struct tls_secret *v[] = {
        secret("name: 'cert' tls_certificate { certificate_chain { inline_string: ~server~ } "
               "private_key { inline_string: ~server_key~ } }")};
    struct secret_source src = {v, 1};
    assert_null(tls_downstream_transport_socket.make(config, &src, &g.f.diag));
    assert_has(fake_errors(&g.f), "Required OCSP response is missing from TLS context");
}

static void test_upstream_not_ready(void **state) {
    (void)state;
    const void *config = compile(true, "common_tls_context { validation_context_sds_secret_config "
                                       "{ name: 'ROOTCA' sds_config { ads {} } } }");
    struct two t = {.fs = factory(false, SERVER),
                    .fc = tls_upstream_transport_socket.make(config, NULL, &g.f.diag)};
    two_open(&t, NULL);
    assert_true(t.c.failed && !t.c.ready);
    assert_sv_is(failure(&t.c), "TLS error: Secret is not supplied by SDS");
    assert_int_equal(stats_scope_value(tls_factory_of(t.fc)->config->factory_scope,
                                       SSL_FACTORY_upstream_context_secrets_not_ready),
                     1);
    two_end(&t);
}

/* --- what a context binds --- */

#define ONLY(algorithm) "tls_params { signature_algorithms: '" algorithm "' "
#define UP "tls_maximum_protocol_version: TLSv1_3 } "

/* The algorithms of a context hold for its own signatures, too, not only for the peer's. */
static void test_signature_algorithms(void **state) {
    (void)state;
    static const struct {
        const char *server, *client;
        bool ok;
    } rows[] = {
        {"common_tls_context { " CERT("server") ONLY("ecdsa_secp256r1_sha256") "} }", CLIENT, true},
        {"common_tls_context { " CERT("server") ONLY("ecdsa_secp384r1_sha384") "} }", CLIENT,
         false},
        {"common_tls_context { " CERT("server") "tls_params { compliance_policies: FIPS_202205 } }",
         CLIENT, true},
        {MTLS_SERVER,
         "common_tls_context { " CERT("client") CA ONLY("ecdsa_secp256r1_sha256") UP "}", true},
        {MTLS_SERVER, "common_tls_context { " CERT("client") CA ONLY("rsa_pss_rsae_sha256") UP "}",
         false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t;
        two_start(&t, rows[i].server, rows[i].client, NULL);
        assert_row((t.s.ready && t.c.ready) == rows[i].ok, i);
        two_end(&t);
        renew();
    }
}

#define TEN "0123456789"
#define WITH_TICKETS \
    SERVER "session_ticket_keys { keys { inline_string: '" TEN TEN TEN TEN TEN TEN TEN TEN "' } }"

/* Filter chains of other server names do not resume each other's sessions, though keys and
 * certificates are the same. */
static void test_sessions_stay_with_server_names(void **state) {
    (void)state;
    static const struct {
        const char *names[2][2];
        bool resumes;
    } rows[] = {
        {{{NULL}, {NULL}}, true},
        {{{"a.test"}, {"a.test"}}, true},
        {{{"a.test", "b.test"}, {"a.test", "b.test"}}, true},
        {{{"a.test"}, {"b.test"}}, false},
        {{{"a.test"}, {NULL}}, false},
        {{{NULL}, {"a.test"}}, false},
        {{{"a.test", "b.test"}, {"a.testb", ".test"}}, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct two t = {.fc = factory(true, CLIENT)};
        for (unsigned j = 0; j < 2; j++) {
            const char *const *names = rows[i].names[j];
            g.f.ctx.server_names = names;
            g.f.ctx.server_names_n = (size_t)(names[0] != NULL) + (names[1] != NULL);
            t.fs = factory(false, WITH_TICKETS);
            two_open(&t, NULL);
            assert_true(tls_pair_passes(&t.s, &t.c, "tickets come before"));
            assert_row(ssl_info_is_resumed(info(&t.s)) == (j == 1 && rows[i].resumes), i);
            two_close(&t);
            shared_unref(&t.fs->shared);
        }
        shared_unref(&t.fc->shared);
        renew();
    }
}

/* --- compile errors --- */

static void test_bad_contexts(void **state) {
    (void)state;
    const struct {
        bool client;
        const char *text, *want;
    } rows[] = {
        {false, "", "No TLS certificates found for server context"},
        {false, SERVER "ocsp_staple_policy: MUST_STAPLE",
         "Required OCSP response is missing from TLS context"},
        {false,
         "common_tls_context { " CERT(
             "server") "tls_certificate_sds_secret_configs { name: 'x' } }",
         "SDS and non-SDS TLS certificates may not be mixed"},
        {false, "common_tls_context { " CERT("server") "custom_handshaker { name: 'x' } }",
         "common_tls_context: custom_handshaker is not supported"},
        {false,
         "common_tls_context { " CERT("server") "custom_tls_certificate_selector { name: 'x' } }",
         "custom_tls_certificate_selector is not supported"},
        {false,
         "common_tls_context { " CERT(
             "server") "tls_params { cipher_suites: ['ECDHE-RSA-AES128-GCM-SHA256', 'BOGUS'] } }",
         "common_tls_context.tls_params: Failed to initialize cipher suites "
         "ECDHE-RSA-AES128-GCM-SHA256:BOGUS. The following ciphers were rejected when tried "
         "individually: BOGUS"},
        {false, "common_tls_context { " CERT("server") "tls_params { ecdh_curves: 'P-1' } }",
         "Failed to initialize ECDH curves P-1"},
        {false,
         "common_tls_context { " CERT("server") "tls_params { signature_algorithms: 'md5' } }",
         "Failed to initialize TLS signature algorithms md5"},
        {false, "common_tls_context { " CERT("server") "alpn_protocols: '' }",
         "Invalid ALPN protocol string"},
        {false, "common_tls_context { " CERT("server") "key_log { path: '/nonexistent/dir/x' } }",
         "key_log: unable to open file '/nonexistent/dir/x'"},
        {false,
         "common_tls_context { " CERT("server") "key_log { path: '/dev/null' local_address_range { "
                                                "address_prefix: 'x' } } }",
         "invalid ip/mask"},
        {false, SERVER "session_timeout { seconds: -1 }", "session_timeout"},
        {false, SERVER "session_ticket_keys { keys { inline_string: 'short' } }",
         "session_ticket_keys.keys[0]: Incorrect TLS session ticket key length"},
        {false,
         "common_tls_context { tls_certificates { certificate_chain { inline_string: 'x' } "
         "private_key { inline_string: 'y' } } }",
         "common_tls_context.tls_certificates[0]: Failed to load certificate chain from <inline>"},
        {true, "common_tls_context { " CERT("server") CERT("wild") "}",
         "Multiple TLS certificates are not supported for client contexts"},
        {true, "allow_renegotiation: true", "renegotiation is not supported"},
        {true, "auto_sni_san_validation: true",
         "'auto_sni_san_validation' was configured without a validation context"},
        {true, "common_tls_context { validation_context { } } auto_sni_san_validation: true",
         "'auto_sni_san_validation' was configured without configuring a trusted CA"},
        {true,
         "common_tls_context { validation_context { match_subject_alt_names { exact: 'a' } } }",
         "without trusted CA is insecure"},
        {true, "common_tls_context { validation_context_certificate_provider { name: 'x' } }",
         "certificate providers are not supported"},
        {true, "common_tls_context { combined_validation_context { } }",
         "validation_context_sds_secret_config: value is required"},
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
    const char *ranges[] = {
        "", "remote_address_range { address_prefix: '127.0.0.1' prefix_len { value: 32 } }",
        "remote_address_range { address_prefix: '10.0.0.0' prefix_len { value: 8 } }",
        "local_address_range { address_prefix: '127.0.0.2' prefix_len { value: 32 } } "
        "remote_address_range { address_prefix: '10.0.0.0' prefix_len { value: 8 } }"};
    const bool logs[] = {true, true, false, false};
    for (size_t i = 0; i < ARRAY_LEN(ranges); i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        sv text = arena_printf(&g.f.msgs, "common_tls_context { %s key_log { path: '%s' %s } }",
                               CERT("server"), path, ranges[i]);
        struct two t;
        two_start(&t, text.p, CLIENT, NULL);
        assert_true(t.s.ready);
        char line[4096];
        ssize_t n = pread(fd, line, sizeof line, 0);
        assert_row((n > 0) == logs[i], i);
        assert_row(!logs[i] ||
                       (sv_contains(sv_from(line, (size_t)n), SV("SERVER_TRAFFIC_SECRET_0 ")) &&
                        line[n - 1] == '\n'),
                   i);
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
    assert_has(text, "\"ca_cert\":[{\"path\":\"<inline>\",\"serial_number\":\"03e8\",\"subject_alt_"
                     "names\":[],\"days_until_expiration\":\"30\",\"valid_from\":\"20");
    assert_has(
        text,
        "\"cert_chain\":[{\"path\":\"<inline>\",\"serial_number\":\"0a\",\"subject_alt_names\":[{"
        "\"dns\":\"server.test\"},{\"dns\":\"www.server.test\"},{\"uri\":\"spiffe://td/server\"}]");
    buf_fini(&out);
    assert_int_equal(tls_factory_days_until_expiry(f, now), 30);
    assert_int_equal(tls_factory_days_until_expiry(f, now + 40 * 86400), 0);
    assert_true(tls_factory_ocsp_seconds(f, now) == UINT64_MAX);
    assert_int_equal(stat_dyn_value(stats_dyn(
                         tls_factory_of(f)->config->ssl_scope,
                         SV("certificate.unnamed_cert_e3b0c442.expiration_unix_time_seconds"),
                         STAT_GAUGE)) > (uint64_t)now,
                     1);
    shared_unref(&f->shared);
    assert_false(tls_factory_describe_certs(transport_raw_factory(), now, &w));
    assert_true(tls_factory_days_until_expiry(transport_raw_factory(), now) == UINT32_MAX);
}

static void test_hash_key(void **state) {
    (void)state;
    static const sv ab[] = {SV_INIT("a"), SV_INIT("b")}, a_b[] = {SV_INIT("ab")};
    struct transport_factory *f = factory(true, CLIENT);
    const struct transport_options rows[] = {
        {.server_name = SV_NULL},
        {.server_name = SV("a")},
        {.server_name = SV("b")},
        {.san_override = ab, .san_override_n = 2},
        {.san_override = a_b, .san_override_n = 1},
        {.alpn_override = ab, .alpn_override_n = 2},
        {.alpn_fallback = ab, .alpn_fallback_n = 2},
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

/* --- threads --- */

#define THREADS 4
#define ROUNDS 20

struct worker {
    pthread_t thread;
    unsigned index;
    struct transport_factory *fs, *fc;
    bool ok;
};

static void *work(void *arg) {
    struct worker *w = arg;
    w->ok = true;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct tls_end s, c;
        tls_pair_open(&s, make(w->fs, NULL), &c, make(w->fc, NULL), 0);
        s.loop.thread_index = c.loop.thread_index = w->index;
        tls_pair_run(&c, &s);
        w->ok &= s.ready && c.ready && tls_pair_passes(&s, &c, "hello") &&
                 ssl_info_is_validated(info(&s));
        tls_end_free(&s);
        tls_end_free(&c);
    }
    transport_read_chunk_drop();
    tls_thread_drop();
    chunk_cache_trim();
    return NULL;
}

/* One pair of factories, several workers: the lazy SSL_CTX, sessions and counters are shared. */
static void test_threads(void **state) {
    (void)state;
    struct worker w[THREADS];
    struct transport_factory *fs = factory(false, MTLS_SERVER);
    struct transport_factory *fc = factory(true, MTLS_CLIENT "max_session_keys { value: 3 }");
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.index = i, .fs = fs, .fc = fc};
        assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        assert_true(w[i].ok);
    }
    assert_int_equal(stat_of(fs, SSL_STAT_handshake), THREADS * ROUNDS);
    assert_int_equal(dyn_of(fc, "versions.TLSv1.3"), THREADS * ROUNDS);
    assert_true(stat_of(fc, SSL_STAT_session_reused) > 0);
    shared_unref(&fs->shared);
    shared_unref(&fc->shared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TLS_TEST(test_named_secrets),
        TLS_TEST(test_named_secret_without_staple),
        TLS_TEST(test_upstream_not_ready),
        TLS_TEST(test_signature_algorithms),
        TLS_TEST(test_sessions_stay_with_server_names),
        TLS_TEST(test_bad_contexts),
        TLS_TEST(test_key_log),
        TLS_TEST(test_describe),
        TLS_TEST(test_hash_key),
        TLS_TEST(test_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
