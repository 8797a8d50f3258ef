/* Facts and compilers that live in layers to the right of this one, given as functions when the
 * process starts. A hook that is NULL means "nothing known": operators print "-", a filter that
 * needs it is refused.
 * Threads: set once before any other thread starts; the functions are called from any. */
#ifndef SLUICE_OBSERVE_HOOKS_H
#define SLUICE_OBSERVE_HOOKS_H

#include "proxy/api/compile.h"
#include "proxy/observe/metadata.h"
#include "proxy/observe/stream_info.h"

struct observe_hooks {
    /* upstream/host.h */
    sv (*host_address)(const struct host *h);  /* "1.2.3.4:80" */
    sv (*host_hostname)(const struct host *h); /* empty: none */
    const struct addr *(*host_addr)(const struct host *h);
    const struct kv_metadata *(*host_metadata)(const struct host *h);
    /* route/matcher.h: one route.v3.HeaderMatcher */
    struct header_matcher *(*header_matcher_compile)(struct compile_ctx *ctx, const void *msg);
    bool (*header_matcher_match)(const struct header_matcher *m, const struct headers *h,
                                 struct arena *scratch);
    /* route/metadata_matcher.h: one type.matcher.v3.MetadataMatcher */
    struct metadata_matcher *(*metadata_matcher_compile)(struct compile_ctx *ctx, const void *msg);
    bool (*metadata_matcher_match)(const struct metadata_matcher *m, const struct kv_metadata *md);
};
void observe_hooks_set(const struct observe_hooks *h); /* copied */
const struct observe_hooks *observe_hooks(void);

#endif
