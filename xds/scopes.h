/* What the store's files share about SRDS (store_scopes.c). Threads: the config thread. */
#ifndef SLUICE_XDS_SCOPES_H
#define SLUICE_XDS_SCOPES_H

#include "xds/store.h"

/* The scopes of a source as one connection manager uses them. */
struct scope_set {
    const struct config_source *rds; /* where its route configurations come from */
    slot_t slot;                     /* of its table; one ref */
    struct entry_links routes;       /* route configurations it watches */
    struct map demanded; /* on-demand scopes that were asked for → their names (heap) */
    struct stats_scope *stats, *reload;
    char *version; /* of the last accepted update */
    /* why the last update was refused as a whole, NULL: it was not; its version (no bytes) and
     * when */
    char *conflict;
    struct resource *refused;
    uint64_t refused_us;
    uint64_t updated_us;
    bool is_answered; /* the first response came */
};

/* A listener refers to the set `ref`: its place in the store. Before it is watched. */
void store_scopes_begin(struct entry *set, const struct resource_ref *ref);
/* It is watched: what its source brought already counts. */
void store_scopes_started(struct entry *set);
void store_scopes_end(struct entry *set);  /* nobody watches it any more */
void store_scopes_free(struct entry *set); /* at the end of the store */
/* The first response came, and the routes of all scopes in use arrived or timed out. */
bool store_scopes_ready(const struct entry *set);
/* Before the active version of a scope changes (r NULL: removed). */
void store_scope_set_active(struct entry *e, struct resource *r);
/* Would the update give one key to two scopes? Then nothing of it may be applied; told in error,
 * and remembered until the next one. */
bool store_scopes_conflict(struct source_client *c, const struct xds_update *u, struct buf *error);
/* An update was taken, or refused: publish what there is, tell who waits. */
void store_scopes_updated(struct source_client *c, const struct xds_update *u, bool is_good);
struct refused;
/* What of the set is refused at present; bad: all scopes that are. */
void store_scopes_refused(const struct entry *set, const struct entry_vec *bad,
                          struct refused *out);
/* Routes of the on-demand scope with this key are wanted: *route will hold them. False: no such
 * scope. */
bool store_scopes_demand(struct entry *set, sv key, struct entry **route);

#endif
