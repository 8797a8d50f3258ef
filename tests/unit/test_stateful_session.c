/* Stateful sessions: what a request asks for, what a response tells, and what is refused. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type stateful_session_http_filter;

#define SESSION "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
#define STATE(kind, type, fields)                                    \
    "session_state { name: 'x' typed_config { [type.googleapis.com/" \
    "envoy.extensions.http.stateful_session." kind ".v3." type "] { " fields " } } } "
#define COOKIE(fields) STATE("cookie", "CookieBasedSessionState", "cookie { " fields " }")
#define HEADER(name) STATE("header", "HeaderBasedSessionState", "name: '" name "'")
#define ENVELOPE(name) STATE("envelope", "EnvelopeSessionState", "header { name: '" name "' }")
#define BARE "MS4yLjMuNDo4MA=="                    /* 1.2.3.4:80 */
#define MESSAGE "CgoxLjIuMy40Ojgw"                 /* the same as a message */
#define EXPIRED "CgoxLjIuMy40OjgwEP///////////wE=" /* a second before 1970 */
#define UNTIL_2100 "CgoxLjIuMy40OjgwEP////8P"
#define IPV6 "Wzo6MV06ODA=" /* [::1]:80 */
#define PIPE "L3RtcC9z"     /* /tmp/s */
#define GONE "status_on_strict_destination_not_found: 410 "
#define NOBODY "bm9ib2R5" /* nobody */

static void begin(struct stream *s, const char *config, const char *path, const char *headers) {
    const void *c = stateful_session_http_filter.compile(&f.ctx, fake_msg(&f, SESSION, config));
    assert_non_null(c);
    fake_stream_start(s, &stateful_session_http_filter, c, "h", path, headers);
    assert_int_equal(fake_stream_decode(s, true), FILTER_HEADERS_CONTINUE);
}

