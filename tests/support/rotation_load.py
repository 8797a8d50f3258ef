"""Load on a client sidecar from a process of its own, until its standard input ends: rotation_load.py HTTP_PORT TCP_PORT PROGRESS.

A thread per kind of traffic: requests over connections that are kept and over new ones, streams and connections that last for as
long as the process. PROGRESS is a file with the number of the last rotation that both sidecars acknowledged; who opens a new
connection must see certificates at least that new (but for one: acknowledged is not yet adopted by each worker).
The result is one line of JSON: {kind: {"done", "connections", "failed", "failures", "checked"}}."""

import json
import pathlib
import re
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support.h2client import H2Client  # noqa: E402
from support.rawhttp import Client  # noqa: E402

BODY = b"GET test\n"
BIG = b"0123456789" * 10_000
BIG_EVERY = 10
PING = b"p" * 3000
KEPT_FAILURES = 20
ADOPTION_LAG = 1
LEAF_HEADERS = ("x-client-leaf", "x-server-leaf")


def check(is_good, what):
    if not is_good:
        raise AssertionError(what)


class Kind:
    """One thread's traffic: `exchange()` once every `pause_s`, over a connection opened anew after a failure only."""

    is_fresh = False  # does each exchange open a connection between the sidecars?

    def __init__(self, port, pause_s, progress):
        self.port, self.pause_s, self.progress = port, pause_s, progress
        self.done = self.connections = self.failed = self.checked = 0
        self.failures = []
        self.link = None

    def open(self):
        raise NotImplementedError

    def exchange(self):
        raise NotImplementedError

    def run(self, is_over):
        while not is_over.is_set():
            try:
                if self.link is None:
                    self.connections += 1
                    self.link = self.open()
                self.exchange()
                self.done += 1
            except Exception as e:  # whatever it is, it is a failure of the traffic
                self.failed += 1
                if len(self.failures) < KEPT_FAILURES:
                    self.failures.append(f"{time.strftime('%H:%M:%S')} {type(e).__name__}: {e}")
                self.close()
            is_over.wait(self.pause_s)
        self.close()

    def close(self):
        if self.link is not None:
            getattr(self.link, "socket", self.link).close()
        self.link = None

    def rotation(self):
        return int(self.progress.read_text())

    def check_leaves(self, get, least):
        for header in LEAF_HEADERS:
            found = re.search(r"CN=\w+-(\d+)", get(header) or "")
            check(found and int(found[1]) >= least, f"{header} {get(header)}, expected {least} or later")
        self.checked += 1


class H1(Kind):
    path = "/h1"

    def open(self):
        return Client(self.port)

    def exchange(self):
        least = self.rotation() - ADOPTION_LAG if self.is_fresh else 0
        is_big = self.done % BIG_EVERY == 0
        answer = self.link.request("GET", self.path + "/big" if is_big else self.path)
        check(answer.status == 200 and answer.is_complete and answer.body == (BIG if is_big else BODY),
              f"{answer} {answer.body[:200]!r}")
        check("close" not in (answer.get("connection") or ""), "connection: close")
        self.check_leaves(answer.get, least)


class H1New(H1):
    path, is_fresh = "/h1-new", True


class H2(Kind):
    path = "/h2"

    def open(self):
        return H2Client(self.port)

    def exchange(self):
        least = self.rotation() - ADOPTION_LAG if self.is_fresh else 0
        answer = self.link.get(self.path)
        check(answer.status == 200 and answer.is_ended and answer.reset is None and answer.body == BODY
              and answer.goaway is None, f"{answer.status} {answer.headers} {answer.body[:200]!r} {answer.reset} {answer.goaway}")
        self.check_leaves(answer.get, least)
        self.link.answers.clear()


class H2New(H2):
    path, is_fresh = "/h2-new", True


class Stream(Kind):
    """One HTTP/2 request whose body goes on and on; the server sends back what comes."""

    def open(self):
        client = H2Client(self.port)
        self.stream = client.open([(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/stream")], end=False)
        return client

    def exchange(self):
        self.link.send_body(self.stream, PING, end=False)
        answer = self.link.answers[self.stream]
        while len(answer.body) < len(PING):
            check(not answer.is_ended and answer.reset is None and self.link.pump(), "the stream ended")
        check(answer.status == 200 and answer.body == PING, f"{answer.status} {answer.body[:100]!r}")
        answer.body = b""


class Bytes(Kind):
    """One TCP connection."""

    def open(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=15)

    def exchange(self):
        self.link.sendall(PING)
        data = b""
        while len(data) < len(PING):
            more = self.link.recv(65536)
            check(more, "closed")
            data += more
        check(data == PING, "other bytes")


class BytesNew(Bytes):
    is_fresh = True

    def exchange(self):
        super().exchange()
        self.link.shutdown(socket.SHUT_WR)
        check(self.link.recv(1) == b"", "bytes behind the end")
        self.close()


def main(http_port, tcp_port, progress):
    kinds = {"h1": H1(http_port, 0.02, progress), "h1_new": H1New(http_port, 0.02, progress),
             "h2": H2(http_port, 0.025, progress), "h2_new": H2New(http_port, 0.05, progress),
             "stream": Stream(http_port, 0.1, progress), "bytes": Bytes(tcp_port, 0.1, progress),
             "bytes_new": BytesNew(tcp_port, 0.05, progress)}
    is_over = threading.Event()
    threads = [threading.Thread(target=kind.run, args=(is_over,)) for kind in kinds.values()]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    is_over.set()
    for thread in threads:
        thread.join()
    shown = ("done", "connections", "checked", "failed", "failures")
    print(json.dumps({name: {field: getattr(kind, field) for field in shown} for name, kind in kinds.items()}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]))
