"""cors, fault and grpc_stats in front of a scripted upstream."""

import base64

import pytest
from envoy.extensions.access_loggers.file.v3 import file_pb2  # noqa: F401 (the server packs it)
from envoy.extensions.filters.http.fault.v3 import fault_pb2  # noqa: F401

from support.ads_server import CLUSTER, LISTENER, AdsServer
from support.config import bootstrap, cluster, direct, file_log, hcm, http_options, listener, route, typed, vhost
from support.rawhttp import Client, encode, fetch
from support.upstream import Reply
from support.xds_config import ads_bootstrap

HTTP = "envoy.extensions.filters.http"
CORS, FAULT, GRPC_STATS = "envoy.filters.http.cors", "envoy.filters.http.fault", "envoy.filters.http.grpc_stats"
LOCAL_RATELIMIT, LIMIT_TYPE = "envoy.filters.http.local_ratelimit", f"{HTTP}.local_ratelimit.v3.LocalRateLimit"


def per_route(name, type_name, **fields):
    return {name: {"@type": f"type.googleapis.com/{type_name}", **fields}}


def percent(n):
    return {"numerator": n, "denominator": "HUNDRED"}


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    policy = per_route(CORS, f"{HTTP}.cors.v3.CorsPolicy", allow_origin_string_match=[{"exact": "https://ok.example"}],
                       allow_methods="GET, PUT", max_age="60", allow_credentials=True)
    abort = per_route(FAULT, f"{HTTP}.fault.v3.HTTPFault", abort={"http_status": 418, "percentage": percent(100)})
    delay = per_route(FAULT, f"{HTTP}.fault.v3.HTTPFault", delay={"fixed_delay": "0.2s", "percentage": percent(100)})
    routes = [{**route("/cors"), "typed_per_filter_config": policy}, {**route("/abort"), "typed_per_filter_config": abort},
              {**route("/delay"), "typed_per_filter_config": delay}, route()]
    filters = [typed(CORS, f"{HTTP}.cors.v3.Cors"), typed(FAULT, f"{HTTP}.fault.v3.HTTPFault"),
               typed(GRPC_STATS, f"{HTTP}.grpc_stats.v3.FilterConfig", stats_for_all_methods=True)]
    main = listener(hcm(vhosts=[vhost(routes)], filters=filters))
    return shared_sluice(bootstrap([main], [cluster("up", shared_upstream.port)]))


@pytest.fixture
def up(shared_upstream):
    return shared_upstream.script(Reply(body=b"ok"))


@pytest.mark.smoke
def test_preflight_is_answered(proxy, up):
    answer = fetch(proxy.port(), "/cors", method="OPTIONS",
                   headers=[("origin", "https://ok.example"), ("access-control-request-method", "PUT")])
    assert answer.status == 200 and answer.get("access-control-allow-origin") == "https://ok.example"
    assert answer.get("access-control-allow-methods") == "GET, PUT" and answer.get("access-control-max-age") == "60"
    assert answer.get("access-control-allow-credentials") == "true"


def test_a_foreign_origin_gets_no_permission(proxy, up):
    answer = fetch(proxy.port(), "/cors", headers=[("origin", "https://evil.example")])
    assert answer.status == 200 and answer.body == b"ok" and answer.get("access-control-allow-origin") is None
    assert proxy.stat("http.ingress.cors.origin_invalid") >= 1


def test_abort(proxy, up):
    answer = fetch(proxy.port(), "/abort")
    assert answer.status == 418 and answer.body == b"fault filter abort"
    assert proxy.stat("http.ingress.fault.aborts_injected") >= 1


def test_delay(proxy, up):
    answer = fetch(proxy.port(), "/delay")
    assert answer.status == 200 and proxy.stat("http.ingress.fault.delays_injected") >= 1


def test_grpc_calls_are_counted(proxy, shared_upstream):
    shared_upstream.script(Reply(headers=[("content-type", "application/grpc"), ("grpc-status", "0")], body=b""))
    answer = fetch(proxy.port(), "/pkg.Service/Method", method="POST",
                   headers=[("content-type", "application/grpc"), ("te", "trailers"), ("content-length", "0")])
    assert answer.status == 200
    proxy.wait_stat("cluster.up.grpc.pkg.Service.Method.total", lambda n: n >= 1)


@pytest.mark.smoke
def test_cluster_leaves_while_a_request_waits(sluice, tmp_path):
    """What the log tells of the cluster outlives it."""
    log = tmp_path / "access.log"
    slow = per_route(FAULT, f"{HTTP}.fault.v3.HTTPFault", delay={"fixed_delay": "0.5s", "percentage": percent(100)})
    main = hcm([{**route(), "typed_per_filter_config": slow}], filters=[typed(FAULT, f"{HTTP}.fault.v3.HTTPFault")],
               access_log=[file_log(log, "%UPSTREAM_CLUSTER% %RESPONSE_FLAGS%\n")], route_fields={"validate_clusters": False})
    with AdsServer() as ads:
        ads.set(CLUSTER, "c1", [cluster("up", 1)])
        ads.set(LISTENER, "l1", [listener(main)])
        proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"))
        with Client(proxy.port()) as client:
            client.send(encode("GET", "/"))
            proxy.wait_stat("http.ingress.fault.active_faults", 1)
            ads.set(CLUSTER, "c2", [])
            ads.wait_ack(CLUSTER, "c2")
            client.read()
        assert proxy.log_lines(log, 1) == ["up DI,NC"]


