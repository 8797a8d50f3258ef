/* Session states: where a client keeps the address of the host that its session is at, and how it
 * is written there.
 * Threads: compiled on the config thread, immutable; reading and writing on workers.
 * Spec: extensions.http.stateful_session.{cookie,header,envelope}.v3.
 * Not here: whether the host is taken (filters/http/stateful_session.c,
 * upstream/cluster_view.c). */
#ifndef SLUICE_FILTERS_COMMON_SESSION_STATE_H
#define SLUICE_FILTERS_COMMON_SESSION_STATE_H

#include "proxy/api/http_filter.h"

struct session_state;

/* Compile a core.v3.TypedExtensionConfig into ctx->arena. NULL: errors added. */
const struct session_state *session_state_compile(struct compile_ctx *ctx, const void *msg);

/* Does this request take part in sessions (a cookie's path may leave it out)? Then *address is the
 * host that it asks for, "1.2.3.4:80", not checked; empty: none, or what is there can't be read or
 * has expired. now_s: seconds since 1970. An envelope is replaced by what it holds. Memory: the
 * headers' arena. */
bool session_state_read(const struct session_state *s, struct headers *request, uint64_t now_s,
                        sv *address);

/* Tell the client that its session is at `host`. `asked`: what session_state_read gave. Nothing is
 * told when they are the same, but an envelope is always closed. Does the session begin here, so
 * that who asked for another host did not get it? */
bool session_state_write(const struct session_state *s, struct headers *response, sv asked, sv host,
                         uint64_t now_s);

#endif
