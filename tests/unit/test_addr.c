/* Addresses: literals, text, sockaddr and back, CIDR ranges and the trie against a linear
 * search. */
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#include "proxy/base/rand.h"
#include "proxy/net/addr.h"
#include "tests/support/unit.h"

static const struct {
    const char *text;
    const char *printed; /* NULL: refused */
} ip_ports[] = {
    {"1.2.3.4:80", "1.2.3.4:80"},
    {"0.0.0.0:0", "0.0.0.0:0"},
    {"255.255.255.255:65535", "255.255.255.255:65535"},
    {"[::1]:443", "[::1]:443"},
    {"[::]:1", "[::]:1"},
    {"[2001:DB8:0:0::1]:9", "[2001:db8::1]:9"},
    {"[fe80::1%1]:9", "[fe80::1%1]:9"},
    {"[::ffff:1.2.3.4]:9", "[::ffff:1.2.3.4]:9"},
    {"", NULL},
    {":80", NULL},
    {"1.2.3.4", NULL},
    {"1.2.3.4:", NULL},
    {"1.2.3.4:65536", NULL},
    {"1.2.3.4:-1", NULL},
    {"1.2.3.4:8 ", NULL},
    {" 1.2.3.4:8", NULL},
    {"1.2.3:80", NULL},
    {"1.2.3.4.5:80", NULL},
    {"1.2.3.256:80", NULL},
    {"01.2.3.4:80", NULL},
    {"::1:80", NULL},
    {"[1.2.3.4]:80", NULL},
    {"[::1:80", NULL},
    {"::1]:80", NULL},
    {"[]:80", NULL},
    {"[fe80::1%]:9", NULL},
    {"[fe80::1%no-such-interface]:9", NULL},
    {"[fe80::1%99999999999]:9", NULL},
    {"1.2.3.4%1:80", NULL},
    {"localhost:80", NULL},
    {"[1:2:3:4:5:6:7:8:9]:1", NULL},
    {"[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
     "aaaa]:1",
     NULL},
};

static void literals(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ip_ports); i++) {
        struct addr a;
        char text[ADDR_STR_MAX];
        bool ok = addr_parse_ip_port(sv_cstr(ip_ports[i].text), &a);
        assert_row(ok == (ip_ports[i].printed != NULL), i);
        if (ok) {
            size_t n = addr_str(&a, text);
            assert_int_equal(n, strlen(text));
            assert_string_equal(text, ip_ports[i].printed);
        }
    }
    struct addr a;
    assert_false(addr_parse_ip(sv_from("1.2.3.4\0", 8), 1, &a));
}

static void sockaddr_round_trip(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ip_ports); i++) {
        struct addr a, b;
        struct sockaddr_storage ss;
        if (!addr_parse_ip_port(sv_cstr(ip_ports[i].text), &a) ||
            sv_contains(sv_cstr(ip_ports[i].text), SV("ffff"))) {
            continue;
        }
        socklen_t n = addr_to_sockaddr(&a, &ss);
        addr_from_sockaddr(&b, (struct sockaddr *)&ss, n);
        assert_row(addr_eq(&a, &b), i);
        addr_from_sockaddr(&b, (struct sockaddr *)&ss, 1);
        assert_int_equal(b.family, AF_UNSPEC);
        addr_from_sockaddr(&b, (struct sockaddr *)&ss, n - 1);
        assert_int_equal(b.family, AF_UNSPEC);
    }
}

static void mapped_is_ipv4(void **state) {
    (void)state;
    struct addr a, b;
    struct sockaddr_storage ss;
    assert_true(addr_parse_ip_port(SV("[::ffff:10.1.2.3]:99"), &a));
    socklen_t n = addr_to_sockaddr(&a, &ss);
    addr_from_sockaddr(&b, (struct sockaddr *)&ss, n);
    assert_int_equal(b.family, AF_INET);
    assert_int_equal(b.port, 99);
    assert_true(addr_is_internal(&b));
}

