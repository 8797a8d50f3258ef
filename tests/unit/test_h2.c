/* HTTP/2 server codec, fed with frames of our own making: messages, malformed messages, floods and
 * bombs, flow control, watermarks, resets, GOAWAY. Answers that Envoy 1.40 gave were the model for
 * verdicts and details. */
#include "tests/support/h2_peer.h"

/* --- server: a table --- */

/* Outcomes: events ("E …" ends them when the connection is broken) and frames sent. NULL: not
 * looked at. */
struct server_case {
    const char *name, *frames, *events, *sent;
    int stat; /* a counter that moved, or -1 */
};
static const struct server_case server_cases[] = {
    {"get", "h1+ @G;", GET_EVENT, REPLY, -1},
    {"post", "h1 @P; d1 hel; d1+ lo;", POST_EVENT "1D\"hel\"1D\"lo\".", REPLY, -1},
    {"post with length", "h1 @P|content-length=5; d1 hel; d1+ lo;",
     "1{:method=POST,:scheme=http,:path=/,:authority=a,content-length=5}1D\"hel\"1D\"lo\".", REPLY,
     -1},
    {"trailers", "h1 @P; d1 hi; h1+ x=y;", POST_EVENT "1D\"hi\"1T{x=y}.", REPLY, H2_trailers},
    {"continuation", "h1-+ :method=GET|:scheme=http; c1 :path=/|:authority=a;", GET_EVENT, REPLY,
     -1},
    {"two streams", "h1+ @G; h3+ @G;",
     GET_EVENT "3{:method=GET,:scheme=http,:path=/,:authority=a}.",
     "h1 :status=200|content-length=2;h3 :status=200|content-length=2;d1+ ok;d3+ ok;", -1},
    {"cookies joined", "h1+ @G|cookie=a=b|x=y|cookie=c=d|cookie=e;",
     "1{:method=GET,:scheme=http,:path=/,:authority=a,cookie=a=b; c=d; e,x=y}.", REPLY, -1},
    {"host becomes authority", "h1+ :method=GET|:scheme=http|:path=/|host=b;",
     "1{:method=GET,:scheme=http,:path=/,:authority=b}.", REPLY, -1},
    {"host beside authority", "h1+ @G|host=b;", GET_EVENT, REPLY, -1},
    {"te trailers", "h1+ @G|te=trailers;",
     "1{:method=GET,:scheme=http,:path=/,:authority=a,te=trailers}.", REPLY, -1},
    {"obs-text value", "h1+ @G|x=a\xff;",
     "1{:method=GET,:scheme=http,:path=/,:authority=a,x=a\xff}.", REPLY, -1},
    {"space around value", "h1+ @G|x= a ;", "1{:method=GET,:scheme=http,:path=/,:authority=a,x=a}.",
     REPLY, -1},
    {"underscore", "h1+ @G|x_y=a;", "1{:method=GET,:scheme=http,:path=/,:authority=a,x_y=a}.",
     REPLY, -1},
    {"custom method", "h1+ :method=FOO|:scheme=http|:path=/|:authority=a;",
     "1{:method=FOO,:scheme=http,:path=/,:authority=a}.", REPLY, -1},
    {"unknown frame", "x 99,0,0,616263; h1+ @G;", GET_EVENT, REPLY, -1},
    {"priority frame", "p1 0; h1+ @G;", GET_EVENT, REPLY, -1},
    {"ping", "i;", "", "i+;", -1},
    {"ping answer unasked", "i0+;", "", "", -1},
    {"goaway from client", "g 0,0; h1+ @G;", "G1,0;" GET_EVENT, REPLY, -1},
    {"hpack size update", "h1+% 2082848641016 1;", NULL, NULL, -1},
    {"connect", "h1 :method=CONNECT|:authority=a:1;", "1{:method=CONNECT,:authority=a:1}",
     "h1 :status=404|content-length=2;d1+ ok;", -1},
    {"remote reset", "h1 @P; r1 8;", POST_EVENT "1R3 http2.remote_reset;", "", H2_rx_reset},
    {"remote refused", "h1 @P; r1 7;", POST_EVENT "1R4 http2.remote_refuse;", "", H2_rx_reset},
    /* malformed: the connection goes, as in Envoy by default */
    {"upper case", "h1+ @G|X-A=b;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"connection", "h1+ @G|connection=close;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"keep-alive", "h1+ @G|keep-alive=x;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"te gzip", "h1+ @G|te=gzip;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"transfer-encoding", "h1+ @G|transfer-encoding=chunked;", MALFORMED, "g 1,1;",
     H2_rx_messaging_error},
    {"upgrade", "h1+ @G|upgrade=x;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"proxy-connection", "h1+ @G|proxy-connection=x;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"empty path", "h1+ :method=GET|:scheme=http|:path=|:authority=a;", MALFORMED, "g 1,1;",
     H2_rx_messaging_error},
    {"path with space", "h1+ :method=GET|:scheme=http|:path=/a b|:authority=a;", MALFORMED,
     "g 1,1;", H2_rx_messaging_error},
    {"two paths", "h1+ @G|:path=/b;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"two methods", "h1+ :method=GET|@G;", NULL, NULL, -1},
    {"pseudo after field", "h1+ :method=GET|:scheme=http|:path=/|x=y|:authority=a;", MALFORMED,
     "g 1,1;", H2_rx_messaging_error},
    {"unknown pseudo", "h1+ @G|:foo=x;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"response pseudo", "h1+ @G|:status=200;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"bad method", "h1+ :method=G T|:scheme=http|:path=/|:authority=a;", MALFORMED, "g 1,1;",
     H2_rx_messaging_error},
    {"bad authority", "h1+ :method=GET|:scheme=http|:path=/|:authority=a b;", MALFORMED, "g 1,1;",
     H2_rx_messaging_error},
    {"control in value", "h1+ @G|x=a\x01;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"line feed in value", "h1+ @G|x=a\nb;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"empty name", "h1+ @G|=b;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"space in name", "h1+ @G|a b=c;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"bad length", "h1+ @P|content-length=x;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"signed length", "h1+ @P|content-length=+5;", MALFORMED, "g 1,1;", H2_rx_messaging_error},
    {"two lengths", "h1 @P|content-length=5|content-length=5;", MALFORMED, "g 1,1;",
     H2_rx_messaging_error},
    {"no path", "h1+ :method=GET|:scheme=http|:authority=a;", "1R10 " RULE ";E " RULE ";", "g 1,1;",
     H2_rx_messaging_error},
    {"no method", "h1+ :scheme=http|:path=/|:authority=a;", "1R10 " RULE ";E " RULE ";", "g 1,1;",
     H2_rx_messaging_error},
    {"no scheme", "h1+ :method=GET|:path=/|:authority=a;", "1R10 " RULE ";E " RULE ";", "g 1,1;",
     H2_rx_messaging_error},
    {"no authority", "h1+ :method=GET|:scheme=http|:path=/;", "1R10 " RULE ";E " RULE ";", "g 1,1;",
     H2_rx_messaging_error},
    {"path without slash", "h1+ :method=GET|:scheme=http|:path=a|:authority=a;",
     "1R10 " RULE ";E " RULE ";", "g 1,1;", H2_rx_messaging_error},
    {"length with end", "h1+ @P|content-length=2;", "1R10 " RULE ";E " RULE ";", "g 1,1;",
     H2_rx_messaging_error},
    {"connect with path", "h1 @G|x=y; h3 :method=CONNECT|:authority=a:1|:path=/|:scheme=http;",
     NULL, "g 3,1;", H2_rx_messaging_error},
    {"trailers without end", "h1 @P; d1 hi; h1 x=y;",
     POST_EVENT "1D\"hi\"1R10 " RULE ";E " RULE ";", "g 1,1;", H2_rx_messaging_error},
    {"pseudo in trailers", "h1 @P; d1 hi; h1+ :path=/;",
     POST_EVENT "1D\"hi\"1R10 http2.invalid.header.field;E http2.invalid.header.field;", "g 1,1;",
     H2_rx_messaging_error},
    /* the stream goes */
    {"body shorter than length", "h1 @P|content-length=9; d1+ hi;", NULL, "r1 1;", H2_tx_reset},
    {"body longer than length", "h1 @P|content-length=1; d1+ hi;", NULL, "r1 1;", H2_tx_reset},
    /* protocol errors */
    {"even id", "h2+ @G;", "E http2.protocol_error;", "g 0,1;", -1},
    {"id 0", "h0+ @G;", "E http2.protocol_error;", "g 0,1;", -1},
    {"id goes back", "h3+ @G; h1+ @G;", NULL, NULL, -1},
    {"data on idle", "d1 x;", "E http2.protocol_error;", "g 0,1;", -1},
    {"window update on idle", "w1 1;", "E http2.protocol_error;", "g 0,1;", -1},
    {"reset on idle", "r1 8;", "E http2.protocol_error;", "g 0,1;", -1},
    {"window update of 0", "w0 0;", "E http2.protocol_error;", "g 0,1;", -1},
    {"window overflow", "w0 2147483647;", "E http2.protocol_error;", "g 0,3;", -1},
    {"stream window overflow", "h1 @P; w1 2147483647;", POST_EVENT "E http2.unknown.nghttp2.error;",
     "g 1,3;", -1},
    {"stream window update of 0", "h1 @P; w1 0;", POST_EVENT "E http2.unknown.nghttp2.error;",
     "g 1,1;", -1},
    {"ping of bad length", "x 6,0,0,61;", "E http2.protocol_error;", "g 0,6;", -1},
    {"ping on a stream", "x 6,0,1,6161616161616161;", "E http2.protocol_error;", "g 0,1;", -1},
    {"settings of bad length", "x 4,0,0,6161;", "E http2.protocol_error;", "g 0,6;", -1},
    {"settings ack with payload", "x 4,1,0,616161616161;", "E http2.protocol_error;", "g 0,6;", -1},
    {"settings window too large", "s 4=2147483648;", "E http2.protocol_error;", "g 0,3;", -1},
    {"settings frame size too small", "s 5=1;", "E http2.protocol_error;", "g 0,1;", -1},
    {"settings push of 2", "s 2=2;", "E http2.protocol_error;", "g 0,1;", -1},
    {"push promise from client", "h1 @P; x 5,4,1,0000000200;", NULL, "g 1,1;", -1},
    {"bad hpack", "h1+% ffffffffffff;", "E http2.protocol_error;", "g 1,9;", -1},
    {"table beyond the limit", "h1+% 3fe1ff03;", "E http2.protocol_error;", "g 1,9;", -1},
    {"frame inside a block", "h1-+ @G; d1 x;", NULL, NULL, -1},
    {"continuation without headers", "c1 @G;", "E http2.protocol_error;", "g 0,1;", -1},
    {"data after end", "h1+ @G; d1 x;", NULL, NULL, -1},
    {"goaway then nothing", "g 0,0;", "G1,0;", "", -1},
    /* floods */
    {"priority flood", "h1 @P; p1 0*201;", POST_EVENT "E http2.inbound_priority_frames_flood;",
     "g 1,11;", H2_inbound_priority_frames_flood},
    {"priority within", "h1 @P; p1 0*200;", POST_EVENT, "", -1},
    {"window update flood", "w0 1*6;", "E http2.inbound_window_update_frames_flood;", "g 0,11;",
     H2_inbound_window_update_frames_flood},
    {"window updates within", "w0 1*5;", "", "", -1},
    {"empty data flood", "h1 @P; d1 *2;", NULL, NULL, -1},
    {"empty data within", "h1 @P; d1; d1 x; d1; d1+ y;", POST_EVENT "1D\"x\"1D\"y\".", REPLY, -1},
    {"empty continuation flood", "h1-+ @G; x 9,0,1,; x 9,0,1,;",
     "E http2.inbound_empty_frames_flood;", "g 1,11;", H2_inbound_empty_frames_flood},
    {"padded data flood", "h1 @P; x 0,8,1,020000; x 0,8,1,020000;",
     POST_EVENT "E http2.inbound_empty_frames_flood;", "g 1,11;", H2_inbound_empty_frames_flood},
    {"padded data within", "h1 @P; x 0,8,1,020000; x 0,8,1,02610000; x 0,8,1,020000; d1+;",
     POST_EVENT "1D\"a\".", REPLY, -1},
    {"too many continuations", "h1-+ @G; c1- x=y*30;", "E http2.too_many_headers;", "g 1,11;",
     H2_header_overflow},
    {"settings flood", "s*1100;", "E http2.outbound_frames_flood;", NULL,
     H2_outbound_control_flood},
    {"ping flood", "i*1100;", "E http2.outbound_frames_flood;", NULL, H2_outbound_control_flood},
    {"continuation flood", "h1-+ @G; c1- x=y*40;", NULL, NULL, -1},
};

static void run_case(const struct server_case *c, size_t split, struct peer *p) {
    peer_init(p);
    p->log.auto_reply = true;
    server(p);
    buf_clear(&p->sent);
    struct buf b;
    buf_init(&b);
    h2_put_text(&b, sv_cstr(c->frames));
    sv all = buf_pullup(&b, buf_len(&b));
    if (split) {
        for (size_t i = 0; i < all.n; i += split) {
            sv part = sv_sub(all, i, split);
            codec_log_feed(&p->log, part.p, part.n);
        }
    } else {
        codec_log_feed(&p->log, all.p, all.n);
    }
    buf_fini(&b);
    collect(p);
}

static void test_server_table(void **state) {
    (void)state;
    unsigned bad = 0;
    for (size_t i = 0; i < ARRAY_LEN(server_cases); i++) {
        const struct server_case *c = &server_cases[i];
        struct peer p;
        run_case(c, 0, &p);
        char *events = codec_log_text(&p.log);
        char *sent = buf_dup_str(&p.sent);
        if ((c->events && strcmp(events, c->events) != 0) ||
            (c->sent && strcmp(sent, c->sent) != 0) || (c->stat >= 0 && shard->v[c->stat] == 0)) {
            print_error("%s:\n got %s\nwant %s\n got %s\nwant %s\nstat %d\n", c->name, events,
                        c->events ? c->events : "*", sent, c->sent ? c->sent : "*", c->stat);
            bad++;
        }
        xfree(events);
        xfree(sent);
        peer_fini(&p);
    }
    assert_int_equal(bad, 0);
}

/* How bytes are cut into reads changes neither events nor frames (bodies may come in more
 * pieces). */
static void test_server_splits(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(server_cases); i++) {
        const struct server_case *c = &server_cases[i];
        if (!c->events || !c->sent || strstr(c->name, "flood") || strstr(c->name, "two") ||
            strstr(c->name, "goaway")) {
            continue;
        }
        for (size_t split = 1; split < 12; split += 2) {
            struct peer p;
            run_case(c, split, &p);
            p.log.has_id_prefix = false;
            char *sent = buf_dup_str(&p.sent);
            if (strcmp(sent, c->sent) != 0 && !strstr(c->frames, "*")) {
                print_error("%s in pieces of %zu: %s\nwant %s\n%s\n", c->name, split, sent, c->sent,
                            codec_log_text(&p.log));
                fail();
            }
            xfree(sent);
            peer_fini(&p);
        }
    }
}

/* With the option, malformed messages cost their stream only. */
static void test_stream_errors(void **state) {
    (void)state;
    static const char *const bad[] = {
        "h1+ @G|X-A=b;",
        "h1+ @G|connection=close;",
        "h1+ :method=GET|:scheme=http|:authority=a;",
        "h1+ @G|x=a\x01;",
        "h1+ @G|te=gzip;",
        "h1+ @G|:path=/b;",
        "h1+ @P|content-length=2;",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct peer p;
        peer_init(&p);
        p.log.auto_reply = true;
        p.log.opt.h2.override_stream_error_on_invalid_http_message = true;
        server(&p);
        buf_clear(&p.sent);
        feed(&p, bad[i]);
        feed(&p, "h3+ @G;");
        assert_row(p.log.error == 0 && p.log.resets == 1 && p.log.reason == RESET_PROTOCOL_ERROR,
                   i);
        check_sent(&p, "r1 1;h3 :status=200|content-length=2;d3+ ok;");
        peer_fini(&p);
    }
}

/* --- limits of header blocks --- */

static void put_block(struct buf *b, const char *fields, const char *extra, unsigned times,
                      size_t bytes) {
    h2_put_fields(b, sv_cstr(fields));
    char *value = xalloc(bytes + 1);
    memset(value, 'y', bytes);
    for (unsigned i = 0; i < times; i++) {
        h2_put_int(b, 0, 1);
        h2_put_string(b, sv_cstr(extra));
        h2_put_string(b, sv_from(value, bytes));
    }
    xfree(value);
}

/* HEADERS and CONTINUATION frames of at most 16000 bytes. */
static void put_split(struct buf *out, uint32_t stream, struct buf *block) {
    bool first = true;
    do {
        struct buf part;
        buf_init(&part);
        buf_move_n(&part, block, buf_len(block) < 16000 ? buf_len(block) : 16000);
        uint8_t flags = buf_empty(block) ? NGHTTP2_FLAG_END_HEADERS : 0;
        h2_put_frame(out, first ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION,
                     first ? flags | NGHTTP2_FLAG_END_STREAM : flags, stream, &part);
        buf_fini(&part);
        first = false;
    } while (!buf_empty(block));
}

static const struct {
    const char *name, *field;
    unsigned times;
    size_t bytes;
    const char *details; /* NULL: accepted */
    int stat;
} blocks[] = {
    {"56 KB", "x", 14, 4000, NULL, -1},
    {"70 KB", "x", 18, 4000, "http2.header_list_size_too_large", H2_header_list_size_too_large},
    {"150 KB", "x", 38, 4000, "http2.header_list_size_too_large", H2_header_list_size_too_large},
    {"cookies of 70 KB", "cookie", 70, 1000, "http2.header_list_size_too_large",
     H2_header_list_size_too_large},
    {"96 fields", "x", 96, 1, NULL, -1},
    {"97 fields", "x", 97, 1, "http2.too_many_headers", H2_header_overflow},
    {"200 cookies", "cookie", 200, 1, "http2.too_many_headers", H2_header_overflow},
    {"1000 empty", "x", 1000, 0, "http2.too_many_headers", H2_header_overflow},
};

static void test_block_limits(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        struct peer p;
        peer_init(&p);
        p.log.auto_reply = true;
        server(&p);
        buf_clear(&p.sent);
        struct buf block, frames;
        buf_init(&block);
        buf_init(&frames);
        put_block(&block, H2_GET, blocks[i].field, blocks[i].times, blocks[i].bytes);
        put_split(&frames, 1, &block);
        sv all = buf_pullup(&frames, buf_len(&frames));
        codec_log_feed(&p.log, all.p, all.n);
        buf_clear(&frames);
        h2_put_text(&frames, SV("h3+ @G;")); /* the connection lives on, its HPACK state whole */
        all = buf_pullup(&frames, buf_len(&frames));
        codec_log_feed(&p.log, all.p, all.n);
        buf_fini(&block);
        buf_fini(&frames);
        if (blocks[i].details) {
            assert_row(p.log.resets == 1 && p.log.reason == RESET_REMOTE &&
                           shard->v[blocks[i].stat] == 1,
                       i);
            char *text = codec_log_text(&p.log);
            assert_row(strstr(text, blocks[i].details) != NULL, i);
            xfree(text);
            check_sent(&p, "r1 2;h3 :status=200|content-length=2;d3+ ok;");
        } else {
            assert_row(p.log.resets == 0 && p.log.begins == 2, i);
        }
        assert_row(p.log.error == 0, i);
        peer_fini(&p);
    }
}

