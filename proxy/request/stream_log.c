/* Lines of access logs of a request.
 * Threads: worker-local. Spec: HttpConnectionManager.HcmAccessLogOptions, AccessLogType.
 * Not here: the loggers (api/access_logger.h). */
#include "proxy/request/stream_log.h"

struct log_interval {
    struct timer timer;
    struct stream *stream;
};

static void log_now(struct stream *s, enum access_log_type type) {
    stream_log_count_bytes(s);
    s->info.request = s->request.n ? &s->request : NULL;
    access_logs_run(s->cfg->access_logs, &s->info, type, s->hcm->loop);
}

static void on_interval(struct timer *t) {
    struct log_interval *i = CONTAINER_OF(t, struct log_interval, timer);
    struct stream *s = i->stream;
    log_now(s, ACCESS_LOG_DOWNSTREAM_PERIODIC);
    timer_start(t, s->cfg->access_log_flush_interval_ms);
}

void stream_log_begin(struct stream *s) {
    if (!s->cfg->access_logs || !s->cfg->access_log_flush_interval_ms) {
        return;
    }
    s->log_interval = arena_new(&s->arena, struct log_interval);
    s->log_interval->stream = s;
    timer_init(&s->log_interval->timer, s->hcm->loop, on_interval);
    timer_start(&s->log_interval->timer, s->cfg->access_log_flush_interval_ms);
}

void stream_log_request(struct stream *s) {
    if (s->cfg->log_new_request) {
        log_now(s, ACCESS_LOG_DOWNSTREAM_START);
    }
}

void stream_log_response(struct stream *s) {
    if (s->cfg->log_tunnel && s->is_connect && s->info.response_code == 200) {
        log_now(s, ACCESS_LOG_DOWNSTREAM_TUNNEL_ESTABLISHED);
    }
}

void stream_log_end(struct stream *s) {
    if (s->log_interval) {
        timer_cancel(&s->log_interval->timer);
    }
    for (unsigned i = 0; s->filters && i < s->chain->n; i++) {
        struct http_filter *f = s->filters[i];
        if (f && f->type->on_log) {
            f->type->on_log(f);
        }
    }
    log_now(s, ACCESS_LOG_DOWNSTREAM_END);
}

void stream_log_count_bytes(struct stream *s) {
    stream_info_count_upstream(&s->info);
    const struct codec_stream *cs = s->codec_stream;
    if (!cs) {
        return;
    }
    s->info.header_rx_bytes = cs->rx_header_bytes;
    s->info.header_tx_bytes = cs->tx_header_bytes;
    s->info.wire_rx_bytes = cs->rx_header_bytes + cs->rx_body_bytes;
    s->info.wire_tx_bytes = cs->tx_header_bytes + cs->tx_body_bytes;
}
