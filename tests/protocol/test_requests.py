"""What is asked for, when, and with which version and nonce. (Envoy's ACK of CDS waits until new clusters are warm: cases
that add EDS clusters look at the EDS request first.)"""
from support.conversation import *  # noqa: F403


# ---- the first request ----

def test_first_is_a_wildcard_without_names(talk):
    talk.start()
    request = talk.next(CLUSTER)
    assert request.names == [] and request.response_nonce == "" and not request.is_nack
    if talk.is_delta:
        assert not request.resource_names_unsubscribe and not request.initial_resource_versions
    else:
        assert request.version_info == ""


def test_cds_is_asked_for_before_lds(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    request = talk.next(LISTENER)
    assert request.names == [] and request.response_nonce == ""
    assert sorted(r.type_url for r in talk.ads.requests[:3]) == [CLUSTER, CLUSTER, LISTENER]


def test_lds_waits_for_cds(talk):
    """Listeners refer to clusters: they are asked for once CDS was answered, be it with a bad cluster."""
    talk.start(lds=talk.ads_source(initial_fetch_timeout="0s"), cds=talk.ads_source(initial_fetch_timeout="0s"))
    talk.next(CLUSTER)
    assert not talk.ads.of(LISTENER)
    nonce = talk.push(CLUSTER, "1", [bad_cluster("a")])
    talk.next(LISTENER)
    talk.nack(CLUSTER, nonce)


def test_lds_does_not_wait_for_ever(talk):
    """cds_config.initial_fetch_timeout."""
    talk.start(cds=talk.ads_source(initial_fetch_timeout="0.2s"))
    talk.next(CLUSTER)
    talk.next(LISTENER)
    assert talk.stat("cluster_manager.cds.init_fetch_timeout") == 1


def test_zero_initial_fetch_timeout_waits(talk):
    talk.start(cds=talk.ads_source(initial_fetch_timeout="0s"), lds=talk.ads_source(initial_fetch_timeout="0.1s"))
    talk.accept(CLUSTER, "1")
    talk.next(LISTENER)
    talk.wait_stat("listener_manager.lds.init_fetch_timeout", 1)
    talk.wait_stat("listener_manager.workers_started", 1)
    assert talk.stat("cluster_manager.cds.init_fetch_timeout") == 0


def test_one_stream_for_all_types(talk):
    talk.start_with([static_cluster("a")], [rds_listener()])
    talk.next(ROUTE)
    assert len(talk.ads.streams) == 1
    assert talk.ads.streams[0].method == ("Delta" if talk.is_delta else "Stream") + "AggregatedResources"


def test_node_identity(talk):
    talk.start()
    node = talk.next(CLUSTER).node
    assert (node.id, node.cluster) == ("test-node", "test-cluster")
    assert node.user_agent_name == ("envoy" if talk.is_envoy else "sluice")
    assert node.user_agent_build_version.HasField("version")
    names = {e.name for e in node.extensions}
    assert {"envoy.filters.http.router", "envoy.filters.network.tcp_proxy"} <= names


def test_node_is_in_every_request(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.accept(LISTENER, "1")
    assert all(r.message.HasField("node") for r in talk.ads.requests)


def test_node_on_first_message_only(talk):
    talk.start(api=talk.api(set_node_on_first_message_only=True))
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.accept(LISTENER, "1")
    assert [r.message.HasField("node") for r in talk.ads.requests] == [True] + [False] * (len(talk.ads.requests) - 1)


def test_metadata_and_authority(talk):
    talk.start(api=talk.api(service={"initial_metadata": [{"key": "x-a", "value": "1"}, {"key": "x-b", "value": "2"}]}))
    talk.next(CLUSTER)
    metadata = talk.ads.streams[0].metadata
    assert (metadata["x-a"], metadata["x-b"]) == ("1", "2")


# ---- ACK ----

def test_ack_carries_nonce_and_version(talk):
    talk.start()
    talk.next(CLUSTER)
    nonce = talk.push(CLUSTER, "7", [static_cluster("a")])
    request = talk.ack(CLUSTER, nonce, "7")
    assert request.names == []


def test_every_response_is_acked(talk):
    talk.start()
    for n in range(1, 6):
        talk.accept(CLUSTER, str(n), [static_cluster(f"c{n}")])
    talk.wait_clusters(*(f"c{n}" for n in range(1, 6)))


def test_responses_in_a_row(talk):
    """Not waiting for the ACK between them."""
    talk.start()
    talk.next(CLUSTER)
    nonces = [talk.push(CLUSTER, str(n), [static_cluster(f"c{n}")]) for n in range(1, 6)]
    last = None
    while last != nonces[-1]:
        request = talk.next(CLUSTER)
        assert not request.is_nack and request.response_nonce in nonces
        last = request.response_nonce
    talk.wait_clusters(*(f"c{n}" for n in range(1, 6)))
    talk.wait_stat("cluster_manager.cds.update_success", 5)


def test_same_version_again_is_acked(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.wait_stat("cluster_manager.cds.update_success", 2)
    assert talk.stat("cluster_manager.cluster_modified") == 0


def test_same_bytes_under_a_new_version(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.accept(CLUSTER, "2", [static_cluster("a")])
    assert talk.stat("cluster_manager.cluster_modified") == 0
    assert talk.stat("cluster_manager.cluster_added") == 2  # with the bootstrap's


def test_empty_response(talk):
    talk.start()
    talk.accept(CLUSTER, "1")
    talk.accept(LISTENER, "1")
    talk.wait_stat("listener_manager.workers_started", 1)
    assert talk.clusters() == set()


def test_empty_nonce(talk):
    talk.start()
    talk.next(CLUSTER)
    talk.push(CLUSTER, "1", [static_cluster("a")], nonce="")
    talk.ack(CLUSTER, "", "1")


def test_empty_version(sotw):
    sotw.start()
    sotw.next(CLUSTER)
    nonce = sotw.push(CLUSTER, "", [static_cluster("a")])
    request = sotw.ack(CLUSTER, nonce)
    assert request.version_info == ""
    sotw.wait_clusters("a")


def test_long_version_and_nonce(talk):
    talk.start()
    talk.next(CLUSTER)
    nonce = talk.push(CLUSTER, "v" * 2000, [static_cluster("a")], nonce="n" * 2000)
    talk.ack(CLUSTER, nonce, "v" * 2000)


def test_types_have_versions_of_their_own(talk):
    talk.start_with([static_cluster("a")], [rds_listener()])
    talk.accept(ROUTE, "r9", [direct_routes()])
    talk.accept(CLUSTER, "c2", [static_cluster("b")])
    talk.accept(LISTENER, "l2", [rds_listener()])
    assert talk.text("cluster_manager.cds.version_text") == "c2"
    assert talk.text("listener_manager.lds.version_text") == "l2"


# ---- names ----

def test_endpoints_by_cluster_name(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    request = talk.next(ENDPOINTS)
    assert request.names == ["a"] and request.response_nonce == ""


def test_endpoints_by_service_name(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a", eds={"service_name": "svc/a"})])
    assert talk.next(ENDPOINTS).names == ["svc/a"]


def test_clusters_of_one_service_ask_once(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a", eds={"service_name": "svc"}), eds_cluster("b", eds={"service_name": "svc"})])
    assert talk.next(ENDPOINTS).names == ["svc"]
    talk.push(ENDPOINTS, "1", [assignment("svc", 1234)])
    talk.wait_stat("cluster.a.membership_total", 1)
    talk.wait_stat("cluster.b.membership_total", 1)


def test_names_of_one_response_are_asked_for_together(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster(n) for n in "abc"])
    assert sorted(talk.next(ENDPOINTS).names) == ["a", "b", "c"]


def test_a_name_more(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    nonce = None
    talk.accept(ENDPOINTS, "1", [assignment("a", 1234)])
    nonce = talk.ads.of(ENDPOINTS)[-1].response_nonce
    talk.accept(LISTENER, "1")
    talk.push(CLUSTER, "2", [eds_cluster("b")])
    request = talk.next(ENDPOINTS)
    if talk.is_delta:
        assert request.names == ["b"] and request.response_nonce == ""
    else:
        assert sorted(request.names) == ["a", "b"] and request.response_nonce == nonce and request.version_info == "1"


def test_a_name_less(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a"), eds_cluster("b")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1), assignment("b", 2)])
    talk.accept(LISTENER, "1")
    talk.accept(CLUSTER, "2", removed=["b"])
    request = talk.next(ENDPOINTS)
    if talk.is_delta:
        assert list(request.resource_names_unsubscribe) == ["b"] and request.names == []
    else:
        assert request.names == ["a"]


def test_the_last_name_goes(talk):
    """A named subscription that becomes empty must not turn into a wildcard."""
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.accept(LISTENER, "1")
    talk.accept(CLUSTER, "2", removed=["a"])
    request = talk.next(ENDPOINTS)
    assert request.names == []
    if talk.is_delta:
        assert list(request.resource_names_unsubscribe) == ["a"]


def test_the_last_name_comes_back(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.accept(LISTENER, "1")
    talk.accept(CLUSTER, "2", removed=["a"])
    talk.next(ENDPOINTS)
    talk.push(CLUSTER, "3", [eds_cluster("a")])
    assert talk.next(ENDPOINTS).names == ["a"]
    nonce = talk.push(ENDPOINTS, "2", [assignment("a", 1, 2)])
    talk.ack(ENDPOINTS, nonce, "2")
    talk.wait_stat("cluster.a.membership_total", 2)


def test_a_name_is_swapped(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.accept(LISTENER, "1")
    talk.push(CLUSTER, "2", [eds_cluster("b")], removed=["a"])
    while True:
        request = talk.next(ENDPOINTS)
        if "b" in request.names and (talk.is_delta or "a" not in request.names):
            break
    nonce = talk.push(ENDPOINTS, "2", [assignment("b", 1, 2)])
    talk.ack(ENDPOINTS, nonce, "2")
    talk.wait_stat("cluster.b.membership_total", 2)


def test_same_cluster_again_asks_nothing(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.accept(LISTENER, "1")
    talk.accept(CLUSTER, "2", [eds_cluster("a")])
    talk.nothing(ENDPOINTS)


def test_route_name_of_a_listener(talk):
    talk.start_with([], [rds_listener(route="http.80")])
    assert talk.next(ROUTE).names == ["http.80"]


def test_route_is_asked_for_once(talk):
    talk.start_with([], [rds_listener("one"), rds_listener("two")])
    assert talk.next(ROUTE).names == ["r"]
    talk.push(ROUTE, "1", [direct_routes()])
    talk.wait_listeners("one", "two")


def test_route_goes_with_its_listener(talk):
    """Once the listener is drained."""
    talk.start_with([], [rds_listener()], args=["--drain-time-s", "1"])
    talk.accept(ROUTE, "1", [direct_routes()])
    talk.wait_listeners("main")
    talk.accept(LISTENER, "2", removed=["main"])
    request = talk.next(ROUTE)
    assert request.names == [] and (not talk.is_delta or list(request.resource_names_unsubscribe) == ["r"])


def test_secret_names(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [secret_cluster("a", "ca-one"), secret_cluster("b", "ca-two")])
    names = set()
    while len(names) < 2:
        names |= set(talk.next(SECRET).names)
    assert names == {"ca-one", "ca-two"}


def test_wildcard_stays_one(talk):
    """No request of CDS ever names anything."""
    talk.start()
    for n in range(3):
        talk.accept(CLUSTER, str(n), [static_cluster(f"c{n}")])
    talk.accept(CLUSTER, "9", removed=["c0", "c1", "c2"])
    assert all(r.names == [] for r in talk.ads.of(CLUSTER))


# ---- order of responses ----

def test_endpoints_are_asked_for_behind_the_ack_or_before_but_once(talk):
    talk.start()
    talk.next(CLUSTER)
    nonce = talk.push(CLUSTER, "1", [eds_cluster("a")])
    talk.ack(CLUSTER, nonce, "1")
    talk.next(ENDPOINTS)
    talk.push(ENDPOINTS, "1", [assignment("a", 1)])
    talk.next(ENDPOINTS)
    talk.nothing(ENDPOINTS)


def test_endpoints_changed_while_unwatched_come_anew(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [assignment("a", 1)])
    talk.wait_stat("cluster.a.membership_total", 1)
    talk.accept(LISTENER, "1")
    talk.accept(CLUSTER, "2", removed=["a"])
    assert talk.next(ENDPOINTS).names == []
    talk.push(CLUSTER, "3", [eds_cluster("a")])
    request = talk.next(ENDPOINTS)
    assert request.names == ["a"]
    assert not talk.is_delta or not request.initial_resource_versions
    nonce = talk.push(ENDPOINTS, "2", [assignment("a", 1, 2)])
    talk.ack(ENDPOINTS, nonce, "2")
    talk.wait_stat("cluster.a.membership_total", 2)
