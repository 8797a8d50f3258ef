/* link: -Wl,--wrap=conn_transport_ready,--wrap=conn_transport_failed */
/* link: -Wl,--wrap=conn_transport_want_write,--wrap=conn_resume */
/* TLS records and strangers: bulk data, back-pressure, endings, hostile bytes, key updates,
 * stapling. */
#include "tests/support/tls_fixture.h"

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
    } rows[] = {{1, 0, 0},
                {16384, 0, 0},
                {16385, 1, 0},
                {300000, 777, 4096},
                {4u << 20, 0, 4608},
                {4u << 20, 16384, 0},
                {1u << 20, 100000, 65536}};
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
    /* as Envoy: the application protocol knows what is missing */
    assert_true(t.s.saw_end && !t.s.failed);
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
    static const char big_record[] = "\x16\x03\x01\xff\xff",
                      alert[] = "\x15\x03\x01\x00\x02\x02\x28";
    static const char bad_hello[] = "\x16\x03\x01\x00\x04\x01\x00\x00\x00",
                      huge_hello[] = "\x16\x03\x01\x00\x04\x01\xff\xff\xff";
    static const char v2[] = "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
                      appdata[] = "\x17\x03\x03\x00\x05hello";
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

/* Real handshakes with one byte changed: never a crash, hardly ever a connection. */
static void test_mutated_handshakes(void **state) {
    (void)state;
    struct transport_factory *fs = factory(false, MTLS_SERVER),
                             *fc = factory(true, MTLS_CLIENT "max_session_keys { value: 0 }");
    struct rng r;
    unsigned survivors = 0;
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
        bool healthy = s.ready && c.ready && !s.failed && !c.failed;
        assert_true(changed || healthy);
        survivors += changed && healthy;
        tls_end_free(&s);
        tls_end_free(&c);
        tls_end_free(&bare);
        tls_end_free(&bare2);
    }
    /* Only the version in the headers of plaintext records is nobody's business. */
    assert_true(survivors < 300 / 20);
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

static void check_staple(const char *server, bool ask, bool ok, size_t want_n, unsigned stat,
                         size_t row) {
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
    const char *lead = "common_tls_context { tls_certificates { certificate_chain { inline_string: "
                       "~server~ } private_key { inline_string: ~server_key~ } ";
    sv with_good = arena_printf(&texts, "%s ocsp_staple { inline_bytes: '%s' } } } ", lead,
                                octal(&texts, good, good_n));
    sv with_old = arena_printf(&texts, "%s ocsp_staple { inline_bytes: '%s' } } } ", lead,
                               octal(&texts, old, old_n));
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
    arena_fini(&texts);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TLS_TEST(test_bulk),
        TLS_TEST(test_back_pressure),
        TLS_TEST(test_half_close),
        TLS_TEST(test_close_and_truncation),
        TLS_TEST(test_early_end),
        TLS_TEST(test_hostile_bytes),
        TLS_TEST(test_mutated_handshakes),
        TLS_TEST(test_key_updates),
        TLS_TEST(test_stapling),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
