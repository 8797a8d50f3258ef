/* Operators about the upstream side: host, cluster, connection, bytes.
 * Threads: evaluated on workers; hosts are seen through hooks (hooks.h). */
#include "proxy/observe/formatter_internal.h"

enum part { WITH_PORT, WITHOUT_PORT, ONLY_PORT };

static sv address_of(const struct host *h) {
    return h && observe_hooks()->host_address ? observe_hooks()->host_address(h) : SV_NULL;
}

static sv name_of(const struct host *h) {
    sv s = h && observe_hooks()->host_hostname ? observe_hooks()->host_hostname(h) : SV_NULL;
    return s.n ? s : address_of(h);
}

static void eval_host(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_str_or_none(v, address_of(c->si->up.host));
}

/* "name:80" → "name", "[::1]:80" → "[::1]"; of internal addresses what is before the last colon. */
static sv without_port(sv s) {
    size_t colon = sv_rfind(s, ':');
    if (sv_starts(s, SV("envoy://"))) {
        return sv_sub(s, 0, colon);
    }
    bool is_port = colon != SIZE_MAX && colon + 1 < s.n;
    for (size_t i = colon + 1; is_port && i < s.n; i++) {
        is_port = ascii_isdigit(s.p[i]);
    }
    return is_port && (sv_find(s, ':') == colon || s.p[0] == '[') ? sv_sub(s, 0, colon) : s;
}

static void eval_host_name(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    sv s = name_of(c->si->up.host);
    fmt_str_or_none(v, op->def->sub == WITHOUT_PORT ? without_port(s) : s);
}

/* The address the connection went to; known once there is a connection. */
static void eval_remote(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct upstream_info *up = &c->si->up;
    bool connected = up->connection_id != 0;
    const struct addr *a = connected && up->host && observe_hooks()->host_addr
                               ? observe_hooks()->host_addr(up->host)
                               : NULL;
    if (up->conn && connected) {
        a = &up->conn->remote;
    }
    fmt_address(a, op->def->sub, c, v);
}

static void eval_local(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    fmt_address(c->si->up.local.family ? &c->si->up.local : NULL, op->def->sub, c, v);
}

enum str { STR_CLUSTER, STR_CLUSTER_RAW };
static void eval_str(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct stream_info *si = c->si;
    bool is_raw = op->def->sub == STR_CLUSTER_RAW && si->cluster_raw_name.n;
    fmt_str_or_none(v, is_raw ? si->cluster_raw_name : si->cluster_name);
}

/* ---- tries ---- */

enum tried { TRIED_HOST = 0, TRIED_NAME = 1, TRIED_WITHOUT_PORT = 2 };

static sv tried_text(const struct host *h, unsigned how) {
    sv s = how & TRIED_NAME ? name_of(h) : address_of(h);
    return how & TRIED_WITHOUT_PORT ? without_port(s) : s;
}

struct list_writer {
    char *out;
    size_t n;
};

static void list_add(struct list_writer *w, sv s) {
    if (w->n) {
        w->out[w->n++] = ',';
    }
    memcpy(w->out + w->n, s.p, s.n);
    w->n += s.n;
}

/* Connections that could not be had, then the one that was. */
static void eval_tried(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct upstream_info *up = &c->si->up;
    const struct host *last = up->connection_id ? up->host : NULL;
    unsigned how = (unsigned)op->def->sub;
    size_t n = 0;
    for (const struct upstream_try *t = up->failed; t; t = t->next) {
        n += tried_text(t->host, how).n + 1;
    }
    if (!n) { /* all requests, and most connections */
        fmt_str_or_none(v, last ? tried_text(last, how) : SV_NULL);
        return;
    }
    n += last ? tried_text(last, how).n : 0;
    struct list_writer w = {.out = n <= sizeof(c->tmp) ? c->tmp : buf_reserve(c->scratch, n)};
    for (const struct upstream_try *t = up->failed; t; t = t->next) {
        list_add(&w, tried_text(t->host, how));
    }
    if (last) {
        list_add(&w, tried_text(last, how));
    }
    if (w.out != c->tmp) {
        buf_commit(c->scratch, w.n);
    }
    fmt_str(v, sv_from(w.out, w.n));
}

