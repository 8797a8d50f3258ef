/* Outlier detection's event log: see outlier_event.h. */
#include "proxy/upstream/outlier_event.h"

#include "protos/gen/data_cluster.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/observe/log_sink.h"
#include "proxy/upstream/host_message.h"

static struct log_sink *sink; /* set before any detector runs, cleared after the last */

bool outlier_event_log_open(sv path, struct diag *d) {
    sink = log_sink_get(path, d);
    return sink != NULL;
}

void outlier_event_log_close(void) {
    if (sink) {
        log_sink_unref(sink);
        sink = NULL;
    }
}

/* The messages an event may hold. */
struct parts {
    DataCluster__OutlierEjectSuccessRate rate;
    DataCluster__OutlierEjectFailurePercentage failures;
    DataCluster__OutlierEjectConsecutive consecutive;
};

static uint32_t whole(double pct) { return pct > 0 ? (uint32_t)pct : 0; }

static void fill_judgement(DataCluster__OutlierDetectionEvent *m, struct parts *p,
                           const struct outlier_event *e) {
    switch (e->type) {
    case DATA_CLUSTER__OUTLIER_EJECTION_TYPE__SUCCESS_RATE:
    case DATA_CLUSTER__OUTLIER_EJECTION_TYPE__SUCCESS_RATE_LOCAL_ORIGIN:
        data_cluster__outlier_eject_success_rate__init(&p->rate);
        p->rate.host_success_rate = whole(e->rate);
        p->rate.cluster_average_success_rate = whole(e->average);
        p->rate.cluster_success_rate_ejection_threshold = whole(e->threshold);
        m->event_case = DATA_CLUSTER__OUTLIER_DETECTION_EVENT__EVENT_EJECT_SUCCESS_RATE_EVENT;
        m->eject_success_rate_event = &p->rate;
        return;
    case DATA_CLUSTER__OUTLIER_EJECTION_TYPE__FAILURE_PERCENTAGE:
    case DATA_CLUSTER__OUTLIER_EJECTION_TYPE__FAILURE_PERCENTAGE_LOCAL_ORIGIN:
        data_cluster__outlier_eject_failure_percentage__init(&p->failures);
        p->failures.host_success_rate = whole(e->rate);
        m->event_case = DATA_CLUSTER__OUTLIER_DETECTION_EVENT__EVENT_EJECT_FAILURE_PERCENTAGE_EVENT;
        m->eject_failure_percentage_event = &p->failures;
        return;
    default:
        data_cluster__outlier_eject_consecutive__init(&p->consecutive);
        m->event_case = DATA_CLUSTER__OUTLIER_DETECTION_EVENT__EVENT_EJECT_CONSECUTIVE_EVENT;
        m->eject_consecutive_event = &p->consecutive;
    }
}

void outlier_event_log(struct loop *l, const struct outlier_event *e) {
    if (!sink || !l) {
        return;
    }
    struct arena a;
    arena_init(&a, 0);
    struct parts parts;
    Pb__UInt64Value since = PB__UINT64_VALUE__INIT;
    DataCluster__OutlierDetectionEvent m = DATA_CLUSTER__OUTLIER_DETECTION_EVENT__INIT;
    m.type = (DataCluster__OutlierEjectionType)e->type;
    m.timestamp = host_timestamp_message(loop_wall_us(l, loop_now_us(l)), &a);
    since.value = e->since_last_s;
    m.secs_since_last_action = e->has_last ? &since : NULL;
    m.cluster_name = arena_cstr(&a, e->cluster);
    m.upstream_url = arena_cstr(&a, e->host->address_text);
    m.action = e->is_return ? DATA_CLUSTER__ACTION__UNEJECT : DATA_CLUSTER__ACTION__EJECT;
    m.num_ejections = e->ejections;
    m.enforced = e->is_enforced;
    if (!e->is_return) {
        fill_judgement(&m, &parts, e);
    }
    struct buf BUF_AUTO line;
    buf_init(&line);
    pb_json_append(&line, &m.base, PB_JSON_DEFAULTS, 0);
    buf_append_static(&line, SV("\n"));
    log_sink_append(sink, l->thread_index, &line);
    arena_fini(&a);
}
