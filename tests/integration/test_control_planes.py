"""What control planes put into everybody's configuration, asked for or not, and bootstraps as they are written in the field."""
import subprocess

import pytest
from support.config import bootstrap, cluster, direct, hcm, http_options, listener, route, tcp_proxy, typed, vhost
from support.proxy import Sluice
from support.rawhttp import Client, chunks, fetch
from support.upstream import Reply
from support.xds_config import ads_bootstrap, serve_all

HTTP = "envoy.extensions.filters.http"
SCRIPT = "function envoy_on_response(handle) handle:headers():add('x-lua', '1') end"


def validate(tmp_path, text):
    path = tmp_path / "bootstrap.yaml"
    path.write_text(text)
    return subprocess.run([Sluice.binary, "-c", str(path), "--mode", "validate"], capture_output=True, text=True,
                          timeout=30, check=False)


@pytest.mark.parametrize("text", ["admin: {}", "admin: {access_log_path: /dev/null}", "{}"])
def test_no_admin_address(tmp_path, text):
    done = validate(tmp_path, text)
    assert done.returncode == 0 and "OK" in done.stdout, done.stderr


@pytest.mark.parametrize("version, text", [("V3", ""), ("AUTO", ""), ("V2", "transport_api_version: V2 is no longer")])
def test_versions_of_the_transport(tmp_path, sluice, ads, upstream, version, text):
    if text:
        done = validate(tmp_path, str(ads_bootstrap(ads, transport_api_version=version)))
        assert done.returncode == 1 and text in done.stderr
        return
    serve_all(ads, upstream.port)
    assert fetch(sluice(ads_bootstrap(ads, transport_api_version=version)).port()).status == 200


def default_chain():
    """An ingress controller's: most filters wait for a route's own settings."""
    gzip = typed("gzip", "envoy.extensions.compression.gzip.compressor.v3.Gzip")
    return [typed("envoy.filters.http.compressor", f"{HTTP}.compressor.v3.Compressor", compressor_library=gzip),
            typed("envoy.filters.http.grpc_web", f"{HTTP}.grpc_web.v3.GrpcWeb"),
            typed("envoy.filters.http.grpc_stats", f"{HTTP}.grpc_stats.v3.FilterConfig", emit_filter_state=True,
                  enable_upstream_stats=True),
            typed("envoy.filters.http.cors", f"{HTTP}.cors.v3.Cors"),
            typed("envoy.filters.http.local_ratelimit", f"{HTTP}.local_ratelimit.v3.LocalRateLimit", stat_prefix="http"),
            typed("envoy.filters.http.lua", f"{HTTP}.lua.v3.Lua",
                  source_codes={"rewrite": {"inline_string": SCRIPT}}),
            typed("envoy.filters.http.rbac", f"{HTTP}.rbac.v3.RBAC")]


def test_an_ingress_controllers_chain_serves(sluice, upstream):
    upstream.script(Reply(body=b"ok"))
    off = {"envoy.filters.http.lua": {"@type": f"type.googleapis.com/{HTTP}.lua.v3.LuaPerRoute", "disabled": True}}
    manager = hcm(vhosts=[vhost([{**route("/off"), "typed_per_filter_config": off}, route()])], filters=default_chain())
    proxy = sluice(bootstrap([listener(manager)], [cluster("up", upstream.port)]))
    for path in ("/", "/off"):
        answer = fetch(proxy.port(), path)
        assert answer.status == 200 and answer.body == b"ok" and answer.get("x-lua") is None


def test_a_script_that_would_run_is_refused(tmp_path):
    lua = typed("envoy.filters.http.lua", f"{HTTP}.lua.v3.Lua", default_source_code={"inline_string": SCRIPT})
    done = validate(tmp_path, str(bootstrap([listener(hcm(filters=[lua]))], [cluster("up", 1)])))
    assert done.returncode == 1
    assert "http_filters[0].typed_config.default_source_code: Lua scripts are not supported" in done.stderr


