"""envoy.filters.http.stateful_session (stateful_session.c): sessions whose hosts drain, leave and fail."""

import base64
import contextlib
import socket

import pytest
from envoy.extensions.filters.http.stateful_session.v3 import stateful_session_pb2  # noqa: F401
from envoy.extensions.http.stateful_session.cookie.v3 import cookie_pb2  # noqa: F401

from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, AdsServer
from support.process import wait_until
from support.rawhttp import fetch
from support.upstream import Reply, ScriptedUpstream
from test_xds_basic import ads_bootstrap, eds_cluster

NAME, MESSAGE = "envoy.filters.http.stateful_session", "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
COOKIE = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
STAYS = {"override_host_status": {"statuses": ["UNKNOWN", "HEALTHY", "DEGRADED", "DRAINING"]}}


def sessions(**fields):
    state = {"name": "envoy.http.stateful_session.cookie",
             "typed_config": {"@type": config.TYPE + COOKIE, "cookie": {"name": "s", "ttl": "60s"}}}
    return config.typed(NAME, MESSAGE, session_state=state, stat_prefix="t", **fields)


class Named(ScriptedUpstream):
    def next_reply(self, request):
        return Reply(headers=[("x-port", str(self.port))])


@pytest.fixture
def ports(upstreams):
    return [upstreams(Named).port for _ in range(3)]


def ask(proxy, cookie=None):
    """The port of the host that answered (else the status), and the cookie that the client has then."""
    reply = fetch(proxy.port(), headers=[("cookie", cookie)] if cookie else [])
    told = reply.get("set-cookie")
    return int(reply.get("x-port", reply.status)), told.split(";")[0] if told else cookie


def cookie_for(port):
    return "s=" + base64.b64encode(f"127.0.0.1:{port}".encode()).decode()


def test_status_when_gone(sluice, ports):
    """Only where the session's host is what is missing: not without a session."""
    only = sessions(strict=True, status_on_strict_destination_not_found=410)
    proxy = sluice(config.bootstrap([config.listener(config.hcm(filters=[only]))], [config.cluster("up", *ports)]))
    assert fetch(proxy.port(), headers=[("cookie", cookie_for(1))]).status == 410
    assert ask(proxy, cookie_for(ports[0]))[0] == ports[0] and ask(proxy)[0] in ports
    assert proxy.stat("http.ingress.stateful_session.t.failed_closed") == 1
    assert proxy.stat("cluster.up.upstream_rq_410") == 1


@pytest.mark.smoke
def test_sticks(sluice, ports):
    proxy = sluice(config.bootstrap([config.listener(config.hcm(filters=[sessions()]))], [config.cluster("up", *ports)]))
    seen = set()
    for _ in range(3):
        port, cookie = ask(proxy)
        seen.add(port)
        assert [ask(proxy, cookie) for _ in range(4)] == [(port, cookie)] * 4
    assert seen == set(ports)
    assert proxy.stat("http.ingress.stateful_session.t.routed") == 12
    assert proxy.stat("http.ingress.stateful_session.t.failed_open") == 3


@pytest.mark.parametrize("strict", [False, True])
def test_host_drains_then_leaves(sluice, ports, strict):
    def assign(version, *statuses):
        hosts = [config.endpoint(p, health_status=s) for p, s in zip(ports, statuses) if s]
        ads.set(ENDPOINTS, version, [{"cluster_name": "up", "endpoints": [{"lb_endpoints": hosts}]}])

    with contextlib.ExitStack() as stack:
        ads = stack.enter_context(AdsServer())
        assign("1", "HEALTHY", "HEALTHY", "HEALTHY")
        ads.set(CLUSTER, "1", [eds_cluster("up", common_lb_config=STAYS)])
        ads.set(LISTENER, "1", [config.listener(config.hcm(filters=[sessions(strict=strict)]))])
        proxy = sluice(ads_bootstrap(ads))
        wait_until(proxy.listeners, "a listener")
        cookie = cookie_for(ports[1])
        assert ask(proxy, cookie) == (ports[1], cookie)
        assign("2", "HEALTHY", "DRAINING", "HEALTHY")
        proxy.wait_stat("cluster.up.membership_healthy", 2)
        assert [ask(proxy, cookie) for _ in range(3)] == [(ports[1], cookie)] * 3  # its sessions stay
        assert ports[1] not in {ask(proxy)[0] for _ in range(6)}  # it gets no new ones
        assign("3", "HEALTHY", None, "HEALTHY")
        proxy.wait_stat("cluster.up.membership_total", 2)
        port, moved = ask(proxy, cookie)
        if strict:
            assert (port, moved) == (503, cookie)
        else:
            assert port in (ports[0], ports[2]) and ask(proxy, moved) == (port, moved)


def test_retries_leave_the_host(sluice, ports):
    """A host that can't be reached is asked for once; the session goes on at another."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        dead = closed.getsockname()[1]
        retry = {"retry_on": "connect-failure", "num_retries": 1,
                 "retry_host_predicate": [config.typed("envoy.retry_host_predicates.previous_hosts",
                                                       "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")],
                 "host_selection_retry_max_attempts": 5}
        manager = config.hcm([config.route(retry_policy=retry)], filters=[sessions(strict=True)])
        proxy = sluice(config.bootstrap([config.listener(manager)], [config.cluster("up", *ports, dead)]))
        port, cookie = ask(proxy, cookie_for(dead))
        assert port in ports and ask(proxy, cookie) == (port, cookie)
        assert proxy.stat("cluster.up.upstream_rq_retry") == 1


def test_retries_of_a_lost_session(sluice, ports):
    """A strict session whose host is gone fails without a try."""
    manager = config.hcm([config.route(retry_policy={"retry_on": "5xx", "num_retries": 3})], filters=[sessions(strict=True)])
    proxy = sluice(config.bootstrap([config.listener(manager)], [config.cluster("up", *ports)]))
    for cookie in (cookie_for(1), "s=" + "QUFB" * 1000, "s=////"):
        assert ask(proxy, cookie)[0] == 503
    assert proxy.stat("cluster.up.upstream_rq_total") == 0
    assert proxy.stat("http.ingress.stateful_session.t.failed_closed") == 3
    assert ask(proxy, "s=%00")[0] in ports  # no session at all
