"""No field of configuration is passed over in silence: each is read by the code that compiles it, or protos/support.txt
says what becomes of it."""

import json
import pathlib
import re
import subprocess

import pytest
from google.protobuf import descriptor_pb2
from support.config import bootstrap, cluster, hcm, listener, route
from support.proxy import Sluice

ROOT = pathlib.Path(__file__).resolve().parents[2]
GENERATED = ROOT / "build/gen/proto"
RESOURCES = ["envoy.config.bootstrap.v3.Bootstrap", "envoy.config.cluster.v3.Cluster",
             "envoy.config.endpoint.v3.ClusterLoadAssignment", "envoy.config.listener.v3.Listener",
             "envoy.config.route.v3.RouteConfiguration", "envoy.config.route.v3.ScopedRouteConfiguration",
             "envoy.extensions.transport_sockets.tls.v3.Secret"]
# Not configuration, or read by reflection alone.
FOREIGN = ("google.", "xds.", "cel.", "opentelemetry.", "io.prometheus.", "envoy.service.")
SUPPORT = {"refused", "unhonoured", "inert", "told"}


def load_messages():
    """{full name: (descriptor, package)}"""
    found = {}

    def walk(name, message, package):
        found[name] = message, package
        for nested in message.nested_type:
            walk(f"{name}.{nested.name}", nested, package)
    files = descriptor_pb2.FileDescriptorSet.FromString((GENERATED / "descriptors.pb").read_bytes()).file
    for file in files:
        for message in file.message_type:
            walk(f"{file.package}.{message.name}", message, file.package)
    return found


def load_sources():
    return {p: p.read_text() for folder in ("proxy", "filters", "xds") for p in sorted((ROOT / folder).rglob("*.c"))}


def load_support():
    lines = [line.split("#")[0].split() for line in (ROOT / "protos/support.txt").read_text().splitlines()]
    return {(words[1], field): words[0] for words in lines if words for field in words[2:] or ["*"]}


MESSAGES, SOURCES, SUPPORTED = load_messages(), load_sources(), load_support()
SHORT = dict(line.split()[:2] for line in (GENERATED / "names.txt").read_text().splitlines())


def extension_types():
    """The messages of configuration that code names: in typed_config a type is known by its name only."""
    text = "".join(SOURCES.values())
    return sorted({n for n in re.findall(r'"([a-z_]+(?:\.[A-Za-z0-9_]+)+)"', text) if n in MESSAGES} - {"google.protobuf.Any"})


def readers(package):
    """What may read messages of the package: those that see its types."""
    prefix = "".join(part.capitalize() for part in SHORT[package].split("_")) + "__"
    header = f"protos/gen/{SHORT[package]}.pb-c.h"
    return "".join(text for text in SOURCES.values() if header in text or prefix in text)


MEMBER, CASE = re.compile(r"(?:->|\.)(?:n_)?([a-z]\w*)"), re.compile(r"[A-Z]\w*__[A-Z0-9_]+")
READ = {}  # package → the members that its readers name, and the cases of oneofs


def is_read(packages, field):
    """As a member, a count of items, or the case of a oneof."""
    for package in packages:
        if package not in READ:
            text = readers(package)
            READ[package] = set(MEMBER.findall(text)), set(CASE.findall(text))
        members, cases = READ[package]
        if {field, field + "_"} & members or any(c.endswith("_" + field.upper()) for c in cases):
            return True
    return False


def visit(name, packages, found):
    """Adds what is neither read nor named to `found`, in this message and those that it holds."""
    message, package = MESSAGES[name]
    if name in visit.seen or name.startswith(FOREIGN):
        return
    visit.seen.add(name)
    packages = packages | {package}
    for field in message.field:
        if (name, field.name) in SUPPORTED or (name, "*") in SUPPORTED:
            continue
        if not is_read(packages, field.name):
            found.append(f"{name} {field.name}")
        elif field.type_name and field.type_name[1:] in MESSAGES:
            visit(field.type_name[1:], packages, found)


@pytest.mark.smoke
def test_every_field_is_read_or_named():
    found, visit.seen = [], set()
    for name in RESOURCES + extension_types():
        visit(name, frozenset(), found)
    assert len(visit.seen) > 400
    assert not found, "read nowhere: honour them, or name them in protos/support.txt:\n" + "\n".join(found)


def test_what_is_named_is_there():
    for (name, field), word in SUPPORTED.items():
        assert word in SUPPORT
        assert field == "*" or field in [f.name for f in MESSAGES[name][0].field], f"{name} {field}"


def test_told_with_the_path(tmp_path):
    def validate(up):
        manager = hcm([route()], http2_protocol_options={"enable_huffman_encoding": False})
        path = tmp_path / "bootstrap.json"
        path.write_text(json.dumps(bootstrap([listener(manager)], [up])))
        return subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
    said = validate(cluster("up", 1))
    assert said.returncode == 0
    assert "filters[0].typed_config.http2_protocol_options.enable_huffman_encoding: has no effect here" in said.stderr
    up = cluster("up", 1)
    up["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] = {
        "address": "127.0.0.1", "named_port": "http"}
    said = validate(up)
    assert said.returncode == 1
    assert "lb_endpoints[0].endpoint.address.socket_address.named_port: not supported" in said.stderr
