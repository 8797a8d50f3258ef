"""The same request to sluice and to Envoy under one configuration: answers, what the upstream saw and the access log
must agree, but for the reviewed rows of differences.yaml. Cases: cases/*.yaml."""

import fnmatch
import pathlib
import re
import select
import socket

import pytest
import yaml

from support import config
from support.h2client import H2Client
from support.process import wait_until
from support.rawhttp import Client, encode
from support.upstream import Reply, ScriptedUpstream

HERE = pathlib.Path(__file__).parent
# Values that differ from run to run; their presence is compared all the same.
VOLATILE = {"date", "x-request-id", "x-envoy-upstream-service-time"}
# Counters that stand when the request's line is in the access log.
COUNTED = (r"^(http|cluster)\..*\.((downstream_rq|rq|no|retry|upstream_rq|upstream_internal)_\w+|"
           r"(up|down)stream_cx_(protocol_error|close_notify|overflow|connect_fail|none_healthy|max_requests\w*|drain_close|upgrades_total))$")
UNCOUNTED = re.compile(r"^http\.admin\.|_active$|\.(default|high)\.")
QUIET_S = 0.3  # how long a request that must not be logged or answered is watched


def load_cases():
    for path in sorted((HERE / "cases").glob("*.yaml")):
        for case in yaml.safe_load(path.read_text()):
            yield pytest.param(case, id=f"{path.stem}/{case['name']}")


def differences():
    return yaml.safe_load((HERE / "differences.yaml").read_text()) or []


# ---- the configuration ----

def expand_cluster(spec):
    spec = dict(spec)
    ports, hostname = spec.pop("ports"), spec.pop("hostname", None)
    extra = {"endpoint": {"hostname": hostname}} if hostname else {}
    return config.cluster(spec.pop("name"), *[config.endpoint(int(p), **extra) for p in ports], **spec)


def expand_listener(spec, template, log):
    spec = dict(spec)
    name, router = spec.pop("name"), spec.pop("router", {})
    limit = {"per_connection_buffer_limit_bytes": spec.pop("buffer_limit")} if "buffer_limit" in spec else {}
    hcm = config.hcm(vhosts=template["virtual_hosts"], stat_prefix=name,
                     access_log=[config.file_log(f"{log}.{name}", template["access_log_format"])], **spec)
    hcm["typed_config"]["http_filters"] = [config.router(**router)]
    return config.listener(hcm, name=name, **limit)


def bootstrap(ports, log):
    text = (HERE / "bootstrap.yaml").read_text()
    for name, port in ports.items():
        text = text.replace(f"@{name}@", str(port))
    template = yaml.safe_load(text)
    return config.bootstrap([expand_listener(s, template, log) for s in template["listeners"]],
                            [expand_cluster(s) for s in template["clusters"]])


class Side:
    """One of the two proxies, with its access logs."""

    def __init__(self, start, ports, directory):
        self.log = directory / "access"
        self.proxy = start(bootstrap(ports, self.log))
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}
        self.seen = {}
        self.counted = self.counts()

    def expect_alive(self):
        """One case that kills a proxy must not fail all that follow."""
        if not self.proxy.has_exited():
            return
        log = self.proxy.log()
        self.proxy.start()
        self.ports = {name: port for name, (_, port) in self.proxy.listeners().items()}
        pytest.fail(f"{self.proxy.name} died:\n{log[-4000:]}")

    def skip_lines(self, listener):
        """What an earlier case logged late is not this one's."""
        self.seen[listener] = len(self.proxy.log_lines(f"{self.log}.{listener}", 0))

    def counts(self):
        """Counters of requests, and those of single hosts by the cluster's name."""
        found = {n: v for n, v in self.proxy.stats(COUNTED).items() if not UNCOUNTED.search(n)}
        for line in self.proxy.admin("/clusters").text.splitlines():
            cluster, host, *rest = line.split("::")
            if rest and rest[0].startswith("rq_") and rest[0] != "rq_active":
                found[f"{cluster}.host.{rest[0]}"] = found.get(f"{cluster}.host.{rest[0]}", 0) + int(rest[1])
        return found

    def new_counts(self):
        """What was counted since the last call."""
        before, self.counted = self.counted, self.counts()
        return {n: v - before.get(n, 0) for n, v in self.counted.items() if v != before.get(n, 0)}

    def new_lines(self, listener, count):
        """Log lines of the listener since the last call, once there are `count`."""
        before = self.seen.get(listener, 0)
        lines = self.proxy.log_lines(f"{self.log}.{listener}", before + count, 3 if count else QUIET_S)
        self.seen[listener] = len(lines)
        return lines[before:]


