/* The labels of Istio's metrics: who called whom, as what service, how it ended. Threads:
 * worker-local.
 * Spec: Istio's standard labels; what is not known is "unknown", a revision "latest".
 * Not here: counters and what configurations change (istio_metrics.c). */
#include "filters/common/istio_metrics_internal.h"
#include "proxy/api/telemetry.h"
#include "proxy/api/tls_info.h"

#define UNKNOWN SV("unknown")
#define TRAFFIC_INBOUND 1 /* core.v3.TrafficDirection */

enum istio_reporter istio_metrics_reporter(const struct istio_metrics *m,
                                           const struct conn_info *cx) {
    return m->is_gateway                              ? ISTIO_SERVER_GATEWAY
           : cx->traffic_direction == TRAFFIC_INBOUND ? ISTIO_SERVER
                                                      : ISTIO_CLIENT;
}

static bool is_server(const struct istio_labels *l) { return l->reporter != ISTIO_CLIENT; }

/* Where an exchange of metadata leaves its result. */
static const struct filter_state *state_of(const struct istio_labels *l,
                                           const struct stream_info *si) {
    return !is_server(l) && si->up.filter_state ? si->up.filter_state : si->filter_state;
}

bool istio_labels_known(const struct istio_labels *l, const struct stream_info *si) {
    const struct filter_state *fs = state_of(l, si);
    return istio_peer_of(fs, is_server(l)) || filter_state_get(fs, SV(ISTIO_NO_PEER));
}

static sv or_else(sv value, sv otherwise) { return value.n ? value : otherwise; }

/* The endpoint's own words, for peers that told us nothing. */
static const struct kv_value *endpoint_peer(const struct stream_info *si, struct arena *a) {
    const sv path = SV("workload");
    const struct observe_hooks *hooks = observe_hooks();
    const struct kv_metadata *md =
        si->up.host && hooks->host_metadata ? hooks->host_metadata(si->up.host) : NULL;
    const struct kv_value *text = kv_metadata_get(md, SV("istio"), &path, 1);
    struct kv_value *peer = arena_new(a, struct kv_value);
    return text && text->kind == KV_STRING && istio_peer_from_endpoint(text->s, a, peer) ? peer
                                                                                         : NULL;
}

/* "spiffe://cluster.local/ns/NAMESPACE/sa/NAME"; empty: another form */
static sv namespace_of(sv uri) {
    size_t at = sv_find_sv(uri, SV("/ns/"));
    if (!sv_starts(uri, SV("spiffe://")) || at == SIZE_MAX) {
        return SV("");
    }
    sv rest = sv_skip(uri, at + 4);
    return sv_cut(&rest, '/');
}

struct service {
    sv host, name;
};

static const struct kv_value *first_service(const struct stream_info *si) {
    const sv path = SV("services");
    const struct kv_value *list = kv_metadata_get(si->cluster_metadata, SV("istio"), &path, 1);
    return list && list->kind == KV_LIST && list->list.n ? &list->list.v[0] : NULL;
}

static bool names_itself(sv cluster) {
    return sv_is(cluster, "BlackHoleCluster") || sv_is(cluster, "PassthroughCluster") ||
           sv_is(cluster, "InboundPassthroughCluster") ||
           sv_is(cluster, "InboundPassthroughClusterIpv4") ||
           sv_is(cluster, "InboundPassthroughClusterIpv6");
}

static struct service service_of(const struct istio_metrics *m, const struct stream_info *si) {
    struct service s = {SV(""), SV("")};
    sv cluster = si->cluster_raw_name.n ? si->cluster_raw_name : si->cluster_name;
    if (!m->disable_host_fallback && si->request) {
        s.host = s.name = or_else(headers_get(si->request, HDR_authority), SV(""));
    }
    if (sv_is(si->route_name, "block_all")) {
        s.name = SV("BlackHoleCluster");
    } else if (sv_is(si->route_name, "allow_any")) {
        s.name = SV("PassthroughCluster");
    } else if (names_itself(cluster)) {
        s.name = cluster;
    } else if (first_service(si)) {
        s.host = or_else(istio_peer_field(first_service(si), SV("host")), s.host);
        sv name = istio_peer_field(first_service(si), SV("name"));
        s.name = or_else(name, sv_sub(s.host, 0, sv_find(s.host, '.')));
    }
    return s;
}

