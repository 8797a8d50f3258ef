/* Workload metadata of mesh peers: from node metadata, baggage and endpoints, and back. */
#include "filters/common/istio_peer.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/base/base64.h"
#include "tests/support/test_compile.h"

#define STRUCT "google.protobuf.Struct"
#define FIELD(key, value) "fields { key: '" key "' value { string_value: '" value "' } }"
#define LABELS(labels) "fields { key: 'LABELS' value { struct_value { " labels " } } }"
#define METADATA                                                                \
    FIELD("NAME", "web-1")                                                      \
    FIELD("NAMESPACE", "shop")                                                  \
    FIELD("WORKLOAD_NAME", "web")                                               \
    FIELD("CLUSTER_ID", "c1")                                                   \
    FIELD("OWNER", "kubernetes://apis/apps/v1/namespaces/shop/deployments/web") \
    LABELS(FIELD("app", "web") FIELD("version", "v2") FIELD("team", "blue")     \
               FIELD("service.istio.io/canonical-name", "web-svc")              \
                   FIELD("service.istio.io/canonical-revision", "r3"))

static sv wire_of(const char *text) { return proto_pack(fake_msg(&f, STRUCT, text), &f.arena); }
static const char *text_of(const struct kv_value *peer) {
    return arena_cstr(&f.arena, istio_peer_text(peer, &f.arena));
}

static void test_metadata(void **state) {
    (void)state;
    const sv team = SV("team");
    struct kv_value peer;
    assert_true(istio_peer_from_wire(wire_of(METADATA), NULL, 0, &f.arena, &peer));
    assert_string_equal(text_of(&peer), "app=web,cluster=c1,name=web-1,namespace=shop,revision=r3,"
                                        "service=web-svc,type=deployment,version=v2,workload=web");
    assert_null(kv_get(&peer, SV("labels")));
    assert_true(istio_peer_from_wire(wire_of(METADATA), &team, 1, &f.arena, &peer));
    assert_true(sv_is(istio_peer_field(kv_get(&peer, SV("labels")), team), "blue"));
}

static void test_workload(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"",
         "identity=spiffe://cluster.local/ns/default/sa/default,namespace=default,type=deployment"},
        {"name: 'web-1' namespace: 'shop' workload_name: 'web' cluster_id: 'c1' canonical_name: "
         "'s' "
         "canonical_revision: 'r' workload_type: POD trust_domain: 'td' service_account: 'sa' uid: "
         "'u'",
         "app=s,cluster=c1,identity=spiffe://td/ns/shop/sa/sa,name=web-1,namespace=shop,revision=r,"
         "service=s,type=pod,version=r,workload=web"},
        {"workload_type: JOB", "identity=spiffe://cluster.local/ns/default/sa/default,"
                               "namespace=default,type=job"},
        {"workload_type: CRONJOB", "identity=spiffe://cluster.local/ns/default/sa/default,"
                                   "namespace=default,type=cronjob"},
    };
    struct kv_value peer;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        void *m = fake_msg(&f, "istio.workload.Workload", rows[i].text);
        assert_true(istio_peer_from_workload(proto_pack(m, &f.arena), &f.arena, &peer));
        assert_string_equal(text_of(&peer), rows[i].want);
    }
    assert_false(istio_peer_from_workload(SV("\x0a\xff"), &f.arena, &peer));
}

static void test_odd_metadata(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ""},
        {"fields { key: 'NAME' value { number_value: 1 } }", ""},
        {"fields { key: 'LABELS' value { string_value: 'app' } }", ""},
        {FIELD("OWNER", "x"), ""},
        {FIELD("WORKLOAD_NAME", "w") FIELD("OWNER", "a/cronjobs/w"), "type=cronjob,workload=w"},
        {FIELD("WORKLOAD_NAME", "w") FIELD("OWNER", "a/tribes/w"), "workload=w"},
        {FIELD("WORKLOAD_NAME", "longer-than-owner") FIELD("OWNER", "a/pods/w"),
         "workload=longer-than-owner"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kv_value peer;
        assert_true(istio_peer_from_wire(wire_of(rows[i].text), NULL, 0, &f.arena, &peer));
        assert_string_equal(text_of(&peer), rows[i].want);
    }
    struct kv_value peer;
    char *big = arena_zalloc(&f.arena, ISTIO_PEER_WIRE_MAX + 1);
    assert_false(istio_peer_from_wire(SV("\x0a\xff"), NULL, 0, &f.arena, &peer));
    assert_false(
        istio_peer_from_wire(sv_from(big, ISTIO_PEER_WIRE_MAX + 1), NULL, 0, &f.arena, &peer));
}

static void test_baggage(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"k8s.deployment.name=web,k8s.namespace.name=shop,k8s.cluster.name=c1,service.name=s,"
         "service.version=r",
         "app=s,cluster=c1,namespace=shop,revision=r,service=s,type=deployment,version=r,"
         "workload=web"},
        {" app.name=a , app.version=2", "app=a,version=2"},
        {"k8s.tribe.name=x,,=,foo,k8s.pod.name", ""},
        {"k8s.pod.namex=y", ""},
        {"", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kv_value peer = istio_peer_from_baggage(sv_cstr(rows[i].text), &f.arena);
        assert_string_equal(text_of(&peer), rows[i].want);
    }
}

static void test_endpoint(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"web;shop;svc;r1;c1", "cluster=c1,namespace=shop,revision=r1,service=svc,workload=web"},
        {"web;shop;;;", "namespace=shop,workload=web"},
        {";;;;c", "cluster=c"},
        {"web;shop;svc;r1", NULL},
        {"", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct kv_value peer;
        bool ok = istio_peer_from_endpoint(sv_cstr(rows[i].text), &f.arena, &peer);
        assert_int_equal(ok, rows[i].want != NULL);
        if (ok) {
            assert_string_equal(text_of(&peer), rows[i].want);
        }
    }
}

static void test_node(void **state) {
    (void)state;
    fake.node =
        fake_msg(&f, "envoy.config.core.v3.Node",
                 "id: 'sidecar~1' metadata { " METADATA FIELD("ISTIO_VERSION", "1.99") " }");
    const struct istio_node *n = istio_node(&f.ctx);
    assert_ptr_equal(n, istio_node(&f.ctx));
    assert_true(sv_is(n->id, "sidecar~1"));
    assert_true(sv_is(n->version, "1.99"));
    char bytes[2048];
    size_t len = base64_decode(n->header, BASE64_STANDARD, bytes);
    assert_true(len < sizeof(bytes));
    struct kv_value peer;
    assert_true(istio_peer_from_wire(sv_from(bytes, len), NULL, 0, &f.arena, &peer));
    assert_string_equal(text_of(&peer), text_of(&n->me));
    /* magic, length, an Any */
    assert_memory_equal(n->preface.p, "\x3d\x23\x04\x67\0\0", 6);
    assert_int_equal((unsigned char)n->preface.p[6] << 8 | (unsigned char)n->preface.p[7],
                     n->preface.n - 8);
    assert_non_null(
        PROTO_UNPACK(Pb__Any, pb__any__descriptor, sv_skip(n->preface, 8), &f.arena, &f.diag));
}

static void test_no_node(void **state) {
    (void)state;
    const struct istio_node *n = istio_node(&f.ctx);
    assert_int_equal(n->id.n, 0);
    assert_int_equal(n->me.fields.n, 0);
    assert_true(n->preface.n > 8);
}

static void test_filter_state(void **state) {
    (void)state;
    struct filter_state *fs = filter_state_new(&f.arena, NULL);
    struct kv_value first = istio_peer_from_baggage(SV("app.name=a"), &f.arena);
    struct kv_value second = istio_peer_from_baggage(SV("app.name=b"), &f.arena);
    assert_null(istio_peer_of(NULL, true));
    assert_null(istio_peer_of(fs, true));
    istio_peer_publish(fs, true, &first, SV("one"));
    istio_peer_publish(fs, true, &second, SV("two")); /* the first stays */
    assert_ptr_equal(istio_peer_of(fs, true), &first);
    assert_null(istio_peer_of(fs, false));
    assert_true(sv_is(filter_state_text(fs, SV("downstream_peer_obj")), "one"));
    struct filter_state *copy = filter_state_dup(fs, &f.arena);
    assert_true(sv_is(istio_peer_field(istio_peer_of(copy, true), SV("app")), "a"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_metadata, start, end),
        cmocka_unit_test_setup_teardown(test_workload, start, end),
        cmocka_unit_test_setup_teardown(test_odd_metadata, start, end),
        cmocka_unit_test_setup_teardown(test_baggage, start, end),
        cmocka_unit_test_setup_teardown(test_endpoint, start, end),
        cmocka_unit_test_setup_teardown(test_node, start, end),
        cmocka_unit_test_setup_teardown(test_no_node, start, end),
        cmocka_unit_test_setup_teardown(test_filter_state, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
