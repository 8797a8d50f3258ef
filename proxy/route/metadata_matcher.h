/* Matchers of metadata and filter state: declared in api/matcher.h, so that filters may use them
 * too. */
#ifndef SLUICE_ROUTE_METADATA_MATCHER_H
#define SLUICE_ROUTE_METADATA_MATCHER_H

#include "proxy/api/matcher.h"

#endif
