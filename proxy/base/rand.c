/* Randomness: xoshiro256** for decisions, getrandom(2) for secrets and seeds.
 * Threads: a generator has one owner; rand_bytes any.
 * Spec: RFC 4122 section 4.4 (UUID version 4). */
#include "proxy/base/rand.h"

#include <errno.h>
#include <sys/random.h>

#include "proxy/base/check.h"

void rand_bytes(void *out, size_t n) {
    char *p = out;
    while (n) {
        ssize_t got = getrandom(p, n, 0);
        if (got < 0) {
            CHECK(errno == EINTR);
            continue;
        }
        p += got;
        n -= (size_t)got;
    }
}

void rng_init(struct rng *r) {
    do {
        rand_bytes(r->s, sizeof(r->s));
    } while (!(r->s[0] | r->s[1] | r->s[2] | r->s[3])); /* zero would stay zero for ever */
}

/* splitmix64, the generator that xoshiro's authors seed it with. */
void rng_seed(struct rng *r, uint64_t seed) {
    for (size_t i = 0; i < ARRAY_LEN(r->s); i++) {
        uint64_t z = (seed += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        r->s[i] = z ^ (z >> 31);
    }
}

static inline uint64_t rotl(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t rng_u64(struct rng *r) {
    uint64_t *s = r->s;
    uint64_t result = rotl(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

/* Lemire's multiplication: the high half of r * n is in [0, n); low halves below 2^64 mod n are
 * drawn again. */
uint64_t rng_below(struct rng *r, uint64_t n) {
    ASSERT(n > 0);
    unsigned __int128 m = (unsigned __int128)rng_u64(r) * n;
    if (UNLIKELY((uint64_t)m < n)) {
        uint64_t floor = -n % n;
        while ((uint64_t)m < floor) {
            m = (unsigned __int128)rng_u64(r) * n;
        }
    }
    return (uint64_t)(m >> 64);
}

double rng_unit(struct rng *r) { return (double)(rng_u64(r) >> 11) * 0x1p-53; }

void rng_uuid4(struct rng *r, char out[36]) {
    static const char digits[] = "0123456789abcdef";
    uint64_t half[2] = {rng_u64(r), rng_u64(r)};
    half[0] = (half[0] & ~(uint64_t)0xf000) | 0x4000;                 /* version 4 */
    half[1] = (half[1] & ~((uint64_t)3 << 62)) | ((uint64_t)2 << 62); /* variant 10 */
    char *p = out;
    for (unsigned i = 0; i < 32; i++) {
        if (i == 8 || i == 12 || i == 16 || i == 20) {
            *p++ = '-';
        }
        *p++ = digits[(half[i / 16] >> (60 - 4 * (i % 16))) & 0xf];
    }
}
