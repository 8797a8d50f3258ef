"""Who is let in: for each validation context and each client certificate the same verdict, alert, failure reason and facts as Envoy's."""

import re
import socket
import ssl

import pytest

from support.config import bootstrap, chain, direct, file_log, hcm, listener, tls_certificate, tls_socket, typed
from support.pki import CA, LEAF, Pki
from support.process import wait_until

FACTS = ("%DOWNSTREAM_PEER_SUBJECT%|%DOWNSTREAM_PEER_ISSUER%|%DOWNSTREAM_PEER_SERIAL%|%DOWNSTREAM_PEER_FINGERPRINT_256%|"
         "%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_DNS_SAN%|%DOWNSTREAM_PEER_IP_SAN%|%DOWNSTREAM_PEER_EMAIL_SAN%|"
         "%DOWNSTREAM_PEER_OTHERNAME_SAN%|%DOWNSTREAM_LOCAL_SUBJECT%|%DOWNSTREAM_LOCAL_DNS_SAN%|%DOWNSTREAM_PEER_CERT_V_START%|"
         "%DOWNSTREAM_PEER_CERT_V_END%|%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%|%DOWNSTREAM_PEER_CHAIN_SERIALS%|"
         "%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_TLS_CIPHER%")
SPIFFE = "spiffe://td.test/ns/a/sa/client"
UPN = "1.3.6.1.4.1.311.20.2.3"
CLIENTS = ("none", "good", "deep", "deeper", "expired", "future", "stranger", "self", "revoked", "of-revoked", "server-only",
           "wildcard", "mail", "address", "other-name", "no-san", "is-ca", "two-uris", "no-domain", "other-domain", "rsa", "p384",
           "mixed-case", "forged", "many-sans")


def make_pki(directory):
    p = Pki(directory)
    p.issue("root", extensions=CA)
    p.issue("other-root", extensions=CA)
    p.issue("forged-root", extensions=CA, subject="/O=Tests/CN=root")  # the name of the real one
    p.intermediate("inter", "root")
    p.intermediate("inter-2", "inter")
    p.intermediate("bad-inter", "root")
    good = f"URI:{SPIFFE},DNS:client.test"
    for name, by in (("good", "root"), ("deep", "inter"), ("deeper", "inter-2"), ("stranger", "other-root"), ("self", None),
                     ("revoked", "root"), ("of-revoked", "bad-inter"), ("forged", "forged-root")):
        p.issue(name, by, good)
    p.issue("expired", "root", good, days=-1)
    p.future("future", "root", good)
    p.issue("server-only", "root", good, LEAF + "extendedKeyUsage=serverAuth\n")
    p.issue("is-ca", "root", good, CA)
    p.issue("rsa", "root", good, key="rsa")
    p.issue("p384", "root", good, key="p384")
    for name, sans in (("wildcard", "DNS:*.client.test"), ("mail", "email:a@client.test"), ("address", "IP:10.1.2.3,IP:2001:db8::1"),
                       ("other-name", f"otherName:{UPN};UTF8:joe@client.test"), ("no-san", ""),
                       ("two-uris", f"URI:{SPIFFE},URI:spiffe://td.test/b"), ("no-domain", "URI:spiffe:///a"),
                       ("other-domain", "URI:spiffe://elsewhere.test/ns/a/sa/client"), ("mixed-case", "DNS:CLIENT.test,URI:Spiffe://TD.test/x"),
                       ("many-sans", ",".join(f"DNS:n{i}.client.test" for i in range(50)) + ",URI:" + SPIFFE)):
        p.issue(name, "root", sans)
    p.issue("server", "root", "DNS:server.test")
    p.crl("root", "revoked", "bad-inter")
    p.crl("inter")
    p.crl("inter-2")
    p.crl("bad-inter")
    p.crl("root", name="stale", until="20200101000000Z")
    p.path("all.crl").write_text("".join(p.path(f"{n}.crl").read_text() for n in ("root", "inter", "inter-2", "bad-inter")))
    p.path("with-crl.crt").write_text(p.path("root.own").read_text() + p.path("root.crl").read_text())
    p.path("both.crt").write_text(p.path("root.own").read_text() + p.path("other-root.own").read_text())
    return p


def file(path):
    return {"filename": str(path)}


