"""A small control plane: serves the resources of YAML files over ADS (state of the world), and again when a file changes.

Each file is a list of resources of one kind, in the JSON form of their v3 messages, with $names for what only the caller
knows. A file that cannot be read keeps its last good content. Refusals by the proxy are printed.
"""

import concurrent.futures
import importlib
import pkgutil
import queue
import string
import threading

import grpc
import yaml
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2, json_format

POLL_S = 0.2
STREAMS_MAX = 16
# In the order of pushing: what is referred to comes before what refers to it.
MESSAGES = {"clusters": cluster_pb2.Cluster, "endpoints": endpoint_pb2.ClusterLoadAssignment,
            "listeners": listener_pb2.Listener, "routes": route_pb2.RouteConfiguration}
KIND_OF = {f"type.googleapis.com/{message.DESCRIPTOR.full_name}": kind for kind, message in MESSAGES.items()}
TYPE_OF = {kind: url for url, kind in KIND_OF.items()}
# A cluster that changed waits for its endpoints, a listener for its routes, even if those stayed as they were.
FOLLOWERS = {"clusters": "endpoints", "listeners": "routes"}


def say(text):
    print(f"[control plane] {text}", flush=True)


def import_types(node):
    """Make json_format know every "@type" below `node`."""
    if isinstance(node, dict):
        package = str(node.get("@type", "")).rpartition("/")[2].rpartition(".")[0]
        if package:
            for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
                if module.name.endswith("_pb2"):
                    importlib.import_module(f"{package}.{module.name}")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        import_types(child)


def load(path, kind, variables):
    """{name: Any} of the file's resources."""
    documents = yaml.safe_load(string.Template(path.read_text()).safe_substitute(variables)) or []
    if not isinstance(documents, list):
        raise ValueError(f"must be a list of {kind}")
    import_types(documents)
    resources = {}
    for document in documents:
        message = json_format.ParseDict(document, MESSAGES[kind]())
        name = message.cluster_name if kind == "endpoints" else message.name
        resources[name] = any_pb2.Any(type_url=TYPE_OF[kind], value=message.SerializeToString(deterministic=True))
    return resources


class Files:
    """The resources of the folder's four files; each kind has its own version, which grows when its content changes."""

    def __init__(self, folder, variables):
        self.folder = folder
        self.variables = variables
        self.lock = threading.Lock()
        self.stamps = {}
        self.resources = {kind: {} for kind in MESSAGES}
        self.versions = dict.fromkeys(MESSAGES, 0)

    def get(self, kind):
        with self.lock:
            return self.versions[kind], self.resources[kind]

    def changed(self):
        """Look at the files; returns the kinds that have new content. Errors: OSError, ValueError and what YAML raises."""
        return [kind for kind in MESSAGES if self.refresh(kind)]

    def refresh(self, kind):
        path = self.folder / f"{kind}.yaml"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp == self.stamps.get(kind):
                return False
            resources = load(path, kind, self.variables)
        except FileNotFoundError:  # an editor is replacing it
            return False
        except (ValueError, ImportError, AttributeError, yaml.YAMLError, json_format.ParseError) as error:
            say(f"{path.name} cannot be read, nothing changes: {error}")
            self.stamps[kind] = stamp
            return False
        self.stamps[kind] = stamp
        with self.lock:
            if resources == self.resources[kind] and self.versions[kind]:
                return False
            self.resources[kind] = resources
            self.versions[kind] += 1
        say(f"{path.name}: version {self.versions[kind]}")
        return True


class Stream:
    """One ADS stream: what the proxy asked for, and what it was last sent. Used by the stream's own thread."""

    def __init__(self, files):
        self.files = files
        self.names = {}     # kind: the resources asked for; an empty set means all of them
        self.nonces = {}
        self.sent = {}      # kind: version
        self.answered = {}  # kind: version that was accepted or refused
        self.nonce = 0

    def response(self, kind):
        version, resources = self.files.get(kind)
        self.nonce += 1
        self.nonces[kind] = str(self.nonce)
        self.sent[kind] = version
        wanted = self.names[kind]
        return discovery_pb2.DiscoveryResponse(
            version_info=str(version), type_url=TYPE_OF[kind], nonce=self.nonces[kind],
            resources=[any_ for name, any_ in resources.items() if not wanted or name in wanted])

    def on_request(self, request):
        """Responses to send for a subscription, an acceptance or a refusal."""
        kind = KIND_OF.get(request.type_url)
        if kind is None:
            say(f"asked for {request.type_url}, which is not served here")
            return []
        if request.response_nonce and request.response_nonce != self.nonces.get(kind):
            return []  # it speaks of an earlier response
        if request.response_nonce and self.answered.get(kind) != self.sent[kind]:
            self.answered[kind] = self.sent[kind]
            if request.HasField("error_detail"):
                say(f"NACK: version {self.sent[kind]} of {kind} was refused: {request.error_detail.message}")
            else:
                say(f"ACK: version {self.sent[kind]} of {kind} is in use")
        names = set(request.resource_names)
        if self.names.get(kind) == names:
            return []
        self.names[kind] = names
        return [self.response(kind)]

    def on_change(self, kinds):
        due = {*kinds, *(FOLLOWERS[kind] for kind in kinds if kind in FOLLOWERS)}
        return [self.response(kind) for kind in MESSAGES if kind in due and kind in self.names]


class ControlPlane(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):
    """Serves on the loopback address from construction until stop()."""

    def __init__(self, port, folder, variables):
        self.files = Files(folder, variables)
        self.inboxes = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.files.changed()
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(STREAMS_MAX),
                                  options=[("grpc.so_reuseport", 0)])
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"127.0.0.1:{port}")
        self.server.start()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def watch(self):
        while not self.stopping.wait(POLL_S):
            kinds = self.files.changed()
            with self.lock:
                for inbox in self.inboxes if kinds else ():
                    inbox.put(kinds)

    def StreamAggregatedResources(self, requests, context):
        inbox = queue.Queue()  # requests, lists of changed kinds, and None at the end

        def read():
            try:
                for request in requests:
                    inbox.put(request)
            except grpc.RpcError:
                pass
            inbox.put(None)

        with self.lock:
            self.inboxes.append(inbox)
        context.add_callback(lambda: inbox.put(None))
        threading.Thread(target=read, daemon=True).start()
        say("a proxy has connected")
        stream = Stream(self.files)
        try:
            while (item := inbox.get()) is not None:
                yield from stream.on_change(item) if isinstance(item, list) else stream.on_request(item)
        finally:
            with self.lock:
                self.inboxes.remove(inbox)
            if not self.stopping.is_set():
                say("a proxy has gone")

    def stop(self):
        self.stopping.set()
        self.server.stop(grace=None).wait(5)
