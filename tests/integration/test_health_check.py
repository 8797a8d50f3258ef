"""Active health checks: what is asked, what the answers make of hosts, warming, the event log."""

import json
import subprocess
import threading
from concurrent import futures

import grpc
import pytest

from support.ads_server import CLUSTER, ENDPOINTS
from support.config import bootstrap, cluster, endpoint, file_log, hcm, http2, listener, tls_socket, typed
from support.process import free_port, wait_until
from support.proxy import Sluice
from support.rawhttp import fetch
from support.upstream import ByteUpstream, Reply, ScriptedUpstream
from support.xds_config import ads_bootstrap, assignment, eds_cluster, serve_all


def check(kind="http_health_check", specific=None, **fields):
    """Quick checks: whether there is traffic makes no difference."""
    return {"timeout": "2s", "interval": "0.05s", "no_traffic_interval": "0.05s", "unhealthy_threshold": 2,
            "healthy_threshold": 2, kind: specific if specific is not None else {"path": "/hc"}, **fields}


def http_check(**fields):
    return check(specific={"path": "/hc", **fields})


def is_check(request):
    return request.target == "/hc"


def health(proxy, port, name="up"):
    """What /clusters says of the host's health."""
    lead = f"{name}::127.0.0.1:{port}::health_flags::"
    return next((line[len(lead):] for line in proxy.admin("/clusters").text.splitlines() if line.startswith(lead)), None)


def wait_health(proxy, port, want, name="up"):
    wait_until(lambda: health(proxy, port, name) == want, lambda: f"{want}, it is {health(proxy, port, name)}")


def start(sluice, *hosts, one=None, **fields):
    return sluice(bootstrap([listener(hcm())], [cluster("up", *hosts, health_checks=[one or check()], **fields)]))


@pytest.mark.smoke
def test_a_host_fails_and_returns(sluice, upstreams):
    good, bad = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    proxy = start(sluice, good.port, bad.port)
    assert (health(proxy, good.port), health(proxy, bad.port)) == ("healthy", "healthy"), "warm is checked"
    assert proxy.stat("cluster.up.health_check.healthy") == 2
    bad.script(Reply(status=503))
    wait_health(proxy, bad.port, "/failed_active_hc")
    proxy.wait_stat("cluster.up.membership_healthy", 1)
    good.script(Reply())
    assert all(fetch(proxy.port()).status == 200 for _ in range(10))
    assert proxy.stat("cluster.up.health_check.failure") > 0
    assert proxy.stat("cluster.up.health_check.network_failure") == 0
    bad.script(Reply())
    wait_health(proxy, bad.port, "healthy")
    proxy.wait_stat("cluster.up.membership_healthy", 2)


@pytest.mark.smoke
def test_the_request(sluice, upstream):
    proxy = start(sluice, upstream.port, one=http_check(
        host="health.test", request_headers_to_remove=["user-agent"],
        request_headers_to_add=[{"header": {"key": "x-check", "value": "on %UPSTREAM_CLUSTER%"}}]))
    request = upstream.wait_requests(1)[0]
    assert (request.method, request.target, request.get("host"), request.get("x-check"), request.get("user-agent")) == \
        ("GET", "/hc", "health.test", "on up", None)
    upstream.wait_requests(3)
    assert upstream.accepted == 1, "the connection is kept"
    proxy.wait_stat("cluster.up.health_check.success", lambda n: n >= 3)


def test_method_and_body(sluice, upstream):
    start(sluice, upstream.port, one=http_check(method="POST", send={"text": "68656c6c6f"}))
    request = upstream.wait_requests(1)[0]
    assert (request.method, request.body, request.get("host"), request.get("user-agent")) == \
        ("POST", b"hello", "up", "Envoy/HC")


def test_each_check_on_its_own_connection(sluice, upstream):
    start(sluice, upstream.port, one=check(reuse_connection=False))
    upstream.wait_requests(3)
    assert upstream.accepted >= 3


