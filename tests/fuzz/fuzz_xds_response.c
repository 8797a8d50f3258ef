/* A control plane's bytes against both protocols: sequences of watches, responses and streams that
 * come and go. Requests must stay well-formed whatever came.
 * Input: one byte for the protocol, then steps: an op byte; a name (one byte); or a response (two
 * bytes length, its bytes). */
#include <stdlib.h>

#include "protos/any.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/subscription.h"

#define STEPS_MAX 200
#define NAMES 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

struct run {
    const struct subscription_ops *ops;
    struct subscription *s;
    unsigned refs[NAMES];
    struct arena a;
    struct diag *d;
};

static uint8_t eat_byte(sv *in) {
    uint8_t b = in->n ? (uint8_t)in->p[0] : 0;
    *in = sv_skip(*in, 1);
    return b;
}

static sv name_of(unsigned i) {
    static const char *const names[NAMES] = {"*", "a", "b", "c", "d", "e", "f", "g"};
    return sv_cstr(names[i % NAMES]);
}

static void request(struct run *x) {
    if (!x->ops->has_request(x->s)) {
        return;
    }
    struct buf BUF_AUTO out;
    buf_init(&out);
    x->ops->next_request(x->s, SV_NULL, &out);
    const ProtobufCMessageDescriptor *desc =
        x->ops == &delta_ops ? &service_discovery__delta_discovery_request__descriptor
                             : &service_discovery__discovery_request__descriptor;
    CHECK(proto_unpack(desc, buf_pullup(&out, buf_len(&out)), &x->a, x->d));
}

static void respond(struct run *x, sv wire, uint8_t verdict) {
    struct discovery_response r;
    if (!x->ops->parse(wire, &x->a, &r) || !x->ops->on_response(x->s, &r)) {
        return;
    }
    bool *accepted = arena_zalloc_array(&x->a, r.resources_n + 1, sizeof(bool));
    for (unsigned i = 0; i < r.resources_n && !r.error.n; i++) {
        accepted[i] = (verdict >> (i % 8)) & 1;
    }
    x->ops->on_verdict(x->s, &r, accepted, r.error.n ? r.error : verdict == 0xff ? SV_NULL : wire);
}

static void step(struct run *x, sv *in) {
    uint8_t op = eat_byte(in), arg = eat_byte(in);
    unsigned i = arg % NAMES;
    switch (op % 8) {
    case 0:
        x->ops->watch(x->s, name_of(i));
        x->refs[i]++;
        return;
    case 1:
        if (x->refs[i]) {
            x->ops->unwatch(x->s, name_of(i));
            x->refs[i]--;
        }
        return;
    case 2:
        x->ops->stream_up(x->s);
        return;
    case 3:
        x->ops->stream_down(x->s);
        return;
    case 4:
        x->ops->on_expired(x->s, name_of(i));
        return;
    case 5:
        request(x);
        return;
    default: {
        size_t n = (size_t)eat_byte(in) << 8 | eat_byte(in);
        sv wire = sv_sub(*in, 0, n);
        *in = sv_skip(*in, n);
        respond(x, wire, arg);
        return;
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    sv in = sv_from(data, n);
    log_set_all(LOG_OFF);
    struct run x = {.ops = eat_byte(&in) % 2 ? &delta_ops : &sotw_ops, .d = xnew(struct diag)};
    x.s = x.ops->make(RES_CLUSTER);
    arena_init(&x.a, 0);
    diag_init(x.d);
    for (unsigned i = 0; i < STEPS_MAX && in.n; i++) {
        step(&x, &in);
    }
    x.ops->free(x.s);
    diag_fini(x.d);
    xfree(x.d);
    arena_fini(&x.a);
    chunk_cache_trim();
    return 0;
}
