/* Bootstrap files: see bootstrap.h. Not here: what is done with them (server/server.c). */
#include "proxy/config/bootstrap.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "protos/any.h"
#include "protos/findings.h"
#include "protos/pb_json.h"
#include "protos/pb_rules.h"
#include "protos/pb_text.h"
#include "protos/pb_yaml.h"
#include "proxy/api/registry.h"
#include "proxy/base/version.h"

#define BOOTSTRAP_BYTES_MAX (512u << 20)

/* ---- reading ---- */

static bool read_file(const char *path, struct buf *out, struct diag *d) {
    FILE *f = fopen(path, "re");
    if (!f) {
        return diag_error(d, "Invalid path: %s", path);
    }
    char *p;
    size_t n;
    do {
        p = buf_reserve(out, 65536);
        n = fread(p, 1, 65536, f);
        buf_commit(out, n);
    } while (n > 0 && buf_len(out) < BOOTSTRAP_BYTES_MAX);
    bool ok = !ferror(f);
    fclose(f);
    return ok || diag_error(d, "unable to read file '%s': %s", path, strerror(errno));
}

static const struct proto_type *bootstrap_type(void) {
    return any_type(SV("envoy.config.bootstrap.v3.Bootstrap"));
}

static json_t *parse_json(sv text, struct diag *d) {
    json_error_t e;
    json_t *v = json_loadb(text.p, text.n, JSON_DECODE_ANY, &e);
    if (!v) {
        diag_error(d, "unable to parse JSON: %s (line %d, column %d)", e.text, e.line, e.column);
    }
    return v;
}

static Bootstrap__Bootstrap *checked(ProtobufCMessage *m, bool allow_unknown, struct diag *d) {
    if (!m) {
        return NULL;
    }
    findings_check(m, allow_unknown ? PB_JSON_UNKNOWN_WARN : PB_JSON_UNKNOWN_ERROR, d);
    pb_rules_check(m, d);
    return diag_ok(d) ? (Bootstrap__Bootstrap *)(void *)m : NULL;
}

static bool is_proto(sv path) { return sv_ends(path, SV(".pb")) || sv_ends(path, SV(".pb_text")); }

static Bootstrap__Bootstrap *load_proto(sv path, sv text, bool allow_unknown, struct arena *a,
                                        struct diag *d) {
    ProtobufCMessage *m = sv_ends(path, SV(".pb"))
                              ? proto_unpack(&bootstrap__bootstrap__descriptor, text, a, d)
                              : pb_text_parse(bootstrap_type(), text, a, d);
    return checked(m, allow_unknown, d);
}

/* A binary or text bootstrap as a tree to merge with; what is in Anys of unknown types stays as it
 * is. */
static json_t *proto_tree(sv path, sv text, bool allow_unknown, struct diag *d) {
    struct arena a;
    arena_init(&a, 65536);
    const Bootstrap__Bootstrap *m = load_proto(path, text, allow_unknown, &a, d);
    json_t *tree = NULL;
    if (m) {
        struct buf BUF_AUTO json;
        buf_init(&json);
        pb_json_append(&json, &m->base, 0, 0);
        tree = parse_json(buf_pullup(&json, buf_len(&json)), d);
    }
    arena_fini(&a);
    return tree;
}

/* `over` wins: objects are merged, lists appended, the rest replaced (proto merge). */
static void merge(json_t *base, json_t *over) {
    const char *key;
    json_t *v;
    json_object_foreach(over, key, v) {
        json_t *have = json_object_get(base, key);
        if (json_is_object(have) && json_is_object(v)) {
            merge(have, v);
        } else if (json_is_array(have) && json_is_array(v)) {
            json_array_extend(have, v);
        } else {
            json_object_set(base, key, v);
        }
    }
}

static json_t *file_tree(sv path, sv text, bool allow_unknown, struct diag *d) {
    if (is_proto(path)) {
        return proto_tree(path, text, allow_unknown, d);
    }
    return sv_ends(path, SV(".json")) ? parse_json(text, d) : pb_yaml_parse(text, d);
}

static json_t *load_tree(sv path, const char *inline_yaml, sv text, bool allow_unknown,
                         struct diag *d) {
    json_t *tree = path.n ? file_tree(path, text, allow_unknown, d) : NULL;
    if (path.n && !tree) {
        return NULL;
    }
    if (!*inline_yaml) {
        return tree;
    }
    json_t *over = pb_yaml_parse(sv_cstr(inline_yaml), d);
    if (!over || !tree) {
        json_decref(tree);
        return over;
    }
    merge(tree, over);
    json_decref(over);
    return tree;
}

