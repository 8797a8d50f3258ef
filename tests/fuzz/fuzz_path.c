/* Paths: any setting. A result is in normal form and never climbs above the root.
 * Input: one byte of settings, the rest is the path. */
#include "proxy/http/path.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_result(sv p, bool merge, struct arena *a) {
    sv again = p;
    enum path_result r = path_normalise(&again, true, merge, ESCAPED_SLASHES_KEEP, a);
    CHECK(r == PATH_OK || r == PATH_REJECT);
    sv part = path_without_query(p);
    CHECK(!sv_contains(part, SV("/../")) && !sv_ends(part, SV("/..")));
    CHECK(!sv_contains(part, SV("/./")) && !sv_ends(part, SV("/.")));
    CHECK(part.n && part.p[0] == '/');
}

static void others(sv text, struct arena *a) {
    uint16_t port;
    sv bare = host_without_port(text);
    CHECK(bare.n <= text.n);
    (void)host_port(text, &port);
    (void)authority_valid(text);
    (void)query_get(path_query(text), SV("a"));
    sv coded = percent_encode(text, " %", a);
    CHECK(sv_eq(percent_decode(coded, a), text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    struct arena a;
    arena_init(&a, 0);
    sv p = sv_from(data + 1, n - 1);
    others(p, &a);
    bool normalise = data[0] & 1;
    bool merge = data[0] & 2;
    enum path_result r =
        path_normalise(&p, normalise, merge, (enum escaped_slashes)(data[0] >> 2 & 3), &a);
    bool is_path = n > 1 && data[1] == '/';
    if (normalise && is_path && r != PATH_REJECT) {
        check_result(p, merge, &a);
    }
    arena_fini(&a);
    return 0;
}
