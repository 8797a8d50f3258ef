/* A listener's filter_chain_matcher: a matcher tree whose actions name filter chains, in place of
 * each chain's own filter_chain_match.
 * Threads: compiled on the config thread, immutable; found on workers.
 * Spec: listener.v3.Listener.filter_chain_matcher, api/match_tree.h. */
#ifndef SLUICE_CONFIG_CHAIN_TREE_H
#define SLUICE_CONFIG_CHAIN_TREE_H

#include "proxy/api/compile.h"
#include "proxy/net/chain_match.h"

struct match_tree;
/* msg: listener.v3.Listener that has one; every filter chain needs a name of its own. NULL: errors
 * added. */
const struct match_tree *chain_tree_compile(struct compile_ctx *ctx, const void *msg);
/* The index of the chain. CHAIN_NONE: the tree names one that is not there, or finds none and there
 * is no default (`dflt`). */
uint32_t chain_tree_find(const struct match_tree *t, const struct accept_info *info, uint32_t dflt);

#endif
