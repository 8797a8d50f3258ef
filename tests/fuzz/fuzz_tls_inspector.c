/* Hostile first bytes on a listener with tls_inspector, fingerprints on. */
#include "protos/gen/listener_tls_inspector.pb-c.h"
#include "tests/support/fuzz_listener_filter.h"

extern const struct listener_filter_type tls_inspector_listener_filter;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fuzz_filter f;
    if (!f.config) {
        Pb__BoolValue on = PB__BOOL_VALUE__INIT;
        ListenerTlsInspector__TlsInspector m = LISTENER_TLS_INSPECTOR__TLS_INSPECTOR__INIT;
        on.value = 1;
        m.enable_ja3_fingerprinting = m.enable_ja4_fingerprinting = &on;
        fuzz_filter_open(&f, &tls_inspector_listener_filter, &m);
    }
    fuzz_filter_run(&f, data, size);
    return 0;
}
