"""Control planes and resolvers that fail: traffic goes on, the state converges, memory stays flat."""
import time

from support import rawhttp
from support.config import address, bootstrap, cluster, hcm, listener, route
from support.dns_server import DnsServer
from support.process import wait_until

SERVES_WITHIN_S = 1.0


def dns_cluster(name, host, port, dns):
    return {"name": name, "type": "STRICT_DNS", "connect_timeout": "1s", "dns_lookup_family": "V4_ONLY",
            "typed_dns_resolver_config": dns.resolver(), "load_assignment": {"cluster_name": name, "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(port, host)}}]}]}}


# ---- names ----

def test_a_silent_resolver_holds_up_nobody_else(sluice, upstream):
    with DnsServer() as dns, DnsServer(silent={"silent.test"}) as silent:
        clusters = [dns_cluster(f"c{i}", f"c{i}.test", upstream.port, dns) for i in range(499)]
        clusters.append(dns_cluster("silent", "silent.test", upstream.port, silent))
        routes = [route("/silent", cluster="silent"), route("/c498", cluster="c498"), route(cluster="c0")]
        began = time.monotonic()
        proxy = sluice(bootstrap([listener(hcm(routes))], clusters))
        assert rawhttp.fetch(proxy.port()).status == 200
        taken = time.monotonic() - began
        assert taken < SERVES_WITHIN_S * (5 if "san" in proxy.binary else 1), taken
        wait_until(lambda: rawhttp.fetch(proxy.port(), "/c498").status == 200, "the last answer", 20)
        assert rawhttp.fetch(proxy.port(), "/silent").status == 503
        assert "cluster 'silent' goes on without an answer to its DNS name 'silent.test'" in proxy.log()
        # It is asked again, and the cluster fills once there is an answer.
        silent.silent.clear()
        wait_until(lambda: rawhttp.fetch(proxy.port(), "/silent").status == 200, "the late answer", 20)


def test_a_changed_cluster_waits_beside_the_one_that_serves(sluice, upstream, ads_proxy):
    with DnsServer(silent={"new.test"}) as dns:
        ads, proxy = ads_proxy([dns_cluster("up", "old.test", upstream.port, dns)])
        assert rawhttp.fetch(proxy.port()).status == 200
        ads.set_clusters("2", [dns_cluster("up", "new.test", upstream.port, dns)])
        wait_until(lambda: "new.test" in dns.asked, "the new name's question")
        until = time.monotonic() + 0.8
        while time.monotonic() < until:
            assert rawhttp.fetch(proxy.port()).status == 200
        assert "up" in proxy.admin("/init_dump").text
        dns.silent.clear()
        proxy.wait_stat("cluster_manager.warming_clusters", 0, 20)
        assert rawhttp.fetch(proxy.port()).status == 200
