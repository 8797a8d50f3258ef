/* Sessions as clients tell them: in a cookie, a header or an envelope. Whatever a request asks for,
 * headers stay fit to be sent, and what a response tells is read back as the host it told.
 * Input: one byte for the kind, then the header's value. */
/* link: -lcmocka */
#include "filters/common/session_state.h"
#include "tests/support/route.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define KIND(kind, type, fields)                                                                 \
    "name: 'x' typed_config { [type.googleapis.com/envoy.extensions.http.stateful_session." kind \
    ".v3." type "] { " fields " } }"
#define NOW_S 1700000000u

static const struct kind {
    const char *config, *header;
} kinds[] = {
    {KIND("cookie", "CookieBasedSessionState", "cookie { name: 's' }"), "cookie"},
    {KIND("cookie", "CookieBasedSessionState", "cookie { name: 's' path: '/' ttl { seconds: 9 } }"),
     "cookie"},
    {KIND("header", "HeaderBasedSessionState", "name: 'x-s'"), "x-s"},
    {KIND("envelope", "EnvelopeSessionState", "header { name: 'x-s' }"), "x-s"},
};

static void check_headers(const struct headers *h) {
    HEADERS_FOREACH (it, h) {
        CHECK(header_value_valid(it->value));
    }
}

static void respond(const struct session_state *s, sv asked, struct arena *a) {
    struct headers response;
    headers_init(&response, a);
    headers_set_status(&response, 200);
    headers_add_copy(&response, SV("x-s"), SV("own"));
    bool begins = session_state_write(s, &response, asked, SV("1.2.3.4:80"), NOW_S);
    CHECK(!begins || !sv_is(asked, "1.2.3.4:80"));
    check_headers(&response);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static struct fake_compile f;
    static const struct session_state *states[ARRAY_LEN(kinds)];
    for (size_t i = 0; i < ARRAY_LEN(kinds) && !states[ARRAY_LEN(kinds) - 1]; i++) {
        if (i == 0) {
            fake_compile_init(&f, NULL);
        }
        states[i] = session_state_compile(
            &f.ctx, fake_msg(&f, "envoy.config.core.v3.TypedExtensionConfig", kinds[i].config));
        CHECK(states[i]);
    }
    if (n < 1 || !header_value_valid(sv_from(data + 1, n - 1))) {
        return 0; /* no codec lets it through */
    }
    unsigned kind = data[0] % ARRAY_LEN(kinds);
    struct arena a;
    struct headers request;
    sv asked = SV_NULL;
    arena_init(&a, 0);
    request_make(&request, &a, "h", "/p", NULL);
    headers_add_copy(&request, sv_cstr(kinds[kind].header), sv_from(data + 1, n - 1));
    if (session_state_read(states[kind], &request, NOW_S, &asked)) {
        check_headers(&request);
        respond(states[kind], asked, &a);
    }
    arena_fini(&a);
    chunk_cache_trim();
    return 0;
}
