"""Certificates and trust bundles in files: rotated by swapping a symlink, as Kubernetes does, or by renaming files."""

import contextlib
import json
import os
import shutil
import ssl

import pytest

from support import config
from support.ads_server import SECRET, AdsServer
from support.certs import Authority
from support.pki import CA, Pki
from support.process import wait_until
from support.rawhttp import Client, fetch
from test_xds_basic import ads_bootstrap, both


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("other"), "other-ca")


class Volume:
    """A mounted secret: files are links into ..data, which is swapped."""

    def __init__(self, path):
        self.path, self.version = path, 0
        path.mkdir()

    def swap(self, **files):
        self.version += 1
        data = self.path / f"..v{self.version}"
        data.mkdir()
        for name, source in files.items():
            shutil.copy(source, data / name)
        link = self.path / "..new"
        link.symlink_to(data.name)
        os.rename(link, self.path / "..data")
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")

    def secret(self, name="server", **fields):
        return {"name": name, "tls_certificate": {"certificate_chain": {"filename": str(self.path / "cert")},
                                                  "private_key": {"filename": str(self.path / "key")}, **fields}}

    def validation(self, name="ca", **fields):
        return {"name": name, "validation_context": {"trusted_ca": {"filename": str(self.path / "ca")}, **fields}}


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path / "volume")


@pytest.fixture
def pairs(authority, tmp_path_factory):
    return [authority.leaf(f"{name}-{tmp_path_factory.mktemp('x').name}", "DNS:a.example") for name in ("one", "two")]


def write_sds(path, *secrets):
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"resources": [{"@type": SECRET, **s} for s in secrets]}))
    os.rename(new, path)
    return {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}


def by_name(source, name="server"):
    return {"name": name, **({"sds_config": source} if source else {})}


def tls_listener(*secrets, validation=None, **fields):
    common = {"tls_certificate_sds_secret_configs": list(secrets)}
    if validation:
        common["validation_context_sds_secret_config"] = validation
    socket = config.tls_socket("Downstream", common_tls_context=common, **fields)
    return config.listener(chains=[config.chain(config.hcm([config.direct("/", 200, "ok")]), transport_socket=socket)])


def served(proxy):
    return ssl.get_server_certificate(("127.0.0.1", proxy.port()), timeout=10)


def becomes(proxy, pair):
    wait_until(lambda: served(proxy) == pair.cert.read_text(), "the new certificate")


def test_swap_of_a_symlink(sluice, volume, authority, pairs, tmp_path):
    """New connections get the new certificate, old ones go on."""
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    proxy = sluice(config.bootstrap([tls_listener(by_name(write_sds(tmp_path / "sds.json", volume.secret())))]))
    assert served(proxy) == pairs[0].cert.read_text()
    with Client(proxy.port(), tls=authority.client_context(), server_name="a.example") as client:
        assert client.request("GET", "/").status == 200
        for pair in (pairs[1], pairs[0], pairs[1]):
            volume.swap(cert=pair.cert, key=pair.key)
            becomes(proxy, pair)
            assert client.request("GET", "/").status == 200
    assert proxy.stat("sds.server.key_rotation_failed") == 0
    assert proxy.stat("listener.127.0.0.1_0.server_ssl_socket_factory.ssl_context_update_by_sds") >= 3
    assert proxy.stat("listener_manager.listener_modified") == 0


@both
def test_watched_directory_by_ads(sluice, volume, pairs, kind):
    """The files lie elsewhere; only moves into the watched directory count."""
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    files = volume.path.parent / "files"
    files.mkdir()
    for name in ("cert", "key"):
        (files / name).symlink_to(volume.path / name)
    secret = Volume.secret(type("V", (), {"path": files}), watched_directory={"path": str(volume.path)})
    with contextlib.ExitStack() as stack:
        ads = stack.enter_context(AdsServer())
        ads.set(SECRET, "1", [secret])
        bootstrap = ads_bootstrap(ads, kind)
        del bootstrap["dynamic_resources"]["cds_config"], bootstrap["dynamic_resources"]["lds_config"]
        bootstrap["static_resources"]["listeners"] = [tls_listener(by_name({"ads": {}, "resource_api_version": "V3"}))]
        proxy = sluice(bootstrap)
        assert served(proxy) == pairs[0].cert.read_text()
        volume.swap(cert=pairs[1].cert, key=pairs[1].key)
        becomes(proxy, pairs[1])
        assert len([r for r in ads.of(SECRET) if r.response_nonce]) == 1  # nothing was asked again


def test_secret_of_the_bootstrap(sluice, volume, pairs):
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    proxy = sluice(config.bootstrap([tls_listener(by_name(None))], static={"secrets": [volume.secret()]}))
    volume.swap(cert=pairs[1].cert, key=pairs[1].key)
    becomes(proxy, pairs[1])


