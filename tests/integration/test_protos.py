"""The generated messages, held against the official descriptors; JSON, YAML and text format against Python's protobuf."""

import base64
import importlib
import json
import math
import os
import pathlib
import random
import subprocess
import sys

import envoy
import pytest
import yaml
from google.protobuf import any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory, text_format
from google.protobuf.descriptor import FieldDescriptor as Field

pytestmark = pytest.mark.smoke

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOL = pathlib.Path(os.environ.get("SLUICE", ROOT / "build/sluice")).parent / "tools/pbtool"
DESCRIPTORS = ROOT / "build/gen/proto/descriptors.pb"
CAPTURED = ROOT.parent / "shared/captured"
# protobuf-c's ProtobufCType, in its order.
C_TYPES = [Field.TYPE_INT32, Field.TYPE_SINT32, Field.TYPE_SFIXED32, Field.TYPE_INT64, Field.TYPE_SINT64,
           Field.TYPE_SFIXED64, Field.TYPE_UINT32, Field.TYPE_FIXED32, Field.TYPE_UINT64, Field.TYPE_FIXED64,
           Field.TYPE_FLOAT, Field.TYPE_DOUBLE, Field.TYPE_BOOL, Field.TYPE_ENUM, Field.TYPE_STRING, Field.TYPE_BYTES,
           Field.TYPE_MESSAGE]
MAP, SENSITIVE, DEPRECATED, DISALLOWED, OPTIONAL = 1, 2, 4, 8, 16
REDACTED_BYTES = base64.b64encode(b"[redacted]").decode()


class Tool:
    """One running pbtool; see tests/tools/pbtool.c for what it takes."""

    def __init__(self):
        self.process = subprocess.Popen([TOOL], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, command, type_name="-", data=b""):
        """Returns (whether it went well, the answer's bytes)."""
        self.process.stdin.write(b"%s %s %d\n" % (command.encode(), type_name.encode(), len(data)) + data)
        self.process.stdin.flush()
        status, length = self.process.stdout.readline().split()
        return status == b"ok", self.process.stdout.read(int(length))

    def get(self, command, type_name="-", data=b""):
        ok, answer = self.ask(command, type_name, data)
        assert ok, f"{command} {type_name}: {answer.decode()}"
        return answer


@pytest.fixture(scope="module")
def tool():
    t = Tool()
    yield t
    t.process.stdin.close()
    assert t.process.wait() == 0


WELL_KNOWN = [any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2]


class Messages:
    """Python classes for all generated messages, made from the same descriptor set."""

    def __init__(self):
        self.pool = descriptor_pool.DescriptorPool()
        files = descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes())
        # json_format knows the well-known types by their official files' names.
        official = {m.DESCRIPTOR.name: m.DESCRIPTOR.serialized_pb for m in WELL_KNOWN}
        for data in official.values():
            self.pool.AddSerializedFile(data)
        for f in files.file:
            if f.package == "google.protobuf":
                continue
            needs = [d for d in f.dependency if d != "protos/gen/pb.proto"]
            f.ClearField("dependency")
            f.dependency.extend(needs + list(official))
            self.pool.Add(f)
        self.names = sorted(name for f in files.file for m in f.message_type for name in self.walk(f.package, m))

    def walk(self, scope, proto):
        name = f"{scope}.{proto.name}"
        if not proto.options.map_entry:
            yield name
        for nested in proto.nested_type:
            yield from self.walk(name, nested)

    def cls(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))

    def to_dict(self, message):
        return json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=self.pool)

    def from_json(self, text, name):
        return json_format.Parse(text, self.cls(name)(), descriptor_pool=self.pool)


@pytest.fixture(scope="module")
def messages():
    return Messages()


# --- the tables against the official descriptors ---


def dumped_fields(tool):
    """{message: {field name: (number, is_repeated, type, oneof id, sub-type, flags, json name)}}"""
    out, current = {}, None
    for line in tool.get("fields").decode().splitlines():
        kind, *words = line.split(" ")
        if kind == "message":
            current = out[words[0]] = {}
        else:
            name, number, repeated, c_type, oneof, of, flags, json_name = words
            current[name] = (int(number), repeated == "1", C_TYPES[int(c_type)], int(oneof), of, int(flags), json_name)
    return out


def official_pool():
    """xds-protos' own pool, with every package that we have too."""
    site = pathlib.Path(envoy.__path__[0]).parent
    for line in (ROOT / "build/gen/proto/names.txt").read_text().splitlines():
        package = line.split()[0]
        for f in sorted((site / package.replace(".", "/")).glob("*_pb2.py")):
            importlib.import_module(f"{package}.{f.stem}")
    return descriptor_pool.Default()


