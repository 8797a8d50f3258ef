"""External authorization beside Envoy's: for each service, answer and request the same check, verdict, headers and stats."""

import concurrent.futures
import contextlib
import threading

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc
from google.protobuf import json_format

from support.config import TYPE, bootstrap, cluster, file_log, hcm, http2, listener, route, typed, vhost
from support.rawhttp import fetch
from support.upstream import Reply, ScriptedUpstream

EXT_AUTHZ = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
VERDICT = "%RESPONSE_CODE%|%RESPONSE_CODE_DETAILS%|%RESPONSE_FLAGS%|%DYNAMIC_METADATA(envoy.filters.http.ext_authz:k)%|" \
    "%FILTER_STATE(envoy.filters.http.ext_authz.shadow:PLAIN)%|" \
    "%FILTER_STATE(envoy.filters.http.ext_authz:PLAIN)%|%FILTER_STATE(envoy.filters.http.ext_authz:FIELD:nothing)%"
# What differs by nature: clocks, ids, ports, and whether a connection stays open after 413.
VOLATILE = {"date", "x-request-id", "x-envoy-upstream-service-time", "host"}


def patterns(*names):
    return {"patterns": [{"exact": n} for n in names]}


def http_service(**fields):
    return {"http_service": {"server_uri": {"uri": "http://authz", "cluster": "authz", "timeout": "2s"}, **fields}}


ANSWER = {"allowed_upstream_headers": patterns("x-up", "x-other"), "allowed_upstream_headers_to_append": patterns("x-app"),
          "allowed_client_headers": patterns("x-client"), "allowed_client_headers_on_success": patterns("x-success"),
          "dynamic_metadata_from_headers": patterns("k")}
SERVICES = {
    "plain": http_service(),
    "prefix": http_service(path_prefix="/check"),
    "answer": http_service(authorization_response=ANSWER),
    "to-add": http_service(authorization_request={"headers_to_add": [{"key": "x-new", "value": "n"}, {"key": "x-a", "value": "o"}]}),
    "allowed": {**http_service(), "allowed_headers": {"patterns": [{"prefix": "x-"}]}},
    "disallowed": {**http_service(), "allowed_headers": {"patterns": [{"prefix": "x-"}]},
                   "disallowed_headers": patterns("x-a", "authorization")},
    "body": {**http_service(), "with_request_body": {"max_request_bytes": 8, "allow_partial_message": True}},
    "whole-body": {**http_service(), "with_request_body": {"max_request_bytes": 64}},
    "small-body": {**http_service(), "with_request_body": {"max_request_bytes": 4}},
    "open": {**http_service(), "failure_mode_allow": True, "failure_mode_allow_header_add": True},
    "status": {**http_service(), "status_on_error": {"code": "ServiceUnavailable"}},
    "off": {**http_service(), "filter_enabled": {"default_value": {"numerator": 0}}},
    "off-deny": {**http_service(), "filter_enabled": {"default_value": {"numerator": 0}},
                 "deny_at_disable": {"default_value": True, "runtime_key": "x.deny"}},
    "metadata-off": {**http_service(), "filter_enabled_metadata": {"filter": "ns", "path": [{"key": "k"}],
                                                                   "value": {"present_match": True}}},
    "validate": {**http_service(authorization_response=ANSWER), "validate_mutations": True},
    "rules": {**http_service(authorization_response=ANSWER),
              "decoder_header_mutation_rules": {"disallow_expression": {"regex": "x-up"}}},
    "rules-error": {**http_service(authorization_response=ANSWER),
                    "decoder_header_mutation_rules": {"disallow_all": True, "disallow_is_error": True}},
    "cut-body": {**http_service(), "max_denied_response_body_bytes": 3},
    "uncharged": {**http_service(), "charge_cluster_response_stats": False},
    "prefixed": {**http_service(), "stat_prefix": "mine"},
    "shadow": {**http_service(authorization_response=ANSWER), "shadow_mode": True, "status_on_error": {"code": 503}},
    "shadow-open": {**http_service(authorization_response=ANSWER), "shadow_mode": True, "failure_mode_allow": True, "failure_mode_allow_header_add": True},
    "shadow-off": {**http_service(), "shadow_mode": True, "filter_enabled": {"default_value": {"numerator": 0}},
                   "deny_at_disable": {"default_value": True, "runtime_key": "x.deny"}, "status_on_error": {"code": 503}},
    "shadow-rules": {**http_service(authorization_response=ANSWER), "shadow_mode": True, "validate_mutations": True,
                     "decoder_header_mutation_rules": {"disallow_all": True, "disallow_is_error": True}},
    "latency": {**http_service(), "emit_filter_state_stats": True},
}
ANSWERS = {
    "ok": Reply(200),
    "ok-headers": Reply(200, headers=[("x-up", "1"), ("x-up", "2"), ("x-app", "3"), ("x-success", "4"), ("k", "v"), ("x-other", "")]),
    "remove": Reply(200, headers=[("x-envoy-auth-headers-to-remove", "x-a, x-b,,host")]),
    "denied": Reply(403, headers=[("x-client", "c"), ("x-other", "o")], body=b"go away"),
    "challenge": Reply(401, headers=[("www-authenticate", "Basic"), ("set-cookie", "a=1"), ("set-cookie", "b=2")], body=b""),
    "redirect": Reply(302, headers=[("location", "/login")], body=b""),
    "created": Reply(201, body=b"x"),
    "error": Reply(500, body=b"x"),
    "unavailable": Reply(503),
    "gone": Reply(reset=True),
}
REQUESTS = [
    ("GET", "/a?x=1", [], b""),
    ("GET", "/a", [("authorization", "Bearer t"), ("x-a", "1"), ("x-a", "2"), ("x-b", "3"), ("x-app", "0"), ("cookie", "c=d")], b""),
    ("POST", "/a", [("x-a", "\xe9")], b"0123456789"),
    ("POST", "/a", [("content-type", "application/grpc")], b"abc"),
]


