"""A control plane that keeps changing everything, below continuous load: see tests/conformance/test_churn.py."""

import contextlib
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import threading
import time

# A message that listeners given as dicts hold in an Any.
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2  # noqa: F401
from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET, AdsServer
from support.load import SERVER_NAME
from support.process import wait_until
from support.proxy import is_sanitized

ADS = {"ads": {}, "resource_api_version": "V3"}
LOADS = {"h1": "plain", "h2": "plain", "tls_h1": "secure", "tls_h2": "secure", "tcp": "bytes"}
SPARES_MAX = 12
PACE_S = 0.01
DRAIN_S = 1
ACK_S = 30


class LoadProcess:
    """support/load.py against one listener."""

    def __init__(self, kind, port, authority):
        script = pathlib.Path(__file__).with_name("load.py")
        self.child = subprocess.Popen([sys.executable, script, kind, str(port), str(authority)], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, text=True)

    def stop(self):
        output, _ = self.child.communicate(timeout=60)
        return json.loads(output)


class Churn:
    """The state a control plane serves, and random steps from one good state to the next."""

    def __init__(self, ads, ports, certificates, seed):
        self.ads, self.ports, self.certificates = ads, ports, certificates
        self.rng = random.Random(seed)
        self.version = 0
        self.spares, self.extras, self.routed = [], [], ["main"]
        self.secret_of_listener, self.shown = "cert", {}
        self.done = {}

    # ---- resources, each a little different every time ----

    def endpoints(self, name):
        hosts = [config.endpoint(port, load_balancing_weight=self.rng.randint(1, 5))
                 for port in self.rng.sample(self.ports, self.rng.randint(1, len(self.ports)))]
        cut = self.rng.randint(1, len(hosts))
        groups = [{"lb_endpoints": group, "locality": {"zone": f"z{i}"}, "load_balancing_weight": 1}
                  for i, group in enumerate([hosts[:cut], hosts[cut:]]) if group]
        return {"cluster_name": name, "endpoints": groups}

    def cluster(self, name):
        return {"name": name, "type": "EDS", "connect_timeout": f"{self.rng.randint(5, 20)}s",
                "lb_policy": self.rng.choice(["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"]),
                "eds_cluster_config": {"eds_config": ADS},
                "circuit_breakers": {"thresholds": [{"max_connections": self.rng.randint(1000, 2000)}]}}

    def routes(self):
        names = ["main", *self.rng.sample(self.spares, self.rng.randint(0, len(self.spares)))]
        self.routed = names
        weighted = {"clusters": [{"name": n, "weight": self.rng.randint(1, 10)} for n in names]}
        everything = {"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted, "timeout": "30s"}}
        others = [config.vhost([config.route(cluster="main")], name=f"v{n}", domains=[f"v{n}.test"])
                  for n in self.rng.sample(range(50), self.rng.randint(0, 20))]
        return {"name": "r", "virtual_hosts": [config.vhost([everything]), *others],
                "response_headers_to_add": [{"header": {"key": "x-version", "value": str(self.version)}}]}

    def manager(self, prefix):
        fields = {"stream_idle_timeout": f"{self.rng.randint(60, 90)}s"} if self.rng.random() < 0.5 else {}
        manager = config.hcm(stat_prefix=prefix, **fields)
        del manager["typed_config"]["route_config"]
        manager["typed_config"]["rds"] = {"route_config_name": "r", "config_source": ADS}
        return manager

    def listener(self, name):
        """Half of the changes leave the filter chain as it was."""
        fields = {"metadata": {"filter_metadata": {"churn": {"version": self.version}}}}
        if name == "bytes":
            chain = config.chain(config.tcp_proxy("main", idle_timeout=f"{self.rng.randint(60, 61)}s"))
        else:
            chain = config.chain(self.manager(name))
        chain["name"] = "only"
        if name == "secure":
            sds = [{"name": self.secret_of_listener, "sds_config": ADS}]
            chain["transport_socket"] = config.tls_socket("Downstream", common_tls_context={
                "tls_certificate_sds_secret_configs": sds, "alpn_protocols": ["h2", "http/1.1"]})
            fields["listener_filters"] = [config.typed("envoy.filters.listener.tls_inspector",
                                                       "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")]
        return config.listener(name=name, chains=[chain], **fields)

    def secret(self, name):
        """Another one than last time: equal bytes are no update, and keep their version."""
        pair = self.rng.choice([p for p in self.certificates if p is not self.shown.get(name)])
        self.shown[name] = pair
        return {"name": name, "tls_certificate": {"certificate_chain": {"inline_string": pair.cert.read_text()},
                                                  "private_key": {"inline_string": pair.key.read_text()}}}

    # ---- serving them ----

    def serve(self):
        self.ads.set(SECRET, "0", [self.secret("cert"), self.secret("cert-b")])
        self.ads.set(ENDPOINTS, "0", [self.endpoints("main")])
        self.ads.set(CLUSTER, "0", [self.cluster("main")])
        self.ads.set(ROUTE, "0", [self.routes()])
        self.ads.set(LISTENER, "0", [self.listener(n) for n in sorted(set(LOADS.values()))])

    def push(self, type_url, changed=(), removed=()):
        """Until it is acknowledged."""
        nonce = self.ads.nonces
        self.ads.update(type_url, str(self.version), changed, removed)
        answer = self.ads.wait(lambda r: r.type_url == type_url and r.response_nonce and int(r.response_nonce[1:]) > nonce,
                               max(0, len(self.ads.requests) - 50), ACK_S)
        assert not answer.is_nack, answer.error_detail

    def keep(self, type_url, changed=(), removed=()):
        """For whoever asks."""
        self.ads.update(type_url, str(self.version), changed, removed, push=False)

    # ---- steps; False: not possible now ----

    def change_listener(self):
        name = self.rng.choice(sorted(set(LOADS.values())))
        if name == "secure" and self.rng.random() < 0.3:
            self.secret_of_listener = "cert" if self.secret_of_listener == "cert-b" else "cert-b"
        self.push(LISTENER, [self.listener(name)])

    def add_listener(self):
        if len(self.extras) >= SPARES_MAX:
            return False
        self.extras.append(f"extra-{self.version}")
        self.push(LISTENER, [self.listener(self.extras[-1])])
        return True

    def remove_listener(self):
        if not self.extras:
            return False
        self.push(LISTENER, removed=[self.extras.pop(self.rng.randrange(len(self.extras)))])
        return True

    def change_routes(self):
        self.push(ROUTE, [self.routes()])

    def add_cluster(self):
        if len(self.spares) >= SPARES_MAX:
            return False
        name = f"spare-{self.version}"
        self.keep(ENDPOINTS, [self.endpoints(name)])
        nonce = self.ads.nonces
        self.push(CLUSTER, [self.cluster(name)])
        self.ads.wait(lambda r: r.type_url == ENDPOINTS and r.response_nonce and int(r.response_nonce[1:]) > nonce,
                      max(0, len(self.ads.requests) - 50), ACK_S)
        self.spares.append(name)
        return True

    def change_cluster(self):
        self.push(CLUSTER, [self.cluster(self.rng.choice(["main", *self.spares]))])

    def remove_cluster(self):
        if not self.spares:
            return False
        name = self.spares.pop(self.rng.randrange(len(self.spares)))
        if name in self.routed:
            self.push(ROUTE, [self.routes()])
        self.push(CLUSTER, removed=[name])
        self.keep(ENDPOINTS, removed=[name])
        return True

    def change_endpoints(self):
        self.push(ENDPOINTS, [self.endpoints(self.rng.choice(["main", *self.spares]))])

    def change_secret(self):
        self.push(SECRET, [self.secret(self.secret_of_listener)])

    STEPS = (change_listener, add_listener, remove_listener, change_routes, add_cluster, change_cluster, remove_cluster,
             change_endpoints, change_secret)

    def step(self):
        self.version += 1
        while True:
            step = self.rng.choice(self.STEPS)
            if step(self) is not False:
                self.done[step.__name__] = self.done.get(step.__name__, 0) + 1
                return


def bootstrap(ads, kind):
    retry = {"retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"}}
    source = {"api_type": kind, "transport_api_version": "V3",
              "grpc_services": [{"envoy_grpc": {"cluster_name": "xds", "retry_policy": retry}}]}
    xds = config.cluster("xds", ads.port, typed_extension_protocol_options=config.http2())
    return config.bootstrap([], [xds], dynamic_resources={"ads_config": source, "cds_config": ADS, "lds_config": ADS})


