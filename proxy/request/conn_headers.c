/* The connection manager's own header rules: request checks, path and host normalisation,
 * x-forwarded-*, request ids, via, hop-by-hop headers, response headers.
 * Threads: worker-local. Spec: HttpConnectionManager, Envoy's ConnectionManagerUtility and "HTTP
 * header manipulation".
 * Not here: the client's address and x-forwarded-for (request/client_address.c),
 * x-forwarded-client-cert (request/xfcc.c), routing, syntax (the codecs). */
#include "proxy/api/header_mutation.h"
#include "proxy/base/runtime.h"
#include "proxy/net/filter_chain.h"
#include "proxy/request/client_address.h"
#include "proxy/request/xfcc.h"

/* ---- checks ---- */

static enum header_verdict refuse(struct stream *s, unsigned status, sv details) {
    s->close_after = s->info.protocol != HTTP_2 &&
                     !s->cfg->codec.h1.override_stream_error_on_invalid_http_message;
    stream_local_reply(s, status, SV_NULL, 0, details, NULL, NULL);
    return HEADERS_REPLIED;
}

static void set_redirect(struct headers *h, void *arg) {
    const sv *path = arg;
    headers_set(h, HDR_location, *path);
}

static enum header_verdict normalise_path(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    struct header *path = headers_find(&s->request, HDR_path);
    if (!path) {
        return HEADERS_OK;
    }
    size_t fragment = sv_find(path->value, '#');
    if (fragment != SIZE_MAX) {
        if (runtime_bool(SV("envoy.reloadable_features.http_reject_path_with_fragment"), true)) {
            stats_inc(s->hcm->stats, HCM_downstream_rq_failed_path_normalization);
            return refuse(s, 400, SV("path_normalization_failed"));
        }
        headers_set(&s->request, HDR_path, sv_sub(path->value, 0, fragment));
    }
    sv p = headers_get(&s->request, HDR_path);
    switch (
        path_normalise(&p, c->normalize_path, c->merge_slashes, c->escaped_slashes, &s->arena)) {
    case PATH_OK:
        return HEADERS_OK;
    case PATH_CHANGED:
        headers_set(&s->request, HDR_path, p);
        return HEADERS_OK;
    case PATH_REJECT:
        stats_inc(s->hcm->stats, HCM_downstream_rq_failed_path_normalization);
        return refuse(s, 400, SV("path_normalization_failed"));
    case PATH_REDIRECT:
        stats_inc(s->hcm->stats, HCM_downstream_rq_redirected_with_normalized_path);
        headers_set(&s->request, HDR_path, p);
        stream_local_reply(s, 307, SV_NULL, 0, SV("path_normalization_failed"), set_redirect, &p);
        return HEADERS_REPLIED;
    }
    return HEADERS_OK;
}

static void normalise_host(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    if (!c->strip_any_port && !c->strip_matching_port && !c->strip_trailing_host_dot) {
        return;
    }
    sv host = headers_get(&s->request, HDR_authority);
    uint16_t port;
    sv bare = host_without_port(host);
    bool has_port = host_port(host, &port);
    bool strip = has_port &&
                 (c->strip_any_port || (c->strip_matching_port && port == s->info.cx->local.port));
    sv name = bare;
    if (c->strip_trailing_host_dot && sv_ends(name, SV("."))) {
        name.n--;
    }
    if (strip || !has_port) {
        host = name;
    } else if (name.n != bare.n) {
        host = arena_printf(&s->arena, "%.*s:%u", SV_ARG(name), port);
    }
    headers_set(&s->request, HDR_authority, host);
}