@pytest.fixture(scope="module")
def pair(shared_sluice, shared_envoy, shared_upstream, tmp_path_factory):
    refusing = socket.socket()
    refusing.bind(("127.0.0.1", 0))
    second = ScriptedUpstream()
    ports = {"UP": shared_upstream.port, "UP2": second.port, "DEAD": refusing.getsockname()[1]}
    yield [Side(start, ports, tmp_path_factory.mktemp(name))
           for name, start in (("envoy", shared_envoy), ("sluice", shared_sluice))]
    refusing.close()
    second.stop()


# ---- one request on one side ----

def to_bytes(text):
    return text.encode("latin-1") if isinstance(text, str) else text


def make_reply(spec):
    spec = dict(spec)
    for key in ("raw", "body"):
        if key in spec:
            spec[key] = to_bytes(spec[key])
    if "repeat" in spec:
        spec["body"] = spec.get("body", b"x") * spec.pop("repeat")
    if "chunks" in spec:
        spec["chunks"] = [to_bytes(c) for c in spec["chunks"]]
    for key in ("headers", "trailers"):
        spec[key] = [tuple(map(str, h)) for h in spec.get(key, [])]
    return Reply(**spec)


def request_bytes(spec):
    if "raw" in spec:
        return to_bytes(spec["raw"])
    body = to_bytes(spec.get("body", "")) * spec.get("repeat", 1)
    headers = [tuple(map(str, h)) for h in spec.get("headers", [])]
    return encode(spec.get("method", "GET"), spec.get("path", "/"), headers, body, spec.get("host", "test"))