def extra_lines():
    """{message: names of fields} of extra.txt."""
    out, current = {}, set()
    for line in (ROOT / "protos/extra.txt").read_text().splitlines():
        words = line.partition(" rules=")[0].split()
        if line.startswith("message "):
            current = out.setdefault(words[1], set())
        elif line.startswith("enum "):
            current = set()
        elif line.startswith("  ") and words[0] != "required":
            rest = words[2:] if words[1] in ("repeated", "optional") else words[1:]
            current.update(rest[1:2])
    return out


def check_field(got, f):
    number, repeated, c_type, oneof, of, flags, json_name = got
    assert number == f.number
    assert repeated == f.is_repeated
    assert c_type == f.type
    assert bool(oneof) == (f.containing_oneof is not None)
    sub = f.message_type or f.enum_type
    assert of == (sub.full_name if sub else "-")
    assert bool(flags & MAP) == bool(f.message_type and f.message_type.GetOptions().map_entry)
    assert bool(flags & DEPRECATED) == f.GetOptions().deprecated
    synthetic = f.containing_oneof is not None and f.containing_oneof.name == "_" + f.name
    assert bool(flags & OPTIONAL) == synthetic
    camel = "".join(p if i == 0 else p[:1].upper() + p[1:] for i, p in enumerate(f.name.split("_")))
    assert f.json_name == camel and json_name in ("-", camel)


def test_every_field_is_as_the_official_descriptors_say(tool):
    dump, pool, extra = dumped_fields(tool), official_pool(), extra_lines()
    checked = 0
    for name, fields in dump.items():
        try:
            official = pool.FindMessageTypeByName(name)
        except KeyError:
            owner = name if name in extra else name.rpartition(".")[0]
            assert owner in extra, f"{name} is neither official nor in extra.txt"
            continue
        replaced = extra.get(name, set())
        for f in official.fields:
            if f.name not in replaced:
                check_field(fields[f.name], f)
                checked += 1
        assert set(fields) - {f.name for f in official.fields} <= replaced
    assert checked > 3000


def test_oneofs_have_the_same_members(tool, messages):
    dump = dumped_fields(tool)
    for name in messages.names:
        groups = {}
        for field, got in dump[name].items():
            if got[3]:
                groups.setdefault(got[3], set()).add(field)
        official = {frozenset(f.name for f in o.fields) for o in messages.pool.FindMessageTypeByName(name).oneofs}
        assert {frozenset(g) for g in groups.values()} == official, name


def test_generation_is_deterministic(tmp_path):
    subprocess.run([sys.executable, ROOT / "protos/gen.py", "--roots", ROOT / "protos/roots.txt", "--out", tmp_path],
                   check=True, env=os.environ | {"PYTHONHASHSEED": "1"})
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(made) > 500
    for name in made:
        assert (tmp_path / name).read_bytes() == (ROOT / "build/gen" / name).read_bytes(), name


def test_sensitive_fields_are_marked(tool):
    dump = dumped_fields(tool)
    tls = dump["envoy.extensions.transport_sockets.tls.v3.TlsCertificate"]
    assert tls["private_key"][5] & SENSITIVE and not tls["certificate_chain"][5] & SENSITIVE
    assert dump["envoy.extensions.transport_sockets.tls.v3.GenericSecret"]["secret"][5] & SENSITIVE


# --- random messages ---


