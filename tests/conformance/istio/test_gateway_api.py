"""The Kubernetes Gateway API as istiod renders it, before Kubernetes services: HTTPRoute, GRPCRoute, TLSRoute and TCPRoute, with
routes, weights, grants and endpoints that change below load."""

import concurrent.futures

import grpc
import pytest

from apps import App, Keeper, Traffic, get, greet, is_refused, told, trusting
from kube_api import GATEWAY_GROUP, namespace, secret
from mesh import Workload

from support.process import can_connect, free_port, wait_until
from support.rawhttp import Client
from support.upstream import ByteUpstream

V1 = f"{GATEWAY_GROUP}/v1"
HOST, PASSED, ENDED = "shop.example.com", "passed.example.com", "ended.example.com"
# port of the gateway's service → name of its listener; the proxy binds the target ports
LISTENERS = {80: "http", 443: "https", 8443: "passed", 9000: "bytes"}
GATE = {"gate": "api"}
METHOD = "/shop.Cart/Get"


def item(kind, name, spec, version=V1, space="default", labels=None):
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": space, "labels": labels or {}}, "spec": spec}


def service(name, port=80, protocol="http", space="default", **fields):
    return item("Service", name, {"clusterIP": "None" if "selector" not in fields else "10.0.0.10", "ports": [
        {"name": protocol, "port": port, "targetPort": port, "protocol": "TCP"}], **fields}, "v1", space)


def endpoint_slice(name, number, ports, space="default", **of_pod):
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": f"{name}-{number}", "namespace": space, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}, **of_pod}],
            "ports": [{"name": n, "port": p, "protocol": "TCP"} for n, p in ports.items()]}


def endpoints(name, *targets, protocol="http", space="default"):
    """A slice for each port, since all stand on one address."""
    return [endpoint_slice(name, number, {protocol: target}, space) for number, target in enumerate(targets)]


def route(kind, name, section, rules, hosts=(HOST,), version=V1, space="default"):
    return item(kind, name, {"parentRefs": [{"name": "gate", "namespace": "default", "sectionName": section}],
                             **({"hostnames": list(hosts)} if hosts else {}), "rules": rules}, version, space)


def backend(name, port=80, **fields):
    return {"name": name, "port": port, **fields}


def path(value, kind="PathPrefix"):
    return {"path": {"type": kind, "value": value}}


def rule(match, *backends, filters=(), **fields):
    return {"matches": [match], "backendRefs": list(backends), **({"filters": list(filters)} if filters else {}), **fields}


class Cart(grpc.GenericRpcHandler):
    """Answers each call with its method, twice where the method is a stream."""

    def service(self, details):
        def call(request, _):
            return details.method.encode() + b":" + request

        def stream(request, _):
            yield from (details.method.encode() + b":" + request,) * 2
        if details.method.endswith("Watch"):
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(call)


@pytest.fixture(scope="module")
def backends(identities):
    made = {"one": App("one"), "two": App("two"), "mirror": App("mirror"), "bytes": ByteUpstream(greet("bytes")),
            "tls": App("tls", identities.public.server_context(identities.site(PASSED)))}
    calls = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[Cart()])
    made_ports = {name: app.port for name, app in made.items()} | {"grpc": calls.add_insecure_port("127.0.0.1:0")}
    calls.start()
    yield made, made_ports
    for app in made.values():
        app.stop()
    calls.stop(0).wait()


@pytest.fixture(scope="module")
def ports():
    return {name: free_port() for name in LISTENERS.values()}


def gateway():
    return item("Gateway", "gate", {
        "gatewayClassName": "istio", "addresses": [{"type": "Hostname", "value": "gate.default.svc.cluster.local"}],
        "listeners": [
            {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}},
            {"name": "https", "port": 443, "protocol": "HTTPS", "hostname": ENDED, "tls": {
                "mode": "Terminate", "certificateRefs": [{"name": "ended"}]}},
            {"name": "passed", "port": 8443, "protocol": "TLS", "hostname": "*.example.com", "tls": {"mode": "Passthrough"}},
            {"name": "bytes", "port": 9000, "protocol": "TCP"}]})


