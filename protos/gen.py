#!/usr/bin/env python3
"""Writes the C code of every message Sluice reads or writes.

    gen.py --roots protos/roots.txt --out build/gen

Takes the official descriptors out of the xds-protos modules, adds extra.txt, keeps what roots.txt
reaches, regroups it into one file per proto package and has protoc-c write OUT/protos/gen/NAME.pb-c.{c,h}. Beside them
come registry.c (every message by name, with what protobuf-c drops: maps, json names, sensitivity,
deprecation, and what support.txt says of fields that nothing looks at),
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

    def find(self, name):
        """The DescriptorProto or EnumDescriptorProto of that full name, nested ones too, or None."""
        try:
            top = self.top_of(name)
        except KeyError:
            return None
        found = self.top[top][1]
        for part in name[len(top) + 1:].split(".") if name != top else []:
            inner = getattr(found, "nested_type", ()), getattr(found, "enum_type", ())
            found = next((n for held in inner for n in held if n.name == part), None)
        return found

    def message(self, name):
        found = self.find(name)
        return found if isinstance(found, descriptor_pb2.DescriptorProto) else None


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


class Extra:
    """Reads extra.txt and adds its types and fields to the official ones. The file tells its form itself."""

    def __init__(self, types, path):
        self.types, self.path, self.added = types, path, []
        lines = enumerate(path.read_text().splitlines() if path.exists() else [], 1)
        self.lines = [(n, line) for n, line in lines if line.strip() and not line.startswith("#")]

    def load(self):
        """Types first, fields then: they may refer to types further down."""
        self.each(lambda words: self.add_type(words[1], words[0] == "enum"), None)
        self.each(lambda words: self.open_type(words[1]), self.add_line)
        return self.added

    def each(self, on_type, on_member):
        for number, line in self.lines:
            try:
                if not line.startswith(" "):
                    on_type(line.split())
                elif on_member:
                    on_member(line.strip())
            except (ValueError, IndexError, AttributeError, text_format.ParseError) as e:
                sys.exit(f"{self.path}:{number}: {e or 'not understood'}")

    def add_type(self, full_name, is_enum):
        """A new message or enum: nested when its parent is a message, else top-level."""
        parent_name, _, name = full_name.rpartition(".")
        parent = self.types.message(parent_name)
        cls = descriptor_pb2.EnumDescriptorProto if is_enum else descriptor_pb2.DescriptorProto
        if parent is not None:
            held = parent.enum_type if is_enum else parent.nested_type
            if not any(x.name == name for x in held):
                held.add(name=name)
        elif full_name not in self.types.top:
            self.types.top[full_name] = (parent_name, cls(name=name), is_enum, "proto3")
            self.added.append(full_name)

    def open_type(self, full_name):
        self.current_name, self.current = full_name, self.types.find(full_name)

    def add_line(self, line):
        text, _, rules = line.partition(" rules=")
        words = text.split()
        if isinstance(self.current, descriptor_pb2.EnumDescriptorProto):
            if not any(v.name == words[1] for v in self.current.value):
                self.current.value.add(name=words[1], number=int(words[0]))
        elif words[0] == "required":
            oneof = self.current.oneof_decl[oneof_index(self.current, words[1])]
            oneof.options.Extensions[tables.validate_pb2.required] = True
        else:
            self.add_field(int(words[0]), words[1:], rules)

    def add_field(self, number, words, rules):
        message = self.current
        label = words.pop(0) if words[0] in ("repeated", "optional") else ""
        kind, name, options = words[0], words[1], words[2:]
        for i, f in enumerate(message.field):
            if f.name == name:
                del message.field[i]
                break
        f = message.field.add(name=name, number=number)
        f.label = Field.LABEL_REPEATED if label == "repeated" or kind.startswith("map<") else Field.LABEL_OPTIONAL
        if kind.startswith("map<"):
            kind = self.map_entry(name, *kind[4:-1].split(","))
        self.set_type(f, kind)
        if label == "optional":
            options.append(f"oneof=_{name}")
        for option in options:
            self.set_option(f, option)
        if rules:
            f.options.Extensions[tables.validate_pb2.rules].CopyFrom(
                text_format.Parse(rules, tables.validate_pb2.FieldRules()))

    def set_option(self, f, option):
        if option.startswith("oneof="):
            f.oneof_index = oneof_index(self.current, option[len("oneof="):])
        elif option == "deprecated":
            f.options.deprecated = True
        elif option == "sensitive":
            f.options.Extensions[tables.sensitive_pb2.sensitive] = True
        elif option == "disallowed":
            f.options.Extensions[tables.deprecation_pb2.disallowed_by_default] = True
        else:
            raise ValueError(f"unknown option {option}")

    def map_entry(self, field_name, key, value):
        name = "".join(p.capitalize() for p in field_name.split("_")) + "Entry"
        entry = self.current.nested_type.add(name=name)
        entry.options.map_entry = True
        for number, part, kind in ((1, "key", key), (2, "value", value)):
            f = entry.field.add(name=part, number=number, label=Field.LABEL_OPTIONAL)
            self.set_type(f, kind.strip())
        return f"{self.current_name}.{name}"

    def set_type(self, f, word):
        """A scalar's name, or a message's or enum's full name."""
        if "." not in word:
            f.type = getattr(Field, f"TYPE_{word.upper()}")
            return
        found = self.types.find(word)
        if found is None:
            raise ValueError(f"no type {word}")
        f.type = Field.TYPE_ENUM if isinstance(found, descriptor_pb2.EnumDescriptorProto) else Field.TYPE_MESSAGE
        f.type_name = f".{word}"


def oneof_index(message, name):
    for i, o in enumerate(message.oneof_decl):
        if o.name == name:
            return i
    message.oneof_decl.add(name=name)
    return len(message.oneof_decl) - 1


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
    group_oneofs(proto)
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


def group_oneofs(proto):
    """protoc asks for the members of a oneof in one run; those of extra.txt come last."""
    first = {}
    for i, f in enumerate(proto.field):
        if f.HasField("oneof_index"):
            first.setdefault(f.oneof_index, i)
    place = [first[f.oneof_index] if f.HasField("oneof_index") else i for i, f in enumerate(proto.field)]
    fields = [f for _, f in sorted(zip(place, list(proto.field)), key=lambda pair: pair[0])]
    copies = [Field.FromString(f.SerializeToString()) for f in fields]
    del proto.field[:]
    proto.field.extend(copies)


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
    roots += Extra(types, HERE / "extra.txt").load()
    kept = closure(types, roots)
    files, shorts = regroup(types, kept, aliases)

    generated = args.out / "protos" / "gen"
    shutil.rmtree(generated, ignore_errors=True)
    generated.mkdir(parents=True)
    run_protoc(files, args.out)
    messages = tables.collect(types, kept)
    tables.write_rules(generated, messages)
    support = tables.read_support(HERE / "support.txt", messages)
    tables.write_registry(generated, messages, files, types.top, support)
    names = "".join(f"{package} {shorts[package]}\n" for package in sorted(shorts))
    (args.out / "proto" / "names.txt").write_text(names)
    print(f"gen.py: {len(files)} packages, {len(messages)} messages, "
          f"{sum(len(m.fields) for m in messages)} fields, {sum(len(m.rules) for m in messages)} rules")


if __name__ == "__main__":
    main()
