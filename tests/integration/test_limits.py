"""Circuit breakers, connection limits, slow clients, draining, retries under load."""

import contextlib
import json
import selectors
import socket
import threading
import time

import pytest

from support.ads_server import CLUSTER, LISTENER
from support.config import bootstrap, cluster, direct, endpoint, file_log, hcm, http_options, listener, route, typed
from support.process import wait_until
from support.rawhttp import Client, encode, fetch
from support.upstream import Reply, ScriptedUpstream
from support.xds_config import ads_bootstrap


def thresholds(**limits):
    return {"thresholds": [limits]}


def start(sluice, upstream, hcm_fields=None, listener_fields=None, **cluster_fields):
    return sluice(bootstrap([listener(hcm(**(hcm_fields or {})), **(listener_fields or {}))],
                            [cluster("up", upstream.port, **cluster_fields)]))


@pytest.mark.smoke
def test_max_requests(sluice, upstream, tmp_path):
    gate = threading.Event()
    upstream.script(Reply(gate=gate))
    log = tmp_path / "log"
    proxy = start(sluice, upstream, {"access_log": [file_log(log, "%RESPONSE_CODE% %RESPONSE_FLAGS%\n")]},
                  circuit_breakers=thresholds(max_requests=2))
    clients = [Client(proxy.port()).send(encode("GET", "/")) for _ in range(2)]
    upstream.wait_requests(2)
    refused = fetch(proxy.port())
    assert refused.status == 503 and refused.get("x-envoy-overloaded") == "true"
    gate.set()
    assert [c.read().status for c in clients] == [200, 200]
    assert fetch(proxy.port()).status == 200
    assert sorted(proxy.log_lines(log, 4)) == ["200 -", "200 -", "200 -", "503 UO"]
    assert proxy.stat("cluster.up.upstream_rq_active_overflow") == 1


def test_max_connections_queues(sluice, upstream):
    gate = threading.Event()
    upstream.script(Reply(gate=gate))
    proxy = start(sluice, upstream, circuit_breakers=thresholds(max_connections=1))
    clients = [Client(proxy.port()).send(encode("GET", "/")) for _ in range(5)]
    upstream.wait_requests(1)
    proxy.wait_stat("cluster.up.upstream_rq_pending_active", 4)
    assert proxy.stat("cluster.up.upstream_cx_overflow") >= 1
    gate.set()
    assert [c.read().status for c in clients] == [200] * 5
    assert upstream.accepted == 1
    proxy.wait_stat("cluster.up.upstream_rq_pending_active", 0)


def test_max_connections_of_a_host(sluice, upstreams):
    gate = threading.Event()
    servers = [upstreams(ScriptedUpstream) for _ in range(2)]
    for server in servers:
        server.script(Reply(gate=gate))
    limit = {"per_host_thresholds": [{"max_connections": 2}]}
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", *[s.port for s in servers], circuit_breakers=limit)]))
    clients = [Client(proxy.port()).send(encode("GET", "/")) for _ in range(8)]
    proxy.wait_stat("cluster.up.upstream_rq_pending_active", 4)
    wait_until(lambda: [s.accepted for s in servers] == [2, 2], lambda: f"two each: {[s.accepted for s in servers]}")
    proxy.wait_stat("cluster.up.upstream_cx_overflow", lambda n: n >= 4)
    gate.set()
    assert [c.read().status for c in clients] == [200] * 8
    assert [s.accepted for s in servers] == [2, 2]


def test_max_pending(sluice, upstream):
    gate = threading.Event()
    upstream.script(Reply(gate=gate))
    proxy = start(sluice, upstream, circuit_breakers=thresholds(max_connections=1, max_pending_requests=1))
    first = Client(proxy.port()).send(encode("GET", "/"))
    upstream.wait_requests(1)
    second = Client(proxy.port()).send(encode("GET", "/"))
    proxy.wait_stat("cluster.up.upstream_rq_pending_active", 1)
    assert fetch(proxy.port()).status == 503
    gate.set()
    assert (first.read().status, second.read().status) == (200, 200)


