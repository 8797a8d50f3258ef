#!/usr/bin/env python3
"""Runs tests of any kind and counts them: the last line is always `N passed, N failed[, N skipped]`.

    testrun.py --results DIR unit BINARY...        cmocka binaries, in parallel
    testrun.py --results DIR pytest ARG...         pytest, counted from its JUnit report
    testrun.py --results DIR fuzz BINARY...        libFuzzer binaries, a time limit each
    testrun.py --results DIR step NAME COMMAND...  any command: one passed or one failed
    testrun.py --results DIR sum NAME...           the sum of earlier runs; a missing one counts as failed
"""
import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree

UNIT_TIMEOUT_S = 300
Tally = collections.namedtuple("Tally", "passed failed skipped", defaults=(0, 0, 0))


def add(tallies):
    return Tally(*map(sum, zip(Tally(), *tallies)))


def finish(results, name, tally):
    """Record the tally under `name`, print it and exit accordingly."""
    if name:
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps(tally))
    skipped = f", {tally.skipped} skipped" if tally.skipped else ""
    print(f"{tally.passed} passed, {tally.failed} failed{skipped}", flush=True)
    sys.exit(1 if tally.failed else 0)


def execute(command, timeout):
    """Run to the end; returns (exit code, output). A hang counts as exit code 124."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=timeout, check=False)
        return done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return 124, (late.stdout or b"").decode(errors="replace") + f"\ntimed out after {timeout} s\n"


def count_cmocka(code, output):
    """Tally of one cmocka binary. Dying outside a test, or before its summary, is one more failure."""
    groups = re.findall(r"^\[=+\] Running.*?(?=^\[=+\] \d+ test\(s\) run|\Z)", output, re.M | re.S)
    lines = "".join(groups)
    passed, failed, skipped = (len(re.findall(rf"^\[ +{word} +\]", lines, re.M))
                               for word in ("OK", "FAILED", "SKIPPED"))
    if code != 0 and failed == 0 or passed + failed + skipped == 0:
        failed += 1
    return Tally(passed, failed, skipped)


def run_unit(binaries):
    def one(binary):
        start = time.monotonic()
        code, output = execute([os.path.abspath(binary)], UNIT_TIMEOUT_S)
        return binary, code, output, count_cmocka(code, output), time.monotonic() - start

    tallies = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for binary, code, output, tally, seconds in pool.map(one, binaries):
            verdict = f"FAIL (exit {code})" if tally.failed else "ok"
            print(f"{os.path.basename(binary):<40} {tally.passed:>4} {verdict} {seconds:.1f} s")
            if tally.failed:
                print(output)
            tallies.append(tally)
    return add(tallies)


def run_pytest(arguments, report):
    """Pytest's own output, then the tally. No test found is a tally of nothing, not a failure."""
    targets = [a for a in arguments if a.startswith("tests/")]
    if not any(pathlib.Path(t.split("::")[0]).exists() for t in targets):
        return Tally()
    if "-n" in arguments and sum(1 for t in targets if "::" in t) == 1:
        at = arguments.index("-n")
        arguments = arguments[:at] + arguments[at + 2:]
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=180", f"--junitxml={report}", *arguments]
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if code == 5:
        return Tally()
    if not report.exists():
        return Tally(failed=1)
    suites = list(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (sum(int(s.get(k)) for s in suites)
                                        for k in ("tests", "failures", "errors", "skipped"))
    failed = failures + errors
    if code not in (0, 1) and not failed:
        failed = 1
    return Tally(max(0, total - failures - errors - skipped), failed, skipped)


def run_fuzz(binaries, seconds, corpus, work):
    def one(binary):
        name = os.path.basename(binary)
        found = work / name
        found.mkdir(parents=True, exist_ok=True)
        seeds = corpus / name
        command = [os.path.abspath(binary), f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048",
                   "-print_final_stats=1", f"-artifact_prefix={found}-", str(found)]
        options = corpus / f"{name}.dict"
        command += [f"-dict={options}"] if options.exists() else []
        command += [str(seeds)] if seeds.is_dir() else []
        return name, *execute(command, seconds + 120)

    tallies = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, code, output in pool.map(one, binaries):
            executed = re.search(r"number_of_executed_units: (\d+)", output)
            print(f"{name:<40} {'ok' if code == 0 else f'FAIL (exit {code})'}"
                  f" {executed.group(1) if executed else '?'} runs")
            if code != 0:
                print(output[-8000:])
            tallies.append(Tally(int(code == 0), int(code != 0)))
    return add(tallies)


def run_step(command):
    start = time.monotonic()
    code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    print(f"{' '.join(command)}: {'ok' if code == 0 else f'FAIL (exit {code})'} {time.monotonic() - start:.0f} s")
    return Tally(int(code == 0), int(code != 0))


def load(results, name):
    path = results / f"{name}.json"
    if not path.exists():
        print(f"{name}: did not build or run")
        return Tally(failed=1)
    return Tally(*json.loads(path.read_text()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=pathlib.Path, required=True)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("unit").add_argument("binaries", nargs="*")
    pytest = kinds.add_parser("pytest")
    pytest.add_argument("--name", required=True)
    fuzz = kinds.add_parser("fuzz")
    fuzz.add_argument("--seconds", type=int, default=60)
    fuzz.add_argument("--corpus", type=pathlib.Path)
    fuzz.add_argument("--work", type=pathlib.Path)
    fuzz.add_argument("binaries", nargs="*")
    step = kinds.add_parser("step")
    step.add_argument("name")
    step.add_argument("command", nargs=argparse.REMAINDER)
    kinds.add_parser("sum").add_argument("names", nargs="+")
    arguments, rest = parser.parse_known_args()
    if arguments.kind != "pytest" and rest:
        parser.error(f"unknown: {' '.join(rest)}")

    results = arguments.results.absolute()
    if arguments.kind == "unit":
        finish(results, "unit", run_unit(arguments.binaries))
    if arguments.kind == "pytest":
        finish(results, arguments.name, run_pytest(rest, results / f"{arguments.name}.xml"))
    if arguments.kind == "fuzz":
        finish(results, "fuzz", run_fuzz(arguments.binaries, arguments.seconds,
                                         arguments.corpus.absolute(), arguments.work.absolute()))
    if arguments.kind == "step":
        finish(results, arguments.name, run_step(arguments.command))
    finish(results, None, add([load(results, name) for name in arguments.names]))


if __name__ == "__main__":
    main()
