/* HTTP/1 server codec: parsing, options, limits, bodies, pipelining, responses, faults in the
 * middle, tunnels, flow control. The table of raw requests is test_h1_table.c's. */
#include "proxy/base/mem.h"
#include "proxy/http/h1.h"
#include "tests/support/codec_log.h"
#include "tests/support/unit.h"

static char *run_with(const struct codec_options *opt, sv input) {
    struct codec_log l;
    codec_log_init(&l, NULL);
    if (opt) {
        l.opt = *opt;
    }
    l.auto_reply = true;
    codec_log_start(&l, h1_server_new);
    codec_log_feed(&l, input.p, input.n);
    char *text = codec_log_text(&l);
    codec_log_fini(&l);
    return text;
}

/* --- what is parsed --- */

static const struct {
    sv input;
    const char *want;
} parsed[] = {
    {SV_INIT("GET /a?b HTTP/1.1\r\nHost: h:80\r\nX-A:  v w \t\r\n\r\n"),
     "{:method=GET,:path=/a?b,:authority=h:80,x-a=v w}."},
    {SV_INIT("GET http://u@b:81/x HTTP/1.1\r\nHost: a\r\n\r\n"),
     "{:method=GET,:path=/x,:authority=b:81,:scheme=http}."},
    {SV_INIT("GET HTTPS://b HTTP/1.1\r\nHost: a\r\n\r\n"),
     "{:method=GET,:path=/,:authority=b,:scheme=https}."},
    {SV_INIT("GET http://b?q HTTP/1.1\r\n\r\n"),
     "{:method=GET,:path=?q,:authority=b,:scheme=http}."},
    {SV_INIT("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"), "{:method=OPTIONS,:path=*,:authority=a}."},
    {SV_INIT("CONNECT a:80 HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n"),
     "{:method=CONNECT,:authority=a:80}"},
    {SV_INIT("GET / HTTP/1.1\r\nHost:\r\n\r\n"), "{:method=GET,:path=/,:authority=}."},
    {SV_INIT("GET / HTTP/1.1\r\n\r\n"), "{:method=GET,:path=/}."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"),
     "{:method=POST,:path=/,:authority=a,content-length=5}D\"hello\"."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
             "Chunked\r\n\r\n3\r\nabc\r\n0002;x=\"y z\"\r\nde\r\n0\r\n\r\n"),
     "{:method=POST,:path=/,:authority=a,transfer-encoding=Chunked}D\"abcde\"."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "{:method=POST,:path=/,:authority=a,transfer-encoding=chunked}."},
    {SV_INIT("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: "
             "v\r\n\r\n"),
     /* trailers are off by default */
     "{:method=POST,:path=/,:authority=a,transfer-encoding=chunked}D\"x\"."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, close, x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: "
             "3\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a,connection=close,x-c=3}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip, trailers;q=1\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a,connection=te,te=trailers}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n"), "{:method=GET,:path=/}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, X\r\nUpgrade: "
             "h2c\r\nHTTP2-Settings: A\r\nX: y\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a}."},
    {SV_INIT("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n"),
     "{:method=GET,:path=/,:authority=a,cookie=a=b,cookie=c=d}."},
};

static void test_parsed(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(parsed); i++) {
        char *text = run_with(NULL, parsed[i].input);
        assert_string_equal(text, parsed[i].want);
        xfree(text);
    }
}

/* --- options --- */

#define CHECK_WITH(opt, input, want)              \
    do {                                          \
        char *text_ = run_with((opt), SV(input)); \
        assert_string_equal(text_, (want));       \
        xfree(text_);                             \
    } while (0)

static void test_http_10(void **state) {
    (void)state;
    struct codec_options o;
    codec_options_defaults(&o);
    o.h1.accept_http_10 = true;
    CHECK_WITH(&o, "GET / HTTP/1.0\r\n\r\n", "{:method=GET,:path=/}.");
    o.h1.default_host_for_http_10 = SV("d");
    CHECK_WITH(&o, "GET / HTTP/1.0\r\n\r\n", "{:method=GET,:path=/,:authority=d}.");
    CHECK_WITH(&o, "GET / HTTP/1.0\r\nHost: a\r\n\r\n", "{:method=GET,:path=/,:authority=a}.");
    CHECK_WITH(&o, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
               "!400 http1.codec_error;E http1.codec_error;");
    CHECK_WITH(&o, "GET / HTTP/0.9\r\n\r\n", "!426 low_version;E low_version;");
}

