/* Role-based access control: rules as a tree of small nodes, or a generic matcher tree. Threads:
 * see rbac.h. Facts that are not there (no TLS, no address, no path) match nothing, so that a rule
 * cannot let in what it knows nothing about; NOT of such a rule matches, as in Envoy. */
#include "filters/common/rbac.h"

#include <stdlib.h>
#include <sys/socket.h>

#include "protos/gen/path_match_uri_template.pb-c.h"
#include "protos/gen/rbac.pb-c.h"
#include "protos/gen/rbac_matchers_upstream_ip_port.pb-c.h"
#include "protos/gen/rbac_principals_mtls_authenticated.pb-c.h"
#include "proxy/api/cel.h"
#include "proxy/api/match_tree.h"
#include "proxy/api/matcher.h"
#include "proxy/api/telemetry.h"
#include "proxy/api/tls_info.h"
#include "proxy/api/uri_template.h"

enum kind {
    RULE_ANY,
    RULE_AND,
    RULE_OR,
    RULE_NOT,
    RULE_HEADER,
    RULE_URL_PATH,
    RULE_URI_TEMPLATE,
    RULE_DESTINATION_IP,
    RULE_DESTINATION_PORT,
    RULE_METADATA,
    RULE_ROUTE_METADATA,
    RULE_SERVER_NAME,
    RULE_AUTHENTICATED,
    RULE_SOURCE_IP,
    RULE_DIRECT_REMOTE_IP,
    RULE_REMOTE_IP,
    RULE_FILTER_STATE,
    RULE_MTLS,
    RULE_UPSTREAM,
};
struct rule {
    enum kind kind;
    bool is_inverted; /* metadata */
    uint32_t n;       /* sub-rules */
    union {
        const struct rule *subs;
        struct header_matcher *header;
        struct string_matcher text; /* URL_PATH, SERVER_NAME; AUTHENTICATED when has_text */
        const struct uri_template *path_template;
        struct cidr cidr;
        struct {
            uint32_t from, to; /* to is exclusive */
        } ports;
        struct metadata_matcher *metadata;
        struct filter_state_matchers *filter_state;
        struct {
            struct string_matcher matcher; /* when has_text */
            enum ssl_list list;
        } san;
        struct {
            struct cidr cidr; /* when has_ip */
            int64_t from, to; /* to is exclusive; when has_ports */
            bool has_ip, has_ports;
        } upstream;
    };
    bool has_text;
};
struct policy {
    sv name;
    const struct rule *permissions, *principals; /* RULE_OR each */
    const struct cel *condition;                 /* NULL: none */
};
struct leaf_action {
    sv name;
    Rbac__RBAC__Action action;
};
struct rbac {
    Rbac__RBAC__Action action;
    const struct policy *policies; /* ascending by name */
    size_t n;
    const struct match_tree *tree; /* of leaf_actions, in place of all above; NULL: none */
    bool has_log;                  /* some action of the tree is LOG */
};

/* --- compile --- */

static bool compile_permission(struct compile_ctx *ctx, const Rbac__Permission *m, struct rule *out,
                               unsigned depth);
static bool compile_principal(struct compile_ctx *ctx, const Rbac__Principal *m, struct rule *out,
                              unsigned depth);

static bool is_too_deep(struct compile_ctx *ctx, unsigned depth) {
    return depth >= RBAC_DEPTH_MAX &&
           !diag_error(ctx->diag, "rules are nested deeper than %d", RBAC_DEPTH_MAX);
}

