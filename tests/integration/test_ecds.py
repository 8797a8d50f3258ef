"""Discovered filters (ECDS): HTTP, network and listener filters that come by name and change under a listener that stays.
The expectations are Envoy 1.40's."""

import contextlib
import json
import os
import socket

import pytest

from support import config
from support.ads_server import CLUSTER, EXTENSION, LISTENER, ROUTE
from support.process import wait_until
from support.rawhttp import Client, fetch
from test_xds_basic import ADS, ads_bootstrap, api_source, both, xds_cluster

FAULT = config.EXT + "filters.http.fault.v3.HTTPFault"
CORS = config.EXT + "filters.http.cors.v3.Cors"
ROUTER = config.EXT + "filters.http.router.v3.Router"
TCP_PROXY = config.EXT + "filters.network.tcp_proxy.v3.TcpProxy"
HCM = config.EXT + "filters.network.http_connection_manager.v3.HttpConnectionManager"
TLS_INSPECTOR = config.EXT + "filters.listener.tls_inspector.v3.TlsInspector"
PREFIX = "extension_config_discovery.http_filter."


@pytest.fixture
def ads(ads):
    ads.set(CLUSTER, "1", [])
    return ads


def discovered(name="f", *types, source=ADS, timeout=None, **fields):
    source = {**source, **({"initial_fetch_timeout": timeout} if timeout else {})}
    return {"name": name, "config_discovery": {"config_source": source, "type_urls": list(types) or [FAULT], **fields}}


def fault(name="f", status=418):
    abort = {"http_status": status, "percentage": {"numerator": 100}}
    return {"name": name, "typed_config": {"@type": FAULT, "abort": abort}}


def listener(*filters, name="main", **fields):
    return config.listener(config.hcm([config.direct("/", 200, "ok")], filters=list(filters), stat_prefix=name),
                           name=name, **fields)


def status(proxy, name="main"):
    return fetch(proxy.port(name), "/").status


def becomes(proxy, wanted, name="main"):
    wait_until(lambda: status(proxy, name) == wanted, lambda: f"{wanted}, it is {status(proxy, name)}")


def push(ads, version, *resources):
    return ads.push(EXTENSION, version, resources)


def push_listeners(ads, version, *resources):
    return ads.push(LISTENER, version, resources)


# ---- HTTP filters ----

@pytest.mark.smoke
@both
def test_update_drains_nothing(sluice, ads, kind):
    ads.set(LISTENER, "1", [listener(discovered())])
    ads.set(EXTENSION, "1", [fault(status=418)])
    proxy = sluice(ads_bootstrap(ads, kind))
    with Client(proxy.port("main")) as client:
        assert client.request("GET", "/").status == 418
        for code in range(420, 430):
            assert not push(ads, str(code), fault(status=code)).is_nack
            wait_until(lambda: client.request("GET", "/").status == code, f"status {code} on the old connection")
    assert proxy.stat("listener_manager.listener_modified") == 0 and proxy.stat("http.main.downstream_cx_total") == 1
    assert proxy.stat(PREFIX + "f.config_reload") == 11 and proxy.stat(PREFIX + "f.update_success") == 11
    dump = proxy.admin("/config_dump?resource=ecds_filters").json["configs"]
    assert [c["ecds_filter"]["typed_config"]["abort"]["http_status"] for c in dump] == [429]
    assert dump[0]["version_info"] == "429" and dump[0]["last_updated"]
    types = [c["@type"].rsplit(".", 1)[-1] for c in proxy.admin("/config_dump").json["configs"]]
    assert types.index("EcdsConfigDump") == types.index("ClustersConfigDump") + 1


def test_dump_has_no_section_without_discovered_filters(sluice):
    proxy = sluice(config.bootstrap([listener()]))
    assert "EcdsConfigDump" not in proxy.admin("/config_dump").text
    assert proxy.admin("/config_dump?resource=ecds_filters").json == {}


