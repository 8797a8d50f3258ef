"""PROXY headers to upstreams: whole, first, one connection a client, refused configurations. What they say: tests/parity."""

import base64
import json
import subprocess

import pytest

from support import proxy_header
from support.config import bootstrap, cluster, hcm, listener, tcp_proxy, typed
from support.proxy import Sluice
from support.rawhttp import Client, encode
from support.upstream import ByteUpstream

RAW = typed("envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")
LARGE = [{"type": 0xE0 + i, "value": base64.b64encode(bytes([i]) * 30000).decode()} for i in (0, 1)]


def sender(inner=RAW, **config):
    return typed("envoy.transport_sockets.upstream_proxy_protocol",
                 "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", config=config,
                 transport_socket=inner)


@pytest.fixture
def server(upstreams):
    """Echoes what stands behind the header, having noted that."""
    def serve(sock, noted):
        header, rest = proxy_header.read(sock)
        noted.received.append(header)
        while rest := rest or sock.recv(65536):
            sock.sendall(rest)
            rest = b""

    return upstreams(ByteUpstream, serve)


@pytest.mark.smoke
@pytest.mark.parametrize("added", [[], LARGE], ids=["small", "large"])
def test_header_comes_first(sluice, server, added):
    """The large one does not fit into a fresh socket's buffer at once."""
    proxy = sluice(bootstrap([listener(tcp_proxy())], [cluster("up", server.port, transport_socket=sender(version="V2", added_tlvs=added))]))
    with Client(proxy.port()) as client:
        assert client.send(b"x" * 100000).exactly(100000) == b"x" * 100000
        (header,) = server.received
        assert header[:4] == (2, 1, client.socket.getsockname(), client.socket.getpeername())
        assert header[4] == [(0xE0 + i, bytes([i]) * 30000) for i in range(len(added))]
        sent = 16 + 12 + len(added) * 30003 + 100000
        proxy.wait_stat("cluster.up.upstream_cx_tx_bytes_total", sent)


def test_pools_go_with_their_clients(sluice, upstreams):
    def serve(sock, noted):
        _, request = proxy_header.read(sock)
        assert request or sock.recv(65536)
        sock.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")

    server = upstreams(ByteUpstream, serve)
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, transport_socket=sender(version="V1"), circuit_breakers={
        "thresholds": [{"max_connection_pools": 1}]})]))
    for _ in range(3):
        with Client(proxy.port()) as client:
            assert client.send(encode("GET", "/")).read().status == 200
        proxy.wait_stat("cluster.up.upstream_cx_active", 0)


@pytest.mark.parametrize("socket, reason", [
    (sender(sender()), "transport_socket.typed_config.transport_socket.typed_config: 'envoy.transport_sockets.upstream_proxy_protocol' inside another one is not supported"),
    (sender(typed("x", "envoy.config.core.v3.Node")), "transport_socket.typed_config.transport_socket: Didn't find a registered implementation"),
    (sender(added_tlvs=[{"type": 256, "value": "eA=="}]), "transport_socket.typed_config.config.added_tlvs[0].type"),
    (sender(added_tlvs=[{"type": 1, "format_string": {"text_format_source": {"inline_string": "x"}}}]), "transport_socket.typed_config.config.added_tlvs[0]"),
])
def test_refused(tmp_path, socket, reason):
    config = tmp_path / "bootstrap.json"
    config.write_text(json.dumps(bootstrap([], [cluster("up", 1, transport_socket=socket)])))
    checked = subprocess.run([Sluice.binary, "-c", str(config), "--mode", "validate"], capture_output=True, text=True, timeout=60)
    assert checked.returncode != 0 and reason in checked.stderr