/* Only those that were had have one. */
static void eval_tried_ids(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    if (c->si->up.connection_id) {
        fmt_u64(v, c->si->up.connection_id);
    }
}

static void eval_close_reason(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    fmt_str_or_none(v, sv_cstr(c->si->up.local_close_reason));
}

enum num {
    NUM_ATTEMPTS,
    NUM_ID,
    NUM_WIRE_RX,
    NUM_WIRE_TX,
    NUM_HDR_RX,
    NUM_HDR_TX,
    NUM_PLAIN_RX,
    NUM_PLAIN_TX
};
static void eval_num(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct upstream_info *up = &c->si->up;
    uint64_t n = 0;
    switch ((enum num)op->def->sub) {
    case NUM_ATTEMPTS:
        n = up->attempts;
        break;
    case NUM_ID:
        n = up->connection_id;
        break;
    case NUM_WIRE_RX:
        n = up->wire_rx_bytes;
        break;
    case NUM_WIRE_TX:
        n = up->wire_tx_bytes;
        break;
    case NUM_HDR_RX:
    case NUM_PLAIN_RX:
        n = up->header_rx_bytes;
        break;
    case NUM_HDR_TX:
    case NUM_PLAIN_TX:
        n = up->header_tx_bytes;
        break;
    }
    fmt_u64(v, n);
}

static void eval_endpoint_id(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    (void)op;
    if (c->si->up.host) {
        fmt_str(v, SV(""));
    }
}

#define ONE FMT_ARGS_NONE, false, NULL
static const struct fmt_def defs[] = {
    {"UPSTREAM_HOST", eval_host, ONE, 0},
    {"UPSTREAM_HOST_NAME", eval_host_name, ONE, WITH_PORT},
    {"UPSTREAM_HOST_NAME_WITHOUT_PORT", eval_host_name, ONE, WITHOUT_PORT},
    {"UPSTREAM_REMOTE_ADDRESS", eval_remote, ONE, WITH_PORT},
    {"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", eval_remote, ONE, WITHOUT_PORT},
    {"UPSTREAM_REMOTE_PORT", eval_remote, ONE, ONLY_PORT},
    {"UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", eval_endpoint_id, ONE, 0},
    {"UPSTREAM_LOCAL_ADDRESS", eval_local, ONE, WITH_PORT},
    {"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", eval_local, ONE, WITHOUT_PORT},
    {"UPSTREAM_LOCAL_PORT", eval_local, ONE, ONLY_PORT},
    {"UPSTREAM_CLUSTER", eval_str, ONE, STR_CLUSTER},
    {"UPSTREAM_CLUSTER_RAW", eval_str, ONE, STR_CLUSTER_RAW},
    {"UPSTREAM_HOSTS_ATTEMPTED", eval_tried, ONE, TRIED_HOST},
    {"UPSTREAM_HOST_NAMES_ATTEMPTED", eval_tried, ONE, TRIED_NAME},
    {"UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", eval_tried, ONE, TRIED_WITHOUT_PORT},
    {"UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", eval_tried, ONE,
     TRIED_NAME | TRIED_WITHOUT_PORT},
    {"UPSTREAM_CONNECTION_IDS_ATTEMPTED", eval_tried_ids, ONE, 0},
    {"UPSTREAM_LOCAL_CLOSE_REASON", eval_close_reason, ONE, 0},
    {"UPSTREAM_REQUEST_ATTEMPT_COUNT", eval_num, ONE, NUM_ATTEMPTS},
    {"UPSTREAM_CONNECTION_ID", eval_num, ONE, NUM_ID},
    {"UPSTREAM_WIRE_BYTES_RECEIVED", eval_num, ONE, NUM_WIRE_RX},
    {"UPSTREAM_WIRE_BYTES_SENT", eval_num, ONE, NUM_WIRE_TX},
    {"UPSTREAM_HEADER_BYTES_RECEIVED", eval_num, ONE, NUM_HDR_RX},
    {"UPSTREAM_HEADER_BYTES_SENT", eval_num, ONE, NUM_HDR_TX},
    {"UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", eval_num, ONE, NUM_PLAIN_RX},
    {"UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", eval_num, ONE, NUM_PLAIN_TX},
};
const struct fmt_table fmt_table_upstream = {defs, ARRAY_LEN(defs)};
