"""A stand-in for Kubernetes' API server: holds objects, answers lists and watches, takes writes. istiod reads all its
configuration, services and secrets here, as it would from a cluster. Nothing is validated but what routing needs."""

import base64
import copy
import http.server
import itertools
import json
import re
import threading
import time
import urllib.parse

import yaml

WATCH_S = 300
PARTIAL = "PartialObjectMetadata"
BOOKMARK = {"k8s.io/initial-events-end": "true"}
# The kinds of Istio's API that istiod watches when their definitions exist.
ISTIO_KINDS = {
    "networking.istio.io": ["Gateway", "VirtualService", "DestinationRule", "ServiceEntry", "Sidecar", "WorkloadEntry",
                            "WorkloadGroup", "EnvoyFilter", "ProxyConfig"],
    "security.istio.io": ["AuthorizationPolicy", "PeerAuthentication", "RequestAuthentication"],
    "telemetry.istio.io": ["Telemetry"]}
GATEWAY_GROUP = "gateway.networking.k8s.io"
GATEWAY_KINDS = ["GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "ReferenceGrant",
                 "BackendTLSPolicy"]
GATEWAY_BUNDLE = "v1.6.0"
CORE_KINDS = ["ConfigMap", "Secret", "Namespace", "Pod", "Service", "Node", "Endpoints", "EndpointSlice", "Ingress",
              "IngressClass", "ServiceAccount", "CustomResourceDefinition", "MutatingWebhookConfiguration",
              "ValidatingWebhookConfiguration", "ClusterTrustBundle", "Lease", "Deployment", "HorizontalPodAutoscaler",
              "PodDisruptionBudget"]
REVIEWS = ("subjectaccessreviews", "selfsubjectaccessreviews")


def plural(kind):
    word = kind.lower()
    if word == "endpoints":
        return word
    if word.endswith(("s", "x", "ch")):
        return word + "es"
    vowel = word[-2:-1] in "aeiou"
    return word[:-1] + "ies" if word.endswith("y") and not vowel else word + "s"


SINGULARS = {plural(kind): kind for kind in itertools.chain(CORE_KINDS, GATEWAY_KINDS, *ISTIO_KINDS.values())}


def objects_of(text):
    """The objects of a YAML text, or of a list."""
    return [copy.deepcopy(i) for i in (yaml.safe_load_all(text) if isinstance(text, str) else text) if i]


def definition(group, kind):
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural(kind)}.{group}",
                         "annotations": {"gateway.networking.k8s.io/bundle-version": GATEWAY_BUNDLE}},
            "spec": {"group": group, "names": {"kind": kind, "plural": plural(kind)}}}


