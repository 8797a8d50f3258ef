/* A view's way from the config thread to who asked, and its end: see config_view.h. */
#include "proxy/config/config_view.h"

#include <stdlib.h>

#include "proxy/base/mem.h"
#include "proxy/config/sockets.h"
#include "proxy/upstream/host.h"

/* A slice: about a millisecond. */
#define SORT_RUN 512u
#define SORT_SLICE_KEYS 4096u
#define FREE_SLICE_ITEMS 4096u

/* ---- order ---- */

/* What items are ordered by, beside where they are, so that less is moved. */
struct item_key {
    sv name;
    uint32_t index;
    uint8_t type, status;
};
/* A merge sort, bottom up: runs of `width` keys are in order, of [0, done) twice as long ones. */
struct view_sort {
    struct item_key *from, *to;
    size_t n, width, done;
    size_t left, right; /* heads of the two runs being merged at `done` */
};

static int by_type_and_name(const void *a, const void *b) {
    const struct item_key *x = a, *y = b;
    if (x->type != y->type) {
        return x->type - y->type;
    }
    int c = sv_cmp(x->name, y->name);
    return c ? c : x->status - y->status;
}

static struct view_sort *sort_new(const struct view *v) {
    struct view_sort *s = xnew(struct view_sort);
    s->n = v->items_n;
    s->from = xnew_array(struct item_key, s->n + 1);
    s->to = xnew_array(struct item_key, s->n + 1);
    return s;
}

static void sort_free(struct view_sort *s) {
    if (s) {
        xfree(s->from);
        xfree(s->to);
        xfree(s);
    }
}

static size_t at_most(size_t a, size_t b) { return a < b ? a : b; }

/* Keys of the next items, the first runs. */
static void first_runs(struct view_sort *s, const struct view *v) {
    size_t end = at_most(s->done + SORT_SLICE_KEYS, s->n);
    for (size_t i = s->done; i < end; i++) {
        const struct resource *r = v->items[i].resource;
        s->from[i] =
            (struct item_key){r->name, (uint32_t)i, (uint8_t)r->type, (uint8_t)v->items[i].status};
    }
    for (size_t i = s->done; i < end; i += SORT_RUN) {
        qsort(s->from + i, at_most(SORT_RUN, end - i), sizeof(*s->from), by_type_and_name);
    }
    s->done = end;
}

/* The next keys of this pass. */
static void merge(struct view_sort *s) {
    size_t end = at_most(s->done + SORT_SLICE_KEYS, s->n);
    for (; s->done < end; s->done++) {
        size_t pair = s->done / (2 * s->width) * (2 * s->width);
        size_t middle = at_most(pair + s->width, s->n), stop = at_most(pair + 2 * s->width, s->n);
        if (s->done == pair) {
            s->left = pair;
            s->right = middle;
        }
        bool is_left =
            s->right == stop ||
            (s->left < middle && by_type_and_name(&s->from[s->left], &s->from[s->right]) <= 0);
        s->to[s->done] = s->from[is_left ? s->left++ : s->right++];
    }
}

static void swap_keys(struct view_sort *s) {
    struct item_key *t = s->from;
    s->from = s->to;
    s->to = t;
}

/* One slice; false: all is in order. */
static bool sort_step(struct view_sort *s, const struct view *v) {
    if (s->width == 0) {
        first_runs(s, v);
    } else {
        merge(s);
    }
    if (s->done < s->n) {
        return true;
    }
    if (s->width) {
        swap_keys(s);
    }
    s->width = s->width ? 2 * s->width : SORT_RUN;
    s->done = 0;
    return s->width < s->n;
}

static void put_in_order(struct view *v) {
    struct view_item *items = xnew_array(struct view_item, v->items_n + 1);
    for (size_t i = 0; i < v->items_n; i++) {
        items[i] = v->items[v->sort->from[i].index];
    }
    xfree(v->items);
    v->items = items;
}

static void on_sort(struct loop *l, struct loop_msg *m) {
    struct view *v = CONTAINER_OF(m, struct view, msg);
    if (!v->sort) {
        v->sort = sort_new(v);
    }
    if (sort_step(v->sort, v)) {
        loop_post(l, &v->msg);
        return;
    }
    put_in_order(v);
    sort_free(v->sort);
    v->sort = NULL;
    v->on_view(v, v->user);
}

void view_post(struct view *v) {
    v->msg.run = on_sort;
    loop_post(v->loop, &v->msg);
}

/* ---- the end ---- */

static void item_fini(struct view_item *it) {
    shared_unref(&it->resource->shared);
    if (it->refused) {
        shared_unref(&it->refused->shared);
    }
    if (it->hosts) {
        shared_unref(&it->hosts->shared);
    }
    if (it->sockets) {
        shared_unref(&it->sockets->shared);
    }
    for (unsigned k = 0; k < it->members_n; k++) {
        shared_unref(&it->members[k]->shared);
    }
    xfree(it->members);
    xfree(it->rates);
    xfree(it->error);
}

static void free_rest(struct view *v) {
    for (unsigned i = 0; i < v->unready_n; i++) {
        xfree(v->unready[i].what);
        xfree(v->unready[i].target);
    }
    for (unsigned i = 0; i < v->absent_n; i++) {
        xfree(v->absent[i].name);
    }
    xfree(v->absent);
    xfree(v->items);
    xfree(v->unready);
    xfree(v->cds_version);
    xfree(v->lds_version);
    xfree(v);
}

static void on_free(struct loop *l, struct loop_msg *m) {
    struct view *v = CONTAINER_OF(m, struct view, msg);
    for (unsigned i = 0; i < FREE_SLICE_ITEMS && v->items_n; i++) {
        item_fini(&v->items[--v->items_n]);
    }
    if (v->items_n) {
        loop_post(l, &v->msg);
    } else {
        free_rest(v);
    }
}

void view_free_now(struct view *v) {
    while (v->items_n) {
        item_fini(&v->items[--v->items_n]);
    }
    free_rest(v);
}

void view_free(struct view *v) {
    v->msg.run = on_free;
    on_free(v->loop, &v->msg);
}
