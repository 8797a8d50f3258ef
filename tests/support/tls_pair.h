/* Two TLS transports on a socketpair, driven by hand instead of by conn.c: every read and write
 * happens when a test says so. The test links with TLS_PAIR_LINK's --wrap options, so that what
 * transports tell their connection arrives here. */
#ifndef SLUICE_TESTS_TLS_PAIR_H
#define SLUICE_TESTS_TLS_PAIR_H

#include "proxy/api/compile.h"
#include "proxy/net/conn.h"
#include "proxy/net/tls.h"

struct tls_end {
    struct conn conn; /* only what transports look at: fd, loop, id, addresses */
    struct loop loop;
    struct transport *t; /* NULL: a bare socket */
    struct buf in, out;
    size_t read_max; /* per read; 0: 64 KiB */
    bool started, ready, failed, closed, saw_end;
    bool want_write, want_read_again;
    bool end_wanted, end_sent; /* half-close */
    unsigned again_count;      /* writes the kernel cut short */
};

/* t may be NULL. sndbuf 0: the system's. */
void tls_pair_open(struct tls_end *a, struct transport *ta, struct tls_end *b, struct transport *tb,
                   int sndbuf);
/* One turn of an end: connect, read, write. Returns whether anything moved. */
bool tls_end_step(struct tls_end *e);
/* Until nothing moves at either end. */
void tls_pair_run(struct tls_end *a, struct tls_end *b);
void tls_end_close(struct tls_end *e); /* with close_notify, then the socket */
void tls_end_free(struct tls_end *e);
/* Text between the ends: what `from` puts in arrives at `to`, which forgets it. */
bool tls_pair_passes(struct tls_end *from, struct tls_end *to, const char *text);

#endif
