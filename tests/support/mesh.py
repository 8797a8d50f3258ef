"""Sidecars as istiod configures them: virtualOutbound and virtualInbound, what stands behind them, and Istio's own filters."""

from support.config import (address, bootstrap, chain, endpoint, file_log, hcm, http_options, route, tcp_proxy,
                            tls_certificate, tls_socket, typed, vhost)

STRUCT = "udpa.type.v1.TypedStruct"
PEER_EXCHANGE = "istio-peer-exchange"
HTTP_ALPN = ["istio", PEER_EXCHANGE, "istio-http/1.0", "istio-http/1.1", "istio-h2"]
HTTP_PLAIN = ["http/1.1", "h2c"]
SNIFF_S = 0.3    # protocolDetectionTimeout; istiod's own is longer
WEB_HTTP, WEB_H2, WEB_TLS, DB, GREETER, OTHER = 8080, 9080, 8443, 3306, 8081, 3307
LOG = "%PROTOCOL% %RESPONSE_CODE% local=%DOWNSTREAM_LOCAL_ADDRESS% remote=%DOWNSTREAM_REMOTE_ADDRESS% " \
      "to=%UPSTREAM_HOST% cluster=%UPSTREAM_CLUSTER_RAW% from=%UPSTREAM_LOCAL_ADDRESS% " \
      "sni=%REQUESTED_SERVER_NAME% peer=%DOWNSTREAM_PEER_URI_SAN%\n"


# ---- Istio's filters ----

def inside(name, type_name, **value):
    return typed(name, STRUCT, type_url=f"type.googleapis.com/{type_name}", value=value)


def peer_metadata(**value):
    return inside("istio.metadata_exchange", "io.istio.http.peer_metadata.Config", **value)


def tcp_exchange(**value):
    return inside("istio.metadata_exchange", "envoy.tcp.metadataexchange.config.MetadataExchange", protocol=PEER_EXCHANGE,
                  **value)


def stats(**fields):
    return typed("istio.stats", "stats.PluginConfig", **fields)


def grpc_stats():
    """Counts the messages that istio.stats tells of."""
    return typed("envoy.filters.http.grpc_stats", "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
                 emit_filter_state=True, stats_for_all_methods=False)


def alpn(*names, **others):
    """What HTTP/1.1 upstreams are offered; others by name: HTTP2=[…]."""
    return typed("istio.alpn", "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
                 alpn_override=[{"upstream_protocol": protocol, "alpn_override": list(given)}
                                for protocol, given in {"HTTP11": names, **others}.items()])


# ---- pieces of both sidecars ----

def listener_filter(name, message, **fields):
    return typed(f"envoy.filters.listener.{name}", f"envoy.extensions.filters.listener.{name}.v3.{message}") | fields


def except_ports(*ports):
    """filter_disabled: everywhere else."""
    ranges = [{"destination_port_range": {"start": port, "end": port + 1}} for port in ports]
    return {"filter_disabled": {"not_match": ranges[0] if len(ranges) == 1 else {"or_match": {"rules": ranges}}}}


def both_families(port):
    return {"address": address(port, "0.0.0.0"), "additional_addresses": [{"address": address(port, "::")}]}


def original_dst(name, **fields):
    return {"name": name, "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
            "typed_extension_protocol_options": downstream_protocol(), **fields}


def downstream_protocol():
    return http_options(use_downstream_protocol_config={"http_protocol_options": {}, "http2_protocol_options": {}})