/* The address that is asked for: "" none, "?" what is no address. */
static void test_asked(void **state) {
    (void)state;
    static const struct {
        const char *config, *path, *headers, *want;
    } rows[] = {
        {COOKIE("name: 's'"), "/", "cookie: s=" BARE, "1.2.3.4:80"},
        {COOKIE("name: 's'"), "/", "cookie: a=b; s=\"" MESSAGE "\"", "1.2.3.4:80"},
        {COOKIE("name: 's'"), "/", "cookie: s=" UNTIL_2100, "1.2.3.4:80"},
        {COOKIE("name: 's'"), "/", "cookie: s=" IPV6, "[::1]:80"},
        {COOKIE("name: 's'"), "/", "cookie: s=" PIPE, "/tmp/s"},
        {COOKIE("name: 's'"), "/", "cookie: s=" EXPIRED, ""},
        {COOKIE("name: 's'"), "/", "cookie: t=" BARE, ""},
        {COOKIE("name: 's'"), "/", "cookie: s=", ""},
        {COOKIE("name: 's'"), "/", "cookie: s=%%%%", ""},
        {COOKIE("name: 's'"), "/", "cookie: s=MS4yLjMuNDo4MA", ""},    /* no padding */
        {COOKIE("name: 's'"), "/", "cookie: s=CgA=", ""},              /* an empty address */
        {COOKIE("name: 's'"), "/", "cookie: s=EP8=", "?"},             /* a varint cut off */
        {COOKIE("name: 's'"), "/", "cookie: s=Cn8xMjM0", "?"},         /* longer than it is */
        {COOKIE("name: 's'"), "/", "cookie: s=CgE=", "?"},             /* the same with nothing */
        {COOKIE("name: 's'"), "/", "cookie: s=AgA=", "?"},             /* field 0 */
        {COOKIE("name: 's'"), "/", "cookie: s=CwwxMjM=", "?"},         /* a group */
        {COOKIE("name: 's'"), "/", "cookie: s=Cv///////////wFh", "?"}, /* as long as can be */
        {COOKIE("name: 's'"), "/", "cookie: s=" NOBODY, "?"},
        /* 1.2.3.4:080: a message, by chance */
        {COOKIE("name: 's'"), "/", "cookie: s=MS4yLjMuNDowODA=", ""},
        {COOKIE("name: 's'"), "/", "cookie: s=MS4yLjMuNA==", "?"}, /* 1.2.3.4 */
        {COOKIE("name: 's' path: '/p'"), "/p", "cookie: s=" BARE, "1.2.3.4:80"},
        {COOKIE("name: 's' path: '/p'"), "/p/a", "cookie: s=" BARE, "1.2.3.4:80"},
        {COOKIE("name: 's' path: '/p'"), "/p?a", "cookie: s=" BARE, "1.2.3.4:80"},
        {COOKIE("name: 's' path: '/p'"), "/pa", "cookie: s=" BARE, ""},
        {COOKIE("name: 's' path: '/p'"), "/", "cookie: s=" BARE, ""},
        {COOKIE("name: 's' path: '/p/'"), "/p/a", "cookie: s=" BARE, "1.2.3.4:80"},
        {COOKIE("name: 's' path: '/p/'"), "/p", "cookie: s=" BARE, ""},
        {HEADER("X-S"), "/", "x-s: " BARE, "1.2.3.4:80"},
        {HEADER("x-s"), "/", "x-s: " MESSAGE, "?"},
        {HEADER("x-s"), "/", "x-s: a", ""},
        {HEADER("x-s"), "/", "x-t: " BARE, ""},
        {ENVELOPE("x-s"), "/", "x-s: " BARE ";UV:b3du", "1.2.3.4:80"},
        {ENVELOPE("x-s"), "/", "x-s: " BARE ";UV:", ""},
        {ENVELOPE("x-s"), "/", "x-s: ;UV:b3du", ""},
        {ENVELOPE("x-s"), "/", "x-s: " BARE ";UV:YQ0KYjogYw==", ""}, /* a line break in it */
        {ENVELOPE("x-s"), "/", "x-s: " BARE, ""},
        {"", "/", "cookie: s=" BARE, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        begin(&s, rows[i].config, rows[i].path, rows[i].headers);
        sv got = s.override_host;
        bool is_right = *rows[i].want == '?' ? got.n != 0 : sv_eq(got, sv_cstr(rows[i].want));
        if (!is_right) {
            fail_msg("row %zu (%s): %.*s", i, rows[i].headers, SV_ARG(got));
        }
        fake_stream_end(&s);
    }
}

/* What a response of 1.2.3.4:80 has in the header that tells of it. */
static void test_told(void **state) {
    (void)state;
    static const struct {
        const char *config, *request, *header, *response, *want; /* want "": nothing */
    } rows[] = {
        {COOKIE("name: 's'"), "a: b", "set-cookie", "", "s=\"" MESSAGE "\"; HttpOnly"},
        {COOKIE("name: 's' path: '/' attributes { name: 'SameSite' value: 'Lax' } attributes { "
                "name: 'Secure' }"),
         "a: b", "set-cookie", "", "s=\"" MESSAGE "\"; Path=/; SameSite=Lax; Secure; HttpOnly"},
        {COOKIE("name: 's' ttl { nanos: 5 }"), "a: b", "set-cookie", "",
         "s=\"" MESSAGE "\"; HttpOnly"},
        {COOKIE("name: 's'"), "cookie: s=" BARE, "set-cookie", "", ""},
        {COOKIE("name: 's'"), "cookie: s=" IPV6, "set-cookie", "", "s=\"" MESSAGE "\"; HttpOnly"},
        {COOKIE("name: 's' path: '/p'"), "a: b", "set-cookie", "", ""},
        {HEADER("x-s"), "a: b", "x-s", "x-s: old", BARE},
        {HEADER("x-s"), "x-s: " BARE, "x-s", "", ""},
        {ENVELOPE("x-s"), "a: b", "x-s", "", ""},
        {ENVELOPE("x-s"), "a: b", "x-s", "x-s: own", BARE ";UV:b3du"},
        {ENVELOPE("x-s"), "x-s: " BARE ";UV:b3du", "x-s", "x-s: own", BARE ";UV:b3du"},
        {ENVELOPE("x-s"), "a: b", "x-s", "x-s: own\nx-s: own", "own"},
        {"", "cookie: s=" IPV6, "set-cookie", "", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        begin(&s, rows[i].config, "/", rows[i].request);
        s.upstream_host = SV("1.2.3.4:80");
        fake_stream_respond(&s, 200, rows[i].response, true);
        sv got = headers_get_name(&s.response, sv_cstr(rows[i].header));
        if (!sv_eq(got, sv_cstr(rows[i].want))) {
            fail_msg("row %zu: %.*s", i, SV_ARG(got));
        }
        fake_stream_end(&s);
    }
}

/* Without a host nothing is told; a cookie for a while says until when. */
static void test_life(void **state) {
    (void)state;
    struct stream s;
    begin(&s, COOKIE("name: 's' ttl { seconds: 9 }"), "/", "a: b");
    fake_stream_respond(&s, 503, "", true);
    assert_false(headers_has(&s.response, HDR_set_cookie));
    s.upstream_host = SV("1.2.3.4:80");
    fake_stream_respond(&s, 200, "", true);
    sv got = headers_get(&s.response, HDR_set_cookie);
    assert_true(sv_starts(got, SV("s=\"CgoxLjIuMy40OjgwEA")));
    assert_true(sv_contains(got, SV("; Max-Age=9; HttpOnly")));
    fake_stream_end(&s);
}

static void test_route(void **state) {
    (void)state;
    static const char *const levels[] = {"disabled: true",
                                         "stateful_session { strict: true " HEADER("x-s") "}",
                                         "stateful_session { strict: true " GONE HEADER("x-s") "}",
                                         "stateful_session { " GONE HEADER("x-s") "}"};
    static const unsigned statuses[] = {0, 503, 410, 0};
    const void *c =
        stateful_session_http_filter.compile(&f.ctx, fake_msg(&f, SESSION, COOKIE("name: 's'")));
    for (unsigned i = 0; i < ARRAY_LEN(levels); i++) {
        struct stream s;
        fake_stream_start(&s, &stateful_session_http_filter, c, "h", "/",
                          "cookie: s=" BARE "\nx-s: " IPV6);
        s.route_configs[0] = stateful_session_http_filter.compile_route(
            &f.ctx, fake_msg(&f, SESSION "PerRoute", levels[i]), SESSION "PerRoute");
        assert_non_null(s.route_configs[0]);
        s.route_configs_n = 1;
        fake_stream_decode(&s, true);
        assert_int_equal(s.override_host.n != 0, i != 0);
        assert_int_equal(s.override_strict_status, statuses[i]);
        fake_stream_end(&s);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {COOKIE(""), "session_state.typed_config"},
        {COOKIE("name: 's' ttl { seconds: -1 }"), "ttl"},
        {STATE("cookie", "CookieBasedSessionState", ""), "cookie"},
        {HEADER(""), "session_state.typed_config"},
        {HEADER("a b"), "name: a header's name is required"},
        {ENVELOPE(""), "session_state.typed_config"},
        {ENVELOPE(":path"), "header.name: a header's name is required"},
        {STATE("envelope", "EnvelopeSessionState", ""), "header"},
        {HEADER("x-s") "strict: true status_on_strict_destination_not_found: 199",
         "status_on_strict_destination_not_found: value must be inside range"},
        {HEADER("x-s") "status_on_strict_destination_not_found: 600",
         "status_on_strict_destination_not_found: value must be inside range"},
        {HEADER("x-s") "status_on_strict_destination_not_found: 65936", /* 400, were it cut */
         "status_on_strict_destination_not_found: value must be inside range"},
        {"session_state { name: 'x' }", "session_state.typed_config"},
        {"session_state { name: 'x' typed_config { [type.googleapis.com/"
         "envoy.extensions.filters.http.cors.v3.Cors] { } } }",
         "Didn't find a registered implementation for 'x'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(
            stateful_session_http_filter.compile(&f.ctx, fake_msg(&f, SESSION, rows[i].text)));
        sv why = fake_errors(&f);
        if (!sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(why));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_asked, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_told, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_life, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_route, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_refused, start_with_stats, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
