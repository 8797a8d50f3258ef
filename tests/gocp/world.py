"""What the control plane serves: a world of listeners, routes, clusters, endpoints and certificates, random steps from one
whole state to the next, and what a request must be answered in a state.

Steps make before they break, as a control plane must: a cluster is routed to only one snapshot after it came, and goes one
after nothing routes to it any more. So in no mode, however types are ordered among each other, may a request fail."""

import dataclasses

from support import config
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET
from support.load import SERVER_NAME

TYPES = (SECRET, ENDPOINTS, CLUSTER, ROUTE, LISTENER)
NAME_FIELD = {ENDPOINTS: "cluster_name"}
TLS_INSPECTOR = config.typed("envoy.filters.listener.tls_inspector",
                             "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector")
HTTP, TLS, TCP = "plain", "secure", "bytes"
CLUSTERS_MAX, EXTRAS_MAX, HOSTS, ROUTES_MAX = 8, 4, 6, 5
CHANGES_MAX = 4
REPUBLISHED = 0.2  # how often a type without a change gets a new version all the same
LOADED = config.vhost([], name="loaded", domains=["test", SERVER_NAME])


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a request must get: from one of these clusters, or this."""

    status: int
    clusters: frozenset = frozenset()
    location: str = None
    body: str = None


MISSING = Answer(404)


@dataclasses.dataclass(frozen=True)
class State:
    """What can be asked of one snapshot. Immutable: the last one is kept while the next is on its way."""

    routes: dict       # route configuration → {host: ((path, is_prefix, Answer), …)}
    versions: dict     # route configuration → the response header it adds
    endpoints: dict    # cluster → frozenset of ports
    listeners: dict    # HTTP listener → its route configuration
    bytes_cluster: str
    certificate: object

    def answer(self, listener, host, path):
        for pattern, is_prefix, answer in self.routes[self.listeners[listener]].get(host, ()):
            if path.startswith(pattern) if is_prefix else path == pattern:
                return answer
        return MISSING

    def questions(self):
        """Each route of each host of each listener, a path no route has, and a host there is none of."""
        for listener, table in self.listeners.items():
            for host, routes in self.routes[table].items():
                for pattern, is_prefix, _ in routes:
                    yield listener, host, pattern + "below" if is_prefix else pattern
                yield listener, host, "/nowhere"
            yield listener, "nobody.test", "/"


class World:
    def __init__(self, rng, ports, certificates, source_of):
        self.rng, self.ports, self.certificates, self.source_of = rng, ports, certificates, source_of
        self.version = 0
        self.resources = {t: {} for t in TYPES}
        self.published = {t: {} for t in TYPES}       # the resources of the last whole state
        self.type_versions = dict.fromkeys(TYPES, "0")
        self.changed_in = {t: {} for t in TYPES}      # type → name → version with which its bytes came
        self.last_change = dict.fromkeys(TYPES, "0")  # of anything of a type
        self.usable, self.fresh, self.retired = ["main"], [], []
        self.tables, self.labels, self.listeners = {}, {}, {}
        self.certificate = None
        self.begin()
        self.publish()

    # ---- resources ----

    def put(self, type_url, resource):
        self.resources[type_url][resource[NAME_FIELD.get(type_url, "name")]] = resource

    def drop(self, type_url, name):
        del self.resources[type_url][name]

    def put_endpoints(self, name):
        hosts = [config.endpoint(port, load_balancing_weight=self.rng.randint(1, 5))
                 for port in self.rng.sample(self.ports, self.rng.randint(1, len(self.ports)))]
        self.put(ENDPOINTS, {"cluster_name": name, "endpoints": [
            {"lb_endpoints": hosts, "locality": {"zone": self.rng.choice("ab")}, "load_balancing_weight": 1}]})

    def put_cluster(self, name):
        self.put(CLUSTER, {"name": name, "type": "EDS", "connect_timeout": f"{self.rng.randint(5, 20)}s",
                           "lb_policy": self.rng.choice(["ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"]),
                           "eds_cluster_config": {"eds_config": self.source_of(ENDPOINTS)}})

    def put_secret(self):
        self.certificate = self.rng.choice([c for c in self.certificates if c is not self.certificate])
        self.put(SECRET, {"name": "front", "tls_certificate": {
            "certificate_chain": {"inline_string": self.certificate.cert.read_text()},
            "private_key": {"inline_string": self.certificate.key.read_text()}}})

    def put_listener(self, name):
        rng, fields = self.rng, {"metadata": {"filter_metadata": {"gocp": {"version": self.version}}}}
        if name == TCP:
            self.bytes_cluster = rng.choice(self.usable)
            chain = config.chain(config.tcp_proxy(self.bytes_cluster))
        else:
            manager = config.hcm(stat_prefix=name, stream_idle_timeout=f"{rng.randint(60, 62)}s")
            del manager["typed_config"]["route_config"]
            manager["typed_config"]["rds"] = {"route_config_name": self.listeners[name],
                                              "config_source": self.source_of(ROUTE)}
            chain = config.chain(manager)
        if name == TLS:
            sds = [{"name": "front", "sds_config": self.source_of(SECRET)}]
            chain["transport_socket"] = config.tls_socket("Downstream", common_tls_context={
                "tls_certificate_sds_secret_configs": sds, "alpn_protocols": ["h2", "http/1.1"]})
            fields["listener_filters"] = [TLS_INSPECTOR]
        self.put(LISTENER, config.listener(name=name, chains=[chain], **fields))

    # ---- routes ----

    def route(self, number):
        """One route and what it answers."""
        rng = self.rng
        path, is_prefix = f"/who/{number}/", rng.random() < 0.7
        match = {"prefix": path} if is_prefix else {"path": path}
        kind = rng.randrange(4)
        if kind == 0:
            name = rng.choice(self.usable)
            return config.route(match=match, cluster=name), (path, is_prefix, Answer(200, frozenset([name])))
        if kind == 1:
            names = rng.sample(self.usable, rng.randint(1, len(self.usable)))
            weights = {"clusters": [{"name": n, "weight": rng.randint(1, 9)} for n in names]}
            return {"match": match, "route": {"weighted_clusters": weights}}, (path, is_prefix, Answer(200, frozenset(names)))
        if kind == 2:
            host = f"moved-{rng.randrange(99)}.test"
            return ({"match": match, "redirect": {"host_redirect": host, "path_redirect": "/there"}},
                    (path, is_prefix, Answer(301, location=f"http{{s}}://{host}/there")))
        body = f"direct {rng.randrange(999)}"
        return ({"match": match, "direct_response": {"status": 203, "body": {"inline_string": body}}},
                (path, is_prefix, Answer(203, body=body)))

    def put_routes(self, table):
        """All of a table anew, but for the virtual host the load runs against."""
        weights = {"clusters": [{"name": n, "weight": self.rng.randint(1, 9)} for n in self.usable]}
        everything = {"match": {"prefix": "/"}, "route": {"weighted_clusters": weights}}
        hosts, answers = [{**LOADED, "routes": [everything]}], {}
        for number in self.rng.sample(range(HOSTS), self.rng.randint(1, HOSTS)):
            made = [self.route(n) for n in self.rng.sample(range(ROUTES_MAX), self.rng.randint(1, ROUTES_MAX))]
            answers[f"v{number}.test"] = tuple(answer for _, answer in made)
            hosts.append(config.vhost([r for r, _ in made], name=f"v{number}", domains=[f"v{number}.test"]))
        self.tables[table], self.labels[table] = answers, str(self.version)
        self.put(ROUTE, {"name": table, "virtual_hosts": hosts, "response_headers_to_add": [
            {"header": {"key": "x-snapshot", "value": str(self.version)}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]})

    def retire(self):
        """A cluster that can be done without: nothing routes to it from now on."""
        if len(self.usable) < 3:
            return False
        name = self.usable.pop(self.rng.randrange(1, len(self.usable)))
        self.retired.append(name)
        for table in self.tables:
            self.put_routes(table)
        if self.bytes_cluster == name:
            self.put_listener(TCP)
        return True

    # ---- steps; False: not possible now ----

    def begin(self):
        self.put_endpoints("main")
        self.put_cluster("main")
        self.put_secret()
        self.listeners = {HTTP: "shared", TLS: "shared"}
        self.put_routes("shared")
        for name in (HTTP, TLS, TCP):
            self.put_listener(name)

    def add_cluster(self):
        if self.fresh or len(self.usable) >= CLUSTERS_MAX:
            return False
        self.fresh.append(f"c{self.version}")
        self.put_endpoints(self.fresh[-1])
        self.put_cluster(self.fresh[-1])
        return True

    def change_cluster(self):
        self.put_cluster(self.rng.choice(self.usable))

    def change_endpoints(self):
        self.put_endpoints(self.rng.choice(self.usable))

    def change_routes(self):
        self.put_routes(self.rng.choice(sorted(self.tables)))

    def change_listener(self):
        self.put_listener(self.rng.choice(sorted([*self.listeners, TCP])))

    def change_secret(self):
        self.put_secret()

    def add_listener(self):
        name = f"extra-{self.version}"
        if name in self.listeners or len(self.listeners) - 2 >= EXTRAS_MAX:
            return False
        self.listeners[name] = f"routes-{self.version}"
        self.put_routes(self.listeners[name])
        self.put_listener(name)
        return True

    def remove_listener(self):
        extras = sorted(n for n in self.listeners if n.startswith("extra-"))
        if not extras:
            return False
        name = self.rng.choice(extras)
        table = self.listeners.pop(name)
        del self.tables[table], self.labels[table]
        self.drop(LISTENER, name)
        self.drop(ROUTE, table)
        return True

    STEPS = (add_cluster, change_cluster, change_endpoints, change_routes, change_listener, change_secret, add_listener,
             remove_listener, retire)

    def step(self):
        """The next whole state: some changes at once."""
        self.version += 1
        for name in self.retired:
            self.drop(CLUSTER, name)
            self.drop(ENDPOINTS, name)
        self.usable, self.fresh, self.retired = self.usable + self.fresh, [], []
        for _ in range(self.rng.randint(1, CHANGES_MAX)):
            while self.rng.choice(self.STEPS)(self) is False:
                pass
        self.publish()

    def publish(self):
        """Versions for what is other than it was; now and then for what is not."""
        for type_url in TYPES:
            now, before, version = self.resources[type_url], self.published[type_url], str(self.version)
            for name in now:
                if now[name] != before.get(name):
                    self.changed_in[type_url][name] = self.last_change[type_url] = version
            for name in set(before) - set(now):
                del self.changed_in[type_url][name]
                self.last_change[type_url] = version
            if self.last_change[type_url] == version or self.rng.random() < REPUBLISHED:
                self.type_versions[type_url] = version
            self.published[type_url] = dict(now)

    # ---- views ----

    def snapshot(self):
        """As controlplane/ reads it."""
        return {"version": str(self.version), "versions": dict(self.type_versions),
                "resources": {t: list(named.values()) for t, named in self.resources.items()}}

    def state(self):
        endpoints = {name: frozenset(e["endpoint"]["address"]["socket_address"]["port_value"]
                                     for group in r["endpoints"] for e in group["lb_endpoints"])
                     for name, r in self.resources[ENDPOINTS].items()}
        return State(dict(self.tables), dict(self.labels), endpoints, dict(self.listeners), self.bytes_cluster,
                     self.certificate)
