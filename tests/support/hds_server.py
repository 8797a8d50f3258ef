"""A scripted health discovery service: hands out a specifier, keeps what is reported."""

import queue
import threading
from concurrent import futures

import grpc
from envoy.service.health.v3 import hds_pb2
from google.protobuf import json_format

from support.process import wait_until

METHOD = "/envoy.service.health.v3.HealthDiscoveryService/StreamHealthCheck"
END = object()


class HdsServer(grpc.GenericRpcHandler):
    def __init__(self):
        self.lock = threading.Lock()
        self.requests, self.reports = [], []
        self.specifier = None
        self.outgoing = []
        self.server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.path = None
        self.server.start()

    def service(self, details):
        if details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(
            self.stream, hds_pb2.HealthCheckRequestOrEndpointHealthResponse.FromString, lambda m: m)

    def stream(self, messages, context):
        out = queue.Queue()
        with self.lock:
            self.outgoing.append(out)
        threading.Thread(target=self.read, args=(messages, out), daemon=True).start()
        while (item := out.get()) is not END:
            yield item

    def read(self, messages, out):
        try:
            for message in messages:
                with self.lock:
                    if message.HasField("health_check_request"):
                        self.requests.append(message.health_check_request)
                        if self.specifier:
                            out.put(self.specifier)
                    else:
                        self.reports.append(message.endpoint_health_response)
        except grpc.RpcError:
            pass
        out.put(END)

    def ask(self, *clusters, interval="0.05s"):
        """ClusterHealthChecks as dicts; also for streams to come."""
        text = {"cluster_health_checks": list(clusters), "interval": interval}
        self.send(json_format.ParseDict(text, hds_pb2.HealthCheckSpecifier()).SerializeToString())

    def send(self, wire):
        with self.lock:
            self.specifier = wire
            self.reports = []
            for out in self.outgoing:
                out.put(wire)

    def end_streams(self):
        with self.lock:
            for out in self.outgoing:
                out.put(END)
            self.outgoing = []

    def statuses(self):
        """The last report: cluster, zone, port -> status."""
        with self.lock:
            last = self.reports[-1] if self.reports else None
        found = {}
        for cluster in last.cluster_endpoints_health if last else ():
            for locality in cluster.locality_endpoints_health:
                for e in locality.endpoints_health:
                    key = (cluster.cluster_name, locality.locality.zone, e.endpoint.address.socket_address.port_value)
                    found[key] = e.health_status
        return found

    def wait_statuses(self, want):
        wait_until(lambda: self.statuses() == want, lambda: f"{want}, it is {self.statuses()}")

    def stop(self):
        self.end_streams()
        self.server.stop(None)
