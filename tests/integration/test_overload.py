"""The overload manager on its own: several workers, listeners that bypass it, connections that wait, limits of the
process, and Envoy's monitors of the system."""

import socket

import pytest
from support.config import bootstrap, direct, hcm, listener
from support.h2client import H2Client
from support.overload import ACTIONS, POINTS, Pressures, manager, monitor, rule
from support.process import wait_until
from support.rawhttp import Client, fetch

CONNECTIONS = "envoy.resource_monitors.global_downstream_max_connections"


def listeners(**fields):
    return [listener(hcm([direct("/", 200)], stat_prefix="main"), name="main", **fields),
            listener(hcm([direct("/", 200)], stat_prefix="vip"), name="vip", bypass_overload_manager=True)]


@pytest.fixture
def pressures(tmp_path):
    return Pressures(tmp_path / "pressures", "r", "q")


def press(proxy, pressures, name, value, percent, resource="r"):
    pressures.set(resource, value)
    proxy.wait_stat(f"overload.{name}.scale_percent", percent)


@pytest.mark.smoke
def test_some_requests_and_never_those_that_bypass(sluice, pressures):
    action = ACTIONS + "stop_accepting_requests"
    proxy = sluice(bootstrap(listeners(), overload_manager=manager(pressures, [rule(action, "r", scaled=(0.2, 1))])),
                   concurrency=2)
    press(proxy, pressures, action, 0.6, 50)
    codes = [fetch(proxy.port("main"), "/").status for _ in range(200)]
    assert set(codes) == {200, 503} and 50 < codes.count(503) < 150
    assert proxy.stat("http.main.downstream_rq_overload_close") == codes.count(503)
    press(proxy, pressures, action, 1, 100)
    assert proxy.stat(f"overload.{action}.active") == 1
    assert fetch(proxy.port("main"), "/").status == 503 and fetch(proxy.port("vip"), "/").status == 200
    press(proxy, pressures, action, 0, 0)
    assert fetch(proxy.port("main"), "/").status == 200


def test_the_strongest_trigger_counts(sluice, pressures):
    action = {"name": ACTIONS + "stop_accepting_requests", "triggers": [
        {"name": "r", "threshold": {"value": 0.9}}, {"name": "q", "scaled": {"scaling_threshold": 0, "saturation_threshold": 1}}]}
    proxy = sluice(bootstrap(listeners(), overload_manager=manager(pressures, [action])))
    press(proxy, pressures, action["name"], 0.25, 25, "q")
    press(proxy, pressures, action["name"], 0.95, 100, "r")
    press(proxy, pressures, action["name"], 0.1, 25, "r")


def test_connections_wait_while_none_is_accepted(sluice, pressures):
    action = ACTIONS + "stop_accepting_connections"
    proxy = sluice(bootstrap(listeners(), overload_manager=manager(pressures, [rule(action, "r")])), concurrency=2)
    port = proxy.port("main")
    with Client(port) as before, socket.socket() as waiting:
        assert before.request("GET", "/").status == 200
        press(proxy, pressures, action, 0.95, 100)
        waiting.connect(("127.0.0.1", port))
        waiting.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert before.request("GET", "/").status == 200 and fetch(proxy.port("vip"), "/").status == 200
        waiting.settimeout(0.2)
        with pytest.raises(TimeoutError):
            waiting.recv(1)
        pressures.set("r", 0)
        waiting.settimeout(10)
        assert waiting.recv(100).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", [ACTIONS + "reject_incoming_connections", POINTS + "tcp_listener_accept"])
def test_connections_are_closed_at_once(sluice, pressures, name):
    made = manager(pressures, *([[rule(name, "r")]] if name.startswith(ACTIONS) else [[], [rule(name, "r")]]))
    proxy = sluice(bootstrap(listeners(), overload_manager=made))
    press(proxy, pressures, name, 0.95, 100)
    with pytest.raises((EOFError, ConnectionError)):
        fetch(proxy.port("main"), "/")
    assert fetch(proxy.port("vip"), "/").status == 200
    rejected = [v for n, v in proxy.stats("downstream_cx_overload_reject").items() if v]
    assert rejected == [1]


