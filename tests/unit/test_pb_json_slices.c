/* Long messages as JSON in slices: the same text as in one go, whatever is long; masks; bytes that
 * are no message. */
#include "protos/pb_json_slices.h"

#include "protos/any.h"
#include "protos/field_mask.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/cluster.pb-c.h"
#include "tests/support/pb.h"

#define TYPE(t) "type.googleapis.com/" t
#define ROUTES "envoy.config.route.v3.RouteConfiguration"
#define CLUSTER "envoy.config.cluster.v3.Cluster"
#define SECRET "envoy.extensions.transport_sockets.tls.v3.Secret"
#define BOOTSTRAP "envoy.config.bootstrap.v3.Bootstrap"

/* JSON with "%" replaced by `n` comma-separated copies of `item`, where '#' is the copy's
 * number. */
static sv repeated(struct arena *a, const char *json, const char *item, unsigned n) {
    struct buf BUF_AUTO out;
    buf_init(&out);
    for (const char *p = json; *p; p++) {
        if (*p != '%') {
            buf_append(&out, p, 1);
            continue;
        }
        for (unsigned i = 0; i < n; i++) {
            buf_append(&out, ",", i > 0);
            for (const char *q = item; *q; q++) {
                if (*q == '#') {
                    buf_printf(&out, "%u", i);
                } else {
                    buf_append(&out, q, 1);
                }
            }
        }
    }
    return arena_sv(a, buf_pullup(&out, buf_len(&out)));
}

static const ProtobufCMessage *message(struct pb_fixture *f, const char *type, sv json) {
    const ProtobufCMessage *m = pb_json_parse_text(proto_type_find(sv_cstr(type)), json,
                                                   PB_JSON_UNKNOWN_ERROR, &f->a, &f->d);
    assert_true(diag_ok(&f->d));
    assert_non_null(m);
    return m;
}

/* All slices; *longest: bytes of the longest. Frees s. */
static sv all_of(struct pb_fixture *f, struct pb_json_slices *s, size_t *slices, size_t *longest) {
    struct json_writer w;
    struct buf BUF_AUTO out;
    buf_init(&out);
    json_begin(&w, &out, 1);
    *slices = *longest = 0;
    for (bool more = true; more; ++*slices) {
        size_t before = buf_len(&out);
        more = pb_json_slices_next(s, &w);
        *longest = buf_len(&out) - before > *longest ? buf_len(&out) - before : *longest;
    }
    pb_json_slices_free(s);
    return arena_sv(&f->a, buf_pullup(&out, buf_len(&out)));
}

static sv as_any_in_one_go(struct pb_fixture *f, const char *type, sv wire) {
    Pb__Any any;
    pb__any__init(&any);
    any.type_url = (char *)(uintptr_t)arena_cstr(&f->a, arena_printf(&f->a, TYPE("%s"), type));
    any.value = (ProtobufCBinaryData){wire.n, (uint8_t *)(uintptr_t)wire.p};
    struct buf BUF_AUTO out;
    buf_init(&out);
    pb_json_append(&out, &any.base, PB_JSON_REDACT, 1);
    return arena_sv(&f->a, buf_pullup(&out, buf_len(&out)));
}

static sv sliced(struct pb_fixture *f, const char *type, sv wire, const char *mask, size_t *slices,
                 size_t *longest) {
    sv url = arena_printf(&f->a, TYPE("%s"), type);
    return all_of(f, pb_json_slices_of_any(url, wire, sv_cstr(mask), PB_JSON_REDACT), slices,
                  longest);
}

#define HCM                                                                                \
    "{\"@type\":\"type.googleapis.com/"                                                    \
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\"," \
    "\"stat_prefix\":\"s\",\"route_config\":{\"name\":\"r\",\"virtual_hosts\":[%]}}"
#define VHOST                                                                                     \
    "{\"name\":\"v#\",\"domains\":[\"#.example.com\"],\"routes\":[{\"match\":{\"prefix\":\"/\"}," \
    "\"route\":{\"cluster\":\"c#\"}}]}"