@both
def test_listener_warms_until_it_comes(sluice, ads, kind):
    ads.set(LISTENER, "1", [listener(discovered(timeout="0s")), listener(name="other")])
    proxy = sluice(ads_bootstrap(ads, kind), ready=False)
    proxy.wait_stat("listener_manager.total_listeners_warming", 1)
    assert "lds main" in proxy.admin("/init_dump").text and "ecds f" in proxy.admin("/init_dump").text
    ads.set(EXTENSION, "1", [fault()])
    wait_until(lambda: proxy.admin("/ready").status == 200, "ready")
    becomes(proxy, 418)


def test_refused_configuration_ends_warming(sluice, ads):
    """The first answer counts, whatever it is worth."""
    ads.set(LISTENER, "1", [listener(discovered(timeout="0s"))])
    ads.set(EXTENSION, "1", [{"name": "f", "typed_config": {"@type": CORS}}])
    proxy = sluice(ads_bootstrap(ads))
    assert status(proxy) == 500


@both
def test_missing_is_500(sluice, ads, kind, tmp_path):
    log = config.file_log(tmp_path / "log", "%RESPONSE_CODE% %RESPONSE_FLAGS%")
    manager = config.hcm([config.direct("/", 200)], filters=[discovered(timeout="0.1s"), discovered("g", timeout="0.1s")],
                         access_log=[log])
    ads.set(LISTENER, "1", [config.listener(manager)])
    proxy = sluice(ads_bootstrap(ads, kind))
    answer = fetch(proxy.port(), "/")
    assert answer.status == 500 and answer.body == b""
    assert proxy.log_lines(tmp_path / "log", 1) == ["500 NFCF"]
    for stat, value in [("init_fetch_timeout", 1), ("config_fail", 1), ("update_attempt", 2), ("update_success", 0)]:
        assert proxy.stat(PREFIX + "f." + stat) == value, stat
    push(ads, "1", fault(), fault("g", 419))
    becomes(proxy, 418)


def test_disabled_filter_needs_no_configuration(sluice, ads):
    ads.set(LISTENER, "1", [listener({**discovered(timeout="0.1s"), "disabled": True})])
    assert status(sluice(ads_bootstrap(ads))) == 200


def test_terminal_filter(sluice, ads, upstream):
    """The router itself; a filter that is not terminal is refused in its place."""
    ads.set(CLUSTER, "1", [config.cluster("up", upstream.port)])
    manager = config.hcm([config.route()])
    manager["typed_config"]["http_filters"] = [discovered("r", ROUTER, FAULT)]
    ads.set(LISTENER, "1", [config.listener(manager)])
    ads.set(EXTENSION, "1", [{"name": "r", "typed_config": {"@type": ROUTER}}])
    proxy = sluice(ads_bootstrap(ads))
    assert status(proxy) == 200
    nack = push(ads, "2", fault("r"))
    assert ("Error: non-terminal filter named r of type envoy.filters.http.fault is the last filter in a http filter "
            "chain.") in nack.error_detail.message
    assert status(proxy) == 200


REFUSED = {
    "type": ({"@type": CORS}, "Error: filter config has type URL envoy.extensions.filters.http.cors.v3.Cors but expect "
                              "envoy.extensions.filters.http.fault.v3.HTTPFault."),
    "unknown type": ({"@type": config.EXT + "filters.http.router.v3.Router"}, "but expect"),
    "value": ({"@type": FAULT, "abort": {"http_status": 20}}, "typed_config.abort.http_status: value must be inside range"),
    "nothing": (None, "typed_config: value is required"),
}


@both
@pytest.mark.parametrize("case", REFUSED)
def test_refused_keeps_the_last_good_one(sluice, ads, kind, case):
    typed_config, text = REFUSED[case]
    ads.set(LISTENER, "1", [listener(discovered())])
    ads.set(EXTENSION, "1", [fault()])
    proxy = sluice(ads_bootstrap(ads, kind))
    nack = push(ads, "2", {"name": "f", **({"typed_config": typed_config} if typed_config else {})})
    assert nack.is_nack and "f: " in nack.error_detail.message and text in nack.error_detail.message
    assert status(proxy) == 418
    assert proxy.stat(PREFIX + "f.update_rejected") == 1 and proxy.stat(PREFIX + "f.config_fail") == 1
    shown = proxy.admin("/config_dump?resource=ecds_filters").json["configs"][0]
    assert text in shown["error_state"]["details"] and shown["version_info"] == "1"
    assert not push(ads, "3", fault(status=419)).is_nack
    becomes(proxy, 419)
    assert "error_state" not in proxy.admin("/config_dump?resource=ecds_filters").json["configs"][0]


