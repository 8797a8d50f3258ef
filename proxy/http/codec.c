/* What both codecs share: detection, default options, names of reset reasons, statistics groups.
 * Threads: any. Spec: RFC 9113 §3.4; Envoy 1.40's defaults. */
#include "proxy/http/codec.h"
#include "proxy/http/codec_stats.h"

STATS_GROUP(h1, H1, H1_STATS);
STATS_GROUP(h2, H2, H2_STATS);

const char *reset_reason_str(enum reset_reason r) {
    switch (r) {
    case RESET_NONE:
        return "";
    case RESET_LOCAL:
        return "local_reset";
    case RESET_LOCAL_REFUSED:
        return "local_refused_stream_reset";
    case RESET_REMOTE:
        return "remote_reset";
    case RESET_REMOTE_REFUSED:
        return "remote_refused_stream_reset";
    case RESET_CONNECTION_FAILURE:
        return "remote_connection_failure";
    case RESET_CONNECTION_TIMEOUT:
        return "connection_timeout";
    case RESET_CONNECTION_TERMINATION:
        return "connection_termination";
    case RESET_OVERFLOW:
        return "overflow";
    case RESET_CONNECT_ERROR:
        return "remote_error_with_CONNECT_request";
    case RESET_PROTOCOL_ERROR:
        return "protocol_error";
    case RESET_OVERLOAD:
        return "overload_manager_reset";
    }
    return "";
}

void codec_options_defaults(struct codec_options *o) {
    *o = (struct codec_options){
        .max_headers_bytes = 60 * 1024,
        .max_headers_count = 100,
        .underscores = UNDERSCORES_ALLOW,
        .h1 = {.header_case = H1_CASE_LOWER, .allow_absolute_url = true},
        .h2 =
            {
                .hpack_table_bytes = 4096,
                .max_concurrent_streams = 1024,
                .initial_stream_window_bytes = 16 * 1024 * 1024,
                .initial_connection_window_bytes = 24 * 1024 * 1024,
                .max_outbound_frames = 10000,
                .max_outbound_control_frames = 1000,
                .max_consecutive_inbound_empty_frames = 1,
                .max_inbound_priority_frames_per_stream = 100,
                .max_inbound_window_update_frames_per_data_frame_sent = 10,
                .flush_timeout_ms = 300000,
            },
    };
}

enum codec_kind codec_detect(sv first) {
    static const sv preface = SV_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    size_t n = first.n < preface.n ? first.n : preface.n;
    if (n && memcmp(first.p, preface.p, n) != 0) {
        return CODEC_HTTP1;
    }
    return n == preface.n ? CODEC_HTTP2 : CODEC_AUTO;
}

struct codec_stream *codec_no_open(struct codec *c, const struct codec_stream_ops *ops,
                                   void *user) {
    (void)c, (void)ops, (void)user;
    return NULL;
}
