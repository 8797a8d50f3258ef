"""Trace collectors: Zipkin's (JSON and protobuf by HTTP), OTLP's by HTTP and by gRPC. Each has `spans`, flattened to plain
dicts, and the requests they came in."""

import json
import threading
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from support.process import wait_until
from support.upstream import Reply, ScriptedUpstream

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ZIPKIN_KINDS = {1: "CLIENT", 2: "SERVER", 3: "PRODUCER", 4: "CONSUMER"}


def zipkin_proto():
    """zipkin.proto3.ListOfSpans, which has no Python package."""
    file = descriptor_pb2.FileDescriptorProto(name="zipkin.proto", package="zipkin.proto3", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields):
        m = file.message_type.add(name=name)
        for number, field_name, kind, *more in fields:
            f = m.field.add(name=field_name, number=number, label=field.LABEL_OPTIONAL)
            if isinstance(kind, str):
                f.type, f.type_name = field.TYPE_MESSAGE, f".zipkin.proto3.{kind}"
            else:
                f.type = kind
            if more:
                f.label = field.LABEL_REPEATED
        return m

    string, raw, fixed64, boolean = field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_FIXED64, field.TYPE_BOOL
    message("Endpoint", (1, "service_name", string), (2, "ipv4", raw), (3, "ipv6", raw), (4, "port", field.TYPE_INT32))
    message("Annotation", (1, "timestamp", fixed64), (2, "value", string))
    span = message("Span", (1, "trace_id", raw), (2, "parent_id", raw), (3, "id", raw), (4, "kind", field.TYPE_INT32), (5, "name", string),
                   (6, "timestamp", fixed64), (7, "duration", field.TYPE_UINT64), (8, "local_endpoint", "Endpoint"),
                   (9, "remote_endpoint", "Endpoint"), (10, "annotations", "Annotation", True), (11, "tags", "Span.TagsEntry", True),
                   (12, "debug", boolean), (13, "shared", boolean))
    entry = span.nested_type.add(name="TagsEntry")
    entry.field.add(name="key", number=1, type=string, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=string, label=field.LABEL_OPTIONAL)
    entry.options.map_entry = True
    message("ListOfSpans", (1, "spans", "Span", True))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("zipkin.proto3.ListOfSpans"))


LIST_OF_SPANS = zipkin_proto()


def endpoint(e):
    out = {}
    if e.service_name:
        out["serviceName"] = e.service_name
    if e.ipv4:
        out["ipv4"] = ".".join(str(b) for b in e.ipv4)
    if e.port:
        out["port"] = e.port
    return out


def zipkin_spans(request):
    """Spans as the JSON form has them."""
    if request.get("content-type") == "application/json":
        return json.loads(request.body)
    spans = []
    for s in LIST_OF_SPANS.FromString(request.body).spans:
        span = {"traceId": s.trace_id.hex(), "id": s.id.hex(), "kind": ZIPKIN_KINDS.get(s.kind), "name": s.name, "timestamp": s.timestamp,
                "duration": s.duration, "localEndpoint": endpoint(s.local_endpoint), "tags": dict(s.tags),
                "annotations": [{"timestamp": a.timestamp, "value": a.value} for a in s.annotations]}
        for name, value in (("parentId", s.parent_id.hex()), ("shared", s.shared), ("remoteEndpoint", endpoint(s.remote_endpoint))):
            if value:
                span[name] = value
        spans.append({k: v for k, v in span.items() if v not in (None, [])})
    return spans


def otlp_spans(message):
    """Spans of an export request, each with its resource's attributes and instrumentation scope."""
    spans = []
    for group in json_format.MessageToDict(message).get("resourceSpans", []):
        resource = {a["key"]: a["value"] for a in group.get("resource", {}).get("attributes", [])}
        for scope in group.get("instrumentationLibrarySpans", []):  # what scope_spans was called once
            for span in scope["spans"]:
                tags = {a["key"]: a["value"] for a in span.pop("attributes", [])}
                spans.append({**span, "tags": tags, "resource": resource, "scope": scope.get("instrumentationLibrary")})
    return spans


class HttpCollector(ScriptedUpstream):
    """For `decode`: zipkin_spans, or otlp_request_spans."""

    def __init__(self, decode=zipkin_spans, status=202):
        self.decode = decode
        super().__init__()
        self.script(Reply(status, body=b""))

    @property
    def spans(self):
        return [s for r in list(self.requests) if r.is_complete for s in self.decode(r)]

    def wait_spans(self, n, seconds=10):
        wait_until(lambda: len(self.spans) >= n, lambda: f"{n} spans, there are {self.spans}", seconds)
        return self.spans


def otlp_request_spans(request):
    return otlp_spans(trace_service_pb2.ExportTraceServiceRequest.FromString(request.body))


class GrpcCollector(grpc.GenericRpcHandler):
    def __init__(self):
        self.lock = threading.Lock()
        self.requests = []  # (metadata, ExportTraceServiceRequest)
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details):
        if details.method != EXPORT:
            return None
        return grpc.unary_unary_rpc_method_handler(
            self.export, trace_service_pb2.ExportTraceServiceRequest.FromString,
            trace_service_pb2.ExportTraceServiceResponse.SerializeToString)

    def export(self, request, context):
        with self.lock:
            self.requests.append((dict(context.invocation_metadata()), request))
        return trace_service_pb2.ExportTraceServiceResponse()

    @property
    def spans(self):
        with self.lock:
            return [s for _, r in self.requests for s in otlp_spans(r)]

    def wait_spans(self, n, seconds=10):
        wait_until(lambda: len(self.spans) >= n, lambda: f"{n} spans, there are {self.spans}", seconds)
        return self.spans

    def stop(self):
        self.server.stop(0).wait()