static void test_other_options(void **state) {
    (void)state;
    struct codec_options o;
    codec_options_defaults(&o);
    o.h1.allow_chunked_length = true;
    CHECK_WITH(&o,
               "POST / HTTP/1.1\r\nContent-Length: 9\r\nTransfer-Encoding: "
               "chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
               "{:method=POST,:path=/,transfer-encoding=chunked}D\"x\".");
    o.h1.enable_trailers = true;
    CHECK_WITH(&o,
               "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-T: "
               "v\r\nContent-Length: 3\r\n\r\n",
               "{:method=POST,:path=/,transfer-encoding=chunked}D\"x\"T{x-t=v}.");
    CHECK_WITH(&o, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: evil\r\n\r\n",
               "{:method=POST,:path=/,transfer-encoding=chunked}.");
    CHECK_WITH(&o, "FOO / HTTP/1.1\r\n\r\n", "!400 http1.codec_error;E http1.codec_error;");
    o.h1.allow_custom_methods = true;
    CHECK_WITH(&o, "FOO / HTTP/1.1\r\n\r\n", "{:method=FOO,:path=/}.");
    CHECK_WITH(&o, "F(O / HTTP/1.1\r\n\r\n", "!400 http1.codec_error;E http1.codec_error;");
    o.h1.allow_absolute_url = false;
    CHECK_WITH(&o, "GET http://a/ HTTP/1.1\r\n\r\n", "!400 http1.invalid_url;E http1.invalid_url;");
    CHECK_WITH(&o, "GET / HTTP/1.1\r\nX_A: b\r\n\r\n", "{:method=GET,:path=/,x_a=b}.");
    o.underscores = UNDERSCORES_DROP;
    CHECK_WITH(&o, "GET / HTTP/1.1\r\nX_A: b\r\nX: y\r\n\r\n", "{:method=GET,:path=/,x=y}.");
    o.underscores = UNDERSCORES_REJECT;
    CHECK_WITH(&o, "GET / HTTP/1.1\r\nX_A: b\r\n\r\n",
               "!400 http1.unexpected_underscore;E http1.unexpected_underscore;");
}

static void test_ignored_upgrades(void **state) {
    (void)state;
    static const struct upgrade_match matches[] = {
        {UPGRADE_EXACT, false, SV_INIT("foo"), NULL},
        {UPGRADE_PREFIX, true, SV_INIT("TLS/"), NULL},
        {UPGRADE_SUFFIX, false, SV_INIT("zz"), NULL},
        {UPGRADE_CONTAINS, true, SV_INIT("mid"), NULL},
    };
    static const struct {
        const char *value;
        bool ignored;
    } cases[] = {{"foo", true}, {"Foo", false}, {"tls/1.2", true}, {"xTLS/", false},
                 {"azz", true}, {"zza", false}, {"aMIDb", true},   {"websocket", false}};
    struct codec_options o;
    codec_options_defaults(&o);
    o.h1.ignored_upgrades = matches;
    o.h1.ignored_upgrades_n = ARRAY_LEN(matches);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char input[128];
        int n = snprintf(input, sizeof(input),
                         "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n",
                         cases[i].value);
        char *text = run_with(&o, sv_from(input, (size_t)n));
        assert_row((strstr(text, "upgrade=") == NULL) == cases[i].ignored, i);
        xfree(text);
    }
}

static void test_preserve_case(void **state) {
    (void)state;
    struct codec_log l;
    codec_log_init(&l, NULL);
    l.opt.h1.header_case = H1_CASE_PRESERVE;
    codec_log_start(&l, h1_server_new);
    sv input = SV("GET / HTTP/1.1\r\nHost: a\r\nX-CuStOm: v\r\nACCEPT: x\r\n\r\n");
    codec_log_feed(&l, input.p, input.n);
    struct headers h;
    headers_init(&h, &l.arena);
    headers_set_status(&h, 200);
    HEADERS_FOREACH (it, l.headers) {
        if (it->name.p[0] != ':') {
            assert_true(it->flags & HEADER_CASE_KEPT);
            headers_add(&h, it->id, it->name, it->value);
            h.v[h.n - 1].flags = it->flags;
        }
    }
    headers_add_id(&h, HDR_server, SV("s"));
    l.stream->codec->vt->send_headers(l.stream, &h, true);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(
        out,
        "HTTP/1.1 200 OK\r\nX-CuStOm: v\r\nACCEPT: x\r\nserver: s\r\ncontent-length: 0\r\n\r\n");
    xfree(out);
    codec_log_fini(&l);
}

