"""Local rate limits by descriptors beside Envoy's: which requests of a sequence are limited, and what they are told."""

import pytest

from support.config import TYPE, bootstrap, cluster, direct, hcm, listener, typed, vhost
from support.rawhttp import Client, fetch

FILTER = "envoy.filters.http.local_ratelimit"
LIMIT = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
ALWAYS = {"default_value": {"numerator": 100}}
TOLD = ["x-ratelimit-limit", "x-ratelimit-remaining", "x-flags"]


def bucket(tokens, per_fill=1):
    return {"max_tokens": tokens, "tokens_per_fill": per_fill, "fill_interval": "1000s"}


def descriptor(tokens, *entries, per_fill=1, **fields):
    return {"entries": [{"key": k, **({"value": v} if v else {})} for k, v in entries], "token_bucket": bucket(tokens, per_fill),
            **fields}


def actions(*list_of, **fields):
    return {"actions": list(list_of), **fields}


def generic(value, **fields):
    return {"generic_key": {"descriptor_value": value, **fields}}


def of_header(name="x-a", key="a", **fields):
    return {"request_headers": {"header_name": name, "descriptor_key": key, **fields}}


def of_query(name="q", key="q", **fields):
    return {"query_parameters": {"query_parameter_name": name, "descriptor_key": key, **fields}}


def in_metadata(key="k", **fields):
    return {"metadata": {"descriptor_key": "m", "metadata_key": {"key": "ns", "path": [{"key": key}]}, "source": "ROUTE_ENTRY",
                         **fields}}


def header_match(value="h", expect=True, **fields):
    return {"header_value_match": {"descriptor_value": value, "expect_match": expect,
                                   "headers": [{"name": "x-a", "string_match": {"exact": "1"}}], **fields}}


def query_match(value="y", expect=True, **fields):
    return {"query_parameter_value_match": {"descriptor_value": value, "expect_match": expect, "query_parameters": [
        {"name": "q", "string_match": {"exact": "1"}}], **fields}}


def address_match(*cidrs, invert=False, **fields):
    return {"remote_address_match": {"descriptor_value": "near", "address_matcher": {
        "ranges": [{"address_prefix": a, "prefix_len": n} for a, n in cidrs], "invert_match": invert}, **fields}}


def limit(*descriptors, rate_limits=None, tokens=9, **fields):
    config = {"stat_prefix": "local", "token_bucket": bucket(tokens), "filter_enabled": ALWAYS, "filter_enforced": ALWAYS,
              "descriptors": list(descriptors), "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
              "response_headers_to_add": [{"header": {"key": "x-flags", "value": "%RESPONSE_FLAGS%"}}], **fields}
    if rate_limits is not None:
        config["rate_limits"] = rate_limits
    return config


def own(action_list, *descriptors, **fields):
    """One descriptor of the filter's own, made by these actions."""
    return {"limit": limit(*descriptors, rate_limits=[actions(*action_list)], **fields)}


