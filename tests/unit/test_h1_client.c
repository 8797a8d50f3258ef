/* HTTP/1 client codec: requests as written, responses as read (whole and split at every byte), what
 * makes a connection unfit for the pool, tunnels. */
#include "proxy/base/mem.h"
#include "proxy/http/h1.h"
#include "tests/support/codec_log.h"
#include "tests/support/unit.h"

struct field {
    const char *name, *value;
};

static void begin(struct codec_log *l) {
    codec_log_init(l, NULL);
    codec_log_start(l, h1_client_new);
}

static void make_request(struct headers *h, struct arena *a, const char *method,
                         const struct field *f, size_t n) {
    headers_init(h, a);
    headers_add_id(h, HDR_method, sv_cstr(method));
    headers_add_id(h, HDR_path, SV("/p"));
    headers_add_id(h, HDR_authority, SV("h:1"));
    headers_add_id(h, HDR_scheme, SV("https"));
    for (size_t i = 0; i < n && f[i].name; i++) {
        headers_add_copy(h, sv_cstr(f[i].name), sv_cstr(f[i].value));
    }
}

static struct codec_stream *send_request(struct codec_log *l, const char *method,
                                         const struct field *f, size_t n, bool end) {
    l->stream = l->codec->vt->open(l->codec, &codec_log_stream_ops, l);
    assert_non_null(l->stream);
    struct headers h;
    make_request(&h, &l->arena, method, f, n);
    l->codec->vt->send_headers(l->stream, &h, end);
    return l->stream;
}

static void check_out(struct codec_log *l, const char *want) {
    char *out = buf_dup_str(conn_out(&l->conn));
    assert_string_equal(out, want);
    xfree(out);
}

/* --- requests --- */

