/* DownstreamTlsContext and UpstreamTlsContext messages into tls_config.
 * Threads: config thread. Spec: transport_sockets.tls.v3; texts and defaults as Envoy's.
 * Not here: SSL_CTX (tls_context.c), secrets (tls_cert.c, tls_validation.c). */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/sha2.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "proxy/net/tls_context.h"

static void config_free(struct shared *self) {
    struct tls_config *c = CONTAINER_OF(self, struct tls_config, shared);
    for (unsigned i = 0; i < c->certs_n; i++) {
        tls_secret_unref(c->certs[i].inlined);
    }
    tls_secret_unref(c->validation.inlined);
    tls_secret_unref(c->default_validation);
    tls_secret_unref(c->tickets.inlined);
    if (c->ssl_scope) {
        stats_scope_unref(c->ssl_scope);
    }
    if (c->factory_scope) {
        stats_scope_unref(c->factory_scope);
    }
    if (c->key_log.fd >= 0) {
        close(c->key_log.fd);
    }
    arena_fini(&c->arena_);
    c->magic = 0;
    xfree(c);
}

static void config_unref(void *arg) {
    struct tls_config *c = CAST(tls_config, TLS_CONFIG_MAGIC, arg);
    shared_unref(&c->shared);
}

/* The resource holds one ref. */
static struct tls_config *config_new(struct compile_ctx *ctx, bool is_client) {
    struct tls_config *c = xnew(struct tls_config);
    shared_init(&c->shared, config_free);
    c->magic = TLS_CONFIG_MAGIC;
    c->is_client = is_client;
    c->key_log.fd = -1;
    arena_init(&c->arena_, 512);
    arena_on_fini(ctx->arena, config_unref, c);
    return c;
}

static struct stats_scope *scope(struct compile_ctx *ctx, struct arena *scratch,
                                 const struct stats_group *group, const char *suffix) {
    sv prefix = arena_printf(scratch, "%.*s%s", SV_ARG(ctx->stat_prefix), suffix);
    return stats_scope_get(ctx->stats, group, prefix);
}

static void open_scopes(struct tls_config *c, struct compile_ctx *ctx) {
    if (!ctx->stats) {
        return;
    }
    c->ssl_scope = scope(ctx, ctx->arena, &ssl_stats_group, "ssl.");
    c->factory_scope =
        scope(ctx, ctx->arena, &ssl_factory_stats_group,
              c->is_client ? "client_ssl_socket_factory." : "server_ssl_socket_factory.");
}

/* --- parameters --- */

static bool version_of(int v, uint16_t fallback, uint16_t *out, struct diag *d) {
    switch (v) {
    case TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLS_AUTO:
        *out = fallback;
        return true;
    case TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_0:
        *out = TLS1_VERSION;
        return true;
    case TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_1:
        *out = TLS1_1_VERSION;
        return true;
    case TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_2:
        *out = TLS1_2_VERSION;
        return true;
    case TLS__TLS_PARAMETERS__TLS_PROTOCOL__TLSv1_3:
        *out = TLS1_3_VERSION;
        return true;
    default:
        return diag_error(d, "unknown TLS protocol version %d", v);
    }
}

/* "a:b:c"; NULL for none. */
static const char *joined(struct arena *a, const char *const *v, size_t n) {
    if (!n) {
        return NULL;
    }
    struct buf b;
    buf_init(&b);
    for (size_t i = 0; i < n; i++) {
        buf_append_sv(&b, i ? SV(":") : SV_NULL);
        buf_append_sv(&b, sv_cstr(v[i]));
    }
    const char *out = arena_cstr(a, buf_pullup(&b, buf_len(&b)));
    buf_fini(&b);
    return out;
}

