/* Scope keys and tables: see scope.h. A key is its fragments one behind the other, each with its
 * length in front, so that equal bytes mean equal fragments.
 * Threads: as told there. */
#include "proxy/route/scope.h"

#include "protos/gen/hcm.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/base/buf.h"
#include "proxy/base/mem.h"
#include "proxy/http/headers.h"
#include "proxy/route/route_private.h"

/* ---- keys ---- */

struct extractor {
    sv name; /* lower case */
    enum header_id id;
    sv element_separator;  /* empty: the whole value is one element */
    sv key, key_separator; /* element: "key<separator>value"; key empty: by index */
    uint32_t index;
};
struct scope_key_builder {
    const struct extractor *v;
    unsigned n;
};

/* Shorter names for what protoc-c calls them. */
#define EXTRACTOR_MSG Hcm__ScopedRoutes__ScopeKeyBuilder__FragmentBuilder__HeaderValueExtractor
#define EXTRACT_TYPE(x) \
    HCM__SCOPED_ROUTES__SCOPE_KEY_BUILDER__FRAGMENT_BUILDER__HEADER_VALUE_EXTRACTOR__EXTRACT_TYPE_##x
#define FRAGMENT_TYPE_HEADER \
    HCM__SCOPED_ROUTES__SCOPE_KEY_BUILDER__FRAGMENT_BUILDER__TYPE_HEADER_VALUE_EXTRACTOR

static bool compile_extractor(struct compile_ctx *ctx, const EXTRACTOR_MSG *m,
                              struct extractor *out) {
    out->name = route_lower(ctx->arena, m->name);
    out->id = header_id_of(out->name);
    out->id = out->id == HDR_host ? HDR_authority : out->id;
    out->element_separator = arena_sv(ctx->arena, sv_cstr(m->element_separator));
    switch (m->extract_type_case) {
    case EXTRACT_TYPE(INDEX):
        out->index = m->index;
        return !m->index || out->element_separator.n ||
               diag_error(ctx->diag, "Index > 0 for empty string element separator.");
    case EXTRACT_TYPE(ELEMENT):
        out->key = arena_sv(ctx->arena, sv_cstr(m->element->key));
        out->key_separator = arena_sv(ctx->arena, sv_cstr(m->element->separator));
        return true;
    default:
        return diag_error(ctx->diag, "HeaderValueExtractor extract_type not set.");
    }
}

const struct scope_key_builder *scope_key_builder_compile(struct compile_ctx *ctx,
                                                          const void *msg) {
    const Hcm__ScopedRoutes__ScopeKeyBuilder *m = (const Hcm__ScopedRoutes__ScopeKeyBuilder *)msg;
    unsigned before = diag_errors(ctx->diag);
    struct scope_key_builder *b = arena_new(ctx->arena, struct scope_key_builder);
    struct extractor *v = arena_new_array(ctx->arena, struct extractor, m->n_fragments);
    for (size_t i = 0; i < m->n_fragments; i++) {
        DIAG_FIELD(ctx->diag, "fragments[%zu].header_value_extractor", i);
        if (m->fragments[i]->type_case != FRAGMENT_TYPE_HEADER) {
            diag_error(ctx->diag, "value is required");
            continue;
        }
        compile_extractor(ctx, m->fragments[i]->header_value_extractor, &v[i]);
    }
    b->v = v;
    b->n = (unsigned)m->n_fragments;
    return diag_errors(ctx->diag) == before ? b : NULL;
}

/* The next element of *rest; false: there are no more. */
static bool next_element(sv *rest, sv separator, sv *out) {
    if (!rest->p) {
        return false;
    }
    size_t at = separator.n ? sv_find_sv(*rest, separator) : SIZE_MAX;
    *out = at == SIZE_MAX ? *rest : sv_sub(*rest, 0, at);
    *rest = at == SIZE_MAX ? SV_NULL : sv_skip(*rest, at + separator.n);
    return true;
}

static bool extract(const struct extractor *x, const struct headers *h, sv *out) {
    sv rest = x->id != HDR_OTHER ? headers_get(h, x->id) : headers_get_name(h, x->name);
    sv element;
    for (uint32_t i = 0; next_element(&rest, x->element_separator, &element); i++) {
        if (!x->key.n) {
            if (i == x->index) {
                *out = element;
                return true;
            }
            continue;
        }
        size_t at = sv_find_sv(element, x->key_separator);
        sv key = at == SIZE_MAX ? element : sv_sub(element, 0, at);
        if (sv_eq(key, x->key)) {
            *out = at == SIZE_MAX ? SV_NULL : sv_skip(element, at + x->key_separator.n);
            return true;
        }
    }
    return false;
}

static char *put_fragment(char *to, sv fragment) {
    uint32_t n = (uint32_t)fragment.n;
    memcpy(to, &n, sizeof(n));
    if (n) {
        memcpy(to + sizeof(n), fragment.p, n);
    }
    return to + sizeof(n) + n;
}

static sv put_fragments(const sv *v, unsigned n, struct arena *a) {
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        bytes += sizeof(uint32_t) + v[i].n;
    }
    char *key = (char *)arena_alloc(a, bytes), *to = key;
    for (unsigned i = 0; i < n; i++) {
        to = put_fragment(to, v[i]);
    }
    return sv_from(key, bytes);
}

sv scope_key_build(const struct scope_key_builder *b, const struct headers *h,
                   struct arena *scratch) {
    sv *v = arena_new_array(scratch, sv, b->n);
    for (unsigned i = 0; i < b->n; i++) {
        if (!extract(&b->v[i], h, &v[i])) {
            return SV_NULL;
        }
    }
    return put_fragments(v, b->n, scratch);
}

sv scope_key_of(const void *key_msg, struct arena *a) {
    const Route__ScopedRouteConfiguration__Key *m =
        (const Route__ScopedRouteConfiguration__Key *)key_msg;
    sv *v = xnew_array(sv, m->n_fragments);
    for (size_t i = 0; i < m->n_fragments; i++) {
        v[i] = sv_cstr(m->fragments[i]->string_key);
    }
    sv key = put_fragments(v, (unsigned)m->n_fragments, a);
    xfree(v);
    return key;
}

/* ---- tables ---- */

static void on_free(struct shared *s) {
    struct scope_table *t = (struct scope_table *)s;
    map_fini(&t->by_key);
    arena_fini(&t->arena);
    xfree(t);
}

struct scope_table *scope_table_new(void) {
    struct scope_table *t = xnew(struct scope_table);
    shared_init(&t->shared, on_free);
    arena_init(&t->arena, 1024);
    map_init(&t->by_key);
    return t;
}

void scope_table_add(struct scope_table *t, const struct scope *scope) {
    struct scope *s = arena_new(&t->arena, struct scope);
    *s = *scope;
    s->name = arena_sv(&t->arena, scope->name);
    s->key = arena_sv(&t->arena, scope->key);
    map_remove(&t->by_key, s->key); /* the key's bytes are the newcomer's from now on */
    map_put(&t->by_key, s->key, s);
}

const struct scope *scope_table_find(const struct scope_table *t, sv key) {
    return key.n ? (const struct scope *)map_get(&t->by_key, key) : NULL;
}
