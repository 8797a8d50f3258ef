/* Which compression library a config message stands for.
 * Threads: config thread. Spec: config.core.v3.TypedExtensionConfig of category
 * envoy.compression.compressor. */
#include "filters/common/compressor_library.h"

#include "protos/gen/core.pb-c.h"

static const struct compressor_codec *const codecs[] = {
    &gzip_compressor_codec, &brotli_compressor_codec, &zstd_compressor_codec};

static const struct compressor_codec *codec_of(const char *type) {
    for (size_t i = 0; i < ARRAY_LEN(codecs); i++) {
        if (strcmp(codecs[i]->type_url, type) == 0) {
            return codecs[i];
        }
    }
    return NULL;
}

bool compressor_library_compile(struct compile_ctx *ctx, const void *typed_extension_config,
                                struct compressor_library *out) {
    const Core__TypedExtensionConfig *m =
        (const Core__TypedExtensionConfig *)typed_extension_config;
    DIAG_FIELD(ctx->diag, "typed_config");
    const char *type;
    sv name = sv_cstr(m->name);
    const void *msg = compile_any(ctx, name, m->typed_config, NULL, &type);
    if (!msg) {
        return false;
    }
    out->codec = codec_of(type);
    if (!out->codec) {
        return diag_error(ctx->diag,
                          "Didn't find a registered implementation for '%.*s' with type URL: '%s'",
                          SV_ARG(name), type);
    }
    out->name = arena_sv(ctx->arena, name);
    out->config = out->codec->compile(ctx, msg);
    return out->config != NULL;
}
