/* Accept-Encoding against what is offered: two passes over the header, nothing kept but the best so
 * far.
 * Threads: any. Spec: see the header. */
#include "filters/common/accept_encoding.h"

void encoding_offer(struct encoding_offers *o, sv encoding, bool is_preferred) {
    for (unsigned i = 0; i < o->n; i++) {
        if (sv_eq(o->v[i].encoding, encoding)) {
            return;
        }
    }
    if (o->n < ENCODING_OFFERS_MAX) {
        o->v[o->n++] = (struct encoding_offer){.encoding = encoding, .is_preferred = is_preferred};
    }
}

/* The next coding and its weight; false at the end. */
static bool next_coding(sv *list, sv *name, double *weight) {
    while (list->n) {
        sv token = sv_cut(list, ',');
        *name = sv_trim(sv_cut(&token, ';'));
        *weight = 1;
        bool has_value = sv_find(token, '=') != SIZE_MAX;
        bool is_weight = has_value && sv_eq_nocase(sv_trim(sv_cut(&token, '=')), SV("q"));
        if (!is_weight || sv_to_double(sv_trim(token), weight)) {
            return true;
        }
    }
    return false;
}

static struct encoding_offer *find_offer(struct encoding_offers *o, sv name) {
    for (unsigned i = 0; i < o->n; i++) {
        if (sv_eq(o->v[i].encoding, name) && !o->v[i].is_refused) {
            return &o->v[i];
        }
    }
    return NULL;
}

static void refuse_by_weight(struct encoding_offers *o, sv list) {
    sv name;
    double weight;
    while (next_coding(&list, &name, &weight)) {
        struct encoding_offer *offer = weight == 0 ? find_offer(o, name) : NULL;
        if (offer) {
            offer->is_refused = true;
        }
    }
}

static const struct encoding_offer *first_offer(const struct encoding_offers *o) {
    for (unsigned i = 0; i < o->n; i++) {
        if (!o->v[i].is_refused) {
            return &o->v[i];
        }
    }
    return NULL;
}

struct encoding_choice encoding_choose(sv accept_encoding, struct encoding_offers *o) {
    struct encoding_choice best = {.kind = ENCODING_NONE};
    double best_weight = 0;
    refuse_by_weight(o, accept_encoding);
    const struct encoding_offer *first = first_offer(o);
    sv list = accept_encoding, name;
    double weight;
    while (first && next_coding(&list, &name, &weight)) {
        const struct encoding_offer *offer = find_offer(o, name);
        if (!(weight > best_weight || (offer && offer->is_preferred && weight == best_weight))) {
            continue;
        }
        if (offer) {
            best = (struct encoding_choice){ENCODING_ACCEPTED, offer->encoding};
        } else if (sv_eq(name, SV("*"))) {
            best = (struct encoding_choice){ENCODING_WILDCARD, first->encoding};
        } else if (sv_eq(name, SV("identity"))) {
            best = (struct encoding_choice){ENCODING_IDENTITY, SV_NULL};
        } else {
            continue;
        }
        best_weight = weight;
    }
    return best;
}
