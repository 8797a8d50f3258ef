"""Certificates that a Gateway takes from Kubernetes' secrets by credentialName: late, rotated below load, broken, gone, revoked."""

import datetime
import itertools
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from apps import App, Keeper, Traffic, get, is_refused, told, trusting
from kube_api import secret
from resources import entry, gateway, server, to, virtual_service

from support.process import can_connect, free_port, wait_until
from support.rawhttp import Client

SITE = "shop.example.com"
numbers = itertools.count(1)


@pytest.fixture(scope="module")
def app():
    server_of_all = App("plain")
    yield server_of_all
    server_of_all.stop()


@pytest.fixture
def cred():
    """A secret's name; the proxy keeps what it had under names of before."""
    return f"cred-{next(numbers)}"


@pytest.fixture(scope="module")
def plane(istio):
    return istio.proxy()


@pytest.fixture
def site(istio, plane, app, cred):
    """site(mode) -> the port of a server with the secret `cred`, on a gateway that is up."""
    made = []

    def make(mode="SIMPLE", **tls):
        port, plain = free_port(), free_port()
        made.extend(istio.apply([
            entry("plain", app.port), virtual_service("web", [SITE], ["web"], http=[{"route": to("plain")}]),
            gateway("web", server(plain, "HTTP"), server(port, "HTTPS", SITE, mode=mode, credentialName=cred, **tls))]))
        wait_until(lambda: can_connect(plain), "the plain server", 20)
        assert told(get(plain, SITE))["server"] == "plain"
        return port
    yield make
    istio.kube.remove_all([*made, secret(cred, {}), secret(f"{cred}-cacert", {})])


def tls_files(pair):
    return {"tls.crt": pair.cert, "tls.key": pair.key}


def fresh(identities):
    return identities.public.leaf(f"site-{next(numbers)}", f"DNS:{SITE}")


def is_served(port, identities, **client):
    try:
        return get(port, SITE, tls=trusting(identities.public, **client), server_name=SITE).status == 200
    except (OSError, EOFError):
        return False


def serial(port, identities):
    """Of the certificate the proxy shows."""
    with Client(port, tls=trusting(identities.public), server_name=SITE) as client:
        return int(client.socket.getpeercert()["serialNumber"], 16)


def serial_of(pair):
    return x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number


def test_late(istio, site, cred, identities):
    """The plain server works meanwhile; the secret's arrival is enough."""
    port = site()
    assert not is_served(port, identities)
    istio.apply([secret(cred, tls_files(fresh(identities)))])
    wait_until(lambda: is_served(port, identities), "the secret to serve", 20)


def test_rotated_under_load(istio, site, cred, identities):
    port = site()
    istio.apply([secret(cred, tls_files(fresh(identities)))])
    wait_until(lambda: is_served(port, identities), "the secret to serve", 20)
    keeper = Keeper(port, SITE, tls=trusting(identities.public), server_name=SITE)

    def send(number):
        """One client keeps its connection, the other makes one for each request."""
        if number == 0:
            return keeper.server(0)
        return told(get(port, SITE, tls=trusting(identities.public), server_name=SITE))["server"]
    with Traffic(send) as traffic:
        for _ in range(10):
            pair = fresh(identities)
            istio.apply([secret(cred, tls_files(pair))])
            wait_until(lambda want=serial_of(pair): serial(port, identities) == want, "the new certificate", 20)
        wait_until(lambda: traffic.done() > 50, "traffic")
    keeper.close()


