/* Zstandard by libzstd.
 * Threads: config immutable (a dictionary is shared read-only), encoders worker-local.
 * Spec: extensions.compression.zstd.compressor.v3.Zstd, RFC 8878. */
#include <zstd.h>

#include "filters/common/compressor_library.h"
#include "protos/gen/compression_zstd_compressor.pb-c.h"
#include "proxy/base/mem.h"

struct zstd_config {
    int level, strategy; /* strategy 0: by level */
    bool enable_checksum;
    uint32_t chunk_bytes;
    ZSTD_CDict *dictionary; /* NULL: none */
};
struct zstd_encoder {
    struct encoder base; /* must be first */
    ZSTD_CCtx *ctx;
    uint32_t chunk_bytes;
};

static void release_dictionary(void *dictionary) { ZSTD_freeCDict((ZSTD_CDict *)dictionary); }

static bool compile_dictionary(struct compile_ctx *ctx, const Core__DataSource *m,
                               struct zstd_config *c) {
    DIAG_FIELD(ctx->diag, "dictionary");
    sv bytes;
    if (!compile_data_source(ctx, m, &bytes)) {
        return false;
    }
    c->dictionary = ZSTD_createCDict(bytes.p, bytes.n, c->level);
    if (!c->dictionary) {
        return diag_error(ctx->diag, "not a zstd dictionary");
    }
    arena_on_fini(ctx->arena, release_dictionary, c->dictionary);
    return true;
}

static void *zstd_compile(struct compile_ctx *ctx, const void *msg) {
    const CompressionZstdCompressor__Zstd *m = (const CompressionZstdCompressor__Zstd *)msg;
    struct zstd_config *c = arena_new(ctx->arena, struct zstd_config);
    c->level = ZSTD_CLEVEL_DEFAULT;
    if (m->compression_level) {
        uint32_t level = m->compression_level->value, max = (uint32_t)ZSTD_maxCLevel();
        c->level = (int)(level < max ? level : max);
    }
    c->strategy = (int)m->strategy;
    c->enable_checksum = m->enable_checksum;
    c->chunk_bytes = m->chunk_size ? m->chunk_size->value : COMPRESSOR_CHUNK_BYTES;
    if (m->dictionary && !compile_dictionary(ctx, m->dictionary, c)) {
        return NULL;
    }
    return c;
}

static bool run(struct zstd_encoder *e, struct buf *out, sv bytes, ZSTD_EndDirective how) {
    ZSTD_inBuffer in = {bytes.p, bytes.n, 0};
    size_t left;
    do {
        ZSTD_outBuffer piece = {buf_reserve(out, e->chunk_bytes), e->chunk_bytes, 0};
        left = ZSTD_compressStream2(e->ctx, &piece, &in, how);
        buf_commit(out, piece.pos);
        if (ZSTD_isError(left)) {
            return false;
        }
    } while (how == ZSTD_e_continue ? in.pos < in.size : left != 0);
    return true;
}

static bool zstd_encode(struct encoder *base, struct buf *data, bool finish) {
    struct zstd_encoder *e = (struct zstd_encoder *)base;
    struct buf BUF_AUTO out;
    buf_init(&out);
    bool ok = true;
    for (size_t i = 0; ok && i < buf_slices(data); i++) {
        const struct slice *s = buf_slice(data, i);
        ok = run(e, &out, sv_from(s->p, s->n), ZSTD_e_continue);
    }
    ok = ok && run(e, &out, SV_NULL, finish ? ZSTD_e_end : ZSTD_e_flush);
    buf_clear(data);
    buf_move(data, &out);
    return ok;
}

static void zstd_free(struct encoder *base) {
    struct zstd_encoder *e = (struct zstd_encoder *)base;
    ZSTD_freeCCtx(e->ctx);
    xfree(e);
}

static const struct encoder_ops zstd_ops = {.encode = zstd_encode, .free = zstd_free};

static struct encoder *zstd_encoder_new(const void *config) {
    const struct zstd_config *c = (const struct zstd_config *)config;
    struct zstd_encoder *e = xnew(struct zstd_encoder);
    e->base.ops = &zstd_ops;
    e->chunk_bytes = c->chunk_bytes;
    e->ctx = ZSTD_createCCtx();
    CHECK(e->ctx != NULL);
    ZSTD_CCtx_setParameter(e->ctx, ZSTD_c_compressionLevel, c->level);
    ZSTD_CCtx_setParameter(e->ctx, ZSTD_c_strategy, c->strategy);
    ZSTD_CCtx_setParameter(e->ctx, ZSTD_c_checksumFlag, c->enable_checksum);
    if (c->dictionary) {
        ZSTD_CCtx_refCDict(e->ctx, c->dictionary);
    }
    return &e->base;
}

const struct compressor_codec zstd_compressor_codec = {
    .type_url = "envoy.extensions.compression.zstd.compressor.v3.Zstd",
    .stat_prefix = "zstd",
    .content_encoding = SV_INIT("zstd"),
    .compile = zstd_compile,
    .encoder_new = zstd_encoder_new,
};
