/* Accept-Encoding headers against offers; the expectations were compared with Envoy's choices. */
#include "filters/common/accept_encoding.h"
#include "tests/support/unit.h"

static const struct choice_case {
    const char *header;
    const char *preferred; /* the offer that is preferred; NULL: none */
    enum encoding_choice_kind kind;
    const char *encoding;
} cases[] = {
    {"gzip", NULL, ENCODING_ACCEPTED, "gzip"},
    {"br", NULL, ENCODING_ACCEPTED, "br"},
    {"gzip, br", NULL, ENCODING_ACCEPTED, "gzip"},
    {"br, gzip", NULL, ENCODING_ACCEPTED, "br"},
    {"gzip;q=0.5, br;q=0.6, zstd;q=0.7", NULL, ENCODING_ACCEPTED, "zstd"},
    {"deflate, gzip;q=1.0, *;q=0.5", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip ; q = 0.2 , br ; q=0.1", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip;q=1.5, br", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip;q=1e-3", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip;q=.5", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip;q", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip;=1", NULL, ENCODING_ACCEPTED, "gzip"},
    {"gzip;v=1;q=0", NULL, ENCODING_ACCEPTED, "gzip"}, /* only the first parameter */
    {",,gzip", NULL, ENCODING_ACCEPTED, "gzip"},
    {"*;q=0, gzip", NULL, ENCODING_ACCEPTED, "gzip"},
    /* any */
    {"*", NULL, ENCODING_WILDCARD, "br"},
    {"br;q=0, *", NULL, ENCODING_WILDCARD, "zstd"},
    {"br;q=0, *, zstd;q=0", NULL, ENCODING_WILDCARD, "gzip"},
    {"gzip;q=0.5, *;q=0.6", NULL, ENCODING_WILDCARD, "br"},
    /* none at all */
    {"identity", NULL, ENCODING_IDENTITY, ""},
    {"identity, gzip", NULL, ENCODING_IDENTITY, ""},
    {"gzip;q=0.5, identity", NULL, ENCODING_IDENTITY, ""},
    {"", NULL, ENCODING_NONE, ""},
    {",", NULL, ENCODING_NONE, ""},
    {"deflate", NULL, ENCODING_NONE, ""},
    {"GZIP", NULL, ENCODING_NONE, ""},
    {"gzip;q=0", NULL, ENCODING_NONE, ""},
    {"gzip;Q=0", NULL, ENCODING_NONE, ""},
    {"gzip;q=-1", NULL, ENCODING_NONE, ""},
    {"gzip;q=", NULL, ENCODING_NONE, ""},
    {"gzip;q=abc", NULL, ENCODING_NONE, ""},
    {"gzip;q=1 1", NULL, ENCODING_NONE, ""},
    {"gzip;q=nan", NULL, ENCODING_NONE, ""},
    {"gzip;q=0.5;v=1", NULL, ENCODING_NONE, ""},
    {"identity;q=0", NULL, ENCODING_NONE, ""},
    {"*;q=0", NULL, ENCODING_NONE, ""},
    {"gzip;q=0, br;q=0, zstd;q=0, *", NULL, ENCODING_NONE, ""},
    /* of equal weight */
    {"gzip, zstd, br", "zstd", ENCODING_ACCEPTED, "zstd"},
    {"gzip, br", "zstd", ENCODING_ACCEPTED, "gzip"},
    {"gzip, zstd;q=0.9", "zstd", ENCODING_ACCEPTED, "gzip"},
    {"zstd;q=0, gzip", "zstd", ENCODING_ACCEPTED, "gzip"},
    {"identity, zstd", "zstd", ENCODING_ACCEPTED, "zstd"},
    {"zstd;q=0", "zstd", ENCODING_NONE, ""},
};

static void choices(void **state) {
    (void)state;
    static const char *const offered[] = {"br", "zstd", "gzip"};
    for (size_t row = 0; row < ARRAY_LEN(cases); row++) {
        const struct choice_case *c = &cases[row];
        struct encoding_offers o = {.n = 0};
        for (size_t i = 0; i < ARRAY_LEN(offered); i++) {
            encoding_offer(&o, sv_cstr(offered[i]),
                           c->preferred && strcmp(c->preferred, offered[i]) == 0);
        }
        struct encoding_choice got = encoding_choose(sv_cstr(c->header), &o);
        assert_row(got.kind == c->kind, row);
        assert_row(sv_is(got.encoding, c->encoding), row);
    }
}

static void the_last_preferred_of_the_header_wins(void **state) {
    (void)state;
    struct encoding_offers o = {.n = 0};
    encoding_offer(&o, SV("br"), true);
    encoding_offer(&o, SV("zstd"), true);
    assert_sv_is(encoding_choose(SV("gzip, zstd, br"), &o).encoding, "br");
    assert_sv_is(encoding_choose(SV("br, zstd"), &o).encoding, "zstd");
}

static void offers_are_bounded_and_distinct(void **state) {
    (void)state;
    static const char names[] = "abcdefghijkl";
    struct encoding_offers o = {.n = 0};
    encoding_offer(&o, sv_from(names, 1), true);
    encoding_offer(&o, sv_from(names, 1), false);
    assert_int_equal(o.n, 1);
    assert_true(o.v[0].is_preferred);
    for (size_t i = 0; i < sizeof(names) - 1; i++) {
        encoding_offer(&o, sv_from(names + i, 1), false);
    }
    assert_int_equal(o.n, ENCODING_OFFERS_MAX);
    assert_int_equal(encoding_choose(SV("l"), &o).kind, ENCODING_NONE);
}

static void nothing_is_offered(void **state) {
    (void)state;
    struct encoding_offers o = {.n = 0};
    assert_int_equal(encoding_choose(SV("gzip, *, identity"), &o).kind, ENCODING_NONE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(choices),
        cmocka_unit_test(the_last_preferred_of_the_header_wins),
        cmocka_unit_test(offers_are_bounded_and_distinct),
        cmocka_unit_test(nothing_is_offered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