static bool compliance_of(const Tls__TlsParameters *m, int *out, struct diag *d) {
    if (m->n_compliance_policies > 1) {
        return diag_error(d, "compliance_policies: more than one policy is not supported");
    }
    if (!m->n_compliance_policies) {
        return true;
    }
    switch (m->compliance_policies[0]) {
    case TLS__TLS_PARAMETERS__COMPLIANCE_POLICY__FIPS_202205:
        *out = ssl_compliance_policy_fips_202205;
        return true;
    case TLS__TLS_PARAMETERS__COMPLIANCE_POLICY__CNSA1_202603:
        *out = ssl_compliance_policy_cnsa1_202603;
        return true;
    case TLS__TLS_PARAMETERS__COMPLIANCE_POLICY__CNSA2_202603:
        *out = ssl_compliance_policy_cnsa2_202603;
        return true;
    default:
        return diag_error(d, "unknown compliance policy %d", m->compliance_policies[0]);
    }
}

/* Each cipher of a list that was refused, to tell which. */
static void name_bad_ciphers(SSL_CTX *ctx, const char *list, struct diag *d) {
    struct buf bad;
    buf_init(&bad);
    sv rest = sv_cstr(list);
    while (rest.n) {
        size_t n = 0;
        while (n < rest.n && !memchr(":+![|]", rest.p[n], 6)) {
            n++;
        }
        sv one = sv_sub(rest, 0, n);
        rest = sv_skip(rest, n + 1);
        sv_eat(&one, SV("-"));
        char *text = sv_dup(one);
        if (one.n && !SSL_CTX_set_strict_cipher_list(ctx, text)) {
            buf_append_sv(&bad, buf_empty(&bad) ? SV_NULL : SV(", "));
            buf_append_sv(&bad, one);
        }
        xfree(text);
    }
    ERR_clear_error();
    diag_error(d,
               "Failed to initialize cipher suites %s. The following ciphers were rejected when "
               "tried individually: %.*s",
               list, SV_ARG(buf_pullup(&bad, buf_len(&bad))));
    buf_fini(&bad);
}

/* Lists are tried out here, so that making the real SSL_CTX later cannot fail on them. */
static bool check_lists(const struct tls_config *c, struct diag *d) {
    if (!c->ciphers && !c->groups && !c->sigalgs) {
        return true;
    }
    SSL_CTX *ctx = SSL_CTX_new(TLS_with_buffers_method());
    CHECK(ctx);
    bool ok = true;
    if (c->ciphers && !SSL_CTX_set_strict_cipher_list(ctx, c->ciphers)) {
        name_bad_ciphers(ctx, c->ciphers, d);
        ok = false;
    }
    if (c->groups && !SSL_CTX_set1_groups_list(ctx, c->groups)) {
        ok = diag_error(d, "Failed to initialize ECDH curves %s", c->groups);
    }
    if (c->sigalgs && !SSL_CTX_set1_sigalgs_list(ctx, c->sigalgs)) {
        ok = diag_error(d, "Failed to initialize TLS signature algorithms %s", c->sigalgs);
    }
    ERR_clear_error();
    SSL_CTX_free(ctx);
    return ok;
}

static bool compile_params(struct tls_config *c, const Tls__TlsParameters *m, struct diag *d) {
    static const Tls__TlsParameters none = TLS__TLS_PARAMETERS__INIT;
    DIAG_FIELD(d, "tls_params");
    m = m ? m : &none;
    uint16_t max_default = c->is_client ? TLS1_2_VERSION : TLS1_3_VERSION;
    if (!version_of((int)m->tls_minimum_protocol_version, TLS1_2_VERSION, &c->min_version, d) ||
        !version_of((int)m->tls_maximum_protocol_version, max_default, &c->max_version, d)) {
        return false;
    }
    c->ciphers = joined(&c->arena_, m->cipher_suites, m->n_cipher_suites);
    c->groups = joined(&c->arena_, m->ecdh_curves, m->n_ecdh_curves);
    c->sigalgs = joined(&c->arena_, m->signature_algorithms, m->n_signature_algorithms);
    return compliance_of(m, &c->compliance, d) && check_lists(c, d);
}

static bool compile_alpn(struct tls_config *c, const Tls__CommonTlsContext *m, struct diag *d) {
    size_t total = 0;
    for (size_t i = 0; i < m->n_alpn_protocols; i++) {
        size_t n = strlen(m->alpn_protocols[i]);
        if (n == 0 || n > 255 || (total += n + 1) > TLS_ALPN_BYTES_MAX) {
            return diag_error(d, "Invalid ALPN protocol string");
        }
    }
    uint8_t *wire = arena_alloc(&c->arena_, total);
    c->alpn = total ? wire : NULL;
    c->alpn_n = total;
    for (size_t i = 0; i < m->n_alpn_protocols; i++) {
        size_t n = strlen(m->alpn_protocols[i]);
        *wire++ = (uint8_t)n;
        memcpy(wire, m->alpn_protocols[i], n);
        wire += n;
    }
    return true;
}

