/* Addresses and CIDR ranges; longest-prefix lookup in a path-compressed binary trie.
 * Threads: values; a trie is built on the config thread and immutable afterwards. Spec:
 * core.v3.Address, CidrRange.
 * Not here: name resolution (upstream/dns.c), sockets (sock.c). */
#include "proxy/net/addr.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/un.h>

#define IP_TEXT_MAX 64 /* longest literal with a scope, and then some */

static size_t ip_bytes(uint16_t family) { return family == AF_INET ? 4 : 16; }

/* ---- parsing ---- */

static bool parse_scope(sv text, uint32_t *scope_id) {
    char name[IF_NAMESIZE];
    uint64_t number;
    if (text.n == 0 || text.n >= sizeof(name)) {
        return false;
    }
    if (sv_to_u64(text, &number)) {
        *scope_id = (uint32_t)number;
        return number <= UINT32_MAX;
    }
    memcpy(name, text.p, text.n);
    name[text.n] = '\0';
    *scope_id = if_nametoindex(name);
    return *scope_id != 0;
}

bool addr_parse_ip(sv ip, uint16_t port, struct addr *out) {
    char text[IP_TEXT_MAX];
    *out = (struct addr){.port = port};
    size_t percent = sv_find(ip, '%');
    sv literal = sv_sub(ip, 0, percent);
    if (literal.n == 0 || literal.n >= sizeof(text) || memchr(literal.p, '\0', literal.n)) {
        return false;
    }
    memcpy(text, literal.p, literal.n);
    text[literal.n] = '\0';
    if (percent == SIZE_MAX && inet_pton(AF_INET, text, out->ip) == 1) {
        out->family = AF_INET;
        return true;
    }
    if (inet_pton(AF_INET6, text, out->ip) != 1 ||
        (percent != SIZE_MAX && !parse_scope(sv_skip(ip, percent + 1), &out->scope_id))) {
        return false;
    }
    out->family = AF_INET6;
    return true;
}

bool addr_parse_ip_port(sv text, struct addr *out) {
    size_t colon = sv_rfind(text, ':');
    if (colon == SIZE_MAX) {
        return false;
    }
    sv ip = sv_sub(text, 0, colon);
    uint64_t port;
    if (!sv_to_u64(sv_skip(text, colon + 1), &port) || port > UINT16_MAX) {
        return false;
    }
    bool is_bracketed = ip.n >= 2 && ip.p[0] == '[' && ip.p[ip.n - 1] == ']';
    ip = is_bracketed ? sv_sub(ip, 1, ip.n - 2) : ip;
    return addr_parse_ip(ip, (uint16_t)port, out) && is_bracketed == (out->family == AF_INET6);
}

void addr_set_path(struct addr *a, const char *path) {
    *a = (struct addr){.family = AF_UNIX, .path = path};
}

/* ---- internal listeners ---- */

#define CLIENT "internal_client_address"
const struct addr addr_internal_client = {
    .family = ADDR_INTERNAL, .scope_id = sizeof(CLIENT) - 1, .path = CLIENT "/"};

bool addr_set_internal(struct addr *a, sv listener, sv endpoint_id, struct arena *ar) {
    if (listener.n + 1 + endpoint_id.n > ADDR_INTERNAL_MAX) {
        return false;
    }
    *a = (struct addr){.family = ADDR_INTERNAL,
                       .scope_id = (uint32_t)listener.n,
                       .path =
                           arena_printf(ar, "%.*s/%.*s", SV_ARG(listener), SV_ARG(endpoint_id)).p};
    return true;
}

sv addr_internal_listener(const struct addr *a) {
    return a->family == ADDR_INTERNAL ? sv_from(a->path, a->scope_id) : SV_NULL;
}

sv addr_endpoint_id(const struct addr *a) {
    return a->family == ADDR_INTERNAL ? sv_skip(sv_cstr(a->path), a->scope_id + 1) : SV_NULL;
}

struct addr addr_dup(const struct addr *a, struct arena *ar) {
    struct addr copy = *a;
    if (a->path) {
        copy.path = arena_cstr(ar, sv_cstr(a->path));
    }
    return copy;
}

/* ---- sockaddr ---- */

static void from_in6(struct addr *out, const struct sockaddr_in6 *in6) {
    out->port = ntohs(in6->sin6_port);
    /* A dual-stack socket's IPv4 peer is an IPv4 address everywhere else. */
    if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
        out->family = AF_INET;
        memcpy(out->ip, in6->sin6_addr.s6_addr + 12, 4);
        return;
    }
    out->family = AF_INET6;
    out->scope_id = in6->sin6_scope_id;
    memcpy(out->ip, &in6->sin6_addr, 16);
}

