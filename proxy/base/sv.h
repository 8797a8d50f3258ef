/* String views: `sv` by value everywhere, no NUL assumption. Parsing consumes a view from its
 * front. */
#ifndef SLUICE_BASE_SV_H
#define SLUICE_BASE_SV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "proxy/base/check.h"

typedef struct sv {
    const char *p; /* may be NULL when n is 0 */
    size_t n;
} sv;

#define SV(lit) ((sv){"" lit, sizeof(lit) - 1})
#define SV_INIT(lit) \
    { "" lit, sizeof(lit) - 1 } /* static initialisers */
#define SV_NULL ((sv){NULL, 0})
#define SV_ARG(s) (int)(s).n, (s).p /* for "%.*s" */

static inline sv sv_from(const void *p, size_t n) { return (sv){(const char *)p, n}; }
static inline sv sv_cstr(const char *s) { return (sv){s, s ? strlen(s) : 0}; }
static inline bool sv_eq(sv a, sv b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
static inline bool sv_is(sv a, const char *lit) { return sv_eq(a, sv_cstr(lit)); }
static inline bool sv_starts(sv s, sv prefix) {
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}
static inline bool sv_ends(sv s, sv suffix) {
    return s.n >= suffix.n &&
           (suffix.n == 0 || memcmp(s.p + s.n - suffix.n, suffix.p, suffix.n) == 0);
}
/* The part from `from` (clamped), and at most `n` bytes of it. */
static inline sv sv_skip(sv s, size_t from) {
    from = from < s.n ? from : s.n;
    return from ? (sv){s.p + from, s.n - from} : s; /* NULL + 0 is undefined */
}
static inline sv sv_sub(sv s, size_t from, size_t n) {
    s = sv_skip(s, from);
    return (sv){s.p, n < s.n ? n : s.n};
}

bool sv_eq_nocase(sv a, sv b); /* ASCII only */
bool sv_starts_nocase(sv s, sv prefix);
bool sv_ends_nocase(sv s, sv suffix);
int sv_cmp(sv a, sv b); /* bytewise order: <0, 0, >0 */
/* Index of the first/last `c`, or of the first `needle`; SIZE_MAX when absent. */
size_t sv_find(sv s, char c);
size_t sv_rfind(sv s, char c);
size_t sv_find_sv(sv s, sv needle);
bool sv_contains(sv s, sv needle);
sv sv_trim(sv s); /* spaces and tabs from both ends */

/* Cut `*s` at the first `sep`: returns the part before, leaves the part after in `*s`. Without a
 * separator the whole is returned and `*s` becomes empty. Loop: while (s.n) { sv tok = sv_cut(&s,
 * ','); … } */
sv sv_cut(sv *s, char sep);
/* Consume `lit` from the front when it is there. */
bool sv_eat(sv *s, sv lit);
/* Consume digits (at most `digits_max`) as an unsigned number. False, nothing consumed: no digit,
 * too many, overflow. */
bool sv_eat_u64(sv *s, unsigned digits_max, uint64_t *out);

/* Whole-view conversions: false when anything but the number is there, or on overflow. */
bool sv_to_u64(sv s, uint64_t *out);
bool sv_to_i64(sv s, int64_t *out);
bool sv_to_double(sv s, double *out); /* C locale */

/* ASCII case and classes, table-driven, no locale. */
extern const unsigned char ascii_lower[256];
static inline char ascii_tolower(char c) { return (char)ascii_lower[(unsigned char)c]; }
static inline bool ascii_isdigit(char c) { return c >= '0' && c <= '9'; }
bool ascii_isalnum(char c);
/* Value of a hex digit, or -1. */
int ascii_hex(char c);

/* Heap copies; the char* one is NUL-terminated, free with xfree. */
char *sv_dup(sv s);

bool sv_is_utf8(sv s); /* well-formed UTF-8 (RFC 3629), no surrogates */
/* Length (1..4) of the well-formed UTF-8 sequence at the front; 0: ill-formed, cut short or
 * empty. */
unsigned sv_utf8_seq(sv s);

/* Seeded hash of bytes (XXH3, per-process random seed): for tables only, never for load
 * balancing. */
uint64_t sv_hash(sv s);
/* before any table is filled, for tests; else drawn at the first hash */
void sv_hash_seed(uint64_t seed);

#endif
