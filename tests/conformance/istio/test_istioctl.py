"""istioctl reads our dumps: what it lists, as text, JSON and YAML, is what istiod configured."""

import json
import re

import pytest
import yaml

from apps import App, get, told, trusting
from kube_api import secret
from resources import destination, destination_rule, endpoint, entry, gateway, resource, server, virtual_service

from support.process import can_connect, free_port, wait_until

HOST = "shop.example.com"
CLUSTERS = {f"outbound|80|{subset}|app.default.svc.cluster.local" for subset in ("", "v1", "v2")}
MUTATION = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"


@pytest.fixture(scope="module")
def app():
    made = App("app")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ports():
    return {"http": free_port(), "https": free_port()}


def discovered_filter():
    hcm = {"name": "envoy.filters.network.http_connection_manager", "subFilter": {"name": "envoy.filters.http.router"}}
    named = {"name": "by-name", "config_discovery": {"config_source": {"ads": {}}, "type_urls": [MUTATION]}}
    return resource("EnvoyFilter", "by-name", {"workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configPatches": [
        {"applyTo": "HTTP_FILTER", "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": hcm}}},
         "patch": {"operation": "INSERT_BEFORE", "value": named}},
        {"applyTo": "EXTENSION_CONFIG", "match": {"context": "GATEWAY"}, "patch": {"operation": "ADD", "value": {
            "name": "by-name", "typed_config": {"@type": MUTATION}}}}]}, "istio-system", "networking.istio.io/v1alpha3")


@pytest.fixture(scope="module")
def plane(istio, identities, app, ports):
    pair = identities.site(HOST)
    istio.apply([
        secret("cred", {"tls.crt": pair.cert, "tls.key": pair.key}),
        entry("app", 0, endpoints=[endpoint(app.port, labels={"version": v}) for v in ("v1", "v2")]),
        destination_rule("app", "app.default.svc.cluster.local", subsets=[
            {"name": v, "labels": {"version": v}} for v in ("v1", "v2")],
            trafficPolicy={"outlierDetection": {"consecutive5xxErrors": 5}}),
        gateway("web", server(ports["http"], "HTTP"), server(ports["https"], "HTTPS", HOST, mode="SIMPLE", credentialName="cred")),
        virtual_service("web", [HOST], ["web"], http=[
            {"match": [{"uri": {"prefix": "/two"}}], "route": [destination("app", subset="v2")]},
            {"route": [destination("app", subset="v1", weight=90), destination("app", subset="v2", weight=10)]}]),
        discovered_filter()])
    made = istio.proxy()
    wait_until(lambda: all(can_connect(p) for p in ports.values()), lambda: str(made.listeners()), 30)
    assert told(get(ports["http"], HOST))["server"] == "app"
    assert told(get(ports["https"], HOST, tls=trusting(identities.public), server_name=HOST))["server"] == "app"
    return made


@pytest.fixture(scope="module")
def ctl(plane):
    """ctl(words…) -> istioctl proxy-config of the dump; `clusters` reads /clusters for endpoints."""
    dump = plane.directory / "config_dump.json"
    dump.write_bytes(plane.admin("/config_dump?include_eds").body)
    clusters = plane.directory / "clusters.json"
    clusters.write_bytes(plane.admin("/clusters?format=json").body)
    return lambda *words: plane.istioctl("proxy-config", *map(str, words), "-f", clusters if words[0] == "endpoints" else dump)


HEADINGS = ("ADDRESSES", "PORT", "MATCH", "DESTINATION RULE", "DESTINATION", "NAME", "ECDS NAME", "VHOST NAME", "DOMAINS", "VIRTUAL SERVICE",
            "SERVICE FQDN", "SUBSET", "DIRECTION", "TYPE", "ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER", "RESOURCE NAME",
            "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE", "TRUST DOMAIN", "LOCALITY", "WEIGHT")


def table(text):
    """Rows of a table, as {heading: cell}; cells are where their headings begin."""
    head, *rows = [line for line in text.splitlines() if line.strip()]
    words = "|".join(sorted(HEADINGS, key=len, reverse=True))
    starts = [(m.start(), m[0]) for m in re.finditer(rf"(?<!\S)(?:{words})(?!\S)", head)]
    ends = [start for start, _ in starts[1:]] + [None]
    return [{name: row[start:end].strip() for (start, name), end in zip(starts, ends)} for row in rows]


def items(ctl, kind):
    """What -o json lists; -o yaml has to hold the same."""
    found = json.loads(ctl(kind, "-o", "json"))
    assert yaml.safe_load(ctl(kind, "-o", "yaml")) == found
    return found


def test_listeners(plane, ctl, ports):
    rows = table(ctl("listeners"))
    assert {int(r["PORT"]) for r in rows} >= set(ports.values())
    https = [r for r in rows if r["PORT"] == str(ports["https"])]
    assert [(r["ADDRESSES"], r["MATCH"]) for r in https] == [("0.0.0.0", f"SNI: {HOST}")]
    assert [r["DESTINATION"] for r in rows if r["PORT"] == str(ports["http"])] == [f"Route: http.{ports['http']}"]
    assert {i["name"] for i in items(ctl, "listeners")} == set(plane.listeners())


