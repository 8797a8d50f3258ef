/* Filter chain matching: precedence of the criteria, no way back, duplicates. Rules are written as
 * text:
 *     "port=80 ip=10.0.0.0/8 sni=*.a.com,b.com tp=tls alpn=h2,http/1.1 direct=… type=local|external
 * src=… sport=1,2" */
#include "proxy/net/chain_match.h"
#include "tests/support/unit.h"

#define RULES_MAX 8
#define LIST_MAX 8

static struct arena arena;

static sv cut_value(sv *rest, sv *key) {
    sv word = sv_cut(rest, ' ');
    *key = sv_cut(&word, '=');
    return word;
}

static unsigned parse_views(sv list, const sv **out) {
    sv *v = arena_new_array(&arena, sv, LIST_MAX);
    unsigned n = 0;
    while (list.n) {
        v[n++] = sv_cut(&list, ',');
    }
    *out = v;
    return n;
}

static unsigned parse_cidrs(sv list, const struct cidr **out) {
    struct cidr *v = arena_new_array(&arena, struct cidr, LIST_MAX);
    unsigned n = 0;
    while (list.n) {
        sv bits = sv_cut(&list, ',');
        sv ip = sv_cut(&bits, '/');
        uint64_t length;
        assert_true(sv_to_u64(bits, &length) && cidr_make(ip, (uint32_t)length, &v[n++]));
    }
    *out = v;
    return n;
}

static unsigned parse_ports(sv list, const uint16_t **out) {
    uint16_t *v = arena_new_array(&arena, uint16_t, LIST_MAX);
    unsigned n = 0;
    while (list.n) {
        uint64_t port;
        assert_true(sv_to_u64(sv_cut(&list, ','), &port));
        v[n++] = (uint16_t)port;
    }
    *out = v;
    return n;
}

static struct chain_match_rule parse_rule(const char *text, unsigned i) {
    struct chain_match_rule r = {.name = arena_printf(&arena, "c%u", i)};
    for (sv rest = sv_cstr(text), key; rest.n;) {
        sv value = cut_value(&rest, &key);
        uint64_t number;
        if (sv_is(key, "port")) {
            assert_true(sv_to_u64(value, &number));
            r.destination_port = (uint16_t)number;
        } else if (sv_is(key, "ip")) {
            r.prefix_ranges_n = parse_cidrs(value, &r.prefix_ranges);
        } else if (sv_is(key, "sni")) {
            r.server_names_n = parse_views(value, &r.server_names);
        } else if (sv_is(key, "tp")) {
            r.transport_protocol = value;
        } else if (sv_is(key, "alpn")) {
            r.application_protocols_n = parse_views(value, &r.application_protocols);
        } else if (sv_is(key, "direct")) {
            r.direct_source_n = parse_cidrs(value, &r.direct_source_prefix_ranges);
        } else if (sv_is(key, "type")) {
            r.source_type =
                sv_is(value, "local") ? CHAIN_SOURCE_SAME_IP_OR_LOOPBACK : CHAIN_SOURCE_EXTERNAL;
        } else if (sv_is(key, "src")) {
            r.source_n = parse_cidrs(value, &r.source_prefix_ranges);
        } else {
            assert_true(sv_is(key, "sport"));
            r.source_ports_n = parse_ports(value, &r.source_ports);
        }
    }
    return r;
}

static struct chain_match *build(const char *const rules[RULES_MAX], uint32_t default_chain,
                                 struct diag *d) {
    struct chain_match_rule v[RULES_MAX];
    unsigned n = 0;
    for (; n < RULES_MAX && rules[n]; n++) {
        v[n] = parse_rule(rules[n], n);
    }
    return chain_match_build(&arena, v, n, default_chain, d);
}

/* "to=10.0.0.1:80 from=1.2.3.4:5 direct=… sni=… tp=… alpn=…" */
static struct accept_info parse_info(const char *text) {
    struct accept_info info = {.arena = &arena};
    assert_true(addr_parse_ip_port(SV("10.0.0.1:443"), &info.local));
    assert_true(addr_parse_ip_port(SV("8.8.8.8:50000"), &info.remote));
    bool has_direct = false;
    for (sv rest = sv_cstr(text), key; rest.n;) {
        sv value = cut_value(&rest, &key);
        if (sv_is(key, "to")) {
            assert_true(addr_parse_ip_port(value, &info.local));
        } else if (sv_is(key, "from")) {
            assert_true(addr_parse_ip_port(value, &info.remote));
        } else if (sv_is(key, "direct")) {
            assert_true(addr_parse_ip_port(value, &info.direct_remote));
            has_direct = true;
        } else if (sv_is(key, "unix")) {
            addr_set_path(&info.local, "/x");
            addr_set_path(&info.remote, "");
        } else if (sv_is(key, "sni")) {
            info.server_name = value;
        } else if (sv_is(key, "tp")) {
            info.transport_protocol = value;
        } else {
            assert_true(sv_is(key, "alpn"));
            info.alpn_n = parse_views(value, &info.alpn);
        }
    }
    info.direct_remote = has_direct ? info.direct_remote : info.remote;
    return info;
}