static struct cidr *compile_ranges(struct tls_config *c, Core__CidrRange *const *v, size_t n,
                                   unsigned *out_n, struct diag *d) {
    struct cidr *out = arena_new_array(&c->arena_, struct cidr, n);
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = v[i]->prefix_len ? v[i]->prefix_len->value : 0;
        if (!cidr_make(sv_cstr(v[i]->address_prefix), bits, &out[i])) {
            diag_error(d, "invalid ip/mask combo '%s/%u'", v[i]->address_prefix, bits);
            return NULL;
        }
    }
    *out_n = (unsigned)n;
    return out;
}

static bool compile_key_log(struct tls_config *c, const Tls__TlsKeyLog *m, struct diag *d) {
    if (!m || !*m->path) {
        return true;
    }
    DIAG_FIELD(d, "key_log");
    struct tls_key_log *k = &c->key_log;
    k->local = compile_ranges(c, m->local_address_range, m->n_local_address_range, &k->local_n, d);
    k->remote =
        compile_ranges(c, m->remote_address_range, m->n_remote_address_range, &k->remote_n, d);
    if (!k->local || !k->remote) {
        return false;
    }
    k->fd = open(m->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600);
    return k->fd >= 0 || diag_error(d, "unable to open file '%s': %s", m->path, strerror(errno));
}

/* --- secrets --- */

/* Envoy names inline secrets by the first digits of a hash over inline_bytes alone. */
static sv inline_name(struct arena *a, const char *lead, const Core__DataSource *src) {
    if (!src) {
        return arena_sv(a, sv_cstr(lead));
    }
    bool bytes = src->specifier_case == CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES;
    uint8_t hash[TLS_DIGEST_BYTES];
    SHA256(bytes ? src->inline_bytes.data : (const uint8_t *)"", bytes ? src->inline_bytes.len : 0,
           hash);
    return arena_printf(a, "%s_%02x%02x%02x%02x", lead, hash[0], hash[1], hash[2], hash[3]);
}

static void name_slot(struct tls_config *c, struct compile_ctx *ctx, struct tls_secret_slot *slot,
                      const Tls__SdsSecretConfig *m) {
    slot->name = arena_sv(&c->arena_, sv_cstr(m->name));
    slot->index = compile_secret_ref(ctx, sv_cstr(m->name), m->sds_config);
}

/* Only secrets that come by name are watched: as in Envoy, but for a map of trust bundles. */
static void tell_unwatched(const struct tls_secret *s, struct diag *d) {
    struct tls_watches w = tls_secret_watches(s);
    if (s->validation && s->validation->has_map_file) {
        diag_warn(d, "trust_bundles: the file is read once here: only secrets (SDS) are watched");
    }
    for (size_t i = 0; i < w.n; i++) {
        if (w.v[i].is_directory) {
            diag_warn(d, "watched_directory has no effect here: only secrets (SDS) are watched");
            return;
        }
    }
}

static bool is_empty_cert(const Tls__TlsCertificate *m) {
    return !m->certificate_chain && !m->private_key && !m->pkcs12 && !m->private_key_provider;
}

