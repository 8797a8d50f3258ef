import contextlib
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from support.fixtures import *  # noqa: E402,F403
from support.fixtures import starter  # noqa: E402
from support.proxy import Envoy, Sluice  # noqa: E402


@pytest.fixture
def dataplane(tmp_path):
    """Starts what is under test: DATAPLANE, which may be a real Envoy to tell a fault of the harness from one of ours."""
    kind, binary = Sluice, os.environ.get("DATAPLANE")
    if binary:
        kind = Envoy if "envoy" in pathlib.Path(binary).name else Sluice
        kind = type(kind.__name__, (kind,), {"binary": binary})
    with contextlib.ExitStack() as stack:
        yield starter(lambda name: tmp_path / name, kind, stack)