#define DEFAULT 99
static const struct {
    const char *rules[RULES_MAX];
    const char *info;
    uint32_t want; /* DEFAULT: nothing matches */
} cases[] = {
    /* nothing, one for all */
    {{NULL}, "", DEFAULT},
    {{""}, "", 0},
    {{""}, "unix=1", 0},
    /* destination port */
    {{"port=443", "port=80"}, "", 0},
    {{"port=443", "port=80"}, "to=10.0.0.1:80", 1},
    {{"port=443", "port=80"}, "to=10.0.0.1:81", DEFAULT},
    {{"", "port=80"}, "to=10.0.0.1:80", 1},
    {{"", "port=80"}, "to=10.0.0.1:81", 0},
    {{"", "port=80 sni=a.com"}, "to=10.0.0.1:80", DEFAULT}, /* no way back from the port */
    {{"port=80"}, "unix=1", DEFAULT},
    /* destination IP */
    {{"ip=10.0.0.0/8", "ip=10.0.0.0/24", "ip=10.0.0.1/32"}, "", 2},
    {{"ip=10.0.0.0/8", "ip=10.0.0.0/24", "ip=10.0.0.1/32"}, "to=10.0.0.2:1", 1},
    {{"ip=10.0.0.0/8", "ip=10.0.0.0/24", "ip=10.0.0.1/32"}, "to=10.0.1.2:1", 0},
    {{"ip=10.0.0.0/8", "ip=10.0.0.0/24", "ip=10.0.0.1/32"}, "to=11.0.1.2:1", DEFAULT},
    {{"ip=10.0.0.0/8,11.0.0.0/8", ""}, "to=11.9.9.9:1", 0},
    {{"ip=10.0.0.0/8,11.0.0.0/8", ""}, "to=12.9.9.9:1", 1},
    {{"ip=10.0.0.0/8 sni=a.com", ""}, "to=10.9.9.9:1", DEFAULT}, /* no way back from the IP */
    {{"ip=::/0", "ip=0.0.0.0/0"}, "to=[::1]:1", 0},
    {{"ip=::/0", "ip=0.0.0.0/0"}, "to=1.1.1.1:1", 1},
    {{"ip=2001:db8::/32", ""}, "to=[2001:db8::5]:1", 0},
    {{"ip=2001:db8::/32", ""}, "to=[2001:db9::5]:1", 1},
    {{"ip=0.0.0.0/0", "ip=10.0.0.0/8"}, "unix=1", 0},
    {{"ip=10.0.0.0/8"}, "unix=1", DEFAULT},
    /* port before IP */
    {{"port=443", "ip=10.0.0.1/32"}, "", 0},
    /* server names */
    {{"sni=a.com", "sni=*.a.com", "sni=*.com", ""}, "sni=a.com", 0},
    {{"sni=a.com", "sni=*.a.com", "sni=*.com", ""}, "sni=x.a.com", 1},
    {{"sni=a.com", "sni=*.a.com", "sni=*.com", ""}, "sni=y.x.a.com", 1},
    {{"sni=a.com", "sni=*.a.com", "sni=*.com", ""}, "sni=b.com", 2},
    {{"sni=a.com", "sni=*.a.com", "sni=*.com", ""}, "sni=b.org", 3},
    {{"sni=a.com", "sni=*.a.com", "sni=*.com", ""}, "", 3},
    {{"sni=a.com"}, "", DEFAULT},
    {{"sni=a.com"}, "sni=A.CoM", 0},
    {{"sni=A.com"}, "sni=a.com", 0},
    {{"sni=*.com"}, "sni=com", DEFAULT},
    {{"sni=*.com"}, "sni=.com", 0},
    {{"sni=*.a.com"}, "sni=a.com", DEFAULT},
    {{"sni=*.a.com"}, "sni=xa.com", DEFAULT},
    {{"sni=a.com,b.com", "sni=c.com"}, "sni=b.com", 0},
    {{"sni=*.a.com tp=tls", ""}, "sni=x.a.com", DEFAULT}, /* no way back from the name */
    {{"sni=x.a.com tp=tls", "sni=*.a.com"}, "sni=x.a.com", DEFAULT},
    {{"sni=*.a.com"}, "sni=x.a.com.", DEFAULT},
    /* IP before server name */
    {{"ip=10.0.0.1/32", "sni=a.com"}, "sni=a.com", 0},
    /* transport protocol */
    {{"tp=tls", "tp=raw_buffer"}, "tp=tls", 0},
    {{"tp=tls", "tp=raw_buffer"}, "", 1},
    {{"tp=tls", ""}, "", 1},
    {{"tp=tls", ""}, "tp=tls", 0},
    {{"tp=tls"}, "", DEFAULT},
    {{"tp=tls alpn=h2", ""}, "tp=tls", DEFAULT},
    {{"sni=a.com", "tp=tls"}, "sni=a.com tp=tls", 0},
    /* application protocols */
    {{"alpn=h2", "alpn=http/1.1"}, "alpn=h2", 0},
    {{"alpn=h2", "alpn=http/1.1"}, "alpn=http/1.1,h2", 1}, /* the client's order decides */
    {{"alpn=h2", "alpn=http/1.1"}, "alpn=h2,http/1.1", 0},
    {{"alpn=h2,http/1.1", "alpn=istio"}, "alpn=istio,h2", 1},
    {{"alpn=h2", "alpn=http/1.1"}, "", DEFAULT},
    {{"alpn=h2", ""}, "alpn=spdy", 1},
    {{"alpn=h2", ""}, "alpn=spdy,h2", 0},
    {{"alpn=h2 src=1.0.0.0/8", ""}, "alpn=h2", DEFAULT},
    /* direct source */
    {{"direct=1.0.0.0/8", "direct=1.2.0.0/16"}, "direct=1.2.3.4:1", 1},
    {{"direct=1.0.0.0/8", "direct=1.2.0.0/16"}, "direct=1.3.3.4:1", 0},
    {{"direct=1.0.0.0/8", "src=8.0.0.0/8"}, "direct=1.3.3.4:1", 0},
    {{"direct=1.0.0.0/8", "src=8.0.0.0/8"}, "direct=2.3.3.4:1", 1},
    {{"direct=1.0.0.0/8"}, "", DEFAULT},
    /* source type */
    {{"type=local", "type=external", ""}, "from=127.0.0.1:9", 0},
    {{"type=local", "type=external", ""}, "from=10.0.0.1:9", 0}, /* its own address */
    {{"type=local", "type=external", ""}, "from=10.0.0.2:9", 1},
    {{"type=local", "type=external", ""}, "unix=1", 0},
    {{"type=local", ""}, "from=10.0.0.2:9", 1},
    {{"type=external", ""}, "from=127.0.0.1:9", 1},
    {{"type=external"}, "from=127.0.0.1:9", DEFAULT},
    {{"type=local src=1.0.0.0/8", ""}, "from=127.0.0.1:9", DEFAULT},
    /* source IP and port */
    {{"src=8.0.0.0/8", "src=8.8.0.0/16", "src=8.8.8.8/32"}, "", 2},
    {{"src=8.0.0.0/8", "src=8.8.0.0/16", "src=8.8.8.8/32"}, "from=8.8.1.1:1", 1},
    {{"src=8.0.0.0/8", "src=8.8.0.0/16", ""}, "from=9.8.1.1:1", 2},
    {{"src=8.0.0.0/8 sport=1,2", "src=8.0.0.0/8"}, "from=8.1.1.1:2", 0},
    {{"src=8.0.0.0/8 sport=1,2", "src=8.0.0.0/8"}, "from=8.1.1.1:3", 1},
    {{"src=8.0.0.0/8 sport=1", ""}, "from=8.1.1.1:3", DEFAULT},
    {{"sport=50000", "src=8.0.0.0/8"}, "", 1}, /* IP before port */
    /* all of them */
    {{"port=443 ip=10.0.0.0/24 sni=*.a.com tp=tls alpn=h2 direct=8.0.0.0/8 type=external "
      "src=8.8.8.0/24 sport=50000",
      "port=443 ip=10.0.0.0/24 sni=*.a.com tp=tls alpn=h2 direct=8.0.0.0/8 type=external "
      "src=8.8.8.0/24"},
     "sni=q.a.com tp=tls alpn=h2",
     0},
    {{"port=443 ip=10.0.0.0/24 sni=*.a.com tp=tls alpn=h2 direct=8.0.0.0/8 type=external "
      "src=8.8.8.0/24 sport=50000",
      "port=443 ip=10.0.0.0/24 sni=*.a.com tp=tls alpn=h2 direct=8.0.0.0/8 type=external "
      "src=8.8.8.0/24"},
     "sni=q.a.com tp=tls alpn=h2 from=8.8.8.9:50001",
     1},
    /* as an Istio sidecar's inbound listener has them */
    {{"tp=tls alpn=istio-http/1.1,istio-h2", "tp=tls", "tp=raw_buffer", "port=15006"},
     "tp=tls alpn=istio-h2,h2",
     0},
    {{"tp=tls alpn=istio-http/1.1,istio-h2", "tp=tls", "tp=raw_buffer", "port=15006"},
     "tp=tls alpn=h2",
     1},
    {{"tp=tls alpn=istio-http/1.1,istio-h2", "tp=tls", "tp=raw_buffer", "port=15006"}, "", 2},
    {{"tp=tls alpn=istio-http/1.1,istio-h2", "tp=tls", "tp=raw_buffer", "port=15006"},
     "to=10.0.0.1:15006",
     3},
};

