/* Compiles and applies header additions and removals.
 * Threads: compiled on the config thread, immutable; applied on workers, allocating only in the
 * header block's arena.
 * Spec: config.core.v3.HeaderValueOption, config.common.mutation_rules.v3.HeaderMutation; order as
 * Envoy's: removals, then overwrites, then additions, all values made from the headers as they were
 * before.
 * Not here: in which order tables, virtual hosts and routes are applied (request/router.c). */
#include "proxy/api/header_mutation.h"

#include "protos/gen/common_mutation_rules.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "proxy/base/buf.h"
#include "proxy/observe/formatter.h"
#include "proxy/route/matcher.h"

enum mutation_kind {
    MUTATION_REMOVE,
    MUTATION_REMOVE_MATCHING,
    MUTATION_APPEND,
    MUTATION_ADD_IF_ABSENT,
    MUTATION_OVERWRITE_OR_ADD,
    MUTATION_OVERWRITE,
};
struct mutation {
    enum mutation_kind kind;
    enum header_id id;
    bool keep_empty;
    sv name;
    sv literal; /* when format is NULL */
    const struct formatter *format;
    struct string_matcher matcher; /* MUTATION_REMOVE_MATCHING */
};
struct header_mutations {
    bool is_ordered; /* one after the other, each seeing what the one before did */
    unsigned n;
    struct mutation v[];
};

/* --- compile --- */

static bool is_modifiable(sv name) {
    return name.n && name.p[0] != ':' && !sv_eq_nocase(name, SV("host"));
}

static sv lower_name(struct arena *a, const char *name) {
    char *p = arena_cstr(a, sv_cstr(name));
    sv s = sv_cstr(p);
    for (size_t i = 0; i < s.n; i++) {
        p[i] = ascii_tolower(p[i]);
    }
    return s;
}

static void set_name(struct compile_ctx *ctx, struct mutation *m, const char *name) {
    m->name = lower_name(ctx->arena, name);
    m->id = header_id_of(m->name);
}

/* `["a", "b"]` as it was once written inside %DYNAMIC_METADATA(…)% becomes a:b. */
static void translate_list(struct buf *out, sv list) {
    bool first = true;
    for (size_t open = sv_find(list, '"'); open != SIZE_MAX; open = sv_find(list, '"')) {
        list = sv_skip(list, open + 1);
        sv item = sv_cut(&list, '"');
        if (!first) {
            buf_lit(out, ":");
        }
        buf_append_sv(out, item);
        first = false;
    }
}

/* One "%COMMAND(" whose older argument form differs: true when it was consumed and written in
 * today's form. */
static bool translate_command(struct buf *out, sv *in) {
    static const sv lists[] = {SV_INIT("%UPSTREAM_METADATA(["), SV_INIT("%DYNAMIC_METADATA([")};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        size_t end = sv_starts(*in, lists[i]) ? sv_find_sv(*in, SV("])%")) : SIZE_MAX;
        if (end != SIZE_MAX) {
            buf_append(out, in->p, lists[i].n - 1);
            translate_list(out, sv_sub(*in, lists[i].n, end - lists[i].n));
            buf_lit(out, ")%");
            *in = sv_skip(*in, end + 3);
            return true;
        }
    }
    sv state = SV("%PER_REQUEST_STATE(");
    size_t end = sv_starts(*in, state) ? sv_find_sv(*in, SV(")%")) : SIZE_MAX;
    if (end == SIZE_MAX) {
        return false;
    }
    buf_lit(out, "%FILTER_STATE(");
    buf_append_sv(out, sv_sub(*in, state.n, end - state.n));
    buf_lit(out, ":PLAIN)%");
    *in = sv_skip(*in, end + 2);
    return true;
}

static sv translate(struct arena *a, sv format) {
    if (!sv_contains(format, SV("_METADATA([")) &&
        !sv_contains(format, SV("%PER_REQUEST_STATE("))) {
        return format;
    }
    struct buf out BUF_AUTO = {0};
    buf_init(&out);
    while (format.n) {
        if (!translate_command(&out, &format)) {
            buf_append(&out, format.p, 1);
            format = sv_skip(format, 1);
        }
    }
    return arena_sv(a, buf_pullup(&out, buf_len(&out)));
}

