"""--mode validate with --validate-resources: dry runs of a push in every form a CI pipeline may have it in."""
import json
import subprocess

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format
from support.ads_server import CLUSTER, ENDPOINTS, LISTENER, ROUTE, SECRET
from support.config import bootstrap, cluster, hcm, listener, route, tls_socket, vhost
from support.proxy import Sluice

EDS = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}


def resource(type_url, **fields):
    return {"@type": type_url, **fields}


def good_cluster(name="a", **fields):
    return resource(CLUSTER, **cluster(name, 80, **fields))


BAD = resource(CLUSTER, name="bad", connect_timeout="-1s", type="STATIC")


@pytest.fixture
def validate(tmp_path):
    def run(*paths, static=(), args=()):
        config = tmp_path / "bootstrap.json"
        config.write_text(json.dumps(bootstrap([], list(static))))
        flags = [f for p in paths for f in ("--validate-resources", str(p))]
        return subprocess.run([Sluice.binary, "-c", str(config), "--mode", "validate", *flags, *args],
                              capture_output=True, text=True, timeout=60, check=False)
    return run


@pytest.fixture
def write(tmp_path):
    def put(name, content):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path
    return put


def response(*resources):
    return {"version_info": "1", "resources": list(resources)}


def passes(done, checked):
    assert done.returncode == 0, done.stderr
    assert f"resources: {checked} checked, 0 bad" in done.stdout, done.stdout
    assert "OK" in done.stdout


def fails(done, *texts):
    assert done.returncode == 1, done.stdout
    for text in texts:
        assert text in done.stderr, done.stderr
    assert "OK" not in done.stdout


DELTA = {"resources": [{"name": "a", "version": "1", "resource": good_cluster()}]}
WRAPPED = response({"@type": "type.googleapis.com/envoy.service.discovery.v3.Resource", "name": "a",
                    "resource": good_cluster()})
DUMP = {"configs": [
    {"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
     "dynamic_active_clusters": [{"version_info": "1", "cluster": good_cluster(),
                                  "error_state": {"failed_configuration": BAD, "details": "old"}}]},
    {"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
     "dynamic_listeners": [{"name": "l", "active_state": {"listener": resource(
         LISTENER, **listener(hcm([route(cluster="a")]), name="l"))}}]}]}


@pytest.mark.parametrize(("name", "content", "checked"), [
    ("response.json", response(good_cluster("a"), good_cluster("b")), 2),
    ("delta.json", DELTA, 1),
    ("wrapped.json", WRAPPED, 1),
    ("list.json", [good_cluster("a"), good_cluster("b")], 2),
    ("one.json", good_cluster(), 1),
    ("dump.json", DUMP, 2),
    ("empty.json", response(), 0),
    ("one.yaml", "'@type': " + CLUSTER + "\nname: a\nconnect_timeout: 1s\n", 1),
])
def test_accepted_forms(validate, write, name, content, checked):
    passes(validate(write(name, content)), checked)


def packed(message):
    any_ = discovery_pb2.Resource().resource
    any_.Pack(message)
    return any_


@pytest.mark.parametrize("is_delta", [False, True])
def test_binary_responses(validate, write, is_delta):
    message = json_format.ParseDict(cluster("a", 80), cluster_pb2.Cluster())
    good = discovery_pb2.DeltaDiscoveryResponse() if is_delta else discovery_pb2.DiscoveryResponse()
    bad = type(good)()
    for to, name in ((good, "a"), (bad, "")):
        message.name = name
        if is_delta:
            to.resources.add(name="a", version="7", resource=packed(message))
        else:
            to.resources.add().CopyFrom(packed(message))
    passes(validate(write("good.pb", good.SerializeToString())), 1)
    fails(validate(write("bad.pb", bad.SerializeToString())), "bad.pb: envoy.config.cluster.v3.Cluster '': name: ")


def test_a_directory_and_several_paths(validate, write):
    write("push/clusters.json", response(good_cluster("a")))
    write("push/README", "not looked at")
    routes = write("routes.yaml", json.dumps([resource(ROUTE, name="r", virtual_hosts=[vhost([route(cluster="a")])])]))
    passes(validate(write("push/more.yml", json.dumps(good_cluster("b"))).parent, routes), 3)


