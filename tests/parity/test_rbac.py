"""Access control beside Envoy's: for each policy and each request the same verdict, details and metadata."""

import pytest

from support.config import TYPE, bootstrap, direct, hcm, listener, tls_certificate, tls_socket, typed, vhost
from support.rawhttp import fetch

RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
VERDICT = "%RESPONSE_CODE_DETAILS%|%DYNAMIC_METADATA(envoy.filters.http.rbac)%|%DYNAMIC_METADATA(envoy.common)%"
ANY = {"any": True}


def exact(text, **fields):
    return {"exact": text, **fields}


def header(name, **how):
    return {"header": {"name": name, **how}}


def path(**how):
    return {"url_path": {"path": how}}


def cidr(address, bits):
    return {"address_prefix": address, "prefix_len": bits}


def regex(text):
    return {"safe_regex": {"regex": text}}


def template(text):
    return {"uri_template": typed("uri-template", "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig",
                                  path_template=text)}


def metadata(namespace, keys, value, **fields):
    return {"filter": namespace, "path": [{"key": k} for k in keys], "value": value, **fields}


def select(of, *names):
    expr = {"ident_expr": {"name": of}}
    for name in names:
        expr = {"select_expr": {"operand": expr, "field": name}}
    return expr


def call(function, *args, **fields):
    return {"call_expr": {"function": function, "args": list(args), **fields}}


def text(value):
    return {"const_expr": {"string_value": value}}


# Each is a permission; with the principal {any: true} and the action ALLOW.
PERMISSIONS = {
    "any": ANY,
    "path-exact": path(exact="/a"),
    "path-exact-nocase": path(exact="/a", ignore_case=True),
    "path-prefix": path(prefix="/a/"),
    "path-suffix": path(suffix=".html"),
    "path-contains": path(contains="b/c"),
    "path-regex": path(**regex("/a(/b)?")),
    "template-one": template("/a/*/c"),
    "template-any": template("/a/**"),
    "template-named": template("/{x}/b/{y}"),
    "method": header(":method", string_match=exact("POST")),
    "authority": header(":authority", string_match={"suffix": ".test"}),
    "path-header": header(":path", string_match=exact("/a?x=1")),
    "header-exact": header("x-a", string_match=exact("1")),
    "header-nocase": header("x-a", string_match=exact("one", ignore_case=True)),
    "header-prefix": header("x-a", string_match={"prefix": "1"}),
    "header-regex": header("x-a", string_match=regex("[0-9]+")),
    "header-present": header("x-a", present_match=True),
    "header-absent": header("x-a", present_match=False),
    "header-inverted": header("x-a", string_match=exact("1"), invert_match=True),
    "header-missing-empty": header("x-a", string_match=exact(""), treat_missing_header_as_empty=True),
    "header-range": header("x-a", range_match={"start": 1, "end": 10}),
    "not-path": {"not_rule": path(exact="/a")},
    "not-header": {"not_rule": header("x-a", string_match=exact("1"))},
    "and": {"and_rules": {"rules": [path(prefix="/a"), header("x-a", present_match=True)]}},
    "or": {"or_rules": {"rules": [path(exact="/none"), header("x-a", string_match=exact("1"))]}},
    "deep": {"and_rules": {"rules": [{"or_rules": {"rules": [path(exact="/a"), path(prefix="/a/")]}},
                                     {"not_rule": {"or_rules": {"rules": [header("x-a", string_match=exact("2")),
                                                                          header(":method", string_match=exact("POST"))]}}}]}},
    "ip": {"destination_ip": cidr("127.0.0.0", 8)},
    "ip-other": {"destination_ip": cidr("10.0.0.0", 8)},
    "ip-v6": {"destination_ip": cidr("::", 0)},
    "port-range": {"destination_port_range": {"start": 1, "end": 65536}},
    "port-low": {"destination_port_range": {"start": 1, "end": 1024}},
    "port": {"destination_port": 1},
    "sni": {"requested_server_name": exact("")},
    "sni-other": {"requested_server_name": exact("a.test")},
    "metadata": {"metadata": metadata("ns", ["k"], {"string_match": exact("v")})},
    "metadata-inverted": {"metadata": metadata("ns", ["k"], {"string_match": exact("v")}, invert=True)},
    "metadata-present": {"metadata": metadata("ns", ["k"], {"present_match": True})},
    "route-metadata": {"sourced_metadata": {"metadata_matcher": metadata("ns", ["k"], {"string_match": exact("v")}),
                                            "metadata_source": "ROUTE"}},
    "dynamic-metadata": {"sourced_metadata": {"metadata_matcher": metadata("ns", ["k"], {"string_match": exact("v")})}},
}
PRINCIPALS = {
    "authenticated": {"authenticated": {}},
    "authenticated-name": {"authenticated": {"principal_name": exact("")}},
    "not-authenticated": {"not_id": {"authenticated": {}}},
    "source-ip": {"source_ip": cidr("127.0.0.1", 32)},
    "direct-ip": {"direct_remote_ip": cidr("127.0.0.0", 8)},
    "remote-ip": {"remote_ip": cidr("127.0.0.0", 8)},
    "remote-xff": {"remote_ip": cidr("9.9.9.9", 32)},
    "direct-xff": {"direct_remote_ip": cidr("9.9.9.9", 32)},
    "source-xff": {"source_ip": cidr("9.9.9.9", 32)},
    "header": header("x-a", string_match=exact("1")),
    "path": path(prefix="/a"),
    "and": {"and_ids": {"ids": [ANY, header("x-a", present_match=True)]}},
    "or": {"or_ids": {"ids": [path(exact="/none"), header("x-a", present_match=True)]}},
    "not": {"not_id": header("x-a", present_match=True)},
    "metadata": {"metadata": metadata("ns", ["k"], {"present_match": True})},
    "metadata-absent": {"metadata": metadata("ns", ["k"], {"present_match": False})},
    "metadata-not-present": {"metadata": metadata("ns", ["k"], {"present_match": True}, invert=True)},
    "route-metadata": {"sourced_metadata": {"metadata_matcher": metadata("ns", ["k"], {"present_match": True}),
                                            "metadata_source": "ROUTE"}},
    "route-metadata-absent": {"sourced_metadata": {"metadata_matcher": metadata("ns", ["x"], {"present_match": False}),
                                                   "metadata_source": "ROUTE"}},
    "route-metadata-there": {"sourced_metadata": {"metadata_matcher": metadata("ns", ["k"], {"present_match": False}),
                                                  "metadata_source": "ROUTE"}},
    "filter-state": {"filter_state": {"key": "none", "string_match": exact("")}},
}
CONDITIONS = {
    "method": call("_==_", select("request", "method"), text("POST")),
    "header": call("_==_", call("_[_]", select("request", "headers"), text("x-a")), text("1")),
    "starts": call("startsWith", text("/a"), target=select("request", "url_path")),
    "absent": call("_==_", select("request", "referer"), text("")),
    "no-bool": select("request", "path"),
    "mtls": select("connection", "mtls"),
    "not-mtls": call("!_", select("connection", "mtls")),
    "port": call("_>_", select("destination", "port"), {"const_expr": {"int64_value": 0}}),
    "query": call("_==_", select("request", "query"), text("x=1")),
}
REQUESTS = [
    ("/a", [], "GET"),
    ("/A", [], "GET"),
    ("/a?x=1", [], "GET"),
    ("/a#frag", [], "GET"),
    ("/a/", [], "GET"),
    ("/a/b", [("x-a", "1")], "GET"),
    ("/a/b/c", [("x-a", "One")], "POST"),
    ("/a/b/c/d.html", [("x-a", "12")], "GET"),
    ("/x/b/y", [("x-a", "2")], "GET"),
    ("/%61", [("x-a", "")], "GET"),
    ("/a//b", [("x-a", "1"), ("x-a", "2")], "GET"),
    ("/a;p=1", [("x-a", "5")], "GET"),
    ("/a/../b", [("x-a", "\xe9")], "GET"),
    ("/none", [("x-forwarded-for", "9.9.9.9"), ("X-A", "1")], "DELETE"),
]


