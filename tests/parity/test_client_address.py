"""Who the client is, beside Envoy: original_ip_detection_extensions (x-forwarded-for by hops and by trusted networks, a header of one's own),
with what follows from it (internal or not, x-forwarded-for to the upstream) and early_header_mutation_extensions, which come before it."""

import json
import subprocess

import pytest

from support.config import TYPE, bootstrap, direct, file_log, hcm, listener
from support.proxy import Envoy, Sluice
from support.rawhttp import Client

DETECTION = f"{TYPE}envoy.extensions.http.original_ip_detection."
MUTATION = f"{TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"


def xff(**fields):
    return {"name": "envoy.http.original_ip_detection.xff", "typed_config": {"@type": f"{DETECTION}xff.v3.XffConfig", **fields}}


def header(**fields):
    return {"name": "envoy.http.original_ip_detection.custom_header",
            "typed_config": {"@type": f"{DETECTION}custom_header.v3.CustomHeaderConfig", "header_name": "x-client", **fields}}


def cidrs(*ranges):
    split = [r.split("/") for r in ranges]
    return {"cidrs": [{"address_prefix": a, "prefix_len": int(n)} for a, n in split]}


def early(*mutations):
    return {"name": "early", "typed_config": {"@type": MUTATION, "mutations": list(mutations)}}


def append(key, value, action="OVERWRITE_IF_EXISTS_OR_ADD"):
    return {"append": {"header": {"key": key, "value": value}, "append_action": action}}


LOCAL, OTHER = cidrs("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"), cidrs("10.0.0.0/8")
DETECTIONS = {
    "none": [],
    **{f"hops-{n}": [xff(xff_num_trusted_hops=n)] for n in (0, 1, 2)},
    "hops-append": [xff(xff_num_trusted_hops=1, skip_xff_append=False)],
    "hops-no-append": [xff(xff_num_trusted_hops=1, skip_xff_append=True)],
    "append": [xff(skip_xff_append=False)],
    "trusted": [xff(xff_trusted_cidrs=LOCAL)],
    "trusted-append": [xff(xff_trusted_cidrs=LOCAL, skip_xff_append=False)],
    "stranger": [xff(xff_trusted_cidrs=OTHER)],
    "stranger-append": [xff(xff_trusted_cidrs=OTHER, skip_xff_append=False)],
    "stranger-no-append": [xff(xff_trusted_cidrs=OTHER, skip_xff_append=True)],
    "nobody": [xff(xff_trusted_cidrs={})],
    "header": [header()],
    "header-trusted": [header(allow_extension_to_set_address_as_trusted=True)],
    **{f"reject-{code}": [header(reject_with_status={"code": code})] for code in (200, 302, 400, 503, 511)},
    "reject-later": [xff(), header(reject_with_status={"code": 401})],
    "header-then-xff": [header(), xff(xff_num_trusted_hops=1)],
    "xff-then-header": [xff(xff_num_trusted_hops=1), header(allow_extension_to_set_address_as_trusted=True)],
    "append-twice": [xff(xff_num_trusted_hops=5, skip_xff_append=False), xff(skip_xff_append=False)],
}
MUTATIONS = {
    "add": [early(append("x-forwarded-for", "9.9.9.9"))],
    "add-client": [early(append("x-client", "8.8.8.8", "ADD_IF_ABSENT"))],
    "remove": [early({"remove": "x-forwarded-for"}, {"remove": "x-client"})],
    "several": [early(append("x-a", "1", "APPEND_IF_EXISTS_OR_ADD")), early(append("x-a", "2", "APPEND_IF_EXISTS_OR_ADD"))],
    "format": [early(append("x-a", "%REQ(:METHOD)%-%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%-%PROTOCOL%-%REQ(x-client)%"))],
    "hop-by-hop": [early(append("te", "gzip"), append("keep-alive", "1"))],
    "internal": [early(append("x-envoy-internal", "true"), append("x-envoy-retry-on", "5xx"))],
    "match": [early({"remove_on_match": {"key_matcher": {"prefix": "x-c"}}})],
    "path": [early(append("x-envoy-original-path", "/p"), append("x-request-id", "mine"))],
}
XFF = {"nothing": [], "one": ["1.1.1.1"], "inner": ["10.0.0.9"], "two": ["1.1.1.1, 10.0.0.2"], "three": ["1.1.1.1,10.0.0.2,10.0.0.3"],
       "all-trusted": ["10.0.0.1,10.0.0.2"], "outer-last": ["10.0.0.1,2.2.2.2"], "broken": ["bad"], "broken-between": ["1.1.1.1,bad,10.0.0.1"],
       "empty": [""], "comma": [","], "ends-with-comma": ["1.1.1.1,"], "v6": ["2001:db8::1"], "v6-trusted": ["2001:db8::1,fd00::2"],
       "port": ["1.1.1.1:80"], "lines": ["1.1.1.1", "10.0.0.2"], "spaces": ["  1.1.1.1 , 10.0.0.7  "], "mapped": ["::ffff:1.2.3.4"]}
