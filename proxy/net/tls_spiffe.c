/* Trust domains of the SPIFFE validator: one bundle for each in the message, or all of them in a
 * bundle map (JSON whose keys are JWKs with certificates in x5c).
 * Threads: config thread. Spec: transport_sockets.tls.v3.SPIFFECertValidatorConfig; SPIFFE Trust
 * Domain and Bundle sections 4 and 6; RFC 7517 section 4.7. Not here: judging a peer
 * (tls_verify.c). */
#include <jansson.h>

#include <openssl/err.h>

#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "proxy/base/base64.h"
#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_verify.h"

/* --- a bundle for each domain --- */

static bool compile_domain(struct tls_secret *s, struct tls_validation *v,
                           const Tls__SPIFFECertValidatorConfig__TrustDomain *m, struct diag *d) {
    sv name = arena_sv(&s->arena_, sv_cstr(m->name));
    sv workload = arena_sv(&s->arena_, sv_cstr(m->workload_trust_domain));
    for (unsigned i = 0; i < v->domains_n; i++) {
        if (sv_eq(v->domains[i].name, name) && sv_eq(v->domains[i].workload, workload)) {
            return diag_error(d, "Multiple trust bundles are given for one trust domain for %s",
                              m->name);
        }
    }
    if (workload.n) {
        diag_warn(d,
                  "workload_trust_domain '%s': no filter state tells a connection's, so this "
                  "bundle is never used",
                  m->workload_trust_domain);
    }
    struct tls_trust_domain *out = &v->domains[v->domains_n];
    sv path = SV_NULL;
    struct diag inner;
    diag_init(&inner);
    bool ok = tls_ca_read(s, m->trust_bundle, true, &out->ca, &path, &inner);
    diag_fini(&inner);
    if (!ok || !out->ca) {
        return diag_error(d, "Failed to load trusted CA certificate for %s", m->name);
    }
    out->name = name;
    out->workload = workload;
    v->domains_n++;
    return true;
}

static bool compile_domains(struct tls_secret *s, struct tls_validation *v,
                            const Tls__SPIFFECertValidatorConfig *m, struct diag *d) {
    if (m->n_trust_domains == 0 || m->n_trust_domains > TLS_SPIFFE_DOMAINS_MAX) {
        return diag_error(d, "expected between 1 and %u trust_domains, not %zu",
                          TLS_SPIFFE_DOMAINS_MAX, m->n_trust_domains);
    }
    v->domains = arena_new_array(&s->arena_, struct tls_trust_domain, m->n_trust_domains);
    bool ok = true;
    for (size_t i = 0; ok && i < m->n_trust_domains; i++) {
        DIAG_FIELD(d, "trust_domains[%zu]", i);
        ok = compile_domain(s, v, m->trust_domains[i], d);
    }
    return ok;
}

/* --- a map of bundles --- */

/* A base64 DER certificate of an x5c. */
static X509 *read_cert(const json_t *text, const char *domain, struct diag *d) {
    sv encoded = sv_from(json_string_value(text), json_string_length(text));
    uint8_t *der = xcalloc(1, BASE64_DECODED_MAX(encoded.n));
    size_t n = encoded.n % 4 ? SIZE_MAX : base64_decode(encoded, BASE64_STANDARD, (char *)der);
    const uint8_t *at = der;
    X509 *x = NULL;
    if (n == SIZE_MAX || n == 0) {
        diag_error(d, "Failed to create x509 object while loading certs in domain '%s'", domain);
    } else if (!(x = d2i_X509(NULL, &at, (long)n))) {
        diag_error(d, "Invalid x509 object in certs for domain '%s'", domain);
    }
    ERR_clear_error();
    xfree(der);
    return x;
}

static bool all_strings(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!json_is_string(json_array_get(list, i))) {
            return false;
        }
    }
    return json_array_size(list) > 0; /* 0 for what is no array */
}

