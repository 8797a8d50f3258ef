"""JWT authentication beside Envoy's: for each token and each requirement the same verdict, answer and metadata, and the same
request upstream."""

import json
import subprocess
import time

import pytest

from support import jwt
from support.config import TYPE, bootstrap, hcm, listener, route, typed, cluster, vhost
from support.proxy import Envoy, Sluice
from support.rawhttp import fetch

JWT = "envoy.extensions.filters.http.jwt_authn.v3."
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256"]
LOG = "%RESPONSE_CODE_DETAILS%|%DYNAMIC_METADATA(envoy.filters.http.jwt_authn)%"
FORWARDED = ["authorization", "x-payload", "x-sub", "x-num", "x-real", "x-yes", "x-list", "x-deep-er", "x-none", "x-b", "x-token"]
NOW = int(time.time())
CLAIMS = {"iss": "a", "sub": "me", "aud": ["x", "y"], "exp": NOW + 3600}
KEYS = jwt.jwks(*(jwt.jwk(a, kid=a) for a in ALGORITHMS if a[:2] != "PS" and a not in ("RS384", "RS512")))


def claims(**fields):
    return {k: v for k, v in {**CLAIMS, **fields}.items() if v is not None}


def provider(issuer="a", keys=KEYS, **fields):
    return {"issuer": issuer, "local_jwks": {"inline_string": keys}, "forward": True, **fields}


PROVIDERS = {
    "a": provider(payload_in_metadata="payload", header_in_metadata="header", failed_status_in_metadata="failed"),
    "b": provider("b", from_headers=[{"name": "X-B", "value_prefix": ""}], from_params=["b"], from_cookies=["b"], forward=False),
    "any": provider("", payload_in_metadata="any"),
    "aud": provider(audiences=["https://x/", "z"]),
    "sub": provider(subjects={"prefix": "m"}),
    "exp": provider(require_expiration=True),
    "life": provider(max_lifetime="600s"),
    "skew": provider(clock_skew_seconds=1),
    "cookie": provider(from_cookies=["token"]),
    "param": provider(from_params=["token"], forward=False),
    "prefix": provider(from_headers=[{"name": "x-token", "value_prefix": "JWT "}], forward=False),
    "headers": provider(forward_payload_header="x-payload", claim_to_headers=[
        {"header_name": f"x-{c.replace('.', '-')}", "claim_name": c} for c in ("sub", "num", "real", "yes", "list", "deep.er", "none")]),
    "padded": provider(forward_payload_header="x-payload", pad_forward_payload_header=True),
    "scope": provider(payload_in_metadata="p", normalize_payload_in_metadata={"space_delimited_claims": ["scope", "sub"]}),
    "nokid": provider(keys=jwt.jwks(jwt.jwk("RS256"), jwt.jwk("ES256"), jwt.jwk("EdDSA"))),
    "alg": provider(keys=jwt.jwks(jwt.jwk("RS256", kid="k", alg="RS256"), jwt.jwk("ES256", kid="e", alg="ES256"))),
    "cache": provider(jwt_cache_config={}),
}


def name(n):
    return {"provider_name": n}


def any_of(*v):
    return {"requires_any": {"requirements": list(v)}}


def all_of(*v):
    return {"requires_all": {"requirements": list(v)}}


MISSING, FAILED = {"allow_missing": {}}, {"allow_missing_or_failed": {}}
REQUIREMENTS = {**{n: name(n) for n in PROVIDERS},
                "audiences": {"provider_and_audiences": {"provider_name": "aud", "audiences": ["y"]}},
                "nothing": {},
                "a-or-b": any_of(name("a"), name("b")), "b-or-a": any_of(name("b"), name("a")),
                "a-and-b": all_of(name("a"), name("b")),
                "nested": any_of(all_of(name("a"), name("b")), name("aud"))}
# These look for the provider by the token's issuer: each issuer has one.
BYPASSES = {"missing": MISSING, "failed": FAILED, "a-or-missing": any_of(name("a"), MISSING), "a-or-failed": any_of(name("a"), FAILED),
            "b-or-missing": any_of(name("b"), MISSING), "both": any_of(MISSING, name("b"), FAILED),
            "all-missing": all_of(name("a"), MISSING)}
BY_ISSUER = {n: PROVIDERS[n] for n in ("a", "b", "any")}


def bearer(text):
    return [("authorization", f"Bearer {text}")]


def tokens():
    """What the request carries by name: (headers, query)."""
    good = jwt.token(claims())
    head, body, signature = good.split(".")
    b = jwt.token(claims(iss="b"))
    yield "none", [], ""
    for alg in ALGORITHMS:
        yield f"alg-{alg}", bearer(jwt.token(claims(), alg)), ""
    yield "kid", bearer(jwt.token(claims(), kid="RS256")), ""
    yield "kid-other", bearer(jwt.token(claims(), kid="other")), ""
    yield "kid-wrong", bearer(jwt.token(claims(), kid="ES256")), ""
    yield "wrong-key", bearer(jwt.token(claims(), name="two")), ""
    headers = {"none": {"alg": "none"}, "None": {"alg": "None"}, "missing": {"typ": "JWT"}, "number": {"alg": 1},
               "unknown": {"alg": "RS1"}, "kid-number": {"alg": "RS256", "kid": 1}, "bad": b"{", "list": b"[]", "empty": b"{}",
               "text": b'"x"', "twice": b'{"alg":"RS256","alg":"RS256"}', "space": b' {"alg": "RS256"} ',
               "utf8": b'{"alg":"RS256","x":"\xff"}', "null": {"alg": None}, "hs": {"alg": "HS384"}}
    for key, header in headers.items():
        yield f"header-{key}", bearer(jwt.token(claims(), header=header)), ""
    payloads = {"iss-number": claims(iss=1), "no-iss": claims(iss=None), "iss-other": claims(iss="c"), "iss-null": {**CLAIMS, "iss": None},
                "sub-number": claims(sub=1), "sub-other": claims(sub="you"), "no-sub": claims(sub=None),
                "iat-text": claims(iat="1"), "iat-negative": claims(iat=-1), "nbf-text": claims(nbf="1"), "nbf-real": claims(nbf=1.5),
                "nbf-later": claims(nbf=NOW + 1000), "nbf-skew": claims(nbf=NOW + 30), "nbf-huge": claims(nbf=2 ** 64),
                "exp-past": claims(exp=NOW - 1000), "exp-skew": claims(exp=NOW - 30), "exp-zero": claims(exp=0), "no-exp": claims(exp=None),
                "exp-negative": claims(exp=-1), "exp-text": claims(exp="x"), "exp-huge": claims(exp=2 ** 70), "exp-soon": claims(exp=NOW + 300),
                "exp-real": claims(exp=NOW + 300.5), "exp-null": {**CLAIMS, "exp": None},
                "jti-number": claims(jti=1), "aud-text": claims(aud="x"), "aud-url": claims(aud="http://x/"), "aud-other": claims(aud="q"),
                "no-aud": claims(aud=None), "aud-number": claims(aud=1), "aud-numbers": claims(aud=[1]), "aud-empty": claims(aud=[]),
                "bad": b"{", "list": b"[]", "twice": b'{"iss":"a","iss":"a"}', "nul": b'{"iss":"a","x":"\\u0000"}',
                "deeper": b'{"iss":"a","x":' + b"[" * 120 + b"]" * 120 + b"}",
                "rich": claims(num=7, real=1.5, yes=True, list=["p", "q"], deep={"er": "z"}, scope="a b  c", sub="m e")}
    for key, payload in payloads.items():
        yield f"payload-{key}", bearer(jwt.token(payload)), ""
    shapes = {"two": f"{head}.{body}", "four": f"{good}.x", "empty": "", "dots": "..", "no-signature": f"{head}.{body}.",
              "no-header": f".{body}.{signature}", "short": good[:-4], "odd": good[:-1], "stars": f"{head}.{body}.***",
              "bad-header": f"***.{body}.{signature}", "bad-body": f"{head}.***.{signature}", "tail": f"{good}AAAA",
              "trailing": f"{good} ", "padded": f"{good}==", "plus": f"{head}.{body}+.{signature}", "one": "x", "swapped": f"{body}.{head}.{signature}",
              "long": f"{head}.{body}.{'A' * 5000}"}
    for key, text in shapes.items():
        yield f"shape-{key}", bearer(text), ""
    yield "ed-short", bearer(jwt.token(claims(), "EdDSA", signature=b"x" * 63)), ""
    yield "ec-empty", bearer(jwt.token(claims(), "ES256", signature=b"x")), ""
    yield "basic", [("authorization", "Basic x")], ""
    yield "lower", [("authorization", f"bearer {good}")], ""
    yield "behind", [("authorization", f"x Bearer   {good}")], ""
    yield "twice", bearer(good) + bearer(good), ""
    yield "query", [], f"?access_token={good}"
    yield "query-rest", [], f"?p=1&access_token={good}&q=2"
    yield "header-and-query", bearer(good), "?access_token=bad"
    yield "query-and-header", bearer("bad"), f"?access_token={good}"
    yield "cookie", [("cookie", f"x=1; token={good}; b={b}")], ""
    yield "param", [], f"?token={good}&b={b}"
    yield "x-b", [("x-b", b)], ""
    yield "x-b-and-a", [("x-b", b)] + bearer(good), ""
    yield "x-b-twice", [("x-b", b), ("x-b", "bad")], ""
    yield "x-b-of-a", [("x-b", good)], ""
    yield "prefix", [("x-token", f"JWT {good}")], ""
    yield "forged", [("x-payload", "forged"), ("x-sub", "forged")] + bearer(good), ""


REQUESTS = {n: (headers, query) for n, headers, query in tokens()}


class Side:
    def __init__(self, start, directory, upstream, providers=PROVIDERS, requirements=REQUIREMENTS):
        self.log = directory / "access.log"
        access_log = [typed("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                            path=str(self.log), log_format={"text_format_source": {"inline_string": LOG + "\n"}})]
        rules = [{"match": {"prefix": f"/r/{n}/"}, "requires": r} for n, r in requirements.items()]
        rules += [{"match": {"path": "/exact", "case_sensitive": False}, "requirement_name": "named"},
                  {"match": {"safe_regex": {"regex": "/re[0-9]+"}}, "requires": name("a")},
                  {"match": {"path_separated_prefix": "/sep"}, "requires": name("a")},
                  {"match": {"prefix": "/", "headers": [{"name": "x-ask", "present_match": True}]}, "requires": name("a")},
                  {"match": {"prefix": "/", "query_parameters": [{"name": "ask", "present_match": True}]}, "requires": name("a")}]
        config = {"providers": providers, "rules": rules, "requirement_map": {"named": name("a")}, "bypass_cors_preflight": True}
        off = {"envoy.filters.http.jwt_authn": {"@type": f"{TYPE}{JWT}PerRouteConfig", "disabled": True}}
        named = {"envoy.filters.http.jwt_authn": {"@type": f"{TYPE}{JWT}PerRouteConfig", "requirement_name": "named"}}
        wrong = {"envoy.filters.http.jwt_authn": {"@type": f"{TYPE}{JWT}PerRouteConfig", "requirement_name": "wrong"}}
        routes = [{**route("/r/a/off"), "typed_per_filter_config": off}, {**route("/named"), "typed_per_filter_config": named},
                  {**route("/wrong"), "typed_per_filter_config": wrong}, route()]
        self.proxy = start(bootstrap([listener(hcm(vhosts=[vhost(routes)], access_log=access_log, generate_request_id=False,
                                                   filters=[typed("envoy.filters.http.jwt_authn", f"{JWT}JwtAuthentication",
                                                                  **config)]))], [cluster("up", upstream.port)]))

    def verdicts(self, upstream, requests):
        seen, out = len(self.proxy.log_lines(self.log, 0)), []
        for target, headers, method in requests:
            before = len(upstream.requests)
            answer = fetch(self.proxy.port(), target, method, headers, host="h.test")
            sent = [(r.target, {n: r.get(n) for n in FORWARDED}) for r in upstream.requests[before:]]
            out.append((answer.status, answer.body if answer.status != 200 else b"", answer.get("www-authenticate"), sent))
        logs = self.proxy.log_lines(self.log, seen + len(requests))[seen:]
        return list(zip(out, logs))


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, shared_upstream, tmp_path_factory):
    return [Side(start, tmp_path_factory.mktemp("jwt"), shared_upstream) for start in (shared_envoy, shared_sluice)]


def compare(sides, upstream, requests):
    envoy, sluice = (side.verdicts(upstream, list(requests.values())) for side in sides)
    differing = [f"{n}:\n  envoy  {a}\n  sluice {b}" for n, a, b in zip(requests, envoy, sluice) if a != b]
    assert not differing, f"{len(differing)} of {len(requests)}\n" + "\n".join(differing)
    return envoy


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_verdicts(sides, shared_upstream, requirement):
    requests = {n: (f"/r/{requirement}/{query}", headers, "GET") for n, (headers, query) in REQUESTS.items()}
    compare(sides, shared_upstream, requests)


@pytest.fixture(scope="module")
def bypasses(shared_envoy, shared_sluice, shared_upstream, tmp_path_factory):
    return [Side(start, tmp_path_factory.mktemp("jwt"), shared_upstream, BY_ISSUER, BYPASSES) for start in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("requirement", BYPASSES)
def test_bypasses(bypasses, shared_upstream, requirement):
    requests = {n: (f"/r/{requirement}/{query}", headers, "GET") for n, (headers, query) in REQUESTS.items()}
    compare(bypasses, shared_upstream, requests)


def test_rules_and_routes(sides, shared_upstream):
    good = bearer(jwt.token(claims()))
    preflight = [("origin", "http://o.test"), ("access-control-request-method", "GET")]
    targets = ["/exact", "/EXACT", "/exact/", "/exact?x", "/re1", "/re", "/re1/", "/sep", "/sep/", "/sepx", "/sep/x?y", "/other", "/other?ask=1",
               "/r/a/off/x", "/named/x", "/wrong/x", f"/r/a/{'x' * 400}"]
    requests = {f"{t} {i}": (t, headers, "GET") for t in targets for i, headers in enumerate(([], good))}
    requests["asked"] = ("/other", [("x-ask", "1")], "GET")
    forged = [("x-payload", "forged"), ("x-sub", "forged")]
    requests |= {f"forged {t}": (t, forged, "GET") for t in ("/other", "/r/a/off/x", "/r/nothing/", "/named/x")}
    requests["preflight"] = ("/r/a/", preflight, "OPTIONS")
    requests["half a preflight"] = ("/r/a/", preflight[:1], "OPTIONS")
    requests["no preflight"] = ("/r/a/", preflight, "GET")
    compare(sides, shared_upstream, requests)


def test_stats(sides):
    """After all of the above the counters agree."""
    names = ["allowed", "denied", "cors_preflight_bypassed", "jwks_fetch_failed", "jwks_fetch_success"]
    envoy, sluice = ({n: side.proxy.stat(f"http.ingress.jwt_authn.{n}") for n in names} for side in sides)
    assert envoy == sluice and (envoy["denied"] or not envoy["allowed"])


KEY_SETS = {
    "empty": "{}", "no json": "{", "keys no list": '{"keys": 1}', "no keys": '{"keys": []}', "text": '"x"',
    "a good and a bad one": jwt.jwks(jwt.jwk(), {"kty": "RSA"}), "a bad and a good one": jwt.jwks({"kty": "x"}, jwt.jwk()),
    "no kty": jwt.jwks(jwt.jwk(kty=None)), "no object": '{"keys": ["x"]}', "bad n": jwt.jwks(jwt.jwk(n="*")), "no e": jwt.jwks(jwt.jwk(e=None)),
    "e of 5": jwt.jwks(jwt.jwk(e="BQ")), "wrong family": jwt.jwks(jwt.jwk(alg="ES256")), "ps": jwt.jwks(jwt.jwk(alg="PS256")),
    "curve": jwt.jwks(jwt.jwk("ES256", crv="P-999")), "curve and alg": jwt.jwks(jwt.jwk("ES256", alg="ES384")), "no curve": jwt.jwks(jwt.jwk("ES256", crv=None)),
    "off the curve": jwt.jwks(jwt.jwk("ES256", x="AQ")), "short ed": jwt.jwks(jwt.jwk("EdDSA", x="AQ")), "ed alg": jwt.jwks(jwt.jwk("EdDSA", alg="RS256")),
    "x25519": jwt.jwks(jwt.jwk("EdDSA", crv="X25519")), "secret": jwt.jwks(jwt.jwk("HS256")), "no secret": jwt.jwks(jwt.jwk("HS256", k="")),
    "map": '{"a": "b"}', "map of numbers": '{"a": 1}', "use": jwt.jwks(jwt.jwk(use="enc")), "kid": jwt.jwks(jwt.jwk(kid=1)),
}


@pytest.mark.parametrize("keys", KEY_SETS)
def test_key_sets(tmp_path, keys):
    """The same sets are good configurations."""
    if not Envoy.binary:
        pytest.skip("no Envoy to compare with")
    config = {"providers": {"p": provider(keys=KEY_SETS[keys])}}
    text = bootstrap([listener(hcm(filters=[typed("envoy.filters.http.jwt_authn", f"{JWT}JwtAuthentication", **config)]))],
                     [cluster("up", 1)])
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(text))
    envoy, sluice = (subprocess.run([kind.binary, "--mode", "validate", "-c", path], capture_output=True, timeout=60, check=False)
                     for kind in (Envoy, Sluice))
    assert (envoy.returncode == 0) == (sluice.returncode == 0), f"{envoy.stderr[-400:]}\n{sluice.stderr[-400:]}"
