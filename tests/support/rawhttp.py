"""A plain HTTP/1 client that sends exactly the bytes it is given and reads answers strictly."""

import socket
import ssl


class Response:
    def __init__(self, version, status, reason, headers):
        self.version, self.status, self.reason, self.headers = version, status, reason, headers
        self.body = b""
        self.trailers = []
        self.interim = []      # 1xx answers before this one
        self.is_complete = True

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return ",".join(values) if values else default

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:200]!r}>"


class Client:
    """One connection. Reads raise EOFError when the peer closed early, TimeoutError when it is silent."""

    def __init__(self, port, tls=None, server_name=None, timeout=15, to="127.0.0.1"):
        self.socket = socket.create_connection((to, port), timeout=timeout)
        # else a request behind a TLS handshake waits 40 ms for the acknowledgement of the handshake's end
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def half_close(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def fill(self):
        try:
            data = self.socket.recv(65536)
        except (ConnectionResetError, ssl.SSLEOFError):
            data = b""
        if not data:
            raise EOFError(f"closed after {self.data!r}")
        self.data += data

    def line(self):
        while b"\r\n" not in self.data:
            self.fill()
        line, self.data = self.data.split(b"\r\n", 1)
        return line.decode("latin-1")

    def exactly(self, n):
        while len(self.data) < n:
            self.fill()
        taken, self.data = self.data[:n], self.data[n:]
        return taken

    def until_close(self):
        """Everything up to the end of the connection."""
        try:
            while True:
                self.fill()
        except EOFError:
            taken, self.data = self.data, b""
            return taken

    def is_closed(self, seconds=5):
        """True when the peer closes within `seconds` without sending more."""
        self.socket.settimeout(seconds)
        try:
            return not self.data and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False

    def header_lines(self):
        headers = []
        while line := self.line():
            name, value = line.split(":", 1)
            headers.append((name, value.strip()))
        return headers

    def chunked_body(self, response):
        while True:
            size = int(self.line().split(";")[0], 16)
            if size == 0:
                response.trailers = self.header_lines()
                return
            response.body += self.exactly(size)
            assert self.exactly(2) == b"\r\n", "chunk does not end in CRLF"

    def body(self, response, is_head):
        if is_head or response.status in (204, 304) or response.status < 200:
            return
        if "chunked" in (response.get("transfer-encoding") or ""):
            self.chunked_body(response)
        elif response.get("content-length") is not None:
            response.body = self.exactly(int(response.get("content-length")))
        else:
            response.body = self.until_close()

    def read_head(self):
        version, _, rest = self.line().partition(" ")
        status, _, reason = rest.partition(" ")
        return Response(version, int(status), reason, self.header_lines())

    def read(self, is_head=False):
        """The next final answer; a body cut short by a close gives is_complete False."""
        interim = []
        response = self.read_head()
        while response.status < 200 and response.status != 101:
            interim.append(response)
            response = self.read_head()
        response.interim = interim
        try:
            self.body(response, is_head)
        except EOFError:
            response.is_complete = False
            response.body += self.data
        return response

    def request(self, method, path, headers=(), body=b"", host="test"):
        """Send one request, read its answer."""
        return self.send(encode(method, path, headers, body, host)).read(method == "HEAD")


def encode(method, path, headers=(), body=b"", host="test"):
    """Bytes of a request; a content-length is added to a body unless headers frame it."""
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"host: {host}"] if host is not None else []
    lines += [f"{n}: {v}" for n, v in headers]
    body = body.encode() if isinstance(body, str) else body
    if body and not any(n.lower() in ("content-length", "transfer-encoding") for n, _ in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def fetch(port, path="/", method="GET", headers=(), body=b"", host="test", **client):
    """One request on a connection of its own."""
    with Client(port, **client) as c:
        return c.request(method, path, headers, body, host)


def chunks(*pieces, trailers=()):
    """A chunked body."""
    out = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)
    return out + b"0\r\n" + b"".join(b"%s: %s\r\n" % t for t in trailers) + b"\r\n"
