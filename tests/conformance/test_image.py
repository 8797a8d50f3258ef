"""The container image's root file system: what is in it, and that its binary serves there as the image's user."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

from support import config
from support.ads_server import ROUTE, AdsServer
from support.process import wait_until
from support.proxy import ROOT, Sluice
from support.rawhttp import fetch
from support.xds_config import ads_bootstrap, serve_all

IMAGE = pathlib.Path(os.environ.get("IMAGE", ROOT / "build/image"))
USER = 65532
LARGEST = 24 << 20

pytestmark = pytest.mark.image


@pytest.fixture
def root(tmp_path):
    """A copy of the image, where a test may write."""
    if os.geteuid() != 0:
        pytest.skip("only root may change its root")
    directory = tmp_path / "root"
    shutil.copytree(IMAGE, directory, symlinks=True)
    (directory / "tmp").chmod(0o1777)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o711)
    return directory


class Contained(Sluice):
    """Sluice with the image as its root, as the image's user."""

    def __init__(self, root, bootstrap):
        super().__init__(root / "tmp", bootstrap)
        self.root = root

    def command(self):
        inside = ["--userspec=65532:65532", str(self.root), "/usr/local/bin/sluice"]
        _, *words = super().command()
        return ["chroot", *inside, *(str(w).removeprefix(str(self.root)) for w in words)]


def test_what_is_in_it():
    files = sorted(str(p.relative_to(IMAGE)) for p in IMAGE.rglob("*") if not p.is_dir())
    assert files == ["etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "usr/local/bin/sluice"]
    assert sum(p.stat().st_size for p in IMAGE.rglob("*") if p.is_file()) < LARGEST
    listed = subprocess.run(["readelf", "-d", IMAGE / "usr/local/bin/sluice"], capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in listed
    assert f":{USER}:" in (IMAGE / "etc/passwd").read_text()
    recipe = (ROOT / "Containerfile").read_text()
    assert f"USER {USER}:{USER}" in recipe and re.search(r"^ENTRYPOINT \[\"/usr/local/bin/sluice\"\]$", recipe, re.M)


def test_it_serves_what_a_control_plane_sends(root, upstream):
    with AdsServer() as ads:
        serve_all(ads, upstream.port)
        proxy = Contained(root, ads_bootstrap(ads, "DELTA_GRPC")).start()
        try:
            ads.wait_ack(ROUTE)
            assert fetch(proxy.port()).status == 200
            status = pathlib.Path(f"/proc/{proxy.child.pid}/status").read_text()
            assert re.search(rf"^Uid:\s+{USER}\s+{USER}", status, re.M)
        finally:
            proxy.stop()


def test_it_resolves_names_and_verifies_public_certificates(root, upstream):
    (root / "etc/hosts").write_text("127.0.0.1 upstream.test\n")
    named = config.endpoint(upstream.port, "upstream.test")
    bundle = {"common_tls_context": {"validation_context": {"trusted_ca": {"filename": "/etc/ssl/certs/ca-certificates.crt"}}}}
    proxy = Contained(root, config.bootstrap(
        [config.listener(config.hcm())],
        [config.cluster("up", named, type="STRICT_DNS"),
         config.cluster("verified", upstream.port, transport_socket=config.typed(
             "tls", "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", **bundle))])).start()
    try:
        wait_until(lambda: proxy.stat("cluster.up.membership_healthy"), "the name's address")
        assert fetch(proxy.port()).status == 200
        assert proxy.admin("/certs").json["certificates"]
    finally:
        proxy.stop()
