/* See dir_watch.h. A directory that goes away is forgotten: its watches stay silent. */
#include "proxy/event/dir_watch.h"

#include <errno.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "proxy/base/map.h"
#include "proxy/base/mem.h"

#define EVENTS_BYTES 4096

struct watched_dir {
    int wd; /* key of its place in the map */
    bool is_due, is_gone;
    struct list watches; /* struct dir_watch */
};
struct dir_watcher {
    int fd;
    struct io io;
    struct map dirs; /* wd → struct watched_dir */
};

static sv key_of(const struct watched_dir *d) {
    return sv_from((const char *)&d->wd, sizeof(d->wd));
}

static struct watched_dir *find(struct dir_watcher *w, int wd) {
    return map_get(&w->dirs, sv_from((const char *)&wd, sizeof(wd)));
}

static void mark(struct dir_watcher *w, const struct inotify_event *e) {
    size_t it = 0;
    struct map_slot *slot;
    if (e->mask & IN_Q_OVERFLOW) { /* some were lost: anything may have changed */
        while ((slot = map_next(&w->dirs, &it))) {
            ((struct watched_dir *)slot->value)->is_due = true;
        }
        return;
    }
    struct watched_dir *d = find(w, e->wd);
    if (!d) {
        return; /* of one that was cancelled */
    }
    if (e->mask & IN_IGNORED) {
        d->is_gone = true;
        map_remove(&w->dirs, key_of(d));
        return;
    }
    d->is_due |= (e->mask & IN_MOVED_TO) != 0;
}

static void on_ready(struct io *io, int events, int status) {
    struct dir_watcher *w = CONTAINER_OF(io, struct dir_watcher, io);
    union {
        char bytes[EVENTS_BYTES];
        struct inotify_event align;
    } u;
    (void)events;
    if (status < 0) {
        return;
    }
    ssize_t n = read(w->fd, u.bytes, sizeof(u.bytes));
    for (ssize_t at = 0; n > 0 && at < n;) {
        const struct inotify_event *e = (const struct inotify_event *)(const void *)(u.bytes + at);
        mark(w, e);
        at += (ssize_t)(sizeof(*e) + e->len);
    }
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&w->dirs, &it))) {
        struct watched_dir *d = slot->value;
        if (!d->is_due) {
            continue;
        }
        d->is_due = false;
        LIST_FOREACH (node, &d->watches) {
            struct dir_watch *watch = LIST_ENTRY(node, struct dir_watch, node_);
            watch->on_move_(watch);
        }
    }
}

struct dir_watcher *dir_watcher_new(struct loop *l) {
    struct dir_watcher *w = xnew(struct dir_watcher);
    map_init(&w->dirs);
    w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (w->fd < 0 || io_open(&w->io, l, w->fd, on_ready) < 0) {
        if (w->fd >= 0) {
            close(w->fd);
        }
        xfree(w);
        return NULL;
    }
    io_want(&w->io, IO_READ);
    return w;
}

static void on_closed(struct io *io) { xfree(CONTAINER_OF(io, struct dir_watcher, io)); }

void dir_watcher_free(struct dir_watcher *w) {
    if (!w) {
        return;
    }
    ASSERT(map_count(&w->dirs) == 0);
    map_fini(&w->dirs);
    io_close(&w->io, w->fd, on_closed);
}

int dir_watch_start(struct dir_watcher *w, struct dir_watch *watch, sv dir,
                    void (*on_move)(struct dir_watch *w)) {
    char *path = sv_dup(dir);
    int wd = inotify_add_watch(w->fd, path, IN_MOVED_TO | IN_ONLYDIR);
    xfree(path);
    if (wd < 0) {
        return -errno;
    }
    struct watched_dir *d = find(w, wd);
    if (!d) {
        d = xnew(struct watched_dir);
        d->wd = wd;
        list_init(&d->watches);
        map_put(&w->dirs, key_of(d), d);
    }
    watch->watcher_ = w;
    watch->dir_ = d;
    watch->on_move_ = on_move;
    list_push_back(&d->watches, &watch->node_);
    return 0;
}

void dir_watch_cancel(struct dir_watch *watch) {
    struct watched_dir *d = watch->dir_;
    if (!d) {
        return;
    }
    watch->dir_ = NULL;
    list_unlink(&watch->node_);
    if (!list_empty(&d->watches)) {
        return;
    }
    if (!d->is_gone) {
        inotify_rm_watch(watch->watcher_->fd, d->wd);
        map_remove(&watch->watcher_->dirs, key_of(d));
    }
    xfree(d);
}
