"""go-control-plane drives the proxy through SLUICE_GOCP (200) random snapshots, by each transport and from both of its caches,
with certificates by SDS and load all the time. After each snapshot every route answers as the snapshot says; meanwhile it
answers as the old or the new one does; no request of the load fails; nothing is rejected; and in the end /config_dump is the
snapshot. SLUICE_GOCP_SEED repeats a run; DATAPLANE names another proxy."""

import json
import os
import random
import ssl
import time

import pytest
from google.protobuf import json_format

from gocp.plane import ControlPlane, Mode
from gocp.world import HTTP, TCP, TLS, World
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, MESSAGES, ROUTE, SECRET, message_of
from support.churn import LoadProcess, leaves
from support.load import SERVER_NAME
from support.process import wait_until
from support.rawhttp import Client

SNAPSHOTS = int(os.environ.get("SLUICE_GOCP", "200"))
SEED = int(os.environ.get("SLUICE_GOCP_SEED", "11"))
LOADS = {"h1": HTTP, "h2": HTTP, "tls_h2": TLS, "tcp": TCP}
LOAD_PER_SNAPSHOT = 2  # requests of each kind, at least
DRAIN_S = 1
SETTLE_S = 20
MODES = {
    "ads": Mode("sotw", True), "delta": Mode("delta", True), "xds": Mode("sotw", False), "xds-delta": Mode("delta", False),
    "rest": Mode("rest", False),
    "ads-linear": Mode("sotw", True, "linear"), "delta-linear": Mode("delta", True, "linear"),
    "xds-linear": Mode("sotw", False, "linear"), "xds-delta-linear": Mode("delta", False, "linear"),
}


# ---- what requests say ----

class Prober:
    """Asks every question of a state."""

    def __init__(self, ports, authority):
        self.ports = ports  # listener → port
        self.context = ssl.create_default_context(cafile=authority.pair.cert)
        self.context.set_alpn_protocols(["http/1.1"])
        self.asked = 0

    def client(self, listener):
        tls = {"tls": self.context, "server_name": SERVER_NAME} if listener == TLS else {}
        return Client(self.ports[listener], **tls)

    def ask(self, listener, host, path):
        self.asked += 1
        with self.client(listener) as client:
            return client.request("GET", path, host=host)

    def bytes_port(self):
        """Of the server behind the TCP listener."""
        self.asked += 1
        with self.client(TCP) as client:
            answer = client.send("GET /who HTTP/1.0\r\nhost: test\r\n\r\n").until_close()
        return int(answer.split(b"\r\n\r\n")[1].split()[0])

    def certificate(self):
        with self.client(TLS) as client:
            return ssl.DER_cert_to_PEM_cert(client.socket.getpeercert(binary_form=True))


def is_right(got, want, state, others, listener):
    """`others`: a state whose endpoints count as well."""
    if got.status != want.status:
        return False
    if want.clusters:
        ports = {p for s in (state, *others) for c in want.clusters for p in s.endpoints.get(c, ())}
        return int(got.body.split()[0]) in ports and got.get("x-snapshot") == state.versions[state.listeners[listener]]
    if want.location:
        return got.get("location") == want.location.format(s="s" if listener == TLS else "")
    return want.body is None or got.body == want.body.encode()


def right_in(got, state, others, question):
    return question[0] in state.listeners and is_right(got, state.answer(*question), state, others, question[0])


def check_moving(prober, old, new):
    """While a snapshot is on its way, every answer is the old or the new one's."""
    for question in new.questions():
        if question[0] in old.listeners:
            got = prober.ask(*question)
            assert right_in(got, old, [new], question) or right_in(got, new, [old], question), \
                (question, got, old.answer(*question), new.answer(*question))


def check_settled(prober, old, new):
    """Once it is there, every answer is the new one's; a worker may take a moment to adopt it, in which the old one's is right."""
    for question in new.questions():
        got = prober.ask(*question)
        if not right_in(got, new, [], question):
            assert right_in(got, old, [new], question) or right_in(got, new, [old], question), (question, got, new.answer(*question))
            wait_until(lambda q=question: right_in(prober.ask(*q), new, [], q), lambda q=question: f"{q} to be {new.answer(*q)}")
    wait_until(lambda: prober.bytes_port() in new.endpoints[new.bytes_cluster], f"TCP to go to {new.bytes_cluster}")
    wait_until(lambda: prober.certificate() == new.certificate.cert.read_text(), "the new certificate")


# ---- what /config_dump says ----

def resource_of(type_url, dumped):
    return json_format.ParseDict({k: v for k, v in dumped.items() if k != "@type"}, MESSAGES[type_url]())


def hosts_of(message):
    return {(e.endpoint.address.socket_address.port_value, group.locality.zone, e.load_balancing_weight.value)
            for group in message.endpoints for e in group.lb_endpoints}


