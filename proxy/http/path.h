/* Request-target handling: path normalisation (RFC 3986 §6), merging of slashes, escaped slashes,
 * query strings, host ports.
 * Spec: HttpConnectionManager.normalize_path, merge_slashes, path_with_escaped_slashes_action,
 * strip_*_host_port. */
#ifndef SLUICE_HTTP_PATH_H
#define SLUICE_HTTP_PATH_H

#include "proxy/base/arena.h"

enum escaped_slashes {
    ESCAPED_SLASHES_KEEP,
    ESCAPED_SLASHES_REJECT,
    ESCAPED_SLASHES_UNESCAPE_REDIRECT,
    ESCAPED_SLASHES_UNESCAPE_FORWARD
};
enum path_result { PATH_OK, PATH_CHANGED, PATH_REJECT, PATH_REDIRECT };

/* Normalise `*path` (with its query kept as it is); *path points into `a` when changed. */
enum path_result path_normalise(sv *path, bool normalise, bool merge_slashes,
                                enum escaped_slashes slashes, struct arena *a);
sv path_without_query(sv path); /* up to '?' or '#' */
sv path_query(sv path);         /* after '?', without fragment; SV_NULL when none */
/* Value of the first query parameter `key` (not decoded), p NULL when absent. */
sv query_get(sv query, sv key);
/* The same of a query whose names and values are decoded into `a` first. */
sv query_get_decoded(sv query, sv key, struct arena *a);
sv percent_decode(sv s, struct arena *a);
sv percent_encode(sv s, const char *reserved, struct arena *a);
sv host_without_port(sv authority); /* "[::1]:80" → "[::1]" */
bool host_port(sv authority, uint16_t *port);
bool authority_valid(sv authority); /* characters Envoy accepts in :authority */

#endif
