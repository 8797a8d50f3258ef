/* GET /config_dump: what is served, from the wire bytes of the resources, a bit at a time so that
 * nothing waits.
 * Threads: main. Spec: admin.v3 ConfigDump messages; parameters resource, mask, name_regex,
 * include_eds. Without scopes the scoped-routes section comes with include_eds only: else routes
 * are .configs[3], as runbooks have it. */
#include <stdio.h>

#include "protos/field_mask.h"
#include "proxy/base/mem.h"
#include "proxy/base/regex.h"
#include "proxy/server/admin_endpoints.h"
#include "proxy/server/admin_inline.h"
#include "proxy/server/admin_internal.h"

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
    bool include_eds, is_begun, is_open, is_list_open, is_section_open, is_element_open;
    int section; /* -1: the bootstrap */
    unsigned list, item;
    struct admin_script script;      /* what is left of the open element */
    struct admin_inline in_managers; /* what is left of the open listener */
    struct admin_endpoints hosts;    /* what is left of the open cluster's */
    Bootstrap__Bootstrap shown;
};

/* ---- elements ---- */

static void error_state(struct admin_script *x, const struct view_item *it) {
    const struct resource *refused = it->refused ? it->refused : it->resource;
    admin_script_obj(x, "error_state");
    if (refused->wire.n) { /* else there is none, or it was too large to keep */
        admin_script_resource(x, "failed_configuration", refused->type, refused->wire);
    }
    admin_script_time(x, "last_update_attempt", it->error_us);
    admin_script_text(x, "details", sv_cstr(it->error));
    admin_script_text(x, "version_info", it->resource->version);
    admin_script_end(x);
}

void admin_script_error_state(struct admin_script *x, const struct view_item *refused) {
    error_state(x, refused);
}

/* config.route.v3.RouteConfiguration.virtual_hosts */
#define ROUTE_VIRTUAL_HOSTS 2

static sv member(void *item, size_t i) {
    return ((const struct view_item *)item)->members[i]->wire;
}

void admin_script_item(struct admin_script *x, const char *key, const struct view_item *it) {
    const struct resource *r = it->resource;
    const struct pb_json_more hosts = {.field = ROUTE_VIRTUAL_HOSTS,
                                       .n = r->type == RES_ROUTE ? it->members_n : 0,
                                       .item = member,
                                       .user = (void *)(uintptr_t)it};
    admin_script_resource_with(x, key, r->type, r->wire, &hosts);
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
    struct admin_script *x = &d->script;
    admin_script_text(x, "name", it->resource->name);
    for (; it; it = next_of_same(d, it)) {
        if (it->status == VIEW_ERROR) {
            error_state(x, it);
            continue;
        }
        admin_script_obj(x, state_keys[it->status]);
        admin_script_text(x, "version_info", it->resource->version);
        admin_script_resource(x, s->config, s->type, it->resource->wire);
        admin_script_time(x, "last_updated", it->resource->updated_us);
        admin_script_end(x);
    }
}

static void members(struct admin_script *x, const struct dump_section *s,
                    const struct view_item *it) {
    admin_script_arr(x, s->config);
    for (unsigned i = 0; i < it->members_n; i++) {
        admin_script_resource(x, NULL, s->type, it->members[i]->wire);
    }
    admin_script_end(x);
}

static void plain_element(struct dump *d, const struct dump_section *s,
                          const struct view_item *it) {
    struct admin_script *x = &d->script;
    if (s->type == RES_SECRET || s->type == RES_SCOPED_ROUTE) {
        admin_script_text(x, "name", it->resource->name);
    }
    admin_script_text(x, "version_info", it->resource->version);
    if (s->type == RES_SCOPED_ROUTE) {
        members(x, s, it);
    } else {
        admin_script_item(x, s->config, it);
    }
    admin_script_time(x, "last_updated", it->resource->updated_us);
    const struct view_item *next = next_of_same(d, it);
    if (next && next->status == VIEW_ERROR) {
        error_state(x, next);
    }
}

/* Of what there is to show. */
static void open_configs(struct dump *d) {
    if (!d->is_open) {
        d->is_open = true;
        json_key(&d->w, SV("configs"));
        json_arr(&d->w);
    }
}

