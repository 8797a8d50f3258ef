/* The event log of health checks: one JSON object a line.
 * Threads: the checker's loop; the file is written by the log's own thread. Spec:
 * data.core.v3.HealthCheckEvent. */
#include "protos/gen/data_core.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/observe/log_sink.h"
#include "proxy/upstream/health_check_internal.h"
#include "proxy/upstream/host_message.h"

static DataCore__HealthCheckerType checker_type(enum health_check_kind k) {
    switch (k) {
    case HEALTH_CHECK_HTTP:
        return DATA_CORE__HEALTH_CHECKER_TYPE__HTTP;
    case HEALTH_CHECK_TCP:
        return DATA_CORE__HEALTH_CHECKER_TYPE__TCP;
    case HEALTH_CHECK_GRPC:
        break;
    }
    return DATA_CORE__HEALTH_CHECKER_TYPE__GRPC;
}

static DataCore__HealthCheckFailureType failure_type(enum health_failure f) {
    switch (f) {
    case HEALTH_FAILURE_ACTIVE:
        return DATA_CORE__HEALTH_CHECK_FAILURE_TYPE__ACTIVE;
    case HEALTH_FAILURE_PASSIVE:
        return DATA_CORE__HEALTH_CHECK_FAILURE_TYPE__PASSIVE;
    case HEALTH_FAILURE_NETWORK:
        return DATA_CORE__HEALTH_CHECK_FAILURE_TYPE__NETWORK;
    case HEALTH_FAILURE_NETWORK_TIMEOUT:
        break;
    }
    return DATA_CORE__HEALTH_CHECK_FAILURE_TYPE__NETWORK_TIMEOUT;
}

/* The messages an event may hold. */
struct parts {
    DataCore__HealthCheckEjectUnhealthy ejected;
    DataCore__HealthCheckAddHealthy added;
    DataCore__HealthCheckFailure failed;
    DataCore__HealthCheckSuccessful passed;
    DataCore__DegradedHealthyHost degraded;
    DataCore__NoLongerDegradedHost no_longer;
};

static void fill_event(DataCore__HealthCheckEvent *m, struct parts *p,
                       const struct health_event_facts *f) {
    switch (f->event) {
    case HEALTH_EVENT_EJECTED:
        data_core__health_check_eject_unhealthy__init(&p->ejected);
        p->ejected.failure_type = failure_type(f->failure);
        p->ejected.http_status_code = f->http_status;
        m->event_case = DATA_CORE__HEALTH_CHECK_EVENT__EVENT_EJECT_UNHEALTHY_EVENT;
        m->eject_unhealthy_event = &p->ejected;
        return;
    case HEALTH_EVENT_ADDED:
        data_core__health_check_add_healthy__init(&p->added);
        p->added.first_check = f->is_first;
        m->event_case = DATA_CORE__HEALTH_CHECK_EVENT__EVENT_ADD_HEALTHY_EVENT;
        m->add_healthy_event = &p->added;
        return;
    case HEALTH_EVENT_FAILED:
        data_core__health_check_failure__init(&p->failed);
        p->failed.failure_type = failure_type(f->failure);
        p->failed.first_check = f->is_first;
        p->failed.http_status_code = f->http_status;
        m->event_case = DATA_CORE__HEALTH_CHECK_EVENT__EVENT_HEALTH_CHECK_FAILURE_EVENT;
        m->health_check_failure_event = &p->failed;
        return;
    case HEALTH_EVENT_PASSED:
        data_core__health_check_successful__init(&p->passed);
        m->event_case = DATA_CORE__HEALTH_CHECK_EVENT__EVENT_SUCCESSFUL_HEALTH_CHECK_EVENT;
        m->successful_health_check_event = &p->passed;
        return;
    case HEALTH_EVENT_DEGRADED:
        data_core__degraded_healthy_host__init(&p->degraded);
        m->event_case = DATA_CORE__HEALTH_CHECK_EVENT__EVENT_DEGRADED_HEALTHY_HOST;
        m->degraded_healthy_host = &p->degraded;
        return;
    case HEALTH_EVENT_NO_LONGER_DEGRADED:
        data_core__no_longer_degraded_host__init(&p->no_longer);
        m->event_case = DATA_CORE__HEALTH_CHECK_EVENT__EVENT_NO_LONGER_DEGRADED_HOST;
        m->no_longer_degraded_host = &p->no_longer;
    }
}

void health_event_log(const struct health_session *s, const struct health_event_facts *f) {
    const struct health_checker *checker = s->checker;
    struct loop *l = checker->loop;
    struct arena a;
    arena_init(&a, 0);
    struct parts parts;
    DataCore__HealthCheckEvent m = DATA_CORE__HEALTH_CHECK_EVENT__INIT;
    m.health_checker_type = checker_type(checker->cfg->kind);
    m.host = host_address_message(&s->host->addr, &a);
    m.cluster_name = arena_cstr(&a, checker->cluster->name);
    m.timestamp = host_timestamp_message(loop_wall_us(l, loop_now_us(l)), &a);
    m.locality = host_locality_message(s->host->locality, &a);
    m.metadata = host_metadata_message(s->host->metadata, &a);
    fill_event(&m, &parts, f);
    struct buf BUF_AUTO line;
    buf_init(&line);
    pb_json_append(&line, &m.base, PB_JSON_DEFAULTS, 0);
    buf_append_static(&line, SV("\n"));
    log_sink_append(checker->cfg->log, l->thread_index, &line);
    arena_fini(&a);
}
