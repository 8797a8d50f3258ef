"""The compressor beside Envoy's: which responses are compressed, with which headers and counters."""

import pytest

from support.config import bootstrap, cluster, hcm, listener, route, typed
from support.rawhttp import fetch
from support.upstream import Reply

COMPRESSOR = "envoy.extensions.filters.http.compressor.v3.Compressor"
BODY = b"hello world " * 100
TEXT = ("content-type", "text/plain")
PNG = ("content-type", "image/png")
COMPARED = ("content-encoding", "content-length", "vary", "etag", "x-envoy-compression-status")


def compressor(lib, direction=None, **fields):
    library = typed(lib, f"envoy.extensions.compression.{lib}.compressor.v3.{lib.capitalize()}")
    if direction is not None:
        fields["response_direction_config"] = direction
    return typed(f"envoy.filters.http.compressor.{lib}", COMPRESSOR, compressor_library=library, **fields)


STRICT = {"status_header_enabled": True, "disable_on_etag_header": True, "uncompressible_response_codes": [206]}
CHAINS = {
    "legacy": [compressor("gzip")],
    "three": [compressor("brotli"), compressor("zstd"), compressor("gzip")],
    "preferred": [compressor("brotli"), compressor("zstd", choose_first=True), compressor("gzip")],
    "removing": [compressor("gzip", remove_accept_encoding_header=True), compressor("brotli")],
    "types": [compressor("gzip", {"common_config": {"content_type": ["text/html"]}}), compressor("brotli", {})],
    "telling": [compressor("gzip", STRICT),
                compressor("brotli", {**STRICT, "common_config": {"min_content_length": 2000}})],
    "weakening": [compressor("gzip", {"weaken_etag_on_compress": True})],
}
ACCEPTS = [None, "", "gzip", "br", "zstd", "*", "identity", "deflate", "GZIP", "gzip, br", "br, zstd, gzip", "br;q=0, *",
           "gzip;q=0.5, br;q=0.6, zstd;q=0.7", "gzip;q=0.5, *;q=0.6", "identity, gzip", "*;q=0", "gzip;q=0", "gzip;q=abc",
           "gzip;q=0.5;v=1", "gzip;v=1;q=0", "gzip ; q = 0.2 , br ; q=0.1", "gzip;q=-1", ",,gzip"]
REPLIES = [Reply(headers=[TEXT], body=BODY), Reply(headers=[TEXT], body=b"short"), Reply(headers=[PNG], body=BODY),
           Reply(headers=[], body=BODY), Reply(status=206, headers=[TEXT], body=BODY),
           Reply(headers=[TEXT, ("etag", '"abc"')], body=BODY), Reply(headers=[TEXT, ("etag", 'W/"abc"')], body=BODY),
           Reply(headers=[TEXT, ("cache-control", "a, no-transform")], body=BODY),
           Reply(headers=[TEXT, ("content-encoding", "x")], body=BODY), Reply(headers=[TEXT, ("vary", "a")], body=BODY),
           Reply(headers=[TEXT], chunks=[BODY, BODY]), Reply(status=304, headers=[TEXT])]
CASES = [(accept, REPLIES[0]) for accept in ACCEPTS] + [("gzip", reply) for reply in REPLIES]


def counters(proxy):
    """Without bytes, and without one that Envoy counts twice when it tells the status."""
    return {n: v for n, v in proxy.stats("compressor").items() if "_bytes" not in n and "too_small" not in n}


@pytest.mark.parametrize("name", CHAINS)
def test_decisions(shared_envoy, shared_sluice, shared_upstream, name):
    config = bootstrap([listener(hcm([route()], filters=CHAINS[name]))], [cluster("up", shared_upstream.port)])
    proxies = shared_envoy(config), shared_sluice(config)
    for accept, reply in CASES:
        answers = []
        for proxy in proxies:
            up = shared_upstream.script(reply)
            headers = [("accept-encoding", accept)] if accept is not None else []
            answer = fetch(proxy.port(), "/", headers=headers)
            answers.append([answer.status, *((n, answer.get(n)) for n in COMPARED),
                            up.wait_requests(1)[0].get("accept-encoding")])
        assert answers[0] == answers[1], (accept, reply)
    assert counters(proxies[0]) == counters(proxies[1])
