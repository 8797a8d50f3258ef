"""PROXY headers to upstreams beside Envoy's: what tcp_proxy's and the router's connections begin with, by configuration and client."""

import base64

import pytest

from support import proxy_header
from support.config import EXT, bootstrap, cluster, endpoint, hcm, listener, tcp_proxy, tls_certificate, tls_socket, typed
from support.proxy_header import tlv, v2
from support.rawhttp import Client, encode
from support.upstream import ByteUpstream


def b64(raw):
    return base64.b64encode(raw).decode()


def entry(kind, value):
    return {"type": kind, "value": b64(value)}


def text_entry(kind, text):
    return {"type": kind, "format_string": {"text_format_source": {"inline_string": text}}}


def sender(inner=None, **config):
    return typed("envoy.transport_sockets.upstream_proxy_protocol",
                 "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport", config=config,
                 transport_socket=inner or typed("envoy.transport_sockets.raw_buffer",
                                                 "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"))


ALL, SOME = {"match_type": "INCLUDE_ALL"}, {"match_type": "INCLUDE", "tlv_type": [0xEA, 0x02]}
SENDERS = {
    "v1": {"version": "V1"},
    "v1-all": {"version": "V1", "pass_through_tlvs": ALL, "added_tlvs": [entry(0xE0, b"added")]},
    "v2": {"version": "V2"},
    "v2-all": {"version": "V2", "pass_through_tlvs": ALL},
    "v2-some": {"version": "V2", "pass_through_tlvs": SOME},
    "v2-added": {"version": "V2", "added_tlvs": [entry(0xE0, b"added"), entry(0xEA, b"mine")]},
    "v2-both": {"version": "V2", "pass_through_tlvs": ALL, "added_tlvs": [entry(0xE0, b"added"), entry(0xEA, b"mine")]},
    "v2-twice": {"version": "V2", "pass_through_tlvs": ALL, "added_tlvs": [entry(0xE0, b"1"), entry(0xE0, b"2")]},
    "v2-large": {"version": "V2", "added_tlvs": [entry(0xE0, b"x" * 30000), entry(0xE1, b"y" * 30000)]},
}
OWN = {"typed_filter_metadata": {"envoy.transport_sockets.proxy_protocol": {
    "@type": "type.googleapis.com/envoy.config.core.v3.PerHostConfig",
    "added_tlvs": [entry(0xE0, b"host"), entry(0xEB, b"host-b"), entry(0xEB, b"host-again")]}}}
RELAYS = {
    "none": {},
    "fixed": {"proxy_protocol_tlvs": [entry(0xE1, b"hello"), entry(0xEA, b"relay")]},
    "text": {"proxy_protocol_tlvs": [text_entry(0xE2, "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%/%PROTOCOL%")]},
    "overwrite": {"proxy_protocol_tlvs": [entry(0xE1, b"hello"), entry(0xEA, b"relay"), entry(0xEA, b"relay-2")],
                  "proxy_protocol_tlv_merge_policy": "OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD"},
    "append": {"proxy_protocol_tlvs": [entry(0xE1, b"hello"), entry(0xEA, b"relay")],
               "proxy_protocol_tlv_merge_policy": "APPEND_IF_EXISTS_OR_ADD"},
}
SEEN = tlv(0xEA, b"client") + tlv(0x02, b"name") + tlv(0xE0, b"e0") + tlv(0xEA, b"client-2") + tlv(0xF0, b"")
V4, V6 = (("1.2.3.4", 11), ("5.6.7.8", 22)), (("2001:db8::1", 33), ("2001:db8::2", 44))
CLIENTS = {
    "plain": b"",
    "v1": b"PROXY TCP4 1.2.3.4 5.6.7.8 11 22\r\n",
    "v1-6": b"PROXY TCP6 2001:db8::1 2001:db8::2 33 44\r\n",
    "v1-unknown": b"PROXY UNKNOWN\r\n",
    "v2": v2(*V4),
    "v2-6": v2(*V6),
    "v2-tlvs": v2(*V4, SEEN),
    "v2-local": v2(None, None, command=0),
    "v2-local-addresses": v2(*V4, SEEN, command=0),
}
RECEIVER = typed("envoy.filters.listener.proxy_protocol", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
                 allow_requests_without_proxy_protocol=True, pass_through_tlvs=ALL)


def described(header, client):
    """Without what differs from connection to connection: the client's own port and the listener's."""
    if not header:
        return header
    ends = [end and (end[0], "client" if end[1] == client else end[1] if end[1] < 100 else "other") for end in header[2:4]]
    return (*header[:2], *ends, [(kind, value if len(value) < 100 else len(value)) for kind, value in header[4]])


