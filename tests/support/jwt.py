"""Tokens and key sets for tests, by the cryptography package."""

import base64
import functools
import json

from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HASHES = {"256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512}
CURVES = {"256": (ec.SECP256R1, "P-256", 32), "384": (ec.SECP384R1, "P-384", 48), "512": (ec.SECP521R1, "P-521", 66)}
SECRET = b"a secret shared by both sides, long enough"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value, size=None):
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@functools.cache
def private_key(alg, name="one"):
    """One key for each algorithm family (RS and PS share theirs) and name."""
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if alg.startswith("ES"):
        return ec.generate_private_key(CURVES[alg[2:]][0]())
    return rsa_key(name)


@functools.cache
def rsa_key(name):
    return rsa.generate_private_key(65537, 2048)


def sign(alg, data, name="one"):
    key, digest = None if alg.startswith("HS") else private_key(alg, name), HASHES.get(alg[2:])
    if alg.startswith("HS"):
        mac = hmac.HMAC(SECRET, digest())
        mac.update(data)
        return mac.finalize()
    if alg == "EdDSA":
        return key.sign(data)
    if alg.startswith("ES"):
        size = CURVES[alg[2:]][2]
        return b"".join(v.to_bytes(size, "big") for v in decode_dss_signature(key.sign(data, ec.ECDSA(digest()))))
    if alg.startswith("PS"):
        return key.sign(data, padding.PSS(padding.MGF1(digest()), digest.digest_size), digest())
    return key.sign(data, padding.PKCS1v15(), digest())


def encode(part):
    return b64(part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode())


def token(claims, alg="RS256", kid=None, name="one", header=None, signature=None):
    """`claims` and `header` may be bytes: taken as they are."""
    head = header if header is not None else {"alg": alg, "typ": "JWT", **({"kid": kid} if kid else {})}
    data = f"{encode(head)}.{encode(claims)}"
    return f"{data}.{b64(sign(alg, data.encode(), name) if signature is None else signature)}"


def jwk(alg="RS256", name="one", /, **fields):
    """The public half; fields given as None are left out."""
    if alg.startswith("HS"):
        key = {"kty": "oct", "k": b64(SECRET)}
    elif alg == "EdDSA":
        key = {"kty": "OKP", "crv": "Ed25519",
               "x": b64(private_key(alg, name).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))}
    elif alg.startswith("ES"):
        numbers, (_, crv, size) = private_key(alg, name).public_key().public_numbers(), CURVES[alg[2:]]
        key = {"kty": "EC", "crv": crv, "x": number(numbers.x, size), "y": number(numbers.y, size)}
    else:
        numbers = rsa_key(name).public_key().public_numbers()
        key = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    return {k: v for k, v in {**key, **fields}.items() if v is not None}


def jwks(*keys):
    return json.dumps({"keys": list(keys)})
