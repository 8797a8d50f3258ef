"""The linked binary: no OpenSSL comes along, and no symbol of ours is also one of a shared library we load."""
import pathlib
import re
import subprocess

from source import ROOT, Finding


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def check_loaded(binary, loaded):
    for name in loaded:
        if re.match(r"lib(ssl|crypto)\b", name):
            yield Finding(binary, 1, f"loads {name}: its symbols would meet BoringSSL's")


def strong_symbols(archive):
    """Strong global definitions of an archive: symbol to member."""
    symbols = {}
    for row in output("nm", "-A", "-g", "--defined-only", archive).splitlines():
        match = re.match(r"[^:]+:([^:]+):\S* ([TDBR]) (\S+)$", row)
        if match:
            symbols[match.group(3)] = match.group(1)
    return symbols


def check_clashes(archives, libraries):
    exported = {}
    for library in libraries:
        for row in output("nm", "-D", "--defined-only", library).splitlines():
            exported.setdefault(row.split()[-1].split("@")[0], library)
    for archive in archives:
        for symbol, member in sorted(strong_symbols(archive).items()):
            if symbol in exported:
                yield Finding(archive, 1, f"'{symbol}' of {member} is also in {pathlib.Path(exported[symbol]).name}")


def check(binary):
    rows = re.findall(r"^\s+(\S+) => (/\S+)", output("ldd", binary), re.M)
    yield from check_loaded(binary, [name for name, _ in rows])
    folder = pathlib.Path(binary).parent
    archives = [str(p) for p in (folder / "libsluice.a", folder / "libprotos.a") if p.exists()]
    yield from check_clashes(archives, [path for _, path in rows])
