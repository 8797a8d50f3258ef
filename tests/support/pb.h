/* An arena and a diag for tests of messages, and messages from text. */
#ifndef SLUICE_TESTS_SUPPORT_PB_H
#define SLUICE_TESTS_SUPPORT_PB_H

#include "protos/pb_json.h"
#include "protos/pb_text.h"
#include "tests/support/unit.h"

struct pb_fixture {
    struct arena a;
    struct diag d;
};

static inline int pb_start(void **state) {
    static struct pb_fixture f;
    arena_init(&f.a, 0);
    diag_init(&f.d);
    *state = &f;
    return 0;
}

static inline int pb_end(void **state) {
    struct pb_fixture *f = (struct pb_fixture *)*state;
    diag_fini(&f->d);
    arena_fini(&f->a);
    chunk_cache_trim();
    return 0;
}

/* A message from text format that must be right. */
static inline ProtobufCMessage *pb_make(struct pb_fixture *f, const char *type, const char *text) {
    const struct proto_type *t = proto_type_find(sv_cstr(type));
    assert_non_null(t);
    ProtobufCMessage *m = pb_text_parse(t, sv_cstr(text), &f->a, &f->d);
    if (!m) {
        sv why = diag_text(&f->d);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    return m;
}

/* Errors so far are these; forget them. */
static inline void assert_errors_at(struct pb_fixture *f, const char *want, const char *file,
                                    int line) {
    assert_sv_at(diag_text(&f->d), sv_cstr(want), file, line);
    diag_reset(&f->d);
}
#define assert_errors(f, want) assert_errors_at((f), (want), __FILE__, __LINE__)

#define PB_TEST(fn) cmocka_unit_test_setup_teardown(fn, pb_start, pb_end)

#endif
