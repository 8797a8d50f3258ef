/* hash_policy: which bytes are hashed, how the hashes are combined, and the cookie that is made. */
#include <xxhash.h>

#include "proxy/observe/filter_state.h"
#include "proxy/route/route_private.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

static const struct route_entry *route_of(struct route_table **t, const char *policies) {
    char text[2048];
    snprintf(text, sizeof(text),
             "virtual_hosts { name: 'v' domains: '*' routes { match { prefix: '/' } route { "
             "cluster: 'c' %s } } }",
             policies);
    *t = route_table_must(&f, text);
    return (*t)->priv_->vhosts[0]->routes_->v;
}

static uint64_t xxh(const char *s) { return XXH64(s, strlen(s), 0); }
static uint64_t combined(uint64_t first, uint64_t then) {
    return (first << 1 | first >> 63) ^ then;
}

/* XXH64 with seed 0 of well-known inputs, so that the library under us cannot drift. */
static void known_values(void **state) {
    (void)state;
    assert_true(xxh("") == 0xEF46DB3751D8E999ull);
    assert_true(xxh("foo") == 3728699739546630719ull);
    assert_true(xxh("bar") == 5234164152756840025ull);
}

struct hash_case {
    const char *policies, *path, *more;
    bool has;
    uint64_t want;
};

static void check(const struct hash_case *cases, size_t n) {
    for (size_t i = 0; i < n; i++) {
        struct route_table *t;
        const struct route_entry *r = route_of(&t, cases[i].policies);
        struct headers h;
        request_make(&h, &f.msgs, "h.com", cases[i].path, cases[i].more);
        struct conn_info cx = {.remote = {.family = AF_INET, .port = 1234, .ip = {10, 0, 0, 1}},
                               .local = {.family = AF_INET, .port = 80, .ip = {10, 0, 0, 2}}};
        struct stream_info si = {.filter_state = filter_state_new(&f.msgs, NULL)};
        filter_state_set(si.filter_state, SV("key"), SV("value"), NULL, true, FILTER_STATE_LOCAL);
        struct route_match_input in = {.headers = &h, .scratch = &f.msgs, .cx = &cx, .si = &si};
        bool has;
        uint64_t got = route_hash(r, &in, &has, NULL);
        assert_row(has == cases[i].has, i);
        assert_row(!has || got == cases[i].want, i);
        shared_unref(&t->shared);
    }
}

static void sources(void **state) {
    (void)state;
    const struct hash_case cases[] = {
        {"", "/", NULL, false, 0},
        {"hash_policy { header { header_name: 'X' } }", "/", "x: foo", true, xxh("foo")},
        {"hash_policy { header { header_name: 'x' } }", "/", "x: ", true, xxh("")},
        {"hash_policy { header { header_name: 'x' } }", "/", "y: foo", false, 0},
        {"hash_policy { header { header_name: ':path' } }", "/p?q", NULL, true, xxh("/p?q")},
        {"hash_policy { header { header_name: 'host' } }", "/", NULL, true, xxh("h.com")},
        /* values are sorted, each seeded by the one before */
        {"hash_policy { header { header_name: 'x' } }", "/", "x: b\nx: a", true,
         XXH64("b", 1, xxh("a"))},
        {"hash_policy { header { header_name: 'x' } }", "/", "x: a\nx: b", true,
         XXH64("b", 1, xxh("a"))},
        {"hash_policy { header { header_name: 'x' regex_rewrite { pattern { regex: '^/(\\\\w+).*$' "
         "} substitution: '\\\\1' } } }",
         "/", "x: /foo/bar", true, xxh("foo")},
        {"hash_policy { query_parameter { name: 'a' } }", "/?a=foo", NULL, true, xxh("foo")},
        {"hash_policy { query_parameter { name: 'a' } }", "/?a=foo&a=bar", NULL, true, xxh("foo")},
        {"hash_policy { query_parameter { name: 'a' } }", "/?a", NULL, true, xxh("")},
        {"hash_policy { query_parameter { name: 'a' } }", "/?b=1", NULL, false, 0},
        {"hash_policy { query_parameter { name: 'a' } }", "/", NULL, false, 0},
        {"hash_policy { cookie { name: 'c' } }", "/", "cookie: c=foo", true, xxh("foo")},
        {"hash_policy { cookie { name: 'c' } }", "/", "cookie: c=\"foo\"", true, xxh("foo")},
        {"hash_policy { cookie { name: 'c' } }", "/", "cookie: d=foo", false, 0},
        {"hash_policy { cookie { name: 'c' } }", "/", "cookie: c=", false, 0},
        {"hash_policy { connection_properties { source_ip: true } }", "/", NULL, true,
         xxh("10.0.0.1")},
        {"hash_policy { connection_properties { source_ip: false } }", "/", NULL, false, 0},
        {"hash_policy { connection_properties {} }", "/", NULL, false, 0},
        {"hash_policy { filter_state { key: 'key' } }", "/", NULL, true, xxh("value")},
        {"hash_policy { filter_state { key: 'gone' } }", "/", NULL, false, 0},
    };
    check(cases, ARRAY_LEN(cases));
}

