/* Route tables and scopes that stand in a listener's connection managers, found on the wire, one at
 * a time.
 * Threads: main. Spec: HttpConnectionManager.route_config, .scoped_routes. */
#ifndef SLUICE_SERVER_ADMIN_INLINE_H
#define SLUICE_SERVER_ADMIN_INLINE_H

#include "proxy/config/resource.h"

struct admin_inline {
    const struct resource *resource; /* the listener, a borrow; NULL: none is open */
    sv chains, filters;              /* what is left of the listener, of its open chain */
    struct arena arena;              /* of one connection manager */
};
void admin_inline_init(struct admin_inline *x);
void admin_inline_fini(struct admin_inline *x);
void admin_inline_begin(struct admin_inline *x, const struct resource *listener);
/* The bytes of the next RouteConfiguration; false: there is no other. Valid until the next call. */
bool admin_inline_next_routes(struct admin_inline *x, sv *wire);
/* The next ScopedRoutes with a list: its name, and the list for admin_inline_next_scope. */
bool admin_inline_next_scopes(struct admin_inline *x, sv *name, sv *list);
bool admin_inline_next_scope(sv *list, sv *wire);

#endif
