"""JWT authentication on live listeners: local and remote key sets, and key servers that misbehave."""

import json
import subprocess
import threading
import time

import pytest

from support import jwt
from support.config import bootstrap, cluster, hcm, listener, typed
from support.proxy import Sluice
from support.rawhttp import fetch
from support.upstream import Reply, ScriptedUpstream

FILTER, JWT = "envoy.filters.http.jwt_authn", "envoy.extensions.filters.http.jwt_authn.v3."
CLAIMS = {"iss": "a", "sub": "me", "exp": int(time.time()) + 3600}
STAT = "http.ingress.jwt_authn."

pytestmark = pytest.mark.smoke  # all of it under sanitizers


def authn(provider, **fields):
    return typed(FILTER, f"{JWT}JwtAuthentication", providers={"p": {"issuer": "a", **provider}},
                 rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "p"}}], **fields)


def remote(**fields):
    return {"remote_jwks": {"http_uri": {"uri": "http://keys.test/jwks?x=1", "cluster": "keys", "timeout": "5s"}, **fields}}


def bearer(text):
    return [("authorization", f"Bearer {text}")]


def ask(proxy, text):
    return fetch(proxy.port(), "/", "GET", bearer(text))


def keys_server(make, *replies):
    """Answers with one reply after the other; the last one again and again."""
    return make(ScriptedUpstream).script(*replies)


def good_keys():
    return Reply(body=jwt.jwks(jwt.jwk("RS256", kid="k")).encode())


def test_local_keys(sluice, upstream):
    provider = {"local_jwks": {"inline_string": jwt.jwks(jwt.jwk("RS256"))}, "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}]}
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(provider)]))], [cluster("up", upstream.port)]))
    assert ask(proxy, jwt.token(CLAIMS)).status == 200
    assert upstream.requests[-1].get("x-sub") == "me" and upstream.requests[-1].get("authorization") is None
    for bad in (jwt.token(CLAIMS, name="two"), jwt.token(CLAIMS, header={"alg": "none"}), jwt.token(CLAIMS, "HS256"), "x.y.z"):
        answer = ask(proxy, bad)
        assert answer.status == 401 and "invalid_token" in answer.get("www-authenticate")
    assert fetch(proxy.port(), "/").body == b"Jwt is missing"
    assert proxy.stat(STAT + "allowed") == 1 and proxy.stat(STAT + "denied") == 5


def test_one_fetch_serves_all_workers(sluice, upstreams, upstream):
    gate = threading.Event()
    slow = good_keys()
    slow.gate = gate
    keys = keys_server(upstreams, slow)
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(remote())]))], [cluster("up", upstream.port), cluster("keys", keys.port)]),
                   concurrency=4)
    statuses = []
    clients = [threading.Thread(target=lambda: statuses.append(ask(proxy, jwt.token(CLAIMS)).status)) for _ in range(16)]
    for client in clients:
        client.start()
    keys.wait_requests(1)
    gate.set()
    for client in clients:
        client.join()
    assert statuses == [200] * 16 and len(keys.requests) == 1
    assert (keys.requests[0].target, keys.requests[0].get("host")) == ("/jwks?x=1", "keys.test")
    assert proxy.stat(STAT + "jwks_fetch_success") == 1


BAD_ANSWERS = {"garbage": Reply(body=b"\xff{"), "error": Reply(status=404), "empty": Reply(body=b""), "reset": Reply(reset=True),
               "no keys": Reply(body=b'{"keys": []}'), "flood": Reply(body=b" " * (2 << 20))}


@pytest.mark.parametrize("answer", BAD_ANSWERS)
def test_bad_answers_fail_closed(sluice, upstreams, upstream, answer):
    keys = keys_server(upstreams, BAD_ANSWERS[answer], BAD_ANSWERS[answer], good_keys())
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(remote())]))], [cluster("up", upstream.port), cluster("keys", keys.port)]))
    refused = ask(proxy, jwt.token(CLAIMS))
    assert (refused.status, refused.body) == (401, b"Jwks remote fetch is failed")
    assert proxy.stat(STAT + "jwks_fetch_failed") == 1 and not upstream.requests


def test_a_hanging_key_server(sluice, upstreams, upstream):
    keys = keys_server(upstreams, Reply(silent=True))
    config = remote()
    config["remote_jwks"]["http_uri"]["timeout"] = "0.2s"
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(config)]))], [cluster("up", upstream.port), cluster("keys", keys.port)]))
    assert ask(proxy, jwt.token(CLAIMS)).status == 401
    assert proxy.stat(STAT + "jwks_fetch_failed") == 1


def test_a_client_that_leaves_while_keys_are_fetched(sluice, upstreams, upstream):
    slow = good_keys()
    slow.gate = threading.Event()
    keys = keys_server(upstreams, slow)
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(remote())]))], [cluster("up", upstream.port), cluster("keys", keys.port)]))
    with pytest.raises((TimeoutError, OSError)):
        fetch(proxy.port(), "/", "GET", bearer(jwt.token(CLAIMS)), timeout=0.3)
    slow.gate.set()
    proxy.wait_stat(STAT + "jwks_fetch_success", 1)
    assert ask(proxy, jwt.token(CLAIMS)).status == 200 and len(keys.requests) == 1


def test_retries(sluice, upstreams, upstream):
    keys = keys_server(upstreams, Reply(status=503), Reply(status=503), good_keys())
    policy = {"num_retries": 2, "retry_back_off": {"base_interval": "0.01s"}}
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(remote(retry_policy=policy))]))],
                             [cluster("up", upstream.port), cluster("keys", keys.port)]))
    assert ask(proxy, jwt.token(CLAIMS)).status == 200 and len(keys.requests) == 3


def test_keys_expire(sluice, upstreams, upstream):
    keys = keys_server(upstreams, good_keys(), Reply(body=jwt.jwks(jwt.jwk("RS256", "two")).encode()))
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(remote(cache_duration="0.001s"))]))],
                             [cluster("up", upstream.port), cluster("keys", keys.port)]))
    assert ask(proxy, jwt.token(CLAIMS)).status == 200
    assert ask(proxy, jwt.token(CLAIMS)).status == 401
    assert ask(proxy, jwt.token(CLAIMS, name="two")).status == 200


def test_cached_tokens(sluice, upstream):
    provider = {"local_jwks": {"inline_string": jwt.jwks(jwt.jwk("RS256"))}, "jwt_cache_config": {"jwt_cache_size": 1}}
    proxy = sluice(bootstrap([listener(hcm(filters=[authn(provider)]))], [cluster("up", upstream.port)]))
    one, two = jwt.token(CLAIMS), jwt.token({**CLAIMS, "sub": "you"})
    assert [ask(proxy, t).status for t in (one, one, two, one, one[:-8])] == [200, 200, 200, 200, 401]
    assert proxy.stat(STAT + "jwt_cache_hit") == 1 and proxy.stat(STAT + "jwt_cache_miss") == 4


BAD = {
    "no keys": ({"local_jwks": {"inline_string": '{"keys": []}'}}, "invalid local jwks: Jwks doesn't have any valid public key"),
    "no source": ({}, "jwks_source_specifier"),
    "no claim": ({"local_jwks": {"inline_string": jwt.jwks(jwt.jwk("RS256"))}, "claim_to_headers": [{"header_name": "x"}]}, "claim_to_headers[0]"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_config(tmp_path, name):
    provider, message = BAD[name]
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(hcm(filters=[authn(provider)]))], [cluster("up", 1)])))
    done = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr
