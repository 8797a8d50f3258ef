"""exact_balance: whichever worker accepts a connection, the one with the fewest of its listener serves it."""

import contextlib
import json
import subprocess
import threading

import pytest

from support.ads_server import LISTENER, AdsServer
from support.config import bootstrap, chain, direct, hcm, listener, typed
from support.process import free_port
from support.proxy import Sluice
from support.rawhttp import Client, fetch
from support.xds_config import ads_bootstrap

WORKERS = 4
EXACT = {"connection_balance_config": {"exact_balance": {}}}
GET = "GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def spread(proxy, port=0):
    """Open connections of the listener with that port in its address, by worker."""
    found = proxy.stats(rf"listener\.127\.0\.0\.1_{port}\.worker_\d+\.downstream_cx_active")
    return [int(v) for v in found.values()]


@pytest.mark.smoke
@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
def test_spread(sluice, at_once):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]), **EXACT)]), concurrency=WORKERS)
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(5 * WORKERS):
            clients.append(stack.enter_context(Client(proxy.port())).send(GET))
            assert at_once or clients[-1].read().status == 200
        assert not at_once or all(c.read().status == 200 for c in clients)
        assert spread(proxy) == [5] * WORKERS


@pytest.mark.smoke
def test_who_left_counts_no_more(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)]), **EXACT)]), concurrency=2)
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Client(proxy.port())) for _ in range(4)]
        assert all(c.request("GET", "/").status == 200 for c in kept) and spread(proxy) == [2, 2]
        for client in kept[:2]:
            client.close()
        proxy.wait_stat("http.ingress.downstream_cx_active", 2)
        more = [stack.enter_context(Client(proxy.port())) for _ in range(2)]
        assert all(c.request("GET", "/").status == 200 for c in more) and spread(proxy) == [2, 2]


def test_listener_of_an_original_destination(sluice):
    """Of those that another listener accepted, as behind a redirect: the one that serves them balances them."""
    port = free_port()
    accepting = listener(hcm([direct("/", 404)]), name="accepting", use_original_dst=True,
                         listener_filters=[typed("p", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol")])
    behind = listener(hcm([direct("/", 200)]), name="behind", port=port, bind_to_port=False, **EXACT)
    proxy = sluice(bootstrap([accepting, behind]), concurrency=WORKERS)
    with contextlib.ExitStack() as stack:
        for _ in range(3 * WORKERS):
            client = stack.enter_context(Client(proxy.port("accepting")))
            assert client.send(f"PROXY TCP4 127.0.0.1 127.0.0.1 1111 {port}\r\n{GET}").read().status == 200
        assert spread(proxy, port) == [3] * WORKERS


def test_updates_lose_nothing(sluice):
    """Connections are given to workers that have another version of the listener by then."""
    port, wrong, over = free_port(), [], threading.Event()

    def knock():
        while not over.is_set():
            try:
                status = fetch(port).status
            except (OSError, EOFError) as e:
                status = repr(e)
            if status != 200:
                wrong.append(status)

    def version(n):
        chains = [chain(hcm([direct("/", 200, body=str(n))]))]
        return [listener(chains=chains, port=port, **(EXACT if n % 3 else {}))]

    with AdsServer() as ads:
        ads.set(LISTENER, "0", version(1))
        proxy = sluice(ads_bootstrap(ads, "GRPC"), concurrency=WORKERS)
        threads = [threading.Thread(target=knock) for _ in range(4)]
        for t in threads:
            t.start()
        for n in range(15):
            ads.set(LISTENER, str(n + 1), version(n))
            ads.wait_ack(LISTENER, str(n + 1))
        over.set()
        for t in threads:
            t.join()
        assert not wrong and proxy.stat("listener_manager.listener_modified") > 0


def test_extensions_are_refused(tmp_path):
    path = tmp_path / "bootstrap.json"
    balance = {"extend_balance": typed("dlb", "google.protobuf.Empty")}
    path.write_text(json.dumps(bootstrap([listener(hcm([direct("/", 200)]), connection_balance_config=balance)])))
    done = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "connection_balance_config.extend_balance: not supported" in done.stderr
