/* Path templates against hostile paths, and rewriting by their variables.
 * Input: a pattern, a rewrite and a path, parted by newlines. */
/* link: -lcmocka */
#include "proxy/api/uri_template.h"
#include "tests/support/fake_compile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sv path = sv_from(data, n), pattern = sv_cut(&path, '\n'), rewrite = sv_cut(&path, '\n');
    struct fake_compile f;
    fake_compile_init(&f, NULL);
    struct uri_template *t = uri_template_compile(&f.ctx, pattern);
    CHECK((t != NULL) == diag_ok(&f.diag));
    bool is_match = t && uri_template_match(t, path);
    struct uri_template *r = t ? uri_template_rewrite_compile(&f.ctx, rewrite, t) : NULL;
    CHECK(!t || (r != NULL) == diag_ok(&f.diag));
    if (r) {
        sv out = uri_template_rewrite(r, path, &f.arena);
        CHECK((out.p != NULL) == is_match);
    }
    fake_compile_fini(&f);
    return 0;
}
