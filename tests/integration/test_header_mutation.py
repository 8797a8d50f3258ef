"""envoy.filters.http.header_mutation (header_mutation_filter.c) on live listeners."""

import pytest

from support.config import bootstrap, cluster, hcm, listener, typed
from support.rawhttp import fetch
from support.upstream import Reply

NAME, MESSAGE = "envoy.filters.http.header_mutation", "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"

pytestmark = pytest.mark.smoke  # all of it under sanitizers


def append(key, value):
    return {"append": {"header": {"key": key, "value": value}}}


def test_all_parts(sluice, upstream):
    upstream.script(Reply(chunks=[b"ab"], trailers=[("x-t", "1")], headers=[("x-gone", "1"), ("trailer", "x-t")]))
    only = typed(NAME, MESSAGE, mutations={
        "request_mutations": [append("x-new", "%REQ(:METHOD)%")],
        "query_parameter_mutations": [{"append": {"record": {"key": "q", "value": "1"}}}, {"remove": "secret"}],
        "response_mutations": [{"remove": "x-gone"}, append("x-r", "2")]})
    proxy = sluice(bootstrap([listener(hcm(filters=[only]))], [cluster("up", upstream.port)]))
    reply = fetch(proxy.port(), "/a?secret=x&b=2")
    assert (reply.status, reply.get("x-gone"), reply.get("x-r")) == (200, None, "2")
    assert upstream.requests[0].target == "/a?b=2&q=1" and upstream.requests[0].get("x-new") == "GET"
