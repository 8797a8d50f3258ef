/* Health discovery: see hds.h. Each cluster of a specifier is compiled as a static cluster with a
 * health checker of its own; workers never hear of it. */
#include "xds/hds.h"

#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/cluster.pb-c.h"
#include "protos/gen/service_health.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/endpoints.h"
#include "proxy/upstream/health_check.h"
#include "proxy/upstream/host_message.h"
#include "proxy/upstream/host_set.h"
#include "xds/discovery_wire.h"
#include "xds/service_stream.h"

#define HDS_METHOD "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
#define CONNECT_TIMEOUT_S 1
#define BUFFER_LIMIT_BYTES 32768u
enum { REQUEST_FIELD = 1, REQUEST_NODE_FIELD = 1, REQUEST_CAPABILITY_FIELD = 2 };

/* One ClusterHealthCheck. */
struct hds_cluster {
    struct hds *hds;
    uint64_t hash[2];          /* of its message */
    struct resource *resource; /* one ref */
    struct host_set *set;      /* one ref */
    struct health_checker *checker;
};
VEC_TYPE(hds_cluster_vec, struct hds_cluster *)

struct hds {
    struct store *store;
    struct service_stream *stream;
    struct hds_cluster_vec clusters;
    uint64_t hash[2]; /* of the specifier in force */
    uint32_t interval_ms;
    struct timer report;
    struct stats_scope *scope; /* hds_delegate. */
    struct stats_shard *stats;
};

STATS_GROUP(hds, HDS, HDS_STATS);

/* ---- clusters ---- */

static Endpoint__LocalityLbEndpoints *locality_message(const ServiceHealth__LocalityEndpoints *m,
                                                       struct arena *a) {
    Endpoint__LocalityLbEndpoints *l = arena_new(a, Endpoint__LocalityLbEndpoints);
    endpoint__locality_lb_endpoints__init(l);
    l->locality = m->locality;
    l->n_lb_endpoints = m->n_endpoints;
    l->lb_endpoints = arena_new_array(a, Endpoint__LbEndpoint *, m->n_endpoints);
    for (size_t i = 0; i < m->n_endpoints; i++) {
        l->lb_endpoints[i] = arena_new(a, Endpoint__LbEndpoint);
        endpoint__lb_endpoint__init(l->lb_endpoints[i]);
        l->lb_endpoints[i]->host_identifier_case = ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
        l->lb_endpoints[i]->endpoint = m->endpoints[i];
    }
    return l;
}

/* A static cluster that has what the message tells. */
static sv cluster_message(const ServiceHealth__ClusterHealthCheck *m, struct arena *a) {
    Cluster__Cluster c = CLUSTER__CLUSTER__INIT;
    Endpoint__ClusterLoadAssignment cla = ENDPOINT__CLUSTER_LOAD_ASSIGNMENT__INIT;
    Pb__Duration timeout = PB__DURATION__INIT;
    Pb__UInt32Value limit = PB__UINT32_VALUE__INIT;
    timeout.seconds = CONNECT_TIMEOUT_S;
    limit.value = BUFFER_LIMIT_BYTES;
    c.name = cla.cluster_name = m->cluster_name;
    c.connect_timeout = &timeout;
    c.per_connection_buffer_limit_bytes = &limit;
    c.cluster_discovery_type_case = CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE;
    c.type = CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC;
    c.n_health_checks = m->n_health_checks;
    c.health_checks = m->health_checks;
    c.n_transport_socket_matches = m->n_transport_socket_matches;
    c.transport_socket_matches = m->transport_socket_matches;
    c.upstream_bind_config = m->upstream_bind_config;
    cla.n_endpoints = m->n_locality_endpoints;
    cla.endpoints = arena_new_array(a, Endpoint__LocalityLbEndpoints *, cla.n_endpoints);
    for (size_t i = 0; i < cla.n_endpoints; i++) {
        cla.endpoints[i] = locality_message(m->locality_endpoints[i], a);
    }
    c.load_assignment = &cla;
    return proto_pack(&c.base, a);
}

static struct transport_factory *transport(void *arg, slot_t slot) {
    const struct hds_cluster *c = arg;
    const struct store *s = c->hds->store;
    const struct table *t = &(s->next ? s->next : s->latest)->tables[TABLE_TRANSPORTS];
    return (struct transport_factory *)table_get(t, slot);
}

static void on_change(void *arg, struct host *h) {
    (void)arg, (void)h; /* a report tells how hosts are when it is made */
}

static void on_checked(void *arg, struct host *h, bool is_healthy) {
    (void)arg, (void)h, (void)is_healthy;
}