def test_listener_connection_limit(sluice, upstream):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]), name="main", stat_prefix="main")], layered_runtime={"layers": [
        {"name": "static", "static_layer": {"envoy.resource_limits.listener.main.connection_limit": 1}}]}))
    with Client(proxy.port()) as first:
        assert first.request("GET", "/").status == 200
        with Client(proxy.port()) as second:
            assert second.until_close() == b""
    proxy.wait_stat("listener.main.downstream_cx_overflow", 1)


def test_connection_idle_timeout(sluice, upstream):
    proxy = start(sluice, upstream, {"common_http_protocol_options": {"idle_timeout": "0.2s"}})
    with Client(proxy.port()) as client:
        assert client.request("GET", "/").status == 200
        assert client.is_closed(5)
    assert proxy.stat("http.ingress.downstream_cx_idle_timeout") == 1


def test_connection_duration(sluice, upstream):
    proxy = start(sluice, upstream, {"common_http_protocol_options": {"max_connection_duration": "0.2s"}})
    with Client(proxy.port()) as client:
        assert client.request("GET", "/").status == 200
        assert client.is_closed(5)
    assert proxy.stat("http.ingress.downstream_cx_max_duration_reached") == 1


def test_connection_duration_jitter(sluice, upstream):
    """Connections that begin together end one after the other, none before its time."""
    options = {"max_connection_duration": "0.3s", "max_connection_duration_jitter": {"value": 100}}
    proxy = start(sluice, upstream, {"common_http_protocol_options": options})
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as waiting:
        began, ends = time.monotonic(), []
        for _ in range(16):
            waiting.register(stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port()), 5)), selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(5)
            assert ready
            for key, _ in ready:
                assert key.fileobj.recv(1) == b""
                waiting.unregister(key.fileobj)
                ends.append(time.monotonic() - began)
    assert min(ends) >= 0.29 and max(ends) - min(ends) > 0.05
    assert proxy.stat("http.ingress.downstream_cx_max_duration_reached") == 16


def test_slow_headers_time_out(sluice, upstream):
    proxy = start(sluice, upstream, {"request_headers_timeout": "0.3s"})
    with Client(proxy.port()) as client:
        client.send("GET / HTTP/1.1\r\nhost: x\r\n")
        answer = client.read()
        assert answer.status == 408 and client.is_closed(5)
    assert proxy.stat("http.ingress.downstream_rq_header_timeout") == 1 and not upstream.requests


def test_upstream_idle_timeout(sluice, upstream):
    options = http_options(explicit_http_config={"http_protocol_options": {}}, common_http_protocol_options={"idle_timeout": "0.2s"})
    proxy = start(sluice, upstream, typed_extension_protocol_options=options)
    assert fetch(proxy.port()).status == 200
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)
    assert proxy.stat("cluster.up.upstream_cx_idle_timeout") == 1


def test_upstream_requests_per_connection(sluice, upstream):
    options = http_options(explicit_http_config={"http_protocol_options": {}},
                           common_http_protocol_options={"max_requests_per_connection": 2})
    proxy = start(sluice, upstream, typed_extension_protocol_options=options)
    for _ in range(6):
        assert fetch(proxy.port()).status == 200
    assert [r.connection for r in upstream.wait_requests(6)] == [1, 1, 2, 2, 3, 3]


def test_upstream_closing_idle_connections_is_not_noticed_by_clients(sluice, upstream):
    proxy = start(sluice, upstream)
    for _ in range(20):
        assert fetch(proxy.port()).status == 200
        upstream.drop_all()


def test_round_robin(sluice, upstreams):
    servers = [upstreams(ScriptedUpstream) for _ in range(3)]
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", *[s.port for s in servers])]))
    for _ in range(9):
        assert fetch(proxy.port()).status == 200
    assert [len(s.requests) for s in servers] == [3, 3, 3]


@pytest.mark.parametrize("policy", ["RANDOM", "LEAST_REQUEST", "RING_HASH", "MAGLEV"])
def test_policies_reach_every_host(sluice, upstreams, policy):
    servers = [upstreams(ScriptedUpstream) for _ in range(3)]
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", *[s.port for s in servers], lb_policy=policy)]))
    for _ in range(90):
        assert fetch(proxy.port()).status == 200
    assert all(s.requests for s in servers)


