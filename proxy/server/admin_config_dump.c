/* GET /config_dump: what is served, from the wire bytes of the resources, one element at a time so
 * that nothing waits.
 * Threads: main. Spec: admin.v3 ConfigDump messages; parameters resource, mask, name_regex,
 * include_eds. Without scopes the scoped-routes section comes with include_eds only: else routes
 * are .configs[3], as runbooks have it. */
#include <jansson.h>
#include <stdio.h>
#include <time.h>

#include "protos/any.h"
#include "protos/gen/hcm.pb-c.h"
#include "protos/gen/listener.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/mem.h"
#include "proxy/base/regex.h"
#include "proxy/server/admin_internal.h"
#include "proxy/server/config_mask.h"

enum list_id {
    LIST_STATIC,
    LIST_ACTIVE,
    LIST_WARMING,
    LIST_GROUPED,
    LIST_INLINE_ROUTES,
    LIST_INLINE_SCOPES
};
struct dump_list {
    const char *field;   /* also the value of ?resource= */
    const char *element; /* message name below …ConfigDump */
    enum list_id id;
};
/* What becomes of a section without elements. */
enum when_empty { EMPTY_IS_SHOWN, EMPTY_COMES_WITH_EDS, EMPTY_IS_LEFT_OUT };
struct dump_section {
    const char *dump;   /* message name in envoy.admin.v3 */
    const char *config; /* the field of an element that holds the resource */
    enum resource_type type;
    bool is_full_only, has_version; /* only with include_eds; has a version */
    enum when_empty when_empty;
    struct dump_list lists[3];
};
static const struct dump_section sections[] = {
    {"ClustersConfigDump",
     "cluster",
     RES_CLUSTER,
     false,
     true,
     EMPTY_IS_SHOWN,
     {{"static_clusters", "StaticCluster", LIST_STATIC},
      {"dynamic_active_clusters", "DynamicCluster", LIST_ACTIVE},
      {"dynamic_warming_clusters", "DynamicCluster", LIST_WARMING}}},
    {"EcdsConfigDump",
     "ecds_filter",
     RES_EXTENSION,
     false,
     false,
     EMPTY_IS_LEFT_OUT,
     {{"ecds_filters", "EcdsFilterConfig", LIST_ACTIVE}, {0}, {0}}},
    {"EndpointsConfigDump",
     "endpoint_config",
     RES_ENDPOINTS,
     true,
     false,
     EMPTY_IS_SHOWN,
     {{"static_endpoint_configs", "StaticEndpointConfig", LIST_STATIC},
      {"dynamic_endpoint_configs", "DynamicEndpointConfig", LIST_ACTIVE},
      {0}}},
    {"ListenersConfigDump",
     "listener",
     RES_LISTENER,
     false,
     true,
     EMPTY_IS_SHOWN,
     {{"static_listeners", "StaticListener", LIST_STATIC},
      {"dynamic_listeners", "DynamicListener", LIST_GROUPED},
      {0}}},
    {"ScopedRoutesConfigDump",
     "scoped_route_configs",
     RES_SCOPED_ROUTE,
     false,
     false,
     EMPTY_COMES_WITH_EDS,
     {{"inline_scoped_route_configs", "InlineScopedRouteConfigs", LIST_INLINE_SCOPES},
      {"dynamic_scoped_route_configs", "DynamicScopedRouteConfigs", LIST_ACTIVE},
      {0}}},
    {"RoutesConfigDump",
     "route_config",
     RES_ROUTE,
     false,
     false,
     EMPTY_IS_SHOWN,
     {{"static_route_configs", "StaticRouteConfig", LIST_INLINE_ROUTES},
      {"dynamic_route_configs", "DynamicRouteConfig", LIST_ACTIVE},
      {0}}},
    {"SecretsConfigDump",
     "secret",
     RES_SECRET,
     false,
     false,
     EMPTY_IS_SHOWN,
     {{"static_secrets", "StaticSecret", LIST_STATIC},
      {"dynamic_active_secrets", "DynamicSecret", LIST_ACTIVE},
      {"dynamic_warming_secrets", "DynamicSecret", LIST_WARMING}}},
};
#define LISTS_MAX 3

struct dump {
    struct server *server;
    struct view *view;
    struct json_writer w;
    struct regex *name;
    sv mask;                         /* heap; empty: none */
    const struct dump_section *only; /* ?resource= */
    const struct dump_list *only_list;
    bool include_eds, is_begun, is_list_open, is_section_open;
    int section; /* -1: the bootstrap */
    unsigned list, item;
    struct arena scratch;
};

