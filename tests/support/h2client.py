"""An HTTP/2 client over cleartext or TLS, built on the h2 library with its outbound checks off."""

import socket

import h2.config
import h2.connection
import h2.events

GOAWAY = 7


class H2Answer:
    def __init__(self):
        self.status, self.headers, self.trailers = None, [], []
        self.body, self.interim = b"", []
        self.is_ended, self.reset, self.goaway = False, None, None

    def get(self, name):
        return ",".join(v for n, v in self.headers if n == name) or None


def pairs(headers):
    text = [(n.decode() if isinstance(n, bytes) else n, v.decode("latin-1") if isinstance(v, bytes) else v)
            for n, v in headers]
    return [(n, v) for n, v in text if not n.startswith(":")]


class H2Client:
    def __init__(self, port, tls=None, server_name=None, timeout=15, to="127.0.0.1"):
        self.socket = socket.create_connection((to, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as in rawhttp
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        settings = h2.config.H2Configuration(client_side=True, header_encoding="latin-1",
                                             validate_outbound_headers=False, normalize_outbound_headers=False,
                                             validate_inbound_headers=False)
        self.connection = h2.connection.H2Connection(settings)
        self.connection.initiate_connection()
        self.answers = {}
        self.goaway = None
        self.unread = b""
        self.is_closed = False
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def flush(self):
        try:
            self.socket.sendall(self.connection.data_to_send())
        except OSError:
            self.is_closed = True

    def pump(self):
        """Read once; False at the end of the connection."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.is_closed = True
            return False
        for event in self.connection.receive_data(self.without_goaway(data)):
            self.on_event(event)
        self.flush()
        return True

    def without_goaway(self, data):
        """The library takes nothing after GOAWAY, yet streams below it go on: note it and pass the other frames."""
        self.unread += data
        passed = b""
        while len(self.unread) >= 9 and len(self.unread) >= (size := 9 + int.from_bytes(self.unread[:3], "big")):
            frame, self.unread = self.unread[:size], self.unread[size:]
            if frame[3] == GOAWAY:
                self.goaway = int.from_bytes(frame[13:17], "big")
            else:
                passed += frame
        return passed

    def on_event(self, event):
        answer = self.answers.get(getattr(event, "stream_id", None))
        if answer is None:
            return
        if isinstance(event, h2.events.InformationalResponseReceived):
            answer.interim.append((dict(event.headers)[":status"], pairs(event.headers)))
        elif isinstance(event, h2.events.ResponseReceived):
            answer.status = int(dict(event.headers)[":status"])
            answer.headers = pairs(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            answer.body += event.data
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            answer.trailers = pairs(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            answer.is_ended = True
        elif isinstance(event, h2.events.StreamReset):
            answer.reset = int(event.error_code)

    def open(self, headers, end=True):
        stream = self.connection.get_next_available_stream_id()
        self.answers[stream] = H2Answer()
        self.connection.send_headers(stream, headers, end_stream=end)
        self.flush()
        return stream

    def can_send(self, stream):
        answer = self.answers[stream]
        return not (answer.is_ended or answer.reset is not None or self.is_closed or self.goaway is not None)

    def send_body(self, stream, body, end=True):
        """Waits for window; stops early when the stream or the connection ends."""
        while body and self.can_send(stream):
            room = min(self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size)
            if room <= 0:
                if not self.pump():
                    return
                continue
            piece, body = body[:room], body[room:]
            self.connection.send_data(stream, piece, end_stream=end and not body)
            self.flush()

    def wait(self, stream):
        answer = self.answers[stream]
        while not answer.is_ended and answer.reset is None and self.pump():
            pass
        answer.goaway = self.goaway
        return answer

    def request(self, headers, body=b"", trailers=()):
        stream = self.open(headers, end=not body and not trailers)
        if body:
            self.send_body(stream, body, end=not trailers)
        if trailers and self.can_send(stream):
            self.connection.send_headers(stream, trailers, end_stream=True)
            self.flush()
        return self.wait(stream)

    def get(self, path="/", method="GET", headers=(), body=b"", authority="test", scheme="http", trailers=()):
        head = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path), *headers]
        return self.request(head, body, trailers)
