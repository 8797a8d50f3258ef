/* A DNS server of our own on loopback, on the loop of the test. Include it in one test source. */
#ifndef SLUICE_TESTS_SUPPORT_DNS_PEER_H
#define SLUICE_TESTS_SUPPORT_DNS_PEER_H

#include <arpa/inet.h>

#include "proxy/event/loop.h"
#include "proxy/upstream/dns.h"
#include "tests/support/unit.h"

#define TYPE_A 1
#define TYPE_AAAA 28

/* ---- the server: name → records; "silent." is not answered, "fail." is SERVFAIL, others are
 * NXDOMAIN ---- */

static const struct record {
    const char *name;
    unsigned type, ttl;
    const char *value;
} records[] = {{"both.test", TYPE_A, 30, "10.1.0.1"},   {"both.test", TYPE_A, 20, "10.1.0.2"},
               {"both.test", TYPE_AAAA, 40, "fd00::1"}, {"four.test", TYPE_A, 5, "10.4.0.1"},
               {"six.test", TYPE_AAAA, 6, "fd00::6"},   {"brief.test", TYPE_A, 0, "10.9.0.1"}};

struct server {
    struct io io;
    int fd;
    uint16_t port;
    unsigned queries;
    uint16_t types[32];
};

static size_t read_name(const unsigned char *q, size_t n, char *out, size_t out_n) {
    size_t at = 12, k = 0;
    while (at < n && q[at]) {
        unsigned len = q[at++];
        assert_true(at + len < n && k + len + 2 < out_n);
        if (k) {
            out[k++] = '.';
        }
        memcpy(out + k, q + at, len);
        k += len;
        at += len;
    }
    out[k] = 0;
    return at + 1;
}

static size_t put_record(unsigned char *p, const struct record *r) {
    static const unsigned char head[] = {0xc0, 12, 0};
    memcpy(p, head, 3);
    p[3] = (unsigned char)r->type;
    p[4] = 0;
    p[5] = 1;
    p[6] = p[7] = p[8] = 0;
    p[9] = (unsigned char)r->ttl;
    p[10] = 0;
    p[11] = r->type == TYPE_A ? 4 : 16;
    assert_int_equal(inet_pton(r->type == TYPE_A ? AF_INET : AF_INET6, r->value, p + 12), 1);
    return 12u + p[11];
}

static void on_query(struct io *io, int events, int status) {
    (void)events, (void)status;
    struct server *s = CONTAINER_OF(io, struct server, io);
    unsigned char q[1500], a[1500];
    struct sockaddr_storage from;
    socklen_t from_n = sizeof(from);
    ssize_t n = recvfrom(s->fd, q, sizeof(q), 0, (struct sockaddr *)&from, &from_n);
    if (n < 17) {
        return;
    }
    char name[256];
    size_t at = read_name(q, (size_t)n, name, sizeof(name));
    unsigned type = (unsigned)q[at] << 8 | q[at + 1];
    s->types[s->queries++ % ARRAY_LEN(s->types)] = (uint16_t)type;
    if (strcmp(name, "silent.test") == 0) {
        return;
    }
    size_t len = at + 4;
    memcpy(a, q, len);
    bool exists = false;
    unsigned answers = 0;
    for (size_t i = 0; i < ARRAY_LEN(records); i++) {
        if (strcmp(name, records[i].name) == 0) {
            exists = true;
            if (records[i].type == type) {
                len += put_record(a + len, &records[i]);
                answers++;
            }
        }
    }
    a[2] = 0x81;
    a[3] = (unsigned char)(0x80 | (strcmp(name, "fail.test") == 0 ? 2 : exists ? 0 : 3));
    memset(a + 6, 0, 6);
    a[7] = (unsigned char)answers;
    sendto(s->fd, a, len, 0, (struct sockaddr *)&from, from_n);
}

static inline void server_open(struct server *s, struct loop *l) {
    s->fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(sin);
    assert_int_equal(bind(s->fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    assert_int_equal(getsockname(s->fd, (struct sockaddr *)&sin, &len), 0);
    s->port = ntohs(sin.sin_port);
    assert_int_equal(io_open(&s->io, l, s->fd, on_query), 0);
    io_want(&s->io, IO_READ);
}

static inline void server_close(struct server *s) { io_close(&s->io, s->fd, NULL); }

#endif