static struct host_set *make_hosts(const struct hds_cluster *c) {
    const struct cluster_config *cfg = c->resource->cluster;
    const struct cla_config *cla = cfg->endpoints;
    struct host_set_builder *b = host_set_builder_new(cfg, NULL, loop_now_us(c->hds->store->loop));
    host_set_builder_checked(b);
    unsigned *handles = xnew_array(unsigned, cla->localities_n + 1);
    for (unsigned i = 0; i < cla->localities_n; i++) {
        handles[i] = host_set_builder_locality(b, 0, &cla->localities[i].id, 0);
    }
    for (unsigned i = 0; i < cla->endpoints_n; i++) {
        const struct cla_endpoint *e = &cla->endpoints[i];
        const struct cla_endpoint_extra *x = e->extra;
        struct host_spec spec = {.addr = e->addr,
                                 .hostname = x->hostname,
                                 .health_check_hostname = x->health_check_hostname,
                                 .health_check_addr = x->health_check_addr,
                                 .health_check_disabled = e->health_check_disabled};
        if (x->health_check_port && !spec.health_check_addr.family) {
            spec.health_check_addr = e->addr;
            spec.health_check_addr.port = x->health_check_port;
        }
        host_set_builder_add(b, handles[e->locality], &spec, 1, UINT16_MAX, 0);
    }
    xfree(handles);
    return host_set_builder_finish(b, NULL);
}

static void release_checker(void *arg) { health_checker_unref(arg); }

static void start_checks(struct hds_cluster *c) {
    struct store *s = c->hds->store;
    store_make_transports(s, c->resource);
    c->set = make_hosts(c);
    const struct health_checker_env env = {.loop = s->loop,
                                           .transport = transport,
                                           .on_change = on_change,
                                           .on_checked = on_checked,
                                           .arg = c};
    c->checker = health_checker_new(c->resource->cluster, &env);
    arena_on_fini(&c->resource->arena, release_checker, c->checker);
    health_checker_set_hosts(c->checker, c->set);
}

static void cluster_free(struct hds_cluster *c) {
    health_checker_stop(c->checker);
    store_drop_transports(c->hds->store, c->resource);
    shared_unref(&c->set->shared);
    shared_unref(&c->resource->shared);
    xfree(c);
}

/* NULL: it is refused, and told. */
static struct hds_cluster *cluster_new(struct hds *h, const ServiceHealth__ClusterHealthCheck *m,
                                       const uint64_t hash[2], struct arena *a) {
    struct diag d;
    diag_init(&d);
    sv name = sv_cstr(m->cluster_name);
    struct resource *r = resource_compile(&h->store->config, RES_CLUSTER, name, SV_NULL,
                                          cluster_message(m, a), false, NULL, &d);
    if (r && !r->cluster->health_check) {
        diag_error(&d, "health_checks: value is required");
        shared_unref(&r->shared);
        r = NULL;
    }
    if (!r) {
        sv text = diag_text(&d);
        log_warn_limited(LOG_upstream, "health discovery: cluster '%.*s': %.*s", SV_ARG(name),
                         SV_ARG(text));
        stats_inc(h->stats, HDS_errors);
        diag_fini(&d);
        return NULL;
    }
    diag_fini(&d);
    struct hds_cluster *c = xnew(struct hds_cluster);
    c->hds = h;
    c->hash[0] = hash[0];
    c->hash[1] = hash[1];
    c->resource = r;
    start_checks(c);
    return c;
}

/* ---- specifiers ---- */

static struct hds_cluster *take_same(struct hds_cluster_vec *old, const uint64_t hash[2]) {
    for (size_t i = 0; i < old->n; i++) {
        struct hds_cluster *c = old->p[i];
        if (c && c->hash[0] == hash[0] && c->hash[1] == hash[1]) {
            old->p[i] = NULL;
            return c;
        }
    }
    return NULL;
}

static void free_clusters(struct hds_cluster_vec *v) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i]) {
            cluster_free(v->p[i]);
        }
    }
    vec_fini(v);
}

/* Clusters with the same message go on being checked as they are. */
static void replace_clusters(struct hds *h, const ServiceHealth__HealthCheckSpecifier *m) {
    struct hds_cluster_vec old = h->clusters;
    h->clusters = (struct hds_cluster_vec){0};
    if (m->n_cluster_health_checks > HDS_CLUSTERS_MAX) {
        log_warn(LOG_upstream, "health discovery: of %zu clusters only %u are checked",
                 m->n_cluster_health_checks, HDS_CLUSTERS_MAX);
    }
    struct arena a;
    arena_init(&a, 0);
    for (size_t i = 0; i < m->n_cluster_health_checks && i < HDS_CLUSTERS_MAX; i++) {
        uint64_t hash[2];
        resource_hash(proto_pack(&m->cluster_health_checks[i]->base, &a), hash);
        struct hds_cluster *c = take_same(&old, hash);
        c = c ? c : cluster_new(h, m->cluster_health_checks[i], hash, &a);
        if (c) {
            *vec_push(&h->clusters) = c;
        }
        arena_reset(&a);
    }
    arena_fini(&a);
    free_clusters(&old);
    stats_inc(h->stats, HDS_updates);
}

