/* Facts of X.509 certificates as text, the way Envoy prints them.
 * Threads: any. Spec: RFC 5280, RFC 2253, RFC 6125 section 6.4.3.
 * Not here: which certificate to trust (tls_verify.c), what a connection keeps (tls_info.c). */
#include "proxy/net/tls_x509.h"

#include <pthread.h>

#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/obj.h>
#include <openssl/pem.h>

#include "proxy/base/buf.h"
#include "proxy/net/addr.h"

#define OID_TEXT_MAX 256

static pthread_once_t pool_once = PTHREAD_ONCE_INIT;
static CRYPTO_BUFFER_POOL *pool;

static void pool_make(void) {
    pool = CRYPTO_BUFFER_POOL_new();
    CHECK(pool);
}

CRYPTO_BUFFER_POOL *tls_x509_pool(void) {
    pthread_once(&pool_once, pool_make);
    return pool;
}

X509 *tls_x509_from_buffer(CRYPTO_BUFFER *der) {
    X509 *x = X509_parse_from_buffer(der);
    if (!x) {
        ERR_clear_error();
    }
    return x;
}

/* What a memory BIO holds, copied; frees the BIO. */
static sv bio_text(BIO *bio, struct arena *a) {
    const uint8_t *p = NULL;
    size_t n = 0;
    sv out = SV_NULL;
    if (BIO_mem_contents(bio, &p, &n)) {
        out = arena_sv(a, sv_from(p, n));
    }
    BIO_free(bio);
    return out;
}

static sv name_text(const X509_NAME *name, struct arena *a) {
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(bio);
    if (X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) < 0) {
        ERR_clear_error();
    }
    return bio_text(bio, a);
}

sv tls_x509_subject(const X509 *x, struct arena *a) {
    return name_text(X509_get_subject_name(x), a);
}

sv tls_x509_issuer(const X509 *x, struct arena *a) { return name_text(X509_get_issuer_name(x), a); }

/* An INTEGER or ENUMERATED, in hex or decimal. */
static sv integer_text(BIGNUM *bn, bool hex, struct arena *a) {
    if (!bn) {
        ERR_clear_error();
        return SV_NULL;
    }
    char *text = hex ? BN_bn2hex(bn) : BN_bn2dec(bn);
    sv out = text ? arena_sv(a, sv_cstr(text)) : SV_NULL;
    OPENSSL_free(text);
    BN_free(bn);
    return out;
}

sv tls_x509_serial(const X509 *x, struct arena *a) {
    return integer_text(ASN1_INTEGER_to_BN(X509_get0_serialNumber(x), NULL), true, a);
}

static sv digest_hex(const X509 *x, const EVP_MD *md, struct arena *a) {
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (!X509_digest(x, md, raw, &n)) {
        ERR_clear_error();
        return SV_NULL;
    }
    char *hex = arena_alloc(a, 2 * (size_t)n + 1);
    for (unsigned i = 0; i < n; i++) {
        hex[2 * i] = digits[raw[i] >> 4];
        hex[2 * i + 1] = digits[raw[i] & 15];
    }
    hex[2 * n] = '\0';
    return sv_from(hex, 2 * (size_t)n);
}

sv tls_x509_sha1_hex(const X509 *x, struct arena *a) { return digest_hex(x, EVP_sha1(), a); }

sv tls_x509_sha256_hex(const X509 *x, struct arena *a) { return digest_hex(x, EVP_sha256(), a); }

sv tls_x509_pem(const X509 *x, struct arena *a) {
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(bio);
    X509 *shared = (X509 *)(uintptr_t)x; /* the PEM writer takes it without const and only reads */
    if (!PEM_write_bio_X509(bio, shared)) {
        ERR_clear_error();
    }
    return bio_text(bio, a);
}

/* An ASN.1 string as UTF-8 in the arena; SV_NULL when it cannot be converted or is empty. */
static sv asn1_utf8(const ASN1_STRING *s, struct arena *a) {
    unsigned char *text = NULL;
    int n = ASN1_STRING_to_UTF8(&text, s);
    if (n < 0) {
        ERR_clear_error();
    }
    sv out = n > 0 ? arena_sv(a, sv_from(text, (size_t)n)) : SV_NULL;
    OPENSSL_free(text);
    return out;
}

sv tls_x509_common_name(const X509 *x, struct arena *a) {
    const X509_NAME *name = X509_get_subject_name(x);
    int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
    if (at < 0) {
        return SV_NULL;
    }
    return asn1_utf8(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)), a);
}

