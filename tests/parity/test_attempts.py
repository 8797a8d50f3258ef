"""What the access log tells of every try of a request or a connection, beside Envoy's: hosts, their names, connections."""

import re

import pytest

from support.config import bootstrap, cluster, endpoint, file_log, hcm, listener, route, tcp_proxy
from support.process import free_port
from support.rawhttp import Client, fetch
from support.upstream import Reply

FIELDS = ["UPSTREAM_HOST", "UPSTREAM_HOSTS_ATTEMPTED", "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_HOST_NAMES_ATTEMPTED",
          "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_CONNECTION_ID", "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
          "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_LOCAL_CLOSE_REASON", "DOWNSTREAM_LOCAL_CLOSE_REASON", "UPSTREAM_DETECTED_CLOSE_TYPE",
          "RESPONSE_FLAGS"]
LOG = " ".join(f"%{f}%" for f in FIELDS) + "\n"
RETRY = {"retry_on": "5xx,connect-failure,reset", "num_retries": 3,
         "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"}}
BREAKERS = {"thresholds": [{"max_requests": 0}]}


def clusters(up, bad):
    """{name: a cluster}; `up`: ports of servers, `bad`: of nobody."""
    named = endpoint(up[0], endpoint={"hostname": "one.example.com"})
    return {
        "one": cluster("one", up[0]),
        "named": cluster("named", named),
        "refused": cluster("refused", bad[0]),
        "mixed": cluster("mixed", bad[0], up[0]),
        "empty": cluster("empty"),
        "overflow": cluster("overflow", up[0], circuit_breakers=BREAKERS),
    }


@pytest.fixture(scope="module")
def sides(shared_sluice, shared_envoy, shared_upstream, tmp_path_factory):
    up, bad = [shared_upstream.port], [free_port()]

    def start(kind):
        logs = tmp_path_factory.mktemp("logs")
        made = clusters(up, bad)
        listeners = []
        for name in made:
            log = [file_log(logs / name, LOG)]
            listeners += [listener(hcm([route(cluster=name, retry_policy=RETRY, timeout="0.2s")], access_log=log), name=name),
                          listener(tcp_proxy(name, max_connect_attempts=3, idle_timeout="0.2s", access_log=[file_log(logs / f"tcp-{name}", LOG)]), name=f"tcp-{name}")]
        brief = tcp_proxy("one", max_downstream_connection_duration="0.1s", access_log=[file_log(logs / "tcp-brief", LOG)])
        return kind(bootstrap([*listeners, listener(brief, name="tcp-brief")], list(made.values())), concurrency=1), logs
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


def lines_of(side, name):
    log = side[1] / name
    return log.read_text().splitlines() if log.exists() else []


def line(side, name, n):
    """The n-th line of the log: numbers of connections by their order in it."""
    proxy, logs = side
    found = proxy.log_lines(logs / name, n)[-1].split(" ")
    known = {}
    for i in (FIELDS.index("UPSTREAM_CONNECTION_ID"), FIELDS.index("UPSTREAM_CONNECTION_IDS_ATTEMPTED")):
        found[i] = re.sub(r"[1-9]\d*", lambda m: known.setdefault(m[0], f"#{len(known)}"), found[i])
    return found


REPLIES = {"ok": [Reply()], "bad-once": [Reply(status=503), Reply()], "bad": [Reply(status=503)], "silent": [Reply(silent=True)],
           "cut": [Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc", close=True)]}


@pytest.mark.parametrize("name", [n for n in clusters([0], [0]) if n != "mixed"])  # whose turn it is differs
@pytest.mark.parametrize("replies", REPLIES)
def test_requests(sides, shared_upstream, name, replies):
    def outcome(side):
        lines = []
        for _ in range(3):
            shared_upstream.script(*REPLIES[replies])
            before = len(lines_of(side, name))
            status = fetch(side[0].port(name)).status
            lines.append((status, line(side, name, before + 1)))
        return sorted(lines)

    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy


CONNECTIONS = [(name, replies) for name in [*clusters([0], [0]), "brief"] for replies in ("cut", "silent")]
CONNECTIONS.remove(("mixed", "silent"))  # Envoy's idle timeout does not end a connection whose first try failed


@pytest.mark.parametrize("name,replies", CONNECTIONS)
def test_connections(sides, shared_upstream, name, replies):
    def outcome(side):
        lines = []
        for _ in range(2):  # in one of the two the turn of a host that refuses comes first
            shared_upstream.script(*REPLIES[replies])
            before = len(lines_of(side, f"tcp-{name}"))
            with Client(side[0].port(f"tcp-{name}")) as client:
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").until_close()
            lines.append(line(side, f"tcp-{name}", before + 1))
        return max(lines, key=lambda found: len(found[1]))

    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy
