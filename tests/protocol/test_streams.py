"""Streams that end, servers that are not there, and how fast the proxy comes back."""
import grpc
import pytest

from support import config
from support.blackhole import BlackHole
from support.conversation import *  # noqa: F403
from support.process import wait_until
from support.rawhttp import fetch


def reconnected(talk, count):
    """The count-th stream is there and has its first request."""
    talk.ads.wait_for(lambda: len(talk.ads.streams) >= count)
    return talk.ads.wait(lambda r: r.stream.number == count - 1)


def serve_some(talk, **fields):
    talk.start_with([eds_cluster("a")], **fields)
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1)])
    talk.accept(LISTENER, "l1", [rds_listener()])
    talk.accept(ROUTE, "r1", [direct_routes()])
    talk.wait_listeners("main")
    talk.skip()


# ---- reconnect ----

@pytest.mark.smoke
def test_everything_is_asked_for_again(talk):
    serve_some(talk)
    talk.ads.end_streams()
    reconnected(talk, 2)
    again = {t: talk.next(t) for t in (CLUSTER, ENDPOINTS, LISTENER, ROUTE)}
    assert {t: r.names for t, r in again.items()} == {CLUSTER: [], ENDPOINTS: ["a"], LISTENER: [], ROUTE: ["r"]}
    assert not any(r.response_nonce or r.is_nack for r in again.values())


def test_versions_of_what_is_there(talk):
    serve_some(talk)
    talk.ads.end_streams()
    reconnected(talk, 2)
    again = {t: talk.next(t) for t in (CLUSTER, ENDPOINTS, LISTENER, ROUTE)}
    if talk.is_delta:
        assert {t: dict(r.initial_resource_versions) for t, r in again.items()} == {
            CLUSTER: {"a": "c1"}, ENDPOINTS: {"a": "e1"}, LISTENER: {"main": "l1"}, ROUTE: {"r": "r1"}}
    else:
        assert {t: r.version_info for t, r in again.items()} == {CLUSTER: "c1", ENDPOINTS: "e1", LISTENER: "l1", ROUTE: "r1"}


def test_node_again_on_a_new_stream(talk):
    serve_some(talk, api=talk.api(set_node_on_first_message_only=True))
    talk.ads.end_streams()
    reconnected(talk, 2)
    talk.next(ROUTE)
    second = [r for r in talk.ads.requests if r.stream.number == 1]
    assert [r.message.HasField("node") for r in second] == [True] + [False] * (len(second) - 1)


def test_versions_of_removed_resources_are_forgotten(delta):
    delta.start_with([static_cluster("a"), static_cluster("b")])
    delta.accept(CLUSTER, "c2", removed=["a"])
    delta.skip()
    delta.ads.end_streams()
    reconnected(delta, 2)
    assert dict(delta.next(CLUSTER).initial_resource_versions) == {"b": "c1"}


def test_versions_of_refused_resources_are_the_last_good(delta):
    delta.start_with([static_cluster("a")])
    nonce = delta.push(CLUSTER, "c2", [bad_cluster("a"), bad_cluster("b")])
    delta.nack(CLUSTER, nonce)
    delta.ads.end_streams()
    reconnected(delta, 2)
    assert dict(delta.next(CLUSTER).initial_resource_versions) == {"a": "c1"}


def test_refused_version_is_not_told_on_a_new_stream(sotw):
    sotw.start_with([static_cluster("a")])
    nonce = sotw.push(CLUSTER, "c2", [bad_cluster("a")])
    sotw.nack(CLUSTER, nonce, version="c1")
    sotw.ads.end_streams()
    reconnected(sotw, 2)
    request = sotw.next(CLUSTER)
    assert request.version_info == "c1" and not request.is_nack


def test_stale_nonce_is_not_used_on_a_new_stream(talk):
    """The response came on the old stream; its ACK may not go to the new one."""
    serve_some(talk)
    talk.ads.end_streams()
    reconnected(talk, 2)
    old = {r.response_nonce for r in talk.ads.requests if r.stream.number == 0}
    talk.next(ROUTE)
    new = [r for r in talk.ads.requests if r.stream.number == 1]
    assert not [r for r in new if r.response_nonce and r.response_nonce in old]


def test_a_new_stream_works(talk):
    serve_some(talk)
    talk.ads.end_streams()
    reconnected(talk, 2)
    for t in (CLUSTER, ENDPOINTS, LISTENER, ROUTE):
        talk.next(t)
    talk.accept(CLUSTER, "c2", [static_cluster("b")])
    talk.wait_clusters("a", "b")


def test_what_went_away_meanwhile(talk):
    """SotW: the next response does not list it; delta: the server removes what it does not have."""
    serve_some(talk)
    talk.accept(CLUSTER, "c2", [static_cluster("b")])
    talk.wait_clusters("a", "b")
    talk.skip()
    talk.ads.end_streams()
    reconnected(talk, 2)
    talk.next(CLUSTER)
    talk.accept(CLUSTER, "c3", removed=["b"])
    talk.wait_clusters("a")


