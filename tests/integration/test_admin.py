"""The admin listener: pages, formats, verbs and what they change."""

import re

import pytest

from support.config import bootstrap, cluster, direct, endpoint, hcm, http_options, listener, route, tcp_proxy
from support.process import can_connect, wait_until
from support.proxy import Sluice
from support.rawhttp import Client, fetch

RUNTIME = {"layers": [{"name": "static", "static_layer": {"a": {"b": 5}, "text": "x"}}, {"name": "admin", "admin_layer": {}}]}


def configuration(port):
    listeners = [listener(hcm([direct("/direct", 200, "hi"), route("/")])), listener(tcp_proxy(), name="tcp")]
    clusters = [cluster("up", endpoint(port, endpoint={"hostname": "backend"}, load_balancing_weight=3)),
                cluster("empty"), cluster("h2", port, typed_extension_protocol_options=http_options(
                    explicit_http_config={"http2_protocol_options": {}}))]
    return bootstrap(listeners, clusters, layered_runtime=RUNTIME)


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    started = shared_sluice(configuration(shared_upstream.port))
    assert fetch(started.port("main")).status == 200
    return started


@pytest.mark.parametrize("admin", [None, {}])
def test_without_an_address(tmp_path, admin):
    """Not an error: there is no admin port."""
    made = bootstrap([listener(hcm([direct("/", 200)]))], admin=admin)
    proxy = Sluice(tmp_path / "p", {k: v for k, v in made.items() if v is not None}, name="p")
    proxy.launch(proxy.command())
    try:
        wait_until(lambda: proxy.expect_running() and "starting workers" in proxy.log(), "the workers")
        assert "No admin address given, so no admin HTTP server started" in proxy.log()
    finally:
        proxy.stop()


@pytest.mark.parametrize("path", ["/./ready", "/a/../ready", "/%72eady"])
def test_paths_are_normalised(proxy, path):
    assert proxy.admin(path).text == "LIVE\n"


@pytest.mark.smoke
def test_ready(proxy):
    answer = proxy.admin("/ready")
    assert (answer.status, answer.text) == (200, "LIVE\n")
    assert answer.headers["content-type"] == "text/plain; charset=UTF-8"
    assert answer.headers["cache-control"] == "no-cache, max-age=0"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["server"] == "envoy"


@pytest.mark.parametrize("path, kind", [
    ("/", "text/html; charset=UTF-8"), ("/help", "text/plain; charset=UTF-8"), ("/certs", "application/json"),
    ("/clusters", "text/plain; charset=UTF-8"), ("/clusters?format=json", "application/json"),
    ("/config_dump", "application/json"), ("/contention", "text/plain; charset=UTF-8"),
    ("/hot_restart_version", "text/plain; charset=UTF-8"), ("/init_dump", "application/json"),
    ("/listeners", "text/plain; charset=UTF-8"), ("/listeners?format=json", "application/json"),
    ("/memory", "application/json"), ("/runtime", "application/json"), ("/server_info", "application/json"),
    ("/stats", "text/plain; charset=UTF-8"), ("/stats?format=json", "application/json"),
    ("/stats/prometheus", "text/plain; charset=UTF-8"), ("/stats?format=prometheus", "text/plain; charset=UTF-8"),
    pytest.param("/stats/recentlookups", "text/plain; charset=UTF-8", marks=pytest.mark.xfail(
        strict=True, reason="admin: /stats/recentlookups is not there")), ("//stats", "text/plain; charset=UTF-8")])
def test_page_and_type(proxy, path, kind):
    answer = proxy.admin(path)
    assert answer.status == 200 and answer.headers["content-type"] == kind
    if kind == "application/json":
        assert isinstance(answer.json, dict)


@pytest.mark.parametrize("path", ["/healthcheck/fail", "/healthcheck/ok", "/quitquitquit", "/logging", "/reset_counters",
                                  "/drain_listeners", "/runtime_modify", "/reopen_logs", "/cpuprofiler", "/heapprofiler"])
def test_changes_need_post(proxy, path):
    answer = proxy.admin(path)
    assert (answer.status, answer.text.strip()) == (405, "Method GET not allowed, POST required.")


def test_unknown_path(proxy):
    answer = proxy.admin("/nope")
    assert answer.status == 404 and answer.text.startswith("invalid path. admin commands are:")


def test_unknown_path_is_not_echoed_as_html(proxy):
    assert "<script>" not in proxy.admin("/<script>alert(1)</script>").text


@pytest.mark.smoke
def test_config_dump_order(proxy):
    """Scoped routes, always empty here, come with include_eds only: else routes are .configs[3].
    Discovered extensions come where there are some (test_ecds.py)."""
    full = ["Bootstrap", "Clusters", "Endpoints", "Listeners", "ScopedRoutes", "Routes", "Secrets"]
    for query, expected in (("?include_eds", full), ("", [k for k in full if k not in ("Endpoints", "ScopedRoutes")])):
        kinds = [c["@type"].rsplit(".", 1)[1] for c in proxy.admin(f"/config_dump{query}").json["configs"]]
        assert kinds == [f"{k}ConfigDump" for k in expected]


def test_config_dump_with_endpoints(proxy):
    configs = proxy.admin("/config_dump?include_eds").json["configs"]
    assert configs[2]["@type"].endswith("EndpointsConfigDump")
    names = [e["endpoint_config"]["cluster_name"] for e in configs[2]["static_endpoint_configs"]]
    assert names == ["empty", "h2", "up"]


def test_config_dump_content(proxy):
    configs = proxy.admin("/config_dump").json["configs"]
    assert configs[0]["bootstrap"]["node"]["id"] == "test-node"
    assert sorted(c["cluster"]["name"] for c in configs[1]["static_clusters"]) == ["empty", "h2", "up"]
    assert [c["listener"]["name"] for c in configs[2]["static_listeners"]] == ["main", "tcp"]
    assert all("last_updated" in c for c in configs[1]["static_clusters"])
    assert configs[3]["static_route_configs"][0]["route_config"]["name"] == "local"


def test_config_dump_resource(proxy):
    configs = proxy.admin("/config_dump?resource=static_clusters").json["configs"]
    assert [c["@type"].rsplit(".", 2)[1:] for c in configs] == [["ClustersConfigDump", "StaticCluster"]] * 3


def test_config_dump_name_regex(proxy):
    configs = proxy.admin("/config_dump?name_regex=^up$").json["configs"]
    clusters = [c for c in configs if c["@type"].endswith("ClustersConfigDump")][0]
    assert [c["cluster"]["name"] for c in clusters["static_clusters"]] == ["up"]


def test_config_dump_mask(proxy):
    configs = proxy.admin("/config_dump?resource=static_clusters&mask=cluster.name").json["configs"]
    assert {c["cluster"]["name"] for c in configs} == {"empty", "h2", "up"}
    assert all(c["cluster"].keys() == {"@type", "name"} for c in configs)


@pytest.mark.parametrize("query, status, text", [
    ("resource=zzz", 404, "zzz not found in config dump"),
    ("resource=static_endpoint_configs", 404, "static_endpoint_configs not found in config dump"),
    ("name_regex=(", 400, "Error while parsing name_regex from (: missing ): ("),
    ("resource=static_clusters&mask=zz", 400, "FieldMask zz could not be successfully applied to any configs.")])
def test_config_dump_errors(proxy, query, status, text):
    answer = proxy.admin(f"/config_dump?{query}")
    assert answer.status == status and text in answer.text


