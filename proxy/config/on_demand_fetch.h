/* A worker's question to the config thread about something it lacks: see api/on_demand.h.
 * Threads: made and freed by its worker; between the question and the answer it is the config
 * thread's. */
#ifndef SLUICE_CONFIG_ON_DEMAND_FETCH_H
#define SLUICE_CONFIG_ON_DEMAND_FETCH_H

#include "proxy/event/loop.h"
#include "proxy/upstream/dns_cache.h"

struct on_demand_fetch {
    struct loop_msg msg; /* to the config thread, and back */
    struct on_demand_want want;
    struct loop *reply_to;
    bool is_found; /* the answer; a snapshot that has it was published before */
    /* the config thread's */
    struct list node;
    void *config, *target;
    struct dns_query query;
    struct dns_result dns; /* the answer about a DNS host; then the worker's */
    /* the worker's */
    struct list waits;
    sv key;
};

/* The config side (xds/store_demand.c): takes the fetch until it is answered on reply_to by
 * on_demand_answered(). Any thread. */
struct on_demand_source {
    void (*request)(void *config, struct on_demand_fetch *f);
    void *config;
};
/* server/on_demand.c: give f back to its worker. The config thread. */
void on_demand_answer(struct on_demand_fetch *f, bool is_found);

#endif
