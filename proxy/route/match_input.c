/* Inputs of generic matching and the predicates on them. Threads: see match_input.h. */
#include "proxy/route/match_input.h"

#include <stdlib.h>
#include <xxhash.h>

#include "protos/any.h"
#include "protos/gen/matching_common_inputs_environment_variable.pb-c.h"
#include "protos/gen/matching_common_inputs_network.pb-c.h"
#include "protos/gen/matching_input_matchers_consistent_hashing.pb-c.h"
#include "protos/gen/matching_input_matchers_ip.pb-c.h"
#include "protos/gen/matching_input_matchers_metadata.pb-c.h"
#include "protos/gen/matching_input_matchers_runtime_fraction.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "protos/gen/xds_type_matcher.pb-c.h"
#include "proxy/api/cel.h"
#include "proxy/net/tls.h"
#include "proxy/observe/filter_state.h"

/* --- inputs --- */

#define NETWORK "envoy.extensions.matching.common_inputs.network.v3."
#define SSL "envoy.extensions.matching.common_inputs.ssl.v3."
static const char *const input_types[MATCH_INPUTS_N] = {
    [MATCH_INPUT_REQUEST_HEADER] = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
    [MATCH_INPUT_DESTINATION_IP] = NETWORK "DestinationIPInput",
    [MATCH_INPUT_DESTINATION_PORT] = NETWORK "DestinationPortInput",
    [MATCH_INPUT_SOURCE_IP] = NETWORK "SourceIPInput",
    [MATCH_INPUT_SOURCE_PORT] = NETWORK "SourcePortInput",
    [MATCH_INPUT_DIRECT_SOURCE_IP] = NETWORK "DirectSourceIPInput",
    [MATCH_INPUT_SOURCE_TYPE] = NETWORK "SourceTypeInput",
    [MATCH_INPUT_SERVER_NAME] = NETWORK "ServerNameInput",
    [MATCH_INPUT_TRANSPORT_PROTOCOL] = NETWORK "TransportProtocolInput",
    [MATCH_INPUT_APPLICATION_PROTOCOL] = NETWORK "ApplicationProtocolInput",
    [MATCH_INPUT_NETWORK_NAMESPACE] = NETWORK "NetworkNamespaceInput",
    [MATCH_INPUT_FILTER_STATE] = NETWORK "FilterStateInput",
    [MATCH_INPUT_DYNAMIC_METADATA] = NETWORK "DynamicMetadataInput",
    [MATCH_INPUT_URI_SAN] = SSL "UriSanInput",
    [MATCH_INPUT_DNS_SAN] = SSL "DnsSanInput",
    [MATCH_INPUT_SUBJECT] = SSL "SubjectInput",
    [MATCH_INPUT_CEL] = "xds.type.matcher.v3.HttpAttributesCelMatchInput",
    [MATCH_INPUT_ENVIRONMENT] =
        "envoy.extensions.matching.common_inputs.environment_variable.v3.Config",
};

static unsigned kind_of(const char *type) {
    unsigned kind = 0;
    while (kind < MATCH_INPUTS_N && strcmp(type, input_types[kind]) != 0) {
        kind++;
    }
    return kind;
}

static void take_fields(struct compile_ctx *ctx, const void *msg, struct match_input *out) {
    switch (out->kind) {
    case MATCH_INPUT_REQUEST_HEADER: {
        sv name = sv_cstr(((const TypeMatcher__HttpRequestHeaderMatchInput *)msg)->header_name);
        char *p = arena_cstr(ctx->arena, name);
        for (size_t i = 0; i < name.n; i++) {
            p[i] = ascii_tolower(p[i]);
        }
        out->name = sv_from(p, name.n);
        out->header_id = header_id_of(out->name);
        return;
    }
    case MATCH_INPUT_FILTER_STATE: {
        const MatchingCommonInputsNetwork__FilterStateInput *m = msg;
        out->name = arena_sv(ctx->arena, sv_cstr(m->key));
        out->field = arena_sv(ctx->arena, sv_cstr(m->field));
        return;
    }
    case MATCH_INPUT_ENVIRONMENT: {
        const char *text =
            getenv(((const MatchingCommonInputsEnvironmentVariable__Config *)msg)->name);
        out->name = text ? arena_sv(ctx->arena, sv_cstr(text)) : SV_NULL;
        return;
    }
    default:
        return;
    }
}

