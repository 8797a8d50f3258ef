/* The reference for sotw.c and delta.c: what a server that follows the protocol makes of the
 * requests it gets, and what it must think once no request is due any more. It knows nothing of how
 * requests come about; names are few and are bits, histories are not kept.
 * Spec: xDS protocol, "SotW" and "Incremental" variants, "How the client specifies what resources
 * to return", ACK and NACK. */
#ifndef SLUICE_TESTS_SUPPORT_XDS_MODEL_H
#define SLUICE_TESTS_SUPPORT_XDS_MODEL_H

#include "protos/any.h"
#include "protos/gen/rpc.pb-c.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "proxy/base/check.h"
#include "xds/subscription.h"

#define MODEL_NAMES 8 /* the first is the wildcard */
#define MODEL_REPLIES_MAX 64
#define MODEL_TEXT 8 /* bytes of a version or nonce, with NUL */

/* What a subscription is of: its names, and which of them stand for others (VHDS: a route
 * configuration for its hosts; LEDS: a collection for its members). */
struct model_type {
    enum resource_type type;
    bool has_wildcard;
    const char *names[MODEL_NAMES];
    unsigned space[MODEL_NAMES]; /* of a name: the one that stands for it; 0: none does */
};
static const struct model_type model_types[] = {
    {RES_CLUSTER, true, {"*", "a", "b", "c", "d", "e", "f", "g"}, {0}},
    {RES_VIRTUAL_HOST,
     false,
     {"*", "r", "r/a", "r/b", "s", "s/a", "t/a", "r/b/c"},
     {[2] = 1, [3] = 1, [5] = 4, [7] = 3}},
    {RES_LB_ENDPOINT,
     false,
     {"*", "xdstp://p/t/c/*", "xdstp://p/t/c/1", "xdstp://p/t/c/2", "xdstp://p/t/c/d/*",
      "xdstp://p/t/c/d/1", "xdstp://p/t/e/1", "c/1"},
     {[2] = 1, [3] = 1, [5] = 4}},
};

struct model {
    bool is_delta;
    const struct model_type *of;
    /* what the client wants and has */
    unsigned refs[MODEL_NAMES];
    char versions[MODEL_NAMES][MODEL_TEXT]; /* delta: of what is in use; empty: none */
    char version[MODEL_TEXT];               /* SotW: of the last good response */
    /* the stream */
    bool is_up, was_asked;
    bool has_named;             /* SotW: a request of this stream had names */
    bool is_known[MODEL_NAMES]; /* the server has it as wanted */
    bool is_new[MODEL_NAMES];   /* wanted (again) since, and the server was not told yet */
    bool may_ask;               /* interest changed in whatever way since the last request */
    /* responses without a reply yet, in order; SotW has one at most */
    struct model_reply {
        char nonce[MODEL_TEXT];
        bool is_refused;
    } replies[MODEL_REPLIES_MAX];
    unsigned replies_n;
    char nonce[MODEL_TEXT]; /* SotW: of the last response */
};

static inline unsigned model_index(const struct model *m, const char *name) {
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        if (strcmp(name, m->of->names[i]) == 0) {
            return i;
        }
    }
    CHECK(!"a name that nobody asked for");
}

static inline bool model_is_wanted(const struct model *m) {
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        if (m->refs[i]) {
            return true;
        }
    }
    return false;
}

/* ---- what the client does ---- */

static inline void model_watch(struct model *m, unsigned i) {
    if (m->refs[i]++ == 0) {
        m->is_new[i] = m->may_ask = true;
    }
}

/* By its own name, by one that stands for it, or as one of all. */
static inline bool model_is_in_use(const struct model *m, unsigned i) {
    return m->refs[i] || m->refs[0] || m->refs[m->of->space[i]];
}

/* What nobody wants any more is not in use: its version is forgotten; so is that of what was given
 * up by its own name, which the server then thinks we have not. */
static inline void model_forget(struct model *m, unsigned given_up) {
    for (unsigned i = 1; i < MODEL_NAMES; i++) {
        if (!model_is_in_use(m, i) || (i == given_up && !m->refs[0])) {
            m->versions[i][0] = 0;
        }
    }
}

static inline void model_unwatch(struct model *m, unsigned i) {
    if (--m->refs[i] == 0) {
        m->is_new[i] = false;
        m->may_ask = true;
        model_forget(m, i);
    }
}

static inline void model_stream(struct model *m, bool is_up) {
    m->is_up = is_up;
    m->was_asked = m->has_named = false;
    m->may_ask = true;
    m->replies_n = 0;
    m->nonce[0] = 0;
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        m->is_known[i] = false;
        m->is_new[i] = m->refs[i] > 0;
    }
}

/* ---- responses ---- */

static inline bool model_answers(const struct model *m) { return m->is_up && m->was_asked; }

