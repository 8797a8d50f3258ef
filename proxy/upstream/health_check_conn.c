/* The exchange of a health check: a connection to the host, kept between checks when that is asked
 * for, and on it an HTTP request, a gRPC call or bytes of the config's choice.
 * Threads: the checker's loop. Spec: core.v3.HealthCheck.{HttpHealthCheck,GrpcHealthCheck,
 * TcpHealthCheck}, grpc.health.v1.
 * Not here: what a result means (health_check.c). */
#include "proxy/upstream/health_check_internal.h"

#include "protos/any.h"
#include "protos/gen/grpc_health.pb-c.h"
#include "proxy/api/header_mutation.h"
#include "proxy/api/matcher.h"
#include "proxy/base/log.h"
#include "proxy/base/runtime.h"
#include "proxy/observe/stream_info.h"
#include "proxy/upstream/upstream_connect.h"

#define HEALTH_CONN_MAGIC 0x4EA17C01u
#define EXCHANGE_ARENA_BYTES 1024u
#define BODY_MAX_BYTES (1024u * 1024) /* of a response, whatever the config says */
#define GRPC_FRAME_HEADER_BYTES 5u

struct health_conn {
    uint32_t magic;
    bool in_dispatch, is_going_away;
    struct health_session *session; /* NULL: let go of, only the memory is left */
    struct loop *loop;
    struct conn *conn;           /* NULL: closed */
    struct codec *codec;         /* NULL: not connected yet, or TCP */
    struct codec_stream *stream; /* an exchange is under way */
    struct arena arena;          /* of the exchange */
    struct headers response, trailers;
    bool has_response, has_trailers;
    struct buf body;
    struct loop_garbage garbage;
};

static struct health_conn *conn_of(void *user) {
    return CAST(health_conn, HEALTH_CONN_MAGIC, user);
}
static const struct health_check_config *cfg_of(const struct health_conn *hc) {
    return hc->session->checker->cfg;
}

/* ---- the end of a connection ---- */

static void on_garbage(struct loop_garbage *g) {
    struct health_conn *hc = CONTAINER_OF(g, struct health_conn, garbage);
    if (hc->codec) {
        hc->codec->vt->free(hc->codec);
    }
    buf_fini(&hc->body);
    arena_fini(&hc->arena);
    hc->magic = 0;
    xfree(hc);
}

static void let_go(struct health_conn *hc) {
    if (hc->session) {
        hc->session->conn = NULL;
        hc->session = NULL;
    }
}

void health_conn_close(struct health_session *s) {
    struct health_conn *hc = s->conn;
    if (hc) {
        let_go(hc);
        if (hc->conn) {
            conn_close(hc->conn, CONN_CLOSE_NO_FLUSH, "health check is over");
        }
    }
}

/* ---- results ---- */

struct verdict {
    bool is_passed, is_degraded, is_retriable;
    unsigned http_status;
};

/* The check is over, and with it the connection, unless it may serve the next one. */
static void finish(struct health_conn *hc, const struct verdict *v) {
    struct health_session *s = hc->session;
    const struct codec_vtable *vt = hc->codec ? hc->codec->vt : NULL;
    bool is_worn = vt && (vt->wants_close(hc->codec) || hc->is_going_away);
    if (!cfg_of(hc)->reuse_connection || is_worn || !hc->conn) {
        health_conn_close(s);
    }
    if (v->is_passed) {
        health_session_passed(s, v->is_degraded);
    } else {
        health_session_failed(s, HEALTH_FAILURE_ACTIVE, v->is_retriable, v->http_status);
    }
}

/* The connection failed the check. */
static void fail(struct health_conn *hc) {
    struct health_session *s = hc->session;
    health_conn_close(s);
    health_session_failed(s, HEALTH_FAILURE_NETWORK, false, 0);
}

static bool is_wrong_service(const struct health_conn *hc) {
    const struct health_check_config *c = cfg_of(hc);
    if (!c->service_name || !runtime_fraction(SV("health_check.verify_cluster"), 100, 100, 0)) {
        return false;
    }
    stats_inc(hc->session->checker->stats, HEALTH_CHECK_verify_cluster);
    sv name = headers_get(&hc->response, HDR_x_envoy_upstream_healthchecked_cluster);
    return !string_matcher_match(c->service_name, name);
}

