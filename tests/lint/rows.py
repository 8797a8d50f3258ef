"""filters/filters.def, the table of filters/README.md and the tests tell of the same extensions."""
import re

from source import ROOT, Finding, names

TABLE, README = "filters/filters.def", "filters/README.md"
NAME = re.compile(r"\benvoy\.[a-z0-9_.]+[a-z0-9_]")


def table_rows():
    """Extension name to line number, from the quoted names of filters.def."""
    rows = {}
    for number, line in enumerate((ROOT / TABLE).read_text().splitlines(), 1):
        for name in re.findall(r'"(envoy\.[^"]+)"', line.split("/*")[0]):
            rows[name] = number
    return rows


def readme_rows():
    """Extension name to line number, from the first cell of each table row."""
    rows = {}
    for number, line in enumerate((ROOT / README).read_text().splitlines(), 1):
        if line.startswith("|"):
            for name in NAME.findall(line.split("|")[1]):
                rows[name] = number
    return rows


def check_rows():
    if not (ROOT / TABLE).exists():
        return
    table, readme = table_rows(), readme_rows() if (ROOT / README).exists() else {}
    for name in sorted(table.keys() - readme.keys()):
        yield Finding(TABLE, table[name], f"'{name}' has no row in {README}")
    for name in sorted(readme.keys() - table.keys()):
        yield Finding(README, readme[name], f"'{name}' is not in {TABLE}")


def check_tests():
    """Each filter source has a unit test, and an integration test of its name or one that speaks of it."""
    present = set(names())
    integration = "".join((ROOT / n).read_text() for n in present
                          if re.match(r"tests/integration/.*\.py$", n))
    for path in sorted(n for n in present if re.match(r"filters/(http|network|listener|tracers)/\w+\.c$", n)):
        base = path.rsplit("/", 1)[-1][:-2]
        if f"tests/unit/test_{base}.c" not in present:
            yield Finding(path, 1, f"no tests/unit/test_{base}.c")
        if f"tests/integration/test_{base}.py" not in present and not re.search(rf"\b{base}\b", integration):
            yield Finding(path, 1, f"no integration test speaks of {base}")


def check():
    yield from check_rows()
    yield from check_tests()
