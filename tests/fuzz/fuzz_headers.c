/* Small parsers of header text: names, values, lists, content codings, queries. Each holds what its
 * header promises, whatever the bytes.
 * Input: the text. */
#include "filters/common/accept_encoding.h"
#include "filters/common/query_params.h"
#include "proxy/base/buf.h"
#include "proxy/base/mem.h"
#include "proxy/http/headers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bool has_control(sv text) {
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return true;
        }
    }
    return false;
}

static void check_name(sv text) {
    char *name = xmemdup(text.p, text.n), *scanned = xmemdup(text.p, text.n);
    enum header_id id = HDR_OTHER, scanned_id = HDR_OTHER;
    bool is_token = header_is_token(text);
    bool is_name = header_name_normalise(name, text.n, &id);
    size_t leading = header_name_scan(scanned, text.n, &scanned_id);
    CHECK(is_name == is_token);
    CHECK(leading <= text.n && (!is_name || leading == text.n));
    if (is_name) {
        CHECK(header_name_valid(sv_from(name, text.n)));
        CHECK(id == scanned_id && id == header_id_of(sv_from(name, text.n)));
        CHECK(memcmp(name, scanned, text.n) == 0);
    }
    CHECK(!header_name_valid(text) || is_token);
    xfree(name);
    xfree(scanned);
}

static void check_lists(sv text) {
    (void)header_te_has_trailers(text);
    CHECK(!header_list_has(text, SV("close")) || text.n >= 5);
    struct encoding_offers offers = {.n = 0};
    encoding_offer(&offers, SV("gzip"), false);
    encoding_offer(&offers, SV("br"), true);
    struct encoding_choice choice = encoding_choose(text, &offers);
    CHECK(choice.encoding.n == 0 || sv_is(choice.encoding, "gzip") || sv_is(choice.encoding, "br"));
}

static void check_query(sv text) {
    struct arena a;
    struct query_params q, again;
    arena_init(&a, 0);
    query_params_parse(&q, text, &a);
    sv path = query_params_path(&q, text);
    query_params_parse(&again, path, &a);
    CHECK(q.n == again.n);
    for (unsigned i = 0; i < q.n; i++) {
        CHECK(sv_eq(q.v[i].name, again.v[i].name) && sv_eq(q.v[i].value, again.v[i].value));
    }
    query_params_remove(&q, SV("a"));
    CHECK(!query_params_has(&q, SV("a")));
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n == 0) {
        return 0;
    }
    char *exact = xmemdup(data, n); /* so that any read past it is seen */
    sv text = sv_from(exact, n);
    CHECK(header_value_valid(text) == !has_control(text));
    check_name(text);
    check_lists(text);
    check_query(text);
    xfree(exact);
    chunk_cache_trim();
    return 0;
}
