/* HTTP/2 client codec: responses, resets and GOAWAY as retries need to know them, stream limits,
 * upgrades, keepalive. */
#include "tests/support/h2_peer.h"

/* --- client --- */

static struct codec_stream *request(struct peer *p, const char *fields, bool end) {
    p->log.stream = p->log.codec->vt->open(p->log.codec, &codec_log_stream_ops, &p->log);
    assert_non_null(p->log.stream);
    send_headers(p, fields, end);
    return p->log.stream;
}

static void begin_client(struct peer *p) {
    peer_init(p);
    client(p);
    buf_clear(&p->sent);
}

static const struct {
    const char *frames, *events;
    unsigned ends;
} client_cases[] = {
    {"h1+ :status=200|x=y;", "1{:status=200,x=y}.", 1},
    {"h1 :status=200; d1+ hi;", "1{:status=200}1D\"hi\".", 1},
    {"h1 :status=200; d1 hi; h1+ x=y;", "1{:status=200}1D\"hi\"1T{x=y}.", 1},
    {"h1 :status=100; h1 :status=103|link=x; h1+ :status=200;",
     "1I{:status=100}1I{:status=103,link=x}1{:status=200}.", 1},
    {"h1+ :status=204;", "1{:status=204}.", 1},
    {"h1+ :status=200|set-cookie=a|set-cookie=b;", "1{:status=200,set-cookie=a,set-cookie=b}.", 1},
    {"r1 7;", "1R4 http2.remote_refuse;", 1},
    {"r1 8;", "1R3 http2.remote_reset;", 1},
    {"h1 :status=200; d1 hi; r1 2;", "1{:status=200}1D\"hi\"1R3 http2.remote_reset;", 1},
    {"g 0,0;", "G1,0;1R4;", 1},
    {"g 0,2;", "G0,0;1R4;", 1},
    {"g 1,0; h1+ :status=200;", "G1,1;1{:status=200}.", 1},
    {"h1+ :status=100;", NULL, 1},
    {"h1 x=y;", "1R10 http2.violation.of.messaging.rule;E http2.violation.of.messaging.rule;", 1},
    {"h1+ :status=2000;", MALFORMED, 1},
    {"h1+ :status=200|X=y;", MALFORMED, 1},
    {"h1+ :status=200|connection=close;", MALFORMED, 1},
    {"h1 :status=200|content-length=9; d1+ hi;", NULL, 1},
    {"h1+ :status=200; d1 x;", NULL, 1},
    {"x 5,4,1,0000000282;", NULL, 0}, /* push although it is off */
    {"h1 :status=101;", NULL, 1},
    {"h3+ :status=200;", "E http2.protocol_error;", 0},
    {"d1 x;", "E http2.protocol_error;", 0},
};

static void test_client_table(void **state) {
    (void)state;
    unsigned bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(client_cases); i++) {
        struct peer p;
        begin_client(&p);
        request(&p, H2_GET "|x=y", true);
        check_sent(&p, "h1+ :method=GET|:scheme=http|:path=/|:authority=a|x=y;");
        feed(&p, client_cases[i].frames);
        char *text = codec_log_text(&p.log);
        bool ok = (!client_cases[i].events || strcmp(text, client_cases[i].events) == 0) &&
                  p.log.ends == client_cases[i].ends;
        if (!ok) {
            print_error("row %zu: ends %u\n got %s\nwant %s\n", i, p.log.ends, text,
                        client_cases[i].events);
            bad++;
        }
        xfree(text);
        p.log.codec->vt->on_conn_end(p.log.codec, RESET_CONNECTION_TERMINATION);
        assert_row(p.log.ends == 1 && p.log.codec->streams_active == 0, i);
        peer_fini(&p);
    }
    assert_int_equal(bad, 0);
}

static void test_client_requests(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    request(&p,
            H2_POST
            "|host=evil|connection=x|transfer-encoding=chunked|te=trailers, x|http2-settings=y",
            false);
    send_bytes(&p, 3, false);
    send_bytes(&p, 2, true);
    check_sent(&p, "h1 :method=POST|:scheme=http|:path=/|:authority=a|te=trailers;d1 zzz;d1+ zz;");
    request(&p, ":method=CONNECT|:authority=a:1|:scheme=http|:path=/x", false);
    check_sent(&p, "h3 :method=CONNECT|:authority=a:1;");
    assert_int_equal(codec_stream_id(p.log.stream), 3);
    p.log.codec->vt->reset(p.log.stream, RESET_LOCAL);
    check_sent(&p, "r3 8;");
    assert_int_equal(p.log.ends, 1);
    peer_fini(&p);
}

/* Opened, but reset before it sent anything: nothing goes out. */
static void test_client_reset_unsent(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    p.log.stream = p.log.codec->vt->open(p.log.codec, &codec_log_stream_ops, &p.log);
    p.log.codec->vt->reset(p.log.stream, RESET_LOCAL);
    assert_int_equal(p.log.ends, 1);
    assert_int_equal(p.log.codec->streams_active, 0);
    check_sent(&p, "");
    peer_fini(&p);
}