static bool compile_permissions(struct compile_ctx *ctx, const char *field, enum kind kind,
                                Rbac__Permission *const *v, size_t n, struct rule *out,
                                unsigned depth) {
    struct rule *subs = arena_new_array(ctx->arena, struct rule, n ? n : 1);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        ok = compile_permission(ctx, v[i], &subs[i], depth + 1) && ok;
    }
    *out = (struct rule){.kind = kind, .n = (uint32_t)n, .subs = subs};
    return ok;
}
static bool compile_principals(struct compile_ctx *ctx, const char *field, enum kind kind,
                               Rbac__Principal *const *v, size_t n, struct rule *out,
                               unsigned depth) {
    struct rule *subs = arena_new_array(ctx->arena, struct rule, n ? n : 1);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        ok = compile_principal(ctx, v[i], &subs[i], depth + 1) && ok;
    }
    *out = (struct rule){.kind = kind, .n = (uint32_t)n, .subs = subs};
    return ok;
}

static bool compile_cidr(struct compile_ctx *ctx, enum kind kind, const char *field,
                         const Core__CidrRange *m, struct rule *out) {
    uint32_t bits = m->prefix_len ? m->prefix_len->value : 0;
    out->kind = kind;
    DIAG_FIELD(ctx->diag, "%s", field);
    return cidr_make(sv_cstr(m->address_prefix), bits, &out->cidr) ||
           diag_error(ctx->diag, "malformed IP address range '%s/%u'", m->address_prefix, bits);
}

static bool compile_header(struct compile_ctx *ctx, const Route__HeaderMatcher *m,
                           struct rule *out) {
    DIAG_FIELD(ctx->diag, "header");
    out->kind = RULE_HEADER;
    out->header = header_matcher_compile(ctx, m);
    return out->header != NULL;
}
static bool compile_url_path(struct compile_ctx *ctx, const TypeMatcher__PathMatcher *m,
                             struct rule *out) {
    DIAG_FIELD(ctx->diag, "url_path");
    out->kind = RULE_URL_PATH;
    return path_matcher_compile(ctx, m, &out->text);
}
static bool compile_metadata(struct compile_ctx *ctx, const char *field,
                             const TypeMatcher__MetadataMatcher *m, bool of_route,
                             struct rule *out) {
    DIAG_FIELD(ctx->diag, "%s", field);
    out->kind = of_route ? RULE_ROUTE_METADATA : RULE_METADATA;
    out->metadata = metadata_matcher_compile(ctx, m);
    return out->metadata != NULL;
}
static bool compile_sourced(struct compile_ctx *ctx, const Rbac__SourcedMetadata *m,
                            struct rule *out) {
    return compile_metadata(ctx, "sourced_metadata.metadata_matcher", m->metadata_matcher,
                            m->metadata_source == RBAC__METADATA_SOURCE__ROUTE, out);
}

static bool compile_uri_template(struct compile_ctx *ctx, const Core__TypedExtensionConfig *m,
                                 struct rule *out) {
    DIAG_FIELD(ctx->diag, "uri_template.typed_config");
    const PathMatchUriTemplate__UriTemplateMatchConfig *t =
        compile_any(ctx, sv_cstr(m->name), m->typed_config,
                    "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", NULL);
    out->kind = RULE_URI_TEMPLATE;
    out->path_template = t ? uri_template_compile(ctx, sv_cstr(t->path_template)) : NULL;
    return out->path_template != NULL;
}

/* The message of the one extension there is of a kind. */
static const void *extension_msg(struct compile_ctx *ctx, const Core__TypedExtensionConfig *m,
                                 const char *want_type) {
    const char *type = NULL;
    const void *msg = compile_any(ctx, sv_cstr(m->name), m->typed_config, NULL, &type);
    if (msg && strcmp(type, want_type) != 0) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%s'", m->name,
                   type);
        return NULL;
    }
    return msg;
}