NO_ERROR = 0
GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]


def test_http2_goes_away(sluice, pressures):
    point = POINTS + "http2_server_go_away_on_dispatch"
    proxy = sluice(bootstrap(listeners(), overload_manager=manager(pressures, [], [rule(point, "r")])))
    with H2Client(proxy.port("main")) as client:
        assert client.request(GET).status == 200 and client.goaway is None
        press(proxy, pressures, point, 0.95, 100)
        assert client.request(GET).status == 200
        while client.goaway is None:
            assert client.pump()
        assert client.goaway == NO_ERROR and not client.is_closed
    with H2Client(proxy.port("vip")) as client:
        assert client.request(GET).status == 200 and client.goaway is None


def test_http2_goes_away_and_closes(sluice, pressures):
    point = POINTS + "http2_server_go_away_and_close_on_dispatch"
    proxy = sluice(bootstrap(listeners(), overload_manager=manager(pressures, [], [rule(point, "r")])))
    with H2Client(proxy.port("main")) as client:
        assert client.request(GET).status == 200
        press(proxy, pressures, point, 0.95, 100)
        assert client.request(GET).status is None
        assert client.is_closed and client.goaway == NO_ERROR
    with pytest.raises((EOFError, ConnectionError)):
        fetch(proxy.port("main"), "/")
    assert fetch(proxy.port("vip"), "/").status == 200


def connections_monitor(most):
    return monitor(CONNECTIONS, "downstream_connections.v3.DownstreamConnectionsConfig", max_active_downstream_connections=most)


def test_connections_of_the_process_are_limited(sluice):
    limit = {"refresh_interval": "0.02s", "resource_monitors": [connections_monitor(2)]}
    made = [listener(hcm([direct("/", 200)]), name="main"),
            listener(hcm([direct("/", 200)]), name="vip", ignore_global_conn_limit=True)]
    proxy = sluice(bootstrap(made, overload_manager=limit), concurrency=2)
    with Client(proxy.port("main")) as a, Client(proxy.port("main")) as b:
        assert [c.request("GET", "/").status for c in (a, b)] == [200, 200]
        with pytest.raises((EOFError, ConnectionError)):
            fetch(proxy.port("main"), "/")
        assert fetch(proxy.port("vip"), "/").status == 200
        proxy.wait_stat(f"overload.{CONNECTIONS}.failed_updates", 1)
    wait_until(lambda: fetch(proxy.port("vip"), "/").status == 200, "the other listener")

    def serves():
        try:
            return fetch(proxy.port("main"), "/").status == 200
        except (EOFError, ConnectionError):
            return False
    wait_until(serves, "a place to be free again")


def test_monitors_of_the_system(sluice, pressures):
    made = manager(pressures, [rule(ACTIONS + "shrink_heap", "heap", 0.5), rule(ACTIONS + "stop_accepting_requests", "big", 0.5)])
    made["resource_monitors"] += [monitor("heap", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=1000000),
                                  monitor("big", "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=1 << 40),
                                  monitor("cpu", "cpu_utilization.v3.CpuUtilizationConfig")]
    proxy = sluice(bootstrap(listeners(), overload_manager=made))
    proxy.wait_stat(f"overload.{ACTIONS}shrink_heap.active", 1)
    proxy.wait_stat("overload.heap.pressure", lambda n: n > 100)
    assert proxy.stat("overload.big.pressure") == 0 and proxy.stat("overload.cpu.failed_updates") == 0
    assert fetch(proxy.port("main"), "/").status == 200


def test_what_has_no_effect_is_told(sluice, pressures):
    proxy = sluice(bootstrap(listeners(), overload_manager=manager(pressures, [rule(ACTIONS + "close_idle_http_connections", "r")])))
    assert f"{ACTIONS}close_idle_http_connections has no effect" in proxy.log()
