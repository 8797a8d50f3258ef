"""Further attempts while the client is still sending, and what is counted until all is idle again."""

import socket
import threading

import pytest

from support.config import bootstrap, cluster, hcm, listener, route
from support.process import wait_until
from support.rawhttp import Client, encode
from support.upstream import Reply

BODY = b"x" * (6 << 20)  # more than sockets hold
AGAIN = {"retry_on": "5xx", "num_retries": 1, "retry_back_off": {"base_interval": "0.001s"}}


@pytest.fixture
def proxy(sluice, upstream):
    listening = listener(hcm([route("/", retry_policy=AGAIN, timeout="0s")]), per_connection_buffer_limit_bytes=2 * len(BODY))
    return sluice(bootstrap([listening], [cluster("up", upstream.port, per_connection_buffer_limit_bytes=16384)]))


def wait_held_back(proxy):
    """Until the upstream's buffers are full and nothing moves any more."""
    seen = [None]

    def is_still():
        before, seen[0] = seen[0], proxy.stats(r"^cluster\.up\..*(flow_control|tx_bytes_total)")
        up, down = (seen[0][f"cluster.up.upstream_flow_control_{n}_total"] for n in ("backed_up", "drained"))
        return up > down and seen[0] == before
    wait_until(is_still, lambda: f"the client to be held back: {seen[0]}")


def test_a_retry_frees_a_client_that_the_first_attempt_held_back(proxy, upstream):
    gate = threading.Event()
    upstream.listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    upstream.script(Reply(503, early=True, gate=gate), Reply())
    with Client(proxy.port()) as client:
        sending = threading.Thread(target=client.send, args=(encode("POST", "/", body=BODY),), daemon=True)
        sending.start()
        wait_held_back(proxy)
        gate.set()
        assert client.read().status == 200
        sending.join(5)
    assert upstream.requests[-1].body == BODY
    counted = proxy.stats("flow_control")
    for name in ("cluster.up.upstream", "http.ingress.downstream"):
        assert len({n: v for n, v in counted.items() if n.startswith(name)}) >= 2
    assert counted["cluster.up.upstream_flow_control_backed_up_total"] == counted["cluster.up.upstream_flow_control_drained_total"]