class Sidecars:
    """Configurations of a client's and a server's sidecar; `istio`: with Istio's own filters, which a stock Envoy does not have."""

    def __init__(self, authority, directory, istio=True):
        self.authority, self.directory, self.istio = authority, directory, istio
        self.client_pair = authority.leaf("client", "URI:spiffe://cluster.local/ns/shop/sa/client")
        self.server_pair = authority.leaf("server", "URI:spiffe://cluster.local/ns/shop/sa/server")

    def log(self, name):
        return self.directory / f"{name}.log"

    def logged(self, name):
        return [file_log(self.log(name), LOG)]

    def istios(self, *filters):
        return list(filters) if self.istio else []

    def tcp(self, to, log):
        return [*self.istios(stats(tcp_reporting_duration="0.05s")),
                tcp_proxy(to, stat_prefix=to, access_log=self.logged(log))]

    # ---- outbound ----

    def outbound_http(self, allow_any):
        unknown = route("/", "PassthroughCluster") if allow_any else {
            "match": {"prefix": "/"}, "direct_response": {"status": 502}}
        hosts = [vhost([route("/", f"outbound|{WEB_HTTP}||{name}")], name=name, domains=[name, f"{name}:*"])
                 for name in ("web.shop", "web6.shop", "h2.shop", "legacy.shop")]
        filters = self.istios(
            peer_metadata(upstream_discovery=[{"istio_headers": {}}], upstream_propagation=[{"istio_headers": {}}]),
            alpn("istio-http/1.1", "istio", HTTP2=["istio-h2", "istio"]), grpc_stats(), stats())
        return hcm(vhosts=[*hosts, vhost([unknown], name="unknown")], filters=filters, stat_prefix="outbound",
                   access_log=self.logged("outbound"), use_remote_address=False)

    def outbound_listener(self, at, *chains, **fields):
        return {**at, "filter_chains": list(chains), "bind_to_port": False, "traffic_direction": "OUTBOUND", **fields}

    def sniffed(self, port, allow_any):
        """Of a port where the protocol is not declared."""
        manager = chain(self.outbound_http(allow_any), filter_chain_match={
            "transport_protocol": "raw_buffer", "application_protocols": HTTP_PLAIN})
        return self.outbound_listener(both_families(port), manager, name=f"0.0.0.0_{port}",
                                      default_filter_chain=chain(*self.tcp("PassthroughCluster", "outbound-tcp")),
                                      listener_filters=[listener_filter("http_inspector", "HttpInspector")],
                                      listener_filters_timeout=f"{SNIFF_S}s", continue_on_listener_filters_timeout=True)

    def virtual_outbound(self, allow_any):
        catchall = "PassthroughCluster" if allow_any else "BlackHoleCluster"
        return {"name": "virtualOutbound", **both_families(15001), "use_original_dst": True, "traffic_direction": "OUTBOUND",
                "filter_chains": [
                    chain(*self.tcp("BlackHoleCluster", "outbound-tcp"), filter_chain_match={"destination_port": 15001}),
                    chain(*self.tcp(catchall, "outbound-tcp"), name="virtualOutbound-catchall-tcp")]}

    def mutual(self, sni, *protocols):
        """transport_socket_matches: mutual TLS to endpoints that say so, plain to others."""
        tls = tls_socket("Upstream", sni=sni, common_tls_context={
            "tls_certificates": [tls_certificate(self.client_pair)], "alpn_protocols": list(protocols),
            "validation_context": {
                "trusted_ca": {"filename": str(self.authority.pair.cert)},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {
                    "exact": "spiffe://cluster.local/ns/shop/sa/server"}}]}})
        raw = typed("envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer")
        return [{"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": tls},
                {"name": "tlsMode-disabled", "match": {}, "transport_socket": raw}]

    def service(self, port, name, host, at=None, mutual=True):
        """outbound|PORT||NAME with one endpoint."""
        mode = {"metadata": {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}} if mutual else {}
        cluster = {"name": f"outbound|{port}||{name}", "type": "STATIC", "connect_timeout": "5s",
                   "load_assignment": {"cluster_name": "x", "endpoints": [
                       {"lb_endpoints": [endpoint(at or port, host, **mode)]}]},
                   "transport_socket_matches": self.mutual(f"outbound_.{port}_._.{name}", PEER_EXCHANGE, "istio"),
                   "metadata": {"filter_metadata": {"istio": {"services": [
                       {"host": name, "name": name.split(".")[0], "namespace": "shop"}]}}}}
        if port == WEB_HTTP:
            cluster["typed_extension_protocol_options"] = downstream_protocol()
        return cluster | ({"filters": [tcp_exchange()]} if self.istio else {})

    def client(self, node, allow_any=True):
        by_address = self.outbound_listener({"address": address(DB, "10.96.0.10")},
                                            chain(*self.tcp(f"outbound|{DB}||db.shop", "outbound-tcp")), name=f"10.96.0.10_{DB}")
        by_port = self.outbound_listener(both_families(DB), chain(*self.tcp(f"outbound|{DB}||other.shop", "outbound-tcp")),
                                         name=f"0.0.0.0_{DB}")
        return bootstrap(
            [self.virtual_outbound(allow_any), by_address, by_port, self.sniffed(WEB_HTTP, allow_any),
             self.sniffed(GREETER, allow_any)],
            [self.service(WEB_HTTP, "web.shop", "10.77.0.2"), self.service(WEB_HTTP, "web6.shop", "fd77::2"),
             self.service(WEB_HTTP, "h2.shop", "10.77.0.2", at=WEB_H2),
             self.service(WEB_HTTP, "legacy.shop", "10.77.0.2", mutual=False), self.service(DB, "db.shop", "10.77.0.2"),
             self.service(DB, "other.shop", "10.77.0.2", at=OTHER, mutual=False), original_dst("PassthroughCluster"),
             {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "5s"}], node=node, stats_flush_interval="0.1s")

    # ---- inbound ----

    def terminates(self, *protocols):
        return tls_socket("Downstream", require_client_certificate=True, common_tls_context={
            "tls_certificates": [tls_certificate(self.server_pair)], "alpn_protocols": list(protocols),
            "validation_context": {"trusted_ca": {"filename": str(self.authority.pair.cert)},
                                   "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {
                                       "prefix": "spiffe://cluster.local/"}}]}})

    def inbound_http(self, to):
        filters = self.istios(
            peer_metadata(downstream_discovery=[{"istio_headers": {}}], downstream_propagation=[{"istio_headers": {}}]),
            grpc_stats(), stats(disable_host_header_fallback=True))
        return [*self.istios(tcp_exchange()),
                hcm([route("/", to)], filters=filters, stat_prefix="inbound", access_log=self.logged("inbound"),
                    use_remote_address=False, forward_client_cert_details="APPEND_FORWARD",
                    set_current_client_cert_details={"subject": True, "dns": True, "uri": True})]

    def inbound_tcp(self, to):
        return [*self.istios(tcp_exchange()), *self.tcp(to, "inbound-tcp")]

    def inbound_chains(self):
        def on(port, transport, *protocols):
            match = {"destination_port": port} if port else {}
            more = {"application_protocols": list(protocols)} if protocols else {}
            return {"filter_chain_match": {**match, "transport_protocol": transport, **more}}

        peers = {"transport_socket": self.terminates("h2", "http/1.1")}
        tcp_peers = {"transport_socket": self.terminates(PEER_EXCHANGE, "h2", "http/1.1")}
        db, rest = f"inbound|{DB}||", "InboundPassthroughCluster"
        web = [(f"inbound|{port}||", port) for port in (WEB_HTTP, WEB_H2)]
        return [chain(*self.tcp("BlackHoleCluster", "inbound-tcp"), filter_chain_match={"destination_port": 15006}),
                *[chain(*self.inbound_http(to), **peers, **on(port, "tls", *HTTP_ALPN)) for to, port in web],
                *[chain(*self.inbound_http(to), **on(port, "raw_buffer")) for to, port in web],
                chain(*self.inbound_tcp(db), **tcp_peers, **on(DB, "tls", "istio", PEER_EXCHANGE)),
                chain(*self.inbound_tcp(db), **on(DB, "raw_buffer")),
                chain(*self.inbound_http(rest), **on(None, "raw_buffer", *HTTP_PLAIN)),
                chain(*self.inbound_tcp(rest), **on(None, "tls")),
                chain(*self.inbound_tcp(rest), **on(None, "raw_buffer"))]

    def server(self, node, tproxy=False):
        inspectors = [listener_filter("original_dst", "OriginalDst"), listener_filter("tls_inspector", "TlsInspector"),
                      listener_filter("http_inspector", "HttpInspector", **except_ports(WEB_TLS, GREETER))]
        if tproxy:
            inspectors.insert(1, typed("envoy.filters.listener.original_src",
                                       "envoy.extensions.filters.listener.original_src.v3.OriginalSrc", mark=1337))
        inbound = {"name": "virtualInbound", **both_families(15006), "traffic_direction": "INBOUND",
                   "filter_chains": self.inbound_chains(), "listener_filters": inspectors,
                   "listener_filters_timeout": f"{SNIFF_S}s", "continue_on_listener_filters_timeout": True,
                   **({"transparent": True} if tproxy else {})}
        source = {"upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}, "extra_source_addresses": [
            {"address": {"address": "::6", "port_value": 0}}]}}
        metadata = {"metadata": {"filter_metadata": {"istio": {"services": [
            {"host": "web.shop", "name": "web", "namespace": "shop"}]}}}}
        return bootstrap([inbound], [original_dst(f"inbound|{port}||", **source, **metadata) for port in (WEB_HTTP, WEB_H2, DB)] + [
            original_dst("InboundPassthroughCluster", **source),
            {"name": "BlackHoleCluster", "type": "STATIC", "connect_timeout": "5s"}], node=node, stats_flush_interval="0.1s")
