"""/config_dump tells of each type what was refused and why, until a good update comes. Envoy fills error_state of listeners only,
so what is expected of it is told by differences.yaml."""
import pytest

from support import config
from support.ads_server import (CLUSTER, ENDPOINTS, EXTENSION, LISTENER, ROUTE, SECRET, AdsServer)
from support.process import wait_until
from support.xds_config import ADS, ads_bootstrap, assignment, eds_cluster, rds_listener, routes

SDS = {"common_tls_context": {"validation_context_sds_secret_config": {"name": "s", "sds_config": ADS}}}
FAULT = "envoy.extensions.filters.http.fault.v3.HTTPFault"


def main_listener(**fields):
    made = rds_listener(**fields)
    filters = made["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    filters.insert(0, {"name": "f", "config_discovery": {"config_source": ADS, "type_urls": [config.TYPE + FAULT]}})
    return made


def secret(text):
    return {"name": "s", "validation_context": {"trusted_ca": {"filename": text}}}


def fault(status):
    return {"name": "f", **{k: v for k, v in config.typed("f", FAULT, abort={
        "http_status": status, "percentage": {"numerator": 0}}).items() if k == "typed_config"}}


def tls_cluster(timeout="5s"):
    return eds_cluster("up", transport_socket=config.tls_socket("Upstream", **SDS), connect_timeout=timeout)


# type: list of /config_dump, key of the configuration, the refused field, a good and a bad version
def cases(certificate):
    return {
        "cluster": (CLUSTER, "dynamic_active_clusters", "cluster", "connect_timeout", tls_cluster("4s"), tls_cluster("-1s")),
        "endpoints": (ENDPOINTS, "dynamic_endpoint_configs", "endpoint_config", "priority", assignment("up", 1002),
                      {"cluster_name": "up", "endpoints": [{"priority": 200}]}),
        "listener": (LISTENER, "dynamic_listeners", "listener", "stat_prefix", main_listener(traffic_direction="INBOUND"),
                     config.listener(config.hcm(stat_prefix=""))),
        "route": (ROUTE, "dynamic_route_configs", "route_config", "domains", routes(cluster="other"),
                  {"name": "r", "virtual_hosts": [{"name": "v"}]}),
        "secret": (SECRET, "dynamic_active_secrets", "secret", "validation_context", secret(certificate),
                   {"name": "s", "validation_context": {"trusted_ca": {"inline_string": "nothing"}}}),
        "extension": (EXTENSION, "ecds_filters", "ecds_filter", "http_status", fault(500), fault(20)),
    }


@pytest.mark.parametrize("kind", ["GRPC", "DELTA_GRPC"])
@pytest.mark.parametrize("case", ["cluster", "endpoints", "listener", "route", "secret", "extension"])
def test_of(start_proxy, authority, kind, case):
    ca = str(authority.pair.cert)
    type_url, field, key, path, good, bad = cases(ca)[case]
    with AdsServer() as ads:
        ads.set(CLUSTER, "1", [tls_cluster()])
        ads.set(ENDPOINTS, "1", [assignment("up", 1001)])
        ads.set(SECRET, "1", [secret(ca)])
        ads.set(LISTENER, "1", [main_listener()])
        ads.set(ROUTE, "1", [routes()])
        ads.set(EXTENSION, "1", [fault(400)])
        proxy = start_proxy(ads_bootstrap(ads, kind))

        def row():
            rows = proxy.admin(f"/config_dump?include_eds&resource={field}").json["configs"]
            assert len(rows) == 1
            return rows[0]

        wait_until(lambda: proxy.listeners(), "the listener")
        assert "error_state" not in row()
        ads.set(type_url, "2", [bad])
        assert path in ads.wait_nack(type_url).message.error_detail.message
        state = row()["error_state"]
        assert path in state["details"] and state["version_info"] == "2" and state["last_update_attempt"]
        assert state["failed_configuration"]["@type"] == type_url
        shown = row().get("active_state", row())
        assert shown["version_info"] == "1" and key in shown
        seen = len(ads.requests)
        ads.set(type_url, "3", [good])
        ads.wait_ack(type_url, "3", seen)
        wait_until(lambda: "error_state" not in row(), "the good version")
        proxy.expect_running()
