"""Starts programs the tests talk to, waits for them without sleeping blindly, and ends them by their process id."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import time

STARTUP_S = 30
POLL_S = 0.01


def wait_until(check, what, seconds=10):
    """Poll `check` until it returns something true, which is returned; fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what() if callable(what) else what}")
        time.sleep(POLL_S)


def can_connect(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _ports_nobody_is_given():
    """Those below what the kernel hands to connections and to binds of port 0: one of these stays free until it is bound."""
    first = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return range(10240, first) if first > 20000 else range(61000, 65536)


_given_ports = set()


def free_port():
    """A port of its own, which nothing listens on now; for servers that cannot be asked which port they got."""
    while True:
        port = random.choice(_ports_nobody_is_given())
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            if port not in _given_ports:
                _given_ports.add(port)
                return port


class Process:
    """A child with its output in a file."""

    def __init__(self, name, directory):
        self.name = name
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.log_path = self.directory / f"{name}.log"
        self.child = None

    def launch(self, command, env=None):
        with self.log_path.open("ab") as log:
            self.child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=subprocess.STDOUT, cwd=self.directory,
                                          env={**os.environ, **(env or {})})
        return self

    @property
    def pid(self):
        return self.child.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def has_exited(self):
        return self.child.poll() is not None

    def expect_running(self):
        assert not self.has_exited(), f"{self.name} exited with {self.child.returncode}:\n{self.log()[-6000:]}"
        return True

    def signal(self, number):
        self.child.send_signal(number)

    def wait_exit(self, seconds=15):
        return self.child.wait(seconds)

    def stop(self):
        """Ends the child; returns its exit code. One that does not obey within 15 s is killed and counts as failed."""
        if self.child is None:
            return 0
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(15)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(15)
                raise AssertionError(f"{self.name} did not end on SIGTERM:\n{self.log()[-6000:]}") from None
        return self.child.returncode
