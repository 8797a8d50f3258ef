/* HTTP protocol options → struct codec_options.
 * Threads: config thread. Spec: core.v3.Http1ProtocolOptions, Http2ProtocolOptions,
 * HttpProtocolOptions. Field ranges are checked by the validate rules before; here is what they
 * cannot say. */
#include "proxy/http/codec_options.h"

#include "proxy/base/regex.h"
#include "proxy/http/path.h"

static bool bool_or(const Pb__BoolValue *v, bool dflt) { return v ? v->value : dflt; }

static void set_u32(const Pb__UInt32Value *v, uint32_t *out) {
    if (v) {
        *out = v->value;
    }
}

/* --- HTTP/1 --- */

static bool header_case(struct compile_ctx *ctx,
                        const Core__Http1ProtocolOptions__HeaderKeyFormat *f,
                        struct codec_options *o) {
    DIAG_FIELD(ctx->diag, "header_key_format");
    switch (f->header_format_case) {
    case CORE__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_PROPER_CASE_WORDS:
        o->h1.header_case = H1_CASE_PROPER;
        return true;
    case CORE__HTTP1_PROTOCOL_OPTIONS__HEADER_KEY_FORMAT__HEADER_FORMAT_STATEFUL_FORMATTER: {
        DIAG_FIELD(ctx->diag, "stateful_formatter");
        const Core__TypedExtensionConfig *e = f->stateful_formatter;
        const char *want =
            "envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig";
        if (!compile_any(ctx, sv_cstr(e->name), e->typed_config, want, NULL)) {
            return false;
        }
        o->h1.header_case = H1_CASE_PRESERVE;
        return true;
    }
    default:
        return diag_error(ctx->diag, "header format is required");
    }
}

static void free_regex(void *r) { regex_free(r); }

static bool upgrade_regex(struct compile_ctx *ctx, const TypeMatcher__RegexMatcher *m,
                          struct upgrade_match *out) {
    char err[256];
    struct regex *r = regex_new(m->regex, strlen(m->regex), err, sizeof(err));
    if (!r) {
        return diag_error(ctx->diag, "%s", err);
    }
    arena_on_fini(ctx->arena, free_regex, r);
    out->kind = UPGRADE_REGEX;
    out->regex = r;
    return true;
}

static bool upgrade_matcher(struct compile_ctx *ctx, const TypeMatcher__StringMatcher *m,
                            struct upgrade_match *out) {
    out->ignore_case = m->ignore_case;
    switch (m->match_pattern_case) {
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT:
        out->kind = UPGRADE_EXACT;
        out->text = arena_sv(ctx->arena, sv_cstr(m->exact));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        out->kind = UPGRADE_PREFIX;
        out->text = arena_sv(ctx->arena, sv_cstr(m->prefix));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        out->kind = UPGRADE_SUFFIX;
        out->text = arena_sv(ctx->arena, sv_cstr(m->suffix));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        out->kind = UPGRADE_CONTAINS;
        out->text = arena_sv(ctx->arena, sv_cstr(m->contains));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        return upgrade_regex(ctx, m->safe_regex, out);
    default:
        return diag_error(ctx->diag, "this kind of string match is not supported here");
    }
}

static bool ignored_upgrades(struct compile_ctx *ctx, const Core__Http1ProtocolOptions *m,
                             struct codec_options *o) {
    if (!m->n_ignore_http_11_upgrade) {
        return true;
    }
    struct upgrade_match *v =
        arena_new_array(ctx->arena, struct upgrade_match, m->n_ignore_http_11_upgrade);
    bool ok = true;
    for (size_t i = 0; i < m->n_ignore_http_11_upgrade; i++) {
        DIAG_FIELD(ctx->diag, "ignore_http_11_upgrade[%zu]", i);
        ok &= upgrade_matcher(ctx, m->ignore_http_11_upgrade[i], &v[i]);
    }
    o->h1.ignored_upgrades = v;
    o->h1.ignored_upgrades_n = (unsigned)m->n_ignore_http_11_upgrade;
    return ok;
}

bool codec_options_http1(struct compile_ctx *ctx, const Core__Http1ProtocolOptions *m,
                         struct codec_options *o) {
    if (!m) {
        return true;
    }
    bool ok = true;
    o->h1.allow_absolute_url = bool_or(m->allow_absolute_url, true);
    o->h1.accept_http_10 = m->accept_http_10;
    o->h1.default_host_for_http_10 = arena_sv(ctx->arena, sv_cstr(m->default_host_for_http_10));
    o->h1.enable_trailers = m->enable_trailers;
    o->h1.allow_chunked_length = m->allow_chunked_length;
    o->h1.override_stream_error_on_invalid_http_message =
        bool_or(m->override_stream_error_on_invalid_http_message,
                o->h1.override_stream_error_on_invalid_http_message);
    o->h1.send_fully_qualified_url = m->send_fully_qualified_url;
    o->h1.allow_custom_methods = m->allow_custom_methods;
    if (!authority_valid(o->h1.default_host_for_http_10)) {
        DIAG_FIELD(ctx->diag, "default_host_for_http_10");
        ok = diag_error(ctx->diag, "'%.*s' is not a host", SV_ARG(o->h1.default_host_for_http_10));
    }
    if (m->header_key_format) {
        ok &= header_case(ctx, m->header_key_format, o);
    }
    return ignored_upgrades(ctx, m, o) && ok;
}

/* --- HTTP/2 --- */

#define SETTINGS_MAX 16u /* custom ones: they share a frame with ours */

/* Settings that have fields of their own, or that the codec decides. */
static bool is_own_setting(uint32_t id) { return id >= 1 && id <= 8 && id != 5 && id != 6; }