def test_clusters_text(proxy, shared_upstream):
    lines = proxy.admin("/clusters").text.splitlines()
    assert "up::observability_name::up" in lines and "up::added_via_api::false" in lines
    for level in ("default", "high"):
        for key, value in (("connections", 1024), ("pending_requests", 1024), ("requests", 1024), ("retries", 3)):
            assert f"up::{level}_priority::max_{key}::{value}" in lines
    host = f"up::127.0.0.1:{shared_upstream.port}::"
    keys = [line[len(host):].split("::")[0] for line in lines if line.startswith(host)]
    assert keys == ["cx_active", "cx_connect_fail", "cx_total", "rq_active", "rq_error", "rq_pending_active", "rq_success",
                    "rq_timeout", "rq_total", "hostname", "health_flags", "weight", "region", "zone", "sub_zone",
                    "canary", "priority", "success_rate", "local_origin_success_rate"]
    for expected in ("rq_success::1", "rq_total::1", "hostname::backend", "health_flags::healthy", "weight::3"):
        assert host + expected in lines


def test_clusters_json(proxy, shared_upstream):
    statuses = {c["name"]: c for c in proxy.admin("/clusters?format=json").json["cluster_statuses"]}
    host = statuses["up"]["host_statuses"][0]
    assert host["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": shared_upstream.port}
    assert host["health_status"]["eds_health_status"] == "HEALTHY" and host["weight"] == 3
    assert {s["name"] for s in host["stats"]} >= {"cx_total", "rq_success", "rq_total", "cx_active", "rq_active"}
    assert statuses["up"]["observability_name"] == "up" and len(statuses["up"]["circuit_breakers"]["thresholds"]) == 2


def test_listeners_text(proxy):
    main, tcp = proxy.admin("/listeners").text.splitlines()
    assert main == f"main::127.0.0.1:{proxy.port('main')}" and tcp == f"tcp::127.0.0.1:{proxy.port('tcp')}"


@pytest.mark.smoke
def test_server_info(proxy):
    info = proxy.admin("/server_info").json
    assert info["state"] == "LIVE" and info["node"]["id"] == "test-node"
    assert re.fullmatch(r"[0-9a-f]{40}/[\d.]+(-dev)?/\w+/\w+/BoringSSL", info["version"])
    options = info["command_line_options"]
    assert options["concurrency"] == 1 and options["config_path"].endswith(".json")


def test_memory(proxy):
    memory = proxy.admin("/memory").json
    assert set(memory) >= {"allocated", "heap_size"} and memory["allocated"].isdigit()


def test_stats_text_and_filter(proxy):
    lines = proxy.admin("/stats?filter=^cluster\\.up\\.upstream_rq_200$").text.splitlines()
    assert len(lines) == 1 and re.fullmatch(r"cluster\.up\.upstream_rq_200: \d+", lines[0])


def test_stats_usedonly(proxy):
    every, used = (set(proxy.admin(f"/stats{q}").text.splitlines()) for q in ("", "?usedonly"))
    names = {line.split(":")[0] for line in used}
    assert len(names) < len(every) and "server.live" in names and "server.state" in names
    assert "cluster.empty.upstream_rq_retry" not in names


def test_stats_order_is_by_name(proxy):
    lines = proxy.admin("/stats?type=Counters").text.splitlines()
    names = [line.split(": ")[0] for line in lines]
    assert names == sorted(names) and len(names) > 100


@pytest.mark.parametrize("kind, name", [("Counters", "http.ingress.downstream_rq_total"),
                                        ("Gauges", "server.live"), ("Histograms", "http.ingress.downstream_rq_time")])
def test_stats_by_type(proxy, kind, name):
    names = {line.split(": ")[0] for line in proxy.admin(f"/stats?type={kind}").text.splitlines()}
    assert name in names
    others = {"http.ingress.downstream_rq_total", "server.live", "http.ingress.downstream_rq_time"} - {name}
    assert not others & names


@pytest.mark.parametrize("query, text", [("format=bad", "usage: /stats?format="), ("filter=(", "Invalid re2 regex"),
                                         ("type=bad", "type")])