def policy(permission=ANY, principal=ANY, **fields):
    return {"permissions": [permission], "principals": [principal], **fields}


def rules(action, **policies):
    return {"rules": {"action": action, "policies": policies}}


def configurations():
    for name, permission in PERMISSIONS.items():
        yield f"permission-{name}", rules("ALLOW", p=policy(permission))
        yield f"deny-{name}", rules("DENY", p=policy(permission))
    for name, principal in PRINCIPALS.items():
        yield f"principal-{name}", rules("ALLOW", p=policy(principal=principal))
    for name, condition in CONDITIONS.items():
        yield f"condition-{name}", rules("ALLOW", p=policy(condition=condition))
    several = {"a b": policy(path(exact="/a")), "c": policy(header("x-a", present_match=True)), "b": policy(path(prefix="/a"))}
    yield "several", rules("ALLOW", **several)
    yield "several-deny", rules("DENY", **several)
    yield "log", rules("LOG", **several)
    yield "no-policies", rules("ALLOW")
    yield "no-policies-deny", rules("DENY")
    yield "no-rules", {}
    yield "shadow", {"shadow_rules": rules("ALLOW", **several)["rules"], "shadow_rules_stat_prefix": "sh_"}
    yield "shadow-log", {"shadow_rules": rules("LOG", **several)["rules"]}
    yield "both", {**rules("DENY", **several), "shadow_rules": rules("DENY", p=policy())["rules"], "rules_stat_prefix": "en"}


def rbac(config):
    return {"envoy.filters.http.rbac": {"@type": f"{TYPE}{RBAC}PerRoute", "rbac": config}}


def virtual_hosts(configs):
    answer = {**direct("/", 200), "match": {"prefix": "/"},
              "metadata": {"filter_metadata": {"ns": {"k": "v"}}}}
    return [vhost([answer], name, [name, f"{name}:*"], typed_per_filter_config=rbac(config))
            for name, config in configs.items()]


