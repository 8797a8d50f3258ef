/* A compiled listener. Threads: immutable. Spec: config.listener.v3.Listener. */
#ifndef SLUICE_CONFIG_LISTENER_H
#define SLUICE_CONFIG_LISTENER_H

#include "proxy/api/access_logger.h"
#include "proxy/net/chain_match.h"
#include "proxy/net/filter_chain.h"
#include "proxy/net/listener.h"
#include "proxy/net/sock.h"

struct chain_config {
    struct net_chain_config net; /* pin is the listener's resource */
    slot_t transport;
    /* of the FilterChain's bytes and what it inherits: equal chains keep their connections */
    uint64_t hash[2];
};

struct listener_address {
    struct addr addr;
    struct sock_opts opts;
};

struct match_tree;
struct listener_config {
    sv name;
    sv stat_name; /* of listener.<stat_name>. */
    slot_t slot;
    bool is_static, bind_to_port, use_original_dst, reuse_port;
    bool is_internal; /* one address, of ADDR_INTERNAL, and no socket */
    uint8_t traffic_direction;
    bool modify_only_drain; /* drain_type: /healthcheck/fail leaves connections alone */
    const struct listener_address *addresses; /* address, then additional_addresses */
    unsigned addresses_n;
    int backlog;
    uint32_t buffer_limit_bytes;
    struct listener_sock_config sock;
    /* shared, atomic; runtime's connection_limit when this was compiled */
    struct conn_limit *limit;
    const struct chain_config *chains; /* the default chain, when there is one, is the last */
    unsigned chains_n;
    bool has_default_chain;
    const struct chain_match *match;
    const struct match_tree *tree; /* filter_chain_matcher, in place of match; NULL: none */
    const struct access_logs *access_logs;
    struct stats_scope *stats;
    const struct kv_metadata *metadata;
};

/* Would the two be served by the same sockets (addresses and socket options equal)? */
bool listener_same_sockets(const struct listener_config *a, const struct listener_config *b);
/* Do the serialised listeners differ in nothing but filter_chains, default_filter_chain and
 * filter_chain_matcher? What is written in another order differs. */
bool listener_same_but_chains(sv a, sv b);
/* Has c a chain equal to this one of another version? */
bool listener_has_chain(const struct listener_config *c, const struct chain_config *like);

#endif
