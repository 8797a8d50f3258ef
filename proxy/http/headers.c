/* Header blocks: known names by hash, validation by table, lookups by id.
 * Threads: a block has one owner; the name table is built once by whoever comes first, then read
 * only.
 * Spec: RFC 9110 §5.1, §5.5, §5.6.2.
 * Not here: which headers a hop must drop (request/), what a codec refuses (h1_head.c, h2.c). */
#include "proxy/http/headers.h"

#include <pthread.h>
#include <stdlib.h>

#include "proxy/base/grpc_status.h"

static const sv names[HDR_COUNT] = {[HDR_OTHER] = SV_INIT(""),
#define X(id, name) [HDR_##id] = SV_INIT(name),
                                    HEADER_IDS(X)
#undef X
};

/* --- name to id --- */
#define TABLE_BITS 11u
#define TABLE_SIZE (1u << TABLE_BITS)
_Static_assert(HDR_COUNT < TABLE_SIZE / 3, "keep the name table sparse: raise TABLE_BITS");

static uint16_t table[TABLE_SIZE]; /* ids by hash, linear probing; 0 ends a probe */
static size_t name_max;
static bool table_ready; /* atomic */
static pthread_once_t table_once = PTHREAD_ONCE_INIT;

static inline uint32_t name_hash(const char *p, size_t n) {
    uint64_t a = 0;
    uint64_t b = 0;
    if (n >= 8) {
        memcpy(&a, p, 8);
        memcpy(&b, p + n - 8, 8);
    } else if (n >= 4) {
        memcpy(&a, p, 4);
        memcpy(&b, p + n - 4, 4);
    } else if (n) {
        a = (uint64_t)(unsigned char)p[0] << 16 | (uint64_t)(unsigned char)p[n / 2] << 8 |
            (unsigned char)p[n - 1];
    }
    uint64_t h = (a + n) * 0x9E3779B97F4A7C15ull ^ (b * 0xD6E8FEB86659FD93ull);
    return (uint32_t)((h ^ h >> 29) * 0xBF58476D1CE4E5B9ull >> (64 - TABLE_BITS));
}

static void table_build(void) {
    for (unsigned id = 1; id < HDR_COUNT; id++) {
        uint32_t i = name_hash(names[id].p, names[id].n);
        while (table[i]) {
            i = (i + 1) & (TABLE_SIZE - 1);
        }
        table[i] = (uint16_t)id;
        name_max = names[id].n > name_max ? names[id].n : name_max;
    }
    __atomic_store_n(&table_ready, true, __ATOMIC_RELEASE);
}

static inline enum header_id find_id(const char *p, size_t n) {
    if (UNLIKELY(!__atomic_load_n(&table_ready, __ATOMIC_ACQUIRE))) {
        CHECK(pthread_once(&table_once, table_build) == 0);
    }
    if (n > name_max) {
        return HDR_OTHER;
    }
    for (uint32_t i = name_hash(p, n); table[i]; i = (i + 1) & (TABLE_SIZE - 1)) {
        sv known = names[table[i]];
        if (known.n == n && memcmp(known.p, p, n) == 0) {
            return table[i];
        }
    }
    return HDR_OTHER;
}

enum header_id header_id_of(sv name) { return find_id(name.p, name.n); }

sv header_name(enum header_id id) {
    ASSERT(id < HDR_COUNT);
    return names[id];
}

/* --- validation --- */
#define A(c) [c] = (c)
#define U(c) [c] = (c) + 32
/* Token characters, mapped to lower case; 0: not a token character. */
static const unsigned char token_lower[256] = {
    A('!'), A('#'), A('$'), A('%'), A('&'), A('\''), A('*'), A('+'), A('-'), A('.'), A('^'),
    A('_'), A('`'), A('|'), A('~'), A('0'), A('1'),  A('2'), A('3'), A('4'), A('5'), A('6'),
    A('7'), A('8'), A('9'), A('a'), A('b'), A('c'),  A('d'), A('e'), A('f'), A('g'), A('h'),
    A('i'), A('j'), A('k'), A('l'), A('m'), A('n'),  A('o'), A('p'), A('q'), A('r'), A('s'),
    A('t'), A('u'), A('v'), A('w'), A('x'), A('y'),  A('z'), U('A'), U('B'), U('C'), U('D'),
    U('E'), U('F'), U('G'), U('H'), U('I'), U('J'),  U('K'), U('L'), U('M'), U('N'), U('O'),
    U('P'), U('Q'), U('R'), U('S'), U('T'), U('U'),  U('V'), U('W'), U('X'), U('Y'), U('Z'),
};
#undef A
#undef U

