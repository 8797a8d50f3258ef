"""What a broken or hostile control plane may send: the last good configuration serves on, memory stays bounded, counters tell."""
import pathlib

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from support import rawhttp
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, PREFIX, ROUTE
from support.config import bootstrap, cluster, hcm, http2, listener
from support.process import wait_until
from support.proxy import is_sanitized
from support.upstream import ByteUpstream
from support.xds_config import ADS, ads_bootstrap, api_source, serve_all

KINDS = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
REJECTED = "cluster_manager.cds.update_rejected"
MEGABYTE = 1 << 20


def rss(proxy):
    return int(pathlib.Path(f"/proc/{proxy.pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture
def served(sluice, ads, upstream):
    """A proxy that serves what `ads` told it."""
    def start(kind):
        serve_all(ads, upstream.port)
        proxy = sluice(ads_bootstrap(ads, kind))
        wait_until(lambda: rawhttp.fetch(proxy.port()).status == 200, "traffic")
        ads.wait_ack(ROUTE)
        return proxy
    return start


def good(proxy):
    proxy.expect_running()
    return rawhttp.fetch(proxy.port()).status == 200


def response(kind, resources, version="x", type_url=CLUSTER):
    """A response with (name, type URL, bytes) as they are."""
    if kind == "GRPC":
        message = discovery_pb2.DiscoveryResponse(version_info=version, type_url=type_url, nonce="bad")
        for _, url, value in resources:
            message.resources.add(type_url=url, value=value)
        return message
    message = discovery_pb2.DeltaDiscoveryResponse(system_version_info=version, type_url=type_url, nonce="bad")
    for name, url, value in resources:
        added = message.resources.add(name=name, version=version)
        added.resource.type_url, added.resource.value = url, value
    return message


def up(ads):
    """The cluster that is served, so that a full state still has it."""
    return ("up", CLUSTER, ads.state[CLUSTER][1]["up"][1].SerializeToString())


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, payload):
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def nested(number_path, depth, inner=b""):
    """`depth` times a message in a message, by the field numbers in turn."""
    for i in range(depth):
        inner = field(number_path[i % len(number_path)], inner)
    return inner


def bomb(depth):
    """Cluster.metadata.filter_metadata["x"] with Struct in Struct."""
    struct = b""
    for _ in range(depth):
        struct = field(1, field(1, b"k") + field(2, field(5, struct)))
    return field(1, b"bomb") + field(25, field(1, field(1, b"x") + field(2, struct)))


GOOD = json_format.ParseDict(cluster("other", 80), cluster_pb2.Cluster()).SerializeToString()
BAD = {
    "truncated": (CLUSTER, GOOD[:-3]),
    "garbage": (CLUSTER, bytes(range(255, 0, -1)) * 40),
    "wrong type in it": (LISTENER, GOOD),
    "unknown type": (PREFIX + "no.such.Type", GOOD),
    "no type": ("", GOOD),
    "NUL in the name": (CLUSTER, field(1, b"a\0b") + GOOD),
    "not UTF-8": (CLUSTER, field(1, b"\xff\xfe")),
    "nesting bomb": (CLUSTER, bomb(3000)),
    "length beyond the end": (CLUSTER, b"\x0a\xff\xff\xff\xff\x0f"),
    "group": (CLUSTER, b"\x0b" * 5000),
    "endless varint": (CLUSTER, b"\xff" * 64),
    "nested unknown fields": (CLUSTER, field(1, b"other") + nested((33,), 2000)),
}


@KINDS
@pytest.mark.parametrize("name", BAD)
def test_bad_resources_are_refused_beside_good_ones(served, ads, kind, name):
    proxy = served(kind)
    before = proxy.stat(REJECTED)
    url, value = BAD[name]
    ads.send(response(kind, [up(ads), ("bad", url, value)]))
    nack = ads.wait_nack(CLUSTER)
    assert nack.error_detail.code == 13 or nack.error_detail.code == 3
    assert 0 < len(nack.error_detail.message) <= 64 * 1024
    assert proxy.stat(REJECTED) == before + 1
    assert good(proxy)
    assert proxy.stat("cluster_manager.active_clusters") == 2
    ads.update(CLUSTER, "c2", [cluster("late", 80)])
    proxy.wait_stat("cluster_manager.active_clusters", 3)


@KINDS
def test_responses_that_are_no_messages(served, ads, kind):
    """Cut or changed anywhere, the stream ends and begins anew; what is served stays."""
    proxy = served(kind)
    whole = response(kind, [up(ads), ("other", CLUSTER, GOOD)]).SerializeToString()
    for cut in (1, 5, len(whole) // 2, len(whole) - 1):
        streams = len(ads.streams)
        ads.wait_for(lambda: ads.open_streams())
        ads.send(whole[:cut])
        ads.wait_for(lambda n=streams: len(ads.streams) > n)
        assert good(proxy)
    ads.update(CLUSTER, "c2", [cluster("late", 80)])
    proxy.wait_stat("cluster_manager.active_clusters", 3)


@KINDS
def test_a_name_of_64_kilobytes(served, ads, kind):
    proxy = served(kind)
    long = cluster("n" * 65536, 80)
    message = json_format.ParseDict(long, cluster_pb2.Cluster()).SerializeToString()
    streams = len(ads.streams)
    answers = len(ads.of(CLUSTER))
    ads.send(response(kind, [up(ads), ("n" * 65536, CLUSTER, message)]))
    ads.wait_for(lambda: len(ads.of(CLUSTER)) > answers or len(ads.streams) > streams)
    assert good(proxy)


@KINDS
def test_a_response_of_64_megabytes(served, ads, kind):
    proxy = served(kind)
    before = rss(proxy)
    junk = field(1, b"junk") + b"\xff" * MEGABYTE
    ads.send(response(kind, [up(ads), *((f"j{i}", CLUSTER, field(1, b"j%d" % i) + junk) for i in range(64))]))
    nack = ads.wait_nack(CLUSTER)
    assert len(nack.error_detail.message) <= 64 * 1024
    assert good(proxy)
    if not is_sanitized(proxy.binary):
        wait_until(lambda: rss(proxy) < before + 28 * MEGABYTE, lambda: f"memory: {before} {rss(proxy)}")
    ads.set(CLUSTER, "c3", [ads.state[CLUSTER][1]["up"][1], cluster("late", 80)])
    if kind == "DELTA_GRPC":
        ads.send(discovery_pb2.DeltaDiscoveryResponse(type_url=CLUSTER, nonce="gone", removed_resources=[
            f"j{i}" for i in range(64)]))
    proxy.wait_stat("cluster_manager.active_clusters", 3)
    if not is_sanitized(proxy.binary):
        wait_until(lambda: rss(proxy) < before + 28 * MEGABYTE, lambda: f"memory: {before} {rss(proxy)}")


@KINDS
def test_a_flood_of_new_bad_names(served, ads, kind):
    proxy = served(kind)
    bad = field(4, field(1, b"\x08\x01")) + field(3, b"x" * 500)

    def flood(n):
        answers = len(ads.of(CLUSTER))
        ads.send(response(kind, [up(ads), *((f"b{n}-{i}", CLUSTER, field(1, b"b%d-%d" % (n, i)) + bad)
                                            for i in range(500))], f"f{n}"))
        ads.wait_for(lambda: len(ads.of(CLUSTER)) > answers)
    for n in range(25):
        flood(n)
    early = rss(proxy)
    for n in range(25, 60):
        flood(n)
    assert good(proxy)
    if not is_sanitized(proxy.binary):
        assert rss(proxy) < early + 8 * MEGABYTE, (early, rss(proxy))
    ads.set(CLUSTER, "c3", [ads.state[CLUSTER][1]["up"][1], cluster("late", 80)])
    proxy.wait_stat("cluster_manager.active_clusters", 3)
    if kind == "GRPC":
        assert "b59-1" not in proxy.admin("/config_dump").text


@KINDS
def test_error_state_tells_what_was_refused_and_why(served, ads, kind):
    proxy = served(kind)
    bad = json_format.ParseDict(cluster("up", 80, connect_timeout="-1s"), cluster_pb2.Cluster())
    ads.send(response(kind, [("up", CLUSTER, bad.SerializeToString())], "v-bad"))
    ads.wait_nack(CLUSTER)
    dump = proxy.admin("/config_dump?resource=dynamic_active_clusters").json["configs"]
    state = next(c for c in dump if c["cluster"]["name"] == "up")["error_state"]
    assert "connect_timeout" in state["details"] and state["version_info"] == "v-bad"
    assert state["failed_configuration"]["connect_timeout"] == "-1s" and state["last_update_attempt"]
    assert "connect_timeout" in proxy.log() and "rejected" in proxy.log()
    assert good(proxy)


@KINDS
def test_aggregate_clusters_in_a_circle(served, ads, kind):
    """Refused or not, nothing loops."""
    def aggregate(name, *of):
        inner = b"".join(field(1, c.encode()) for c in of)
        any_ = field(1, (PREFIX + "envoy.extensions.clusters.aggregate.v3.ClusterConfig").encode()) + field(2, inner)
        custom = field(1, b"envoy.clusters.aggregate") + field(2, any_)
        return (name, CLUSTER, field(1, name.encode()) + field(38, custom) + varint(6 << 3) + varint(6))
    proxy = served(kind)
    answers = len(ads.of(CLUSTER))
    ads.send(response(kind, [up(ads), aggregate("a", "b"), aggregate("b", "a"), aggregate("self", "self")]))
    ads.wait_for(lambda: len(ads.of(CLUSTER)) > answers)
    answers = len(ads.of(ROUTE))
    ads.update(ROUTE, "r2", [{"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": f"/{name}"}, "route": {"cluster": name}} for name in ("a", "b", "self")] + [
            {"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]}])
    ads.wait_for(lambda: len(ads.of(ROUTE)) > answers)
    for path in ("/a", "/b", "/self"):
        assert rawhttp.fetch(proxy.port(), path).status == 503
    assert good(proxy)


@KINDS
def test_duplicates_in_one_response(served, ads, kind):
    proxy = served(kind)
    ads.send(response(kind, [up(ads), ("other", CLUSTER, GOOD), ("other", CLUSTER, GOOD)]))
    assert "duplicate" in ads.wait_nack(CLUSTER).error_detail.message
    assert good(proxy)


@KINDS
def test_endpoints_and_routes_keep_the_last_good_version(served, ads, kind):
    proxy = served(kind)
    for type_url, name in ((ENDPOINTS, "up"), (ROUTE, "r")):
        ads.send(response(kind, [(name, type_url, field(1, name.encode()) + b"\xff\xff")], type_url=type_url))
        ads.wait_nack(type_url)
        assert good(proxy)


GARBAGE = {
    "random": bytes(range(256)) * 100,
    "http1": b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    "settings flood": b"\0\0\0\4\0\0\0\0\0" * 5000,
    "huge frame": b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 100000,
    "tls": b"\x15\x03\x03\x00\x02\x02\x28",
    "nothing": b"",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_on_the_wire(sluice, upstream, upstreams, name):
    server = upstreams(ByteUpstream, ByteUpstream.answer(GARBAGE[name]))
    clusters = [cluster("up", upstream.port), cluster("xds", server.port, typed_extension_protocol_options=http2())]
    short = {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0.1s"}
    proxy = sluice(bootstrap([listener(hcm())], clusters, dynamic_resources={
        "ads_config": api_source("DELTA_GRPC"), "cds_config": {**ADS, **short}, "lds_config": {**ADS, **short}}))
    wait_until(lambda: server.accepted > 5, "reconnects", 20)
    before = rss(proxy)
    wait_until(lambda: server.accepted > 15, "more reconnects", 20)
    assert good(proxy)
    if not is_sanitized(proxy.binary):
        assert rss(proxy) < before + 4 * MEGABYTE
