/* Filters whose configuration is discovered by name (ECDS) and may change while the listener that
 * uses them stays: a slot in the snapshot holds what is in force.
 * Threads: compiled on the config thread, immutable, shared. Spec: core.v3.ExtensionConfigSource,
 * TypedExtensionConfig. */
#ifndef SLUICE_API_EXTENSION_H
#define SLUICE_API_EXTENSION_H

#include "proxy/api/compile.h"
#include "proxy/base/shared.h"

struct http_filter_type;
struct network_filter_type;
struct listener_filter_type;
struct resource_ref;

enum extension_kind { EXTENSION_HTTP, EXTENSION_NETWORK, EXTENSION_LISTENER, EXTENSION_KINDS };

/* A discovered configuration, compiled for the place it is used at. */
struct extension_config {
    struct shared shared;
    union { /* by the kind of its slot */
        const struct http_filter_type *http;
        const struct network_filter_type *network;
        const struct listener_filter_type *listener;
    };
    const void *config;
    uint64_t hash[2]; /* of the resource it was made from; 0, 0: the default configuration */
    const struct resource_ref *refs; /* what it refers to in turn: route tables */
    unsigned refs_n;
    struct arena arena_; /* owns everything, itself included */
};

/* The slot of a discovered filter; places that ask for the same with the same settings share it.
 * `msg` is the core.v3.ExtensionConfigSource, is_last: only a terminal filter may come. SLOT_NONE
 * on error. */
slot_t compile_extension_ref(struct compile_ctx *ctx, enum extension_kind kind, sv name,
                             const void *msg, bool is_last);

/* A terminal filter must be the last of its chain (`chain`: "http", "network"), and the last one
 * terminal: else an error in Envoy's words. */
bool compile_check_terminal(struct compile_ctx *ctx, sv name, const char *type_name,
                            bool is_terminal, bool is_last, const char *chain);

#endif