bool header_name_normalise(char *name, size_t n, enum header_id *id) {
    if (n == 0) {
        return false;
    }
    unsigned char bad = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = token_lower[(unsigned char)name[i]];
        bad |= c == 0;
        name[i] = (char)c;
    }
    if (UNLIKELY(bad)) {
        return false;
    }
    *id = find_id(name, n);
    return true;
}

size_t header_name_scan(char *p, size_t n, enum header_id *id) {
    size_t i = 0;
    unsigned char c;
    while (i < n && (c = token_lower[(unsigned char)p[i]])) {
        p[i++] = (char)c;
    }
    *id = find_id(p, i);
    return i;
}

bool header_name_valid(sv name) {
    unsigned char bad = name.n == 0;
    for (size_t i = 0; i < name.n; i++) {
        unsigned char c = token_lower[(unsigned char)name.p[i]];
        bad |= c == 0 || c != (unsigned char)name.p[i];
    }
    return !bad;
}

bool header_is_token(sv s) {
    unsigned char bad = s.n == 0;
    for (size_t i = 0; i < s.n; i++) {
        bad |= token_lower[(unsigned char)s.p[i]] == 0;
    }
    return !bad;
}

static inline bool value_byte_valid(unsigned char c) {
    return (c >= 0x20 && c != 0x7f) || c == '\t';
}

#define LANES(b) (0x0101010101010101ull * (b))
/* Nonzero when one of 8 bytes may be a control character; HTAB raises it too. */
static inline uint64_t suspicious(uint64_t x) {
    uint64_t below_space = (x - LANES(0x20)) & ~x;
    uint64_t del = x ^ LANES(0x7f);
    del = (del - LANES(0x01)) & ~del;
    return (below_space | del) & LANES(0x80);
}

bool header_value_valid(sv v) {
    size_t i = 0;
    for (; i + 8 <= v.n; i += 8) {
        uint64_t x;
        memcpy(&x, v.p + i, 8);
        if (LIKELY(!suspicious(x))) {
            continue;
        }
        for (size_t k = i; k < i + 8; k++) {
            if (!value_byte_valid((unsigned char)v.p[k])) {
                return false;
            }
        }
    }
    for (; i < v.n; i++) {
        if (!value_byte_valid((unsigned char)v.p[i])) {
            return false;
        }
    }
    return true;
}

/* --- blocks --- */
#define FIRST_CAP 24u

static struct header no_headers[1]; /* an empty block's array: iteration needs no NULL check */

void headers_init(struct headers *h, struct arena *a) {
    memset(h, 0, sizeof(*h));
    h->v = no_headers;
    h->arena = a;
}

static inline void mark_present(struct headers *h, unsigned id) {
    h->present_[id >> 6] |= 1ull << (id & 63);
}
static inline bool maybe_present(const struct headers *h, unsigned id) {
    return h->present_[id >> 6] >> (id & 63) & 1;
}

/* A larger array without the holes; the old one stays readable in the arena. */
static bool grow(struct headers *h) {
    unsigned live = h->n - h->removed;
    if (live >= HEADERS_MAX) {
        return false;
    }
    unsigned cap = h->cap ? h->cap * 2u : FIRST_CAP;
    cap = cap < HEADERS_MAX ? cap : HEADERS_MAX;
    struct header *v = arena_alloc(h->arena, cap * sizeof(*v));
    unsigned n = 0;
    HEADERS_FOREACH (it, h) {
        v[n++] = *it;
    }
    h->v = v;
    h->n = (uint16_t)n;
    h->cap = (uint16_t)cap;
    h->removed = 0;
    return true;
}

bool headers_add(struct headers *h, enum header_id id, sv name, sv value) {
    if (UNLIKELY(h->n == h->cap) && !grow(h)) {
        return false;
    }
    h->v[h->n++] = (struct header){.name = name, .value = value, .id = (uint16_t)id};
    h->bytes += (uint32_t)(name.n + value.n);
    mark_present(h, id);
    return true;
}

