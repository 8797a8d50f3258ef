/* Access-log files. A worker copies a line into its own buffer under its own mutex, which only the
 * flush thread ever contends for, and that for a pointer swap. Full buffers are queued on the sink;
 * the flush thread takes them, and what the workers have besides, and writes all lines in the order
 * in which they were appended.
 * Threads: see log_sink.h. Locks: lanes by index, then queue; all and the registry's are held for
 * list work and one copy only. */
#include "proxy/observe/log_sink.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "proxy/base/list.h"
#include "proxy/base/log.h"
#include "proxy/stats/stats_server.h"

#define STALLED_MS_MAX 1000 /* a reader that takes nothing for so long loses lines */

/* Where a line ends, and its place among those of all threads. */
struct line_mark {
    uint32_t end;
    uint32_t turn; /* wraps */
};
/* Whole lines of one thread: their text from the front, their marks from the back. */
struct log_chunk {
    struct log_chunk *next;
    size_t n, cap;
    uint32_t lines_n;
    unsigned lane;
    char data[];
};
struct lane { /* one thread's side of a sink */
    pthread_mutex_t lock;
    struct log_chunk *chunk; /* NULL: nothing buffered */
};
struct log_sink {
    struct list node; /* registry */
    uint32_t refs;    /* guarded by registry lock */
    int fd;           /* flush thread only, once open */
    bool is_owned;    /* the fd is ours: closed, reopened */
    char *path;
    pthread_mutex_t lock;
    struct log_chunk *head, **tail; /* full chunks; guarded by lock */
    uint64_t pending;               /* shared, atomic: bytes buffered and not yet written */
    uint32_t turn;                  /* shared, atomic: of the next line */
    unsigned lanes_n;
    struct lane lanes[];
};

/* Tallies for filesystem.*; shared, atomic. */
struct tallies {
    uint64_t write_buffered, write_completed, write_failed, flushed_by_timer, reopen_failed,
        dropped_bytes;
};

static struct {
    pthread_mutex_t lock; /* guards everything up to `thread` */
    pthread_cond_t wake;
    struct list sinks;
    bool is_ready, is_running, stop, kick, reopen;
    unsigned threads, interval_ms;
    pthread_t thread;
    struct tallies now;       /* shared, atomic */
    struct tallies published; /* main */
    struct stats_scope *scope;
} all = {.lock = PTHREAD_MUTEX_INITIALIZER, .threads = 1, .interval_ms = 10000};

#define BUMP(field, n) ((void)__atomic_add_fetch(&all.now.field, (n), __ATOMIC_RELAXED))

static void ready_locked(void) {
    if (!all.is_ready) {
        list_init(&all.sinks);
        pthread_condattr_t attr;
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
        pthread_cond_init(&all.wake, &attr);
        pthread_condattr_destroy(&attr);
        all.is_ready = true;
    }
}

/* --- writing, on the flush thread (or log_sinks_flush when there is none) --- */

static bool is_writable_soon(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    return poll(&p, 1, STALLED_MS_MAX) > 0;
}

static void write_all(struct log_sink *s, const char *p, size_t n) {
    size_t left = n;
    while (left && s->fd >= 0) {
        ssize_t r = write(s->fd, p, left);
        if (r < 0 && errno == EINTR) {
            continue;
        }
        /* a pipe somebody made non-blocking */
        if (r < 0 && errno == EAGAIN && is_writable_soon(s->fd)) {
            continue;
        }
        if (r <= 0) {
            break;
        }
        p += r;
        left -= (size_t)r;
    }
    if (left) {
        BUMP(write_failed, 1);
        BUMP(dropped_bytes, left);
    } else {
        BUMP(write_completed, 1);
    }
    __atomic_sub_fetch(&s->pending, n, __ATOMIC_RELAXED);
}

static void enqueue(struct log_sink *s, struct log_chunk *c) {
    pthread_mutex_lock(&s->lock);
    c->next = NULL;
    *s->tail = c;
    s->tail = &c->next;
    pthread_mutex_unlock(&s->lock);
}

static bool has_queued(struct log_sink *s) {
    pthread_mutex_lock(&s->lock);
    bool has = s->head != NULL;
    pthread_mutex_unlock(&s->lock);
    return has;
}

/* All that is buffered at one moment, so that no line is left behind that was there before one of
 * these. */
static struct log_chunk *take_all(struct log_sink *s) {
    for (unsigned i = 0; i < s->lanes_n; i++) {
        pthread_mutex_lock(&s->lanes[i].lock);
    }
    for (unsigned i = 0; i < s->lanes_n; i++) {
        if (s->lanes[i].chunk) {
            enqueue(s, s->lanes[i].chunk);
            s->lanes[i].chunk = NULL;
        }
    }
    pthread_mutex_lock(&s->lock);
    struct log_chunk *all_of_it = s->head;
    s->head = NULL;
    s->tail = &s->head;
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = s->lanes_n; i > 0; i--) {
        pthread_mutex_unlock(&s->lanes[i - 1].lock);
    }
    return all_of_it;
}