/* ---- pieces of JSON ---- */

static void timestamp(struct json_writer *w, const char *key, uint64_t us) {
    char text[40], full[64];
    time_t t = (time_t)(us / 1000000);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(full, sizeof(full), "%s.%03uZ", text, (unsigned)(us / 1000 % 1000));
    json_key(w, sv_cstr(key));
    json_str(w, sv_from(full, (size_t)n));
}

static void pair(struct json_writer *w, const char *key, sv v) {
    if (v.n) {
        json_key(w, sv_cstr(key));
        json_str(w, v);
    }
}

/* The resource as an Any, opened. */
static void any_element(struct json_writer *w, enum resource_type t, sv wire) {
    Pb__Any any;
    pb__any__init(&any);
    any.type_url = resource_types[t].type_url;
    any.value = (ProtobufCBinaryData){wire.n, (uint8_t *)(uintptr_t)wire.p};
    pb_json_write(w, &any.base, PB_JSON_REDACT);
}

static void config(struct json_writer *w, const char *key, enum resource_type t, sv wire) {
    json_key(w, sv_cstr(key));
    any_element(w, t, wire);
}

void admin_json_timestamp(struct json_writer *w, const char *key, uint64_t us) {
    timestamp(w, key, us);
}

void admin_json_config(struct json_writer *w, const char *key, enum resource_type t, sv wire) {
    config(w, key, t, wire);
}

static void error_state(struct json_writer *w, const struct view_item *it) {
    const struct resource *refused = it->refused ? it->refused : it->resource;
    json_key(w, SV("error_state"));
    json_obj(w);
    if (refused->wire.n) { /* else there is none, or it was too large to keep */
        config(w, "failed_configuration", refused->type, refused->wire);
    }
    timestamp(w, "last_update_attempt", it->error_us);
    pair(w, "details", sv_cstr(it->error));
    pair(w, "version_info", it->resource->version);
    json_end(w);
}

void admin_json_error_state(struct json_writer *w, const struct view_item *refused) {
    error_state(w, refused);
}

/* Is the item of the same resource as `it`, one further in the sorted view? */
static const struct view_item *next_of_same(const struct dump *d, const struct view_item *it) {
    const struct view_item *n = it + 1;
    bool is_same = n < d->view->items + d->view->items_n &&
                   n->resource->type == it->resource->type &&
                   sv_eq(n->resource->name, it->resource->name);
    return is_same ? n : NULL;
}

static void grouped_element(struct dump *d, const struct dump_section *s,
                            const struct view_item *it) {
    static const char *const state_keys[] = {"active_state", "warming_state", "draining_state"};
    struct json_writer *w = &d->w;
    pair(w, "name", it->resource->name);
    for (; it; it = next_of_same(d, it)) {
        if (it->status == VIEW_ERROR) {
            error_state(w, it);
            continue;
        }
        json_key(w, sv_cstr(state_keys[it->status]));
        json_obj(w);
        pair(w, "version_info", it->resource->version);
        config(w, s->config, s->type, it->resource->wire);
        timestamp(w, "last_updated", it->resource->updated_us);
        json_end(w);
    }
}

static void members(struct json_writer *w, const struct dump_section *s,
                    const struct view_item *it) {
    json_key(w, sv_cstr(s->config));
    json_arr(w);
    for (unsigned i = 0; i < it->members_n; i++) {
        any_element(w, s->type, it->members[i]->wire);
    }
    json_end(w);
}

static void plain_element(struct dump *d, const struct dump_section *s,
                          const struct view_item *it) {
    struct json_writer *w = &d->w;
    if (s->type == RES_SECRET || s->type == RES_SCOPED_ROUTE) {
        pair(w, "name", it->resource->name);
    }
    pair(w, "version_info", it->resource->version);
    if (s->type == RES_SCOPED_ROUTE) {
        members(w, s, it);
    } else {
        config(w, s->config, s->type, it->resource->wire);
    }
    timestamp(w, "last_updated", it->resource->updated_us);
    const struct view_item *next = next_of_same(d, it);
    if (next && next->status == VIEW_ERROR) {
        error_state(w, next);
    }
}

/* ---- one element ---- */

static void open_section(struct dump *d, const struct dump_section *s) {
    d->is_section_open = true;
    if (d->only) {
        return;
    }
    char type[96];
    int n = snprintf(type, sizeof(type), "type.googleapis.com/envoy.admin.v3.%s", s->dump);
    json_obj(&d->w);
    json_key(&d->w, SV("@type"));
    json_str(&d->w, sv_from(type, (size_t)n));
    if (s->has_version && !d->mask.n) {
        pair(&d->w, "version_info",
             sv_cstr(s->type == RES_CLUSTER ? d->view->cds_version : d->view->lds_version));
    }
}

