"""Tunnels of tcp_proxy: large transfers with back-pressure, ends and resets of either side, limits, refused configurations. What the
upstream is asked: tests/parity."""

import json
import subprocess
import threading

import pytest

from support.config import bootstrap, cluster, hcm, http2, listener, tcp_proxy
from support.process import wait_until
from support.proxy import Sluice
from support.rawhttp import Client
from support.tunnel_server import TunnelServer

HOST = {"hostname": "target.example:443"}
KINDS = pytest.mark.parametrize("is_http2, use_post", [(False, False), (False, True), (True, False), (True, True)],
                                ids=["connect-h1", "post-h1", "connect-h2", "post-h2"])


def up(server, **fields):
    return cluster("up", server.port, **({"typed_extension_protocol_options": http2()} if server.is_http2 else {}), **fields)


@pytest.fixture
def tunnel(sluice, upstreams):
    def start(is_http2=False, use_post=False, answer=None, **fields):
        server = upstreams(TunnelServer, is_http2=is_http2, **(answer or {}))
        config = {**HOST, "use_post": use_post}
        return server, sluice(bootstrap([listener(tcp_proxy(tunneling_config=config))], [up(server, **fields)]))
    return start


@pytest.mark.smoke
@KINDS
def test_large_transfer(tunnel, is_http2, use_post):
    """Buffers far smaller than the bytes: both sides are stopped and resumed."""
    server, proxy = tunnel(is_http2, use_post, per_connection_buffer_limit_bytes=32768)
    sent = bytes(range(97, 123)) * 20000
    with Client(proxy.port(), timeout=60) as client:
        sender = threading.Thread(target=lambda: (client.send(sent), client.send(b"?").half_close()))
        sender.start()
        assert client.until_close() == sent.upper() + b"?BYE"
        sender.join()
    proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    assert proxy.stat("tcp.tcp.downstream_cx_tx_bytes_total") == len(sent) + 4


@KINDS
def test_client_resets(tunnel, is_http2, use_post):
    server, proxy = tunnel(is_http2, use_post)
    for _ in range(3):
        with Client(proxy.port()) as client:
            assert client.send(b"abc").exactly(3) == b"ABC"
    proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    assert proxy.stat("cluster.up.upstream_rq_total") == 3


@KINDS
def test_upstream_goes_away(tunnel, is_http2, use_post):
    server, proxy = tunnel(is_http2, use_post)
    with Client(proxy.port()) as client:
        assert client.send(b"abc").exactly(3) == b"ABC"
        server.drop_all()
        assert client.is_closed()
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)


def test_client_goes_while_the_answer_is_awaited(sluice, upstreams):
    """Reading is off until then: the idle timeout ends it."""
    server = upstreams(TunnelServer)
    server.serve = lambda sock, number: server.is_stopping.wait()
    proxy = sluice(bootstrap([listener(tcp_proxy(tunneling_config=HOST, idle_timeout="0.2s"))], [up(server)]))
    with Client(proxy.port()) as client:
        assert client.is_closed()
    proxy.wait_stat("tcp.tcp.idle_timeout", 1)
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)


@pytest.mark.parametrize("limits, stat", [({"max_requests": 1}, "upstream_rq_active_overflow"), ({"max_connection_pools": 0}, "upstream_cx_pool_overflow")])
def test_circuit_breakers(tunnel, limits, stat):
    server, proxy = tunnel(circuit_breakers={"thresholds": [limits]})
    with Client(proxy.port()) as client:
        if "max_requests" in limits:
            assert client.send(b"abc").exactly(3) == b"ABC"
        with Client(proxy.port()) as other:
            assert other.is_closed()
    wait_until(lambda: proxy.stat(f"cluster.up.{stat}") >= 1, stat)


@pytest.mark.parametrize("config, reason", [
    ({"hostname": ""}, "tunneling_config.hostname"),
    ({"hostname": "%NOPE%"}, "tunneling_config.hostname"),
    ({**HOST, "post_path": "/x"}, "tunneling_config: Can't set a post path when POST method isn't used"),
    ({**HOST, "use_post": True, "post_path": "x"}, "tunneling_config: post_path: must begin with '/'"),
    ({**HOST, "headers_to_add": [{"header": {"key": "host", "value": "x"}}]}, "tunneling_config.headers_to_add"),
    ({**HOST, "request_id_header": "x-id"}, "tunneling_config: request_id_header is not supported"),
])
def test_refused(tmp_path, config, reason):
    file = tmp_path / "bootstrap.json"
    file.write_text(json.dumps(bootstrap([listener(tcp_proxy(tunneling_config=config))], [cluster("up", 1)])))
    checked = subprocess.run([Sluice.binary, "-c", str(file), "--mode", "validate"], capture_output=True, text=True, timeout=60)
    assert checked.returncode != 0 and reason in checked.stderr


@KINDS
def test_through_two_proxies(sluice, byte_upstream, is_http2, use_post):
    """One proxy begins the tunnel, another ends it (connect_config): large both ways, and the client's end goes through."""
    match = {"prefix": "/"} if use_post else {"connect_matcher": {}}
    ending = {"match": match, "route": {"cluster": "up", "timeout": "0s", "upgrade_configs": [
        {"upgrade_type": "CONNECT", "connect_config": {"allow_post": use_post}}]}}
    last = sluice(bootstrap([listener(hcm([ending], upgrade_configs=[{"upgrade_type": "CONNECT"}], http2_protocol_options={"allow_connect": True}))],
                            [cluster("up", byte_upstream.port, per_connection_buffer_limit_bytes=32768)]))
    options = {"typed_extension_protocol_options": http2()} if is_http2 else {}
    first = sluice(bootstrap([listener(tcp_proxy(tunneling_config={**HOST, "use_post": use_post}))], [cluster("up", last.port(), **options)]))
    sent = bytes(range(256)) * 8192
    with Client(first.port(), timeout=60) as client:
        sender = threading.Thread(target=lambda: client.send(sent))
        sender.start()
        assert client.exactly(len(sent)) == sent
        sender.join()
        if is_http2 or use_post:
            assert client.half_close().until_close() == b""
    for proxy in (first, last):
        proxy.wait_stat("cluster.up.upstream_rq_active", 0)
    last.wait_stat("cluster.up.upstream_cx_active", 0)