@pytest.mark.parametrize("fields, reply, want", [
    ({}, Reply(status=204), "/failed_active_hc"),
    ({"expected_statuses": [{"start": 200, "end": 205}]}, Reply(status=204), "healthy"),
    ({"expected_statuses": [{"start": 201, "end": 205}]}, Reply(status=200), "/failed_active_hc"),
    ({"receive": [{"text": "6f6b"}]}, Reply(body=b"is ok"), "healthy"),
    ({"receive": [{"text": "6f6b"}, {"text": "6973"}]}, Reply(body=b"is ok"), "/failed_active_hc"),
    ({"receive": [{"text": "6f6b"}], "response_buffer_size": 3}, Reply(body=b"is ok"), "/failed_active_hc"),
    ({"receive": [{"text": "6f6b"}], "response_buffer_size": 0}, Reply(body=b"x" * 5000 + b"ok"), "healthy"),
    ({}, Reply(headers=[("x-envoy-degraded", "1")]), "/degraded_active_hc"),
    ({}, Reply(status=503, headers=[("x-envoy-immediate-health-check-fail", "true")]),
     "/failed_active_hc/excluded_via_immediate_hc_fail"),
    ({"service_name_matcher": {"prefix": "loc"}}, Reply(headers=[("x-envoy-upstream-healthchecked-cluster", "locations")]),
     "healthy"),
    ({"service_name_matcher": {"prefix": "loc"}}, Reply(headers=[("x-envoy-upstream-healthchecked-cluster", "other")]),
     "/failed_active_hc"),
    ({}, Reply(body=b"until the end", length=False, close=True), "healthy"),
    ({}, Reply(headers=[("connection", "close")], close=True), "healthy"),
    ({}, Reply(raw=b"HTTP/1.1 nonsense\r\n\r\n", close=True), "/failed_active_hc"),
    ({}, Reply(reset=True), "/failed_active_hc"),
])
def test_verdicts(sluice, upstream, fields, reply, want):
    upstream.script(reply)
    proxy = start(sluice, upstream.port, one=http_check(**fields))
    assert health(proxy, upstream.port) == want


def test_nobody_listens(sluice):
    port = free_port()
    proxy = start(sluice, port)
    assert health(proxy, port) == "/failed_active_hc"
    assert proxy.stat("cluster.up.health_check.network_failure") >= 1
    assert fetch(proxy.port()).status == 503


def test_timeout(sluice, upstream):
    upstream.script(Reply(), Reply(silent=True))
    proxy = start(sluice, upstream.port, one=check(timeout="0.1s", unhealthy_threshold=2))
    assert health(proxy, upstream.port) == "healthy"
    wait_health(proxy, upstream.port, "/failed_active_hc/active_hc_timeout")
    assert proxy.stat("cluster.up.health_check.network_failure") >= 2, "the threshold counts"
    upstream.script(Reply())
    wait_health(proxy, upstream.port, "healthy")


def test_retriable_statuses_count_to_the_threshold(sluice, upstream):
    upstream.script(Reply(), Reply(status=503))
    retriable = {"retriable_statuses": [{"start": 503, "end": 504}]}
    proxy = start(sluice, upstream.port, one=check(specific={"path": "/hc", **retriable}, unhealthy_threshold=4,
                                                   healthy_threshold=1))
    wait_health(proxy, upstream.port, "/failed_active_hc")
    assert proxy.stat("cluster.up.health_check.failure") >= 4


def test_another_port_and_name(sluice, upstreams):
    serving, checking = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    config = {"health_check_config": {"port_value": checking.port, "hostname": "host.check"}}
    start(sluice, endpoint(serving.port, endpoint=config))
    assert checking.wait_requests(1)[0].get("host") == "host.check"
    assert not serving.requests


def test_a_host_may_be_left_out(sluice, upstream):
    config = {"health_check_config": {"disable_active_health_check": True}}
    proxy = start(sluice, endpoint(upstream.port, endpoint=config))
    assert health(proxy, upstream.port) == "healthy"
    assert proxy.stat("cluster.up.health_check.attempt") == 0


@pytest.mark.parametrize("send, receive, answer, want", [
    (None, [], b"", "healthy"),
    ("70696e67", ["706f6e67"], b"xpongx", "healthy"),
    ("70696e67", ["706f6e67", "21"], b"pong!", "healthy"),
    ("70696e67", ["21", "706f6e67"], b"pong!", "/failed_active_hc/active_hc_timeout"),
])
def test_tcp(sluice, upstreams, send, receive, answer, want):
    seen = []

    def serve(sock, server):
        while data := sock.recv(100):
            seen.append(data)
            sock.sendall(answer)

    server = upstreams(ByteUpstream, serve)
    specific = {"receive": [{"text": text} for text in receive], **({"send": {"text": send}} if send else {})}
    proxy = start(sluice, server.port, one=check("tcp_health_check", specific, timeout="0.2s"))
    wait_health(proxy, server.port, want)
    assert not send or seen[0] == b"ping"


