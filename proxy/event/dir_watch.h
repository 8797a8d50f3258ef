/* Tells of files that are moved into directories: how configuration that is read from files is
 * swapped atomically (rename, or a symlink's). Files that are written in place are not told of:
 * they may be half-written.
 * Threads: the loop's. Spec: inotify(7), core.v3.WatchedDirectory. */
#ifndef SLUICE_EVENT_DIR_WATCH_H
#define SLUICE_EVENT_DIR_WATCH_H

#include "proxy/base/list.h"
#include "proxy/base/sv.h"
#include "proxy/event/loop.h"

struct dir_watcher; /* one inotify descriptor; a directory is watched once, for all who ask */
struct dir_watch {
    struct list node_;
    struct watched_dir *dir_; /* NULL: not watching */
    struct dir_watcher *watcher_;
    void (*on_move_)(struct dir_watch *w);
};

struct dir_watcher *dir_watcher_new(struct loop *l); /* NULL: no inotify to be had */
void dir_watcher_free(struct dir_watcher *w);        /* all watches are cancelled. NULL is fine */
/* on_move runs once for however many files were moved at a time; it must not cancel watches (queue
 * a task). 0, or UV_E… when the directory can't be watched. */
int dir_watch_start(struct dir_watcher *w, struct dir_watch *watch, sv dir,
                    void (*on_move)(struct dir_watch *w)) MUST_USE;
void dir_watch_cancel(struct dir_watch *watch); /* also of one that was not started, if zeroed */

#endif
