"""A control plane in a process of its own, to be killed: `plane.py PORT VERSION FILLERS UPSTREAM_PORT`.

It serves a listener `main`, its routes (each answer tells the version in x-version), the cluster `up`, and so many more clusters
that a push takes a while. All of it differs from version to version."""
import pathlib
import signal
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support import config  # noqa: E402
from support.ads_server import CLUSTER, LISTENER, ROUTE, AdsServer  # noqa: E402
from support.xds_config import rds_listener  # noqa: E402


class Plane:
    """The process, seen from a test."""

    def __init__(self, port, version, fillers, upstream_port):
        self.version = version
        self.child = subprocess.Popen([sys.executable, __file__, *map(str, (port, version, fillers, upstream_port))],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.child.stdout.readline() == "serving\n"

    def wait_stream(self):
        """Until a proxy has asked for something."""
        assert self.child.stdout.readline() == "asked\n"

    def kill(self):
        self.child.send_signal(signal.SIGKILL)
        self.child.wait(10)
        self.child.stdin.close()
        self.child.stdout.close()


def resources(version, fillers, upstream_port):
    clusters = [config.cluster("up", upstream_port)]
    clusters += [config.cluster(f"filler{i}", 9, connect_timeout=f"{1 + int(version)}s") for i in range(fillers)]
    routes = {"name": "r", "virtual_hosts": [config.vhost(
        [config.route()], response_headers_to_add=[{"header": {"key": "x-version", "value": version}}])]}
    return {CLUSTER: clusters, LISTENER: [rds_listener()], ROUTE: [routes]}


def main(port, version, fillers, upstream_port):
    ads = AdsServer(port=int(port))
    for type_url, list_ in resources(version, int(fillers), int(upstream_port)).items():
        ads.set(type_url, version, list_)
    print("serving", flush=True)
    ads.wait(lambda _: True, limit_s=3600)
    print("asked", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
