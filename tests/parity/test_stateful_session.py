"""Stateful sessions beside Envoy's: the same requests reach the same hosts, with the same cookies, headers and stats."""

import base64
import re
import time

import pytest

from support.config import TYPE, bootstrap, cluster, direct, endpoint, hcm, listener, route, typed, vhost
from support.rawhttp import fetch
from support.upstream import Reply, ScriptedUpstream

NAME, MESSAGE = "envoy.filters.http.stateful_session", "envoy.extensions.filters.http.stateful_session.v3.StatefulSession"
ANY_CLUSTER = {"validate_clusters": False}
HEALTH = ["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"]


def state(kind, message, **fields):
    return {"name": f"envoy.http.stateful_session.{kind}",
            "typed_config": {"@type": f"{TYPE}envoy.extensions.http.stateful_session.{kind}.v3.{message}", **fields}}


def cookie(name="s", **fields):
    return state("cookie", "CookieBasedSessionState", cookie={"name": name, **fields})


def header(name="x-s"):
    return state("header", "HeaderBasedSessionState", name=name)


def envelope(name="x-s"):
    return state("envelope", "EnvelopeSessionState", header={"name": name})


def session(of=None, **fields):
    return {NAME: {"@type": f"{TYPE}{MESSAGE}PerRoute", "stateful_session": {**({"session_state": of} if of else {}), **fields}}}


ROUTES = {
    "plain": None,
    "strict": session(cookie(), strict=True),
    "ttl": session(cookie(ttl="120s", path="/p", attributes=[{"name": "SameSite", "value": "Lax"}, {"name": "Secure"}])),
    "slash": session(cookie(path="/p/")),
    "root": session(cookie(path="/", ttl="0.5s")),
    "strict-status": session(cookie(), strict=True, status_on_strict_destination_not_found=404),
    "lax-status": session(cookie(), status_on_strict_destination_not_found=404),
    "header": session(header("X-S")),
    "header-strict": session(header(), strict=True),
    "envelope": session(envelope()),
    "none": session(),
    "off": {NAME: {"@type": f"{TYPE}{MESSAGE}PerRoute", "disabled": True}},
}


def b64(raw):
    return base64.b64encode(raw if isinstance(raw, bytes) else raw.encode()).decode()


def field(number, raw):
    return bytes([number << 3 | 2, len(raw)]) + raw


# What a session may be given as; A is the second host's address.
VALUES = {
    "none": lambda a: None,
    "old": b64,
    "message": lambda a: b64(field(1, a.encode())),
    "expired": lambda a: b64(field(1, a.encode()) + b"\x10\x01"),
    "expired-in-1901": lambda a: b64(field(1, a.encode()) + b"\x10" + b"\x80" * 9 + b"\x01"),
    "later": lambda a: b64(field(1, a.encode()) + b"\x10\xff\xff\xff\xff\x7f"),
    "never": lambda a: b64(field(1, a.encode()) + b"\x10\x00"),
    "other-fields": lambda a: b64(b"\x18\x05" + field(9, b"x") + field(1, a.encode()) + b"\x21" + b"8" * 8 + b"\x2d" + b"4444"),
    "twice": lambda a: b64(field(1, b"127.0.0.1:1") + field(1, a.encode())),
    "gone": lambda a: b64("127.0.0.1:1"),
    "gone-message": lambda a: b64(field(1, b"127.0.0.1:1")),
    "padded-port": lambda a: b64(a.replace(":", ":0")),
    "no-port": lambda a: b64(a.split(":")[0]),
    "mapped": lambda a: b64("[::ffff:127.0.0.1]:" + a.split(":")[1]),
    "name": lambda a: b64("localhost:" + a.split(":")[1]),
    "space": lambda a: b64(a + " "),
    "nul": lambda a: b64(a + "\0"),
    "pipe": lambda a: b64("/tmp/x"),
    "long": lambda a: b64("9" * 3000 + ":1"),
    "long-pipe": lambda a: b64("/" * 3000),
    "binary": lambda a: b64(bytes(range(128, 256))),
    "empty": lambda a: "",
    "empty-address": lambda a: b64(b"\x0a\x00"),
    "no-address": lambda a: b64(b"\x10\xff\xff\xff\xff\x7f"),
    "cut-varint": lambda a: b64(b"\x10\xff"),
    "cut-bytes": lambda a: b64(b"\x0a\x7f" + a.encode()),
    "field-0": lambda a: b64(b"\x02\x00"),
    "not-base64": lambda a: "%%%%",
    "no-padding": lambda a: b64("127.0.0.1:1").rstrip("="),
    "cut": lambda a: b64(a)[:-1],
    "much-padding": lambda a: b64(a) + "====",
    "quoted": lambda a: f'"{b64(a)}"',
    "envelope": lambda a: b64(a) + ";UV:" + b64("own"),
    "envelope-gone": lambda a: b64("127.0.0.1:1") + ";UV:" + b64("own"),
    "envelope-bare": lambda a: b64(a) + ";UV:",
    "envelope-headless": lambda a: ";UV:" + b64("own"),
    "envelope-bad": lambda a: b64(a) + ";UV:%%",
    "envelope-other": lambda a: b64(a) + ";XX:" + b64("own"),
    "envelope-twice": lambda a: b64(a) + ";UV:" + b64("own") + ";UV:" + b64("own"),
}


class Named(ScriptedUpstream):
    """Tells its port, and what it got; a request for /own gets a session of its own."""

    def next_reply(self, request):
        own = {"/own": 1, "/twice": 2}.get(request.target, 0)
        return Reply(headers=[("x-port", str(self.port)), ("x-got", "|".join(request.all("x-s")))] + [("x-s", "own")] * own)


