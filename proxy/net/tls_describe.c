/* What /certs and the expiry gauges tell about a factory.
 * Threads: any; factories are immutable. Spec: envoy.admin.v3.Certificate. */
#include <time.h>

#include "proxy/net/tls.h"
#include "proxy/net/tls_context.h"
#include "proxy/net/tls_x509.h"

#define DAY_S 86400

static void write_time(struct json_writer *w, const char *key, int64_t t_s) {
    struct tm tm;
    char text[64];
    time_t t = (time_t)t_s;
    if (!gmtime_r(&t, &tm)) {
        return;
    }
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    json_key(w, sv_cstr(key));
    json_str(w, sv_from(text, n));
}

static uint64_t days_to(int64_t until_s, int64_t now_s) {
    return until_s > now_s ? (uint64_t)(until_s - now_s) / DAY_S : 0;
}

static uint64_t days_left(const X509 *x, int64_t now_s) {
    int64_t until_s;
    return tls_x509_not_after(x, &until_s) ? days_to(until_s, now_s) : 0;
}

static void write_sans(struct json_writer *w, const X509 *x, struct arena *a) {
    static const struct {
        int type;
        const char *key;
    } kinds[] = {{GEN_DNS, "dns"}, {GEN_URI, "uri"}, {GEN_IPADD, "ip_address"}};
    json_key(w, SV("subject_alt_names"));
    json_arr(w);
    for (unsigned k = 0; k < ARRAY_LEN(kinds); k++) {
        const sv *v;
        unsigned n = tls_x509_sans(x, kinds[k].type, a, &v);
        for (unsigned i = 0; i < n; i++) {
            json_obj(w);
            json_key(w, sv_cstr(kinds[k].key));
            json_str(w, v[i]);
            json_end(w);
        }
    }
    json_end(w);
}

static void write_cert(struct json_writer *w, const X509 *x, sv path, const struct tls_cert *cert,
                       int64_t now_s) {
    struct arena a;
    arena_init(&a, 0);
    int64_t t;
    json_obj(w);
    json_key(w, SV("path"));
    json_str(w, path);
    json_key(w, SV("serial_number"));
    json_str(w, tls_x509_serial(x, &a));
    write_sans(w, x, &a);
    json_key(w, SV("days_until_expiration"));
    json_u64_str(w, days_left(x, now_s));
    if (tls_x509_not_before(x, &t)) {
        write_time(w, "valid_from", t);
    }
    if (tls_x509_not_after(x, &t)) {
        write_time(w, "expiration_time", t);
    }
    if (cert && cert->stapled) {
        json_key(w, SV("ocsp_details"));
        json_obj(w);
        write_time(w, "valid_from", cert->ocsp_this_update_s);
        write_time(w, "expiration", cert->ocsp_next_update_s);
        json_end(w);
    }
    json_end(w);
    arena_fini(&a);
}

/* All trusted certificates, domain by domain. */
struct cas {
    const struct tls_policy *policy;
    unsigned domain;
    size_t at;
};

static const X509 *next_ca(struct cas *it, sv *path) {
    const struct tls_policy *p = it->policy;
    unsigned domains = p->spiffe ? p->spiffe->domains_n : p->ca != NULL;
    for (; it->domain < domains; it->domain++, it->at = 0) {
        const struct tls_ca *ca = p->spiffe ? p->spiffe->domains[it->domain].ca : p->ca;
        if (it->at < sk_X509_num(ca->certs)) {
            *path = p->spiffe ? p->spiffe->domains[it->domain].name : p->ca_path;
            return sk_X509_value(ca->certs, it->at++);
        }
    }
    return NULL;
}

bool tls_factory_describe_certs(const struct transport_factory *factory, int64_t now_s,
                                struct json_writer *w) {
    if (!tls_factory_is_tls(factory)) {
        return false;
    }
    const struct tls_factory *f = tls_factory_of(factory);
    json_obj(w);
    json_key(w, SV("ca_cert"));
    json_arr(w);
    struct cas it = {&f->policy, 0, 0};
    sv path;
    const X509 *ca;
    while ((ca = next_ca(&it, &path)) != NULL) {
        write_cert(w, ca, path, NULL, now_s);
    }
    json_end(w);
    json_key(w, SV("cert_chain"));
    json_arr(w);
    for (unsigned i = 0; i < f->certs_n; i++) {
        write_cert(w, f->certs[i]->leaf, f->cert_secrets[i]->cert_path, f->certs[i], now_s);
    }
    json_end(w);
    json_end(w);
    return true;
}

uint32_t tls_factory_days_until_expiry(const struct transport_factory *factory, int64_t now_s) {
    if (!tls_factory_is_tls(factory)) {
        return UINT32_MAX;
    }
    const struct tls_factory *f = tls_factory_of(factory);
    const struct tls_policy *p = &f->policy;
    int64_t first_s = p->ca ? p->ca->not_after_s : INT64_MAX;
    for (unsigned i = 0; p->spiffe && i < p->spiffe->domains_n; i++) {
        int64_t until_s = p->spiffe->domains[i].ca->not_after_s;
        first_s = until_s < first_s ? until_s : first_s;
    }
    for (unsigned i = 0; i < f->certs_n; i++) {
        first_s = f->certs[i]->not_after_s < first_s ? f->certs[i]->not_after_s : first_s;
    }
    return first_s == INT64_MAX ? UINT32_MAX : (uint32_t)days_to(first_s, now_s);
}

uint64_t tls_factory_ocsp_seconds(const struct transport_factory *factory, int64_t now_s) {
    uint64_t least = UINT64_MAX;
    if (!tls_factory_is_tls(factory)) {
        return least;
    }
    const struct tls_factory *f = tls_factory_of(factory);
    for (unsigned i = 0; i < f->certs_n; i++) {
        int64_t until = f->certs[i]->stapled ? f->certs[i]->ocsp_next_update_s : INT64_MAX;
        uint64_t left = until > now_s ? (uint64_t)(until - now_s) : 0;
        if (f->certs[i]->stapled && left < least) {
            least = left;
        }
    }
    return least;
}