/* One indexed byte stands for 4000: each counts in full. */
static void test_hpack_bombs(void **state) {
    (void)state;
    static const struct {
        const char *field, *details;
    } bombs[] = {{"x", "http2.header_list_size_too_large"},
                 {"cookie", "http2.header_list_size_too_large"}};
    for (size_t i = 0; i < ARRAY_LEN(bombs); i++) {
        struct peer p;
        peer_init(&p);
        server(&p);
        struct buf block, frame;
        buf_init(&block);
        buf_init(&frame);
        h2_put_fields(&block, SV(H2_GET));
        char value[4000];
        memset(value, 'y', sizeof(value));
        h2_put_int(&block, 0x40, 1);
        h2_put_string(&block, sv_cstr(bombs[i].field));
        h2_put_string(&block, sv_from(value, sizeof(value)));
        for (unsigned k = 0; k < 5000; k++) {
            h2_put_int(&block, 0xbe, 1);
        }
        h2_put_frame(&frame, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1,
                     &block);
        sv all = buf_pullup(&frame, buf_len(&frame));
        codec_log_feed(&p.log, all.p, all.n);
        assert_row(p.log.resets == 1 && p.log.error == 0, i);
        assert_row(arena_bytes(&p.log.arena) < 300000, i);
        char *text = codec_log_text(&p.log);
        assert_non_null(strstr(text, bombs[i].details));
        xfree(text);
        buf_fini(&block);
        buf_fini(&frame);
        peer_fini(&p);
    }
}

