"""TLS: termination by SNI, ALPN, client certificates, TLS to upstreams, and failures of each."""

import ssl
import subprocess

import pytest

from support.certs import Authority
from support.config import (bootstrap, chain, cluster, direct, file_log, hcm, http_options, listener, route, tcp_proxy,
                            tls_certificate, tls_socket, typed)
from support.h2client import H2Client
from support.rawhttp import Client, fetch
from support.upstream import ByteUpstream, Reply, ScriptedUpstream

INSPECTOR = [typed("envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")]


def terminate(pair, authority=None, require=False, alpn=("h2", "http/1.1"), **common):
    context = {"tls_certificates": [tls_certificate(pair)], "alpn_protocols": list(alpn), **common}
    if authority:
        context["validation_context"] = {"trusted_ca": {"filename": str(authority.pair.cert)}, **common.pop("validation", {})}
    return tls_socket("Downstream", common_tls_context=context, require_client_certificate=require)


@pytest.fixture(scope="module")
def leaves(authority):
    return {name: authority.leaf(name) for name in ("a.test", "b.test", "client")} | {
        "upstream": authority.leaf("upstream", "DNS:upstream.test", "URI:spiffe://td/ns/up", "IP:127.0.0.1")}


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream, authority, leaves):
    def site(name, **match):
        return chain(hcm([direct("/", 200, name), route("/")], stat_prefix=name,
                         forward_client_cert_details="SANITIZE_SET",
                         set_current_client_cert_details={"subject": True, "uri": True, "dns": True, "issuer": True}),
                     transport_socket=match.pop("socket"), **({"filter_chain_match": match} if match else {}))

    by_name = listener(stat_prefix="sni", chains=[site("a", server_names=["a.test"], socket=terminate(leaves["a.test"])),
                               site("wild", server_names=["*.b.test", "b.test"], socket=terminate(leaves["b.test"]))],
                       name="sni", listener_filters=INSPECTOR)
    mutual = listener(chains=[site("mtls", socket=terminate(leaves["a.test"], authority, True))], name="mtls", stat_prefix="mtls")
    optional = listener(chains=[site("optional", socket=terminate(leaves["a.test"], authority))], name="optional")
    old = terminate(leaves["a.test"], tls_params={"tls_maximum_protocol_version": "TLSv1_2",
                                                  "cipher_suites": ["ECDHE-ECDSA-AES128-GCM-SHA256"]})
    limited = listener(chains=[site("old", socket=old)], name="old")
    return shared_sluice(bootstrap([by_name, mutual, optional, limited], [cluster("up", shared_upstream.port)]))


def client_context(authority, pair=None, alpn=()):
    return authority.client_context(pair, alpn)


@pytest.mark.smoke
def test_sni_picks_the_chain(proxy, authority):
    for name, body in (("a.test", b"a"), ("b.test", b"wild")):
        answer = fetch(proxy.port("sni"), tls=client_context(authority), server_name=name)
        assert (answer.status, answer.body) == (200, body)


def test_unknown_sni_is_closed(proxy, authority):
    with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
        fetch(proxy.port("sni"), tls=client_context(authority), server_name="c.test")
    proxy.wait_stat("listener.sni.no_filter_chain_match", lambda n: n >= 1)


@pytest.mark.smoke
@pytest.mark.parametrize("offered, chosen", [(("h2", "http/1.1"), "h2"), (("http/1.1",), "http/1.1"), ((), None),
                                             (("http/1.1", "h2"), "h2")])
def test_alpn(proxy, authority, offered, chosen):
    with Client(proxy.port("sni"), tls=client_context(authority, alpn=offered), server_name="a.test") as client:
        assert client.socket.selected_alpn_protocol() == chosen


def test_h2_over_tls(proxy, authority, shared_upstream):
    shared_upstream.script(Reply(body=b"via h2"))
    with H2Client(proxy.port("sni"), tls=client_context(authority, alpn=["h2"]), server_name="a.test") as client:
        assert client.get("/x", scheme="https").body == b"via h2"
    assert shared_upstream.wait_requests(1)[0].get("x-forwarded-proto") == "https"


@pytest.mark.smoke
def test_mutual_tls(proxy, authority, leaves, shared_upstream):
    shared_upstream.script()
    answer = fetch(proxy.port("mtls"), "/x", tls=client_context(authority, leaves["client"]), server_name="a.test")
    assert answer.status == 200
    xfcc = shared_upstream.wait_requests(1)[0].get("x-forwarded-client-cert")
    assert xfcc.startswith("Hash=") and 'Subject="CN=client,O=Tests"' in xfcc and "DNS=client" in xfcc
    assert xfcc.endswith(';Issuer="CN=test-ca,O=Tests"')


