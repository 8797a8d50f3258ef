"""Aggregate clusters and retries at other priorities: the same members are chosen, told and counted as by a real
Envoy."""

import json
import socket
import subprocess

import pytest
from support.config import (aggregate, bootstrap, cluster, endpoint, file_log, hcm, listener, retry_other_priorities, route,
                            typed)
from support.proxy import Envoy, Sluice
from support.rawhttp import Client
from support.upstream import Reply, ScriptedUpstream

TRIES = 24
LINE = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% \
%UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"
AGGREGATES = {
    "plain": ["a", "b"], "sick first": ["sick", "b"], "empty first": ["empty", "b"], "missing first": ["nope", "b"],
    "only missing": ["nope"], "only sick": ["sick"], "dead first": ["dead", "b"], "overflows": ["no_requests", "b"],
    "half first": ["half", "b"], "nested": ["plain", "b"], "only nested": ["plain"], "cycle": ["back", "a"],
    "back": ["cycle"], "self": ["self", "b"], "twice": ["a", "a", "b"], "no name": ["", "b"], "failing": ["failing_up", "b"],
    "hashing": ["ring", "b"], "degraded": ["degraded_up", "sick"],
}
# What must be equal; gauges of what is open and counters of attempts by chance are not.
COUNTED = ("upstream_rq_total", "upstream_rq_completed", "external.upstream_rq_completed", "upstream_rq_200", "upstream_rq_503", "upstream_rq_retry",
           "upstream_rq_retry_success", "upstream_rq_active_overflow", "upstream_cx_connect_fail",
           "upstream_cx_none_healthy", "lb_healthy_panic", "membership_total", "membership_healthy")


def prioritised(name, *levels, **fields):
    return {"name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": name, "endpoints": [
                {"priority": i, "lb_endpoints": hosts} for i, hosts in enumerate(levels)]}, **fields}


def clusters(ports, failing, dead):
    sick = endpoint(ports[2], health_status="UNHEALTHY")
    return [
        cluster("a", ports[0]), cluster("b", ports[1]), cluster("sick", sick), cluster("empty"), cluster("dead", dead),
        cluster("failing_up", failing), cluster("ring", ports[0], lb_policy="RING_HASH"),
        cluster("degraded_up", endpoint(ports[0], health_status="DEGRADED")),
        cluster("no_requests", ports[3], circuit_breakers={"thresholds": [{"max_requests": 0}]}),
        prioritised("half", [endpoint(ports[0]), endpoint(ports[1], health_status="UNHEALTHY")], [endpoint(ports[2])]),
        prioritised("three", [endpoint(failing)], [endpoint(dead)], [endpoint(ports[2])]),
        prioritised("all_fail", [endpoint(failing)], [endpoint(dead)]),
        prioritised("sick_middle", [endpoint(failing)], [sick], [endpoint(ports[3])]),
        *[aggregate(name, *members) for name, members in AGGREGATES.items()],
        aggregate("aggregate of three", "failing_up", "dead", "b"),
        cluster("marked", endpoint(failing, metadata=MARK), *ports[:2]),
        aggregate("limited", "a", circuit_breakers={"thresholds": [{"max_requests": 0}]}),
    ]


MARK = {"filter_metadata": {"envoy.lb": {"broken": True}}}
OMIT_MARKED = typed("envoy.retry_host_predicates.omit_host_metadata",
                    "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig", metadata_match=MARK)
PRIORITISED = ["three", "all_fail", "sick_middle", "aggregate of three"]
NAMES = [*AGGREGATES, "limited", *PRIORITISED]


def routes():
    for name in NAMES:
        path = name.replace(" ", "-")
        yield route(f"/once/{path}/", name, hash_policy=[{"connection_properties": {"source_ip": True}}])
        for every in (1, 2):
            yield route(f"/retried{every}/{path}/", name, retry_policy={
                "retry_on": "5xx,connect-failure", "num_retries": 4, "retry_back_off": {"base_interval": "0.001s"},
                "retry_priority": retry_other_priorities(every)})


    yield route("/omitting/marked/", "marked", retry_policy={
        "retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"},
        "retry_host_predicate": [OMIT_MARKED], "host_selection_retry_max_attempts": 20})


class Side:
    def __init__(self, start, directory, made):
        self.log = directory / "log"
        self.proxy = start(bootstrap([listener(hcm(list(routes()), access_log=[file_log(self.log, LINE)]))], made))
        self.lines = 0

    def found(self, kind, name):
        """Answers and log lines, each once."""
        path = f"/{kind}/{name.replace(' ', '-')}/"
        with Client(self.proxy.port()) as client:
            replies = [client.request("GET", path) for _ in range(TRIES)]
        lines = self.proxy.log_lines(self.log, self.lines + TRIES)[self.lines:]
        self.lines += TRIES
        return sorted({(r.status, r.body) for r in replies}), sorted(set(lines))

    def counted(self, name):
        return {c: self.proxy.stat(f"cluster.{name}.{c}") or 0 for c in COUNTED}


@pytest.fixture(scope="module")
def sides(shared_sluice, shared_envoy, tmp_path_factory):
    servers = [ScriptedUpstream() for _ in range(5)]
    for i, server in enumerate(servers[:4]):
        server.script(Reply(body=b"%d" % i))
    servers[4].script(Reply(status=503))
    refusing = socket.socket()
    refusing.bind(("127.0.0.1", 0))
    made = clusters([s.port for s in servers], servers[4].port, refusing.getsockname()[1])
    yield [Side(start, tmp_path_factory.mktemp(name), made)
           for name, start in (("envoy", shared_envoy), ("sluice", shared_sluice))]
    refusing.close()
    for server in servers:
        server.stop()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["once", "retried1", "retried2"])
def test_the_same_members(sides, kind, name):
    envoy, sluice = (side.found(kind, name) for side in sides)
    assert sluice == envoy
    assert sides[1].counted(name) == sides[0].counted(name)


def test_marked_hosts_are_not_retried(sides):
    envoy, sluice = (side.found("omitting", "marked") for side in sides)
    assert sluice == envoy
    assert {status for status, _ in sluice[0]} == {200} and any(line.endswith(" 2") for line in sluice[1])


@pytest.mark.parametrize("name", ["a", "b", "sick", "dead", "ring", "empty"])
def test_members_count_what_they_carried(sides, name):
    """Runs last: after all requests of the cases above."""
    assert sides[1].counted(name) == sides[0].counted(name)


def test_clusters_page(sides):
    envoy, sluice = (side.proxy.admin("/clusters?filter=^plain$").text for side in sides)
    assert sluice == envoy
    envoy, sluice = (side.proxy.admin("/clusters?format=json&filter=^plain$").json for side in sides)
    assert sluice == envoy


REFUSED = {
    "no members": aggregate("x"),
    "another balancer": aggregate("x", "a", lb_policy="ROUND_ROBIN"),
    "subsets": aggregate("x", "a", lb_subset_config={"subset_selectors": [{"keys": ["k"]}]}),
    "provided for a static one": cluster("x", 1, lb_policy="CLUSTER_PROVIDED"),
    "original_dst with another balancer": {"name": "x", "type": "ORIGINAL_DST", "lb_policy": "RANDOM"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_same_refusals(name, tmp_path, shared_envoy):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(bootstrap([], [REFUSED[name]])))
    said = [subprocess.run([kind.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
            for kind in (Envoy, Sluice)]
    assert [s.returncode for s in said] == [1, 1]
    text = "must contain at least 1" if name == "no members" else said[0].stderr.rsplit("json': ", 1)[-1].split("\n")[0]
    assert text in said[1].stderr + said[1].stdout