/* Where the request goes, which only the dynamic forward proxy knows before the router does. */
static bool compile_upstream(struct compile_ctx *ctx, const Core__TypedExtensionConfig *ext,
                             struct rule *out) {
    DIAG_FIELD(ctx->diag, "matcher.typed_config");
    const RbacMatchersUpstreamIpPort__UpstreamIpPortMatcher *m = extension_msg(
        ctx, ext, "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher");
    out->kind = RULE_UPSTREAM;
    if (!m) {
        return false;
    }
    if (!m->upstream_ip && !m->upstream_port_range) {
        return diag_error(ctx->diag, "Invalid UpstreamIpPortMatcher configuration - missing "
                                     "`upstream_ip` and/or `upstream_port_range`");
    }
    out->upstream.has_ports = m->upstream_port_range != NULL;
    if (m->upstream_port_range) {
        out->upstream.from = m->upstream_port_range->start;
        out->upstream.to = m->upstream_port_range->end;
    }
    out->upstream.has_ip = m->upstream_ip != NULL;
    if (!m->upstream_ip) {
        return true;
    }
    struct rule range;
    bool ok = compile_cidr(ctx, RULE_UPSTREAM, "upstream_ip", m->upstream_ip, &range);
    out->upstream.cidr = range.cidr;
    return ok;
}

static bool compile_san(struct compile_ctx *ctx, const Tls__SubjectAltNameMatcher *m,
                        struct rule *out) {
    DIAG_FIELD(ctx->diag, "san_matcher");
    switch (m->san_type) {
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__EMAIL:
        out->san.list = SSL_LIST_PEER_EMAIL;
        break;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS:
        out->san.list = SSL_LIST_PEER_DNS;
        break;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__URI:
        out->san.list = SSL_LIST_PEER_URI;
        break;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__IP_ADDRESS:
        out->san.list = SSL_LIST_PEER_IP;
        break;
    default: {
        DIAG_FIELD(ctx->diag, "san_type");
        return diag_error(ctx->diag, "expected DNS, EMAIL, URI or IP_ADDRESS, not %d", m->san_type);
    }
    }
    DIAG_FIELD(ctx->diag, "matcher");
    return string_matcher_compile(ctx, m->matcher, &out->san.matcher);
}

static bool compile_mtls(struct compile_ctx *ctx, const Core__TypedExtensionConfig *ext,
                         struct rule *out) {
    DIAG_FIELD(ctx->diag, "custom.typed_config");
    const RbacPrincipalsMtlsAuthenticated__Config *m =
        extension_msg(ctx, ext, "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config");
    out->kind = RULE_MTLS;
    if (!m) {
        return false;
    }
    if (!m->san_matcher && !m->any_validated_client_certificate) {
        return diag_error(ctx->diag,
                          "envoy.rbac.principals.mtls_authenticated did not have any configured "
                          "validation. At least one configuration field must be set.");
    }
    out->has_text = m->san_matcher != NULL;
    return !m->san_matcher || compile_san(ctx, m->san_matcher, out);
}

static bool compile_port_range(struct compile_ctx *ctx, const Type__Int32Range *m,
                               struct rule *out) {
    out->kind = RULE_DESTINATION_PORT;
    if (m->start < 0 || m->end > 65536 || m->start >= m->end) {
        return diag_error(ctx->diag, "destination_port_range: range [%d, %d) is invalid", m->start,
                          m->end);
    }
    out->ports.from = (uint32_t)m->start;
    out->ports.to = (uint32_t)m->end;
    return true;
}