def dump_of(proxy):
    """({type: {name: (version, what is compared)}}, {type: version of the last change}); None while something warms."""
    pages = {p["@type"].rsplit(".", 1)[-1]: p for p in proxy.admin("/config_dump?include_eds").json["configs"]}
    clusters, listeners = pages["ClustersConfigDump"], pages["ListenersConfigDump"]
    dynamic_listeners = listeners.get("dynamic_listeners", [])
    secrets = pages.get("SecretsConfigDump", {})
    if clusters.get("dynamic_warming_clusters") or secrets.get("dynamic_warming_secrets") or \
            any("warming_state" in entry for entry in dynamic_listeners):
        return None
    found = {t: {} for t in MESSAGES}

    def keep(type_url, version, dumped):
        message = resource_of(type_url, dumped)
        found[type_url][message.name] = (version, message)

    for entry in clusters.get("dynamic_active_clusters", []):
        keep(CLUSTER, entry.get("version_info"), entry["cluster"])
    for entry in dynamic_listeners:
        if "active_state" in entry:
            keep(LISTENER, entry["active_state"].get("version_info"), entry["active_state"]["listener"])
    for entry in pages["RoutesConfigDump"].get("dynamic_route_configs", []):
        keep(ROUTE, entry.get("version_info"), entry["route_config"])
    for entry in secrets.get("dynamic_active_secrets", []):
        chain = entry["secret"]["tls_certificate"]["certificate_chain"]["inline_string"]
        found[SECRET][entry["name"]] = (entry.get("version_info"), chain)
    for entry in pages["EndpointsConfigDump"].get("dynamic_endpoint_configs", []):
        message = resource_of(ENDPOINTS, entry["endpoint_config"])
        found[ENDPOINTS][message.cluster_name] = (None, hosts_of(message))
    return found, {CLUSTER: clusters.get("version_info"), LISTENER: listeners.get("version_info")}


def wanted_of(world, has_versions):
    """What dump_of() must find. Versions are those with which a resource's bytes came; equal bytes again are no update."""
    wanted = {}
    for type_url, named in world.resources.items():
        wanted[type_url] = {}
        for name, resource in named.items():
            version = world.changed_in[type_url][name] if has_versions and type_url != ENDPOINTS else None
            if type_url == SECRET:
                compared = resource["tls_certificate"]["certificate_chain"]["inline_string"]
            else:
                compared = message_of(type_url, resource)
            wanted[type_url][name] = (version, hosts_of(compared) if type_url == ENDPOINTS else compared)
    return wanted


def difference(proxy, world, has_versions):
    """None when what is served is the snapshot; else what differs, in words."""
    dump = dump_of(proxy)
    if dump is None:
        return "something is warming"
    (found, versions), wanted = dump, wanted_of(world, has_versions)
    for type_url in wanted:
        have = found[type_url]
        if set(have) != set(wanted[type_url]):
            return f"{type_url}: {sorted(have)} instead of {sorted(wanted[type_url])}"
        for name, (version, compared) in wanted[type_url].items():
            if have[name][1] != compared or has_versions and version is not None and have[name][0] != version:
                return f"{type_url} '{name}': {have[name]} instead of {(version, compared)}"
    if has_versions and any(versions[t] != world.last_change[t] for t in versions):
        return f"{versions} instead of {world.last_change}"
    return None


# ---- the whole ----

def drive(mode, plane, proxy, world, authority):
    """All snapshots; returns how many requests were asked."""
    has_versions = mode.cache == "snapshot" and mode.protocol != "delta"  # else they are the cache's own
    prober, old = Prober({}, authority), world.state()

    def wait_settled():
        wait_until(lambda: difference(proxy, world, has_versions) is None,
                   lambda: f"snapshot {world.version}: {difference(proxy, world, has_versions)}", SETTLE_S)
        prober.ports = {name: port for name, (_, port) in proxy.listeners().items()}

    wait_settled()
    check_settled(prober, old, old)
    for _ in range(SNAPSHOTS):
        world.step()
        new = world.state()
        plane.set(world.snapshot())
        check_moving(prober, old, new)
        wait_settled()
        check_settled(prober, old, new)
        proxy.expect_running()
        assert not plane.of("nack")
        old = new
    return prober.asked


@pytest.mark.timeout(20 * 60)
@pytest.mark.parametrize("mode", MODES)
def test_every_snapshot_is_served_without_a_failed_request(dataplane, authority, backends, tmp_path, mode):
    mode, rng = MODES[mode], random.Random(SEED)
    world = World(rng, backends, leaves(authority), mode.source_of)
    with ControlPlane(mode.cache, mode.is_aggregated, tmp_path / "plane.log") as plane:
        plane.set(world.snapshot())
        proxy = dataplane(mode.bootstrap(plane), concurrency=2,
                          args=["--drain-time-s", str(DRAIN_S), "--drain-strategy", "immediate"])
        wait_until(lambda: set(LOADS.values()) <= set(proxy.listeners()), "the listeners")
        ports = proxy.listeners()
        began, loads = time.monotonic(), [LoadProcess(k, ports[name][1], authority.pair.cert) for k, name in LOADS.items()]
        try:
            asked = drive(mode, plane, proxy, world, authority)
        finally:
            results = [load.stop() for load in loads]
        print(json.dumps({"snapshots": SNAPSHOTS, "seconds": round(time.monotonic() - began, 1), "asked": asked,
                          "acks": len(plane.of("ack")),
                          "load": [{k: v for k, v in r.items() if k != "failures"} for r in results]}))
        assert not any(r["failed"] for r in results), [r for r in results if r["failed"]]
        assert all(r["done"] > SNAPSHOTS * LOAD_PER_SNAPSHOT for r in results), results
        assert mode.is_used(plane)
