"""The dynamic forward proxy beside Envoy's: which hosts are found, and what is told where none is: statuses, bodies, flags, details,
hosts of the cluster, stats."""

import re
import time

import pytest

from support.config import TYPE, bootstrap, file_log, hcm, listener, route, typed
from support.dns_server import SERVER_FAILURE, DnsServer
from support.rawhttp import fetch
from support.upstream import ScriptedUpstream

MESSAGES = "envoy.extensions.{}.dynamic_forward_proxy.v3.{}"
FILTER = "envoy.filters.http.dynamic_forward_proxy"
LOG = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST%\n"
# P is the upstream's port; names with capitals are asked for as they are. Not here: IPv4-mapped addresses, which are IPv4 ones for
# Sluice and IPv6 ones for Envoy.
HOSTS = ["a.test:P", "a.test:P", "b.test:P", "none.test:P", "none.test:P", "fail.test:P", "empty.test:P", "127.0.0.1:P", "[127.0.0.1]:P",
         "[::1]:P", "[::1]", "::1", ":", ":P", "a.test:0", "a.test:0P", "a.test:+P", "a.test:65536", "a.test:x",
         "a.test:", "A.TEST:P", "a.test.:P", "x" * 300, "y" * 60 + ".test:P", "..", ".", "[a.test]:P", "[a.test]", "[::1", "]:P", "[]",
         "user@a.test:P", "a.test", "1.2.3:80", "localhost:P", "sub.localhost:P", "a_b.test:P", "P", "0:P", "127.1:P", "0x7f.1:P",
         "*.test:P", "a,b:P"]
# The words of c-ares for what a server answers, which are its version's.
WORDS = {"DNS_server_returned_general_failure": "Could_not_contact_DNS_servers"}
BREAKER = {"dns_cache_circuit_breaker": {"max_pending_requests": 0}}
CACHES = {"v4": {"dns_lookup_family": "V4_ONLY"}, "auto": {"dns_lookup_family": "AUTO"}, "full": {"max_hosts": 1}, "closed": BREAKER,
          "denied": {"resolved_address_filter": {"ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 31}]}}}
PER_ROUTE = {"@type": f"{TYPE}{MESSAGES.format('filters.http', 'PerRouteConfig')}"}


@pytest.fixture(scope="module")
def upstream():
    server = ScriptedUpstream()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def dns():
    names = {"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"], "two.test": ["127.0.0.1", "127.0.0.2"], "empty.test": [],
             "fail.test": SERVER_FAILURE}
    with DnsServer(names=names, ttl_s=600) as server:
        yield server


def config(dns, directory):
    """A listener with the filter and one without for each cache, and one cluster."""
    listeners, clusters = [], []
    for name, fields in CACHES.items():
        settings = {"name": name, "typed_dns_resolver_config": dns.resolver(), **fields}
        clusters.append({"name": name, "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED", "cluster_type": typed(
            "envoy.clusters.dynamic_forward_proxy", MESSAGES.format("clusters", "ClusterConfig"), dns_cache_config=settings)})
        own = typed(FILTER, MESSAGES.format("filters.http", "FilterConfig"), dns_cache_config=settings)
        routes = [{**route("/literal", name), "typed_per_filter_config": {FILTER: {**PER_ROUTE, "host_rewrite_literal": "none.test"}}},
                  {**route("/header", name), "typed_per_filter_config": {FILTER: {**PER_ROUTE, "host_rewrite_header": "X-To"}}},
                  route("/", name)]
        for kind, filters in (("filter", [own]), ("cluster", [])):
            where = f"{name}-{kind}"
            listeners.append(listener(hcm(routes, filters=filters, stat_prefix=where, access_log=[file_log(directory / where, LOG)]),
                                      name=where))
    return bootstrap(listeners, clusters)


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, dns, tmp_path_factory):
    made = []
    for start in (shared_envoy, shared_sluice):
        directory = tmp_path_factory.mktemp("logs")
        made.append((start(config(dns, directory)), directory))
    return made


def outcome(side, where, number, host, port, path="/", headers=()):
    proxy, directory = side
    reply = fetch(proxy.port(where), path, host=host.replace("P", str(port)), headers=list(headers))
    line = proxy.log_lines(directory / where, number)[-1]
    for theirs, ours in WORDS.items():
        line = line.replace(theirs, ours)
    return reply.status, reply.body, line


def compare(sides, where, port, requests):
    before = [len(d.joinpath(where).read_text().splitlines()) if d.joinpath(where).exists() else 0 for _, d in sides]
    differing = []
    for i, request in enumerate(requests, 1):
        envoy, sluice = (outcome(side, where, n + i, request[0], port, *request[1:]) for side, n in zip(sides, before))
        if envoy != sluice:
            differing.append(f"{request}:\n  envoy  {envoy}\n  sluice {sluice}")
    assert not differing, "\n".join(differing)


@pytest.mark.smoke
@pytest.mark.parametrize("where", [f"{c}-{k}" for c in ("v4", "auto") for k in ("filter", "cluster")])
def test_hosts(sides, upstream, where):
    compare(sides, where, upstream.port, [(host,) for host in HOSTS])


@pytest.mark.parametrize("kind", ["filter", "cluster"])
@pytest.mark.parametrize("name", ["full", "closed", "denied"])
def test_limits(sides, upstream, name, kind):
    hosts = ["a.test:P", "b.test:P", "a.test:P", "none.test:P", "two.test:P"]
    compare(sides, f"{name}-{kind}", upstream.port, [(h,) for h in hosts])


def test_rewritten(sides, upstream):
    to = [("x-to", f"b.test:{upstream.port}")]
    compare(sides, "v4-filter", upstream.port, [
        ("a.test:P", "/literal"), ("a.test:P", "/header"), ("none.test:P", "/header", to), ("a.test:P", "/header", [("x-to", "none.test")]),
        ("none.test", "/header", [*to, ("x-to", "none.test")])])


def told(side, port):
    """The caches' stats and each cluster's hosts, once they are the same for a while."""
    def now():
        hosts = re.findall(r"^(\w+::\S+?::hostname::\S+)$", side[0].admin("/clusters").text, re.M)
        return side[0].stats("^dns_cache"), sorted(h.replace(str(port), "P") for h in hosts)
    seen, deadline = now(), time.monotonic() + 5
    while (again := now()) != seen and time.monotonic() < deadline:
        seen = again
    return seen


def test_what_is_told(sides, upstream):
    """After all of the above."""
    envoy, sluice = (told(side, upstream.port) for side in sides)
    assert sluice[1] == envoy[1]
    assert {k: (v, sluice[0].get(k)) for k, v in envoy[0].items() if sluice[0].get(k) != v} == {}
    assert envoy[0].keys() == sluice[0].keys()