def test_a_meshs_inbound_chain_serves(sluice, upstream):
    """A limit of connections, who the peer is for routes, and a gateway's choice of cluster by server name."""
    upstream.script(Reply(body=b"ok"))
    limit = typed("envoy.filters.network.connection_limit", "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
                  stat_prefix="inbound", max_connections=1)
    who = {"object_key": "peer", "factory_key": "envoy.string", "read_only": True, "skip_if_empty": True,
           "format_string": {"text_format_source": {"inline_string": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"}}}
    state = typed("envoy.filters.network.set_filter_state", "envoy.extensions.filters.network.set_filter_state.v3.Config",
                  on_new_connection=[who])
    again = typed("envoy.filters.http.set_filter_state", f"{HTTP}.set_filter_state.v3.Config", on_request_headers=[
        {**who, "object_key": "name", "format_string": {"text_format_source": {"inline_string": "%REQ(x-name)%"}}}])
    by_peer = {"match": {"prefix": "/", "filter_state": [{"key": "peer", "string_match": {"exact": "127.0.0.1"}}]},
               "route": {"cluster": "up"}}
    sni = typed("envoy.filters.network.sni_cluster", "envoy.extensions.filters.network.sni_cluster.v3.SniCluster")
    proxy = sluice(bootstrap([listener(limit, state, hcm(routes=[by_peer, direct("/", 403)], filters=[again])),
                              listener(sni, tcp_proxy(), name="gateway")], [cluster("up", upstream.port)]))
    with Client(proxy.port("main")) as client:
        assert client.request("GET", "/").body == b"ok"
        with Client(proxy.port("main")) as second:
            assert second.is_closed()
    assert proxy.stat("connection_limit.inbound.limited_connections") == 1
    assert fetch(proxy.port("gateway")).body == b"ok"  # no server name: the configured cluster


def test_a_mesh_tells_clients_by_metadata(sluice, upstream):
    """Parts of a header become metadata, by which requests are let in."""
    rewrite = {"pattern": {"regex": "^.*URI=spiffe://([^/]+)/.*$"}, "substitution": "\\1"}
    to_metadata = typed("envoy.filters.http.header_to_metadata", f"{HTTP}.header_to_metadata.v3.Config", request_rules=[
        {"header": "x-forwarded-client-cert", "remove": True, "on_header_present": {
            "metadata_namespace": "mesh", "key": "trust-domain", "regex_value_rewrite": rewrite}}])
    trusted = {"metadata": {"filter": "mesh", "path": [{"key": "trust-domain"}], "value": {"string_match": {"exact": "a.test"}}}}
    rbac = typed("envoy.filters.http.rbac", f"{HTTP}.rbac.v3.RBAC", rules={"policies": {"p": {
        "permissions": [{"any": True}], "principals": [trusted]}}})
    upstream.script(Reply(body=b"ok"))
    proxy = sluice(bootstrap([listener(hcm(filters=[to_metadata, rbac], forward_client_cert_details="ALWAYS_FORWARD_ONLY"))],
                             [cluster("up", upstream.port)]))
    for domain, status in (("a.test", 200), ("b.test", 403)):
        answer = fetch(proxy.port(), headers=[("x-forwarded-client-cert", f"By=x;URI=spiffe://{domain}/ns/a;Hash=1")])
        assert answer.status == status
    assert fetch(proxy.port()).status == 403


def test_a_meshs_grpc_chain_serves(sluice, upstream):
    """gRPC services: counted by method, and told to clients of HTTP/1 without trailers."""
    bridge = typed("envoy.filters.http.grpc_http1_bridge", f"{HTTP}.grpc_http1_bridge.v3.Config")
    counters = typed("envoy.filters.http.grpc_stats", f"{HTTP}.grpc_stats.v3.FilterConfig", stats_for_all_methods=True)
    trailers = http_options(explicit_http_config={"http_protocol_options": {"enable_trailers": True}})
    upstream.script(Reply(headers=[("content-type", "application/grpc")], chunks=[b"abc"], trailers=[("grpc-status", "14")]))
    proxy = sluice(bootstrap([listener(hcm(filters=[counters, bridge]))],
                             [cluster("up", upstream.port, typed_extension_protocol_options=trailers)]))
    answer = fetch(proxy.port(), "/a.B/C", method="POST", headers=[("content-type", "application/grpc")])
    assert answer.status == 503 and answer.get("grpc-status") == "14" and answer.body == b"abc"


def test_requests_are_buffered(sluice, upstream):
    proxy = sluice(bootstrap([listener(hcm(filters=[
        typed("envoy.filters.http.buffer", f"{HTTP}.buffer.v3.Buffer", max_request_bytes=10)]))], [cluster("up", upstream.port)]))
    chunked = [("transfer-encoding", "chunked")]
    assert fetch(proxy.port(), method="POST", headers=chunked, body=chunks(b"abc", b"de")).status == 200
    assert upstream.requests[0].get("content-length") == "5" and upstream.requests[0].body == b"abcde"
    assert fetch(proxy.port(), method="POST", headers=chunked, body=chunks(b"abc", b"x" * 10)).status == 413
    assert len(upstream.requests) == 1
