/* String views: search, comparison, number parsing, UTF-8 and the hash of tables.
 * Threads: any.
 * Spec: RFC 3629 (UTF-8).
 * Not here: hashes that must equal Envoy's for load balancing (upstream/lb_hash.c). */
#include "proxy/base/sv.h"

#include <math.h>
#include <stdlib.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proxy/base/mem.h"
#include "proxy/base/rand.h"

#define DOUBLE_CHARS_MAX 400u /* longer than any double printed in full (DBL_MAX has 309 digits) */

/* clang-format off */
#define ROW16(b)                                                                                          \
    (b), (b) + 1, (b) + 2, (b) + 3, (b) + 4, (b) + 5, (b) + 6, (b) + 7, (b) + 8, (b) + 9, (b) + 10,       \
        (b) + 11, (b) + 12, (b) + 13, (b) + 14, (b) + 15
const unsigned char ascii_lower[256] = {
    ROW16(0x00), ROW16(0x10), ROW16(0x20), ROW16(0x30),
    '@', 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'l', 'm', 'n', 'o',
    'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '[', '\\', ']', '^', '_',
    ROW16(0x60), ROW16(0x70), ROW16(0x80), ROW16(0x90), ROW16(0xa0), ROW16(0xb0),
    ROW16(0xc0), ROW16(0xd0), ROW16(0xe0), ROW16(0xf0),
};
/* clang-format on */

bool ascii_isalnum(char c) {
    char lower = ascii_tolower(c);
    return ascii_isdigit(c) || (lower >= 'a' && lower <= 'z');
}

