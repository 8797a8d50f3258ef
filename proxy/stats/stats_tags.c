/* Tag rules: token patterns and regexes for the default ones, PCRE2 for configured ones (ECMAScript
 * look-ahead occurs).
 * Threads: see stats_tags.h.
 * Rules without a leading literal token run first, then those filed under the name's first token,
 * each in order of definition; all look at the full name, what they cut is removed at the end. A
 * tag is taken from its first rule only.
 * Not here: which scopes carry tags of their own (stats.c), labels of an exposition format
 * (stats_prometheus.c). */
#include "proxy/stats/stats_tags.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <pthread.h>

#include "proxy/base/arena.h"
#include "proxy/base/log.h"
#include "proxy/base/regex.h"
#include "proxy/base/vec.h"

/* Bounds on what one configured regex may do with one name. */
#define PCRE_MATCH_LIMIT 20000
#define PCRE_DEPTH_LIMIT 1000
#define PCRE_HEAP_LIMIT_KIB 256
#define TOKENS_MAX 64

/* Token patterns: tokens are parted by '.', "*" is any one token, "$" the captured one, "**" any
 * number of them. */
enum rule_kind { RULE_TOKENS, RULE_RE2, RULE_PCRE, RULE_FIXED };

struct rule_def {
    const char *tag;
    const char *pattern; /* regex when it begins with '^' or has "\\" */
    const char *need;    /* regexes: a literal without which it cannot match; NULL: none */
    const char *never;   /* not a value of the tag; NULL: any is */
};

#define NAME "[^\\.]+"
#define ADDRESS "(?:(?:\\d{1,3}\\.\\d{1,3}\\.\\d{1,3}\\.\\d{1,3}|\\[[a-fA-F_\\d]+\\])_\\d+)"
#define ROUTE_NAME "[\\w\\-\\.]+"
#define WORD "[\\w\\-]+"
#define OWNER "^(?:listener|cluster)\\..*?\\.ssl\\."

