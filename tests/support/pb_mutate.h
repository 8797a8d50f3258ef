/* Changes a message somewhere, so that it stays one: for LLVMFuzzerCustomMutator of fuzz targets
 * that read messages. Byte-wise mutation rarely gets past the lengths of nested messages.
 * Include it in one fuzz target: it needs libFuzzer. Everything made lives in the arena. */
#ifndef SLUICE_TESTS_SUPPORT_PB_MUTATE_H
#define SLUICE_TESTS_SUPPORT_PB_MUTATE_H

#include "protos/any.h"
#include "proxy/base/rand.h"

#define MUTATE_DEPTH_MAX 12
#define MUTATE_LIST_MAX 8
#define MUTATE_BYTES_MAX 64 /* how much a string may grow */

size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t n_max);

struct mutate {
    struct rng rng;
    struct arena *a;
    struct diag *d;
};

static void mutate_message(struct mutate *x, ProtobufCMessage *m, unsigned depth);

static bool mutate_chance(struct mutate *x, unsigned one_in) {
    return rng_below(&x->rng, one_in) == 0;
}

static const char *mutate_token(struct mutate *x) {
    static const char *const tokens[] = {
        "",           "a",       "b",     "*",        "*.example.com", "www.*",
        "/",          "/a",      "x-h",   ":path",    "127.0.0.1",     "::1",
        "10.0.0.0/8", "^a.*b$",  "(a+)+", "%REQ(x)%", "main",          "r",
        "main.c",     "443",     "h2",    "TLSv1_3",  "P-256",         "spiffe://a/b",
        "200-299",    "5xx",     "{a=*}", "\r\n",     "%PROTOCOL%",    "default",
        "all",        "unix:/x",
    };
    return tokens[rng_below(&x->rng, sizeof(tokens) / sizeof(tokens[0]))];
}

/* ---- scalars ---- */

static uint64_t mutate_number(struct mutate *x, uint64_t old) {
    static const uint64_t special[] = {0, 1, 2, 100, 1000, 65535, 65536, INT32_MAX, UINT32_MAX};
    switch (rng_below(&x->rng, 4)) {
    case 0:
        return old + 1;
    case 1:
        return rng_u64(&x->rng);
    case 2:
        return (uint64_t)0 - special[rng_below(&x->rng, 9)];
    default:
        return special[rng_below(&x->rng, 9)];
    }
}

static size_t mutate_bytes(struct mutate *x, const void *old, size_t n, uint8_t **out) {
    *out = arena_zalloc(x->a, n + MUTATE_BYTES_MAX + 1);
    if (n) {
        memcpy(*out, old, n);
    }
    return LLVMFuzzerMutate(*out, n, n + MUTATE_BYTES_MAX);
}

static char *mutate_string(struct mutate *x, const char *old) {
    uint8_t *fresh;
    if (mutate_chance(x, 2)) {
        return arena_cstr(x->a, sv_cstr(mutate_token(x)));
    }
    size_t n = mutate_bytes(x, old, old ? strlen(old) : 0, &fresh);
    fresh[n] = 0;
    return (char *)fresh;
}