def test_hash_policy_is_sticky(sluice, upstreams):
    servers = [upstreams(ScriptedUpstream) for _ in range(3)]
    routes = [route("/", hash_policy=[{"header": {"header_name": "x-user"}}])]
    proxy = sluice(bootstrap([listener(hcm(routes))], [cluster("up", *[s.port for s in servers], lb_policy="RING_HASH")]))
    for _ in range(10):
        assert fetch(proxy.port(), headers=[("x-user", "bob")]).status == 200
    assert sorted(len(s.requests) for s in servers) == [0, 0, 10]


def test_weights(sluice, upstreams):
    servers = [upstreams(ScriptedUpstream) for _ in range(2)]
    hosts = [endpoint(s.port, load_balancing_weight=w) for s, w in zip(servers, (1, 3))]
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", *hosts)]))
    for _ in range(40):
        assert fetch(proxy.port()).status == 200
    assert [len(s.requests) for s in servers] == [10, 30]


def test_retry_on_another_host(sluice, upstreams):
    good, bad = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    bad.script(Reply(status=503))
    policy = {"retry_on": "5xx", "num_retries": 5, "retry_back_off": {"base_interval": "0.001s"},
              "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {
                  "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
              "host_selection_retry_max_attempts": 5}
    proxy = sluice(bootstrap([listener(hcm([route("/", retry_policy=policy)]))], [cluster("up", good.port, bad.port)]))
    assert all(fetch(proxy.port()).status == 200 for _ in range(10))
    assert proxy.stat("cluster.up.upstream_rq_retry_success") == len(bad.requests)


def test_outlier_ejection(sluice, upstreams):
    good, bad = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    bad.script(Reply(status=503))
    detection = {"consecutive_5xx": 3, "interval": "0.1s", "base_ejection_time": "60s", "max_ejection_percent": 50}
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", good.port, bad.port, outlier_detection=detection)]))
    wait_until(lambda: fetch(proxy.port()) and proxy.stat("cluster.up.outlier_detection.ejections_active") == 1, "an ejection")
    wait_until(lambda: "/failed_outlier_check" in proxy.admin("/clusters").text, "the host to be marked")
    assert all(fetch(proxy.port()).status == 200 for _ in range(10))


def test_outlier_event_log(sluice, upstream, tmp_path):
    log = tmp_path / "events"
    upstream.script(Reply(status=503))
    detection = {"consecutive_5xx": 2, "interval": "0.05s", "base_ejection_time": "0.1s", "max_ejection_percent": 100,
                 "consecutive_gateway_failure": 1, "enforcing_consecutive_gateway_failure": 0}
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port, outlier_detection=detection)],
                             cluster_manager={"outlier_detection": {"event_log_path": str(log)}}))
    fetch(proxy.port())
    fetch(proxy.port())
    events = [json.loads(line) for line in proxy.log_lines(log, 4)][:4]
    assert [(e["type"], e["action"], e["enforced"], e["num_ejections"]) for e in events] == [
        ("CONSECUTIVE_GATEWAY_FAILURE", "EJECT", False, 0), ("CONSECUTIVE_GATEWAY_FAILURE", "EJECT", False, 0),
        ("CONSECUTIVE_5XX", "EJECT", True, 1), ("CONSECUTIVE_5XX", "UNEJECT", False, 1)]
    assert events[0]["upstream_url"] == f"127.0.0.1:{upstream.port}" and events[0]["cluster_name"] == "up"
    assert events[0]["eject_consecutive_event"] == {} and "secs_since_last_action" not in events[0]
    assert events[3]["secs_since_last_action"] == "0"


def test_requests_in_flight_finish_while_draining(sluice, upstream):
    gate = threading.Event()
    upstream.script(Reply(gate=gate))
    proxy = start(sluice, upstream)
    with Client(proxy.port()) as client:
        client.send(encode("GET", "/"))
        upstream.wait_requests(1)
        assert proxy.post("/drain_listeners?graceful").text == "OK\n"
        gate.set()
        assert client.read().status == 200