static void element_begin(struct dump *d, const struct dump_section *s, const struct dump_list *l) {
    if (!d->is_section_open) {
        open_section(d, s);
    }
    if (!d->is_list_open && !d->only) {
        json_key(&d->w, sv_cstr(l->field));
        json_arr(&d->w);
        d->is_list_open = true;
    }
    json_obj(&d->w);
    if (d->only) {
        char type[160];
        int n = snprintf(type, sizeof(type), "type.googleapis.com/envoy.admin.v3.%s.%s", s->dump,
                         l->element);
        json_key(&d->w, SV("@type"));
        json_str(&d->w, sv_from(type, (size_t)n));
    }
}

static void write_element(struct dump *d, const struct dump_section *s, const struct dump_list *l,
                          const struct view_item *it) {
    element_begin(d, s, l);
    if (l->id == LIST_GROUPED) {
        grouped_element(d, s, it);
    } else {
        plain_element(d, s, it);
    }
    json_end(&d->w);
}

/* Those in a listener's connection managers. */
static bool is_inline(const struct dump_list *l) {
    return l->id == LIST_INLINE_ROUTES || l->id == LIST_INLINE_SCOPES;
}

static void inline_table(struct dump *d, const struct dump_section *s, const struct dump_list *l,
                         const struct view_item *it, const Hcm__HttpConnectionManager *h) {
    if (h->route_specifier_case != HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG) {
        return;
    }
    element_begin(d, s, l);
    config(&d->w, "route_config", RES_ROUTE, proto_pack(&h->route_config->base, &d->scratch));
    timestamp(&d->w, "last_updated", it->resource->updated_us);
    json_end(&d->w);
}

static void inline_scopes(struct dump *d, const struct dump_section *s, const struct dump_list *l,
                          const struct view_item *it, const Hcm__HttpConnectionManager *h) {
    const Hcm__ScopedRoutes *m =
        h->route_specifier_case == HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_SCOPED_ROUTES
            ? h->scoped_routes
            : NULL;
    if (!m || m->config_specifier_case !=
                  HCM__SCOPED_ROUTES__CONFIG_SPECIFIER_SCOPED_ROUTE_CONFIGURATIONS_LIST) {
        return;
    }
    const Hcm__ScopedRouteConfigurationsList *v = m->scoped_route_configurations_list;
    element_begin(d, s, l);
    pair(&d->w, "name", sv_cstr(m->name));
    json_key(&d->w, SV("scoped_route_configs"));
    json_arr(&d->w);
    for (size_t i = 0; i < v->n_scoped_route_configurations; i++) {
        any_element(&d->w, RES_SCOPED_ROUTE,
                    proto_pack(&v->scoped_route_configurations[i]->base, &d->scratch));
    }
    json_end(&d->w);
    timestamp(&d->w, "last_updated", it->resource->updated_us);
    json_end(&d->w);
}

/* The inline route tables or scopes of a listener's connection managers. */
static void inline_routes(struct dump *d, const struct dump_section *s, const struct dump_list *l,
                          const struct view_item *it) {
    struct diag diag;
    diag_init(&diag);
    arena_reset(&d->scratch);
    const Listener__Listener *m = PROTO_UNPACK(Listener__Listener, listener__listener__descriptor,
                                               it->resource->wire, &d->scratch, &diag);
    for (size_t c = 0; m && c <= m->n_filter_chains; c++) {
        const Listener__FilterChain *chain =
            c < m->n_filter_chains ? m->filter_chains[c] : m->default_filter_chain;
        for (size_t f = 0; chain && f < chain->n_filters; f++) {
            const Pb__Any *any =
                chain->filters[f]->config_type_case == LISTENER__FILTER__CONFIG_TYPE_TYPED_CONFIG
                    ? chain->filters[f]->typed_config
                    : NULL;
            if (!any || !sv_is(any_inner_name(any, &d->scratch),
                               hcm__http_connection_manager__descriptor.name)) {
                continue;
            }
            const Hcm__HttpConnectionManager *h =
                (const Hcm__HttpConnectionManager *)(const void *)any_unpack(any, SV("hcm"),
                                                                             &d->scratch, &diag);
            if (h) {
                (l->id == LIST_INLINE_ROUTES ? inline_table : inline_scopes)(d, s, l, it, h);
            }
        }
    }
    diag_fini(&diag);
}