CLIENTS = {"nothing": [], "good": ["5.5.5.5"], "inner": ["10.1.1.1"], "v6": ["2001:db8::5"], "bad": ["me"], "empty": [""], "two": ["5.5.5.5", "6.6.6.6"],
           "list": ["5.5.5.5, 6.6.6.6"], "port": ["5.5.5.5:1"], "spaces": [" 5.5.5.5 "]}
SHOWN = ["x-forwarded-for", "x-envoy-internal", "x-envoy-external-address", "x-forwarded-proto", "x-client", "x-a", "te", "x-envoy-retry-on",
         "x-envoy-original-path", "keep-alive"]
LOG = " ".join(["%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%", "%RESPONSE_CODE%",
                "%RESPONSE_CODE_DETAILS%", "%RESPONSE_FLAGS%", *(f"[%REQ({name})%]" for name in SHOWN)]) + "\n"
SETTINGS = {**{name: {"original_ip_detection_extensions": d} for name, d in DETECTIONS.items()},
            **{name: {"early_header_mutation_extensions": m} for name, m in MUTATIONS.items()},
            **{f"{name}-first": {"early_header_mutation_extensions": m, "original_ip_detection_extensions": DETECTIONS["header-then-xff"]}
               for name, m in MUTATIONS.items()},
            "append-not-manager": {"skip_xff_append": True, "original_ip_detection_extensions": DETECTIONS["hops-append"]},
            "manager-append": {"skip_xff_append": False, "original_ip_detection_extensions": DETECTIONS["hops-1"]},
            **{f"remote-{n}": {"use_remote_address": True, "xff_num_trusted_hops": n} for n in (0, 1, 2)},
            **{f"plain-{n}": {"xff_num_trusted_hops": n} for n in (1, 2)},
            **{f"{name}-remote": {"early_header_mutation_extensions": m, "use_remote_address": True} for name, m in MUTATIONS.items()}}


@pytest.fixture(scope="module")
def sides(shared_sluice, shared_envoy, tmp_path_factory):
    def start(kind):
        logs = tmp_path_factory.mktemp("logs")
        internal = {"cidr_ranges": cidrs("10.0.0.0/8", "127.0.0.0/8")["cidrs"]}
        return kind(bootstrap([listener(hcm([direct("/", 200)], access_log=[file_log(logs / name, LOG)], internal_address_config=internal, **fields),
                                        name=name) for name, fields in SETTINGS.items()]), concurrency=1), logs
    return [start(kind) for kind in (shared_envoy, shared_sluice)]


@pytest.mark.parametrize("name", SETTINGS)
def test_clients(sides, name):
    requests = [(x, c) for x in XFF for c in CLIENTS if x in ("nothing", "two") or c in ("nothing", "good")]

    def outcome(side):
        proxy, logs = side
        answers = []
        for x, c in requests:
            with Client(proxy.port(name)) as client:
                sent = [("x-forwarded-for", v) for v in XFF[x]] + [("x-client", v) for v in CLIENTS[c]]
                answer = client.request("GET", "/", sent)
                answers.append((answer.status, answer.body))
        return dict(zip(requests, zip(answers, proxy.log_lines(logs / name, len(requests)))))

    envoy, sluice = (outcome(side) for side in sides)
    assert sluice == envoy


REFUSED = {
    "with-remote-address": {"use_remote_address": True, "original_ip_detection_extensions": [xff()]},
    "with-hops": {"xff_num_trusted_hops": 1, "original_ip_detection_extensions": [xff()]},
    "hops-and-cidrs": {"original_ip_detection_extensions": [xff(xff_num_trusted_hops=1, xff_trusted_cidrs=LOCAL)]},
    "no-name": {"original_ip_detection_extensions": [header(header_name="")]},
    "bad-name": {"original_ip_detection_extensions": [header(header_name="a\nb")]},
    "unknown": {"original_ip_detection_extensions": [{"name": "x", "typed_config": {"@type": MUTATION}}]},
    "bad-status": {"original_ip_detection_extensions": [header(reject_with_status={"code": 9})]},
    "no-mutations": {"early_header_mutation_extensions": [early()]},
    "mutation-of-host": {"early_header_mutation_extensions": [early(append("host", "a"))]},
    "mutation-of-path": {"early_header_mutation_extensions": [early(append(":path", "/a"))]},
    "bad-format": {"early_header_mutation_extensions": [early(append("x-a", "%NO_SUCH%"))]},
    "early-unknown": {"early_header_mutation_extensions": [xff()]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(bootstrap([listener(hcm([direct("/", 200)], **REFUSED[name]), name="one")])))
    said = [subprocess.run([kind.binary, "-c", path, "--mode", "validate"], capture_output=True, text=True, timeout=60)
            for kind in (Envoy, Sluice)]
    envoy, sluice = ((p.returncode != 0) for p in said)
    assert sluice == envoy, "\n".join(p.stdout + p.stderr for p in said)