def test_good_sibling_of_a_bad_one_applies(sluice, ads):
    ads.set(LISTENER, "1", [listener(discovered(), discovered("g"))])
    ads.set(EXTENSION, "1", [{"name": "f", "typed_config": {"@type": CORS}}, fault("g", 430)])
    proxy = sluice(ads_bootstrap(ads))
    assert status(proxy) == 500
    assert proxy.stat(PREFIX + "g.config_reload") == 1 and proxy.stat(PREFIX + "f.config_reload") == 0
    push(ads, "2", {"name": "f", "typed_config": {"@type": FAULT}}, fault("g", 430))
    becomes(proxy, 430)


LISTENER_ERRORS = {
    "no default": (dict(apply_default_config_without_warming=True),
                   "Error: filter config f applied without warming but has no default config."),
    "unknown type": (dict(type_urls=[config.TYPE + "nope.Nope"]),
                     "Error: no factory found for a required type URL nope.Nope."),
    "type of another kind": (dict(type_urls=[TCP_PROXY]), "Error: no factory found for a required type URL"),
    "no type": (dict(type_urls=[]), "config_discovery.type_urls: value must contain at least 1 item(s)"),
    "no source": (dict(config_source=None), "config_source"),
    "default of another type": (dict(default_config={"@type": CORS}), "Error: filter config has type URL"),
    "bad default": (dict(default_config={"@type": FAULT, "abort": {"http_status": 20}}), "default_config.abort.http_status"),
    "terminal default": (dict(default_config={"@type": ROUTER}, type_urls=[ROUTER]),
                         "Error: terminal filter named f of type envoy.filters.http.router must be the last filter in a "
                         "http filter chain."),
}


@pytest.mark.parametrize("case", LISTENER_ERRORS)
def test_refused_listener(sluice, ads, case):
    fields, text = LISTENER_ERRORS[case]
    ads.set(LISTENER, "1", [listener()])
    proxy = sluice(ads_bootstrap(ads))
    bad = discovered()
    bad["config_discovery"].update(fields)
    bad["config_discovery"] = {k: v for k, v in bad["config_discovery"].items() if v is not None}
    nack = push_listeners(ads, "2", listener(bad))
    assert nack.is_nack and text in nack.error_detail.message
    assert "filter_chains[0].filters[0].typed_config.http_filters[0].config_discovery" in nack.error_detail.message
    assert status(proxy) == 200 and not ads.of(EXTENSION)


@both
def test_default_until_it_comes_and_after_it_went(sluice, ads, kind):
    default = {"@type": FAULT, "abort": {"http_status": 430, "percentage": {"numerator": 100}}}
    ads.set(LISTENER, "1", [listener(discovered(default_config=default, apply_default_config_without_warming=True))])
    proxy = sluice(ads_bootstrap(ads, kind))
    assert status(proxy) == 430
    push(ads, "1", fault())
    becomes(proxy, 418)
    ads.set(EXTENSION, "2", [])
    if kind == "DELTA_GRPC":
        becomes(proxy, 430)
    else:  # an empty response says nothing in SotW
        push(ads, "3", fault(status=419))
        becomes(proxy, 419)


def test_removed_without_default_is_500(sluice, ads):
    ads.set(LISTENER, "1", [listener(discovered())])
    ads.set(EXTENSION, "1", [fault()])
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"))
    assert status(proxy) == 418
    ads.set(EXTENSION, "2", [])
    becomes(proxy, 500)
    assert proxy.stat(PREFIX + "f.config_reload") == 2
    push(ads, "3", fault(status=419))
    becomes(proxy, 419)