class Side:
    def __init__(self, start, directory, vhosts, tls=None, **manager):
        self.log = directory / "access.log"
        access_log = [typed("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                            path=str(self.log), log_format={"text_format_source": {"inline_string": VERDICT + "\n"}})]
        main = hcm(vhosts=vhosts, filters=[typed("envoy.filters.http.rbac", RBAC)], access_log=access_log, **manager)
        only = listener(main)
        if tls:
            only["filter_chains"][0]["transport_socket"] = tls
            only["listener_filters"] = [typed("envoy.filters.listener.tls_inspector",
                                              "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")]
        self.proxy = start(bootstrap([only]))

    def verdicts(self, requests, **client):
        """Statuses, then the access log of them all."""
        seen = len(self.proxy.log_lines(self.log, 0))
        statuses = [fetch(self.proxy.port(), target, method, headers, host=host, **client).status
                    for host, (target, headers, method) in requests]
        return list(zip(statuses, self.proxy.log_lines(self.log, seen + len(requests))[seen:]))


def compare(sides, requests, **client):
    """Returns the verdicts, once both sides agree on all of them."""
    envoy, sluice = (side.verdicts(requests, **client) for side in sides)
    differing = [f"{request}: envoy {a}, sluice {b}" for request, a, b in zip(requests, envoy, sluice) if a != b]
    assert not differing, "\n".join(differing)
    return envoy


@pytest.fixture(scope="module")
def plain(shared_envoy, shared_sluice, tmp_path_factory):
    vhosts = virtual_hosts(dict(configurations()))
    return [Side(start, tmp_path_factory.mktemp("rbac"), vhosts, use_remote_address=False)
            for start in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("name", dict(configurations()))
def test_verdicts(plain, name):
    compare(plain, [(name, request) for request in REQUESTS])


def test_normalised_paths(shared_envoy, shared_sluice, tmp_path_factory):
    """Policies see the path as routes do."""
    vhosts = virtual_hosts({k: v for k, v in configurations() if k.startswith(("permission-path", "permission-template"))})
    sides = [Side(start, tmp_path_factory.mktemp("rbac"), vhosts, normalize_path=True, merge_slashes=True,
                  path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD") for start in (shared_envoy, shared_sluice)]
    targets = ["/a", "//a", "/x/../a", "/%61", "/a%2fb", "/a%5cb", "/a/./b", "/a/b/../../a", "/%2e%2e/a", "/a;x", "/a%00", "/A/../a"]
    compare(sides, [(v["name"], (target, [], "GET")) for v in vhosts for target in targets])


TLS_PRINCIPALS = {
    "any": {"authenticated": {}},
    "uri": {"authenticated": {"principal_name": exact("spiffe://td/ns/a/sa/b")}},
    "uri-prefix": {"authenticated": {"principal_name": {"prefix": "spiffe://td/"}}},
    "uri-suffix": {"authenticated": {"principal_name": {"suffix": "/sa/b"}}},
    "uri-regex": {"authenticated": {"principal_name": regex("spiffe://.*/ns/a/.*")}},
    "dns": {"authenticated": {"principal_name": exact("client.test")}},
    "subject": {"authenticated": {"principal_name": exact("CN=subject,O=Tests")}},
    "not": {"not_id": {"authenticated": {"principal_name": {"prefix": "spiffe://"}}}},
    "sni": header(":authority", present_match=True),
}
CLIENTS = {
    "none": None,
    "uri": ["URI:spiffe://td/ns/a/sa/b"],
    "two": ["URI:spiffe://other/x", "URI:spiffe://td/ns/a/sa/b"],
    "both": ["URI:spiffe://other/x", "DNS:client.test"],
    "dns": ["DNS:client.test", "DNS:other.test"],
    "subject": ["IP:127.0.0.1"],
}


@pytest.fixture(scope="module")
def secure(shared_envoy, shared_sluice, tmp_path_factory, authority):
    configs = {name: rules("ALLOW", p=policy(principal=p)) for name, p in TLS_PRINCIPALS.items()}
    configs["sni-permission"] = rules("ALLOW", p=policy({"requested_server_name": exact("server.test")}))
    configs["uri-san-condition"] = rules("ALLOW", p=policy(condition=call(
        "startsWith", text("spiffe://td/"), target=select("connection", "uri_san_peer_certificate"))))
    configs["mtls-condition"] = rules("ALLOW", p=policy(condition=select("connection", "mtls")))
    server = authority.leaf("server.test")
    socket = tls_socket("Downstream", common_tls_context={
        "tls_certificates": [tls_certificate(server)],
        "validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}})
    vhosts = virtual_hosts(configs)
    return list(configs), [Side(start, tmp_path_factory.mktemp("rbac"), vhosts, socket)
                           for start in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("client", CLIENTS)
def test_peers(secure, authority, client):
    names, sides = secure
    pair = authority.leaf(client, *CLIENTS[client]) if CLIENTS[client] else None
    verdicts = compare(sides, [(name, ("/", [], "GET")) for name in names],
                       tls=authority.client_context(pair), server_name="server.test")
    assert {status for status, _ in verdicts} == {200, 403}
