"""More of what a broken or hostile control plane may do: every type of resource malformed, names that are none, floods, and
servers that poll answers can not be had from. What was good serves on, and the next good version is taken."""
import socket
import threading

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from support import config, rawhttp
from support.ads_server import (CLUSTER, ENDPOINTS, EXTENSION, LB_ENDPOINT, LISTENER, MESSAGES, ROUTE, RUNTIME, SCOPED_ROUTE,
                                SECRET, VIRTUAL_HOST, message_of)
from support.process import wait_until
from support.proxy import is_sanitized
from support.upstream import ByteUpstream, Reply
from support.xds_config import ADS, ads_bootstrap, rds_listener, scope, scoped_listener, serve_all
from test_bad_config import MEGABYTE, field, rss, varint

KINDS = pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
CORS = "envoy.extensions.filters.http.cors.v3.Cors"
COLLECTION = "xdstp://plane/envoy.config.endpoint.v3.LbEndpoint/c/"
# What stands for each type of resource in the world below.
NAMES = {CLUSTER: "up", ENDPOINTS: "up", LB_ENDPOINT: COLLECTION + "1", SECRET: "s", LISTENER: "main", SCOPED_ROUTE: "a",
         ROUTE: "r", VIRTUAL_HOST: "r/a", EXTENSION: "f", RUNTIME: "one"}
BODIES = {
    "truncated": lambda name: field(1, name) + b"\x12\x7f",
    "garbage": lambda name: bytes(range(255, 0, -1)) * 40,
    "groups": lambda name: field(1, name) + b"\x0b" * 5000,
    "endless varint": lambda name: b"\xff" * 64,
    "not UTF-8": lambda name: field(1, b"\xff\xfe"),
    "NUL in the name": lambda name: field(1, name + b"\0x") + b"\x12\x7f",
    "a million empty fields": lambda name: field(1, name) + b"\xfa\x3f\x00" * 300000 + b"\xff",
}


def bombs(type_url, name, depth=3000):
    """Struct in Struct, in each field of the message that may hold one."""
    struct = b""
    for _ in range(depth):
        struct = field(1, field(1, b"k") + field(2, field(5, struct)))
    for f in MESSAGES[type_url].DESCRIPTOR.fields:
        kind = f.message_type.full_name if f.message_type else None
        if kind == "google.protobuf.Struct":
            yield field(1, name) + field(f.number, struct)
        elif kind == "envoy.config.core.v3.Metadata":
            yield field(1, name) + field(f.number, field(1, field(1, b"x") + field(2, struct)))


def host(name, status=200):
    return {"name": name, "domains": [name], "routes": [config.direct("/", status)]}


def member(number, port, version="1"):
    made = discovery_pb2.Resource(name=COLLECTION + str(number), version=version)
    made.resource.Pack(message_of(LB_ENDPOINT, config.endpoint(port)))
    return made


def send(ads, type_url, *resources, removed=(), nonce=None):
    """A delta response of (name, type URL, bytes); the answer to it."""
    with ads.lock:
        nonce = nonce or ads._nonce()
    made = discovery_pb2.DeltaDiscoveryResponse(system_version_info=nonce, type_url=type_url, nonce=nonce,
                                                removed_resources=removed)
    for name, url, value in resources:
        added = made.resources.add(name=name, version=nonce)
        added.resource.type_url, added.resource.value = url, value
    ads.send(made)
    return ads.wait(lambda r: r.type_url == type_url and r.response_nonce == nonce)


