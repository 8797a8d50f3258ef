/* One named resource of the store, or the place of one that is wanted.
 * Threads: the config thread. There are as many as resources, so that what few of them have is
 * behind one pointer. */
#ifndef SLUICE_XDS_ENTRY_H
#define SLUICE_XDS_ENTRY_H

#include "proxy/base/vec.h"
#include "proxy/config/resource.h"
#include "proxy/event/timer.h"

struct store;
struct entry;
struct vhost_set;     /* vhds.h: virtual hosts of a route configuration */
struct leds_set;      /* leds.h: a collection of endpoints */
struct scope_set;     /* scopes.h: a set of scopes that listeners refer to */
struct secret_files;  /* store_secret.c: what is watched for a secret */
struct cluster_hosts; /* store_hosts.c: the discovered endpoints of one cluster */
struct listener_sockets;
struct stats_scope;

VEC_TYPE(entry_vec, struct entry *)

/* Entries that an entry is linked to: most often one, which takes no memory of its own. Zeroed:
 * none. */
struct entry_links {
    union {
        struct entry *one_;
        struct entry **many_;
    };
    uint32_t n, cap_; /* cap_ 0: `one_` */
};
static inline struct entry *entry_links_at(const struct entry_links *l, uint32_t i) {
    ASSERT(i < l->n);
    return l->cap_ ? l->many_[i] : l->one_;
}
void entry_links_add(struct entry_links *l, struct entry *e);
void entry_links_remove(struct entry_links *l, const struct entry *e); /* once; the order changes */
void entry_links_fini(struct entry_links *l);                          /* empty again */

/* A subscription to one name waits for its first answer. */
struct fetch_wait {
    struct timer timer;
    struct entry *entry;
};

/* What few entries have. */
struct entry_extra {
    char *error;                      /* why the last update was refused; NULL: it was not */
    struct resource *failed;          /* wire bytes only: what was refused, for error_state */
    uint64_t error_us;                /* wall clock */
    struct vhost_set *vhosts;         /* the entry of a set of virtual hosts; else NULL */
    struct leds_set *leds;            /* the entry of a collection of endpoints; else NULL */
    struct scope_set *scopes;         /* the entry of a set of scopes; else NULL */
    struct listener_sockets *sockets; /* listeners: of the active resource */
    /* of the warming one; NULL: it stays on the active one's */
    struct listener_sockets *warming_sockets;
    struct secret_files *files;       /* secrets that are read from files */
    struct stats_scope *stats;        /* subscription stats; NULL until the first update */
    struct stats_scope *reload_stats; /* routes: NULL until the first update */
};

/* Found by (type, source, name); clusters and listeners, whose names are unique in the process, by
 * (type, name). */
struct entry {
    struct store *store;
    /* where it is asked for; SOURCE_STATIC: bootstrap. NULL: not known yet */
    const struct config_source *source;
    /* in the snapshot (clusters, listeners, routes), or in use (secrets, endpoints) */
    struct resource *active;
    /* clusters, listeners: accepted, waits for what it refers to */
    struct resource *warming;
    const struct entry_extra *extra; /* never NULL; one that is empty serves most entries */
    struct cluster_hosts *hosts;     /* clusters */
    struct fetch_wait *wait;         /* NULL: it is not waited for */
    /* entries whose active or warming resource refers to this one */
    struct entry_links users;
    struct entry_links uses;         /* entries that this one's active resource refers to… */
    struct entry_links warming_uses; /* …and its warming one */
    uint64_t seen_update;            /* SotW: the update that listed it last */
    uint32_t watchers;               /* compiled resources that want it */
    uint32_t walk;                   /* of store.walks: the last that told it of a change */
    uint32_t name_n;
    enum resource_type type;
    bool is_static, is_gone; /* gone: the server said it does not exist (any more) */
    bool is_timed_out;       /* initial_fetch_timeout passed */
    bool is_on_demand;       /* watched because requests asked for it (store_demand.c) */
    bool is_only_rejected;   /* extra->error is all there is of it */
    bool view_mark;          /* as store.view_mark: admin's walk has it already (store_view.c) */
    char key_[];             /* in the table of entries: type, source id, name, NUL */
};
#define ENTRY_KEY_HEAD (1 + sizeof(uint64_t))

static inline sv entry_name(const struct entry *e) {
    return sv_from(e->key_ + ENTRY_KEY_HEAD, e->name_n);
}
/* What is to be written to: the entry's own, made when it has none. */
struct entry_extra *entry_extra(struct entry *e);
void entry_extra_free(struct entry *e); /* the struct, not what its fields own */

/* The one of entries that have none of it. */
extern const struct entry_extra entry_no_extra;

#endif
