/* Between an SSL and its socket: a BIO that reads ahead and gathers records, on buffers every
 * connection of a thread shares. An idle connection holds none. Internal to net/tls*.c. Threads:
 * worker-local. */
#ifndef SLUICE_NET_TLS_IO_H
#define SLUICE_NET_TLS_IO_H

#include <openssl/ssl.h>

#include "proxy/base/buf.h"

#define TLS_RECORD_BYTES 16384u                  /* plaintext of one record */
#define TLS_RECORD_MAX (TLS_RECORD_BYTES + 512u) /* with header, padding and tag */
#define TLS_IN_BYTES 65536u                      /* ciphertext read at once */
#define TLS_OUT_BYTES (4 * TLS_RECORD_MAX)       /* ciphertext sent at once */
#define TLS_LEFT_MAX (256u * 1024)               /* unsent ciphertext of one connection */

/* Ciphertext that has to wait: received beyond what was wanted, or refused by the kernel. */
struct tls_left {
    size_t n, off;
    char bytes[];
};

/* The part of a connection the BIO deals with; embedded in the transport. */
struct tls_io {
    int fd;
    bool saw_eof;
    bool is_drained;           /* the last read got all the kernel had */
    bool reset;                /* ECONNRESET or EPIPE was met */
    int write_error;           /* errno of a failed send, 0: none */
    size_t in_limit;           /* how much ciphertext to ask for at once during this call */
    struct tls_left *in, *out; /* NULL: nothing waits */
};

/* The BIO of an SSL, with one ref. */
BIO *tls_io_bio(struct tls_io *io);
static inline struct tls_io *tls_io_of(const SSL *ssl) { return BIO_get_data(SSL_get_rbio(ssl)); }
/* Every use of an SSL stands between these two. `in_limit`: about how many plaintext bytes are
 * wanted. */
void tls_io_enter(struct tls_io *io, size_t in_limit);
/* Sends what was gathered, keeps what the kernel refused and what was read too much. */
void tls_io_leave(struct tls_io *io);
/* Send waiting ciphertext, then gathered records. True: nothing is left. Between enter and
 * leave. */
bool tls_io_flush(struct tls_io *io);
/* Room for one more record in the shared buffer? */
bool tls_io_has_room(const struct tls_io *io);
/* Ciphertext that was read but not yet looked at? */
bool tls_io_has_input(const struct tls_io *io);
/* The thread's scratch for gathering one record's plaintext: TLS_RECORD_BYTES. */
char *tls_io_gather(void);
void tls_io_fini(struct tls_io *io);
void tls_io_thread_drop(void);

#endif
