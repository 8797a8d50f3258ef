"""What a listener's TLS context makes of clients: certificates and staples shown, parameters negotiated, sessions resumed, garbage and
half-open handshakes turned away, each as Envoy does, with its stats and its access log."""

import base64
import collections
import contextlib
import itertools
import json
import re
import socket
import ssl
import subprocess

import pytest

from support.config import TYPE, bootstrap, chain, direct, file_log, hcm, listener, tls_certificate, tls_socket, typed
from support.pki import LEAF, Pki
from support.process import wait_until
from support.proxy import Envoy, Sluice
from test_tls_clients import SPIFFE, san

LINE = ("%DOWNSTREAM_TRANSPORT_FAILURE_REASON%|%DOWNSTREAM_TLS_VERSION%|%DOWNSTREAM_TLS_CIPHER%|%DOWNSTREAM_LOCAL_SUBJECT%|"
        "%DOWNSTREAM_PEER_URI_SAN%|%DOWNSTREAM_PEER_SUBJECT%|%DOWNSTREAM_PEER_FINGERPRINT_256%\n")
OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
POLICIES = ("LENIENT_STAPLING", "STRICT_STAPLING", "MUST_STAPLE")
STAPLED = ("good", "revoked", "expired", "missing", "must-good", "must-expired")
TICKETS = [base64.b64encode(bytes([number]) * 80).decode() for number in (1, 2, 3)]


def make_pki(directory):
    p = Pki(directory)
    for root in ("root", "other-root"):
        p.issue(root, extensions="basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n")
    for name in STAPLED:
        extensions = LEAF + ("tlsfeature=status_request\n" if name.startswith("must") else "")
        p.issue(name, "root", "DNS:server.test", extensions)
        if name != "missing":
            p.ocsp(name, "root", revoked=name == "revoked", expired=name.endswith("expired"))
    for name, sans, key in (("ec", "DNS:server.test", "p256"), ("ec384", "DNS:server.test", "p384"), ("rsa", "DNS:server.test", "rsa"),
                            ("a-ec", "DNS:a.test", "p256"), ("a-rsa", "DNS:a.test", "rsa"), ("wild", "DNS:*.wild.test", "p256"),
                            ("wild-rsa", "DNS:*.wild.test", "rsa"), ("deep", "DNS:x.wild.test", "p256"), ("named", "", "p256"),
                            ("other", "DNS:other.test", "p256")):
        p.issue(name, "root", sans, key=key)
    p.issue("cn.test", "root")
    p.issue("client", "root", f"URI:{SPIFFE},DNS:client.test")
    p.issue("signs-only", "root", "DNS:server.test", "keyUsage=critical,keyEncipherment\n", key="rsa")
    p.crl("root", "client")
    return p


def certificate(p, name, staple=None):
    made = tls_certificate(p.pair(name))
    return {**made, "ocsp_staple": {"filename": str(p.path(f"{staple or name}.ocsp"))}} if staple else made


def context(p, *names, staple=None, **fields):
    """A DownstreamTlsContext that shows these certificates; `common`: what else is common to both directions."""
    common = fields.pop("common", {})
    return tls_socket("Downstream", **fields,
                      common_tls_context={"tls_certificates": [certificate(p, name, staple) for name in names], **common})


def params(**fields):
    return {"common": {"tls_params": fields}}


def staple_contexts(p):
    for policy, name in itertools.product(POLICIES, STAPLED):
        if name != "missing" or policy != "MUST_STAPLE":
            yield f"{policy}-{name}", context(p, name, staple=name if name != "missing" else None, ocsp_staple_policy=policy)