@pytest.fixture
def world(sluice, ads, upstream, authority):
    """A proxy that has one of everything: traffic goes through a discovered filter, host and endpoint, with a secret beside."""
    tls = {"common_tls_context": {"validation_context_sds_secret_config": {"name": "s", "sds_config": ADS}}}
    eds = {"type": "EDS", "connect_timeout": "5s", "eds_cluster_config": {"eds_config": ADS}}
    ads.set(CLUSTER, "1", [{"name": "up", **eds},
                           config.cluster("other", 80, transport_socket=config.tls_socket("Upstream", **tls))])
    ads.set(ENDPOINTS, "1", [{"cluster_name": "up", "endpoints": [{"locality": {"zone": "z"}, "leds_cluster_locality_config": {
        "leds_config": ADS, "leds_collection_name": COLLECTION + "*"}}]}])
    ads.set(LB_ENDPOINT, "1", [member(1, upstream.port)])
    ads.set(SECRET, "1", [{"name": "s", "validation_context": {"trusted_ca": {"inline_string": authority.pair.cert.read_text()}}}])
    main = rds_listener()
    main["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"].insert(
        0, {"name": "f", "config_discovery": {"config_source": ADS, "type_urls": [config.TYPE + CORS]}})
    ads.set(LISTENER, "1", [main, scoped_listener("scoped")])
    ads.set(ROUTE, "1", [{"name": "r", "virtual_hosts": [host("base")], "vhds": {"config_source": ADS}}])
    ads.set(SCOPED_ROUTE, "1", [scope("a", "1", "r")])
    ads.set(EXTENSION, "1", [config.typed("f", CORS)])
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    bootstrap = ads_bootstrap(ads, "DELTA_GRPC")
    bootstrap["layered_runtime"] = {"layers": [{"name": "l", "rtds_layer": {"name": "one", "rtds_config": ADS}}]}
    proxy = sluice(bootstrap, ready=False)
    ads.wait(lambda r: r.type_url == VIRTUAL_HOST)
    forwarded = {"name": "a", "domains": ["a"], "routes": [config.route(cluster="up")]}
    send(ads, VIRTUAL_HOST, ("r/a", VIRTUAL_HOST, message_of(VIRTUAL_HOST, forwarded).SerializeToString()))
    wait_until(lambda: len(proxy.listeners()) == 2, "the listeners")
    wait_until(lambda: is_good(proxy), "traffic")
    return proxy


def is_good(proxy):
    proxy.expect_running()
    through = rawhttp.fetch(proxy.port("main"), host="a").status
    scoped = rawhttp.fetch(proxy.port("scoped"), headers=[("x-scope", "1")], host="base").status
    value = proxy.admin("/runtime").json["entries"]["a"]["final_value"]
    return (through, scoped, value) == (200, 200, "2")


@pytest.mark.parametrize("type_url", NAMES, ids=lambda t: t.rsplit(".", 1)[-1])
def test_every_type_malformed(world, ads, type_url):
    name = NAMES[type_url]
    bad = [(what, body(name.encode())) for what, body in BODIES.items()]
    bad += [("nesting bomb", body) for body in bombs(type_url, name.encode())]
    for what, body in bad:
        answer = send(ads, type_url, (name, type_url, body))
        assert answer.is_nack and 0 < len(answer.error_detail.message) <= 64 * 1024, what
        assert is_good(world), what
    for url in (CLUSTER if type_url != CLUSTER else LISTENER, "type.googleapis.com/no.such.Type", ""):
        assert send(ads, type_url, (name, url, b"")).is_nack, url
    assert is_good(world)
    send(ads, type_url)  # the stream goes on
    assert len(ads.open_streams()) == 1


ODD_NAMES = ["", "/", "//", "r", "r/", "r//", "/a", "r/a/b", "*", "r/*", "\n", "\u00e4", "%s%n", "x" * 4000, "xdstp:", "xdstp://",
             "xdstp://plane", COLLECTION, COLLECTION + "*", COLLECTION + "/", COLLECTION + "1/2", COLLECTION + "1?a=b&c",
             COLLECTION + "1#x", COLLECTION.replace("plane", "other") + "1", COLLECTION + "%", "../../etc/passwd"]


@pytest.mark.parametrize("type_url", NAMES, ids=lambda t: t.rsplit(".", 1)[-1])
def test_odd_names(world, ads, type_url):
    """Of resources, with and without one in them, and of removals: whatever becomes of them, others stay as they were."""
    for name in ODD_NAMES:
        if name == NAMES[type_url]:
            continue
        for value in (b"", field(1, name.encode())):
            send(ads, type_url, (name, type_url, value))
        send(ads, type_url, removed=[name])
    assert len(ads.streams) == 1
    wait_until(lambda: is_good(world), "traffic")
    world.admin("/config_dump?include_eds")
    world.admin("/clusters")