@pytest.mark.smoke
def test_grpc_web(sluice, shared_upstream):
    """A browser's call: base64 text both ways, the trailers in the body."""
    web = typed("envoy.filters.http.grpc_web", f"{HTTP}.grpc_web.v3.GrpcWeb")
    h1 = {"typed_extension_protocol_options": http_options(explicit_http_config={"http_protocol_options": {"enable_trailers": True}})}
    proxy = sluice(bootstrap([listener(hcm([route()], filters=[web]))], [cluster("up", shared_upstream.port, **h1)]))
    message = b"\0\0\0\0\1a"
    shared_upstream.script(Reply(headers=[("content-type", "application/grpc")], chunks=[message], trailers=[("grpc-status", "0")]))
    text = "application/grpc-web-text"
    answer = fetch(proxy.port(), "/pkg.Service/Method", "POST", [("content-type", text), ("accept", text), ("content-length", "8")],
                   base64.b64encode(message))
    assert answer.status == 200 and answer.get("content-type") == f"{text}+proto" and not answer.trailers
    assert answer.body == base64.b64encode(message) + base64.b64encode(b"\x80\0\0\0\x0fgrpc-status:0\r\n")
    assert shared_upstream.requests[0].body == message
    bad = fetch(proxy.port(), "/pkg.Service/Method", "POST", [("content-type", text), ("content-length", "3")], b"AAA")
    assert bad.status == 400
    assert proxy.stat("cluster.up.grpc-web.pkg.Service.Method.success") == 1


@pytest.mark.smoke
def test_local_ratelimit_by_descriptors(sluice, nginx):
    """Each value of a header has a bucket, of which two are remembered; the route says what counts."""
    always = {"default_value": percent(100)}
    limit = {"stat_prefix": "l", "filter_enabled": always, "filter_enforced": always, "max_dynamic_descriptors": 2,
             "descriptors": [{"entries": [{"key": "user"}], "token_bucket": {"max_tokens": 2, "fill_interval": "1000s"}}]}
    by_user = {"actions": [{"request_headers": {"header_name": "x-user", "descriptor_key": "user"}}]}
    proxy = sluice(bootstrap([listener(hcm([route(rate_limits=[by_user])], filters=[typed(LOCAL_RATELIMIT, LIMIT_TYPE, **limit)]))],
                             [cluster("up", nginx.port)]), concurrency=2)

    def ask(user):
        return fetch(proxy.port(), "/who", headers=[("x-user", user)] if user else []).status
    assert [ask(user) for user in "aaabbba"] == [200, 200, 429, 200, 200, 429, 429]
    assert [ask(user) for user in "ca"] == [200, 429]  # b was used before a, so c has its place
    assert [ask(None) for _ in range(4)] == [200] * 4
    assert proxy.stat("l.http_local_rate_limit.rate_limited") == 4


@pytest.mark.smoke
def test_local_ratelimit_of_a_connection(sluice):
    limit = typed(LOCAL_RATELIMIT, LIMIT_TYPE, stat_prefix="l", token_bucket={"max_tokens": 2, "fill_interval": "1000s"},
                  filter_enabled={"default_value": {"numerator": 100}}, filter_enforced={"default_value": {"numerator": 100}},
                  local_rate_limit_per_downstream_connection=True)
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)], filters=[limit]))]))
    for _ in range(2):
        with Client(proxy.port()) as client:
            assert [client.request("GET", "/").status for _ in range(3)] == [200, 200, 429]
    assert proxy.stat("l.http_local_rate_limit.rate_limited") == 2


def test_local_ratelimit(sluice):
    """One bucket for all workers; a route has its own."""
    always = {"default_value": percent(100)}
    limit = {"stat_prefix": "l", "filter_enabled": always, "filter_enforced": always,
             "token_bucket": {"max_tokens": 3, "fill_interval": "1000s"}}
    wide = per_route(LOCAL_RATELIMIT, LIMIT_TYPE, **{**limit, "token_bucket": {"max_tokens": 5, "fill_interval": "1000s"}})
    answers = {"direct_response": {"status": 200}}
    proxy = sluice(bootstrap([listener(hcm([{"match": {"prefix": "/wide"}, "typed_per_filter_config": wide, **answers},
                                            {"match": {"prefix": "/"}, **answers}],
                                           filters=[typed(LOCAL_RATELIMIT, LIMIT_TYPE, **limit)]))]), concurrency=2)
    statuses = [fetch(proxy.port(), path).status for path in ["/"] * 8 + ["/wide"] * 8]
    assert statuses == [200] * 3 + [429] * 5 + [200] * 5 + [429] * 3
    assert fetch(proxy.port(), "/").body == b"local_rate_limited"
    assert proxy.stat("l.http_local_rate_limit.rate_limited") == 9
