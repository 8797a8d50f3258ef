"""What stands behind and before the data planes: servers that tell what reached them, and clients that never pause."""

import contextlib
import json
import ssl
import threading

from support.process import wait_until
from support.rawhttp import Client, fetch
from support.upstream import Reply, ScriptedUpstream

CLIENTS = 2
KEPT_FAILURES = 5
LEFT_SAMPLE = 30


class App(ScriptedUpstream):
    """Answers each request with what it was, as JSON. Over TLS it also tells the server name, ALPN and names of the client."""

    def __init__(self, label, tls=None):
        self.label = label
        self.server_names = {}
        self.clients = {}
        self.alpn = {}
        if tls:
            tls.sni_callback = lambda sock, name, _: self.server_names.__setitem__(id(sock), name)
        super().__init__(tls)
        self.script(self.tell)

    def serve(self, sock, number):
        if self.tls:
            self.clients[number] = [v for _, v in (sock.getpeercert() or {}).get("subjectAltName", ())]
            self.server_names[number] = self.server_names.pop(id(sock), None)
            self.alpn[number] = sock.selected_alpn_protocol()
        super().serve(sock, number)

    def tell(self, request):
        about = {"server": self.label, "method": request.method, "path": request.target, "body": request.body.decode("latin-1"),
                 "headers": {n.lower(): v for n, v in request.headers}, "sni": self.server_names.get(request.connection),
                 "peer": self.clients.get(request.connection), "alpn": self.alpn.get(request.connection)}
        return Reply(headers=[("content-type", "application/json")], body=json.dumps(about).encode())


def greet(label):
    """A handler for ByteUpstream: a greeting, then each line comes back behind the server's name."""
    def handler(sock, _):
        sock.sendall(f"{label} ready\n".encode())
        with sock.makefile("rb") as lines:
            for line in lines:
                sock.sendall(label.encode() + b":" + line)
    return handler


def told(answer):
    """What an App said; the answer has to be its own."""
    assert answer.status == 200, answer
    return json.loads(answer.body)


def get(port, host, path="/", **options):
    return fetch(port, path, host=host, **options)


def trusting(authority, pair=None, alpn=("http/1.1",)):
    """A client's TLS context."""
    return authority.client_context(pair, alpn)


def is_refused(port, server_name, tls):
    """Whether a TLS client is turned away: in the handshake, or at its first request (TLS 1.3 tells of a bad client then)."""
    try:
        with Client(port, tls=tls, server_name=server_name, timeout=5) as client:
            client.request("GET", "/", host=server_name)
        return False
    except (ssl.SSLError, ConnectionError, EOFError, BrokenPipeError):
        return True


class Traffic:
    """Requests without a pause from a few connections, until the block ends; then none may have failed."""

    def __init__(self, send, clients=CLIENTS):
        """`send(client_number)` makes one request; what it raises is a failure, what it returns is counted."""
        self.send = send
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        self.counts, self.failures, self.failed = {}, [], 0
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(clients)]

    def run(self, number):
        while not self.is_over.is_set():
            try:
                result = self.send(number)
            except Exception as e:  # noqa: BLE001 whatever it is, it is a request that failed
                with self.lock:
                    self.failed += 1
                    self.failures = [*self.failures, repr(e)][:KEPT_FAILURES]
                continue
            with self.lock:
                self.counts[result] = self.counts.get(result, 0) + 1

    def done(self):
        with self.lock:
            return sum(self.counts.values())

    def seen(self, result):
        with self.lock:
            return self.counts.get(result, 0)

    def forget(self):
        """Counts start again; failures stay."""
        with self.lock:
            self.counts = {}

    def wait_left(self, result):
        """Until a whole sample is without a result: workers take an update over one after the other."""
        def is_left():
            self.forget()
            wait_until(lambda: self.done() >= LEFT_SAMPLE, "a sample", 20)
            return not self.seen(result)
        wait_until(is_left, f"{result} to be left", 20)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join(30)
        if kind is None:
            assert not self.failed, f"{self.failed} failed beside {self.counts}: {self.failures}"
            assert self.counts, "no request was made"


class Keeper:
    """One connection for each client of Traffic, opened again when the proxy asks to leave it."""

    def __init__(self, port, host, path="/", **options):
        self.port, self.host, self.path, self.options = port, host, path, options
        self.open = {}

    def request(self, number):
        """The answer on the client's connection; a server that says close is obeyed."""
        client = self.open.get(number) or Client(self.port, **self.options)
        self.open.pop(number, None)
        try:
            answer = client.request("GET", self.path, host=self.host)
        except BaseException:
            client.close()
            raise
        if "close" in (answer.get("connection") or "") or not answer.is_complete:
            client.close()
        else:
            self.open[number] = client
        return answer

    def server(self, number):
        """The label of the App that answered 200."""
        return told(self.request(number))["server"]

    def close(self):
        for client in self.open.values():
            with contextlib.suppress(OSError):
                client.close()