bool headers_add_id(struct headers *h, enum header_id id, sv value) {
    return headers_add(h, id, names[id], value);
}

bool headers_add_copy(struct headers *h, sv name, sv value) {
    enum header_id id = header_id_of(name);
    return headers_add(h, id, id ? names[id] : arena_sv(h->arena, name), arena_sv(h->arena, value));
}

struct header *headers_find(const struct headers *h, enum header_id id) {
    if (!maybe_present(h, id) || id == HDR_OTHER) {
        return NULL;
    }
    HEADERS_FOREACH (it, h) {
        if (it->id == id) {
            return it;
        }
    }
    return NULL;
}

static inline bool is_named(const struct header *it, enum header_id id, sv name) {
    return it->id == id && (id != HDR_OTHER || sv_eq(it->name, name));
}

struct header *headers_find_name(const struct headers *h, sv name) {
    enum header_id id = header_id_of(name);
    if (!maybe_present(h, id)) {
        return NULL;
    }
    HEADERS_FOREACH (it, h) {
        if (is_named(it, id, name)) {
            return it;
        }
    }
    return NULL;
}

sv headers_get(const struct headers *h, enum header_id id) {
    const struct header *it = headers_find(h, id);
    return it ? it->value : SV_NULL;
}

sv headers_get_name(const struct headers *h, sv name) {
    const struct header *it = headers_find_name(h, name);
    return it ? it->value : SV_NULL;
}

static void hole(struct headers *h, struct header *it) {
    h->bytes -= (uint32_t)(it->name.n + it->value.n);
    it->flags |= HEADER_REMOVED;
    h->removed++;
}

/* Give `first` the value and drop later headers of the same name. */
static void replace(struct headers *h, struct header *first, sv name, sv value) {
    h->bytes += (uint32_t)value.n - (uint32_t)first->value.n;
    first->value = value;
    for (struct header *it = first + 1; it < h->v + h->n; it++) {
        if (!(it->flags & HEADER_REMOVED) && is_named(it, first->id, name)) {
            hole(h, it);
        }
    }
}

bool headers_set(struct headers *h, enum header_id id, sv value) {
    struct header *first = headers_find(h, id);
    if (!first) {
        return headers_add_id(h, id, value);
    }
    replace(h, first, names[id], value);
    return true;
}

bool headers_set_name(struct headers *h, sv name, sv value) {
    struct header *first = headers_find_name(h, name);
    if (!first) {
        return headers_add_copy(h, name, value);
    }
    replace(h, first, first->name, arena_sv(h->arena, value));
    return true;
}

static sv join2(struct arena *a, sv x, sv y, sv between) {
    size_t n = x.n + between.n + y.n;
    char *p = arena_alloc(a, n + 1);
    memcpy(p, x.p, x.n);
    memcpy(p + x.n, between.p, between.n);
    memcpy(p + x.n + between.n, y.n ? y.p : "", y.n);
    p[n] = 0;
    return sv_from(p, n);
}

bool headers_append(struct headers *h, enum header_id id, sv value) {
    struct header *first = headers_find(h, id);
    if (!first) {
        return headers_add_id(h, id, value);
    }
    if (first->value.n == 0) {
        first->value = value;
        h->bytes += (uint32_t)value.n;
        return true;
    }
    size_t old = first->value.n;
    first->value = join2(h->arena, first->value, value, SV(", "));
    h->bytes += (uint32_t)(first->value.n - old);
    return true;
}

unsigned headers_remove(struct headers *h, enum header_id id) {
    if (!maybe_present(h, id) || id == HDR_OTHER) {
        return 0;
    }
    unsigned n = 0;
    HEADERS_FOREACH (it, h) {
        if (it->id == id) {
            hole(h, it);
            n++;
        }
    }
    h->present_[id >> 6] &= ~(1ull << (id & 63));
    return n;
}

unsigned headers_remove_name(struct headers *h, sv name) {
    enum header_id id = header_id_of(name);
    if (id != HDR_OTHER) {
        return headers_remove(h, id);
    }
    unsigned n = 0;
    HEADERS_FOREACH (it, h) {
        if (it->id == HDR_OTHER && sv_eq(it->name, name)) {
            hole(h, it);
            n++;
        }
    }
    return n;
}

