#!/bin/sh
# Pins NAME.in with hashes into NAME.txt (NAME: requirements or requirements-dev); run by hand after an edit.
set -eu
cd "$(dirname "$0")/.."
name=${1:?usage: pin.sh NAME}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
/usr/bin/python3 -m venv "$scratch/venv"
"$scratch/venv/bin/python" -m pip install -q pip-tools
{
    echo "# Pinned by hash from $name.in by scripts/pin.sh $name; do not edit."
    "$scratch/venv/bin/python" -m piptools compile -q --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --strip-extras --allow-unsafe "$name.in" -o -
} >"$scratch/out"
cp "$scratch/out" "$name.txt"