def test_mutual_tls_needs_a_certificate(proxy, authority):
    with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
        fetch(proxy.port("mtls"), tls=client_context(authority), server_name="a.test")
    proxy.wait_stat("listener.mtls.ssl.fail_verify_no_cert", lambda n: n >= 1)


def test_mutual_tls_refuses_strangers(proxy, authority, tmp_path):
    stranger = Authority(tmp_path / "other", "other-ca").leaf("stranger")
    with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
        fetch(proxy.port("mtls"), tls=client_context(authority, stranger), server_name="a.test")
    proxy.wait_stat("listener.mtls.ssl.fail_verify_error", lambda n: n >= 1)


@pytest.mark.parametrize("with_certificate", [True, False])
def test_optional_client_certificate(proxy, authority, leaves, shared_upstream, with_certificate):
    shared_upstream.script()
    context = client_context(authority, leaves["client"] if with_certificate else None)
    assert fetch(proxy.port("optional"), "/x", tls=context, server_name="a.test").status == 200
    assert (shared_upstream.wait_requests(1)[0].get("x-forwarded-client-cert") is not None) == with_certificate


def test_spoofed_client_certificate_header_is_dropped(proxy, authority, shared_upstream):
    shared_upstream.script()
    fetch(proxy.port("optional"), "/x", headers=[("x-forwarded-client-cert", "Hash=evil")],
          tls=client_context(authority), server_name="a.test")
    assert shared_upstream.wait_requests(1)[0].get("x-forwarded-client-cert") is None


def test_own_element_is_the_last(sluice, authority, leaves, upstream):
    """Whoever looks at the last element of x-forwarded-client-cert must find ours, however many lines the client sends."""
    manager = hcm(forward_client_cert_details="APPEND_FORWARD", set_current_client_cert_details={"subject": True})
    proxy = sluice(bootstrap([listener(chains=[chain(manager, transport_socket=terminate(leaves["a.test"], authority, True))])],
                             [cluster("up", upstream.port)]))
    forged = [("x-forwarded-client-cert", "Hash=1"), ("x-forwarded-client-cert", "Hash=2;Subject=\"CN=admin\"")]
    assert fetch(proxy.port(), headers=forged, tls=client_context(authority, leaves["client"]), server_name="a.test").status == 200
    seen = upstream.requests[-1].all("x-forwarded-client-cert")
    assert len(seen) == 1 and seen[0].startswith("Hash=1,Hash=2;Subject=\"CN=admin\",Hash="), seen
    assert seen[0].endswith(";Subject=\"CN=client,O=Tests\""), seen


def test_protocol_and_cipher_limits(proxy, authority):
    with Client(proxy.port("old"), tls=client_context(authority), server_name="a.test") as client:
        assert client.socket.version() == "TLSv1.2" and client.socket.cipher()[0] == "ECDHE-ECDSA-AES128-GCM-SHA256"
    modern = client_context(authority)
    modern.minimum_version = ssl.TLSVersion.TLSv1_3
    with pytest.raises((ssl.SSLError, ConnectionResetError)):
        Client(proxy.port("old"), tls=modern, server_name="a.test")


def test_listener_log_of_a_failed_handshake(sluice, authority, leaves, tmp_path):
    """The listener's access log has every connection, and why one came to nothing."""
    log = tmp_path / "listener.log"
    site = listener(chains=[chain(hcm([direct("/", 200, "ok")]), transport_socket=terminate(leaves["a.test"], authority, True))],
                    access_log=[file_log(log, "%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n")])
    proxy = sluice(bootstrap([site]))
    with pytest.raises((ssl.SSLError, EOFError, OSError)):
        fetch(proxy.port(), tls=client_context(authority), server_name="a.test")
    assert fetch(proxy.port(), tls=client_context(authority, leaves["client"]), server_name="a.test").status == 200
    assert sorted(proxy.log_lines(log, 2)) == sorted([
        "- TLS_error:|268435648:SSL_routines:OPENSSL_internal:PEER_DID_NOT_RETURN_A_CERTIFICATE:"
        "peer_did_not_provide_required_client_certificate:TLS_error_end", "CN=client,O=Tests -"])


def test_plain_bytes_to_a_tls_port(proxy):
    with Client(proxy.port("mtls")) as client:
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"HTTP/1.1" not in client.until_close()
    proxy.wait_stat("listener.mtls.ssl.connection_error", lambda n: n >= 1)


