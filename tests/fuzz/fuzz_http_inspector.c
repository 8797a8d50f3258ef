/* Hostile first bytes on a listener with http_inspector. */
#include "protos/gen/listener_http_inspector.pb-c.h"
#include "tests/support/fuzz_listener_filter.h"

extern const struct listener_filter_type http_inspector_listener_filter;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct fuzz_filter f;
    if (!f.config) {
        const ListenerHttpInspector__HttpInspector m =
            LISTENER_HTTP_INSPECTOR__HTTP_INSPECTOR__INIT;
        fuzz_filter_open(&f, &http_inspector_listener_filter, &m);
    }
    fuzz_filter_run(&f, data, size);
    return 0;
}
