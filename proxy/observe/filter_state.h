/* Filter state: named objects that filters of one stream or connection leave for each other.
 * Objects are strings, or trees when they have fields of their own; names are Envoy's
 * ("envoy.tcp_proxy.cluster").
 * Threads: of its stream or connection. Spec: Envoy's StreamInfo::FilterState. */
#ifndef SLUICE_OBSERVE_FILTER_STATE_H
#define SLUICE_OBSERVE_FILTER_STATE_H

#include "proxy/observe/metadata.h"

#define FILTER_STATE_MAX 128 /* objects at one level */

enum filter_state_sharing {
    FILTER_STATE_LOCAL,
    FILTER_STATE_SHARE_ONCE,
    FILTER_STATE_SHARE_TRANSITIVE
};
struct filter_state_object {
    sv name;
    sv text;                      /* serialised as a string */
    const struct kv_value *typed; /* has fields; NULL: only the text */
    bool is_read_only;
    enum filter_state_sharing sharing; /* with the upstream connection */
};

struct filter_state;
/* parent: the connection's, looked at when a name is not here; may be NULL and must outlive the
 * child. */
struct filter_state *filter_state_new(struct arena *a, const struct filter_state *parent);
/* Copies name and text. False: it is there read-only, the parent has it, or FILTER_STATE_MAX
 * reached. typed is borrowed for the arena's life. */
bool filter_state_set(struct filter_state *fs, sv name, sv text, const struct kv_value *typed,
                      bool is_read_only, enum filter_state_sharing sharing);
/* A deep copy of this level. */
struct filter_state *filter_state_dup(const struct filter_state *fs, struct arena *a);
/* What an upstream connection takes along of all levels, as it is on its other side: objects shared
 * once are not shared further. Deep copies; NULL: nothing. fs may be NULL. */
struct filter_state *filter_state_shared(const struct filter_state *fs, struct arena *a);
/* NULL: absent. fs may be NULL. */
const struct filter_state_object *filter_state_get(const struct filter_state *fs, sv name);
sv filter_state_text(const struct filter_state *fs, sv name); /* SV_NULL: absent */
/* i-th object of this level, NULL past the end. */
const struct filter_state_object *filter_state_at(const struct filter_state *fs, unsigned i);

#endif
