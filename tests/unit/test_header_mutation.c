/* Header additions and removals: order, actions, formats, and what is refused. */
#include "proxy/api/header_mutation.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

#define OPTION "envoy.config.core.v3.HeaderValueOption"
#define MUTATION "envoy.config.common.mutation_rules.v3.HeaderMutation"
#define LIST_MAX 6

/* "name=value;…" in order */
static const char *shown(const struct headers *h) {
    static char out[1024];
    size_t n = 0;
    HEADERS_FOREACH (it, h) {
        n += (size_t)snprintf(out + n, sizeof(out) - n, "%.*s=%.*s;", SV_ARG(it->name),
                              SV_ARG(it->value));
    }
    out[n] = '\0';
    return out;
}

static void fill(struct headers *h, const char *text) {
    headers_init(h, &f.msgs);
    sv rest = sv_cstr(text);
    while (rest.n) {
        sv pair = sv_cut(&rest, ';');
        sv name = sv_cut(&pair, '=');
        headers_add_copy(h, name, pair);
    }
}

static size_t messages(const char *type, const char *const *texts, const void **out) {
    size_t n = 0;
    while (n < LIST_MAX && texts[n]) {
        out[n] = fake_msg(&f, type, texts[n]);
        n++;
    }
    return n;
}

static const struct {
    const char *add[LIST_MAX];
    const char *remove[2];
    const char *before, *want;
} cases[] = {
    {{"header { key: 'X' value: '1' }"}, {NULL}, "", "x=1;"},
    {{"header { key: 'x' value: '1' }"}, {NULL}, "x=0;", "x=0;x=1;"},
    {{"header { key: 'x' value: '1' } append_action: APPEND_IF_EXISTS_OR_ADD"},
     {NULL},
     "x=0;",
     "x=0;x=1;"},
    {{"header { key: 'x' value: '1' } append_action: ADD_IF_ABSENT"}, {NULL}, "x=0;", "x=0;"},
    {{"header { key: 'x' value: '1' } append_action: ADD_IF_ABSENT"}, {NULL}, "", "x=1;"},
    {{"header { key: 'x' value: '1' } append_action: OVERWRITE_IF_EXISTS_OR_ADD"},
     {NULL},
     "x=0;",
     "x=1;"},
    {{"header { key: 'x' value: '1' } append_action: OVERWRITE_IF_EXISTS_OR_ADD"},
     {NULL},
     "",
     "x=1;"},
    {{"header { key: 'x' value: '1' } append_action: OVERWRITE_IF_EXISTS"}, {NULL}, "x=0;", "x=1;"},
    {{"header { key: 'x' value: '1' } append_action: OVERWRITE_IF_EXISTS"}, {NULL}, "y=0;", "y=0;"},
    {{"header { key: 'x' value: '1' } append { value: true }"}, {NULL}, "x=0;", "x=0;x=1;"},
    {{"header { key: 'x' value: '1' } append { value: false }"}, {NULL}, "x=0;x=00;", "x=1;"},
    {{"header { key: 'user-agent' value: '1' } append_action: OVERWRITE_IF_EXISTS_OR_ADD"},
     {NULL},
     "user-agent=0;",
     "user-agent=1;"},
    {{NULL}, {"X"}, "x=0;y=1;x=2;", "y=1;"},
    {{NULL}, {"user-agent"}, "user-agent=0;y=1;", "y=1;"},
    {{NULL}, {"gone"}, "y=1;", "y=1;"},
    /* removed first, then added */
    {{"header { key: 'x' value: '1' }"}, {"x"}, "x=0;", "x=1;"},
    {{"header { key: 'x' value: '1' } append_action: OVERWRITE_IF_EXISTS"}, {"x"}, "x=0;", ""},
    /* overwrites come before additions, in whatever order they are listed */
    {{"header { key: 'x' value: 'a' }",
      "header { key: 'x' value: 'o' } append_action: OVERWRITE_IF_EXISTS_OR_ADD"},
     {NULL},
     "x=0;",
     "x=o;x=a;"},
    /* each is decided by the headers as they were */
    {{"header { key: 'x' value: '1' } append_action: ADD_IF_ABSENT",
      "header { key: 'x' value: '2' } append_action: ADD_IF_ABSENT"},
     {NULL},
     "",
     "x=1;x=2;"},
    {{"header { key: 'x' value: '1' }",
      "header { key: 'x' value: '2' } append_action: OVERWRITE_IF_EXISTS"},
     {NULL},
     "",
     "x=1;"},
    /* empty values are left out unless they are asked for */
    {{"header { key: 'x' value: '' }"}, {NULL}, "", ""},
    {{"header { key: 'x' value: '' } keep_empty_value: true"}, {NULL}, "", "x=;"},
    {{"header { key: 'x' value: '' } append_action: OVERWRITE_IF_EXISTS_OR_ADD"},
     {NULL},
     "x=0;",
     "x=0;"},
    {{"header { key: 'x' value: '' } append_action: OVERWRITE_IF_EXISTS_OR_ADD keep_empty_value: "
      "true"},
     {NULL},
     "x=0;",
     "x=;"},
    /* formats */
    {{"header { key: 'x' value: '100%%' }"}, {NULL}, "", "x=100%;"},
    {{"header { key: 'x' value: '%REQ(y)%' }"}, {NULL}, "y=1;", "y=1;x=1;"},
    {{"header { key: 'x' value: 'a-%REQ(y)%-b' }"}, {NULL}, "y=1;", "y=1;x=a-1-b;"},
    {{"header { key: 'x' value: '%REQ(gone)%' }"}, {NULL}, "y=1;", "y=1;"},
    {{"header { key: 'x' value: '%REQ(gone)%' } keep_empty_value: true"},
     {NULL},
     "y=1;",
     "y=1;x=;"},
    {{"header { key: 'y' value: '%REQ(y)%2' } append_action: OVERWRITE_IF_EXISTS_OR_ADD"},
     {NULL},
     "y=1;",
     "y=12;"},
    {{"header { key: 'y' value: '2' } append_action: OVERWRITE_IF_EXISTS_OR_ADD",
      "header { key: 'x' value: '%REQ(y)%' }"},
     {NULL},
     "y=1;",
     "y=2;x=1;"},
    {{"header { key: 'x' value: '%DYNAMIC_METADATA([\"ns\", \"k\"])%' }"}, {NULL}, "", ""},
    {{"header { key: 'x' value: '%PER_REQUEST_STATE(gone)%' }"}, {NULL}, "", ""},
};

