"""A scripted control plane: SotW and delta xDS, aggregated and per type, over TCP (port 0) or a UNIX socket.

    with AdsServer() as ads:
        ads.set(CLUSTER, "v1", [{"name": "a", …}, …])      # pushed to every stream that wants it
        request = ads.wait(lambda r: r.type_url == CLUSTER and r.response_nonce)

Requests are kept in order in `ads.requests`, each with its stream (method, number, metadata). Resources are messages, dicts
as in JSON, or ready-made Resource wrappers. Nothing here sleeps: every wait ends when its condition holds or fails after a limit.
"""
import threading
import time
from concurrent import futures

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import extension_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_components_pb2, route_pb2, scoped_route_pb2
# Messages that resources given as dicts may hold in an Any.
from envoy.extensions.filters.http.on_demand.v3 import on_demand_pb2  # noqa: F401
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_pb2  # noqa: F401
from envoy.extensions.filters.http.cors.v3 import cors_pb2  # noqa: F401
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401
from envoy.extensions.filters.listener.tls_inspector.v3 import tls_inspector_pb2  # noqa: F401
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.runtime.v3 import rtds_pb2
from google.protobuf import json_format, text_format

PREFIX = "type.googleapis.com/"
CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LB_ENDPOINT = PREFIX + "envoy.config.endpoint.v3.LbEndpoint"  # Resource wrappers: the message has no name
SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
ROUTE = PREFIX + "envoy.config.route.v3.RouteConfiguration"
SCOPED_ROUTE = PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
VIRTUAL_HOST = PREFIX + "envoy.config.route.v3.VirtualHost"
EXTENSION = PREFIX + "envoy.config.core.v3.TypedExtensionConfig"
RUNTIME = PREFIX + "envoy.service.runtime.v3.Runtime"
RESOURCE = PREFIX + "envoy.service.discovery.v3.Resource"
MESSAGES = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LB_ENDPOINT: endpoint_components_pb2.LbEndpoint,
    SECRET: secret_pb2.Secret,
    LISTENER: listener_pb2.Listener,
    ROUTE: route_pb2.RouteConfiguration,
    SCOPED_ROUTE: scoped_route_pb2.ScopedRouteConfiguration,
    VIRTUAL_HOST: route_components_pb2.VirtualHost,
    EXTENSION: extension_pb2.TypedExtensionConfig,
    RUNTIME: rtds_pb2.Runtime,
}
FULL_STATE = {CLUSTER, LISTENER, SCOPED_ROUTE}
# Method name, without Stream or Delta, by type.
METHODS = {
    "AggregatedResources": None,
    "Clusters": CLUSTER,
    "Endpoints": ENDPOINTS,
    "LocalityEndpoints": LB_ENDPOINT,
    "Secrets": SECRET,
    "Listeners": LISTENER,
    "Routes": ROUTE,
    "ScopedRoutes": SCOPED_ROUTE,
    "VirtualHosts": VIRTUAL_HOST,
    "ExtensionConfigs": EXTENSION,
    "Runtime": RUNTIME,
}
WAIT_S = 20


def message_of(type_url, resource):
    return json_format.ParseDict(resource, MESSAGES[type_url]()) if isinstance(resource, dict) else resource


def name_of(message):
    """A resource's name, whichever field it is in."""
    field = {"ClusterLoadAssignment": "cluster_name", "Workload": "uid"}.get(message.DESCRIPTOR.name, "name")
    return getattr(message, field)


class Recorded:
    """A request as it came: its fields are those of the message."""

    def __init__(self, message, stream):
        self.message, self.stream = message, stream
        self.is_delta = stream.is_delta
        self.at = time.monotonic()

    def __getattr__(self, field):
        return getattr(self.message, field)

    @property
    def names(self):
        return list(self.message.resource_names_subscribe if self.is_delta else self.message.resource_names)

    @property
    def is_nack(self):
        return self.message.HasField("error_detail")

    def __repr__(self):
        shown = type(self.message)()
        shown.CopyFrom(self.message)
        if shown.HasField("node"):
            shown.node.Clear()  # long, and always the same
        text = text_format.MessageToString(shown, as_one_line=True)
        return f"<stream {self.stream.number} {text if len(text) < 600 else text[:600] + '…'}>"


class Stream:
    """One stream's view of what its client wants and has."""

    def __init__(self, server, number, method, context):
        self.server, self.number, self.method, self.context = server, number, method, context
        self.is_delta = method.startswith("Delta")
        self.metadata = dict(context.invocation_metadata())
        self.wanted = {}     # type → set of names, "*" among them
        self.asked = set()   # types with a request on this stream
        self.sent = {}       # delta: type → {name: version}
        self.responses = []  # to be written
        self.is_open = True

    def note(self, request):
        """Bring `wanted` up to date. True: what is wanted changed, or it is the first request."""
        type_url, first = request.type_url, request.type_url not in self.asked
        names = self.wanted.setdefault(type_url, set())
        before = set(names)
        if self.is_delta:
            names |= set(request.resource_names_subscribe)
            names -= set(request.resource_names_unsubscribe)
            if first and not request.resource_names_subscribe:
                names.add("*")
            if first:
                self.sent[type_url] = dict(request.initial_resource_versions)
            for name in [*request.resource_names_unsubscribe, *request.resource_names_subscribe]:
                self.sent[type_url].pop(name, None)
        elif request.resource_names:
            names.clear()
            names.update(request.resource_names)
        else:
            names.clear()
            if first or before == {"*"}:
                names.add("*")
        self.asked.add(type_url)
        return first or bool(names - before) or (self.is_delta and bool(request.resource_names_subscribe))

    def wants(self, type_url, name):
        names = self.wanted.get(type_url, ())
        is_member = name.startswith("xdstp:") and name.rpartition("/")[0] + "/*" in names
        return "*" in names or name in names or is_member


