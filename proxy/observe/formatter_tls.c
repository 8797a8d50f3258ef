/* Operators about TLS on either side: session and certificate facts.
 * Threads: evaluated on the connection's worker. Not here: how facts are found (net/tls*.c). */
#include "proxy/net/tls.h"
#include "proxy/observe/formatter_internal.h"

#define UP 64 /* added to a variant: the upstream connection */

static const struct ssl_info *ssl_of(const struct fmt_op *op, const struct stream_info *si) {
    if (op->def->sub & UP) {
        return si->up.ssl;
    }
    return si->cx && si->cx->conn ? conn_ssl(si->cx->conn) : NULL;
}

static void eval_fact(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct ssl_info *ssl = ssl_of(op, c->si);
    if (ssl) {
        fmt_str_or_none(v, ssl_info_fact(ssl, (enum ssl_fact)(op->def->sub & ~UP)));
    }
}

/* All names joined by commas. */
static void eval_list(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct ssl_info *ssl = ssl_of(op, c->si);
    const sv *names = NULL;
    unsigned n = ssl ? ssl_info_list(ssl, (enum ssl_list)(op->def->sub & ~UP), &names) : 0;
    if (n <= 1) {
        fmt_str_or_none(v, n ? names[0] : SV_NULL);
        return;
    }
    size_t from = buf_len(c->scratch);
    for (unsigned i = 0; i < n; i++) {
        buf_append_sv(c->scratch, i ? SV(",") : SV(""));
        buf_append_sv(c->scratch, names[i]);
    }
    fmt_str_or_none(v, sv_skip(buf_pullup(c->scratch, buf_len(c->scratch)), from));
}

/* Of the certificate behind the leaf, when the peer sent it. */
static void eval_issuer(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct ssl_info *ssl = ssl_of(op, c->si);
    const sv *all = NULL;
    unsigned n = ssl ? ssl_info_list(ssl, (enum ssl_list)(op->def->sub & ~UP), &all) : 0;
    fmt_str_or_none(v, n > 1 ? all[1] : SV_NULL);
}

enum session { SESSION_VERSION, SESSION_CIPHER, SESSION_GROUP, SESSION_SNI };
static void eval_session(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct ssl_info *ssl = ssl_of(op, c->si);
    sv s = SV_NULL;
    switch ((enum session)(op->def->sub & ~UP)) {
    case SESSION_VERSION:
        s = ssl ? ssl_info_version(ssl) : SV_NULL;
        break;
    case SESSION_CIPHER:
        s = ssl ? ssl_info_cipher(ssl) : SV_NULL;
        break;
    case SESSION_GROUP:
        s = ssl ? ssl_info_group(ssl) : SV_NULL;
        break;
    case SESSION_SNI:
        s = ssl ? ssl_info_sni(ssl) : SV_NULL;
        break;
    }
    fmt_str_or_none(v, s);
}

enum { VALID_FROM, VALID_UNTIL };
static bool compile_validity(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    if (sv_find(args, '\n') != SIZE_MAX || sv_find_sv(args, SV("%n")) != SIZE_MAX) {
        return diag_error(ctx->diag,
                          "Invalid header configuration. Format string contains newline.");
    }
    op->arg = fmt_time_compile(ctx->arena, args.n ? args : sv_cstr(fmt_time_default));
    return true;
}
static void eval_validity(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct ssl_info *ssl = ssl_of(op, c->si);
    int64_t from, until;
    if (!ssl || !ssl_info_peer_validity(ssl, &from, &until)) {
        return;
    }
    int64_t s = (op->def->sub & ~UP) == VALID_FROM ? from : until;
    fmt_str(v, fmt_time_write(op->arg, c, s > 0 ? (uint64_t)s * 1000000 : 0, false));
}

#define ONE FMT_ARGS_NONE, false, NULL
#define TIME FMT_ARGS_OPTIONAL, false, compile_validity
static const struct fmt_def defs[] = {
    {"DOWNSTREAM_TLS_VERSION", eval_session, ONE, SESSION_VERSION},
    {"DOWNSTREAM_TLS_CIPHER", eval_session, ONE, SESSION_CIPHER},
    {"DOWNSTREAM_TLS_GROUP", eval_session, ONE, SESSION_GROUP},
    {"DOWNSTREAM_TLS_SESSION_ID", eval_fact, ONE, SSL_FACT_SESSION_ID},
    {"DOWNSTREAM_PEER_SUBJECT", eval_fact, ONE, SSL_FACT_PEER_SUBJECT},
    {"DOWNSTREAM_PEER_ISSUER", eval_fact, ONE, SSL_FACT_PEER_ISSUER},
    {"DOWNSTREAM_PEER_SERIAL", eval_fact, ONE, SSL_FACT_PEER_SERIAL},
    {"DOWNSTREAM_PEER_FINGERPRINT_1", eval_fact, ONE, SSL_FACT_PEER_SHA1},
    {"DOWNSTREAM_PEER_FINGERPRINT_256", eval_fact, ONE, SSL_FACT_PEER_SHA256},
    {"DOWNSTREAM_PEER_CERT", eval_fact, ONE, SSL_FACT_PEER_URL_PEM},
    {"DOWNSTREAM_LOCAL_SUBJECT", eval_fact, ONE, SSL_FACT_LOCAL_SUBJECT},
    {"DOWNSTREAM_PEER_URI_SAN", eval_list, ONE, SSL_LIST_PEER_URI},
    {"DOWNSTREAM_PEER_DNS_SAN", eval_list, ONE, SSL_LIST_PEER_DNS},
    {"DOWNSTREAM_PEER_IP_SAN", eval_list, ONE, SSL_LIST_PEER_IP},
    {"DOWNSTREAM_PEER_EMAIL_SAN", eval_list, ONE, SSL_LIST_PEER_EMAIL},
    {"DOWNSTREAM_PEER_OTHERNAME_SAN", eval_list, ONE, SSL_LIST_PEER_OTHER},
    {"DOWNSTREAM_LOCAL_URI_SAN", eval_list, ONE, SSL_LIST_LOCAL_URI},
    {"DOWNSTREAM_LOCAL_DNS_SAN", eval_list, ONE, SSL_LIST_LOCAL_DNS},
    {"DOWNSTREAM_LOCAL_IP_SAN", eval_list, ONE, SSL_LIST_LOCAL_IP},
    {"DOWNSTREAM_LOCAL_EMAIL_SAN", eval_list, ONE, SSL_LIST_LOCAL_EMAIL},
    {"DOWNSTREAM_LOCAL_OTHERNAME_SAN", eval_list, ONE, SSL_LIST_LOCAL_OTHER},
    {"DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", eval_list, ONE, SSL_LIST_CHAIN_SHA1},
    {"DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", eval_list, ONE, SSL_LIST_CHAIN_SHA256},
    {"DOWNSTREAM_PEER_CHAIN_SERIALS", eval_list, ONE, SSL_LIST_CHAIN_SERIAL},
    {"DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", eval_issuer, ONE, SSL_LIST_CHAIN_SHA256},
    {"DOWNSTREAM_PEER_ISSUER_SERIAL", eval_issuer, ONE, SSL_LIST_CHAIN_SERIAL},
    {"DOWNSTREAM_PEER_CERT_V_START", eval_validity, TIME, VALID_FROM},
    {"DOWNSTREAM_PEER_CERT_V_END", eval_validity, TIME, VALID_UNTIL},
    {"UPSTREAM_TLS_VERSION", eval_session, ONE, SESSION_VERSION | UP},
    {"UPSTREAM_TLS_CIPHER", eval_session, ONE, SESSION_CIPHER | UP},
    {"UPSTREAM_TLS_GROUP", eval_session, ONE, SESSION_GROUP | UP},
    {"UPSTREAM_SERVER_NAME", eval_session, ONE, SESSION_SNI | UP},
    {"UPSTREAM_TLS_SESSION_ID", eval_fact, ONE, SSL_FACT_SESSION_ID | UP},
    {"UPSTREAM_PEER_SUBJECT", eval_fact, ONE, SSL_FACT_PEER_SUBJECT | UP},
    {"UPSTREAM_PEER_ISSUER", eval_fact, ONE, SSL_FACT_PEER_ISSUER | UP},
    {"UPSTREAM_PEER_CERT", eval_fact, ONE, SSL_FACT_PEER_URL_PEM | UP},
    {"UPSTREAM_PEER_URI_SAN", eval_list, ONE, SSL_LIST_PEER_URI | UP},
    {"UPSTREAM_PEER_DNS_SAN", eval_list, ONE, SSL_LIST_PEER_DNS | UP},
    {"UPSTREAM_PEER_IP_SAN", eval_list, ONE, SSL_LIST_PEER_IP | UP},
    {"UPSTREAM_LOCAL_URI_SAN", eval_list, ONE, SSL_LIST_LOCAL_URI | UP},
    {"UPSTREAM_LOCAL_DNS_SAN", eval_list, ONE, SSL_LIST_LOCAL_DNS | UP},
    {"UPSTREAM_LOCAL_IP_SAN", eval_list, ONE, SSL_LIST_LOCAL_IP | UP},
    {"UPSTREAM_PEER_CERT_V_START", eval_validity, TIME, VALID_FROM | UP},
    {"UPSTREAM_PEER_CERT_V_END", eval_validity, TIME, VALID_UNTIL | UP},
};
const struct fmt_table fmt_table_tls = {defs, ARRAY_LEN(defs)};