static size_t mutate_size(ProtobufCType t) {
    switch (t) {
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static ProtobufCMessage *mutate_new(struct mutate *x, const ProtobufCMessageDescriptor *desc) {
    ProtobufCMessage *m = arena_zalloc(x->a, desc->sizeof_message);
    desc->message_init(m);
    return m;
}

/* One value, in place; a message that is not there is made. */
static void mutate_value(struct mutate *x, const ProtobufCFieldDescriptor *f, void *at,
                         unsigned depth) {
    switch (f->type) {
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = mutate_string(x, *(char **)at);
        return;
    case PROTOBUF_C_TYPE_BYTES: {
        ProtobufCBinaryData *b = at;
        b->len = mutate_bytes(x, b->data, b->len, &b->data);
        return;
    }
    case PROTOBUF_C_TYPE_MESSAGE: {
        ProtobufCMessage **m = at;
        if (!*m) {
            *m = mutate_new(x, f->descriptor);
        }
        mutate_message(x, *m, depth + 1);
        return;
    }
    case PROTOBUF_C_TYPE_ENUM: {
        const ProtobufCEnumDescriptor *e = f->descriptor;
        *(uint32_t *)at = mutate_chance(x, 16)
                              ? (uint32_t)rng_u64(&x->rng)
                              : (uint32_t)e->values[rng_below(&x->rng, e->n_values)].value;
        return;
    }
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = !*(protobuf_c_boolean *)at;
        return;
    case PROTOBUF_C_TYPE_DOUBLE:
        *(double *)at = (double)(int64_t)mutate_number(x, 0) / (mutate_chance(x, 2) ? 1 : 100);
        return;
    case PROTOBUF_C_TYPE_FLOAT:
        *(float *)at = (float)mutate_number(x, 0) / 100;
        return;
    default:
        if (mutate_size(f->type) == 8) {
            *(uint64_t *)at = mutate_number(x, *(uint64_t *)at);
        } else {
            *(uint32_t *)at = (uint32_t)mutate_number(x, *(uint32_t *)at);
        }
    }
}

/* ---- fields ---- */

static void mutate_list(struct mutate *x, const ProtobufCFieldDescriptor *f, size_t *n, char **list,
                        unsigned depth) {
    size_t size = mutate_size(f->type), at = *n ? rng_below(&x->rng, *n) : 0;
    if (*n && mutate_chance(x, 4)) { /* take one out */
        memmove(*list + at * size, *list + (at + 1) * size, (*n - at - 1) * size);
        --*n;
        return;
    }
    if (*n == 0 || (*n < MUTATE_LIST_MAX && mutate_chance(x, 3))) { /* add or repeat one */
        char *longer = arena_zalloc(x->a, (*n + 1) * size);
        if (*n) {
            memcpy(longer, *list, *n * size);
            memcpy(longer + *n * size, *list + at * size, size);
        } else {
            mutate_value(x, f, longer, depth);
        }
        if (f->type == PROTOBUF_C_TYPE_STRING && *n == 0 && !*(char **)(void *)longer) {
            *(char **)(void *)longer = arena_cstr(x->a, SV("a"));
        }
        *list = longer;
        ++*n;
        return;
    }
    mutate_value(x, f, *list + at * size, depth);
}

static void mutate_field(struct mutate *x, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                         unsigned depth) {
    char *base = (char *)m;
    void *at = base + f->offset;
    uint32_t *which = (uint32_t *)(void *)(base + f->quantifier_offset);
    if (f->label == PROTOBUF_C_LABEL_REPEATED) {
        mutate_list(x, f, (size_t *)(void *)which, at, depth);
        return;
    }
    if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
        if (*which != f->id) { /* another member's bytes are no value of this one */
            memset(at, 0, mutate_size(f->type));
            *which = f->id;
            if (f->type == PROTOBUF_C_TYPE_STRING) {
                *(char **)at = arena_cstr(x->a, SV("a"));
            }
        } else if (mutate_chance(x, 8)) {
            *which = 0;
            return;
        }
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE && mutate_chance(x, 8)) {
        *(ProtobufCMessage **)at = NULL;
        return;
    }
    mutate_value(x, f, at, depth);
}

/* A message inside of an Any, or an Any of another type. */
static void mutate_any(struct mutate *x, Pb__Any *any, unsigned depth) {
    const struct proto_type *t = any_type(sv_cstr(any->type_url));
    while (!t || (mutate_chance(x, 16) && depth < MUTATE_DEPTH_MAX)) {
        t = &proto_types[rng_below(&x->rng, proto_types_n)];
        if (!sv_starts(sv_cstr(t->name), SV("envoy.extensions."))) {
            t = NULL;
        }
    }
    ProtobufCMessage *m =
        proto_unpack(t->desc, sv_from(any->value.data, any->value.len), x->a, x->d);
    diag_reset(x->d);
    if (!m) {
        m = mutate_new(x, t->desc);
    }
    mutate_message(x, m, depth + 1);
    *any = *any_pack(m, x->a);
}

static void mutate_message(struct mutate *x, ProtobufCMessage *m, unsigned depth) {
    const ProtobufCMessageDescriptor *desc = m->descriptor;
    if (desc->n_fields == 0 || depth > MUTATE_DEPTH_MAX) {
        return;
    }
    if (desc == &pb__any__descriptor) {
        mutate_any(x, (Pb__Any *)(void *)m, depth);
        return;
    }
    /* mostly further down, where most of a message is */
    for (unsigned tries = 0; tries < 4; tries++) {
        const ProtobufCFieldDescriptor *f = &desc->fields[rng_below(&x->rng, desc->n_fields)];
        const char *at = (const char *)m + f->offset;
        bool is_there = f->type == PROTOBUF_C_TYPE_MESSAGE &&
                        f->label != PROTOBUF_C_LABEL_REPEATED &&
                        !(f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                        *(ProtobufCMessage *const *)(const void *)at;
        if (is_there || tries == 3) {
            mutate_field(x, m, f, depth);
            return;
        }
    }
}

/* `n` bytes of a message in `data`, changed; how many there are then, at most n_max. What is no
 * message is mutated as bytes. */
static size_t mutate_wire(const ProtobufCMessageDescriptor *desc, uint8_t *data, size_t n,
                          size_t n_max, unsigned seed) {
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    struct mutate x = {.a = &a, .d = &d};
    rng_seed(&x.rng, seed);
    ProtobufCMessage *m =
        mutate_chance(&x, 16) ? NULL : proto_unpack(desc, sv_from(data, n), &a, &d);
    diag_reset(&d);
    sv changed = SV_NULL;
    if (m) {
        mutate_message(&x, m, 0);
        changed = proto_pack(m, &a);
    }
    bool is_kept = m && changed.n <= n_max;
    if (is_kept && changed.n) {
        memcpy(data, changed.p, changed.n);
    }
    size_t result = is_kept ? changed.n : LLVMFuzzerMutate(data, n, n_max);
    diag_fini(&d);
    arena_fini(&a);
    chunk_cache_trim();
    return result;
}

#endif
