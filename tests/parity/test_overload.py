"""The overload manager: the same answers, flags and counters as a real Envoy's under the same pressure, and the same
refusals."""

import json
import subprocess

import pytest
from support.config import bootstrap, cluster, file_log, hcm, listener, route, typed
from support.h2client import H2Client
from support.overload import ACTIONS, POINTS, Pressures, injected, manager, monitor, rule, scale_timers
from support.process import wait_until
from support.proxy import Envoy, Sluice
from support.rawhttp import Client

ACTED = ["stop_accepting_requests", "disable_http_keepalive", "reject_incoming_connections", "shrink_heap"]
SHED = ["tcp_listener_accept", "http_connection_manager_decode_headers", "http1_server_abort_dispatch",
        "hcm_ondata_creating_codec", "http_downstream_filter_check", "http2_server_go_away_on_dispatch",
        "http2_server_go_away_and_close_on_dispatch"]
DRAINS = "http2_server_go_away_on_dispatch"  # counts each read: as many as the segments there were
LINE = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL%\n"
COUNTED = ("http.ingress.downstream_rq_overload_close", "http.ingress.downstream_cx_overload_disable_keepalive",
           "http.ingress.rq_overload_local_reply", "http.ingress.downstream_rq_total", "http.ingress.downstream_cx_drain_close",
           "http.ingress.downstream_rq_completed", "http.ingress.downstream_cx_total")


class Side:
    def __init__(self, start, directory, port):
        self.log = directory / "log"
        self.pressures = Pressures(directory / "pressures", *ACTED, *SHED)
        made = manager(self.pressures, [rule(ACTIONS + n, n) for n in ACTED],
                       [rule(POINTS + n, n, scaled=(0.5, 0.9)) for n in SHED])
        self.proxy = start(bootstrap([listener(hcm([route()], access_log=[file_log(self.log, LINE)],
                                                   append_local_overload=True))], [cluster("up", port)],
                                     overload_manager=made))
        self.port = self.proxy.port()

    def press(self, name, value, percent):
        self.pressures.set(name, value)
        self.proxy.wait_stat(f"overload.{(ACTIONS if name in ACTED else POINTS) + name}.scale_percent", percent)

    def stats(self):
        found = self.proxy.stats("^(overload|http.ingress|listener)[.]")
        counted = {k: v for k, v in found.items() if k in COUNTED or k.endswith((".shed_load_count", ".active", ".pressure"))}
        return {**counted, "rejects": sum(v for k, v in found.items() if k.endswith("_0.downstream_cx_overload_reject"))}


def shown(answer):
    return answer.status, sorted((n, v) for n, v in answer.headers if n not in ("date", "x-envoy-upstream-service-time")), \
        answer.body


def ask(client):
    try:
        return shown(client.request("GET", "/"))
    except (EOFError, ConnectionError) as end:
        return type(end).__name__


GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "x")]


def ask_h2(client):
    try:
        return shown(client.request(GET))
    except (EOFError, ConnectionError, TimeoutError) as end:
        return type(end).__name__, client.goaway


@pytest.fixture(scope="module")
def sides(shared_sluice, shared_envoy, shared_upstream, tmp_path_factory):
    return [Side(start, tmp_path_factory.mktemp(name), shared_upstream.port)
            for name, start in (("envoy", shared_envoy), ("sluice", shared_sluice))]


def under_pressure(side, name):
    """What new connections and one from before get."""
    before = side.stats()
    with Client(side.port) as kept, H2Client(side.port) as kept_h2:
        answers = [ask(kept), ask_h2(kept_h2)]
        side.press(name, 0.95, 100)
        with Client(side.port) as client:
            answers.append(ask(client))
        with H2Client(side.port) as client:
            answers += [ask_h2(client), ask_h2(client)]
        answers += [ask_h2(kept_h2), ask_h2(kept_h2), ask(kept)]
    if name in SHED:
        side.proxy.wait_stat(f"overload.{POINTS}{name}.shed_load_count", lambda n: n >= 2)
    after = side.stats()
    side.press(name, 0.2, 0)
    with Client(side.port) as client:
        answers.append(ask(client))
    return answers, {k: v - before.get(k, 0) for k, v in after.items() if v != before.get(k, 0)}


@pytest.mark.parametrize("name", ACTED + SHED)
def test_the_same_under_pressure(sides, name):
    envoy, sluice = (under_pressure(side, name) for side in sides)
    if name == DRAINS:
        assert all(counted.pop(f"overload.{POINTS}{DRAINS}.shed_load_count") >= 4 for _, counted in (envoy, sluice))
    assert sluice == envoy
    assert sluice[0][0][0] == 200 and sluice[0][-1][0] == 200


