/* gRPC streams: see ads.h.
 * Threads: calls are made on the loop's thread. The pump thread only waits on the completion queue
 * and posts each completion to the loop of its stream. Spec: gRPC over HTTP/2.
 * A channel over a fd dies once, with its fd: each stream has its own channel. */
#include "xds/ads.h"

#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>
#include <grpc/support/log.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"

#define ADS_MAGIC 0xAD557EA3u
#define LARGE_MESSAGE_BYTES (1u << 20) /* from here on memory is given back after a message */
#define METADATA_FILE_MAX 16385u       /* a token's bytes, and one more */

/* Its id is the tag of its batch. */
enum op_kind { OP_START, OP_SEND, OP_RECEIVE, OP_STATUS, OP_KINDS };
struct op {
    struct loop_msg msg;
    struct ads_stream *stream;
    enum op_kind kind;
    bool is_pending; /* atomic; handed to gRPC, its message not run yet */
    bool ok;         /* written by the pump before it posts */
};

struct ads_stream {
    uint32_t magic;
    struct loop *loop;
    const struct ads_stream_ops *cb;
    void *user;
    grpc_channel *channel;
    grpc_call *call;
    struct op ops[OP_KINDS];
    unsigned pending_n;
    bool is_closed; /* by us or by its status: no callback any more */
    bool is_paused;
    bool is_dead; /* receiving ended; the status follows */
    bool in_callback;
    grpc_byte_buffer *received;
    grpc_byte_buffer *sending;
    grpc_metadata *metadata;
    unsigned metadata_n;
    grpc_metadata_array initial, trailing;
    grpc_status_code status;
    grpc_slice status_text;
    struct loop_task trim; /* behind the answer to a large message */
};

/* ---- the pump ---- */

static void on_grpc_log(gpr_log_func_args *a) {
    static const enum log_level levels[] = {[GPR_LOG_SEVERITY_DEBUG] = LOG_DEBUG,
                                            [GPR_LOG_SEVERITY_INFO] = LOG_INFO,
                                            [GPR_LOG_SEVERITY_ERROR] = LOG_WARN};
    enum log_level l = levels[a->severity];
    if (log_enabled(LOG_grpc, l)) {
        log_write(LOG_grpc, l, a->file, a->line, "%s", a->message);
    }
}

static struct {
    pthread_mutex_t lock;
    unsigned holders; /* under lock */
    pthread_t thread;
    grpc_completion_queue *queue; /* immutable while held */
} pump = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *run_pump(void *arg) {
    grpc_completion_queue *q = arg;
    log_thread_name("xds_pump");
    for (;;) {
        grpc_event e = grpc_completion_queue_next(q, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
        if (e.type == GRPC_QUEUE_SHUTDOWN) {
            return NULL;
        }
        if (e.type == GRPC_OP_COMPLETE) {
            struct op *op = e.tag;
            CHECK(__atomic_load_n(&op->is_pending, __ATOMIC_ACQUIRE));
            op->ok = e.success != 0;
            loop_post(op->stream->loop, &op->msg);
        }
    }
}

void ads_hold(void) {
    pthread_mutex_lock(&pump.lock);
    if (pump.holders++ == 0) {
        gpr_set_log_function(on_grpc_log);
        grpc_init();
        pump.queue = grpc_completion_queue_create_for_next(NULL);
        CHECK(pthread_create(&pump.thread, NULL, run_pump, pump.queue) == 0);
    }
    pthread_mutex_unlock(&pump.lock);
}

/* Streams are closed by now: what they have pending ends at once, and is in their loop's mailbox
 * when the pump is joined. */
void ads_release(void) {
    pthread_mutex_lock(&pump.lock);
    CHECK(pump.holders > 0);
    if (--pump.holders == 0) {
        grpc_completion_queue_shutdown(pump.queue);
        pthread_join(pump.thread, NULL);
        grpc_completion_queue_destroy(pump.queue);
        pump.queue = NULL;
        grpc_shutdown();
    }
    pthread_mutex_unlock(&pump.lock);
}

/* ---- life ---- */

static void stream_free(struct ads_stream *s) {
    ASSERT(s->pending_n == 0);
    loop_cancel_task(&s->trim);
    if (s->call) {
        grpc_call_unref(s->call);
    }
    grpc_channel_destroy(s->channel);
    if (s->received) {
        grpc_byte_buffer_destroy(s->received);
    }
    if (s->sending) {
        grpc_byte_buffer_destroy(s->sending);
    }
    for (unsigned i = 0; i < s->metadata_n; i++) {
        grpc_slice_unref(s->metadata[i].key);
        grpc_slice_unref(s->metadata[i].value);
    }
    xfree(s->metadata);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->status_text);
    s->magic = 0;
    xfree(s);
    grpc_shutdown();
}

static void free_if_over(struct ads_stream *s) {
    if (s->is_closed && s->pending_n == 0 && !s->in_callback) {
        stream_free(s);
    }
}

void ads_stream_close(struct ads_stream *s) {
    s->is_closed = true;
    grpc_call_cancel(s->call, NULL);
    free_if_over(s);
}