def test_clients_leaving_early_release_everything(sluice, upstream):
    upstream.script(Reply(silent=True))
    proxy = start(sluice, upstream)
    for _ in range(20):
        with Client(proxy.port()) as client:
            client.send(encode("POST", "/", [("content-length", "100000")]) + b"x" * 5000)
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)
    proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    proxy.wait_stat("cluster.up.upstream_rq_pending_active", 0)
    proxy.wait_stat("cluster.up.upstream_cx_active", lambda n: n <= 1)  # one that nobody used may wait in the pool


def test_open_breakers_show(sluice, upstream):
    gate = threading.Event()
    upstream.script(Reply(gate=gate))
    proxy = start(sluice, upstream, circuit_breakers=thresholds(max_requests=1))
    with Client(proxy.port()) as client:
        client.send(encode("GET", "/"))
        upstream.wait_requests(1)
        proxy.wait_stat("cluster.up.circuit_breakers.default.rq_open", 1)
        gate.set()
        assert client.read().status == 200
    proxy.wait_stat("cluster.up.circuit_breakers.default.rq_open", 0)


def test_slow_upstream_reader_stops_the_client(sluice, upstream):
    gate = threading.Event()
    upstream.script(Reply(early=True, gate=gate))
    proxy = start(sluice, upstream)
    sent = 0
    with Client(proxy.port()) as client:
        client.send(encode("POST", "/", [("content-length", str(1 << 30))]))
        client.socket.settimeout(1)
        try:
            while sent < 1 << 28:
                sent += client.socket.send(b"x" * 65536)
        except TimeoutError:
            pass
        assert sent < 1 << 26, "buffers must stay bounded"
        gate.set()


@pytest.mark.smoke
def test_access_log_is_complete(sluice, upstream, tmp_path):
    log = tmp_path / "log"
    proxy = start(sluice, upstream, {"access_log": [file_log(log, "%REQ(x-n)%\n")]})
    with Client(proxy.port()) as client:
        for i in range(200):
            assert client.request("GET", "/", [("x-n", str(i))]).status == 200
    assert proxy.log_lines(log, 200) == [str(i) for i in range(200)]


@pytest.mark.parametrize("limit", ["listener", "process"])
def test_connections_of_an_updated_listener_keep_their_places(sluice, ads, limit):
    """Those that stay count for the new version, and each of them once."""
    fields = {"ignore_global_conn_limit": True} if limit == "process" else {}
    ads.set(CLUSTER, "1", [])
    ads.set(LISTENER, "1", [listener(hcm([direct("/", 200)]), **fields)])
    made = ads_bootstrap(ads)
    if limit == "listener":
        made["layered_runtime"] = {"layers": [
            {"name": "static", "static_layer": {"envoy.resource_limits.listener.main.connection_limit": 2}}]}
    else:
        made["overload_manager"] = {"resource_monitors": [typed(
            "envoy.resource_monitors.global_downstream_max_connections",
            "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            max_active_downstream_connections=2)]}
    proxy = sluice(made)
    with Client(proxy.port()) as first, Client(proxy.port()) as second:
        assert first.request("GET", "/").status == second.request("GET", "/").status == 200
        ads.set(LISTENER, "2", [listener(hcm([direct("/", 200)]), continue_on_listener_filters_timeout=True)])
        proxy.wait_stat("listener_manager.listener_modified", 1)
        proxy.wait_stat("listener_manager.total_listeners_warming", 0)

        def is_full():
            with Client(proxy.port()) as more:
                return more.is_closed(0.5)

        wait_until(is_full, "a third to be refused")
        assert first.request("GET", "/").status == 200  # it has stayed
    wait_until(lambda: proxy.stat("http.ingress.downstream_cx_active") == 0, "both to end")
    with Client(proxy.port()) as third, Client(proxy.port()) as fourth:
        assert third.request("GET", "/").status == fourth.request("GET", "/").status == 200
        with Client(proxy.port()) as fifth:
            assert fifth.is_closed()
