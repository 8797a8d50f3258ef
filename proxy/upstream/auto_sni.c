/* What a request says about the TLS connection it wants: server name and subject names by its host
 * header.
 * Threads: worker-local. Spec: UpstreamHttpProtocolOptions.auto_sni, auto_san_validation,
 * override_auto_sni_header. */
#include "proxy/http/path.h"
#include "proxy/net/addr.h"
#include "proxy/upstream/cluster.h"

/* Is it an address? Brackets of one are taken off. */
static bool strip_ip(sv *host) {
    struct addr unused;
    bool bracketed = host->n > 2 && host->p[0] == '[' && host->p[host->n - 1] == ']';
    sv bare = bracketed ? sv_sub(*host, 1, host->n - 2) : *host;
    if (!addr_parse_ip(bare, 0, &unused)) {
        return false;
    }
    *host = bare;
    return true;
}

bool cluster_auto_sni(const struct cluster_config *c, const struct headers *request,
                      struct request_transport *out) {
    if (!c->auto_sni && !c->auto_san_validation) {
        return false;
    }
    sv host = c->auto_sni_header.n ? headers_get_name(request, c->auto_sni_header)
                                   : headers_get(request, HDR_authority);
    out->sni = host_without_port(host);
    bool is_ip = strip_ip(&out->sni);
    if (c->auto_sni && !is_ip) { /* RFC 6066 section 3: no literal addresses */
        out->options.server_name = out->sni;
    }
    if (c->auto_san_validation) {
        out->options.san_override = &out->sni;
        out->options.san_override_n = 1;
    }
    return true;
}
