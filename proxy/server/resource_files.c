/* Dumped resources: see resource_files.h. Spec: service.discovery.v3, admin.v3.ConfigDump; proto3
 * JSON. */
#include "proxy/server/resource_files.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "protos/any.h"
#include "protos/gen/service_discovery.pb-c.h"
#include "protos/pb_yaml.h"
#include "proxy/config/config.h"

#define DUMP_DEPTH_MAX 8u /* objects and lists from "configs" down to a resource */

struct file {
    struct resource_files *all;
    sv path;
    unsigned list;
    bool is_dump;
};

void resource_files_init(struct resource_files *f, enum pb_json_unknown unknown) {
    *f = (struct resource_files){.unknown = unknown};
    arena_init(&f->arena, 65536);
}

void resource_files_fini(struct resource_files *f) {
    vec_fini(&f->v);
    arena_fini(&f->arena);
}

/* ---- one resource ---- */

static struct file_resource *add(struct file *f, sv type_url) {
    struct file_resource *r = vec_push(&f->all->v);
    r->file = f->path;
    r->type = resource_type_of(type_url);
    r->type_name = arena_sv(&f->all->arena, any_url_name(type_url));
    r->list = f->list;
    r->is_dump = f->is_dump;
    if (r->type == RES_TYPES) {
        r->error = SV("it is of no type that is discovered");
    }
    return r;
}

static void add_wire(struct file *f, sv type_url, sv wire) {
    struct file_resource *r = add(f, type_url);
    if (r->type < RES_TYPES) {
        r->wire = arena_sv(&f->all->arena, wire);
        r->name = resource_name_of(r->type, r->wire);
    }
}

static sv string_of(json_t *object, const char *key) {
    json_t *v = json_object_get(object, key);
    return json_is_string(v) ? sv_from(json_string_value(v), json_string_length(v)) : SV_NULL;
}

static void add_json(struct file *f, json_t *v) {
    struct arena *a = &f->all->arena;
    struct file_resource *r = add(f, string_of(v, "@type"));
    sv name = string_of(v, "name");
    name = name.n ? name : string_of(v, "cluster_name");
    r->name = arena_sv(a, name.n ? name : string_of(v, "clusterName"));
    if (r->type == RES_TYPES) {
        return;
    }
    struct diag d;
    diag_init(&d);
    const Pb__Any *any = (const Pb__Any *)(const void *)pb_json_parse(
        any_type(SV("google.protobuf.Any")), v, f->all->unknown, a, &d);
    if (any) {
        r->wire = sv_from(any->value.data ? (const char *)any->value.data : "", any->value.len);
    } else {
        r->error = arena_sv(a, diag_text(&d));
    }
    diag_fini(&d);
}

/* ---- JSON and YAML ---- */

/* An element of a response: a resource, or a wrapper of one. */
static void add_element(struct file *f, json_t *v) {
    json_t *inner = json_object_get(v, "resource");
    sv type = string_of(v, "@type");
    if (json_is_object(inner) &&
        (!type.n || sv_is(any_url_name(type), service_discovery__resource__descriptor.name))) {
        v = inner;
    }
    add_json(f, v);
}

static void add_list(struct file *f, json_t *list) {
    f->list = ++f->all->lists;
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) { add_element(f, v); }
}

/* Every resource of a /config_dump, but what it shows as refused and the bootstrap. */
static void walk_dump(struct file *f, json_t *v, unsigned depth) {
    if (depth > DUMP_DEPTH_MAX) {
        return;
    }
    size_t i;
    const char *key;
    json_t *child;
    json_array_foreach(v, i, child) { walk_dump(f, child, depth + 1); }
    if (json_is_object(v) && resource_type_of(string_of(v, "@type")) < RES_TYPES) {
        add_json(f, v);
        return;
    }
    json_object_foreach(v, key, child) {
        if (strcmp(key, "error_state") != 0 && strcmp(key, "bootstrap") != 0) {
            walk_dump(f, child, depth + 1);
        }
    }
}

static bool add_tree(struct file *f, json_t *v, struct diag *d) {
    json_t *list = json_is_array(v) ? v : json_object_get(v, "resources");
    json_t *configs = json_object_get(v, "configs");
    if (json_is_array(configs)) {
        f->is_dump = true;
        walk_dump(f, configs, 0);
        return true;
    }
    if (json_is_array(list)) {
        add_list(f, list);
        return true;
    }
    if (string_of(v, "@type").n) {
        add_element(f, v);
        return true;
    }
    return diag_error(d, "'%.*s' holds neither \"resources\" nor \"configs\" nor a resource",
                      SV_ARG(f->path));
}

static bool read_tree(struct file *f, sv text, struct diag *d) {
    json_t *tree;
    DIAG_FIELD(d, "%.*s", SV_ARG(f->path));
    if (sv_ends(f->path, SV(".json"))) {
        json_error_t e;
        tree = json_loadb(text.p, text.n, 0, &e);
        if (!tree) {
            return diag_error(d, "unable to parse JSON: %s (line %d, column %d)", e.text, e.line,
                              e.column);
        }
    } else if (!(tree = pb_yaml_parse(text, d))) {
        return false;
    }
    bool ok = add_tree(f, tree, d);
    json_decref(tree);
    return ok;
}

/* ---- binary ---- */

static bool is_url(const char *s) { return strchr(s, '/') != NULL; }

