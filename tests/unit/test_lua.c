/* The Lua filter without an interpreter: which scripts have nothing to run. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type lua_http_filter;

#define CONFIG "envoy.extensions.filters.http.lua.v3.Lua"
#define ROUTE "envoy.extensions.filters.http.lua.v3.LuaPerRoute"
#define REFUSED                                                                          \
    "Lua scripts are not supported: only a script without statements (comments) may be " \
    "here; use header_mutation, ext_proc or ext_authz, or leave the script out"
#define SCRIPT "function envoy_on_request(h) end"
#define DEFAULT(text) "default_source_code { inline_string: '" text "' }"

static const struct row {
    const char *config, *error; /* error "": taken */
} configs[] = {
    {"", ""},
    {"stat_prefix: 'x' clear_route_cache { }", ""},
    {"inline_code: '  -- nothing'", ""},
    {"inline_code: '--\\n--[[ two\\nlines ]] --[==[ a ]] ]=] b ]==]\\n\\t\\r'", ""},
    {DEFAULT("-- Placeholder for per-Route or per-Cluster overrides."), ""},
    {DEFAULT(""), ""},
    {"source_codes { key: 'cookies' value { inline_string: '" SCRIPT "' } }", ""},
    {"inline_code: '" SCRIPT "'", "inline_code: " REFUSED},
    {"inline_code: '-- a\\n" SCRIPT "'", "inline_code: " REFUSED},
    {"inline_code: '--[[ a ]] " SCRIPT "'", "inline_code: " REFUSED},
    {"inline_code: '--[=[ a ]=] x'", "inline_code: " REFUSED},
    {"inline_code: '--[= a\\nx'", "inline_code: " REFUSED},
    {"inline_code: '--[==[ a ]=]\\nx ]==] y'", "inline_code: " REFUSED},
    {"inline_code: '-'", "inline_code: " REFUSED},
    {"inline_code: '\\\\'", "inline_code: " REFUSED},
    {DEFAULT(SCRIPT), "default_source_code: " REFUSED},
    {"inline_code: '--' " DEFAULT("--"),
     "Error: Only one of `inline_code` or `default_source_code` can be set for the Lua filter."},
};
static const struct row routes[] = {
    {"disabled: true", ""},
    {"source_code { inline_string: '--' }", ""},
    {"filter_context { }", ""},
    {"name: 'cookies'", "name: script 'cookies': " REFUSED},
    {"source_code { inline_string: '" SCRIPT "' }", "source_code: " REFUSED},
};

static void check(const struct row *r, const void *got, size_t i) {
    sv why = diag_text(&f.diag);
    if ((got != NULL) != !*r->error || !sv_is(why, r->error)) {
        fail_msg("row %zu: %s: '%.*s'", i, got ? "taken" : "refused", SV_ARG(why));
    }
    diag_reset(&f.diag);
}

static void test_configs(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        const void *msg = fake_msg(&f, CONFIG, configs[i].config);
        check(&configs[i], lua_http_filter.compile(&f.ctx, msg), i);
    }
}

static void test_routes(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        const void *msg = fake_msg(&f, ROUTE, routes[i].config);
        check(&routes[i], lua_http_filter.compile_route(&f.ctx, msg, ROUTE), i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_configs, start, end),
                                       cmocka_unit_test_setup_teardown(test_routes, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
