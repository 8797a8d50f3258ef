"""The real istiod and pilot-agent with sluice, all on loopback and free ports: a control plane for a module of tests, and data
planes that it programs, started by the agent (MODE agent) or here with a bootstrap of ours (sotw, delta)."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

from kube_api import KubeApi, objects_of

from support.certs import Authority
from support.config import address, cluster, http2, tls_socket
from support.internal import EXTENSION
from support.process import Process, can_connect, free_port, wait_until
from support.proxy import CRASHES, Proxy, Sluice

# as go install of this module made the programs: the agent's bootstrap template lies in it
MODULE = "istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad"
TEMPLATE = "tools/packaging/common/envoy_bootstrap.json"
READY_S = 30
# To tell a fault of the tests from one of ours: ISTIO_PROFILE=vanilla with SLUICE=/path/to/envoy has the real one in our place.
IS_VANILLA = os.environ.get("ISTIO_PROFILE") == "vanilla"
VANILLA = {"PILOT_ENABLE_METADATA_EXCHANGE": "false", "PILOT_ENABLE_ALPN_FILTER": "false"}
TRUST_DOMAIN = "cluster.local"
CREDENTIALS = "var/run/secrets/workload-spiffe-credentials"
SDS_SOCKET = "var/run/secrets/workload-spiffe-uds/socket"
RUNTIME = {"envoy.reloadable_features.http_reject_path_with_fragment": False}
# Becomes the proxy, and leaves behind with what it was started.
LAUNCHER = """#!/bin/sh
for word in "$@"; do printf '%s\\n' "$word"; done > cmdline.txt
last=; for word in "$@"; do [ "$last" = -c ] && cp "$word" bootstrap.json; last=$word; done
echo $$ > proxy.pid
exec {command} "$@"
"""


def istio_program(name):
    return pathlib.Path(os.environ["ISTIO_BIN"]) / name


def bootstrap_template():
    if os.environ.get("BOOTSTRAP_TMPL"):
        return os.environ["BOOTSTRAP_TMPL"]
    cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    return pathlib.Path(cache) / MODULE / TEMPLATE


def spiffe(namespace, account):
    return f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}"


class Identities:
    """The mesh's CA and its workloads' certificates; a CA of the outside world."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.mesh = Authority(self.directory / "mesh", "mesh-root")
        self.public = Authority(self.directory / "public", "public-root")
        self.stranger = Authority(self.directory / "stranger", "stranger-root")
        self.pairs = {}
        self.istiod = self.mesh.leaf("istiod", "DNS:istiod.istio-system.svc", "IP:127.0.0.1",
                                     f"URI:{spiffe('istio-system', 'istiod')}")

    def workload(self, namespace, account):
        """The pair of a workload's identity; made once."""
        key = (namespace, account)
        if key not in self.pairs:
            self.pairs[key] = self.mesh.leaf(f"{namespace}-{account}", f"URI:{spiffe(*key)}")
        return self.pairs[key]

    def site(self, *names):
        """A certificate by the public CA for DNS names; made once."""
        if names not in self.pairs:
            self.pairs[names] = self.public.leaf(names[0].replace("*", "any"), *(f"DNS:{n}" for n in names))
        return self.pairs[names]


