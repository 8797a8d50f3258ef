"""One side of an xDS conversation, written by hand: nothing is answered unless the case says so.

    talk.start()                                   # the proxy under test, on ADS
    talk.accept(CLUSTER, "1", [cluster("a")])      # a response, and its ACK
    request = talk.next(ENDPOINTS)                 # the next request of a type, in order
    talk.nothing(ROUTE)                            # no request of the type is left, none is on its way

Every response is built for the conversation's protocol: SotW names all there is of LDS and CDS, delta what changed.
"""
from envoy.service.discovery.v3 import discovery_pb2
from support import config
from support.ads_server import (CLUSTER, ENDPOINTS, FULL_STATE, LISTENER, ROUTE, SECRET, WAIT_S, AdsServer, message_of,
                                name_of)
from support.process import wait_until

ADS = {"ads": {}, "resource_api_version": "V3"}
API_TYPES = {"sotw": "GRPC", "delta": "DELTA_GRPC"}


# ---- resources ----

def static_cluster(name, **fields):
    return {"name": name, "type": "STATIC", "connect_timeout": "5s", **fields}


def bad_cluster(name):
    """Refused by everybody: no such transport socket."""
    return static_cluster(name, transport_socket={"name": "no.such.socket"})


def eds_cluster(name, source=None, **fields):
    eds = {"eds_config": source or ADS, **fields.pop("eds", {})}
    return {"name": name, "type": "EDS", "connect_timeout": "5s", "eds_cluster_config": eds, **fields}


def assignment(name, *ports, **fields):
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": [config.endpoint(p) for p in ports]}], **fields}


def direct_listener(name="main", status=200, **fields):
    return config.listener(config.hcm([config.direct("/", status)], stat_prefix=name), name=name, **fields)


def bad_listener(name):
    """Refused by everybody: no such filter."""
    return config.listener({"name": "no.such.filter"}, name=name)


def rds_listener(name="main", route="r", source=None, **fields):
    manager = config.hcm(stat_prefix=name)
    del manager["typed_config"]["route_config"]
    manager["typed_config"]["rds"] = {"route_config_name": route, "config_source": source or ADS}
    return config.listener(manager, name=name, **fields)


def direct_routes(name="r", status=200):
    return {"name": name, "virtual_hosts": [config.vhost([config.direct("/", status)])]}


def bad_routes(name="r"):
    """Refused by everybody: a domain twice."""
    return {"name": name, "virtual_hosts": [config.vhost([config.direct("/", 200)], name=n) for n in ("one", "two")]}


def secret(name, text="c2VjcmV0"):
    return {"name": name, "generic_secret": {"secret": {"inline_bytes": text}}}


def secret_cluster(name, secret_name, source=None):
    """Waits for a validation context of that name."""
    return static_cluster(name, transport_socket=config.tls_socket("Upstream", common_tls_context={
        "validation_context_sds_secret_config": {"name": secret_name, "sds_config": source or ADS}}))


def validation(name, authority):
    return {"name": name, "validation_context": {"trusted_ca": {"inline_string": authority.pair.cert.read_text()}}}


def wrapped(type_url, resource, ttl_ms=0, name=None, version="own"):
    """In a Resource; resource None: a heartbeat."""
    message = message_of(type_url, resource) if resource else None
    wrapper = discovery_pb2.Resource(name=name or name_of(message), version=version)
    if ttl_ms:
        wrapper.ttl.FromMilliseconds(ttl_ms)
    if message is not None:
        wrapper.resource.Pack(message)
    return wrapper


class ManualServer(AdsServer):
    """Records requests and answers none."""

    def _respond(self, stream, type_url, is_push=False):
        pass


