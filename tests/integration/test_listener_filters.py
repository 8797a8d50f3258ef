"""tls_inspector, http_inspector, proxy_protocol and original_dst on real sockets."""

import json
import socket
import ssl
import subprocess

import pytest

from support.config import bootstrap, chain, direct, hcm, listener, typed, vhost
from support.proxy import Sluice
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
def chain_tree(key, value="http"):
    """A filter_chain_matcher by the protocols that were found."""
    source = typed("protocols", "envoy.extensions.matching.common_inputs.network.v3.ApplicationProtocolInput")
    action = {"name": "chain", "typed_config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": value}}
    return {"matcher_tree": {"input": source, "exact_match_map": {"map": {key: {"action": action}}}}}


@pytest.mark.smoke
def test_filter_chain_matcher(sluice):
    """The tree decides; a chain that it names but that is not there is no chain, whatever the default."""
    chains = [says("http") | {"name": "http"}, says("other") | {"name": "other"}]
    listeners = [listener(name=name, chains=chains, filter_chain_matcher=chain_tree(*where), default_filter_chain=says("default"),
                          listener_filters=[inspector("http_inspector", "HttpInspector")])
                 for name, where in {"found": ["'http/1.1'"], "default": ["'h2c'"], "missing": ["'http/1.1'", "nope"]}.items()]
    proxy = sluice(bootstrap(listeners))
    ports = {name: port for name, (_, port) in proxy.listeners().items()}
    assert [fetch(ports[name]).body for name in ("found", "default")] == [b"http", b"default"]
    with pytest.raises((EOFError, ConnectionError)):
        fetch(ports["missing"])


BAD_TREES = {
    "no name": ([says("a")], chain_tree("a"), 'filter_chains[0]: "name" field is required when using a listener matcher'),
    "one name": ([says("a") | {"name": "a"}] * 2, chain_tree("a"), "\"name\" field is duplicated with value 'a'"),
    "input": ([says("a") | {"name": "a"}], {"matcher_tree": {
        "input": typed("i", "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name="a"),
        "exact_match_map": chain_tree("a")["matcher_tree"]["exact_match_map"]}}, "HttpRequestHeaderMatchInput"),
    "action": ([says("a") | {"name": "a"}], {"on_no_match": {"action": typed("x", "google.protobuf.Empty")}},
               "filter_chain_matcher.on_no_match.action.typed_config: Didn't find a registered implementation for 'x'"),
    "keep": ([says("a") | {"name": "a"}], {"on_no_match": {**chain_tree("a")["matcher_tree"]["exact_match_map"]["map"]["a"],
                                                           "keep_matching": True}}, "keep_matching is not supported"),
}


@pytest.mark.parametrize("name", BAD_TREES)
def test_filter_chain_matcher_refused(tmp_path, name):
    chains, tree, words = BAD_TREES[name]
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(chains=chains, filter_chain_matcher=tree)])))
    done = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and words in done.stderr


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