bool match_input_compile(struct compile_ctx *ctx, const struct match_tree_user *user, sv name,
                         const void *typed_config, struct match_input *out) {
    const char *type = NULL;
    DIAG_FIELD(ctx->diag, "input.typed_config");
    const void *msg = compile_any(ctx, name, typed_config, NULL, &type);
    if (!msg) {
        return false;
    }
    unsigned kind = kind_of(type);
    bool is_known = kind < MATCH_INPUTS_N && (user->inputs >> kind & 1);
    if (!is_known) {
        return diag_error(ctx->diag, user->refusal, type);
    }
    *out = (struct match_input){.kind = (enum match_input_kind)kind, .msg = msg};
    take_fields(ctx, msg, out);
    return true;
}

bool match_input_is_unknown(const struct match_input *in, const struct match_facts *f) {
    return !f->ssl && (in->kind == MATCH_INPUT_URI_SAN || in->kind == MATCH_INPUT_DNS_SAN ||
                       in->kind == MATCH_INPUT_SUBJECT);
}

static bool is_ip(const struct addr *a) {
    return a && (a->family == AF_INET || a->family == AF_INET6);
}
static sv ip_text(const struct addr *a, struct arena *scratch) {
    char text[ADDR_STR_MAX];
    return is_ip(a) ? arena_sv(scratch, sv_from(text, addr_ip_str(a, text))) : SV_NULL;
}
static sv port_text(const struct addr *a, struct arena *scratch) {
    char digits[5], *p = digits + sizeof digits;
    unsigned port = a ? a->port : 0;
    do {
        *--p = (char)('0' + port % 10);
        port /= 10;
    } while (port);
    return is_ip(a) ? arena_sv(scratch, sv_from(p, (size_t)(digits + sizeof digits - p))) : SV_NULL;
}
static sv text_or_null(sv s) { return s.n ? s : SV_NULL; }

/* "a,b"; quoted: "'a','b'". */
static sv joined(const sv *v, unsigned n, const char *quote, struct arena *scratch) {
    size_t total = 0, quotes = strlen(quote);
    if (n == 0) {
        return SV_NULL;
    }
    for (unsigned i = 0; i < n; i++) {
        total += v[i].n + 2 * quotes + 1;
    }
    char *text = arena_alloc(scratch, total), *p = text;
    for (unsigned i = 0; i < n; i++) {
        *p = ',';
        p += i > 0;
        memcpy(p, quote, quotes);
        p += quotes;
        memcpy(p, v[i].p, v[i].n);
        p += v[i].n;
        memcpy(p, quote, quotes);
        p += quotes;
    }
    return sv_from(text, (size_t)(p - text));
}

static sv names_text(const struct match_facts *f, enum ssl_list list) {
    const sv *names = NULL;
    unsigned n = f->ssl ? ssl_info_list(f->ssl, list, &names) : 0;
    return joined(names, n, "", f->scratch);
}

static sv filter_state_input(const struct match_input *in, const struct match_facts *f) {
    const struct filter_state_object *o =
        f->si ? filter_state_get(f->si->filter_state, in->name) : NULL;
    if (!o || !in->field.n) {
        return o ? o->text : SV_NULL;
    }
    const struct kv_value *v =
        o->typed && o->typed->kind == KV_STRUCT ? kv_get(o->typed, in->field) : NULL;
    return v && v->kind == KV_STRING ? v->s : SV_NULL;
}

static sv source_type(const struct match_facts *f) {
    bool is_local = f->source && f->destination &&
                    (addr_is_loopback(f->source) || addr_ip_eq(f->source, f->destination));
    return is_local ? SV("local") : SV_NULL;
}