static bool read_key(const json_t *key, const char *domain, STACK_OF(X509) * certs,
                     struct diag *d) {
    const char *use = json_string_value(json_object_get(key, "use"));
    if (!use || strcmp(use, "x509-svid") != 0) {
        return diag_error(d, "missing or invalid 'use' field found in cert for domain '%s'",
                          domain);
    }
    const json_t *x5c = json_object_get(key, "x5c");
    if (!all_strings(x5c)) {
        return diag_error(d, "missing or empty 'x5c' field found in keys for domain: '%s'", domain);
    }
    for (size_t i = 0; i < json_array_size(x5c); i++) {
        X509 *x = read_cert(json_array_get(x5c, i), domain, d);
        if (!x) {
            return false;
        }
        CHECK(sk_X509_push(certs, x));
    }
    return true;
}

static bool read_bundle(const char *domain, const json_t *bundle, struct tls_ca **out,
                        struct diag *d) {
    const json_t *keys = json_object_get(bundle, "keys");
    if (json_array_size(keys) == 0) {
        return diag_error(d, "No keys found in SPIFFE bundle for domain '%s'", domain);
    }
    STACK_OF(X509) *certs = sk_X509_new_null();
    CHECK(certs);
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(keys); i++) {
        ok = read_key(json_array_get(keys, i), domain, certs, d);
    }
    if (ok && !(*out = tls_ca_of_certs(certs))) {
        ERR_clear_error();
        ok = diag_error(d, "Failed to add x509 object while loading certs for domain '%s'", domain);
    }
    sk_X509_pop_free(certs, X509_free);
    return ok;
}

static bool read_map(struct tls_secret *s, struct tls_validation *v, json_t *domains,
                     struct diag *d) {
    size_t n = json_object_size(domains);
    if (n == 0) {
        return diag_error(d, "No trust domains found in SPIFFE bundle");
    }
    if (n > TLS_SPIFFE_DOMAINS_MAX) {
        return diag_error(d, "expected at most %u trust domains in a SPIFFE bundle, not %zu",
                          TLS_SPIFFE_DOMAINS_MAX, n);
    }
    v->domains = arena_new_array(&s->arena_, struct tls_trust_domain, n);
    const char *name;
    json_t *bundle;
    json_object_foreach(domains, name, bundle) {
        struct tls_trust_domain *out = &v->domains[v->domains_n];
        if (!read_bundle(name, bundle, &out->ca, d)) {
            return false;
        }
        out->name = arena_sv(&s->arena_, sv_cstr(name));
        v->domains_n++;
    }
    return true;
}

static bool compile_map(struct tls_secret *s, struct tls_validation *v, const Core__DataSource *src,
                        struct diag *d) {
    DIAG_FIELD(d, "trust_bundles");
    v->has_map_file = src->specifier_case == CORE__DATA_SOURCE__SPECIFIER_FILENAME;
    struct arena scratch;
    arena_init(&scratch, 0);
    struct tls_source bytes;
    bool ok = tls_source_read(s, &scratch, src, &bytes, d);
    if (ok) {
        json_error_t e;
        json_t *root = json_loadb(bytes.bytes.p, bytes.bytes.n, 0, &e);
        ok = root ? read_map(s, v, json_object_get(root, "trust_domains"), d)
                  : diag_error(d, "Invalid JSON found in SPIFFE bundle");
        json_decref(root);
    }
    arena_fini(&scratch);
    return ok;
}

bool tls_spiffe_compile(struct tls_secret *s, struct tls_validation *v, const void *any_msg,
                        struct diag *d) {
    struct arena scratch;
    arena_init(&scratch, 0);
    const Tls__SPIFFECertValidatorConfig *m =
        ANY_UNPACK_AS(Tls__SPIFFECertValidatorConfig, tls__spiffecert_validator_config__descriptor,
                      any_msg, SV("envoy.tls.cert_validator.spiffe"), &scratch, d);
    v->is_spiffe = m != NULL;
    /* as Envoy, the map comes before domains that are told, too */
    bool ok = m && (m->trust_bundles ? compile_map(s, v, m->trust_bundles, d)
                                     : compile_domains(s, v, m, d));
    arena_fini(&scratch);
    return ok;
}
