"""The Go control plane as a child process, and the ways a proxy may be told to use it."""

import json
import pathlib
import subprocess
import threading

from support import config, gotool
from support.ads_server import CLUSTER, LISTENER

MODULE = pathlib.Path(__file__).with_name("controlplane")
WAIT_S = 30
REFRESH = "0.05s"
RETRY = {"retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"}}


class ControlPlane:
    """Takes snapshots; keeps its events."""

    def __init__(self, cache, is_aggregated, log):
        self.events, self.news, self.is_over = [], threading.Condition(), False
        command = [gotool.build(MODULE), "-cache", cache, *(["-ads"] if is_aggregated else [])]
        self.log = pathlib.Path(log)
        with self.log.open("wb") as errors:
            self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        listening = self.wait(lambda e: e["event"] == "listening")
        self.ports = {"xds": listening["grpc"], "rest": listening["rest"]}

    def read(self):
        for line in self.child.stdout:
            with self.news:
                self.events.append(json.loads(line))
                self.news.notify_all()
        with self.news:
            self.is_over = True
            self.news.notify_all()

    def wait(self, condition, after=0):
        def found():
            return next((e for e in self.events[after:] if condition(e)), None)
        with self.news:
            self.news.wait_for(lambda: found() or self.is_over, WAIT_S)
            assert found(), f"no such event; the last ones: {self.events[-10:]}\n{self.log.read_text()[-3000:]}"
            return found()

    def set(self, snapshot):
        begin = len(self.events)
        self.child.stdin.write(json.dumps(snapshot) + "\n")
        self.child.stdin.flush()
        self.wait(lambda e: e["event"] == "set" and e["version"] == snapshot["version"], begin)

    def of(self, event):
        with self.news:
            return [e for e in self.events if e["event"] == event]

    def stop(self):
        self.child.stdin.close()
        try:
            assert self.child.wait(10) == 0, self.log.read_text()[-3000:]
        finally:
            self.child.kill()
            self.child.stdout.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Mode:
    """A transport: `protocol` and whether types share one stream."""

    def __init__(self, protocol, is_aggregated, cache="snapshot"):
        self.protocol, self.is_aggregated, self.cache = protocol, is_aggregated, cache

    def api_source(self):
        api = {"transport_api_version": "V3"}
        if self.protocol == "rest":
            return {**api, "api_type": "REST", "cluster_names": ["rest"], "refresh_delay": REFRESH, "request_timeout": "5s"}
        return {**api, "api_type": {"sotw": "GRPC", "delta": "DELTA_GRPC"}[self.protocol],
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds", "retry_policy": RETRY}}]}

    def source_of(self, _type_url):
        where = {"ads": {}} if self.is_aggregated else {"api_config_source": self.api_source()}
        return {**where, "resource_api_version": "V3"}

    def bootstrap(self, plane):
        dynamic = {"cds_config": self.source_of(CLUSTER), "lds_config": self.source_of(LISTENER)}
        if self.is_aggregated:
            dynamic["ads_config"] = self.api_source()
        clusters = [config.cluster("xds", plane.ports["xds"], typed_extension_protocol_options=config.http2()),
                    config.cluster("rest", plane.ports["rest"])]
        return config.bootstrap([], clusters, dynamic_resources=dynamic)

    def is_used(self, plane):
        """Nothing came by another protocol, and one stream carries all types where it should."""
        requests = plane.of("ack") + plane.of("subscribe")
        streams = {e.get("type") for e in plane.of("open")}
        assert {e["protocol"] for e in requests} == {self.protocol}
        return streams == {None} if self.is_aggregated else None not in streams