static bool compile_certs(struct tls_config *c, struct compile_ctx *ctx,
                          const Tls__CommonTlsContext *m) {
    struct diag *d = ctx->diag;
    if (m->n_tls_certificates && m->n_tls_certificate_sds_secret_configs) {
        return diag_error(d, "SDS and non-SDS TLS certificates may not be mixed");
    }
    size_t n = m->n_tls_certificates + m->n_tls_certificate_sds_secret_configs;
    c->certs = arena_new_array(&c->arena_, struct tls_secret_slot, n);
    bool ok = true;
    for (size_t i = 0; i < m->n_tls_certificates; i++) {
        DIAG_FIELD(d, "tls_certificates[%zu]", i);
        const Tls__TlsCertificate *cert = m->tls_certificates[i];
        if (is_empty_cert(cert)) {
            continue;
        }
        struct tls_secret_slot *slot = &c->certs[c->certs_n];
        slot->name = inline_name(&c->arena_, "unnamed_cert", cert->certificate_chain);
        slot->inlined = tls_secret_from_cert(cert, slot->name, d);
        ok = slot->inlined && ok;
        if (slot->inlined) {
            tell_unwatched(slot->inlined, d);
        }
        c->certs_n += slot->inlined != NULL;
    }
    for (size_t i = 0; i < m->n_tls_certificate_sds_secret_configs; i++) {
        DIAG_FIELD(d, "tls_certificate_sds_secret_configs[%zu]", i);
        name_slot(c, ctx, &c->certs[c->certs_n++], m->tls_certificate_sds_secret_configs[i]);
    }
    return ok;
}

static bool compile_inline_validation(struct tls_config *c, struct diag *d,
                                      const Tls__CertificateValidationContext *m) {
    DIAG_FIELD(d, "validation_context");
    c->has_validation = true;
    c->validation.name = inline_name(&c->arena_, "unnamed_ca_cert", m->trusted_ca);
    c->validation.inlined = tls_secret_from_validation(m, c->validation.name, d);
    if (c->validation.inlined) {
        tell_unwatched(c->validation.inlined, d);
    }
    return c->validation.inlined != NULL;
}

static bool compile_combined(struct tls_config *c, struct compile_ctx *ctx,
                             const Tls__CommonTlsContext__CombinedCertificateValidationContext *m) {
    struct diag *d = ctx->diag;
    DIAG_FIELD(d, "combined_validation_context");
    if (m->validation_context_certificate_provider ||
        m->validation_context_certificate_provider_instance) {
        return diag_error(d, "certificate providers are not supported");
    }
    if (!m->validation_context_sds_secret_config) {
        return diag_error(d, "validation_context_sds_secret_config: value is required");
    }
    c->has_validation = true;
    name_slot(c, ctx, &c->validation, m->validation_context_sds_secret_config);
    if (m->default_validation_context) {
        DIAG_FIELD(d, "default_validation_context");
        c->default_validation =
            tls_secret_from_validation(m->default_validation_context, c->validation.name, d);
        if (c->default_validation) {
            tell_unwatched(c->default_validation, d);
        }
        return c->default_validation != NULL;
    }
    return true;
}

static bool compile_validation(struct tls_config *c, struct compile_ctx *ctx,
                               const Tls__CommonTlsContext *m) {
    switch (m->validation_context_type_case) {
    case TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE__NOT_SET:
        return true;
    case TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT:
        return compile_inline_validation(c, ctx->diag, m->validation_context);
    case TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT_SDS_SECRET_CONFIG:
        c->has_validation = true;
        name_slot(c, ctx, &c->validation, m->validation_context_sds_secret_config);
        return true;
    case TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_COMBINED_VALIDATION_CONTEXT:
        return compile_combined(c, ctx, m->combined_validation_context);
    case TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT_CERTIFICATE_PROVIDER:
    case TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT_CERTIFICATE_PROVIDER_INSTANCE:
    default:
        return diag_error(ctx->diag,
                          "validation_context_type %d: certificate providers are not "
                          "supported",
                          (int)m->validation_context_type_case);
    }
}

/* Extensions that would take over parts of TLS: never ignored. */
static bool refuse_plugins(const Tls__CommonTlsContext *m, struct diag *d) {
    const struct {
        const void *set;
        const char *field;
    } plugins[] = {
        {m->custom_handshaker, "custom_handshaker"},
        {m->custom_tls_certificate_selector, "custom_tls_certificate_selector"},
        {m->tls_certificate_provider_instance, "tls_certificate_provider_instance"},
        {m->tls_certificate_certificate_provider, "tls_certificate_certificate_provider"},
        {m->tls_certificate_certificate_provider_instance,
         "tls_certificate_certificate_provider_instance"},
    };
    bool ok = true;
    for (unsigned i = 0; i < ARRAY_LEN(plugins); i++) {
        if (plugins[i].set) {
            ok = diag_error(d, "%s is not supported", plugins[i].field);
        }
    }
    return ok;
}

