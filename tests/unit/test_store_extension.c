/* Discovered filters in the store: what each place's slot holds after every kind of update, and
 * what a resource that fits one place and not another does to both. Slots are read from the
 * published snapshot, as workers read them. */
#include "filters/registry.h"
#include "protos/any.h"
#include "protos/pb_text.h"
#include "proxy/api/http_filter.h"
#include "proxy/base/mem.h"
#include "proxy/config/extension.h"
#include "tests/support/unit.h"
#include "xds/mux_kind.h"
#include "xds/store.h"

#include <stdio.h>

static struct loop loop;
static struct stats_store *stats;
static struct store store;
static struct source_client *ads;
static struct snapshot *snapshot; /* the last published, a ref */
static char asked[200];           /* subscriptions to filters, in order: "+f -f" */
static uint64_t version;

/* ---- a control plane that is only asked ---- */

static void note_asked(char sign, enum resource_type t, sv name) {
    size_t n = strlen(asked);
    if (t == RES_EXTENSION) {
        snprintf(asked + n, sizeof(asked) - n, "%s%c%.*s", n ? " " : "", sign, SV_ARG(name));
    }
}
static void mux_watch(struct xds_mux *m, enum resource_type t, sv name) {
    (void)m;
    note_asked('+', t, name);
}
static void mux_unwatch(struct xds_mux *m, enum resource_type t, sv name) {
    (void)m;
    note_asked('-', t, name);
}
static void mux_pause(struct xds_mux *m, enum resource_type t, bool pause) {
    (void)m, (void)t, (void)pause;
}
static bool mux_is_connected(const struct xds_mux *m) {
    (void)m;
    return true;
}
static void mux_free(struct xds_mux *m) {
    mux_fini(m);
    xfree(m);
}
static const struct xds_mux_ops mux_ops = {.free = mux_free,
                                           .watch = mux_watch,
                                           .unwatch = mux_unwatch,
                                           .pause = mux_pause,
                                           .is_connected = mux_is_connected};

static void on_publish(void *user, struct snapshot *s) {
    (void)user;
    if (snapshot) {
        shared_unref(&snapshot->shared);
    }
    snapshot = shared_ref(s);
}
static uint64_t on_adopted(void *user) {
    (void)user;
    return UINT64_MAX;
}
static void on_ready(void *user) { (void)user; }

static const struct config_source *ads_source(void) {
    static const char text[] = "ads { } resource_api_version: V3";
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    const struct config_source *s = config_source_intern(
        pb_text_parse(any_type(SV("envoy.config.core.v3.ConfigSource")), sv_cstr(text), &a, &d),
        &d);
    assert_non_null(s);
    diag_fini(&d);
    arena_fini(&a);
    return s;
}

static int start(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 0), 0);
    stats = stats_store_new(1);
    const struct store_options o = {.loop = &loop,
                                    .stats = stats,
                                    .registry = filters_registry(),
                                    .workers = 1,
                                    .publish = on_publish,
                                    .adopted_version = on_adopted,
                                    .on_ready = on_ready};
    store_init(&store, &o);
    asked[0] = 0;
    snapshot = NULL;
    ads = xnew(struct source_client);
    *ads = (struct source_client){
        .store = &store, .source = ads_source(), .type = RES_TYPES, .mux = xnew(struct xds_mux)};
    const struct xds_sink none = {0};
    mux_init(ads->mux, &mux_ops, &loop, &none);
    store.clients = xnew_array(struct source_client *, 1);
    store.clients[store.clients_n++] = ads;
    return 0;
}

static int end(void **state) {
    (void)state;
    store_fini(&store);
    if (snapshot) {
        shared_unref(&snapshot->shared);
    }
    store_free_names(&store);
    stats_store_free(stats);
    loop_fini(&loop);
    chunk_cache_trim();
    return 0;
}

/* ---- updates ---- */

