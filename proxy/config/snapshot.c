/* Snapshots: versions of the slot tables that workers adopt. Threads: made on the config thread,
 * freed by the last holder. */
#include "proxy/base/mem.h"
#include "proxy/config/config.h"

static void on_free(struct shared *s) {
    struct snapshot *snap = (struct snapshot *)s;
    for (int i = 0; i < TABLES; i++) {
        table_fini(&snap->tables[i]);
    }
    if (snap->clusters_by_name) {
        shared_unref(&snap->clusters_by_name->shared);
    }
    xfree(snap);
}

struct snapshot *snapshot_new(const struct snapshot *from) {
    struct snapshot *s = xnew(struct snapshot);
    shared_init(&s->shared, on_free);
    if (!from) {
        return s;
    }
    s->version = from->version + 1;
    for (int i = 0; i < TABLES; i++) {
        table_copy(&s->tables[i], &from->tables[i]);
    }
    s->clusters_by_name = from->clusters_by_name ? shared_ref(from->clusters_by_name) : NULL;
    return s;
}
