/* See the header; and ids as text (api/tracer.h). */
#include "proxy/observe/trace.h"

#include <stdlib.h>

#include "protos/gen/type_tracing.pb-c.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"

/* ---- ids ---- */

void trace_hex_write(uint64_t v, char out[TRACE_ID_DIGITS]) {
    for (unsigned i = 0; i < TRACE_ID_DIGITS; i++) {
        out[i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
    }
}

sv trace_hex_text(uint64_t v, struct arena *a) {
    char *p = (char *)arena_alloc(a, TRACE_ID_DIGITS);
    trace_hex_write(v, p);
    return sv_from(p, TRACE_ID_DIGITS);
}

size_t trace_id_write(const struct trace_span *s, char out[2 * TRACE_ID_DIGITS]) {
    size_t n = 0;
    if (!s->has_short_id || s->trace_high) {
        trace_hex_write(s->trace_high, out);
        n = TRACE_ID_DIGITS;
    }
    trace_hex_write(s->trace_low, out + n);
    return n + TRACE_ID_DIGITS;
}

sv trace_id_text(const struct trace_span *s, struct arena *a) {
    char *p = (char *)arena_alloc(a, 2 * TRACE_ID_DIGITS);
    return sv_from(p, trace_id_write(s, p));
}

/* ---- custom tags ---- */

enum tag_kind { TAG_TEXT, TAG_HEADER, TAG_METADATA, TAG_FORMAT };
/* NOWHERE: no kind was given, and nothing is ever found. */
enum tag_metadata { TAG_NOWHERE, TAG_REQUEST, TAG_ROUTE, TAG_CLUSTER, TAG_HOST };

struct custom_tag {
    sv name;
    enum tag_kind kind;
    enum tag_metadata metadata;
    sv text; /* the literal, or what holds when there is no value */
    sv header, ns;
    const sv *path;
    unsigned path_n;
    const struct formatter *format;
};
struct custom_tags {
    unsigned n;
    struct custom_tag v[];
};

static sv keep(struct compile_ctx *ctx, const char *s) {
    return *s ? arena_sv(ctx->arena, sv_cstr(s)) : SV_NULL;
}

static void compile_header(struct compile_ctx *ctx, const TypeTracing__CustomTag__Header *m,
                           struct custom_tag *t) {
    char *name = arena_cstr(ctx->arena, sv_cstr(m->name));
    for (char *p = name; *p; p++) {
        *p = ascii_tolower(*p);
    }
    t->kind = TAG_HEADER;
    t->header = sv_cstr(name);
    t->text = keep(ctx, m->default_value);
}

static enum tag_metadata metadata_kind(const TypeMetadata__MetadataKind *m) {
    switch (m ? m->kind_case : TYPE_METADATA__METADATA_KIND__KIND__NOT_SET) {
    case TYPE_METADATA__METADATA_KIND__KIND_REQUEST:
        return TAG_REQUEST;
    case TYPE_METADATA__METADATA_KIND__KIND_ROUTE:
        return TAG_ROUTE;
    case TYPE_METADATA__METADATA_KIND__KIND_CLUSTER:
        return TAG_CLUSTER;
    case TYPE_METADATA__METADATA_KIND__KIND_HOST:
        return TAG_HOST;
    default:
        return TAG_NOWHERE;
    }
}

static void compile_metadata(struct compile_ctx *ctx, const TypeTracing__CustomTag__Metadata *m,
                             struct custom_tag *t) {
    t->kind = TAG_METADATA;
    t->text = keep(ctx, m->default_value);
    if (!m->metadata_key) {
        return;
    }
    t->metadata = metadata_kind(m->kind);
    t->ns = keep(ctx, m->metadata_key->key);
    sv *path = arena_new_array(ctx->arena, sv, m->metadata_key->n_path);
    for (size_t i = 0; i < m->metadata_key->n_path; i++) {
        path[i] = keep(ctx, m->metadata_key->path[i]->key);
    }
    t->path = path;
    t->path_n = (unsigned)m->metadata_key->n_path;
}

/* Set by the environment of the process as it is now, which does not change. */
static void compile_environment(struct compile_ctx *ctx,
                                const TypeTracing__CustomTag__Environment *m,
                                struct custom_tag *t) {
    const char *value = getenv(m->name);
    t->text = keep(ctx, value ? value : m->default_value);
}

static bool compile_tag(struct compile_ctx *ctx, const TypeTracing__CustomTag *m,
                        struct custom_tag *t) {
    t->name = keep(ctx, m->tag);
    switch (m->type_case) {
    case TYPE_TRACING__CUSTOM_TAG__TYPE_LITERAL:
        t->text = keep(ctx, m->literal->value);
        return true;
    case TYPE_TRACING__CUSTOM_TAG__TYPE_ENVIRONMENT:
        compile_environment(ctx, m->environment, t);
        return true;
    case TYPE_TRACING__CUSTOM_TAG__TYPE_REQUEST_HEADER:
        compile_header(ctx, m->request_header, t);
        return true;
    case TYPE_TRACING__CUSTOM_TAG__TYPE_METADATA:
        compile_metadata(ctx, m->metadata, t);
        return true;
    case TYPE_TRACING__CUSTOM_TAG__TYPE_VALUE:
        t->kind = TAG_FORMAT;
        t->format = formatter_compile(ctx, sv_cstr(m->value), true);
        return t->format != NULL;
    default:
        return diag_error(ctx->diag, "type: value is required");
    }
}

const struct custom_tags *custom_tags_compile(struct compile_ctx *ctx, const void *const *msgs,
                                              size_t n) {
    if (n == 0) {
        return NULL;
    }
    if (n > CUSTOM_TAGS_MAX) {
        diag_error(ctx->diag, "custom_tags: more than %u", CUSTOM_TAGS_MAX);
        return NULL;
    }
    struct custom_tags *t =
        (struct custom_tags *)arena_zalloc(ctx->arena, sizeof(*t) + n * sizeof(t->v[0]));
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "custom_tags[%zu]", i);
        if (compile_tag(ctx, (const TypeTracing__CustomTag *)msgs[i], &t->v[t->n])) {
            t->n++;
        }
    }
    return t->n == n ? t : NULL;
}

