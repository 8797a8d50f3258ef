/* Operators about the downstream connection: addresses, listener, server name, close reasons.
 * Threads: evaluated on workers. Not here: certificates (formatter_tls.c). */
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "proxy/observe/formatter_internal.h"

enum which { REMOTE, LOCAL, DIRECT_REMOTE, DIRECT_LOCAL };
enum part { WITH_PORT, WITHOUT_PORT, ONLY_PORT };
#define SUB(which, part) ((which)*3 + (part))

static const struct addr *address(const struct stream_info *si, int which) {
    const struct conn_info *cx = si->cx;
    if (!cx) {
        return NULL;
    }
    if (which == REMOTE && si->remote && si->remote->family) {
        return si->remote;
    }
    const struct addr *all[] = {&cx->remote, &cx->local, &cx->direct_remote, &cx->direct_local};
    return all[which]->family ? all[which] : NULL;
}

void fmt_address(const struct addr *a, int part, struct fmt_ctx *c, struct fmt_value *v) {
    if (!a) {
        return;
    }
    if (part == ONLY_PORT) {
        if (a->family == AF_INET || a->family == AF_INET6) {
            fmt_u64(v, a->port);
        }
        return;
    }
    size_t n =
        part == WITH_PORT || a->family == AF_UNIX ? addr_str(a, c->tmp) : addr_ip_str(a, c->tmp);
    fmt_str(v, sv_from(c->tmp, n));
}

static void eval_address(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    fmt_address(address(c->si, op->def->sub / 3), op->def->sub % 3, c, v);
}

static void eval_endpoint_id(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct addr *a = address(c->si, op->def->sub);
    if (a) {
        fmt_str(v, addr_endpoint_id(a));
    }
}

static void eval_connection_id(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_u64(v, c->si->cx ? c->si->cx->id : 0);
}

enum name {
    NAME_LISTENER,
    NAME_CHAIN,
    NAME_TERMINATION,
    NAME_LOCAL_CLOSE,
    NAME_TRANSPORT_FAILURE,
    NAME_JA3,
    NAME_JA4
};
static void eval_name(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct conn_info *cx = c->si->cx;
    sv s = SV_NULL;
    if (!cx) {
        return;
    }
    switch ((enum name)op->def->sub) {
    case NAME_LISTENER:
        s = cx->listener_name;
        break;
    case NAME_CHAIN:
        s = cx->filter_chain_name;
        break;
    case NAME_TERMINATION:
        s = sv_cstr(cx->termination_details);
        break;
    case NAME_LOCAL_CLOSE:
        s = cx->conn ? sv_cstr(cx->conn->close_reason) : SV_NULL;
        break;
    case NAME_TRANSPORT_FAILURE:
        s = cx->conn ? fmt_without_blanks(c, conn_transport_failure(cx->conn)) : SV_NULL;
        break;
    case NAME_JA3:
        s = cx->facts ? cx->facts->ja3 : SV_NULL;
        break;
    case NAME_JA4:
        s = cx->facts ? cx->facts->ja4 : SV_NULL;
        break;
    }
    fmt_str_or_none(v, s);
}

static void eval_close_type(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct conn *conn = op->def->sub ? c->si->up.conn : c->si->cx ? c->si->cx->conn : NULL;
    bool known = op->def->sub ? c->si->up.host || c->si->up.is_tcp : c->si->cx != NULL;
    if (known) {
        fmt_str(v, conn && conn->detect_reset ? SV("RemoteReset") : SV("Normal"));
    }
}

/* --- requested server name --- */

enum sni_order { SNI_ONLY, SNI_FIRST, HOST_FIRST };
enum host_source { HOST_ORIG_OR_HOST, HOST_HOST, HOST_ORIG };
struct sni_arg {
    enum sni_order order;
    enum host_source host;
};

static bool compile_sni(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    struct sni_arg *s = arena_new(ctx->arena, struct sni_arg);
    sv rest = args, order = sv_cut(&rest, ':');
    if (sv_is(order, "SNI_FIRST")) {
        s->order = SNI_FIRST;
    } else if (sv_is(order, "HOST_FIRST")) {
        s->order = HOST_FIRST;
    } else if (order.n && !sv_is(order, "SNI_ONLY")) {
        return diag_error(ctx->diag,
                          "Invalid REQUESTED_SERVER_NAME option: '%.*s', only "
                          "'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed",
                          SV_ARG(order));
    }
    if (sv_is(rest, "HOST")) {
        s->host = HOST_HOST;
    } else if (sv_is(rest, "ORIG")) {
        s->host = HOST_ORIG;
    } else if (rest.n && !sv_is(rest, "ORIG_OR_HOST")) {
        return diag_error(ctx->diag,
                          "Invalid REQUESTED_SERVER_NAME option: '%.*s', only "
                          "'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed",
                          SV_ARG(rest));
    }
    op->arg = s;
    return true;
}

static sv host_of(const struct stream_info *si, enum host_source source) {
    sv original = si->request && source != HOST_HOST
                      ? headers_get(si->request, HDR_x_envoy_original_host)
                      : SV_NULL;
    if (original.n || source == HOST_ORIG || !si->request) {
        return original;
    }
    return headers_get(si->request, HDR_authority);
}