class Istiod(Process):
    def __init__(self, directory, kube, identities, mesh=None, env=None):
        super().__init__("istiod", directory)
        self.kube, self.identities, self.env = kube, identities, env or {}
        self.ports = {name: free_port() for name in ("xds", "secure", "http", "monitoring")}
        self.forgiven = []
        self.mesh_path = self.directory / "mesh.json"
        self.set_mesh(mesh or {})

    def set_mesh(self, mesh):
        """MeshConfig, beside what the harness needs; istiod reads it again when it changes."""
        config = {"configSources": [{"address": "k8s://"}], "accessLogFile": "/dev/stdout", "trustDomain": TRUST_DOMAIN,
                  **({} if IS_VANILLA else {"defaultProviders": {"metrics": ["prometheus"]}}),
                  "defaultConfig": {"discoveryAddress": f"127.0.0.1:{self.ports['secure']}"}, **mesh}
        scratch = self.mesh_path.with_suffix(".new")
        scratch.write_text(json.dumps(config))
        scratch.replace(self.mesh_path)

    def start(self):
        server = f"http://127.0.0.1:{self.kube.port}"
        (self.directory / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "clusters": [{"name": "it", "cluster": {"server": server}}],
            "users": [{"name": "it", "user": {"token": "none"}}], "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}]}))
        settings = {"PATH": os.environ["PATH"], "HOME": self.directory, "POD_NAME": "istiod-0", "POD_NAMESPACE": "istio-system",
                    "ENABLE_CA_SERVER": "false", "PILOT_CERT_PROVIDER": "none", "CLOUD_PLATFORM": "none",
                    "INJECT_ENABLED": "false", "PILOT_DEBOUNCE_AFTER": "20ms", "PILOT_ENABLE_IP_AUTOALLOCATE": "false",
                    "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false", **(VANILLA if IS_VANILLA else {}), **self.env}
        known = self.identities
        self.launch(["env", "-i", *(f"{k}={v}" for k, v in settings.items()), istio_program("pilot-discovery"), "discovery",
                     "--registries=Kubernetes", "--kubeconfig", self.directory / "kubeconfig", "--meshConfig", self.mesh_path,
                     "--networksConfig", self.directory / "none", "--clusterID", "Kubernetes",
                     "--httpAddr", f"127.0.0.1:{self.ports['http']}", "--httpsAddr=",
                     "--grpcAddr", f"127.0.0.1:{self.ports['xds']}", "--secureGRPCAddr", f"127.0.0.1:{self.ports['secure']}",
                     "--monitoringAddr", f"127.0.0.1:{self.ports['monitoring']}", "--ctrlz_address", "127.0.0.1",
                     "--ctrlz_port", "0", "--shutdownDuration", "1s", "--tlsCertFile", known.istiod.cert,
                     "--tlsKeyFile", known.istiod.key, "--caCertFile", known.mesh.pair.cert])
        wait_until(lambda: self.expect_running() and can_connect(self.ports["secure"]), self.log, READY_S)
        return self

    def refusals(self):
        """What data planes have refused so far: lines of the log."""
        return [line for line in self.log().splitlines()
                if "ACK ERROR" in line and not any(re.search(p, line) for p in self.forgiven)]

    def forgive(self, pattern):
        """Refusals that match are what the test wants."""
        self.forgiven.append(pattern)


@dataclasses.dataclass
class Workload:
    """Whom a data plane stands for."""

    name: str = "istio-ingressgateway"
    kind: str = "router"              # or sidecar
    namespace: str = "istio-system"
    account: str = "istio-ingressgateway"
    address: str = "127.0.0.1"
    labels: dict = dataclasses.field(default_factory=lambda: {"istio": "ingressgateway", "app": "istio-ingressgateway"})
    proxy_config: dict = dataclasses.field(default_factory=dict)
    env: dict = dataclasses.field(default_factory=dict)

    @property
    def pod(self):
        return f"{self.name}-0"

    def as_pod(self):
        """What Kubernetes would know of it: istiod takes its labels from there."""
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.pod, "namespace": self.namespace, "labels": self.labels},
                "spec": {"serviceAccountName": self.account, "containers": [{"name": "istio-proxy"}]},
                "status": {"phase": "Running", "podIP": self.address, "podIPs": [{"ip": self.address}], "hostIP": "127.255.0.1",
                           "conditions": [{"type": "Ready", "status": "True"}]}}

    @property
    def node_id(self):
        return f"{self.kind}~{self.address}~{self.pod}.{self.namespace}~{self.namespace}.svc.{TRUST_DOMAIN}"


