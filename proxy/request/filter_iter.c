/* Walking a stream's HTTP filters: one engine for both directions, with stop, continue and
 * buffering.
 * Threads: worker-local. Spec: Envoy's FilterManager; the statuses are told in api/http_filter.h.
 * Not here: what happens past the last filter (request/stream.c, request/router.c), local
 * replies. */
#include "proxy/api/extension.h"
#include "proxy/base/mem.h"
#include "proxy/request/stream.h"

static inline unsigned filters_n(const struct stream *s) { return s->filters ? s->chain->n : 0; }

/* Index of the filter a walk starts with, and the one after i; filters_n() or -1 ends it. */
static inline int first_filter(const struct stream *s, const struct filter_iter *it) {
    return it->is_decode ? 0 : (int)filters_n(s) - 1;
}
static inline int next_filter(const struct filter_iter *it, int i) {
    return it->is_decode ? i + 1 : i - 1;
}
static inline bool in_range(const struct stream *s, int i) {
    return i >= 0 && i < (int)filters_n(s);
}

static struct filter_iter *iter_of(struct stream *s, bool is_decode) {
    return is_decode ? &s->dec : &s->enc;
}

static bool walk_ended(const struct stream *s, const struct filter_iter *it) {
    return it->is_aborted || s->is_destroyed;
}

/* ---- instances ---- */

static bool is_enabled(struct stream *s, const struct hcm_filter *f) {
    const struct filter_override *o =
        s->route ? route_override(s->table, s->route, s->weighted, f->name_id) : NULL;
    return o ? !o->is_disabled : !f->is_disabled;
}

/* In the place of the first discovered filter that has no configuration. */
static enum filter_headers_status missing_decode_headers(struct http_filter *f, struct headers *h,
                                                         bool end_stream) {
    (void)h;
    (void)end_stream;
    http_local_reply(f, 500, SV_NULL, RESPONSE_FLAG(NFCF), SV(""), NULL, NULL);
    return FILTER_HEADERS_STOP;
}

static const struct http_filter_type missing_filter = {
    .name = "missing_config",
    .stream_size = sizeof(struct http_filter),
    .decode_headers = missing_decode_headers,
};

/* An instance of what the slot holds; NULL: it holds nothing, and an earlier filter answers so. */
static struct http_filter *discovered_instance(struct stream *s, const struct hcm_filter *f,
                                               bool *is_missing) {
    struct extension_view *v = worker_extension(s->hcm->worker, f->slot);
    if (!v && *is_missing) {
        return NULL;
    }
    const struct http_filter_type *type = v ? v->config->http : &missing_filter;
    struct http_filter *inst = arena_zalloc(&s->arena, type->stream_size);
    inst->type = type;
    if (!v) {
        *is_missing = true;
        return inst;
    }
    struct stream_extension *e = arena_new(&s->arena, struct stream_extension);
    *e = (struct stream_extension){s->extensions, v};
    s->extensions = e;
    inst->config = v->config->config;
    return inst;
}

static struct http_filter *instance(const struct hcm_filter *f, char *block) {
    struct http_filter *inst = (struct http_filter *)(void *)(block + f->offset);
    inst->type = f->type;
    inst->config = f->config;
    return inst;
}

bool stream_filters_create(struct stream *s) {
    const struct hcm_filters *chain = s->chain;
    if (chain->n == 0) {
        return true;
    }
    char *block = arena_zalloc(&s->arena, chain->block_bytes);
    s->filters = arena_zalloc_array(&s->arena, chain->n, sizeof(struct http_filter *));
    bool is_missing = false;
    for (unsigned i = 0; i < chain->n; i++) {
        const struct hcm_filter *f = &chain->v[i];
        if (UNLIKELY(!is_enabled(s, f))) {
            continue;
        }
        struct http_filter *inst =
            LIKELY(f->type) ? instance(f, block) : discovered_instance(s, f, &is_missing);
        if (!inst) {
            continue;
        }
        inst->stream = s;
        inst->index_ = (uint8_t)i;
        s->filters[i] = inst;
        if (inst->type->init) {
            inst->type->init(inst);
        }
    }
    return true;
}

void stream_filters_destroy(struct stream *s) {
    if (!s->filters) {
        return;
    }
    for (unsigned i = 0; i < filters_n(s); i++) {
        struct http_filter *f = s->filters[i];
        if (f && f->type->destroy) {
            f->type->destroy(f);
        }
    }
    s->filters = NULL;
    for (struct stream_extension *e = s->extensions; e; e = e->next) {
        extension_view_unref(e->view);
    }
    s->extensions = NULL;
}

/* ---- keeping body for a stopped filter ---- */

