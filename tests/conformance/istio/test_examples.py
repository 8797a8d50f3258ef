"""examples/istio against Istio's own tools: what injection makes of the manifests, and what istiod makes of the gateway's routes."""

import json
import os
import pathlib
import socket
import subprocess

import pytest

from apps import App, get, greet, told, trusting
from kube_api import KubeApi, objects_of, secret
from mesh import istio_program
from resources import entry

from support.process import can_connect, free_port, wait_until
from support.upstream import ByteUpstream

EXAMPLES = pathlib.Path(__file__).resolve().parents[3] / "examples/istio"
IMAGE = "sluice/proxyv2:0.1.0"
BINARY = "/usr/local/bin/sluice"
HOST = "counter.lab.example.com"


def istioctl(directory, *words, **env):
    done = subprocess.run([istio_program("istioctl"), *map(str, words)], capture_output=True, text=True, timeout=60, check=False,
                          env={"PATH": os.environ["PATH"], "HOME": str(directory), **env})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """The options that give injection what an installation of Istio would."""
    directory = tmp_path_factory.mktemp("istio-settings")
    objects = objects_of(istioctl(directory, "manifest", "generate", "--set", "hub=istio", "--set", "tag=0"))
    maps = {o["metadata"]["name"]: o["data"] for o in objects if o["kind"] == "ConfigMap"}
    injector = maps["istio-sidecar-injector"]
    for name, text in (("mesh", maps["istio"]["mesh"]), ("inject", injector["config"]), ("values", injector["values"])):
        (directory / name).write_text(text)
    return ["--meshConfigFile", directory / "mesh", "--injectConfigFile", directory / "inject", "--valuesFile", directory / "values"]


@pytest.fixture
def kubeconfig(tmp_path):
    api = KubeApi()
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{api.port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}))
    yield path
    api.stop()


@pytest.mark.parametrize("manifest", ["gateway-deployment.yaml", "workload.yaml"])
def test_injection_makes_it_sluice(tmp_path, settings, kubeconfig, manifest):
    injected = objects_of(istioctl(tmp_path, "kube-inject", "-f", EXAMPLES / manifest, *settings, KUBECONFIG=str(kubeconfig)))
    pods = [o["spec"]["template"] for o in injected if o["kind"] == "Deployment"]
    assert len(pods) == 1
    containers = pods[0]["spec"]["containers"] + pods[0]["spec"].get("initContainers", [])
    proxies = [c for c in containers if c["name"] == "istio-proxy"]
    assert [c["image"] for c in proxies] == [IMAGE]
    env = {e["name"]: e.get("value") for e in proxies[0]["env"]}
    assert json.loads(env["PROXY_CONFIG"])["binaryPath"] == BINARY
    assert proxies[0]["args"][:1] == ["proxy"]
    assert not any(c["image"] == "auto" for c in containers)
    assert all(c.get("securityContext", {}).get("runAsUser") in (1337, None) for c in proxies)


def with_ports(objects, ports):
    """The example's objects, on ports that are free here."""
    for item in objects:
        spec = item["spec"]
        for server in spec.get("servers", []):
            server["port"]["number"] = ports[server["port"]["number"]]
        for match in (m for route in spec.get("tcp", []) for m in route["match"]):
            match["port"] = ports[match["port"]]
    return objects


def test_routes_of_the_gateway(istio, identities):
    ports = {80: free_port(), 443: free_port(), 3306: free_port()}
    app, mysql = App("counter"), ByteUpstream(greet("mysql"))
    plane = istio.proxy()
    site = identities.site(HOST)
    items = with_ports(objects_of((EXAMPLES / "gateway-routes.yaml").read_text()), ports) + [
        entry("counter", app.port, host="counter.lab.svc.cluster.local"),
        entry("mysql", mysql.port, "TCP", host="mysql.lab.svc.cluster.local", number=3306),
        secret("counter-tls", {"tls.crt": site.cert, "tls.key": site.key})]
    with istio.applied(items):
        for port in ports.values():
            wait_until(lambda port=port: can_connect(port), f"port {port}", 30)
        assert told(get(ports[80], HOST))["server"] == "counter"
        assert get(ports[80], "other.example.com").status == 404
        assert told(get(ports[443], HOST, tls=trusting(identities.public), server_name=HOST))["server"] == "counter"
        with socket.create_connection(("127.0.0.1", ports[3306]), 10) as client, client.makefile("rwb") as stream:
            assert stream.readline() == b"mysql ready\n"
            stream.write(b"select 1\n")
            stream.flush()
            assert stream.readline() == b"mysql:select 1\n"
    assert plane.update_rejections() == dict.fromkeys(plane.update_rejections(), 0)
    app.stop()
    mysql.stop()