static const struct rule_def default_rules[] = {
    {"envoy.response_code", "_rq(_(\\d{3}))$", "_rq_", NULL},
    {"envoy.response_code_class", "_rq_((\\d))xx$", "_rq_", NULL},
    {"envoy.dynamo_partition_id",
     "^http\\." NAME "\\.dynamodb\\.table\\." NAME "\\.capacity\\." NAME
     "(\\.__partition_id=(\\w{7}))$",
     ".dynamodb.", NULL},
    {"envoy.dynamo_operation",
     "^http\\." NAME "\\.dynamodb.(?:operation|table\\." NAME "\\.capacity)(\\.(" NAME
     "))(?:\\.|$)",
     ".dynamodb.", NULL},
    {"envoy.mongo_callsite", "mongo.*.collection.*.callsite.$.query.**", NULL, NULL},
    {"envoy.dynamo_table", "^http\\." NAME "\\.dynamodb.(?:table|error)\\.((" NAME ")\\.)",
     ".dynamodb.", NULL},
    {"envoy.mongo_collection", "mongo.*.collection.$.**.query.*", NULL, NULL},
    {"envoy.mongo_cmd", "mongo.*.cmd.$.**", NULL, NULL},
    {"envoy.grpc_bridge_method", "cluster.*.grpc.*.$.**", NULL, NULL},
    {"envoy.http_user_agent", "http.*.user_agent.$.**", NULL, NULL},
    {"envoy.virtual_cluster", "vhost.*.vcluster.$.**", NULL, NULL},
    {"envoy.fault_downstream_cluster", "http.*.fault.$.**", NULL, NULL},
    {"envoy.ssl_cipher", "^listener\\..*?\\.ssl\\.ciphers(\\.(" WORD "))$", ".ssl.ciphers.", NULL},
    {"envoy.ssl_cipher", "^cluster\\." NAME "\\.ssl\\.ciphers(\\.(" WORD "))$", ".ssl.ciphers.",
     NULL},
    {"envoy.ssl_curve", OWNER "curves(\\.(" WORD "))$", ".ssl.curves.", NULL},
    {"envoy.ssl_sigalg", OWNER "sigalgs(\\.(" WORD "))$", ".ssl.sigalgs.", NULL},
    {"envoy.ssl_version", OWNER "versions(\\.(TLSv\\d\\.\\d))$", ".ssl.versions.", NULL},
    {"envoy.tls_certificate", OWNER "certificate\\.((" NAME ")\\.).*$", ".ssl.certificate.", NULL},
    {"envoy.grpc_bridge_service", "cluster.*.grpc.$.**", NULL, NULL},
    {"envoy.tcp_prefix", "tcp.$.**", NULL, NULL},
    {"envoy.udp_prefix", "udp.$.**", NULL, NULL},
    {"envoy.clientssl_prefix", "auth.clientssl.$.**", NULL, NULL},
    {"envoy.ratelimit_prefix", "ratelimit.$.**", NULL, NULL},
    {"envoy.health_check_name", "^cluster\\." NAME "\\.health_check(\\.name\\.(" NAME "))\\..+",
     ".health_check.name.", NULL},
    {"envoy.ext_authz_prefix", "http.*.ext_authz.$.**", NULL, NULL},
    {"envoy.rds_route_config", "^http\\." NAME "\\.rds\\.((" ROUTE_NAME ")\\.)\\w+?$", ".rds.",
     NULL},
    {"envoy.scoped_rds_config", "^http\\." NAME "\\.scoped_rds\\.((" ROUTE_NAME ")\\.)\\w+?$",
     ".scoped_rds.", NULL},
    {"envoy.rbac_policy_name",
     "^http\\." NAME "\\.rbac\\.(?:" NAME "\\.)?policy\\.((" NAME
     ")\\.)(allowed|shadow_allowed|denied|shadow_denied)$",
     ".policy.", NULL},
    {"envoy.rbac_http_prefix", "^http\\." NAME "\\.rbac\\.((" NAME ")\\.).*?", ".rbac.", "policy"},
    {"envoy.cluster_name", "cluster.$.**", NULL, NULL},
    {"envoy.ext_authz_prefix", "cluster.*.ext_authz.$.**", NULL, NULL},
    {"envoy.http_conn_manager_prefix", "^listener\\..*?\\.http\\.((" NAME ")\\.)", ".http.", NULL},
    {"envoy.http_conn_manager_prefix", "http.$.**", NULL, NULL},
    {"envoy.listener_address", "^listener\\.((" ADDRESS "|" NAME ")\\.)", NULL, "admin"},
    {"envoy.virtual_host", "vhost.$.**", NULL, NULL},
    {"envoy.mongo_prefix", "mongo.$.**", NULL, NULL},
    {"envoy.route", "vhost.*.route.$.**", NULL, NULL},
    {"envoy.worker_id",
     "^(?:listener\\.(?:" ADDRESS "|" NAME
     ")|server|listener_manager|thread_local_cluster_manager)\\.worker_((\\d+)\\.)",
     ".worker_", NULL},
    {"envoy.thrift_prefix", "thrift.$.**", NULL, NULL},
    {"envoy.redis_prefix", "redis.$.**", NULL, NULL},
    {"envoy.local_http_ratelimit_prefix", "$.http_local_rate_limit.**", NULL, NULL},
    {"envoy.local_network_ratelimit_prefix", "local_rate_limit.$.**", NULL, NULL},
    {"envoy.local_listener_ratelimit_prefix", "listener_local_ratelimit.$.**", NULL, NULL},
    {"envoy.dns_filter_prefix", "dns_filter.$.**", NULL, NULL},
    {"envoy.connection_limit_prefix", "connection_limit.$.**", NULL, NULL},
    {"envoy.rbac_prefix", "$.rbac.**", NULL, NULL},
    {"envoy.proxy_protocol_version", "^proxy_proto\\.((?:" NAME "\\.)?versions\\.v(\\d)\\.)\\w+$",
     ".v", NULL},
    {"envoy.proxy_protocol_prefix", "^proxy_proto\\.((" NAME ")\\.).+$", NULL, "versions"},
    {"envoy.xds_resource_name", "^sds\\.((" NAME ")\\.).+", NULL, NULL},
};

struct rule {
    enum rule_kind kind;
    sv tag;
    sv need;        /* regexes: literal that must occur */
    sv never;       /* value that is no tag; empty: none */
    sv first_token; /* names of another first token never match; empty: any */
    sv pattern;     /* RULE_TOKENS */
    sv value;       /* RULE_FIXED */
    struct regex *re2;
    pcre2_code *pcre;
};
struct stats_tags {
    VEC(struct rule) rules; /* without a first token, then the others */
    struct arena arena;
};