def param_contexts(p):
    both = ("ec", "rsa")
    yield from {
        "default": context(p, *both),
        "old-only": context(p, *both, **params(tls_maximum_protocol_version="TLSv1_2")),
        "new-only": context(p, *both, **params(tls_minimum_protocol_version="TLSv1_3", tls_maximum_protocol_version="TLSv1_3")),
        "ancient": context(p, *both, **params(tls_minimum_protocol_version="TLSv1_0", cipher_suites=["ECDHE-RSA-AES128-SHA", "AES128-SHA",
                                                                                                     "ECDHE-ECDSA-AES256-SHA"])),
        "one-cipher": context(p, *both, **params(cipher_suites=["ECDHE-RSA-AES256-GCM-SHA384"])),
        "cipher-order": context(p, *both, **params(cipher_suites=["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"])),
        "cipher-group": context(p, *both, **params(cipher_suites=["[ECDHE-RSA-AES256-GCM-SHA384|ECDHE-RSA-CHACHA20-POLY1305]"])),
        "client-order": context(p, *both, prefer_client_ciphers=True,
                                **params(cipher_suites=["ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"])),
        "curve-384": context(p, *both, **params(ecdh_curves=["P-384"])),
        "curves": context(p, *both, **params(ecdh_curves=["P-256", "X25519"])),
        "sigalg-pss": context(p, *both, **params(signature_algorithms=["rsa_pss_rsae_sha256"])),
        "sigalg-ecdsa": context(p, *both, **params(signature_algorithms=["ecdsa_secp256r1_sha256"])),
        "fips": context(p, *both, **params(compliance_policies=["FIPS_202205"])),
        "alpn": context(p, *both, common={"alpn_protocols": ["h2", "http/1.1"]}),
        "alpn-h1": context(p, *both, common={"alpn_protocols": ["http/1.1"]}),
    }.items()


def choice_contexts(p):
    choices = {"rsa-ec": ("rsa", "ec"), "ec-rsa": ("ec", "rsa"), "rsa-alone": ("rsa",), "ec-alone": ("ec",), "384-rsa": ("ec384", "rsa"),
             "384-256": ("ec384", "ec"), "twice": ("ec", "good"), "names": ("a-ec", "wild", "deep", "rsa", "cn.test"),
             "rsa-names": ("a-rsa", "wild-rsa", "ec"), "by-both": ("a-rsa", "a-ec", "wild-rsa", "wild"), "signs-only": ("signs-only",)}
    for name, certs in choices.items():
        yield name, context(p, *certs)
        yield f"{name}-scan", context(p, *certs, full_scan_certs_on_sni_mismatch=True)
    for policy in POLICIES[:2]:
        yield f"stale-first-{policy}", tls_socket("Downstream", ocsp_staple_policy=policy, common_tls_context={
            "tls_certificates": [certificate(p, "expired", "expired"), certificate(p, "good", "good")]})


STAPLE_CLIENTS = [("-status", "-tls1_2"), ("-status", "-tls1_3"), ("-tls1_2",), ("-tls1_3",)]
PARAM_CLIENTS = [
    ("-tls1_2",), ("-tls1_3",), ("-tls1", "-cipher", "ALL:@SECLEVEL=0"), ("-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
    ("-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305"), ("-tls1_2", "-cipher", "AES128-SHA"),
    ("-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"), ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"),
    ("-tls1_3", "-groups", "P-384"), ("-tls1_3", "-groups", "P-521"), ("-tls1_2", "-groups", "P-256"), ("-tls1_3", "-groups", "P-384:X25519"),
    ("-tls1_2", "-sigalgs", "RSA+SHA256"), ("-tls1_3", "-sigalgs", "RSA-PSS+SHA256"), ("-tls1_3", "-sigalgs", "ECDSA+SHA256"),
    ("-tls1_2", "-sigalgs", "ECDSA+SHA384"), ("-alpn", "h2"), ("-alpn", "http/1.1,h2"), ("-alpn", "other"), ("-alpn", "other,http/1.1"),
]
SNIS = (None, "server.test", "a.test", "x.wild.test", "y.wild.test", "x.y.wild.test", "wild.test", "cn.test", "nobody.test")
CHOICE_CLIENTS = [(*how, *(("-servername", name) if name else ("-noservername",))) for name in SNIS for how in
                  (("-tls1_2",), ("-tls1_3",), ("-tls1_2", "-cipher", "aRSA"), ("-tls1_3", "-sigalgs", "RSA-PSS+SHA256"))]
CHOICE_CLIENTS += [("-tls1_3", "-sigalgs", "ECDSA+SHA384:RSA-PSS+SHA256"), ("-tls1_2", "-curves", "X25519"), ("-tls1_2", "-curves", "P-384"),
                   ("-tls1_2", "-status", "-servername", "server.test"), ("-tls1_3", "-status", "-noservername")]
SHOWN = re.compile(r"^(?:subject=.*|New, .*|Server Temp Key.*|Peer sign.*|OCSP response: no.*|\s*Cert Status: .*|.*ALPN.*|.*:SSL routines:.*"
                   r"|Verify.*)$", re.M)


def site(directory, name, socket_, **fields):
    show = [{"header": {"key": "x-facts", "value": LINE.strip()}}, {"header": {"key": "x-xfcc", "value": "%REQ(x-forwarded-client-cert)%"}}]
    manager = hcm([direct("/", 200)], route_fields={"response_headers_to_add": show}, forward_client_cert_details="SANITIZE_SET",
                  set_current_client_cert_details={"subject": True, "uri": True}, codec_type="HTTP1")
    chains = [chain(manager, transport_socket=each, transport_socket_connect_timeout="2s", **match) for match, each in (
        socket_ if isinstance(socket_, list) else [({}, socket_)])]
    return listener(chains=chains, name=name, stat_prefix=name, access_log=[file_log(directory / f"{name}.log", LINE)], **fields)


def s_client(port, args, said=""):
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *args], input=said, capture_output=True, text=True,
                          timeout=20)
    lines = SHOWN.findall(done.stdout + done.stderr)
    return tuple(re.sub(r"^[0-9A-F]+:|:\.\./.*|\s+$", "", line) for line in lines)


