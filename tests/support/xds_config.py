"""Resources and bootstraps for a scripted control plane, as dicts."""

from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, ROUTE

ADS = {"ads": {}, "resource_api_version": "V3"}


# ---- what is served ----

def eds_cluster(name, **fields):
    return {"name": name, "type": "EDS", "connect_timeout": "5s", "eds_cluster_config": {"eds_config": ADS}, **fields}


def assignment(name, *ports):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [config.endpoint(p) for p in ports]}]}


def rds_listener(name="main", route_name="r", **fields):
    manager = config.hcm(stat_prefix=name)
    del manager["typed_config"]["route_config"]
    manager["typed_config"]["rds"] = {"route_config_name": route_name, "config_source": ADS}
    return config.listener(manager, name=name, **fields)


X_SCOPE = {"fragments": [{"header_value_extractor": {"name": "x-scope", "index": 0}}]}


def scope_key(*fragments):
    return {"fragments": [{"string_key": f} for f in fragments]}


def scope(name, value, routes=None, **fields):
    """Of requests whose x-scope has the value; no `routes`: it names none."""
    named = {"route_configuration_name": routes} if routes else {}
    return {"name": name, "key": scope_key(value), **named, **fields}


def scoped_listener(name="main", srds=ADS, rds=ADS, builder=X_SCOPE, scopes=None, **manager_fields):
    """Its scopes come from `srds`; or `scopes`: what there is in place of scoped_rds."""
    manager = config.hcm(stat_prefix=name, **manager_fields)
    del manager["typed_config"]["route_config"]
    manager["typed_config"]["scoped_routes"] = {"name": "s", "scope_key_builder": builder, "rds_config_source": rds,
                                                **(scopes or {"scoped_rds": {"scoped_rds_config_source": srds}})}
    return config.listener(manager, name=name)


def routes(name="r", cluster="up"):
    return {"name": name, "virtual_hosts": [config.vhost([config.route(cluster=cluster)])]}


def serve_all(ads, port, version="1"):
    ads.set(CLUSTER, "c" + version, [eds_cluster("up")])
    ads.set(ENDPOINTS, "e" + version, [assignment("up", port)])
    ads.set(LISTENER, "l" + version, [rds_listener()])
    ads.set(ROUTE, "r" + version, [routes()])


# ---- who asks ----

def xds_cluster(ads, **fields):
    address = {"pipe": {"path": str(ads.path)}} if ads.path else config.address(ads.port)
    return {"name": "xds", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "xds",
                                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
            "typed_extension_protocol_options": config.http2(), **fields}


def api_source(kind="GRPC", service=None, **fields):
    """Back-off is short: tests reconnect."""
    retry = {"retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"}}
    return {"api_type": kind, "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "xds", "retry_policy": retry}, **(service or {})}], **fields}


def ads_bootstrap(ads, kind="GRPC", cluster_fields=None, service=None, **fields):
    return config.bootstrap([], [xds_cluster(ads, **(cluster_fields or {}))],
                            dynamic_resources={"ads_config": api_source(kind, service, **fields), "cds_config": ADS,
                                               "lds_config": ADS})
