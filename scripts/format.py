#!/usr/bin/env python3
"""Formats C files in place: clang-format, with comments fitted into the columns first.

Left alone, clang-format breaks code to make room for a trailing comment, and runs a comment's `Threads:` and
`Spec:` lines into the sentence before them.
"""
import pathlib
import re
import subprocess
import sys
import textwrap

COLUMNS = 100
TRAILING = re.compile(r"(?P<indent>\s*)(?P<code>[^\s}/*].*?)\s+(?P<comment>/\*(?:(?!\*/).)*\*/|//[^\"]*)$")
BLOCK = re.compile(r"^(?P<indent>[ \t]*)/\*(?P<text>(?:(?!\*/).)*)\*/$", re.M | re.S)
OWN_LINE = re.compile(r"[A-Z][\w ]{0,24}:|[-*|]|\d+\.|\([a-z]\)|\s|$")


def hoist(text):
    """A trailing comment that does not fit on its line goes above it."""
    lines, continued = [], False
    for line in text.split("\n"):
        match = None if continued or len(line) <= COLUMNS or line.endswith("\\") else TRAILING.match(line)
        continued = line.endswith("\\")
        if match:
            lines.append(match["indent"] + match["comment"])
            line = match["indent"] + match["code"]
        lines.append(line)
    return "\n".join(lines)


def paragraphs(lines):
    """Runs of lines that are one sentence flow: a label, list item, indent or short line ends the one before."""
    group = []
    for line in lines:
        if group and (OWN_LINE.match(line) or len(group[-1]) < COLUMNS - 30):
            yield group
            group = []
        group.append(line)
    yield group


def rewrap(match):
    """Wrap the paragraphs of a block comment that have a line too long; keep the others as they are."""
    indent = match["indent"]
    longest = max(len(line) for line in match.group().split("\n"))
    if longest <= COLUMNS or "\\\n" in match.group():
        return match.group()
    lines = [re.sub(r"^\s*\* ?", "", line) for line in match["text"].strip().split("\n")]
    lines[-1] += " */"
    width, wrapped = COLUMNS - len(indent) - 3, []
    for group in paragraphs(lines):
        fits = all(len(line) <= width for line in group)
        wrapped += group if fits else textwrap.wrap(" ".join(group), width, break_long_words=False,
                                                    break_on_hyphens=False)
    if wrapped[-1] == "*/":
        wrapped[-2:] = [wrapped[-2].rsplit(" ", 1)[0], wrapped[-2].rsplit(" ", 1)[1] + " */"]
    return "\n".join(indent + ("/* " if n == 0 else " * ") + line for n, line in enumerate(wrapped))


def fit(path):
    before = path.read_text()
    after = BLOCK.sub(rewrap, hoist(before))
    if after != before:
        path.write_text(after)


def main():
    # Twice: aligning trailing comments may push one over the edge.
    for _ in range(2):
        for name in sys.argv[1:]:
            fit(pathlib.Path(name))
        subprocess.run(["clang-format", "-i", *sys.argv[1:]], check=True)


if __name__ == "__main__":
    main()
