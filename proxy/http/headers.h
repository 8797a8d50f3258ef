/* HTTP header blocks, one array for pseudo and regular headers, in order. Names are lower case;
 * known names carry an id so that lookups compare integers. Bytes are borrowed: the stream's arena
 * (or static memory) must outlive the block.
 * Threads: one owner. Spec: RFC 9110 §5, RFC 9113 §8.2-8.3; the id table is http/header_ids.h. */
#ifndef SLUICE_HTTP_HEADERS_H
#define SLUICE_HTTP_HEADERS_H

#include "proxy/base/arena.h"
#include "proxy/http/header_ids.h"

struct header {
    sv name;
    sv value;
    uint16_t id;    /* enum header_id; HDR_OTHER when not a known name */
    uint16_t flags; /* HEADER_* */
};
#define HEADER_REMOVED 1u   /* a hole left by removal; iteration macros skip it */
#define HEADER_SENSITIVE 2u /* never indexed by HPACK */
#define HEADER_CASE_KEPT 4u /* the name as it was received lies right before name.p, name.n bytes */

struct headers {
    struct arena *arena;
    struct header *v;
    uint16_t n, cap;
    uint16_t removed;                         /* holes */
    uint32_t bytes;                           /* sum of name and value lengths, without holes */
    uint64_t present_[(HDR_COUNT + 63) / 64]; /* ids that may be there */
};

#define HEADERS_MAX 1000u /* hard limit of entries per block; configured limits are below */

void headers_init(struct headers *h, struct arena *a);
/* Id of a lower-case name; HDR_OTHER when unknown. Perfect-hash style, no allocation. */
enum header_id header_id_of(sv name);
sv header_name(enum header_id id);
/* Lower-case `name` in place and find its id in one pass; false when a byte is not a token
 * character (RFC 9110 §5.6.2). */
bool header_name_normalise(char *name, size_t n, enum header_id *id);
/* Lower-case the leading token characters in place; returns how many there are and the id of that
 * name. */
size_t header_name_scan(char *p, size_t n, enum header_id *id);
bool header_name_valid(sv name); /* a non-empty token that is lower case already (HTTP/2) */
bool header_is_token(sv s);      /* RFC 9110 token of any case: methods, chunk extensions */
bool header_value_valid(
    sv v); /* no NUL, CR, LF or other control bytes except HTAB; DEL refused; obs-text allowed */

/* Append without copying. False: HEADERS_MAX reached. */
bool headers_add(struct headers *h, enum header_id id, sv name, sv value);
/* Append copies into the arena. `name` must be lower case. */
bool headers_add_copy(struct headers *h, sv name, sv value);
bool headers_add_id(struct headers *h, enum header_id id,
                    sv value); /* known name, value borrowed */
/* First value, or SV_NULL with p == NULL when absent. */
sv headers_get(const struct headers *h, enum header_id id);
sv headers_get_name(const struct headers *h, sv name); /* lower case */
struct header *headers_find(const struct headers *h, enum header_id id);
struct header *headers_find_name(const struct headers *h, sv name);
static inline bool headers_has(const struct headers *h, enum header_id id) {
    return (h->present_[id >> 6] >> (id & 63) & 1) && headers_find(h, id) != NULL;
}
/* Replace all values by one (borrowed), or add. */
bool headers_set(struct headers *h, enum header_id id, sv value);
bool headers_set_name(struct headers *h, sv name, sv value); /* copies both into the arena */
/* Append to the first value with ", " between, or add. The joined value is made in the arena. */
bool headers_append(struct headers *h, enum header_id id, sv value);
unsigned headers_remove(struct headers *h, enum header_id id); /* all of them; returns the count */
unsigned headers_remove_name(struct headers *h, sv name);
unsigned headers_remove_prefix(struct headers *h, sv prefix);
/* All values joined with "," (Envoy's getAllOfHeaderAsString): a borrow of the only value, or arena
 * memory. p NULL: absent */
sv headers_joined(const struct headers *h, enum header_id id, sv name, struct arena *a);
unsigned headers_count(const struct headers *h);                   /* without holes */
void headers_copy(struct headers *dst, const struct headers *src); /* deep, into dst's arena */
/* Is `token` an element of the comma-separated list, whatever its case? (RFC 9110 §5.6.1) */
bool header_list_has(sv list, sv token);
/* Does TE name "trailers", with or without parameters? */
bool header_te_has_trailers(sv te);
bool headers_ask_upgrade(const struct headers *h); /* Upgrade, and Connection says so */
unsigned headers_status(const struct headers *h);  /* :status as a number, 0 when absent or bad */
void headers_set_status(struct headers *h, unsigned code);
/* Is the message gRPC's? application/grpc, or with a "+proto" behind it. */
bool headers_are_grpc(const struct headers *h);
/* grpc-status as the HTTP status that says the same; `otherwise` when there is none. */
unsigned headers_grpc_as_http(const struct headers *h, unsigned otherwise);

#define HEADERS_FOREACH(it, h)                                                          \
    for (struct header *it = (h)->v, *it##_end = (h)->v + (h)->n; it != it##_end; it++) \
        if (!(it->flags & HEADER_REMOVED))

#endif
