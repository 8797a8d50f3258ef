/* core.v3.SubstitutionFormatString. Threads: see formatter.h. */
#include "protos/gen/core.pb-c.h"
#include "proxy/observe/formatter_internal.h"

/* Formatter extensions: of those in Envoy's tree one adds an operator that we have. */
static bool extension(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e,
                      bool *req_without_query) {
    sv name = sv_cstr(e->name),
       type = e->typed_config ? sv_cstr(e->typed_config->type_url) : SV_NULL;
    type = sv_skip(type, sv_rfind(type, '/') == SIZE_MAX ? 0 : sv_rfind(type, '/') + 1);
    if (sv_is(type, "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery") ||
        sv_is(name, "envoy.formatter.req_without_query")) {
        *req_without_query = true;
        return true;
    }
    if (sv_is(type, "envoy.extensions.formatter.metadata.v3.Metadata") ||
        sv_is(name, "envoy.formatter.metadata")) {
        return true; /* its operator is built in */
    }
    if (sv_is(type, "envoy.extensions.formatter.cel.v3.Cel") ||
        sv_is(name, "envoy.formatter.cel")) {
        return true; /* built in as well, where it is refused when used */
    }
    return diag_error(ctx->diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                      e->name, SV_ARG(type));
}

bool substitution_format_compile(struct compile_ctx *ctx, const void *msg,
                                 struct substitution_format *out) {
    const Core__SubstitutionFormatString *m = msg;
    *out = (struct substitution_format){0};
    bool req_without_query = false;
    for (size_t i = 0; i < m->n_formatters; i++) {
        DIAG_FIELD(ctx->diag, "formatters[%zu]", i);
        if (!extension(ctx, m->formatters[i], &req_without_query)) {
            return false;
        }
    }
    out->content_type = arena_sv(ctx->arena, sv_cstr(m->content_type));
    sv text = SV_NULL;
    switch (m->format_case) {
    case CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT:
        text = sv_cstr(m->text_format);
        break;
    case CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_TEXT_FORMAT_SOURCE:
        if (!compile_data_source(ctx, m->text_format_source, &text)) {
            return false;
        }
        break;
    case CORE__SUBSTITUTION_FORMAT_STRING__FORMAT_JSON_FORMAT:
        if (!out->content_type.n) {
            out->content_type = SV("application/json");
        }
        out->json = json_formatter_compile_ext(ctx, m->json_format, m->omit_empty_values,
                                               req_without_query);
        return out->json != NULL;
    default:
        return diag_error(ctx->diag, "format: value is required");
    }
    if (!out->content_type.n) {
        out->content_type = SV("text/plain");
    }
    out->text = formatter_compile_ext(ctx, text, m->omit_empty_values, req_without_query);
    return out->text != NULL;
}

void substitution_format_write(const struct substitution_format *f, const struct stream_info *si,
                               struct buf *out) {
    if (f->text) {
        formatter_text(f->text, si, out);
    } else if (f->json) {
        json_formatter_write(f->json, si, out);
        buf_lit(out, "\n");
    }
}
