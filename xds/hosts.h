/* Between store_hosts.c, store_dns.c and store_health.c: the discovered endpoints of one version of
 * a cluster. Config thread. */
#ifndef SLUICE_XDS_HOSTS_H
#define SLUICE_XDS_HOSTS_H

#include "proxy/event/timer.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/dns_cache.h"
#include "xds/dial.h"
#include "xds/store.h"

struct dns_name;
struct cluster_hosts {
    struct entry *entry;
    struct cluster_hosts *next; /* of the version that waits while this one serves; NULL: none */
    struct resource *resource;  /* one ref */
    const struct cluster_config *cfg;
    struct host_set *set;              /* one ref */
    bool is_ready;                     /* first discovery is over, one way or the other */
    bool is_removal_due;               /* a host that was kept for its good health has lost it */
    struct cluster_dns *dns;           /* names of a DNS cluster; NULL: it has none */
    struct outlier_detector *detector; /* of cfg; NULL: no outlier detection */
    struct health_checker *checker;    /* of cfg; NULL: none, or not begun yet */
    struct dns_cache_user dns_user;    /* listed while cfg has a DNS cache */
    struct list due_node;              /* in store.hosts_due */
    struct loop_task health_task;      /* hosts' health changed: their lists are due */
};
/* What is looked up for a cluster. */
struct cluster_dns {
    struct cluster_hosts *hosts;
    struct dns_name **names; /* one for each different name */
    unsigned names_n;
    struct dns_resolver *resolver; /* one ref while names are looked up */
    struct timer wait;             /* of a new cluster: how long it waits for all its names */
};
struct dns_name {
    struct cluster_hosts *hosts;
    sv name;            /* of the cluster's config */
    struct addr *addrs; /* last good answer */
    unsigned addrs_n;
    bool is_answered;          /* once: with addresses or not */
    unsigned failures;         /* in a row */
    struct dns_lookup *lookup; /* under way; NULL */
    struct timer refresh;
};
/* NULL: it is not looked up. */
const struct dns_name *store_dns_find(const struct cluster_hosts *h, sv name);
void store_dns_start(struct cluster_hosts *h);
void store_dns_stop(struct cluster_hosts *h);
void store_hosts_changed(struct cluster_hosts *h); /* answers came */
void store_hosts_refresh(struct cluster_hosts *h);
/* The gauges of the cluster's endpoints, which are those of the version that serves. */
void store_hosts_count(const struct cluster_hosts *h);
/* Endpoints of the version that serves, or will as there is no other: not of one that waits. */
static inline bool store_hosts_serve(const struct cluster_hosts *h) { return h->entry->hosts == h; }
void store_health_init(struct cluster_hosts *h);
/* The version goes: no detection, no checks. */
void store_health_stop(struct cluster_hosts *h);
/* It serves, or will as there is no other: outlier detection of h->resource, which is not shared
 * yet, begins. Checks begin earlier or later: when all else is there. */
void store_health_start(struct cluster_hosts *h);
/* The cluster has new endpoints. */
void store_health_set_hosts(struct cluster_hosts *h);

#endif