static bool compile_permission(struct compile_ctx *ctx, const Rbac__Permission *m, struct rule *out,
                               unsigned depth) {
    struct rule *sub;
    *out = (struct rule){.kind = RULE_ANY};
    if (is_too_deep(ctx, depth)) {
        return false;
    }
    switch (m->rule_case) {
    case RBAC__PERMISSION__RULE_ANY:
        return true;
    case RBAC__PERMISSION__RULE_AND_RULES:
        return compile_permissions(ctx, "and_rules.rules", RULE_AND, m->and_rules->rules,
                                   m->and_rules->n_rules, out, depth);
    case RBAC__PERMISSION__RULE_OR_RULES:
        return compile_permissions(ctx, "or_rules.rules", RULE_OR, m->or_rules->rules,
                                   m->or_rules->n_rules, out, depth);
    case RBAC__PERMISSION__RULE_NOT_RULE: {
        DIAG_FIELD(ctx->diag, "not_rule");
        *out = (struct rule){.kind = RULE_NOT, .n = 1};
        out->subs = sub = arena_new(ctx->arena, struct rule);
        return compile_permission(ctx, m->not_rule, sub, depth + 1);
    }
    case RBAC__PERMISSION__RULE_HEADER:
        return compile_header(ctx, m->header, out);
    case RBAC__PERMISSION__RULE_URL_PATH:
        return compile_url_path(ctx, m->url_path, out);
    case RBAC__PERMISSION__RULE_URI_TEMPLATE:
        return compile_uri_template(ctx, m->uri_template, out);
    case RBAC__PERMISSION__RULE_DESTINATION_IP:
        return compile_cidr(ctx, RULE_DESTINATION_IP, "destination_ip", m->destination_ip, out);
    case RBAC__PERMISSION__RULE_DESTINATION_PORT:
        *out = (struct rule){.kind = RULE_DESTINATION_PORT,
                             .ports = {m->destination_port, m->destination_port + 1}};
        return true;
    case RBAC__PERMISSION__RULE_DESTINATION_PORT_RANGE:
        return compile_port_range(ctx, m->destination_port_range, out);
    case RBAC__PERMISSION__RULE_METADATA:
        return compile_metadata(ctx, "metadata", m->metadata, false, out);
    case RBAC__PERMISSION__RULE_SOURCED_METADATA:
        return compile_sourced(ctx, m->sourced_metadata, out);
    case RBAC__PERMISSION__RULE_REQUESTED_SERVER_NAME: {
        DIAG_FIELD(ctx->diag, "requested_server_name");
        out->kind = RULE_SERVER_NAME;
        return string_matcher_compile(ctx, m->requested_server_name, &out->text);
    }
    case RBAC__PERMISSION__RULE_MATCHER:
        return compile_upstream(ctx, m->matcher, out);
    default:
        return diag_error(ctx->diag, "rule: value is required");
    }
}

static bool compile_authenticated(struct compile_ctx *ctx, const Rbac__Principal__Authenticated *m,
                                  struct rule *out) {
    DIAG_FIELD(ctx->diag, "authenticated.principal_name");
    out->kind = RULE_AUTHENTICATED;
    out->has_text = m->principal_name != NULL;
    return !m->principal_name || string_matcher_compile(ctx, m->principal_name, &out->text);
}

static bool compile_filter_state(struct compile_ctx *ctx, const TypeMatcher__FilterStateMatcher *m,
                                 struct rule *out) {
    const void *one[] = {m};
    DIAG_FIELD(ctx->diag, "filter_state");
    out->kind = RULE_FILTER_STATE;
    out->filter_state = filter_state_matchers_compile(ctx, one, 1);
    return out->filter_state != NULL;
}