/* ---- batches ---- */

static void start_batch(struct ads_stream *s, enum op_kind kind, const grpc_op *ops, size_t n) {
    struct op *op = &s->ops[kind];
    ASSERT(!op->is_pending);
    /* gRPC's queue orders this before the pump's reads; the release says it to those who can't see
     * into gRPC. */
    __atomic_store_n(&op->is_pending, true, __ATOMIC_RELEASE);
    grpc_call_error e = grpc_call_start_batch(s->call, ops, n, op, NULL);
    if (BUG(e != GRPC_CALL_OK)) {
        op->is_pending = false;
        grpc_call_cancel(s->call, NULL); /* its status ends the stream */
        return;
    }
    s->pending_n++;
}

static void receive(struct ads_stream *s) {
    if (s->is_closed || s->is_dead || s->is_paused || s->ops[OP_RECEIVE].is_pending) {
        return;
    }
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};
    op.data.recv_message.recv_message = &s->received;
    start_batch(s, OP_RECEIVE, &op, 1);
}

void ads_stream_pause(struct ads_stream *s, bool pause) {
    s->is_paused = pause;
    if (!pause && !s->in_callback) {
        receive(s);
    }
}

bool ads_stream_can_send(const struct ads_stream *s) {
    return !s->is_closed && !s->is_dead && !s->ops[OP_SEND].is_pending;
}

void ads_stream_send(struct ads_stream *s, struct buf *message) {
    ASSERT(ads_stream_can_send(s));
    sv bytes = buf_pullup(message, buf_len(message));
    grpc_slice slice = grpc_slice_from_copied_buffer(bytes.p, bytes.n);
    buf_clear(message);
    s->sending = grpc_raw_byte_buffer_create(&slice, 1);
    grpc_slice_unref(slice);
    grpc_op op = {.op = GRPC_OP_SEND_MESSAGE};
    op.data.send_message.send_message = s->sending;
    start_batch(s, OP_SEND, &op, 1);
}

/* ---- completions, on the loop ---- */

static void run_trim(struct loop_task *t) {
    (void)t;
    mem_trim();
}

static void deliver(struct ads_stream *s) {
    grpc_byte_buffer_reader reader;
    if (!grpc_byte_buffer_reader_init(&reader, s->received)) {
        grpc_call_cancel_with_status(s->call, GRPC_STATUS_INTERNAL,
                                     "message can not be decompressed", NULL);
        return;
    }
    grpc_slice all = grpc_byte_buffer_reader_readall(&reader);
    grpc_byte_buffer_reader_destroy(&reader);
    grpc_byte_buffer_destroy(s->received);
    s->received = NULL;
    size_t n = GRPC_SLICE_LENGTH(all);
    s->cb->on_message(s->user, (sv){(const char *)GRPC_SLICE_START_PTR(all), n});
    grpc_slice_unref(all);
    if (n >= LARGE_MESSAGE_BYTES) {
        loop_queue_task(s->loop, &s->trim);
    }
}

static void on_received(struct ads_stream *s, bool ok) {
    if (!ok || !s->received) { /* the peer ended: OP_STATUS tells how */
        s->is_dead = true;
        return;
    }
    deliver(s);
}

static void on_status(struct ads_stream *s) {
    s->is_closed = true;
    sv text = {(const char *)GRPC_SLICE_START_PTR(s->status_text),
               GRPC_SLICE_LENGTH(s->status_text)};
    s->cb->on_closed(s->user, (int)s->status, sv_sub(text, 0, ADS_STATUS_MESSAGE_MAX));
}

static void on_send_done(struct ads_stream *s, bool ok) {
    grpc_byte_buffer_destroy(s->sending);
    s->sending = NULL;
    if (ok && !s->is_closed) {
        s->cb->on_sent(s->user);
    } else if (!ok) { /* what was received before must be read for the status to come */
        s->is_paused = false;
    }
}

static void on_complete(struct loop *l, struct loop_msg *m) {
    (void)l;
    struct op *op = CONTAINER_OF(m, struct op, msg);
    struct ads_stream *s = CAST(ads_stream, ADS_MAGIC, op->stream);
    op->is_pending = false;
    s->pending_n--;
    s->in_callback = true;
    if (op->kind == OP_SEND) {
        on_send_done(s, op->ok);
    } else if (op->kind == OP_RECEIVE && !s->is_closed) {
        on_received(s, op->ok);
    } else if (op->kind == OP_STATUS && !s->is_closed) {
        on_status(s);
    }
    s->in_callback = false;
    receive(s); /* unless it is held back, over or under way */
    free_if_over(s);
}

/* ---- opening ---- */

