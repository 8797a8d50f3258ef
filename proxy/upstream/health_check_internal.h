/* What the parts of the health checker ask of each other. Private to proxy/upstream.
 * Threads: the checker's loop. */
#ifndef SLUICE_UPSTREAM_HEALTH_CHECK_INTERNAL_H
#define SLUICE_UPSTREAM_HEALTH_CHECK_INTERNAL_H

#include "proxy/base/map.h"
#include "proxy/upstream/health_check.h"

struct health_conn;

struct health_checker {
    struct shared shared;
    const struct health_check_config *cfg; /* of `cluster` */
    const struct cluster_config *cluster;  /* valid until stopped */
    struct health_checker_env env;
    struct loop *loop; /* env's; outlives the checker */
    struct stats_scope *scope;
    struct stats_shard *stats;
    bool is_stopped;
    unsigned unchecked_n; /* sessions without a result */
    unsigned healthy_n, degraded_n;
    struct map sessions; /* host id → struct health_session */
};

/* Checking one host. */
struct health_session {
    struct health_checker *checker;
    struct host *host;               /* a ref */
    slot_t transport;                /* of its entry */
    struct timer timer;              /* to the next check; while one is under way: its timeout */
    struct health_conn *conn;        /* NULL: none is open */
    uint32_t healthy_n, unhealthy_n; /* results in a row */
    bool is_checking, is_first, is_counted_healthy;
};

enum health_failure { /* data.core.v3.HealthCheckFailureType */
                      HEALTH_FAILURE_ACTIVE,
                      HEALTH_FAILURE_PASSIVE,
                      HEALTH_FAILURE_NETWORK,
                      HEALTH_FAILURE_NETWORK_TIMEOUT,
};

/* health_check.c: the check under way ended. The session may be gone afterwards. */
void health_session_passed(struct health_session *s, bool is_degraded);
void health_session_failed(struct health_session *s, enum health_failure why, bool is_retriable,
                           unsigned http_status);

/* health_check_conn.c: begin a check, on the connection there is or a new one. May end the check
 * before it returns. */
void health_conn_check(struct health_session *s);
/* Close the session's connection, if any, with no result told. */
void health_conn_close(struct health_session *s);

/* health_check_event.c: lines of the event log. */
enum health_event {
    HEALTH_EVENT_EJECTED,
    HEALTH_EVENT_ADDED,
    HEALTH_EVENT_FAILED,
    HEALTH_EVENT_PASSED,
    HEALTH_EVENT_DEGRADED,
    HEALTH_EVENT_NO_LONGER_DEGRADED,
};
struct health_event_facts {
    enum health_event event;
    enum health_failure failure;
    bool is_first;
    unsigned http_status; /* 0: none */
};
void health_event_log(const struct health_session *s, const struct health_event_facts *f);

#endif
