/* Reads DataSources of TLS secrets: files, environment variables, inline bytes.
 * Threads: config thread. Spec: core.v3.DataSource. Not here: noticing that a file changed (the
 * config layer watches what tls_secret_watches() tells). */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protos/gen/core.pb-c.h"
#include "proxy/net/tls_cert.h"

static void watch(struct tls_secret *s, const char *path, bool is_directory) {
    if (!s) {
        return;
    }
    struct tls_watch *w = vec_push(&s->watches_);
    w->path = arena_sv(&s->arena_, sv_cstr(path));
    w->is_directory = is_directory;
}

void tls_secret_watch_dir(struct tls_secret *s, const void *watched_directory_msg) {
    const Core__WatchedDirectory *m = watched_directory_msg;
    if (m) {
        watch(s, m->path, true);
    }
}

/* All of an open file, refusing what is larger than a secret may be. */
static bool read_all(int fd, const char *path, struct arena *a, sv *out, struct diag *d) {
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return diag_error(d, "unable to read file: %s: not a regular file", path);
    }
    if (st.st_size > TLS_SOURCE_BYTES_MAX) {
        return diag_error(d, "file %s size is %lld bytes; maximum is %u", path,
                          (long long)st.st_size, TLS_SOURCE_BYTES_MAX);
    }
    size_t cap = (size_t)st.st_size;
    char *p = arena_alloc(a, cap + 1);
    size_t n = 0;
    while (n < cap) {
        ssize_t got = read(fd, p + n, cap - n);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return diag_error(d, "unable to read file: %s: %s", path, strerror(errno));
        }
        if (got == 0) {
            break; /* cut short meanwhile */
        }
        n += (size_t)got;
    }
    p[n] = '\0';
    *out = sv_from(p, n);
    return true;
}

static bool read_file(const char *path, struct arena *a, sv *out, struct diag *d) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && errno == ENOENT) {
        return diag_error(d, "Invalid path: %s", path);
    }
    if (fd < 0) {
        return diag_error(d, "unable to read file: %s: %s", path, strerror(errno));
    }
    bool ok = read_all(fd, path, a, out, d);
    close(fd);
    return ok;
}

static bool take_inline(struct arena *a, sv bytes, struct tls_source *out, struct diag *d) {
    if (bytes.n > TLS_SOURCE_BYTES_MAX) {
        return diag_error(d, "inline data of %zu bytes is longer than %u", bytes.n,
                          TLS_SOURCE_BYTES_MAX);
    }
    out->bytes = arena_sv(a, bytes);
    out->path = bytes.n ? SV("<inline>") : SV("");
    return true;
}

bool tls_source_read(struct tls_secret *s, struct arena *a, const void *data_source_msg,
                     struct tls_source *out, struct diag *d) {
    const Core__DataSource *m = data_source_msg;
    *out = (struct tls_source){SV(""), SV("")};
    if (!m) {
        return true;
    }
    tls_secret_watch_dir(s, m->watched_directory);
    switch (m->specifier_case) {
    case CORE__DATA_SOURCE__SPECIFIER_FILENAME:
        watch(s, m->filename, false);
        out->path = arena_sv(a, sv_cstr(m->filename));
        return read_file(m->filename, a, &out->bytes, d);
    case CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        return take_inline(a, sv_from(m->inline_bytes.data, m->inline_bytes.len), out, d);
    case CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        return take_inline(a, sv_cstr(m->inline_string), out, d);
    case CORE__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE: {
        const char *value = getenv(m->environment_variable);
        if (!value) {
            return diag_error(d, "Environment variable doesn't exist: %s", m->environment_variable);
        }
        return take_inline(a, sv_cstr(value), out, d);
    }
    case CORE__DATA_SOURCE__SPECIFIER__NOT_SET:
    default:
        return diag_error(d, "Unexpected DataSource::specifier_case(): %d", m->specifier_case);
    }
}
