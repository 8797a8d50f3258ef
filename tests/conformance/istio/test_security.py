"""Who may do what, as istiod renders it: RequestAuthentication and AuthorizationPolicy (ALLOW, DENY, AUDIT, dry-run, CUSTOM over
HTTP and gRPC) on gateways and on a sidecar, against tokens and paths made to slip through."""

import base64
import concurrent.futures
import json
import threading
import time

import grpc
import pytest
from envoy.service.auth.v3 import external_auth_pb2 as auth
from envoy.service.auth.v3 import external_auth_pb2_grpc as auth_grpc

from apps import App, Keeper, Traffic, get, told
from mesh import Workload
from resources import entry, gateway, resource, server, to, virtual_service

from support.jwt import b64, encode, jwk, jwks, token
from support.process import can_connect, free_port, wait_until
from support.upstream import Reply

SECURITY = "security.istio.io/v1"
ISSUER, OTHER = "https://issuer.test", "https://other.test"
HTTP_AUTHZ, GRPC_AUTHZ = "authz-http.default.svc.cluster.local", "authz-grpc.default.svc.cluster.local"
MESH = {"proxyListenPort": free_port(), "proxyInboundListenPort": free_port(),
        "pathNormalization": {"normalization": "DECODE_AND_MERGE_SLASHES"},
        "extensionProviders": [
            {"name": "by-http", "envoyExtAuthzHttp": {
                "service": HTTP_AUTHZ, "port": 80, "timeout": "1s", "pathPrefix": "/check",
                "includeRequestHeadersInCheck": ["x-user"], "includeAdditionalHeadersInCheck": {"x-asked": "gateway"},
                "headersToUpstreamOnAllow": ["x-known"], "headersToDownstreamOnDeny": ["x-why"],
                "includeRequestBodyInCheck": {"maxRequestBytes": 16, "allowPartialMessage": True}}},
            {"name": "by-grpc", "envoyExtAuthzGrpc": {"service": GRPC_AUTHZ, "port": 80, "timeout": "1s"}}]}
JWT_HOST, OPEN_HOST, ASKED = "jwt.example.com", "open.example.com", "asked.example.com"
PORTS = ("policies", "http", "grpc", "sidecar")


def policy(name, selector, action="ALLOW", rules=None, annotations=None, **fields):
    made = resource("AuthorizationPolicy", name, {"selector": {"matchLabels": selector}, "action": action, **fields,
                                                  **({} if rules is None else {"rules": rules})}, "istio-system", SECURITY)
    made["metadata"]["annotations"] = annotations or {}
    return made


def operation(**fields):
    return {"to": [{"operation": fields}]}


def issuer():
    return {"issuer": ISSUER, "jwks": jwks(jwk("RS256", kid="one", alg="RS256")), "audiences": ["shop"],
            "forwardOriginalToken": True, "outputPayloadToHeader": "x-payload",
            "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}],
            "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}, {"name": "x-token"}], "fromParams": ["token"]}


def claims(**changes):
    now = int(time.time())
    return {k: v for k, v in {"iss": ISSUER, "sub": "ann", "aud": "shop", "iat": now, "exp": now + 600, "groups": ["staff"],
                              **changes}.items() if v is not None}


def signed(kid="one", **changes):
    return token(claims(**changes), kid=kid)


class Checker(auth_grpc.AuthorizationServicer):
    """Lets x-user: ann pass; hangs when told to."""

    def __init__(self):
        self.hangs = threading.Event()
        self.asked = []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        auth_grpc.add_AuthorizationServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def Check(self, request, context):  # noqa: N802 named by gRPC
        about = request.attributes.request.http
        self.asked.append(about.path)
        while self.hangs.is_set() and context.is_active():
            time.sleep(0.01)
        answer = auth.CheckResponse()
        if about.headers.get("x-user") == "ann":
            answer.ok_response.headers.add().header.CopyFrom(header("x-known", "ann by gRPC"))
        else:
            answer.status.code = grpc.StatusCode.PERMISSION_DENIED.value[0]
            answer.denied_response.status.code = 401
            answer.denied_response.body = "who are you"
        return answer

    def stop(self):
        self.hangs.clear()
        self.server.stop(0).wait()


def header(name, value):
    from envoy.config.core.v3 import base_pb2
    return base_pb2.HeaderValue(key=name, value=value)


@pytest.fixture(scope="module")
def apps():
    made = {"app": App("app"), "authz": App("authz"), "checker": Checker()}
    made["authz"].script(lambda r: Reply(200, headers=[("x-known", "ann by HTTP")]) if r.get("x-user") == "ann" else
                         Reply(403, headers=[("x-why", "unknown"), ("x-hidden", "y")], body=b"no entry"))
    yield made
    for app in made.values():
        app.stop()


@pytest.fixture(scope="module")
def ports():
    return {name: free_port() for name in PORTS}


def objects(apps, ports):
    guard = {"guard": "policies"}
    staff = {"key": "request.auth.claims[groups]", "values": ["staff"]}
    return [
        entry("app", apps["app"].port), entry("authz-http", apps["authz"].port),
        entry("authz-grpc", apps["checker"].port, "GRPC"),
        *(gateway(name, server(ports[name], "HTTP"), selector={"guard": name}) for name in ("policies", "http", "grpc")),
        virtual_service("app", ["*"], ["policies", "http", "grpc"], http=[{"route": to("app")}]),
        resource("RequestAuthentication", "jwt", {"selector": {"matchLabels": guard}, "jwtRules": [issuer()]}, "istio-system",
                 SECURITY),
        policy("no-secrets", guard, "DENY", [operation(paths=["/secret", "/secret/*", "*/.git"]), operation(methods=["TRACE"]),
                                             {"when": [{"key": "request.headers[x-evil]", "values": ["*"]}]}]),
        policy("needs-token", guard, "DENY", [{"from": [{"source": {"notRequestPrincipals": ["*"]}}],
                                               **operation(hosts=[JWT_HOST])}]),
        policy("allowed", guard, "ALLOW", [
            operation(hosts=[OPEN_HOST], notPaths=["/closed*"]),
            {**operation(hosts=[JWT_HOST], paths=["/staff/*"]), "when": [staff]},
            {**operation(hosts=[JWT_HOST], paths=["/ann/{*}/x/{**}"]),
             "from": [{"source": {"requestPrincipals": [f"{ISSUER}/ann"]}}]},
            {**operation(hosts=[JWT_HOST], paths=["/from/loopback"]), "from": [{"source": {"ipBlocks": ["127.0.0.0/8"]}}]},
            {**operation(hosts=[JWT_HOST], paths=["/from/elsewhere"]),
             "from": [{"source": {"notIpBlocks": ["127.0.0.0/8"]}}]}]),
        policy("tried-out", guard, "DENY", [operation(paths=["/dry*"])], {"istio.io/dry-run": "true"}),
        policy("watched", guard, "AUDIT", [operation(paths=["/audited*"])]),
        policy("ask-http", {"guard": "http"}, "CUSTOM", [operation(hosts=[ASKED])], provider={"name": "by-http"}),
        policy("ask-grpc", {"guard": "grpc"}, "CUSTOM", [operation(hosts=[ASKED])], provider={"name": "by-grpc"})]


@pytest.fixture(scope="module")
def planes(istio, apps, ports):
    istio.apply(objects(apps, ports))
    made = {name: istio.proxy(Workload(f"gate-{name}", account="gate", labels={"guard": name}))
            for name in ("policies", "http", "grpc")}
    wait_until(lambda: all(can_connect(ports[name]) for name in made), lambda: str({n: p.listeners() for n, p in made.items()}), 20)
    return made


def ask(ports, host, path="/", method="GET", where="policies", **options):
    return get(ports[where], host, path, method=method, **options)


def bearer(value):
    return [("authorization", f"Bearer {value}")]


# ---- tokens ----

BAD_TOKENS = {
    "expired": lambda: signed(exp=int(time.time()) - 600),
    "not yet": lambda: signed(nbf=int(time.time()) + 600),
    "another issuer": lambda: signed(iss=OTHER),
    "no issuer": lambda: signed(iss=None),
    "another key": lambda: token(claims(), kid="one", name="other"),
    "unknown kid": lambda: signed(kid="two"),
    "alg none": lambda: token(claims(), header={"alg": "none", "typ": "JWT"}, signature=b""),
    "alg None": lambda: token(claims(), header={"alg": "NoNe", "typ": "JWT"}, signature=b""),
    "alg HS256": lambda: token(claims(), "HS256", kid="one"),
    "no alg": lambda: token(claims(), header={"typ": "JWT", "kid": "one"}),
    "no signature": lambda: signed().rsplit(".", 1)[0] + ".",
    "two parts": lambda: signed().rsplit(".", 1)[0],
    "other payload": lambda: ".".join(p if i != 1 else encode(claims(groups=["staff"], sub="root"))
                                      for i, p in enumerate(signed(groups=[]).split("."))),
    "payload no object": lambda: token(b"[]", kid="one"),
    "exp a string": lambda: token(claims(exp="tomorrow"), kid="one"),
    "nonsense": lambda: "nonsense", "empty": lambda: "", "bytes": lambda: b64(bytes(range(128, 256))),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
@pytest.mark.parametrize("host", [JWT_HOST, OPEN_HOST])
def test_bad_tokens(planes, apps, ports, name, host):
    """Refused even where no token is needed."""
    before = len(apps["app"].requests)
    answer = ask(ports, host, "/staff/a", headers=bearer(BAD_TOKENS[name]()))
    if name == "empty":   # no token at all
        assert answer.status == (403 if host == JWT_HOST else 200)
    else:
        assert answer.status == 401 and answer.get("www-authenticate", "").startswith("Bearer realm="), answer
        assert len(apps["app"].requests) == before


def test_wrong_audience(planes, ports):
    answer = ask(ports, JWT_HOST, "/staff/a", headers=bearer(signed(aud="bank")))
    assert (answer.status, answer.body) == (403, b"Audiences in Jwt are not allowed")


@pytest.mark.parametrize("place", ["authorization", "header", "query"])
def test_good_token(planes, ports, place):
    value = signed()
    options = {"authorization": {"headers": bearer(value)}, "header": {"headers": [("x-token", value)]}, "query": {}}[place]
    path = f"/staff/a?token={value}" if place == "query" else "/staff/a"
    got = told(ask(ports, JWT_HOST, path, **options))["headers"]
    payload = json.loads(base64.urlsafe_b64decode(got["x-payload"] + "=="))
    assert (payload["sub"], got["x-sub"]) == ("ann", "ann")
    assert place != "authorization" or got["authorization"] == f"Bearer {value}"


def test_forged_claim_headers(planes, ports):
    got = told(ask(ports, OPEN_HOST, "/", headers=[("x-sub", "root"), ("x-payload", "e30")]))["headers"]
    assert "x-sub" not in got


# ---- policies ----

VERDICTS = [
    (JWT_HOST, "/staff/a", None, 403), (JWT_HOST, "/staff/a", {"groups": ["guest"]}, 403),
    (JWT_HOST, "/staff/a", {"groups": ["guest", "staff"]}, 200), (JWT_HOST, "/staff/a", {"groups": "staff"}, 200),
    (JWT_HOST, "/staffroom", {}, 403), (JWT_HOST, "/other", {}, 403),
    (JWT_HOST, "/ann/1/x/2/3", {}, 200), (JWT_HOST, "/ann/1/2/x/3", {}, 403), (JWT_HOST, "/ann/1/x/2", {"sub": "bob"}, 403),
    (JWT_HOST, "/from/loopback", {}, 200), (JWT_HOST, "/from/elsewhere", {}, 403),
    (OPEN_HOST, "/", None, 200), (OPEN_HOST, "/closed", None, 403), (OPEN_HOST, "/secret", None, 403),
    (OPEN_HOST.upper(), "/", None, 200), (f"{OPEN_HOST}:8080", "/", None, 403), ("unknown.example.com", "/", None, 403),
    (OPEN_HOST, "/a/.git", None, 403), (OPEN_HOST, "/dry-run", None, 200), (OPEN_HOST, "/audited", None, 200)]


@pytest.mark.parametrize("host, path, who, status", VERDICTS, ids=[f"{h}{p}-{i}" for i, (h, p, _, _) in enumerate(VERDICTS)])
def test_verdicts(planes, ports, host, path, who, status):
    headers = bearer(signed(**who)) if who is not None else []
    answer = ask(ports, host, path, headers=headers)
    assert answer.status == status, answer
    assert status != 403 or answer.body == b"RBAC: access denied"


ADVERSARIAL = {
    "/secret": 403, "/secret?x": 403, "/secret/": 403, "/secret/a": 403, "//secret": 403, "/./secret": 403, "/a/../secret": 403,
    "/%73ecret": 403, "/%2e/secret": 403, "/a/%2e%2e/secret": 403, "/a/..%2fsecret": 403, "/a%2f..%2fsecret": 403,
    "/a/..%5csecret": 403, "\\secret": 400, "/a\\..\\secret": 403, "/a//..//../secret": 200, "/secret%2fa": 403,
    "/secret#x": 403, "/secret%00": 400, "/secret%23x": 200, "/secret;a=b": 200, "/SECRET": 200, "/secrets": 200,
    "/a?/secret": 200, "/%2573ecret": 200, "/..": 200, "/secret%ff": 200, "/a/%2e%2e%2fsecret/b": 403, "/a/.git": 403,
    "/a/.git/": 200, "/a//.git": 403, "/a/%2egit": 403, "/a/b/../.git": 403}


@pytest.mark.parametrize("path", ADVERSARIAL)
def test_adversarial_paths(planes, ports, path):
    assert ask(ports, OPEN_HOST, path).status == ADVERSARIAL[path]


def test_headers_and_methods(planes, ports):
    assert ask(ports, OPEN_HOST, "/", "TRACE").status in (403, 405)
    for value in ("1", "", "a, b"):
        assert ask(ports, OPEN_HOST, "/", headers=[("x-evil", value)]).status == 403
    assert ask(ports, OPEN_HOST, "/", headers=[("X-EVIL", "1")]).status == 403
    assert ask(ports, OPEN_HOST, "/", headers=[("x-evil", ""), ("x-evil", "1")]).status == 403


def test_dry_run_is_told(planes, ports):
    """Counted as what would have been denied."""
    before = sum(planes["policies"].stats(r"rbac.*shadow_denied").values())
    assert ask(ports, OPEN_HOST, "/dry").status == 200
    wait_until(lambda: sum(planes["policies"].stats(r"rbac.*shadow_denied").values()) > before, "the shadow verdict")


def test_policies_change_under_load(istio, planes, apps, ports):
    """A stricter policy comes and goes; what it does not concern never fails, what it does is refused in between only."""
    keeper = Keeper(ports["policies"], OPEN_HOST)
    stricter = policy("stricter", {"guard": "policies"}, "DENY", [operation(paths=["/other"])])
    with Traffic(keeper.server):
        for _ in range(3):
            assert ask(ports, OPEN_HOST, "/other").status == 200
            with istio.applied([stricter]):
                wait_until(lambda: ask(ports, OPEN_HOST, "/other").status == 403, "the stricter policy", 20)
            wait_until(lambda: ask(ports, OPEN_HOST, "/other").status == 200, "the policy to go", 20)
    keeper.close()


def test_keys_rotate_under_load(istio, planes, ports):
    keeper = Keeper(ports["policies"], OPEN_HOST)
    newer = token(claims(), kid="new", name="new")
    changed = issuer()
    changed["jwks"] = jwks(jwk("RS256", kid="one", alg="RS256"), jwk("RS256", "new", kid="new", alg="RS256"))
    rule = resource("RequestAuthentication", "jwt", {"selector": {"matchLabels": {"guard": "policies"}}, "jwtRules": [changed]},
                    "istio-system", SECURITY)
    assert ask(ports, JWT_HOST, "/staff/a", headers=bearer(newer)).status == 401
    with Traffic(keeper.server):
        with istio.applied([rule]):
            wait_until(lambda: ask(ports, JWT_HOST, "/staff/a", headers=bearer(newer)).status == 200, "the new key", 20)
            assert ask(ports, JWT_HOST, "/staff/a", headers=bearer(signed())).status == 200
        wait_until(lambda: ask(ports, JWT_HOST, "/staff/a", headers=bearer(newer)).status == 401, "the key to go", 20)
    keeper.close()


# ---- external authorization ----

def test_custom_over_http(planes, apps, ports):
    got = told(ask(ports, ASKED, "/a/b?c", "POST", "http", headers=[("x-user", "ann"), ("x-known", "forged")], body=b"0123456789" * 3))
    assert got["headers"]["x-known"] == "ann by HTTP" and apps["app"].requests[-1].body == b"0123456789" * 3
    asked = apps["authz"].requests[-1]
    assert (asked.method, asked.target, asked.body, asked.get("x-asked")) == ("POST", "/check/a/b?c", b"0123456789012345", "gateway")
    answer = ask(ports, ASKED, where="http", headers=[("x-user", "bob")])
    assert (answer.status, answer.body, answer.get("x-why"), answer.get("x-hidden")) == (403, b"no entry", "unknown", None)
    before = len(apps["authz"].requests)
    assert ask(ports, OPEN_HOST, where="http").status == 200 and len(apps["authz"].requests) == before


def test_custom_over_grpc(planes, apps, ports):
    got = told(ask(ports, ASKED, "/a?b", where="grpc", headers=[("x-user", "ann")]))
    assert got["headers"]["x-known"] == "ann by gRPC" and apps["checker"].asked[-1] == "/a?b"
    answer = ask(ports, ASKED, where="grpc")
    assert (answer.status, answer.body) == (401, b"who are you")
    before = len(apps["checker"].asked)
    assert ask(ports, OPEN_HOST, where="grpc").status == 200 and len(apps["checker"].asked) == before


@pytest.mark.parametrize("path, seen", [("/a/../../b", "/b"), ("//c", "/c"), ("/%2e%2e/d", "/d"), ("/e%2ff", "/e/f")])
def test_custom_sees_the_path_that_is_routed(planes, apps, ports, path, seen):
    got = told(ask(ports, ASKED, path, where="grpc", headers=[("x-user", "ann")]))
    assert (apps["checker"].asked[-1], got["path"]) == (seen, seen)


def test_custom_fails_closed(planes, apps, ports):
    apps["checker"].hangs.set()
    try:
        assert ask(ports, ASKED, where="grpc", headers=[("x-user", "ann")]).status == 403
        assert ask(ports, OPEN_HOST, where="grpc").status == 200
    finally:
        apps["checker"].hangs.clear()
    wait_until(lambda: ask(ports, ASKED, where="grpc", headers=[("x-user", "ann")]).status == 200, "service again", 5)


# ---- on a sidecar ----

@pytest.fixture(scope="module")
def sidecar(istio, apps, ports, planes):
    chosen = {"app": "guarded"}
    istio.apply([
        entry("guarded", 0, endpoints=[], workloadSelector={"labels": chosen}, number=80),
        resource("Sidecar", "guarded", {"workloadSelector": {"labels": chosen}, "ingress": [
            {"port": {"number": ports["sidecar"], "protocol": "HTTP", "name": "http"}, "bind": "127.0.0.1", "captureMode": "NONE",
             "defaultEndpoint": f"127.0.0.1:{apps['app'].port}"}], "egress": [{"hosts": ["./guarded"]}]}),
        resource("RequestAuthentication", "guarded", {"selector": {"matchLabels": chosen}, "jwtRules": [issuer()]},
                 version=SECURITY),
        resource("AuthorizationPolicy", "guarded", {"selector": {"matchLabels": chosen}, "rules": [
            operation(paths=["/healthz"]), {"from": [{"source": {"requestPrincipals": ["*"]}}], **operation(methods=["GET"])}]},
            version=SECURITY)])
    made = istio.proxy(Workload("guarded", "sidecar", "default", "guarded", labels=chosen))
    wait_until(lambda: can_connect(ports["sidecar"]), lambda: str(made.listeners()), 20)
    return made


@pytest.mark.parametrize("path, method, headers, status", [
    ("/healthz", "GET", [], 200), ("/", "GET", [], 403), ("/", "GET", "good", 200), ("/", "DELETE", "good", 403),
    ("/healthz", "GET", "alg none", 401), ("/", "GET", "expired", 401), ("/", "GET", "another issuer", 401),
    ("/healthz/../", "GET", [], 403), ("/x/../healthz", "GET", [], 200)])
def test_sidecar(sidecar, ports, path, method, headers, status):
    given = bearer(signed() if headers == "good" else BAD_TOKENS[headers]()) if headers else []
    assert ask(ports, OPEN_HOST, path, method, "sidecar", headers=given).status == status