@pytest.mark.parametrize("case", ["mismatch", "cut short", "missing"])
def test_bad_files_keep_the_last_good_pair(sluice, volume, pairs, tmp_path, case):
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    proxy = sluice(config.bootstrap([tls_listener(by_name(write_sds(tmp_path / "sds.json", volume.secret())))]))
    cut = tmp_path / "cut"
    cut.write_text(pairs[1].cert.read_text()[:200])
    if case == "missing":
        volume.swap(cert=pairs[1].cert)
    else:
        volume.swap(cert=cut if case == "cut short" else pairs[1].cert, key=pairs[0].key)
    proxy.wait_stat("sds.server.key_rotation_failed", 1)
    assert "Failed to reload certificates" in proxy.log()
    assert served(proxy) == pairs[0].cert.read_text()
    volume.swap(cert=pairs[1].cert, key=pairs[1].key)
    becomes(proxy, pairs[1])


def test_two_renames_are_one_rotation_in_the_end(sluice, pairs, tmp_path):
    """Between the two the pair does not fit."""
    directory = tmp_path / "plain"
    directory.mkdir()

    def put(name, source):
        shutil.copy(source, tmp_path / "staged")
        os.rename(tmp_path / "staged", directory / name)

    put("cert", pairs[0].cert)
    put("key", pairs[0].key)
    secret = Volume.secret(type("V", (), {"path": directory}))
    proxy = sluice(config.bootstrap([tls_listener(by_name(write_sds(tmp_path / "sds.json", secret)))]))
    put("cert", pairs[1].cert)
    proxy.wait_stat("sds.server.key_rotation_failed", 1)
    assert served(proxy) == pairs[0].cert.read_text()
    put("key", pairs[1].key)
    becomes(proxy, pairs[1])


def test_unchanged_files_change_nothing(sluice, volume, pairs, tmp_path):
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    proxy = sluice(config.bootstrap([tls_listener(by_name(write_sds(tmp_path / "sds.json", volume.secret())))]))
    updates = "listener.127.0.0.1_0.server_ssl_socket_factory.ssl_context_update_by_sds"
    before = proxy.stat(updates)
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    write_sds(tmp_path / "sds.json", volume.secret(), volume.secret("unwanted"))
    proxy.wait_stat("sds.server.update_success", 2)
    assert proxy.stat(updates) == before


def test_trust_bundle(sluice, volume, authority, other, pairs, tmp_path):
    """Clients of another authority are let in once it is in the bundle, and not before."""
    volume.swap(cert=pairs[0].cert, key=pairs[0].key, ca=authority.pair.cert)
    source = write_sds(tmp_path / "sds.json", volume.secret(), volume.validation())
    proxy = sluice(config.bootstrap([tls_listener(by_name(source), validation=by_name(source, "ca"),
                                                  require_client_certificate=True)]))
    stranger = authority.client_context(other.leaf("stranger", "DNS:x"))

    def is_let_in():
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            return fetch(proxy.port(), "/", tls=stranger, server_name="a.example").status == 200
        return False

    assert not is_let_in()
    volume.swap(cert=pairs[0].cert, key=pairs[0].key, ca=other.pair.cert)
    wait_until(is_let_in, "the new bundle")


def test_inline_certificates_are_not_watched(sluice, volume, pairs):
    volume.swap(cert=pairs[0].cert, key=pairs[0].key)
    certificate = volume.secret(watched_directory={"path": str(volume.path)})["tls_certificate"]
    socket = config.tls_socket("Downstream", common_tls_context={"tls_certificates": [certificate]})
    proxy = sluice(config.bootstrap([config.listener(chains=[config.chain(config.hcm([config.direct("/", 200)]),
                                                                          transport_socket=socket)])]))
    assert "watched_directory has no effect here" in proxy.log()
    assert served(proxy) == pairs[0].cert.read_text()


def test_trust_bundles_of_spiffe(sluice, volume, other, pairs, tmp_path):
    """A map of bundles in a file: a domain that comes lets its clients in, a map that is broken changes nothing."""
    pki = Pki(tmp_path / "pki")
    pki.issue("root", extensions=CA)
    pki.issue("client", "root", "URI:spiffe://td.test/a")
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
    stranger.load_cert_chain(pki.pair("client").cert, pki.pair("client").key)
    shutil.copy(other.pair.cert, pki.path("other.own"))

    def put(text):
        (tmp_path / "map").write_text(text)
        volume.swap(cert=pairs[0].cert, key=pairs[0].key, map=tmp_path / "map")

    put(pki.bundle_map({"td.test": ["other"]}))
    spiffe = config.typed("envoy.tls.cert_validator.spiffe", "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
                          trust_bundles={"filename": str(volume.path / "map")})
    secret = {"name": "ca", "validation_context": {"custom_validator_config": spiffe}}
    source = write_sds(tmp_path / "sds.json", volume.secret(), secret)
    proxy = sluice(config.bootstrap([tls_listener(by_name(source), validation=by_name(source, "ca"), require_client_certificate=True)]))

    def is_let_in():
        with contextlib.suppress(OSError, EOFError, ssl.SSLError):
            return fetch(proxy.port(), "/", tls=stranger).status == 200
        return False

    assert not is_let_in()
    put(pki.bundle_map({"td.test": ["root"]}))
    wait_until(is_let_in, "the new bundle")
    put("{")
    proxy.wait_stat("sds.ca.key_rotation_failed", 1)
    assert "Invalid JSON found in SPIFFE bundle" in proxy.log() and is_let_in()
    put(pki.bundle_map({"td.test": ["other"]}))
    wait_until(lambda: not is_let_in(), "the bundle without the root")