# ---- what is compared ----

def rss_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def without_times(value):
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k != "last_updated"}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def state_of(proxy, with_versions):
    """{(page, name): (version, resource)}; anything that is not active gets in the way of equality."""
    state = {}
    for page in proxy.admin("/config_dump?include_eds").json["configs"]:
        kind = page["@type"].rsplit(".", 1)[-1]
        for section, entries in page.items():
            if section.startswith(("dynamic_", "static_endpoint")) and isinstance(entries, list):
                for entry in without_times(entries):
                    body = entry.get("active_state", entry)
                    resource = next((v for k, v in body.items() if isinstance(v, dict) and k != "active_state"), {})
                    name = entry.get("name") or resource.get("name") or resource.get("cluster_name")
                    if not with_versions:
                        body = {k: v for k, v in body.items() if k != "version_info"}
                    state[kind, section, name] = (sorted(entry), body)
    return state


def is_settled(state):
    return not any("warming" in section or "warming_state" in entry[0] for (_, section, _), entry in state.items())


def compare(old, fresh, with_versions):
    wait_until(lambda: is_settled(state_of(old, with_versions)), "nothing to be warming", 30)
    wait_until(lambda: is_settled(state_of(fresh, with_versions)), "nothing to be warming in the fresh process", 30)
    have, want = state_of(old, with_versions), state_of(fresh, with_versions)
    assert len(want) > 4
    assert sorted(map(str, have)) == sorted(map(str, want))
    for key, entry in want.items():
        assert have[key] == entry, (key, have[key], entry)


