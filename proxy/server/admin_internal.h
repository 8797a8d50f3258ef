/* Between admin.c and its pages (admin_*.c). Threads: main. */
#ifndef SLUICE_SERVER_ADMIN_INTERNAL_H
#define SLUICE_SERVER_ADMIN_INTERNAL_H

#include "proxy/api/http_filter.h"
#include "proxy/base/json.h"
#include "proxy/config/config_view.h"
#include "proxy/server/admin.h"
#include "proxy/server/admin_script.h"
#include "proxy/server/server.h"

#define ADMIN_STREAM_MAGIC 0xAD3157E0u
/* What a producer makes in a turn of the loop: so much, in at most so long (but for one step). */
#define ADMIN_PIECE_BYTES (256u * 1024)
#define ADMIN_TURN_US 1500u
#define ADMIN_TEXT "text/plain; charset=UTF-8"
#define ADMIN_JSON "application/json"
#define ADMIN_HTML "text/html; charset=UTF-8"

struct admin_handler;
struct admin_stream;
/* Produces a response piece by piece: append to out; returns whether there is more. */
struct admin_producer {
    bool (*next)(void *state, struct buf *out);
    void (*free)(void *state);
    void *state;
};
/* One request: the terminal HTTP filter of the admin listener. */
struct admin_stream {
    struct http_filter base; /* must be first */
    uint32_t magic;
    struct server *server;
    const struct admin_handler *handler;
    sv query;
    struct admin_producer producer; /* next NULL: none */
    struct timer pump;
    uint64_t produced_bytes;
    uint16_t paused;
    bool is_done;
    struct view_wait *wait; /* an answer of the config thread is under way */
    struct headers response;
};
struct admin_handler {
    const char *path;
    bool is_mutation;
    const char *help;
    const char *const *params; /* "name: help", NULL-terminated; NULL: none */
    void (*run)(struct admin_stream *a);
};
extern const struct admin_handler admin_handlers[];
extern const unsigned admin_handlers_n;

/* Answer at once. body is copied. */
void admin_reply(struct admin_stream *a, unsigned status, const char *content_type, sv body);
/* drains body */
void admin_reply_buf(struct admin_stream *a, unsigned status, const char *content_type,
                     struct buf *body);
/* Answer piece by piece, between other events; stops while the client does not read. Takes the
 * producer. */
void admin_produce(struct admin_stream *a, const char *content_type,
                   const struct admin_producer *p);
/* Ask the config thread, then call fn (which takes v) unless the client has gone. */
void admin_view(struct admin_stream *a, unsigned types,
                void (*fn)(struct admin_stream *a, struct view *v));
/* A query parameter, percent-decoded in the stream's arena; p NULL: absent. "x" without a value
 * gives an empty view. */
sv admin_param(struct admin_stream *a, const char *name);
void admin_list_commands(struct buf *out);
/* The item's resource; a route configuration with its members. Borrows of it. */
void admin_script_item(struct admin_script *x, const char *key, const struct view_item *it);
/* error_state of a resource whose last version was refused; keeps a borrow of it. */
void admin_script_error_state(struct admin_script *x, const struct view_item *refused);

/* How long a producer goes on before it leaves the loop to others. */
struct admin_turn {
    const struct buf *out;
    uint64_t until_us;
};
struct admin_turn admin_turn_begin(const struct buf *out);
bool admin_turn_is_over(const struct admin_turn *t);

/* pages */
void admin_home(struct admin_stream *a);
void admin_help(struct admin_stream *a);
void admin_stats(struct admin_stream *a);
void admin_stats_prometheus(struct admin_stream *a);
void admin_clusters(struct admin_stream *a);
void admin_listeners(struct admin_stream *a);
void admin_config_dump(struct admin_stream *a);
void admin_client_status(struct admin_stream *a); /* csds.c */
void admin_init_dump(struct admin_stream *a);
void admin_certs(struct admin_stream *a);
void admin_server_info(struct admin_stream *a);
void admin_ready(struct admin_stream *a);
void admin_memory(struct admin_stream *a);
void admin_runtime(struct admin_stream *a);
void admin_runtime_modify(struct admin_stream *a);
void admin_logging(struct admin_stream *a);
void admin_drain_listeners(struct admin_stream *a);

#endif
