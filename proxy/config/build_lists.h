/* Growing lists while one resource compiles (config thread); they end up as arrays in the
 * resource's arena. */
#ifndef SLUICE_CONFIG_BUILD_LISTS_H
#define SLUICE_CONFIG_BUILD_LISTS_H

#include "proxy/base/vec.h"
#include "proxy/config/config.h"
#include "proxy/config/extension.h"

struct ref_list {
    VEC(struct resource_ref) v;
};
struct transport_list {
    VEC(struct transport_def) v;
};
struct extension_list {
    VEC(struct extension_def) v;
};

#endif
