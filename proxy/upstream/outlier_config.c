/* cluster.v3.OutlierDetection → struct outlier_config. Threads: the config thread. */
#include "protos/gen/cluster.pb-c.h"
#include "proxy/upstream/outlier.h"

static uint32_t number(const Pb__UInt32Value *v, uint32_t dflt) { return v ? v->value : dflt; }

static uint32_t percent(struct compile_ctx *ctx, const char *field, const Pb__UInt32Value *v,
                        uint32_t dflt) {
    uint32_t pct = number(v, dflt);
    if (pct > 100) {
        diag_error(ctx->diag, "%s: value must be less than or equal to 100", field);
    }
    return pct;
}

static uint64_t duration(struct compile_ctx *ctx, const char *field, const Pb__Duration *v,
                         uint64_t dflt_ms, bool positive) {
    if (!v) {
        return dflt_ms;
    }
    if (v->seconds < 0 || v->seconds > INT32_MAX || v->nanos < 0 || v->nanos > 999999999 ||
        (positive && !v->seconds && !v->nanos)) {
        diag_error(ctx->diag, "%s: value must be %s", field,
                   positive ? "greater than 0s" : "a non-negative duration");
        return dflt_ms;
    }
    return (uint64_t)v->seconds * 1000 + (uint64_t)(v->nanos + 999999) / 1000000;
}

static void enforcement(struct compile_ctx *ctx, const Cluster__OutlierDetection *m,
                        struct outlier_config *c) {
    c->enforcing_consecutive_5xx =
        percent(ctx, "enforcing_consecutive_5xx", m->enforcing_consecutive_5xx, 100);
    c->enforcing_consecutive_gateway_failure = percent(ctx, "enforcing_consecutive_gateway_failure",
                                                       m->enforcing_consecutive_gateway_failure, 0);
    c->enforcing_consecutive_local_origin_failure =
        percent(ctx, "enforcing_consecutive_local_origin_failure",
                m->enforcing_consecutive_local_origin_failure, 100);
    c->enforcing_success_rate =
        percent(ctx, "enforcing_success_rate", m->enforcing_success_rate, 100);
    c->enforcing_local_origin_success_rate = percent(ctx, "enforcing_local_origin_success_rate",
                                                     m->enforcing_local_origin_success_rate, 100);
    c->enforcing_failure_percentage =
        percent(ctx, "enforcing_failure_percentage", m->enforcing_failure_percentage, 0);
    c->enforcing_failure_percentage_local_origin =
        percent(ctx, "enforcing_failure_percentage_local_origin",
                m->enforcing_failure_percentage_local_origin, 0);
}

const struct outlier_config *outlier_config_compile(struct compile_ctx *ctx, const void *msg) {
    const Cluster__OutlierDetection *m = msg;
    struct outlier_config *c = arena_new(ctx->arena, struct outlier_config);
    c->consecutive_5xx = number(m->consecutive_5xx, 5);
    c->consecutive_gateway_failure = number(m->consecutive_gateway_failure, 5);
    c->consecutive_local_origin_failure = number(m->consecutive_local_origin_failure, 5);
    c->interval_ms = duration(ctx, "interval", m->interval, 10000, true);
    c->base_ejection_time_ms =
        duration(ctx, "base_ejection_time", m->base_ejection_time, 30000, true);
    uint64_t max_ms = c->base_ejection_time_ms > 300000 ? c->base_ejection_time_ms : 300000;
    c->max_ejection_time_ms =
        duration(ctx, "max_ejection_time", m->max_ejection_time, max_ms, true);
    c->max_ejection_time_jitter_ms =
        duration(ctx, "max_ejection_time_jitter", m->max_ejection_time_jitter, 0, false);
    if (c->max_ejection_time_ms < c->base_ejection_time_ms) {
        diag_error(
            ctx->diag,
            "outlier detector's max_ejection_time cannot be smaller than base_ejection_time");
    }
    c->max_ejection_percent = percent(ctx, "max_ejection_percent", m->max_ejection_percent, 10);
    c->always_eject_one_host = m->always_eject_one_host && m->always_eject_one_host->value;
    c->split_external_local_origin_errors = m->split_external_local_origin_errors;
    c->uneject_on_health_check = !m->successful_active_health_check_uneject_host ||
                                 m->successful_active_health_check_uneject_host->value;
    enforcement(ctx, m, c);
    c->success_rate_minimum_hosts = number(m->success_rate_minimum_hosts, 5);
    c->success_rate_request_volume = number(m->success_rate_request_volume, 100);
    c->success_rate_stdev_factor = number(m->success_rate_stdev_factor, 1900);
    c->failure_percentage_threshold =
        percent(ctx, "failure_percentage_threshold", m->failure_percentage_threshold, 85);
    c->failure_percentage_minimum_hosts = number(m->failure_percentage_minimum_hosts, 5);
    c->failure_percentage_request_volume = number(m->failure_percentage_request_volume, 50);
    if (m->n_monitors) {
        diag_error(ctx->diag, "monitors: extension monitors are not supported");
    }
    if (m->detect_degraded_hosts && m->detect_degraded_hosts->value) {
        compile_unhonoured(ctx, "detect_degraded_hosts");
    }
    return c;
}
