/* HTTP filter lists of a connection manager. Threads: the config thread. */
#ifndef SLUICE_REQUEST_HCM_FILTERS_H
#define SLUICE_REQUEST_HCM_FILTERS_H

#include "protos/gen/hcm.pb-c.h"
#include "proxy/request/hcm.h"

/* http_filters in order; the last must be terminal. `field` names the list in messages. */
bool hcm_filters_compile(struct compile_ctx *ctx, Hcm__HttpFilter *const *v, size_t n,
                         const char *field, struct hcm_filters *out);
bool hcm_upgrades_compile(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                          struct hcm_config *c);

#endif
