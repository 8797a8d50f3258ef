"""clang-format agrees with every C file."""
import re
import subprocess

from source import ROOT, Finding, c_files


def check():
    paths = [file.path for file in c_files()]
    if not paths:
        return
    out = subprocess.run(["clang-format", "--dry-run", "-Werror", "--ferror-limit=1", *paths], cwd=ROOT, check=False,
                         capture_output=True, text=True).stderr
    for path, line in re.findall(r"^(\S+?):(\d+):\d+: error: code should be clang-formatted", out, re.M):
        yield Finding(path, int(line), "not formatted: make format")