static inline void model_response(struct model *m, const struct discovery_response *r,
                                  const bool *accepted, bool is_refused) {
    struct model_reply *reply = &m->replies[m->is_delta ? m->replies_n++ : 0];
    CHECK(m->replies_n <= MODEL_REPLIES_MAX);
    *reply = (struct model_reply){.is_refused = is_refused};
    memcpy(reply->nonce, r->nonce.p, r->nonce.n);
    memcpy(m->nonce, reply->nonce, MODEL_TEXT);
    if (!m->is_delta) {
        m->replies_n = 1; /* an earlier one that had none yet is superseded */
        if (!is_refused) {
            memset(m->version, 0, MODEL_TEXT);
            memcpy(m->version, r->version.p, r->version.n);
        }
        return;
    }
    for (unsigned i = 0; i < r->resources_n; i++) {
        unsigned k = model_index(m, r->resources[i].name.p);
        if (accepted[i] && r->resources[i].wire.p && model_is_in_use(m, k)) {
            memset(m->versions[k], 0, MODEL_TEXT);
            memcpy(m->versions[k], r->resources[i].version.p, r->resources[i].version.n);
        }
    }
    for (unsigned i = 0; i < r->removed_n && !r->error.n; i++) {
        m->versions[model_index(m, r->removed[i].p)][0] = 0;
    }
}

/* ---- requests, as the server reads them ---- */

/* The server has it as wanted from now on; told anew it sends it anew. */
static inline void model_know(struct model *m, unsigned i, bool is_told_anew) {
    m->is_new[i] &= !is_told_anew;
    m->is_known[i] = true;
}

static inline void model_sotw_names(struct model *m, const ServiceDiscovery__DiscoveryRequest *r) {
    bool named[MODEL_NAMES] = {false};
    m->has_named |= r->n_resource_names > 0;
    for (size_t i = 0; i < r->n_resource_names; i++) {
        unsigned k = model_index(m, r->resource_names[i]);
        CHECK(!named[k]); /* no name twice */
        named[k] = true;
        CHECK(m->refs[k] > 0);
    }
    named[0] |= !m->has_named;
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        if (named[i]) { /* a server sends what was not named before */
            model_know(m, i, !m->is_known[i] || i == 0);
        }
        m->is_known[i] = named[i];
    }
}

static inline void model_read_sotw(struct model *m, const ServiceDiscovery__DiscoveryRequest *r) {
    CHECK(strcmp(r->version_info, m->version) == 0);
    CHECK(strcmp(r->response_nonce, m->nonce) == 0);
    bool is_nack = m->replies_n && m->replies[0].is_refused;
    CHECK((r->error_detail != NULL) == is_nack);
    m->replies_n = 0;
    model_sotw_names(m, r);
}

static inline void model_read_reply(struct model *m,
                                    const ServiceDiscovery__DeltaDiscoveryRequest *r) {
    CHECK(strcmp(r->response_nonce, m->replies[0].nonce) == 0);
    CHECK((r->error_detail != NULL) == m->replies[0].is_refused);
    CHECK(r->n_resource_names_subscribe == 0 && r->n_resource_names_unsubscribe == 0);
    m->replies_n--;
    memmove(m->replies, m->replies + 1, m->replies_n * sizeof(m->replies[0]));
}

static inline void model_read_versions(const struct model *m,
                                       const ServiceDiscovery__DeltaDiscoveryRequest *r) {
    unsigned had = 0;
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        had += m->versions[i][0] != 0;
    }
    CHECK(r->n_initial_resource_versions == (m->was_asked ? 0 : had));
    for (size_t i = 0; i < r->n_initial_resource_versions; i++) {
        unsigned k = model_index(m, r->initial_resource_versions[i]->key);
        CHECK(strcmp(r->initial_resource_versions[i]->value, m->versions[k]) == 0);
    }
}

static inline void model_read_delta(struct model *m,
                                    const ServiceDiscovery__DeltaDiscoveryRequest *r) {
    if (m->replies_n) {
        model_read_reply(m, r);
        return;
    }
    CHECK(!*r->response_nonce && !r->error_detail);
    model_read_versions(m, r);
    for (size_t i = 0; i < r->n_resource_names_unsubscribe; i++) {
        unsigned k = model_index(m, r->resource_names_unsubscribe[i]);
        CHECK(m->is_known[k]);
        m->is_known[k] = false;
    }
    for (size_t i = 0; i < r->n_resource_names_subscribe; i++) {
        unsigned k = model_index(m, r->resource_names_subscribe[i]);
        CHECK(m->refs[k] > 0);
        model_know(m, k, true);
    }
    if (!m->was_asked && r->n_resource_names_subscribe == 0) {
        model_know(m, 0, true); /* a first request without names wants everything */
    }
}

/* One request came: of the kind the model is of. */
static inline void model_read(struct model *m, const ProtobufCMessage *request) {
    CHECK(m->is_up);
    CHECK(m->replies_n || m->may_ask);
    bool is_reply = m->is_delta && m->replies_n;
    if (m->is_delta) {
        model_read_delta(m, (const ServiceDiscovery__DeltaDiscoveryRequest *)request);
    } else {
        model_read_sotw(m, (const ServiceDiscovery__DiscoveryRequest *)request);
    }
    m->was_asked |= !is_reply;
}

/* Nothing is to be sent any more: the server knows all there is to know. */
static inline void model_settled(struct model *m) {
    if (!m->is_up) {
        return;
    }
    CHECK(m->replies_n == 0);
    if (!m->was_asked) {
        CHECK(!model_is_wanted(m));
        return;
    }
    m->may_ask = false;
    /* a SotW wildcard that was asked for without names can not be taken back without names */
    bool is_stuck = !m->is_delta && !m->has_named && !model_is_wanted(m);
    for (unsigned i = 0; i < MODEL_NAMES; i++) {
        CHECK(m->is_known[i] == (m->refs[i] > 0) || (i == 0 && is_stuck));
        CHECK(!m->is_new[i]);
    }
}

#endif