@pytest.mark.parametrize("broken", ["no key", "no certificate", "another key", "not PEM", "empty", "gone"])
def test_broken_leaves_the_last_good(istio, site, cred, identities, broken):
    port, pair = site(), fresh(identities)
    istio.apply([secret(cred, tls_files(pair))])
    wait_until(lambda: is_served(port, identities), "the secret to serve", 20)
    files = {"no key": {"tls.crt": pair.cert}, "no certificate": {"tls.key": pair.key}, "empty": {}, "gone": {},
             "another key": {"tls.crt": pair.cert, "tls.key": fresh(identities).key},
             "not PEM": {"tls.crt": b"nonsense", "tls.key": pair.key}}[broken]
    if broken == "gone":
        istio.kube.remove_all([secret(cred, {})])
    else:
        istio.apply([secret(cred, files)])
    # a change of another kind behind it: once that is served, the secret was looked at
    marker = free_port()
    with istio.applied([gateway("marker", server(marker, "HTTP"))]):
        wait_until(lambda: can_connect(marker), "the marker", 20)
    assert is_served(port, identities) and serial(port, identities) == serial_of(pair)
    istio.istiod.forgive("ADS:SDS: ")
    newer = fresh(identities)
    istio.apply([secret(cred, tls_files(newer))])
    wait_until(lambda: is_served(port, identities) and serial(port, identities) == serial_of(newer), "the repaired one", 20)


@pytest.mark.parametrize("broken", ["no key", "not PEM"])
def test_half_configured_from_the_start(istio, site, cred, identities, broken):
    port, pair = site(), fresh(identities)
    istio.apply([secret(cred, {"tls.crt": pair.cert} if broken == "no key" else {"tls.crt": b"x", "tls.key": b"y"})])
    assert not is_served(port, identities)
    istio.istiod.forgive("ADS:SDS: ")
    istio.apply([secret(cred, tls_files(pair))])
    wait_until(lambda: is_served(port, identities), "the secret to serve", 20)


def crl(authority, *revoked):
    """PEM of the authority's revocation list."""
    issuer = x509.load_pem_x509_certificate(authority.pair.cert.read_bytes())
    key = serialization.load_pem_private_key(authority.pair.key.read_bytes(), None)
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).last_update(
        now - datetime.timedelta(hours=1)).next_update(now + datetime.timedelta(days=1))
    for pair in revoked:
        builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(serial_of(pair)).revocation_date(
            now - datetime.timedelta(minutes=5)).build())
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("separate", [False, True], ids=["one-secret", "cacert-secret"])
def test_mutual_and_revocation(istio, site, cred, identities, separate):
    port, pair, root = site("MUTUAL"), fresh(identities), identities.public.pair.cert
    good, bad = (identities.public.leaf(f"{name}.example.com") for name in ("good", "bad"))

    def publish(**more):
        if separate:
            istio.apply([secret(cred, tls_files(pair)), secret(f"{cred}-cacert", {"ca.crt": root, **more})])
        else:
            istio.apply([secret(cred, {**tls_files(pair), "ca.crt": root, **more})])
    publish()
    wait_until(lambda: is_served(port, identities, pair=good), "the secret to serve", 20)
    assert is_served(port, identities, pair=bad)
    assert is_refused(port, SITE, trusting(identities.public))
    assert is_refused(port, SITE, trusting(identities.public, identities.stranger.leaf("good.example.com")))
    keeper = Keeper(port, SITE, tls=trusting(identities.public, good), server_name=SITE)
    with Traffic(keeper.server):
        publish(**{"ca.crl": crl(identities.public, bad)})
        wait_until(lambda: is_refused(port, SITE, trusting(identities.public, bad)), "the revocation", 20)
        assert is_served(port, identities, pair=good)
    publish(**{"ca.crl": crl(identities.public)})
    wait_until(lambda: is_served(port, identities, pair=bad), "the pardon", 20)
    keeper.close()


def test_one_secret_for_two_servers(istio, site, cred, identities):
    """TLS 1.2 only on one of them: the secret is the same, the contexts are not."""
    port, other = site(), free_port()
    istio.apply([secret(cred, tls_files(fresh(identities)))])
    more = gateway("second", server(other, "HTTPS", SITE, mode="SIMPLE", credentialName=cred, maxProtocolVersion="TLSV1_2"))
    with istio.applied([more, virtual_service("web", [SITE], ["web", "second"], http=[{"route": to("plain")}])]):
        wait_until(lambda: is_served(port, identities) and is_served(other, identities), "both", 20)
        newest = trusting(identities.public)
        newest.minimum_version = ssl.TLSVersion.TLSv1_3
        assert is_refused(other, SITE, newest) and not is_refused(port, SITE, newest)
