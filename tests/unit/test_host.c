/* A host keeps all of what it was made of, past its spec; any other spec is another host; hosts of
 * one place share their locality. */
#include "proxy/upstream/host.h"

#include "proxy/observe/metadata.h"
#include "tests/support/unit.h"

#include <stdio.h>

static struct addr addr_of(const char *text) {
    struct addr a;
    assert_true(addr_parse_ip_port(sv_cstr(text), &a));
    return a;
}

static struct host_spec plain(void) { return (struct host_spec){.addr = addr_of("10.0.0.1:80")}; }

static const struct addr *one_more(const char *text) {
    static struct addr more;
    more = addr_of(text);
    return &more;
}

static const struct kv_metadata *labels; /* interned */

static int make_labels(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    struct kv_metadata *m = kv_metadata_new(&a);
    struct kv_value v = kv_string(SV("istio"));
    kv_metadata_set(m, SV("envoy.transport_socket_match"), SV("tlsMode"), &v);
    labels = kv_metadata_intern(m);
    arena_fini(&a);
    return 0;
}

static int drop_labels(void **state) {
    (void)state;
    kv_metadata_unref(labels);
    return 0;
}

static struct addr unix_addr(const char *path) {
    struct addr a;
    addr_set_path(&a, path);
    return a;
}

/* Row i: everything set, and of it one thing otherwise; the last row is as it was. */
#define CHANGES 15
static struct host_spec changed(unsigned i) {
    struct host_spec s = {.addr = addr_of(i == 0 ? "10.0.0.2:80" : "10.0.0.1:80"),
                          .additional = one_more(i == 1 ? "10.0.0.1:81" : "10.0.0.1:82"),
                          .additional_n = i == 2 ? 0 : 1,
                          .hostname = i == 3 ? SV("other") : SV("host"),
                          .health_check_hostname = i == 4 ? SV_NULL : SV("checked"),
                          .health_check_addr = addr_of(i == 5 ? "10.9.9.9:2" : "10.9.9.9:1"),
                          .health_check_disabled = i == 6,
                          .is_canary = i == 7,
                          .locality = {i == 8 ? SV("r2") : SV("r"), i == 9 ? SV("") : SV("z"),
                                       i == 10 ? SV("szz") : SV("sz")},
                          .hash_key = i == 11 ? SV("K") : SV("k"),
                          .metadata = i == 12 ? NULL : labels};
    if (i == 13) {
        s.health_check_addr = (struct addr){0};
    }
    return i == 14 ? plain() : s;
}

static void any_change_is_another_host(void **state) {
    (void)state;
    struct host_spec spec = changed(CHANGES);
    struct host *h = host_new(&spec, 5);
    spec = changed(CHANGES);
    assert_true(host_is(h, &spec));
    for (unsigned i = 0; i < CHANGES; i++) {
        spec = changed(i);
        assert_row(!host_is(h, &spec), i);
        struct host *other = host_new(&spec, 5);
        assert_row(host_is(other, &spec), i);
        spec = changed(CHANGES);
        assert_row(!host_is(other, &spec), i);
        assert_row(other->id != h->id, i);
        shared_unref(&other->shared);
    }
    shared_unref(&h->shared);
}

static void keeps_copies(void **state) {
    (void)state;
    char name[] = "name", zone[] = "zone", path[] = "/tmp/a.sock", key[] = "key";
    struct addr more = addr_of("10.0.0.7:7");
    struct host_spec spec = {.addr = unix_addr(path),
                             .additional = &more,
                             .additional_n = 1,
                             .hostname = sv_cstr(name),
                             .locality = {.zone = sv_cstr(zone)},
                             .health_check_addr = unix_addr(path),
                             .hash_key = sv_cstr(key)};
    struct host *h = host_new(&spec, 5);
    memset(name, 'x', sizeof(name) - 1);
    memset(zone, 'x', sizeof(zone) - 1);
    memset(path, 'x', sizeof(path) - 1);
    memset(key, 'x', sizeof(key) - 1);
    memset(&more, 0, sizeof(more));
    assert_sv_is(h->address_text, "/tmp/a.sock");
    assert_string_equal(h->addr.path, "/tmp/a.sock");
    assert_sv_is(h->hostname, "name");
    assert_sv_is(h->locality->zone, "zone");
    assert_sv_is(h->locality->region, "");
    assert_sv_is(h->extra->hash_key, "key");
    assert_string_equal(h->extra->health_check_addr.path, "/tmp/a.sock");
    assert_int_equal(h->extra->additional[0].port, 7);
    assert_int_equal(h->healthy_since_us, 5);
    shared_unref(&h->shared);
}

static void shared_parts(void **state) {
    (void)state;
    struct host_spec spec = plain();
    struct host *a = host_new(&spec, 1), *b = host_new(&spec, 1);
    assert_ptr_equal(a->extra, b->extra);
    assert_ptr_equal(a->locality, b->locality);
    assert_sv_is(a->locality->sub_zone, "");
    /* not the same cut in other places */
    struct host *in[3];
    for (unsigned i = 0; i < 3; i++) {
        spec.locality =
            (struct locality){i == 2 ? SV("a") : SV("ab"), i == 2 ? SV("bc") : SV("c"), SV("d")};
        in[i] = host_new(&spec, 1);
    }
    assert_ptr_equal(in[0]->locality, in[1]->locality);
    assert_ptr_not_equal(in[0]->locality, in[2]->locality);
    shared_unref(&in[0]->shared);
    assert_sv_is(in[1]->locality->region, "ab");
    assert_sv_is(in[1]->locality->zone, "c");
    shared_unref(&in[1]->shared);
    shared_unref(&in[2]->shared);
    shared_unref(&a->shared);
    shared_unref(&b->shared);
}

/* Of these there are as many as a mesh has endpoints. */
static void stays_small(void **state) {
    (void)state;
    assert_true(sizeof(struct host) <= 224);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_change_is_another_host),
        cmocka_unit_test(keeps_copies),
        cmocka_unit_test(shared_parts),
        cmocka_unit_test(stays_small),
    };
    return cmocka_run_group_tests(tests, make_labels, drop_labels);
}
