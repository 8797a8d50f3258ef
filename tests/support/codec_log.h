/* The user of a codec in tests: writes down what it is told as one line of text, answers requests
 * when asked to.
 *   {:method=GET,:path=/}   headers, then "." at the end of the message
 *   D"hello"                body, joined over callbacks (long ones as D#length:hash)
 *   T{x=y}.  I{…}           trailers, interim response
 *   !400 details;  R6;  E details;   refused, reset, connection error */
#ifndef SLUICE_TESTS_CODEC_LOG_H
#define SLUICE_TESTS_CODEC_LOG_H

#include "proxy/http/codec.h"
#include "tests/support/fake_conn.h"

#define CODEC_LOG_SHOWN 40u

struct codec_log {
    struct conn conn;
    struct codec_options opt;
    struct codec *codec;
    struct arena arena;
    struct buf text, body, tx;
    struct codec_stream *stream; /* the last one begun or opened */
    struct headers *headers;     /* the last received */
    bool auto_reply, reset_on_headers, disable_on_headers, free_on_headers, raw_on_headers, silent;
    bool is_replied;
    bool has_id_prefix; /* HTTP/2: events carry the stream's id */
    unsigned begins, ends, bad, resets, above, below, goaways;
    int error;
    enum reset_reason reason;
    uint32_t max_streams;
};

static struct codec_log *codec_log_of(struct codec_stream *s) { return s->user; }

static void codec_log_flush(struct codec_log *l) {
    size_t n = buf_len(&l->body);
    if (!n) {
        return;
    }
    sv b = buf_pullup(&l->body, n);
    if (n <= CODEC_LOG_SHOWN) {
        buf_printf(&l->text, "D\"%.*s\"", SV_ARG(b));
    } else {
        uint32_t hash = 2166136261u;
        for (size_t i = 0; i < n; i++) {
            hash = (hash ^ (unsigned char)b.p[i]) * 16777619u;
        }
        buf_printf(&l->text, "D#%zu:%08x", n, hash);
    }
    buf_clear(&l->body);
}

static void codec_log_id(struct codec_log *l, struct codec_stream *s) {
    codec_log_flush(l);
    if (l->has_id_prefix) {
        buf_printf(&l->text, "%u", codec_stream_id(s));
    }
}

static void codec_log_headers(struct codec_log *l, const struct headers *h) {
    buf_lit(&l->text, "{");
    bool first = true;
    HEADERS_FOREACH (it, h) {
        buf_printf(&l->text, "%s%.*s=%.*s", first ? "" : ",", SV_ARG(it->name), SV_ARG(it->value));
        first = false;
    }
    buf_lit(&l->text, "}");
}

static void codec_log_reply(struct codec_log *l, struct codec_stream *s, unsigned status) {
    struct headers h;
    l->is_replied = true;
    headers_init(&h, &l->arena);
    headers_set_status(&h, status);
    headers_add_id(&h, HDR_content_length, SV("2"));
    struct buf ok;
    buf_init(&ok);
    buf_lit(&ok, "ok");
    s->codec->vt->send_headers(s, &h, false);
    s->codec->vt->send_data(s, &ok, true);
    buf_fini(&ok);
}

static void codec_log_end(struct codec_log *l, struct codec_stream *s) {
    codec_log_flush(l);
    if (!l->silent) {
        buf_lit(&l->text, ".");
    }
    if (l->auto_reply && l->codec->is_server && !l->is_replied) {
        codec_log_reply(l, s, 200);
    }
}

static void codec_log_on_headers(struct codec_stream *s, struct headers *h, bool end) {
    struct codec_log *l = codec_log_of(s);
    l->headers = h;
    codec_log_id(l, s);
    codec_log_headers(l, h);
    if (l->reset_on_headers) {
        s->codec->vt->reset(s, RESET_LOCAL);
        return;
    }
    if (l->free_on_headers) {
        struct codec *c = l->codec;
        l->codec = NULL;
        c->vt->free(c);
        return;
    }
    if (l->disable_on_headers) {
        s->codec->vt->read_disable(s, true);
    }
    if (end) {
        codec_log_end(l, s);
        return;
    }
    bool is_tunnel =
        headers_has(h, HDR_upgrade) || sv_eq(headers_get(h, HDR_method), SV("CONNECT"));
    if (l->raw_on_headers && is_tunnel) {
        struct headers answer;
        l->is_replied = true;
        headers_init(&answer, &l->arena);
        headers_set_status(&answer, headers_has(h, HDR_upgrade) ? 101 : 200);
        s->codec->vt->send_headers(s, &answer, false);
        h1_stream_upgraded(s);
    } else if (is_tunnel && l->auto_reply && l->codec->is_server) {
        codec_log_reply(l, s, 404);
    }
}

static void codec_log_on_data(struct codec_stream *s, struct buf *data, bool end) {
    struct codec_log *l = codec_log_of(s);
    if (l->has_id_prefix && !buf_empty(data)) {
        codec_log_id(l, s);
    }
    buf_move(&l->body, data);
    if (end) {
        codec_log_end(l, s);
    }
}

static void codec_log_on_trailers(struct codec_stream *s, struct headers *h) {
    struct codec_log *l = codec_log_of(s);
    codec_log_id(l, s);
    buf_lit(&l->text, "T");
    codec_log_headers(l, h);
    codec_log_end(l, s);
}

