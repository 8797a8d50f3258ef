/* The preface that proxies of a mesh send each other first: any bytes, in pieces. What is no
 * preface reaches the application untouched, and pieces make no difference.
 * Input: one byte for the size of pieces, then what the peer sends. */
/* link: -lcmocka */
#include "filters/common/istio_peer.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "proxy/base/mem.h"
#include "tests/support/test_compile.h"

extern const struct network_filter_type istio_metadata_exchange_network_filter;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* --- the connection that is not there --- */

static struct {
    struct loop loop;
    struct arena arena;
    struct stream_info si;
    size_t written;
} peer;

struct loop *worker_loop(struct worker *w) {
    (void)w;
    return &peer.loop;
}
sv conn_alpn(const struct conn *c) {
    (void)c;
    return SV("istio-peer-exchange");
}
struct arena *net_arena(const struct network_filter *nf) {
    (void)nf;
    return &peer.arena;
}
struct stream_info *net_stream_info(const struct network_filter *nf) {
    (void)nf;
    return &peer.si;
}
struct worker *net_worker(const struct network_filter *nf) {
    (void)nf;
    return NULL;
}
void net_write(struct network_filter *nf, struct buf *data, bool end_stream) {
    (void)nf, (void)end_stream;
    peer.written += buf_len(data);
    buf_clear(data);
}
void conn_write(struct conn *c, struct buf *data, bool end_stream) {
    (void)c, (void)data, (void)end_stream;
    CHECK(false); /* of upstreams only */
}
void conn_set_gate(struct conn *c, struct conn_gate *g) {
    (void)c, (void)g;
    CHECK(false);
}

/* --- one conversation --- */

struct outcome {
    bool is_done, has_peer;
    sv rest; /* for the application */
};

static struct outcome run(const void *config, sv bytes, size_t piece, struct arena *kept) {
    const struct network_filter_type *t = &istio_metadata_exchange_network_filter;
    struct network_filter *x = xcalloc(1, t->instance_size);
    struct outcome out = {0};
    struct buf data;
    arena_init(&peer.arena, 0);
    peer.si = (struct stream_info){.arena = &peer.arena};
    peer.written = 0;
    *x = (struct network_filter){.type = t, .config = config};
    buf_init(&data);
    do {
        sv part = sv_sub(bytes, 0, piece);
        bytes = sv_skip(bytes, part.n);
        buf_append_sv(&data, part);
        out.is_done = t->on_data(x, &data, bytes.n == 0) == NET_CONTINUE;
    } while (bytes.n);
    CHECK(out.is_done && peer.written);
    out.has_peer = istio_peer_of(peer.si.filter_state, true) != NULL;
    CHECK(out.has_peer != (filter_state_get(peer.si.filter_state, SV(ISTIO_NO_PEER)) != NULL));
    out.rest = arena_sv(kept, buf_pullup(&data, buf_len(&data)));
    buf_fini(&data);
    arena_fini(&peer.arena);
    xfree(x);
    return out;
}

static const void *compile(void) {
    start_with_stats(NULL);
    fake.node = fake_msg(&f, "envoy.config.core.v3.Node", "id: 'me'");
    return istio_metadata_exchange_network_filter.compile(
        &f.ctx, fake_msg(&f, "envoy.tcp.metadataexchange.config.MetadataExchange",
                         "protocol: 'istio-peer-exchange' additional_labels: 'a'"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const void *config;
    if (!config) {
        config = compile();
        CHECK(config);
    }
    if (n < 2) {
        return 0;
    }
    sv bytes = sv_from(data + 1, n - 1);
    struct arena kept;
    arena_init(&kept, 0);
    struct outcome pieces = run(config, bytes, data[0] % 32 + 1u, &kept);
    struct outcome whole = run(config, bytes, SIZE_MAX, &kept);
    CHECK(pieces.has_peer == whole.has_peer && sv_eq(pieces.rest, whole.rest));
    CHECK(bytes.n - whole.rest.n <= ISTIO_PEER_WIRE_MAX + 8 && sv_ends(bytes, whole.rest));
    arena_fini(&kept);
    chunk_cache_trim();
    return 0;
}
