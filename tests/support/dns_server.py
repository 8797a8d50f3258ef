"""A DNS server on a loopback UDP port: every A question is answered with 127.0.0.1, but for names it is told to be silent about
and, where it has a list of names, for all that are not in it."""
import contextlib
import socket
import struct
import threading

# The message that clusters given as dicts hold in an Any.
from envoy.extensions.network.dns_resolver.cares.v3 import cares_dns_resolver_pb2  # noqa: F401

A, AAAA, IN = 1, 28, 1
NO_ERROR, SERVER_FAILURE, NO_SUCH_NAME, REFUSED = 0, 2, 3, 5


def question(data):
    """(name, type, bytes of the question)"""
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1:at + 1 + data[at]].decode())
        at += 1 + data[at]
    kind, = struct.unpack_from("!H", data, at + 1)
    return ".".join(labels), kind, data[12:at + 5]


class DnsServer:
    """`names`: what is known of each, its addresses or an error code; may change at any time."""

    def __init__(self, silent=(), ttl_s=1, names=None):
        self.silent, self.ttl_s, self.names = set(silent), ttl_s, names
        self.asked = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)  # hundreds of questions at once
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def answer(self, data):
        name, kind, asked = question(data)
        self.asked.append(name)
        if name in self.silent:
            return None
        known = ["127.0.0.1"] if self.names is None else self.names.get(name, NO_SUCH_NAME)
        code, addresses = (known, []) if isinstance(known, int) else (NO_ERROR, known)
        raw = [socket.inet_pton(socket.AF_INET6 if ":" in a else socket.AF_INET, a) for a in addresses]
        found = [r for r in raw if len(r) == {A: 4, AAAA: 16}.get(kind)]
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(found), 0, 0)
        return head + asked + b"".join(struct.pack("!HHHIH", 0xC00C, kind, IN, self.ttl_s, len(r)) + r for r in found)

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                data, client = self.socket.recvfrom(4096)
                if not data:
                    return
                reply = self.answer(data)
                if reply:
                    self.socket.sendto(reply, client)

    def resolver(self, tries=1):
        """typed_dns_resolver_config of a cluster."""
        return {"name": "envoy.network.dns_resolver.cares", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
            "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": self.port}}],
            "query_timeout_seconds": 1, "query_tries": tries,
            "dns_resolver_options": {"use_tcp_for_dns_lookups": False, "no_default_search_domain": True}}}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.socket.sendto(b"", ("127.0.0.1", self.port))
        self.thread.join(5)
        self.socket.close()
