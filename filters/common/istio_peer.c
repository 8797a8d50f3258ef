/* Workload metadata of mesh peers: see istio_peer.h. Threads: see there.
 * Not here: how it travels (http/istio_metadata_exchange.c, network/istio_metadata_exchange.c). */
#include "filters/common/istio_peer.h"

#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/istio_workload.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/base/base64.h"

#define OWNER_PREFIX "kubernetes://apis/apps/v1/namespaces/"
#define PREFACE_MAGIC 0x3D230467u
#define PREFACE_HEAD_BYTES 8u
#define NODE_FIELDS_MAX 8u
#define LABELS_N 4u

/* Fields of a peer: in node metadata, as label, in baggage. */
static const struct {
    const char *name, *metadata, *label, *baggage;
} fields[] = {
    {"workload", "WORKLOAD_NAME", NULL, NULL},
    {"name", "NAME", NULL, "k8s.instance.name"},
    {"cluster", "CLUSTER_ID", NULL, "k8s.cluster.name"},
    {"namespace", "NAMESPACE", NULL, "k8s.namespace.name"},
    {"service", NULL, "service.istio.io/canonical-name", "service.name"},
    {"revision", NULL, "service.istio.io/canonical-revision", "service.version"},
    {"app", NULL, "app", "app.name"},
    {"version", NULL, "version", "app.version"},
};
static const char *const workload_types[] = {"pod", "deployment", "job", "cronjob"};

static void set(struct kv_value *peer, struct arena *a, const char *name, sv value) {
    struct kv_value v = kv_string(value);
    if (value.n) {
        kv_set(peer, a, sv_cstr(name), &v);
    }
}

sv istio_peer_field(const struct kv_value *peer, sv name) {
    const struct kv_value *v = peer ? kv_get(peer, name) : NULL;
    return v && v->kind == KV_STRING ? v->s : SV("");
}

/* --- from metadata --- */

/* ".../namespaces/x/deployments/y" → "deployment"; empty: none that is known. */
static sv type_of_owner(sv owner, sv workload) {
    if (owner.n <= workload.n + 2) {
        return SV("");
    }
    sv kind = sv_sub(owner, 0, owner.n - workload.n - 2);
    for (size_t i = 0; i < ARRAY_LEN(workload_types); i++) {
        sv t = sv_cstr(workload_types[i]);
        if (kind.n > t.n && kind.p[kind.n - t.n - 1] == '/' && sv_ends(kind, t)) {
            return t;
        }
    }
    return SV("");
}

static struct kv_value from_metadata(const struct kv_value *m, const sv *labels, unsigned labels_n,
                                     struct arena *a) {
    const struct kv_value *told = kv_get(m, SV("LABELS"));
    struct kv_value peer = kv_empty_struct(), extra = kv_empty_struct();
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        set(&peer, a, fields[i].name,
            fields[i].metadata ? istio_peer_field(m, sv_cstr(fields[i].metadata))
                               : istio_peer_field(told, sv_cstr(fields[i].label)));
    }
    set(&peer, a, "type",
        type_of_owner(istio_peer_field(m, SV("OWNER")), istio_peer_field(&peer, SV("workload"))));
    for (unsigned i = 0; i < labels_n; i++) {
        const struct kv_value *v = told ? kv_get(told, labels[i]) : NULL;
        if (v && v->kind == KV_STRING) {
            kv_set(&extra, a, labels[i], v);
        }
    }
    if (extra.fields.n) {
        kv_set(&peer, a, SV("labels"), &extra);
    }
    return peer;
}

bool istio_peer_from_wire(sv wire, const sv *labels, unsigned labels_n, struct arena *a,
                          struct kv_value *out) {
    struct diag ignored;
    diag_init(&ignored);
    const Pb__Struct *m = wire.n <= ISTIO_PEER_WIRE_MAX
                              ? PROTO_UNPACK(Pb__Struct, pb__struct__descriptor, wire, a, &ignored)
                              : NULL;
    if (m) {
        struct kv_value tree = kv_from_struct(m, a);
        *out = from_metadata(&tree, labels, labels_n, a);
    }
    diag_fini(&ignored);
    return m != NULL;
}

/* --- from text --- */

static bool baggage_workload(struct kv_value *peer, struct arena *a, sv key, sv value) {
    for (size_t i = 0; i < ARRAY_LEN(workload_types); i++) {
        sv rest = key;
        if (sv_eat(&rest, SV("k8s.")) && sv_eat(&rest, sv_cstr(workload_types[i])) &&
            sv_is(rest, ".name")) {
            set(peer, a, "workload", value);
            set(peer, a, "type", value.n ? sv_cstr(workload_types[i]) : SV(""));
            return true;
        }
    }
    return false;
}