static bool compile_principal(struct compile_ctx *ctx, const Rbac__Principal *m, struct rule *out,
                              unsigned depth) {
    struct rule *sub;
    *out = (struct rule){.kind = RULE_ANY};
    if (is_too_deep(ctx, depth)) {
        return false;
    }
    switch (m->identifier_case) {
    case RBAC__PRINCIPAL__IDENTIFIER_ANY:
        return true;
    case RBAC__PRINCIPAL__IDENTIFIER_AND_IDS:
        return compile_principals(ctx, "and_ids.ids", RULE_AND, m->and_ids->ids, m->and_ids->n_ids,
                                  out, depth);
    case RBAC__PRINCIPAL__IDENTIFIER_OR_IDS:
        return compile_principals(ctx, "or_ids.ids", RULE_OR, m->or_ids->ids, m->or_ids->n_ids, out,
                                  depth);
    case RBAC__PRINCIPAL__IDENTIFIER_NOT_ID: {
        DIAG_FIELD(ctx->diag, "not_id");
        *out = (struct rule){.kind = RULE_NOT, .n = 1};
        out->subs = sub = arena_new(ctx->arena, struct rule);
        return compile_principal(ctx, m->not_id, sub, depth + 1);
    }
    case RBAC__PRINCIPAL__IDENTIFIER_AUTHENTICATED:
        return compile_authenticated(ctx, m->authenticated, out);
    case RBAC__PRINCIPAL__IDENTIFIER_SOURCE_IP:
        return compile_cidr(ctx, RULE_SOURCE_IP, "source_ip", m->source_ip, out);
    case RBAC__PRINCIPAL__IDENTIFIER_DIRECT_REMOTE_IP:
        return compile_cidr(ctx, RULE_DIRECT_REMOTE_IP, "direct_remote_ip", m->direct_remote_ip,
                            out);
    case RBAC__PRINCIPAL__IDENTIFIER_REMOTE_IP:
        return compile_cidr(ctx, RULE_REMOTE_IP, "remote_ip", m->remote_ip, out);
    case RBAC__PRINCIPAL__IDENTIFIER_HEADER:
        return compile_header(ctx, m->header, out);
    case RBAC__PRINCIPAL__IDENTIFIER_URL_PATH:
        return compile_url_path(ctx, m->url_path, out);
    case RBAC__PRINCIPAL__IDENTIFIER_METADATA:
        return compile_metadata(ctx, "metadata", m->metadata, false, out);
    case RBAC__PRINCIPAL__IDENTIFIER_SOURCED_METADATA:
        return compile_sourced(ctx, m->sourced_metadata, out);
    case RBAC__PRINCIPAL__IDENTIFIER_FILTER_STATE:
        return compile_filter_state(ctx, m->filter_state, out);
    case RBAC__PRINCIPAL__IDENTIFIER_CUSTOM:
        return compile_mtls(ctx, m->custom, out);
    default:
        return diag_error(ctx->diag, "identifier: value is required");
    }
}

static bool compile_condition(struct compile_ctx *ctx, const Rbac__Policy *m, struct policy *out) {
    const GoogleApiExpr__Expr *expr = m->condition;
    if (m->checked_condition) {
        expr = m->checked_condition->expr;
    }
    if (m->condition && m->checked_condition) {
        return diag_error(ctx->diag, "condition and checked_condition are both set");
    }
    if (!expr) {
        return !m->checked_condition || diag_error(ctx->diag, "checked_condition.expr: missing");
    }
    DIAG_FIELD(ctx->diag, m->condition ? "condition" : "checked_condition.expr");
    out->condition = cel_compile_expr(ctx, expr);
    return out->condition != NULL;
}

static bool compile_policy(struct compile_ctx *ctx, const Rbac__RBAC__PoliciesEntry *m,
                           struct policy *out) {
    struct rule *permissions = arena_new(ctx->arena, struct rule),
                *principals = arena_new(ctx->arena, struct rule);
    DIAG_FIELD(ctx->diag, "policies[%s]", m->key);
    if (!m->value) {
        return diag_error(ctx->diag, "value is required");
    }
    out->name = arena_sv(ctx->arena, sv_cstr(m->key));
    out->permissions = permissions;
    out->principals = principals;
    bool ok = compile_permissions(ctx, "permissions", RULE_OR, m->value->permissions,
                                  m->value->n_permissions, permissions, 0);
    ok = compile_principals(ctx, "principals", RULE_OR, m->value->principals,
                            m->value->n_principals, principals, 0) &&
         ok;
    return compile_condition(ctx, m->value, out) && ok;
}

static int by_name(const void *a, const void *b) {
    return sv_cmp(((const struct policy *)a)->name, ((const struct policy *)b)->name);
}