static bool compile_common(struct tls_config *c, struct compile_ctx *ctx,
                           const Tls__CommonTlsContext *m) {
    static const Tls__CommonTlsContext none = TLS__COMMON_TLS_CONTEXT__INIT;
    struct diag *d = ctx->diag;
    DIAG_FIELD(d, "common_tls_context");
    m = m ? m : &none;
    bool ok = refuse_plugins(m, d);
    ok = compile_params(c, m->tls_params, d) && ok;
    ok = compile_alpn(c, m, d) && ok;
    ok = compile_key_log(c, m->key_log, d) && ok;
    ok = compile_certs(c, ctx, m) && ok;
    return compile_validation(c, ctx, m) && ok;
}

/* An all-inline validation context can be judged right away; with named secrets tls_policy_make
 * sees it later. */
static bool check_inline_policy(const struct tls_config *c, struct diag *d) {
    struct tls_policy p;
    if (c->auto_sni_san && !c->has_validation) {
        return diag_error(d,
                          "'auto_sni_san_validation' was configured without a validation context");
    }
    if (!c->validation.inlined) {
        return true;
    }
    bool ok = tls_policy_make(&p, c->validation.inlined->validation, NULL, c->auto_sni_san, d);
    tls_policy_fini(&p);
    return ok;
}

/* --- the two contexts --- */

static bool compile_tickets(struct tls_config *c, struct compile_ctx *ctx,
                            const Tls__DownstreamTlsContext *m) {
    switch (m->session_ticket_keys_type_case) {
    case TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE__NOT_SET:
        return true;
    case TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_SESSION_TICKET_KEYS: {
        DIAG_FIELD(ctx->diag, "session_ticket_keys");
        c->has_tickets = true;
        c->tickets.inlined =
            tls_secret_from_tickets(m->session_ticket_keys, SV("session_ticket_keys"), ctx->diag);
        return c->tickets.inlined != NULL;
    }
    case TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_SESSION_TICKET_KEYS_SDS_SECRET_CONFIG:
        c->has_tickets = true;
        name_slot(c, ctx, &c->tickets, m->session_ticket_keys_sds_secret_config);
        return true;
    case TLS__DOWNSTREAM_TLS_CONTEXT__SESSION_TICKET_KEYS_TYPE_DISABLE_STATELESS_SESSION_RESUMPTION:
        c->no_tickets = m->disable_stateless_session_resumption;
        return true;
    default:
        return diag_error(ctx->diag, "Unexpected case for oneof session_ticket_keys: %d",
                          (int)m->session_ticket_keys_type_case);
    }
}

static bool ocsp_policy_of(int v, enum tls_ocsp_policy *out, struct diag *d) {
    switch (v) {
    case TLS__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__LENIENT_STAPLING:
        *out = TLS_OCSP_LENIENT;
        return true;
    case TLS__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__STRICT_STAPLING:
        *out = TLS_OCSP_STRICT;
        return true;
    case TLS__DOWNSTREAM_TLS_CONTEXT__OCSP_STAPLE_POLICY__MUST_STAPLE:
        *out = TLS_OCSP_MUST_STAPLE;
        return true;
    default:
        return diag_error(d, "unknown ocsp_staple_policy %d", v);
    }
}

bool tls_config_check_staple(const struct tls_config *c, const struct tls_cert *cert,
                             struct diag *d) {
    if (cert->stapled) {
        return true;
    }
    if (cert->is_must_staple) {
        return diag_error(d, "OCSP response is required for must-staple certificate");
    }
    return c->ocsp_policy != TLS_OCSP_MUST_STAPLE ||
           diag_error(d, "Required OCSP response is missing from TLS context");
}

/* Of the certificates that are here already; the factory judges those that come by name. */
static bool check_inline_staples(const struct tls_config *c, struct diag *d) {
    bool ok = true;
    for (unsigned i = 0; i < c->certs_n; i++) {
        const struct tls_secret *s = c->certs[i].inlined;
        ok = (!s || tls_config_check_staple(c, s->cert, d)) && ok;
    }
    return ok;
}

