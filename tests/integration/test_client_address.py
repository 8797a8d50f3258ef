"""Who the client is by original_ip_detection_extensions, and what early_header_mutation_extensions change before that."""

import json
import subprocess

import pytest

from support.config import TYPE, bootstrap, direct, hcm, listener
from support.proxy import Sluice
from support.rawhttp import fetch

DETECTION = f"{TYPE}envoy.extensions.http.original_ip_detection."
SHOWN = {"x-address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "x-list": "%REQ(x-forwarded-for)%", "x-internal": "%REQ(x-envoy-internal)%"}


def xff(**fields):
    return {"name": "xff", "typed_config": {"@type": f"{DETECTION}xff.v3.XffConfig", **fields}}


def header(**fields):
    return {"name": "header", "typed_config": {"@type": f"{DETECTION}custom_header.v3.CustomHeaderConfig", "header_name": "X-Client", **fields}}


def networks(*addresses, field="cidrs"):
    return {field: [{"address_prefix": a, "prefix_len": 8} for a in addresses]}


def early(*mutations):
    return [{"name": "early", "typed_config": {"@type": f"{TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                                               "mutations": list(mutations)}}]


def start(sluice, **fields):
    show = [{"header": {"key": k, "value": v}} for k, v in SHOWN.items()]
    return sluice(bootstrap([listener(hcm([direct("/", 200)], route_fields={"response_headers_to_add": show},
                                          internal_address_config=networks("10.0.0.0", field="cidr_ranges"), **fields))]))


def told(proxy, *headers):
    answer = fetch(proxy.port(), headers=headers)
    return answer.status, [answer.get(name) for name in SHOWN]


@pytest.mark.parametrize("extension,sent,address,is_internal", [
    (xff(xff_num_trusted_hops=1), ("x-forwarded-for", "1.1.1.1, 2.2.2.2"), "1.1.1.1", False),
    (xff(xff_num_trusted_hops=1), ("x-forwarded-for", "1.1.1.1"), "127.0.0.1", False),
    (xff(xff_trusted_cidrs=networks("127.0.0.0", "10.0.0.0")), ("x-forwarded-for", "1.1.1.1,2.2.2.2,10.0.0.1"), "2.2.2.2", False),
    (xff(xff_trusted_cidrs=networks("127.0.0.0", "10.0.0.0")), ("x-forwarded-for", "10.0.0.9"), "10.0.0.9", True),
    (xff(xff_trusted_cidrs=networks("127.0.0.0", "10.0.0.0")), ("x-forwarded-for", "1.1.1.1,me,10.0.0.1"), "127.0.0.1", False),
    (xff(xff_trusted_cidrs=networks("10.0.0.0"), skip_xff_append=True), ("x-forwarded-for", "1.1.1.1"), "127.0.0.1", False),
    (header(), ("x-client", "10.0.0.2"), "10.0.0.2", False),
    (header(allow_extension_to_set_address_as_trusted=True), ("x-client", "10.0.0.2"), "10.0.0.2", True),
    (header(), ("x-client", "me"), "127.0.0.1", False),
])
def test_detection(sluice, extension, sent, address, is_internal):
    proxy = start(sluice, original_ip_detection_extensions=[extension])
    status, (found, _, internal) = told(proxy, sent)
    assert (status, found, internal) == (200, address, "true" if is_internal else None)


def test_clients_nobody_tells_are_refused(sluice):
    proxy = start(sluice, original_ip_detection_extensions=[xff(), header(reject_with_status={"code": 401})])
    assert told(proxy)[0] == 401
    assert told(proxy, ("x-client", "5.5.5.5"))[1][0] == "5.5.5.5"
    assert told(proxy, ("x-client", "5.5.5.5"), ("x-forwarded-for", "1.1.1.1"))[1][0] == "1.1.1.1"


def test_the_list_is_appended_to(sluice):
    proxy = start(sluice, original_ip_detection_extensions=[xff(skip_xff_append=False)])
    _, (address, listed, _) = told(proxy, ("x-forwarded-for", "1.1.1.1"))
    assert address == "1.1.1.1" and listed.startswith("1.1.1.1,")


def test_early_mutations_come_first(sluice):
    mutation = {"append": {"header": {"key": "x-client", "value": "%REQ(x-real-ip)%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    proxy = start(sluice, early_header_mutation_extensions=early(mutation, {"remove": "x-forwarded-for"}),
                  original_ip_detection_extensions=[header()])
    assert told(proxy, ("x-real-ip", "6.6.6.6"), ("x-forwarded-for", "1.1.1.1"))[1][:2] == ["6.6.6.6", None]


@pytest.mark.parametrize("fields,reason", [
    ({"original_ip_detection_extensions": [xff()], "use_remote_address": True}, "use_remote_address may not be mixed"),
    ({"original_ip_detection_extensions": [xff(xff_trusted_cidrs=networks("x"))]},
     "original_ip_detection_extensions[0].typed_config.xff_trusted_cidrs.cidrs[0]: invalid ip/mask combo 'x/8'"),
    ({"early_header_mutation_extensions": early({"append": {"header": {"key": ":path", "value": "/"}}})},
     "early_header_mutation_extensions"),
])
def test_refused(tmp_path, fields, reason):
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap([listener(hcm([direct("/", 200)], **fields))])))
    done = subprocess.run([Sluice.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and reason in done.stderr


@pytest.mark.parametrize("sent", ["", "me"])
def test_a_list_without_an_address_is_not_trusted(sluice, sent):
    proxy = sluice(bootstrap([listener(hcm([direct("/", 200)], route_fields={"response_headers_to_add": [
        {"header": {"key": "x-internal", "value": "%REQ(x-envoy-internal)%"}}]}, internal_address_config=networks("127.0.0.0", field="cidr_ranges")))]))
    assert fetch(proxy.port(), headers=[("x-forwarded-for", sent)]).get("x-internal") is None