class DataPlane(Proxy):
    """A workload's proxy with its agent; admin, stats and listeners as of any Proxy."""

    binary = Sluice.binary

    def __init__(self, directory, istiod, workload, mode="agent", command=()):
        """`command`: words before the agent's own, e.g. to run it in a network namespace."""
        super().__init__(directory, None, "agent")
        self.istiod, self.workload, self.mode, self.command_prefix = istiod, workload, mode, list(command)
        self.ports = {name: free_port() for name in ("admin", "status", "health", "prometheus")}
        self.admin_address = ("127.0.0.1", self.ports["admin"])
        self.proxy = None

    # ---- what the agent finds in its pod ----

    def write_pod(self):
        identities = self.istiod.identities
        pair = identities.workload(self.workload.namespace, self.workload.account)
        for folder in ("etc/istio/pod", "etc/istio/proxy", "var/lib/istio/envoy", "var/lib/istio/data", CREDENTIALS):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        self.write_credentials(pair)
        labels = "".join(f'{k}="{v}"\n' for k, v in self.workload.labels.items())
        (self.directory / "etc/istio/pod/labels").write_text(labels)
        shutil.copy(bootstrap_template(), self.directory / "var/lib/istio/envoy/envoy_bootstrap_tmpl.json")
        launcher = self.directory / "launch.sh"
        launcher.write_text(LAUNCHER.format(command=self.binary if self.mode == "agent" else "sleep 100000 #"))
        launcher.chmod(0o755)

    def write_credentials(self, pair):
        """The workload's own certificate; the agent watches the files."""
        credentials = self.directory / CREDENTIALS
        for name, data in (("key.pem", pair.key.read_bytes()),
                           ("cert-chain.pem", pair.cert.read_bytes() + self.istiod.identities.mesh.pair.cert.read_bytes()),
                           ("root-cert.pem", self.istiod.identities.mesh.pair.cert.read_bytes())):
            scratch = credentials / f".{name}"
            scratch.write_bytes(data)
            scratch.replace(credentials / name)

    def agent_command(self):
        known, ports, folder = self.workload, self.ports, self.directory / CREDENTIALS
        config = {"binaryPath": str(self.directory / "launch.sh"), "concurrency": 2, "terminationDrainDuration": "1s",
                  "discoveryAddress": f"127.0.0.1:{self.istiod.ports['secure']}", "controlPlaneAuthPolicy": "MUTUAL_TLS",
                  "proxyAdminPort": ports["admin"], "statusPort": ports["status"], **known.proxy_config}
        owner = f"kubernetes://apis/apps/v1/namespaces/{known.namespace}/deployments/{known.name}"
        env = {"PATH": os.environ["PATH"], "HOME": self.directory, "POD_NAME": known.pod, "POD_NAMESPACE": known.namespace,
               "SERVICE_ACCOUNT": known.account, "INSTANCE_IP": known.address, "CLOUD_PLATFORM": "none", "JWT_POLICY": "none",
               "TRUST_DOMAIN": TRUST_DOMAIN, "ISTIO_META_CLUSTER_ID": "Kubernetes", "ISTIO_META_MESH_ID": TRUST_DOMAIN,
               "ISTIO_META_WORKLOAD_NAME": known.name, "ISTIO_META_OWNER": owner, "PROV_CERT": folder,
               "XDS_ROOT_CA": folder / "root-cert.pem", "CA_ROOT_CA": folder / "root-cert.pem",
               "ENVOY_STATUS_PORT": ports["health"], "ENVOY_PROMETHEUS_PORT": ports["prometheus"],
               "PROXY_CONFIG": json.dumps(config), **{k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")},
               **known.env}
        return [*self.command_prefix, "env", "-i", *(f"{k}={v}" for k, v in env.items()), istio_program("pilot-agent"), "proxy",
                known.kind, "--domain", f"{known.namespace}.svc.{TRUST_DOMAIN}", "--proxyLogLevel=warning",
                "--proxyComponentLogLevel=misc:error", "--log_output_level=default:info"]

    def direct_bootstrap(self):
        """ADS straight to istiod, with the workload's certificate; secrets from the agent's socket."""
        known = self.workload
        upstream = tls_socket("Upstream", sni="istiod.istio-system.svc", common_tls_context={
            "alpn_protocols": ["h2"], "validation_context": {"trusted_ca": {"filename": f"{CREDENTIALS}/root-cert.pem"}},
            "tls_certificates": [{"certificate_chain": {"filename": f"{CREDENTIALS}/cert-chain.pem"},
                                  "private_key": {"filename": f"{CREDENTIALS}/key.pem"}}]})
        sds = {"endpoint": {"address": {"pipe": {"path": SDS_SOCKET}}}}
        metadata = {"NAMESPACE": known.namespace, "LABELS": known.labels, "CLUSTER_ID": "Kubernetes", "MESH_ID": TRUST_DOMAIN,
                    "INSTANCE_IPS": known.address, "SERVICE_ACCOUNT": known.account, "WORKLOAD_NAME": known.name,
                    "PROXY_CONFIG": known.proxy_config}
        source = {"ads": {}, "resource_api_version": "V3"}
        return {"node": {"id": known.node_id, "cluster": f"{known.name}.{known.namespace}", "metadata": metadata},
                "admin": {"address": address(self.ports["admin"])},
                "layered_runtime": {"layers": [{"name": "static", "static_layer": RUNTIME}]},   # as in the agent's bootstrap
                "bootstrap_extensions": [EXTENSION],
                "dynamic_resources": {"lds_config": source, "cds_config": source, "ads_config": {
                    "api_type": "GRPC" if self.mode == "sotw" else "DELTA_GRPC", "transport_api_version": "V3",
                    "set_node_on_first_message_only": True, "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}]}},
                "static_resources": {"clusters": [
                    cluster("xds-grpc", self.istiod.ports["secure"], transport_socket=upstream,
                            typed_extension_protocol_options=http2()),
                    cluster("sds-grpc", sds, typed_extension_protocol_options=http2())]}}

    # ---- its life ----

    def start(self, ready=True):
        self.write_pod()
        self.launch(self.agent_command())
        if self.mode != "agent":
            wait_until(lambda: self.expect_running() and (self.directory / SDS_SOCKET).exists(), self.log, READY_S)
            (self.directory / "direct.json").write_text(json.dumps(self.direct_bootstrap()))
            self.proxy = Process("proxy", self.directory)
            self.proxy.launch([self.binary, "-c", "direct.json", "--concurrency", "2", "--disable-hot-restart", "-l", "warning",
                               "--drain-time-s", "5", "--file-flush-interval-msec", "100"])
        if ready:
            wait_until(lambda: self.expect_running() and self.is_ready(), lambda: self.log()[-4000:], READY_S)
        return self

    def is_ready(self):
        with contextlib.suppress(OSError):
            if self.mode == "agent":
                return http_status(self.ports["health"], "/healthz/ready") == 200
            return (self.admin("/ready").status == 200 and
                    all(self.stat(f"{name}.update_success") for name in ("cluster_manager.cds", "listener_manager.lds")))
        return False

    @property
    def proxy_pid(self):
        return self.proxy.pid if self.proxy else int((self.directory / "proxy.pid").read_text())

    def said(self):
        """What agent and proxy have written: access logs to standard output, too."""
        return self.log() + (self.proxy.log() if self.proxy else "")

    def stop(self):
        """Ends the agent without draining, and with it the proxy, that must not have ended before."""
        if self.child is None:
            return 0
        ended_early = self.has_exited() or self.proxy is not None and self.proxy.has_exited()
        if self.proxy:
            self.proxy.stop()
        if not self.has_exited():
            with contextlib.suppress(OSError):
                http_status(self.ports["status"], "/quitquitquit", "POST")
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.end_hard()
        log = self.said()
        assert not CRASHES.search(log) and not ended_early, f"{self.name}:\n{log[-8000:]}"
        return 0

    def end_hard(self):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.directory / "proxy.pid").read_text()), signal.SIGKILL)
        self.child.kill()
        self.child.wait(10)

    # ---- what it serves ----

    def update_rejections(self):
        return self.stats(r"update_rejected$")

    def istioctl(self, *words):
        """istioctl's words about a dump file; no cluster is asked. Fails unless it ends well."""
        done = subprocess.run([istio_program("istioctl"), *words], capture_output=True, text=True, timeout=60, check=False,
                              env={"PATH": os.environ["PATH"], "HOME": str(self.directory), "KUBECONFIG": "/dev/null"})
        assert done.returncode == 0, f"istioctl {words}: {done.stderr}{done.stdout[:2000]}"
        return done.stdout