def san(kind, **matcher):
    fields = {"oid": matcher.pop("oid")} if "oid" in matcher else {}
    return {"san_type": kind, "matcher": matcher, **fields}


def spiffe_validator(**fields):
    return {"custom_validator_config": typed("envoy.tls.cert_validator.spiffe",
                                             "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig", **fields)}


def bundles(p, domains, **fields):
    """All trust domains' roots in one document."""
    return spiffe_validator(trust_bundles={"inline_string": p.bundle_map(domains)}, **fields)


def contexts(p):
    """name → (validation context, require_client_certificate)"""
    root, inter = {"trusted_ca": file(p.path("root.own"))}, {"trusted_ca": file(p.path("inter.own"))}
    out = {
        "nothing": ({}, False),
        "nothing-required": ({}, True),
        "ca": (root, False),
        "ca-required": (root, True),
        "two-roots": ({"trusted_ca": file(p.path("both.crt"))}, True),
        "partial-chain": (inter, True),
        "hash": ({**root, "verify_certificate_hash": [p.hash("good")]}, True),
        "hash-of-several": ({**root, "verify_certificate_hash": ["0" * 64, p.hash("revoked"), p.hash("expired")]}, True),
        "hash-with-colons": ({**root, "verify_certificate_hash": [":".join(re.findall("..", p.hash("good").upper()))]}, False),
        "hash-alone": ({"verify_certificate_hash": [p.hash("good"), p.hash("stranger"), p.hash("expired")]}, True),
        "hash-alone-optional": ({"verify_certificate_hash": [p.hash("good")]}, False),
        "spki": ({**root, "verify_certificate_spki": [p.spki("good"), p.spki("rsa")]}, True),
        "spki-alone": ({"verify_certificate_spki": [p.spki("self"), p.spki("other-name")]}, True),
        "hash-or-spki": ({**root, "verify_certificate_hash": [p.hash("good")], "verify_certificate_spki": [p.spki("rsa")]}, True),
        "crl": ({**root, "crl": file(p.path("all.crl"))}, True),
        "crl-of-root-only": ({**root, "crl": file(p.path("root.crl"))}, True),
        "crl-leaf-only": ({**root, "crl": file(p.path("all.crl")), "only_verify_leaf_cert_crl": True}, True),
        "crl-leaf-only-of-root": ({**root, "crl": file(p.path("root.crl")), "only_verify_leaf_cert_crl": True}, True),
        "crl-stale": ({**root, "crl": file(p.path("stale.crl"))}, True),
        "crl-in-bundle": ({"trusted_ca": file(p.path("with-crl.crt"))}, True),
        "untrusted": ({**root, "trust_chain_verification": "ACCEPT_UNTRUSTED"}, False),
        "untrusted-required": ({**root, "trust_chain_verification": "ACCEPT_UNTRUSTED"}, True),
        "untrusted-without-ca": ({"trust_chain_verification": "ACCEPT_UNTRUSTED"}, False),
        "untrusted-with-san": ({**root, "trust_chain_verification": "ACCEPT_UNTRUSTED",
                                "match_typed_subject_alt_names": [san("URI", exact=SPIFFE)]}, True),
        "untrusted-with-hash": ({**root, "trust_chain_verification": "ACCEPT_UNTRUSTED",
                                 "verify_certificate_hash": [p.hash("good")]}, True),
        "allow-expired": ({**root, "allow_expired_certificate": True}, True),
        "allow-expired-with-crl": ({**root, "allow_expired_certificate": True, "crl": file(p.path("all.crl"))}, True),
        "no-ca-list": ({**root, "suppress_client_ca_list": True}, True),
        "legacy-san": ({**root, "match_subject_alt_names": [{"exact": "client.test"}]}, True),
        "legacy-prefix": ({**root, "match_subject_alt_names": [{"prefix": "spiffe://td.test/"}]}, True),
        "two-sans": ({**root, "match_typed_subject_alt_names": [san("DNS", exact="nobody.test"), san("URI", exact=SPIFFE)]}, True),
        "san-optional": ({**root, "match_typed_subject_alt_names": [san("URI", exact=SPIFFE)]}, False),
        "san-and-hash": ({**root, "match_typed_subject_alt_names": [san("URI", exact=SPIFFE)],
                          "verify_certificate_hash": [p.hash("deep")]}, True),
    }
    for depth in (0, 1, 2, 3, 100):
        out[f"depth-{depth}"] = ({**root, "max_verify_depth": depth}, True)
    matchers = {
        "uri": san("URI", exact=SPIFFE), "uri-prefix": san("URI", prefix="spiffe://td.test/"), "uri-suffix": san("URI", suffix="/client"),
        "uri-contains": san("URI", contains="/ns/"), "uri-regex": san("URI", safe_regex={"regex": "spiffe://td.test/ns/[a-z]+/sa/.*"}),
        "uri-ignoring-case": san("URI", prefix="SPIFFE://td.TEST", ignore_case=True), "uri-part-of-regex": san("URI", safe_regex={"regex": "td.test"}),
        "dns": san("DNS", exact="client.test"), "dns-below": san("DNS", exact="a.client.test"), "dns-two-below": san("DNS", exact="a.b.client.test"),
        "dns-wildcard": san("DNS", exact="*.client.test"), "dns-suffix": san("DNS", suffix=".client.test"),
        "dns-ignoring-case": san("DNS", exact="Client.Test", ignore_case=True), "dns-upper": san("DNS", exact="CLIENT.test"),
        "dns-regex": san("DNS", safe_regex={"regex": r".*\.test"}), "email": san("EMAIL", exact="a@client.test"),
        "ip": san("IP_ADDRESS", exact="10.1.2.3"), "ip-6": san("IP_ADDRESS", exact="2001:db8::1"), "ip-prefix": san("IP_ADDRESS", prefix="10."),
        "other-name": san("OTHER_NAME", exact="joe@client.test", oid=UPN), "other-name-prefix": san("OTHER_NAME", prefix="joe", oid=UPN),
        "other-name-other-oid": san("OTHER_NAME", exact="joe@client.test", oid="1.2.3.4"),
    }
    out |= {f"san-{name}": ({**root, "match_typed_subject_alt_names": [matcher]}, True) for name, matcher in matchers.items()}
    domains = [{"name": "td.test", "trust_bundle": file(p.path("root.own"))},
               {"name": "elsewhere.test", "trust_bundle": file(p.path("other-root.own"))}]
    spiffe = spiffe_validator(trust_domains=domains)
    out |= {"spiffe": (spiffe, True), "spiffe-optional": (spiffe, False),
            "spiffe-map": (bundles(p, {"td.test": ["root"], "elsewhere.test": ["other-root"]}), True),
            "spiffe-map-of-several": (bundles(p, {"td.test": ["other-root", "root"]}), True),
            "spiffe-map-san": ({**bundles(p, {"td.test": ["root"]}), "match_typed_subject_alt_names": [san("URI", prefix="spiffe://td.test/b")]}, True),
            "spiffe-map-expired": ({**bundles(p, {"td.test": ["root"]}), "allow_expired_certificate": True}, True),
            "spiffe-map-and-domains": (bundles(p, {"td.test": ["root"]}, trust_domains=[{**domains[1], "name": "td.test"}]), True),
            "spiffe-of-workloads": (spiffe_validator(trust_domains=[{**domains[0], "workload_trust_domain": "w"}, domains[1]]), True),
            "spiffe-san": ({**spiffe, "match_typed_subject_alt_names": [san("URI", exact=SPIFFE)]}, True),
            "spiffe-dns": ({**spiffe, "match_typed_subject_alt_names": [san("DNS", exact="client.test")]}, True),
            "spiffe-expired": ({**spiffe, "allow_expired_certificate": True}, True),
            "spiffe-hash": ({**spiffe, "verify_certificate_hash": [p.hash("deep")]}, True),
            "spiffe-ca": ({**spiffe, "trusted_ca": file(p.path("other-root.own"))}, True)}
    return out


