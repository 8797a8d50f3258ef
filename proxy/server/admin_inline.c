/* What stands in listeners' connection managers: see admin_inline.h. */
#include "proxy/server/admin_inline.h"

#include "protos/any.h"
#include "protos/gen/hcm.pb-c.h"
#include "protos/gen/listener.pb-c.h"
#include "protos/wire.h"

/* Field numbers; those of oneofs are their cases. */
enum {
    LISTENER_FILTER_CHAINS = 3,
    LISTENER_DEFAULT_FILTER_CHAIN = 25,
    CHAIN_FILTERS = 3,
    FILTER_TYPED_CONFIG = LISTENER__FILTER__CONFIG_TYPE_TYPED_CONFIG,
    HCM_RDS = HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS,
    HCM_ROUTE_CONFIG = HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG,
    HCM_SCOPED_ROUTES = HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_SCOPED_ROUTES,
    SCOPES_NAME = 1,
    SCOPES_LIST = HCM__SCOPED_ROUTES__CONFIG_SPECIFIER_SCOPED_ROUTE_CONFIGURATIONS_LIST,
    LIST_ITEM = 1
};

void admin_inline_init(struct admin_inline *x) {
    *x = (struct admin_inline){0};
    arena_init(&x->arena, 0);
}

void admin_inline_fini(struct admin_inline *x) { arena_fini(&x->arena); }

void admin_inline_begin(struct admin_inline *x, const struct resource *listener) {
    x->resource = listener;
    x->chains = listener->wire;
    x->filters = SV_NULL;
}

/* The value of the message's last field of that number; false: it has none. */
static bool last_of(sv message, uint32_t number, sv *out) {
    struct wire_field f;
    bool has = false;
    while (wire_eat_field(&message, &f)) {
        if (f.number == number && f.type == WIRE_BYTES) {
            *out = f.value;
            has = true;
        }
    }
    return has;
}

/* The connection manager an Any holds, which may be a TypedStruct around it. */
static bool manager_of(struct admin_inline *x, sv any_wire, sv *manager) {
    struct diag d;
    arena_reset(&x->arena);
    diag_init(&d);
    const Pb__Any *any = PROTO_UNPACK(Pb__Any, pb__any__descriptor, any_wire, &x->arena, &d);
    const char *name = hcm__http_connection_manager__descriptor.name;
    bool is_one = any && sv_is(any_inner_name(any, &x->arena), name);
    if (is_one && sv_is(any_url_name(sv_cstr(any->type_url)), name)) {
        *manager = sv_from(any->value.data, any->value.len);
    } else if (is_one) {
        const ProtobufCMessage *m = any_unpack(any, SV("hcm"), &x->arena, &d);
        is_one = m != NULL;
        *manager = m ? proto_pack(m, &x->arena) : SV_NULL;
    }
    diag_fini(&d);
    return is_one;
}

static bool next_manager(struct admin_inline *x, sv *manager) {
    struct wire_field f;
    sv any;
    for (;;) {
        while (wire_eat_field(&x->filters, &f)) {
            if (f.number == CHAIN_FILTERS && last_of(f.value, FILTER_TYPED_CONFIG, &any) &&
                manager_of(x, any, manager)) {
                return true;
            }
        }
        do {
            if (!wire_eat_field(&x->chains, &f)) {
                return false;
            }
        } while (f.number != LISTENER_FILTER_CHAINS && f.number != LISTENER_DEFAULT_FILTER_CHAIN);
        x->filters = f.value;
    }
}

/* The one of its route specifiers that counts: the last. */
static bool specifier_is(sv manager, uint32_t number, sv *out) {
    struct wire_field f;
    uint32_t last = 0;
    while (wire_eat_field(&manager, &f)) {
        if (f.number == HCM_RDS || f.number == HCM_ROUTE_CONFIG || f.number == HCM_SCOPED_ROUTES) {
            last = f.number;
            *out = f.value;
        }
    }
    return last == number;
}

bool admin_inline_next_routes(struct admin_inline *x, sv *wire) {
    sv manager;
    while (next_manager(x, &manager)) {
        if (specifier_is(manager, HCM_ROUTE_CONFIG, wire)) {
            return true;
        }
    }
    return false;
}

bool admin_inline_next_scopes(struct admin_inline *x, sv *name, sv *list) {
    sv manager, scopes;
    while (next_manager(x, &manager)) {
        *name = SV("");
        if (specifier_is(manager, HCM_SCOPED_ROUTES, &scopes) &&
            last_of(scopes, SCOPES_LIST, list)) {
            last_of(scopes, SCOPES_NAME, name);
            return true;
        }
    }
    return false;
}

bool admin_inline_next_scope(sv *list, sv *wire) {
    struct wire_field f;
    while (wire_eat_field(list, &f)) {
        if (f.number == LIST_ITEM) {
            *wire = f.value;
            return true;
        }
    }
    return false;
}
