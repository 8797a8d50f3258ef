"""tls_inspector, http_inspector, proxy_protocol and original_dst on real sockets."""

import socket
import ssl

import pytest

from support.config import bootstrap, chain, direct, hcm, listener, typed, vhost
from support.rawhttp import Client, fetch

LISTENER = "envoy.extensions.filters.listener"


def inspector(name, message, **fields):
    return typed(f"envoy.filters.listener.{name}", f"{LISTENER}.{name}.v3.{message}", **fields)


def says(text, **match):
    manager = hcm(vhosts=[vhost([direct("/", body=text)])], stat_prefix=text)
    return chain(manager, filter_chain_match=match) if match else chain(manager)


def closes(port, data):
    with Client(port) as client:
        client.send(data)
        with pytest.raises(EOFError):
            client.fill()


def test_tls_inspector_tells_tls_from_plain(sluice):
    chains = [says("tls", transport_protocol="tls"), says("plain")]
    proxy = sluice(bootstrap([listener(chains=chains, listener_filters=[inspector("tls_inspector", "TlsInspector")])]))
    assert fetch(proxy.port(), "/").body == b"plain"
    context = ssl._create_unverified_context()
    with socket.create_connection(("127.0.0.1", proxy.port()), timeout=10) as raw, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(raw, server_hostname="a.example")  # the chain for TLS has no TLS of its own here
    assert proxy.stat("tls_inspector.tls_found") == 1 and proxy.stat("tls_inspector.sni_found") == 1
    assert proxy.stat("tls_inspector.tls_not_found") == 1


def test_http_inspector_finds_versions(sluice):
    chains = [says("h2", application_protocols=["h2c"]), says("h1", application_protocols=["http/1.1", "http/1.0"]), says("other")]
    proxy = sluice(bootstrap([listener(chains=chains, listener_filters=[inspector("http_inspector", "HttpInspector")])]))
    assert fetch(proxy.port(), "/").body == b"h1"
    with Client(proxy.port()) as client:
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").fill()
    assert proxy.stat("http_inspector.http11_found") == 1 and proxy.stat("http_inspector.http2_found") == 1


@pytest.mark.smoke
def test_proxy_protocol(sluice):
    filters = [inspector("proxy_protocol", "ProxyProtocol")]
    log = [typed("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", path="/dev/null")]
    manager = hcm(vhosts=[vhost([direct("/", body="ok")])], access_log=log)
    proxy = sluice(bootstrap([listener(manager, listener_filters=filters)]))
    request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with Client(proxy.port()) as client:
        client.send("PROXY TCP4 192.0.2.7 192.0.2.8 1111 2222\r\n" + request).fill()
        assert client.data.startswith(b"HTTP/1.1 200")
    closes(proxy.port(), request)
    closes(proxy.port(), "PROXY TCP4 192.0.2.700 192.0.2.8 1111 2222\r\n" + request)
    assert proxy.stat("proxy_proto.versions.v1.found") == 1


def test_original_dst_without_a_redirect(sluice):
    filters = [inspector("original_dst", "OriginalDst")]
    proxy = sluice(bootstrap([listener(*says("direct")["filters"], listener_filters=filters, use_original_dst=True)]))
    assert fetch(proxy.port(), "/").body == b"direct"
