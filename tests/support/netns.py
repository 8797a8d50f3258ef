"""Network namespaces joined by a veth pair, and proxies in them whose neighbours' traffic is redirected to them as Istio's init
container does it. Needs root, ip and nft."""

import contextlib
import ctypes
import itertools
import os
import pathlib
import shutil
import subprocess

import pytest

from support.proxy import Sluice

CLONE_NEWNET = 0x40000000
PROXY_GID = 1337     # what redirection leaves alone
libc = ctypes.CDLL(None, use_errno=True)
numbers = itertools.count()

# Outgoing connections of all but the proxy go to 15001, incoming ones to 15006; 10.77.0.9 stands for what is left alone.
REDIRECT = f"""
table inet sidecar {{
  chain inbound {{
    type nat hook prerouting priority -100
    iifname "eth0" ip daddr 10.77.0.9 return
    iifname "eth0" meta l4proto tcp redirect to :15006
  }}
  chain outbound {{
    type nat hook output priority -100
    meta skgid {PROXY_GID} return
    oifname "lo" return
    meta l4proto tcp redirect to :15001
  }}
}}
"""

# Incoming packets stay as they are, but for the mark that routes them to the proxy; so do the answers to connections that the
# proxy makes in its clients' name.
TPROXY = f"""
table inet sidecar {{
  chain inbound {{
    type filter hook prerouting priority mangle
    meta mark {PROXY_GID} ct mark set meta mark return
    meta l4proto tcp socket transparent 1 meta mark set {PROXY_GID} accept
    iifname "eth0" meta nfproto ipv4 meta l4proto tcp tproxy ip to :15006 meta mark set {PROXY_GID} accept
    iifname "eth0" meta nfproto ipv6 meta l4proto tcp tproxy ip6 to :15006 meta mark set {PROXY_GID} accept
  }}
  chain outbound {{
    type route hook output priority mangle
    meta l4proto tcp ct mark {PROXY_GID} meta mark set ct mark
  }}
}}
"""


def run(*words, given=None):
    done = subprocess.run([str(w) for w in words], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, words))}: {done.stderr}"
    return done.stdout


def need():
    """Skips where namespaces cannot be made or redirected."""
    missing = [name for name in ("ip", "nft", "setpriv") if not shutil.which(name)]
    if missing:
        pytest.skip(f"redirection needs {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("redirection needs root")
    probe = Namespace.name_of("probe")
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"no network namespaces here: {made.stderr.strip()}")
    found = subprocess.run(["ip", "netns", "exec", probe, "nft", "-f", "-"], input=REDIRECT, capture_output=True, text=True,
                           check=False)
    run("ip", "netns", "del", probe)
    if found.returncode != 0:
        pytest.skip(f"nft cannot redirect here: {found.stderr.strip()[:200]}")


class Namespace:
    """A network namespace with loopback up, until deleted."""

    def __init__(self, label):
        self.name = self.name_of(label)
        run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    @staticmethod
    def name_of(label):
        return f"sluice-{os.getpid()}-{next(numbers)}-{label}"

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def nft(self, rules):
        run("ip", "netns", "exec", self.name, "nft", "-f", "-", given=rules)

    def delete(self):
        run("ip", "netns", "del", self.name)

    @contextlib.contextmanager
    def inside(self):
        """Sockets and processes that this thread makes meanwhile belong to the namespace."""
        with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{self.name}", "rb") as there:
            enter(there)
            try:
                yield self
            finally:
                enter(home)


def enter(file):
    if libc.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def join(left, right, addresses):
    """A veth pair between two namespaces, eth0 in both; `addresses`: a list for each."""
    left.ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", right.name)
    for space, own in zip((left, right), addresses):
        for one in own:
            space.ip("addr", "add", one, "dev", "eth0", *(["nodad"] if ":" in one else []))
        space.ip("link", "set", "eth0", "up")


def route_marked(space):
    """Marked packets are for this machine, whatever their address: what TPROXY rests on."""
    for family in ("-4", "-6"):
        space.ip(family, "rule", "add", "fwmark", PROXY_GID, "lookup", 133)
        space.ip(family, "route", "add", "local", "default", "dev", "lo", "table", 133)
    # answers to connections made in a client's name arrive on lo with a foreign source
    for name in ("all", "lo"):
        with space.inside():
            pathlib.Path(f"/proc/sys/net/ipv4/conf/{name}/rp_filter").write_text("0")


class Sidecar(Sluice):
    """A proxy in a namespace, in the group that redirection leaves alone."""

    def __init__(self, directory, bootstrap, space, **options):
        super().__init__(directory, bootstrap, **options)
        self.space = space

    def launch(self, command, env=None):
        with self.space.inside():
            return super().launch(["setpriv", f"--regid={PROXY_GID}", "--clear-groups", *command], env)

    def admin(self, *args, **fields):
        with self.space.inside():
            return super().admin(*args, **fields)


@contextlib.contextmanager
def unredirected(space):
    """For the time of a block the namespace's outgoing connections are left alone."""
    space.nft("flush chain inet sidecar outbound")
    try:
        yield
    finally:
        space.nft("flush ruleset")
        space.nft(REDIRECT)
