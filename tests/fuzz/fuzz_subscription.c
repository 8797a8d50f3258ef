/* Random lives of one subscription, SotW or delta, held against a model of the server behind it:
 * after each step what is due and what is told must be what the model says. In delta, of virtual
 * hosts and of endpoints of collections too, whose names stand for others.
 * Input: one byte for the protocol and the type, then steps: an op and its operands, a byte
 * each. */
#include <stdio.h>
#include <stdlib.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "tests/support/xds_model.h"

#define STEPS_MAX 300
#define REQUESTS_MAX 100 /* in a row without anything happening between */
#define RESOURCES_MAX 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct run {
    const struct subscription_ops *ops;
    struct subscription *s;
    struct model m;
    unsigned nonces;
    struct arena a;
    struct diag d;
    sv in;
};

static uint8_t eat(struct run *x) {
    uint8_t b = x->in.n ? (uint8_t)x->in.p[0] : 0;
    x->in = sv_skip(x->in, 1);
    return b;
}

static sv name_of(const struct run *x, unsigned i) { return sv_cstr(x->m.of->names[i]); }

static sv text_of(struct run *x, const char *prefix, unsigned n) {
    char text[MODEL_TEXT];
    snprintf(text, sizeof(text), "%s%u", prefix, n % 1000);
    return arena_sv(&x->a, sv_cstr(text));
}

/* ---- the client's side ---- */

static void watch(struct run *x, unsigned i) {
    if (i == 0 && !x->m.of->has_wildcard) {
        return;
    }
    x->ops->watch(x->s, name_of(x, i));
    model_watch(&x->m, i);
}

static void unwatch(struct run *x, unsigned i) {
    if (x->m.refs[i]) {
        x->ops->unwatch(x->s, name_of(x, i));
        model_unwatch(&x->m, i);
    }
}

static void stream(struct run *x, bool is_up) {
    (is_up ? x->ops->stream_up : x->ops->stream_down)(x->s);
    model_stream(&x->m, is_up);
}

static void expire(struct run *x, unsigned i) {
    x->ops->on_expired(x->s, name_of(x, i));
    x->m.versions[i][0] = 0;
}

/* ---- requests ---- */

static void request(struct run *x) {
    struct buf BUF_AUTO out;
    buf_init(&out);
    x->ops->next_request(x->s, SV_NULL, &out);
    const ProtobufCMessageDescriptor *desc =
        x->m.is_delta ? &service_discovery__delta_discovery_request__descriptor
                      : &service_discovery__discovery_request__descriptor;
    const ProtobufCMessage *m = proto_unpack(desc, buf_pullup(&out, buf_len(&out)), &x->a, &x->d);
    CHECK(m);
    model_read(&x->m, m);
}

static void settle(struct run *x) {
    for (unsigned i = 0; x->ops->has_request(x->s); i++) {
        CHECK(i < REQUESTS_MAX);
        request(x);
    }
    model_settled(&x->m);
}

/* ---- responses ---- */

static void respond(struct run *x) {
    struct xds_resource resources[RESOURCES_MAX];
    bool accepted[RESOURCES_MAX];
    sv removed[RESOURCES_MAX];
    struct discovery_response r = {
        .type = x->m.of->type, .resources = resources, .removed = removed};
    r.nonce = text_of(x, "n", ++x->nonces);
    r.version = text_of(x, "v", eat(x));
    uint8_t shape = eat(x), verdict = eat(x);
    bool is_refused = verdict & 0x80;
    r.error = verdict & 0x40 ? SV("none of it") : SV_NULL;
    for (unsigned i = 0; i < (shape & 3u); i++) {
        uint8_t which = eat(x);
        resources[i] = (struct xds_resource){.name = name_of(x, 1 + which % (MODEL_NAMES - 1)),
                                             .version = text_of(x, "r", which >> 4),
                                             .wire = which & 8 ? SV_NULL : SV("x")};
        accepted[i] = !r.error.n && (verdict >> i & 1);
        is_refused |= !accepted[i];
        r.resources_n++;
    }
    for (unsigned i = 0; x->m.is_delta && i < (shape >> 2 & 3u); i++) {
        removed[r.removed_n++] = name_of(x, 1 + eat(x) % (MODEL_NAMES - 1));
    }
    is_refused |= r.error.n > 0;
    bool is_taken = x->ops->on_response(x->s, &r);
    CHECK(is_taken == model_answers(&x->m));
    if (is_taken) {
        x->ops->on_verdict(x->s, &r, accepted, is_refused ? SV("no") : SV_NULL);
        model_response(&x->m, &r, accepted, is_refused);
    }
}

/* ---- the run ---- */

static void step(struct run *x) {
    uint8_t op = eat(x);
    unsigned i = op >> 4 & (MODEL_NAMES - 1);
    switch (op & 7) {
    case 0:
    case 1:
        watch(x, i);
        break;
    case 2:
        unwatch(x, i);
        break;
    case 3:
        stream(x, i != 0);
        break;
    case 4:
        expire(x, i);
        break;
    case 5:
        if (x->ops->has_request(x->s)) {
            request(x);
        }
        break;
    case 6:
        settle(x);
        break;
    default:
        if (x->m.replies_n < MODEL_REPLIES_MAX) {
            respond(x);
        }
    }
    CHECK(x->ops->is_wanted(x->s) == model_is_wanted(&x->m));
    CHECK(x->ops->replies_due(x->s) == x->m.replies_n);
    CHECK(!x->m.replies_n || x->ops->has_request(x->s));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    log_set_all(LOG_OFF);
    struct run *x = xnew(struct run);
    x->in = sv_from(data, n);
    uint8_t kind = eat(x);
    x->m.is_delta = kind & 1;
    x->m.of = &model_types[x->m.is_delta ? (kind >> 1) % ARRAY_LEN(model_types) : 0];
    x->ops = x->m.is_delta ? &delta_ops : &sotw_ops;
    x->s = x->ops->make(x->m.of->type);
    arena_init(&x->a, 0);
    diag_init(&x->d);
    for (unsigned i = 0; i < STEPS_MAX && x->in.n; i++) {
        step(x);
    }
    settle(x);
    x->ops->free(x->s);
    diag_fini(&x->d);
    arena_fini(&x->a);
    xfree(x);
    chunk_cache_trim();
    return 0;
}