/* One resource; name NULL: of the message. Its refusal, or "". */
static const char *update(enum resource_type t, const char *name, const char *text) {
    static char refusal[1000];
    struct arena a;
    struct diag d;
    struct buf BUF_AUTO error;
    char label[24];
    bool accepted = false;
    arena_init(&a, 0);
    diag_init(&d);
    buf_init(&error);
    ProtobufCMessage *m =
        pb_text_parse(any_type(sv_cstr(resource_types[t].proto_name)), sv_cstr(text), &a, &d);
    if (!m) {
        sv why = diag_text(&d);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    snprintf(label, sizeof(label), "%llu", (unsigned long long)++version);
    const struct xds_resource r = {.name = name ? sv_cstr(name) : SV_NULL,
                                   .version = sv_cstr(label),
                                   .wire = proto_pack(m, &a)};
    const struct xds_update u = {
        .type = t, .version = sv_cstr(label), .resources = &r, .resources_n = 1};
    struct xds_verdict v = {.accepted = &accepted, .error = &error};
    store_on_update(ads, &u, &v);
    assert_int_equal(accepted, buf_empty(&error));
    sv told = buf_pullup(&error, buf_len(&error));
    snprintf(refusal, sizeof(refusal), "%.*s", SV_ARG(told));
    diag_fini(&d);
    arena_fini(&a);
    loop_run_nowait(&loop); /* publishes */
    return refusal;
}

static void removed(enum resource_type t, const char *name) {
    const sv names[] = {sv_cstr(name)};
    const struct xds_update u = {.type = t, .removed = names, .removed_n = 1};
    struct buf BUF_AUTO error;
    buf_init(&error);
    struct xds_verdict v = {.error = &error};
    store_on_update(ads, &u, &v);
    assert_true(buf_empty(&error));
    loop_run_nowait(&loop);
}

/* ---- texts ---- */

#define EXT "type.googleapis.com/envoy.extensions.filters.http."
#define CORS EXT "cors.v3.Cors"
#define FAULT EXT "fault.v3.HTTPFault"
#define ROUTER EXT "router.v3.Router"
#define ABORT(code) "[" FAULT "] { abort { http_status: " code " percentage { numerator: 100 } } }"
#define FILTER(typed) "name: 'f' typed_config { " typed " }"
#define DEFAULT(typed) "default_config { " typed " }"
#define WITHOUT_WARMING "apply_default_config_without_warming: true"

/* The place: a filter of a listener's connection manager, before the router or (last) in its
 * place. */
#define DISCOVERED(types, fields)                                                                \
    "http_filters { name: 'f' config_discovery { config_source { ads { } resource_api_version: " \
    "V3 }"                                                                                       \
    " " types " " fields " } }"
#define LISTENER(name, filters)                                                                   \
    "name: '" name "' address { socket_address { address: '127.0.0.1' port_value: 0 } } "         \
    "filter_chains { filters { name: 'hcm' typed_config { [type.googleapis.com/envoy.extensions." \
    "filters.network.http_connection_manager.v3.HttpConnectionManager] { stat_prefix: '" name     \
    "' route_config { name: 'r' } " filters " } } } }"
#define ROUTED "http_filters { name: 'router' typed_config { [" ROUTER "] { } } }"
#define WANTS_FAULT "type_urls: '" FAULT "'"
#define WANTS_CORS "type_urls: '" CORS "'"

static void listener(const char *text) {
    assert_string_equal(update(RES_LISTENER, NULL, text), "");
}
static void filter(const char *text) { assert_string_equal(update(RES_EXTENSION, "f", text), ""); }
static void refused(const char *text, const char *why) {
    const char *told = update(RES_EXTENSION, "f", text);
    if (!sv_contains(sv_cstr(told), sv_cstr(why))) {
        fail_msg("'%s' instead of '%s'", told, why);
    }
}

/* ---- what is in force ---- */

static struct entry *listener_entry(const char *name) {
    return store_find(&store, RES_LISTENER, ads->source, sv_cstr(name));
}
static bool is_active(const char *name) {
    const struct entry *e = listener_entry(name);
    return e && e->active;
}

/* The slot of the only discovered filter of the listener's newest version. */
static struct extension_config *in_force(const char *name) {
    const struct entry *e = listener_entry(name);
    assert_non_null(e);
    const struct resource *r = e->warming ? e->warming : e->active;
    assert_int_equal(r->extensions_n, 1);
    return (struct extension_config *)table_get(&snapshot->tables[TABLE_EXTENSIONS],
                                                r->extensions[0].slot);
}

static void assert_in_force_at(const char *name, const char *type, bool is_default, int line) {
    const struct extension_config *x = in_force(name);
    const char *got = x ? x->http->type_url : "nothing";
    if (!sv_ends(sv_cstr(got), sv_cstr(type)) ||
        (x && is_default != (!x->hash[0] && !x->hash[1]))) {
        print_error("%s of '%s' is in force, not %s\n", got, name, type);
        _fail(__FILE__, line);
    }
}
#define assert_in_force(name, type) assert_in_force_at((name), (type), false, __LINE__)
#define assert_default(name, type) assert_in_force_at((name), (type), true, __LINE__)

static uint64_t ecds(unsigned stat) {
    struct stats_scope *s =
        stats_scope_get(stats, &ecds_stats_group, SV("extension_config_discovery.http_filter.f."));
    uint64_t v = stats_scope_value(s, stat);
    stats_scope_unref(s);
    return v;
}

/* ---- one place ---- */

static void listener_waits_until_it_comes(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    assert_string_equal(asked, "+f");
    assert_false(is_active("l"));
    assert_in_force("l", "nothing");
    filter(FILTER(ABORT("400")));
    assert_true(is_active("l"));
    assert_in_force("l", "HTTPFault");
    assert_int_equal(ecds(ECDS_config_reload), 1);
}

static void updates_replace_it_and_leave_the_listener_alone(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    filter(FILTER(ABORT("400")));
    const struct resource *l = listener_entry("l")->active;
    const struct extension_config *first = in_force("l");
    filter(FILTER(ABORT("400"))); /* the same bytes */
    assert_ptr_equal(in_force("l"), first);
    filter(FILTER(ABORT("500")));
    assert_ptr_not_equal(in_force("l"), first);
    assert_ptr_equal(listener_entry("l")->active, l);
    assert_int_equal(ecds(ECDS_config_reload), 2);
}

static void refused_ones_leave_the_last_good(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {FILTER("[" CORS "] { }"), "filter config has type URL envoy.extensions.filters.http.cors"},
        {FILTER("[" ROUTER "] { }"), "has type URL envoy.extensions.filters.http.router"},
        {FILTER("type_url: 'a.b/no.such.Type'"), "type URL no.such.Type"},
        {FILTER("type_url: '" FAULT "' value: '\\377'"), ""},
        {FILTER(ABORT("20")), "http_status"},
        {"name: 'f'", "typed_config"},
    };
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    filter(FILTER(ABORT("400")));
    const struct extension_config *good = in_force("l");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        refused(rows[i].text, rows[i].why);
        assert_ptr_equal(in_force("l"), good);
        assert_true(is_active("l"));
        assert_non_null(store_find(&store, RES_EXTENSION, ads->source, SV("f"))->extra->error);
    }
    assert_int_equal(ecds(ECDS_config_reload), 1);
    filter(FILTER(ABORT("500")));
    assert_ptr_not_equal(in_force("l"), good);
    assert_null(store_find(&store, RES_EXTENSION, ads->source, SV("f"))->extra->error);
}