def comparable(headers):
    return sorted((n.lower(), v) for n, v in headers if n.lower() not in VOLATILE)


class HttpSide:
    """One proxy in front of a service and an upstream of its own."""

    def __init__(self, start, directory, configs):
        self.upstream, self.service = ScriptedUpstream(), ScriptedUpstream()
        self.logs = {name: directory / f"{name}.log" for name in configs}
        self.proxy = start(bootstrap(
            [listener(hcm(filters=[typed("envoy.filters.http.ext_authz", EXT_AUTHZ, **config)], stat_prefix=name,
                          access_log=[file_log(self.logs[name], VERDICT + "\n")]), name=name)
             for name, config in configs.items()],
            [cluster("up", self.upstream.port), cluster("authz", self.service.port)]))
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}

    def outcome(self, name, answer, request):
        method, path, headers, body = request
        self.service.script(answer)
        self.upstream.script(Reply(200, headers=[("x-success", "upstream")]))
        seen = len(self.proxy.log_lines(self.logs[name], 0))
        length = [("content-length", str(len(body)))] if body else []
        reply = fetch(self.ports[name], path, method, headers + length, body)
        asked, forwarded = ([(r.method, r.target, comparable(r.headers), r.body) for r in server.requests]
                            for server in (self.service, self.upstream))
        # on a pooled connection found closed Sluice asks once more
        return {"reply": (reply.status, comparable(reply.headers), reply.body), "asked": asked[:1], "forwarded": forwarded,
                "log": self.proxy.log_lines(self.logs[name], seen + 1)[seen:]}

    def stats(self):
        return {n: v for n, v in self.proxy.stats(r"ext_authz|cluster\.up\.(internal\.|external\.)?upstream_rq_[45]").items() if v}

    def stop(self):
        self.upstream.stop()
        self.service.stop()


@pytest.fixture(scope="module")
def http_sides(shared_envoy, shared_sluice, tmp_path_factory):
    sides = []
    for start in (shared_envoy, shared_sluice):
        sides.append(HttpSide(start, tmp_path_factory.mktemp("ext_authz"), SERVICES))
    yield sides
    for side in sides:
        side.stop()


def agree(sides, *case):
    envoy, sluice = (side.outcome(*case) for side in sides)
    for what, wanted in envoy.items():
        assert sluice[what] == wanted, f"{what}: envoy {wanted}, sluice {sluice[what]}"


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("service", SERVICES)
def test_http_service(http_sides, service, answer):
    for request in REQUESTS:
        agree(http_sides, service, ANSWERS[answer], request)


