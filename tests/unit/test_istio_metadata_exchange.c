/* istio.metadata_exchange: what is read from whom, told to whom and taken off, in headers and at
 * the front of TCP connections both ways. */
#include <sys/socket.h>

#include "filters/common/istio_peer.h"
#include "proxy/api/worker.h"
#include "proxy/base/base64.h"
#include "proxy/net/filter_chain.h"
#include "proxy/net/transport.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type istio_metadata_exchange_http_filter;
extern const struct network_filter_type istio_metadata_exchange_network_filter;

#define HTTP_CONFIG "io.istio.http.peer_metadata.Config"
#define TCP_CONFIG "envoy.tcp.metadataexchange.config.MetadataExchange"
#define SERVER                                                                         \
    "downstream_discovery { istio_headers { } } downstream_discovery { baggage { } } " \
    "downstream_propagation { istio_headers { } }"
#define CLIENT                                                                                \
    "upstream_discovery { istio_headers { } } upstream_discovery { workload_discovery { } } " \
    "upstream_propagation { istio_headers { skip_external_clusters: true } }"

static struct loop loop;
struct loop *worker_loop(struct worker *w) {
    (void)w;
    return &loop;
}

/* What the control plane tells of the one workload that it knows; NULL: of none. */
static const char *told;
static uint64_t told_hash[2];
bool worker_workload(const struct worker *w, const struct addr *a, struct workload_told *out) {
    (void)w;
    (void)a;
    if (told) {
        void *m = fake_msg(&f, "istio.workload.Workload", told);
        *out = (struct workload_told){
            .uid = SV("c1//Pod/shop/known-1"), .wire = proto_pack(m, &f.arena), .hash = told_hash};
    }
    return told != NULL;
}

static int begin(void **state) {
    told = NULL;
    start_with_stats(state);
    fake.node = fake_msg(&f, "envoy.config.core.v3.Node",
                         "id: 'me' metadata { fields { key: 'WORKLOAD_NAME' value { string_value: "
                         "'mine' } } }");
    return 0;
}

static const void *http_config(const char *text) {
    const void *c =
        istio_metadata_exchange_http_filter.compile(&f.ctx, fake_msg(&f, HTTP_CONFIG, text));
    assert_non_null(c);
    return c;
}

static const char *peer_in(const struct stream *s, bool is_downstream) {
    const struct kv_value *p = istio_peer_of(s->info.filter_state, is_downstream);
    return arena_cstr(&f.arena, istio_peer_field(p, SV("workload")));
}

static const char *web_header(void) {
    BUF_AUTO struct buf b = {0};
    void *m = fake_msg(&f, "google.protobuf.Struct",
                       "fields { key: 'WORKLOAD_NAME' value { string_value: 'web' } }");
    base64_encode(&b, proto_pack(m, &f.arena), BASE64_STANDARD);
    char *text = buf_dup_str(&b);
    const char *out = arena_cstr(&f.arena, sv_cstr(text));
    xfree(text);
    return out;
}