static bool is_token_char(char c) { return ascii_isalnum(c) || c == '_'; }

/* The literal first token a regex demands: "^cluster\." or "^listener(?=\.)"; empty: none. */
static sv regex_first_token(sv re) {
    if (!re.n || re.p[0] != '^') {
        return SV_NULL;
    }
    size_t i = 1;
    while (i < re.n && is_token_char(re.p[i])) {
        i++;
    }
    sv rest = sv_skip(re, i);
    bool ends =
        sv_starts(rest, SV("\\.")) || sv_starts(rest, SV("(?=\\.)")) || sv_eq(rest, SV("$"));
    return i > 1 && ends ? sv_sub(re, 1, i - 1) : SV_NULL;
}

static void rule_insert(struct stats_tags *t, const struct rule *r) {
    size_t at = t->rules.n;
    if (!r->first_token.n) {
        for (at = 0; at < t->rules.n && !t->rules.p[at].first_token.n; at++) {}
    }
    (void)vec_push(&t->rules);
    memmove(&t->rules.p[at + 1], &t->rules.p[at], (t->rules.n - 1 - at) * sizeof(*r));
    t->rules.p[at] = *r;
}

static void add_default(struct stats_tags *t, const struct rule_def *def) {
    sv pattern = sv_cstr(def->pattern);
    struct rule r = {.tag = sv_cstr(def->tag),
                     .need = sv_cstr(def->need),
                     .never = sv_cstr(def->never),
                     .pattern = pattern};
    if (sv_find(pattern, '\\') != SIZE_MAX) {
        char err[128];
        r.kind = RULE_RE2;
        r.re2 = regex_new(pattern.p, pattern.n, err, sizeof(err));
        CHECK(r.re2);
        r.first_token = regex_first_token(pattern);
    } else {
        r.kind = RULE_TOKENS;
        sv head = pattern, token = sv_cut(&head, '.');
        r.first_token = sv_eq(token, SV("$")) ? SV_NULL : token;
    }
    rule_insert(t, &r);
}

/* Add the default rules of one tag; returns how many there are. */
static unsigned add_defaults_of(struct stats_tags *t, sv tag) {
    unsigned n = 0;
    for (size_t i = 0; i < ARRAY_LEN(default_rules); i++) {
        if (sv_is(tag, default_rules[i].tag)) {
            add_default(t, &default_rules[i]);
            n++;
        }
    }
    return n;
}

static bool add_regex(struct stats_tags *t, const struct stats_tag_spec *spec, char *err,
                      size_t err_n) {
    int code;
    PCRE2_SIZE offset;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)spec->regex.p, spec->regex.n,
                                   PCRE2_DOLLAR_ENDONLY | PCRE2_DOTALL, &code, &offset, NULL);
    if (!re) {
        char why[128] = "";
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof(why));
        snprintf(err, err_n, "Invalid regex '%.*s': %s", SV_ARG(spec->regex), why);
        return false;
    }
    struct rule r = {.kind = RULE_PCRE, .tag = arena_sv(&t->arena, spec->name), .pcre = re};
    r.first_token = arena_sv(&t->arena, regex_first_token(spec->regex));
    rule_insert(t, &r);
    return true;
}

static bool add_spec(struct stats_tags *t, const struct stats_tag_spec *spec, bool have_defaults,
                     char *err, size_t err_n) {
    if (!spec->name.n) {
        snprintf(err, err_n, "tag_name cannot be empty");
        return false;
    }
    if (spec->is_fixed) {
        struct rule r = {.kind = RULE_FIXED,
                         .tag = arena_sv(&t->arena, spec->name),
                         .value = arena_sv(&t->arena, spec->fixed)};
        rule_insert(t, &r);
        return true;
    }
    if (spec->regex.n) {
        return add_regex(t, spec, err, err_n);
    }
    bool known = false;
    for (size_t i = 0; i < ARRAY_LEN(default_rules); i++) {
        known = known || sv_is(spec->name, default_rules[i].tag);
    }
    if (!known) {
        snprintf(err, err_n,
                 "No regex specified for tag specifier and no default regex for name: '%.*s'",
                 SV_ARG(spec->name));
        return false;
    }
    if (!have_defaults) {
        add_defaults_of(t, spec->name);
    }
    return true;
}