static struct verdict judge_http(struct health_conn *hc) {
    const struct health_check_config *c = cfg_of(hc);
    unsigned code = headers_status(&hc->response);
    struct verdict v = {.http_status = code};
    if (c->expected.n ? !health_check_status_in(&c->expected, code) : code != 200) {
        if (headers_has(&hc->response, HDR_x_envoy_immediate_health_check_fail)) {
            host_flags_set(hc->session->host, HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL));
        }
        v.is_retriable = health_check_status_in(&c->retriable, code);
        return v;
    }
    sv body = buf_pullup(&hc->body, buf_len(&hc->body));
    if (!health_check_payload_match(c->receive, c->receive_n, body) || is_wrong_service(hc)) {
        return v;
    }
    v.is_passed = true;
    v.is_degraded = headers_get_name(&hc->response, SV("x-envoy-degraded")).p != NULL;
    return v;
}

static bool is_grpc_ok(const struct headers *h) {
    return sv_is(headers_get(h, HDR_grpc_status), "0");
}

static struct verdict judge_grpc(struct health_conn *hc) {
    struct verdict v = {0};
    sv all = buf_pullup(&hc->body, buf_len(&hc->body));
    if (headers_status(&hc->response) != 200 || !hc->has_trailers || !is_grpc_ok(&hc->trailers) ||
        all.n < GRPC_FRAME_HEADER_BYTES || all.p[0] != 0) {
        return v;
    }
    struct diag d;
    diag_init(&d);
    const GrpcHealth__HealthCheckResponse *m = PROTO_UNPACK(
        GrpcHealth__HealthCheckResponse, grpc_health__health_check_response__descriptor,
        sv_skip(all, GRPC_FRAME_HEADER_BYTES), &hc->arena, &d);
    diag_fini(&d);
    v.is_passed = m && m->status == GRPC_HEALTH__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
    return v;
}

static void complete(struct health_conn *hc) {
    hc->stream = NULL;
    struct verdict v = cfg_of(hc)->kind == HEALTH_CHECK_GRPC ? judge_grpc(hc) : judge_http(hc);
    finish(hc, &v);
}

/* ---- the response ---- */

static void on_headers(struct codec_stream *s, struct headers *h, bool end_stream) {
    struct health_conn *hc = conn_of(s->user);
    hc->response = *h;
    hc->has_response = true;
    if (end_stream && hc->session) {
        complete(hc);
    }
}

