"""A scripted load reporting server: `ask` is what every stream is answered with; reports are kept in order."""
import threading
from concurrent import futures

import grpc
from envoy.service.load_stats.v3 import lrs_pb2
from google.protobuf import json_format

METHOD = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
WAIT_S = 20


class LrsServer(grpc.GenericRpcHandler):
    def __init__(self, **ask):
        self.lock = threading.Condition()
        self.requests = []  # (stream number, LoadStatsRequest)
        self.streams = 0
        self.port = 0
        self.answers = []   # queues of open streams
        self.ask = json_format.ParseDict(ask, lrs_pb2.LoadStatsResponse())
        self.start()

    def start(self):
        """Serve (again: on the same port, after kill())."""
        self.server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((self,))
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.server.start()

    def kill(self):
        with self.lock:
            for queue in self.answers:
                queue.append(None)
            self.answers = []
            self.lock.notify_all()
        self.server.stop(0).wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def send(self, **ask):
        """Ask every open stream for something else; later ones too."""
        with self.lock:
            self.ask = json_format.ParseDict(ask, lrs_pb2.LoadStatsResponse())
            for queue in self.answers:
                queue.append(self.ask)
            self.lock.notify_all()

    def service(self, details):
        if details.method != METHOD:
            return None
        return grpc.stream_stream_rpc_method_handler(self.serve, lrs_pb2.LoadStatsRequest.FromString,
                                                     lambda m: m.SerializeToString())

    def read(self, number, requests, queue):
        try:
            for request in requests:
                with self.lock:
                    if not [r for n, r in self.requests if n == number]:
                        queue.append(self.ask)
                    self.requests.append((number, request))
                    self.lock.notify_all()
        except Exception:  # noqa: BLE001  the stream was cancelled
            pass
        with self.lock:
            queue.append(None)
            self.lock.notify_all()

    def serve(self, requests, context):
        queue = []
        with self.lock:
            self.streams += 1
            number = self.streams
            self.answers.append(queue)
        threading.Thread(target=self.read, args=(number, requests, queue), daemon=True).start()
        while True:
            with self.lock:
                self.lock.wait_for(lambda: queue)
                answer = queue.pop(0)
            if answer is None:
                return
            yield answer

    # ---- what came ----

    def wait(self, condition, what="reports", limit_s=WAIT_S):
        with self.lock:
            if not self.lock.wait_for(condition, limit_s):
                raise AssertionError(f"waited for {what}; requests: {self.requests[-5:]}")

    def wait_reports(self, n, after=0):
        """n more messages with cluster stats."""
        self.wait(lambda: len(self.reports(after)) >= n, f"{n} reports")
        return self.reports(after)

    def reports(self, after=0):
        return [r for _, r in self.requests[after:] if r.cluster_stats]

    def total(self, cluster, field="total_successful_requests", after=0):
        """A locality count of a cluster, summed over all reports."""
        return sum(getattr(loc, field) for r in self.reports(after) for c in r.cluster_stats
                   if c.cluster_name == cluster for loc in c.upstream_locality_stats)
