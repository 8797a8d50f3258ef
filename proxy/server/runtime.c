/* Runtime layers of the bootstrap: static, admin, disk and discovered. Threads: main edits and
 * publishes.
 * Spec: bootstrap.v3.LayeredRuntime, RuntimeLayer. Not here: reading keys (base/runtime.c). */
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/runtime_values.h"
#include "proxy/event/dir_watch.h"
#include "proxy/server/server.h"

#define RUNTIME_FILE_MAX 65536u
#define RUNTIME_DEPTH_MAX 16u

struct disk_watch {
    struct dir_watch watch;
    struct server *server;
};

static void set_values(struct runtime_layer *l, const struct runtime_values *v) {
    runtime_layer_clear(l);
    for (unsigned i = 0; i < v->n; i++) {
        runtime_layer_set(l, v->v[i].key, v->v[i].text);
    }
}

static bool static_layer(struct runtime_layer *l, const Pb__Struct *m, struct diag *d) {
    struct arena a;
    struct runtime_values v;
    arena_init(&a, 4096);
    DIAG_FIELD(d, "static_layer");
    bool ok = runtime_values_compile(&a, m, &v, d);
    set_values(l, &v);
    arena_fini(&a);
    return ok;
}

/* One file a key; directories are dots. */
static void disk_dir(struct runtime_layer *l, const char *path, sv prefix, unsigned depth) {
    DIR *d = depth > RUNTIME_DEPTH_MAX ? NULL : opendir(path);
    struct dirent *e;
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.') {
            continue;
        }
        struct buf BUF_AUTO file, key;
        buf_init(&file);
        buf_init(&key);
        buf_printf(&file, "%s/%s", path, e->d_name);
        buf_printf(&key, "%.*s%s%s", SV_ARG(prefix), prefix.n ? "." : "", e->d_name);
        char *name = buf_dup_str(&file);
        struct stat st;
        if (stat(name, &st) == 0 && S_ISDIR(st.st_mode)) {
            disk_dir(l, name, buf_pullup(&key, buf_len(&key)), depth + 1);
        } else {
            FILE *f = fopen(name, "re");
            char text[1024];
            size_t n = f ? fread(text, 1, sizeof(text), f) : 0;
            if (f) {
                fclose(f);
                runtime_layer_set(l, buf_pullup(&key, buf_len(&key)),
                                  sv_trim(sv_from(text, n && text[n - 1] == '\n' ? n - 1 : n)));
            }
        }
        xfree(name);
    }
    if (d) {
        closedir(d);
    }
}

static void load_disk(const struct server *s, struct runtime_layer *l,
                      const Bootstrap__RuntimeLayer__DiskLayer *m) {
    struct buf BUF_AUTO path;
    buf_init(&path);
    buf_printf(&path, "%s%s%s", m->symlink_root, *m->subdirectory ? "/" : "", m->subdirectory);
    if (m->append_service_cluster) {
        buf_printf(&path, "/%s", s->node->cluster);
    }
    char *dir = buf_dup_str(&path);
    runtime_layer_clear(l);
    disk_dir(l, dir, SV_NULL, 0);
    xfree(dir);
}

/* A layer's files are swapped by moving a link into the place of symlink_root. */
static void on_disk_move(struct dir_watch *w) {
    struct disk_watch *dw = CONTAINER_OF(w, struct disk_watch, watch);
    loop_queue_task(&dw->server->main->loop, &dw->server->disk_reload);
}

static void watch_disk(struct server *s, const Bootstrap__RuntimeLayer__DiskLayer *m) {
    sv root = sv_cstr(m->symlink_root);
    size_t slash = sv_rfind(root, '/');
    sv dir = slash == SIZE_MAX ? SV(".") : slash == 0 ? SV("/") : sv_sub(root, 0, slash);
    if (!s->files) {
        s->files = dir_watcher_new(&s->main->loop);
    }
    struct disk_watch *dw = &s->disk_watches[s->disk_watches_n];
    dw->server = s;
    int rc = s->files ? dir_watch_start(s->files, &dw->watch, dir, on_disk_move) : UV_ENOSYS;
    if (rc < 0) {
        log_warn(LOG_runtime, "directory '%.*s' can not be watched: %s", SV_ARG(dir),
                 uv_strerror(rc));
        return;
    }
    s->disk_watches_n++;
}

