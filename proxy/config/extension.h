/* What a listener says of a filter whose configuration is discovered, and making it from a
 * resource. Config thread. Spec: core.v3.ExtensionConfigSource. */
#ifndef SLUICE_CONFIG_EXTENSION_H
#define SLUICE_CONFIG_EXTENSION_H

#include "proxy/api/extension.h"
#include "proxy/config/config.h"

/* Lives in the arena of the resource that has the filter. */
struct extension_def {
    slot_t slot;
    enum extension_kind kind;
    sv name; /* of the filter, and of the resource */
    const struct config_source *source;
    const sv *type_urls; /* full names of the messages that may come */
    unsigned type_urls_n;
    struct extension_config *fallback; /* default_config: one ref; NULL: none */
    bool is_waited_for;                /* the listener warms until the configuration is there */
    bool is_last, is_static;
    sv stat_prefix, owner; /* to compile it with */
};

/* Compile a TypedExtensionConfig resource for one place. NULL: errors are in d. One ref. */
struct extension_config *extension_config_new(struct config *c, const struct extension_def *def,
                                              const struct resource *r, struct diag *d);

/* "http_filter", "network_filter", "tcp_listener_filter": as in the names of stats. */
const char *extension_kind_name(enum extension_kind k);

#endif
