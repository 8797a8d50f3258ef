"""Tunnels of tcp_proxy beside Envoy's: the upstream gets the same request, the client the same bytes, logs and stats tell the same."""

import contextlib
import itertools

import pytest

from support.config import bootstrap, cluster, file_log, http2, listener, tcp_proxy
from support.rawhttp import Client
from support.tunnel_server import TunnelServer

HOST = {"hostname": "target.example:443"}
CONFIGS = {
    "connect": HOST,
    "formatted": {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%:80", "headers_to_add": [
        {"header": {"key": "x-from", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"}},
        {"header": {"key": "x-from", "value": "2"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
        {"header": {"key": "proxy-authorization", "value": "Basic eA=="}}]},
    "post": {**HOST, "use_post": True},
    "post-path": {**HOST, "use_post": True, "post_path": "/tunnel?x=1"},
    "propagate": {**HOST, "propagate_response_headers": True, "propagate_response_trailers": True},
}
ANSWERS = {"ok": {"headers": [("x-a", "1"), ("x-a", "2")]}, "created": {"status": 201}, "denied": {"status": 403, "headers": [("x-why", "no")]},
           "failed": {"status": 503}, "silent": {"status": None}, "trailers": {"trailers": [("x-t", "end")]}}
PROTOCOLS = ("h1", "h2")
STATE = "%FILTER_STATE(envoy.tcp_proxy.propagate_response_{}:TYPED)%"
LOG = " ".join(["%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_REQUEST_ATTEMPT_COUNT% %UPSTREAM_CLUSTER%",
                STATE.format("headers"), STATE.format("trailers")]) + "\n"
COUNTED = ("upstream_cx_connect_attempts_exceeded", "upstream_rq_total", "upstream_rq_active", "upstream_rq_pending_total", "upstream_cx_total",
           "upstream_cx_connect_fail", "upstream_rq_completed")


@pytest.fixture(scope="module")
def servers():
    with contextlib.ExitStack() as stack:
        made = {}
        for protocol, (name, answer) in itertools.product(PROTOCOLS, ANSWERS.items()):
            made[f"{name}-{protocol}"] = TunnelServer(is_http2=protocol == "h2", **answer)
            stack.callback(made[f"{name}-{protocol}"].stop)
        yield made


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, servers, tmp_path_factory):
    def start(kind):
        directory = tmp_path_factory.mktemp("logs")
        listeners = [listener(tcp_proxy(name, tunneling_config=config, max_connect_attempts=2,
                                        access_log=[file_log(directory / f"{name}-{how}", LOG)]), name=f"{name}-{how}")
                     for name, (how, config) in itertools.product([*servers, "refused-h1", "refused-h2"], CONFIGS.items())]
        clusters = [cluster(name, server.port, **({"typed_extension_protocol_options": http2()} if server.is_http2 else {}))
                    for name, server in servers.items()]
        clusters += [cluster("refused-h1", 1), cluster("refused-h2", 1, typed_extension_protocol_options=http2())]
        return kind(bootstrap(listeners, clusters)), directory
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


def told(request):
    headers, data = request
    return sorted((k.lower(), v) for k, v in headers), data


def outcome(side, server, name):
    proxy, directory = side
    if server:
        del server.received[:]
    got = b""
    with Client(proxy.port(name)) as client, contextlib.suppress(EOFError, ConnectionError):
        client.send(b"hello")
        got += client.exactly(5)
        client.send(b"world")
        got += client.exactly(5)
    (line,) = proxy.log_lines(directory / name, 1)[-1:]
    return got, [told(r) for r in server.received] if server else [], line


@pytest.mark.parametrize("how", CONFIGS)
@pytest.mark.parametrize("name", [f"{a}-{p}" for a in [*ANSWERS, "refused"] for p in PROTOCOLS])
def test_tunnels(sides, servers, name, how):
    envoy, sluice = (outcome(side, servers.get(name), f"{name}-{how}") for side in sides)
    assert sluice == envoy


@pytest.mark.parametrize("name", [f"{a}-{p}" for a in [*ANSWERS, "refused"] for p in PROTOCOLS])
def test_stats(sides, servers, name):
    before = [{c: proxy.stat(f"cluster.{name}.{c}") for c in COUNTED} for proxy, _ in sides]
    for side in sides:
        outcome(side, servers.get(name), f"{name}-connect")
    after = [{c: proxy.stat(f"cluster.{name}.{c}") for c in COUNTED} for proxy, _ in sides]
    envoy, sluice = ({c: a[c] - b[c] for c in COUNTED} for a, b in zip(after, before))
    assert sluice == envoy


@pytest.mark.parametrize("how", ["post", "connect"])
def test_half_close_over_http2(sides, servers, how):
    """The client's end reaches the upstream, and what that says then the client."""
    def run(side):
        with Client(side[0].port(f"ok-h2-{how}")) as client:
            client.send(b"bytes?").half_close()
            return client.until_close()

    assert [run(side) for side in sides] == [b"BYTES?BYE"] * 2
