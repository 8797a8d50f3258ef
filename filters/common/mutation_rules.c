/* Header mutation rules: see the header. Expressions come first, "disallow" before "allow"; then
 * the classes of headers. */
#include "filters/common/mutation_rules.h"

#include "protos/gen/common_mutation_rules.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/matcher.h"
#include "proxy/base/regex.h"

struct mutation_rules {
    bool allows_routing, allows_envoy, disallows_system, disallows_all, is_error;
    const struct regex *allowed, *disallowed; /* NULL: none */
};

static bool flag(const Pb__BoolValue *b) { return b && b->value; }

static const struct regex *compile_expression(struct compile_ctx *ctx, const char *field,
                                              const TypeMatcher__RegexMatcher *m) {
    DIAG_FIELD(ctx->diag, "%s", field);
    return m ? regex_compile(ctx, m) : NULL;
}

const struct mutation_rules *mutation_rules_compile(struct compile_ctx *ctx, const void *msg) {
    const CommonMutationRules__HeaderMutationRules *m =
        (const CommonMutationRules__HeaderMutationRules *)msg;
    unsigned before = diag_errors(ctx->diag);
    struct mutation_rules *r = arena_new(ctx->arena, struct mutation_rules);
    *r = (struct mutation_rules){.allows_routing = flag(m->allow_all_routing),
                                 .allows_envoy = flag(m->allow_envoy),
                                 .disallows_system = flag(m->disallow_system),
                                 .disallows_all = flag(m->disallow_all),
                                 .is_error = flag(m->disallow_is_error)};
    r->allowed = compile_expression(ctx, "allow_expression", m->allow_expression);
    r->disallowed = compile_expression(ctx, "disallow_expression", m->disallow_expression);
    return diag_errors(ctx->diag) == before ? r : NULL;
}

static bool is_routing(sv name) {
    return sv_is(name, "host") || sv_is(name, ":authority") || sv_is(name, ":scheme") ||
           sv_is(name, ":method");
}

static bool is_allowed(const struct mutation_rules *r, sv name) {
    if (r->disallowed && regex_full_match(r->disallowed, name.p, name.n)) {
        return false;
    }
    if (r->allowed && regex_full_match(r->allowed, name.p, name.n)) {
        return true;
    }
    if (r->disallows_all || (is_routing(name) && !r->allows_routing)) {
        return false;
    }
    if (sv_starts(name, SV(":")) && r->disallows_system) {
        return false;
    }
    return r->allows_envoy || !sv_starts(name, SV("x-envoy"));
}

enum mutation_verdict mutation_rules_check(const struct mutation_rules *r, sv name,
                                           bool is_removal) {
    if (!r) {
        return MUTATION_ALLOWED;
    }
    bool is_kept = is_removal && (sv_starts(name, SV(":")) || sv_is(name, "host"));
    if (!is_kept && is_allowed(r, name)) {
        return MUTATION_ALLOWED;
    }
    return r->is_error ? MUTATION_REFUSED : MUTATION_IGNORED;
}