static void combinations(void **state) {
    (void)state;
#define X "hash_policy { header { header_name: 'x' } } "
#define Y "hash_policy { header { header_name: 'y' } } "
#define X_TERMINAL "hash_policy { header { header_name: 'x' } terminal: true } "
    const struct hash_case cases[] = {
        {X Y, "/", "x: foo\ny: bar", true, combined(xxh("foo"), xxh("bar"))},
        {Y X, "/", "x: foo\ny: bar", true, combined(xxh("bar"), xxh("foo"))},
        {X X, "/", "x: foo", true, combined(xxh("foo"), xxh("foo"))}, /* they do not cancel out */
        {X Y, "/", "y: bar", true, xxh("bar")},
        {X Y, "/", "x: foo", true, xxh("foo")},
        {X_TERMINAL Y, "/", "x: foo\ny: bar", true, xxh("foo")},
        {X_TERMINAL Y, "/", "y: bar", true, xxh("bar")},
        /* a terminal policy that found nothing ends the list all the same when an earlier one
         * did */
        {Y X_TERMINAL Y, "/", "y: bar", true, xxh("bar")},
    };
    check(cases, ARRAY_LEN(cases));
}

static void no_address(void **state) {
    (void)state;
    struct route_table *t;
    const struct route_entry *r =
        route_of(&t, "hash_policy { connection_properties { source_ip: true } }");
    struct headers h;
    request_make(&h, &f.msgs, "h", "/", NULL);
    struct conn_info pipe = {.remote = {.family = AF_UNIX, .path = "/x"}};
    struct route_match_input in = {.headers = &h, .scratch = &f.msgs, .cx = &pipe};
    bool has;
    route_hash(r, &in, &has, NULL);
    assert_false(has);
    in.cx = NULL;
    route_hash(r, &in, &has, NULL);
    assert_false(has);
    shared_unref(&t->shared);
}

static void made_cookies(void **state) {
    (void)state;
    static const struct {
        const char *cookie, *want; /* %s: the value */
    } cases[] = {
        {"name: 'c' ttl {}", "c=\"%s\"; HttpOnly"},
        {"name: 'c' ttl { seconds: 60 }", "c=\"%s\"; Max-Age=60; HttpOnly"},
        {"name: 'c' ttl { seconds: 60 } path: '/p'", "c=\"%s\"; Max-Age=60; Path=/p; HttpOnly"},
        {"name: 'c' ttl {} attributes { name: 'SameSite' value: 'Strict' } attributes { name: "
         "'Secure' }",
         "c=\"%s\"; SameSite=Strict; Secure; HttpOnly"},
    };
    char value[17];
    snprintf(value, sizeof(value), "%016llx", (unsigned long long)xxh("10.0.0.1:123410.0.0.2:80"));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char policies[256];
        snprintf(policies, sizeof(policies), "hash_policy { cookie { %s } }", cases[i].cookie);
        struct route_table *t;
        const struct route_entry *r = route_of(&t, policies);
        struct headers h;
        request_make(&h, &f.msgs, "h", "/", NULL);
        struct conn_info cx = {.remote = {.family = AF_INET, .port = 1234, .ip = {10, 0, 0, 1}},
                               .local = {.family = AF_INET, .port = 80, .ip = {10, 0, 0, 2}}};
        struct route_match_input in = {.headers = &h, .scratch = &f.msgs, .cx = &cx};
        bool has;
        sv cookie = SV_NULL;
        uint64_t hash = route_hash(r, &in, &has, &cookie);
        assert_true(has);
        assert_true(hash == xxh(value));
        const char *at = strstr(cases[i].want, "%s");
        sv want = arena_printf(&f.msgs, "%.*s%s%s", (int)(at - cases[i].want), cases[i].want, value,
                               at + 2);
        assert_sv(cookie, want);
        /* a request that has it gets no other */
        char more[64];
        snprintf(more, sizeof(more), "cookie: c=\"%s\"", value);
        request_make(&h, &f.msgs, "h", "/", more);
        cookie = SV_NULL;
        assert_true(route_hash(r, &in, &has, &cookie) == hash);
        assert_null(cookie.p);
        shared_unref(&t->shared);
    }
}

static void weighted_by_hash(void **state) {
    (void)state;
    struct route_table *t = route_table_must(
        &f, "virtual_hosts { name: 'v' domains: '*' routes { match { prefix: '/' } route { "
            "hash_policy { header { header_name: 'x' } } weighted_clusters { use_hash_policy { "
            "value: true } "
            "clusters { name: 'a' weight { value: 1 } } clusters { name: 'b' weight { value: 1 } } "
            "} } } }");
    const struct route_entry *r = t->priv_->vhosts[0]->routes_->v;
    struct headers h;
    request_make(&h, &f.msgs, "h", "/", "x: foo");
    struct route_match_input in = {.headers = &h, .random = 5, .scratch = &f.msgs};
    assert_true(route_weighted_random(r, &in) == xxh("foo"));
    request_make(&h, &f.msgs, "h", "/", NULL);
    assert_true(route_weighted_random(r, &in) == 5);
    shared_unref(&t->shared);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(known_values), TEST(sources),      TEST(combinations),
        TEST(no_address),   TEST(made_cookies), TEST(weighted_by_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