/* --- limits --- */

static void feed_repeat(struct codec_log *l, char c, size_t n) {
    char *p = xalloc(n);
    memset(p, c, n);
    codec_log_feed(l, p, n);
    xfree(p);
}
#define FEED(l, lit) codec_log_feed((l), (lit), sizeof(lit) - 1)

static void check_text(struct codec_log *l, const char *want) {
    char *text = codec_log_text(l);
    assert_string_equal(text, want);
    xfree(text);
    codec_log_fini(l);
}

static void begin(struct codec_log *l) {
    codec_log_init(l, NULL);
    l->auto_reply = true;
    codec_log_start(l, h1_server_new);
}

static void test_head_too_large(void **state) {
    (void)state;
    static const char *const starts[] = {"GET /",
                                         "GET / HTTP/1.1\r\nX: ", "GET / HTTP/1.1\r\nHost: a\r\nX"};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        struct codec_log l;
        begin(&l);
        codec_log_feed(&l, starts[i], strlen(starts[i]));
        feed_repeat(&l, 'a', 59000);
        assert_row(!l.bad, i);
        feed_repeat(&l, 'a', 3000);
        check_text(&l, "!431 http1.headers_too_large;E http1.headers_too_large;");
    }
}

static void test_head_as_large_as_allowed(void **state) {
    (void)state;
    for (int over = 0; over < 2; over++) {
        struct codec_log l;
        begin(&l);
        sv head = SV("GET / HTTP/1.1\r\nX: ");
        codec_log_feed(&l, head.p, head.n);
        feed_repeat(&l, 'a', 60 * 1024 - head.n - 4 + (size_t)over);
        FEED(&l, "\r\n\r\n");
        assert_int_equal(l.bad, over);
        codec_log_fini(&l);
    }
}

static void test_header_count(void **state) {
    (void)state;
    static const struct {
        unsigned fields;
        bool ok;
    } cases[] = {{99, true}, {100, true}, {101, false}, {150, false}, {5000, false}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct codec_log l;
        begin(&l);
        FEED(&l, "GET / HTTP/1.1\r\n");
        for (unsigned k = 0; k < cases[i].fields; k++) {
            FEED(&l, "a: b\r\n");
        }
        FEED(&l, "\r\n");
        assert_row(l.begins == 1 && (l.bad == 0) == cases[i].ok, i);
        if (!cases[i].ok) {
            check_text(&l, "!431 http1.too_many_headers;E http1.too_many_headers;");
        } else {
            codec_log_fini(&l);
        }
    }
}

#define CHUNKED "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
#define CHUNKED_HEAD "{:method=POST,:path=/,transfer-encoding=chunked}"

static void test_chunk_limits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, CHUNKED "5;");
    feed_repeat(&l, 'x', H1_CHUNK_EXT_MAX - 1);
    FEED(&l, "\r\nhello\r\n0\r\n\r\n");
    check_text(&l, CHUNKED_HEAD "D\"hello\".");
    begin(&l);
    FEED(&l, CHUNKED "5;");
    feed_repeat(&l, 'x', H1_CHUNK_EXT_MAX + 1);
    check_text(&l, CHUNKED_HEAD "!400 http1.codec_error;E http1.codec_error;");
    begin(&l);
    FEED(&l, CHUNKED);
    feed_repeat(&l, '0', H1_CHUNK_ZEROS_MAX + 1);
    check_text(&l, CHUNKED_HEAD "!400 http1.codec_error;E http1.codec_error;");
    begin(&l);
    FEED(&l, CHUNKED "10000000000000000\r\n");
    check_text(&l, CHUNKED_HEAD "!400 http1.codec_error;E http1.codec_error;");
}