def test_what_was_unsubscribed_is_not_asked_for_again(talk):
    talk.start_with([eds_cluster("a"), eds_cluster("b")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1), assignment("b", 1)])
    talk.accept(LISTENER, "l1")
    talk.accept(CLUSTER, "c2", removed=["b"])
    talk.next(ENDPOINTS)
    talk.ads.end_streams()
    reconnected(talk, 2)
    assert talk.next(ENDPOINTS).names == ["a"]


def test_config_serves_on(talk):
    serve_some(talk)
    talk.ads.kill()
    talk.wait_stat("control_plane.connected_state", 0)
    assert talk.clusters() == {"a"} and talk.listeners() == {"main"}
    assert fetch(talk.proxy.port("main"), "/").status == 200


def test_back_after_a_dead_server(talk):
    serve_some(talk)
    talk.ads.kill()
    talk.wait_stat("control_plane.connected_state", 0)
    count = len(talk.ads.streams)
    talk.ads.start()
    reconnected(talk, count + 1)
    talk.wait_stat("control_plane.connected_state", 1)


CODES = [grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED,
         grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.DEADLINE_EXCEEDED]


@pytest.mark.parametrize("code", CODES, ids=lambda c: c.name.lower())
def test_status_of_the_server(talk, code):
    talk.start_with([static_cluster("a")])
    talk.ads.end_streams(code)
    reconnected(talk, 2)
    assert talk.clusters() == {"a"}
    talk.skip(CLUSTER)
    talk.accept(CLUSTER, "c2", [static_cluster("b")])
    talk.wait_clusters("a", "b")


def test_status_before_any_response(talk):
    talk.start()
    talk.next(CLUSTER)
    talk.ads.end_streams()
    reconnected(talk, 2)
    request = talk.ads.wait(lambda r: r.stream.number == 1 and r.type_url == CLUSTER)
    assert request.names == [] and request.response_nonce == ""
    talk.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 1)


def test_failed_streams_count_once_a_type(talk):
    serve_some(talk)
    before = talk.stat("cluster_manager.cds.update_failure"), talk.stat("listener_manager.lds.update_failure")
    talk.ads.end_streams()
    reconnected(talk, 2)
    talk.wait_stat("control_plane.connected_state", 1)
    after = talk.stat("cluster_manager.cds.update_failure"), talk.stat("listener_manager.lds.update_failure")
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)


def test_back_off_grows(talk):
    """Refused time after time: the pauses grow to the ceiling, and are not all alike."""
    talk.start(api=talk.api(retry=("0.05s", "0.4s")))
    for n in range(1, 9):
        talk.ads.wait(lambda r: r.stream.number == n - 1)
        talk.ads.end_streams()
    talk.ads.wait(lambda r: r.stream.number == 8)
    firsts = [next(r.at for r in talk.ads.requests if r.stream.number == n) for n in range(9)]
    pauses = [b - a for a, b in zip(firsts, firsts[1:])]
    assert max(pauses) < 0.8, pauses
    assert sum(pauses[4:]) > sum(pauses[:2]), pauses
    assert len({round(p, 3) for p in pauses}) > 3, pauses


def test_back_off_starts_anew_after_a_response(talk):
    talk.start(api=talk.api(retry=("0.01s", "30s")))
    for n in range(1, 12):
        request = talk.ads.wait(lambda r: r.stream.number == n - 1 and r.type_url == CLUSTER)
        talk.push(CLUSTER, str(n), [static_cluster("a")], stream=request.stream)
        talk.ads.wait(lambda r: r.stream.number == n - 1 and r.response_nonce)
        talk.ads.end_streams()
    reconnected(talk, 12)


# ---- rate limits ----

def test_requests_are_limited(talk):
    talk.start(api=talk.api(rate_limit_settings={"max_tokens": 2, "fill_rate": 10}))
    for n in range(1, 8):
        talk.accept(CLUSTER, str(n), [static_cluster(f"c{n}")])
    requests = talk.ads.of(CLUSTER)
    assert requests[-1].at - requests[0].at > 0.3
    assert talk.stat("control_plane.rate_limit_enforced") > 0


def test_default_limit(talk):
    """An empty rate_limit_settings: 100 tokens, 10 more each second."""
    talk.start(api=talk.api(rate_limit_settings={}))
    for n in range(1, 121):
        talk.accept(CLUSTER, str(n))
    requests = talk.ads.of(CLUSTER)
    elapsed = requests[-1].at - requests[0].at
    assert requests[90].at - requests[0].at < elapsed
    assert len(requests) <= 100 + 10 * elapsed + 2