A1 = descriptor(2, ("a", "1"))
ANY_A = descriptor(1, ("a", None))
CASES = {
    "default-only": {"limit": limit(tokens=3)},
    "default-limited": own([of_header()], descriptor(5, ("a", "1")), tokens=2),
    "header": own([of_header()], A1),
    "header-skip": own([generic("x"), of_header(skip_if_absent=True)], descriptor(1, ("generic_key", "x"))),
    "header-no-skip": own([generic("x"), of_header()], descriptor(1, ("generic_key", "x"))),
    "header-first": own([of_header()], descriptor(1, ("a", "2"))),
    "generic": own([generic("x")], descriptor(2, ("generic_key", "x"))),
    "generic-key": own([generic("x", descriptor_key="k")], descriptor(2, ("k", "x"))),
    "generic-format": own([generic("%REQ(x-a)%")], descriptor(2, ("generic_key", "1"))),
    "generic-format-mixed": own([generic("v-%REQ(x-a)%-w")], descriptor(2, ("generic_key", "v-1-w"))),
    "generic-default": own([generic("%REQ(x-a)%", default_value="none")], descriptor(2, ("generic_key", "none"))),
    "generic-empty": own([generic("x"), generic("%REQ(x-none)%", descriptor_key="k")], descriptor(1, ("generic_key", "x"))),
    "query": own([of_query()], descriptor(1, ("q", "1"))),
    "query-skip": own([generic("x"), of_query(skip_if_absent=True)], descriptor(1, ("generic_key", "x"))),
    "query-decoded": own([of_query("r")], descriptor(1, ("q", "a b"))),
    "remote": own([{"remote_address": {}}], descriptor(2, ("remote_address", "127.0.0.1"))),
    "remote-xff": own([{"remote_address": {}}], descriptor(1, ("remote_address", "9.9.9.9"))),
    "masked": own([{"masked_remote_address": {"v4_prefix_mask_len": 12}}], descriptor(2, ("masked_remote_address", "127.0.0.0/12"))),
    "masked-whole": own([{"masked_remote_address": {}}], descriptor(2, ("masked_remote_address", "127.0.0.1/32"))),
    "masked-none": own([{"masked_remote_address": {"v4_prefix_mask_len": 0}}], descriptor(2, ("masked_remote_address", "0.0.0.0/0"))),
    "source-cluster": own([{"source_cluster": {}}], descriptor(2, ("source_cluster", "test-cluster"))),
    "destination-cluster": own([{"destination_cluster": {}}], descriptor(2, ("destination_cluster", "none"))),
    "header-match": own([header_match()], descriptor(1, ("header_match", "h"))),
    "header-no-match": own([header_match(expect=False)], descriptor(1, ("header_match", "h"))),
    "header-match-key": own([header_match(descriptor_key="k")], descriptor(1, ("k", "h"))),
    "header-match-format": own([header_match("%REQ(x-b)%", default_value="d")], descriptor(1, ("header_match", "d"))),
    "query-match": own([query_match()], descriptor(1, ("query_match", "y"))),
    "query-match-decoded": own([{"query_parameter_value_match": {"descriptor_value": "y", "query_parameters": [
        {"name": "r", "string_match": {"exact": "a b"}}]}}], descriptor(1, ("query_match", "y"))),
    "query-no-match": own([query_match(expect=False, descriptor_key="k")], descriptor(1, ("k", "y"))),
    "address-match": own([address_match(("127.0.0.0", 8))], descriptor(2, ("remote_address_match", "near"))),
    "address-other": own([address_match(("10.0.0.0", 8))], descriptor(2, ("remote_address_match", "near"))),
    "address-inverted": own([address_match(("10.0.0.0", 8), invert=True, descriptor_key="k")], descriptor(2, ("k", "near"))),
    "metadata": own([in_metadata()], descriptor(2, ("m", "v"))),
    "metadata-default": own([in_metadata("x", default_value="d")], descriptor(2, ("m", "d"))),
    "metadata-absent": own([generic("x"), in_metadata("x")], descriptor(2, ("generic_key", "x"))),
    "metadata-skip": own([generic("x"), in_metadata("x", skip_if_absent=True)], descriptor(2, ("generic_key", "x"))),
    "cel": own([{"extension": typed("expr", "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor", descriptor_key="c",
                                    text="request.method")}], descriptor(2, ("c", "GET"))),
    "two-entries": own([of_header(), of_query()], descriptor(1, ("a", "1"), ("q", "1"))),
    "order-counts": own([of_header(), of_query()], descriptor(1, ("q", "1"), ("a", "1"))),
    "fewer-entries": own([of_header(), of_query()], descriptor(1, ("a", "1"))),
    "two-descriptors": {"limit": limit(descriptor(3, ("a", "1"), per_fill=9), descriptor(2, ("q", "1")),
                                       rate_limits=[actions(of_header()), actions(of_query())])},
    "strictest-first": {"limit": limit(descriptor(2, ("a", "1"), per_fill=2), descriptor(1, ("q", "1"), per_fill=1),
                                       rate_limits=[actions(of_header()), actions(of_query())])},
    "not-the-default": own([of_header()], descriptor(4, ("a", "1")), tokens=1, always_consume_default_token_bucket=False),
    "wildcard": own([of_header()], ANY_A),
    "wildcard-and-fixed": own([of_header()], ANY_A, descriptor(3, ("a", "1"))),
    "wildcard-pair": own([of_header(), of_query()], descriptor(1, ("a", None), ("q", "1"))),
    "wildcards-evicted": own([of_header()], ANY_A, max_dynamic_descriptors=1),
    "wildcards-evicted-two": own([of_header()], ANY_A, max_dynamic_descriptors=2),
    "shadow": own([of_header()], descriptor(1, ("a", "1"), shadow_mode=True)),
    "shadow-and-real": {"limit": limit(descriptor(1, ("a", "1"), shadow_mode=True), descriptor(2, ("q", "1"), per_fill=2),
                                       rate_limits=[actions(of_header()), actions(of_query())])},
    "shadow-behind-real": {"limit": limit(descriptor(1, ("a", "1"), shadow_mode=True, per_fill=2), descriptor(1, ("q", "1")),
                                          rate_limits=[actions(of_header()), actions(of_query())])},
    "shadow-wildcard": own([of_header()], descriptor(1, ("a", None), shadow_mode=True)),
    "hits": {"limit": limit(descriptor(4, ("a", "1")), rate_limits=[actions(of_header(), hits_addend={"number": 3})])},
    "hits-none": {"limit": limit(descriptor(1, ("a", "1")), rate_limits=[actions(of_header(), hits_addend={"number": 0})])},
    "hits-format": {"limit": limit(descriptor(4, ("a", "1")), rate_limits=[actions(of_header(), hits_addend={"format": "%REQ(x-a)%"})])},
    "hits-format-bad": {"limit": limit(descriptor(1, ("a", "One")), rate_limits=[
        actions(of_header(), hits_addend={"format": "%REQ(x-a)%"})])},
    "hits-back": {"limit": limit(descriptor(2, ("a", "1")), rate_limits=[
        actions(of_header()), actions(of_header(), hits_addend={"number": 1, "is_negative_hits": True})])},
    "told-off": {"limit": limit(A1, rate_limits=[actions(of_header(), x_ratelimit_option="OFF")])},
    "told-on": {"limit": limit(A1, rate_limits=[actions(of_header(), x_ratelimit_option="DRAFT_VERSION_03")],
                               enable_x_ratelimit_headers="OFF")},
    "on-stream-done": {"limit": limit(A1, rate_limits=[actions(of_header(), apply_on_stream_done=True)])},
    "route": {"limit": limit(A1), "route": [actions(of_header())]},
    "route-none": {"limit": limit(A1)},
    "route-stage": {"limit": limit(A1, stage=2), "route": [actions(of_header(), stage=1)]},
    "route-stage-equal": {"limit": limit(A1, stage=2), "route": [actions(of_header(), stage=2)]},
    "route-disabled": {"limit": limit(A1), "route": [actions(of_header(), disable_key="k")]},
    "route-and-own": {"limit": limit(A1, rate_limits=[actions(of_query())]), "route": [actions(of_header())]},
    "vhost": {"limit": limit(A1), "vhost": [actions(of_header())]},
    "vhost-overridden": {"limit": limit(A1), "vhost": [actions(of_header())], "route": [actions(of_query())]},
    "vhost-included": {"limit": limit(A1, vh_rate_limits="INCLUDE"), "vhost": [actions(of_header())], "route": [actions(of_query())]},
    "vhost-ignored": {"limit": limit(A1, vh_rate_limits="IGNORE"), "vhost": [actions(of_header())]},
    "vhost-by-route": {"limit": limit(A1, vh_rate_limits="IGNORE"), "vhost": [actions(of_header())], "include": True},
    "unenforced": own([of_header()], A1, filter_enforced={"default_value": {"numerator": 0}}),
    "direct": {"limit": limit(A1), "vhost": [actions(of_header())], "direct": True},
}
REQUESTS = [("/", [("x-a", "1")]), ("/?q=1", [("x-a", "1")]), ("/", [("x-a", "2")]), ("/?q=1", []), ("/?r=a%20b", []),
            ("/", [("x-a", "1"), ("x-a", "2")]), ("/", [("x-a", "One"), ("x-forwarded-for", "9.9.9.9")]), ("/?q=1&q=2", [("x-a", "2")]),
            ("/", [("x-a", "1")]), ("/?r=a%20b", [("x-forwarded-for", "9.9.9.9")]), ("/?q=1", [("x-a", "1")]), ("/", [])]