def site(p, directory, name, validation, require):
    socket_ = tls_socket("Downstream", require_client_certificate=require, common_tls_context={
        "tls_certificates": [tls_certificate(p.pair("server"))], **({"validation_context": validation} if validation else {})})
    show = [{"header": {"key": "x-facts", "value": FACTS}}, {"header": {"key": "x-xfcc", "value": "%REQ(x-forwarded-client-cert)%"}}]
    manager = hcm([direct("/", 200)], route_fields={"response_headers_to_add": show}, forward_client_cert_details="SANITIZE_SET",
                  set_current_client_cert_details={"subject": True, "uri": True, "dns": True, "cert": True, "chain": True})
    log = file_log(directory / f"{name}.log", "%DOWNSTREAM_DIRECT_REMOTE_PORT% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\n")
    return listener(chains=[chain(manager, transport_socket=socket_)], name=name, stat_prefix=name, access_log=[log])


def client_context(p, name, version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    if name != "none":
        context.load_cert_chain(p.pair(name).cert, p.pair(name).key)
    return context


def attempt(port, context):
    """(local port, what became of it)"""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        local = plain.getsockname()[1]
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with context.wrap_socket(plain, server_hostname="server.test") as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                data = b""
                while b"\r\n\r\n" not in data and (more := tls.recv(65536)):
                    data += more
        except ssl.SSLError as e:
            return local, re.sub(r"\(_ssl.*", "", e.reason or str(e))
        except OSError as e:
            return local, type(e).__name__
    lines = data.decode().split("\r\n\r\n")[0].split("\r\n")
    return local, (lines[0], *sorted(line for line in lines if line.startswith("x-")))


def reasons(path, count):
    """{local port: failure reason}, once all connections are logged."""
    def read():
        lines = [line.split(" ", 1) for line in path.read_text().splitlines()] if path.exists() else []
        return lines if len(lines) >= count else None
    return {int(port): re.sub(r"0x[0-9a-f]+", "", text) for port, text in wait_until(read, lambda: f"{count} lines in {path}", 20)}


STATS = re.compile(r"ssl\.(?!ciphers|curves|sigalgs|versions|certificate).*")


def outcome(start, pki, directory):
    directory.mkdir()
    names = contexts(pki)
    proxy = start(bootstrap([site(pki, directory, name, *how) for name, how in names.items()]))
    where = {name: address[1] for name, address in proxy.listeners().items()}
    clients = {(c, v.name): client_context(pki, c, v) for c in CLIENTS for v in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)}
    seen = {}
    for name in names:
        tried = {who: attempt(where[name], context) for who, context in clients.items()}
        why = reasons(directory / f"{name}.log", len(tried))
        stats = {k.partition(".ssl.")[2]: v for k, v in proxy.stats(rf"^listener\.{name}\.ssl\.").items() if STATS.search(k)}
        seen[name] = ({who: (result, why.get(port)) for who, (port, result) in tried.items()}, stats)
    return seen