static bool is_unreserved(char c) {
    return ascii_isalnum(c) || c == '-' || c == '_' || c == '.' || c == '~';
}

sv tls_x509_url_encode(sv text, struct arena *a) {
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        n += is_unreserved(text.p[i]) ? 1 : 3;
    }
    char *out = arena_alloc(a, n + 1);
    char *w = out;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (is_unreserved((char)c)) {
            *w++ = (char)c;
            continue;
        }
        *w++ = '%';
        *w++ = digits[c >> 4];
        *w++ = digits[c & 15];
    }
    *w = '\0';
    return sv_from(out, n);
}

static bool time_unix(const ASN1_TIME *t, int64_t *out) {
    if (ASN1_TIME_to_posix(t, out)) {
        return true;
    }
    ERR_clear_error();
    return false;
}

bool tls_x509_not_before(const X509 *x, int64_t *out) {
    return time_unix(X509_get0_notBefore(x), out);
}

bool tls_x509_not_after(const X509 *x, int64_t *out) {
    return time_unix(X509_get0_notAfter(x), out);
}

unsigned tls_x509_extension_oids(const X509 *x, struct arena *a, const sv **out) {
    int count = X509_get_ext_count(x);
    sv *v = arena_new_array(a, sv, count > 0 ? (size_t)count : 0);
    unsigned n = 0;
    for (int i = 0; i < count; i++) {
        char oid[OID_TEXT_MAX];
        int len = OBJ_obj2txt(oid, sizeof oid, X509_EXTENSION_get_object(X509_get_ext(x, i)), 1);
        if (len > 0 && len < OID_TEXT_MAX) {
            v[n++] = arena_sv(a, sv_from(oid, (size_t)len));
        }
    }
    *out = v;
    return n;
}

bool tls_x509_is_must_staple(const X509 *x) {
    static const char status_request[] = "\x30\x03\x02\x01\x05"; /* SEQUENCE { INTEGER 5 } */
    ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.5.5.7.1.24", 1);
    CHECK(oid);
    int at = X509_get_ext_by_OBJ(x, oid, -1);
    ASN1_OBJECT_free(oid);
    if (at < 0) {
        return false;
    }
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(X509_get_ext(x, at));
    return sv_eq(sv_from(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value)),
                 sv_from(status_request, sizeof status_request - 1));
}

int tls_x509_key_type(const X509 *x, int *curve_nid) {
    *curve_nid = NID_undef;
    EVP_PKEY *key = X509_get_pubkey(x);
    if (!key) {
        ERR_clear_error();
        return EVP_PKEY_NONE;
    }
    int type = EVP_PKEY_id(key);
    const EC_KEY *ec = type == EVP_PKEY_EC ? EVP_PKEY_get0_EC_KEY(key) : NULL;
    if (ec && EC_KEY_get0_group(ec)) {
        *curve_nid = EC_GROUP_get_curve_name(EC_KEY_get0_group(ec));
    }
    EVP_PKEY_free(key);
    return type;
}

/* The bytes of an ASN.1 string as they are. */
static sv asn1_raw(const ASN1_STRING *s, struct arena *a) {
    int n = ASN1_STRING_length(s);
    return n > 0 ? arena_sv(a, sv_from(ASN1_STRING_get0_data(s), (size_t)n)) : SV_NULL;
}

static sv object_text(const ASN1_OBJECT *o, struct arena *a) {
    char oid[OID_TEXT_MAX];
    int n = OBJ_obj2txt(oid, sizeof oid, o, 1);
    return n > 0 && n < OID_TEXT_MAX ? arena_sv(a, sv_from(oid, (size_t)n)) : SV_NULL;
}

static sv other_name_text(const ASN1_TYPE *value, struct arena *a) {
    switch (value->type) {
    case V_ASN1_BOOLEAN:
        return value->value.boolean ? SV("true") : SV("false");
    case V_ASN1_ENUMERATED:
        return integer_text(ASN1_ENUMERATED_to_BN(value->value.enumerated, NULL), false, a);
    case V_ASN1_INTEGER:
        return integer_text(ASN1_INTEGER_to_BN(value->value.integer, NULL), false, a);
    case V_ASN1_OBJECT:
        return object_text(value->value.object, a);
    case V_ASN1_BMPSTRING:
    case V_ASN1_UNIVERSALSTRING:
        return asn1_utf8(value->value.asn1_string, a);
    case V_ASN1_BIT_STRING:
    case V_ASN1_OCTET_STRING:
    case V_ASN1_PRINTABLESTRING:
    case V_ASN1_T61STRING:
    case V_ASN1_IA5STRING:
    case V_ASN1_GENERALSTRING:
    case V_ASN1_UTCTIME:
    case V_ASN1_GENERALIZEDTIME:
    case V_ASN1_VISIBLESTRING:
    case V_ASN1_UTF8STRING:
    case V_ASN1_SET:
    case V_ASN1_SEQUENCE:
        return asn1_raw(value->value.asn1_string, a);
    default: /* the peer's choice of type */
        return SV_NULL;
    }
}