int ascii_hex(char c) {
    if (ascii_isdigit(c)) {
        return c - '0';
    }
    char lower = ascii_tolower(c);
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

static uint64_t load64(const char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* Most texts compared agree in case too: eight bytes at a time, letter by letter only where they
 * differ. */
static bool same_nocase(const char *a, const char *b, size_t n) {
    while (n) {
        size_t step = n < 8 ? n : 8;
        if (step < 8 || load64(a) != load64(b)) {
            for (size_t i = 0; i < step; i++) {
                if (ascii_tolower(a[i]) != ascii_tolower(b[i])) {
                    return false;
                }
            }
        }
        a += step;
        b += step;
        n -= step;
    }
    return true;
}

bool sv_eq_nocase(sv a, sv b) { return a.n == b.n && same_nocase(a.p, b.p, a.n); }

bool sv_starts_nocase(sv s, sv prefix) {
    return s.n >= prefix.n && same_nocase(s.p, prefix.p, prefix.n);
}

bool sv_ends_nocase(sv s, sv suffix) {
    return s.n >= suffix.n && sv_eq_nocase(sv_skip(s, s.n - suffix.n), suffix);
}

int sv_cmp(sv a, sv b) {
    size_t n = a.n < b.n ? a.n : b.n;
    int order = n ? memcmp(a.p, b.p, n) : 0;
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

size_t sv_find(sv s, char c) {
    const char *hit = s.n ? memchr(s.p, c, s.n) : NULL;
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

size_t sv_rfind(sv s, char c) {
    const char *hit = s.n ? memrchr(s.p, c, s.n) : NULL;
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

size_t sv_find_sv(sv s, sv needle) {
    if (needle.n == 0) {
        return 0;
    }
    const char *hit = s.n ? memmem(s.p, s.n, needle.p, needle.n) : NULL;
    return hit ? (size_t)(hit - s.p) : SIZE_MAX;
}

bool sv_contains(sv s, sv needle) { return sv_find_sv(s, needle) != SIZE_MAX; }

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

sv sv_trim(sv s) {
    while (s.n && is_blank(s.p[0])) {
        s = sv_skip(s, 1);
    }
    while (s.n && is_blank(s.p[s.n - 1])) {
        s.n--;
    }
    return s;
}

sv sv_cut(sv *s, char sep) {
    size_t at = sv_find(*s, sep);
    sv part = sv_sub(*s, 0, at);
    *s = sv_skip(*s, at == SIZE_MAX ? at : at + 1);
    return part;
}

bool sv_eat(sv *s, sv lit) {
    if (!sv_starts(*s, lit)) {
        return false;
    }
    *s = sv_skip(*s, lit.n);
    return true;
}

bool sv_eat_u64(sv *s, unsigned digits_max, uint64_t *out) {
    uint64_t v = 0;
    size_t i = 0;
    for (; i < s->n && ascii_isdigit(s->p[i]); i++) {
        if (i == digits_max || __builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (uint64_t)(s->p[i] - '0'), &v)) {
            return false;
        }
    }
    if (i == 0) {
        return false;
    }
    *s = sv_skip(*s, i);
    *out = v;
    return true;
}

bool sv_to_u64(sv s, uint64_t *out) {
    uint64_t v;
    if (!sv_eat_u64(&s, UINT32_MAX, &v) || s.n) {
        return false;
    }
    *out = v;
    return true;
}

bool sv_to_i64(sv s, int64_t *out) {
    bool is_negative = sv_eat(&s, SV("-"));
    uint64_t v;
    if (!sv_to_u64(s, &v) || v > (uint64_t)INT64_MAX + is_negative) {
        return false;
    }
    *out = is_negative ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

static size_t eat_digits(sv *s) {
    size_t n = 0;
    while (n < s->n && ascii_isdigit(s->p[n])) {
        n++;
    }
    *s = sv_skip(*s, n);
    return n;
}

/* [+-] digits [. digits] [e [+-] digits], at least one digit before the exponent: strtod alone
 * would also take hex, "inf", "nan" and leading space. */
static bool is_decimal(sv s) {
    if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
        s = sv_skip(s, 1);
    }
    size_t digits = eat_digits(&s);
    if (sv_eat(&s, SV("."))) {
        digits += eat_digits(&s);
    }
    if (digits == 0) {
        return false;
    }
    if (s.n && ascii_tolower(s.p[0]) == 'e') {
        s = sv_skip(s, 1);
        if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
            s = sv_skip(s, 1);
        }
        if (eat_digits(&s) == 0) {
            return false;
        }
    }
    return s.n == 0;
}

bool sv_to_double(sv s, double *out) {
    char text[DOUBLE_CHARS_MAX + 1];
    if (s.n > DOUBLE_CHARS_MAX || !is_decimal(s)) {
        return false;
    }
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    double v = strtod(text, NULL); /* the process never leaves the C locale */
    if (isinf(v)) {
        return false;
    }
    *out = v;
    return true;
}

char *sv_dup(sv s) {
    char *copy = xalloc(s.n + 1);
    if (s.n) {
        memcpy(copy, s.p, s.n);
    }
    copy[s.n] = '\0';
    return copy;
}

/* RFC 3629, section 4: what may follow each first byte beyond ASCII. */
static const struct utf8_lead {
    unsigned char first, last; /* of the first byte */
    unsigned char seq;         /* bytes of the sequence */
    /* no overlong forms, no surrogates, nothing beyond U+10FFFF */
    unsigned char second_min, second_max;
} utf8_leads[] = {
    {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf}, {0xe1, 0xec, 3, 0x80, 0xbf},
    {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf}, {0xf0, 0xf0, 4, 0x90, 0xbf},
    {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};

static const struct utf8_lead *utf8_lead_of(unsigned char c) {
    for (size_t i = 0; i < ARRAY_LEN(utf8_leads); i++) {
        if (c >= utf8_leads[i].first && c <= utf8_leads[i].last) {
            return &utf8_leads[i];
        }
    }
    return NULL;
}

unsigned sv_utf8_seq(sv s) {
    const unsigned char *p = (const unsigned char *)s.p;
    if (s.n == 0 || p[0] < 0x80) {
        return s.n ? 1 : 0;
    }
    const struct utf8_lead *lead = utf8_lead_of(p[0]);
    if (!lead || s.n < lead->seq || p[1] < lead->second_min || p[1] > lead->second_max) {
        return 0;
    }
    for (unsigned i = 2; i < lead->seq; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return lead->seq;
}

bool sv_is_utf8(sv s) {
    size_t i = 0;
    while (i < s.n) {
        if (s.n - i >= 8 && (load64(s.p + i) & 0x8080808080808080u) == 0) {
            i += 8;
            continue;
        }
        unsigned seq = sv_utf8_seq((sv){s.p + i, s.n - i});
        if (seq == 0) {
            return false;
        }
        i += seq;
    }
    return true;
}

static uint64_t hash_seed; /* 0: not drawn yet */

void sv_hash_seed(uint64_t seed) {
    __atomic_store_n(&hash_seed, seed ? seed : 1, __ATOMIC_RELAXED);
}

/* Two threads may draw at once; the first to store decides for both. */
static __attribute__((noinline)) uint64_t draw_seed(void) {
    uint64_t drawn, seed = 0;
    rand_bytes(&drawn, sizeof(drawn));
    drawn |= 1;
    return __atomic_compare_exchange_n(&hash_seed, &seed, drawn, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED)
               ? drawn
               : seed;
}

uint64_t sv_hash(sv s) {
    uint64_t seed = __atomic_load_n(&hash_seed, __ATOMIC_RELAXED);
    if (UNLIKELY(seed == 0)) {
        seed = draw_seed();
    }
    return XXH3_64bits_withSeed(s.p, s.n, seed);
}
