/* Reads OCSP responses as far as stapling needs it: status, serial number, validity.
 * Threads: any. Spec: RFC 6960 section 4.2.1. Not here: signatures, extensions, revocation
 * decisions. */
#include "proxy/net/tls_ocsp.h"

#include <openssl/bytestring.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/posix_time.h>

static const uint8_t oid_basic[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01};

/* "20260102030405Z" */
static bool generalized_time(CBS *in, int64_t *out) {
    CBS text;
    if (!CBS_get_asn1(in, &text, CBS_ASN1_GENERALIZEDTIME) || CBS_len(&text) != 15 ||
        CBS_data(&text)[14] != 'Z') {
        return false;
    }
    int v[7];
    const uint8_t *p = CBS_data(&text);
    for (unsigned i = 0; i < 7; i++) {
        if (!ascii_isdigit((char)p[2 * i]) || !ascii_isdigit((char)p[2 * i + 1])) {
            return false;
        }
        v[i] = (p[2 * i] - '0') * 10 + (p[2 * i + 1] - '0');
    }
    struct tm tm = {.tm_year = v[0] * 100 + v[1] - 1900,
                    .tm_mon = v[2] - 1,
                    .tm_mday = v[3],
                    .tm_hour = v[4],
                    .tm_min = v[5],
                    .tm_sec = v[6]};
    return OPENSSL_tm_to_posix(&tm, out);
}

/* SingleResponse: certID, certStatus, thisUpdate, [0] nextUpdate, [1] extensions. */
static const char *single_response(CBS *in, struct tls_ocsp *out) {
    CBS single, id, serial, next;
    int has_next = 0;
    if (!CBS_get_asn1(in, &single, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&single, &id, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&id, NULL, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&id, NULL, CBS_ASN1_OCTETSTRING) ||
        !CBS_get_asn1(&id, NULL, CBS_ASN1_OCTETSTRING) ||
        !CBS_get_asn1(&id, &serial, CBS_ASN1_INTEGER)) {
        return "malformed certificate id";
    }
    if (!CBS_get_any_asn1(&single, NULL, NULL) || !generalized_time(&single, &out->this_update_s)) {
        return "malformed status or time";
    }
    if (!CBS_get_optional_asn1(&single, &next, &has_next,
                               CBS_ASN1_CONSTRUCTED | CBS_ASN1_CONTEXT_SPECIFIC | 0) ||
        (has_next && !generalized_time(&next, &out->next_update_s))) {
        return "malformed next update";
    }
    out->serial = sv_from(CBS_data(&serial), CBS_len(&serial));
    return NULL;
}

/* BasicOCSPResponse: tbsResponseData is all that is read. */
static const char *basic_response(CBS *in, struct tls_ocsp *out) {
    CBS basic, data, responses;
    unsigned tag;
    if (!CBS_get_asn1(in, &basic, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&basic, &data, CBS_ASN1_SEQUENCE) ||
        !CBS_get_optional_asn1(&data, NULL, NULL,
                               CBS_ASN1_CONSTRUCTED | CBS_ASN1_CONTEXT_SPECIFIC | 0) ||
        !CBS_get_any_asn1(&data, NULL, &tag) ||
        !CBS_get_asn1(&data, NULL, CBS_ASN1_GENERALIZEDTIME) ||
        !CBS_get_asn1(&data, &responses, CBS_ASN1_SEQUENCE)) {
        return "malformed response data";
    }
    const char *err = single_response(&responses, out);
    if (!err && CBS_len(&responses) != 0) {
        return "OCSP Response must be for one certificate only";
    }
    return err;
}

const char *tls_ocsp_parse(sv der, struct tls_ocsp *out) {
    CBS in, response, status, bytes_wrap, bytes, oid, octets;
    *out = (struct tls_ocsp){.serial = SV_NULL};
    CBS_init(&in, (const uint8_t *)der.p, der.n);
    if (!CBS_get_asn1(&in, &response, CBS_ASN1_SEQUENCE) || CBS_len(&in) != 0 ||
        !CBS_get_asn1(&response, &status, CBS_ASN1_ENUMERATED) || CBS_len(&status) != 1) {
        return "not an OCSP response";
    }
    if (CBS_data(&status)[0] != 0) {
        return "OCSP response was unsuccessful";
    }
    if (!CBS_get_asn1(&response, &bytes_wrap,
                      CBS_ASN1_CONSTRUCTED | CBS_ASN1_CONTEXT_SPECIFIC | 0) ||
        !CBS_get_asn1(&bytes_wrap, &bytes, CBS_ASN1_SEQUENCE) ||
        !CBS_get_asn1(&bytes, &oid, CBS_ASN1_OBJECT) ||
        !CBS_get_asn1(&bytes, &octets, CBS_ASN1_OCTETSTRING)) {
        return "OCSP response has no body";
    }
    if (!CBS_mem_equal(&oid, oid_basic, sizeof oid_basic)) {
        return "Unknown OCSP Response type";
    }
    return basic_response(&octets, out);
}

bool tls_ocsp_is_for(const struct tls_ocsp *o, const X509 *x) {
    uint8_t *der = NULL;
    int n = i2d_ASN1_INTEGER(X509_get0_serialNumber(x), &der);
    if (n < 0) {
        ERR_clear_error();
        return false;
    }
    CBS in, content;
    CBS_init(&in, der, (size_t)n);
    bool same = CBS_get_asn1(&in, &content, CBS_ASN1_INTEGER) &&
                sv_eq(o->serial, sv_from(CBS_data(&content), CBS_len(&content)));
    OPENSSL_free(der);
    return same;
}
