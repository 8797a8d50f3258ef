"""Istio's resources as dicts: short builders."""

NETWORKING = "networking.istio.io/v1"


def resource(kind, name, spec, space="default", version=NETWORKING):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": space}, "spec": spec}


def endpoint(port, address="127.0.0.1", **fields):
    """Of a service made by entry()."""
    return {"address": address, "ports": {"port": port}, **fields}


def service_host(name):
    return f"{name}.default.svc.cluster.local"


def entry(name, port, protocol="HTTP", *, host=None, number=None, endpoints=None, location="MESH_INTERNAL", **fields):
    """A service with one endpoint on loopback, or with those given; its port is 443 for TLS, else 80."""
    return resource("ServiceEntry", name, {
        "hosts": [host or service_host(name)], "location": location, "resolution": "STATIC",
        "ports": [{"number": number or (443 if protocol == "TLS" else 80), "name": "port", "protocol": protocol}],
        "endpoints": [endpoint(port)] if endpoints is None else endpoints, **fields})


def gateway(name, *servers, selector=None):
    return resource("Gateway", name, {"selector": selector or {"istio": "ingressgateway"}, "servers": list(servers)})


def server(port, protocol, *hosts, **tls):
    return {"port": {"number": port, "name": f"{protocol.lower()}-{port}", "protocol": protocol}, "hosts": list(hosts or ["*"]),
            **({"tls": tls} if tls else {})}


def virtual_service(name, hosts, gateways, **routes):
    return resource("VirtualService", name, {"hosts": list(hosts), "gateways": list(gateways), **routes})


def destination_rule(name, host, **fields):
    return resource("DestinationRule", name, {"host": host, **fields})


def destination(host, port=80, **fields):
    """An item of a route list; `subset` belongs to the destination, the rest (weight, headers) beside it."""
    subset = {"subset": fields.pop("subset")} if "subset" in fields else {}
    return {"destination": {"host": service_host(host) if "." not in host else host, "port": {"number": port}, **subset}, **fields}


def to(host, port=80, **fields):
    return [destination(host, port, **fields)]


def sni(name, host):
    """An item of a VirtualService's tls routes."""
    return {"match": [{"sniHosts": [name]}], "route": to(host, 443)}