static void hold_source(struct stream *s, struct filter_iter *it, bool hold) {
    if (it->is_read_disabled == hold) {
        return;
    }
    it->is_read_disabled = hold;
    if (it->is_decode) {
        if (s->codec_stream) {
            stats_inc(s->hcm->stats, hold ? HCM_downstream_flow_control_paused_reading_total
                                          : HCM_downstream_flow_control_resumed_reading_total);
            s->codec_stream->codec->vt->read_disable(s->codec_stream, hold);
        }
        return;
    }
    /* the producer (router) holds back its upstream */
    for (unsigned i = 0; i < filters_n(s); i++) {
        struct http_filter *f = s->filters[i];
        if (f && hold && f->type->on_downstream_above_high) {
            f->type->on_downstream_above_high(f);
        } else if (f && !hold && f->type->on_downstream_below_low) {
            f->type->on_downstream_below_low(f);
        }
    }
}

static void too_large(struct stream *s, struct filter_iter *it) {
    if (it->is_decode) {
        stats_inc(s->hcm->stats, HCM_downstream_rq_too_large);
        /* though the whole of the body may have come */
        s->close_after |= s->hcm->codec->protocol != HTTP_2;
        stream_local_reply(s, 413, SV("Payload Too Large"), 0, SV("request_payload_too_large"),
                           NULL, NULL);
        return;
    }
    stats_inc(s->hcm->stats, HCM_rs_too_large);
    stream_local_reply(s, 500, SV("Internal Server Error"), 0, SV("response_payload_too_large"),
                       NULL, NULL);
}

static void keep_body(struct stream *s, struct filter_iter *it, struct buf *data,
                      bool is_watermark) {
    if (data != &it->buf) {
        buf_move(&it->buf, data);
    }
    if (s->buffer_limit == 0 || buf_len(&it->buf) <= s->buffer_limit) {
        return;
    }
    if (is_watermark) {
        hold_source(s, it, true);
        return;
    }
    too_large(s, it);
}

/* ---- the three kinds of step ---- */

static void headers_from(struct stream *s, struct filter_iter *it, int i);
static void data_from(struct stream *s, struct filter_iter *it, int i, struct buf *data, bool end);
static void trailers_from(struct stream *s, struct filter_iter *it, int i);

static enum filter_headers_status call_headers(struct http_filter *f, const struct filter_iter *it,
                                               bool end) {
    if (it->is_decode) {
        return f->type->decode_headers ? f->type->decode_headers(f, it->headers, end)
                                       : FILTER_HEADERS_CONTINUE;
    }
    return f->type->encode_headers ? f->type->encode_headers(f, it->headers, end)
                                   : FILTER_HEADERS_CONTINUE;
}

static enum filter_data_status call_data(struct http_filter *f, const struct filter_iter *it,
                                         struct buf *d, bool end) {
    if (it->is_decode) {
        return f->type->decode_data ? f->type->decode_data(f, d, end) : FILTER_DATA_CONTINUE;
    }
    return f->type->encode_data ? f->type->encode_data(f, d, end) : FILTER_DATA_CONTINUE;
}

static enum filter_trailers_status call_trailers(struct http_filter *f,
                                                 const struct filter_iter *it) {
    if (it->is_decode) {
        return f->type->decode_trailers ? f->type->decode_trailers(f, it->trailers)
                                        : FILTER_TRAILERS_CONTINUE;
    }
    return f->type->encode_trailers ? f->type->encode_trailers(f, it->trailers)
                                    : FILTER_TRAILERS_CONTINUE;
}

/* Resume after filter i: headers if they did not go on yet, then what was kept, then trailers. */
static void resume_after(struct stream *s, struct filter_iter *it, int i) {
    bool was_stop_all =
        it->state[i] == ITER_STOP_ALL_BUFFER || it->state[i] == ITER_STOP_ALL_WATERMARK;
    it->state[i] = ITER_CONTINUE;
    if (!(it->headers_passed >> i & 1)) {
        it->headers_passed |= 1ull << i;
        headers_from(s, it, next_filter(it, i));
        if (walk_ended(s, it)) {
            return;
        }
    }
    int from = was_stop_all ? i : next_filter(it, i);
    bool body_ended = it->is_complete && !it->trailers;
    if (!buf_empty(&it->buf) || (body_ended && !it->headers_end && !it->is_sink_done)) {
        struct buf kept;
        buf_init(&kept);
        buf_move(&kept, &it->buf);
        hold_source(s, it, false);
        data_from(s, it, from, &kept, body_ended);
        buf_fini(&kept);
        if (walk_ended(s, it)) {
            return;
        }
    }
    if (it->trailers && it->is_complete) {
        trailers_from(s, it, from);
    }
}

