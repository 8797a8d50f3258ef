/* The functions of proxy/api/compile.h without a configuration: for tests of one compile function
 * or filter. Include it in one test source: it defines compile_cluster_ref() and its like there, so
 * that the library's own are not linked. A test that needs the real ones (config/) must not include
 * it.
 *     struct fake_compile f;  fake_compile_init(&f, registry);  … foo_compile(&f.ctx, msg) …
 * fake_compile_fini(&f); Every cluster name gets a slot; a reference that must exist fails for
 * names that begin with "nope". */
#ifndef SLUICE_TESTS_SUPPORT_FAKE_COMPILE_H
#define SLUICE_TESTS_SUPPORT_FAKE_COMPILE_H

#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/pb_rules.h"
#include "protos/pb_text.h"
#include "proxy/api/compile.h"
#include "proxy/base/map.h"
#include "proxy/upstream/dns_cache.h"
#include "tests/support/unit.h"

#define FAKE_SLOTS_MAX 100000
#define FAKE_UNHONOURED_MAX 16

struct fake_compile {
    struct arena arena; /* compiled things */
    struct arena msgs;  /* messages of the test */
    struct diag diag;
    struct compile_ctx ctx;
};
static struct {
    struct map slots;
    sv names[FAKE_SLOTS_MAX]; /* by slot */
    unsigned slots_n;
    struct map shared;          /* what compile_shared() made, in the fixture's arena */
    const void *node;           /* core.v3.Node */
    const void *default_tracer; /* config.trace.v3.Tracing.Http */
    struct dns_caches *dns_caches;
    const char *unhonoured[FAKE_UNHONOURED_MAX];
    unsigned unhonoured_n;
} fake;

static inline void fake_compile_init(struct fake_compile *f, const struct registry *registry) {
    *f = (struct fake_compile){.ctx = {.arena = &f->arena,
                                       .scratch = &f->msgs,
                                       .diag = &f->diag,
                                       .registry = registry,
                                       .is_downstream = true,
                                       .stat_prefix = SV("http.test."),
                                       .owner = SV("test")}};
    arena_init(&f->arena, 0);
    arena_init(&f->msgs, 0);
    diag_init(&f->diag);
    fake.unhonoured_n = 0;
}

static inline void fake_compile_fini(struct fake_compile *f) {
    map_fini(&fake.shared);
    map_init(&fake.shared);
    fake.node = NULL;
    fake.default_tracer = NULL;
    arena_fini(&f->arena);
    arena_fini(&f->msgs);
    diag_fini(&f->diag);
    for (unsigned i = 0; i < fake.slots_n; i++) {
        xfree((void *)(uintptr_t)fake.names[i].p);
    }
    map_fini(&fake.slots);
    map_init(&fake.slots);
    fake.slots_n = 0;
    chunk_cache_trim();
}

