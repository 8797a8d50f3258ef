/* The admin endpoint: HTTP on main's loop, read-only views of what is served and a few commands.
 * Threads: main. Spec: Envoy's "Administration interface". */
#ifndef SLUICE_SERVER_ADMIN_H
#define SLUICE_SERVER_ADMIN_H

#include "proxy/base/diag.h"
#include "proxy/net/addr.h"

struct server;
struct admin;
/* Bind to bootstrap.admin.address; NULL without an error: there is no address. */
struct admin *admin_new(struct server *s, struct diag *d);
void admin_free(struct admin *a); /* NULL is fine */

#endif