/* What is long in each is another kind of member. */
static const struct {
    const char *type, *json, *item;
    unsigned n;
} long_ones[] = {
    {ROUTES, "{\"name\":\"r\",\"virtual_hosts\":[%],\"vhds\":{\"config_source\":{\"ads\":{}}}}",
     VHOST, 2000},
    {ROUTES, "{\"name\":\"r\",\"internal_only_headers\":[%]}", "\"x-header-#\"", 3000},
    {ROUTES,
     "{\"virtual_hosts\":[{\"name\":\"a\",\"domains\":[\"*\"],\"routes\":[%]},{\"name\":\"b\"}]}",
     "{\"match\":{\"path\":\"/#\"},\"redirect\":{\"path_redirect\":\"/\"}}", 2000},
    {"envoy.config.listener.v3.Listener",
     "{\"name\":\"l\",\"filter_chains\":[{\"name\":\"c\",\"filters\":[{\"name\":\"h\",\"typed_"
     "config\":" HCM "}]},{\"name\":\"d\"}],\"reuse_port\":true}",
     VHOST, 2000},
    {CLUSTER,
     "{\"name\":\"c\",\"load_assignment\":{\"cluster_name\":\"c\",\"endpoints\":[{\"lb_endpoints\":"
     "[%],"
     "\"priority\":1}]},\"type\":\"EDS\"}",
     "{\"endpoint\":{\"address\":{\"socket_address\":{\"address\":\"10.0.0.1\",\"port_value\":#}}}"
     "}",
     2000},
    {CLUSTER, "{\"name\":\"c\",\"metadata\":{\"filter_metadata\":{%}}}",
     "\"k#\":{\"a\":[1,null,\"x\",{\"b\":true}]}", 2000},
    {CLUSTER, "{\"typed_extension_protocol_options\":{%}}",
     "\"o#\":{\"@type\":\"type.googleapis.com/envoy.config.core.v3.Locality\",\"zone\":\"z\"}",
     500},
    {SECRET,
     "{\"name\":\"s\",\"tls_certificate\":{\"certificate_chain\":{\"filename\":\"f\"},\"private_"
     "key\":"
     "{\"inline_string\":\"%\"},\"signed_certificate_timestamp\":[{\"inline_string\":\"t\"}]}}",
     "0123456789abcdef", 3000},
    {SECRET, "{\"session_ticket_keys\":{\"keys\":[%]}}", "{\"inline_string\":\"key#\"}", 2000},
    {"envoy.config.core.v3.TypedExtensionConfig",
     "{\"name\":\"e\",\"typed_config\":{\"@type\":\"type.googleapis.com/google.protobuf.Struct\","
     "\"value\":{%}}}",
     "\"k#\":#", 3000},
};

static void test_as_in_one_go(void **state) {
    struct pb_fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(long_ones); i++) {
        size_t slices, longest;
        sv json = repeated(&f->a, long_ones[i].json, long_ones[i].item, long_ones[i].n);
        sv wire = proto_pack(message(f, long_ones[i].type, json), &f->a);
        assert_row(wire.n > PB_JSON_SLICE_BYTES, i);
        sv text = sliced(f, long_ones[i].type, wire, "", &slices, &longest);
        assert_row(sv_eq(text, as_any_in_one_go(f, long_ones[i].type, wire)), i);
        const ProtobufCMessage *m = message(f, long_ones[i].type, json);
        struct buf BUF_AUTO out;
        buf_init(&out);
        pb_json_append(&out, m, PB_JSON_REDACT, 1);
        text = all_of(f, pb_json_slices_of_message(m, PB_JSON_REDACT), &slices, &longest);
        assert_row(sv_eq(text, buf_pullup(&out, buf_len(&out))), i);
    }
}

/* A slice is about one item, however many there are. */
static void test_slices_are_short(void **state) {
    struct pb_fixture *f = *state;
    for (size_t i = 0; i < 6; i++) {
        size_t slices, longest;
        sv json = repeated(&f->a, long_ones[i].json, long_ones[i].item, long_ones[i].n);
        sv wire = proto_pack(message(f, long_ones[i].type, json), &f->a);
        sliced(f, long_ones[i].type, wire, "", &slices, &longest);
        assert_row(slices > long_ones[i].n, i);
        assert_row(longest < 1024, i);
    }
}

static void test_short_ones(void **state) {
    struct pb_fixture *f = *state;
    size_t slices, longest;
    sv wire = proto_pack(message(f, CLUSTER, SV("{\"name\":\"c\"}")), &f->a);
    assert_sv_is(sliced(f, CLUSTER, wire, "", &slices, &longest),
                 "{\n \"@type\": \"" TYPE(CLUSTER) "\",\n \"name\": \"c\"\n}");
    assert_int_equal(slices, 1);
    assert_sv_is(sliced(f, CLUSTER, SV(""), "", &slices, &longest),
                 "{\n \"@type\": \"" TYPE(CLUSTER) "\"\n}");
    assert_sv_is(sliced(f, "foo.Unknown", SV("abc"), "", &slices, &longest),
                 "{\n \"@type\": \"" TYPE("foo.Unknown") "\",\n \"value\": \"YWJj\"\n}");
}

static sv joined(struct arena *a, sv x, sv y) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_append_sv(&b, x);
    buf_append_sv(&b, y);
    return arena_sv(a, buf_pullup(&b, buf_len(&b)));
}

/* As a parser sees them: the same member twice is merged, of a oneof the last counts. */
static void test_members_twice(void **state) {
    struct pb_fixture *f = *state;
    size_t slices, longest;
    sv big = repeated(&f->a, "{\"name\":\"c\",\"load_assignment\":{\"endpoints\":[%]}}",
                      "{\"priority\":#}", 5000);
    sv one = proto_pack(message(f, CLUSTER, big), &f->a);
    sv twice = joined(&f->a, one, one);
    assert_true(sv_eq(sliced(f, CLUSTER, twice, "", &slices, &longest),
                      as_any_in_one_go(f, CLUSTER, twice)));
    sv long_first = proto_pack(message(f, SECRET,
                                       repeated(&f->a, "{\"session_ticket_keys\":{\"keys\":[%]}}",
                                                "{\"inline_string\":\"key#\"}", 2000)),
                               &f->a);
    sv other = proto_pack(message(f, SECRET, SV("{\"name\":\"s\",\"tls_certificate\":{}}")), &f->a);
    sv rows[] = {joined(&f->a, long_first, other), joined(&f->a, other, long_first)};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(sv_eq(sliced(f, SECRET, rows[i], "", &slices, &longest),
                         as_any_in_one_go(f, SECRET, rows[i])),
                   i);
    }
}

static void test_no_message(void **state) {
    struct pb_fixture *f = *state;
    size_t slices, longest;
    sv good = proto_pack(
        message(f, ROUTES, repeated(&f->a, "{\"name\":\"r\",\"virtual_hosts\":[%]}", VHOST, 1000)),
        &f->a);
    static const char *const bad_ends[] = {
        /* cut off, too short, a group, a list's wire type */
        "\x0a", "\x0a\x05zz", "\x0b", "\x10\x01", "\x0a\x01\xff" /* a name that is not UTF-8 */
    };
    for (size_t i = 0; i < ARRAY_LEN(bad_ends); i++) {
        sv wire = joined(&f->a, good, sv_cstr(bad_ends[i]));
        assert_row(sv_eq(sliced(f, ROUTES, wire, "", &slices, &longest),
                         as_any_in_one_go(f, ROUTES, wire)),
                   i);
        assert_int_equal(slices, 1); /* as base64 */
    }
    /* one bad item among good ones is shown by itself */
    sv text = sliced(f, ROUTES, joined(&f->a, good, SV("\x12\x02\xff\xff")), "", &slices, &longest);
    assert_true(slices > 1000);
    assert_true(sv_ends(text, SV("  \"//8=\"\n ]\n}")));
}

static void test_masks(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *mask, *out;
    } rows[] = {
        {"name", "\"name\":\"c\""},
        {"type,name", "\"name\":\"c\",\"type\":\"EDS\""},
        {"connect_timeout", "\"connect_timeout\":\"5s\""},
        {"connect_timeout.seconds", "\"connect_timeout\":\"5s\""},
        {"eds_cluster_config.service_name", "\"eds_cluster_config\":{\"service_name\":\"n\"}"},
        {"eds_cluster_config.service_name,eds_cluster_config.eds_config.ads,eds_cluster_config.x",
         "\"eds_cluster_config\":{\"eds_config\":{\"ads\":{}},\"service_name\":\"n\"}"},
        {"eds_cluster_config.service_name,eds_cluster_config",
         "\"eds_cluster_config\":{\"eds_config\":{\"ads\":{}},\"service_name\":\"n\"}"},
        {"eds_cluster_config.nothing", "\"eds_cluster_config\":{}"},
        {"transport_socket.typed_config.zone",
         "\"transport_socket\":{\"typed_config\":{\"@type\":\"type.googleapis.com/"
         "envoy.config.core.v3.Locality\",\"zone\":\"z\"}}"},
        {"health_checks.alt_port", "\"health_checks\":[{}]"},
        {"nothing", ""},
        {"nam", ""},
        {"name.x", "\"name\":\"c\""},
    };
    sv json = SV(
        "{\"name\":\"c\",\"type\":\"EDS\",\"connect_timeout\":\"5s\",\"health_checks\":[{}],"
        "\"eds_cluster_config\":{\"service_name\":\"n\",\"eds_config\":{\"ads\":{}}},"
        "\"transport_socket\":{\"name\":\"t\",\"typed_config\":{\"@type\":"
        "\"type.googleapis.com/envoy.config.core.v3.Locality\",\"region\":\"r\",\"zone\":\"z\"}}}");
    sv wire = proto_pack(message(f, CLUSTER, json), &f->a);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct json_writer w;
        struct buf BUF_AUTO out;
        buf_init(&out);
        json_begin(&w, &out, 0);
        struct pb_json_slices *s =
            pb_json_slices_of_any(SV(TYPE(CLUSTER)), wire, sv_cstr(rows[i].mask), PB_JSON_REDACT);
        while (pb_json_slices_next(s, &w)) {}
        pb_json_slices_free(s);
        sv want = arena_printf(&f->a, "{\"@type\":\"" TYPE(CLUSTER) "\"%s%s}",
                               *rows[i].out ? "," : "", rows[i].out);
        assert_row(sv_eq(buf_pullup(&out, buf_len(&out)), want), i);
    }
}

