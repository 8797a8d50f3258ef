/* One direction of a plain TCP relay that moves large transfers through a pipe inside the kernel
 * (splice(2)), at about half the CPU of copying. It starts on recv/send — the user's on_data and
 * conn_write as ever — and turns to splicing after a few large reads in a row, and back when reads
 * stay small. Back-pressure: what `to` does not take stays in the pipe, and `from` is not read
 * meanwhile. Order is kept: conn_write(to) first takes over what the pipe holds.
 * Threads: worker-local. Spec: tcp_proxy. */
#ifndef SLUICE_NET_SPLICE_H
#define SLUICE_NET_SPLICE_H

#include <stdbool.h>
#include <stddef.h>

struct conn;
struct pipe_pair;

/* Embedded in the relay's own struct, one per direction; zeroed: off. Fields are private. */
struct splice {
    struct conn *from, *to;
    struct pipe_pair *pipe_; /* held only while there is something in it or to read */
    size_t piped_;           /* bytes in the pipe */
    void (*on_moved_)(struct splice *s, size_t n);
    unsigned char large_reads_, small_reads_;
    bool is_splicing_; /* reads go through the pipe */
};

/* Raw bytes on both fds? (No TLS, no PROXY header still to send.) */
bool splice_possible(const struct conn *from, const struct conn *to);
/* Both are open. Bytes that bypass on_data are told by on_moved (may be NULL): for counters and
 * idle timers; they count in both conns' byte counts, and `to` gets on_bytes_sent. End of stream,
 * resets and closes come as ever: on_data with end_stream, close events, after all bytes before
 * them. A close of either conn turns it off. on_moved may close either conn; the struct's memory
 * must outlive the turn in which that happens (loop_defer_free). */
void splice_start(struct splice *s, struct conn *from, struct conn *to,
                  void (*on_moved)(struct splice *s, size_t n));
/* Back to recv/send for good; bytes in the pipe go to `to`'s buffer. Fine when off. */
void splice_stop(struct splice *s);

/* --- called by conn.c --- */
bool splice_read(struct splice *s);  /* from is readable; false: read it the usual way */
void splice_write(struct splice *s); /* to is writable and has nothing else to send */
void splice_saw_read(struct splice *s, size_t n);
void splice_conn_flush(
    struct conn *c); /* pipe content that waits for c goes to its buffer: more is to follow it */
void splice_conn_closing(
    struct conn *c); /* c ends: what it sent is handed on, both directions stop */
/* Close this thread's cached pipes (at thread end). */
void splice_cache_trim(void);

#endif
