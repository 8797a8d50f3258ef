/* Compression libraries: what extensions of envoy.compression.compressor are made into. An encoder
 * turns a stream of body bytes into one compressed stream; each call leaves out everything that
 * went in, so that a peer sees it at once.
 * Threads: libraries are compiled on the config thread and immutable; encoders are worker-local.
 * Spec: extensions.compression.{gzip,brotli,zstd}.compressor.v3. Not here: when to compress
 * (http/compressor.c). */
#ifndef SLUICE_FILTERS_COMMON_COMPRESSOR_LIBRARY_H
#define SLUICE_FILTERS_COMMON_COMPRESSOR_LIBRARY_H

#include "proxy/api/compile.h"
#include "proxy/base/buf.h"

/* output is made in pieces of this size when the config names none */
#define COMPRESSOR_CHUNK_BYTES CHUNK_SMALL_BYTES

struct encoder {
    const struct encoder_ops *ops;
};
struct encoder_ops {
    /* Replace `data` by its compressed form; finish: end the compressed stream (once, the last
     * call). False: the library failed, the stream cannot go on. Output is at most what the
     * library's worst case makes of the input. */
    bool (*encode)(struct encoder *e, struct buf *data, bool finish);
    void (*free)(struct encoder *e);
};

struct compressor_codec {
    const char *type_url;
    const char *stat_prefix;
    sv content_encoding;
    /* arena memory; NULL: errors are in diag */
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    struct encoder *(*encoder_new)(const void *config);
};
extern const struct compressor_codec gzip_compressor_codec, brotli_compressor_codec,
    zstd_compressor_codec;

struct compressor_library {
    const struct compressor_codec *codec;
    const void *config;
    sv name; /* TypedExtensionConfig.name */
};
/* typed_extension_config: core.v3.TypedExtensionConfig. False: errors are in ctx->diag. */
bool compressor_library_compile(struct compile_ctx *ctx, const void *typed_extension_config,
                                struct compressor_library *out);
static inline struct encoder *compressor_library_encoder(const struct compressor_library *l) {
    return l->codec->encoder_new(l->config);
}
static inline void encoder_free(struct encoder *e) {
    if (e) {
        e->ops->free(e);
    }
}

#endif
