"""The short variant of tests/conformance/test_rotation.py; also run under sanitizers."""

import pytest

from support import rotation


@pytest.mark.smoke
def test_certificates_rotate_below_traffic(sluice, tmp_path):
    rotation.run(sluice, tmp_path, 8, period_s=0.25, intermediate_every=5, root_every=10, check_memory=False)
