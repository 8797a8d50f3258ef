"""A collector of statsd lines over UDP."""

import socket
import threading

from support.config import TYPE

WAIT_S, QUIET_S = 10, 0.3


class Statsd:
    """Reads on a thread of its own, as the system keeps few datagrams for a reader that is late."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.datagrams, self.arrived = [], threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while data := self.socket.recv(65536):
            with self.arrived:
                self.datagrams.append(data)
                self.arrived.notify_all()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        self.reader.join()
        self.socket.close()

    def sink(self, kind="Statsd", **fields):
        address = {"socket_address": {"address": "127.0.0.1", "port_value": self.port}}
        return {"name": f"envoy.stat_sinks.{kind.lower()}",
                "typed_config": {"@type": f"{TYPE}envoy.config.metrics.v3.{kind}Sink", "address": address, **fields}}

    def lines(self):
        return [line for d in self.datagrams for line in d.decode().split("\n")]

    def wait(self, done):
        with self.arrived:
            assert self.arrived.wait_for(lambda: done(self.lines()), WAIT_S), self.lines()[-20:]
        return self.lines()

    def wait_quiet(self):
        """Until nothing has come for a while; forgets it."""
        with self.arrived:
            while self.arrived.wait(QUIET_S):
                pass
            before, self.datagrams = self.datagrams, []
        return before

    def counted(self, name):
        """What a counter grew by, over all flushes so far."""
        return sum(int(line.split(":")[1].split("|")[0]) for line in self.lines() if line.startswith(name + ":"))
