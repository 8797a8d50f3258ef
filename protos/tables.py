"""The generated tables beside protoc-c's output: registry.c and rules.c (see protos/proto_type.h for their types)."""

import re

from envoy.annotations import deprecation_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from udpa.annotations import sensitive_pb2
from validate import validate_pb2

KINDS = {
    "google.protobuf.Any": "ANY",
    "google.protobuf.Duration": "DURATION",
    "google.protobuf.Timestamp": "TIMESTAMP",
    "google.protobuf.FieldMask": "FIELD_MASK",
    "google.protobuf.Struct": "STRUCT",
    "google.protobuf.Value": "VALUE",
    "google.protobuf.ListValue": "LIST_VALUE",
    "udpa.type.v1.TypedStruct": "TYPED_STRUCT",
    "xds.type.v3.TypedStruct": "TYPED_STRUCT",
    **{f"google.protobuf.{t}Value": "WRAPPER"
       for t in "Bool Int32 Int64 UInt32 UInt64 Float Double String Bytes".split()},
}
NUMERIC = "double float int32 int64 uint32 uint64 sint32 sint64 fixed32 fixed64 sfixed32 sfixed64".split()
# What pb_rules.c checks; a rule of another name stops the generator.
OPS = set("""oneof_required required skip ignore_empty const lt lte gt gte in not_in defined_only min_len max_len max_bytes
    pattern prefix suffix http_header_name http_header_name_strict http_header_value http_header_value_strict
    min_items max_items unique min_pairs max_pairs""".upper().split())
SIGNED = {"int32", "int64", "sint32", "sint64", "sfixed32", "sfixed64"}


class Message:
    """One row of the registry. Fields are in order of number, as protobuf-c's descriptors have them."""

    def __init__(self, name, package, proto):
        self.name, self.package, self.proto = name, package, proto
        self.fields = sorted(proto.field, key=lambda f: f.number)
        self.rules = []


def collect(types, kept):
    """All kept messages, nested ones and map entries too, sorted by name; with their rules."""
    out = []

    def walk(name, package, proto):
        out.append(Message(name, package, proto))
        for nested in proto.nested_type:
            walk(f"{name}.{nested.name}", package, nested)

    for name in sorted(kept):
        package, proto, is_enum, _ = types.top[name]
        if not is_enum:
            walk(name, package, proto)
    out.sort(key=lambda m: m.name.encode())
    for m in out:
        m.rules = message_rules(m)
    return out


def c_string(s):
    return '"' + "".join(c if c.isprintable() and c not in '"\\' and ord(c) < 128 else
                         "".join(f"\\{b:03o}" for b in c.encode()) for c in s) + '"'


def camel_to_lower(s):
    return re.sub(r"(?<=[^A-Z_.])([A-Z])", r"_\1", s).lower()


def c_lower(files):
    """Function from a full proto name to protobuf-c's lower-case C name."""
    short = {f.package: f.name.rpartition("/")[2][:-len(".proto")] for f in files}

    def name(full, package):
        rest = full[len(package) + 1:].split(".")
        return "__".join([short[package]] + [camel_to_lower(p) for p in rest])
    return name


def json_name(name):
    return re.sub(r"_(.)", lambda m: m.group(1).upper(), name)


def json_name_is_reversible(name):
    return re.sub(r"[A-Z]", lambda m: "_" + m.group().lower(), json_name(name)) == name


def is_optional(message, f):
    return f.HasField("oneof_index") and message.oneof_decl[f.oneof_index].name == "_" + f.name


FLAGGED = {"refused": "REFUSED", "unhonoured": "UNHONOURED"}
SUPPORT = {*FLAGGED, "inert", "told"}


