/* Discovery messages on the wire: responses as the generated code packs them, malformed ones,
 * errors. */
#include "xds/discovery_wire.h"

#include "protos/any.h"
#include "protos/gen/rpc.pb-c.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "tests/support/pb.h"

#define CDS "type.googleapis.com/envoy.config.cluster.v3.Cluster"
#define SOTW "envoy.service.discovery.v3.DiscoveryResponse"
#define DELTA "envoy.service.discovery.v3.DeltaDiscoveryResponse"

static struct discovery_response parse_text(struct pb_fixture *f, bool is_delta, const char *text) {
    sv wire = proto_pack(pb_make(f, is_delta ? DELTA : SOTW, text), &f->a);
    struct discovery_response r;
    assert_true((is_delta ? discovery_parse_delta : discovery_parse_sotw)(wire, &f->a, &r));
    return r;
}

static void test_sotw(void **state) {
    struct discovery_response r = parse_text(
        *state, false,
        "version_info: 'v1' nonce: 'n1' type_url: '" CDS "' control_plane { identifier: 'cp' } "
        "resources { type_url: '" CDS "' value: 'abc' } resources { type_url: '" CDS "' }");
    assert_sv_is(r.version, "v1");
    assert_sv_is(r.nonce, "n1");
    assert_sv_is(r.control_plane, "cp");
    assert_int_equal(r.type, RES_CLUSTER);
    assert_int_equal(r.resources_n, 2);
    assert_sv_is(r.resources[0].wire, "abc");
    assert_sv_is(r.resources[0].version, "v1");
    assert_non_null(r.resources[1].wire.p); /* an empty message, no heartbeat */
    assert_int_equal(r.resources[1].wire.n, 0);
    assert_int_equal(r.error.n, 0);
}

static void test_sotw_wrapped(void **state) {
    struct pb_fixture *f = *state;
    ServiceDiscovery__Resource w = SERVICE_DISCOVERY__RESOURCE__INIT;
    Pb__Duration ttl = PB__DURATION__INIT;
    ttl.seconds = 2;
    ttl.nanos = 500000000;
    w.name = "a";
    w.version = "ignored";
    w.ttl = &ttl;
    ServiceDiscovery__DiscoveryResponse m = SERVICE_DISCOVERY__DISCOVERY_RESPONSE__INIT;
    Pb__Any *list[] = {any_pack(&w.base, &f->a)};
    m.type_url = CDS;
    m.version_info = "v1";
    m.resources = list;
    m.n_resources = 1;
    struct discovery_response r;
    assert_true(discovery_parse_sotw(proto_pack(&m.base, &f->a), &f->a, &r));
    assert_sv_is(r.resources[0].name, "a");
    assert_sv_is(r.resources[0].version, "v1");
    assert_int_equal(r.resources[0].ttl_ms, 2500);
    assert_null(r.resources[0].wire.p); /* a heartbeat */
    /* with a resource, the name from it when the wrapper has none */
    Pb__Any inner = PB__ANY__INIT;
    inner.type_url = CDS;
    inner.value = (ProtobufCBinaryData){3, (uint8_t *)(uintptr_t) "\x0a\x01z"};
    w.name = "";
    w.resource = &inner;
    list[0] = any_pack(&w.base, &f->a);
    assert_true(discovery_parse_sotw(proto_pack(&m.base, &f->a), &f->a, &r));
    assert_sv_is(r.resources[0].name, "z");
    assert_int_equal(r.resources[0].wire.n, 3);
}

static void test_delta(void **state) {
    struct discovery_response r = parse_text(
        *state, true,
        "system_version_info: 's1' nonce: 'n1' type_url: '" CDS
        "' control_plane { identifier: 'cp' } "
        "resources { name: 'a' version: '1' resource { type_url: '" CDS "' value: 'abc' } } "
        "resources { name: 'b' ttl { seconds: 3 } } resources { resource_name { name: 'c' } "
        "version: '7' } "
        "removed_resources: 'x' removed_resources: '' removed_resource_names { name: 'y' } "
        "resource_errors { resource_name { name: 'q' } error_detail { code: 5 message: 'not here' "
        "} }");
    assert_sv_is(r.version, "s1");
    assert_sv_is(r.control_plane, "cp");
    assert_int_equal(r.resources_n, 3);
    assert_sv_is(r.resources[0].version, "1");
    assert_sv_is(r.resources[0].wire, "abc");
    assert_int_equal(r.resources[1].ttl_ms, 3000);
    assert_null(r.resources[1].wire.p);
    assert_sv_is(r.resources[2].name, "c");
    assert_int_equal(r.removed_n, 3);
    assert_sv_is(r.removed[0], "x");
    assert_sv_is(r.removed[2], "y");
}

static void test_type(void **state) {
    static const struct {
        const char *url;
        int type;
    } rows[] = {
        {CDS, RES_CLUSTER},
        {"example.com/envoy.config.cluster.v3.Cluster", RES_CLUSTER},
        {"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", RES_SECRET},
        {"type.googleapis.com/envoy.api.v2.Cluster", RES_TYPES},
        {"type.googleapis.com/", RES_TYPES},
        {"", RES_TYPES},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char text[256];
        snprintf(text, sizeof(text), "type_url: '%s'", rows[i].url);
        struct discovery_response r = parse_text(*state, i % 2, text);
        assert_row((int)r.type == rows[i].type, i);
    }
}