/* The same wire bytes every time: a virtual host. */
static sv same_host(void *user, size_t i) {
    (void)i;
    return *(const sv *)user;
}

/* What is appended to a list is as if it stood on the wire, however short the rest is. */
static void test_appended(void **state) {
    struct pb_fixture *f = *state;
    static const char host[] = "{\"name\":\"v\",\"domains\":[\"d\"]}";
    static const struct {
        const char *base, *mask, *list;
        unsigned n;
    } rows[] = {
        {"{\"name\":\"r\"%s}", "", "virtual_hosts", 2},
        {"{\"name\":\"r\",\"virtual_hosts\":[{\"name\":\"own\",\"domains\":[\"o\"]}%s]}", "", NULL,
         3},
        {"{\"name\":\"r\"%s}", "", "virtual_hosts", 0},
        {"{\"name\":\"r\"%.0s}", "name", NULL, 2},
        {"{%s}", "virtual_hosts", "virtual_hosts", 2},
    };
    sv wire = proto_pack(message(f, "envoy.config.route.v3.VirtualHost", sv_cstr(host)), &f->a);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool is_own_list = rows[i].list != NULL;
        struct buf BUF_AUTO more;
        buf_init(&more);
        for (unsigned k = 0; k < rows[i].n; k++) {
            buf_printf(&more, "%s%s", k || !is_own_list ? "," : "", host);
        }
        sv hosts = arena_sv(&f->a, buf_pullup(&more, buf_len(&more)));
        if (is_own_list && hosts.n) {
            hosts = arena_printf(&f->a, "%s\"%s\":[%.*s]", i == 4 ? "" : ",", rows[i].list,
                                 SV_ARG(hosts));
        }
        sv want_json = arena_printf(&f->a, rows[i].base, arena_cstr(&f->a, hosts));
        sv base = proto_pack(message(f, ROUTES, arena_printf(&f->a, rows[i].base, "")), &f->a);
        sv all = proto_pack(message(f, ROUTES, want_json), &f->a);
        struct pb_json_slices *s = pb_json_slices_of_any(SV(TYPE(ROUTES)), i == 4 ? SV("") : base,
                                                         sv_cstr(rows[i].mask), PB_JSON_REDACT);
        const struct pb_json_more appended = {2, rows[i].n, same_host, &wire};
        pb_json_slices_append(s, &appended);
        size_t slices, longest;
        sv got = all_of(f, s, &slices, &longest);
        assert_row(sv_eq(got, sliced(f, ROUTES, all, rows[i].mask, &slices, &longest)), i);
    }
}

static void test_mask_texts(void **state) {
    static const char *const bad[] = {",", "a,,b", "a b", "a/b", "a-b", ",a"};
    (void)state;
    assert_true(field_mask_valid(SV("a.b,c_d,@type")));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(!field_mask_valid(sv_cstr(bad[i])), i);
    }
}

/* The client may go away at any time. */
static void test_given_up(void **state) {
    struct pb_fixture *f = *state;
    sv json = repeated(&f->a, long_ones[3].json, VHOST, 1000);
    sv wire = proto_pack(message(f, long_ones[3].type, json), &f->a);
    for (unsigned stop = 0; stop < 30; stop++) {
        struct json_writer w;
        struct buf BUF_AUTO out;
        buf_init(&out);
        json_begin(&w, &out, 1);
        sv url = arena_printf(&f->a, TYPE("%s"), long_ones[3].type);
        struct pb_json_slices *s = pb_json_slices_of_any(url, wire, SV_NULL, PB_JSON_REDACT);
        for (unsigned i = 0; i < stop; i++) {
            assert_true(pb_json_slices_next(s, &w));
        }
        pb_json_slices_free(s);
    }
    pb_json_slices_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_as_in_one_go),  PB_TEST(test_slices_are_short), PB_TEST(test_short_ones),
        PB_TEST(test_members_twice), PB_TEST(test_no_message),       PB_TEST(test_masks),
        PB_TEST(test_appended),      PB_TEST(test_mask_texts),       PB_TEST(test_given_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
