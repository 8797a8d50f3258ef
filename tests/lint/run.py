#!/usr/bin/env python3
"""Checks the tree: prints `file:line: message` for each finding and exits 1 when there is one.

    run.py [--binary build/sluice] [CHECK...]      without names, all checks
"""
import argparse
import sys

import binary
import formatting
import layers
import rows
import sizes
import wording

SOURCE_CHECKS = {module.__name__: module for module in (layers, sizes, wording, formatting, rows)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", help="also check this linked binary")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=", ".join(SOURCE_CHECKS))
    arguments = parser.parse_args()
    findings = []
    for name in arguments.checks or SOURCE_CHECKS:
        findings += SOURCE_CHECKS[name].check()
    if arguments.binary:
        findings += binary.check(arguments.binary)
    for finding in sorted(findings, key=lambda f: (f.path, f.line)):
        print(finding)
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
