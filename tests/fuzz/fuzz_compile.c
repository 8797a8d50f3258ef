/* A control plane's resources against their compilers: whatever the bytes are, a resource is made
 * or an error told, and what refers to names gives them back.
 * Input: one byte for the type, one for the flags, then the message. Seeds: seeds.py. */
/* link: -Wl,--wrap=open,--wrap=getenv */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "proxy/api/transport_socket.h"
#include "proxy/base/log.h"
#include "tests/support/pb_mutate.h"
#include "tests/support/test_config.h"

#define HEAD 2
enum { IS_STATIC = 1, REJECTS_UNKNOWN = 2, IGNORES_UNKNOWN = 4, HAS_CLUSTERS = 8 };

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
    t.config.reject_unknown_dynamic = data[1] & REJECTS_UNKNOWN;
    t.config.ignore_unknown_dynamic = data[1] & IGNORES_UNKNOWN;
    compile(&t.config, type_of(data[0]), sv_from(data + HEAD, n - HEAD), data[1] & IS_STATIC, d);
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
