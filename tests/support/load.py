"""Continuous load from a process of its own: `load.py KIND PORT [CA]`, until its standard input ends.

Each client opens a connection, sends some requests over it, as a well-behaved client does (it leaves when asked to), and opens
the next. What the proxy did not take (an HTTP/2 stream beyond the last one that GOAWAY names) is sent again; anything else that
is not a whole 200 with the expected body is a failure. The result is one line of JSON."""

import json
import pathlib
import random
import socket
import ssl
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import h2.connection  # noqa: E402
import h2.events  # noqa: E402
import h2.exceptions  # noqa: E402

from support.h2client import H2Client  # noqa: E402
from support.rawhttp import Client  # noqa: E402

CLIENTS = 2
PAUSE_S = 0.004
BODY = b"GET test\n"
REQUESTS_MAX = 200       # of one connection
SERVER_NAME = "churn.test"
KEPT_FAILURES = 20


class Load:
    def __init__(self, kind, port, authority):
        self.kind, self.port, self.authority = kind, port, authority
        self.is_over = threading.Event()
        self.lock = threading.Lock()
        self.done = self.connections = self.resent = self.failed = 0
        self.failures = []

    def tls(self, *alpn):
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols(list(alpn))
        return {"tls": context, "server_name": SERVER_NAME}

    def count(self, is_resent=False):
        with self.lock:
            self.done += not is_resent
            self.resent += is_resent
        self.is_over.wait(PAUSE_S)

    def fail(self, what):
        with self.lock:
            self.failed += 1
            if len(self.failures) < KEPT_FAILURES:
                self.failures.append(f"{time.strftime('%H:%M:%S')} {what}")

    def goes_on(self, left):
        return left > 0 and not self.is_over.is_set()

    # ---- one connection each ----

    def h1(self, requests, **options):
        opened, left = time.monotonic(), requests
        with Client(self.port, **options) as client:
            while self.goes_on(left):
                left -= 1
                try:
                    answer = client.request("GET", "/echo")
                except (EOFError, OSError) as e:
                    raise EOFError(f"{e!r} in request {requests - left} after {time.monotonic() - opened:.3f} s") from e
                check(answer.status == 200 and answer.body == BODY and answer.is_complete, answer)
                self.count()
                if "close" in answer.get("connection", ""):
                    return

    def h2(self, requests, **options):
        with LeavingClient(self.port, **options) as client:
            while self.goes_on(requests) and client.goaway is None:
                requests -= 1
                try:
                    stream = client.open([(":method", "GET"), (":scheme", "http"), (":authority", "test"),
                                          (":path", "/echo")])
                except h2.exceptions.ProtocolError:
                    check(client.goaway is not None, "connection closed to new streams")
                    return
                answer = client.wait(stream)
                if client.last_stream is not None and stream > client.last_stream:
                    self.count(is_resent=True)
                    return
                check(answer.status == 200 and answer.body == BODY and answer.is_ended and answer.reset is None,
                      f"{answer.status} {answer.headers} {answer.body[:100]!r} reset {answer.reset} "
                      f"goaway {client.goaway} stream {stream} of {client.last_stream}")
                self.count()

    def tls_h1(self, requests):
        self.h1(requests, **self.tls("http/1.1"))

    def tls_h2(self, requests):
        self.h2(requests, **self.tls("h2"))

    def tcp(self, requests):
        """The server behind ends the connection after its answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as sock:
            sock.sendall(b"GET /echo HTTP/1.0\r\nHost: test\r\n\r\n")
            data = b""
            while more := sock.recv(65536):
                data += more
            check(data.startswith(b"HTTP/1.1 200 ") and data.endswith(b"\r\n\r\n" + BODY), data[:200])
            self.count()

    # ---- all of them ----

    def client(self, seed):
        rng = random.Random(seed)
        while not self.is_over.is_set():
            with self.lock:
                self.connections += 1
            try:
                getattr(self, self.kind)(rng.choice((1, 3, REQUESTS_MAX)))
            except (AssertionError, EOFError, OSError, ValueError, h2.exceptions.ProtocolError) as e:
                self.fail(f"{type(e).__name__}: {e}")
                self.is_over.wait(PAUSE_S)

    def run(self):
        threads = [threading.Thread(target=self.client, args=(n,)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        self.is_over.set()
        for thread in threads:
            thread.join()
        print(json.dumps({"kind": self.kind, "done": self.done, "connections": self.connections, "resent": self.resent,
                          "failed": self.failed, "failures": self.failures}))


class LeavingStates(h2.connection.H2ConnectionStateMachine):
    """GOAWAY is not the end of the connection: streams under way go on."""

    _transitions = {**h2.connection.H2ConnectionStateMachine._transitions,
                    (h2.connection.ConnectionState.CLIENT_OPEN, h2.connection.ConnectionInputs.RECV_GOAWAY):
                        (None, h2.connection.ConnectionState.CLIENT_OPEN)}


class LeavingClient(H2Client):
    """Remembers the last stream the server takes."""

    last_stream = None

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        state = self.connection.state_machine.state
        self.connection.state_machine = LeavingStates()
        self.connection.state_machine.state = state

    def on_event(self, event):
        if isinstance(event, h2.events.ConnectionTerminated):
            self.last_stream = event.last_stream_id
        super().on_event(event)


def check(is_good, what):
    if not is_good:
        raise AssertionError(what)


if __name__ == "__main__":
    Load(sys.argv[1], int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None).run()
