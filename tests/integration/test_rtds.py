"""Discovered runtime layers (RTDS). The expectations are Envoy 1.40's."""

import json
import os

import pytest

from support import config
from support.ads_server import CLUSTER, LISTENER, RUNTIME
from support.process import wait_until
from support.rawhttp import Client, fetch
from test_xds_basic import ADS, ads_bootstrap, api_source, both, xds_cluster

FAULT = config.EXT + "filters.http.fault.v3.HTTPFault"


@pytest.fixture
def ads(ads):
    ads.set(CLUSTER, "1", [])
    ads.set(LISTENER, "1", [])
    return ads


def layer(name, source=ADS, timeout="0s"):
    return {"name": f"layer-{name}", "rtds_layer": {"name": name, "rtds_config": {**source, "initial_fetch_timeout": timeout}}}


def with_layers(bootstrap, *layers):
    bootstrap["layered_runtime"] = {"layers": list(layers)}
    return bootstrap


def push(ads, version, *resources):
    return ads.push(RUNTIME, version, resources)


def entries(proxy):
    return proxy.admin("/runtime").json.get("entries", {})


def value(proxy, key):
    return entries(proxy).get(key, {}).get("final_value")


def becomes(proxy, key, wanted):
    wait_until(lambda: value(proxy, key) == wanted, lambda: f"{key} = {wanted}: {entries(proxy)}")


@pytest.mark.smoke
@both
def test_layers_in_order(sluice, ads, kind):
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2, "b": {"c": True}, "f": {"numerator": 5}, "t": "x"}},
                           {"name": "two", "layer": {"a": 3}}])
    static = {"name": "static", "static_layer": {"a": 1, "s": 1}}
    proxy = sluice(with_layers(ads_bootstrap(ads, kind), static, layer("one"), layer("two"), {"name": "admin", "admin_layer": {}}))
    becomes(proxy, "a", "3")
    assert proxy.admin("/runtime").json["layers"] == ["static", "layer-one", "layer-two", "admin"]
    assert entries(proxy)["a"]["layer_values"] == ["1", "2", "3", ""]
    assert value(proxy, "b.c") == "true" and value(proxy, "t") == "x" and json.loads(value(proxy, "f")) == {"numerator": 5}
    assert proxy.stat("runtime.num_layers") == 4 and proxy.stat("runtime.num_keys") == 5
    assert proxy.stat("runtime.update_success") == 2 and proxy.stat("runtime.load_success") >= 2
    assert proxy.post("/runtime_modify?a=99").status == 200 and value(proxy, "a") == "99"
    push(ads, "2", {"name": "one", "layer": {"a": 7}}, {"name": "two", "layer": {}})
    wait_until(lambda: entries(proxy)["a"]["layer_values"] == ["1", "7", "", "99"], "the new values")
    assert value(proxy, "b.c") is None and value(proxy, "s") == "1"


@both
def test_asked_for_before_clusters(sluice, ads, kind):
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    sluice(with_layers(ads_bootstrap(ads, kind), layer("one")))
    order = [r.type_url for r in ads.requests if not r.response_nonce]
    assert order == [RUNTIME, CLUSTER, LISTENER]


def test_start_waits_until_it_comes(sluice, ads):
    proxy = sluice(with_layers(ads_bootstrap(ads), layer("one")), ready=False)
    ads.wait(lambda r: r.type_url == RUNTIME)
    assert proxy.admin("/ready").status == 503 and not ads.of(CLUSTER)
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    wait_until(lambda: proxy.admin("/ready").status == 200, "ready")


def test_start_goes_on_after_its_timeout(sluice, ads):
    proxy = sluice(with_layers(ads_bootstrap(ads), layer("one", timeout="0.1s")))
    assert proxy.stat("runtime.init_fetch_timeout") == 1 and entries(proxy) == {}
    push(ads, "1", {"name": "one", "layer": {"a": 2}})
    becomes(proxy, "a", "2")


def test_refused_answer_ends_waiting(sluice, ads):
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": None}}])
    proxy = sluice(with_layers(ads_bootstrap(ads), layer("one")))
    assert proxy.stat("runtime.update_rejected") == 1


@both
@pytest.mark.parametrize("bad, text", [({"n": None}, "Invalid runtime entry value for n"),
                                       ({"a": {"l": [1]}}, "Invalid runtime entry value for a.l")])
