/* Key sets fetched over HTTP: one fetch at a time for all workers, the set shared by them.
 * Threads: made on the config thread. Whichever worker finds that a fetch is due makes it; the set
 * is published under a generation number, and each worker takes its own ref once per generation
 * (under a mutex; the request path reads the number only). A fetch holds a ref on its source and so
 * outlives a configuration that goes away meanwhile.
 * Spec: extensions.filters.http.jwt_authn.v3.RemoteJwks, JwksAsyncFetch. */
#ifndef SLUICE_FILTERS_COMMON_JWKS_REMOTE_H
#define SLUICE_FILTERS_COMMON_JWKS_REMOTE_H

#include "filters/common/jwks.h"
#include "proxy/api/compile.h"
#include "proxy/base/list.h"

#define JWKS_REMOTE_BYTES_MAX (1024u * 1024) /* of one answer: a longer one is a failed fetch */
#define JWKS_REMOTE_WAITS_MAX 1024u          /* requests of one worker; more fail at once */
#define JWKS_REMOTE_RETRIES_MAX 100u

struct loop;
struct worker;
struct jwks_remote;

/* Where a fetch is counted: cells of the scope, which is kept with a ref. */
struct jwks_remote_stats {
    struct stats_scope *scope;
    unsigned success, failed;
};

/* msg: RemoteJwks. NULL: errors added; else a ref that ends with the ctx's arena. */
struct jwks_remote *jwks_remote_compile(struct compile_ctx *ctx, const void *msg,
                                        const struct jwks_remote_stats *stats);

/* A place in the queue, in its owner's memory. */
struct jwks_wait {
    struct list node; /* private; unlinked when nothing is awaited */
    unsigned *count_; /* private */
    /* Once, from the loop: the fetch is over. `keys` NULL: it failed. A borrow for the call. */
    void (*on_done)(struct jwks_wait *w, const struct jwks *keys);
};
enum jwks_remote_result { JWKS_REMOTE_READY, JWKS_REMOTE_WAITING, JWKS_REMOTE_OVERFLOW };
/* READY: *keys is there, a borrow for this event. WAITING: wait->on_done tells; never from inside
 * this call. OVERFLOW: too many wait. */
enum jwks_remote_result jwks_remote_get(struct jwks_remote *r, struct worker *w,
                                        struct jwks_wait *wait, const struct jwks **keys);
/* on_done will not be called; fine when nothing is awaited. */
void jwks_remote_cancel(struct jwks_wait *wait);

#endif