/* There are none; a logger may say that it can be done without. */
static bool check_audit_loggers(struct compile_ctx *ctx, const Rbac__RBAC__AuditLoggingOptions *m) {
    bool ok = true;
    for (size_t i = 0; m && i < m->n_logger_configs; i++) {
        const Rbac__RBAC__AuditLoggingOptions__AuditLoggerConfig *l = m->logger_configs[i];
        DIAG_FIELD(ctx->diag, "audit_logging_options.logger_configs[%zu]", i);
        if (l->is_optional) {
            compile_unhonoured(ctx, "audit_logging_options");
            continue;
        }
        ok = diag_error(ctx->diag,
                        "Didn't find a registered implementation for '%s' with type URL: '%s'",
                        l->audit_logger ? l->audit_logger->name : "",
                        l->audit_logger && l->audit_logger->typed_config
                            ? l->audit_logger->typed_config->type_url
                            : "");
    }
    return ok;
}

const struct rbac *rbac_compile(struct compile_ctx *ctx, const void *msg) {
    const Rbac__RBAC *m = msg;
    struct policy *policies =
        arena_new_array(ctx->arena, struct policy, m->n_policies ? m->n_policies : 1);
    bool ok = true;
    for (size_t i = 0; i < m->n_policies; i++) {
        ok = compile_policy(ctx, m->policies[i], &policies[i]) && ok;
    }
    if (!check_audit_loggers(ctx, m->audit_logging_options) || !ok) {
        return NULL;
    }
    qsort(policies, m->n_policies, sizeof *policies, by_name);
    struct rbac *r = arena_new(ctx->arena, struct rbac);
    *r = (struct rbac){.action = m->action, .policies = policies, .n = m->n_policies};
    return r;
}

static const void *compile_action(struct compile_ctx *ctx, sv name, const void *any, void *arg) {
    const char *type = NULL;
    struct rbac *r = arg;
    const void *msg = compile_any(ctx, name, any, NULL, &type);
    if (!msg) {
        return NULL;
    }
    if (strcmp(type, "envoy.config.rbac.v3.Action") != 0) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%.*s' with type URL: '%s'",
                   SV_ARG(name), type);
        return NULL;
    }
    const Rbac__Action *m = msg;
    struct leaf_action *out = arena_new(ctx->arena, struct leaf_action);
    *out = (struct leaf_action){arena_sv(ctx->arena, sv_cstr(m->name)), m->action};
    r->has_log = r->has_log || m->action == RBAC__RBAC__ACTION__LOG;
    return out;
}

#define BOTH_INPUTS                                                                         \
    (MATCH_INPUT(DESTINATION_IP) | MATCH_INPUT(DESTINATION_PORT) | MATCH_INPUT(SOURCE_IP) | \
     MATCH_INPUT(SOURCE_PORT) | MATCH_INPUT(DIRECT_SOURCE_IP) | MATCH_INPUT(SERVER_NAME) |  \
     MATCH_INPUT(NETWORK_NAMESPACE) | MATCH_INPUT(FILTER_STATE) | MATCH_INPUT(URI_SAN) |    \
     MATCH_INPUT(DNS_SAN) | MATCH_INPUT(SUBJECT) | MATCH_INPUT(ENVIRONMENT))
#define HTTP_INPUTS \
    (BOTH_INPUTS | MATCH_INPUT(REQUEST_HEADER) | MATCH_INPUT(DYNAMIC_METADATA) | MATCH_INPUT(CEL))

const struct rbac *rbac_compile_matcher(struct compile_ctx *ctx, bool of_http, const void *msg) {
    struct rbac *r = arena_new(ctx->arena, struct rbac);
    const struct match_tree_user user = {
        .inputs = of_http ? HTTP_INPUTS : BOTH_INPUTS,
        .refusal = of_http ? "RBAC HTTP filter cannot match on 'type.googleapis.com/%s'"
                           : "RBAC network filter cannot match 'type.googleapis.com/%s'",
        .compile_action = compile_action,
        .arg = r,
    };
    r->tree = match_tree_compile(ctx, &user, msg);
    return r->tree ? r : NULL;
}

const struct rbac *rbac_compile_source(struct compile_ctx *ctx, const struct rbac_source *s) {
    if (!s->matcher && !s->rules) {
        return NULL;
    }
    DIAG_FIELD(ctx->diag, "%s", s->matcher ? s->matcher_field : s->rules_field);
    return s->matcher ? rbac_compile_matcher(ctx, s->of_http, s->matcher)
                      : rbac_compile(ctx, s->rules);
}