static const struct {
    const char *method;
    struct field fields[3];
    const char *body; /* NULL: end_stream with the headers */
    const char *want;
    bool is_unfit;
} requests[] = {
    {"GET", {{0}}, NULL, "GET /p HTTP/1.1\r\nhost: h:1\r\n\r\n", false},
    {"DELETE", {{0}}, NULL, "DELETE /p HTTP/1.1\r\nhost: h:1\r\n\r\n", false},
    {"OPTIONS",
     {{0}},
     NULL,
     "OPTIONS /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 0\r\n\r\n",
     false},
    {"POST", {{0}}, NULL, "POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 0\r\n\r\n", false},
    {"PUT",
     {{"x", "y"}},
     NULL,
     "PUT /p HTTP/1.1\r\nhost: h:1\r\nx: y\r\ncontent-length: 0\r\n\r\n",
     false},
    {"POST",
     {{0}},
     "abc",
     "POST /p HTTP/1.1\r\nhost: h:1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     false},
    {"GET",
     {{0}},
     "abc",
     "GET /p HTTP/1.1\r\nhost: h:1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     false},
    {"POST",
     {{"content-length", "3"}},
     "abc",
     "POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\n\r\nabc",
     false},
    {"POST",
     {{"content-length", "3"}},
     "abcd",
     "POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\n\r\nabc",
     true},
    {"POST",
     {{"content-length", "3"}},
     "ab",
     "POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 3\r\n\r\nab",
     true},
    {"POST",
     {{"transfer-encoding", "chunked"}, {"content-length", "1"}},
     "a",
     "POST /p HTTP/1.1\r\nhost: h:1\r\ncontent-length: 1\r\n\r\na",
     false},
    {"GET", {{"host", "evil"}}, NULL, "GET /p HTTP/1.1\r\nhost: h:1\r\n\r\n", false},
    {"GET",
     {{"x", "a\r\nhost: evil"}},
     NULL,
     "GET /p HTTP/1.1\r\nhost: h:1\r\nx: a  host: evil\r\n\r\n",
     false},
    {"CONNECT", {{0}}, NULL, "CONNECT h:1 HTTP/1.1\r\nhost: h:1\r\n\r\n", false},
};

static void test_requests(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        struct codec_log l;
        begin(&l);
        send_request(&l, requests[i].method, requests[i].fields, ARRAY_LEN(requests[i].fields),
                     !requests[i].body);
        if (requests[i].body) {
            struct buf body;
            buf_init(&body);
            buf_append_sv(&body, sv_cstr(requests[i].body));
            l.codec->vt->send_data(l.stream, &body, true);
            buf_fini(&body);
        }
        check_out(&l, requests[i].want);
        assert_row(l.codec->vt->wants_close(l.codec) == requests[i].is_unfit, i);
        codec_log_fini(&l);
    }
}

static void test_request_forms(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.opt.h1.send_fully_qualified_url = true;
    l.opt.h1.header_case = H1_CASE_PROPER;
    send_request(&l, "GET", (struct field[]){{"x-y", "z"}}, 1, true);
    check_out(&l, "GET https://h:1/p HTTP/1.1\r\nHost: h:1\r\nX-Y: z\r\n\r\n");
    codec_log_fini(&l);
    begin(&l);
    l.codec->vt->goaway(l.codec, true);
    assert_null(l.codec->vt->open(l.codec, &codec_log_stream_ops, &l));
    codec_log_fini(&l);
}

/* A path that came over HTTP/2 cannot break the request line. */
static void test_hostile_path(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.stream = l.codec->vt->open(l.codec, &codec_log_stream_ops, &l);
    struct headers h;
    headers_init(&h, &l.arena);
    headers_add_id(&h, HDR_method, SV("GET"));
    headers_add_id(&h, HDR_path, SV("/a b\r\nx: y\x7f"));
    headers_add_id(&h, HDR_authority, SV("h"));
    l.codec->vt->send_headers(l.stream, &h, true);
    check_out(&l, "GET /a_b__x:_y_ HTTP/1.1\r\nhost: h\r\n\r\n");
    codec_log_fini(&l);
}

static void test_trailers_sent(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.opt.h1.enable_trailers = true;
    send_request(&l, "POST", NULL, 0, false);
    struct headers t;
    headers_init(&t, &l.arena);
    headers_add_copy(&t, SV("x-t"), SV("v"));
    headers_add_copy(&t, SV("content-length"), SV("5"));
    l.codec->vt->send_trailers(l.stream, &t);
    check_out(
        &l,
        "POST /p HTTP/1.1\r\nhost: h:1\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-t: v\r\n\r\n");
    codec_log_fini(&l);
}

/* --- responses --- */

#define OK_HEAD "{:status=200}"
#define CL "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
#define CLH "{:status=200,content-length=5}"
#define TE "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
#define TEH "{:status=200,transfer-encoding=chunked}"
#define BAD "R10 http1.codec_error;E http1.codec_error;"

static const struct {
    const char *method;
    sv input;
    const char *want;   /* without close */
    const char *at_end; /* added when the peer closes; NULL: connection not closed in this row */
    bool is_clean;      /* may be used again */
} responses[] = {
    {"GET", SV_INIT(CL "hello"), CLH "D\"hello\".", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n"), "{:status=200,content-length=0}.",
     NULL, true},
    {"GET", SV_INIT("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n"),
     "{:status=200,content-length=0}.", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 404 Not Found \xc3\xa9\r\nContent-Length: 0\r\n\r\n"),
     "{:status=404,content-length=0}.", NULL, true},
    {"GET", SV_INIT(TE "5\r\nhello\r\n0\r\n\r\n"), TEH "D\"hello\".", NULL, true},
    {"GET", SV_INIT(TE "5\r\nhello\r\n0\r\nX: y\r\n\r\n"), TEH "D\"hello\".", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\n\r\nhello"), OK_HEAD "D\"hello\"", ".", false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\n\r\n"), OK_HEAD, ".", false},
    {"HEAD", SV_INIT(CL), CLH ".", NULL, true},
    {"HEAD", SV_INIT(TE), TEH ".", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 204 No Content\r\n\r\n"), "{:status=204}.", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
     "{:status=304,content-length=5}.", NULL, true},
    {"GET",
     SV_INIT("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" CL "hello"),
     "I{:status=100}I{:status=103,link=x}" CLH "D\"hello\".", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"),
     "{:status=200,connection=close,content-length=1}D\"x\".", NULL, false},
    {"GET", SV_INIT("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx"),
     "{:status=200,content-length=1}D\"x\".", NULL, false},
    {"GET", SV_INIT("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx"),
     "{:status=200,connection=keep-alive,content-length=1}D\"x\".", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length: 0\r\n\r\n"),
     "{:status=200,x=a   b  \tc,content-length=0}.", NULL, true},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nHost: x\r\nContent-Length: 0\r\n\r\n"),
     "{:status=200,host=x,content-length=0}.", NULL, true},
    /* bytes behind the response: it counts, the connection does not */
    {"GET", SV_INIT(CL "helloX"), CLH "D\"hello\".", NULL, false},
    {"GET", SV_INIT(CL "helloHTTP/1.1 200 OK\r\n\r\n"), CLH "D\"hello\".", NULL, false},
    {"GET", SV_INIT(TE "0\r\n\r\nX"), TEH ".", NULL, false},
    {"HEAD", SV_INIT(CL "hello"), CLH ".", NULL, false},
    {"GET", SV_INIT("HTTP/1.1 204 No\r\n\r\nhello"), "{:status=204}.", NULL, false},
    /* cut off: the peer's fault once it said something */
    {"GET", SV_INIT(""), "", "R7;", false},
    {"GET", SV_INIT("HTTP/1.1 200"), "", "R10;", false},
    {"GET", SV_INIT(CL "hel"), CLH "D\"hel\"", "R10;", false},
    {"GET", SV_INIT(TE "5\r\nhello\r\n"), TEH "D\"hello\"", "R10;", false},
    {"GET", SV_INIT(TE "5\r\nhello\r\n0\r\n"), TEH "D\"hello\"", "R10;", false},
    {"GET", SV_INIT("HTTP/1.1 100 Continue\r\n\r\n"), "I{:status=100}", "R7;", false},
    /* broken */
    {"GET", SV_INIT("hello\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/2.0 200 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 20 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 2000 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 099 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 2x0 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1  200 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT(" HTTP/1.1 200 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("\r\nHTTP/1.1 200 OK\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\nX: y\n\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nX : y\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nX\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\n X: y\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nX: a\rb\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n"),
     "R10 http1.invalid_characters;E http1.invalid_characters;", NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), BAD,
     NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"), BAD, NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "R10 http1.content_length_and_chunked_not_allowed;E "
     "http1.content_length_and_chunked_not_allowed;",
     NULL, false},
    {"GET", SV_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
     "R10 http1.invalid_transfer_encoding;E http1.invalid_transfer_encoding;", NULL, false},
    {"GET", SV_INIT("HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
     "R10 http1.transfer_encoding_not_allowed;E http1.transfer_encoding_not_allowed;", NULL, false},
    {"GET", SV_INIT("HTTP/1.1 204 OK\r\nContent-Length: 5\r\n\r\n"),
     "R10 http1.content_length_not_allowed;E http1.content_length_not_allowed;", NULL, false},
    {"GET", SV_INIT("HTTP/1.1 101 Switching Protocols\r\n\r\n"), BAD, NULL, false},
    {"GET", SV_INIT(TE "5\nhello"), TEH BAD, NULL, false},
    {"GET", SV_INIT(TE "5\rXhello"), TEH BAD, NULL, false},
    {"GET", SV_INIT(TE "-1\r\n"), TEH BAD, NULL, false},
};

static char *run(size_t row, size_t split, bool *clean) {
    struct codec_log l;
    begin(&l);
    send_request(&l, responses[row].method, NULL, 0, true);
    sv in = responses[row].input;
    if (split == SIZE_MAX) {
        for (size_t i = 0; i < in.n; i++) {
            codec_log_feed(&l, in.p + i, 1);
        }
    } else {
        codec_log_feed(&l, in.p, split);
        codec_log_feed(&l, in.p + split, in.n - split);
    }
    if (responses[row].at_end) {
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
    }
    *clean = l.codec->vt->is_idle_clean(l.codec) && !l.conn.read_disable_ && buf_empty(&l.conn.in_);
    assert_row(l.ends == (sv_find(buf_front(&l.text), '.') != SIZE_MAX || l.resets ? 1u : l.ends),
               row);
    assert_row(l.codec->streams_active == 0 || !responses[row].at_end, row);
    /* What comes behind a complete response is an error of the connection, not of the response. */
    l.error = l.resets ? l.error : 0;
    char *text = codec_log_text(&l);
    codec_log_fini(&l);
    return text;
}

static void test_responses(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(responses); i++) {
        char want[300];
        snprintf(want, sizeof(want), "%s%s", responses[i].want,
                 responses[i].at_end ? responses[i].at_end : "");
        for (size_t at = 0; at <= responses[i].input.n; at++) {
            bool clean;
            char *text = run(i, at < responses[i].input.n ? at : SIZE_MAX, &clean);
            if (strcmp(text, want) != 0 || clean != responses[i].is_clean) {
                print_error("row %zu split %zu: got %s clean %d\nwant %s\n", i, at, text, clean,
                            want);
                fail();
            }
            xfree(text);
        }
    }
}

#define FEED(l, lit) codec_log_feed((l), (lit), sizeof(lit) - 1)

static void test_reuse(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    for (unsigned i = 1; i <= 3; i++) {
        assert_true(l.codec->vt->is_idle_clean(l.codec));
        send_request(&l, "GET", NULL, 0, true);
        assert_false(l.codec->vt->is_idle_clean(l.codec));
        assert_null(l.codec->vt->open(l.codec, &codec_log_stream_ops, &l));
        FEED(&l, CL "hello");
        assert_int_equal(l.ends, i);
        assert_int_equal(l.codec->streams_active, 0);
    }
    codec_log_fini(&l);
}

static void test_unasked_bytes(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "HTTP/1.1 408 Request Timeout\r\n\r\n");
    assert_true(l.error < 0);
    assert_false(l.codec->vt->is_idle_clean(l.codec));
    codec_log_fini(&l);
    begin(&l); /* opened, but nothing sent yet */
    l.stream = l.codec->vt->open(l.codec, &codec_log_stream_ops, &l);
    FEED(&l, CL "hello");
    assert_true(l.error < 0);
    assert_int_equal(l.resets, 1);
    codec_log_fini(&l);
}

