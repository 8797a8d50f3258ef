/* The one registry of this binary, for main.c and tests. */
#ifndef SLUICE_FILTERS_REGISTRY_H
#define SLUICE_FILTERS_REGISTRY_H

#include "proxy/api/registry.h"

const struct registry *filters_registry(void);

#endif