struct identities {
    sv peer, local;
};

static sv first_uri(const struct ssl_info *ssl, enum ssl_list list) {
    const sv *v;
    return ssl && ssl_info_list(ssl, list, &v) ? v[0] : SV("");
}

static struct identities identities_of(const struct istio_labels *l, const struct stream_info *si) {
    if (!is_server(l)) {
        return (struct identities){or_else(l->upstream_peer, SV("")),
                                   or_else(l->upstream_local, SV(""))};
    }
    const struct ssl_info *ssl = si->cx->conn ? conn_ssl(si->cx->conn) : NULL;
    return (struct identities){first_uri(ssl, SSL_LIST_PEER_URI),
                               first_uri(ssl, SSL_LIST_LOCAL_URI)};
}

/* The side of the request that is told of: its labels follow each other in the same order. */
struct side_labels {
    enum istio_label workload, service, revision, namespace_, principal, app, version, cluster;
};
static const struct side_labels source_side = {ISTIO_LABEL_source_workload,
                                               ISTIO_LABEL_source_canonical_service,
                                               ISTIO_LABEL_source_canonical_revision,
                                               ISTIO_LABEL_source_workload_namespace,
                                               ISTIO_LABEL_source_principal,
                                               ISTIO_LABEL_source_app,
                                               ISTIO_LABEL_source_version,
                                               ISTIO_LABEL_source_cluster};
static const struct side_labels destination_side = {ISTIO_LABEL_destination_workload,
                                                    ISTIO_LABEL_destination_canonical_service,
                                                    ISTIO_LABEL_destination_canonical_revision,
                                                    ISTIO_LABEL_destination_workload_namespace,
                                                    ISTIO_LABEL_destination_principal,
                                                    ISTIO_LABEL_destination_app,
                                                    ISTIO_LABEL_destination_version,
                                                    ISTIO_LABEL_destination_cluster};

/* Ours is told as it is: what we have not is empty. */
static void tell_us(struct istio_labels *l, const struct side_labels *side,
                    const struct kv_value *me, sv principal) {
    l->v[side->workload] = istio_peer_field(me, SV("workload"));
    l->v[side->service] = istio_peer_field(me, SV("service"));
    l->v[side->revision] = istio_peer_field(me, SV("revision"));
    l->v[side->namespace_] = istio_peer_field(me, SV("namespace"));
    l->v[side->principal] = or_else(principal, UNKNOWN);
    l->v[side->app] = istio_peer_field(me, SV("app"));
    l->v[side->version] = istio_peer_field(me, SV("version"));
    l->v[side->cluster] = istio_peer_field(me, SV("cluster"));
}

static void tell_peer(struct istio_labels *l, const struct side_labels *side,
                      const struct kv_value *peer, sv principal) {
    sv from_identity = namespace_of(principal);
    l->v[side->workload] = or_else(istio_peer_field(peer, SV("workload")), UNKNOWN);
    l->v[side->service] = or_else(istio_peer_field(peer, SV("service")), UNKNOWN);
    l->v[side->revision] = or_else(istio_peer_field(peer, SV("revision")), SV("latest"));
    l->v[side->namespace_] =
        or_else(or_else(from_identity, istio_peer_field(peer, SV("namespace"))), UNKNOWN);
    l->v[side->principal] = or_else(principal, UNKNOWN);
    l->v[side->app] = or_else(istio_peer_field(peer, SV("app")), UNKNOWN);
    l->v[side->version] = or_else(istio_peer_field(peer, SV("version")), UNKNOWN);
    l->v[side->cluster] = or_else(istio_peer_field(peer, SV("cluster")), UNKNOWN);
}

