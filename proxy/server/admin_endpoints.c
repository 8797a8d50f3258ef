/* Hosts as messages, locality by locality: see admin_endpoints.h. */
#include "proxy/server/admin_endpoints.h"

#include "protos/any.h"
#include "protos/gen/endpoint.pb-c.h"
#include "proxy/base/mem.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/host_message.h"

/* endpoint.v3.ClusterLoadAssignment.endpoints */
#define ASSIGNMENT_ENDPOINTS 2
#define OVERPROVISIONING_FACTOR 140u
#define MILLION 1000000u

void admin_endpoints_init(struct admin_endpoints *x) {
    *x = (struct admin_endpoints){0};
    arena_init(&x->head, 0);
    arena_init(&x->locality, 0);
}

void admin_endpoints_fini(struct admin_endpoints *x) {
    xfree(x->entries);
    arena_fini(&x->head);
    arena_fini(&x->locality);
}

bool admin_endpoints_has(const struct view_item *cluster) {
    return cluster->resource->type == RES_CLUSTER && cluster->status == VIEW_ACTIVE &&
           cluster->resource->cluster->type != CLUSTER_TYPE_EDS;
}

/* ---- a locality ---- */

static Pb__UInt32Value *number(uint32_t n, struct arena *a) {
    Pb__UInt32Value *m = arena_new(a, Pb__UInt32Value);
    pb__uint32_value__init(m);
    m->value = n;
    return m;
}

static Endpoint__Endpoint *endpoint_message(const struct host *h, struct arena *a) {
    Endpoint__Endpoint *m = arena_new(a, Endpoint__Endpoint);
    endpoint__endpoint__init(m);
    m->address = host_address_message(&h->addr, a);
    m->hostname = arena_cstr(a, h->hostname);
    m->health_check_config = arena_new(a, Endpoint__Endpoint__HealthCheckConfig);
    endpoint__endpoint__health_check_config__init(m->health_check_config);
    m->health_check_config->hostname = arena_cstr(a, h->extra->health_check_hostname);
    if (h->extra->health_check_addr.family) {
        m->health_check_config->port_value = h->extra->health_check_addr.port;
    }
    unsigned n = h->extra->additional_n;
    m->additional_addresses = arena_new_array(a, Endpoint__Endpoint__AdditionalAddress *, n);
    for (unsigned i = 0; i < n; i++) {
        Endpoint__Endpoint__AdditionalAddress *more =
            arena_new(a, Endpoint__Endpoint__AdditionalAddress);
        endpoint__endpoint__additional_address__init(more);
        more->address = host_address_message(&h->extra->additional[i], a);
        m->additional_addresses[m->n_additional_addresses++] = more;
    }
    return m;
}

static Endpoint__LbEndpoint *host_message(const struct host_entry *e, struct arena *a) {
    static const Core__HealthStatus health[] = {
        [HOST_HEALTHY] = CORE__HEALTH_STATUS__HEALTHY,
        [HOST_DEGRADED] = CORE__HEALTH_STATUS__DEGRADED,
        [HOST_UNHEALTHY] = CORE__HEALTH_STATUS__UNHEALTHY,
    };
    Endpoint__LbEndpoint *m = arena_new(a, Endpoint__LbEndpoint);
    endpoint__lb_endpoint__init(m);
    m->host_identifier_case = ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
    m->endpoint = endpoint_message(e->host, a);
    m->health_status = health[host_health_of(host_flags(e->host))];
    m->metadata = e->host->metadata ? host_metadata_message(e->host->metadata, a) : NULL;
    m->load_balancing_weight = number(e->weight, a);
    return m;
}

static const struct host_locality *locality_of(const struct admin_endpoints *x,
                                               const struct host_entry *e) {
    return &x->hosts->priorities[x->priority].localities[e->locality];
}

/* The priority that entry `at` is of: entries are in the order of priorities. */
static void find_priority(struct admin_endpoints *x) {
    const struct host_priority *p = &x->hosts->priorities[x->priority];
    while (x->entries[x->at] < p->entries || x->entries[x->at] >= p->entries + p->n) {
        p = &x->hosts->priorities[++x->priority];
    }
}

