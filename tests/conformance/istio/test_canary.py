"""A release by weights, step by step, with endpoints that come and go, below load: no request may fail."""

import pytest

from apps import App, Keeper, Traffic
from mesh import TRUST_DOMAIN
from resources import destination, destination_rule, entry, gateway, resource, server, virtual_service

from support.process import can_connect, free_port, wait_until

HOST = "counter.example.com"
SAMPLE = 400
# (weight of v2, requests of SAMPLE that may reach it): four standard deviations
STEPS = [(0, (0, 0)), (10, (16, 64)), (50, (160, 240)), (90, (336, 384)), (100, (SAMPLE, None))]

ROUND_ROBIN = {"trafficPolicy": {"loadBalancer": {"simple": "ROUND_ROBIN"}}}


@pytest.fixture(scope="module")
def port():
    return free_port()


@pytest.fixture
def apps():
    made = []

    def start(version):
        app = App(f"{version}-{len(made)}")
        made.append(app)
        return app
    yield start
    for app in made:
        app.stop()


def workload(app, version):
    return resource("WorkloadEntry", app.label, {"address": "127.0.0.1", "ports": {"port": app.port},
                                                 "labels": {"app": "counter", "version": version}})


def service():
    return entry("counter", 0, endpoints=[], workloadSelector={"labels": {"app": "counter"}})


def subsets(*versions, **policy):
    return destination_rule("counter", "counter.default.svc.cluster.local",
                            subsets=[{"name": v, "labels": {"version": v}, **policy} for v in versions])


def weights(share):
    routes = [destination("counter", subset=v, weight=w) for v, w in (("v1", 100 - share), ("v2", share)) if w]
    return virtual_service("counter", [HOST], ["web"], http=[{"route": routes}])


def endpoints(plane, version):
    """Addresses of a subset's cluster that may take requests."""
    name = f"outbound|80|{version}|counter.default.svc.{TRUST_DOMAIN}"
    found = [c for c in plane.admin("/clusters?format=json").json["cluster_statuses"] if c["name"] == name]
    return {h["address"]["socket_address"]["port_value"] for c in found for h in c.get("host_statuses", ())}


def has_route(plane, version):
    """Whether any route leads to a subset."""
    return f"outbound|80|{version}|counter" in plane.admin("/config_dump?resource=dynamic_route_configs").text


def connect_failures(plane, port):
    """Of the host behind a port, over all clusters."""
    hosts = [h for c in plane.admin("/clusters?format=json").json["cluster_statuses"] for h in c.get("host_statuses", ())
             if h["address"].get("socket_address", {}).get("port_value") == port]
    return sum(int(s.get("value", 0)) for h in hosts for s in h.get("stats", ()) if s["name"] == "cx_connect_fail")


def has_share(traffic, bounds):
    """Waits for a sample, then holds the requests that v2 answered against bounds."""
    traffic.forget()
    wait_until(lambda: traffic.done() >= SAMPLE, "a sample", 60)
    with traffic.lock:
        counts, done = dict(traffic.counts), sum(traffic.counts.values())
    newer = sum(n for label, n in counts.items() if label.startswith("v2")) * SAMPLE / done
    low, high = bounds
    return low <= newer <= (SAMPLE if high is None else high)


@pytest.fixture
def plane(istio, apps, port):
    first = apps("v1")
    items = istio.apply([service(), workload(first, "v1"), gateway("web", server(port, "HTTP")), subsets("v1"), weights(0)])
    proxy = istio.planes[0] if istio.planes else istio.proxy()
    wait_until(lambda: can_connect(port) and endpoints(proxy, "v1") == {first.port}, "the first version", 20)
    yield proxy
    istio.kube.remove_all(items)
    istio.kube.remove_all([i for key, i in list(istio.kube.objects.items()) if key[1] == "workloadentries"])
    wait_until(lambda: not can_connect(port), "the listener to go", 60)


@pytest.fixture
def load(port):
    keeper = Keeper(port, HOST)
    yield lambda: Traffic(keeper.server)
    keeper.close()