static bool belongs(const struct dump *d, const struct dump_section *s, const struct dump_list *l,
                    const struct view_item *it) {
    enum resource_type type = is_inline(l) ? RES_LISTENER : s->type;
    if (it->resource->type != type ||
        (d->name && !regex_partial_match(d->name, it->resource->name.p, it->resource->name.n))) {
        return false;
    }
    switch (l->id) {
    case LIST_STATIC:
        return it->is_static && it->status == VIEW_ACTIVE;
    case LIST_ACTIVE:
        return !it->is_static && it->status == VIEW_ACTIVE;
    case LIST_WARMING:
        return !it->is_static && it->status == VIEW_WARMING;
    case LIST_GROUPED: /* the first of each name */
        return !it->is_static && (it == d->view->items || it[-1].resource->type != type ||
                                  !sv_eq(it[-1].resource->name, it->resource->name));
    case LIST_INLINE_ROUTES:
    case LIST_INLINE_SCOPES:
        return it->status == VIEW_ACTIVE;
    }
    return false;
}

/* ---- masks without ?resource=: which sections and lists are shown ---- */

static bool mask_has(const struct dump *d, const char *field) {
    sv rest = d->mask;
    while (rest.n) {
        sv path = sv_cut(&rest, ',');
        if (sv_is(sv_cut(&path, '.'), field)) {
            return true;
        }
    }
    return false;
}

static bool list_shown(const struct dump *d, const struct dump_list *l) {
    if (d->only) {
        return l == d->only_list;
    }
    return !d->mask.n || mask_has(d, l->field);
}

static bool section_shown(const struct dump *d, const struct dump_section *s) {
    if (s->is_full_only && !d->include_eds) {
        return false;
    }
    for (size_t i = 0; i < LISTS_MAX && s->lists[i].field; i++) {
        if (list_shown(d, &s->lists[i])) {
            return true;
        }
    }
    return false;
}

static bool mask_leads_anywhere(const struct dump *d) {
    bool any = mask_has(d, "bootstrap");
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        any |= section_shown(d, &sections[i]);
    }
    return any;
}

/* ---- walking sections, lists, items ---- */

static void bootstrap_section(struct dump *d) {
    struct json_writer *w = &d->w;
    json_obj(w);
    json_key(w, SV("@type"));
    json_str(w, SV("type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"));
    json_key(w, SV("bootstrap"));
    Bootstrap__Bootstrap shown = *d->server->bootstrap;
    shown.node = (Core__Node *)(uintptr_t)d->server->node;
    pb_json_write(w, &shown.base, PB_JSON_REDACT);
    timestamp(w, "last_updated", d->server->started_us);
    json_end(w);
}

static void close_section(struct dump *d) {
    if (d->is_section_open && !d->only) {
        json_end(&d->w);
    }
    d->is_section_open = false;
    d->section++;
    d->list = d->item = 0;
}

static void close_list(struct dump *d) {
    if (d->is_list_open) {
        json_end(&d->w);
        d->is_list_open = false;
    }
    d->list++;
    d->item = 0;
}

static void masked_element(struct dump *d, const struct dump_section *s, const struct dump_list *l,
                           const struct view_item *it) {
    struct json_writer outer = d->w;
    struct buf BUF_AUTO text;
    buf_init(&text);
    json_begin(&d->w, &text, 0);
    if (is_inline(l)) {
        json_arr(&d->w);
        inline_routes(d, s, l, it);
        json_end(&d->w);
    } else {
        write_element(d, s, l, it);
    }
    d->w = outer;
    struct buf BUF_AUTO kept;
    buf_init(&kept);
    config_mask_apply(buf_pullup(&text, buf_len(&text)), d->mask, &kept);
    if (!buf_empty(&kept)) {
        json_raw(&d->w, buf_pullup(&kept, buf_len(&kept)));
    }
}

/* One item of the open section; false: the list is through. */
static bool step_list(struct dump *d, const struct dump_section *s, const struct dump_list *l) {
    while (d->item < d->view->items_n) {
        const struct view_item *it = &d->view->items[d->item++];
        if (!belongs(d, s, l, it)) {
            continue;
        }
        if (d->mask.n && d->only) {
            masked_element(d, s, l, it);
        } else if (is_inline(l)) {
            inline_routes(d, s, l, it);
        } else {
            write_element(d, s, l, it);
        }
        return true;
    }
    return false;
}