static void test_trailer_limits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, CHUNKED "0\r\nX: ");
    feed_repeat(&l, 'x', 62000);
    check_text(&l, CHUNKED_HEAD "!431 http1.headers_too_large;E http1.headers_too_large;");
    begin(&l);
    FEED(&l, CHUNKED "0\r\n");
    for (unsigned i = 0; i < 101; i++) {
        FEED(&l, "a: b\r\n");
    }
    FEED(&l, "\r\n");
    check_text(&l, CHUNKED_HEAD "!431 http1.too_many_headers;E http1.too_many_headers;");
}

/* --- bodies in pieces, pipelining --- */

static void test_large_bodies(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 200000\r\n\r\n");
    for (unsigned i = 0; i < 4; i++) {
        feed_repeat(&l, 'a', 50000);
    }
    FEED(&l, "GET /next HTTP/1.1\r\n\r\n");
    check_text(
        &l,
        "{:method=POST,:path=/,content-length=200000}D#200000:d60a9085.{:method=GET,:path=/next}.");
}

static void test_pipelining_waits(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 1);
    assert_int_equal(l.conn.read_disable_, 1);
    assert_int_equal(buf_len(&l.conn.in_), 2 * 19);
    for (unsigned i = 2; i <= 3; i++) {
        codec_log_reply(&l, l.stream, 200);
        assert_int_equal(l.conn.read_disable_, 0);
        codec_log_offer(&l);
        assert_int_equal(l.begins, i);
        assert_int_equal(l.conn.read_disable_, i == 2);
    }
    codec_log_reply(&l, l.stream, 200);
    assert_false(l.codec->vt->wants_close(l.codec));
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 "
                             "OK\r\ncontent-length: 2\r\n\r\nok"
                             "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    xfree(out);
    check_text(&l, "{:method=GET,:path=/1}.{:method=GET,:path=/2}.{:method=GET,:path=/3}.");
}

static void test_no_requests_after_close(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "GET /1 HTTP/1.1\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
    assert_true(l.codec->vt->wants_close(l.codec));
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_non_null(strstr(out, "connection: close\r\n"));
    xfree(out);
    check_text(&l, "{:method=GET,:path=/1,connection=close}.");
}

/* A client that sends requests and never reads: its requests wait. */
static void test_slow_reader_is_held(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.conn.buffer_limit_bytes = 100;
    FEED(&l, "GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\n\r\nGET /4 "
             "HTTP/1.1\r\n\r\nGET /5 HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 3);
    assert_int_equal(l.conn.read_disable_, 1);
    fake_conn_drain(&l.conn, buf_len(&l.conn.out_));
    l.codec->vt->on_conn_below_low(l.codec);
    assert_int_equal(l.conn.read_disable_, 0);
    codec_log_offer(&l);
    assert_int_equal(l.begins, 5);
    codec_log_fini(&l);
}

static void test_read_disable(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.disable_on_headers = true;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello");
    assert_int_equal(buf_len(&l.conn.in_), 5);
    assert_int_equal(l.conn.read_disable_, 1);
    l.codec->vt->read_disable(l.stream, true);
    l.codec->vt->read_disable(l.stream, false);
    assert_int_equal(l.conn.read_disable_, 1);
    l.codec->vt->read_disable(l.stream, false);
    codec_log_offer(&l);
    check_text(&l, "{:method=POST,:path=/,content-length=5}D\"hello\".");
}

/* A stream that ends with reads disabled gives the connection back. */
static void test_read_disable_ends_with_stream(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.disable_on_headers = true;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(l.conn.read_disable_, 0);
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 2);
    codec_log_fini(&l);
}

/* --- responses --- */

