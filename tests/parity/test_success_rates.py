"""Success rates of outlier detection on /clusters: a real Envoy's lines and fields."""

import pytest
from support.config import bootstrap, cluster, hcm, listener, route
from support.process import wait_until
from support.rawhttp import Client
from support.upstream import Reply, ScriptedUpstream

DETECTION = {"interval": "0.3s", "consecutive_5xx": 1000, "consecutive_gateway_failure": 1000, "success_rate_minimum_hosts": 2,
             "success_rate_request_volume": 3, "enforcing_success_rate": 0, "success_rate_stdev_factor": 1000}


@pytest.fixture
def servers():
    made = [ScriptedUpstream() for _ in range(3)]
    made[2].script(Reply(status=503))
    yield made
    for server in made:
        server.stop()


def rounded(value):
    """The last digits depend on the order of additions."""
    return round(float(value), 9)


def rates(proxy):
    """The lines of rates and their JSON, once an interval with traffic is over."""
    def found():
        text = proxy.admin("/clusters?filter=^rated$").text
        return text if "::success_rate::0\n" in text else None

    with Client(proxy.port()) as client:
        def asked():
            for _ in range(12):
                client.request("GET", "/")
            return found()
        text = wait_until(asked, "rates")
    answer = proxy.admin("/clusters?format=json&filter=^rated$").json["cluster_statuses"][0]
    lines = [line for line in text.splitlines() if "success_rate" in line]
    fields = [answer, *answer["host_statuses"]]
    return sorted(lines), \
        [{k: {n: rounded(v) for n, v in rate.items()} for k, rate in f.items() if "rate" in k} for f in fields]


def test_the_same_rates(shared_envoy, shared_sluice, servers):
    made = bootstrap([listener(hcm([route("/", "rated")]))],
                     [cluster("rated", *[s.port for s in servers], outlier_detection=DETECTION)])
    proxies = [start(made) for start in (shared_envoy, shared_sluice)]
    before = [p.admin("/clusters?filter=^rated$").text for p in proxies]
    assert [line for line in before[1].splitlines() if "success_rate" in line] == \
        [line for line in before[0].splitlines() if "success_rate" in line]
    envoy, sluice = (rates(p) for p in proxies)
    assert sluice == envoy
