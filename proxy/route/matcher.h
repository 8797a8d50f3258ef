/* Matchers of strings, headers, query parameters and cookies: declared in api/matcher.h, so that
 * filters may use them too. */
#ifndef SLUICE_ROUTE_MATCHER_H
#define SLUICE_ROUTE_MATCHER_H

#include "proxy/api/matcher.h"

#endif