def mask(name, value):
    if name == "x-envoy-expected-rq-timeout-ms" and value.isdigit():
        step = 250 if int(value) > 1000 else 100  # a retry tells what is left, less a few milliseconds
        return str(-(-int(value) // step) * step)
    return "*" if name in VOLATILE else value


def clean(headers):
    """Sorted, lower-case, volatile values masked."""
    return sorted((n.lower(), mask(n.lower(), v)) for n, v in headers)


def describe(response):
    return {"status": response.status, "reason": response.reason, "version": response.version,
            "headers": clean(response.headers), "names": sorted(n for n, _ in response.headers),
            "body": response.body, "trailers": sorted(response.trailers),
            "interim": [(i.status, clean(i.headers)) for i in response.interim], "complete": response.is_complete}


def read_answer(client, spec):
    try:
        return describe(client.read(spec.get("method") == "HEAD"))
    except EOFError as end:
        return {"closed": str(end)}
    except TimeoutError:
        return {"silent": True}


def send_request(client, spec):
    """`pieces` go out one after the other, `apart` seconds later or when something comes back; "@9": so many bytes."""
    pieces = [b"x" * int(p[1:]) if p.startswith("@") else to_bytes(p) for p in spec.get("pieces", [])]
    for piece in pieces[:-1]:
        client.send(piece)
        select.select([client.socket], [], [], spec["apart"])
    client.send(pieces[-1] if pieces else request_bytes(spec))


def exchange(port, case):
    specs = case.get("requests") or [case.get("request") or {}]
    out = {"responses": []}
    with Client(port, timeout=case.get("wait", 10)) as client:
        if case.get("pipeline"):
            client.send(b"".join(request_bytes(s) for s in specs))
        for spec in specs:
            if not case.get("pipeline"):
                send_request(client, spec)
            if spec.get("half_close"):
                client.half_close()
            out["responses"].append(read_answer(client, spec))
            if "then" in spec:
                client.send(to_bytes(spec["then"]))
                out["responses"][-1]["after"] = client.exactly(spec["expect_bytes"])
        if case.get("closes"):
            out["closed"] = client.is_closed(3)
    return out


def exchange_h2(port, case):
    with H2Client(port, timeout=case.get("wait", 10)) as client:
        spec = case["h2"]
        answer = client.request([tuple(map(str, h)) for h in spec["headers"]],
                                to_bytes(spec.get("body", "")) * spec.get("repeat", 1),
                                [tuple(map(str, h)) for h in spec.get("trailers", [])])
    return {"status": answer.status, "headers": clean(answer.headers), "body": answer.body,
            "trailers": clean(answer.trailers), "reset": answer.reset}


def seen_request(request):
    return {"line": f"{request.method} {request.target} {request.version}", "headers": clean(request.headers),
            "names": sorted(n for n, _ in request.headers), "body": request.body,
            "trailers": sorted(request.trailers), "complete": request.is_complete}


def mask_ports(value, ports):
    """The two sides listen on different ports, which show in some answers."""
    if isinstance(value, dict):
        return {k: mask_ports(v, ports) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [mask_ports(v, ports) for v in value]
    if isinstance(value, str):
        return re.sub(r"\b(" + "|".join(map(str, ports.values())) + r")\b", "PORT", value)
    return value


def run(side, upstream, case):
    upstream.drop_all()
    upstream.script(*[make_reply(r) for r in case.get("replies", [{}])])
    listener = case.get("listener", "main")
    side.skip_lines(listener)
    answers = (exchange_h2 if "h2" in case else exchange)(side.ports[listener], case)
    side.expect_alive()
    seen = upstream.requests
    wait_until(lambda: all(r.is_settled for r in seen), lambda: f"the bodies' ends, there are {seen}", 2)
    count = case.get("logs", len(case.get("requests", [1])))
    lines = side.new_lines(listener, count)
    return mask_ports({**answers, "upstream": [seen_request(r) for r in seen], "log": lines,
                       "counts": side.new_counts()}, side.ports)


# ---- comparing ----

def flatten(value, path=""):
    if isinstance(value, dict):
        return {p: v for k, item in value.items() for p, v in flatten(item, f"{path}.{k}" if path else k).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {p: v for i, item in enumerate(value) for p, v in flatten(item, f"{path}[{i}]").items()}
    return {path: value}


def compare(envoy, sluice):
    """{path: (Envoy's value, sluice's)} of what differs."""
    a, b = flatten(envoy), flatten(sluice)
    return {p: (a.get(p, "absent"), b.get(p, "absent")) for p in sorted(a.keys() | b.keys()) if a.get(p) != b.get(p)}


def show(found):
    return "\n".join(f"{path}\n   envoy: {a!r}\n  sluice: {b!r}" for path, (a, b) in found.items())


@pytest.mark.parametrize("case", load_cases())
def test_parity(pair, shared_upstream, case, request):
    envoy, sluice = (run(side, shared_upstream, case) for side in pair)
    found = compare(envoy, sluice)
    name = request.node.callspec.id
    reviewed = [d for d in differences() if fnmatch.fnmatchcase(name, d["case"])]
    allowed = {path for path in found for row in reviewed for p in row["paths"] if fnmatch.fnmatchcase(path, p)}
    unexplained = {path: values for path, values in found.items() if path not in allowed}
    assert not unexplained, f"{name}\n{show(unexplained)}"
    stale = [d["case"] for d in reviewed if d["case"] == name and not found and not d.get("racy")]
    assert not stale, f"{name} no longer differs: remove its row from differences.yaml"


def test_every_difference_has_a_reason_and_a_case():
    names = [p.id for p in load_cases()]
    assert len(names) == len(set(names))
    for row in differences():
        assert row["reason"].strip() and row["paths"], row
        assert any(fnmatch.fnmatchcase(n, row["case"]) for n in names), f"no case {row['case']}"
