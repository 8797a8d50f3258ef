"""What is added to a gateway beside routes: filters fetched by name (ECDS) and patched in by EnvoyFilter, PROXY protocol, trusted
hops, Telemetry's access logs and metrics."""

import json
import re
import urllib.request

import pytest

from apps import App, Keeper, Traffic, get, told
from mesh import Workload
from resources import entry, gateway, resource, server, to, virtual_service

from support.process import can_connect, free_port, wait_until
from support.rawhttp import Client, encode

HOST = "shop.example.com"
CASES = ("filters", "proxied", "hops", "told")
JSON_LOG, TEXT_LOG = "json-log", "text-log"
HCM = {"name": "envoy.filters.network.http_connection_manager"}
TYPE = "type.googleapis.com/"
MUTATION = f"{TYPE}envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
LIMIT = f"{TYPE}envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
V2_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


@pytest.fixture(scope="module")
def app():
    made = App("app")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def ports():
    return {name: free_port() for name in CASES}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    return {name: folder / name for name in (JSON_LOG, TEXT_LOG)}


def providers(logs):
    return {"extensionProviders": [
        {"name": JSON_LOG, "envoyFileAccessLog": {"path": str(logs[JSON_LOG]), "logFormat": {"labels": {
            "code": "%RESPONSE_CODE%", "path": "%REQ(:PATH)%", "nested": {"upstream": "%UPSTREAM_CLUSTER%"}, "who": "%REQ(X-USER)%"}}}},
        {"name": TEXT_LOG, "envoyFileAccessLog": {"path": str(logs[TEXT_LOG]), "logFormat": {
            "text": "%RESPONSE_CODE% %REQ(:PATH)% %RESPONSE_FLAGS%\n"}}}]}


@pytest.fixture(scope="module")
def start(istio, app, ports, logs):
    """start(case, **Workload's fields) -> the case's gateway, serving."""
    istio.istiod.set_mesh(providers(logs))
    istio.apply([entry("app", app.port), *(gateway(c, server(ports[c], "HTTP"), selector={"case": c}) for c in CASES),
                 virtual_service("app", [HOST], CASES, http=[{"route": to("app")}])])
    made = {}

    def starter(case, **fields):
        if case not in made:
            made[case] = istio.proxy(Workload(f"gate-{case}", account="gate", labels={"case": case}, **fields))
            wait_until(lambda: can_connect(ports[case]), lambda: str(made[case].listeners()), 20)
        return made[case]
    return starter


def envoy_filter(name, case, *patches):
    return resource("EnvoyFilter", name, {"workloadSelector": {"labels": {"case": case}}, "configPatches": list(patches)},
                    "istio-system", "networking.istio.io/v1alpha3")


def http_filter(name, **config):
    return {"applyTo": "HTTP_FILTER", "match": {"context": "GATEWAY", "listener": {"filterChain": {"filter": {
        **HCM, "subFilter": {"name": "envoy.filters.http.router"}}}}},
        "patch": {"operation": "INSERT_BEFORE", "value": {"name": name, **config}}}


# ---- EnvoyFilter, ECDS ----

def discovered(value, **source):
    """A filter of which the listener knows the name only, and what it is."""
    rule = {"append": {"append_action": "OVERWRITE_IF_EXISTS_OR_ADD", "header": {"key": "x-mutated", "value": value}}}
    return envoy_filter("by-name", "filters", http_filter("mutate-by-name", config_discovery={
        "config_source": {"ads": {}, "initial_fetch_timeout": "0s", **source}, "type_urls": [MUTATION]}), {
            "applyTo": "EXTENSION_CONFIG", "match": {"context": "GATEWAY"}, "patch": {"operation": "ADD", "value": {
                "name": "mutate-by-name", "typed_config": {"@type": MUTATION, "mutations": {"request_mutations": [rule]}}}}})


def test_filter_by_name_changes_under_load(istio, start, ports):
    plane, port = start("filters"), ports["filters"]
    keeper = Keeper(port, HOST)

    def value():
        return told(get(port, HOST))["headers"].get("x-mutated")
    with Traffic(keeper.server):
        istio.apply([discovered("one")])
        wait_until(lambda: value() == "one", "the filter", 20)
        changes = plane.stat("listener_manager.listener_modified")
        for text in ("two", "three"):
            istio.apply([discovered(text)])
            wait_until(lambda want=text: value() == want, text, 20)
        assert changes is not None and plane.stat("listener_manager.listener_modified") == changes
        dump = [c for c in plane.admin("/config_dump").json["configs"] if c["@type"].endswith("EcdsConfigDump")]
        assert [f["ecds_filter"]["name"] for f in dump[0]["ecds_filters"]] == ["mutate-by-name"]
        istio.kube.remove_all([discovered("")])
        wait_until(lambda: value() is None, "the filter to go", 20)
    keeper.close()


