"""When access logs are written: at the end, and before it as access_log_options ask. Parity tests compare the lines with Envoy's."""

import pytest

from support.config import bootstrap, cluster, file_log, hcm, listener, route, tcp_proxy
from support.process import wait_until
from support.rawhttp import Client
from support.upstream import ByteUpstream

pytestmark = pytest.mark.smoke
HEAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n"


def types_of(path):
    """The types of the lines up to now, those of the same type in a row once."""
    found = path.read_text().split() if path.exists() else []
    return [t for i, t in enumerate(found) if i == 0 or t != found[i - 1]]


def wait_types(path, *types):
    wait_until(lambda: types_of(path) == list(types), lambda: f"{types}: {types_of(path)}")


def test_request(sluice, upstream, tmp_path):
    log = tmp_path / "log"
    options = {"flush_access_log_on_new_request": True, "access_log_flush_interval": "0.02s"}
    proxy = sluice(bootstrap([listener(hcm([route(cluster="up")], access_log=[file_log(log, "%ACCESS_LOG_TYPE%\n")],
                                           access_log_options=options))], [cluster("up", upstream.port)]))
    with Client(proxy.port()) as client:
        client.send(HEAD + b"ab")
        wait_types(log, "DownstreamStart", "DownstreamPeriodic")
        assert client.send(b"cd").read().status == 200
        wait_types(log, "DownstreamStart", "DownstreamPeriodic", "DownstreamEnd")


def test_only_of_a_type(sluice, upstream, tmp_path):
    log = tmp_path / "log"
    only = {"filter": {"log_type_filter": {"types": ["DownstreamStart"]}}}
    proxy = sluice(bootstrap([listener(hcm([route(cluster="up")], access_log=[{**file_log(log, "%ACCESS_LOG_TYPE%\n"), **only}],
                                           flush_access_log_on_new_request=True))], [cluster("up", upstream.port)]))
    with Client(proxy.port()) as client:
        assert all(client.request("GET", "/").status == 200 for _ in range(2))
    assert proxy.log_lines(log, 2) == ["DownstreamStart"] * 2


def test_connection(sluice, tmp_path):
    log = tmp_path / "log"
    options = {"flush_access_log_on_start": True, "flush_access_log_on_connected": True, "access_log_flush_interval": "0.02s"}
    server = ByteUpstream()
    try:
        proxy = sluice(bootstrap([listener(tcp_proxy("up", access_log=[file_log(log, "%ACCESS_LOG_TYPE%\n")], access_log_options=options))],
                                 [cluster("up", server.port)]))
        with Client(proxy.port()) as client:
            assert client.send(b"abc").exactly(3) == b"abc"
            wait_types(log, "TcpConnectionStart", "TcpUpstreamConnected", "TcpPeriodic")
        wait_types(log, "TcpConnectionStart", "TcpUpstreamConnected", "TcpPeriodic", "TcpConnectionEnd")
    finally:
        server.stop()


def test_bytes_of_a_request_whose_client_left(sluice, upstream, tmp_path):
    log = tmp_path / "log"
    text = "%RESPONSE_FLAGS% %UPSTREAM_WIRE_BYTES_SENT% %DOWNSTREAM_WIRE_BYTES_RECEIVED%\n"
    proxy = sluice(bootstrap([listener(hcm([route(cluster="up")], access_log=[file_log(log, text)]))], [cluster("up", upstream.port)]))
    with Client(proxy.port()) as client:
        client.send(HEAD + b"ab")
        proxy.wait_stat("cluster.up.upstream_rq_active", 1)
    flags, sent, received = proxy.log_lines(log, 1)[0].split()
    assert flags == "DC" and int(sent) > len(HEAD) and int(received) == len(HEAD) + 2