class Conversation:
    """See the module. `kind` is sotw or delta; `start_proxy` a starter of support.fixtures."""

    def __init__(self, kind, start_proxy, server, is_envoy=False):
        self.kind, self.start_proxy, self.ads, self.is_envoy = kind, start_proxy, server, is_envoy
        self.is_delta = kind == "delta"
        self.proxy = None
        self.have = {}   # type → {name: message} as last pushed
        self.seen = {}   # type → requests consumed
        self.fences = 0
        self.last_version = ""  # for cases that send responses by hand

    # ---- the proxy ----

    def xds_cluster(self, **fields):
        address = {"pipe": {"path": str(self.ads.path)}} if self.ads.path else config.address(self.ads.port)
        return {"name": "xds", "type": "STATIC", "connect_timeout": "5s",
                "load_assignment": {"cluster_name": "xds",
                                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]},
                "typed_extension_protocol_options": config.http2(), **fields}

    @staticmethod
    def ads_source(**fields):
        return {**ADS, **fields}

    def api(self, retry=("0.02s", "0.1s"), service=None, envoy_grpc=None, **fields):
        """An ApiConfigSource over gRPC; reconnects come soon, for tests wait for them."""
        back_off = {"retry_back_off": {"base_interval": retry[0], "max_interval": retry[1]}}
        grpc = {"cluster_name": "xds", "retry_policy": back_off, **(envoy_grpc or {})}
        return {"api_type": API_TYPES[self.kind], "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": grpc, **(service or {})}], **fields}

    def bootstrap(self, cds=ADS, lds=ADS, api=None, clusters=(), cluster=None, **fields):
        dynamic = {"ads_config": api or self.api(), **({"cds_config": cds} if cds else {}),
                   **({"lds_config": lds} if lds else {})}
        return config.bootstrap([], [self.xds_cluster(**(cluster or {})), *clusters], dynamic_resources=dynamic, **fields)

    def start(self, bootstrap=None, args=(), **fields):
        self.proxy = self.start_proxy(bootstrap or self.bootstrap(**fields), ready=False, args=list(args))
        return self.proxy

    def start_with(self, clusters=(), listeners=(), **fields):
        """Started, with a first answer to CDS and LDS."""
        self.start(**fields)
        self.accept(CLUSTER, "c1", clusters)
        if not any(c["type"] == "EDS" for c in clusters):
            self.accept(LISTENER, "l1", listeners)
        return self

    # ---- requests ----

    def next(self, type_url, limit_s=WAIT_S):
        """The next request of a type that was not looked at yet."""
        at = self.seen.get(type_url, 0)
        self.ads.wait_for(lambda: len(self.ads.of(type_url)) > at, limit_s)
        self.seen[type_url] = at + 1
        return self.ads.of(type_url)[at]

    def unseen(self, type_url):
        return self.ads.of(type_url)[self.seen.get(type_url, 0):]

    def skip(self, *types):
        """What came so far is of no interest."""
        for type_url in types or {r.type_url for r in self.ads.requests}:
            self.seen[type_url] = len(self.ads.of(type_url))

    def nothing(self, type_url, fence=None):
        """No request of the type is left: one of another type, made later, is there."""
        self.fence(fence or (LISTENER if type_url == CLUSTER else CLUSTER))
        left = self.unseen(type_url)
        assert not left, left

    def fence(self, type_url):
        """All that the proxy had to say before is here: it answers a response that changes nothing."""
        self.fences += 1
        self.accept(type_url, f"fence{self.fences}", [])

    # ---- responses ----

    def response(self, type_url, version, changed=(), removed=(), nonce=None, identifier=None):
        """changed: dicts, messages or Resource wrappers."""
        named = [(r.name, r) if isinstance(r, discovery_pb2.Resource) else (name_of(m := message_of(type_url, r)), m)
                 for r in changed]
        have = self.have.setdefault(type_url, {})
        have.update((name, r) for name, r in named
                    if not isinstance(r, discovery_pb2.Resource) or r.HasField("resource"))
        for name in removed:
            have.pop(name, None)
        nonce = self.ads._nonce() if nonce is None else nonce
        if self.is_delta:
            made = discovery_pb2.DeltaDiscoveryResponse(system_version_info=version, type_url=type_url, nonce=nonce,
                                                        removed_resources=removed)
            for name, r in named:
                if isinstance(r, discovery_pb2.Resource):
                    made.resources.add().CopyFrom(r)
                else:
                    made.resources.add(name=name, version=version).resource.Pack(r)
        else:
            made = discovery_pb2.DiscoveryResponse(version_info=version, type_url=type_url, nonce=nonce)
            for r in have.values() if type_url in FULL_STATE else [r for _, r in named]:
                made.resources.add().Pack(r)
        if identifier:
            made.control_plane.identifier = identifier
        return made

    def raw(self, type_url, version="", nonce="raw", resources=(), removed=()):
        """A response with exactly these resources: messages (packed), Any or Resource; nothing is remembered of them."""
        if not self.is_delta:
            made = discovery_pb2.DiscoveryResponse(version_info=version, type_url=type_url, nonce=nonce)
            for r in resources:
                made.resources.add().Pack(r)
            return made
        made = discovery_pb2.DeltaDiscoveryResponse(system_version_info=version, type_url=type_url, nonce=nonce,
                                                    removed_resources=removed)
        for r in resources:
            if isinstance(r, discovery_pb2.Resource):
                made.resources.add().CopyFrom(r)
            else:
                made.resources.add(name=name_of(r), version=version).resource.Pack(r)
        return made

    def push(self, type_url, version, changed=(), removed=(), **options):
        """Send it; returns its nonce."""
        stream = options.pop("stream", None)
        made = self.response(type_url, version, changed, removed, **options)
        self.send(made, stream)
        return made.nonce

    def send(self, response, stream=None):
        """On the newest stream that asked for the type."""
        if stream is None:
            with self.ads.lock:
                stream = [s for s in self.ads.streams if response.type_url in s.asked][-1]
        self.ads.send(response, stream.number)

    def ack(self, type_url, nonce, version=None):
        """The next request is an ACK."""
        request = self.next(type_url)
        assert request.response_nonce == nonce, request
        assert not request.is_nack, request
        if version is not None and not self.is_delta:
            assert request.version_info == version, request
        return request

    def nack(self, type_url, nonce, *texts, version=""):
        """The next request is a NACK that says all these; version: the last accepted (SotW)."""
        request = self.next(type_url)
        assert request.response_nonce == nonce and request.is_nack, request
        for text in texts:
            assert text in request.error_detail.message, request.error_detail.message
        if not self.is_delta:
            assert request.version_info == version, request
        return request

    def accept(self, type_url, version, changed=(), removed=(), **options):
        """A response, and its ACK, which is returned. The first request of the type is looked over."""
        if not self.seen.get(type_url):
            self.next(type_url)
        nonce = self.push(type_url, version, changed, removed, **options)
        return self.ack(type_url, nonce, version)

    def pause(self, ms):
        """Time passes at the proxy's side; its own requests mark it, so that a loaded machine only makes it longer."""
        with self.ads.lock:
            self.ads.lock.wait_for(lambda: False, ms / 1000)

    # ---- the state that results ----

    def dump(self):
        """{message name of a config_dump part: the part}"""
        return {part["@type"].rsplit(".", 1)[-1]: part for part in
                self.proxy.admin("/config_dump?include_eds").json["configs"]}

    def clusters(self):
        """Dynamic clusters in use."""
        rows = self.dump()["ClustersConfigDump"].get("dynamic_active_clusters", [])
        return {row["cluster"]["name"] for row in rows}

    def listeners(self):
        rows = self.dump()["ListenersConfigDump"].get("dynamic_listeners", [])
        return {row["name"] for row in rows if "active_state" in row}

    def wait_clusters(self, *names):
        wait_until(lambda: self.clusters() == set(names), lambda: f"clusters {names}, there are {self.clusters()}")

    def wait_listeners(self, *names):
        wait_until(lambda: self.listeners() == set(names), lambda: f"listeners {names}, there are {self.listeners()}")

    def stat(self, name):
        return self.proxy.stat(name)

    def wait_stat(self, name, value):
        return self.proxy.wait_stat(name, value)

    def text(self, name):
        """A text readout."""
        lines = dict(line.split(": ", 1) for line in self.proxy.admin("/stats?type=TextReadouts").text.splitlines())
        return lines.get(name, "").strip('"')
