/* Slots: dense integers that stand for names (clusters, route tables) or for anonymous things
 * (transport factories), for as long as a compiled resource or the store refers to them.
 * Threads: the config thread's, but for releases by an arena's end (atomic); the config thread
 * reclaims. */
#ifndef SLUICE_CONFIG_NAMES_H
#define SLUICE_CONFIG_NAMES_H

#include "proxy/api/compile.h"

struct names;
struct names *names_new(void);
void names_free(struct names *n);
/* Slot of `name` with one more ref; made when new. name empty: a fresh anonymous slot. */
slot_t names_acquire(struct names *n, sv name);
/* Slot of `name` without a ref; SLOT_NONE when nobody refers to it. */
slot_t names_find(const struct names *n, sv name);
void names_ref(struct names *n, slot_t s); /* one more of a slot that has some */
void names_release(struct names *n, slot_t s);
/* The same, when arena `a` ends: on any thread. */
void names_release_with(struct names *n, slot_t s, struct arena *a);
sv names_of(const struct names *n, slot_t s); /* empty for anonymous slots */
slot_t names_count(const struct names *n);    /* slots ever made: all are below it */
uint32_t names_refs(const struct names *n, slot_t s);
/* Free slots nobody refers to; fn(arg, slot) first, so that the caller can clear its tables. Config
 * thread. */
void names_sweep(struct names *n, void (*fn)(void *arg, slot_t s), void *arg);

#endif