/* --- lines of several threads in one order --- */

static struct line_mark *mark_of(const struct log_chunk *c, uint32_t i) {
    return (struct line_mark *)(void *)(uintptr_t)(c->data + c->cap) - (i + 1);
}

/* What is left of one thread's lines. */
struct lane_reader {
    struct log_chunk *chunk; /* NULL: nothing */
    uint32_t line;           /* the next one */
    struct log_chunk **tail;
};

static uint32_t next_turn(const struct lane_reader *r) { return mark_of(r->chunk, r->line)->turn; }
static bool is_before(uint32_t turn, uint32_t other) { return (int32_t)(turn - other) < 0; }

/* The reader whose line comes first, and the one that comes next. NULL: there is none. */
static struct lane_reader *first_reader(struct lane_reader *v, unsigned n,
                                        struct lane_reader **second) {
    struct lane_reader *first = NULL;
    *second = NULL;
    for (unsigned i = 0; i < n; i++) {
        if (!v[i].chunk) {
            continue;
        }
        if (!first || is_before(next_turn(&v[i]), next_turn(first))) {
            *second = first;
            first = &v[i];
        } else if (!*second || is_before(next_turn(&v[i]), next_turn(*second))) {
            *second = &v[i];
        }
    }
    return first;
}

/* Text that one write takes: lines of different threads are put together. */
struct gather {
    size_t n;
    char text[LOG_BUFFER_BYTES];
};

static void gather_flush(struct log_sink *s, struct gather *g) {
    if (g->n) {
        write_all(s, g->text, g->n);
        g->n = 0;
    }
}

static void gather_add(struct log_sink *s, struct gather *g, const char *text, size_t n) {
    if (n > sizeof(g->text) - g->n) {
        gather_flush(s, g);
    }
    if (n > sizeof(g->text)) {
        write_all(s, text, n);
        return;
    }
    memcpy(g->text + g->n, text, n);
    g->n += n;
}

/* This reader's lines that come before `second`'s (NULL: all of its chunk). */
static void gather_run(struct log_sink *s, struct gather *g, struct lane_reader *r,
                       const struct lane_reader *second) {
    struct log_chunk *c = r->chunk;
    size_t from = r->line ? mark_of(c, r->line - 1)->end : 0;
    do {
        r->line++;
    } while (r->line < c->lines_n && (!second || is_before(next_turn(r), next_turn(second))));
    gather_add(s, g, c->data + from, mark_of(c, r->line - 1)->end - from);
    if (r->line == c->lines_n) {
        r->chunk = c->next;
        r->line = 0;
        xfree(c);
    }
}

static void write_chunks(struct log_sink *s, struct log_chunk *c) {
    if (!c) {
        return;
    }
    struct lane_reader *readers = xnew_array(struct lane_reader, s->lanes_n);
    struct gather *g = xalloc(sizeof(*g));
    g->n = 0;
    for (struct log_chunk *next; c; c = next) {
        next = c->next;
        c->next = NULL;
        struct lane_reader *r = &readers[c->lane];
        *(r->chunk ? r->tail : &r->chunk) = c;
        r->tail = &c->next;
    }
    struct lane_reader *first, *second;
    while ((first = first_reader(readers, s->lanes_n, &second))) {
        gather_run(s, g, first, second);
    }
    gather_flush(s, g);
    xfree(g);
    xfree(readers);
}

/* Write what is buffered, if there is a full buffer or is_due. */
static void sink_write(struct log_sink *s, bool is_due) {
    if (is_due || has_queued(s)) {
        write_chunks(s, take_all(s));
    }
}