class Random:
    """Fills messages with values that JSON can say."""

    STRINGS = ["", "a", "Grüße", "日本", "😀", "with \"quotes\" and \\", "tab\tnew\nline", "/* x */", "<&>\u2028"]

    def __init__(self, seed, messages):
        self.r, self.messages = random.Random(seed), messages

    def fill(self, m, depth):
        name = m.DESCRIPTOR.full_name
        special = getattr(self, "fill_" + name.rpartition(".")[2].lower(), None) if name.startswith("google.protobuf.") \
            else None
        if special:
            special(m, depth)
            return
        chosen = {self.r.choice(o.fields) for o in m.DESCRIPTOR.oneofs if self.r.random() < 0.9}
        for f in m.DESCRIPTOR.fields:
            if f.containing_oneof is not None and f not in chosen:
                continue
            if depth > 3 and f.message_type or self.r.random() < (0.4 if depth else 0.2):
                continue
            self.set_field(m, f, depth)

    def set_field(self, m, f, depth):
        if f.message_type and f.message_type.GetOptions().map_entry:
            for _ in range(self.r.randint(0, 2)):
                self.set_entry(getattr(m, f.name), f.message_type, depth)
        elif f.is_repeated:
            for _ in range(self.r.randint(0, 3)):
                if f.message_type:
                    self.fill(getattr(m, f.name).add(), depth + 1)
                else:
                    getattr(m, f.name).append(self.scalar(f))
        elif f.message_type:
            getattr(m, f.name).SetInParent()
            self.fill(getattr(m, f.name), depth + 1)
        else:
            setattr(m, f.name, self.scalar(f))

    def set_entry(self, mapping, entry, depth):
        key, value = entry.fields_by_name["key"], entry.fields_by_name["value"]
        k = self.scalar(key)
        if value.message_type:
            self.fill(mapping[k], depth + 1)
        else:
            mapping[k] = self.scalar(value)

    def scalar(self, f):
        bits = 64 if f.cpp_type in (Field.CPPTYPE_INT64, Field.CPPTYPE_UINT64) else 32
        if f.cpp_type in (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64):
            return self.r.choice([0, 1, -1, 2 ** (bits - 1) - 1, -2 ** (bits - 1), self.r.getrandbits(bits - 1)])
        if f.cpp_type in (Field.CPPTYPE_UINT32, Field.CPPTYPE_UINT64):
            return self.r.choice([0, 1, 2 ** bits - 1, self.r.getrandbits(bits)])
        if f.cpp_type == Field.CPPTYPE_BOOL:
            return self.r.random() < 0.5
        if f.cpp_type == Field.CPPTYPE_ENUM:
            return self.r.choice([v.number for v in f.enum_type.values])
        if f.type == Field.TYPE_BYTES:
            return self.r.randbytes(self.r.randint(0, 9))
        if f.type == Field.TYPE_STRING:
            return self.r.choice(self.STRINGS)
        reals = [0.0, 1.0, 0.1, -2.5, 1e20, 1e-7, self.r.random() * 1e6]
        if f.cpp_type == Field.CPPTYPE_DOUBLE:
            return self.r.choice(reals + [math.inf, -math.inf, 1.7976931348623157e308, 5e-324])
        return self.r.choice(reals + [math.inf, 3.4e38])

    def fill_duration(self, m, _):
        sign = self.r.choice([1, -1])
        m.seconds = sign * self.r.choice([0, 1, 90, 315576000000])
        m.nanos = 0 if abs(m.seconds) == 315576000000 else sign * self.r.choice([0, 1, 500000000, 1000000, 1000, 999999999])

    def fill_timestamp(self, m, _):
        m.seconds = self.r.choice([0, -62135596800, 253402300799, 951782400, -1, self.r.randint(-10**10, 10**10)])
        m.nanos = self.r.choice([0, 1, 500000000, 123000000, 123456000, 999999999])

    def fill_fieldmask(self, m, _):
        m.paths.extend(self.r.sample(["a", "foo_bar", "a.b_c.d", "x1"], self.r.randint(0, 3)))

    def fill_any(self, m, depth):
        name = self.r.choice(["envoy.config.core.v3.Locality", "google.protobuf.Duration", "google.protobuf.StringValue",
                              "google.protobuf.Struct", "xds.type.v3.TypedStruct", "envoy.config.core.v3.Metadata"])
        inner = self.messages.cls(name)()
        self.fill(inner, depth + 1)
        m.Pack(inner)

    def fill_value(self, m, depth):
        kind = self.r.choice(["null", "number", "string", "bool"] + (["struct", "list"] if depth < 4 else []))
        if kind == "null":
            m.null_value = 0
        elif kind == "number":
            m.number_value = self.r.choice([0.0, 1.0, -1.5, 1e300, 12345678901.0])
        elif kind == "string":
            m.string_value = self.r.choice(self.STRINGS)
        elif kind == "bool":
            m.bool_value = self.r.random() < 0.5
        else:
            inner = getattr(m, kind + "_value")
            inner.SetInParent()
            self.fill(inner, depth + 1)


def random_messages(messages, seed, count):
    for name in messages.names:
        for i in range(count):
            m = messages.cls(name)()
            Random(f"{seed}-{name}-{i}", messages).fill(m, 0)
            yield name, m


def test_json_of_random_messages_is_what_python_writes(tool, messages):
    for name, m in random_messages(messages, "write", 3):
        got = json.loads(tool.get("pb2json", name, m.SerializeToString()))
        assert got == messages.to_dict(m), name