static bool compile_timeout(struct tls_config *c, const Pb__Duration *m, struct diag *d) {
    if (!m) {
        return true;
    }
    if (m->seconds < 0 || m->seconds >= UINT32_MAX) {
        return diag_error(d, "session_timeout: expected between 0s and 4294967294s");
    }
    c->has_session_timeout = true;
    c->session_timeout_s = (uint32_t)m->seconds;
    return true;
}

static void keep_server_names(struct tls_config *c, const struct compile_ctx *ctx) {
    sv *names = arena_new_array(&c->arena_, sv, ctx->server_names_n);
    for (size_t i = 0; i < ctx->server_names_n; i++) {
        names[i] = arena_sv(&c->arena_, sv_cstr(ctx->server_names[i]));
    }
    c->server_names = names;
    c->server_names_n = ctx->server_names_n;
}

struct tls_config *tls_config_downstream(struct compile_ctx *ctx, const void *msg) {
    const Tls__DownstreamTlsContext *m = msg;
    struct diag *d = ctx->diag;
    struct tls_config *c = config_new(ctx, false);
    bool ok = compile_common(c, ctx, m->common_tls_context);
    if (ok && c->certs_n == 0) {
        ok = diag_error(d, "No TLS certificates found for server context");
    }
    c->require_client_cert = m->require_client_certificate && m->require_client_certificate->value;
    if (c->require_client_cert && !c->has_validation) {
        diag_warn(d, "require_client_certificate has no effect without a validation context");
    }
    c->require_sni = m->require_sni && m->require_sni->value;
    c->full_scan = m->full_scan_certs_on_sni_mismatch && m->full_scan_certs_on_sni_mismatch->value;
    c->prefer_client_ciphers = m->prefer_client_ciphers;
    c->no_session_cache = m->disable_stateful_session_resumption;
    keep_server_names(c, ctx);
    ok = ocsp_policy_of((int)m->ocsp_staple_policy, &c->ocsp_policy, d) && ok;
    ok = compile_timeout(c, m->session_timeout, d) && ok;
    ok = compile_tickets(c, ctx, m) && ok;
    ok = ok && check_inline_policy(c, d) && check_inline_staples(c, d);
    if (!ok) {
        return NULL;
    }
    open_scopes(c, ctx);
    return c;
}

static bool compile_sni(struct tls_config *c, const Tls__UpstreamTlsContext *m, struct diag *d) {
    if (strlen(m->sni) > 255) {
        return diag_error(d, "sni: value length must be at most 255 bytes");
    }
    c->sni = arena_cstr(&c->arena_, sv_cstr(m->sni));
    c->auto_host_sni = m->auto_host_sni;
    c->auto_sni_san = m->auto_sni_san_validation;
    return true;
}

struct tls_config *tls_config_upstream(struct compile_ctx *ctx, const void *msg) {
    const Tls__UpstreamTlsContext *m = msg;
    struct diag *d = ctx->diag;
    struct tls_config *c = config_new(ctx, true);
    bool ok = compile_common(c, ctx, m->common_tls_context);
    if (m->allow_renegotiation) {
        ok = diag_error(d, "allow_renegotiation: renegotiation is not supported");
    }
    if (c->certs_n > 1) {
        ok = diag_error(d, "Multiple TLS certificates are not supported for client contexts");
    }
    ok = compile_sni(c, m, d) && ok;
    c->max_session_keys =
        m->max_session_keys ? m->max_session_keys->value : TLS_SESSION_KEYS_DEFAULT;
    if (c->max_session_keys > TLS_SESSION_KEYS_MAX) {
        c->max_session_keys = TLS_SESSION_KEYS_MAX;
        diag_warn(d, "max_session_keys is limited to %u", TLS_SESSION_KEYS_MAX);
    }
    c->enforce_rsa_key_usage = m->enforce_rsa_key_usage && m->enforce_rsa_key_usage->value;
    ok = ok && check_inline_policy(c, d);
    if (!ok) {
        return NULL;
    }
    open_scopes(c, ctx);
    return c;
}
