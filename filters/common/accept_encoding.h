/* Choosing a content coding by the client's Accept-Encoding header.
 * Threads: any, pure functions. Spec: RFC 9110 §12.5.3, read as Envoy reads it: names are compared
 * exactly, only the first parameter of a coding can be its weight, a coding whose weight is no
 * number is passed over. */
#ifndef SLUICE_FILTERS_COMMON_ACCEPT_ENCODING_H
#define SLUICE_FILTERS_COMMON_ACCEPT_ENCODING_H

#include "proxy/base/sv.h"

#define ENCODING_OFFERS_MAX 8

/* What we can produce, in order of preference. */
struct encoding_offers {
    struct encoding_offer {
        sv encoding;
        bool is_preferred; /* wins over an earlier coding of equal weight */
        bool is_refused;   /* private to encoding_choose */
    } v[ENCODING_OFFERS_MAX];
    unsigned n;
};
/* Add one; a coding that is there already, and whatever is past ENCODING_OFFERS_MAX, is left
 * out. */
void encoding_offer(struct encoding_offers *o, sv encoding, bool is_preferred);

enum encoding_choice_kind {
    ENCODING_NONE,
    ENCODING_IDENTITY,
    ENCODING_WILDCARD,
    ENCODING_ACCEPTED
};
struct encoding_choice {
    enum encoding_choice_kind kind;
    sv encoding; /* of an offer; empty for NONE and IDENTITY */
};
/* The coding of highest weight that is offered, the earlier in the header of equal ones; "*" stands
 * for the first offer that is not refused by a weight of 0. */
struct encoding_choice encoding_choose(sv accept_encoding, struct encoding_offers *o);

#endif