struct kv_value istio_peer_from_baggage(sv baggage, struct arena *a) {
    struct kv_value peer = kv_empty_struct();
    while (baggage.n) {
        sv value = sv_cut(&baggage, ','), key = sv_cut(&value, '=');
        key = sv_trim(key);
        value = sv_trim(value);
        if (baggage_workload(&peer, a, key, value)) {
            continue;
        }
        for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
            if (fields[i].baggage && sv_is(key, fields[i].baggage)) {
                set(&peer, a, fields[i].name, value);
            }
        }
    }
    /* without the two, what stands for the service is the application */
    if (!kv_get(&peer, SV("app"))) {
        set(&peer, a, "app", istio_peer_field(&peer, SV("service")));
    }
    if (!kv_get(&peer, SV("version"))) {
        set(&peer, a, "version", istio_peer_field(&peer, SV("revision")));
    }
    return peer;
}

bool istio_peer_from_endpoint(sv text, struct arena *a, struct kv_value *out) {
    static const char *const names[] = {"workload", "namespace", "service", "revision", "cluster"};
    *out = kv_empty_struct();
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (i && !text.p) {
            return false;
        }
        size_t end = sv_find(text, ';');
        set(out, a, names[i], sv_sub(text, 0, end));
        text = end == SIZE_MAX ? SV_NULL : sv_skip(text, end + 1);
    }
    return true;
}

/* --- from what the control plane knows --- */

static sv or_default(const char *s, const char *dflt) { return sv_cstr(*s ? s : dflt); }

static const char *type_of_workload(IstioWorkload__WorkloadType t) {
    switch (t) {
    case ISTIO_WORKLOAD__WORKLOAD_TYPE__CRONJOB:
        return "cronjob";
    case ISTIO_WORKLOAD__WORKLOAD_TYPE__POD:
        return "pod";
    case ISTIO_WORKLOAD__WORKLOAD_TYPE__JOB:
        return "job";
    default:
        return "deployment";
    }
}

static struct kv_value from_workload(const IstioWorkload__Workload *m, struct arena *a) {
    struct kv_value peer = kv_empty_struct();
    sv ns = or_default(m->namespace_, "default");
    set(&peer, a, "workload", sv_cstr(m->workload_name));
    set(&peer, a, "name", sv_cstr(m->name));
    set(&peer, a, "cluster", sv_cstr(m->cluster_id));
    set(&peer, a, "namespace", ns);
    set(&peer, a, "service", sv_cstr(m->canonical_name));
    set(&peer, a, "revision", sv_cstr(m->canonical_revision));
    set(&peer, a, "app", sv_cstr(m->canonical_name));
    set(&peer, a, "version", sv_cstr(m->canonical_revision));
    set(&peer, a, "type", sv_cstr(type_of_workload(m->workload_type)));
    set(&peer, a, "identity",
        arena_printf(a, "spiffe://%.*s/ns/%.*s/sa/%.*s",
                     SV_ARG(or_default(m->trust_domain, "cluster.local")), SV_ARG(ns),
                     SV_ARG(or_default(m->service_account, "default"))));
    return peer;
}

bool istio_peer_from_workload(sv wire, struct arena *a, struct kv_value *out) {
    struct diag ignored;
    diag_init(&ignored);
    const IstioWorkload__Workload *m = PROTO_UNPACK(
        IstioWorkload__Workload, istio_workload__workload__descriptor, wire, a, &ignored);
    if (m) {
        *out = from_workload(m, a);
    }
    diag_fini(&ignored);
    return m != NULL;
}

/* --- filter state --- */

sv istio_peer_text(const struct kv_value *peer, struct arena *a) {
    BUF_AUTO struct buf b = {0};
    for (uint32_t i = 0; i < peer->fields.n; i++) {
        const struct kv_field *f = &peer->fields.v[i];
        if (f->value.kind == KV_STRING) {
            buf_printf(&b, "%s%.*s=%.*s", buf_empty(&b) ? "" : ",", SV_ARG(f->key),
                       SV_ARG(f->value.s));
        }
    }
    char *text = buf_dup_str(&b);
    sv out = arena_sv(a, sv_cstr(text));
    xfree(text);
    return out;
}

void istio_peer_publish(struct filter_state *fs, bool is_downstream, const struct kv_value *peer,
                        sv text) {
    sv name = is_downstream ? SV("downstream_peer") : SV("upstream_peer");
    if (!filter_state_get(fs, name)) {
        filter_state_set(fs, name, text, peer, false, FILTER_STATE_LOCAL);
        filter_state_set(fs, is_downstream ? SV("downstream_peer_obj") : SV("upstream_peer_obj"),
                         text, peer, false, FILTER_STATE_LOCAL);
    }
}

const struct kv_value *istio_peer_of(const struct filter_state *fs, bool is_downstream) {
    const struct filter_state_object *o =
        filter_state_get(fs, is_downstream ? SV("downstream_peer") : SV("upstream_peer"));
    return o ? o->typed : NULL;
}

/* --- the node --- */

