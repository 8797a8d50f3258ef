"""tcp_proxy: relaying, half-close, large transfers, back-pressure, failures, logs."""

import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from support.config import bootstrap, cluster, file_log, listener, tcp_proxy
from support.process import wait_until
from support.rawhttp import Client
from support.upstream import ByteUpstream, reset

MEGA = bytes(range(256)) * 4096


def start(sluice, server, **fields):
    return sluice(bootstrap([listener(tcp_proxy(**fields))], [cluster("up", server.port)]))


@pytest.mark.smoke
def test_echo(sluice, byte_upstream):
    proxy = start(sluice, byte_upstream)
    with Client(proxy.port()) as client:
        for message in (b"a", b"hello", b"x" * 70000):
            assert client.send(message).exactly(len(message)) == message


@pytest.mark.smoke
def test_half_close_by_the_client(sluice, upstreams):
    server = upstreams(ByteUpstream, ByteUpstream.collect)
    proxy = start(sluice, server)
    with Client(proxy.port()) as client:
        client.send(MEGA * 8).half_close()
        assert client.until_close() == str(len(MEGA) * 8).encode()
    assert server.received == [len(MEGA) * 8]


def test_half_close_by_the_upstream(sluice, upstreams):
    got = []

    def greet_then_read(sock, server):
        sock.sendall(b"bye")
        sock.shutdown(socket.SHUT_WR)
        while data := sock.recv(65536):
            got.append(data)

    proxy = start(sluice, upstreams(ByteUpstream, greet_then_read))
    with Client(proxy.port()) as client:
        assert client.exactly(3) == b"bye" and client.until_close() == b""
        client.send(b"still here").half_close()
        wait_until(lambda: b"".join(got) == b"still here", "the rest to arrive")


@pytest.mark.smoke
def test_large_transfer_both_ways(sluice, byte_upstream):
    proxy = start(sluice, byte_upstream)
    total = 64 * len(MEGA)
    with Client(proxy.port(), timeout=60) as client:
        sender = threading.Thread(target=lambda: (client.send(MEGA * 64), client.half_close()))
        sender.start()
        received = client.until_close()
        sender.join()
    assert len(received) == total and received == MEGA * 64
    proxy.wait_stat("tcp.tcp.downstream_cx_rx_bytes_total", total)
    proxy.wait_stat("tcp.tcp.downstream_cx_tx_bytes_total", total)


def test_slow_reader_stops_the_upstream(sluice, upstreams):
    sent = []

    def flood(sock, server):
        sock.settimeout(0.5)
        try:
            while not server.is_stopping.is_set():
                sent.append(sock.send(MEGA))
        except TimeoutError:
            sent.append(-1)
        sock.settimeout(None)

    proxy = start(sluice, upstreams(ByteUpstream, flood))
    with Client(proxy.port()):
        wait_until(lambda: sent and sent[-1] == -1, "the upstream to be stopped", 30)
        assert sum(sent) < 64 * len(MEGA), "buffers must stay bounded"


def test_upstream_refuses(sluice, tmp_path):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        log = tmp_path / "log"
        proxy = sluice(bootstrap([listener(tcp_proxy(access_log=[file_log(log, "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n")]))],
                                 [cluster("up", dead.getsockname()[1])]))
        with Client(proxy.port()) as client:
            assert client.until_close() == b""
        assert proxy.log_lines(log, 1)[0].startswith("UF,URX ")
        proxy.wait_stat("cluster.up.upstream_cx_connect_fail", 1)


def test_no_healthy_host(sluice, tmp_path):
    log = tmp_path / "log"
    proxy = sluice(bootstrap([listener(tcp_proxy(access_log=[file_log(log, "%RESPONSE_FLAGS%\n")]))], [cluster("up")]))
    with Client(proxy.port()) as client:
        assert client.until_close() == b""
    assert proxy.log_lines(log, 1) == ["UH"]
    assert proxy.stat("cluster.up.upstream_cx_none_healthy") == 1


def test_connect_attempts(sluice):
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        proxy = sluice(bootstrap([listener(tcp_proxy(max_connect_attempts=3))], [cluster("up", dead.getsockname()[1])]))
        with Client(proxy.port()) as client:
            assert client.until_close() == b""
        proxy.wait_stat("cluster.up.upstream_cx_connect_attempts_exceeded", 1)
        assert proxy.stat("cluster.up.upstream_cx_connect_fail") == 3


