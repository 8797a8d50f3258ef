/* Filter state from configuration: names and format strings, compiled once, that filters of
 * connections and of requests write into the state of what they stand in.
 * Threads: compile on the config thread; written on a worker.
 * Spec: extensions.filters.common.set_filter_state.v3. */
#ifndef SLUICE_API_SET_FILTER_STATE_H
#define SLUICE_API_SET_FILTER_STATE_H

#include "proxy/api/compile.h"

struct stream_info;
struct set_filter_state;
/* A list of FilterStateValue messages of the field `field`; out: NULL when it is empty. False:
 * errors were added (an object that nothing here would look at is one). */
bool set_filter_state_compile(struct compile_ctx *ctx, const char *field, const void *const *msgs,
                              size_t n, const struct set_filter_state **out);
/* Write them all into si's filter state, made when there is none yet. s may be NULL. */
void set_filter_state_apply(const struct set_filter_state *s, struct stream_info *si);

#endif