def logged(path, count):
    def read():
        lines = path.read_text().splitlines() if path.exists() else []
        return lines if len(lines) >= count else None
    # an error of Envoy's BoringSSL may be there twice, and be followed by that of the attempt to say goodbye
    return sorted(re.sub(r"(\|\d+:[^|]+)\1|(?<=TLS_error_end)\|?\d+:.*?TLS_error_end", r"\1", line)
                  for line in wait_until(read, lambda: f"{count} lines in {path}", 20))


def stats_of(proxy, name):
    stats = proxy.stats(rf"^listener\.{name}\.(ssl\.|downstream_cx_(total|destroy|active|transport_socket_connect_timeout)$)")
    return {k.removeprefix(f"listener.{name}."): v for k, v in stats.items() if v and "certificate." not in k}


def outcomes(start, directory, contexts, clients):
    """{listener: {client: what it saw, line of the access log: how often, stat: value}}"""
    directory.mkdir()
    proxy = start(bootstrap([site(directory, *each) for each in contexts]))
    ports = {name: at[1] for name, at in proxy.listeners().items()}
    seen = {}
    for name, _ in contexts:
        saw = {" ".join(args): s_client(ports[name], args) for args in clients}
        lines = collections.Counter(logged(directory / f"{name}.log", len(clients)))
        seen[name] = saw | dict(lines) | stats_of(proxy, name)
    return seen


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return make_pki(tmp_path_factory.mktemp("listeners") / "pki")


@pytest.fixture(scope="module")
def kinds(shared_sluice, shared_envoy, tmp_path_factory):
    directory = tmp_path_factory.mktemp("sides")
    return [(shared_sluice, directory / "s"), (shared_envoy, directory / "e")]


GROUPS = {"staples": (staple_contexts, STAPLE_CLIENTS), "parameters": (param_contexts, PARAM_CLIENTS),
          "choices": (choice_contexts, CHOICE_CLIENTS)}


def differences(ours, theirs):
    return "\n".join(f"{case}: {ours.get(case)} {theirs.get(case)}" for case in ours | theirs if ours.get(case) != theirs.get(case))


@pytest.mark.parametrize("group", GROUPS)
def test_same_handshakes(kinds, pki, group):
    make, clients = GROUPS[group]
    contexts = list(make(pki))
    ours, theirs = (outcomes(start, directory.with_name(f"{directory.name}-{group}"), contexts, clients) for start, directory in kinds)
    wrong = [f"{name}: {what}" for name in ours if (what := differences(ours[name], theirs[name]))]
    assert not wrong, "\n".join(wrong)


# --- sessions ---

def keys(*numbers):
    return {"session_ticket_keys": {"keys": [{"inline_bytes": TICKETS[number]} for number in numbers]}}


def secret_file(p, name, *numbers):
    path = p.path(f"{name}.json")
    secret = {"@type": TYPE + "envoy.extensions.transport_sockets.tls.v3.Secret", "name": name, **keys(*numbers)}
    path.write_text(json.dumps({"resources": [secret] if numbers else []}))
    return {"session_ticket_keys_sds_secret_config": {"name": name, "sds_config": {
        "path_config_source": {"path": str(path)}, "initial_fetch_timeout": "0.2s"}}}


