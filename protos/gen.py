#!/usr/bin/env python3
"""Writes the C code of every message Sluice reads or writes.

    gen.py --roots protos/roots.txt --out build/gen

Takes the official descriptors out of the xds-protos modules, adds extra/*.proto and extra.txt, keeps what roots.txt
reaches, regroups it into one file per proto package and has protoc-c write OUT/protos/gen/NAME.pb-c.{c,h}. Beside them
come registry.{c,h} (every message by name, with what protobuf-c drops: maps, json names, sensitivity, deprecation),
rules.c (the validate.rules of every field) and OUT/proto/descriptors.pb (the same set, for tests and tools).
How the C names are made: protos/README.md. The output depends on the inputs only, byte for byte.
"""

import argparse
import importlib
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import tables  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
DROPPED_PARTS = {"envoy", "config", "extensions", "filters"}
SHORT_PARTS = {"load_balancing_policies": "lb", "transport_sockets": "transport"}
FILE_OPTIONS_TAG = MESSAGE_OPTIONS_TAG = 1019  # protobuf-c.proto: pb_c_file, pb_c_msg


def parse_roots(path):
    """Returns (packages or messages, {package: short name})."""
    roots, aliases = [], {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "alias" and len(words) == 3:
            aliases[words[1]] = words[2]
        elif len(words) == 1:
            roots.append(words[0])
        else:
            sys.exit(f"{path}:{number}: expected a package, a message or 'alias PACKAGE NAME'")
    return roots, aliases


class Types:
    """Top-level messages and enums of all loaded descriptors, by full name."""

    def __init__(self):
        self.top = {}  # full name → (package, proto, is_enum)
        self.files = set()

    def add_file(self, proto):
        if proto.name in self.files:
            return
        self.files.add(proto.name)
        for kind, protos in ((False, proto.message_type), (True, proto.enum_type)):
            for p in protos:
                self.top[f"{proto.package}.{p.name}"] = (proto.package, p, kind, proto.syntax)

    def top_of(self, name):
        """The top-level type that holds `name`."""
        while name and name not in self.top:
            name = name.rpartition(".")[0]
        if not name:
            raise KeyError
        return name

    def message(self, name):
        """The DescriptorProto of a message, nested ones too, or None."""
        try:
            top = self.top_of(name)
        except KeyError:
            return None
        found = self.top[top][1]
        for part in name[len(top) + 1:].split(".") if name != top else []:
            found = next((n for n in found.nested_type if n.name == part), None)
            if found is None:
                return None
        return found


def load_official(types, roots):
    """Imports the modules of the packages named and adds their files, dependencies first."""
    def add(descriptor):
        for dep in descriptor.dependencies:
            add(dep)
        if descriptor.name not in types.files:
            proto = descriptor_pb2.FileDescriptorProto()
            proto.ParseFromString(descriptor.serialized_pb)
            types.add_file(proto)

    site = {pathlib.Path(p) for p in sys.path if p}
    for package in sorted({re.sub(r"\.[A-Z].*", "", r) for r in roots}):
        folder = package.replace(".", "/")
        stems = sorted({f.stem for base in site for f in (base / folder).glob("*_pb2.py")})
        for stem in stems:
            add(importlib.import_module(f"{package}.{stem}").DESCRIPTOR)


def load_extra_protos(types, folder):
    """Our own .proto files: types that xds-protos does not have."""
    sources = sorted(str(p.relative_to(folder)) for p in folder.glob("*.proto"))
    if not sources:
        return []
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc-c", f"-I{folder}", f"--descriptor_set_out={out.name}", *sources], check=True)
        found = descriptor_pb2.FileDescriptorSet.FromString(out.read())
    for f in found.file:
        types.add_file(f)
    return [f"{f.package}.{m.name}" for f in found.file for m in f.message_type]


def scalar_type(types, word):
    """Field type and type_name of a word in extra.txt."""
    scalar = getattr(Field, f"TYPE_{word.upper()}", None) if "." not in word else None
    if scalar is not None:
        return scalar, ""
    if types.message(word):
        return Field.TYPE_MESSAGE, f".{word}"
    return Field.TYPE_ENUM, f".{word}"


def patch_field(types, words, rules_text):
    """field MESSAGE NUMBER [repeated] TYPE NAME [oneof=NAME] [optional]: skipped where the official set has it."""
    message = types.message(words[0])
    if message is None:
        raise ValueError(f"no message {words[0]}")
    number, rest = int(words[1]), words[2:]
    label = Field.LABEL_OPTIONAL
    if rest[0] == "repeated":
        label, rest = Field.LABEL_REPEATED, rest[1:]
    kind, name, options = rest[0], rest[1], rest[2:]
    known = next((f for f in message.field if f.name == name), None)
    if known:
        if known.number != number:
            raise ValueError(f"{words[0]}.{name} is number {known.number} officially")
        return
    f = message.field.add(name=name, number=number, label=label)
    f.type, f.type_name = scalar_type(types, kind)
    for option in options:
        if option.startswith("oneof="):
            f.oneof_index = oneof_index(message, option[6:])
        elif option == "optional":
            f.oneof_index = oneof_index(message, "_" + name)
        else:
            raise ValueError(f"unknown option {option}")
    if rules_text:
        f.options.Extensions[tables.validate_pb2.rules].CopyFrom(
            text_format.Parse(rules_text, tables.validate_pb2.FieldRules()))


def oneof_index(message, name):
    for i, o in enumerate(message.oneof_decl):
        if o.name == name:
            return i
    message.oneof_decl.add(name=name)
    return len(message.oneof_decl) - 1


def add_type(types, full_name, is_enum):
    """A new message or enum: nested when its parent is a message, else top-level."""
    parent_name, _, name = full_name.rpartition(".")
    parent = types.message(parent_name)
    cls = descriptor_pb2.EnumDescriptorProto if is_enum else descriptor_pb2.DescriptorProto
    held = (parent.enum_type if is_enum else parent.nested_type) if parent else None
    if held is not None:
        return next((x for x in held if x.name == name), None) or held.add(name=name)
    if full_name not in types.top:
        types.top[full_name] = (parent_name, cls(name=name), is_enum, "proto3")
    return types.top[full_name][1]


def load_patches(types, path):
    """extra.txt: fields, messages and enum values newer than the official set. Two passes: types, then fields."""
    if not path.exists():
        return
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text, _, rules = line.partition(" rules=")
        words = text.split("#")[0].split()
        if words:
            lines.append((number, words, rules))
    for _, words, _ in lines:
        if words[0] == "message":
            add_type(types, words[1], False)
        elif words[0] == "enum":
            enum = add_type(types, words[1], True)
            have = {v.name for v in enum.value}
            for pair in words[2:]:
                name, _, value = pair.partition("=")
                if name not in have:
                    enum.value.add(name=name, number=int(value))
    for number, words, rules in lines:
        try:
            if words[0] == "field":
                patch_field(types, words[1:], rules)
            elif words[0] not in ("message", "enum"):
                raise ValueError(f"unknown word {words[0]}")
        except (ValueError, IndexError, text_format.ParseError) as e:
            sys.exit(f"{path}:{number}: {e}")


def references(proto):
    """Full names of the types a message's fields refer to, nested messages included."""
    for f in proto.field:
        if f.type_name:
            yield f.type_name[1:]
    for nested in proto.nested_type:
        yield from references(nested)


def closure(types, roots):
    """Top-level types reached from the roots."""
    packages = {package for package, *_ in types.top.values()}
    queue = []
    for root in roots:
        if root in packages:
            queue += [name for name, entry in types.top.items() if entry[0] == root]
        elif root in types.top:
            queue.append(root)
        else:
            sys.exit(f"gen.py: root {root}: no such package or message")
    kept = set()
    while queue:
        name = queue.pop()
        if name in kept:
            continue
        kept.add(name)
        _, proto, is_enum, syntax = types.top[name]
        if syntax != "proto3":
            sys.exit(f"gen.py: {name} is {syntax or 'proto2'}: only proto3 is handled")
        if not is_enum:
            queue += [types.top_of(r) for r in references(proto)]
    return kept


def short_name(package, aliases):
    if package in aliases:
        return aliases[package]
    parts = [p for p in package.split(".") if p not in DROPPED_PARTS and not re.fullmatch(r"v\d+\w*", p)]
    return "_".join(SHORT_PARTS.get(p, p) for p in parts)


def options_bytes(tag, payload):
    """An extension field of an options message, as protobuf-c.proto numbers it."""
    key = tag << 3 | 2
    return bytes([key & 0x7F | 0x80, key >> 7, len(payload)]) + payload


def strip(proto):
    """Only what matters for C: no options, no ranges, no proto3_optional (its oneof stays)."""
    is_map = proto.options.map_entry
    proto.ClearField("options")
    if is_map:
        proto.options.map_entry = True
    for what in ("extension", "extension_range", "reserved_range", "reserved_name"):
        proto.ClearField(what)
    names = {o.name for o in proto.oneof_decl}
    for f in proto.field:
        packed = f.options.packed
        f.ClearField("options")
        if packed:
            f.options.packed = True
        f.ClearField("proto3_optional")
        f.ClearField("json_name")
        if f.name == "base":
            proto.options.MergeFromString(options_bytes(MESSAGE_OPTIONS_TAG, b"\x1a\x05base_"))
    for o in proto.oneof_decl:
        o.ClearField("options")
    if len(names) != len(proto.oneof_decl):
        sys.exit(f"gen.py: {proto.name}: two oneofs of one name")
    for e in proto.enum_type:
        strip_enum(e)
    for nested in proto.nested_type:
        strip(nested)


def strip_enum(proto):
    allow_alias = proto.options.allow_alias
    proto.ClearField("options")
    if allow_alias:
        proto.options.allow_alias = True
    proto.ClearField("reserved_range")
    proto.ClearField("reserved_name")
    for v in proto.value:
        v.ClearField("options")


def regroup(types, kept, aliases):
    """One FileDescriptorProto per package, dependencies first."""
    packages = {}
    for name in sorted(kept):
        packages.setdefault(types.top[name][0], []).append(name)
    shorts = {p: short_name(p, aliases) for p in packages}
    if len(set(shorts.values())) != len(shorts):
        clash = sorted(p for p in shorts if list(shorts.values()).count(shorts[p]) > 1)
        sys.exit(f"gen.py: short names clash, alias them: {clash}")
    files = {}
    for package, names in packages.items():
        f = descriptor_pb2.FileDescriptorProto(
            name=f"protos/gen/{shorts[package]}.proto", package=package, syntax="proto3")
        needs = set()
        for name in names:
            _, proto, is_enum, _ = types.top[name]
            if is_enum:
                f.enum_type.add().CopyFrom(proto)
                strip_enum(f.enum_type[-1])
            else:
                f.message_type.add().CopyFrom(proto)
                strip(f.message_type[-1])
                needs |= {types.top[types.top_of(r)][0] for r in references(proto)}
        f.dependency.extend(sorted(f"protos/gen/{shorts[p]}.proto" for p in needs - {package}))
        # gen_pack_helpers=false (the generic functions on descriptors do it), const_strings=true, c_package.
        # gen_init_helpers stays: without it protobuf-c's unpack crashes on a oneof of a string and a message.
        short = shorts[package].encode()
        f.options.MergeFromString(options_bytes(
            FILE_OPTIONS_TAG, b"\x10\x00\x20\x01\x32" + bytes([len(short)]) + short))
        files[f.name] = f
    return in_order(files), shorts


def in_order(files):
    done, busy, out = set(), [], []

    def visit(name):
        if name in done:
            return
        if name in busy:
            sys.exit(f"gen.py: packages refer to each other in a cycle: {busy[busy.index(name):]}")
        busy.append(name)
        for dep in files[name].dependency:
            visit(dep)
        busy.pop()
        done.add(name)
        out.append(files[name])

    for name in sorted(files):
        visit(name)
    return out


def run_protoc(files, out):
    """protoc-c on all files at once."""
    (out / "proto").mkdir(parents=True, exist_ok=True)
    descriptors = out / "proto" / "descriptors.pb"
    descriptors.write_bytes(descriptor_pb2.FileDescriptorSet(file=files).SerializeToString(deterministic=True))
    command = ["protoc-c", f"--descriptor_set_in={descriptors}", f"--c_out={out}", *[f.name for f in files]]
    if subprocess.run(command).returncode != 0:
        sys.exit("gen.py: protoc-c failed")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--roots", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args()

    roots, aliases = parse_roots(args.roots)
    types = Types()
    load_official(types, roots)
    roots += load_extra_protos(types, HERE / "extra")
    load_patches(types, HERE / "extra.txt")
    kept = closure(types, roots)
    files, shorts = regroup(types, kept, aliases)

    generated = args.out / "protos" / "gen"
    shutil.rmtree(generated, ignore_errors=True)
    generated.mkdir(parents=True)
    run_protoc(files, args.out)
    messages = tables.collect(types, kept)
    tables.write_rules(generated, messages)
    tables.write_registry(generated, messages, files, types.top)
    names = "".join(f"{package} {shorts[package]}\n" for package in sorted(shorts))
    (args.out / "proto" / "names.txt").write_text(names)
    print(f"gen.py: {len(files)} packages, {len(messages)} messages, "
          f"{sum(len(m.fields) for m in messages)} fields, {sum(len(m.rules) for m in messages)} rules")


if __name__ == "__main__":
    main()
