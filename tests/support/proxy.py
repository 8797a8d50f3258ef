"""Sluice and Envoy as processes, with the same interface: start with a bootstrap, learn ports, ask admin, read logs."""

import http.client
import json
import os
import pathlib
import re
import sys
import time
import urllib.parse

from support.process import POLL_S, STARTUP_S, Process, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a sanitizer or a failed check leaves in the log.
CRASHES = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|assert failure|envoy bug failure|"
                     r"\[critical\]|Caught .*signal")


def is_sanitized(binary):
    """Slower, with memory kept that is freed, and with a runtime that suffers none before it."""
    return bool({"asan", "tsan"} & set(pathlib.Path(binary).parts))


class AdminAnswer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


class Proxy(Process):
    """One proxy process. The bootstrap is a dict; its admin and listeners should use port 0."""

    binary = None

    def __init__(self, directory, bootstrap, name, args=(), concurrency=1, env=None):
        super().__init__(name, directory)
        self.bootstrap = bootstrap
        self.args = list(args)
        self.concurrency = concurrency
        self.env = env
        self.config_path = self.directory / f"{name}.json"
        self.admin_path = self.directory / f"{name}.admin"
        self.admin_address = None

    def command(self):
        self.config_path.write_text(json.dumps(self.bootstrap, indent=1))
        config = [] if "-c" in self.args else ["-c", self.config_path]
        return [self.binary, *config, "--admin-address-path", self.admin_path, "--concurrency",
                self.concurrency, "--disable-hot-restart", "--file-flush-interval-msec", "10", *self.args]

    def start(self, ready=True):
        self.admin_path.unlink(missing_ok=True)
        self.launch(self.command(), self.env)
        wait_until(lambda: self.expect_running() and self.admin_path.exists() and self.admin_path.read_text(),
                   f"{self.name}'s admin", STARTUP_S)
        host, port = self.admin_path.read_text().rsplit(":", 1)
        self.admin_address = (host, int(port))
        if ready:
            wait_until(lambda: self.expect_running() and self.admin("/ready").status == 200,
                       lambda: f"{self.name} to be ready: {self.admin('/ready').text} {self.admin('/init_dump').text}",
                       STARTUP_S)
        return self

    # ---- admin ----

    def admin(self, path, method="GET", body=None, headers=None):
        connection = http.client.HTTPConnection(*self.admin_address, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return AdminAnswer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def post(self, path):
        return self.admin(path, "POST")

    def listeners(self):
        """{listener name: (address, port)} of those that have one"""
        found = {s["name"]: s["local_address"].get("socket_address")
                 for s in self.admin("/listeners?format=json").json.get("listener_statuses", [])}
        return {name: (a["address"], a["port_value"]) for name, a in found.items() if a}

    def port(self, listener=None):
        found = self.listeners()
        return found[listener][1] if listener else next(iter(found.values()))[1]

    def stats(self, pattern=""):
        """Counters and gauges whose name matches the pattern."""
        answer = self.admin(f"/stats?format=json&filter={urllib.parse.quote(pattern)}").json
        return {s["name"]: s["value"] for s in answer["stats"] if "name" in s}

    def stat(self, name):
        return self.stats(f"^{re.escape(name)}$").get(name)

    def wait_stat(self, name, value, seconds=10):
        """Waits until the stat is `value`, or satisfies it when it is a function."""
        wanted = value if callable(value) else lambda now: now == value
        return wait_until(lambda: wanted(self.stat(name) or 0),
                          lambda: f"{name} to become {value}, it is {self.stat(name)}", seconds)

    # ---- access logs ----

    def log_lines(self, path, count, seconds=10):
        """The lines of an access log file, once there are at least `count`."""
        file = pathlib.Path(path)

        def read():
            return file.read_text(errors="surrogateescape").splitlines() if file.exists() else []

        deadline = time.monotonic() + seconds
        while len(read()) < count and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return read()


class Sluice(Proxy):
    binary = os.environ.get("SLUICE", str(ROOT / "build/sluice"))

    def __init__(self, directory, bootstrap, name="sluice", **options):
        super().__init__(directory, bootstrap, name, **options)

    def stop(self):
        crashed_before = self.child is not None and self.has_exited()
        code = super().stop()
        log = self.log()
        assert not CRASHES.search(log), f"{self.name}:\n{log[-8000:]}"
        assert not crashed_before or code == 0, f"{self.name} died with {code}:\n{log[-8000:]}"
        assert code == 0, f"{self.name} ended with {code}:\n{log[-8000:]}"
        return code


def envoy_binary():
    """The real Envoy, or None where it is not installed."""
    if os.environ.get("ENVOY"):
        return os.environ["ENVOY"]
    found = sorted(pathlib.Path(sys.prefix).glob("lib/python3*/site-packages/envoy/_bin/envoy"))
    return str(found[0]) if found else None


class Envoy(Proxy):
    binary = envoy_binary()

    def __init__(self, directory, bootstrap, name="envoy", **options):
        super().__init__(directory, bootstrap, name, **options)