static void note_request_kind(struct stream *s) {
    sv method = headers_get(&s->request, HDR_method);
    s->is_head = sv_eq(method, SV("HEAD"));
    s->is_connect = sv_eq(method, SV("CONNECT"));
    s->is_grpc = headers_are_grpc(&s->request);
    if (s->is_connect) {
        sv protocol = headers_get(&s->request, HDR_protocol);
        s->upgrade_type = protocol.n ? protocol : SV("CONNECT");
        return;
    }
    sv upgrade = headers_get(&s->request, HDR_upgrade);
    if (upgrade.n && s->info.protocol != HTTP_2) {
        sv conn_header = headers_get(&s->request, HDR_connection);
        while (conn_header.n) {
            if (sv_eq_nocase(sv_trim(sv_cut(&conn_header, ',')), SV("upgrade"))) {
                s->upgrade_type = upgrade;
            }
        }
    }
}

static void answer_expect(struct stream *s) {
    sv expect = headers_get(&s->request, HDR_expect);
    if (!expect.n || s->cfg->proxy_100_continue || !sv_eq_nocase(expect, SV("100-continue")) ||
        s->info.protocol == HTTP_10) {
        return;
    }
    struct headers h;
    headers_init(&h, &s->arena);
    headers_set_status(&h, 100);
    stream_send_1xx(s, &h);
    headers_remove(&s->request, HDR_expect);
}

enum header_verdict conn_headers_request(struct stream *s) {
    note_request_kind(s);
    answer_expect(s);
    sv host = headers_get(&s->request, HDR_authority);
    if (!host.p) {
        return refuse(s, 400, SV("missing_host_header"));
    }
    sv path = headers_get(&s->request, HDR_path);
    bool is_plain_connect = s->is_connect && !path.n;
    if (!is_plain_connect && !path.n) {
        return refuse(s, 400, SV("missing_path_rejected"));
    }
    if (!is_plain_connect && path.p[0] != '/') {
        stats_inc(s->hcm->stats, HCM_downstream_rq_non_relative_path);
        stream_local_reply(s, 404, SV_NULL, 0, SV("absolute_path_rejected"), NULL, NULL);
        return HEADERS_REPLIED;
    }
    if (!is_plain_connect && normalise_path(s) == HEADERS_REPLIED) {
        return HEADERS_REPLIED;
    }
    normalise_host(s);
    return HEADERS_OK;
}

/* ---- what is told of the client ---- */

static sv downstream_scheme(const struct stream *s) {
    return conn_ssl(s->hcm->base.conn) ? SV("https") : SV("http");
}

static void set_forwarded(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    struct headers *h = &s->request;
    sv scheme = downstream_scheme(s);
    if (c->use_remote_address) {
        bool keep = c->xff_trusted_hops > 0 && headers_has(h, HDR_x_forwarded_proto);
        if (!keep) {
            headers_set(h, HDR_x_forwarded_proto, scheme);
        }
        if (c->append_x_forwarded_port &&
            !(c->xff_trusted_hops > 0 && headers_has(h, HDR_x_forwarded_port))) {
            headers_set(h, HDR_x_forwarded_port,
                        arena_printf(&s->arena, "%u", s->info.cx->local.port));
        }
    } else if (!headers_has(h, HDR_x_forwarded_proto)) {
        headers_add_id(h, HDR_x_forwarded_proto, scheme);
    }
    if (!headers_has(h, HDR_x_forwarded_port) && c->append_x_forwarded_port) {
        headers_add_id(h, HDR_x_forwarded_port,
                       arena_printf(&s->arena, "%u", s->info.cx->local.port));
    }
    if (c->scheme_overwrite.n) {
        headers_set(h, HDR_scheme, c->scheme_overwrite);
        headers_set(h, HDR_x_forwarded_proto, c->scheme_overwrite);
    } else if (!headers_has(h, HDR_scheme)) {
        headers_add_id(h, HDR_scheme, headers_get(h, HDR_x_forwarded_proto));
    }
}

/* ---- x-envoy-* from outside ---- */

static const enum header_id edge_headers[] = {
    HDR_x_envoy_decorator_operation, HDR_x_envoy_downstream_service_cluster,
    HDR_x_envoy_downstream_service_node, HDR_x_envoy_original_path, HDR_x_envoy_original_host};
