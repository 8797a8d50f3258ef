/* Ordered intrusive tree: a treap whose priorities are a hash of the node's address.
 * Threads: the caller's lock. Not here: memory of nodes and keys. */
#include "proxy/stats/stats_tree.h"

static int compare(sv key, uintptr_t sub, const struct stats_tree_node *n) {
    int c = sv_cmp(key, n->key);
    return c ? c : (sub > n->sub) - (sub < n->sub);
}

static uint64_t priority(const struct stats_tree_node *n) {
    uint64_t x = (uint64_t)(uintptr_t)n;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

struct stats_tree_node *stats_tree_find(const struct stats_tree *t, sv key, uintptr_t sub) {
    struct stats_tree_node *n = t->root_;
    while (n) {
        int c = compare(key, sub, n);
        if (c == 0) {
            return n;
        }
        n = c < 0 ? n->left_ : n->right_;
    }
    return NULL;
}

struct stats_tree_node *stats_tree_after(const struct stats_tree *t, sv key, uintptr_t sub) {
    struct stats_tree_node *n = t->root_, *best = NULL;
    while (n) {
        if (compare(key, sub, n) < 0) {
            best = n;
            n = n->left_;
        } else {
            n = n->right_;
        }
    }
    return best;
}

struct stats_tree_node *stats_tree_first(const struct stats_tree *t) {
    struct stats_tree_node *n = t->root_;
    while (n && n->left_) {
        n = n->left_;
    }
    return n;
}

/* Part the tree at n's place: what is before n goes under *left, the rest under *right. */
static void split(struct stats_tree_node *tree, const struct stats_tree_node *n,
                  struct stats_tree_node **left, struct stats_tree_node **right) {
    while (tree) {
        if (compare(n->key, n->sub, tree) < 0) {
            *right = tree;
            right = &tree->left_;
            tree = tree->left_;
        } else {
            *left = tree;
            left = &tree->right_;
            tree = tree->right_;
        }
    }
    *left = *right = NULL;
}

void stats_tree_insert(struct stats_tree *t, struct stats_tree_node *n) {
    uint64_t prio = priority(n);
    struct stats_tree_node **at = &t->root_;
    while (*at && priority(*at) >= prio) {
        int c = compare(n->key, n->sub, *at);
        ASSERT(c != 0);
        at = c < 0 ? &(*at)->left_ : &(*at)->right_;
    }
    split(*at, n, &n->left_, &n->right_);
    *at = n;
    t->count++;
}

void stats_tree_remove(struct stats_tree *t, struct stats_tree_node *n) {
    struct stats_tree_node **at = &t->root_;
    while (*at != n) {
        ASSERT(*at);
        at = compare(n->key, n->sub, *at) < 0 ? &(*at)->left_ : &(*at)->right_;
    }
    struct stats_tree_node *l = n->left_, *r = n->right_;
    while (l && r) { /* join the two, highest priority on top */
        if (priority(l) >= priority(r)) {
            *at = l;
            at = &l->right_;
            l = l->right_;
        } else {
            *at = r;
            at = &r->left_;
            r = r->left_;
        }
    }
    *at = l ? l : r;
    n->left_ = n->right_ = NULL;
    t->count--;
}
