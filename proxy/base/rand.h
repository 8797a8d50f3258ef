/* Fast non-cryptographic generator, one per worker (xoshiro256**), seeded from the system; and
 * system randomness. */
#ifndef SLUICE_BASE_RAND_H
#define SLUICE_BASE_RAND_H

#include <stddef.h>
#include <stdint.h>

struct rng {
    uint64_t s[4];
};
void rng_init(struct rng *r);                /* from getrandom(2) */
void rng_seed(struct rng *r, uint64_t seed); /* reproducible, for tests */
uint64_t rng_u64(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* uniform in [0, n), n > 0, without modulo bias */
double rng_unit(struct rng *r);                /* [0, 1) */
void rand_bytes(void *out, size_t n);          /* getrandom(2); never fails */
/* RFC 4122 version 4, 36 lower-case characters, no NUL. */
void rng_uuid4(struct rng *r, char out[36]);

#endif
