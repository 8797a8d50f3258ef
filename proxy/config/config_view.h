/* What the admin port asks the config thread for. The config side (xds/store_view.c) answers on its
 * own thread with one self-contained object; admin never touches the store. That thread gathers
 * only: what can wait for its turn (putting in order, letting go) is done by who asked, in slices.
 * Threads: requests from main; answers are posted to main's loop. */
#ifndef SLUICE_CONFIG_CONFIG_VIEW_H
#define SLUICE_CONFIG_CONFIG_VIEW_H

#include "proxy/config/config.h"
#include "proxy/event/loop.h"

enum view_status { VIEW_ACTIVE, VIEW_WARMING, VIEW_DRAINING, VIEW_ERROR };
/* Success rates that outlier detection found in its last interval, in percent, of all errors and of
 * local ones; -1: none. */
struct view_rates {
    double average[2], threshold[2];
    double host[][2]; /* as the host set's entries */
};

/* One resource as admin shows it. Holds a ref on the resource and, for clusters, its hosts, for
 * listeners its sockets. */
struct view_item {
    enum view_status status;
    bool is_static;
    /* active, warming, draining; for VIEW_ERROR: what was refused (bytes only) */
    struct resource *resource;
    struct host_set *hosts;
    struct view_rates *rates; /* NULL: no outlier detection */
    struct listener_sockets *sockets;
    /* RES_SCOPED_ROUTE: the item is a set of scopes, `resource` has its name and version only.
     * RES_ROUTE: virtual hosts that came one by one (VHDS). A ref on each */
    struct resource **members;
    unsigned members_n;
    /* VIEW_ERROR of a set, whose name and version `resource` has: one of its members that were
     * refused; NULL: `resource` itself was */
    struct resource *refused;
    char *error;       /* VIEW_ERROR */
    uint64_t error_us; /* wall clock */
};
struct view_unready {
    char *what;   /* "cluster x", "listener y" … */
    char *target; /* what it waits for */
};
/* A resource that is asked for and not there. */
enum view_absent_why { ABSENT_REQUESTED, ABSENT_DOES_NOT_EXIST, ABSENT_TIMEOUT };
struct view_absent {
    enum resource_type type;
    enum view_absent_why why;
    char *name;
};
/* Everything of the asked types at one moment, in name order per type. */
struct view {
    struct loop_msg msg;
    struct loop *loop;      /* of who asked */
    struct view_sort *sort; /* while it is under way */
    struct view_item *items;
    unsigned items_n;
    struct view_unready *unready;
    unsigned unready_n;
    struct view_absent *absent; /* in no order */
    unsigned absent_n;
    char *cds_version, *lds_version;
    void (*on_view)(struct view *v, void *user); /* main thread; takes v */
    void *user;
};
/* Any thread. Takes v, whose items are in no order: they are sorted on v->loop, between other
 * events, then v->on_view is called there. */
void view_post(struct view *v);
/* On v->loop. What is many is let go of between other events. */
void view_free(struct view *v);
void view_free_now(struct view *v); /* all of it, where no loop runs any more */

/* Beside the types: listeners that drain, the oldest of each name. */
#define VIEW_WITH_DRAINING (1u << RES_TYPES)
struct config_view {
    /* types: bit set of 1 << enum resource_type, and VIEW_WITH_DRAINING. Any number of requests may
     * be under way. */
    void (*request)(void *config, unsigned types, struct loop *reply_to,
                    void (*on_view)(struct view *v, void *user), void *user);
    void *config;
};

#endif