def test_bad_filter_by_name_keeps_the_last_good(istio, start, ports):
    plane, port = start("filters"), ports["filters"]
    istio.apply([discovered("good")])
    wait_until(lambda: told(get(port, HOST))["headers"].get("x-mutated") == "good", "the filter", 20)
    before = sum(plane.stats(r"extension_config_discovery.*(config_fail|update_rejected)").values())
    istio.istiod.forgive("ADS:ECDS: ")
    bad = discovered("bad\n")
    istio.apply([bad])
    wait_until(lambda: sum(plane.stats(r"extension_config_discovery.*(config_fail|update_rejected)").values()) > before or
               istio.istiod.log().count("ADS:ECDS: ACK ERROR"), "the refusal", 20)
    assert told(get(port, HOST))["headers"]["x-mutated"] == "good"
    istio.apply([discovered("again")])
    wait_until(lambda: told(get(port, HOST))["headers"].get("x-mutated") == "again", "the repaired filter", 20)
    istio.kube.remove_all([bad])
    wait_until(lambda: "x-mutated" not in told(get(port, HOST))["headers"], "the filter to go", 20)


def test_local_rate_limit(istio, start, ports):
    plane, port = start("filters"), ports["filters"]
    full = {"default_value": {"numerator": 100}}
    limit = http_filter("envoy.filters.http.local_ratelimit", typed_config={
        "@type": LIMIT, "stat_prefix": "gate", "token_bucket": {"max_tokens": 5, "tokens_per_fill": 5, "fill_interval": "3600s"},
        "filter_enabled": {"runtime_key": "gate.enabled", **full}, "filter_enforced": {"runtime_key": "gate.enforced", **full},
        "response_headers_to_add": [{"append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                                     "header": {"key": "x-limited", "value": "yes"}}]})
    with istio.applied([envoy_filter("limit", "filters", limit)]):
        answer = wait_until(lambda: next((a for a in [get(port, HOST)] if a.status == 429), None), "the limit", 20)
        assert answer.get("x-limited") == "yes" and answer.body == b"local_rate_limited"
        wait_until(lambda: plane.stat("gate.http_local_rate_limit.ok") in (5, None), "five passed")
    wait_until(lambda: get(port, HOST).status == 200, "the limit to go", 20)


# ---- topology ----

def proxy_line(source):
    return f"PROXY TCP4 {source} 10.0.0.1 1111 80\r\n".encode()


def proxy_v2(source):
    octets = bytes(int(o) for o in source.split("."))
    return V2_SIGNATURE + b"\x21\x11\x00\x0c" + octets + b"\x0a\x00\x00\x01" + b"\x04\x57\x00\x50"


@pytest.mark.parametrize("head", [proxy_line, proxy_v2])
def test_proxy_protocol(start, ports, head):
    start("proxied", proxy_config={"gatewayTopology": {"proxyProtocol": {}}})
    with Client(ports["proxied"]) as client:
        client.send(head("203.0.113.7") + encode("GET", "/", host=HOST))
        got = told(client.read())
    assert got["headers"]["x-forwarded-for"] == "203.0.113.7"
    assert got["headers"]["x-envoy-external-address"] == "203.0.113.7"


@pytest.mark.parametrize("head", [b"", b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200 + b"\r\n", V2_SIGNATURE + b"\x31\x11\x00\x0c"])
def test_proxy_protocol_is_needed(start, app, ports, head):
    start("proxied", proxy_config={"gatewayTopology": {"proxyProtocol": {}}})
    before = len(app.requests)
    with Client(ports["proxied"], timeout=5) as client:
        assert client.send(head + encode("GET", "/", host=HOST)).until_close() == b""
    assert len(app.requests) == before


@pytest.mark.parametrize("given, client", [
    (None, "127.0.0.1"), ("198.51.100.1", "198.51.100.1"), ("192.0.2.66, 198.51.100.1, 203.0.113.9", "198.51.100.1"),
    ("evil, 198.51.100.1, 203.0.113.9", "198.51.100.1")])
def test_trusted_hops(istio, start, ports, given, client):
    """The second address from the right is the client: AuthorizationPolicy's remoteIpBlocks go by it."""
    start("hops", proxy_config={"gatewayTopology": {"numTrustedProxies": 2, "forwardClientCertDetails": "APPEND_FORWARD"}})
    rule = resource("AuthorizationPolicy", "hops", {"selector": {"matchLabels": {"case": "hops"}}, "action": "DENY", "rules": [
        {"from": [{"source": {"remoteIpBlocks": ["198.51.100.0/24"]}}], "to": [{"operation": {"paths": ["/guarded"]}}]}]},
        "istio-system", "security.istio.io/v1")
    istio.apply([rule])
    headers = [("x-forwarded-for", given)] if given else []
    wait_until(lambda: get(ports["hops"], HOST, "/guarded", headers=[("x-forwarded-for", "198.51.100.1, 203.0.113.9")]).status == 403,
               "the policy", 20)
    got = told(get(ports["hops"], HOST, headers=headers))["headers"]
    address = got["x-forwarded-for"].split(",")
    assert [a.strip() for a in address[:-1]] == [a.strip() for a in (given or "").split(",") if a]
    if given and given.count(",") >= 1:
        assert got["x-envoy-external-address"] == client
        assert get(ports["hops"], HOST, "/guarded", headers=headers).status == 403


# ---- Telemetry ----

def telemetry(name, **spec):
    return resource("Telemetry", name, {"selector": {"matchLabels": {"case": "told"}}, **spec}, "istio-system", "telemetry.istio.io/v1")


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_access_logs(istio, start, ports, logs):
    plane, port = start("told"), ports["told"]
    with istio.applied([telemetry("logs", accessLogging=[
            {"providers": [{"name": JSON_LOG}]}, {"providers": [{"name": TEXT_LOG}], "filter": {"expression": "response.code >= 400"}}])]):
        wait_until(lambda: get(port, HOST, "/seen", headers=[("x-user", "ann")]).status == 200 and lines(logs[JSON_LOG]), "a line", 20)
        assert get(port, "nobody.example.com", "/missing").status == 404
        wait_until(lambda: lines(logs[TEXT_LOG]) == ["404 /missing NR"], lambda: lines(logs[TEXT_LOG]), 20)
        wait_until(lambda: any('"/missing"' in line for line in lines(logs[JSON_LOG])), "the last line", 20)
        parsed = [json.loads(line) for line in lines(logs[JSON_LOG])]
    seen = next(p for p in parsed if p["path"] == "/seen")
    assert seen == {"code": 200, "path": "/seen", "nested": {"upstream": seen["nested"]["upstream"]}, "who": "ann"}
    assert seen["nested"]["upstream"].startswith("outbound|80||app.default.svc.cluster.local")
    assert next(p for p in parsed if p["path"] == "/missing")["who"] is None
    wait_until(lambda: no_new_line(port, logs), "the logs to go", 20)
    assert plane.stat("listener_manager.lds.update_rejected") == 0


def no_new_line(port, logs):
    """Whether a request goes unlogged; the file is written within a second."""
    count = len(lines(logs[JSON_LOG]))
    assert get(port, HOST, "/quiet").status == 200
    try:
        wait_until(lambda: len(lines(logs[JSON_LOG])) > count, "", 1.5)
    except AssertionError:
        return True
    return False


def samples(plane, metric, mode):
    port = plane.ports["prometheus"] if mode == "agent" else plane.ports["admin"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats/prometheus", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{metric}{{(.*)}} ([0-9.]+)$", text, re.M)
    return [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)) for labels, value in found]


def test_metrics(istio, start, ports, mode):
    """A label more, a label less, and a metric that is off."""
    plane, port = start("told"), ports["told"]
    overrides = [{"match": {"metric": "REQUEST_COUNT"}, "tagOverrides": {
        "method_seen": {"value": "request.method"}, "source_app": {"operation": "REMOVE"}}},
        {"match": {"metric": "REQUEST_SIZE"}, "disabled": True}]
    with istio.applied([telemetry("metrics", metrics=[{"providers": [{"name": "prometheus"}], "overrides": overrides}])]):
        def counted():
            assert get(port, HOST, "/x").status == 200
            return [lv for lv in samples(plane, "istio_requests_total", mode) if "method_seen" in lv[0]]
        labels, value = wait_until(counted, "the label", 20)[0]
        assert value >= 1 and labels["method_seen"] == "GET" and "source_app" not in labels
        assert (labels["reporter"], labels["response_code"], labels["destination_service"]) == (
            "source", "200", "app.default.svc.cluster.local")
