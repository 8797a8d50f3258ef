"""The process: flags, validation, refused bootstraps, signals, log files."""

import json
import os
import signal
import socket
import subprocess

import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from google.protobuf import json_format, text_format

from support.config import address, bootstrap, cluster, direct, file_log, hcm, listener, route, typed
from support.process import wait_until
from support.proxy import ROOT, Sluice
from support.rawhttp import Client, fetch

CAPTURED = sorted((ROOT.parent / "shared/captured").glob("**/*.bootstrap.json"))


def run(*args, timeout=30):
    # A process that ends at once leaves its memory to the kernel.
    env = {**os.environ, "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"}
    return subprocess.run([Sluice.binary, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, check=False, env=env)


def validate(directory, config):
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(config))
    return run("-c", path, "--mode", "validate")


def test_version():
    done = run("--version")
    assert done.returncode == 0
    first, line, last, *_ = done.stdout.split("\n")
    assert (first, last) == ("", "") and "  version: " in line and len(line.split("/")[-5:]) == 5


def test_help():
    done = run("--help")
    assert done.returncode == 0 and "--config-path" in done.stdout


def test_bad_flag():
    done = run("--foo")
    assert done.returncode == 1 and "PARSE ERROR: Argument: --foo" in done.stderr


@pytest.mark.parametrize("flags, text", [
    (["--concurrency", "many"], "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from string 'many'"),
    (["--concurrency=-1"], "(--concurrency)\n             Couldn't read argument value from string '-1'"),
    (["--drain-strategy", "slow"], "(--drain-strategy)\n             Couldn't read argument value from string 'slow'"),
    (["--mode", "x" * 4000], "(--mode)\n             Couldn't read argument value from string 'xxx"),
    (["-c", "a", "--config-path", "b"], "(--config-path)\n             Argument already set!"),
    (["--disable-hot-restart"] * 2, "(--disable-hot-restart)\n             Argument already set!"),
    (["--mode"], "Missing a value for this argument!"),
    (["-l", "chatty"], "error: invalid log level specified 'chatty'"),
    (["--component-log-level", "nope:debug"], "error: invalid component specified 'nope'"),
    (["--component-log-level", "http:chatty"], "error: invalid log level specified 'chatty'"),
    (["--component-log-level", "http"], "error: component log level not correctly specified 'http'"),
    (["--component-log-level", "http:debug,,upstream:debug"], "error: component log level not correctly specified ''")])
def test_bad_values_of_flags(flags, text):
    done = run(*flags)
    assert done.returncode == 1 and text in done.stderr


def test_flags_that_may_be_repeated(tmp_path):
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(hcm())], [cluster("up", 1)])))
    assert run("-c", path, "--mode", "validate", "--stats-tag", "a:b", "--stats-tag", "c:d").returncode == 0


def test_no_config():
    done = run()
    assert done.returncode == 1
    assert "At least one of --config-path or --config-yaml or Options::configProto() should be non-empty" in done.stdout + done.stderr


@pytest.mark.smoke
def test_validate_good(tmp_path):
    done = validate(tmp_path, bootstrap([listener(hcm())], [cluster("up", 1)]))
    assert done.returncode == 0 and f"configuration '{tmp_path / 'bootstrap.json'}' OK" in done.stdout


def test_init_only_ends_once_everything_is_set_up(tmp_path):
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(hcm())], [cluster("up", 1)])))
    assert run("-c", path, "--mode", "init_only").returncode == 0
    path.write_text(json.dumps(bootstrap([{**listener(hcm()), "address": address(80, "192.0.2.1")}], [cluster("up", 1)])))
    assert run("-c", path, "--mode", "validate").returncode == 0  # binds nothing
    assert run("-c", path, "--mode", "init_only").returncode == 1


def broken_hcm(**fields):
    return bootstrap([listener(hcm(**fields))], [cluster("up", 1)])


def unnamed_cluster():
    config = bootstrap([], [cluster("up", 1)])
    del config["static_resources"]["clusters"][0]["name"]
    return config


BAD = {
    "unknown field": ({"nonsense": 1}, "nonsense"),
    "unknown cluster": (bootstrap([listener(hcm([route("/", "missing")]))]), "missing"),
    "duplicate cluster": (bootstrap([], [cluster("up", 1), cluster("up", 2)]), "up"),
    "cluster without name": (unnamed_cluster(), "name"),
    "bad regex": (broken_hcm(routes=[route(match={"safe_regex": {"regex": "("}})]), "("),
    "bad duration": (broken_hcm(routes=[route("/", timeout="oops")]), "oops"),
    "empty stat prefix": (broken_hcm(stat_prefix=""), "stat_prefix"),
    "no filters": (bootstrap([{"name": "x", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
                               "filter_chains": [{"filters": [typed("envoy.filters.network.nope", "no.Such")]}]}]), "no.Such"),
    "bad address": (bootstrap([{**listener(hcm()), "address": {"socket_address": {"address": "nope", "port_value": 0}}}]), "nope"),
    "two wildcard hosts": (broken_hcm(vhosts=[{"name": "a", "domains": ["*"], "routes": []},
                                              {"name": "b", "domains": ["*"], "routes": []}]), "wildcard"),
    "port out of range": (bootstrap([listener(hcm(), port=70000)], [cluster("up", 1)]), "port_value"),
    "router not last": (broken_hcm(filters=[typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router")]), "router"),
    "missing certificate": (bootstrap([{**listener(hcm()), "filter_chains": [{"filters": [hcm()], "transport_socket": typed(
        "envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={"tls_certificates": [{"certificate_chain": {"filename": "/no/such.crt"},
                                                  "private_key": {"filename": "/no/such.key"}}]})}]}],
        [cluster("up", 1)]), "/no/such.crt"),
    "bad log operator": (broken_hcm(access_log=[file_log("/dev/null", "%NOPE%")]), "NOPE"),
    "bad status": (broken_hcm(routes=[direct("/", 99)]), "status"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bootstrap_is_refused(tmp_path, name):
    config, word = BAD[name]
    done = validate(tmp_path, config)
    assert done.returncode == 1, done.stdout
    assert word in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["{", "[]", "a: b: c", "\0", "admin: {address: 5}"])
def test_broken_files_are_refused(tmp_path, text):
    path = tmp_path / "bootstrap.yaml"
    path.write_text(text)
    assert run("-c", path, "--mode", "validate").returncode == 1


def test_missing_file():
    done = run("-c", "/no/such.yaml")
    assert done.returncode == 1 and "/no/such.yaml" in done.stderr + done.stdout


@pytest.mark.parametrize("path", CAPTURED or [None], ids=lambda p: str(p and p.relative_to(p.parents[1])))
def test_captured_bootstraps_are_accepted(path):
    if path is None:
        pytest.skip("no captured bootstraps")
    done = run("-c", path, "--mode", "validate")
    assert done.returncode == 0, done.stdout + done.stderr


def test_unknown_static_fields_may_be_allowed(tmp_path):
    config = {**bootstrap([], [cluster("up", 1)]), "nonsense": 1}
    (tmp_path / "b.json").write_text(json.dumps(config))
    assert run("-c", tmp_path / "b.json", "--mode", "validate").returncode == 1
    assert run("-c", tmp_path / "b.json", "--mode", "validate", "--allow-unknown-static-fields").returncode == 0


def test_config_yaml_is_merged(tmp_path):
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(bootstrap([], [cluster("up", 1)])))
    done = run("-c", tmp_path / "b.yaml", "--config-yaml", "node: {id: other, zone: 3}", "--mode", "validate")
    assert done.returncode == 1 and "zone" in done.stdout + done.stderr
    assert run("-c", tmp_path / "b.yaml", "--config-yaml", "node: {id: other}", "--mode", "validate").returncode == 0


@pytest.mark.parametrize("kind", ["pb", "pb_text"])
def test_config_yaml_over_a_proto(sluice, tmp_path, kind):
    """Messages are merged, lists appended: as over .json and .yaml files."""
    message = json_format.ParseDict(bootstrap([listener(hcm([direct("/", 201)]), name="a")], [cluster("up", 1)]),
                                    bootstrap_pb2.Bootstrap())
    path = tmp_path / f"b.{kind}"
    path.write_bytes(message.SerializeToString() if kind == "pb" else text_format.MessageToString(message).encode())
    over = {"node": {"id": "other"}, "static_resources": {"listeners": [listener(hcm([direct("/", 202)]), name="b")]}}
    proxy = sluice({}, args=["-c", path, "--config-yaml", yaml.safe_dump(over)])
    assert [fetch(proxy.port(name), "/").status for name in ("a", "b")] == [201, 202]
    node = proxy.admin("/config_dump").json["configs"][0]["bootstrap"]["node"]
    assert (node["id"], node["cluster"]) == ("other", "test-cluster")
    assert proxy.admin("/clusters").text.startswith("up::")


