"""The scripted protocol suite: every case talks to sluice, or with --peer envoy to the real Envoy, which proves what the
case expects. Where Envoy does otherwise on purpose of ours, differences.yaml says why; a row that is no longer true fails."""
import contextlib
import fnmatch
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import pytest  # noqa: E402
import yaml  # noqa: E402

from support.ads_server import CLUSTER, AdsServer  # noqa: E402
from support.conversation import Conversation, ManualServer  # noqa: E402
from support.fixtures import *  # noqa: E402,F403
from support.fixtures import starter  # noqa: E402
from support.proxy import Envoy, Sluice  # noqa: E402

DIFFERENCES = pathlib.Path(__file__).parent / "differences.yaml"


def pytest_addoption(parser):
    parser.addoption("--peer", choices=["sluice", "envoy"], default="sluice", help="who is talked to")


def pytest_configure(config):
    config.addinivalue_line("markers", "smoke: small and broad; also run under sanitizers")


def case_name(item):
    """test_streams/reconnect[delta]"""
    return f"{item.path.stem.removeprefix('test_')}/{item.name.removeprefix('test_')}"


def pytest_collection_modifyitems(config, items):
    if config.getoption("--peer") != "envoy":
        return
    rows = yaml.safe_load(DIFFERENCES.read_text()) or []
    used = set()
    for item in [i for i in items if i.path.parent == DIFFERENCES.parent]:
        for n, row in enumerate(rows):
            if fnmatch.fnmatchcase(case_name(item), row["case"].replace("[", "[[]")):
                used.add(n)
                item.add_marker(pytest.mark.xfail(reason=row["reason"], strict=not row.get("racy")))
    if not config.option.keyword and [pathlib.Path(a).resolve() for a in config.args] == [DIFFERENCES.parent]:
        unused = [row["case"] for n, row in enumerate(rows) if n not in used]
        assert not unused, f"no such case: {unused}"


@pytest.fixture
def is_envoy(request):
    return request.config.getoption("--peer") == "envoy"


@pytest.fixture
def start_proxy(tmp_path, is_envoy):
    with contextlib.ExitStack() as stack:
        yield starter(lambda name: tmp_path / name, Envoy if is_envoy else Sluice, stack)


@pytest.fixture
def ads():
    """A control plane that answers by itself; there are no clusters."""
    with AdsServer() as server:
        server.set(CLUSTER, "1", [])
        yield server


@pytest.fixture
def refusal(tmp_path, is_envoy):
    """Starts a proxy that has to end by itself, with an error: refusal(bootstrap) -> its log."""
    def run(bootstrap):
        proxy = (Envoy if is_envoy else Sluice)(tmp_path / "refused", bootstrap)
        proxy.launch(proxy.command())
        try:
            assert proxy.wait_exit() == 1
        finally:
            if not proxy.has_exited():
                proxy.child.kill()
        return proxy.log()
    return run


@pytest.fixture
def conversations(start_proxy, is_envoy):
    """Makes conversations with servers of their own: conversations(kind, **server options)."""
    with contextlib.ExitStack() as stack:
        yield lambda kind, **options: Conversation(kind, start_proxy, stack.enter_context(ManualServer(**options)), is_envoy)


@pytest.fixture(params=["sotw", "delta"])
def talk(request, conversations):
    return conversations(request.param)


@pytest.fixture
def sotw(conversations):
    return conversations("sotw")


@pytest.fixture
def delta(conversations):
    return conversations("delta")
