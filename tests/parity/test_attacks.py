"""Attacks on HTTP/2 against a real Envoy: the same streams go, the same is counted and logged as by sluice
(tests/integration/test_http2_attacks.py). GOAWAY is not compared: Envoy closes most broken connections without one."""

import dataclasses

import pytest

from support.attacks import ATTACKS, Target, outcome
from support.upstream import Reply

# What else differs, and why. A row that is not true fails.
NGHTTP2 = {"details": ("DPE codec_error:The_user_callback_function_failed",)}
DIFFERENCES = {
    **{name: (NGHTTP2, "the same fault in the words of its library") for name in
       ("table-size", "endless-integer", "index-of-nothing", "long-padding", "long-frame")},
    "endless-large-continuations": (
        {"counts": ("downstream_cx_protocol_error", "downstream_rq_rx_reset", "http2.header_list_size_too_large")},
        "Envoy resets the stream and decodes as long as fragments come; sluice ends the connection after a few of them"),
}


@pytest.fixture(scope="module")
def target(shared_envoy, shared_upstream, tmp_path_factory):
    return Target(shared_envoy, shared_upstream.script(Reply(silent=True)), tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(target, name):
    attack = ATTACKS[name]
    differs, _ = DIFFERENCES.get(name, ({}, ""))
    want = dataclasses.asdict(attack) | differs
    seen = outcome(target, attack)
    assert {k: seen[k] for k in ("resets", "details", "closed")} == {k: want[k] for k in ("resets", "details", "closed")}
    assert seen["counts"] == tuple(sorted(want["counts"]))
