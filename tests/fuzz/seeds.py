#!/usr/bin/env python3
"""Seeds of the fuzz targets that read messages, made from the official protos: `seeds.py CORPUS` fills CORPUS/<target>/.

For each type of resource: what a control plane of the tests serves, and random messages, whose fields are set by chance."""
import hashlib
import importlib
import pathlib
import pkgutil
import random
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests")]

from envoy.config.cluster.v3 import cluster_pb2  # noqa: E402
from envoy.config.core.v3 import extension_pb2  # noqa: E402
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2  # noqa: E402
from envoy.config.listener.v3 import listener_pb2  # noqa: E402
from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2  # noqa: E402
from envoy.extensions import filters  # noqa: E402
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2  # noqa: E402
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: E402, F401
from envoy.extensions.matching.common_inputs.network.v3 import network_inputs_pb2  # noqa: E402, F401
from envoy.extensions.matching.common_inputs.ssl.v3 import ssl_inputs_pb2  # noqa: E402, F401
from envoy.service.runtime.v3 import rtds_pb2  # noqa: E402
from envoy.type.matcher.v3 import http_inputs_pb2  # noqa: E402, F401
from google.protobuf import descriptor  # noqa: E402
from google.protobuf import json_format, symbol_database, wrappers_pb2  # noqa: E402, F401
from xds.type.matcher.v3 import cel_pb2 as cel_matcher_pb2, domain_pb2, ip_pb2, matcher_pb2  # noqa: E402, F401
from xds.type.v3 import cel_pb2  # noqa: E402

from support import config  # noqa: E402
from support.ads_server import message_of  # noqa: E402, F401

MESSAGES = {m.DESCRIPTOR.full_name: m for m in (
    cluster_pb2.Cluster, endpoint_pb2.ClusterLoadAssignment, secret_pb2.Secret, listener_pb2.Listener,
    scoped_route_pb2.ScopedRouteConfiguration, route_pb2.RouteConfiguration, route_components_pb2.VirtualHost,
    extension_pb2.TypedExtensionConfig, rtds_pb2.Runtime, endpoint_components_pb2.LbEndpoint)}
TOKENS = ["", "a", "b", "main", "*", "*.a.test", "/", "/a", "x-h", "127.0.0.1", "::1", "^a.*$", "443", "%REQ(x)%", "h2"]
NUMBERS = [0, 1, 2, 80, 100, 1000, 65535, 1 << 31, (1 << 32) - 1]
RANDOM_EACH = 40
RANDOM_EACH_FILTER = 8
DEPTH = 5
EXTENSION = "envoy.config.core.v3.TypedExtensionConfig"
ADS = {"ads": {}, "resource_api_version": "V3"}


def types():
    """Full names, in the order of enum resource_type."""
    return re.findall(r'X\(\w+, "\w+", "([\w.]+)"', (ROOT / "proxy/config/resource.h").read_text())