def test_http_stats(http_sides):
    """After the cases above."""
    for service in ("plain", "open", "prefixed", "uncharged", "shadow", "shadow-off"):
        for answer in ("ok", "denied", "error"):
            agree(http_sides, service, ANSWERS[answer], REQUESTS[0])
    envoy, sluice = (side.stats() for side in http_sides)
    assert sluice == envoy


# ---- gRPC ----

def option(key, value, **fields):
    return {"header": {"key": key, "value": value}, **fields}


PERMISSION_DENIED = {"code": 7}
GRPC_ANSWERS = {
    "empty": {},
    "ok": {"status": {}, "ok_response": {}},
    "ok-headers": {"ok_response": {"headers": [option("x-new", "1"), option("X-A", "2"), option("x-b", "3", append=True),
                                               option("x-none", "4", append=True)],
                                   "headers_to_remove": ["x-c", "host", ":path"]}},
    "ok-actions": {"ok_response": {"headers": [option("x-a", "s", append_action="ADD_IF_ABSENT"),
                                               option("x-n", "t", append_action="OVERWRITE_IF_EXISTS"),
                                               option("x-b", "u", append_action="OVERWRITE_IF_EXISTS_OR_ADD")]}},
    "ok-pseudo": {"ok_response": {"headers": [option(":path", "/other"), option("host", "h2"), option(":method", "PUT")]}},
    "ok-response": {"ok_response": {"response_headers_to_add": [
        option("x-r", "1"), option("x-success", "2", append_action="ADD_IF_ABSENT"),
        option("x-success", "3", append_action="APPEND_IF_EXISTS_OR_ADD"), option("x-s", "4", append_action="OVERWRITE_IF_EXISTS"),
        option("x-t", "5", append_action="OVERWRITE_IF_EXISTS_OR_ADD"), option("x-u", "6", append=True)]}},
    "ok-query": {"ok_response": {"query_parameters_to_set": [{"key": "b", "value": "2"}, {"key": "x", "value": "9"}],
                                 "query_parameters_to_remove": ["y", "none"]}},
    "ok-metadata": {"ok_response": {}, "dynamic_metadata": {"k": {"n": 1, "l": [True, None, "s"]}}},
    "denied": {"status": PERMISSION_DENIED},
    "denied-ok": {"status": PERMISSION_DENIED, "ok_response": {"headers": [option("x-a", "1")]}},
    "denied-all": {"status": PERMISSION_DENIED, "denied_response": {
        "status": {"code": "Unauthorized"}, "body": "who?", "headers": [option("x-a", "1"), option("x-a", "2"),
                                                                      option("content-type", "text/html")]}},
    "denied-metadata": {"status": {"code": 16}, "dynamic_metadata": {"k": "why"}},
    "error": None,
}
GRPC_SERVICES = {
    "plain": {},
    "body": {"with_request_body": {"max_request_bytes": 8, "allow_partial_message": True}},
    "bytes": {"with_request_body": {"max_request_bytes": 64, "pack_as_bytes": True}},
    "raw": {"encode_raw_headers": True},
    "allowed": {"allowed_headers": {"patterns": [{"prefix": "x-"}]}, "disallowed_headers": patterns("x-b")},
    "open": {"failure_mode_allow": True},
    "validate": {"validate_mutations": True},
    "clear": {"clear_route_cache": True},
    "shadow": {"shadow_mode": True},
    "no-metadata": {"enable_dynamic_metadata_ingestion": False},
    "tls": {"include_tls_session": True, "include_peer_certificate": True, "route_metadata_context_namespaces": ["ns", "none"]},
}
GRPC_REQUESTS = [
    ("GET", "/a?y=1&x=2&x=3&z", [("x-a", "1"), ("x-b", "2"), ("x-b", "3"), ("x-c", "4")], b""),
    ("POST", "/a", [("x-a", "\xe9")], b"\x00\xff0123456789"),
    ("POST", "/route", [("x-envoy-auth-partial-body", "forged")], b"abc"),
]


class Checker(auth_grpc.AuthorizationServicer):
    def __init__(self):
        self.answer, self.asked, self.lock = {}, [], threading.Lock()

    def Check(self, request, context):
        with self.lock:
            self.asked.append(request)
            if self.answer is None:
                context.abort(grpc.StatusCode.INTERNAL, "broken")
            return json_format.ParseDict(self.answer, auth.CheckResponse())


