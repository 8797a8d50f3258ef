"""When access logs are written, beside Envoy: at a stream's or connection's start, in intervals, and at its end."""

import json
import re
import subprocess

import pytest

from support.config import bootstrap, cluster, file_log, hcm, listener, route, tcp_proxy
from support.process import free_port, wait_until
from support.proxy import Envoy, Sluice
from support.rawhttp import Client
from support.upstream import Reply

FIELDS = ["ACCESS_LOG_TYPE", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS", "BYTES_RECEIVED", "BYTES_SENT", "DURATION",
          "REQUEST_DURATION", "RESPONSE_DURATION", "RESPONSE_TX_DURATION", "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "ROUTE_NAME", "REQ(:PATH)",
          "RESP(X-TOLD)", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "PROTOCOL", "REQ(X-REQUEST-ID)", "UPSTREAM_WIRE_BYTES_SENT",
          "UPSTREAM_WIRE_BYTES_RECEIVED", "DOWNSTREAM_WIRE_BYTES_RECEIVED"]
UNCERTAIN = [FIELDS.index(f) for f in FIELDS if "DURATION" in f or f == "REQ(X-REQUEST-ID)"]
LOG = " ".join(f"%{f}%" for f in FIELDS) + "\n"
MS = "0.05s"

HTTP = {
    "none": {},
    "new": {"access_log_options": {"flush_access_log_on_new_request": True}},
    "old-new": {"flush_access_log_on_new_request": True},
    "interval": {"access_log_options": {"access_log_flush_interval": MS}},
    "old-interval": {"access_log_flush_interval": MS},
    "tunnel": {"access_log_options": {"flush_log_on_tunnel_successfully_established": True}},
    "all": {"access_log_options": {"access_log_flush_interval": MS, "flush_access_log_on_new_request": True,
                                   "flush_log_on_tunnel_successfully_established": True}},
    "filtered": {"access_log_options": {"access_log_flush_interval": MS, "flush_access_log_on_new_request": True}},
}
TCP = {
    "none": {},
    "connected": {"access_log_options": {"flush_access_log_on_connected": True}},
    "old-connected": {"flush_access_log_on_connected": True},
    "interval": {"access_log_options": {"access_log_flush_interval": MS}},
    "old-interval": {"access_log_flush_interval": MS},
    "start": {"access_log_options": {"flush_access_log_on_start": True}},
    "all": {"access_log_options": {"access_log_flush_interval": MS, "flush_access_log_on_connected": True,
                                   "flush_access_log_on_start": True}},
}
CLUSTERS = ["up", "refused", "missing"]
ROUTES = [
    {"match": {"prefix": "/direct"}, "name": "direct", "direct_response": {"status": 204}},
    {**route("/refused", "refused"), "name": "refused"},
    {"match": {"connect_matcher": {}}, "name": "tunnel",
     "route": {"cluster": "up", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]}},
    {**route("/up", "up"), "name": "up"},
]


@pytest.fixture(scope="module")
def sides(shared_sluice, shared_envoy, shared_upstream, tmp_path_factory):
    refused = free_port()

    def start(kind):
        logs = tmp_path_factory.mktemp("logs")
        listeners = []
        for name, options in HTTP.items():
            only = {"filter": {"log_type_filter": {"types": ["DownstreamStart"]}}} if name == "filtered" else {}
            manager = hcm(ROUTES, access_log=[{**file_log(logs / name, LOG), **only}], upgrade_configs=[{"upgrade_type": "CONNECT"}], **options)
            listeners.append(listener(manager, name=name))
        for name, options in TCP.items():
            for to in CLUSTERS:
                proxy = tcp_proxy(to, access_log=[file_log(logs / f"tcp-{name}-{to}", LOG)], **options)
                listeners.append(listener(proxy, name=f"tcp-{name}-{to}"))
        clusters = [cluster("up", shared_upstream.port), cluster("refused", refused)]
        return kind(bootstrap(listeners, clusters), concurrency=1), logs
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


