/* internal_upstream: which metadata a connection brings along, and configurations that are refused.
 * (Connections: integration and parity.) */
#include "protos/gen/transport_internal_upstream.pb-c.h"
#include "proxy/api/passthrough.h"
#include "proxy/net/transport.h"
#include "proxy/observe/metadata.h"
#include "tests/support/test_compile.h"
#include "tests/support/unit.h"

extern const struct transport_socket_type internal_upstream_transport_socket;
extern const struct stats_group internal_upstream_stats_group;
#define TYPE "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport"

static bool is_inner_good;
bool compile_inner_transport_socket(struct compile_ctx *ctx, const void *msg,
                                    const struct transport_socket_type **type,
                                    const void **config) {
    (void)msg;
    *type = &transport_raw_type;
    *config = transport_raw_type.compile(ctx, NULL);
    return is_inner_good || diag_error(ctx->diag, "transport_socket: bad");
}

static void *compile(const char *text) {
    f.ctx.stat_prefix = SV("cluster.c.");
    return internal_upstream_transport_socket.compile(&f.ctx, fake_msg(&f, TYPE, text));
}

#define FROM(kind, name) "passthrough_metadata { kind { " kind " {} } name: '" name "' } "

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *error;
        bool is_inner_bad;
    } rows[] = {
        {FROM("request", "a"), "passthrough_metadata[0].kind: metadata type is not supported", 0},
        {FROM("host", "a") FROM("route", "a"), "passthrough_metadata[1].kind: metadata type", 0},
        {"passthrough_metadata { kind { } name: 'a' }", "passthrough_metadata[0].kind: metadata",
         0},
        {FROM("host", "a"), "transport_socket: bad", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        is_inner_good = !rows[i].is_inner_bad;
        assert_row(compile(rows[i].text) == NULL, i);
        assert_row(strstr(diag_text(f.ctx.diag).p, rows[i].error) != NULL, i);
        diag_reset(f.ctx.diag);
    }
}

static void too_many(void **state) {
    (void)state;
    TransportInternalUpstream__InternalUpstreamTransport m =
        TRANSPORT_INTERNAL_UPSTREAM__INTERNAL_UPSTREAM_TRANSPORT__INIT;
    is_inner_good = true;
    m.n_passthrough_metadata = KV_NAMESPACES_MAX + 1;
    assert_null(internal_upstream_transport_socket.compile(&f.ctx, &m));
    assert_sv_is(diag_text(f.ctx.diag), "passthrough_metadata: more than 256 sources");
}

static struct kv_metadata *metadata(const char *ns, const char *key, const char *value) {
    struct kv_metadata *m = kv_metadata_new(&f.arena);
    struct kv_value v = kv_string(sv_cstr(value));
    assert_true(kv_metadata_set(m, sv_cstr(ns), sv_cstr(key), &v));
    return m;
}

static void passed(void **state) {
    (void)state;
    static const struct {
        const char *sources;
        bool has_host, has_cluster;
        const char *a; /* JSON of the namespace; NULL: nothing came along */
        uint64_t missing;
    } rows[] = {
        {"", true, true, NULL, 0},
        {FROM("host", "a"), false, true, NULL, 1},
        {FROM("host", "other"), true, true, NULL, 1},
        {FROM("cluster", "a"), true, false, NULL, 1},
        {FROM("host", "a"), true, true, "{\"h\":\"host\"}", 0},
        {FROM("cluster", "a"), true, true, "{\"c\":\"cluster\"}", 0},
        {FROM("cluster", "a") FROM("host", "a"), true, true, "{\"h\":\"host\"}", 0},
        {FROM("host", "a") FROM("cluster", "a"), true, true, "{\"c\":\"cluster\"}", 0},
        {FROM("cluster", "a") FROM("host", "a"), false, true, "{\"c\":\"cluster\"}", 1},
    };
    struct addr to;
    uint64_t missing = 0;
    struct stats_scope *counted = stats_scope_get(f.ctx.stats, &internal_upstream_stats_group,
                                                  SV("cluster.c.internal_upstream."));
    is_inner_good = true;
    assert_true(addr_set_internal(&to, SV("l"), SV("id"), &f.arena));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct transport_factory *t =
            internal_upstream_transport_socket.make(compile(rows[i].sources), NULL, &f.diag);
        struct passthrough *p = passthrough_new(&to);
        const struct passthrough_source from = {
            .host = rows[i].has_host ? metadata("a", "h", "host") : NULL,
            .cluster = rows[i].has_cluster ? metadata("a", "c", "cluster") : NULL};
        struct buf BUF_AUTO json;
        buf_init(&json);
        t->ops->passthrough(t, &from, p);
        assert_row((p->metadata != NULL) == (rows[i].a != NULL), i);
        if (p->metadata) {
            kv_write_json(kv_metadata_namespace(p->metadata, SV("a")), &json);
            assert_sv_is(buf_pullup(&json, buf_len(&json)), rows[i].a);
        }
        missing += rows[i].missing;
        assert_row(stats_scope_value(counted, 0) == missing, i);
        shared_unref(&p->shared);
        shared_unref(&t->shared);
    }
    stats_scope_unref(counted);
}

/* On the wire it is what is inside, which alone tells pools apart. */
static void is_what_is_inside(void **state) {
    (void)state;
    is_inner_good = true;
    struct transport_factory *t =
        internal_upstream_transport_socket.make(compile(""), NULL, &f.diag);
    struct transport *made = t->ops->create(t, NULL);
    struct buf BUF_AUTO key;
    buf_init(&key);
    assert_string_equal(made->ops->name, "raw_buffer");
    assert_false(t->ops->is_secure);
    t->ops->hash_key(t, &(struct transport_options){.server_name = SV("x")}, &key);
    assert_true(buf_empty(&key));
    made->ops->destroy(made);
    shared_unref(&t->shared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused, start_with_stats, end),
        cmocka_unit_test_setup_teardown(too_many, start_with_stats, end),
        cmocka_unit_test_setup_teardown(passed, start_with_stats, end),
        cmocka_unit_test_setup_teardown(is_what_is_inside, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
