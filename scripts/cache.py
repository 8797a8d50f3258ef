"""Content-keyed cache outside the work tree, shared by clones: built once, found again by key.

Entries are directories named KIND-KEY below ${SLUICE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/sluice}. An entry
is filled under a lock and marked when whole, so builds running at once make it once.
"""
import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cache_dir():
    explicit = os.environ.get("SLUICE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = pathlib.Path(explicit or os.path.join(base, "sluice"))
    path.mkdir(parents=True, exist_ok=True)
    return path.resolve()


def key_of(*parts):
    """Short digest of strings, and of the contents of the paths among them."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, pathlib.Path) else str(part).encode()
        digest.update(b"%d:" % len(data) + data)
    return digest.hexdigest()[:20]


def version_of(compiler):
    """First line of `compiler --version`: enough to tell one compiler from another."""
    out = subprocess.run([*compiler.split(), "--version"], check=True, capture_output=True, text=True)
    return out.stdout.splitlines()[0]


@contextlib.contextmanager
def locked(name):
    with open(cache_dir() / f".{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def entry(kind, key, build):
    """The directory KIND-KEY; when absent or left half-made, `build(directory)` fills it first."""
    path = cache_dir() / f"{kind}-{key}"
    complete = path / ".complete"
    if complete.exists():
        return path
    with locked(path.name):
        if not complete.exists():
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            build(path)
            complete.touch()
    return path


def link(target, path):
    """Point the symlink `path` at `target`; leaves it alone when it already does."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() and os.readlink(path) == str(target):
        return
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