static void open_section(struct dump *d, const struct dump_section *s) {
    d->is_section_open = true;
    if (d->only) {
        return;
    }
    char type[96];
    int n = snprintf(type, sizeof(type), "type.googleapis.com/envoy.admin.v3.%s", s->dump);
    open_configs(d);
    json_obj(&d->w);
    json_key(&d->w, SV("@type"));
    json_str(&d->w, sv_from(type, (size_t)n));
    const char *version = s->type == RES_CLUSTER ? d->view->cds_version : d->view->lds_version;
    if (s->has_version && !d->mask.n && *version) {
        json_key(&d->w, SV("version_info"));
        json_str(&d->w, sv_cstr(version));
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
    open_configs(d);
    json_obj(&d->w);
    if (d->only) {
        char type[160];
        int n = snprintf(type, sizeof(type), "type.googleapis.com/envoy.admin.v3.%s.%s", s->dump,
                         l->element);
        json_key(&d->w, SV("@type"));
        json_str(&d->w, sv_from(type, (size_t)n));
    }
}

/* The script's, unless the mask leaves nothing of it. */
static void element(struct dump *d, const struct dump_section *s, const struct dump_list *l) {
    if (!admin_script_is_empty(&d->script)) {
        element_begin(d, s, l);
        d->is_element_open = true;
    }
}

static void begin_script(struct dump *d) {
    admin_script_begin(&d->script, d->only ? d->mask : SV_NULL);
}

/* A cluster's own endpoints; there is no version and no time to tell. */
static void hosts_element(struct dump *d, const struct dump_section *s,
                          const struct view_item *it) {
    struct pb_json_more localities;
    sv wire = admin_endpoints_begin(&d->hosts, it, &localities);
    admin_script_resource_with(&d->script, s->config, s->type, wire, &localities);
}

static void item_element(struct dump *d, const struct dump_section *s, const struct dump_list *l,
                         const struct view_item *it) {
    begin_script(d);
    if (it->resource->type != s->type) {
        hosts_element(d, s, it);
    } else {
        (l->id == LIST_GROUPED ? grouped_element : plain_element)(d, s, it);
    }
    element(d, s, l);
}

/* Those in a listener's connection managers. */
static bool is_inline(const struct dump_list *l) {
    return l->id == LIST_INLINE_ROUTES || l->id == LIST_INLINE_SCOPES;
}

/* The next route table or set of scopes of the open listener; false: there is none. */
static bool inline_element(struct dump *d, const struct dump_section *s,
                           const struct dump_list *l) {
    struct admin_script *x = &d->script;
    uint64_t updated_us = d->in_managers.resource->updated_us;
    sv wire, name;
    if (l->id == LIST_INLINE_ROUTES) {
        if (!admin_inline_next_routes(&d->in_managers, &wire)) {
            return false;
        }
        begin_script(d);
        admin_script_resource(x, s->config, s->type, wire);
    } else {
        if (!admin_inline_next_scopes(&d->in_managers, &name, &wire)) {
            return false;
        }
        begin_script(d);
        admin_script_text(x, "name", name);
        admin_script_arr(x, s->config);
        for (sv scope; admin_inline_next_scope(&wire, &scope);) {
            admin_script_resource(x, NULL, s->type, scope);
        }
        admin_script_end(x);
    }
    admin_script_time(x, "last_updated", updated_us);
    element(d, s, l);
    return true;
}

/* Is the item's type the list's? */
static bool is_of_list(const struct dump_section *s, const struct dump_list *l,
                       const struct view_item *it) {
    return it->resource->type == (is_inline(l) ? RES_LISTENER : s->type) ||
           (s->type == RES_ENDPOINTS && admin_endpoints_has(it));
}

static bool belongs(const struct dump *d, const struct dump_section *s, const struct dump_list *l,
                    const struct view_item *it) {
    if (!is_of_list(s, l, it) ||
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
        return !it->is_static && (it == d->view->items || it[-1].resource->type != s->type ||
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
    open_configs(d);
    json_obj(&d->w);
    json_key(&d->w, SV("@type"));
    json_str(&d->w, SV("type.googleapis.com/envoy.admin.v3.BootstrapConfigDump"));
    d->is_element_open = true;
    d->shown = *d->server->bootstrap;
    d->shown.node = (Core__Node *)(uintptr_t)d->server->node;
    admin_script_begin(&d->script, SV_NULL);
    admin_script_message(&d->script, "bootstrap", &d->shown.base);
    admin_script_time(&d->script, "last_updated", d->server->started_us);
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

/* The next item of the open section, or of its open listener; false: the list is through. */
static bool step_list(struct dump *d, const struct dump_section *s, const struct dump_list *l) {
    if (d->in_managers.resource) {
        if (!inline_element(d, s, l)) {
            d->in_managers.resource = NULL;
        }
        return true;
    }
    if (d->item == d->view->items_n) {
        return false;
    }
    const struct view_item *it = &d->view->items[d->item++];
    if (!belongs(d, s, l, it)) {
        return true;
    }
    if (is_inline(l)) {
        admin_inline_begin(&d->in_managers, it->resource);
    } else {
        item_element(d, s, l, it);
    }
    return true;
}

/* A bit of the open element, or its end; false: none is open. */
static bool step_element(struct dump *d) {
    if (admin_script_run(&d->script, &d->w)) {
        return true;
    }
    if (!d->is_element_open) {
        return false;
    }
    json_end(&d->w);
    d->is_element_open = false;
    return true;
}

static void step_section(struct dump *d, const struct dump_section *s) {
    if (!section_shown(d, s)) {
        d->section++;
        return;
    }
    bool is_due = s->when_empty == EMPTY_IS_SHOWN ||
                  (s->when_empty == EMPTY_COMES_WITH_EDS && d->include_eds);
    if (!d->is_section_open && is_due) {
        open_section(d, s);
    }
    if (d->list >= LISTS_MAX || !s->lists[d->list].field) {
        close_section(d);
        return;
    }
    const struct dump_list *l = &s->lists[d->list];
    if (!list_shown(d, l) || !step_list(d, s, l)) {
        close_list(d);
    }
}

/* False: everything is written. */
static bool step(struct dump *d) {
    if (step_element(d)) {
        return true;
    }
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
    step_section(d, &sections[d->section]);
    return true;
}

static bool next(void *state, struct buf *out) {
    struct dump *d = state;
    d->w.out = out;
    if (!d->is_begun) {
        d->is_begun = true;
        json_begin(&d->w, out, 1);
        json_obj(&d->w);
    }
    struct admin_turn turn = admin_turn_begin(out);
    while (!admin_turn_is_over(&turn)) {
        if (!step(d)) {
            if (d->is_open) {
                json_end(&d->w);
            }
            json_end(&d->w);
            buf_lit(out, "\n");
            return false;
        }
    }
    return true;
}

static void free_dump(void *state) {
    struct dump *d = state;
    admin_script_fini(&d->script);
    admin_inline_fini(&d->in_managers);
    admin_endpoints_fini(&d->hosts);
    view_free(d->view);
    regex_free(d->name);
    char *mask = (char *)(uintptr_t)d->mask.p;
    xfree(mask);
    xfree(d);
}

/* ---- the request ---- */

static bool find_resource(struct dump *d, sv name) {
    for (size_t i = 0; i < ARRAY_LEN(sections); i++) {
        bool is_there = !sections[i].is_full_only || d->include_eds;
        for (size_t k = 0; is_there && k < LISTS_MAX && sections[i].lists[k].field; k++) {
            if (sv_is(name, sections[i].lists[k].field)) {
                d->only = &sections[i];
                d->only_list = &sections[i].lists[k];
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
        (!field_mask_valid(mask) || !(d->only ? mask_fits_elements(d) : mask_leads_anywhere(d)))) {
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
    admin_script_init(&d->script);
    admin_inline_init(&d->in_managers);
    admin_endpoints_init(&d->hosts);
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
                   1u << RES_SCOPED_ROUTE | 1u << RES_ENDPOINTS | 1u << RES_EXTENSION |
                   VIEW_WITH_DRAINING,
               on_view);
}