void addr_from_sockaddr(struct addr *out, const struct sockaddr *sa, socklen_t n) {
    *out = (struct addr){0};
    if (n < sizeof(sa->sa_family)) {
        return;
    }
    if (sa->sa_family == AF_INET && n >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        out->family = AF_INET;
        out->port = ntohs(in.sin_port);
        memcpy(out->ip, &in.sin_addr, 4);
    } else if (sa->sa_family == AF_INET6 && n >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        from_in6(out, &in6);
    } else if (sa->sa_family == AF_UNIX) {
        addr_set_path(out, "");
    }
}

static socklen_t to_un(const struct addr *a, struct sockaddr_storage *out) {
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t n = a->path ? strlen(a->path) : 0;
    if (n >= sizeof(un.sun_path)) {
        return 0;
    }
    bool is_abstract = n > 0 && a->path[0] == '@';
    if (n) {
        memcpy(un.sun_path, a->path, n);
        un.sun_path[0] = is_abstract ? '\0' : a->path[0];
    }
    memcpy(out, &un, sizeof(un));
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (n && !is_abstract));
}

socklen_t addr_to_sockaddr(const struct addr *a, struct sockaddr_storage *out) {
    memset(out, 0, sizeof(*out));
    if (a->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(a->port)};
        memcpy(&in.sin_addr, a->ip, 4);
        memcpy(out, &in, sizeof(in));
        return sizeof(in);
    }
    if (a->family == AF_INET6) {
        struct sockaddr_in6 in6 = {
            .sin6_family = AF_INET6, .sin6_port = htons(a->port), .sin6_scope_id = a->scope_id};
        memcpy(&in6.sin6_addr, a->ip, 16);
        memcpy(out, &in6, sizeof(in6));
        return sizeof(in6);
    }
    return a->family == AF_UNIX ? to_un(a, out) : 0;
}

/* ---- text ---- */

static size_t put(char out[ADDR_STR_MAX], size_t at, const char *text, size_t n) {
    n = n < ADDR_STR_MAX - 1 - at ? n : ADDR_STR_MAX - 1 - at;
    memcpy(out + at, text, n);
    out[at + n] = '\0';
    return at + n;
}

static size_t put_u32(char out[ADDR_STR_MAX], size_t at, uint32_t v) {
    char digits[10];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    return put(out, at, digits + i, sizeof(digits) - i);
}

static size_t put_v4(char out[ADDR_STR_MAX], const uint8_t ip[4]) {
    size_t n = 0;
    for (int i = 0; i < 4; i++) {
        n = i ? put(out, n, ".", 1) : n;
        n = put_u32(out, n, ip[i]);
    }
    return n;
}

size_t addr_ip_str(const struct addr *a, char out[ADDR_STR_MAX]) {
    out[0] = '\0';
    if (a->family == AF_INET) {
        return put_v4(out, a->ip);
    }
    if (a->family == AF_INET6) {
        char text[INET6_ADDRSTRLEN];
        inet_ntop(AF_INET6, a->ip, text, sizeof(text));
        size_t n = put(out, 0, text, strlen(text));
        return a->scope_id ? put_u32(out, put(out, n, "%", 1), a->scope_id) : n;
    }
    if (!a->path) {
        return 0;
    }
    size_t n = a->family == ADDR_INTERNAL ? put(out, 0, "envoy://", 8) : 0;
    return put(out, n, a->path, strlen(a->path));
}

size_t addr_str(const struct addr *a, char out[ADDR_STR_MAX]) {
    if (!addr_is_ip(a)) {
        return addr_ip_str(a, out);
    }
    char ip[ADDR_STR_MAX];
    size_t ip_n = addr_ip_str(a, ip), n = 0;
    n = a->family == AF_INET6 ? put(out, n, "[", 1) : n;
    n = put(out, n, ip, ip_n);
    n = put(out, n, "]:", a->family == AF_INET6 ? 2 : 0);
    n = a->family == AF_INET ? put(out, n, ":", 1) : n;
    return put_u32(out, n, a->port);
}

sv addr_arena_str(const struct addr *a, struct arena *ar) {
    char text[ADDR_STR_MAX];
    size_t n = addr_str(a, text);
    return arena_sv(ar, sv_from(text, n));
}

/* ---- comparing ---- */

bool addr_ip_eq(const struct addr *a, const struct addr *b) {
    return a->family == b->family && addr_is_ip(a) &&
           memcmp(a->ip, b->ip, ip_bytes(a->family)) == 0 && a->scope_id == b->scope_id;
}

bool addr_eq(const struct addr *a, const struct addr *b) {
    if (a->family != b->family) {
        return false;
    }
    if (addr_is_ip(a)) {
        return a->port == b->port && addr_ip_eq(a, b);
    }
    return a->scope_id == b->scope_id && sv_eq(sv_cstr(a->path), sv_cstr(b->path));
}

bool addr_is_any(const struct addr *a) {
    static const uint8_t zero[16];
    return addr_is_ip(a) && memcmp(a->ip, zero, ip_bytes(a->family)) == 0;
}

