"""Compression of responses and requests, between a raw client, curl and a scripted upstream."""

import gzip
import subprocess
import threading
import zlib

import pytest

from support.config import bootstrap, cluster, hcm, listener, route, typed, vhost
from support.rawhttp import Client, chunks, encode, fetch
from support.upstream import Reply

FILTER = "envoy.filters.http.compressor"
COMPRESSOR = "envoy.extensions.filters.http.compressor.v3.Compressor"
BODY = b"The quick brown fox jumps over the lazy dog. " * 2000
TEXT = ("content-type", "text/plain")
STATS = "http.ingress.compressor"


def library(name, **fields):
    kind = name.capitalize()
    return typed(name, f"envoy.extensions.compression.{name}.compressor.v3.{kind}", **fields)


def compressor(lib, name=None, **fields):
    return typed(name or f"{FILTER}.{lib}", COMPRESSOR, compressor_library=library(lib), **fields)


def per_route(**fields):
    return {FILTER + ".gzip": {"@type": f"type.googleapis.com/{COMPRESSOR}PerRoute", **fields}}


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    filters = [compressor(lib, response_direction_config={}) for lib in ("brotli", "zstd", "gzip")]
    filters[2]["typed_config"]["request_direction_config"] = {}
    off = {**route("/off"), "typed_per_filter_config": per_route(disabled=True)}
    main = listener(hcm(vhosts=[vhost([off, route()])], filters=filters))
    return shared_sluice(bootstrap([main], [cluster("up", shared_upstream.port)]))


@pytest.fixture
def up(shared_upstream):
    return shared_upstream.script(Reply(headers=[TEXT], body=BODY))


def get(proxy, accept, path="/"):
    return fetch(proxy.port(), path, headers=[("accept-encoding", accept)])


def curl(proxy, *args):
    done = subprocess.run(["curl", "-sS", "--max-time", "20", *args, f"http://127.0.0.1:{proxy.port()}/"],
                          capture_output=True, check=True)
    return done.stdout


@pytest.mark.smoke
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("accept", ["gzip", "br", "zstd"])
def test_curl_undoes_it(proxy, up, version, accept):
    assert curl(proxy, version, "--compressed", "-H", f"accept-encoding: {accept}") == BODY


@pytest.mark.smoke
def test_gzip(proxy, up):
    answer = get(proxy, "gzip")
    assert answer.get("content-encoding") == "gzip" and answer.get("vary") == "Accept-Encoding"
    assert answer.get("content-length") is None and answer.get("transfer-encoding") == "chunked"
    assert len(answer.body) < len(BODY) / 10 and gzip.decompress(answer.body) == BODY
    assert up.wait_requests(1)[0].get("accept-encoding") == "gzip"


@pytest.mark.parametrize("accept, encoding", [
    ("gzip, br;q=0.5", "gzip"), ("*", "br"), ("br;q=0, *", "zstd"), ("identity", None), ("deflate", None),
    ("gzip;q=0", None)])
def test_negotiation(proxy, up, accept, encoding):
    answer = get(proxy, accept)
    assert answer.get("content-encoding") == encoding and answer.get("vary") == "Accept-Encoding"
    assert encoding or answer.body == BODY


@pytest.mark.parametrize("reply", [
    Reply(headers=[TEXT], body=b"short"),
    Reply(headers=[("content-type", "image/png")], body=BODY),
    Reply(headers=[TEXT, ("content-encoding", "x")], body=BODY),
    Reply(headers=[TEXT, ("cache-control", "no-transform")], body=BODY)])
def test_left_alone(proxy, up, reply):
    up.script(reply)
    answer = get(proxy, "gzip")
    assert answer.body == reply.body and answer.get("content-length") == str(len(reply.body))


def test_head_and_304(proxy, up):
    head = fetch(proxy.port(), "/", "HEAD", [("accept-encoding", "gzip")])
    assert head.get("content-encoding") is None and head.get("content-length") == str(len(BODY))
    up.script(Reply(status=304))
    assert get(proxy, "gzip").get("content-encoding") is None


def test_route_turns_it_off(proxy, up):
    assert get(proxy, "gzip", "/off").body == BODY


def test_each_piece_arrives_at_once(proxy, up):
    """What the upstream has sent can be read before its next piece."""
    gate = threading.Event()

    class Pieces(list):
        def __iter__(self):
            yield b"first piece"
            gate.wait(10)
            yield b"second"

    up.script(Reply(headers=[TEXT], chunks=Pieces()))
    with Client(proxy.port()) as client:
        client.send(encode("GET", "/", [("accept-encoding", "gzip")]))
        client.read_head()
        undo, got = zlib.decompressobj(31), b""
        while got != b"first piece":
            size = int(client.line(), 16)
            got += undo.decompress(client.exactly(size))
            client.exactly(2)
        gate.set()
        while size := int(client.line(), 16):
            got += undo.decompress(client.exactly(size))
            client.exactly(2)
    assert got == b"first piecesecond" and undo.eof


def test_chunked_with_trailers(proxy, up):
    up.script(Reply(headers=[TEXT], chunks=[b"a" * 50, b"b" * 50000], trailers=[("x-end", "1")]))
    assert gzip.decompress(get(proxy, "gzip").body) == b"a" * 50 + b"b" * 50000


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_requests(proxy, up, framing):
    headers, body = [TEXT], BODY
    if framing == "chunks":
        headers, body = [TEXT, ("transfer-encoding", "chunked")], chunks(BODY[:5000], BODY[5000:])
    assert fetch(proxy.port(), "/", "POST", headers, body).status == 200
    seen = up.wait_requests(1)[0]
    assert seen.get("content-encoding") == "gzip" and seen.is_chunked and gzip.decompress(seen.body) == BODY


def test_stats(sluice, upstream):
    filters = [compressor("gzip"), compressor("brotli", response_direction_config={})]
    proxy = sluice(bootstrap([listener(hcm(filters=filters))], [cluster("up", upstream.port)]))
    upstream.script(Reply(headers=[TEXT], body=BODY))
    body = get(proxy, "gzip").body
    proxy.wait_stat(f"{STATS}.gzip.gzip.compressed", 1)
    now = proxy.stats(STATS)
    assert now[f"{STATS}.gzip.gzip.total_uncompressed_bytes"] == len(BODY)
    assert now[f"{STATS}.gzip.gzip.total_compressed_bytes"] == len(body)
    assert now[f"{STATS}.gzip.gzip.header_compressor_used"] == 1
    assert now[f"{STATS}.brotli.brotli.header_compressor_overshadowed"] == 1
    assert now[f"{STATS}.brotli.brotli.response.not_compressed"] == 1
    assert now[f"{STATS}.gzip.gzip.request.not_compressed"] == 1


def test_client_that_leaves(proxy, up):
    """Encoders of streams cut short are given back."""
    up.script(Reply(headers=[TEXT], body=BODY * 200))
    for _ in range(5):
        with Client(proxy.port()) as client:
            client.send(encode("GET", "/", [("accept-encoding", "*")]))
            client.read_head()
    up.script(Reply(headers=[TEXT], body=BODY))
    assert gzip.decompress(get(proxy, "gzip").body) == BODY