static void eval_sni(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct sni_arg *a = op->arg;
    sv sni = c->si->requested_server_name;
    if (!sni.n && c->si->cx) {
        sni = c->si->cx->server_name;
    }
    sv host = a->order == SNI_ONLY ? SV_NULL : host_of(c->si, a->host);
    sv first = a->order == HOST_FIRST ? host : sni;
    fmt_str_or_none(v, first.n ? first : a->order == HOST_FIRST ? sni : host);
}

/* --- what the kernel counts --- */

enum tcp { TCP_RTT, TCP_RETRANS_PACKETS, TCP_RETRANS_BYTES };
static void eval_tcp_info(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct conn *conn = c->si->cx ? c->si->cx->conn : NULL;
    struct tcp_info info = {0};
    socklen_t n = sizeof(info);
    if (!conn || conn->fd < 0 || getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0) {
        if (op->def->sub != TCP_RTT) {
            fmt_u64(v, 0);
        }
        return;
    }
    switch ((enum tcp)op->def->sub) {
    case TCP_RTT:
        fmt_u64(v, info.tcpi_rtt / 1000);
        break;
    case TCP_RETRANS_PACKETS:
        fmt_u64(v, info.tcpi_total_retrans);
        break;
    /* glibc's struct ends before tcpi_bytes_retrans: an estimate by segment size */
    case TCP_RETRANS_BYTES:
        fmt_u64(v, (uint64_t)info.tcpi_total_retrans * info.tcpi_snd_mss);
        break;
    }
}

#define ONE FMT_ARGS_NONE, false, NULL
static const struct fmt_def defs[] = {
    {"DOWNSTREAM_REMOTE_ADDRESS", eval_address, ONE, SUB(REMOTE, WITH_PORT)},
    {"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", eval_address, ONE, SUB(REMOTE, WITHOUT_PORT)},
    {"DOWNSTREAM_REMOTE_PORT", eval_address, ONE, SUB(REMOTE, ONLY_PORT)},
    {"DOWNSTREAM_LOCAL_ADDRESS", eval_address, ONE, SUB(LOCAL, WITH_PORT)},
    {"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", eval_address, ONE, SUB(LOCAL, WITHOUT_PORT)},
    {"DOWNSTREAM_LOCAL_PORT", eval_address, ONE, SUB(LOCAL, ONLY_PORT)},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", eval_address, ONE, SUB(DIRECT_REMOTE, WITH_PORT)},
    {"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", eval_address, ONE,
     SUB(DIRECT_REMOTE, WITHOUT_PORT)},
    {"DOWNSTREAM_DIRECT_REMOTE_PORT", eval_address, ONE, SUB(DIRECT_REMOTE, ONLY_PORT)},
    {"DOWNSTREAM_DIRECT_LOCAL_ADDRESS", eval_address, ONE, SUB(DIRECT_LOCAL, WITH_PORT)},
    {"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", eval_address, ONE,
     SUB(DIRECT_LOCAL, WITHOUT_PORT)},
    {"DOWNSTREAM_DIRECT_LOCAL_PORT", eval_address, ONE, SUB(DIRECT_LOCAL, ONLY_PORT)},
    {"DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", eval_endpoint_id, ONE, LOCAL},
    {"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", eval_endpoint_id, ONE, DIRECT_LOCAL},
    {"CONNECTION_ID", eval_connection_id, ONE, 0},
    {"LISTENER_NAME", eval_name, ONE, NAME_LISTENER},
    {"FILTER_CHAIN_NAME", eval_name, ONE, NAME_CHAIN},
    {"CONNECTION_TERMINATION_DETAILS", eval_name, ONE, NAME_TERMINATION},
    {"DOWNSTREAM_LOCAL_CLOSE_REASON", eval_name, ONE, NAME_LOCAL_CLOSE},
    {"DOWNSTREAM_TRANSPORT_FAILURE_REASON", eval_name, ONE, NAME_TRANSPORT_FAILURE},
    {"TLS_JA3_FINGERPRINT", eval_name, ONE, NAME_JA3},
    {"TLS_JA4_FINGERPRINT", eval_name, ONE, NAME_JA4},
    {"DOWNSTREAM_DETECTED_CLOSE_TYPE", eval_close_type, ONE, 0},
    {"UPSTREAM_DETECTED_CLOSE_TYPE", eval_close_type, ONE, 1},
    {"REQUESTED_SERVER_NAME", eval_sni, FMT_ARGS_OPTIONAL, true, compile_sni, 0},
    {"DOWNSTREAM_CX_RTT", eval_tcp_info, ONE, TCP_RTT},
    {"PACKETS_RETRANSMITTED", eval_tcp_info, ONE, TCP_RETRANS_PACKETS},
    {"BYTES_RETRANSMITTED", eval_tcp_info, ONE, TCP_RETRANS_BYTES},
};
const struct fmt_table fmt_table_conn = {defs, ARRAY_LEN(defs)};
