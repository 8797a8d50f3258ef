"""Upstreams that answer too much, too long or something else, and logs that cannot be written: the next request is served as if nothing
had been."""

import subprocess

import pytest

from support.config import bootstrap, chain, cluster, direct, file_log, hcm, listener, tls_certificate, tls_socket
from support.rawhttp import Client, fetch
from support.upstream import Reply

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
EVIL = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"
HOSTILE = {
    "two-answers": (OK + EVIL, 200),
    "answer-and-garbage": (OK + b"\x00\xff\r\n\r\n" * 100, 200),
    "body-beyond-its-length": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokevil", 200),
    "body-of-no-content": (b"HTTP/1.1 204 No Content\r\n\r\nevil", 204),
    "both-lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 502),
    "two-lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nevil", 502),
    "unknown-coding": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: cow\r\n\r\nevil", 502),
    "interim-without-end": (b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000, 502),
    "switch-unasked": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n" + EVIL, 502),
    "headers-without-end": (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200000, 502),
    "many-headers": (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 2000 + b"\r\n", 502),
    "nul-in-header": (b"HTTP/1.1 200 OK\r\nx: a\x00b\r\ncontent-length: 0\r\n\r\n", 502),
    "garbage": (b"\x16\x03\x01" * 2000, 502),
}


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    return shared_sluice(bootstrap([listener(hcm())], [cluster("up", shared_upstream.port)]))


@pytest.mark.parametrize("name", HOSTILE)
def test_answer(proxy, shared_upstream, name):
    raw, status = HOSTILE[name]
    shared_upstream.script(Reply(raw=raw), Reply(body=b"mine"))
    with Client(proxy.port()) as client:
        assert client.request("GET", "/first").status == status
        second = client.request("GET", "/second")
        assert (second.status, second.body) == (200, b"mine")
    first, second = shared_upstream.wait_requests(2)
    assert first.connection != second.connection, "a connection out of step was used again"


def test_full_disk(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200, "x")], access_log=[file_log("/dev/full", "line\n")]))],
                             stats_flush_interval="100s"))
    assert all(fetch(proxy.port()).status == 200 for _ in range(50))
    proxy.wait_stat("filesystem.write_failed", lambda n: n > 0)  # as it is, not as it was at the last flush
    assert fetch(proxy.port()).status == 200


def test_renegotiation(sluice, authority):
    tls = tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(authority.leaf("front", "DNS:test"))]})
    proxy = sluice(bootstrap([listener(chains=[chain(hcm([direct("/", 200, "x")]), transport_socket=tls)])]))
    client = subprocess.run(["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{proxy.port()}"], input=b"R\n",
                            capture_output=True, timeout=20, check=False)
    assert b"RENEGOTIATING" in client.stdout + client.stderr, client
    assert b"no renegotiation" in client.stderr
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)
