"""The HTTP/2 conformance tester h2spec: built once from its pinned module, run, its report read."""

import os
import pathlib
import re
import subprocess

from support import gotool
from support.proxy import ROOT

MODULE = ROOT / "tests/conformance/h2spec"
PACKAGE = "github.com/summerwind/h2spec/cmd/h2spec"
GROUPS = {"Generic tests": "generic", "Hypertext Transfer Protocol": "http2", "HPACK": "hpack"}
RESULT = re.compile(r"^\s+(?P<mark>[✔×])\s+(?P<case>\d+: .*)$")
ANNOUNCED = re.compile(r"^\s+\d+: ")
SECTION = re.compile(r"^\s+(?P<number>\d+(\.\d+)*)\. \S")


def binary():
    """H2SPEC names one; else the Go compiler makes it in the cache. Skips where there is no Go."""
    if os.environ.get("H2SPEC"):
        return pathlib.Path(os.environ["H2SPEC"])
    return gotool.build(MODULE, PACKAGE)


def read_report(text):
    """{case: (passed, what is said about it)}; a case is named like "http2/6.1 3: Sends …"."""
    cases, group, section, last = {}, "", "", None
    for line in text.splitlines():
        result, heading = RESULT.match(line), SECTION.match(line)
        if result:
            last = f"{group}/{section} {result['case']}"
            assert last not in cases, f"two results for {last}"
            cases[last] = (result["mark"] == "✔", [])
        elif heading:
            section, last = heading["number"], None
        elif line and not line[0].isspace():
            group, last = next((short for long, short in GROUPS.items() if line.startswith(long)), group), None
        elif last and line.strip() and not ANNOUNCED.match(line):
            cases[last][1].append(line.strip())
    return cases


def run(port, tls=False, timeout_s=2):
    """All cases, the strict ones too. The report must be whole: as many results as its own sum tells."""
    command = [binary(), "--strict", "-h", "127.0.0.1", "-p", str(port), "-o", str(timeout_s)]
    done = subprocess.run(command + (["-t", "-k"] if tls else []), stdin=subprocess.DEVNULL, capture_output=True, check=False)
    text = done.stdout.decode(errors="replace")
    total = re.search(r"^(\d+) tests, (\d+) passed, 0 skipped, (\d+) failed", text, re.M)
    assert total, f"h2spec did not finish:\n{text[-3000:]}{done.stderr.decode(errors='replace')}"
    cases = read_report(text.split("\nFailures:")[0])
    failed = [name for name, (passed, _) in cases.items() if not passed]
    assert (len(cases), len(failed)) == (int(total[1]), int(total[3])), f"a report that cannot be read:\n{text}"
    return cases
