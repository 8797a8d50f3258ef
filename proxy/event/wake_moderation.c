/* When a loop pauses before it waits: see wake_moderation.h.
 * Threads: the loop's own. Not here: the pause itself and its limit (loop.c), who counts requests
 * (request/stream.c). */
#include "proxy/event/wake_moderation.h"

#define IDLE_WEIGHT 8 /* of the history, against each new value */
/* A long sleep counts as this much, so that a few short ones make up for it. */
#define IDLE_COUNTED_MAX_US (2 * WAKE_IDLE_MAX_US)

static void count_idle(struct wake_moderation *m, uint64_t now_us) {
    uint64_t us = now_us > m->wait_us ? now_us - m->wait_us : 0;
    us = us < IDLE_COUNTED_MAX_US ? us : IDLE_COUNTED_MAX_US;
    m->idle_us = (uint32_t)((m->idle_us * (IDLE_WEIGHT - 1) + us) / IDLE_WEIGHT);
}

void wake_moderation_woke(struct wake_moderation *m, uint64_t now_us) {
    if (m->wait_us) {
        count_idle(m, now_us);
    }
    m->wait_us = 0;
    m->woke_us = now_us;
    m->changes = 0;
}

/* Would a pause gather anything that does not come together anyway? */
static bool is_wanted(const struct wake_moderation *m, uint64_t now_us) {
    return !m->hold && m->idle_us <= WAKE_IDLE_MAX_US && now_us - m->woke_us < WAKE_BUSY_MAX_US;
}

uint32_t wake_moderation_pause(struct wake_moderation *m, uint64_t now_us) {
    bool was_vain = m->pause_us && m->changes < WAKE_GATHERED_MIN;
    m->pause_us = 0;
    m->wait_us = now_us;
    if (!m->limit_us || m->requests < WAKE_REQUESTS_MIN) {
        return 0;
    }
    if (was_vain) {
        m->hold = WAKE_HOLD_TURNS;
    } else if (m->hold) {
        m->hold--;
    }
    if (!is_wanted(m, now_us)) {
        return 0;
    }
    uint64_t us = (uint64_t)m->requests * WAKE_PAUSE_PER_REQUEST_US;
    m->pause_us = us < m->limit_us ? (uint32_t)us : m->limit_us;
    m->wait_us += m->pause_us;
    __atomic_store_n(&m->pauses, m->pauses + 1, __ATOMIC_RELAXED);
    return m->pause_us;
}