static void test_interim_flood(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "GET", NULL, 0, true);
    for (unsigned i = 0; i < H1_INTERIM_MAX; i++) {
        FEED(&l, "HTTP/1.1 102 Processing\r\n\r\n");
    }
    assert_int_equal(l.resets, 0);
    FEED(&l, "HTTP/1.1 102 Processing\r\n\r\n");
    assert_int_equal(l.resets, 1);
    assert_int_equal(l.reason, RESET_PROTOCOL_ERROR);
    codec_log_fini(&l);
}

static void test_response_limits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "GET", NULL, 0, true);
    FEED(&l, "HTTP/1.1 200 OK\r\nX: ");
    char big[1000];
    memset(big, 'a', sizeof(big));
    for (unsigned i = 0; i < 62; i++) {
        codec_log_feed(&l, big, sizeof(big));
    }
    assert_int_equal(l.resets, 1);
    assert_string_equal(l.stream->error_details, "http1.headers_too_large");
    codec_log_fini(&l);
    begin(&l);
    send_request(&l, "GET", NULL, 0, true);
    FEED(&l, "HTTP/1.1 200 OK\r\n");
    for (unsigned i = 0; i < 102; i++) {
        FEED(&l, "a: b\r\n");
    }
    assert_string_equal(l.stream->error_details, "http1.too_many_headers");
    codec_log_fini(&l);
}

