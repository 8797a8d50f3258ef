"""Everything changes, nothing fails: SLUICE_CHURN (1000) random updates of listeners, routes, clusters, endpoints and
certificates below continuous HTTP/1, HTTP/2, TLS and TCP load. No request fails, the configuration at the end is that of a
fresh process, and memory stays where it was. SLUICE_CHURN_SEED repeats a run."""

import os

import pytest

from support import churn
from support.upstream import Nginx

UPDATES = int(os.environ.get("SLUICE_CHURN", "1000"))
WARM_UPDATES = 500  # fewer do not tell whether memory has settled
SEED = 20


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    servers = [Nginx(tmp_path_factory.mktemp("nginx")) for _ in range(3)]
    yield [s.port for s in servers]
    for server in servers:
        server.stop()


@pytest.mark.parametrize("kind, strategy", [("GRPC", "immediate"), ("DELTA_GRPC", "gradual")])
def test_churn(sluice, authority, servers, kind, strategy):
    churn.run(sluice, servers, churn.leaves(authority), authority, UPDATES, kind, churn.seed_of_run(SEED), strategy,
              check_rss=UPDATES >= WARM_UPDATES)