static grpc_channel *open_channel(const struct ads_stream_options *o, const char *authority) {
    grpc_arg args[6];
    size_t n = 0;
    int max = o->max_receive_bytes ? (int)(o->max_receive_bytes & INT32_MAX) : -1;
    const struct {
        const char *key;
        int value;
        bool is_set;
    } numbers[] = {
        {GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, max, true},
        {GRPC_ARG_KEEPALIVE_TIME_MS, (int)o->keepalive_ms, o->keepalive_ms > 0},
        {GRPC_ARG_KEEPALIVE_TIMEOUT_MS, (int)o->keepalive_timeout_ms,
         o->keepalive_ms > 0 && o->keepalive_timeout_ms > 0},
        {GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0, o->keepalive_ms > 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (numbers[i].is_set) {
            args[n].type = GRPC_ARG_INTEGER;
            args[n].key = (char *)(uintptr_t)numbers[i].key;
            args[n++].value.integer = numbers[i].value;
        }
    }
    args[n].type = GRPC_ARG_STRING;
    args[n].key = (char *)(uintptr_t)GRPC_ARG_DEFAULT_AUTHORITY;
    args[n++].value.string = (char *)(uintptr_t)authority;
    grpc_channel_args all = {n, args};
    grpc_channel_credentials *creds = grpc_insecure_credentials_create();
    grpc_channel *c = grpc_channel_create_from_fd(authority, o->fd, creds, &all);
    grpc_channel_credentials_release(creds);
    return c;
}

static grpc_slice slice_of(sv s) { return grpc_slice_from_copied_buffer(s.p, s.n); }

/* The value, behind it what its file has now (a token that is renewed); nothing when the file can
 * not be read: the server says then what it misses. */
static grpc_slice value_of(const struct xds_metadata *m) {
    char text[METADATA_FILE_MAX];
    size_t n = 0;
    if (!m->file.n) {
        return slice_of(m->value);
    }
    FILE *f = fopen(m->file.p, "re");
    if (f) {
        n = fread(text, 1, sizeof(text), f);
        fclose(f);
    }
    if (!n || n == sizeof(text)) {
        log_warn_limited(LOG_grpc, "'%s' can not be read, is empty or over %u bytes: no '%.*s'",
                         m->file.p, METADATA_FILE_MAX - 1, SV_ARG(m->key));
        return slice_of(m->value);
    }
    grpc_slice all = grpc_slice_malloc(m->value.n + n);
    memcpy(GRPC_SLICE_START_PTR(all), m->value.p, m->value.n);
    memcpy(GRPC_SLICE_START_PTR(all) + m->value.n, text, n);
    return all;
}

static void copy_metadata(struct ads_stream *s, const struct ads_stream_options *o) {
    s->metadata = xnew_array(grpc_metadata, o->metadata_n);
    for (unsigned i = 0; i < o->metadata_n; i++) {
        grpc_slice key = slice_of(o->metadata[i].key), value = value_of(&o->metadata[i]);
        bool is_binary = grpc_is_binary_header(key);
        if (!grpc_header_key_is_legal(key) ||
            !(is_binary || grpc_header_nonbin_value_is_legal(value))) {
            log_warn_limited(LOG_grpc, "initial metadata '%.*s' is not legal and not sent",
                             SV_ARG(o->metadata[i].key));
            grpc_slice_unref(key);
            grpc_slice_unref(value);
            continue;
        }
        s->metadata[s->metadata_n].key = key;
        s->metadata[s->metadata_n++].value = value;
    }
}

static void start(struct ads_stream *s) {
    grpc_op head[2] = {{.op = GRPC_OP_SEND_INITIAL_METADATA},
                       {.op = GRPC_OP_RECV_INITIAL_METADATA}};
    head[0].data.send_initial_metadata.count = s->metadata_n;
    head[0].data.send_initial_metadata.metadata = s->metadata;
    head[1].data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    grpc_op status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};
    status.data.recv_status_on_client.trailing_metadata = &s->trailing;
    status.data.recv_status_on_client.status = &s->status;
    status.data.recv_status_on_client.status_details = &s->status_text;
    start_batch(s, OP_STATUS, &status, 1);
    start_batch(s, OP_START, head, ARRAY_LEN(head));
    receive(s);
}

struct ads_stream *ads_stream_open(const struct ads_stream_options *o,
                                   const struct ads_stream_ops *ops, void *user) {
    CHECK(pump.queue);
    grpc_init();
    struct ads_stream *s = xnew(struct ads_stream);
    s->magic = ADS_MAGIC;
    s->loop = o->loop;
    s->cb = ops;
    s->user = user;
    s->status_text = grpc_empty_slice();
    s->trim.run = run_trim;
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    for (int i = 0; i < OP_KINDS; i++) {
        s->ops[i] = (struct op){.msg = {.run = on_complete}, .stream = s, .kind = (enum op_kind)i};
    }
    copy_metadata(s, o);
    char *authority = sv_dup(o->authority);
    s->channel = open_channel(o, authority);
    grpc_slice method = grpc_slice_from_copied_string(o->method), host = slice_of(o->authority);
    s->call = grpc_channel_create_call(s->channel, NULL, GRPC_PROPAGATE_DEFAULTS, pump.queue,
                                       method, &host, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
    grpc_slice_unref(method);
    grpc_slice_unref(host);
    xfree(authority);
    start(s);
    return s;
}
