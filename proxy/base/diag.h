/* Configuration errors with their field path, collected so that one NACK tells all of them.
 *     DIAG_FIELD(d, "filter_chains[%zu]", i);       pushed until the end of the scope
 *     diag_error(d, "unknown cluster '%.*s'", …);   adds "<path>: <message>"
 * Wording: lower case, 'quoted' subject, what was expected, no final period. Threads: one owner. */
#ifndef SLUICE_BASE_DIAG_H
#define SLUICE_BASE_DIAG_H

#include "proxy/base/arena.h"
#include "proxy/base/buf.h"

#define DIAG_ERRORS_MAX 20
#define DIAG_PATH_MAX 1024
#define DIAG_TEXT_MAX (64u * 1024)
#define DIAG_WARNINGS_MAX 100

struct diag_warning {
    struct diag_warning *next;
    sv text;
};
struct diag {
    struct arena arena_;
    size_t path_len_;
    size_t text_bytes_;
    unsigned errors_, errors_dropped_, warnings_; /* errors_ counts the dropped ones too */
    sv error_v_[DIAG_ERRORS_MAX];
    struct diag_warning *warning_list_;  /* oldest first, at most DIAG_WARNINGS_MAX of them */
    struct diag_warning **warning_tail_; /* where the next one is linked */
    char path_[DIAG_PATH_MAX];           /* cut when longer */
};

void diag_init(struct diag *d);
void diag_fini(struct diag *d);
/* Start over for the next resource: errors, warnings and path forgotten. */
void diag_reset(struct diag *d);

/* Add an error at the current path. Always returns false so that a compile step can `return
 * diag_error(…)`. */
bool diag_error(struct diag *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Something accepted but without effect (an unhonoured field): logged once and counted by the
 * caller's rim. */
void diag_warn(struct diag *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The warnings, oldest first, linked by next; NULL: none. Borrowed until reset. */
static inline const struct diag_warning *diag_warnings(const struct diag *d) {
    return d->warning_list_;
}
static inline bool diag_ok(const struct diag *d) { return d->errors_ == 0; }
static inline unsigned diag_errors(const struct diag *d) { return d->errors_; }
/* All errors joined by "; ", at most DIAG_TEXT_MAX bytes, with "(and N more)". Borrowed until
 * reset. */
sv diag_text(struct diag *d);
sv diag_path(const struct diag *d);

/* Returns the earlier path length for diag_pop. A path element that begins with '[' is joined
 * without a dot. */
size_t diag_push(struct diag *d, const char *fmt, ...) PRINTF_LIKE(2, 3);
void diag_pop(struct diag *d, size_t old_len);

struct diag_scope {
    struct diag *d;
    size_t old_len;
};
static inline void diag_scope_end(struct diag_scope *s) { diag_pop(s->d, s->old_len); }
#define DIAG_CAT2_(a, b) a##b
#define DIAG_CAT_(a, b) DIAG_CAT2_(a, b)
#define DIAG_FIELD(d, ...)                                                       \
    __attribute__((cleanup(diag_scope_end))) UNUSED struct diag_scope DIAG_CAT_( \
        diag_scope_, __LINE__) = {(d), diag_push((d), __VA_ARGS__)}

#endif
