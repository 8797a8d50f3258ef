"""After traffic of all sorts nothing is left: gauges are back at 0, and counters, access log and each other's sums agree."""

import collections
import contextlib
import re
import socket

import pytest

from support.config import bootstrap, cluster, direct, file_log, hcm, http2, listener, route
from support.h2client import H2Client
from support.process import wait_until
from support.rawhttp import Client, encode, fetch
from support.upstream import Reply, ScriptedUpstream

LEFT = re.compile(r"(_active|_pending|_buffered|_open|pending_send_bytes)$")
OWN = re.compile(r"^(http\.admin|listener\.admin|listener_manager|cluster_manager|server|filesystem)\.|^cluster\.tight\.circuit_breakers\.")
HEAD = [(":method", "GET"), (":scheme", "http"), (":authority", "test")]
AGAIN = {"retry_on": "5xx,reset", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}
BIG = b"x" * 300000


def reply_to(request):
    """What the path says."""
    replies = {"/fails": Reply(503), "/resets": Reply(reset=True), "/silent": Reply(silent=True), "/garbage": Reply(raw=b"?\r\n\r\n"),
               "/cut": Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", reset=True), "/closes": Reply(close=True),
               "/chunks": Reply(chunks=[b"a", b"b"], trailers=[("x-t", "1")]), "/interim": Reply(interim=[103]), "/big": Reply(body=BIG),
               "/early": Reply(413, early=True), "/again": Reply(302, headers=[("location", "http://test/ok")]),
               "/odd": Reply(600), "/until-close": Reply(length=False, close=True), "/tunnel": Reply(101, echo=True, headers=[
                   ("connection", "upgrade"), ("upgrade", "websocket")])}
    return replies.get("/" + request.target.split("/")[1], Reply())


PATHS = ["/ok", "/fails", "/resets", "/silent/limit", "/garbage", "/cut", "/closes", "/chunks", "/interim", "/big", "/again",
         "/odd", "/until-close", "/dead", "/direct", "/none", "/silent/try", "/tight", "/gone"]


@pytest.fixture
def refusing():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def other(upstreams):
    return upstreams(ScriptedUpstream)


@pytest.fixture
def speaks_h2(h2_upstream):
    return h2_upstream({"/h2": BIG}, refuse=1)


@pytest.fixture
def log(tmp_path):
    return tmp_path / "access"


@pytest.fixture
def proxy(sluice, upstream, other, refusing, speaks_h2, log):
    upstream.script(reply_to)
    routes = [direct("/direct", 200, "hello"), {"match": {"path": "/none"}, "redirect": {"path_redirect": "/ok"}},
              route("/dead", "dead", retry_policy=AGAIN), route("/tight", "tight"), route("/gone", "gone"),
              route("/h2", "h2", retry_policy=AGAIN),
              route("/silent/limit", timeout="0.05s"), route("/silent/idle", idle_timeout="0.05s"),
              route("/silent/try", retry_policy={**AGAIN, "per_try_timeout": "0.05s"}),
              route("/again", internal_redirect_policy={"max_internal_redirects": 1}),
              route("/", retry_policy=AGAIN, request_mirror_policies=[{"cluster": "other"}])]
    main = hcm(routes, access_log=[file_log(log, "%RESPONSE_CODE%\n")], upgrade_configs=[{"upgrade_type": "websocket"}],
               stream_idle_timeout="5s")
    tight = {"circuit_breakers": {"thresholds": [{"max_requests": 0}]}}
    return sluice(bootstrap([listener(main)], [cluster("up", upstream.port), cluster("other", other.port), cluster("gone"),
                                               cluster("dead", refusing), cluster("tight", upstream.port, **tight),
                                               cluster("h2", speaks_h2.port, typed_extension_protocol_options=http2())]))