bool addr_is_loopback(const struct addr *a) {
    static const uint8_t v6_loopback[16] = {[15] = 1};
    return (a->family == AF_INET && a->ip[0] == 127) ||
           (a->family == AF_INET6 && memcmp(a->ip, v6_loopback, 16) == 0);
}

bool addr_is_internal(const struct addr *a) {
    if (a->family == AF_INET) {
        return a->ip[0] == 10 || (a->ip[0] == 172 && (a->ip[1] & 0xf0) == 16) ||
               (a->ip[0] == 192 && a->ip[1] == 168) || a->ip[0] == 127;
    }
    return a->family == AF_INET6 && (a->ip[0] == 0xfd || addr_is_loopback(a));
}

uint64_t addr_hash(const struct addr *a, bool with_port) {
    if (!addr_is_ip(a)) {
        return sv_hash(sv_cstr(a->path));
    }
    char key[20];
    size_t n = ip_bytes(a->family);
    memcpy(key, a->ip, n);
    memcpy(key + n, &a->port, sizeof(a->port));
    return sv_hash(sv_from(key, n + (with_port ? sizeof(a->port) : 0)));
}

/* ---- CIDR ---- */

static unsigned bit_at(const uint8_t *ip, unsigned i) { return (ip[i / 8] >> (7 - i % 8)) & 1u; }

static void mask(uint8_t ip[16], unsigned bits) {
    for (unsigned i = 0; i < 16; i++) {
        unsigned keep = bits > i * 8 ? bits - i * 8 : 0;
        ip[i] &= keep >= 8 ? 0xff : (uint8_t)(0xff00u >> keep);
    }
}

/* Length of the common prefix of a and b, at most `max` bits. */
static unsigned common_bits(const uint8_t *a, const uint8_t *b, unsigned max) {
    unsigned i = 0;
    while (i + 8 <= max && a[i / 8] == b[i / 8]) {
        i += 8;
    }
    while (i < max && bit_at(a, i) == bit_at(b, i)) {
        i++;
    }
    return i;
}

bool cidr_make(sv ip, uint32_t bits, struct cidr *out) {
    struct addr a;
    if (!addr_parse_ip(ip, 0, &a) || bits > ip_bytes(a.family) * 8) {
        return false;
    }
    *out = (struct cidr){.family = a.family, .bits = (uint8_t)bits};
    memcpy(out->ip, a.ip, sizeof(out->ip));
    mask(out->ip, bits);
    return true;
}

bool cidr_contains(const struct cidr *c, const struct addr *a) {
    return c->family == a->family && common_bits(c->ip, a->ip, c->bits) == c->bits;
}

struct node {
    struct node *child[2]; /* by the bit after this prefix */
    uint8_t ip[16];
    uint8_t bits;
    bool has_value;
    uint32_t value;
};
struct cidr_trie {
    struct arena *arena;
    struct node *root[2]; /* IPv4, IPv6 */
};

struct cidr_trie *cidr_trie_new(struct arena *a) {
    struct cidr_trie *t = arena_new(a, struct cidr_trie);
    t->arena = a;
    return t;
}

static struct node *node_new(struct cidr_trie *t, const uint8_t ip[16], unsigned bits) {
    struct node *n = arena_new(t->arena, struct node);
    memcpy(n->ip, ip, 16);
    mask(n->ip, bits);
    n->bits = (uint8_t)bits;
    return n;
}

void cidr_trie_add(struct cidr_trie *t, const struct cidr *c, uint32_t value) {
    struct node **at = &t->root[c->family == AF_INET6];
    for (struct node *n; (n = *at); at = &n->child[bit_at(c->ip, n->bits)]) {
        unsigned common = common_bits(n->ip, c->ip, n->bits < c->bits ? n->bits : c->bits);
        if (common < n->bits) { /* the new prefix parts from n inside n's own: a node above it */
            struct node *fork = node_new(t, c->ip, common);
            fork->child[bit_at(n->ip, common)] = n;
            *at = n = fork;
        }
        if (n->bits == c->bits) {
            n->has_value = true;
            n->value = value;
            return;
        }
    }
    *at = node_new(t, c->ip, c->bits);
    (*at)->has_value = true;
    (*at)->value = value;
}

bool cidr_trie_find(const struct cidr_trie *t, const struct addr *a, uint32_t *value,
                    uint8_t *bits) {
    if (!addr_is_ip(a)) {
        return false;
    }
    unsigned width = (unsigned)ip_bytes(a->family) * 8;
    const struct node *best = NULL;
    for (const struct node *n = t->root[a->family == AF_INET6]; n;) {
        if (common_bits(n->ip, a->ip, n->bits) < n->bits) {
            break;
        }
        best = n->has_value ? n : best;
        n = n->bits < width ? n->child[bit_at(a->ip, n->bits)] : NULL;
    }
    if (!best) {
        return false;
    }
    *value = best->value;
    if (bits) {
        *bits = best->bits;
    }
    return true;
}
