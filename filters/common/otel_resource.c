/* See the header. Refused: dynatrace, cel. */
#include "filters/common/otel_resource.h"

#include <stdlib.h>

#include "filters/common/collector.h"
#include "protos/any.h"
#include "protos/gen/otel_trace.pb-c.h"
#include "protos/gen/trace.pb-c.h"
#include "protos/gen/tracers_opentelemetry_resource_detectors.pb-c.h"
#include "protos/gen/tracers_opentelemetry_samplers.pb-c.h"
#include "proxy/api/matcher.h"
#include "proxy/base/log.h"
#include "proxy/base/version.h"

#define DETECTORS "envoy.extensions.tracers.opentelemetry.resource_detectors.v3."
#define SAMPLERS "envoy.extensions.tracers.opentelemetry.samplers.v3."
#define ATTRIBUTES_MAX 128u
#define SAMPLERS_DEPTH_MAX 8u

/* ---- resource ---- */

struct attributes {
    sv keys[ATTRIBUTES_MAX], values[ATTRIBUTES_MAX];
    unsigned n;
};

/* The later holds. */
static bool put(struct compile_ctx *ctx, struct attributes *at, sv key, sv value) {
    for (unsigned i = 0; i < at->n; i++) {
        if (sv_eq(at->keys[i], key)) {
            at->values[i] = value;
            return true;
        }
    }
    if (at->n == ATTRIBUTES_MAX) {
        return diag_error(ctx->diag, "more than %u resource attributes", ATTRIBUTES_MAX);
    }
    at->keys[at->n] = key;
    at->values[at->n++] = value;
    return true;
}

/* OTEL_RESOURCE_ATTRIBUTES is "k=v,k=v"; other pairs in it are passed over, as Envoy does. */
static bool detect_environment(struct compile_ctx *ctx, struct attributes *at) {
    sv rest = sv_cstr(getenv("OTEL_RESOURCE_ATTRIBUTES"));
    while (rest.n) {
        sv pair = sv_cut(&rest, ','), value = pair, key = sv_cut(&value, '=');
        if (!key.n || !value.n || sv_find(value, '=') != SIZE_MAX) {
            log_warn(LOG_tracing, "OTEL_RESOURCE_ATTRIBUTES: '%.*s' is no pair", SV_ARG(pair));
        } else if (!put(ctx, at, key, value)) {
            return false;
        }
    }
    return true;
}

static bool
detect_static(struct compile_ctx *ctx,
              const TracersOpentelemetryResourceDetectors__StaticConfigResourceDetectorConfig *m,
              struct attributes *at) {
    for (size_t i = 0; i < m->n_attributes; i++) {
        sv key = sv_cstr(m->attributes[i]->key), value = sv_cstr(m->attributes[i]->value);
        if (key.n && value.n && !put(ctx, at, key, value)) {
            return false;
        }
    }
    return true;
}

static bool refuse_type(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e) {
    return diag_error(ctx->diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%s'",
                      e->name, e->typed_config ? e->typed_config->type_url : "");
}

static bool detect(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e,
                   struct attributes *at) {
    const char *type = "";
    const void *msg = compile_any(ctx, sv_cstr(e->name), e->typed_config, NULL, &type);
    if (!msg) {
        return false;
    }
    if (sv_is(sv_cstr(type), DETECTORS "EnvironmentResourceDetectorConfig")) {
        return detect_environment(ctx, at);
    }
    if (sv_is(sv_cstr(type), DETECTORS "StaticConfigResourceDetectorConfig")) {
        return detect_static(
            ctx,
            (const TracersOpentelemetryResourceDetectors__StaticConfigResourceDetectorConfig *)msg,
            at);
    }
    return refuse_type(ctx, e);
}

static bool is_on(const Pb__BoolValue *v) { return !v || v->value; }

static OtelCommon__KeyValue *key_value(struct arena *a, sv key, sv value) {
    OtelCommon__AnyValue *v = arena_new(a, OtelCommon__AnyValue);
    otel_common__any_value__init(v);
    v->value_case = OTEL_COMMON__ANY_VALUE__VALUE_STRING_VALUE;
    v->string_value = collector_text(a, value);
    OtelCommon__KeyValue *kv = arena_new(a, OtelCommon__KeyValue);
    otel_common__key_value__init(kv);
    kv->key = collector_text(a, key);
    kv->value = v;
    return kv;
}

static sv pack_resource(struct compile_ctx *ctx, const struct attributes *at) {
    OtelResource__Resource resource = OTEL_RESOURCE__RESOURCE__INIT;
    resource.attributes = arena_new_array(ctx->scratch, OtelCommon__KeyValue *, at->n);
    for (unsigned i = 0; i < at->n; i++) {
        resource.attributes[resource.n_attributes++] =
            key_value(ctx->scratch, at->keys[i], at->values[i]);
    }
    OtelTrace__ResourceSpans group = OTEL_TRACE__RESOURCE_SPANS__INIT;
    group.resource = &resource;
    return proto_pack(&group.base, ctx->arena);
}