static const enum header_id external_headers[] = {HDR_x_envoy_retriable_status_codes,
                                                  HDR_x_envoy_retriable_header_names,
                                                  HDR_x_envoy_retry_on,
                                                  HDR_x_envoy_retry_grpc_on,
                                                  HDR_x_envoy_max_retries,
                                                  HDR_x_envoy_upstream_alt_stat_name,
                                                  HDR_x_envoy_upstream_rq_timeout_ms,
                                                  HDR_x_envoy_upstream_rq_per_try_timeout_ms,
                                                  HDR_x_envoy_upstream_rq_timeout_alt_response,
                                                  HDR_x_envoy_expected_rq_timeout_ms,
                                                  HDR_x_envoy_force_trace,
                                                  HDR_x_envoy_ip_tags,
                                                  HDR_x_envoy_original_url,
                                                  HDR_x_envoy_hedge_on_per_try_timeout,
                                                  HDR_x_envoy_upstream_stream_duration_ms};

static void remove_all(struct headers *h, const enum header_id *ids, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (headers_has(h, ids[i])) {
            headers_remove(h, ids[i]);
        }
    }
}

static void clean_trust_headers(struct stream *s, bool is_edge, bool is_internal) {
    struct headers *h = &s->request;
    if (is_edge) {
        remove_all(h, edge_headers, ARRAY_LEN(edge_headers));
    }
    if (is_internal) {
        headers_set(h, HDR_x_envoy_internal, SV("true"));
        return;
    }
    headers_remove(h, HDR_x_envoy_internal);
    remove_all(h, external_headers, ARRAY_LEN(external_headers));
    for (unsigned i = 0; s->table && i < s->table->internal_only_n; i++) {
        headers_remove_name(h, s->table->internal_only_headers[i]);
    }
}

/* ---- request id, user agent, via ---- */

static void set_request_id(struct stream *s, bool is_edge) {
    const struct hcm_config *c = s->cfg;
    sv have = headers_get(&s->request, HDR_x_request_id);
    bool replace = is_edge && !c->preserve_external_request_id;
    if (c->generate_request_id && (!have.n || replace)) {
        char *id = arena_alloc(&s->arena, 36);
        rng_uuid4(&s->hcm->loop->rng, id);
        have = sv_from(id, 36);
        headers_set(&s->request, HDR_x_request_id, have);
    }
    s->info.request_id = have;
}

static void set_user_agent(struct stream *s) {
    if (!s->cfg->add_user_agent) {
        return;
    }
    sv cluster = worker_node_cluster(s->hcm->worker);
    headers_set(&s->request, HDR_x_envoy_downstream_service_cluster, cluster);
    if (!headers_has(&s->request, HDR_user_agent)) {
        headers_add_id(&s->request, HDR_user_agent, cluster);
    }
    sv node = worker_node_id(s->hcm->worker);
    if (node.n) {
        headers_set(&s->request, HDR_x_envoy_downstream_service_node, node);
    }
}

/* Remove hop-by-hop headers; what Connection names goes too. */
static void strip_hop_by_hop(struct stream *s) {
    struct headers *h = &s->request;
    sv nominated = headers_get(h, HDR_connection);
    if (nominated.n && !s->upgrade_type.n) {
        while (nominated.n) {
            sv name = sv_trim(sv_cut(&nominated, ','));
            if (name.n && !sv_eq_nocase(name, SV("close")) &&
                !sv_eq_nocase(name, SV("keep-alive")) && !sv_eq_nocase(name, SV("te"))) {
                char *lower = arena_cstr(&s->arena, name);
                enum header_id id;
                if (header_name_normalise(lower, name.n, &id)) {
                    headers_remove_name(h, sv_from(lower, name.n));
                }
            }
        }
    }
    if (!s->upgrade_type.n) {
        headers_remove(h, HDR_connection);
        headers_remove(h, HDR_upgrade);
    }
    headers_remove(h, HDR_keep_alive);
    s->close_after |= sv_eq_nocase(headers_get(h, HDR_proxy_connection), SV("close"));
    headers_remove(h, HDR_proxy_connection);
    headers_remove(h, HDR_transfer_encoding);
    sv te = headers_get(h, HDR_te);
    if (te.n && !sv_eq_nocase(te, SV("trailers"))) {
        headers_remove(h, HDR_te);
    }
}