/* As Envoy: the listener does not wait for ever for a server that has only nonsense. */
static void a_refused_first_one_ends_the_wait(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    refused(FILTER(ABORT("20")), "http_status");
    assert_true(is_active("l"));
    assert_in_force("l", "nothing");
    filter(FILTER(ABORT("400")));
    assert_in_force("l", "HTTPFault");
}

static void a_removed_one_is_gone(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    filter(FILTER(ABORT("400")));
    removed(RES_EXTENSION, "f");
    assert_in_force("l", "nothing");
    assert_true(is_active("l"));
    filter(FILTER(ABORT("400"))); /* the same bytes again are news */
    assert_in_force("l", "HTTPFault");
}

static void one_that_nobody_asked_for(void **state) {
    (void)state;
    filter(FILTER(ABORT("400")));
    assert_null(store_find(&store, RES_EXTENSION, ads->source, SV("f")));
    removed(RES_EXTENSION, "f");
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    assert_in_force("l", "nothing");
}

/* ---- defaults ---- */

static void the_default_serves_while_there_is_none(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, DEFAULT(ABORT("503"))) ROUTED));
    assert_false(is_active("l"));
    assert_default("l", "HTTPFault");
    filter(FILTER(ABORT("400")));
    assert_true(is_active("l"));
    assert_in_force("l", "HTTPFault");
    refused(FILTER(ABORT("20")), "http_status");
    assert_in_force("l", "HTTPFault");
    removed(RES_EXTENSION, "f");
    assert_default("l", "HTTPFault");
}

static void the_default_without_warming(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, DEFAULT(ABORT("503")) WITHOUT_WARMING) ROUTED));
    assert_true(is_active("l"));
    assert_default("l", "HTTPFault");
    refused(FILTER(ABORT("20")), "http_status");
    assert_default("l", "HTTPFault");
    filter(FILTER(ABORT("400")));
    assert_in_force("l", "HTTPFault");
}

/* ---- several places ---- */