def test_weights_step_by_step(istio, plane, apps, load):
    """Each push changes the routes only."""
    newer = apps("v2")
    with load() as traffic:
        wait_until(lambda: traffic.done() > 50, "traffic")
        istio.apply([workload(newer, "v2"), subsets("v1", "v2")])
        wait_until(lambda: endpoints(plane, "v2") == {newer.port}, "the new cluster", 20)
        for share, bounds in STEPS:
            istio.apply([weights(share)])
            wait_until(lambda: has_share(traffic, bounds), f"{share} %: {traffic.counts}", 30)
        wait_until(lambda: not has_route(plane, "v1"), "the old routes to go", 20)
        istio.apply([subsets("v2")])
        wait_until(lambda: not endpoints(plane, "v1"), "the old subset to go", 20)
        traffic.forget()
        wait_until(lambda: traffic.done() > 100, "traffic")
    assert plane.stat("cluster_manager.cluster_removed")


def test_subsets_come_and_go(istio, plane, apps, load):
    """In the order that Istio advises: the subset before the route that needs it, and after it when both go. (In one push Envoy
    and sluice both answer 503 until the cluster has its endpoints, or the route is gone.)"""
    newer = apps("v2")
    istio.apply([workload(newer, "v2")])
    with load() as traffic:
        wait_until(lambda: traffic.done() > 50, "traffic")
        for _ in range(4):
            istio.apply([subsets("v1", "v2")])
            wait_until(lambda: endpoints(plane, "v2") == {newer.port}, "the new cluster", 20)
            istio.apply([weights(100)])
            traffic.forget()
            wait_until(lambda: traffic.seen(newer.label) > 30, "the new subset", 20)
            istio.apply([weights(0)])
            traffic.forget()
            wait_until(lambda: traffic.seen("v1-0") > 30 and not has_route(plane, "v2"), "the old subset", 20)
            istio.apply([subsets("v1")])
            wait_until(lambda: not endpoints(plane, "v2"), "the new subset to go", 20)


def test_endpoints_come_and_go(istio, plane, apps, load):
    """Instances scale up and down; one leaves the list first, then closes its connections, as a pod does."""
    istio.apply([subsets("v1", **ROUND_ROBIN)])
    with load() as traffic:
        for _ in range(3):
            added = [apps("v1") for _ in range(3)]
            istio.apply([workload(app, "v1") for app in added])
            wait_until(lambda: all(traffic.seen(app.label) for app in added), "the new ones", 20)
            for app in added:
                istio.kube.remove_all([workload(app, "v1")])
                wait_until(lambda gone=app: gone.port not in endpoints(plane, "v1"), "an endpoint to go", 20)
                traffic.wait_left(app.label)
                app.stop()


def test_instance_that_is_not_there(istio, plane, load):
    """In the list, but nobody listens: each request that is sent there is tried again elsewhere. (With the default balancer
    the idle, dead one is the better choice again and again, until the attempts are used up.)"""
    istio.apply([subsets("v1", **ROUND_ROBIN)])
    istio.apply([resource("WorkloadEntry", "dead", {"address": "127.0.0.1", "ports": {"port": (dead := free_port())},
                                                    "labels": {"app": "counter", "version": "v1"}})])
    with load() as traffic:
        wait_until(lambda: dead in endpoints(plane, "v1"), "the instance", 20)
        traffic.forget()
        wait_until(lambda: traffic.done() > 200, "traffic", 20)
        wait_until(lambda: connect_failures(plane, dead) > 10, "failures to connect", 20)


def test_no_endpoint_left(istio, plane, apps, port):
    """Not a hang, not a reset: 503, and service as soon as there is one again."""
    first = next(iter(endpoints(plane, "v1")))
    only = next(i for k, i in istio.kube.objects.items() if k[1] == "workloadentries")
    istio.kube.remove_all([only])
    wait_until(lambda: not endpoints(plane, "v1"), "the endpoint to go", 20)
    keeper = Keeper(port, HOST)
    answer = keeper.request(0)
    assert (answer.status, answer.body) == (503, b"no healthy upstream")
    istio.apply([only])
    wait_until(lambda: endpoints(plane, "v1") == {first}, "the endpoint", 20)
    wait_until(lambda: keeper.request(0).status == 200, "service", 5)
    keeper.close()