def test_stats_errors(proxy, query, text):
    answer = proxy.admin(f"/stats?{query}")
    assert answer.status == 400 and text in answer.text


def test_prometheus(proxy):
    text = proxy.admin("/stats/prometheus").text
    assert "# TYPE envoy_cluster_upstream_rq_total counter" in text
    assert re.search(r'^envoy_cluster_upstream_rq_total\{envoy_cluster_name="up"\} \d+$', text, re.M)
    assert re.search(r'^envoy_http_downstream_rq_xx\{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ingress"\} \d+$',
                     text, re.M)
    assert 'le="+Inf"' in text
    types = re.findall(r"^# TYPE (\S+) ", text, re.M)
    assert len(types) == len(set(types)), "one TYPE line per family"


def test_prometheus_families_are_contiguous(proxy):
    families, current = [], None
    for line in proxy.admin("/stats/prometheus?usedonly").text.splitlines():
        if line.startswith("# TYPE "):
            current = line.split()[2]
            families.append(current)
        elif line:
            assert line.split("{")[0].split(" ")[0].startswith(current), line
    assert len(families) == len(set(families))


def test_runtime_layers(proxy):
    runtime = proxy.admin("/runtime").json
    assert runtime["layers"] == ["static", "admin"]
    assert runtime["entries"]["a.b"]["final_value"] == "5"


def test_runtime_modify(proxy):
    assert proxy.post("/runtime_modify?a.b=7&new.key=1").text == "OK\n"
    entry = proxy.admin("/runtime").json["entries"]["a.b"]
    assert entry["layer_values"] == ["5", "7"] and entry["final_value"] == "7"
    assert proxy.post("/runtime_modify?a.b=&new.key=").text == "OK\n"
    assert proxy.admin("/runtime").json["entries"]["a.b"]["final_value"] == "5"
    assert proxy.post("/runtime_modify").status == 400


def test_runtime_modify_without_layer(sluice):
    answer = sluice(bootstrap([listener(hcm())], [cluster("up")])).post("/runtime_modify?a=b")
    assert answer.status == 503 and "No admin layer specified" in answer.text


def test_logging(proxy):
    answer = proxy.post("/logging?level=warning")
    assert answer.status == 200 and answer.text.startswith("active loggers:\n")
    assert all(line.endswith(": warning") for line in answer.text.splitlines()[1:])
    answer = proxy.post("/logging?paths=http:debug,upstream:trace")
    assert "  http: debug" in answer.text.splitlines() and "  upstream: trace" in answer.text.splitlines()
    assert "  http: info" in proxy.post("/logging?http=info").text.splitlines()
    assert proxy.post("/logging?level=info").status == 200


@pytest.mark.parametrize("query, text", [
    ("level=blah", "error: unknown logger level"), ("nosuch=info", "error: unknown logger name"),
    ("admin=blah", "error: unknown logger level"), ("admin=debug,x", "error: unknown logger level"),
    ("paths=http:trace,nosuch:trace", "error: unknown logger name"),
    ("paths=http:trace,upstream:blah", "error: unknown logger level"), ("paths=http", "error: empty logger name or empty logger level"),
    ("level=trace&http=trace", "error: invalid number of parameters"),
    ("paths=http:trace&level=trace", "error: invalid number of parameters")])
def test_logging_errors(proxy, query, text):
    assert proxy.post("/logging?level=info").status == 200
    answer = proxy.post(f"/logging?{query}")
    assert answer.status == 400 and answer.text.startswith(text + "\n\nusage: ")
    assert ": trace" not in answer.text.split("active loggers:")[1]  # all of it or nothing


@pytest.mark.parametrize("query", ["", "?", "?level", "?level=", "?paths="])
def test_logging_shows(proxy, query):
    assert proxy.post("/logging" + query).text.startswith("active loggers:\n")