/* A message from text format that must be right. */
static inline void *fake_msg(struct fake_compile *f, const char *type, const char *text) {
    const struct proto_type *t = proto_type_find(sv_cstr(type));
    assert_non_null(t);
    ProtobufCMessage *m = pb_text_parse(t, sv_cstr(text), &f->msgs, &f->diag);
    if (!m) {
        sv why = diag_text(&f->diag);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    return m;
}

/* Errors so far, forgotten; lives as long as the fixture's messages. */
static inline sv fake_errors(struct fake_compile *f) {
    sv text = arena_sv(&f->msgs, diag_text(&f->diag));
    diag_reset(&f->diag);
    return text;
}

const void *compile_node(struct compile_ctx *ctx) {
    (void)ctx;
    return fake.node;
}
const void *compile_default_tracer(struct compile_ctx *ctx) {
    (void)ctx;
    return fake.default_tracer;
}

struct dns_caches *compile_dns_caches(struct compile_ctx *ctx) {
    (void)ctx;
    return fake.dns_caches;
}

void *compile_shared(struct compile_ctx *ctx, const char *key,
                     void *(*make)(struct compile_ctx *ctx, struct arena *a)) {
    void *have = map_get(&fake.shared, sv_cstr(key));
    if (!have) {
        have = make(ctx, ctx->arena);
        map_put(&fake.shared, sv_cstr(key), have);
    }
    return have;
}

slot_t compile_cluster_ref(struct compile_ctx *ctx, sv name, bool must_exist) {
    if (must_exist && sv_starts(name, SV("nope"))) {
        diag_error(ctx->diag, "unknown cluster '%.*s'", SV_ARG(name));
    }
    uintptr_t known = (uintptr_t)map_get(&fake.slots, name);
    if (known) {
        return (slot_t)(known - 1);
    }
    CHECK(fake.slots_n < FAKE_SLOTS_MAX);
    fake.names[fake.slots_n] = sv_from(sv_dup(name), name.n);
    map_put(&fake.slots, fake.names[fake.slots_n], (void *)(uintptr_t)(fake.slots_n + 1));
    return fake.slots_n++;
}

slot_t compile_route_ref(struct compile_ctx *ctx, sv name, const void *config_source) {
    (void)config_source;
    return compile_cluster_ref(ctx, name, false);
}

void compile_virtual_hosts_ref(struct compile_ctx *ctx, sv name, const void *config_source) {
    (void)ctx;
    (void)name;
    (void)config_source;
}

unsigned compile_secret_ref(struct compile_ctx *ctx, sv name, const void *config_source) {
    (void)config_source;
    return compile_cluster_ref(ctx, name, false);
}

slot_t compile_transport_socket(struct compile_ctx *ctx, const void *transport_socket_msg) {
    (void)ctx;
    (void)transport_socket_msg;
    return 0;
}

const void *compile_any(struct compile_ctx *ctx, sv name, const void *any_msg,
                        const char *want_type, const char **type_out) {
    ProtobufCMessage *m = any_unpack((const Pb__Any *)any_msg, name, ctx->scratch, ctx->diag);
    if (!m || !pb_rules_check(m, ctx->diag)) {
        return NULL;
    }
    const char *type = proto_type_of(m->descriptor)->name;
    if (want_type && strcmp(type, want_type) != 0) {
        diag_error(ctx->diag, "expected a %s, not a %s", want_type, type);
        return NULL;
    }
    if (type_out) {
        *type_out = type;
    }
    return m;
}

void compile_unhonoured(struct compile_ctx *ctx, const char *field) {
    (void)ctx;
    if (fake.unhonoured_n < FAKE_UNHONOURED_MAX) {
        fake.unhonoured[fake.unhonoured_n++] = field;
    }
}

bool compile_data_source(struct compile_ctx *ctx, const void *data_source_msg, sv *out) {
    const Core__DataSource *m = (const Core__DataSource *)data_source_msg;
    switch (m->specifier_case) {
    case CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING:
        *out = arena_sv(ctx->arena, sv_cstr(m->inline_string));
        return true;
    case CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES:
        *out = arena_sv(ctx->arena, sv_from(m->inline_bytes.data, m->inline_bytes.len));
        return true;
    default:
        return diag_error(ctx->diag, "no such data source in tests");
    }
}

bool compile_duration_ms(struct compile_ctx *ctx, const void *duration_msg, uint32_t dflt,
                         uint32_t *out) {
    const Pb__Duration *d = (const Pb__Duration *)duration_msg;
    *out = dflt;
    if (!d) {
        return true;
    }
    if (d->seconds < 0 || d->nanos < 0 || d->seconds > UINT32_MAX / 1000 - 1) {
        return diag_error(ctx->diag, "duration out of range");
    }
    *out = (uint32_t)(d->seconds * 1000 + d->nanos / 1000000);
    *out += *out == 0 && d->nanos > 0;
    return true;
}

bool compile_address(struct compile_ctx *ctx, const void *address_msg, struct addr *out) {
    (void)address_msg;
    (void)out;
    return diag_error(ctx->diag, "no addresses in tests of one compile function");
}

bool compile_socket_address(struct compile_ctx *ctx, const void *socket_address_msg,
                            struct addr *out) {
    return compile_address(ctx, socket_address_msg, out);
}

#endif
