"""connection_limit, sni_cluster and set_filter_state beside Envoy's: who is served by whom, what is told and counted."""
import socket
import time

import pytest
from support.config import bootstrap, chain, cluster, direct, file_log, hcm, listener, route, tcp_proxy, tls_certificate, tls_socket, typed
from support.process import wait_until
from support.rawhttp import Client, fetch
from support.upstream import ByteUpstream

NET = "envoy.extensions.filters.network"
INSPECTOR = typed("envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")


def value(key, text, **fields):
    return {"object_key": key, "format_string": {"text_format_source": {"inline_string": text}}, "factory_key": "envoy.string",
            **fields}


def network_state(**phases):
    return typed("envoy.filters.network.set_filter_state", f"{NET}.set_filter_state.v3.Config", **phases)


@pytest.fixture(params=["sluice", "envoy"])
def proxy_of(request, shared_sluice, shared_envoy):
    return {"sluice": shared_sluice, "envoy": shared_envoy}[request.param]


@pytest.fixture
def named(upstreams):
    """Three upstreams that tell their names, as clusters."""
    def greeter(name):
        def greet(sock, _):
            sock.recv(10000)
            sock.sendall(name.encode())
        return upstreams(ByteUpstream, greet)
    return [cluster(name, greeter(name).port) for name in ("up", "a.test", "b.test")]


@pytest.mark.parametrize("delay", [None, "0.3s"])
def test_connection_limit(proxy_of, byte_upstream, tmp_path, delay):
    log = tmp_path / "log"
    limit = typed("envoy.filters.network.connection_limit", f"{NET}.connection_limit.v3.ConnectionLimit", stat_prefix="a",
                  max_connections=2, **({"delay": delay} if delay else {}))
    told = file_log(log, "%RESPONSE_FLAGS% %DOWNSTREAM_LOCAL_CLOSE_REASON%\n")
    proxy = proxy_of(bootstrap([listener(limit, tcp_proxy(), access_log=[told])], [cluster("up", byte_upstream.port)]))
    port = proxy.port()
    with Client(port) as first, Client(port) as second:
        for client in (first, second):
            assert client.send(b"x").exactly(1) == b"x"
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port)) as third:
            third.settimeout(10)
            assert third.recv(1) == b""
        assert (time.monotonic() - began >= 0.25) == bool(delay)
        proxy.wait_stat("connection_limit.a.active_connections", 2)
        assert proxy.stat("connection_limit.a.limited_connections") == 1
    proxy.wait_stat("connection_limit.a.active_connections", 0)
    assert proxy.log_lines(log, 3)[0] == "- over_connection_limit"
    with Client(port) as fourth:
        assert fourth.send(b"y").exactly(1) == b"y"


def answer_of(port, context, server_name):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        try:
            with context.wrap_socket(raw, server_hostname=server_name) as tls:
                tls.sendall(b"hello")
                return tls.recv(100)
        except OSError:
            return b""  # closed before or after the handshake


@pytest.mark.parametrize("server_name, served", [("a.test", b"a.test"), ("b.test", b"b.test"), (None, b"up"), ("c.test", b"")])
def test_sni_cluster(proxy_of, named, authority, server_name, served):
    pair = authority.leaf("a.test")
    tls = tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(pair)]})
    sni = typed("envoy.filters.network.sni_cluster", f"{NET}.sni_cluster.v3.SniCluster")
    main = listener(chains=[chain(sni, tcp_proxy(), transport_socket=tls)], listener_filters=[INSPECTOR])
    proxy = proxy_of(bootstrap([main], named))
    context = authority.client_context()
    context.check_hostname = False
    assert answer_of(proxy.port(), context, server_name) == served
    wait_until(lambda: proxy.stat("tcp.tcp.downstream_cx_no_route") == (0 if served else 1), "the count")


@pytest.mark.parametrize("name, served", [("up", b"up"), ("b.test", b"b.test"), ("nope", b"")])
def test_the_cluster_from_filter_state(proxy_of, named, name, served):
    state = network_state(on_new_connection=[value("envoy.tcp_proxy.cluster", name, factory_key="")])
    proxy = proxy_of(bootstrap([listener(state, tcp_proxy("a.test"))], named))
    with Client(proxy.port()) as client:
        client.send(b"x")
        assert client.until_close() == served


def test_state_that_requests_see(proxy_of, tmp_path):
    """What a connection has is there for its requests: routes, formats, and the request's own filter."""
    state = network_state(on_new_connection=[value("who", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", read_only=True),
                                             value("none", "", skip_if_empty=True)],
                          on_downstream_data=[value("late", "data")], on_downstream_tls_handshake=[value("tls", "yes")])
    http = typed("envoy.filters.http.set_filter_state", "envoy.extensions.filters.http.set_filter_state.v3.Config",
                 on_request_headers=[value("who", "changed"), value("mine", "%REQ(x-a)%")], clear_route_cache=True)
    shown = "|".join(f"%FILTER_STATE({key}:PLAIN)%" for key in ("who", "none", "late", "tls", "mine"))
    by_state = {"match": {"prefix": "/", "filter_state": [{"key": "mine", "string_match": {"exact": "7"}}]},
                "direct_response": {"status": 201}}
    manager = hcm(routes=[by_state, direct("/", 202)], filters=[http],
                  access_log=[file_log(tmp_path / "log", shown + "\n")])
    proxy = proxy_of(bootstrap([listener(state, manager)]))
    for number, status in (("7", 201), ("8", 202)):
        assert fetch(proxy.port(), headers=[("x-a", number)]).status == status
    told = proxy.log_lines(tmp_path / "log", 2)
    assert told[0].split("|")[1:] == ["-", "data", "yes", "7"] and told[1].endswith("|8")
    assert told[0].startswith("127.0.0.1|") and told[1].startswith("127.0.0.1|")
