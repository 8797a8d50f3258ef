/* Names of xdstp:// collections: which are taken, their canonical form, who belongs to them. */
#include "proxy/config/collection.h"
#include "tests/support/unit.h"

#define TYPE "envoy.config.endpoint.v3.LbEndpoint"

static void parsed(void **state) {
    (void)state;
    static const struct {
        const char *url, *want; /* want NULL: refused, … */
        const char *error;      /* …with these words */
    } cases[] = {
        {"xdstp://a/" TYPE "/c/*", "xdstp://a/" TYPE "/c/*", NULL},
        {"xdstp:///" TYPE "/c/*", "xdstp:///" TYPE "/c/*", NULL},
        {"xdstp://a/" TYPE "/*", "xdstp://a/" TYPE "/*", NULL},
        {"xdstp://a/" TYPE "/c/d/*?b=2&a=1", "xdstp://a/" TYPE "/c/d/*?a=1&b=2", NULL},
        {"xdstp://a/" TYPE "/*?", "xdstp://a/" TYPE "/*", NULL},
        {"xdstp://a/" TYPE "/*?&a=/&", "xdstp://a/" TYPE "/*?a=/", NULL},
        {"", NULL, "xdstp: scheme"},
        {"c", NULL, "xdstp: scheme"},
        {"http://a/" TYPE "/c/*", NULL, "xdstp: scheme"},
        {"file:///c", NULL, "xdstp: scheme"},
        {"xdstp:", NULL, "must be xdstp://"},
        {"xdstp://", NULL, "must be xdstp://"},
        {"xdstp://a", NULL, "must be xdstp://"},
        {"xdstp://a/", NULL, "must be xdstp://"},
        {"xdstp://a/" TYPE, NULL, "must be xdstp://"},
        {"xdstp://a/" TYPE "/", NULL, "must be xdstp://"},
        {"xdstp://a//c/*", NULL, "must be xdstp://"},
        {"xdstp://?/b/*", NULL, "must be xdstp://"},
        {"xdstp://a/" TYPE "/c/*#entry=x", NULL, "directives are not supported"},
        {"xdstp://a/other.Type/c/*", NULL, "type does not match " TYPE},
        {"xdstp://a/" TYPE "/c/d", NULL, "must be a glob collection"},
        {"xdstp://a/" TYPE "/c*", NULL, "must be a glob collection"},
        {"xdstp://a/" TYPE "/c/d?x=/*", NULL, "must be a glob collection"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf BUF_AUTO out;
        struct diag d;
        buf_init(&out);
        diag_init(&d);
        bool ok = collection_parse(sv_cstr(cases[i].url), TYPE, &out, &d);
        assert_int_equal(ok, cases[i].want != NULL);
        assert_int_equal(ok, diag_ok(&d));
        sv text = ok ? buf_pullup(&out, buf_len(&out)) : diag_text(&d);
        if (ok) {
            assert_sv_is(text, cases[i].want);
        } else {
            assert_true(sv_contains(text, sv_cstr(cases[i].error)));
            assert_true(buf_empty(&out));
        }
        diag_fini(&d);
    }
}

static void members(void **state) {
    (void)state;
    static const struct {
        const char *name, *collection; /* NULL: in none */
    } cases[] = {
        {"xdstp://a/t/c/1", "xdstp://a/t/c/*"},
        {"xdstp://a/t/1", "xdstp://a/t/*"},
        {"xdstp://a/t/c/*", "xdstp://a/t/c/*"},
        {"xdstp://a/t/c/d/1?y=1&x=2", "xdstp://a/t/c/d/*?x=2&y=1"},
        {"xdstp:///t/c/1", "xdstp:///t/c/*"},
        {"c/1", NULL},
        {"", NULL},
        {"xdstp:/a/t/c/1", NULL},
        {"xdstp://a/t", NULL},
        {"xdstp://a/t/", NULL},
        {"xdstp://a?/t/c/1", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf BUF_AUTO out;
        buf_init(&out);
        assert_int_equal(collection_of(sv_cstr(cases[i].name), &out), cases[i].collection != NULL);
        if (cases[i].collection) {
            assert_sv_is(buf_pullup(&out, buf_len(&out)), cases[i].collection);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parsed), cmocka_unit_test(members)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
