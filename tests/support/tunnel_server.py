"""An upstream that answers CONNECT and POST as tunnels: it notes the request, then echoes in capitals until the
client's end. That it answers with BYE; over HTTP/1, where Envoy's tunnels end with their client's end, only behind
a question mark."""

import h2.config
import h2.connection
import h2.events

from support.upstream import Gone, TcpServer


class TunnelServer(TcpServer):
    """`status` None: closes instead of answering. `received`: (request headers in order, bytes) of each request."""

    def __init__(self, status=200, headers=(), trailers=(), is_http2=False, **server):
        self.status, self.headers, self.trailers, self.is_http2 = status, list(headers), list(trailers), is_http2
        self.received = []
        super().__init__(**server)

    def serve(self, sock, number):
        (self.serve_http2 if self.is_http2 else self.serve_http1)(sock)

    @staticmethod
    def reply(data):
        return data.upper()

    # ---- HTTP/1 ----

    def serve_http1(self, sock):
        """One tunnel after the other by POST: a connection that is kept alive must not end behind an answer."""
        data = self.serve_request(sock, b"")
        while data is not None:
            data = self.serve_request(sock, data)

    def serve_request(self, sock, data):
        """→ what came behind it; None: the connection ends."""
        while b"\r\n\r\n" not in data:
            data += sock.recv(65536) or self.gone()
        head, rest = data.split(b"\r\n\r\n", 1)
        first, *lines = head.decode().split("\r\n")
        method, target, _ = first.split(" ")
        noted = [[(":method", method), (":target", target)] + [tuple(line.split(": ", 1)) for line in lines], b""]
        self.received.append(noted)
        if self.status is None:
            return None
        is_chunked = method == "POST"
        fields = self.headers + ([("transfer-encoding", "chunked")] if is_chunked else [])
        sock.sendall(f"HTTP/1.1 {self.status} X\r\n{''.join(f'{k}: {v}{chr(13)}{chr(10)}' for k, v in fields)}\r\n".encode())
        return (self.echo_chunks if is_chunked else self.echo)(sock, rest, noted)

    @staticmethod
    def gone():
        raise Gone

    @staticmethod
    def echo(sock, data, noted):
        while data := data or sock.recv(65536):
            noted[1] += data
            sock.sendall(data.upper())
            data = b""
        if noted[1].endswith(b"?"):
            sock.sendall(b"BYE")

    def echo_chunks(self, sock, data, noted):
        while True:
            while b"\r\n" not in data:
                data += sock.recv(65536) or self.gone()
            size, data = data.split(b"\r\n", 1)
            size = int(size, 16)
            while len(data) < size + 2:
                data += sock.recv(65536) or self.gone()
            body, data = data[:size], data[size + 2:]
            noted[1] += body
            if not size:
                break
            sock.sendall(b"%x\r\n%s\r\n" % (size, body.upper()))
        bye = b"3\r\nBYE\r\n" if noted[1].endswith(b"?") else b""
        sock.sendall(bye + b"0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in self.trailers) + b"\r\n")
        return data

    # ---- HTTP/2 ----

    def serve_http2(self, sock):
        conn = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8",
                                                                    validate_inbound_headers=False))
        conn.initiate_connection()
        streams = {}
        while True:
            sock.sendall(conn.data_to_send())
            for event in conn.receive_data(sock.recv(65536) or self.gone()):
                if not self.on_http2_event(conn, event, streams):
                    return

    def on_http2_event(self, conn, event, streams):
        if isinstance(event, h2.events.RequestReceived):
            streams[event.stream_id] = [[tuple(pair) for pair in event.headers], b""]
            self.received.append(streams[event.stream_id])
            if self.status is None:
                return False
            conn.send_headers(event.stream_id, [(":status", str(self.status)), *self.headers])
        elif isinstance(event, h2.events.DataReceived):
            streams[event.stream_id][1] += event.data
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if event.data:
                conn.send_data(event.stream_id, self.reply(event.data))
        elif isinstance(event, h2.events.StreamEnded):
            conn.send_data(event.stream_id, b"BYE", end_stream=not self.trailers)
            if self.trailers:
                conn.send_headers(event.stream_id, self.trailers, end_stream=True)
        return True