def test_refused_keeps_the_last_good_one(sluice, ads, kind, bad, text):
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    proxy = sluice(with_layers(ads_bootstrap(ads, kind), layer("one")))
    nack = push(ads, "2", {"name": "one", "layer": bad})
    assert nack.is_nack and text in nack.error_detail.message
    assert value(proxy, "a") == "2"
    push(ads, "3", {"name": "one", "layer": {"a": 3}})
    becomes(proxy, "a", "3")


@both
def test_removal(sluice, ads, kind):
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    proxy = sluice(with_layers(ads_bootstrap(ads, kind), {"name": "static", "static_layer": {"a": 1}}, layer("one")))
    becomes(proxy, "a", "2")
    ads.set(RUNTIME, "2", [])
    if kind == "DELTA_GRPC":
        becomes(proxy, "a", "1")
        push(ads, "3", {"name": "one", "layer": {"a": 4}})
        becomes(proxy, "a", "4")
    else:  # an empty response says nothing in SotW
        ads.wait(lambda r: r.type_url == RUNTIME and r.version_info == "2")
        assert value(proxy, "a") == "2"


@both
def test_own_stream(sluice, ads, kind):
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {"a": 2}}])
    source = {"api_config_source": api_source(kind), "resource_api_version": "V3"}
    proxy = sluice(with_layers(config.bootstrap([], [xds_cluster(ads)]), layer("one", source)))
    becomes(proxy, "a", "2")
    assert ads.of(RUNTIME)[0].stream.method == ("Delta" if kind == "DELTA_GRPC" else "Stream") + "Runtime"


def test_file(sluice, tmp_path):
    path = tmp_path / "rtds.json"

    def write(values):
        (tmp_path / "new").write_text(json.dumps({"resources": [{"@type": RUNTIME, "name": "one", "layer": values}]}))
        os.rename(tmp_path / "new", path)

    write({"a": 2})
    source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    proxy = sluice(with_layers(config.bootstrap([]), layer("one", source)))
    becomes(proxy, "a", "2")
    write({"a": 3})
    becomes(proxy, "a", "3")


def test_values_bear_on_requests_at_once(sluice, ads):
    """On an open connection; a feature is turned on and off under it."""
    fault = {"name": "envoy.filters.http.fault", "typed_config": {"@type": FAULT, "abort": {
        "http_status": 418, "percentage": {"numerator": 0}}}}
    ads.set(RUNTIME, "1", [{"name": "one", "layer": {}}])
    listener = config.listener(config.hcm([config.direct("/", 200)], filters=[fault]))
    proxy = sluice(with_layers(config.bootstrap([listener], [xds_cluster(ads)],
                                                dynamic_resources={"ads_config": api_source()}), layer("one")))
    with Client(proxy.port()) as client:
        for version, (percent, status) in enumerate([(100, 418), (0, 200)] * 3):
            push(ads, f"v{version}", {"name": "one", "layer": {"fault.http.abort.abort_percent": percent}})
            wait_until(lambda: client.request("GET", "/").status == status, f"status {status}")
    assert fetch(proxy.port(), "/").status == 200


def test_disk_layers(sluice, tmp_path):
    """Read again when the link is swapped; the later layer is the override."""
    def swap(version, base, own=None):
        data = tmp_path / f"v{version}"
        for name, values in (("base", base), ("own/test-cluster", own or {})):
            (data / name).mkdir(parents=True)
            for key, text in values.items():
                (data / name / key).write_text(text)
        (tmp_path / "new").symlink_to(data)
        os.rename(tmp_path / "new", tmp_path / "current")

    swap(1, {"a": "1\n", "b": "1"}, {"b": "2"})
    root = str(tmp_path / "current")
    disk = [{"name": "base", "disk_layer": {"symlink_root": root, "subdirectory": "base"}},
            {"name": "own", "disk_layer": {"symlink_root": root, "subdirectory": "own", "append_service_cluster": True}}]
    proxy = sluice(with_layers(config.bootstrap([]), *disk))
    assert (value(proxy, "a"), value(proxy, "b")) == ("1", "2")
    assert proxy.stat("runtime.override_dir_exists") == 1 and proxy.stat("runtime.override_dir_not_exists") == 0
    swap(2, {"a": "3"})
    becomes(proxy, "a", "3")
    assert value(proxy, "b") is None
    wait_until(lambda: proxy.stat("runtime.load_success") == 2, "one reload")
