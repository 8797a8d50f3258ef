/* Socket settings from config messages: see socket_config.h. Threads: the config thread. */
#include "proxy/config/socket_config.h"

#include "protos/gen/core.pb-c.h"

static bool option(struct compile_ctx *ctx, const Core__SocketOption *m, struct sock_option *out) {
    out->level = (int)m->level;
    out->name = (int)m->name;
    switch (m->state) {
    case CORE__SOCKET_OPTION__SOCKET_STATE__STATE_PREBIND:
        out->state = SOCK_PREBIND;
        break;
    case CORE__SOCKET_OPTION__SOCKET_STATE__STATE_BOUND:
        out->state = SOCK_BOUND;
        break;
    case CORE__SOCKET_OPTION__SOCKET_STATE__STATE_LISTENING:
        out->state = SOCK_LISTENING;
        break;
    default:
        return diag_error(ctx->diag, "state: value must be one of the defined enum values");
    }
    if (m->type) {
        return diag_error(ctx->diag, "type is not supported: an option is set on every socket");
    }
    if (m->value_case == CORE__SOCKET_OPTION__VALUE_INT_VALUE) {
        out->is_int = true;
        out->int_value = (int)m->int_value;
        return true;
    }
    out->buf_value = arena_sv(ctx->arena, sv_from(m->buf_value.data, m->buf_value.len));
    return true;
}

bool socket_options_compile(struct compile_ctx *ctx, void *const *msgs, size_t n,
                            struct sock_opts *out) {
    unsigned errors = diag_errors(ctx->diag);
    struct sock_option *v = arena_new_array(ctx->arena, struct sock_option, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "socket_options[%zu]", i);
        option(ctx, msgs[i], &v[i]);
    }
    out->v = v;
    out->n = (unsigned)n;
    return diag_errors(ctx->diag) == errors;
}

static int value_or_default(const Pb__UInt32Value *v) { return v ? (int)v->value : -1; }

void tcp_keepalive_compile(const void *msg, struct sock_opts *out) {
    const Core__TcpKeepalive *m = msg;
    if (!m) {
        return;
    }
    out->keepalive_probes = value_or_default(m->keepalive_probes);
    out->keepalive_time_s = value_or_default(m->keepalive_time);
    out->keepalive_interval_s = value_or_default(m->keepalive_interval);
}
