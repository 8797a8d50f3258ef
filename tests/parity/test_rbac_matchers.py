"""RBAC by matcher trees beside Envoy's: which action each tree finds for each request."""

import pytest

from test_rbac import ANY, CLIENTS, REQUESTS, Side, call, compare, rules, select, text, virtual_hosts
from support.config import TYPE, tls_certificate, tls_socket, typed

NETWORK = "envoy.extensions.matching.common_inputs.network.v3."
SSL = "envoy.extensions.matching.common_inputs.ssl.v3."


def action(name="p", what="ALLOW"):
    return {"name": "action", "typed_config": {"@type": TYPE + "envoy.config.rbac.v3.Action", "name": name, "action": what}}


def leads(name="p", what="ALLOW", **fields):
    return {"action": action(name, what), **fields}


def header(name="x-a"):
    return typed("header", "envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=name)


def net(name, **fields):
    return typed(name, NETWORK + name, **fields)


METADATA = net("DynamicMetadataInput", filter="ns", path=[{"key": "k"}])
CEL = typed("cel", "xds.type.matcher.v3.HttpAttributesCelMatchInput")


def value(**how):
    return {"value_match": how}


def custom(type_name, **fields):
    return {"custom_match": typed("custom", type_name, **fields)}


def ranges(*cidrs):
    return [{"address_prefix": a, "prefix_len": n} for a, n in cidrs]


def ip(*cidrs):
    return custom("envoy.extensions.matching.input_matchers.ip.v3.Ip", stat_prefix="ip", cidr_ranges=ranges(*cidrs))


def cel(expr, form="cel_expr_parsed"):
    return custom("xds.type.matcher.v3.CelMatcher", expr_match={form: {"expr": expr}})


def of_metadata(**fields):
    return custom("envoy.extensions.matching.input_matchers.metadata.v3.Metadata", **fields)


def one(source, how):
    return {"single_predicate": {"input": source, **how}}


def when(predicate, on_match=None):
    return {"predicate": predicate, "on_match": on_match or leads()}


def listed(*matchers, otherwise=None):
    return {"matcher_list": {"matchers": list(matchers)}, **({"on_no_match": otherwise} if otherwise else {})}


def tree(source, otherwise=None, **kind):
    return {"matcher_tree": {"input": source, **kind}, **({"on_no_match": otherwise} if otherwise else {})}


def by_range(source, *matchers, otherwise=None):
    return tree(source, otherwise, **custom("xds.type.matcher.v3.IPMatcher", range_matchers=list(matchers)))


def in_range(on_match, *cidrs, **fields):
    return {"ranges": ranges(*cidrs), "on_match": on_match, **fields}


def domains(on_match, *names):
    return {"domains": list(names), "on_match": on_match}


def by_domain(source, *matchers, otherwise=None):
    return tree(source, otherwise, **custom("xds.type.matcher.v3.ServerNameMatcher", domain_matchers=list(matchers)))


PRESENT = value(safe_regex={"google_re2": {}, "regex": "(?s).*"})
X_A_1 = one(header(), value(exact="1"))
PATH_A = one(header(":path"), value(prefix="/a"))
POST = one(header(":method"), value(exact="POST"))
IS_POST = call("_==_", select("request", "method"), text("POST"))
LEAVES = {
    "exact": one(header(), value(exact="1")),
    "exact-nocase": one(header(), value(exact="one", ignore_case=True)),
    "prefix": one(header(), value(prefix="1")),
    "suffix": one(header(":path"), value(suffix=".html")),
    "contains": one(header(":path"), value(contains="b/c")),
    "regex": one(header(), value(safe_regex={"google_re2": {}, "regex": "[0-9]+"})),
    "empty": one(header(), value(exact="")),
    "prefixed-path": one(header(":path"), PRESENT),
    "upper-name": one(header("X-A"), value(exact="1")),
    "joined": one(header(), value(exact="1,2")),
    "absent": one(header("x-none"), PRESENT),
    "source-ip": one(net("SourceIPInput"), value(exact="127.0.0.1")),
    "source-ip-xff": one(net("SourceIPInput"), value(exact="9.9.9.9")),
    "direct-ip": one(net("DirectSourceIPInput"), value(exact="127.0.0.1")),
    "source-port": one(net("SourcePortInput"), PRESENT),
    "source-port-0": one(net("SourcePortInput"), value(exact="0")),
    "destination-ip": one(net("DestinationIPInput"), value(prefix="127.")),
    "destination-port": one(net("DestinationPortInput"), value(safe_regex={"google_re2": {}, "regex": "[1-9][0-9]*"})),
    "server-name": one(net("ServerNameInput"), PRESENT),
    "namespace": one(net("NetworkNamespaceInput"), PRESENT),
    "filter-state": one(net("FilterStateInput", key="none"), PRESENT),
    "metadata-text": one(METADATA, value(exact="v")),
    "metadata-any-text": one(METADATA, PRESENT),
    "metadata": one(METADATA, of_metadata(value={"string_match": {"exact": "v"}})),
    "metadata-absent": one(METADATA, of_metadata(value={"present_match": False})),
    "metadata-present": one(METADATA, of_metadata(value={"present_match": True})),
    "metadata-invert": one(METADATA, of_metadata(value={"string_match": {"exact": "v"}}, invert=True)),
    "metadata-of-text": one(header(), of_metadata(value={"present_match": False})),
    "uri-san": one(typed("s", SSL + "UriSanInput"), PRESENT),
    "subject": one(typed("s", SSL + "SubjectInput"), PRESENT),
    "ip": one(net("SourceIPInput"), ip(("127.0.0.0", 8))),
    "ip-other": one(net("SourceIPInput"), ip(("10.0.0.0", 8), ("::", 0))),
    "ip-xff": one(net("SourceIPInput"), ip(("9.0.0.0", 8))),
    "ip-of-header": one(header("x-forwarded-for"), ip(("9.0.0.0", 8))),
    "ip-of-no-ip": one(header(), ip(("0.0.0.0", 0))),
    "ip-of-metadata": one(METADATA, ip(("0.0.0.0", 0))),
    "cel": one(CEL, cel(IS_POST)),
    "cel-not-bool": one(CEL, cel(select("request", "path"))),
    "cel-absent": one(CEL, cel(select("request", "referer"))),
    "cel-header": one(CEL, cel(call("_==_", call("_[_]", select("request", "headers"), text("x-a")), text("1")))),
    "hash": one(header(), custom("envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
                                 threshold=50, modulo=100)),
    "hash-seed": one(header(":path"), custom("envoy.extensions.matching.input_matchers.consistent_hashing.v3.ConsistentHashing",
                                             threshold=3, modulo=7, seed=11)),
    "fraction": one(header(":path"), custom("envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction",
                                            runtime_fraction={"default_value": {"numerator": 50}}, seed=7)),
    "fraction-no-input": one(header("x-none"), custom(
        "envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction",
        runtime_fraction={"default_value": {"numerator": 100}})),
    "and": {"and_matcher": {"predicate": [X_A_1, PATH_A]}},
    "or": {"or_matcher": {"predicate": [X_A_1, POST]}},
    "not": {"not_matcher": X_A_1},
    "not-absent": {"not_matcher": one(header("x-none"), PRESENT)},
    "unknown-or-yes": {"or_matcher": {"predicate": [one(typed("s", SSL + "UriSanInput"), PRESENT), X_A_1]}},
    "yes-or-unknown": {"or_matcher": {"predicate": [X_A_1, one(typed("s", SSL + "DnsSanInput"), PRESENT)]}},
    "unknown-and-yes": {"and_matcher": {"predicate": [one(typed("s", SSL + "SubjectInput"), PRESENT), X_A_1]}},
    "yes-and-unknown": {"and_matcher": {"predicate": [X_A_1, one(typed("s", SSL + "SubjectInput"), PRESENT)]}},
    "deep": {"and_matcher": {"predicate": [{"not_matcher": {"or_matcher": {"predicate": [X_A_1, POST]}}},
                                           {"or_matcher": {"predicate": [PATH_A, {"not_matcher": PATH_A}]}}]}},
}
KEYS = {"map": {"/a": leads("short"), "/a/b": leads("long"), "/none": leads("none", "DENY")}}
NOTHING = {"matcher": listed(when(one(header("x-none"), value(exact="x"))))}
TREES = {
    "first-of-two": listed(when(PATH_A, leads("first", "DENY")), when(X_A_1, leads("second"))),
    "second": listed(when(POST, leads("first")), when(X_A_1, leads("second"))),
    "no-match": listed(when(POST), otherwise=leads("else", "DENY")),
    "no-match-allow": listed(when(POST, leads("post", "DENY")), otherwise=leads("else")),
    "nothing": {},
    "only-else": {"on_no_match": leads("else")},
    "log": listed(when(PATH_A, leads("a", "LOG")), when(POST, leads("post"))),
    "log-deny": listed(when(PATH_A, leads("a", "DENY")), otherwise=leads("else", "LOG")),
    "log-no-match": listed(when(POST, leads("a", "LOG"))),
    "unknown-else": listed(when(one(typed("s", SSL + "UriSanInput"), PRESENT)), when(PATH_A), otherwise=leads("else")),
    "unknown-inside": listed(when(PATH_A, {"matcher": listed(when(one(typed("s", SSL + "UriSanInput"), PRESENT)))}),
                             when(X_A_1, leads("one")), otherwise=leads("else")),
    "unknown-map": tree(typed("s", SSL + "DnsSanInput"), leads("else"), exact_match_map={"map": {"a": leads("a")}}),
    "nested": listed(when(PATH_A, {"matcher": listed(when(X_A_1, leads("inner")))}), when(POST, leads("post")),
                     otherwise=leads("else", "DENY")),
    "nested-else": listed(when(PATH_A, {"matcher": listed(when(X_A_1, leads("inner")), otherwise=leads("inner-else", "DENY"))}),
                          otherwise=leads("else")),
    "exact": tree(header(":path"), exact_match_map=KEYS),
    "exact-else": tree(header(":path"), leads("else"), exact_match_map=KEYS),
    "exact-absent": tree(header("x-a"), leads("else"), exact_match_map={"map": {"1": leads("one", "DENY")}}),
    "exact-nested": tree(header(":method"), leads("else"), exact_match_map={"map": {
        "GET": {"matcher": tree(header(), exact_match_map={"map": {"1": leads("one")}})}}}),
    "prefix": tree(header(":path"), prefix_match_map=KEYS),
    "prefix-else": tree(header(":path"), leads("else", "DENY"), prefix_match_map=KEYS),
    "prefix-nested": tree(header(":path"), leads("else"), prefix_match_map={"map": {
        "/a": leads("short", "DENY"), "/a/b": NOTHING, "/a/b/c": leads("longest")}}),
    "prefix-empty": tree(header(":path"), prefix_match_map={"map": {"": leads("any"), "/a/": leads("a", "DENY")}}),
    "exact-ip": tree(net("SourceIPInput"), exact_match_map={"map": {"127.0.0.1": leads("local"), "9.9.9.9": leads("far", "DENY")}}),
    "exact-metadata": tree(METADATA, leads("else"), exact_match_map={"map": {"v": leads("v", "DENY")}}),
    "range": by_range(net("SourceIPInput"), in_range(leads("wide"), ("127.0.0.0", 8), ("9.0.0.0", 8)),
                      in_range(leads("narrow", "DENY"), ("9.9.0.0", 16))),
    "range-else": by_range(net("SourceIPInput"), in_range(leads("far", "DENY"), ("9.0.0.0", 8)), otherwise=leads("else")),
    "range-same": by_range(net("SourceIPInput"), in_range(leads("first"), ("127.0.0.0", 8)),
                           in_range(leads("second", "DENY"), ("127.0.0.0", 8))),
    "range-back": by_range(net("SourceIPInput"), in_range(NOTHING, ("127.0.0.0", 8)), in_range(leads("any"), ("0.0.0.0", 0))),
    "range-exclusive": by_range(net("SourceIPInput"), in_range(NOTHING, ("127.0.0.0", 8)),
                                in_range(leads("any"), ("0.0.0.0", 0), exclusive=True), otherwise=leads("else", "DENY")),
    "range-header": by_range(header("x-forwarded-for"), in_range(leads("far"), ("9.0.0.0", 8)), otherwise=leads("else", "DENY")),
    "range-v6": by_range(net("DestinationIPInput"), in_range(leads("six"), ("::", 0)), otherwise=leads("four")),
    "domain": by_domain(header("x-host"), domains(leads("exact"), "a.test"), domains(leads("wild", "DENY"), "*.a.test"),
                        domains(leads("wider"), "*.test")),
    "domain-any": by_domain(header("x-host"), domains(leads("any"), "*"), domains(leads("deep", "DENY"), "*.b.a.test")),
    "domain-back": by_domain(header("x-host"), domains(NOTHING, "b.a.test", "*.a.test"), domains(leads("wider"), "*.test"),
                             otherwise=leads("else", "DENY")),
}
HOSTS = ["a.test", "b.a.test", "c.b.a.test", "test", "A.TEST", "b.a.test.", ".a.test", "x"]
MORE = REQUESTS + [("/", [("x-host", host)], "GET") for host in HOSTS]


def configurations():
    for name, predicate in LEAVES.items():
        yield f"leaf-{name}", {"matcher": listed(when(predicate))}
        yield f"not-{name}", {"matcher": listed(when({"not_matcher": predicate}, leads("not")))}
    for name, matcher in TREES.items():
        yield f"tree-{name}", {"matcher": matcher}
    yield "shadow", {"shadow_matcher": TREES["log"], "shadow_rules_stat_prefix": "sh_"}
    yield "both", {"matcher": TREES["nested"], "shadow_matcher": TREES["first-of-two"]}
    yield "matcher-before-rules", {"matcher": TREES["second"],
                                   **rules("ALLOW", q={"permissions": [ANY], "principals": [ANY]})}


@pytest.fixture(scope="module")
def plain(shared_envoy, shared_sluice, tmp_path_factory):
    vhosts = virtual_hosts(dict(configurations()))
    return [Side(start, tmp_path_factory.mktemp("rbac"), vhosts, use_remote_address=False)
            for start in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("name", dict(configurations()))
def test_verdicts(plain, name):
    compare(plain, [(name, request) for request in MORE])


PEERS = {
    "uri": {"matcher": listed(when(one(typed("s", SSL + "UriSanInput"), value(exact="spiffe://td/ns/a/sa/b"))))},
    "uri-list": {"matcher": listed(when(one(typed("s", SSL + "UriSanInput"), value(contains=","))))},
    "dns": {"matcher": listed(when(one(typed("s", SSL + "DnsSanInput"), value(exact="client.test,other.test"))))},
    "dns-tree": {"matcher": tree(typed("s", SSL + "DnsSanInput"), prefix_match_map={"map": {"client": leads("client")}})},
    "subject": {"matcher": listed(when(one(typed("s", SSL + "SubjectInput"), value(suffix="O=Tests"))))},
    "server": {"matcher": by_domain(net("ServerNameInput"), domains(leads("server"), "*.test"))},
}
MTLS = {
    "any": {"any_validated_client_certificate": True},
    "uri": {"san_matcher": {"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}}},
    "dns": {"san_matcher": {"san_type": "DNS", "matcher": {"exact": "client.test"}}},
    "dns-case": {"san_matcher": {"san_type": "DNS", "matcher": {"exact": "CLIENT.test"}}},
    "dns-wildcard": {"san_matcher": {"san_type": "DNS", "matcher": {"exact": "a.wild.test"}}},
    "dns-prefix": {"san_matcher": {"san_type": "DNS", "matcher": {"prefix": "*.wild"}}},
    "ip": {"san_matcher": {"san_type": "IP_ADDRESS", "matcher": {"exact": "127.0.0.1"}}},
    "both": {"san_matcher": {"san_type": "URI", "matcher": {"exact": "spiffe://td/ns/a/sa/b"}},
             "any_validated_client_certificate": True},
}


def mtls(**fields):
    return {"custom": typed("envoy.rbac.principals.mtls_authenticated",
                            "envoy.extensions.rbac.principals.mtls_authenticated.v3.Config", **fields)}


def upstream(**fields):
    return {"matcher": typed("envoy.rbac.matchers.upstream_ip_port",
                             "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher", **fields)}


@pytest.fixture(scope="module")
def secure(shared_envoy, shared_sluice, tmp_path_factory, authority):
    configs = dict(PEERS)
    for name, fields in MTLS.items():
        configs[f"mtls-{name}"] = rules("ALLOW", p={"permissions": [ANY], "principals": [mtls(**fields)]})
        configs[f"not-mtls-{name}"] = rules("ALLOW", p={"permissions": [ANY], "principals": [{"not_id": mtls(**fields)}]})
    for name, permission in {"upstream": upstream(upstream_ip={"address_prefix": "0.0.0.0", "prefix_len": 0}),
                             "not-upstream": {"not_rule": upstream(upstream_port_range={"start": 1, "end": 65535})}}.items():
        configs[name] = rules("ALLOW", p={"permissions": [permission], "principals": [ANY]})
    socket = tls_socket("Downstream", common_tls_context={
        "tls_certificates": [tls_certificate(authority.leaf("server.test"))],
        "validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}})
    vhosts = virtual_hosts(configs)
    return list(configs), [Side(start, tmp_path_factory.mktemp("rbac"), vhosts, socket) for start in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("client", [*CLIENTS, "wildcard"])
def test_peers(secure, authority, client):
    names, sides = secure
    alternatives = {**CLIENTS, "wildcard": ["DNS:*.wild.test"]}[client]
    pair = authority.leaf(client, *alternatives) if alternatives else None
    verdicts = compare(sides, [(name, ("/", [], "GET")) for name in names],
                       tls=authority.client_context(pair), server_name="server.test")
    assert {status for status, _ in verdicts} == {200, 403}
