"""Two sidecars, mutual TLS between them, and an agent beside each that hands it a new certificate all the time:
see tests/conformance/test_rotation.py.

An agent serves two secrets over its UNIX socket, as pilot-agent does: "default", the workload's certificate and key, and "ROOTCA",
what is trusted. Each rotation brings each workload a new key and leaf. From time to time the leaf has a new intermediate above
it, and from time to time the root changes: first both roots are trusted, then the leaves come from the new one, then the old one
is trusted no longer, one rotation each."""

import contextlib
import json
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time

from support import config
from support.ads_server import SECRET, AdsServer
from support.certs import openssl
from support.rotation_load import BIG
from support.upstream import ByteUpstream, Nginx, Reader
from support.xds_config import api_source, xds_cluster

CLIENT = "spiffe://cluster.local/ns/demo/sa/client"
SERVER = "spiffe://cluster.local/ns/demo/sa/server"
LEAF_DAYS = 2
ACK_S = 30
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
# SSL_CTXs alive: one per cluster or listener, those that lasting connections began with, and those of handshakes under way.
CONTEXTS_MAX = 30


class Issuer:
    """A root, an intermediate below it, and the leaves it makes."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True)
        self.roots = self.intermediates = 0
        self.bundle = []
        self.announce_root()
        self.switch_root()

    def make(self, name, subject, *args):
        openssl("req", "-x509", *NEW_KEY, "-subj", f"/O=mesh/CN={subject}", "-keyout", self.directory / f"{name}.key", "-out",
                self.directory / f"{name}.crt", *args)

    def signed_by(self, name):
        return "-CA", self.directory / f"{name}.crt", "-CAkey", self.directory / f"{name}.key"

    def text(self, name):
        return (self.directory / name).read_text()

    def announce_root(self):
        self.roots += 1
        self.make("next", f"root-{self.roots}", "-days", "30")
        self.bundle.append(self.text("next.crt"))

    def switch_root(self):
        for kind in ("crt", "key"):
            (self.directory / f"next.{kind}").rename(self.directory / f"root.{kind}")
        self.renew_intermediate()

    def retire_root(self):
        self.bundle.pop(0)

    def renew_intermediate(self):
        self.intermediates += 1
        self.make("intermediate", f"intermediate-{self.intermediates}", "-days", "20", *self.signed_by("root"), "-addext",
                  "keyUsage=critical,keyCertSign,cRLSign")

    def leaf(self, workload, identity, number):
        """An SDS secret."""
        self.make("leaf", f"{workload}-{number}", "-days", LEAF_DAYS, "-set_serial", number, *self.signed_by("intermediate"),
                  "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=critical,digitalSignature",
                  "-addext", f"subjectAltName=URI:{identity}")
        chain = self.text("leaf.crt") + self.text("intermediate.crt")
        return {"name": "default", "tls_certificate": {"certificate_chain": {"inline_string": chain},
                                                       "private_key": {"inline_string": self.text("leaf.key")}}}

    def trust(self):
        return {"name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_string": "".join(self.bundle)}}}


class Agent(AdsServer):
    """Serves secrets to one sidecar; a push goes to the streams that want the secret and to no other."""

    def push(self, secret, version):
        with self.lock:
            nonce = self.nonces
            self.update(SECRET, version, [secret], push=False)
            streams = [s for s in self.open_streams() if s.wants(SECRET, secret["name"])]
            for stream in streams:
                self._respond(stream, SECRET, is_push=True)
            last = self.nonces
            since = len(self.requests)
        for number in range(nonce + 1, last + 1):
            answer = self.wait(lambda r, n=number: r.response_nonce == f"n{n}", since, ACK_S)
            assert not answer.is_nack, answer.error_detail


class Mesh:
    """Both agents; `rotate()` gives both workloads new certificates and waits for both to take them."""

    def __init__(self, directory, agents, progress, intermediate_every, root_every):
        self.issuer = Issuer(directory / "pki")
        self.agents = agents  # identity → Agent
        self.progress = progress
        self.intermediate_every, self.root_every = intermediate_every, root_every
        self.number, self.began_s = 0, int(time.time())
        self.trust_pushes = 0
        for identity, agent in agents.items():
            agent.set(SECRET, "0", [self.leaf(identity), self.issuer.trust()])
        progress.write_text("0")

    def leaf(self, identity):
        return self.issuer.leaf(identity.rpartition("/")[2], identity, self.number)

    def rotate(self):
        self.number += 1
        self.began_s = int(time.time())
        phase = self.number % self.root_every
        if phase == self.root_every - 3:
            self.issuer.announce_root()
            self.push_trust()
        elif phase == self.root_every - 2:
            self.issuer.switch_root()
        elif phase == self.root_every - 1:
            self.issuer.retire_root()
            self.push_trust()
        elif self.number % self.intermediate_every == 0:
            self.issuer.renew_intermediate()
        for identity, agent in self.agents.items():
            agent.push(self.leaf(identity), str(self.number))
        new = self.progress.with_suffix(".new")
        new.write_text(str(self.number))
        new.rename(self.progress)

    def push_trust(self):
        self.trust_pushes += 1
        for agent in self.agents.values():
            agent.push(self.issuer.trust(), str(self.number))


# ---- the two sidecars ----

def identity_context(agent_kind, peer, *alpn):
    """As istiod renders it: certificate and root by SDS, the peer's name beside them."""
    sds = {"resource_api_version": "V3", "api_config_source": api_source(agent_kind)}
    return {"tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": sds}],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}]},
                "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": sds}},
            **({"alpn_protocols": list(alpn)} if alpn else {})}