def session_contexts(p):
    """Those that might resume each other's sessions, all with the same first key."""
    root = {"trusted_ca": {"filename": str(p.path("root.own"))}}

    def mutual(required, **fields):
        return context(p, "ec", common={"validation_context": {**root, **fields}}, require_client_certificate=required, **keys(0))
    return {
        "open": context(p, "ec", **keys(0)),
        "same": context(p, "ec", **keys(0)),
        "rotated": context(p, "ec", **keys(1, 0)),
        "dropped": context(p, "ec", **keys(1)),
        "by-sds": context(p, "ec", **secret_file(p, "tickets", 0)),
        "optional": mutual(False),
        "required": mutual(True),
        "matching": mutual(True, match_typed_subject_alt_names=[san("URI", exact=SPIFFE)]),
        "not-matching": mutual(True, match_typed_subject_alt_names=[san("URI", exact="spiffe://td.test/other")]),
        "revoking": mutual(True, crl={"filename": str(p.path("root.crl"))}),
        "pinning": mutual(True, verify_certificate_hash=[p.hash("client")]),
        "other-root": mutual(False, trusted_ca={"filename": str(p.path("other-root.own"))}),
        "untrusted": mutual(False, trust_chain_verification="ACCEPT_UNTRUSTED"),
        "other-certificate": context(p, "other", **keys(0)),
        "more-certificates": context(p, "ec", "rsa", **keys(0)),
        "alpn": context(p, "ec", common={"alpn_protocols": ["http/1.1"]}, **keys(0)),
        "old": context(p, "ec", **keys(0), **params(tls_maximum_protocol_version="TLSv1_2")),
        "by-name": [({"filter_chain_match": {"server_names": ["a.test"]}}, context(p, "ec", **keys(0))),
                    ({"filter_chain_match": {"server_names": ["b.test"]}}, context(p, "ec", **keys(0))),
                    ({}, context(p, "ec", **keys(0)))],
    }


# A session that one of them made, maybe of a client without certificate, Envoy resumes in the other.
NOT_SHARED = {"optional", "required"}


def lone_contexts(p):
    """Those that resume nobody's sessions but their own."""
    return {
        "own-keys": context(p, "ec"),
        "no-tickets": context(p, "ec", disable_stateless_session_resumption=True),
        "no-cache": context(p, "ec", disable_stateful_session_resumption=True),
        "neither": context(p, "ec", disable_stateless_session_resumption=True, disable_stateful_session_resumption=True),
        "no-time": context(p, "ec", session_timeout="0s"),
        "long": context(p, "ec", session_timeout="3600s"),
        "missing-keys": context(p, "ec", **secret_file(p, "absent")),
    }


def client(p, version, name):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.minimum_version = made.maximum_version = version
    if name:
        made.load_cert_chain(p.pair(name).cert, p.pair(name).key)
    return made


def visit(port, how, session=None, name="server.test"):
    """(the session it leaves behind, whether one was resumed, what the answer told)"""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            with how.wrap_socket(plain, server_hostname=name, session=session) as tls:
                tls.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                data = b""
                while b"\r\n\r\n" not in data and (more := tls.recv(65536)):
                    data += more
                told = sorted(line for line in data.decode().split("\r\n") if line.startswith("x-"))
                return tls.session, tls.session_reused, told
        except OSError as e:
            return None, None, "refused" if isinstance(e, (ssl.SSLError, ConnectionError)) else type(e).__name__


def resumptions(proxy, p, shared, lone):
    ports = {name: at[1] for name, at in proxy.listeners().items()}
    pairs = {source: shared for source in shared} | {source: (source,) for source in lone}
    seen = {}
    for version, who, source in itertools.product((OLD, NEW), (None, "client"), pairs):
        how = client(p, version, who)
        session, _, told = visit(ports[source], how, name="a.test")
        seen[version.name, who, source] = told
        for target, name in itertools.product(pairs[source] if session else (), ("a.test", "b.test")):
            if name == "a.test" or target == "by-name":
                seen[version.name, who, source, target, name] = visit(ports[target], how, session, name)[1:]
    return seen, {name: stats_of(proxy, name) for name in ports}