struct field {
    const char *name, *value;
};
struct reply {
    const char *request;
    const char *status;
    struct field fields[4];
    const char *body; /* NULL: end_stream with the headers */
    const char *want;
    bool close;
    bool is_10;
};
static const struct reply replies[] = {
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{0}},
     NULL,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "404",
     {{"x", "y"}},
     "abc",
     "HTTP/1.1 404 Not Found\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{"content-length", "3"}},
     "abc",
     "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
     false,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{"content-length", "3"}},
     "abcdef",
     "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc",
     true,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{"content-length", "9"}},
     "abc",
     "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc",
     true,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{"transfer-encoding", "gzip"}, {"content-length", "0"}},
     NULL,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "204",
     {{"content-length", "5"}},
     "abc",
     "HTTP/1.1 204 No Content\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.1\r\n\r\n", "204", {{0}}, NULL, "HTTP/1.1 204 No Content\r\n\r\n", false, false},
    {"GET / HTTP/1.1\r\n\r\n",
     "304",
     {{"content-length", "5"}},
     NULL,
     "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n",
     false,
     false},
    {"HEAD / HTTP/1.1\r\n\r\n",
     "200",
     {{"content-length", "5"}},
     NULL,
     "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n",
     false,
     false},
    {"HEAD / HTTP/1.1\r\n\r\n",
     "200",
     {{0}},
     "hello",
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
     "200",
     {{"connection", "keep-alive"}},
     NULL,
     "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
     true,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{"connection", "close"}},
     NULL,
     "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
     true,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "598",
     {{0}},
     NULL,
     "HTTP/1.1 598 Unknown\r\ncontent-length: 0\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.1\r\n\r\n",
     "200",
     {{"x", "a\r\nb: c"}},
     NULL,
     "HTTP/1.1 200 OK\r\nx: a  b: c\r\ncontent-length: 0\r\n\r\n",
     false,
     false},
    {"GET / HTTP/1.0\r\n\r\n",
     "200",
     {{0}},
     "abc",
     "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc",
     true,
     true},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "200",
     {{"content-length", "3"}},
     "abc",
     "HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc",
     false,
     true},
    {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
     "200",
     {{0}},
     "abc",
     "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc",
     true,
     true},
    {"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
     "403",
     {{0}},
     NULL,
     "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
     true,
     false},
    {"CONNECT a:1 HTTP/1.1\r\n\r\n",
     "404",
     {{0}},
     NULL,
     "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
     true,
     false},
};

static void make_headers(struct headers *h, struct arena *a, const char *status,
                         const struct field *f, size_t n) {
    headers_init(h, a);
    headers_add_id(h, HDR_status, sv_cstr(status));
    for (size_t i = 0; i < n && f[i].name; i++) {
        headers_add_copy(h, sv_cstr(f[i].name), sv_cstr(f[i].value));
    }
}

static void test_replies(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        const struct reply *r = &replies[i];
        struct codec_log l;
        begin(&l);
        l.auto_reply = false;
        l.opt.h1.accept_http_10 = r->is_10;
        codec_log_feed(&l, r->request, strlen(r->request));
        struct headers h;
        make_headers(&h, &l.arena, r->status, r->fields, ARRAY_LEN(r->fields));
        l.codec->vt->send_headers(l.stream, &h, !r->body);
        if (r->body) {
            struct buf body;
            buf_init(&body);
            buf_append_sv(&body, sv_cstr(r->body));
            l.codec->vt->send_data(l.stream, &body, true);
            assert_row(buf_empty(&body), i);
            buf_fini(&body);
        }
        char *out = buf_dup_str(conn_out(&l.conn));
        assert_string_equal(out, r->want);
        xfree(out);
        assert_row(l.codec->vt->wants_close(l.codec) == r->close, i);
        assert_row(l.codec->streams_active == 0, i);
        codec_log_fini(&l);
    }
}

static void test_interim_and_trailers(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    l.opt.h1.enable_trailers = true;
    FEED(&l, "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "100", NULL, 0);
    l.codec->vt->send_1xx(l.stream, &h);
    FEED(&l, "hi");
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    l.codec->vt->send_1xx(l.stream, &h); /* too late: ignored */
    struct headers t;
    headers_init(&t, &l.arena);
    headers_add_copy(&t, SV("x-t"), SV("v"));
    l.codec->vt->send_trailers(l.stream, &t);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: "
                             "chunked\r\n\r\n0\r\nx-t: v\r\n\r\n");
    xfree(out);
    assert_false(l.codec->vt->wants_close(l.codec));
    codec_log_fini(&l);
}

