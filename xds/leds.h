/* What the store's files share about LEDS (store_leds.c). Threads: the config thread. */
#ifndef SLUICE_XDS_LEDS_H
#define SLUICE_XDS_LEDS_H

#include "proxy/config/endpoints.h"
#include "xds/store.h"

/* Endpoints of one collection; more are refused. */
#define LEDS_ENDPOINTS_MAX 100000u

struct leds_item;
VEC_TYPE(leds_item_vec, struct leds_item *)

/* A collection of endpoints; its entry has the collection's name, which is what is subscribed
 * to. */
struct leds_set {
    struct map by_name; /* → struct leds_item */
    struct leds_item_vec items;
    bool is_answered; /* the first response came */
    bool is_changed;  /* by the update at hand */
};

/* The endpoints `assignment` refer to the collection. */
void store_leds_begin(struct entry *set, const struct entry *assignment);
void store_leds_free(struct entry *set); /* nobody does any more */
void store_leds_update(struct source_client *c, const struct xds_update *u, struct xds_verdict *v);
/* The collection of a locality; NULL: it has none. */
const struct leds_set *store_leds_of(struct store *s, const struct cla_locality *l);
/* In no certain order. */
const struct cla_endpoint *store_leds_endpoint(const struct leds_set *x, size_t i);
/* A collection that `assignment` refers to has changed: its clusters get other hosts. */
void store_leds_changed(struct entry *assignment, struct entry *set);

#endif
