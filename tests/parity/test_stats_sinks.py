"""Lines of statsd and DogStatsD beside Envoy's: the same names, tags, kinds and sums after the same requests."""

import pytest
from support.config import bootstrap, direct, hcm, listener
from support.rawhttp import fetch
from support.statsd import Statsd

ROUTES = [direct("/ok", 200), direct("/gone", 410)]
SHARED = ("downstream_rq", "downstream_cx_total", "rq_total", "rq_direct_response")


@pytest.fixture(params=[("Statsd", {}), ("Statsd", {"prefix": "x"}), ("DogStatsd", {"max_bytes_per_datagram": 500}),
                        ("DogStatsd", {"prefix": "y"})], ids=str)
def told(request, shared_envoy, shared_sluice):
    """What either told of its connection manager: {name, kind and tags: sum}, and how long its datagrams were."""
    kind, fields = request.param

    def run(start):
        with Statsd() as statsd:
            proxy = start(bootstrap([listener(hcm(ROUTES))], stats_flush_interval="0.1s", stats_sinks=[statsd.sink(kind, **fields)]))
            for path in ("/ok", "/gone", "/ok", "/none"):
                fetch(proxy.port(), path)
            proxy.stop()
        return statsd
    return [run(start) for start in (shared_envoy, shared_sluice)]


def summed(statsd):
    out = {}
    for line in statsd.lines():
        name, _, rest = line.partition(":")
        value, kind, *tags = rest.split("|")
        # those of a connection manager by listener are not kept
        if "ingress" not in line or ".listener." in name or not any(part in name for part in SHARED) or kind == "ms":
            continue
        key = name, kind, *(",".join(sorted(t.split(","))) for t in tags)
        out[key] = out.get(key, 0) + int(value) if kind == "c" else 0
    return out


def test_lines(told):
    envoy, sluice = told
    assert summed(sluice) == summed(envoy) and summed(sluice)
    assert any(b"\n" in d for d in sluice.datagrams) == any(b"\n" in d for d in envoy.datagrams)
    assert not any(d.endswith(b"\n") for d in sluice.datagrams)
