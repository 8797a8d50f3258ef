/* RE2 behind a C face: linear time on hostile input. Compiled on the config thread, matched from
 * any thread.
 * Spec: type.matcher.v3.RegexMatcher, RegexMatchAndSubstitute. */
#ifndef SLUICE_BASE_REGEX_H
#define SLUICE_BASE_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct regex;
/* NULL on error with RE2's words (for example "missing ): (") in err. Latin-1 mode off: patterns
 * are UTF-8, but bytes that are not UTF-8 in the subject simply do not match `.`-classes; a subject
 * is never rejected. */
struct regex *regex_new(const char *pattern, size_t n, char *err, size_t err_n);
void regex_free(struct regex *r); /* NULL is fine */
bool regex_full_match(const struct regex *r, const char *p, size_t n);
bool regex_partial_match(const struct regex *r, const char *p, size_t n);
int regex_program_size(const struct regex *r);
int regex_groups(const struct regex *r);
/* Match anywhere; caps[0] is the whole match, then groups; unmatched groups are NULL. Returns
 * whether it matched. */
struct regex_cap {
    const char *p;
    size_t n;
};
bool regex_capture(const struct regex *r, const char *p, size_t n, struct regex_cap *caps,
                   int caps_n);
/* Replace every match by `rewrite` (with \1..\9): result appended to a heap string, free with
 * xfree. NULL: bad rewrite. */
char *regex_replace_all(const struct regex *r, const char *p, size_t n, const char *rewrite,
                        size_t rewrite_n, size_t *out_n);
/* Is `rewrite` valid for this pattern (its group references exist)? */
bool regex_check_rewrite(const struct regex *r, const char *rewrite, size_t rewrite_n, char *err,
                         size_t err_n);

#ifdef __cplusplus
}
#endif

#endif
