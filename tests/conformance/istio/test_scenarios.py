"""The real istiod and pilot-agent against sluice: the scenarios of ../shared/istio with Istio's own filters on, by each way of
getting configuration. ISTIO_BIN names the folder with pilot-discovery, pilot-agent and istioctl; without it or ../shared nothing
runs. The scenarios' ports are fixed: only one run at a time on a machine."""

import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
RUN = ROOT.parent / "shared" / "istio" / "run.sh"
# as go install of this module made the programs: the agent's bootstrap template lies in it
MODULE = "istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad"
TEMPLATE = "tools/packaging/common/envoy_bootstrap.json"
SECONDS = 900

pytestmark = [
    pytest.mark.skipif(not RUN.exists(), reason="../shared/istio/run.sh is not there"),
    pytest.mark.skipif(not os.environ.get("ISTIO_BIN"), reason="ISTIO_BIN is not set"),
    pytest.mark.timeout(SECONDS),
]


def template():
    given = os.environ.get("BOOTSTRAP_TMPL")
    if given:
        return given
    cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
    return str(pathlib.Path(cache) / MODULE / TEMPLATE)


@pytest.mark.parametrize("profile", ["istio", "vanilla"])
@pytest.mark.parametrize("mode", ["agent", "sotw", "delta"])
@pytest.mark.parametrize("scenario", ["a-seed", "b-traffic", "d-sidecar"])
def test_scenario(tmp_path, scenario, mode, profile):
    env = {**os.environ, "DATAPLANE": os.environ.get("DATAPLANE", str(ROOT / "build" / "sluice")), "MODE": mode,
           "PROFILE": profile, "WORK": str(tmp_path), "BOOTSTRAP_TMPL": template()}
    done = subprocess.run([str(RUN), scenario], env=env, capture_output=True, text=True, timeout=SECONDS, check=False)
    said = [line for line in done.stdout.splitlines() if not line.startswith("PASS")]
    passed = re.search(r"^(\d+) passed, 0 failed$", done.stdout, re.M)
    assert passed and int(passed[1]) > 0 and done.returncode == 0, "\n".join(said[-40:]) + done.stderr[-2000:]