/* Both kinds of response read as the other without an error: a resource's type URL tells. */
static bool is_sotw(const ServiceDiscovery__DiscoveryResponse *m) {
    for (size_t i = 0; m && i < m->n_resources; i++) {
        if (!is_url(m->resources[i]->type_url)) {
            return false;
        }
    }
    return m != NULL;
}

static void add_any(struct file *f, const Pb__Any *any) {
    sv url = any ? sv_cstr(any->type_url) : SV("");
    sv wire =
        any && any->value.len ? sv_from((const char *)any->value.data, any->value.len) : SV("");
    if (!sv_is(any_url_name(url), service_discovery__resource__descriptor.name)) {
        add_wire(f, url, wire);
        return;
    }
    struct diag d;
    diag_init(&d);
    const ServiceDiscovery__Resource *r =
        PROTO_UNPACK(ServiceDiscovery__Resource, service_discovery__resource__descriptor, wire,
                     &f->all->arena, &d);
    if (r && r->resource) {
        add_wire(f, sv_cstr(r->resource->type_url),
                 sv_from((const char *)r->resource->value.data, r->resource->value.len));
    } else {
        add(f, url)->error = arena_sv(&f->all->arena, r ? SV("it is empty") : diag_text(&d));
    }
    diag_fini(&d);
}

static bool read_binary(struct file *f, sv wire, struct diag *d) {
    DIAG_FIELD(d, "%.*s", SV_ARG(f->path));
    struct diag ignored; /* a delta response may not read as the other kind */
    diag_init(&ignored);
    const ServiceDiscovery__DiscoveryResponse *m = PROTO_UNPACK(
        ServiceDiscovery__DiscoveryResponse, service_discovery__discovery_response__descriptor,
        wire, &f->all->arena, &ignored);
    diag_fini(&ignored);
    f->list = ++f->all->lists;
    if (is_sotw(m)) {
        for (size_t i = 0; i < m->n_resources; i++) {
            add_any(f, m->resources[i]);
        }
        return true;
    }
    const ServiceDiscovery__DeltaDiscoveryResponse *delta = PROTO_UNPACK(
        ServiceDiscovery__DeltaDiscoveryResponse,
        service_discovery__delta_discovery_response__descriptor, wire, &f->all->arena, d);
    for (size_t i = 0; delta && i < delta->n_resources; i++) {
        add_any(f, delta->resources[i]->resource);
    }
    return delta != NULL;
}

/* ---- files ---- */

static bool read_bytes(const char *path, struct buf *out, struct diag *d) {
    FILE *f = fopen(path, "re");
    if (!f) {
        return diag_error(d, "unable to open '%s': %s", path, strerror(errno));
    }
    size_t n;
    do {
        char *p = buf_reserve(out, 65536);
        n = fread(p, 1, 65536, f);
        buf_commit(out, n);
    } while (n > 0 && buf_len(out) <= RESOURCE_FILE_BYTES_MAX);
    bool ok = !ferror(f);
    fclose(f);
    if (!ok) {
        return diag_error(d, "unable to read '%s'", path);
    }
    return buf_len(out) <= RESOURCE_FILE_BYTES_MAX ||
           diag_error(d, "'%s' has more than %u bytes", path, RESOURCE_FILE_BYTES_MAX);
}

static bool has_known_end(sv path) {
    return sv_ends(path, SV(".json")) || sv_ends(path, SV(".yaml")) || sv_ends(path, SV(".yml")) ||
           sv_ends(path, SV(".pb"));
}

static bool read_file(struct resource_files *all, const char *path, struct diag *d) {
    struct file f = {.all = all, .path = arena_sv(&all->arena, sv_cstr(path))};
    if (!has_known_end(f.path)) {
        return diag_error(d, "'%s': its name must end in .json, .yaml, .yml or .pb", path);
    }
    struct buf BUF_AUTO bytes;
    buf_init(&bytes);
    if (!read_bytes(path, &bytes, d)) {
        return false;
    }
    sv text = buf_pullup(&bytes, buf_len(&bytes));
    return sv_ends(f.path, SV(".pb")) ? read_binary(&f, text, d) : read_tree(&f, text, d);
}

static int is_candidate(const struct dirent *e) {
    return e->d_name[0] != '.' && has_known_end(sv_cstr(e->d_name));
}

static bool read_dir(struct resource_files *all, const char *path, struct diag *d) {
    struct dirent **names;
    int n = scandir(path, &names, is_candidate, alphasort);
    if (n < 0) {
        return diag_error(d, "unable to list '%s': %s", path, strerror(errno));
    }
    bool ok = n <= (int)RESOURCE_FILES_MAX ||
              diag_error(d, "'%s' has more than %u files", path, RESOURCE_FILES_MAX);
    bool is_listed = ok;
    for (int i = 0; i < n; i++) {
        struct buf BUF_AUTO file;
        buf_init(&file);
        buf_printf(&file, "%s/%s", path, names[i]->d_name);
        char *name = buf_dup_str(&file);
        ok &= is_listed && read_file(all, name, d);
        xfree(name);
        free(names[i]); /* lint: scandir's allocation */
    }
    free(names); /* lint: scandir's allocation */
    return ok && (n > 0 || diag_error(d, "'%s' has no .json, .yaml, .yml or .pb file", path));
}

bool resource_files_read(struct resource_files *f, const char *path, struct diag *d) {
    struct stat st;
    if (stat(path, &st) < 0) {
        return diag_error(d, "unable to open '%s': %s", path, strerror(errno));
    }
    return S_ISDIR(st.st_mode) ? read_dir(f, path, d) : read_file(f, path, d);
}
