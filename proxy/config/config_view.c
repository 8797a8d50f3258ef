/* Freeing a view: see config_view.h. */
#include "proxy/config/config_view.h"

#include "proxy/base/mem.h"
#include "proxy/config/sockets.h"
#include "proxy/upstream/host.h"

void view_free(struct view *v) {
    for (unsigned i = 0; i < v->items_n; i++) {
        struct view_item *it = &v->items[i];
        shared_unref(&it->resource->shared);
        if (it->refused) {
            shared_unref(&it->refused->shared);
        }
        if (it->hosts) {
            shared_unref(&it->hosts->shared);
        }
        if (it->sockets) {
            shared_unref(&it->sockets->shared);
        }
        for (unsigned k = 0; k < it->members_n; k++) {
            shared_unref(&it->members[k]->shared);
        }
        xfree(it->members);
        xfree(it->rates);
        xfree(it->error);
    }
    for (unsigned i = 0; i < v->unready_n; i++) {
        xfree(v->unready[i].what);
        xfree(v->unready[i].target);
    }
    for (unsigned i = 0; i < v->absent_n; i++) {
        xfree(v->absent[i].name);
    }
    xfree(v->absent);
    xfree(v->items);
    xfree(v->unready);
    xfree(v->cds_version);
    xfree(v->lds_version);
    xfree(v);
}
