/* Stats of event loops: see loop_stats.h. Threads: the loop's. */
#include "proxy/server/loop_stats.h"

#include <time.h>

static uint64_t thread_cpu_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void on_turn(void *arg, uint64_t busy_us) {
    struct loop_stats *s = arg;
    uint64_t cpu_us = thread_cpu_us();
    stats_record(s->shard, DISPATCHER_loop_duration_us, busy_us);
    if (s->cpu_us) { /* else: what came before the first turn */
        stats_record(s->shard, DISPATCHER_turn_cpu_us, cpu_us - s->cpu_us);
    }
    s->cpu_us = cpu_us;
}

static void on_late(void *arg, uint64_t late_us) {
    const struct loop_stats *s = arg;
    stats_record(s->shard, DISPATCHER_poll_delay_us, late_us);
}

void loop_stats_start(struct loop *l, struct stats_store *stats, const char *prefix,
                      struct loop_stats *out) {
    static const struct loop_meter_ops ops = {.on_turn = on_turn, .on_late = on_late};
    struct stats_scope *scope = stats_scope_get(stats, &dispatcher_stats_group, sv_cstr(prefix));
    out->shard = stats_shard(scope, l->thread_index);
    loop_measure(l, &ops, out);
}