def test_default_waits_with_the_listener(sluice, ads):
    default = {"@type": FAULT, "abort": {"http_status": 430, "percentage": {"numerator": 100}}}
    ads.set(LISTENER, "1", [listener(discovered(timeout="0.1s", default_config=default))])
    proxy = sluice(ads_bootstrap(ads))
    assert status(proxy) == 430 and proxy.stat(PREFIX + "f.init_fetch_timeout") == 1


def test_shared_by_chains_and_listeners(sluice, ads):
    """One subscription; places with equal settings share what is compiled (config_reload counts updates, not places)."""
    ads.set(LISTENER, "1", [listener(discovered(), name="a"), listener(discovered(), name="b"),
                            listener(discovered("f", CORS, timeout="0.1s"), name="c")])
    ads.set(EXTENSION, "1", [fault()])
    ads.hold(EXTENSION)
    proxy = sluice(ads_bootstrap(ads), ready=False)
    ads.wait(lambda r: r.type_url == EXTENSION)
    ads.release(EXTENSION)
    nack = ads.wait_nack(EXTENSION)  # one of those who want it can not take it
    assert nack.names == ["f"] and "but expect envoy.extensions.filters.http.cors.v3.Cors." in nack.error_detail.message
    push_listeners(ads, "2", listener(discovered(), name="a"), listener(discovered(), name="b"))
    push(ads, "2", fault(status=419))
    becomes(proxy, 419, "a")
    becomes(proxy, 419, "b")


def test_conflict_with_a_later_listener(sluice, ads):
    ads.set(LISTENER, "1", [listener(discovered(), name="a")])
    ads.set(EXTENSION, "1", [fault()])
    proxy = sluice(ads_bootstrap(ads))
    assert not push_listeners(ads, "2", listener(discovered(), name="a"), listener(discovered("f", CORS), name="b")).is_nack
    proxy.wait_stat(PREFIX + "f.config_conflict", 1)
    wait_until(lambda: "b" in proxy.listeners(), "listener b")
    assert status(proxy, "a") == 418 and status(proxy, "b") == 500


def test_unsubscribes_with_the_last_listener(sluice, ads):
    ads.set(LISTENER, "1", [listener(discovered(), name="a"), listener(discovered(), name="b")])
    ads.set(EXTENSION, "1", [fault()])
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"))
    push_listeners(ads, "2", listener(discovered(), name="a"))
    proxy.wait_stat("listener_manager.total_listeners_active", 1)
    push_listeners(ads, "3", listener(name="a"))
    ads.wait(lambda r: r.type_url == EXTENSION and list(r.resource_names_unsubscribe) == ["f"])
    becomes(proxy, 200, "a")
    assert sum(bool(r.resource_names_unsubscribe) for r in ads.of(EXTENSION)) == 1
    push_listeners(ads, "4", listener(discovered(), name="a"))
    becomes(proxy, 418, "a")


def test_draining_connection_keeps_its_filter(sluice, ads):
    ads.set(LISTENER, "1", [listener(discovered())])
    ads.set(EXTENSION, "1", [fault()])
    proxy = sluice(ads_bootstrap(ads), args=["--drain-time-s", "60", "--drain-strategy", "gradual"])
    with Client(proxy.port("main")) as client:
        assert client.request("GET", "/").status == 418
        push_listeners(ads, "2", listener())
        becomes(proxy, 200)
        assert client.request("GET", "/").status == 418


def test_upgrade_chain_and_route_overrides(sluice, ads):
    """A route's own configuration is found by the filter's name, as for one that is written in place."""
    override = {"typed_per_filter_config": {"f": {"@type": FAULT, "abort": {"http_status": 433,
                                                                            "percentage": {"numerator": 100}}}}}
    manager = config.hcm([{**config.direct("/own", 200), **override}, config.direct("/", 200)], filters=[discovered()])
    ads.set(LISTENER, "1", [config.listener(manager)])
    ads.set(EXTENSION, "1", [fault()])
    proxy = sluice(ads_bootstrap(ads))
    assert fetch(proxy.port(), "/own").status == 433 and fetch(proxy.port(), "/").status == 418