static void codec_log_on_1xx(struct codec_stream *s, struct headers *h) {
    struct codec_log *l = codec_log_of(s);
    codec_log_id(l, s);
    buf_lit(&l->text, "I");
    codec_log_headers(l, h);
}

static void codec_log_on_reset(struct codec_stream *s, enum reset_reason why) {
    struct codec_log *l = codec_log_of(s);
    codec_log_id(l, s);
    l->resets++;
    l->reason = why;
    buf_printf(&l->text, "R%d%s%s;", (int)why, s->error_details ? " " : "",
               s->error_details ? s->error_details : "");
}

static void codec_log_on_above(struct codec_stream *s) { codec_log_of(s)->above++; }
static void codec_log_on_below(struct codec_stream *s) { codec_log_of(s)->below++; }

static const struct codec_stream_ops codec_log_stream_ops = {
    .on_1xx = codec_log_on_1xx,
    .on_headers = codec_log_on_headers,
    .on_data = codec_log_on_data,
    .on_trailers = codec_log_on_trailers,
    .on_reset = codec_log_on_reset,
    .on_above_high = codec_log_on_above,
    .on_below_low = codec_log_on_below,
};

static struct arena *codec_log_on_begin(struct codec *c, void *user, struct codec_stream *s) {
    (void)c;
    struct codec_log *l = user;
    l->begins++;
    l->is_replied = false;
    l->stream = s;
    s->user = l;
    s->ops = &codec_log_stream_ops;
    return &l->arena;
}

static struct arena *codec_log_on_response_arena(struct codec *c, void *user,
                                                 struct codec_stream *s) {
    (void)c;
    (void)s;
    return &((struct codec_log *)user)->arena;
}

static void codec_log_on_bad_request(struct codec *c, void *user, struct codec_stream *s,
                                     unsigned status) {
    (void)c;
    struct codec_log *l = user;
    l->bad++;
    codec_log_id(l, s);
    buf_printf(&l->text, "!%u %s;", status, s->error_details);
    codec_log_reply(l, s, status);
}

static void codec_log_on_goaway(struct codec *c, void *user, bool graceful, uint32_t last) {
    (void)c;
    struct codec_log *l = user;
    l->goaways++;
    buf_printf(&l->text, "G%d,%u;", graceful, last);
}

static void codec_log_on_max_streams(struct codec *c, void *user, uint32_t max) {
    (void)c;
    ((struct codec_log *)user)->max_streams = max;
}

static void codec_log_on_stream_end(struct codec *c, void *user, struct codec_stream *s) {
    (void)c;
    (void)s;
    ((struct codec_log *)user)->ends++;
}

static const struct codec_ops codec_log_ops = {
    .on_begin = codec_log_on_begin,
    .on_response_arena = codec_log_on_response_arena,
    .on_bad_request = codec_log_on_bad_request,
    .on_goaway = codec_log_on_goaway,
    .on_max_streams = codec_log_on_max_streams,
    .on_stream_end = codec_log_on_stream_end,
};

typedef struct codec *(*codec_maker)(struct conn *, const struct codec_options *,
                                     const struct codec_stats *, const struct codec_ops *, void *);

static void codec_log_init(struct codec_log *l, struct loop *loop) {
    memset(l, 0, sizeof(*l));
    fake_conn_init(&l->conn, loop);
    arena_init(&l->arena, 0);
    buf_init(&l->text);
    buf_init(&l->body);
    buf_init(&l->tx);
    codec_options_defaults(&l->opt);
}

UNUSED static void codec_log_start(struct codec_log *l, codec_maker make) {
    l->codec = make(&l->conn, &l->opt, NULL, &codec_log_ops, l);
}

static void codec_log_fini(struct codec_log *l) {
    if (l->codec) {
        l->codec->vt->free(l->codec);
    }
    fake_conn_fini(&l->conn);
    arena_fini(&l->arena);
    buf_fini(&l->text);
    buf_fini(&l->body);
    buf_fini(&l->tx);
    chunk_cache_trim();
}

/* Offer what is buffered as long as reads are on and something is taken. */
static void codec_log_offer(struct codec_log *l) {
    size_t before;
    do {
        before = buf_len(&l->conn.in_);
        if (!l->codec || l->conn.read_disable_ || !before || l->error) {
            return;
        }
        l->error = l->codec->vt->dispatch(l->codec, &l->conn.in_);
    } while (buf_len(&l->conn.in_) < before);
}

static void codec_log_feed(struct codec_log *l, const void *p, size_t n) {
    struct chunk *c = chunk_new(n ? n : 1);
    memcpy(c->data, p, n);
    c->used = (uint32_t)n;
    buf_append_slice(&l->conn.in_, c, c->data, n);
    chunk_unref(c);
    codec_log_offer(l);
}

/* The line so far, with the connection's error at its end; borrowed until the next call. */
UNUSED static char *codec_log_text(struct codec_log *l) {
    codec_log_flush(l);
    if (l->error && l->codec) {
        const char *e = l->codec->vt->error(l->codec);
        buf_printf(&l->text, "E %s;", e ? e : "-");
    }
    return buf_dup_str(&l->text);
}

#endif