/* A pb_json_more's item: the next locality that has hosts. */
static sv next_locality(void *user, size_t i) {
    struct admin_endpoints *x = user;
    struct arena *a = &x->locality;
    (void)i;
    arena_reset(a);
    find_priority(x);
    const struct host_locality *l = locality_of(x, x->entries[x->at]);
    const struct host_priority *p = &x->hosts->priorities[x->priority];
    Endpoint__LocalityLbEndpoints m;
    endpoint__locality_lb_endpoints__init(&m);
    m.locality = host_locality_message(&l->id, a);
    m.priority = x->priority;
    if (p->has_locality_weights) {
        m.load_balancing_weight = number(l->weight, a);
    }
    m.lb_endpoints = arena_new_array(a, Endpoint__LbEndpoint *, l->hosts_n);
    while (m.n_lb_endpoints < l->hosts_n) {
        m.lb_endpoints[m.n_lb_endpoints++] = host_message(x->entries[x->at++], a);
    }
    return proto_pack(&m.base, a);
}

/* ---- the assignment ---- */

/* Each priority's entries by locality; returns how many localities have hosts. */
static unsigned put_in_order(struct admin_endpoints *x) {
    unsigned localities = 0, done = 0;
    for (unsigned p = 0; p < x->hosts->priorities_n; p++) {
        const struct host_priority *hp = &x->hosts->priorities[p];
        unsigned *next = xnew_array(unsigned, hp->localities_n + 1u);
        for (unsigned k = 0; k < hp->localities_n; k++) {
            next[k] = done;
            done += hp->localities[k].hosts_n;
            localities += hp->localities[k].hosts_n > 0;
        }
        for (unsigned i = 0; i < hp->n; i++) {
            x->entries[next[hp->entries[i].locality]++] = &hp->entries[i];
        }
        xfree(next);
    }
    return localities;
}

static sv head_of(struct admin_endpoints *x, const struct view_item *cluster) {
    const struct cluster_config *c = cluster->resource->cluster;
    struct arena *a = &x->head;
    Endpoint__ClusterLoadAssignment m;
    Endpoint__ClusterLoadAssignment__Policy policy;
    Endpoint__ClusterLoadAssignment__Policy__DropOverload drop, *drops[] = {&drop};
    Type__FractionalPercent percent;
    endpoint__cluster_load_assignment__init(&m);
    endpoint__cluster_load_assignment__policy__init(&policy);
    m.cluster_name = arena_cstr(a, c->name);
    m.policy = &policy;
    policy.overprovisioning_factor =
        number(x->hosts ? x->hosts->overprovisioning_factor : OVERPROVISIONING_FACTOR, a);
    if (x->hosts && x->hosts->drop_numerator) {
        endpoint__cluster_load_assignment__policy__drop_overload__init(&drop);
        type__fractional_percent__init(&percent);
        percent.denominator = TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__MILLION;
        percent.numerator =
            (uint32_t)((uint64_t)x->hosts->drop_numerator * MILLION / x->hosts->drop_denominator);
        drop.drop_percentage = &percent;
        policy.drop_overloads = drops;
        policy.n_drop_overloads = 1;
    }
    return proto_pack(&m.base, a);
}

sv admin_endpoints_begin(struct admin_endpoints *x, const struct view_item *cluster,
                         struct pb_json_more *more) {
    arena_reset(&x->head);
    xfree(x->entries);
    x->hosts = cluster->hosts;
    x->entries_n = x->hosts ? x->hosts->hosts_n : 0;
    x->entries = xnew_array(const struct host_entry *, x->entries_n + 1u);
    x->at = x->priority = 0;
    *more = (struct pb_json_more){.field = ASSIGNMENT_ENDPOINTS, .item = next_locality, .user = x};
    more->n = x->hosts ? put_in_order(x) : 0;
    return head_of(x, cluster);
}
