/* Making the mux of a config source: its ApiConfigSource's settings and the dialer to its cluster.
 * Config thread. */
#ifndef SLUICE_XDS_CLIENT_H
#define SLUICE_XDS_CLIENT_H

#include "xds/store.h"

/* SOURCE_API and SOURCE_PATH. NULL: the source can't be used (logged). */
struct source_client *source_client_new(struct store *s, const struct config_source *src,
                                        enum resource_type t);
/* The aggregated stream of the bootstrap. api_config_source_msg: core.v3.ApiConfigSource. */
struct source_client *source_client_new_ads(struct store *s, const struct config_source *src,
                                            const void *api_config_source_msg, struct diag *d);
void source_client_free(struct source_client *c);

#endif