static bool custom_settings(struct compile_ctx *ctx, const Core__Http2ProtocolOptions *m,
                            struct codec_options *o) {
    size_t n = m->n_custom_settings_parameters;
    if (!n) {
        return true;
    }
    if (n > SETTINGS_MAX) {
        return diag_error(ctx->diag, "custom_settings_parameters: at most %u are supported",
                          SETTINGS_MAX);
    }
    struct h2_setting *v = arena_new_array(ctx->arena, struct h2_setting, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "custom_settings_parameters[%zu]", i);
        const Core__Http2ProtocolOptions__SettingsParameter *p = m->custom_settings_parameters[i];
        uint32_t id = p->identifier ? p->identifier->value : 0;
        if (id > UINT16_MAX || is_own_setting(id)) {
            ok = diag_error(ctx->diag, "setting %u may not be set here", id);
            continue;
        }
        if (id == 5 && (!p->value || p->value->value < 16384 || p->value->value > 16777215)) {
            ok = diag_error(ctx->diag, "maximum frame size must be within [16384, 16777215]");
            continue;
        }
        v[i] = (struct h2_setting){(uint16_t)id, p->value ? p->value->value : 0};
        for (size_t k = 0; k < i; k++) {
            if (v[k].id == v[i].id && v[k].value != v[i].value) {
                ok = diag_error(ctx->diag, "setting %u is given twice with different values", id);
            }
        }
    }
    o->h2.settings = v;
    o->h2.settings_n = (unsigned)n;
    return ok;
}

static bool keepalive(struct compile_ctx *ctx, const Core__KeepaliveSettings *k,
                      struct codec_options *o) {
    DIAG_FIELD(ctx->diag, "connection_keepalive");
    bool ok = compile_duration_ms(ctx, k->interval, 0, &o->h2.keepalive_interval_ms);
    ok &= compile_duration_ms(ctx, k->timeout, 0, &o->h2.keepalive_timeout_ms);
    ok &= compile_duration_ms(ctx, k->connection_idle_interval, 0, &o->h2.keepalive_idle_ms);
    double jitter = k->interval_jitter ? k->interval_jitter->value : 15.0;
    o->h2.keepalive_jitter_pct = jitter <= 0 ? 0 : jitter >= 100 ? 100 : (uint32_t)(jitter + 0.5);
    return ok;
}

bool codec_options_http2(struct compile_ctx *ctx, const Core__Http2ProtocolOptions *m,
                         struct codec_options *o) {
    if (!m) {
        return true;
    }
    bool ok = true;
    set_u32(m->hpack_table_size, &o->h2.hpack_table_bytes);
    set_u32(m->max_concurrent_streams, &o->h2.max_concurrent_streams);
    set_u32(m->initial_stream_window_size, &o->h2.initial_stream_window_bytes);
    set_u32(m->initial_connection_window_size, &o->h2.initial_connection_window_bytes);
    set_u32(m->max_outbound_frames, &o->h2.max_outbound_frames);
    set_u32(m->max_outbound_control_frames, &o->h2.max_outbound_control_frames);
    set_u32(m->max_consecutive_inbound_frames_with_empty_payload,
            &o->h2.max_consecutive_inbound_empty_frames);
    set_u32(m->max_inbound_priority_frames_per_stream,
            &o->h2.max_inbound_priority_frames_per_stream);
    set_u32(m->max_inbound_window_update_frames_per_data_frame_sent,
            &o->h2.max_inbound_window_update_frames_per_data_frame_sent);
    o->h2.allow_connect = m->allow_connect;
    /* METADATA frames are ignored as unknown: nothing depends on them but filters that read them */
    if (m->allow_metadata) {
        compile_unhonoured(ctx, "allow_metadata");
    }
    o->h2.override_stream_error_on_invalid_http_message =
        bool_or(m->override_stream_error_on_invalid_http_message,
                m->stream_error_on_invalid_http_messaging ||
                    o->h2.override_stream_error_on_invalid_http_message);
    if (m->connection_keepalive) {
        ok &= keepalive(ctx, m->connection_keepalive, o);
    }
    return custom_settings(ctx, m, o) && ok;
}

/* --- both --- */

bool codec_options_common(struct compile_ctx *ctx, const Core__HttpProtocolOptions *m,
                          struct codec_options *o) {
    if (!m) {
        return true;
    }
    set_u32(m->max_headers_count, &o->max_headers_count);
    if (m->max_response_headers_kb && !ctx->is_downstream) {
        o->max_headers_bytes = m->max_response_headers_kb->value * 1024;
    }
    if (o->max_headers_count > HEADERS_MAX - 8) { /* room for pseudo headers and what filters add */
        o->max_headers_count = HEADERS_MAX - 8;
        diag_warn(ctx->diag, "max_headers_count is limited to %u", HEADERS_MAX - 8);
    }
    switch (m->headers_with_underscores_action) {
    case CORE__HTTP_PROTOCOL_OPTIONS__HEADERS_WITH_UNDERSCORES_ACTION__ALLOW:
        o->underscores = UNDERSCORES_ALLOW;
        return true;
    case CORE__HTTP_PROTOCOL_OPTIONS__HEADERS_WITH_UNDERSCORES_ACTION__REJECT_REQUEST:
        o->underscores = UNDERSCORES_REJECT;
        return true;
    case CORE__HTTP_PROTOCOL_OPTIONS__HEADERS_WITH_UNDERSCORES_ACTION__DROP_HEADER:
        o->underscores = UNDERSCORES_DROP;
        return true;
    default:
        return diag_error(ctx->diag, "headers_with_underscores_action: unknown value %d",
                          (int)m->headers_with_underscores_action);
    }
}
