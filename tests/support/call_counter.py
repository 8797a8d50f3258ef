"""How often a proxy calls libc: a preloaded library (count_calls.c) counts into a file that both map."""

import pathlib
import shutil
import struct
import subprocess

SOURCE = pathlib.Path(__file__).parent / "preload/count_calls.c"
NAMES = ["malloc", "calloc", "realloc", "recv", "send", "sendmsg", "readv", "writev", "epoll_wait", "epoll_ctl", "lock"]
ALLOCATIONS = NAMES[:3]
DATA = NAMES[3:8]


class CallCounter:
    """`env` is for the process to be counted."""

    def __init__(self, directory):
        library, self.file = directory / "count_calls.so", directory / "calls"
        subprocess.run([shutil.which("cc"), "-O2", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
        self.file.write_bytes(bytes(8 * len(NAMES)))
        self.env = {"LD_PRELOAD": str(library), "COUNT_CALLS": str(self.file)}

    def read(self):
        return dict(zip(NAMES, struct.unpack(f"{len(NAMES)}Q", self.file.read_bytes())))

    def per_call(self, once, n=100, warm=100, rounds=5):
        """{libc function: calls} for each call of `once`, on average, in the best of some rounds: a busy machine cuts what is
        sent in pieces, which adds calls."""
        for _ in range(warm):
            once()
        found = []
        for _ in range(rounds):
            before = self.read()
            for _ in range(n):
                once()
            found.append({name: (now - before[name]) / n for name, now in self.read().items()})
        return {name: min(calls[name] for calls in found) for name in NAMES}
