"""The services behind the gateway: HTTP counters, and a stand-in for MySQL. Threads of the calling process."""

import http.server
import itertools
import socketserver
import threading

LINE_BYTES_MAX = 65536


class Counter(http.server.ThreadingHTTPServer):
    """Answers each request with a running number and its version."""

    daemon_threads = True

    def __init__(self, port, version):
        self.text = f"counter {version}"
        self.numbers = itertools.count(1)
        super().__init__(("127.0.0.1", port), CounterHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that goes away is nothing to tell of."""


class CounterHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline(LINE_BYTES_MAX).split(b";")[0], 16):
                self.rfile.read(size + 2)
            while self.rfile.readline(LINE_BYTES_MAX).strip():
                pass
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_GET(self):
        self.read_body()
        body = f"{self.server.text}: {next(self.server.numbers)}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args):
        """The proxy has an access log."""


class Mysql(socketserver.ThreadingTCPServer):
    """Greets as a MySQL server would, speaking first, then sends each line back."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port):
        super().__init__(("127.0.0.1", port), MysqlHandler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that goes away is nothing to tell of."""


class MysqlHandler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"mysql stand-in ready\n")
        while line := self.rfile.readline(LINE_BYTES_MAX):
            self.wfile.write(line)