def talk_h1(port):
    for path in [*PATHS, "/h2"]:
        for method, body in (("GET", b""), ("POST", b"abc"), ("HEAD", b"")):
            with contextlib.suppress(EOFError), Client(port) as client:
                client.request(method, path, body=body)
    fetch(port, "/early", "POST", body=BIG)
    for raw in (b"BAD\r\n\r\n", b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n", b"POST /ok HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n"):
        with contextlib.suppress(EOFError), Client(port) as client:
            client.send(raw).read()


def leave_h1(port):
    """Clients that go at every stage."""
    for sent in (b"", b"GE", b"GET /silent HTTP/1.1\r\nhost: t\r\n\r\n", b"POST /ok HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nabc",
                 encode("GET", "/big"), encode("GET", "/ok") * 3):
        Client(port).send(sent).close()
    with Client(port) as client:
        upgraded = client.request("GET", "/tunnel", [("connection", "upgrade"), ("upgrade", "websocket")])
        assert upgraded.status == 101
        assert client.send(b"ping").exactly(4) == b"ping"


def talk_h2(port):
    with H2Client(port) as client:
        for path in [*PATHS, "/h2", "/early"]:
            client.get(path)
            client.get(path, "POST", body=b"abc")
    with H2Client(port) as client:  # some are left to their own
        streams = [client.open([*HEAD, (":path", path)]) for path in ("/silent", "/big", "/ok", "/h2")]
        client.connection.reset_stream(streams[0], 8)
        client.flush()
        client.wait(streams[2])


def total(counted, pattern):
    return sum(v for n, v in counted.items() if re.fullmatch(pattern, n))


def left(proxy):
    return {n: v for n, v in proxy.stats().items() if v and LEFT.search(n) and not OWN.search(n)}


def test_nothing_is_left_and_sums_agree(proxy, upstream, other, speaks_h2, log):
    for _ in range(2):
        talk_h1(proxy.port())
        talk_h2(proxy.port())
        leave_h1(proxy.port())
    wait_until(lambda: not total(proxy.stats(), r"http\.ingress\.downstream_(cx|rq)_active"), "clients' ends")
    for server in (upstream, other, speaks_h2):
        server.drop_all()
    assert proxy.post("/drain_listeners").text == "OK\n"
    wait_until(lambda: not left(proxy), lambda: f"gauges to be 0: {left(proxy)}")
    counted = proxy.stats()
    requests = counted["http.ingress.downstream_rq_total"]
    codes = collections.Counter(line[:1] for line in proxy.log_lines(log, requests))
    assert codes.total() == requests == sum(counted[f"http.ingress.downstream_rq_http{v}_total"] for v in (1, 2))
    codes["3"] -= counted["cluster.up.upstream_internal_redirect_succeeded_total"]  # logged, and no answer to a client
    for n in "2345":
        assert total(counted, rf"http\.ingress\.downstream_rq_{n}xx") == codes[n], n
    assert counted["http.ingress.downstream_cx_total"] == counted["http.ingress.downstream_cx_destroy"]
    assert counted["http.ingress.downstream_cx_destroy"] == total(counted, r"http\.ingress\.downstream_cx_destroy_(local|remote)")
    for name in ("up", "other", "dead", "tight", "h2"):
        assert_cluster(counted, f"cluster.{name}")


def assert_cluster(counted, name):
    assert counted[f"{name}.upstream_cx_total"] == counted[f"{name}.upstream_cx_destroy"]
    assert counted[f"{name}.upstream_cx_destroy"] == total(counted, re.escape(name) + r"\.upstream_cx_destroy_(local|remote)")
    of_class = total(counted, re.escape(name) + r"\.upstream_rq_([1-5]xx|unknown)")
    assert counted[f"{name}.upstream_rq_completed"] == of_class == total(counted, re.escape(name) + r"\.upstream_rq_([1-5]\d\d|unknown)")
    for up, down in (("backed_up", "drained"), ("paused_reading", "resumed_reading")):
        assert counted[f"{name}.upstream_flow_control_{up}_total"] >= counted[f"{name}.upstream_flow_control_{down}_total"]
