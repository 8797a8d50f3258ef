/* External authorization: what the filter leaves in filter state for access logs and CEL.
 * Threads: worker-local; all memory is the stream's arena. Spec: ExtAuthz.emit_filter_state_stats,
 * ExtAuthz.shadow_mode, ShadowDecision. */
#include "filters/common/ext_authz.h"
#include "proxy/base/json.h"

#define STATE_NAME SV("envoy.filters.http.ext_authz")
#define SHADOW_NAME SV("envoy.filters.http.ext_authz.shadow")

static bool leave(struct http_filter *f, sv name, sv text, const struct kv_value *typed) {
    struct stream_info *si = http_stream_info(f);
    if (!si->filter_state) {
        si->filter_state = filter_state_new(si->arena, NULL);
    }
    return filter_state_set(si->filter_state, name, text, typed, true, FILTER_STATE_LOCAL);
}

bool ext_authz_tell_latency(struct http_filter *f, uint64_t us) {
    struct arena *a = http_stream_info(f)->arena;
    struct kv_value *typed = arena_new(a, struct kv_value);
    struct kv_value latency = kv_number((double)us);
    *typed = kv_empty_struct();
    kv_set(typed, a, SV("latency_us"), &latency);
    return leave(f, STATE_NAME, SV_NULL, typed);
}

static void write_header(struct json_writer *w, sv name, sv value) {
    json_obj(w);
    json_key(w, SV("key"));
    json_str(w, name);
    json_key(w, SV("value"));
    json_str(w, value);
    json_end(w);
}

bool ext_authz_tell_shadow(struct http_filter *f, enum ext_authz_verdict verdict, unsigned status,
                           const struct ext_authz_changes *headers) {
    static const char *const words[] = {
        [EXT_AUTHZ_OK] = "OK", [EXT_AUTHZ_DENIED] = "DENIED", [EXT_AUTHZ_ERROR] = "ERROR"};
    struct buf BUF_AUTO text;
    struct json_writer w;
    buf_init(&text);
    json_begin(&w, &text, 0);
    json_obj(&w);
    json_key(&w, SV("check_result"));
    json_str(&w, sv_cstr(words[verdict]));
    json_key(&w, SV("status_code"));
    json_u64(&w, status);
    if (headers && headers->n) {
        json_key(&w, SV("response_headers"));
        json_arr(&w);
        for (unsigned i = 0; i < headers->n; i++) {
            write_header(&w, headers->v[i].name, headers->v[i].value);
        }
        json_end(&w);
    }
    json_end(&w);
    sv json = arena_sv(http_arena(f), buf_pullup(&text, buf_len(&text)));
    return leave(f, SHADOW_NAME, json, NULL);
}