static void test_underscores(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.log.opt.underscores = UNDERSCORES_DROP;
    server(&p);
    feed(&p, "h1+ @G|x_y=a|x=b;");
    check_events(&p, "1{:method=GET,:scheme=http,:path=/,:authority=a,x=b}.");
    assert_int_equal(shard->v[H2_dropped_headers_with_underscores], 1);
    peer_fini(&p);
    peer_init(&p);
    p.log.opt.underscores = UNDERSCORES_REJECT;
    server(&p);
    feed(&p, "h1+ @G|x_y=a;");
    check_events(&p, "1R3 http2.unexpected_underscore;");
    assert_int_equal(shard->v[H2_requests_rejected_with_underscores_in_headers], 1);
    peer_fini(&p);
}

static void test_max_concurrent_streams(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.log.opt.h2.max_concurrent_streams = 2;
    server(&p);
    buf_clear(&p.sent);
    feed(&p, "h1 @P; h3 @P; h5 @P;");
    assert_int_equal(p.log.begins, 2);
    check_sent(&p, "r5 7;");
    assert_int_equal(shard->v[H2_stream_refused_errors], 1);
    assert_int_equal(p.log.codec->streams_active, 2);
    feed(&p, "s0+; h7 @P;"); /* it knows by now: no accident */
    check_sent(&p, "g 3,1;");
    peer_fini(&p);
}