/* --- decide --- */

static bool matches(const struct rule *r, const struct rbac_input *in);

static bool any_matches(const struct rule *r, const struct rbac_input *in) {
    for (uint32_t i = 0; i < r->n; i++) {
        if (matches(&r->subs[i], in)) {
            return true;
        }
    }
    return false;
}
static bool all_match(const struct rule *r, const struct rbac_input *in) {
    for (uint32_t i = 0; i < r->n; i++) {
        if (!matches(&r->subs[i], in)) {
            return false;
        }
    }
    return true;
}

static sv path_of(const struct rbac_input *in) {
    sv path = headers_get(in->request, HDR_path);
    path = sv_sub(path, 0, sv_find(path, '#'));
    return sv_sub(path, 0, sv_find(path, '?'));
}

static bool list_matches(const struct string_matcher *m, const struct ssl_info *ssl,
                         enum ssl_list list) {
    const sv *names = NULL;
    unsigned n = ssl_info_list(ssl, list, &names);
    for (unsigned i = 0; i < n; i++) {
        if (string_matcher_match(m, names[i])) {
            return true;
        }
    }
    return false;
}
/* URI names, then DNS names, then the subject. */
static bool is_authenticated(const struct rule *r, const struct conn_info *cx) {
    const struct ssl_info *ssl = cx->conn ? conn_ssl(cx->conn) : NULL;
    if (!ssl) {
        return false;
    }
    return !r->has_text || list_matches(&r->text, ssl, SSL_LIST_PEER_URI) ||
           list_matches(&r->text, ssl, SSL_LIST_PEER_DNS) ||
           string_matcher_match(&r->text, ssl_info_fact(ssl, SSL_FACT_PEER_SUBJECT));
}

/* As a listener's own validation takes them: an exact DNS name is covered by a wildcard. */
static bool san_holds(const struct rule *r, sv name) {
    bool is_dns = r->san.list == SSL_LIST_PEER_DNS && r->san.matcher.kind == STRING_EXACT;
    return is_dns ? ssl_name_covers(name, r->san.matcher.text)
                  : string_matcher_match(&r->san.matcher, name);
}
static bool is_mtls_authenticated(const struct rule *r, const struct conn_info *cx) {
    const struct ssl_info *ssl = cx->conn ? conn_ssl(cx->conn) : NULL;
    const sv *names = NULL;
    if (!ssl || !ssl_info_is_validated(ssl)) {
        return false;
    }
    unsigned n = r->has_text ? ssl_info_list(ssl, r->san.list, &names) : 0;
    for (unsigned i = 0; i < n; i++) {
        if (san_holds(r, names[i])) {
            return true;
        }
    }
    return !r->has_text;
}

static bool is_upstream(const struct rule *r, const struct rbac_input *in) {
    struct addr a;
    sv text = filter_state_text(in->si->filter_state, SV("envoy.stream.upstream_address"));
    if (!text.p || !addr_parse_ip_port(text, &a)) {
        return false;
    }
    return (!r->upstream.has_ip || cidr_contains(&r->upstream.cidr, &a)) &&
           (!r->upstream.has_ports || (a.port >= r->upstream.from && a.port < r->upstream.to));
}

static bool has_port(const struct rule *r, const struct addr *a) {
    bool is_ip = a->family == AF_INET || a->family == AF_INET6;
    return is_ip && a->port >= r->ports.from && a->port < r->ports.to;
}

