"""Resource wrappers, times to live, heartbeats; what is removed and comes back."""
import pytest

from support.conversation import *  # noqa: F403
from support.process import wait_until
from support.rawhttp import fetch
from support.upstream import Reply

BRIEF_MS = 300
BEATEN_MS = 1200  # kept alive by heartbeats that come four times as often
LONG_MS = 60000


# ---- wrappers ----

def test_wrapped_resource(sotw):
    sotw.start()
    sotw.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"))])
    sotw.wait_clusters("a")


def test_wrapped_and_bare(sotw):
    sotw.start()
    sotw.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a")), static_cluster("b")])
    sotw.wait_clusters("a", "b")


def test_wrapped_endpoints(sotw):
    sotw.start_with([eds_cluster("a")])
    sotw.accept(ENDPOINTS, "1", [wrapped(ENDPOINTS, assignment("a", 1, 2))])
    sotw.wait_stat("cluster.a.membership_total", 2)


def test_versions_of_their_own(delta):
    """Each resource's version counts on a new stream, not the response's."""
    delta.start()
    delta.accept(CLUSTER, "system", [wrapped(CLUSTER, static_cluster("a"), version="a7"),
                                     wrapped(CLUSTER, static_cluster("b"), version="b9")])
    delta.ads.end_streams()
    request = delta.ads.wait(lambda r: r.stream.number == 1 and r.type_url == CLUSTER)
    assert dict(request.initial_resource_versions) == {"a": "a7", "b": "b9"}
    assert delta.text("cluster_manager.cds.version_text") == "system"


# ---- time to live ----