static void unix_paths(void **state) {
    (void)state;
    struct addr a, b;
    struct sockaddr_storage ss;
    char text[ADDR_STR_MAX], path[ADDR_STR_MAX + 10];
    addr_set_path(&a, "/run/x.sock");
    assert_int_equal(addr_to_sockaddr(&a, &ss), offsetof(struct sockaddr_un, sun_path) + 12);
    addr_str(&a, text);
    assert_string_equal(text, "/run/x.sock");
    addr_set_path(&b, "@abstract");
    assert_int_equal(addr_to_sockaddr(&b, &ss), offsetof(struct sockaddr_un, sun_path) + 9);
    assert_int_equal(((struct sockaddr_un *)&ss)->sun_path[0], '\0');
    assert_false(addr_eq(&a, &b));
    assert_false(addr_ip_eq(&a, &a));
    memset(path, 'p', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    addr_set_path(&a, path);
    assert_int_equal(addr_to_sockaddr(&a, &ss), 0); /* too long for the system */
    assert_int_equal(addr_str(&a, text), ADDR_STR_MAX - 1);
}

static void internal_listeners(void **state) {
    (void)state;
    static const struct {
        sv listener, id;
        const char *text;
    } rows[] = {
        {SV_INIT("tunnel"), SV_INIT("10.0.0.1:80"), "envoy://tunnel/10.0.0.1:80"},
        {SV_INIT("tunnel"), SV_INIT(""), "envoy://tunnel/"},
        {SV_INIT("a/b"), SV_INIT("c/d"), "envoy://a/b/c/d"},
        {SV_INIT("a"), SV_INIT("b/c/d"), "envoy://a/b/c/d"},
    };
    struct addr made[ARRAY_LEN(rows)];
    struct arena ar;
    char text[ADDR_STR_MAX], long_name[ADDR_INTERNAL_MAX + 1];
    struct sockaddr_storage ss;
    arena_init(&ar, 0);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct addr *a = &made[i];
        assert_row(addr_set_internal(a, rows[i].listener, rows[i].id, &ar), i);
        assert_row(addr_str(a, text) == strlen(rows[i].text), i);
        assert_string_equal(text, rows[i].text);
        addr_ip_str(a, text);
        assert_string_equal(text, rows[i].text);
        assert_row(sv_eq(addr_internal_listener(a), rows[i].listener), i);
        assert_row(sv_eq(addr_endpoint_id(a), rows[i].id), i);
        assert_row(!addr_is_ip(a) && !addr_is_any(a) && !addr_is_internal(a), i);
        assert_row(addr_to_sockaddr(a, &ss) == 0, i);
        for (size_t k = 0; k <= i; k++) { /* the same text may be another listener's */
            assert_row(addr_eq(a, &made[k]) == (i == k), i);
        }
        struct addr copy = addr_dup(a, &ar);
        assert_row(addr_eq(a, &copy) && copy.path != a->path, i);
        assert_row(addr_hash(a, true) == addr_hash(&copy, false), i);
    }
    memset(long_name, 'n', sizeof(long_name));
    struct addr a;
    assert_false(addr_set_internal(&a, sv_from(long_name, ADDR_INTERNAL_MAX), SV_NULL, &ar));
    assert_false(addr_set_internal(&a, SV("x"), sv_from(long_name, ADDR_INTERNAL_MAX - 1), &ar));
    assert_true(addr_set_internal(&a, SV("x"), sv_from(long_name, ADDR_INTERNAL_MAX - 2), &ar));
    assert_int_equal(addr_str(&a, text), 8 + ADDR_INTERNAL_MAX);
    addr_str(&addr_internal_client, text);
    assert_string_equal(text, "envoy://internal_client_address/");
    struct addr path;
    addr_set_path(&path, "tunnel/");
    assert_false(addr_eq(&path, &made[1]));
    assert_int_equal(addr_internal_listener(&path).n + addr_endpoint_id(&path).n, 0);
    arena_fini(&ar);
}

static const struct {
    const char *ip;
    bool any, loopback, internal;
} kinds[] = {
    {"0.0.0.0", true, false, false},        {"::", true, false, false},
    {"127.0.0.1", false, true, true},       {"127.255.0.1", false, true, true},
    {"128.0.0.1", false, false, false},     {"::1", false, true, true},
    {"::2", false, false, false},           {"10.0.0.0", false, false, true},
    {"11.0.0.0", false, false, false},      {"9.255.255.255", false, false, false},
    {"172.15.0.1", false, false, false},    {"172.16.0.1", false, false, true},
    {"172.31.255.255", false, false, true}, {"172.32.0.0", false, false, false},
    {"192.168.9.9", false, false, true},    {"192.169.0.0", false, false, false},
    {"fd00::1", false, false, true},        {"fc00::1", false, false, false},
    {"fe80::1", false, false, false},       {"8.8.8.8", false, false, false},
};

static void kinds_of_addresses(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        struct addr a;
        assert_true(addr_parse_ip(sv_cstr(kinds[i].ip), 0, &a));
        assert_row(addr_is_any(&a) == kinds[i].any, i);
        assert_row(addr_is_loopback(&a) == kinds[i].loopback, i);
        assert_row(addr_is_internal(&a) == kinds[i].internal, i);
    }
}

static void hashes(void **state) {
    (void)state;
    struct addr a, b;
    assert_true(addr_parse_ip_port(SV("1.2.3.4:80"), &a));
    assert_true(addr_parse_ip_port(SV("1.2.3.4:81"), &b));
    assert_true(addr_hash(&a, true) != addr_hash(&b, true));
    assert_true(addr_hash(&a, false) == addr_hash(&b, false));
    assert_true(addr_ip_eq(&a, &b));
    assert_false(addr_eq(&a, &b));
}

