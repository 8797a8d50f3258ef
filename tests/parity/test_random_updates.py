"""Random lives of a configuration, the same for Sluice and Envoy: resources of every type come, change, go, are refused or wait for
others, and streams end. After each step both serve the same: which listeners, clusters, routes and secrets are in use and which wait, how many
endpoints, and what a request of each listener gets. A failure tells the seed and the steps that led to it.

    SLUICE_SEEDS=20..40 SLUICE_STEPS=200   for more of them
"""
import contextlib
import hashlib
import os
import random
import ssl

import pytest
from support import config
from support.ads_server import CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTE, SECRET, AdsServer
from support.process import free_port, wait_until
from support.rawhttp import Client
from support.upstream import Reply
from support.xds_config import ads_bootstrap

FIRST, LAST = (int(s) for s in os.environ.get("SLUICE_SEEDS", "1..4").split(".."))
STEPS = int(os.environ.get("SLUICE_STEPS", "40"))
SETTLE_S = 10
# For ever: what waits is seen to wait.
ADS = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
CLUSTERS, ROUTES, SECRETS = ("c0", "c1", "c2"), ("r0", "r1"), ("s0", "s1")
LISTENERS, FILTERS = ("l0", "l1", "l2"), ("x0",)
RECONNECT = 0.05
TYPES = [CLUSTER, CLUSTER, ENDPOINTS, ENDPOINTS, LISTENER, LISTENER, ROUTE, ROUTE, SECRET, EXTENSION]
# Never removed: Envoy's old versions that drain keep what they refer to, and a resource that the server took back is there for some.
KEPT = {ENDPOINTS, ROUTE, SECRET, EXTENSION}
CLOSED = (EOFError, OSError)  # instead of an answer
ANY_CERTIFICATE = ssl.create_default_context()
ANY_CERTIFICATE.check_hostname, ANY_CERTIFICATE.verify_mode = False, ssl.CERT_NONE
FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"


# ---- what there may be of each type: name → a resource ----

def make_cluster(rnd, name, ports):
    timeout = {"connect_timeout": f"{rnd.randint(1, 3)}s"}
    kind = rnd.choice(["static", "eds", "eds", "eds", "named", "bad"])
    if kind == "static":
        return config.cluster(name, rnd.choice(ports), **timeout)
    if kind == "bad":
        return config.cluster(name, transport_socket={"name": "no.such.socket"})
    service = {"service_name": rnd.choice(CLUSTERS)} if kind == "named" else {}
    return {"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": ADS, **service}, **timeout}


def make_assignment(rnd, name, ports):
    chosen = rnd.sample(ports, rnd.choice([0, 1, 1, 2]))
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [config.endpoint(p) for p in chosen]}] if chosen else []}


def action(rnd):
    if rnd.random() < 0.3:
        return config.direct("/", rnd.choice([201, 202, 203]))
    return config.route(cluster=rnd.choice(CLUSTERS))


def make_routes(rnd, name, _):
    """Never bad: what becomes of the others then is told in protocol/differences.yaml."""
    return {"name": name, "virtual_hosts": [config.vhost([action(rnd)])], "validate_clusters": False}


def manager(rnd):
    filters = [{"name": rnd.choice(FILTERS), "config_discovery": {"config_source": ADS, "type_urls": [FAULT]}}] if rnd.random() < 0.3 else []
    made = config.hcm([action(rnd)], filters=filters, stat_prefix="h")
    if rnd.random() < 0.7:
        del made["typed_config"]["route_config"]
        made["typed_config"]["rds"] = {"route_config_name": rnd.choice(ROUTES), "config_source": ADS}
    return made


def make_listener(rnd, name, _):
    if rnd.random() < 0.1:
        return config.listener({"name": "no.such.filter"}, name=name)
    fields = {}
    if rnd.random() < 0.25:
        sds = [{"name": rnd.choice(SECRETS), "sds_config": ADS}]
        fields["transport_socket"] = config.tls_socket("Downstream", common_tls_context={"tls_certificate_sds_secret_configs": sds})
    more = rnd.choice([{}, {}, {"per_connection_buffer_limit_bytes": 65536}])
    return config.listener(chains=[config.chain(manager(rnd), **fields)], name=name, **more)


