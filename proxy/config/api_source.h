/* What an ApiConfigSource must be to be used: its protocol, the service it names, its limits.
 * Threads: the config thread. Spec: core.v3.ApiConfigSource; Envoy's words. */
#ifndef SLUICE_CONFIG_API_SOURCE_H
#define SLUICE_CONFIG_API_SOURCE_H

#include "proxy/base/diag.h"

enum api_source_protocol { API_SOURCE_SOTW, API_SOURCE_DELTA, API_SOURCE_REST };
/* Message core.v3.ApiConfigSource. google_grpc (config/google_grpc.h) is known in ads_config and
 * hds_config only. False: errors are in d. */
bool api_source_check(const void *api_config_source_msg, enum api_source_protocol *protocol,
                      struct diag *d);
bool api_source_check_ads(const void *api_config_source_msg, enum api_source_protocol *protocol,
                          struct diag *d);

#endif