def http_status(port, path, method="GET"):
    try:
        with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method), timeout=10) as r:
            return r.status
    except urllib.error.HTTPError as e:
        return e.code


class Istio:
    """A control plane and its data planes, ended together."""

    def __init__(self, directory, identities, mode, mesh=None, env=None):
        self.directory, self.mode = pathlib.Path(directory), mode
        self.stack = contextlib.ExitStack()
        self.kube = KubeApi()
        self.stack.callback(self.kube.stop)
        self.istiod = Istiod(self.directory / "istiod", self.kube, identities, mesh, env)
        self.stack.callback(self.istiod.stop)
        self.identities = identities
        self.planes = []

    def start(self):
        self.istiod.start()
        return self

    def proxy(self, workload=None, ready=True, **options):
        workload = workload or Workload()
        plane = DataPlane(self.directory / f"{workload.name}-{len(self.planes)}", self.istiod, workload,
                          options.pop("mode", self.mode), **options)
        self.planes.append(plane)
        self.kube.put(workload.as_pod())
        self.stack.callback(plane.stop)
        return plane.start(ready)

    def apply(self, text):
        return self.kube.apply(text)

    @contextlib.contextmanager
    def applied(self, text):
        """Objects for the time of a block; the old versions of those that were there come back after it."""
        before = {self.kube.key(i): self.kube.objects.get(self.kube.key(i)) for i in objects_of(text)}
        items = self.kube.apply(text)
        try:
            yield items
        finally:
            for key, old in before.items():
                if old:
                    self.kube.put(old)
                else:
                    self.kube.remove_object(key)

    def stop(self):
        self.stack.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