struct stats_tags *stats_tags_new(bool use_defaults, const struct stats_tag_spec *specs, unsigned n,
                                  char *err, size_t err_n) {
    struct stats_tags *t = xnew(struct stats_tags);
    arena_init(&t->arena, 0);
    for (size_t i = 0; use_defaults && i < ARRAY_LEN(default_rules); i++) {
        add_default(t, &default_rules[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        if (!add_spec(t, &specs[i], use_defaults, err, err_n)) {
            stats_tags_free(t);
            return NULL;
        }
    }
    return t;
}

void stats_tags_free(struct stats_tags *t) {
    if (!t) {
        return;
    }
    for (size_t i = 0; i < t->rules.n; i++) {
        regex_free(t->rules.p[i].re2);
        pcre2_code_free(t->rules.p[i].pcre);
    }
    vec_fini(&t->rules);
    arena_fini(&t->arena);
    xfree(t);
}

static struct stats_tags *defaults;
static void defaults_make(void) { defaults = stats_tags_new(true, NULL, 0, NULL, 0); }
const struct stats_tags *stats_tags_default(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, defaults_make);
    return defaults;
}

/* --- extraction --- */

struct span {
    size_t from, to;
};
struct tokens {
    unsigned n;
    struct span v[TOKENS_MAX];
};
struct work {
    sv full;
    struct tokens tokens; /* filled when first needed */
    pcre2_match_data *match;
    pcre2_match_context *limits;
    struct span cut[STATS_TAGS_MAX];
    unsigned cuts;
};

static const struct tokens *tokenise(struct work *w) {
    struct tokens *t = &w->tokens;
    for (size_t from = 0; t->n == 0 || from <= w->full.n;) {
        if (t->n == TOKENS_MAX - 1) { /* the last one holds the rest */
            t->v[t->n++] = (struct span){from, w->full.n};
            break;
        }
        size_t dot = sv_find(sv_skip(w->full, from), '.');
        size_t to = dot == SIZE_MAX ? w->full.n : from + dot;
        t->v[t->n++] = (struct span){from, to};
        from = to + 1;
    }
    return t;
}

static sv span_sv(sv full, struct span s) { return sv_sub(full, s.from, s.to - s.from); }

/* Match tokens from `i` on against the pattern's rest. Recursion only at "**", of which a pattern
 * has at most two. */
static bool match_tokens(sv full, const struct tokens *t, unsigned i, sv pattern, int *captured) {
    while (pattern.n) {
        sv want = sv_cut(&pattern, '.');
        if (sv_eq(want, SV("**"))) {
            for (unsigned from = i; from <= t->n && pattern.n; from++) {
                if (match_tokens(full, t, from, pattern, captured)) {
                    return true;
                }
            }
            return !pattern.n;
        }
        if (i >= t->n) {
            return false;
        }
        if (sv_eq(want, SV("$"))) {
            *captured = (int)i;
        } else if (!sv_eq(want, SV("*")) && !sv_eq(want, span_sv(full, t->v[i]))) {
            return false;
        }
        i++;
    }
    return i == t->n;
}

static bool try_tokens(struct work *w, const struct rule *r, struct span *cut, sv *value) {
    const struct tokens *t = w->tokens.n ? &w->tokens : tokenise(w);
    int at = -1;
    if (!match_tokens(w->full, t, 0, r->pattern, &at) || at < 0) {
        return false;
    }
    *value = span_sv(w->full, t->v[at]);
    *cut = t->v[at];
    if ((unsigned)at + 1 < t->n) {
        cut->to++; /* its dot */
    } else if (at > 0) {
        cut->from--;
    }
    return true;
}

static bool try_re2(struct work *w, const struct rule *r, struct span *cut, sv *value) {
    if (r->need.n && !sv_contains(w->full, r->need)) {
        return false;
    }
    struct regex_cap caps[3];
    if (!regex_capture(r->re2, w->full.p, w->full.n, caps, 3) || !caps[1].p) {
        return false;
    }
    cut->from = (size_t)(caps[1].p - w->full.p);
    cut->to = cut->from + caps[1].n;
    *value = caps[2].p ? sv_from(caps[2].p, caps[2].n) : SV_NULL;
    return true;
}

static void pcre_ready(struct work *w) {
    if (!w->match) {
        w->match = pcre2_match_data_create(16, NULL);
        w->limits = pcre2_match_context_create(NULL);
        CHECK(w->match && w->limits);
        pcre2_set_match_limit(w->limits, PCRE_MATCH_LIMIT);
        pcre2_set_depth_limit(w->limits, PCRE_DEPTH_LIMIT);
        pcre2_set_heap_limit(w->limits, PCRE_HEAP_LIMIT_KIB);
    }
}

static bool try_pcre(struct work *w, const struct rule *r, struct span *cut, sv *value) {
    pcre_ready(w);
    int rc = pcre2_match(r->pcre, (PCRE2_SPTR)w->full.p, w->full.n, 0, 0, w->match, w->limits);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        log_warn_limited(LOG_stats, "regex of stats tag '%.*s' gave up on a stat name (error %d)",
                         SV_ARG(r->tag), rc);
    }
    uint32_t groups = 0;
    pcre2_pattern_info(r->pcre, PCRE2_INFO_CAPTURECOUNT, &groups);
    if (rc < 0 || groups == 0) {
        return false;
    }
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(w->match);
    bool has_cut = rc == 0 || rc > 1;
    if (!has_cut || at[2] == PCRE2_UNSET) {
        return false;
    }
    *cut = (struct span){at[2], at[3]};
    bool has_value = groups > 1 && (rc == 0 || rc > 2) && at[4] != PCRE2_UNSET;
    *value = groups > 1 ? (has_value ? sv_sub(w->full, at[4], at[5] - at[4]) : SV_NULL)
                        : span_sv(w->full, *cut);
    return true;
}