class AdsServer:
    """See the module. A client uses whichever methods it likes; all share the resources."""

    def __init__(self, path=None, credentials=None, options=(), port=0):
        self.lock = threading.Condition()
        self.path, self.credentials, self.options = path, credentials, list(options)
        self.requests, self.streams = [], []
        self.state = {}       # type → (version, {name: message})
        self.held = set()     # types whose pushes wait
        self.nonces = 0
        self.port = port
        self.server = None
        self.start()

    # ---- life ----

    def start(self):
        """Serve (again: on the same port, after kill())."""
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=32),
                                  options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1),
                                           ("grpc.max_send_message_length", -1), *self.options])
        self.server.add_generic_rpc_handlers((_Handler(self),))
        target = f"unix:{self.path}" if self.path else f"127.0.0.1:{self.port}"
        port = (self.server.add_secure_port(target, self.credentials) if self.credentials
                else self.server.add_insecure_port(target))
        if not port:
            raise OSError(f"can not bind {target}")
        self.port = 0 if self.path else port
        self.server.start()

    def kill(self):
        """Close every connection at once and stop listening."""
        with self.lock:
            for stream in self.streams:
                stream.is_open = False
            self.lock.notify_all()
        self.server.stop(0).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    # ---- resources ----

    def set(self, type_url, version, resources, push=True):
        """All resources of a type from now on."""
        with self.lock:
            named = {name_of(m): m for m in (message_of(type_url, r) for r in resources)}
            self.state[type_url] = (version, {name: (version, message) for name, message in named.items()})
            if push and type_url not in self.held:
                self._push(type_url)

    def update(self, type_url, version, changed=(), removed=(), push=True):
        """Change some resources only: the others keep their own version (delta sends what changed)."""
        with self.lock:
            resources = dict(self.state.get(type_url, ("", {}))[1])
            for message in (message_of(type_url, r) for r in changed):
                resources[name_of(message)] = (version, message)
            for name in removed:
                resources.pop(name, None)
            self.state[type_url] = (version, resources)
            if push and type_url not in self.held:
                self._push(type_url)

    def push(self, type_url, version, resources):
        """set() for one stream that has asked; → the request that answers."""
        with self.lock:
            self.set(type_url, version, resources)
            nonce = f"n{self.nonces}"
        return self.wait(lambda r: r.type_url == type_url and r.response_nonce == nonce)

    def hold(self, *types):
        """Answer nothing for these types until release()."""
        with self.lock:
            self.held |= set(types)

    def release(self, *types):
        with self.lock:
            for type_url in types or list(self.held):
                self.held.discard(type_url)
                self._push(type_url)

    def send(self, response, stream=-1):
        """Write a hand-made response to a stream (by default the newest) as it is."""
        with self.lock:
            self.streams[stream].responses.append(response)
            self.lock.notify_all()

    def end_streams(self, code=grpc.StatusCode.UNAVAILABLE):
        """End every stream with a status; connections stay."""
        with self.lock:
            for stream in self.open_streams():
                stream.context.set_code(code)
                stream.is_open = False
            self.lock.notify_all()

    def open_streams(self):
        return [s for s in self.streams if s.is_open]

    # ---- waiting ----

    def wait(self, condition, after=0, limit_s=WAIT_S):
        """The first request at or behind index `after` for which condition(request) holds."""
        deadline = time.monotonic() + limit_s
        with self.lock:
            while True:
                for request in self.requests[after:]:
                    if condition(request):
                        return request
                rest = deadline - time.monotonic()
                if rest <= 0:
                    raise AssertionError(f"no such request among {self.requests[after:]}")
                self.lock.wait(rest)

    def wait_for(self, condition, limit_s=WAIT_S):
        """Until condition() holds; looked at with each event of the server."""
        with self.lock:
            if not self.lock.wait_for(condition, limit_s):
                raise AssertionError(f"did not happen; requests: {self.requests}")

    def wait_ack(self, type_url, version=None, after=0):
        """SotW: an ACK of the version; delta: an ACK of a nonce."""
        return self.wait(lambda r: r.type_url == type_url and r.response_nonce and not r.is_nack
                         and (version is None or r.is_delta or r.version_info == version), after)

    def wait_nack(self, type_url, after=0):
        return self.wait(lambda r: r.type_url == type_url and r.is_nack, after)

    def of(self, type_url):
        """Requests of a type."""
        return [r for r in self.requests if r.type_url == type_url]

    # ---- inside, under the lock ----

    def _nonce(self):
        self.nonces += 1
        return f"n{self.nonces}"

    def _push(self, type_url):
        for stream in self.open_streams():
            if stream.wanted.get(type_url):
                self._respond(stream, type_url, is_push=True)

    def _respond(self, stream, type_url, is_push=False):
        if type_url in self.held or type_url not in self.state:
            return
        version, resources = self.state[type_url]
        response = (self._delta if stream.is_delta else self._sotw)(stream, type_url, version, resources)
        is_news = not stream.is_delta or response.resources or response.removed_resources
        if is_news or not is_push:
            stream.responses.append(response)
            self.lock.notify_all()

    def _sotw(self, stream, type_url, version, resources):
        response = discovery_pb2.DiscoveryResponse(version_info=version, type_url=type_url, nonce=self._nonce())
        response.control_plane.identifier = "scripted"
        for name, (_, message) in resources.items():
            if type_url in FULL_STATE or stream.wants(type_url, name):
                response.resources.add().Pack(message)
        return response

    def _delta(self, stream, type_url, version, resources):
        response = discovery_pb2.DeltaDiscoveryResponse(system_version_info=version, type_url=type_url, nonce=self._nonce())
        sent = stream.sent.setdefault(type_url, {})
        for name, (own, message) in resources.items():
            if stream.wants(type_url, name) and sent.get(name) != own:
                sent[name] = own
                if isinstance(message, discovery_pb2.Resource):
                    response.resources.add().CopyFrom(message)
                    continue
                added = response.resources.add(name=name, version=own)
                added.resource.Pack(message)
        for name in [n for n in sent if n not in resources]:
            del sent[name]
            response.removed_resources.append(name)
        return response

    def _received(self, stream, message):
        with self.lock:
            self.requests.append(Recorded(message, stream))
            if stream.note(message):
                self._respond(stream, message.type_url)
            self.lock.notify_all()

    def _read(self, stream, requests):
        try:
            for message in requests:
                self._received(stream, message)
        except grpc.RpcError:
            pass
        except Exception:  # the stream was cancelled under us
            if stream.is_open:
                raise
        with self.lock:
            stream.is_open = False
            self.lock.notify_all()

    def _serve(self, method, requests, context):
        with self.lock:
            stream = Stream(self, len(self.streams), method, context)
            self.streams.append(stream)
            self.lock.notify_all()
        threading.Thread(target=self._read, args=(stream, requests), daemon=True).start()
        while True:
            with self.lock:
                self.lock.wait_for(lambda: stream.responses or not stream.is_open)
                if not stream.responses:
                    return
                response = stream.responses.pop(0)
            yield response


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server):
        self.server = server

    def service(self, details):
        method = details.method.rsplit("/", 1)[-1]
        kind = "Delta" if method.startswith("Delta") else "Stream"
        if method.removeprefix(kind) not in METHODS:
            return None
        request, response = ((discovery_pb2.DeltaDiscoveryRequest, discovery_pb2.DeltaDiscoveryResponse)
                             if kind == "Delta" else (discovery_pb2.DiscoveryRequest, discovery_pb2.DiscoveryResponse))
        return grpc.stream_stream_rpc_method_handler(
            lambda requests, context: self.server._serve(method, requests, context),
            request.FromString, lambda r: r if isinstance(r, bytes) else r.SerializeToString())
