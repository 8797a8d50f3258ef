"""Secrets from an agent beside the proxy, over its UNIX socket: a stream for each, so that one that can not be made fails alone."""

import json
import os

import grpc
import pytest

from support import config
from support.ads_server import SECRET, AdsServer
from support.process import wait_until
from support.rawhttp import fetch
from support.xds_config import api_source, xds_cluster


class Agent(AdsServer):
    """Ends each stream that asks for a secret it does not have, as pilot-agent does."""

    def _received(self, stream, message):
        with self.lock:
            known = self.state.get(SECRET, ("", {}))[1]
            if any(name not in known for name in message.resource_names):
                stream.context.set_code(grpc.StatusCode.UNKNOWN)
                stream.context.set_details(f"failed to generate secret for {message.resource_names}")
                stream.is_open = False
        super()._received(stream, message)

    def asked(self, name):
        return [r for r in self.requests if name in r.names]


def secret(name, pair):
    return {"name": name, "tls_certificate": {"certificate_chain": {"inline_string": pair.cert.read_text()},
                                              "private_key": {"inline_string": pair.key.read_text()}}}


def terminating(name, secret_name, **fields):
    sds = {"name": secret_name, "sds_config": {"resource_api_version": "V3", "api_config_source": api_source(),
                                               "initial_fetch_timeout": "0.2s"}}
    socket = config.tls_socket("Downstream", common_tls_context={"tls_certificate_sds_secret_configs": [sds]})
    return config.listener(chains=[config.chain(config.hcm([config.direct("/", 200, name)]), transport_socket=socket)], name=name)


@pytest.fixture
def agent(tmp_path):
    with Agent(path=tmp_path / "agent.sock") as server:
        yield server


@pytest.fixture(scope="module")
def pairs(authority):
    return [authority.leaf(f"agent-{n}", "DNS:a.example") for n in range(3)]


def serves(proxy, name, authority):
    try:
        answer = fetch(proxy.port(name), tls=authority.client_context(), server_name="a.example")
    except (OSError, KeyError):  # KeyError: no such listener yet
        return False
    return answer.body == name.encode()


@pytest.mark.smoke
def test_a_secret_that_can_not_be_made_fails_alone(sluice, agent, authority, pairs):
    agent.set(SECRET, "1", [secret("good", pairs[0])])
    proxy = sluice(config.bootstrap([terminating("one", "good"), terminating("two", "missing")], [xds_cluster(agent)]))
    assert serves(proxy, "one", authority)
    assert not serves(proxy, "two", authority)
    proxy.wait_stat("sds.missing.update_failure", lambda n: n >= 3)
    assert proxy.stat("sds.good.update_failure") == 0
    assert len(agent.asked("good")) == 2 and all(r.names in (["good"], ["missing"]) for r in agent.requests)
    # the good one goes on being renewed meanwhile…
    agent.set(SECRET, "2", [secret("good", pairs[1])])
    proxy.wait_stat("sds.good.update_success", 2)
    # …and the other is taken as soon as there is one
    agent.set(SECRET, "3", [secret("good", pairs[1]), secret("missing", pairs[2])], push=False)
    wait_until(lambda: serves(proxy, "two", authority), "the secret that came late")
    assert proxy.stat("control_plane.connected_state") in (None, 0)  # that is the aggregated stream's


def test_a_stream_ends_with_the_last_use_of_its_secret(sluice, agent, authority, pairs, tmp_path):
    """Two listeners use one secret; the stream goes with the second."""
    agent.set(SECRET, "1", [secret("good", pairs[0]), secret("shared", pairs[1])])
    resources = tmp_path / "lds.json"

    def write(*listeners):
        new = resources.with_suffix(".new")
        types = "type.googleapis.com/envoy.config.listener.v3.Listener"
        new.write_text(json.dumps({"resources": [{"@type": types, **each} for each in listeners]}))
        os.rename(new, resources)

    one, two, three = terminating("one", "shared"), terminating("two", "shared"), terminating("three", "good")
    write(one, two, three)
    proxy = sluice(config.bootstrap([], [xds_cluster(agent)], dynamic_resources={
        "lds_config": {"path_config_source": {"path": str(resources)}, "resource_api_version": "V3"}}))
    assert sorted(n for s in agent.open_streams() for n in s.wanted[SECRET]) == ["good", "shared"]
    write(one, three)
    proxy.wait_stat("listener_manager.listener_removed", 1)
    assert serves(proxy, "one", authority) and len(agent.open_streams()) == 2
    write(three)
    agent.wait_for(lambda: len(agent.open_streams()) == 1)
    assert serves(proxy, "three", authority)
    write(three, two)
    wait_until(lambda: serves(proxy, "two", authority), "the listener that came back")
    assert len(agent.open_streams()) == 2 and len(agent.streams) == 3