/* False: everything is written. */
static bool step(struct dump *d) {
    if (d->section < 0) {
        if (!d->only && (!d->mask.n || mask_has(d, "bootstrap"))) {
            bootstrap_section(d);
        }
        d->section = 0;
        return true;
    }
    if (d->section >= (int)ARRAY_LEN(sections)) {
        return false;
    }
    const struct dump_section *s = &sections[d->section];
    if (!section_shown(d, s)) {
        d->section++;
        return true;
    }
    bool is_due = s->when_empty == EMPTY_IS_SHOWN ||
                  (s->when_empty == EMPTY_COMES_WITH_EDS && d->include_eds);
    if (!d->is_section_open && is_due) {
        open_section(d, s);
    }
    if (d->list >= LISTS_MAX || !s->lists[d->list].field) {
        close_section(d);
        return true;
    }
    const struct dump_list *l = &s->lists[d->list];
    if (!list_shown(d, l) || !step_list(d, s, l)) {
        close_list(d);
    }
    return true;
}

static bool next(void *state, struct buf *out) {
    struct dump *d = state;
    d->w.out = out;
    if (!d->is_begun) {
        d->is_begun = true;
        json_begin(&d->w, out, 1);
        json_obj(&d->w);
        json_key(&d->w, SV("configs"));
        json_arr(&d->w);
    }
    while (buf_len(out) < ADMIN_PIECE_BYTES) {
        if (!step(d)) {
            json_end(&d->w);
            json_end(&d->w);
            buf_lit(out, "\n");
            return false;
        }
    }
    return true;
}

static void free_dump(void *state) {
    struct dump *d = state;
    view_free(d->view);
    regex_free(d->name);
    arena_fini(&d->scratch);
    char *mask = (char *)(uintptr_t)d->mask.p;
    xfree(mask);
    xfree(d);
}

/* ---- the request ---- */

static bool find_resource(struct dump *d, sv name) {
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        for (size_t k = 0; k < LISTS_MAX && sections[i].lists[k].field; k++) {
            if (sv_is(name, sections[i].lists[k].field)) {
                d->only = &sections[i];
                d->only_list = &sections[i].lists[k];
                d->include_eds |= sections[i].is_full_only;
                return true;
            }
        }
    }
    return false;
}

/* Does a path of the mask begin with a field of the asked elements? */
static bool mask_fits_elements(const struct dump *d) {
    static const char *const fields[] = {"name",          "version_info",  "last_updated",
                                         "client_status", "active_state",  "warming_state",
                                         "error_state",   "draining_state"};
    bool fits = mask_has(d, d->only->config);
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        fits |= mask_has(d, fields[i]);
    }
    return fits;
}

/* False: answered. */
static bool read_params(struct admin_stream *a, struct dump *d) {
    struct arena *ar = http_arena(&a->base);
    char err[160];
    sv resource = admin_param(a, "resource"), name = admin_param(a, "name_regex"),
       mask = admin_param(a, "mask");
    d->include_eds = admin_param(a, "include_eds").p != NULL;
    if (resource.n && !find_resource(d, resource)) {
        admin_reply(a, 404, ADMIN_TEXT,
                    arena_printf(ar, "%.*s not found in config dump", SV_ARG(resource)));
        return false;
    }
    if (name.n && !(d->name = regex_new(name.p, name.n, err, sizeof(err)))) {
        admin_reply(a, 400, ADMIN_TEXT,
                    arena_printf(ar,
                                 "INVALID_ARGUMENT: Error while parsing name_regex from %.*s: %s",
                                 SV_ARG(name), err));
        return false;
    }
    d->mask = mask.n ? sv_cstr(sv_dup(mask)) : SV_NULL;
    if (mask.n &&
        (!config_mask_valid(mask) || !(d->only ? mask_fits_elements(d) : mask_leads_anywhere(d)))) {
        admin_reply(a, 400, ADMIN_TEXT,
                    arena_printf(ar,
                                 "FieldMask %.*s could not be successfully applied to any configs.",
                                 SV_ARG(mask)));
        return false;
    }
    return true;
}

static void on_view(struct admin_stream *a, struct view *view) {
    struct dump *d = xnew(struct dump);
    d->server = a->server;
    d->view = view;
    d->section = -1;
    arena_init(&d->scratch, 65536);
    if (!read_params(a, d)) {
        free_dump(d);
        return;
    }
    struct admin_producer p = {next, free_dump, d};
    admin_produce(a, ADMIN_JSON, &p);
}

void admin_config_dump(struct admin_stream *a) {
    admin_view(a,
               1u << RES_CLUSTER | 1u << RES_LISTENER | 1u << RES_ROUTE | 1u << RES_SECRET |
                   1u << RES_SCOPED_ROUTE | 1u << RES_ENDPOINTS | 1u << RES_EXTENSION,
               on_view);
}