def test_messages_of_random_json_are_what_python_reads(tool, messages):
    for i, (name, m) in enumerate(random_messages(messages, "read", 3)):
        text = json_format.MessageToJson(m, preserving_proto_field_name=i % 2 == 0, descriptor_pool=messages.pool)
        back = messages.cls(name).FromString(tool.get("json2pb", name, text.encode()))
        assert messages.to_dict(back) == messages.to_dict(messages.from_json(text, name)), name


def test_text_format_of_random_messages(tool, messages):
    for name, m in random_messages(messages, "text", 2):
        text = text_format.MessageToString(m, descriptor_pool=messages.pool, as_utf8=True)
        back = messages.cls(name).FromString(tool.get("text2pb", name, text.encode()))
        assert messages.to_dict(back) == messages.to_dict(m), name


def test_defaults_are_written_on_demand(tool, messages):
    for name, m in random_messages(messages, "defaults", 1):
        if name.startswith("google.protobuf."):
            continue
        m = messages.cls(name)()
        got = json.loads(tool.get("pb2json-defaults", name, m.SerializeToString()))
        want = json_format.MessageToDict(m, preserving_proto_field_name=True, descriptor_pool=messages.pool,
                                         always_print_fields_with_no_presence=True)
        assert got == want, name


# --- what real control planes send ---


def captured(*patterns):
    return [pytest.param(p, id=p.name) for pattern in patterns for p in sorted(CAPTURED.glob(pattern))] or \
        [pytest.param(None, marks=pytest.mark.skip("no captures beside the repository"))]


def resources(path):
    """(message name, JSON) of all in a captured file."""
    for url, named in json.loads(path.read_text())["resources"].items():
        for body in named.values() if isinstance(named, dict) else named:
            yield url.partition("/")[2], body


@pytest.mark.parametrize("path", captured("*.json"))
def test_captured_resources(tool, messages, path):
    found = 0
    for name, body in resources(path):
        if name not in messages.names:
            assert name == "istio.networking.nds.v1.NameTable"
            continue
        m = messages.from_json(json.dumps(body), name)
        back = messages.cls(name).FromString(tool.get("json2pb", name, json.dumps(body).encode()))
        assert messages.to_dict(back) == messages.to_dict(m)
        assert json.loads(tool.get("pb2json", name, m.SerializeToString())) == messages.to_dict(m)
        assert tool.ask("rules", name, m.SerializeToString()) == (True, b"")
        assert tool.ask("unknown", name, m.SerializeToString()) == (True, b"")
        found += 1
    assert found


BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"


@pytest.mark.parametrize("path", captured("agent/*.bootstrap.json"))
def test_captured_bootstraps(tool, messages, path):
    text = path.read_text()
    m = messages.from_json(text, BOOTSTRAP)
    assert messages.cls(BOOTSTRAP).FromString(tool.get("json2pb", BOOTSTRAP, text.encode())) == m
    assert json.loads(tool.get("pb2json", BOOTSTRAP, m.SerializeToString())) == messages.to_dict(m)
    assert tool.ask("rules", BOOTSTRAP, m.SerializeToString()) == (True, b"")
    as_yaml = yaml.safe_dump(json.loads(text), sort_keys=False)
    assert messages.cls(BOOTSTRAP).FromString(tool.get("yaml2pb", BOOTSTRAP, as_yaml.encode())) == m


# --- hostile wire bytes ---


def test_cut_and_changed_bytes_never_crash(tool, messages):
    r = random.Random(7)
    for name, m in random_messages(messages, "fuzz", 1):
        data = bytearray(m.SerializeToString())
        for _ in range(3 if data else 0):
            changed = bytearray(data[:r.randint(1, len(data))])
            for _ in range(r.randint(1, 3)):
                changed[r.randrange(len(changed))] = r.randrange(256)
            tool.ask("pb2json-redacted", name, bytes(changed))
            tool.ask("rules", name, bytes(changed))


def test_secrets_do_not_show(tool, messages):
    name = "envoy.extensions.transport_sockets.tls.v3.Secret"
    m = messages.cls(name)()
    m.tls_certificate.private_key.inline_bytes = b"hush"
    m.tls_certificate.password.inline_string = "hush"
    m.tls_certificate.certificate_chain.filename = "chain.pem"
    got = json.loads(tool.get("pb2json-redacted", name, m.SerializeToString()))["tls_certificate"]
    assert got == {"private_key": {"inline_bytes": REDACTED_BYTES}, "password": {"inline_string": "[redacted]"},
                   "certificate_chain": {"filename": "chain.pem"}}
