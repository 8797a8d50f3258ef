"""What is refused, in which words, and what stays in use meanwhile."""
import grpc
import pytest

from google.protobuf import any_pb2
from support.ads_server import PREFIX, message_of
from support.conversation import *  # noqa: F403
from support.process import wait_until
from support.rawhttp import fetch


def fetch_status(talk, listener=None):
    return fetch(talk.proxy.port(listener), "/").status


# ---- one bad resource ----

def test_bad_cluster(talk):
    talk.start_with([static_cluster("a")])
    nonce = talk.push(CLUSTER, "c2", [bad_cluster("bad")])
    request = talk.nack(CLUSTER, nonce, "bad", version="c1")
    assert request.error_detail.code == grpc.StatusCode.INTERNAL.value[0]
    assert request.names == []
    assert talk.stat("cluster_manager.cds.update_rejected") == 1
    assert talk.text("cluster_manager.cds.version_text") == "c1"
    assert talk.clusters() == {"a"}


def test_good_siblings_are_taken(talk):
    talk.start_with([static_cluster("a")])
    nonce = talk.push(CLUSTER, "c2", [static_cluster("b"), bad_cluster("bad"), static_cluster("d")])
    talk.nack(CLUSTER, nonce, "bad", version="c1")
    talk.wait_clusters("a", "b", "d")


def test_every_bad_resource_is_told(talk):
    talk.start_with()
    nonce = talk.push(CLUSTER, "c2", [bad_cluster("bad1"), static_cluster("a"), bad_cluster("bad2")])
    talk.nack(CLUSTER, nonce, "bad1", "bad2", version="c1")


def test_field_is_told(talk):
    talk.start_with()
    nonce = talk.push(CLUSTER, "c2", [static_cluster("bad", load_assignment={
        "cluster_name": "bad", "endpoints": [{"load_balancing_weight": 0}]})])
    request = talk.nack(CLUSTER, nonce, "bad", version="c1")
    text = request.error_detail.message.replace("_", "").lower()
    assert "loadbalancingweight" in text, text


def test_last_good_version_stays(talk):
    talk.start_with([static_cluster("a", connect_timeout="3s")])
    nonce = talk.push(CLUSTER, "c2", [bad_cluster("a")])
    talk.nack(CLUSTER, nonce, "a", version="c1")
    row = next(r for r in talk.dump()["ClustersConfigDump"]["dynamic_active_clusters"] if r["cluster"]["name"] == "a")
    assert row["cluster"]["connect_timeout"] == "3s"


def test_recovery(talk):
    talk.start_with([static_cluster("a")])
    nonce = talk.push(CLUSTER, "c2", [bad_cluster("b")])
    talk.nack(CLUSTER, nonce, "b", version="c1")
    talk.accept(CLUSTER, "c3", [static_cluster("b")])
    talk.wait_clusters("a", "b")
    assert talk.text("cluster_manager.cds.version_text") == "c3"


def test_first_response_is_bad(talk):
    talk.start()
    talk.next(CLUSTER)
    nonce = talk.push(CLUSTER, "c1", [bad_cluster("bad")])
    request = talk.nack(CLUSTER, nonce, "bad")
    assert talk.is_delta or request.version_info == ""
    talk.next(LISTENER)  # start-up goes on
    talk.push(LISTENER, "l1")
    talk.wait_stat("listener_manager.workers_started", 1)


def test_bad_listener(talk):
    talk.start_with([], [direct_listener("good")])
    nonce = talk.push(LISTENER, "l2", [bad_listener("bad")])
    talk.nack(LISTENER, nonce, "Error adding/updating listener(s) bad: ", version="l1")
    talk.wait_listeners("good")
    assert talk.stat("listener_manager.lds.update_rejected") == 1


def test_bad_listener_shows_in_the_dump(talk):
    talk.start_with([], [direct_listener("good")])
    nonce = talk.push(LISTENER, "l2", [bad_listener("good")])
    talk.nack(LISTENER, nonce, "good", version="l1")
    row = talk.dump()["ListenersConfigDump"]["dynamic_listeners"][0]
    assert row["name"] == "good" and row["error_state"]["details"]
    assert row["active_state"]["version_info"] == "l1"


def test_bad_routes(talk):
    talk.start_with([], [rds_listener()])
    talk.accept(ROUTE, "r1", [direct_routes(status=201)])
    talk.wait_listeners("main")
    nonce = talk.push(ROUTE, "r2", [bad_routes()])
    request = talk.nack(ROUTE, nonce, "domain", version="r1")
    assert talk.is_delta or request.names == ["r"]
    wait_until(lambda: fetch_status(talk) == 201, "the last good routes")
    talk.accept(ROUTE, "r3", [direct_routes(status=202)])
    wait_until(lambda: fetch_status(talk) == 202, "the repaired routes")