def test_reset_counters(proxy):
    assert fetch(proxy.port("main"), "/direct").status == 200
    proxy.wait_stat("http.ingress.rq_direct_response", lambda n: n > 0)
    assert proxy.post("/reset_counters").text == "OK\n"
    assert proxy.stat("http.ingress.rq_direct_response") == 0


@pytest.mark.smoke
def test_healthcheck_fail_and_ok(proxy):
    assert proxy.post("/healthcheck/fail").text == "OK\n"
    answer = proxy.admin("/ready")
    assert (answer.status, answer.text) == (503, "DRAINING\n")
    assert proxy.stat("server.live") == 0
    assert fetch(proxy.port("main"), "/direct").get("connection") == "close"
    assert proxy.post("/healthcheck/ok").text == "OK\n"
    assert proxy.admin("/ready").status == 200
    assert fetch(proxy.port("main"), "/direct").get("connection") is None


def test_healthcheck_fail_leaves_listeners_alone_that_drain_when_modified_only(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]), name=name, drain_type=name) for name in ("DEFAULT", "MODIFY_ONLY")]),
                   args=["--drain-strategy", "immediate"])
    proxy.post("/healthcheck/fail")
    assert fetch(proxy.port("DEFAULT")).get("connection") == "close"
    assert fetch(proxy.port("MODIFY_ONLY")).get("connection") is None
    with Client(proxy.port("MODIFY_ONLY")) as client:
        assert client.request("GET", "/").get("connection") is None
        proxy.post("/drain_listeners?graceful&skip_exit")
        assert client.request("GET", "/").get("connection") == "close"


@pytest.mark.parametrize("method", ["HEAD", "DELETE", "POST"])
def test_read_pages_take_any_method(proxy, method):
    assert proxy.admin("/ready", method).status == 200


def test_admin_keeps_connections(proxy):
    with Client(proxy.admin_address[1]) as client:
        for _ in range(3):
            assert client.request("GET", "/ready").body == b"LIVE\n"


@pytest.mark.smoke
def test_quitquitquit(sluice):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up")]))
    assert proxy.post("/quitquitquit").text == "OK\n"
    assert proxy.wait_exit() == 0


def test_allowed_paths(sluice):
    config = bootstrap([listener(hcm())], [cluster("up")])
    config["admin"]["allow_paths"] = [{"prefix": "/ready"}, {"prefix": "/listeners"}]
    proxy = sluice(config)
    assert proxy.admin("/ready").status == 200
    answer = proxy.admin("/clusters")
    assert answer.status == 403 and answer.text.strip() == "request to path /clusters not allowed"


def test_drain_listeners(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200, "x")]))]))
    port = proxy.port()
    with Client(port) as client:
        assert client.request("GET", "/").status == 200
        assert proxy.post("/drain_listeners").text == "OK\n"
        proxy.wait_stat("listener_manager.listener_stopped", 1)
        assert proxy.admin("/ready").text == "LIVE\n"
        wait_until(lambda: not can_connect(port), "the listener to stop")


def test_drain_inbound_only(sluice):
    listeners = [listener(hcm([direct("/", 200)]), name="in", traffic_direction="INBOUND"),
                 listener(hcm([direct("/", 200)]), name="out", traffic_direction="OUTBOUND")]
    proxy = sluice(bootstrap(listeners))
    ports = {n: p for n, (_, p) in proxy.listeners().items()}
    assert proxy.post("/drain_listeners?inboundonly").text == "OK\n"
    wait_until(lambda: not can_connect(ports["in"]), "the inbound listener to stop")
    assert fetch(ports["out"]).status == 200


def test_drain_graceful_keeps_accepting(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]))]), args=["--drain-strategy", "immediate"])
    assert proxy.post("/drain_listeners?graceful&skip_exit").text == "OK\n"
    wait_until(lambda: fetch(proxy.port()).get("connection") == "close", "answers to close connections")
