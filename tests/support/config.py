"""Bootstraps as dicts: short builders for listeners, connection managers, routes and clusters."""

TYPE = "type.googleapis.com/"
EXT = TYPE + "envoy.extensions."
HCM = "envoy.filters.network.http_connection_manager"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def address(port=0, host="127.0.0.1"):
    return {"socket_address": {"address": host, "port_value": port}}


def typed(name, type_name, **fields):
    return {"name": name, "typed_config": {"@type": TYPE + type_name, **fields}}


def router(**fields):
    return typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", **fields)


def file_log(path, text, **fields):
    return typed("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", path=str(path),
                 log_format={"text_format_source": {"inline_string": text}}, **fields)


def vhost(routes, name="all", domains=("*",), **fields):
    return {"name": name, "domains": list(domains), "routes": routes, **fields}


def route(prefix="/", cluster="up", match=None, **fields):
    return {"match": match or {"prefix": prefix}, "route": {"cluster": cluster, **fields}}


def direct(path, status=200, body=None):
    reply = {"status": status}
    if body is not None:
        reply["body"] = {"inline_string": body}
    return {"match": {"path": path}, "direct_response": reply}


def hcm(routes=None, vhosts=None, filters=None, route_fields=None, **fields):
    config = {"name": "local", "virtual_hosts": vhosts or [vhost(routes or [route()])], **(route_fields or {})}
    return typed(HCM, "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                 stat_prefix=fields.pop("stat_prefix", "ingress"), route_config=config,
                 http_filters=(filters or []) + [router()], **fields)


def tcp_proxy(cluster="up", **fields):
    return typed("envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                 stat_prefix=fields.pop("stat_prefix", "tcp"), cluster=cluster, **fields)


def chain(*filters, **fields):
    return {"filters": list(filters), **fields}


def listener(*filters, name="main", chains=None, port=0, **fields):
    return {"name": name, "address": address(port), "filter_chains": chains or [chain(*filters)], **fields}


def endpoint(port, host="127.0.0.1", **fields):
    return {"endpoint": {"address": address(port, host), **fields.pop("endpoint", {})}, **fields}


def cluster(name, *ports, **fields):
    """Static; each port may be a number or a whole LbEndpoint."""
    hosts = [endpoint(p) if isinstance(p, int) else p for p in ports]
    return {"name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": hosts}] if hosts else []}, **fields}


def aggregate(name, *members, **fields):
    """A cluster of the priorities of others."""
    return {"name": name, "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": typed(
        "envoy.clusters.aggregate", "envoy.extensions.clusters.aggregate.v3.ClusterConfig", clusters=list(members)), **fields}


def retry_other_priorities(update_frequency):
    """The retry_priority of a retry policy."""
    return typed("envoy.retry_priorities.previous_priorities",
                 "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                 update_frequency=update_frequency)


def http_options(**fields):
    """typed_extension_protocol_options of a cluster."""
    return {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": TYPE + HTTP_OPTIONS, **fields}}


def http2():
    return http_options(explicit_http_config={"http2_protocol_options": {}})


def bootstrap(listeners, clusters=(), **fields):
    return {"admin": {"address": address()}, "node": {"id": "test-node", "cluster": "test-cluster"},
            "static_resources": {"listeners": listeners, "clusters": list(clusters), **fields.pop("static", {})},
            **fields}


def tls_socket(direction, **fields):
    """A transport socket: direction is Downstream or Upstream."""
    return typed("envoy.transport_sockets.tls", f"envoy.extensions.transport_sockets.tls.v3.{direction}TlsContext",
                 **fields)


def tls_certificate(pair):
    return {"certificate_chain": {"filename": str(pair.cert)}, "private_key": {"filename": str(pair.key)}}
