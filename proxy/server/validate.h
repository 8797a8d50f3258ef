/* --mode validate with --validate-resources: what a control plane would push, compiled as if it
 * came, without sockets or streams.
 * Threads: main, alone. Spec: xDS protocol (what is accepted); Envoy's --mode validate. */
#ifndef SLUICE_SERVER_VALIDATE_H
#define SLUICE_SERVER_VALIDATE_H

#include "proxy/config/config.h"
#include "proxy/server/options.h"

#define VALIDATE_WARNINGS_MAX 1000u /* told one by one; the rest are counted */

/* Is there such a resource beside those of the files (the bootstrap's own)? source NULL:
 * clusters. */
struct validate_static {
    bool (*has)(void *user, enum resource_type t, const struct config_source *source, sv name);
    void *user;
};
/* Compile all resources of the files and directories, clusters first, with `c` as the bootstrap
 * left it. Each bad one is told on stderr with file, type, name, field path and reason; a reference
 * to something that neither the files nor the bootstrap have is told as a warning; stdout gets a
 * count. False: something is bad. */
bool validate_resources(struct config *c, const struct option_list *paths,
                        const struct validate_static *known);

#endif