def test_big_bodies_over_tls(proxy, authority, shared_upstream):
    body = bytes(range(256)) * 16384
    shared_upstream.script(Reply(body=body))
    answer = fetch(proxy.port("sni"), "/x", "POST", body=body, tls=client_context(authority), server_name="a.test")
    assert answer.body == body and shared_upstream.wait_requests(1)[0].body == body


def test_openssl_client_sees_the_chain(proxy, authority):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{proxy.port('sni')}", "-servername", "a.test",
                           "-CAfile", str(authority.pair.cert), "-verify_return_error"], input=b"", capture_output=True,
                          timeout=20, check=False)
    assert b"Verify return code: 0 (ok)" in done.stdout


def test_certs_page(proxy):
    certificates = proxy.admin("/certs").json["certificates"]
    names = {san["dns"] for c in certificates for one in c["cert_chain"] for san in one["subject_alt_names"]}
    assert {"a.test", "b.test"} <= names
    assert all(int(one["days_until_expiration"]) in (29, 30) for c in certificates for one in c["cert_chain"])


def test_days_until_the_first_certificate_expires(sluice, authority, leaves):
    """Of listeners and clusters, of certificates and roots; there is none: the largest number, as Envoy."""
    gauge, fast = "server.days_until_first_cert_expiring", {"stats_flush_interval": "0.05s"}
    sluice(bootstrap([], **fast)).wait_stat(gauge, 4294967295)
    days_30, days_4 = leaves["a.test"], authority.leaf("short", days=4)
    site = listener(chains=[chain(hcm([direct("/", 200)]), transport_socket=terminate(days_30))])
    sluice(bootstrap([site], **fast)).wait_stat(gauge, lambda days: days in (29, 30))
    trusting = cluster("up", transport_socket=tls_socket("Upstream", common_tls_context={
        "validation_context": {"trusted_ca": {"filename": str(days_4.cert)}}}))
    proxy = sluice(bootstrap([site], [trusting], **fast))
    proxy.wait_stat(gauge, lambda days: days in (3, 4))
    assert proxy.stat("server.seconds_until_first_ocsp_response_expiring") == 0


# ---- towards upstreams ----

def upstream_tls(authority, sans=None, sni="upstream.test", pair=None, **common):
    validation = {"trusted_ca": {"filename": str(authority.pair.cert)}}
    if sans:
        validation["match_typed_subject_alt_names"] = [{"san_type": kind, "matcher": {"exact": value}} for kind, value in sans]
    context = {"validation_context": validation, **common}
    if pair:
        context["tls_certificates"] = [tls_certificate(pair)]
    return tls_socket("Upstream", sni=sni, common_tls_context=context)


@pytest.fixture
def tls_upstream(upstreams, authority, leaves):
    return upstreams(ScriptedUpstream, tls=authority.server_context(leaves["upstream"]))


@pytest.mark.smoke
def test_upstream_tls(sluice, authority, tls_upstream):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", tls_upstream.port, transport_socket=upstream_tls(
        authority, [("DNS", "upstream.test")]))]))
    answer = fetch(proxy.port(), body=b"x" * 100000, method="POST")
    assert answer.status == 200 and tls_upstream.wait_requests(1)[0].body == b"x" * 100000
    assert proxy.stat("cluster.up.ssl.handshake") == 1


@pytest.mark.parametrize("sans", [[("URI", "spiffe://td/ns/up")], [("DNS", "no.test"), ("URI", "spiffe://td/ns/up")],
                                  [("IP_ADDRESS", "127.0.0.1")]])
def test_upstream_names_that_match(sluice, authority, tls_upstream, sans):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", tls_upstream.port,
                                                         transport_socket=upstream_tls(authority, sans))]))
    assert fetch(proxy.port()).status == 200


@pytest.mark.parametrize("sans", [[("DNS", "other.test")], [("URI", "spiffe://td/ns/other")], [("URI", "upstream.test")]])
def test_upstream_names_that_do_not_match(sluice, authority, tls_upstream, tmp_path, sans):
    log = tmp_path / "log"
    proxy = sluice(bootstrap([listener(hcm(access_log=[file_log(log, "%RESPONSE_FLAGS% %UPSTREAM_TRANSPORT_FAILURE_REASON%\n")]))],
                             [cluster("up", tls_upstream.port, transport_socket=upstream_tls(authority, sans))]))
    assert fetch(proxy.port()).status == 503
    line = proxy.log_lines(log, 1)[0]
    assert line.startswith("UF ") and "TLS_error" in line and "CERTIFICATE_VERIFY_FAILED" in line
    assert proxy.stat("cluster.up.ssl.fail_verify_san") == 1


def test_upstream_of_another_authority(sluice, upstreams, authority, tmp_path):
    other = Authority(tmp_path / "ca2", "ca2")
    server = upstreams(ScriptedUpstream, tls=other.server_context(other.leaf("upstream.test")))
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, transport_socket=upstream_tls(authority))]))
    assert fetch(proxy.port()).status == 503
    assert proxy.stat("cluster.up.ssl.fail_verify_error") == 1 and not server.requests


def test_upstream_mutual_tls(sluice, upstreams, authority, leaves):
    server = upstreams(ScriptedUpstream, tls=authority.server_context(leaves["upstream"], ask_client=True))
    with_pair = cluster("up", server.port, transport_socket=upstream_tls(authority, pair=leaves["client"]))
    without = cluster("bare", server.port, transport_socket=upstream_tls(authority))
    proxy = sluice(bootstrap([listener(hcm([route("/bare", "bare"), route("/")]))], [with_pair, without]))
    assert fetch(proxy.port()).status == 200
    assert fetch(proxy.port(), "/bare").status == 503


def test_upstream_is_not_tls(sluice, upstream, authority):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port, transport_socket=upstream_tls(authority))]))
    upstream.script(Reply(raw=b"HTTP/1.1 400 Bad\r\ncontent-length: 0\r\n\r\n", close=True))
    assert fetch(proxy.port(), timeout=20).status == 503


def test_upstream_h2_by_alpn(sluice, h2_upstream, authority, leaves):
    server = h2_upstream({"/file": b"over h2"}, tls=authority.server_context(leaves["upstream"], alpn=["h2", "http/1.1"]))
    options = http_options(auto_config={"http_protocol_options": {}, "http2_protocol_options": {}})
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, transport_socket=upstream_tls(authority),
                                                         typed_extension_protocol_options=options)]))
    assert fetch(proxy.port(), "/file").body == b"over h2"
    assert proxy.stat("cluster.up.upstream_cx_http2_total") == 1


def test_tcp_proxy_terminates_tls(sluice, upstreams, authority, leaves):
    server = upstreams(ByteUpstream)
    proxy = sluice(bootstrap([listener(chains=[chain(tcp_proxy(), transport_socket=terminate(leaves["a.test"], alpn=()))])],
                             [cluster("up", server.port)]))
    with Client(proxy.port(), tls=client_context(authority), server_name="a.test") as client:
        assert client.send(b"ping").exactly(4) == b"ping"


def test_sni_passthrough(sluice, upstreams, authority, leaves):
    servers = {n: upstreams(ByteUpstream, tls=authority.server_context(leaves[n])) for n in ("a.test", "b.test")}
    chains = [chain(tcp_proxy(n, stat_prefix=n), filter_chain_match={"server_names": [n]}) for n in servers]
    proxy = sluice(bootstrap([listener(chains=chains, listener_filters=INSPECTOR)],
                             [cluster(n, s.port) for n, s in servers.items()]))
    for name in servers:
        with Client(proxy.port(), tls=client_context(authority), server_name=name) as client:
            assert client.send(name).exactly(len(name)) == name.encode()


def test_auto_sni_and_san(sluice, authority, tls_upstream):
    options = http_options(explicit_http_config={"http_protocol_options": {}},
                           upstream_http_protocol_options={"auto_sni": True, "auto_san_validation": True})
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", tls_upstream.port,
                                                         transport_socket=upstream_tls(authority, sni=""),
                                                         typed_extension_protocol_options=options)]))
    assert fetch(proxy.port(), host="upstream.test").status == 200
    assert fetch(proxy.port(), host="wrong.test").status == 503


def test_facts_of_an_upstream_that_is_done(sluice, authority, tls_upstream, tmp_path):
    """Also when the connection is gone by the time of the log."""
    log = tmp_path / "log"
    line = "%UPSTREAM_TLS_VERSION% %UPSTREAM_PEER_SUBJECT% %UPSTREAM_PEER_URI_SAN%\n"
    proxy = sluice(bootstrap([listener(hcm(access_log=[file_log(log, line)]))],
                             [cluster("up", tls_upstream.port, transport_socket=upstream_tls(authority))]))
    for reply in (Reply(), Reply(close=True, headers=[("connection", "close")]), Reply(chunks=[b"a"], close=True)):
        tls_upstream.script(reply)
        assert fetch(proxy.port()).status == 200
    assert set(proxy.log_lines(log, 3)) == {"TLSv1.2 CN=upstream,O=Tests spiffe://td/ns/up"}