def test_same_sessions(kinds, pki):
    shared, lone = session_contexts(pki), lone_contexts(pki)
    inspector = {"listener_filters": [typed("envoy.filters.listener.tls_inspector",
                                            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")]}
    sides = []
    for start, directory in kinds:
        directory.mkdir()
        sites = [site(directory, name, made, **(inspector if name == "by-name" else {})) for name, made in (shared | lone).items()]
        sides.append(resumptions(start(bootstrap(sites)), pki, tuple(shared), tuple(lone)))
    ours, theirs = sides
    stricter = {case for case in ours[0] if set(case[2:4]) == NOT_SHARED}
    assert {ours[0].pop(case)[0] for case in stricter} == {None, False} and all(theirs[0].pop(case)[0] for case in stricter)
    assert ours[0] == theirs[0], differences(ours[0], theirs[0])
    for name in NOT_SHARED:
        del ours[1][name], theirs[1][name]
    assert ours[1] == theirs[1], differences(ours[1], theirs[1])


# --- what we refuse and Envoy does not ---

def test_names_and_certificates_that_envoy_does_not_ask_for(kinds, pki):
    """Names of hosts have no case (RFC 4343), and require_sni is honoured; Envoy compares bytes, and leaves require_sni out of account."""
    contexts = [("cased", context(pki, "rsa", "a-ec")), ("require-sni", context(pki, "a-ec", "wild", require_sni=True))]
    clients = [("-servername", "A.Test"), ("-servername", "a.test"), ("-servername", "nobody.test"), ("-noservername",)]
    shown = [{(name, " ".join(client)): seen[0].removeprefix("subject=O = Tests, CN = ") for name, saw in seen_by_all.items()
              for client, seen in ((c, saw[" ".join(c)]) for c in clients)}
             for seen_by_all in (outcomes(start, directory.with_name(directory.name + "-names"), contexts, clients)
                                 for start, directory in kinds)]
    nobody = "New, (NONE), Cipher is (NONE)"
    different = {case: (shown[0][case], shown[1][case]) for case in shown[0] if shown[0][case] != shown[1][case]}
    assert different == {("cased", "-servername A.Test"): ("a-ec", "rsa"), ("require-sni", "-servername nobody.test"): (nobody, "a-ec"),
                         ("require-sni", "-noservername"): (nobody, "a-ec")}


# --- clients that mean no good ---

HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(32)  # the beginning of a ClientHello, of which the rest does not come
GARBAGE = {
    "nothing": b"", "plaintext": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "proxy": b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n\r\n",
    "connect": b"CONNECT x:1 HTTP/1.1\r\n\r\n", "zeros": bytes(2000), "ones": b"\xff" * 2000, "sslv2": b"\x80\x2e\x01\x03\x01" + bytes(60),
    "long-record": b"\x16\x03\x01\xff\xff" + bytes(70000), "empty-records": b"\x16\x03\x01\x00\x00" * 100,
    "long-hello": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16380), "data-first": b"\x17\x03\x03\x00\x05hello",
    "alert-first": b"\x15\x03\x01\x00\x02\x02\x28", "warnings": b"\x15\x03\x01\x00\x02\x01\x5a" * 10, "ccs": b"\x14\x03\x03\x00\x01\x01",
    "finished": b"\x16\x03\x01\x00\x04\x14\x00\x00\x00", "part": HELLO, "version": b"\x16\x09\x09\x00\x05hello",
    "odd-hello": b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(32) + b"\x21" + bytes(8),
}


def shout(port, data, in_pieces):
    """All of it, or until the other side has had enough."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            for piece in [data[at:at + 1] for at in range(len(data))] if in_pieces else [data]:
                plain.sendall(piece)
            plain.shutdown(socket.SHUT_WR)
            while plain.recv(65536):
                pass


def hostile(start, directory, p):
    contexts = [(name, context(p, "ec", "rsa")) for name in GARBAGE] + [("renegotiation", context(p, "ec", **params(
        tls_maximum_protocol_version="TLSv1_2")))]
    sites = [site(directory, *each) for each in contexts]
    proxy = start(bootstrap(sites))
    ports = {name: at[1] for name, at in proxy.listeners().items()}
    seen = {}
    for name, data in GARBAGE.items():
        ways = (False, True) if len(data) < 700 else (False,)
        for in_pieces in ways:
            shout(ports[name], data, in_pieces)
        seen[name] = logged(directory / f"{name}.log", len(ways)), stats_of(proxy, name)
    s_client(ports["renegotiation"], ("-tls1_2",), "R\nQ\n")
    stats = stats_of(proxy, "renegotiation")
    assert stats.pop("ssl.connection_error") >= 1  # Envoy counts the attempt to say goodbye, too
    seen["renegotiation"] = logged(directory / "renegotiation.log", 1), stats
    return seen


def test_same_for_garbage(kinds, pki):
    sides = []
    for start, directory in kinds:
        directory = directory.with_name(directory.name + "-garbage")
        directory.mkdir()
        sides.append(hostile(start, directory, pki))
    assert sides[0] == sides[1], differences(*sides)


HALF_OPEN = 100  # of each kind


def flood(start, directory, p):
    proxy = start(bootstrap([site(directory, "flooded", context(p, "ec", "rsa"))]))
    port = proxy.listeners()["flooded"][1]
    first = ssl.MemoryBIO(), ssl.MemoryBIO()
    half = client(p, NEW, None).wrap_bio(*first, server_hostname="server.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        half.do_handshake()
    kinds = (b"", HELLO, first[1].read())
    with contextlib.ExitStack() as stack:
        for said in kinds * HALF_OPEN:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            plain.sendall(said)
        wait_until(lambda: proxy.stat("listener.flooded.downstream_cx_total") == HALF_OPEN * 3, "all connections", 20)
        told = visit(port, client(p, NEW, None))[2]
        wait_until(lambda: proxy.stat("listener.flooded.downstream_cx_active") == 0, "timeouts of all", 20)
    return told, collections.Counter(logged(directory / "flooded.log", HALF_OPEN * 3 + 1)), stats_of(proxy, "flooded")


def test_same_for_half_open_handshakes(kinds, pki):
    """Others are served meanwhile; transport_socket_connect_timeout ends each."""
    sides = []
    for start, directory in kinds:
        directory = directory.with_name(directory.name + "-flood")
        directory.mkdir()
        sides.append(flood(start, directory, pki))
    assert sides[0] == sides[1]


# --- configurations that are refused ---

def refused(p):
    bad = {"session_ticket_keys": {"keys": [{"inline_bytes": base64.b64encode(bytes(79)).decode()}]}}
    return {
        "staple-of-another": (context(p, "good", staple="revoked"), "OCSP response does not match its TLS certificate"),
        "staple-missing": (context(p, "missing", ocsp_staple_policy="MUST_STAPLE"), "Required OCSP response is missing from TLS context"),
        "must-staple-missing": (tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(p.pair("must-good"))]}),
                                "OCSP response is required for must-staple certificate"),
        "staple-garbage": (tls_socket("Downstream", common_tls_context={"tls_certificates": [
            {**tls_certificate(p.pair("good")), "ocsp_staple": {"inline_bytes": "AAAA"}}]}), "OCSP"),
        "staple-string": (tls_socket("Downstream", common_tls_context={"tls_certificates": [
            {**tls_certificate(p.pair("good")), "ocsp_staple": {"inline_string": "x"}}]}), "OCSP staple cannot be provided via inline_string"),
        "ticket-key-length": (context(p, "ec", **bad), "Incorrect TLS session ticket key length. Length 79, expected length 80."),
        "cipher": (context(p, "ec", **params(cipher_suites=["ECDHE-NONE", "AES128-SHA"])), "Failed to initialize cipher suites"),
        "curve": (context(p, "ec", **params(ecdh_curves=["P-999"])), "Failed to initialize ECDH curves P-999"),
        "sigalg": (context(p, "ec", **params(signature_algorithms=["none"])), "Failed to initialize TLS signature algorithms none"),
        "no-certificate": (tls_socket("Downstream", common_tls_context={}), "No TLS certificates found for server context"),
        "alpn-long": (context(p, "ec", common={"alpn_protocols": ["x" * 256]}), "Invalid ALPN protocol string"),
    }


@pytest.mark.parametrize("name", refused(type("Names", (), {"path": lambda *_: "", "pair": lambda *_: collections.namedtuple("P", "cert key")("", "")})()))
def test_same_refusals(shared_envoy, tmp_path, pki, name):
    made, text = refused(pki)[name]
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([site(tmp_path, "refused", made)])))
    said = [subprocess.run([kind.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
            for kind in (Sluice, Envoy)]
    assert all(each.returncode != 0 and text in each.stdout + each.stderr for each in said), [each.stderr[-800:] for each in said]