def main_route(*more):
    header = {"name": "x-version", "value": "two"}
    return route("HTTPRoute", "shop", "http", [
        *more,
        rule({**path("/match"), "headers": [header]}, backend("two")),
        rule({**path("/match"), "queryParams": [{"name": "v", "value": "2"}], "method": "POST"}, backend("two")),
        rule(path("/exact", "Exact"), backend("two")),
        rule(path("/old"), filters=[{"type": "RequestRedirect", "requestRedirect": {
            "hostname": "new.example.com", "statusCode": 302, "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}}}]),
        rule(path("/strip"), backend("one"), filters=[{"type": "URLRewrite", "urlRewrite": {
            "hostname": "inner.example.com", "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}}}]),
        rule(path("/headers"), backend("one"), filters=[
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {
                "set": [{"name": "x-set", "value": "s"}], "add": [{"name": "x-add", "value": "a"}], "remove": ["x-gone"]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-answer", "value": "r"}]}}]),
        rule(path("/mirror"), backend("one"), filters=[{"type": "RequestMirror", "requestMirror": {"backendRef": backend("mirror")}}]),
        rule(path("/nobody"), backend("no-such-service")),
        rule(path("/"), backend("one"))])


def objects(backends, ports, identities):
    targets = backends[1]
    services = [i for name in ("one", "two", "mirror") for i in (service(name), *endpoints(name, targets[name]))]
    pair = identities.site(ENDED)
    return [
        secret("ended", {"tls.crt": pair.cert, "tls.key": pair.key}, "default") | {"type": "kubernetes.io/tls"},
        item("Service", "gate", {"clusterIP": "10.0.0.10", "selector": GATE, "ports": [
            {"name": name, "port": port, "targetPort": ports[name], "protocol": "TCP"} for port, name in LISTENERS.items()]},
            "v1"),
        endpoint_slice("gate", 0, ports, targetRef={"kind": "Pod", "name": "gate-0", "namespace": "default"}),
        *services, service("grpc", protocol="grpc"), *endpoints("grpc", targets["grpc"], protocol="grpc"),
        service("tls", protocol="tls"), *endpoints("tls", targets["tls"], protocol="tls"),
        service("bytes", protocol="tcp"), *endpoints("bytes", targets["bytes"], protocol="tcp"),
        gateway(), main_route(),
        route("HTTPRoute", "patterns", "http", [rule(path("/re/[0-9]+", "RegularExpression"), backend("two"))], ["re.example.com"]),
        route("HTTPRoute", "ended", "https", [rule(path("/"), backend("one"))], [ENDED]),
        route("GRPCRoute", "cart", "http", [{"matches": [{"method": {"service": "shop.Cart", "method": m}} for m in ("Get", "Watch")],
                                             "backendRefs": [backend("grpc")]}], ["grpc.example.com"]),
        route("TLSRoute", "passed", "passed", [{"backendRefs": [backend("tls")]}], [PASSED]),
        route("TCPRoute", "bytes", "bytes", [{"backendRefs": [backend("bytes")]}], [])]


@pytest.fixture(scope="module")
def plane(istio, identities, backends, ports):
    istio.apply(objects(backends, ports, identities))
    made = istio.proxy(Workload("gate", namespace="default", account="gate", labels=GATE))
    wait_until(lambda: all(can_connect(p) for p in ports.values()), lambda: f"{ports} {made.listeners()}", 20)
    return made


@pytest.mark.parametrize("target, options, label", [
    ("/", {}, "one"), ("/match", {}, "one"), ("/match", {"headers": [("x-version", "two")]}, "two"),
    ("/match?v=2", {"method": "POST"}, "two"), ("/match?v=2", {}, "one"), ("/exact", {}, "two"), ("/exact/", {}, "one"),
    ("/matches", {"headers": [("x-version", "two")]}, "one")])
def test_http_matches(plane, ports, target, options, label):
    assert told(get(ports["http"], HOST, target, **options))["server"] == label


def test_http_regex(plane, ports):
    assert told(get(ports["http"], "re.example.com", "/re/42?x"))["server"] == "two"
    assert get(ports["http"], "re.example.com", "/re/4x").status == 404


def test_http_filters(plane, backends, ports):
    answer = get(ports["http"], HOST, "/old/a?b")
    assert (answer.status, answer.get("location").partition("://")[2]) == (302, "new.example.com/new/a?b")
    got = told(get(ports["http"], HOST, "/strip/a?b"))
    assert (got["path"], got["headers"]["host"]) == ("/a?b", "inner.example.com")
    answer = get(ports["http"], HOST, "/headers", headers=[("x-gone", "1"), ("x-set", "old"), ("x-add", "old")])
    got = told(answer)["headers"]
    assert "x-gone" not in got and got["x-set"] == "s" and answer.get("x-answer") == "r"
    mirror = backends[0]["mirror"]
    before = len(mirror.requests)
    assert told(get(ports["http"], HOST, "/mirror/x"))["server"] == "one"
    mirror.wait_requests(before + 1)
    assert mirror.requests[-1].target == "/mirror/x"


def test_http_nothing_behind(plane, ports):
    assert get(ports["http"], HOST, "/nobody").status == 500
    assert get(ports["http"], "other.example.com").status == 404


def test_https(plane, identities, ports):
    got = told(get(ports["https"], ENDED, tls=trusting(identities.public), server_name=ENDED))
    assert (got["server"], got["headers"]["x-forwarded-proto"]) == ("one", "https")
    assert is_refused(ports["https"], HOST, trusting(identities.public))


def test_tls_route(plane, identities, ports):
    got = told(get(ports["passed"], PASSED, tls=trusting(identities.public), server_name=PASSED))
    assert (got["server"], got["sni"]) == ("tls", PASSED)
    assert is_refused(ports["passed"], "other.example.com", trusting(identities.public))


def test_tcp_route(plane, ports):
    with Client(ports["bytes"]) as client:
        assert client.send(b"ping\n").exactly(len("bytes ready\nbytes:ping\n")) == b"bytes ready\nbytes:ping\n"


def test_grpc_route(plane, ports):
    options = [("grpc.default_authority", "grpc.example.com")]
    with grpc.insecure_channel(f"127.0.0.1:{ports['http']}", options) as channel:
        assert channel.unary_unary(METHOD)(b"x", timeout=10) == METHOD.encode() + b":x"
        assert list(channel.unary_stream("/shop.Cart/Watch")(b"y", timeout=10)) == [b"/shop.Cart/Watch:y"] * 2
        for method in ("/shop.Cart/Put", "/bank.Cart/Get"):
            with pytest.raises(grpc.RpcError) as failed:
                channel.unary_unary(method)(b"x", timeout=10)
            assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_weights_change_under_load(istio, plane, ports):
    keeper = Keeper(ports["http"], HOST, "/canary")
    with Traffic(keeper.server) as traffic:
        for share in (10, 50, 100, 0):
            split = [backend("one", weight=100 - share), backend("two", weight=share)]
            istio.apply([main_route(rule(path("/canary"), *split))])

            def is_split(want=share):
                traffic.forget()
                wait_until(lambda: traffic.done() >= 300, "a sample", 30)
                with traffic.lock:
                    part = 100 * traffic.counts.get("two", 0) / sum(traffic.counts.values())
                return part == want if want in (0, 100) else abs(part - want) < 12
            wait_until(is_split, f"{share} %", 30)
    keeper.close()
    istio.apply([main_route()])


def test_endpoints_change_under_load(istio, plane, backends, ports):
    """A pod takes the place of another; the old one goes once nobody is sent there any more."""
    keeper = Keeper(ports["http"], HOST)
    with Traffic(keeper.server) as traffic:
        for turn in range(3):
            app = App(f"more-{turn}")
            with istio.applied(endpoints("one", app.port)):
                wait_until(lambda: traffic.seen(f"more-{turn}"), "the new endpoint", 20)
            wait_until(lambda: f"127.0.0.1:{app.port}" not in plane.admin("/clusters").text, "the endpoint to go", 20)
            traffic.wait_left(f"more-{turn}")
            app.stop()
    keeper.close()


def test_grants(istio, plane, backends, ports):
    """A service of another namespace may be used where its namespace says so."""
    istio.apply([namespace("store"), service("far", space="store"), *endpoints("far", backends[1]["two"], space="store"),
                 main_route(rule(path("/far"), backend("far", namespace="store")))])
    wait_until(lambda: get(ports["http"], HOST, "/far").status == 500, "the route", 20)
    grant = item("ReferenceGrant", "far", {"from": [{"group": GATEWAY_GROUP, "kind": "HTTPRoute", "namespace": "default"}],
                                           "to": [{"group": "", "kind": "Service"}]}, f"{GATEWAY_GROUP}/v1beta1", "store")
    with istio.applied([grant]):
        wait_until(lambda: get(ports["http"], HOST, "/far").status == 200, "the grant", 20)
    wait_until(lambda: get(ports["http"], HOST, "/far").status == 500, "the grant to go", 20)
    istio.apply([main_route()])


def test_status_is_written_back(istio, plane):
    """Not the proxy's work: that the stand-in API server is one istiod can work with."""
    def conditions():
        made = istio.kube.objects[(V1, "gateways", "default", "gate")].get("status", {})
        return {c["type"]: c["status"] for c in made.get("conditions", ())}
    wait_until(lambda: conditions().get("Programmed") == "True", conditions, 20)
