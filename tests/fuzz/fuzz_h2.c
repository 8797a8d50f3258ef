/* HTTP/2 codecs: frames made of the input, or the input as it is, in pieces.
 * Input: one byte of options, one for the size of pieces, then frames (type, flags, stream, length
 * and that many bytes) or bytes. */
#include "proxy/base/mem.h"
#include "proxy/http/h2.h"
#include "tests/support/codec_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum {
    CLIENT = 1,
    ANSWERS = 2,
    RAW_BYTES = 4,
    STREAM_ERRORS = 8,
    RESETS = 16,
    HOLDS = 32,
    TIGHT = 64
};

static struct loop *loop(void) {
    static struct loop *l;
    if (!l) {
        l = xnew(struct loop);
        CHECK(loop_init(l, 0) == 0);
    }
    return l;
}

static void put_frames(struct buf *out, const uint8_t *p, size_t n) {
    while (n >= 4) {
        size_t length = p[3] < n - 4 ? p[3] : n - 4;
        uint8_t head[9] = {0, 0, (uint8_t)length, p[0] % 11, p[1], 0, 0, 0, p[2] % 8};
        buf_append(out, head, sizeof(head));
        buf_append(out, p + 4, length);
        p += 4 + length;
        n -= 4 + length;
    }
}

static void send_requests(struct codec_log *l) {
    for (unsigned i = 0; i < 3; i++) {
        struct codec_stream *s = l->codec->vt->open(l->codec, &codec_log_stream_ops, l);
        if (!s) {
            return;
        }
        l->stream = s;
        struct headers h;
        headers_init(&h, &l->arena);
        headers_add_id(&h, HDR_method, i ? SV("GET") : SV("HEAD"));
        headers_add_id(&h, HDR_path, SV("/"));
        headers_add_id(&h, HDR_scheme, SV("http"));
        headers_add_id(&h, HDR_authority, SV("a"));
        s->codec->vt->send_headers(s, &h, i != 2);
    }
}

static void start(struct codec_log *l, unsigned flags) {
    l->opt.max_headers_bytes = 4000;
    l->opt.h2.override_stream_error_on_invalid_http_message = flags & STREAM_ERRORS;
    l->opt.h2.allow_connect = true;
    l->auto_reply = flags & ANSWERS;
    l->reset_on_headers = flags & RESETS;
    l->disable_on_headers = flags & HOLDS;
    l->conn.buffer_limit_bytes = flags & TIGHT ? 200 : 0;
    l->has_id_prefix = true;
    codec_log_start(l, flags & CLIENT ? h2_client_new : h2_server_new);
    static const char settings[] = "\0\0\0\4\0\0\0\0\0";
    if (flags & CLIENT) {
        codec_log_feed(l, settings, 9);
        send_requests(l);
    } else if (!(flags & RAW_BYTES)) {
        codec_log_feed(l, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
        codec_log_feed(l, settings, 9);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    static struct codec_log l;
    codec_log_init(&l, loop());
    start(&l, data[0]);
    struct buf bytes;
    buf_init(&bytes);
    if (data[0] & RAW_BYTES) {
        buf_append(&bytes, data + 2, n - 2);
    } else {
        put_frames(&bytes, data + 2, n - 2);
    }
    sv all = buf_pullup(&bytes, buf_len(&bytes));
    while (all.n && !l.error) {
        sv part = sv_sub(all, 0, data[1] + 1u);
        codec_log_feed(&l, part.p, part.n);
        all = sv_skip(all, part.n);
        size_t out = buf_len(conn_out(&l.conn));
        fake_conn_drain(&l.conn, out);
        if (out && data[0] & TIGHT) {
            l.codec->vt->on_conn_below_low(l.codec);
        }
    }
    buf_fini(&bytes);
    l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
    CHECK(l.codec->streams_active == 0);
    codec_log_fini(&l);
    loop_run_nowait(loop());
    return 0;
}
