"""Certificates made with the openssl program when a test session begins."""

import dataclasses
import pathlib
import ssl
import subprocess


@dataclasses.dataclass
class Pair:
    cert: pathlib.Path
    key: pathlib.Path


def openssl(*args):
    subprocess.run(["openssl", *map(str, args)], check=True, stdin=subprocess.DEVNULL, capture_output=True)


class Authority:
    """A CA that signs leaves for names, URIs and addresses."""

    def __init__(self, directory, name="test-ca"):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/O=Tests/CN={name}", "-keyout", self.pair.key, "-out", self.pair.cert)

    def leaf(self, name, *sans, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"), days=30):
        """Sans as openssl writes them: DNS:a.example, URI:spiffe://…, IP:127.0.0.1."""
        pair = Pair(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        request, extensions = self.directory / f"{name}.csr", self.directory / f"{name}.ext"
        openssl("req", "-new", "-newkey", *key, "-nodes", "-subj", f"/O=Tests/CN={name}", "-keyout", pair.key,
                "-out", request)
        extensions.write_text("basicConstraints=CA:FALSE\nkeyUsage=digitalSignature,keyEncipherment\n"
                              f"subjectAltName={','.join(sans or (f'DNS:{name}',))}\n")
        openssl("x509", "-req", "-in", request, "-CA", self.pair.cert, "-CAkey", self.pair.key, "-CAcreateserial",
                "-days", days, "-extfile", extensions, "-out", pair.cert)
        return pair

    def client_context(self, pair=None, alpn=()):
        """Trusts this CA; presents `pair` when given."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.pair.cert)
        if pair:
            context.load_cert_chain(pair.cert, pair.key)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def server_context(self, pair, ask_client=False, alpn=()):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        if ask_client:
            context.load_verify_locations(self.pair.cert)
            context.verify_mode = ssl.CERT_REQUIRED
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context
