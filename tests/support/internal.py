"""Configuration of internal listeners and of the clusters that lead to them."""

from support.config import chain, cluster, typed

ORIGINAL_DST = "envoy.filters.listener.original_dst"
# what Envoy wants in a bootstrap that has them
EXTENSION = typed("envoy.bootstrap.internal_listener", "envoy.extensions.bootstrap.internal_listener.v3.InternalListener")
RESTORES = typed(ORIGINAL_DST, "envoy.extensions.filters.listener.original_dst.v3.OriginalDst")
RAW = typed("envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")


def internal_listener(name, *filters, **fields):
    return {"name": name, "internal_listener": {}, "filter_chains": [chain(*filters)], **fields}


def internal_endpoint(listener, endpoint_id=None, **fields):
    """An LbEndpoint; fields are its own, as metadata."""
    address = {"server_listener_name": listener, **({"endpoint_id": endpoint_id} if endpoint_id else {})}
    return {"endpoint": {"address": {"envoy_internal_address": address}}, **fields}


def internal_upstream(*sources, inner=RAW):
    """A transport socket; sources: (kind, namespace) of the metadata that goes along."""
    return typed("envoy.transport_sockets.internal_upstream",
                 "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport", transport_socket=inner,
                 passthrough_metadata=[{"kind": {kind: {}}, "name": name} for kind, name in sources])


def internal_cluster(name, listener, *sources, endpoint_id=None, host_metadata=None, **fields):
    """host_metadata: of the endpoint, by namespace."""
    own = {"metadata": {"filter_metadata": host_metadata}} if host_metadata else {}
    return cluster(name, internal_endpoint(listener, endpoint_id, **own), transport_socket=internal_upstream(*sources), **fields)


def original_dst_cluster(name, **fields):
    """Goes where metadata says, as the cluster of Istio's tunnels."""
    key = {"metadata_key": {"key": ORIGINAL_DST, "path": [{"key": "waypoint"}]}, **fields.pop("original_dst_lb_config", {})}
    return {"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
            "original_dst_lb_config": key, **fields}
