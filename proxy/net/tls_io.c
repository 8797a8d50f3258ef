/* The BIO under every SSL: one recv feeds several records, several records leave with one send.
 * Threads: buffers are per thread and in use only between tls_io_enter() and tls_io_leave(), which
 * do not nest: conn.c raises no event while it is inside a transport call.
 * Not here: TLS itself (tls.c, BoringSSL). */
#include "proxy/net/tls_io.h"

#include <errno.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <openssl/bio.h>
#include <openssl/err.h>

#include "proxy/base/check.h"
#include "proxy/base/mem.h"

#define IN_MIN 4096u /* a read is never asked for less */

struct shared_bytes {
    struct tls_io *user; /* NULL: free */
    size_t in_at, in_end;
    size_t out_n;
    char in[TLS_IN_BYTES];
    char out[TLS_OUT_BYTES];
    char gather[TLS_RECORD_BYTES];
};
static _Thread_local struct shared_bytes *bytes;

static struct shared_bytes *shared(void) {
    if (UNLIKELY(!bytes)) {
        bytes = xalloc(sizeof *bytes);
        bytes->user = NULL;
        bytes->in_at = bytes->in_end = bytes->out_n = 0;
    }
    return bytes;
}

void tls_io_thread_drop(void) {
    xfree(bytes);
    bytes = NULL;
}

char *tls_io_gather(void) { return shared()->gather; }

/* --- waiting bytes --- */

static struct tls_left *left_new(const char *p, size_t n) {
    struct tls_left *left = xalloc(sizeof *left + n);
    left->n = n;
    left->off = 0;
    memcpy(left->bytes, p, n);
    return left;
}

static void left_free(struct tls_left **left) {
    xfree(*left);
    *left = NULL;
}

/* False: more than one connection may hold back. */
static bool left_append(struct tls_left **left, const char *p, size_t n) {
    struct tls_left *old = *left;
    size_t have = old->n - old->off;
    if (have + n > TLS_LEFT_MAX) {
        return false;
    }
    struct tls_left *grown = xalloc(sizeof *grown + have + n);
    grown->n = have + n;
    grown->off = 0;
    memcpy(grown->bytes, old->bytes + old->off, have);
    memcpy(grown->bytes + have, p, n);
    xfree(old);
    *left = grown;
    return true;
}

/* --- sending --- */

/* Returns how much the kernel took; less than n: it is full, or io->write_error is set. */
static size_t send_some(struct tls_io *io, const char *p, size_t n) {
    size_t done = 0;
    while (done < n && !io->write_error) {
        ssize_t got = send(io->fd, p + done, n - done, MSG_NOSIGNAL);
        if (got >= 0) {
            done += (size_t)got;
            continue;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            break;
        }
        io->write_error = errno;
        io->reset |= errno == ECONNRESET || errno == EPIPE;
    }
    return done;
}

bool tls_io_flush(struct tls_io *io) {
    struct shared_bytes *b = shared();
    if (io->out) {
        struct tls_left *left = io->out;
        left->off += send_some(io, left->bytes + left->off, left->n - left->off);
        if (left->off < left->n) {
            return false;
        }
        left_free(&io->out);
    }
    if (b->out_n) {
        size_t done = send_some(io, b->out, b->out_n);
        if (done < b->out_n) {
            io->out = left_new(b->out + done, b->out_n - done);
        }
        b->out_n = 0;
    }
    return !io->out;
}

bool tls_io_has_room(const struct tls_io *io) {
    return !io->out && bytes->out_n + TLS_RECORD_MAX <= TLS_OUT_BYTES;
}

static int on_write(BIO *bio, const char *p, int n) {
    struct tls_io *io = BIO_get_data(bio);
    struct shared_bytes *b = shared();
    BIO_clear_retry_flags(bio);
    if (n <= 0) {
        return 0;
    }
    size_t want = (size_t)n;
    if (!io->out && b->out_n + want > TLS_OUT_BYTES) {
        tls_io_flush(io);
    }
    if (io->write_error) {
        ERR_put_error(ERR_LIB_SYS, 0, io->write_error, __FILE__, __LINE__);
        return -1;
    }
    if (io->out) { /* keep the order */
        if (left_append(&io->out, p, want)) {
            return n;
        }
        ERR_put_error(ERR_LIB_SYS, 0, ENOBUFS, __FILE__, __LINE__);
        return -1;
    }
    size_t room = TLS_OUT_BYTES - b->out_n;
    want = want < room ? want : room;
    memcpy(b->out + b->out_n, p, want);
    b->out_n += want;
    return (int)want;
}

/* --- receiving --- */