Bootstrap__Bootstrap *bootstrap_load(const char *path, const char *inline_yaml, bool allow_unknown,
                                     struct arena *a, struct diag *d) {
    if (!*path && !*inline_yaml) {
        diag_error(d, "At least one of --config-path or --config-yaml or Options::configProto() "
                      "should be non-empty");
        return NULL;
    }
    struct buf BUF_AUTO text;
    buf_init(&text);
    if (*path && !read_file(path, &text, d)) {
        return NULL;
    }
    sv bytes = buf_pullup(&text, buf_len(&text));
    sv name = sv_cstr(path);
    if (is_proto(name) && !*inline_yaml) {
        return load_proto(name, bytes, allow_unknown, a, d);
    }
    json_t *tree = load_tree(name, inline_yaml, bytes, allow_unknown, d);
    if (!tree) {
        return NULL;
    }
    ProtobufCMessage *m = pb_json_parse(
        bootstrap_type(), tree, allow_unknown ? PB_JSON_UNKNOWN_WARN : PB_JSON_UNKNOWN_ERROR, a, d);
    json_decref(tree);
    return m && diag_ok(d) ? checked(m, allow_unknown, d) : NULL;
}

/* ---- node ---- */

static const char *client_features[] = {"envoy.lrs.supports_send_all_clusters"};

struct extension_list {
    Core__Extension **v;
    size_t n;
    struct arena *a;
};

static void add_extension(struct extension_list *l, const char *name, const char *category,
                          const char *type_url) {
    Core__Extension *e = arena_alloc(l->a, sizeof(*e));
    core__extension__init(e);
    e->name = name;
    e->category = category;
    if (type_url && *type_url) {
        const char **urls = arena_alloc(l->a, sizeof(char *));
        urls[0] = type_url;
        e->type_urls = urls;
        e->n_type_urls = 1;
    }
    l->v[l->n++] = e;
}

static void extensions(Core__Node *node, const struct registry *r, struct arena *a) {
    size_t n = r->http_filters_n + r->network_filters_n + r->listener_filters_n +
               r->transport_sockets_n + r->access_loggers_n + r->lb_policies_n + r->tracers_n;
    struct extension_list l = {arena_zalloc_array(a, n, sizeof(Core__Extension *)), 0, a};
    for (unsigned i = 0; i < r->http_filters_n; i++) {
        add_extension(&l, r->http_filters[i]->name, "envoy.filters.http",
                      r->http_filters[i]->type_url);
    }
    for (unsigned i = 0; i < r->network_filters_n; i++) {
        add_extension(&l, r->network_filters[i]->name, "envoy.filters.network",
                      r->network_filters[i]->type_url);
    }
    for (unsigned i = 0; i < r->listener_filters_n; i++) {
        add_extension(&l, r->listener_filters[i]->name, "envoy.filters.listener",
                      r->listener_filters[i]->type_url);
    }
    for (unsigned i = 0; i < r->transport_sockets_n; i++) {
        const struct transport_socket_type *t = r->transport_sockets[i];
        add_extension(&l, t->name,
                      t->is_downstream ? "envoy.transport_sockets.downstream"
                                       : "envoy.transport_sockets.upstream",
                      t->type_url);
    }
    for (unsigned i = 0; i < r->access_loggers_n; i++) {
        add_extension(&l, r->access_loggers[i]->name, "envoy.access_loggers",
                      r->access_loggers[i]->type_url);
    }
    for (unsigned i = 0; i < r->lb_policies_n; i++) {
        add_extension(&l, r->lb_policies[i]->name, "envoy.load_balancing_policies",
                      r->lb_policies[i]->type_url);
    }
    for (unsigned i = 0; i < r->tracers_n; i++) {
        add_extension(&l, r->tracers[i]->name, "envoy.tracers", r->tracers[i]->type_url);
    }
    node->extensions = l.v;
    node->n_extensions = l.n;
}

static void build_version(Core__Node *node, struct arena *a) {
    Core__BuildVersion *bv = arena_alloc(a, sizeof(*bv));
    core__build_version__init(bv);
    Type__SemanticVersion *v = arena_alloc(a, sizeof(*v));
    type__semantic_version__init(v);
    v->major_number = SLUICE_VERSION_MAJOR;
    v->minor_number = SLUICE_VERSION_MINOR;
    v->patch = SLUICE_VERSION_PATCH;
    bv->version = v;
    node->user_agent_version_type_case =
        CORE__NODE__USER_AGENT_VERSION_TYPE_USER_AGENT_BUILD_VERSION;
    node->user_agent_build_version = bv;
}

Core__Node *bootstrap_node(const Bootstrap__Bootstrap *b, const struct node_flags *f,
                           const struct registry *r, struct arena *a) {
    Core__Node *node = arena_alloc(a, sizeof(*node));
    if (b->node) {
        *node = *b->node;
    } else {
        core__node__init(node);
    }
    if (f->cluster && *f->cluster) {
        node->cluster = f->cluster;
    }
    if (f->id && *f->id) {
        node->id = f->id;
    }
    if (f->zone && *f->zone) {
        Core__Locality *l = arena_alloc(a, sizeof(*l));
        if (node->locality) {
            *l = *node->locality;
        } else {
            core__locality__init(l);
        }
        l->zone = f->zone;
        node->locality = l;
    }
    node->user_agent_name = "sluice";
    build_version(node, a);
    extensions(node, r, a);
    node->client_features = client_features;
    node->n_client_features = ARRAY_LEN(client_features);
    return node;
}
