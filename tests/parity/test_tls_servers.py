"""Whom to trust as an upstream: for each validation context and each server's certificate the same verdict, failure reason, facts and
stats as Envoy's; and the same server names, protocols and resumed sessions on the wire."""

import contextlib
import re
import ssl
import threading

import pytest

from support.config import bootstrap, cluster, file_log, hcm, http_options, listener, route, tls_certificate, tls_socket
from support.pki import LEAF
from support.process import wait_until
from support.rawhttp import Client
from support.upstream import Gone, Reader, TcpServer
from test_tls_clients import SPIFFE, contexts, make_pki, san

OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
SERVERS = ("good", "deep", "deeper", "expired", "future", "stranger", "self", "revoked", "of-revoked", "client-only", "server-only",
           "wildcard", "mail", "address", "other-name", "no-san", "is-ca", "no-domain", "other-domain", "rsa", "p384", "mixed-case",
           "forged", "many-sans")
OLD_SERVERS = ("good", "expired", "stranger", "revoked", "wildcard", "rsa")
# refused by us alone: test_tls_clients.is_stricter tells why; max_verify_depth, which Envoy leaves out of account towards upstreams
STRICTER = {"spiffe-dns", "depth-0", "depth-1", "depth-2"}
LINE = ("%REQ(x-case)%|%RESPONSE_CODE%|%RESPONSE_FLAGS%|%RESPONSE_CODE_DETAILS%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|"
        "%UPSTREAM_TLS_VERSION%|%UPSTREAM_TLS_CIPHER%|%UPSTREAM_PEER_SUBJECT%|%UPSTREAM_PEER_ISSUER%\n")


class TlsServer(TcpServer):
    """Answers each request with what the handshake said: server name, protocol, resumed or not."""

    def __init__(self, pair, version, alpn=(), clients=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(pair.cert, pair.key)
        context.sni_callback = self.on_name
        if alpn:
            context.set_alpn_protocols(list(alpn))
        if clients:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
        self.context, self.names = context, threading.local()
        super().__init__(context)

    def on_name(self, _socket, name, _context):
        self.names.last = name

    def serve(self, sock, number):
        reader = Reader(sock)
        while True:
            reader.until(b"\r\n\r\n")
            said = f"{getattr(self.names, 'last', None)} {sock.selected_alpn_protocol()} {sock.session_reused}"
            sock.sendall(f"HTTP/1.1 200 OK\r\nx-said: {said}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            with contextlib.suppress(OSError):
                sock.unwrap()
            raise Gone


def make_servers(pki, stack):
    def start(*args, **options):
        server = TlsServer(*args, **options)
        stack.callback(server.stop)
        return server.port
    out = {(name, NEW.name): start(pki.pair(name), NEW) for name in SERVERS}
    out |= {(name, OLD.name): start(pki.pair(name), OLD) for name in OLD_SERVERS}
    out |= {("h2", version.name): start(pki.pair("good"), version, ["h2"]) for version in (OLD, NEW)}
    out |= {("http/1.1", version.name): start(pki.pair("good"), version, ["http/1.1"]) for version in (OLD, NEW)}
    out |= {("mutual", version.name): start(pki.pair("good"), version, clients=pki.path("root.own")) for version in (OLD, NEW)}
    return out


def destination(name, validation, options=None, **fields):
    """A cluster whose host is the one that a request's header tells."""
    common = fields.pop("common", {})
    socket_ = tls_socket("Upstream", **fields, common_tls_context={**common, **({"validation_context": validation} if validation else {})})
    more = {"typed_extension_protocol_options": http_options(explicit_http_config={"http_protocol_options": {}}, **options)} if options else {}
    made = cluster(name, type="ORIGINAL_DST", lb_policy="CLUSTER_PROVIDED", original_dst_lb_config={"use_http_header": True},
                   transport_socket=socket_, **more)
    del made["load_assignment"]
    return made


def names(p):
    """Clusters that differ in the names they ask for and verify."""
    root = {"trusted_ca": {"filename": str(p.path("root.own"))}}
    auto = {"auto_sni": True, "auto_san_validation": True}
    dns = {**root, "match_typed_subject_alt_names": [san("DNS", exact="client.test")]}
    return [
        destination("sni", root, sni="client.test"),
        destination("sni-matched", dns, sni="elsewhere.test"),
        destination("auto-sni", root, options={"upstream_http_protocol_options": {"auto_sni": True}}),
        destination("auto-san", root, options={"upstream_http_protocol_options": auto}),
        destination("auto-san-over-matchers", {**root, "match_typed_subject_alt_names": [san("DNS", exact="nobody.test")]},
                    options={"upstream_http_protocol_options": auto}),
        destination("auto-sni-of-header", root, options={"upstream_http_protocol_options": {**auto, "override_auto_sni_header": "x-name"}}),
        destination("auto-sni-and-sni", root, sni="client.test", options={"upstream_http_protocol_options": auto}),
        destination("auto-host-sni", root, auto_host_sni=True),
        destination("auto-host-sni-and-sni", root, auto_host_sni=True, sni="client.test"),
        destination("sni-verified", root, sni="client.test", auto_sni_san_validation=True),
        destination("sni-verified-below", root, sni="a.client.test", auto_sni_san_validation=True),
        destination("sni-verified-other", root, sni="other.test", auto_sni_san_validation=True),
        destination("sni-verified-over-matchers", {**root, "match_typed_subject_alt_names": [san("URI", exact=SPIFFE)]}, sni="other.test",
                    auto_sni_san_validation=True),
        destination("sni-verified-empty", root, auto_sni_san_validation=True),
        destination("alpn-h1", root, common={"alpn_protocols": ["http/1.1"]}),
        destination("alpn-h2", root, common={"alpn_protocols": ["h2"]}),
        destination("alpn-both", root, common={"alpn_protocols": ["h2", "http/1.1"]}),
        destination("no-sessions", root, max_session_keys=0),
        destination("two-sessions", root, max_session_keys=2),
        destination("only-old", root, common={"tls_params": {"tls_maximum_protocol_version": "TLSv1_2"}}),
        destination("only-new", root, common={"tls_params": {"tls_minimum_protocol_version": "TLSv1_3",
                                                             "tls_maximum_protocol_version": "TLSv1_3"}}),
        destination("one-cipher", root, common={"tls_params": {"tls_maximum_protocol_version": "TLSv1_2",
                                                               "cipher_suites": ["ECDHE-RSA-AES128-GCM-SHA256"]}}),
        destination("one-curve", root, common={"tls_params": {"ecdh_curves": ["P-384"]}}),
        destination("one-algorithm", root, common={"tls_params": {"signature_algorithms": ["rsa_pss_rsae_sha256"]}}),
        destination("with-certificate", root, common={"tls_certificates": [tls_certificate(p.pair("deep"))]}),
        destination("with-expired-certificate", root, common={"tls_certificates": [tls_certificate(p.pair("expired"))]}),
    ]


def trusts(p):
    both = {"tls_params": {"tls_maximum_protocol_version": "TLSv1_3"}}  # upstreams: up to TLS 1.2, if nothing is said
    return [destination(name, validation, sni="client.test", common=both) for name, (validation, required) in contexts(p).items() if required]


def reasons(path, count):
    def read():
        lines = path.read_text().splitlines() if path.exists() else []
        return lines if len(lines) >= count else None
    lines = wait_until(read, lambda: f"{count} lines in {path}", 20)
    return {line.split("|")[0]: re.sub(r"0x[0-9a-f]+|127\.0\.0\.1:\d+", "", line) for line in lines}


def ask(proxy, name, kind, port, host="client.test", case=None):
    with Client(proxy.port(), timeout=20) as client:
        client.send(f"GET /{name}/ HTTP/1.1\r\nhost: {host}\r\nx-name: {host}\r\nx-case: {case or '/'.join(kind)}\r\n"
                    f"x-envoy-original-dst-host: 127.0.0.1:{port}\r\n\r\n")
        answer = client.read()
    return answer.status, answer.get("x-said"), re.sub(r"127\.0\.0\.1:\d+", "", answer.body.decode())


def stats_of(proxy, name):
    stats = proxy.stats(rf"^cluster\.{name}\.(ssl\.|upstream_cx_connect_fail|upstream_rq_pending_failure_eject)")
    return {k.removeprefix(f"cluster.{name}."): v for k, v in stats.items() if "certificate." not in k}


def outcome(start, servers, clusters, cases, directory):
    """{cluster: ({case: (answer, log line)}, stats)}"""
    directory.mkdir()
    log = directory / "log"
    manager = hcm([route(f"/{c['name']}/", c["name"]) for c in clusters], access_log=[file_log(log, "%REQ(:path)% " + LINE)])
    proxy = start(bootstrap([listener(manager)], clusters))
    seen = {}
    for name in (c["name"] for c in clusters):
        answers = {case: ask(proxy, name, kind, servers[kind], host, f"{name}:{case}") for case, kind, host in cases}
        seen[name] = answers, stats_of(proxy, name)
    logged = reasons(log, len(clusters) * len(cases))
    return {name: ({case: (answer, logged[f"/{name}/ {name}:{case}"]) for case, answer in answers.items()}, stats)
            for name, (answers, stats) in seen.items()}


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    p = make_pki(tmp_path_factory.mktemp("servers") / "pki")
    p.issue("client-only", "root", f"URI:{SPIFFE},DNS:client.test", LEAF + "extendedKeyUsage=clientAuth\n")
    return p


@pytest.fixture(scope="module")
def servers(pki):
    with contextlib.ExitStack() as stack:
        yield make_servers(pki, stack)


@pytest.fixture(scope="module")
def by_trust(shared_sluice, shared_envoy, pki, servers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("trust")
    cases = [("/".join(kind), kind, "client.test") for kind in servers if kind[0] in SERVERS]
    return [outcome(start, servers, trusts(pki), cases, directory / name) for start, name in ((shared_sluice, "s"), (shared_envoy, "e"))]


@pytest.fixture(scope="module")
def by_name(shared_sluice, shared_envoy, pki, servers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("names")
    kinds = [(name, version.name) for name in ("good", "wildcard", "rsa", "h2", "http/1.1", "mutual") for version in (OLD, NEW)]
    hosts = ("client.test", "client.test", "a.client.test", "other.test:443", "10.1.2.3", "10.1.2.3", "client.test")
    cases = [(f"{'/'.join(kind)} {i} {host}", kind, host) for kind in kinds for i, host in enumerate(hosts)]
    return [outcome(start, servers, names(pki), cases, directory / name) for start, name in ((shared_sluice, "s"), (shared_envoy, "e"))]


class Names:
    def path(self, *_):
        return ""
    hash = spki = bundle_map = path

    def pair(self, *_):
        return type("Pair", (), {"cert": "", "key": ""})


def differences(ours, theirs):
    return "\n".join(f"{case}:\n  {ours[0][case]}\n  {theirs[0][case]}" for case in ours[0] if ours[0][case] != theirs[0][case])


@pytest.mark.parametrize("name", sorted(c["name"] for c in trusts(Names()) if c["name"] not in STRICTER))
def test_same_servers_are_trusted(by_trust, name):
    ours, theirs = (side[name] for side in by_trust)
    different = differences(ours, theirs)
    assert not different, different
    assert ours[1] == theirs[1]


@pytest.mark.parametrize("name", sorted(STRICTER))
def test_fewer_servers_are_trusted(by_trust, name):
    ours, theirs = (side[name][0] for side in by_trust)
    different = [case for case in ours if ours[case] != theirs[case]]
    assert (different or name == "spiffe-dns") and all(ours[case][0][0] == 503 and theirs[case][0][0] == 200 for case in different)


@pytest.mark.parametrize("name", sorted(c["name"] for c in names(Names())))
def test_same_names_and_sessions(by_name, name):
    ours, theirs = (side[name] for side in by_name)
    different = differences(ours, theirs)
    assert not different, different
    assert ours[1] == theirs[1]