static void at_once(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const void *add[LIST_MAX];
        size_t n = messages(OPTION, cases[i].add, add), remove_n = cases[i].remove[0] ? 1 : 0;
        struct header_mutations *m =
            header_mutations_compile(&f.ctx, add, n, cases[i].remove, remove_n);
        assert_row(m != NULL, i);
        struct headers h;
        fill(&h, cases[i].before);
        struct stream_info si = {.request = &h, .arena = &f.msgs};
        header_mutations_apply(m, &h, &si);
        if (strcmp(shown(&h), cases[i].want) != 0) {
            fail_msg("row %zu: got '%s', want '%s'", i, shown(&h), cases[i].want);
        }
    }
}

static const struct {
    const char *list[LIST_MAX];
    const char *before, *want;
} ordered[] = {
    {{"append { header { key: 'x' value: '1' } }", "remove: 'x'"}, "x=0;", ""},
    {{"remove: 'x'", "append { header { key: 'x' value: '1' } }"}, "x=0;", "x=1;"},
    {{"append { header { key: 'x' value: '1' } append_action: ADD_IF_ABSENT }",
      "append { header { key: 'x' value: '2' } append_action: ADD_IF_ABSENT }"},
     "",
     "x=1;"},
    {{"append { header { key: 'y' value: '2' } append_action: OVERWRITE_IF_EXISTS_OR_ADD }",
      "append { header { key: 'x' value: '%REQ(y)%' } }"},
     "y=1;",
     "y=2;x=2;"},
    {{"remove_on_match { key_matcher { prefix: 'x-' } }"},
     ":path=/;x-a=1;y=2;x-b=3;x-a=4;",
     ":path=/;y=2;"},
    {{"remove_on_match { key_matcher { safe_regex { regex: '.*' } } }"},
     ":path=/;host=h;y=2;",
     ":path=/;host=h;"},
    {{"remove_on_match { key_matcher { exact: 'User-Agent' ignore_case: true } }"},
     "user-agent=1;",
     ""},
    {{"remove_on_match { key_matcher { exact: 'z' } }"}, "y=2;", "y=2;"},
};

