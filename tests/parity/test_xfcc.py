"""x-forwarded-client-cert beside Envoy's: each mode and each detail, for clients with and without a certificate that send none, one or
several of their own, forged or broken ones among them."""

import ssl

import pytest

from support.config import bootstrap, chain, direct, hcm, listener, tls_certificate, tls_socket
from support.pki import CA, Pki
from support.rawhttp import Client

MODES = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")
DETAILS = {
    "hash-only": {},
    "subject": {"subject": True},
    "no-subject": {"subject": False},
    "cert": {"cert": True},
    "chain": {"chain": True},
    "dns": {"dns": True},
    "uri": {"uri": True},
    "istio": {"subject": True, "dns": True, "uri": True},
    "issuer": {"issuer": True},
    "all": {"subject": True, "issuer": True, "cert": True, "chain": True, "dns": True, "uri": True},
}
SOCKETS = ("mutual", "optional", "untrusted", "unverified", "plain")
CLIENTS = ("none", "good", "many", "odd-subject", "no-san", "stranger", "empty-subject", "odd-uri")
SENT = {
    "nothing": [],
    "one": ["By=spiffe://td.test/other;Hash=00;URI=spiffe://td.test/admin"],
    "two-lines": ["Hash=01", "Hash=02;Subject=\"CN=x,O=y\""],
    "list": ["Hash=01,Hash=02"],
    "empty": [""],
    "broken": ["By=\"unfinished;Hash=;;;,,"],
    "bytes": ["\xff\xfe="],
    "long": ["Hash=" + "0" * 3000],
}


def make_pki(directory):
    p = Pki(directory)
    p.issue("root", extensions=CA)
    p.issue("other-root", extensions=CA)
    p.intermediate("inter", "root")
    p.issue("server", "root", "URI:spiffe://td.test/server,URI:spiffe://td.test/second,DNS:server.test")
    good = "URI:spiffe://td.test/ns/a/sa/client,DNS:client.test"
    p.issue("good", "root", good)
    p.issue("many", "inter", "URI:spiffe://td.test/a,URI:spiffe://td.test/b,DNS:a.test,DNS:b.test,IP:10.0.0.1,email:a@b.test")
    p.issue("odd-subject", "root", good, subject=r'/O=A "quoted\, one\\"; B/CN=é=,;')
    p.issue("no-san", "root")
    p.issue("stranger", "other-root", good)
    p.issue("empty-subject", "root", good, subject="/")
    p.issue("odd-uri", "root", "URI:spiffe://td.test/a;b=c\"d\"%20,DNS:x;y")
    return p


def sockets(p):
    common = {"tls_certificates": [tls_certificate(p.pair("server"))]}
    root = {"trusted_ca": {"filename": str(p.path("root.own"))}}

    def made(validation, require):
        return {"transport_socket": tls_socket("Downstream", require_client_certificate=require, common_tls_context={
            **common, **({"validation_context": validation} if validation else {})})}
    return {"mutual": made(root, True), "optional": made(root, False), "unverified": made({}, False), "plain": {},
            "untrusted": made({**root, "trust_chain_verification": "ACCEPT_UNTRUSTED"}, False)}


def listeners(p):
    show = [{"header": {"key": "x-xfcc", "value": "[%REQ(x-forwarded-client-cert)%]"}}]
    for socket, fields in sockets(p).items():
        for mode in MODES:
            for name, details in DETAILS.items():
                manager = hcm([direct("/", 200)], route_fields={"response_headers_to_add": show}, forward_client_cert_details=mode,
                              set_current_client_cert_details=details)
                yield listener(chains=[chain(manager, **fields)], name=f"{socket}/{mode}/{name}", stat_prefix="x")


def context_of(p, name):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if name != "none":
        context.load_cert_chain(p.pair(name).cert, p.pair(name).key)
    return context


def told(client):
    """What the next filter is shown, for each of SENT."""
    for name, values in SENT.items():
        answer = client.request("GET", "/", [("x-forwarded-client-cert", v) for v in values])
        yield name, (answer.status, answer.all("x-xfcc"))


def outcome(start, p):
    proxy = start(bootstrap(list(listeners(p))))
    where = {name: address[1] for name, address in proxy.listeners().items()}
    contexts = {name: context_of(p, name) for name in CLIENTS}
    seen = {}
    for name, port in where.items():
        for who, context in contexts.items() if not name.startswith("plain") else [("none", None)]:
            try:
                with Client(port, tls=context) as client:
                    seen.setdefault(name, {}).update({(who, sent): what for sent, what in told(client)})
            except (OSError, EOFError):
                seen.setdefault(name, {})[who] = "refused"
    return seen


@pytest.fixture(scope="module")
def both(shared_sluice, shared_envoy, tmp_path_factory):
    p = make_pki(tmp_path_factory.mktemp("xfcc") / "pki")
    return outcome(shared_sluice, p), outcome(shared_envoy, p)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("socket", SOCKETS)
def test_same_header(both, socket, mode):
    ours, theirs = both
    names = [f"{socket}/{mode}/{details}" for details in DETAILS]
    assert sum(len(theirs[n]) for n in names) >= len(DETAILS) * len(SENT)
    different = {(n, *who): (ours[n].get(who), theirs[n].get(who)) for n in names for who in {**ours[n], **theirs[n]}
                 if ours[n].get(who) != theirs[n].get(who)}
    assert not different, "\n".join(f"{who}:\n  {ours}\n  {theirs}" for who, (ours, theirs) in list(different.items())[:300000])
