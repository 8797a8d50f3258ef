/* A conn without a socket, for codec tests: bytes sent lie in out_, read_disable is counted,
 * closing is noted. It defines conn.c's functions that codecs call, so include it once in a
 * program, and link nothing else of conn.c. */
#ifndef SLUICE_TESTS_FAKE_CONN_H
#define SLUICE_TESTS_FAKE_CONN_H

#include "proxy/net/conn.h"

static void (*fake_conn_above)(struct conn *c);
static void (*fake_conn_below)(struct conn *c);
static unsigned fake_conn_closes;

static void fake_conn_init(struct conn *c, struct loop *l) {
    memset(c, 0, sizeof(*c));
    c->magic = CONN_MAGIC;
    c->state = CONN_OPEN;
    c->loop = l;
    buf_init(&c->in_);
    buf_init(&c->out_);
    fake_conn_above = fake_conn_below = NULL;
    fake_conn_closes = 0;
}

UNUSED static void fake_conn_fini(struct conn *c) {
    buf_fini(&c->in_);
    buf_fini(&c->out_);
}

void conn_flush_later(struct conn *c) {
    if (!c->above_high_ && c->buffer_limit_bytes && buf_len(&c->out_) > c->buffer_limit_bytes) {
        c->above_high_ = true;
        if (fake_conn_above) {
            fake_conn_above(c);
        }
    }
}

/* The peer read n bytes. */
UNUSED static void fake_conn_drain(struct conn *c, size_t n) {
    buf_drain(&c->out_, n);
    if (c->above_high_ && buf_len(&c->out_) <= c->buffer_limit_bytes / 2) {
        c->above_high_ = false;
        if (fake_conn_below) {
            fake_conn_below(c);
        }
    }
}

void conn_read_disable(struct conn *c, bool disable) {
    CHECK(disable || c->read_disable_ > 0);
    c->read_disable_ = (uint16_t)(disable ? c->read_disable_ + 1 : c->read_disable_ - 1);
}

void conn_close(struct conn *c, enum conn_close_type how, const char *reason) {
    (void)how;
    c->close_reason = reason;
    c->state = CONN_CLOSED;
    fake_conn_closes++;
}

#endif
