/* Wake-up moderation: when a busy loop waits a moment before it asks for events, so that one
 * wake-up finds the work of many, as network cards moderate their interrupts. A loop that keeps up
 * is otherwise woken for nearly every write of its peers, and the kernel's share of each request is
 * paid in full.
 * Never with few requests in flight, never with wake-ups that are rare or bring plenty already, and
 * no longer where it turned out to gather nothing.
 * Threads: the loop's own, but for `pauses`. No clock of its own: times are handed in. */
#ifndef SLUICE_EVENT_WAKE_MODERATION_H
#define SLUICE_EVENT_WAKE_MODERATION_H

#include <stdbool.h>
#include <stdint.h>

#define WAKE_PAUSE_US 200           /* the longest pause there is, and the default of the limit */
#define WAKE_REQUESTS_MIN 16        /* in flight on the loop; with fewer no pause */
#define WAKE_PAUSE_PER_REQUEST_US 4 /* in flight: what a request loses stays a share of its time */
#define WAKE_IDLE_MAX_US 100        /* slept between two turns in the mean, pauses not counted */
#define WAKE_BUSY_MAX_US 150        /* a turn this long has let events gather by itself */
#define WAKE_GATHERED_MIN 4         /* requests begun or ended after a pause, else it was in vain */
#define WAKE_HOLD_TURNS 64          /* turns without a pause after one in vain */

struct wake_moderation {
    uint32_t limit_us; /* of a pause; 0: none are made */
    uint32_t requests; /* in flight on the loop */
    uint32_t changes;  /* requests begun or ended since the last wake-up */
    uint32_t idle_us;  /* slept between two turns, in the mean */
    uint32_t pause_us; /* the one before this turn; 0: there was none */
    uint32_t hold;     /* turns left without a pause */
    uint64_t woke_us;  /* last wake-up */
    uint64_t wait_us;  /* when the wait after the last turn began, pause over; 0: not known */
    uint64_t pauses;   /* made so far; one writer, read relaxed by any thread */
};

/* Called right after the loop was woken, at `now_us` (monotonic). */
void wake_moderation_woke(struct wake_moderation *m, uint64_t now_us);
/* Called before the loop waits, at `now_us`: how long to pause first, in microseconds, at most
 * limit_us; 0: not at all. Whoever asks does pause. */
uint32_t wake_moderation_pause(struct wake_moderation *m, uint64_t now_us);

#endif