static void test_server(void **state) {
    (void)state;
    const void *c = http_config(SERVER);
    const char *web = web_header();
    static const struct {
        const char *id, *header, *more, *found;
        bool tells_id, tells_header;
    } rows[] = {
        {"peer", "WEB", "", "web", true, true},
        {"peer", "WEB", "", "web", true, true}, /* the one known by its id */
        {NULL, "WEB", "", "web", false, true},
        {"peer", NULL, "", "", true, false},
        {NULL, NULL, "", "", false, false},
        {"peer", "not base64!", "", "", true, true},
        {"peer", "AAAA", "", "", true, true},
        {"x", "not base64!", "\nbaggage: k8s.pod.name=bag", "bag", true, true},
        {NULL, NULL, "\nbaggage: k8s.pod.name=bag", "bag", false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        fake_stream_start(&s, &istio_metadata_exchange_http_filter, c, "h.com", "/", NULL);
        if (rows[i].id) {
            headers_add_copy(&s.request, SV(ISTIO_PEER_ID_HEADER), sv_cstr(rows[i].id));
        }
        if (rows[i].header) {
            bool is_web = strcmp(rows[i].header, "WEB") == 0;
            headers_add_copy(&s.request, SV(ISTIO_PEER_HEADER),
                             sv_cstr(is_web ? web : rows[i].header));
        }
        if (*rows[i].more) {
            headers_add_copy(&s.request, SV("baggage"), SV("k8s.pod.name=bag"));
        }
        fake_stream_decode(&s, true);
        assert_string_equal(peer_in(&s, true), rows[i].found);
        assert_null(headers_get_name(&s.request, SV(ISTIO_PEER_HEADER)).p);
        assert_null(headers_get_name(&s.request, SV(ISTIO_PEER_ID_HEADER)).p);
        fake_stream_respond(&s, 200, "", true);
        assert_int_equal(headers_get_name(&s.response, SV(ISTIO_PEER_ID_HEADER)).p != NULL,
                         rows[i].tells_id);
        assert_int_equal(headers_get_name(&s.response, SV(ISTIO_PEER_HEADER)).p != NULL,
                         rows[i].tells_header);
        fake_stream_end(&s);
    }
}

static void test_client(void **state) {
    (void)state;
    const void *c = http_config(CLIENT);
    static const struct {
        const char *cluster;
        bool is_external, tells;
    } rows[] = {{"outbound|80||x", false, true},
                {"outbound|80||x", true, false},
                {"PassthroughCluster", false, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        fake_stream_start(&s, &istio_metadata_exchange_http_filter, c, "h.com", "/",
                          "x-envoy-peer-metadata-id: forged");
        struct kv_metadata *m = kv_metadata_new(&s.arena);
        struct kv_value external = kv_bool(rows[i].is_external);
        kv_metadata_set(m, SV("istio"), SV("external"), &external);
        s.info.cluster_metadata = m;
        s.cluster = sv_cstr(rows[i].cluster);
        fake_stream_decode(&s, true);
        sv id = headers_get_name(&s.request, SV(ISTIO_PEER_ID_HEADER));
        assert_int_equal(sv_is(id, "me"), rows[i].tells);
        fake_stream_respond(&s, 200, "", false);
        assert_string_equal(peer_in(&s, false), "");
        struct headers h;
        headers_init(&h, &s.arena);
        headers_add_copy(&h, SV(ISTIO_PEER_HEADER), sv_cstr(web_header()));
        fake_stream_encode(&s, &h, true);
        assert_string_equal(peer_in(&s, false), "web");
        assert_null(headers_get_name(&s.response, SV(ISTIO_PEER_HEADER)).p);
        fake_stream_end(&s);
    }
}

static void test_many_peers(void **state) {
    (void)state;
    const void *c = http_config(SERVER);
    const char *web = web_header();
    struct stream kept; /* refers to the first while the table is emptied */
    for (unsigned i = 0; i < 1100; i++) {
        struct stream other, *s = i ? &other : &kept;
        fake_stream_start(s, &istio_metadata_exchange_http_filter, c, "h.com", "/", NULL);
        headers_add_copy(&s->request, SV(ISTIO_PEER_ID_HEADER),
                         arena_printf(&s->arena, "peer%u", i));
        headers_add_copy(&s->request, SV(ISTIO_PEER_HEADER), sv_cstr(web));
        fake_stream_decode(s, true);
        assert_string_equal(peer_in(s, true), "web");
        if (i) {
            fake_stream_end(s);
        }
    }
    assert_string_equal(peer_in(&kept, true), "web");
    fake_stream_end(&kept);
}

/* --- whom the control plane knows --- */

static const char *known_client(const void *config, const char *more) {
    struct stream s;
    fake_stream_start(&s, &istio_metadata_exchange_http_filter, config, "h.com", "/", more);
    fake_stream_decode(&s, true);
    const char *found = peer_in(&s, true);
    fake_stream_end(&s);
    return found;
}

static void test_workloads(void **state) {
    (void)state;
    const void *c = http_config("downstream_discovery { istio_headers { } } "
                                "downstream_discovery { workload_discovery { } }");
    assert_string_equal(known_client(c, NULL), "");
    told = "workload_name: 'known' uid: 'u'";
    told_hash[0] = 1;
    assert_string_equal(known_client(c, NULL), "known");
    told = "workload_name: 'changed' uid: 'u'";
    assert_string_equal(known_client(c, NULL), "known"); /* remembered by the hash */
    told_hash[0] = 2;
    assert_string_equal(known_client(c, NULL), "changed");
    const char *web =
        arena_cstr(&f.arena, arena_printf(&f.arena, ISTIO_PEER_HEADER ": %s", web_header()));
    assert_string_equal(known_client(c, web), "web"); /* it tells of itself */
    told = NULL;
    assert_string_equal(known_client(c, NULL), "");
}

static void test_upstream_workload(void **state) {
    (void)state;
    const void *c = http_config(CLIENT);
    struct stream s;
    fake_stream_start(&s, &istio_metadata_exchange_http_filter, c, "h.com", "/", NULL);
    fake_stream_decode(&s, true);
    told = "workload_name: 'known'";
    fake_stream_respond(&s, 200, "", true); /* of no host */
    assert_string_equal(peer_in(&s, false), "");
    fake_stream_end(&s);
}

/* --- TCP --- */

static const char *alpn;
static sv fake_protocol(const struct transport *t) {
    (void)t;
    return sv_cstr(alpn);
}
static struct transport_ops ops;
static struct transport *transport_new(void) {
    struct transport *t = transport_raw_new();
    ops = *t->ops;
    ops.protocol = fake_protocol;
    t->ops = &ops;
    return t;
}

static struct buf got; /* by the application */
static enum net_status sink_on_data(struct network_filter *sink, struct buf *data, bool end) {
    (void)sink;
    (void)end;
    buf_move(&got, data);
    return NET_STOP;
}
static const struct network_filter_type sink = {.name = "sink",
                                                .is_terminal = true,
                                                .instance_size = sizeof(struct network_filter),
                                                .on_data = sink_on_data};

static const void *tcp_config(void) {
    const void *c = istio_metadata_exchange_network_filter.compile(
        &f.ctx, fake_msg(&f, TCP_CONFIG, "protocol: 'istio-peer-exchange' enable_discovery: true"));
    assert_non_null(c);
    return c;
}
static const struct istio_node *node(void) { return istio_node(&f.ctx); }

static void feed(int fd, sv bytes) {
    assert_int_equal(write(fd, bytes.p, bytes.n), bytes.n);
    loop_run_nowait(&loop);
    loop_run_nowait(&loop);
}
static void assert_got(const char *want) {
    char *text = buf_dup_str(&got);
    assert_string_equal(text, want);
    xfree(text);
    buf_clear(&got);
}
static void assert_received(int fd, sv want) {
    char bytes[2048];
    loop_run_nowait(&loop);
    ssize_t n = read(fd, bytes, sizeof(bytes));
    assert_int_equal(n > 0 ? (size_t)n : 0, want.n);
    assert_memory_equal(bytes, want.p, want.n);
}

static void run_downstream(const char *with_alpn, sv sent, unsigned pieces, const char *want,
                           bool knows_peer) {
    int fds[2];
    const void *config = tcp_config();
    struct network_filter_slot slots[] = {
        {.type = &istio_metadata_exchange_network_filter, .config = config, .slot = SLOT_NONE},
        {.type = &sink, .slot = SLOT_NONE}};
    struct net_chain_config chain_config = {.filters = slots, .n = 2};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    alpn = with_alpn;
    struct accept_info info = {.arena = &f.arena, .fd = fds[0]};
    struct net_chain_owner o = {.loop = &loop};
    struct net_chain *chain = net_chain_new(&o, &chain_config, transport_new(), fds[0], &info);
    chain->conn->half_close_enabled = true;
    net_chain_start(chain);
    size_t each = sent.n / pieces;
    for (unsigned i = 0; i < pieces; i++) {
        feed(fds[1], sv_sub(sent, i * each, i + 1 == pieces ? sent.n - i * each : each));
    }
    assert_got(want);
    if (*with_alpn) {
        assert_received(fds[1], node()->preface);
    }
    struct filter_state *fs = net_stream_info(chain->filters_[0])->filter_state;
    assert_int_equal(istio_peer_of(fs, true) != NULL, knows_peer);
    assert_int_equal(filter_state_get(fs, SV(ISTIO_NO_PEER)) != NULL, !knows_peer);
    net_chain_close(chain, CONN_CLOSE_NO_FLUSH, NULL);
    loop_run_nowait(&loop);
    close(fds[1]);
}

static void test_downstream(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 1), 0);
    sv with_hello = arena_printf(&f.arena, "%.*s", 0, "");
    BUF_AUTO struct buf b = {0};
    buf_append_sv(&b, node()->preface);
    buf_append_sv(&b, SV("hello"));
    with_hello = arena_sv(&f.arena, buf_pullup(&b, buf_len(&b)));
    run_downstream("istio-peer-exchange", with_hello, 1, "hello", true);
    run_downstream("istio-peer-exchange", with_hello, 7, "hello", true);
    run_downstream("istio-peer-exchange", SV("GET / HTTP/1.1\r\n"), 1, "GET / HTTP/1.1\r\n", false);
    run_downstream("istio-peer-exchange", SV("\x3d\x23\x04\x67\0\0\0\0rest"), 1, "\x3d\x23\x04\x67",
                   /* a length of none: what follows is the application's (text ends at NUL) */
                   false);
    run_downstream("istio-peer-exchange", SV("\x3d\x23\x04\x67\0\0\0\x02\xff\xff!"), 1, "\xff\xff!",
                   false);
    run_downstream("istio-peer-exchange", SV("\x3d\x23\x04\x67\x7f\xff\xff\xff!"), 1, "!", false);
    run_downstream("", SV("hello"), 1, "hello", false);
    told = "workload_name: 'known'";
    run_downstream("", SV("hello"), 1, "hello", true);
    run_downstream("istio-peer-exchange", SV("GET / HTTP/1.1\r\n"), 1, "GET / HTTP/1.1\r\n", true);
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
}