# ---- sources ----

@both
def test_own_stream(sluice, ads, kind):
    ads.set(EXTENSION, "1", [fault()])
    source = {"api_config_source": api_source(kind), "resource_api_version": "V3"}
    proxy = sluice(config.bootstrap([listener(discovered(source=source))], [xds_cluster(ads)]))
    assert status(proxy) == 418
    stream = ads.of(EXTENSION)[0].stream
    assert stream.method == ("Delta" if kind == "DELTA_GRPC" else "Stream") + "ExtensionConfigs"
    push(ads, "2", fault(status=419))
    becomes(proxy, 419)


def write_file(path, *resources):
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"resources": [{"@type": EXTENSION, **r} for r in resources]}))
    os.rename(new, path)


def test_file(sluice, tmp_path):
    path = tmp_path / "ecds.json"
    write_file(path, fault())
    source = {"path_config_source": {"path": str(path)}, "resource_api_version": "V3"}
    proxy = sluice(config.bootstrap([listener(discovered(source=source))]))
    assert status(proxy) == 418
    write_file(path, fault(status=419))
    becomes(proxy, 419)
    write_file(path, {"name": "f", "typed_config": {"@type": CORS}})
    proxy.wait_stat(PREFIX + "f.update_rejected", 1)
    assert status(proxy) == 419


# ---- network filters ----

def closed_at_once(port, seconds=5):
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        try:
            return s.recv(1) == b""
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True


def test_network_filter(sluice, ads, upstreams, upstream):
    """From nothing to a TCP proxy to a connection manager; old connections go on with what they began on."""
    other = upstreams()
    ads.set(CLUSTER, "1", [config.cluster("up", upstream.port), config.cluster("other", other.port)])
    ads.set(LISTENER, "1", [config.listener(discovered("n", TCP_PROXY, HCM, timeout="0.1s"))])
    proxy = sluice(ads_bootstrap(ads))
    assert closed_at_once(proxy.port())
    prefix = "listener.127.0.0.1_0."
    assert proxy.stat(prefix + "network_extension_config_missing") == 1 and proxy.stat(prefix + "downstream_cx_total") == 0
    nack = push(ads, "0", {"name": "n", "typed_config": {"@type": FAULT}})
    assert "but expect envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, envoy" in nack.error_detail.message
    assert not push(ads, "1", {"name": "n", "typed_config": config.tcp_proxy("up")["typed_config"]}).is_nack
    wait_until(lambda: not closed_at_once_on_request(proxy), "the TCP proxy")
    with Client(proxy.port()) as client:
        assert client.request("GET", "/").status == 200
        before = len(upstream.requests)
        push(ads, "2", {"name": "n", "typed_config": config.hcm([config.direct("/", 201)])["typed_config"]})
        wait_until(lambda: fetch(proxy.port(), "/").status == 201, "the connection manager")
        assert client.request("GET", "/").status == 200 and len(upstream.requests) > before
    assert proxy.stat("listener_manager.listener_modified") == 0


def closed_at_once_on_request(proxy):
    with contextlib.suppress(Exception):
        return fetch(proxy.port(), "/").status != 200
    return True


def test_network_filter_with_rds(sluice, ads):
    manager = config.hcm()
    del manager["typed_config"]["route_config"]
    manager["typed_config"]["rds"] = {"route_config_name": "r", "config_source": ADS}
    ads.set(LISTENER, "1", [config.listener(discovered("n", HCM))])
    ads.set(EXTENSION, "1", [{"name": "n", "typed_config": manager["typed_config"]}])
    ads.set(ROUTE, "1", [{"name": "r", "virtual_hosts": [config.vhost([config.direct("/", 202)])]}])
    proxy = sluice(ads_bootstrap(ads))
    wait_until(lambda: fetch(proxy.port(), "/").status == 202, "the route")
    manager["typed_config"]["stat_prefix"] = "again"
    push(ads, "2", {"name": "n", "typed_config": manager["typed_config"]})
    proxy.wait_stat("http.again.downstream_rq_total", lambda n: fetch(proxy.port(), "/").status == 202 and n)