/* Does end_stream ride on the headers as filter i sees them? */
static bool headers_end_now(const struct filter_iter *it) {
    return it->headers_end && buf_empty(&it->buf) && !it->trailers;
}

/* What a header status means for the walk: true to go on with the next filter. */
static bool on_headers_status(struct filter_iter *it, int i, enum filter_headers_status st) {
    switch (st) {
    case FILTER_HEADERS_CONTINUE:
        break;
    case FILTER_HEADERS_CONTINUE_NO_END:
        it->headers_end = false;
        it->is_complete = false;
        break;
    case FILTER_HEADERS_STOP:
        it->state[i] = ITER_STOP;
        return false;
    case FILTER_HEADERS_STOP_ALL_BUFFER:
        it->state[i] = ITER_STOP_ALL_BUFFER;
        return false;
    case FILTER_HEADERS_STOP_ALL_WATERMARK:
        it->state[i] = ITER_STOP_ALL_WATERMARK;
        return false;
    }
    it->headers_passed |= 1ull << i;
    return true;
}

static void headers_from(struct stream *s, struct filter_iter *it, int i) {
    for (; in_range(s, i); i = next_filter(it, i)) {
        struct http_filter *f = s->filters[i];
        if (!f) {
            it->headers_passed |= 1ull << i;
            continue;
        }
        size_t kept_before = buf_len(&it->buf);
        int8_t outer = it->current;
        it->current = (int8_t)i;
        enum filter_headers_status st = call_headers(f, it, headers_end_now(it));
        it->current = outer;
        if (walk_ended(s, it) || !on_headers_status(it, i, st)) {
            return;
        }
        /* the filter put body in front of what may follow */
        if (UNLIKELY(kept_before == 0 && !buf_empty(&it->buf))) {
            headers_from(s, it, next_filter(it, i));
            struct buf added;
            buf_init(&added);
            buf_move(&added, &it->buf);
            it->headers_end = false;
            if (!walk_ended(s, it)) {
                data_from(s, it, next_filter(it, i), &added, it->is_complete && !it->trailers);
            }
            buf_fini(&added);
            return;
        }
    }
    if (!it->is_decode) {
        bool end = headers_end_now(it);
        it->is_sink_done = end;
        stream_send_headers(s, it->headers, end);
    }
}

/* What a data status means: true to go on with the next filter. */
static bool on_data_status(struct stream *s, struct filter_iter *it, int i,
                           enum filter_data_status st, struct buf *data) {
    switch (st) {
    case FILTER_DATA_CONTINUE:
        if (it->state[i] == ITER_CONTINUE) {
            return true;
        }
        if (data != &it->buf) {
            buf_move(&it->buf, data);
        }
        resume_after(s, it, i);
        return false;
    case FILTER_DATA_STOP_BUFFER:
    case FILTER_DATA_STOP_WATERMARK:
        it->state[i] = ITER_STOP;
        keep_body(s, it, data, st == FILTER_DATA_STOP_WATERMARK);
        return false;
    case FILTER_DATA_STOP_NO_BUFFER:
        it->state[i] = ITER_STOP;
        return false;
    }
    return false;
}

static void data_from(struct stream *s, struct filter_iter *it, int i, struct buf *data, bool end) {
    for (; in_range(s, i); i = next_filter(it, i)) {
        struct http_filter *f = s->filters[i];
        if (!f) {
            continue;
        }
        if (it->state[i] == ITER_STOP_ALL_BUFFER || it->state[i] == ITER_STOP_ALL_WATERMARK) {
            keep_body(s, it, data, it->state[i] == ITER_STOP_ALL_WATERMARK);
            return;
        }
        int8_t outer = it->current;
        it->current = (int8_t)i;
        enum filter_data_status st = call_data(f, it, data, end && !it->trailers);
        it->current = outer;
        if (walk_ended(s, it) || !on_data_status(s, it, i, st, data)) {
            return;
        }
    }
    if (it->is_decode) { /* nobody took it: a chain without a terminal filter */
        buf_clear(data);
        return;
    }
    it->is_sink_done = end && !it->trailers;
    stream_send_data(s, data, it->is_sink_done);
}

static void trailers_from(struct stream *s, struct filter_iter *it, int i) {
    for (; in_range(s, i); i = next_filter(it, i)) {
        struct http_filter *f = s->filters[i];
        if (!f) {
            continue;
        }
        if (it->state[i] == ITER_STOP_ALL_BUFFER || it->state[i] == ITER_STOP_ALL_WATERMARK) {
            return;
        }
        int8_t outer = it->current;
        it->current = (int8_t)i;
        enum filter_trailers_status st = call_trailers(f, it);
        it->current = outer;
        if (walk_ended(s, it)) {
            return;
        }
        if (st == FILTER_TRAILERS_STOP) {
            it->state[i] = ITER_STOP;
            return;
        }
        if (it->state[i] == ITER_STOP) {
            resume_after(s, it, i);
            return;
        }
    }
    if (!it->is_decode) {
        it->is_sink_done = true;
        stream_send_trailers(s, it->trailers);
    }
}