/* The response is complete before the request: nothing is told twice, and the connection is not
 * used again. */
static void test_early_response(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "POST", NULL, 0, false);
    FEED(&l, CL "hello");
    assert_int_equal(l.ends, 0);
    assert_false(l.codec->vt->is_idle_clean(l.codec));
    l.codec->vt->reset(l.stream, RESET_LOCAL);
    assert_int_equal(l.ends, 1);
    assert_true(l.codec->vt->wants_close(l.codec));
    assert_int_equal(l.resets, 0);
    codec_log_fini(&l);
    begin(&l);
    send_request(&l, "POST", NULL, 0, false);
    FEED(&l, CL "hello");
    struct buf body;
    buf_init(&body);
    buf_lit(&body, "x");
    l.codec->vt->send_data(l.stream, &body, true);
    buf_fini(&body);
    assert_int_equal(l.ends, 1);
    assert_true(l.codec->vt->is_idle_clean(l.codec));
    codec_log_fini(&l);
}

static void test_reset(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "GET", NULL, 0, true);
    FEED(&l, CL "hel");
    l.codec->vt->reset(l.stream, RESET_LOCAL);
    assert_int_equal(l.ends, 1);
    assert_int_equal(l.resets, 0);
    assert_true(l.codec->vt->wants_close(l.codec));
    FEED(&l, "lo");
    l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
    assert_int_equal(l.ends, 1);
    codec_log_fini(&l);
}

