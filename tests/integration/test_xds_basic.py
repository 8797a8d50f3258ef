"""The proxy as a client of scripted control planes: SotW and delta, over TCP, UNIX sockets and TLS, and watched files."""

import contextlib
import json
import os

import grpc
import pytest

from envoy.service.discovery.v3 import discovery_pb2
from support import config
from support.ads_server import (CLUSTER, ENDPOINTS, LISTENER, PREFIX, RESOURCE, ROUTE, SECRET, AdsServer, message_of)
from support.process import can_connect, free_port, wait_until
from support.rawhttp import Client, fetch
from support.xds_config import (ADS, ads_bootstrap, api_source, assignment, eds_cluster, rds_listener, routes, serve_all,
                                xds_cluster)

KINDS = ["GRPC", "DELTA_GRPC"]
both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def control_planes(tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(AdsServer(**options))


@pytest.fixture
def ads(control_planes):
    return control_planes()


def get(proxy, path="/"):
    return fetch(proxy.port(), path).status


# ---- the protocol ----

@pytest.mark.smoke
@both
def test_traffic(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind, {"connect_timeout": "1s"}, {"initial_metadata": [{"key": "x-me", "value": "1"}]},
                                 set_node_on_first_message_only=True))
    assert get(proxy) == 200
    for type_url, version in [(CLUSTER, "c1"), (ENDPOINTS, "e1"), (LISTENER, "l1"), (ROUTE, "r1")]:
        ads.wait_ack(type_url, version)
    stream = ads.streams[0]
    assert stream.metadata["x-me"] == "1"
    assert stream.method == ("DeltaAggregatedResources" if kind == "DELTA_GRPC" else "StreamAggregatedResources")
    assert ads.requests[0].type_url == CLUSTER and ads.of(LISTENER)[0].at > ads.requests[0].at
    assert ads.requests[0].names == [] and ads.of(ENDPOINTS)[0].names == ["up"] and ads.of(ROUTE)[0].names == ["r"]
    assert [r.message.HasField("node") for r in ads.requests] == [True] + [False] * (len(ads.requests) - 1)
    assert ads.requests[0].node.id == "test-node"
    assert proxy.stat("control_plane.connected_state") == 1 and proxy.stat("control_plane.pending_requests") == 0
    assert proxy.stat("cluster_manager.cds.update_success") == 1 and proxy.stat("cluster_manager.cds.update_rejected") == 0
    assert len(ads.streams) == 1


@both
def test_node_in_every_request(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    sluice(ads_bootstrap(ads, kind))
    ads.wait_ack(ROUTE)
    assert all(r.message.HasField("node") for r in ads.requests)


@pytest.mark.smoke
@both
def test_unix_socket(sluice, control_planes, tmp_path, upstream, kind):
    ads = control_planes(path=tmp_path / "ads.sock")
    serve_all(ads, upstream.port)
    assert get(sluice(ads_bootstrap(ads, kind))) == 200


@both
@pytest.mark.parametrize("is_mutual", [False, True])
def test_tls(sluice, control_planes, authority, upstream, kind, is_mutual):
    server, client = authority.leaf("xds.test", "DNS:xds.test"), authority.leaf("client.test", "DNS:client.test")
    pair = (server.key.read_bytes(), server.cert.read_bytes())
    ca = authority.pair.cert.read_bytes()
    ads = control_planes(credentials=grpc.ssl_server_credentials([pair], ca if is_mutual else None, is_mutual))
    serve_all(ads, upstream.port)
    context = {"validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}, "match_typed_subject_alt_names": [
        {"san_type": "DNS", "matcher": {"exact": "xds.test"}}]}}
    if is_mutual:
        context["tls_certificates"] = [config.tls_certificate(client)]
    fields = {"transport_socket": config.tls_socket("Upstream", common_tls_context=context, sni="xds.test")}
    assert get(sluice(ads_bootstrap(ads, kind, fields))) == 200