static void test_chunks_and_large_data(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    size_t head = buf_len(conn_out(&l.conn));
    struct buf body;
    buf_init(&body);
    l.codec->vt->send_data(l.stream, &body, false); /* nothing: no chunk */
    assert_int_equal(buf_len(conn_out(&l.conn)), head);
    for (unsigned i = 0; i < 100; i++) {
        buf_append(&body, "0123456789abcdef", 16);
    }
    l.codec->vt->send_data(l.stream, &body, false);
    l.codec->vt->send_data(l.stream, &body, true);
    sv out = buf_pullup(conn_out(&l.conn), buf_len(conn_out(&l.conn)));
    out = sv_skip(out, head);
    assert_true(sv_starts(out, SV("640\r\n0123")));
    assert_true(sv_ends(out, SV("cdef\r\n0\r\n\r\n")));
    assert_int_equal(out.n, 5 + 1600 + 2 + 5);
    buf_fini(&body);
    codec_log_fini(&l);
}

static void test_proper_case(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    l.opt.h1.header_case = H1_CASE_PROPER;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "200", (struct field[]){{"x-a-b1c", "d"}, {"etag", "e"}}, 2);
    l.codec->vt->send_headers(l.stream, &h, true);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(out,
                        "HTTP/1.1 200 OK\r\nX-A-B1c: d\r\nEtag: e\r\nContent-Length: 0\r\n\r\n");
    xfree(out);
    codec_log_fini(&l);
}

/* An answer before the request's end: the connection cannot be used again. */
static void test_early_response(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhe");
    struct headers h;
    make_headers(&h, &l.arena, "413", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, true);
    l.codec->vt->reset(l.stream, RESET_NONE);
    assert_true(l.codec->vt->wants_close(l.codec));
    FEED(&l, "llo");
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    assert_int_equal(l.begins, 1);
    char *out = buf_dup_str(conn_out(&l.conn));
    assert_string_equal(
        out, "HTTP/1.1 413 Payload Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    xfree(out);
    codec_log_fini(&l);
}

/* --- faults in the middle --- */

static void test_body_fault_after_response_start(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, CHUNKED "1\r\nx\r\n");
    struct headers h;
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    FEED(&l, "zz\r\n");
    check_text(&l, CHUNKED_HEAD "D\"x\"E http1.codec_error;");
}

