"""Upstream servers: a scripted raw HTTP/1 one that records requests, a byte one for tcp_proxy, and nginx.
The HTTP/2 one is in h2server.py."""

import contextlib
import dataclasses
import shutil
import socket
import struct
import threading

from support.process import Process, can_connect, free_port, wait_until


@dataclasses.dataclass
class Reply:
    """How to answer one request. `raw` replaces everything else."""

    status: int = 200
    reason: str = "OK"
    headers: list = dataclasses.field(default_factory=list)
    body: bytes = b"ok"
    chunks: list = None          # send these as chunks instead of body
    trailers: list = dataclasses.field(default_factory=list)
    interim: list = dataclasses.field(default_factory=list)  # 1xx status codes to send first
    raw: bytes = None
    gate: threading.Event = None  # wait for it before answering
    body_gate: threading.Event = None  # wait for it between head and body
    length: bool = True          # send content-length
    close: bool = False          # close after the answer
    reset: bool = False          # reset the connection instead of, or after `raw`, answering
    silent: bool = False         # never answer
    early: bool = False          # answer before reading the body
    proceed: bool = False        # send 100 Continue before reading the body
    echo: bool = False           # afterwards, return every byte (upgraded connections)


@dataclasses.dataclass
class Request:
    method: str
    target: str
    version: str
    headers: list
    connection: int
    body: bytes = b""
    trailers: list = dataclasses.field(default_factory=list)
    is_chunked: bool = False
    is_complete: bool = False
    is_settled: bool = False  # nothing more of it will come

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name]

    def get(self, name, default=None):
        values = self.all(name)
        return ",".join(values) if values else default


class Gone(Exception):
    """The other side closed."""


class Reader:
    def __init__(self, sock):
        self.sock, self.data = sock, b""

    def fill(self):
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b""
        if not data:
            raise Gone
        self.data += data

    def until(self, mark):
        while mark not in self.data:
            self.fill()
        taken, self.data = self.data.split(mark, 1)
        return taken

    def exactly(self, n):
        while len(self.data) < n:
            self.fill()
        taken, self.data = self.data[:n], self.data[n:]
        return taken


def header_list(block):
    lines = [line for line in block.decode("latin-1").split("\r\n") if line]
    return [(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)]


def read_chunked(reader, request):
    while size := int(reader.until(b"\r\n").split(b";")[0], 16):
        request.body += reader.exactly(size)
        reader.exactly(2)
    block = b""
    while line := reader.until(b"\r\n"):
        block += line + b"\r\n"
    request.trailers = header_list(block)


def read_body(reader, request):
    request.is_chunked = "chunked" in (request.get("transfer-encoding") or "").lower()
    try:
        if request.is_chunked:
            read_chunked(reader, request)
        elif request.get("content-length"):
            request.body = reader.exactly(int(request.get("content-length")))
        request.is_complete = True
    finally:  # the answer may never come
        request.is_settled = True


class TcpServer:
    """Accepts connections and serves each on a thread of its own, until stopped. `port`: on every address, of either family."""

    def __init__(self, tls=None, port=None):
        self.tls = tls
        if port is None:
            self.listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        else:
            self.listening = socket.create_server(("::", port), family=socket.AF_INET6, backlog=256, dualstack_ipv6=True)
        self.port = self.listening.getsockname()[1]
        self.peers = []  # whom connections came from: (address, port)
        self.lock = threading.Lock()
        self.open = set()
        self.accepted = 0
        self.is_stopping = threading.Event()
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while not self.is_stopping.is_set():
            try:
                sock, peer = self.listening.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.accepted += 1
                number = self.accepted
                self.peers.append((peer[0].removeprefix("::ffff:"), peer[1]))
                self.open.add(sock)
            threading.Thread(target=self.run, args=(sock, number), daemon=True).start()

    def run(self, sock, number):
        plain = sock
        with contextlib.suppress(Gone, OSError, ValueError):
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
                with self.lock:  # the plain one is no socket any more
                    self.open.add(sock)
                    self.open.discard(plain)
            self.serve(sock, number)
        with self.lock:
            self.open -= {plain, sock}
        with contextlib.suppress(OSError):
            sock.close()

    def serve(self, sock, number):
        raise NotImplementedError

    def connections(self):
        with self.lock:
            return len(self.open)

    def drop_all(self):
        with self.lock:
            for sock in self.open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def stop(self):
        self.is_stopping.set()
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.drop_all()


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    raise Gone