def make_filter(rnd, name, _):
    abort = {"http_status": rnd.choice([418, 419]), "percentage": {"numerator": rnd.choice([0, 100])}}
    return {"name": name, "typed_config": {"@type": FAULT, "abort": abort}}


class World:
    """The resources that there are, and how they go on."""

    def __init__(self, seed, pairs, ports):
        self.rnd, self.pairs, self.ports = random.Random(seed), pairs, ports
        self.names = {CLUSTER: CLUSTERS, ENDPOINTS: CLUSTERS, LISTENER: LISTENERS, ROUTE: ROUTES, SECRET: SECRETS, EXTENSION: FILTERS}
        self.makers = {CLUSTER: make_cluster, ENDPOINTS: make_assignment, LISTENER: make_listener, ROUTE: make_routes,
                       SECRET: self.make_secret, EXTENSION: make_filter}
        self.have = {t: set() for t in self.names}
        self.log = []

    def make_secret(self, rnd, name, _):
        pair = rnd.choice(self.pairs)
        return {"name": name, "tls_certificate": {"certificate_chain": {"inline_string": pair.cert.read_text()},
                                                  "private_key": {"inline_string": pair.key.read_text()}}}

    def step(self):
        """→ a type, the resources that are new, the names that are gone; None: the streams end"""
        if self.rnd.random() < RECONNECT:
            self.log.append(f"{len(self.log)}: the streams end")
            return None
        t = self.rnd.choice(TYPES)
        have, changed, removed = self.have[t], [], []
        for name in self.rnd.sample(self.names[t], self.rnd.choice([1, 1, 2]) if len(self.names[t]) > 1 else 1):
            if name in have and t not in KEPT and self.rnd.random() < 0.3:
                removed.append(name)
                have.remove(name)
            else:
                changed.append(self.makers[t](self.rnd, name, self.ports))
                have.add(name)
        self.log.append(f"{len(self.log)}: {t.rpartition('.')[-1]} + {changed} - {removed}")
        return t, changed, removed


# ---- the two sides ----