sv match_input_text(const struct match_input *in, const struct match_facts *f) {
    switch (in->kind) {
    case MATCH_INPUT_REQUEST_HEADER:
        return f->request ? headers_joined(f->request, in->header_id, in->name, f->scratch)
                          : SV_NULL;
    case MATCH_INPUT_DESTINATION_IP:
        return ip_text(f->destination, f->scratch);
    case MATCH_INPUT_DESTINATION_PORT:
        return port_text(f->destination, f->scratch);
    case MATCH_INPUT_SOURCE_IP:
        return ip_text(f->source, f->scratch);
    case MATCH_INPUT_SOURCE_PORT:
        return port_text(f->source, f->scratch);
    case MATCH_INPUT_DIRECT_SOURCE_IP:
        return ip_text(f->direct_source, f->scratch);
    case MATCH_INPUT_SOURCE_TYPE:
        return source_type(f);
    case MATCH_INPUT_SERVER_NAME:
        return text_or_null(f->server_name);
    case MATCH_INPUT_TRANSPORT_PROTOCOL:
        return text_or_null(f->transport_protocol);
    case MATCH_INPUT_APPLICATION_PROTOCOL:
        return joined(f->application_protocols, f->application_protocols_n, "'", f->scratch);
    case MATCH_INPUT_FILTER_STATE:
        return filter_state_input(in, f);
    case MATCH_INPUT_URI_SAN:
        return names_text(f, SSL_LIST_PEER_URI);
    case MATCH_INPUT_DNS_SAN:
        return names_text(f, SSL_LIST_PEER_DNS);
    case MATCH_INPUT_SUBJECT:
        return f->ssl ? text_or_null(ssl_info_fact(f->ssl, SSL_FACT_PEER_SUBJECT)) : SV_NULL;
    case MATCH_INPUT_ENVIRONMENT:
        return in->name;
    case MATCH_INPUT_NETWORK_NAMESPACE: /* listeners are in the process's own */
    case MATCH_INPUT_DYNAMIC_METADATA:
    case MATCH_INPUT_CEL:
    case MATCH_INPUTS_N:
        break;
    }
    return SV_NULL;
}

const struct addr *match_input_addr(const struct match_input *in, const struct match_facts *f,
                                    struct addr *room) {
    const struct addr *a = NULL;
    switch (in->kind) {
    case MATCH_INPUT_DESTINATION_IP:
        a = f->destination;
        break;
    case MATCH_INPUT_SOURCE_IP:
        a = f->source;
        break;
    case MATCH_INPUT_DIRECT_SOURCE_IP:
        a = f->direct_source;
        break;
    default: {
        sv text = match_input_text(in, f);
        a = text.p && addr_parse_ip(text, 0, room) ? room : NULL;
        break;
    }
    }
    return is_ip(a) ? a : NULL;
}

/* --- predicates --- */

enum leaf_kind { LEAF_STRING, LEAF_IP, LEAF_CEL, LEAF_METADATA, LEAF_FRACTION, LEAF_HASH };
struct match_leaf {
    struct match_input input;
    enum leaf_kind kind;
    union {
        struct string_matcher string;
        struct {
            const struct cidr *v;
            size_t n;
        } ranges;
        const struct cel *cel;
        const struct metadata_matcher *metadata;
        struct {
            uint64_t seed;
            struct fraction fraction;
            uint32_t threshold, modulo;
        } hash;
    };
};

/* The two families of string matchers have one wire form. */
static bool compile_string(struct compile_ctx *ctx, const XdsTypeMatcher__StringMatcher *m,
                           struct match_leaf *out) {
    DIAG_FIELD(ctx->diag, "value_match");
    const TypeMatcher__StringMatcher *same =
        PROTO_UNPACK(TypeMatcher__StringMatcher, type_matcher__string_matcher__descriptor,
                     proto_pack(&m->base, ctx->scratch), ctx->scratch, ctx->diag);
    out->kind = LEAF_STRING;
    return same && string_matcher_compile(ctx, same, &out->string);
}

