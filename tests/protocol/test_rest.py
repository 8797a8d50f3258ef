"""api_type REST: polling with POST /v3/discovery:<type>."""
import contextlib

import pytest

from support import config
from support.conversation import *  # noqa: F403
from support.process import wait_until
from support.rawhttp import fetch
from support.rest_server import RestServer


def rest_source(refresh="0.05s", **fields):
    api = {"api_type": "REST", "transport_api_version": "V3", "cluster_names": ["xds"], "refresh_delay": refresh, **fields}
    return {"api_config_source": api, "resource_api_version": "V3"}


def of_type(type_url, *resources, version="1"):
    return {"version_info": version, "type_url": type_url, "resources": [{"@type": type_url, **r} for r in resources]}


class Rest:
    """A proxy that polls."""

    def __init__(self, server, start_proxy):
        self.server, self.start_proxy, self.proxy = server, start_proxy, None
        server.answers["clusters"] = of_type(CLUSTER)
        server.answers["listeners"] = of_type(LISTENER)

    def start(self, source=None, cluster=None):
        options = {} if cluster else {"typed_extension_protocol_options": {}}
        xds = config.cluster("xds", self.server.port, **options, **(cluster or {}))
        source = source or rest_source()
        self.proxy = self.start_proxy(config.bootstrap([], [xds], dynamic_resources={"cds_config": source,
                                                                                      "lds_config": source}), ready=False)
        return self

    def wait_stat(self, name, value):
        return self.proxy.wait_stat(name, value)


@pytest.fixture
def rests(start_proxy):
    with contextlib.ExitStack() as stack:
        yield lambda **options: Rest(stack.enter_context(RestServer(**options)), start_proxy)


@pytest.fixture
def rest(rests):
    return rests()


def status_of(rest):
    with contextlib.suppress(OSError):  # told of, not listening yet
        return rest.proxy.listeners() and fetch(rest.proxy.port(), "/").status


def test_request(rest):
    rest.start()
    request = rest.server.wait(lambda r: r.type == "clusters")
    assert request.path == "/v3/discovery:clusters"
    headers = {k.lower(): v for k, v in request.headers.items()}
    assert headers["content-type"] == "application/json" and headers["host"] == "xds"
    assert request.json["node"]["id"] == "test-node"
    assert not request.json.get("version_info") and not request.json.get("resource_names")


def test_resources_come(rest):
    rest.server.answers["listeners"] = of_type(LISTENER, direct_listener(status=201))
    rest.start()
    wait_until(lambda: status_of(rest) == 201, "the listener")
    rest.wait_stat("listener_manager.lds.update_success", lambda n: n >= 1)


def test_version_is_told_with_the_next_poll(rest):
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"), version="v7")
    rest.start()
    assert rest.server.wait(lambda r: r.type == "clusters" and r.json.get("version_info")).json["version_info"] == "v7"


def test_changes_come_with_the_next_poll(rest):
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"))
    rest.start()
    rest.wait_stat("cluster_manager.active_clusters", 2)
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"), static_cluster("b"), version="2")
    rest.wait_stat("cluster_manager.active_clusters", 3)
    rest.server.answers["clusters"] = of_type(CLUSTER, version="3")
    rest.wait_stat("cluster_manager.active_clusters", 1)


def test_polls_keep_coming(rest):
    rest.start(rest_source("0.1s"))
    rest.server.wait(lambda r: len(rest.server.of("clusters")) >= 6)
    polls = rest.server.of("clusters")
    pauses = [b.at - a.at for a, b in zip(polls, polls[1:])]
    assert min(pauses) >= 0.09 and max(pauses) < 0.6, pauses
    assert len({round(p, 3) for p in pauses}) > 1, pauses  # jittered


def test_not_modified(rest):
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"))
    rest.start()
    rest.wait_stat("cluster_manager.active_clusters", 2)
    rest.server.answers["clusters"] = (304, "")
    rest.server.next("clusters")
    before = rest.proxy.stat("cluster_manager.cds.update_success"), rest.proxy.stat("cluster_manager.cds.update_failure")
    for _ in range(2):
        rest.server.next("clusters")
    after = rest.proxy.stat("cluster_manager.cds.update_success"), rest.proxy.stat("cluster_manager.cds.update_failure")
    assert after == before and rest.proxy.stat("cluster_manager.active_clusters") == 2


@pytest.mark.parametrize("status", [404, 503, 204])
def test_other_status_is_a_failure(rest, status):
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"))
    rest.start()
    rest.wait_stat("cluster_manager.active_clusters", 2)
    rest.server.answers["clusters"] = (status, "")
    rest.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    assert rest.proxy.stat("cluster_manager.active_clusters") == 2
    rest.server.answers["clusters"] = of_type(CLUSTER, version="2")
    rest.wait_stat("cluster_manager.active_clusters", 1)