class ScriptedUpstream(TcpServer):
    """Answers from a script: a list of replies, of which the last one repeats, or a function of the request."""

    def __init__(self, tls=None, port=None):
        self.requests = []
        self.replies = [Reply()]
        super().__init__(tls, port)

    def script(self, *replies):
        """Also forgets what was recorded."""
        with self.lock:
            self.requests = []
            self.replies = list(replies) or [Reply()]
        return self

    def next_reply(self, request):
        with self.lock:
            self.requests.append(request)
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return reply(request) if callable(reply) else reply

    def wait_requests(self, n, seconds=10):
        wait_until(lambda: len(self.requests) >= n, lambda: f"{n} requests, there are {self.requests}", seconds)
        return self.requests

    def serve(self, sock, number):
        reader = Reader(sock)
        while True:
            method, target, version = reader.until(b"\r\n").decode("latin-1").split(" ", 2)
            head = header_list(self.head_block(reader))
            request = Request(method, target, version, head, number)
            reply = self.next_reply(request)
            try:
                self.converse(sock, reader, request, reply)
            finally:
                request.is_settled = True
            if reply.echo:
                self.echo(sock, reader)

    def converse(self, sock, reader, request, reply):
        if reply.proceed:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not reply.early:
            read_body(reader, request)
        self.answer(sock, request, reply)
        if reply.early:
            read_body(reader, request)

    @staticmethod
    def head_block(reader):
        block = b""
        while line := reader.until(b"\r\n"):
            block += line + b"\r\n"
        return block

    @staticmethod
    def echo(sock, reader):
        while True:
            if reader.data:
                data, reader.data = reader.data, b""
                sock.sendall(data)
            reader.fill()

    def answer(self, sock, request, reply):
        while reply.silent or reply.gate and not reply.gate.is_set():
            if self.is_stopping.wait(0.01):
                raise Gone
        if reply.raw is not None:
            sock.sendall(reply.raw)
        if reply.reset:
            reset(sock)
        if reply.raw is None:
            self.send_reply(sock, request, reply)
        if reply.close:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            raise Gone

    def send_reply(self, sock, request, reply):
        for code in reply.interim:
            sock.sendall(b"HTTP/1.1 %d Interim\r\nx-interim: %d\r\n\r\n" % (code, code))
        headers = list(reply.headers)
        has_body = reply.status not in (101, 204, 304)
        if reply.chunks is not None:
            headers.append(("transfer-encoding", "chunked"))
        elif reply.length and has_body:
            headers.append(("content-length", str(len(reply.body))))
        head = "".join(f"{n}: {v}\r\n" for n, v in headers).encode("latin-1")
        sock.sendall(f"HTTP/1.1 {reply.status} {reply.reason}\r\n".encode() + head + b"\r\n")
        while reply.body_gate and not reply.body_gate.is_set():
            if self.is_stopping.wait(0.01):
                raise Gone
        if not has_body or request.method == "HEAD":
            return
        if reply.chunks is None:
            sock.sendall(reply.body)
            return
        for piece in reply.chunks:
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        trailers = "".join(f"{n}: {v}\r\n" for n, v in reply.trailers).encode("latin-1")
        sock.sendall(b"0\r\n" + trailers + b"\r\n")


class ByteUpstream(TcpServer):
    """Hands each accepted socket to `handler(sock, server)`; the default echoes until end, then closes."""

    def __init__(self, handler=None, tls=None, port=None):
        self.handler = handler or self.echo
        self.received = []
        super().__init__(tls, port)

    def serve(self, sock, number):
        self.handler(sock, self)

    @staticmethod
    def echo(sock, server):
        while data := sock.recv(65536):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    @staticmethod
    def answer(data):
        """A handler that sends these bytes once anything came, and no more."""
        def serve(sock, _):
            sock.recv(65536)
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        return serve

    @staticmethod
    def collect(sock, server):
        """Reads to the end, then answers with the number of bytes."""
        total = 0
        while data := sock.recv(1 << 18):
            total += len(data)
        server.received.append(total)
        sock.sendall(str(total).encode())
        sock.shutdown(socket.SHUT_WR)


NGINX = """
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.err;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_max_body_size 0;
  keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port};
    root {dir}/www;
    location = /echo {{ return 200 "$request_method $http_host\\n"; }}
    location /who {{ return 200 "$server_port $request_uri\\n"; }}
  }}
}}
"""


class Nginx(Process):
    """A file server; `files` maps names to bytes."""

    def __init__(self, directory, files=None):
        super().__init__("nginx", directory)
        root = self.directory / "www"
        root.mkdir(exist_ok=True)
        for name, data in (files or {"index.html": b"hello\n"}).items():
            (root / name).write_bytes(data)
        self.port = free_port()
        config = self.directory / "nginx.conf"
        config.write_text(NGINX.format(dir=self.directory, port=self.port))
        self.launch([shutil.which("nginx") or "/usr/sbin/nginx", "-c", config, "-e", self.directory / "nginx.err"])
        wait_until(lambda: self.expect_running() and can_connect(self.port), "nginx")
