/* What is still to be written of a page's element: a list of small things, and of resources that
 * may be long, which are written a slice at a time.
 * Threads: main. */
#ifndef SLUICE_SERVER_ADMIN_SCRIPT_H
#define SLUICE_SERVER_ADMIN_SCRIPT_H

#include "protos/pb_json_slices.h"
#include "proxy/base/json.h"
#include "proxy/base/vec.h"
#include "proxy/config/resource.h"

#define ADMIN_SCRIPT_DEPTH_MAX 8u

struct admin_op;
VEC_TYPE(admin_ops, struct admin_op)
struct admin_script {
    struct admin_ops ops;
    size_t at;
    struct pb_json_slices *slices; /* of the resource being written; else NULL */
    struct arena arena;            /* of masks */
    sv masks[ADMIN_SCRIPT_DEPTH_MAX];
    unsigned depth, hidden; /* objects open, and how many of them the mask leaves out */
};
void admin_script_init(struct admin_script *s);
void admin_script_fini(struct admin_script *s);
/* Begin a new list. mask (protos/field_mask.h) is of the members added now; empty: all. Borrowed
 * until the last has been added. */
void admin_script_begin(struct admin_script *s, sv mask);

/* Add one. Keys and texts are borrowed until they are written; key NULL: an item of a list. */
void admin_script_obj(struct admin_script *s, const char *key);
void admin_script_arr(struct admin_script *s, const char *key);
void admin_script_end(struct admin_script *s);
void admin_script_text(struct admin_script *s, const char *key, sv text); /* empty: left out */
void admin_script_time(struct admin_script *s, const char *key, uint64_t wall_us);
/* The resource as an opened Any, sensitive fields redacted. */
void admin_script_resource(struct admin_script *s, const char *key, enum resource_type t, sv wire);
/* The same, with what follows in one of its lists. `more` is copied, what it refers to borrowed
 * until all is written. */
void admin_script_resource_with(struct admin_script *s, const char *key, enum resource_type t,
                                sv wire, const struct pb_json_more *more);
/* A message, the same way; borrowed until it is written. No masks. */
void admin_script_message(struct admin_script *s, const char *key, const ProtobufCMessage *m);

/* Does the mask leave anything of what was added? */
bool admin_script_is_empty(const struct admin_script *s);
/* Write a bit; false: nothing was left to write. */
bool admin_script_run(struct admin_script *s, struct json_writer *w);

#endif