static void precedence(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct diag d;
        arena_init(&arena, 0);
        diag_init(&d);
        const struct chain_match *m = build(cases[i].rules, DEFAULT, &d);
        assert_row(m != NULL, i);
        struct accept_info info = parse_info(cases[i].info);
        uint32_t got = chain_match_find(m, &info);
        if (got != cases[i].want) {
            print_error("got %u, want %u\n", got, cases[i].want);
        }
        assert_row(got == cases[i].want, i);
        const struct chain_match *without = build(cases[i].rules, CHAIN_NONE, &d);
        assert_row(chain_match_find(without, &info) == (got == DEFAULT ? CHAIN_NONE : got), i);
        diag_fini(&d);
        arena_fini(&arena);
    }
}

#define SAME "filter chain 'c1' has the same matching rules defined as 'c0'"
#define OVERLAP "multiple filter chains with overlapping matching rules are defined"
#define PARTIAL "partial wildcards are not supported in \"server_names\""
static const struct {
    const char *rules[RULES_MAX];
    const char *error; /* NULL: none */
} faults[] = {
    {{"", ""}, SAME},
    {{"port=80", "port=80"}, SAME},
    {{"ip=10.0.0.0/8", "ip=10.9.9.9/8"}, SAME},
    {{"sni=a.com,b.com", "sni=a.com,b.com"}, SAME},
    {{"sni=a.com,b.com", "sni=b.com,a.com"}, OVERLAP},
    {{"sni=a.com,b.com", "sni=b.com,c.com"}, OVERLAP},
    {{"sni=a.com", "sni=A.com"}, OVERLAP},
    {{"alpn=h2,x", "alpn=x"}, OVERLAP},
    {{"src=1.0.0.0/8,2.0.0.0/8", "src=2.0.0.0/8"}, OVERLAP},
    {{"sport=1,2", "sport=2,3"}, OVERLAP},
    {{"type=local", "type=local"}, SAME},
    {{"tp=tls sport=7", "tp=tls sport=7"}, SAME},
    {{"sni=w*.a.com"}, PARTIAL},
    {{"sni=*"}, PARTIAL},
    {{"sni=*.*.com"}, PARTIAL},
    {{"sni=a.*.com"}, PARTIAL},
    {{"sni=*a.com"}, PARTIAL},
    {{"sni=a.com,a.com"}, NULL}, /* a rule cannot be its own rival */
    {{"ip=10.0.0.0/8,10.0.0.0/8"}, NULL},
    {{"sni=a.com", "sni=*.a.com"}, NULL},
    {{"ip=10.0.0.0/8", "ip=10.0.0.0/9"}, NULL},
};

