"""envoy.filters.http.header_mutation beside Envoy's: the same headers, trailers and query on both sides."""

import pytest

from support.config import TYPE, bootstrap, cluster, hcm, listener, route, typed, vhost
from support.rawhttp import fetch
from support.upstream import Reply, ScriptedUpstream

NAME, MESSAGE = "envoy.filters.http.header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
VOLATILE = {"date", "x-request-id", "x-envoy-upstream-service-time", "host"}


def append(key, value, action="APPEND_IF_EXISTS_OR_ADD"):
    return {"append": {"header": {"key": key, "value": value}, "append_action": action}}


def query(key, value, action="APPEND_IF_EXISTS_OR_ADD"):
    return {"append": {"record": {"key": key, "value": value}, "action": action}}


ACTIONS = ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]
CONFIGS = {
    **{f"request-{a}": {"request_mutations": [append("x-a", "n", a), append("x-none", "n", a)]} for a in ACTIONS},
    **{f"response-{a}": {"response_mutations": [append("x-r", "n", a), append("x-none", "n", a)]} for a in ACTIONS},
    **{f"query-{a}": {"query_parameter_mutations": [query("b", "n", a), query("none", "n", a)]} for a in ACTIONS},
    "remove": {"request_mutations": [{"remove": "x-a"}, append("x-a", "again")], "response_mutations": [{"remove": "x-r"}]},
    "match": {"request_mutations": [{"remove_on_match": {"key_matcher": {"prefix": "x-"}}}]},
    "query-remove": {"query_parameter_mutations": [{"remove": "b"}, {"remove": "none"}]},
    "query-both": {"query_parameter_mutations": [query("z", "1"), {"remove": "a"}, query("a", "2")]},
    "format": {"request_mutations": [append("x-m", "%REQ(:METHOD)%-%PROTOCOL%")]},
}


def level(name, wrap=True):
    mutations = {"request_mutations": [append("x-order", name, "OVERWRITE_IF_EXISTS_OR_ADD"), append("x-all", name)],
                 "response_mutations": [append("x-all", name)]}
    return {NAME: {"@type": f"{TYPE}{MESSAGE}PerRoute", "mutations": mutations}} if wrap else mutations


class Side:
    def __init__(self, start):
        self.upstream = ScriptedUpstream()
        self.upstream.script(Reply(headers=[("x-r", "1"), ("x-r", "2")]))
        vhosts = [vhost([{**route("/levels"), "typed_per_filter_config": level("route")}, route("/")], domains=["levels"],
                        typed_per_filter_config=level("host")), vhost([route("/")], name="rest")]
        configs = {**{n: {"mutations": c} for n, c in CONFIGS.items()}, "levels": {"mutations": level("own", False)},
                   "wins": {"mutations": level("own", False), "most_specific_header_mutations_wins": True}}
        self.proxy = start(bootstrap(
            [listener(hcm(vhosts=vhosts, filters=[typed(NAME, MESSAGE, **config)],
                          route_fields={"typed_per_filter_config": level("table")} if name in ("levels", "wins") else None),
                      name=name) for name, config in configs.items()], [cluster("up", self.upstream.port)]))
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}

    def outcome(self, name, path, headers, host):
        self.upstream.requests.clear()
        reply = fetch(self.ports[name], path, "GET", headers, host=host)
        seen = self.upstream.requests[0]

        def kept(pairs):
            return sorted((n.lower(), v) for n, v in pairs if n.lower() not in VOLATILE)
        return reply.status, kept(reply.headers), seen.target, kept(seen.headers)


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice):
    both = [Side(shared_envoy), Side(shared_sluice)]
    yield both
    for side in both:
        side.upstream.stop()


@pytest.mark.parametrize("name", [*CONFIGS, "levels", "wins"])
def test_mutations(sides, name):
    for path in ("/", "/levels?b=1&a=0&b=2&z", "/x?"):
        for headers in ([], [("x-a", "1"), ("X-A", "2"), ("x-b", "3")]):
            envoy, sluice = (side.outcome(name, path, headers, "levels") for side in sides)
            assert sluice == envoy