def test_a_request_tells_that_the_host_leaves(sluice, upstream):
    """x-envoy-immediate-health-check-fail on a response; the next check that passes brings the host back."""
    leaving = Reply(headers=[("x-envoy-immediate-health-check-fail", "true")])
    gate = threading.Event()

    def answer(request):
        return Reply(gate=gate) if is_check(request) and upstream.is_leaving else Reply() if is_check(request) else leaving

    upstream.is_leaving = False
    upstream.script(answer)
    proxy = start(sluice, upstream.port)
    upstream.is_leaving = True
    assert fetch(proxy.port()).status == 200
    wait_health(proxy, upstream.port, "/failed_active_hc/excluded_via_immediate_hc_fail")
    assert proxy.stat("cluster.up.health_check.passive_failure") == 1
    assert proxy.stat("cluster.up.membership_excluded") == 1
    upstream.is_leaving = False
    gate.set()
    wait_health(proxy, upstream.port, "healthy")


def test_event_log(sluice, upstream, tmp_path):
    log = tmp_path / "events"
    upstream.script(Reply(), Reply(), Reply(status=500), Reply(status=500), Reply())
    proxy = start(sluice, endpoint(upstream.port, metadata={"filter_metadata": {"envoy.lb": {"a": 1}}}),
                  one=check(event_log_path=str(log)))
    events = [json.loads(line) for line in proxy.log_lines(log, 3)]
    assert events[0]["add_healthy_event"] == {"first_check": True}
    assert events[1]["eject_unhealthy_event"]["failure_type"] == "ACTIVE"
    assert events[2]["add_healthy_event"] == {"first_check": False}
    event = events[0]
    assert event["health_checker_type"] == "HTTP" and event["cluster_name"] == "up"
    assert event["host"]["socket_address"]["port_value"] == upstream.port
    assert event["metadata"]["filter_metadata"] == {"envoy.lb": {"a": 1}}
    assert event["locality"] == {"region": "", "zone": "", "sub_zone": ""}


def test_event_log_of_failures(sluice, tmp_path):
    log = tmp_path / "events"
    port = free_port()
    sink = {"name": "envoy.health_check.event_sink.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink",
        "event_log_path": str(log)}}
    proxy = start(sluice, port, one=check(event_logger=[sink], always_log_health_check_failures=True))
    events = [json.loads(line) for line in proxy.log_lines(log, 2)]
    assert [e["health_check_failure_event"]["first_check"] for e in events[:2]] == [True, False]
    assert events[0]["health_check_failure_event"]["failure_type"] == "NETWORK"


@pytest.mark.parametrize("fields, error", [
    ({"http_health_check": {"path": "/", "send": {"text": "zz"}}}, "invalid hex string 'zz'"),
    ({"http_health_check": {"path": "/", "expected_statuses": [{"start": 99, "end": 200}]}}, "expecting start >= 100"),
    ({"http_health_check": {"path": "/", "expected_statuses": [{"start": 200, "end": 601}]}}, "expecting end <= 600"),
    ({"http_health_check": {"path": "/", "retriable_statuses": [{"start": 200, "end": 200}]}}, "expecting start < end"),
    ({"http_health_check": {"path": "/", "codec_client_type": "HTTP3"}}, "HTTP/3"),
    ({"http_health_check": {"path": ""}}, "path"),
    ({"grpc_health_check": {}}, "must support HTTP/2"),
    ({"tcp_health_check": {"proxy_protocol_config": {}}}, "proxy_protocol_config"),
    ({"http_health_check": {"path": "/"}, "timeout": None}, "timeout"),
    ({}, "health_checker"),
])
def test_refused(tmp_path, fields, error):
    one = {**check(), **fields}
    if "http_health_check" not in fields:
        del one["http_health_check"]
    one = {k: v for k, v in one.items() if v is not None}
    config = tmp_path / "bootstrap.json"
    config.write_text(json.dumps(bootstrap([], [cluster("up", 1, health_checks=[one])])))
    done = subprocess.run([Sluice.binary, "-c", config, "--mode", "validate"], capture_output=True, text=True, timeout=60,
                          check=False)
    assert done.returncode == 1
    assert error in done.stderr


# ---- by EDS ----

def eds_up(one=None, **fields):
    return eds_cluster("up", health_checks=[one or check()], **fields)


def test_a_new_cluster_waits_for_its_checks(sluice, ads, upstream):
    gate = threading.Event()
    upstream.script(lambda request: Reply(gate=gate) if is_check(request) else Reply())
    serve_all(ads, upstream.port)
    ads.set(CLUSTER, "c2", [eds_up()])
    proxy = sluice(ads_bootstrap(ads), ready=False)
    upstream.wait_requests(1)
    proxy.wait_stat("cluster_manager.warming_clusters", 1)
    gate.set()
    proxy.wait_stat("cluster_manager.warming_clusters", 0)
    wait_until(lambda: fetch(proxy.port()).status == 200, "traffic")


@pytest.mark.parametrize("ignore", [False, True])
def test_a_healthy_host_stays_when_discovery_forgets_it(sluice, ads, upstreams, ignore):
    stays, goes = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    serve_all(ads, stays.port)
    ads.set(CLUSTER, "c2", [eds_up(ignore_health_on_host_removal=ignore)])
    ads.set(ENDPOINTS, "e2", [assignment("up", stays.port, goes.port)])
    proxy = sluice(ads_bootstrap(ads))
    proxy.wait_stat("cluster.up.membership_healthy", 2)
    ads.set(ENDPOINTS, "e3", [assignment("up", stays.port)])
    if not ignore:
        wait_health(proxy, goes.port, "/pending_dynamic_removal")
        goes.script(Reply(status=500))
    wait_health(proxy, goes.port, None)
    proxy.wait_stat("cluster.up.membership_total", 1)
    assert health(proxy, stays.port) == "healthy"


def test_a_forgotten_host_that_is_named_again(sluice, ads, upstreams):
    one, two = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    serve_all(ads, one.port)
    ads.set(CLUSTER, "c2", [eds_up()])
    ads.set(ENDPOINTS, "e2", [assignment("up", one.port, two.port)])
    proxy = sluice(ads_bootstrap(ads))
    proxy.wait_stat("cluster.up.membership_healthy", 2)
    ads.set(ENDPOINTS, "e3", [assignment("up", one.port)])
    wait_health(proxy, two.port, "/pending_dynamic_removal")
    ads.set(ENDPOINTS, "e4", [assignment("up", one.port, two.port)])
    wait_health(proxy, two.port, "healthy")


def test_a_new_host_gets_nothing_before_its_first_check(sluice, ads, upstreams):
    gate = threading.Event()
    old, new = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    new.script(lambda request: Reply(gate=gate) if is_check(request) else Reply())
    serve_all(ads, old.port)
    ads.set(CLUSTER, "c2", [eds_up(common_lb_config={"ignore_new_hosts_until_first_hc": True})])
    proxy = sluice(ads_bootstrap(ads))
    ads.set(ENDPOINTS, "e2", [assignment("up", old.port, new.port)])
    wait_health(proxy, new.port, "/failed_active_hc/pending_active_hc")
    proxy.wait_stat("cluster.up.membership_excluded", 1)
    assert all(fetch(proxy.port()).status == 200 for _ in range(10))
    assert not [r for r in new.requests if not is_check(r)]
    gate.set()
    wait_health(proxy, new.port, "healthy")


def test_checks_end_with_their_configuration(sluice, ads, upstream):
    upstream.script(Reply(status=500))
    serve_all(ads, upstream.port)
    ads.set(CLUSTER, "c2", [eds_up()])
    proxy = sluice(ads_bootstrap(ads))
    wait_health(proxy, upstream.port, "/failed_active_hc")
    ads.set(CLUSTER, "c3", [eds_cluster("up")])
    wait_health(proxy, upstream.port, "healthy")
    wait_until(lambda: fetch(proxy.port()).status == 500, "traffic")
    ads.set(CLUSTER, "c4", [eds_up()])
    wait_health(proxy, upstream.port, "/failed_active_hc")


# ---- gRPC, HTTP/2, TLS ----

SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"


