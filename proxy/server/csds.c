/* GET or POST /v3/discovery:client_status: what this client has of each resource it asked for.
 * Threads: main; data come as a view from the config thread, a bit of one resource is written at a
 * time.
 * Spec: service.status.v3 ClientStatusResponse with generic_xds_configs, by the path of
 * FetchClientStatus's HTTP rule. The answer is about this process: node matchers of a request body
 * are not looked at. Not here: gRPC. */
#include "protos/gen/core.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/mem.h"
#include "proxy/server/admin_internal.h"

struct csds {
    const Core__Node *node;
    struct view *view;
    struct json_writer w;
    struct admin_script script; /* what is left of the open item */
    unsigned item, absent;
    bool is_begun, without_contents;
};

static void pair(struct json_writer *w, const char *key, sv v) {
    json_key(w, sv_cstr(key));
    json_str(w, v);
}

/* Is the item the refused version of the one before it, which has told of it? */
static bool is_told(const struct csds *c, unsigned i) {
    const struct view_item *it = &c->view->items[i];
    return i > 0 && it->status == VIEW_ERROR && it[-1].resource->type == it->resource->type &&
           sv_eq(it[-1].resource->name, it->resource->name);
}

static void write_item(struct csds *c, unsigned i) {
    struct admin_script *x = &c->script;
    const struct view_item *it = &c->view->items[i];
    bool is_last = i + 1 == c->view->items_n;
    const struct view_item *bad = it->status == VIEW_ERROR        ? it
                                  : !is_last && is_told(c, i + 1) ? it + 1
                                                                  : NULL;
    const struct resource *r = it->resource;
    admin_script_begin(x, SV_NULL);
    admin_script_obj(x, NULL);
    admin_script_text(x, "type_url", sv_cstr(resource_types[r->type].type_url));
    admin_script_text(x, "name", r->name);
    if (it != bad) {
        admin_script_text(x, "version_info", r->version);
        if (!c->without_contents) {
            admin_script_item(x, "xds_config", it);
        }
        admin_script_time(x, "last_updated", r->updated_us);
    }
    admin_script_text(x, "client_status", bad ? SV("NACKED") : SV("ACKED"));
    if (bad) {
        admin_script_error_state(x, bad);
    }
    admin_script_end(x);
}

static void write_absent(struct csds *c, const struct view_absent *a) {
    static const char *const status[] = {"REQUESTED", "DOES_NOT_EXIST", "TIMEOUT"};
    json_obj(&c->w);
    pair(&c->w, "type_url", sv_cstr(resource_types[a->type].type_url));
    pair(&c->w, "name", sv_cstr(a->name));
    pair(&c->w, "client_status", sv_cstr(status[a->why]));
    json_end(&c->w);
}

static void begin(struct csds *c, struct buf *out) {
    json_begin(&c->w, out, 1);
    json_obj(&c->w);
    json_key(&c->w, SV("config"));
    json_arr(&c->w);
    json_obj(&c->w);
    json_key(&c->w, SV("node"));
    pb_json_write(&c->w, &c->node->base, PB_JSON_REDACT);
    json_key(&c->w, SV("generic_xds_configs"));
    json_arr(&c->w);
}

static bool next(void *state, struct buf *out) {
    struct csds *c = state;
    c->w.out = out;
    if (!c->is_begun) {
        c->is_begun = true;
        begin(c, out);
    }
    struct admin_turn turn = admin_turn_begin(out);
    while (!admin_turn_is_over(&turn)) {
        if (admin_script_run(&c->script, &c->w)) {
            continue;
        }
        if (c->item < c->view->items_n) {
            unsigned i = c->item++;
            if (!c->view->items[i].is_static && !is_told(c, i)) {
                write_item(c, i);
            }
        } else if (c->absent < c->view->absent_n) {
            write_absent(c, &c->view->absent[c->absent++]);
        } else {
            for (int i = 0; i < 4; i++) { /* configs, config, list, answer */
                json_end(&c->w);
            }
            buf_lit(out, "\n");
            return false;
        }
    }
    return true;
}

static void free_csds(void *state) {
    struct csds *c = state;
    admin_script_fini(&c->script);
    view_free(c->view);
    xfree(c);
}

static void on_view(struct admin_stream *a, struct view *view) {
    struct csds *c = xnew(struct csds);
    c->node = a->server->node;
    c->view = view;
    admin_script_init(&c->script);
    c->without_contents = sv_is(admin_param(a, "exclude_resource_contents"), "true");
    struct admin_producer p = {next, free_csds, c};
    admin_produce(a, ADMIN_JSON, &p);
}

void admin_client_status(struct admin_stream *a) {
    admin_view(a, ((1u << RES_TYPES) - 1) & ~(1u << RES_SCOPED_ROUTE), on_view);
}
