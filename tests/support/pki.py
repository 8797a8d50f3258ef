"""Certificates of every kind that is tested against: good ones, and ones that are expired, revoked, forged or of another trust."""

import base64
import hashlib
import json
import pathlib
import re
import ssl
import subprocess

from support.certs import Pair, openssl

LEAF = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
CA = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n"
KEYS = {"p256": ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), "p384": ("ec", "-pkeyopt", "ec_paramgen_curve:P-384"),
        "rsa": ("rsa:2048",)}


class Pki:
    """Names stand for files in one directory: NAME.crt (with the intermediates behind it), NAME.key."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)

    def path(self, name):
        return self.directory / name

    def pair(self, name):
        return Pair(self.path(f"{name}.crt"), self.path(f"{name}.key"))

    def issue(self, name, by=None, sans="", extensions=LEAF, key="p256", days=30, subject=None):
        """`by` None: signed by itself. Intermediates (whoever was not signed by itself) are put behind the certificate."""
        pair, request, text = self.pair(name), self.path(f"{name}.csr"), self.path(f"{name}.ext")
        openssl("req", "-new", "-newkey", *KEYS[key], "-nodes", "-subj", subject or f"/O=Tests/CN={name}", "-keyout", pair.key,
                "-out", request)
        text.write_text(extensions + (f"subjectAltName={sans}\n" if sans else ""))
        signer = ("-signkey", pair.key) if by is None else ("-CA", self.path(f"{by}.own"), "-CAkey", self.pair(by).key,
                                                            "-CAcreateserial")
        openssl("x509", "-req", "-in", request, *signer, "-days", days, "-extfile", text, "-out", self.path(f"{name}.own"))
        behind = "" if by is None or self.is_root(by) else self.pair(by).cert.read_text()
        pair.cert.write_text(self.path(f"{name}.own").read_text() + behind)
        return pair

    def is_root(self, name):
        return not self.path(f"{name}.chain").exists()

    def intermediate(self, name, by, **options):
        pair = self.issue(name, by, extensions=CA, **options)
        self.path(f"{name}.chain").touch()
        return pair

    def serial(self, name):
        shown = subprocess.run(["openssl", "x509", "-in", self.path(f"{name}.own"), "-noout", "-serial"], check=True,
                               capture_output=True, text=True)
        return shown.stdout.strip().partition("=")[2]

    def authority_tool(self, by, *args, revoked=()):
        """`openssl ca`, whose database says who is revoked."""
        index, conf = self.path(f"{by}.index"), self.path(f"{by}.cnf")
        index.write_text("".join(f"R\t400101000000Z\t200101000000Z\t{self.serial(name)}\tunknown\t/CN={name}\n" for name in revoked))
        conf.write_text(f"[ca]\ndefault_ca=d\n[d]\ndatabase={index}\ndefault_md=sha256\npolicy=p\nnew_certs_dir={self.directory}\n"
                        f"rand_serial=yes\nunique_subject=no\n[p]\ncommonName=supplied\n")
        openssl("ca", "-batch", "-config", conf, "-cert", self.path(f"{by}.own"), "-keyfile", self.pair(by).key, *args)

    def crl(self, by, *revoked, name=None, until="20900101000000Z"):
        path = self.path(f"{name or by}.crl")
        self.authority_tool(by, "-gencrl", "-crl_lastupdate", "20190101000000Z", "-crl_nextupdate", until, "-out", path, revoked=revoked)
        return path

    def future(self, name, by, sans):
        """Not valid before 2090."""
        pair, request, text = self.pair(name), self.path(f"{name}.csr"), self.path(f"{name}.ext")
        openssl("req", "-new", "-newkey", *KEYS["p256"], "-nodes", "-subj", f"/CN={name}", "-keyout", pair.key, "-out", request)
        text.write_text(f"{LEAF}subjectAltName={sans}\n")
        self.authority_tool(by, "-in", request, "-startdate", "20900101000000Z", "-enddate", "20910101000000Z", "-notext", "-extfile",
                            text, "-out", pair.cert)
        return pair

    def ocsp(self, name, by, revoked=False, days=1, expired=False):
        """A DER response for the certificate; an expired one has a signature that is not its own, which no server looks at."""
        index, out = self.path("ocsp.index"), self.path(f"{name}.ocsp")
        state = f"{'R' if revoked else 'V'}\t400101000000Z\t{'200101000000Z' if revoked else ''}\t{self.serial(name)}\tunknown\t/CN={name}\n"
        index.write_text(state)
        signer = ("-rsigner", self.path(f"{by}.own"), "-rkey", self.pair(by).key)
        openssl("ocsp", "-index", index, *signer, "-CA", self.path(f"{by}.own"), "-issuer", self.path(f"{by}.own"), "-cert",
                self.path(f"{name}.own"), "-ndays", days, "-respout", out, "-noverify")
        if expired:
            der = out.read_bytes()
            out.write_bytes(der.replace(max(re.findall(rb"\x18\x0f(\d{14}Z)", der)), b"20200101000000Z"))
        return out

    def der(self, name):
        return ssl.PEM_cert_to_DER_cert(self.path(f"{name}.own").read_text())

    def bundle_map(self, domains):
        """SPIFFE bundles, JSON: {trust domain: names of its roots}."""
        keys = {domain: [{"use": "x509-svid", "kty": "EC", "x5c": [base64.b64encode(self.der(name)).decode()]} for name in names]
                for domain, names in domains.items()}
        return json.dumps({"trust_domains": {domain: {"spiffe_sequence": 1, "keys": listed} for domain, listed in keys.items()}})

    def hash(self, name):
        """For verify_certificate_hash."""
        return hashlib.sha256(self.der(name)).hexdigest()

    def spki(self, name):
        """For verify_certificate_spki."""
        public = subprocess.run(["openssl", "x509", "-in", self.path(f"{name}.own"), "-noout", "-pubkey"], check=True,
                                capture_output=True).stdout
        der = base64.b64decode(b"".join(public.split(b"\n")[1:-2]))
        return base64.b64encode(hashlib.sha256(der).digest()).decode()