static void places_share_a_subscription(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    filter(FILTER(ABORT("400")));
    const struct extension_config *x = in_force("l");
    assert_string_equal(
        update(RES_LISTENER, NULL, LISTENER("m", DISCOVERED(WANTS_FAULT, "") ROUTED)), "");
    assert_string_equal(asked, "+f"); /* once */
    assert_true(is_active("m"));      /* it is there already */
    assert_in_force("m", "HTTPFault");
    assert_ptr_not_equal(in_force("m"), x); /* its stats are another manager's */
    removed(RES_LISTENER, "l");
    assert_in_force("m", "HTTPFault");
    assert_string_equal(asked, "+f");
    removed(RES_LISTENER, "m");
    assert_string_equal(asked, "+f -f");
    assert_null(store_find(&store, RES_EXTENSION, ads->source, SV("f")));
}

static void what_does_not_fit_a_later_place_stays_in_the_first(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    filter(FILTER(ABORT("400")));
    listener(LISTENER("m", DISCOVERED(WANTS_CORS, "") ROUTED));
    assert_in_force("l", "HTTPFault");
    assert_in_force("m", "nothing");
    assert_int_equal(ecds(ECDS_config_conflict), 1);
    /* from now on it must fit both */
    refused(FILTER(ABORT("500")), "expect envoy.extensions.filters.http.cors.v3.Cors");
    refused(FILTER("[" CORS "] { }"), "expect envoy.extensions.filters.http.fault.v3.HTTPFault");
    assert_in_force("l", "HTTPFault");
    assert_in_force("m", "nothing");
    removed(RES_LISTENER, "l");
    filter(FILTER("[" CORS "] { }"));
    assert_in_force("m", "Cors");
}

static void terminal_only_where_it_is_last(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED("type_urls: '" ROUTER "' type_urls: '" CORS "'", "")));
    refused(FILTER("[" CORS "] { }"), "non-terminal filter named f");
    filter(FILTER("[" ROUTER "] { }"));
    assert_in_force("l", "Router");
    listener(LISTENER("m", DISCOVERED("type_urls: '" ROUTER "'", "") ROUTED));
    assert_in_force("m", "nothing"); /* a conflict */
    assert_in_force("l", "Router");
    refused(FILTER("[" ROUTER "] { suppress_envoy_headers: true }"), "terminal filter named f");
}

static void a_changed_listener_keeps_what_is_there(void **state) {
    (void)state;
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED));
    filter(FILTER(ABORT("400")));
    listener(LISTENER("l", DISCOVERED(WANTS_FAULT, "") ROUTED " server_name: 'x'"));
    assert_true(is_active("l"));
    assert_in_force("l", "HTTPFault");
    assert_string_equal(asked, "+f");
    /* then one without it */
    listener(LISTENER("l", ROUTED));
    assert_string_equal(asked, "+f -f");
}

static void routes_of_a_discovered_manager_are_its_own(void **state) {
    (void)state;
#define MANAGER(route)                                                                            \
    "name: 'f' typed_config { [type.googleapis.com/envoy.extensions.filters.network."             \
    "http_connection_manager.v3.HttpConnectionManager] { stat_prefix: 'd' rds { "                 \
    "route_config_name: '" route "' config_source { ads { } resource_api_version: V3 } } " ROUTED \
    " } }"
    listener("name: 'l' address { socket_address { address: '127.0.0.1' port_value: 0 } } "
             "filter_chains { filters { name: 'f' config_discovery { config_source { ads { } "
             "resource_api_version: V3 } type_urls: 'type.googleapis.com/envoy.extensions.filters."
             "network.http_connection_manager.v3.HttpConnectionManager' } } }");
    filter(MANAGER("r1"));
    assert_non_null(store_find(&store, RES_ROUTE, ads->source, SV("r1")));
    filter(MANAGER("r2"));
    assert_null(store_find(&store, RES_ROUTE, ads->source, SV("r1"))); /* let go */
    assert_non_null(store_find(&store, RES_ROUTE, ads->source, SV("r2")));
    removed(RES_LISTENER, "l");
    assert_null(store_find(&store, RES_ROUTE, ads->source, SV("r2")));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(listener_waits_until_it_comes),
        TEST(updates_replace_it_and_leave_the_listener_alone),
        TEST(refused_ones_leave_the_last_good),
        TEST(a_refused_first_one_ends_the_wait),
        TEST(a_removed_one_is_gone),
        TEST(one_that_nobody_asked_for),
        TEST(the_default_serves_while_there_is_none),
        TEST(the_default_without_warming),
        TEST(places_share_a_subscription),
        TEST(what_does_not_fit_a_later_place_stays_in_the_first),
        TEST(terminal_only_where_it_is_last),
        TEST(a_changed_listener_keeps_what_is_there),
        TEST(routes_of_a_discovered_manager_are_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
