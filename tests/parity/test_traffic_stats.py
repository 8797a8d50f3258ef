"""Stats of listeners, connection managers, codecs and clusters, beside Envoy's: both serve the same series of requests, and after each
step their counters, gauges and histograms are compared: names, kinds, values and which were ever written.
traffic_stats_differences.yaml has what differs, each with its reason; a row that is not needed fails."""

import contextlib
import pathlib
import re

import pytest
import yaml

from support import config
from support.h2client import H2Client
from support.h2server import H2Upstream
from support.process import free_port, wait_until
from support.rawhttp import Client, chunks, fetch
from support.stats_beside import Differences, histograms_of, stats_of
from support.upstream import ByteUpstream, Reply, ScriptedUpstream

ROWS = yaml.safe_load((pathlib.Path(__file__).parent / "traffic_stats_differences.yaml").read_text()) or []
COMPARED = re.compile(r"^(listener|http|http1|http2|tcp|cluster|vhost|rbac|listener_manager\.listener)\.(?!admin)")
VOLATILE = re.compile(r"_ms$|_buffered$|_bytes_|update_time$|\.rx_bytes|header_size")
STEP_S = 10


def routes():
    def to(prefix, cluster, **fields):
        return config.route(prefix, cluster, **fields)
    policy = {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}
    clusters = [{"name": "vc", "headers": [{"name": ":path", "string_match": {"prefix": "/virtual"}}]}]
    return [config.vhost([
        config.direct("/direct", 200, "hi"),
        {"match": {"path": "/away"}, "redirect": {"path_redirect": "/direct"}},
        {"match": {"path": "/missing"}, "direct_response": {"status": 404}},
        to("/dead", "dead"), to("/empty", "empty"), to("/nocluster", "none"), to("/slow", "up", timeout="0.1s"),
        to("/retry", "up", retry_policy=policy), to("/ws", "up", upgrade_configs=[{"upgrade_type": "websocket"}]),
        to("/limited", "limited"), to("/h2", "h2"), to("/canary", "canary"), to("/", "up"),
    ], virtual_clusters=clusters)]


def configuration(ports):
    manager = config.hcm(vhosts=routes(), stat_prefix="ingress", codec_type="AUTO", use_remote_address=True,
                         route_fields={"validate_clusters": False}, stream_idle_timeout="5s")
    listeners = [config.listener(manager), config.listener(config.tcp_proxy("bytes"), name="tcp"),
                 config.listener(config.tcp_proxy("dead", stat_prefix="tcp_dead"), name="tcp_dead")]
    canary = config.endpoint(ports["up"], metadata={"filter_metadata": {"envoy.lb": {"canary": True}}})
    clusters = [config.cluster("up", ports["up"]), config.cluster("dead", ports["dead"]), config.cluster("empty"),
                config.cluster("bytes", ports["bytes"]), config.cluster("canary", canary), config.cluster("unused", ports["up"]),
                config.cluster("limited", ports["up"], circuit_breakers={"thresholds": [{"max_requests": 0}]}),
                config.cluster("h2", ports["h2"], typed_extension_protocol_options=config.http2())]
    return config.bootstrap(listeners, clusters, stats_flush_interval="0.1s")


class Pair:
    def __init__(self, sluice, shared_envoy, ports):
        self.proxies = [start(configuration(ports)) for start in (sluice, shared_envoy)]
        self.differences = Differences(ROWS)

    def each(self, act):
        for proxy in self.proxies:
            act(proxy)

    @staticmethod
    def stats(proxy):
        return {**stats_of(proxy, COMPARED, VOLATILE), **histograms_of(proxy, COMPARED)}

    def compare(self, step):
        left = {}

        def settled():
            nonlocal left
            left = self.differences.unexplained(*(self.stats(p) for p in self.proxies))
            return not left
        wait_until(settled, lambda: f"{step}: " + "".join(f"\n  {n}: {v}" for n, v in sorted(left.items())), STEP_S)