def test_names_beyond_their_limit_end_the_stream(world, ads):
    made = discovery_pb2.DeltaDiscoveryResponse(type_url=CLUSTER, nonce="long")
    made.resources.add(name="n" * 65536).resource.type_url = CLUSTER
    ads.send(made)
    ads.wait_for(lambda: len(ads.streams) > 1)
    assert is_good(world)


FLOOD = 2000


@KINDS
def test_a_flood_of_responses(sluice, ads, kind):
    """None waits for its answer: all are taken in order, and requests and admin are served meanwhile."""
    ads.set(CLUSTER, "1", [])
    ads.set(LISTENER, "1", [rds_listener()])
    ads.set(ROUTE, "1", [{"name": "r", "virtual_hosts": [config.vhost([config.direct("/", 200)])]}])
    proxy = sluice(ads_bootstrap(ads, kind))
    wait_until(lambda: rawhttp.fetch(proxy.port()).status == 200, "traffic")
    before = rss(proxy)
    for i in range(FLOOD):
        version = f"f{i}"
        body = {"name": "r", "virtual_hosts": [{**config.vhost([config.direct("/", 201 + i % 2)]), "name": version}]}
        if kind == "GRPC":
            made = discovery_pb2.DiscoveryResponse(version_info=version, type_url=ROUTE, nonce=version)
            made.resources.add().Pack(message_of(ROUTE, body))
        else:
            made = discovery_pb2.DeltaDiscoveryResponse(type_url=ROUTE, nonce=version)
            made.resources.add(name="r", version=version).resource.Pack(message_of(ROUTE, body))
        ads.send(made)
    seen = set()
    while not any(r.response_nonce == f"f{FLOOD - 1}" for r in ads.of(ROUTE)):
        seen.add(rawhttp.fetch(proxy.port()).status)
        assert proxy.admin("/ready").status == 200
    assert seen <= {200, 201, 202}
    assert rawhttp.fetch(proxy.port()).status == 201 + (FLOOD - 1) % 2
    assert not any(r.is_nack for r in ads.of(ROUTE)) and len(ads.streams) == 1
    if kind == "DELTA_GRPC":  # each has its answer, in order
        nonces = [r.response_nonce for r in ads.of(ROUTE) if r.response_nonce.startswith("f")]
        assert nonces == [f"f{i}" for i in range(FLOOD)]
    if not is_sanitized(proxy.binary):
        wait_until(lambda: rss(proxy) < before + 16 * MEGABYTE, lambda: f"memory: {before} {rss(proxy)}")


# ---- what is taken away, or never comes ----

@KINDS
def test_clusters_go_below_a_request(sluice, ads, upstream, kind):
    """A request under way ends with its answer; the next one is told that there is nobody."""
    gate = threading.Event()
    upstream.script(Reply(body=b"late", gate=gate))
    serve_all(ads, upstream.port)
    proxy = sluice(ads_bootstrap(ads, kind))
    with rawhttp.Client(proxy.port()) as client:
        client.send(rawhttp.encode("GET", "/"))
        upstream.wait_requests(1)
        ads.set(CLUSTER, "gone", [])
        proxy.wait_stat("cluster_manager.active_clusters", 1)
        assert rawhttp.fetch(proxy.port()).status == 503
        ads.set(CLUSTER, "back", [config.cluster("up", upstream.port)])  # of another kind, below the same request
        proxy.wait_stat("cluster_manager.active_clusters", 2)
        gate.set()
        assert client.read().body == b"late"
    assert rawhttp.fetch(proxy.port()).status == 200