/* ---- entry points ---- */

static void begin_headers(struct stream *s, struct filter_iter *it, struct headers *h, bool end) {
    it->headers = h;
    it->has_headers = true;
    it->headers_end = end;
    it->is_complete = end;
    headers_from(s, it, first_filter(s, it));
}

void stream_decode_headers(struct stream *s, bool end_stream) {
    begin_headers(s, &s->dec, &s->request, end_stream);
}

void stream_decode_data(struct stream *s, struct buf *data, bool end_stream) {
    s->dec.is_complete |= end_stream;
    if (s->dec.is_aborted) {
        buf_clear(data);
        return;
    }
    data_from(s, &s->dec, 0, data, end_stream);
}

void stream_decode_trailers(struct stream *s) {
    s->dec.trailers = &s->request_trailers;
    s->dec.is_complete = true;
    if (!s->dec.is_aborted) {
        trailers_from(s, &s->dec, 0);
    }
}

void stream_encode_1xx(struct stream *s, struct headers *h) {
    if (s->enc.has_headers || s->is_destroyed || !s->codec_stream) {
        return;
    }
    for (int i = (int)filters_n(s) - 1; i >= 0; i--) {
        struct http_filter *f = s->filters[i];
        if (f && f->type->encode_1xx && f->type->encode_1xx(f, h) != FILTER_HEADERS_CONTINUE) {
            return;
        }
    }
    stream_send_1xx(s, h);
}

void stream_encode_headers(struct stream *s, struct headers *h, bool end_stream) {
    if (walk_ended(s, &s->enc)) {
        return;
    }
    s->response = h;
    s->info.response = h;
    s->info.response_code = (uint16_t)headers_status(h);
    begin_headers(s, &s->enc, h, end_stream);
}

void stream_encode_data(struct stream *s, struct buf *data, bool end_stream) {
    if (walk_ended(s, &s->enc)) {
        buf_clear(data);
        return;
    }
    s->enc.is_complete |= end_stream;
    data_from(s, &s->enc, first_filter(s, &s->enc), data, end_stream);
}

void stream_encode_trailers(struct stream *s, struct headers *t) {
    if (walk_ended(s, &s->enc)) {
        return;
    }
    s->response_trailers = t;
    s->info.trailers = t;
    s->enc.trailers = t;
    s->enc.is_complete = true;
    trailers_from(s, &s->enc, first_filter(s, &s->enc));
}

/* ---- what filters ask ---- */

static void continue_filter(struct http_filter *f, bool is_decode) {
    struct stream *s = f->stream;
    struct filter_iter *it = iter_of(s, is_decode);
    if (walk_ended(s, it) || it->state[f->index_] == ITER_CONTINUE || !it->has_headers) {
        return;
    }
    resume_after(s, it, f->index_);
}

void http_continue_decoding(struct http_filter *f) { continue_filter(f, true); }
void http_continue_encoding(struct http_filter *f) { continue_filter(f, false); }

static void add_data(struct http_filter *f, bool is_decode, struct buf *data, bool streaming) {
    struct stream *s = f->stream;
    struct filter_iter *it = iter_of(s, is_decode);
    if (walk_ended(s, it)) {
        buf_clear(data);
        return;
    }
    /* inside this filter's headers or data callback: kept for later ones */
    if (it->current == f->index_ && !it->trailers) {
        keep_body(s, it, data, streaming);
        return;
    }
    data_from(s, it, next_filter(it, f->index_), data, false);
}

void http_add_decoded_data(struct http_filter *f, struct buf *data, bool streaming) {
    add_data(f, true, data, streaming);
}
void http_add_encoded_data(struct http_filter *f, struct buf *data, bool streaming) {
    add_data(f, false, data, streaming);
}
struct buf *http_decoding_buffer(struct http_filter *f) {
    return &f->stream->dec.buf;
}
struct buf *http_encoding_buffer(struct http_filter *f) {
    return &f->stream->enc.buf;
}

struct http_filter *http_filter_like(struct http_filter *f, unsigned i) {
    struct stream *s = f->stream;
    for (unsigned k = 0; k < filters_n(s); k++) {
        struct http_filter *other = s->filters[k];
        if (other && other->type == f->type && i-- == 0) {
            return other;
        }
    }
    return NULL;
}
