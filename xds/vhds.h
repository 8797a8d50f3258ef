/* What the store's files share about VHDS (store_vhds.c). Threads: the config thread. */
#ifndef SLUICE_XDS_VHDS_H
#define SLUICE_XDS_VHDS_H

#include "xds/store.h"

/* Refused hosts of one set that are remembered for error_state; more are told to the server
 * only. */
#define VHDS_REFUSED_MAX 1000u

struct vhost_item;
struct refused;
/* The virtual hosts that a server has for one route configuration; its entry has the
 * configuration's name, which is what is subscribed to. */
struct vhost_set {
    struct map by_name;        /* → struct vhost_item */
    struct entry_vec asked;    /* hosts subscribed to on demand */
    struct route_table *table; /* what was published last, one ref; NULL: nothing yet */
    unsigned refused_n;        /* hosts whose last version was refused */
    bool is_answered;          /* the first response came */
};

void store_vhds_begin(struct entry *set); /* a route configuration refers to it */
void store_vhds_end(struct entry *set);   /* nobody does any more */
void store_vhds_free(struct entry *set);  /* at the end of the store */
/* The table to publish for a route configuration: r's own, and what VHDS added. Borrowed. */
struct route_table *store_vhds_table(struct entry *route, struct resource *r);
void store_vhds_update(struct source_client *c, const struct xds_update *u, struct xds_verdict *v);
/* A host of the table in this slot is wanted: the entry that stands for the question. NULL: the
 * table has no VHDS. */
struct entry *store_vhds_demand(struct store *s, slot_t slot, sv host);
/* Does the table in this slot have the host by now? */
bool store_vhds_has(struct store *s, slot_t slot, sv host);
void store_vhds_forget(struct entry *host); /* it is asked for no more */
/* The hosts beside the active version of a route configuration, a ref on each, in no order; the
 * list is the caller's. NULL: it has none. */
struct resource **store_vhds_hosts(const struct entry *route, unsigned *n);
/* What is refused at present of the hosts beside the active version of a route configuration. */
void store_vhds_refused(const struct entry *route, struct refused *out);

#endif