def test_bad_endpoints(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1)])
    nonce = talk.push(ENDPOINTS, "e2", [assignment("a", endpoints=[{"lb_endpoints": [{"endpoint": {}}], "priority": 200}])])
    talk.nack(ENDPOINTS, nonce, "riority", version="e1")
    assert talk.stat("cluster.a.membership_total") == 1


def test_nack_and_a_name_more(talk):
    """The NACK of EDS does not lose the name that CDS adds next."""
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1)])
    talk.accept(LISTENER, "l1")
    nonce = talk.push(ENDPOINTS, "e2", [assignment("a", endpoints=[{"lb_endpoints": [{"endpoint": {}}], "priority": 200}])])
    talk.nack(ENDPOINTS, nonce, version="e1")
    talk.push(CLUSTER, "c2", [eds_cluster("b")])
    request = talk.next(ENDPOINTS)
    assert "b" in request.names and not request.is_nack
    if not talk.is_delta:
        assert sorted(request.names) == ["a", "b"] and request.version_info == "e1" and request.response_nonce == nonce


def test_nacks_do_not_end_the_stream(talk):
    talk.start_with()
    for n in range(5):
        nonce = talk.push(CLUSTER, f"x{n}", [bad_cluster(f"bad{n}")])
        talk.nack(CLUSTER, nonce, f"bad{n}", version="c1")
    assert len(talk.ads.streams) == 1 and talk.stat("cluster_manager.cds.update_rejected") == 5


# ---- names ----

@pytest.mark.parametrize("type_url, make", [(CLUSTER, static_cluster), (LISTENER, direct_listener)],
                         ids=["clusters", "listeners"])
def test_duplicates(talk, type_url, make):
    talk.start_with()
    talk.skip(CLUSTER, LISTENER)
    twice = [message_of(type_url, make("twice")), message_of(type_url, make("twice", metadata={
        "filter_metadata": {"x": {"y": 1}}}))]
    talk.send(talk.raw(type_url, "2", "dup", [message_of(type_url, make("a")), *twice]))
    talk.nack(type_url, "dup", "duplicate", "twice", version="c1" if type_url == CLUSTER else "l1")


def test_delta_name_differs_from_the_message(delta):
    """The wrapper's name decides what is removed; the cluster's own is what is used."""
    delta.start_with()
    response = delta.raw(CLUSTER, "2", "odd", [message_of(CLUSTER, static_cluster("inner"))])
    response.resources[0].name = "outer"
    delta.send(response)
    request = delta.next(CLUSTER)
    assert request.response_nonce == "odd"
    assert request.is_nack or delta.clusters() == {"inner"}


def test_unrequested_endpoints(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1), assignment("stranger", 2)])
    assert talk.stat("cluster.a.membership_total") == 1
    assert talk.stat("cluster.stranger.membership_total") is None


def test_unrequested_routes_only(talk):
    talk.start_with([], [rds_listener()])
    talk.accept(ROUTE, "r1", [direct_routes("stranger")])
    assert talk.listeners() == set()
    talk.accept(ROUTE, "r2", [direct_routes("r")])
    talk.wait_listeners("main")


def test_unsubscribed_name_in_a_late_response(talk):
    talk.start_with([eds_cluster("a"), eds_cluster("b")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1), assignment("b", 1)])
    talk.accept(LISTENER, "l1")
    talk.accept(CLUSTER, "c2", removed=["b"])
    talk.next(ENDPOINTS)
    talk.accept(ENDPOINTS, "e2", [assignment("a", 1, 2), assignment("b", 1, 2)])
    talk.wait_stat("cluster.a.membership_total", 2)


def test_missing_name(talk):
    talk.start_with()
    response = talk.raw(CLUSTER, "2", "odd", [message_of(CLUSTER, {"type": "STATIC", "connect_timeout": "5s"})])
    talk.send(response)
    talk.nack(CLUSTER, "odd", version="c1")


# ---- types ----

def test_type_of_a_resource_differs(talk):
    talk.start_with([static_cluster("a")])
    talk.send(talk.raw(CLUSTER, "c2", "odd", [message_of(ROUTE, direct_routes())]))
    talk.nack(CLUSTER, "odd", version="c1")
    assert talk.clusters() == {"a"}


def test_type_of_a_wrapped_resource_differs(sotw):
    sotw.start_with([static_cluster("a")])
    sotw.send(sotw.raw(CLUSTER, "c2", "odd", [wrapped(ROUTE, direct_routes())]))
    sotw.nack(CLUSTER, "odd", version="c1")


