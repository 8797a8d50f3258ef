/* Which filter chain a connection gets: an immutable decision tree over the criteria of
 * FilterChainMatch. At each level the most specific criterion that is present decides, and there is
 * no way back afterwards: destination port → destination IP → server name → transport protocol →
 * application protocol → direct source IP → source type → source IP → source port.
 * Threads: built on the config thread, read from any. Spec: listener.v3.FilterChainMatch. */
#ifndef SLUICE_NET_CHAIN_MATCH_H
#define SLUICE_NET_CHAIN_MATCH_H

#include "proxy/api/listener_filter.h"
#include "proxy/base/diag.h"
#include "proxy/net/addr.h"

enum chain_source_type {
    CHAIN_SOURCE_ANY,
    CHAIN_SOURCE_SAME_IP_OR_LOOPBACK,
    CHAIN_SOURCE_EXTERNAL
};

/* Empty lists and views: any. Borrowed for chain_match_build (names are copied). */
struct chain_match_rule {
    sv name;                   /* of the filter chain, for messages */
    uint16_t destination_port; /* 0: any */
    uint16_t source_type;      /* enum chain_source_type */
    unsigned prefix_ranges_n, server_names_n, application_protocols_n, direct_source_n, source_n,
        source_ports_n;
    const struct cidr *prefix_ranges;
    const sv *server_names; /* "a.example.com", "*.example.com" */
    sv transport_protocol;
    const sv *application_protocols;
    const struct cidr *direct_source_prefix_ranges;
    const struct cidr *source_prefix_ranges;
    const uint16_t *source_ports;
};

#define CHAIN_NONE UINT32_MAX
struct chain_match;
/* Rule i leads to chain i; `default_chain` (or CHAIN_NONE) is for connections that no rule leads
 * anywhere. Lives in the arena. NULL: errors are in d, in Envoy's words without its "error adding
 * listener 'x': ". */
struct chain_match *chain_match_build(struct arena *a, const struct chain_match_rule *rules,
                                      unsigned n, uint32_t default_chain, struct diag *d);
/* The chain for an accepted connection, or CHAIN_NONE: no_filter_chain_match. */
uint32_t chain_match_find(const struct chain_match *m, const struct accept_info *info);

#endif