bool otel_resource_compile(struct compile_ctx *ctx, const void *msg, sv *resource, sv *scope) {
    const Trace__OpenTelemetryConfig *m = (const Trace__OpenTelemetryConfig *)msg;
    struct attributes *at = arena_new(ctx->scratch, struct attributes);
    if (is_on(m->set_telemetry_sdk_resource_attributes)) {
        put(ctx, at, SV("telemetry.sdk.language"), SV("c"));
        put(ctx, at, SV("telemetry.sdk.name"), SV("sluice"));
        put(ctx, at, SV("telemetry.sdk.version"), sv_cstr(version_string()));
    }
    if (is_on(m->set_service_name_resource_attribute)) {
        put(ctx, at, SV("service.name"),
            *m->service_name ? sv_cstr(m->service_name) : SV("unknown_service:envoy"));
    }
    bool ok = true;
    for (size_t i = 0; i < m->n_resource_detectors; i++) {
        DIAG_FIELD(ctx->diag, "resource_detectors[%zu]", i);
        ok &= detect(ctx, m->resource_detectors[i], at);
    }
    *resource = pack_resource(ctx, at);
    if (is_on(m->set_instrumentation_scope)) {
        OtelCommon__InstrumentationLibrary library = OTEL_COMMON__INSTRUMENTATION_LIBRARY__INIT;
        library.name = "sluice";
        library.version = version_string();
        OtelTrace__InstrumentationLibrarySpans spans =
            OTEL_TRACE__INSTRUMENTATION_LIBRARY_SPANS__INIT;
        spans.instrumentation_library = &library;
        *scope = proto_pack(&spans.base, ctx->arena);
    }
    return ok;
}

/* ---- samplers ---- */

struct otel_sampler {
    enum { SAMPLER_ALWAYS_ON, SAMPLER_PARENT, SAMPLER_RATIO } kind;
    const struct otel_sampler *wrapped; /* of PARENT */
    struct fraction fraction;           /* of RATIO */
};

static const struct otel_sampler *
compile_sampler(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e, unsigned depth) {
    const char *type = "";
    const void *msg = compile_any(ctx, sv_cstr(e->name), e->typed_config, NULL, &type);
    if (!msg) {
        return NULL;
    }
    struct otel_sampler *s = arena_new(ctx->arena, struct otel_sampler);
    if (sv_is(sv_cstr(type), SAMPLERS "AlwaysOnSamplerConfig")) {
        s->kind = SAMPLER_ALWAYS_ON;
        return s;
    }
    if (sv_is(sv_cstr(type), SAMPLERS "TraceIdRatioBasedSamplerConfig")) {
        DIAG_FIELD(ctx->diag, "sampling_percentage");
        s->kind = SAMPLER_RATIO;
        const TracersOpentelemetrySamplers__TraceIdRatioBasedSamplerConfig *m =
            (const TracersOpentelemetrySamplers__TraceIdRatioBasedSamplerConfig *)msg;
        return fraction_percent_compile(ctx, m->sampling_percentage, &s->fraction) ? s : NULL;
    }
    if (!sv_is(sv_cstr(type), SAMPLERS "ParentBasedSamplerConfig")) {
        refuse_type(ctx, e);
        return NULL;
    }
    const TracersOpentelemetrySamplers__ParentBasedSamplerConfig *m =
        (const TracersOpentelemetrySamplers__ParentBasedSamplerConfig *)msg;
    DIAG_FIELD(ctx->diag, "wrapped_sampler");
    if (!m->wrapped_sampler || depth == 0) {
        diag_error(ctx->diag, depth ? "value is required" : "nested too deep");
        return NULL;
    }
    s->kind = SAMPLER_PARENT;
    s->wrapped = compile_sampler(ctx, m->wrapped_sampler, depth - 1);
    return s->wrapped ? s : NULL;
}

const struct otel_sampler *otel_sampler_compile(struct compile_ctx *ctx, const void *msg) {
    DIAG_FIELD(ctx->diag, "sampler");
    return compile_sampler(ctx, (const Core__TypedExtensionConfig *)msg, SAMPLERS_DEPTH_MAX);
}

bool otel_sampler_holds(const struct otel_sampler *s, uint64_t trace_high,
                        const struct trace_context *parent) {
    while (s->kind == SAMPLER_PARENT) {
        if (parent) {
            return parent->is_sampled;
        }
        s = s->wrapped;
    }
    /* the id's first eight bytes as a little-endian number, as Envoy reads them */
    return s->kind == SAMPLER_ALWAYS_ON ||
           fraction_holds(&s->fraction, __builtin_bswap64(trace_high));
}