def test_garbage_in_a_resource(talk):
    talk.start_with([static_cluster("a")])
    response = talk.raw(CLUSTER, "c2", "odd")
    junk = any_pb2.Any(type_url=CLUSTER, value=b"\x0a\xff\xff\xff\xff")
    if talk.is_delta:
        response.resources.add(name="junk").resource.CopyFrom(junk)
    else:
        response.resources.add().CopyFrom(junk)
    talk.send(response)
    talk.nack(CLUSTER, "odd", version="c1")
    assert talk.clusters() == {"a"}


def test_empty_any(talk):
    talk.start_with([static_cluster("a")])
    response = talk.raw(CLUSTER, "c2", "odd")
    if talk.is_delta:
        response.resources.add(name="junk").resource.CopyFrom(any_pb2.Any(type_url=CLUSTER))
    else:
        response.resources.add().CopyFrom(any_pb2.Any(type_url=CLUSTER))
    talk.send(response)
    talk.nack(CLUSTER, "odd", version="c1")


def test_unknown_type_is_no_answer(talk):
    talk.start_with([static_cluster("a")])
    talk.ads.send(talk.raw(PREFIX + "foo.Bar", "1", "odd"), 0)
    talk.fence(CLUSTER)
    assert not [r for r in talk.ads.requests if r.response_nonce == "odd"]
    assert len(talk.ads.streams) == 1


def test_type_nobody_asked_for(talk):
    talk.start_with([static_cluster("a")])
    talk.ads.send(talk.raw(SECRET, "1", "odd", [message_of(SECRET, secret("s"))]), 0)
    talk.fence(CLUSTER)
    assert not [r for r in talk.ads.requests if r.type_url == SECRET and r.names]
    assert len(talk.ads.streams) == 1


def test_error_text_is_bounded(talk):
    """Thousands of bad resources make one NACK of a size that gRPC takes."""
    talk.start_with()
    nonce = talk.push(CLUSTER, "c2", [bad_cluster(f"bad-{n:04}-{'x' * 200}") for n in range(1000)])
    request = talk.nack(CLUSTER, nonce, "bad-0000", version="c1")
    assert len(request.error_detail.message) <= 64 * 1024


def test_same_bad_bytes_again(talk):
    """A server that answers each NACK with the same is not let to spin."""
    talk.start_with()
    for _ in range(5):
        nonce = talk.push(CLUSTER, "c2", [bad_cluster("bad")])
        talk.nack(CLUSTER, nonce, "bad", version="c1")
    nacks = [r for r in talk.ads.of(CLUSTER) if r.is_nack]
    assert nacks[-1].at - nacks[0].at > 0.5
    talk.accept(CLUSTER, "c3", [static_cluster("bad")])


# ---- what waits for a refused resource ----

FOR_EVER = {**ADS, "initial_fetch_timeout": "0s"}


def refuse(talk, type_url, resource):
    talk.next(type_url)
    talk.nack(type_url, talk.push(type_url, "bad", [resource]))


def test_refused_routes_end_the_wait(talk):
    talk.start_with([], [rds_listener(source=FOR_EVER)])
    refuse(talk, ROUTE, bad_routes())
    talk.wait_listeners("main")
    assert fetch_status(talk) == 404
    talk.accept(ROUTE, "r2", [direct_routes()])
    wait_until(lambda: fetch_status(talk) == 200, "the good ones")


def test_refused_endpoints_end_the_wait(talk):
    talk.start_with([eds_cluster("a", FOR_EVER)])
    refuse(talk, ENDPOINTS, assignment("a", 1, policy={"overprovisioning_factor": 0}))
    talk.wait_clusters("a")


def test_refused_secret_ends_the_wait(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [secret_cluster("a", "ca", FOR_EVER)])
    refuse(talk, SECRET, {"name": "ca", "validation_context": {"trusted_ca": {"inline_string": "no certificate"}}})
    talk.wait_clusters("a")


def test_last_good_version_serves_on(talk):
    """While that which is to replace it has no good routes."""
    talk.start_with([], [direct_listener()])
    talk.wait_listeners("main")
    talk.accept(LISTENER, "l2", [rds_listener(source=FOR_EVER)])
    refuse(talk, ROUTE, bad_routes())
    talk.fence(CLUSTER)
    assert fetch_status(talk) == 200
    talk.accept(ROUTE, "r2", [direct_routes(status=201)])
    wait_until(lambda: fetch_status(talk) == 201, "the good ones")
