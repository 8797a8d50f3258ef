"""A TCP relay whose connections can go silent: they stay open, and no byte passes any more."""
import contextlib
import socket
import threading


class BlackHole:
    """with BlackHole(target_port) as hole: … hole.port … hole.freeze(): those open now; new ones pass."""

    def __init__(self, target):
        self.target, self.lock = target, threading.Lock()
        self.pairs, self.frozen = [], set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                with self.lock:
                    number = len(self.pairs)
                    self.pairs.append((near, far))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self.relay, args=(number, a, b), daemon=True).start()

    def relay(self, number, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if number not in self.frozen:
                    sink.sendall(data)
            if number not in self.frozen:
                sink.shutdown(socket.SHUT_WR)

    def freeze(self):
        with self.lock:
            self.frozen = set(range(len(self.pairs)))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        for pair in self.pairs:
            for s in pair:
                s.close()
