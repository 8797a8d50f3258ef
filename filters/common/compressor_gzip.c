/* gzip by zlib.
 * Threads: config immutable, encoders worker-local. Spec:
 * extensions.compression.gzip.compressor.v3.Gzip, RFC 1952. */
#include <zlib.h>

#include "filters/common/compressor_library.h"
#include "protos/gen/compression_gzip_compressor.pb-c.h"
#include "proxy/base/mem.h"

#define GZIP_WRAPPER 16 /* added to window bits: a gzip header and trailer instead of zlib's */
#define DEFAULT_MEMORY_LEVEL 5
#define DEFAULT_WINDOW_BITS 12

struct gzip_config {
    int level, strategy, memory_level, window_bits;
    uint32_t chunk_bytes;
};
struct gzip_encoder {
    struct encoder base; /* must be first */
    z_stream z;
    uint32_t chunk_bytes;
};

static int strategy_of(CompressionGzipCompressor__Gzip__CompressionStrategy s) {
    switch (s) {
    case COMPRESSION_GZIP_COMPRESSOR__GZIP__COMPRESSION_STRATEGY__FILTERED:
        return Z_FILTERED;
    case COMPRESSION_GZIP_COMPRESSOR__GZIP__COMPRESSION_STRATEGY__HUFFMAN_ONLY:
        return Z_HUFFMAN_ONLY;
    case COMPRESSION_GZIP_COMPRESSOR__GZIP__COMPRESSION_STRATEGY__RLE:
        return Z_RLE;
    case COMPRESSION_GZIP_COMPRESSOR__GZIP__COMPRESSION_STRATEGY__FIXED:
        return Z_FIXED;
    case COMPRESSION_GZIP_COMPRESSOR__GZIP__COMPRESSION_STRATEGY__DEFAULT_STRATEGY:
    default: /* validate rules let no other value through */
        return Z_DEFAULT_STRATEGY;
    }
}

static void *gzip_compile(struct compile_ctx *ctx, const void *msg) {
    const CompressionGzipCompressor__Gzip *m = (const CompressionGzipCompressor__Gzip *)msg;
    struct gzip_config *c = arena_new(ctx->arena, struct gzip_config);
    int level = (int)m->compression_level;
    c->level = level == COMPRESSION_GZIP_COMPRESSOR__GZIP__COMPRESSION_LEVEL__DEFAULT_COMPRESSION
                   ? Z_DEFAULT_COMPRESSION
                   : level;
    c->strategy = strategy_of(m->compression_strategy);
    c->memory_level = m->memory_level ? (int)m->memory_level->value : DEFAULT_MEMORY_LEVEL;
    c->window_bits = m->window_bits ? (int)m->window_bits->value : DEFAULT_WINDOW_BITS;
    c->chunk_bytes = m->chunk_size ? m->chunk_size->value : COMPRESSOR_CHUNK_BYTES;
    return c;
}

/* Everything in z's input, or with `flush` what zlib still holds. */
static bool run(struct gzip_encoder *e, struct buf *out, int flush) {
    do {
        e->z.next_out = (Bytef *)buf_reserve(out, e->chunk_bytes);
        e->z.avail_out = e->chunk_bytes;
        int r = deflate(&e->z, flush);
        buf_commit(out, e->chunk_bytes - e->z.avail_out);
        /* Z_BUF_ERROR: nothing was left to do */
        if (r != Z_OK && r != Z_STREAM_END && r != Z_BUF_ERROR) {
            return false;
        }
    } while (e->z.avail_out == 0);
    return true;
}

static bool gzip_encode(struct encoder *base, struct buf *data, bool finish) {
    struct gzip_encoder *e = (struct gzip_encoder *)base;
    struct buf BUF_AUTO out;
    buf_init(&out);
    bool ok = true;
    for (size_t i = 0; ok && i < buf_slices(data); i++) {
        const struct slice *s = buf_slice(data, i);
        e->z.next_in = (Bytef *)(uintptr_t)s->p;
        e->z.avail_in = (uInt)s->n;
        ok = run(e, &out, Z_NO_FLUSH);
    }
    ok = ok && run(e, &out, finish ? Z_FINISH : Z_SYNC_FLUSH);
    buf_clear(data);
    buf_move(data, &out);
    return ok;
}

static void gzip_free(struct encoder *base) {
    struct gzip_encoder *e = (struct gzip_encoder *)base;
    deflateEnd(&e->z);
    xfree(e);
}

static const struct encoder_ops gzip_ops = {.encode = gzip_encode, .free = gzip_free};

static struct encoder *gzip_encoder_new(const void *config) {
    const struct gzip_config *c = (const struct gzip_config *)config;
    struct gzip_encoder *e = xnew(struct gzip_encoder);
    e->base.ops = &gzip_ops;
    e->chunk_bytes = c->chunk_bytes;
    int r = deflateInit2(&e->z, c->level, Z_DEFLATED, c->window_bits + GZIP_WRAPPER,
                         c->memory_level, c->strategy);
    CHECK(r == Z_OK);
    return &e->base;
}

const struct compressor_codec gzip_compressor_codec = {
    .type_url = "envoy.extensions.compression.gzip.compressor.v3.Gzip",
    .stat_prefix = "gzip",
    .content_encoding = SV_INIT("gzip"),
    .compile = gzip_compile,
    .encoder_new = gzip_encoder_new,
};
