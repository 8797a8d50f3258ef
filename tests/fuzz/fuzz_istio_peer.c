/* What a peer of the mesh says of itself: metadata of a header or preface, baggage, an endpoint's
 * text. The first byte says which. */
#include "filters/common/istio_peer.h"
#include "proxy/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const fields[] = {"name",    "namespace", "workload", "type",    "cluster",
                                     "service", "revision",  "app",      "version", "identity"};

static void read_back(const struct kv_value *peer, struct arena *a) {
    size_t total = 0;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        total += istio_peer_field(peer, sv_cstr(fields[i])).n;
    }
    sv text = istio_peer_text(peer, a);
    CHECK(text.n == 0 || text.p != NULL);
    CHECK(total < SIZE_MAX / 2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const sv labels[] = {{"app", 3}, {"region", 6}};
    if (size < 1) {
        return 0;
    }
    struct arena a;
    arena_init(&a, 0);
    char *exact = xmemdup(data + 1, size - 1); /* so that any read past it is seen */
    sv bytes = sv_from(exact, size - 1);
    struct kv_value peer = {0};
    if (data[0] % 3 == 0) {
        if (istio_peer_from_wire(bytes, labels, ARRAY_LEN(labels), &a, &peer)) {
            read_back(&peer, &a);
        }
    } else if (data[0] % 3 == 1) {
        peer = istio_peer_from_baggage(bytes, &a);
        read_back(&peer, &a);
    } else if (istio_peer_from_endpoint(bytes, &a, &peer)) {
        read_back(&peer, &a);
    }
    arena_fini(&a);
    xfree(exact);
    chunk_cache_trim();
    return 0;
}
