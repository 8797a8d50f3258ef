"""Addresses of listeners: who has one, who may take it over, and what becomes of those that can't be had."""
import socket

import pytest
from support.ads_server import LISTENER
from support.config import address, hcm, listener
from support.process import can_connect, free_port, wait_until
from support.rawhttp import Client, fetch
from support.xds_config import ads_bootstrap

KINDS = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
DUPLICATE = ("Error adding/updating listener(s) {0}: error adding listener: '{0}' has duplicate address '{1}' as existing listener, "
             "to check if the listener has duplicated addresses with other listeners or 'enable_reuse_port' is set to 'false' for "
             "the listener")
TAKEN = "Error adding/updating listener(s) {}: cannot bind '127.0.0.1:{}': Address already in use"


def at(port, name, body="x", **fields):
    """A listener that answers by itself."""
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}
    return listener(hcm([answer]), name=name, **fields) | {"address": address(port)}


class Listeners:
    """What a proxy makes of listeners that it is sent."""

    def __init__(self, ads, start_proxy, kind, **options):
        self.ads, self.version = ads, 0
        ads.set(LISTENER, "0", [])
        self.proxy = start_proxy(ads_bootstrap(ads, kind), **options)

    def send(self, *listeners):
        """→ what the proxy refuses of them; empty: nothing."""
        self.version += 1
        return self.ads.push(LISTENER, str(self.version), listeners).error_detail.message.strip()

    def names(self):
        return sorted(self.proxy.listeners())


@pytest.fixture(params=["GRPC", "DELTA_GRPC"])
def listeners(request, ads, start_proxy):
    return Listeners(ads, start_proxy, request.param, args=["--drain-time-s", "30"], concurrency=2)


@pytest.fixture
def taken():
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def draining(proxy):
    """→ {name: version of the listener that drains}"""
    parts = [p for p in proxy.admin("/config_dump").json["configs"] if p["@type"].endswith("ListenersConfigDump")]
    return {row["name"]: row["draining_state"]["version_info"] for row in parts[0].get("dynamic_listeners", [])
            if "draining_state" in row}


def drains(proxy):
    """→ listeners, filter chains"""
    return tuple(proxy.stat(f"listener_manager.total_{what}_draining") for what in ("listeners", "filter_chains"))


def answer(port):
    return fetch(port).body.decode()


def wait_answer(port, body):
    wait_until(lambda: can_connect(port) and answer(port) == body, f"{body} on {port}")


@pytest.mark.smoke
def test_an_address_belongs_to_one(listeners):
    port = free_port()
    assert listeners.send(at(port, "first")) == ""
    wait_answer(port, "x")
    assert listeners.send(at(port, "first"), at(port, "second", "y")) == DUPLICATE.format("second", f"127.0.0.1:{port}")
    assert listeners.names() == ["first"] and {answer(port) for _ in range(20)} == {"x"}
    other = free_port()
    more = {"additional_addresses": [{"address": address(port)}]}
    assert listeners.send(at(port, "first"), at(other, "second", "y", **more)) == \
        DUPLICATE.format("second", f"127.0.0.1:{other},127.0.0.1:{port}")
    assert listeners.send(at(port, "first"), at(other, "second", "y")) == ""
    wait_answer(other, "y")


def test_two_that_come_together(listeners):
    port = free_port()
    assert listeners.send(at(port, "a"), at(port, "b", "y")) == DUPLICATE.format("b", f"127.0.0.1:{port}")
    wait_answer(port, "x")
    assert listeners.names() == ["a"]


def test_without_binding_it_is_an_address_too(listeners):
    port = free_port()
    assert listeners.send(at(port, "a", bind_to_port=False)) == ""
    assert listeners.send(at(port, "a", bind_to_port=False), at(port, "b", bind_to_port=False)) == \
        DUPLICATE.format("b", f"127.0.0.1:{port}")


def test_any_port_is_nobodys(listeners):
    assert listeners.send(at(0, "a"), at(0, "b")) == ""
    wait_until(lambda: listeners.names() == ["a", "b"], "both")


@pytest.mark.smoke
@pytest.mark.parametrize("fields", [{}, {"enable_reuse_port": False}])
def test_another_name_takes_it_over(listeners, fields):
    """Connections of the old one drain; none is refused meanwhile."""
    port = free_port()
    assert listeners.send(at(port, "old", **fields)) == ""
    wait_answer(port, "x")
    with Client(port) as client:
        assert client.request("GET", "/").status == 200
        assert listeners.send(at(port, "new", "y", **fields)) == ""
        wait_answer(port, "y")
        assert client.request("GET", "/").body == b"x"
        assert listeners.names() == ["new"]
    assert listeners.send(at(port, "old", "z", **fields)) == ""
    wait_answer(port, "z")


