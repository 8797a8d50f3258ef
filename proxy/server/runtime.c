/* Runtime layers of the bootstrap: static, admin and disk. Threads: main edits and publishes.
 * Spec: bootstrap.v3.LayeredRuntime, RuntimeLayer. Not here: reading keys (base/runtime.c). */
#include <dirent.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#include "protos/pb_json.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/server/server.h"

#define RUNTIME_FILE_MAX 65536u
#define RUNTIME_DEPTH_MAX 16u

/* {"a": {"b": 1}} sets a.b; an object with "numerator" is a fraction. */
static void set_tree(struct runtime_layer *l, sv prefix, json_t *v, unsigned depth) {
    if (depth > RUNTIME_DEPTH_MAX) {
        return;
    }
    if (!json_is_object(v) || json_object_get(v, "numerator")) {
        char *text = json_is_string(v) ? xstrdup(json_string_value(v))
                                       : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
        runtime_layer_set(l, prefix, sv_cstr(text));
        free(text); /* lint: jansson's allocation */
        return;
    }
    const char *key;
    json_t *child;
    json_object_foreach(v, key, child) {
        struct buf BUF_AUTO name;
        buf_init(&name);
        buf_printf(&name, "%.*s%s%s", SV_ARG(prefix), prefix.n ? "." : "", key);
        set_tree(l, buf_pullup(&name, buf_len(&name)), child, depth + 1);
    }
}

static void static_layer(struct runtime_layer *l, const Pb__Struct *m) {
    json_t *tree = pb_json_struct_tree(m);
    if (tree) {
        set_tree(l, SV_NULL, tree, 0);
        json_decref(tree);
    }
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

static bool add_layer(struct server *s, const Bootstrap__RuntimeLayer *m, unsigned i,
                      struct diag *d) {
    struct runtime_layer *l = runtime_layer_new(sv_cstr(m->name));
    s->layers[s->layers_n++] = l;
    switch (m->layer_specifier_case) {
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_STATIC_LAYER:
        static_layer(l, m->static_layer);
        return true;
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_ADMIN_LAYER:
        if (s->admin_layer != UINT_MAX) {
            return diag_error(
                d,
                "Too many admin layers specified in LayeredRuntime, at most one may be specified");
        }
        s->admin_layer = i;
        return true;
    case BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_DISK_LAYER: {
        struct buf BUF_AUTO path;
        buf_init(&path);
        buf_printf(&path, "%s%s%s", m->disk_layer->symlink_root,
                   *m->disk_layer->subdirectory ? "/" : "", m->disk_layer->subdirectory);
        char *dir = buf_dup_str(&path);
        disk_dir(l, dir, SV_NULL, 0);
        xfree(dir);
        return true;
    }
    default:
        return diag_error(d, "rtds_layer is not supported");
    }
}

static void publish(struct server *s) {
    runtime_publish(s->layers, s->layers_n);
    stats_gauge_set(s->runtime_stats, RUNTIME_num_keys, runtime_keys());
    stats_gauge_set(s->runtime_stats, RUNTIME_num_layers, runtime_layers());
    stats_inc(s->runtime_stats, RUNTIME_load_success);
}

bool server_runtime_init(struct server *s, struct diag *d) {
    const Bootstrap__LayeredRuntime *m = s->bootstrap->layered_runtime;
    size_t n = m ? m->n_layers : 0;
    s->runtime_stats = stats_shard(stats_scope_get(s->stats, &runtime_stats_group, SV("runtime.")),
                                   s->main->loop.thread_index);
    s->admin_layer = UINT_MAX;
    s->layers = xnew_array(struct runtime_layer *, n + 1);
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

void server_runtime_fini(struct server *s) {
    for (unsigned i = 0; i < s->layers_n; i++) {
        runtime_layer_free(s->layers[i]);
    }
    xfree(s->layers);
}
