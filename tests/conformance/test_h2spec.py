"""h2spec against an h2c and a TLS listener: no case may fail that does not fail with Envoy, and h2load sees no failed request.

The upstream answers when a request is whole, so that streams stay open for as long as a case thinks they are."""

import re
import subprocess

import pytest

from support import h2spec
from support.config import bootstrap, cluster, direct, hcm, listener, route, tls_certificate, tls_socket
from support.upstream import Reply

LISTENERS = ["h2c", "tls"]
REQUESTS, CONNECTIONS, STREAMS = 20000, 10, 50
# nginx may hold 512 connections.
BREAKERS = {"thresholds": [{"max_connections": 100}]}
# Well below h2spec's timeout: with the default of 1 s, whether a case passes with Envoy is chance, and chance would excuse us.
DELAYED_CLOSE = "0.1s"
MINUTES = 60
# Envoy excuses only what it fails each time; what we fail counts even once.
TRIES = 2


def configuration(pair, *ports):
    """Two listeners, one route table: /direct is answered here, the rest upstream."""
    manager = hcm([direct("/direct", 200, "x" * 64), route("/")], delayed_close_timeout=DELAYED_CLOSE)
    tls = tls_socket("Downstream", common_tls_context={"alpn_protocols": ["h2"], "tls_certificates": [tls_certificate(pair)]})
    chain = {"filters": [manager], "transport_socket": tls}
    return bootstrap([listener(manager, name="h2c"), listener(name="tls", chains=[chain])], [cluster("up", *ports, circuit_breakers=BREAKERS)])


@pytest.fixture(scope="module")
def pair(authority):
    return authority.leaf("front", "DNS:localhost", "IP:127.0.0.1")


@pytest.fixture(scope="module")
def specified(pair, shared_upstream):
    shared_upstream.script(Reply(body=b"x" * 64))
    return configuration(pair, shared_upstream.port)


def run(proxy, name):
    return h2spec.run(proxy.port(name), name == "tls")


def failures(proxy, name):
    """{case: what is said about it}, per try."""
    return [{case: about for case, (passed, about) in run(proxy, name).items() if not passed} for _ in range(TRIES)]


def show(title, found):
    print(f"{title}: {len(found)} fail")
    for case in sorted(found):
        print(f"  {case}")


@pytest.mark.timeout(15 * MINUTES)
@pytest.mark.parametrize("name", LISTENERS)
def test_h2spec(shared_sluice, shared_envoy, specified, name, capsys):
    ours, theirs = failures(shared_sluice(specified), name), failures(shared_envoy(specified), name)
    ever = {case: about for found in ours for case, about in found.items()}
    always = set.intersection(*map(set, theirs))
    with capsys.disabled():
        show(f"\n{name}, sluice in any of {TRIES} runs", ever)
        show(f"{name}, Envoy in each of {TRIES} runs", always)
    worse = {case: about for case, about in ever.items() if case not in always}
    assert not worse, "\n".join(f"{case}: {'; '.join(about)}" for case, about in worse.items())


@pytest.mark.timeout(5 * MINUTES)
@pytest.mark.parametrize("path", ["/direct", "/echo"])
@pytest.mark.parametrize("name", LISTENERS)
def test_h2load(shared_sluice, pair, nginx, name, path, capsys):
    proxy = shared_sluice(configuration(pair, nginx.port))
    url = f"{'https' if name == 'tls' else 'http'}://127.0.0.1:{proxy.port(name)}{path}"
    done = subprocess.run(["h2load", "-n", str(REQUESTS), "-c", str(CONNECTIONS), "-m", str(STREAMS), url], check=True,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = re.search(r"^requests: .*$", done.stdout, re.M)[0]
    speed = re.search(r"^finished in .*$", done.stdout, re.M)[0]
    with capsys.disabled():
        print(f"\n{name} {path}: {said}; {speed}")
    n = REQUESTS
    assert said.startswith(f"requests: {n} total, {n} started, {n} done, {n} succeeded, 0 failed, 0 errored, 0 timeout")
    assert re.search(rf"^status codes: {n} 2xx, 0 3xx, 0 4xx, 0 5xx", done.stdout, re.M), done.stdout
