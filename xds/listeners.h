/* Whose the addresses of listeners are, their sockets, and what of them drains. Config thread. See
 * store_listeners.c. */
#ifndef SLUICE_XDS_LISTENERS_H
#define SLUICE_XDS_LISTENERS_H

#include "xds/entry.h"

struct diag;
/* r is to be e's next version: its addresses are nobody else's, and its sockets are bound. False:
 * the reason is in d, and nothing has changed. */
bool store_listener_accept(struct entry *e, const struct resource *r, struct diag *d);
/* e's addresses are those of its active and its warming version; `left` (NULL: none) is no longer
 * one of these. */
void store_listener_claims(struct entry *e, const struct resource *left);
/* The warming version r is about to be active: its sockets listen. False: they can't (logged). */
bool store_listener_listen(struct entry *e, const struct resource *r);
/* The warming version will not be active: nothing is bound for it any more. */
void store_listener_drop_warming(struct entry *e);
/* The sockets of e->active are no longer its own: it is about to go. */
void store_listener_ended(struct entry *e);
/* e->active, if there is one, is about to make room for r (NULL: to go): what of it drains is known
 * until the last connection has gone. */
void store_listener_drains(struct entry *e, const struct resource *r);
/* Before a snapshot is published: sockets that nobody inherited are to be closed by workers. */
void store_listeners_settle(struct store *s);
void store_listeners_init(struct store *s);
void store_listeners_free(struct store *s);

#endif
