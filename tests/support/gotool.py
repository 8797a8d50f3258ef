"""Go programs that tests run: built once from a pinned module into the cache."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from support.proxy import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import cache  # noqa: E402


def version_of(text):
    """The (major, minor) of "go1.23.4" or "go 1.23.0"."""
    return tuple(map(int, re.search(r"\bgo ?(\d+)\.(\d+)", text).groups()))


def compiler(module):
    """Skips where there is no Go, or none that is new enough for the module."""
    go = shutil.which("go")
    if not go:
        pytest.skip(f"{module.name} needs a Go compiler")
    have = subprocess.run([go, "version"], check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout
    needed = re.search(r"^go \S+", (module / "go.mod").read_text(), re.M)[0]
    if version_of(have) < version_of(needed):
        pytest.skip(f"{module.name} needs {needed}, this is {have.strip()}")
    return go


def build(module, package=".", name=None):
    """The path of a module's program; what it is built of is the key."""
    module, name = pathlib.Path(module), name or pathlib.Path(module).name

    def make(directory):
        subprocess.run([compiler(module), "build", "-mod=readonly", "-buildvcs=false", "-o", directory / name, package],
                       check=True, cwd=module, stdin=subprocess.DEVNULL, env={**os.environ, "CGO_ENABLED": "0"})

    sources = sorted([module / "go.mod", module / "go.sum", *module.glob("*.go")])
    return cache.entry(name, cache.key_of(*sources), make) / name