def server_sidecar(agent, http_port, stream_port, bytes_port):
    socket = {alpn: config.tls_socket("Downstream", require_client_certificate=True,
                                      common_tls_context=identity_context("GRPC", CLIENT, *alpn))
              for alpn in (("h2", "http/1.1"), ())}
    show = [{"header": {"key": "x-client-leaf", "value": "%DOWNSTREAM_PEER_SUBJECT%"}}]
    routes = [config.route("/stream", "stream", timeout="0s", idle_timeout="0s"), config.route("/", "app")]
    routes.insert(0, config.direct("/big", 200, BIG.decode()))
    manager = config.hcm(routes, route_fields={"response_headers_to_add": show, "max_direct_response_body_size_bytes": len(BIG)})
    listeners = [config.listener(chains=[config.chain(manager, transport_socket=socket["h2", "http/1.1"])], name="http",
                                 stat_prefix="http"),
                 config.listener(chains=[config.chain(config.tcp_proxy("bytes"), transport_socket=socket[()])], name="tcp",
                                 stat_prefix="tcp")]
    # its idle connections go before the server would close them under a request
    keep = config.http_options(explicit_http_config={"http_protocol_options": {}},
                               common_http_protocol_options={"idle_timeout": "5s"})
    return config.bootstrap(listeners, [config.cluster("app", http_port, typed_extension_protocol_options=keep),
                                        config.cluster("stream", stream_port), config.cluster("bytes", bytes_port), xds_cluster(agent)])


CLIENT_CLUSTERS = {"h1": ("http_protocol_options", "http/1.1"), "h2": ("http2_protocol_options", "h2")}


def client_clusters(http_port, tcp_port):
    for name, (options, alpn) in CLIENT_CLUSTERS.items():
        socket = config.tls_socket("Upstream", sni="server", common_tls_context=identity_context("DELTA_GRPC", SERVER, alpn))
        for suffix, limits in (("", {}), ("-new", {"max_requests_per_connection": 1})):
            protocol = config.http_options(explicit_http_config={options: {}}, common_http_protocol_options=limits)
            yield config.cluster(name + suffix, http_port, transport_socket=socket, typed_extension_protocol_options=protocol)
    socket = config.tls_socket("Upstream", common_tls_context=identity_context("DELTA_GRPC", SERVER))
    yield config.cluster("bytes", tcp_port, transport_socket=socket)