STATS = ["enabled", "enforced", "ok", "rate_limited", "shadow_mode"]


def host(name, case):
    route = {"match": {"prefix": "/"}, "metadata": {"filter_metadata": {"ns": {"k": "v"}}}}
    if case.get("direct"):
        route["direct_response"] = {"status": 200}
    else:
        route["route"] = {"cluster": "none", "rate_limits": case.get("route", []), "include_vh_rate_limits": case.get("include", False)}
    config = {**case["limit"], "stat_prefix": name}
    return vhost([route], name, [name, f"{name}:*"], rate_limits=case.get("vhost", []),
                 typed_per_filter_config={FILTER: {"@type": TYPE + LIMIT, **config}})


FORMATS_ON = {"layered_runtime": {"layers": [{"name": "static", "static_layer": {
    "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value": True}}]}}


@pytest.fixture(scope="module", params=[{}, FORMATS_ON], ids=["texts", "formats"])
def sides(request, shared_envoy, shared_sluice):
    main = hcm(vhosts=[host(name, case) for name, case in CASES.items()],
               filters=[typed(FILTER, LIMIT, stat_prefix="filter")], use_remote_address=False)
    return [start(bootstrap([listener(main)], [cluster("none")], **request.param)) for start in (shared_envoy, shared_sluice)]


