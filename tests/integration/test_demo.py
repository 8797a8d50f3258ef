"""The gateway demo as a user runs it: each line it tells to try, edits of its files under load, and its end."""

import collections
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
import yaml

from support.process import Process, can_connect, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEMO = ROOT / "examples/gateway"
SLUICE = os.environ.get("SLUICE", str(ROOT / "build/sluice"))
HOST = "counter.lab.example.com"
PORT_NAMES = ["admin", "http", "https", "mysql", "control_plane", "counter_v1", "counter_v2", "mysql_server"]
PORTS_FROM = 20000  # below what the system gives to clients
UPDATE_S = 1


def are_free(ports):
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def free_base():
    """The first of enough free ports in a row; runs beside this one look elsewhere."""
    start = PORTS_FROM + os.getpid() % 500 * 20
    return next(base for base in range(start, start + 2000, 20) if are_free(range(base, base + len(PORT_NAMES))))


class Demo(Process):
    """run.py with its own copy of the YAML files."""

    def __init__(self, directory):
        super().__init__("demo", directory)
        self.config = self.directory / "config"
        self.config.mkdir()
        for path in DEMO.glob("*.yaml"):
            shutil.copy(path, self.config)

    def start(self):
        self.base = free_base()
        self.ports = {name: self.base + i for i, name in enumerate(PORT_NAMES)}
        self.launch([sys.executable, DEMO / "run.py", "--sluice", SLUICE, "--config", self.config],
                    {"PORT_BASE": str(self.base)})
        wait_until(lambda: self.expect_running() and "Ctrl-C ends everything." in self.log(), "the demo to be ready", 60)
        return self

    def edit(self, kind, change):
        path = self.config / f"{kind}.yaml"
        document = yaml.safe_load(path.read_text())
        change(document)
        path.write_text(yaml.safe_dump(document))

    def sluice_pid(self):
        return int(pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])

    def curl(self, *args):
        done = subprocess.run(["curl", "-s", "-m", "10", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              check=False)
        assert done.returncode == 0, (args, done.returncode, done.stderr)
        return done.stdout

    def get(self, host=HOST, path="/"):
        """(status, body)"""
        body, _, status = self.curl("-H", f"Host: {host}", "-w", "\n%{http_code}",
                                    f"localhost:{self.ports['http']}{path}").rpartition("\n")
        return int(status), body

    def admin(self, path, *args):
        return self.curl(f"localhost:{self.ports['admin']}{path}", *args)

    def virtual_hosts(self):
        routes = json.loads(self.admin("/config_dump"))["configs"][3]["dynamic_route_configs"]
        return [host for route in routes for host in route["route_config"]["virtual_hosts"]]

    def tour(self):
        """The shell lines it tells to try."""
        lines = [line.strip() for line in self.log().splitlines() if line.startswith("  ")]
        return [line for line in lines if "curl" in line]


class Load(threading.Thread):
    """Requests one after the other on kept connections until finish(), which returns how many had which answer."""

    def __init__(self, demo):
        super().__init__(daemon=True)
        self.address = ("127.0.0.1", demo.ports["http"])
        self.answers = collections.Counter()
        self.is_over = threading.Event()
        self.start()

    def run(self):
        connection = http.client.HTTPConnection(*self.address, timeout=10)
        while not self.is_over.is_set():
            try:
                connection.request("GET", "/", headers={"Host": HOST})
                answer = connection.getresponse()
                body = answer.read().decode()
                self.answers[answer.status if answer.status != 200 else body.split(":")[0]] += 1
                if answer.will_close:
                    connection.close()
            except OSError as error:
                self.answers[repr(error)] += 1
                connection.close()
        connection.close()

    def finish(self):
        self.is_over.set()
        self.join(15)
        return self.answers


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    demo = Demo(tmp_path_factory.mktemp("demo")).start()
    yield demo
    assert demo.stop() == 0, demo.log()


def has_counter(answers):
    return set(answers) <= {"counter v1", "counter v2"}


@pytest.mark.smoke
def test_virtual_host(demo):
    status, body = demo.get()
    assert status == 200 and re.fullmatch(r"counter v[12]: \d+\n", body)
    assert demo.get(f"{HOST}:{demo.ports['http']}")[0] == 200
    assert demo.get(path="/some/path?x=1")[0] == 200


def test_numbers_run(demo):
    seen = collections.defaultdict(list)
    for _ in range(20):
        version, number = demo.get()[1].split(":")
        seen[version].append(int(number))
    assert set(seen) <= {"counter v1", "counter v2"}
    for numbers in seen.values():
        assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("host", ["localhost", "other.lab.example.com", "x" + HOST])
def test_other_hosts_are_404(demo, host):
    assert demo.get(host) == (404, "")


def test_request_bodies(demo):
    url = f"localhost:{demo.ports['http']}/"
    for args in (["-d", "hello"], ["-d", "hello", "-H", "Transfer-Encoding: chunked"], ["-X", "DELETE"]):
        assert demo.curl("-H", f"Host: {HOST}", *args, url).startswith("counter v")


@pytest.mark.parametrize("version, args", [("2", []), ("1.1", ["--http1.1"]), ("2", ["--tls-max", "1.2"])])
def test_https(demo, version, args):
    certificate = re.search(r"--cacert (\S+)", demo.log()).group(1)
    body, _, found = demo.curl("--cacert", certificate, "--connect-to", f"::localhost:{demo.ports['https']}", "-w",
                               "\n%{http_code} %{http_version}", *args, f"https://{HOST}/").rpartition("\n")
    assert found == f"200 {version}" and body.startswith("counter v")


def test_mysql(demo):
    with socket.create_connection(("127.0.0.1", demo.ports["mysql"]), timeout=10) as connection:
        stream = connection.makefile("rwb")
        assert stream.readline() == b"mysql stand-in ready\n"
        stream.write(b"select 1\n")
        stream.flush()
        assert stream.readline() == b"select 1\n"


@pytest.mark.smoke
def test_admin(demo):
    assert [(h["name"], h["domains"]) for h in demo.virtual_hosts()][0] == ("counter", [HOST])
    assert sorted(demo.admin("/listeners").splitlines()) == sorted(
        f"{name}::127.0.0.1:{demo.ports[name]}" for name in ("http", "https", "mysql"))
    assert f"counter-v1::127.0.0.1:{demo.ports['counter_v1']}::health_flags::healthy" in demo.admin("/clusters")
    assert "envoy_cluster_upstream_rq_total" in demo.admin("/stats/prometheus")
    assert "config_dump" in demo.admin("/")
    assert "config: debug" in demo.admin("/logging?level=debug", "-X", "POST")
    assert "config: info" in demo.admin("/logging?level=info", "-X", "POST")


def test_the_tour_works_as_printed(demo):
    lines = demo.tour()
    assert len(lines) == 10
    for line in lines:
        if "jq" in line and not shutil.which("jq"):
            continue
        done = subprocess.run(["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
                              check=False)
        assert done.stdout and not done.stderr, (line, done)
        assert done.returncode == (28 if "telnet:" in line else 0), line
    demo.admin("/logging?level=info", "-X", "POST")


def test_edits_under_load(demo):
    """Weights, then a virtual host: each in use within a second, and no request fails."""
    load = Load(demo)
    wait_until(lambda: sum(load.answers.values()) > 50, "requests")

    def weights(v1, v2):
        def change(routes):
            clusters = routes[0]["virtual_hosts"][0]["routes"][0]["route"]["weighted_clusters"]["clusters"]
            clusters[0]["weight"], clusters[1]["weight"] = v1, v2
        return change

    for v1, v2, only in ((0, 100, "counter v2"), (100, 0, "counter v1")):
        demo.edit("routes", weights(v1, v2))
        wait_until(lambda v1=v1: demo.virtual_hosts()[0]["routes"][0]["route"]["weighted_clusters"]["clusters"][0]
                   .get("weight", 0) == v1, "new weights", UPDATE_S)
        wait_until(lambda only=only: all(demo.get()[1].startswith(only) for _ in range(5)), f"all to {only}", UPDATE_S)

    def add_host(routes):
        routes[0]["virtual_hosts"].append(
            {"name": "added", "domains": ["added.lab.example.com"],
             "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "counter-v2"}}]})

    assert demo.get("added.lab.example.com")[0] == 404
    demo.edit("routes", add_host)
    wait_until(lambda: demo.get("added.lab.example.com")[0] == 200, "the added virtual host", UPDATE_S)
    demo.edit("routes", lambda routes: routes[0]["virtual_hosts"].pop())
    wait_until(lambda: demo.get("added.lab.example.com")[0] == 404, "the virtual host to go", UPDATE_S)

    answers = load.finish()
    assert has_counter(answers) and sum(answers.values()) > 50, answers
    assert answers["counter v1"] and answers["counter v2"]


def test_edits_of_clusters_and_listeners_under_load(demo):
    load = Load(demo)
    wait_until(lambda: sum(load.answers.values()) > 50, "requests")
    demo.edit("clusters", lambda clusters: clusters[0].update(connect_timeout="2s"))
    wait_until(lambda: '"2s"' in demo.admin("/config_dump?resource=dynamic_active_clusters"), "the new cluster", UPDATE_S)
    mysql_port = demo.ports["mysql"]
    demo.edit("listeners", lambda listeners: listeners.pop())
    wait_until(lambda: f":{mysql_port}" not in demo.admin("/listeners"), "the listener to go", UPDATE_S)
    shutil.copy(DEMO / "listeners.yaml", demo.config)
    wait_until(lambda: can_connect(mysql_port), "the listener to come back", UPDATE_S)
    answers = load.finish()
    assert has_counter(answers) and sum(answers.values()) > 50, answers


def test_refused_resource(demo):
    """The proxy's words reach the terminal, traffic goes on, and the next good version is taken."""
    demo.edit("clusters", lambda clusters: clusters[0].update(outlier_detection={"max_ejection_percent": 101}))
    wait_until(lambda: "NACK: version" in demo.log(), "the refusal", 5)
    assert re.search(r"(?is)NACK: version \d+ of clusters was refused: .*max_?ejection_?percent", demo.log())
    assert demo.get()[0] == 200
    shutil.copy(DEMO / "clusters.yaml", demo.config)
    wait_until(lambda: "ACK: version" in demo.log().rpartition("NACK")[2], "the good version", 5)
    assert demo.get()[0] == 200


@pytest.mark.parametrize("text", ["- name: [", "- {name: a, no_such_field: 1}", "- {}\n  x", "just words",
                                  "- typed_config: {'@type': type.googleapis.com/no.such.Type}"])
def test_unreadable_file(demo, text):
    before = demo.log()
    (demo.config / "routes.yaml").write_text(text)
    wait_until(lambda: "routes.yaml cannot be read, nothing changes" in demo.log()[len(before):], "the complaint", 5)
    assert demo.get()[0] == 200
    shutil.copy(DEMO / "routes.yaml", demo.config)


def test_taken_port(demo):
    """A second demo on the same ports says so and ends."""
    done = subprocess.run([sys.executable, DEMO / "run.py", "--sluice", SLUICE, "--port-base", str(demo.base)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(rf"gateway: port {demo.base} \(admin\) cannot be used: .*in use.*\n", done.stderr)


def test_no_binary():
    done = subprocess.run([sys.executable, DEMO / "run.py", "--sluice", "/no/such/file"], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "gateway: /no/such/file is not there: run make first\n")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_nothing_is_left(tmp_path, number, code):
    demo = Demo(tmp_path).start()
    child = demo.sluice_pid()
    folder = pathlib.Path(re.search(r"--cacert (\S+)/tls.crt", demo.log()).group(1))
    demo.signal(number)
    assert demo.wait_exit() == code, demo.log()
    wait_until(lambda: not pathlib.Path(f"/proc/{child}").exists(), "sluice to end")
    assert are_free(demo.ports.values())
    assert folder.exists() == (number == signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def test_sluice_that_dies(tmp_path):
    demo = Demo(tmp_path).start()
    os.kill(demo.sluice_pid(), signal.SIGKILL)
    assert demo.wait_exit() == 1
    assert "gateway: sluice ended with -9" in demo.log()
