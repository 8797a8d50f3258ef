/* See chain_tree.h. */
#include "proxy/config/chain_tree.h"

#include "protos/gen/listener.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/match_tree.h"
#include "proxy/base/map.h"

/* Filter state and names of certificates are nowhere yet when a chain is chosen. */
#define CHAIN_INPUTS                                                                        \
    (MATCH_INPUT(DESTINATION_IP) | MATCH_INPUT(DESTINATION_PORT) | MATCH_INPUT(SOURCE_IP) | \
     MATCH_INPUT(SOURCE_PORT) | MATCH_INPUT(DIRECT_SOURCE_IP) | MATCH_INPUT(SOURCE_TYPE) |  \
     MATCH_INPUT(SERVER_NAME) | MATCH_INPUT(TRANSPORT_PROTOCOL) |                           \
     MATCH_INPUT(APPLICATION_PROTOCOL) | MATCH_INPUT(NETWORK_NAMESPACE) |                   \
     MATCH_INPUT(FILTER_STATE) | MATCH_INPUT(URI_SAN) | MATCH_INPUT(DNS_SAN) |              \
     MATCH_INPUT(SUBJECT) | MATCH_INPUT(ENVIRONMENT))

static bool check_names(struct compile_ctx *ctx, const Listener__Listener *m) {
    struct map names;
    bool ok = true;
    map_init(&names);
    for (size_t i = 0; i < m->n_filter_chains; i++) {
        const Listener__FilterChain *c = m->filter_chains[i];
        DIAG_FIELD(ctx->diag, "filter_chains[%zu]", i);
        if (!*c->name) {
            ok = diag_error(ctx->diag, "\"name\" field is required when using a listener matcher");
        } else if (map_put(&names, sv_cstr(c->name), m->filter_chains[i])) {
            ok = diag_error(ctx->diag, "\"name\" field is duplicated with value '%s'", c->name);
        }
    }
    map_fini(&names);
    return ok;
}

static const void *compile_action(struct compile_ctx *ctx, sv name, const void *any, void *arg) {
    const Listener__Listener *listener = arg;
    const char *type = NULL;
    const Pb__StringValue *m = compile_any(ctx, name, any, NULL, &type);
    if (!m) {
        return NULL;
    }
    if (strcmp(type, "google.protobuf.StringValue") != 0) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%.*s' with type URL: '%s'",
                   SV_ARG(name), type);
        return NULL;
    }
    uint32_t *index = arena_new(ctx->arena, uint32_t);
    *index = CHAIN_NONE;
    for (size_t i = 0; i < listener->n_filter_chains; i++) {
        if (strcmp(listener->filter_chains[i]->name, m->value) == 0) {
            *index = (uint32_t)i;
        }
    }
    return index;
}

const struct match_tree *chain_tree_compile(struct compile_ctx *ctx, const void *msg) {
    const Listener__Listener *m = msg;
    const struct match_tree_user user = {
        .inputs = CHAIN_INPUTS,
        .refusal = "Didn't find a registered implementation of a filter chain matcher's input with "
                   "type URL: '%s'",
        .compile_action = compile_action,
        .arg = (void *)(uintptr_t)m,
    };
    bool ok = check_names(ctx, m);
    DIAG_FIELD(ctx->diag, "filter_chain_matcher");
    const struct match_tree *t = match_tree_compile(ctx, &user, m->filter_chain_matcher);
    return ok ? t : NULL;
}

uint32_t chain_tree_find(const struct match_tree *t, const struct accept_info *info,
                         uint32_t dflt) {
    const struct match_facts facts = {
        .source = &info->remote,
        .direct_source = &info->direct_remote,
        .destination = &info->local,
        .server_name = info->server_name,
        .transport_protocol = info->transport_protocol,
        .application_protocols = info->alpn,
        .application_protocols_n = info->alpn_n,
        .scratch = info->arena,
    };
    const uint32_t *found = match_tree_find(t, &facts);
    return found ? *found : dflt;
}