def test_network_filter_in_front(sluice, ads, upstream):
    """Only a filter that is not terminal fits there, and none is built in that is not: the listener says so."""
    ads.set(CLUSTER, "1", [config.cluster("up", upstream.port)])
    ads.set(LISTENER, "1", [config.listener(discovered("n", TCP_PROXY, timeout="0s"), config.tcp_proxy("up"))])
    ads.set(EXTENSION, "1", [{"name": "n", "typed_config": config.tcp_proxy("up")["typed_config"]}])
    proxy = sluice(ads_bootstrap(ads))
    nack = ads.wait_nack(EXTENSION)
    assert "must be the last filter in a network filter chain." in nack.error_detail.message
    assert closed_at_once(proxy.port())


def test_nested_is_refused(sluice, ads):
    manager = config.hcm([config.direct("/", 200)], filters=[discovered("inner")])
    ads.set(LISTENER, "1", [config.listener(discovered("n", HCM, timeout="0.1s"))])
    ads.set(EXTENSION, "1", [{"name": "n", "typed_config": manager["typed_config"]}])
    sluice(ads_bootstrap(ads))
    nack = ads.wait_nack(EXTENSION)
    assert "http_filters[0].config_discovery: a discovered filter can not have discovered filters in it" in (
        nack.error_detail.message)


# ---- listener filters ----

def test_listener_filter(sluice, ads):
    chains = [config.chain(config.hcm([config.direct("/", 200)]), filter_chain_match={"transport_protocol": "raw_buffer"})]
    fields = dict(chains=chains, listener_filters=[discovered("l", TLS_INSPECTOR, timeout="0.1s")])
    ads.set(LISTENER, "1", [config.listener(**fields)])
    proxy = sluice(ads_bootstrap(ads))
    assert closed_at_once(proxy.port())
    assert proxy.stat("listener.127.0.0.1_0.extension_config_missing") == 1
    prefix = "extension_config_discovery.tcp_listener_filter.l."
    assert proxy.stat(prefix + "init_fetch_timeout") == 1
    assert not push(ads, "1", {"name": "l", "typed_config": {"@type": TLS_INSPECTOR}}).is_nack
    wait_until(lambda: not closed_at_once_on_request(proxy), "the listener filter")
    assert proxy.stat("tls_inspector.tls_not_found") >= 1 and proxy.stat(prefix + "config_reload") == 1


def test_listener_filter_changes_under_a_waiting_socket(sluice, ads):
    """A socket that a filter still looks at goes on with the configuration it began with."""
    ads.set(LISTENER, "1", [config.listener(config.hcm([config.direct("/", 200)]),
                                            listener_filters=[discovered("l", TLS_INSPECTOR)])])
    ads.set(EXTENSION, "1", [{"name": "l", "typed_config": {"@type": TLS_INSPECTOR}}])
    proxy = sluice(ads_bootstrap(ads, "DELTA_GRPC"))
    with Client(proxy.port()) as client:
        proxy.wait_stat("listener.127.0.0.1_0.downstream_pre_cx_active", 1)
        push(ads, "2", {"name": "l", "typed_config": {"@type": TLS_INSPECTOR, "enable_ja3_fingerprinting": True}})
        ads.set(EXTENSION, "3", [])
        wait_until(lambda: closed_at_once(proxy.port(), 0.2), "removal")
        assert client.request("GET", "/").status == 200


@both
def test_static_listener_asks_the_aggregated_stream(sluice, ads, kind):
    """What static resources refer to is asked for, though the stream is opened after them."""
    ads.set(LISTENER, "1", [])
    ads.set(EXTENSION, "1", [fault()])
    bootstrap = ads_bootstrap(ads, kind)
    bootstrap["static_resources"]["listeners"] = [listener(discovered(timeout="0s"))]
    assert status(sluice(bootstrap)) == 418