@KINDS
def test_secrets_that_never_come(sluice, ads, upstream, kind):
    """They hold up who needs them, until their time is over, and nobody else."""
    source = {**ADS, "initial_fetch_timeout": "0.3s"}
    ours = {"common_tls_context": {"tls_certificate_sds_secret_configs": [{"name": "never", "sds_config": source}]}}
    theirs = {"common_tls_context": {"validation_context_sds_secret_config": {"name": "never", "sds_config": source}}}
    locked = config.listener(chains=[{**config.chain(config.hcm(stat_prefix="locked")),
                                      "transport_socket": config.tls_socket("Downstream", **ours)}], name="locked")
    ads.set(CLUSTER, "1", [config.cluster("up", upstream.port),
                           config.cluster("shut", upstream.port, transport_socket=config.tls_socket("Upstream", **theirs))])
    ads.set(LISTENER, "1", [config.listener(config.hcm([config.route(prefix="/shut", cluster="shut"), config.route()])), locked])
    proxy = sluice(ads_bootstrap(ads, kind), ready=False)
    proxy.wait_stat("sds.never.init_fetch_timeout", lambda n: n >= 1)
    wait_until(lambda: len(proxy.listeners()) == 2, "the listeners")
    assert rawhttp.fetch(proxy.port("main")).status == 200
    assert rawhttp.fetch(proxy.port("main"), "/shut").status == 503
    with socket.create_connection(("127.0.0.1", proxy.port("locked")), timeout=10) as client:
        assert client.recv(1) == b""  # nothing is served in the clear
    proxy.expect_running()


# ---- polled ----

def http_answer(body, headers=b""):
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + headers + b"content-length: %d\r\n\r\n" % len(body) + body


def chunked(*parts):
    return b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts)


ANSWERS = {
    "nothing": b"",
    "garbage": bytes(range(256)) * 100,
    "no end": http_answer(b"{}")[:-1],
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 100000,
    "one long header": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10 * MEGABYTE,
    "two lengths": http_answer(b"{}", b"content-length: 1\r\n"),
    "length and chunks": http_answer(b"{}", b"transfer-encoding: chunked\r\n"),
    "bad chunk": chunked(b"{}") + b"zz\r\n",
    "chunks without end": chunked(b"{", *[b" " * 1000] * 100),
    "interim answers": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100000,
    "redirect": b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    "http2": b"\0\0\0\4\0\0\0\0\0" * 1000,
    "deep JSON": http_answer(b"[" * MEGABYTE),
    "deep objects": http_answer(b'{"resources":' * 100000 + b"1" + b"}" * 100000),
    "large junk": http_answer(b'{"version_info":"' + b"x" * 20 * MEGABYTE),
    "a number of digits": http_answer(b'{"version_info":' + b"9" * MEGABYTE + b"}"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_polled_answers_that_are_none(sluice, upstream, upstreams, name):
    server = upstreams(ByteUpstream, ByteUpstream.answer(ANSWERS[name]))
    source = {"resource_api_version": "V3", "initial_fetch_timeout": "0.1s", "api_config_source": {
        "api_type": "REST", "transport_api_version": "V3", "cluster_names": ["xds"], "refresh_delay": "0.01s",
        "request_timeout": "0.5s"}}
    proxy = sluice(config.bootstrap([config.listener(config.hcm())],
                                    [config.cluster("up", upstream.port), config.cluster("xds", server.port)],
                                    dynamic_resources={"cds_config": source}))
    wait_until(lambda: server.accepted > 3, "polls", 20)
    before = rss(proxy)
    wait_until(lambda: server.accepted > 9, "more polls", 20)
    proxy.expect_running()
    assert rawhttp.fetch(proxy.port()).status == 200
    failed = proxy.stat("cluster_manager.cds.update_failure") + proxy.stat("cluster_manager.cds.update_rejected")
    assert failed >= 3 and proxy.stat("cluster_manager.cds.update_success") == 0
    if not is_sanitized(proxy.binary):
        assert rss(proxy) < before + 32 * MEGABYTE, (before, rss(proxy))


def test_varints_of_sizes_lie(world, ads):
    """A field that says it is longer than all there is, in each place of the envelope."""
    whole = discovery_pb2.DeltaDiscoveryResponse(type_url=CLUSTER, nonce="x")
    for lie in (field(2, b"")[:1] + varint(1 << 31), varint(2 << 3 | 2) + varint((1 << 64) - 1), varint(4 << 3 | 2) + varint(1 << 62),
                field(2, field(2, b"")[:1] + varint(1 << 40))):
        streams = len(ads.streams)
        ads.wait_for(lambda: ads.open_streams())
        ads.send(whole.SerializeToString() + lie)
        ads.wait_for(lambda n=streams: len(ads.streams) > n)
        assert is_good(world)