def test_no_limit(talk):
    talk.start()
    for n in range(1, 130):
        talk.accept(CLUSTER, str(n))
    assert talk.stat("control_plane.rate_limit_enforced") == 0


def test_pending_requests_are_counted(talk):
    talk.start(api=talk.api(rate_limit_settings={"max_tokens": 1, "fill_rate": 2}))
    talk.next(CLUSTER)
    talk.push(CLUSTER, "1", [static_cluster("a")])
    talk.wait_stat("control_plane.pending_requests", lambda n: n >= 1)
    talk.next(CLUSTER)
    talk.wait_stat("control_plane.pending_requests", 0) if not talk.unseen(LISTENER) else None


# ---- the connection ----

def test_unix_socket(conversations, tmp_path):
    talk = conversations("delta", path=tmp_path / "ads.sock")
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.wait_clusters("a")


def tls(talk, authority, **fields):
    context = {"validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}}
    return {"transport_socket": config.tls_socket("Upstream", common_tls_context=context, **fields)}


def tls_server(authority, name):
    leaf = authority.leaf(name, f"DNS:{name}")
    return grpc.ssl_server_credentials([(leaf.key.read_bytes(), leaf.cert.read_bytes())])


def test_tls(conversations, authority):
    talk = conversations("sotw", credentials=tls_server(authority, "xds.test"))
    talk.start(cluster=tls(talk, authority, sni="xds.test"))
    talk.accept(CLUSTER, "1", [static_cluster("a")])


def test_tls_auto_host_sni(conversations, authority):
    """The endpoint's hostname is the server name, and what the certificate has to say."""
    talk = conversations("delta", credentials=tls_server(authority, "xds.test"))
    cluster = tls(talk, authority, auto_host_sni=True, auto_sni_san_validation=True)
    assignment_ = talk.xds_cluster()["load_assignment"]
    assignment_["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] = "xds.test"
    talk.start(cluster={**cluster, "load_assignment": assignment_})
    talk.accept(CLUSTER, "1", [static_cluster("a")])


def test_tls_auto_host_sni_refuses_another_name(conversations, authority):
    talk = conversations("delta", credentials=tls_server(authority, "xds.test"))
    cluster = tls(talk, authority, auto_host_sni=True, auto_sni_san_validation=True)
    assignment_ = talk.xds_cluster()["load_assignment"]
    assignment_["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"] = "other.test"
    talk.start(cluster={**cluster, "load_assignment": assignment_})
    talk.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    assert not talk.ads.streams


def test_large_response(talk):
    """Beyond gRPC's default of 4 MB."""
    talk.start()
    talk.next(CLUSTER)
    metadata = {"filter_metadata": {"big": {"text": "x" * 5000}}}
    nonce = talk.push(CLUSTER, "1", [static_cluster(f"c{n}", metadata=metadata) for n in range(1000)])
    talk.ack(CLUSTER, nonce, "1")
    wait_until(lambda: len(talk.clusters()) == 1000, "a thousand clusters")


def test_message_limit(talk):
    """max_receive_message_length."""
    talk.start(api=talk.api(envoy_grpc={"max_receive_message_length": 10000}))
    talk.next(CLUSTER)
    talk.push(CLUSTER, "1", [static_cluster("a", metadata={"filter_metadata": {"big": {"text": "x" * 20000}}})])
    reconnected(talk, 2)
    talk.skip(CLUSTER)
    talk.have.clear()
    talk.accept(CLUSTER, "2", [static_cluster("b")])
    talk.wait_clusters("b")


def test_malformed_message_ends_the_stream(talk):
    talk.start_with([static_cluster("a")])
    talk.ads.send(b"\x0a\xff\xff\xff", 0)
    reconnected(talk, 2)
    assert talk.clusters() == {"a"}


def test_keepalive_of_the_cluster(talk):
    """A server that is alive answers pings: the stream stays."""
    options = config.http_options(explicit_http_config={"http2_protocol_options": {
        "connection_keepalive": {"interval": "0.1s", "timeout": "5s"}}})
    talk.start(cluster={"typed_extension_protocol_options": options})
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    for n in range(20):
        talk.accept(CLUSTER, f"k{n}")
    assert len(talk.ads.streams) == 1


def test_a_silent_connection_is_given_up(talk):
    """Half-open: the kernel takes our bytes, nobody answers. Keepalive notices."""
    options = config.http_options(explicit_http_config={"http2_protocol_options": {
        "connection_keepalive": {"interval": "0.2s", "timeout": "0.2s"}}})
    with BlackHole(talk.ads.port) as hole:
        endpoint = config.endpoint(hole.port)
        talk.start(cluster={"typed_extension_protocol_options": options,
                            "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [endpoint]}]}})
        talk.accept(CLUSTER, "1", [static_cluster("a")])
        talk.skip()
        hole.freeze()
        reconnected(talk, 2)
        assert talk.clusters() == {"a"}
