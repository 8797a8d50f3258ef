"""scheme_header_transformation beside Envoy: the scheme of requests by what the upstream speaks."""

import pytest

from support.config import bootstrap, cluster, file_log, hcm, http2, listener, route, tls_socket, typed
from support.process import free_port
from support.rawhttp import fetch

RAW = typed("envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")
TLS = tls_socket("Upstream")


def wrapped(name, kind, inner, **fields):
    return typed(f"envoy.transport_sockets.{name}", f"envoy.extensions.transport_sockets.{kind}", transport_socket=inner, **fields)


SOCKETS = {
    "none": None, "raw": RAW, "tls": TLS,
    **{f"proxy-{n}": wrapped("upstream_proxy_protocol", "proxy_protocol.v3.ProxyProtocolUpstreamTransport", s, config={}) for n, s in (("raw", RAW), ("tls", TLS))},
    **{f"internal-{n}": wrapped("internal_upstream", "internal_upstream.v3.InternalUpstreamTransport", s) for n, s in (("raw", RAW), ("tls", TLS))},
}
RULES = {"no rule": {}, "match": {"match_upstream": True}, "no match": {"match_upstream": False}, "overwrite": {"scheme_to_overwrite": "https"},
         "both": {"scheme_to_overwrite": "https", "match_upstream": True}, "both plain": {"scheme_to_overwrite": "http", "match_upstream": True}}
LOG = "%REQ(:SCHEME)% %REQ(X-FORWARDED-PROTO)% %RESPONSE_FLAGS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%\n"


@pytest.fixture(scope="module")
def sides(shared_sluice, shared_envoy, tmp_path_factory):
    nobody = free_port()

    def start(kind):
        logs = tmp_path_factory.mktemp("logs")
        retry = {"retry_on": "connect-failure", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"}}
        routes = [route(f"/{n}", n, retry_policy=retry) for n in [*SOCKETS, "empty"]]
        listeners = [listener(hcm(routes, scheme_header_transformation=rule, access_log=[file_log(logs / name, LOG)]), name=name)
                     for name, rule in RULES.items()]
        clusters = [cluster(n, nobody, typed_extension_protocol_options=http2(), **({"transport_socket": s} if s else {}))
                    for n, s in SOCKETS.items()]
        return kind(bootstrap(listeners, [*clusters, cluster("empty")]), concurrency=1), logs
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("rule", RULES)
def test_schemes(sides, rule):
    requests = [(name, sent) for name in [*SOCKETS, "empty", "nowhere"] for sent in ([], [("x-forwarded-proto", "https")])]

    def outcome(side):
        proxy, logs = side
        answers = [fetch(proxy.port(rule), f"/{name}", headers=sent).status for name, sent in requests]
        return list(zip(requests, answers, proxy.log_lines(logs / rule, len(requests))))

    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy
