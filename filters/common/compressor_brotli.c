/* Brotli by libbrotlienc.
 * Threads: config immutable, encoders worker-local. Spec:
 * extensions.compression.brotli.compressor.v3.Brotli, RFC 7932. */
#include <brotli/encode.h>

#include "filters/common/compressor_library.h"
#include "protos/gen/compression_brotli_compressor.pb-c.h"
#include "proxy/base/mem.h"

#define DEFAULT_QUALITY 3
#define DEFAULT_WINDOW_BITS 18
#define DEFAULT_INPUT_BLOCK_BITS 24

struct brotli_config {
    uint32_t quality, window_bits, input_block_bits, mode, chunk_bytes;
    bool disable_literal_context_modeling;
};
struct brotli_encoder {
    struct encoder base; /* must be first */
    BrotliEncoderState *state;
    uint32_t chunk_bytes;
};

static uint32_t mode_of(CompressionBrotliCompressor__Brotli__EncoderMode m) {
    switch (m) {
    case COMPRESSION_BROTLI_COMPRESSOR__BROTLI__ENCODER_MODE__GENERIC:
        return BROTLI_MODE_GENERIC;
    case COMPRESSION_BROTLI_COMPRESSOR__BROTLI__ENCODER_MODE__TEXT:
        return BROTLI_MODE_TEXT;
    case COMPRESSION_BROTLI_COMPRESSOR__BROTLI__ENCODER_MODE__FONT:
        return BROTLI_MODE_FONT;
    case COMPRESSION_BROTLI_COMPRESSOR__BROTLI__ENCODER_MODE__DEFAULT:
    default: /* validate rules let no other value through */
        return BROTLI_DEFAULT_MODE;
    }
}

static uint32_t value_or(const Pb__UInt32Value *v, uint32_t otherwise) {
    return v ? v->value : otherwise;
}

static void *brotli_compile(struct compile_ctx *ctx, const void *msg) {
    const CompressionBrotliCompressor__Brotli *m = (const CompressionBrotliCompressor__Brotli *)msg;
    struct brotli_config *c = arena_new(ctx->arena, struct brotli_config);
    c->quality = value_or(m->quality, DEFAULT_QUALITY);
    c->window_bits = value_or(m->window_bits, DEFAULT_WINDOW_BITS);
    c->input_block_bits = value_or(m->input_block_bits, DEFAULT_INPUT_BLOCK_BITS);
    c->mode = mode_of(m->encoder_mode);
    c->chunk_bytes = value_or(m->chunk_size, COMPRESSOR_CHUNK_BYTES);
    c->disable_literal_context_modeling = m->disable_literal_context_modeling;
    return c;
}

static bool run(struct brotli_encoder *e, struct buf *out, sv in, BrotliEncoderOperation op) {
    const uint8_t *next_in = (const uint8_t *)in.p;
    size_t left_in = in.n;
    do {
        uint8_t *next_out = (uint8_t *)buf_reserve(out, e->chunk_bytes);
        size_t left_out = e->chunk_bytes;
        bool ok = BrotliEncoderCompressStream(e->state, op, &left_in, &next_in, &left_out,
                                              &next_out, NULL);
        buf_commit(out, e->chunk_bytes - left_out);
        if (!ok) {
            return false;
        }
    } while (left_in || BrotliEncoderHasMoreOutput(e->state));
    return true;
}

static bool brotli_encode(struct encoder *base, struct buf *data, bool finish) {
    struct brotli_encoder *e = (struct brotli_encoder *)base;
    struct buf BUF_AUTO out;
    buf_init(&out);
    bool ok = true;
    for (size_t i = 0; ok && i < buf_slices(data); i++) {
        const struct slice *s = buf_slice(data, i);
        ok = run(e, &out, sv_from(s->p, s->n), BROTLI_OPERATION_PROCESS);
    }
    ok = ok && run(e, &out, SV_NULL, finish ? BROTLI_OPERATION_FINISH : BROTLI_OPERATION_FLUSH);
    buf_clear(data);
    buf_move(data, &out);
    return ok;
}

static void brotli_free(struct encoder *base) {
    struct brotli_encoder *e = (struct brotli_encoder *)base;
    BrotliEncoderDestroyInstance(e->state);
    xfree(e);
}

static const struct encoder_ops brotli_ops = {.encode = brotli_encode, .free = brotli_free};

static struct encoder *brotli_encoder_new(const void *config) {
    const struct brotli_config *c = (const struct brotli_config *)config;
    struct brotli_encoder *e = xnew(struct brotli_encoder);
    e->base.ops = &brotli_ops;
    e->chunk_bytes = c->chunk_bytes;
    e->state = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    CHECK(e->state != NULL);
    BrotliEncoderSetParameter(e->state, BROTLI_PARAM_QUALITY, c->quality);
    BrotliEncoderSetParameter(e->state, BROTLI_PARAM_LGWIN, c->window_bits);
    BrotliEncoderSetParameter(e->state, BROTLI_PARAM_LGBLOCK, c->input_block_bits);
    BrotliEncoderSetParameter(e->state, BROTLI_PARAM_MODE, c->mode);
    BrotliEncoderSetParameter(e->state, BROTLI_PARAM_DISABLE_LITERAL_CONTEXT_MODELING,
                              c->disable_literal_context_modeling);
    return &e->base;
}

const struct compressor_codec brotli_compressor_codec = {
    .type_url = "envoy.extensions.compression.brotli.compressor.v3.Brotli",
    .stat_prefix = "brotli",
    .content_encoding = SV_INIT("br"),
    .compile = brotli_compile,
    .encoder_new = brotli_encoder_new,
};