def test_every_bad_resource_is_told_with_its_field_and_reason(validate, write):
    unknown_filter = listener({"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Duration",
                                                             "value": "1s"}}, name="l")
    path = write("push.json", response(
        good_cluster(), BAD, resource(LISTENER, **unknown_filter),
        resource(ROUTE, name="r", virtual_hosts=[{"name": "v"}]),
        resource(CLUSTER, name="typo", connect_timeot="1s"),
        resource("type.googleapis.com/envoy.config.core.v3.Address", name="no")))
    done = validate(path, args=["--reject-unknown-dynamic-fields"])
    fails(done, "push.json: envoy.config.cluster.v3.Cluster 'bad': connect_timeout: ",
          "envoy.config.listener.v3.Listener 'l': filter_chains[0].filters[0]",
          "envoy.config.route.v3.RouteConfiguration 'r': virtual_hosts[0].domains: ",
          "Cluster 'typo': ", "connect_timeot", "envoy.config.core.v3.Address 'no': it is of no type that is discovered")
    assert "6 checked, 5 bad" in done.stdout


def test_names_are_unique_in_a_response(validate, write):
    fails(validate(write("p.json", response(good_cluster(), good_cluster()))), "Cluster 'a': duplicate resource name")
    passes(validate(write("p.json", response(good_cluster())), write("q.json", response(good_cluster()))), 2)


def test_dangling_references_are_warnings(validate, write):
    path = write("push.json", response(
        resource(CLUSTER, name="e", type="EDS", eds_cluster_config=EDS),
        resource(CLUSTER, name="f", type="EDS", eds_cluster_config=EDS),
        resource(ENDPOINTS, cluster_name="f"),
        resource(ROUTE, name="r", virtual_hosts=[vhost([route(cluster="gone"), route("/b", cluster="up")])])))
    done = validate(path, static=[cluster("up", 80)])
    passes(done, 4)
    assert "Cluster 'e' refers to envoy.config.endpoint.v3.ClusterLoadAssignment 'e'" in done.stderr
    assert "RouteConfiguration 'r' refers to envoy.config.cluster.v3.Cluster 'gone'" in done.stderr
    assert "'f', which" not in done.stderr and "'up'" not in done.stderr
    assert "2 warnings" in done.stdout


def test_references_to_types_that_were_not_given_are_counted(validate, write):
    done = validate(write("p.json", response(resource(CLUSTER, name="e", type="EDS", eds_cluster_config=EDS))))
    passes(done, 1)
    assert "1 references to envoy.config.endpoint.v3.ClusterLoadAssignment are not checked" in done.stderr


def test_certificates_are_tried(validate, write, authority):
    pair, other = authority.leaf("a"), authority.leaf("b")
    common = {"tls_certificates": [{"certificate_chain": {"inline_string": pair.cert.read_text()},
                                    "private_key": {"inline_string": other.key.read_text()}}]}
    path = write("p.json", good_cluster(transport_socket=tls_socket("Upstream", common_tls_context=common)))
    fails(validate(path), "Cluster 'a': ")


def test_redacted_secrets_of_a_dump_are_skipped(validate, write, authority):
    pair = authority.leaf("a")
    secret = resource(SECRET, name="s", tls_certificate={
        "certificate_chain": {"inline_string": pair.cert.read_text()}, "private_key": {"inline_string": "[redacted]"}})
    dump = {"configs": [{"dynamic_active_secrets": [{"name": "s", "secret": secret}]}]}
    done = validate(write("dump.json", dump))
    passes(done, 1)
    assert "1 skipped" in done.stdout
    fails(validate(write("push.json", response(secret))), "Secret 's': ")


@pytest.mark.parametrize(("name", "content", "told"), [
    ("x.json", "{", "unable to parse JSON"),
    ("x.json", "{}", "holds neither"),
    ("x.json", "3", "unable to parse JSON"),
    ("x.yaml", "a: [", "x.yaml"),
    ("x.txt", "{}", "must end in"),
    ("x.pb", b"\x12\xff\xff\xff\xff\x0f", "x.pb"),
    ("x.json", "[" * 5000, "unable to parse JSON"),
    ("x.json", [3], "is of no type"),
    ("x.json", [{"@type": CLUSTER, "name": 3, "load_assignment": []}], "Cluster"),
])
def test_unreadable_files(validate, write, name, content, told):
    fails(validate(write(name, content)), told)


def test_paths_that_are_not_there(validate, tmp_path):
    (tmp_path / "empty").mkdir()
    fails(validate(tmp_path / "empty"), "has no .json")
    fails(validate(tmp_path / "missing"), "unable to open")


def test_needs_mode_validate(tmp_path):
    done = subprocess.run([Sluice.binary, "--validate-resources", str(tmp_path)], capture_output=True, text=True,
                          timeout=20, check=False)
    assert done.returncode == 1 and "needs --mode validate" in done.stderr


def test_a_dump_of_our_own_is_accepted(sluice, validate, write):
    proxy = sluice(bootstrap([listener(hcm(), name="l")], [cluster("up", 80)]))
    passes(validate(write("dump.json", proxy.admin("/config_dump?include_eds").text)), 4)  # the endpoints, too