static bool matches(const struct rule *r, const struct rbac_input *in) {
    const struct conn_info *cx = in->si->cx;
    switch (r->kind) {
    case RULE_ANY:
        return true;
    case RULE_AND:
        return all_match(r, in);
    case RULE_OR:
        return any_matches(r, in);
    case RULE_NOT:
        return !matches(r->subs, in);
    case RULE_HEADER:
        return header_matcher_match(r->header, in->request, in->scratch);
    case RULE_URL_PATH:
        return headers_has(in->request, HDR_path) && string_matcher_match(&r->text, path_of(in));
    case RULE_URI_TEMPLATE:
        return headers_has(in->request, HDR_path) &&
               uri_template_match(r->path_template, path_of(in));
    case RULE_DESTINATION_IP:
        return cidr_contains(&r->cidr, &cx->local);
    case RULE_DESTINATION_PORT:
        return has_port(r, &cx->local);
    case RULE_METADATA:
        return metadata_matcher_match(r->metadata, in->si->metadata);
    case RULE_ROUTE_METADATA:
        return metadata_matcher_match(r->metadata, in->si->route_metadata);
    case RULE_SERVER_NAME:
        return string_matcher_match(&r->text, cx->server_name);
    case RULE_AUTHENTICATED:
        return is_authenticated(r, cx);
    case RULE_SOURCE_IP:
        return cidr_contains(&r->cidr, &cx->remote);
    case RULE_DIRECT_REMOTE_IP:
        return cidr_contains(&r->cidr, &cx->direct_remote);
    case RULE_REMOTE_IP:
        return cidr_contains(&r->cidr, in->si->remote ? in->si->remote : &cx->remote);
    case RULE_FILTER_STATE:
        return filter_state_matchers_match(r->filter_state, in->si->filter_state);
    case RULE_MTLS:
        return is_mtls_authenticated(r, cx);
    case RULE_UPSTREAM:
        return is_upstream(r, in);
    }
    return false;
}

static bool policy_matches(const struct policy *p, const struct rbac_input *in) {
    return matches(p->permissions, in) && matches(p->principals, in) &&
           (!p->condition || cel_holds(p->condition, in->si, in->scratch));
}

static struct rbac_verdict decide_by_tree(const struct rbac *r, const struct rbac_input *in) {
    const struct conn_info *cx = in->si->cx;
    const struct match_facts facts = {
        .source = in->si->remote ? in->si->remote : &cx->remote,
        .direct_source = &cx->direct_remote,
        .destination = &cx->local,
        .server_name = cx->server_name,
        .ssl = cx->conn ? conn_ssl(cx->conn) : NULL,
        .request = in->request,
        .si = in->si,
        .scratch = in->scratch,
    };
    const struct leaf_action *found = match_tree_find(r->tree, &facts);
    if (!found) {
        return (struct rbac_verdict){.is_allowed = false};
    }
    return (struct rbac_verdict){.is_allowed = found->action != RBAC__RBAC__ACTION__DENY,
                                 .sets_log_hint = r->has_log,
                                 .log_hint = found->action == RBAC__RBAC__ACTION__LOG,
                                 .policy = found->name};
}

struct rbac_verdict rbac_decide(const struct rbac *r, const struct rbac_input *in) {
    if (r->tree) {
        return decide_by_tree(r, in);
    }
    struct rbac_verdict v = {.sets_log_hint = r->action == RBAC__RBAC__ACTION__LOG};
    bool matched = false;
    for (size_t i = 0; !matched && i < r->n; i++) {
        matched = policy_matches(&r->policies[i], in);
        v.policy = matched ? r->policies[i].name : SV_NULL;
    }
    v.log_hint = matched;
    v.is_allowed = v.sets_log_hint || matched == (r->action == RBAC__RBAC__ACTION__ALLOW);
    return v;
}

sv rbac_denied_details(sv policy, struct arena *a) {
    sv name = policy.n ? policy : SV("none");
    sv text = arena_printf(a, "rbac_access_denied_matched_policy[%.*s]", SV_ARG(name));
    char *p = arena_cstr(a, text);
    for (size_t i = 0; i < text.n; i++) {
        p[i] = p[i] == ' ' || (p[i] >= '\t' && p[i] <= '\r') ? '_' : p[i];
    }
    return sv_from(p, text.n);
}
