"""The tree as the checks see it: C files with their text, comments and strings blanked out, and waivers."""
import dataclasses
import functools
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TOKEN = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
WAIVER = re.compile(r"/\* lint: \S.*")


@dataclasses.dataclass(frozen=True)
class Finding:
    path: str
    line: int
    message: str

    def __str__(self):
        return f"{self.path}:{self.line}: {self.message}"


def spaces(match):
    """As many spaces as the match is long; newlines stay, so that line numbers do."""
    return re.sub(r"[^\n]", " ", match.group())


def blank(match):
    """Spaces for a comment, an empty literal for a literal."""
    text = match.group()
    if text[0] == "/":
        return spaces(match)
    return text[0] + "_" * (len(text) - 2) + text[-1]


class File:
    def __init__(self, path):
        self.path = path
        self.folder = str(pathlib.PurePath(path).parent)
        self.text = (ROOT / path).read_text(errors="replace")
        self.lines = self.text.splitlines()

    @functools.cached_property
    def code(self):
        """The text without comments and contents of literals, same lines and columns."""
        return TOKEN.sub(blank, self.text)

    def line_of(self, offset):
        return self.text.count("\n", 0, offset) + 1

    def waived(self, line):
        """Whether the line, or the comment that ends just above it, says `/* lint: reason */`."""
        at = line - 1
        if at < len(self.lines) and WAIVER.search(self.lines[at]):
            return True
        at -= 1
        while 0 <= at < len(self.lines):
            text = self.lines[at].strip()
            if WAIVER.search(text):
                return True
            if not re.match(r"/?\*|//", text) and not text.endswith("*/"):
                return False
            at -= 1
        return False

    def waived_file(self):
        return any(WAIVER.search(line) for line in self.lines[:12])


def names():
    """Every file git tracks or would track, that exists."""
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                         capture_output=True, text=True).stdout
    return sorted({n for n in out.splitlines() if (ROOT / n).is_file()})


@functools.cache
def c_files():
    """C and C++ sources and headers of the project."""
    return [File(n) for n in names() if n.endswith((".c", ".h", ".cc"))]
