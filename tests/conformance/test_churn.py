"""Everything changes, nothing fails: SLUICE_CHURN (1000) random updates of listeners, routes, clusters, endpoints and
certificates below continuous HTTP/1, HTTP/2, TLS and TCP load. No request fails, the configuration at the end is that of a
fresh process, and memory stays where it was. SLUICE_CHURN_SEED repeats a run."""

import os

import pytest

from support import churn

UPDATES = int(os.environ.get("SLUICE_CHURN", "1000"))
WARM_UPDATES = 500  # fewer do not tell whether memory has settled
SEED = 20


@pytest.mark.parametrize("kind, strategy", [("GRPC", "immediate"), ("DELTA_GRPC", "gradual")])
def test_no_request_fails_while_everything_changes(sluice, authority, backends, kind, strategy):
    churn.run(sluice, backends, churn.leaves(authority), authority, UPDATES, kind, churn.seed_of_run(SEED), strategy,
              check_rss=UPDATES >= WARM_UPDATES)
