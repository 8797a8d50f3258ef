"""The short variant of tests/conformance/test_churn.py; also run under sanitizers."""

import pytest

from support import churn
from support.upstream import Nginx


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    servers = [Nginx(tmp_path_factory.mktemp("nginx")) for _ in range(3)]
    yield [s.port for s in servers]
    for server in servers:
        server.stop()


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
def test_churn(sluice, authority, servers, kind):
    churn.run(sluice, servers, churn.leaves(authority), authority, 60, kind, churn.seed_of_run(7))