def client_sidecar(agent, http_port, tcp_port):
    routes = [config.route("/stream", "h2", timeout="0s", idle_timeout="0s"),
              *(config.route(match={"path": f"/{name}{path}"}, cluster=name, prefix_rewrite=path or "/echo")
                for name in ("h1", "h1-new", "h2", "h2-new") for path in ("", "/big"))]
    show = [{"header": {"key": "x-server-leaf", "value": "%UPSTREAM_PEER_SUBJECT%"}}]
    manager = config.hcm(routes, route_fields={"response_headers_to_add": show})
    return config.bootstrap([config.listener(manager, name="http"), config.listener(config.tcp_proxy("bytes"), name="tcp")],
                            [*client_clusters(http_port, tcp_port), xds_cluster(agent)])


def send_back(sock, _):
    """Answers one request with its own body, chunk by chunk as it comes."""
    reader = Reader(sock)
    reader.until(b"\r\n\r\n")
    sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + reader.data)
    while data := sock.recv(65536):
        sock.sendall(data)


# ---- figures ----

def pss_kb(pid):
    return int(re.search(r"^Pss:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])


def assert_flat(name, samples):
    """Freed contexts leave and fill holes, so single samples differ by a megabyte: the middle of the last quarter is that of the one
    before it, and the second half has no higher peak than the first. A kilobyte kept per rotation would show in an hour."""
    half, quarter = len(samples) // 2, len(samples) // 4
    before, after = statistics.median(samples[half:half + quarter]), statistics.median(samples[half + quarter:])
    assert after <= before * 1.05 + 256, f"{name}'s memory grows: {samples}"
    assert max(samples[half:]) <= max(samples[:half]) * 1.05 + 512, f"{name}'s memory grows: {samples}"


class Load:
    def __init__(self, proxy, progress):
        script = pathlib.Path(__file__).with_name("rotation_load.py")
        ports = [str(proxy.port(name)) for name in ("http", "tcp")]
        self.child = subprocess.Popen([sys.executable, script, *ports, progress], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True)

    def stop(self):
        output, _ = self.child.communicate(timeout=60)
        return json.loads(output)


def rotate_for(mesh, proxies, seconds, period_s):
    """Returns {name: [PSS in kB]} and the most SSL_CTXs seen at once of each."""
    memory, contexts = {p.name: [] for p in proxies}, {p.name: 0 for p in proxies}
    every = max(1, int(seconds / period_s / 100))
    pace, began = threading.Event(), time.monotonic()
    while time.monotonic() - began < seconds:
        mesh.rotate()
        for proxy in proxies if mesh.number % every == 0 else ():
            proxy.expect_running()
            memory[proxy.name].append(pss_kb(proxy.pid))
            contexts[proxy.name] = max(contexts[proxy.name], proxy.stat("server.tls_contexts"))
        pace.wait(max(0, began + mesh.number * period_s - time.monotonic()))
    return memory, contexts


def sum_of(proxy, pattern):
    return sum(proxy.stats(pattern).values())


def check_stats(mesh, client, server, traffic):
    fresh = sum(traffic[kind]["done"] for kind in ("h1_new", "h2_new", "bytes_new"))
    for proxy, owner in ((client, "cluster"), (server, "listener")):
        assert proxy.stat("sds.default.update_success") == mesh.number + 1
        assert proxy.stat("sds.ROOTCA.update_success") == mesh.trust_pushes + 1
        assert sum_of(proxy, r"^sds\..*\.(update_rejected|update_failure|key_rotation_failed)$") == 0
        assert sum_of(proxy, rf"^{owner}\..*ssl\.handshake$") >= fresh
        bad = proxy.stats(r"ssl\.(connection_error|fail_verify_.*|no_certificate)$|ssl_socket_factory\..*secrets_not_ready$")
        assert bad and not any(bad.values()), bad
        proxy.wait_stat("server.days_until_first_cert_expiring", lambda days: days in (LEAF_DAYS - 1, LEAF_DAYS))
        expiry = proxy.stats(rf"^{owner}\..*ssl\.certificate\.default\.expiration_unix_time_seconds$")
        assert expiry and all(v >= mesh.began_s + LEAF_DAYS * 86400 for v in expiry.values()), expiry
    assert sum_of(client, r"^cluster\..*\.upstream_cx_(connect_fail|connect_timeout|protocol_error)$") == 0
    assert sum_of(client, r"^cluster\.(h1|h2)(-new)?\.upstream_rq_5xx$") == 0


def check_lasting(client):
    """No connection was closed that lasts: those of the start are there, and no others were made."""
    kept = client.stats(r"^cluster\.(h1|h2)\.upstream_cx_(total|active)$")
    assert kept["cluster.h1.upstream_cx_total"] == kept["cluster.h1.upstream_cx_active"] == 1, kept
    assert kept["cluster.h2.upstream_cx_total"] == kept["cluster.h2.upstream_cx_active"] <= 2, kept


def check_streams(mesh):
    """One stream a secret, however many clusters and listeners use it, and none of them ended."""
    for agent in mesh.agents.values():
        assert sorted(map(sorted, (s.wanted[SECRET] for s in agent.streams))) == [["ROOTCA"], ["default"]]
        assert agent.open_streams() == agent.streams


def check_traffic(traffic, seconds):
    assert not any(r["failed"] for r in traffic.values()), {k: r for k, r in traffic.items() if r["failed"]}
    lasting = {k: r["connections"] for k, r in traffic.items() if k != "bytes_new"}
    assert set(lasting.values()) == {1}, lasting
    assert all(r["done"] >= 3 * seconds for r in traffic.values()), traffic
    assert all(traffic[k]["checked"] == traffic[k]["done"] for k in ("h1", "h1_new", "h2", "h2_new")), traffic


def run(start, directory, seconds, period_s=1.0, intermediate_every=15, root_every=60, check_memory=True):
    """`start(bootstrap, **options)` makes a proxy. Returns figures."""
    with contextlib.ExitStack() as stack:
        nginx = Nginx(directory / "app")
        stack.callback(nginx.stop)
        stream, echo = ByteUpstream(send_back), ByteUpstream()
        stack.callback(stream.stop)
        stack.callback(echo.stop)
        agents = {identity: stack.enter_context(Agent(path=directory / f"{name}.sock"))
                  for identity, name in ((CLIENT, "client"), (SERVER, "server"))}
        progress = directory / "progress"
        mesh = Mesh(directory, agents, progress, intermediate_every, root_every)
        server = start(server_sidecar(agents[SERVER], nginx.port, stream.port, echo.port), concurrency=2, name="server")
        client = start(client_sidecar(agents[CLIENT], server.port("http"), server.port("tcp")), concurrency=2, name="client")
        load = Load(client, progress)
        try:
            memory, contexts = rotate_for(mesh, (client, server), seconds, period_s)
            check_streams(mesh)
            check_lasting(client)
        finally:
            traffic = load.stop()
        figures = {"seconds": seconds, "rotations": mesh.number, "roots": mesh.issuer.roots,
                   "intermediates": mesh.issuer.intermediates, "contexts_max": contexts,
                   "pss_kb": {name: samples[::max(1, len(samples) // 20)] for name, samples in memory.items()},
                   "handshakes": sum_of(server, r"^listener\..*ssl\.handshake$"),
                   "traffic": {k: {f: v for f, v in r.items() if f != "failures"} for k, r in traffic.items()}}
        print(json.dumps(figures))
        check_traffic(traffic, seconds)
        check_stats(mesh, client, server, traffic)
        assert max(contexts.values()) <= CONTEXTS_MAX, contexts
        if check_memory:
            for name, samples in memory.items():
                assert_flat(name, samples)
    return figures
