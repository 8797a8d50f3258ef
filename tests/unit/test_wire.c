/* The wire pre-check: what protobuf-c would not notice is refused, with the path of the field. */
#include "protos/wire.h"

#include "proxy/base/mem.h"
#include "tests/support/unit.h"

struct fixture {
    struct diag d;
};

static int start(void **state) {
    static struct fixture f;
    diag_init(&f.d);
    *state = &f;
    return 0;
}

static int end(void **state) {
    diag_fini(&((struct fixture *)*state)->d);
    chunk_cache_trim();
    return 0;
}

static bool check(struct diag *d, const char *type, sv wire) {
    diag_reset(d);
    return wire_check(proto_type_find(sv_cstr(type)), wire, d);
}

#define NODE "envoy.config.core.v3.Node"
#define BOOTSTRAP "envoy.config.bootstrap.v3.Bootstrap"

static void test_good(void **state) {
    struct diag *d = &((struct fixture *)*state)->d;
    static const struct {
        const char *type;
        sv wire;
    } rows[] = {
        {NODE, SV_INIT("")},
        {NODE, SV_INIT("\x0a\x01"
                       "a")},                        /* id */
        {NODE, SV_INIT("\x0a\x02\xc3\xbc\x12\x00")}, /* UTF-8, an empty string */
        {NODE, SV_INIT("\xf8\x3f\x05")},             /* unknown varint */
        {NODE, SV_INIT("\xfa\x3f\x02\xff\x00")},     /* unknown bytes are not text */
        {NODE, SV_INIT("\xfd\x3f\x01\x02\x03\x04")}, /* unknown 32 bits */
        {NODE, SV_INIT("\xf9\x3f\x01\x02\x03\x04\x05\x06\x07\x08")},
        {"envoy.type.v3.DoubleRange", SV_INIT("\x09\x00\x00\x00\x00\x00\x00\xf0\x3f")},
        {"google.protobuf.Any", SV_INIT("\x0a\x00\x12\x02\xff\xff")}, /* bytes are anything */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(check(d, rows[i].type, rows[i].wire), i);
        assert_row(diag_ok(d), i);
    }
}

static void test_bad(void **state) {
    struct diag *d = &((struct fixture *)*state)->d;
    static const struct {
        const char *type;
        sv wire;
        const char *error;
    } rows[] = {
        {NODE, SV_INIT("\x0a"), "id: wire bytes are cut off or malformed"},
        {NODE,
         SV_INIT("\x0a\x02"
                 "a"),
         "id: wire bytes are cut off or malformed"},
        {NODE, SV_INIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
         "id: wire bytes are cut off or malformed"},
        {NODE, SV_INIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
         "id: wire bytes are cut off or malformed"},
        {NODE, SV_INIT("\x02\x00"), "invalid field tag in wire bytes"}, /* field 0 */
        {NODE, SV_INIT("\x80"), "invalid field tag in wire bytes"},
        {NODE, SV_INIT("\xff\xff\xff\xff\x7f\x00"), "invalid field tag in wire bytes"},
        {NODE, SV_INIT("\x0b"), "id: wire bytes are cut off or malformed"},     /* group */
        {NODE, SV_INIT("\x0e\x00"), "id: wire bytes are cut off or malformed"}, /* wire type 6 */
        {NODE, SV_INIT("\xfb\x3f\xfc\x3f"), "wire bytes are cut off or malformed"},
        {NODE, SV_INIT("\x08\x05"), "id: wire type does not fit the field"},
        {NODE, SV_INIT("\x0a\x01\xff"), "id: string is not valid UTF-8"},
        {NODE, SV_INIT("\x0a\x03\xed\xa0\x80"), "id: string is not valid UTF-8"}, /* surrogate */
        {NODE,
         SV_INIT("\x0a\x03"
                 "a\0b"),
         "id: string contains a NUL character"},
        /* static_resources { clusters { name: "a" } clusters { name: <bad> } } */
        {BOOTSTRAP,
         SV_INIT("\x12\x0a\x12\x03\x0a\x01"
                 "a\x12\x03\x0a\x01\xff"),
         "static_resources.clusters[1].name: string is not valid UTF-8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(!check(d, rows[i].type, rows[i].wire), i);
        assert_sv_is(diag_text(d), rows[i].error);
        assert_row(diag_path(d).n == 0, i);
    }
}

static void test_packed(void **state) {
    struct diag *d = &((struct fixture *)*state)->d;
    const char *type = "envoy.config.listener.v3.FilterChainMatch"; /* source_ports = 7 */
    assert_true(check(d, type, SV("\x3a\x03\x01\x80\x01")));        /* packed */
    assert_true(check(d, type, SV("\x38\x01\x38\x80\x01")));        /* one by one */
    assert_true(check(d, type, SV("\x3a\x00")));
    assert_false(check(d, type, SV("\x3a\x02\x01\x80"))); /* the last one is cut */
    assert_sv_is(diag_text(d), "source_ports[0]: wire type does not fit the field");
    type = "envoy.config.metrics.v3.HistogramBucketSettings"; /* repeated double buckets = 2 */
    assert_true(check(d, type, SV("\x12\x08\x00\x00\x00\x00\x00\x00\x00\x00")));
    assert_false(check(d, type, SV("\x12\x07\x00\x00\x00\x00\x00\x00\x00")));
}

/* google.protobuf.Value { list_value { values { list_value { … } } } }: two messages a level. */
static sv nested_lists(unsigned levels, struct buf *out) {
    size_t n = 0;
    char *bytes = xalloc(16 * (size_t)levels + 16);
    for (unsigned i = 0; i < levels; i++) {
        for (int part = 0; part < 2; part++) { /* values = 1, then list_value = 6 */
            unsigned char head[6];
            size_t h = 0, len = n;
            head[h++] = part == 0 ? 0x0a : 0x32;
            do {
                head[h++] = (unsigned char)((len & 0x7f) | (len > 0x7f ? 0x80 : 0));
                len >>= 7;
            } while (len);
            memmove(bytes + h, bytes, n);
            memcpy(bytes, head, h);
            n += h;
        }
    }
    buf_append(out, bytes, n);
    xfree(bytes);
    return buf_pullup(out, n);
}

static void test_depth(void **state) {
    struct diag *d = &((struct fixture *)*state)->d;
    static const struct {
        unsigned levels;
        bool ok;
    } rows[] = {{1, true}, {49, true}, {50, false}, {100000, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf out BUF_AUTO;
        buf_init(&out);
        sv wire = nested_lists(rows[i].levels, &out);
        assert_row(check(d, "google.protobuf.Value", wire) == rows[i].ok, i);
    }
    assert_true(sv_ends(diag_text(d), SV("message is nested too deeply")));
}

static void test_varint(void **state) {
    (void)state;
    uint64_t v = 0;
    sv s = SV("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01rest");
    assert_true(wire_eat_varint(&s, &v));
    assert_true(v == UINT64_MAX);
    assert_sv_is(s, "rest");
    s = SV("\x80\x80");
    assert_false(wire_eat_varint(&s, &v));
    assert_int_equal(s.n, 2);
    s = SV_NULL;
    assert_false(wire_eat_varint(&s, &v));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_good, start, end),
        cmocka_unit_test_setup_teardown(test_bad, start, end),
        cmocka_unit_test_setup_teardown(test_packed, start, end),
        cmocka_unit_test_setup_teardown(test_depth, start, end),
        cmocka_unit_test(test_varint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
