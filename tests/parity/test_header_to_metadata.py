"""header_to_metadata beside Envoy's: what of a request is kept, as the access log tells it."""
import pytest
from support.config import bootstrap, direct, file_log, hcm, listener, typed
from support.rawhttp import fetch

CONFIG = "envoy.extensions.filters.http.header_to_metadata.v3.Config"


def rule(header, key="k", missing=None, remove=False, **present):
    made = {"header": header, "remove": remove}
    if missing:
        made["on_header_missing"] = {"metadata_namespace": "n", "key": key, "value": missing}
    else:
        made["on_header_present"] = {"metadata_namespace": "n", "key": key, **present}
    return made


def rewrite(regex, by):
    return {"regex_value_rewrite": {"pattern": {"regex": regex}, "substitution": by}}


RULES = [rule("x-a", "plain"), rule("X-A", "fixed", value="v"), rule("x-a", "part", **rewrite("^.*b=([^;]+).*$", "<\\1>")),
         rule("x-a", "each", **rewrite("b", "B")), rule("x-a", "nothing", **rewrite(".*", "")), rule("x-n", "number", type="NUMBER"),
         rule("x-a", "missing", missing="none"), rule("x-a", "gone", remove=True), rule("x-a", "after")]
REQUESTS = [[], [("x-a", "")], [("x-a", "a=1;b=2;c")], [("x-a", "1"), ("x-a", "2")], [("x-a", "b" * 8191)], [("x-a", "b" * 8192)],
            [("x-n", "1.5")], [("x-n", "word")], [("x-n", " 7 ")], [("x-n", "1e3")]]


@pytest.fixture(scope="module")
def told(shared_sluice, shared_envoy, tmp_path_factory):
    lines = {}
    for name, start in (("sluice", shared_sluice), ("envoy", shared_envoy)):
        log = tmp_path_factory.mktemp(name) / "log"
        manager = hcm(routes=[direct("/", 200)], filters=[typed("m", CONFIG, request_rules=RULES)],
                      access_log=[file_log(log, "%DYNAMIC_METADATA(n)% %REQ(x-a)%\n")])
        proxy = start(bootstrap([listener(manager)]))
        for headers in REQUESTS:
            assert fetch(proxy.port(), headers=headers).status == 200
        lines[name] = proxy.log_lines(log, len(REQUESTS))
    return lines


@pytest.mark.parametrize("i", range(len(REQUESTS)))
def test_what_is_kept(told, i):
    assert told["sluice"][i] == told["envoy"][i]
