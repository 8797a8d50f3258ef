"""An HTTP/2 upstream on the h2 library: serves bodies by path, and can refuse streams or go away."""

import h2.config
import h2.connection
import h2.events

from support.upstream import Gone, Request, TcpServer


def text_pairs(headers):
    decoded = [(n if isinstance(n, str) else n.decode(), v if isinstance(v, str) else v.decode("latin-1")) for n, v in headers]
    return dict(decoded), [(n, v) for n, v in decoded if not n.startswith(":")]


class Session:
    """One connection."""

    def __init__(self, server, sock, number):
        self.server, self.sock, self.number = server, sock, number
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
        self.streams = {}
        self.unsent = {}
        self.answered = 0

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def run(self):
        self.h2.initiate_connection()
        self.flush()
        while data := self.sock.recv(65536):
            for event in self.h2.receive_data(data):
                self.on_event(event)
            self.pump()
            self.flush()
        raise Gone

    def on_event(self, event):
        if isinstance(event, h2.events.RequestReceived):
            head, headers = text_pairs(event.headers)
            self.streams[event.stream_id] = Request(head[":method"], head.get(":path", ""), "HTTP/2", headers, self.number)
        elif isinstance(event, h2.events.DataReceived):
            self.streams[event.stream_id].body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            self.streams[event.stream_id].trailers = text_pairs(event.headers)[1]
        elif isinstance(event, h2.events.StreamEnded):
            self.answer(event.stream_id, self.streams.pop(event.stream_id))
        elif isinstance(event, h2.events.StreamReset):
            self.streams.pop(event.stream_id, None)
            self.unsent.pop(event.stream_id, None)

    def answer(self, stream, request):
        server = self.server
        with server.lock:
            refused = server.refuse > 0
            server.refuse -= refused
            if not refused:
                server.requests.append(request)
        if refused:
            self.h2.reset_stream(stream, 7)
            return
        body = server.files.get(request.target)
        status = "404" if body is None else "200"
        ends = request.method == "HEAD" or not (body or server.trailers)
        self.h2.send_headers(stream, [(":status", status), ("content-length", str(len(body or b"")))], end_stream=ends)
        if not ends:
            self.unsent[stream] = body or b""
        self.answered += 1
        if self.answered == server.goaway_after:
            # One write with the answer: who has read the answer knows that the connection goes away.
            self.pump()
            self.sock.sendall(self.h2.data_to_send() + b"\0\0\x08\x07\0\0\0\0\0" + stream.to_bytes(4, "big") + bytes(4))

    def pump(self):
        """Send what the windows allow."""
        for stream, body in list(self.unsent.items()):
            while body and (room := min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)) > 0:
                piece, body = body[:room], body[room:]
                self.h2.send_data(stream, piece, end_stream=not body and not self.server.trailers)
            self.unsent[stream] = body
            if not body:
                del self.unsent[stream]
                if self.server.trailers:
                    self.h2.send_headers(stream, self.server.trailers, end_stream=True)


class H2Upstream(TcpServer):
    """`files` maps paths to bodies; the first `refuse` streams are refused; GOAWAY comes after `goaway_after` answers."""

    def __init__(self, files, refuse=0, goaway_after=0, trailers=(), tls=None, port=None):
        self.files, self.refuse, self.goaway_after, self.trailers = files, refuse, goaway_after, list(trailers)
        self.requests = []
        super().__init__(tls, port)

    def serve(self, sock, number):
        Session(self, sock, number).run()