class Side:
    def __init__(self, start, kind):
        self.ads = AdsServer()
        self.refused = {}  # type → was its last response?
        self.ports = {name: free_port() for name in LISTENERS}
        self.ads.set(CLUSTER, "0", [])
        self.ads.set(LISTENER, "0", [])
        self.proxy = start({**ads_bootstrap(self.ads, kind), "stats_flush_interval": "0.1s"}, args=["--drain-time-s", "1"], concurrency=1)

    def apply(self, version, t, changed, removed):
        """Push, and wait for the answer of who has asked. An update of a cluster comes with its endpoints, as servers must do."""
        if t == LISTENER:
            changed = [{**l, "address": config.address(self.ports[l["name"]])} for l in changed]
        self.push(t, version, changed, removed)
        if t == CLUSTER:
            services = {c.get("eds_cluster_config", {}).get("service_name", c["name"]) for c in changed}
            there = self.ads.state.get(ENDPOINTS, ("", {}))[1]
            again = [m for name, (_, m) in there.items() if name in services]
            if again:
                self.push(ENDPOINTS, version, again, [])

    def push(self, t, version, changed, removed):
        ads = self.ads
        taken = self.clusters_taken()
        with ads.lock:
            stream = ads.open_streams()[-1]
            before = len(stream.responses)
            ads.update(t, version, changed, removed)
            sent = stream.responses[before:]
        if not sent:
            return
        if t == CLUSTER:  # Envoy acknowledges when its clusters are warm
            wait_until(lambda: self.clusters_taken() > taken, "an answer to clusters")
        else:
            self.refused[t] = ads.wait(lambda r: r.type_url == t and r.response_nonce == sent[0].nonce).is_nack

    def reconnect(self):
        after = len(self.ads.requests)
        self.ads.end_streams()
        self.ads.wait(lambda r: r.type_url == LISTENER, after)

    def clusters_taken(self):
        seen = self.proxy.stats("^cluster_manager.cds.update_(success|rejected)$")
        return sum(seen.values())

    def dump(self):
        return {p["@type"].rpartition(".")[-1]: p for p in self.proxy.admin("/config_dump").json.get("configs", [])}

    def states(self):
        """What is in use, what waits."""
        parts = self.dump()

        def names(part, rows, inner):
            return sorted((r.get(inner) or r)["name"] for r in parts.get(part, {}).get(rows, []))

        listeners = parts.get("ListenersConfigDump", {}).get("dynamic_listeners", [])
        return {
            "clusters": names("ClustersConfigDump", "dynamic_active_clusters", "cluster"),
            "clusters that wait": names("ClustersConfigDump", "dynamic_warming_clusters", "cluster"),
            "listeners": sorted(r["name"] for r in listeners if "active_state" in r),
            "listeners that wait": sorted(r["name"] for r in listeners if "warming_state" in r),
            "routes": names("RoutesConfigDump", "dynamic_route_configs", "route_config"),
            "secrets": names("SecretsConfigDump", "dynamic_active_secrets", "secret"),
            "endpoints": {c["name"]: len(c.get("host_statuses", [])) for c in self.proxy.admin("/clusters?format=json").json["cluster_statuses"]},
        }

    def served(self, listener):
        """What requests get there: over plain HTTP, else over TLS, with a digest of the certificate."""
        port = self.ports[listener]
        with contextlib.suppress(*CLOSED):
            return answers(port)
        with contextlib.suppress(*CLOSED):
            certificate = ssl.get_server_certificate(("127.0.0.1", port))
            return hashlib.sha256(certificate.encode()).hexdigest()[:8], answers(port, tls=ANY_CERTIFICATE)
        return "closed"

    def look(self):
        states = self.states()
        return {**states, **{name: self.served(name) for name in states["listeners"]}}

    def end(self):
        self.ads.kill()


def answers(port, **client):
    """→ what a few requests get: all endpoints that there are have their turn"""
    def one():
        with Client(port, **client) as c:
            got = c.request("GET", "/")
        return got.status, b"" if got.status == 503 else got.body
    return sorted({one() for _ in range(4)})


# ---- the lives ----

@pytest.fixture
def ports(upstreams):
    return [upstreams().script(Reply(body=name)).port for name in (b"A", b"B")]


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
@pytest.mark.parametrize("seed", range(FIRST, LAST))
def test_a_life(sluice, shared_envoy, authority, ports, kind, seed):
    world = World(seed, [authority.leaf(n) for n in ("one", "two")], ports)
    sides = [Side(start, kind) for start in (sluice, shared_envoy)]
    try:
        for step in range(1, STEPS + 1):
            made = world.step()
            # Envoy asks for no clusters on a new stream as long as one waits
            if made is None and sides[0].states()["clusters that wait"]:
                continue
            for side in sides:
                side.apply(str(step), *made) if made else side.reconnect()
            compare(sides, world)
    finally:
        for side in sides:
            side.end()


def compare(sides, world):
    seen = []

    def is_equal():
        seen[:] = [side.look() for side in sides]
        both = sides[0].refused.keys() & sides[1].refused.keys()
        for look, side in zip(seen, sides):
            look["refused"] = {t: side.refused[t] for t in both}
        return seen[0] == seen[1]

    def difference():
        keys = [k for k in {**seen[0], **seen[1]} if seen[0].get(k) != seen[1].get(k)]
        return "\n".join([*world.log, *(f"{k}: Sluice {seen[0].get(k)}, Envoy {seen[1].get(k)}" for k in keys)])
    wait_until(is_equal, difference, SETTLE_S)
