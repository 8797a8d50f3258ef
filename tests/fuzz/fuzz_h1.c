/* HTTP/1 codecs: any bytes, in pieces. The same bytes in other pieces give the same events.
 * Input: one byte of options, one for the size of pieces, the rest comes from the peer. */
#include "proxy/base/mem.h"
#include "proxy/http/h1.h"
#include "tests/support/codec_log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { CLIENT = 1, ANSWERS = 2, RAW = 4, LENIENT = 8, HEAD = 16, HOLDS = 32, PRESERVE = 64 };

static void set_options(struct codec_log *l, unsigned flags) {
    l->opt.max_headers_bytes = 2000;
    l->opt.h1.enable_trailers = flags & LENIENT;
    l->opt.h1.allow_chunked_length = flags & LENIENT;
    l->opt.h1.allow_custom_methods = flags & LENIENT;
    l->opt.h1.accept_http_10 = flags & LENIENT;
    l->opt.underscores = flags & LENIENT ? UNDERSCORES_DROP : UNDERSCORES_ALLOW;
    l->opt.h1.header_case = flags & PRESERVE ? H1_CASE_PRESERVE : H1_CASE_LOWER;
    l->auto_reply = flags & ANSWERS;
    l->raw_on_headers = flags & RAW && !(flags & CLIENT);
    l->disable_on_headers = flags & HOLDS;
}

static void send_request(struct codec_log *l, unsigned flags) {
    l->stream = l->codec->vt->open(l->codec, &codec_log_stream_ops, l);
    struct headers h;
    headers_init(&h, &l->arena);
    headers_add_id(&h, HDR_method, flags & HEAD ? SV("HEAD") : SV("GET"));
    headers_add_id(&h, HDR_path, SV("/"));
    if (flags & RAW) {
        headers_add_id(&h, HDR_connection, SV("upgrade"));
        headers_add_id(&h, HDR_upgrade, SV("x"));
    }
    l->codec->vt->send_headers(l->stream, &h, !(flags & RAW));
}

static char *run(unsigned flags, size_t piece, sv input, bool *broken) {
    struct codec_log l;
    codec_log_init(&l, NULL);
    set_options(&l, flags);
    codec_log_start(&l, flags & CLIENT ? h1_client_new : h1_server_new);
    if (flags & CLIENT) {
        send_request(&l, flags);
    }
    while (input.n) {
        sv part = sv_sub(input, 0, piece);
        codec_log_feed(&l, part.p, part.n);
        input = sv_skip(input, part.n);
    }
    while (l.disable_on_headers && l.codec->streams_active && l.conn.read_disable_) {
        l.disable_on_headers = false;
        l.codec->vt->read_disable(l.stream, false);
        codec_log_offer(&l);
    }
    *broken = l.bad || l.error || l.resets;
    struct buf dump;
    buf_init(&dump);
    l.codec->vt->dump(l.codec, &dump);
    buf_fini(&dump);
    l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION); /* of a tunnel: half-closed */
    l.codec->vt->on_conn_end(l.codec, RESET_CONNECTION_TERMINATION);
    CHECK(l.codec->streams_active == 0);
    CHECK(!(flags & CLIENT) || l.ends == 1);
    char *text = codec_log_text(&l);
    codec_log_fini(&l);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    sv input = sv_from(data + 2, n - 2);
    bool broken, broken_whole;
    char *pieces = run(data[0], data[1] % 16 + 1u, input, &broken);
    char *whole = run(data[0], SIZE_MAX, input, &broken_whole);
    CHECK(broken == broken_whole);
    CHECK(broken || strcmp(pieces, whole) == 0);
    xfree(pieces);
    xfree(whole);
    return 0;
}
