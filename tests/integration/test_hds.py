"""Health discovery: a control plane says what to check, and hears how it is."""

import pytest
from support.config import address, bootstrap, cluster, http2
from support.hds_server import HdsServer
from support.process import free_port, wait_until
from support.upstream import Reply, ScriptedUpstream
from support.xds_config import api_source

HEALTHY, UNHEALTHY, TIMEOUT = 1, 2, 4


@pytest.fixture
def hds():
    server = HdsServer()
    yield server
    server.stop()


def start(sluice, hds):
    control = cluster("xds", hds.port, typed_extension_protocol_options=http2())
    return sluice(bootstrap([], [control], hds_config=api_source()))


def check(**fields):
    return {"timeout": "0.3s", "interval": "0.05s", "no_traffic_interval": "0.05s", "unhealthy_threshold": 1,
            "healthy_threshold": 1, **(fields or {"http_health_check": {"path": "/hc"}})}


def asked(name, *zones, checks=None, **fields):
    """zones: (zone, ports)."""
    return {"cluster_name": name, "health_checks": checks or [check()], "locality_endpoints": [
        {"locality": {"zone": zone}, "endpoints": [{"address": address(p)} for p in ports]} for zone, ports in zones],
        **fields}


@pytest.mark.smoke
def test_reports(sluice, hds, upstreams):
    good, bad, silent = (upstreams(ScriptedUpstream) for _ in range(3))
    bad.script(Reply(status=500))
    silent.script(Reply(silent=True))
    gone = free_port()
    hds.ask(asked("a", ("z1", [good.port, bad.port]), ("z2", [silent.port])),
            asked("b", ("", [gone]), checks=[check(tcp_health_check={})]))
    proxy = start(sluice, hds)
    hds.wait_statuses({("a", "z1", good.port): HEALTHY, ("a", "z1", bad.port): UNHEALTHY,
                       ("a", "z2", silent.port): TIMEOUT, ("b", "", gone): UNHEALTHY})
    request = hds.requests[0]
    assert request.node.id == "test-node" and list(request.capability.health_check_protocols) == [0, 1]
    flat = hds.reports[-1].endpoints_health
    assert sorted(e.health_status for e in flat) == [HEALTHY, UNHEALTHY, UNHEALTHY, TIMEOUT]
    assert proxy.stat("hds_delegate.requests") == 1 and proxy.stat("hds_delegate.updates") == 1
    proxy.wait_stat("hds_delegate.responses", lambda n: n >= 2)
    assert "a::" not in proxy.admin("/clusters").text, "they are no clusters of this proxy"
    bad.script(Reply())
    wait_until(lambda: hds.statuses().get(("a", "z1", bad.port)) == HEALTHY, "recovery")


def test_another_specifier(sluice, hds, upstreams):
    one, two = upstreams(ScriptedUpstream), upstreams(ScriptedUpstream)
    hds.ask(asked("a", ("", [one.port])), asked("b", ("", [two.port])))
    proxy = start(sluice, hds)
    hds.wait_statuses({("a", "", one.port): HEALTHY, ("b", "", two.port): HEALTHY})
    hds.ask(asked("a", ("", [one.port])))
    hds.wait_statuses({("a", "", one.port): HEALTHY})
    assert proxy.stat("hds_delegate.updates") == 2
    assert one.accepted == 1, "the same cluster is checked on"
    wait_until(lambda: two.connections() == 0, "the other's connection to close")
    hds.ask(asked("a", ("", [one.port])))  # nothing new
    proxy.wait_stat("hds_delegate.requests", 3)
    assert proxy.stat("hds_delegate.updates") == 2
    hds.ask()
    hds.wait_statuses({})
    wait_until(lambda: one.connections() == 0, "no more checks")


def test_the_stream_comes_back(sluice, hds, upstream):
    hds.ask(asked("a", ("", [upstream.port])))
    start(sluice, hds)
    hds.wait_statuses({("a", "", upstream.port): HEALTHY})
    hds.end_streams()
    wait_until(lambda: len(hds.requests) == 2, "the second stream")
    hds.reports.clear()
    hds.wait_statuses({("a", "", upstream.port): HEALTHY})


def test_a_bad_cluster_does_not_stop_the_others(sluice, hds, upstream):
    hds.ask(asked("no-check", ("", [upstream.port]), checks=[check(http_health_check={"path": "/", "send": {"text": "x"}})]),
            asked("none", ("", [upstream.port]), health_checks=[]), asked("a", ("", [upstream.port])))
    proxy = start(sluice, hds)
    hds.wait_statuses({("a", "", upstream.port): HEALTHY})
    assert proxy.stat("hds_delegate.errors") == 2
    assert "no-check" in proxy.log() and "invalid hex string" in proxy.log()


def test_garbage(sluice, hds, upstream):
    hds.send(b"\xff\xff\xff")
    proxy = start(sluice, hds)
    proxy.wait_stat("hds_delegate.errors", lambda n: n >= 2)
    hds.ask(asked("a", ("", [upstream.port])))
    hds.wait_statuses({("a", "", upstream.port): HEALTHY})
