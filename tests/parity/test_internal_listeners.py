"""Internal listeners beside Envoy's: connections through them, what goes along with those, and how logs, stats and admin tell of them."""

import contextlib
import re

import pytest

from support.config import bootstrap, cluster, file_log, hcm, http2, listener, route, tcp_proxy, typed
from support.internal import (EXTENSION, ORIGINAL_DST, RESTORES, internal_cluster, internal_endpoint, internal_listener,
                              original_dst_cluster)
from support.rawhttp import Client, fetch
from support.tunnel_server import TunnelServer
from support.upstream import ScriptedUpstream

LOG = " ".join(["%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_HOST% %UPSTREAM_HOST_NAME% %UPSTREAM_HOST_NAME_WITHOUT_PORT%",
                "%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_CLUSTER% %UPSTREAM_TRANSPORT_FAILURE_REASON% %UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                "%BYTES_RECEIVED% %BYTES_SENT%"])
# of connections that come in by TCP, and of those to internal listeners
OUTER = f"{LOG} %UPSTREAM_LOCAL_ADDRESS%\n"
INNER = " ".join([LOG, "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS%",
                  "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%",
                  "%DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID% %DOWNSTREAM_DIRECT_LOCAL_ADDRESS_ENDPOINT_ID%",
                  f"%DYNAMIC_METADATA(istio)% %DYNAMIC_METADATA({ORIGINAL_DST})%\n"])
HOST_AND_CLUSTER = [("host", ORIGINAL_DST), ("cluster", "istio"), ("host", "istio")]
OF_CLUSTER = {"metadata": {"filter_metadata": {"istio": {"of": "cluster", "c": 1}}}}


def tunnels(to):
    """{name: (endpoint's metadata, passthrough sources)}; `to`: the tunnel server."""
    here = {"local": f"127.0.0.1:{to}"}
    return {
        "plain": ({ORIGINAL_DST: here}, HOST_AND_CLUSTER),
        "both": ({ORIGINAL_DST: here, "istio": {"of": "host", "h": [1, {"x": True}]}}, HOST_AND_CLUSTER),
        "cluster-last": ({ORIGINAL_DST: here, "istio": {"of": "host"}}, HOST_AND_CLUSTER[::-1]),
        "remote": ({ORIGINAL_DST: {**here, "remote": "9.9.9.9:99"}}, HOST_AND_CLUSTER),
        "v6": ({ORIGINAL_DST: {"local": "[::1]:80", "waypoint": f"127.0.0.1:{to}"}}, HOST_AND_CLUSTER),
        "waypoint": ({ORIGINAL_DST: {"local": "10.9.9.9:80", "waypoint": f"127.0.0.1:{to}"}}, HOST_AND_CLUSTER),
        "bad-waypoint": ({ORIGINAL_DST: {**here, "waypoint": "nonsense"}}, HOST_AND_CLUSTER),
        "no-text": ({ORIGINAL_DST: {**here, "waypoint": 7}}, HOST_AND_CLUSTER),
    }


STATE = " ".join(["%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS% %UPSTREAM_HOST%",
                  *(f"%FILTER_STATE({name}:PLAIN)%" for name in ("once", "all", "own", f"{ORIGINAL_DST}.local_ip"))]) + "\n"
GOES = "envoy.network.transport_socket.original_dst_address"


def put(name, value, shared="ONCE"):
    """A value of set_filter_state."""
    kind = {} if "." in name else {"factory_key": "envoy.string"}
    return {"object_key": name, **kind, "format_string": {"text_format_source": {"inline_string": value}}, "shared_with_upstream": shared}


def states(to):
    """{name: what the client's connection has in its filter state}; `to`: port of the server."""
    there, local, remote = f"127.0.0.1:{to}", f"{ORIGINAL_DST}.local_ip", f"{ORIGINAL_DST}.remote_ip"
    return {
        "shared": [put("once", "1"), put("all", "2", "TRANSITIVE"), put("own", "3", "NONE"), put(GOES, there, "TRANSITIVE")],
        "local": [put(local, there)],
        "both": [put(local, there), put(remote, "9.9.9.9:99")],
        "override": [put(local, "127.0.0.1:1"), put(GOES, there)],
        "bad-override": [put(local, there), put(GOES, "nonsense")],
    }


@pytest.fixture(scope="module")
def servers():
    made = TunnelServer(is_http2=True), ScriptedUpstream()
    yield made
    for server in made:
        server.stop()


@pytest.fixture(scope="module")
def sides(shared_envoy, shared_sluice, servers, tmp_path_factory):
    tunnel_server, upstream = servers

    def start(kind):
        logs = tmp_path_factory.mktemp("logs")

        def inner_log(name):
            return {"access_log": [file_log(logs / f"inner-{name}", INNER)]}

        def outer(name, to, make=tcp_proxy, **fields):
            log = [file_log(logs / name, OUTER)]
            return listener(make(cluster=to, access_log=log, **fields), name=name)

        def http(cluster, **fields):
            return hcm([route(cluster=cluster)], **fields)
        clusters = [cluster("up", upstream.port), original_dst_cluster("odst", typed_extension_protocol_options=http2(),
                                                                       original_dst_lb_config={"upstream_port_override": tunnel_server.port})]
        listeners = []
        for name, (metadata, sources) in tunnels(tunnel_server.port).items():
            tunnel = tcp_proxy("odst", stat_prefix=name, tunneling_config={"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"}, **inner_log(name))
            listeners += [outer(name, name), internal_listener(f"t-{name}", tunnel, listener_filters=[RESTORES])]
            clusters.append(internal_cluster(name, f"t-{name}", *sources, endpoint_id="id:80" if name == "plain" else None,
                                             host_metadata=metadata, **OF_CLUSTER))
        listeners += [outer("http", "http", http), internal_listener("i-http", http("up", stat_prefix="i", **inner_log("http"))),
                      outer("raw", "raw"), internal_listener("i-raw", tcp_proxy("up", stat_prefix="i-raw", **inner_log("raw"))),
                      outer("missing", "missing", max_connect_attempts=2), outer("missing-http", "missing", http)]
        clusters += [internal_cluster("http", "i-http", endpoint_id="1.2.3.4:5"), cluster("raw", internal_endpoint("i-raw", "x")),
                     cluster("missing", internal_endpoint("nobody", "x"))]
        for name, values in states(upstream.port).items():
            writer = typed("envoy.filters.network.set_filter_state", "envoy.extensions.filters.network.set_filter_state.v3.Config",
                           on_new_connection=values)
            first, second = ([file_log(logs / f"{place}-state-{name}", STATE)] for place in ("inner", "last"))
            listeners += [listener(writer, tcp_proxy(f"s-{name}"), name=f"s-{name}"),
                          internal_listener(f"i-{name}", tcp_proxy(f"l-{name}", access_log=first), listener_filters=[RESTORES]),
                          internal_listener(f"j-{name}", tcp_proxy("by-state", access_log=second), listener_filters=[RESTORES])]
            # all but one end behind the first internal listener
            last = internal_cluster(f"l-{name}", f"j-{name}") if name == "shared" else {**original_dst_cluster("by-state"), "name": f"l-{name}"}
            clusters += [internal_cluster(f"s-{name}", f"i-{name}"), last]
        clusters.append(original_dst_cluster("by-state"))
        writer = typed("envoy.filters.http.set_filter_state", "envoy.extensions.filters.http.set_filter_state.v3.Config",
                       on_request_headers=[put("once", "%REQ(x-state)%")])
        inner = hcm([route(cluster="up")], stat_prefix="i-s", access_log=[file_log(logs / "inner-state-http", STATE)])
        listeners += [listener(hcm([route(cluster="state-http")], filters=[writer]), name="state-http"), internal_listener("i-state", inner)]
        clusters.append(internal_cluster("state-http", "i-state"))
        return kind(bootstrap(listeners, clusters, bootstrap_extensions=[EXTENSION]), concurrency=1), logs
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


def line_of(side, name):
    proxy, logs = side
    return proxy.log_lines(logs / name, 1)[-1]


@pytest.mark.parametrize("name", tunnels(0))
def test_tunnels(sides, servers, name):
    def outcome(side):
        proxy, _ = side
        del servers[0].received[:]
        with Client(proxy.port(name)) as client, contextlib.suppress(EOFError):
            got = client.send(b"hello").exactly(5)
            got += client.send(b"?").half_close().until_close()
        return got, servers[0].received[:], line_of(side, name), line_of(side, f"inner-{name}")

    envoy, sluice = (outcome(side) for side in sides)
    assert envoy[0] == b"HELLO?BYE"
    assert sluice == envoy


@pytest.mark.parametrize("name", ["http", "raw", "missing-http"])
def test_requests(sides, name):
    def outcome(side):
        answer = fetch(side[0].port(name))
        logs = [name] + ([f"inner-{name}"] if name == "http" else [])
        return answer.status, answer.body, [line_of(side, log) for log in logs]

    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy


@pytest.mark.parametrize("name", states(0))
def test_filter_state_goes_along(sides, name):
    def outcome(side):
        places = ["inner", "last"] if name == "shared" else ["inner"]
        answer = fetch(side[0].port(f"s-{name}"))
        return answer.status, [line_of(side, f"{place}-state-{name}") for place in places]

    envoy, sluice = (outcome(side) for side in sides)
    assert envoy[0] == 200
    assert sluice == envoy


def test_filter_state_of_requests(sides):
    """A pooled connection has that of the request it was made for."""
    def outcome(side):
        return [(fetch(side[0].port("state-http"), headers=[("x-state", value)]).body, line_of(side, "inner-state-http")) for value in "ab"]

    envoy, sluice = (outcome(side) for side in sides)
    assert " a " in envoy[0][1]
    assert sluice == envoy


def test_no_such_listener(sides):
    def outcome(side):
        with Client(side[0].port("missing")) as client:
            got = client.until_close()
        return got, line_of(side, "missing")

    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy


COUNTED = re.compile(r"(cluster\.(plain|both|v6|bad-waypoint|odst|http|raw|missing)|listener\.envoy_internal.*|tcp\.plain)\."
                     r"(.*cx.*|no_.*|.*no_metadata|original_dst.*|upstream_rq_(total|pending.*))$")
# of HTTP/2's own frames, and of the moment
OTHERWISE = re.compile(r"cluster\.odst\..*_bytes_|_buffered$")


def told(proxy, before):
    """What counted, of internal listeners and what leads to them."""
    changed = {name: value - before.get(name, 0) for name, value in proxy.stats().items() if value != before.get(name, 0)}
    return {name: value for name, value in changed.items() if COUNTED.match(name) and not OTHERWISE.search(name)}


def test_stats(sides, servers):
    found = []
    for side in sides:
        before = side[0].stats()
        for name in ("plain", "v6", "bad-waypoint", "both"):
            with Client(side[0].port(name)) as client:
                assert client.send(b"x?").half_close().until_close() == b"X?BYE"
        for name in ("missing", "raw"):
            with Client(side[0].port(name)) as client:
                client.half_close().until_close()
        side[0].wait_stat("listener.envoy_internal_i-raw.downstream_cx_active", 0)
        found.append(told(side[0], before))
    envoy, sluice = found
    assert envoy and sluice == envoy


def test_admin(sides):
    def rows(proxy):
        return sorted(line for line in proxy.admin("/clusters").text.splitlines() if "envoy://" in line and not line.startswith("http"))

    def told_hosts(proxy):
        return {c["name"]: [h["address"] for h in c.get("host_statuses", [])] for c in proxy.admin("/clusters?format=json").json["cluster_statuses"]}

    def listeners(proxy):
        return sorted(line for line in proxy.admin("/listeners").text.splitlines() if "envoy://" in line)

    def addresses(proxy):
        return {s["name"]: s["local_address"] for s in proxy.admin("/listeners?format=json").json["listener_statuses"] if "i-" in s["name"]}
    envoy, sluice = ([rows(p), told_hosts(p)["plain"], told_hosts(p)["missing"], listeners(p), addresses(p)] for p, _ in sides)
    assert len(envoy[0]) > 20 and sluice == envoy
