/* Header names with an id, one X row each: id, name. Sorted by nothing; header_id_of() builds its
 * table from this list. */
#ifndef SLUICE_HTTP_HEADER_IDS_H
#define SLUICE_HTTP_HEADER_IDS_H

#define HEADER_IDS(X)                                                                       \
    X(authority, ":authority")                                                              \
    X(method, ":method")                                                                    \
    X(path, ":path")                                                                        \
    X(scheme, ":scheme")                                                                    \
    X(status, ":status")                                                                    \
    X(protocol, ":protocol")                                                                \
    X(accept, "accept")                                                                     \
    X(accept_encoding, "accept-encoding")                                                   \
    X(access_control_allow_credentials, "access-control-allow-credentials")                 \
    X(access_control_allow_headers, "access-control-allow-headers")                         \
    X(access_control_allow_methods, "access-control-allow-methods")                         \
    X(access_control_allow_origin, "access-control-allow-origin")                           \
    X(access_control_expose_headers, "access-control-expose-headers")                       \
    X(access_control_max_age, "access-control-max-age")                                     \
    X(access_control_request_headers, "access-control-request-headers")                     \
    X(access_control_request_method, "access-control-request-method")                       \
    X(access_control_allow_private_network, "access-control-allow-private-network")         \
    X(access_control_request_private_network, "access-control-request-private-network")     \
    X(age, "age")                                                                           \
    X(allow, "allow")                                                                       \
    X(authorization, "authorization")                                                       \
    X(cache_control, "cache-control")                                                       \
    X(connection, "connection")                                                             \
    X(content_encoding, "content-encoding")                                                 \
    X(content_length, "content-length")                                                     \
    X(content_type, "content-type")                                                         \
    X(cookie, "cookie")                                                                     \
    X(date, "date")                                                                         \
    X(etag, "etag")                                                                         \
    X(expect, "expect")                                                                     \
    X(grpc_accept_encoding, "grpc-accept-encoding")                                         \
    X(grpc_message, "grpc-message")                                                         \
    X(grpc_status, "grpc-status")                                                           \
    X(grpc_timeout, "grpc-timeout")                                                         \
    X(host, "host")                                                                         \
    X(http2_settings, "http2-settings")                                                     \
    X(if_match, "if-match")                                                                 \
    X(if_modified_since, "if-modified-since")                                               \
    X(if_none_match, "if-none-match")                                                       \
    X(if_range, "if-range")                                                                 \
    X(keep_alive, "keep-alive")                                                             \
    X(last_modified, "last-modified")                                                       \
    X(location, "location")                                                                 \
    X(origin, "origin")                                                                     \
    X(proxy_authenticate, "proxy-authenticate")                                             \
    X(proxy_authorization, "proxy-authorization")                                           \
    X(proxy_connection, "proxy-connection")                                                 \
    X(proxy_status, "proxy-status")                                                         \
    X(range, "range")                                                                       \
    X(referer, "referer")                                                                   \
    X(retry_after, "retry-after")                                                           \
    X(server, "server")                                                                     \
    X(set_cookie, "set-cookie")                                                             \
    X(te, "te")                                                                             \
    X(trailer, "trailer")                                                                   \
    X(traceparent, "traceparent")                                                           \
    X(tracestate, "tracestate")                                                             \
    X(transfer_encoding, "transfer-encoding")                                               \
    X(upgrade, "upgrade")                                                                   \
    X(user_agent, "user-agent")                                                             \
    X(vary, "vary")                                                                         \
    X(via, "via")                                                                           \
    X(www_authenticate, "www-authenticate")                                                 \
    X(x_b3_flags, "x-b3-flags")                                                             \
    X(x_b3_parentspanid, "x-b3-parentspanid")                                               \
    X(x_b3_sampled, "x-b3-sampled")                                                         \
    X(x_b3_spanid, "x-b3-spanid")                                                           \
    X(x_b3_traceid, "x-b3-traceid")                                                         \
    X(b3, "b3")                                                                             \
    X(baggage, "baggage")                                                                   \
    X(x_client_trace_id, "x-client-trace-id")                                               \
    X(x_datadog_trace_id, "x-datadog-trace-id")                                             \
    X(x_envoy_attempt_count, "x-envoy-attempt-count")                                       \
    X(x_envoy_decorator_operation, "x-envoy-decorator-operation")                           \
    X(x_envoy_degraded, "x-envoy-degraded")                                                 \
    X(x_envoy_downstream_service_cluster, "x-envoy-downstream-service-cluster")             \
    X(x_envoy_downstream_service_node, "x-envoy-downstream-service-node")                   \
    X(x_envoy_expected_rq_timeout_ms, "x-envoy-expected-rq-timeout-ms")                     \
    X(x_envoy_external_address, "x-envoy-external-address")                                 \
    X(x_envoy_fault_abort_grpc_request, "x-envoy-fault-abort-grpc-request")                 \
    X(x_envoy_fault_abort_request, "x-envoy-fault-abort-request")                           \
    X(x_envoy_fault_abort_request_percentage, "x-envoy-fault-abort-request-percentage")     \
    X(x_envoy_fault_delay_request, "x-envoy-fault-delay-request")                           \
    X(x_envoy_fault_delay_request_percentage, "x-envoy-fault-delay-request-percentage")     \
    X(x_envoy_fault_throughput_response, "x-envoy-fault-throughput-response")               \
    X(x_envoy_fault_throughput_response_percentage,                                         \
      "x-envoy-fault-throughput-response-percentage")                                       \
    X(x_envoy_force_trace, "x-envoy-force-trace")                                           \
    X(x_envoy_hedge_on_per_try_timeout, "x-envoy-hedge-on-per-try-timeout")                 \
    X(x_envoy_immediate_health_check_fail, "x-envoy-immediate-health-check-fail")           \
    X(x_envoy_internal, "x-envoy-internal")                                                 \
    X(x_envoy_ip_tags, "x-envoy-ip-tags")                                                   \
    X(x_envoy_is_timeout_retry, "x-envoy-is-timeout-retry")                                 \
    X(x_envoy_local_overloaded, "x-envoy-local-overloaded")                                 \
    X(x_envoy_max_retries, "x-envoy-max-retries")                                           \
    X(x_envoy_original_dst_host, "x-envoy-original-dst-host")                               \
    X(x_envoy_original_host, "x-envoy-original-host")                                       \
    X(x_envoy_original_method, "x-envoy-original-method")                                   \
    X(x_envoy_original_path, "x-envoy-original-path")                                       \
    X(x_envoy_original_url, "x-envoy-original-url")                                         \
    X(x_envoy_overloaded, "x-envoy-overloaded")                                             \
    X(x_envoy_peer_metadata, "x-envoy-peer-metadata")                                       \
    X(x_envoy_peer_metadata_id, "x-envoy-peer-metadata-id")                                 \
    X(x_envoy_ratelimited, "x-envoy-ratelimited")                                           \
    X(x_envoy_retriable_header_names, "x-envoy-retriable-header-names")                     \
    X(x_envoy_retriable_status_codes, "x-envoy-retriable-status-codes")                     \
    X(x_envoy_retry_grpc_on, "x-envoy-retry-grpc-on")                                       \
    X(x_envoy_retry_on, "x-envoy-retry-on")                                                 \
    X(x_envoy_upstream_alt_stat_name, "x-envoy-upstream-alt-stat-name")                     \
    X(x_envoy_upstream_canary, "x-envoy-upstream-canary")                                   \
    X(x_envoy_upstream_healthchecked_cluster, "x-envoy-upstream-healthchecked-cluster")     \
    X(x_envoy_upstream_rq_per_try_timeout_ms, "x-envoy-upstream-rq-per-try-timeout-ms")     \
    X(x_envoy_upstream_rq_timeout_alt_response, "x-envoy-upstream-rq-timeout-alt-response") \
    X(x_envoy_upstream_rq_timeout_ms, "x-envoy-upstream-rq-timeout-ms")                     \
    X(x_envoy_upstream_service_time, "x-envoy-upstream-service-time")                       \
    X(x_envoy_upstream_stream_duration_ms, "x-envoy-upstream-stream-duration-ms")           \
    X(x_forwarded_client_cert, "x-forwarded-client-cert")                                   \
    X(x_forwarded_for, "x-forwarded-for")                                                   \
    X(x_forwarded_host, "x-forwarded-host")                                                 \
    X(x_forwarded_port, "x-forwarded-port")                                                 \
    X(x_forwarded_proto, "x-forwarded-proto")                                               \
    X(x_http_method_override, "x-http-method-override")                                     \
    X(x_original_url, "x-original-url")                                                     \
    X(x_ot_span_context, "x-ot-span-context")                                               \
    X(x_ratelimit_limit, "x-ratelimit-limit")                                               \
    X(x_ratelimit_remaining, "x-ratelimit-remaining")                                       \
    X(x_ratelimit_reset, "x-ratelimit-reset")                                               \
    X(x_real_ip, "x-real-ip")                                                               \
    X(x_request_id, "x-request-id")                                                         \
    X(cdn_loop, "cdn-loop")                                                                 \
    X(early_data, "early-data")                                                             \
    X(priority, "priority")                                                                 \
    X(content_range, "content-range")                                                       \
    X(content_disposition, "content-disposition")                                           \
    X(content_language, "content-language")                                                 \
    X(link, "link")

enum header_id {
    HDR_OTHER,
#define X(id, name) HDR_##id,
    HEADER_IDS(X)
#undef X
        HDR_COUNT
};

#endif