static bool compile_ranges(struct compile_ctx *ctx, const void *msg, struct match_leaf *out) {
    const MatchingInputMatchersIp__Ip *m = msg;
    struct cidr *v = arena_new_array(ctx->arena, struct cidr, m->n_cidr_ranges);
    for (size_t i = 0; i < m->n_cidr_ranges; i++) {
        const Core__CidrRange *r = m->cidr_ranges[i];
        if (!cidr_make(sv_cstr(r->address_prefix), r->prefix_len ? r->prefix_len->value : 0,
                       &v[i])) {
            return diag_error(ctx->diag, "cidr_ranges[%zu]: malformed IP address: %s", i,
                              r->address_prefix);
        }
    }
    out->kind = LEAF_IP;
    out->ranges.v = v;
    out->ranges.n = m->n_cidr_ranges;
    return true;
}

static bool compile_cel(struct compile_ctx *ctx, const void *msg, struct match_leaf *out) {
    const XdsTypeMatcher__CelMatcher *m = msg;
    const XdsType__CelExpression *e = m->expr_match;
    DIAG_FIELD(ctx->diag, "expr_match");
    out->kind = LEAF_CEL;
    if (!e->cel_expr_checked && !e->cel_expr_parsed &&
        e->expr_specifier_case == XDS_TYPE__CEL_EXPRESSION__EXPR_SPECIFIER__NOT_SET) {
        return diag_error(ctx->diag, "CEL expression not set");
    }
    out->cel = cel_compile_expression(ctx, e);
    return out->cel != NULL;
}

static bool compile_metadata(struct compile_ctx *ctx, const void *msg, struct match_leaf *out) {
    const MatchingInputMatchersMetadata__Metadata *m = msg;
    const MatchingCommonInputsNetwork__DynamicMetadataInput *input = out->input.msg;
    TypeMatcher__MetadataMatcher all = TYPE_MATCHER__METADATA_MATCHER__INIT;
    out->kind = LEAF_METADATA;
    if (out->input.kind != MATCH_INPUT_DYNAMIC_METADATA) {
        return true; /* never holds */
    }
    all.filter = input->filter;
    all.n_path = input->n_path;
    all.path = arena_new_array(ctx->scratch, TypeMatcher__MetadataMatcher__PathSegment *,
                               input->n_path ? input->n_path : 1);
    for (size_t i = 0; i < input->n_path; i++) {
        all.path[i] = arena_new(ctx->scratch, TypeMatcher__MetadataMatcher__PathSegment);
        type_matcher__metadata_matcher__path_segment__init(all.path[i]);
        all.path[i]->segment_case = TYPE_MATCHER__METADATA_MATCHER__PATH_SEGMENT__SEGMENT_KEY;
        all.path[i]->key = input->path[i]->key;
    }
    all.value = m->value;
    all.invert = m->invert;
    out->metadata = metadata_matcher_compile(ctx, &all);
    return out->metadata != NULL;
}

static bool compile_fraction(struct compile_ctx *ctx, const void *msg, struct match_leaf *out) {
    const MatchingInputMatchersRuntimeFraction__RuntimeFraction *m = msg;
    DIAG_FIELD(ctx->diag, "runtime_fraction");
    out->kind = LEAF_FRACTION;
    out->hash.seed = m->seed;
    return fraction_compile(ctx, m->runtime_fraction, &out->hash.fraction);
}

static bool compile_hash(struct compile_ctx *ctx, const void *msg, struct match_leaf *out) {
    const MatchingInputMatchersConsistentHashing__ConsistentHashing *m = msg;
    out->kind = LEAF_HASH;
    out->hash.seed = m->seed;
    out->hash.threshold = m->threshold;
    out->hash.modulo = m->modulo;
    return m->threshold <= m->modulo ||
           diag_error(ctx->diag, "threshold cannot be greater than modulo: %u > %u", m->threshold,
                      m->modulo);
}