def google_grpc(ads, authority, token, target="localhost"):
    """The control plane without a cluster, with a token in a file."""
    plugin = {"name": "envoy.grpc_credentials.file_based_metadata", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig",
        "secret_data": {"filename": str(token)}, "header_prefix": "Bearer "}}
    service = {"target_uri": f"{target}:{ads.port}", "stat_prefix": "ads", "call_credentials": [{"from_plugin": plugin}],
               "credentials_factory_name": plugin["name"],
               "channel_credentials": {"ssl_credentials": {"root_certs": {"filename": str(authority.pair.cert)}}},
               "channel_args": {"args": {"grpc.keepalive_time_ms": {"int_value": 10000}}}}
    made = ads_bootstrap(ads)
    made["dynamic_resources"]["ads_config"]["grpc_services"] = [{"google_grpc": service}]
    return made


def test_google_grpc(sluice, control_planes, authority, upstream, tmp_path):
    server = authority.leaf("localhost", "DNS:localhost", "IP:127.0.0.1")
    ads = control_planes(credentials=grpc.ssl_server_credentials([(server.key.read_bytes(), server.cert.read_bytes())]))
    serve_all(ads, upstream.port)
    token = tmp_path / "token"
    token.write_text("first")
    proxy = sluice(google_grpc(ads, authority, token))
    assert get(proxy) == 200
    assert ads.streams[0].metadata["authorization"] == "Bearer first"
    token.write_text("second")
    ads.kill()
    ads.start()
    wait_until(lambda: ads.streams[-1].metadata["authorization"] == "Bearer second", "the renewed token")
    assert get(sluice(google_grpc(ads, authority, token, "127.0.0.1"))) == 200


def test_google_grpc_of_a_stranger_is_refused(sluice, control_planes, authority, tmp_path):
    server = authority.leaf("other.test", "DNS:other.test")
    ads = control_planes(credentials=grpc.ssl_server_credentials([(server.key.read_bytes(), server.cert.read_bytes())]))
    proxy = sluice(google_grpc(ads, authority, tmp_path / "none"), ready=False)
    proxy.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    assert not ads.streams


def test_tls_of_a_stranger_is_refused(sluice, control_planes, authority):
    server = authority.leaf("other.test", "DNS:other.test")
    ads = control_planes(credentials=grpc.ssl_server_credentials([(server.key.read_bytes(), server.cert.read_bytes())]))
    context = {"validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}, "match_typed_subject_alt_names": [
        {"san_type": "DNS", "matcher": {"exact": "xds.test"}}]}}
    fields = {"transport_socket": config.tls_socket("Upstream", common_tls_context=context, sni="xds.test")}
    proxy = sluice(ads_bootstrap(ads, cluster_fields=fields), ready=False)
    proxy.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    assert not ads.streams and proxy.stat("control_plane.connected_state") == 0


@both
def test_names_are_asked_for_together(sluice, ads, upstream, kind):
    names = [f"c{i:02}" for i in range(20)]
    ads.set(CLUSTER, "1", [eds_cluster(n) for n in names])
    ads.set(ENDPOINTS, "1", [assignment(n, upstream.port) for n in names])
    ads.set(LISTENER, "1", [])
    sluice(ads_bootstrap(ads, kind))
    ads.wait_ack(ENDPOINTS)
    assert [r.names for r in ads.of(ENDPOINTS) if r.names][0] == names
    before = len(ads.requests)
    ads.update(CLUSTER, "2", changed=[eds_cluster("new")], removed=["c00"])
    request = ads.wait(lambda r: r.type_url == ENDPOINTS and r.names, before)
    assert request.names == (["new"] if request.is_delta else names[1:] + ["new"])
    if request.is_delta:
        assert list(request.resource_names_unsubscribe) == ["c00"]


# ---- refusals ----

