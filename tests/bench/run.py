#!/usr/bin/env python3
"""Holds Sluice's CPU per request, relative to a real Envoy's in the same run, against the budgets in budgets.yaml.

    ENVOY=… SLUICE=build/sluice tests/bench/run.py [--rounds 3] [--seconds 4] [--scenarios h1,tcp]

The measuring is done by the script that BENCH_SCRIPT names (../shared/bench/bench.py unless told); without it there is nothing to do.
Prints a table; ends with 1 when a budget is missed or a scenario was not measured."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import yaml

HERE = pathlib.Path(__file__).resolve().parent
SCRIPT = pathlib.Path(os.environ.get("BENCH_SCRIPT", HERE.parents[2] / "shared/bench/bench.py"))


def measure(options, scenarios):
    """{peer: {scenario: [a round's figures]}}"""
    env = {**os.environ, "DATAPLANE": os.environ.get("SLUICE", str(HERE.parents[1] / "build/sluice"))}
    with tempfile.TemporaryDirectory() as directory:
        found = pathlib.Path(directory) / "found.json"
        subprocess.run([sys.executable, SCRIPT, "--peers", "envoy,sluice", "--scenarios", ",".join(scenarios), "--rounds",
                        str(options.rounds), "--seconds", str(options.seconds), "--json", found], env=env, check=True)
        return json.loads(found.read_text())


def cpu_us(found, peer, scenario):
    """The median of all rounds; None when there is none."""
    figures = [r["cpu_us"] for r in found.get(peer, {}).get(scenario, [])]
    return statistics.median(figures) if figures else None


def judge(found, budgets):
    """Prints the table; how many budgets are missed."""
    missed = 0
    print(f"\n{'scenario':14}{'Envoy us':>10}{'Sluice us':>11}{'ratio':>8}{'budget':>8}")
    for scenario, budget in budgets.items():
        envoy, sluice = (cpu_us(found, peer, scenario) for peer in ("envoy", "sluice"))
        if not envoy or sluice is None:
            print(f"{scenario:14}{'not measured':>37}")
            missed += 1
            continue
        is_over = sluice / envoy > budget
        missed += is_over
        print(f"{scenario:14}{envoy:10.1f}{sluice:11.1f}{sluice / envoy:8.2f}{budget:8.2f}{'  missed' if is_over else ''}")
    return missed


def main():
    budgets = yaml.safe_load((HERE / "budgets.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--scenarios", default=",".join(budgets))
    options = parser.parse_args()
    scenarios = options.scenarios.split(",")
    if unknown := set(scenarios) - set(budgets):
        parser.error(f"no budget for {', '.join(sorted(unknown))}")
    if not SCRIPT.exists():
        print(f"skipped: there is no {SCRIPT}")
        return 0
    if not os.environ.get("ENVOY"):
        print("skipped: ENVOY names no Envoy to compare with")
        return 0
    missed = judge(measure(options, scenarios), {s: budgets[s] for s in scenarios})
    print(f"{missed} of {len(scenarios)} budgets missed" if missed else f"all {len(scenarios)} budgets are kept")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