static bool compile_custom(struct compile_ctx *ctx, const XdsCore__TypedExtensionConfig *m,
                           struct match_leaf *out) {
    static const struct {
        const char *type;
        bool (*compile)(struct compile_ctx *ctx, const void *msg, struct match_leaf *out);
    } kinds[] = {
        {"envoy.extensions.matching.input_matchers.ip.v3.Ip", compile_ranges},
        {"xds.type.matcher.v3.CelMatcher", compile_cel},
        {"envoy.extensions.matching.input_matchers.metadata.v3.Metadata", compile_metadata},
        {"envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction",
         compile_fraction},
        {"envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
         compile_hash},
    };
    const char *type = NULL;
    DIAG_FIELD(ctx->diag, "custom_match.typed_config");
    const void *msg = compile_any(ctx, sv_cstr(m->name), m->typed_config, NULL, &type);
    if (!msg) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (strcmp(type, kinds[i].type) == 0) {
            return kinds[i].compile(ctx, msg, out);
        }
    }
    return diag_error(ctx->diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%s'",
                      m->name, type);
}

const struct match_leaf *match_leaf_compile(struct compile_ctx *ctx,
                                            const struct match_tree_user *user, const void *msg) {
    const XdsTypeMatcher__Matcher__MatcherList__Predicate__SinglePredicate *m = msg;
    struct match_leaf *l = arena_new(ctx->arena, struct match_leaf);
    if (!match_input_compile(ctx, user, sv_cstr(m->input->name), m->input->typed_config,
                             &l->input)) {
        return NULL;
    }
    bool ok;
    switch (m->matcher_case) {
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_LIST__PREDICATE__SINGLE_PREDICATE__MATCHER_VALUE_MATCH:
        ok = compile_string(ctx, m->value_match, l);
        break;
    case XDS_TYPE_MATCHER__MATCHER__MATCHER_LIST__PREDICATE__SINGLE_PREDICATE__MATCHER_CUSTOM_MATCH:
        ok = compile_custom(ctx, m->custom_match, l);
        break;
    default:
        ok = diag_error(ctx->diag, "matcher: value is required");
    }
    if (ok && (l->kind == LEAF_CEL) != (l->input.kind == MATCH_INPUT_CEL)) {
        diag_error(ctx->diag, "Unsupported data input type: %s",
                   l->kind == LEAF_CEL ? "string" : "cel_data_input");
        return NULL;
    }
    l->input.msg = NULL;
    return ok ? l : NULL;
}

static bool in_ranges(const struct match_leaf *l, const struct match_facts *f) {
    struct addr room;
    const struct addr *a = match_input_addr(&l->input, f, &room);
    for (size_t i = 0; a && i < l->ranges.n; i++) {
        if (cidr_contains(&l->ranges.v[i], a)) {
            return true;
        }
    }
    return false;
}

static bool text_holds(const struct match_leaf *l, sv text) {
    switch (l->kind) {
    case LEAF_STRING:
        return string_matcher_match(&l->string, text);
    case LEAF_FRACTION:
        return fraction_holds(&l->hash.fraction, XXH64(text.p, text.n, l->hash.seed));
    case LEAF_HASH:
        return XXH64(text.p, text.n, l->hash.seed) % l->hash.modulo >= l->hash.threshold;
    case LEAF_IP:
    case LEAF_CEL:
    case LEAF_METADATA:
        break;
    }
    return false;
}

static bool leaf_holds(const struct match_leaf *l, const struct match_facts *f) {
    if (l->kind == LEAF_CEL) {
        return f->si && cel_holds(l->cel, f->si, f->scratch);
    }
    if (l->kind == LEAF_METADATA) {
        return l->metadata && f->si && metadata_matcher_match(l->metadata, f->si->metadata);
    }
    if (l->kind == LEAF_IP) {
        return in_ranges(l, f);
    }
    sv text = match_input_text(&l->input, f);
    return text.p && text_holds(l, text);
}

enum match_result match_leaf_result(const struct match_leaf *l, const struct match_facts *f) {
    if (match_input_is_unknown(&l->input, f)) {
        return MATCH_UNKNOWN;
    }
    return leaf_holds(l, f) ? MATCH_YES : MATCH_NO;
}
