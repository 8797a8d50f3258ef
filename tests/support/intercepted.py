"""Two sidecars in network namespaces of their own, between which connections are redirected to them (netns.py), with a client and
a server's applications, configured as istiod does (mesh.py)."""

import contextlib
import re

from support import netns
from support.h2server import H2Upstream
from support.mesh import DB, GREETER, OTHER, WEB_H2, WEB_HTTP, WEB_TLS, Sidecars
from support.rawhttp import Client, fetch
from support.upstream import ByteUpstream, Gone, ScriptedUpstream

CLIENT, SERVER, OUTSIDE = "10.77.0.1", "10.77.0.2", "10.77.0.9"
VIP = "10.96.0.10"   # a service's address, that no machine has
UNKNOWN_PORT = 9999
FROM_SIDECAR = "127.0.0.6"
CLIENT_ID, SERVER_ID = "spiffe://cluster.local/ns/shop/sa/client", "spiffe://cluster.local/ns/shop/sa/server"


def node(name):
    return {"id": f"sidecar~{name}", "cluster": name, "metadata": {
        "NAME": f"{name}-1", "NAMESPACE": "shop", "WORKLOAD_NAME": name, "CLUSTER_ID": "c1", "LABELS": {
            "app": name, "version": "v1", "service.istio.io/canonical-name": name, "service.istio.io/canonical-revision": "v1"}}}


def greet(sock, server):
    """Speaks first, as MySQL does."""
    sock.sendall(b"hello\n")
    while data := sock.recv(4096):
        sock.sendall(data)
    raise Gone


class World:
    """Two namespaces and, in the server's, its applications."""

    def __init__(self, stack, authority, rules):
        self.client, self.server = netns.Namespace("client"), netns.Namespace("server")
        stack.callback(self.server.delete)
        stack.callback(self.client.delete)
        netns.join(self.client, self.server, [["10.77.0.1/24", "fd77::1/64"],
                                              ["10.77.0.2/24", "10.77.0.9/24", "fd77::2/64", "fd77::9/64"]])
        self.client.ip("route", "add", "10.96.0.0/16", "via", SERVER)
        self.server.ip("-6", "addr", "add", "::6/128", "dev", "lo", "nodad")
        self.client.nft(netns.REDIRECT)
        self.server.nft(rules)
        tls = authority.server_context(authority.leaf("app", "DNS:app.test"), alpn=["http/1.1"])
        with self.server.inside():
            self.web = ScriptedUpstream(port=WEB_HTTP)
            self.h2 = H2Upstream({"/": b"two"}, port=WEB_H2)
            self.tls = ScriptedUpstream(tls=tls, port=WEB_TLS)
            self.db = ByteUpstream(greet, port=DB)
            self.greeter = ByteUpstream(greet, port=GREETER)
            self.other = ByteUpstream(greet, port=OTHER)
            self.unknown = ScriptedUpstream(port=UNKNOWN_PORT)
        self.apps = (self.web, self.h2, self.tls, self.db, self.greeter, self.other, self.unknown)
        for app in self.apps:
            stack.callback(app.stop)


def world_of(authority, rules):
    netns.need()
    with contextlib.ExitStack() as stack:
        yield World(stack, authority, rules)


class Mesh:
    """A world with sidecars in it."""

    def __init__(self, world, authority, directory, stack, istio=False, allow_any=True, tproxy=False):
        self.world = world
        self.configs = Sidecars(authority, directory, istio)
        for app in world.apps:
            app.peers.clear()
        world.web.script()
        self.client = self.start(stack, directory / "client", self.configs.client(node("client"), allow_any), world.client)
        self.server = self.start(stack, directory / "server", self.configs.server(node("server"), tproxy), world.server)

    @staticmethod
    def start(stack, directory, bootstrap, space):
        proxy = netns.Sidecar(directory, bootstrap, space)
        stack.callback(proxy.stop)
        return proxy.start()

    def fetch(self, port, to, host, **options):
        with self.world.client.inside():
            return fetch(port, to=to, host=host, **options)

    def connect(self, port, to, **options):
        with self.world.client.inside():
            return Client(port, to=to, **options)

    def logged(self, name, count=1):
        """The last of so many lines, as a dict."""
        line = self.client.log_lines(self.configs.log(name), count)[-1]
        return dict(re.findall(r"(\w+)=(\S*)", line))
