"""Slow loris in each phase of a connection: the timeout that ends it, its counter and its line in the log. docs/ATTACKS.md lists them."""

import pytest

from support.slow import PHASES, Target, expected, outcome, serve
from support.upstream import ByteUpstream


@pytest.fixture(scope="module")
def target(shared_sluice, shared_upstream, authority, tmp_path_factory):
    byte_server = ByteUpstream()
    shared_upstream.script(serve)
    yield Target(shared_sluice, shared_upstream, byte_server, authority.leaf("slow", "DNS:test"), tmp_path_factory.mktemp("slow"))
    byte_server.stop()


@pytest.mark.parametrize("name", PHASES)
def test_phase(target, name):
    assert outcome(target, name) == expected(name)