def assert_flat(samples):
    """The last quarter of the run needs no more memory than the one before it, but for noise."""
    quarter = len(samples) // 4
    before, after = max(samples[2 * quarter:3 * quarter]), max(samples[3 * quarter:])
    assert after <= before * 1.05 + 1024, f"RSS grows: {samples}"


# ---- the whole ----

def run(start, ports, certificates, authority, updates, kind, seed, strategy="immediate", check_rss=False):
    """`start(bootstrap, **options)` makes a proxy. Returns figures."""
    options = {"concurrency": 2, "args": ["--drain-time-s", str(DRAIN_S), "--drain-strategy", strategy]}
    with contextlib.ExitStack() as stack:
        ads = stack.enter_context(AdsServer())
        churn = Churn(ads, ports, certificates, seed)
        churn.serve()
        proxy = start(bootstrap(ads, kind), **options)
        wait_until(lambda: set(LOADS.values()) <= set(proxy.listeners()), "the listeners")
        where = proxy.listeners()
        loads = [LoadProcess(k, where[name][1], authority.pair.cert) for k, name in LOADS.items()]
        began, samples, pace = time.monotonic(), [], threading.Event()
        try:
            for _ in range(updates):
                churn.step()
                pace.wait(PACE_S)
                samples.append(rss_kb(proxy.pid))
                proxy.expect_running()
        finally:
            results = [load.stop() for load in loads]
        figures = {"seed": seed, "kind": kind, "strategy": strategy, "updates": updates,
                   "seconds": round(time.monotonic() - began, 1), "steps": churn.done, "rss_kb": samples[::max(1, len(samples) // 20)],
                   "load": [{k: v for k, v in r.items() if k != "failures"} for r in results]}
        print(json.dumps(figures))
        assert not any(r["failed"] for r in results), [r for r in results if r["failed"]]
        assert all(r["done"] > updates // 10 for r in results), results
        assert {n: a for n, a in proxy.listeners().items() if n in where} == where
        compare(proxy, start(bootstrap(ads, kind), **options), kind == "DELTA_GRPC")
        proxy.wait_stat("listener_manager.total_listeners_draining", 0, DRAIN_S + 20)
        if check_rss and not is_sanitized(proxy.binary):  # they keep what is freed
            assert_flat(samples)
    return figures


def seed_of_run(default):
    return int(os.environ.get("SLUICE_CHURN_SEED", default))


def leaves(authority):
    return [authority.leaf(f"churn-{n}", f"DNS:{SERVER_NAME}") for n in range(3)]