@pytest.mark.parametrize("kind, content, over, text", [
    ("pb", b"\xff\xff", "{}", "invalid field tag"), ("pb_text", b"nonsense: 1", "{}", "nonsense"),
    ("pb", b"", "node: {zone: 3}", "zone"), ("pb", b"", "node: [", "yaml: error")])
def test_config_yaml_over_a_bad_proto(tmp_path, kind, content, over, text):
    path = tmp_path / f"b.{kind}"
    path.write_bytes(content)
    done = run("-c", path, "--config-yaml", over, "--mode", "validate")
    assert done.returncode == 1 and text in done.stdout + done.stderr


@pytest.mark.smoke
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signals_exit(sluice, upstream, number):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port)]))
    with Client(proxy.port()) as client:
        assert client.request("GET", "/").status == 200
        proxy.signal(number)
        assert proxy.wait_exit() == 0


def test_hangup_is_ignored(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]))]))
    proxy.signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP" in proxy.log(), "the log to tell")
    assert fetch(proxy.port()).status == 200


def test_usr1_reopens_logs(sluice, tmp_path):
    path = tmp_path / "access.log"
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)], access_log=[file_log(path, "%REQ(x-n)%\n")]))]))
    assert fetch(proxy.port(), headers=[("x-n", "1")]).status == 200
    assert proxy.log_lines(path, 1) == ["1"]
    path.rename(tmp_path / "old.log")
    proxy.signal(signal.SIGUSR1)
    wait_until(lambda: "SIGUSR1" in proxy.log(), "the log to tell")
    wait_until(lambda: fetch(proxy.port(), headers=[("x-n", "2")]).status == 200 and path.exists(), "a new log file")
    assert proxy.log_lines(path, 1)[0] == "2"


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        proxy = Sluice(tmp_path, bootstrap([listener(hcm([direct("/", 200)]), port=port)]))
        proxy.launch(proxy.command())
        try:
            wait_until(lambda: proxy.has_exited() or "ddress already in use" in proxy.log(), "an error")
            assert "ddress already in use" in proxy.log() and f"127.0.0.1:{port}" in proxy.log()
        finally:
            if not proxy.has_exited():
                proxy.child.kill()
                proxy.child.wait()


def test_log_path(tmp_path, sluice):
    path = tmp_path / "own.log"
    sluice(bootstrap([listener(hcm([direct("/", 200)]))]), args=["--log-path", str(path), "-l", "debug"])
    assert "starting workers" in path.read_text()


def test_log_format(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]))]), args=["--log-format", "<%l|%n> %v"])
    assert "<info|main> starting workers" in proxy.log()


def test_service_flags_name_the_node(sluice):
    config = bootstrap([listener(hcm([direct("/", 200)]))])
    del config["node"]
    node = sluice(config, args=["--service-node", "n1", "--service-cluster", "c1", "--service-zone", "z1"]).admin(
        "/server_info").json["node"]
    assert (node["id"], node["cluster"], node["locality"]["zone"]) == ("n1", "c1", "z1")


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_concurrency(sluice, workers):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]))]), concurrency=workers)
    assert proxy.stat("server.concurrency") == workers
    assert all(fetch(proxy.port()).status == 200 for _ in range(8 * workers))


def test_file_descriptors_are_given_back(sluice, upstream):
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port)]))
    count = lambda: len(os.listdir(f"/proc/{proxy.pid}/fd"))
    assert fetch(proxy.port()).status == 200
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)
    before = count()
    for _ in range(50):
        assert fetch(proxy.port()).status == 200
    proxy.wait_stat("http.ingress.downstream_cx_active", 0)
    wait_until(lambda: count() <= before + 1, lambda: f"descriptors to go back to {before}, there are {count()}")