static void test_free_inside_callback(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.free_on_headers = true;
    send_request(&l, "GET", NULL, 0, true);
    FEED(&l, CL "hello");
    assert_null(l.codec);
    codec_log_fini(&l);
}

/* --- tunnels --- */

static const struct field upgrade[] = {{"connection", "Upgrade"}, {"upgrade", "w"}};

static void send_text(struct codec_log *l, const char *text) {
    struct buf b;
    buf_init(&b);
    buf_append_sv(&b, sv_cstr(text));
    l->codec->vt->send_data(l->stream, &b, false);
    buf_fini(&b);
}

static void test_upgrade_accepted(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "GET", upgrade, 2, false);
    const char *head = "GET /p HTTP/1.1\r\nhost: h:1\r\nconnection: Upgrade\r\nupgrade: w\r\n\r\n";
    send_text(&l, "early"); /* kept: it must not look like a request */
    check_out(&l, head);
    assert_int_equal(l.above, 1);
    FEED(&l,
         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: w\r\nConnection: upgrade\r\n\r\nraw\x01");
    assert_int_equal(l.below, 1);
    send_text(&l, "late");
    char want[200];
    snprintf(want, sizeof(want), "%searlylate", head);
    check_out(&l, want);
    l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
    assert_true(l.codec->vt->wants_close(l.codec));
    char *text = codec_log_text(&l);
    assert_string_equal(text, "{:status=101,upgrade=w,connection=upgrade}D\"raw\x01\".");
    xfree(text);
    codec_log_fini(&l);
}

static void test_upgrade_refused(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "GET", upgrade, 2, false);
    send_text(&l, "GET /smuggled HTTP/1.1\r\n\r\n");
    FEED(&l, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_null(strstr(out, "smuggled"));
    xfree(out);
    assert_int_equal(l.ends, 1);
    assert_true(l.codec->vt->wants_close(l.codec));
    codec_log_fini(&l);
}

static void test_connect(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "CONNECT", NULL, 0, false);
    FEED(&l, "HTTP/1.1 200 OK\r\n\r\nraw");
    send_text(&l, "x");
    check_out(&l, "CONNECT h:1 HTTP/1.1\r\nhost: h:1\r\n\r\nx");
    char *text = codec_log_text(&l);
    assert_string_equal(text, OK_HEAD "D\"raw\"");
    xfree(text);
    codec_log_fini(&l);
}

/* Extended CONNECT of an HTTP/2 client towards an HTTP/1 server: the upgrade it stands for. */
static void test_extended_connect(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    send_request(&l, "CONNECT", NULL, 0, false);
    codec_log_fini(&l);
    begin(&l);
    l.stream = l.codec->vt->open(l.codec, &codec_log_stream_ops, &l);
    struct headers h;
    make_request(&h, &l.arena, "CONNECT", NULL, 0);
    headers_add_id(&h, HDR_protocol, SV("websocket"));
    l.codec->vt->send_headers(l.stream, &h, false);
    check_out(&l,
              "GET /p HTTP/1.1\r\nhost: h:1\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n");
    FEED(&l, "HTTP/1.1 101 Switching Protocols\r\n\r\nraw");
    char *text = codec_log_text(&l);
    assert_string_equal(text, "{:status=101}D\"raw\"");
    xfree(text);
    codec_log_fini(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_request_forms),
        cmocka_unit_test(test_hostile_path),
        cmocka_unit_test(test_trailers_sent),
        cmocka_unit_test(test_responses),
        cmocka_unit_test(test_reuse),
        cmocka_unit_test(test_unasked_bytes),
        cmocka_unit_test(test_interim_flood),
        cmocka_unit_test(test_response_limits),
        cmocka_unit_test(test_early_response),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_free_inside_callback),
        cmocka_unit_test(test_upgrade_accepted),
        cmocka_unit_test(test_upgrade_refused),
        cmocka_unit_test(test_connect),
        cmocka_unit_test(test_extended_connect),
    };
    return cmocka_run_group_tests_name("h1_client", tests, NULL, NULL);
}
