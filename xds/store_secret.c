/* Secrets whose bytes are in files: read again when a file is moved into one of their directories.
 * A pair that does not fit, or is cut short, changes nothing: the last good one stays.
 * Threads: the config thread. Spec: transport_sockets.tls.v3.TlsCertificate.watched_directory;
 * without one, the directories of the files, as Envoy does for secrets that come by SDS. */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/event/dir_watch.h"
#include "proxy/net/tls_cert.h"
#include "xds/store.h"

struct secret_file_dir {
    struct dir_watch watch;
    struct secret_files *files;
};
struct secret_files {
    struct entry *entry;
    struct loop_task reload;
    struct secret_file_dir *dirs;
    size_t dirs_n;
};

static void count_failure(struct entry *e) {
    if (e->extra->stats) {
        stats_inc(stats_shard(e->extra->stats, e->store->loop->thread_index),
                  SDS_key_rotation_failed);
    }
}

static void on_reload(struct loop_task *t) {
    struct entry *e = CONTAINER_OF(t, struct secret_files, reload)->entry;
    struct store *s = e->store;
    const struct resource *old = e->active;
    struct diag *d = xnew(struct diag);
    diag_init(d);
    struct resource *r = resource_compile(&s->config, RES_SECRET, entry_name(e), old->version,
                                          old->wire, e->is_static, NULL, d);
    if (!r) {
        sv text = diag_text(d);
        log_warn(LOG_secret, "Failed to reload certificates: secret '%.*s': %.*s",
                 SV_ARG(entry_name(e)), SV_ARG(text));
        count_failure(e);
    } else if (tls_secret_equal(r->secret, old->secret)) {
        shared_unref(&r->shared);
    } else {
        log_info(LOG_secret, "secret '%.*s' was read again", SV_ARG(entry_name(e)));
        r->updated_us = loop_wall_us(s->loop, loop_refresh_now(s->loop));
        store_set_active(e, r); /* the watches are those of the new version now */
    }
    diag_fini(d);
    xfree(d);
}

static void on_move(struct dir_watch *w) {
    struct secret_files *f = CONTAINER_OF(w, struct secret_file_dir, watch)->files;
    loop_queue_task(f->entry->store->loop, &f->reload);
}

static sv directory_of(sv path) {
    size_t slash = sv_rfind(path, '/');
    return slash == SIZE_MAX ? SV(".") : slash == 0 ? SV("/") : sv_sub(path, 0, slash);
}

/* The same directory again costs no more: it is watched once for all. */
static void watch(struct secret_files *f, sv dir) {
    struct store *s = f->entry->store;
    struct secret_file_dir *one = &f->dirs[f->dirs_n];
    one->files = f;
    int rc = s->files ? dir_watch_start(s->files, &one->watch, dir, on_move) : UV_ENOSYS;
    if (rc < 0) {
        log_warn(LOG_secret, "secret '%.*s': directory '%.*s' can not be watched: %s",
                 SV_ARG(entry_name(f->entry)), SV_ARG(dir), uv_strerror(rc));
        return;
    }
    f->dirs_n++;
}

static void files_free(struct secret_files *f) {
    if (!f) {
        return;
    }
    loop_cancel_task(&f->reload);
    for (size_t i = 0; i < f->dirs_n; i++) {
        dir_watch_cancel(&f->dirs[i].watch);
    }
    xfree(f->dirs);
    xfree(f);
}

static struct secret_files *files_new(struct entry *e, struct tls_watches w) {
    struct secret_files *f = xnew(struct secret_files);
    f->entry = e;
    f->reload.run = on_reload;
    f->dirs = xnew_array(struct secret_file_dir, w.n);
    bool has_directory = false;
    for (size_t i = 0; i < w.n; i++) {
        has_directory |= w.v[i].is_directory;
    }
    for (size_t i = 0; i < w.n; i++) {
        if (w.v[i].is_directory || !has_directory) {
            watch(f, w.v[i].is_directory ? w.v[i].path : directory_of(w.v[i].path));
        }
    }
    return f;
}

void store_secret_unwatch(struct entry *e) {
    if (e->extra->files) {
        files_free(e->extra->files);
        entry_extra(e)->files = NULL;
    }
}

void store_secret_watch(struct entry *e, const struct resource *r) {
    struct store *s = e->store;
    struct secret_files *old = e->extra->files;
    struct tls_watches w = r ? tls_secret_watches(r->secret) : (struct tls_watches){0};
    struct secret_files *made = NULL;
    if (w.n && !s->opt.is_dry_run) {
        if (!s->files) {
            s->files = dir_watcher_new(s->loop);
        }
        made = files_new(e, w);
    }
    if (made || old) {
        entry_extra(e)->files = made;
    }
    files_free(old); /* last: a directory of both stays watched throughout */
}