static int open_file(const char *path) {
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void sink_reopen(struct log_sink *s) {
    if (!s->is_owned) {
        return;
    }
    int fd = open_file(s->path);
    if (fd < 0) { /* go on with the old file */
        BUMP(reopen_failed, 1);
        log_warn(LOG_file, "unable to reopen file '%s': %s", s->path, strerror(errno));
        return;
    }
    close(s->fd);
    s->fd = fd;
}

static void sink_free(struct log_sink *s) {
    sink_write(s, true);
    if (s->is_owned) {
        close(s->fd);
    }
    for (unsigned i = 0; i < s->lanes_n; i++) {
        pthread_mutex_destroy(&s->lanes[i].lock);
    }
    pthread_mutex_destroy(&s->lock);
    xfree(s->path);
    xfree(s);
}

/* One pass over all sinks; each is held by a ref while the registry is unlocked. Sinks nobody
 * refers to any more go. */
static void flush_round(bool with_lanes, bool reopen) {
    /* one at a time: a sink's fd has one user */
    static pthread_mutex_t round = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&round);
    pthread_mutex_lock(&all.lock);
    struct list *at = all.sinks.next;
    while (at != &all.sinks) {
        struct log_sink *s = LIST_ENTRY(at, struct log_sink, node);
        bool dead = s->refs == 0;
        s->refs++;
        pthread_mutex_unlock(&all.lock);
        sink_write(s, with_lanes || reopen || dead);
        if (reopen) {
            sink_reopen(s);
        }
        pthread_mutex_lock(&all.lock);
        at = at->next;
        if (--s->refs == 0) {
            list_unlink(&s->node);
            pthread_mutex_unlock(&all.lock);
            sink_free(s);
            pthread_mutex_lock(&all.lock);
            /* its neighbour may have gone meanwhile: start over, the rest has little to write */
            at = all.sinks.next;
        }
    }
    pthread_mutex_unlock(&all.lock);
    pthread_mutex_unlock(&round);
}

