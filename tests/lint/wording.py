"""What a grep can tell: banned functions, braces, TODOs without an issue, hosts of package registries."""
import re

from source import ROOT, Finding, c_files, names, spaces

BANNED = re.compile(r"\b(strcpy|strcat|sprintf|vsprintf|strtok|strtok_r|atoi|atol|atof|strncpy|strncat|gets|alloca|assert)"
                    r"[ \t]*\(")
HEAP = re.compile(r"(?<![.>\w])(malloc|calloc|realloc|reallocarray|free|strdup|strndup)[ \t]*\(")
BRANCH = re.compile(r"(?m)(?<![\w#])(?:(?:if|for|while|switch|LIST_FOREACH\w*)[ \t]*\(|else\b|do\b)")
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.)*", re.M | re.S)
UNNUMBERED = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))")
# In two pieces, so that this file does not name them either.
HOSTS = [f"{a}.{b}" for a, b in (("pypi", "org"), ("pythonhosted", "org"), ("deb.debian", "org"),
                                 ("security.debian", "org"), ("snapshot.debian", "org"), ("ftp.debian", "org"),
                                 ("proxy.golang", "org"), ("sum.golang", "org"), ("registry.npmjs", "org"),
                                 ("crates", "io"), ("repo.maven", "apache.org"), ("repo1.maven", "org"))]


def matching(code, opening):
    """Offset just past the parenthesis that closes the one at `opening`."""
    depth = 0
    for at in range(opening, len(code)):
        depth += {"(": 1, ")": -1}.get(code[at], 0)
        if depth == 0:
            return at + 1
    return len(code)


def check_braces(file):
    """Every branch and loop has its braces; `while (x);` closes a do, `else if` is one word."""
    code = DIRECTIVE.sub(spaces, file.code)
    for match in BRANCH.finditer(code):
        word = match.group().rstrip("( \t")
        after = matching(code, match.end() - 1) if match.group().endswith("(") else match.end()
        rest = code[after:].lstrip()
        if rest.startswith("{"):
            continue
        if word == "while" and rest.startswith(";") or word == "else" and re.match(r"if\b", rest):
            continue
        yield Finding(file.path, file.line_of(match.start()), f"'{word}' without braces")


def check_banned(file):
    for match in BANNED.finditer(file.code):
        yield Finding(file.path, file.line_of(match.start()), f"{match.group(1)}() is banned")
    if file.path.startswith(("proxy/base/", "tests/")):
        return
    for match in HEAP.finditer(file.code):
        yield Finding(file.path, file.line_of(match.start()), f"{match.group(1)}() belongs to proxy/base only")


def check_c(file):
    found = [*check_banned(file), *check_braces(file)]
    yield from (f for f in found if not file.waived(f.line))


def check_text(path):
    try:
        lines = (ROOT / path).read_text().splitlines()
    except UnicodeDecodeError:
        return
    for number, line in enumerate(lines, 1):
        for host in HOSTS:
            if host in line:
                yield Finding(path, number, f"names the package registry '{host}'")
        if path.endswith((".c", ".h", ".cc", ".py", ".sh", ".mk", "Makefile")) and not path.startswith("tests/lint/"):
            for match in UNNUMBERED.finditer(line):
                yield Finding(path, number, f"{match.group(1)} without an issue number: {match.group(1)}(#123)")


def check():
    for file in c_files():
        yield from check_c(file)
    for path in names():
        yield from check_text(path)