static void on_user_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    (void)c;
    (void)user;
    (void)end_stream;
    buf_move(&got, data);
}
static void on_user_event(struct conn *c, void *user, enum conn_event e) {
    (void)c;
    (void)user;
    (void)e;
}
static const struct conn_ops user_ops = {.on_data = on_user_data, .on_event = on_user_event};

static void run_upstream(const char *with_alpn, sv sent, unsigned pieces, const char *want,
                         bool knows_peer) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    alpn = with_alpn;
    struct conn *c = conn_new_accepted(&loop, fds[0], transport_new(), &user_ops, NULL);
    c->half_close_enabled = true;
    conn_start(c);
    istio_metadata_exchange_network_filter.on_upstream_ready(tcp_config(), c, NULL);
    if (*with_alpn) {
        assert_received(fds[1], node()->preface);
    } else {
        assert_int_equal(c->gate != NULL, knows_peer);
    }
    size_t each = sent.n / pieces;
    for (unsigned i = 0; i < pieces; i++) {
        feed(fds[1], sv_sub(sent, i * each, i + 1 == pieces ? sent.n - i * each : each));
    }
    feed(fds[1], SV("more"));
    assert_got(want);
    assert_int_equal(istio_peer_of(c->filter_state, false) != NULL, knows_peer);
    conn_close(c, CONN_CLOSE_NO_FLUSH, NULL);
    loop_run_nowait(&loop);
    close(fds[1]);
}

static void test_upstream(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 1), 0);
    run_upstream("istio-peer-exchange", node()->preface, 1, "more", true);
    run_upstream("istio-peer-exchange", node()->preface, 9, "more", true);
    run_upstream("istio-peer-exchange", SV("220 ready\r\n"), 1, "220 ready\r\nmore", false);
    run_upstream("", SV("220"), 1, "220more", false);
    told = "workload_name: 'known'";
    run_upstream("", SV("220"), 1, "220more", true);
    run_upstream("istio-peer-exchange", SV("220 ready\r\n"), 1, "220 ready\r\nmore", true);
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
}

int main(void) {
    buf_init(&got);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_server, begin, end),
        cmocka_unit_test_setup_teardown(test_client, begin, end),
        cmocka_unit_test_setup_teardown(test_many_peers, begin, end),
        cmocka_unit_test_setup_teardown(test_workloads, begin, end),
        cmocka_unit_test_setup_teardown(test_upstream_workload, begin, end),
        cmocka_unit_test_setup_teardown(test_downstream, begin, end),
        cmocka_unit_test_setup_teardown(test_upstream, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