static uint32_t interval_of(const Pb__Duration *d) {
    if (!d || d->seconds < 0 || d->nanos < 0) {
        return HDS_INTERVAL_DEFAULT_MS;
    }
    uint64_t ms = d->seconds < INT32_MAX / 1000
                      ? (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000
                      : INT32_MAX;
    return ms > HDS_INTERVAL_MIN_MS ? (uint32_t)ms : HDS_INTERVAL_MIN_MS;
}

static bool on_message(void *user, sv wire) {
    struct hds *h = user;
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    const ServiceHealth__HealthCheckSpecifier *m =
        PROTO_UNPACK(ServiceHealth__HealthCheckSpecifier,
                     service_health__health_check_specifier__descriptor, wire, &a, &d);
    if (m) {
        stats_inc(h->stats, HDS_requests);
        uint64_t hash[2];
        resource_hash(wire, hash);
        if (hash[0] != h->hash[0] || hash[1] != h->hash[1]) {
            h->hash[0] = hash[0];
            h->hash[1] = hash[1];
            replace_clusters(h, m);
        }
        h->interval_ms = interval_of(m->interval);
        timer_start(&h->report, h->interval_ms);
    }
    diag_fini(&d);
    arena_fini(&a);
    return m != NULL;
}

/* ---- reports ---- */

static Core__HealthStatus status_of(const struct host *h) {
    uint32_t flags = host_flags(h);
    if (flags & HOST_FLAG(FAILED_ACTIVE_HC)) {
        return flags & HOST_FLAG(ACTIVE_HC_TIMEOUT) ? CORE__HEALTH_STATUS__TIMEOUT
                                                    : CORE__HEALTH_STATUS__UNHEALTHY;
    }
    return flags & HOST_FLAG(DEGRADED_ACTIVE_HC) ? CORE__HEALTH_STATUS__DEGRADED
                                                 : CORE__HEALTH_STATUS__HEALTHY;
}

static ServiceHealth__EndpointHealth *endpoint_health(const struct host *h, struct arena *a) {
    ServiceHealth__EndpointHealth *m = arena_new(a, ServiceHealth__EndpointHealth);
    service_health__endpoint_health__init(m);
    m->endpoint = arena_new(a, Endpoint__Endpoint);
    endpoint__endpoint__init(m->endpoint);
    m->endpoint->address = host_address_message(&h->addr, a);
    m->health_status = status_of(h);
    return m;
}

/* `flat`: the older list of all endpoints, which has them again. */
static ServiceHealth__ClusterEndpointsHealth *
cluster_health(const struct hds_cluster *c, ServiceHealth__EndpointHealthResponse *flat,
               struct arena *a) {
    const struct host_priority *p = &c->set->priorities[0];
    ServiceHealth__ClusterEndpointsHealth *m = arena_new(a, ServiceHealth__ClusterEndpointsHealth);
    service_health__cluster_endpoints_health__init(m);
    m->cluster_name = arena_cstr(a, c->resource->name);
    m->n_locality_endpoints_health = p->localities_n;
    m->locality_endpoints_health =
        arena_new_array(a, ServiceHealth__LocalityEndpointsHealth *, p->localities_n);
    for (unsigned i = 0; i < p->localities_n; i++) {
        ServiceHealth__LocalityEndpointsHealth *l =
            arena_new(a, ServiceHealth__LocalityEndpointsHealth);
        service_health__locality_endpoints_health__init(l);
        l->locality = host_locality_message(&p->localities[i].id, a);
        l->endpoints_health =
            arena_new_array(a, ServiceHealth__EndpointHealth *, p->localities[i].hosts_n);
        m->locality_endpoints_health[i] = l;
    }
    for (unsigned i = 0; i < p->n; i++) {
        ServiceHealth__LocalityEndpointsHealth *l =
            m->locality_endpoints_health[p->entries[i].locality];
        ServiceHealth__EndpointHealth *e = endpoint_health(p->entries[i].host, a);
        l->endpoints_health[l->n_endpoints_health++] = e;
        flat->endpoints_health[flat->n_endpoints_health++] = e;
    }
    return m;
}

static void report(struct hds *h) {
    struct arena a;
    arena_init(&a, 0);
    ServiceHealth__EndpointHealthResponse r = SERVICE_HEALTH__ENDPOINT_HEALTH_RESPONSE__INIT;
    size_t hosts = 0;
    for (size_t i = 0; i < h->clusters.n; i++) {
        hosts += h->clusters.p[i]->set->hosts_n;
    }
    r.endpoints_health = arena_new_array(&a, ServiceHealth__EndpointHealth *, hosts);
    r.n_cluster_endpoints_health = h->clusters.n;
    r.cluster_endpoints_health =
        arena_new_array(&a, ServiceHealth__ClusterEndpointsHealth *, h->clusters.n);
    for (size_t i = 0; i < h->clusters.n; i++) {
        r.cluster_endpoints_health[i] = cluster_health(h->clusters.p[i], &r, &a);
    }
    ServiceHealth__HealthCheckRequestOrEndpointHealthResponse m =
        SERVICE_HEALTH__HEALTH_CHECK_REQUEST_OR_ENDPOINT_HEALTH_RESPONSE__INIT;
    m.request_type_case =
        SERVICE_HEALTH__HEALTH_CHECK_REQUEST_OR_ENDPOINT_HEALTH_RESPONSE__REQUEST_TYPE_ENDPOINT_HEALTH_RESPONSE;
    m.endpoint_health_response = &r;
    struct buf BUF_AUTO out;
    buf_init(&out);
    buf_append_sv(&out, proto_pack(&m.base, &a));
    stats_inc(h->stats, HDS_responses);
    service_stream_send(h->stream, &out);
    arena_fini(&a);
}

static void on_report(struct timer *t) {
    struct hds *h = CONTAINER_OF(t, struct hds, report);
    timer_start(t, h->interval_ms);
    if (service_stream_can_send(h->stream)) { /* else the server does not read: later */
        report(h);
    }
}

/* ---- the stream ---- */

/* Who we are, and what we can do: gRPC checks have no name in the protocol. */
static void on_open(void *user) {
    struct hds *h = user;
    ServiceHealth__Capability__Protocol protocols[] = {SERVICE_HEALTH__CAPABILITY__PROTOCOL__HTTP,
                                                       SERVICE_HEALTH__CAPABILITY__PROTOCOL__TCP};
    ServiceHealth__Capability capability = SERVICE_HEALTH__CAPABILITY__INIT;
    capability.health_check_protocols = protocols;
    capability.n_health_check_protocols = ARRAY_LEN(protocols);
    struct arena a;
    arena_init(&a, 0);
    struct buf BUF_AUTO request;
    struct buf BUF_AUTO out;
    buf_init(&request);
    buf_init(&out);
    wire_put_bytes(&request, REQUEST_NODE_FIELD, h->store->opt.node);
    wire_put_bytes(&request, REQUEST_CAPABILITY_FIELD, proto_pack(&capability.base, &a));
    wire_put_bytes(&out, REQUEST_FIELD, buf_pullup(&request, buf_len(&request)));
    service_stream_send(h->stream, &out);
    arena_fini(&a);
}

static void on_failed(void *user) { stats_inc(((struct hds *)user)->stats, HDS_errors); }

/* Checks go on: the next stream may ask for the same. */
static void on_ended(void *user) { timer_cancel(&((struct hds *)user)->report); }

static const struct service_stream_ops stream_ops = {
    .on_open = on_open, .on_message = on_message, .on_failed = on_failed, .on_ended = on_ended};

/* ---- life ---- */

bool hds_start(struct store *s, const void *bootstrap_msg, struct diag *d) {
    const Bootstrap__Bootstrap *b = bootstrap_msg;
    if (!b->hds_config) {
        return true;
    }
    DIAG_FIELD(d, "hds_config");
    if (b->hds_config->api_type != CORE__API_CONFIG_SOURCE__API_TYPE__GRPC) {
        return diag_error(d, "api_type: only GRPC is supported");
    }
    struct hds *h = xnew(struct hds);
    h->store = s;
    timer_init(&h->report, s->loop, on_report);
    h->scope = stats_scope_get(s->opt.stats, &hds_stats_group, SV("hds_delegate."));
    h->stats = stats_shard(h->scope, s->loop->thread_index);
    s->hds = h;
    h->stream = service_stream_new(s, HDS_METHOD, b->hds_config, &stream_ops, h, d);
    if (!h->stream) {
        return false;
    }
    if (!s->opt.is_dry_run) {
        service_stream_start(h->stream);
    }
    return true;
}

void hds_stop(struct store *s) {
    struct hds *h = s->hds;
    if (!h) {
        return;
    }
    service_stream_free(h->stream);
    timer_cancel(&h->report);
    free_clusters(&h->clusters);
    stats_scope_unref(h->scope);
    xfree(h);
    s->hds = NULL;
}
