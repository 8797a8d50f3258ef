/* Tables of shared immutable objects. Threads: any. Not here: making and freeing the objects. */
#include "proxy/base/intern.h"

#include "proxy/base/check.h"

static struct interned *use(struct intern_table *t, sv key) {
    struct interned *i = (struct interned *)map_get(&t->map_, key);
    if (i) {
        i->uses_++;
    }
    return i;
}

struct interned *intern_find(struct intern_table *t, sv key) {
    pthread_mutex_lock(&t->lock_);
    struct interned *i = use(t, key);
    pthread_mutex_unlock(&t->lock_);
    return i;
}

struct interned *intern_add(struct intern_table *t, struct interned *i) {
    pthread_mutex_lock(&t->lock_);
    struct interned *there = use(t, i->key);
    if (!there) {
        there = i;
        i->uses_ = 1;
        map_put(&t->map_, i->key, i);
    }
    pthread_mutex_unlock(&t->lock_);
    return there;
}

bool intern_release(struct intern_table *t, struct interned *i) {
    pthread_mutex_lock(&t->lock_);
    ASSERT(i->uses_ > 0);
    bool is_last = --i->uses_ == 0;
    if (is_last) {
        map_remove(&t->map_, i->key);
    }
    if (map_count(&t->map_) == 0) {
        map_fini(&t->map_);
    }
    pthread_mutex_unlock(&t->lock_);
    return is_last;
}
