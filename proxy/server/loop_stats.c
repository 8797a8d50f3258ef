/* Stats of event loops: see loop_stats.h. Threads: the loop's. */
#include "proxy/server/loop_stats.h"

static void on_turn(void *shard, uint64_t busy_us) {
    stats_record(shard, DISPATCHER_loop_duration_us, busy_us);
}

static void on_late(void *shard, uint64_t late_us) {
    stats_record(shard, DISPATCHER_poll_delay_us, late_us);
}

void loop_stats_start(struct loop *l, struct stats_store *stats, const char *prefix) {
    static const struct loop_meter_ops ops = {.on_turn = on_turn, .on_late = on_late};
    struct stats_scope *scope = stats_scope_get(stats, &dispatcher_stats_group, sv_cstr(prefix));
    loop_measure(l, &ops, stats_shard(scope, l->thread_index));
}
