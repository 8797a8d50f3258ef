/* Resources from a file (path_config_source): a DiscoveryResponse as .json, .yaml, .pb or .pb_text,
 * read again when a file is moved into place. A file that can't be read or parsed changes nothing:
 * the last good one stays.
 * Threads: the config thread. Spec: core.v3.PathConfigSource; only moves count, as in Envoy: a file
 * being written is not read. Watched by inotify itself, which tells a move from a creation. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protos/any.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "protos/pb_json.h"
#include "protos/pb_text.h"
#include "protos/pb_yaml.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/mux_kind.h"

#define FILE_MAX_BYTES (1u << 30)
#define EVENTS_BYTES 4096

struct file_mux {
    struct xds_mux mux;
    enum resource_type type;
    char *path, *dir;
    char *name; /* of the file in dir; NULL: any move in dir counts (watched_directory) */
    int fd;     /* inotify */
    struct io io;
    struct loop_task load;
    unsigned watched_n; /* names, by count */
    bool is_loaded;     /* a good file was delivered */
};

static struct file_mux *mux_of(struct xds_mux *m) { return CONTAINER_OF(m, struct file_mux, mux); }

/* ---- reading ---- */

/* NULL with an error: can't be read. Free with xfree. */
static char *read_file(const char *path, size_t *n, struct diag *d) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        diag_error(d, "unable to read file: %s", strerror(errno));
    } else if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX_BYTES) {
        diag_error(d, "not a regular file of at most %u bytes", FILE_MAX_BYTES);
    }
    char *text = NULL;
    *n = 0;
    if (diag_ok(d)) {
        text = xalloc((size_t)st.st_size + 1);
        ssize_t got = 1;
        while (*n < (size_t)st.st_size &&
               (got = read(fd, text + *n, (size_t)st.st_size - *n)) > 0) {
            *n += (size_t)got;
        }
        if (got < 0) {
            diag_error(d, "unable to read file: %s", strerror(errno));
            xfree(text);
            text = NULL;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
    return text;
}

static ProtobufCMessage *parse_text(sv path, sv text, struct arena *a, struct diag *d) {
    const struct proto_type *t = any_type(SV("envoy.service.discovery.v3.DiscoveryResponse"));
    CHECK(t);
    if (sv_ends(path, SV(".pb"))) {
        return proto_unpack(&service_discovery__discovery_response__descriptor, text, a, d);
    }
    if (sv_ends(path, SV(".pb_text"))) {
        return pb_text_parse(t, text, a, d);
    }
    if (!sv_ends(path, SV(".yaml")) && !sv_ends(path, SV(".yml"))) {
        return pb_json_parse_text(t, text, PB_JSON_UNKNOWN_WARN, a, d);
    }
    json_t *tree = pb_yaml_parse(text, d);
    ProtobufCMessage *m = tree ? pb_json_parse(t, tree, PB_JSON_UNKNOWN_WARN, a, d) : NULL;
    json_decref(tree);
    return m;
}

/* False: errors are in d. */
static bool read_response(const struct file_mux *m, struct arena *a, struct discovery_response *out,
                          struct diag *d) {
    size_t n;
    char *text = read_file(m->path, &n, d);
    if (!text) {
        return false;
    }
    ProtobufCMessage *msg = parse_text(sv_cstr(m->path), (sv){text, n}, a, d);
    xfree(text);
    if (!msg) {
        return false;
    }
    ServiceDiscovery__DiscoveryResponse *r = (ServiceDiscovery__DiscoveryResponse *)(void *)msg;
    if (!*r->type_url) {
        r->type_url = resource_types[m->type].type_url;
    }
    if (!discovery_parse_sotw(proto_pack(msg, a), a, out)) {
        return diag_error(d, "malformed DiscoveryResponse");
    }
    return out->type == m->type ||
           diag_error(d, "unexpected type URL '%.*s', expected '%s'", SV_ARG(out->type_url),
                      resource_types[m->type].type_url);
}

static void deliver(struct file_mux *m, const struct discovery_response *r, struct diag *d) {
    struct buf BUF_AUTO error;
    buf_init(&error);
    bool *accepted = xnew_array(bool, r->resources_n + 1);
    mux_deliver(&m->mux, r, true, accepted, &error);
    xfree(accepted);
    m->is_loaded = true;
    if (!buf_empty(&error)) {
        diag_error(d, "%.*s", SV_ARG(buf_pullup(&error, buf_len(&error))));
    }
}

static void load(struct loop_task *task) {
    struct file_mux *m = CONTAINER_OF(task, struct file_mux, load);
    if (m->watched_n == 0) {
        return;
    }
    struct arena a;
    arena_init(&a, 0);
    struct diag *d = xnew(struct diag);
    diag_init(d);
    struct discovery_response r;
    bool was_read = read_response(m, &a, &r, d);
    if (was_read) {
        deliver(m, &r, d);
    }
    if (!diag_ok(d)) {
        sv text = diag_text(d);
        log_warn(LOG_config, "filesystem config update of '%s' %s: %.*s", m->path,
                 was_read ? "rejected" : "failed", SV_ARG(text));
    }
    for (const struct diag_warning *w = diag_warnings(d); w; w = w->next) {
        log_warn(LOG_config, "'%s': %.*s", m->path, SV_ARG(w->text));
    }
    diag_fini(d);
    xfree(d);
    arena_fini(&a);
    if (!was_read) {
        mux_failed(&m->mux, m->type);
    }
}

/* ---- watching ---- */

static bool is_ours(const struct file_mux *m, const struct inotify_event *e) {
    return (e->mask & IN_Q_OVERFLOW) ||
           ((e->mask & IN_MOVED_TO) && (!m->name || (e->len && strcmp(e->name, m->name) == 0)));
}

static void on_ready(struct io *io, int events, int status) {
    struct file_mux *m = CONTAINER_OF(io, struct file_mux, io);
    union {
        char bytes[EVENTS_BYTES];
        struct inotify_event align;
    } u;
    (void)events;
    if (status < 0) {
        log_warn(LOG_config, "file '%s' is no longer watched: %s", m->path, uv_strerror(status));
        return;
    }
    ssize_t n = read(m->fd, u.bytes, sizeof(u.bytes));
    bool is_due = false;
    for (ssize_t at = 0; n > 0 && at < n;) {
        const struct inotify_event *e = (const struct inotify_event *)(const void *)(u.bytes + at);
        is_due |= is_ours(m, e);
        at += (ssize_t)(sizeof(*e) + e->len);
    }
    if (is_due) {
        loop_queue_task(m->mux.loop, &m->load);
    }
}

static int start_watching(struct file_mux *m) {
    m->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (m->fd < 0 || inotify_add_watch(m->fd, m->dir, IN_MOVED_TO | IN_ONLYDIR) < 0) {
        return -errno;
    }
    int rc = io_open(&m->io, m->mux.loop, m->fd, on_ready);
    if (rc == 0) {
        io_want(&m->io, IO_READ);
    }
    return rc;
}

/* ---- calls ---- */

static void file_watch(struct xds_mux *mux, enum resource_type t, sv name) {
    struct file_mux *m = mux_of(mux);
    (void)t;
    (void)name; /* a file tells all it has; the sink takes what is wanted */
    m->watched_n++;
    loop_queue_task(mux->loop, &m->load);
}

static void file_unwatch(struct xds_mux *mux, enum resource_type t, sv name) {
    struct file_mux *m = mux_of(mux);
    if (!BUG(m->watched_n == 0)) {
        m->watched_n--;
    }
    mux_forget_ttl(mux, t, name);
}

static void file_pause(struct xds_mux *mux, enum resource_type t, bool pause) {
    (void)mux; /* there are no requests to hold back */
    (void)t;
    (void)pause;
}

static bool file_is_connected(const struct xds_mux *mux) {
    return CONTAINER_OF(mux, struct file_mux, mux)->is_loaded;
}

static void file_destroy(struct file_mux *m) {
    loop_cancel_task(&m->load);
    mux_fini(&m->mux);
    xfree(m->path);
    xfree(m->dir);
    xfree(m->name);
    xfree(m);
}

static void on_io_closed(struct io *io) { file_destroy(CONTAINER_OF(io, struct file_mux, io)); }

static void file_free(struct xds_mux *mux) {
    struct file_mux *m = mux_of(mux);
    loop_cancel_task(&m->load);
    timer_cancel(&mux->ttl_timer);
    io_close(&m->io, m->fd, on_io_closed);
}

static const struct xds_mux_ops file_mux_ops = {
    .free = file_free,
    .watch = file_watch,
    .unwatch = file_unwatch,
    .pause = file_pause,
    .is_connected = file_is_connected,
};

static void set_paths(struct file_mux *m, const struct config_source *src) {
    m->path = sv_dup(src->path);
    size_t slash = sv_rfind(src->path, '/');
    if (src->watched_dir.n) {
        m->dir = sv_dup(src->watched_dir);
        return;
    }
    m->dir = slash == SIZE_MAX ? xstrdup(".")
             : slash == 0      ? xstrdup("/")
                               : sv_dup(sv_sub(src->path, 0, slash));
    m->name = sv_dup(slash == SIZE_MAX ? src->path : sv_skip(src->path, slash + 1));
}

struct xds_mux *file_source_new(struct loop *l, const struct config_source *src,
                                enum resource_type type, const struct xds_sink *sink) {
    struct file_mux *m = xnew(struct file_mux);
    mux_init(&m->mux, &file_mux_ops, l, sink);
    m->type = type;
    m->load.run = load;
    set_paths(m, src);
    int rc = start_watching(m);
    if (rc < 0) {
        log_error(LOG_config, "directory '%s' can not be watched: %s", m->dir, uv_strerror(rc));
        if (m->fd >= 0) {
            close(m->fd);
        }
        file_destroy(m);
        return NULL;
    }
    return &m->mux;
}