static void on_body(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct health_conn *hc = conn_of(s->user);
    if (!hc->session) {
        buf_clear(data);
        return;
    }
    uint32_t max = cfg_of(hc)->response_max_bytes;
    size_t left = (max ? max : BODY_MAX_BYTES) - buf_len(&hc->body);
    if (buf_len(data) <= left) {
        buf_move(&hc->body, data);
    } else {
        buf_move_n(&hc->body, data, left);
        buf_clear(data);
    }
    if (end_stream) {
        complete(hc);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *t) {
    struct health_conn *hc = conn_of(s->user);
    hc->trailers = *t;
    hc->has_trailers = true;
    if (hc->session) {
        complete(hc);
    }
}

static void on_reset(struct codec_stream *s, enum reset_reason why) {
    (void)why;
    struct health_conn *hc = conn_of(s->user);
    hc->stream = NULL;
    if (hc->session) {
        fail(hc);
    }
}

static const struct codec_stream_ops stream_ops = {
    .on_headers = on_headers, .on_data = on_body, .on_trailers = on_trailers, .on_reset = on_reset};

static struct arena *on_response_arena(struct codec *c, void *user, struct codec_stream *s) {
    (void)c, (void)s;
    return &conn_of(user)->arena;
}

static void on_goaway(struct codec *c, void *user, bool is_graceful, uint32_t last_stream_id) {
    (void)c, (void)is_graceful, (void)last_stream_id;
    struct health_conn *hc = conn_of(user);
    hc->is_going_away = true;
    if (hc->session && !hc->stream) {
        health_conn_close(hc->session);
    }
}

static void on_max_streams(struct codec *c, void *user, uint32_t max) {
    (void)c, (void)user, (void)max; /* one at a time is all we need */
}

static const struct codec_ops codec_ops = {.on_response_arena = on_response_arena,
                                           .on_goaway = on_goaway,
                                           .on_max_streams = on_max_streams};

/* ---- the request ---- */

static sv authority(const struct health_session *s) {
    sv own = s->host->extra->health_check_hostname, configured = s->checker->cfg->host;
    sv dflt = s->checker->cluster->name;
    return own.n ? own : configured.n ? configured : dflt;
}

static void fill_headers(struct health_conn *hc, struct headers *h) {
    const struct health_session *s = hc->session;
    const struct health_check_config *c = s->checker->cfg;
    bool is_grpc = c->kind == HEALTH_CHECK_GRPC;
    headers_add_id(h, HDR_method, c->method);
    headers_add_id(h, HDR_authority, authority(s));
    headers_add_id(h, HDR_path, c->path);
    headers_add_id(h, HDR_scheme, conn_ssl(hc->conn) ? SV("https") : SV("http"));
    headers_add_id(h, HDR_user_agent, SV("Envoy/HC"));
    if (is_grpc) {
        headers_add_id(h, HDR_te, SV("trailers"));
        headers_add_id(h, HDR_content_type, SV("application/grpc"));
    } else if (c->send.n && !c->is_http2) {
        headers_add_id(h, HDR_content_length, arena_printf(&hc->arena, "%zu", c->send.n));
    }
    const struct conn_info cx = {.remote = hc->conn->remote, .local = hc->conn->local};
    const struct stream_info si = {.cx = &cx,
                                   .request = h,
                                   .arena = &hc->arena,
                                   .cluster_name = s->checker->cluster->observability_name,
                                   .up = {.host = s->host, .conn = hc->conn}};
    header_mutations_apply(c->headers, h, &si);
}

static void fill_body(struct health_conn *hc, struct buf *body) {
    const struct health_check_config *c = cfg_of(hc);
    if (c->kind == HEALTH_CHECK_HTTP) {
        buf_append_sv(body, c->send);
        return;
    }
    GrpcHealth__HealthCheckRequest m = GRPC_HEALTH__HEALTH_CHECK_REQUEST__INIT;
    m.service = arena_cstr(&hc->arena, c->service);
    sv bytes = proto_pack(&m.base, &hc->arena);
    uint32_t n = (uint32_t)bytes.n;
    const unsigned char head[GRPC_FRAME_HEADER_BYTES] = {0, (unsigned char)(n >> 24),
                                                         (unsigned char)(n >> 16),
                                                         (unsigned char)(n >> 8), (unsigned char)n};
    buf_append(body, head, sizeof(head));
    buf_append_sv(body, bytes);
}

static void send_request(struct health_conn *hc) {
    arena_fini(&hc->arena);
    arena_init(&hc->arena, EXCHANGE_ARENA_BYTES);
    buf_clear(&hc->body);
    hc->has_response = hc->has_trailers = false;
    hc->stream = hc->codec->vt->open(hc->codec, &stream_ops, hc);
    if (!hc->stream) {
        fail(hc);
        return;
    }
    struct headers h;
    headers_init(&h, &hc->arena);
    fill_headers(hc, &h);
    struct buf BUF_AUTO body;
    buf_init(&body);
    fill_body(hc, &body);
    bool has_body = !buf_empty(&body);
    hc->codec->vt->send_headers(hc->stream, &h, !has_body);
    if (has_body && hc->stream) {
        hc->codec->vt->send_data(hc->stream, &body, true);
    }
}

static void send_bytes(struct health_conn *hc) {
    struct buf BUF_AUTO out;
    buf_init(&out);
    buf_append_sv(&out, cfg_of(hc)->send);
    if (!buf_empty(&out)) {
        conn_write(hc->conn, &out, false);
    }
}

/* ---- the connection ---- */

static void on_tcp_data(struct health_conn *hc, struct buf *data) {
    const struct health_check_config *c = cfg_of(hc);
    if (!hc->session->is_checking) {
        buf_clear(data);
        return;
    }
    if (health_check_payload_match(c->receive, c->receive_n, buf_pullup(data, buf_len(data)))) {
        buf_clear(data);
        finish(hc, &(struct verdict){.is_passed = true});
    } else if (buf_len(data) > BODY_MAX_BYTES) {
        fail(hc);
    }
}

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    (void)c, (void)end_stream;
    struct health_conn *hc = conn_of(user);
    if (!hc->session) {
        buf_clear(data);
        return;
    }
    if (!hc->codec) {
        on_tcp_data(hc, data);
        return;
    }
    if (hc->in_dispatch) {
        return;
    }
    hc->in_dispatch = true;
    int rc = hc->codec->vt->dispatch(hc->codec, data);
    hc->in_dispatch = false;
    if (rc >= 0 || !hc->session) {
        return;
    }
    if (hc->session->is_checking) {
        fail(hc);
    } else {
        health_conn_close(hc->session);
    }
}

