/* Ordered intrusive tree (treap) of nodes keyed by bytes: scopes by prefix, metrics by name. It can
 * be continued from any key after others came and went, which a map cannot. Threads: the caller's
 * lock. */
#ifndef SLUICE_STATS_STATS_TREE_H
#define SLUICE_STATS_STATS_TREE_H

#include "proxy/base/sv.h"

struct stats_tree_node {
    struct stats_tree_node *left_, *right_;
    sv key;        /* borrowed while linked */
    uintptr_t sub; /* orders equal keys */
};
struct stats_tree {
    struct stats_tree_node *root_;
    size_t count;
};

struct stats_tree_node *stats_tree_find(const struct stats_tree *t, sv key, uintptr_t sub);
/* First node after (key, sub) in order; NULL: none. */
struct stats_tree_node *stats_tree_after(const struct stats_tree *t, sv key, uintptr_t sub);
struct stats_tree_node *stats_tree_first(const struct stats_tree *t);
/* its (key, sub) is not there yet */
void stats_tree_insert(struct stats_tree *t, struct stats_tree_node *n);
void stats_tree_remove(struct stats_tree *t, struct stats_tree_node *n);

#endif