def stripped(request):
    """Without clocks, ids and ports."""
    message = json_format.MessageToDict(request, preserving_proto_field_name=True)
    attributes = message["attributes"]
    http = attributes["request"]["http"]
    assert attributes["request"].pop("time") and http.pop("id")
    for peer in ("source", "destination"):
        assert attributes[peer]["address"]["socket_address"].pop("port_value")
    if "header_map" in http:
        http["headers"] = sorted((h["key"], h.get("raw_value")) for h in http.pop("header_map")["headers"]
                                 if h["key"] not in VOLATILE)
    else:
        http["headers"] = {k: v for k, v in http["headers"].items() if k not in VOLATILE}
    return message


class GrpcSide(HttpSide):
    def __init__(self, start, directory, configs):
        self.upstream, self.checker = ScriptedUpstream(), Checker()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        auth_grpc.add_AuthorizationServicer_to_server(self.checker, self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        settings = {"envoy.filters.http.ext_authz": {
            "@type": f"{TYPE}{EXT_AUTHZ}PerRoute", "check_settings": {"context_extensions": {"e": "route", "r": "1"}}}}
        off = {"envoy.filters.http.ext_authz": {"@type": f"{TYPE}{EXT_AUTHZ}PerRoute", "disabled": True}}
        outer = {"envoy.filters.http.ext_authz": {
            "@type": f"{TYPE}{EXT_AUTHZ}PerRoute", "check_settings": {"context_extensions": {"e": "host", "h": "1"}}}}
        routes = [{**route("/route"), "typed_per_filter_config": settings,
                   "metadata": {"filter_metadata": {"ns": {"a": [1, {"b": "c"}]}}}},
                  {**route("/off"), "typed_per_filter_config": off}, {"match": {"prefix": "/other"}, "direct_response": {"status": 418}}, route("/")]
        vhosts = [vhost(routes, typed_per_filter_config=outer)]
        self.logs = {name: directory / f"{name}.log" for name in configs}
        service = {"transport_api_version": "V3", "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s"}}
        self.proxy = start(bootstrap(
            [listener(hcm(vhosts=vhosts, filters=[typed("envoy.filters.http.ext_authz", EXT_AUTHZ, **service, **config)],
                          stat_prefix=name, access_log=[file_log(self.logs[name], VERDICT + "\n")]), name=name)
             for name, config in configs.items()],
            [cluster("up", self.upstream.port), cluster("authz", port, typed_extension_protocol_options=http2())]))
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}

    def outcome(self, name, answer, request):
        method, path, headers, body = request
        self.checker.answer, self.checker.asked = answer, []
        self.upstream.script(Reply(200, headers=[("x-success", "upstream")]))
        seen = len(self.proxy.log_lines(self.logs[name], 0))
        length = [("content-length", str(len(body)))] if body else []
        reply = fetch(self.ports[name], path, method, headers + length, body)
        return {"reply": (reply.status, comparable(reply.headers), reply.body),
                "asked": [stripped(r) for r in self.checker.asked],
                "forwarded": [(r.method, r.target, comparable(r.headers), r.body) for r in self.upstream.requests],
                "log": self.proxy.log_lines(self.logs[name], seen + 1)[seen:]}

    def stop(self):
        self.upstream.stop()
        self.server.stop(None)


@pytest.fixture(scope="module")
def grpc_sides(shared_envoy, shared_sluice, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        sides = []
        for start in (shared_envoy, shared_sluice):
            side = GrpcSide(start, tmp_path_factory.mktemp("ext_authz"), GRPC_SERVICES)
            stack.callback(side.stop)
            sides.append(side)
        yield sides


@pytest.mark.parametrize("answer", GRPC_ANSWERS)
@pytest.mark.parametrize("service", GRPC_SERVICES)
def test_grpc_service(grpc_sides, service, answer):
    for request in GRPC_REQUESTS:
        agree(grpc_sides, service, GRPC_ANSWERS[answer], request)


def test_routes(grpc_sides):
    for path in ("/off", "/route", "/other", "/"):
        agree(grpc_sides, "plain", GRPC_ANSWERS["denied"], ("GET", path, [], b""))
    envoy, sluice = (side.stats() for side in grpc_sides)
    assert sluice == envoy