def read_support(path, messages):
    """{(message, field): word} of support.txt; a line without fields stands for all of the message."""
    fields, out = {m.name: [f.name for f in m.fields] for m in messages}, {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        word, message, named = words[0], words[1], words[2:] or fields.get(words[1], [])
        if word not in SUPPORT or not set(named) <= set(fields.get(message, [])) or not named:
            raise SystemExit(f"{path}:{number}: no such word, message or field")
        for field in named:
            if out.setdefault((message, field), word) != word:
                raise SystemExit(f"{path}:{number}: {field} is named twice")
    return out


def field_flags(m, f, map_entries, marked_enums, support):
    flags = []
    if f.type == Field.TYPE_MESSAGE and f.type_name[1:] in map_entries:
        flags.append("MAP")
    if f.options.Extensions[sensitive_pb2.sensitive]:
        flags.append("SENSITIVE")
    if f.options.deprecated:
        flags.append("DEPRECATED")
    if f.options.Extensions[deprecation_pb2.disallowed_by_default]:
        flags.append("DISALLOWED")
    if is_optional(m.proto, f):
        flags.append("OPTIONAL")
    if f.type == Field.TYPE_ENUM and f.type_name[1:] in marked_enums:
        flags.append("MARKED_ENUM")
    word = support.get((m.name, f.name))
    if word in FLAGGED:
        flags.append(FLAGGED[word])
    return flags


def marked_enum_values(files_types):
    """{enum full name: [(number, flags)]} of deprecated and disallowed values."""
    out = {}
    for name, enum in files_types:
        for v in enum.value:
            flags = []
            if v.options.deprecated:
                flags.append("DEPRECATED")
            if v.options.Extensions[deprecation_pb2.disallowed_by_default_enum]:
                flags.append("DISALLOWED")
            if flags:
                out.setdefault(name, []).append((v.number, flags))
    return out


def types_with_rules(messages):
    """Names of messages that have rules or hold messages that do."""
    users, queue, found = {}, [m.name for m in messages if m.rules], set()
    for m in messages:
        for f in m.fields:
            if f.type == Field.TYPE_MESSAGE:
                users.setdefault(f.type_name[1:], []).append(m.name)
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue += users.get(name, [])
    return found


def all_enums(messages, files, types_top):
    for f in files:
        for e in f.enum_type:
            yield f"{f.package}.{e.name}", types_top[f"{f.package}.{e.name}"][1], f.package
    for m in messages:
        for e in m.proto.enum_type:
            yield f"{m.name}.{e.name}", e, m.package


def write_registry(folder, messages, files, types_top, support):
    lower = c_lower(files)
    index = {m.name: i for i, m in enumerate(messages)}
    map_entries = {m.name for m in messages if m.proto.options.map_entry}
    enums = {name: (enum, package) for name, enum, package in all_enums(messages, files, types_top)}
    checked = types_with_rules(messages)
    marked = marked_enum_values((name, e) for name, (e, _) in enums.items())
    lines = ["/* Made by protos/gen.py. */", '#include "protos/proto_type.h"', ""]
    lines += [f'#include "{f.name[:-len(".proto")]}.pb-c.h"' for f in sorted(files, key=lambda f: f.name)]
    lines.append("")
    rows, first = [], 0
    for i, m in enumerate(messages):
        if m.fields:
            lines.append(f"static const struct proto_field f{i}[] = {{")
            for f in m.fields:
                flags = " | ".join(f"PROTO_FIELD_{x}" for x in field_flags(m, f, map_entries, marked, support)) or "0"
                sub = index[f.type_name[1:]] if f.type == Field.TYPE_MESSAGE else -1
                name = "NULL" if json_name_is_reversible(f.name) else c_string(json_name(f.name))
                lines.append(f"    {{{name}, {sub}, {flags}}}, /* {f.name} */")
            lines.append("};")
        flags = " | ".join(f"PROTO_TYPE_{x}" for x, on in (
            ("MAP_ENTRY", m.proto.options.map_entry), ("DEPRECATED", m.proto.options.deprecated),
            ("CHECKED", m.name in checked)) if on) or "0"
        rows.append(f"    {{{c_string(m.name)}, &{lower(m.name, m.package)}__descriptor, {f'f{i}' if m.fields else 'NULL'}, "
                    f"proto_rules + {first}, {len(m.rules)}, PROTO_KIND_{KINDS.get(m.name, 'PLAIN')}, {flags}}},")
        first += len(m.rules)
    lines += ["const struct proto_type proto_types[] = {", *rows, "};",
              f"const size_t proto_types_n = {len(messages)};", "",
              "const struct proto_enum_value proto_enum_values[] = {"]
    for name in sorted(marked):
        for number, flags in marked[name]:
            text = " | ".join(f"PROTO_FIELD_{x}" for x in flags)
            lines.append(f"    {{&{lower(name, enums[name][1])}__descriptor, {number}, {text}}},")
    lines += ["};", f"const size_t proto_enum_values_n = {sum(map(len, marked.values()))};", ""]
    (folder / "registry.c").write_text("\n".join(lines))


SCOPES = ["FIELD", "ITEM", "KEY", "VALUE"]


class Rule:
    def __init__(self, field, scope, op, value="{0}", n=0):
        self.field, self.scope, self.op, self.value, self.n = field, scope, op, value, n


class Lists:
    """Value lists of in/not_in rules, and the numbering of patterns."""

    def __init__(self):
        self.lines, self.patterns = [], 0


def message_rules(m):
    out = []
    for i, o in enumerate(m.proto.oneof_decl):
        if o.options.Extensions[validate_pb2.required]:
            first = min((f.number, k) for k, f in enumerate(m.fields)
                        if f.HasField("oneof_index") and f.oneof_index == i)[1]
            out.append(("oneof", first, "FIELD", o.name))
    for k, f in enumerate(m.fields):
        rules = f.options.Extensions[validate_pb2.rules]
        if rules.ByteSize():
            out += [("rule", k, "FIELD", r) for r in flat(rules)]
        # Rules for an Any on a field that is none: Envoy's validator then does not look into the message.
        if rules.WhichOneof("type") == "any" and f.type_name != ".google.protobuf.Any":
            out.append(("rule", k, "FIELD", ("message", validate_pb2.MessageRules(skip=True))))
    return [x for entry in out for x in ([entry] if entry[0] == "oneof" else spread(entry))]


def flat(rules):
    """(kind, rules message) of one FieldRules."""
    if rules.HasField("message"):
        yield "message", rules.message
    which = rules.WhichOneof("type")
    if which:
        yield which, getattr(rules, which)


def spread(entry):
    """One (kind, rules) as single constraints: (kind, field, scope, (rule kind, name, value))."""
    _, field, scope, (kind, rules) = entry
    found = []
    for descriptor, value in rules.ListFields():
        nested = {"items": "ITEM", "keys": "KEY", "values": "VALUE"}.get(descriptor.name)
        if nested and kind in ("repeated", "map"):
            for inner in flat(value):
                found += spread(("rule", field, nested, inner))
        else:
            found.append(("rule", field, scope, (kind, descriptor.name, value)))
    found.sort(key=lambda r: (SCOPES.index(r[2]), r[3][1] != "ignore_empty"))
    return found


def number_value(kind, value):
    if kind in ("double", "float"):
        return f"{{.d = {float(value)!r}}}"
    return f"{{.i = INT64_C({value})}}" if kind in SIGNED or kind == "enum" else f"{{.u = UINT64_C({value})}}"


def list_value(lists, kind, values):
    name = f"l{len(lists.lines)}"
    if kind == "string":
        body = ", ".join([c_string(v) for v in values] + ["NULL"])
        lists.lines.append(f"static const char *const {name}[] = {{{body}}};")
        return f"{{.strings = {name}}}", len(values)
    c_type, member = {"double": ("double", "doubles"), "float": ("double", "doubles")}.get(kind, ("int64_t", "ints"))
    lists.lines.append(f"static const {c_type} {name}[] = {{{', '.join(str(v) for v in values)}}};")
    return f"{{.{member} = {name}}}", len(values)


def rule_row(lists, m, entry):
    """The C initialiser of one constraint, or None where it says nothing (strict beside well_known_regex)."""
    what, field, scope, rest = entry
    if what == "oneof":
        return Rule(field, scope, "ONEOF_REQUIRED", f"{{.s = {c_string(rest)}}}")
    kind, name, value = rest
    op = name.upper()
    if kind in NUMERIC or kind == "enum":
        if name in ("in", "not_in"):
            return Rule(field, scope, op, *list_value(lists, kind, value))
        if name in ("defined_only", "ignore_empty"):
            return Rule(field, scope, op) if value else None
        return Rule(field, scope, op, number_value(kind, value))
    if kind == "bool":
        return Rule(field, scope, "CONST", f"{{.u = {int(value)}}}")
    if kind in ("duration", "timestamp") and hasattr(value, "seconds"):
        return Rule(field, scope, op, f"{{.i = INT64_C({value.seconds})}}", value.nanos)
    if kind == "any" and name in ("in", "not_in"):
        return Rule(field, scope, op, *list_value(lists, "string", value))
    if kind in ("string", "bytes"):
        return text_row(lists, m, entry)
    if isinstance(value, bool):  # required, skip, unique, no_sparse
        return Rule(field, scope, op) if value else None
    if isinstance(value, int):  # min_items, max_items, min_pairs, max_pairs
        return Rule(field, scope, op, f"{{.u = {value}}}")
    raise SystemExit(f"gen.py: {m.name}: rule {kind}.{name} is not handled")


def text_row(lists, m, entry):
    _, field, scope, (kind, name, value) = entry
    op = name.upper()
    if name == "strict":
        return None
    if name == "well_known_regex":
        strict = not any(e[0] == "rule" and e[1] == field and e[2] == scope and e[3][1] == "strict" and not e[3][2]
                         for e in m.rules)
        return Rule(field, scope, f"{validate_pb2.KnownRegex.Name(value)}{'_STRICT' if strict else ''}")
    if name in ("in", "not_in"):
        return Rule(field, scope, op, *list_value(lists, "string", value))
    if name == "pattern":
        lists.patterns += 1
        return Rule(field, scope, op, f"{{.s = {c_string(value)}}}", lists.patterns - 1)
    if isinstance(value, bool):  # ignore_empty, email, hostname, ip, ipv4, ipv6, uri, uri_ref, address, uuid
        return Rule(field, scope, op) if value else None
    if isinstance(value, int):
        return Rule(field, scope, op, f"{{.u = {value}}}")
    data = value if isinstance(value, str) else value.decode("latin-1")
    return Rule(field, scope, op, f"{{.s = {c_string(data)}}}", len(data))


def write_rules(folder, messages):
    lists, rows = Lists(), []
    for m in messages:
        kept = []
        for entry in m.rules:
            rule = rule_row(lists, m, entry)
            if rule:
                if rule.op not in OPS:
                    raise SystemExit(f"gen.py: {m.name}: rule {rule.op} is not handled")
                kept.append(rule)
                rows.append(f"    {{{rule.field}, PROTO_RULE_{rule.op}, PROTO_SCOPE_{rule.scope}, {rule.n}, "
                            f"{rule.value}}}, /* {m.name}.{m.fields[rule.field].name} */")
        m.rules = kept
    lines = ["/* Made by protos/gen.py. */", '#include "protos/proto_type.h"', "", *lists.lines, "",
             "const struct proto_rule proto_rules[] = {", *rows, "};",
             f"struct regex *proto_patterns[{max(1, lists.patterns)}];", ""]
    (folder / "rules.c").write_text("\n".join(lines))