unsigned headers_remove_prefix(struct headers *h, sv prefix) {
    unsigned n = 0;
    HEADERS_FOREACH (it, h) {
        if (sv_starts(it->name, prefix)) {
            hole(h, it);
            n++;
        }
    }
    return n;
}

sv headers_joined(const struct headers *h, enum header_id id, sv name, struct arena *a) {
    if (id == HDR_OTHER) {
        id = header_id_of(name);
    }
    if (!maybe_present(h, id)) {
        return SV_NULL;
    }
    size_t total = 0;
    unsigned count = 0;
    sv only = SV_NULL;
    HEADERS_FOREACH (it, h) {
        if (is_named(it, id, name)) {
            total += it->value.n + (count ? 1 : 0);
            only = it->value.p ? it->value : SV("");
            count++;
        }
    }
    if (count < 2) {
        return only;
    }
    char *out = arena_alloc(a, total + 1);
    size_t at = 0;
    bool first = true;
    HEADERS_FOREACH (it, h) {
        if (!is_named(it, id, name)) {
            continue;
        }
        if (!first) {
            out[at++] = ',';
        }
        first = false;
        memcpy(out + at, it->value.n ? it->value.p : "", it->value.n);
        at += it->value.n;
    }
    out[at] = 0;
    return sv_from(out, at);
}

unsigned headers_count(const struct headers *h) { return (unsigned)h->n - h->removed; }

void headers_copy(struct headers *dst, const struct headers *src) {
    HEADERS_FOREACH (it, src) {
        sv name = it->id ? names[it->id] : arena_sv(dst->arena, it->name);
        if (!headers_add(dst, it->id, name, arena_sv(dst->arena, it->value))) {
            return; /* src obeys the same limit: only when dst was not empty */
        }
        dst->v[dst->n - 1].flags = it->flags & HEADER_SENSITIVE;
    }
}

bool header_list_has(sv list, sv token) {
    while (list.n) {
        if (sv_eq_nocase(sv_trim(sv_cut(&list, ',')), token)) {
            return true;
        }
    }
    return false;
}

bool header_te_has_trailers(sv te) {
    while (te.n) {
        sv coding = sv_cut(&te, ',');
        if (sv_eq_nocase(sv_trim(sv_sub(coding, 0, sv_find(coding, ';'))), SV("trailers"))) {
            return true;
        }
    }
    return false;
}

bool headers_ask_upgrade(const struct headers *h) {
    return headers_has(h, HDR_upgrade) &&
           header_list_has(headers_get(h, HDR_connection), SV("upgrade"));
}

unsigned headers_status(const struct headers *h) {
    sv s = headers_get(h, HDR_status);
    if (s.n != 3 || !ascii_isdigit(s.p[0]) || !ascii_isdigit(s.p[1]) || !ascii_isdigit(s.p[2])) {
        return 0;
    }
    unsigned code =
        (unsigned)(s.p[0] - '0') * 100 + (unsigned)(s.p[1] - '0') * 10 + (unsigned)(s.p[2] - '0');
    return code >= 100 ? code : 0;
}

void headers_set_status(struct headers *h, unsigned code) {
    ASSERT(code >= 100 && code <= 999);
    if (code == 200) {
        headers_set(h, HDR_status, SV("200"));
        return;
    }
    char *p = arena_alloc(h->arena, 4);
    p[0] = (char)('0' + code / 100 % 10);
    p[1] = (char)('0' + code / 10 % 10);
    p[2] = (char)('0' + code % 10);
    p[3] = 0;
    headers_set(h, HDR_status, sv_from(p, 3));
}

bool headers_are_grpc(const struct headers *h) {
    sv type = headers_get(h, HDR_content_type), grpc = SV("application/grpc");
    return sv_starts(type, grpc) && (type.n == grpc.n || type.p[grpc.n] == '+');
}

unsigned headers_grpc_as_http(const struct headers *h, unsigned otherwise) {
    uint64_t status;
    sv v = headers_get(h, HDR_grpc_status);
    if (!v.n) {
        return otherwise;
    }
    return grpc_status_to_http(sv_to_u64(v, &status) ? status : UINT64_MAX);
}