def answers(proxy, name):
    told = []
    for target, headers in REQUESTS:
        answer = fetch(proxy.port(), target, "GET", headers, host=name)
        told.append((answer.status, [answer.get(h) for h in TOLD]))
    return told, {s: proxy.stat(f"{name}.http_local_rate_limit.{s}") or 0 for s in STATS}


@pytest.mark.parametrize("name", CASES)
def test_sequences(sides, name):
    envoy, sluice = (answers(proxy, name) for proxy in sides)
    differing = [f"{request}: envoy {a}, sluice {b}" for request, a, b in zip(REQUESTS, envoy[0], sluice[0]) if a != b]
    assert not differing, "\n".join(differing)
    assert envoy[1] == sluice[1]


# ---- connections ----

CX = "envoy.filters.network.local_ratelimit"
CX_LIMIT = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit"
ACCEPT_LIMIT = "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit"


def cx(prefix, tokens=2, **fields):
    return typed(CX, CX_LIMIT, stat_prefix=prefix, token_bucket=bucket(tokens), **fields)


@pytest.fixture(scope="module")
def cx_sides(shared_envoy, shared_sluice):
    def manager(**fields):
        return hcm([direct("/", 200)], **fields)
    own_buckets = limit(tokens=2, stat_prefix="own", local_rate_limit_per_downstream_connection=True)
    wildcards = limit(ANY_A, stat_prefix="wild", rate_limits=[actions(of_header())], local_rate_limit_per_downstream_connection=True)
    made = [listener(cx("a", share_key="k"), manager(), name="a"), listener(cx("b", share_key="k"), manager(), name="b"),
            listener(cx("c", share_key="other"), manager(), name="c"), listener(cx("d", 3, share_key="k"), manager(), name="d"),
            listener(manager(), name="e", listener_filters=[
                typed("envoy.filters.listener.local_ratelimit", ACCEPT_LIMIT, stat_prefix="e", token_bucket=bucket(2))]),
            listener(manager(filters=[typed(FILTER, LIMIT, **own_buckets)]), name="own"),
            listener(manager(filters=[typed(FILTER, LIMIT, **wildcards)]), name="wild")]
    return [start(bootstrap(made)) for start in (shared_envoy, shared_sluice)]


def served(proxy, name):
    try:
        return fetch(proxy.port(name), "/").status
    except (EOFError, ConnectionError):
        return None


@pytest.mark.parametrize("names", ["abab", "cdcddd", "eee"])
def test_connections(cx_sides, names):
    envoy, sluice = ([served(proxy, n) for n in names] for proxy in cx_sides)
    assert sluice == envoy and None in sluice
    envoy, sluice = (proxy.stats("local_rate_?limit.*rate_limited") for proxy in cx_sides)
    assert sluice == envoy and sum(sluice.values())


@pytest.mark.parametrize("name", ["own", "wild"])
def test_buckets_of_connections(cx_sides, name):
    def told(proxy):
        with Client(proxy.port(name)) as one, Client(proxy.port(name)) as other:
            return [(a.status, [a.get(h) for h in TOLD]) for a in (
                client.request("GET", "/", headers=[("x-a", value)]) for client in (one, other, one, one, other) for value in "12")]
    envoy, sluice = (told(proxy) for proxy in cx_sides)
    assert sluice == envoy
    assert {status for status, _ in sluice} == {200, 429}