static void test_mismatch(void **state) {
    struct discovery_response r =
        parse_text(*state, false,
                   "type_url: '" CDS "' resources { type_url: 'x/foo.Bar' } "
                   "resources { type_url: 'x/foo.Baz' }");
    assert_sv_is(r.error, "type URL x/foo.Bar embedded in an individual Any does not match the "
                          "message-wide type URL " CDS " in DiscoveryResponse");
    r = parse_text(*state, true,
                   "type_url: '" CDS
                   "' resources { name: 'a' resource { type_url: 'x/foo.Bar' } }");
    assert_true(r.error.n > 0);
}

/* What neither parser may take. */
static void test_malformed(void **state) {
    struct pb_fixture *f = *state;
    static const sv rows[] = {
        SV_INIT("\x0a"), /* no length */
        SV_INIT("\x0a\x05"
                "ab"),           /* cut short */
        SV_INIT("\x0a\x01\xff"), /* version not UTF-8 */
        SV_INIT("\x0a\x01\x00"), /* NUL */
        SV_INIT("\x08\x01"),     /* version as a number */
        SV_INIT("\x22\x01\xc3"), /* type not UTF-8 */
        SV_INIT("\x2a\x01\x80"), /* nonce */
        SV_INIT("\x00"),         /* field 0 */
        SV_INIT("\x0b"),         /* group */
        SV_INIT("\x0c"),
        SV_INIT("\x0e"),                                             /* wire type 6 */
        SV_INIT("\x79\x01\x02"),                                     /* short fixed64 */
        SV_INIT("\x7d\x01"),                                         /* short fixed32 */
        SV_INIT("\x78\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* varint of 11 bytes */
        SV_INIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),     /* length 2^64-1 */
        SV_INIT("\x12\x02\x0a\x05"),                                 /* inside a resource */
        SV_INIT("\x10\x01"),                                         /* a resource as a number */
        /* delta: name not UTF-8; SotW: field 3 of Any is unknown */
        SV_INIT("\x12\x03\x1a\x01\xff"),
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct discovery_response r;
        bool sotw_may = i == ARRAY_LEN(rows) - 1;
        assert_row(discovery_parse_sotw(rows[i], &f->a, &r) == sotw_may, i);
        assert_row(!discovery_parse_delta(rows[i], &f->a, &r), i);
    }
}

static void test_limits(void **state) {
    struct pb_fixture *f = *state;
    struct buf BUF_AUTO b;
    buf_init(&b);
    char *name = arena_alloc(&f->a, XDS_NAME_MAX + 1);
    memset(name, 'a', XDS_NAME_MAX + 1);
    for (unsigned over = 0; over < 2; over++) {
        buf_clear(&b);
        wire_put_bytes(&b, 1, (sv){name, XDS_NAME_MAX + over});
        struct discovery_response r;
        assert_true(discovery_parse_delta(buf_pullup(&b, buf_len(&b)), &f->a, &r) == !over);
    }
    /* durations that are none */
    static const sv ttls[] = {
        SV_INIT("\x12\x0d\x32\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* -1 s */
        /* 10^9 ns, and a field 0 */
        SV_INIT("\x12\x09\x32\x07\x10\x80\x94\xeb\xdc\x03\x00"),
    };
    for (size_t i = 0; i < ARRAY_LEN(ttls); i++) {
        struct discovery_response r;
        assert_row(!discovery_parse_delta(ttls[i], &f->a, &r), i);
    }
}

static void test_empty(void **state) {
    struct pb_fixture *f = *state;
    struct discovery_response r;
    assert_true(discovery_parse_sotw(SV_NULL, &f->a, &r));
    assert_int_equal(r.type, RES_TYPES);
    assert_int_equal(r.resources_n, 0);
    assert_true(discovery_parse_delta(SV(""), &f->a, &r));
}

/* The resource before the type and the version. */
static void test_order(void **state) {
    struct pb_fixture *f = *state;
    struct buf BUF_AUTO b, any;
    buf_init(&b);
    buf_init(&any);
    wire_put_string(&any, 1, SV(CDS));
    wire_put_string(&any, 2, SV("x"));
    wire_put_bytes(&b, 2, buf_pullup(&any, buf_len(&any)));
    wire_put_string(&b, 4, SV(CDS));
    wire_put_string(&b, 1, SV("v"));
    struct discovery_response r;
    assert_true(discovery_parse_sotw(buf_pullup(&b, buf_len(&b)), &f->a, &r));
    assert_int_equal(r.error.n, 0);
    assert_sv_is(r.resources[0].version, "v");
}

static void test_error_text(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        sv text;
        const char *want;
    } rows[] = {
        {SV_INIT("plain"), "plain"},
        {SV_INIT("caf\xc3\xa9"), "caf\xc3\xa9"},
        {SV_INIT("a\xff"
                 "b"),
         "a?b"},
        {SV_INIT("a\0b"), "a?b"},
        {SV_INIT("\xc3"), "?"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf BUF_AUTO b;
        buf_init(&b);
        wire_put_error(&b, 6, rows[i].text);
        const ServiceDiscovery__DiscoveryRequest *r = PROTO_UNPACK(
            ServiceDiscovery__DiscoveryRequest, service_discovery__discovery_request__descriptor,
            buf_pullup(&b, buf_len(&b)), &f->a, &f->d);
        assert_row(r && r->error_detail && r->error_detail->code == DISCOVERY_INTERNAL, i);
        assert_string_equal(r->error_detail->message, rows[i].want);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_sotw),       PB_TEST(test_sotw_wrapped), PB_TEST(test_delta),
        PB_TEST(test_type),       PB_TEST(test_mismatch),     PB_TEST(test_malformed),
        PB_TEST(test_limits),     PB_TEST(test_empty),        PB_TEST(test_order),
        PB_TEST(test_error_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