static Pb__Value *string_value(struct arena *a, sv s) {
    Pb__Value *v = arena_new(a, Pb__Value);
    pb__value__init(v);
    v->kind_case = PB__VALUE__KIND_STRING_VALUE;
    v->string_value = arena_cstr(a, s);
    return v;
}
static Pb__Value *struct_value(struct arena *a, Pb__Struct *m) {
    Pb__Value *v = arena_new(a, Pb__Value);
    pb__value__init(v);
    v->kind_case = PB__VALUE__KIND_STRUCT_VALUE;
    v->struct_value = m;
    return v;
}
static Pb__Struct *struct_new(struct arena *a) {
    Pb__Struct *m = arena_new(a, Pb__Struct);
    pb__struct__init(m);
    m->fields = arena_new_array(a, Pb__Struct__FieldsEntry *, NODE_FIELDS_MAX);
    return m;
}
/* Keys come in ascending order: the bytes are the same each time. */
static void put(struct arena *a, Pb__Struct *m, const char *key, Pb__Value *value) {
    CHECK(m->n_fields < NODE_FIELDS_MAX);
    Pb__Struct__FieldsEntry *e = arena_new(a, Pb__Struct__FieldsEntry);
    pb__struct__fields_entry__init(e);
    e->key = arena_cstr(a, sv_cstr(key));
    e->value = value;
    m->fields[m->n_fields++] = e;
}
static void put_field(struct arena *a, Pb__Struct *m, const char *key, const struct kv_value *peer,
                      const char *field) {
    sv s = istio_peer_field(peer, sv_cstr(field));
    if (s.n) {
        put(a, m, key, string_value(a, s));
    }
}

/* A peer as node metadata again. */
static Pb__Struct *to_metadata(const struct kv_value *peer, struct arena *a) {
    Pb__Struct *m = struct_new(a), *labels = struct_new(a);
    sv type = istio_peer_field(peer, SV("type"));
    put_field(a, labels, "app", peer, "app");
    put_field(a, labels, "service.istio.io/canonical-name", peer, "service");
    put_field(a, labels, "service.istio.io/canonical-revision", peer, "revision");
    put_field(a, labels, "version", peer, "version");
    put_field(a, m, "CLUSTER_ID", peer, "cluster");
    put(a, m, "LABELS", struct_value(a, labels));
    put_field(a, m, "NAME", peer, "name");
    put_field(a, m, "NAMESPACE", peer, "namespace");
    if (type.n) {
        sv owner = arena_printf(a, OWNER_PREFIX "%.*s/%.*ss/%.*s",
                                SV_ARG(istio_peer_field(peer, SV("namespace"))), SV_ARG(type),
                                SV_ARG(istio_peer_field(peer, SV("workload"))));
        put(a, m, "OWNER", string_value(a, owner));
    }
    put_field(a, m, "WORKLOAD_NAME", peer, "workload");
    return m;
}

static void store_u32(char *at, uint32_t v) {
    for (unsigned i = 0; i < 4; i++) {
        at[i] = (char)(v >> (24 - 8 * i));
    }
}

/* magic, length, google.protobuf.Any of a Struct with both headers' contents. */
static sv preface_of(Pb__Struct *metadata, sv id, struct arena *a) {
    Pb__Struct *m = struct_new(a);
    put(a, m, ISTIO_PEER_HEADER, struct_value(a, metadata));
    if (id.n) {
        put(a, m, ISTIO_PEER_ID_HEADER, string_value(a, id));
    }
    sv any = proto_pack(&any_pack(&m->base, a)->base, a);
    char *out = arena_alloc(a, PREFACE_HEAD_BYTES + any.n);
    store_u32(out, PREFACE_MAGIC);
    store_u32(out + 4, (uint32_t)any.n);
    memcpy(out + PREFACE_HEAD_BYTES, any.p, any.n);
    return sv_from(out, PREFACE_HEAD_BYTES + any.n);
}

static sv header_of(Pb__Struct *metadata, struct arena *a) {
    BUF_AUTO struct buf b = {0};
    base64_encode(&b, proto_pack(&metadata->base, a), BASE64_STANDARD);
    char *text = buf_dup_str(&b);
    sv out = arena_sv(a, sv_cstr(text));
    xfree(text);
    return out;
}

static void *make_node(struct compile_ctx *ctx, struct arena *a) {
    const Core__Node *node = compile_node(ctx);
    struct istio_node *n = arena_new(a, struct istio_node);
    struct kv_value metadata =
        node && node->metadata ? kv_from_struct(node->metadata, a) : kv_empty_struct();
    n->id = node ? arena_sv(a, sv_cstr(node->id)) : SV("");
    n->version = istio_peer_field(&metadata, SV("ISTIO_VERSION"));
    n->me = from_metadata(&metadata, NULL, 0, a);
    Pb__Struct *told = to_metadata(&n->me, a);
    n->header = header_of(told, a);
    n->preface = preface_of(told, n->id, a);
    return n;
}

const struct istio_node *istio_node(struct compile_ctx *ctx) {
    return compile_shared(ctx, "istio_node", make_node);
}