static void in_order(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ordered); i++) {
        const void *msgs[LIST_MAX];
        size_t n = messages(MUTATION, ordered[i].list, msgs);
        struct header_mutations *m = header_mutations_compile_list(&f.ctx, msgs, n);
        assert_row(m != NULL, i);
        struct headers h;
        fill(&h, ordered[i].before);
        struct stream_info si = {.request = &h, .arena = &f.msgs};
        header_mutations_apply(m, &h, &si);
        if (strcmp(shown(&h), ordered[i].want) != 0) {
            fail_msg("row %zu: got '%s', want '%s'", i, shown(&h), ordered[i].want);
        }
    }
}

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *type, *text, *want;
    } bad[] = {
        {OPTION, "header { key: ':path' value: 'x' }",
         "[0]: :-prefixed or host headers may not be modified"},
        {OPTION, "header { key: 'hOst' value: 'x' }",
         "[0]: :-prefixed or host headers may not be modified"},
        {OPTION, "header { value: 'x' }", "[0]: :-prefixed or host headers may not be modified"},
        {OPTION, "", "[0]: header: value is required"},
        {OPTION,
         "header { key: 'x' value: 'y' } append { value: true } append_action: OVERWRITE_IF_EXISTS",
         "[0]: Both append and append_action are set and it's not allowed"},
        {OPTION, "header { key: 'x' value: 'y' } append_action: 77",
         "[0]: append_action: value must be one of the defined enum values"},
        {MUTATION, "", "[0]: action: value is required"},
        {MUTATION, "remove: ':authority'",
         "[0].remove: :-prefixed or host headers may not be removed"},
        {MUTATION, "append { header { key: ':x' value: 'x' } }",
         "[0].append: :-prefixed or host headers may not be modified"},
        {MUTATION, "remove_on_match {}", "[0].remove_on_match.key_matcher: value is required"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const void *msg = fake_msg(&f, bad[i].type, bad[i].text);
        bool ok = bad[i].type[sizeof("envoy.config.co") - 1] == 'r'
                      ? header_mutations_compile(&f.ctx, &msg, 1, NULL, 0) != NULL
                      : header_mutations_compile_list(&f.ctx, &msg, 1) != NULL;
        assert_row(!ok, i);
        assert_sv_is(fake_errors(&f), bad[i].want);
    }
    const void *unknown = fake_msg(&f, OPTION, "header { key: 'x' value: '%NOSUCH%' }");
    assert_null(header_mutations_compile(&f.ctx, &unknown, 1, NULL, 0));
    assert_true(sv_starts(fake_errors(&f), SV("[0].header.value: ")));
    const char *hosts[] = {"host"};
    assert_null(header_mutations_compile(&f.ctx, NULL, 0, hosts, 1));
    assert_sv_is(fake_errors(&f), ":-prefixed or host headers may not be removed");
}

/* A value made from what a peer sent must not break the header block. */
static void no_injection(void **state) {
    (void)state;
    const void *add = fake_msg(&f, OPTION, "header { key: 'x' value: '%REQ(y)%' }");
    struct header_mutations *m = header_mutations_compile(&f.ctx, &add, 1, NULL, 0);
    struct headers h;
    headers_init(&h, &f.msgs);
    headers_add_copy(&h, SV("y"), SV("a\r\nevil: 1"));
    struct stream_info si = {.request = &h, .arena = &f.msgs};
    header_mutations_apply(m, &h, &si);
    assert_null(headers_find_name(&h, SV("x")));
}

static void nothing(void **state) {
    (void)state;
    struct headers h;
    fill(&h, "a=1;");
    assert_null(header_mutations_compile(&f.ctx, NULL, 0, NULL, 0));
    assert_null(header_mutations_compile_list(&f.ctx, NULL, 0));
    header_mutations_apply(NULL, &h, NULL);
    assert_string_equal(shown(&h), "a=1;");
    assert_int_equal(f.diag.errors_, 0);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(at_once), TEST(in_order), TEST(refused), TEST(no_injection), TEST(nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