def test_idle_timeout(sluice, byte_upstream):
    proxy = start(sluice, byte_upstream, idle_timeout="0.2s")
    with Client(proxy.port()) as client:
        assert client.send(b"x").exactly(1) == b"x"
        assert client.is_closed(5)
    proxy.wait_stat("tcp.tcp.idle_timeout", 1)


def test_upstream_reset_reaches_the_client(sluice, upstreams):
    def hang_up(sock, server):
        sock.recv(1)
        reset(sock)

    proxy = start(sluice, upstreams(ByteUpstream, hang_up))
    with Client(proxy.port()) as client:
        client.send(b"x")
        assert client.is_closed(5)


def test_client_reset_reaches_the_upstream(sluice, upstreams):
    ended = threading.Event()

    def read_all(sock, server):
        try:
            while sock.recv(65536):
                pass
        except OSError:
            pass
        ended.set()

    proxy = start(sluice, upstreams(ByteUpstream, read_all))
    client = Client(proxy.port())
    client.send(b"x")
    wait_until(lambda: proxy.stat("cluster.up.upstream_cx_tx_bytes_total") == 1, "the byte to pass")
    try:
        reset(client.socket)
    except Exception:  # reset() ends by raising
        pass
    assert ended.wait(5)


@pytest.mark.smoke
def test_client_gone_in_a_large_transfer(sluice, upstreams):
    """Most of it is spliced, and a splice to a closed connection raises SIGPIPE."""
    def flood(sock, server):
        try:
            while not server.is_stopping.is_set():
                sock.sendall(MEGA)
        except OSError:
            pass

    proxy = start(sluice, upstreams(ByteUpstream, flood))
    clients = [Client(proxy.port()) for _ in range(16)]
    for client in clients:
        assert len(client.exactly(8 * len(MEGA))) == 8 * len(MEGA)
    for client in clients:
        client.close()
    proxy.wait_stat("listener.127.0.0.1_0.downstream_cx_active", 0)
    status = Path(f"/proc/{proxy.pid}/status").read_text()
    ignored, caught = (int(re.search(rf"{name}:\t(\w+)", status)[1], 16) for name in ("SigIgn", "SigCgt"))
    assert (ignored | caught) >> (signal.SIGPIPE - 1) & 1  # caught by a sanitizer's runtime


@pytest.mark.smoke
def test_access_log(sluice, byte_upstream, tmp_path):
    log = tmp_path / "log"
    text = "%BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER% %UPSTREAM_HOST% %RESPONSE_FLAGS% %PROTOCOL%\n"
    proxy = start(sluice, byte_upstream, access_log=[file_log(log, text)])
    with Client(proxy.port()) as client:
        client.send(b"12345").half_close()
        assert client.until_close() == b"12345"
    assert proxy.log_lines(log, 1) == [f"5 5 up 127.0.0.1:{byte_upstream.port} - -"]


def test_weighted_clusters(sluice, upstreams):
    names = []
    servers = [upstreams(ByteUpstream, lambda sock, server, n=n: names.append(n)) for n in ("a", "b")]
    proxy_filter = tcp_proxy(weighted_clusters={"clusters": [{"name": "a", "weight": 1}, {"name": "b", "weight": 1}]})
    del proxy_filter["typed_config"]["cluster"]
    proxy = sluice(bootstrap([listener(proxy_filter)], [cluster(n, s.port) for n, s in zip("ab", servers)]))
    for _ in range(40):
        with Client(proxy.port()) as client:
            client.until_close()
    wait_until(lambda: len(names) == 40, "all connections")
    assert 5 <= names.count("a") <= 35


def test_connection_limit(sluice, byte_upstream):
    limits = {"thresholds": [{"max_connections": 1}]}
    proxy = sluice(bootstrap([listener(tcp_proxy())], [cluster("up", byte_upstream.port, circuit_breakers=limits)]))
    with Client(proxy.port()) as first:
        assert first.send(b"x").exactly(1) == b"x"
        with Client(proxy.port()) as second:
            assert second.until_close() == b""
    assert proxy.stat("cluster.up.upstream_cx_overflow") >= 1


def test_many_connections(sluice, byte_upstream):
    proxy = sluice(bootstrap([listener(tcp_proxy())], [cluster("up", byte_upstream.port)]), concurrency=2)
    clients = [Client(proxy.port()) for _ in range(200)]
    for i, client in enumerate(clients):
        client.send(b"%d" % i)
    for i, client in enumerate(clients):
        text = b"%d" % i
        assert client.exactly(len(text)) == text
        client.close()
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)