def test_listener_by_port(ctl, ports):
    found = json.loads(ctl("listeners", "--port", ports["https"], "-o", "json"))
    assert [i["name"] for i in found] == [f"0.0.0.0_{ports['https']}"]
    names = [s["name"] for s in values_of(found, "tlsCertificateSdsSecretConfigs")]
    assert names == ["kubernetes://cred"]


def values_of(node, key):
    """Every item of every list called `key` in a tree."""
    if isinstance(node, dict):
        for k, v in node.items():
            yield from (v if k == key else values_of(v, key))
    elif isinstance(node, list):
        for v in node:
            yield from values_of(v, key)


def test_routes(ctl, ports):
    rows = [r for r in table(ctl("routes")) if r["NAME"] == f"http.{ports['http']}"]
    assert {(r["DOMAINS"], r["MATCH"], r["VIRTUAL SERVICE"]) for r in rows} == {
        (HOST, "/two*", "web.default"), (HOST, "/*", "web.default")}
    found = next(i for i in items(ctl, "routes") if i.get("name") == f"http.{ports['http']}")
    routes = next(v for v in found["virtualHosts"] if HOST in v["domains"])["routes"]
    split = routes[1]["route"]["weightedClusters"]["clusters"]
    assert [(c["name"].split("|")[2], c["weight"]) for c in split] == [("v1", 90), ("v2", 10)]


def test_clusters(plane, ctl):
    rows = table(ctl("clusters"))
    assert {(r["PORT"], r["SUBSET"], r["DIRECTION"], r["TYPE"], r["DESTINATION RULE"]) for r in rows
            if r["SERVICE FQDN"] == "app.default.svc.cluster.local"} == {
        ("80", subset, "outbound", "EDS", "app.default") for subset in ("-", "v1", "v2")}
    live = {c["name"] for c in plane.admin("/clusters?format=json").json["cluster_statuses"]}
    names = {i["name"] for i in items(ctl, "clusters")}
    assert CLUSTERS <= names and live == names


def test_endpoints(ctl, app):
    rows = [r for r in table(ctl("endpoints")) if r["CLUSTER"] in CLUSTERS]
    assert {r["CLUSTER"] for r in rows} == CLUSTERS
    assert {(r["ENDPOINT"], r["STATUS"], r["OUTLIER CHECK"]) for r in rows} == {(f"127.0.0.1:{app.port}", "HEALTHY", "OK")}
    found = [i for i in items(ctl, "endpoints") if i["name"] in CLUSTERS]
    assert {i["name"] for i in found} == CLUSTERS
    for i in found:
        assert i["addedViaApi"] is True and i["hostStatuses"][0]["address"]["socketAddress"]["portValue"] == app.port


def test_endpoints_of_the_dump(ctl, app):
    rows = [r for r in table(ctl("eds")) if r["CLUSTER"] in CLUSTERS]
    assert {r["CLUSTER"] for r in rows} == CLUSTERS
    assert {r["NAME"] for r in rows} == {f"127.0.0.1:{app.port}"}


def test_secrets(plane, ctl, identities):
    rows = {r["RESOURCE NAME"]: r for r in table(ctl("secret"))}
    assert {n: (r["TYPE"], r["STATUS"], r["VALID CERT"]) for n, r in rows.items() if n == "kubernetes://cred"} == {
        "kubernetes://cred": ("Cert Chain", "ACTIVE", "true")}
    shown = json.loads(ctl("secret", "-o", "json"))["dynamicActiveSecrets"]
    mine = next(s for s in shown if s["name"] == "kubernetes://cred")
    assert "PRIVATE KEY" not in json.dumps(shown)
    key = mine["secret"]["tlsCertificate"]["privateKey"]
    assert key == {"inlineBytes": "W3JlZGFjdGVkXQ=="}   # [redacted]


def test_discovered_filters(ctl):
    assert [(r["ECDS NAME"], r["TYPE"]) for r in table(ctl("ecds"))] == [("by-name", MUTATION.partition("/")[2])]


def test_bootstrap_and_all(plane, ctl):
    assert json.loads(ctl("bootstrap", "-o", "json"))["bootstrap"]["node"]["id"] == plane.workload.node_id
    text = ctl("all")
    assert all(word in text for word in (HOST, "kubernetes://cred", "app.default.svc.cluster.local"))
    kinds = [c["@type"].rpartition(".")[2] for c in json.loads(ctl("all", "-o", "json"))["configs"]]
    assert kinds[0] == "BootstrapConfigDump" and {"ClustersConfigDump", "ListenersConfigDump", "RoutesConfigDump"} <= set(kinds)


def test_masks(plane):
    """The parts istioctl asks a pod for."""
    for kind, mask, word in (("clusters", "dynamic_active_clusters,dynamic_warming_clusters,static_clusters", "app.default"),
                             ("listeners", "dynamic_listeners,static_listeners", "SNI: " + HOST),
                             ("routes", "dynamic_route_configs,static_route_configs", "/two*"),
                             ("secret", "dynamic_active_secrets,dynamic_warming_secrets", "kubernetes://cred")):
        file = plane.directory / f"{kind}.mask.json"
        file.write_bytes(plane.admin(f"/config_dump?mask={mask}").body)
        assert word in plane.istioctl("proxy-config", kind, "-f", file)