@pytest.fixture(scope="module")
def world(shared_sluice, shared_envoy):
    with contextlib.ExitStack() as stack:
        servers = {"up": ScriptedUpstream(), "bytes": ByteUpstream(), "h2": H2Upstream({"/h2": b"two"})}
        for server in servers.values():
            stack.callback(server.stop)
        pair = Pair(shared_sluice, shared_envoy, {**{n: s.port for n, s in servers.items()}, "dead": free_port()})
        pair.up = servers["up"]
        yield pair


def scripted(world, reply, act):
    def run(proxy):
        world.up.script(reply) if not isinstance(reply, list) else world.up.script(*reply)
        act(proxy)
    world.each(run)


def get(path, **options):
    return lambda proxy: fetch(proxy.port("main"), path, **options)


def h2(act):
    def run(proxy):
        with H2Client(proxy.port("main")) as client:
            act(client)
    return run


def raw(data, answers=1):
    def run(proxy):
        with Client(proxy.port("main")) as client:
            client.send(data)
            for _ in range(answers):
                client.read()
            if not answers:
                client.close()
    return run


def websocket(proxy):
    with Client(proxy.port("main")) as client:
        client.send("GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        assert client.read_head().status == 101
        client.send(b"ping")
        assert client.exactly(4) == b"ping"


def tcp(proxy):
    with Client(proxy.port("tcp")) as client:
        client.send(b"hello")
        client.exactly(5)


def tcp_dead(proxy):
    with Client(proxy.port("tcp_dead")) as client:
        client.is_closed()


STEPS = [
    ("nothing", None, lambda proxy: None),
    ("h1 direct", None, get("/direct")),
    ("h1 redirect", None, get("/away")),
    ("h1 404 route", None, get("/missing")),
    ("h1 upstream", Reply(), get("/")),
    ("h1 body", Reply(), get("/", method="POST", body=b"x" * 1000)),
    ("h1 internal", Reply(), get("/", headers=[("x-forwarded-for", "10.0.0.1")])),
    ("h1 upstream 500", Reply(status=500), get("/")),
    ("h1 upstream 404", Reply(status=404), get("/")),
    ("h1 upstream 301", Reply(status=301), get("/")),
    ("h1 retry", [Reply(status=503), Reply()], get("/retry")),
    ("h1 retry in vain", [Reply(status=503), Reply(status=503)], get("/retry")),
    ("h1 timeout", Reply(silent=True), get("/slow")),
    ("h1 reset upstream", Reply(reset=True), get("/")),
    ("h1 bad upstream", Reply(raw=b"nonsense\r\n\r\n"), get("/")),
    ("h1 upstream closes", Reply(close=True), get("/")),
    ("dead", None, get("/dead")),
    ("empty", None, get("/empty")),
    ("no cluster", None, get("/nocluster")),
    ("limited", None, get("/limited")),
    ("canary", Reply(), get("/canary")),
    ("virtual cluster", Reply(), get("/virtual")),
    ("bad request", None, raw("GET / HTTP/1.1\r\nbad header\r\n\r\n")),
    ("no host", None, raw("GET / HTTP/1.1\r\n\r\n")),
    ("http/1.0", None, raw("GET / HTTP/1.0\r\nhost: a\r\n\r\n")),
    ("two on a connection", None, raw("GET /direct HTTP/1.1\r\nhost: a\r\n\r\n" * 2, 2)),
    ("websocket", Reply(status=101, headers=[("connection", "upgrade"), ("upgrade", "websocket")], echo=True, length=False, body=b""), websocket),
    ("refused upgrade", None, raw("GET /direct HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n")),
    ("h2 direct", None, h2(lambda c: c.get("/direct"))),
    ("h2 upstream", Reply(), h2(lambda c: c.get("/"))),
    ("h2 body", Reply(), h2(lambda c: c.get("/", "POST", body=b"y" * 1000))),
    ("h2 to h2", None, h2(lambda c: c.get("/h2"))),
    ("h1 to h2", None, get("/h2")),
    ("tcp", None, tcp),
    ("tcp dead", None, tcp_dead),
]


@pytest.mark.parametrize("step", STEPS, ids=[s[0] for s in STEPS])
def test_stats(world, step):
    name, reply, act = step
    if reply:
        scripted(world, reply, act)
    else:
        world.each(act)
    world.compare(name)


def test_each_difference_is_needed(world):
    assert not world.differences.unneeded(), "these no longer differ"
