"""HTTP/2 both ways: curl, h2load, nghttpd, many streams, limits, resets, draining."""

import re
import shutil
import subprocess
import threading

import pytest

from support.config import bootstrap, cluster, direct, hcm, http2, listener, route
from support.h2client import H2Client
from support.process import wait_until
from support.rawhttp import fetch
from support.upstream import Reply

HEAD = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/")]


@pytest.fixture(scope="module")
def proxy(shared_sluice, shared_upstream):
    options = {"max_concurrent_streams": 50}
    return shared_sluice(bootstrap([listener(hcm([direct("/direct", 200, "hello\n"), route("/")],
                                                 http2_protocol_options=options))],
                                   [cluster("up", shared_upstream.port)]))


@pytest.fixture
def up(shared_upstream):
    return shared_upstream.script()


@pytest.mark.smoke
def test_curl(proxy, up):
    up.script(Reply(body=b"from upstream"))
    done = subprocess.run(["curl", "-s", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", "-d", "abc",
                           f"http://127.0.0.1:{proxy.port()}/x"], capture_output=True, timeout=20, check=True)
    assert done.stdout == b"from upstream2 200" and up.wait_requests(1)[0].body == b"abc"


@pytest.mark.smoke
def test_h2load(proxy):
    done = subprocess.run([shutil.which("h2load"), "-n", "2000", "-c", "4", "-m", "20",
                           f"http://127.0.0.1:{proxy.port()}/direct"], capture_output=True, text=True, timeout=60, check=True)
    assert re.search(r"2000 succeeded, 0 failed, 0 errored, 0 timeout", done.stdout)


@pytest.mark.smoke
def test_streams_of_one_connection(proxy, up):
    gate = threading.Event()
    up.script(lambda request: Reply(body=request.target.encode(), gate=gate))
    with H2Client(proxy.port()) as client:
        streams = {client.open([*HEAD[:3], (":path", f"/{i}")]): f"/{i}" for i in range(20)}
        up.wait_requests(20)
        gate.set()
        for stream, path in streams.items():
            assert client.wait(stream).body == path.encode()
    assert {r.target for r in up.requests} == set(streams.values())


def test_streams_above_the_limit_are_refused(proxy, up):
    gate = threading.Event()
    up.script(Reply(gate=gate))
    with H2Client(proxy.port()) as client:
        client.get("/direct")
        assert client.connection.remote_settings.max_concurrent_streams == 50
        client.connection.remote_settings.update({3: 1000})
        client.connection.remote_settings.acknowledge()
        streams = [client.open(HEAD) for _ in range(60)]
        assert all(client.wait(s).status is None for s in streams[50:])
        assert client.is_closed or all(client.answers[s].reset == 7 for s in streams[50:])
    assert len(up.requests) <= 50
    gate.set()


def test_large_bodies_with_flow_control(proxy, up):
    body = bytes(range(256)) * 8192
    up.script(Reply(body=body))
    with H2Client(proxy.port()) as client:
        assert client.get("/", "POST", body=body).body == body
    posts = [r for r in up.requests if r.method == "POST"]  # the upstream may read requests of the test before as late as now
    assert [r.body for r in posts] == [body]


def test_reset_by_the_client_reaches_the_upstream(proxy, up):
    up.script(Reply(silent=True))
    with H2Client(proxy.port()) as client:
        stream = client.open(HEAD)
        up.wait_requests(1)
        before = proxy.stat("cluster.up.upstream_cx_destroy_local")
        client.connection.reset_stream(stream, 8)
        client.flush()
        proxy.wait_stat("cluster.up.upstream_cx_destroy_local", before + 1)
    proxy.wait_stat("http.ingress.downstream_rq_rx_reset", lambda n: n >= 1)