/* What one batch submits leaves at its end: headers with the body, requests together. */
static void test_client_batch(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    request(&p, H2_GET, true);
    request(&p, H2_POST, false);
    h2_show(&p.reader, conn_out(&p.log.conn), &p.sent);
    assert_int_equal(buf_len(&p.sent), 0);
    check_sent(&p, "h1+ :method=GET|:scheme=http|:path=/|:authority=a;"
                   "h3 :method=POST|:scheme=http|:path=/|:authority=a;");
    request(&p, H2_GET, true); /* reset before it left: never sent, over once */
    p.log.codec->vt->reset(p.log.stream, RESET_LOCAL);
    assert_int_equal(p.log.ends, 1);
    assert_int_equal(p.log.codec->streams_active, 2);
    check_sent(&p, "");
    request(&p, H2_GET, true);
    check_sent(&p, "h7+ :method=GET|:scheme=http|:path=/|:authority=a;");
    request(&p, H2_GET, true); /* the connection goes with the request in hand */
    p.log.codec->vt->on_conn_end(p.log.codec, RESET_CONNECTION_TERMINATION);
    peer_fini(&p);
}

static void test_client_goaway(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    request(&p, H2_GET, true);
    struct codec_stream *first = p.log.stream;
    request(&p, H2_GET, true);
    feed(&p, "g 1,0;");
    check_events(&p, "G1,1;3R4;"); /* unprocessed: safe to send again */
    assert_null(p.log.codec->vt->open(p.log.codec, &codec_log_stream_ops, &p.log));
    assert_true(p.log.codec->vt->wants_close(p.log.codec));
    assert_int_equal(p.log.codec->streams_active, 1);
    feed(&p, "h1+ :status=200;");
    assert_int_equal(p.log.codec->streams_active, 0);
    (void)first;
    peer_fini(&p);
}

static void test_client_max_streams(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    feed(&p, "s 3=1;");
    assert_int_equal(p.log.max_streams, 1);
    request(&p, H2_GET, true);
    check_sent(&p, "h1+ :method=GET|:scheme=http|:path=/|:authority=a;");
    request(&p, H2_GET, true); /* waits for the first */
    check_sent(&p, "");
    feed(&p, "h1+ :status=200;");
    check_sent(&p, "h3+ :method=GET|:scheme=http|:path=/|:authority=a;");
    peer_fini(&p);
}

static void test_client_interim_flood(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    request(&p, H2_GET, true);
    for (unsigned i = 0; i <= H2_INTERIM_MAX; i++) {
        feed(&p, "h1 :status=102;");
    }
    assert_int_equal(p.log.resets, 1);
    assert_int_equal(p.log.reason, RESET_PROTOCOL_ERROR);
    assert_int_equal(p.log.error, 0);
    peer_fini(&p);
}

/* An HTTP/1 upgrade becomes extended CONNECT and comes back as 101. */
static void test_upgrades(void **state) {
    (void)state;
    struct peer p;
    begin_client(&p);
    request(&p, H2_GET "|connection=Upgrade|upgrade=websocket|content-length=0", false);
    check_sent(&p, "h1 :method=CONNECT|:protocol=websocket|:scheme=http|:path=/|:authority=a;");
    feed(&p, "h1 :status=200; d1 hi;");
    check_events(&p, "1{:status=101,upgrade=websocket,connection=upgrade}1D\"hi\"");
    peer_fini(&p);
    begin_client(&p);
    request(&p, H2_GET "|connection=Upgrade|upgrade=websocket", false);
    feed(&p, "h1+ :status=403;");
    check_events(&p, "1{:status=403}.");
    peer_fini(&p);
    peer_init(&p);
    p.log.opt.h2.allow_connect = true;
    server(&p);
    feed(&p, "s0+; h1 :method=CONNECT|:protocol=websocket|:scheme=http|:path=/|:authority=a;");
    buf_clear(&p.sent);
    send_headers(&p, ":status=101|upgrade=websocket|connection=upgrade", false);
    check_sent(&p, "h1 :status=200;");
    check_events(&p, "1{:method=CONNECT,:protocol=websocket,:scheme=http,:path=/,:authority=a}");
    peer_fini(&p);
}

/* --- keepalive --- */

static bool spin_until_sent(struct peer *p, const char *want) {
    uint64_t end = uv_hrtime() + 2000000000u;
    for (;;) {
        loop_run_nowait(&loop);
        collect(p);
        if (sv_contains(buf_pullup(&p->sent, buf_len(&p->sent)), sv_cstr(want))) {
            return true;
        }
        if (uv_hrtime() > end) {
            return false;
        }
    }
}

static void test_keepalive(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.log.opt.h2.keepalive_interval_ms = 1;
    p.log.opt.h2.keepalive_timeout_ms = 20;
    client(&p);
    assert_true(spin_until_sent(&p, "i;"));
    buf_clear(&p.sent);
    feed(&p, "i0+;"); /* alive */
    assert_true(spin_until_sent(&p, "i;"));
    uint64_t end = uv_hrtime() + 2000000000u;
    while (p.log.conn.state == CONN_OPEN && uv_hrtime() < end) {
        loop_run_nowait(&loop);
    }
    assert_int_equal(p.log.conn.state, CONN_CLOSED);
    assert_int_equal(shard->v[H2_keepalive_timeout], 1);
    peer_fini(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_table),
        cmocka_unit_test(test_client_requests),
        cmocka_unit_test(test_client_reset_unsent),
        cmocka_unit_test(test_client_batch),
        cmocka_unit_test(test_client_goaway),
        cmocka_unit_test(test_client_max_streams),
        cmocka_unit_test(test_client_interim_flood),
        cmocka_unit_test(test_upgrades),
        cmocka_unit_test(test_keepalive),
    };
    return cmocka_run_group_tests_name("h2_client", tests, open_loop, close_loop);
}