/* What Envoy 1.40 sends first. */
static void test_settings(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.reader.show_all = true;
    peer_make(&p, h2_server_new);
    check_sent(&p, "s 1=4096,8=0,3=1024,4=16777216;w0 25100289;");
    peer_fini(&p);
    peer_init(&p);
    p.reader.show_all = true;
    static const struct h2_setting extra[] = {{6, 100}, {0xff, 7}};
    p.log.opt.h2.settings = extra;
    p.log.opt.h2.settings_n = 2;
    p.log.opt.h2.allow_connect = true;
    peer_make(&p, h2_server_new);
    check_sent(&p, "s 1=4096,8=1,3=1024,4=16777216,6=100,255=7;w0 25100289;");
    peer_fini(&p);
}

static void test_bad_preface(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    peer_make(&p, h2_server_new);
    codec_log_feed(&p.log, "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 24);
    check_events(&p, "E http2.bad_client_magic;");
    peer_fini(&p);
}

/* --- responses --- */

static void begin_request(struct peer *p) {
    peer_init(p);
    server(p);
    feed(p, "h1+ @G;");
    buf_clear(&p->sent);
}

static void test_responses(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    send_headers(&p,
                 ":status=204|connection=close|transfer-encoding=x|keep-alive=y|upgrade=z|x=y|te="
                 "gzip|bad=a\nb",
                 true);
    check_sent(&p, "h1+ :status=204|x=y;");
    peer_fini(&p);
    begin_request(&p);
    send_headers(&p, "x=y|:status=200", false);
    send_bytes(&p, 3, false);
    send_bytes(&p, 0, true);
    check_sent(&p, "h1 :status=200|x=y;d1 zzz;d1+ ;");
    assert_int_equal(p.log.codec->streams_active, 0);
    peer_fini(&p);
}

static void test_interim_and_trailers(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    struct headers h;
    make_headers(&h, &p.log.arena, ":status=103|link=x");
    p.log.codec->vt->send_1xx(p.log.stream, &h);
    send_headers(&p, ":status=200", false);
    send_bytes(&p, 3, false);
    make_headers(&h, &p.log.arena, "grpc-status=0|x=y");
    p.log.codec->vt->send_trailers(p.log.stream, &h);
    check_sent(&p, "h1 :status=103|link=x;h1 :status=200;d1 zzz;h1+ grpc-status=0|x=y;");
    assert_int_equal(p.log.codec->streams_active, 0);
    peer_fini(&p);
    begin_request(&p); /* no body at all */
    send_headers(&p, ":status=200", false);
    make_headers(&h, &p.log.arena, "grpc-status=0");
    p.log.codec->vt->send_trailers(p.log.stream, &h);
    check_sent(&p, "h1 :status=200;h1+ grpc-status=0;");
    peer_fini(&p);
}

/* --- flow control --- */

static void test_peer_window(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    p.log.opt.stream_buffer_limit_bytes = 10000;
    send_headers(&p, ":status=200", false);
    send_bytes(&p, 100000, false);
    check_sent(&p, "h1 :status=200;d1 #16384;d1 #16384;d1 #16384;d1 #16383;");
    assert_int_equal(p.log.above, 1);
    assert_int_equal(shard->v[H2_pending_send_bytes], 100000 - 65535);
    feed(&p, "w1 100000; w0 20000;");
    check_sent(&p, "d1 #16384;d1 #3616;");
    assert_int_equal(p.log.below, 0);
    feed(&p, "w0 100000;");
    check_sent(&p, "d1 #14465;");
    assert_int_equal(p.log.below, 1);
    send_bytes(&p, 1, true);
    check_sent(&p, "d1+ z;");
    assert_int_equal(shard->v[H2_pending_send_bytes], 0);
    peer_fini(&p);
}

static void test_trailers_behind_window(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    send_headers(&p, ":status=200", false);
    send_bytes(&p, 70000, false);
    struct headers h;
    make_headers(&h, &p.log.arena, "x=y");
    p.log.codec->vt->send_trailers(p.log.stream, &h);
    memset(h.v, 0, sizeof(*h.v)); /* the user's headers are gone by then */
    buf_clear(&p.sent);
    collect(&p);
    buf_clear(&p.sent);
    feed(&p, "w1 100000; w0 100000;");
    check_sent(&p, "d1 #4465;h1+ x=y;");
    peer_fini(&p);
}

static void test_our_window(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.log.opt.h2.initial_stream_window_bytes = 65535;
    p.log.opt.h2.initial_connection_window_bytes = 65535;
    p.reader.show_all = true;
    server(&p);
    feed(&p, "s0+; h1 @P;");
    buf_clear(&p.sent);
    char frame[4096];
    int n = snprintf(frame, sizeof(frame), "d1 %0*d;", 4000, 0);
    assert_true(n > 4000);
    for (unsigned i = 0; i < 10; i++) {
        feed(&p, frame);
    }
    check_sent(&p,
               "w0 36000;w1 36000;"); /* consumed at once: windows come back when half is used */
    p.log.codec->vt->read_disable(p.log.stream, true);
    for (unsigned i = 0; i < 15; i++) {
        feed(&p, frame);
    }
    check_sent(&p, "");
    p.log.codec->vt->read_disable(p.log.stream, true);
    p.log.codec->vt->read_disable(p.log.stream, false);
    check_sent(&p, "");
    p.log.codec->vt->read_disable(p.log.stream, false);
    check_sent(&p, "w0 64000;w1 64000;");
    peer_fini(&p);
}

/* What a stream never consumed is given back to the connection when it ends. */
static void test_window_of_dead_streams(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.log.opt.h2.initial_connection_window_bytes = 65535;
    p.reader.show_all = true;
    server(&p);
    feed(&p, "s0+; h1 @P;");
    p.log.codec->vt->read_disable(p.log.stream, true);
    char frame[4096];
    snprintf(frame, sizeof(frame), "d1 %0*d;", 4000, 0);
    for (unsigned i = 0; i < 10; i++) {
        feed(&p, frame);
    }
    buf_clear(&p.sent);
    feed(&p, "r1 8;");
    check_sent(&p, "w0 40000;");
    feed(&p, "h3 @P;");
    p.log.codec->vt->reset(p.log.stream, RESET_LOCAL);
    buf_clear(&p.sent);
    collect(&p);
    frame[1] = '3';
    for (unsigned i = 0; i < 9; i++) {
        feed(&p, frame); /* on a stream we have reset */
    }
    check_sent(&p, "r3 2;w0 36000;");
    peer_fini(&p);
}

/* A connection that does not drain: bytes stay with the streams, and they are told. */
static void test_connection_watermark(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    p.log.conn.buffer_limit_bytes = 20000;
    feed(&p, "w0 1000000; w1 1000000;");
    send_headers(&p, ":status=200", false);
    send_bytes(&p, 100000, false);
    size_t out = buf_len(conn_out(&p.log.conn));
    assert_true(out > 20000 && out < 20000 + 16500);
    assert_true(p.log.above >= 1 && p.log.above == p.log.below + 1);
    unsigned rounds = 0;
    while (buf_len(conn_out(&p.log.conn))) {
        fake_conn_drain(&p.log.conn, buf_len(conn_out(&p.log.conn)));
        rounds++;
    }
    assert_true(rounds > 2 && rounds < 10);
    assert_int_equal(p.log.below, p.log.above);
    send_bytes(&p, 5, true);
    assert_int_equal(p.log.codec->streams_active, 0);
    buf_clear(conn_out(&p.log.conn));
    peer_fini(&p);
}

/* Small frames that pile up unread are a flood of our own making. */
static void test_outbound_flood(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    p.log.opt.h2.max_outbound_frames = 100;
    send_headers(&p, ":status=200", false);
    for (unsigned i = 0; i < 300 && p.log.conn.state == CONN_OPEN; i++) {
        send_bytes(&p, 1, false);
    }
    assert_int_equal(p.log.conn.state, CONN_CLOSED);
    assert_string_equal(p.log.conn.close_reason, "http2.outbound_frames_flood");
    assert_int_equal(shard->v[H2_outbound_flood], 1);
    peer_fini(&p);
    begin_request(&p); /* a reader that keeps up is none */
    p.log.opt.h2.max_outbound_frames = 100;
    send_headers(&p, ":status=200", false);
    for (unsigned i = 0; i < 3000; i++) {
        send_bytes(&p, 1, false);
        if (i % 40 == 0) {
            fake_conn_drain(&p.log.conn, buf_len(conn_out(&p.log.conn)) - 5);
        }
    }
    assert_int_equal(p.log.conn.state, CONN_OPEN);
    buf_clear(conn_out(&p.log.conn));
    peer_fini(&p);
}

/* Whether the answer left before the second block came or not, it is the same error; of a stream
 * that we reset, more may have been under way. */
static void test_headers_behind_the_end(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    send_headers(&p, ":status=204", true);
    feed(&p, "h1+ @G;");
    assert_int_equal(p.log.error, -1);
    check_sent(&p, "h1+ :status=204;g 1,5;");
    peer_fini(&p);
    begin_request(&p);
    p.log.codec->vt->reset(p.log.stream, RESET_LOCAL);
    feed(&p, "h1+ x=y;");
    assert_int_equal(p.log.error, 0);
    peer_fini(&p);
}

/* --- resets, GOAWAY, lifetimes --- */

static void test_server_resets(void **state) {
    (void)state;
    static const struct {
        enum reset_reason why;
        unsigned code;
    } cases[] = {{RESET_LOCAL, 2},
                 {RESET_LOCAL_REFUSED, 7},
                 {RESET_PROTOCOL_ERROR, 1},
                 {RESET_OVERLOAD, 11},
                 {RESET_CONNECT_ERROR, 10}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct peer p;
        begin_request(&p);
        p.log.codec->vt->reset(p.log.stream, cases[i].why);
        char want[32];
        snprintf(want, sizeof(want), "r1 %u;", cases[i].code);
        check_sent(&p, want);
        assert_row(p.log.resets == 0 && p.log.codec->streams_active == 0, i);
        peer_fini(&p);
    }
}

/* An answer before the request's end: END_STREAM, then RST_STREAM(NO_ERROR), also behind a full
 * window. */
static void test_early_response(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    server(&p);
    feed(&p, "h1 @P; d1 abc;");
    buf_clear(&p.sent);
    send_headers(&p, ":status=413", true);
    p.log.codec->vt->reset(p.log.stream, RESET_NONE);
    feed(&p, "d1 more;");
    check_sent(&p, "h1+ :status=413;r1 0;");
    peer_fini(&p);
    peer_init(&p);
    server(&p);
    feed(&p, "h1 @P;");
    buf_clear(&p.sent);
    send_headers(&p, ":status=413", false);
    send_bytes(&p, 70000, true);
    p.log.codec->vt->reset(p.log.stream, RESET_NONE);
    collect(&p);
    buf_clear(&p.sent);
    feed(&p, "w1 10000; w0 10000;");
    check_sent(&p, "d1+ #4465;r1 0;");
    peer_fini(&p);
}

static void test_rapid_reset(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    server(&p);
    for (unsigned i = 0; i < 2000; i++) {
        char text[64];
        snprintf(text, sizeof(text), "h%u @P; r%u 8;", 2 * i + 1, 2 * i + 1);
        feed(&p, text);
        loop_run_nowait(&loop);
        buf_clear(&p.log.text);
    }
    assert_int_equal(p.log.begins, 2000);
    assert_int_equal(p.log.resets, 2000); /* the connection manager counts and cuts off */
    assert_int_equal(p.log.codec->streams_active, 0);
    assert_int_equal(p.log.error, 0);
    peer_fini(&p);
}

static void test_server_goaway(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    p.log.codec->vt->goaway(p.log.codec, false);
    check_sent(&p, "g 2147483647,0;");
    feed(&p, "h3+ @G;");
    assert_int_equal(p.log.begins, 2);
    p.log.codec->vt->goaway(p.log.codec, true);
    check_sent(&p, "g 3,0;");
    feed(&p, "h5+ @G;");
    assert_int_equal(p.log.begins, 2);
    assert_false(p.log.codec->vt->wants_close(p.log.codec));
    assert_int_equal(shard->v[H2_goaway_sent], 2);
    feed(&p, "r1 8; r3 8;");
    assert_true(p.log.codec->vt->wants_close(p.log.codec));
    peer_fini(&p);
}

static void test_connection_end(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    server(&p);
    feed(&p, "h1 @P; h3 @P; h5+ @G;");
    p.log.codec->vt->on_conn_end(p.log.codec, RESET_CONNECTION_TERMINATION);
    assert_int_equal(p.log.resets, 3);
    p.log.codec->vt->on_conn_end(p.log.codec, RESET_CONNECTION_TERMINATION);
    assert_int_equal(p.log.resets, 3);
    assert_int_equal(p.log.codec->streams_active, 0);
    peer_fini(&p);
}

static void test_inside_callbacks(void **state) {
    (void)state;
    struct peer p;
    peer_init(&p);
    p.log.reset_on_headers = true;
    server(&p);
    buf_clear(&p.sent);
    feed(&p, "h1 @P; d1+ abc;");
    check_sent(&p, "r1 2;");
    check_events(&p, POST_EVENT);
    peer_fini(&p);
    peer_init(&p);
    p.log.free_on_headers = true;
    server(&p);
    feed(&p, "h1 @P; d1+ abc; h3 @G;");
    assert_null(p.log.codec);
    assert_int_equal(p.log.begins, 1);
    peer_fini(&p);
}

/* A finished response that the client does not let out is dropped after a while. */
static void test_flush_timeout(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    p.log.stream->flush_timeout_ms = 1;
    send_headers(&p, ":status=200", false);
    send_bytes(&p, 100000, true);
    collect(&p);
    buf_clear(&p.sent);
    uint64_t end = uv_hrtime() + 2000000000u;
    while (!shard->v[H2_tx_flush_timeout] && uv_hrtime() < end) {
        loop_run_nowait(&loop);
    }
    check_sent(&p, "r1 8;");
    peer_fini(&p);
}

static void test_dump(void **state) {
    (void)state;
    struct peer p;
    begin_request(&p);
    struct buf out;
    buf_init(&out);
    p.log.codec->vt->dump(p.log.codec, &out);
    assert_true(buf_len(&out) > 50);
    buf_fini(&out);
    peer_fini(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_server_table),
        cmocka_unit_test(test_server_splits),
        cmocka_unit_test(test_stream_errors),
        cmocka_unit_test(test_block_limits),
        cmocka_unit_test(test_hpack_bombs),
        cmocka_unit_test(test_underscores),
        cmocka_unit_test(test_max_concurrent_streams),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_bad_preface),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_interim_and_trailers),
        cmocka_unit_test(test_peer_window),
        cmocka_unit_test(test_trailers_behind_window),
        cmocka_unit_test(test_our_window),
        cmocka_unit_test(test_window_of_dead_streams),
        cmocka_unit_test(test_connection_watermark),
        cmocka_unit_test(test_outbound_flood),
        cmocka_unit_test(test_server_resets),
        cmocka_unit_test(test_early_response),
        cmocka_unit_test(test_rapid_reset),
        cmocka_unit_test(test_headers_behind_the_end),
        cmocka_unit_test(test_server_goaway),
        cmocka_unit_test(test_connection_end),
        cmocka_unit_test(test_inside_callbacks),
        cmocka_unit_test(test_flush_timeout),
        cmocka_unit_test(test_dump),
    };
    return cmocka_run_group_tests_name("h2", tests, open_loop, close_loop);
}