def test_rapid_reset_is_cut_off(sluice, upstream):
    upstream.script(Reply(silent=True))
    proxy = sluice(bootstrap([listener(hcm(http2_protocol_options={"max_concurrent_streams": 1000}))],
                             [cluster("up", upstream.port)]))
    with H2Client(proxy.port()) as client:
        client.connection.remote_settings.update({3: 100000})
        client.connection.remote_settings.acknowledge()
        for _ in range(1500):
            stream = client.connection.get_next_available_stream_id()
            client.connection.send_headers(stream, HEAD, end_stream=True)
            client.connection.reset_stream(stream, 8)
            client.flush()
            if client.is_closed:
                break
        while client.pump():
            pass
    assert proxy.stat("http.ingress.downstream_rq_too_many_premature_resets") == 1


@pytest.mark.parametrize("frame", [
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x63",                          # DATA on an idle stream
    b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",          # WINDOW_UPDATE of 0
    b"\x00\x00\x08\x06\x00\x00\x00\x00\x01" + b"x" * 8,               # PING on a stream
    b"\x00\x00\x05\x04\x00\x00\x00\x00\x00" + b"x" * 5,               # SETTINGS of a bad size
    b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",                          # frame beyond the limit
    b"\x00\x00\x01\x09\x00\x00\x00\x00\x01x",                         # CONTINUATION without HEADERS
    b"\x00\x00\x04\x01\x05\x00\x00\x00\x02\x82\x86\x84\x41",          # even stream id
])
def test_protocol_errors_close_the_connection(proxy, frame):
    with H2Client(proxy.port()) as client:
        assert client.get("/direct").status == 200
        client.socket.sendall(frame)
        while client.pump():
            pass
        assert client.is_closed
    assert fetch(proxy.port(), "/direct").status == 200


def test_ping_flood_is_bounded(proxy):
    with H2Client(proxy.port()) as client:
        assert client.get("/direct").status == 200
        try:
            for _ in range(200):
                client.socket.sendall(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678" * 100)
        except OSError:
            pass
    assert fetch(proxy.port(), "/direct").status == 200


def test_header_bomb_is_refused(proxy):
    with H2Client(proxy.port()) as client:
        answer = client.request([*HEAD, *[(f"x-{i}", "y" * 100) for i in range(200)]])
        assert answer.status == 431 or answer.reset is not None or client.is_closed
    assert fetch(proxy.port(), "/direct").status == 200


# ---- towards upstreams ----

@pytest.mark.smoke
def test_h2_upstream(sluice, h2_upstream):
    server = h2_upstream({"/file": b"content", "/big": b"z" * 3000000})
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, typed_extension_protocol_options=http2())]))
    assert fetch(proxy.port(), "/file").body == b"content"
    assert fetch(proxy.port(), "/big").body == b"z" * 3000000
    assert fetch(proxy.port(), "/missing").status == 404
    assert fetch(proxy.port(), "/file", "HEAD").status == 200
    assert proxy.stat("cluster.up.upstream_cx_http2_total") == 1


def test_h2_both_ways(sluice, h2_upstream):
    server = h2_upstream({"/file": b"content"})
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, typed_extension_protocol_options=http2())]))
    done = subprocess.run([shutil.which("h2load"), "-n", "1000", "-c", "2", "-m", "30",
                           f"http://127.0.0.1:{proxy.port()}/file"], capture_output=True, text=True, timeout=60, check=True)
    assert "1000 succeeded" in done.stdout
    assert proxy.stat("cluster.up.upstream_cx_total") == 1


def moderated(sluice, limit_us):
    """A proxy in front of one that answers at once, so that many requests are under way in it between two events."""
    server = sluice(bootstrap([listener(hcm([direct("/", 200, "hello\n")]))]))
    runtime = {"layers": [{"name": "static", "static_layer": {"sluice.wake_moderation_us": limit_us}}]}
    return sluice(bootstrap([listener(hcm())], [cluster("up", server.port(), typed_extension_protocol_options=http2())],
                            layered_runtime=runtime, stats_flush_interval="0.05s"))


def load_many(proxy):
    done = subprocess.run([shutil.which("h2load"), "-n", "5000", "-c", "4", "-m", "32", f"http://127.0.0.1:{proxy.port()}/"],
                          capture_output=True, text=True, timeout=60, check=True)
    assert "5000 succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout
    proxy.wait_stat("server.total_connections", 0)  # counted after the load
    return proxy.stat("server.wake_pauses")


def test_wake_moderation(sluice):
    proxy = moderated(sluice, 100)
    for _ in range(20):
        assert fetch(proxy.port()).status == 200
    proxy.wait_stat("server.total_connections", 0)
    assert proxy.stat("server.wake_pauses") == 0  # one request at a time is never held up
    wait_until(lambda: load_many(proxy), "a pause with many requests in flight", 30)


def test_wake_moderation_turned_off(sluice):
    assert load_many(moderated(sluice, 0)) == 0


def test_h2_upstream_that_is_not_h2(sluice, upstream):
    upstream.script(Reply(raw=b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", close=True))
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", upstream.port, typed_extension_protocol_options=http2())]))
    assert fetch(proxy.port(), timeout=20).status in (502, 503)


def test_h2_upstream_goes_away(sluice, h2_upstream):
    server = h2_upstream({"/file": b"content"})
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, typed_extension_protocol_options=http2())]))
    assert fetch(proxy.port(), "/file").status == 200
    server.stop()
    assert fetch(proxy.port(), "/file").status == 503
    proxy.wait_stat("cluster.up.upstream_cx_active", 0)


def test_h2_upstream_refuses_streams(sluice, h2_upstream):
    server = h2_upstream({"/file": b"content"}, refuse=1)
    routes = [route("/", retry_policy={"retry_on": "refused-stream", "retry_back_off": {"base_interval": "0.001s"}})]
    proxy = sluice(bootstrap([listener(hcm(routes))], [cluster("up", server.port, typed_extension_protocol_options=http2())]))
    assert fetch(proxy.port(), "/file").body == b"content"
    assert proxy.stat("cluster.up.upstream_rq_retry_success") == 1


def test_h2_upstream_goaway_drains(sluice, h2_upstream):
    server = h2_upstream({"/file": b"content"}, goaway_after=2)
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, typed_extension_protocol_options=http2())]))
    assert all(fetch(proxy.port(), "/file").status == 200 for _ in range(6))
    assert proxy.stat("cluster.up.upstream_cx_total") == 3


def test_h2_trailers_both_ways(sluice, h2_upstream):
    server = h2_upstream({"/file": b"content"}, trailers=[("grpc-status", "0")])
    proxy = sluice(bootstrap([listener(hcm())], [cluster("up", server.port, typed_extension_protocol_options=http2())]))
    with H2Client(proxy.port()) as client:
        answer = client.get("/file", "POST", body=b"abc", trailers=[("x-sum", "1")])
    assert answer.trailers == [("grpc-status", "0")]
    assert server.requests[0].trailers == [("x-sum", "1")] and server.requests[0].body == b"abc"


@pytest.mark.parametrize("path", ["/healthcheck/fail"])
def test_draining_sends_goaway(sluice, path):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)], drain_timeout="0.1s"))]))
    with H2Client(proxy.port()) as client:
        assert client.get().status == 200
        proxy.post(path)
        assert client.get().status == 200
        while client.pump():
            pass
        assert client.goaway == 0


def test_max_requests_per_connection(sluice):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)], drain_timeout="0.1s",
                                           common_http_protocol_options={"max_requests_per_connection": 2}))]))
    with H2Client(proxy.port()) as client:
        assert client.get().status == 200 and client.get().status == 200
        while client.pump():
            pass
        assert client.goaway == 0
    assert proxy.stat("http.ingress.downstream_cx_max_requests_reached") == 1
