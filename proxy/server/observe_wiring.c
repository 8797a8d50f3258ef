/* See observe_wiring.h. Threads: main, at start. */
#include "proxy/server/observe_wiring.h"

#include "proxy/observe/hooks.h"
#include "proxy/route/matcher.h"
#include "proxy/route/metadata_matcher.h"
#include "proxy/upstream/host.h"

static sv host_address(const struct host *h) { return h->address_text; }
static sv host_hostname(const struct host *h) { return h->hostname; }
static const struct addr *host_addr(const struct host *h) { return &h->addr; }
static const struct kv_metadata *host_metadata(const struct host *h) { return h->metadata; }

void observe_wire(void) {
    static const struct observe_hooks hooks = {
        .host_address = host_address,
        .host_hostname = host_hostname,
        .host_addr = host_addr,
        .host_metadata = host_metadata,
        .header_matcher_compile = header_matcher_compile,
        .header_matcher_match = header_matcher_match,
        .metadata_matcher_compile = metadata_matcher_compile,
        .metadata_matcher_match = metadata_matcher_match,
    };
    observe_hooks_set(&hooks);
}