static void start_http(struct health_conn *hc) {
    const struct codec_options *o = hc->session->checker->cluster->codec;
    hc->codec = (cfg_of(hc)->is_http2 ? h2_client_new : h1_client_new)(
        hc->conn, o, &(struct codec_stats){0}, &codec_ops, hc);
    send_request(hc);
}

static void on_connected(struct health_conn *hc) {
    const struct health_check_config *c = cfg_of(hc);
    if (c->kind != HEALTH_CHECK_TCP) {
        start_http(hc);
        return;
    }
    if (c->receive_n) {
        send_bytes(hc);
        return;
    }
    /* That it can be connected to is all we want to know. */
    struct health_session *s = hc->session;
    send_bytes(hc);
    health_conn_close(s);
    health_session_passed(s, false);
}

static void on_closed(struct health_conn *hc) {
    hc->conn = NULL;
    hc->garbage.free = on_garbage;
    loop_defer_free(hc->loop, &hc->garbage);
    if (hc->codec) { /* may complete a response that ends with the connection */
        hc->codec->vt->on_conn_end(hc->codec, RESET_CONNECTION_TERMINATION);
    }
    if (!hc->session) {
        return;
    }
    /* A TCP server that hangs up fails even between checks, as for Envoy. */
    bool is_failure = hc->session->is_checking || cfg_of(hc)->kind == HEALTH_CHECK_TCP;
    if (is_failure) {
        fail(hc);
    } else {
        let_go(hc);
    }
}

static void on_event(struct conn *c, void *user, enum conn_event e) {
    (void)c;
    struct health_conn *hc = conn_of(user);
    if (e == CONN_EVENT_CONNECTED) {
        on_connected(hc);
    } else {
        on_closed(hc);
    }
}

static void on_above_high(struct conn *c, void *user) {
    (void)c;
    struct health_conn *hc = conn_of(user);
    if (hc->codec) {
        hc->codec->vt->on_conn_above_high(hc->codec);
    }
}

static void on_below_low(struct conn *c, void *user) {
    (void)c;
    struct health_conn *hc = conn_of(user);
    if (hc->codec) {
        hc->codec->vt->on_conn_below_low(hc->codec);
    }
}

static const struct conn_ops conn_ops = {.on_data = on_data,
                                         .on_event = on_event,
                                         .on_write_above_high = on_above_high,
                                         .on_write_below_low = on_below_low};

static struct transport *make_transport(const struct health_session *s) {
    const struct health_checker *checker = s->checker;
    const struct transport_factory *f = checker->env.transport(checker->env.arg, s->transport);
    const struct transport_options o = {.host_name = s->host->hostname,
                                        .alpn_override = checker->cfg->alpn,
                                        .alpn_override_n = checker->cfg->alpn_n};
    return f ? f->ops->create(f, &o) : NULL;
}

/* False: it could not even begin. */
static bool connect_host(struct health_session *s) {
    const struct cluster_config *cluster = s->checker->cluster;
    struct transport *t = make_transport(s);
    if (!t) {
        return false;
    }
    struct host *h = s->host;
    const struct addr *to =
        h->extra->health_check_addr.family ? &h->extra->health_check_addr : &h->addr;
    struct health_conn *hc = xnew(struct health_conn);
    int err;
    hc->conn = conn_connect(s->checker->loop, to, upstream_source_for(cluster, to),
                            &cluster->bind->opts, t, &conn_ops, hc, &err);
    if (!hc->conn) {
        xfree(hc);
        return false;
    }
    hc->magic = HEALTH_CONN_MAGIC;
    hc->session = s;
    hc->loop = s->checker->loop;
    arena_init(&hc->arena, EXCHANGE_ARENA_BYTES);
    buf_init(&hc->body);
    s->conn = hc;
    return true;
}

void health_conn_check(struct health_session *s) {
    if (!s->conn) {
        if (!connect_host(s)) {
            health_session_failed(s, HEALTH_FAILURE_NETWORK, false, 0);
        }
    } else if (s->conn->codec) {
        send_request(s->conn);
    } else {
        send_bytes(s->conn);
    }
}