static bool compile_action(struct compile_ctx *ctx, const Core__HeaderValueOption *o,
                           struct mutation *m) {
    int action = (int)o->append_action;
    if (o->append) {
        if (action != CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD) {
            return diag_error(ctx->diag,
                              "Both append and append_action are set and it's not allowed");
        }
        m->kind = o->append->value ? MUTATION_APPEND : MUTATION_OVERWRITE_OR_ADD;
        return true;
    }
    switch (action) {
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__APPEND_IF_EXISTS_OR_ADD:
        m->kind = MUTATION_APPEND;
        return true;
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__ADD_IF_ABSENT:
        m->kind = MUTATION_ADD_IF_ABSENT;
        return true;
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS_OR_ADD:
        m->kind = MUTATION_OVERWRITE_OR_ADD;
        return true;
    case CORE__HEADER_VALUE_OPTION__HEADER_APPEND_ACTION__OVERWRITE_IF_EXISTS:
        m->kind = MUTATION_OVERWRITE;
        return true;
    default:
        return diag_error(ctx->diag, "append_action: value must be one of the defined enum values");
    }
}

static bool compile_add(struct compile_ctx *ctx, const Core__HeaderValueOption *o,
                        struct mutation *m) {
    if (!o->header) {
        return diag_error(ctx->diag, "header: value is required");
    }
    if (!is_modifiable(sv_cstr(o->header->key))) {
        return diag_error(ctx->diag, ":-prefixed or host headers may not be modified");
    }
    set_name(ctx, m, o->header->key);
    m->keep_empty = o->keep_empty_value;
    if (o->header->raw_value.len) {
        compile_unhonoured(ctx, "header.raw_value");
    }
    sv text = translate(ctx->arena, sv_cstr(o->header->value));
    if (sv_find(text, '%') != SIZE_MAX) {
        DIAG_FIELD(ctx->diag, "header.value");
        struct formatter *f = formatter_compile(ctx, text, true);
        if (!f) {
            return false;
        }
        m->format = formatter_is_literal(f, &text) ? NULL : f;
    }
    m->literal = m->format ? SV_NULL : arena_sv(ctx->arena, text);
    return compile_action(ctx, o, m);
}

static bool compile_remove(struct compile_ctx *ctx, const char *name, struct mutation *m) {
    if (!is_modifiable(sv_cstr(name))) {
        return diag_error(ctx->diag, ":-prefixed or host headers may not be removed");
    }
    m->kind = MUTATION_REMOVE;
    set_name(ctx, m, name);
    return true;
}

static struct header_mutations *mutations_new(struct compile_ctx *ctx, size_t n) {
    struct header_mutations *m =
        (struct header_mutations *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    m->n = (unsigned)n;
    return m;
}

struct header_mutations *header_mutations_compile(struct compile_ctx *ctx, const void *const *add,
                                                  size_t add_n, const char *const *remove,
                                                  size_t remove_n) {
    if (add_n + remove_n == 0) {
        return NULL;
    }
    struct header_mutations *m = mutations_new(ctx, add_n + remove_n);
    bool ok = true;
    for (size_t i = 0; i < remove_n; i++) {
        ok &= compile_remove(ctx, remove[i], &m->v[i]);
    }
    for (size_t i = 0; i < add_n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= compile_add(ctx, (const Core__HeaderValueOption *)add[i], &m->v[remove_n + i]);
    }
    return ok ? m : NULL;
}

static bool compile_one(struct compile_ctx *ctx, const CommonMutationRules__HeaderMutation *msg,
                        struct mutation *m) {
    switch (msg->action_case) {
    case COMMON_MUTATION_RULES__HEADER_MUTATION__ACTION_REMOVE: {
        DIAG_FIELD(ctx->diag, "remove");
        return compile_remove(ctx, msg->remove, m);
    }
    case COMMON_MUTATION_RULES__HEADER_MUTATION__ACTION_APPEND: {
        DIAG_FIELD(ctx->diag, "append");
        return compile_add(ctx, msg->append, m);
    }
    case COMMON_MUTATION_RULES__HEADER_MUTATION__ACTION_REMOVE_ON_MATCH: {
        DIAG_FIELD(ctx->diag, "remove_on_match.key_matcher");
        m->kind = MUTATION_REMOVE_MATCHING;
        return msg->remove_on_match->key_matcher
                   ? string_matcher_compile(ctx, msg->remove_on_match->key_matcher, &m->matcher)
                   : diag_error(ctx->diag, "value is required");
    }
    default:
        return diag_error(ctx->diag, "action: value is required");
    }
}

struct header_mutations *header_mutations_compile_list(struct compile_ctx *ctx,
                                                       const void *const *msgs, size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct header_mutations *m = mutations_new(ctx, n);
    bool ok = true;
    m->is_ordered = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= compile_one(ctx, (const CommonMutationRules__HeaderMutation *)msgs[i], &m->v[i]);
    }
    return ok ? m : NULL;
}