enum header_verdict conn_headers_mutate_request(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    header_mutations_apply(c->early_mutations, &s->request, &s->info);
    strip_hop_by_hop(s);
    struct client client = client_find(s);
    if (client.refused) {
        stream_local_reply(s, client.refused, SV_NULL, 0, SV("rejecting_because_detection_failed"),
                           NULL, NULL);
        return HEADERS_REPLIED;
    }
    bool is_internal = client.may_be_internal && hcm_is_internal_address(c, &client.address);
    bool is_edge = c->use_remote_address && !is_internal;
    set_forwarded(s);
    s->remote = client.address;
    s->info.remote = &s->remote;
    s->is_internal_request = is_internal;
    clean_trust_headers(s, is_edge, is_internal);
    if (is_edge && client.address.family) {
        headers_set(&s->request, HDR_x_envoy_external_address, client_ip_text(s, &client.address));
    }
    set_user_agent(s);
    set_request_id(s, is_edge);
    xfcc_apply(s);
    if (c->via.n) {
        headers_append(&s->request, HDR_via, c->via);
    }
    return HEADERS_OK;
}

/* ---- response ---- */

static void set_server(struct stream *s, struct headers *h) {
    switch (s->cfg->server_header) {
    case SERVER_HEADER_OVERWRITE:
        headers_set(h, HDR_server, s->cfg->server_name);
        return;
    case SERVER_HEADER_APPEND_IF_ABSENT:
        if (!headers_has(h, HDR_server)) {
            headers_add_id(h, HDR_server, s->cfg->server_name);
        }
        return;
    case SERVER_HEADER_PASS_THROUGH:
        return;
    }
}

static bool is_upgrade_response(const struct stream *s, const struct headers *h) {
    unsigned status = headers_status(h);
    return s->is_upgraded && (status == 101 || (s->is_connect && status / 100 == 2));
}

/* Does this response end the connection's use? HTTP/1 says so in a header, HTTP/2 drains. */
static void maybe_close(struct stream *s, struct headers *h) {
    struct hcm *hcm = s->hcm;
    if (hcm->drain == HCM_OPEN && hcm_is_overloaded(hcm, OVERLOAD_DISABLE_HTTP_KEEPALIVE)) {
        stats_inc(hcm->stats, HCM_downstream_cx_overload_disable_keepalive);
        stats_inc(hcm->stats, HCM_downstream_cx_drain_close);
        hcm_start_drain(hcm);
    }
    if (hcm->drain == HCM_OPEN && worker_drain_close(hcm->worker, hcm->base.chain)) {
        stats_inc(hcm->stats, HCM_downstream_cx_drain_close);
        hcm_start_drain(hcm);
    }
    if (hcm->codec->protocol != HTTP_2 && (hcm->drain != HCM_OPEN || s->close_after)) {
        h1_server_close_after(hcm->codec);
    }
    (void)h;
}

void conn_headers_mutate_response(struct stream *s, struct headers *h) {
    if (!is_upgrade_response(s, h)) {
        headers_remove(h, HDR_connection);
        headers_remove(h, HDR_upgrade);
    }
    headers_remove(h, HDR_transfer_encoding);
    headers_remove(h, HDR_keep_alive);
    headers_remove(h, HDR_proxy_connection);
    if (s->cfg->always_set_request_id && s->info.request_id.n) {
        headers_set(h, HDR_x_request_id, s->info.request_id);
    }
    if (s->cfg->via.n) {
        headers_append(h, HDR_via, s->cfg->via);
    }
    if (!headers_has(h, HDR_date)) {
        headers_add_id(h, HDR_date, worker_http_date(s->hcm->worker));
    }
    set_server(s, h);
    maybe_close(s, h);
}
