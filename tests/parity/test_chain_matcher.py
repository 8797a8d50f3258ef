"""A listener's filter_chain_matcher beside Envoy's: which chain each connection gets."""

import pytest

from support.config import TYPE, bootstrap, chain, direct, hcm, listener, tls_certificate, tls_socket, typed
from support.rawhttp import fetch
from test_rbac_matchers import by_domain, by_range, domains, in_range, ip, listed, net, one, tree, value, when


def to(name):
    return {"action": {"name": "chain", "typed_config": {"@type": TYPE + "google.protobuf.StringValue", "value": name}}}


LOCAL, RAW = one(net("SourceTypeInput"), value(exact="local")), one(net("TransportProtocolInput"), value(exact="raw_buffer"))
CASES = {
    "local": listed(when(LOCAL, to("a"))),
    "not-local": listed(when({"not_matcher": LOCAL}, to("a"))),
    "raw": listed(when(RAW, to("a"))),
    "tls": tree(net("TransportProtocolInput"), exact_match_map={"map": {"tls": to("a"), "raw_buffer": to("b")}}),
    "source-ip": by_range(net("SourceIPInput"), in_range(to("a"), ("127.0.0.0", 8)), in_range(to("b"), ("0.0.0.0", 0))),
    "direct-ip": listed(when(one(net("DirectSourceIPInput"), ip(("127.0.0.0", 8))), to("b"))),
    "destination": tree(net("DestinationIPInput"), exact_match_map={"map": {"127.0.0.1": to("b")}}),
    "source-port": listed(when(one(net("SourcePortInput"), value(safe_regex={"google_re2": {}, "regex": "[0-9]+"})), to("a"))),
    "server-name": by_domain(net("ServerNameInput"), domains(to("a"), "a.test"), domains(to("b"), "*.test"), otherwise=to("c")),
    "server-name-exact": tree(net("ServerNameInput"), exact_match_map={"map": {"a.test": to("a"), "b.test": to("b")}}),
    "protocols": listed(when(one(net("ApplicationProtocolInput"), value(exact="'h2','http/1.1'")), to("a")),
                        when(one(net("ApplicationProtocolInput"), value(contains="'http/1.1'")), to("b"))),
    "uri-san": listed(when(one(typed("s", "envoy.extensions.matching.common_inputs.ssl.v3.UriSanInput"), value(contains="x")), to("a")),
                      when(RAW, to("b")), otherwise=to("c")),
    "filter-state": listed(when(one(net("FilterStateInput", key="k"), value(exact="x")), to("a")), otherwise=to("b")),
    "nothing": {},
    "no-such-chain": listed(when(LOCAL, to("nope"))),
    "the-default-by-name": listed(when(LOCAL, to("d"))),
    "nested-nothing": listed(when(LOCAL, {"matcher": {}}), when(LOCAL, to("b"))),
}
INSPECTORS = [typed("envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"),
              typed("envoy.filters.listener.http_inspector", "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector")]
CLIENTS = [(None, None), ("a.test", None), ("b.test", ["http/1.1"]), ("x.b.test", ["h2", "http/1.1"])]


def chains(socket, names):
    """A chain of each name that tells it."""
    extra = {"transport_socket": socket} if socket else {}
    # a match of a chain's own is not looked at
    return [chain(hcm([direct("/", 200, name)]), name=name, filter_chain_match={"destination_port": 1}, **extra) for name in names]


@pytest.fixture(scope="module", params=["plain", "tls"])
def sides(request, shared_envoy, shared_sluice, authority):
    socket = None
    if request.param == "tls":
        socket = tls_socket("Downstream", common_tls_context={"tls_certificates": [tls_certificate(authority.leaf("a.test"))]})
    listeners = [listener(name=f"{name}-{has_default}", chains=chains(socket, "abc"), listener_filters=INSPECTORS,
                          filter_chain_matcher=matcher,
                          **({"default_filter_chain": chains(socket, "d")[0]} if has_default else {}))
                 for name, matcher in CASES.items() for has_default in (True, False)]
    return socket, [start(bootstrap(listeners)) for start in (shared_envoy, shared_sluice)]


def answer(proxy, port, **client):
    try:
        return fetch(port, **client).body
    except (EOFError, ConnectionError, OSError):
        return None


@pytest.mark.parametrize("name", CASES)
def test_chains(sides, authority, name):
    socket, proxies = sides
    for has_default in (True, False):
        for server_name, alpn in CLIENTS if socket else CLIENTS[:1]:
            client = {}
            if socket:
                context = authority.client_context(None)
                context.check_hostname = False
                if alpn:
                    context.set_alpn_protocols(alpn)
                client = {"tls": context, "server_name": server_name}
            seen = [answer(p, p.listeners()[f"{name}-{has_default}"][1], **client) for p in proxies]
            assert seen[0] == seen[1], f"{server_name} {alpn} default {has_default}: envoy {seen[0]}, sluice {seen[1]}"
