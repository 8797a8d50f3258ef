#!/usr/bin/env python3
"""Builds BoringSSL as static libraries and links DEST to the result (include/, lib/libcrypto.a, lib/libssl.a).

The source is the copy inside the grpcio source release, pinned by hash in deps/boringssl.txt; its list of
files is the one that release itself builds from. Cached by archive, script and compilers.
"""
import concurrent.futures
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile

import cache

PIN = cache.ROOT / "deps" / "boringssl.txt"
SUBDIR = "third_party/boringssl-with-bazel"
LIST = "src/python/grpcio/grpc_core_dependencies.py"
FLAGS = ["-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-fdata-sections",
         "-fstack-protector-strong", "-DNDEBUG", "-DBORINGSSL_IMPLEMENTATION", "-w"]
CXXFLAGS = ["-std=c++17", "-fno-exceptions", "-fno-rtti", "-fno-common"]
# gcc 12 inlines fiat's field arithmetic badly: P-256 signing takes twice as long as with clang.
CLANG_SOURCES = {"crypto/fipsmodule/bcm.cc"}


def archive():
    """The grpcio source archive as pip finds and checks it, kept in the cache."""
    name, version, sha = re.search(r"(\w+)==(\S+)\s.*?sha256:(\w+)", PIN.read_text(), re.S).groups()

    def download(into):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", name,
                   "--require-hashes", "--disable-pip-version-check", "-r", str(PIN), "-d", str(into)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    return cache.entry("download", sha[:20], download) / f"{name}-{version}.tar.gz"


def unpack(path, into):
    """Extract BoringSSL and the source list; returns the source root."""
    with tarfile.open(path) as tar:
        top = tar.next().name.split("/")[0]
        wanted = (f"{top}/{SUBDIR}/", f"{top}/{LIST}")
        tar.extractall(into, [m for m in tar.getmembers() if m.name.startswith(wanted)])
    return into / top


def sources(root):
    """BoringSSL's own sources, relative to its directory."""
    lists = runpy.run_path(str(root / LIST))
    names = list(lists["CORE_SOURCE_FILES"])
    for group in lists["ASM_SOURCE_FILES"].values():
        names += group
    skip = re.compile(r"apple|win|\.asm$")
    names = {n[len(SUBDIR) + 1:] for n in names if n.startswith(SUBDIR + "/")}
    return sorted(n for n in names if not skip.search(n.rsplit("/", 1)[-1]))


def compile_one(source_dir, name, into):
    target = into / (name.replace("/", "_") + ".o")
    if name.endswith(".S"):
        compiler = [os.environ.get("CC", "gcc"), "-c", "-fPIC"]
    else:
        compiler = ["clang++"] if name in CLANG_SOURCES else [os.environ.get("CXX", "g++")]
        compiler += ["-c", *FLAGS, *CXXFLAGS]
    subprocess.run([*compiler, "-I", "include", "-o", str(target), name], cwd=source_dir, check=True)
    return target


def build(into, path):
    print("Building BoringSSL (once per machine, about two minutes) ...", flush=True)
    with tempfile.TemporaryDirectory(prefix="sluice-boringssl-") as scratch:
        scratch = pathlib.Path(scratch)
        source_dir = unpack(path, scratch) / SUBDIR
        names = sources(source_dir.parent.parent)
        objects = {"crypto": [], "ssl": []}
        (scratch / "obj").mkdir()
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [(n, pool.submit(compile_one, source_dir, n, scratch / "obj")) for n in names]
            for name, job in jobs:
                objects["ssl" if name.startswith("ssl/") else "crypto"].append(str(job.result()))
        (into / "lib").mkdir()
        for library, members in objects.items():
            subprocess.run(["ar", "rcs", str(into / "lib" / f"lib{library}.a"), *members], check=True)
        shutil.copytree(source_dir / "include", into / "include")
        for licence in ("LICENSE", "NOTICE"):
            if (source_dir / licence).exists():
                shutil.copy(source_dir / licence, into)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: boringssl.py DEST")
    compilers = [cache.version_of(c) for c in (os.environ.get("CC", "gcc"), os.environ.get("CXX", "g++"),
                                                "clang++")]
    key = cache.key_of(PIN, pathlib.Path(__file__), *compilers)
    done = cache.entry("boringssl", key, lambda into: build(into, archive()))
    cache.link(done, sys.argv[1])


if __name__ == "__main__":
    main()
