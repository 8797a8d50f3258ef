#!/usr/bin/env python3
"""What a sidecar costs at a steady rate, Sluice beside a real Envoy: istiod pushes many services to a client's and a server's sidecar
(mutual TLS between them), requests go through both at a constant rate, and the proxies' CPU time, memory and added latency are told.

    ISTIO_BIN=… ENVOY=… SLUICE=build/sluice tests/bench/sidecar_cost.py [--services 1000] [--rate 1000] [--seconds 60]

Both get the same configuration: istiod is told to leave out the filters that a stock Envoy does not have. `--profile istio` is for
Sluice alone, with them. `--churn S` changes a service every S seconds meanwhile. ISTIO_BIN is as tests/conformance/istio wants it.
Prints a table, and JSON for `--json PATH`."""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "conformance/istio"), str(TESTS)]

from mesh import DataPlane, Identities, Istio, Workload  # noqa: E402
from resources import endpoint, resource, service_host  # noqa: E402
from support.process import free_port, wait_until  # noqa: E402
from support.proxy import Sluice, envoy_binary  # noqa: E402
from support.rawhttp import fetch  # noqa: E402
from support.upstream import Nginx  # noqa: E402

VANILLA = {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"}
CLIENT, SERVER = "127.0.0.41", "127.0.0.42"
CONNECTIONS = 20
WARM_UP_S = 3
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
TARGETS = {"cpu_s": 1 / 3, "pss_mb": 1 / 5, "p99_added_us": 1}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=1000, help="requests a second")
    parser.add_argument("--seconds", type=int, default=60, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--peers", default="envoy,sluice")
    parser.add_argument("--profile", choices=["vanilla", "istio"], default="vanilla")
    parser.add_argument("--access-log", default="/dev/stdout", help="as MeshConfig.accessLogFile; empty: none")
    parser.add_argument("--churn", type=float, default=0, help="seconds between changes of a service")
    parser.add_argument("--json")
    parser.add_argument("--work", help="keep everything in this folder")
    parser.add_argument("--hook", help="a command run with the proxies' process ids while requests flow")
    return parser.parse_args()


# ---- the mesh ----

def service(number, port, weight=1):
    """One of those that are only there to be known."""
    name = f"svc-{number}"
    ends = [endpoint(9000, f"10.{8 + k}.{number >> 8}.{number & 255}", labels={"security.istio.io/tlsMode": "istio"},
                     serviceAccount=name, weight=weight + k) for k in range(2)]
    return resource("ServiceEntry", name, {
        "hosts": [service_host(name)], "location": "MESH_INTERNAL", "resolution": "STATIC",
        "ports": [{"number": port, "name": "http", "protocol": "HTTP"}], "endpoints": [
            {**e, "ports": {"http": 9000}} for e in ends]})


def objects(count, ports):
    out, into, app = ports["out"], ports["in"], ports["app"]
    return [
        *[service(i, out) for i in range(count)],
        resource("WorkloadEntry", "server", {"address": SERVER, "serviceAccount": "server", "labels": {
            "app": "server", "security.istio.io/tlsMode": "istio"}}),
        resource("ServiceEntry", "server", {
            "hosts": [service_host("server")], "location": "MESH_INTERNAL", "resolution": "STATIC",
            "workloadSelector": {"labels": {"app": "server"}},
            "ports": [{"number": out, "name": "http", "protocol": "HTTP", "targetPort": into}]}),
        resource("Sidecar", "server", {
            "workloadSelector": {"labels": {"app": "server"}}, "egress": [{"hosts": ["./*"]}], "ingress": [
                {"port": {"number": into, "protocol": "HTTP", "name": "http"}, "bind": SERVER, "captureMode": "NONE",
                 "defaultEndpoint": f"127.0.0.1:{app}"}]}),
        resource("Sidecar", "client", {
            "workloadSelector": {"labels": {"app": "client"}}, "egress": [
                {"port": {"number": out, "protocol": "HTTP", "name": "http"}, "bind": "127.0.0.1", "captureMode": "NONE",
                 "hosts": ["./*"]}, {"hosts": ["./*"]}]}),
        resource("PeerAuthentication", "strict", {"mtls": {"mode": "STRICT"}}, version="security.istio.io/v1")]


def workload(name, address):
    return Workload(name=name, kind="sidecar", namespace="default", account=name, address=address,
                    labels={"app": name, "version": "v1", "security.istio.io/tlsMode": "istio"})


class Peer(DataPlane):
    """A data plane of the program under test; what it writes is not read for crashes."""

    def __init__(self, binary, *args, **options):
        self.binary = binary
        super().__init__(*args, **options)

    def end(self):
        self.end_hard()


class Churn:
    """Changes one service after the other until its block ends."""

    def __init__(self, istio, count, port, period):
        self.istio, self.count, self.port, self.period = istio, count, port, period
        self.changes, self.is_over = 0, threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.is_over.wait(self.period):
            self.changes += 1
            self.istio.kube.apply([service(self.changes % self.count, self.port, weight=1 + self.changes)])

    def __enter__(self):
        if self.period:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        if self.period:
            self.thread.join()


# ---- measuring ----

def cpu_s(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def pss_mb(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def switches(pid, kind):
    """Context switches of all threads: `voluntary`, to wait for something, or `nonvoluntary`, in favour of another process."""
    total = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            total += sum(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{kind}_ctxt"))
    return total


def spent(pids):
    """[(CPU seconds, waits, preemptions)] of processes up to now."""
    return [(cpu_s(p), switches(p, "voluntary"), switches(p, "nonvoluntary")) for p in pids]


def run_load(port, host, rate, seconds):
    """Latencies in microseconds, sorted, and how many requests failed."""
    command = [sys.executable, TESTS / "bench/steady_load.py", port, host, "/echo", rate, seconds, CONNECTIONS]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["latencies_us"], "no request was answered"
    return sorted(told["latencies_us"]), told["failed"]


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def quantiles(ordered):
    return {"p50_us": percentile(ordered, 0.50), "p99_us": percentile(ordered, 0.99)}


class Bench:
    def __init__(self, options, directory, stack):
        self.options, self.directory = options, directory
        self.ports = {name: free_port() for name in ("out", "in")}
        self.app = Nginx(directory / "app")
        stack.callback(self.app.stop)
        self.ports["app"] = self.app.port
        mesh = {"accessLogFile": options.access_log}
        if options.profile == "vanilla":
            mesh["defaultProviders"] = {}
        self.istio = Istio(directory / "istio", Identities(directory / "identities"), "agent", mesh,
                           VANILLA if options.profile == "vanilla" else {})
        stack.callback(self.istio.stop)
        self.istio.apply(objects(options.services, self.ports))
        self.istio.start()
        self.host = service_host("server")

    @contextlib.contextmanager
    def sidecars(self, name, binary):
        with contextlib.ExitStack() as stack:
            planes = []
            for role, address in (("server", SERVER), ("client", CLIENT)):
                directory = self.directory / f"{name}-{role}-{len(list(self.directory.iterdir()))}"
                plane = Peer(binary, directory, self.istio.istiod, workload(role, address))
                stack.callback(plane.end)
                planes.append(plane.start())
            wait_until(lambda: self.answers(), lambda: f"{name} to serve: {planes[1].log()[-2000:]}", 60)
            yield planes

    def answers(self):
        with contextlib.suppress(OSError, EOFError):
            return fetch(self.ports["out"], "/echo", host=f"{self.host}:{self.ports['out']}").status == 200
        return False

    def load(self, port, seconds):
        return run_load(port, f"{self.host}:{port}", self.options.rate, seconds)

    def measure(self, name, binary):
        o = self.options
        direct, _ = self.load(self.app.port, max(5, o.seconds // 4))
        with self.sidecars(name, binary) as planes:
            pids = [plane.proxy_pid for plane in planes]
            self.load(self.ports["out"], WARM_UP_S)
            hook = subprocess.Popen([*o.hook.split(), *map(str, pids)]) if o.hook else None
            before, started = spent(pids), time.monotonic()
            with Churn(self.istio, o.services, self.ports["out"], o.churn) as churn:
                through, failed = self.load(self.ports["out"], o.seconds)
            seconds = time.monotonic() - started
            used = [[now - then for now, then in zip(*pair)] for pair in zip(spent(pids), before)]
            cpu, waits, preempted = zip(*used)
            if hook:
                hook.wait()
            base, mine = quantiles(direct), quantiles(through)
            return {"requests": len(through), "failed": failed, "seconds": seconds, "changes": churn.changes,
                    "cpu_server_s": cpu[0], "cpu_client_s": cpu[1], "cpu_s": sum(cpu),
                    "cpu_us_request": 1e6 * sum(cpu) / len(through), "waits_request": sum(waits) / len(through), "preempted_request": sum(preempted) / len(through),
                    "pss_server_mb": pss_mb(pids[0]), "pss_client_mb": pss_mb(pids[1]), "pss_mb": sum(map(pss_mb, pids)),
                    **mine, "direct_p50_us": base["p50_us"], "direct_p99_us": base["p99_us"],
                    "p50_added_us": mine["p50_us"] - base["p50_us"], "p99_added_us": mine["p99_us"] - base["p99_us"]}


def report(results):
    names = list(results)
    medians = {n: {k: statistics.median(row[k] for row in rows) for k in rows[0]} for n, rows in results.items()}
    print(f"{'':18}" + "".join(f"{n:>12}" for n in names))
    for key in medians[names[0]]:
        line = f"{key:18}" + "".join(f"{medians[n][key]:12.2f}" for n in names)
        both = "envoy" in medians and "sluice" in medians and medians["envoy"][key]
        if both:
            line += f"   {medians['sluice'][key] / medians['envoy'][key]:.2f}"
            line += f" (target {TARGETS[key]:.2f})" if key in TARGETS else ""
        print(line)
    return medians


def main():
    options = arguments()
    programs = {"envoy": envoy_binary(), "sluice": Sluice.binary}
    results = {}
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(options.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="sidecar-cost-")))
        bench = Bench(options, directory, stack)
        for _ in range(options.rounds):
            for name in options.peers.split(","):
                results.setdefault(name, []).append(bench.measure(name, programs[name]))
    medians = report(results)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({"options": vars(options), "median": medians, "rounds": results}, indent=1))


if __name__ == "__main__":
    main()