/* ---- values ---- */

static const struct kv_metadata *metadata_of(const struct custom_tag *t,
                                             const struct stream_info *si) {
    switch (t->metadata) {
    case TAG_NOWHERE:
        return NULL;
    case TAG_REQUEST:
        return si->metadata;
    case TAG_ROUTE:
        return si->route_metadata;
    case TAG_CLUSTER:
        return si->cluster_metadata;
    case TAG_HOST:
        return si->up.host && observe_hooks()->host_metadata
                   ? observe_hooks()->host_metadata(si->up.host)
                   : NULL;
    }
    return NULL;
}

static sv buf_text(struct buf *b, struct arena *a) {
    return buf_empty(b) ? SV_NULL : arena_sv(a, buf_pullup(b, buf_len(b)));
}

static sv metadata_text(const struct custom_tag *t, const struct stream_info *si, struct arena *a) {
    const struct kv_value *v = kv_metadata_get(metadata_of(t, si), t->ns, t->path, t->path_n);
    if (!v || v->kind == KV_NULL) {
        return SV_NULL;
    }
    if (v->kind == KV_STRING) {
        return v->s;
    }
    struct buf BUF_AUTO text;
    buf_init(&text);
    kv_write_json(v, &text);
    return buf_text(&text, a);
}

static sv value_of(const struct custom_tag *t, const struct stream_info *si, struct arena *a) {
    sv v = SV_NULL;
    switch (t->kind) {
    case TAG_TEXT:
        break;
    case TAG_HEADER:
        v = si->request ? headers_get_name(si->request, t->header) : SV_NULL;
        return v.p ? v : t->text;
    case TAG_METADATA:
        v = metadata_text(t, si, a);
        break;
    case TAG_FORMAT: {
        struct buf BUF_AUTO text;
        buf_init(&text);
        formatter_text(t->format, si, &text);
        return buf_text(&text, a);
    }
    }
    return v.n ? v : t->text;
}

static bool has_name(const struct custom_tags *t, sv name) {
    for (unsigned i = 0; t && i < t->n; i++) {
        if (sv_eq(t->v[i].name, name)) {
            return true;
        }
    }
    return false;
}

unsigned custom_tags_values(const struct custom_tags *t, const struct custom_tags *instead,
                            const struct stream_info *si, struct arena *a, struct trace_tag *out) {
    unsigned n = 0;
    for (unsigned i = 0; t && i < t->n; i++) {
        if (has_name(instead, t->v[i].name)) {
            continue;
        }
        sv value = value_of(&t->v[i], si, a);
        if (value.n) {
            out[n++] = (struct trace_tag){t->v[i].name, value};
        }
    }
    return n;
}