def seen(text):
    """Lines with what depends on time told only as there or not; those of intervals that tell the same as the one before once."""
    lines = []
    for line in text.splitlines():
        values = line.split(" ")
        for i in UNCERTAIN:
            values[i] = "-" if values[i] == "-" else "#"
        if values[0] == "DownstreamStart":
            values[-1] = "*"  # Envoy counts what came in the same read as the headers
        if values[FIELDS.index("ROUTE_NAME")] == "tunnel":
            values[FIELDS.index("REQUEST_DURATION")] = "*"  # Envoy's tunnels over HTTP/1 have no end of the request
        if "Periodic" not in values[0] or values not in lines:
            lines.append(values)
    return lines


def lines_after(side, name, talk):
    """What `talk(client)` has logged up to its last line."""
    log = side[1] / name
    before = len(log.read_text()) if log.exists() else 0

    def read():
        return log.read_text()[before:] if log.exists() else ""
    with Client(side[0].port(name)) as client:
        talk(client, read)
    ends = "DownstreamStart" if name == "filtered" else "End"
    return seen(wait_until(lambda: (t := read()) and re.search(rf"^\w*{ends} .*\n\Z", t, re.M) and t, "the last line"))


def ask(request):
    def talk(client, _):
        client.send(request).read()
    return talk


def hold(client, read):
    """A request that goes on: its body comes in halves, with a line of an interval between where there are any."""
    client.send("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
    client.socket.settimeout(15)
    periodic(read)
    client.send("cd").read()


def periodic(read):
    try:
        wait_until(lambda: read().count("Periodic") > 1, "lines of an interval", seconds=0.4)
    except AssertionError:
        pass


def tunnel(client, read):
    client.send("CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n")
    client.line()
    client.send("abc")
    periodic(read)


KINDS = {
    "up": ask("GET /up HTTP/1.1\r\nhost: a\r\n\r\n"),
    "direct": ask("GET /direct HTTP/1.1\r\nhost: a\r\n\r\n"),
    "refused": ask("GET /refused HTTP/1.1\r\nhost: a\r\n\r\n"),
    "nowhere": ask("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n"),
    "no-host": ask("GET /up HTTP/1.1\r\n\r\n"),
    "not-http": ask("what\r\n\r\n"),
    "held": hold,
    "tunnel": tunnel,
    "upgrade": ask("GET /up HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
}


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("kind", KINDS)
def test_requests(sides, shared_upstream, name, kind):
    if name == "filtered" and kind in ("no-host", "not-http", "upgrade"):
        pytest.skip("nothing is logged")

    def outcome(side):
        shared_upstream.script(Reply(headers=[("x-told", "yes")], body=b"abcd"))
        return lines_after(side, name, KINDS[kind])
    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy


@pytest.mark.parametrize("name", TCP)
@pytest.mark.parametrize("to", CLUSTERS)
def test_connections(sides, shared_upstream, name, to):
    def talk(client, read):
        if to == "up":
            client.send("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nab")
            periodic(read)
            client.send("cd").read()

    def outcome(side):
        shared_upstream.script(Reply(headers=[("x-told", "yes")], body=b"abcd"))
        return lines_after(side, f"tcp-{name}-{to}", talk)
    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy


BOTH = {
    "http-interval": hcm(ROUTES, access_log_options={}, access_log_flush_interval="1s"),
    "http-new": hcm(ROUTES, access_log_options={}, flush_access_log_on_new_request=True),
    "http-short": hcm(ROUTES, access_log_options={"access_log_flush_interval": "0s"}),
    "http-old-short": hcm(ROUTES, access_log_flush_interval="0.0001s"),
    "tcp-interval": tcp_proxy("up", access_log_options={}, access_log_flush_interval="1s"),
    "tcp-connected": tcp_proxy("up", access_log_options={}, flush_access_log_on_connected=True),
    "tcp-short": tcp_proxy("up", access_log_options={"access_log_flush_interval": "0s"}),
    "tcp-old-short": tcp_proxy("up", access_log_flush_interval="0.0001s"),
    "http-fits": hcm(ROUTES, access_log_options={}),
    "tcp-fits": tcp_proxy("up", access_log_options={}),
}


@pytest.mark.parametrize("name", BOTH)
def test_refusals(tmp_path, name):
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(BOTH[name])], [cluster("up", 9), cluster("refused", 9)])))
    said = [subprocess.run([kind.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
            for kind in (Envoy, Sluice)]
    assert said[1].returncode == said[0].returncode, said
