"""The short variant of tests/conformance/test_churn.py; also run under sanitizers."""

import pytest

from support import churn


@pytest.mark.smoke
@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
def test_no_request_fails_while_everything_changes(sluice, authority, backends, kind):
    churn.run(sluice, backends, churn.leaves(authority), authority, 60, kind, churn.seed_of_run(7))
