"""Attacks on HTTP/2: what they cost the attacker, what counts them, and that others are served on. docs/ATTACKS.md lists them."""

import dataclasses

import pytest

from support.attacks import ATTACKS, Target, outcome
from support.h2client import H2Client
from support.upstream import Reply


@pytest.fixture(scope="module")
def target(shared_sluice, shared_upstream, tmp_path_factory):
    return Target(shared_sluice, shared_upstream.script(Reply(silent=True)), tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(target, name):
    attack = ATTACKS[name]
    want = {k: tuple(sorted(v)) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(attack).items()
            if k not in ("sent", "reads")}
    assert outcome(target, attack) == want
    with H2Client(target.ports["alive"]) as client:
        assert client.get("/direct").body == b"alive"
