#!/usr/bin/env python3
"""Makes a Python environment from a hashed requirements list and links DEST to it. Cached by content."""
import pathlib
import subprocess
import sys
import venv

import cache


def build(into, requirements):
    print(f"Installing Python packages of {requirements.name} ...", flush=True)
    venv.create(into, with_pip=True, symlinks=True)
    command = [str(into / "bin/python"), "-m", "pip", "install", "-q", "--require-hashes",
               "--disable-pip-version-check", "--no-input", "-r", str(requirements)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: python_env.py REQUIREMENTS DEST")
    requirements = pathlib.Path(sys.argv[1]).resolve()
    key = cache.key_of(requirements, pathlib.Path(__file__), sys.version, sys.executable)
    done = cache.entry("venv-" + requirements.stem, key, lambda into: build(into, requirements))
    cache.link(done, sys.argv[2])


if __name__ == "__main__":
    main()