/* One read from the socket: straight to `p` while that is large, the rest ahead into the shared
 * buffer. Returns bytes put at p (0 with *ahead set: look there), 0 at the end, -1 with errno. */
static ssize_t receive(struct tls_io *io, char *p, size_t n, bool *got_ahead) {
    struct shared_bytes *b = shared();
    size_t direct = n >= IN_MIN ? n : 0;
    size_t limit = io->in_limit > IN_MIN ? io->in_limit : IN_MIN;
    limit = limit < TLS_IN_BYTES ? limit : TLS_IN_BYTES;
    size_t ahead = direct >= limit ? 0 : limit - direct;
    struct iovec iov[2] = {{p, direct}, {b->in, ahead}};
    ssize_t got;
    do {
        got = direct ? readv(io->fd, iov, ahead ? 2 : 1) : recv(io->fd, b->in, ahead, 0);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) {
        return got;
    }
    size_t total = (size_t)got;
    io->is_drained = total < direct + ahead;
    size_t at_p = total < direct ? total : direct;
    b->in_at = 0;
    b->in_end = total - at_p;
    *got_ahead = b->in_end > 0;
    return (ssize_t)at_p;
}

static int take_ahead(struct shared_bytes *b, char *p, size_t n) {
    size_t have = b->in_end - b->in_at;
    n = n < have ? n : have;
    memcpy(p, b->in + b->in_at, n);
    b->in_at += n;
    return (int)n;
}

static int on_read(BIO *bio, char *p, int n) {
    struct tls_io *io = BIO_get_data(bio);
    struct shared_bytes *b = shared();
    BIO_clear_retry_flags(bio);
    if (n <= 0 || !p) {
        return 0;
    }
    if (b->in_at < b->in_end) {
        return take_ahead(b, p, (size_t)n);
    }
    if (io->saw_eof) {
        return 0;
    }
    if (io->is_drained) {
        BIO_set_retry_read(bio);
        return -1;
    }
    bool got_ahead = false;
    ssize_t got = receive(io, p, (size_t)n, &got_ahead);
    if (got > 0) {
        return (int)got;
    }
    if (got_ahead) {
        return take_ahead(b, p, (size_t)n);
    }
    if (got == 0) {
        io->saw_eof = true;
        return 0;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        io->is_drained = true;
        BIO_set_retry_read(bio);
        return -1;
    }
    io->reset |= errno == ECONNRESET;
    ERR_put_error(ERR_LIB_SYS, 0, errno, __FILE__, __LINE__);
    return -1;
}

bool tls_io_has_input(const struct tls_io *io) {
    const struct shared_bytes *b = bytes;
    return io->in || (b && b->user == io && b->in_at < b->in_end);
}

/* --- BIO --- */

static long on_ctrl(BIO *bio, int cmd, long num, void *ptr) {
    (void)bio;
    (void)num;
    (void)ptr;
    return cmd == BIO_CTRL_FLUSH; /* leaving flushes */
}

static pthread_once_t method_once = PTHREAD_ONCE_INIT;
static BIO_METHOD *method;

static void method_make(void) {
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");
    CHECK(method && BIO_meth_set_read(method, on_read) && BIO_meth_set_write(method, on_write) &&
          BIO_meth_set_ctrl(method, on_ctrl));
}

BIO *tls_io_bio(struct tls_io *io) {
    pthread_once(&method_once, method_make);
    BIO *bio = BIO_new(method);
    CHECK(bio);
    BIO_set_data(bio, io);
    BIO_set_init(bio, 1);
    return bio;
}

/* --- entering and leaving --- */

void tls_io_enter(struct tls_io *io, size_t in_limit) {
    struct shared_bytes *b = shared();
    CHECK(!b->user);
    b->user = io;
    b->in_at = b->in_end = b->out_n = 0;
    io->is_drained = false;
    io->in_limit = in_limit < TLS_IN_BYTES ? in_limit + in_limit / 64 + 64 : TLS_IN_BYTES;
    if (io->in) {
        b->in_end = io->in->n;
        memcpy(b->in, io->in->bytes, b->in_end);
        left_free(&io->in);
    }
}

void tls_io_leave(struct tls_io *io) {
    struct shared_bytes *b = shared();
    CHECK(b->user == io);
    if (b->out_n || io->out) {
        tls_io_flush(io);
    }
    if (b->in_at < b->in_end) {
        io->in = left_new(b->in + b->in_at, b->in_end - b->in_at);
    }
    b->user = NULL;
}

void tls_io_fini(struct tls_io *io) {
    left_free(&io->in);
    left_free(&io->out);
}
