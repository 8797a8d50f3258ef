/* Hostile PROXY headers, required and optional, with all TLVs passed on. */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/listener_proxy_protocol.pb-c.h"
#include "tests/support/fuzz_listener_filter.h"

extern const struct listener_filter_type proxy_protocol_listener_filter;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fuzz_filter f[2];
    for (int i = 0; i < 2; i++) {
        if (!f[i].config) {
            Core__ProxyProtocolPassThroughTLVs all = CORE__PROXY_PROTOCOL_PASS_THROUGH_TLVS__INIT;
            ListenerProxyProtocol__ProxyProtocol m = LISTENER_PROXY_PROTOCOL__PROXY_PROTOCOL__INIT;
            m.pass_through_tlvs = &all;
            m.allow_requests_without_proxy_protocol = i;
            fuzz_filter_open(&f[i], &proxy_protocol_listener_filter, &m);
        }
        fuzz_filter_run(&f[i], data, size);
    }
    return 0;
}
