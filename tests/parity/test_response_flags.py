"""%RESPONSE_FLAGS% of whatever has more than one, and of connections without requests: the same flags in the same order as Envoy's."""

import socket

import pytest

from support import config
from support.rawhttp import Client, fetch
from support.upstream import Reply

LOG = "%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG% %RESPONSE_CODE_DETAILS%\n"
RETRY = {"retry_on": "5xx,reset", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}
DELAY = config.typed("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault",
                     delay={"fixed_delay": "0.01s", "percentage": {"numerator": 100}}, headers=[{"name": "x-delay", "present_match": True}])
ABORT = config.typed("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault",
                     abort={"http_status": 503, "percentage": {"numerator": 100}}, headers=[{"name": "x-abort", "present_match": True}])
TCP = {"refused": ("dead", {}), "refused_often": ("dead", {"max_connect_attempts": 3}), "full": ("full", {}), "empty": ("empty", {}),
       "unknown": ("unknown", {}), "idle": ("up", {"idle_timeout": "0.1s"}), "long": ("up", {"max_downstream_connection_duration": "0.1s"})}
# name, path, headers, how the upstream answers each attempt
REQUESTS = [
    ("refused", "/dead", [], []), ("refused and delayed", "/dead", ["x-delay"], []), ("empty", "/empty", [], []),
    ("full", "/full", [], []), ("delayed", "/", ["x-delay"], [Reply()]), ("aborted", "/", ["x-abort"], []),
    ("delayed and aborted", "/", ["x-delay", "x-abort"], []), ("reset", "/", [], [Reply(reset=True)] * 2),
    ("nonsense", "/", [], [Reply(raw=b"nonsense\r\n\r\n")] * 2), ("503", "/", [], [Reply(status=503)] * 2),
    ("503 delayed", "/", ["x-delay"], [Reply(status=503)] * 2), ("slow", "/slow", [], [Reply(silent=True)] * 2),
    ("slow and delayed", "/slow", ["x-delay"], [Reply(silent=True)] * 2)]


def routes():
    return [config.route("/dead", "dead", retry_policy=RETRY), config.route("/empty", "empty", retry_policy=RETRY),
            config.route("/full", "full", retry_policy=RETRY),
            config.route("/slow", "up", timeout="1s", retry_policy={**RETRY, "per_try_timeout": "0.05s"}),
            config.route("/", "up", retry_policy=RETRY)]


def bootstrap(directory, up, dead):
    manager = config.hcm(routes=routes(), filters=[DELAY, ABORT], access_log=[config.file_log(directory / "main", LOG)])
    listeners = [config.listener(manager)] + [
        config.listener(config.tcp_proxy(cluster, access_log=[config.file_log(directory / name, LOG)], **fields), name=name)
        for name, (cluster, fields) in TCP.items()]
    none = {"thresholds": [{"max_pending_requests": 0, "max_connections": 0}]}
    clusters = [config.cluster("up", up), config.cluster("dead", dead), config.cluster("empty"),
                config.cluster("full", up, circuit_breakers=none)]
    return config.bootstrap(listeners, clusters)


@pytest.fixture(scope="module")
def pair(shared_sluice, shared_envoy, shared_upstream, tmp_path_factory):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        made = []
        for start in (shared_sluice, shared_envoy):
            directory = tmp_path_factory.mktemp("logs")
            made.append((start(bootstrap(directory, shared_upstream.port, dead.getsockname()[1])), directory))
        yield made


@pytest.mark.parametrize("name", TCP)
def test_connections(pair, name):
    lines = []
    for proxy, directory in pair:
        with Client(proxy.port(name)) as client:
            assert client.is_closed()
        lines.append(proxy.log_lines(directory / name, 1))
    assert lines[0] == lines[1] and len(lines[0]) == 1


@pytest.mark.parametrize("case", REQUESTS, ids=[r[0] for r in REQUESTS])
def test_requests(pair, shared_upstream, case):
    _, path, headers, replies = case
    lines = []
    for proxy, directory in pair:
        before = len(proxy.log_lines(directory / "main", 0))
        if replies:
            shared_upstream.script(*replies)
        fetch(proxy.port("main"), path, headers=[(h, "1") for h in headers])
        lines.append(proxy.log_lines(directory / "main", before + 1)[before:])
    assert lines[0] == lines[1] and len(lines[0]) == 1