@pytest.fixture(scope="module")
def both(shared_sluice, shared_envoy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("clients")
    pki = make_pki(directory / "pki")
    return outcome(shared_sluice, pki, directory / "sluice"), outcome(shared_envoy, pki, directory / "envoy")


NAMES = sorted(contexts(type("Names", (), {"path": lambda *_: "", "hash": lambda *_: "", "spki": lambda *_: "", "bundle_map": lambda *_: ""})()))


def is_same(ours, theirs):
    """Envoy often closes before the client has read its alert, when that comes after a TLS 1.3 client's end of the handshake."""
    is_cut = isinstance(ours[0], str) and theirs[0] in ("EOF occurred in violation of protocol ", "ConnectionResetError")
    return ours[1] == theirs[1] if is_cut else ours == theirs


def is_stricter(name, client):
    """Who is refused by us alone: an SVID has exactly one URI (X.509-SVID section 2), of which Envoy takes the first; and a matcher that
    SPIFFE gives no meaning matches nobody, where Envoy leaves it out and lets everybody of the trust domain in."""
    return name.startswith("spiffe") and client == "two-uris" or name == "spiffe-dns"


def refuses_more(ours, theirs):
    return isinstance(ours[0], str) and theirs[0][0] == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("name", NAMES)
def test_same_clients_are_let_in(both, name):
    ours, theirs = (side[name] for side in both)
    different = {who: (ours[0][who], theirs[0][who]) for who in ours[0] if not is_same(ours[0][who], theirs[0][who])}
    stricter = {who for who, pair in different.items() if is_stricter(name, who[0]) and refuses_more(*pair)}
    different = {who: pair for who, pair in different.items() if who not in stricter}
    assert not different, "\n".join(f"{who}:\n  {ours}\n  {theirs}" for who, (ours, theirs) in different.items())
    assert stricter or ours[1] == theirs[1]
