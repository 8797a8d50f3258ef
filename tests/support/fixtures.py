"""Pytest fixtures shared by the integration and parity suites."""

import contextlib
import itertools

import pytest

from support.ads_server import AdsServer
from support.certs import Authority
from support.h2server import H2Upstream
from support.proxy import Envoy, Sluice
from support.upstream import ByteUpstream, Nginx, ScriptedUpstream

numbers = itertools.count(1)
BACKENDS = 3


def starter(directory_of, kind, stack):
    def start(bootstrap, ready=True, **options):
        proxy = kind(directory_of(f"{kind.__name__.lower()}{next(numbers)}"), bootstrap, **options)
        stack.callback(proxy.stop)
        return proxy.start(ready)
    return start


@pytest.fixture
def sluice(tmp_path):
    """Starts proxies that stop when the test ends: sluice(bootstrap) -> Sluice."""
    with contextlib.ExitStack() as stack:
        yield starter(lambda name: tmp_path / name, Sluice, stack)


@pytest.fixture(scope="module")
def shared_sluice(tmp_path_factory):
    """Starts proxies that stop when the module's tests end."""
    with contextlib.ExitStack() as stack:
        yield starter(tmp_path_factory.mktemp, Sluice, stack)


@pytest.fixture(scope="module")
def shared_envoy(tmp_path_factory):
    if not Envoy.binary:
        pytest.skip("no Envoy to compare with")
    with contextlib.ExitStack() as stack:
        yield starter(tmp_path_factory.mktemp, Envoy, stack)


@pytest.fixture
def upstream():
    server = ScriptedUpstream()
    yield server
    server.stop()


@pytest.fixture
def upstreams():
    """Makes more of them: upstreams(ScriptedUpstream) or upstreams(ByteUpstream, handler)."""
    with contextlib.ExitStack() as stack:
        def make(kind=ScriptedUpstream, *args, **options):
            server = kind(*args, **options)
            stack.callback(server.stop)
            return server
        yield make


@pytest.fixture(scope="module")
def shared_upstream():
    server = ScriptedUpstream()
    yield server
    server.stop()


@pytest.fixture
def byte_upstream():
    server = ByteUpstream()
    yield server
    server.stop()


@pytest.fixture
def h2_upstream():
    """Starts HTTP/2 servers: h2_upstream(files, ...) -> H2Upstream."""
    with contextlib.ExitStack() as stack:
        def start(*args, **options):
            server = H2Upstream(*args, **options)
            stack.callback(server.stop)
            return server
        yield start


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    server = Nginx(tmp_path_factory.mktemp("nginx"), {"index.html": b"hello\n", "big": bytes(range(256)) * 40960})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def backends(tmp_path_factory):
    """The ports of some nginx, which tell their port at /who."""
    with contextlib.ExitStack() as stack:
        servers = [Nginx(tmp_path_factory.mktemp("nginx")) for _ in range(BACKENDS)]
        for server in servers:
            stack.callback(server.stop)
        yield [s.port for s in servers]


@pytest.fixture
def ads():
    """A control plane that has nothing yet."""
    with AdsServer() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))