def test_a_port_of_somebody_else(listeners, taken):
    port = free_port()
    assert listeners.send(at(port, "mine"), at(taken, "other")) == TAKEN.format("other", taken)
    wait_answer(port, "x")
    assert listeners.names() == ["mine"]
    assert listeners.proxy.stat("listener_manager.listener_create_failure") == 1
    assert listeners.send(at(taken, "mine", "y")) == TAKEN.format("mine", taken)
    assert answer(port) == "x" and listeners.names() == ["mine"]
    assert listeners.proxy.stat("listener_manager.lds.update_rejected") == 2
    assert listeners.proxy.stat("listener_manager.total_listeners_warming") == 0


def test_a_start_without_the_port(ads, start_proxy, taken):
    """It is ready all the same, with what there is."""
    port = free_port()
    ads.set(LISTENER, "1", [at(taken, "other"), at(port, "mine")])
    proxy = start_proxy(ads_bootstrap(ads, "GRPC"))
    wait_answer(port, "x")
    wait_until(lambda: proxy.admin("/ready").text == "LIVE\n", "readiness")
    assert ads.wait_nack(LISTENER).error_detail.message.strip() == TAKEN.format("other", taken)


def test_an_address_of_the_bootstrap(ads, start_proxy):
    port = free_port()
    ads.set(LISTENER, "1", [at(port, "dynamic", "y")])
    made = ads_bootstrap(ads, "DELTA_GRPC")
    made["static_resources"]["listeners"] = [at(port, "static")]
    start_proxy(made)
    assert ads.wait_nack(LISTENER).error_detail.message.strip() == DUPLICATE.format("dynamic", f"127.0.0.1:{port}")
    assert answer(port) == "x"


def test_twice_in_the_bootstrap(ads, refusal):
    port = free_port()
    made = ads_bootstrap(ads, "GRPC")
    made["static_resources"]["listeners"] = [at(port, "a"), at(port, "b")]
    assert f"error adding listener: 'b' has duplicate address '127.0.0.1:{port}' as existing listener" in refusal(made)


def test_addresses_change_hands(listeners):
    one, two, three = free_port(), free_port(), free_port()
    assert listeners.send(at(one, "a", "a"), at(two, "b", "b")) == ""
    wait_answer(two, "b")
    assert listeners.send(at(three, "a", "a"), at(one, "b", "b")) == ""  # in this order the first is free again
    wait_answer(three, "a")
    wait_answer(one, "b")
    wait_until(lambda: not can_connect(two), "the old port to be free")
    assert listeners.send(at(two, "c", "c"), at(three, "a", "a")) == ""  # b is gone
    wait_answer(two, "c")
    wait_until(lambda: not can_connect(one), "b's port to be free")


def test_what_drains_is_told(listeners):
    """A version that was replaced as a whole, and a listener that was removed, until their time is over."""
    port, proxy = free_port(), listeners.proxy
    assert listeners.send(at(port, "a")) == ""
    wait_answer(port, "x")
    with Client(port) as first, Client(port) as second:
        assert first.request("GET", "/").status == 200
        assert listeners.send(at(port, "a", per_connection_buffer_limit_bytes=65536)) == ""
        wait_until(lambda: draining(proxy) == {"a": "1"}, "the old version to drain")
        assert drains(proxy) == (1, 0) and listeners.names() == ["a"]
        assert second.request("GET", "/").status == 200
        assert listeners.send() == ""
        wait_until(lambda: drains(proxy) == (2, 0), "both to drain")
        assert draining(proxy) == {"a": "1"} and listeners.names() == []
    assert proxy.stat("listener_manager.listener_in_place_updated") == 0


def test_filter_chains_that_drain(listeners):
    """An update of nothing but filter chains is made in place."""
    port, proxy = free_port(), listeners.proxy
    assert listeners.send(at(port, "a")) == ""
    wait_answer(port, "x")
    with Client(port) as client:
        assert client.request("GET", "/").status == 200
        assert listeners.send(at(port, "a", "y")) == ""
        wait_answer(port, "y")
        assert drains(proxy) == (0, 1) and draining(proxy) == {}
        assert proxy.stat("listener_manager.listener_in_place_updated") == 1
        assert client.request("GET", "/").body == b"x"


def test_drains_end(ads, start_proxy):
    port = free_port()
    made = Listeners(ads, start_proxy, "GRPC", args=["--drain-time-s", "1"])
    assert made.send(at(port, "a")) == ""
    wait_answer(port, "x")
    with Client(port) as client:
        assert client.request("GET", "/").status == 200
        assert made.send() == ""
        wait_until(lambda: drains(made.proxy) == (1, 0), "the listener to drain")
        wait_until(lambda: drains(made.proxy) == (0, 0), "its end")
    assert draining(made.proxy) == {}