def scalar(rng, field):
    kind = field.cpp_type
    if kind == descriptor.FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(TOKENS)
        return text.encode() if field.type == descriptor.FieldDescriptor.TYPE_BYTES else text
    if kind == descriptor.FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if kind == descriptor.FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if kind in (descriptor.FieldDescriptor.CPPTYPE_DOUBLE, descriptor.FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(NUMBERS) / 10
    number = rng.choice(NUMBERS)
    return number if kind in (descriptor.FieldDescriptor.CPPTYPE_UINT32, descriptor.FieldDescriptor.CPPTYPE_UINT64,
                              descriptor.FieldDescriptor.CPPTYPE_INT64) else number & 0x7FFFFFFF


def fill(rng, message, depth=DEPTH):
    """Sets a few fields, and theirs. Maps stay empty: their entries are not messages here."""
    fields = list(message.DESCRIPTOR.fields)
    for field in rng.sample(fields, min(len(fields), rng.randint(1, 5))):
        is_list = field.is_repeated
        if field.message_type is None:
            if is_list:
                getattr(message, field.name).append(scalar(rng, field))
            else:
                setattr(message, field.name, scalar(rng, field))
        elif field.message_type.GetOptions().map_entry or depth == 0:
            continue
        else:
            child = getattr(message, field.name)
            child = child.add() if is_list else child
            if not is_list:
                child.SetInParent()
            fill(rng, child, depth - 1)
    return message


def filter_types():
    """Messages that configure a filter of ours, by full name: of each kind, as its source names it."""
    for module in pkgutil.walk_packages(filters.__path__, "envoy.extensions.filters."):
        if module.name.endswith("_pb2"):
            importlib.import_module(module.name)
    named = [re.findall(r'\.type_url = "(envoy[\w.]+)"', f.read_text())
             for folder in ("filters/http", "filters/network", "filters/listener", "proxy/request", "proxy/net")
             for f in sorted((ROOT / folder).glob("*.c"))]
    for name in sorted({n for names in named for n in names if ".filters." in n}):
        try:
            yield symbol_database.Default().GetSymbol(name)
        except KeyError:  # a message of another project: pb2 has none
            continue


def discovered_filters(rng):
    """TypedExtensionConfig: of each filter what it is without settings, and with random ones."""
    for made in filter_types():
        for settings in [made()] + [fill(rng, made()) for _ in range(RANDOM_EACH_FILTER)]:
            message = extension_pb2.TypedExtensionConfig(name="f")
            message.typed_config.Pack(settings)
            yield message


def served():
    """What the tests' control planes serve, as {full name: resources}."""
    manager = config.hcm(vhosts=[config.vhost([config.route(), config.direct("/d", 200, "x")])])
    rds = config.hcm()
    del rds["typed_config"]["route_config"]
    rds["typed_config"]["rds"] = {"route_config_name": "r", "config_source": ADS}
    tls = config.tls_socket("Downstream", common_tls_context={
        "tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": ADS}], "alpn_protocols": ["h2"]})
    weights = {"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 2}]}
    hosts = [config.vhost([{"match": {"safe_regex": {"regex": "/a.*"}}, "route": {"weighted_clusters": weights}},
                           {"match": {"prefix": "/"}, "redirect": {"host_redirect": "a.test"}}], domains=["a.test", "*.b"])]
    found = config.hcm()
    found["typed_config"]["http_filters"].insert(0, {"name": "f", "config_discovery": {
        "config_source": ADS, "type_urls": [config.TYPE + "envoy.extensions.filters.http.cors.v3.Cors"]}})
    scoped = config.hcm()
    del scoped["typed_config"]["route_config"]
    scoped["typed_config"]["scoped_routes"] = {
        "name": "s", "scope_key_builder": {"fragments": [{"header_value_extractor": {"name": "x-h", "index": 0}}]},
        "rds_config_source": ADS, "scoped_rds": {"scoped_rds_config_source": ADS}}
    members = {"leds_config": ADS, "leds_collection_name": "xdstp://p/envoy.config.endpoint.v3.LbEndpoint/c/*"}
    return {
        "envoy.config.cluster.v3.Cluster": [
            config.cluster("a", 80), config.cluster("b", 80, lb_policy="RING_HASH", typed_extension_protocol_options=config.http2()),
            {"name": "c", "type": "EDS", "eds_cluster_config": {"eds_config": ADS}},
            {"name": "d", "type": "STRICT_DNS", "transport_socket": config.tls_socket("Upstream", sni="d.test"),
             "load_assignment": {"cluster_name": "d", "endpoints": [{"lb_endpoints": [config.endpoint(80, "d.test")]}]}}],
        "envoy.config.endpoint.v3.ClusterLoadAssignment": [
            {"cluster_name": "c", "endpoints": [{"locality": {"zone": "z"}, "priority": 0, "load_balancing_weight": 1,
                                                 "lb_endpoints": [config.endpoint(80), config.endpoint(81)]}]},
            {"cluster_name": "l", "endpoints": [{"locality": {"zone": "z"}, "leds_cluster_locality_config": members}]}],
        "envoy.config.endpoint.v3.LbEndpoint": [
            config.endpoint(80), config.endpoint(81, health_status="UNHEALTHY", load_balancing_weight=3)],
        "envoy.extensions.transport_sockets.tls.v3.Secret": [
            {"name": "s", "validation_context": {"trusted_ca": {"inline_string": "x"}}}, {"name": "t", "session_ticket_keys": {
                "keys": [{"inline_bytes": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM="}]}}],
        "envoy.config.listener.v3.Listener": [
            config.listener(manager), config.listener(config.tcp_proxy()), config.listener(found), config.listener(scoped),
            config.listener(chains=[{**config.chain(rds), "transport_socket": tls}])],
        "envoy.config.route.v3.RouteConfiguration": [{"name": "r", "virtual_hosts": hosts}],
        "envoy.config.route.v3.VirtualHost": hosts,
        EXTENSION: [config.router(), {"name": "f", "typed_config": rds["typed_config"]},
                    {"name": "f", "typed_config": config.tcp_proxy()["typed_config"]}],
        "envoy.service.runtime.v3.Runtime": [{"name": "l", "layer": {"a": 1, "b": {"numerator": 1}}}],
        "envoy.config.route.v3.ScopedRouteConfiguration": [
            {"name": "s", "route_configuration_name": "r", "key": {"fragments": [{"string_key": "a"}]}}],
    }


def typed(type_name, **fields):
    return {"name": "n", "typed_config": {"@type": f"type.googleapis.com/{type_name}", **fields}}


def match_trees():
    """One of each kind of predicate and map, alone and all together."""
    leads = {"action": typed("google.protobuf.StringValue", value="a")}
    header = typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name="x-h")
    server_name = typed("envoy.extensions.matching.common_inputs.network.v3.ServerNameInput")
    source = typed("envoy.extensions.matching.common_inputs.network.v3.SourceIPInput")
    uri = typed("envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput")
    ranges = [{"ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}], "on_match": leads}]
    domains = [{"domains": ["*.a.test", "a.test"], "on_match": leads}]
    predicates = [{"single_predicate": {"input": i, "value_match": {how: "a"}}}
                  for i, how in [(header, "exact"), (server_name, "prefix"), (uri, "suffix"), (header, "contains")]]
    predicates += [{"single_predicate": {"input": header, "value_match": {"safe_regex": {"regex": "^a.*b$"}}}},
                   {"single_predicate": {"input": source, "custom_match": typed(
                       "xds.type.matcher.v3.IPMatcher", range_matchers=ranges)}}]
    predicates += [{"not_matcher": predicates[0]}, {"and_matcher": {"predicate": predicates[:2]}},
                   {"or_matcher": {"predicate": predicates[2:]}}]
    maps = [{"input": header, "exact_match_map": {"map": {"a": leads, "b": leads}}},
            {"input": header, "prefix_match_map": {"map": {"a": leads, "ab": leads}}},
            {"input": source, "custom_match": typed("xds.type.matcher.v3.IPMatcher", range_matchers=ranges)},
            {"input": server_name, "custom_match": typed("xds.type.matcher.v3.ServerNameMatcher", domain_matchers=domains)}]
    trees = [{"matcher_list": {"matchers": [{"predicate": p, "on_match": leads}]}} for p in predicates]
    trees += [{"matcher_tree": m, "on_no_match": leads} for m in maps]
    nested = [{"predicate": predicates[0], "on_match": {"matcher": t}} for t in trees]
    return [*trees, {"matcher_list": {"matchers": nested}, "on_no_match": leads}]


def write(directory, data):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def main(corpus):
    rng, good = random.Random(1), served()
    for number, name in enumerate(types()):
        messages = [json_format.ParseDict(r, MESSAGES[name]()) for r in good[name]]
        messages += [fill(rng, MESSAGES[name]()) for _ in range(RANDOM_EACH)]
        messages += discovered_filters(rng) if name == EXTENSION else []
        for message in messages:
            write(corpus / "fuzz_compile", bytes([number, 8]) + message.SerializeToString())
    for tree in match_trees():
        wire = json_format.ParseDict(tree, matcher_pb2.Matcher()).SerializeToString()
        write(corpus / "fuzz_match_tree", b"\3a.b" + wire)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
