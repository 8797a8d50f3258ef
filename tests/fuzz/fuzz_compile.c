/* A control plane's resources against their compilers: whatever the bytes are, a resource is made
 * or an error told, and what refers to names gives them back.
 * Input: one byte for the type, one for the flags, then the message. Seeds: seeds.py. */
/* link: -Wl,--wrap=open,--wrap=getenv */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/transport_socket.h"
#include "proxy/base/log.h"
#include "proxy/config/extension.h"
#include "proxy/route/route_vhds.h"
#include "tests/support/pb_mutate.h"
#include "tests/support/test_config.h"

#define HEAD 2
enum {
    IS_STATIC = 1,
    REJECTS_UNKNOWN = 2,
    IGNORES_UNKNOWN = 4,
    HAS_CLUSTERS = 8,
    IS_ADS_SOTW = 16, /* VHDS and LEDS over ADS need delta */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t n_max, unsigned seed);

/* Files and variables of the machine are not the input's business. */
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
    (void)path, (void)flags;
    errno = EACCES;
    return -1;
}

char *__wrap_getenv(const char *name);
char *__wrap_getenv(const char *name) {
    (void)name;
    return NULL;
}

static enum resource_type type_of(uint8_t b) { return (enum resource_type)(b % RES_TYPES); }

/* Sockets whose secrets are all in the resource. */
static void make_transports(const struct resource *r, struct diag *d) {
    static const struct secret_source none = {NULL, 0};
    for (unsigned i = 0; i < r->transports_n; i++) {
        const struct transport_def *t = &r->transports[i];
        struct transport_factory *f = t->secrets_n == 0 ? t->type->make(t->config, &none, d) : NULL;
        if (f) {
            shared_unref(&f->shared);
        }
    }
}

/* A discovered filter is compiled for each place that asks for it: as a filter of each kind, last
 * of its chain or not. */
static void compile_places(struct config *c, const struct resource *r, struct diag *d) {
    struct arena a;
    arena_init(&a, 0);
    const Core__TypedExtensionConfig *m = PROTO_UNPACK(
        Core__TypedExtensionConfig, core__typed_extension_config__descriptor, r->wire, &a, d);
    sv type = any_inner_name(m->typed_config, &a);
    for (unsigned i = 0; i < 2 * EXTENSION_KINDS; i++) {
        struct extension_def def = {.kind = (enum extension_kind)(i / 2),
                                    .name = r->name,
                                    .type_urls = &type,
                                    .type_urls_n = 1,
                                    .is_last = i % 2,
                                    .stat_prefix = SV("http.main."),
                                    .owner = SV("l")};
        struct extension_config *x = extension_config_new(c, &def, r, d);
        CHECK((x != NULL) == diag_ok(d));
        diag_reset(d);
        if (x) {
            shared_unref(&x->shared);
        }
    }
    arena_fini(&a);
}

/* A virtual host comes beside its route configuration, then again as part of an update. */
static void compile_vhost(struct config *c, sv wire, struct diag *d) {
    struct arena a;
    arena_init(&a, 0);
    Route__RouteConfiguration m = ROUTE__ROUTE_CONFIGURATION__INIT;
    m.name = (char *)(uintptr_t) "r";
    struct resource *base =
        resource_compile(c, RES_ROUTE, SV_NULL, SV("1"), proto_pack(&m.base, &a), false, NULL, d);
    CHECK(base);
    struct route_table *before = NULL;
    bool was_good = false;
    for (unsigned i = 0; i < 2; i++) {
        struct route_vhost_bytes more[] = {{.wire = wire}, {.wire = wire}};
        struct route_table *t = config_routes_with(c, base, more, 1 + i, before);
        CHECK(t);
        CHECK(i == 0 || more[1].error); /* the same domains again */
        CHECK(i == 0 || (more[0].error == NULL) == was_good);
        was_good = more[0].error == NULL;
        xfree(more[0].error);
        xfree(more[1].error);
        if (before) {
            shared_unref(&before->shared);
        }
        before = t;
    }
    shared_unref(&before->shared);
    shared_unref(&base->shared);
    arena_fini(&a);
}

static void compile(struct config *c, enum resource_type t, sv wire, bool is_static,
                    struct diag *d) {
    struct resource *r = resource_compile(c, t, SV_NULL, SV("1"), wire, is_static, NULL, d);
    CHECK((r != NULL) == diag_ok(d));
    if (!r) {
        CHECK(diag_text(d).n > 0);
        return;
    }
    /* the same bytes again, as an update of it, are as good */
    struct resource *again = resource_compile(c, t, r->name, SV("2"), wire, is_static, r, d);
    CHECK(again && again->hash[0] == r->hash[0]);
    make_transports(again, d);
    if (t == RES_EXTENSION) {
        compile_places(c, again, d);
    }
    shared_unref(&r->shared);
    shared_unref(&again->shared);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < HEAD) {
        return 0;
    }
    log_set_all(LOG_OFF);
    struct test_config t;
    struct diag *d = xnew(struct diag);
    diag_init(d);
    test_config_init(&t, data[1] & HAS_CLUSTERS);
    t.config.is_ads_delta = !(data[1] & IS_ADS_SOTW);
    t.config.reject_unknown_dynamic = data[1] & REJECTS_UNKNOWN;
    t.config.ignore_unknown_dynamic = data[1] & IGNORES_UNKNOWN;
    sv wire = sv_from(data + HEAD, n - HEAD);
    if (type_of(data[0]) == RES_VIRTUAL_HOST) {
        compile_vhost(&t.config, wire, d);
    } else {
        compile(&t.config, type_of(data[0]), wire, data[1] & IS_STATIC, d);
    }
    test_config_fini(&t);
    diag_fini(d);
    xfree(d);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t n_max, unsigned seed) {
    const struct proto_type *t =
        n < HEAD ? NULL : any_type(sv_cstr(resource_types[type_of(data[0])].proto_name));
    if (!t || seed % 64 == 0) {
        return LLVMFuzzerMutate(data, n, n_max);
    }
    return HEAD + mutate_wire(t->desc, data + HEAD, n - HEAD, n_max - HEAD, seed);
}