static struct timespec deadline(unsigned ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += (long)(ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

static void *flush_main(void *unused) {
    (void)unused;
    log_thread_name("log_flush");
    struct timespec until = deadline(all.interval_ms);
    for (;;) {
        pthread_mutex_lock(&all.lock);
        int rc = 0;
        while (!all.stop && !all.kick && !all.reopen && rc != ETIMEDOUT) {
            rc = pthread_cond_timedwait(&all.wake, &all.lock, &until);
        }
        bool stop = all.stop, reopen = all.reopen, by_timer = rc == ETIMEDOUT;
        all.kick = all.reopen = false;
        pthread_mutex_unlock(&all.lock);
        if (by_timer) {
            BUMP(flushed_by_timer, 1);
            until = deadline(all.interval_ms);
        }
        flush_round(by_timer || stop || reopen, reopen);
        if (stop) {
            return NULL;
        }
    }
}

/* --- life --- */

void log_sinks_start(unsigned threads, unsigned interval_ms, struct stats_store *stats) {
    pthread_mutex_lock(&all.lock);
    CHECK(!all.is_running && threads);
    ready_locked();
    all.threads = threads;
    all.interval_ms = interval_ms ? interval_ms : 1;
    all.stop = false;
    all.scope = stats ? stats_scope_get(stats, &filesystem_stats_group, SV("filesystem.")) : NULL;
    all.is_running = true;
    pthread_mutex_unlock(&all.lock);
    CHECK(pthread_create(&all.thread, NULL, flush_main, NULL) == 0);
}

static void wake(bool *flag) {
    pthread_mutex_lock(&all.lock);
    ready_locked();
    *flag = true;
    pthread_cond_signal(&all.wake);
    pthread_mutex_unlock(&all.lock);
}

void log_sinks_stop(void) {
    if (!all.is_running) {
        return;
    }
    wake(&all.stop);
    pthread_join(all.thread, NULL);
    all.is_running = false;
    stats_scope_unref(all.scope);
    all.scope = NULL;
}

void log_sinks_reopen(void) { wake(&all.reopen); }

void log_sinks_flush(void) {
    pthread_mutex_lock(&all.lock);
    ready_locked();
    pthread_mutex_unlock(&all.lock);
    flush_round(true, false);
}

static void publish(struct stats_shard *sh, unsigned cell, const uint64_t *now, uint64_t *before) {
    uint64_t n = __atomic_load_n(now, __ATOMIC_RELAXED);
    stats_add(sh, cell, n - *before);
    *before = n;
}

void log_sinks_publish_stats(unsigned thread) {
    if (!all.scope) {
        return;
    }
    struct stats_shard *sh = stats_shard(all.scope, thread);
    struct tallies *now = &all.now, *old = &all.published;
    publish(sh, FILESYSTEM_write_buffered, &now->write_buffered, &old->write_buffered);
    publish(sh, FILESYSTEM_write_completed, &now->write_completed, &old->write_completed);
    publish(sh, FILESYSTEM_write_failed, &now->write_failed, &old->write_failed);
    publish(sh, FILESYSTEM_flushed_by_timer, &now->flushed_by_timer, &old->flushed_by_timer);
    publish(sh, FILESYSTEM_reopen_failed, &now->reopen_failed, &old->reopen_failed);
    publish(sh, FILESYSTEM_write_dropped_bytes, &now->dropped_bytes, &old->dropped_bytes);
    uint64_t pending = 0;
    pthread_mutex_lock(&all.lock);
    LIST_FOREACH (n, &all.sinks) {
        pending +=
            __atomic_load_n(&LIST_ENTRY(n, struct log_sink, node)->pending, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&all.lock);
    stats_gauge_set(sh, FILESYSTEM_write_total_buffered, pending);
}

static struct log_sink *sink_new_locked(const char *path, int fd, bool is_owned) {
    struct log_sink *s = xcalloc(1, sizeof(*s) + all.threads * sizeof(s->lanes[0]));
    s->refs = 1;
    s->fd = fd;
    s->is_owned = is_owned;
    s->path = xstrdup(path);
    s->tail = &s->head;
    s->lanes_n = all.threads;
    pthread_mutex_init(&s->lock, NULL);
    for (unsigned i = 0; i < s->lanes_n; i++) {
        pthread_mutex_init(&s->lanes[i].lock, NULL);
    }
    list_push_back(&all.sinks, &s->node);
    return s;
}

static struct log_sink *find_locked(const char *path) {
    LIST_FOREACH (n, &all.sinks) {
        struct log_sink *s = LIST_ENTRY(n, struct log_sink, node);
        if (strcmp(s->path, path) == 0) {
            s->refs++;
            return s;
        }
    }
    return NULL;
}

struct log_sink *log_sink_get(sv path, struct diag *d) {
    char *name = sv_dup(path);
    pthread_mutex_lock(&all.lock);
    ready_locked();
    struct log_sink *s = find_locked(name);
    if (!s) {
        int fd = open_file(name);
        if (fd < 0) {
            diag_error(d, "unable to open file '%s': %s", name, strerror(errno));
        } else {
            s = sink_new_locked(name, fd, true);
        }
    }
    pthread_mutex_unlock(&all.lock);
    xfree(name);
    return s;
}

static struct log_sink *standard(const char *name, int fd) {
    pthread_mutex_lock(&all.lock);
    ready_locked();
    struct log_sink *s = find_locked(name);
    if (!s) {
        s = sink_new_locked(name, fd, false);
    }
    pthread_mutex_unlock(&all.lock);
    return s;
}
/* Names that no file path has. */
struct log_sink *log_sink_stdout(void) {
    return standard("<stdout>", STDOUT_FILENO);
}
struct log_sink *log_sink_stderr(void) {
    return standard("<stderr>", STDERR_FILENO);
}

void log_sink_unref(struct log_sink *s) {
    if (!s) {
        return;
    }
    pthread_mutex_lock(&all.lock);
    bool last = --s->refs == 0;
    all.kick = all.kick || last;
    if (last) {
        pthread_cond_signal(&all.wake);
    }
    pthread_mutex_unlock(&all.lock);
}

/* --- appending --- */

static struct log_chunk *chunk_of(size_t line, unsigned lane) {
    size_t cap = line > LOG_BUFFER_BYTES ? line : LOG_BUFFER_BYTES;
    cap = (cap + sizeof(struct line_mark) + 7) & ~(size_t)7;
    struct log_chunk *c = xalloc(sizeof(*c) + cap);
    *c = (struct log_chunk){.cap = cap, .lane = lane};
    return c;
}

static bool has_room(const struct log_chunk *c, size_t line) {
    return c->cap - c->n >= line + (c->lines_n + 1) * sizeof(struct line_mark);
}

void log_sink_append(struct log_sink *s, unsigned thread, const struct buf *line) {
    size_t n = buf_len(line);
    uint64_t pending = __atomic_add_fetch(&s->pending, n, __ATOMIC_RELAXED);
    if (n == 0 || n > LOG_LINE_BYTES_MAX || pending > LOG_QUEUE_BYTES_MAX) {
        __atomic_sub_fetch(&s->pending, n, __ATOMIC_RELAXED);
        BUMP(dropped_bytes, n);
        return;
    }
    BUMP(write_buffered, 1);
    unsigned lane = thread % s->lanes_n;
    struct lane *l = &s->lanes[lane];
    pthread_mutex_lock(&l->lock);
    bool is_full = l->chunk && !has_room(l->chunk, n); /* lines are never split */
    if (is_full) {
        enqueue(s, l->chunk);
        l->chunk = NULL;
    }
    if (!l->chunk) {
        l->chunk = chunk_of(n, lane);
    }
    struct log_chunk *c = l->chunk;
    buf_peek(line, 0, c->data + c->n, n);
    c->n += n;
    *mark_of(c, c->lines_n++) = (struct line_mark){
        .end = (uint32_t)c->n, .turn = __atomic_fetch_add(&s->turn, 1, __ATOMIC_RELAXED)};
    pthread_mutex_unlock(&l->lock);
    if (is_full) {
        wake(&all.kick);
    }
}
