/* What a request says about the TLS connection it wants: server name and subject names by its host
 * header.
 * Threads: worker-local. Spec: UpstreamHttpProtocolOptions.auto_sni, auto_san_validation,
 * override_auto_sni_header. */
#include "proxy/http/path.h"
#include "proxy/upstream/cluster.h"

bool cluster_auto_sni(const struct cluster_config *c, const struct headers *request,
                      struct request_transport *out) {
    if (!c->auto_sni && !c->auto_san_validation) {
        return false;
    }
    sv host = c->auto_sni_header.n ? headers_get_name(request, c->auto_sni_header)
                                   : headers_get(request, HDR_authority);
    out->sni = host_without_port(host);
    if (c->auto_sni) {
        out->options.server_name = out->sni;
    }
    if (c->auto_san_validation) {
        out->options.san_override = &out->sni;
        out->options.san_override_n = 1;
    }
    return true;
}