/* A gateway in front of workloads tells of them, as far as it knows them. */
static void tell_behind_gateway(struct istio_labels *l, const struct stream_info *si,
                                const struct kv_value *me, sv principal) {
    const struct kv_value *peer = istio_peer_of(si->filter_state, false);
    tell_us(l, &destination_side, me, principal);
    l->v[ISTIO_LABEL_destination_workload] =
        peer ? istio_peer_field(peer, SV("workload")) : UNKNOWN;
    l->v[ISTIO_LABEL_destination_app] = UNKNOWN;
    l->v[ISTIO_LABEL_destination_version] = UNKNOWN;
    l->v[ISTIO_LABEL_destination_canonical_service] =
        peer ? istio_peer_field(peer, SV("service")) : UNKNOWN;
    l->v[ISTIO_LABEL_destination_canonical_revision] =
        peer ? istio_peer_field(peer, SV("revision")) : UNKNOWN;
}

static void fill_server(struct istio_labels *l, const struct stream_info *si,
                        const struct kv_value *me, struct service service) {
    struct identities who = identities_of(l, si);
    l->v[ISTIO_LABEL_reporter] = SV("destination");
    tell_peer(l, &source_side, istio_peer_of(state_of(l, si), true), who.peer);
    if (l->reporter == ISTIO_SERVER_GATEWAY) {
        tell_behind_gateway(l, si, me, who.local);
    } else {
        tell_us(l, &destination_side, me, who.local);
    }
    sv canonical = l->v[ISTIO_LABEL_destination_canonical_service];
    l->v[ISTIO_LABEL_destination_service] = or_else(service.host, canonical);
    l->v[ISTIO_LABEL_destination_service_name] = or_else(service.name, canonical);
    l->v[ISTIO_LABEL_destination_service_namespace] = istio_peer_field(me, SV("namespace"));
    l->v[ISTIO_LABEL_connection_security_policy] =
        who.peer.n && who.local.n ? SV("mutual_tls") : SV("none");
}

static void fill_client(struct istio_labels *l, const struct stream_info *si,
                        const struct kv_value *me, struct service service, struct arena *a) {
    struct identities who = identities_of(l, si);
    const struct kv_value *peer = istio_peer_of(state_of(l, si), false);
    l->v[ISTIO_LABEL_reporter] = SV("source");
    tell_us(l, &source_side, me, who.local);
    tell_peer(l, &destination_side, peer ? peer : endpoint_peer(si, a), who.peer);
    l->v[ISTIO_LABEL_destination_service] = or_else(service.host, UNKNOWN);
    l->v[ISTIO_LABEL_destination_service_name] = or_else(service.name, UNKNOWN);
    l->v[ISTIO_LABEL_destination_service_namespace] =
        l->v[ISTIO_LABEL_destination_workload_namespace];
    l->v[ISTIO_LABEL_connection_security_policy] = UNKNOWN;
}

void istio_labels_fill(const struct istio_metrics *m, const struct stream_info *si,
                       struct istio_labels *l, struct arena *a) {
    l->reporter = istio_metrics_reporter(m, si->cx);
    struct service service = service_of(m, si);
    if (is_server(l)) {
        fill_server(l, si, &m->node->me, service);
    } else {
        fill_client(l, si, &m->node->me, service, a);
    }
    l->is_filled = true;
}

void istio_labels_outcome(const struct stream_info *si, const char *protocol,
                          struct istio_labels *l, struct arena *a) {
    l->v[ISTIO_LABEL_request_protocol] = sv_cstr(protocol);
    l->v[ISTIO_LABEL_response_flags] = SV("-");
    if (si->flags) {
        BUF_AUTO struct buf b = {0};
        stream_info_flags_write(si, false, &b);
        char *text = buf_dup_str(&b);
        l->v[ISTIO_LABEL_response_flags] = arena_sv(a, sv_cstr(text));
        xfree(text);
    }
}