BODIES = {"empty": "", "cut": "{", "list": "[]", "number": '{"resources": 1}',
          "unknown_type": '{"resources": [{"@type": "type.googleapis.com/no.Such"}]}'}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_body_that_is_no_response(rest, body):
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"))
    rest.start()
    rest.wait_stat("cluster_manager.active_clusters", 2)
    rest.server.answers["clusters"] = (200, body)
    rest.wait_stat("cluster_manager.cds.update_rejected", lambda n: n >= 1)
    assert rest.proxy.stat("cluster_manager.active_clusters") == 2


def test_bad_resource(rest):
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"))
    rest.start()
    rest.wait_stat("cluster_manager.active_clusters", 2)
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"), bad_cluster("b"), version="2")
    rest.wait_stat("cluster_manager.cds.update_rejected", lambda n: n >= 1)
    assert rest.server.next("clusters").json["version_info"] == "1"


def test_slow_answer_is_given_up(rest):
    rest.server.silent.add("clusters")
    rest.start(rest_source(request_timeout="0.1s"))
    rest.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)
    assert len(rest.server.of("clusters")) >= 2


def test_server_that_is_not_there(rest):
    rest.server.server.server_close()
    rest.start()
    rest.wait_stat("cluster_manager.cds.update_failure", lambda n: n >= 2)


def test_endpoints_by_name(rest):
    rest.server.answers["clusters"] = of_type(CLUSTER, eds_cluster("a", rest_source()))
    rest.server.answers["endpoints"] = of_type(ENDPOINTS, assignment("a", 1, 2))
    rest.start()
    assert rest.server.wait(lambda r: r.type == "endpoints").json["resource_names"] == ["a"]
    rest.wait_stat("cluster.a.membership_total", 2)


def test_first_poll_for_a_name_tells_no_version(rest):
    """The version alone tells a server whether anything is new: with it, the new name would never be answered."""
    source, server = rest_source(), rest.server

    def clusters(version, *names):
        return of_type(CLUSTER, *({"name": n, "type": "EDS", "connect_timeout": "5s", "eds_cluster_config": {"eds_config": source}}
                                  for n in names), version=version)

    server.answers["endpoints"] = of_type(ENDPOINTS, {"cluster_name": "a"}, version="e1")
    server.answers["clusters"] = clusters("1", "a")
    rest.start(source)
    server.wait(lambda r: r.type == "endpoints" and r.json.get("version_info") == "e1")
    server.answers["clusters"] = clusters("2", "a", "b")
    first = server.wait(lambda r: r.type == "endpoints" and "b" in r.json.get("resource_names", []))
    assert not first.json.get("version_info")


def test_routes_by_name(rest):
    rest.server.answers["listeners"] = of_type(LISTENER, rds_listener(source=rest_source()))
    rest.server.answers["routes"] = of_type(ROUTE, direct_routes(status=203))
    rest.start()
    assert rest.server.wait(lambda r: r.type == "routes").json["resource_names"] == ["r"]
    wait_until(lambda: status_of(rest) == 203, "the routes")


def test_secrets_by_name(rest, authority):
    rest.server.answers["clusters"] = of_type(CLUSTER, secret_cluster("a", "ca", rest_source()))
    rest.server.answers["secrets"] = of_type(SECRET, validation("ca", authority))
    rest.start()
    assert rest.server.wait(lambda r: r.type == "secrets").json["resource_names"] == ["ca"]
    rest.wait_stat("cluster_manager.active_clusters", 2)


def test_tls(rests, authority):
    rest = rests(certificate=authority.leaf("rest.test", "DNS:rest.test"))
    rest.server.answers["clusters"] = of_type(CLUSTER, static_cluster("a"))
    context = {"validation_context": {"trusted_ca": {"filename": str(authority.pair.cert)}}}
    rest.start(cluster={"transport_socket": config.tls_socket("Upstream", common_tls_context=context, sni="rest.test")})
    rest.wait_stat("cluster_manager.active_clusters", 2)


def test_start_goes_on_without_answers(rest):
    """initial_fetch_timeout."""
    rest.server.answers.clear()
    rest.start({**rest_source(), "initial_fetch_timeout": "0.3s"})
    rest.wait_stat("cluster_manager.cds.init_fetch_timeout", 1)
    rest.wait_stat("listener_manager.lds.init_fetch_timeout", 1)
    rest.wait_stat("listener_manager.workers_started", 1)