static const struct {
    const char *ip;
    uint32_t bits;
    const char *probe;
    bool is_valid, is_in;
} cidrs[] = {
    {"10.0.0.0", 8, "10.255.1.2", true, true},
    {"10.0.0.0", 8, "11.0.0.0", true, false},
    {"10.9.8.7", 8, "10.0.0.1", true, true},
    {"0.0.0.0", 0, "200.1.1.1", true, true},
    {"0.0.0.0", 0, "::1", true, false},
    {"::", 0, "::1", true, true},
    {"::", 0, "1.1.1.1", true, false},
    {"1.2.3.4", 32, "1.2.3.4", true, true},
    {"1.2.3.4", 32, "1.2.3.5", true, false},
    {"1.2.3.4", 31, "1.2.3.5", true, true},
    {"2001:db8::", 33, "2001:db8:7fff::", true, true},
    {"2001:db8::", 33, "2001:db8:8000::", true, false},
    {"::1", 128, "::1", true, true},
    {"::1", 128, "::", true, false},
    {"1.2.3.4", 33, "1.2.3.4", false, false},
    {"::1", 129, "::1", false, false},
    {"1.2.3", 8, "1.2.3.4", false, false},
    {"", 0, "1.2.3.4", false, false},
    {"1.2.3.4", UINT32_MAX, "1.2.3.4", false, false},
};

static void ranges(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cidrs); i++) {
        struct cidr c;
        struct addr a;
        assert_true(addr_parse_ip(sv_cstr(cidrs[i].probe), 0, &a));
        bool ok = cidr_make(sv_cstr(cidrs[i].ip), cidrs[i].bits, &c);
        assert_row(ok == cidrs[i].is_valid, i);
        assert_row(!ok || cidr_contains(&c, &a) == cidrs[i].is_in, i);
    }
}

static struct cidr random_cidr(struct rng *r, bool v6) {
    struct cidr c = {.family = v6 ? AF_INET6 : AF_INET};
    char text[64];
    snprintf(text, sizeof(text), v6 ? "%x%02x::%x" : "%u.%u.0.%u", (unsigned)rng_below(r, 4) + 32,
             (unsigned)rng_below(r, 4), (unsigned)rng_below(r, 256));
    assert_true(cidr_make(sv_cstr(text), (uint32_t)rng_below(r, v6 ? 129 : 33), &c));
    return c;
}

static void trie_finds_the_longest(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 11);
    for (int round = 0; round < 200; round++) {
        struct arena arena;
        arena_init(&arena, 0);
        struct cidr_trie *t = cidr_trie_new(&arena);
        struct cidr c[40];
        size_t n = rng_below(&r, ARRAY_LEN(c) + 1);
        for (size_t i = 0; i < n; i++) {
            c[i] = random_cidr(&r, rng_below(&r, 2));
            cidr_trie_add(t, &c[i], (uint32_t)i);
        }
        for (int k = 0; k < 200; k++) {
            struct cidr probe = random_cidr(&r, rng_below(&r, 2));
            struct addr a = {.family = probe.family};
            memcpy(a.ip, probe.ip, sizeof(a.ip));
            int best = -1;
            for (size_t i = 0; i < n; i++) { /* the last one added of equal ones */
                if (cidr_contains(&c[i], &a) && (best < 0 || c[i].bits >= c[best].bits)) {
                    best = (int)i;
                }
            }
            uint32_t value = 0;
            uint8_t bits = 0;
            bool found = cidr_trie_find(t, &a, &value, &bits);
            assert_true(found == (best >= 0));
            if (found) {
                assert_int_equal(value, best);
                assert_int_equal(bits, c[best].bits);
            }
        }
        arena_fini(&arena);
    }
}

static void trie_of_nothing(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena, 0);
    struct cidr_trie *t = cidr_trie_new(&arena);
    struct addr a;
    uint32_t value;
    assert_true(addr_parse_ip(SV("1.2.3.4"), 0, &a));
    assert_false(cidr_trie_find(t, &a, &value, NULL));
    addr_set_path(&a, "/x");
    assert_false(cidr_trie_find(t, &a, &value, NULL));
    arena_fini(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(literals),
        cmocka_unit_test(sockaddr_round_trip),
        cmocka_unit_test(mapped_is_ipv4),
        cmocka_unit_test(unix_paths),
        cmocka_unit_test(internal_listeners),
        cmocka_unit_test(kinds_of_addresses),
        cmocka_unit_test(hashes),
        cmocka_unit_test(ranges),
        cmocka_unit_test(trie_finds_the_longest),
        cmocka_unit_test(trie_of_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
