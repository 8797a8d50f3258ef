"""Who tells nothing of itself is known by its address, where the agent asks for workload discovery."""

import pytest
from apps import App, get
from mesh import Workload
from resources import entry, gateway, server, to, virtual_service
from test_extensions import samples

from support.process import can_connect, free_port, wait_until

HOST = "shop.example.com"
ISTIOD_ENV = {"PILOT_ENABLE_AMBIENT": "true"}  # istiod knows workloads as an ambient mesh does


@pytest.fixture(scope="module")
def app():
    made = App("app")
    yield made
    made.stop()


def destinations(plane, port):
    """The workloads that metrics tell of, after a request."""
    wait_until(lambda: can_connect(port), lambda: str(plane.listeners()), 20)
    assert get(port, HOST, "/").status == 200
    return {labels["destination_workload"] for labels, _ in
            wait_until(lambda: samples(plane, "istio_requests_total", "agent"), "metrics", 20)}


def test_upstreams_are_known(istio, app, mode):
    if mode != "agent":
        pytest.skip("the agent's bootstrap alone asks for workloads")
    ports = {"asks": free_port(), "plain": free_port()}
    istio.apply([entry("app", app.port),
                 *(gateway(name, server(port, "HTTP"), selector={"case": name}) for name, port in ports.items()),
                 virtual_service("app", [HOST], list(ports), http=[{"route": to("app")}])])
    planes = {name: istio.proxy(Workload(name, account=name, labels={"case": name},
                                         env={"PEER_METADATA_DISCOVERY": "true"} if name == "asks" else {})) for name in ports}
    wait_until(lambda: planes["asks"].stat("workload_discovery.total") >= 1, "workloads", 20)
    # without it a peer's name comes with the endpoint, as istiod made it up for the service entry
    assert {name: destinations(plane, ports[name]) for name, plane in planes.items()} == {"asks": {"app"}, "plain": {"app-0"}}
    assert planes["asks"].stat("workload_discovery.update_rejected") == 0