/* --- apply --- */

static void remove_header(const struct mutation *m, struct headers *h) {
    if (m->id != HDR_OTHER) {
        headers_remove(h, m->id);
    } else {
        headers_remove_name(h, m->name);
    }
}

static void remove_matching(const struct mutation *m, struct headers *h) {
    for (unsigned i = 0; i < h->n; i++) {
        struct header it = h->v[i];
        if (it.flags & HEADER_REMOVED || !is_modifiable(it.name) ||
            !string_matcher_match(&m->matcher, it.name)) {
            continue;
        }
        if (it.id != HDR_OTHER) {
            headers_remove(h, (enum header_id)it.id);
        } else {
            headers_remove_name(h, it.name);
        }
    }
}

static bool has_header(const struct mutation *m, const struct headers *h) {
    return m->id != HDR_OTHER ? headers_has(h, m->id) : headers_find_name(h, m->name) != NULL;
}

/* False: nothing is to be written (empty, or bytes that no header may have, such as a line break
 * out of metadata). */
static bool value_of(const struct mutation *m, struct headers *h, const struct stream_info *si,
                     sv *out) {
    *out = m->literal;
    if (m->format) {
        struct buf text BUF_AUTO = {0};
        buf_init(&text);
        formatter_text(m->format, si, &text);
        *out = arena_sv(h->arena, buf_pullup(&text, buf_len(&text)));
        if (!header_value_valid(*out)) {
            return false;
        }
    }
    return out->n || m->keep_empty;
}

static void write_header(const struct mutation *m, struct headers *h, sv value) {
    if (m->kind == MUTATION_APPEND || m->kind == MUTATION_ADD_IF_ABSENT) {
        headers_add(h, m->id, m->name, value);
    } else if (m->id != HDR_OTHER) {
        headers_set(h, m->id, value);
    } else {
        headers_set_name(h, m->name, value);
    }
}

/* Does the mutation do anything with the headers as they are? */
static bool is_wanted(const struct mutation *m, const struct headers *h) {
    switch (m->kind) {
    case MUTATION_ADD_IF_ABSENT:
        return !has_header(m, h);
    case MUTATION_OVERWRITE:
        return has_header(m, h);
    case MUTATION_APPEND:
    case MUTATION_OVERWRITE_OR_ADD:
        return true;
    case MUTATION_REMOVE:
    case MUTATION_REMOVE_MATCHING:
        break;
    }
    return false;
}

static void apply_in_order(const struct header_mutations *ms, struct headers *h,
                           const struct stream_info *si) {
    for (unsigned i = 0; i < ms->n; i++) {
        const struct mutation *m = &ms->v[i];
        sv value;
        if (m->kind == MUTATION_REMOVE) {
            remove_header(m, h);
        } else if (m->kind == MUTATION_REMOVE_MATCHING) {
            remove_matching(m, h);
        } else if (is_wanted(m, h) && value_of(m, h, si, &value)) {
            write_header(m, h, value);
        }
    }
}

struct pending {
    const struct mutation *m; /* NULL: nothing to write */
    sv value;
};

static void apply_at_once(const struct header_mutations *ms, struct headers *h,
                          const struct stream_info *si) {
    unsigned i = 0;
    for (; i < ms->n && ms->v[i].kind == MUTATION_REMOVE; i++) {
        remove_header(&ms->v[i], h);
    }
    unsigned n = 0;
    struct pending *todo = (struct pending *)arena_alloc(h->arena, (ms->n - i + 1) * sizeof(*todo));
    for (; i < ms->n; i++) {
        if (is_wanted(&ms->v[i], h) && value_of(&ms->v[i], h, si, &todo[n].value)) {
            todo[n++].m = &ms->v[i];
        }
    }
    for (unsigned k = 0; k < n; k++) {
        if (todo[k].m->kind == MUTATION_OVERWRITE_OR_ADD || todo[k].m->kind == MUTATION_OVERWRITE) {
            write_header(todo[k].m, h, todo[k].value);
        }
    }
    for (unsigned k = 0; k < n; k++) {
        if (todo[k].m->kind == MUTATION_APPEND || todo[k].m->kind == MUTATION_ADD_IF_ABSENT) {
            write_header(todo[k].m, h, todo[k].value);
        }
    }
}

void header_mutations_apply(const struct header_mutations *m, struct headers *h,
                            const struct stream_info *si) {
    if (!m) {
        return;
    }
    if (m->is_ordered) {
        apply_in_order(m, h, si);
    } else {
        apply_at_once(m, h, si);
    }
}