@pytest.fixture(scope="module")
def hosts():
    servers = [Named() for _ in range(3)]
    yield servers
    for server in servers:
        server.stop()


def virtual_host(name, config, to="up"):
    overrides = {"typed_per_filter_config": config} if config else {}
    return vhost([direct("/direct"), route("/missing", "missing"), route("/empty", "empty"), route(cluster=to)], name, [name], **overrides)


def clusters_by_status(port):
    """By which states may be asked for: each has a host of each state, where nobody listens, behind one that is healthy."""
    spread = [endpoint(port)] + [endpoint(port, f"127.0.1.{i}", health_status=h) for i, h in enumerate(HEALTH)]
    allowed = {"allow-default": {}, "allow-nothing": {"override_host_status": {}},
               **{f"allow-{h}": {"override_host_status": {"statuses": [h]}} for h in HEALTH}}
    return [cluster(name, *spread, common_lb_config=config) for name, config in allowed.items()]


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, hosts):
    by_status = clusters_by_status(hosts[0].port)
    vhosts = [virtual_host(name, config) for name, config in ROUTES.items()]
    vhosts += [virtual_host(c["name"], session(cookie(), strict=True), c["name"]) for c in by_status]
    clusters = [cluster("empty"), cluster("up", *(h.port for h in hosts)), *by_status]
    only = typed(NAME, MESSAGE, session_state=cookie(), stat_prefix="all")
    return [start(bootstrap([listener(hcm(vhosts=vhosts, filters=[only], route_fields=ANY_CLUSTER))], clusters)) for start in (shared_envoy, shared_sluice)]


def told(value):
    """A cookie with its expiry counted from now."""
    if value is None:
        return None
    name, text, attributes = re.fullmatch('(.*?)="(.*?)"(.*)', value).groups()
    raw = base64.b64decode(text)
    address, rest, expires, shift = raw[2:2 + raw[1]], raw[2 + raw[1]:], 0, 0
    assert not rest or rest[0] == 0x10
    for byte in rest[1:]:
        expires, shift = expires | (byte & 127) << shift, shift + 7
    left = round((expires - time.time()) / 10) * 10 if rest else None
    return name, address.decode(), left, attributes


def outcome(reply):
    return (reply.status, reply.body[:30], reply.get("x-port"), reply.get("x-got"), [told(c) for c in reply.all("set-cookie")],
            reply.all("x-s"))


def ask(side, host, value, path="/"):
    """As many requests as there are hosts: who is not sent anywhere goes round them all, wherever that begins."""
    headers = [] if value is None else [("cookie", f"a=b; s={value}"), ("x-s", value)]
    return sorted((outcome(fetch(side.port(), path, headers=headers, host=host)) for _ in range(3)), key=repr)


def compare(sides, requests):
    differing = []
    for request in requests:
        envoy, sluice = (ask(side, *request) for side in sides)
        if envoy != sluice:
            differing.append(f"{request}:\n  envoy  {envoy}\n  sluice {sluice}")
    assert not differing, "\n".join(differing)


@pytest.mark.parametrize("name", ROUTES)
def test_sessions(sides, hosts, name):
    address = f"127.0.0.1:{hosts[1].port}"
    paths = ["/", "/own"] if name == "envelope" else ["/"]
    compare(sides, [(name, make(address), path) for make in VALUES.values() for path in paths])


@pytest.mark.parametrize("path", ["/p", "/p/", "/p/x", "/p?x", "/p%23", "/px", "/P", "/", "/direct", "/missing", "/empty", "/own", "/twice"])
def test_paths(sides, hosts, path):
    address = f"127.0.0.1:{hosts[1].port}"
    compare(sides, [(name, make(address), path) for name in ROUTES for make in (VALUES["none"], VALUES["old"], VALUES["gone"])])


@pytest.mark.parametrize("name", ["default", "nothing", *HEALTH])
def test_statuses(sides, hosts, name):
    """Which hosts may be asked for: those that may not are as if they were gone."""
    compare(sides, [(f"allow-{name}", b64(f"127.0.1.{i}:{hosts[0].port}")) for i in range(len(HEALTH))])


def test_stats(shared_envoy, shared_sluice, hosts):
    routes = {"open": session(cookie(), stat_prefix="open"), "closed": session(cookie(), strict=True, stat_prefix="closed"),
              "gone": session(cookie(), strict=True, stat_prefix="gone", status_on_strict_destination_not_found=410),
              "path": session(cookie(path="/p"), stat_prefix="path"), "none": session(stat_prefix="none"),
              "envelope": session(envelope(), stat_prefix="envelope"), "header": session(header(), stat_prefix="header"),
              "plain": None, "off": ROUTES["off"]}
    only = typed(NAME, MESSAGE, session_state=cookie(), stat_prefix="all")
    address, seen = f"127.0.0.1:{hosts[1].port}", []
    for start in (shared_envoy, shared_sluice):
        side = start(bootstrap([listener(hcm(vhosts=[virtual_host(n, c) for n, c in routes.items()], filters=[only],
                                             route_fields=ANY_CLUSTER))],
                               [cluster("empty"), cluster("up", *(h.port for h in hosts))]))
        steps = {}
        for name in routes:
            for path in ("/", "/direct", "/missing", "/empty", "/p", "/own"):
                for value in ("none", "old", "gone", "not-base64", "envelope", "envelope-gone"):
                    ask(side, name, VALUES[value](address), path)
                    steps[name, path, value] = side.stats("stateful_session")
        seen.append(steps)
    differing = [f"{step}: {stat}: envoy {n}, sluice {seen[1][step].get(stat)}" for step in seen[0]
                 for stat, n in seen[0][step].items() if seen[1][step].get(stat) != n]
    assert not differing, "\n".join(differing[:20])
    assert seen[0].popitem()[1].keys() == seen[1].popitem()[1].keys()