static void duplicates(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        struct diag d;
        arena_init(&arena, 0);
        diag_init(&d);
        const struct chain_match *m = build(faults[i].rules, CHAIN_NONE, &d);
        assert_row((m == NULL) == (faults[i].error != NULL), i);
        assert_sv_is(diag_text(&d), faults[i].error ? faults[i].error : "");
        diag_fini(&d);
        arena_fini(&arena);
    }
}

static void many_names(void **state) {
    (void)state;
    struct diag d;
    arena_init(&arena, 0);
    diag_init(&d);
    enum { N = 2000 };
    struct chain_match_rule *rules = arena_new_array(&arena, struct chain_match_rule, N);
    for (unsigned i = 0; i < N; i++) {
        sv *name = arena_new(&arena, sv);
        *name = arena_printf(&arena, i % 2 ? "host-%u.example.com" : "*.sub-%u.example.com", i);
        rules[i] =
            (struct chain_match_rule){.name = *name, .server_names = name, .server_names_n = 1};
    }
    const struct chain_match *m = chain_match_build(&arena, rules, N, CHAIN_NONE, &d);
    assert_non_null(m);
    for (unsigned i = 0; i < N; i++) {
        struct accept_info info = {0};
        info.server_name =
            arena_printf(&arena, i % 2 ? "host-%u.example.com" : "x.y.sub-%u.example.com", i);
        assert_int_equal(chain_match_find(m, &info), i);
    }
    char huge[400];
    memset(huge, 'a', sizeof(huge));
    struct accept_info info = {.server_name = {huge, sizeof(huge)}};
    assert_int_equal(chain_match_find(m, &info), CHAIN_NONE);
    diag_fini(&d);
    arena_fini(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precedence),
        cmocka_unit_test(duplicates),
        cmocka_unit_test(many_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