static bool try_rule(struct work *w, const struct rule *r, struct span *cut, sv *value) {
    switch (r->kind) {
    case RULE_TOKENS:
        return try_tokens(w, r, cut, value);
    case RULE_RE2:
        return try_re2(w, r, cut, value);
    case RULE_PCRE:
        return try_pcre(w, r, cut, value);
    case RULE_FIXED:
        *cut = (struct span){0, 0};
        *value = r->value;
        return true;
    }
    return false;
}

static bool have_tag(const struct stats_tag_set *out, sv tag) {
    for (unsigned i = 0; i < out->n; i++) {
        if (sv_eq(out->v[i].name, tag)) {
            return true;
        }
    }
    return false;
}

/* Copy the name without what was cut; spans may overlap and come in any order. */
static void write_name(struct work *w, struct stats_tag_set *out) {
    size_t n = 0;
    for (size_t i = 0; i < w->full.n; i++) {
        bool is_cut = false;
        for (unsigned c = 0; c < w->cuts; c++) {
            is_cut = is_cut || (i >= w->cut[c].from && i < w->cut[c].to);
        }
        if (!is_cut) {
            out->bytes[n++] = w->full.p[i];
        }
    }
    out->name = sv_from(out->bytes, n);
}

void stats_tags_extract(const struct stats_tags *t, sv full, struct stats_tag_set *out) {
    out->n = 0;
    out->name = full;
    if (full.n >= STATS_NAME_MAX) {
        return;
    }
    struct work w;
    w.full = full;
    w.tokens.n = 0;
    w.match = NULL;
    w.limits = NULL;
    w.cuts = 0;
    sv rest = full, first = sv_cut(&rest, '.');
    for (size_t i = 0; i < t->rules.n && out->n < STATS_TAGS_MAX; i++) {
        const struct rule *r = &t->rules.p[i];
        struct span cut;
        sv value;
        if ((r->first_token.n && !sv_eq(r->first_token, first)) || have_tag(out, r->tag) ||
            !try_rule(&w, r, &cut, &value)) {
            continue;
        }
        if (r->never.n && sv_eq(value, r->never)) {
            continue;
        }
        out->v[out->n++] = (struct stats_tag){r->tag, value};
        w.cut[w.cuts++] = cut;
    }
    pcre2_match_data_free(w.match);
    pcre2_match_context_free(w.limits);
    if (w.cuts) {
        write_name(&w, out);
    }
}
