import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

from mesh import Identities, Istio  # noqa: E402
from support.fixtures import *  # noqa: E402,F403

MODES = os.environ.get("ISTIO_MODES", "agent,sotw,delta").split(",")
SECONDS = 300


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: small and broad; also run under sanitizers")


def pytest_collection_modifyitems(items):
    for item in items:
        if not os.environ.get("ISTIO_BIN"):
            item.add_marker(pytest.mark.skip(reason="ISTIO_BIN is not set"))
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def identities(tmp_path_factory):
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture(scope="module", params=MODES)
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def istio(request, tmp_path_factory, identities, mode):
    """A control plane for the module, with its MESH (fields of MeshConfig) and ISTIOD_ENV."""
    with Istio(tmp_path_factory.mktemp("istio"), identities, mode, getattr(request.module, "MESH", None),
               getattr(request.module, "ISTIOD_ENV", None)) as control:
        yield control.start()
        refused = control.istiod.refusals()
        assert not refused, refused[:3]