@pytest.mark.smoke
def test_expiry(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a"), wrapped(CLUSTER, static_cluster("brief"), BRIEF_MS)])
    talk.wait_clusters("a", "brief")
    talk.wait_clusters("a")


def test_expiry_of_a_listener(talk):
    talk.start_with([], [direct_listener("a"), wrapped(LISTENER, direct_listener("brief"), BRIEF_MS)])
    talk.wait_listeners("a", "brief")
    talk.wait_listeners("a")


def test_long_life(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"), LONG_MS), wrapped(CLUSTER, static_cluster("b"), BRIEF_MS)])
    talk.wait_clusters("a")


def heartbeat(talk, type_url, name, ttl_ms):
    """Only that, whatever else there is. It tells the version that is in use."""
    nonce = talk.ads._nonce()
    version = "own" if talk.is_delta else talk.last_version
    talk.send(talk.raw(type_url, talk.last_version, nonce, [wrapped(type_url, None, ttl_ms, name, version)]))
    return talk.ack(type_url, nonce)


def beat(talk, times):
    for _ in range(times):
        heartbeat(talk, CLUSTER, "a", BEATEN_MS)
        talk.pause(BEATEN_MS / 4)


def test_heartbeats_keep_it(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"), BEATEN_MS)])
    talk.last_version = "1"
    beat(talk, 6)
    assert talk.clusters() == {"a"}
    talk.wait_clusters()


def test_heartbeats_do_not_touch_the_others(talk):
    """A SotW response with a heartbeat lists one resource; the others are not gone."""
    talk.start()
    talk.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"), BEATEN_MS), static_cluster("b")])
    talk.last_version = "1"
    beat(talk, 1)
    assert talk.clusters() == {"a", "b"}


def test_heartbeat_may_end_the_limit(talk):
    """A heartbeat without a time to live: it is there for good."""
    talk.start()
    talk.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"), BEATEN_MS), wrapped(CLUSTER, static_cluster("z"), BEATEN_MS)])
    talk.last_version = "1"
    heartbeat(talk, CLUSTER, "a", 0)
    talk.wait_clusters("a")


def test_update_without_a_limit_ends_it(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"), BRIEF_MS), wrapped(CLUSTER, static_cluster("z"), BRIEF_MS)])
    talk.accept(CLUSTER, "2", [static_cluster("a", connect_timeout="1s")], removed=["z"] if not talk.is_delta else [])
    talk.pause(BRIEF_MS * 1.5)
    assert talk.clusters() == {"a"}


def test_expired_is_not_told_on_a_new_stream(delta):
    delta.start()
    delta.accept(CLUSTER, "1", [static_cluster("a"), wrapped(CLUSTER, static_cluster("brief"), BRIEF_MS)])
    delta.wait_clusters("a")
    delta.ads.end_streams()
    request = delta.ads.wait(lambda r: r.stream.number == 1 and r.type_url == CLUSTER)
    assert dict(request.initial_resource_versions) == {"a": "1"}


def test_expired_comes_back(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a"), wrapped(CLUSTER, static_cluster("brief"), BRIEF_MS)])
    talk.wait_clusters("a")
    talk.accept(CLUSTER, "2", [static_cluster("brief")])
    talk.wait_clusters("a", "brief")


def test_expired_endpoints(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "1", [wrapped(ENDPOINTS, assignment("a", 1, 2), BRIEF_MS)])
    talk.wait_stat("cluster.a.membership_total", 2)
    talk.wait_stat("cluster.a.membership_total", 0)


def test_removed_in_time_expires_nothing(delta):
    delta.start()
    delta.accept(CLUSTER, "1", [wrapped(CLUSTER, static_cluster("a"), BRIEF_MS)])
    delta.accept(CLUSTER, "2", removed=["a"])
    delta.accept(CLUSTER, "3", [static_cluster("a")])
    delta.pause(BRIEF_MS * 1.5)
    assert delta.clusters() == {"a"}


def test_heartbeat_of_an_unknown_name(talk):
    talk.start()
    talk.accept(CLUSTER, "1", [static_cluster("a")])
    talk.last_version = "1"
    heartbeat(talk, CLUSTER, "stranger", BRIEF_MS)
    assert talk.clusters() == {"a"}
    talk.accept(CLUSTER, "2", [static_cluster("b")])
    talk.wait_clusters("a", "b")


# ---- removal ----

def test_removed_cluster(talk):
    talk.start_with([static_cluster("a"), static_cluster("b")])
    talk.accept(CLUSTER, "c2", removed=["a"])
    talk.wait_clusters("b")
    assert talk.stat("cluster_manager.cluster_removed") == 1


def test_removed_listener(talk):
    talk.start_with([], [direct_listener("a"), direct_listener("b")])
    talk.wait_listeners("a", "b")
    talk.accept(LISTENER, "l2", removed=["a"])
    talk.wait_listeners("b")
    assert talk.stat("listener_manager.listener_removed") == 1


def test_removed_then_added_again(talk):
    talk.start_with([static_cluster("a")])
    talk.accept(CLUSTER, "c2", removed=["a"])
    talk.wait_clusters()
    talk.accept(CLUSTER, "c3", [static_cluster("a")])
    talk.wait_clusters("a")


def test_removed_and_added_at_once(delta):
    """Both in one response: the resource is there."""
    delta.start_with([static_cluster("a")])
    delta.accept(CLUSTER, "c2", [static_cluster("b")], removed=["a"])
    delta.wait_clusters("b")


def test_removal_of_an_unknown_name(delta):
    delta.start_with([static_cluster("a")])
    delta.accept(CLUSTER, "c2", removed=["stranger"])
    assert delta.clusters() == {"a"}
    assert delta.stat("cluster_manager.cluster_removed") == 0


def test_endpoints_not_listed_stay(sotw):
    """Only LDS and CDS responses tell all there is."""
    sotw.start_with([eds_cluster("a"), eds_cluster("b")])
    sotw.accept(ENDPOINTS, "e1", [assignment("a", 1), assignment("b", 1)])
    sotw.accept(LISTENER, "l1")
    sotw.accept(ENDPOINTS, "e2", [assignment("a", 1, 2)])
    sotw.wait_stat("cluster.a.membership_total", 2)
    assert sotw.stat("cluster.b.membership_total") == 1


def test_removed_routes_stay_in_use(delta):
    delta.start_with([], [rds_listener()])
    delta.accept(ROUTE, "r1", [direct_routes()])
    delta.wait_listeners("main")
    delta.accept(ROUTE, "r2", removed=["r"])
    assert fetch(delta.proxy.port("main"), "/").status == 200


def test_removed_routes_stay_with_the_next_version(delta):
    """A version that waits is replaced by another: what both refer to is not asked for again."""
    context = {"tls_certificate_sds_secret_configs": [{"name": "s", "sds_config": ADS}]}
    waits = rds_listener()
    waits["filter_chains"][0]["transport_socket"] = config.tls_socket("Downstream", common_tls_context=context)
    delta.start_with([], [waits])
    delta.accept(ROUTE, "r1", [direct_routes()])
    delta.accept(ROUTE, "r2", removed=["r"])
    delta.accept(LISTENER, "l2", [rds_listener()])
    delta.wait_listeners("main")
    assert fetch(delta.proxy.port("main"), "/").status == 200
    delta.nothing(ROUTE)


def test_removed_endpoints_stay_in_use(delta):
    """Only a cluster's own removal ends them; what comes next replaces them."""
    delta.start_with([eds_cluster("a")])
    delta.accept(ENDPOINTS, "e1", [assignment("a", 1, 2)])
    delta.wait_stat("cluster.a.membership_total", 2)
    delta.accept(LISTENER, "l1")
    delta.accept(ENDPOINTS, "e2", removed=["a"])
    assert delta.stat("cluster.a.update_empty") == 1 and delta.stat("cluster.a.membership_total") == 2
    delta.accept(ENDPOINTS, "e3", [assignment("a", 1)])
    delta.wait_stat("cluster.a.membership_total", 1)


def test_removed_endpoints_end_the_wait(delta):
    """A cluster whose endpoints are told not to be there is warm without any."""
    delta.start_with([eds_cluster("a")])
    delta.accept(ENDPOINTS, "e1", removed=["a"])
    delta.wait_clusters("a")
    delta.wait_stat("cluster.a.update_empty", 1)
    delta.accept(LISTENER, "l1", [direct_listener()])
    delta.wait_listeners("main")
    delta.accept(ENDPOINTS, "e2", [assignment("a", 1)])
    delta.wait_stat("cluster.a.membership_total", 1)


def test_changed_cluster_of_removed_endpoints(delta):
    """Its next version goes on with those that are in use."""
    delta.start_with([eds_cluster("a")])
    delta.accept(ENDPOINTS, "e1", [assignment("a", 1, 2)])
    delta.accept(ENDPOINTS, "e2", removed=["a"])
    delta.accept(CLUSTER, "c2", [eds_cluster("a", connect_timeout="1s")])
    delta.accept(ENDPOINTS, "e3", removed=["a"])
    delta.wait_stat("cluster_manager.warming_clusters", 0)
    delta.accept(ENDPOINTS, "e4", [assignment("a", 1)])
    delta.wait_stat("cluster.a.membership_total", 1)


def secret_versions(talk):
    rows = talk.dump().get("SecretsConfigDump", {})
    return {r["name"]: r.get("version_info") for r in rows.get("dynamic_active_secrets", [])}


def test_removed_secret_stays_in_use(delta, authority):
    delta.start()
    delta.accept(CLUSTER, "1", [secret_cluster("a", "ca")])
    delta.accept(SECRET, "s1", [validation("ca", authority)])
    delta.wait_clusters("a")
    delta.accept(SECRET, "s2", removed=["ca"])
    assert secret_versions(delta) == {"ca": "s1"}
    changed = validation("ca", authority)
    changed["validation_context"]["allow_expired_certificate"] = True
    delta.accept(SECRET, "s3", [changed])
    assert secret_versions(delta) == {"ca": "s3"}


def test_removed_secret_ends_the_wait(delta, authority):
    delta.start()
    delta.accept(CLUSTER, "1", [secret_cluster("a", "ca")])
    delta.accept(SECRET, "s1", removed=["ca"])
    delta.wait_clusters("a")
    delta.accept(SECRET, "s2", [validation("ca", authority)])
    assert secret_versions(delta) == {"ca": "s2"}


def test_static_cluster_of_the_same_name_wins(talk):
    talk.start(clusters=[static_cluster("fixed", connect_timeout="3s")])
    talk.accept(CLUSTER, "1", [static_cluster("fixed", connect_timeout="9s"), static_cluster("a")])
    talk.wait_clusters("a")
    talk.accept(CLUSTER, "2", removed=["fixed"])
    rows = talk.dump()["ClustersConfigDump"]["static_clusters"]
    assert {r["cluster"]["name"]: r["cluster"]["connect_timeout"] for r in rows}["fixed"] == "3s"


def test_changed_cluster(talk):
    talk.start_with([static_cluster("a")])
    talk.accept(CLUSTER, "c2", [static_cluster("a", connect_timeout="1s")])
    talk.wait_stat("cluster_manager.cluster_modified", 1)
    rows = talk.dump()["ClustersConfigDump"]["dynamic_active_clusters"]
    assert [(r["version_info"], r["cluster"]["connect_timeout"]) for r in rows] == [("c2", "1s")]


def test_unchanged_siblings_keep_their_version(delta):
    delta.start_with([static_cluster("a")])
    delta.accept(CLUSTER, "c2", [static_cluster("b")])
    rows = delta.dump()["ClustersConfigDump"]["dynamic_active_clusters"]
    assert {r["cluster"]["name"]: r["version_info"] for r in rows} == {"a": "c1", "b": "c2"}


# ---- a version that waits beside one that serves ----

def hosts(talk, cluster):
    rows = talk.proxy.admin("/clusters?format=json").json["cluster_statuses"]
    return [len(r.get("host_statuses", [])) for r in rows if r["name"] == cluster]


def waiting_cluster(**fields):
    """An EDS cluster that is not warm before its secret is there."""
    return {**eds_cluster("a"), "transport_socket": secret_cluster("a", "ca")["transport_socket"], **fields}


def test_endpoints_of_both_versions_change(talk, authority, upstreams):
    """Those of the version that serves do not wait for its successor."""
    one, two = (upstreams().script(Reply(body=n)).port for n in (b"one", b"two"))
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", one)])
    talk.accept(LISTENER, "l1", [config.listener(config.hcm([config.route(cluster="a")]))])
    talk.wait_listeners("main")
    assert fetch(talk.proxy.port("main")).body == b"one"
    talk.push(CLUSTER, "c2", [waiting_cluster()])
    talk.wait_stat("cluster_manager.warming_clusters", 1)
    talk.push(ENDPOINTS, "e2", [assignment("a", two)])
    wait_until(lambda: fetch(talk.proxy.port("main")).body == b"two", "the other endpoint")
    talk.push(ENDPOINTS, "e3", [assignment("a", one, two)])
    wait_until(lambda: hosts(talk, "a") == [2], "the endpoint more")
    assert talk.stat("cluster.a.membership_total") == 2
    talk.accept(SECRET, "s1", [validation("ca", authority)])
    talk.wait_stat("cluster_manager.warming_clusters", 0)
    assert hosts(talk, "a") == [2]
    talk.push(ENDPOINTS, "e4", [assignment("a", two)])
    wait_until(lambda: hosts(talk, "a") == [1], "the endpoint less")


def test_hosts_shown_are_those_in_use(talk):
    """Not those of a version that waits."""
    talk.start_with([config.cluster("a", 1)])
    talk.wait_clusters("a")
    talk.push(CLUSTER, "c2", [eds_cluster("a")])
    talk.wait_stat("cluster_manager.warming_clusters", 1)
    assert hosts(talk, "a") == [1]


def test_version_that_waits_is_replaced(talk):
    talk.start_with([eds_cluster("a")])
    talk.accept(ENDPOINTS, "e1", [assignment("a", 1)])
    talk.wait_clusters("a")
    for n in range(3):
        talk.push(CLUSTER, f"c{n + 2}", [waiting_cluster(connect_timeout=f"{n + 6}s")])
        talk.wait_stat("cluster_manager.cluster_modified", n + 1)
    talk.push(ENDPOINTS, "e2", [assignment("a", 1, 2)])
    wait_until(lambda: hosts(talk, "a") == [2], "the endpoint more")
    talk.push(CLUSTER, "c9", [static_cluster("b")], removed=["a"])
    talk.wait_clusters("b")
    assert hosts(talk, "a") == []
