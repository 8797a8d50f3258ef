/* Relaying through a pipe: when to splice, pumping, and handing the pipe's content back to the
 * usual path.
 * Threads: worker-local, with a cache of pipes per thread. Spec: splice(2).
 * Not here: who relays to whom, and idle timers (tcp_proxy). */
#include "proxy/net/splice.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "proxy/base/mem.h"
#include "proxy/net/conn.h"

#define LARGE_BYTES 16384u /* a read of this size is worth splicing … */
#define LARGE_READS 4      /* … when so many came in a row */
#define SMALL_BYTES 8192u  /* smaller moves … */
#define SMALL_READS 16     /* … so many in a row turn back to recv/send */
#define PIPE_BYTES (256 * 1024)
#define ROUNDS_MAX 4 /* moves per readiness event: others wait */
#define CACHED_PIPES_MAX 16

struct pipe_pair {
    struct pipe_pair *next;
    int r, w;
};

static _Thread_local struct pipe_pair *cache;
static _Thread_local unsigned cached;

static void close_pipe(struct pipe_pair *p) {
    close(p->r);
    close(p->w);
    xfree(p);
}

/* NULL: no fds left; the caller stays on recv/send. */
static struct pipe_pair *take_pipe(void) {
    struct pipe_pair *p = cache;
    if (p) {
        cache = p->next;
        cached--;
        return p;
    }
    int fds[2];
    if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0) {
        return NULL;
    }
    p = xnew(struct pipe_pair);
    p->r = fds[0];
    p->w = fds[1];
    (void)fcntl(p->w, F_SETPIPE_SZ, PIPE_BYTES); /* refused: the default of 64 KB does */
    return p;
}

/* Only an empty pipe is of use to the next one. */
static void give_pipe(struct splice *s) {
    struct pipe_pair *p = s->pipe_;
    s->pipe_ = NULL;
    if (!p) {
        return;
    }
    if (s->piped_ || cached >= CACHED_PIPES_MAX) {
        s->piped_ = 0;
        close_pipe(p);
        return;
    }
    p->next = cache;
    cache = p;
    cached++;
}

void splice_cache_trim(void) {
    while (cache) {
        struct pipe_pair *p = cache;
        cache = p->next;
        close_pipe(p);
    }
    cached = 0;
}

bool splice_possible(const struct conn *from, const struct conn *to) {
    const struct transport *a = from->transport, *b = to->transport;
    return a->ops->can_splice && a->ops->can_splice(a) && b->ops->can_splice &&
           b->ops->can_splice(b);
}

void splice_start(struct splice *s, struct conn *from, struct conn *to,
                  void (*on_moved)(struct splice *s, size_t n)) {
    if (BUG(s->from != NULL) || !splice_possible(from, to) ||
        BUG(from->rx_splice_ || to->tx_splice_)) {
        return;
    }
    *s = (struct splice){.from = from, .to = to, .on_moved_ = on_moved};
    from->rx_splice_ = s;
    to->tx_splice_ = s;
}

/* Copy what the pipe holds behind `to`'s buffer. */
static void spill(struct splice *s) {
    while (s->piped_) {
        size_t want = s->piped_ < CHUNK_SMALL_BYTES ? s->piped_ : CHUNK_SMALL_BYTES;
        char *p = buf_reserve(&s->to->out_, want);
        ssize_t n = read(s->pipe_->r, p, want);
        buf_commit(&s->to->out_, n > 0 ? (size_t)n : 0);
        if (BUG(n <= 0)) {
            break; /* the pipe holds less than was put in: give_pipe closes it */
        }
        s->piped_ -= (size_t)n;
    }
    give_pipe(s);
}

static void unblock(struct splice *s) {
    if (s->from->rx_blocked_) {
        s->from->rx_blocked_ = false;
        conn_sync_io(s->from);
    }
}

void splice_stop(struct splice *s) {
    if (!s->from) {
        return;
    }
    struct conn *from = s->from, *to = s->to;
    bool has_spilled = s->piped_ > 0;
    spill(s);
    unblock(s);
    from->rx_splice_ = NULL;
    to->tx_splice_ = NULL;
    s->from = s->to = NULL;
    if (has_spilled) {
        conn_flush_later(to);
    }
}

void splice_conn_flush(struct conn *c) {
    struct splice *s = c->tx_splice_;
    if (!s || !s->piped_) {
        return;
    }
    spill(s);
    unblock(s);
}

void splice_conn_closing(struct conn *c) {
    if (c->rx_splice_) {
        splice_stop(c->rx_splice_);
    }
    struct splice *s = c->tx_splice_;
    if (s) {
        give_pipe(s); /* nobody takes it any more */
        splice_stop(s);
    }
}