static void test_connection_end(void **state) {
    (void)state;
    static const struct {
        const char *input, *want;
    } cases[] = {
        {"", ""},
        {"GET / HT", "R7;"},
        {"GET / HTTP/1.1\r\n\r\n", "{:method=GET,:path=/}.R7;"},
        {"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhel",
         "{:method=POST,:path=/,content-length=5}D\"hel\"R7;"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct codec_log l;
        begin(&l);
        l.auto_reply = false;
        codec_log_feed(&l, cases[i].input, strlen(cases[i].input));
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
        check_text(&l, cases[i].want);
    }
}

static void test_reset_and_free_inside_callbacks(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.reset_on_headers = true;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n");
    assert_true(l.codec->vt->wants_close(l.codec));
    check_text(&l, "{:method=POST,:path=/,content-length=5}");
    begin(&l);
    l.free_on_headers = true;
    FEED(&l, "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n\r\n");
    check_text(&l, "{:method=POST,:path=/,content-length=5}");
}

/* --- tunnels --- */

static void test_tunnels(void **state) {
    (void)state;
    static const struct {
        const char *request, *head;
    } cases[] = {
        {"CONNECT a:80 HTTP/1.1\r\n\r\n", "{:method=CONNECT,:authority=a:80}"},
        {"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: w\r\n\r\n",
         "{:method=GET,:path=/,connection=Upgrade,upgrade=w}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct codec_log l;
        begin(&l);
        l.raw_on_headers = true;
        codec_log_feed(&l, cases[i].request, strlen(cases[i].request));
        FEED(&l, "GET / raw\x01\n");
        struct buf data;
        buf_init(&data);
        buf_lit(&data, "back");
        l.codec->vt->send_data(l.stream, &data, false);
        buf_fini(&data);
        char *out = buf_dup_str(conn_out(&l.conn));
        assert_true(strstr(out, "\r\n\r\nback") && !strstr(out, "chunked") &&
                    !strstr(out, "content-length"));
        xfree(out);
        l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
        char want[200];
        snprintf(want, sizeof(want), "%sD\"GET / raw\x01\n\".", cases[i].head);
        check_text(&l, want);
    }
}

/* Before the answer the bytes of a tunnel wait; they are never parsed as a request. */
static void test_tunnel_bytes_wait(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "CONNECT a:80 HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
    assert_int_equal(l.conn.read_disable_, 1);
    struct headers h;
    make_headers(&h, &l.arena, "200", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    h1_stream_upgraded(l.stream);
    assert_int_equal(l.conn.read_disable_, 0);
    codec_log_offer(&l);
    check_text(&l, "{:method=CONNECT,:authority=a:80}D\"GET /smuggled HTTP/1.1\r\n\r\n\"");
    begin(&l);
    FEED(&l, "CONNECT a:80 HTTP/1.1\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"); /* answered 404 */
    check_text(&l, "{:method=CONNECT,:authority=a:80}");
}

/* An upgrade request may carry a body: it comes first. */
static void test_upgrade_with_body(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l,
         "POST / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: w\r\nContent-Length: 2\r\n\r\nhiraw");
    struct headers h;
    make_headers(&h, &l.arena, "101", NULL, 0);
    l.codec->vt->send_headers(l.stream, &h, false);
    h1_stream_upgraded(l.stream);
    codec_log_offer(&l);
    check_text(&l,
               "{:method=POST,:path=/,connection=upgrade,upgrade=w,content-length=2}D\"hiraw\"");
}

static void test_watermarks_reach_stream(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    l.auto_reply = false;
    FEED(&l, "GET / HTTP/1.1\r\n\r\n");
    l.codec->vt->on_conn_above_high(l.codec);
    l.codec->vt->on_conn_below_low(l.codec);
    assert_int_equal(l.above, 1);
    assert_int_equal(l.below, 1);
    codec_log_fini(&l);
}

static void test_small_when_idle(void **state) {
    (void)state;
    assert_true(sizeof(struct h1) <= 300);
}

static void test_dump(void **state) {
    (void)state;
    struct codec_log l;
    begin(&l);
    FEED(&l, "GET / HT");
    struct buf out;
    buf_init(&out);
    l.codec->vt->dump(l.codec, &out);
    assert_true(buf_len(&out) > 20);
    buf_fini(&out);
    codec_log_fini(&l);
}

static void test_detect(void **state) {
    (void)state;
    sv preface = SV("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest");
    for (size_t n = 0; n <= preface.n; n++) {
        assert_row(codec_detect(sv_sub(preface, 0, n)) == (n < 24 ? CODEC_AUTO : CODEC_HTTP2), n);
    }
    assert_int_equal(codec_detect(SV("GET")), CODEC_HTTP1);
    assert_int_equal(codec_detect(SV("PRI * HTTP/1.1")), CODEC_HTTP1);
    assert_int_equal(codec_detect(SV("P")), CODEC_AUTO);
    assert_int_equal(codec_detect(SV("PUT")), CODEC_HTTP1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parsed),
        cmocka_unit_test(test_http_10),
        cmocka_unit_test(test_other_options),
        cmocka_unit_test(test_ignored_upgrades),
        cmocka_unit_test(test_preserve_case),
        cmocka_unit_test(test_head_too_large),
        cmocka_unit_test(test_head_as_large_as_allowed),
        cmocka_unit_test(test_header_count),
        cmocka_unit_test(test_chunk_limits),
        cmocka_unit_test(test_trailer_limits),
        cmocka_unit_test(test_large_bodies),
        cmocka_unit_test(test_pipelining_waits),
        cmocka_unit_test(test_no_requests_after_close),
        cmocka_unit_test(test_slow_reader_is_held),
        cmocka_unit_test(test_read_disable),
        cmocka_unit_test(test_read_disable_ends_with_stream),
        cmocka_unit_test(test_replies),
        cmocka_unit_test(test_interim_and_trailers),
        cmocka_unit_test(test_chunks_and_large_data),
        cmocka_unit_test(test_proper_case),
        cmocka_unit_test(test_early_response),
        cmocka_unit_test(test_body_fault_after_response_start),
        cmocka_unit_test(test_connection_end),
        cmocka_unit_test(test_reset_and_free_inside_callbacks),
        cmocka_unit_test(test_tunnels),
        cmocka_unit_test(test_tunnel_bytes_wait),
        cmocka_unit_test(test_upgrade_with_body),
        cmocka_unit_test(test_watermarks_reach_stream),
        cmocka_unit_test(test_small_when_idle),
        cmocka_unit_test(test_dump),
        cmocka_unit_test(test_detect),
    };
    return cmocka_run_group_tests_name("h1", tests, NULL, NULL);
}
