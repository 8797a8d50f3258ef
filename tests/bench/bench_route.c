/* Costs of route tables: compiling 10,000 virtual hosts, compiling them again with one changed, and
 * one match among 5,000 virtual hosts of 200 prefixes. Prints one line for each; a budget that is
 * missed makes the exit status 1.
 *     bench_route [virtual hosts [routes]] */
#include <stdio.h>
#include <time.h>

#include "proxy/base/rand.h"
#include "proxy/route/route_private.h"
#include "tests/support/route.h"

#define COMPILE_VHOSTS 10000
#define COMPILE_BUDGET_MS 150.0
#define RECOMPILE_BUDGET_MS 10.0
#define MATCHES 2000000u

static struct fake_compile f;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void put_varint(struct buf *b, uint64_t v) {
    for (; v >= 0x80; v >>= 7) {
        buf_append(b, &(char){(char)(v | 0x80)}, 1);
    }
    buf_append(b, &(char){(char)v}, 1);
}

static void put_field(struct buf *b, unsigned number, sv body) {
    put_varint(b, number << 3 | 2);
    put_varint(b, body.n);
    buf_append_sv(b, body);
}

/* Wire bytes of one message, from text format. */
static sv vhost_wire(unsigned i, unsigned routes, const char *cluster) {
    struct buf text;
    buf_init(&text);
    buf_printf(&text, "name: 'service-%u' domains: 'service-%u.example.com' domains: 'service-%u' ",
               i, i, i);
    for (unsigned r = 0; r + 1 < routes; r++) {
        buf_printf(&text,
                   "routes { name: 'r%u' match { prefix: '/api/v%u/resource-%u/' } route { "
                   "cluster: '%s' } } ",
                   r, r % 3, r, cluster);
    }
    buf_printf(&text, "routes { name: 'last' match { prefix: '/' } route { cluster: '%s' } }",
               cluster);
    char *s = buf_dup_str(&text);
    arena_reset(&f.msgs);
    sv wire = proto_pack((ProtobufCMessage *)fake_msg(&f, "envoy.config.route.v3.VirtualHost", s),
                         &f.msgs);
    xfree(s);
    buf_fini(&text);
    return wire;
}

static sv table_wire(struct buf *b, unsigned vhosts, unsigned routes, unsigned changed) {
    buf_init(b);
    for (unsigned i = 0; i < vhosts; i++) {
        put_field(b, 2, vhost_wire(i, routes, i == changed ? "other" : "cluster"));
    }
    return buf_pullup(b, buf_len(b));
}

static bool bench_compile(void) {
    struct buf a, b;
    sv first = table_wire(&a, COMPILE_VHOSTS, 1, UINT32_MAX),
       second = table_wire(&b, COMPILE_VHOSTS, 1, COMPILE_VHOSTS / 2);
    double t0 = now_ms();
    struct route_table *one = route_table_compile(&f.ctx, first, NULL);
    double t1 = now_ms();
    struct route_table *two = route_table_compile(&f.ctx, second, one);
    double t2 = now_ms();
    shared_unref(&one->shared);
    double t3 = now_ms();
    shared_unref(&two->shared);
    printf("compile_10k_vhosts_ms %.1f (budget %.0f)\n", t1 - t0, COMPILE_BUDGET_MS);
    printf("recompile_10k_one_changed_ms %.2f (budget %.0f)\n", t2 - t1, RECOMPILE_BUDGET_MS);
    printf("drop_old_table_ms %.2f\n", t3 - t2);
    buf_fini(&a);
    buf_fini(&b);
    return t1 - t0 <= COMPILE_BUDGET_MS && t2 - t1 <= RECOMPILE_BUDGET_MS;
}

static void bench_match(unsigned vhosts, unsigned routes) {
    struct buf b;
    sv wire = table_wire(&b, vhosts, routes, UINT32_MAX);
    double t0 = now_ms();
    struct route_table *t = route_table_compile(&f.ctx, wire, NULL);
    double t1 = now_ms();
    printf("compile_%ux%u_ms %.0f\n", vhosts, routes, t1 - t0);
    struct rng g;
    rng_seed(&g, 1);
    uint64_t found = 0;
    struct headers h;
    struct arena scratch;
    arena_init(&scratch, 0);
    request_make(&h, &scratch, "host", "/", NULL);
    double spent = 0;
    char host[64], path[64];
    for (unsigned i = 0; i < MATCHES; i++) {
        int n =
            snprintf(host, sizeof(host), "service-%u.example.com", (unsigned)rng_below(&g, vhosts));
        headers_set(&h, HDR_authority, sv_from(host, (size_t)n));
        unsigned r = (unsigned)rng_below(&g, routes);
        n = snprintf(path, sizeof(path), "/api/v%u/resource-%u/item/42?q=1", r % 3, r);
        headers_set(&h, HDR_path, sv_from(path, (size_t)n));
        struct route_match_input in = {.headers = &h, .random = i, .scratch = &scratch};
        const struct vhost *v;
        enum route_miss why;
        struct timespec a, z;
        if (i % 16 == 0) {
            clock_gettime(CLOCK_MONOTONIC, &a);
        }
        found += route_table_match(t, &in, &v, &why) != NULL;
        if (i % 16 == 0) {
            clock_gettime(CLOCK_MONOTONIC, &z);
            spent += (double)(z.tv_sec - a.tv_sec) * 1e9 + (double)(z.tv_nsec - a.tv_nsec);
        }
    }
    printf("match_%ux%u_random_ns %.0f (clock included; %llu found)\n", vhosts, routes,
           spent / (MATCHES / 16), (unsigned long long)found);
    headers_set(&h, HDR_authority, SV("service-7.example.com"));
    headers_set(&h, HDR_path, SV("/api/v1/resource-100/item/42?q=1"));
    double t2 = now_ms();
    for (unsigned i = 0; i < MATCHES; i++) {
        struct route_match_input in = {.headers = &h, .random = i, .scratch = &scratch};
        const struct vhost *v;
        enum route_miss why;
        found += route_table_match(t, &in, &v, &why) != NULL;
    }
    printf("match_%ux%u_same_ns %.0f\n", vhosts, routes, (now_ms() - t2) * 1e6 / MATCHES);
    shared_unref(&t->shared);
    arena_fini(&scratch);
    buf_fini(&b);
}

int main(int argc, char **argv) {
    fake_compile_init(&f, NULL);
    bool ok = bench_compile();
    bench_match(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 5000,
                argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 200);
    printf("route_entry_bytes %zu\n", sizeof(struct route_entry));
    fake_compile_fini(&f);
    return ok ? 0 : 1;
}