/* ---- pumping ---- */

enum moved { MOVED_ALL, MOVED_BLOCKED, MOVED_GONE };

/* Pipe → to. GONE: one of the conns ended, s may be off. */
static enum moved pump_out(struct splice *s) {
    struct conn *to = s->to;
    while (s->piped_) {
        ssize_t n =
            splice(s->pipe_->r, NULL, to->fd, NULL, s->piped_, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (n > 0) {
            s->piped_ -= (size_t)n;
            conn_sent(to, (size_t)n);
            if (s->to != to || to->state != CONN_OPEN) {
                return MOVED_GONE;
            }
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno == EAGAIN) {
            return MOVED_BLOCKED;
        }
        to->detect_reset = true;
        give_pipe(s);
        splice_stop(s);
        conn_saw_write_error(to);
        return MOVED_GONE;
    }
    return MOVED_ALL;
}

static void block(struct splice *s) {
    s->from->rx_blocked_ = true;
    s->to->want_write_ = true;
    conn_sync_io(s->to);
    conn_sync_io(s->from);
}

void splice_saw_read(struct splice *s, size_t n) {
    if (s->is_splicing_) {
        return;
    }
    s->large_reads_ = n >= LARGE_BYTES ? (unsigned char)(s->large_reads_ + 1) : 0;
    if (s->large_reads_ >= LARGE_READS) {
        s->is_splicing_ = true;
        s->large_reads_ = s->small_reads_ = 0;
    }
}

/* May bytes of `from` go to `to` past both buffers now? */
static bool is_clear(struct splice *s) {
    if (!s->is_splicing_ || s->to->state != CONN_OPEN || s->to->write_end_ ||
        s->to->write_broken_ || !buf_empty(&s->from->in_)) {
        return false;
    }
    conn_flush_now(s->to);
    return s->from && s->from->state == CONN_OPEN && s->to->state == CONN_OPEN &&
           buf_empty(&s->to->out_) && !s->to->write_broken_;
}

static void count_size(struct splice *s, size_t n) {
    s->small_reads_ = n < SMALL_BYTES ? (unsigned char)(s->small_reads_ + 1) : 0;
    if (s->small_reads_ >= SMALL_READS) {
        s->is_splicing_ = false;
        s->small_reads_ = 0;
    }
}

/* from → pipe: bytes, 0 at the end of stream, negative errno. */
static ssize_t pump_in(struct splice *s) {
    ssize_t n;
    do {
        n = splice(s->from->fd, NULL, s->pipe_->w, NULL, PIPE_BYTES,
                   SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* One move in and out; the pipe is empty before it, and the end of a stream is met only then.
 * Returns whether another one is worth trying. */
static bool move(struct splice *s) {
    struct conn *from = s->from;
    ssize_t n = pump_in(s);
    if (n <= 0) {
        give_pipe(s);
        if (n == 0) {
            conn_saw_end(from);
        } else if (n != -EAGAIN) {
            from->detect_reset = n == -ECONNRESET;
            conn_saw_reset(from);
        }
        return false;
    }
    s->piped_ += (size_t)n;
    count_size(s, (size_t)n);
    conn_received(from, (size_t)n);
    if (s->on_moved_) {
        s->on_moved_(s, (size_t)n);
        if (!s->from || !s->pipe_) {
            return false;
        }
    }
    switch (pump_out(s)) {
    case MOVED_ALL:
        return (size_t)n >= LARGE_BYTES && from->read_disable_ == 0;
    case MOVED_BLOCKED:
        block(s);
        return false;
    case MOVED_GONE:
        break;
    }
    return false;
}

bool splice_read(struct splice *s) {
    if (s->piped_ || !is_clear(s)) {
        return s->from == NULL || s->piped_ > 0; /* off: the conn ended; blocked: nothing to read */
    }
    s->pipe_ = s->pipe_ ? s->pipe_ : take_pipe();
    if (!s->pipe_) {
        s->is_splicing_ = false;
        return false;
    }
    for (int i = 0; i < ROUNDS_MAX && move(s); i++) {}
    if (s->from && !s->piped_) {
        give_pipe(s);
    }
    return true;
}

void splice_write(struct splice *s) {
    if (!s->piped_) {
        return;
    }
    switch (pump_out(s)) {
    case MOVED_ALL:
        give_pipe(s);
        unblock(s);
        break;
    case MOVED_BLOCKED:
        block(s);
        break;
    case MOVED_GONE:
        break;
    }
}
