"""A scripted control plane over REST: POST /v3/discovery:<type>.

    with RestServer() as rest:
        rest.answers["clusters"] = {"version_info": "1", "resources": [...]}   # until it is changed; or (status, text)
        request = rest.wait(lambda r: r.type == "listeners")
"""
import http.server
import json
import ssl
import threading
import time

WAIT_S = 20


class Polled:
    def __init__(self, path, headers, body):
        self.path, self.headers, self.body, self.at = path, headers, body, time.monotonic()
        self.type = path.rsplit(":", 1)[-1]
        self.json = json.loads(body)

    def __repr__(self):
        shown = {k: v for k, v in self.json.items() if k != "node"}
        return f"<{self.path} {shown}>"


class RestServer:
    def __init__(self, certificate=None):
        self.lock = threading.Condition()
        self.requests, self.answers, self.silent = [], {}, set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.answer(self, Polled(self.path, dict(self.headers.items()), body))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def answer(self, handler, request):
        with self.lock:
            self.requests.append(request)
            answer = self.answers.get(request.type, (404, ""))
            self.lock.notify_all()
            if request.type in self.silent:  # until the other side gives up
                self.lock.wait_for(lambda: request.type not in self.silent, WAIT_S)
        status, text = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
        try:
            handler.send_response(status)
            handler.send_header("content-type", "application/json")
            if status != 304:
                handler.send_header("content-length", str(len(text.encode())))
            handler.end_headers()
            if status != 304:
                handler.wfile.write(text.encode())
        except OSError:
            pass  # given up

    def wait(self, condition, after=0):
        deadline = time.monotonic() + WAIT_S
        with self.lock:
            while True:
                for request in self.requests[after:]:
                    if condition(request):
                        return request
                assert self.lock.wait(deadline - time.monotonic()), f"no such request among {self.requests}"

    def next(self, kind):
        """The next poll of a type from now."""
        return self.wait(lambda r: r.type == kind, len(self.requests))

    def of(self, kind):
        return [r for r in self.requests if r.type == kind]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.lock:
            self.silent.clear()
            self.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()