@pytest.fixture(scope="module")
def server():
    """Answers any bytes, a request or not, and notes the header of each connection."""
    def serve(sock, noted):
        header, rest = proxy_header.read(sock)
        rest = rest or sock.recv(65536)
        noted.received.append(header)
        while rest:
            sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            rest = sock.recv(65536)

    server = ByteUpstream(serve)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, server):
    own = endpoint(server.port, metadata=OWN)
    clusters = [cluster(name, server.port, transport_socket=sender(**config)) for name, config in SENDERS.items()]
    clusters += [cluster(f"{name}-own", own, transport_socket=sender(**SENDERS[name])) for name in ("v2-both", "v2-twice", "v1")]
    names = [c["name"] for c in clusters]
    tcp = [listener(tcp_proxy(name, stat_prefix=name), name=f"tcp-{name}", listener_filters=[RECEIVER]) for name in names]
    tcp += [listener(tcp_proxy("v2-all", **fields), name=f"relay-{name}", listener_filters=[RECEIVER]) for name, fields in RELAYS.items()]
    routes = [{"match": {"path": f"/{name}"}, "route": {"cluster": name}} for name in names]
    http = listener(hcm(routes), name="http", listener_filters=[RECEIVER])
    return [start(bootstrap([http, *tcp], clusters)) for start in (shared_envoy, shared_sluice)]


def exchange(side, name, before, request=b"hello world, hello world"):
    with Client(side.port(name)) as client:
        client.send(before + request)
        assert client.read().status == 200
        return client.socket.getsockname()[1]


def told(side, server, name, **fields):
    out = {}
    for client, before in CLIENTS.items():
        del server.received[:]
        own = exchange(side, name, before, **fields)
        out[client] = [described(header, own) for header in server.received]
    return out


def compare(sides, server, name, **fields):
    envoy, sluice = (told(side, server, name, **fields) for side in sides)
    assert sluice == envoy
    return sluice


@pytest.mark.parametrize("name", [*SENDERS, "v2-both-own", "v2-twice-own", "v1-own"])
def test_tcp(sides, server, name):
    assert all(len(headers) == 1 for headers in compare(sides, server, f"tcp-{name}").values())


@pytest.mark.parametrize("name", [*SENDERS, "v2-both-own"])
def test_http(sides, server, name):
    compare(sides, server, "http", request=encode("GET", f"/{name}"))


@pytest.mark.parametrize("name", RELAYS)
def test_relays(sides, server, name):
    compare(sides, server, f"relay-{name}")


def test_connections_of_clients_are_not_shared(sides, server):
    def headers(side):
        del server.received[:]
        with Client(side.port("http")) as one, Client(side.port("http")) as two:
            for client in (one, two, one, two):
                client.send(encode("GET", "/v1"))
                assert client.read().status == 200
        return len(server.received)

    assert [headers(side) for side in sides] == [2, 2]


def test_stats(sides, server):
    keys = [f"cluster.{c}.{stat}" for c in ("v1", "v2-all", "v2-large") for stat in (
        "upstream_cx_total", "upstream.proxyprotocol.v2_tlvs_exceed_max_length", "upstream_cx_connect_fail")]
    for side in sides:
        exchange(side, "tcp-v2-all", CLIENTS["v2-tlvs"])
    envoy, sluice = ({key: side.stat(key) for key in keys} for side in sides)
    assert sluice == envoy


def test_health_checks_speak_for_the_proxy(shared_envoy, shared_sluice, server):
    check = {"timeout": "2s", "interval": "60s", "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": "/h"}}
    for version, expected in ("V1", (1, "TCP4", ("127.0.0.1", "other"), ("127.0.0.1", "other"), [])), ("V2", (2, 0, None, None, [])):
        for start in (shared_envoy, shared_sluice):
            del server.received[:]
            side = start(bootstrap([], [cluster("up", server.port, health_checks=[check], transport_socket=sender(
                version=version, added_tlvs=[entry(0xE0, b"added")]))]))
            side.wait_stat("cluster.up.health_check.success", 1)
            assert [described(header, 0) for header in server.received] == [expected]
            side.stop()


def test_inside_is_tls(shared_envoy, shared_sluice, authority):
    context = authority.server_context(authority.leaf("server", "DNS:server"))
    seen = []

    def serve(sock, noted):
        header, rest = b"", b""
        while not header.endswith(b"\r\n"):
            header += sock.recv(1)
        with context.wrap_socket(sock, server_side=True) as tls:
            seen.append((header.split()[1], tls.recv(100)))
            tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            tls.recv(1)

    server = ByteUpstream(serve)
    inner = tls_socket("Upstream", sni="server", common_tls_context={"validation_context": {
        "trusted_ca": {"filename": str(authority.pair.cert)}}})
    try:
        for start in (shared_envoy, shared_sluice):
            side = start(bootstrap([listener(tcp_proxy(), name="tcp"), listener(hcm(), name="http")],
                                   [cluster("up", server.port, transport_socket=sender(inner, version="V1"))]))
            exchange(side, "tcp", b"", b"hello")
            exchange(side, "http", b"", encode("GET", "/"))
            assert side.stat("cluster.up.ssl.handshake") == 2
    finally:
        server.stop()
    assert [words[0] for words in seen] == [b"TCP4"] * 4 and [words[1][:5] for words in seen] == [b"hello", b"GET /"] * 2