static sv ip_text(const ASN1_OCTET_STRING *ip, struct arena *a) {
    struct addr addr = {.family = AF_UNSPEC};
    int n = ASN1_STRING_length(ip);
    if (n != 4 && n != 16) {
        return SV_NULL;
    }
    addr.family = n == 4 ? AF_INET : AF_INET6;
    memcpy(addr.ip, ASN1_STRING_get0_data(ip), (size_t)n);
    char text[ADDR_STR_MAX];
    size_t len = addr_ip_str(&addr, text);
    return arena_sv(a, sv_from(text, len));
}

sv tls_x509_general_name(const GENERAL_NAME *name, struct arena *a) {
    switch (name->type) {
    case GEN_DNS:
    case GEN_URI:
    case GEN_EMAIL:
        return asn1_raw(name->d.ia5, a);
    case GEN_IPADD:
        return ip_text(name->d.iPAddress, a);
    case GEN_OTHERNAME:
        return name->d.otherName->value ? other_name_text(name->d.otherName->value, a) : SV_NULL;
    default: /* the peer's choice of type */
        return SV_NULL;
    }
}

/* Names of `type`, or of every type when it is negative. */
static unsigned sans_of(const X509 *x, int type, struct arena *a, const sv **out) {
    *out = NULL;
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);
    if (!names) {
        ERR_clear_error();
        return 0;
    }
    size_t count = sk_GENERAL_NAME_num(names);
    count = count < TLS_X509_SANS_MAX ? count : TLS_X509_SANS_MAX;
    sv *v = arena_new_array(a, sv, count);
    unsigned n = 0;
    for (size_t i = 0; i < count; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (type < 0 || name->type == type) {
            v[n++] = tls_x509_general_name(name, a);
        }
    }
    GENERAL_NAMES_free(names);
    *out = v;
    return n;
}

unsigned tls_x509_sans(const X509 *x, int type, struct arena *a, const sv **out) {
    return sans_of(x, type, a, out);
}

sv tls_x509_sans_text(const X509 *x, struct arena *a) {
    const sv *v;
    unsigned n = sans_of(x, -1, a, &v);
    struct buf b;
    buf_init(&b);
    for (unsigned i = 0; i < n; i++) {
        buf_append_sv(&b, i ? SV(", ") : SV_NULL);
        buf_append_sv(&b, v[i]);
    }
    sv out = SV_NULL;
    if (!buf_empty(&b)) {
        out = arena_sv(a, buf_pullup(&b, buf_len(&b)));
    }
    buf_fini(&b);
    return out;
}

/* Left-most label against a pattern label that holds exactly one '*'. */
static bool label_match(sv label, sv pattern) {
    size_t star = sv_find(pattern, '*');
    if (star == SIZE_MAX || star != sv_rfind(pattern, '*')) {
        return false;
    }
    return label.n + 1 >= pattern.n && sv_starts_nocase(label, sv_sub(pattern, 0, star)) &&
           sv_ends_nocase(label, sv_skip(pattern, star + 1));
}

bool tls_x509_dns_match(sv name, sv pattern) {
    if (sv_eq_nocase(name, pattern)) {
        return true;
    }
    size_t name_dot = sv_find(name, '.');
    size_t pattern_dot = sv_find(pattern, '.');
    if (name_dot == SIZE_MAX || pattern_dot == SIZE_MAX) {
        return false;
    }
    sv label = sv_sub(pattern, 0, pattern_dot);
    sv rest = sv_skip(pattern, pattern_dot);
    if (sv_find(rest, '*') != SIZE_MAX || sv_starts_nocase(label, SV("xn--"))) {
        return false;
    }
    return sv_eq_nocase(sv_skip(name, name_dot), rest) &&
           label_match(sv_sub(name, 0, name_dot), label);
}