def test_the_same_log(sides):
    """Runs after the cases above."""
    kinds = ["503 - overload HTTP/1.1", "503 - overload HTTP/2", "500 DPE overload HTTP/1.1", "200 - via_upstream HTTP/1.1"]
    for side in sides:
        wait_until(lambda log=side.log: set(kinds) <= set(log.read_text().splitlines()), lambda: side.log.read_text())


@pytest.mark.parametrize("value,percent", [("0.5", 0), ("0.7", 50), ("0.8 ", 75), ("1", 100), ("0.6\n", 25)])
def test_scaled(sides, value, percent):
    for side in sides:
        side.press("http_downstream_filter_check", value, percent)


@pytest.mark.parametrize("bad", ["", "x", "1.1", "-0.1", "0.5 0.6"])
def test_what_is_no_pressure_changes_nothing(sides, bad):
    for side in sides:
        name = "overload.shrink_heap."
        side.press("shrink_heap", 0.3, 0)
        side.proxy.wait_stat(name + "pressure", 30)
        failed = side.proxy.stat(name + "failed_updates")
        side.pressures.set("shrink_heap", bad)
        side.proxy.wait_stat(name + "failed_updates", lambda n, was=failed: n > was)
        assert side.proxy.stat(name + "pressure") == 30


def cases(path):
    r = injected("r", path)
    stop = ACTIONS + "stop_accepting_requests"
    two = {"name": "r", "threshold": {"value": 0.9}}
    return {
        "duplicate monitor": {"resource_monitors": [r, r]},
        "unknown monitor": {"resource_monitors": [typed("x", "envoy.extensions.filters.http.router.v3.Router")]},
        "monitor without config": {"resource_monitors": [{"name": "envoy.resource_monitors.fixed_heap"}]},
        "no heap": {"resource_monitors": [monitor("h", "fixed_heap.v3.FixedHeapConfig")]},
        "connections by another name": {"resource_monitors": [monitor(
            "c", "downstream_connections.v3.DownstreamConnectionsConfig", max_active_downstream_connections=1)]},
        "missing file": {"resource_monitors": [injected("r", "/nonexistent/file")]},
        "duplicate action": {"actions": [rule(stop, "r"), rule(stop, "r")]},
        "unknown action": {"actions": [rule(ACTIONS + "x", "r")]},
        "a point as action": {"actions": [rule(POINTS + "tcp_listener_accept", "r")]},
        "unknown resource": {"actions": [rule(stop, "q")]},
        "duplicate trigger": {"actions": [{"name": stop, "triggers": [two, two]}]},
        "scaled downwards": {"actions": [rule(stop, "r", scaled=(0.9, 0.9))]},
        "timeouts without config": {"actions": [rule(ACTIONS + "reduce_timeouts", "r")]},
        "config where none belongs": {"actions": [rule(stop, "r", typed_config=scale_timers())]},
        "streams without buffer factory": {"actions": [rule(ACTIONS + "reset_high_memory_stream", "r")]},
        "duplicate point": {"loadshed_points": [rule(POINTS + "tcp_listener_accept", "r")] * 2},
        "unknown resource of a point": {"loadshed_points": [rule(POINTS + "tcp_listener_accept", "q")]},
    }


@pytest.mark.parametrize("name", cases("x"))
def test_the_same_refusals(name, tmp_path, shared_envoy):
    (tmp_path / "pressure").write_text("0")
    made = {"resource_monitors": [injected("r", tmp_path / "pressure")], **cases(tmp_path / "pressure")[name]}
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(bootstrap([], [], overload_manager=made)))
    said = [subprocess.run([kind.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
            for kind in (Envoy, Sluice)]
    assert [s.returncode for s in said] == [1, 1]
    assert said[0].stderr.rsplit("json': ", 1)[-1].split("\n")[0] in said[1].stderr


def test_accepted(shared_envoy, tmp_path):
    pressures = Pressures(tmp_path / "pressures", "r")
    made = manager(pressures, [rule(ACTIONS + "reduce_timeouts", "r", typed_config=scale_timers()),
                               rule(ACTIONS + "reset_high_memory_stream", "r")], [rule("anything", "r")],
                   buffer_factory_config={"minimum_account_to_track_power_of_two": 20})
    made["resource_monitors"] += [monitor("c", "cpu_utilization.v3.CpuUtilizationConfig"),
                                  monitor("g", "cgroup_memory.v3.CgroupMemoryConfig")]
    path = tmp_path / "good.json"
    path.write_text(json.dumps(bootstrap([], [], overload_manager=made)))
    for kind in (Envoy, Sluice):
        subprocess.run([kind.binary, "-c", path, "--mode", "validate"], capture_output=True, timeout=60, check=True)
