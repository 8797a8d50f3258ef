/* Writing PROXY headers: see proxy_header.h. Threads: any.
 * Not here: who sends them (proxy_protocol.c), reading (filters/listener/proxy_protocol.c). */
#include "proxy/net/proxy_header.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>

#define V2_VERSION 0x20
#define V2_LOCAL 0
#define V2_PROXY 1
#define V2_UNSPEC 0x00
#define V2_TCP4 0x11
#define V2_TCP6 0x21
#define V2_BODY_MAX 65535u

static bool is_ip(const struct addr *a) { return a->family == AF_INET || a->family == AF_INET6; }

/* The address as one of `family`: IPv4 may be mapped into IPv6. */
static struct addr as_family(const struct addr *a, int family) {
    if (a->family == family) {
        return *a;
    }
    struct addr mapped = {.family = AF_INET6, .port = a->port};
    mapped.ip[10] = mapped.ip[11] = 0xff;
    memcpy(mapped.ip + 12, a->ip, 4);
    return mapped;
}

/* Both ends in one family. AF_UNSPEC: they have none in common. */
static int common_family(const struct addr *source, const struct addr *destination) {
    if (!is_ip(source) || !is_ip(destination)) {
        return AF_UNSPEC;
    }
    return source->family == AF_INET && destination->family == AF_INET ? AF_INET : AF_INET6;
}

void proxy_header_v1(struct buf *out, const struct addr *source, const struct addr *destination) {
    int family = common_family(source, destination);
    if (family == AF_UNSPEC) {
        buf_lit(out, "PROXY UNKNOWN\r\n");
        return;
    }
    struct addr from = as_family(source, family), to = as_family(destination, family);
    char from_text[ADDR_STR_MAX], to_text[ADDR_STR_MAX];
    size_t from_n = addr_ip_str(&from, from_text), to_n = addr_ip_str(&to, to_text);
    buf_printf(out, "PROXY TCP%c %.*s %.*s %u %u\r\n", family == AF_INET ? '4' : '6', (int)from_n,
               from_text, (int)to_n, to_text, from.port, to.port);
}

static void append_be16(struct buf *out, unsigned v) {
    uint16_t wire = htons((uint16_t)v);
    buf_append(out, &wire, sizeof(wire));
}

static void append_head(struct buf *out, unsigned command, unsigned family, size_t body) {
    const char bytes[] = {(char)(V2_VERSION | command), (char)family};
    buf_append_sv(out, SV("\r\n\r\n\0\r\nQUIT\n"));
    buf_append(out, bytes, sizeof(bytes));
    append_be16(out, (unsigned)body);
}

bool proxy_header_v2(struct buf *out, const struct addr *source, const struct addr *destination,
                     sv tlvs) {
    int family = common_family(source, destination);
    size_t ip = family == AF_INET ? 4 : 16;
    size_t addresses = family == AF_UNSPEC ? 0 : 2 * ip + 4;
    if (addresses + tlvs.n > V2_BODY_MAX) {
        return false;
    }
    unsigned code = family == AF_INET ? V2_TCP4 : family == AF_INET6 ? V2_TCP6 : V2_UNSPEC;
    append_head(out, V2_PROXY, code, addresses + tlvs.n);
    if (addresses) {
        struct addr from = as_family(source, family), to = as_family(destination, family);
        buf_append(out, from.ip, ip);
        buf_append(out, to.ip, ip);
        append_be16(out, from.port);
        append_be16(out, to.port);
    }
    buf_append_sv(out, tlvs);
    return true;
}

void proxy_header_v2_local(struct buf *out) { append_head(out, V2_LOCAL, V2_UNSPEC, 0); }