@both
def test_nack(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    assert get(proxy) == 200
    ads.update(CLUSTER, "c2", changed=[{"name": "good", "type": "STATIC", "connect_timeout": "5s"},
                                       {"name": "bad", "type": "STATIC", "connect_timeout": "-1s"}])
    nack = ads.wait_nack(CLUSTER)
    assert nack.error_detail.code == 13
    assert nack.error_detail.message.startswith("Error adding/updating cluster(s) bad: connect_timeout: ")
    assert nack.is_delta or nack.version_info == "c1"
    wait_until(lambda: "good::" in proxy.admin("/clusters").text, "the good sibling")
    assert get(proxy) == 200
    assert proxy.stat("cluster_manager.cds.update_rejected") == 1
    before = len(ads.requests)
    ads.update(CLUSTER, "c3", removed=["bad"])
    ads.wait_ack(CLUSTER, "c3", before)


@both
def test_wrong_type_inside(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    make = discovery_pb2.DeltaDiscoveryResponse if kind == "DELTA_GRPC" else discovery_pb2.DiscoveryResponse
    response = make(type_url=CLUSTER, nonce="odd")
    added = response.resources.add()
    (added.resource if kind == "DELTA_GRPC" else added).Pack(message_of(ROUTE, routes()))
    ads.send(response)
    nack = ads.wait_nack(CLUSTER)
    assert nack.response_nonce == "odd" and "does not match the message-wide type URL" in nack.error_detail.message
    assert get(proxy) == 200


@both
def test_unknown_type_is_ignored(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    ads.wait_ack(ROUTE)
    make = discovery_pb2.DeltaDiscoveryResponse if kind == "DELTA_GRPC" else discovery_pb2.DiscoveryResponse
    before = len(ads.requests)
    ads.send(make(type_url="type.googleapis.com/foo.Bar", nonce="odd"))
    ads.send(make(type_url=SECRET, nonce="unasked"))
    ads.update(CLUSTER, "c2", changed=[{"name": "more", "type": "STATIC", "connect_timeout": "5s"}])
    ads.wait_ack(CLUSTER, "c2", before)
    assert not [r for r in ads.requests if r.response_nonce in ("odd", "unasked")]
    assert len(ads.streams) == 1 and get(proxy) == 200


@both
def test_malformed_response_ends_the_stream(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    ads.wait_ack(ROUTE)
    ads.send(b"\x0a\xff\xff\xff")
    ads.wait_for(lambda: len(ads.streams) == 2)
    ads.wait(lambda r: r.stream.number == 1 and r.type_url == ROUTE)
    assert get(proxy) == 200


# ---- streams that end ----

@pytest.mark.smoke
@pytest.mark.parametrize("fields", [{}, {"enable_reuse_port": False}])
def test_a_removed_listener_refuses_connections_while_others_drain(sluice, ads, upstream, fields):
    serve_all(ads, upstream.port)
    port = free_port()
    main = rds_listener(**fields) | {"address": config.address(port)}
    ads.set(LISTENER, "l1", [main])
    proxy = sluice(ads_bootstrap(ads), concurrency=2)
    wait_until(lambda: can_connect(port), "the listener")
    with Client(port) as client:
        assert client.request("GET", "/").status == 200
        ads.set(LISTENER, "l2", [])
        wait_until(lambda: not can_connect(port), "connections to be refused")
        assert client.request("GET", "/").status == 200  # it was there before
        ads.set(LISTENER, "l3", [main])  # takes the address again while the old one drains
        wait_until(lambda: can_connect(port) and fetch(port).status == 200, "the listener to be back")
    assert proxy.stat("listener_manager.lds.update_rejected") == 0


@pytest.mark.smoke
@both
def test_reconnect(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    ads.wait_ack(ROUTE)
    before = len(ads.requests)
    ads.kill()
    proxy.wait_stat("control_plane.connected_state", 0)
    proxy.wait_stat("cluster_manager.cds.update_failure", lambda n: n > 0)
    assert get(proxy) == 200
    ads.start()
    ads.wait(lambda r: r.type_url == ROUTE, before)
    again = [r for r in ads.requests[before:] if not r.response_nonce][:4]   # answers may be acknowledged in between
    assert [r.type_url for r in again] == [CLUSTER, ENDPOINTS, LISTENER, ROUTE]
    assert [r.names for r in again] == [[], ["up"], [], ["r"]]
    if kind == "DELTA_GRPC":
        assert [dict(r.initial_resource_versions) for r in again] == [{"up": "c1"}, {"up": "e1"}, {"main": "l1"}, {"r": "r1"}]
    else:
        assert [r.version_info for r in again] == ["c1", "e1", "l1", "r1"]
    proxy.wait_stat("control_plane.connected_state", 1)
    before = len(ads.requests)
    ads.set(ROUTE, "r2", [routes(cluster="nowhere")])
    ads.wait_ack(ROUTE, "r2", before)
    wait_until(lambda: get(proxy) == 503, "the new route")


@both
def test_server_ends_the_stream(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    ads.wait_ack(ROUTE)
    for n in range(2, 5):
        ads.end_streams()
        ads.wait_for(lambda: len(ads.streams) == n)
        ads.wait(lambda r: r.stream.number == n - 1 and r.type_url == ROUTE)
    assert get(proxy) == 200


@both
def test_goaway(sluice, control_planes, upstream, kind):
    """Connections of limited age, as istiod's are."""
    ads = control_planes(options=[("grpc.max_connection_age_ms", 200), ("grpc.max_connection_age_grace_ms", 50)])
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    ads.wait(lambda r: r.stream.number >= 2 and r.type_url == ROUTE)
    assert get(proxy) == 200


def test_socket_comes_late(sluice, control_planes, tmp_path, upstream):
    ads = control_planes(path=tmp_path / "ads.sock")
    ads.kill()
    (tmp_path / "ads.sock").unlink(missing_ok=True)
    proxy = sluice(ads_bootstrap(ads), ready=False)
    proxy.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    serve_all(ads, upstream.port)
    ads.start()
    ads.wait_ack(ROUTE)
    wait_until(lambda: proxy.admin("/ready").status == 200, "ready")


@both
def test_server_comes_late(sluice, ads, upstream, kind):
    ads.kill()
    proxy = sluice(ads_bootstrap(ads, kind), ready=False)
    proxy.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    serve_all(ads, upstream.port)
    ads.start()
    ads.wait_ack(ROUTE)
    wait_until(lambda: proxy.admin("/ready").status == 200, "ready")
    assert get(proxy) == 200


@both
def test_silent_server_does_not_hold_up_the_end(sluice, ads, kind):
    ads.hold(CLUSTER, LISTENER)
    sluice(ads_bootstrap(ads, kind), ready=False)
    ads.wait(lambda r: r.type_url == CLUSTER)


# ---- changes ----

@both
def test_removal(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    ads.update(CLUSTER, "c2", changed=[{"name": "extra", "type": "STATIC", "connect_timeout": "5s"}])
    proxy.wait_stat("cluster_manager.active_clusters", 3)
    ads.update(CLUSTER, "c3", removed=["extra"])
    proxy.wait_stat("cluster_manager.active_clusters", 2)
    assert get(proxy) == 200
    ads.update(LISTENER, "l2", removed=["main"])
    wait_until(lambda: not proxy.listeners(), "the listener to go")


@both
def test_endpoints_move(sluice, ads, upstreams, kind):
    first, second = upstreams(), upstreams()
    serve_all(ads, first.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    assert get(proxy, "/one") == 200
    before = len(ads.requests)
    ads.set(ENDPOINTS, "e2", [assignment("up", second.port)])
    ads.wait_ack(ENDPOINTS, "e2", before)
    wait_until(lambda: get(proxy, "/two") == 200 and second.requests, "requests at the new endpoint")


def test_large_response(sluice, ads, upstream):
    """Beyond gRPC's default limit of 4 MB."""
    metadata = {"filter_metadata": {"big": {"text": "x" * 4000}}}
    serve_all(ads, upstream.port)
    ads.set(CLUSTER, "c1", [eds_cluster("up")] + [
        {"name": f"c{i}", "type": "STATIC", "connect_timeout": "5s", "metadata": metadata} for i in range(2000)])
    proxy = sluice(ads_bootstrap(ads))
    assert get(proxy) == 200
    assert proxy.stat("cluster_manager.active_clusters") == 2002


@both
def test_time_to_live(sluice, ads, upstream, kind):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    wrapper = discovery_pb2.Resource(name="brief", version="1")
    wrapper.ttl.FromMilliseconds(300)
    wrapper.resource.Pack(message_of(CLUSTER, {"name": "brief", "type": "STATIC", "connect_timeout": "5s"}))
    ads.update(CLUSTER, "c2", changed=[wrapper])
    proxy.wait_stat("cluster_manager.cluster_added", 3)
    proxy.wait_stat("cluster_manager.cluster_removed", 1)
    assert get(proxy) == 200


def test_rate_limit(sluice, ads, upstream):
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, rate_limit_settings={"max_tokens": 1, "fill_rate": 20}))
    assert get(proxy) == 200
    assert proxy.stat("control_plane.rate_limit_enforced") > 0
    ads.wait_ack(ROUTE)


# ---- streams of one type ----

@both
def test_streams_of_one_type(sluice, ads, upstream, kind):
    source = {"api_config_source": api_source(kind), "resource_api_version": "V3"}
    listener = rds_listener()
    listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"]["config_source"] = source
    ads.set(CLUSTER, "c1", [eds_cluster("up", eds_cluster_config={"eds_config": source})])
    ads.set(ENDPOINTS, "e1", [assignment("up", upstream.port)])
    ads.set(LISTENER, "l1", [listener])
    ads.set(ROUTE, "r1", [routes()])
    proxy = sluice(config.bootstrap([], [xds_cluster(ads)], dynamic_resources={"cds_config": source, "lds_config": source}))
    assert get(proxy) == 200
    prefix = "Delta" if kind == "DELTA_GRPC" else "Stream"
    assert {s.method for s in ads.streams} == {prefix + n for n in ("Clusters", "Endpoints", "Listeners", "Routes")}


# ---- files ----

def as_file(type_url, *resources, version="1"):
    return json.dumps({"version_info": version, "type_url": type_url,
                       "resources": [{"@type": type_url, **r} for r in resources]})


def place(path, text):
    """Move it there in one go."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.rename(partial, path)


def file_bootstrap(cds, lds, **fields):
    return config.bootstrap([], dynamic_resources={"cds_config": {"path_config_source": {"path": str(cds), **fields}},
                                                   "lds_config": {"path_config_source": {"path": str(lds), **fields}}})


def file_listener(status):
    return config.listener(config.hcm([config.direct("/", status)]))


@pytest.mark.smoke
def test_files(sluice, tmp_path):
    cds, lds = tmp_path / "cds.json", tmp_path / "lds.yaml"
    place(cds, as_file(CLUSTER, {"name": "a", "type": "STATIC", "connect_timeout": "5s"}))
    place(lds, as_file(LISTENER, file_listener(201)))
    proxy = sluice(file_bootstrap(cds, lds))
    assert get(proxy) == 201
    place(lds, as_file(LISTENER, file_listener(202), version="2"))
    wait_until(lambda: get(proxy) == 202, "the new file")
    place(lds, "no: [yaml")
    proxy.wait_stat("listener_manager.lds.update_failure", 1)
    assert get(proxy) == 202
    place(lds, as_file(CLUSTER, {"name": "a"}))
    proxy.wait_stat("listener_manager.lds.update_failure", 2)
    place(lds, as_file(LISTENER, {"name": "bad"}))
    proxy.wait_stat("listener_manager.lds.update_rejected", 1)
    place(cds, as_file(CLUSTER))
    proxy.wait_stat("cluster_manager.active_clusters", 0)
    place(lds, as_file(LISTENER, file_listener(203), version="3"))
    wait_until(lambda: proxy.listeners() and get(proxy) == 203, "the repaired file")


def test_files_of_other_formats(sluice, tmp_path):
    cds, lds = tmp_path / "cds.pb_text", tmp_path / "lds.pb"
    place(cds, f'version_info: "1" resources {{ [{CLUSTER}] {{ name: "a" connect_timeout {{ seconds: 5 }} }} }}')
    response = discovery_pb2.DiscoveryResponse(version_info="1", type_url=LISTENER)
    response.resources.add().Pack(message_of(LISTENER, file_listener(201)))
    place(lds, response.SerializeToString())
    proxy = sluice(file_bootstrap(cds, lds))
    assert get(proxy) == 201 and proxy.stat("cluster_manager.active_clusters") == 1


def test_watched_directory(sluice, tmp_path):
    """As Kubernetes mounts a ConfigMap: the file is reached through a link that is swapped."""
    for n in (1, 2):
        folder = tmp_path / f"data{n}"
        folder.mkdir()
        (folder / "cds.json").write_text(as_file(CLUSTER))
        (folder / "lds.json").write_text(as_file(LISTENER, file_listener(200 + n)))
    (tmp_path / "..data").symlink_to("data1")
    proxy = sluice(file_bootstrap(tmp_path / "..data/cds.json", tmp_path / "..data/lds.json",
                                  watched_directory={"path": str(tmp_path)}))
    assert get(proxy) == 201
    (tmp_path / "..data.new").symlink_to("data2")
    os.rename(tmp_path / "..data.new", tmp_path / "..data")
    wait_until(lambda: get(proxy) == 202, "the new folder")


def test_file_goes_and_comes_back(sluice, tmp_path):
    cds, lds = tmp_path / "cds.json", tmp_path / "lds.json"
    place(cds, as_file(CLUSTER))
    place(lds, as_file(LISTENER, file_listener(201)))
    proxy = sluice(file_bootstrap(cds, lds))
    lds.unlink()
    assert get(proxy) == 201
    place(lds, as_file(LISTENER, file_listener(202), version="2"))
    wait_until(lambda: get(proxy) == 202, "the file")


def test_wrapped_resources(sluice, ads, upstream):
    """SotW resources in envelopes."""
    serve_all(ads, upstream.port)
    wrapper = discovery_pb2.Resource(name="up", version="own")
    wrapper.resource.Pack(message_of(CLUSTER, eds_cluster("up")))
    ads.set(CLUSTER, "c1", [wrapper])
    assert get(sluice(ads_bootstrap(ads))) == 200
    assert RESOURCE.startswith(PREFIX)


@pytest.mark.parametrize("closes", [False, True])
def test_connections_when_hosts_come_and_go(sluice, ads, upstream, closes):
    """close_connections_on_host_set_change: also those to hosts that stay."""
    serve_all(ads, upstream.port)
    ads.set(CLUSTER, "c2", [eds_cluster("up", common_lb_config={"close_connections_on_host_set_change": closes})])
    proxy = sluice(ads_bootstrap(ads))
    wait_until(lambda: fetch(proxy.port()).status == 200, "traffic")
    assert proxy.stat("cluster.up.upstream_cx_active") == 1
    before = proxy.stat("cluster.up.membership_change")
    ads.set(ENDPOINTS, "e2", [assignment("up", upstream.port, 1)])
    proxy.wait_stat("cluster.up.membership_change", before + 1)
    wait_until(lambda: proxy.stat("cluster.up.upstream_cx_active") == (0 if closes else 1), "the connection's end")
