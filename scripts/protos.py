#!/usr/bin/env python3
"""Generates the protobuf C sources into DEST (normally build/gen), by way of the cache, keyed by the INPUT files.

Only files whose content changed are written, so an edit of roots.txt recompiles what it touches and no more.
"""
import pathlib
import shutil
import subprocess
import sys

import cache

PROTOS = cache.ROOT / "protos"


def generate(into):
    subprocess.run([sys.executable, str(PROTOS / "gen.py"), "--roots", str(PROTOS / "roots.txt"), "--out", str(into)],
                   check=True, stdin=subprocess.DEVNULL, cwd=cache.ROOT)


def synchronise(source, destination):
    """Make `destination` hold exactly the files of `source`, leaving equal ones untouched."""
    wanted = {p.relative_to(source) for p in source.rglob("*") if p.is_file() and p.name != ".complete"}
    for name in sorted(wanted):
        data, target = (source / name).read_bytes(), destination / name
        if not target.exists() or target.read_bytes() != data:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    for stale in [p for p in destination.rglob("*") if p.is_file() and p.relative_to(destination) not in wanted
                  and p.name != ".list"]:
        stale.unlink()
    # Newer than the objects whenever the set of files or any of them changed.
    listing = "".join(f"{cache.key_of(source / name)} {name}\n" for name in sorted(wanted))
    if not (destination / ".list").exists() or (destination / ".list").read_text() != listing:
        (destination / ".list").write_text(listing)


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: protos.py DEST INPUT...")
    destination = pathlib.Path(sys.argv[1])
    compiler = cache.version_of(shutil.which("protoc-c") or "protoc-c")
    key = cache.key_of(*map(pathlib.Path, sys.argv[2:]), cache.ROOT / "requirements.txt", compiler)
    source = cache.entry("protos", key, generate)
    destination.mkdir(parents=True, exist_ok=True)
    with cache.locked("gen-" + cache.key_of(str(destination.resolve()))):
        synchronise(source, destination)


if __name__ == "__main__":
    main()