def namespace(name):
    return {"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}}


def secret(name, files, space="istio-system"):
    """A Secret of `files`: {key: bytes or path}."""
    data = {k: base64.b64encode(v if isinstance(v, bytes) else v.read_bytes()).decode() for k, v in files.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": name, "namespace": space},
            "data": data}


def selects_labels(selector, labels):
    """Kubernetes' label selector: a=b, a!=b, a in (b,c), a notin (b,c), a, !a, joined by commas."""
    for term in re.findall(r"[^,(]+(?:\([^)]*\))?", selector or ""):
        if m := re.fullmatch(r"\s*(\S+)\s+(in|notin)\s+\(([^)]*)\)\s*", term):
            is_in = labels.get(m[1]) in [v.strip() for v in m[3].split(",")]
            is_selected = is_in == (m[2] == "in")
        elif "!=" in term:
            name, value = term.split("!=")
            is_selected = labels.get(name.strip()) != value.strip()
        elif "=" in term:
            name, value = re.split("==?", term)
            is_selected = labels.get(name.strip()) == value.strip()
        else:
            name = term.strip()
            is_selected = (name.lstrip("!") in labels) != name.startswith("!")
        if not is_selected:
            return False
    return True


def selects_fields(selector, item):
    known = {"metadata.name": item["metadata"]["name"], "metadata.namespace": item["metadata"].get("namespace", ""),
             "type": item.get("type", "")}
    for term in filter(None, (selector or "").split(",")):
        name, is_not, value = re.fullmatch(r"([^!=]+)(!?)==?(.*)", term).groups()
        if name in known and (known[name] == value) == bool(is_not):
            return False
    return True


def merge(old, new):
    """JSON merge patch."""
    if not isinstance(new, dict) or not isinstance(old, dict):
        return new
    merged = {**old, **{k: merge(old.get(k), v) for k, v in new.items()}}
    return {k: v for k, v in merged.items() if v is not None}


class Query:
    """What a request's path and query ask for."""

    def __init__(self, target):
        url = urllib.parse.urlsplit(target)
        self.path = url.path
        self.options = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        self.version = self.resource = self.name = self.part = None
        self.space = ""
        words = url.path.strip("/").split("/")
        if words[0] == "api" and len(words) > 2:
            self.version, words = words[1], words[2:]
        elif words[0] == "apis" and len(words) > 3:
            self.version, words = "/".join(words[1:3]), words[3:]
        else:
            return
        if words[0] == "namespaces" and len(words) > 2:
            self.space, words = words[1], words[2:]
        self.resource, self.name, self.part = (*words, None, None)[:3]

    def selects(self, key, item):
        version, resource, space, _ = key
        return ((version, resource) == (self.version, self.resource) and self.space in ("", space) and
                selects_fields(self.options.get("fieldSelector"), item) and
                selects_labels(self.options.get("labelSelector"), item["metadata"].get("labels") or {}))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refuse(self, status, reason):
        self.answer(status, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
                             "message": reason, "code": status})

    def wants_partial(self):
        return PARTIAL in (self.headers.get("accept") or "")

    def shown(self, item):
        return {"kind": PARTIAL, "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]} if self.wants_partial() else item

    def do_GET(self):
        api, query = self.server.api, Query(self.path)
        if query.resource is None:
            found = {"/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64"},
                     "/api": {"kind": "APIVersions", "versions": ["v1"]},
                     "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []}}
            self.answer(200, found.get(query.path, {"kind": "APIResourceList", "apiVersion": "v1", "resources": [],
                                                    "groupVersion": query.path.partition("/api")[2].partition("/")[2]}))
        elif query.name:
            item = api.find(query)
            self.answer(200, self.shown(item)) if item else self.refuse(404, "NotFound")
        elif query.options.get("watch") in ("1", "true"):
            self.watch(query)
        else:
            items, version = api.list(query)
            kind = PARTIAL if self.wants_partial() else api.kind(query)
            self.answer(200, {"kind": kind + "List", "metadata": {"resourceVersion": str(version)},
                              "apiVersion": "meta.k8s.io/v1" if self.wants_partial() else query.version,
                              "items": [self.shown(i) for i in items]})

    def event(self, kind, item):
        line = json.dumps({"type": kind, "object": item}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def watch(self, query):
        api, since = self.server.api, int(query.options.get("resourceVersion") or 0)
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        deadline = time.monotonic() + min(float(query.options.get("timeoutSeconds") or WATCH_S), WATCH_S)
        try:
            if query.options.get("sendInitialEvents") == "true" or not query.options.get("resourceVersion"):
                items, since = api.list(query)
                for item in items:
                    self.event("ADDED", self.shown(item))
                mark = {"kind": api.kind(query), "apiVersion": query.version, "metadata": {"name": ""}}
                mark = self.shown(mark)
                mark["metadata"] = {"resourceVersion": str(since), "annotations": BOOKMARK}
                self.event("BOOKMARK", mark)
            while time.monotonic() < deadline and not api.is_stopped:
                events, since = api.changes(query, since, deadline)
                for kind, item in events:
                    self.event(kind, self.shown(item))
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass

    def do_POST(self):
        self.write()

    do_PUT = do_PATCH = do_DELETE = do_POST

    def write(self):
        api, query = self.server.api, Query(self.path)
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if query.resource in REVIEWS:
            review = {"subjectaccessreviews": "SubjectAccessReview"}.get(query.resource, "SelfSubjectAccessReview")
            self.answer(201, {"kind": review, "apiVersion": query.version, "metadata": {}, "spec": {},
                              "status": {"allowed": api.may_read_secrets}})
            return
        if query.resource is None:
            self.refuse(404, "NotFound")
            return
        if self.command == "DELETE":
            api.remove(query)
            self.answer(200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
            return
        item, old = yaml.safe_load(body), api.find(query)
        if old is None and (self.command == "PATCH" or query.part == "status"):
            self.refuse(404, "NotFound")
            return
        if query.part == "status":
            item = {**old, "status": merge(old.get("status"), item.get("status"))}
        elif self.command == "PATCH":
            item = merge(old, item)
        item.setdefault("apiVersion", query.version)
        item.setdefault("kind", api.kind(query))
        item["metadata"].setdefault("name", query.name)
        if query.space:
            item["metadata"]["namespace"] = query.space
        self.answer(201 if self.command == "POST" else 200, api.put(item, resource=query.resource))


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, client_address):
        pass   # a client that left


class KubeApi:
    """The objects, and the server before them on `port`. Changes reach watches at once."""

    def __init__(self):
        self.lock = threading.Condition()
        self.objects = {}        # (apiVersion, resource, namespace, name) → object
        self.history = []        # (type, key, object), in the order of resource versions 1…
        self.is_stopped = False
        self.may_read_secrets = True
        self.uids = itertools.count(1)
        for group, kinds in ISTIO_KINDS.items():
            for kind in kinds:
                self.put(definition(group, kind))
        for kind in GATEWAY_KINDS:
            self.put(definition(GATEWAY_GROUP, kind))
        for name in ("istio-system", "default"):
            self.put(namespace(name))
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.api = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    # ---- what tests do ----

    def apply(self, text):
        """Create or replace each object of a YAML text, or of a list of objects; returns what remove_all takes."""
        items = objects_of(text)
        for item in items:
            self.put(item)
        return items

    def remove_all(self, items):
        for item in items:
            self.remove_object(self.key(item))

    def put(self, item, resource=None):
        item = copy.deepcopy(item)
        with self.lock:
            key = self.key(item, resource)
            old = self.objects.get(key)
            meta = item["metadata"]
            if not key[2]:
                meta.pop("namespace", None)
            kept = old["metadata"] if old else {"uid": f"uid-{next(self.uids)}", "generation": 1,
                                               "creationTimestamp": "2026-01-01T00:00:00Z"}
            for field in ("uid", "generation", "creationTimestamp"):
                meta.setdefault(field, kept[field])
            if old and old.get("spec") != item.get("spec"):
                meta["generation"] = kept["generation"] + 1
            meta["resourceVersion"] = str(len(self.history) + 1)
            self.objects[key] = item
            self.history.append(("MODIFIED" if old else "ADDED", key, item))
            self.lock.notify_all()
        return item

    def remove_object(self, key):
        with self.lock:
            item = self.objects.pop(key, None)
            if item:
                item = copy.deepcopy(item)
                item["metadata"]["resourceVersion"] = str(len(self.history) + 1)
                self.history.append(("DELETED", key, item))
                self.lock.notify_all()

    def stop(self):
        with self.lock:
            self.is_stopped = True
            self.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()

    # ---- what requests do ----

    CLUSTER_WIDE = ("Namespace", "Node", "CustomResourceDefinition", "GatewayClass", "IngressClass")

    def key(self, item, resource=None):
        meta = item["metadata"]
        space = "" if item["kind"] in self.CLUSTER_WIDE else meta.setdefault("namespace", "default")
        return item["apiVersion"], resource or plural(item["kind"]), space, meta["name"]

    def kind(self, query):
        return SINGULARS.get(query.resource, query.resource)

    def find(self, query):
        with self.lock:
            return self.objects.get((query.version, query.resource, query.space, query.name))

    def list(self, query):
        with self.lock:
            items = [item for key, item in sorted(self.objects.items()) if query.selects(key, item)]
            return items, len(self.history)

    def changes(self, query, since, deadline):
        """Events after `since`, once there are new ones or time is over."""
        with self.lock:
            self.lock.wait_for(lambda: self.is_stopped or len(self.history) > since, max(0, deadline - time.monotonic()))
            news = self.history[since:]
            return [(kind, item) for kind, key, item in news if query.selects(key, item)], len(self.history)

    def remove(self, query):
        self.remove_object((query.version, query.resource, query.space, query.name))
