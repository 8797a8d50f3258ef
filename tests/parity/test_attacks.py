"""Attacks against a real Envoy. HTTP/2: the same streams go, the same is counted and logged as by sluice
(tests/integration/test_http2_attacks.py). GOAWAY is not compared: Envoy closes most broken connections without one."""

import dataclasses

import pytest

from support import slow, smuggling
from support.attacks import ATTACKS, Target, outcome
from support.upstream import ByteUpstream, Reply, ScriptedUpstream

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
    # which of its limits Envoy hits first when it cannot write is chance; one has no counter
    assert seen["counts"] == tuple(sorted(want["counts"])) or not attack.reads and not seen["counts"]


# ---- HTTP/1 ----

@pytest.fixture(scope="module")
def readers(shared_envoy, shared_sluice, shared_upstream):
    return [start(smuggling.configuration(shared_upstream)).port() for start in (shared_envoy, shared_sluice)]


QUIET_S = 0.5
# Refused by sluice only: RFC 9112 forbids them, and parsers are known that read them otherwise.
FOLDED = ("folded", "folded-name", "bare-cr", "bare-lf", "double-cr", "empty-twice")
CHUNKS = ("data-lf", "data-long", "last-lf-end", "extension-nul", "extension-long", "extension-many", "zeros", "trailer-folded",
          "trailer-lf", "trailers-many")
STRICTER = {f"{kind}{name}" for kind in ("te-", "te-cl-", "cl-te-") for name in FOLDED} | {f"chunk-{name}" for name in CHUNKS}
STRICTER |= {"host-twice", "host-folded", "tab-in-line", "lf-lines", "lf-line"}
# A version that is not spoken comes first; a websocket has no body before its answer, so Envoy waits for that.
OTHERWISE = {"version-10-chunked", "upgrade-with-body"}


@pytest.mark.parametrize("name", sorted(set(smuggling.corpus()) - OTHERWISE))
def test_smuggling(readers, shared_upstream, name):
    data = smuggling.corpus()[name]
    if name in smuggling.ACCEPTED:
        statuses, _ = smuggling.ACCEPTED[name]
        envoy, sluice = (smuggling.exchange(port, shared_upstream, data, len(statuses)) for port in readers)
        assert envoy == sluice
        return
    envoy, sluice = (smuggling.exchange(port, shared_upstream, data, patience_s=QUIET_S)[0] for port in readers)
    assert envoy == sluice or name in STRICTER and sluice in ([400], [431], [501])


# ---- slow peers ----

@pytest.fixture(scope="module")
def slowed(shared_envoy, authority, tmp_path_factory):
    upstream, byte_server = ScriptedUpstream().script(slow.serve), ByteUpstream()
    yield slow.Target(shared_envoy, upstream, byte_server, authority.leaf("slow", "DNS:test"), tmp_path_factory.mktemp("slow"))
    upstream.stop()
    byte_server.stop()


@pytest.mark.parametrize("name", slow.PHASES)
def test_slow(slowed, name):
    assert slow.outcome(slowed, name) == slow.expected(name)