static bool add_layer(struct server *s, const Bootstrap__RuntimeLayer *m, unsigned i,
                      struct diag *d) {
    struct runtime_layer *l = runtime_layer_new(sv_cstr(m->name));
    s->layers[s->layers_n++] = l;
    switch (m->layer_specifier_case) {
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER:
        return static_layer(l, m->static_layer, d);
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_ADMIN_LAYER:
        if (s->admin_layer != UINT_MAX) {
            return diag_error(
                d,
                "Too many admin layers specified in LayeredRuntime, at most one may be specified");
        }
        s->admin_layer = i;
        return true;
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_DISK_LAYER:
        s->disk_layers_n++;
        load_disk(s, l, m->disk_layer);
        watch_disk(s, m->disk_layer);
        return true;
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_RTDS_LAYER:
        return true; /* empty until server_runtime_discovered */
    default:
        return diag_error(d, "layer_specifier: value is required");
    }
}

static void publish(struct server *s) {
    runtime_publish(s->layers, s->layers_n);
    stats_gauge_set(s->runtime_stats, RUNTIME_num_keys, runtime_keys());
    stats_gauge_set(s->runtime_stats, RUNTIME_num_layers, runtime_layers());
    stats_inc(s->runtime_stats, RUNTIME_load_success);
    /* as Envoy counts: an override is a second disk layer */
    stats_inc(s->runtime_stats,
              s->disk_layers_n > 1 ? RUNTIME_override_dir_exists : RUNTIME_override_dir_not_exists);
}

static void on_disk_reload(struct loop_task *t) {
    struct server *s = CONTAINER_OF(t, struct server, disk_reload);
    const Bootstrap__LayeredRuntime *m = s->bootstrap->layered_runtime;
    for (unsigned i = 0; i < s->layers_n; i++) {
        if (m->layers[i]->layer_specifier_case ==
            BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_DISK_LAYER) {
            load_disk(s, s->layers[i], m->layers[i]->disk_layer);
        }
    }
    publish(s);
}

bool server_runtime_init(struct server *s, struct diag *d) {
    const Bootstrap__LayeredRuntime *m = s->bootstrap->layered_runtime;
    size_t n = m ? m->n_layers : 0;
    s->runtime_stats = stats_shard(stats_scope_get(s->stats, &runtime_stats_group, SV("runtime.")),
                                   s->main->loop.thread_index);
    s->admin_layer = UINT_MAX;
    s->layers = xnew_array(struct runtime_layer *, n + 1);
    s->disk_watches = xnew_array(struct disk_watch, n + 1);
    s->disk_reload.run = on_disk_reload;
    for (unsigned i = 0; i < n; i++) {
        DIAG_FIELD(d, "layered_runtime.layers[%u]", i);
        if (!add_layer(s, m->layers[i], i, d)) {
            return false;
        }
    }
    publish(s);
    return true;
}

bool server_runtime_set(struct server *s, sv key, sv value) {
    if (s->admin_layer == UINT_MAX) {
        return false;
    }
    struct runtime_layer *l = s->layers[s->admin_layer];
    if (value.n) {
        runtime_layer_set(l, key, value);
    } else {
        runtime_layer_remove(l, key);
    }
    publish(s);
    stats_gauge_set(s->runtime_stats, RUNTIME_admin_overrides_active, runtime_layer_count(l) > 0);
    return true;
}

struct discovered_msg {
    struct loop_msg msg;
    struct server *server;
    unsigned layer;
    struct resource *values; /* one ref; NULL: none */
};

static void on_discovered(struct loop *l, struct loop_msg *m) {
    static const struct runtime_values none;
    struct discovered_msg *dm = CONTAINER_OF(m, struct discovered_msg, msg);
    struct server *s = dm->server;
    (void)l;
    set_values(s->layers[dm->layer], dm->values ? dm->values->runtime : &none);
    publish(s);
    if (dm->values) {
        shared_unref(&dm->values->shared);
    }
    xfree(dm);
}

void server_runtime_discovered(struct server *s, unsigned layer, struct resource *r) {
    struct discovered_msg *m = xnew(struct discovered_msg);
    *m = (struct discovered_msg){.msg.run = on_discovered, .server = s, .layer = layer};
    m->values = r ? shared_ref(r) : NULL;
    loop_post(&s->main->loop, &m->msg);
}

void server_runtime_fini(struct server *s) {
    loop_cancel_task(&s->disk_reload);
    for (unsigned i = 0; i < s->disk_watches_n; i++) {
        dir_watch_cancel(&s->disk_watches[i].watch);
    }
    xfree(s->disk_watches);
    dir_watcher_free(s->files);
    for (unsigned i = 0; i < s->layers_n; i++) {
        runtime_layer_free(s->layers[i]);
    }
    xfree(s->layers);
}