class GrpcHealth(grpc.GenericRpcHandler):
    """grpc.health.v1.Health by hand: `answer` is the response's bytes, or a status code."""

    def __init__(self):
        self.answer = SERVING
        self.calls = []
        self.server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        if details.method != "/grpc.health.v1.Health/Check":
            return None
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self.check(request, context, dict(details.invocation_metadata)))

    def check(self, request, context, metadata):
        self.calls.append((request, metadata))
        if isinstance(self.answer, grpc.StatusCode):
            context.abort(self.answer, "no")
        return self.answer

    def stop(self):
        self.server.stop(None)


@pytest.fixture
def grpc_health():
    server = GrpcHealth()
    yield server
    server.stop()


def test_grpc(sluice, grpc_health):
    one = check("grpc_health_check", {"service_name": "shop", "authority": "shop.test", "initial_metadata": [
        {"header": {"key": "x-why", "value": "check"}}]}, healthy_threshold=1)
    proxy = start(sluice, grpc_health.port, one=one, typed_extension_protocol_options=http2())
    assert health(proxy, grpc_health.port) == "healthy"
    request, metadata = grpc_health.calls[0]
    assert request == b"\x0a\x04shop" and metadata["x-why"] == "check"
    for answer in (NOT_SERVING, grpc.StatusCode.UNIMPLEMENTED, b"", b"\xff\xff\xff"):
        grpc_health.answer = answer
        wait_health(proxy, grpc_health.port, "/failed_active_hc")
        grpc_health.answer = SERVING
        wait_health(proxy, grpc_health.port, "healthy")


def test_http2_over_tls(sluice, h2_upstream, authority):
    server = h2_upstream({"/hc": b"fine"}, tls=authority.server_context(authority.leaf("up.test"), alpn=["h2"]))
    tls = tls_socket("Upstream", sni="up.test", common_tls_context={"validation_context": {
        "trusted_ca": {"filename": str(authority.pair.cert)}}})
    proxy = start(sluice, server.port, one=check(specific={"path": "/hc", "codec_client_type": "HTTP2"},
                                                 tls_options={"alpn_protocols": ["h2"]}), transport_socket=tls)
    wait_health(proxy, server.port, "healthy")


def test_the_transport_is_chosen_by_criteria(sluice, upstream):
    """The cluster speaks TLS, its checks do not."""
    matches = [{"name": "plain", "match": {"way": "plain"},
                "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}]
    proxy = start(sluice, upstream.port, one=check(transport_socket_match_criteria={"way": "plain"}),
                  transport_socket=tls_socket("Upstream"), transport_socket_matches=matches)
    assert health(proxy, upstream.port) == "healthy"
    proxy = start(sluice, upstream.port, one=check(timeout="0.2s"), transport_socket=tls_socket("Upstream"),
                  transport_socket_matches=matches)
    assert health(proxy, upstream.port).startswith("/failed_active_hc")


# ---- our own health: envoy.filters.http.health_check ----

def health_filter(**fields):
    return typed("envoy.filters.http.health_check", "envoy.extensions.filters.http.health_check.v3.HealthCheck",
                 headers=[{"name": ":path", "string_match": {"exact": "/hc"}}], **fields)


def test_own_health(sluice, upstream, tmp_path):
    log = tmp_path / "log"
    logs = [file_log(log, "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%\n")]
    first = health_filter(pass_through_mode=False, cluster_min_healthy_percentages={"up": {"value": 50}})
    proxy = sluice(bootstrap([listener(hcm(filters=[first], access_log=logs))], [cluster("up", upstream.port)]))
    reply = fetch(proxy.port(), "/hc")
    assert reply.status == 200 and reply.get("x-envoy-upstream-healthchecked-cluster") == "test-cluster"
    assert fetch(proxy.port()).get("x-envoy-immediate-health-check-fail") is None
    proxy.post("/healthcheck/fail")
    assert fetch(proxy.port(), "/hc").status == 503
    assert fetch(proxy.port()).get("x-envoy-immediate-health-check-fail") == "true"
    proxy.post("/healthcheck/ok")
    assert fetch(proxy.port(), "/hc").status == 200
    assert proxy.log_lines(log, 5) == ["200 - health_check_ok", "200 - via_upstream", "503 LH health_check_failed",
                                       "200 - via_upstream", "200 - health_check_ok"]
    assert len(upstream.requests) == 2
